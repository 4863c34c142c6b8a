// SPDX-License-Identifier: MIT
/*
 * The whole service over real workers, on engine fake: started, watched, taken over by the next
 * service, killed, started again. Arguments: the worker's and the keeper's program.
 */
#include "daemon/testing.h"
#include "daemon/vm.h"
#include "lib/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <time.h>

#define WAIT_S 30

static const struct caller ada = { .name = "ada", .uid = 1000, .administrator = true };
static const char *worker_program, *keeper_program;

struct test {
	struct loop *loop;
	struct daemon *d;
	char *folder;
};

static void begin(struct test *t)
{
	char state[256], run[256];
	const struct daemon_options o = {
		.state_folder = state,
		.run_folder = run,
		.user = true,
		.worker = worker_program,
		.keeper = keeper_program,
	};
	struct error err = { 0 };

	snprintf(state, sizeof(state), "%s/s", t->folder);
	snprintf(run, sizeof(run), "%s/r", t->folder);
	assert_int_equal(loop_new(0, &t->loop, &err), 0);
	if (daemon_new(t->loop, &o, &t->d, &err) < 0)
		fail_msg("%s", err.message);
}

static void end(struct test *t)
{
	daemon_free(t->d);
	loop_free(t->loop);
}

static int setup(void **state)
{
	struct test *t = calloc(1, sizeof(*t));
	char kernel[256];
	void *folder;

	if (test_folder_setup(&folder) < 0)
		return -1;
	t->folder = folder;
	snprintf(kernel, sizeof(kernel), "%s/kernel", t->folder);
	if (testing_kernel_write(kernel) < 0)
		return -1;
	begin(t);
	*state = t;
	return 0;
}

static int64_t now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec;
}

static int print_event(void *context, const struct event *event)
{
	(void)context;
	print_message("%s: %s\n", event->kind, event->words);
	return 0;
}

/* What the service has to say of it, when it is not what it should be. */
static void print_events(struct test *t)
{
	const struct event_filter all = { 0 };
	struct error err = { 0 };

	loop_once(t->loop, 0);
	if (events_query(t->d->events, &all, print_event, NULL, &err) < 0)
		print_message("%s\n", err.message);
}

static void wait_state(struct test *t, struct vm *vm, enum vm_state state)
{
	int64_t deadline = now_s() + WAIT_S;

	while (vm->state != state) {
		assert_true(loop_once(t->loop, 1000) >= 0);
		if (now_s() <= deadline)
			continue;
		print_events(t);
		fail_msg("%s is %s (%s), not %s", vm->settings.name, vm_state_name(vm->state),
			 vm->state_words, vm_state_name(state));
	}
}

static void mark(void *context)
{
	*(bool *)context = true;
}

static void all_down(struct test *t)
{
	int64_t deadline = now_s() + WAIT_S;
	bool down = false;

	daemon_shut_down(t->d, WAIT_S, mark, &down);
	while (!down && now_s() < deadline)
		assert_true(loop_once(t->loop, 1000) >= 0);
	assert_true(down);
}

static int teardown(void **state)
{
	struct test *t = *state;
	void *folder = t->folder;

	all_down(t);
	end(t);
	free(t);
	return test_folder_teardown(&folder);
}

static struct vm *make(struct test *t, const char *name, const char *critical)
{
	char kernel[256];
	json_t *settings;
	struct error err = { 0 };
	struct vm *vm;

	snprintf(kernel, sizeof(kernel), "%s/kernel", t->folder);
	settings = json_pack("{s:s,s:s,s:{s:i},s:{s:s},s:{s:s}}", "name", name, "engine", "fake",
			     "memory", "startup", 32, "boot", "kernel", kernel, "automatic",
			     "critical_error", critical);
	if (vm_create(t->d, &ada, settings, NULL, NULL, &vm, &err) < 0)
		fail_msg("%s", err.message);
	json_decref(settings);
	return vm;
}

static struct job *act(struct vm *vm, enum vm_action action)
{
	struct error err = { 0 };
	struct job *job;

	if (vm_act(vm->daemon, &ada, vm, action, &job, &err) < 0)
		fail_msg("%s", err.message);
	return job;
}

static struct vm *named(struct test *t, const char *name)
{
	struct vm *vm = NULL;

	assert_int_equal(vm_one(t->d, &ada, name, &vm, NULL), 0);
	return vm;
}

