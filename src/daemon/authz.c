// SPDX-License-Identifier: MIT
/*
 * See authz.h. Roles and assignments are in memory, read anew from the database after each change
 * and whenever a transaction with one was undone. When they cannot be read, nobody but
 * administrators may do anything. How the doors' JSON becomes rows is in authz_change.c.
 *
 * Owned by the daemon; its loop's thread.
 */
#include "daemon/authz_internal.h"

#include "daemon/words.h"
#include "lib/cleanup.h"
#include "lib/log.h"

#include <errno.h>
#include <string.h>

static const struct {
	const char *name, *description;
	bool on_vm;
} operations[OPERATION_COUNT] = {
	[OP_VIEW_HOST] = { "view-host", "See the host, its capabilities and figures", false },
	[OP_CHANGE_HOST] = { "change-host", "Change settings of the host", false },
	[OP_VIEW_EVENTS] = { "view-events", "Read events", true },
	[OP_VIEW_ROLES] = { "view-roles", "See roles and to whom they are assigned", false },
	[OP_CHANGE_ROLES] = { "change-roles", "Change and assign roles, any of them", false },
	[OP_VIEW_SWITCH] = { "view-switch", "See switches", false },
	[OP_CHANGE_SWITCH] = { "change-switch", "Make, change and remove switches", false },
	[OP_VIEW_IMAGE] = { "view-image", "See the catalogue of images", false },
	[OP_CHANGE_IMAGE] = { "change-image", "Add and remove images of the catalogue", false },
	[OP_VIEW_POOL] = { "view-pool", "See resource pools", false },
	[OP_CHANGE_POOL] = { "change-pool", "Make, change and remove resource pools", false },
	[OP_CREATE_VM] = { "create-vm", "Create machines", true },
	[OP_IMPORT_VM] = { "import-vm", "Import and register machines", true },
	[OP_EXPORT_VM] = { "export-vm", "Export a machine", true },
	[OP_VIEW_VM] = { "view-vm", "See a machine, its settings and figures", true },
	[OP_CHANGE_VM] = { "change-vm", "Change settings of a machine", true },
	[OP_CHANGE_GROUP] = { "change-group", "Move a machine to another group", true },
	[OP_DELETE_VM] = { "delete-vm", "Remove a machine", true },
	[OP_START_VM] = { "start-vm", "Start a machine", true },
	[OP_STOP_VM] = { "stop-vm", "Stop, shut down, reset or save a machine", true },
	[OP_PAUSE_VM] = { "pause-vm", "Pause and resume a machine", true },
	[OP_CONSOLE] = { "console", "Use a machine's console", true },
	[OP_VIEW_CONSOLE] = { "view-console", "Watch a machine's console", true },
	[OP_CHANGE_DISK] = { "change-disk", "Create, resize and merge a machine's disks", true },
	[OP_CHECKPOINT] = { "checkpoint", "Make, apply and remove checkpoints of a machine", true },
	[OP_METER] = { "meter", "Meter what a machine uses", true },
	[OP_MIGRATE] = { "migrate", "Move a machine to another host or storage", true },
	[OP_REPLICATE] = { "replicate", "Replicate a machine to another host", true },
	[OP_GUEST_SERVICE] = { "guest-service", "Exchange facts and files with a guest", true },
	[OP_CHANGE_SECURITY] = { "change-security", "Change security settings of a machine", true },
	[OP_CANCEL_JOB] = { "cancel-job", "Cancel jobs of others", true },
};

_Static_assert(OPERATION_COUNT <= 64, "roles are masks of 64 bits");

#define OP(name) BIT64(OP_##name)
#define ALL      (BIT64(OPERATION_COUNT) - 1)
#define VIEW_ALL                                                                                   \
	(OP(VIEW_HOST) | OP(VIEW_EVENTS) | OP(VIEW_SWITCH) | OP(VIEW_IMAGE) | OP(VIEW_POOL) |      \
	 OP(VIEW_VM))

