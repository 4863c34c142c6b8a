// SPDX-License-Identifier: MIT
/*
 * The bus and the controller saved and restored: what a guest had under way is answered once, by
 * the old machine or by the new one; and what does not fit is refused.
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

#define RING_PAGES 3
#define DISK_SIZE  (4 * MIB)

struct bed {
	struct test_guest *g;
	struct storvsp *s;
	struct vmbus_channel *primary;
	struct fake_disk *disk;
	struct test_channel ch;
	bool open;
	uint64_t data;
};

/* A machine with a controller and a disk; no guest yet. */
static struct bed *machine(uint64_t disk_size)
{
	struct vmbus_offer_options offer = { .instance.b[0] = 9 };
	struct bed *b = calloc(1, sizeof(*b));

	assert_non_null(b);
	b->g = test_guest_new(2, 0, 0);
	assert_int_equal(storvsp_new(b->g->loop, &(struct storvsp_options){ 0 }, &b->s, NULL), 0);
	b->disk = fake_disk_new(b->g->loop, disk_size, 512);
	assert_int_equal(storvsp_attach_disk(b->s, 0, &b->disk->disk, SCSI_DISK, NULL), 0);
	assert_int_equal(
		vmbus_device_offer(b->g->bus, &storvsp_type, b->s, &offer, &b->primary, NULL), 0);
	return b;
}

static void bed_free(struct bed *b)
{
	if (b->open) {
		ring_deinit(&b->ch.out);
		ring_deinit(&b->ch.in);
	}
	if (b->disk->hold)
		fake_disk_release(b->disk);
	vmbus_resume(b->g->bus);
	test_guest_stop(b->g);
	storvsp_free(b->s);
	fake_disk_free(b->disk);
	test_guest_free(b->g);
	free(b);
}

/* The transaction id of the next completion, 0 when there is none. */
static uint64_t answered(struct bed *b, struct vstor_packet *ret)
{
	struct vmbus_packet_descriptor d;
	uint8_t buffer[256];
	int n = test_channel_receive(&b->ch, buffer, sizeof(buffer));

	if (!n)
		return 0;
	assert_int_equal(n, sizeof(d) + sizeof(*ret));
	memcpy(&d, buffer, sizeof(d));
	memcpy(ret, buffer + sizeof(d), sizeof(*ret));
	return le64_get(d.transaction_id);
}

static void ask(struct bed *b, enum vstor_operation operation)
{
	struct vstor_packet p = { .header.operation = le32_of(operation) }, in;

	p.version.major_minor = le16_of(VSTOR_VERSION_6_2);
	assert_int_equal(test_channel_request(&b->ch, 77, &p, sizeof(p)), 0);
	assert_int_equal(answered(b, &in), 77);
	assert_int_equal(le32_get(in.header.status), 0);
}

static struct bed *guest_up(void)
{
	struct bed *b = machine(DISK_SIZE);

	assert_true(test_guest_connect(b->g, VERSION_WIN10_V5_3));
	test_guest_request_offers(b->g);
	assert_int_equal(b->g->offer_count, 1);
	b->open = test_channel_open(b->g, &b->g->offers[0], RING_PAGES, &b->ch);
	assert_true(b->open);
	b->data = test_guest_pages(b->g, 64);
	ask(b, VSTOR_BEGIN_INITIALIZATION);
	ask(b, VSTOR_QUERY_PROTOCOL_VERSION);
	ask(b, VSTOR_QUERY_PROPERTIES);
	ask(b, VSTOR_END_INITIALIZATION);
	return b;
}

