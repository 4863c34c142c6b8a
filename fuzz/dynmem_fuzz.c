// SPDX-License-Identifier: MIT
/*
 * Messages of a hostile guest to the dynamic memory device, over the real bus. The first byte of an
 * input chooses what was agreed on before (bit 0: a version and capabilities, bit 1: as Windows);
 * records follow, each an action byte and its arguments. Checked after each: what the guest has,
 * has given and was given adds up; pages that it never gave keep what is in them; the host sends
 * only what the protocol knows, of the size that it says.
 */
#include "devices/dynmem/dynmem.h"
#include "devices/dynmem/dynmem_proto.h"
#include "vmbus/testing.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define RING_PAGES 5
#define PAGE       ((uint64_t)GMEM_PAGE_SIZE)
#define FIRST      (24 * MIB / PAGE) /* what can be given without harm to the guest itself */
#define KEPT       (20 * MIB)        /* a page with a mark, which no input may give */

static struct test_guest *guest;
static struct dynmem *device;
static uint64_t first_page, grown;

static void insist(bool holds)
{
	if (!holds)
		abort();
}

static int on_grow(void *context, uint64_t size)
{
	(void)context;
	insist(size > 0 && size <= TEST_GUEST_GROW_MOST && size % (2 * MIB) == 0);
	if (size <= grown)
		return 0;
	grown = size;
	return gmem_grow(guest->gm, size);
}

static uint64_t on_guest_os(void *context)
{
	(void)context;
	return BIT64(63) | BIT64(56);
}

static void make_device(void)
{
	struct vmbus_offer_options offer = { .instance = dynmem_instance };
	struct dynmem_options o = { .base = TEST_GUEST_RAM,
				    .grow_gpa = TEST_GUEST_GROW_GPA,
				    .grow_most = TEST_GUEST_GROW_MOST,
				    .grow = on_grow,
				    .guest_os = on_guest_os };
	struct vmbus_channel *primary;

	guest = test_guest_new(1, 0, 0);
	o.gm = guest->gm;
	insist(!dynmem_new(guest->loop, &o, &device, NULL));
	insist(!vmbus_device_offer(guest->bus, &dynmem_type, device, &offer, &primary, NULL));
	first_page = guest->next_page;
}

/* --- the guest's side --- */

struct session {
	struct test_channel ch;
	bool reads; /* what the host sends */
};

static void say(struct session *s, unsigned type, size_t claimed, const void *body, size_t size)
{
	uint8_t m[8192] = { 0 };
	struct dm_header h = { .type = le16_of((uint16_t)type),
			       .size = le16_of((uint16_t)claimed) };

	memcpy(m, &h, sizeof(h));
	if (size)
		memcpy(m + sizeof(h), body, size);
	(void)test_channel_send(&s->ch, VMBUS_PACKET_INBAND, 0, m, round_up64(size + sizeof(h), 8),
				0);
}

static void say_words(struct session *s, unsigned type, const le64 *words, unsigned count)
{
	say(s, type, sizeof(struct dm_header) + count * sizeof(le64), words, count * sizeof(le64));
}

static void drain(struct session *s)
{
	uint8_t buffer[8192];
	struct dm_header h;
	int n;

	while (s->reads && (n = test_channel_receive(&s->ch, buffer, sizeof(buffer))) > 0) {
		insist(n >= 16 + (int)sizeof(h));
		memcpy(&h, buffer + 16, sizeof(h));
		insist(le16_get(h.size) >= 16 - 8 && le16_get(h.size) <= n - 16);
		switch (le16_get(h.type)) {
		case DM_VERSION_RESPONSE:
		case DM_CAPABILITIES_RESPONSE:
		case DM_BALLOON_REQUEST:
		case DM_UNBALLOON_REQUEST:
		case DM_MEM_HOT_ADD_REQUEST:
		case DM_INFO_MESSAGE:
			break;
		default:
			abort();
		}
	}
}

static void agree(struct session *s, bool windows)
{
	le64 version = le64_of(DYNMEM_PROTOCOL_VERSION_3);
	le64 caps[3] = { le64_of(DM_CAPS_BALLOON | DM_CAPS_HOT_ADD | (windows ? 0 : 7 << 2)),
			 le64_of(0), le64_of(UINT64_MAX) };

	say_words(s, DM_VERSION_REQUEST, &version, 1);
	test_guest_pump(guest);
	say_words(s, DM_CAPABILITIES_REPORT, caps, 3);
	test_guest_pump(guest);
}

