// SPDX-License-Identifier: MIT
/*
 * Machines come and go: made, registered, removed, and read when the service begins. The order is
 * always the same: the registry says what is about to happen (its phase), the folder changes, the
 * registry says that it did. Each step is durable before the next. What a crash left between two of
 * them row_recover finishes, or undoes.
 */
#include "daemon/vm_internal.h"

#include "daemon/key.h"
#include "daemon/vm_check.h"
#include "daemon/vm_file.h"
#include "lib/cleanup.h"
#include "lib/folder.h"
#include "lib/log.h"
#include "schema/json.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#define VMS_MAX    20000 /* of a service: what its memory is planned for */
#define FOLDER_MAX 3500  /* bytes; leaves room for the names inside */
#define NAME_BYTES 200   /* of a folder made from a name */

#define _cleanup_settings_ _cleanup_(vm_settings_deinit)

int caller_check(struct daemon *d, const struct caller *c, enum operation op, const struct vm *vm,
		 struct error *err)
{
	const struct target t = vm_target(vm);

	return authz_check(d->authz, c, op, &t, err);
}

/* --- folders --- */

char *machine_folder(const struct daemon *d)
{
	char *folder;

	if (d->host.machine_folder)
		return strdup(d->host.machine_folder);
	return asprintf(&folder, "%s/machines", d->state_folder) < 0 ? NULL : folder;
}

/* Whether `path` is `folder` or below it; both absolute and plain. */
static bool path_below(const char *path, const char *folder)
{
	size_t n = strlen(folder);

	return !strncmp(path, folder, n) && (path[n] == '/' || !path[n]);
}

bool path_plain(const char *path)
{
	if (*path == '/')
		path++;
	while (*path) {
		size_t n = strcspn(path, "/");

		if (!n || (n == 1 && path[0] == '.') ||
		    (n == 2 && path[0] == '.' && path[1] == '.'))
			return false;
		path += n;
		if (*path && !*++path)
			return false;
	}
	return true;
}

static int check_folder(struct daemon *d, const struct caller *c, const char *folder,
			struct error *err)
{
	_cleanup_free_ char *machines = machine_folder(d);

	if (!machines)
		return error_set(err, -ENOMEM, "not enough memory");
	if (*folder != '/' || !folder[1] || !path_plain(folder) || strlen(folder) > FOLDER_MAX ||
	    !text_printable(folder)) {
		error_set(err, -EINVAL,
			  "folder: must be an absolute path of at most %d bytes, without . and ..",
			  FOLDER_MAX);
		if (err)
			snprintf(err->property, sizeof(err->property), "folder");
		return -EINVAL;
	}
	if (c->administrator || (path_below(folder, machines) && strcmp(folder, machines) &&
				 !strchr(folder + strlen(machines) + 1, '/')))
		return 0;
	return error_set(err, -EACCES,
			 "only administrators may have machines that are not folders in %s",
			 machines);
}

/* A name for a folder that is safe on any file system and in any shell. */
static void folder_name(const char *name, char *ret, size_t size)
{
	size_t n = 0;

	for (; *name && n + 1 < MIN(size, NAME_BYTES); name++) {
		char ch = *name;

		if (strchr("/\\:*?\"<>|", ch) || (n == 0 && (ch == '.' || ch == '-' || ch == '~')))
			ch = '_';
		ret[n++] = ch;
	}
	/* Not in the middle of a character. */
	if (((uint8_t)*name & 0xc0) == 0x80) {
		while (n && ((uint8_t)ret[n - 1] & 0xc0) == 0x80)
			n--;
		n -= n > 0;
	}
	while (n && ret[n - 1] == '.')
		ret[n - 1] = '_';
	ret[n] = '\0';
}

static int choose_folder(struct daemon *d, const struct vm_settings *s, char **ret,
			 struct error *err)
{
	_cleanup_free_ char *machines = machine_folder(d);
	char name[NAME_BYTES + 1];
	char *folder;
	bool made;
	int r;

