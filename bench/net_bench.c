// SPDX-License-Identifier: MIT
/*
 * Load for rows/switch.sh.
 *
 *   net-bench ring SIZE        frames a second of CPU that the switch moves from port to port
 *   net-bench send IFACE SIZE SECONDS    floods an interface with frames to 02:00:00:00:00:02
 *   net-bench count IFACE SECONDS        frames that arrived there meanwhile
 *   net-bench switch IFACE IFACE         partita's switch between two interfaces, until killed
 */
#include "lib/cleanup.h"
#include "net/switch.h"
#include "net/uplink_wire.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>

#define BATCH  64u
#define ROUNDS 200u
#define SECOND UINT64_C(1000000000)

static struct error err;

static void check(int r, const char *what)
{
	if (r >= 0)
		return;
	fprintf(stderr, "net-bench: %s: %s\n", what, *err.message ? err.message : strerror(errno));
	exit(1);
}

static uint64_t now_ns(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec;
}

static void frame_make(uint8_t *frame, size_t size)
{
	memset(frame, 0, size);
	frame[0] = frame[6] = 2;
	frame[5] = 2;
	frame[11] = 1;
	frame[12] = 0x08;
	frame[14] = 0x45;
	frame[16] = (uint8_t)((size - 14) >> 8);
	frame[17] = (uint8_t)(size - 14);
	frame[22] = 64;
	frame[23] = 17;
	frame[29] = 1;
	frame[33] = 2;
}

/* --- rings --- */

static struct net_port *guest_add(struct net_switch *s, const char *id, uint8_t mac)
{
	struct net_settings settings = net_settings_default;
	struct net_switch_port *p;
	struct net_port *a, *b;
	int fds[NET_PORT_FDS];

	settings.mac = (net_mac){ { 2, 0, 0, 0, 0, mac } };
	check(net_switch_add(s, id, &settings, &p, &err), "port");
	check(net_port_new(NET_RING_SIZE, &a, &err), "port");
	net_port_fds(a, fds);
	check(net_port_open(fds, &b, &err), "port");
	net_switch_plug(p, a);
	net_port_take(b, NET_TAKES_ALL);
	return b;
}

/* Only the switch's own time counts: what fills and empties its rings is others'. */
static int run_ring(size_t size)
{
	const struct net_switch_options options = { 0 };
	static uint8_t frame[NET_FRAME_MAX];
	const struct iovec iov = { frame, size };
	uint64_t spent = 0, frames = 0, deadline, start;
	struct net_port *from, *to;
	struct net_switch *s;
	struct net_frame f;

	check(net_switch_new(&options, &s, &err), "switch");
	from = guest_add(s, "a", 1);
	to = guest_add(s, "b", 2);
	frame_make(frame, size);
	while (spent < SECOND) {
		for (unsigned r = 0; r < ROUNDS; r++) {
			for (unsigned i = 0; i < BATCH; i++)
				check(net_port_send(from, NULL, &iov, 1, size), "send");
			net_port_flush(from);
			start = now_ns(CLOCK_THREAD_CPUTIME_ID);
			for (struct net_switch_port *p = net_switch_next(s, NULL); p;
			     p = net_switch_next(s, p))
				net_switch_wake(p);
			(void)net_switch_run(s, start, &deadline);
			spent += now_ns(CLOCK_THREAD_CPUTIME_ID) - start;
			for (; net_port_receive(to, &f) == 1; frames++)
				;
			net_port_release(to);
		}
	}
	printf("%.0f\n", (double)frames * (double)SECOND / (double)spent);
	net_switch_free(s);
	net_port_free(from);
	net_port_free(to);
	return 0;
}

/* --- interfaces --- */

static int packet_socket(const char *name, int protocol)
{
	struct sockaddr_ll at = {
		.sll_family = AF_PACKET,
		.sll_protocol = htons((uint16_t)protocol),
		.sll_ifindex = (int)if_nametoindex(name),
	};
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	check(fd, "packet socket");
	check(bind(fd, (struct sockaddr *)&at, sizeof(at)), name);
	return fd;
}

