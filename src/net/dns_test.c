// SPDX-License-Identifier: MIT
/*
 * The forwarder between a client made here and servers made here, on 127.0.0.1: right ones, silent
 * ones, liars; and Debian's dig as a client, by UDP and TCP.
 */
#include "lib/cleanup.h"
#include "net/dns.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <cmocka.h>

enum conduct {
	HONEST,
	SILENT,
	OTHER_ID,
	OTHER_QUESTION,
	NO_ANSWER, /* a query comes back as it was */
	FAILING,
	TRUNCATING,
	LARGE,
	SHORT,
};

struct upstream {
	struct loop_watch udp, listener, stream;
	enum conduct conduct;
	union dns_server at;
	unsigned asked, asked_tcp;
	uint16_t ids[16], ports[16];
};

static struct loop *loop;
static struct upstream ups[2];
static struct dns *dns;
static uint8_t got[DNS_TCP_MAX];
static size_t got_size;
static unsigned got_count;
static struct dns_who got_who;

static bool find_name(void *context, const char *name, uint32_t *ret)
{
	(void)context;
	*ret = 0x0a000007;
	return !strcmp(name, "web");
}

static bool find_address(void *context, uint32_t address, char ret[static DNS_NAME_TEXT])
{
	(void)context;
	strcpy(ret, "web");
	return address == 0x0a000007;
}

static void on_answer(void *context, const struct dns_who *who, const void *message, size_t size)
{
	(void)context;
	memcpy(got, message, size);
	got_size = size;
	got_who = *who;
	got_count++;
}

/* ---- servers ---- */

/* The answer that this one gives, made of the query in place; its size, 0 = none. */
static size_t upstream_answer(const struct upstream *u, uint8_t *m, size_t size, bool tcp)
{
	struct dns_query q;
	struct writer w;
	uint8_t copy[DNS_QUERY_MAX];
	unsigned records = !tcp && u->conduct == LARGE ? 100 : 1;

	assert_int_equal(dns_read_query(m, size, &q), 0);
	if (u->conduct == SILENT)
		return 0;
	if (u->conduct == NO_ANSWER)
		return size;
	memcpy(copy, m, size);
	w = writer_of(m, 4000);
	if (u->conduct == FAILING)
		return dns_write_refusal(copy, &q, DNS_FAILED, m, 4000);
	if (u->conduct == TRUNCATING && !tcp)
		return dns_write_truncated(copy, &q, m, 4000);
	q.edns = false;
	size = dns_write_record(copy, &q, DNS_A, &(be32){ htobe32(0x5db8d822) }, 4, &w);
	for (unsigned i = 1; i < records; i++) {
		memcpy(m + size, m + size - 16, 16);
		size += 16;
		m[6] = (uint8_t)(records >> 8);
		m[7] = (uint8_t)records;
	}
	if (u->conduct == OTHER_ID)
		m[0] ^= 1;
	if (u->conduct == OTHER_QUESTION)
		m[13] ^= 1;
	return u->conduct == SHORT ? 11 : size;
}

static void on_udp(struct loop_watch *w, uint32_t events)
{
	struct upstream *u = container_of(w, struct upstream, udp);
	struct sockaddr_in from;
	socklen_t size = sizeof(from);
	uint8_t m[4096];
	ssize_t n = recvfrom(w->fd, m, sizeof(m), 0, (struct sockaddr *)&from, &size);

	(void)events;
	if (n <= 0)
		return;
	memcpy(&u->ids[u->asked % 16], m, 2);
	u->ports[u->asked++ % 16] = from.sin_port;
	n = (ssize_t)upstream_answer(u, m, (size_t)n, false);
	if (n)
		sendto(w->fd, m, (size_t)n, 0, (struct sockaddr *)&from, size);
}

static void on_stream(struct loop_watch *w, uint32_t events)
{
	struct upstream *u = container_of(w, struct upstream, stream);
	uint8_t m[4098];
	ssize_t n = read(w->fd, m, sizeof(m));
	int fd = w->fd;

	(void)events;
	if (n > 2) {
		u->asked_tcp++;
		n = (ssize_t)upstream_answer(u, m + 2, (size_t)n - 2, true);
		m[0] = (uint8_t)(n >> 8);
		m[1] = (uint8_t)n;
		if (n && write(fd, m, (size_t)n + 2) < 0)
			n = 0;
	}
	if (n <= 0) {
		loop_unwatch(w);
		close(fd);
	}
}

