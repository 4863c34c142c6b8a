// SPDX-License-Identifier: MIT
/* The DVD drive: what a driver asks before it mounts an ISO image, and the tray. */
#include "devices/storvsp/scsi_testing.h"

#include <errno.h>

#define BLOCKS 300u

static struct bench *dvd_bench(void)
{
	/* The image ends inside a block: the rest is out of reach, as on a real disc. */
	struct bench *b = bench_new(SCSI_DVD, BLOCKS * 2048 + 512, 512);

	b->disk->disk.geometry.read_only = true;
	return b;
}

static void test_identity_and_capacity(void **state)
{
	struct bench *b = dvd_bench();

	(void)state;
	bench_run(b, CDB(0x12, 0, 0, 0, 96, 0), SCSI_DATA_IN, 96);
	assert_good(b, 96);
	assert_int_equal(b->buffer[0], 5);
	assert_int_equal(b->buffer[1], 0x80);
	assert_memory_equal(b->buffer + 8, "Msft    Virtual DVD-ROM 1.0 ", 28);
	bench_run(b, CDB(0x12, 1, 0xB0, 0, 96, 0), SCSI_DATA_IN, 96);
	assert_sense(b, SENSE_INVALID_FIELD);
	bench_run(b, CDB(0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0), SCSI_DATA_IN, 8);
	assert_int_equal(get32(b->buffer), BLOCKS - 1);
	assert_int_equal(get32(b->buffer + 4), 2048);
	bench_free(b);
}

static void test_read(void **state)
{
	struct bench *b = dvd_bench();

	(void)state;
	memset(b->disk->data + 16 * 2048, 0x42, 2048);
	bench_run(b, CDB(0x28, 0, 0, 0, 0, 16, 0, 0, 1, 0), SCSI_DATA_IN, 2048);
	assert_good(b, 2048);
	assert_int_equal(b->buffer[0], 0x42);
	assert_int_equal(b->buffer[2047], 0x42);
	bench_run(b, CDB(0xA8, 0, 0, 0, 1, 0x2b, 0, 0, 0, 1, 0, 0), SCSI_DATA_IN, 2048);
	assert_good(b, 2048);
	bench_run(b, CDB(0x28, 0, 0, 0, 1, 0x2c, 0, 0, 1, 0), SCSI_DATA_IN, 2048);
	assert_sense(b, SENSE_LBA_OUT_OF_RANGE);
	bench_run(b, CDB(0x2A, 0, 0, 0, 0, 0, 0, 0, 1, 0), SCSI_DATA_OUT, 2048);
	assert_sense(b, SENSE_INVALID_OPCODE);
	bench_free(b);
}

static void test_toc(void **state)
{
	struct bench *b = dvd_bench();

	(void)state;
	bench_run(b, CDB(0x43, 0, 0, 0, 0, 0, 0, 0, 255, 0), SCSI_DATA_IN, 255);
	assert_good(b, 20);
	assert_int_equal(b->buffer[1], 18);
	assert_int_equal(b->buffer[6], 1);
	assert_int_equal(b->buffer[14], 0xaa);
	assert_int_equal(get32(b->buffer + 16), BLOCKS);
	bench_run(b, CDB(0x43, 2, 0, 0, 0, 0, 0xaa, 0, 255, 0), SCSI_DATA_IN, 255);
	assert_good(b, 12);
	assert_int_equal(get32(b->buffer + 8), 6 << 8); /* 450 frames: 6 seconds */
	bench_run(b, CDB(0x43, 0, 1, 0, 0, 0, 0, 0, 12, 0), SCSI_DATA_IN, 12);
	assert_good(b, 12);
	assert_memory_equal(b->buffer, "\0\x0a\1\1\0\x14\1\0\0\0\0\0", 12);
	bench_run(b, CDB(0x43, 0, 0, 0, 0, 0, 0, 0, 12, 0x40), SCSI_DATA_IN, 12);
	assert_int_equal(b->buffer[1], 10); /* the format in the control byte */
	bench_run(b, CDB(0x43, 0, 4, 0, 0, 0, 0, 0, 12, 0), SCSI_DATA_IN, 12);
	assert_sense(b, SENSE_INVALID_FIELD);
	bench_run(b, CDB(0x43, 0, 0, 0, 0, 0, 2, 0, 12, 0), SCSI_DATA_IN, 12);
	assert_sense(b, SENSE_INVALID_FIELD);
	bench_free(b);
}

