// SPDX-License-Identifier: MIT
/*
 * A hostile set: its head and both slots of reservations. The input says how to spoil a good one
 * and what initiators then ask for. A state that was accepted must keep agreeing with itself
 * whatever is asked, and survive being stored and loaded. Tools look at it too.
 *
 *     byte 0      START_* bits
 *     byte 1      number of patches
 *     patch       u16 offset in the file, u8 length, bytes
 *     then        requests: u8 initiator, u8 action and scope, u8 type, u8 key, u8 action key
 */
#include "lib/crc32c.h"
#include "lib/cursor.h"
#include "vhd/dump.h"
#include "vhd/image.h"
#include "vhd/vhdset.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define START_RESIGN BIT(0)
#define START_TWO    BIT(1) /* both slots are written */
#define START_SHORT  BIT(2) /* tools see only so many bytes as the input has */

struct memory {
	struct reserve_medium medium;
	uint8_t bytes[VHDSET_SIZE];
};

static int memory_read(struct reserve_medium *m, void *buf, size_t n, uint64_t offset)
{
	memcpy(buf, container_of(m, struct memory, medium)->bytes + offset, n);
	return 0;
}

static int memory_write(struct reserve_medium *m, const void *buf, size_t n, uint64_t offset)
{
	memcpy(container_of(m, struct memory, medium)->bytes + offset, buf, n);
	return 0;
}

static int memory_sync(struct reserve_medium *m)
{
	(void)m;
	return 0;
}

static struct guid person(uint8_t i)
{
	return (struct guid){ { 0xa0, i, 3 } };
}

static void start(struct memory *m, unsigned flags)
{
	static const uint8_t head[] = {
		'p', 't', 'v', 'h', 'd', 's', 'e', 't', 1, 0, 0, 0, 0, 0, 0, 0, 9, 9, 9, 9, 9,   9,
		9,   9,   9,   9,   9,   9,   9,   9,   9, 9, 2, 0, 0, 0, 1, 0, 0, 0, 8, 8, 8,   8,
		8,   8,   8,   8,   8,   8,   8,   8,   8, 8, 8, 8, 0, 2, 0, 0, 0, 0, 0, 0, 'x',
	};
	struct reserve_state s = { .type = 1, .holder = 3, .generation = 2 };

	m->medium = (struct reserve_medium){ memory_read, memory_write, memory_sync };
	memset(m->bytes, 0, sizeof(m->bytes));
	memcpy(m->bytes, head, sizeof(head));
	for (uint8_t i = 0; i < 6; i++)
		s.nexus[i] = (struct reserve_nexus){ .id = person(i), .key = i };
	reserve_slot_encode(&s, 0, m->bytes + RESERVE_SLOT(0));
	s.type = RESERVE_NONE;
	s.holder = 0;
	if (flags & START_TWO)
		reserve_slot_encode(&s, 1, m->bytes + RESERVE_SLOT(1));
}

static void patch(struct memory *m, struct reader *r)
{
	size_t at = reader_le16(r), n = reader_u8(r);
	const void *bytes = reader_take(r, n);

	if (bytes && range_inside(at, n, sizeof(m->bytes)))
		memcpy(m->bytes + at, bytes, n);
}

/* `at` = of the checksum, in a part of 4096 bytes. */
static void resign(uint8_t *part, size_t at)
{
	le32 sum = le32_of(0);

	memcpy(part + at, &sum, 4);
	sum = le32_of(crc32c(0, part, 4096));
	memcpy(part + at, &sum, 4);
}

static void request(struct memory *m, struct reserve_state *s, uint64_t *change, struct reader *r)
{
	struct guid id = person(reader_u8(r) % 80);
	uint8_t action = reader_u8(r);
	const struct reserve_request q = {
		.action = action & 0x1f,
		.scope = action >> 5,
		.type = reader_u8(r) & 0xf,
		.key = reader_u8(r),
		.action_key = reader_u8(r),
	};
	struct reserve_state got;
	bool changed;

	reserve_apply(s, &id, &q, &changed);
	if (!reserve_state_valid(s))
		abort();
	if (!changed)
		return;
	if (*change == UINT64_MAX)
		return;
	if (reserve_medium_store(&m->medium, s, *change) < 0 ||
	    reserve_medium_load(&m->medium, &got, change) < 0 || memcmp(&got, s, sizeof(got)))
		abort();
}

static void on_begin(void *context, const char *name, bool list)
{
	(void)name, (void)list;
	++*(unsigned *)context;
}

static void on_end(void *context)
{
	if (!(*(unsigned *)context)--)
		abort();
}

static void on_number(void *context, const char *name, uint64_t value)
{
	(void)context, (void)name, (void)value;
}

static void on_text(void *context, const char *name, const char *value)
{
	(void)context;
	if (!name || !value[0])
		abort();
}

/* `size` bytes of it. They agree on whether it is whole. */
static void tools_look(const struct memory *m, size_t size)
{
	static int fd = -1;
	unsigned depth = 0;
	const struct dump_visitor to = { on_begin, on_end, on_number, on_text, &depth };
	struct check_report report = { 0 };
	struct vhdset_status status;
	struct error err = { 0 };

	if (fd < 0)
		fd = memfd_create("set", MFD_CLOEXEC);
	if (ftruncate(fd, 0) < 0 || pwrite(fd, m->bytes, size, 0) != (ssize_t)size ||
	    vhdset_check(fd, &report, &err) < 0 || vhdset_dump(fd, &to, &err) < 0 || depth)
		abort();
	if (vhdset_status(fd, &status, &err) < 0 && !report.counts[CHECK_DAMAGE])
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct memory m;
	struct reader r = reader_of(data, size);
	unsigned flags = reader_u8(&r), patches = reader_u8(&r);
	struct reserve_state s;
	struct vhdset_info info;
	struct error err = { 0 };
	uint64_t change;

	start(&m, flags);
	for (unsigned i = 0; i < patches && reader_left(&r); i++)
		patch(&m, &r);
	if (flags & START_RESIGN) {
		resign(m.bytes, 12);
		resign(m.bytes + RESERVE_SLOT(0), 24);
		resign(m.bytes + RESERVE_SLOT(1), 24);
	}
	tools_look(&m, flags & START_SHORT ? size % VHDSET_SIZE : VHDSET_SIZE);
	if (vhdset_decode(m.bytes, &info, &err) < 0) {
		if (!err.message[0])
			abort();
	} else if (!info.image[0] || strchr(info.image, '/')) {
		abort();
	}
	if (reserve_medium_load(&m.medium, &s, &change) < 0)
		return 0;
	if (!reserve_state_valid(&s))
		abort();
	while (reader_left(&r))
		request(&m, &s, &change, &r);
	return 0;
}