static int run_send(const char *name, size_t size, unsigned seconds)
{
	static uint8_t frame[NET_FRAME_MAX];
	struct iovec iov = { frame, size };
	struct mmsghdr messages[BATCH] = { 0 };
	uint64_t end = now_ns(CLOCK_MONOTONIC) + seconds * SECOND, sent = 0;
	int fd = packet_socket(name, 0);

	frame_make(frame, size);
	for (unsigned i = 0; i < BATCH; i++)
		messages[i].msg_hdr = (struct msghdr){ .msg_iov = &iov, .msg_iovlen = 1 };
	while (now_ns(CLOCK_MONOTONIC) < end) {
		int n = sendmmsg(fd, messages, BATCH, 0);

		sent += n > 0 ? (uint64_t)n : 0;
	}
	printf("%llu\n", (unsigned long long)sent);
	return 0;
}

/* By the interface's own counter. */
static uint64_t received(const char *name)
{
	char path[200];
	unsigned long long n = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/sys/class/net/%s/statistics/rx_packets", name);
	f = fopen(path, "re");
	if (!f || fscanf(f, "%llu", &n) != 1)
		check(-1, path);
	fclose(f);
	return n;
}

static int run_count(const char *name, unsigned seconds)
{
	uint64_t before = received(name);
	struct timespec t = { .tv_sec = seconds };

	nanosleep(&t, NULL);
	printf("%llu\n", (unsigned long long)(received(name) - before));
	return 0;
}

/* --- the switch --- */

struct side {
	struct loop_watch watch;
	struct net_switch_port *port;
	struct between *owner;
};

struct between {
	struct loop *loop;
	struct net_switch *s;
	struct loop_task task;
	struct side sides[2];
};

static void on_run(struct loop_task *t)
{
	struct between *b = container_of(t, struct between, task);
	uint64_t deadline;

	if (net_switch_run(b->s, loop_now(b->loop), &deadline))
		loop_defer(b->loop, &b->task);
}

static void on_ready(struct loop_watch *w, uint32_t events)
{
	struct side *side = container_of(w, struct side, watch);

	(void)events;
	net_switch_wake(side->port);
	loop_defer(side->owner->loop, &side->owner->task);
}

static void on_link(void *context, bool up, const char *words)
{
	(void)context;
	(void)up;
	(void)words;
}

static int run_switch(char *const names[2])
{
	const struct net_switch_options options = { 0 };
	static struct between b;

	check(loop_new(0, &b.loop, &err), "loop");
	loop_task_init(&b.task, on_run);
	check(net_switch_new(&options, &b.s, &err), "switch");
	for (unsigned i = 0; i < 2; i++) {
		const struct net_wire_options o = {
			.loop = b.loop,
			.fd = packet_socket(names[i], ETH_P_ALL),
			.promiscuous = true,
			.link = on_link,
		};
		struct net_uplink *u;

		b.sides[i].owner = &b;
		check(net_switch_add(b.s, names[i], &net_settings_uplink, &b.sides[i].port, &err),
		      "port");
		check(net_wire_new(&o, &u, &err), "wire");
		check(loop_watch(b.loop, &b.sides[i].watch, u->fd, u->events | EPOLLET, on_ready),
		      "watch");
		net_switch_plug_uplink(b.sides[i].port, u);
	}
	loop_defer(b.loop, &b.task);
	return loop_run(b.loop) < 0;
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "ring"))
		return run_ring((size_t)atoi(argv[2]));
	if (argc == 5 && !strcmp(argv[1], "send"))
		return run_send(argv[2], (size_t)atoi(argv[3]), (unsigned)atoi(argv[4]));
	if (argc == 4 && !strcmp(argv[1], "count"))
		return run_count(argv[2], (unsigned)atoi(argv[3]));
	if (argc == 4 && !strcmp(argv[1], "switch"))
		return run_switch(argv + 2);
	fputs("usage: net-bench ring|send|count|switch ...\n", stderr);
	return 2;
}
