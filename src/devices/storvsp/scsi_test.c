// SPDX-License-Identifier: MIT
/* Disks: data, capacity, identity, provisioning, mode pages, errors, and commands that lie. */
#include "devices/storvsp/scsi_testing.h"

#include <errno.h>

#define SECTORS 4096u

static struct bench *disk_bench(void)
{
	return bench_new(SCSI_DISK, SECTORS * 512, 512);
}

/* --- data --- */

static void test_write_and_read_every_size_of_cdb(void **state)
{
	static const struct {
		uint8_t write[16], read[16];
		uint8_t size;
	} rows[] = {
		{ { 0x0A, 0, 0, 7, 4 }, { 0x08, 0, 0, 7, 4 }, 6 },
		{ { 0x2A, 0, 0, 0, 0, 7, 0, 0, 4 }, { 0x28, 0, 0, 0, 0, 7, 0, 0, 4 }, 10 },
		{ { 0xAA, 0, 0, 0, 0, 7, 0, 0, 0, 4 }, { 0xA8, 0, 0, 0, 0, 7, 0, 0, 0, 4 }, 12 },
		{ { 0x8A, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 4 },
		  { 0x88, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 4 },
		  16 },
		{ { 0x2E, 0, 0, 0, 0, 7, 0, 0, 4 }, { 0x28, 0, 0, 0, 0, 7, 0, 0, 4 }, 10 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct bench *b = disk_bench();

		for (int k = 0; k < 2048; k++)
			b->buffer[k] = (uint8_t)(k * 7 + 1);
		bench_run(b, rows[i].write, rows[i].size, SCSI_DATA_OUT, 2048);
		assert_good(b, 2048);
		assert_memory_equal(b->disk->data + 7 * 512, b->buffer, 2048);
		assert_int_equal(b->disk->data[11 * 512], 0);
		memset(b->buffer, 0, 4096);
		bench_run(b, rows[i].read, rows[i].size, SCSI_DATA_IN, 4096);
		assert_good(b, 2048); /* the residual is the caller's to see */
		assert_memory_equal(b->disk->data + 7 * 512, b->buffer, 2048);
		assert_int_equal(b->buffer[2048], 0);
		assert_int_equal(scsi_target_stats(b->target)->bytes_read, 2048);
		assert_int_equal(scsi_target_stats(b->target)->bytes_written, 2048);
		bench_free(b);
	}
}

static void test_six_byte_zero_means_256(void **state)
{
	struct bench *b = disk_bench();

	(void)state;
	bench_run(b, CDB(0x08, 0, 0, 0, 0, 0), SCSI_DATA_IN, 256 * 512);
	assert_good(b, 256 * 512);
	bench_free(b);
}

static void test_no_blocks_is_no_error(void **state)
{
	struct bench *b = disk_bench();

	(void)state;
	bench_run(b, CDB(0x28, 0, 0, 0, 0, 0, 0, 0, 0, 0), SCSI_DATA_NONE, 0);
	assert_good(b, 0);
	bench_run(b, CDB(0x28, 0, 0, 0, 0x10, 0, 0, 0, 0, 0), SCSI_DATA_NONE, 0);
	assert_good(b, 0); /* just behind the end */
	bench_run(b, CDB(0x28, 0, 0, 0, 0x10, 1, 0, 0, 0, 0), SCSI_DATA_NONE, 0);
	assert_sense(b, SENSE_LBA_OUT_OF_RANGE);
	bench_free(b);
}

static void test_out_of_range(void **state)
{
	struct bench *b = disk_bench();

	(void)state;
	bench_run(b, CDB(0x28, 0, 0, 0, 0x0f, 0xff, 0, 0, 2, 0), SCSI_DATA_IN, 1024);
	assert_sense(b, SENSE_LBA_OUT_OF_RANGE);
	bench_run(b, CDB(0x2A, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 1, 0), SCSI_DATA_OUT, 512);
	assert_sense(b, SENSE_LBA_OUT_OF_RANGE);
	bench_run(b,
		  CDB(0x88, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
		      0xff, 0, 0),
		  SCSI_DATA_IN, 512);
	assert_sense(b, SENSE_LBA_OUT_OF_RANGE);
	/* 2^55 blocks of 512 bytes would wrap to offset 0. */
	bench_run(b, CDB(0x88, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0), SCSI_DATA_IN, 512);
	assert_sense(b, SENSE_LBA_OUT_OF_RANGE);
	bench_run(b, CDB(0x2F, 0, 0, 0, 0x10, 0, 0, 0, 1, 0), SCSI_DATA_NONE, 0);
	assert_sense(b, SENSE_LBA_OUT_OF_RANGE);
	assert_int_equal(b->disk->counts[DISK_READ] + b->disk->counts[DISK_WRITE], 0);
	bench_free(b);
}

static void test_buffer_too_small(void **state)
{
	struct bench *b = disk_bench();

	(void)state;
	bench_run(b, CDB(0x28, 0, 0, 0, 0, 0, 0, 0, 2, 0), SCSI_DATA_IN, 1023);
	assert_int_equal(b->req.outcome, SCSI_OVERRUN);
	assert_int_equal(b->req.transferred, 0);
	bench_run(b, CDB(0x2A, 0, 0, 0, 0, 0, 0, 0, 2, 0), SCSI_DATA_OUT, 512);
	assert_int_equal(b->req.outcome, SCSI_OVERRUN);
	bench_run(b, CDB(0x2A, 0, 0, 0, 0, 0, 0, 0, 1, 0), SCSI_DATA_NONE, 0);
	assert_int_equal(b->req.outcome, SCSI_OVERRUN);
	assert_int_equal(b->disk->counts[DISK_READ] + b->disk->counts[DISK_WRITE], 0);
	bench_free(b);
}

static void test_wrong_direction(void **state)
{
	struct bench *b = disk_bench();

	(void)state;
	bench_run(b, CDB(0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0), SCSI_DATA_OUT, 512);
	assert_sense(b, SENSE_INVALID_FIELD);
	bench_run(b, CDB(0x2A, 0, 0, 0, 0, 0, 0, 0, 1, 0), SCSI_DATA_IN, 512);
	assert_sense(b, SENSE_INVALID_FIELD);
	bench_run(b, CDB(0x12, 0, 0, 0, 96, 0), SCSI_DATA_OUT, 96);
	assert_sense(b, SENSE_INVALID_FIELD);
	bench_run(b, CDB(0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0), SCSI_DATA_IN, 24);
	assert_sense(b, SENSE_INVALID_FIELD);
	bench_free(b);
}

static void test_durability(void **state)
{
	struct bench *b = disk_bench();

	(void)state;
	bench_run(b, CDB(0x2A, 0, 0, 0, 0, 0, 0, 0, 1, 0), SCSI_DATA_OUT, 512);
	assert_int_equal(b->disk->fua, 0);
	bench_run(b, CDB(0x2A, 0x08, 0, 0, 0, 0, 0, 0, 1, 0), SCSI_DATA_OUT, 512);
	assert_int_equal(b->disk->fua, 1);
	bench_run(b, CDB(0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0), SCSI_DATA_NONE, 0);
	assert_good(b, 0);
	bench_run(b, CDB(0x91, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), SCSI_DATA_NONE, 0);
	assert_good(b, 0);
	assert_int_equal(b->disk->counts[DISK_FLUSH], 2);
	assert_int_equal(scsi_target_stats(b->target)->flushes, 2);
	bench_free(b);
}

static void test_errors_of_the_disk(void **state)
{
	static const struct {
		int error;
		bool write;
		struct scsi_sense sense;
	} rows[] = {
		{ -EIO, false, { 3, 0x11, 0 } },    { -EIO, true, { 3, 0x0C, 0 } },
		{ -ENOSPC, true, { 7, 0x27, 7 } },  { -EROFS, true, { 7, 0x27, 0 } },
		{ -ENOMEM, false, { 4, 0x44, 0 } },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct bench *b = disk_bench();

		b->disk->fail = rows[i].error;
		bench_run(b, CDB(rows[i].write ? 0x2A : 0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0),
			  rows[i].write ? SCSI_DATA_OUT : SCSI_DATA_IN, 512);
		assert_sense(b, rows[i].sense);
		bench_run(b, CDB(0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0), SCSI_DATA_NONE, 0);
		assert_int_equal(b->req.status, SCSI_CHECK_CONDITION);
		assert_int_equal(scsi_target_stats(b->target)->errors, 2);
		bench_free(b);
	}
}

static void test_read_only(void **state)
{
	struct bench *b = disk_bench();

	(void)state;
	b->disk->disk.geometry.read_only = true;
	bench_run(b, CDB(0x2A, 0, 0, 0, 0, 0, 0, 0, 1, 0), SCSI_DATA_OUT, 512);
	assert_sense(b, SENSE_WRITE_PROTECTED);
	bench_run(b, CDB(0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0), SCSI_DATA_OUT, 24);
	assert_sense(b, SENSE_WRITE_PROTECTED);
	bench_run(b, CDB(0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0), SCSI_DATA_IN, 512);
	assert_good(b, 512);
	bench_run(b, CDB(0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0), SCSI_DATA_NONE, 0);
	assert_good(b, 0);
	bench_run(b, CDB(0x1A, 0, 0x3f, 0, 255, 0), SCSI_DATA_IN, 255);
	assert_int_equal(b->buffer[2], 0x90); /* WP, DPOFUA */
	bench_run(b, CDB(0x9E, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0), SCSI_DATA_IN, 32);
	assert_int_equal(b->buffer[14], 0); /* nothing can be given back */
	bench_free(b);
}

/* --- description --- */

static void test_capacity(void **state)
{
	struct bench *b = disk_bench();

	(void)state;
	bench_run(b, CDB(0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0), SCSI_DATA_IN, 8);
	assert_good(b, 8);
	assert_int_equal(get32(b->buffer), SECTORS - 1);
	assert_int_equal(get32(b->buffer + 4), 512);
	bench_run(b, CDB(0x9E, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0), SCSI_DATA_IN, 32);
	assert_good(b, 32);
	assert_int_equal(get32(b->buffer + 4), SECTORS - 1);
	assert_int_equal(b->buffer[13], 3); /* 8 logical blocks in a physical one */
	assert_int_equal(b->buffer[14], 0xc0);
	b->disk->disk.geometry.size = 3 * TIB; /* described only */
	bench_run(b, CDB(0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0), SCSI_DATA_IN, 8);
	assert_int_equal(get32(b->buffer), UINT32_MAX);
	bench_run(b, CDB(0x9E, 0x12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0), SCSI_DATA_IN, 32);
	assert_sense(b, SENSE_INVALID_FIELD);
	bench_free(b);
}

static void test_4k_sectors(void **state)
{
	struct bench *b = bench_new(SCSI_DISK, 1024 * 1024, 4096);

	(void)state;
	bench_run(b, CDB(0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0), SCSI_DATA_IN, 8);
	assert_int_equal(get32(b->buffer), 255);
	assert_int_equal(get32(b->buffer + 4), 4096);
	memset(b->buffer, 0x5a, 8192);
	bench_run(b, CDB(0x2A, 0, 0, 0, 0, 254, 0, 0, 2, 0), SCSI_DATA_OUT, 8192);
	assert_good(b, 8192);
	assert_int_equal(b->disk->data[1024 * 1024 - 1], 0x5a);
	bench_free(b);
}

static void test_inquiry(void **state)
{
	struct bench *b = disk_bench();

	(void)state;
	bench_run(b, CDB(0x12, 0, 0, 0, 36, 0), SCSI_DATA_IN, 255);
	assert_good(b, 36);
	assert_int_equal(b->buffer[0], 0);
	assert_int_equal(b->buffer[1], 0);
	assert_int_equal(b->buffer[2], 5);
	assert_int_equal(b->buffer[4], 91);
	assert_int_equal(b->buffer[7], 2);
	assert_memory_equal(b->buffer + 8, "Msft    Virtual Disk    1.0 ", 28);
	bench_run(b, CDB(0x12, 0, 0x80, 0, 36, 0), SCSI_DATA_IN, 255);
	assert_sense(b, SENSE_INVALID_FIELD);
	bench_run(b, CDB(0x12, 1, 0x42, 0, 36, 0), SCSI_DATA_IN, 255);
	assert_sense(b, SENSE_INVALID_FIELD);
	bench_run(b, CDB(0x12, 0, 0, 0, 96, 0), SCSI_DATA_IN, 5);
	assert_good(b, 5);
	bench_free(b);
}

static void test_every_listed_vpd_page_exists(void **state)
{
	struct bench *b = disk_bench();
	uint8_t pages[16];
	int count;

	(void)state;
	bench_run(b, CDB(0x12, 1, 0, 0, 255, 0), SCSI_DATA_IN, 255);
	count = b->buffer[3];
	assert_int_equal(count, 6);
	memcpy(pages, b->buffer + 4, (size_t)count);
	for (int i = 0; i < count; i++) {
		assert_true(!i || pages[i] > pages[i - 1]);
		bench_run(b, CDB(0x12, 1, pages[i], 0, 255, 0), SCSI_DATA_IN, 255);
		assert_good(b, 4u + b->buffer[3]);
		assert_int_equal(b->buffer[1], pages[i]);
	}
	bench_free(b);
}

static void test_identity(void **state)
{
	struct bench *b = disk_bench();
	struct guid id = GUID(0x03020100, 0x0504, 0x4706, 0x88, 9, 10, 11, 12, 13, 14, 15);
	struct error err = { 0 };
	uint8_t first[64];

	(void)state;
	bench_run(b, CDB(0x12, 1, 0x83, 0, 255, 0), SCSI_DATA_IN, 255);
	memcpy(first, b->buffer, sizeof(first));
	b->disk->disk.geometry.id = id;
	assert_int_equal(scsi_target_attach(b->target, 1, SCSI_DISK, &b->disk->disk, &err), 0);
	b->req.lun = 1;
	bench_run(b, CDB(0x12, 1, 0x83, 0, 255, 0), SCSI_DATA_IN, 255);
	assert_good(b, 4 + 28 + 20);
	assert_memory_equal(b->buffer + 4, "\x01\x01\0\x18Msft    ", 12);
	assert_memory_equal(b->buffer + 16, id.b, 16);
	assert_memory_equal(b->buffer + 32, "\x01\x03\0\x10\x60\x02\x24\x80", 8);
	assert_memory_equal(b->buffer + 40, "\0\1\2\3\4\5\12\13\14\15\16\17", 12);
	assert_memory_not_equal(b->buffer + 32, first + 32, 20);
	bench_run(b, CDB(0x12, 1, 0x80, 0, 255, 0), SCSI_DATA_IN, 255);
	assert_good(b, 36);
	assert_memory_equal(b->buffer + 4, "00010203040506478809", 20);
	bench_free(b);
}

/* Without identities of their own, units of controllers that are numbered alike stay apart. */
static void test_identities_differ(void **state)
{
	uint8_t seen[16][16];
	struct bench *b = disk_bench();
	struct error err = { 0 };
	size_t count = 0;

	(void)state;
	for (uint8_t controller = 0; controller < 4; controller++) {
		struct scsi_target_options o = { .identity.b[15] = controller };
		struct scsi_target *mine = b->target;

		assert_int_equal(scsi_target_new(&o, &b->target, &err), 0);
		for (uint8_t lun = 0; lun < 4; lun++, count++) {
			assert_int_equal(
				scsi_target_attach(b->target, lun, SCSI_DISK, &b->disk->disk, &err),
				0);
			b->req.lun = lun;
			bench_run(b, CDB(0x12, 1, 0x83, 0, 255, 0), SCSI_DATA_IN, 255);
			memcpy(seen[count], b->buffer + 36, 16);
			for (size_t i = 0; i < count; i++)
				assert_memory_not_equal(seen[i], seen[count], 16);
		}
		scsi_target_free(b->target);
		b->target = mine;
	}
	bench_free(b);
}

static void test_block_limits(void **state)
{
	struct bench *b = disk_bench();

	(void)state;
	bench_run(b, CDB(0x12, 1, 0xB0, 0, 255, 0), SCSI_DATA_IN, 255);
	assert_good(b, 64);
	assert_int_equal(get32(b->buffer + 8), 2048);             /* a transfer: 1 MiB */
	assert_int_equal(get32(b->buffer + 20), 8 * 1024 * 1024); /* UNMAP: 4 GiB */
	assert_int_equal(get32(b->buffer + 24), SCSI_MAX_UNMAP_EXTENTS);
	assert_int_equal(get32(b->buffer + 28), 8);
	assert_int_equal(get32(b->buffer + 40), 128 * 1024); /* WRITE SAME: 64 MiB */
	bench_run(b, CDB(0x12, 1, 0xB2, 0, 255, 0), SCSI_DATA_IN, 255);
	assert_int_equal(b->buffer[5], 0xe4);
	assert_int_equal(b->buffer[6], 2);
	b->disk->disk.geometry.trim_granularity = 0;
	bench_run(b, CDB(0x12, 1, 0xB2, 0, 255, 0), SCSI_DATA_IN, 255);
	assert_int_equal(b->buffer[5] | b->buffer[6], 0);
	bench_run(b, CDB(0x12, 1, 0xB0, 0, 255, 0), SCSI_DATA_IN, 255);
	assert_int_equal(get32(b->buffer + 20), 0);
	bench_free(b);
}

/* --- provisioning --- */

static void put_descriptor(struct bench *b, unsigned i, uint64_t lba, uint32_t blocks)
{
	uint8_t *p = b->buffer + 8 + 16 * i;

	memset(p, 0, 16);
	for (int k = 0; k < 8; k++)
		p[k] = (uint8_t)(lba >> (56 - 8 * k));
	for (int k = 0; k < 4; k++)
		p[8 + k] = (uint8_t)(blocks >> (24 - 8 * k));
	b->buffer[0] = 0;
	b->buffer[1] = (uint8_t)(6 + 16 * (i + 1));
	b->buffer[2] = (uint8_t)((16 * (i + 1)) >> 8);
	b->buffer[3] = (uint8_t)(16 * (i + 1));
}

static void test_unmap(void **state)
{
	struct bench *b = disk_bench();

	(void)state;
	memset(b->disk->data, 0xee, SECTORS * 512);
	put_descriptor(b, 0, 8, 8);
	put_descriptor(b, 1, 100, 0);
	put_descriptor(b, 2, 4095, 1);
	bench_run(b, CDB(0x42, 0, 0, 0, 0, 0, 0, 0, 56, 0), SCSI_DATA_OUT, 56);
	assert_good(b, 56);
	assert_int_equal(b->disk->counts[DISK_TRIM], 2);
	assert_int_equal(b->disk->data[8 * 512 - 1], 0xee);
	assert_int_equal(b->disk->data[8 * 512], 0);
	assert_int_equal(b->disk->data[16 * 512], 0xee);
	assert_int_equal(b->disk->data[4095 * 512], 0);
	bench_run(b, CDB(0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0), SCSI_DATA_NONE, 0);
	assert_good(b, 0);
	bench_free(b);
}

static void test_unmap_refusals(void **state)
{
	struct bench *b = disk_bench();

	(void)state;
	put_descriptor(b, 0, 0, 8);
	put_descriptor(b, 1, 4090, 8);
	bench_run(b, CDB(0x42, 0, 0, 0, 0, 0, 0, 0, 40, 0), SCSI_DATA_OUT, 40);
	assert_sense(b, SENSE_LBA_OUT_OF_RANGE);
	bench_run(b, CDB(0x42, 1, 0, 0, 0, 0, 0, 0, 24, 0), SCSI_DATA_OUT, 24);
	assert_sense(b, SENSE_INVALID_FIELD);
	bench_run(b, CDB(0x42, 0, 0, 0, 0, 0, 0, 0, 7, 0), SCSI_DATA_OUT, 7);
	assert_sense(b, SENSE_PARAMETER_LIST_LENGTH);
	bench_run(b, CDB(0x42, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0), SCSI_DATA_OUT, 65535);
	assert_sense(b, SENSE_PARAMETER_LIST_LENGTH);
	bench_run(b, CDB(0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0), SCSI_DATA_OUT, 23);
	assert_int_equal(b->req.outcome, SCSI_OVERRUN);
	assert_int_equal(b->disk->counts[DISK_TRIM], 0);
	/* Claims more descriptors than the list has: those that are there count. */
	put_descriptor(b, 0, 0, 8);
	b->buffer[2] = b->buffer[3] = 0xff;
	bench_run(b, CDB(0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0), SCSI_DATA_OUT, 24);
	assert_good(b, 24);
	assert_int_equal(b->disk->counts[DISK_TRIM], 1);
	b->disk->disk.geometry.size = 8 * TIB; /* described only */
	put_descriptor(b, 0, 0, UINT32_MAX);
	bench_run(b, CDB(0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0), SCSI_DATA_OUT, 24);
	assert_sense(b, SENSE_INVALID_PARAMETER);
	b->disk->disk.geometry.trim_granularity = 0;
	bench_run(b, CDB(0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0), SCSI_DATA_OUT, 24);
	assert_sense(b, SENSE_INVALID_OPCODE);
	bench_free(b);
}

static void test_unmap_stops_at_an_error(void **state)
{
	struct bench *b = disk_bench();

	(void)state;
	for (unsigned i = 0; i < 5; i++)
		put_descriptor(b, i, i * 16, 8);
	b->disk->fail = -EIO;
	b->disk->pass = 2;
	bench_run(b, CDB(0x42, 0, 0, 0, 0, 0, 0, 0, 88, 0), SCSI_DATA_OUT, 88);
	assert_sense(b, SENSE_WRITE_ERROR);
	assert_int_equal(b->disk->counts[DISK_TRIM], 3);
	bench_free(b);
}

static void test_write_same_zeroes(void **state)
{
	struct bench *b = disk_bench();

	(void)state;
	memset(b->disk->data, 0xee, SECTORS * 512);
	memset(b->buffer, 0, 512);
	bench_run(b, CDB(0x41, 0, 0, 0, 0, 4, 0, 1, 0, 0), SCSI_DATA_OUT, 512);
	assert_good(b, 512);
	assert_int_equal(b->disk->counts[DISK_WRITE_ZEROES], 1);
	assert_int_equal(b->disk->data[4 * 512 - 1], 0xee);
	assert_int_equal(b->disk->data[4 * 512], 0);
	assert_int_equal(b->disk->data[260 * 512 - 1], 0);
	assert_int_equal(b->disk->data[260 * 512], 0xee);
	bench_run(b, CDB(0x93, 0x08, 0, 0, 0, 0, 0, 0, 1, 4, 0, 0, 0, 1, 0, 0), SCSI_DATA_OUT, 512);
	assert_good(b, 512);
	assert_int_equal(b->disk->data[260 * 512], 0);
	bench_run(b, CDB(0x93, 0x01, 0, 0, 0, 0, 0, 0, 1, 5, 0, 0, 0, 1, 0, 0), SCSI_DATA_NONE, 0);
	assert_good(b, 0);
	assert_int_equal(b->disk->counts[DISK_WRITE_ZEROES], 3);
	bench_free(b);
}

static void test_write_same_pattern(void **state)
{
	struct bench *b = disk_bench();

	(void)state;
	for (int i = 0; i < 512; i++)
		b->buffer[i] = (uint8_t)i;
	bench_run(b, CDB(0x93, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 1, 0x2d, 0, 0), SCSI_DATA_OUT, 512);
	assert_good(b, 512);
	for (unsigned i = 0; i < 301; i++)
		assert_memory_equal(b->disk->data + (9 + i) * 512, b->buffer, 512);
	assert_int_equal(b->disk->data[(9 + 301) * 512 + 1], 0);
	assert_int_equal(b->disk->data[9 * 512 - 1], 0);
	assert_true(b->disk->counts[DISK_WRITE] > 2); /* in steps */
	bench_free(b);
}

static void test_write_same_refusals(void **state)
{
	struct bench *b = disk_bench();

	(void)state;
	bench_run(b, CDB(0x41, 0, 0, 0, 0, 0, 0, 0, 0, 0), SCSI_DATA_OUT, 512);
	assert_sense(b, SENSE_INVALID_FIELD); /* "to the end" */
	bench_run(b, CDB(0x41, 0x10, 0, 0, 0, 0, 0, 0, 1, 0), SCSI_DATA_OUT, 512);
	assert_sense(b, SENSE_INVALID_FIELD);
	bench_run(b, CDB(0x41, 0x01, 0, 0, 0, 0, 0, 0, 1, 0), SCSI_DATA_OUT, 512);
	assert_sense(b, SENSE_INVALID_FIELD);
	bench_run(b, CDB(0x41, 0, 0, 0, 0, 0, 0, 0, 1, 0), SCSI_DATA_OUT, 511);
	assert_int_equal(b->req.outcome, SCSI_OVERRUN);
	b->disk->disk.geometry.trim_granularity = 0;
	bench_run(b, CDB(0x41, 0x08, 0, 0, 0, 0, 0, 0, 1, 0), SCSI_DATA_OUT, 512);
	assert_sense(b, SENSE_INVALID_FIELD);
	assert_int_equal(b->disk->counts[DISK_WRITE_ZEROES] + b->disk->counts[DISK_WRITE], 0);
	bench_free(b);
}

static void test_cancel_between_steps(void **state)
{
	struct bench *b = disk_bench();

	(void)state;
	memset(b->buffer, 1, 512);
	b->disk->hold = true;
	bench_start(b, CDB(0x93, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0), SCSI_DATA_OUT, 512);
	scsi_cancel(&b->req);
	assert_false(b->finished);
	fake_disk_release(b->disk);
	bench_wait(b);
	assert_int_equal(b->req.outcome, SCSI_ABORTED);
	assert_int_equal(b->disk->counts[DISK_WRITE], 1);
	bench_free(b);
}

/* --- mode pages --- */

static void test_mode_sense(void **state)
{
	struct bench *b = disk_bench();

	(void)state;
	bench_run(b, CDB(0x1A, 0x08, 0x08, 0, 255, 0), SCSI_DATA_IN, 255);
	assert_good(b, 24);
	assert_int_equal(b->buffer[0], 23);
	assert_int_equal(b->buffer[2], 0x10);
	assert_int_equal(b->buffer[3], 0);
	assert_memory_equal(b->buffer + 4, "\x08\x12\x04", 3);
	bench_run(b, CDB(0x5A, 0, 0x3f, 0, 0, 0, 0, 0, 255, 0), SCSI_DATA_IN, 255);
	assert_good(b, 8 + 8 + 20 + 12);
	assert_int_equal(b->buffer[1], 46);
	assert_int_equal(b->buffer[7], 8);
	assert_int_equal(get32(b->buffer + 8), SECTORS);
	assert_int_equal(get32(b->buffer + 12), 512);
	bench_run(b, CDB(0x1A, 0x08, 0x48, 0, 4, 0), SCSI_DATA_IN, 4);
	assert_good(b, 4); /* a driver looks at the length first */
	assert_int_equal(b->buffer[0], 23);
	bench_run(b, CDB(0x1A, 0, 0xC8, 0, 255, 0), SCSI_DATA_IN, 255);
	assert_sense(b, SENSE_SAVING_UNSUPPORTED);
	bench_run(b, CDB(0x1A, 0, 0x1c, 0, 255, 0), SCSI_DATA_IN, 255);
	assert_sense(b, SENSE_INVALID_FIELD);
	bench_run(b, CDB(0x1A, 0, 0x08, 1, 255, 0), SCSI_DATA_IN, 255);
	assert_sense(b, SENSE_INVALID_FIELD);
	bench_free(b);
}

static void test_mode_select_write_cache(void **state)
{
	struct bench *b = disk_bench();
	uint8_t list[24] = { [4] = 0x08, [5] = 0x12 };

	(void)state;
	memcpy(b->buffer, list, sizeof(list));
	bench_run(b, CDB(0x15, 0x10, 0, 0, 24, 0), SCSI_DATA_OUT, 24);
	assert_good(b, 24);
	bench_run(b, CDB(0x2A, 0, 0, 0, 0, 0, 0, 0, 1, 0), SCSI_DATA_OUT, 512);
	assert_int_equal(b->disk->fua, 1);
	bench_run(b, CDB(0x1A, 0x08, 0x08, 0, 255, 0), SCSI_DATA_IN, 255);
	assert_int_equal(b->buffer[6], 0);
	bench_run(b, CDB(0x1A, 0x08, 0x88, 0, 255, 0), SCSI_DATA_IN, 255);
	assert_int_equal(b->buffer[6], 4); /* the default stays */
	scsi_target_reset(b->target);
	bench_run(b, CDB(0x1A, 0x08, 0x08, 0, 255, 0), SCSI_DATA_IN, 255);
	assert_int_equal(b->buffer[6], 4);
	bench_free(b);
}

static void test_mode_select_refusals(void **state)
{
	static const uint8_t lists[][24] = {
		{ [4] = 0x08, [5] = 0x12, [6] = 0x04, [7] = 1 }, /* alters what cannot be */
		{ [4] = 0x08, [5] = 0x11 },                      /* wrong length */
		{ [4] = 0x1c, [5] = 0x12 },                      /* no such page */
		{ [4] = 0x48, [5] = 0x12 },                      /* a subpage */
		{ [3] = 0xff },                                  /* descriptors beyond the list */
	};
	struct bench *b = disk_bench();

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(lists); i++) {
		memcpy(b->buffer, lists[i], 24);
		bench_run(b, CDB(0x15, 0x10, 0, 0, 24, 0), SCSI_DATA_OUT, 24);
		assert_sense(b, SENSE_INVALID_PARAMETER);
	}
	bench_run(b, CDB(0x15, 0x11, 0, 0, 24, 0), SCSI_DATA_OUT, 24);
	assert_sense(b, SENSE_INVALID_FIELD); /* to be saved */
	bench_run(b, CDB(0x15, 0x00, 0, 0, 24, 0), SCSI_DATA_OUT, 24);
	assert_sense(b, SENSE_INVALID_FIELD);
	bench_run(b, CDB(0x15, 0x10, 0, 0, 3, 0), SCSI_DATA_OUT, 24);
	assert_sense(b, SENSE_PARAMETER_LIST_LENGTH);
	bench_run(b, CDB(0x55, 0x10, 0, 0, 0, 0, 0, 0xff, 0xff, 0), SCSI_DATA_OUT, 65535);
	assert_sense(b, SENSE_PARAMETER_LIST_LENGTH);
	bench_run(b, CDB(0x15, 0x10, 0, 0, 0, 0), SCSI_DATA_NONE, 0);
	assert_good(b, 0);
	bench_free(b);
}

