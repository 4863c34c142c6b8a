// SPDX-License-Identifier: MIT
/*
 * Packets of a hostile guest to the SCSI controller, over the real bus. The first byte of an input
 * chooses what is set up before (bit 0: initialised, bit 1: a sub-channel); records follow, each an
 * action byte and its arguments. Checked: every packet that wants an answer gets exactly one, of
 * the right size, whatever the guest does to its rings' room, the disk and the units.
 */
#include "devices/storvsp/fake_disk.h"
#include "devices/storvsp/storvsp.h"
#include "devices/storvsp/storvsp_proto.h"
#include "vmbus/testing.h"

#include <errno.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define RING_PAGES 3
#define DATA_PAGES 64
#define CHANNELS   2

static struct test_guest *guest;
static struct storvsp *controller;
static struct fake_disk *disk;
static uint64_t data_gpa, first_page;

struct session {
	struct test_channel channels[CHANNELS];
	bool open[CHANNELS];
	unsigned wanted, answered;
	bool broken; /* the guest sent what breaks a ring: no more accounts are kept */
};

static void insist(bool holds)
{
	if (!holds)
		abort();
}

static void make_controller(void)
{
	struct storvsp_options options = { .queue_depth = 8, .max_channels = CHANNELS };
	struct vmbus_offer_options offer = { .instance.b[0] = 1 };
	struct vmbus_channel *primary;

	guest = test_guest_new(CHANNELS, 0, 0);
	disk = fake_disk_new(guest->loop, MIB, 512);
	insist(!storvsp_new(guest->loop, &options, &controller, NULL));
	insist(!vmbus_device_offer(guest->bus, &storvsp_type, controller, &offer, &primary, NULL));
	data_gpa = test_guest_pages(guest, DATA_PAGES);
	first_page = guest->next_page;
}

/* --- the guest's side --- */

static bool drain(struct session *s)
{
	uint8_t buffer[512];
	bool any = false;
	int n;

	for (unsigned i = 0; i < CHANNELS; i++) {
		while (s->open[i] &&
		       (n = test_channel_receive(&s->channels[i], buffer, sizeof(buffer))) > 0) {
			insist(n == 16 + (int)sizeof(struct vstor_packet));
			s->answered += buffer[0] == VMBUS_PACKET_COMPLETION;
			any = true;
		}
	}
	return any;
}

static void sent(struct session *s, int result)
{
	if (!result)
		s->wanted++;
}

static void send_operation(struct session *s, unsigned channel, uint32_t operation,
			   uint16_t argument)
{
	struct vstor_packet p = { .header.operation = le32_of(operation) };

	p.version.major_minor = le16_of(argument);
	sent(s, test_channel_request(&s->channels[channel], 9, &p, sizeof(p)));
}

static void send_bytes(struct session *s, unsigned channel, struct reader *r)
{
	uint8_t packet[256];
	size_t size = reader_u8(r);

	size = MIN(size, reader_left(r));
	reader_copy(r, packet, size);
	sent(s, test_channel_request(&s->channels[channel], 9, packet, size));
}

static void send_srb(struct session *s, unsigned channel, struct reader *r)
{
	struct vstor_packet p = { .header.operation = le32_of(VSTOR_EXECUTE_SRB) };
	uint32_t offset, bytes;

	p.srb.cdb_length = reader_u8(r);
	p.srb.lun = reader_u8(r) & 7;
	p.srb.path_id = p.srb.lun == 7;
	p.srb.data_in = reader_u8(r);
	p.srb.data_transfer_length = le32_of(reader_le16(r));
	offset = reader_le16(r);
	bytes = reader_le16(r);
	reader_copy(r, p.srb.payload, VSTOR_CDB_SIZE);
	if (bytes)
		sent(s, test_channel_request_gpa(&s->channels[channel], 9, &p, sizeof(p),
						 data_gpa + offset, bytes));
	else
		sent(s, test_channel_request(&s->channels[channel], 9, &p, sizeof(p)));
}

/* A packet of any type whose extended header is the input's own. */
static void send_raw(struct session *s, unsigned channel, struct reader *r)
{
	uint8_t packet[512], type = reader_u8(r);
	size_t header = reader_u8(r) % 32 * 8u, size = header + sizeof(struct vstor_packet);

	size = MIN(size, reader_left(r));
	header = MIN(header, size / 8 * 8);
	reader_copy(r, packet, size);
	test_channel_send(&s->channels[channel], type, 9, packet, size, header);
	s->broken = true;
}

