/* SPDX-License-Identifier: MIT */
/*
 * Keys of idempotency: what a caller's key made is found again for a day or longer, so that a
 * request that is sent twice does its work once. A key is for one request, its body included.
 */
#pragma once

#include "daemon/authz.h"
#include "daemon/database.h"

#define KEY_MAX 64 /* characters */

struct key {
	const char *text; /* the caller's; NULL: there is none, and all here does nothing */
	char request[64]; /* "POST /vms", and what stands for the body */
};

/* -EINVAL with words when the text is none that a key may have. */
int key_init(struct key *key, const char *text, const char *request, const json_t *body,
	     struct error *err) _must_check_;
/*
 * The id of what it made, to be freed; NULL: nothing. -EKEYREJECTED when it was for
 * another request.
 */
int key_find(struct database *db, const struct caller *c, const struct key *key, char **ret,
	     struct error *err) _must_check_;
/* In a transaction with the making. */
int key_add(struct database *db, const struct caller *c, const struct key *key, const char *result,
	    struct error *err) _must_check_;
void keys_expire(struct database *db); /* older than a day */
