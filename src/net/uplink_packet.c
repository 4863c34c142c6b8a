// SPDX-License-Identifier: MIT
/*
 * A wire that is a packet socket (packet(7)) on an interface of the host: many frames in one system
 * call both ways. With PACKET_VNET_HDR large segments and unfinished checksums pass as they are;
 * that is why frames are not taken from a mapped ring, whose newest version has no room for it. The
 * kernel takes the outer VLAN tag out of a frame and says so beside it: it is put back. What the
 * host itself sends through the interface is not seen, and it does not see what is sent here.
 * Loop's thread.
 */
#include "lib/cleanup.h"
#include "net/uplink_private.h"

#include <errno.h>
#include <linux/if_packet.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#define BATCH     NET_WIRE_BATCH
#define OUT_BATCH 64u
#define TAG       4u
#define ROOM      (NET_FRAME_MAX + 6u)
#define OUT_BYTES 262144u /* of frames that wait for the end of a batch */

/* One frame that comes: its header, room for a tag in front, and the frame. */
struct in_frame {
	struct virtio_net_hdr header;
	_Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(sizeof(struct tpacket_auxdata))];
	struct iovec iov[2];
	uint8_t bytes[TAG + ROOM];
};

struct packet {
	struct in_frame in[BATCH];
	struct mmsghdr messages[BATCH];
	unsigned in_at, in_count; /* given, there */
	struct mmsghdr out[OUT_BATCH];
	struct iovec out_iov[OUT_BATCH][2];
	struct virtio_net_hdr out_headers[OUT_BATCH];
	unsigned out_count;
	size_t out_used;
	uint8_t out_bytes[OUT_BYTES];
};

static int set(const struct net_wire *w, int option, int value)
{
	return setsockopt(w->uplink.fd, SOL_PACKET, option, &value, sizeof(value)) < 0 ? -errno : 0;
}

static int membership(const struct net_wire *w, unsigned short type, const struct inet_mac *mac,
		      bool add)
{
	struct packet_mreq q = { .mr_ifindex = w->index, .mr_type = type };

	if (mac) {
		q.mr_alen = INET_MAC_SIZE;
		memcpy(q.mr_address, mac, INET_MAC_SIZE);
	}
	return setsockopt(w->uplink.fd, SOL_PACKET,
			  add ? PACKET_ADD_MEMBERSHIP : PACKET_DROP_MEMBERSHIP, &q, sizeof(q)) < 0
		       ? -errno
		       : 0;
}

static int packet_mac(struct net_wire *w, const struct inet_mac *mac, bool wanted)
{
	return membership(w, PACKET_MR_UNICAST, mac, wanted);
}

/* Bound to one interface, for all protocols, with the frames' headers. */
static int judge(struct net_wire *w, struct error *err)
{
	struct sockaddr_ll at = { 0 };
	socklen_t size = sizeof(at);
	int type = 0;
	socklen_t type_size = sizeof(type);
	struct ifreq q = { 0 };

	if (getsockname(w->uplink.fd, (struct sockaddr *)&at, &size) < 0 ||
	    getsockopt(w->uplink.fd, SOL_SOCKET, SO_TYPE, &type, &type_size) < 0)
		return error_errno(err, -errno, "cannot look at a packet socket");
	if (type != SOCK_RAW || at.sll_ifindex <= 0)
		return error_set(err, -EINVAL,
				 "a packet socket for an uplink must be raw and bound to an "
				 "interface that is there");
	q.ifr_ifindex = at.sll_ifindex;
	if (ioctl(w->uplink.fd, SIOCGIFNAME, &q) < 0)
		return error_errno(err, -errno, "cannot find the interface of a packet socket");
	memcpy(w->interface, q.ifr_name, sizeof(w->interface) - 1);
	w->index = at.sll_ifindex;
	return 0;
}

static int prepare(struct net_wire *w, struct error *err)
{
	int r = set(w, PACKET_VNET_HDR, 1);

	if (!r)
		r = set(w, PACKET_AUXDATA, 1);
	if (!r)
		r = set(w, PACKET_IGNORE_OUTGOING, 1);
	if (!r)
		r = membership(w, w->options.promiscuous ? PACKET_MR_PROMISC : PACKET_MR_ALLMULTI,
			       NULL, true);
	return r < 0 ? error_errno(err, r, "cannot set up the packet socket on %s", w->interface)
		     : 0;
}

static void packet_frames(struct packet *p)
{
	for (unsigned i = 0; i < BATCH; i++) {
		struct in_frame *f = &p->in[i];

		f->iov[0] = (struct iovec){ &f->header, sizeof(f->header) };
		f->iov[1] = (struct iovec){ f->bytes + TAG, ROOM };
		p->messages[i].msg_hdr = (struct msghdr){ .msg_iov = f->iov,
							  .msg_iovlen = 2,
							  .msg_control = f->control };
	}
}

static int packet_open(struct net_wire *w, struct error *err)
{
	int domain = 0, r;
	socklen_t size = sizeof(domain);

	if (getsockopt(w->uplink.fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) < 0 ||
	    domain != AF_PACKET)
		return 0;
	r = judge(w, err);
	if (!r)
		r = prepare(w, err);
	if (r < 0)
		return r;
	w->state = calloc(1, sizeof(struct packet));
	if (!w->state)
		return error_set(err, -ENOMEM, "no memory for an uplink");
	packet_frames(w->state);
	return 1;
}

