// SPDX-License-Identifier: MIT
/*
 * /operations, /roles, /assignments. The service's functions check what is asked for, but not who
 * asks, and leave no events: both are done here.
 */
#include "daemon/key.h"
#include "daemon/vm.h"
#include "rest/api.h"

#include <errno.h>
#include <string.h>

static int check(struct call *call, enum operation op, struct error *err)
{
	return authz_check(call->d->authz, call->caller, op, &(struct target){ 0 }, err);
}

static void audit(struct call *call, const char *kind, json_t *fields, const char *words)
{
	event_add(call->d->events, SEVERITY_AUDIT, kind, NULL, call->caller, fields, "%s", words);
}

/* Ends a transaction by how it went. */
static int finish(struct call *call, int r, struct error *err)
{
	if (r >= 0)
		return database_commit(call->d->db, err);
	database_rollback(call->d->db);
	return r;
}

static const char *member(const json_t *json, const char *name)
{
	const char *text = json_string_value(json_object_get(json, name));

	return text ? text : "";
}

/* --- lists of arrays --- */

static bool matches(struct call *call, const json_t *item)
{
	const struct target_text *t = &call->r->target;

	for (unsigned i = 0; i < t->parameter_count; i++) {
		const char *name = t->parameters[i].name;

		if (strcmp(name, "limit") && strcmp(name, "cursor") && strcmp(name, "fields") &&
		    !name_matches_pattern(t->parameters[i].value, member(item, name)))
			return false;
	}
	return true;
}

/* A page of an array whose items have `key`, a name or a number, in no particular order. */
static int list_array(struct call *call, json_t *all, const char *key, struct error *err)
{
	struct page page;
	char cursor[200];
	bool after;
	int r = all ? page_begin(&page, call, err) : error_errno(err, -ENOMEM, "cannot list them");

	after = r >= 0 && !page.cursor;
	for (size_t i = 0; r >= 0 && i < json_array_size(all); i++) {
		json_t *item = json_array_get(all, i), *value = json_object_get(item, key);

		if (json_is_integer(value))
			snprintf(cursor, sizeof(cursor), "%lld",
				 (long long)json_integer_value(value));
		else
			snprintf(cursor, sizeof(cursor), "%s", member(item, key));
		if (after && matches(call, item) &&
		    (!page_room(&page) || !page_add(&page, json_incref(item), cursor)))
			break;
		after = after || !strcmp(cursor, page.cursor);
	}
	json_decref(all);
	return r < 0 ? r : page_answer(&page);
}

int list_operations(struct call *call, struct error *err)
{
	json_t *all = json_array();

	for (unsigned op = 0; op < OPERATION_COUNT; op++)
		json_array_append_new(all, json_pack("{s:s,s:s,s:b}", "name", operation_name(op),
						     "description", operation_description(op),
						     "on_vm", operation_on_vm(op)));
	return list_array(call, all, "name", err);
}

/* --- roles --- */

int list_roles(struct call *call, struct error *err)
{
	int r = check(call, OP_VIEW_ROLES, err);

	return r < 0 ? r : list_array(call, authz_roles(call->d->authz), "name", err);
}

/* New reference; NULL: none has this name. */
static json_t *role_find(struct call *call)
{
	_cleanup_json_ json_t *all = authz_roles(call->d->authz);

	for (size_t i = 0; i < json_array_size(all); i++) {
		if (!strcmp(member(json_array_get(all, i), "name"), call->id))
			return json_incref(json_array_get(all, i));
	}
	return NULL;
}

static int no_role(struct call *call, struct error *err)
{
	return error_set(err, -ENOENT, "there is no role \"%.100s\"", call->id);
}

static int answer_role(struct call *call, struct error *err)
{
	json_t *role = role_find(call);
	char etag[ETAG_SIZE];

	if (!role)
		return no_role(call, err);
	etag_of_json(role, etag);
	return call_answer_etag(call, 200, role, etag);
}

int get_role(struct call *call, struct error *err)
{
	int r = check(call, OP_VIEW_ROLES, err);

	return r < 0 ? r : answer_role(call, err);
}

/* If-Match against the role as it is; "" when there is none. */
static int check_match(struct call *call, const json_t *role, struct error *err)
{
	char etag[ETAG_SIZE] = "\"\"";

	if (role)
		etag_of_json(role, etag);
	return call_if_match(call, etag, err);
}

