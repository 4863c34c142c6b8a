// SPDX-License-Identifier: MIT
/*
 * The controller over the real bus with a scripted guest: initialisation and its disorder, I/O into
 * guest memory, lies in packets, sub-channels, full rings, closing and resetting while disks work.
 */
#include "devices/storvsp/fake_disk.h"
#include "devices/storvsp/storvsp.h"
#include "devices/storvsp/storvsp_proto.h"
#include "vmbus/testing.h"

#include <errno.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define RING_PAGES 9
#define DISK_SIZE  (4 * MIB)
#define ANSWER     (16 + sizeof(struct vstor_packet))

struct bed {
	struct test_guest *g;
	struct storvsp *s;
	struct vmbus_channel *primary;
	struct fake_disk *disk;
	struct test_channel ch;
	uint64_t data; /* GPA of some pages */
	/* The last answer. */
	uint64_t transaction;
	uint16_t type;
	struct vstor_packet in;
};

static struct bed *bed_new(unsigned vps, const struct storvsp_options *options)
{
	struct vmbus_offer_options offer = { .instance.b[0] = 9 };
	struct bed *b = calloc(1, sizeof(*b));
	struct error err = { 0 };

	assert_non_null(b);
	b->g = test_guest_new(vps, 0, 0);
	if (storvsp_new(b->g->loop, options, &b->s, &err) < 0)
		fail_msg("%s", err.message);
	b->disk = fake_disk_new(b->g->loop, DISK_SIZE, 512);
	assert_int_equal(storvsp_attach_disk(b->s, 0, &b->disk->disk, SCSI_DISK, &err), 0);
	assert_int_equal(
		vmbus_device_offer(b->g->bus, &storvsp_type, b->s, &offer, &b->primary, &err), 0);
	assert_true(test_guest_connect(b->g, VERSION_WIN10_V5_3));
	test_guest_request_offers(b->g);
	assert_int_equal(b->g->offer_count, 1);
	assert_true(test_channel_open(b->g, &b->g->offers[0], RING_PAGES, &b->ch));
	b->data = test_guest_pages(b->g, 300);
	return b;
}

/* The guest's own view of a channel that is open, or was until a reset. */
static void forget(struct test_channel *c)
{
	ring_deinit(&c->out);
	ring_deinit(&c->in);
}

static void bed_free(struct bed *b)
{
	forget(&b->ch);
	if (b->disk->hold)
		fake_disk_release(b->disk);
	test_guest_stop(b->g);
	storvsp_free(b->s);
	fake_disk_free(b->disk);
	test_guest_free(b->g);
	free(b);
}

/* The next packet from the host, which must have the exact size; false when there is none. */
static bool take(struct bed *b, struct test_channel *c)
{
	struct vmbus_packet_descriptor d;
	uint8_t buffer[256];
	int n = test_channel_receive(c, buffer, sizeof(buffer));

	if (!n)
		return false;
	assert_int_equal(n, ANSWER);
	memcpy(&d, buffer, sizeof(d));
	memcpy(&b->in, buffer + sizeof(d), sizeof(b->in));
	b->type = le16_get(d.type);
	b->transaction = le64_get(d.transaction_id);
	return true;
}

static uint32_t ask(struct bed *b, const struct vstor_packet *p, size_t size)
{
	assert_int_equal(test_channel_request(&b->ch, 77, p, size), 0);
	assert_true(take(b, &b->ch));
	assert_int_equal(b->type, VMBUS_PACKET_COMPLETION);
	assert_int_equal(b->transaction, 77);
	assert_int_equal(le32_get(b->in.header.operation), VSTOR_COMPLETE_IO);
	return le32_get(b->in.header.status);
}

static uint32_t ask_operation(struct bed *b, enum vstor_operation operation, uint16_t argument)
{
	struct vstor_packet p = { .header.operation = le32_of(operation) };

	p.version.major_minor = le16_of(argument); /* where a sub-channel count is as well */
	return ask(b, &p, sizeof(p));
}

static void initialise(struct bed *b)
{
	assert_int_equal(ask_operation(b, VSTOR_BEGIN_INITIALIZATION, 0), 0);
	assert_int_equal(ask_operation(b, VSTOR_QUERY_PROTOCOL_VERSION, VSTOR_VERSION_6_2), 0);
	assert_int_equal(ask_operation(b, VSTOR_QUERY_PROPERTIES, 0), 0);
	assert_int_equal(ask_operation(b, VSTOR_END_INITIALIZATION, 0), 0);
}

