/* SPDX-License-Identifier: MIT */
/* Sockets in the file system that a program listens on; descriptors that go over one. */
#pragma once

#include "lib/error.h"
#include "lib/types.h"

#include <sys/types.h>

/*
 * A non-blocking listening socket at `path`, with `mode` (0 = by the umask) before anybody can
 * connect; the descriptor. A socket that is there already is
 * replaced when nobody listens on it (its program was killed), and refused when somebody does. It
 * is the caller's to remove, or whoever's that started a program which may not.
 */
int unix_listen(const char *path, mode_t mode, int backlog, struct error *err) _must_check_;
/* Takes over a socket that was passed and listens already: `fd`, or negative with words. */
int unix_listener_take(int fd, const char *where, struct error *err) _must_check_;

#define UNIX_FDS_MAX 253 /* with one call; SCM_MAX_FD of the kernel */

/*
 * sendmsg with descriptors, which stay the caller's and go with the first of the bytes. `flags` as
 * there (MSG_NOSIGNAL comes in addition). The number of bytes, or -1 and errno.
 */
ssize_t unix_send(int socket, const void *bytes, size_t size, const int *fds, unsigned fd_count,
		  int flags);

/* Descriptors that came: the receiver's to close, from before a call too. */
struct unix_fds {
	int *fds;
	unsigned count, room;
	bool lost; /* more came than there is room for; the rest is closed */
};
/*
 * recvmsg that adds the descriptors that come, close-on-exec, to those in `fds`. `flags` as there.
 * The number of bytes, 0 when the other side is gone, or -1 and errno.
 */
ssize_t unix_receive(int socket, void *bytes, size_t room, struct unix_fds *fds, int flags);
