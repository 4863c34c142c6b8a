// SPDX-License-Identifier: MIT
/*
 * Dynamic memory over the real bus with a scripted guest: versions, ballooning and giving back,
 * adding with and without region, and all that a guest can lie about, refuse, or leave half done.
 * That pages are really freed is asked of the kernel.
 */
#include "devices/dynmem/dynmem.h"
#include "devices/dynmem/dynmem_proto.h"
#include "vmbus/testing.h"

#include <errno.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#define RING_PAGES 5
#define PAGE       ((uint64_t)GMEM_PAGE_SIZE)
#define LINUX      (BIT64(63) | BIT64(56))
#define MY_PAGES   (16 * MIB / PAGE) /* the guest gives pages from here on */
#define CAPS_LINUX (DM_CAPS_BALLOON | DM_CAPS_HOT_ADD | 7 << 2)

struct bed {
	struct test_guest *g;
	struct dynmem *d;
	struct vmbus_channel *primary;
	struct test_channel ch;
	uint64_t os;
	unsigned events[DYNMEM_GONE + 1];
	uint64_t grown;
	bool refuse_growth;
	/* the last message from the host */
	uint8_t in[8192];
	size_t size;
};

static int on_grow(void *context, uint64_t size)
{
	struct bed *b = context;

	if (b->refuse_growth)
		return -ENOSPC;
	assert_true(size >= b->grown && size <= TEST_GUEST_GROW_MOST);
	b->grown = size;
	return gmem_grow(b->g->gm, size);
}

static uint64_t on_guest_os(void *context)
{
	return ((struct bed *)context)->os;
}

static void on_event(void *context, enum dynmem_event event)
{
	((struct bed *)context)->events[event]++;
}

static struct bed *bed_closed(void)
{
	struct vmbus_offer_options offer = { .instance = dynmem_instance };
	struct bed *b = calloc(1, sizeof(*b));
	struct dynmem_options o = { .base = TEST_GUEST_RAM,
				    .grow_gpa = TEST_GUEST_GROW_GPA,
				    .grow_most = TEST_GUEST_GROW_MOST,
				    .grow = on_grow,
				    .guest_os = on_guest_os,
				    .event = on_event,
				    .context = b };

	assert_non_null(b);
	b->os = LINUX;
	b->g = test_guest_new(1, 0, 0);
	o.gm = b->g->gm;
	assert_int_equal(dynmem_new(b->g->loop, &o, &b->d, NULL), 0);
	assert_int_equal(
		vmbus_device_offer(b->g->bus, &dynmem_type, b->d, &offer, &b->primary, NULL), 0);
	assert_true(test_guest_connect(b->g, VERSION_WIN10_V5_3));
	test_guest_request_offers(b->g);
	assert_int_equal(b->g->offer_count, 1);
	return b;
}

static struct bed *bed_new(void)
{
	struct bed *b = bed_closed();

	assert_true(test_channel_open(b->g, &b->g->offers[0], RING_PAGES, &b->ch));
	return b;
}

static void forget(struct test_channel *c)
{
	ring_deinit(&c->out);
	ring_deinit(&c->in);
}

static void bed_free(struct bed *b)
{
	forget(&b->ch);
	test_guest_stop(b->g);
	dynmem_free(b->d);
	test_guest_free(b->g);
	free(b);
}

/* The next message from the host; its type, 0 when there is none. */
static unsigned take(struct bed *b)
{
	struct vmbus_packet_descriptor d;
	uint8_t packet[8192];
	int n = test_channel_receive(&b->ch, packet, sizeof(packet));
	struct dm_header h;

	if (n <= 0)
		return 0;
	memcpy(&d, packet, sizeof(d));
	assert_int_equal(le16_get(d.type), VMBUS_PACKET_INBAND);
	b->size = (size_t)n - sizeof(d);
	memcpy(b->in, packet + sizeof(d), b->size);
	memcpy(&h, b->in, sizeof(h));
	assert_true(le16_get(h.size) <= b->size && b->size - le16_get(h.size) < 8);
	return le16_get(h.type);
}

static void say(struct bed *b, unsigned type, const void *body, size_t size)
{
	uint8_t m[16384] = { 0 };
	struct dm_header h = { .type = le16_of((uint16_t)type),
			       .size = le16_of((uint16_t)(size + sizeof(h))) };

	memcpy(m, &h, sizeof(h));
	memcpy(m + sizeof(h), body, size);
	assert_int_equal(test_channel_send(&b->ch, VMBUS_PACKET_INBAND, 0, m,
					   round_up64(size + sizeof(h), 8), 0),
			 0);
	test_guest_pump(b->g);
}

