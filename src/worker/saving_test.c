// SPDX-License-Identifier: MIT
/*
 * Machines on engine fake saved and restored: what is kept, what a failure and a cancellation at
 * each moment leave behind, and what is refused.
 */
#include "daemon/testing.h"
#include "worker/machine_testing.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

static struct test_machine machine(void)
{
	struct test_machine t = { .disk = test_machine_file("disk", MIB) };
	char path[64];

	t.kernel = test_machine_file("kernel", 0);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", t.kernel);
	assert_int_equal(testing_kernel_write(path), 0);
	return t;
}

static struct test_machine running(void)
{
	struct test_machine t = machine();
	struct error err = { 0 };

	if (test_machine_make(&t, -1, &err) < 0)
		fail_msg("%s", err.message);
	test_machine_wait(&t, MACHINE_RUNNING);
	return t;
}

static void done(struct test_machine *t)
{
	test_machine_end(t);
	close(t->kernel);
	close(t->disk);
}

static uint8_t *memory(struct test_machine *t)
{
	return gmem_page(partition_gmem(machine_partition(t->m)), 0);
}

/* Pages here and there, over more than one piece of the file. */
static void fill(struct test_machine *t)
{
	uint8_t *p = memory(t);

	for (uint64_t page = 512; page < TEST_MEMORY * 256; page += 37)
		memset(p + page * 4096 + page % 4096, (int)(page | 1), 1);
}

/* Saved, and ended. */
static int save(struct test_machine *t)
{
	int fd = test_machine_file("state", 0);
	struct error err = { 0 };

	if (test_machine_save(t, fd, &err) < 0)
		fail_msg("%s", err.message);
	test_machine_wait(t, MACHINE_OFF);
	if (!t->saved || t->result < 0)
		fail_msg("%s", t->error.message);
	return fd;
}

/* Into the same machine, made anew. */
static int restore(struct test_machine *t, int state, struct error *err)
{
	int status, r = test_machine_make(t, state, err);

	if (r < 0)
		return r;
	test_machine_wait(t, MACHINE_RUNNING);
	if (machine_state(t->m) == MACHINE_RUNNING)
		return 0;
	assert_int_equal(machine_end(t->m, &status), MACHINE_END_ERROR);
	*err = *machine_failure(t->m);
	return err->code;
}

static void test_a_machine_comes_back(void **state)
{
	struct test_machine t = running();
	uint8_t *before = malloc(TEST_MEMORY * MIB);
	struct error err = { 0 };
	struct stat st;
	int fd, status;

	(void)state;
	fill(&t);
	memcpy(before, memory(&t), TEST_MEMORY * MIB);
	fd = save(&t);
	assert_int_equal(machine_end(t.m, &status), MACHINE_END_SAVED);
	test_machine_end(&t);
	assert_int_equal(fstat(fd, &st), 0);
	assert_true((uint64_t)st.st_size < 4 * MIB); /* the pages that are not zero */
	if (restore(&t, fd, &err) < 0)
		fail_msg("%s", err.message);
	assert_memory_equal(before, memory(&t), TEST_MEMORY * MIB);
	/* It can be paused, saved while it is, and restored again. */
	assert_int_equal(machine_command(t.m, MACHINE_PAUSE, &err), 0);
	test_machine_wait(&t, MACHINE_PAUSED);
	close(fd);
	fd = save(&t);
	test_machine_end(&t);
	assert_int_equal(restore(&t, fd, &err), 0);
	close(fd);
	done(&t);
	free(before);
}

/* Does something in the nth turn of the loop in which the machine is being saved. */
struct moment {
	struct loop_task task;
	struct test_machine *t;
	unsigned turn, at;
	void (*fn)(struct test_machine *t);
	bool came;
};

static void on_turn(struct loop_task *task)
{
	struct moment *m = container_of(task, struct moment, task);

	if (machine_state(m->t->m) == MACHINE_SAVING && m->turn++ == m->at) {
		m->came = true;
		m->fn(m->t);
	} else if (!m->t->saved) {
		loop_defer(m->t->loop, task);
	}
}

/* Begins to save, and does that; whether the moment came. */
static bool save_until(struct test_machine *t, int fd, unsigned at,
		       void (*fn)(struct test_machine *t))
{
	struct moment m = { .t = t, .at = at, .fn = fn };
	struct error err = { 0 };

	loop_task_init(&m.task, on_turn);
	t->saved = false;
	assert_int_equal(test_machine_save(t, fd, &err), 0);
	loop_defer(t->loop, &m.task);
	while (!t->saved)
		assert_true(loop_once(t->loop, 1000) >= 0);
	loop_cancel(t->loop, &m.task);
	return m.came;
}

static void cancel(struct test_machine *t)
{
	struct error err = { 0 };

	assert_int_equal(machine_save_cancel(t->m, &err), 0);
}

