// SPDX-License-Identifier: MIT
/*
 * Traffic that no driver sends: messages of every type and length with random content, GPADLs that
 * lie, openings that do not fit, rings that are broken while the host reads them. After each kind,
 * a connection from the beginning must work. The random numbers are the same in each run.
 */
#include "groups.h"
#include "storage.h"

#include "lib/print.h"

#define RANDOM_PACKETS 200u

static uint8_t page[PAGE_SIZE] PAGE_ALIGNED;
static uint64_t seed = 0x5eed;

/* xorshift64* (Marsaglia; Vigna) */
static uint64_t random(void)
{
	seed ^= seed >> 12;
	seed ^= seed << 25;
	seed ^= seed >> 27;
	return seed * 0x2545f4914f6cdd1d;
}

/* Half of the words are small numbers, which get further than any others. */
static void fill_random(void *to, size_t size)
{
	uint8_t *bytes = to;

	for (size_t i = 0; i < size; i += 4) {
		uint32_t word = (uint32_t)(random() >> 32);

		if (random() >> 63)
			word = (word & 1 ? 0 : 1u << (word >> 8 & 15)) + (word >> 24 & 3);
		memcpy(bytes + i, &word, MIN(size - i, sizeof(word)));
	}
}

static void still_works(const char *after)
{
	synic_drain();
	ok(storage_works(), "after %s a connection works", after);
}

/* --- messages --- */

static void take_all(void)
{
	struct hv_message m;

	for (unsigned cpu = 0; cpu < cpu_count; cpu++)
		for (unsigned sint = 0; sint < SINT_COUNT; sint++)
			while (message_take(cpu, sint, &m))
				;
}

/* One length of one type; now and then on a connection that is in order. */
static void random_message(uint32_t type, size_t size)
{
	uint8_t m[HV_MESSAGE_PAYLOAD];
	uint16_t status;

	fill_random(m, sizeof(m));
	memcpy(m, &type, sizeof(type));
	while ((status = hv_post(size % 2 ? BUS_CONNECTION : BUS_CONNECTION_V5, 1, m, size)) ==
	       HV_INSUFFICIENT_BUFFERS)
		delay_ms(1);
	if (status)
		ok(false, "type %u, %lu bytes: status 0x%x", type, (uint64_t)size, status);
	take_all();
}

static void random_messages(void)
{
	unsigned failed = 0;

	for (uint32_t type = 0; type <= MSG_LAST; type++) {
		if (!bus_connect(BUS_VERSION(6, 0)) || !bus_request_offers())
			failed++;
		for (size_t size = 0; size <= HV_MESSAGE_PAYLOAD; size++)
			random_message(type, size);
		synic_drain();
	}
	ok_equal(failed, 0, "contact between random messages of every type and length");
	still_works("random messages");
}

/* --- GPADLs --- */

static bool gpadl_fails(uint32_t relid, uint32_t lengths, uint32_t bytes, uint32_t offset,
			uint64_t pfn)
{
	struct bus_message m = { .words = { MSG_GPADL_HEADER, 0, relid, ++bus.next_gpadl, lengths,
					    bytes, offset } };

	memcpy(m.bytes + 28, &pfn, sizeof(pfn));
	bus_post(m.bytes, 36);
	return bus_expect(MSG_GPADL_CREATED, &m, BUS_TIMEOUT_MS) && m.words[4];
}

