// SPDX-License-Identifier: MIT
/*
 * The adapter as a device of the bus: its channels, its port, its link. Owned by the worker, runs
 * on the event loop's thread. What packets mean is in nvsp.c and rndis.c, how frames move in tx.c
 * and rx.c.
 *
 * Work is gathered: whatever a round of the loop does to rings, on either side, is shown to the
 * guest and to the switch once, by the task `settle` at the round's end. A packet is taken from the
 * guest only while there is room for its completion, so that little is ever remembered for a guest
 * that does not read. Each channel, and the port, has a budget for a round.
 */
#include "devices/netvsp/netvsp_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>

#define SPEED_DEFAULT UINT64_C(10000000000)
#define LEAVE_TICK    UINT64_C(250000000)  /* ns without a packet in which a driver is at rest */
#define LEAVE_LIMIT   UINT64_C(6000000000) /* Linux looks at its link every 2 s at least */
#define LINK_SPACING  UINT64_C(500000000)  /* ns between two things that a guest is told */

size_t netvsp_message_size(const struct netvsp *n)
{
	return n->version < NVSP_PROTOCOL_VERSION_61 ? NVSP_MESSAGE_SIZE_1 : NVSP_MESSAGE_SIZE_61;
}

void netvsp_settle(struct netvsp *n)
{
	loop_defer(n->loop, &n->settle);
}

void netvsp_complete(struct netvsp_channel *c, uint64_t transaction_id, struct nvsp_message *m)
{
	if (vmbus_queue(c->ch, VMBUS_PACKET_COMPLETION, transaction_id, m,
			netvsp_message_size(c->n)) < 0)
		c->broken = true;
}

/* --- the link --- */

bool netvsp_link(const struct netvsp *n)
{
	return n->port && !n->options.cable_out;
}

static bool link_news(const struct netvsp *n)
{
	return n->flap || n->link_told != netvsp_link(n) || n->speed_told != n->options.speed;
}

/* The next thing to say: down, up, or another speed. */
static void link_tell(struct netvsp *n)
{
	bool up = netvsp_link(n);
	le32 speed = le32_of((uint32_t)MIN(n->options.speed / 100, UINT32_MAX));

	if (n->link_told && (n->flap || !up)) {
		n->link_told = false;
		rndis_indicate(n, RNDIS_STATUS_MEDIA_DISCONNECT, NULL, 0);
	} else if (n->link_told != up) {
		n->link_told = true;
		rndis_indicate(n, RNDIS_STATUS_MEDIA_CONNECT, NULL, 0);
	} else if (n->speed_told != n->options.speed) {
		n->speed_told = n->options.speed;
		rndis_indicate(n, RNDIS_STATUS_LINK_SPEED_CHANGE, &speed, sizeof(speed));
	}
	n->flap = false;
}

/* Drivers mishandle changes that come close together. */
static void link_update(struct netvsp *n)
{
	uint64_t now = loop_now(n->loop);

	if (!n->rndis_ready || n->paused || !link_news(n))
		return;
	if ((n->link_time && now < n->link_time + LINK_SPACING) ||
	    n->answer_count == NETVSP_ANSWERS) {
		loop_timer_arm(&n->link_timer, MAX(n->link_time, now) + LINK_SPACING);
		return;
	}
	link_tell(n);
	n->link_time = now;
	if (link_news(n))
		loop_timer_arm(&n->link_timer, now + LINK_SPACING);
}

static void on_link_timer(struct loop_timer *t)
{
	netvsp_settle(container_of(t, struct netvsp, link_timer));
}

/* What the driver finds when it begins is no news. */
static void link_begin(struct netvsp *n)
{
	n->link_told = netvsp_link(n);
	n->speed_told = n->options.speed;
	n->flap = false;
	n->link_time = 0;
}

/* --- channels --- */

/* False when this round's share is used up; the next round goes on then. */
static bool channel_charge(struct netvsp_channel *c)
{
	if (c->round != loop_now(c->n->loop)) {
		c->round = loop_now(c->n->loop);
		c->budget = NETVSP_ROUND_BUDGET;
	}
	if (!c->budget) {
		loop_timer_arm(&c->next_round, c->round + 1); /* not due in this round */
		return false;
	}
	c->budget--;
	return true;
}