/* The least first: this is the order in which a refusal looks for one that would do. */
static const struct role built_in[] = {
	{ .name = "viewer",
	  .description = "Sees everything and changes nothing",
	  .operations = VIEW_ALL },
	{ .name = "operator",
	  .description = "Starts and stops machines and uses their consoles",
	  .operations = VIEW_ALL | OP(START_VM) | OP(STOP_VM) | OP(PAUSE_VM) | OP(CONSOLE) |
			OP(VIEW_CONSOLE) },
	{ .name = "configurator",
	  .description = "Changes machines that there are, and creates none",
	  .operations = VIEW_ALL | OP(CHANGE_VM) | OP(CHANGE_DISK) | OP(CHECKPOINT) | OP(METER) },
	{ .name = "creator",
	  .description = "Creates machines and owns them, and does not touch those of others",
	  .operations = OP(VIEW_HOST) | OP(VIEW_SWITCH) | OP(VIEW_IMAGE) | OP(VIEW_POOL) |
			OP(CREATE_VM) | OP(IMPORT_VM),
	  .own = OP(VIEW_EVENTS) | OP(EXPORT_VM) | OP(VIEW_VM) | OP(CHANGE_VM) | OP(DELETE_VM) |
		 OP(START_VM) | OP(STOP_VM) | OP(PAUSE_VM) | OP(CONSOLE) | OP(VIEW_CONSOLE) |
		 OP(CHANGE_DISK) | OP(CHECKPOINT) | OP(METER) | OP(GUEST_SERVICE) |
		 OP(CHANGE_SECURITY) | OP(CANCEL_JOB) },
	{ .name = "administrator", .description = "Does everything", .operations = ALL },
};

const char *operation_name(enum operation op)
{
	return (unsigned)op < OPERATION_COUNT ? operations[op].name : "?";
}

const char *operation_description(enum operation op)
{
	return (unsigned)op < OPERATION_COUNT ? operations[op].description : "?";
}

int operation_find(const char *name, enum operation *ret)
{
	for (unsigned i = 0; i < OPERATION_COUNT; i++) {
		if (!strcmp(operations[i].name, name)) {
			*ret = (enum operation)i;
			return 0;
		}
	}
	return -ENOENT;
}

bool operation_on_vm(enum operation op)
{
	return (unsigned)op < OPERATION_COUNT && operations[op].on_vm;
}

/* --- judging --- */

/* "lab" holds "lab" and "lab/web", not "laboratory". */
static bool group_holds(const char *outer, const char *inner)
{
	size_t n = strlen(outer);

	return !strncmp(outer, inner, n) && (!inner[n] || inner[n] == '/');
}

static bool scope_covers(const struct assignment *s, enum operation op, const struct target *t)
{
	if (s->scope == SCOPE_HOST)
		return true;
	if (!operation_on_vm(op))
		return false;
	if (s->scope == SCOPE_GROUP)
		return t->group && group_holds(s->place, t->group);
	return t->vm && !strcasecmp(s->place, t->vm);
}

static bool in_group(const struct caller *c, const char *name)
{
	for (unsigned i = 0; i < c->group_count; i++) {
		if (!strcmp(c->groups[i], name))
			return true;
	}
	return false;
}

static bool is_for(const struct assignment *s, const struct caller *c)
{
	return s->to_group ? in_group(c, s->name) : !strcmp(s->name, c->name);
}

static uint64_t operations_given(const struct role *role, const struct caller *c,
				 const struct target *t)
{
	bool own = t->vm && t->creator && t->creator[0] && !strcmp(t->creator, c->name);

	return role->operations | (own ? role->own : 0);
}

bool authz_allowed(const struct authz *a, const struct caller *c, enum operation op,
		   const struct target *t)
{
	static const struct target host;

	if ((unsigned)op >= OPERATION_COUNT)
		return false;
	if (c->administrator)
		return true;
	t = t ? t : &host;
	for (unsigned i = 0; i < a->state.assignment_count; i++) {
		const struct assignment *s = &a->state.assignments[i];

		if (s->role && is_for(s, c) && scope_covers(s, op, t) &&
		    (operations_given(s->role, c, t) & BIT64(op)))
			return true;
	}
	return false;
}

static const char *role_that_would_do(enum operation op)
{
	unsigned i = 0;

	while (!(built_in[i].operations & BIT64(op)))
		i++; /* the administrator has all */
	return built_in[i].name;
}

static int refuse(const struct caller *c, enum operation op, const struct target *t,
		  struct error *err)
{
	const char *role = role_that_would_do(op);