static struct bed *ready_bed(unsigned vps)
{
	struct bed *b = bed_new(vps, &(struct storvsp_options){ 0 });

	initialise(b);
	return b;
}

static struct vstor_packet srb_of(enum vstor_data direction, uint32_t bytes, const uint8_t *cdb,
				  size_t cdb_size)
{
	struct vstor_packet p = { .header.operation = le32_of(VSTOR_EXECUTE_SRB) };

	p.srb.length = le16_of(sizeof(p.srb));
	p.srb.cdb_length = (uint8_t)cdb_size;
	p.srb.sense_length = VSTOR_SENSE_SIZE;
	p.srb.data_in = (uint8_t)direction;
	p.srb.data_transfer_length = le32_of(bytes);
	memcpy(p.srb.payload, cdb, MIN(cdb_size, sizeof(p.srb.payload)));
	return p;
}

#define CDB(...) ((const uint8_t[]){ __VA_ARGS__ }), sizeof((const uint8_t[]){ __VA_ARGS__ })

/* Sends an SRB with a buffer of `range` bytes at b->data + offset and waits for its end. */
static uint8_t run_at(struct bed *b, struct vstor_packet p, uint64_t offset, uint32_t range)
{
	if (range)
		assert_int_equal(
			test_channel_request_gpa(&b->ch, 5, &p, sizeof(p), b->data + offset, range),
			0);
	else
		assert_int_equal(test_channel_request(&b->ch, 5, &p, sizeof(p)), 0);
	assert_true(take(b, &b->ch));
	assert_int_equal(b->transaction, 5);
	assert_int_equal(le16_get(b->in.srb.length), sizeof(struct vstor_srb));
	return b->in.srb.srb_status;
}

static uint8_t run(struct bed *b, struct vstor_packet p, uint32_t range)
{
	return run_at(b, p, 0, range);
}

static struct vstor_packet read_srb(uint8_t lba, uint8_t blocks, uint32_t bytes)
{
	return srb_of(VSTOR_DATA_IN, bytes, CDB(0x28, 0, 0, 0, 0, lba, 0, 0, blocks, 0));
}

static struct vstor_packet write_srb(uint8_t lba, uint8_t blocks, uint32_t bytes)
{
	return srb_of(VSTOR_DATA_OUT, bytes, CDB(0x2A, 0, 0, 0, 0, lba, 0, 0, blocks, 0));
}

/* --- initialisation --- */

static void test_versions(void **state)
{
	static const uint16_t offered[] = { VSTOR_VERSION_6_2, VSTOR_VERSION_6_0,
					    VSTOR_VERSION_5_1 };

	(void)state;
	for (size_t cap = 0; cap < ARRAY_SIZE(offered); cap++) {
		struct bed *b =
			bed_new(1, &(struct storvsp_options){ .max_version = offered[cap] });

		assert_int_equal(ask_operation(b, VSTOR_BEGIN_INITIALIZATION, 0), 0);
		for (size_t i = 0; i < cap; i++) {
			assert_int_equal(ask_operation(b, VSTOR_QUERY_PROTOCOL_VERSION, offered[i]),
					 VSTOR_STATUS_REVISION_MISMATCH.value);
			assert_int_equal(le16_get(b->in.version.major_minor), offered[i]);
		}
		assert_int_equal(ask_operation(b, VSTOR_QUERY_PROTOCOL_VERSION, 0x0402),
				 VSTOR_STATUS_REVISION_MISMATCH.value);
		assert_int_equal(ask_operation(b, VSTOR_QUERY_PROTOCOL_VERSION, offered[cap]), 0);
		assert_int_equal(le16_get(b->in.version.major_minor), offered[cap]);
		bed_free(b);
	}
}

