// SPDX-License-Identifier: MIT
/*
 * HTTP over real sockets with hand-made bytes: what is answered, in what order, and who is cut off.
 * Client and server are one thread: expect() turns the loop until the client has what it waits for.
 */
#include "lib/cleanup.h"
#include "rest/http.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cmocka.h>

static struct loop *loop;
static struct http *http;
static int listener;
static struct sockaddr_un address;
static struct http_request *held[256]; /* of /later, still to be answered */
static unsigned held_count, gone_count, handled;
static struct http_stream *stream;
static unsigned stream_gone;
static struct websocket *socket_now;
static unsigned closed_code;
static bool admit_later;

static char received[4 * MIB]; /* by the client */
static size_t received_size;

/* --- the server --- */

static void reply(struct http_request *r, unsigned status, const char *text, size_t size)
{
	struct http_answer a = { .status = status, .type = "text/plain", .size = size };

	a.body = malloc(size + 1);
	memcpy(a.body, text, size);
	http_answer(r, &a);
}

static void on_gone(struct http_request *r)
{
	(void)r;
	gone_count++;
}

static void on_socket_data(void *context, struct websocket *w, const uint8_t *data, size_t size)
{
	(void)context;
	if (size == 4 && !memcmp(data, "free", 4)) {
		socket_now = NULL;
		websocket_free(w);
	} else if (size == 3 && !memcmp(data, "bye", 3)) {
		websocket_close(w, WEBSOCKET_GOING_AWAY, "bye");
	} else {
		websocket_send(w, data, size);
	}
}

static void on_socket_closed(void *context, struct websocket *w, unsigned code)
{
	(void)context;
	(void)w;
	socket_now = NULL;
	closed_code = code;
}

static void on_stream_gone(struct http_stream *s)
{
	(void)s;
	stream = NULL;
	stream_gone++;
}

static void upgrade(struct http_request *r)
{
	static const struct websocket_events events = { .data = on_socket_data,
							.closed = on_socket_closed };
	struct error err = { 0 };
	int result = http_upgrade(r, &events, NULL, &socket_now, &err);

	if (result < 0)
		reply(r, result == -EPROTO ? 426 : 400, err.message, strlen(err.message));
}

static void handle(void *context, struct http_request *r)
{
	const char *what = r->target.part_count ? r->target.parts[0] : "";

	(void)context;
	handled++;
	if (r->body_too_large) {
		reply(r, 413, "too large", 9);
	} else if (r->target_error.code) {
		reply(r, 400, r->target_error.message, strlen(r->target_error.message));
	} else if (!strcmp(what, "later")) {
		r->gone = on_gone;
		held[held_count++] = r;
	} else if (!strcmp(what, "stream")) {
		stream = http_stream_begin(r, "text/event-stream");
		stream->gone = on_stream_gone;
	} else if (!strcmp(what, "socket")) {
		upgrade(r);
	} else if (r->body) {
		reply(r, 200, r->body, r->body_size);
	} else {
		reply(r, 200, what, strlen(what));
	}
}

static enum http_admission admit(void *context, struct http_request *r)
{
	(void)context;
	if (r->target.part_count && !strcmp(r->target.parts[0], "forbidden")) {
		reply(r, 403, "no", 2);
		return HTTP_ANSWERED;
	}
	if (admit_later) {
		held[held_count++] = r;
		r->gone = on_gone;
		return HTTP_LATER;
	}
	return HTTP_ADMITTED;
}

static void refuse(void *context, struct http_request *r, unsigned status)
{
	(void)context;
	reply(r, status, "slower", 6);
}

static void start_with(const struct http_options *more)
{
	struct http_options o = *more;
	struct error err = { 0 };

	o.admit = admit;
	o.handle = handle;
	o.refuse = refuse;
	held_count = gone_count = handled = stream_gone = closed_code = 0;
	admit_later = false;
	socket_now = NULL;
	assert_int_equal(loop_new(0, &loop, &err), 0);
	if (http_new(loop, &o, &http, &err) < 0)
		fail_msg("%s", err.message);
	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	snprintf(address.sun_path + 1, sizeof(address.sun_path) - 1, "partita-http-%d", getpid());
	assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(listener, 4096), 0);
	if (http_listen(http, listener, NULL, &err) < 0)
		fail_msg("%s", err.message);
}

