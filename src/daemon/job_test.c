// SPDX-License-Identifier: MIT
/* A job's life, what a later service makes of it, and who is told. */
#include "daemon/job.h"
#include "daemon/testing.h"
#include "daemon/words.h"

#include <errno.h>

static const struct caller jo = { .name = "jo" };
static struct error err;
static struct database *db;
static struct jobs *jobs;

static void open_all(const char *folder, bool (*adopt)(void *context, struct job *job))
{
	if (database_open(folder, &db, &err) < 0 || jobs_new(db, adopt, &jobs, &jobs, &err) < 0)
		fail_msg("%s", err.message);
}

static void close_all(void)
{
	jobs_free(jobs);
	database_close(db);
}

static int setup(void **state)
{
	int r = test_folder_setup(state);

	if (!r)
		open_all(*state, NULL);
	return r;
}

static int teardown(void **state)
{
	close_all();
	return test_folder_teardown(state);
}

static struct job *begin(const char *type)
{
	struct job *job;

	if (job_begin(jobs, type, &jo, "11111111-2222-3333-4444-555555555555", &job, &err) < 0)
		fail_msg("%s", err.message);
	return job;
}

static unsigned count(void)
{
	unsigned n = 0;

	list_foreach(it, jobs_list(jobs)) n++;
	return n;
}

/* What watches saw: "type:state:percent " each. */
static char seen[1024];

static void on_change(struct job_watch *w, struct job *job)
{
	size_t n = strlen(seen);

	(void)w;
	snprintf(seen + n, sizeof(seen) - n, "%s:%s:%u ", job->type, job_state_name(job->state),
		 job->percent);
}

static void test_a_job_lives_and_is_told_of(void **state)
{
	struct job_watch w;
	struct job *job;

	(void)state;
	seen[0] = '\0';
	job_watch(jobs, &w, on_change);
	job = begin("start-vm");
	assert_true(job_find(jobs, job->id) == job);
	assert_null(job_find(jobs, "11111111-2222-3333-4444-555555555555"));
	job_progress(jobs, job, 30);
	job_progress(jobs, job, 30); /* nothing new */
	job_progress(jobs, job, 300);
	job_end(jobs, job, 0, NULL);
	job_end(jobs, job, -EIO, NULL); /* has ended */
	job_progress(jobs, job, 5);
	assert_string_equal(seen, "start-vm:running:0 start-vm:running:30 start-vm:running:100 "
				  "start-vm:completed:100 ");
	assert_true(job->ended >= job->begun && job->begun > 1700000000000);
	job_unwatch(&w);
}

static void test_ended_jobs_are_the_same_after_a_restart(void **state)
{
	struct error full = { 0 };
	char id[3][GUID_TEXT_SIZE];
	struct job *job;

	job = begin("one");
	strcpy(id[0], job->id);
	job_end(jobs, job, 0, NULL);
	job = begin("two");
	strcpy(id[1], job->id);
	job_progress(jobs, job, 40);
	error_set(&full, -ENOSPC, "no room");
	strcpy(full.property, "disk");
	job_end(jobs, job, -ENOSPC, &full);
	job = begin("three");
	strcpy(id[2], job->id);
	job_end(jobs, job, -ECANCELED, NULL);
	close_all();
	open_all(*state, NULL);
	assert_int_equal(count(), 3);
	job = job_find(jobs, id[0]);
	assert_int_equal(job->state, JOB_COMPLETED);
	assert_int_equal(job->percent, 100);
	assert_string_equal(job->owner, "jo");
	assert_string_equal(job->vm, "11111111-2222-3333-4444-555555555555");
	job = job_find(jobs, id[1]);
	assert_int_equal(job->state, JOB_FAILED);
	assert_int_equal(job->percent, 40);
	assert_int_equal(job->error.code, -ENOSPC);
	assert_string_equal(job->error.message, "no room");
	assert_string_equal(job->error.property, "disk");
	job = job_find(jobs, id[2]);
	assert_int_equal(job->state, JOB_CANCELLED);
	assert_true(job->ended >= job->begun);
	/* in order of beginning */
	assert_string_equal(list_first(jobs_list(jobs), struct job, node)->type, "one");
}

static bool adopt_starts(void *context, struct job *job)
{
	(void)context;
	return !strcmp(job->type, "start-vm");
}

