/* SPDX-License-Identifier: MIT */
/*
 * Changes of settings by the tables that come from their schema: what a merge patch makes of them,
 * what differs, and what the schema says of when and by whom that may be. For machines and the
 * host.
 */
#pragma once

#include "daemon/authz.h"
#include "schema/schema.h"

/* What `patch` makes of `target` (RFC 7396): a new reference, NULL without memory. */
json_t *merge_patch(const json_t *target, const json_t *patch);

struct settings_difference {
	const char *path;        /* "scsi_controllers[0].drives[1].path" */
	const json_t *old, *new; /* NULL: absent */
	enum schema_when when;   /* inherited, never SCHEMA_AS_ABOVE */
	const char *operation;   /* inherited; NULL: the usual one */
	const struct schema_field *field;
};

/*
 * Calls `each` for everything that differs between two encoded values, down to single settings,
 * until it returns other than 0, which is then the result. An array of another length is one
 * difference.
 */
int settings_compare(const struct schema_object *schema, const json_t *old, const json_t *new,
		     int (*each)(void *context, const struct settings_difference *d),
		     void *context);
