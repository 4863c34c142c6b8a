/* SPDX-License-Identifier: MIT */
/* What authz.c (who may what) and authz_change.c (changing that) share. */
#pragma once

#include "daemon/authz.h"

struct role {
	const char *name, *description; /* of those that are not built in: owned */
	uint64_t operations;            /* a bit for each */
	uint64_t own;                   /* what more one may do to machines that one created */
};

enum scope { SCOPE_HOST, SCOPE_GROUP, SCOPE_VM };

struct assignment {
	int64_t id;
	bool to_group;
	char *name, *role_name;
	const struct role *role; /* NULL: nobody knows it */
	enum scope scope;
	char *place; /* of a group: its path; of a machine: its id */
};

struct authz_state {
	struct role *roles; /* that are not built in, in order of names */
	unsigned role_count;
	struct assignment *assignments; /* in order of ids */
	unsigned assignment_count;
};

struct authz {
	struct database *db;
	struct database_hook hook;
	struct authz_state state;
	bool changed; /* in the transaction under way */
	void (*on_refusal)(void *context, const struct caller *c, enum operation op,
			   const struct target *t);
	void *context;
};

const struct role *role_find(const struct authz_state *s, const char *name); /* or NULL */
bool role_is_built_in(const struct role *role);
/* What stands behind "group:" or "vm:", "" of "host"; NULL: it is none of them. */
const char *scope_parse(const char *text, enum scope *ret);
/* Reads all from the database; what was in memory stays when that fails. */
int authz_reload(struct authz *a, struct error *err) _must_check_;
