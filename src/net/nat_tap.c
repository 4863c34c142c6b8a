// SPDX-License-Identifier: MIT
/*
 * The way out of a NAT switch by the host's kernel: a tap that has the router's address, whose
 * packets nftables translates. Both were set up by who is privileged. Loop's thread.
 */
#include "lib/cleanup.h"
#include "net/nat_private.h"

#include <errno.h>

#define ROUNDS 4u /* batches in one round of the loop */

struct tap_way {
	struct nat_way way;
	struct net_uplink *wire;
	struct loop_watch watch;
	struct loop_task more;
	struct loop *loop;
};

static void tap_send(struct nat_way *way, const struct net_offload *o, uint8_t *frame, size_t size)
{
	struct tap_way *w = container_of(way, struct tap_way, way);
	struct iovec iov = { frame, size };

	/* What it does not take it counts. */
	(void)!w->wire->ops->send(w->wire, o, &iov, 1, size);
}

static void tap_flush(struct nat_way *way)
{
	struct tap_way *w = container_of(way, struct tap_way, way);

	w->wire->ops->flush(w->wire);
}

/* True = there is more. */
static bool pump_batch(struct tap_way *w)
{
	struct net_frame f;
	int r;

	while ((r = w->wire->ops->receive(w->wire, &f)) == 1)
		nat_deliver(w->way.nat, &f.offload, f.data, f.size);
	if (r < 0)
		return false;
	r = !w->wire->ops->arm(w->wire);
	w->wire->ops->release(w->wire);
	return r;
}

static void pump(struct tap_way *w)
{
	bool more = true;

	for (unsigned i = 0; i < ROUNDS && more; i++)
		more = pump_batch(w);
	nat_delivered(w->way.nat);
	if (more)
		loop_defer(w->loop, &w->more);
}

static void on_more(struct loop_task *t)
{
	pump(container_of(t, struct tap_way, more));
}

static void on_readable(struct loop_watch *watch, uint32_t events)
{
	(void)events;
	pump(container_of(watch, struct tap_way, watch));
}

static int tap_forward(struct nat_way *way, const struct nat_forward *f, bool add,
		       struct error *err)
{
	(void)way;
	(void)f;
	(void)add;
	return error_set(err, -EOPNOTSUPP,
			 "ports of this network are forwarded by the host's kernel: ask "
			 "partita-privd");
}

static void tap_free(struct nat_way *way)
{
	struct tap_way *w = container_of(way, struct tap_way, way);

	loop_unwatch(&w->watch);
	loop_cancel(w->loop, &w->more);
	if (w->wire)
		w->wire->ops->free(w->wire);
	free(w);
}

static const struct nat_way_ops tap_ops = {
	.send = tap_send,
	.flush = tap_flush,
	.forward = tap_forward,
	.free = tap_free,
};

int nat_way_tap(struct nat_settings *s, struct nat *n, struct nat_way **ret, struct error *err)
{
	struct net_wire_options o = {
		.loop = s->loop, .fd = s->tap, .link = s->link, .context = s->context
	};
	struct tap_way *w = calloc(1, sizeof(*w));
	int r;

	if (!w) {
		close(s->tap);
		return error_set(err, -ENOMEM, "no memory for the way out");
	}
	w->way = (struct nat_way){ .ops = &tap_ops, .nat = n };
	w->loop = s->loop;
	loop_task_init(&w->more, on_more);
	r = net_wire_new(&o, &w->wire, err);
	if (!r) {
		w->way.takes = w->wire->takes;
		r = loop_watch(s->loop, &w->watch, w->wire->fd, w->wire->events, on_readable);
		if (r < 0)
			error_errno(err, r, "cannot watch the way out");
	}
	if (r < 0) {
		tap_free(&w->way);
		return r;
	}
	*ret = &w->way;
	return 0;
}
