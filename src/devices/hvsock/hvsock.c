// SPDX-License-Identifier: MIT
/*
 * See hvsock.h. A connection is offered to the guest as a channel that names service and endpoint;
 * when the guest opens it bytes flow. Backpressure is whole both ways: what a side does not take
 * stays with the other, but for one packet of the guest's.
 *
 * Each direction ends by itself: an empty packet is the end of what the guest sends, and becomes a
 * shutdown of the Unix socket, and the other way round. When both have ended, or an end breaks the
 * rules or vanishes, the channel is rescinded; the guest waits for that (Linux
 * vmbus_hvsock_device_unregister), and the connection is freed when it has let go.
 */
#include "devices/hvsock/hvsock_internal.h"

#include "vmbus/vmbus_proto.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define CHUNK         (8192u - VMPIPE_HEADER_SIZE) /* a third of Linux' usual ring */
#define MOVES_AT_ONCE 16
#define NS            UINT64_C(1000000000)

enum connection_state {
	CONNECTION_OFFERED,
	CONNECTION_OPEN,
	CONNECTION_GONE, /* rescinded */
};

struct connection {
	struct list node;
	struct hvsock *h;
	struct connection_start start;
	enum connection_state state;
	struct vmbus_channel *offer, *channel;
	int fd;
	struct loop_watch watch;
	uint32_t watched;
	struct loop_timer timer;
	struct loop_task more;
	bool guest_ended;          /* it sends no more */
	bool host_ended, end_sent; /* the Unix socket's end was read; and told */
	bool hung_up;              /* nobody holds the other end of the Unix socket */
	size_t at, size;           /* what of `pending` the Unix socket has not taken yet */
	uint8_t pending[HVS_MTU_SIZE];
};

static void connection_move(struct connection *c);

/* --- the end of one --- */

static void on_released(void *device)
{
	struct connection *c = device;

	list_remove(&c->node);
	c->h->stats.connections--;
	free(c);
}

static void socket_drop(struct connection *c)
{
	loop_unwatch(&c->watch);
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
}

/* Who asked for it hears of its end when it was never open. */
static void start_end(struct connection *c, int result)
{
	void (*done)(void *, int, int) = c->start.done;
	int fd = c->fd;

	c->start.done = NULL;
	if (!done)
		return;
	if (result < 0)
		c->fd = -1;
	done(c->start.context, result, result < 0 ? fd : -1);
}

/* May free the connection. */
static void connection_end(struct connection *c, int result)
{
	if (c->state == CONNECTION_GONE)
		return;
	c->state = CONNECTION_GONE;
	loop_timer_disarm(&c->timer);
	loop_cancel(c->h->loop, &c->more);
	loop_unwatch(&c->watch);
	start_end(c, result);
	socket_drop(c);
	vmbus_device_rescind(c->offer, on_released);
}

static void connection_break(struct connection *c)
{
	c->h->stats.broken++;
	connection_end(c, -ECONNRESET);
}

static void on_timer(struct loop_timer *t)
{
	struct connection *c = container_of(t, struct connection, timer);

	if (c->state == CONNECTION_OPEN)
		c->h->stats.broken++;
	else
		c->h->stats.refused++;
	connection_end(c, -ETIMEDOUT);
}

static void arm(struct connection *c, unsigned seconds)
{
	if (!c->timer.deadline)
		loop_timer_arm(&c->timer, loop_now(c->h->loop) + seconds * NS);
}

/* --- bytes --- */

static void on_socket(struct loop_watch *w, uint32_t events)
{
	struct connection *c = container_of(w, struct connection, watch);

	if (events & EPOLLHUP)
		c->hung_up = true;
	connection_move(c);
}

/* An end that hung up is always reported: without a wish there is no watch. */
static bool watch(struct connection *c, uint32_t events)
{
	if (events == c->watched)
		return true;
	loop_unwatch(&c->watch);
	c->watched = events;
	return !events || loop_watch(c->h->loop, &c->watch, c->fd, events, on_socket) >= 0;
}

/* 1 = all went, 0 = it takes no more now. */
static int flush(struct connection *c)
{
	while (c->at < c->size) {
		ssize_t n = send(c->fd, c->pending + c->at, c->size - c->at,
				 MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0)
			return errno == EAGAIN || errno == EINTR ? 0 : -errno;
		c->at += (size_t)n;
		c->h->stats.from_guest += (uint64_t)n;
	}
	c->at = c->size = 0;
	if (c->guest_ended)
		(void)shutdown(c->fd, SHUT_WR);
	return 1;
}

