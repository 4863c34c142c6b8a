/* SPDX-License-Identifier: MIT */
/*
 * Things that are a name and a few settings: switches and resource pools. Kept in the database,
 * read from there each time. Who may do it is checked here; changes are events, committed with
 * them.
 */
#pragma once

#include "daemon/daemon.h"

#include <jansson.h>

enum thing_kind {
	THING_SWITCH, /* {name, type, notes} */
	THING_POOL,   /* {name, notes}; "Primordial" is always there */
};

#define THING_MAX 10000 /* of a kind */

const char *thing_kind_name(enum thing_kind kind); /* "switch" */
/* Whether there is one with that id or name: 0, or -ENOENT. */
int thing_exists(struct daemon *d, enum thing_kind kind, const char *name,
		 struct error *err) _must_check_;
/* vm_things.c: how many machines name it by its id or name (NULL: not so), and the first of them.
 */
struct vm;
unsigned vm_things_users(struct daemon *d, enum thing_kind kind, const char *id, const char *name,
			 const struct vm **ret_first);

/* Makes what is always there. */
int things_init(struct daemon *d, struct error *err) _must_check_;
/*
 * Things are JSON: {id, name, ...}, new references. `each` gets one after another in order of
 * names, then ids, with its revision; other than 0 ends it and is the result.
 */
int things_each(struct daemon *d, const struct caller *c, enum thing_kind kind,
		int (*each)(void *context, json_t *thing, uint64_t revision), void *context,
		struct error *err) _must_check_;
/* By id or by a name that is unique; -ENOENT, -ENOTUNIQ. */
int thing_get(struct daemon *d, const struct caller *c, enum thing_kind kind, const char *name,
	      json_t **ret, uint64_t *ret_revision, struct error *err) _must_check_;
/*
 * From its settings, checked already against what the door says they are. Names may not repeat
 * (-EEXIST). For the same `key` (NULL: none) of the same caller within a day the thing made then is
 * found again; -EKEYREJECTED when the key was for another request.
 */
int thing_create(struct daemon *d, const struct caller *c, enum thing_kind kind, json_t *settings,
		 const char *key, json_t **ret, uint64_t *ret_revision,
		 struct error *err) _must_check_;
/*
 * A merge patch. `id` as shown; `revision` nonzero: -ESTALE unless it is still that. -EBUSY: a
 * machine uses it, which must be under this name, and is not to be removed.
 */
int thing_change(struct daemon *d, const struct caller *c, enum thing_kind kind, const char *id,
		 json_t *patch, uint64_t revision, struct error *err) _must_check_;
int thing_remove(struct daemon *d, const struct caller *c, enum thing_kind kind, const char *id,
		 uint64_t revision, struct error *err) _must_check_;