static void test_what_was_running_fails_unless_adopted(void **state)
{
	struct job *job;

	begin("start-vm");
	begin("merge");
	close_all(); /* as after kill -9: their rows say "running" */
	open_all(*state, adopt_starts);
	job = list_first(jobs_list(jobs), struct job, node);
	assert_int_equal(job->state, JOB_RUNNING);
	job_end(jobs, job, 0, NULL);
	job = list_entry(job->node.next, struct job, node);
	assert_int_equal(job->state, JOB_FAILED);
	assert_int_equal(job->error.code, -EINTR);
	assert_non_null(strstr(job->error.message, "the service ended"));
	close_all();
	open_all(*state, NULL); /* that is durable, too */
	job = list_first(jobs_list(jobs), struct job, node);
	assert_int_equal(job->state, JOB_COMPLETED);
	job = list_entry(job->node.next, struct job, node);
	assert_int_equal(job->error.code, -EINTR);
}

static void cancel_at_once(struct job *job)
{
	job_end(job->operation, job, -ECANCELED, NULL);
}

static void test_cancelling(void **state)
{
	struct job *job = begin("start-vm");

	(void)state;
	assert_int_equal(job_cancel(jobs, job, &err), -EOPNOTSUPP);
	assert_int_equal(job->state, JOB_RUNNING);
	job->cancel = cancel_at_once;
	job->operation = jobs;
	assert_int_equal(job_cancel(jobs, job, &err), 0);
	assert_int_equal(job->state, JOB_CANCELLED);
	assert_int_equal(job_cancel(jobs, job, &err), -EBADFD);
	assert_non_null(strstr(err.message, "cancelled"));
}

static int64_t rows(void);

static void test_ended_jobs_expire_by_age_and_count(void **state)
{
	int64_t now = time_ms();
	struct job *running = begin("running");

	(void)state;
	for (int i = 0; i < 3; i++)
		job_end(jobs, begin("old"), 0, NULL);
	jobs_expire(jobs, now);
	assert_int_equal(count(), 4);
	jobs_expire(jobs, now + 3599000);
	assert_int_equal(count(), 4);
	jobs_expire(jobs, now - 7200000); /* the clock was put back */
	assert_int_equal(count(), 4);
	jobs_expire(jobs, now + 3660000);
	assert_int_equal(count(), 1);
	assert_int_equal(rows(), 1);
	assert_int_equal(running->state, JOB_RUNNING);
	assert_int_equal(database_begin(db, &err), 0);
	for (int i = 0; i < 1003; i++)
		job_end(jobs, begin(i < 3 ? "first" : "more"), 0, NULL);
	assert_int_equal(database_commit(db, &err), 0);
	jobs_expire(jobs, time_ms());
	assert_int_equal(count(), 1001);
	assert_int_equal(rows(), 1001);
	list_foreach(it, jobs_list(jobs))
		assert_string_not_equal(list_entry(it, struct job, node)->type, "first");
}

static int count_row(void *context, const struct database_row *row)
{
	*(int64_t *)context = row_integer(row, 0);
	return 0;
}

static int64_t rows(void)
{
	int64_t n = -1;

	assert_int_equal(database_query(db, &err, count_row, &n, "SELECT count(*) FROM jobs", ""),
			 0);
	return n;
}

static void test_a_job_is_told_of_when_its_transaction_is_committed(void **state)
{
	struct job_watch w;
	struct job *job;

	(void)state;
	seen[0] = '\0';
	job_watch(jobs, &w, on_change);
	assert_int_equal(database_begin(db, &err), 0);
	job = begin("make");
	assert_string_equal(seen, "");
	assert_int_equal(database_commit(db, &err), 0);
	assert_string_equal(seen, "make:running:0 ");
	assert_int_equal(database_begin(db, &err), 0);
	job_end(jobs, job, 0, NULL);
	assert_string_equal(seen, "make:running:0 ");
	assert_int_equal(database_commit(db, &err), 0);
	assert_string_equal(seen, "make:running:0 make:completed:100 ");
	job_unwatch(&w);
}

static void test_a_job_that_began_in_what_is_undone_never_was(void **state)
{
	struct job_watch w;

	(void)state;
	seen[0] = '\0';
	job_watch(jobs, &w, on_change);
	assert_int_equal(database_begin(db, &err), 0);
	begin("make");
	database_rollback(db);
	assert_int_equal(count(), 0);
	assert_int_equal(rows(), 0);
	assert_string_equal(seen, "");
	job_unwatch(&w);
}

static void test_a_job_that_ended_in_what_is_undone_has_ended(void **state)
{
	struct job *job = begin("make");
	struct job_watch w;

	seen[0] = '\0';
	job_watch(jobs, &w, on_change);
	assert_int_equal(database_begin(db, &err), 0);
	job_end(jobs, job, -EIO, NULL);
	database_rollback(db);
	assert_string_equal(seen, "make:failed:0 ");
	close_all();
	open_all(*state, NULL);
	job = list_first(jobs_list(jobs), struct job, node);
	assert_int_equal(job->error.code, -EIO);
}

