// SPDX-License-Identifier: MIT
/*
 * vhd unmount: undoes what vhd mount did, also when the server was killed in between: file system,
 * loop device, FUSE, the server, what is remembered of it. Comes back when the image is closed.
 */
#include "vhdtool/verbs.h"

#include "vhdtool/fuse_mount.h"
#include "vhdtool/mount_server.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

static struct {
	uint64_t wait;
} options = { 60 };

static const struct tool_option table[] = {
	{ "wait", TOOL_NUMBER, &options.wait, "SECONDS", "for the image to be closed (60)" },
	{ 0 },
};

struct search {
	const char *name, *path; /* as given; resolved */
	struct mount_state found;
	bool any;
};

/* A device may be somebody else's by now. */
static bool has_device(const struct mount_state *s)
{
	char label[32];

	mount_state_label(s, label);
	return *s->device && loopdev_is(s->device, label);
}

/* What a killed keeper left behind comes last: its place may be another one's by now. */
static int match(void *context, const struct mount_state *s)
{
	struct search *k = context;
	bool alive = mount_state_alive(s);

	if (strcmp(k->path, s->image) && strcmp(k->path, s->target) && strcmp(k->name, s->target) &&
	    strcmp(k->name, s->image) && (strcmp(k->path, s->device) || !has_device(s)))
		return 0;
	if (alive || !k->any)
		k->found = *s;
	k->any = true;
	return alive;
}

static int unmount_file_system(const struct mount_state *s, struct error *err)
{
	if (umount2(s->target, UMOUNT_NOFOLLOW) < 0 && errno != EINVAL && errno != ENOENT)
		return error_errno(err, -errno, "cannot unmount \"%s\"", s->target);
	return 0;
}

static int detach(const struct mount_state *s, struct error *err)
{
	return has_device(s) ? loopdev_detach(s->device, err) : 0;
}

static int unmount(const struct mount_state *s, struct error *err)
{
	bool alive = mount_state_alive(s), killed;
	char place[PATH_MAX];
	int r = 0;

	mount_state_path(s, "d", place);
	if (s->file)
		r = fuse_unmount(s->target, !alive, err);
	else if (*s->target)
		r = unmount_file_system(s, err);
	if (r >= 0)
		r = detach(s, err);
	if (r < 0)
		return r;
	if (!s->file) {
		/* only there when mounting was interrupted */
		(void)fuse_unmount(place, true, NULL);
		rmdir(place);
	}
	r = mount_server_wait(s, (unsigned)MIN(options.wait, 86400u), &killed, err);
	if (r == -EBUSY)
		return r;
	mount_state_remove(s);
	if (r >= 0 && killed && !s->read_only)
		fputs("vhd unmount: the server was killed; what was not flushed is lost\n", stderr);
	return r;
}

static int run(unsigned count, char **arguments, struct error *err)
{
	char path[PATH_MAX];
	struct search k = { .name = arguments[0], .path = path };
	int r;

	(void)count;
	/* A mount without its server cannot be resolved: then the name must be as it is. */
	if (!realpath(arguments[0], path))
		snprintf(path, sizeof(path), "%s", arguments[0]);
	r = mount_state_each(match, &k, err);
	if (r < 0)
		return r;
	if (!k.any)
		return error_set(err, -ENOENT,
				 "nothing is mounted from or at \"%s\"; "
				 "vhd mount --list tells what is",
				 arguments[0]);
	r = unmount(&k.found, err);
	return r < 0 ? r : TOOL_OK;
}

const struct tool_verb verb_unmount = {
	.name = "unmount",
	.synopsis = "IMAGE|DIR|DEVICE [OPTION...]",
	.summary = "undo vhd mount",
	.options = table,
	.arguments_min = 1,
	.arguments_max = 1,
	.run = run,
};