static void data_fill(struct reader *r)
{
	uint8_t bytes[64];
	uint16_t offset = reader_le16(r);
	size_t size = MIN(reader_left(r), sizeof(bytes));

	reader_copy(r, bytes, size);
	insist(!gmem_write(guest->gm, data_gpa + offset, bytes, size));
}

/* --- the host's side --- */

static void change_units(uint8_t what)
{
	unsigned lun = what % 4;
	bool dvd = what & 4;

	if (storvsp_detach(controller, lun, NULL, NULL) == -ENOENT)
		insist(!storvsp_attach_disk(controller, lun, dvd && what & 8 ? NULL : &disk->disk,
					    dvd ? SCSI_DVD : SCSI_DISK, NULL));
}

static void change_disk(uint8_t what)
{
	static const int errors[] = { 0, 0, -EIO, -ENOSPC };

	disk->fail = errors[what & 3];
	disk->disk.geometry.read_only = what & 4 && !disk->queued;
	disk->disk.geometry.trim_granularity = what & 8 ? 0 : 4096;
	if (what & 16)
		disk->hold = true;
	else
		fake_disk_release(disk);
}

static void settle(struct session *s)
{
	fake_disk_release(disk);
	for (int i = 0; i < 100; i++)
		if (!drain(s) && !disk->queued && i > 2)
			break;
	insist(!disk->queued);
	insist(s->broken || s->wanted == s->answered);
}

/* --- a session --- */

static void open_channel(struct session *s, unsigned i)
{
	if (s->open[i] || guest->offer_count <= i)
		return;
	s->open[i] = test_channel_open(guest, &guest->offers[i], RING_PAGES, &s->channels[i]);
	if (!s->open[i]) {
		ring_deinit(&s->channels[i].out);
		ring_deinit(&s->channels[i].in);
	}
}

static void initialise(struct session *s, bool sub_channel)
{
	send_operation(s, 0, VSTOR_BEGIN_INITIALIZATION, 0);
	send_operation(s, 0, VSTOR_QUERY_PROTOCOL_VERSION, VSTOR_VERSION_6_2);
	send_operation(s, 0, VSTOR_QUERY_PROPERTIES, 0);
	send_operation(s, 0, VSTOR_END_INITIALIZATION, 0);
	if (!sub_channel)
		return;
	send_operation(s, 0, VSTOR_CREATE_SUB_CHANNELS, 1);
	drain(s);
	test_guest_take_offers(guest);
	open_channel(s, 1);
}

static void act(struct session *s, struct reader *r)
{
	uint8_t action = reader_u8(r);
	unsigned channel = action >> 7 && s->open[1];

	switch (action % 8) {
	case 0:
		send_operation(s, channel, reader_u8(r), reader_le16(r));
		break;
	case 1:
		send_bytes(s, channel, r);
		break;
	case 2:
	case 3:
		send_srb(s, channel, r);
		break;
	case 4:
		if (action & 0x40)
			send_raw(s, channel, r);
		else
			data_fill(r);
		break;
	case 5:
		change_units(reader_u8(r));
		break;
	case 6:
		change_disk(reader_u8(r));
		break;
	case 7:
		if (action & 0x40)
			drain(s);
		else
			test_guest_pump(guest);
		break;
	}
}

static void session_end(struct session *s)
{
	for (unsigned i = 0; i < CHANNELS; i++) {
		if (!s->open[i])
			continue;
		ring_deinit(&s->channels[i].out);
		ring_deinit(&s->channels[i].in);
	}
	for (unsigned lun = 0; lun < 4; lun++)
		if (storvsp_detach(controller, lun, NULL, NULL) == -ENOENT)
			continue; /* was not there */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct reader r = reader_of(data, size);
	struct session s = { 0 };
	uint8_t setup = reader_u8(&r);

	if (!guest)
		make_controller();
	guest->next_page = first_page;
	change_disk(0);
	change_units(0);
	change_units(1 | 4);
	insist(test_guest_connect(guest, VERSION_WIN10_V5_3)); /* ends the session before */
	test_guest_request_offers(guest);
	open_channel(&s, 0);
	insist(s.open[0]);
	if (setup & 1)
		initialise(&s, setup & 2);
	while (reader_left(&r))
		act(&s, &r);
	/* Half of the sessions end with their requests in flight. */
	if (!(setup & 4))
		settle(&s);
	else
		fake_disk_release(disk);
	session_end(&s);
	return 0;
}
