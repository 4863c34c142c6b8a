// SPDX-License-Identifier: MIT
/* Packets between the tool and its reader (files_proto.h). Both sides; one thread each. */
#include "vhdtool/files_proto.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/uio.h>

int files_send(int fd, const struct files_message *m, const void *payload, size_t n)
{
	struct iovec iov[] = {
		{ (void *)m, sizeof(*m) },
		{ (void *)payload, n },
	};
	const struct msghdr h = { .msg_iov = iov, .msg_iovlen = n ? 2 : 1 };
	ssize_t sent;

	do {
		sent = sendmsg(fd, &h, MSG_NOSIGNAL);
	} while (sent < 0 && errno == EINTR);
	if (sent < 0)
		return -errno;
	return (size_t)sent == sizeof(*m) + n ? 0 : -EPROTO;
}

int files_receive(int fd, struct files_message *ret, void *payload, size_t *ret_n)
{
	const struct iovec iov[] = {
		{ ret, sizeof(*ret) },
		{ payload, FILES_PAYLOAD_MAX },
	};
	ssize_t got;

	do {
		got = readv(fd, iov, 2);
	} while (got < 0 && errno == EINTR);
	if (got < 0)
		return errno == ECONNRESET ? -EPIPE : -errno;
	if (!got)
		return -EPIPE;
	if ((size_t)got < sizeof(*ret))
		return -EPROTO;
	*ret_n = (size_t)got - sizeof(*ret);
	return 0;
}