static int start(void **state)
{
	(void)state;
	start_with(&(struct http_options){ 0 });
	return 0;
}

static int stop(void **state)
{
	(void)state;
	http_free(http);
	loop_free(loop);
	return 0;
}

static int start_strict(void **state)
{
	(void)state;
	start_with(&(struct http_options){
		.head_ms = 200, .body_ms = 300, .answer_ms = 300, .idle_ms = 400 });
	return 0;
}

/* --- the client --- */

static int dial(void)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	assert_true(fd >= 0);
	while (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		assert_int_equal(errno, EAGAIN);
	received_size = 0;
	return fd;
}

static void turn(unsigned ms)
{
	assert_int_equal(loop_once(loop, (int)ms), 0);
}

static void put(int fd, const void *data, size_t size)
{
	const char *p = data;

	while (size) {
		ssize_t n = send(fd, p, size, MSG_NOSIGNAL);

		if (n < 0 && errno == EAGAIN) {
			turn(1);
			continue;
		}
		if (n < 0)
			return; /* it was cut off: what was answered is looked at */
		p += n;
		size -= (size_t)n;
	}
}

static void say(int fd, const char *text)
{
	put(fd, text, strlen(text));
}

/* False at the end of what the server says. */
static bool hear(int fd)
{
	ssize_t n = recv(fd, received + received_size, sizeof(received) - received_size - 1, 0);

	if (n == 0 || (n < 0 && errno != EAGAIN))
		return false;
	received_size += n > 0 ? (size_t)n : 0;
	received[received_size] = '\0';
	return true;
}

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* Until it has heard `text`. */
static void expect(int fd, const char *text)
{
	uint64_t until = now_ms() + 20000;

	while (!memmem(received, received_size, text, strlen(text))) {
		turn(5);
		if (!hear(fd) && !memmem(received, received_size, text, strlen(text)))
			fail_msg("closed; wanted \"%s\", heard \"%.300s\"", text, received);
		if (now_ms() > until)
			fail_msg("wanted \"%s\", heard \"%.300s\"", text, received);
	}
}

static void expect_closed(int fd)
{
	uint64_t until = now_ms() + 20000;

	while (hear(fd)) {
		turn(5);
		if (now_ms() > until)
			fail_msg("still open; heard \"%.300s\"", received);
	}
	close(fd);
}

static void forget(void)
{
	received_size = 0;
	received[0] = '\0';
}

#define HOST "Host: x\r\n"

/* --- requests --- */

static void test_a_body_comes_back(void **state)
{
	int fd = dial();

	(void)state;
	say(fd, "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 5\r\n\r\nhello");
	expect(fd, "\r\n\r\nhello");
	assert_non_null(strstr(received, "HTTP/1.1 200"));
	forget();
	say(fd, "POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n"
		"3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n");
	expect(fd, "\r\n\r\nabcdefg");
	close(fd);
}

static void test_pipelined_requests_are_answered_in_order(void **state)
{
	int fd = dial();

	(void)state;
	say(fd, "GET /one HTTP/1.1\r\n" HOST "\r\nGET /two HTTP/1.1\r\n" HOST
		"\r\nPOST /e HTTP/1.1\r\n" HOST
		"Content-Length: 5\r\n\r\nthreeGET /four HTTP/1.1\r\n" HOST "\r\n");
	expect(fd, "\r\n\r\nfour");
	assert_true(strstr(received, "\r\n\r\none") < strstr(received, "\r\n\r\ntwo"));
	assert_true(strstr(received, "\r\n\r\ntwo") < strstr(received, "\r\n\r\nthree"));
	assert_int_equal(handled, 4);
	close(fd);
}

static void test_an_answer_may_come_later(void **state)
{
	int fd = dial(), other;

	(void)state;
	say(fd, "POST /later HTTP/1.1\r\n" HOST "Content-Length: 2\r\n\r\nok");
	while (!held_count)
		turn(5);
	other = dial();
	say(other, "GET /meanwhile HTTP/1.1\r\n" HOST "\r\n");
	expect(other, "meanwhile");
	forget();
	reply(held[0], 200, "done at last", 12);
	expect(fd, "done at last");
	assert_int_equal(gone_count, 0);
	close(fd);
	close(other);
}

