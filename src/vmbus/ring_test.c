// SPDX-License-Identifier: MIT
/*
 * Rings against themselves: one side played by the test. Hostile indices, descriptors and lengths
 * are tried one by one.
 */
#include "vmbus/ring.h"

#include <errno.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#define PAGES 3 /* control and two of data */

struct pair {
	uint8_t *memory;
	void *pages[PAGES];
	struct ring reader, writer;
};

/* Pages in falling order, so that the paths without a linear mapping are taken. */
static void pair_init(struct pair *p, bool linear)
{
	p->memory = mmap(NULL, PAGES * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			 -1, 0);
	assert_true(p->memory != MAP_FAILED);
	for (int i = 0; i < PAGES; i++)
		p->pages[i] = p->memory + 4096 * (linear ? i : PAGES - 1 - i);
	assert_int_equal(ring_init(&p->reader, p->pages, PAGES), 0);
	assert_int_equal(ring_init(&p->writer, p->pages, PAGES), 0);
	assert_true(!p->reader.linear == !linear);
}

static void pair_deinit(struct pair *p)
{
	ring_deinit(&p->reader);
	ring_deinit(&p->writer);
	munmap(p->memory, PAGES * 4096);
}

static void round_trips(bool linear)
{
	struct pair p;
	uint8_t payload[512], back[600];
	bool signal;

	pair_init(&p, linear);
	for (unsigned i = 0; i < 2000; i++) {
		struct vmbus_packet_descriptor d = { .type = le16_of(6),
						     .transaction_id = le64_of(i) };
		size_t size = (i * 37) % sizeof(payload);
		int n;

		memset(payload, (int)i, sizeof(payload));
		assert_int_equal(ring_write(&p.writer, d, payload, size, &signal), 0);
		assert_true(signal); /* it was empty */
		n = ring_read(&p.reader, back, sizeof(back), &signal);
		assert_int_equal(n, 16 + round_up64(size, 8));
		assert_memory_equal(back + 16, payload, size);
		assert_int_equal(ring_read(&p.reader, back, sizeof(back), &signal), 0);
	}
	pair_deinit(&p);
}

static void test_round_trips(void **state)
{
	(void)state;
	round_trips(true);
	round_trips(false);
}

static void test_full_ring_and_pending_size(void **state)
{
	struct vmbus_packet_descriptor d = { .type = le16_of(6) };
	uint8_t payload[1000] = { 0 }, back[2000];
	struct pair p;
	bool signal;
	int n = 0;

	(void)state;
	pair_init(&p, true);
	while (!ring_write(&p.writer, d, payload, sizeof(payload), &signal)) {
		assert_true(signal == (n == 0)); /* empty to non-empty only */
		n++;
	}
	assert_int_equal(n, 7); /* eight would fit exactly, and full means empty */
	assert_int_equal(gshared_load32(p.writer.control, RING_PENDING_SEND_SIZE), 1024);
	assert_true(ring_read(&p.reader, back, sizeof(back), &signal) > 0);
	assert_true(signal);
	assert_true(ring_read(&p.reader, back, sizeof(back), &signal) > 0);
	assert_false(signal); /* only when the room comes into being */
	assert_int_equal(ring_has_room(&p.writer, 1024), 1);
	assert_int_equal(ring_write(&p.writer, d, payload, sizeof(payload), &signal), 0);
	assert_int_equal(gshared_load32(p.writer.control, RING_PENDING_SEND_SIZE), 0);
	pair_deinit(&p);
}

