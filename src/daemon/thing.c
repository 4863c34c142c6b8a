// SPDX-License-Identifier: MIT
/*
 * See thing.h. A row of the table "things" each: its settings are JSON text without id and name,
 * which are columns. Revisions begin at the time of the first, so that a thing that was removed and
 * made again under its id does not repeat one. All on the loop's thread.
 */
#include "daemon/thing.h"
#include "daemon/key.h"
#include "daemon/settings_change.h"
#include "daemon/vm.h"
#include "daemon/vm_registry.h"
#include "daemon/words.h"
#include "lib/cleanup.h"
#include "lib/guid.h"
#include "schema/json.h"

#include <errno.h>
#include <string.h>

#define PRIMORDIAL        "Primordial"
#define DEFAULT_SWITCH    "Default Switch"
#define DEFAULT_SWITCH_ID "c08cb7b8-9b3c-408e-8e30-5e16a3aeb444"
#define PRIMORDIAL_ID     "d5bb3a4e-3f0e-4f2a-9d1a-6f1f2b0c7a10"

struct kind {
	const char *name, *create; /* create: the request that keys are kept for */
	enum operation view, change;
	const char *fallback; /* settings that were not given */
};

static const struct kind kinds[] = {
	[THING_SWITCH] = { "switch", "POST /switches", OP_VIEW_SWITCH, OP_CHANGE_SWITCH,
			   "{\"type\":\"private\",\"notes\":\"\"}" },
	[THING_POOL] = { "pool", "POST /pools", OP_VIEW_POOL, OP_CHANGE_POOL, "{\"notes\":\"\"}" },
};

static const struct target host; /* what switches and pools belong to */

static int no_memory(struct error *err)
{
	return error_set(err, -ENOMEM, "not enough memory");
}

/* --- reading --- */

struct reading {
	enum thing_kind kind;
	int (*each)(void *context, json_t *thing, uint64_t revision);
	void *context;
};

/* The settings with their defaults, id and name. */
static json_t *thing_json(enum thing_kind kind, const char *id, const char *name, json_t *settings)
{
	json_t *json = json_pack("{s:s,s:s}", "id", id, "name", name);
	_cleanup_json_ json_t *fallback = json_loads(kinds[kind].fallback, 0, NULL);

	if (!json || !fallback || json_object_update(json, fallback) < 0 ||
	    json_object_update_existing(json, settings) < 0) {
		json_decref(json);
		return NULL;
	}
	json_object_set_new(json, "id", json_string(id));
	json_object_set_new(json, "name", json_string(name));
	return json;
}

static int on_row(void *context, const struct database_row *row)
{
	const struct reading *reading = context;
	_cleanup_json_ json_t *settings = json_loads(row_text(row, 2), 0, NULL), *json;

	if (!settings)
		settings = json_object();
	json = thing_json(reading->kind, row_text(row, 0), row_text(row, 1), settings);
	if (!json)
		return -ENOMEM;
	return reading->each(reading->context, json, (uint64_t)row_integer(row, 3));
}

int things_each(struct daemon *d, const struct caller *c, enum thing_kind kind,
		int (*each)(void *context, json_t *thing, uint64_t revision), void *context,
		struct error *err)
{
	struct reading reading = { kind, each, context };
	int r = authz_check(d->authz, c, kinds[kind].view, &host, err);

	if (r < 0)
		return r;
	return database_query(d->db, err, on_row, &reading,
			      "SELECT id, name, settings, revision FROM things WHERE kind = ? "
			      "ORDER BY name, id",
			      "s", kinds[kind].name);
}

struct found {
	json_t *json;
	uint64_t revision;
	unsigned count;
};

static int on_found(void *context, json_t *thing, uint64_t revision)
{
	struct found *found = context;

	if (!found->count++) {
		found->json = json_incref(thing);
		found->revision = revision;
	}
	return 0;
}

