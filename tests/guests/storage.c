// SPDX-License-Identifier: MIT
/*
 * GPADLs and channels, with the SCSI controller as the device behind them. Needs a disk of at least
 * 64 KiB; one that begins with DISK_SIGNATURE is read and compared, too.
 */
#include "storage.h"

#include "groups.h"

#include "lib/print.h"

#define DISK_SIGNATURE "partita test disk"
#define LARGE_PAGES    600u
#define VERSION_6_2    0x0602u
#define BLOCK_SIZE     512u

static const uint8_t scsi_interface[16] = { 0xd9, 0x63, 0x61, 0xba, 0xa1, 0x04, 0x29, 0x4d,
					    0xb6, 0x05, 0x72, 0xe2, 0xff, 0xb1, 0xdc, 0x7f };
static const uint8_t inquiry[6] = { 0x12, 0, 0, 0, 96, 0 };
static const uint8_t read_capacity[10] = { 0x25 };
static const uint8_t read_first[10] = { 0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0 };
static uint8_t page[PAGE_SIZE] PAGE_ALIGNED;

/* --- the protocol --- */

const struct offer *storage_offer(void)
{
	return bus_find_offer(scsi_interface, 0);
}

static bool transact(struct channel *ch, struct packet_descriptor d, const void *bytes, size_t size,
		     struct storage_packet *ret)
{
	static uint64_t transaction = 0x1000;
	uint8_t answer[256];
	size_t n;

	d.transaction = ++transaction;
	d.flags = 1;
	if (!channel_send(ch, d, bytes, size))
		return false;
	if (!WAIT_FOR((n = channel_receive(ch, answer, sizeof(answer))), STORAGE_TIMEOUT_MS))
		return false;
	memcpy(&d, answer, sizeof(d));
	memcpy(ret, answer + sizeof(d), sizeof(*ret));
	return d.type == PACKET_COMPLETION && d.transaction == transaction &&
	       n == sizeof(d) + STORAGE_PACKET && ret->operation == STORAGE_COMPLETE;
}

bool storage_request(struct channel *ch, struct storage_packet *p)
{
	struct packet_descriptor d = { .type = PACKET_INBAND, .offset8 = sizeof(d) / 8 };

	p->flags = 1;
	return transact(ch, d, p, sizeof(*p), p);
}

static bool step(struct channel *ch, enum storage_operation operation, uint16_t value,
		 struct storage_packet *ret)
{
	*ret = (struct storage_packet){ .operation = operation, .version = value };
	return storage_request(ch, ret) && !ret->status;
}

bool storage_handshake(struct channel *ch, uint16_t version, struct storage_packet *properties)
{
	struct storage_packet p;

	if (!step(ch, STORAGE_BEGIN, 0, &p) || !step(ch, STORAGE_VERSION, version, &p) ||
	    !step(ch, STORAGE_PROPERTIES, 0, &p))
		return false;
	if (properties)
		*properties = p;
	return step(ch, STORAGE_END, 0, &p);
}

bool storage_read(struct channel *ch, const uint8_t *cdb, unsigned cdb_length, void *to,
		  unsigned bytes)
{
	struct {
		uint32_t reserved, ranges, bytes, offset;
		uint64_t page;
		struct storage_packet packet;
	} in = { .ranges = 1, .bytes = bytes, .page = (uintptr_t)to / PAGE_SIZE };
	struct packet_descriptor d = { .type = PACKET_GPA_DIRECT, .offset8 = (sizeof(d) + 24) / 8 };
	struct storage_packet p;

	in.packet.operation = STORAGE_EXECUTE_SRB;
	in.packet.flags = 1;
	in.packet.srb.length = 52;
	in.packet.srb.cdb_length = (uint8_t)cdb_length;
	in.packet.srb.sense_length = 20;
	in.packet.srb.data_in = 1;
	in.packet.srb.transfer_length = bytes;
	memcpy(in.packet.srb.cdb, cdb, cdb_length);
	return transact(ch, d, &in, sizeof(in), &p) && (p.srb.srb_status & 0x3f) == 1;
}