static void on_listener(struct loop_watch *w, uint32_t events)
{
	struct upstream *u = container_of(w, struct upstream, listener);
	int fd = accept4(w->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	(void)events;
	assert_int_equal(loop_watch(loop, &u->stream, fd, EPOLLIN, on_stream), 0);
}

/* A socket on 127.0.0.1, at `port` (0 = any); the port. */
static int bind_here(int type, in_port_t *port)
{
	struct sockaddr_in a = { .sin_family = AF_INET,
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
				 .sin_port = *port };
	socklen_t size = sizeof(a);
	int s = socket(AF_INET, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (bind(s, (struct sockaddr *)&a, sizeof(a)) < 0) {
		close(s);
		return -1;
	}
	getsockname(s, (struct sockaddr *)&a, &size);
	*port = a.sin_port;
	return s;
}

/* Both kinds of socket at one port. */
static void bind_both(int *udp, int *tcp, in_port_t *port)
{
	for (unsigned i = 0; i < 100; i++) {
		*port = 0;
		*udp = bind_here(SOCK_DGRAM, port);
		*tcp = bind_here(SOCK_STREAM, port);
		if (*udp >= 0 && *tcp >= 0 && listen(*tcp, 8) == 0)
			return;
		close(*udp);
		close(*tcp);
	}
	fail_msg("no free port");
}

static void upstream_start(struct upstream *u)
{
	int udp, tcp;
	in_port_t port;

	memset(u, 0, sizeof(*u));
	u->stream.fd = -1;
	bind_both(&udp, &tcp, &port);
	u->at.ip4 = (struct sockaddr_in){ .sin_family = AF_INET,
					  .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
					  .sin_port = port };
	assert_int_equal(loop_watch(loop, &u->udp, udp, EPOLLIN, on_udp), 0);
	assert_int_equal(loop_watch(loop, &u->listener, tcp, EPOLLIN, on_listener), 0);
}

static void upstream_stop(struct upstream *u)
{
	int fds[] = { u->udp.fd, u->listener.fd, u->stream.fd };

	loop_unwatch(&u->udp);
	loop_unwatch(&u->listener);
	loop_unwatch(&u->stream);
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		if (fds[i] >= 0)
			close(fds[i]);
}

static int setup(void **state)
{
	struct dns_settings o = { .domain = "partita.internal",
				  .network = 0x0a000000,
				  .mask = 0xffffff00,
				  .find_name = find_name,
				  .find_address = find_address,
				  .answer = on_answer,
				  .server_count = 2 };
	struct error err;

	(void)state;
	got_count = 0;
	assert_int_equal(loop_new(0, &loop, &err), 0);
	for (unsigned i = 0; i < 2; i++) {
		upstream_start(&ups[i]);
		o.servers[i] = ups[i].at;
	}
	o.loop = loop;
	return dns_new(&o, &dns, &err);
}

static int teardown(void **state)
{
	(void)state;
	dns_free(dns);
	upstream_stop(&ups[0]);
	upstream_stop(&ups[1]);
	loop_free(loop);
	return 0;
}

/* ---- clients ---- */

static size_t query(uint8_t *m, uint16_t id, const char *name, uint16_t type, uint16_t udp_size)
{
	struct writer w = writer_of(m, DNS_QUERY_MAX);

	writer_be16(&w, id);
	writer_be16(&w, 0x0100);
	writer_be16(&w, 1);
	writer_be32(&w, 0);
	writer_be16(&w, udp_size != 0);
	w.at += dns_write_name(name, m + w.at, 256);
	writer_be16(&w, type);
	writer_be16(&w, 1);
	if (udp_size) {
		writer_u8(&w, 0);
		writer_be16(&w, DNS_OPT);
		writer_be16(&w, udp_size);
		writer_be32(&w, 0);
		writer_be16(&w, 0);
	}
	return w.at;
}

static unsigned be(const uint8_t *m)
{
	return (unsigned)m[0] << 8 | m[1];
}

static size_t ask_now(const char *name, uint16_t type, uint8_t *answer)
{
	struct dns_who who = { { 1 } };
	uint8_t m[DNS_QUERY_MAX];
	size_t n = query(m, 0x1234, name, type, 0);

	return dns_ask(dns, &who, m, n, answer, DNS_QUERY_MAX);
}

/* Asks the servers; the answer's code, -1 = none within `ms`. */
static int ask(const char *name, unsigned ms, uint16_t udp_size)
{
	struct dns_who who = { { 1, 2, 3 } };
	uint8_t m[DNS_QUERY_MAX], answer[DNS_QUERY_MAX];
	size_t n = query(m, 0x1234, name, DNS_A, udp_size);
	unsigned before = got_count;

	assert_int_equal(dns_ask(dns, &who, m, n, answer, sizeof(answer)), 0);
	for (unsigned i = 0; i < ms / 10 && got_count == before; i++)
		loop_once(loop, 10);
	if (got_count == before)
		return -1;
	assert_memory_equal(&got_who, &who, sizeof(who));
	assert_int_equal(be(got), 0x1234);
	return got[3] & 15;
}

static void test_machines_are_answered_here(void **state)
{
	uint8_t a[DNS_QUERY_MAX];
	size_t n = ask_now("WEB.partita.Internal", DNS_A, a);

	(void)state;
	assert_int_equal(a[3] & 15, 0);
	assert_int_equal(be(a + 6), 1);
	assert_memory_equal(a + n - 4, "\x0a\0\0\x07", 4);
	ask_now("web.partita.internal", DNS_AAAA, a);
	assert_int_equal(a[3] & 15, 0);
	assert_int_equal(be(a + 6), 0);
	ask_now("db.partita.internal", DNS_A, a);
	assert_int_equal(a[3] & 15, DNS_NO_NAME);
	ask_now("x.web.partita.internal", DNS_A, a);
	assert_int_equal(a[3] & 15, DNS_NO_NAME);
	n = ask_now("7.0.0.10.in-addr.arpa", DNS_PTR, a);
	assert_int_equal(be(a + 6), 1);
	assert_memory_equal(a + n - 22, "\x03web\x07partita\x08internal\0", 22);
	ask_now("8.0.0.10.in-addr.arpa", DNS_PTR, a);
	assert_int_equal(a[3] & 15, DNS_NO_NAME);
	assert_int_equal(ups[0].asked, 0);
	/* What only ends alike is somebody else's. */
	assert_int_equal(ask_now("web.notpartita.internal", DNS_A, a), 0);
}

static void test_others_are_forwarded(void **state)
{
	(void)state;
	assert_int_equal(ask("www.example.org", 2000, 0), 0);
	assert_memory_equal(got + got_size - 4, "\x5d\xb8\xd8\x22", 4);
	assert_int_equal(ups[0].asked, 1);
	assert_int_equal(ups[1].asked, 0);
}

static void test_ids_and_ports_differ(void **state)
{
	unsigned ids = 0, ports = 0;

	(void)state;
	for (unsigned i = 0; i < 16; i++)
		assert_int_equal(ask("www.example.org", 2000, 0), 0);
	for (unsigned i = 1; i < 16; i++) {
		ids += ups[0].ids[i] == ups[0].ids[0];
		ports += ups[0].ports[i] == ups[0].ports[0];
	}
	assert_true(ids < 3);
	assert_true(ports < 3);
}

static void test_lies_are_not_believed(void **state)
{
	static const enum conduct lies[] = { OTHER_ID, OTHER_QUESTION, NO_ANSWER, SHORT };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(lies); i++) {
		ups[0].conduct = ups[1].conduct = lies[i];
		assert_int_equal(ask("www.example.org", 200, 0), -1);
		assert_int_equal(dns_counters(dns).lies, 1);
		/* What is asked again while it is under way is not sent again. */
		assert_int_equal(ask("www.example.org", 50, 0), -1);
		assert_int_equal(ups[0].asked, 1);
		teardown(NULL);
		setup(NULL);
	}
}

static void test_the_next_server_after_silence(void **state)
{
	(void)state;
	ups[0].conduct = SILENT;
	assert_int_equal(ask("www.example.org", 4000, 0), 0);
	assert_int_equal(ups[0].asked, 1);
	assert_int_equal(ups[1].asked, 1);
	assert_int_equal(dns_counters(dns).timeouts, 1);
}

static void test_the_next_server_after_failure(void **state)
{
	int fd;

	(void)state;
	ups[0].conduct = FAILING;
	assert_int_equal(ask("www.example.org", 1000, 0), 0);
	assert_int_equal(ups[1].asked, 1);
	ups[1].conduct = FAILING;
	assert_int_equal(ask("www.example.org", 1000, 0), DNS_FAILED);
	/* Nobody listens: the kernel says so at once. */
	fd = ups[0].udp.fd;
	loop_unwatch(&ups[0].udp);
	close(fd);
	ups[1].conduct = HONEST;
	assert_int_equal(ask("www.example.org", 1000, 0), 0);
}

static void test_nobody_answers(void **state)
{
	(void)state;
	ups[0].conduct = ups[1].conduct = SILENT;
	assert_int_equal(ask("www.example.org", 9000, 0), DNS_FAILED);
	assert_int_equal(ups[0].asked + ups[1].asked, DNS_TRIES);
}

static void test_what_is_too_long_is_truncated(void **state)
{
	(void)state;
	ups[0].conduct = LARGE;
	assert_int_equal(ask("www.example.org", 1000, 0), 0);
	assert_true(dns_answer_truncated(got));
	assert_true(got_size <= DNS_PLAIN_MAX);
	assert_int_equal(be(got + 6), 0);
	assert_int_equal(ask("www.example.org", 1000, 4096), 0);
	assert_true(dns_answer_truncated(got));
	ups[0].conduct = TRUNCATING;
	assert_int_equal(ask("www.example.org", 1000, 0), 0);
	assert_true(dns_answer_truncated(got));
}

static void test_queries_that_are_none(void **state)
{
	struct dns_who who = { { 1 } };
	uint8_t m[DNS_QUERY_MAX + 1], a[DNS_QUERY_MAX];
	size_t n = query(m, 7, "www.example.org", DNS_A, 1232);

	(void)state;
	for (size_t i = 0; i < n; i++) {
		size_t k = dns_ask(dns, &who, m, i, a, sizeof(a));

		assert_true(i < DNS_HEADER ? k == 0 : k > 0 && (a[3] & 15) == DNS_FORMAT);
	}
	m[2] |= 0x80; /* an answer */
	assert_int_equal(dns_ask(dns, &who, m, n, a, sizeof(a)), 0);
	m[2] = 0x29; /* an update */
	assert_true(dns_ask(dns, &who, m, n, a, sizeof(a)) > 0);
	assert_int_equal(a[3] & 15, DNS_NOT_IMPLEMENTED);
	m[2] = 1;
	m[12] = 0xc0; /* a pointer */
	assert_true(dns_ask(dns, &who, m, n, a, sizeof(a)) > 0);
	assert_int_equal(a[3] & 15, DNS_FORMAT);
	memset(m + 12, 1, sizeof(m) - 12); /* a name without end */
	assert_true(dns_ask(dns, &who, m, DNS_QUERY_MAX, a, sizeof(a)) > 0);
	assert_int_equal(a[3] & 15, DNS_FORMAT);
	assert_int_equal(dns_ask(dns, &who, m, DNS_QUERY_MAX + 1, a, sizeof(a)), 0);
	assert_int_equal(dns_counters(dns).forwarded, 0);
}

static void test_flights_are_bounded(void **state)
{
	uint8_t m[DNS_QUERY_MAX], a[DNS_QUERY_MAX];
	struct dns_who who = { { 1 } };

	(void)state;
	ups[0].conduct = ups[1].conduct = SILENT;
	for (unsigned i = 0; i < 100; i++)
		dns_ask(dns, &who, m, query(m, (uint16_t)i, "a.example", DNS_A, 0), a, sizeof(a));
	assert_int_equal(dns_counters(dns).forwarded, DNS_CLIENT_MAX);
	for (unsigned i = 0; i < 1000; i++) {
		who.bytes[1] = (uint8_t)i;
		dns_ask(dns, &who, m, query(m, (uint16_t)i, "b.example", DNS_A, 0), a, sizeof(a));
	}
	assert_int_equal(dns_counters(dns).forwarded, DNS_FLIGHTS_MAX);
	assert_int_equal(dns_counters(dns).dropped, 1100 - DNS_FLIGHTS_MAX);
}

/* ---- by TCP ---- */

static in_port_t listen_tcp(void)
{
	in_port_t port = 0;
	int s = bind_here(SOCK_STREAM, &port);
	struct error err;

	assert_int_equal(listen(s, 16), 0);
	assert_int_equal(dns_listen(dns, s, &err), 0);
	return port;
}

static int connect_tcp(in_port_t port)
{
	struct sockaddr_in a = { .sin_family = AF_INET,
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
				 .sin_port = port };
	int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(connect(s, (struct sockaddr *)&a, sizeof(a)), 0);
	return s;
}

static size_t wait_read(int s, void *bytes, size_t size, unsigned ms)
{
	for (unsigned i = 0; i < ms / 10; i++) {
		ssize_t n = recv(s, bytes, size, MSG_DONTWAIT);

		if (n >= 0)
			return (size_t)n;
		loop_once(loop, 10);
	}
	return 0;
}

static void test_tcp_in_pieces_and_again(void **state)
{
	uint8_t m[2 + DNS_QUERY_MAX], a[DNS_TCP_MAX];
	int s = connect_tcp(listen_tcp());
	size_t n;

	(void)state;
	for (unsigned round = 0; round < 3; round++) {
		n = query(m + 2, 99, round == 1 ? "web.partita.internal" : "www.example.org", DNS_A,
			  0);
		m[0] = 0;
		m[1] = (uint8_t)n;
		for (size_t i = 0; i < n + 2; i++) {
			assert_int_equal(write(s, m + i, 1), 1);
			loop_once(loop, 0);
		}
		n = wait_read(s, a, sizeof(a), 2000);
		assert_true(n > 2);
		assert_int_equal(be(a), n - 2);
		assert_int_equal(be(a + 2), 99);
		assert_int_equal(be(a + 2 + 6), 1);
	}
	assert_int_equal(ups[0].asked_tcp, 2);
	close(s);
	for (unsigned i = 0; i < 5; i++)
		loop_once(loop, 5);
}

static void test_tcp_liars_and_dead_servers(void **state)
{
	uint8_t m[2 + DNS_QUERY_MAX], a[DNS_TCP_MAX];
	int s = connect_tcp(listen_tcp()), fd = ups[0].listener.fd;
	size_t n = query(m + 2, 99, "www.example.org", DNS_A, 0);

	(void)state;
	m[0] = 0;
	m[1] = (uint8_t)n;
	loop_unwatch(&ups[0].listener);
	close(fd);
	ups[1].conduct = OTHER_QUESTION;
	assert_int_equal(write(s, m, n + 2), n + 2);
	n = wait_read(s, a, sizeof(a), 4000);
	assert_true(n > 2);
	assert_int_equal(a[2 + 3] & 15, DNS_FAILED);
	assert_int_equal(be(a + 2), 99);
	assert_int_equal(dns_counters(dns).lies, 1);
	close(s);
}

static void test_tcp_nonsense_ends_the_connection(void **state)
{
	in_port_t port = listen_tcp();
	uint8_t a[64];
	int s;

	(void)state;
	s = connect_tcp(port);
	assert_int_equal(write(s, "\xff\xff", 2), 2);
	assert_int_equal(wait_read(s, a, sizeof(a), 1000), 0);
	assert_int_equal(recv(s, a, sizeof(a), MSG_DONTWAIT), 0);
	close(s);
	s = connect_tcp(port);
	assert_int_equal(write(s,
			       "\0\x03"
			       "abc",
			       5),
			 5);
	wait_read(s, a, sizeof(a), 500);
	assert_true(recv(s, a, sizeof(a), MSG_DONTWAIT) == 0 || errno == ECONNRESET);
	close(s);
}

static void test_tcp_connections_are_bounded(void **state)
{
	in_port_t port = listen_tcp();
	int s[DNS_STREAMS_MAX + 8];
	unsigned ended = 0;
	uint8_t a[16];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(s); i++) {
		s[i] = connect_tcp(port);
		loop_once(loop, 50);
	}
	for (size_t i = 0; i < ARRAY_SIZE(s); i++) {
		ended += recv(s[i], a, sizeof(a), MSG_DONTWAIT) == 0;
		close(s[i]);
	}
	assert_int_equal(ended, 8);
}

