// SPDX-License-Identifier: MIT
/*
 * sock: both ends of sockets between guest and host, for tests.
 *
 * In the guest:  serve PORT            for each connection: "e" echoes what follows, "t" answers
 *                                      each byte with CLOCK_REALTIME in ns, as a line
 *                talk PORT TEXT        connects to the host, sends, ends, prints what comes
 * On the host:   echo PATH PORT BYTES  sends so many through the guest and compares
 *                clock PATH PORT       how far the guest's clock is from ours, in us: the least of
 *                                      50 tries, with half of its round trip
 *                listen PATH PORT      takes one connection of the guest's and answers it turned
 *                                      round
 *                command PATH LINE FILE TEXT  a line with a descriptor to a control socket, then
 *                                      waits for a text, or a refusal
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

static _Noreturn void fail(const char *what)
{
	fprintf(stderr, "sock: %s: %s\n", what, strerror(errno));
	exit(1);
}

static int64_t clock_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void write_all(int fd, const char *data, size_t size)
{
	while (size) {
		ssize_t n = write(fd, data, size);

		if (n < 0)
			fail("write");
		data += n;
		size -= (size_t)n;
	}
}

/* --- the guest's --- */

static void serve_one(int fd)
{
	static char data[65536];
	char how;
	ssize_t n;

	if (read(fd, &how, 1) != 1)
		exit(1);
	while ((n = read(fd, data, sizeof(data))) > 0) {
		char line[32];

		if (how == 'e') {
			write_all(fd, data, (size_t)n);
			continue;
		}
		snprintf(line, sizeof(line), "%" PRId64 "\n", clock_ns());
		write_all(fd, line, strlen(line));
	}
	exit(0);
}

static int vsock(void)
{
	int fd = socket(AF_VSOCK, SOCK_STREAM, 0);

	if (fd < 0)
		fail("AF_VSOCK");
	return fd;
}

static int guest_serve(char **a)
{
	struct sockaddr_vm vm = { .svm_family = AF_VSOCK,
				  .svm_cid = VMADDR_CID_ANY,
				  .svm_port = (unsigned)atoi(a[0]) };
	int fd = vsock();

	signal(SIGCHLD, SIG_IGN);
	if (bind(fd, (struct sockaddr *)&vm, sizeof(vm)) < 0 || listen(fd, 16) < 0)
		fail("listen");
	puts("sock: listens");
	fflush(stdout);
	for (;;) {
		int one = accept(fd, NULL, NULL);

		if (one >= 0 && !fork())
			serve_one(one);
		close(one);
	}
}

static int guest_talk(char **a)
{
	struct sockaddr_vm vm = { .svm_family = AF_VSOCK,
				  .svm_cid = VMADDR_CID_HOST,
				  .svm_port = (unsigned)atoi(a[0]) };
	char data[256];
	int fd = vsock();
	ssize_t n;

	if (connect(fd, (struct sockaddr *)&vm, sizeof(vm)) < 0)
		fail("connect");
	write_all(fd, a[1], strlen(a[1]));
	shutdown(fd, SHUT_WR);
	printf("sock: ");
	while ((n = read(fd, data, sizeof(data))) > 0)
		fwrite(data, 1, (size_t)n, stdout);
	puts("");
	return n < 0;
}

/* --- the host's --- */

static int unix_connect(const char *path)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(un.sun_path, sizeof(un.sun_path), "%s", path);
	if (connect(fd, (struct sockaddr *)&un, sizeof(un)) < 0)
		fail(path);
	return fd;
}

static void expect_ok(int fd)
{
	char line[256];
	size_t n = 0;

	while (n < sizeof(line) - 1 && read(fd, line + n, 1) == 1 && line[n++] != '\n')
		;
	line[n] = '\0';
	if (strncmp(line, "OK ", 3)) {
		fprintf(stderr, "sock: %s\n", *line ? line : "closed");
		exit(1);
	}
}

static int host_say(char **a, const char *word)
{
	char line[64];
	int fd = unix_connect(a[0]);

	snprintf(line, sizeof(line), "%s %s\n", word, a[1]);
	write_all(fd, line, strlen(line));
	expect_ok(fd);
	return fd;
}

static char byte_at(size_t i)
{
	return (char)(i * 31 + i / 251);
}

