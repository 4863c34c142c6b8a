// SPDX-License-Identifier: MIT
/*
 * partita vm create and set. A machine from an image is made first and empty, so that it has its
 * folder; then its disk and seed are put there, then its settings name them. What fails on the way
 * removes it again.
 */
#include "cli/image.h"
#include "cli/output.h"
#include "cli/program.h"
#include "cli/vm.h"

#include "lib/cleanup.h"
#include "lib/program.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHANGE_TRIES 5

static const char *text_at(const json_t *o, const char *path)
{
	const char *text = json_string_value(json_at(o, path));

	return text ? text : "";
}

/* --- set --- */

/* Takes the options' items out of the patch, and puts the arrays whole in. */
static int patch_drives(struct command *c, const json_t *settings, json_t *patch, json_t *drives)
{
	json_t *controllers;
	const char *place;
	unsigned at = 0;
	int r = 0;

	if (!drives && !command_option(c, "remove-disk"))
		return 0;
	controllers = json_deep_copy(json_object_get(settings, "scsi_controllers"));
	if (!controllers)
		controllers = json_array();
	while (r >= 0 && (place = command_option_next(c, "remove-disk", &at)))
		r = drive_remove(controllers, place, &c->err);
	if (r >= 0 && drives) {
		json_t *copy = json_deep_copy(drives);

		r = drives_place(controllers, copy, &c->err);
		json_decref(copy);
	}
	json_object_set_new(patch, "scsi_controllers", controllers);
	return r;
}

static int patch_adapters(struct command *c, const json_t *settings, json_t *patch, json_t *added)
{
	json_t *adapters;
	const char *name;
	unsigned at = 0;
	int r = 0;

	if (!added && !command_option(c, "remove-adapter"))
		return 0;
	adapters = json_deep_copy(json_object_get(settings, "network_adapters"));
	if (!adapters)
		adapters = json_array();
	while (r >= 0 && (name = command_option_next(c, "remove-adapter", &at)))
		r = adapter_remove(adapters, name, &c->err);
	if (r >= 0 && added)
		r = adapters_place(adapters, added, &c->err);
	json_object_set_new(patch, "network_adapters", adapters);
	return r;
}

/* The patch for the machine as it is now; NULL with words. */
static json_t *patch_for(struct command *c, const json_t *settings)
{
	json_t *patch = json_deep_copy(c->settings);
	json_t *drives = json_object_get(c->settings, "scsi_controllers");
	json_t *adapters = json_object_get(c->settings, "network_adapters");

	if (patch_drives(c, settings, patch, drives) >= 0 &&
	    patch_adapters(c, settings, patch, adapters) >= 0)
		return patch;
	json_decref(patch);
	return NULL;
}

static int set_once(struct command *c, json_t **ret)
{
	struct client_answer a;
	json_t *patch;
	int r = vm_get(c, c->words[0], &a);

	if (r < 0)
		return r;
	patch = patch_for(c, json_object_get(a.body, "settings"));
	r = patch ? vm_patch(c, text_at(a.body, "id"), patch, a.etag[0] ? a.etag : NULL, ret)
		  : c->err.code;
	json_decref(patch);
	client_answer_deinit(&a);
	return r;
}

int vm_run_set(struct command *c)
{
	json_t *vm = NULL;
	int r = -ESTALE;

	if (!json_object_size(c->settings) && !command_option(c, "remove-disk") &&
	    !command_option(c, "remove-adapter"))
		return command_usage(c, "say what to change; `partita vm set --help` lists it");
	/* what others change meanwhile is not undone: it is read again */
	for (int i = 0; i < CHANGE_TRIES && r == -ESTALE; i++)
		r = set_once(c, &vm);
	if (r >= 0 && c->json)
		print_json(vm);
	if (vm)
		json_decref(vm);
	return r;
}

/* --- create --- */

struct creation {
	struct command *command;
	json_t *image;  /* NULL: none */
	unsigned taken; /* of image_settings */
	json_t *drives; /* those that are made in the machine's folder */
	char *folder;
	json_t *vm;
	struct seed seed;
	char keys[32][2048];
};