	if (!machines)
		return error_set(err, -ENOMEM, "not enough memory");
	made = access(machines, F_OK) < 0;
	r = folder_make_all(machines, err);
	if (r < 0)
		return r;
	/* Workers are of our group, and find the parents of their images in there. */
	if (d->privd && made && chmod(machines, 0750) < 0)
		return error_errno(err, -errno, "cannot open \"%s\" for the group", machines);
	folder_name(s->name, name, sizeof(name));
	if (asprintf(&folder, "%s/%s", machines, name) < 0)
		return error_set(err, -ENOMEM, "not enough memory");
	if (faccessat(AT_FDCWD, folder, F_OK, AT_SYMLINK_NOFOLLOW) == 0) {
		free(folder);
		if (asprintf(&folder, "%s/%s-%.8s", machines, name, s->id) < 0)
			return error_set(err, -ENOMEM, "not enough memory");
	}
	*ret = folder;
	return 0;
}

/* --- rules that need the host and the other machines --- */

struct path_check {
	struct daemon *d;
	const struct caller *c;
	const char *folder;
	const struct vm_settings *old;
	const char *wanted; /* while the old ones are looked through */
	struct error *err;
};

static int same_path(void *context, const char *property, const char *path)
{
	const struct path_check *p = context;

	(void)property;
	return strcmp(path, p->wanted) ? 0 : 1;
}

static bool below_any_folder(const struct path_check *p, const char *path)
{
	_cleanup_free_ char *machines = machine_folder(p->d);
	_cleanup_free_ char *images = NULL;
	const char *const folders[] = { p->folder, machines, p->d->host.disk_folder,
					p->d->host.image_folder };

	for (size_t i = 0; i < ARRAY_SIZE(folders); i++)
		if (folders[i] && path_below(path, folders[i]))
			return true;
	if (p->d->host.image_folder || asprintf(&images, "%s/images", p->d->state_folder) < 0)
		return false;
	return path_below(path, images);
}

/* We open files as ourselves: others must not get at the host's through a disk of theirs. */
static int check_one_path(void *context, const char *property, const char *path)
{
	struct path_check *p = context;

	p->wanted = path;
	if (p->old && vm_check_paths(p->old, same_path, p) == 1)
		return 0;
	if (path_plain(path) && (*path != '/' || below_any_folder(p, path)))
		return 0;
	error_set(p->err, -EACCES,
		  "%s: only administrators may name files outside of the machine's folder and the "
		  "host's folders for machines, disks and images",
		  property);
	if (p->err)
		snprintf(p->err->property, sizeof(p->err->property), "%s", property);
	return -EACCES;
}

/* The other machine that has this address, or NULL. */
static struct vm *find_mac(struct daemon *d, const char *mac, const struct vm *but)
{
	char text[MAC_TEXT_SIZE];

	list_foreach(it, &d->vms)
	{
		struct vm *vm = list_entry(it, struct vm, node);

		for (unsigned i = 0; vm != but && i < vm->settings.network_adapters_count; i++) {
			const char *other = vm->settings.network_adapters[i].mac;

			if (other && mac_parse(other, text) == 0 && !strcmp(text, mac))
				return vm;
		}
	}
	return NULL;
}

static int check_macs(struct daemon *d, const struct vm_settings *s, const struct vm *old,
		      struct error *err)
{
	for (unsigned i = 0; i < s->network_adapters_count; i++) {
		char mac[MAC_TEXT_SIZE];
		const struct vm *other;

		if (!s->network_adapters[i].mac || mac_parse(s->network_adapters[i].mac, mac) < 0)
			continue;
		other = find_mac(d, mac, old);
		if (!other)
			continue;
		error_set(err, -EINVAL,
			  "network_adapters[%u].mac: the machine \"%s\" has this address; leave it "
			  "out, and one is chosen",
			  i, other->settings.name);
		if (err)
			snprintf(err->property, sizeof(err->property), "network_adapters[%u].mac",
				 i);
		return -EINVAL;
	}
	return 0;
}