static void test_a_client_that_leaves_is_noticed(void **state)
{
	int fd = dial();

	(void)state;
	say(fd, "GET /later HTTP/1.1\r\n" HOST "\r\n");
	while (!held_count)
		turn(5);
	close(fd);
	for (int i = 0; i < 200 && !gone_count; i++)
		turn(5);
	assert_int_equal(gone_count, 1);
	for (int i = 0; i < 200 && http_connection_count(http); i++)
		turn(5);
	assert_int_equal(http_connection_count(http), 0);
}

static void test_a_half_closed_client_gets_its_answer(void **state)
{
	int fd = dial();

	(void)state;
	say(fd, "GET /later HTTP/1.1\r\n" HOST "\r\n");
	while (!held_count)
		turn(5);
	shutdown(fd, SHUT_WR);
	for (int i = 0; i < 5; i++)
		turn(5);
	assert_int_equal(gone_count, 0);
	reply(held[0], 200, "half", 4);
	expect(fd, "half");
	expect_closed(fd);
}

static void test_refused_before_the_body(void **state)
{
	int fd = dial();

	(void)state;
	say(fd, "POST /forbidden HTTP/1.1\r\n" HOST
		"Content-Length: 1000000\r\nExpect: 100-continue\r\n\r\n");
	expect(fd, "HTTP/1.1 403");
	expect_closed(fd);
	assert_null(strstr(received, "100 Continue"));
	assert_int_equal(handled, 0);
}

static void test_admitted_later(void **state)
{
	int fd = dial();

	(void)state;
	admit_later = true;
	say(fd, "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 5\r\n\r\nlater");
	while (!held_count)
		turn(5);
	assert_int_equal(handled, 0);
	http_admit(held[0]);
	expect(fd, "\r\n\r\nlater");
	forget();
	held_count = 0;
	say(fd, "GET /refused HTTP/1.1\r\n" HOST "\r\n");
	while (!held_count)
		turn(5);
	reply(held[0], 401, "who?", 4);
	expect(fd, "HTTP/1.1 401");
	assert_int_equal(handled, 1);
	close(fd);
}

static void test_oversized_bodies(void **state)
{
	static char chunk[64 * 1024];
	char text[200];
	int fd = dial();

	(void)state;
	snprintf(text, sizeof(text), "POST /echo HTTP/1.1\r\n" HOST "Content-Length: %llu\r\n\r\n",
		 (unsigned long long)HTTP_BODY_MAX + 1);
	say(fd, text);
	expect(fd, "HTTP/1.1 413");
	close(fd);
	fd = dial();
	say(fd, "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 18446744073709551616\r\n\r\n");
	expect(fd, "HTTP/1.1 4");
	close(fd);
	fd = dial();
	say(fd, "POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n");
	for (int i = 0; i < 17; i++) {
		say(fd, "10000\r\n");
		put(fd, chunk, sizeof(chunk));
		say(fd, "\r\n");
	}
	say(fd, "0\r\n\r\n");
	expect(fd, "HTTP/1.1 413");
	close(fd);
	fd = dial();
	memset(chunk, 'x', sizeof(chunk));
	snprintf(text, sizeof(text), "POST /echo HTTP/1.1\r\n" HOST "Content-Length: %llu\r\n\r\n",
		 (unsigned long long)HTTP_BODY_MAX);
	say(fd, text);
	for (int i = 0; i < 16; i++)
		put(fd, chunk, sizeof(chunk));
	expect(fd, "HTTP/1.1 200");
	while (received_size < HTTP_BODY_MAX) {
		turn(5);
		hear(fd);
	}
	close(fd);
}

static void test_oversized_heads(void **state)
{
	static char line[HTTP_HEADER_MAX * 2];
	int fd = dial();

	(void)state;
	memset(line, 'a', sizeof(line) - 1);
	say(fd, "GET /x HTTP/1.1\r\n" HOST "X: ");
	say(fd, line);
	say(fd, "\r\n\r\n");
	expect(fd, "HTTP/1.1 431");
	expect_closed(fd);
	fd = dial();
	say(fd, "GET /");
	say(fd, line);
	say(fd, " HTTP/1.1\r\n" HOST "\r\n");
	expect(fd, "HTTP/1.1 414");
	expect_closed(fd);
	assert_int_equal(handled, 0);
}