static void power_off(struct test_machine *t)
{
	struct error err = { 0 };

	assert_int_equal(machine_command(t->m, MACHINE_POWER_OFF, &err), 0);
}

/* Until the moment is too late. One that comes after all is on the disk changes nothing. */
static void test_cancelled_at_each_moment(void **state)
{
	struct test_machine t = running();
	struct error err = { 0 };
	unsigned cancelled = 0;
	int fd;

	(void)state;
	fill(&t);
	for (;; cancelled++) {
		fd = test_machine_file("state", 0);
		if (!save_until(&t, fd, cancelled, cancel) || t.result >= 0)
			break;
		assert_int_equal(t.result, -ECANCELED);
		assert_int_equal(machine_state(t.m), MACHINE_RUNNING);
		close(fd);
	}
	assert_true(cancelled > 10);
	assert_int_equal(t.result, 0);
	test_machine_wait(&t, MACHINE_OFF);
	test_machine_end(&t);
	assert_int_equal(restore(&t, fd, &err), 0);
	close(fd);
	done(&t);
}

static void test_a_full_disk_changes_nothing(void **state)
{
	struct test_machine t = running();
	struct rlimit old, small = { 2 * MIB, RLIM_INFINITY };
	struct error err = { 0 };
	int fd = test_machine_file("state", 0);

	(void)state;
	signal(SIGXFSZ, SIG_IGN);
	for (uint64_t page = 1024; page < 4096; page++)
		memset(memory(&t) + page * 4096, 1, 1);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	small.rlim_max = old.rlim_max;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	assert_int_equal(test_machine_save(&t, fd, &err), 0);
	while (!t.saved)
		assert_true(loop_once(t.loop, 1000) >= 0);
	assert_int_equal(machine_state(t.m), MACHINE_RUNNING);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	assert_true(t.saved);
	assert_int_equal(t.result, -EFBIG);
	assert_string_equal(t.error.message, "cannot write the state: File too large");
	close(fd);
	fd = save(&t); /* and now there is room */
	close(fd);
	done(&t);
}

static void test_power_off_while_saving(void **state)
{
	(void)state;
	for (unsigned at = 0; at < 9; at += 4) {
		struct test_machine t = running();
		int fd = test_machine_file("state", 0), status;

		fill(&t);
		assert_true(save_until(&t, fd, at, power_off));
		assert_int_equal(t.result, -ECANCELED);
		test_machine_wait(&t, MACHINE_OFF);
		assert_int_equal(machine_end(t.m, &status), MACHINE_END_POWER_OFF);
		close(fd);
		done(&t);
	}
}

static void test_a_reset_comes_first(void **state)
{
	struct test_machine t = running();
	int fd = test_machine_file("state", 0);
	struct error err = { 0 };

	(void)state;
	machine_request(t.m, REQUEST_RESET); /* a VP's, on its way to the gate */
	assert_int_equal(test_machine_save(&t, fd, &err), 0);
	while (!t.saved)
		assert_true(loop_once(t.loop, 1000) >= 0);
	assert_int_equal(t.result, -ECANCELED);
	test_machine_wait(&t, MACHINE_RUNNING);
	assert_int_equal(machine_state(t.m), MACHINE_RUNNING);
	close(fd);
	done(&t);
}

static void test_damaged_memory_is_refused(void **state)
{
	struct test_machine t = running();
	struct error err = { 0 };
	struct stat st;
	uint8_t byte;
	int fd;

	(void)state;
	fill(&t);
	fd = save(&t);
	test_machine_end(&t);
	assert_int_equal(fstat(fd, &st), 0);
	/* In the last piece, which is before the end's block. */
	assert_int_equal(pread(fd, &byte, 1, st.st_size - 4096 - 2000), 1);
	byte ^= 4;
	assert_int_equal(pwrite(fd, &byte, 1, st.st_size - 4096 - 2000), 1);
	assert_int_equal(restore(&t, fd, &err), -EBADMSG);
	assert_non_null(strstr(err.message, "is not what was saved"));
	close(fd);
	done(&t);
}

static void test_a_cut_state_is_refused(void **state)
{
	struct test_machine t = running();
	struct error err = { 0 };
	struct stat st;
	int fd;

	(void)state;
	fd = save(&t);
	test_machine_end(&t);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(ftruncate(fd, st.st_size - 4096), 0);
	assert_int_equal(restore(&t, fd, &err), -EBADMSG);
	assert_non_null(strstr(err.message, "truncated"));
	close(fd);
	done(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_machine_comes_back),
		cmocka_unit_test(test_cancelled_at_each_moment),
		cmocka_unit_test(test_a_full_disk_changes_nothing),
		cmocka_unit_test(test_power_off_while_saving),
		cmocka_unit_test(test_a_reset_comes_first),
		cmocka_unit_test(test_damaged_memory_is_refused),
		cmocka_unit_test(test_a_cut_state_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
