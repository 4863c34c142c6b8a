// SPDX-License-Identifier: MIT
/*
 * partita-privd as a program, over its socket: what it does, and what it refuses. As root it
 * changes users and opens what we may not; else it shows what is left.
 */
#include "privd/privd.h"

#include "lib/cleanup.h"
#include "lib/types.h"
#include "privd/config.h"
#include "privd/message.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pwd.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include <cmocka.h>

#define WAIT_MS 20000

static const char *program, *worker, *keeper;

struct fixture {
	struct loop *loop;
	struct privd *p;
	char folder[64], socket[96], config[96], store[96];
	pid_t pid;
};

struct asked {
	struct privd_request r;
	bool done;
	int result, fd;
	char words[512];
	json_int_t uid;
};

static void on_done(struct privd_request *r, const struct privd_answer *a)
{
	struct asked *q = container_of(r, struct asked, r);

	assert_false(q->done);
	q->done = true;
	q->result = a->result;
	q->fd = -1;
	if (a->result < 0)
		snprintf(q->words, sizeof(q->words), "%s", a->err->message);
	q->uid = json_integer_value(json_object_get(a->members, "uid"));
	if (a->fd_count)
		q->fd = steal_fd(&a->fds[0]);
}

static void wait_for(struct fixture *f, struct asked *q)
{
	for (int i = 0; i < WAIT_MS / 10 && !q->done; i++)
		assert_true(loop_once(f->loop, 10) >= 0);
	assert_true(q->done);
}

/* Its result; `request` is taken over. */
static int ask(struct fixture *f, struct asked *q, json_t *request, const int *fds, unsigned count)
{
	*q = (struct asked){ .r.done = on_done, .fd = -1 };
	assert_non_null(request);
	privd_ask(f->p, &q->r, request, fds, count);
	assert_false(q->done);
	wait_for(f, q);
	return q->result;
}

static void file_make(const char *folder, const char *name, const char *text, mode_t mode)
{
	_cleanup_close_ int fd = -1;
	char path[200];

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	assert_int_equal(fchmod(fd, mode), 0);
}

static void privd_begin(struct fixture *f)
{
	const struct passwd *me = getpwuid(geteuid());
	struct error err = { 0 };

	assert_non_null(me);
	f->pid = fork();
	if (!f->pid) {
		execl(program, program, "--socket", f->socket, "--service", me->pw_name, "--config",
		      f->config, "--worker", worker, "--keeper", keeper, (char *)NULL);
		_exit(127);
	}
	for (int i = 0; i < 500 && privd_check(f->p, &err) < 0; i++)
		usleep(10000);
	assert_int_equal(privd_check(f->p, &err), 0);
}

static void privd_stop(struct fixture *f)
{
	int status;

	kill(f->pid, SIGTERM);
	assert_int_equal(waitpid(f->pid, &status, 0), f->pid);
	/* Not by its filter. */
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct error err = { 0 };
	char text[300];

	strcpy(f->folder, "/tmp/partita-privd-XXXXXX");
	assert_non_null(mkdtemp(f->folder));
	snprintf(f->socket, sizeof(f->socket), "%s/socket", f->folder);
	snprintf(f->config, sizeof(f->config), "%s/privd.conf", f->folder);
	snprintf(f->store, sizeof(f->store), "%s/store", f->folder);
	assert_int_equal(mkdir(f->store, 0700), 0);
	snprintf(text, sizeof(text), "# of a test\n\nstorage %s/\ndevice %s/no-disk\n", f->store,
		 f->folder);
	file_make(f->folder, "privd.conf", text, 0600);
	assert_int_equal(loop_new(0, &f->loop, &err), 0);
	assert_int_equal(privd_new(f->loop, f->socket, &f->p, &err), 0);
	privd_begin(f);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	char line[200];

	privd_free(f->p);
	loop_free(f->loop);
	privd_stop(f);
	snprintf(line, sizeof(line), "rm -rf %s", f->folder);
	assert_int_equal(system(line), 0);
	free(f);
	return 0;
}