/* Many packets, shown together, with one signal: that of an empty ring that is so no longer. */
static void test_packets_shown_together(void **state)
{
	struct vmbus_packet_descriptor d = { .type = le16_of(6) };
	uint8_t payload[64] = { 7 }, back[128];
	struct pair p;
	bool signal;

	(void)state;
	pair_init(&p, false);
	for (unsigned round = 0; round < 50; round++) {
		for (unsigned i = 0; i < 20; i++)
			assert_int_equal(ring_put(&p.writer, d, payload, sizeof(payload)), 0);
		assert_int_equal(ring_read(&p.reader, back, sizeof(back), &signal), 0);
		assert_true(ring_show(&p.writer));
		assert_false(ring_show(&p.writer)); /* nothing new */
		assert_int_equal(ring_put(&p.writer, d, payload, sizeof(payload)), 0);
		assert_false(ring_show(&p.writer)); /* the reader is at work */
		for (unsigned i = 0; i < 21; i++)
			assert_int_equal(ring_read(&p.reader, back, sizeof(back), &signal), 80);
	}
	/* What was put takes room although nobody sees it. */
	while (!ring_put(&p.writer, d, payload, sizeof(payload)))
		;
	assert_int_equal(ring_has_room(&p.writer, ring_packet_size(sizeof(payload))), 0);
	pair_deinit(&p);
}

static void test_mask_silences_the_writer(void **state)
{
	struct vmbus_packet_descriptor d = { .type = le16_of(6) };
	struct pair p;
	bool signal;

	(void)state;
	pair_init(&p, true);
	assert_false(ring_mask(&p.reader, true));
	assert_int_equal(ring_write(&p.writer, d, "x", 1, &signal), 0);
	assert_false(signal);
	assert_true(ring_mask(&p.reader, false)); /* and the reader finds it on unmasking */
	pair_deinit(&p);
}

/* A writer that lies: each change must break the ring, and nothing else. */
static void test_hostile_writer(void **state)
{
	static const struct {
		uint32_t in;
		uint16_t offset8, length8;
		int expect;
	} cases[] = {
		{ 24, 2, 2, 16 },
		{ 8, 2, 2, -EIO },
		{ 16, 2, 2, -EIO },
		{ 12, 2, 2, -EIO },
		{ 8192, 2, 2, -EIO },
		{ UINT32_MAX, 2, 2, -EIO },
		{ 0x80000000, 2, 2, -EIO },
		{ 24, 2, 3, -EIO },
		{ 24, 2, 0xffff, -EIO },
		{ 24, 1, 2, -EIO },
		{ 24, 0, 2, -EIO },
		{ 24, 3, 2, -EIO },
		{ 24, 2, 1, -EIO },
		{ 24, 2, 0, -EIO },
		{ 32, 3, 3, 24 },
		{ 8184, 2, 1022, -EIO /* larger than the reader's buffer */ },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct vmbus_packet_descriptor d = { .type = le16_of(6),
						     .offset8 = le16_of(cases[i].offset8),
						     .length8 = le16_of(cases[i].length8) };
		uint8_t back[4096];
		struct pair p;
		bool signal;

		pair_init(&p, true);
		memcpy(p.pages[1], &d, sizeof(d));
		gshared_store32(p.pages[0], RING_IN, cases[i].in);
		assert_int_equal(ring_read(&p.reader, back, sizeof(back), &signal),
				 cases[i].expect);
		if (cases[i].expect < 0)
			assert_int_equal(ring_read(&p.reader, back, sizeof(back), &signal), -EIO);
		pair_deinit(&p);
	}
}

static void test_hostile_reader(void **state)
{
	static const uint32_t out[] = { 1, 4, 8192, 8200, UINT32_MAX, 0x80000000 };
	struct vmbus_packet_descriptor d = { .type = le16_of(6) };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(out); i++) {
		struct pair p;
		bool signal;

		pair_init(&p, true);
		gshared_store32(p.pages[0], RING_OUT, out[i]);
		assert_int_equal(ring_write(&p.writer, d, "x", 1, &signal), -EIO);
		assert_int_equal(ring_has_room(&p.writer, 8), -EIO);
		pair_deinit(&p);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trips),
		cmocka_unit_test(test_full_ring_and_pending_size),
		cmocka_unit_test(test_packets_shown_together),
		cmocka_unit_test(test_mask_silences_the_writer),
		cmocka_unit_test(test_hostile_writer),
		cmocka_unit_test(test_hostile_reader),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
