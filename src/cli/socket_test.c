// SPDX-License-Identifier: MIT
/* The client's end of a WebSocket against bytes of a server, good and bad. */
#include "cli/client.h"
#include "cli/testing.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct session {
	struct recorded *server;
	struct client *client;
	struct client_socket *socket;
	struct exchange exchange;
	struct error err;
};

static int open_any(struct session *s, int status, const char *answer, const char *more,
		    size_t size, bool ends)
{
	int r;

	*s = (struct session){ .exchange = { "GET /api/v1/vms/web/console", NULL, status,
					     status == 101 ? "Upgrade: websocket" : NULL, answer,
					     more, size, ends } };
	s->server = recorded_new(&s->exchange, 1);
	assert_int_equal(client_new(recorded_place(s->server), &s->client, &s->err), 0);
	r = client_socket_open(s->client, "/vms/web/console", &s->socket, &s->err);
	return r;
}

static int open_session(struct session *s, int status, const char *answer, const char *more,
			size_t size)
{
	return open_any(s, status, answer, more, size, false);
}

/* Everything up to the end, or so many bytes. */
static ssize_t read_all(struct session *s, char *data, size_t size)
{
	size_t at = 0;

	while (at < size) {
		struct pollfd p = { .fd = client_socket_fd(s->socket), .events = POLLIN };
		ssize_t n;

		if (!client_socket_pending(s->socket) && poll(&p, 1, 10000) <= 0)
			return -ETIMEDOUT;
		n = client_socket_receive(s->socket, data + at, size - at, &s->err);
		if (n < 0)
			return at ? (ssize_t)at : n;
		at += (size_t)n;
	}
	return (ssize_t)at;
}

static void end_session(struct session *s)
{
	client_socket_close(s->socket);
	client_free(s->client);
	assert_true(recorded_end(s->server));
}

static void test_frames_are_bytes_of_the_console(void **state)
{
	/* two frames, one in two fragments with a ping between, an empty one, a close */
	static const char more[] =
		"\x82\x05hello\x02\x03 wo\x89\x02hi\x80\x03rld\x82\x00\x88\x05\x03"
		"\xe8"
		"bye";
	struct session s;
	char data[64] = "";

	(void)state;
	assert_int_equal(open_session(&s, 101, NULL, more, sizeof(more) - 1), 0);
	assert_int_equal(read_all(&s, data, sizeof(data)), 11);
	assert_string_equal(data, "hello world");
	assert_string_equal(s.err.message, "bye");
	assert_int_equal(client_socket_receive(s.socket, data, 1, &s.err), -EPIPE);
	end_session(&s);
}

static void test_long_frames_come_whole(void **state)
{
	static char more[4 + 70000 + 10];
	static char data[70000];
	struct session s;

	(void)state;
	memcpy(more, "\x82\x7f\0\0\0\0\0\x01\x11\x70", 10); /* 70000 bytes */
	memset(more + 10, 'x', 70000);
	assert_int_equal(open_session(&s, 101, NULL, more, 10 + 70000), 0);
	assert_int_equal(read_all(&s, data, sizeof(data)), 70000);
	assert_int_equal(data[69999], 'x');
	end_session(&s);
}

/* Takes a client's frame apart; its payload's size. */
static size_t unmask(const uint8_t *frame, uint8_t *ret)
{
	size_t head = 2, size = frame[1] & 0x7f;

	assert_true(frame[1] & 0x80);
	if (size == 126) {
		size = (size_t)frame[2] << 8 | frame[3];
		head = 4;
	}
	for (size_t i = 0; i < size; i++)
		ret[i] = frame[head + 4 + i] ^ frame[head + i % 4];
	return size;
}

