// SPDX-License-Identifier: MIT
/* See message.h. */
#include "privd/message.h"
#include "lib/cleanup.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

int message_send(int socket, const void *bytes, size_t size, const int *fds, unsigned fd_count)
{
	ssize_t n;

	do
		n = unix_send(socket, bytes, size, fds, fd_count, 0);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

/* MSG_TRUNC tells the size that the packet had, also where it was larger than the room. */
int message_receive(int socket, void *bytes, size_t room, struct message *ret)
{
	struct unix_fds fds = { ret->fds, 0, MESSAGE_FDS_MAX, false };
	ssize_t n;

	ret->size = 0;
	ret->fd_count = 0;
	do
		n = unix_receive(socket, bytes, room, &fds, MSG_TRUNC);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	ret->fd_count = fds.count;
	if ((size_t)n > room || fds.lost) {
		message_close(ret);
		return -EMSGSIZE;
	}
	ret->size = (size_t)n;
	return n > 0;
}

void message_close(struct message *m)
{
	for (unsigned i = 0; i < m->fd_count; i++)
		if (m->fds[i] >= 0)
			close(m->fds[i]);
	m->fd_count = 0;
}

int message_connect(const char *path, bool wait, struct error *err)
{
	_cleanup_close_ int fd =
		socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | (wait ? 0 : SOCK_NONBLOCK), 0);
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	if (fd < 0)
		return error_errno(err, -errno, "cannot make a socket");
	if (strlen(path) >= sizeof(address.sun_path))
		return error_set(err, -ENAMETOOLONG, "socket path \"%.200s\" is too long", path);
	strcpy(address.sun_path, path);
	if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
		return error_errno(err, -errno,
				   "cannot reach partita-privd at \"%.200s\"; "
				   "`systemctl status partita-privd.socket` tells whether it is up",
				   path);
	return steal_fd(&fd);
}