/* --- the target --- */

static void test_unknown_commands(void **state)
{
	struct bench *b = disk_bench();

	(void)state;
	for (unsigned op = 0; op < 256; op++) {
		uint8_t cdb[16] = { (uint8_t)op };

		bench_run(b, cdb, 16, SCSI_DATA_NONE, 0);
		if (op == 0x5E || op == 0x5F || op == 0x04 || op == 0xff || op == 0x1E)
			assert_sense(b, SENSE_INVALID_OPCODE);
	}
	bench_run(b, CDB(0x28, 0, 0, 0, 0, 0), SCSI_DATA_IN, 512);
	assert_sense(b, SENSE_INVALID_FIELD); /* a CDB cut short */
	bench_start(b, CDB(0), SCSI_DATA_NONE, 0);
	assert_sense(b, SENSE_INVALID_FIELD);
	b->req.cdb_size = 0;
	b->finished = false;
	scsi_execute(b->target, &b->req);
	assert_sense(b, SENSE_INVALID_OPCODE);
	b->req.cdb_size = 17;
	b->finished = false;
	scsi_execute(b->target, &b->req);
	assert_sense(b, SENSE_INVALID_OPCODE);
	bench_free(b);
}

static void test_small_commands(void **state)
{
	struct bench *b = disk_bench();

	(void)state;
	bench_run(b, CDB(0x00, 0, 0, 0, 0, 0), SCSI_DATA_NONE, 0);
	assert_good(b, 0);
	bench_run(b, CDB(0x1B, 0, 0, 0, 1, 0), SCSI_DATA_NONE, 0);
	assert_good(b, 0);
	bench_run(b, CDB(0x1B, 0, 0, 0, 2, 0), SCSI_DATA_NONE, 0);
	assert_sense(b, SENSE_INVALID_FIELD);
	bench_run(b, CDB(0x2F, 0, 0, 0, 0, 0, 0, 0, 1, 0), SCSI_DATA_NONE, 0);
	assert_good(b, 0);
	bench_run(b, CDB(0x2F, 2, 0, 0, 0, 0, 0, 0, 1, 0), SCSI_DATA_OUT, 512);
	assert_sense(b, SENSE_INVALID_FIELD);
	bench_run(b, CDB(0x03, 0, 0, 0, 18, 0), SCSI_DATA_IN, 18);
	assert_good(b, 18);
	assert_int_equal(b->buffer[2], 0);
	bench_run(b, CDB(0x03, 1, 0, 0, 18, 0), SCSI_DATA_IN, 18);
	assert_good(b, 8);
	assert_int_equal(b->buffer[0], 0x72);
	bench_free(b);
}

