// SPDX-License-Identifier: MIT
/*
 * Changing roles and assignments, see authz.h: hostile JSON is checked whole, then becomes a row,
 * then all is read anew.
 */
#include "daemon/authz_internal.h"

#include "lib/cleanup.h"
#include "lib/guid.h"

#include <ctype.h>
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <string.h>

#define NAME_MAX_CHARS        64
#define DESCRIPTION_MAX_BYTES 512
#define SCOPE_MAX_BYTES       512
#define NSS_BUFFER            MIB /* a group's entry has all its members */

static int fault(struct error *err, int code, const char *property, const char *format, ...)
	_printf_(4, 5);

static int fault(struct error *err, int code, const char *property, const char *format, ...)
{
	char words[384];
	va_list ap;

	va_start(ap, format);
	vsnprintf(words, sizeof(words), format, ap);
	va_end(ap);
	error_set(err, code, "%s: %s", property, words);
	if (err)
		snprintf(err->property, sizeof(err->property), "%s", property);
	return code;
}

/* Begins a change, or rather its transaction; the hook then knows of it. */
static int change_begin(struct authz *a, struct error *err)
{
	int r = database_begin(a->db, err);

	if (!r)
		a->changed = true;
	return r;
}

static int change_end(struct authz *a, int r, struct error *err)
{
	if (!r)
		r = authz_reload(a, err);
	if (!r)
		return database_commit(a->db, err);
	database_rollback(a->db);
	return r;
}

/* Refuses members that are not among `known`. */
static int members_judge(json_t *object, const char *const *known, struct error *err)
{
	const char *key;
	json_t *value;

	if (!json_is_object(object))
		return error_set(err, -EINVAL, "a JSON object is needed");
	json_object_foreach(object, key, value)
	{
		unsigned i = 0;

		while (known[i] && strcmp(known[i], key))
			i++;
		if (!known[i])
			return error_set(err, -EINVAL, "%.64s: there is no such property", key);
	}
	return 0;
}

/* *ret NULL when it is left out. */
static int text_judge(json_t *object, const char *property, size_t max, const char **ret,
		      struct error *err)
{
	json_t *value = json_object_get(object, property);

	*ret = NULL;
	if (!value)
		return 0;
	if (!json_is_string(value) || json_string_length(value) > max ||
	    strlen(json_string_value(value)) != json_string_length(value))
		return fault(err, -EINVAL, property, "a string of at most %zu bytes is needed",
			     max);
	*ret = json_string_value(value);
	return 0;
}

/* --- roles --- */

static int operations_judge(json_t *role, const char *property, bool on_vm, struct error *err)
{
	json_t *names = json_object_get(role, property), *name;
	enum operation op;
	size_t i;

	if (!names)
		return on_vm ? 0
			     : fault(err, -EINVAL, property, "an array of operations is needed");
	if (!json_is_array(names) || json_array_size(names) > OPERATION_COUNT)
		return fault(err, -EINVAL, property,
			     "an array of operations, each once, is needed");
	json_array_foreach(names, i, name)
	{
		if (!json_is_string(name) || operation_find(json_string_value(name), &op) < 0)
			return fault(err, -EINVAL, property, "there is no operation %.64s",
				     json_is_string(name) ? json_string_value(name) : "like that");
		if (on_vm && !operation_on_vm(op))
			return fault(err, -EINVAL, property,
				     "%s is not done to a machine, so nobody owns it",
				     operation_name(op));
	}
	return 0;
}

/* It becomes a part of paths and commands. */
static int name_judge(const char *name, struct error *err)
{
	size_t n = strlen(name);

	for (size_t i = 0; i < n; i++) {
		if (!isascii(name[i]) || (!isalnum(name[i]) && !strchr("-_", name[i])))
			n = 0;
	}
	if (!n || n > NAME_MAX_CHARS)
		return fault(err, -EINVAL, "name",
			     "a role has a name of 1 to %d letters, digits, - and _",
			     NAME_MAX_CHARS);
	return 0;
}

static int not_built_in(const char *name, const struct role *role, struct error *err)
{
	if (role && role_is_built_in(role))
		return fault(err, -EINVAL, "name",
			     "the role %s is built in and stays as it is: make one of another name",
			     name);
	return 0;
}

/* What a client read may be sent back: a name and built_in that are as they are. */
static int role_judge(const char *name, json_t *role, const char **ret_description,
		      struct error *err)
{
	static const char *const known[] = { "name",       "description",    "built_in",
					     "operations", "own_operations", NULL };
	const char *same;
	int r = members_judge(role, known, err);