static bool full;

static int refuse(struct database_hook *h, struct error *e)
{
	(void)h;
	return full ? error_set(e, -ENOSPC, "full") : 0;
}

static void test_an_end_that_cannot_be_written_is_written_later(void **state)
{
	struct database_hook h = { .committing = refuse };
	struct job *job = begin("make"), *other;
	int64_t completed = 0;

	(void)state;
	database_hook(db, &h);
	full = true;
	assert_int_equal(job_begin(jobs, "x", &jo, NULL, &other, &err), -ENOSPC);
	assert_int_equal(count(), 1);
	job_end(jobs, job, 0, NULL);
	assert_int_equal(job->state, JOB_COMPLETED);
	jobs_expire(jobs, time_ms() + 7200000);
	assert_int_equal(count(), 1); /* not while its row says "running" */
	full = false;
	begin("other"); /* any commit tells that there is room again */
	database_unhook(&h);
	assert_int_equal(database_query(db, &err, count_row, &completed,
					"SELECT count(*) FROM jobs WHERE state = 'completed'", ""),
			 0);
	assert_int_equal(completed, 1);
}

static struct job *second;

static void on_change_end_other(struct job_watch *w, struct job *job)
{
	(void)w;
	if (!strcmp(job->type, "first") && job->state == JOB_COMPLETED)
		job_end(jobs, second, 0, NULL);
}

/* Also those are told of the second that stand behind the watch that ended it. */
static void test_a_watch_may_end_another_job(void **state)
{
	struct job *first = begin("first");
	struct job_watch a, b;

	(void)state;
	second = begin("second");
	seen[0] = '\0';
	job_watch(jobs, &a, on_change_end_other);
	job_watch(jobs, &b, on_change);
	job_end(jobs, first, 0, NULL);
	assert_string_equal(seen, "first:completed:100 second:completed:100 ");
	job_unwatch(&a);
	job_unwatch(&b);
}

static struct job_watch three[3];
static unsigned told[3];

static void on_change_remove(struct job_watch *w, struct job *job)
{
	(void)job;
	told[w - three]++;
	if (w != &three[0])
		return;
	job_unwatch(&three[0]);
	job_unwatch(&three[1]);
}

static void test_watches_are_removed_inside_of_one(void **state)
{
	(void)state;
	memset(told, 0, sizeof(told));
	for (int i = 0; i < 3; i++)
		job_watch(jobs, &three[i], on_change_remove);
	job_end(jobs, begin("x"), 0, NULL);
	assert_int_equal(told[0], 1);
	assert_int_equal(told[1], 0);
	assert_int_equal(told[2], 2);
	job_unwatch(&three[2]);
}

static void assert_json(const struct job *job, const char *expected)
{
	json_t *json = job_json(job);
	char *text;

	json_object_del(json, "id");
	json_object_del(json, "begun");
	json_object_del(json, "ended");
	text = json_dumps(json, JSON_COMPACT);
	assert_string_equal(text, expected);
	free(text);
	json_decref(json);
}

static void test_jobs_as_json(void **state)
{
	struct error busy = { 0 };
	struct job *job;

	(void)state;
	assert_int_equal(job_begin(jobs, "import", &jo, NULL, &job, &err), 0);
	job->cancel = cancel_at_once;
	assert_json(job, "{\"type\":\"import\",\"owner\":\"jo\",\"vm\":null,\"state\":\"running\","
			 "\"percent\":0,\"error\":null,\"cancellable\":true}");
	error_set(&busy, -EBUSY, "in use \xc3");
	job_end(jobs, job, -EBUSY, &busy);
	assert_json(job, "{\"type\":\"import\",\"owner\":\"jo\",\"vm\":null,\"state\":\"failed\","
			 "\"percent\":0,\"error\":{\"code\":\"busy\",\"detail\":\"in use ?\"},"
			 "\"cancellable\":false}");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_a_job_lives_and_is_told_of),
		TEST(test_ended_jobs_are_the_same_after_a_restart),
		TEST(test_what_was_running_fails_unless_adopted),
		TEST(test_cancelling),
		TEST(test_ended_jobs_expire_by_age_and_count),
		TEST(test_a_job_is_told_of_when_its_transaction_is_committed),
		TEST(test_a_job_that_began_in_what_is_undone_never_was),
		TEST(test_a_job_that_ended_in_what_is_undone_has_ended),
		TEST(test_an_end_that_cannot_be_written_is_written_later),
		TEST(test_a_watch_may_end_another_job),
		TEST(test_watches_are_removed_inside_of_one),
		TEST(test_jobs_as_json),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