int vm_check_here(struct daemon *d, const struct caller *c, const char *folder,
		  const struct vm_settings *s, const struct vm *old, struct error *err)
{
	struct path_check p = { d, c, folder, old ? &old->settings : NULL, NULL, err };
	int r = vm_check(s, err);

	if (r == 0 && !c->administrator)
		r = vm_check_paths(s, check_one_path, &p);
	if (r == 0)
		r = vm_things_check(d, s, old ? &old->settings : NULL, err);
	return r == 0 ? check_macs(d, s, old, err) : r;
}

/* --- making --- */

/* What we tell, and nobody sets. */
static int refuse_told(const json_t *settings, struct error *err)
{
	for (unsigned i = 0; i < vm_settings_schema.field_count; i++) {
		const struct schema_field *f = &vm_settings_schema.fields[i];

		if (f->when != SCHEMA_NOT_SET || !json_object_get(settings, f->name))
			continue;
		error_set(err, -EINVAL, "%s: is not set from outside; leave it out", f->name);
		if (err)
			snprintf(err->property, sizeof(err->property), "%s", f->name);
		return -EINVAL;
	}
	return 0;
}

static int new_settings(const struct caller *c, json_t *json, struct vm_settings *ret,
			struct error *err)
{
	_cleanup_json_ json_t *copy = json_copy(json);
	struct guid guid = guid_random();
	char id[GUID_TEXT_SIZE];
	int r = refuse_told(json, err);

	if (r < 0)
		return r;
	if (json_is_object(copy) &&
	    (json_object_set_new(copy, "id", json_string(guid_format(&guid, id))) < 0 ||
	     json_object_set_new(copy, "created", json_integer(time_ms() / 1000)) < 0 ||
	     json_object_set_new(copy, "creator", json_string(c->name)) < 0))
		return error_set(err, -ENOMEM, "not enough memory");
	return schema_decode(&vm_settings_schema, copy, ret, err);
}

/* What the key made; NULL: nothing, or it is gone. */
static int find_key(struct daemon *d, const struct caller *c, const struct key *key,
		    struct vm **ret, struct error *err)
{
	_cleanup_free_ char *id = NULL;
	int r = key_find(d->db, c, key, &id, err);

	if (r == 0)
		*ret = id ? vm_find(d, id) : NULL;
	return r;
}

/* The request is the settings and the folder, as they were given. */
static int create_key(const char *text, json_t *settings, const char *folder, struct key *ret,
		      struct error *err)
{
	_cleanup_json_ json_t *body =
		json_pack("{s:O, s:s?}", "settings", settings, "folder", folder);

	return key_init(ret, text, "POST /vms", body, err);
}

/* A machine that is about to be: what the steps need of it. */
struct birth {
	struct daemon *d;
	const struct caller *c;
	struct vm *vm;
	enum vm_phase phase;
	const struct key *key;
	const char *kind, *words; /* of the event */
};

static void birth_event(const struct birth *b)
{
	event_add(b->d->events, SEVERITY_AUDIT, b->kind, b->vm->id, b->c,
		  json_pack("{s:s,s:s}", "name", b->vm->settings.name, "folder", b->vm->folder),
		  "%s \"%s\" in %s", b->words, b->vm->settings.name, b->vm->folder);
}

/* From here on a crash leaves something to do. */
static int birth_begin(const struct birth *b, struct error *err)
{
	int r = undone_forget(b->d, err); /* one may be in the way */

	if (r == 0)
		r = database_begin(b->d->db, err);
	if (r < 0)
		return r;
	r = registry_add(b->d->db, b->vm->id, b->vm->folder, b->phase, err);
	if (r == -EEXIST)
		error_set(err, r, "a machine in %s is registered already", b->vm->folder);
	if (r == 0 && b->key)
		r = key_add(b->d->db, b->c, b->key, b->vm->id, err);
	if (r < 0) {
		database_rollback(b->d->db);
		return r;
	}
	birth_event(b);
	return database_commit(b->d->db, err);
}

