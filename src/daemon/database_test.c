// SPDX-License-Identifier: MIT
/* Transactions, words for what goes wrong, and files that are not ours to touch. */
#include "daemon/database.h"
#include "daemon/testing.h"
#include "lib/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <string.h>
#include <sys/stat.h>

static struct error err;

static struct database *open_ok(const char *folder)
{
	struct database *db;

	if (database_open(folder, &db, &err) < 0)
		fail_msg("%s", err.message);
	return db;
}

static int insert(struct database *db, const char *id)
{
	return database_run(db, &err,
			    "INSERT INTO vms (id, folder, phase) VALUES (?, ?, 'present')", "ss",
			    id, id);
}

static int count_row(void *context, const struct database_row *row)
{
	*(int64_t *)context = row_integer(row, 0);
	return 0;
}

static int64_t count(struct database *db)
{
	int64_t n = -1;

	if (database_query(db, &err, count_row, &n, "SELECT count(*) FROM vms", "") < 0)
		fail_msg("%s", err.message);
	return n;
}

static void test_rows_are_there_after_reopening(void **state)
{
	struct database *db = open_ok(*state);

	assert_int_equal(insert(db, "a"), 0);
	assert_int_equal(database_changes(db), 1);
	assert_true(database_last_id(db) > 0);
	database_close(db);
	db = open_ok(*state);
	assert_int_equal(count(db), 1);
	database_close(db);
}

static int see_values(void *context, const struct database_row *row)
{
	(void)context;
	assert_int_equal(row_integer(row, 0), INT64_MIN);
	assert_true(row_real(row, 1) == 0.5);
	assert_string_equal(row_text(row, 2), "x");
	assert_null(row_text(row, 3));
	assert_true(row_is_null(row, 3));
	assert_false(row_is_null(row, 2));
	return 7;
}

static void test_values_pass_and_each_ends_a_query(void **state)
{
	struct database *db = open_ok(*state);

	assert_int_equal(database_query(db, &err, see_values, NULL,
					"SELECT ?, ?, ?, ? UNION ALL SELECT 1, 2, 3, 4", "idss",
					INT64_MIN, 0.5, "x", NULL),
			 7);
	database_close(db);
}

static const char inner_query[] = "SELECT value FROM json_each('[1,2,3]')";
struct nested {
	struct database *db;
	unsigned seen, depth;
};

static int see_nested(void *context, const struct database_row *row)
{
	struct nested *n = context;

	(void)row;
	n->seen++;
	if (n->depth == 2)
		return 0;
	n->depth++;
	assert_int_equal(database_query(n->db, &err, see_nested, n, inner_query, ""), 0);
	n->depth--;
	return 0;
}

static void test_a_query_may_run_inside_of_itself(void **state)
{
	struct nested n = { .db = open_ok(*state) };

	assert_int_equal(database_query(n.db, &err, see_nested, &n, inner_query, ""), 0);
	assert_int_equal(n.seen, 3 + 9 + 27);
	database_close(n.db);
}

static int insert_another(void *context, const struct database_row *row)
{
	char id[8];

	snprintf(id, sizeof(id), "%d-%s", (int)row_integer(row, 0), "x");
	return insert(context, id);
}

static void test_a_query_may_change_rows_meanwhile(void **state)
{
	struct database *db = open_ok(*state);

	assert_int_equal(database_query(db, &err, insert_another, db,
					"SELECT value FROM json_each('[1,2,3]')", ""),
			 0);
	assert_int_equal(count(db), 3);
	/* also when that fails and undoes its own */
	assert_int_equal(database_query(db, &err, insert_another, db,
					"SELECT value FROM json_each('[4,3,5]')", ""),
			 -EEXIST);
	assert_int_equal(count(db), 4);
	database_close(db);
}

static void test_a_constraint_refuses(void **state)
{
	struct database *db = open_ok(*state);

	assert_int_equal(insert(db, "a"), 0);
	assert_int_equal(insert(db, "a"), -EEXIST);
	assert_int_equal(database_run(db, &err, "UPDATE vms SET phase = ?", "s", "lost"), -EEXIST);
	assert_int_equal(database_run(db, &err,
				      "INSERT INTO metering VALUES "
				      "(?,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0)",
				      "s", "nobody"),
			 -EEXIST);
	assert_int_equal(count(db), 1);
	database_close(db);
}