static int host_echo(char **a)
{
	size_t size = strtoul(a[2], NULL, 10), sent = 0, got = 0;
	static char data[16384];
	int fd = host_say(a, "CONNECT");

	write_all(fd, "e", 1);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	while (got < size) {
		struct pollfd p = { fd, (short)(POLLIN | (sent < size ? POLLOUT : 0)), 0 };
		ssize_t n;

		if (poll(&p, 1, 60000) <= 0)
			fail("nothing moves");
		if (p.revents & POLLOUT) {
			size_t room = size - sent < sizeof(data) ? size - sent : sizeof(data);

			for (size_t i = 0; i < room; i++)
				data[i] = byte_at(sent + i);
			n = write(fd, data, room);
			sent += n > 0 ? (size_t)n : 0;
			if (sent == size)
				shutdown(fd, SHUT_WR);
		}
		n = p.revents & POLLIN ? read(fd, data, sizeof(data)) : -1;
		if (!n)
			break;
		for (ssize_t i = 0; i < n; i++)
			if (data[i] != byte_at(got + (size_t)i)) {
				printf("byte %zu is another\n", got + (size_t)i);
				return 1;
			}
		got += n > 0 ? (size_t)n : 0;
	}
	printf("sock: %zu of %zu bytes came back\n", got, size);
	return got != size;
}

static int host_clock(char **a)
{
	int64_t best = INT64_MAX, off = 0;
	int fd = host_say(a, "CONNECT");

	write_all(fd, "t", 1);
	for (int i = 0; i < 50; i++) {
		int64_t before = clock_ns(), after, guest;
		char line[64];
		ssize_t n;

		write_all(fd, "x", 1);
		n = read(fd, line, sizeof(line) - 1);
		after = clock_ns();
		if (n <= 0)
			fail("the guest does not answer");
		line[n] = '\0';
		guest = strtoll(line, NULL, 10);
		if (after - before < best) {
			best = after - before;
			off = guest - (before + (after - before) / 2);
		}
	}
	printf("off %" PRId64 " us, half of the round trip %" PRId64 " us\n", off / 1000,
	       best / 2000);
	return 0;
}

static int take_descriptor(int fd)
{
	_Alignas(struct cmsghdr) char space[CMSG_SPACE(sizeof(int))];
	char line[128];
	struct iovec iov = { line, sizeof(line) };
	struct msghdr m = { .msg_iov = &iov,
			    .msg_iovlen = 1,
			    .msg_control = space,
			    .msg_controllen = sizeof(space) };
	struct cmsghdr *c;
	int taken;

	if (recvmsg(fd, &m, 0) <= 0 || !(c = CMSG_FIRSTHDR(&m)))
		fail("no connection came");
	memcpy(&taken, CMSG_DATA(c), sizeof(taken));
	return taken;
}

static int host_listen(char **a)
{
	int listener = host_say(a, "LISTEN"), fd;
	char data[1024];
	ssize_t n, got = 0;

	puts("sock: listens");
	fflush(stdout);
	fd = take_descriptor(listener);
	while ((n = read(fd, data + got, sizeof(data) - (size_t)got)) > 0)
		got += n;
	for (ssize_t i = got; i--;)
		write_all(fd, data + i, 1);
	printf("sock: %.*s\n", (int)got, data);
	return 0;
}

static int host_command(char **a)
{
	_Alignas(struct cmsghdr) char space[CMSG_SPACE(sizeof(int))] = { 0 };
	struct cmsghdr *c = (struct cmsghdr *)space;
	static char said[1 << 16];
	char line[1024];
	struct iovec iov = { line, 0 };
	struct msghdr m = { .msg_iov = &iov,
			    .msg_iovlen = 1,
			    .msg_control = space,
			    .msg_controllen = sizeof(space) };
	int fd = unix_connect(a[0]), file = open(a[2], O_RDONLY);
	size_t have = 0;
	ssize_t n;

	if (file < 0)
		fail(a[2]);
	iov.iov_len = (size_t)snprintf(line, sizeof(line), "%s\n", a[1]);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &file, sizeof(file));
	if (sendmsg(fd, &m, 0) < 0)
		fail("sendmsg");
	while (!strstr(said, a[3]) && !strstr(said, "\"ok\":false") &&
	       (n = read(fd, said + have, sizeof(said) - 1 - have)) > 0)
		have += (size_t)n;
	fputs(said, stdout);
	return !strstr(said, a[3]);
}

static const struct {
	const char *name;
	int arguments;
	int (*run)(char **arguments);
} modes[] = {
	{ "serve", 1, guest_serve }, { "talk", 2, guest_talk },    { "echo", 3, host_echo },
	{ "clock", 2, host_clock },  { "listen", 2, host_listen }, { "command", 4, host_command },
};

int main(int argc, char **argv)
{
	alarm(120);
	for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]) && argc > 1; i++)
		if (!strcmp(argv[1], modes[i].name) && argc == modes[i].arguments + 2) {
			if (!strcmp(argv[1], "serve"))
				alarm(0);
			return modes[i].run(argv + 2);
		}
	fprintf(stderr, "usage: see the head of tests/lab/sock.c\n");
	return 2;
}
