// SPDX-License-Identifier: MIT
/*
 * traffic: makes and measures network traffic between guests and host, linked statically.
 *
 *   traffic server PORT                     serves all of the following, until it is killed
 *   traffic send ADDRESS PORT STREAMS MIB   TCP to the server, so many MiB on all streams together
 *   traffic get ADDRESS PORT STREAMS MIB    the other way
 *   traffic echo ADDRESS PORT COUNT         UDP, one datagram at a time, there and back
 *   traffic flood ADDRESS PORT COUNT        UDP, COUNT datagrams of 64-byte frames; the server says
 *                                           how many it got
 *
 * What is sent is a pattern of its place in the stream, and is compared: a byte that is not right
 * ends with status 1. Results: "traffic: NAME UNITS SECONDS" (MiB, round trips, datagrams).
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BLOCK   (128u << 10)
#define PERIOD  (BLOCK * 2 + 4096)
#define STREAMS 16u
#define UDP     22u /* bytes that make a frame of 64 */

static unsigned char pattern[PERIOD];

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "traffic: %s: %s\n", what, strerror(errno));
	exit(1);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Repeats after 4 KiB - 1, so that a shift of whole segments or pages is seen. */
static void make_pattern(void)
{
	for (unsigned i = 0; i < PERIOD; i++)
		pattern[i] = (unsigned char)(i % 4095 * 31 >> 3);
}

static const unsigned char *pattern_at(uint64_t at)
{
	return pattern + at % 4095;
}

static void write_all(int s, const void *data, size_t size)
{
	for (const char *p = data; size;) {
		ssize_t n = write(s, p, size);

		if (n <= 0)
			die("write");
		p += n;
		size -= (size_t)n;
	}
}

static void read_all(int s, void *data, size_t size)
{
	for (char *p = data; size;) {
		ssize_t n = read(s, p, size);

		if (n <= 0)
			die("read");
		p += n;
		size -= (size_t)n;
	}
}

static void push(int s, uint64_t bytes)
{
	for (uint64_t at = 0; at < bytes;) {
		size_t n = bytes - at < BLOCK ? (size_t)(bytes - at) : BLOCK;

		write_all(s, pattern_at(at), n);
		at += n;
	}
}

static void pull(int s, uint64_t bytes)
{
	unsigned char *buffer = malloc(BLOCK);

	for (uint64_t at = 0; at < bytes;) {
		ssize_t n = read(s, buffer, bytes - at < BLOCK ? (size_t)(bytes - at) : BLOCK);

		if (n <= 0)
			die("the stream ended");
		if (memcmp(buffer, pattern_at(at), (size_t)n)) {
			fprintf(stderr, "traffic: what arrived is not what was sent\n");
			exit(1);
		}
		at += (uint64_t)n;
	}
	free(buffer);
}

struct order {
	uint64_t bytes;
	uint32_t push; /* the server sends */
};

/* --- the server --- */

static void *serve_stream(void *arg)
{
	int s = (int)(intptr_t)arg;
	struct order o;
	char done = 1;

	read_all(s, &o, sizeof(o));
	if (o.push) {
		push(s, o.bytes);
		read_all(s, &done, 1);
	} else {
		pull(s, o.bytes);
		write_all(s, &done, 1);
	}
	close(s);
	return NULL;
}

/* Echoes what begins with 'e', counts what begins with 'f', and says the number to 'c'. */
static void *serve_datagrams(void *arg)
{
	int s = (int)(intptr_t)arg;
	uint32_t count = 0;
	char buffer[2048];

	for (;;) {
		struct sockaddr_in from;
		socklen_t size = sizeof(from);
		ssize_t n = recvfrom(s, buffer, sizeof(buffer), 0, (struct sockaddr *)&from, &size);

		if (n <= 0)
			continue;
		if (buffer[0] == 'f') {
			count++;
			continue;
		}
		if (buffer[0] == 'c') {
			memcpy(buffer + 1, &count, sizeof(count));
			count = 0;
		}
		(void)!sendto(s, buffer, (size_t)n, 0, (struct sockaddr *)&from, size);
	}
	return NULL;
}

static struct sockaddr_in address(const char *host, const char *port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port)) };

	if (!inet_aton(host, &a.sin_addr))
		die(host);
	return a;
}