static void test_absent_units(void **state)
{
	struct bench *b = disk_bench();
	struct error err = { 0 };

	(void)state;
	assert_int_equal(scsi_target_attach(b->target, 63, SCSI_DISK, &b->disk->disk, &err), 0);
	assert_int_equal(scsi_target_detach(b->target, 0, NULL, NULL), 0);
	assert_int_equal(scsi_target_detach(b->target, 0, NULL, NULL), -ENOENT);
	assert_int_equal(scsi_target_detach(b->target, 64, NULL, NULL), -ENOENT);
	bench_run(b, CDB(0xA0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0), SCSI_DATA_IN, 256);
	assert_good(b, 16);
	assert_int_equal(get32(b->buffer), 8);
	assert_int_equal(b->buffer[9], 63);
	bench_run(b, CDB(0x12, 0, 0, 0, 36, 0), SCSI_DATA_IN, 36);
	assert_good(b, 36);
	assert_int_equal(b->buffer[0], 0x7f);
	bench_run(b, CDB(0x12, 1, 0x83, 0, 36, 0), SCSI_DATA_IN, 36);
	assert_sense(b, SENSE_INVALID_FIELD);
	bench_run(b, CDB(0x00, 0, 0, 0, 0, 0), SCSI_DATA_NONE, 0);
	assert_int_equal(b->req.outcome, SCSI_NO_UNIT);
	b->req.lun = 255;
	bench_run(b, CDB(0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0), SCSI_DATA_IN, 512);
	assert_int_equal(b->req.outcome, SCSI_NO_UNIT);
	bench_free(b);
}

