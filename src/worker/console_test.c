// SPDX-License-Identifier: MIT
/* A console's end: what the guest said last must reach a slow reader, and no reader may hold it. */
#include "worker/console.h"

#include "lib/cleanup.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define SIZE (200 * KIB) /* less than a console keeps, more than a socket takes */

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_last_words_reach_a_slow_reader),
		cmocka_unit_test(test_a_reader_that_left_holds_nothing),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