static void test_properties(void **state)
{
	struct bed *b = bed_new(4, &(struct storvsp_options){ .max_channels = 3 });

	(void)state;
	ask_operation(b, VSTOR_BEGIN_INITIALIZATION, 0);
	ask_operation(b, VSTOR_QUERY_PROTOCOL_VERSION, VSTOR_VERSION_6_0);
	assert_int_equal(ask_operation(b, VSTOR_QUERY_PROPERTIES, 0), 0);
	assert_int_equal(le16_get(b->in.properties.max_sub_channels), 2);
	assert_int_equal(le32_get(b->in.properties.flags), VSTOR_PROPERTY_MULTI);
	assert_int_equal(le32_get(b->in.properties.max_transfer_bytes), STORVSP_MAX_TRANSFER);
	bed_free(b);
}

static void test_disorder(void **state)
{
	/* The only operation that each state lets through; the rest must not move it. */
	static const enum vstor_operation order[] = {
		VSTOR_BEGIN_INITIALIZATION,
		VSTOR_QUERY_PROTOCOL_VERSION,
		VSTOR_QUERY_PROPERTIES,
		VSTOR_END_INITIALIZATION,
	};
	struct bed *b = bed_new(1, &(struct storvsp_options){ 0 });

	(void)state;
	for (size_t at = 0; at < ARRAY_SIZE(order); at++) {
		for (size_t i = 0; i < ARRAY_SIZE(order); i++)
			if (i != at)
				assert_int_equal(ask_operation(b, order[i], VSTOR_VERSION_6_2),
						 VSTOR_STATUS_INVALID_STATE.value);
		assert_int_equal(ask_operation(b, VSTOR_EXECUTE_SRB, 0),
				 VSTOR_STATUS_INVALID_STATE.value);
		assert_int_equal(ask_operation(b, VSTOR_RESET_BUS, 0),
				 VSTOR_STATUS_INVALID_STATE.value);
		assert_int_equal(ask_operation(b, order[at], VSTOR_VERSION_6_2), 0);
	}
	assert_int_equal(ask_operation(b, VSTOR_BEGIN_INITIALIZATION, 0),
			 VSTOR_STATUS_INVALID_STATE.value);
	assert_int_equal(ask_operation(b, VSTOR_RESET_LUN, 0), 0);
	assert_int_equal(ask_operation(b, VSTOR_RESET_ADAPTER, 0), 0);
	assert_int_equal(ask_operation(b, VSTOR_RESET_BUS, 0), 0);
	bed_free(b);
}

static void test_malformed_packets(void **state)
{
	struct bed *b = ready_bed(1);
	struct vstor_packet p = { .header.operation = le32_of(VSTOR_EXECUTE_SRB) };
	uint8_t large[512] = { VSTOR_RESET_LUN };
	struct vmbus_packet_descriptor d = { .type = le16_of(VMBUS_PACKET_INBAND),
					     .offset8 = le16_of(2) };
	bool signal;

	(void)state;
	assert_int_equal(ask(b, &p, 8), VSTOR_STATUS_INVALID_PARAMETER.value);
	assert_int_equal(ask(b, &p, 40), VSTOR_STATUS_INVALID_PARAMETER.value);
	assert_int_equal(ask_operation(b, 0, 0), VSTOR_STATUS_INVALID_REQUEST.value);
	assert_int_equal(ask_operation(b, 99, 0), VSTOR_STATUS_INVALID_REQUEST.value);
	assert_int_equal(ask(b, (void *)large, sizeof(large)), 0); /* longer is fine */
	/* What wants no answer gets none, and costs nothing. */
	for (int i = 0; i < 600; i++) {
		assert_int_equal(ring_write(&b->ch.out, d, &p, sizeof(p), &signal), 0);
		test_channel_signal(&b->ch);
		assert_false(take(b, &b->ch));
	}
	assert_int_equal(test_channel_send(&b->ch, VMBUS_PACKET_COMPLETION, 1, &p, sizeof(p), 0),
			 0);
	assert_false(take(b, &b->ch));
	assert_int_equal(storvsp_stats(b->s).packets_refused, 605);
	assert_int_equal(ask_operation(b, VSTOR_RESET_LUN, 0), 0);
	bed_free(b);
}

/* --- SCSI requests --- */

