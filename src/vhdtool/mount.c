// SPDX-License-Identifier: MIT
/*
 * vhd mount: an image as a file system, a block device, or a file. The image's server (FUSE, one
 * file) is mounted at a place of its own; a loop device on that file is what others see. When the
 * loop device holds the file that mount is taken out of the tree, so that nothing is left but the
 * device, and the server ends when the device is detached. A file system's device is detached by
 * the kernel when it is unmounted, whoever does it.
 */
#include "vhdtool/verbs.h"

#include "lib/cleanup.h"
#include "vhdtool/fuse.h"
#include "vhdtool/fuse_mount.h"
#include "vhdtool/mount_server.h"
#include "vhdtool/ptable.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define WAIT 60u /* s, for a server to close its image */

static struct {
	bool device, file, writable, list, json;
	uint64_t partition;
	const char *type, *mount_options;
	struct tool_image image;
} options;

static const struct tool_option table[] = {
	{ "device", TOOL_FLAG, &options.device, NULL, "only make a block device, and print it" },
	{ "file", TOOL_FLAG, &options.file, NULL, "only make DIR/disk, a raw file; needs no root" },
	{ "partition", TOOL_NUMBER, &options.partition, "N", "this partition (first that fits)" },
	{ "writable", TOOL_FLAG, &options.writable, NULL, "not only for reading" },
	{ "type", TOOL_STRING, &options.type, "TYPE", "type of the file system, as for mount(8)" },
	{ "options", TOOL_STRING, &options.mount_options, "LIST", "options for mount(8)" },
	{ "list", TOOL_FLAG, &options.list, NULL, "tell what is mounted" },
	{ "json", TOOL_FLAG, &options.json, NULL, "the list as JSON" },
	TOOL_IMAGE_OPTIONS(options.image),
	{ 0 },
};

/* --- the list --- */

static int list_one(void *context, const struct mount_state *s)
{
	const char *server = mount_state_alive(s) ? "running" : "gone";

	if (context)
		json_array_append_new(context, json_pack("{s:s,s:s,s:s,s:b,s:i,s:s}", "image",
							 s->image, "device", s->device, "target",
							 s->target, "read_only", s->read_only,
							 "pid", (int)s->pid, "server", server));
	else
		printf("%s %s %s %s%s\n", s->image, *s->device ? s->device : "-",
		       *s->target ? s->target : "-", s->read_only ? "ro" : "rw",
		       strcmp(server, "gone") ? ""
					      : " (its server is gone: vhd unmount cleans up)");
	return 0;
}

static int list(struct error *err)
{
	json_t *array = options.json ? json_array() : NULL;
	int r = mount_state_each(list_one, array, err);

	if (array)
		tool_print_json(array);
	return r < 0 ? r : TOOL_OK;
}

/* --- partitions --- */

static int read_file(void *context, void *buf, size_t n, uint64_t offset)
{
	ssize_t got = pread(*(int *)context, buf, n, (off_t)offset);

	if (got < 0)
		return -errno;
	return (size_t)got == n ? 0 : -EIO;
}

/* The part of the disk that is wanted. */
static int find_part(int file, const struct disk_geometry *g, struct loopdev_options *o,
		     struct error *err)
{
	const struct ptable_source source = {
		.size = g->size,
		.sector = g->logical_sector,
		.read = read_file,
		.context = &file,
	};
	const struct ptable_entry *e = NULL;
	struct ptable t;
	int r;

	if (options.device && !options.partition)
		return 0;
	r = ptable_read(&source, &t, err);
	if (r < 0)
		return r;
	if (t.backup)
		fputs("vhd mount: the partition table is damaged; its backup is used\n", stderr);
	if (options.partition)
		e = ptable_find(&t, (unsigned)MIN(options.partition, UINT32_MAX));
	else if (t.kind != PTABLE_NONE)
		e = ptable_main(&t);
	else
		return 0;
	if (!e && options.partition)
		return error_set(err, -ENOENT, "there is no partition %llu; the disk has %u",
				 (unsigned long long)options.partition, t.count);
	if (!e)
		return error_set(err, -ENOENT,
				 "no partition looks like a file system's; "
				 "choose one with --partition");
	o->offset = e->offset;
	o->length = e->length;
	return 0;
}

/* --- steps --- */

static void undo(struct mount_state *s, bool fuse_mounted)
{
	char place[PATH_MAX], label[32];
	bool killed;

	mount_state_label(s, label);
	if (*s->device && loopdev_is(s->device, label))
		(void)loopdev_detach(s->device, NULL);
	mount_state_path(s, "d", place);
	if (fuse_mounted)
		(void)fuse_unmount(s->file ? s->target : place, true, NULL);
	(void)mount_server_wait(s, WAIT, &killed, NULL);
	rmdir(place);
	mount_state_remove(s);
}