/* A row that cannot be removed now is later, or by the next service, which finds no folder for it.
 */
static void birth_undo(const struct birth *b, const struct error *why)
{
	struct error err = { 0 };

	if (registry_remove(b->d->db, b->vm->id, &err) < 0) {
		log_line("cannot forget a machine that was not made: %s", err.message);
		undone_add(b->d, b->vm->id);
	}
	event_add(b->d->events, SEVERITY_ERROR, "vm-undone", b->vm->id, b->c, NULL,
		  "\"%s\" was not made: %s", b->vm->settings.name, why->message);
}

static int make_folder(const struct birth *b, struct error *err)
{
	int r;

	if (b->phase == PHASE_ADDING)
		return vm_file_add(b->vm->folder, &b->vm->settings, err);
	r = vm_folder_make(b->vm->folder, &b->vm->settings, err);
	return r == -ENOENT
		       ? error_set(err, -EINVAL, "the folder above %s is missing; make it first",
				   b->vm->folder)
		       : r;
}

/*
 * What is in the folder now would be found by the next service too: it is there for good. That the
 * registry does not say so yet does no harm, and is put right together with others' soon.
 */
static int birth(const struct birth *b, int (*make)(const struct birth *b, struct error *err),
		 struct error *err)
{
	int r = birth_begin(b, err);

	if (r < 0)
		return r;
	r = make ? make(b, err) : 0;
	if (r < 0) {
		birth_undo(b, err);
		return r;
	}
	vm_link(b->vm);
	settle_later(b->d);
	return 0;
}

/* `folder` is there already: we add our file, but never take the folder away. */
static enum vm_phase phase_for(const char *folder)
{
	struct stat st;

	return stat(folder, &st) == 0 && S_ISDIR(st.st_mode) ? PHASE_ADDING : PHASE_MAKING;
}

static int check_new(struct daemon *d, const struct caller *c, enum operation op,
		     const struct vm_settings *s, struct error *err)
{
	const struct target t = { .vm_name = s->name, .group = s->group, .creator = c->name };
	int r = authz_check(d->authz, c, op, &t, err);

	if (r == 0 && d->vm_count >= VMS_MAX)
		r = error_set(err, -ENOSPC, "there are %u machines; more are not served",
			      d->vm_count);
	return r;
}

int vm_create(struct daemon *d, const struct caller *c, json_t *settings, const char *folder,
	      const char *key, struct vm **ret, struct error *err)
{
	_cleanup_settings_ struct vm_settings s = { 0 };
	_cleanup_free_ char *chosen = NULL;
	struct key used;
	struct birth b = { d, c, NULL, PHASE_MAKING, &used, "vm-created", "made the machine" };
	struct error mine = { 0 };
	struct vm *before = NULL;
	int r = create_key(key, settings, folder, &used, err);

	if (r == 0)
		r = find_key(d, c, &used, &before, err);
	if (r < 0 || before) {
		*ret = before;
		return r;
	}
	r = new_settings(c, settings, &s, err);
	if (r == 0)
		r = vm_adapters_fill(d, &s, err);
	if (r == 0)
		r = check_new(d, c, OP_CREATE_VM, &s, err);
	if (r == 0)
		r = folder ? check_folder(d, c, folder, err) : choose_folder(d, &s, &chosen, err);
	if (r == 0)
		r = vm_check_here(d, c, folder ? folder : chosen, &s, NULL, err);
	if (r < 0)
		return r;
	b.vm = vm_new(d, s.id, folder ? folder : chosen);
	if (!b.vm)
		return error_set(err, -ENOMEM, "not enough memory for another machine");
	b.phase = folder ? phase_for(folder) : PHASE_MAKING;
	vm_settings_take(b.vm, &s);
	r = birth(&b, make_folder, &mine);
	if (r == 0) {
		*ret = b.vm;
		return 0;
	}
	vm_free(b.vm);
	if (err)
		*err = mine;
	return r;
}

/* --- registering --- */