static void test_configuration(void **state)
{
	struct bench *b = dvd_bench();
	uint32_t all, current;

	(void)state;
	bench_run(b, CDB(0x46, 0, 0, 0, 0, 0, 0, 1, 0, 0), SCSI_DATA_IN, 256);
	all = get32(b->buffer) + 4;
	assert_good(b, all);
	assert_int_equal(b->buffer[7], 0x08); /* small enough for a CD */
	bench_run(b, CDB(0x46, 1, 0, 0, 0, 0, 0, 1, 0, 0), SCSI_DATA_IN, 256);
	current = get32(b->buffer) + 4;
	assert_int_equal(all - current, 4); /* without DVD READ */
	bench_run(b, CDB(0x46, 2, 0, 3, 0, 0, 0, 1, 0, 0), SCSI_DATA_IN, 256);
	assert_good(b, 16);
	assert_memory_equal(b->buffer + 8, "\0\3\3\4\x29", 5);
	bench_run(b, CDB(0x46, 2, 0x77, 3, 0, 0, 0, 1, 0, 0), SCSI_DATA_IN, 256);
	assert_good(b, 8);
	bench_run(b, CDB(0x46, 3, 0, 0, 0, 0, 0, 1, 0, 0), SCSI_DATA_IN, 256);
	assert_sense(b, SENSE_INVALID_FIELD);
	b->disk->disk.geometry.size = 4 * GIB; /* described only */
	bench_run(b, CDB(0x46, 0, 0, 0, 0, 0, 0, 0, 8, 0), SCSI_DATA_IN, 256);
	assert_good(b, 8);
	assert_int_equal(b->buffer[7], 0x10);
	bench_free(b);
}

static void test_capabilities(void **state)
{
	struct bench *b = dvd_bench();

	(void)state;
	bench_run(b, CDB(0x5A, 0, 0x2a, 0, 0, 0, 0, 0, 128, 0), SCSI_DATA_IN, 128);
	assert_good(b, 28);
	assert_int_equal(b->buffer[8], 0x2a);
	assert_int_equal(b->buffer[10] & 0x08, 0x08); /* reads DVDs */
	assert_int_equal(b->buffer[14] >> 5, 1);      /* a tray */
	bench_run(b, CDB(0x1A, 0, 0x2a, 0, 128, 0), SCSI_DATA_IN, 128);
	assert_good(b, 24);
	bench_run(b, CDB(0x5A, 0, 0x08, 0, 0, 0, 0, 0, 128, 0), SCSI_DATA_IN, 128);
	assert_sense(b, SENSE_INVALID_FIELD);
	bench_run(b, CDB(0x51, 0, 0, 0, 0, 0, 0, 0, 34, 0), SCSI_DATA_IN, 34);
	assert_good(b, 34);
	bench_run(b, CDB(0xBD, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0), SCSI_DATA_IN, 8);
	assert_good(b, 8);
	bench_free(b);
}

static void test_tray(void **state)
{
	struct bench *b = dvd_bench();

	(void)state;
	bench_run(b, CDB(0x4A, 1, 0, 0, 0x10, 0, 0, 0, 8, 0), SCSI_DATA_IN, 8);
	assert_memory_equal(b->buffer, "\0\6\4\x10\0\2\0\0", 8);
	bench_run(b, CDB(0x1E, 0, 0, 0, 1, 0), SCSI_DATA_NONE, 0);
	bench_run(b, CDB(0x1B, 0, 0, 0, 2, 0), SCSI_DATA_NONE, 0);
	assert_sense(b, SENSE_REMOVAL_PREVENTED);
	bench_run(b, CDB(0x1E, 0, 0, 0, 0, 0), SCSI_DATA_NONE, 0);
	bench_run(b, CDB(0x1B, 0, 0, 0, 2, 0), SCSI_DATA_NONE, 0);
	assert_good(b, 0);
	bench_run(b, CDB(0x00, 0, 0, 0, 0, 0), SCSI_DATA_NONE, 0);
	assert_sense(b, SENSE_NO_MEDIUM_OPEN);
	bench_run(b, CDB(0x4A, 1, 0, 0, 0x10, 0, 0, 0, 8, 0), SCSI_DATA_IN, 8);
	assert_memory_equal(b->buffer, "\0\6\4\x10\3\1\0\0", 8); /* told once */
	bench_run(b, CDB(0x4A, 1, 0, 0, 0x10, 0, 0, 0, 8, 0), SCSI_DATA_IN, 8);
	assert_memory_equal(b->buffer, "\0\6\4\x10\0\1\0\0", 8);
	bench_run(b, CDB(0x1B, 0, 0, 0, 3, 0), SCSI_DATA_NONE, 0);
	assert_good(b, 0);
	bench_run(b, CDB(0x12, 0, 0, 0, 96, 0), SCSI_DATA_IN, 96);
	assert_good(b, 96); /* does not report the change */
	bench_run(b, CDB(0x00, 0, 0, 0, 0, 0), SCSI_DATA_NONE, 0);
	assert_sense(b, SENSE_MEDIUM_CHANGED);
	bench_run(b, CDB(0x00, 0, 0, 0, 0, 0), SCSI_DATA_NONE, 0);
	assert_good(b, 0);
	bench_run(b, CDB(0x4A, 0, 0, 0, 0x10, 0, 0, 0, 8, 0), SCSI_DATA_IN, 8);
	assert_sense(b, SENSE_INVALID_FIELD); /* to wait for an event */
	bench_run(b, CDB(0x4A, 1, 0, 0, 0x02, 0, 0, 0, 8, 0), SCSI_DATA_IN, 8);
	assert_good(b, 4);
	bench_free(b);
}