/* Or, when it is the beginning of something, cut off at the deadline. */
static void test_what_is_no_http_is_refused(void **state)
{
	static const char *const bad[] = {
		"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
		"GET\r\n\r\n",
		"GET /x HTTP/1.1\r\n\r\n", /* no Host */
		"POST /x HTTP/1.1\r\n" HOST "Content-Length: -1\r\n\r\n",
		"POST /x HTTP/1.1\r\n" HOST "Content-Length: 5x\r\n\r\nhello",
		"POST /x HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n",
		"POST /x HTTP/1.1\r\n" HOST
		"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
		"POST /x HTTP/1.1\r\n" HOST
		"Transfer-Encoding: chunked\r\n\r\n3\r\nabcdef\r\n0\r\n\r\n",
		"GET /x%zz HTTP/1.1\r\n" HOST "\r\n",
		"GET /x%00 HTTP/1.1\r\n" HOST "\r\n",
		"GET /%ff HTTP/1.1\r\n" HOST "\r\n",
		"GET /x?a=1&a=2 HTTP/1.1\r\n" HOST "\r\n",
	};

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		int fd = dial();

		forget();
		say(fd, bad[i]);
		shutdown(fd, SHUT_WR);
		expect_closed(fd);
		if (received_size && strncmp(received, "HTTP/1.1 4", 10) &&
		    strncmp(received, "HTTP/1.0 4", 10))
			fail_msg("%u: \"%.100s\"", i, received);
	}
	for (int i = 0; i < 100 && http_connection_count(http); i++)
		turn(5);
	assert_int_equal(http_connection_count(http), 0);
}

/* --- slow clients --- */

static void drip(const char *first, const char *drops)
{
	int fd = dial();
	uint64_t begun = now_ms();

	forget();
	say(fd, first);
	for (unsigned i = 0; hear(fd) && now_ms() < begun + 10000; i++) {
		put(fd, drops + i % strlen(drops), 1);
		turn(20);
		usleep(5000);
	}
	if (now_ms() >= begun + 10000)
		fail_msg("still served after \"%s\"", first);
	close(fd);
}

static void test_who_drips_is_cut(void **state)
{
	(void)state;
	drip("G", "ET");
	drip("GET /x HTTP/1.1\r\n", "a: b\r\n");
	drip("POST /x HTTP/1.1\r\n" HOST "Content-Length: 100000\r\n\r\n", "drop");
	drip("POST /x HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n", "1\r\na\r\n");
	assert_int_equal(handled, 0);
}

static void test_who_is_idle_or_does_not_read_is_cut(void **state)
{
	int silent = dial(), idle, deaf;
	static char chunk[64 * 1024];

	(void)state;
	expect_closed(silent);
	idle = dial();
	say(idle, "GET /a HTTP/1.1\r\n" HOST "\r\n");
	expect(idle, "\r\n\r\na");
	expect_closed(idle);
	deaf = dial();
	say(deaf, "POST /x HTTP/1.1\r\n" HOST "Content-Length: 1000000\r\n\r\n");
	for (size_t left = 1000000, n; left; left -= n) {
		n = MIN(left, sizeof(chunk));
		put(deaf, chunk, n);
	}
	for (int i = 0; i < 400 && http_connection_count(http); i++)
		turn(5);
	assert_int_equal(http_connection_count(http), 0);
	close(deaf);
}

static void test_waiting_is_not_slow(void **state)
{
	int fd = dial();
	uint64_t until;

	(void)state;
	say(fd, "GET /later HTTP/1.1\r\n" HOST "\r\n");
	while (!held_count)
		turn(5);
	until = now_ms() + 800; /* longer than all deadlines here */
	while (now_ms() < until)
		turn(20);
	assert_int_equal(gone_count, 0);
	reply(held[0], 200, "patience", 8);
	expect(fd, "patience");
	close(fd);
}

/* --- many clients --- */

