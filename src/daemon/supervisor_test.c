// SPDX-License-Identifier: MIT
/*
 * Real workers on engine fake, and programs that behave worse than a worker does: started, asked,
 * ended in every way, and found again by a later supervisor.
 */
#include "daemon/supervisor.h"

#include "daemon/supervisor_internal.h"
#include "daemon/testing.h"
#include "lib/cleanup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/pidfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>

#include <cmocka.h>

#define ID      "0b0e7c9c-1f3a-4b64-9d55-000000000001"
#define WAIT_MS 20000

static const char *worker_program, *keeper_program, *vhd_program;

struct fixture {
	struct loop *loop;
	struct supervisor *s;
	char folder[64], run[80], kernel[80], script[80];
	json_t *description;
};

/* One machine, as whoever is told of it sees it. */
struct seen {
	struct worker *w;
	char state[32], history[256];
	bool ended;
	enum worker_end end;
	char words[512];
};

static void on_state(void *context, struct worker *w, const char *state)
{
	struct seen *v = context;

	(void)w;
	snprintf(v->state, sizeof(v->state), "%s", state);
	strncat(v->history, state, sizeof(v->history) - strlen(v->history) - 2);
	strcat(v->history, " ");
}

static void on_ended(void *context, struct worker *w, enum worker_end end, const char *words)
{
	struct seen *v = context;

	(void)w;
	assert_false(v->ended);
	v->w = NULL;
	v->ended = true;
	v->end = end;
	snprintf(v->words, sizeof(v->words), "%s", words);
}

static const struct worker_events events = { .state = on_state, .ended = on_ended };

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