/* --- requests --- */

static void test_unknown_operations_and_members_are_refused(void **state)
{
	struct fixture *f = *state;
	struct asked q;

	assert_int_equal(ask(f, &q, json_pack("{s:s}", "op", "ping"), NULL, 0), 0);
	assert_int_equal(ask(f, &q, json_pack("{s:s}", "op", "format"), NULL, 0), -ENOSYS);
	assert_non_null(strstr(q.words, "format"));
	assert_int_equal(ask(f, &q, json_pack("{s:i}", "op", 1), NULL, 0), -ENOSYS);
	assert_int_equal(ask(f, &q, json_pack("{s:s,s:i}", "op", "ping", "x", 1), NULL, 0),
			 -EINVAL);
	assert_int_equal(ask(f, &q, json_pack("{s:s}", "op", "open"), NULL, 0), -EINVAL);
	assert_int_equal(ask(f, &q, json_pack("{s:s,s:i}", "op", "open", "path", 1), NULL, 0),
			 -EINVAL);
	assert_int_equal(ask(f, &q, json_pack("{s:s}", "op", "ping"), &f->pid, 0), 0);
}

static void test_descriptors_that_an_operation_does_not_take_are_refused(void **state)
{
	struct fixture *f = *state;
	int fds[300];
	struct asked q;

	for (unsigned i = 0; i < ARRAY_SIZE(fds); i++)
		fds[i] = 2;
	assert_int_equal(ask(f, &q, json_pack("{s:s}", "op", "ping"), fds, 1), -EINVAL);
	/* More than a packet has room for. */
	assert_int_equal(ask(f, &q, json_pack("{s:s}", "op", "ping"), fds, ARRAY_SIZE(fds)),
			 -EINVAL);
	assert_non_null(strstr(q.words, "300"));
	/* They are not left for the next one. */
	assert_int_equal(ask(f, &q, json_pack("{s:s}", "op", "ping"), NULL, 0), 0);
}

/* --- open --- */

static int open_path(struct fixture *f, struct asked *q, bool write, const char *format,
		     const char *folder)
{
	char path[300];

	snprintf(path, sizeof(path), format, folder);
	return ask(f, q, json_pack("{s:s,s:s,s:b}", "op", "open", "path", path, "write", write),
		   NULL, 0);
}

static void test_an_image_in_a_folder_is_opened(void **state)
{
	struct fixture *f = *state;
	char text[8] = "";
	struct asked q;

	file_make(f->store, "a.vhdx", "image", 0600);
	assert_int_equal(open_path(f, &q, false, "%s/a.vhdx", f->store), 0);
	assert_int_equal(read(q.fd, text, sizeof(text)), 5);
	assert_string_equal(text, "image");
	assert_int_equal(write(q.fd, "x", 1), -1);
	close(q.fd);
	assert_int_equal(open_path(f, &q, true, "%s//a.vhdx", f->store), 0);
	assert_int_equal(write(q.fd, "I", 1), 1);
	close(q.fd);
	assert_int_equal(open_path(f, &q, true, "%s/none", f->store), -ENOENT);
}