	if (!r)
		r = name_judge(name, err);
	if (!r)
		r = text_judge(role, "name", NAME_MAX_CHARS, &same, err);
	if (!r && same && strcmp(same, name))
		r = fault(err, -EINVAL, "name", "a role cannot be renamed");
	if (!r && json_object_get(role, "built_in") &&
	    !json_is_false(json_object_get(role, "built_in")))
		r = fault(err, -EINVAL, "built_in", "a role that is made is not built in");
	if (!r)
		r = text_judge(role, "description", DESCRIPTION_MAX_BYTES, ret_description, err);
	if (!r)
		r = operations_judge(role, "operations", false, err);
	if (!r)
		r = operations_judge(role, "own_operations", true, err);
	return r;
}

static int role_write(struct authz *a, const char *name, const char *description, json_t *role,
		      struct error *err)
{
	json_t *own = json_object_get(role, "own_operations");
	_cleanup_free_ char *all = json_dumps(json_object_get(role, "operations"), JSON_COMPACT);
	_cleanup_free_ char *own_text = own ? json_dumps(own, JSON_COMPACT) : strdup("[]");
	int r;

	if (!all || !own_text)
		return error_set(err, -ENOMEM, "role %s: no memory", name);
	r = change_begin(a, err);
	if (r)
		return r;
	r = database_run(a->db, err,
			 "INSERT INTO roles (name, description, operations, own_operations) "
			 "VALUES (?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET "
			 "description = excluded.description, operations = excluded.operations, "
			 "own_operations = excluded.own_operations",
			 "ssss", name, description ? description : "", all, own_text);
	return change_end(a, r, err);
}

int authz_role_set(struct authz *a, const char *name, json_t *role, struct error *err)
{
	const struct role *old = role_find(&a->state, name);
	const char *description = NULL;
	int r = not_built_in(name, old, err);

	if (!r)
		r = role_judge(name, role, &description, err);
	if (!r && !old && a->state.role_count >= AUTHZ_ROLES_MAX)
		r = error_set(err, -ENOSPC, "there are %d roles already: remove one first",
			      AUTHZ_ROLES_MAX);
	return r ? r : role_write(a, name, description, role, err);
}

int authz_role_remove(struct authz *a, const char *name, struct error *err)
{
	const struct role *role = role_find(&a->state, name);
	int r = not_built_in(name, role, err);

	if (r)
		return r;
	if (!role)
		return error_set(err, -ENOENT, "there is no role %.64s", name);
	for (unsigned i = 0; i < a->state.assignment_count; i++) {
		const struct assignment *s = &a->state.assignments[i];

		if (s->role == role)
			return error_set(
				err, -EBUSY,
				"the role %s is assigned to %s %s: remove assignment %lld first",
				name, s->to_group ? "group" : "user", s->name, (long long)s->id);
	}
	r = change_begin(a, err);
	if (r)
		return r;
	r = database_run(a->db, err, "DELETE FROM roles WHERE name = ?", "s", name);
	return change_end(a, r, err);
}

/* --- assignments --- */

static bool user_exists(const char *name, char *buffer)
{
	struct passwd entry, *found = NULL;

	return !getpwnam_r(name, &entry, buffer, NSS_BUFFER, &found) && found;
}

static bool group_exists(const char *name, char *buffer)
{
	struct group entry, *found = NULL;

	return !getgrnam_r(name, &entry, buffer, NSS_BUFFER, &found) && found;
}

static int who_judge(json_t *json, bool *ret_to_group, const char **ret_name, struct error *err)
{
	_cleanup_free_ char *buffer = malloc(NSS_BUFFER);
	/* as long as struct caller can hold: a longer one would never match */
	size_t user_max = sizeof(((struct caller *)0)->name) - 1;
	size_t group_max = sizeof(((struct caller *)0)->groups[0]) - 1;
	const char *user, *group;
	int r = text_judge(json, "user", user_max, &user, err);

	if (!r)
		r = text_judge(json, "group", group_max, &group, err);
	if (r)
		return r;
	if (!buffer)
		return error_set(err, -ENOMEM, "assignment: no memory");
	if (!user == !group)
		return fault(err, -EINVAL, "user", "either a user or a group is needed");
	if (user && !user_exists(user, buffer))
		return fault(err, -ENOENT, "user", "this host has no user %s", user);
	if (group && !group_exists(group, buffer))
		return fault(err, -ENOENT, "group", "this host has no group %s", group);
	*ret_to_group = group != NULL;
	*ret_name = user ? user : group;
	return 0;
}

/* "lab/web": components that are not empty. */
static bool path_is_fine(const char *path)
{
	size_t n = strlen(path);

	return n && path[0] != '/' && path[n - 1] != '/' && !strstr(path, "//");
}