static void test_what_is_sent_is_masked(void **state)
{
	struct recorded *server;
	struct session s;
	uint8_t sent[2048], payload[1024], typed[300];
	size_t n;

	(void)state;
	memset(typed, 'k', sizeof(typed));
	assert_int_equal(open_session(&s, 101, NULL, "\x89\x01p", 3), 0);
	while (!client_socket_pending(s.socket)) {
		struct pollfd p = { .fd = client_socket_fd(s.socket), .events = POLLIN };

		assert_true(poll(&p, 1, 10000) > 0);
		assert_int_equal(client_socket_receive(s.socket, sent, 1, &s.err), 0);
		break;
	}
	assert_int_equal(client_socket_send(s.socket, typed, sizeof(typed), &s.err), 0);
	client_socket_close(s.socket);
	client_free(s.client);
	server = s.server;
	/* the server has read to the end when its thread has ended */
	for (n = 0; n < 100 && !(recorded_sent(server, sent, sizeof(sent)) > 300); n++)
		poll(NULL, 0, 20);
	n = recorded_sent(server, sent, sizeof(sent));
	assert_true(n >= 7 + 308);
	/* the ping was answered first, or not at all if it came too late to be read */
	if (sent[0] == 0x8a) {
		assert_int_equal(unmask(sent, payload), 1);
		assert_int_equal(payload[0], 'p');
		memmove(sent, sent + 7, n - 7);
	}
	assert_int_equal(sent[0], 0x82);
	assert_int_equal(unmask(sent, payload), 300);
	assert_memory_equal(payload, typed, 300);
	assert_int_equal(sent[308], 0x88);
	assert_true(recorded_end(server));
}

static void test_broken_frames_are_refused(void **state)
{
	static const struct {
		const char *bytes;
		size_t size;
	} cases[] = {
		{ "\xc2\x01x", 3 },                   /* a reserved bit */
		{ "\x82\x81\0\0\0\0x", 7 },           /* masked by the server */
		{ "\x83\x01x", 3 },                   /* an unknown opcode */
		{ "\x88\x7e\0\x80", 4 },              /* a long control frame */
		{ "\x09\x01x", 3 },                   /* a control frame in pieces */
		{ "\x82\x7f\xff\0\0\0\0\0\0\0", 10 }, /* a length beyond 63 bits */
	};
	char data[8];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct session s;

		assert_int_equal(open_session(&s, 101, NULL, cases[i].bytes, cases[i].size), 0);
		assert_int_equal(read_all(&s, data, sizeof(data)), -EPROTO);
		end_session(&s);
	}
}

/* A service that dies in the middle of a frame must not keep its client busy. */
static void test_a_connection_that_ends_is_told(void **state)
{
	static const char more[] = "\x82\x05hello\x82\x7e\x01";
	struct session s;
	char data[64] = "";

	(void)state;
	assert_int_equal(open_any(&s, 101, NULL, more, sizeof(more) - 1, true), 0);
	assert_int_equal(read_all(&s, data, sizeof(data)), 5);
	assert_string_equal(data, "hello");
	assert_int_equal(client_socket_receive(s.socket, data, 1, &s.err), -EPIPE);
	end_session(&s);
}

static void test_a_reason_does_not_reach_the_terminal(void **state)
{
	static const char more[] = "\x88\x08\x03\xe8\x1b[2Jx\n";
	struct session s;
	char data[8];

	(void)state;
	assert_int_equal(open_session(&s, 101, NULL, more, sizeof(more) - 1), 0);
	assert_int_equal(read_all(&s, data, sizeof(data)), -EPIPE);
	assert_string_equal(s.err.message, "?[2Jx?");
	end_session(&s);
}

static void test_a_refused_console_has_the_services_words(void **state)
{
	struct session s;

	(void)state;
	assert_int_equal(open_session(&s, 409,
				      "{\"code\":\"wrong-state\",\"detail\":\"it is off\"}", NULL,
				      0),
			 -EBADFD);
	assert_string_equal(s.err.message, "it is off");
	client_free(s.client);
	assert_true(recorded_end(s.server));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_frames_are_bytes_of_the_console),
		cmocka_unit_test(test_long_frames_come_whole),
		cmocka_unit_test(test_what_is_sent_is_masked),
		cmocka_unit_test(test_broken_frames_are_refused),
		cmocka_unit_test(test_a_connection_that_ends_is_told),
		cmocka_unit_test(test_a_reason_does_not_reach_the_terminal),
		cmocka_unit_test(test_a_refused_console_has_the_services_words),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
