// SPDX-License-Identifier: MIT
/*
 * One ring whose other side writes anything anywhere between our reads and writes. Whatever comes,
 * lengths stay inside the buffer, and a broken ring stays broken.
 */
#include "vmbus/ring.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define PAGES 4

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_read(struct ring *ring)
{
	uint8_t *buffer = malloc(1024);
	bool signal, was_broken = ring->broken;
	int n = ring_read(ring, buffer, 1024, &signal);

	if (n > 1024 || (n > 0 && n < 16) || (was_broken && n != -EIO) || ring->own >= ring->size)
		abort();
	free(buffer);
}

static void check_write(struct ring *ring, struct reader *r)
{
	struct vmbus_packet_descriptor d = { .type = le16_of(6) };
	size_t n = MIN(reader_le16(r) % 2048u, reader_left(r));
	const void *payload = reader_take(r, n);
	bool signal;
	int result = ring_write(ring, d, payload ? payload : "", payload ? n : 0, &signal);

	if (result && result != -EAGAIN && result != -EIO)
		abort();
	if (ring->own >= ring->size)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct reader r = reader_of(data, size);
	uint8_t flags = reader_u8(&r);
	struct ring ring;
	void *pages[PAGES];
	uint8_t *memory = aligned_alloc(4096, PAGES * 4096);

	if (!memory)
		abort();
	memset(memory, 0, PAGES * 4096);
	for (int i = 0; i < PAGES; i++)
		pages[i] = memory + 4096 * (flags & 1 ? i : PAGES - 1 - i);
	if (ring_init(&ring, pages, PAGES) < 0)
		abort();
	while (reader_left(&r)) {
		uint8_t op = reader_u8(&r);
		uint32_t at, value;

		switch (op % 4) {
		case 0: /* the control page: indices, mask, pending size */
			gshared_store32(pages[0], op / 4 % 4 * 4u, reader_le32(&r));
			break;
		case 1:
			at = reader_le16(&r) % ((PAGES - 1) * 4096u - 4);
			value = reader_le32(&r);
			memcpy((uint8_t *)pages[1 + at / 4096] + MIN(at % 4096, 4092u), &value, 4);
			break;
		case 2:
			check_read(&ring);
			break;
		case 3:
			check_write(&ring, &r);
			break;
		}
	}
	ring_deinit(&ring);
	free(memory);
	return 0;
}