static void test_write_and_read(void **state)
{
	struct bed *b = ready_bed(1);
	uint8_t *page;

	(void)state;
	page = gmem_page(b->g->gm, b->data);
	for (int i = 0; i < 8192; i++)
		page[i] = (uint8_t)(i * 3 + 1);
	assert_int_equal(run_at(b, write_srb(8, 8, 4096), 1000, 4096), SRB_STATUS_SUCCESS);
	assert_int_equal(le32_get(b->in.header.status), 0);
	assert_int_equal(le32_get(b->in.srb.data_transfer_length), 4096);
	assert_memory_equal(b->disk->data + 4096, page + 1000, 4096);
	assert_int_equal(run_at(b, read_srb(8, 8, 4096), 20000, 4096), SRB_STATUS_SUCCESS);
	assert_memory_equal(page + 20000, page + 1000, 4096);
	assert_int_equal(b->disk->iovcnt, 1); /* adjacent pages are one element */
	assert_int_equal(storvsp_stats(b->s).scsi.reads, 1);
	assert_int_equal(storvsp_stats(b->s).scsi.bytes_written, 4096);
	bed_free(b);
}

static void test_largest_transfer(void **state)
{
	struct bed *b = ready_bed(1);
	struct vstor_packet p =
		srb_of(VSTOR_DATA_IN, STORVSP_MAX_TRANSFER, CDB(0x28, 0, 0, 0, 0, 0, 0, 8, 0, 0));

	(void)state;
	memset(b->disk->data, 0x77, DISK_SIZE);
	assert_int_equal(run_at(b, p, 512, STORVSP_MAX_TRANSFER), SRB_STATUS_SUCCESS);
	assert_int_equal(((uint8_t *)gmem_page(b->g->gm, b->data))[512 + STORVSP_MAX_TRANSFER - 1],
			 0x77);
	bed_free(b);
}

static void test_sense_and_residual(void **state)
{
	struct bed *b = ready_bed(1);

	(void)state;
	assert_int_equal(run(b, read_srb(0, 1, 4096), 4096), SRB_STATUS_SUCCESS);
	assert_int_equal(le32_get(b->in.srb.data_transfer_length), 512);
	assert_int_equal(run(b, read_srb(0, 9, 4096), 4096), SRB_STATUS_DATA_OVERRUN);
	assert_int_equal(le32_get(b->in.header.status), VSTOR_STATUS_BUFFER_OVERFLOW.value);
	assert_int_equal(
		run(b, srb_of(VSTOR_DATA_IN, 512, CDB(0x28, 0, 0xff, 0, 0, 0, 0, 0, 1, 0)), 512),
		SRB_STATUS_ERROR | SRB_STATUS_AUTOSENSE_VALID);
	assert_int_equal(b->in.srb.scsi_status, SCSI_CHECK_CONDITION);
	assert_int_equal(b->in.srb.payload[0], 0x70);
	assert_int_equal(b->in.srb.payload[2], 5);
	assert_int_equal(b->in.srb.payload[12], 0x21);
	assert_int_equal(b->in.srb.sense_length, VSTOR_SENSE_SIZE);
	assert_int_equal(le32_get(b->in.srb.data_transfer_length), 0);
	assert_int_equal(le32_get(b->in.header.status), VSTOR_STATUS_IO_DEVICE_ERROR.value);
	bed_free(b);
}

static void test_absent_units(void **state)
{
	struct bed *b = ready_bed(1);
	struct vstor_packet inquiry = srb_of(VSTOR_DATA_IN, 36, CDB(0x12, 0, 0, 0, 36, 0));
	struct vstor_packet luns =
		srb_of(VSTOR_DATA_IN, 64, CDB(0xA0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0));
	struct vstor_packet ready = srb_of(VSTOR_DATA_UNKNOWN, 0, CDB(0, 0, 0, 0, 0, 0));
	const uint8_t *page;

	(void)state;
	page = gmem_page(b->g->gm, b->data);
	ready.srb.lun = 1;
	assert_int_equal(run(b, ready, 0), SRB_STATUS_INVALID_LUN);
	assert_int_equal(le32_get(b->in.header.status), VSTOR_STATUS_NO_SUCH_DEVICE.value);
	inquiry.srb.lun = 1;
	assert_int_equal(run(b, inquiry, 36), SRB_STATUS_SUCCESS);
	assert_int_equal(page[0], 0x7f);
	assert_int_equal(run(b, luns, 64), SRB_STATUS_SUCCESS);
	assert_int_equal(le32_get(b->in.srb.data_transfer_length), 16);
	/* Other paths and targets: empty, but they answer a scan. */
	ready.srb.lun = inquiry.srb.lun = 0;
	ready.srb.path_id = inquiry.srb.path_id = luns.srb.target_id = 1;
	assert_int_equal(run(b, ready, 0), SRB_STATUS_INVALID_LUN);
	assert_int_equal(run(b, inquiry, 36), SRB_STATUS_SUCCESS);
	assert_int_equal(page[0], 0x7f);
	assert_int_equal(run(b, luns, 64), SRB_STATUS_SUCCESS);
	assert_int_equal(le32_get(b->in.srb.data_transfer_length), 8);
	bed_free(b);
}

