// SPDX-License-Identifier: MIT
/*
 * See nat.h. Each frame of a machine is copied once and the copy judged: it is a service's, or goes
 * out. Nothing waits here: what has no room towards the machines is dropped, as a full cable would.
 */
#include "lib/cleanup.h"
#include "net/nat_private.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>

#define BATCH    64u /* frames in one round of the loop */
#define PORT_DNS 53u

struct nat {
	struct nat_settings settings;
	struct nat_way *way;
	struct net_port *port;
	struct loop_watch watch;
	struct loop_task more;
	struct loop_timer router;
	struct dhcp_server *dhcp;
	struct dns *dns;
	struct nat_name *names;
	unsigned name_count;
	struct nat_counters counters;
	uint8_t frame[NET_FRAME_MAX];
};

/* ---- to the machines ---- */

void nat_deliver(struct nat *n, const struct net_offload *o, const void *frame, size_t size)
{
	struct iovec iov = { (void *)frame, size };

	if (n->port && net_port_send(n->port, o, &iov, 1, size) == 0)
		n->counters.frames_out++;
	else
		n->counters.dropped_out++;
}

void nat_delivered(struct nat *n)
{
	if (n->port)
		net_port_flush(n->port);
}

void nat_finish_checksum(const struct net_offload *o, uint8_t *frame, size_t size)
{
	size_t start = o->checksum_start, at = start + o->checksum_offset;
	uint16_t sum;

	if (!(o->flags & NET_CHECKSUM_NEEDED) || at + 2 > size)
		return;
	/* The field has the sum of the pseudo header, which so enters. */
	sum = inet_sum_fold(inet_sum(0, frame + start, size - start));
	memcpy(frame + at, &(be16){ htobe16(sum ? sum : 0xffff) }, 2);
}

/* ---- names ---- */

/* Names that programs look for by themselves: no machine takes them by saying so. */
static bool name_reserved(const char *name)
{
	static const char *const reserved[] = { "gateway", "host", "isatap", "localhost", "wpad" };

	for (size_t i = 0; i < ARRAY_SIZE(reserved); i++)
		if (!strcasecmp(reserved[i], name))
			return true;
	return false;
}

static const struct nat_name *name_given(const struct nat *n, const char *name)
{
	for (unsigned i = 0; i < n->name_count; i++)
		if (!strcasecmp(n->names[i].name, name))
			return &n->names[i];
	return NULL;
}

static bool find_name(void *context, const char *name, uint32_t *ret)
{
	struct nat *n = context;
	uint64_t now = loop_now(n->settings.loop);
	const struct nat_name *given = name_given(n, name);
	const struct dhcp_lease *l;

	if (!strcasecmp(name, "gateway")) {
		*ret = n->settings.dhcp.address;
		return true;
	}
	if (given)
		l = dhcp_server_find_mac(n->dhcp, &given->mac, now);
	else
		l = name_reserved(name) ? NULL : dhcp_server_find_name(n->dhcp, name, now);
	if (!l)
		return false;
	*ret = l->address;
	return true;
}

static bool find_address(void *context, uint32_t address, char ret[static DNS_NAME_TEXT])
{
	struct nat *n = context;
	const struct dhcp_lease *l =
		dhcp_server_find_address(n->dhcp, address, loop_now(n->settings.loop));

	if (address == n->settings.dhcp.address) {
		strcpy(ret, "gateway");
		return true;
	}
	if (!l)
		return false;
	for (unsigned i = 0; i < n->name_count; i++)
		if (inet_mac_equal(&n->names[i].mac, &l->mac)) {
			strcpy(ret, n->names[i].name);
			return true;
		}
	if (!*l->name || name_reserved(l->name) || name_given(n, l->name))
		return false;
	strcpy(ret, l->name);
	return true;
}

/* ---- services ---- */

_Static_assert(sizeof(struct inet_mac) + sizeof(uint32_t) == DNS_WHO_ALIKE, "who is a client");

static struct dns_who who_of(const struct inet_udp *u)
{
	struct dns_who who = { { 0 } };

	memcpy(who.bytes, &u->ether.from, 6);
	memcpy(who.bytes + 6, &u->ip.from, 4);
	memcpy(who.bytes + 10, &u->from_port, 2);
	memcpy(who.bytes + 12, &u->ip.to, 4);
	return who;
}

static void on_dns_answer(void *context, const struct dns_who *who, const void *message,
			  size_t size)
{
	struct nat *n = context;
	struct inet_udp u = { .from_port = PORT_DNS, .data = message, .size = size };
	uint8_t frame[INET_UDP4_HEADERS + INET_UDP4_MAX];

	memcpy(&u.ether.to, who->bytes, 6);
	u.ether.from = n->settings.dhcp.mac;
	memcpy(&u.ip.to, who->bytes + 6, 4);
	memcpy(&u.to_port, who->bytes + 10, 2);
	memcpy(&u.ip.from, who->bytes + 12, 4);
	size = inet_write_udp4(frame, sizeof(frame), &u);
	if (size)
		nat_deliver(n, NULL, frame, size);
	nat_delivered(n);
}