static int start_limited(void **state)
{
	(void)state;
	start_with(&(struct http_options){ .connection_max = 20, .connection_max_per_client = 8 });
	return 0;
}

static void test_a_client_has_so_many_connections(void **state)
{
	int fds[8], fd;

	(void)state;
	for (unsigned i = 0; i < 8; i++) {
		fds[i] = dial();
		say(fds[i], "GET /a HTTP/1.1\r\n" HOST "\r\n");
		expect(fds[i], "\r\n\r\na");
	}
	fd = dial();
	expect(fd, "HTTP/1.1 503");
	expect_closed(fd);
	close(fds[3]);
	while (http_connection_count(http) == 8)
		turn(5);
	fd = dial();
	say(fd, "GET /again HTTP/1.1\r\n" HOST "\r\n");
	expect(fd, "again");
	close(fd);
	for (unsigned i = 0; i < 8; i++) {
		if (i != 3)
			close(fds[i]);
	}
}

static int start_full(void **state)
{
	(void)state;
	start_with(&(struct http_options){ .connection_max = 4, .connection_max_per_client = 100 });
	return 0;
}

static void test_beyond_the_limit_they_wait(void **state)
{
	int fds[5];

	(void)state;
	for (unsigned i = 0; i < 5; i++)
		fds[i] = dial();
	for (unsigned i = 0; i < 4; i++) {
		forget();
		say(fds[i], "GET /a HTTP/1.1\r\n" HOST "\r\n");
		expect(fds[i], "\r\n\r\na");
	}
	forget();
	say(fds[4], "GET /fifth HTTP/1.1\r\n" HOST "\r\n");
	for (int i = 0; i < 20; i++)
		turn(5);
	hear(fds[4]);
	assert_int_equal(received_size, 0);
	close(fds[0]);
	expect(fds[4], "fifth");
	for (unsigned i = 1; i < 5; i++)
		close(fds[i]);
}

#define IDLE 1000
#define BUSY 200

static void test_1000_idle_and_200_busy_clients(void **state)
{
	static int idle[IDLE], busy[BUSY];
	struct rlimit files;
	unsigned done = 0;

	(void)state;
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = MIN(files.rlim_max, 4096);
	setrlimit(RLIMIT_NOFILE, &files);
	if (files.rlim_cur < 2600)
		skip();
	for (unsigned i = 0; i < IDLE; i++) {
		idle[i] = dial();
		turn(0);
	}
	for (unsigned i = 0; i < BUSY; i++)
		busy[i] = dial();
	for (unsigned round = 0; round < 5; round++) {
		for (unsigned i = 0; i < BUSY; i++)
			say(busy[i], "POST /x HTTP/1.1\r\n" HOST "Content-Length: 4\r\n\r\nbusy");
		for (unsigned i = 0; i < BUSY; i++) {
			forget();
			expect(busy[i], "\r\n\r\nbusy");
			done++;
		}
	}
	assert_int_equal(done, 5 * BUSY);
	assert_int_equal(http_connection_count(http), IDLE + BUSY);
	for (unsigned i = 0; i < IDLE; i += 100) {
		forget();
		say(idle[i], "GET /woken HTTP/1.1\r\n" HOST "\r\n");
		expect(idle[i], "woken");
	}
	for (unsigned i = 0; i < IDLE; i++)
		close(idle[i]);
	for (unsigned i = 0; i < BUSY; i++)
		close(busy[i]);
	for (int i = 0; i < 2000 && http_connection_count(http); i++)
		turn(1);
	assert_int_equal(http_connection_count(http), 0);
}

/* --- streams --- */

static int begin_stream(void)
{
	int fd = dial();

	say(fd, "GET /stream HTTP/1.1\r\n" HOST "\r\n");
	while (!stream)
		turn(5);
	return fd;
}

static void test_a_stream_is_sent_at_once_and_ends(void **state)
{
	int fd = begin_stream();

	(void)state;
	expect(fd, "text/event-stream");
	for (unsigned i = 0; i < 20; i++) {
		char text[32];

		snprintf(text, sizeof(text), "data: %u.\n\n", i);
		assert_int_equal(http_stream_send(stream, text, strlen(text)), 0);
		expect(fd, text);
	}
	http_stream_end(stream);
	stream = NULL;
	expect(fd, "\r\n0\r\n");
	assert_int_equal(stream_gone, 0);
	close(fd);
}