#define until(f, condition)                                                                        \
	do {                                                                                       \
		int64_t end_ = now_ms() + WAIT_MS;                                                 \
		while (!(condition)) {                                                             \
			if (now_ms() > end_)                                                       \
				fail_msg("not within %d ms: %s", WAIT_MS, #condition);             \
			loop_once((f)->loop, 20);                                                  \
		}                                                                                  \
	} while (0)

static struct supervisor *supervise(struct fixture *f, const char *program)
{
	const struct supervisor_options o = { .run_folder = f->run,
					      .worker = program ? program : worker_program,
					      .keeper = keeper_program };
	struct error err = { 0 };
	struct supervisor *s = NULL;

	if (supervisor_new(f->loop, &o, &s, &err) < 0)
		fail_msg("%s", err.message);
	return s;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct error err = { 0 };

	assert_non_null(f);
	*state = f;
	strcpy(f->folder, "/tmp/supervisor-test-XXXXXX");
	assert_non_null(mkdtemp(f->folder));
	snprintf(f->run, sizeof(f->run), "%s/run", f->folder);
	snprintf(f->kernel, sizeof(f->kernel), "%s/kernel", f->folder);
	snprintf(f->script, sizeof(f->script), "%s/script", f->folder);
	assert_int_equal(testing_kernel_write(f->kernel), 0);
	assert_int_equal(loop_new(0, &f->loop, &err), 0);
	f->s = supervise(f, NULL);
	f->description = json_pack("{s:s,s:s,s:i,s:{s:{s:s}}}", "name", "test", "engine", "fake",
				   "memory", 32, "boot", "kernel", "path", "kernel");
	return 0;
}

static void end_process(int folder, pid_t pid, uint64_t start)
{
	_cleanup_close_ int fd = worker_process_open(folder, pid, start);

	if (fd >= 0)
		pidfd_send_signal(fd, SIGKILL, NULL, 0);
}

/* A test that failed must not leave its machines running. */
static void end_left(struct fixture *f)
{
	DIR *dir = opendir(f->run);
	struct dirent *entry;

	while (dir && (entry = readdir(dir))) {
		_cleanup_close_ int folder =
			openat(dirfd(dir), entry->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		struct worker_record r;

		if (*entry->d_name == '.' || folder < 0 || worker_record_read(folder, &r, NULL) < 0)
			continue;
		end_process(folder, r.worker, r.worker_start);
		end_process(folder, r.keeper, r.keeper_start);
	}
	if (dir)
		closedir(dir);
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	supervisor_free(f->s);
	loop_free(f->loop);
	json_decref(f->description);
	end_left(f);
	testing_folder_remove(f->folder);
	free(f);
	return 0;
}

/* A worker's stand-in: its text is a shell script's. */
static void use_script(struct fixture *f, const char *text)
{
	FILE *script = fopen(f->script, "we");

	assert_non_null(script);
	fprintf(script, "#!/bin/sh\n%s\n", text);
	fchmod(fileno(script), 0755);
	fclose(script);
	supervisor_free(f->s);
	f->s = supervise(f, f->script);
}

static int try_start(struct fixture *f, struct seen *v, const char *id, struct error *err)
{
	const struct worker_start start = { .id = id,
					    .name = "test",
					    .description = f->description,
					    .folder = f->folder,
					    .events = &events,
					    .context = v };

	*v = (struct seen){ 0 };
	return worker_start(f->s, &start, &v->w, err);
}

static void start(struct fixture *f, struct seen *v)
{
	struct error err = { 0 };

	if (try_start(f, v, ID, &err) < 0)
		fail_msg("%s", err.message);
}

static void start_running(struct fixture *f, struct seen *v)
{
	start(f, v);
	until(f, v->ended || !strcmp(v->state, "running"));
	if (v->ended)
		fail_msg("%s", v->words);
}

static int adopt(struct fixture *f, struct seen *v, struct error *err)
{
	*v = (struct seen){ 0 };
	return worker_adopt(f->s, ID, &events, v, &v->w, &v->end, err);
}

/* The service dies and comes back. */
static void restart(struct fixture *f)
{
	supervisor_free(f->s);
	f->s = supervise(f, NULL);
}

static const char *run_path(struct fixture *f, const char *name)
{
	static char path[160];

	snprintf(path, sizeof(path), "%s/%s%s%s", f->run, ID, *name ? "/" : "", name);
	return path;
}

static void put(struct fixture *f, const char *name, const char *text)
{
	FILE *file = fopen(run_path(f, name), "we");

	assert_non_null(file);
	fputs(text, file);
	fclose(file);
}

static pid_t record_pid(struct fixture *f, const char *key)
{
	json_error_t error;
	json_t *o = json_load_file(run_path(f, "worker.json"), 0, &error);
	pid_t pid = (pid_t)json_integer_value(json_object_get(o, key));

	json_decref(o);
	assert_true(pid > 1);
	return pid;
}

/* --- asking --- */

struct asked {
	struct worker_request request;
	int count, result;
	char words[512], state[32];
};

static void on_answer(struct worker_request *r, int result, json_t *answer, const struct error *err)
{
	struct asked *a = container_of(r, struct asked, request);
	const char *state = json_string_value(json_object_get(answer, "state"));

	a->count++;
	a->result = result;
	snprintf(a->words, sizeof(a->words), "%s", err ? err->message : "");
	snprintf(a->state, sizeof(a->state), "%s", state ? state : "");
}

static void ask(struct worker *w, struct asked *a, const char *command, unsigned timeout_ms)
{
	json_t *o = json_pack("{s:s}", "command", command);

	*a = (struct asked){ .request.done = on_answer };
	worker_ask(w, &a->request, o, NULL, 0, timeout_ms);
	json_decref(o);
	assert_int_equal(a->count, 0);
}

static void command(struct fixture *f, struct seen *v, const char *name)
{
	struct asked a;

	ask(v->w, &a, name, WAIT_MS);
	until(f, a.count);
	if (a.result < 0)
		fail_msg("%s: %s", name, a.words);
}

static void power_off(struct fixture *f, struct seen *v)
{
	command(f, v, "power-off");
	until(f, v->ended);
	if (v->end != WORKER_END_OFF)
		fail_msg("%s: %s", worker_end_name(v->end), v->words);
	assert_int_equal(access(run_path(f, ""), F_OK), -1);
}

static void test_a_machine_runs_pauses_resets_and_ends(void **state)
{
	struct fixture *f = *state;
	struct worker_usage u;
	struct seen v;
	struct asked a;

	start_running(f, &v);
	assert_true(worker_pid(v.w) > 1);
	assert_int_equal(worker_usage_get(v.w, &u), 0);
	assert_in_range(u.memory, 1, 256 * MIB);
	command(f, &v, "pause");
	until(f, !strcmp(v.state, "paused"));
	ask(v.w, &a, "pause", WAIT_MS);
	until(f, a.count);
	assert_int_equal(a.result, -EINVAL);
	assert_non_null(strstr(a.words, "paused"));
	command(f, &v, "resume");
	until(f, !strcmp(v.state, "running"));
	command(f, &v, "reset");
	until(f, strstr(v.history, "resetting running"));
	power_off(f, &v);
}

static void test_requests_end_once_whatever_becomes_of_the_worker(void **state)
{
	struct fixture *f = *state;
	struct asked a, b, cancelled;
	struct seen v;

	use_script(f, "exec sleep 1000");
	start(f, &v);
	ask(v.w, &a, "query", 100);
	ask(v.w, &b, "query", WAIT_MS);
	ask(v.w, &cancelled, "query", 100);
	worker_ask_cancel(&cancelled.request);
	until(f, a.count);
	assert_int_equal(a.result, -ETIMEDOUT);
	worker_kill(v.w);
	until(f, v.ended);
	assert_int_equal(v.end, WORKER_END_CRASH);
	assert_non_null(strstr(v.words, "by the service"));
	assert_int_equal(b.count, 1);
	assert_int_equal(b.result, -EPIPE);
	assert_int_equal(cancelled.count, 0);
}

static void test_a_request_that_is_too_large_is_refused(void **state)
{
	struct fixture *f = *state;
	static char text[20000];
	struct asked a = { .request.done = on_answer };
	struct seen v;
	json_t *o;

	start_running(f, &v);
	memset(text, 'x', sizeof(text) - 1);
	o = json_pack("{s:s}", "command", text);
	worker_ask(v.w, &a.request, o, NULL, 0, WAIT_MS);
	json_decref(o);
	assert_int_equal(a.count, 0);
	until(f, a.count);
	assert_int_equal(a.result, -EMSGSIZE);
	power_off(f, &v);
}

/* Descriptors go with the request, and are ours no more. */
static void test_descriptors_go_along(void **state)
{
	struct fixture *f = *state;
	struct asked a[3];
	struct seen v;
	json_t *o;
	int fd;

	start_running(f, &v);
	for (int i = 0; i < 3; i++) {
		fd = open("/dev/null", O_RDWR | O_CLOEXEC);
		o = json_pack("{s:s,s:{s:i,s:i},s:s,s:i}", "command", "disk-track", "disk",
			      "controller", 0, "lun", 0, "action", "on", "descriptor", 0);
		a[i] = (struct asked){ .request.done = on_answer };
		worker_ask(v.w, &a[i].request, o, &fd, 1, WAIT_MS);
		json_decref(o);
	}
	until(f, a[0].count && a[1].count && a[2].count);
	/* There is no such disk; that the answers come is what counts. */
	assert_int_equal(a[2].result, -EINVAL);
	assert_true(*a[2].words);
	loop_once(f->loop, 0);
	assert_int_equal(fcntl(fd, F_GETFD), -1);
	power_off(f, &v);
}

/* --- ends --- */

static void test_a_killed_worker_is_noticed(void **state)
{
	struct fixture *f = *state;
	static const struct {
		int signal;
		enum worker_end end;
		const char *word;
	} rows[] = { { SIGKILL, WORKER_END_CRASH, "signal 9" },
		     { SIGABRT, WORKER_END_CRASH, "signal 6" },
		     { SIGSYS, WORKER_END_DENIED, "system call" },
		     { SIGTERM, WORKER_END_OFF, "off" } };
	struct seen v;

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		start_running(f, &v);
		kill(worker_pid(v.w), rows[i].signal);
		until(f, v.ended);
		assert_string_equal(worker_end_name(v.end), worker_end_name(rows[i].end));
		assert_non_null(strstr(v.words, rows[i].word));
	}
}

static void test_what_a_worker_said_last_is_told(void **state)
{
	struct fixture *f = *state;
	struct seen v;

	use_script(f, "echo first >&2\necho 'partita-worker vm=\"a\": no \344 luck' >&2\nexit 1");
	start(f, &v);
	until(f, v.ended);
	assert_int_equal(v.end, WORKER_END_ERROR);
	assert_string_equal(v.words, "no ? luck");
	use_script(f, "exit 3");
	start(f, &v);
	until(f, v.ended);
	assert_int_equal(v.end, WORKER_END_RESET);
}

/* More than the log may have, and lines that never end. */
static void test_a_worker_that_says_much_fills_no_disk(void **state)
{
	struct fixture *f = *state;
	struct stat st;
	struct seen v;

	use_script(f, "head -c 5000000 /dev/zero >&2\necho the end >&2\nread line <&5\nexec sleep "
		      "1000");
	start(f, &v);
	until(f, !stat(run_path(f, "log.1"), &st));
	until(f, worker_pid(v.w) || worker_recognise(v.w));
	for (int i = 0; i < 20; i++)
		loop_once(f->loop, 20);
	assert_int_equal(stat(run_path(f, "log"), &st), 0);
	assert_in_range(st.st_size, 0, 1024 * 1024);
	assert_int_equal(stat(run_path(f, "log.1"), &st), 0);
	assert_in_range(st.st_size, 1, 1024 * 1024);
	worker_kill(v.w);
	until(f, v.ended);
}

static void test_a_program_that_cannot_run_is_told(void **state)
{
	struct fixture *f = *state;
	struct error err = { 0 };
	struct seen v;

	use_script(f, "exit 0");
	chmod(f->script, 0644);
	assert_int_equal(try_start(f, &v, ID, &err), -EACCES);
	assert_int_equal(access(run_path(f, ""), F_OK), -1);
	/* It can be executed, but not run: only the keeper finds that out. */
	assert_int_equal(truncate(f->script, 0), 0);
	chmod(f->script, 0755);
	start(f, &v);
	until(f, v.ended);
	assert_int_equal(v.end, WORKER_END_ERROR);
	assert_non_null(strstr(v.words, "cannot run"));
}

static void test_what_is_wrong_at_once_is_an_error(void **state)
{
	struct fixture *f = *state;
	struct error err = { 0 };
	struct seen v;
	json_t *boot;

	assert_int_equal(try_start(f, &v, "../evil", &err), -EINVAL);
	assert_int_equal(try_start(f, &v, "", &err), -EINVAL);
	boot = json_object_get(f->description, "boot");
	json_object_set_new(boot, "kernel", json_pack("{s:s}", "path", "gone"));
	assert_int_equal(try_start(f, &v, ID, &err), -ENOENT);
	assert_non_null(strstr(err.message, "boot.kernel"));
	json_object_set_new(boot, "kernel", json_pack("{s:s}", "path", "."));
	assert_int_equal(try_start(f, &v, ID, &err), -EINVAL);
	json_object_set_new(boot, "kernel", json_pack("{s:i}", "descriptor", 7));
	assert_int_equal(try_start(f, &v, ID, &err), -EINVAL);
	assert_int_equal(access(run_path(f, ""), F_OK), -1);
}

static void test_an_image_in_use_is_told_at_once(void **state)
{
	struct fixture *f = *state;
	struct flock lock = { .l_type = F_WRLCK };
	struct error err = { 0 };
	struct seen v;
	char path[100];
	int fd;

	snprintf(path, sizeof(path), "%s/disk.img", f->folder);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_int_equal(ftruncate(fd, MIB), 0);
	json_object_set_new(f->description, "scsi",
			    json_pack("[{s:[{s:i,s:s,s:{s:s}}]}]", "drives", "lun", 0, "format",
				      "raw", "file", "path", path));
	assert_int_equal(fcntl(fd, F_OFD_SETLK, &lock), 0);
	assert_int_equal(try_start(f, &v, ID, &err), -EBUSY);
	assert_non_null(strstr(err.message, "scsi[0].drives[0]"));
	close(fd);
	start_running(f, &v);
	/* The worker has it by the descriptor that was passed, and its lock. */
	fd = open(path, O_RDWR | O_CLOEXEC);
	assert_int_equal(fcntl(fd, F_OFD_SETLK, &lock), -1);
	close(fd);
	power_off(f, &v);
}

static void test_a_second_start_is_refused(void **state)
{
	struct fixture *f = *state;
	struct error err = { 0 };
	struct seen v, again;

	start_running(f, &v);
	assert_int_equal(try_start(f, &again, ID, &err), -EEXIST);
	restart(f);
	assert_int_equal(try_start(f, &again, ID, &err), -EEXIST);
	assert_int_equal(adopt(f, &v, &err), 0);
	until(f, !strcmp(v.state, "running"));
	power_off(f, &v);
	start_running(f, &v);
	power_off(f, &v);
}

static void test_a_run_folder_that_cannot_be_used_is_told(void **state)
{
	struct fixture *f = *state;
	struct supervisor_options o = { .worker = worker_program, .keeper = keeper_program };
	struct error err = { 0 };
	struct supervisor *s;
	struct seen v;
	char path[300];

	o.run_folder = f->kernel; /* a file */
	assert_true(supervisor_new(f->loop, &o, &s, &err) < 0);
	snprintf(path, sizeof(path), "%s/%0120d", f->folder, 1);
	o.run_folder = path;
	supervisor_free(f->s);
	assert_int_equal(supervisor_new(f->loop, &o, &f->s, &err), 0);
	assert_int_equal(try_start(f, &v, ID, &err), -ENAMETOOLONG);
	assert_non_null(strstr(err.message, "shorter run folder"));
	assert_int_equal(chmod(path, 0777), 0);
	assert_int_equal(supervisor_new(f->loop, &o, &s, &err), -EPERM);
	supervisor_free(f->s);
	f->s = NULL;
}

/* As a user who may not write there; root may everywhere. */
static void test_a_read_only_run_folder_is_told(void **state)
{
	struct fixture *f = *state;
	struct error err = { 0 };
	struct seen v;
	int status;
	pid_t pid;

	chmod(f->folder, 0755);
	chmod(f->run, 0555);
	pid = fork();
	if (!pid) {
		if (!geteuid() && setresuid(65534, 65534, 65534) < 0)
			_exit(2);
		_exit(try_start(f, &v, ID, &err) == -EACCES && *err.message ? 0 : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	chmod(f->run, 0700);
}

/* --- coming back --- */

static void test_a_later_supervisor_adopts(void **state)
{
	struct fixture *f = *state;
	struct error err = { 0 };
	struct seen v;
	pid_t pid;

	start_running(f, &v);
	pid = worker_pid(v.w);
	restart(f);
	assert_int_equal(adopt(f, &v, &err), 0);
	until(f, !strcmp(v.state, "running"));
	assert_int_equal(worker_pid(v.w), pid);
	command(f, &v, "pause");
	until(f, !strcmp(v.state, "paused"));
	restart(f);
	assert_int_equal(adopt(f, &v, &err), 0);
	until(f, !strcmp(v.state, "paused"));
	worker_kill(v.w);
	until(f, v.ended);
	assert_int_equal(v.end, WORKER_END_CRASH);
	assert_int_equal(adopt(f, &v, &err), -ENOENT);
}

/* Straight after its start, when nothing is written down yet. */
static void test_one_just_started_is_adopted(void **state)
{
	struct fixture *f = *state;
	struct error err = { 0 };
	struct seen v;

	for (int i = 0; i < 10; i++) {
		start(f, &v);
		restart(f);
		assert_int_equal(adopt(f, &v, &err), 0);
		until(f, !strcmp(v.state, "running"));
		power_off(f, &v);
	}
}

static void count_found(void *context, const char *id)
{
	if (strcmp(id, ID))
		fail_msg("\"%s\" is none of ours", id);
	++*(int *)context;
}

static void test_what_is_there_is_found(void **state)
{
	struct fixture *f = *state;
	struct error err = { 0 };
	struct seen v;
	char path[160];
	int count = 0;

	assert_int_equal(supervisor_found(f->s, count_found, &count, &err), 0);
	assert_int_equal(count, 0);
	start_running(f, &v);
	snprintf(path, sizeof(path), "%s/.hidden", f->run);
	assert_int_equal(mkdir(path, 0700), 0);
	snprintf(path, sizeof(path), "%s/file", f->run);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(supervisor_found(f->s, count_found, &count, &err), 0);
	assert_int_equal(count, 1);
	power_off(f, &v);
}

static void wait_for_end(struct fixture *f)
{
	for (int i = 0; i < 1000; i++) {
		int fd = open(run_path(f, ""), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		bool used = worker_folder_in_use(fd);

		close(fd);
		if (!used)
			return;
		usleep(10000);
	}
	fail_msg("it still runs");
}

static void test_an_end_in_between_is_told(void **state)
{
	struct fixture *f = *state;
	struct error err = { 0 };
	struct seen v;

	start_running(f, &v);
	supervisor_free(f->s);
	kill(record_pid(f, "worker"), SIGABRT);
	wait_for_end(f);
	f->s = supervise(f, NULL);
	assert_int_equal(adopt(f, &v, &err), -ECHILD);
	assert_int_equal(v.end, WORKER_END_CRASH);
	assert_non_null(strstr(err.message, "signal 6"));
	assert_int_equal(access(run_path(f, ""), F_OK), -1);
	assert_int_equal(adopt(f, &v, &err), -ENOENT);
}

static void test_a_worker_outlives_its_keeper(void **state)
{
	struct fixture *f = *state;
	struct error err = { 0 };
	struct seen v;

	start_running(f, &v);
	kill(record_pid(f, "keeper"), SIGKILL);
	for (int i = 0; i < 10; i++)
		loop_once(f->loop, 20);
	assert_false(v.ended);
	command(f, &v, "pause");
	restart(f);
	assert_int_equal(try_start(f, &v, ID, &err), -EEXIST);
	assert_int_equal(adopt(f, &v, &err), 0);
	until(f, !strcmp(v.state, "paused"));
	power_off(f, &v);
	start_running(f, &v);
	kill(record_pid(f, "keeper"), SIGKILL);
	for (int i = 0; i < 10; i++)
		loop_once(f->loop, 20);
	kill(worker_pid(v.w), SIGKILL);
	until(f, v.ended);
	assert_int_equal(v.end, WORKER_END_LOST);
}

static void test_both_killed_is_lost(void **state)
{
	struct fixture *f = *state;
	struct error err = { 0 };
	struct seen v;

	start_running(f, &v);
	kill(record_pid(f, "keeper"), SIGKILL);
	kill(worker_pid(v.w), SIGKILL);
	until(f, v.ended);
	assert_int_equal(v.end, WORKER_END_LOST);
	start_running(f, &v);
	supervisor_free(f->s);
	kill(record_pid(f, "keeper"), SIGKILL);
	kill(record_pid(f, "worker"), SIGKILL);
	wait_for_end(f);
	f->s = supervise(f, NULL);
	assert_int_equal(adopt(f, &v, &err), -ECHILD);
	assert_int_equal(v.end, WORKER_END_LOST);
}

/* Another process with that number, another start of the host, and files that nobody wrote. */
static void test_records_are_not_believed(void **state)
{
	struct fixture *f = *state;
	static const char *const records[] = {
		"",
		"{",
		"[]",
		"null",
		"{}",
		"{\"keeper\":1,\"worker\":1}",
		"{\"keeper\":1,\"worker\":1,\"keeper_start\":1,\"worker_start\":1,\"boot\":\"x\"}",
		"{\"keeper\":-1,\"worker\":-1,\"keeper_start\":1,\"worker_start\":1,\"boot\":\"\"}",
		"{\"keeper\":99999999999999999999,\"worker\":{}}",
		"\xff\xfe",
	};
	static const char *const ends[] = { "", "{}", "[1]", "{\"status\":\"0\"}",
					    "{\"status\":0,\"status\":1}" };
	struct error err = { 0 };
	struct seen v;

	for (size_t i = 0; i < ARRAY_SIZE(records) * ARRAY_SIZE(ends); i++) {
		assert_int_equal(mkdir(run_path(f, ""), 0700), 0);
		put(f, "worker.json", records[i / ARRAY_SIZE(ends)]);
		put(f, "end.json", ends[i % ARRAY_SIZE(ends)]);
		assert_int_equal(adopt(f, &v, &err), -ECHILD);
		assert_int_equal(v.end, WORKER_END_LOST);
		assert_true(strlen(err.message) > 10);
		assert_int_equal(access(run_path(f, ""), F_OK), -1);
	}
	/* A pipe in place of a file must not hold us. */
	assert_int_equal(mkdir(run_path(f, ""), 0700), 0);
	assert_int_equal(mkfifo(run_path(f, "end.json"), 0600), 0);
	assert_int_equal(mkfifo(run_path(f, "lock"), 0600), 0);
	assert_int_equal(adopt(f, &v, &err), -ECHILD);
}

static void test_another_process_with_that_number_is_not_ours(void **state)
{
	struct fixture *f = *state;
	struct error err = { 0 };
	struct seen v;
	char boot[64], text[300];
	FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");

	assert_non_null(fgets(boot, sizeof(boot), file));
	fclose(file);
	boot[36] = 0;
	for (int other = 0; other < 2; other++) {
		boot[0] = other ? 'z' : boot[0];
		snprintf(text, sizeof(text),
			 "{\"keeper\":1,\"keeper_start\":5,\"worker\":%d,\"worker_start\":5,"
			 "\"boot\":\"%s\"}",
			 getpid(), boot);
		assert_int_equal(mkdir(run_path(f, ""), 0700), 0);
		put(f, "worker.json", text);
		assert_int_equal(adopt(f, &v, &err), -ECHILD);
		assert_int_equal(v.end, WORKER_END_LOST);
		assert_non_null(strstr(err.message, other ? "restarted" : "keeper"));
	}
}

/* Somebody has spoiled the record of a machine that runs: its end is noticed all the same. */
static void test_a_spoilt_record_of_a_living_worker(void **state)
{
	struct fixture *f = *state;
	struct error err = { 0 };
	struct seen v;

	start_running(f, &v);
	supervisor_free(f->s);
	put(f, "worker.json", "{garbage");
	f->s = supervise(f, NULL);
	assert_int_equal(adopt(f, &v, &err), 0);
	until(f, !strcmp(v.state, "running"));
	assert_int_equal(worker_pid(v.w), 0);
	power_off(f, &v);
}

/* --- what a worker says --- */

/* A worker that answers nothing but noise: garbage, wrong types, events, then a line without end.
 */
static void test_a_worker_that_talks_nonsense(void **state)
{
	struct fixture *f = *state;
	struct seen v;
	struct asked a;

	use_script(f,
		   "exec python3 -c '\n"
		   "import socket, time\n"
		   "l = socket.socket(fileno=6)\n"
		   "l.setblocking(True)\n"
		   "for i in range(3):\n"
		   "    s = l.accept()[0]\n"
		   "    try:\n"
		   "        "
		   "s.sendall(b\"\\xff\\n[]\\n{}\\nnull\\n{\\\"id\\\":77}\\n{\\\"id\\\":[],"
		   "\\\"ok\\\":1}"
		   "\\n{\\\"event\\\":\\\"state\\\",\\\"state\\\":5}\\n"
		   "{\\\"event\\\":\\\"state\\\",\\\"state\\\":\\\"\" + b\"x\" * 100 + b\"\\\"}\\n"
		   "{\\\"event\\\":\\\"state\\\",\\\"state\\\":\\\"running\\\"}\\n\")\n"
		   "        s.sendall(b\"[\" * 1000000)\n"
		   "    except OSError: pass\n"
		   "time.sleep(1)\n"
		   "'");
	start(f, &v);
	ask(v.w, &a, "query", 300);
	until(f, a.count);
	assert_int_equal(a.result, -ETIMEDOUT);
	until(f, v.ended);
	assert_string_equal(v.history, "running ");
	assert_int_equal(v.end, WORKER_END_OFF);
}

/* --- many --- */

#define MANY 100

static void test_a_hundred_at_once(void **state)
{
	struct fixture *f = *state;
	static struct seen v[MANY];
	struct asked a;
	char id[64];

	for (int i = 0; i < MANY; i++) {
		struct error err = { 0 };

		snprintf(id, sizeof(id), "0b0e7c9c-1f3a-4b64-9d55-%012d", i);
		if (try_start(f, &v[i], id, &err) < 0)
			fail_msg("%s", err.message);
	}
	for (int i = 0; i < MANY; i++)
		until(f, !strcmp(v[i].state, "running"));
	for (int i = 0; i < MANY; i++) {
		if (i % 2) {
			worker_kill(v[i].w);
			continue;
		}
		ask(v[i].w, &a, "power-off", WAIT_MS);
		until(f, a.count);
		assert_int_equal(a.result, 0);
	}
	for (int i = 0; i < MANY; i++) {
		until(f, v[i].ended);
		assert_int_equal(v[i].end, i % 2 ? WORKER_END_CRASH : WORKER_END_OFF);
	}
}

/* --- isolation --- */

static void test_a_worker_gets_a_user_of_its_own(void **state)
{
	struct fixture *f = *state;
	struct supervisor_options o = { .worker = worker_program,
					.keeper = keeper_program,
					.first_uid = 64100,
					.uid_count = 1 };
	struct error err = { 0 };
	struct seen v, second;
	struct stat st;
	char path[64], mine[64] = "", its[64] = "";
	ssize_t n;

	if (geteuid())
		skip();
	supervisor_free(f->s);
	o.run_folder = f->run;
	assert_int_equal(supervisor_new(f->loop, &o, &f->s, &err), 0);
	chmod(f->kernel, 0600); /* it gets an open descriptor, and needs no rights */
	start_running(f, &v);
	snprintf(path, sizeof(path), "/proc/%d", worker_pid(v.w));
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_uid, 64100);
	strcat(path, "/ns/net");
	n = readlink(path, its, sizeof(its) - 1);
	assert_true(n > 0);
	n = readlink("/proc/self/ns/net", mine, sizeof(mine) - 1);
	assert_true(n > 0);
	if (!supervisor_notes(f->s) || !strstr(supervisor_notes(f->s), "namespaces"))
		assert_string_not_equal(mine, its);
	/* There is no second user. */
	assert_int_equal(try_start(f, &second, "other", &err), -EUSERS);
	supervisor_free(f->s);
	assert_int_equal(supervisor_new(f->loop, &o, &f->s, &err), 0);
	assert_int_equal(adopt(f, &v, &err), 0);
	until(f, !strcmp(v.state, "running"));
	assert_true(worker_pid(v.w) > 0);
	power_off(f, &v);
}

static void vhd(struct fixture *f, const char *arguments)
{
	char line[400];

	snprintf(line, sizeof(line), "cd %s && %s %s >/dev/null", f->folder, vhd_program,
		 arguments);
	assert_int_equal(system(line), 0);
}

/* The child is passed; the worker finds its parent beside it, as its own user. */
static void test_a_differencing_image_finds_its_parent(void **state)
{
	struct fixture *f = *state;
	struct supervisor_options o = { .worker = worker_program,
					.keeper = keeper_program,
					.first_uid = geteuid() ? 0 : 64200,
					.uid_count = 8 };
	struct error err = { 0 };
	struct seen v;

	supervisor_free(f->s);
	o.run_folder = f->run;
	assert_int_equal(supervisor_new(f->loop, &o, &f->s, &err), 0);
	vhd(f, "create base.vhdx --size 16M");
	vhd(f, "create child.vhdx --parent base.vhdx");
	vhd(f, "create grandchild.vhdx --parent child.vhdx");
	chmod(f->folder, 0750);
	for (const char *const *name =
		     (const char *const[]){ "base.vhdx", "child.vhdx", "grandchild.vhdx", NULL };
	     *name; name++) {
		char path[100];

		snprintf(path, sizeof(path), "%s/%s", f->folder, *name);
		chmod(path, 0640);
	}
	json_object_set_new(f->description, "scsi",
			    json_pack("[{s:[{s:i,s:{s:s}}]}]", "drives", "lun", 0, "file", "path",
				      "grandchild.vhdx"));
	start_running(f, &v);
	power_off(f, &v);
}

static void test_only_what_was_passed_is_open_in_a_worker(void **state)
{
	struct fixture *f = *state;
	struct seen v;
	int spare = open("/dev/null", O_RDONLY); /* a leak of somebody else's */

	use_script(f, "for i in 3 4 5 6 7 8 9 11 12 13 14 15 16 17; do\n"
		      "[ ! -e /proc/$$/fd/$i ] || echo -n $i. >&2\n"
		      "done\nexit 1");
	start(f, &v);
	until(f, v.ended);
	/* Description, control, sockets, console, kernel. */
	assert_string_equal(v.words, "5.6.7.8.9.");
	close(spare);
}

/* --- the console --- */

static int console_connect(struct worker *w)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	strncpy(address.sun_path, worker_console_path(w), sizeof(address.sun_path) - 1);
	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

static void test_the_console_takes_several(void **state)
{
	struct fixture *f = *state;
	struct seen v;
	int a, b;
	char c;

	start_running(f, &v);
	a = console_connect(v.w);
	b = console_connect(v.w);
	command(f, &v, "query");
	assert_int_equal(recv(a, &c, 1, MSG_DONTWAIT), -1);
	assert_int_equal(errno, EAGAIN);
	assert_int_equal(recv(b, &c, 1, MSG_DONTWAIT), -1);
	assert_int_equal(errno, EAGAIN);
	power_off(f, &v);
	assert_int_equal(recv(a, &c, 1, 0), 0);
	close(a);
	close(b);
}

/* --- groups --- */

/* Where this may make groups; the kernel's own files then. */
static const char *cgroup_make(char path[static 80])
{
	static const char *const places[] = { "/sys/fs/cgroup", "/sys/fs/cgroup/unified" };

	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		char procs[120];

		snprintf(path, 80, "%s/supervisor-test-%d", places[i], getpid());
		snprintf(procs, sizeof(procs), "%s/cgroup.events", path);
		if (mkdir(path, 0755) < 0)
			continue;
		if (!access(procs, R_OK))
			return path;
		rmdir(path);
	}
	return NULL;
}

static void test_a_worker_is_in_a_group_of_its_own(void **state)
{
	struct fixture *f = *state;
	struct supervisor_options o = { .worker = worker_program, .keeper = keeper_program };
	char path[80], group[160], file[64], text[400] = "";
	struct error err = { 0 };
	struct seen v;
	int fd;

	o.cgroup = cgroup_make(path);
	if (!o.cgroup)
		skip();
	supervisor_free(f->s);
	o.run_folder = f->run;
	assert_int_equal(supervisor_new(f->loop, &o, &f->s, &err), 0);
	start_running(f, &v);
	snprintf(file, sizeof(file), "/proc/%d/cgroup", worker_pid(v.w));
	fd = open(file, O_RDONLY | O_CLOEXEC);
	assert_true(read(fd, text, sizeof(text) - 1) > 0);
	close(fd);
	snprintf(group, sizeof(group), "/supervisor-test-%d/%s\n", getpid(), ID);
	assert_non_null(strstr(text, group));
	power_off(f, &v);
	snprintf(group, sizeof(group), "%s/%s", path, ID);
	assert_int_equal(access(group, F_OK), -1);

	assert_int_equal(rmdir(path), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		TEST(test_a_machine_runs_pauses_resets_and_ends),
		TEST(test_requests_end_once_whatever_becomes_of_the_worker),
		TEST(test_a_request_that_is_too_large_is_refused),
		TEST(test_descriptors_go_along),
		TEST(test_a_killed_worker_is_noticed),
		TEST(test_what_a_worker_said_last_is_told),
		TEST(test_a_worker_that_says_much_fills_no_disk),
		TEST(test_a_program_that_cannot_run_is_told),
		TEST(test_what_is_wrong_at_once_is_an_error),
		TEST(test_an_image_in_use_is_told_at_once),
		TEST(test_a_second_start_is_refused),
		TEST(test_a_run_folder_that_cannot_be_used_is_told),
		TEST(test_a_read_only_run_folder_is_told),
		TEST(test_a_later_supervisor_adopts),
		TEST(test_what_is_there_is_found),
		TEST(test_one_just_started_is_adopted),
		TEST(test_an_end_in_between_is_told),
		TEST(test_a_worker_outlives_its_keeper),
		TEST(test_both_killed_is_lost),
		TEST(test_records_are_not_believed),
		TEST(test_another_process_with_that_number_is_not_ours),
		TEST(test_a_spoilt_record_of_a_living_worker),
		TEST(test_a_worker_that_talks_nonsense),
		TEST(test_a_hundred_at_once),
		TEST(test_a_worker_gets_a_user_of_its_own),
		TEST(test_a_differencing_image_finds_its_parent),
		TEST(test_only_what_was_passed_is_open_in_a_worker),
		TEST(test_the_console_takes_several),
		TEST(test_a_worker_is_in_a_group_of_its_own),
	};

	if (argc != 4)
		return 2;
	worker_program = argv[1];
	keeper_program = argv[2];
	vhd_program = realpath(argv[3], NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