bool storage_works(void)
{
	const struct offer *o;
	struct channel ch;
	bool works;

	if (!bus_connect(BUS_VERSION(6, 0)) || !bus_request_offers())
		return false;
	o = storage_offer();
	if (!o)
		return true; /* there is no disk */
	if (!channel_open(o, 0, 0, &ch))
		return false;
	memset(page, 0, sizeof(page));
	works = storage_handshake(&ch, VERSION_6_2, NULL) &&
		storage_read(&ch, inquiry, sizeof(inquiry), page, 96) && page[4] >= 31;
	return channel_close(&ch) && works;
}

/* --- GPADLs --- */

static void gpadls(uint32_t relid)
{
	uint32_t id = bus_gpadl(relid, page, 1), large;
	struct bus_message m = { .words = { MSG_GPADL_HEADER, 0, relid, id, 16 | 1 << 16, PAGE_SIZE,
					    0, (uint32_t)(uintptr_t)page / PAGE_SIZE, 0 } };

	ok(id, "a GPADL of one page");
	bus_post(m.bytes, 36);
	ok(bus_silent(MSG_GPADL_CREATED), "its id cannot be used twice");
	large = bus_gpadl(relid, (const void *)0x1000000, LARGE_PAGES);
	ok(large, "a GPADL of %u pages in many messages", LARGE_PAGES);
	ok(bus_gpadl_teardown(relid, id), "the first is torn down");
	bus_post_words(4, MSG_GPADL_TEARDOWN, 0, relid, id);
	ok(bus_silent(MSG_GPADL_TORNDOWN), "which cannot be done twice");
	ok(bus_gpadl_teardown(relid, large), "the second is torn down");
}

/* UEFI's body messages have always the maximum length. */
static void padded_gpadl(uint32_t relid)
{
	struct bus_message m = { .words = { MSG_GPADL_HEADER, 0, relid, ++bus.next_gpadl,
					    (8 + 8 * 27) | 1u << 16, 27 * PAGE_SIZE } };
	uint64_t pfn = 0x1000;

	for (unsigned i = 0; i < 26; i++, pfn++)
		memcpy(m.bytes + 28 + 8 * i, &pfn, 8);
	bus_post(m.bytes, 28 + 26 * 8);
	memset(m.bytes, 0xff, sizeof(m.bytes));
	m.words[0] = MSG_GPADL_BODY;
	m.words[2] = 0;
	m.words[3] = bus.next_gpadl;
	memcpy(m.bytes + 16, &pfn, 8);
	bus_post(m.bytes, sizeof(m.bytes));
	ok(bus_expect(MSG_GPADL_CREATED, &m, BUS_TIMEOUT_MS) && !m.words[4],
	   "the last message of a GPADL may be longer than it need be");
	bus_gpadl_teardown(relid, bus.next_gpadl);
}

/* --- the controller --- */

static void handshake(struct channel *ch)
{
	struct storage_packet p;

	ok(!step(ch, STORAGE_VERSION, VERSION_6_2, &p) && p.status, "nothing before the beginning");
	ok(step(ch, STORAGE_BEGIN, 0, &p), "initialisation begins");
	ok(!step(ch, STORAGE_VERSION, 0x0702, &p) && p.status, "version 7.2 is refused");
	ok(step(ch, STORAGE_VERSION, VERSION_6_2, &p), "then version 6.2 is accepted");
	ok(!step(ch, STORAGE_END, 0, &p) && p.status, "nothing may be left out");
	ok(step(ch, STORAGE_PROPERTIES, 0, &p) && p.properties.max_transfer >= PAGE_SIZE,
	   "the properties come");
	say("# transfers up to %u bytes, %u sub-channels", p.properties.max_transfer,
	    p.properties.max_sub_channels);
	ok(step(ch, STORAGE_END, 0, &p), "initialisation ends");
}

