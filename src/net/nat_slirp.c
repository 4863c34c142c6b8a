// SPDX-License-Identifier: MIT
/*
 * The way out of a NAT switch without rights: libslirp makes of machines' packets sockets of this
 * process. It answers ARP and ping for the router, and advertises it; DHCP and DNS are ours. DNS by
 * TCP reaches the forwarder through a socket in a folder of ours, since libslirp connects to
 * nothing else here; 127.0.0.1 of the host is out of reach. Which descriptors it wants watched it
 * says before each round. Loop's thread.
 */
#include "lib/cleanup.h"
#include "lib/unix_socket.h"
#include "net/nat_private.h"

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <slirp/libslirp.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>

/* Descriptors: what machines can make us open at a time. */
#define SOCKETS_MAX 4096

struct slot {
	struct loop_watch watch;
	uint32_t events, revents;
	uint64_t round; /* in which it was wanted last */
};

struct slirp_way {
	struct nat_way way;
	const struct nat_settings *settings;
	Slirp *slirp;
	uint64_t round;
	unsigned forward_count;
	int used[SOCKETS_MAX]; /* slots with a watch */
	unsigned used_count;
	struct slot slots[SOCKETS_MAX]; /* by descriptor */
};

struct slirp_timer {
	struct loop_timer timer;
	struct slirp_way *way;
	SlirpTimerId id;
	void *context;
};

/* ---- what libslirp calls ---- */

static ssize_t on_packet(const void *frame, size_t size, void *opaque)
{
	struct slirp_way *w = opaque;

	nat_deliver(w->way.nat, NULL, frame, size);
	return (ssize_t)size;
}

static void on_guest_error(const char *message, void *opaque)
{
	/* A machine can cause as many as it likes. */
	(void)message;
	(void)opaque;
}