static int find(struct daemon *d, enum thing_kind kind, const char *name, json_t **ret,
		uint64_t *ret_revision, struct error *err)
{
	struct found found = { 0 };
	struct reading reading = { kind, on_found, &found };
	int r = database_query(d->db, err, on_row, &reading,
			       "SELECT id, name, settings, revision FROM things WHERE kind = ?1 "
			       "AND (id = lower(?2) OR name = ?2) ORDER BY id = lower(?2) DESC",
			       "ss", kinds[kind].name, name);

	if (r >= 0 && !found.count)
		r = error_set(err, -ENOENT, "there is no %s \"%.100s\"", kinds[kind].name, name);
	if (r < 0) {
		json_decref(found.json);
		return r;
	}
	*ret = found.json; /* names do not repeat, and an id comes before a name like it */
	*ret_revision = found.revision;
	return 0;
}

const char *thing_kind_name(enum thing_kind kind)
{
	return kinds[kind].name;
}

int thing_exists(struct daemon *d, enum thing_kind kind, const char *name, struct error *err)
{
	_cleanup_json_ json_t *json = NULL;
	uint64_t revision;

	if (kind == THING_POOL && !strcmp(name, PRIMORDIAL))
		return 0;
	return find(d, kind, name, &json, &revision, err);
}

int thing_get(struct daemon *d, const struct caller *c, enum thing_kind kind, const char *name,
	      json_t **ret, uint64_t *ret_revision, struct error *err)
{
	int r = authz_check(d->authz, c, kinds[kind].view, &host, err);

	return r < 0 ? r : find(d, kind, name, ret, ret_revision, err);
}

/* --- changing --- */

static int on_count(void *context, const struct database_row *row)
{
	*(int64_t *)context = row_integer(row, 0);
	return 0;
}

/* Whether a thing may have this name; `id` its own, "" for a new one. */
static int check_name(struct daemon *d, enum thing_kind kind, const char *id, const char *name,
		      struct error *err)
{
	int64_t same = 0, all = 0;
	int r = database_query(
		d->db, err, on_count, &same,
		"SELECT count(*) FROM things WHERE kind = ? AND name = ? AND id <> ?", "sss",
		kinds[kind].name, name, id);

	if (r >= 0)
		r = database_query(d->db, err, on_count, &all,
				   "SELECT count(*) FROM things WHERE kind = ?", "s",
				   kinds[kind].name);
	if (r < 0)
		return r;
	if (same) {
		error_set(err, -EEXIST, "there is a %s \"%s\" already", kinds[kind].name, name);
		snprintf(err->property, sizeof(err->property), "name");
		return -EEXIST;
	}
	if (all >= THING_MAX && !*id)
		return error_set(err, -ENOSPC, "there are %d of them, which is the most",
				 THING_MAX);
	return 0;
}

static void audit(struct daemon *d, const struct caller *c, enum thing_kind kind, const char *what,
		  const char *name)
{
	char event[40];

	snprintf(event, sizeof(event), "%s-%s", kinds[kind].name, what);
	event_add(d->events, SEVERITY_AUDIT, event, NULL, c, json_pack("{s:s}", "name", name),
		  "The %s \"%s\" was %s", kinds[kind].name, name, what);
}

/* Writes a row, new or there already; the name and id in `thing` are its columns. */
static int store(struct daemon *d, enum thing_kind kind, json_t *thing, uint64_t revision,
		 struct error *err)
{
	_cleanup_json_ json_t *settings = json_copy(thing);
	_cleanup_free_ char *text = NULL;

	json_object_del(settings, "id");
	json_object_del(settings, "name");
	text = settings ? json_dumps(settings, JSON_COMPACT) : NULL;
	if (!text)
		return no_memory(err);
	return database_run(d->db, err,
			    "INSERT OR REPLACE INTO things (id, kind, name, settings, revision) "
			    "VALUES (?, ?, ?, ?, ?)",
			    "ssssi", json_string_value(json_object_get(thing, "id")),
			    kinds[kind].name, json_string_value(json_object_get(thing, "name")),
			    text, (int64_t)revision);
}