static int take_packet(struct connection *c, const struct vmbus_packet *p)
{
	struct reader r = reader_of(p->payload, p->size);
	uint32_t type = reader_le32(&r), size = reader_le32(&r);
	const void *data = reader_take(&r, size);

	if (!reader_ok(&r) || p->type != VMBUS_PACKET_INBAND || type != VMPIPE_DATA ||
	    size > sizeof(c->pending) || c->guest_ended)
		return -EBADMSG;
	if (!size)
		c->guest_ended = true;
	else
		memcpy(c->pending, data, size);
	c->size = size;
	return flush(c);
}

/* From the guest: 1 = there may be more, 0 = nothing more now. */
static int move_out(struct connection *c)
{
	struct vmbus_packet p;
	int r = c->size ? flush(c) : 1;

	if (r <= 0)
		return r;
	r = vmbus_receive(c->channel, &p);
	if (r <= 0)
		return r;
	r = take_packet(c, &p);
	return r < 0 ? r : 1;
}

static int send_packet(struct connection *c, uint8_t *packet, size_t size)
{
	struct writer w = writer_of(packet, VMPIPE_HEADER_SIZE);

	writer_le32(&w, VMPIPE_DATA);
	writer_le32(&w, (uint32_t)size);
	c->h->stats.to_guest += size;
	return vmbus_send(c->channel, VMBUS_PACKET_INBAND, 0, packet, VMPIPE_HEADER_SIZE + size);
}

/* To the guest: 1 = there may be more, 0 = it has no room, or there is nothing now. */
static int move_in(struct connection *c, bool *ret_no_room)
{
	uint8_t packet[VMPIPE_HEADER_SIZE + CHUNK];
	ssize_t n;

	if (c->end_sent)
		return 0;
	*ret_no_room =
		!vmbus_can_send(c->channel, c->host_ended ? VMPIPE_HEADER_SIZE : sizeof(packet));
	if (*ret_no_room)
		return 0;
	n = c->host_ended ? 0 : recv(c->fd, packet + VMPIPE_HEADER_SIZE, CHUNK, MSG_DONTWAIT);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	c->host_ended = c->end_sent = !n;
	n = send_packet(c, packet, (size_t)n);
	return n < 0 ? (int)n : 1;
}

/* What is to be waited for, and for how long. */
static void connection_wait(struct connection *c, bool no_room)
{
	uint32_t events = (c->size ? EPOLLOUT : 0u) | (c->end_sent || no_room ? 0u : EPOLLIN);
	bool nobody = c->hung_up && c->end_sent; /* the host's program is gone altogether */

	if (c->guest_ended && c->end_sent && !c->size) {
		connection_end(c, 0);
		return;
	}
	/* A guest that has ended may have gone altogether: it takes nothing more then. */
	if (nobody || (c->guest_ended && no_room))
		arm(c, HVSOCK_CLOSE_SECONDS);
	else
		loop_timer_disarm(&c->timer);
	if (!watch(c, events))
		connection_break(c);
}

static void connection_move(struct connection *c)
{
	bool no_room = false;
	int out = 1, in = 1;

	for (int i = 0; i < MOVES_AT_ONCE && (out > 0 || in > 0); i++) {
		out = move_out(c);
		in = out < 0 ? out : move_in(c, &no_room);
		if (out < 0 || in < 0) {
			connection_break(c);
			return;
		}
	}
	if (out > 0 || in > 0)
		loop_defer(c->h->loop, &c->more);
	connection_wait(c, no_room);
}

static void on_more(struct loop_task *t)
{
	struct connection *c = container_of(t, struct connection, more);

	if (c->state == CONNECTION_OPEN)
		connection_move(c);
}

/* --- the channel --- */

static int on_open(void *device, struct vmbus_channel *ch)
{
	struct connection *c = device;

	if (c->state != CONNECTION_OFFERED || vmbus_channel_index(ch))
		return -EBUSY;
	c->channel = ch;
	c->state = CONNECTION_OPEN;
	loop_timer_disarm(&c->timer);
	start_end(c, 0);
	loop_defer(c->h->loop, &c->more);
	return 0;
}

/* It is closed by the guest, or by our own rescind, or because the guest is gone. */
static void on_close(void *device, struct vmbus_channel *ch)
{
	struct connection *c = device;

	c->channel = NULL;
	connection_end(c, -ECONNRESET);
	vmbus_channel_closed(ch);
}

