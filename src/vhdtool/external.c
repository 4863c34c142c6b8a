// SPDX-License-Identifier: MIT
/*
 * Formats that this program does not know but qemu-img does. It is started with the format named,
 * so that it does not guess, and makes a raw image, of which what is asked for is made here.
 */
#include "vhdtool/convert.h"

#include "lib/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>

extern char **environ;

const char *external_format(const char *path)
{
	static const struct {
		const char *format;
		size_t at, length;
		const char *bytes;
	} magic[] = {
		{ "qcow2", 0, 4, "QFI\xfb" },
		{ "vmdk", 0, 4, "KDMV" },
		{ "vdi", 64, 4, "\x7f\x10\xda\xbe" },
	};
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	char bytes[68] = { 0 };

	if (fd < 0 || pread(fd, bytes, sizeof(bytes), 0) < (ssize_t)sizeof(bytes))
		return NULL;
	for (size_t i = 0; i < ARRAY_SIZE(magic); i++)
		if (!memcmp(bytes + magic[i].at, magic[i].bytes, magic[i].length))
			return magic[i].format;
	return NULL;
}

int external_to_raw(const char *from, const char *format, const char *to, struct error *err)
{
	const char *argv[] = { "qemu-img", "convert", "-f", format, "-O",
			       "raw",      "--",      from, to,     NULL };
	int status = 0, r;
	pid_t pid;

	fprintf(stderr, "reading the %s image \"%s\" with qemu-img\n", format, from);
	r = posix_spawnp(&pid, argv[0], NULL, NULL, (char *const *)(uintptr_t)argv, environ);
	if (r == ENOENT)
		return error_set(err, -ENOENT,
				 "\"%s\" is a %s image, which only qemu-img reads, and that is not "
				 "installed (Debian: qemu-utils)",
				 from, format);
	if (r)
		return error_errno(err, -r, "cannot start qemu-img");
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (WIFEXITED(status) && !WEXITSTATUS(status))
		return 0;
	return error_set(err, -EIO, "qemu-img could not read \"%s\"", from);
}
