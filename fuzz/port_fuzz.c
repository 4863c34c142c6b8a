// SPDX-License-Identifier: MIT
/*
 * One side of a port whose other side writes anything anywhere between our calls. Frames stay
 * inside the ring and are possible, and a broken port stays broken. The first byte says which side
 * is honest.
 */
#include "lib/cursor.h"
#include "net/port.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#define RING   (128u * 1024)
#define MEMORY (4096 + 2 * RING)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_receive(struct net_port *p)
{
	struct net_frame f;
	uint8_t sum = 0;
	int r = net_port_receive(p, &f);

	if (r < 0 && r != -EIO && r != -EPIPE)
		abort();
	if (r == -EIO && net_port_receive(p, &f) != -EIO)
		abort();
	if (r != 1)
		return;
	if (f.size < NET_FRAME_MIN || f.size > NET_FRAME_MAX)
		abort();
	if (f.offload.flags & NET_CHECKSUM_NEEDED &&
	    f.offload.checksum_start + f.offload.checksum_offset + 2u > f.size)
		abort();
	for (size_t i = 0; i < f.size; i++)
		sum ^= ((const volatile uint8_t *)f.data)[i];
	(void)sum;
}

static void check_send(struct net_port *p, struct reader *r)
{
	static const uint8_t zeros[NET_FRAME_MAX];
	const struct net_offload o = {
		.flags = reader_u8(r),
		.segmentation = reader_u8(r),
		.segment_size = reader_u8(r),
		.checksum_start = reader_le16(r),
	};
	size_t size = reader_le16(r);
	const struct iovec iov = { (void *)zeros, size };
	int e = net_port_send(p, &o, &iov, 1, size);

	if (e && e != -EAGAIN && e != -EMSGSIZE && e != -EINVAL && e != -EIO && e != -EPIPE)
		abort();
}

static void lie(uint8_t *memory, struct reader *r)
{
	uint32_t where = reader_le32(r), value = reader_le32(r);

	/* Control words are small targets: half of the lies go there. */
	if (where & 1)
		where = 64 + (where >> 1) % 10 * 64;
	else
		where = (where >> 1) % (MEMORY / 4) * 4;
	__atomic_store_n((uint32_t *)(memory + where), value, __ATOMIC_RELAXED);
}

static void play(struct net_port *p, uint8_t *memory, struct reader *r)
{
	while (reader_left(r)) {
		switch (reader_u8(r) % 8) {
		case 0:
		case 1:
			lie(memory, r);
			break;
		case 2:
			check_receive(p);
			break;
		case 3:
			check_send(p, r);
			break;
		case 4:
			net_port_release(p);
			break;
		case 5:
			net_port_flush(p);
			break;
		case 6:
			(void)net_port_arm(p);
			break;
		case 7:
			net_port_want_room(p);
			break;
		}
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct reader r = reader_of(data, size);
	struct net_port *a, *b;
	int fds[NET_PORT_FDS];
	struct error err;
	uint8_t *memory;
	uint8_t which = reader_u8(&r);

	if (net_port_new(RING, &a, &err) < 0)
		abort();
	net_port_fds(a, fds);
	memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_SHARED, fds[0], 0);
	if (memory == MAP_FAILED || net_port_open(fds, &b, &err) < 0)
		abort();
	play(which & 1 ? a : b, memory, &r);
	net_port_free(a);
	net_port_free(b);
	munmap(memory, MEMORY);
	return 0;
}
