// SPDX-License-Identifier: MIT
/*
 * partita image: the catalogue. The service lists it and removes from it; images are put into its
 * folder by whoever may write there: NAME.vhdx, NAME.json, NAME.kernel and NAME.initrd. They are
 * made in a folder of their own; the disk, by which an image shows, comes to its place last.
 */
#include "cli/image.h"
#include "cli/output.h"
#include "cli/program.h"

#include "lib/cleanup.h"
#include "lib/folder.h"
#include "lib/program.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static const struct column columns[] = {
	{ "NAME", "name", COLUMN_TEXT, false },
	{ "SYSTEM", "metadata.os", COLUMN_TEXT, false },
	{ "CHANGED", "changed", COLUMN_TIME, false },
	{ "DESCRIPTION", "metadata.description", COLUMN_TEXT, true },
};

static const struct column facts[] = {
	{ "Name", "name", COLUMN_TEXT, false },
	{ "Description", "metadata.description", COLUMN_TEXT, false },
	{ "System", "metadata.os", COLUMN_TEXT, false },
	{ "Changed", "changed", COLUMN_TIME, false },
	{ "Disk", "file", COLUMN_TEXT, false },
	{ "Bytes", "size", COLUMN_NUMBER, false },
	{ "Kernel", "metadata.kernel", COLUMN_TEXT, false },
	{ "Initial RAM disk", "metadata.initrd", COLUMN_TEXT, false },
	{ "Command line", "metadata.command_line", COLUMN_TEXT, false },
	{ "Memory", "metadata.memory", COLUMN_MIB, false },
	{ "Processors", "metadata.processors", COLUMN_NUMBER, false },
};

static const char *text_at(const json_t *o, const char *path)
{
	return json_string_value(json_at(o, path));
}

int image_get(struct command *c, const char *name, json_t **ret)
{
	_cleanup_free_ char *path = client_path("/images/", name, "");
	int r = client_get(c->client, path, ret, &c->err);

	if (r == -ENOENT)
		error_set(&c->err, r,
			  "there is no image \"%s\"; `partita image list` tells what there is, "
			  "`partita image build debian` makes one",
			  name);
	return r;
}

char *image_file(const json_t *image, const char *key)
{
	const char *disk = text_at(image, "file"), *slash = disk ? strrchr(disk, '/') : NULL;
	const char *name =
		json_string_value(json_object_get(json_object_get(image, "metadata"), key));
	char *path;

	if (!slash)
		return NULL;
	if (!strcmp(key, "disk"))
		return strdup(disk);
	/* a name beside the disk, nothing else */
	if (!name || !*name || strchr(name, '/') || !strcmp(name, ".."))
		return NULL;
	return asprintf(&path, "%.*s/%s", (int)(slash - disk), disk, name) < 0 ? NULL : path;
}

/* --- files --- */

static int copy_bytes(int from, int to)
{
	char buffer[65536];
	ssize_t n;

	while ((n = read(from, buffer, sizeof(buffer))) > 0)
		for (ssize_t at = 0; at < n;) {
			ssize_t w = write(to, buffer + at, (size_t)(n - at));

			if (w < 0)
				return -errno;
			at += w;
		}
	return n < 0 ? -errno : fsync(to) < 0 ? -errno : 0;
}

int image_copy_file(const char *from, const char *to, struct error *err)
{
	_cleanup_close_ int in = open(from, O_RDONLY | O_CLOEXEC), out = -1;
	int r;

	if (in < 0)
		return error_errno(err, -errno, "cannot open \"%s\"", from);
	out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	r = out < 0 ? -errno : copy_bytes(in, out);
	return r < 0 ? error_errno(err, r, "cannot copy \"%s\" to \"%s\"", from, to) : 0;
}

/* --- list, show, remove --- */

static int run_list(struct command *c)
{
	return list_run(c, strdup("/images"), columns, ARRAY_SIZE(columns));
}

static int run_show(struct command *c)
{
	json_t *image;
	int r;

	if (!command_client(c))
		return c->err.code;
	r = image_get(c, c->words[0], &image);
	if (r < 0)
		return r;
	if (c->json)
		print_json(image);
	else
		print_facts(image, facts, ARRAY_SIZE(facts));
	json_decref(image);
	return 0;
}

static int run_remove(struct command *c)
{
	_cleanup_free_ char *path = client_path("/images/", c->words[0], "");

	return ask_run(c, &(struct client_request){ .method = "DELETE", .path = path }, NULL);
}

