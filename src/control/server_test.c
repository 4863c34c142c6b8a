// SPDX-License-Identifier: MIT
/* A server with a few commands, and clients that ask, pass files, get some, and do not read. */
#include "control/server.h"

#include "lib/cleanup.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define FILLER 60000

struct bed {
	struct loop *loop;
	struct control_server *server;
	struct loop_task later;
	struct command *waiting;
	int client;
	unsigned files;
};

static unsigned open_files(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

/* --- the commands --- */

static int run_echo(struct command *c, struct error *err)
{
	const char *text;
	int r = take_text(c->request, "text", true, &text, err);

	if (r < 0)
		return r;
	json_object_set_new(c->answer, "text", json_string(text));
	return 0;
}

static int run_big(struct command *c, struct error *err)
{
	char text[FILLER + 1];

	(void)err;
	memset(text, 'x', FILLER);
	text[FILLER] = 0;
	json_object_set_new(c->answer, "text", json_string(text));
	return 0;
}

/* A pipe's ends; something is written in it first. */
static int run_pipe(struct command *c, struct error *err)
{
	uint64_t n;
	int r = take_number(c->request, "n", 0, 255, &n, err);

	if (r < 0)
		return r;
	assert_int_equal(pipe(c->answer_fds), 0);
	c->answer_fd_count = 2;
	assert_int_equal(write(c->answer_fds[1], &(uint8_t){ (uint8_t)n }, 1), 1);
	return n == 13 ? error_set(err, -EINVAL, "not 13") : 0;
}

static int run_write(struct command *c, struct error *err)
{
	_cleanup_close_ int fd = -1;
	int r = take_fd(c, c->request, "fd", true, &fd, err);

	if (r < 0)
		return r;
	assert_int_equal(write(fd, "w", 1), 1);
	return 0;
}

static void on_later(struct loop_task *t)
{
	struct bed *b = container_of(t, struct bed, later);
	struct error err = { 0 };

	b->waiting->done(b->waiting, error_set(&err, -EIO, "it went wrong later"), &err);
}

static int run_later(struct command *c, struct error *err)
{
	struct bed *b = c->context;

	(void)err;
	assert_int_equal(*(char *)c->state, 0);
	b->waiting = c;
	loop_defer(b->loop, &b->later);
	return 1;
}

static const struct command_type commands[] = {
	{ "echo", " text ", run_echo }, { "big", "", run_big },     { "pipe", " n ", run_pipe },
	{ "write", " fd ", run_write }, { "later", "", run_later }, { 0 },
};

static const struct command_family *families(void *context, unsigned *ret_count)
{
	static struct command_family family;

	family = (struct command_family){ .types = commands, .context = context, .state_size = 1 };
	*ret_count = 1;
	return &family;
}

/* --- the bed --- */

static int setup(void **state)
{
	struct bed *b = calloc(1, sizeof(*b));
	struct control_options o = { .listener = -1, .families = families, .context = b };
	int pair[2];

	b->files = open_files();
	assert_int_equal(loop_new(8, &b->loop, NULL), 0);
	loop_task_init(&b->later, on_later);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	o.loop = b->loop;
	o.descriptor = pair[0];
	b->client = pair[1];
	assert_int_equal(control_server_new(&o, &b->server, NULL), 0);
	*state = b;
	return 0;
}

static int teardown(void **state)
{
	struct bed *b = *state;

	control_server_free(b->server);
	loop_free(b->loop);
	close(b->client);
	assert_int_equal(open_files(), b->files);
	free(b);
	return 0;
}

/* False: the server has hung up. */
static bool say(struct bed *b, const char *line, int fd)
{
	_Alignas(struct cmsghdr) char space[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec iov = { (void *)(uintptr_t)line, strlen(line) };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (fd >= 0) {
		m.msg_control = space;
		m.msg_controllen = sizeof(space);
		*CMSG_FIRSTHDR(&m) = (struct cmsghdr){ .cmsg_level = SOL_SOCKET,
						       .cmsg_type = SCM_RIGHTS,
						       .cmsg_len = CMSG_LEN(sizeof(int)) };
		memcpy(CMSG_DATA(CMSG_FIRSTHDR(&m)), &fd, sizeof(fd));
	}
	return sendmsg(b->client, &m, MSG_NOSIGNAL) == (ssize_t)strlen(line);
}

/* The next line, byte by byte as descriptors come with the first; NULL: the server hung up. */
static json_t *hear(struct bed *b, int fds[2])
{
	_cleanup_free_ char *line = malloc(2 * FILLER);
	size_t n = 0;

	fds[0] = fds[1] = -1;
	for (;;) {
		_Alignas(struct cmsghdr) char space[CMSG_SPACE(2 * sizeof(int))];
		struct iovec iov = { line + n, 1 };
		struct msghdr m = { .msg_iov = &iov,
				    .msg_iovlen = 1,
				    .msg_control = space,
				    .msg_controllen = sizeof(space) };
		struct pollfd p = { .fd = b->client, .events = POLLIN };

		while (!poll(&p, 1, 0))
			(void)loop_once(b->loop, 0);
		if (recvmsg(b->client, &m, 0) <= 0)
			return NULL;
		if (CMSG_FIRSTHDR(&m)) {
			assert_int_equal(n, 0);
			memcpy(fds, CMSG_DATA(CMSG_FIRSTHDR(&m)), 2 * sizeof(int));
		}
		if (line[n++] == '\n')
			return json_loadb(line, n, 0, NULL);
	}
}

static void check(struct bed *b, const char *wanted)
{
	int fds[2];
	_cleanup_free_ char *text = NULL;
	json_t *answer = hear(b, fds);

	text = json_dumps(answer, JSON_COMPACT);
	assert_string_equal(text, wanted);
	json_decref(answer);
}

/* --- tests --- */

static void test_answers(void **state)
{
	struct bed *b = *state;
	json_t *event;

	say(b, "{\"id\": 7, \"command\": \"echo\", \"text\": \"hi\"}\n", -1);
	check(b, "{\"text\":\"hi\",\"id\":7,\"ok\":true}");
	say(b, "{\"command\": \"later\"}\n", -1);
	check(b, "{\"ok\":false,\"error\":\"it went wrong later\"}");
	say(b, "{\"command\": \"echo\", \"txt\": \"hi\"}\n", -1);
	check(b, "{\"ok\":false,\"error\":\"echo has no \\\"txt\\\"; it has text \"}");
	say(b, "{\"command\": \"nothing\"}\n", -1);
	check(b, "{\"ok\":false,\"error\":\"no such command \\\"nothing\\\"; there are echo, big, "
		 "pipe, write, later\"}");
	say(b, "[]\n", -1);
	check(b, "{\"ok\":false,\"error\":\"a request is an object with a \\\"command\\\"\"}");
	event = json_pack("{s:s}", "event", "state");
	control_server_tell(b->server, event, false);
	json_decref(event);
	check(b, "{\"event\":\"state\"}");
}

static void test_descriptors_come(void **state)
{
	struct bed *b = *state;
	int p[2];
	char c;

	assert_int_equal(pipe(p), 0);
	say(b, "{\"command\": \"write\", \"fd\": 0}\n", p[1]);
	check(b, "{\"ok\":true}");
	assert_int_equal(read(p[0], &c, 1), 1);
	say(b, "{\"command\": \"write\", \"fd\": 1}\n", p[1]);
	check(b,
	      "{\"ok\":false,\"error\":\"\\\"fd\\\" is descriptor 1 of the request, which was not "
	      "passed with it (SCM_RIGHTS), or is named twice\"}");
	close(p[0]);
	close(p[1]);
}

/* Behind output that waits, each with its own answer. */
static void test_descriptors_go(void **state)
{
	struct bed *b = *state;
	int small = 4096;

	assert_int_equal(setsockopt(b->client, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)), 0);
	say(b, "{\"command\": \"big\"}\n", -1);
	for (int i = 11; i < 14; i++) {
		char line[64];

		snprintf(line, sizeof(line), "{\"command\": \"pipe\", \"n\": %d}\n", i);
		say(b, line, -1);
	}
	for (int i = 0; i < 10; i++)
		(void)loop_once(b->loop, 0);
	for (int i = 10; i < 14; i++) {
		int fds[2];
		json_t *answer = hear(b, fds);
		uint8_t byte;

		assert_int_equal(json_is_true(json_object_get(answer, "ok")), i != 13);
		json_decref(answer);
		if (i == 10 || i == 13) {
			assert_int_equal(fds[0], -1);
			continue;
		}
		assert_int_equal(read(fds[0], &byte, 1), 1);
		assert_int_equal(byte, i);
		close(fds[0]);
		close(fds[1]);
	}
}

/* One who asks and never reads is dropped, with the descriptors that were for him. */
static void test_deaf(void **state)
{
	struct bed *b = *state;
	bool dropped = false;
	int fds[2];
	json_t *answer;

	for (int i = 0; i < 100 && !dropped; i++) {
		dropped =
			!say(b, "{\"command\": \"big\"}\n{\"command\": \"pipe\", \"n\": 1}\n", -1);
		(void)loop_once(b->loop, 0);
	}
	assert_true(dropped);
	while ((answer = hear(b, fds))) {
		json_decref(answer);
		if (fds[0] >= 0) {
			close(fds[0]);
			close(fds[1]);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_answers, setup, teardown),
		cmocka_unit_test_setup_teardown(test_descriptors_come, setup, teardown),
		cmocka_unit_test_setup_teardown(test_descriptors_go, setup, teardown),
		cmocka_unit_test_setup_teardown(test_deaf, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
