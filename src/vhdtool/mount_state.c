// SPDX-License-Identifier: MIT
/* See mount_state.h. */
#include "vhdtool/mount_state.h"

#include "lib/cleanup.h"
#include "lib/folder.h"

#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

static int run_folder(char ret[PATH_MAX], struct error *err)
{
	const char *user = getenv("XDG_RUNTIME_DIR");

	if (!geteuid())
		snprintf(ret, PATH_MAX, "/run/partita/vhd-mounts");
	else if (user && *user == '/' && strlen(user) < PATH_MAX / 2)
		snprintf(ret, PATH_MAX, "%s/partita/vhd-mounts", user);
	else
		return error_set(err, -ENOENT,
				 "no place to remember mounts; set XDG_RUNTIME_DIR or be root");
	return 0;
}

void mount_state_path(const struct mount_state *s, const char *kind, char ret[PATH_MAX])
{
	char folder[PATH_MAX] = "";

	(void)run_folder(folder, NULL);
	if (snprintf(ret, PATH_MAX, "%s/%s.%s", folder, s->id, kind) >= PATH_MAX)
		ret[0] = 0;
}

void mount_state_label(const struct mount_state *s, char ret[32])
{
	snprintf(ret, 32, "vhd-%s", s->id);
}

int mount_state_new(struct mount_state *s, struct error *err)
{
	char folder[PATH_MAX];
	uint64_t number;
	int r = run_folder(folder, err);

	if (r >= 0)
		r = folder_make_all(folder, err);
	if (r < 0)
		return r;
	if (getrandom(&number, sizeof(number), 0) != sizeof(number))
		return error_errno(err, -errno, "no random numbers");
	snprintf(s->id, sizeof(s->id), "%016llx", (unsigned long long)number);
	return 0;
}

int mount_state_save(const struct mount_state *s, struct error *err)
{
	char path[PATH_MAX], fresh[PATH_MAX];
	json_t *j = json_pack("{s:s,s:s,s:s,s:s,s:b,s:b,s:I,s:I}", "id", s->id, "image", s->image,
			      "target", s->target, "device", s->device, "file", s->file,
			      "read_only", s->read_only, "pid", (json_int_t)s->pid, "started",
			      (json_int_t)s->started);
	int r = 0;

	mount_state_path(s, "json", path);
	mount_state_path(s, "new", fresh);
	if (!j || json_dump_file(j, fresh, JSON_INDENT(2)) < 0 || rename(fresh, path) < 0)
		r = error_errno(err, errno ? -errno : -EINVAL, "cannot write \"%s\"", path);
	json_decref(j);
	return r;
}

void mount_state_remove(const struct mount_state *s)
{
	static const char *const kinds[] = { "json", "new", "error" };
	char path[PATH_MAX];

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		mount_state_path(s, kinds[i], path);
		unlink(path);
	}
}

static int load(const char *path, struct mount_state *ret)
{
	json_t *j = json_load_file(path, 0, NULL);
	const char *id, *image, *target, *device;
	int file, read_only;
	json_int_t pid, started;
	int r = -EINVAL;

	memset(ret, 0, sizeof(*ret));
	if (j &&
	    !json_unpack(j, "{s:s,s:s,s:s,s:s,s:b,s:b,s:I,s:I}", "id", &id, "image", &image,
			 "target", &target, "device", &device, "file", &file, "read_only",
			 &read_only, "pid", &pid, "started", &started) &&
	    strlen(id) < sizeof(ret->id) && strlen(image) < PATH_MAX && strlen(target) < PATH_MAX &&
	    strlen(device) < sizeof(ret->device)) {
		strcpy(ret->id, id);
		strcpy(ret->image, image);
		strcpy(ret->target, target);
		strcpy(ret->device, device);
		ret->file = file;
		ret->read_only = read_only;
		ret->pid = (pid_t)pid;
		ret->started = (uint64_t)started;
		r = 0;
	}
	json_decref(j);
	return r;
}

int mount_state_each(int (*fn)(void *context, const struct mount_state *s), void *context,
		     struct error *err)
{
	char folder[PATH_MAX], path[PATH_MAX + 256];
	struct mount_state s;
	int r = run_folder(folder, err);
	DIR *d;

	if (r < 0)
		return r;
	d = opendir(folder);
	if (!d)
		return errno == ENOENT ? 0 : error_errno(err, -errno, "cannot list \"%s\"", folder);
	for (struct dirent *e = readdir(d); e && !r; e = readdir(d)) {
		size_t length = strlen(e->d_name);

		if (length != sizeof(s.id) - 1 + strlen(".json") ||
		    strcmp(e->d_name + length - strlen(".json"), ".json"))
			continue;
		snprintf(path, sizeof(path), "%s/%s", folder, e->d_name);
		if (load(path, &s) >= 0)
			r = fn(context, &s);
	}
	closedir(d);
	return r;
}

uint64_t mount_process_start(pid_t pid)
{
	_cleanup_fclose_ FILE *f = NULL;
	char path[64], text[1024];
	unsigned long long started = 0;
	const char *at;
	size_t n;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	f = fopen(path, "re");
	n = f ? fread(text, 1, sizeof(text) - 1, f) : 0;
	text[n] = 0;
	at = strrchr(text, ')'); /* the name before it may hold anything */
	if (!at || at[1] != ' ' || at[2] == 'Z' || at[2] == 'X')
		return 0;
	for (unsigned field = 2; field < 22 && at; field++)
		at = strchr(at + 1, ' ');
	return at && sscanf(at, " %llu", &started) == 1 ? started : 0;
}

bool mount_state_alive(const struct mount_state *s)
{
	return s->pid > 0 && s->started && mount_process_start(s->pid) == s->started;
}
