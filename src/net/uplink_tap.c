// SPDX-License-Identifier: MIT
/*
 * A wire that is a tap or macvtap (the kernel's Documentation/networking/tuntap.rst): one read or
 * write is one frame, with a struct virtio_net_hdr in front. A macvtap is the same but for what it
 * says when its interface goes. Loop's thread.
 */
#include "lib/cleanup.h"
#include "net/uplink_private.h"

#include <errno.h>
#include <linux/if_tun.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#define FRAME_ROOM (NET_FRAME_MAX + 64u)
#define PIECES_MAX 8u

struct tap {
	unsigned used;
	uint8_t frames[NET_WIRE_BATCH][FRAME_ROOM];
};

static int find_index(struct net_wire *w, struct error *err)
{
	_cleanup_close_ int s = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 0);
	struct ifreq q = { 0 };

	memcpy(q.ifr_name, w->interface, sizeof(q.ifr_name));
	if (s < 0 || ioctl(s, SIOCGIFINDEX, &q) < 0)
		return error_errno(err, -errno, "cannot find the interface %s of a tap",
				   w->interface);
	w->index = q.ifr_ifindex;
	return 0;
}

/* Linux 6.2; a kernel without has no UDP segments in either direction. */
#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif

/* Without any the kernel does the work itself, and it takes all but UDP segments. */
static void set_offloads(struct net_wire *w)
{
	unsigned usual = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;

	if (ioctl(w->uplink.fd, TUNSETOFFLOAD, usual | TUN_F_USO4 | TUN_F_USO6) == 0)
		w->uplink.takes |= NET_TAKES_UDP;
	else
		(void)!ioctl(w->uplink.fd, TUNSETOFFLOAD, usual);
}

static int tap_open(struct net_wire *w, struct error *err)
{
	int header = sizeof(struct virtio_net_hdr), r;
	struct ifreq q = { 0 };

	if (ioctl(w->uplink.fd, TUNGETIFF, &q) < 0)
		return 0;
	memcpy(w->interface, q.ifr_name, sizeof(w->interface) - 1);
	if (!(q.ifr_flags & IFF_TAP) || !(q.ifr_flags & IFF_NO_PI) || !(q.ifr_flags & IFF_VNET_HDR))
		return error_set(err, -EINVAL,
				 "the interface %s must be a tap with IFF_NO_PI and IFF_VNET_HDR",
				 w->interface);
	if (ioctl(w->uplink.fd, TUNSETVNETHDRSZ, &header) < 0)
		return error_errno(err, -errno, "cannot set up the tap %s", w->interface);
	set_offloads(w);
	r = find_index(w, err);
	if (r < 0)
		return r;
	w->state = calloc(1, sizeof(struct tap));
	return w->state ? 1 : error_set(err, -ENOMEM, "no memory for an uplink");
}

static int tap_receive(struct net_wire *w, struct wire_frame *ret)
{
	struct tap *t = w->state;
	uint8_t *frame = t->frames[t->used % NET_WIRE_BATCH];
	struct iovec iov[] = { { &ret->header, sizeof(ret->header) }, { frame, FRAME_ROOM } };
	ssize_t n;

	if (t->used == NET_WIRE_BATCH)
		return -EAGAIN;
	do
		n = readv(w->uplink.fd, iov, ARRAY_SIZE(iov));
	while (n < 0 && errno == EINTR);
	if (n < 0 && errno == EAGAIN)
		return 0;
	/* A tap says EBADFD without its interface, a macvtap gives nothing. */
	if (n < (ssize_t)sizeof(ret->header))
		return -ENODEV;
	t->used++;
	ret->data = frame;
	ret->size = (size_t)n - sizeof(ret->header);
	return 1;
}

static void tap_release(struct net_wire *w)
{
	struct tap *t = w->state;

	t->used = 0;
}

static int tap_send(struct net_wire *w, const struct virtio_net_hdr *header,
		    const struct iovec *iov, unsigned count, size_t size)
{
	struct iovec all[1 + PIECES_MAX] = { { (void *)header, sizeof(*header) } };
	ssize_t n;

	(void)size;
	if (count > PIECES_MAX)
		return -EMSGSIZE;
	memcpy(all + 1, iov, count * sizeof(*iov));
	n = writev(w->uplink.fd, all, (int)count + 1);
	return n < 0 ? -errno : 0;
}

const struct wire_type wire_tap = {
	.open = tap_open,
	.receive = tap_receive,
	.release = tap_release,
	.send = tap_send,
};