static int64_t on_clock(void *opaque)
{
	struct timespec t;

	(void)opaque;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void timer_fired(struct loop_timer *timer)
{
	struct slirp_timer *t = container_of(timer, struct slirp_timer, timer);

	slirp_handle_timer(t->way->slirp, t->id, t->context);
	nat_delivered(t->way->way.nat);
}

static void *on_timer_new(SlirpTimerId id, void *context, void *opaque)
{
	struct slirp_way *w = opaque;
	struct slirp_timer *t = calloc(1, sizeof(*t));

	if (!t)
		abort(); /* it does not look */
	t->way = w;
	t->id = id;
	t->context = context;
	loop_timer_init(w->settings->loop, &t->timer, timer_fired);
	return t;
}

static void on_timer_free(void *timer, void *opaque)
{
	struct slirp_timer *t = timer;

	(void)opaque;
	loop_timer_disarm(&t->timer);
	free(t);
}

static void on_timer_mod(void *timer, int64_t at_ms, void *opaque)
{
	struct slirp_timer *t = timer;

	(void)opaque;
	loop_timer_arm(&t->timer, (uint64_t)MAX(at_ms, 1) * 1000000);
}

static void on_register(int fd, void *opaque)
{
	(void)fd;
	(void)opaque;
}

/* It is about to be closed: the number may be another's next. */
static void on_unregister(int fd, void *opaque)
{
	struct slirp_way *w = opaque;

	if (fd < 0 || fd >= SOCKETS_MAX)
		return;
	loop_unwatch(&w->slots[fd].watch);
	w->slots[fd].round = 0;
}

static void on_notify(void *opaque)
{
	(void)opaque;
}

static const SlirpCb callbacks = {
	.send_packet = on_packet,
	.guest_error = on_guest_error,
	.clock_get_ns = on_clock,
	.timer_new_opaque = on_timer_new,
	.timer_free = on_timer_free,
	.timer_mod = on_timer_mod,
	.register_poll_fd = on_register,
	.unregister_poll_fd = on_unregister,
	.notify = on_notify,
};

/* ---- descriptors ---- */

static const struct {
	int slirp;
	uint32_t epoll;
} event_map[] = {
	{ SLIRP_POLL_IN, EPOLLIN },   { SLIRP_POLL_OUT, EPOLLOUT }, { SLIRP_POLL_PRI, EPOLLPRI },
	{ SLIRP_POLL_ERR, EPOLLERR }, { SLIRP_POLL_HUP, EPOLLHUP },
};

static void slot_ready(struct loop_watch *watch, uint32_t events)
{
	container_of(watch, struct slot, watch)->revents = events;
}

static int on_add_poll(int fd, int events, void *opaque)
{
	struct slirp_way *w = opaque;
	struct slot *s;
	uint32_t wanted = 0;

	if (fd < 0 || fd >= SOCKETS_MAX)
		return -1;
	s = &w->slots[fd];
	for (size_t i = 0; i < ARRAY_SIZE(event_map); i++)
		if (events & event_map[i].slirp)
			wanted |= event_map[i].epoll;
	s->revents = 0;
	s->round = w->round;
	if (s->watch.loop && s->events == wanted)
		return fd;
	if (!s->watch.loop) {
		bool listed = false;

		for (unsigned i = 0; i < w->used_count && !listed; i++)
			listed = w->used[i] == fd;
		if (!listed)
			w->used[w->used_count++] = fd;
	}
	loop_unwatch(&s->watch);
	s->events = wanted;
	if (loop_watch(w->settings->loop, &s->watch, fd, wanted, slot_ready) < 0)
		s->watch.loop = NULL;
	return fd;
}

static int on_get_events(int i, void *opaque)
{
	struct slirp_way *w = opaque;
	int events = 0;

	if (i < 0 || i >= SOCKETS_MAX || w->slots[i].round != w->round)
		return 0;
	for (size_t k = 0; k < ARRAY_SIZE(event_map); k++)
		if (w->slots[i].revents & event_map[k].epoll)
			events |= event_map[k].slirp;
	return events;
}

static void slirp_before(struct nat_way *way, int *timeout_ms)
{
	struct slirp_way *w = container_of(way, struct slirp_way, way);
	uint32_t timeout = *timeout_ms < 0 ? UINT32_MAX : (uint32_t)*timeout_ms;
	unsigned kept = 0;

	w->round++;
	slirp_pollfds_fill(w->slirp, &timeout, on_add_poll, w);
	for (unsigned i = 0; i < w->used_count; i++) {
		struct slot *s = &w->slots[w->used[i]];

		if (s->round == w->round)
			w->used[kept++] = w->used[i];
		else
			loop_unwatch(&s->watch);
	}
	w->used_count = kept;
	*timeout_ms = timeout > INT_MAX ? -1 : (int)timeout;
}

static void slirp_after(struct nat_way *way)
{
	struct slirp_way *w = container_of(way, struct slirp_way, way);

	slirp_pollfds_poll(w->slirp, 0, on_get_events, w);
	nat_delivered(w->way.nat);
}

/* ---- what nat.c calls ---- */

static void slirp_send(struct nat_way *way, const struct net_offload *o, uint8_t *frame,
		       size_t size)
{
	struct slirp_way *w = container_of(way, struct slirp_way, way);

	/* A large segment is taken as one; only the checksum is looked at. */
	nat_finish_checksum(o, frame, size);
	slirp_input(w->slirp, frame, (int)size);
}

static void slirp_flush(struct nat_way *way)
{
	(void)way;
}

static int slirp_forward(struct nat_way *way, const struct nat_forward *f, bool add,
			 struct error *err)
{
	struct slirp_way *w = container_of(way, struct slirp_way, way);
	struct in_addr host = { htonl(f->listen) }, machine = { htonl(f->machine) };
	int r;

	if (add && w->forward_count == NAT_FORWARDS_MAX)
		return error_set(err, -ENOSPC, "at most %u ports can be forwarded",
				 NAT_FORWARDS_MAX);
	errno = 0;
	r = add ? slirp_add_hostfwd(w->slirp, f->udp, host, f->port, machine, f->machine_port)
		: slirp_remove_hostfwd(w->slirp, f->udp, host, f->port);
	if (r < 0)
		return error_errno(err, add && errno ? -errno : -ENOENT,
				   "cannot %s port %u of the host",
				   add ? "forward" : "stop to forward", f->port);
	w->forward_count += add ? 1 : -1u;
	return 0;
}

static void slirp_free(struct nat_way *way)
{
	struct slirp_way *w = container_of(way, struct slirp_way, way);

	if (w->slirp)
		slirp_cleanup(w->slirp);
	for (unsigned i = 0; i < w->used_count; i++)
		loop_unwatch(&w->slots[w->used[i]].watch);
	free(w);
}

static const struct nat_way_ops slirp_ops = {
	.send = slirp_send,
	.flush = slirp_flush,
	.before = slirp_before,
	.after = slirp_after,
	.forward = slirp_forward,
	.free = slirp_free,
};

static struct in_addr in_of(uint32_t a)
{
	return (struct in_addr){ htonl(a) };
}

static int stack_new(struct slirp_way *w, struct error *err)
{
	const struct nat_settings *s = w->settings;
	uint32_t mask = ~(UINT32_MAX >> s->dhcp.prefix);
	SlirpConfig c = { .version = 4,
			  .in_enabled = true,
			  .vnetwork = in_of(s->dhcp.address & mask),
			  .vnetmask = in_of(mask),
			  .vhost = in_of(s->dhcp.address),
			  .vnameserver = in_of(s->dhcp.address + 2), /* nobody's */
			  .vdhcp_start = in_of(s->dhcp.first),
			  .in6_enabled = s->ipv6,
			  .vprefix_len = 64,
			  .if_mtu = s->dhcp.mtu,
			  .if_mru = s->dhcp.mtu,
			  .disable_host_loopback = true,
			  .disable_dns = true,
			  .disable_dhcp = true };

	memcpy(&c.vprefix_addr6, s->prefix6, 16);
	memcpy(&c.vhost6, s->prefix6, 16);
	c.vhost6.s6_addr[15] = 1;
	c.vnameserver6 = c.vhost6;
	c.vnameserver6.s6_addr[15] = 2;
	w->slirp = slirp_new(&c, &callbacks, w);
	return w->slirp ? 0 : error_set(err, -EINVAL, "libslirp refuses these settings");
}

/* DNS by TCP, at the address that machines are told of. */
static int dns_socket(struct slirp_way *w, int *ret, struct error *err)
{
	struct in_addr at = in_of(w->settings->dhcp.servers[0]);
	char path[108];
	int fd;

	snprintf(path, sizeof(path), "%s/dns", w->settings->folder);
	fd = unix_listen(path, 0600, 16, err);
	if (fd < 0)
		return fd;
	if (slirp_add_unix(w->slirp, path, &at, 53) < 0) {
		close(fd);
		return error_set(err, -EINVAL, "libslirp refuses a name server at this address");
	}
	*ret = fd;
	return 0;
}

int nat_way_slirp(struct nat_settings *s, struct nat *n, struct nat_way **ret, struct error *err)
{
	struct rlimit limit = { SOCKETS_MAX, SOCKETS_MAX };
	struct slirp_way *w;
	int r;

	if (!s->folder)
		return error_set(err, -EINVAL, "without a tap NAT needs a folder for a socket");
	/* Fewer are fine. */
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < SOCKETS_MAX) {
		limit.rlim_cur = MIN(limit.rlim_max, SOCKETS_MAX);
		(void)!setrlimit(RLIMIT_NOFILE, &limit);
	}
	w = calloc(1, sizeof(*w));
	if (!w)
		return error_set(err, -ENOMEM, "no memory for the way out");
	w->way = (struct nat_way){ .ops = &slirp_ops,
				   .nat = n,
				   .takes = NET_TAKES_CHECKSUM | NET_TAKES_TCP4 | NET_TAKES_TCP6,
				   .own_routers = true };
	w->settings = s;
	r = stack_new(w, err);
	if (!r)
		r = dns_socket(w, &s->dns_listener, err);
	if (r < 0) {
		slirp_free(&w->way);
		return r;
	}
	*ret = &w->way;
	return 0;
}
