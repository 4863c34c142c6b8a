/* SPDX-License-Identifier: MIT */
/* TLS on TCP, switched on and off by the host's settings. */
#pragma once

#include "daemon/daemon.h"
#include "rest/http.h"

struct remote;

int remote_new(struct daemon *d, struct http *http, const char *tls_folder, struct remote **ret,
	       struct error *err) _must_check_;
void remote_free(struct remote *r);
/* The settings may have changed: does what they say, soon, so that an answer gets out first. */
void remote_apply(struct remote *r);
/* {listening, address, port, fingerprint, error}; new reference. */
json_t *remote_json(const struct remote *r);
