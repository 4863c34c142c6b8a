/* SPDX-License-Identifier: MIT */
/*
 * The REST door of the service (docs/rest.md): on a Unix socket, and on TCP with TLS 1.3 while
 * host.remote.enabled. On the daemon's loop.
 */
#pragma once

#include "daemon/daemon.h"

struct rest_options {
	const char *socket;     /* path of the Unix socket; NULL: none */
	const char *tls_folder; /* for the certificate and its key; made with the first use */
	/* Checks a name and a password in a thread: 0 or negative; NULL: PAM does. */
	int (*password)(const char *user, const char *password, const char *address);
};

struct rest;

/*
 * The socket is for everybody (who may do what is judged by who asks), but a user's own service has
 * it for itself. That TLS cannot be served is logged, and an event, not an error. The program must
 * ignore SIGPIPE, and needs descriptors for 1,400 connections.
 */
int rest_new(struct daemon *d, const struct rest_options *o, struct rest **ret,
	     struct error *err) _must_check_;
void rest_free(struct rest *rest); /* before the daemon is; NULL is fine */