static void test_a_stream_whose_client_leaves_is_gone(void **state)
{
	int fd = begin_stream();

	(void)state;
	http_stream_send(stream, "x", 1);
	turn(5);
	close(fd);
	for (int i = 0; i < 200 && !stream_gone; i++)
		turn(5);
	assert_int_equal(stream_gone, 1);
}

static void test_a_slow_stream_is_dropped(void **state)
{
	static char block[16384];
	int fd = begin_stream(), r = 0;

	(void)state;
	for (unsigned i = 0; i < 1000 && !r; i++) {
		r = http_stream_send(stream, block, sizeof(block));
		turn(0);
	}
	assert_int_equal(r, -ENOBUFS);
	for (int i = 0; i < 200 && !stream_gone; i++)
		turn(5);
	assert_int_equal(stream_gone, 1);
	close(fd);
}

/* --- WebSockets --- */

#define SHAKE                                                                                      \
	"GET /socket HTTP/1.1\r\n" HOST "Connection: keep-alive, Upgrade\r\n"                      \
	"Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"                    \
	"Sec-WebSocket-Version: 13\r\n\r\n"

static int shake(void)
{
	int fd = dial();

	say(fd, SHAKE);
	/* the example of RFC 6455 1.3 */
	expect(fd, "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
	expect(fd, "\r\n\r\n");
	assert_non_null(strstr(received, "HTTP/1.1 101"));
	forget();
	return fd;
}

/* A client's frame with `first` byte, masked. */
static void frame(int fd, uint8_t first, const void *data, size_t size)
{
	uint8_t text[200 + 8] = { first, (uint8_t)(0x80 | MIN(size, (size_t)126)) },
			   mask[4] = { 1, 2, 3, 4 };
	size_t n = 2;

	assert_true(size <= 200);
	if (size > 125) {
		text[n++] = 0;
		text[n++] = (uint8_t)size;
	}
	memcpy(text + n, mask, 4);
	n += 4;
	for (size_t i = 0; i < size; i++)
		text[n++] = ((const uint8_t *)data)[i] ^ mask[i & 3];
	put(fd, text, n);
}

static void expect_code(int fd, unsigned code)
{
	char text[3] = { 0, (char)(code >> 8), (char)code };
	size_t at;

	expect(fd, "\x88");
	at = (size_t)((char *)memchr(received, 0x88, received_size) - received);
	while (received_size < at + 4) {
		turn(5);
		hear(fd);
	}
	assert_memory_equal(received + at + 2, text + 1, 2);
	expect_closed(fd);
	forget();
	for (int i = 0; i < 200 && socket_now; i++)
		turn(5);
	assert_null(socket_now);
}

static void test_websocket_echoes_and_says_goodbye(void **state)
{
	char long_one[200];
	int fd = shake();

	(void)state;
	frame(fd, 0x82, "hello", 5);
	expect(fd, "\x82\x05hello");
	forget();
	frame(fd, 0x02, "one ", 4); /* in three pieces, with a ping between */
	frame(fd, 0x00, "two ", 4);
	frame(fd, 0x89, "are you there", 13);
	frame(fd, 0x80, "three", 5);
	expect(fd, "\x8a\x0d"
		   "are you there");
	expect(fd, "three");
	forget();
	memset(long_one, 'L', sizeof(long_one));
	frame(fd, 0x81, long_one, sizeof(long_one));
	while (received_size < sizeof(long_one) + 2) {
		turn(5);
		hear(fd);
	}
	forget();
	frame(fd, 0x88, "\x03\xe8 thanks", 9);
	expect_code(fd, 1000);
	assert_int_equal(closed_code, 1000);
}

static void test_websocket_byte_by_byte(void **state)
{
	static const uint8_t bytes[] = { 0x82, 0x83, 0, 0, 0,    0,    'a', 'b', 'c', 0x82, 0x80,
					 0,    0,    0, 0, 0x82, 0x81, 0,   0,   0,   0,    '!' };
	int fd = shake();

	(void)state;
	for (unsigned i = 0; i < sizeof(bytes); i++) {
		put(fd, bytes + i, 1);
		turn(2);
	}
	expect(fd, "!");
	close(fd);
	for (int i = 0; i < 200 && socket_now; i++)
		turn(5);
	assert_int_equal(closed_code, WEBSOCKET_ABNORMAL);
}

static void test_websocket_with_the_handshake(void **state)
{
	int fd = dial();

	(void)state;
	put(fd, SHAKE "\x82\x81\0\0\0\0!", sizeof(SHAKE) - 1 + 7);
	expect(fd, "\x82\x01!");
	websocket_close(socket_now, WEBSOCKET_GOING_AWAY, "the machine is off");
	expect(fd, "the machine is off");
	frame(fd, 0x88, "\x03\xe9", 2);
	expect_closed(fd);
	for (int i = 0; i < 200 && !closed_code; i++)
		turn(5);
	assert_int_equal(closed_code, WEBSOCKET_GOING_AWAY);
}

static void test_websocket_freed_inside_of_a_call(void **state)
{
	int fd = shake();

	(void)state;
	frame(fd, 0x82, "free", 4);
	expect_closed(fd);
	assert_int_equal(closed_code, 0);
	fd = shake();
	frame(fd, 0x82, "bye", 3);
	frame(fd, 0x82, "more", 4);
	frame(fd, 0x88, "", 0);
	expect_code(fd, 1001);
}

struct bad_frame {
	const char *bytes;
	size_t size;
	unsigned code;
};

static void test_websocket_refuses_bad_frames(void **state)
{
#define BAD(text, code)                                                                            \
	{                                                                                          \
		text, sizeof(text) - 1, code                                                       \
	}
	static const struct bad_frame bad[] = {
		BAD("\x82\x01x", 1002),                        /* not masked */
		BAD("\xc2\x80\0\0\0\0", 1002),                 /* reserved bit */
		BAD("\x83\x80\0\0\0\0", 1002),                 /* opcode 3 */
		BAD("\x8b\x80\0\0\0\0", 1002),                 /* opcode 11 */
		BAD("\x80\x80\0\0\0\0", 1002),                 /* continues nothing */
		BAD("\x09\x80\0\0\0\0", 1002),                 /* a ping in pieces */
		BAD("\x89\xfe\0\x7f\0\0\0\0", 1002),           /* a long ping */
		BAD("\x02\x80\0\0\0\0\x82\x80\0\0\0\0", 1002), /* a message inside of one */
		BAD("\x82\xfe\0\x05\0\0\0\0hello", 1002),      /* not the shortest length */
		BAD("\x82\xff\0\0\0\0\0\0\0\x05\0\0\0\0", 1002),
		BAD("\x82\xff\x80\0\0\0\0\x20\0\0\0\0\0\0", 1002), /* the highest bit */
		BAD("\x82\xff\0\0\0\0\x00\x10\0\x01\0\0\0\0", 1009),
		BAD("\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0", 1009),
		BAD("\x81\x82\0\0\0\0\xc0\x80", 1007), /* overlong */
		BAD("\x81\x82\0\0\0\0\xe2\x82", 1007), /* ends in a character */
		BAD("\x01\x81\0\0\0\0\xe2\x80\x81\0\0\0\0\x20", 1007),
		BAD("\x88\x81\0\0\0\0\x03", 1002),     /* half a code */
		BAD("\x88\x82\0\0\0\0\x03\xed", 1002), /* 1005 is not sent */
		BAD("\x88\x83\0\0\0\0\x03\xe8\xff", 1007),
	};

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		int fd = shake();

		put(fd, bad[i].bytes, bad[i].size);
		expect_code(fd, bad[i].code);
		assert_int_equal(closed_code, bad[i].code);
	}
}

