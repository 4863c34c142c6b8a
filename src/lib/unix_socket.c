// SPDX-License-Identifier: MIT
/* See unix_socket.h. */
#include "lib/unix_socket.h"

#include "lib/cleanup.h"
#include "lib/types.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

static int open_socket(void)
{
	return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

/* Whether a socket was there that nobody listens on; it is gone then. */
static bool remove_stale(const struct sockaddr_un *address)
{
	_cleanup_close_ int fd = open_socket();
	struct stat st;

	if (fd < 0 || lstat(address->sun_path, &st) < 0 || !S_ISSOCK(st.st_mode))
		return false;
	if (!connect(fd, (const struct sockaddr *)address, sizeof(*address)) ||
	    errno != ECONNREFUSED)
		return false;
	return !unlink(address->sun_path);
}

int unix_listen(const char *path, mode_t mode, int backlog, struct error *err)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	_cleanup_close_ int fd = open_socket();
	int r;

	if (fd < 0)
		return error_errno(err, -errno, "cannot make a socket");
	if (strlen(path) >= sizeof(address.sun_path))
		return error_set(err, -ENAMETOOLONG, "socket path \"%s\" is longer than %zu bytes",
				 path, sizeof(address.sun_path) - 1);
	strcpy(address.sun_path, path);
	r = bind(fd, (struct sockaddr *)&address, sizeof(address));
	if (r < 0 && errno == EADDRINUSE && remove_stale(&address))
		r = bind(fd, (struct sockaddr *)&address, sizeof(address));
	if (r < 0 && errno == EADDRINUSE)
		return error_set(err, -EADDRINUSE, "\"%s\" exists, and is in use or no socket",
				 path);
	if (r < 0 || (mode && chmod(path, mode) < 0) || listen(fd, backlog) < 0)
		return error_errno(err, -errno, "cannot listen at \"%s\"", path);
	return steal_fd(&fd);
}

int unix_listener_take(int fd, const char *where, struct error *err)
{
	int listens = 0, flags = fcntl(fd, F_GETFL);
	socklen_t size = sizeof(listens);

	if (flags < 0 || getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) < 0)
		return error_errno(err, -errno, "%s: descriptor %d", where, fd);
	if (!listens)
		return error_set(err, -EINVAL, "%s: descriptor %d is not a socket that listens",
				 where, fd);
	if (fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return error_errno(err, -errno, "%s: descriptor %d", where, fd);
	return fd;
}

union control {
	struct cmsghdr head;
	char space[CMSG_SPACE(UNIX_FDS_MAX * sizeof(int))];
};

ssize_t unix_send(int socket, const void *bytes, size_t size, const int *fds, unsigned fd_count,
		  int flags)
{
	struct iovec iov = { (void *)bytes, size };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };
	union control control = { 0 };

	if (fd_count > UNIX_FDS_MAX) {
		errno = EMSGSIZE;
		return -1;
	}
	if (fd_count) {
		m.msg_control = &control;
		m.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
		control.head.cmsg_level = SOL_SOCKET;
		control.head.cmsg_type = SCM_RIGHTS;
		control.head.cmsg_len = CMSG_LEN(fd_count * sizeof(int));
		memcpy(CMSG_DATA(&control.head), fds, fd_count * sizeof(int));
	}
	return sendmsg(socket, &m, flags | MSG_NOSIGNAL);
}

static void fd_take(struct unix_fds *fds, int fd)
{
	if (fds->count < fds->room) {
		fds->fds[fds->count++] = fd;
		return;
	}
	close(fd);
	fds->lost = true;
}

ssize_t unix_receive(int socket, void *bytes, size_t room, struct unix_fds *fds, int flags)
{
	struct iovec iov = { bytes, room };
	union control control;
	struct msghdr m = { .msg_iov = &iov,
			    .msg_iovlen = 1,
			    .msg_control = &control,
			    .msg_controllen = sizeof(control) };
	ssize_t n = recvmsg(socket, &m, flags | MSG_CMSG_CLOEXEC);

	if (n < 0)
		return n;
	for (struct cmsghdr *h = CMSG_FIRSTHDR(&m); h; h = CMSG_NXTHDR(&m, h)) {
		size_t size = h->cmsg_len - CMSG_LEN(0);

		if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t at = 0; at + sizeof(int) <= size; at += sizeof(int)) {
			int fd;

			memcpy(&fd, CMSG_DATA(h) + at, sizeof(fd));
			fd_take(fds, fd);
		}
	}
	if (m.msg_flags & MSG_CTRUNC)
		fds->lost = true;
	return n;
}