static bool offer_version(struct bed *b, uint32_t version)
{
	le32 body[2] = { le32_of(version), le32_of(0) };

	say(b, DM_VERSION_REQUEST, body, sizeof(body));
	assert_int_equal(take(b), DM_VERSION_RESPONSE);
	return b->in[8];
}

static void report_capabilities(struct bed *b, uint64_t caps)
{
	le64 body[3] = { le64_of(caps), le64_of(0), le64_of(UINT64_MAX) };

	say(b, DM_CAPABILITIES_REPORT, body, sizeof(body));
	assert_int_equal(take(b), DM_CAPABILITIES_RESPONSE);
	assert_int_equal(b->in[8], 1);
}

static struct bed *bed_ready(uint64_t caps)
{
	struct bed *b = bed_new();

	assert_true(offer_version(b, DYNMEM_PROTOCOL_VERSION_3));
	report_capabilities(b, caps);
	assert_int_equal(take(b), DM_INFO_MESSAGE);
	assert_int_equal(take(b), 0);
	return b;
}

static void give(struct bed *b, bool more, const uint64_t *ranges, unsigned count)
{
	le64 body[2000];

	body[0] = le64_of((uint64_t)(more | (uint64_t)count << 1) << 32);
	for (unsigned i = 0; i < count; i++)
		body[1 + i] = le64_of(ranges[i]);
	say(b, DM_BALLOON_RESPONSE, body, 8 + count * sizeof(le64));
}

static void give_one(struct bed *b, bool more, uint64_t page, uint64_t count)
{
	uint64_t range = DM_RANGE(page, count);

	give(b, more, &range, 1);
}

static void target(struct bed *b, uint64_t mib)
{
	assert_int_equal(dynmem_set_target(b->d, mib * MIB, NULL), 0);
	test_guest_pump(b->g);
}

static uint32_t word_at(const struct bed *b, size_t at)
{
	le32 v;

	memcpy(&v, b->in + at, sizeof(v));
	return le32_get(v);
}

static uint64_t range_at(const struct bed *b, unsigned index)
{
	le64 v;

	memcpy(&v, b->in + 16 + index * sizeof(v), sizeof(v));
	return le64_get(v);
}

static void assert_request(struct bed *b, uint64_t mib)
{
	assert_int_equal(take(b), DM_BALLOON_REQUEST);
	assert_int_equal(word_at(b, 8), mib * MIB / PAGE);
}

static void answer_add(struct bed *b, uint32_t pages, uint32_t result)
{
	le32 body[2] = { le32_of(pages), le32_of(result) };

	say(b, DM_MEM_HOT_ADD_RESPONSE, body, sizeof(body));
}

static unsigned resident(struct bed *b, uint64_t page, size_t pages)
{
	unsigned char in[4096];
	unsigned n = 0;

	assert_true(pages <= sizeof(in));
	assert_int_equal(mincore(gmem_page(b->g->gm, page * PAGE), pages * PAGE, in), 0);
	for (size_t i = 0; i < pages; i++)
		n += in[i] & 1;
	return n;
}

/* --- starting --- */

static void test_versions(void **state)
{
	static const uint32_t good[] = { DYNMEM_PROTOCOL_VERSION_1, DYNMEM_PROTOCOL_VERSION_2,
					 DYNMEM_PROTOCOL_VERSION_3 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		struct bed *b = bed_new();

		assert_false(offer_version(b, DYNMEM_MAKE_VERSION(3, 0)));
		assert_false(offer_version(b, 0));
		assert_true(offer_version(b, good[i]));
		assert_int_equal(dynmem_status(b->d).version, good[i]);
		report_capabilities(b, CAPS_LINUX);
		/* 0.3 has no info message */
		assert_int_equal(take(b), i ? DM_INFO_MESSAGE : 0);
		if (i) {
			le64 max;

			memcpy(&max, b->in + 24, sizeof(max));
			assert_int_equal(le64_get(max),
					 (TEST_GUEST_RAM + TEST_GUEST_GROW_MOST) / PAGE);
		}
		assert_string_equal(dynmem_status(b->d).state, "idle");
		assert_int_equal(b->events[DYNMEM_READY], 1);
		bed_free(b);
	}
}