static void test_websocket_refuses_bad_handshakes(void **state)
{
	static const char *const bad[] = {
		"GET /socket HTTP/1.1\r\n" HOST "\r\n",
		"GET /socket HTTP/1.1\r\n" HOST "Connection: Upgrade\r\nUpgrade: h2c\r\n"
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
		"POST /socket HTTP/1.1\r\n" HOST "Connection: Upgrade\r\nUpgrade: websocket\r\n"
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
		"GET /socket HTTP/1.1\r\n" HOST "Connection: Upgrade\r\nUpgrade: websocket\r\n"
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j\r\nSec-WebSocket-Version: 13\r\n\r\n",
		"GET /socket HTTP/1.1\r\n" HOST "Connection: Upgrade\r\nUpgrade: websocket\r\n"
		"Sec-WebSocket-Key: ========================\r\nSec-WebSocket-Version: 13\r\n\r\n",
		"GET /socket HTTP/1.1\r\n" HOST "Connection: Upgrade\r\nUpgrade: websocket\r\n"
		"Sec-WebSocket-Version: 13\r\n\r\n",
	};
	int fd = dial();

	(void)state;
	say(fd, "GET /socket HTTP/1.1\r\n" HOST "Connection: Upgrade\r\nUpgrade: websocket\r\n"
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 8\r\n\r\n");
	expect(fd, "HTTP/1.1 426");
	close(fd);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		fd = dial();
		forget();
		say(fd, bad[i]);
		expect(fd, "HTTP/1.1 400");
		close(fd);
	}
}