/* A GPA-direct packet with a range list of our own. */
static uint8_t run_ranges(struct bed *b, struct vstor_packet p, const uint64_t *words, size_t count)
{
	uint8_t packet[256];
	struct writer w = writer_of(packet, sizeof(packet));

	for (size_t i = 0; i < count; i++)
		writer_le64(&w, words[i]);
	writer_put(&w, &p, sizeof(p));
	assert_int_equal(
		test_channel_send(&b->ch, VMBUS_PACKET_GPA_DIRECT, 5, packet, w.at, 8 * count), 0);
	assert_true(take(b, &b->ch));
	return b->in.srb.srb_status;
}

#define RANGES(count)       ((uint64_t)(count) << 32)
#define RANGE(bytes, start) ((uint64_t)(start) << 32 | (bytes))

static void test_lying_requests(void **state)
{
	struct bed *b = ready_bed(1);
	uint64_t pfn = b->data / GMEM_PAGE_SIZE;
	struct vstor_packet p = read_srb(0, 1, 512);
	struct vstor_packet q;

	(void)state;
	/* More data than the range has; data without a range. */
	assert_int_equal(run(b, read_srb(0, 1, 513), 512), SRB_STATUS_INVALID_REQUEST);
	assert_int_equal(run(b, read_srb(0, 1, 512), 0), SRB_STATUS_INVALID_REQUEST);
	assert_int_equal(run(b, read_srb(0, 1, UINT32_MAX), 512), SRB_STATUS_INVALID_REQUEST);
	/* No CDB, and one that is too long. */
	q = p;
	q.srb.cdb_length = 0;
	assert_int_equal(run(b, q, 512), SRB_STATUS_INVALID_REQUEST);
	q.srb.cdb_length = 17;
	assert_int_equal(run(b, q, 512), SRB_STATUS_INVALID_REQUEST);
	/* Two ranges, none, one outside RAM, one that wraps, one without its pages. */
	assert_int_equal(
		run_ranges(b, p, (uint64_t[]){ RANGES(2), RANGE(512, 0), pfn, RANGE(512, 0), pfn },
			   5),
		SRB_STATUS_INVALID_REQUEST);
	assert_int_equal(run_ranges(b, p, (uint64_t[]){ RANGES(0) }, 1),
			 SRB_STATUS_INVALID_REQUEST);
	assert_int_equal(run_ranges(b, p, (uint64_t[]){ RANGES(1), RANGE(512, 0), 1ull << 30 }, 3),
			 SRB_STATUS_INVALID_REQUEST);
	assert_int_equal(run_ranges(b, p, (uint64_t[]){ RANGES(1), RANGE(512, 0), UINT64_MAX }, 3),
			 SRB_STATUS_INVALID_REQUEST);
	assert_int_equal(run_ranges(b, p, (uint64_t[]){ RANGES(1), RANGE(8192, 0), pfn }, 3),
			 SRB_STATUS_INVALID_REQUEST);
	assert_int_equal(run_ranges(b, p, (uint64_t[]){ RANGES(1), RANGE(512, 5000), pfn }, 3),
			 SRB_STATUS_INVALID_REQUEST);
	assert_int_equal(b->disk->counts[DISK_READ], 0);
	assert_int_equal(run(b, p, 512), SRB_STATUS_SUCCESS);
	bed_free(b);
}