static bool is_dns(const struct nat *n, const struct inet_udp *u)
{
	return u->to_port == PORT_DNS &&
	       (u->ip.to == n->settings.dhcp.address || u->ip.to == n->settings.dhcp.servers[0]);
}

static void serve_dns(struct nat *n, const struct inet_udp *u)
{
	struct dns_who who = who_of(u);
	uint8_t answer[DNS_QUERY_MAX];
	size_t size = dns_ask(n->dns, &who, u->data, u->size, answer, sizeof(answer));

	if (size)
		on_dns_answer(n, &who, answer, size);
}

static void serve_dhcp(struct nat *n, size_t size, bool unfinished)
{
	uint8_t answer[INET_UDP4_HEADERS + INET_UDP4_MAX];

	size = dhcp_server_frame(n->dhcp, n->frame, size, unfinished, loop_now(n->settings.loop),
				 answer, sizeof(answer));
	if (size)
		nat_deliver(n, NULL, answer, size);
}

static void advertise(struct nat *n)
{
	uint8_t frame[256];
	size_t size = nat_router_advertise(&n->settings, frame, sizeof(frame));

	if (size)
		nat_deliver(n, NULL, frame, size);
	loop_timer_arm(&n->router, loop_now(n->settings.loop) + NAT_ROUTER_NS);
}

static void on_router(struct loop_timer *t)
{
	struct nat *n = container_of(t, struct nat, router);

	advertise(n);
	nat_delivered(n);
}

/* True = it was for us. */
static bool serve(struct nat *n, const struct net_offload *o, size_t size)
{
	bool unfinished = o->flags & NET_CHECKSUM_NEEDED;
	struct inet_udp u;

	if (n->settings.ipv6 && !n->way->own_routers && nat_router_asked(n->frame, size))
		advertise(n);
	if (o->segmentation || !inet_read_udp4(n->frame, size, unfinished, &u))
		return false;
	if (u.to_port == 67) {
		serve_dhcp(n, size, unfinished);
		return true;
	}
	if (!is_dns(n, &u))
		return false;
	serve_dns(n, &u);
	return true;
}

/* ---- from the machines ---- */

/* True = there may be more. */
static bool pump_batch(struct nat *n, int *ret_end)
{
	struct net_frame f;
	unsigned count = 0;
	int r = 0;

	for (; count < BATCH && (r = net_port_receive(n->port, &f)) == 1; count++) {
		memcpy(n->frame, f.data, f.size);
		n->counters.frames_in++;
		if (!serve(n, &f.offload, f.size))
			n->way->ops->send(n->way, &f.offload, n->frame, f.size);
	}
	*ret_end = MIN(r, 0);
	if (count)
		net_port_release(n->port);
	return count == BATCH;
}

static void port_drop(struct nat *n)
{
	loop_unwatch(&n->watch);
	loop_cancel(n->settings.loop, &n->more);
	net_port_free(n->port);
	n->port = NULL;
}

static void pump(struct nat *n)
{
	bool more = true;
	int r = 0;

	if (!n->port)
		return;
	more = pump_batch(n, &r);
	if (!more && r == 0)
		more = !net_port_arm(n->port);
	n->way->ops->flush(n->way);
	nat_delivered(n);
	if (r < 0) {
		port_drop(n);
		n->settings.ended(n->settings.context, r);
	} else if (more) {
		loop_defer(n->settings.loop, &n->more);
	}
}

static void on_more(struct loop_task *t)
{
	pump(container_of(t, struct nat, more));
}

static void on_readable(struct loop_watch *w, uint32_t events)
{
	(void)events;
	pump(container_of(w, struct nat, watch));
}

/* ---- what its owner calls ---- */

int nat_attach(struct nat *n, struct net_port *port, struct error *err)
{
	int r;

	if (n->port)
		port_drop(n);
	n->port = port;
	net_port_take(port, n->way->takes);
	r = loop_watch(n->settings.loop, &n->watch, net_port_fd(port), EPOLLIN, on_readable);
	if (r < 0) {
		port_drop(n);
		return error_errno(err, r, "cannot watch a port of the switch");
	}
	if (n->settings.ipv6 && !n->way->own_routers)
		advertise(n);
	loop_defer(n->settings.loop, &n->more);
	return 0;
}

void nat_before(struct nat *n, int *timeout_ms)
{
	if (n->way->ops->before)
		n->way->ops->before(n->way, timeout_ms);
}