static void on_signal(void *device, struct vmbus_channel *ch)
{
	struct connection *c = device;

	(void)ch;
	if (c->state == CONNECTION_OPEN)
		connection_move(c);
}

static const struct vmbus_device_type hvsock_type = {
	.name = "hvsock",
	.offer_flags = VMBUS_OFFER_ENUMERATE_DEVICE_INTERFACE | VMBUS_OFFER_NAMED_PIPE_MODE |
		       VMBUS_OFFER_TLNPI_PROVIDER,
	.open = on_open,
	.close = on_close,
	.signal = on_signal,
};

static int connection_offer(struct connection *c, struct error *err)
{
	struct vmbus_offer_options o = { .interface = c->start.service,
					 .instance = c->start.endpoint };
	struct writer w = writer_of(o.user_data, sizeof(o.user_data));

	writer_le32(&w, HVSOCK_PIPE_BYTES);
	writer_u8(&w, c->start.from_host);
	return vmbus_device_offer(c->h->bus, &hvsock_type, c, &o, &c->offer, err);
}

static bool endpoint_taken(const struct hvsock *h, const struct guid *endpoint)
{
	list_foreach(it, &h->connections)
	{
		const struct connection *c = list_entry(it, struct connection, node);

		if (guid_equal(&c->start.endpoint, endpoint))
			return true;
	}
	return false;
}

int connection_start(struct hvsock *h, const struct connection_start *start, uint32_t *ret_number,
		     struct error *err)
{
	struct connection *c = NULL;
	int r = 0;

	if (h->stats.connections == HVSOCK_CONNECTIONS_MAX)
		r = error_set(err, -EMFILE, "the machine has %u connections, which is the most",
			      HVSOCK_CONNECTIONS_MAX);
	else if (endpoint_taken(h, &start->endpoint))
		r = error_set(err, -EADDRINUSE, "the guest's endpoint has a connection");
	if (r >= 0)
		c = calloc(1, sizeof(*c));
	if (r >= 0 && !c)
		r = error_set(err, -ENOMEM, "out of memory");
	if (r < 0) {
		close(start->fd);
		return r;
	}
	c->h = h;
	c->start = *start;
	c->fd = start->fd;
	c->watch.fd = -1;
	loop_timer_init(h->loop, &c->timer, on_timer);
	loop_task_init(&c->more, on_more);
	r = connection_offer(c, err);
	if (r < 0) {
		socket_drop(c);
		free(c);
		return r;
	}
	list_append(&h->connections, &c->node);
	h->stats.connections++;
	arm(c, HVSOCK_OPEN_SECONDS);
	*ret_number = h->number++;
	return 0;
}

/* --- the whole --- */

static int on_connect(void *context, const struct guid *endpoint, const struct guid *service)
{
	struct hvsock *h = context;
	int r = host_wanted(h, endpoint, service);

	if (r < 0)
		h->stats.refused++;
	return r;
}

int hvsock_new(struct loop *loop, struct vmbus *bus, int listener, struct hvsock **ret,
	       struct error *err)
{
	struct hvsock *h = calloc(1, sizeof(*h));
	int r;

	if (!h) {
		close(listener);
		return error_set(err, -ENOMEM, "out of memory");
	}
	h->loop = loop;
	h->bus = bus;
	h->number = 1u << 30;
	list_init(&h->clients);
	list_init(&h->listeners);
	list_init(&h->connections);
	r = host_begin(h, listener, err);
	if (r < 0) {
		free(h);
		return r;
	}
	vmbus_on_connect(bus, on_connect, h);
	*ret = h;
	return 0;
}

void hvsock_free(struct hvsock *h)
{
	if (!h)
		return;
	vmbus_on_connect(h->bus, NULL, NULL);
	/* Those that the guest never opened: their offers are taken back. */
	list_foreach_safe(it, &h->connections)
		connection_end(list_entry(it, struct connection, node), -ECONNRESET);
	host_end(h);
	/* What is left the bus forgets with the guest. */
	list_foreach_safe(it, &h->connections) on_released(list_entry(it, struct connection, node));
	free(h);
}

void hvsock_pause(struct hvsock *h, bool paused)
{
	if (h)
		h->paused = paused;
}

struct hvsock_stats hvsock_stats(const struct hvsock *h)
{
	return h->stats;
}
