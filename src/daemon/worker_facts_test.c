// SPDX-License-Identifier: MIT
/* Limits, figures and ends of workers, without any worker. */
#include "daemon/supervisor_internal.h"
#include "daemon/testing.h"
#include "lib/cleanup.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>

#include <cmocka.h>

#define ID "0b0e7c9c-1f3a-4b64-9d55-000000000003"

static void test_limits_are_converted(void **state)
{
	static const struct {
		struct worker_limits l;
		const char *max;
	} rows[] = { { { 100, 4, 100 }, "max 100000" },
		     { { 0, 0, 0 }, "max 100000" },
		     { { 50, 4, 100 }, "200000 100000" },
		     { { 1, 1, 100 }, "1000 100000" },
		     { { 99, 64, 100 }, "6336000 100000" } };
	char text[48];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		worker_cpu_max(&rows[i].l, text);
		assert_string_equal(text, rows[i].max);
	}
	assert_int_equal(worker_cpu_weight(0), 1);
	assert_int_equal(worker_cpu_weight(100), 100);
	assert_int_equal(worker_cpu_weight(20000), 10000);
}

static void file_make(const char *folder, const char *name, const char *text)
{
	char path[200];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	file = fopen(path, "we");
	assert_non_null(file);
	fputs(text, file);
	fclose(file);
}

/* The files of a group as the kernel has them, in an ordinary folder. */
static void test_a_group_limits_and_tells_of_memory(void **state)
{
	const struct worker_limits l = { 25, 2, 300 }, usual = { 100, 2, 100 },
				   memory = { 100, 2, 100, 64 * MIB };
	char folder[] = "/tmp/worker-cgroup-XXXXXX", group[112], path[200], text[48] = "";
	struct supervisor s = { 0 };
	struct error err = { 0 };
	uint64_t usage;
	FILE *file;

	(void)state;
	assert_int_equal(worker_cgroup_limit(&s, ID, &l, &err), -EOPNOTSUPP);
	assert_int_equal(worker_cgroup_limit(&s, ID, &memory, &err), -EOPNOTSUPP);
	assert_int_equal(worker_cgroup_limit(&s, ID, &usual, &err), 0);
	s.cgroup = mkdtemp(folder);
	assert_non_null(s.cgroup);
	snprintf(group, sizeof(group), "%s/%s", folder, ID);
	assert_int_equal(mkdir(group, 0700), 0);
	/* Without the controller only what is usual can be had. */
	assert_int_equal(worker_cgroup_limit(&s, ID, &usual, &err), 0);
	assert_int_equal(worker_cgroup_limit(&s, ID, &l, &err), -ENOENT);
	file_make(group, "cpu.max", "");
	file_make(group, "cpu.weight", "");
	file_make(group, "memory.events", "low 0\nhigh 0\nmax 7\noom 1\noom_kill 0\n");
	file_make(group, "cpu.stat", "usage_usec 12345\nuser_usec 1\n");
	assert_int_equal(worker_cgroup_limit(&s, ID, &l, &err), 0);
	snprintf(path, sizeof(path), "%s/cpu.max", group);
	file = fopen(path, "re");
	assert_non_null(fgets(text, sizeof(text), file));
	fclose(file);
	assert_string_equal(text, "50000 100000");
	assert_int_equal(worker_cgroup_limit(&s, ID, &memory, &err), -ENOENT);
	file_make(group, "memory.max", "");
	assert_int_equal(worker_cgroup_limit(&s, ID, &memory, &err), 0);
	snprintf(path, sizeof(path), "%s/memory.max", group);
	file = fopen(path, "re");
	assert_non_null(fgets(text, sizeof(text), file));
	fclose(file);
	assert_string_equal(text, "67108864");
	assert_false(worker_cgroup_out_of_memory(&s, ID));
	file_make(group, "memory.events", "oom 1\noom_kill 2\n");
	assert_true(worker_cgroup_out_of_memory(&s, ID));
	assert_int_equal(worker_cgroup_number(&s, ID, "cpu.stat", "usage_usec", &usage), 0);
	assert_int_equal(usage, 12345);
	assert_int_equal(worker_cgroup_number(&s, ID, "cpu.stat", "usage", &usage), -ENOENT);
	testing_folder_remove(folder);
}

/* A process that is surely there has figures; from its group where that has them. */
static void test_usage_is_counted(void **state)
{
	char folder[] = "/tmp/worker-cgroup-XXXXXX", group[112];
	struct supervisor s = { 0 };
	struct worker w = { .supervisor = &s, .id = ID, .pid = getpid() };
	struct worker_usage u;

	(void)state;
	assert_int_equal(worker_usage_get(&w, &u), 0);
	assert_in_range(u.memory, 4096, 1024 * MIB);
	s.cgroup = mkdtemp(folder);
	snprintf(group, sizeof(group), "%s/%s", folder, ID);
	assert_int_equal(mkdir(group, 0700), 0);
	file_make(group, "cpu.stat", "usage_usec 77\n");
	file_make(group, "io.stat",
		  "8:0 rbytes=5 wbytes=7 rios=1\n8:16 rbytes=1 wbytes=2 rios=9\n");
	assert_int_equal(worker_usage_get(&w, &u), 0);
	assert_int_equal(u.cpu_us, 77);
	assert_int_equal(u.read_bytes, 6);
	assert_int_equal(u.written_bytes, 9);
	w.pid = 0;
	assert_int_equal(worker_usage_get(&w, &u), -ESRCH);
	testing_folder_remove(folder);
}

static void test_ends_are_judged(void **state)
{
	struct worker_end_record r = { .signalled = true, .status = SIGKILL };
	struct worker_end_facts f = { .record = &r, .state = "running", .out_of_memory = true };
	char words[256];

	(void)state;
	assert_int_equal(worker_end_judge(&f, words, sizeof(words)), WORKER_END_MEMORY);
	f.out_of_memory = false;
	f.killed = true;
	assert_int_equal(worker_end_judge(&f, words, sizeof(words)), WORKER_END_CRASH);
	r = (struct worker_end_record){ .status = 1, .words = "a\npartita-worker: bad image" };
	assert_int_equal(worker_end_judge(&f, words, sizeof(words)), WORKER_END_ERROR);
	assert_string_equal(words, "bad image");
	f.record = NULL;
	f.killed = false;
	f.out_of_memory = true;
	assert_int_equal(worker_end_judge(&f, words, sizeof(words)), WORKER_END_MEMORY);
	f.out_of_memory = false;
	f.state = "off";
	assert_int_equal(worker_end_judge(&f, words, sizeof(words)), WORKER_END_OFF);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_limits_are_converted),
		cmocka_unit_test(test_a_group_limits_and_tells_of_memory),
		cmocka_unit_test(test_usage_is_counted),
		cmocka_unit_test(test_ends_are_judged),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