static void test_more_pages_than_the_limit(void **state)
{
	struct bed *b = ready_bed(1);
	uint8_t packet[4096];
	struct writer w = writer_of(packet, sizeof(packet));
	struct vstor_packet p = read_srb(0, 1, 512);
	size_t header;

	(void)state;
	/* Pages that are not adjacent, so that each takes an element: one more than there are. */
	writer_le64(&w, RANGES(1));
	writer_le64(&w, RANGE(258 * 4096, 0));
	for (unsigned i = 0; i < 258; i++)
		writer_le64(&w, b->data / GMEM_PAGE_SIZE + (i % 2) * 10);
	header = w.at;
	writer_put(&w, &p, sizeof(p));
	assert_int_equal(
		test_channel_send(&b->ch, VMBUS_PACKET_GPA_DIRECT, 5, packet, w.at, header), 0);
	assert_true(take(b, &b->ch));
	assert_int_equal(b->in.srb.srb_status, SRB_STATUS_INVALID_REQUEST);
	bed_free(b);
}

/* --- flow --- */

/* Sends until the ring is full or `max` are sent; the transactions count from 1000. */
static unsigned send_many(struct bed *b, unsigned max)
{
	struct vstor_packet p = read_srb(0, 1, 512);
	unsigned n = 0;

	while (n < max && !test_channel_request_gpa(&b->ch, 1000 + n, &p, sizeof(p),
						    b->data + 512 * (n % 64), 512))
		n++;
	return n;
}

static void test_many_at_once(void **state)
{
	struct bed *b = ready_bed(1);
	bool seen[4096] = { false };
	unsigned sent = send_many(b, 4096), taken = 0;

	(void)state;
	assert_true(sent > 256); /* more than a round takes */
	while (take(b, &b->ch)) {
		assert_int_equal(b->in.srb.srb_status, SRB_STATUS_SUCCESS);
		assert_in_range(b->transaction, 1000, 1000 + sent - 1);
		assert_false(seen[b->transaction - 1000]);
		seen[b->transaction - 1000] = true;
		taken++;
	}
	assert_int_equal(taken, sent);
	bed_free(b);
}

/* The guest sends and never reads: nothing is lost, and what is in flight stays bounded. */
static void test_full_ring(void **state)
{
	struct bed *b = bed_new(1, &(struct storvsp_options){ .queue_depth = 64 });
	unsigned sent = 0, taken = 0, n;

	(void)state;
	initialise(b);
	for (int round = 0; round < 50; round++) {
		n = send_many(b, 200);
		sent += n;
		test_guest_pump(b->g);
		assert_true(b->disk->queued <= 64);
		if (!n)
			break;
	}
	assert_true(sent > 600);
	assert_true(storvsp_stats(b->s).no_room > 0);
	while (take(b, &b->ch))
		taken++;
	assert_int_equal(taken, sent);
	assert_int_equal(b->disk->counts[DISK_READ], sent);
	bed_free(b);
}

static void test_depth_of_one(void **state)
{
	struct bed *b = bed_new(1, &(struct storvsp_options){ .queue_depth = 1 });
	struct vstor_packet p = srb_of(VSTOR_DATA_UNKNOWN, 0, CDB(0, 0, 0, 0, 0, 0));
	unsigned sent, taken = 0;

	(void)state;
	initialise(b);
	sent = send_many(b, 50);
	for (unsigned i = 0; i < 50; i++) /* commands that need no disk, in between */
		sent += !test_channel_request(&b->ch, 1, &p, sizeof(p));
	while (take(b, &b->ch))
		taken++;
	assert_int_equal(taken, sent);
	bed_free(b);
}

static void test_broken_ring(void **state)
{
	struct bed *b = ready_bed(1);

	(void)state;
	b->disk->hold = true;
	send_many(b, 3);
	test_guest_pump(b->g);
	gshared_store32(b->ch.out.control, 0, 0xfffffff1);
	gshared_store32(b->ch.in.control, 4, 0xfffffff1);
	test_channel_signal(&b->ch);
	test_guest_pump(b->g);
	fake_disk_release(b->disk);
	test_guest_pump(b->g);
	assert_int_equal(b->disk->queued, 0);
	test_channel_close(&b->ch);
	bed_free(b);
}

/* --- sub-channels --- */