static const struct tpacket_auxdata *auxdata(struct msghdr *m)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c))
		if (c->cmsg_level == SOL_PACKET && c->cmsg_type == PACKET_AUXDATA &&
		    c->cmsg_len >= CMSG_LEN(sizeof(struct tpacket_auxdata)))
			return (const struct tpacket_auxdata *)(const void *)CMSG_DATA(c);
	return NULL;
}

/* Puts the tag that the kernel took out back behind the addresses; the frame begins earlier. */
static uint8_t *restore_tag(struct in_frame *f, const struct tpacket_auxdata *a)
{
	be16 type = be16_of(a->tp_status & TP_STATUS_VLAN_TPID_VALID ? a->tp_vlan_tpid
								     : INET_ETHER_VLAN);
	be16 tag = be16_of(a->tp_vlan_tci);

	memmove(f->bytes, f->bytes + TAG, 2 * INET_MAC_SIZE);
	memcpy(f->bytes + 2 * INET_MAC_SIZE, &type, sizeof(type));
	memcpy(f->bytes + 2 * INET_MAC_SIZE + 2, &tag, sizeof(tag));
	if (f->header.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM)
		f->header.csum_start = (uint16_t)(f->header.csum_start + TAG);
	if (f->header.gso_type)
		f->header.hdr_len = (uint16_t)(f->header.hdr_len + TAG);
	return f->bytes;
}

static bool take(struct mmsghdr *m, struct in_frame *f, struct wire_frame *ret)
{
	const struct tpacket_auxdata *a = auxdata(&m->msg_hdr);
	uint8_t *frame = f->bytes + TAG;
	size_t size = m->msg_len;

	if (size < sizeof(f->header) + 2 * INET_MAC_SIZE || (m->msg_hdr.msg_flags & MSG_TRUNC))
		return false;
	size -= sizeof(f->header);
	if (a && (a->tp_status & TP_STATUS_VLAN_VALID)) {
		frame = restore_tag(f, a);
		size += TAG;
	}
	*ret = (struct wire_frame){ f->header, frame, size };
	return true;
}

/* ENETDOWN: it was switched off, or has gone; rtnetlink knows which. */
static int fetch(struct net_wire *w)
{
	struct packet *p = w->state;
	int n;

	for (unsigned i = 0; i < BATCH; i++)
		p->messages[i].msg_hdr.msg_controllen = sizeof(p->in[i].control);
	do
		n = recvmmsg(w->uplink.fd, p->messages, BATCH, MSG_DONTWAIT, NULL);
	while (n < 0 && (errno == EINTR || errno == ENETDOWN));
	if (n < 0)
		return errno == EAGAIN ? 0 : -errno;
	p->in_at = 0;
	p->in_count = (unsigned)n;
	return n;
}

static int packet_receive(struct net_wire *w, struct wire_frame *ret)
{
	struct packet *p = w->state;
	int r;

	if (p->in_count && p->in_at == p->in_count)
		return -EAGAIN;
	if (!p->in_count) {
		r = fetch(w);
		if (r <= 0)
			return r;
	}
	while (p->in_at < p->in_count) {
		unsigned i = p->in_at++;

		if (take(&p->messages[i], &p->in[i], ret))
			return 1;
		w->counters.dropped_in++;
	}
	return -EAGAIN;
}

static void packet_release(struct net_wire *w)
{
	struct packet *p = w->state;

	if (p->in_at == p->in_count)
		p->in_at = p->in_count = 0;
}

/* What the kernel refuses is dropped, and what is behind it goes on. */
static void packet_flush(struct net_wire *w)
{
	struct packet *p = w->state;
	unsigned at = 0;

	while (at < p->out_count) {
		int n = sendmmsg(w->uplink.fd, p->out + at, p->out_count - at, MSG_DONTWAIT);

		if (n > 0) {
			at += (unsigned)n;
			continue;
		}
		if (errno == EINTR)
			continue;
		w->counters.dropped_out++;
		w->counters.frames_out--;
		at++;
	}
	p->out_count = 0;
	p->out_used = 0;
}

static int packet_send(struct net_wire *w, const struct virtio_net_hdr *header,
		       const struct iovec *iov, unsigned count, size_t size)
{
	struct packet *p = w->state;
	struct writer writer;
	unsigned i;

	if (p->out_count == OUT_BATCH || size > OUT_BYTES - p->out_used)
		packet_flush(w);
	i = p->out_count;
	writer = writer_of(p->out_bytes + p->out_used, size);
	for (unsigned k = 0; k < count; k++)
		writer_put(&writer, iov[k].iov_base, iov[k].iov_len);
	if (!writer_ok(&writer) || writer.at != size)
		return -EINVAL;
	p->out_headers[i] = *header;
	p->out_iov[i][0] = (struct iovec){ &p->out_headers[i], sizeof(*header) };
	p->out_iov[i][1] = (struct iovec){ writer.data, size };
	p->out[i].msg_hdr = (struct msghdr){ .msg_iov = p->out_iov[i], .msg_iovlen = 2 };
	p->out_used += size;
	p->out_count++;
	return 0;
}

const struct wire_type wire_packet = {
	.open = packet_open,
	.receive = packet_receive,
	.release = packet_release,
	.send = packet_send,
	.flush = packet_flush,
	.mac = packet_mac,
};