static bool channel_may_receive(struct netvsp_channel *c)
{
	return !c->broken && !c->n->paused && vmbus_can_send(c->ch, NVSP_MESSAGE_SIZE_61);
}

static void channel_run(struct netvsp_channel *c)
{
	struct vmbus_packet packet;
	bool was_ready = c->n->rndis_ready;

	if (c->tx.active && (c->n->paused || !tx_continue(c)))
		return;
	while (channel_may_receive(c) && channel_charge(c)) {
		int r = vmbus_receive(c->ch, &packet);

		c->broken = r < 0;
		if (r <= 0)
			break;
		nvsp_handle(c, &packet);
		if (c->tx.active)
			break;
	}
	if (!was_ready && c->n->rndis_ready)
		link_begin(c->n);
	netvsp_settle(c->n);
}

void netvsp_channels_run(struct netvsp *n)
{
	for (unsigned i = 0; i < NETVSP_MAX_CHANNELS; i++)
		if (n->channels[i])
			channel_run(n->channels[i]);
}

static void on_next_round(struct loop_timer *t)
{
	channel_run(container_of(t, struct netvsp_channel, next_round));
}

static void channels_wake(struct netvsp *n)
{
	for (unsigned i = 0; i < NETVSP_MAX_CHANNELS; i++)
		if (n->channels[i] && n->channels[i]->waiting)
			channel_run(n->channels[i]);
}

/* --- the port --- */

void netvsp_port_ended(struct netvsp *n, int error)
{
	netvsp_disconnect(n);
	if (n->options.port_lost)
		n->options.port_lost(n->options.context, error);
}

static bool port_turn(struct netvsp *n, unsigned *budget)
{
	int r = rx_run(n, budget);

	if (r < 0)
		netvsp_port_ended(n, r);
	n->tx_drop = false;
	loop_timer_disarm(&n->tx_patience);
	channels_wake(n);
	return n->port;
}

static void port_run(struct netvsp *n)
{
	unsigned budget = NETVSP_ROUND_BUDGET;

	if (!n->port || n->paused)
		return;
	while (port_turn(n, &budget)) {
		if (!budget) {
			loop_timer_arm(&n->port_round, loop_now(n->loop) + 1);
			break;
		}
		if (net_port_arm(n->port))
			break;
		if (n->held) { /* it is not frames that we could take; room, perhaps */
			channels_wake(n);
			break;
		}
	}
	netvsp_settle(n);
}

static void on_port(struct loop_watch *w, uint32_t events)
{
	(void)events;
	port_run(container_of(w, struct netvsp, watch));
}

static void on_port_round(struct loop_timer *t)
{
	port_run(container_of(t, struct netvsp, port_round));
}

static void on_patience(struct loop_timer *t)
{
	struct netvsp *n = container_of(t, struct netvsp, tx_patience);

	n->tx_drop = true;
	channels_wake(n);
}

static void on_settle(struct loop_task *t)
{
	struct netvsp *n = container_of(t, struct netvsp, settle);

	if (n->paused)
		return;
	if (n->channels[0]) {
		link_update(n);
		if (n->table_due)
			nvsp_send_table(n);
		rx_answers_send(n);
	}
	for (unsigned i = 0; i < NETVSP_MAX_CHANNELS; i++) {
		if (!n->channels[i])
			continue;
		rx_flush(n->channels[i]);
		vmbus_flush(n->channels[i]->ch);
	}
	if (n->port)
		net_port_flush(n->port);
	if (n->held && n->given_back) {
		n->given_back = false;
		port_run(n);
	}
}

void netvsp_disconnect(struct netvsp *n)
{
	if (!n->port)
		return;
	loop_unwatch(&n->watch);
	loop_timer_disarm(&n->port_round);
	net_port_free(n->port);
	n->port = NULL;
	n->held = false;
	n->flap = true;
	netvsp_settle(n);
}

int netvsp_connect(struct netvsp *n, struct net_port *port, struct error *err)
{
	int r;

	netvsp_disconnect(n);
	r = loop_watch(n->loop, &n->watch, net_port_fd(port), EPOLLIN | EPOLLET, on_port);
	if (r < 0) {
		net_port_free(port);
		return error_errno(err, r, "cannot watch the network port");
	}
	n->port = port;
	net_port_take(port, NET_TAKES_CHECKSUM | NET_TAKES_TCP4 | NET_TAKES_TCP6 | NET_TAKES_ECN);
	netvsp_settle(n);
	loop_timer_arm(&n->port_round, 1); /* what is in there came before the watch */
	return 0;
}

