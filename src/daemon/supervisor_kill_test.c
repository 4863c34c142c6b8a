// SPDX-License-Identifier: MIT
/*
 * A service that is killed at any moment of a start: whatever it had done by then, the next one
 * either finds the machine running, or finds that there is none; and nothing is left behind.
 */
#include "daemon/supervisor.h"
#include "daemon/testing.h"
#include "lib/cleanup.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/wait.h>
#include <time.h>

#include <cmocka.h>

#define ID      "0b0e7c9c-1f3a-4b64-9d55-000000000002"
#define ROUNDS  60
#define STEP_US 200     /* each round is killed so much later */
#define LAST_US 1000000 /* and the last when all is done */
#define WAIT_MS 20000

static const char *worker_program, *keeper_program;

struct seen {
	bool running, ended; /* it was, once; it has */
	enum worker_end end;
};

static void on_state(void *context, struct worker *w, const char *state)
{
	(void)w;
	((struct seen *)context)->running |= !strcmp(state, "running");
}

static void on_ended(void *context, struct worker *w, enum worker_end end, const char *words)
{
	struct seen *v = context;

	(void)w, (void)words;
	v->ended = true;
	v->end = end;
}

static const struct worker_events events = { .state = on_state, .ended = on_ended };

static struct supervisor *supervise(struct loop *loop, const char *run)
{
	const struct supervisor_options o = { .run_folder = run,
					      .worker = worker_program,
					      .keeper = keeper_program };
	struct error err = { 0 };
	struct supervisor *s;

	return supervisor_new(loop, &o, &s, &err) < 0 ? NULL : s;
}

/* The service's process; it never returns. */
static void serve(const char *folder, const char *run)
{
	struct error err = { 0 };
	struct seen v = { 0 };
	struct worker_start start = {
		.id = ID, .folder = folder, .events = &events, .context = &v
	};
	struct supervisor *s;
	struct worker *w;
	struct loop *loop;

	start.description = json_pack("{s:s,s:s,s:i,s:{s:{s:s}}}", "name", "test", "engine", "fake",
				      "memory", 32, "boot", "kernel", "path", "kernel");
	if (loop_new(0, &loop, &err) < 0)
		_exit(1);
	s = supervise(loop, run);
	if (!s || worker_start(s, &start, &w, &err) < 0)
		_exit(1);
	loop_run(loop);
	_exit(1);
}

static bool await(struct loop *loop, const bool *a, const bool *b)
{
	for (int i = 0; i < WAIT_MS / 20; i++) {
		if (*a || *b)
			return true;
		loop_once(loop, 20);
	}
	return false;
}

static void on_powered_off(struct worker_request *r, int result, json_t *answer,
			   const struct error *err)
{
	(void)r, (void)result, (void)answer, (void)err;
}

/* The next service; whether it found the machine running. */
static bool take_over(const char *run)
{
	struct worker_request off = { .done = on_powered_off };
	struct error err = { 0 };
	struct seen v = { 0 };
	struct supervisor *s;
	struct worker *w;
	struct loop *loop;
	enum worker_end end;
	json_t *command = json_pack("{s:s}", "command", "power-off");
	int r;

	assert_int_equal(loop_new(0, &loop, &err), 0);
	s = supervise(loop, run);
	assert_non_null(s);
	r = worker_adopt(s, ID, &events, &v, &w, &end, &err);
	if (r < 0)
		assert_true(r == -ENOENT || r == -ECHILD);
	if (r >= 0) {
		/* It may have been killed before its keeper was one. */
		assert_true(await(loop, &v.running, &v.ended));
	}
	if (v.running) {
		worker_ask(w, &off, command, NULL, 0, WAIT_MS);
		assert_true(await(loop, &v.ended, &v.ended));
		assert_int_equal(v.end, WORKER_END_OFF);
	}
	assert_int_equal(worker_adopt(s, ID, &events, &v, &w, &end, &err), -ENOENT);
	json_decref(command);
	supervisor_free(s);
	loop_free(loop);
	return v.running;
}

static void test_a_service_killed_while_it_starts_a_machine(void **state)
{
	char folder[] = "/tmp/supervisor-kill-XXXXXX", run[64], kernel[64];
	unsigned running = 0;

	(void)state;
	assert_non_null(mkdtemp(folder));
	snprintf(run, sizeof(run), "%s/run", folder);
	snprintf(kernel, sizeof(kernel), "%s/kernel", folder);
	assert_int_equal(testing_kernel_write(kernel), 0);
	for (unsigned i = 0; i < ROUNDS; i++) {
		pid_t pid = fork();

		assert_true(pid >= 0);
		if (!pid)
			serve(folder, run);
		usleep(i + 1 == ROUNDS ? LAST_US : i * STEP_US);
		kill(pid, SIGKILL);
		assert_int_equal(waitpid(pid, NULL, 0), pid);
		running += take_over(run);
	}
	assert_in_range(running, 1, ROUNDS);
	testing_folder_remove(folder);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_service_killed_while_it_starts_a_machine),
	};

	if (argc != 3)
		return 2;
	worker_program = argv[1];
	keeper_program = argv[2];
	return cmocka_run_group_tests(tests, NULL, NULL);
}
