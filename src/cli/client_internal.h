/* SPDX-License-Identifier: MIT */
/* What the files of the client share. */
#pragma once

#include "cli/client.h"

#include <curl/curl.h>

struct client {
	CURL *curl;
	char *socket; /* path, or NULL */
	char *base;   /* URL up to and with /api/v1 */
	char *name;   /* of the host, for the Host header of a console */
	char *user, *password;
	bool silent;            /* nobody is asked for a password */
	CURL *pinned;           /* whose certificate is looked at */
	bool other_certificate; /* it was not the one that is wanted */
	char words[CURL_ERROR_SIZE];
};

/* Sets what all transfers to the service have in common. */
int client_prepare(struct client *c, CURL *curl, const char *path, struct error *err) _must_check_;
int client_transfer_failed(const struct client *c, CURLcode code, struct error *err);
/* -EACCES when the server's certificate is not the one that PARTITA_FINGERPRINT says. */
int client_check_certificate(struct client *c, CURL *curl) _must_check_;
/* Turns an answer with status 400 and above into words. */
int client_refused(int status, const json_t *problem, struct error *err);