static void older_versions(void)
{
	static const uint16_t versions[] = { 0x0600, 0x0501 };
	struct channel ch;

	for (size_t i = 0; i < ARRAY_SIZE(versions); i++) {
		bool works = channel_open(storage_offer(), 0, 0, &ch);

		works = works && storage_handshake(&ch, versions[i], NULL) &&
			storage_read(&ch, inquiry, sizeof(inquiry), page, 96);
		ok(channel_close(&ch) && works, "protocol version %u.%u", versions[i] >> 8,
		   versions[i] & 0xff);
	}
}

static void commands(struct channel *ch)
{
	uint64_t blocks;

	memset(page, 0, sizeof(page));
	ok(storage_read(ch, inquiry, sizeof(inquiry), page, 96), "INQUIRY");
	ok(page[0] == 0 && page[4] >= 31, "a disk answers (type %u)", page[0]);
	memset(page, 0, sizeof(page));
	/* A unit may have something to say before its first other command. */
	if (!storage_read(ch, read_capacity, sizeof(read_capacity), page, 8))
		storage_read(ch, read_capacity, sizeof(read_capacity), page, 8);
	blocks = ((uint64_t)page[0] << 24 | page[1] << 16 | page[2] << 8 | page[3]) + 1;
	ok(blocks >= 128 && page[6] == BLOCK_SIZE >> 8, "READ CAPACITY: %lu blocks", blocks);
	ok(storage_read(ch, read_first, sizeof(read_first), page, BLOCK_SIZE), "READ of a block");
	if (memcmp(page, DISK_SIGNATURE, sizeof(DISK_SIGNATURE) - 1))
		skip("the block's content", "not the test's disk");
	else
		ok(page[BLOCK_SIZE - 1] == '.', "the block's content");
}

/* Completions come with an interrupt: the event flag of the channel, on its processor. */
static void interrupts(struct channel *ch, unsigned cpu)
{
	uint32_t before = cpu_of(cpu)->count[VECTOR_SINT + BUS_SINT];

	for (unsigned i = 0; i < cpu_count; i++)
		(void)event_take(i, BUS_SINT, ch->relid);
	ok(storage_read(ch, inquiry, sizeof(inquiry), page, 96), "VP %u: a command", cpu);
	ok(WAIT_FOR(event_take(cpu, BUS_SINT, ch->relid), BUS_TIMEOUT_MS),
	   "VP %u: sets the event flag", cpu);
	ok(WAIT_FOR(cpu_of(cpu)->count[VECTOR_SINT + BUS_SINT] > before, BUS_TIMEOUT_MS),
	   "VP %u: and interrupts", cpu);
}

static void many_commands(struct channel *ch)
{
	unsigned good = 0;

	/* 200 requests and answers go round both rings more than once. */
	for (unsigned i = 0; i < 200; i++)
		good += storage_read(ch, read_first, sizeof(read_first), page, BLOCK_SIZE);
	ok_equal(good, 200, "200 READs one after the other");
}

static void retarget(struct channel *ch)
{
	struct bus_message m;

	bus_post_words(4, MSG_MODIFY, 0, ch->relid, cpu_count - 1);
	ok(bus_expect(MSG_MODIFY_RESPONSE, &m, BUS_TIMEOUT_MS) && !m.words[3],
	   "the channel moves to VP %u", cpu_count - 1);
	interrupts(ch, cpu_count - 1);
	bus_post_words(4, MSG_MODIFY, 0, ch->relid, BUS_TIMEOUT_MS);
	ok(bus_expect(MSG_MODIFY_RESPONSE, &m, BUS_TIMEOUT_MS) && m.words[3],
	   "not to one that does not exist");
}

