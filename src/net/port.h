/* SPDX-License-Identifier: MIT */
/*
 * A port of a virtual switch: two rings of frames in shared memory, one each way, between the
 * switch and what is plugged in (a worker's adapter). The switch makes it and gives the other side
 * two descriptors: the memory, sealed in size, and the end of a socket pair for wake-ups (an
 * eventfd would be one open file, which either side could make blocking for both). Neither side
 * trusts the other: what the other has written is copied once and judged as a copy, and indices or
 * lengths that cannot be end the port (-EIO, ever after). When the other side is gone it ends with
 * -EPIPE, which receiving says after the last frame.
 *
 * A frame is an Ethernet frame without its checksum, VLAN tags inside, and what is still to be done
 * to it (struct net_offload). Single producer, single consumer; each ring is one thread's on each
 * side. No system call is made while the other side is awake.
 */
#pragma once

#include "lib/error.h"
#include "lib/types.h"

#include <sys/uio.h>

#define NET_PORT_FDS  2        /* memory, socket */
#define NET_FRAME_MIN 14u      /* an Ethernet header */
#define NET_FRAME_MAX 65562u   /* the largest IP packet, header and two VLAN tags (rounded) */
#define NET_RING_SIZE 1048576u /* bytes of a ring as usual; a power of two, 128 KiB to 16 MiB */

/* What is left to do, as virtio has it (virtio 1.3, 5.1.6: struct virtio_net_hdr). */
enum net_offload_flag {
	NET_CHECKSUM_NEEDED = BIT(0), /* checksum_start and _offset say where */
	NET_CHECKSUM_VALID = BIT(1),  /* has been looked at, or need not be */
};
enum net_segmentation {
	NET_SEGMENT_NONE = 0,
	NET_SEGMENT_TCP4 = 1,
	NET_SEGMENT_TCP6 = 4,
	NET_SEGMENT_UDP = 5,    /* datagrams of the same ports (VIRTIO_NET_HDR_GSO_UDP_L4) */
	NET_SEGMENT_ECN = 0x80, /* beside TCP4 or TCP6 */
};
struct net_offload {
	uint8_t flags, segmentation;
	uint16_t header_size;                     /* bytes of all headers; a hint */
	uint16_t segment_size;                    /* bytes of payload in each segment */
	uint16_t checksum_start, checksum_offset; /* bytes from the frame's first */
};

enum net_side {
	NET_SIDE_SWITCH,
	NET_SIDE_PORT,
};

struct net_port;

/* Both rings, empty; this is the switch's side. */
int net_port_new(size_t ring_size, struct net_port **ret, struct error *err) _must_check_;
/*
 * The other side, from its descriptors (taken in any case). -EINVAL with words when they are
 * not a port's.
 */
int net_port_open(const int fds[NET_PORT_FDS], struct net_port **ret,
		  struct error *err) _must_check_;
void net_port_free(struct net_port *p); /* NULL is fine */
/* Those for the other side, once: the caller's from here on, to be passed on and closed. */
void net_port_fds(struct net_port *p, int ret[NET_PORT_FDS]);

/*
 * Copies a frame of `size` bytes into the ring, where the other side sees it after the next flush.
 * -EAGAIN when there is no room (drop it, or ask net_port_want_room); -EMSGSIZE outside
 * NET_FRAME_MIN..MAX; -EINVAL when the offload is not possible (NULL: none); -EIO, -EPIPE.
 */
int net_port_send(struct net_port *p, const struct net_offload *offload, const struct iovec *iov,
		  unsigned count, size_t size) _must_check_;
/* After a batch: the other side learns of it, with a system call only if it sleeps. */
void net_port_flush(struct net_port *p);
/*
 * Flushes. false = the descriptor becomes readable when the other side has made room, and
 * net_port_arm then says so; once for each call. true = there is room by now (or the port ended).
 */
bool net_port_want_room(struct net_port *p);

struct net_frame {
	struct net_offload offload; /* judged: possible, offsets lie inside the frame */
	/* Shared memory: the other side may change it at any time. Copy, then judge. */
	const void *data;
	size_t size;
};
/* 1 and the next frame, which stays there until net_port_release; 0 = none; -EIO, -EPIPE. */
int net_port_receive(struct net_port *p, struct net_frame *ret) _must_check_;
/* Gives back what net_port_receive gave since; the other side learns of room if it wants to. */
void net_port_release(struct net_port *p);
/*
 * Readable when there is something to receive, room that was wanted, or the end. Before sleeping:
 * net_port_arm; false = something came meanwhile (frames, room, the end): receive and send again.
 * The descriptor is read in there. An ended port stays readable: unwatch it.
 */
int net_port_fd(const struct net_port *p);
bool net_port_arm(struct net_port *p);

/* What may be left to do to a frame for somebody. */
enum net_takes {
	NET_TAKES_CHECKSUM = BIT(0),
	NET_TAKES_TCP4 = BIT(1), /* these with NET_TAKES_CHECKSUM only */
	NET_TAKES_TCP6 = BIT(2),
	NET_TAKES_UDP = BIT(3),
	NET_TAKES_ECN = BIT(4), /* beside TCP */
	NET_TAKES_ALL = 0x1f,
};
/*
 * The port's side says what it takes, at any time; nothing at first. The switch does the rest
 * before it sends. Frames that are in the ring already are as they are.
 */
void net_port_take(struct net_port *p, unsigned takes);
unsigned net_port_takes(const struct net_port *p); /* what the other side has said */

struct net_port_counters {
	uint64_t frames_in, bytes_in, frames_out, bytes_out;
	uint64_t full; /* sends for which there was no room */
};
struct net_port_counters net_port_counters(const struct net_port *p);