static int read_key(struct creation *n, const char *path)
{
	struct command *c = n->command;
	_cleanup_fclose_ FILE *f = fopen(path, "re");
	char *text = n->keys[n->seed.key_count];

	if (!f || !fgets(text, sizeof(n->keys[0]), f))
		return error_errno(&c->err, f ? -EINVAL : -errno, "--ssh-key: cannot read \"%s\"",
				   path);
	text[strcspn(text, "\r\n")] = 0;
	if (strstr(text, "PRIVATE KEY") ||
	    (strncmp(text, "ssh-", 4) && strncmp(text, "ecdsa-", 6) && strncmp(text, "sk-", 3)))
		return command_usage(c, "--ssh-key: \"%s\" is no public key; its name ends in .pub",
				     path);
	n->seed.keys[n->seed.key_count++] = text;
	return 0;
}

/* What the first boot is told; all of it is checked before anything is made. */
static int read_seed(struct creation *n)
{
	struct command *c = n->command;
	const char *path, *hostname = command_option(c, "hostname");
	unsigned at = 0;
	int r = 0;

	n->seed.user = command_option(c, "user");
	n->seed.hostname = hostname ? hostname : text_at(c->settings, "name");
	while (r >= 0 && (path = command_option_next(c, "ssh-key", &at))) {
		if (n->seed.key_count >= ARRAY_SIZE(n->keys))
			return command_usage(c, "--ssh-key: at most %zu times",
					     ARRAY_SIZE(n->keys));
		r = read_key(n, path);
	}
	if (r >= 0 && n->seed.key_count && !n->seed.user)
		r = command_usage(c, "--ssh-key: say --user, whose key it is");
	if (r >= 0 && n->seed.user && !seed_name_ok(n->seed.user))
		r = command_usage(c, "--user: \"%s\" is no name of a user", n->seed.user);
	if (r >= 0 && hostname && !seed_name_ok(hostname))
		r = command_usage(c, "--hostname: \"%s\" is no name of a host", hostname);
	if (!hostname && !seed_name_ok(n->seed.hostname))
		n->seed.hostname = "localhost";
	return r;
}

static bool wants_seed(const struct command *c)
{
	return command_option(c, "user") || command_option(c, "hostname") ||
	       command_option(c, "ssh-key") || command_option(c, "image");
}

/* What the image says and the command line does not; files are copied to the machine's folder. */
static const struct image_setting {
	const char *key, *section, *setting;
	bool file;
} image_settings[] = {
	{ "kernel", "boot", "kernel", true },
	{ "initrd", "boot", "initrd", true },
	{ "command_line", "boot", "command_line", false },
	{ "memory", "memory", "startup", false },
	{ "processors", "processors", "count", false },
};

static void take_from_image(struct creation *n)
{
	json_t *settings = n->command->settings;
	json_t *metadata = json_object_get(n->image, "metadata");

	for (size_t i = 0; i < ARRAY_SIZE(image_settings); i++) {
		const struct image_setting *s = &image_settings[i];
		json_t *v = json_object_get(metadata, s->key);
		json_t *to = json_object_get(settings, s->section);

		if (!v || json_is_null(v))
			continue;
		if (!to) {
			to = json_object();
			json_object_set_new(settings, s->section, to);
		}
		if (json_object_get(to, s->setting))
			continue;
		json_object_set_new(to, s->setting, s->file ? json_string(s->key) : json_incref(v));
		n->taken |= BIT(i);
	}
}

static int copy_from_image(struct creation *n)
{
	struct error *err = &n->command->err;
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(image_settings) && r >= 0; i++) {
		const struct image_setting *s = &image_settings[i];
		_cleanup_free_ char *from = NULL, *to = NULL;

		if (!s->file || !(n->taken & BIT(i)))
			continue;
		from = image_file(n->image, s->key);
		if (!from)
			return error_set(err, -EUCLEAN, "the image's %s is no file beside it",
					 s->key);
		if (asprintf(&to, "%s/%s", n->folder, s->key) < 0) {
			to = NULL;
			return error_set(err, -ENOMEM, "out of memory");
		}
		r = image_copy_file(from, to, err);
	}
	return r;
}