static void test_nothing_outside_of_the_folders_is_opened(void **state)
{
	static const char *const outside[] = { "%s/../secret", "%s/link", "%s/way/secret",
					       "%s/x/../../secret", "%sx/secret" };
	struct fixture *f = *state;
	char path[200], other[200];
	struct asked q;

	file_make(f->folder, "secret", "s", 0600);
	snprintf(path, sizeof(path), "%s/link", f->store);
	assert_int_equal(symlink("../secret", path), 0);
	snprintf(path, sizeof(path), "%s/way", f->store);
	assert_int_equal(symlink("..", path), 0);
	snprintf(path, sizeof(path), "%s/x", f->store);
	assert_int_equal(mkdir(path, 0700), 0);
	snprintf(path, sizeof(path), "%sx", f->store);
	assert_int_equal(mkdir(path, 0700), 0);
	file_make(path, "secret", "s", 0600);
	for (size_t i = 0; i < ARRAY_SIZE(outside); i++) {
		assert_int_equal(open_path(f, &q, false, outside[i], f->store), -EACCES);
		assert_int_equal(q.fd, -1);
	}
	assert_int_equal(open_path(f, &q, false, "/etc/hostname%.0s", ""), -EACCES);
	assert_non_null(strstr(q.words, "configuration"));
	assert_int_equal(open_path(f, &q, false, "store/a%.0s", ""), -EINVAL);
	/* A second name for it. */
	snprintf(path, sizeof(path), "%s/secret", f->folder);
	snprintf(other, sizeof(other), "%s/name", f->store);
	assert_int_equal(link(path, other), 0);
	assert_int_equal(open_path(f, &q, false, "%s/name", f->store), -EACCES);
}

static void test_what_is_no_image_is_not_opened(void **state)
{
	struct fixture *f = *state;
	char path[200];
	struct asked q;

	snprintf(path, sizeof(path), "%s/pipe", f->store);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(open_path(f, &q, false, "%s/pipe", f->store), -EACCES);
	assert_int_equal(open_path(f, &q, false, "%s/.", f->store), -EACCES);
	/* Named as a disk, and none. */
	file_make(f->folder, "no-disk", "x", 0600);
	assert_int_equal(open_path(f, &q, false, "%s/no-disk", f->folder), -EACCES);
	assert_non_null(strstr(q.words, "no disk"));
}

/* --- start --- */