static int create(struct daemon *d, const struct caller *c, enum thing_kind kind, json_t *thing,
		  const struct key *key, struct error *err)
{
	const char *id = json_string_value(json_object_get(thing, "id"));
	const char *name = json_string_value(json_object_get(thing, "name"));
	int r = check_name(d, kind, "", name, err);

	if (r >= 0)
		r = store(d, kind, thing, (uint64_t)time_ms(), err);
	if (r >= 0)
		r = key_add(d->db, c, key, id, err);
	if (r >= 0)
		audit(d, c, kind, "created", name);
	return r;
}

/* Ends a transaction by how it went. */
static int finish(struct daemon *d, int r, struct error *err)
{
	if (r >= 0)
		return database_commit(d->db, err);
	database_rollback(d->db);
	return r;
}

static int create_once(struct daemon *d, const struct caller *c, enum thing_kind kind,
		       json_t *thing, const struct key *key, struct error *err)
{
	int r = database_begin(d->db, err);

	if (r < 0)
		return r;
	return finish(d, create(d, c, kind, thing, key, err), err);
}

int thing_create(struct daemon *d, const struct caller *c, enum thing_kind kind, json_t *settings,
		 const char *key, json_t **ret, uint64_t *ret_revision, struct error *err)
{
	const char *name = json_string_value(json_object_get(settings, "name"));
	_cleanup_json_ json_t *thing = NULL;
	_cleanup_free_ char *before = NULL;
	char id[GUID_TEXT_SIZE];
	struct guid guid = guid_random();
	struct key used;
	int r = authz_check(d->authz, c, kinds[kind].change, &host, err);

	if (r >= 0)
		r = key_init(&used, key, kinds[kind].create, settings, err);
	if (r >= 0)
		r = key_find(d->db, c, &used, &before, err);
	if (r < 0)
		return r;
	if (before) {
		r = find(d, kind, before, ret, ret_revision, err);
		if (r != -ENOENT)
			return r; /* else it was removed since: made anew */
	}
	thing = name ? thing_json(kind, guid_format(&guid, id), name, settings) : NULL;
	if (!thing)
		return name ? no_memory(err) : error_set(err, -EINVAL, "it needs a name");
	r = create_once(d, c, kind, thing, &used, err);
	return r < 0 ? r : find(d, kind, id, ret, ret_revision, err);
}

static bool is_primordial(const json_t *thing)
{
	return !strcmp(json_string_value(json_object_get(thing, "id")), PRIMORDIAL_ID);
}

static int check_change(enum thing_kind kind, const json_t *thing, uint64_t is, uint64_t revision,
			struct error *err)
{
	if (revision && is != revision)
		return error_set(err, -ESTALE,
				 "the %s was changed since you read it: read it again",
				 kinds[kind].name);
	if (is_primordial(thing))
		return error_set(err, -EEXIST, "the pool Primordial is always as it is");
	return 0;
}

/* By the name only: that is going to be another one. */
static int check_unused(struct daemon *d, enum thing_kind kind, const json_t *thing, bool by_id,
			struct error *err)
{
	const char *name = json_string_value(json_object_get(thing, "name"));
	const char *id = json_string_value(json_object_get(thing, "id"));
	const struct vm *first = NULL;
	unsigned n = vm_things_users(d, kind, by_id ? id : NULL, name, &first);

	if (!n)
		return 0;
	return error_set(
		err, -EBUSY,
		"the %s \"%s\" is used by %u machine%s, the first of them \"%s\" (%s): change "
		"%s settings first",
		kinds[kind].name, name, n, n == 1 ? "" : "s", first->settings.name, first->id,
		n == 1 ? "its" : "their");
}

