// SPDX-License-Identifier: MIT
/* Totals over runs, restarts and crashes of the service, and machines that go. */
#include "daemon/metering.h"
#include "daemon/testing.h"

#include <errno.h>
#include <sys/wait.h>
#include <unistd.h>

#define VM_A "aaaaaaaa-0000-0000-0000-000000000001"
#define VM_B "aaaaaaaa-0000-0000-0000-000000000002"

#define WRITE_MS 30

static struct error err;
static struct database *db;
static struct loop *loop;
static struct metering *metering;

static void open_all(const char *folder)
{
	assert_int_equal(loop_new(0, &loop, &err), 0);
	if (database_open(folder, &db, &err) < 0 ||
	    metering_new(db, loop, WRITE_MS, &metering, &err) < 0)
		fail_msg("%s", err.message);
}

static void close_all(void)
{
	metering_free(metering);
	database_close(db);
	loop_free(loop);
}

static int setup(void **state)
{
	static const char *const ids[] = { VM_B, VM_A };

	if (test_folder_setup(state))
		return -1;
	open_all(*state);
	for (size_t i = 0; i < ARRAY_SIZE(ids); i++)
		assert_int_equal(
			database_run(db, &err,
				     "INSERT INTO vms (id, folder, phase) VALUES (?, ?, 'present')",
				     "ss", ids[i], ids[i]),
			0);
	return 0;
}

static int teardown(void **state)
{
	close_all();
	return test_folder_teardown(state);
}

static struct metering_usage usage(int64_t run, uint64_t n, uint64_t mib)
{
	return (struct metering_usage){ .run = run,
					.cpu_us = n,
					.memory = mib * MIB,
					.disk_read = 10 * n,
					.disk_written = 100 * n,
					.network_received = 1000 * n,
					.network_sent = 10000 * n };
}

static void sample(const char *vm, int64_t run, uint64_t n, uint64_t mib)
{
	const struct metering_usage u = usage(run, n, mib);

	metering_sample(metering, vm, &u);
}

static void assert_totals(const char *vm, uint64_t n)
{
	struct metering_report r;

	assert_int_equal(metering_get(metering, vm, &r, &err), 0);
	assert_int_equal(r.cpu_us, n);
	assert_int_equal(r.disk_read, 10 * n);
	assert_int_equal(r.disk_written, 100 * n);
	assert_int_equal(r.network_received, 1000 * n);
	assert_int_equal(r.network_sent, 10000 * n);
}

static void assert_memory(const char *vm, uint64_t min, uint64_t average, uint64_t max)
{
	struct metering_report r;

	assert_int_equal(metering_get(metering, vm, &r, &err), 0);
	assert_int_equal(r.memory_min, min * MIB);
	assert_int_equal(r.memory_average, average * MIB);
	assert_int_equal(r.memory_max, max * MIB);
}

static void test_only_what_is_metered_counts(void **state)
{
	struct metering_report r;

	(void)state;
	sample(VM_A, 1, 5, 5);
	assert_false(metering_enabled(metering, VM_A));
	assert_int_equal(metering_get(metering, VM_A, &r, &err), -ENOENT);
	assert_int_equal(metering_reset(metering, VM_A, &err), -ENOENT);
	assert_int_equal(metering_disable(metering, VM_A, &err), 0);
	assert_int_equal(metering_enable(metering, "no such", NULL, &err), -EEXIST);
	assert_false(metering_enabled(metering, "no such"));
}

static void test_counters_add_up_over_runs(void **state)
{
	(void)state;
	assert_int_equal(metering_enable(metering, VM_A, NULL, &err), 0);
	assert_int_equal(metering_enable(metering, VM_B, NULL, &err), 0);
	assert_totals(VM_A, 0);
	assert_memory(VM_A, 0, 0, 0);
	sample(VM_A, 1, 5, 100); /* a run that began after metering did counts from its start */
	sample(VM_A, 1, 7, 300);
	assert_totals(VM_A, 7);
	sample(VM_A, 2, 4, 200); /* another run */
	assert_totals(VM_A, 11);
	sample(VM_A, 2, 3, 200); /* a counter that goes back */
	sample(VM_A, 2, 4, 200);
	sample(VM_A, 2, 6, 200);
	assert_totals(VM_A, 13);
	assert_memory(VM_A, 100, 200, 300);
	assert_totals(VM_B, 0);
}