static int post_machine(struct creation *n)
{
	struct command *c = n->command;
	const char *folder = command_option(c, "folder");
	_cleanup_free_ char *full = NULL;
	json_t *body = json_pack("{s:O}", "settings", c->settings);
	struct client_request q = {
		.method = "POST", .path = "/vms", .body = body, .key = command_option(c, "key")
	};
	struct client_answer a;
	int r;

	if (folder && *folder != '/') {
		_cleanup_free_ char *here = getcwd(NULL, 0);

		if (!here || asprintf(&full, "%s/%s", here, folder) < 0)
			full = NULL;
	}
	if (folder)
		json_object_set_new(body, "folder", json_string(full ? full : folder));
	r = client_ask(c->client, &q, &a, &c->err);
	json_decref(body);
	if (r < 0)
		return r;
	n->vm = json_incref(a.body);
	client_answer_deinit(&a);
	n->folder = strdup(text_at(n->vm, "folder"));
	if (!n->folder || !*n->folder)
		return error_set(&c->err, -EPROTO, "the service does not say the machine's folder");
	return 0;
}

static int vhd_run(struct command *c, const char *const *arguments)
{
	const char *argv[12] = { 0 };
	char path[PATH_MAX];
	int r = program_find("vhd", "../vhdtool", path, &c->err);

	if (r < 0)
		return r;
	argv[0] = path;
	for (unsigned i = 0; arguments[i] && i + 2 < ARRAY_SIZE(argv); i++)
		argv[i + 1] = arguments[i];
	return program_run(argv, &c->err);
}

static void add_drive(struct creation *n, const char *kind, const char *path)
{
	json_array_append_new(n->drives, json_pack("{s:s,s:s}", "kind", kind, "path", path));
}

static int make_image_disk(struct creation *n)
{
	struct command *c = n->command;
	_cleanup_free_ char *from = image_file(n->image, "disk"), *to = NULL;
	const char *size = command_option(c, "disk-size");
	int r;

	if (!from || asprintf(&to, "%s/disk.vhdx", n->folder) < 0) {
		to = NULL;
		return error_set(&c->err, -EUCLEAN, "the image has no disk");
	}
	if (command_flag(c, "differencing"))
		r = vhd_run(c, (const char *[]){ "create", to, "--parent", from, NULL });
	else
		r = vhd_run(c, (const char *[]){ "convert", from, to, NULL });
	if (r >= 0 && size)
		r = vhd_run(c, (const char *[]){ "resize", to, size, NULL });
	if (r >= 0)
		add_drive(n, "disk", "disk.vhdx");
	return r;
}

static int make_new_disks(struct creation *n)
{
	struct command *c = n->command;
	const char *size;
	unsigned at = 0, number = 1;
	int r = 0;

	while (r >= 0 && (size = command_option_next(c, "new-disk", &at))) {
		_cleanup_free_ char *to = NULL;
		char name[32];

		snprintf(name, sizeof(name), "disk-%u.vhdx", number++);
		if (asprintf(&to, "%s/%s", n->folder, name) < 0) {
			to = NULL;
			return error_set(&c->err, -ENOMEM, "out of memory");
		}
		r = vhd_run(c, (const char *[]){ "create", to, "--size", size, NULL });
		add_drive(n, "disk", name);
	}
	return r;
}

static int make_seed(struct creation *n)
{
	_cleanup_free_ char *to = NULL;
	int r;

	if (!wants_seed(n->command))
		return 0;
	if (asprintf(&to, "%s/seed.iso", n->folder) < 0) {
		to = NULL;
		return error_set(&n->command->err, -ENOMEM, "out of memory");
	}
	n->seed.instance = text_at(n->vm, "id");
	r = seed_write(&n->seed, to, &n->command->err);
	add_drive(n, "dvd", "seed.iso");
	return r;
}

/*
 * What root has just made in a folder of the service's is the service's to open. Its user may do in
 * there as it likes: what has other names as well is none of ours, and links are not followed.
 */
static void folder_give(const char *path)
{
	_cleanup_close_ int folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = folder < 0 ? NULL : fdopendir(dup(folder));
	struct stat owner, st;
	struct dirent *e;

	if (geteuid() || !dir || fstat(folder, &owner) < 0 || !owner.st_uid) {
		if (dir)
			closedir(dir);
		return;
	}
	while ((e = readdir(dir))) {
		_cleanup_close_ int fd = openat(folder, e->d_name, O_PATH | O_NOFOLLOW | O_CLOEXEC);

		/* If it cannot be given the start of the machine says which file it is. */
		if (fd >= 0 && !fstat(fd, &st) && S_ISREG(st.st_mode) && !st.st_uid &&
		    st.st_nlink == 1)
			(void)!fchownat(fd, "", owner.st_uid, owner.st_gid, AT_EMPTY_PATH);
	}
	closedir(dir);
}