static void sub_channels(struct channel *ch)
{
	struct storage_packet p = { .operation = STORAGE_SUB_CHANNELS, .count = 1 };
	const struct offer *o = NULL;
	struct bus_message m;
	struct channel sub;

	bus.offer_count = 0;
	ok(storage_request(ch, &p) && !p.status, "one sub-channel is created");
	(void)(bus_find_offer(scsi_interface, 1) || bus_expect(MSG_OFFER, &m, BUS_TIMEOUT_MS));
	o = bus_find_offer(scsi_interface, 1);
	if (!ok(o, "and offered") || !ok(channel_open(o, cpu_count - 1, 1, &sub), "it opens"))
		return;
	ok(storage_read(&sub, inquiry, sizeof(inquiry), page, 96), "it takes a command");
	bus_post_words(3, MSG_CLOSE, 0, ch->relid);
	ok(bus_expect(MSG_RESCIND, &m, BUS_TIMEOUT_MS) && m.words[2] == sub.relid,
	   "it is rescinded when the primary closes");
	ok(bus_gpadl_teardown(sub.relid, sub.gpadl), "its GPADL ends");
	bus_post_words(3, MSG_RELID_RELEASED, 0, sub.relid);
	ok(bus_gpadl_teardown(ch->relid, ch->gpadl), "the primary's GPADL ends");
}

static void reopen(struct channel *ch)
{
	const struct offer *o;

	ok(channel_close(ch), "the channel closes and lets go of its rings");
	o = storage_offer();
	ok(channel_open(o, 0, 0, ch), "it opens again");
	ok(storage_handshake(ch, VERSION_6_2, NULL), "another handshake");
	ok(storage_read(ch, inquiry, sizeof(inquiry), page, 96), "another INQUIRY");
	/* As a kernel that was kexec'd would. */
	ok(bus_connect(BUS_VERSION(5, 3)) && bus_request_offers(), "contact while it is open");
	o = storage_offer();
	ok(o && channel_open(o, 0, 1, ch), "it opens in the new connection");
	ok(storage_handshake(ch, VERSION_6_2, NULL), "the handshake is from the beginning");
}

void group_storage(void)
{
	struct channel ch;

	group_begin("storage");
	bus_prepare();
	ok(bus_connect(BUS_VERSION(5, 3)) && bus_request_offers(), "connected");
	if (!storage_offer()) {
		skip("all of it", "there is no SCSI controller");
		return;
	}
	gpadls(storage_offer()->relid);
	padded_gpadl(storage_offer()->relid);
	older_versions();
	if (!ok(channel_open(storage_offer(), 0, 0, &ch), "the controller's channel opens"))
		return;
	handshake(&ch);
	commands(&ch);
	interrupts(&ch, 0);
	many_commands(&ch);
	reopen(&ch);
	if (cpu_count > 1) {
		retarget(&ch);
		sub_channels(&ch);
	} else {
		ok(channel_close(&ch), "it closes");
	}
	ok(bus_unload(), "unload");
}

/* What a guest that crashes leaves behind: an open channel, running timers, messages that wait. */
static void leave_here(void *unused)
{
	(void)unused;
	wrmsr(HV_X64_MSR_STIMER0_CONFIG, STIMER_SINT(BUS_SINT) | STIMER_PERIODIC | STIMER_ENABLE);
	wrmsr(HV_X64_MSR_STIMER0_COUNT, 10000);
}

void group_leave(void)
{
	struct channel ch;

	group_begin("leave");
	bus_prepare();
	ok(bus_connect(BUS_VERSION(5, 3)) && bus_request_offers(), "connected");
	if (storage_offer())
		ok(channel_open(storage_offer(), 0, 0, &ch) &&
			   storage_handshake(&ch, VERSION_6_2, NULL),
		   "a channel is open");
	for (unsigned i = 0; i < cpu_count; i++)
		cpu_run(i, leave_here, NULL);
	for (unsigned i = 0; i < 20; i++)
		bus_post_words(4, MSG_MODIFY, 0, i, 0);
}