static void test_sub_channels(void **state)
{
	struct bed *b = ready_bed(4);
	struct vstor_packet p = read_srb(0, 1, 512);
	struct test_channel sub;

	(void)state;
	assert_int_equal(ask_operation(b, VSTOR_CREATE_SUB_CHANNELS, 4),
			 VSTOR_STATUS_INVALID_PARAMETER.value);
	assert_int_equal(ask_operation(b, VSTOR_CREATE_SUB_CHANNELS, 3), 0);
	test_guest_take_offers(b->g);
	assert_int_equal(b->g->offer_count, 4);
	for (int i = 1; i < 4; i++) {
		assert_true(test_channel_open(b->g, &b->g->offers[i], 3, &sub));
		assert_int_equal(test_channel_request_gpa(&sub, 6, &p, sizeof(p), b->data, 512), 0);
		assert_true(take(b, &sub));
		assert_int_equal(b->transaction, 6);
		assert_int_equal(b->in.srb.srb_status, SRB_STATUS_SUCCESS);
		p.header.operation = le32_of(VSTOR_CREATE_SUB_CHANNELS);
		assert_int_equal(test_channel_request(&sub, 7, &p, sizeof(p)), 0);
		assert_true(take(b, &sub));
		assert_int_equal(le32_get(b->in.header.status), VSTOR_STATUS_INVALID_STATE.value);
		p.header.operation = le32_of(VSTOR_EXECUTE_SRB);
		if (i > 1)
			test_channel_close(&sub);
		else
			forget(&sub);
	}
	bed_free(b);
}

static void test_sub_channel_waits_for_the_end(void **state)
{
	struct bed *b = bed_new(2, &(struct storvsp_options){ 0 });
	struct vstor_packet p = read_srb(0, 1, 512);
	struct test_channel sub;

	(void)state;
	ask_operation(b, VSTOR_BEGIN_INITIALIZATION, 0);
	ask_operation(b, VSTOR_QUERY_PROTOCOL_VERSION, VSTOR_VERSION_6_0);
	ask_operation(b, VSTOR_QUERY_PROPERTIES, 0);
	assert_int_equal(ask_operation(b, VSTOR_CREATE_SUB_CHANNELS, 1), 0);
	test_guest_take_offers(b->g);
	assert_true(test_channel_open(b->g, &b->g->offers[1], 3, &sub));
	assert_int_equal(test_channel_request_gpa(&sub, 6, &p, sizeof(p), b->data, 512), 0);
	assert_false(take(b, &sub));
	ask_operation(b, VSTOR_END_INITIALIZATION, 0);
	assert_true(take(b, &sub));
	assert_int_equal(b->in.srb.srb_status, SRB_STATUS_SUCCESS);
	forget(&sub);
	bed_free(b);
}

/* --- coming and going --- */

static void test_close_waits_for_io(void **state)
{
	struct bed *b = ready_bed(1);
	struct vmbus_offer_channel offer = b->g->offers[0];

	(void)state;
	b->disk->hold = true;
	send_many(b, 10);
	test_guest_pump(b->g);
	assert_int_equal(b->disk->queued, 10);
	test_channel_close(&b->ch);
	/* Not closed yet, so it cannot be opened. */
	assert_false(test_channel_open(b->g, &offer, RING_PAGES, &b->ch));
	forget(&b->ch);
	fake_disk_release(b->disk);
	test_guest_pump(b->g);
	assert_int_equal(b->disk->queued, 0);
	assert_true(test_channel_open(b->g, &offer, RING_PAGES, &b->ch));
	assert_int_equal(ask_operation(b, VSTOR_EXECUTE_SRB, 0), VSTOR_STATUS_INVALID_STATE.value);
	initialise(b);
	assert_int_equal(run(b, read_srb(0, 1, 512), 512), SRB_STATUS_SUCCESS);
	bed_free(b);
}

static void test_reset_during_io(void **state)
{
	struct bed *b = ready_bed(1);

	(void)state;
	send_many(b, 200);
	forget(&b->ch);
	assert_true(test_guest_connect(b->g, VERSION_WIN10_V5));
	test_guest_request_offers(b->g);
	assert_true(test_channel_open(b->g, &b->g->offers[0], RING_PAGES, &b->ch));
	initialise(b);
	assert_int_equal(run(b, read_srb(0, 1, 512), 512), SRB_STATUS_SUCCESS);
	bed_free(b);
}