static struct vm *find_folder(struct daemon *d, const char *folder)
{
	list_foreach(it, &d->vms) if (!strcmp(list_entry(it, struct vm, node)->folder,
					      folder)) return list_entry(it, struct vm, node);
	return NULL;
}

/* Registering a folder that is broken looks at it again: that is how it is repaired. */
static int register_again(struct daemon *d, const struct caller *c, struct vm *vm,
			  struct error *err)
{
	int r = caller_check(d, c, OP_IMPORT_VM, vm, err);

	if (r < 0)
		return r;
	if (!vm->broken.code)
		return error_set(err, -EEXIST, "%s is registered already, as \"%s\" (%s)",
				 vm->folder, vm->settings.name, vm->id);
	vm_read(vm);
	if (vm->broken.code)
		return error_set(err, -EUCLEAN, "%s", vm->broken.message);
	event_add(d->events, SEVERITY_AUDIT, "vm-repaired", vm->id, c, NULL,
		  "the machine \"%s\" can be read again", vm->settings.name);
	return 0;
}

/* What the folder says of itself is not believed of those who may have written it. */
static int take_over(const struct caller *c, bool new_id, struct vm_settings *s, struct error *err)
{
	struct guid guid = guid_random();
	char id[GUID_TEXT_SIZE];

	if (new_id) {
		free(s->id);
		s->id = strdup(guid_format(&guid, id));
		s->created = time_ms() / 1000;
	}
	if (new_id || !c->administrator) {
		free(s->creator);
		s->creator = strdup(c->name);
	}
	for (char *p = s->id; p && *p; p++)
		*p = (char)tolower((unsigned char)*p);
	return s->id && s->creator ? 0 : error_set(err, -ENOMEM, "not enough memory");
}

static int read_for_register(struct daemon *d, const struct caller *c, const char *folder,
			     bool new_id, struct vm_settings *ret, struct error *err)
{
	const struct target anywhere = { 0 };
	int r = vm_file_read(folder, ret, err);

	/* What is wrong with a folder is told to those who may register any. */
	if (r < 0)
		return authz_allowed(d->authz, c, OP_IMPORT_VM, &anywhere)
			       ? r
			       : authz_check(d->authz, c, OP_IMPORT_VM, &anywhere, err);
	r = take_over(c, new_id, ret, err);
	if (r == 0)
		r = check_new(d, c, OP_IMPORT_VM, ret, err);
	if (r == 0)
		r = vm_check_here(d, c, folder, ret, NULL, err);
	if (r == 0 && vm_find(d, ret->id))
		r = error_set(err, -EEXIST,
			      "the machine %s is registered already, in %s; register the folder "
			      "with a new id to have another machine",
			      ret->id, vm_find(d, ret->id)->folder);
	return r;
}

static int rewrite(const struct birth *b, struct error *err)
{
	return vm_file_write(b->vm->folder, &b->vm->settings, err);
}

int vm_register(struct daemon *d, const struct caller *c, const char *folder, bool new_id,
		struct vm **ret, struct error *err)
{
	_cleanup_settings_ struct vm_settings s = { 0 };
	struct birth b = { d,
			   c,
			   NULL,
			   new_id ? PHASE_RENAMING : PHASE_PRESENT,
			   NULL,
			   "vm-registered",
			   "registered the machine" };
	struct error mine = { 0 };
	int r = check_folder(d, c, folder, err);

	if (r < 0)
		return r;
	b.vm = find_folder(d, folder);
	if (b.vm) {
		r = register_again(d, c, b.vm, err);
		if (r == 0)
			*ret = b.vm;
		return r;
	}
	r = read_for_register(d, c, folder, new_id, &s, err);
	if (r < 0)
		return r;
	b.vm = vm_new(d, s.id, folder);
	if (!b.vm)
		return error_set(err, -ENOMEM, "not enough memory for another machine");
	vm_settings_take(b.vm, &s);
	/* What it says of its creator is put right before anybody can gain by it. */
	r = !new_id && !c->administrator ? rewrite(&b, &mine) : 0;
	if (r == 0)
		r = birth(&b, new_id ? rewrite : NULL, &mine);
	if (r == 0) {
		*ret = b.vm;
		return 0;
	}
	vm_free(b.vm);
	if (err)
		*err = mine;
	return r;
}