/* Writes or reads block `lba` at data + 512 * lba. */
static int transfer(struct bed *b, bool write, uint8_t lba, uint64_t transaction)
{
	const uint8_t cdb[] = { write ? 0x2a : 0x28, 0, 0, 0, 0, lba, 0, 0, 1, 0 };
	struct vstor_packet p = { .header.operation = le32_of(VSTOR_EXECUTE_SRB) };

	p.srb.length = le16_of(sizeof(p.srb));
	p.srb.cdb_length = sizeof(cdb);
	p.srb.sense_length = VSTOR_SENSE_SIZE;
	p.srb.data_in = write ? VSTOR_DATA_OUT : VSTOR_DATA_IN;
	p.srb.data_transfer_length = le32_of(512);
	memcpy(p.srb.payload, cdb, sizeof(cdb));
	return test_channel_request_gpa(&b->ch, transaction, &p, sizeof(p),
					b->data + lba * UINT64_C(512), 512);
}

static struct save_reader *reader_of_writer(const struct save_writer *w)
{
	struct save_reader *r;
	const void *data;
	size_t size;

	data = save_writer_bytes(w, &size);
	assert_int_equal(save_reader_of(data, size, &r, NULL), 0);
	return r;
}

/* `to` becomes `from`, which is taken down. */
static void take_over(struct bed *to, struct bed *from)
{
	struct save_writer *w = test_guest_save(from->g);
	struct save_reader *r = reader_of_writer(w);
	struct error err = { 0 };

	if (test_guest_restore(to->g, from->g, r, &err) < 0)
		fail_msg("%s", err.message);
	memcpy(to->disk->data, from->disk->data, DISK_SIZE);
	to->ch = from->ch;
	to->data = from->data;
	to->open = true;
	from->open = false;
	test_channel_move(&to->ch, to->g);
	save_reader_free(r);
	save_writer_free(w);
	bed_free(from);
}

static void test_a_guest_goes_on_in_another_machine(void **state)
{
	struct bed *a = guest_up(), *b = machine(DISK_SIZE);
	struct vstor_packet in;

	(void)state;
	assert_int_equal(gmem_fill(a->g->gm, a->data + 512, 0xaa, 512), 0);
	assert_int_equal(transfer(a, true, 1, 11), 0);
	assert_int_equal(answered(a, &in), 11);
	assert_true(test_guest_pause(a->g));
	/* What comes into the ring while it rests waits there. */
	assert_int_equal(gmem_fill(a->g->gm, a->data + 1024, 0xbb, 512), 0);
	assert_int_equal(transfer(a, true, 2, 12), 0);
	assert_int_equal(answered(a, &in), 0);
	take_over(b, a);
	assert_int_equal(answered(b, &in), 0);
	vmbus_resume(b->g->bus);
	assert_int_equal(answered(b, &in), 12);
	assert_int_equal(b->disk->data[512], 0xaa);
	assert_int_equal(b->disk->data[1024], 0xbb);
	assert_int_equal(transfer(b, false, 1, 13), 0);
	assert_int_equal(answered(b, &in), 13);
	assert_int_equal(in.srb.srb_status, SRB_STATUS_SUCCESS);
	assert_int_equal(answered(b, &in), 0);
	bed_free(b);
}

static void test_rest_waits_for_the_disk(void **state)
{
	struct bed *a = guest_up(), *b = machine(DISK_SIZE);
	struct vstor_packet in;

	(void)state;
	a->disk->hold = true;
	assert_int_equal(transfer(a, true, 1, 21), 0);
	test_guest_pump(a->g);
	assert_false(test_guest_pause(a->g));
	fake_disk_release(a->disk);
	test_guest_pump(a->g);
	assert_true(a->g->paused);
	take_over(b, a);
	vmbus_resume(b->g->bus);
	assert_int_equal(answered(b, &in), 21);
	assert_int_equal(answered(b, &in), 0);
	bed_free(b);
}