static void on_gone(void *arg)
{
	*(bool *)arg = true;
}

static void test_detach_waits_for_what_runs(void **state)
{
	struct bench *b = disk_bench();
	bool gone = false;

	(void)state;
	b->disk->hold = true;
	bench_start(b, CDB(0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0), SCSI_DATA_IN, 512);
	assert_int_equal(scsi_target_detach(b->target, 0, on_gone, &gone), 0);
	loop_once(b->loop, 0);
	assert_false(gone);
	fake_disk_release(b->disk);
	bench_wait(b);
	assert_good(b, 512);
	assert_true(gone);
	bench_free(b);
}

static void test_attach_refusals(void **state)
{
	struct bench *b = disk_bench();
	struct fake_disk *odd = fake_disk_new(b->loop, 65536, 512);
	struct error err = { 0 };

	(void)state;
	assert_int_equal(scsi_target_attach(b->target, 0, SCSI_DISK, &odd->disk, &err), -EBUSY);
	assert_int_equal(scsi_target_attach(b->target, 64, SCSI_DISK, &odd->disk, &err), -EINVAL);
	assert_int_equal(scsi_target_attach(b->target, 1, SCSI_DISK, NULL, &err), -EINVAL);
	odd->disk.geometry.logical_sector = 2048;
	assert_int_equal(scsi_target_attach(b->target, 1, SCSI_DISK, &odd->disk, &err), -EINVAL);
	odd->disk.geometry.logical_sector = 4096;
	assert_int_equal(scsi_target_attach(b->target, 1, SCSI_DVD, &odd->disk, &err), -EINVAL);
	odd->disk.geometry = (struct disk_geometry){ .size = 0, .logical_sector = 512 };
	assert_int_equal(scsi_target_attach(b->target, 1, SCSI_DISK, &odd->disk, &err), -EINVAL);
	fake_disk_free(odd);
	bench_free(b);
}