static void test_websocket_of_a_deaf_client_is_bounded(void **state)
{
	static char block[16384];
	int fd = shake(), r = 0;

	(void)state;
	for (unsigned i = 0; i < 1000 && !r; i++) {
		r = websocket_send(socket_now, block, sizeof(block));
		turn(0);
	}
	assert_int_equal(r, -ENOBUFS);
	assert_true(websocket_queued(socket_now) <= WEBSOCKET_QUEUE_MAX);
	websocket_free(socket_now);
	socket_now = NULL;
	expect_closed(fd);
}

/* --- the end --- */

static void test_ends_with_everything_under_way(void **state)
{
	int later = dial(), half, streaming, web;

	say(later, "GET /later HTTP/1.1\r\n" HOST "\r\n");
	while (!held_count)
		turn(5);
	half = dial();
	say(half, "POST /x HTTP/1.1\r\n" HOST "Content-Length: 100\r\n\r\nhalf");
	streaming = begin_stream();
	web = shake();
	websocket_free(socket_now);
	stop(state);
	assert_int_equal(gone_count, 1);
	assert_int_equal(stream_gone, 1);
	forget();
	while (hear(streaming))
		;
	assert_non_null(strstr(received, "HTTP/1.1 200"));
	close(later);
	close(half);
	close(streaming);
	close(web);
}

#define TEST(name, setup) cmocka_unit_test_setup_teardown(name, setup, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_a_body_comes_back, start),
		TEST(test_pipelined_requests_are_answered_in_order, start),
		TEST(test_an_answer_may_come_later, start),
		TEST(test_a_client_that_leaves_is_noticed, start),
		TEST(test_a_half_closed_client_gets_its_answer, start),
		TEST(test_refused_before_the_body, start),
		TEST(test_admitted_later, start),
		TEST(test_oversized_bodies, start),
		TEST(test_oversized_heads, start),
		TEST(test_what_is_no_http_is_refused, start_strict),
		TEST(test_who_drips_is_cut, start_strict),
		TEST(test_who_is_idle_or_does_not_read_is_cut, start_strict),
		TEST(test_waiting_is_not_slow, start_strict),
		TEST(test_a_client_has_so_many_connections, start_limited),
		TEST(test_beyond_the_limit_they_wait, start_full),
		TEST(test_1000_idle_and_200_busy_clients, start),
		TEST(test_a_stream_is_sent_at_once_and_ends, start),
		TEST(test_a_stream_whose_client_leaves_is_gone, start),
		TEST(test_a_slow_stream_is_dropped, start),
		TEST(test_websocket_echoes_and_says_goodbye, start),
		TEST(test_websocket_byte_by_byte, start),
		TEST(test_websocket_with_the_handshake, start),
		TEST(test_websocket_freed_inside_of_a_call, start),
		TEST(test_websocket_refuses_bad_frames, start),
		TEST(test_websocket_refuses_bad_handshakes, start),
		TEST(test_websocket_of_a_deaf_client_is_bounded, start),
		cmocka_unit_test_setup(test_ends_with_everything_under_way, start),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
