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