static void test_a_life(void **state)
{
	struct test *t = *state;
	struct vm *vm = make(t, "a", "none");
	struct job *job = act(vm, VM_START);
	struct worker_usage usage;

	wait_state(t, vm, VM_RUNNING);
	assert_int_equal(job->state, JOB_COMPLETED);
	assert_true(worker_pid(vm->worker) > 0);
	assert_int_equal(worker_usage_get(vm->worker, &usage), 0);
	assert_true(usage.memory > 0);
	act(vm, VM_PAUSE);
	wait_state(t, vm, VM_PAUSED);
	act(vm, VM_RESUME);
	wait_state(t, vm, VM_RUNNING);
	job = act(vm, VM_RESET);
	wait_state(t, vm, VM_RUNNING);
	assert_int_equal(job->state, JOB_COMPLETED);
	job = act(vm, VM_STOP);
	wait_state(t, vm, VM_OFF);
	assert_int_equal(job->state, JOB_COMPLETED);
	assert_null(vm->worker);
}

static void test_the_next_service_takes_over(void **state)
{
	struct test *t = *state;
	struct vm *vm = make(t, "a", "none"), *other = make(t, "b", "none");
	pid_t pid;

	act(vm, VM_START);
	act(other, VM_START);
	wait_state(t, vm, VM_RUNNING);
	wait_state(t, other, VM_RUNNING);
	act(other, VM_PAUSE);
	wait_state(t, other, VM_PAUSED);
	pid = worker_pid(vm->worker);
	end(t);
	assert_int_equal(kill(pid, 0), 0);
	begin(t);
	vm = named(t, "a");
	wait_state(t, vm, VM_RUNNING);
	wait_state(t, named(t, "b"), VM_PAUSED);
	assert_int_equal(worker_pid(vm->worker), pid);
	act(vm, VM_STOP);
	wait_state(t, vm, VM_OFF);
}

static char *state_file(const struct vm *vm)
{
	char *path;

	assert_true(asprintf(&path, "%s/saved/state", vm->folder) > 0);
	return path;
}

static void test_saved_and_restored(void **state)
{
	struct test *t = *state;
	struct vm *vm = make(t, "a", "none");
	_cleanup_free_ char *path = state_file(vm);
	_cleanup_close_ int fd = -1;
	struct job *job;
	uint8_t byte;

	act(vm, VM_START);
	wait_state(t, vm, VM_RUNNING);
	job = act(vm, VM_SAVE);
	wait_state(t, vm, VM_SAVED);
	assert_int_equal(job->state, JOB_COMPLETED);
	assert_null(vm->worker);
	end(t);
	begin(t);
	vm = named(t, "a");
	assert_int_equal(vm->state, VM_SAVED);
	/* A flipped bit, and nothing is lost by that. */
	fd = open(path, O_RDWR);
	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &byte, 1, 700), 1);
	byte ^= 1;
	assert_int_equal(pwrite(fd, &byte, 1, 700), 1);
	job = act(vm, VM_START);
	wait_state(t, vm, VM_SAVED);
	assert_int_equal(job->state, JOB_FAILED);
	if (!strstr(job->error.message, "damaged"))
		fail_msg("%s", job->error.message);
	byte ^= 1;
	assert_int_equal(pwrite(fd, &byte, 1, 700), 1);
	job = act(vm, VM_START);
	wait_state(t, vm, VM_RUNNING);
	assert_int_equal(job->state, JOB_COMPLETED);
	assert_int_equal(access(path, F_OK), -1);
	/* From paused, and by the host's end. */
	act(vm, VM_PAUSE);
	wait_state(t, vm, VM_PAUSED);
	act(vm, VM_SAVE);
	wait_state(t, vm, VM_SAVED);
	act(vm, VM_START);
	wait_state(t, vm, VM_RUNNING);
	all_down(t);
	assert_int_equal(vm->state, VM_SAVED);
	assert_int_equal(access(path, F_OK), 0);
}

static void wait_gone(pid_t pid)
{
	int64_t deadline = now_s() + WAIT_S;

	while (!kill(pid, 0) && now_s() < deadline)
		usleep(10000);
}

