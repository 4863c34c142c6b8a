/* SPDX-License-Identifier: MIT */
/* The sockets in front of nbd.h: a listener and its connections, on one event loop. */
#pragma once

#include "vhdtool/nbd.h"

#define NBD_CONNECTIONS_MAX 64u /* each may hold NBD_HELD_MAX; more wait in the backlog */

struct nbd_server;

/*
 * Serves on a listening socket, which is the server's from here on, also when this fails. With
 * `once` it ends by itself when the last client has gone. Either
 * way the loop stops when all connections are closed and their requests are done.
 */
int nbd_server_new(struct loop *loop, int fd, struct nbd_export *export, bool once,
		   struct nbd_server **ret, struct error *err) _must_check_;
/* Takes no more clients, ends those that are there, and stops the loop when that is done. */
void nbd_server_stop(struct nbd_server *s);
void nbd_server_free(struct nbd_server *s); /* after the loop has stopped; NULL is fine */

/* A listening Unix socket. What is at `path` is replaced when it is a socket without a listener. */
int nbd_listen(const char *path, struct error *err) _must_check_;