static void bad_gpadls(uint32_t relid)
{
	static const uint64_t outside[] = { 0xa0,       0xfee00,           0xfec00,
					    0x7fffffff, UINT64_C(1) << 40, UINT64_MAX >> 12,
					    UINT64_MAX };
	const uint32_t one = 16 | 1 << 16;
	uint64_t pfn = (uintptr_t)page / PAGE_SIZE;

	for (size_t i = 1; i < ARRAY_SIZE(outside); i++)
		ok(gpadl_fails(relid, one, PAGE_SIZE, 0, outside[i]), "a GPADL of page 0x%lx",
		   outside[i]);
	ok(gpadl_fails(relid, one, 0, 0, pfn), "a GPADL of no bytes");
	ok(gpadl_fails(relid, one, 2 * PAGE_SIZE, 0, pfn), "of more bytes than pages");
	ok(gpadl_fails(relid, one, UINT32_MAX, 0, pfn), "of 4 GiB");
	ok(gpadl_fails(relid, one, PAGE_SIZE, PAGE_SIZE, pfn), "that begins behind its page");
	ok(gpadl_fails(relid, one, PAGE_SIZE, UINT32_MAX, pfn), "that begins far behind it");
	ok(gpadl_fails(relid, 16, PAGE_SIZE, 0, pfn), "of no ranges");
	ok(gpadl_fails(relid, 16 | 0xffffu << 16, PAGE_SIZE, 0, pfn), "of 65535 ranges");
	ok(gpadl_fails(relid, 8 | 1 << 16, PAGE_SIZE, 0, pfn), "of no pages");
	ok(gpadl_fails(relid, 15 | 1 << 16, PAGE_SIZE, 0, pfn), "of an odd length");
	/* Never finished; the next contact clears it away. */
	bus_post_words(7, MSG_GPADL_HEADER, 0, relid, ++bus.next_gpadl, 0xfff8 | 1u << 16,
		       8190 * PAGE_SIZE, 0);
	ok(bus_silent(MSG_GPADL_CREATED), "one that is not finished gets no answer");
	bus_post_words(4, MSG_GPADL_TEARDOWN, 0, relid, bus.next_gpadl);
	ok(bus_silent(MSG_GPADL_TORNDOWN), "and cannot be torn down");
}

/* --- openings --- */

static bool open_fails(const struct offer *o, uint32_t gpadl, uint32_t vp, uint32_t out_page)
{
	struct bus_message m = { .words = { MSG_OPEN, 0, o->relid, 7, gpadl, vp, out_page } };

	bus_post(m.bytes, 148);
	return bus_expect(MSG_OPEN_RESULT, &m, BUS_TIMEOUT_MS) && m.words[3] == 7 && m.words[4];
}

static void bad_openings(const struct offer *o)
{
	static const uint32_t offsets[] = { 0, 1, 9, 10, 11, UINT32_MAX };
	const void *base = (const void *)0x1000000;
	uint32_t id = bus_gpadl(o->relid, base, 10), tiny = bus_gpadl(o->relid, base, 1);
	struct offer none = { .relid = 2000 };

	for (size_t i = 0; i < ARRAY_SIZE(offsets); i++)
		ok(open_fails(o, id, 0, offsets[i]), "open: second ring at page %u of 10",
		   offsets[i]);
	ok(open_fails(o, id, 1000, 5), "open: for a processor that does not exist");
	ok(open_fails(o, id + 1000, 0, 5), "open: without a GPADL");
	ok(open_fails(o, tiny, 0, 1), "open: both rings in one page");
	bus_post_words(7, MSG_OPEN, 0, none.relid, 7, id, 0, 5);
	ok(bus_silent(MSG_OPEN_RESULT), "open: no channel of that number, a message too short");
	ok(bus_gpadl_teardown(o->relid, id) && bus_gpadl_teardown(o->relid, tiny),
	   "the GPADLs are free");
}

/* --- rings --- */

static void put_descriptor(struct channel *ch, struct packet_descriptor d, uint32_t write)
{
	memcpy(ch->out + PAGE_SIZE, &d, sizeof(d));
	barrier();
	*ring_word(ch->out, RING_WRITE) = write;
}

static void index_far(struct channel *ch)
{
	*ring_word(ch->out, RING_WRITE) = RING_SIZE;
}

static void index_huge(struct channel *ch)
{
	*ring_word(ch->out, RING_WRITE) = 0xfffffff8;
}

static void index_odd(struct channel *ch)
{
	*ring_word(ch->out, RING_WRITE) = 3;
}