/* --- removing --- */

/* A folder that holds more than this machine stays. */
static int check_removable(struct daemon *d, const struct vm *vm, struct error *err)
{
	_cleanup_free_ char *machines = machine_folder(d);

	if (!machines)
		return error_set(err, -ENOMEM, "not enough memory");
	if (path_below(d->state_folder, vm->folder) || path_below(machines, vm->folder) ||
	    path_below(d->run_folder, vm->folder))
		return error_set(err, -EBUSY,
				 "%s holds the service's own files; remove the machine without "
				 "its files",
				 vm->folder);
	list_foreach(it, &d->vms)
	{
		const struct vm *other = list_entry(it, struct vm, node);

		if (other != vm && path_below(other->folder, vm->folder))
			return error_set(err, -EBUSY,
					 "%s holds the machine \"%s\" too; remove the machine "
					 "without its files",
					 vm->folder, other->settings.name);
	}
	return 0;
}

static int remove_row(struct daemon *d, const struct caller *c, const struct vm *vm, bool files,
		      struct error *err)
{
	int r = database_begin(d->db, err);

	if (r < 0)
		return r;
	r = files ? registry_phase(d->db, vm->id, PHASE_REMOVING, err)
		  : registry_remove(d->db, vm->id, err);
	if (r < 0) {
		database_rollback(d->db);
		return r;
	}
	event_add(d->events, SEVERITY_AUDIT, "vm-removed", vm->id, c,
		  json_pack("{s:s,s:s,s:b}", "name", vm->settings.name, "folder", vm->folder,
			    "files", files),
		  "removed the machine \"%s\"%s%s", vm->settings.name,
		  files ? " with its folder " : ", not its folder ", vm->folder);
	return database_commit(d->db, err);
}

/* Once the registry says so it goes, now or by the next service. */
static int remove_files(struct daemon *d, const struct vm *vm, struct error *err)
{
	struct error again = { 0 };
	int r = vm_folder_remove(vm->folder, vm->id, err);

	if (r == 0) {
		if (registry_remove(d->db, vm->id, &again) < 0)
			log_line("%s", again.message);
		return 0;
	}
	/* Still there under its name: nothing has happened to it. */
	if (faccessat(AT_FDCWD, vm->folder, F_OK, AT_SYMLINK_NOFOLLOW) == 0) {
		if (registry_phase(d->db, vm->id, PHASE_PRESENT, &again) < 0)
			log_line("%s", again.message);
		return r;
	}
	event_add(d->events, SEVERITY_WARNING, "vm-files-left", vm->id, NULL, NULL,
		  "%s; it is tried again when the service begins", err->message);
	return 0;
}

int vm_remove(struct daemon *d, const struct caller *c, struct vm *vm, bool files,
	      struct error *err)
{
	struct error mine = { 0 };
	int r = caller_check(d, c, OP_DELETE_VM, vm, err);

	if (r < 0)
		return r;
	if ((vm->state != VM_OFF && vm->state != VM_SAVED) || vm->worker || vm->job)
		return error_set(err, -EBADFD, "cannot remove it while it is %s; stop it first",
				 vm_state_name(vm->state));
	r = files ? check_removable(d, vm, err) : 0;
	if (r == 0)
		r = remove_row(d, c, vm, files, err);
	if (r == 0 && files) {
		r = remove_files(d, vm, &mine);
		if (r < 0 && err)
			*err = mine;
	}
	if (r < 0)
		return r;
	vm_let_go(vm);
	vm_unlink(vm);
	vm_free(vm);
	return 0;
}

/* --- reading --- */