static int server(const char *port)
{
	struct sockaddr_in a = address("0.0.0.0", port);
	int l = socket(AF_INET, SOCK_STREAM, 0), u = socket(AF_INET, SOCK_DGRAM, 0), one = 1;
	int room = 4 << 20;
	pthread_t t;

	setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	setsockopt(u, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room));
	if (bind(l, (void *)&a, sizeof(a)) < 0 || listen(l, 64) < 0 ||
	    bind(u, (void *)&a, sizeof(a)) < 0)
		die("cannot listen");
	pthread_create(&t, NULL, serve_datagrams, (void *)(intptr_t)u);
	puts("traffic: serving");
	fflush(stdout);
	for (;;) {
		int s = accept(l, NULL, NULL);

		if (s >= 0 && !pthread_create(&t, NULL, serve_stream, (void *)(intptr_t)s))
			pthread_detach(t);
	}
}

/* --- the client --- */

struct stream {
	pthread_t thread;
	struct sockaddr_in to;
	struct order order;
};

static void *client_stream(void *arg)
{
	struct stream *x = arg;
	int s = socket(AF_INET, SOCK_STREAM, 0);
	char done = 1;

	if (connect(s, (void *)&x->to, sizeof(x->to)) < 0)
		die("cannot connect");
	write_all(s, &x->order, sizeof(x->order));
	if (x->order.push) {
		pull(s, x->order.bytes);
		write_all(s, &done, 1);
	} else {
		push(s, x->order.bytes);
		read_all(s, &done, 1);
	}
	close(s);
	return NULL;
}

static int streams(char **argv)
{
	static struct stream all[STREAMS];
	unsigned count = (unsigned)atoi(argv[3]), mib = (unsigned)atoi(argv[4]);
	double begin = now();

	if (!count || count > STREAMS)
		die("streams");
	for (unsigned i = 0; i < count; i++) {
		all[i].to = address(argv[1], argv[2]);
		all[i].order.bytes = ((uint64_t)mib << 20) / count;
		all[i].order.push = !strcmp(argv[0], "get");
		pthread_create(&all[i].thread, NULL, client_stream, &all[i]);
	}
	for (unsigned i = 0; i < count; i++)
		pthread_join(all[i].thread, NULL);
	printf("traffic: %s%u %u %.6f\n", argv[0], count, mib, now() - begin);
	return 0;
}

static int datagrams(char **argv)
{
	struct sockaddr_in to = address(argv[1], argv[2]);
	int s = socket(AF_INET, SOCK_DGRAM, 0), lost = 0;
	struct timeval limit = { 1, 0 };
	unsigned count = (unsigned)atoi(argv[3]), echo = argv[0][0] == 'e';
	char m[UDP] = { argv[0][0] }, back[UDP];
	uint32_t got;
	double begin, end;

	setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	if (connect(s, (void *)&to, sizeof(to)) < 0)
		die("cannot connect");
	begin = now();
	for (unsigned i = 0; i < count; i++) {
		memcpy(m + 1, &i, sizeof(i));
		if (send(s, m, sizeof(m), 0) < 0 && errno != ENOBUFS)
			die("send");
		if (echo && recv(s, back, sizeof(back), 0) != sizeof(back) && ++lost > 10)
			die("no echo");
	}
	end = now();
	m[0] = 'c';
	for (int i = 0; !echo; i++) {
		if (send(s, m, sizeof(m), 0) < 0 && errno != ENOBUFS)
			die("send");
		if (recv(s, back, sizeof(back), 0) == sizeof(back))
			break;
		if (i == 10)
			die("no count");
	}
	memcpy(&got, back + 1, sizeof(got));
	if (echo)
		printf("traffic: echo %u %.6f\n", count - (unsigned)lost, end - begin);
	else
		printf("traffic: flood %u %.6f\n", got, end - begin);
	return 0;
}

int main(int argc, char **argv)
{
	make_pattern();
	signal(SIGPIPE, SIG_IGN);
	if (argc == 3 && !strcmp(argv[1], "server"))
		return server(argv[2]);
	if (argc == 6 && (!strcmp(argv[1], "send") || !strcmp(argv[1], "get")))
		return streams(argv + 1);
	if (argc == 5 && (!strcmp(argv[1], "echo") || !strcmp(argv[1], "flood")))
		return datagrams(argv + 1);
	fprintf(stderr, "usage: traffic server PORT | send|get ADDRESS PORT STREAMS MIB |\n"
			"       echo|flood ADDRESS PORT COUNT\n");
	return 2;
}