static void test_iov_helpers(void **state)
{
	char a[4], c[4], out[8];
	struct iovec iov[3] = { { a, 4 }, { c, 0 }, { c, 4 } };

	(void)state;
	assert_int_equal(iov_write(iov, 3, "abcdefghij", 10), 8);
	assert_int_equal(iov_read(iov, 3, out, 6), 6);
	assert_memory_equal(out, "abcdef", 6);
	assert_int_equal(iov_trim(iov, 3, 8), 3);
	assert_int_equal(iov_trim(iov, 3, 5), 3);
	assert_int_equal(iov[2].iov_len, 1);
	assert_int_equal(iov_trim(iov, 3, 4), 1);
	assert_int_equal(iov_trim(iov, 1, 0), 0);
}

/* Told once, whatever else happens; what is read then is the new size, and the old end is none. */
static void test_capacity_changes(void **state)
{
	struct bench *b = bench_new(SCSI_DISK, 64 * KIB, 512);

	(void)state;
	assert_int_equal(scsi_target_capacity_changed(b->target, 1), -ENOENT);
	b->disk->disk.geometry.size = 128 * KIB;
	assert_int_equal(scsi_target_capacity_changed(b->target, 0), 0);
	bench_run(b, CDB(SCSI_INQUIRY, 0, 0, 0, 36, 0), SCSI_DATA_IN, 36);
	assert_good(b, 36); /* keeps it */
	bench_run(b, CDB(SCSI_TEST_UNIT_READY, 0, 0, 0, 0, 0), SCSI_DATA_NONE, 0);
	assert_sense(b, SENSE_CAPACITY_CHANGED);
	assert_true(b->req.capacity_changed);
	bench_run(b, CDB(SCSI_READ_CAPACITY_10, 0, 0, 0, 0, 0, 0, 0, 0, 0), SCSI_DATA_IN, 8);
	assert_good(b, 8);
	assert_false(b->req.capacity_changed);
	assert_int_equal(get32(b->buffer), 255);
	/* smaller, and a command that was on its way to the old end */
	b->disk->disk.geometry.size = 64 * KIB;
	assert_int_equal(scsi_target_capacity_changed(b->target, 0), 0);
	bench_run(b, CDB(SCSI_READ_10, 0, 0, 0, 0, 200, 0, 0, 1, 0), SCSI_DATA_IN, 512);
	assert_sense(b, SENSE_CAPACITY_CHANGED);
	bench_run(b, CDB(SCSI_READ_10, 0, 0, 0, 0, 200, 0, 0, 1, 0), SCSI_DATA_IN, 512);
	assert_sense(b, SENSE_LBA_OUT_OF_RANGE);
	b->disk->fail = -ENXIO;
	bench_run(b, CDB(SCSI_READ_10, 0, 0, 0, 0, 1, 0, 0, 1, 0), SCSI_DATA_IN, 512);
	assert_sense(b, SENSE_LBA_OUT_OF_RANGE);
	bench_free(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_write_and_read_every_size_of_cdb),
		cmocka_unit_test(test_six_byte_zero_means_256),
		cmocka_unit_test(test_no_blocks_is_no_error),
		cmocka_unit_test(test_out_of_range),
		cmocka_unit_test(test_buffer_too_small),
		cmocka_unit_test(test_wrong_direction),
		cmocka_unit_test(test_durability),
		cmocka_unit_test(test_errors_of_the_disk),
		cmocka_unit_test(test_read_only),
		cmocka_unit_test(test_capacity),
		cmocka_unit_test(test_4k_sectors),
		cmocka_unit_test(test_inquiry),
		cmocka_unit_test(test_every_listed_vpd_page_exists),
		cmocka_unit_test(test_identity),
		cmocka_unit_test(test_identities_differ),
		cmocka_unit_test(test_block_limits),
		cmocka_unit_test(test_unmap),
		cmocka_unit_test(test_unmap_refusals),
		cmocka_unit_test(test_unmap_stops_at_an_error),
		cmocka_unit_test(test_write_same_zeroes),
		cmocka_unit_test(test_write_same_pattern),
		cmocka_unit_test(test_write_same_refusals),
		cmocka_unit_test(test_cancel_between_steps),
		cmocka_unit_test(test_mode_sense),
		cmocka_unit_test(test_mode_select_write_cache),
		cmocka_unit_test(test_mode_select_refusals),
		cmocka_unit_test(test_unknown_commands),
		cmocka_unit_test(test_small_commands),
		cmocka_unit_test(test_absent_units),
		cmocka_unit_test(test_detach_waits_for_what_runs),
		cmocka_unit_test(test_attach_refusals),
		cmocka_unit_test(test_iov_helpers),
		cmocka_unit_test(test_capacity_changes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