static void test_nothing_is_asked_before_the_guest_has_settled(void **state)
{
	struct bed *b = bed_closed();

	(void)state;
	b->os = 0; /* it has not said who it is */
	assert_true(test_channel_open(b->g, &b->g->offers[0], RING_PAGES, &b->ch));
	target(b, 16);
	assert_int_equal(take(b), 0);
	assert_true(offer_version(b, DYNMEM_PROTOCOL_VERSION_3));
	report_capabilities(b, CAPS_LINUX);
	assert_int_equal(take(b), DM_INFO_MESSAGE);
	assert_int_equal(take(b), 0);
	assert_string_equal(dynmem_status(b->d).state, "settling");
	bed_free(b);
}

static void test_disorder_is_counted_and_forgotten(void **state)
{
	struct bed *b = bed_new();
	uint64_t zero[6] = { 0 };

	(void)state;
	say(b, DM_CAPABILITIES_REPORT, zero, 24); /* before a version */
	say(b, DM_STATUS_REPORT, zero, 40);
	give_one(b, false, MY_PAGES, 512);
	say(b, DM_UNBALLOON_RESPONSE, zero, 0);
	answer_add(b, 512, 1);
	say(b, DM_VERSION_REQUEST, zero, 4); /* too short */
	say(b, 77, zero, 8);
	assert_int_equal(take(b), 0);
	assert_int_equal(dynmem_status(b->d).bad_messages, 7);
	assert_int_equal(dynmem_status(b->d).assigned, TEST_GUEST_RAM);
	assert_true(offer_version(b, DYNMEM_PROTOCOL_VERSION_3));
	report_capabilities(b, CAPS_LINUX);
	bed_free(b);
}

static void test_report(void **state)
{
	struct bed *b = bed_ready(CAPS_LINUX);
	le64 body[5] = { le64_of(10 * MIB / PAGE), le64_of(6 * MIB / PAGE) };

	(void)state;
	assert_false(dynmem_status(b->d).reported);
	say(b, DM_STATUS_REPORT, body, sizeof(body));
	assert_true(dynmem_status(b->d).reported);
	assert_int_equal(dynmem_status(b->d).available, 10 * MIB);
	assert_int_equal(dynmem_status(b->d).demand, 22 * MIB);
	body[1] = le64_of(100 * MIB / PAGE);
	say(b, DM_STATUS_REPORT, body, sizeof(body));
	assert_int_equal(dynmem_status(b->d).demand, 100 * MIB);
	/* nonsense stays in bounds */
	body[0] = body[1] = le64_of(UINT64_MAX);
	say(b, DM_STATUS_REPORT, body, sizeof(body));
	assert_true(dynmem_status(b->d).demand <= UINT64_MAX / PAGE * PAGE);
	assert_int_equal(b->events[DYNMEM_REPORTED], 3);
	bed_free(b);
}

/* --- the balloon --- */

static void test_ballooned_pages_go_to_the_host_and_come_back(void **state)
{
	struct bed *b = bed_ready(CAPS_LINUX);
	uint64_t ranges[] = { DM_RANGE(MY_PAGES + 512, 512), DM_RANGE(MY_PAGES, 512) };
	uint8_t byte;

	(void)state;
	assert_int_equal(gmem_fill(b->g->gm, 16 * MIB, 0x5a, 16 * MIB), 0);
	target(b, 26);
	assert_request(b, 6);
	assert_string_equal(dynmem_status(b->d).state, "ballooning");
	give(b, true, ranges, 2);
	assert_int_equal(dynmem_status(b->d).ballooned, 4 * MIB);
	assert_int_equal(resident(b, MY_PAGES, 1024), 0);
	assert_int_equal(resident(b, MY_PAGES + 1024, 1024), 1024);
	give_one(b, false, MY_PAGES + 2048, 512);
	assert_int_equal(dynmem_status(b->d).assigned, 26 * MIB);
	assert_int_equal(resident(b, MY_PAGES + 2048, 512), 0);
	assert_int_equal(b->events[DYNMEM_REACHED], 1);
	assert_int_equal(b->events[DYNMEM_SHRINK_REFUSED], 0);
	assert_int_equal(take(b), 0);

	/* back: the lowest first, neighbours as one */
	target(b, 31);
	assert_int_equal(take(b), DM_UNBALLOON_REQUEST);
	assert_int_equal(word_at(b, 8), 0);
	assert_int_equal(word_at(b, 12), 2);
	assert_int_equal(range_at(b, 0), DM_RANGE(MY_PAGES, 1024));
	assert_int_equal(range_at(b, 1), DM_RANGE(MY_PAGES + 2048, 512));
	say(b, DM_UNBALLOON_RESPONSE, "", 0);
	assert_int_equal(dynmem_status(b->d).assigned, 32 * MIB);
	assert_int_equal(gmem_read(b->g->gm, 16 * MIB, &byte, 1), 0);
	assert_int_equal(byte, 0);
	assert_int_equal(dynmem_status(b->d).bad_messages, 0);
	bed_free(b);
}