	if (!operation_on_vm(op) || (!t->vm && !t->group))
		return error_set(
			err, -EACCES,
			"%s may not do this (%s: %s): it takes a role like %s for the host; "
			"ask an administrator for it",
			c->name, operations[op].name, operations[op].description, role);
	if (!t->vm)
		return error_set(
			err, -EACCES,
			"%s may not do this in group %s (%s: %s): it takes a role like %s for "
			"the group or the host; ask an administrator for it",
			c->name, t->group, operations[op].name, operations[op].description, role);
	return error_set(
		err, -EACCES,
		"%s may not do this to machine %s (%s: %s): it takes a role like %s for the "
		"machine, its group or the host; ask an administrator for it",
		c->name, t->vm_name ? t->vm_name : t->vm, operations[op].name,
		operations[op].description, role);
}

int authz_check(struct authz *a, const struct caller *c, enum operation op, const struct target *t,
		struct error *err)
{
	static const struct target host;

	t = t ? t : &host;
	if (authz_allowed(a, c, op, t))
		return 0;
	if ((unsigned)op >= OPERATION_COUNT)
		return error_set(err, -EACCES, "there is no such operation");
	if (a->on_refusal)
		a->on_refusal(a->context, c, op, t);
	return refuse(c, op, t, err);
}

void authz_on_refusal(struct authz *a,
		      void (*fn)(void *context, const struct caller *c, enum operation op,
				 const struct target *t),
		      void *context)
{
	a->on_refusal = fn;
	a->context = context;
}

/* --- what is in memory --- */

const struct role *role_find(const struct authz_state *s, const char *name)
{
	for (unsigned i = 0; i < ARRAY_SIZE(built_in); i++) {
		if (!strcmp(built_in[i].name, name))
			return &built_in[i];
	}
	for (unsigned i = 0; i < s->role_count; i++) {
		if (!strcmp(s->roles[i].name, name))
			return &s->roles[i];
	}
	return NULL;
}

bool role_is_built_in(const struct role *role)
{
	return role >= built_in && role < built_in + ARRAY_SIZE(built_in);
}

static void state_deinit(struct authz_state *s)
{
	for (unsigned i = 0; i < s->role_count; i++) {
		free((char *)s->roles[i].name);
		free((char *)s->roles[i].description);
	}
	for (unsigned i = 0; i < s->assignment_count; i++) {
		free(s->assignments[i].name);
		free(s->assignments[i].role_name);
		free(s->assignments[i].place);
	}
	free(s->roles);
	free(s->assignments);
	*s = (struct authz_state){ 0 };
}

/* Names of operations that this service does not know give nothing. */
static uint64_t mask_read(const char *text)
{
	json_t *names = text ? json_loads(text, 0, NULL) : NULL, *name;
	uint64_t mask = 0;
	enum operation op;
	size_t i;

	json_array_foreach(names, i, name)
	{
		if (json_is_string(name) && !operation_find(json_string_value(name), &op))
			mask |= BIT64(op);
	}
	json_decref(names);
	return mask;
}

static int role_row(void *context, const struct database_row *row)
{
	struct authz_state *s = context;
	struct role *roles = reallocarray(s->roles, s->role_count + 1, sizeof(*roles));

	if (!roles)
		return -ENOMEM;
	s->roles = roles;
	roles[s->role_count] = (struct role){
		.name = strdup(row_text(row, 0)),
		.description = strdup(row_text(row, 1)),
		.operations = mask_read(row_text(row, 2)),
		.own = mask_read(row_text(row, 3)),
	};
	s->role_count++;
	return roles[s->role_count - 1].name && roles[s->role_count - 1].description ? 0 : -ENOMEM;
}

const char *scope_parse(const char *text, enum scope *ret)
{
	static const char *const prefixes[] = {
		[SCOPE_HOST] = "host", [SCOPE_GROUP] = "group:", [SCOPE_VM] = "vm:"
	};

	for (unsigned i = 0; i < ARRAY_SIZE(prefixes); i++) {
		size_t n = strlen(prefixes[i]);

		if (strncmp(text, prefixes[i], n) || (i == SCOPE_HOST) != !text[n])
			continue;
		*ret = (enum scope)i;
		return text + n;
	}
	return NULL;
}

