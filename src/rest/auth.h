/* SPDX-License-Identifier: MIT */
/*
 * Who asks: on a Unix socket the kernel says it; on TLS a client's certificate does, when it is
 * signed by host.remote.client_ca, or a name and a password that PAM accepts for the service
 * "partita".
 */
#pragma once

#include "daemon/daemon.h"
#include "rest/http.h"

struct auth;

/* Checks a password; in another thread. 0 or -EACCES; a test has its own. */
typedef int (*auth_password_fn)(const char *user, const char *password, const char *address);

/* Without `password` it is PAM's word, by way of partita-privd where the service has one. */
int auth_new(struct daemon *d, auth_password_fn password, struct auth **ret,
	     struct error *err) _must_check_;
void auth_free(struct auth *a); /* waits for passwords that are being checked */
enum http_admission auth_admit(struct auth *a, struct http_request *r);
void auth_identity_free(void *identity);
