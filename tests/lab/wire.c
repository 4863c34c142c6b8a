// SPDX-License-Identifier: MIT
/*
 * wire: a switch for tests and measurements: the switch library in one process without settings.
 * It plugs adapters of running workers into itself by their control sockets, and a tap of the host
 * if one is named, says "wire: up", and moves frames until it is killed.
 *
 *   wire [tap:NAME] [add:CONTROL,ID,MAC | connect:CONTROL,ID]...
 *
 * `add` gives the worker behind the socket CONTROL a new adapter, `connect` replugs one.
 */
#include "event/loop.h"
#include "net/uplink_wire.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define ENDS_MAX  16
#define RING_SIZE (4 * NET_RING_SIZE) /* guests and this may share a processor */

struct end {
	struct loop_watch watch;
	struct net_switch_port *port;
};

static struct loop *loop;
static struct net_switch *net;
static struct loop_timer again;
static struct end ends[ENDS_MAX];
static unsigned end_count;

static _Noreturn void die(const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	fputs("wire: ", stderr);
	vfprintf(stderr, format, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(1);
}

static uint64_t clock_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void run(void)
{
	uint64_t deadline;

	if (net_switch_run(net, clock_now(), &deadline))
		loop_timer_arm(&again, 1);
	else if (deadline)
		loop_timer_arm(&again, deadline);
	else
		loop_timer_disarm(&again);
}

static void on_again(struct loop_timer *t)
{
	(void)t;
	run();
}

static void on_ready(struct loop_watch *w, uint32_t events)
{
	struct end *e = (struct end *)((char *)w - offsetof(struct end, watch));

	(void)events;
	net_switch_wake(e->port);
	run();
}

static struct end *end_new(const char *id)
{
	/* Whoever it is: nothing is guarded here. */
	struct net_settings settings = net_settings_uplink;
	struct error err;
	struct end *e;

	if (end_count == ENDS_MAX)
		die("too many ends");
	e = &ends[end_count++];
	if (net_switch_add(net, id, &settings, &e->port, &err) < 0)
		die("%s", err.message);
	return e;
}

static void end_watch(struct end *e, int fd, uint32_t events)
{
	if (loop_watch(loop, &e->watch, fd, events, on_ready) < 0)
		die("cannot watch an end");
	net_switch_wake(e->port);
}

static void on_link(void *context, bool up, const char *words)
{
	(void)context;
	(void)up;
	(void)words;
}

static void plug_tap(const char *name)
{
	struct ifreq q = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR };
	struct net_wire_options o = { .loop = loop, .link = on_link };
	struct net_uplink *u;
	struct end *e = end_new("tap");
	struct error err;

	o.fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK);
	snprintf(q.ifr_name, sizeof(q.ifr_name), "%s", name);
	if (o.fd < 0 || ioctl(o.fd, TUNSETIFF, &q) < 0)
		die("cannot make the tap %s: %s", name, strerror(errno));
	if (net_wire_new(&o, &u, &err) < 0)
		die("%s", err.message);
	net_switch_plug_uplink(e->port, u);
	end_watch(e, u->fd, u->events);
}

/* A line and two descriptors to the worker; its answer must say that it went well. */
static void command(const char *path, const char *line, const int fds[NET_PORT_FDS])
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int s = socket(AF_UNIX, SOCK_STREAM, 0);
	union {
		struct cmsghdr h;
		char room[CMSG_SPACE(NET_PORT_FDS * sizeof(int))];
	} control = { 0 };
	struct iovec iov = { (void *)line, strlen(line) };
	struct msghdr m = { .msg_iov = &iov,
			    .msg_iovlen = 1,
			    .msg_control = &control,
			    .msg_controllen = sizeof(control) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	char answer[4096];
	size_t got = 0;

	snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(NET_PORT_FDS * sizeof(int));
	memcpy(CMSG_DATA(c), fds, NET_PORT_FDS * sizeof(int));
	if (s < 0 || connect(s, (struct sockaddr *)&a, sizeof(a)) < 0 || sendmsg(s, &m, 0) < 0)
		die("cannot reach %s: %s", path, strerror(errno));
	while (got < sizeof(answer) - 1) {
		ssize_t n = read(s, answer + got, sizeof(answer) - 1 - got);

		if (n <= 0)
			die("%s: no answer", path);
		got += (size_t)n;
		answer[got] = '\0';
		if (strstr(answer, "\"ok\""))
			break;
	}
	if (!strstr(answer, "\"ok\":true"))
		die("%s: %s", path, answer);
	close(s);
}

static void plug_adapter(char *words, bool add)
{
	char *path = strtok(words, ","), *id = strtok(NULL, ","), *mac = strtok(NULL, ",");
	char line[512];
	struct net_port *port;
	struct error err;
	struct end *e;
	int fds[NET_PORT_FDS];

	if (!path || !id || (add && !mac))
		die("add:CONTROL,ID,MAC or connect:CONTROL,ID");
	e = end_new(id);
	if (net_port_new(RING_SIZE, &port, &err) < 0)
		die("%s", err.message);
	net_port_fds(port, fds);
	if (add)
		snprintf(line, sizeof(line),
			 "{\"command\":\"adapter-add\",\"adapter\":\"%s\",\"mac\":\"%s\",\"name\":"
			 "\"wire\",\"memory\":0,\"socket\":1}\n",
			 id, mac);
	else
		snprintf(line, sizeof(line),
			 "{\"command\":\"adapter-connect\",\"adapter\":\"%s\",\"memory\":0,"
			 "\"socket\":1}\n",
			 id);
	command(path, line, fds);
	for (unsigned i = 0; i < NET_PORT_FDS; i++)
		close(fds[i]);
	net_switch_plug(e->port, port);
	end_watch(e, net_port_fd(port), EPOLLIN | EPOLLET);
}

int main(int argc, char **argv)
{
	const struct net_switch_options o = { 0 };
	struct error err;

	if (loop_new(0, &loop, &err) < 0 || net_switch_new(&o, &net, &err) < 0)
		die("%s", err.message);
	loop_timer_init(loop, &again, on_again);
	for (int i = 1; i < argc; i++) {
		if (!strncmp(argv[i], "tap:", 4))
			plug_tap(argv[i] + 4);
		else if (!strncmp(argv[i], "add:", 4))
			plug_adapter(argv[i] + 4, true);
		else if (!strncmp(argv[i], "connect:", 8))
			plug_adapter(argv[i] + 8, false);
		else
			die("what is \"%s\"?", argv[i]);
	}
	puts("wire: up");
	fflush(stdout);
	run();
	return loop_run(loop) < 0;
}
