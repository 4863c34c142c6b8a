// SPDX-License-Identifier: MIT
/*
 * A hostile partition table. The input is the start of the disk; its last eighth also stands at the
 * end, where a backup would be. Bit 0 of the first byte: sectors of 4 KiB; bit 1: checksums of GPTs
 * are made right. Whatever is found lies inside the disk.
 */
#include "lib/types.h"
#include "vhdtool/ptable.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define SIZE (256 * KIB)

static uint8_t disk[SIZE];

static int read_disk(void *context, void *buf, size_t n, uint64_t offset)
{
	(void)context;
	if (!range_inside(offset, n, SIZE))
		abort();
	memcpy(buf, disk + offset, n);
	return 0;
}

static uint32_t crc32(const uint8_t *p, size_t n)
{
	uint32_t c = ~0u;

	while (n--) {
		c ^= *p++;
		for (int i = 0; i < 8; i++)
			c = c & 1 ? c >> 1 ^ 0xedb88320u : c >> 1;
	}
	return ~c;
}

static uint32_t get32(size_t at)
{
	le32 v;

	memcpy(&v, disk + at, sizeof(v));
	return le32_get(v);
}

static void put32(size_t at, uint32_t v)
{
	le32 x = le32_of(v);

	memcpy(disk + at, &x, sizeof(x));
}

static void resign(size_t at, uint32_t sector)
{
	size_t table = (size_t)get32(at + 72) * sector;
	uint64_t size = (uint64_t)get32(at + 80) * get32(at + 84);

	if (range_inside(table, size, SIZE))
		put32(at + 88, crc32(disk + table, size));
	put32(at + 16, 0);
	if (get32(at + 12) <= sector)
		put32(at + 16, crc32(disk + at, get32(at + 12)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t flags = size ? data[0] : 0;
	const struct ptable_source s = {
		.size = SIZE,
		.sector = flags & 1 ? 4096 : 512,
		.read = read_disk,
	};
	struct ptable t;

	size = MIN(size, SIZE / 2);
	memset(disk, 0, sizeof(disk));
	memcpy(disk, data, size);
	memcpy(disk + SIZE - size / 8, data + size - size / 8, size / 8);
	if (flags & 2) {
		resign(s.sector, s.sector);
		resign(SIZE - s.sector, s.sector);
	}
	if (ptable_read(&s, &t, NULL) < 0)
		abort(); /* only reading can fail */
	if (t.count > PTABLE_MAX)
		abort();
	for (unsigned i = 0; i < t.count; i++)
		if (!t.entries[i].length ||
		    !range_inside(t.entries[i].offset, t.entries[i].length, SIZE))
			abort();
	return 0;
}