/* --- import --- */

struct import {
	struct command *command;
	const char *name;
	const char *disk, *kernel, *initrd; /* files from outside */
	json_t *image;
	char *catalogue, *partial; /* folders */
};

static void import_deinit(struct import *m)
{
	free(m->catalogue);
	free(m->partial);
	json_decref(m->image);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	remove(path);
	return 0;
}

static void remove_tree(const char *path)
{
	nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static int find_catalogue(struct import *m)
{
	struct command *c = m->command;
	const char *said, *state;
	json_t *host;
	int r = client_get(c->client, "/host", &host, &c->err);

	if (r < 0)
		return r;
	said = text_at(host, "settings.image_folder");
	state = text_at(host, "state_folder");
	if (said)
		m->catalogue = strdup(said);
	else if (!state || asprintf(&m->catalogue, "%s/images", state) < 0)
		m->catalogue = NULL;
	json_decref(host);
	if (!m->catalogue)
		return error_set(&c->err, -EPROTO, "the service does not say where its images are");
	if (mkdir(m->catalogue, 0755) < 0 && errno != EEXIST)
		return error_errno(&c->err, -errno, "cannot make \"%s\"", m->catalogue);
	return 0;
}

static int begin(struct import *m)
{
	struct command *c = m->command;
	_cleanup_free_ char *disk = NULL;
	int r;

	if (!seed_name_ok(m->name))
		return command_usage(
			c, "\"%s\" is no name of an image; letters, digits, - . _ make one",
			m->name);
	if (!command_client_here(c, "an image is made", "run this there"))
		return c->err.code;
	r = find_catalogue(m);
	if (r < 0)
		return r;
	if (asprintf(&disk, "%s/%s.vhdx", m->catalogue, m->name) < 0 ||
	    asprintf(&m->partial, "%s/.%s.new-%d", m->catalogue, m->name, (int)getpid()) < 0)
		return error_set(&c->err, -ENOMEM, "out of memory");
	if (access(disk, F_OK) >= 0)
		return error_set(&c->err, -EEXIST, "there is an image \"%s\" already", m->name);
	if (mkdir(m->partial, 0755) < 0)
		return error_errno(&c->err, -errno, "cannot make \"%s\"", m->partial);
	return 0;
}

static int make_path(char **ret, const char *folder, const char *name, const char *ending,
		     struct error *err)
{
	if (asprintf(ret, "%s/%s.%s", folder, name, ending) >= 0)
		return 0;
	*ret = NULL;
	return error_set(err, -ENOMEM, "out of memory");
}

/* Copies a file into the folder and notes it. */
static int take_file(struct import *m, const char *from, const char *ending)
{
	struct error *err = &m->command->err;
	_cleanup_free_ char *to = NULL;
	int r;

	if (!from)
		return 0;
	r = make_path(&to, m->partial, m->name, ending, err);
	if (r < 0)
		return r;
	r = image_copy_file(from, to, err);
	if (r < 0)
		return r;
	json_object_set_new(m->image, ending, json_string(strrchr(to, '/') + 1));
	return 0;
}

static int take_disk(struct import *m)
{
	struct error *err = &m->command->err;
	_cleanup_free_ char *to = NULL;
	char vhd[PATH_MAX];
	int r = program_find("vhd", "../vhdtool", vhd, err);

	if (r >= 0)
		r = make_path(&to, m->partial, m->name, "vhdx", err);
	if (r >= 0)
		r = program_run((const char *[]){ vhd, "convert", m->disk, to, NULL }, err);
	return r;
}

static int write_metadata(struct import *m)
{
	struct error *err = &m->command->err;
	_cleanup_free_ char *path = NULL, *text = json_dumps(m->image, JSON_INDENT(2));
	FILE *f;
	bool bad;
	int r = make_path(&path, m->partial, m->name, "json", err);

	if (r < 0)
		return r;
	f = text ? fopen(path, "we") : NULL;
	bad = !f || fprintf(f, "%s\n", text) < 0 || fflush(f) || fsync(fileno(f)) < 0;
	if ((f && fclose(f)) || bad)
		return error_errno(err, -errno, "cannot write \"%s\"", path);
	return 0;
}

/* All is on the disk before the image shows. */
static int show_image(struct import *m)
{
	static const char *const endings[] = { "kernel", "initrd", "json", "vhdx" };
	struct error *err = &m->command->err;
	int r = write_metadata(m);

	for (size_t i = 0; i < ARRAY_SIZE(endings) && r >= 0; i++) {
		_cleanup_free_ char *from = NULL, *to = NULL;

		r = make_path(&from, m->partial, m->name, endings[i], err);
		if (r >= 0)
			r = make_path(&to, m->catalogue, m->name, endings[i], err);
		if (r >= 0 && rename(from, to) < 0 && (errno != ENOENT || i >= 2))
			r = error_errno(err, -errno, "cannot make \"%s\"", to);
		if (r >= 0 && i + 1 == ARRAY_SIZE(endings) && (r = folder_sync(to)) < 0)
			error_errno(err, r, "cannot write \"%s\"", m->catalogue);
	}
	remove_tree(m->partial);
	return r;
}

/* Settings of the options, and the rest of image.json. */
static int describe(struct import *m, const char *os, const char *description)
{
	struct command *c = m->command;
	const char *cmdline = command_option(c, "cmdline"), *memory = command_option(c, "memory");
	unsigned processors = 0;
	uint64_t bytes;
	char created[32];
	time_t t = time(NULL);
	int r = command_number(c, "cpus", 64, &processors);

	if (r < 0)
		return r;
	strftime(created, sizeof(created), "%Y-%m-%dT%H:%M:%S.000Z", gmtime(&t));
	m->image = json_pack("{s:s,s:s,s:s,s:s}", "description", description ? description : "",
			     "os", os ? os : "", "created", created, "architecture", "x86_64");
	if (!m->image)
		return command_usage(c, "the texts are not UTF-8");
	if (cmdline)
		json_object_set_new(m->image, "command_line", json_string(cmdline));
	if (processors)
		json_object_set_new(m->image, "processors", json_integer(processors));
	if (!memory)
		return 0;
	r = cli_parse_size(memory, &bytes, &c->err);
	if (r < 0)
		return error_prefix(&c->err, "--memory");
	json_object_set_new(m->image, "memory", json_integer((json_int_t)(bytes / MIB)));
	return 0;
}

static int import_all(struct import *m)
{
	int r = take_disk(m);

	if (r >= 0)
		r = take_file(m, m->kernel, "kernel");
	if (r >= 0)
		r = take_file(m, m->initrd, "initrd");
	if (r >= 0)
		r = show_image(m);
	if (r < 0)
		remove_tree(m->partial);
	else if (m->command->json)
		print_json(m->image);
	return r;
}

static int run_import(struct command *c)
{
	struct import m = { .command = c,
			    .name = c->words[0],
			    .disk = c->words[1],
			    .kernel = command_option(c, "kernel"),
			    .initrd = command_option(c, "initrd") };
	int r = describe(&m, command_option(c, "os"), command_option(c, "description"));

	if (r >= 0 && access(m.disk, R_OK) < 0)
		r = error_errno(&c->err, -errno, "cannot read \"%s\"", m.disk);
	if (r >= 0)
		r = begin(&m);
	if (r >= 0)
		r = import_all(&m);
	import_deinit(&m);
	return r;
}

/* --- build --- */

/* The script leaves disk.raw, kernel, initrd in a folder of ours; they are then imported. */
static int build(struct import *m, const char *work)
{
	struct command *c = m->command;
	const char *suite = command_option(c, "suite"), *size = command_option(c, "size");
	const char *packages = command_option(c, "packages"), *mirror = command_option(c, "mirror");
	_cleanup_free_ char *disk = NULL, *kernel = NULL, *initrd = NULL;
	char script[PATH_MAX];
	int r = program_find("partita-image-debian", NULL, script, &c->err);

	if (r < 0)
		return r;
	r = program_run((const char *[]){ script, work, suite ? suite : "bookworm",
					  size ? size : "2G", packages ? packages : "",
					  mirror ? mirror : "", NULL },
			&c->err);
	if (r < 0)
		return r;
	if (asprintf(&disk, "%s/disk.raw", work) < 0 || asprintf(&kernel, "%s/kernel", work) < 0 ||
	    asprintf(&initrd, "%s/initrd", work) < 0)
		return error_set(&c->err, -ENOMEM, "out of memory");
	m->disk = disk;
	m->kernel = kernel;
	m->initrd = initrd;
	return import_all(m);
}

static int run_build(struct command *c)
{
	struct import m = { .command = c, .name = c->word_count > 1 ? c->words[1] : "debian-12" };
	const char *folder = getenv("TMPDIR");
	_cleanup_free_ char *work = NULL;
	int r;

	if (strcmp(c->words[0], "debian"))
		return command_usage(c, "\"%s\" cannot be built; there is debian", c->words[0]);
	r = describe(&m, "Debian", "Debian, from its packages");
	if (r >= 0 && !command_option(c, "cmdline"))
		json_object_set_new(m.image, "command_line",
				    json_string("console=ttyS0 root=/dev/sda rw quiet"));
	if (r >= 0)
		r = begin(&m);
	if (r >= 0 &&
	    asprintf(&work, "%s/partita-image-XXXXXX", folder ? folder : "/var/tmp") < 0) {
		work = NULL;
		r = error_set(&c->err, -ENOMEM, "out of memory");
	}
	if (r >= 0 && !mkdtemp(work))
		r = error_errno(&c->err, -errno, "cannot make \"%s\"", work);
	else if (r >= 0) {
		r = build(&m, work);
		remove_tree(work);
	}
	if (r < 0 && m.partial)
		remove_tree(m.partial);
	import_deinit(&m);
	return r;
}

/* --- verbs --- */

#define BOOT_OPTIONS                                                                               \
	{ "cmdline", WORD_TEXT, "TEXT", "command line of the kernel" },                            \
		{ "memory", WORD_TEXT, "SIZE", "what a machine gets unless said, like 1G" },       \
	{                                                                                          \
		"cpus", WORD_TEXT, "N", "processors that a machine gets unless said"               \
	}

/* clang-format off */
static const struct command_option import_options[] = {
	{ "kernel", WORD_FILE, "FILE", "kernel that is started without firmware" },
	{ "initrd", WORD_FILE, "FILE", "its initial RAM disk" },
	BOOT_OPTIONS,
	{ "description", WORD_TEXT, "TEXT", "for people" },
	{ "os", WORD_TEXT, "TEXT", "the system in it, like Debian 12" },
	{ 0 },
};

static const struct command_option build_options[] = {
	{ "suite", WORD_TEXT, "NAME", "Debian's suite (bookworm)" },
	{ "size", WORD_TEXT, "SIZE", "of the disk (2G)" },
	{ "packages", WORD_TEXT, "LIST", "more packages, with commas between" },
	{ "mirror", WORD_TEXT, "URL", "where they come from (apt's sources of this host)" },
	BOOT_OPTIONS,
	{ 0 },
};

#define IMAGE .words = "IMAGE", .words_min = 1, .words_max = 1, .word = WORD_IMAGE

static const struct command_verb verbs[] = {
	{ .name = "list", .summary = "List the catalogue", .list = true,
	  .examples = "partita image list\n", .run = run_list },
	{ .name = "show", IMAGE, .summary = "Tell all about an image",
	  .examples = "partita image show debian-12\n", .run = run_show },
	{ .name = "import", .words = "NAME FILE", .words_min = 2, .words_max = 2,
	  .word = WORD_FILE, .summary = "Put a copy of a disk into the catalogue, as VHDX",
	  .notes = "FILE is VHDX, VHD, raw or what else `vhd convert` reads. The service's folder "
		   "for images has to be writable.",
	  .examples = "partita image import alpine alpine.qcow2 --kernel vmlinuz-virt --initrd initramfs-virt \\\n"
		      "    --cmdline 'console=ttyS0 root=/dev/sda3'\n",
	  .options = import_options, .run = run_import },
	{ .name = "build", .words = "debian [NAME]", .words_min = 1, .words_max = 2,
	  .word = WORD_TEXT, .summary = "Build an image from a distribution's packages",
	  .notes = "With mmdebstrap, in a few minutes; without root if user namespaces can be had. "
		   "It has cloud-init, an SSH server, and Debian's kernel for clouds.",
	  .examples = "partita image build debian\n"
		      "partita image build debian web-base --packages nginx --size 4G\n",
	  .options = build_options, .run = run_build },
	{ .name = "remove", IMAGE, .summary = "Remove an image",
	  .notes = "Machines made with --differencing need their image; others have a copy.",
	  .examples = "partita image remove debian-12\n", .run = run_remove },
};
/* clang-format on */

const struct command_noun noun_image = { "image", "The catalogue of images for new machines", verbs,
					 ARRAY_SIZE(verbs) };