/* The image's disk comes first: it is what the command line's root= means. */
static int fill_folder(struct creation *n)
{
	struct command *c = n->command;
	json_t *controllers, *patch, *said = json_object_get(c->settings, "scsi_controllers");
	json_t *vm;
	int r = 0;

	if (access(n->folder, W_OK) < 0)
		return error_errno(&c->err, -errno,
				   "the machine's folder \"%s\" cannot be written by you; disks "
				   "can be made only there",
				   n->folder);
	if (n->image)
		r = make_image_disk(n);
	if (r >= 0 && n->image)
		r = copy_from_image(n);
	if (r >= 0)
		r = make_new_disks(n);
	if (r >= 0)
		r = make_seed(n);
	if (r < 0)
		return r;
	folder_give(n->folder);
	controllers = json_deep_copy(said);
	if (!controllers)
		controllers = json_array();
	r = drives_place(controllers, n->drives, &c->err);
	patch = json_pack("{s:o}", "scsi_controllers", controllers);
	if (r >= 0)
		r = vm_patch(c, text_at(n->vm, "id"), patch, NULL, &vm);
	json_decref(patch);
	if (r < 0)
		return r;
	json_decref(n->vm);
	n->vm = vm;
	return 0;
}

static void take_back(struct creation *n)
{
	_cleanup_free_ char *path = client_path("/vms/", text_at(n->vm, "id"), "?files=true");
	struct client_answer a;

	if (!client_ask(n->command->client,
			&(struct client_request){ .method = "DELETE", .path = path }, &a, NULL))
		client_answer_deinit(&a);
}

/* Options' drives get their places; a name is needed. */
static int prepare(struct creation *n)
{
	struct command *c = n->command;
	json_t *drives = json_incref(json_object_get(c->settings, "scsi_controllers"));
	json_t *controllers = json_array();
	int r = 0;

	if (c->word_count && json_object_get(c->settings, "name"))
		r = command_usage(c, "say the name once: as a word, or with --name");
	else if (c->word_count)
		json_object_set_new(c->settings, "name", json_string(c->words[0]));
	if (r >= 0 && !json_object_get(c->settings, "name"))
		r = command_usage(c, "say the machine's name");
	if (r >= 0 && drives)
		r = drives_place(controllers, drives, &c->err);
	if (drives) {
		json_object_set(c->settings, "scsi_controllers", controllers);
		json_decref(drives);
	}
	json_decref(controllers);
	if (r >= 0 && wants_seed(c))
		r = read_seed(n);
	if (r >= 0 && !command_client(c))
		r = c->err.code;
	if (r >= 0 && command_option(c, "image")) {
		r = image_get(c, command_option(c, "image"), &n->image);
		if (r >= 0)
			take_from_image(n);
	}
	return r;
}

static int create(struct creation *n)
{
	struct command *c = n->command;
	int r = prepare(n);

	if (r >= 0)
		r = post_machine(n);
	if (r >= 0 && (n->image || wants_seed(c) || command_option(c, "new-disk"))) {
		r = fill_folder(n);
		if (r < 0)
			take_back(n);
	}
	if (r < 0)
		return r;
	if (c->json && !command_flag(c, "start"))
		print_json(n->vm);
	else if (!c->json)
		puts(text_at(n->vm, "id"));
	if (command_flag(c, "start"))
		r = vm_do(c, text_at(n->vm, "id"), text_at(n->vm, "name"), "start");
	return r;
}

int vm_run_create(struct command *c)
{
	struct creation *n = calloc(1, sizeof(*n));
	int r;

	if (!n)
		return error_set(&c->err, -ENOMEM, "out of memory");
	n->command = c;
	n->drives = json_array();
	r = create(n);
	json_decref(n->drives);
	json_decref(n->image);
	json_decref(n->vm);
	free(n->folder);
	free(n);
	return r;
}
