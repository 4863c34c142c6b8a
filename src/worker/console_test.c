// SPDX-License-Identifier: MIT
/* A console's end: what the guest said last must reach a slow reader, and no reader may hold it. */
#include "worker/console.h"

#include "lib/cleanup.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#define SIZE (200 * KIB) /* less than a console keeps, more than a socket takes */

#define HISTORY (64 * KIB)

static size_t no_input(void *context, const uint8_t *data, size_t size)
{
	(void)context;
	(void)data;
	return size;
}

/* In the small pieces that a UART makes: a socket counts them at far more than their bytes. */
static void fill(struct console *c)
{
	for (size_t i = 0; i < SIZE; i += 16) {
		uint8_t piece[16];

		for (size_t j = 0; j < sizeof(piece); j++)
			piece[j] = (uint8_t)((i + j) * 7 >> 3);
		console_output(c, piece, sizeof(piece));
	}
}

/* With all its output ready; the reader's end of its stream is pair[1]. */
static struct console *make(int pair[2], struct loop **ret_loop)
{
	struct console_options options = { .kind = CONSOLE_DESCRIPTOR, .input = no_input };
	struct error err = { 0 };
	struct console *c;

	assert_int_equal(loop_new(0, ret_loop, &err), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	options.descriptor = pair[0];
	if (console_new(*ret_loop, &options, &c, &err) < 0)
		fail_msg("%s", err.message);
	fill(c);
	return c;
}

struct reader {
	int fd;
	size_t size;
	bool wrong;
};

static void *read_late(void *argument)
{
	struct reader *r = argument;
	uint8_t buffer[512];
	ssize_t n;

	usleep(100000);
	while ((n = read(r->fd, buffer, sizeof(buffer))) > 0)
		for (ssize_t i = 0; i < n; i++, r->size++)
			r->wrong |= buffer[i] != (uint8_t)(r->size * 7 >> 3);
	return NULL;
}

static void test_last_words_reach_a_slow_reader(void **state)
{
	struct reader reader = { 0 };
	struct console *c;
	struct loop *loop;
	pthread_t thread;
	int pair[2];

	(void)state;
	c = make(pair, &loop);
	reader.fd = pair[1];
	assert_int_equal(pthread_create(&thread, NULL, read_late, &reader), 0);
	console_free(c);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(reader.size, SIZE);
	assert_false(reader.wrong);
	close(pair[1]);
	loop_free(loop);
}

static void test_a_reader_that_left_holds_nothing(void **state)
{
	struct console *c;
	struct loop *loop;
	int pair[2];

	(void)state;
	c = make(pair, &loop);
	close(pair[1]);
	console_free(c);
	loop_free(loop);
}

/* --- a socket's viewers --- */

struct hall {
	struct loop *loop;
	struct console *console;
	struct sockaddr_un address;
	uint8_t input[16];
	size_t input_size;
	size_t room; /* what the port takes */
};

static size_t take_input(void *context, const uint8_t *data, size_t size)
{
	struct hall *h = context;
	size_t n = MIN(size, h->room);

	assert_true(h->input_size + n <= sizeof(h->input));
	memcpy(h->input + h->input_size, data, n);
	h->input_size += n;
	h->room -= n;
	return n;
}

static void turn(struct hall *h)
{
	for (int i = 0; i < 20; i++)
		loop_once(h->loop, 0);
}

/* An abstract address: nothing is left behind. */
static void hall_open(struct hall *h, size_t history)
{
	struct console_options o = {
		.kind = CONSOLE_SOCKET, .history = history, .input = take_input, .context = h
	};
	struct error err = { 0 };
	socklen_t size = sizeof(h->address);

	*h = (struct hall){ .room = SIZE_MAX };
	h->address.sun_family = AF_UNIX;
	assert_int_equal(loop_new(0, &h->loop, &err), 0);
	o.descriptor = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(o.descriptor, (void *)&h->address, sizeof(sa_family_t)), 0);
	assert_int_equal(listen(o.descriptor, 16), 0);
	assert_int_equal(getsockname(o.descriptor, (void *)&h->address, &size), 0);
	if (console_new(h->loop, &o, &h->console, &err) < 0)
		fail_msg("%s", err.message);
}

static int viewer_new(struct hall *h)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(connect(fd, (void *)&h->address, sizeof(sa_family_t) + 6), 0);
	turn(h);
	return fd;
}

static void hall_close(struct hall *h)
{
	console_free(h->console);
	loop_free(h->loop);
}

static void say(struct hall *h, const char *text)
{
	console_output(h->console, (const uint8_t *)text, strlen(text));
	turn(h);
}

static void assert_sees(int fd, const char *text)
{
	char buffer[64] = "";
	ssize_t n = recv(fd, buffer, sizeof(buffer) - 1, MSG_DONTWAIT);

	assert_int_equal(n, strlen(text));
	assert_string_equal(buffer, text);
}