static int count_row(void *context, const struct database_row *row)
{
	*(int64_t *)context = row_integer(row, 0);
	return 0;
}

/* `text` becomes "vm:" and the id as it is kept. */
static int vm_scope_judge(struct authz *a, const char *id, char *text, size_t size,
			  struct error *err)
{
	char lower[GUID_TEXT_SIZE];
	struct guid guid;
	int64_t count = 0;
	int r;

	if (guid_parse(id, &guid) < 0)
		return fault(err, -EINVAL, "scope", "a machine is named by its id here");
	guid_format(&guid, lower);
	r = database_query(a->db, err, count_row, &count, "SELECT count(*) FROM vms WHERE id = ?",
			   "s", lower);
	if (r)
		return r;
	if (!count)
		return fault(err, -ENOENT, "scope", "there is no machine %s", lower);
	snprintf(text, size, "vm:%s", lower);
	return 0;
}

static int scope_judge(struct authz *a, json_t *json, char *text, size_t size, struct error *err)
{
	const char *given, *place;
	enum scope scope;
	int r = text_judge(json, "scope", size - 1, &given, err);

	if (r)
		return r;
	place = given ? scope_parse(given, &scope) : NULL;
	if (!place || (scope == SCOPE_GROUP && !path_is_fine(place)))
		return fault(
			err, -EINVAL, "scope",
			"\"host\", \"group:PATH\" (like group:lab/web) or \"vm:ID\" is needed");
	if (scope == SCOPE_VM)
		return vm_scope_judge(a, place, text, size, err);
	snprintf(text, size, "%s", given);
	return 0;
}

static int not_there_yet(struct authz *a, const struct assignment *n, const char *scope,
			 struct error *err)
{
	enum scope kind = SCOPE_HOST;
	const char *place = scope_parse(scope, &kind);

	if (a->state.assignment_count >= AUTHZ_ASSIGNMENTS_MAX)
		return error_set(err, -ENOSPC, "there are %d assignments already: remove one first",
				 AUTHZ_ASSIGNMENTS_MAX);
	for (unsigned i = 0; i < a->state.assignment_count; i++) {
		const struct assignment *s = &a->state.assignments[i];

		if (s->to_group == n->to_group && !strcmp(s->name, n->name) && s->scope == kind &&
		    !strcmp(s->place, place) && !strcmp(s->role_name, n->role->name))
			return error_set(err, -EEXIST,
					 "%s %s has the role %s for %s already (assignment %lld)",
					 n->to_group ? "group" : "user", n->name, n->role->name,
					 scope, (long long)s->id);
	}
	return 0;
}

static int role_named(struct authz *a, json_t *json, const struct role **ret, struct error *err)
{
	const char *name;
	int r = text_judge(json, "role", NAME_MAX_CHARS, &name, err);

	if (r)
		return r;
	if (!name)
		return fault(err, -EINVAL, "role", "the name of a role is needed");
	*ret = role_find(&a->state, name);
	return *ret ? 0 : fault(err, -ENOENT, "role", "there is no role %s", name);
}

int authz_assign(struct authz *a, json_t *json, int64_t *ret_id, struct error *err)
{
	static const char *const known[] = { "user", "group", "role", "scope", NULL };
	char scope[SCOPE_MAX_BYTES];
	struct assignment n = { 0 };
	const char *name = NULL;
	int64_t id;
	int r = members_judge(json, known, err);

	if (!r)
		r = who_judge(json, &n.to_group, &name, err);
	if (!r)
		r = role_named(a, json, &n.role, err);
	if (!r)
		r = scope_judge(a, json, scope, sizeof(scope), err);
	n.name = (char *)name;
	if (!r)
		r = not_there_yet(a, &n, scope, err);
	if (!r)
		r = change_begin(a, err);
	if (r)
		return r;
	r = database_run(a->db, err,
			 "INSERT INTO assignments (kind, name, role, scope) VALUES (?, ?, ?, ?)",
			 "ssss", n.to_group ? "group" : "user", name, n.role->name, scope);
	id = database_last_id(a->db);
	r = change_end(a, r, err);
	if (!r)
		*ret_id = id;
	return r;
}

int authz_unassign(struct authz *a, int64_t id, struct error *err)
{
	unsigned i = 0;
	int r;

	while (i < a->state.assignment_count && a->state.assignments[i].id != id)
		i++;
	if (i == a->state.assignment_count)
		return error_set(err, -ENOENT, "there is no assignment %lld", (long long)id);
	r = change_begin(a, err);
	if (r)
		return r;
	r = database_run(a->db, err, "DELETE FROM assignments WHERE id = ?", "i", id);
	return change_end(a, r, err);
}
