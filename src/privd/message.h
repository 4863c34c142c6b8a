/* SPDX-License-Identifier: MIT */
/*
 * Packets with descriptors on SOCK_SEQPACKET sockets, as partita-privd, its clients and its own two
 * halves send them. A packet is whole or not there at all. Any thread.
 */
#pragma once

#include "lib/error.h"
#include "lib/types.h"
#include "lib/unix_socket.h"

#include <sys/types.h>

#define MESSAGE_FDS_MAX UNIX_FDS_MAX

struct message {
	size_t size;
	unsigned fd_count;
	int fds[MESSAGE_FDS_MAX]; /* the receiver's to close; -1 = given up */
};

/* 0, -EAGAIN when there is no room now, or what else sendmsg says. `fds` stay the caller's. */
int message_send(int socket, const void *bytes, size_t size, const int *fds,
		 unsigned fd_count) _must_check_;
/*
 * Takes a packet: 1, 0 when the other side is gone, -EAGAIN, -EMSGSIZE when it is larger than
 * `room` or had more descriptors than fit (it is lost then, nothing stays open).
 */
int message_receive(int socket, void *bytes, size_t room, struct message *ret) _must_check_;
void message_close(struct message *m);
/* Connects to a socket in the file system: the descriptor, non-blocking unless `wait`. */
int message_connect(const char *path, bool wait, struct error *err) _must_check_;