static void test_what_was_used_before_does_not_count(void **state)
{
	const struct metering_usage before = usage(1, 50, 100);

	(void)state;
	assert_int_equal(metering_enable(metering, VM_A, &before, &err), 0);
	sample(VM_A, 1, 60, 100);
	assert_totals(VM_A, 10);
	assert_int_equal(metering_enable(metering, VM_A, NULL, &err), 0); /* goes on as it is */
	sample(VM_A, 1, 61, 100);
	assert_totals(VM_A, 11);
}

static void test_beginning_anew(void **state)
{
	assert_int_equal(metering_enable(metering, VM_A, NULL, &err), 0);
	sample(VM_A, 1, 60, 100);
	assert_int_equal(metering_reset(metering, VM_A, &err), 0);
	assert_totals(VM_A, 0);
	assert_memory(VM_A, 0, 0, 0);
	sample(VM_A, 1, 62, 500);
	assert_totals(VM_A, 2);
	assert_memory(VM_A, 500, 500, 500);
	assert_int_equal(metering_disable(metering, VM_A, &err), 0);
	close_all();
	open_all(*state);
	assert_false(metering_enabled(metering, VM_A));
}

static void test_totals_outlive_the_service(void **state)
{
	assert_int_equal(metering_enable(metering, VM_A, NULL, &err), 0);
	sample(VM_A, 1, 60, 100);
	close_all();
	open_all(*state);
	assert_totals(VM_A, 60);
	sample(VM_A, 1, 65, 300); /* the worker went on */
	assert_totals(VM_A, 65);
	assert_memory(VM_A, 100, 200, 300);
}

static int read_column(void *context, const struct database_row *row)
{
	*(int64_t *)context = row_integer(row, 0);
	return 0;
}

static int64_t written_cpu(void)
{
	int64_t cpu = -1;

	assert_int_equal(database_query(db, &err, read_column, &cpu,
					"SELECT cpu_us FROM metering WHERE vm = ?", "s", VM_A),
			 0);
	return cpu;
}

static void test_samples_are_written_by_themselves(void **state)
{
	uint64_t begun;

	(void)state;
	assert_int_equal(metering_enable(metering, VM_A, NULL, &err), 0);
	sample(VM_A, 1, 50, 100);
	sample(VM_A, 1, 60, 100);
	assert_int_equal(written_cpu(), 0);
	begun = loop_now(loop);
	while (written_cpu() != 60)
		assert_int_equal(loop_once(loop, -1), 0);
	assert_true(loop_now(loop) - begun >= UINT64_C(1000000) * WRITE_MS);
	sample(VM_A, 1, 70, 100); /* and again */
	while (written_cpu() != 70)
		assert_int_equal(loop_once(loop, -1), 0);
}

/* A service that dies without an end: samples that are not written count with the next one. */
static void die_after_samples(const char *folder)
{
	open_all(folder);
	sample(VM_A, 1, 50, 100);
	while (written_cpu() != 50)
		if (loop_once(loop, -1) < 0)
			_exit(1);
	sample(VM_A, 1, 55, 200);
	_exit(0);
}

static void test_a_crash_loses_no_counters(void **state)
{
	int status;
	pid_t pid;

	assert_int_equal(metering_enable(metering, VM_A, NULL, &err), 0);
	close_all();
	pid = fork();
	assert_true(pid >= 0);
	if (!pid)
		die_after_samples(*state);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	open_all(*state);
	assert_totals(VM_A, 50);
	sample(VM_A, 1, 61, 100);
	assert_totals(VM_A, 61);
	assert_memory(VM_A, 100, 100, 100);
}

