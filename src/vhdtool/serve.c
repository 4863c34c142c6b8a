// SPDX-License-Identifier: MIT
/* vhd serve: an image as an NBD export on a Unix socket. */
#include "vhdtool/verbs.h"

#include <errno.h>

static struct {
	const char *socket;
	bool writable;
	struct tool_image image;
} options;

static const struct tool_option table[] = {
	{ "socket", TOOL_FILE, &options.socket, "PATH", "listen here" },
	{ "writable", TOOL_FLAG, &options.writable, NULL, "clients may write" },
	TOOL_IMAGE_OPTIONS(options.image),
	{ 0 },
};

static int run(unsigned count, char **arguments, struct error *err)
{
	(void)count;
	if (!options.socket)
		return tool_usage(err, "say --socket");
	return error_set(err, -ENOSYS, "%s: not yet", arguments[0]);
}

const struct tool_verb verb_serve = {
	.name = "serve",
	.synopsis = "IMAGE --socket PATH [OPTION...]",
	.summary = "serve an image to NBD clients",
	.options = table,
	.arguments_min = 1,
	.arguments_max = 1,
	.run = run,
};