static void test_an_inner_commit_is_not_one(void **state)
{
	struct database *db = open_ok(*state);

	assert_int_equal(database_begin(db, &err), 0);
	assert_int_equal(database_begin(db, &err), 0);
	assert_int_equal(insert(db, "a"), 0);
	assert_int_equal(database_commit(db, &err), 0);
	assert_true(database_in_transaction(db));
	database_rollback(db);
	assert_false(database_in_transaction(db));
	assert_int_equal(count(db), 0);
	database_close(db);
}

static void test_an_inner_rollback_undoes_all(void **state)
{
	struct database *db = open_ok(*state);

	assert_int_equal(database_begin(db, &err), 0);
	assert_int_equal(insert(db, "a"), 0);
	assert_int_equal(database_begin(db, &err), 0);
	database_rollback(db);
	assert_int_equal(insert(db, "b"), -ECANCELED);
	assert_int_equal(database_commit(db, &err), -ECANCELED);
	assert_false(database_in_transaction(db));
	assert_int_equal(count(db), 0);
	database_rollback(db); /* harmless */
	assert_int_equal(insert(db, "c"), 0);
	database_close(db);
	db = open_ok(*state);
	assert_int_equal(count(db), 1);
	database_close(db);
}

struct recorder {
	struct database_hook hook;
	struct database *db;
	int refuse;
	unsigned committing, committed, undone;
};

static int on_committing(struct database_hook *h, struct error *e)
{
	struct recorder *r = container_of(h, struct recorder, hook);

	r->committing++;
	if (r->refuse)
		return error_set(e, r->refuse, "refused");
	return database_run(r->db, e, "INSERT INTO things VALUES (?, 'pool', '', '', 0)", "s",
			    r->committing == 1 ? "first" : "other");
}

static void on_ended(struct database_hook *h, bool committed)
{
	struct recorder *r = container_of(h, struct recorder, hook);

	assert_false(database_in_transaction(r->db));
	committed ? r->committed++ : r->undone++;
}

static void test_hooks_see_the_outermost_level_only(void **state)
{
	struct recorder r = { .hook = { on_committing, on_ended } };

	r.db = open_ok(*state);
	database_hook(r.db, &r.hook);
	assert_int_equal(database_begin(r.db, &err), 0);
	assert_int_equal(database_begin(r.db, &err), 0);
	assert_int_equal(insert(r.db, "a"), 0);
	assert_int_equal(database_commit(r.db, &err), 0);
	assert_int_equal(r.committing, 0);
	assert_int_equal(database_commit(r.db, &err), 0);
	assert_int_equal(r.committing, 1);
	assert_int_equal(r.committed, 1);
	r.refuse = -ENOSPC;
	assert_int_equal(insert(r.db, "b"), -ENOSPC); /* alone: a transaction, too */
	assert_string_equal(err.message, "refused");
	assert_int_equal(r.undone, 1);
	assert_int_equal(count(r.db), 1);
	database_unhook(&r.hook);
	assert_int_equal(insert(r.db, "b"), 0);
	assert_int_equal(r.committing, 2);
	database_close(r.db);
}

static void test_a_second_service_is_refused(void **state)
{
	struct database *db = open_ok(*state), *second;
	char pid[32];

	snprintf(pid, sizeof(pid), "process %d ", (int)getpid());
	assert_int_equal(database_open(*state, &second, &err), -EBUSY);
	assert_non_null(strstr(err.message, "another service"));
	snprintf(pid, sizeof(pid), "process %d", (int)getpid());
	assert_non_null(strstr(err.message, pid));
	assert_int_equal(insert(db, "a"), 0);
	database_close(db);
	db = open_ok(*state);
	database_close(db);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, test_folder_setup, test_folder_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_rows_are_there_after_reopening),
		TEST(test_values_pass_and_each_ends_a_query),
		TEST(test_a_query_may_run_inside_of_itself),
		TEST(test_a_query_may_change_rows_meanwhile),
		TEST(test_a_constraint_refuses),
		TEST(test_an_inner_commit_is_not_one),
		TEST(test_an_inner_rollback_undoes_all),
		TEST(test_hooks_see_the_outermost_level_only),
		TEST(test_a_second_service_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
