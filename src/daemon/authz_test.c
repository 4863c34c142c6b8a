// SPDX-License-Identifier: MIT
/*
 * The whole matrix of roles, operations and scopes, from tables that are written here by hand; own
 * roles; what is refused, and how; callers. Users and groups are those that every Debian has.
 */
#include "daemon/authz.h"
#include "daemon/testing.h"
#include "lib/cleanup.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <unistd.h>

#define VM_A "aaaaaaaa-0000-0000-0000-000000000001"
#define VM_B "aaaaaaaa-0000-0000-0000-000000000002"

static struct error err;
static struct database *db;
static struct authz *authz;

static const struct caller daemon_user = { .name = "daemon", .uid = 1 };
static const struct caller bin_user = {
	.name = "bin", .uid = 2, .group_count = 2, .groups = { "bin", "games" }
};

static void open_all(const char *folder)
{
	if (database_open(folder, &db, &err) < 0 || authz_new(db, &authz, &err) < 0)
		fail_msg("%s", err.message);
}

static void close_all(void)
{
	authz_free(authz);
	database_close(db);
}

static int setup(void **state)
{
	static const char *const ids[] = { VM_A, VM_B };

	if (test_folder_setup(state))
		return -1;
	open_all(*state);
	for (size_t i = 0; i < ARRAY_SIZE(ids); i++) {
		if (database_run(db, &err,
				 "INSERT INTO vms (id, folder, phase) VALUES (?, ?, 'present')",
				 "ss", ids[i], ids[i]))
			return -1;
	}
	return 0;
}

static int teardown(void **state)
{
	close_all();
	return test_folder_teardown(state);
}

