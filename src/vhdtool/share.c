// SPDX-License-Identifier: MIT
/* vhd share: makes the set through which several machines use one image (docs/vhd-set.md). */
#include "vhd/vhdset.h"
#include "vhdtool/verbs.h"

#include "lib/cleanup.h"
#include "lib/folder.h"

#include <errno.h>
#include <fcntl.h>

static struct {
	const char *format;
} options;

static const struct tool_option table[] = {
	{ "format", TOOL_CHOICE, &options.format, "raw|vhdx", "format of IMAGE (by content)" },
	{ 0 },
};

static int run(unsigned count, char **arguments, struct error *err)
{
	const char *image = arguments[0], *set = arguments[1];
	_cleanup_close_ int fd = -1;
	int image_fd = open(image, O_RDONLY | O_CLOEXEC), r;

	(void)count;
	if (image_fd < 0)
		return error_errno(err, -errno, "cannot open \"%s\"", image);
	fd = open(set, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
	if (fd < 0) {
		r = error_errno(err, -errno, "cannot make \"%s\"", set);
		close(image_fd);
		return r;
	}
	r = vhdset_create(fd, image_fd, image, options.format, err);
	if (r >= 0) {
		r = folder_sync(set);
		if (r < 0)
			error_errno(err, r, "cannot make the name \"%s\" durable", set);
	}
	if (r < 0)
		unlink(set);
	return r < 0 ? r : TOOL_OK;
}

const struct tool_verb verb_share = {
	.name = "share",
	.synopsis = "IMAGE SET [--format FORMAT]",
	.summary = "make the set through which machines share an image",
	.notes = "IMAGE is raw or a fixed VHDX, and nobody has it open. SET is a small file beside "
		 "it.\n"
		 "Example:\n"
		 "  vhd share data.vhdx data.set\n",
	.options = table,
	.arguments_min = 2,
	.arguments_max = 2,
	.run = run,
};
