/* SPDX-License-Identifier: MIT */
/*
 * Which folders are machines: the registry's tables in the database, and nothing else. A row's
 * phase says what was under way with the folder, so that the next service can finish or undo it.
 */
#pragma once

#include "daemon/database.h"
#include "lib/guid.h"

enum vm_phase {
	PHASE_PRESENT,
	PHASE_MAKING,   /* the folder appears, with vm.json in it */
	PHASE_ADDING,   /* vm.json appears in a folder that was there */
	PHASE_RENAMING, /* vm.json, which is there, gets this row's id */
	PHASE_REMOVING, /* the folder disappears */
	PHASE_COUNT,
};

struct registry_row {
	const char *id, *folder;
	enum vm_phase phase;
	bool running;         /* it was started and not stopped since */
	int64_t started;      /* ms since 1970, of the last start */
	const char *critical; /* why it is critical, or NULL */
};

int registry_each(struct database *db, int (*each)(void *context, const struct registry_row *row),
		  void *context, struct error *err) _must_check_;
/* -EEXIST: the id or the folder is in there. */
int registry_add(struct database *db, const char *id, const char *folder, enum vm_phase phase,
		 struct error *err) _must_check_;
int registry_phase(struct database *db, const char *id, enum vm_phase phase,
		   struct error *err) _must_check_;
/* Of all that were about to be: they are. */
int registry_settle(struct database *db, struct error *err) _must_check_;
int registry_remove(struct database *db, const char *id, struct error *err) _must_check_;
int registry_running(struct database *db, const struct registry_row *row,
		     struct error *err) _must_check_;

/* Single values of the service by name: *ret is NULL or to be freed. */
int registry_value_get(struct database *db, const char *name, char **ret,
		       struct error *err) _must_check_;
int registry_value_set(struct database *db, const char *name, const char *value,
		       struct error *err) _must_check_;
