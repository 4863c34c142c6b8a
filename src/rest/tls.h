/* SPDX-License-Identifier: MIT */
/* The service's certificate and key: two files, made when there are none. */
#pragma once

#include "lib/error.h"

struct tls {
	char *certificate, *key;  /* PEM */
	char *client_ca;          /* PEM or NULL */
	char fingerprint[3 * 32]; /* SHA-256, "AB:CD:..." */
};

/*
 * FOLDER/certificate.pem and FOLDER/key.pem; both are made, and signed by itself, when neither is
 * there. `client_ca` is a file, or NULL. tls_deinit is due, also after a failure.
 */
int tls_load(const char *folder, const char *client_ca, struct tls *ret,
	     struct error *err) _must_check_;
void tls_deinit(struct tls *tls);
