// SPDX-License-Identifier: MIT
/* See vm_registry.h. What is read from the database was written here; odd values mean "there". */
#include "daemon/vm_registry.h"

#include "daemon/words.h"
#include "lib/cleanup.h"

#include <errno.h>
#include <string.h>

static const char *const phases[PHASE_COUNT] = {
	[PHASE_PRESENT] = "present",   [PHASE_MAKING] = "making",     [PHASE_ADDING] = "adding",
	[PHASE_RENAMING] = "renaming", [PHASE_REMOVING] = "removing",
};

/* --- machines --- */

struct each {
	int (*fn)(void *context, const struct registry_row *row);
	void *context;
};

static int on_row(void *context, const struct database_row *row)
{
	const struct each *each = context;
	const char *phase = row_text(row, 2);
	struct registry_row out = {
		.id = row_text(row, 0),
		.folder = row_text(row, 1),
		.running = row_integer(row, 3),
		.started = row_integer(row, 4),
		.critical = row_text(row, 5),
	};

	for (unsigned i = 0; phase && i < PHASE_COUNT; i++)
		if (!strcmp(phase, phases[i]))
			out.phase = i;
	if (!out.id || strlen(out.id) != GUID_TEXT_SIZE - 1 || !out.folder)
		return 0;
	return each->fn(each->context, &out);
}

int registry_each(struct database *db, int (*each)(void *context, const struct registry_row *row),
		  void *context, struct error *err)
{
	struct each e = { each, context };

	return database_query(db, err, on_row, &e,
			      "SELECT id, folder, phase, running, started, critical FROM vms", "");
}

int registry_add(struct database *db, const char *id, const char *folder, enum vm_phase phase,
		 struct error *err)
{
	return database_run(db, err, "INSERT INTO vms (id, folder, phase) VALUES (?, ?, ?)", "sss",
			    id, folder, phases[phase]);
}

int registry_phase(struct database *db, const char *id, enum vm_phase phase, struct error *err)
{
	return database_run(db, err, "UPDATE vms SET phase = ? WHERE id = ?", "ss", phases[phase],
			    id);
}

int registry_settle(struct database *db, struct error *err)
{
	return database_run(db, err,
			    "UPDATE vms SET phase = 'present' "
			    "WHERE phase IN ('making', 'adding', 'renaming')",
			    "");
}

int registry_remove(struct database *db, const char *id, struct error *err)
{
	return database_run(db, err, "DELETE FROM vms WHERE id = ?", "s", id);
}

int registry_running(struct database *db, const struct registry_row *row, struct error *err)
{
	return database_run(db, err,
			    "UPDATE vms SET running = ?, started = ?, critical = ? WHERE id = ?",
			    "iiss", (int64_t)row->running, row->started, row->critical, row->id);
}

/* --- values --- */

static int on_value(void *context, const struct database_row *row)
{
	const char *text = row_text(row, 0);
	char **ret = context;

	*ret = text ? strdup(text) : NULL;
	return text && !*ret ? -ENOMEM : 1;
}

int registry_value_get(struct database *db, const char *name, char **ret, struct error *err)
{
	char *value = NULL;
	int r = database_query(db, err, on_value, &value, "SELECT value FROM state WHERE name = ?",
			       "s", name);

	if (r == -ENOMEM)
		return error_set(err, r, "not enough memory");
	if (r < 0)
		return r;
	*ret = value;
	return 0;
}

int registry_value_set(struct database *db, const char *name, const char *value, struct error *err)
{
	return database_run(db, err, "INSERT OR REPLACE INTO state (name, value) VALUES (?, ?)",
			    "ss", name, value);
}