static void test_single_pages_come_back_in_many_messages(void **state)
{
	struct bed *b = bed_ready(CAPS_LINUX);
	uint64_t ranges[1024];
	unsigned messages = 0, n = 0;

	(void)state;
	target(b, 28);
	assert_request(b, 4);
	for (unsigned i = 0; i < 1024; i++)
		ranges[i] = DM_RANGE(MY_PAGES + 2 * i, 1);
	give(b, false, ranges, 1024);
	assert_int_equal(dynmem_status(b->d).assigned, 28 * MIB);
	target(b, 32);
	do {
		assert_int_equal(take(b), DM_UNBALLOON_REQUEST);
		assert_true(b->size <= 4096);
		for (unsigned i = 0; i < word_at(b, 12); i++, n++)
			assert_int_equal(range_at(b, i), DM_RANGE(MY_PAGES + 2 * n, 1));
		messages++;
	} while (word_at(b, 8));
	assert_int_equal(n, 1024);
	assert_int_equal(messages, 5);
	assert_string_equal(dynmem_status(b->d).state, "returning");
	say(b, DM_UNBALLOON_RESPONSE, "", 0);
	assert_int_equal(dynmem_status(b->d).assigned, 32 * MIB);
	bed_free(b);
}

static void test_lies_about_pages_give_nothing(void **state)
{
	const struct {
		uint64_t ranges[3];
		unsigned count;
	} lies[] = {
		{ { DM_RANGE(TEST_GUEST_RAM / PAGE - 1, 2) }, 1 },  /* over the end of RAM */
		{ { DM_RANGE(TEST_GUEST_GROW_GPA / PAGE, 1) }, 1 }, /* not added yet */
		{ { DM_RANGE(UINT64_C(0xffffffffff), 1) }, 1 },     /* the last there is */
		{ { DM_RANGE(MY_PAGES, DM_RANGE_MAX_COUNT) }, 1 },  /* more than asked for */
		{ { DM_RANGE(MY_PAGES, 1025) }, 1 },                /* by one page */
		{ { DM_RANGE(MY_PAGES, 64), DM_RANGE(MY_PAGES + 63, 1) }, 2 }, /* twice */
		{ { DM_RANGE(MY_PAGES, 600), DM_RANGE(MY_PAGES + 600, 600) }, 2 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(lies); i++) {
		struct bed *b = bed_ready(CAPS_LINUX);

		assert_int_equal(gmem_fill(b->g->gm, 16 * MIB, 0x5a, 16 * MIB), 0);
		target(b, 28);
		assert_request(b, 4);
		give(b, true, lies[i].ranges, lies[i].count);
		assert_int_equal(dynmem_status(b->d).bad_messages, 1);
		assert_int_equal(dynmem_status(b->d).ballooned, 0);
		assert_int_equal(resident(b, MY_PAGES, 4096), 4096);
		/* the truth is taken still */
		give_one(b, true, MY_PAGES, 512);
		assert_int_equal(dynmem_status(b->d).ballooned, 2 * MIB);
		/* but not again */
		give_one(b, false, MY_PAGES + 511, 1);
		assert_int_equal(dynmem_status(b->d).bad_messages, 2);
		assert_int_equal(dynmem_status(b->d).ballooned, 2 * MIB);
		assert_int_equal(b->events[DYNMEM_SHRINK_REFUSED], 1);
		bed_free(b);
	}
}

static void test_a_count_that_the_message_does_not_hold(void **state)
{
	struct bed *b = bed_ready(CAPS_LINUX);
	le64 body[3] = { le64_of((uint64_t)3 << 33), le64_of(DM_RANGE(MY_PAGES, 1)),
			 le64_of(DM_RANGE(MY_PAGES + 1, 1)) };

	(void)state;
	target(b, 28);
	assert_request(b, 4);
	say(b, DM_BALLOON_RESPONSE, body, sizeof(body));
	assert_int_equal(dynmem_status(b->d).bad_messages, 1);
	assert_int_equal(dynmem_status(b->d).ballooned, 0);
	bed_free(b);
}

static void test_a_refusal_is_not_asked_again_at_once(void **state)
{
	struct bed *b = bed_ready(CAPS_LINUX);

	(void)state;
	target(b, 16);
	assert_request(b, 16);
	give(b, false, NULL, 0);
	assert_int_equal(b->events[DYNMEM_SHRINK_REFUSED], 1);
	assert_int_equal(dynmem_status(b->d).refusals, 1);
	target(b, 18);
	assert_int_equal(take(b), 0);
	/* what it gave before it refused comes back at once when it is needed */
	bed_free(b);
}

static void test_a_guest_without_balloon_or_hot_add(void **state)
{
	struct bed *b = bed_ready(0);

	(void)state;
	assert_false(dynmem_status(b->d).can_balloon);
	assert_false(dynmem_status(b->d).can_hot_add);
	target(b, 16);
	target(b, 64);
	assert_int_equal(take(b), 0);
	assert_int_equal(b->events[DYNMEM_REACHED], 2);
	bed_free(b);
}

static void test_target_out_of_bounds(void **state)
{
	struct bed *b = bed_ready(CAPS_LINUX);
	struct error err = { 0 };

	(void)state;
	assert_int_equal(dynmem_set_target(b->d, TEST_GUEST_RAM + TEST_GUEST_GROW_MOST + 1, &err),
			 -ERANGE);
	assert_non_null(strstr(err.message, "672 MiB"));
	assert_int_equal(dynmem_set_target(b->d, UINT64_MAX, &err), -ERANGE);
	target(b, 31);
	assert_int_equal(take(b), 0); /* rounded up: nothing to do */
	bed_free(b);
}

/* --- adding --- */

static void test_memory_is_added_in_whole_blocks_and_parts(void **state)
{
	struct bed *b = bed_ready(CAPS_LINUX);
	uint64_t first = TEST_GUEST_GROW_GPA / PAGE;
	uint8_t byte = 1;

	(void)state;
	assert_int_equal(gmem_write(b->g->gm, TEST_GUEST_GROW_GPA, &byte, 1), -EFAULT);
	target(b, 32 + 128);
	assert_int_equal(take(b), DM_MEM_HOT_ADD_REQUEST);
	assert_int_equal(b->size, DM_HOT_ADD_SIZE);
	memcpy(b->in + 16, b->in + 8, 8);
	assert_int_equal(range_at(b, 0), DM_RANGE(first, 32768));
	/* it is RAM before the guest is told */
	assert_int_equal(gmem_write(b->g->gm, TEST_GUEST_GROW_GPA + 128 * MIB - 1, &byte, 1), 0);
	answer_add(b, 32768, 1);
	assert_int_equal(dynmem_status(b->d).assigned, 160 * MIB);
	assert_int_equal(dynmem_status(b->d).hot_added, 128 * MIB);

	/* a part of a block, with the block as its region */
	target(b, 160 + 10);
	assert_int_equal(take(b), DM_MEM_HOT_ADD_REQUEST);
	assert_int_equal(b->size, DM_HOT_ADD_REGION_SIZE);
	assert_int_equal(range_at(b, 0), DM_RANGE(first + 32768, 32768));
	memcpy(b->in + 16, b->in + 8, 8);
	assert_int_equal(range_at(b, 0), DM_RANGE(first + 32768, 2560));
	answer_add(b, 2560, 1);

	/* and its rest, and beyond */
	target(b, 170 + 200);
	assert_int_equal(take(b), DM_MEM_HOT_ADD_REQUEST);
	assert_int_equal(b->size, DM_HOT_ADD_SIZE);
	memcpy(b->in + 16, b->in + 8, 8);
	assert_int_equal(range_at(b, 0), DM_RANGE(first + 32768 + 2560, 51200));
	answer_add(b, 51200, 1);
	assert_int_equal(dynmem_status(b->d).assigned, 370 * MIB);

	/* what was added can be given away */
	target(b, 368);
	assert_request(b, 2);
	give_one(b, false, first + 100, 512);
	assert_int_equal(dynmem_status(b->d).assigned, 368 * MIB);
	assert_int_equal(dynmem_status(b->d).bad_messages, 0);
	/* and comes back before more is added */
	target(b, 372);
	assert_int_equal(take(b), DM_UNBALLOON_REQUEST);
	say(b, DM_UNBALLOON_RESPONSE, "", 0);
	assert_int_equal(take(b), DM_MEM_HOT_ADD_REQUEST);
	bed_free(b);
}

static void test_version_03_gets_no_region(void **state)
{
	struct bed *b = bed_new();

	(void)state;
	assert_true(offer_version(b, DYNMEM_PROTOCOL_VERSION_1));
	report_capabilities(b, CAPS_LINUX);
	target(b, 42);
	assert_int_equal(take(b), DM_MEM_HOT_ADD_REQUEST);
	assert_int_equal(b->size, DM_HOT_ADD_SIZE);
	bed_free(b);
}

static void test_large_blocks_do_not_pass_the_maximum(void **state)
{
	/* blocks of 512 MiB, and a maximum of 640 */
	struct bed *b = bed_ready(DM_CAPS_BALLOON | DM_CAPS_HOT_ADD | 9 << 2);

	(void)state;
	target(b, 32 + 640);
	assert_int_equal(take(b), DM_MEM_HOT_ADD_REQUEST);
	memcpy(b->in + 16, b->in + 8, 8);
	assert_int_equal(range_at(b, 0), DM_RANGE(TEST_GUEST_GROW_GPA / PAGE, 131072));
	answer_add(b, 131072, 1);
	assert_int_equal(take(b), 0);
	assert_int_equal(b->events[DYNMEM_REACHED], 1);
	bed_free(b);
}

static void test_refused_additions(void **state)
{
	struct bed *b = bed_ready(CAPS_LINUX);

	(void)state;
	target(b, 160);
	assert_int_equal(take(b), DM_MEM_HOT_ADD_REQUEST);
	answer_add(b, 0, 0); /* for now */
	assert_true(dynmem_status(b->d).can_hot_add);
	assert_int_equal(take(b), 0); /* not at once */
	assert_int_equal(b->events[DYNMEM_GROW_REFUSED], 1);
	bed_free(b);

	b = bed_ready(CAPS_LINUX);
	target(b, 160);
	assert_int_equal(take(b), DM_MEM_HOT_ADD_REQUEST);
	answer_add(b, 0, 1); /* for ever */
	assert_false(dynmem_status(b->d).can_hot_add);
	assert_int_equal(dynmem_status(b->d).assigned, 32 * MIB);
	bed_free(b);

	b = bed_ready(CAPS_LINUX);
	target(b, 160);
	assert_int_equal(take(b), DM_MEM_HOT_ADD_REQUEST);
	answer_add(b, UINT32_MAX, 1); /* more than there is */
	assert_int_equal(dynmem_status(b->d).bad_messages, 1);
	assert_int_equal(dynmem_status(b->d).assigned, 160 * MIB);
	bed_free(b);
}

static void test_a_host_without_memory_to_add(void **state)
{
	struct bed *b = bed_ready(CAPS_LINUX);

	(void)state;
	b->refuse_growth = true;
	target(b, 160);
	assert_int_equal(take(b), 0);
	assert_int_equal(b->events[DYNMEM_GROW_REFUSED], 1);
	assert_string_equal(dynmem_status(b->d).state, "idle");
	bed_free(b);
}

static void test_the_guest_s_last_page_is_respected(void **state)
{
	struct bed *b = bed_new();
	le64 caps[3] = { le64_of(CAPS_LINUX), le64_of(0),
			 le64_of(TEST_GUEST_GROW_GPA / PAGE + 32767) };

	(void)state;
	assert_true(offer_version(b, DYNMEM_PROTOCOL_VERSION_3));
	say(b, DM_CAPABILITIES_REPORT, caps, sizeof(caps));
	assert_int_equal(take(b), DM_CAPABILITIES_RESPONSE);
	assert_int_equal(take(b), DM_INFO_MESSAGE);
	target(b, 400);
	assert_int_equal(take(b), DM_MEM_HOT_ADD_REQUEST);
	memcpy(b->in + 16, b->in + 8, 8);
	assert_int_equal(DM_RANGE_COUNT(range_at(b, 0)), 32768);
	answer_add(b, 32768, 1);
	assert_int_equal(take(b), 0);
	bed_free(b);
}

/* --- ends --- */

static void test_a_guest_that_dies_in_the_middle(void **state)
{
	struct bed *b = bed_ready(CAPS_LINUX);

	(void)state;
	target(b, 26);
	assert_request(b, 6);
	give_one(b, true, MY_PAGES, 1024);
	assert_int_equal(dynmem_status(b->d).ballooned, 4 * MIB);
	test_channel_close(&b->ch);
	assert_int_equal(b->events[DYNMEM_GONE], 1);
	assert_string_equal(dynmem_status(b->d).state, "absent");
	assert_int_equal(dynmem_status(b->d).assigned, 32 * MIB);
	/* the next driver is asked for the whole */
	assert_true(test_channel_open(b->g, &b->g->offers[0], RING_PAGES, &b->ch));
	assert_true(offer_version(b, DYNMEM_PROTOCOL_VERSION_2));
	report_capabilities(b, CAPS_LINUX);
	assert_int_equal(take(b), DM_INFO_MESSAGE);
	assert_request(b, 6);
	give_one(b, false, MY_PAGES, 1536);
	assert_int_equal(dynmem_status(b->d).assigned, 26 * MIB);
	bed_free(b);
}

static void on_reset(void *context)
{
	*(bool *)context = true;
}

static void test_a_reset_takes_back_what_was_added(void **state)
{
	struct bed *b = bed_ready(CAPS_LINUX);
	bool done = false;

	(void)state;
	target(b, 160);
	assert_int_equal(take(b), DM_MEM_HOT_ADD_REQUEST);
	answer_add(b, 32768, 1);
	vmbus_reset(b->g->bus, on_reset, &done);
	test_guest_pump(b->g);
	assert_true(done);
	assert_int_equal(dynmem_status(b->d).assigned, 32 * MIB);
	assert_int_equal(dynmem_status(b->d).hot_added, 0);
	assert_int_equal(dynmem_status(b->d).target, 160 * MIB);
	bed_free(b);
}

/* The guest reads nothing: the host waits, and goes on when there is room. */
static void test_a_full_ring(void **state)
{
	struct bed *b = bed_ready(CAPS_LINUX);
	uint64_t ranges[2000];
	unsigned n = 0;

	(void)state;
	target(b, 20);
	assert_request(b, 12);
	for (unsigned i = 0; i < 1900; i++)
		ranges[i] = DM_RANGE(MY_PAGES + 2 * i, 1);
	give(b, true, ranges, 1900);
	give_one(b, false, 8 * MIB / PAGE, 3072 - 1900);
	assert_int_equal(dynmem_status(b->d).assigned, 20 * MIB);
	target(b, 32); /* 8 messages of 2 KiB each, and a ring of 16 KiB */
	for (;;) {
		assert_int_equal(take(b), DM_UNBALLOON_REQUEST);
		n += word_at(b, 12);
		if (!word_at(b, 8))
			break;
	}
	assert_int_equal(n, 1901);
	bed_free(b);
}

/* --- saved state --- */

static struct bed *bed_apart(void)
{
	struct bed *b = calloc(1, sizeof(*b));
	struct vmbus_offer_options offer = { .instance = dynmem_instance };
	struct dynmem_options o = { .base = TEST_GUEST_RAM,
				    .grow_gpa = TEST_GUEST_GROW_GPA,
				    .grow_most = TEST_GUEST_GROW_MOST,
				    .grow = on_grow,
				    .guest_os = on_guest_os,
				    .event = on_event,
				    .context = b };

	assert_non_null(b);
	b->os = LINUX;
	b->g = test_guest_new(1, 0, 0);
	o.gm = b->g->gm;
	assert_int_equal(dynmem_new(b->g->loop, &o, &b->d, NULL), 0);
	assert_int_equal(
		vmbus_device_offer(b->g->bus, &dynmem_type, b->d, &offer, &b->primary, NULL), 0);
	return b;
}

/* The guest of `from` goes on in a new machine, whose memory has grown as far. */
static struct bed *move(struct bed *from, uint64_t grown, int expected)
{
	struct bed *to = bed_apart();
	struct save_writer *w;
	struct save_reader *r;
	struct error err = { 0 };
	const void *data;
	size_t size;

	assert_true(test_guest_pause(from->g));
	w = test_guest_save(from->g);
	data = save_writer_bytes(w, &size);
	assert_int_equal(save_reader_of(data, size, &r, NULL), 0);
	to->grown = grown;
	assert_int_equal(gmem_grow(to->g->gm, grown), 0);
	assert_int_equal(test_guest_restore(to->g, from->g, r, &err), expected);
	if (expected < 0)
		assert_true(strstr(err.message, "dynmem") || strstr(err.message, "driver"));
	save_reader_free(r);
	save_writer_free(w);
	to->ch = from->ch;
	test_channel_move(&to->ch, to->g);
	vmbus_resume(from->g->bus);
	test_guest_stop(from->g);
	dynmem_free(from->d);
	test_guest_free(from->g);
	free(from);
	return to;
}

static void test_it_goes_on_where_it_was_saved(void **state)
{
	struct bed *b = bed_ready(CAPS_LINUX);

	(void)state;
	target(b, 160);
	assert_int_equal(take(b), DM_MEM_HOT_ADD_REQUEST);
	answer_add(b, 32768, 1);
	target(b, 150);
	assert_request(b, 10);
	give_one(b, true, MY_PAGES, 512);
	give_one(b, true, TEST_GUEST_GROW_GPA / PAGE + 7, 1024);
	b = move(b, 128 * MIB, 0);
	assert_string_equal(dynmem_status(b->d).state, "ballooning");
	assert_int_equal(dynmem_status(b->d).assigned, 154 * MIB);
	assert_int_equal(dynmem_status(b->d).hot_added, 128 * MIB);
	vmbus_resume(b->g->bus);
	test_guest_pump(b->g);
	/* not twice, and the rest of the answer */
	give_one(b, true, MY_PAGES + 511, 1);
	assert_int_equal(dynmem_status(b->d).bad_messages, 1);
	give_one(b, false, MY_PAGES + 512, 1024);
	assert_int_equal(dynmem_status(b->d).assigned, 150 * MIB);
	target(b, 160);
	assert_int_equal(take(b), DM_UNBALLOON_REQUEST);
	assert_int_equal(word_at(b, 12), 2);
	assert_int_equal(range_at(b, 0), DM_RANGE(MY_PAGES, 1536));
	bed_free(b);
}

static void test_what_does_not_fit_is_not_restored(void **state)
{
	struct bed *b = bed_ready(CAPS_LINUX);

	(void)state;
	target(b, 160);
	assert_int_equal(take(b), DM_MEM_HOT_ADD_REQUEST);
	answer_add(b, 32768, 1);
	/* the new machine lacks what was added */
	b = move(b, 64 * MIB, -EBADMSG);
	vmbus_resume(b->g->bus);
	bed_free(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_versions),
		cmocka_unit_test(test_nothing_is_asked_before_the_guest_has_settled),
		cmocka_unit_test(test_disorder_is_counted_and_forgotten),
		cmocka_unit_test(test_report),
		cmocka_unit_test(test_ballooned_pages_go_to_the_host_and_come_back),
		cmocka_unit_test(test_single_pages_come_back_in_many_messages),
		cmocka_unit_test(test_lies_about_pages_give_nothing),
		cmocka_unit_test(test_a_count_that_the_message_does_not_hold),
		cmocka_unit_test(test_a_refusal_is_not_asked_again_at_once),
		cmocka_unit_test(test_a_guest_without_balloon_or_hot_add),
		cmocka_unit_test(test_target_out_of_bounds),
		cmocka_unit_test(test_memory_is_added_in_whole_blocks_and_parts),
		cmocka_unit_test(test_version_03_gets_no_region),
		cmocka_unit_test(test_large_blocks_do_not_pass_the_maximum),
		cmocka_unit_test(test_refused_additions),
		cmocka_unit_test(test_a_host_without_memory_to_add),
		cmocka_unit_test(test_the_guest_s_last_page_is_respected),
		cmocka_unit_test(test_a_guest_that_dies_in_the_middle),
		cmocka_unit_test(test_a_reset_takes_back_what_was_added),
		cmocka_unit_test(test_a_full_ring),
		cmocka_unit_test(test_it_goes_on_where_it_was_saved),
		cmocka_unit_test(test_what_does_not_fit_is_not_restored),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