/*
 * Linux' driver no longer listens once its offer is taken back, and then waits for ever for what it
 * has sent to be completed. With the link down it sends nothing more.
 */
static bool at_rest(struct netvsp *n)
{
	bool quiet = n->packets == n->packets_seen && !n->link_told && !n->answer_count;

	n->packets_seen = n->packets;
	for (unsigned i = 0; i < NETVSP_MAX_CHANNELS; i++)
		quiet = quiet && (!n->channels[i] || vmbus_all_read(n->channels[i]->ch));
	return quiet || !n->rndis_ready;
}

static void on_leave_timer(struct loop_timer *t)
{
	struct netvsp *n = container_of(t, struct netvsp, leave_timer);
	uint64_t now = loop_now(n->loop);
	void (*left)(void *) = n->left;

	if (!at_rest(n) && now < n->leave_deadline) {
		loop_timer_arm(t, now + LEAVE_TICK);
		return;
	}
	n->left = NULL;
	left(n->options.context);
}

void netvsp_leave(struct netvsp *n, void (*left)(void *context))
{
	uint64_t now = loop_now(n->loop);

	netvsp_disconnect(n);
	if (!n->rndis_ready) {
		left(n->options.context);
		return;
	}
	n->left = left;
	n->packets_seen = n->packets - 1;
	n->leave_deadline = now + LEAVE_LIMIT;
	loop_timer_arm(&n->leave_timer, now + LEAVE_TICK);
}

void netvsp_set_link(struct netvsp *n, bool cable_out, uint64_t speed)
{
	n->options.cable_out = cable_out;
	n->options.speed = speed;
	netvsp_settle(n);
}

bool netvsp_cable(const struct netvsp *n)
{
	return !n->options.cable_out;
}

void *netvsp_context(const struct netvsp *n)
{
	return n->options.context;
}

/* --- what VMBus asks --- */

void netvsp_forget(struct netvsp *n)
{
	rx_buffer_revoke(n);
	vmbus_buffer_give_back(&n->send);
	oid_rss_off(n);
	n->version = n->ndis_version = n->capabilities = 0;
	n->mtu = NETVSP_MTU_DEFAULT;
	n->rndis_ready = n->rsc_ip4 = n->rsc_ip6 = n->table_due = false;
	n->filter = 0;
	n->multicast_count = 0;
	n->subs_granted = 0;
	n->answer_first = n->answer_count = 0;
	memcpy(n->mac, n->options.mac, sizeof(n->mac));
	loop_timer_disarm(&n->link_timer);
}

/* The driver waits until all sub-channels are open, and only then listens to us. */
static void sub_opened(struct netvsp *n)
{
	unsigned open = 0;

	for (unsigned i = 1; i <= n->subs_granted; i++)
		open += !!n->channels[i];
	n->table_due = open == n->subs_granted;
	netvsp_settle(n);
}

static int netvsp_open(void *device, struct vmbus_channel *ch)
{
	struct netvsp *n = device;
	unsigned index = vmbus_channel_index(ch);
	struct netvsp_channel *c;

	if (index >= n->options.max_channels || (index && !n->channels[0]))
		return -ENOSPC;
	if (n->channels[index])
		return -EBUSY;
	c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	c->n = n;
	c->ch = ch;
	c->index = index;
	loop_timer_init(n->loop, &c->next_round, on_next_round);
	vmbus_channel_set_context(ch, c);
	if (!index)
		netvsp_forget(n);
	n->channels[index] = c;
	if (index)
		sub_opened(n);
	return 0;
}

/* No I/O into guest memory is ever under way between two callbacks. */
static void netvsp_close(void *device, struct vmbus_channel *ch)
{
	struct netvsp *n = device;
	struct netvsp_channel *c = vmbus_channel_context(ch);

	rx_channel_closed(c);
	loop_timer_disarm(&c->next_round);
	n->channels[c->index] = NULL;
	if (!c->index)
		netvsp_forget(n);
	free(c);
	vmbus_channel_closed(ch);
}

static void netvsp_signal(void *device, struct vmbus_channel *ch)
{
	(void)device;
	channel_run(vmbus_channel_context(ch));
}