void nat_after(struct nat *n)
{
	if (n->way->ops->after)
		n->way->ops->after(n->way);
}

int nat_set_names(struct nat *n, const struct nat_name *names, unsigned count, struct error *err)
{
	struct nat_name *copy;

	if (count > NAT_NAMES_MAX)
		return error_set(err, -E2BIG, "at most %u machines have names", NAT_NAMES_MAX);
	copy = calloc(MAX(count, 1), sizeof(*copy));
	if (!copy)
		return error_set(err, -ENOMEM, "no memory for names");
	memcpy(copy, names, count * sizeof(*copy));
	free(n->names);
	n->names = copy;
	n->name_count = count;
	return 0;
}

void nat_set_resolvers(struct nat *n, const union dns_server *servers, unsigned count)
{
	dns_set_servers(n->dns, servers, count);
}

int nat_forward_add(struct nat *n, const struct nat_forward *f, struct error *err)
{
	uint32_t mask = ~(UINT32_MAX >> n->settings.dhcp.prefix);

	if ((f->machine ^ n->settings.dhcp.address) & mask)
		return error_set(err, -EINVAL, "the machine's address is not in this network");
	return n->way->ops->forward(n->way, f, true, err);
}

int nat_forward_remove(struct nat *n, const struct nat_forward *f, struct error *err)
{
	return n->way->ops->forward(n->way, f, false, err);
}

const struct dhcp_lease *nat_leases(const struct nat *n, unsigned *ret_count)
{
	return dhcp_server_leases(n->dhcp, ret_count);
}

struct nat_counters nat_counters(const struct nat *n)
{
	return n->counters;
}

struct dns_counters nat_dns_counters(const struct nat *n)
{
	return dns_counters(n->dns);
}

/*
 * What follows from the address: the first addresses are ours (router, with libslirp DNS behind
 * it), the last is everybody's.
 */
static void fill_in(struct nat_settings *s)
{
	struct dhcp_settings *d = &s->dhcp;
	uint32_t mask = ~(UINT32_MAX >> d->prefix), network = d->address & mask;

	if (!d->first) {
		d->first = network + MIN(16u, (~mask + 1) / 2);
		d->last = (network | ~mask) - 1;
	}
	d->servers[0] = s->tap >= 0 ? d->address : d->address + 1;
	d->server_count = 1;
	if (s->tap < 0) {
		be32 wire = be32_of(d->address);

		/* What libslirp says that the router has. */
		d->mac = (struct inet_mac){ { 0x52, 0x55 } };
		memcpy(d->mac.byte + 2, &wire, 4);
	}
}

static int services_new(struct nat *n, struct error *err)
{
	struct nat_settings *s = &n->settings;
	struct dns_settings d = { .loop = s->loop,
				  .server_count = s->resolver_count,
				  .domain = s->dhcp.domain,
				  .mask = ~(UINT32_MAX >> s->dhcp.prefix),
				  .find_name = find_name,
				  .find_address = find_address,
				  .answer = on_dns_answer,
				  .context = n };
	int r, fd;

	memcpy(d.servers, s->resolvers, sizeof(d.servers));
	d.network = s->dhcp.address & d.mask;
	r = dhcp_server_new(&s->dhcp, &n->dhcp, err);
	if (!r)
		r = dns_new(&d, &n->dns, err);
	if (r < 0 || s->dns_listener < 0)
		return r;
	fd = steal_fd(&s->dns_listener);
	return dns_listen(n->dns, fd, err);
}

int nat_new(const struct nat_settings *settings, struct nat **ret, struct error *err)
{
	_cleanup_close_ int tap = settings->tap;
	struct nat *n = calloc(1, sizeof(*n));
	int r;

	if (!n)
		return error_set(err, -ENOMEM, "no memory for NAT");
	n->settings = *settings;
	fill_in(&n->settings);
	loop_task_init(&n->more, on_more);
	loop_timer_init(settings->loop, &n->router, on_router);
	if (tap >= 0) {
		(void)steal_fd(&tap);
		r = nat_way_tap(&n->settings, n, &n->way, err);
	} else {
		r = nat_way_slirp(&n->settings, n, &n->way, err);
	}
	if (!r)
		r = services_new(n, err);
	if (r < 0) {
		nat_free(n);
		return r;
	}
	*ret = n;
	return 0;
}

void nat_free(struct nat *n)
{
	if (!n)
		return;
	if (n->port)
		port_drop(n);
	loop_timer_disarm(&n->router);
	if (n->settings.dns_listener >= 0)
		close(n->settings.dns_listener);
	dns_free(n->dns);
	if (n->way)
		n->way->ops->free(n->way);
	dhcp_server_free(n->dhcp);
	free(n->names);
	free(n);
}