static void test_saved_while_no_service_runs(void **state)
{
	struct test *t = *state;
	struct vm *vm = make(t, "a", "none");
	_cleanup_free_ char *path = state_file(vm);
	pid_t pid;

	act(vm, VM_START);
	wait_state(t, vm, VM_RUNNING);
	pid = worker_pid(vm->worker);
	assert_int_equal(kill(pid, SIGSTOP), 0); /* not too quick */
	act(vm, VM_SAVE);
	for (int i = 0; i < 5; i++)
		loop_once(t->loop, 10);
	assert_int_equal(vm->state, VM_SAVING);
	end(t);
	assert_int_equal(kill(pid, SIGCONT), 0);
	wait_gone(pid);
	assert_int_equal(access(path, F_OK), -1); /* nobody has kept it yet */
	begin(t);
	vm = named(t, "a");
	wait_state(t, vm, VM_SAVED);
	assert_int_equal(access(path, F_OK), 0);
	act(vm, VM_START);
	wait_state(t, vm, VM_RUNNING);
	/* One that is killed at it is as any that is killed. */
	pid = worker_pid(vm->worker);
	assert_int_equal(kill(pid, SIGSTOP), 0);
	act(vm, VM_SAVE);
	kill(pid, SIGKILL);
	wait_state(t, vm, VM_OFF);
	assert_int_equal(access(path, F_OK), -1);
}

static void test_one_that_dies_is_told_of(void **state)
{
	struct test *t = *state;
	struct vm *vm = make(t, "a", "pause");
	pid_t pid;

	act(vm, VM_START);
	wait_state(t, vm, VM_RUNNING);
	kill(worker_pid(vm->worker), SIGKILL);
	wait_state(t, vm, VM_CRITICAL);
	if (!strstr(vm->state_words, "killed"))
		fail_msg("%s", vm->state_words);
	act(vm, VM_START);
	wait_state(t, vm, VM_RUNNING);
	/* The same while no service runs. */
	pid = worker_pid(vm->worker);
	end(t);
	kill(pid, SIGKILL);
	begin(t);
	vm = named(t, "a");
	wait_state(t, vm, VM_CRITICAL);
	act(vm, VM_STOP);
	assert_int_equal(vm->state, VM_OFF);
}

static void test_one_that_dies_is_started_again(void **state)
{
	struct test *t = *state;
	struct vm *vm = make(t, "a", "restart");
	pid_t pid;

	act(vm, VM_START);
	wait_state(t, vm, VM_RUNNING);
	pid = worker_pid(vm->worker);
	kill(pid, SIGSEGV);
	wait_state(t, vm, VM_CRITICAL);
	wait_state(t, vm, VM_RUNNING);
	assert_int_not_equal(worker_pid(vm->worker), pid);
}

static void test_one_that_cannot_start(void **state)
{
	struct test *t = *state;
	struct vm *vm = make(t, "a", "restart");
	json_t *patch = json_pack("{s:{s:s}}", "boot", "kernel", "missing");
	const struct vm_change_options plain = { 0 };
	struct error err = { 0 };
	struct job *job;

	assert_int_equal(vm_change(t->d, &ada, vm, patch, &plain, &job, &err), 0);
	json_decref(patch);
	assert_int_equal(vm_act(t->d, &ada, vm, VM_START, &job, &err), -ENOENT);
	assert_non_null(strstr(err.message, "missing"));
	assert_int_equal(vm->state, VM_OFF);
	/* A file that is none: the worker says so, and it is off. */
	patch = json_pack("{s:{s:s}}", "boot", "kernel", "vm.json");
	assert_int_equal(vm_change(t->d, &ada, vm, patch, &plain, &job, &err), 0);
	json_decref(patch);
	job = act(vm, VM_START);
	wait_state(t, vm, VM_OFF);
	assert_int_equal(job->state, JOB_FAILED);
	assert_true(strlen(job->error.message) > 0);
}

/* --- while it runs --- */

static char *file_make(struct test *t, const char *name)
{
	char *path = NULL;
	int fd;

	assert_true(asprintf(&path, "%s/%s", t->folder, name) > 0);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, 1 << 20), 0);
	close(fd);
	return path;
}

/* The words of ' ' are those of JSON's "; $ is the test's folder. */
static json_t *drives(struct test *t, const char *text)
{
	char json[4096] = "";
	size_t n = 0;

	for (; *text; text++)
		n += (size_t)snprintf(json + n, sizeof(json) - n, *text == '$' ? "%s" : "%.1s",
				      *text == '$'    ? t->folder
				      : *text == '\'' ? "\""
						      : text);
	return json_pack("{s:[{s:o}]}", "scsi_controllers", "drives", json_loads(json, 0, NULL));
}

/* The job that a change goes on as, when that has ended; NULL: it was done at once. */
static struct job *set_drives(struct test *t, struct vm *vm, const char *text, bool force)
{
	const struct vm_change_options o = { .force = force };
	json_t *patch = drives(t, text);
	int64_t deadline = now_s() + WAIT_S;
	struct error err = { 0 };
	struct job *job;