static void test_a_start_is_judged_before_anything_is_done(void **state)
{
	struct fixture *f = *state;
	_cleanup_close_ int store = open(f->store, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	_cleanup_close_ int file = open(f->config, O_RDONLY | O_CLOEXEC);
	_cleanup_close_ int root = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	const int right[] = { store, file, file }, wrong[] = { file, file, file },
		  group[] = { store, file, file, root };
	struct asked q;
	struct stat st;

	assert_true(store >= 0 && file >= 0 && root >= 0);
	assert_int_equal(
		ask(f, &q, json_pack("{s:s,s:s}", "op", "start", "machine", "../x"), right, 3),
		-EINVAL);
	assert_int_equal(
		ask(f, &q, json_pack("{s:s,s:s}", "op", "start", "machine", "x"), right, 2),
		-EINVAL);
	assert_int_equal(
		ask(f, &q, json_pack("{s:s,s:s}", "op", "start", "machine", "x"), wrong, 3),
		-EINVAL);
	assert_int_equal(ask(f, &q,
			     json_pack("{s:s,s:s,s:b}", "op", "start", "machine", "x", "cgroup", 1),
			     right, 3),
			 -EINVAL);
	assert_int_equal(ask(f, &q,
			     json_pack("{s:s,s:s,s:b}", "op", "start", "machine", "x", "cgroup", 1),
			     group, 4),
			 -EINVAL);
	assert_non_null(strstr(q.words, "control group"));
	assert_int_equal(fstat(store, &st), 0);
	assert_int_equal(st.st_uid, geteuid());
}

/* --- the connection --- */

static void test_a_client_that_speaks_no_json_is_cut_off(void **state)
{
	struct fixture *f = *state;
	struct error err = { 0 };
	_cleanup_close_ int fd = message_connect(f->socket, true, &err);
	struct message m;
	char text[100];

	assert_true(fd >= 0);
	assert_int_equal(message_send(fd, "rubbish", 7, NULL, 0), 0);
	assert_int_equal(message_receive(fd, text, sizeof(text), &m), 0);
	assert_int_equal(privd_check(f->p, &err), 0);
}

static void test_a_request_ends_when_privd_does_and_the_next_finds_it_again(void **state)
{
	struct fixture *f = *state;
	struct asked q = { .r.done = on_done };

	kill(f->pid, SIGSTOP);
	privd_ask(f->p, &q.r, json_pack("{s:s}", "op", "ping"), NULL, 0);
	kill(f->pid, SIGKILL);
	waitpid(f->pid, NULL, 0);
	wait_for(f, &q);
	assert_int_equal(q.result, -EPIPE);
	assert_true(ask(f, &q, json_pack("{s:s}", "op", "ping"), NULL, 0) < 0);
	assert_non_null(strstr(q.words, "cannot reach"));
	privd_begin(f);
	assert_int_equal(ask(f, &q, json_pack("{s:s}", "op", "ping"), NULL, 0), 0);
}

static void test_a_cancelled_request_tells_nobody(void **state)
{
	struct fixture *f = *state;
	struct asked q = { .r.done = on_done }, next;

	privd_ask(f->p, &q.r, json_pack("{s:s}", "op", "ping"), NULL, 0);
	privd_cancel(&q.r);
	assert_int_equal(ask(f, &next, json_pack("{s:s}", "op", "ping"), NULL, 0), 0);
	assert_false(q.done);
}

/* --- who asks, what is configured --- */

static void test_only_the_service_may_ask(void **state)
{
	struct fixture *f = *state;
	int status;
	pid_t pid;

	if (geteuid())
		skip();
	assert_int_equal(chmod(f->folder, 0755), 0);
	assert_int_equal(chmod(f->socket, 0666), 0);
	pid = fork();
	if (!pid) {
		struct error err = { 0 };

		if (setresuid(65534, 65534, 65534) < 0)
			_exit(2);
		_exit(privd_ask_waiting(f->socket, json_pack("{s:s}", "op", "ping"), 5000, &err) <
		      0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 1);
}

static void test_a_configuration_is_understood_or_refused(void **state)
{
	static const char *const wrong[] = { "storage relative\n", "storge /srv\n", "storage\n",
					     "device\n" };
	struct fixture *f = *state;
	struct privd_config c = { 0 };
	struct error err = { 0 };
	char path[200];

	snprintf(path, sizeof(path), "%s/c", f->folder);
	assert_int_equal(config_read(&c, path, &err), 0);
	file_make(f->folder, "c", "  \n# x\nstorage\t/srv/a b \nstorage /x\ndevice /dev/y", 0644);
	assert_int_equal(config_read(&c, path, &err), 0);
	assert_int_equal(c.storage_count, 2);
	assert_string_equal(c.storage[0], "/srv/a b");
	assert_int_equal(c.device_count, 1);
	assert_string_equal(c.devices[0], "/dev/y");
	config_deinit(&c);
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		file_make(f->folder, "c", wrong[i], 0644);
		assert_int_equal(config_read(&c, path, &err), -EINVAL);
		assert_non_null(strstr(err.message, ":1"));
		config_deinit(&c);
	}
	file_make(f->folder, "c", "storage /x\n", 0664);
	assert_int_equal(config_read(&c, path, &err), -EPERM);
	config_deinit(&c);
}

#define privd_test(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		privd_test(test_unknown_operations_and_members_are_refused),
		privd_test(test_descriptors_that_an_operation_does_not_take_are_refused),
		privd_test(test_an_image_in_a_folder_is_opened),
		privd_test(test_nothing_outside_of_the_folders_is_opened),
		privd_test(test_what_is_no_image_is_not_opened),
		privd_test(test_a_start_is_judged_before_anything_is_done),
		privd_test(test_a_client_that_speaks_no_json_is_cut_off),
		privd_test(test_a_request_ends_when_privd_does_and_the_next_finds_it_again),
		privd_test(test_a_cancelled_request_tells_nobody),
		privd_test(test_only_the_service_may_ask),
		privd_test(test_a_configuration_is_understood_or_refused),
	};

	if (argc != 4)
		return 2;
	program = argv[1];
	worker = argv[2];
	keeper = argv[3];
	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