static void test_what_is_undone_is_undone_in_memory(void **state)
{
	(void)state;
	assert_int_equal(database_begin(db, &err), 0);
	assert_int_equal(metering_enable(metering, VM_A, NULL, &err), 0);
	database_rollback(db);
	assert_false(metering_enabled(metering, VM_A));
	assert_int_equal(metering_enable(metering, VM_A, NULL, &err), 0);
	assert_int_equal(database_begin(db, &err), 0);
	assert_int_equal(metering_disable(metering, VM_A, &err), 0);
	database_rollback(db);
	assert_true(metering_enabled(metering, VM_A));
	sample(VM_A, 1, 5, 1);
	assert_int_equal(database_begin(db, &err), 0);
	assert_int_equal(metering_reset(metering, VM_A, &err), 0);
	database_rollback(db);
	sample(VM_A, 1, 8, 1); /* what was not written counts all the same */
	assert_totals(VM_A, 8);
}

static void test_a_machine_that_goes_takes_its_meter_along(void **state)
{
	assert_int_equal(metering_enable(metering, VM_A, NULL, &err), 0);
	assert_int_equal(metering_enable(metering, VM_B, NULL, &err), 0);
	sample(VM_A, 1, 5, 1);
	sample(VM_B, 1, 6, 1);
	assert_int_equal(database_run(db, &err, "DELETE FROM vms WHERE id = ?", "s", VM_A), 0);
	close_all();
	open_all(*state);
	assert_false(metering_enabled(metering, VM_A));
	assert_totals(VM_B, 6);
}

static void test_totals_do_not_overflow(void **state)
{
	struct metering_usage u = { .run = 1, .memory = UINT64_MAX };
	struct metering_report r;

	(void)state;
	memset(&u.cpu_us, 0xff, sizeof(u.cpu_us));
	u.disk_read = UINT64_MAX;
	assert_int_equal(metering_enable(metering, VM_A, NULL, &err), 0);
	for (u.run = 1; u.run < 2000; u.run++)
		metering_sample(metering, VM_A, &u);
	assert_int_equal(metering_get(metering, VM_A, &r, &err), 0);
	assert_int_equal(r.cpu_us, INT64_MAX);
	assert_int_equal(r.disk_read, INT64_MAX);
	assert_int_equal(r.disk_written, 0);
	assert_int_equal(r.memory_max, UINT64_MAX / KIB * KIB);
	assert_true(r.memory_average <= r.memory_max);
}

static void test_a_report_as_json(void **state)
{
	const struct metering_report r = { .since = 1796058355007,
					   .cpu_us = 1,
					   .memory_average = 2 * MIB,
					   .memory_min = MIB,
					   .memory_max = 3 * MIB,
					   .disk_read = 4,
					   .disk_written = 5,
					   .network_received = 6,
					   .network_sent = 7 };
	json_t *json = metering_json(&r);
	char *text = json_dumps(json, JSON_COMPACT);

	(void)state;
	assert_string_equal(text,
			    "{\"since\":\"2026-11-30T17:05:55.007Z\",\"cpu_us\":1,\"memory\":"
			    "{\"average_mib\":2,\"minimum_mib\":1,\"maximum_mib\":3},\"disk\":"
			    "{\"read_bytes\":4,\"written_bytes\":5},\"network\":"
			    "{\"received_bytes\":6,\"sent_bytes\":7}}");
	free(text);
	json_decref(json);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_only_what_is_metered_counts),
		TEST(test_counters_add_up_over_runs),
		TEST(test_what_was_used_before_does_not_count),
		TEST(test_beginning_anew),
		TEST(test_totals_outlive_the_service),
		TEST(test_samples_are_written_by_themselves),
		TEST(test_a_crash_loses_no_counters),
		TEST(test_what_is_undone_is_undone_in_memory),
		TEST(test_a_machine_that_goes_takes_its_meter_along),
		TEST(test_totals_do_not_overflow),
		cmocka_unit_test(test_a_report_as_json),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