/* ---- dig ---- */

static struct loop_watch dig_watch;

static void on_dig(struct loop_watch *w, uint32_t events)
{
	struct sockaddr_in from;
	socklen_t size = sizeof(from);
	uint8_t m[2048], a[DNS_QUERY_MAX];
	ssize_t n = recvfrom(w->fd, m, sizeof(m), 0, (struct sockaddr *)&from, &size);
	struct dns_who who;
	size_t k;

	(void)events;
	memcpy(who.bytes, &from, sizeof(who.bytes));
	k = n > 0 ? dns_ask(dns, &who, m, (size_t)n, a, sizeof(a)) : 0;
	if (k)
		sendto(w->fd, a, k, 0, (struct sockaddr *)&from, size);
}

/* What dig prints, in `out`. */
static void dig(in_port_t port, const char *arguments, char *out, size_t room)
{
	char command[256];
	size_t n = 0;
	int pipes[2];
	pid_t pid;

	assert_int_equal(pipe(pipes), 0);
	pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(pipes[1], 1);
		snprintf(command, sizeof(command), "exec dig @127.0.0.1 -p %u +tries=1 %s",
			 ntohs(port), arguments);
		execl("/bin/sh", "sh", "-c", command, (char *)NULL);
		_exit(127);
	}
	close(pipes[1]);
	for (unsigned i = 0; i < 1000; i++) {
		struct pollfd p = { .fd = pipes[0], .events = POLLIN };
		ssize_t k;

		loop_once(loop, 10);
		if (poll(&p, 1, 0) != 1)
			continue;
		k = read(pipes[0], out + n, room - 1 - n);
		if (k <= 0)
			break;
		n += (size_t)k;
	}
	out[n] = '\0';
	close(pipes[0]);
	waitpid(pid, NULL, 0);
}