static void netvsp_reset(void *device)
{
	struct netvsp *n = device;

	netvsp_forget(n);
	n->paused = false;
}

/* --- the adapter --- */

struct netvsp_state netvsp_state(const struct netvsp *n)
{
	struct netvsp_state s = {
		.version = n->version,
		.mtu = n->mtu,
		.filter = n->filter,
		.connected = n->port,
		.link = netvsp_link(n),
		.rss = n->hash_types,
		.coalescing = n->rsc_ip4 || n->rsc_ip6,
		.speed = n->options.speed,
		.sections = n->section_count,
		.sections_free = n->free_count,
	};

	memcpy(s.mac, n->mac, sizeof(s.mac));
	for (unsigned i = 0; i < NETVSP_MAX_CHANNELS; i++)
		s.channels += !!n->channels[i];
	return s;
}

struct netvsp_counters netvsp_counters(const struct netvsp *n)
{
	return n->counters;
}

bool netvsp_channel_counters(const struct netvsp *n, unsigned index, uint64_t *ret_rx,
			     uint64_t *ret_tx)
{
	const struct netvsp_channel *c = index < NETVSP_MAX_CHANNELS ? n->channels[index] : NULL;

	if (!c)
		return false;
	*ret_rx = c->rx_frames;
	*ret_tx = c->tx_frames;
	return true;
}

static int options_check(struct netvsp_options *o, struct error *err)
{
	if (!o->max_version)
		o->max_version = NVSP_PROTOCOL_VERSION_61;
	if (!o->max_channels)
		o->max_channels = NETVSP_MAX_CHANNELS;
	if (!o->speed)
		o->speed = SPEED_DEFAULT;
	if (!netvsp_version_name(o->max_version))
		return error_set(err, -EINVAL,
				 "there is no such network protocol; known are 1, 2, 4, 5, 6 and "
				 "6.1");
	if (o->max_channels > NETVSP_MAX_CHANNELS)
		return error_set(err, -EINVAL, "%u network channels are more than %u",
				 o->max_channels, NETVSP_MAX_CHANNELS);
	if (o->mac[0] & 1 || !memcmp(o->mac, "\0\0\0\0\0\0", NETVSP_MAC_SIZE))
		return error_set(err, -EINVAL,
				 "a network adapter's address must be one of a single station, "
				 "like 00:15:5d:01:02:03");
	return 0;
}

int netvsp_new(struct loop *loop, const struct netvsp_options *options, struct netvsp **ret,
	       struct error *err)
{
	struct netvsp *n = calloc(1, sizeof(*n));
	int r;

	if (!n)
		return error_set(err, -ENOMEM, "out of memory");
	n->loop = loop;
	n->options = *options;
	n->watch.fd = -1;
	loop_task_init(&n->settle, on_settle);
	loop_timer_init(loop, &n->port_round, on_port_round);
	loop_timer_init(loop, &n->tx_patience, on_patience);
	loop_timer_init(loop, &n->link_timer, on_link_timer);
	loop_timer_init(loop, &n->leave_timer, on_leave_timer);
	r = options_check(&n->options, err);
	if (r >= 0 && options->name && !(n->name = strdup(options->name)))
		r = error_set(err, -ENOMEM, "out of memory");
	if (r < 0) {
		netvsp_free(n);
		return r;
	}
	netvsp_forget(n);
	*ret = n;
	return 0;
}

void netvsp_free(struct netvsp *n)
{
	if (!n)
		return;
	netvsp_disconnect(n);
	oid_rss_off(n);
	loop_cancel(n->loop, &n->settle);
	loop_timer_disarm(&n->tx_patience);
	loop_timer_disarm(&n->link_timer);
	loop_timer_disarm(&n->leave_timer);
	free(n->name);
	free(n);
}

const struct vmbus_device_type netvsp_type = {
	.name = "netvsp",
	.interface =
		GUID(0xf8615163, 0xdf3e, 0x46c5, 0x91, 0x3f, 0xf2, 0xd2, 0xf9, 0x65, 0xed, 0x0e),
	.open = netvsp_open,
	.close = netvsp_close,
	.signal = netvsp_signal,
	.reset = netvsp_reset,
	.serves_rescinded = true, /* Linux' driver waits for all sends for ever */
	.pause = netvsp_pause,
	.save = netvsp_save,
	.restore = netvsp_restore,
	.resume = netvsp_resume,
};