static int assignment_row(void *context, const struct database_row *row)
{
	struct authz_state *s = context;
	struct assignment *all =
		reallocarray(s->assignments, s->assignment_count + 1, sizeof(*all));
	enum scope scope = SCOPE_VM;
	const char *place = scope_parse(row_text(row, 4), &scope);
	struct assignment *n;

	if (!all)
		return -ENOMEM;
	s->assignments = all;
	n = &all[s->assignment_count++];
	*n = (struct assignment){
		.id = row_integer(row, 0),
		.to_group = !strcmp(row_text(row, 1), "group"),
		.name = strdup(row_text(row, 2)),
		.role_name = strdup(row_text(row, 3)),
		/* a role or scope that nobody knows gives nothing */
		.role = place ? role_find(s, row_text(row, 3)) : NULL,
		.scope = scope,
		.place = strdup(place ? place : row_text(row, 4)),
	};
	return n->name && n->role_name && n->place ? 0 : -ENOMEM;
}

static int state_read(struct database *db, struct authz_state *ret, struct error *err)
{
	struct authz_state s = { 0 };
	int r = database_query(db, err, role_row, &s,
			       "SELECT name, description, operations, own_operations FROM roles "
			       "ORDER BY name",
			       "");

	if (!r)
		r = database_query(
			db, err, assignment_row, &s,
			"SELECT id, kind, name, role, scope FROM assignments ORDER BY id", "");
	if (!r) {
		*ret = s;
		return 0;
	}
	state_deinit(&s);
	return r == -ENOMEM ? error_set(err, r, "roles: no memory") : r;
}

int authz_reload(struct authz *a, struct error *err)
{
	struct authz_state s;
	int r = state_read(a->db, &s, err);

	if (!r) {
		state_deinit(&a->state);
		a->state = s;
	}
	return r;
}

static void on_ended(struct database_hook *h, bool committed)
{
	struct authz *a = container_of(h, struct authz, hook);
	struct error err = { 0 };
	bool changed = a->changed;

	a->changed = false;
	if (committed || !changed || authz_reload(a, &err) == 0)
		return;
	log_line("roles cannot be read, only administrators may do anything now: %s", err.message);
	state_deinit(&a->state);
}

int authz_new(struct database *db, struct authz **ret, struct error *err)
{
	struct authz *a = calloc(1, sizeof(*a));
	int r;

	if (!a)
		return error_set(err, -ENOMEM, "roles: no memory");
	a->db = db;
	a->hook.ended = on_ended;
	r = authz_reload(a, err);
	if (r) {
		free(a);
		return r;
	}
	database_hook(db, &a->hook);
	*ret = a;
	return 0;
}

void authz_free(struct authz *a)
{
	if (!a)
		return;
	database_unhook(&a->hook);
	state_deinit(&a->state);
	free(a);
}

/* --- for the doors --- */

static json_t *mask_json(uint64_t mask)
{
	json_t *names = json_array();

	for (unsigned i = 0; i < OPERATION_COUNT; i++) {
		if (mask & BIT64(i))
			json_array_append_new(names, json_string(operations[i].name));
	}
	return names;
}

static json_t *role_json(const struct role *role)
{
	return json_pack("{s:s, s:s, s:b, s:o, s:o}", "name", role->name, "description",
			 role->description, "built_in", role_is_built_in(role), "operations",
			 mask_json(role->operations), "own_operations", mask_json(role->own));
}

json_t *authz_roles(const struct authz *a)
{
	json_t *all = json_array();

	for (unsigned i = 0; i < ARRAY_SIZE(built_in); i++)
		json_array_append_new(all, role_json(&built_in[i]));
	for (unsigned i = 0; i < a->state.role_count; i++)
		json_array_append_new(all, role_json(&a->state.roles[i]));
	return all;
}

static json_t *scope_json(const struct assignment *s)
{
	return s->scope == SCOPE_HOST
		       ? json_string("host")
		       : json_sprintf("%s:%s", s->scope == SCOPE_VM ? "vm" : "group", s->place);
}

json_t *authz_assignments(const struct authz *a)
{
	json_t *all = json_array();

	for (unsigned i = 0; i < a->state.assignment_count; i++) {
		const struct assignment *s = &a->state.assignments[i];

		json_array_append_new(all,
				      json_pack("{s:I, s:s, s:s, s:o}", "id", (json_int_t)s->id,
						s->to_group ? "group" : "user", s->name, "role",
						s->role_name, "scope", scope_json(s)));
	}
	return all;
}
