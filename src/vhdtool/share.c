// SPDX-License-Identifier: MIT
/* vhd share: makes a set, through which several machines use one image. */
#include "vhdtool/verbs.h"

#include "lib/cleanup.h"
#include "vhd/vhdset.h"

#include <errno.h>
#include <fcntl.h>

static struct {
	const char *from, *format;
} o;

static const struct tool_option table[] = {
	{ "from", TOOL_FILE, &o.from, "IMAGE", "the image to share: a fixed VHDX, or raw" },
	{ "format", TOOL_CHOICE, &o.format, "raw|vhdx", "format of the image (by content)" },
	{ 0 },
};

static int run(unsigned count, char **arguments, struct error *err)
{
	const char *path = arguments[0];
	_cleanup_close_ int fd = -1;
	int image, r;

	(void)count;
	if (!o.from)
		return tool_usage(err, "say --from, the image that is to be shared");
	image = open(o.from, O_RDONLY | O_CLOEXEC);
	if (image < 0)
		return error_errno(err, -errno, "cannot open \"%s\"", o.from);
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
	if (fd < 0) {
		r = error_errno(err, -errno, "cannot make \"%s\"", path);
		close(image);
		return r;
	}
	r = vhdset_create(fd, image, o.from, o.format, err);
	if (r < 0)
		unlink(path);
	return r < 0 ? r : TOOL_OK;
}

const struct tool_verb verb_share = {
	.name = "share",
	.synopsis = "SET --from IMAGE [--format FORMAT]",
	.summary = "make a set: an image with several writers",
	.notes = "Example:\n  vhd share data.set --from data.vhdx\n",
	.options = table,
	.arguments_min = 1,
	.arguments_max = 1,
	.run = run,
};