	if (vm_change(t->d, &ada, vm, patch, &o, &job, &err) < 0)
		fail_msg("%s", err.message);
	json_decref(patch);
	while (job && job->state == JOB_RUNNING && now_s() < deadline)
		assert_true(loop_once(t->loop, 1000) >= 0);
	return job;
}

static void set_ok(struct test *t, struct vm *vm, const char *text)
{
	struct job *job = set_drives(t, vm, text, false);

	assert_non_null(job);
	if (job->state != JOB_COMPLETED)
		fail_msg("%s: %s", text, job->error.message);
}

static void set_fails(struct test *t, struct vm *vm, const char *text, const char *words)
{
	struct job *job = set_drives(t, vm, text, false);

	assert_non_null(job);
	assert_int_equal(job->state, JOB_FAILED);
	if (!strstr(job->error.message, words))
		fail_msg("\"%s\" has not \"%s\"", job->error.message, words);
}

struct asked {
	struct worker_request request;
	bool done;
	json_t *answer;
};

static void on_asked(struct worker_request *r, int result, json_t *answer, const struct error *err)
{
	struct asked *a = container_of(r, struct asked, request);

	(void)err;
	assert_int_equal(result, 0);
	a->answer = json_incref(answer);
	a->done = true;
}

/* What the worker has, like "0 a.raw, 3 -, " by LUN and name of the file. */
static void assert_has(struct test *t, struct vm *vm, const char *wanted)
{
	json_t *request = json_pack("{s:s}", "command", "disk-query"), *disk;
	struct asked a = { .request.done = on_asked };
	char has[512] = "";
	size_t i;

	worker_ask(vm->worker, &a.request, request, NULL, 0, 10000);
	json_decref(request);
	while (!a.done)
		assert_true(loop_once(t->loop, 1000) >= 0);
	json_array_foreach(json_object_get(a.answer, "disks"), i, disk)
	{
		const char *file = json_string_value(
			json_object_get(json_array_get(json_object_get(disk, "chain"), 0), "file"));
		size_t n = strlen(has);

		snprintf(has + n, sizeof(has) - n, "%lld %s, ",
			 json_integer_value(json_object_get(disk, "lun")),
			 file ? strrchr(file, '/') + 1 : "-");
	}
	json_decref(a.answer);
	assert_string_equal(has, wanted);
}

static struct vm *make_with_files(struct test *t)
{
	static const char *const names[] = { "a.raw", "b.raw", "c.raw", "a.iso", "b.iso" };
	struct vm *vm = make(t, "a", "none");

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		free(file_make(t, names[i]));
	assert_null(
		set_drives(t, vm, "[{'location': 0, 'path': '$/a.raw', 'format': 'raw'}]", false));
	act(vm, VM_START);
	wait_state(t, vm, VM_RUNNING);
	return vm;
}

static int count_event(void *context, const struct event *event)
{
	(void)event;
	++*(unsigned *)context;
	return 0;
}

#define A "{'location': 0, 'path': '$/a.raw', 'format': 'raw'}"
#define B "{'location': 7, 'path': '$/b.raw', 'format': 'raw'}"

static void test_drives_come_and_go(void **state)
{
	struct test *t = *state;
	struct vm *vm = make_with_files(t);

	set_ok(t, vm, "[" A ", " B ", {'location': 5, 'kind': 'dvd'}]");
	assert_has(t, vm, "0 a.raw, 7 b.raw, 5 -, ");
	assert_int_equal(vm->settings.scsi_controllers[0].drives_count, 3);
	set_ok(t, vm, "[" A ", " B ", {'location': 5, 'kind': 'dvd', 'path': '$/a.iso'}]");
	set_ok(t, vm, "[" B ", {'location': 5, 'kind': 'dvd', 'path': '$/b.iso'}]");
	assert_has(t, vm, "7 b.raw, 5 b.iso, ");
	/* A file that moves, while another takes its place. */
	set_ok(t, vm,
	       "[{'location': 1, 'path': '$/b.raw', 'format': 'raw'}, "
	       "{'location': 7, 'path': '$/a.raw', 'format': 'raw'}]");
	assert_has(t, vm, "1 b.raw, 7 a.raw, ");
	set_ok(t, vm, "[]");
	assert_has(t, vm, "");
	act(vm, VM_STOP);
	wait_state(t, vm, VM_OFF);
	assert_int_equal(vm->settings.scsi_controllers[0].drives_count, 0);
}