static int change(struct daemon *d, const struct caller *c, enum thing_kind kind, json_t *old,
		  json_t *patch, uint64_t revision, struct error *err)
{
	const char *id = json_string_value(json_object_get(old, "id"));
	_cleanup_json_ json_t *merged = merge_patch(old, patch), *thing = NULL;
	const char *name = json_string_value(json_object_get(merged, "name"));
	int r;

	if (!name)
		return error_set(err, -EINVAL, "it needs a name");
	thing = thing_json(kind, id, name, merged);
	if (!thing)
		return no_memory(err);
	if (json_equal(old, thing))
		return 0;
	r = check_name(d, kind, id, name, err);
	if (r >= 0 && strcmp(name, json_string_value(json_object_get(old, "name"))) != 0)
		r = check_unused(d, kind, old, false, err);
	if (r >= 0)
		r = store(d, kind, thing, revision + 1, err);
	if (r >= 0)
		audit(d, c, kind, "changed", name);
	return r;
}

/* What the caller may change, and knows as it is. */
static int find_to_change(struct daemon *d, const struct caller *c, enum thing_kind kind,
			  const char *id, uint64_t revision, json_t **ret, uint64_t *ret_revision,
			  struct error *err)
{
	int r = authz_check(d->authz, c, kinds[kind].change, &host, err);

	if (r >= 0)
		r = find(d, kind, id, ret, ret_revision, err);
	return r < 0 ? r : check_change(kind, *ret, *ret_revision, revision, err);
}

int thing_change(struct daemon *d, const struct caller *c, enum thing_kind kind, const char *id,
		 json_t *patch, uint64_t revision, struct error *err)
{
	_cleanup_json_ json_t *old = NULL;
	uint64_t is;
	int r = find_to_change(d, c, kind, id, revision, &old, &is, err);

	if (r >= 0)
		r = database_begin(d->db, err);
	if (r < 0)
		return r;
	return finish(d, change(d, c, kind, old, patch, is, err), err);
}

static int remove_row(struct daemon *d, const struct caller *c, enum thing_kind kind,
		      const json_t *thing, struct error *err)
{
	int r = database_run(d->db, err, "DELETE FROM things WHERE id = ?", "s",
			     json_string_value(json_object_get(thing, "id")));

	if (r >= 0)
		audit(d, c, kind, "removed", json_string_value(json_object_get(thing, "name")));
	return r;
}

int thing_remove(struct daemon *d, const struct caller *c, enum thing_kind kind, const char *id,
		 uint64_t revision, struct error *err)
{
	_cleanup_json_ json_t *old = NULL;
	uint64_t is;
	int r = find_to_change(d, c, kind, id, revision, &old, &is, err);

	if (r >= 0)
		r = check_unused(d, kind, old, true, err);
	if (r >= 0)
		r = database_begin(d->db, err);
	if (r < 0)
		return r;
	return finish(d, remove_row(d, c, kind, old, err), err);
}

/* Once: who removes it does not want it again. */
static int default_switch_make(struct daemon *d, struct error *err)
{
	_cleanup_free_ char *made = NULL;
	int r = registry_value_get(d->db, "default-switch", &made, err);

	if (r < 0 || made)
		return r;
	r = database_run(d->db, err,
			 "INSERT OR IGNORE INTO things (id, kind, name, settings, revision) "
			 "VALUES ('" DEFAULT_SWITCH_ID "', 'switch', '" DEFAULT_SWITCH "', "
			 "'{\"type\":\"nat\",\"notes\":\"The host''s network, by address "
			 "translation\"}', 1)",
			 "");
	return r < 0 ? r : registry_value_set(d->db, "default-switch", "made", err);
}

int things_init(struct daemon *d, struct error *err)
{
	int r = d->networks_wanted ? default_switch_make(d, err) : 0;

	return r < 0 ? r
		     : database_run(
			       d->db, err,
			       "INSERT OR IGNORE INTO things (id, kind, name, settings, revision) "
			       "VALUES ('" PRIMORDIAL_ID "', 'pool', '" PRIMORDIAL "', "
			       "'{\"notes\":\"All of the host\"}', 1)",
			       "");
}