static void test_dig(void **state)
{
	char out[16384];
	in_port_t port;
	int udp, tcp;
	struct error err;

	(void)state;
	if (system("command -v dig >/dev/null")) {
		print_message("there is no dig\n");
		skip();
	}
	bind_both(&udp, &tcp, &port);
	assert_int_equal(loop_watch(loop, &dig_watch, udp, EPOLLIN, on_dig), 0);
	assert_int_equal(dns_listen(dns, tcp, &err), 0);
	dig(port, "web.partita.internal", out, sizeof(out));
	assert_non_null(strstr(out, "status: NOERROR"));
	assert_non_null(strstr(out, "10.0.0.7"));
	assert_non_null(strstr(out, "flags: qr aa rd ra;"));
	assert_null(strstr(out, "WARNING"));
	dig(port, "+short -x 10.0.0.7", out, sizeof(out));
	assert_string_equal(out, "web.partita.internal.\n");
	dig(port, "nobody.partita.internal", out, sizeof(out));
	assert_non_null(strstr(out, "status: NXDOMAIN"));
	dig(port, "+tcp +short www.example.org", out, sizeof(out));
	assert_string_equal(out, "93.184.216.34\n");
	loop_unwatch(&dig_watch);
	close(udp);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_machines_are_answered_here),
		TEST(test_others_are_forwarded),
		TEST(test_ids_and_ports_differ),
		TEST(test_lies_are_not_believed),
		TEST(test_the_next_server_after_silence),
		TEST(test_the_next_server_after_failure),
		TEST(test_nobody_answers),
		TEST(test_what_is_too_long_is_truncated),
		TEST(test_queries_that_are_none),
		TEST(test_flights_are_bounded),
		TEST(test_tcp_in_pieces_and_again),
		TEST(test_tcp_liars_and_dead_servers),
		TEST(test_tcp_nonsense_ends_the_connection),
		TEST(test_tcp_connections_are_bounded),
		TEST(test_dig),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