static void test_a_save_that_is_given_up_changes_nothing(void **state)
{
	struct bed *a = guest_up();
	struct vstor_packet in;

	(void)state;
	a->disk->hold = true;
	assert_int_equal(transfer(a, true, 1, 31), 0);
	test_guest_pump(a->g);
	assert_false(test_guest_pause(a->g));
	assert_int_equal(transfer(a, false, 2, 32), 0);
	vmbus_resume(a->g->bus); /* before it came to rest */
	fake_disk_release(a->disk);
	assert_int_equal(answered(a, &in), 31);
	assert_int_equal(answered(a, &in), 32);
	assert_true(test_guest_pause(a->g));
	save_writer_free(test_guest_save(a->g));
	assert_int_equal(transfer(a, false, 2, 33), 0);
	vmbus_resume(a->g->bus);
	assert_int_equal(answered(a, &in), 33);
	bed_free(a);
}

/* A guest that does not read its ring: completions that found no room are part of the state. */
static void test_completions_without_room_are_kept(void **state)
{
	struct bed *a = guest_up(), *b = machine(DISK_SIZE);
	struct vstor_packet in;
	unsigned sent = 0, got = 0;

	(void)state;
	for (unsigned round = 0; round < 20; round++) {
		while (sent < 400 && transfer(a, false, 1, 1000 + sent) == 0)
			sent++;
		test_guest_pump(a->g);
	}
	assert_true(sent > 100); /* more than the ring to the guest has room for */
	assert_true(storvsp_stats(a->s).no_room > 0);
	assert_true(test_guest_pause(a->g));
	take_over(b, a);
	vmbus_resume(b->g->bus);
	while (answered(b, &in))
		got++;
	assert_int_equal(got, sent);
	bed_free(b);
}

static void test_another_disk_is_refused(void **state)
{
	struct bed *a = guest_up(), *b = machine(2 * DISK_SIZE);
	struct error err = { 0 };
	struct save_writer *w;
	struct save_reader *r;

	(void)state;
	assert_true(test_guest_pause(a->g));
	w = test_guest_save(a->g);
	r = reader_of_writer(w);
	assert_int_equal(test_guest_restore(b->g, a->g, r, &err), -EINVAL);
	assert_string_equal(err.message,
			    "storvsp: the disk at LUN 0 has 8388608 bytes; it had 4194304 when the "
			    "machine was saved");
	save_reader_free(r);
	save_writer_free(w);
	bed_free(a);
	bed_free(b);
}

static void test_a_missing_device_is_refused(void **state)
{
	struct bed *a = guest_up();
	struct test_guest *g = test_guest_new(2, 0, 0);
	struct error err = { 0 };
	struct save_writer *w;
	struct save_reader *r;

	(void)state;
	assert_true(test_guest_pause(a->g));
	w = test_guest_save(a->g);
	r = reader_of_writer(w);
	assert_int_equal(test_guest_restore(g, a->g, r, &err), -EINVAL);
	assert_non_null(strstr(err.message, "saved with a device (storvsp "));
	save_reader_free(r);
	save_writer_free(w);
	bed_free(a);
	test_guest_free(g);
}

/* A device that knows nothing of saving; its name is in the words. */
static void test_a_device_that_cannot_is_named(void **state)
{
	static const struct vmbus_device_type type = { .name = "gadget" };
	struct test_guest *g = test_guest_new(1, 0, 0);
	struct vmbus_offer_options offer = { .instance.b[0] = 1 };
	struct vmbus_channel *ch;
	struct error err = { 0 };

	(void)state;
	assert_int_equal(vmbus_device_offer(g->bus, &type, NULL, &offer, &ch, NULL), 0);
	assert_int_equal(vmbus_savable(g->bus, &err), -ENOTSUP);
	assert_non_null(strstr(err.message, "the device gadget cannot be saved"));
	test_guest_free(g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_guest_goes_on_in_another_machine),
		cmocka_unit_test(test_rest_waits_for_the_disk),
		cmocka_unit_test(test_a_save_that_is_given_up_changes_nothing),
		cmocka_unit_test(test_completions_without_room_are_kept),
		cmocka_unit_test(test_another_disk_is_refused),
		cmocka_unit_test(test_a_missing_device_is_refused),
		cmocka_unit_test(test_a_device_that_cannot_is_named),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