static void on_gone(void *arg)
{
	*(bool *)arg = true;
}

static void test_hot_plug(void **state)
{
	struct bed *b = ready_bed(1);
	struct vstor_packet ready = srb_of(VSTOR_DATA_UNKNOWN, 0, CDB(0, 0, 0, 0, 0, 0));
	struct error err = { 0 };
	bool gone = false;

	(void)state;
	ready.srb.lun = 5;
	assert_int_equal(storvsp_attach_disk(b->s, 5, NULL, SCSI_DVD, &err), 0);
	assert_true(take(b, &b->ch));
	assert_int_equal(b->type, VMBUS_PACKET_INBAND);
	assert_int_equal(b->transaction, 0);
	assert_int_equal(le32_get(b->in.header.operation), VSTOR_ENUMERATE_BUS);
	assert_int_equal(run(b, ready, 0), SRB_STATUS_ERROR | SRB_STATUS_AUTOSENSE_VALID);
	assert_int_equal(storvsp_detach(b->s, 5, on_gone, &gone), 0);
	assert_true(gone);
	assert_true(take(b, &b->ch));
	assert_int_equal(le32_get(b->in.header.operation), VSTOR_ENUMERATE_BUS);
	assert_false(take(b, &b->ch));
	assert_int_equal(run(b, ready, 0), SRB_STATUS_INVALID_LUN);
	bed_free(b);
}

/* The guest is told to look, and its next command says why: as Linux's driver expects it. */
static void test_capacity_changes(void **state)
{
	struct bed *b = ready_bed(1);
	struct vstor_packet ready = srb_of(VSTOR_DATA_UNKNOWN, 0, CDB(0, 0, 0, 0, 0, 0));

	(void)state;
	assert_int_equal(storvsp_capacity_changed(b->s, 9), -ENOENT);
	assert_int_equal(storvsp_capacity_changed(b->s, 0), 0);
	assert_true(take(b, &b->ch));
	assert_int_equal(le32_get(b->in.header.operation), VSTOR_ENUMERATE_BUS);
	assert_int_equal(run(b, ready, 0), SRB_STATUS_ABORTED | SRB_STATUS_AUTOSENSE_VALID);
	assert_int_equal(b->in.srb.scsi_status, SCSI_CHECK_CONDITION);
	assert_int_equal(b->in.srb.payload[2], SCSI_UNIT_ATTENTION);
	assert_int_equal(b->in.srb.payload[12], 0x2a);
	assert_int_equal(b->in.srb.payload[13], 0x09);
	assert_int_equal(run(b, ready, 0), SRB_STATUS_SUCCESS);
	bed_free(b);
}

static void test_options(void **state)
{
	struct storvsp *s;
	struct error err = { 0 };

	(void)state;
	assert_true(storvsp_new(NULL, &(struct storvsp_options){ .queue_depth = 5000 }, &s, &err) <
		    0);
	assert_true(storvsp_new(NULL, &(struct storvsp_options){ .max_channels = 65 }, &s, &err) <
		    0);
	assert_true(storvsp_new(NULL, &(struct storvsp_options){ .max_version = 0x0402 }, &s,
				&err) < 0);
	assert_non_null(strstr(err.message, "4.2"));
	storvsp_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_versions),
		cmocka_unit_test(test_properties),
		cmocka_unit_test(test_disorder),
		cmocka_unit_test(test_malformed_packets),
		cmocka_unit_test(test_write_and_read),
		cmocka_unit_test(test_largest_transfer),
		cmocka_unit_test(test_sense_and_residual),
		cmocka_unit_test(test_absent_units),
		cmocka_unit_test(test_lying_requests),
		cmocka_unit_test(test_more_pages_than_the_limit),
		cmocka_unit_test(test_many_at_once),
		cmocka_unit_test(test_full_ring),
		cmocka_unit_test(test_depth_of_one),
		cmocka_unit_test(test_broken_ring),
		cmocka_unit_test(test_sub_channels),
		cmocka_unit_test(test_sub_channel_waits_for_the_end),
		cmocka_unit_test(test_close_waits_for_io),
		cmocka_unit_test(test_reset_during_io),
		cmocka_unit_test(test_hot_plug),
		cmocka_unit_test(test_capacity_changes),
		cmocka_unit_test(test_options),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