static int attach(struct mount_state *s, const char *place, const struct disk_geometry *g,
		  struct error *err)
{
	char path[PATH_MAX + 16], label[32];
	_cleanup_close_ int file = -1;
	struct loopdev_options o = {
		.label = label,
		.sector = g->logical_sector,
		.read_only = s->read_only,
		.auto_clear = !options.device,
	};
	int r;

	mount_state_label(s, label);
	snprintf(path, sizeof(path), "%s/%s", place, FUSE_FILE_NAME);
	file = open(path, (s->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);
	if (file < 0)
		return error_errno(err, -errno, "cannot open the served image");
	r = find_part(file, g, &o, err);
	return r < 0 ? r : loopdev_attach(file, &o, s->device, err);
}

static bool is_ntfs(int device)
{
	char bytes[11] = { 0 };

	return pread(device, bytes, sizeof(bytes), 0) == sizeof(bytes) &&
	       !memcmp(bytes + 3, "NTFS    ", 8);
}

static int mount_file_system(const struct mount_state *s, int device, struct error *err)
{
	char list[512];
	const char *const ntfs[] = { "ntfs-3g", "-o", list, s->device, s->target, NULL };
	const char *argv[10] = { "mount", "-o", list, s->device, s->target };
	int r = 127;

	if (snprintf(list, sizeof(list), "%s%s%s", s->read_only ? "ro" : "rw",
		     options.mount_options ? "," : "",
		     options.mount_options ? options.mount_options : "") >= (int)sizeof(list))
		return error_set(err, -EINVAL, "--options is too long");
	if (options.type) {
		argv[5] = "-t";
		argv[6] = options.type;
	} else if (is_ntfs(device)) {
		r = run_program(ntfs);
	}
	if (r == 127)
		r = run_program(argv);
	return r ? error_set(err, -EIO, "could not mount %s at \"%s\"", s->device, s->target) : 0;
}

/* Everything after the server is up. */
static int finish(struct mount_state *s, const char *place, const struct disk_geometry *g,
		  struct error *err)
{
	_cleanup_close_ int device = -1;
	int r;

	if (!s->file) {
		r = device = attach(s, place, g, err);
		if (r >= 0)
			r = mount_state_save(s, err);
		if (r >= 0)
			r = fuse_unmount(place, true, err);
		if (r < 0)
			return r;
		rmdir(place);
		if (!options.device)
			return mount_file_system(s, device, err);
		puts(s->device);
	}
	return 0;
}

static int mount_image(struct mount_state *s, struct error *err)
{
	struct disk_geometry g;
	char place[PATH_MAX];
	bool mounted = false;
	int r = mount_state_save(s, err);

	options.image.server = true;
	mount_state_path(s, "d", place);
	if (s->file)
		strcpy(place, s->target);
	else if (r >= 0 && mkdir(place, 0700) < 0)
		r = error_errno(err, -errno, "cannot make the folder \"%s\"", place);
	if (r >= 0)
		r = fuse_mount(place, s->image, err);
	mounted = r >= 0;
	if (r >= 0)
		r = mount_server_start(s, &options.image, r, &g, err);
	if (r >= 0)
		r = mount_state_save(s, err);
	if (r >= 0)
		r = finish(s, place, &g, err);
	if (r < 0)
		undo(s, mounted);
	return r;
}

static int run(unsigned count, char **arguments, struct error *err)
{
	struct mount_state s = { .file = options.file, .read_only = !options.writable };
	int r;

	if (options.list)
		return count ? tool_usage(err, "--list takes no image") : list(err);
	if (!count || (count == 1) != options.device || (options.device && options.file))
		return tool_usage(err, "an image, and either --device or a folder to mount it at");
	if (!options.file && geteuid())
		return error_set(err, -EPERM, "needs root; --file does not");
	if (!realpath(arguments[0], s.image))
		return error_errno(err, -errno, "\"%s\"", arguments[0]);
	if (count > 1 && !realpath(arguments[1], s.target))
		return error_errno(err, -errno, "\"%s\"", arguments[1]);
	r = mount_state_new(&s, err);
	if (r >= 0)
		r = mount_image(&s, err);
	return r < 0 ? r : TOOL_OK;
}

const struct tool_verb verb_mount = {
	.name = "mount",
	.synopsis = "IMAGE DIR|--device [OPTION...]",
	.summary = "mount an image",
	.notes = "Without --partition: the whole disk when it has no partitions, else the first\n"
		 "that is not a boot loader's or Windows' own.\n\n"
		 "Examples:\n"
		 "  vhd mount disk.vhdx /mnt\n"
		 "  vhd mount disk.vhdx --device --writable\n"
		 "  vhd mount disk.vhdx --file ~/disk\n",
	.options = table,
	.arguments_max = 2,
	.run = run,
};