static void test_all_viewers_see_all_and_may_write(void **state)
{
	struct hall h;
	int a, b, c;

	(void)state;
	hall_open(&h, HISTORY);
	say(&h, "early ");
	a = viewer_new(&h);
	assert_sees(a, "early ");
	b = viewer_new(&h);
	assert_sees(b, "early ");
	say(&h, "both");
	assert_sees(a, "both");
	assert_sees(b, "both");
	close(a);
	turn(&h);
	c = viewer_new(&h);
	assert_sees(c, "early both");
	assert_int_equal(write(b, "1", 1), 1);
	turn(&h);
	assert_int_equal(write(c, "2", 1), 1);
	turn(&h);
	assert_memory_equal(h.input, "12", 2);
	close(b);
	close(c);
	hall_close(&h);
}

static void test_without_history_one_gets_what_nobody_has_read(void **state)
{
	struct hall h;
	int a, b;
	char c;

	(void)state;
	hall_open(&h, 0);
	say(&h, "early ");
	a = viewer_new(&h);
	assert_sees(a, "early ");
	b = viewer_new(&h);
	assert_int_equal(recv(b, &c, 1, MSG_DONTWAIT), -1);
	close(a);
	close(b);
	turn(&h);
	say(&h, "missed");
	a = viewer_new(&h);
	assert_sees(a, "missed");
	close(a);
	hall_close(&h);
}

static void test_input_waits_for_the_port_viewer_by_viewer(void **state)
{
	struct hall h;
	int a, b;

	(void)state;
	hall_open(&h, HISTORY);
	a = viewer_new(&h);
	b = viewer_new(&h);
	h.room = 1;
	assert_int_equal(write(a, "xy", 2), 2);
	turn(&h);
	assert_int_equal(write(b, "z", 1), 1);
	turn(&h);
	assert_int_equal(h.input_size, 1);
	h.room = 2;
	console_resume(h.console);
	turn(&h);
	assert_int_equal(h.input_size, 3);
	assert_memory_equal(h.input, "xyz", 3);
	close(a);
	close(b);
	hall_close(&h);
}

static size_t read_rest(struct hall *h, int fd, uint8_t *last)
{
	uint8_t buffer[4096];
	size_t size = 0;
	ssize_t n;

	while ((n = recv(fd, buffer, sizeof(buffer), MSG_DONTWAIT)) > 0) {
		*last = buffer[n - 1];
		size += (size_t)n;
		turn(h);
	}
	return size;
}

static void test_a_slow_viewer_loses_and_stalls_nobody(void **state)
{
	uint8_t piece[1000], last = 0;
	size_t fast_size = 0, slow_size;
	struct hall h;
	int fast, slow, late;

	(void)state;
	hall_open(&h, HISTORY);
	fast = viewer_new(&h);
	slow = viewer_new(&h);
	for (int i = 0; i < 1000; i++) {
		memset(piece, i, sizeof(piece));
		console_output(h.console, piece, sizeof(piece));
		turn(&h);
		fast_size += read_rest(&h, fast, &last);
	}
	assert_int_equal(fast_size, 1000000);
	late = viewer_new(&h);
	assert_int_equal(read_rest(&h, late, &last), HISTORY);
	assert_int_equal(last, 999 % 256);
	slow_size = read_rest(&h, slow, &last);
	assert_true(slow_size < 1000000 && slow_size >= 256 * KIB);
	assert_int_equal(last, 999 % 256);
	close(fast);
	close(slow);
	close(late);
	hall_close(&h);
}

static void test_a_ninth_viewer_is_turned_away(void **state)
{
	int fds[CONSOLE_VIEWERS + 1];
	struct hall h;
	char c;

	(void)state;
	hall_open(&h, HISTORY);
	for (int i = 0; i <= CONSOLE_VIEWERS; i++)
		fds[i] = viewer_new(&h);
	assert_int_equal(recv(fds[CONSOLE_VIEWERS], &c, 1, MSG_DONTWAIT), 0);
	say(&h, "x");
	for (int i = 0; i < CONSOLE_VIEWERS; i++)
		assert_sees(fds[i], "x");
	for (int i = 0; i <= CONSOLE_VIEWERS; i++)
		close(fds[i]);
	hall_close(&h);
}

static void test_what_does_not_listen_is_refused(void **state)
{
	struct console_options o = { .kind = CONSOLE_SOCKET, .input = no_input, .descriptor = -1 };
	struct error err = { 0 };
	struct console *c;
	struct loop *loop;
	int pair[2];

	(void)state;
	assert_int_equal(loop_new(0, &loop, &err), 0);
	assert_int_equal(console_new(loop, &o, &c, &err), -EINVAL);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	o.descriptor = pair[0];
	assert_int_equal(console_new(loop, &o, &c, &err), -EINVAL);
	assert_non_null(strstr(err.message, "listens"));
	close(pair[0]);
	close(pair[1]);
	loop_free(loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_last_words_reach_a_slow_reader),
		cmocka_unit_test(test_a_reader_that_left_holds_nothing),
		cmocka_unit_test(test_all_viewers_see_all_and_may_write),
		cmocka_unit_test(test_without_history_one_gets_what_nobody_has_read),
		cmocka_unit_test(test_input_waits_for_the_port_viewer_by_viewer),
		cmocka_unit_test(test_a_slow_viewer_loses_and_stalls_nobody),
		cmocka_unit_test(test_a_ninth_viewer_is_turned_away),
		cmocka_unit_test(test_what_does_not_listen_is_refused),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