int put_role(struct call *call, struct error *err)
{
	_cleanup_json_ json_t *role = role_find(call);
	const char *name = json_string_value(json_object_get(call->body, "name"));
	int r = check(call, OP_CHANGE_ROLES, err);

	if (r >= 0)
		r = check_match(call, role, err);
	if (r >= 0 && name && strcmp(name, call->id))
		r = error_set(err, -EINVAL, "name: must be as in the path, a role keeps its name");
	json_object_del(call->body, "name");
	if (r >= 0)
		r = database_begin(call->d->db, err);
	if (r < 0)
		return r;
	r = authz_role_set(call->d->authz, call->id, call->body, err);
	if (r >= 0)
		audit(call, "role-changed",
		      json_pack("{s:s,s:O}", "name", call->id, "role", call->body),
		      role ? "A role was changed" : "A role was made");
	r = finish(call, r, err);
	return r < 0 ? r : answer_role(call, err);
}

int delete_role(struct call *call, struct error *err)
{
	_cleanup_json_ json_t *role = role_find(call);
	int r = check(call, OP_CHANGE_ROLES, err);

	if (r >= 0 && !role)
		r = no_role(call, err);
	if (r >= 0)
		r = check_match(call, role, err);
	if (r >= 0)
		r = database_begin(call->d->db, err);
	if (r < 0)
		return r;
	r = authz_role_remove(call->d->authz, call->id, err);
	if (r >= 0)
		audit(call, "role-removed", json_pack("{s:s}", "name", call->id),
		      "A role was removed");
	r = finish(call, r, err);
	return r < 0 ? r : call_answer_empty(call);
}

/* --- assignments --- */

int list_assignments(struct call *call, struct error *err)
{
	int r = check(call, OP_VIEW_ROLES, err);

	return r < 0 ? r : list_array(call, authz_assignments(call->d->authz), "id", err);
}

static json_t *assignment_find(struct call *call, int64_t id)
{
	_cleanup_json_ json_t *all = authz_assignments(call->d->authz);

	for (size_t i = 0; i < json_array_size(all); i++) {
		json_t *one = json_array_get(all, i);

		if (json_integer_value(json_object_get(one, "id")) == id)
			return json_incref(one);
	}
	return NULL;
}

static int answer_assignment(struct call *call, int64_t id, struct error *err)
{
	json_t *json = assignment_find(call, id);

	if (!json)
		return error_set(err, -ENOENT, "the assignment was removed meanwhile");
	return call_answer_created(call, json, NULL, API_PREFIX "/assignments/%lld", (long long)id);
}

static int assign(struct call *call, const struct key *key, int64_t *ret_id, struct error *err)
{
	char text[24];
	int r = authz_assign(call->d->authz, call->body, ret_id, err);

	snprintf(text, sizeof(text), "%lld", r < 0 ? 0ll : (long long)*ret_id);
	if (r >= 0)
		r = key_add(call->d->db, call->caller, key, text, err);
	if (r >= 0)
		audit(call, "role-assigned", json_incref(call->body), "A role was given");
	return r;
}

int create_assignment(struct call *call, struct error *err)
{
	_cleanup_free_ char *before = NULL;
	struct key key;
	int64_t id;
	int r = check(call, OP_CHANGE_ROLES, err);

	if (r >= 0)
		r = key_init(&key, http_header(call->r, "Idempotency-Key"), "POST /assignments",
			     call->body, err);
	if (r >= 0)
		r = key_find(call->d->db, call->caller, &key, &before, err);
	if (r >= 0 && before) {
		r = answer_assignment(call, strtoll(before, NULL, 10), err);
		if (r != -ENOENT)
			return r; /* else it was taken away since: given anew */
		r = 0;
	}
	if (r >= 0)
		r = database_begin(call->d->db, err);
	if (r < 0)
		return r;
	r = finish(call, assign(call, &key, &id, err), err);
	return r < 0 ? r : answer_assignment(call, id, err);
}

int delete_assignment(struct call *call, struct error *err)
{
	char *end;
	int64_t id = strtoll(call->id, &end, 10);
	_cleanup_json_ json_t *json = *end ? NULL : assignment_find(call, id);
	int r = check(call, OP_CHANGE_ROLES, err);

	if (r >= 0 && !json)
		r = error_set(err, -ENOENT, "there is no assignment %.40s", call->id);
	if (r >= 0)
		r = database_begin(call->d->db, err);
	if (r < 0)
		return r;
	r = authz_unassign(call->d->authz, id, err);
	if (r >= 0)
		audit(call, "role-unassigned", json_incref(json), "A role was taken away");
	r = finish(call, r, err);
	return r < 0 ? r : call_answer_empty(call);
}
