// SPDX-License-Identifier: MIT
/*
 * See box.h. Images, their parents and track files are open before the filter is entered; nothing
 * later opens, makes or renames a file. The io_uring is restricted by event/loop.c.
 */
#include "vhdtool/box.h"

#include "lib/sandbox.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <seccomp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

static const int allowed[] = {
	/* the event loop; waiting for a tick of the file system's clock (vhd/track_file.c) */
	SCMP_SYS(epoll_wait),
	SCMP_SYS(epoll_pwait),
	SCMP_SYS(epoll_ctl),
	SCMP_SYS(clock_nanosleep),
	SCMP_SYS(restart_syscall),
	/* images: I/O, growth, holes, durability, the time in a VHD's footer */
	SCMP_SYS(io_uring_enter),
	SCMP_SYS(pread64),
	SCMP_SYS(pwrite64),
	SCMP_SYS(pwritev),
	SCMP_SYS(fdatasync),
	SCMP_SYS(fsync),
	SCMP_SYS(ftruncate),
	SCMP_SYS(fallocate),
	SCMP_SYS(lseek),
	SCMP_SYS(fstat),
	SCMP_SYS(time),
	SCMP_SYS(close),
	/* whom the served file belongs to */
	SCMP_SYS(getuid),
	SCMP_SYS(getgid),
};

#define INT_MASK UINT64_C(0xffffffff)

static const struct sandbox_rule rules[] = {
	/* with sockets only, as vhdtool/nbd_server.c calls them */
	{ SCMP_SYS(accept4), 3, INT_MASK, SOCK_NONBLOCK | SOCK_CLOEXEC },
	{ SCMP_SYS(recvfrom), 3, INT_MASK, 0 },
	{ SCMP_SYS(sendmsg), 2, INT_MASK, MSG_NOSIGNAL },
#define SOCKET_RULES 3
	/* fstat of some C libraries */
	{ SCMP_SYS(newfstatat), 3, INT_MASK, AT_EMPTY_PATH },
	/* O_DIRECT and O_NONBLOCK; the locks of images and sets */
	{ SCMP_SYS(fcntl), 1, INT_MASK, F_GETFL },
	{ SCMP_SYS(fcntl), 1, INT_MASK, F_SETFL },
	{ SCMP_SYS(fcntl), 1, INT_MASK, F_OFD_GETLK },
	{ SCMP_SYS(fcntl), 1, INT_MASK, F_OFD_SETLK },
	{ SCMP_SYS(fcntl), 1, INT_MASK, F_OFD_SETLKW },
};

void box_mute(void)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	for (int fd = 0; fd < 3 && null >= 0; fd++)
		dup2(null, fd);
}

void box_clean(char *text, size_t size)
{
	text[size - 1] = 0;
	for (; *text; text++)
		if (iscntrl((unsigned char)*text))
			*text = '?';
}

int box_enter(bool sockets, struct error *err)
{
	const size_t skipped = sockets ? 0 : SOCKET_RULES;
	const struct sandbox s = {
		.calls = allowed,
		.call_count = ARRAY_SIZE(allowed),
		.rules = rules + skipped,
		.rule_count = ARRAY_SIZE(rules) - skipped,
	};
	const struct rlimit none = { 0, 0 };

	if (SANDBOX_SANITIZED)
		return 0;
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0 || setrlimit(RLIMIT_CORE, &none) < 0)
		return error_errno(err, -errno, "cannot limit the server");
	return sandbox_enter(&s, err);
}
