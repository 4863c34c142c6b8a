// SPDX-License-Identifier: MIT
/*
 * A supervisor without rights, and partita-privd with them: as root this program starts privd,
 * becomes somebody else, and sees that workers have users of their own. Else privd runs as we do,
 * and the rest holds as well.
 */
#include "daemon/supervisor.h"

#include "daemon/supervisor_internal.h"
#include "daemon/testing.h"
#include "lib/cleanup.h"
#include "privd/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include <cmocka.h>

#define ID      "0b0e7c9c-1f3a-4b64-9d55-000000000002"
#define WAIT_MS 20000
#define NOBODY  65534
#define DISKS   64

static const char *privd_program, *worker_program, *keeper_program;
static char folder[] = "/tmp/worker-privd-XXXXXX";
static bool root;

struct fixture {
	struct loop *loop;
	struct supervisor *s;
	char run[96], socket[96];
	json_t *description;
};

struct seen {
	struct worker *w;
	char state[32];
	bool ended;
	enum worker_end end;
	char words[600];
};

static void on_state(void *context, struct worker *w, const char *state)
{
	struct seen *v = context;

	(void)w;
	snprintf(v->state, sizeof(v->state), "%s", state);
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

static struct supervisor *supervise(struct fixture *f, const char *socket)
{
	const struct supervisor_options o = { .run_folder = f->run,
					      .worker = worker_program,
					      .keeper = keeper_program,
					      .privd = socket };
	struct error err = { 0 };
	struct supervisor *s;

	if (supervisor_new(f->loop, &o, &s, &err) < 0)
		fail_msg("%s", err.message);
	return s;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct error err = { 0 };
	char kernel[96];

	snprintf(f->run, sizeof(f->run), "%s/run", folder);
	snprintf(f->socket, sizeof(f->socket), "%s/socket", folder);
	snprintf(kernel, sizeof(kernel), "%s/kernel", folder);
	assert_int_equal(testing_kernel_write(kernel), 0);
	assert_int_equal(loop_new(0, &f->loop, &err), 0);
	f->s = supervise(f, f->socket);
	f->description = json_pack("{s:s,s:s,s:i,s:{s:{s:s}}}", "name", "test", "engine", "fake",
				   "memory", 32, "boot", "kernel", "path", "kernel");
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	supervisor_free(f->s);
	loop_free(f->loop);
	json_decref(f->description);
	free(f);
	return 0;
}

static void start(struct fixture *f, struct seen *v)
{
	const struct worker_start start = { .id = ID,
					    .name = "test",
					    .description = f->description,
					    .folder = folder,
					    .events = &events,
					    .context = v };
	struct error err = { 0 };

	*v = (struct seen){ 0 };
	if (worker_start(f->s, &start, &v->w, &err) < 0)
		fail_msg("%s", err.message);
}

/* Until it is in `state`, or has ended (NULL). */
static void wait_for(struct fixture *f, struct seen *v, const char *state)
{
	for (int i = 0; i < WAIT_MS / 20; i++) {
		if (state ? !strcmp(v->state, state) : v->ended)
			return;
		if (v->ended)
			break;
		assert_true(loop_once(f->loop, 20) >= 0);
	}
	fail_msg("state \"%s\", %s", v->state, v->ended ? v->words : "not ended");
}

static void on_answer(struct worker_request *r, int result, json_t *answer, const struct error *err)
{
	(void)r;
	(void)result;
	(void)answer;
	(void)err;
}

static void power_off(struct fixture *f, struct seen *v)
{
	struct worker_request r = { .done = on_answer };
	json_t *request = json_pack("{s:s}", "command", "power-off");

	worker_ask(v->w, &r, request, NULL, 0, WAIT_MS);
	json_decref(request);
	wait_for(f, v, NULL);
	assert_int_equal(v->end, WORKER_END_OFF);
}

static bool run_folder_exists(struct fixture *f)
{
	char path[200];

	snprintf(path, sizeof(path), "%s/" ID, f->run);
	return !access(path, F_OK);
}

static void test_a_worker_runs_with_a_user_of_its_own(void **state)
{
	struct fixture *f = *state;
	char path[64], mine[64] = "", its[64] = "";
	struct seen v;
	struct stat st;

	start(f, &v);
	wait_for(f, &v, "running");
	snprintf(path, sizeof(path), "/proc/%d", worker_pid(v.w));
	assert_int_equal(stat(path, &st), 0);
	if (root) {
		assert_in_range(st.st_uid, WORKER_UID_FIRST,
				WORKER_UID_FIRST + WORKER_UID_COUNT - 1);
		assert_int_equal(st.st_gid, NOBODY);
		/* and we may not even look at its namespaces */
		strcat(path, "/ns/net");
		assert_int_equal(readlink(path, its, sizeof(its) - 1), -1);
	} else {
		assert_int_equal(st.st_uid, geteuid());
		strcat(path, "/ns/net");
		assert_true(readlink(path, its, sizeof(its) - 1) > 0);
		assert_true(readlink("/proc/self/ns/net", mine, sizeof(mine) - 1) > 0);
	}
	power_off(f, &v);
	assert_false(run_folder_exists(f));
}

static void test_two_workers_have_different_users(void **state)
{
	struct fixture *f = *state;
	struct stat first, second;
	char path[64];
	struct seen v;

	if (!root)
		skip();
	start(f, &v);
	wait_for(f, &v, "running");
	snprintf(path, sizeof(path), "/proc/%d", worker_pid(v.w));
	assert_int_equal(stat(path, &first), 0);
	power_off(f, &v);
	start(f, &v);
	wait_for(f, &v, "running");
	snprintf(path, sizeof(path), "/proc/%d", worker_pid(v.w));
	assert_int_equal(stat(path, &second), 0);
	assert_int_not_equal(first.st_uid, second.st_uid);
	power_off(f, &v);
}

static void test_a_later_service_takes_it_over(void **state)
{
	struct fixture *f = *state;
	enum worker_end end;
	struct error err = { 0 };
	struct seen v;

	start(f, &v);
	wait_for(f, &v, "running");
	supervisor_free(f->s);
	f->s = supervise(f, f->socket);
	v = (struct seen){ 0 };
	if (worker_adopt(f->s, ID, &events, &v, &v.w, &end, &err) < 0)
		fail_msg("%s", err.message);
	wait_for(f, &v, "running");
	assert_true(worker_pid(v.w) > 0);
	power_off(f, &v);
}

static void test_it_can_be_killed(void **state)
{
	struct fixture *f = *state;
	struct seen v;

	start(f, &v);
	wait_for(f, &v, "running");
	worker_kill(v.w);
	wait_for(f, &v, NULL);
	assert_int_equal(v.end, WORKER_END_CRASH);
	assert_string_equal(v.words, "the worker was killed by the service");
	/* also before it has begun */
	start(f, &v);
	worker_kill(v.w);
	wait_for(f, &v, NULL);
	assert_int_equal(v.end, WORKER_END_CRASH);
	assert_false(run_folder_exists(f));
}

static json_t *drive(int lun, const char *path)
{
	return json_pack("{s:i,s:{s:s}}", "lun", lun, "file", "path", path);
}

static void test_files_that_we_may_not_open_are_opened_for_us(void **state)
{
	struct fixture *f = *state;
	char path[200];
	struct seen v;

	if (!root)
		skip();
	/* main() made it as root's, 0600 */
	snprintf(path, sizeof(path), "%s/store/secret.img", folder);
	assert_int_equal(open(path, O_RDONLY), -1);
	json_object_set_new(f->description, "scsi",
			    json_pack("[{s:[o]}]", "drives", drive(0, path)));
	start(f, &v);
	wait_for(f, &v, "running");
	power_off(f, &v);
}

static void test_a_file_outside_of_the_folders_ends_it_with_words(void **state)
{
	struct fixture *f = *state;
	char path[200];
	struct seen v;

	if (!root)
		skip();
	snprintf(path, sizeof(path), "%s/secret.img", folder);
	json_object_set_new(f->description, "scsi",
			    json_pack("[{s:[o]}]", "drives", drive(0, path)));
	start(f, &v);
	wait_for(f, &v, NULL);
	assert_int_equal(v.end, WORKER_END_ERROR);
	assert_non_null(strstr(v.words, "scsi[0].drives[0]"));
	assert_non_null(strstr(v.words, "in no folder"));
	assert_false(run_folder_exists(f));
}

/* More descriptors than a packet takes. */
static void test_a_machine_may_have_very_many_files(void **state)
{
	struct fixture *f = *state;
	json_t *scsi = json_array();
	struct seen v;

	for (int i = 0; i < 4; i++) {
		json_t *drives = json_array();

		for (int j = 0; j < DISKS; j++) {
			char name[32], path[200];
			int fd;

			snprintf(name, sizeof(name), "disk-%d-%d.img", i, j);
			snprintf(path, sizeof(path), "%s/%s", folder, name);
			fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
			assert_int_equal(ftruncate(fd, 1 << 20), 0);
			close(fd);
			json_array_append_new(drives, drive(j, name));
		}
		json_array_append_new(scsi, json_pack("{s:o}", "drives", drives));
	}
	json_object_set_new(f->description, "scsi", scsi);
	start(f, &v);
	wait_for(f, &v, "running");
	power_off(f, &v);
}

static void test_without_privd_nothing_starts_and_words_say_so(void **state)
{
	struct fixture *f = *state;
	struct seen v;
	char none[200];

	supervisor_free(f->s);
	snprintf(none, sizeof(none), "%s/none", folder);
	f->s = supervise(f, none);
	start(f, &v);
	wait_for(f, &v, NULL);
	assert_int_equal(v.end, WORKER_END_ERROR);
	assert_non_null(strstr(v.words, "cannot reach partita-privd"));
	assert_false(run_folder_exists(f));
}

/* --- the other side --- */

static int file_make(const char *name, const char *text, size_t size)
{
	_cleanup_close_ int fd = -1;
	char path[200];

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	return fd < 0 || write(fd, text, strlen(text)) < 0 ||
			       (size && ftruncate(fd, (off_t)size) < 0)
		       ? -1
		       : 0;
}

static int folders_make(void)
{
	char text[240], path[200];

	if (!mkdtemp(folder))
		return -1;
	snprintf(path, sizeof(path), "%s/store", folder);
	snprintf(text, sizeof(text), "storage %s\n", path);
	if (mkdir(path, 0700) < 0 || file_make("privd.conf", text, 0) < 0 ||
	    file_make("store/secret.img", "", 1 << 20) < 0 ||
	    file_make("secret.img", "", 1 << 20) < 0)
		return -1;
	return root && chown(folder, NOBODY, NOBODY) < 0 ? -1 : 0;
}

static pid_t privd_begin(void)
{
	const struct passwd *who = getpwuid(root ? NOBODY : geteuid());
	char socket[200], config[200];
	pid_t pid;

	snprintf(socket, sizeof(socket), "%s/socket", folder);
	snprintf(config, sizeof(config), "%s/privd.conf", folder);
	pid = who ? fork() : -1;
	if (!pid) {
		execl(privd_program, privd_program, "--socket", socket, "--service", who->pw_name,
		      "--config", config, "--worker", worker_program, "--keeper", keeper_program,
		      (char *)NULL);
		_exit(127);
	}
	for (int i = 0; i < 500 && access(socket, F_OK) < 0; i++)
		usleep(10000);
	return root && chown(socket, NOBODY, NOBODY) < 0 ? -1 : pid;
}

#define privd_test(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

static int tests_run(void)
{
	const struct CMUnitTest tests[] = {
		privd_test(test_a_worker_runs_with_a_user_of_its_own),
		privd_test(test_two_workers_have_different_users),
		privd_test(test_a_later_service_takes_it_over),
		privd_test(test_it_can_be_killed),
		privd_test(test_files_that_we_may_not_open_are_opened_for_us),
		privd_test(test_a_file_outside_of_the_folders_ends_it_with_words),
		privd_test(test_a_machine_may_have_very_many_files),
		privd_test(test_without_privd_nothing_starts_and_words_say_so),
	};

	if (root && (setgroups(0, NULL) < 0 || setresgid(NOBODY, NOBODY, NOBODY) < 0 ||
		     setresuid(NOBODY, NOBODY, NOBODY) < 0))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(int argc, char **argv)
{
	int status = 1;
	pid_t privd, tests;

	if (argc != 4)
		return 2;
	privd_program = argv[1];
	worker_program = argv[2];
	keeper_program = argv[3];
	root = !geteuid();
	signal(SIGPIPE, SIG_IGN);
	if (folders_make() < 0 || (privd = privd_begin()) < 0)
		return 1;
	tests = fork();
	if (!tests)
		exit(tests_run());
	if (tests > 0)
		waitpid(tests, &status, 0);
	kill(privd, SIGTERM);
	waitpid(privd, NULL, 0);
	testing_folder_remove(folder);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