void vm_read(struct vm *vm)
{
	_cleanup_settings_ struct vm_settings s = { 0 };
	struct error err = { 0 };
	int r = vm_file_read(vm->folder, &s, &err);

	if (r == 0)
		r = vm_check(&s, &err);
	if (r == 0 && strcasecmp(s.id, vm->id))
		r = error_set(&err, -EUCLEAN,
			      "%s/" VM_FILE_NAME " is that of another machine, %s; put this one's "
			      "back, or remove this one and register the folder",
			      vm->folder, s.id);
	if (r < 0) {
		vm->broken = err;
		return;
	}
	snprintf(s.id, GUID_TEXT_SIZE, "%s", vm->id);
	memset(&vm->broken, 0, sizeof(vm->broken));
	vm_settings_take(vm, &s);
}

/* Whether the folder has this machine in it: then a crash came after the last step. */
static bool folder_has(const char *folder, const char *id)
{
	_cleanup_settings_ struct vm_settings s = { 0 };

	return vm_file_read(folder, &s, NULL) == 0 && !strcasecmp(s.id, id);
}

/* Whether the folder is another machine's by now. */
static bool folder_is_others(const char *folder, const char *id)
{
	_cleanup_settings_ struct vm_settings s = { 0 };

	return vm_file_read(folder, &s, NULL) == 0 && strcasecmp(s.id, id);
}

static int recover_removing(struct daemon *d, const struct vm *vm, struct error *err)
{
	int r = 0;

	vm_folder_recover(vm->folder, vm->id);
	if (!folder_is_others(vm->folder, vm->id))
		r = vm_folder_remove(vm->folder, vm->id, err);
	return r < 0 ? r : registry_remove(d->db, vm->id, err);
}

/* Finishes what an earlier service had begun. 1: the machine is there, 0: it is not. */
static int vm_recover(struct vm *vm, enum vm_phase phase, struct error *err)
{
	struct daemon *d = vm->daemon;
	int r;

	if (phase == PHASE_REMOVING)
		return recover_removing(d, vm, err);
	vm_folder_recover(vm->folder, vm->id);
	if (folder_has(vm->folder, vm->id)) {
		vm_read(vm);
		settle_later(d);
		return 1;
	}
	r = registry_remove(d->db, vm->id, err);
	if (r == 0)
		event_add(d->events, SEVERITY_WARNING, "vm-undone", vm->id, NULL, NULL,
			  "%s was not made: the service had ended before that was done",
			  vm->folder);
	return r;
}

struct unfinished {
	struct vm *vm;
	enum vm_phase phase;
};

struct load {
	struct daemon *d;
	struct unfinished *unfinished;
	size_t count;
};

static int load_row(void *context, const struct registry_row *row)
{
	struct load *load = context;
	struct vm *vm = vm_new(load->d, row->id, row->folder);
	struct unfinished *more;

	if (!vm)
		return -ENOMEM;
	if (row->phase == PHASE_PRESENT) {
		vm_file_tidy(vm->folder);
		vm_read(vm);
		vm_recall(vm, row);
		vm_link(vm);
		return 0;
	}
	more = realloc(load->unfinished, (load->count + 1) * sizeof(*more));
	if (!more) {
		vm_free(vm);
		return -ENOMEM;
	}
	load->unfinished = more;
	more[load->count++] = (struct unfinished){ vm, row->phase };
	return 0;
}

/* One that cannot be finished is shown as broken, with the reason. */
static void load_unfinished(const struct unfinished *u)
{
	struct error err = { 0 };
	int r = vm_recover(u->vm, u->phase, &err);

	if (r == 0) {
		vm_free(u->vm);
		return;
	}
	if (r < 0)
		u->vm->broken = err;
	vm_link(u->vm);
}

int vms_load(struct daemon *d, struct error *err)
{
	struct load load = { .d = d };
	int r = registry_each(d->db, load_row, &load, err);

	if (r == -ENOMEM)
		error_set(err, r, "not enough memory for all machines");
	for (size_t i = 0; i < load.count; i++) {
		if (r < 0)
			vm_free(load.unfinished[i].vm);
		else
			load_unfinished(&load.unfinished[i]);
	}
	free(load.unfinished);
	return r;
}