static void test_what_fails_is_taken_back(void **state)
{
	struct test *t = *state;
	struct vm *vm = make_with_files(t);
	char text[512];
	int fd;

	/* What cannot come keeps the disk from going. */
	snprintf(text, sizeof(text), "%s/c.raw", t->folder);
	fd = open(text, O_RDWR | O_CLOEXEC);
	assert_int_equal(
		fcntl(fd, F_OFD_SETLK, &(struct flock){ .l_type = F_WRLCK, .l_whence = SEEK_SET }),
		0);
	set_fails(t, vm, "[" B ", {'location': 9, 'path': '$/c.raw', 'format': 'raw'}]",
		  "another process has");
	close(fd);
	assert_has(t, vm, "0 a.raw, ");
	assert_int_equal(vm->settings.scsi_controllers[0].drives_count, 1);
	assert_int_equal(vm->settings.scsi_controllers[0].drives[0].location, 0);
	set_fails(t, vm, "[" A ", {'location': 9, 'path': '$/c.raw', 'format': 'vhdx'}]",
		  "is not a vhdx image");
	/* nor for a moment, to make room for it */
	set_fails(t, vm, "[{'location': 0, 'path': '$/c.raw', 'format': 'vhdx'}]",
		  "is not a vhdx image");
	assert_has(t, vm, "0 a.raw, ");
	/* what only the worker finds */
	snprintf(text, sizeof(text), "%s/empty.raw", t->folder);
	fd = open(text, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	close(fd);
	set_fails(t, vm, "[{'location': 0, 'path': '$/empty.raw', 'format': 'raw'}]",
		  "smaller than one sector");
	assert_has(t, vm, "0 a.raw, ");
	set_fails(t, vm, "[{'location': 0, 'path': '$/a.raw', 'format': 'raw', 'read_only': true}]",
		  "remove it and add it again");
}

/* A worker that is not what the settings say, as after a crash in the middle. */
static void test_next_service_puts_right(void **state)
{
	struct test *t = *state;
	struct vm *vm = make_with_files(t);
	char path[512], old[8192] = "";
	struct error err = { 0 };
	int64_t deadline = now_s() + WAIT_S;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "%s/vm.json", vm->folder);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = read(fd, old, sizeof(old));
	assert_true(n > 0);
	close(fd);
	set_ok(t, vm, "[" B "]");
	end(t);
	fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
	assert_int_equal(write(fd, old, (size_t)n), n);
	close(fd);
	begin(t);
	vm = named(t, "a");
	wait_state(t, vm, VM_RUNNING);
	for (unsigned found = 0; !found && now_s() < deadline;) {
		const struct event_filter f = { .kind = "vm-settled" };

		assert_true(loop_once(t->loop, 100) >= 0);
		if (events_query(t->d->events, &f, count_event, &found, &err) < 0)
			fail_msg("%s", err.message);
	}
	assert_has(t, vm, "0 a.raw, ");
}

static void test_the_end_of_a_change_when_it_stops(void **state)
{
	const struct vm_change_options o = { .force = false };
	struct test *t = *state;
	struct vm *vm = make_with_files(t);
	json_t *patch = drives(t, "[" A ", " B "]");
	struct error err = { 0 };
	struct job *job, *other;

	assert_int_equal(vm_change(t->d, &ada, vm, patch, &o, &job, &err), 0);
	assert_int_equal(vm_change(t->d, &ada, vm, patch, &o, &other, &err), -EBUSY);
	json_decref(patch);
	kill(worker_pid(vm->worker), SIGKILL);
	wait_state(t, vm, VM_OFF);
	assert_int_not_equal(job->state, JOB_RUNNING);
	/* The old or the new. */
	assert_int_equal(vm->settings.scsi_controllers[0].drives_count,
			 job->state == JOB_COMPLETED ? 2 : 1);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(int argc, char **argv)
{
	static const struct CMUnitTest tests[] = {
		TEST(test_a_life),
		TEST(test_the_next_service_takes_over),
		TEST(test_saved_and_restored),
		TEST(test_saved_while_no_service_runs),
		TEST(test_one_that_dies_is_told_of),
		TEST(test_one_that_dies_is_started_again),
		TEST(test_one_that_cannot_start),
		TEST(test_drives_come_and_go),
		TEST(test_what_fails_is_taken_back),
		TEST(test_next_service_puts_right),
		TEST(test_the_end_of_a_change_when_it_stops),
	};

	if (argc != 3)
		return 2;
	worker_program = argv[1];
	keeper_program = argv[2];
	return cmocka_run_group_tests(tests, NULL, NULL);
}