static void index_of_host(struct channel *ch)
{
	*ring_word(ch->out, RING_READ) = RING_SIZE - 8;
	*ring_word(ch->out, RING_WRITE) = RING_SIZE - 16;
}

static void length_zero(struct channel *ch)
{
	put_descriptor(ch, (struct packet_descriptor){ .type = PACKET_INBAND, .offset8 = 2 }, 64);
}

static void length_beyond(struct channel *ch)
{
	put_descriptor(ch,
		       (struct packet_descriptor){
			       .type = PACKET_INBAND, .offset8 = 2, .length8 = 0xffff },
		       64);
}

static void offset_beyond(struct channel *ch)
{
	put_descriptor(ch,
		       (struct packet_descriptor){
			       .type = PACKET_INBAND, .offset8 = 0xffff, .length8 = 4 },
		       40);
}

static void offset_small(struct channel *ch)
{
	put_descriptor(
		ch, (struct packet_descriptor){ .type = PACKET_INBAND, .offset8 = 0, .length8 = 4 },
		40);
}

static void ranges_missing(struct channel *ch)
{
	put_descriptor(
		ch,
		(struct packet_descriptor){ .type = PACKET_GPA_DIRECT, .offset8 = 2, .length8 = 4 },
		40);
}

static void packet_half(struct channel *ch)
{
	put_descriptor(
		ch, (struct packet_descriptor){ .type = PACKET_INBAND, .offset8 = 2, .length8 = 4 },
		16);
}

static void answer_index_far(struct channel *ch)
{
	struct storage_packet p = { .operation = STORAGE_BEGIN, .flags = 1 };

	*ring_word(ch->in, RING_READ) = RING_SIZE + 16;
	channel_send(ch,
		     (struct packet_descriptor){ .type = PACKET_INBAND, .offset8 = 2, .flags = 1 },
		     &p, sizeof(p));
}

static void both_random(struct channel *ch)
{
	fill_random(ch->out, RING_PAGES * PAGE_SIZE);
	fill_random(ch->in, RING_PAGES * PAGE_SIZE);
}

static const struct {
	const char *name;
	void (*damage)(struct channel *ch);
} broken_rings[] = {
	{ "a write index at the end", index_far },
	{ "a huge write index", index_huge },
	{ "an odd write index", index_odd },
	{ "the host's own index changed", index_of_host },
	{ "a packet of length 0", length_zero },
	{ "a packet longer than the ring", length_beyond },
	{ "a payload behind its packet", offset_beyond },
	{ "a payload within its descriptor", offset_small },
	{ "half a packet", packet_half },
	{ "a packet without the ranges it should have", ranges_missing },
	{ "a read index beyond the ring", answer_index_far },
	{ "random rings", both_random },
};

static void bad_rings(const struct offer *o)
{
	struct channel ch;

	for (size_t i = 0; i < ARRAY_SIZE(broken_rings); i++) {
		if (!ok(channel_open(o, 0, i % 2, &ch), "ring %lu opens", (uint64_t)i))
			continue;
		broken_rings[i].damage(&ch);
		channel_signal(&ch);
		delay_ms(10);
		channel_signal(&ch);
		ok(channel_close(&ch), "the host survives %s", broken_rings[i].name);
	}
}

/* --- packets --- */