static void on_closed(void *arg)
{
	++*(unsigned *)arg;
}

/* Another disc, while the guest has locked the tray and reads. */
static void test_other_disc(void **state)
{
	struct bench *b = dvd_bench();
	struct fake_disk *other = fake_disk_new(b->loop, 100 * 2048, 512);
	struct error err = { 0 };
	unsigned closed = 0;
	struct scsi_load load = { .disk = &other->disk, .done = on_closed, .arg = &closed };

	(void)state;
	memset(b->disk->data, 0x11, 2048);
	bench_run(b, CDB(0x1E, 0, 0, 0, 1, 0), SCSI_DATA_NONE, 0);
	assert_true(scsi_target_is_locked(b->target, 0));
	assert_int_equal(scsi_target_load(b->target, 0, &load, &err), -EBUSY);
	assert_int_equal(scsi_target_load(b->target, 1, &load, &err), -ENOENT);
	b->disk->hold = true;
	bench_start(b, CDB(0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0), SCSI_DATA_IN, 2048);
	load.force = true;
	assert_int_equal(scsi_target_load(b->target, 0, &load, &err), 0);
	assert_int_equal(closed, 0);
	fake_disk_release(b->disk);
	bench_wait(b);
	assert_good(b, 2048); /* from the disc that it was sent to */
	assert_int_equal(b->buffer[0], 0x11);
	assert_int_equal(closed, 1);
	assert_false(scsi_target_is_locked(b->target, 0));
	bench_run(b, CDB(0x00, 0, 0, 0, 0, 0), SCSI_DATA_NONE, 0);
	assert_sense(b, SENSE_MEDIUM_CHANGED);
	bench_run(b, CDB(0x4A, 1, 0, 0, 0x10, 0, 0, 0, 8, 0), SCSI_DATA_IN, 8);
	assert_memory_equal(b->buffer, "\0\6\4\x10\2\2\0\0", 8);
	bench_run(b, CDB(0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0), SCSI_DATA_IN, 8);
	assert_int_equal(get32(b->buffer), 99);
	load.disk = NULL;
	assert_int_equal(scsi_target_load(b->target, 0, &load, &err), 0);
	assert_int_equal(closed, 2);
	bench_run(b, CDB(0x00, 0, 0, 0, 0, 0), SCSI_DATA_NONE, 0);
	assert_sense(b, SENSE_NO_MEDIUM);
	bench_run(b, CDB(0x4A, 1, 0, 0, 0x10, 0, 0, 0, 8, 0), SCSI_DATA_IN, 8);
	assert_memory_equal(b->buffer, "\0\6\4\x10\3\0\0\0", 8);
	fake_disk_free(other);
	bench_free(b);
}

static void test_empty_drive(void **state)
{
	struct bench *b = dvd_bench();
	struct error err = { 0 };

	(void)state;
	assert_int_equal(scsi_target_attach(b->target, 1, SCSI_DVD, NULL, &err), 0);
	b->req.lun = 1;
	bench_run(b, CDB(0x00, 0, 0, 0, 0, 0), SCSI_DATA_NONE, 0);
	assert_sense(b, SENSE_NO_MEDIUM);
	bench_run(b, CDB(0x03, 0, 0, 0, 18, 0), SCSI_DATA_IN, 18);
	assert_good(b, 18);
	assert_int_equal(b->buffer[2], 2);
	assert_int_equal(b->buffer[12], 0x3a);
	bench_run(b, CDB(0x46, 0, 0, 0, 0, 0, 0, 1, 0, 0), SCSI_DATA_IN, 256);
	assert_int_equal(b->buffer[7], 0);
	for (unsigned op = 0; op < 256; op++) { /* nothing reaches for the disc */
		uint8_t cdb[16] = { (uint8_t)op, 1, 0, 1, 1 };

		bench_run(b, cdb, 16, SCSI_DATA_IN, 512);
	}
	bench_free(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_identity_and_capacity),
		cmocka_unit_test(test_read),
		cmocka_unit_test(test_toc),
		cmocka_unit_test(test_configuration),
		cmocka_unit_test(test_capabilities),
		cmocka_unit_test(test_tray),
		cmocka_unit_test(test_other_disc),
		cmocka_unit_test(test_empty_drive),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