static int assign(const char *json, int64_t *ret_id)
{
	json_t *assignment = json_loads(json, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
	int64_t id = 0;
	int r;

	err = (struct error){ 0 };
	r = authz_assign(authz, assignment, &id, &err);
	json_decref(assignment);
	if (ret_id)
		*ret_id = id;
	return r;
}

static int64_t assign_ok(const char *json)
{
	int64_t id;

	if (assign(json, &id) < 0)
		fail_msg("%s: %s", json, err.message);
	return id;
}

static int role_set(const char *name, const char *json)
{
	json_t *role = json_loads(json, JSON_DECODE_ANY, NULL);
	int r;

	err = (struct error){ 0 };
	r = authz_role_set(authz, name, role, &err);
	json_decref(role);
	return r;
}

/* --- the matrix --- */

static const char *const matrix_roles[] = { "administrator", "operator", "creator", "configurator",
					    "viewer" };

/*
 * Per role: x may, o may to what one created, - may not. Then what it is done to: h the host only,
 * v also machines.
 */
static const struct {
	const char *operation, *roles;
	char what;
} matrix[] = {
	/* aocfv: administrator, operator, creator, configurator, viewer */
	{ "view-host", "xxxxx", 'h' },     { "change-host", "x----", 'h' },
	{ "view-events", "xxoxx", 'v' },   { "view-roles", "x----", 'h' },
	{ "change-roles", "x----", 'h' },  { "view-switch", "xxxxx", 'h' },
	{ "change-switch", "x----", 'h' }, { "view-image", "xxxxx", 'h' },
	{ "change-image", "x----", 'h' },  { "view-pool", "xxxxx", 'h' },
	{ "change-pool", "x----", 'h' },   { "create-vm", "x-x--", 'v' },
	{ "import-vm", "x-x--", 'v' },     { "export-vm", "x-o--", 'v' },
	{ "view-vm", "xxoxx", 'v' },       { "change-vm", "x-ox-", 'v' },
	{ "change-group", "x----", 'v' },  { "delete-vm", "x-o--", 'v' },
	{ "start-vm", "xxo--", 'v' },      { "stop-vm", "xxo--", 'v' },
	{ "pause-vm", "xxo--", 'v' },      { "console", "xxo--", 'v' },
	{ "view-console", "xxo--", 'v' },  { "change-disk", "x-ox-", 'v' },
	{ "checkpoint", "x-ox-", 'v' },    { "meter", "x-ox-", 'v' },
	{ "migrate", "x----", 'v' },       { "replicate", "x----", 'v' },
	{ "guest-service", "x-o--", 'v' }, { "change-security", "x-o--", 'v' },
	{ "cancel-job", "x-o--", 'v' },
};

static const char *const matrix_scopes[] = { "host", "group:lab", "group:lab/web", "vm:" VM_A };

/* What a target is in, per scope above: x in it, - not. `own`: daemon_user created it. */
static const struct {
	const char *name;
	struct target target;
	const char *scopes;
	bool own;
} matrix_targets[] = {
	{ "the host", { 0 }, "x---", false },
	{ "a new machine without a group", { .group = NULL }, "x---", false },
	{ "a new machine in lab", { .group = "lab" }, "xx--", false },
	{ "a new machine in lab/web", { .group = "lab/web" }, "xxx-", false },
	{ "a new machine in laboratory", { .group = "laboratory" }, "x---", false },
	{ "A without a group", { .vm = VM_A, .creator = "bin" }, "x--x", false },
	{ "A in lab", { .vm = VM_A, .group = "lab", .creator = "bin" }, "xx-x", false },
	{ "A in lab/web/x", { .vm = VM_A, .group = "lab/web/x", .creator = "bin" }, "xxxx", false },
	{ "B without a group", { .vm = VM_B, .creator = "root" }, "x---", false },
	{ "B in lab", { .vm = VM_B, .group = "lab" }, "xx--", false },
	{ "B in lab/webs", { .vm = VM_B, .group = "lab/webs", .creator = "" }, "xx--", false },
	{ "B in la", { .vm = VM_B, .group = "la", .creator = "daemons" }, "x---", false },
	{ "B in web/lab", { .vm = VM_B, .group = "web/lab", .creator = "daemo" }, "x---", false },
	{ "own A", { .vm = VM_A, .creator = "daemon" }, "x--x", true },
	{ "own A in lab/web",
	  { .vm = VM_A, .group = "lab/web", .creator = "daemon" },
	  "xxxx",
	  true },
	{ "own B", { .vm = VM_B, .creator = "daemon" }, "x---", true },
	{ "own B in lab/web",
	  { .vm = VM_B, .group = "lab/web", .creator = "daemon" },
	  "xxx-",
	  true },
	{ "own B in other", { .vm = VM_B, .group = "other", .creator = "daemon" }, "x---", true },
};

static unsigned refusals;

static void on_refusal(void *context, const struct caller *c, enum operation op,
		       const struct target *t)
{
	assert_true(context == &refusals);
	assert_true(c == &daemon_user && t && operation_name(op)[0]);
	refusals++;
}

static bool expected(size_t role, size_t scope, size_t target, size_t row)
{
	char given = matrix[row].roles[role];
	bool inside = matrix_targets[target].scopes[scope] == 'x';

	if (given == '-' || !inside || (given == 'o' && !matrix_targets[target].own))
		return false;
	return scope == 0 || matrix[row].what == 'v';
}

static void compare(size_t role, size_t scope, size_t target, size_t row)
{
	bool may = expected(role, scope, target, row);
	unsigned before = refusals;
	enum operation op;
	int r;

	assert_int_equal(operation_find(matrix[row].operation, &op), 0);
	r = authz_check(authz, &daemon_user, op, &matrix_targets[target].target, &err);
	if (r != (may ? 0 : -EACCES) || refusals != before + !may)
		fail_msg("%s for %s: %s to %s gave %d", matrix_roles[role], matrix_scopes[scope],
			 matrix[row].operation, matrix_targets[target].name, r);
	assert_true(authz_allowed(authz, &daemon_user, op, &matrix_targets[target].target) == may);
	/* another is given nothing by it */
	assert_false(authz_allowed(authz, &bin_user, op, &matrix_targets[target].target));
}

static void test_the_matrix_of_roles_operations_and_scopes(void **state)
{
	unsigned given = 0;

	(void)state;
	assert_int_equal(ARRAY_SIZE(matrix), OPERATION_COUNT);
	authz_on_refusal(authz, on_refusal, &refusals);
	for (size_t role = 0; role < ARRAY_SIZE(matrix_roles); role++) {
		for (size_t scope = 0; scope < ARRAY_SIZE(matrix_scopes); scope++) {
			_cleanup_free_ char *json = NULL;
			int64_t id;

			assert_true(
				asprintf(&json,
					 "{\"user\":\"daemon\",\"role\":\"%s\",\"scope\":\"%s\"}",
					 matrix_roles[role], matrix_scopes[scope]) > 0);
			id = assign_ok(json);
			for (size_t i = 0; i < ARRAY_SIZE(matrix_targets) * ARRAY_SIZE(matrix);
			     i++) {
				size_t target = i / ARRAY_SIZE(matrix),
				       row = i % ARRAY_SIZE(matrix);

				compare(role, scope, target, row);
				given += expected(role, scope, target, row);
			}
			assert_int_equal(authz_unassign(authz, id, &err), 0);
		}
	}
	assert_true(given > 1000 && refusals > 5000);
}

static void test_nobody_without_a_role_may_do_anything(void **state)
{
	(void)state;
	for (int op = 0; op < OPERATION_COUNT; op++) {
		for (size_t i = 0; i < ARRAY_SIZE(matrix_targets); i++)
			assert_false(
				authz_allowed(authz, &daemon_user, op, &matrix_targets[i].target));
		assert_false(authz_allowed(authz, &daemon_user, op, NULL));
		assert_true(authz_allowed(authz, &caller_service, op, NULL));
	}
	assert_false(authz_allowed(authz, &caller_service, OPERATION_COUNT, NULL));
}

static void test_operations_have_names(void **state)
{
	enum operation op;

	(void)state;
	for (int i = 0; i < OPERATION_COUNT; i++) {
		assert_int_equal(operation_find(operation_name(i), &op), 0);
		assert_int_equal(op, i);
		assert_true(strlen(operation_description(i)) > 5);
	}
	assert_int_equal(operation_find("fly", &op), -ENOENT);
	assert_false(operation_on_vm(OPERATION_COUNT));
}

/* --- words --- */

static void test_a_refusal_names_a_role_that_would_do(void **state)
{
	const struct target web = { .vm = VM_A, .vm_name = "web", .group = "lab" };
	const struct target lab = { .group = "lab" };

	(void)state;
	assert_int_equal(authz_check(authz, &daemon_user, OP_START_VM, &web, &err), -EACCES);
	assert_string_equal(
		err.message,
		"daemon may not do this to machine web (start-vm: Start a machine): it "
		"takes a role like operator for the machine, its group or the host; ask an "
		"administrator for it");
	assert_int_equal(authz_check(authz, &daemon_user, OP_CREATE_VM, &lab, &err), -EACCES);
	assert_non_null(strstr(err.message, "in group lab"));
	assert_non_null(strstr(err.message, "a role like creator for the group or the host"));
	assert_int_equal(authz_check(authz, &daemon_user, OP_VIEW_VM, &web, &err), -EACCES);
	assert_non_null(strstr(err.message, "like viewer for"));
	assert_int_equal(authz_check(authz, &daemon_user, OP_CHANGE_DISK, &web, &err), -EACCES);
	assert_non_null(strstr(err.message, "like configurator for"));
	assert_int_equal(authz_check(authz, &daemon_user, OP_CHANGE_HOST, NULL, &err), -EACCES);
	assert_non_null(strstr(err.message, "like administrator for the host"));
}

/* The role that is named does it, for each operation. */
static void test_the_role_that_is_named_would_do(void **state)
{
	const struct target web = { .vm = VM_A, .vm_name = "web" };

	(void)state;
	for (int op = 0; op < OPERATION_COUNT; op++) {
		_cleanup_free_ char *json = NULL;
		char role[32];
		int64_t id;

		assert_int_equal(authz_check(authz, &daemon_user, op, &web, &err), -EACCES);
		assert_int_equal(
			sscanf(strstr(err.message, "a role like "), "a role like %31s", role), 1);
		assert_true(asprintf(&json,
				     "{\"user\":\"daemon\",\"role\":\"%s\",\"scope\":\"host\"}",
				     role) > 0);
		id = assign_ok(json);
		assert_int_equal(authz_check(authz, &daemon_user, op, &web, &err), 0);
		assert_int_equal(authz_unassign(authz, id, &err), 0);
	}
}

/* --- roles of one's own --- */

static void test_roles_of_ones_own(void **state)
{
	const struct target own = { .vm = VM_A, .creator = "daemon" }, other = { .vm = VM_B };

	assert_int_equal(role_set("starter", "{\"description\":\"starts\",\"operations\":"
					     "[\"start-vm\"],\"own_operations\":[\"stop-vm\"]}"),
			 0);
	assign_ok("{\"user\":\"daemon\",\"role\":\"starter\",\"scope\":\"host\"}");
	for (int i = 0; i < 2; i++) { /* and again after a restart */
		assert_true(authz_allowed(authz, &daemon_user, OP_START_VM, &other));
		assert_false(authz_allowed(authz, &daemon_user, OP_STOP_VM, &other));
		assert_true(authz_allowed(authz, &daemon_user, OP_STOP_VM, &own));
		assert_false(authz_allowed(authz, &daemon_user, OP_VIEW_VM, &own));
		close_all();
		open_all(*state);
	}
	/* a change of the role counts at once for those who have it */
	assert_int_equal(role_set("starter", "{\"operations\":[\"view-vm\"]}"), 0);
	assert_false(authz_allowed(authz, &daemon_user, OP_START_VM, &other));
	assert_true(authz_allowed(authz, &daemon_user, OP_VIEW_VM, &other));
	assert_false(authz_allowed(authz, &daemon_user, OP_STOP_VM, &own));
	assert_int_equal(authz_role_remove(authz, "starter", &err), -EBUSY);
	assert_non_null(strstr(err.message, "user daemon"));
	assert_int_equal(authz_unassign(authz, 1, &err), 0);
	assert_int_equal(authz_unassign(authz, 1, &err), -ENOENT);
	assert_int_equal(authz_role_remove(authz, "starter", &err), 0);
	assert_int_equal(authz_role_remove(authz, "starter", &err), -ENOENT);
	assert_false(authz_allowed(authz, &daemon_user, OP_VIEW_VM, &other));
}

static void test_groups_have_roles(void **state)
{
	(void)state;
	assign_ok("{\"group\":\"games\",\"role\":\"viewer\",\"scope\":\"host\"}");
	assert_true(authz_allowed(authz, &bin_user, OP_VIEW_HOST, NULL));
	assert_false(authz_allowed(authz, &daemon_user, OP_VIEW_HOST, NULL));
	/* a user of that name has nothing to do with the group */
	assign_ok("{\"user\":\"games\",\"role\":\"administrator\",\"scope\":\"host\"}");
	assert_false(authz_allowed(authz, &bin_user, OP_CHANGE_HOST, NULL));
	assign_ok("{\"group\":\"daemon\",\"role\":\"viewer\",\"scope\":\"host\"}");
	assert_false(authz_allowed(authz, &daemon_user, OP_VIEW_HOST, NULL));
}

static void test_several_roles_add_up(void **state)
{
	const struct target a = { .vm = VM_A, .group = "lab" }, b = { .vm = VM_B, .group = "lab" };

	(void)state;
	assign_ok("{\"user\":\"bin\",\"role\":\"viewer\",\"scope\":\"group:lab\"}");
	assign_ok("{\"group\":\"games\",\"role\":\"operator\",\"scope\":\"vm:" VM_A "\"}");
	assert_true(authz_allowed(authz, &bin_user, OP_VIEW_VM, &a));
	assert_true(authz_allowed(authz, &bin_user, OP_VIEW_VM, &b));
	assert_true(authz_allowed(authz, &bin_user, OP_START_VM, &a));
	assert_false(authz_allowed(authz, &bin_user, OP_START_VM, &b));
}

static void test_what_is_undone_gives_nothing(void **state)
{
	(void)state;
	assert_int_equal(database_begin(db, &err), 0);
	assign_ok("{\"user\":\"daemon\",\"role\":\"viewer\",\"scope\":\"host\"}");
	assert_true(authz_allowed(authz, &daemon_user, OP_VIEW_HOST, NULL));
	database_rollback(db);
	assert_false(authz_allowed(authz, &daemon_user, OP_VIEW_HOST, NULL));
	assign_ok("{\"user\":\"daemon\",\"role\":\"viewer\",\"scope\":\"host\"}");
	assert_int_equal(database_begin(db, &err), 0);
	assert_int_equal(authz_unassign(authz, 1, &err), 0);
	assert_false(authz_allowed(authz, &daemon_user, OP_VIEW_HOST, NULL));
	database_rollback(db);
	assert_true(authz_allowed(authz, &daemon_user, OP_VIEW_HOST, NULL));
}

/* As after a change of another service, or by hand. */
static void test_rows_that_make_no_sense_give_nothing(void **state)
{
	static const char *const rows[] = {
		"INSERT INTO assignments VALUES (1, 'user', 'daemon', 'no-such', 'host')",
		"INSERT INTO assignments VALUES (2, 'user', 'daemon', 'viewer', 'hosts')",
		"INSERT INTO assignments VALUES (3, 'user', 'daemon', 'viewer', '')",
		"INSERT INTO roles VALUES ('odd', '', '[\"fly\", 5, null]', '{')",
		"INSERT INTO assignments VALUES (4, 'user', 'daemon', 'odd', 'host')",
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		assert_int_equal(database_run(db, &err, rows[i], ""), 0);
	close_all();
	open_all(*state);
	for (int op = 0; op < OPERATION_COUNT; op++)
		assert_false(authz_allowed(authz, &daemon_user, op, NULL));
	for (int id = 1; id <= 4; id++)
		assert_int_equal(authz_unassign(authz, id, &err), 0);
}

/* --- what is refused --- */

static void test_roles_that_are_refused(void **state)
{
	static const struct {
		const char *name, *json, *property;
	} cases[] = {
		{ "viewer", "{\"operations\":[]}", "name" },
		{ "administrator", "{\"operations\":[]}", "name" },
		{ "", "{\"operations\":[]}", "name" },
		{ "a b", "{\"operations\":[]}", "name" },
		{ "a/b", "{\"operations\":[]}", "name" },
		{ "\xc3\xa4", "{\"operations\":[]}", "name" },
		{ "x12345678901234567890123456789012345678901234567890123456789012345",
		  "{\"operations\":[]}", "name" },
		{ "x", "{}", "operations" },
		{ "x", "{\"operations\":\"start-vm\"}", "operations" },
		{ "x", "{\"operations\":[5]}", "operations" },
		{ "x", "{\"operations\":[\"fly\"]}", "operations" },
		{ "x", "{\"operations\":[],\"own_operations\":[\"change-host\"]}",
		  "own_operations" },
		{ "x", "{\"operations\":[],\"own_operations\":{}}", "own_operations" },
		{ "x", "{\"operations\":[],\"description\":5}", "description" },
		{ "x", "{\"operations\":[],\"name\":\"y\"}", "name" },
		{ "x", "{\"operations\":[],\"built_in\":true}", "built_in" },
		{ "x", "{\"operations\":[],\"more\":1}", "" },
		{ "x", "[]", "" },
		{ "x", "null", "" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		if (role_set(cases[i].name, cases[i].json) != -EINVAL ||
		    strcmp(err.property, cases[i].property))
			fail_msg("%s: %s: %s", cases[i].name, cases[i].json, err.message);
	}
	assert_int_equal(authz_role_remove(authz, "viewer", &err), -EINVAL);
	assert_int_equal(role_set("x", "{\"operations\":[],\"name\":\"x\",\"built_in\":false}"), 0);
}

static void test_assignments_that_are_refused(void **state)
{
	static const struct {
		const char *json;
		int code;
		const char *property;
	} cases[] = {
		{ "{\"role\":\"viewer\",\"scope\":\"host\"}", -EINVAL, "user" },
		{ "{\"user\":\"bin\",\"group\":\"bin\",\"role\":\"viewer\",\"scope\":\"host\"}",
		  -EINVAL, "user" },
		{ "{\"user\":5,\"role\":\"viewer\",\"scope\":\"host\"}", -EINVAL, "user" },
		{ "{\"user\":\"bin\\u0000x\",\"role\":\"viewer\",\"scope\":\"host\"}", -EINVAL,
		  "user" },
		{ "{\"user\":\"no-such-one\",\"role\":\"viewer\",\"scope\":\"host\"}", -ENOENT,
		  "user" },
		{ "{\"user\":\"uid 1234\",\"role\":\"viewer\",\"scope\":\"host\"}", -ENOENT,
		  "user" },
		{ "{\"group\":\"no-such-one\",\"role\":\"viewer\",\"scope\":\"host\"}", -ENOENT,
		  "group" },
		{ "{\"group\":\"a-group-with-a-name-that-is-too-long\",\"role\":\"viewer\","
		  "\"scope\":\"host\"}",
		  -EINVAL, "group" },
		{ "{\"user\":\"bin\",\"scope\":\"host\"}", -EINVAL, "role" },
		{ "{\"user\":\"bin\",\"role\":\"no-such\",\"scope\":\"host\"}", -ENOENT, "role" },
		{ "{\"user\":\"bin\",\"role\":\"viewer\"}", -EINVAL, "scope" },
		{ "{\"user\":\"bin\",\"role\":\"viewer\",\"scope\":\"hosts\"}", -EINVAL, "scope" },
		{ "{\"user\":\"bin\",\"role\":\"viewer\",\"scope\":\"group:\"}", -EINVAL, "scope" },
		{ "{\"user\":\"bin\",\"role\":\"viewer\",\"scope\":\"group:/lab\"}", -EINVAL,
		  "scope" },
		{ "{\"user\":\"bin\",\"role\":\"viewer\",\"scope\":\"group:lab/\"}", -EINVAL,
		  "scope" },
		{ "{\"user\":\"bin\",\"role\":\"viewer\",\"scope\":\"group:a//b\"}", -EINVAL,
		  "scope" },
		{ "{\"user\":\"bin\",\"role\":\"viewer\",\"scope\":\"vm:web\"}", -EINVAL, "scope" },
		{ "{\"user\":\"bin\",\"role\":\"viewer\","
		  "\"scope\":\"vm:aaaaaaaa-0000-0000-0000-000000000009\"}",
		  -ENOENT, "scope" },
		{ "{\"user\":\"bin\",\"role\":\"viewer\",\"scope\":\"host\",\"id\":3}", -EINVAL,
		  "" },
		{ "5", -EINVAL, "" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		if (assign(cases[i].json, NULL) != cases[i].code ||
		    strcmp(err.property, cases[i].property))
			fail_msg("%s: %d %s", cases[i].json, err.code, err.message);
	}
	assign_ok("{\"user\":\"bin\",\"role\":\"viewer\",\"scope\":\"vm:{AAAAAAAA-0000-0000-0000-"
		  "000000000001}\"}");
	assert_int_equal(
		assign("{\"user\":\"bin\",\"role\":\"viewer\",\"scope\":\"vm:" VM_A "\"}", NULL),
		-EEXIST);
	assert_non_null(strstr(err.message, "assignment 1"));
}

/* --- as JSON --- */

static void test_roles_and_assignments_as_json(void **state)
{
	json_t *all;
	char *text;

	(void)state;
	assert_int_equal(role_set("mine", "{\"description\":\"d\",\"operations\":[\"meter\"]}"), 0);
	all = authz_roles(authz);
	assert_int_equal(json_array_size(all), 6);
	text = json_dumps(json_array_get(all, 5), JSON_COMPACT);
	assert_string_equal(text, "{\"name\":\"mine\",\"description\":\"d\",\"built_in\":false,"
				  "\"operations\":[\"meter\"],\"own_operations\":[]}");
	assert_true(json_is_true(json_object_get(json_array_get(all, 0), "built_in")));
	/* what was read can be sent back */
	assert_int_equal(authz_role_set(authz, "mine", json_array_get(all, 5), &err), 0);
	free(text);
	json_decref(all);
	assign_ok("{\"user\":\"bin\",\"role\":\"mine\",\"scope\":\"group:lab/web\"}");
	assign_ok("{\"group\":\"bin\",\"role\":\"viewer\",\"scope\":\"vm:" VM_B "\"}");
	assign_ok("{\"group\":\"bin\",\"role\":\"viewer\",\"scope\":\"host\"}");
	all = authz_assignments(authz);
	text = json_dumps(all, JSON_COMPACT);
	assert_string_equal(
		text, "[{\"id\":1,\"user\":\"bin\",\"role\":\"mine\",\"scope\":\"group:lab/web\"},"
		      "{\"id\":2,\"group\":\"bin\",\"role\":\"viewer\",\"scope\":\"vm:" VM_B "\"},"
		      "{\"id\":3,\"group\":\"bin\",\"role\":\"viewer\",\"scope\":\"host\"}]");
	free(text);
	json_decref(all);
}

/* --- callers --- */

static void test_callers_are_who_they_are(void **state)
{
	const struct passwd *daemon_entry = getpwnam("daemon");
	struct caller c;

	(void)state;
	caller_from_uid(0, 0, &c);
	assert_string_equal(c.name, "root");
	assert_true(c.administrator);
	caller_from_uid(geteuid(), getegid(), &c);
	assert_true(c.administrator);
	assert_non_null(daemon_entry);
	caller_from_uid(daemon_entry->pw_uid, getgrnam("games")->gr_gid, &c);
	assert_string_equal(c.name, "daemon");
	assert_int_equal(c.uid, 1);
	assert_true(c.administrator == (geteuid() == 1));
	assert_true(c.group_count >= 1);
	assert_string_equal(c.groups[0], "games");
	caller_from_uid(4123456789u, 0, &c);
	assert_string_equal(c.name, "uid 4123456789");
	assert_int_equal(c.group_count, 0);
	assert_false(c.administrator);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_the_matrix_of_roles_operations_and_scopes),
		TEST(test_nobody_without_a_role_may_do_anything),
		TEST(test_a_refusal_names_a_role_that_would_do),
		TEST(test_the_role_that_is_named_would_do),
		TEST(test_roles_of_ones_own),
		TEST(test_groups_have_roles),
		TEST(test_several_roles_add_up),
		TEST(test_what_is_undone_gives_nothing),
		TEST(test_rows_that_make_no_sense_give_nothing),
		TEST(test_roles_that_are_refused),
		TEST(test_assignments_that_are_refused),
		TEST(test_roles_and_assignments_as_json),
		cmocka_unit_test(test_operations_have_names),
		cmocka_unit_test(test_callers_are_who_they_are),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
