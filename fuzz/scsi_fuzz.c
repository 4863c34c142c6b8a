// SPDX-License-Identifier: MIT
/*
 * SCSI commands and their data over disks in memory, several at once. An input is a sequence of
 * records of a 5-byte head (what to do, LUN, CDB length, buffer length), 16 bytes of CDB and up to
 * 64 bytes of data. Checked are the disk layer's rules (fake_disk.c), that every command ends
 * exactly once, and, by the sanitizer, that nothing reaches outside the buffers.
 */
#include "devices/storvsp/fake_disk.h"
#include "devices/storvsp/scsi.h"
#include "lib/cursor.h"

#include <errno.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define SLOTS    4
#define DISKS    3
#define IOV_MAX_ 12

struct slot {
	struct scsi_request req;
	struct iovec iov[IOV_MAX_];
	uint8_t *buffer;
	bool running;
};

static struct loop *loop;
static struct fake_disk *disks[DISKS];
static struct slot slots[SLOTS];

static void on_done(struct scsi_request *req)
{
	struct slot *s = container_of(req, struct slot, req);

	if (!s->running || req->transferred > req->bytes)
		abort();
	if (req->status == SCSI_CHECK_CONDITION && (req->sense[0] != 0x70 || !req->sense[2]))
		abort();
	if (req->status != SCSI_GOOD && req->transferred)
		abort();
	s->running = false;
	free(s->buffer);
	s->buffer = NULL;
}

static void make_disks(void)
{
	static const uint32_t sectors[DISKS] = { 512, 4096, 512 };

	if (loop_new(0, &loop, NULL) < 0)
		abort();
	for (int i = 0; i < DISKS; i++)
		disks[i] = fake_disk_new(loop, MIB, sectors[i]);
	disks[1]->disk.geometry.id.b[3] = 7;
	disks[2]->disk.geometry.read_only = true;
}

static void run_loop(void)
{
	for (int i = 0; i < DISKS; i++)
		fake_disk_release(disks[i]);
	for (int i = 0; i < 2; i++)
		if (loop_once(loop, 0) < 0)
			abort();
}

static struct slot *slot_free(void)
{
	for (int i = 0; i < SLOTS; i++)
		if (!slots[i].running)
			return &slots[i];
	run_loop();
	return slots[0].running ? NULL : &slots[0];
}

/* The buffer in pieces; every one is the sanitizer's to guard at its end. */
static void cut(struct slot *s, unsigned pieces)
{
	uint32_t at = 0, step = MAX(s->req.bytes / pieces, 1u);

	s->req.iovcnt = 0;
	while (at < s->req.bytes) {
		bool last = s->req.iovcnt + 1 == IOV_MAX_;
		uint32_t n = last ? s->req.bytes - at : MIN(step, s->req.bytes - at);

		s->iov[s->req.iovcnt++] = (struct iovec){ s->buffer + at, n };
		at += n;
	}
}

static void run_command(struct scsi_target *target, struct reader *r, uint8_t how)
{
	struct slot *s = slot_free();
	uint8_t lun = reader_u8(r), cdb_size = reader_u8(r);
	uint16_t bytes = reader_le16(r);
	size_t n;

	if (!s)
		return;
	s->req.lun = lun % 8;
	s->req.cdb_size = cdb_size % 18;
	s->req.direction = (enum scsi_direction)(how / 4 % 3);
	s->req.bytes = bytes;
	s->req.iov = s->iov;
	s->req.iovmax = IOV_MAX_;
	s->req.done = on_done;
	reader_copy(r, s->req.cdb, sizeof(s->req.cdb));
	s->buffer = calloc(1, bytes ? bytes : 1);
	if (!s->buffer)
		abort();
	n = MIN(MIN(reader_left(r), 64), bytes);
	reader_copy(r, s->buffer, n);
	cut(s, 1 + how / 16 % 8);
	s->running = true;
	scsi_execute(target, &s->req);
	if (s->running && how & 0x80)
		scsi_cancel(&s->req);
}

static void change_unit(struct scsi_target *target, uint8_t what)
{
	unsigned lun = what % 4;

	if (!scsi_target_detach(target, lun, NULL, NULL))
		return;
	if (scsi_target_attach(target, lun, what & 4 ? SCSI_DVD : SCSI_DISK,
			       &disks[what / 8 % DISKS]->disk, NULL) < 0 &&
	    scsi_target_attach(target, lun, SCSI_DVD, NULL, NULL) < 0)
		abort();
}

static void change_disk(uint8_t what)
{
	static const int errors[] = { 0, -EIO, -ENOSPC, -EROFS, -ENOMEM };
	struct fake_disk *d = disks[what % DISKS];

	d->fail = errors[what / 4 % ARRAY_SIZE(errors)];
	d->pass = what / 32;
	d->hold = what & 1;
	d->disk.geometry.trim_granularity = what & 2 ? 4096 : 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct scsi_target_options options = { .max_transfer = 65536 };
	struct reader r = reader_of(data, size);
	struct scsi_target *target;

	if (!loop)
		make_disks();
	if (scsi_target_new(&options, &target, NULL) < 0)
		abort();
	for (uint8_t i = 0; i < 4; i++)
		change_unit(target, (uint8_t)(i | i << 3 | (i & 2) << 1));
	for (uint8_t i = 0; i < DISKS; i++)
		change_disk((uint8_t)(2 * 3 + i - i % 2)); /* works, gives space back */
	while (reader_left(&r)) {
		uint8_t how = reader_u8(&r);

		switch (how % 4) {
		case 0:
		case 1:
			run_command(target, &r, how);
			break;
		case 2:
			run_loop();
			break;
		case 3:
			if (how & 4)
				change_unit(target, reader_u8(&r));
			else
				change_disk(reader_u8(&r));
		}
	}
	for (int i = 0; i < 200; i++) {
		bool busy = false;

		for (int k = 0; k < SLOTS; k++)
			busy |= slots[k].running;
		if (!busy)
			break;
		run_loop();
	}
	for (int k = 0; k < SLOTS; k++)
		if (slots[k].running)
			abort();
	scsi_target_free(target);
	return 0;
}