static void give(struct session *s, struct reader *r)
{
	le64 words[65];
	uint8_t how = reader_u8(r);
	unsigned count = how >> 2;

	for (unsigned i = 0; i < count; i++) {
		uint16_t page = reader_le16(r), pages = reader_le16(r);
		uint64_t start = FIRST + page % 2100; /* RAM, and a little beyond */

		if (page >> 15)
			start = TEST_GUEST_GROW_GPA / PAGE + page % 0x7fff;
		words[1 + i] = le64_of(DM_RANGE(start, pages % 1100));
	}
	/* bit 1: a count that is not true */
	words[0] = le64_of((uint64_t)((how & 1) | (uint32_t)(how & 2 ? 0x7fffffff : count) << 1)
			   << 32);
	say_words(s, DM_BALLOON_RESPONSE, words, 1 + count);
}

static void say_bytes(struct session *s, struct reader *r)
{
	uint8_t body[256];
	unsigned type = reader_u8(r) % 16;
	size_t claimed = reader_le16(r), size = reader_u8(r);

	/* it may not give the page with the mark */
	if (type == DM_BALLOON_RESPONSE)
		return;
	size = MIN(size, reader_left(r));
	reader_copy(r, body, size);
	say(s, type, claimed, body, size);
}

static void act(struct session *s, struct reader *r)
{
	le64 words[5];
	uint8_t action = reader_u8(r);

	switch (action % 10) {
	case 0:
		(void)!dynmem_set_target(device, reader_le16(r) * (uint64_t)MIB / 64, NULL);
		break;
	case 1:
	case 2:
		give(s, r);
		break;
	case 3:
		say_words(s, DM_UNBALLOON_RESPONSE, NULL, 0);
		break;
	case 4:
		words[0] = le64_of(reader_le16(r) * (uint64_t)(action & 16 ? 1 : 512) |
				   (uint64_t)(action >> 5 & 1) << 32);
		say_words(s, DM_MEM_HOT_ADD_RESPONSE, words, 1);
		break;
	case 5:
		for (unsigned i = 0; i < 5; i++)
			words[i] = le64_of(reader_le64(r));
		say_words(s, DM_STATUS_REPORT, words, 5);
		break;
	case 6:
		agree(s, action & 16);
		break;
	case 7:
		say_bytes(s, r);
		break;
	case 8:
		s->reads = !s->reads;
		break;
	default:
		test_channel_close(&s->ch);
		guest->next_page = first_page;
		insist(test_channel_open(guest, &guest->offers[0], RING_PAGES, &s->ch));
		break;
	}
}

static void check(void)
{
	struct dynmem_status st = dynmem_status(device);
	uint64_t mark = 0;

	insist(st.assigned == TEST_GUEST_RAM + st.hot_added - st.ballooned);
	insist(st.hot_added <= grown);
	insist(st.target <= TEST_GUEST_RAM + TEST_GUEST_GROW_MOST);
	insist(!gmem_read(guest->gm, KEPT, &mark, sizeof(mark)) && mark == 0x600d);
}

static void on_reset(void *context)
{
	*(bool *)context = true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct reader r = reader_of(data, size);
	struct session s = { .reads = true };
	uint64_t mark = 0x600d;
	uint8_t setup = reader_u8(&r);
	bool done = false;

	if (!guest)
		make_device();
	guest->next_page = first_page;
	insist(!gmem_write(guest->gm, KEPT, &mark, sizeof(mark)));
	insist(test_guest_connect(guest, VERSION_WIN10_V5_3));
	test_guest_request_offers(guest);
	insist(test_channel_open(guest, &guest->offers[0], RING_PAGES, &s.ch));
	if (setup & 1)
		agree(&s, setup & 2);
	for (int i = 0; i < 200 && reader_left(&r); i++) {
		act(&s, &r);
		test_guest_pump(guest);
		drain(&s);
		check();
	}
	ring_deinit(&s.ch.out);
	ring_deinit(&s.ch.in);
	vmbus_reset(guest->bus, on_reset, &done);
	while (!done)
		test_guest_pump(guest);
	insist(dynmem_status(device).assigned == TEST_GUEST_RAM);
	gmem_shrink(guest->gm);
	grown = 0;
	(void)!dynmem_set_target(device, TEST_GUEST_RAM, NULL);
	return 0;
}
