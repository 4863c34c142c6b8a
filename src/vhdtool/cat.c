// SPDX-License-Identifier: MIT
/* vhd cat: files inside an image, to standard output. */
#include "vhdtool/files_session.h"
#include "vhdtool/verbs.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static struct {
	struct files_open open;
} o;

static const struct tool_option table[] = {
	{ "partition", TOOL_NUMBER, &o.open.partition, "N", "this partition (the one that fits)" },
	TOOL_IMAGE_OPTIONS(o.open.image),
	{ 0 },
};

static uint8_t buffer[FILES_PAYLOAD_MAX];

static int put(const void *data, size_t n, struct error *err)
{
	if (fwrite(data, 1, n, stdout) != n)
		return error_errno(err, -errno, "cannot write");
	return 0;
}

static int put_zeros(uint64_t n, struct error *err)
{
	int r = 0;

	memset(buffer, 0, sizeof(buffer));
	for (; n && r >= 0; n -= MIN(n, sizeof(buffer)))
		r = put(buffer, MIN(n, sizeof(buffer)), err);
	return r;
}

static int print_file(struct files_session *s, const char *path, struct error *err)
{
	struct files_node node;
	struct files_piece p;
	int r = session_find(s, path, true, &node, err);

	if (r < 0)
		return r;
	if (node.info.kind != FILES_REGULAR)
		return error_set(err, node.info.kind == FILES_FOLDER ? -EISDIR : -EINVAL,
				 node.info.kind == FILES_FOLDER
					 ? "\"%.300s\" is a folder; `vhd ls` lists it"
					 : "\"%.300s\" is no file with content",
				 path);
	for (uint64_t at = 0; at < node.info.size; at += p.length) {
		r = session_read(s, node.id, buffer, sizeof(buffer), at, &p, err);
		if (r >= 0 && !p.length)
			r = error_set(err, -EIO, "it ends at byte %llu of %llu",
				      (unsigned long long)at, (unsigned long long)node.info.size);
		if (r >= 0)
			r = p.hole ? put_zeros(p.length, err) : put(buffer, p.length, err);
		if (r < 0)
			return error_prefix(err, "\"%.200s\"", path);
	}
	return 0;
}

static int run(unsigned count, char **arguments, struct error *err)
{
	struct files_session *s;
	int r;

	o.open.verb = "cat";
	r = session_open(arguments[0], &o.open, &s, err);
	if (r < 0)
		return r;
	for (unsigned i = 1; i < count && r >= 0; i++)
		r = print_file(s, arguments[i], err);
	if (r >= 0 && fflush(stdout))
		r = error_errno(err, -errno, "cannot write");
	(void)session_close(s, NULL);
	return r < 0 ? r : TOOL_OK;
}

const struct tool_verb verb_cat = {
	.name = "cat",
	.synopsis = "IMAGE PATH... [OPTION...]",
	.summary = "print files inside an image",
	.notes = "Reads ext2/3/4, FAT and NTFS without root; symbolic links are followed inside\n"
		 "the image.\n\n"
		 "Example:\n  vhd cat disk.vhdx /etc/os-release\n",
	.options = table,
	.arguments_min = 2,
	.arguments_max = 256,
	.run = run,
};