/* Page numbers and counts of GPA-direct packets that cannot be. */
static void bad_ranges(struct channel *ch)
{
	struct {
		uint32_t reserved, ranges, bytes, offset;
		uint64_t page;
		struct storage_packet packet;
	} in = { 0 };
	struct packet_descriptor d = { .type = PACKET_GPA_DIRECT, .flags = 1, .transaction = 1 };
	uint8_t answer[256];
	unsigned answers = 0;

	for (unsigned i = 0; i < RANDOM_PACKETS; i++) {
		fill_random(&in, 24);
		if (i % 2)
			in.ranges = 1;
		in.packet.operation = STORAGE_EXECUTE_SRB;
		in.packet.flags = 1;
		fill_random(&in.packet.srb, sizeof(in.packet.srb));
		in.packet.srb.length = 52;
		if (i % 3)
			in.packet.srb.path = in.packet.srb.target = in.packet.srb.lun = 0;
		/* READ CAPACITY: nothing that would change the disk. */
		in.packet.srb.cdb[0] = 0x25;
		in.packet.srb.cdb_length = 10;
		d.offset8 = (uint16_t)(i % 4 ? 5 : 3 + i % 11);
		if (!channel_send(ch, d, &in, sizeof(in)))
			break;
		while (WAIT_FOR(channel_receive(ch, answer, sizeof(answer)), 2))
			answers++;
	}
	say("# %u answers", answers);
}

static void random_packets(struct channel *ch)
{
	static const uint16_t types[] = { 0, 6, 7, 8, 9, 11, 0xffff };
	uint8_t bytes[256], answer[256];

	for (unsigned i = 0; i < RANDOM_PACKETS; i++) {
		struct packet_descriptor d = { .type = types[i % ARRAY_SIZE(types)],
					       .offset8 = 2,
					       .flags = (uint16_t)(i % 3) };
		size_t size = random() % sizeof(bytes) & ~7u;

		fill_random(bytes, sizeof(bytes));
		if (i % 5 == 0) /* an operation that may be known */
			bytes[0] = (uint8_t)(random() % 16), memset(bytes + 1, 0, 3);
		if (bytes[0] == STORAGE_EXECUTE_SRB)
			bytes[0] = STORAGE_COMPLETE; /* no random commands to the disk */
		if (!channel_send(ch, d, bytes, size))
			break;
		while (channel_receive(ch, answer, sizeof(answer)))
			;
	}
}

static void bad_packets(const struct offer *o)
{
	struct channel ch;

	ok(channel_open(o, 0, 0, &ch) && storage_handshake(&ch, 0x0602, NULL),
	   "a channel for bad buffers");
	bad_ranges(&ch);
	ok(channel_close(&ch), "the host survives bad buffers");
	ok(channel_open(o, 0, 1, &ch), "a channel for random packets");
	random_packets(&ch);
	ok(channel_close(&ch), "the host survives random packets");
}

/* --- SynIC pages where there is no memory --- */

static void bad_pages(void)
{
	static const uint64_t places[] = { UINT64_C(0xfee00000), UINT64_C(0xa0000),
					   UINT64_C(0x7fffff000), UINT64_C(0xfffffff000) };
	uint64_t simp = rdmsr(HV_X64_MSR_SIMP), siefp = rdmsr(HV_X64_MSR_SIEFP);
	struct contact c = { .version = BUS_VERSION(4, 0), .connection = BUS_CONNECTION };

	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		(void)wrmsr_safe(HV_X64_MSR_SIMP, places[i] | HV_MSR_ENABLE);
		(void)wrmsr_safe(HV_X64_MSR_SIEFP, places[i] | HV_MSR_ENABLE);
		bus_post_contact(&c);
		delay_ms(20);
	}
	wrmsr(HV_X64_MSR_SIMP, simp);
	wrmsr(HV_X64_MSR_SIEFP, siefp);
	ok(true, "the host survives SynIC pages outside of memory");
}

void group_hostile(void)
{
	const struct offer *o;

	group_begin("hostile");
	bus_prepare();
	random_messages();
	bad_pages();
	still_works("bad SynIC pages");
	ok(bus_connect(BUS_VERSION(5, 3)) && bus_request_offers(), "connected");
	o = storage_offer();
	if (!o) {
		skip("GPADLs, openings, rings and packets", "there is no SCSI controller");
		return;
	}
	bad_gpadls(o->relid);
	still_works("bad GPADLs");
	bad_openings(storage_offer());
	still_works("bad openings");
	bad_rings(storage_offer());
	still_works("broken rings");
	bad_packets(storage_offer());
	still_works("bad packets");
	bus_unload();
}
