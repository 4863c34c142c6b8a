// SPDX-License-Identifier: MIT
/*
 * See uplink_wire.h. What is common to all kinds: what is handed on is judged here, since a kernel
 * of the future, or what stands behind a tap, may say what the code behind this does not know.
 */
#include "lib/cleanup.h"
#include "net/uplink_private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/epoll.h>

/* virtio 1.2, 5.1.6; the same values as net_offload's, which are those of the specification. */
static bool header_read(const struct virtio_net_hdr *h, size_t size, struct net_offload *ret)
{
	unsigned type = h->gso_type & ~(unsigned)VIRTIO_NET_HDR_GSO_ECN;

	*ret = (struct net_offload){ 0 };
	if (h->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) {
		if ((size_t)h->csum_start + h->csum_offset + 2 > size)
			return false;
		ret->flags = NET_CHECKSUM_NEEDED;
		ret->checksum_start = h->csum_start;
		ret->checksum_offset = h->csum_offset;
	} else if (h->flags & VIRTIO_NET_HDR_F_DATA_VALID) {
		ret->flags = NET_CHECKSUM_VALID;
	}
	if (type == VIRTIO_NET_HDR_GSO_NONE)
		return true;
	if ((type != NET_SEGMENT_TCP4 && type != NET_SEGMENT_UDP && type != NET_SEGMENT_TCP6) ||
	    !h->gso_size || h->hdr_len > size)
		return false;
	ret->segmentation = h->gso_type;
	ret->segment_size = h->gso_size;
	ret->header_size = h->hdr_len;
	return true;
}

static struct virtio_net_hdr header_of(const struct net_offload *o)
{
	struct virtio_net_hdr h = { 0 };

	if (o->flags & NET_CHECKSUM_NEEDED) {
		h.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
		h.csum_start = o->checksum_start;
		h.csum_offset = o->checksum_offset;
	} else if (o->flags & NET_CHECKSUM_VALID) {
		h.flags = VIRTIO_NET_HDR_F_DATA_VALID;
	}
	if (o->segmentation) {
		h.gso_type = o->segmentation;
		h.gso_size = o->segment_size;
		h.hdr_len = o->header_size;
	}
	return h;
}

void wire_set_link(struct net_wire *w, bool up, const char *words)
{
	if (w->told && w->up == up)
		return;
	w->told = true;
	w->up = up;
	w->options.link(w->options.context, up, words);
}

void wire_lost(struct net_wire *w)
{
	char words[NET_WIRE_WORDS];

	if (w->gone)
		return;
	w->gone = true;
	w->told = false; /* that it is down may be known, but not this */
	snprintf(words, sizeof(words), "the interface %s is gone", w->interface);
	wire_set_link(w, false, words);
}

static struct net_wire *wire_of(const struct net_uplink *u)
{
	return container_of(u, struct net_wire, uplink);
}

/* ---- what a switch calls ---- */

static int wire_receive(struct net_uplink *u, struct net_frame *ret)
{
	struct net_wire *w = wire_of(u);
	struct wire_frame f;
	int r = w->gone ? -ENODEV : 0;

	while (!r) {
		r = w->type->receive(w, &f);
		if (r != 1)
			break;
		if (f.size >= NET_FRAME_MIN && f.size <= NET_FRAME_MAX &&
		    header_read(&f.header, f.size, &ret->offload))
			break;
		w->counters.dropped_in++;
		r = 0;
	}
	w->full = r == -EAGAIN;
	if (r == 1) {
		ret->data = f.data;
		ret->size = f.size;
		w->counters.frames_in++;
		w->counters.bytes_in += f.size;
	} else if (r < 0 && r != -EAGAIN) {
		wire_lost(w);
		return -ENODEV;
	}
	return MAX(r, 0);
}

static void wire_release(struct net_uplink *u)
{
	struct net_wire *w = wire_of(u);

	w->type->release(w);
}

static int wire_send(struct net_uplink *u, const struct net_offload *offload,
		     const struct iovec *iov, unsigned count, size_t size)
{
	struct net_wire *w = wire_of(u);
	struct virtio_net_hdr h = header_of(offload);

	if (w->gone)
		return -ENODEV;
	if (w->type->send(w, &h, iov, count, size) < 0) {
		w->counters.dropped_out++;
		return 0;
	}
	w->counters.frames_out++;
	w->counters.bytes_out += size;
	return 0;
}

static void wire_flush(struct net_uplink *u)
{
	struct net_wire *w = wire_of(u);

	if (w->type->flush && !w->gone)
		w->type->flush(w);
}

/* What has no room is dropped: a wire is never full. */
static bool wire_want_room(struct net_uplink *u)
{
	(void)u;
	return true;
}

static bool wire_arm(struct net_uplink *u)
{
	return !wire_of(u)->full;
}

static void wire_free(struct net_uplink *u)
{
	struct net_wire *w = wire_of(u);

	wire_link_end(w);
	free(w->state);
	close(w->uplink.fd);
	free(w);
}

static const struct net_uplink_ops wire_ops = {
	.receive = wire_receive,
	.release = wire_release,
	.send = wire_send,
	.flush = wire_flush,
	.want_room = wire_want_room,
	.arm = wire_arm,
	.free = wire_free,
};

/* ---- what its owner calls ---- */

int net_wire_mac(struct net_uplink *u, const struct inet_mac *mac, bool wanted)
{
	struct net_wire *w = wire_of(u);

	if (!w->type->mac || w->options.promiscuous)
		return 0;
	return w->gone ? -ENODEV : w->type->mac(w, mac, wanted);
}

const char *net_wire_interface(const struct net_uplink *u)
{
	return wire_of(u)->interface;
}

bool net_wire_up(const struct net_uplink *u)
{
	return wire_of(u)->up;
}

struct net_wire_counters net_wire_counters(const struct net_uplink *u)
{
	return wire_of(u)->counters;
}

static int wire_open(struct net_wire *w, struct error *err)
{
	static const struct wire_type *const types[] = { &wire_tap, &wire_packet };
	int r = 0, flags;

	for (size_t i = 0; i < ARRAY_SIZE(types) && !r; i++) {
		w->type = types[i];
		r = types[i]->open(w, err);
	}
	if (r < 0)
		return r;
	if (!r)
		return error_set(err, -EINVAL,
				 "the descriptor for an uplink is no tap, no macvtap and no packet "
				 "socket");
	flags = fcntl(w->uplink.fd, F_GETFL);
	if (flags < 0 || fcntl(w->uplink.fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return error_errno(err, -errno, "cannot set up the descriptor of %s", w->interface);
	return wire_link_begin(w, err);
}

int net_wire_new(const struct net_wire_options *options, struct net_uplink **ret, struct error *err)
{
	struct net_wire *w = calloc(1, sizeof(*w));
	int r;

	if (!w) {
		close(options->fd);
		return error_set(err, -ENOMEM, "no memory for an uplink");
	}
	w->options = *options;
	w->uplink = (struct net_uplink){ .ops = &wire_ops,
					 .fd = options->fd,
					 .events = EPOLLIN | EPOLLET,
					 .takes = NET_TAKES_ALL & ~(unsigned)NET_TAKES_UDP };
	w->news.fd = w->netlink = -1;
	r = wire_open(w, err);
	if (r < 0) {
		wire_free(&w->uplink);
		return r;
	}
	*ret = &w->uplink;
	return 0;
}
