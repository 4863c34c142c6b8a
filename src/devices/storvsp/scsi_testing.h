/* SPDX-License-Identifier: MIT */
/* What the tests of the SCSI units share: one target on one loop, and a way to run a command. */
#pragma once

#include "devices/storvsp/fake_disk.h"
#include "devices/storvsp/scsi.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define BUFFER_SIZE (256 * 1024)

struct bench {
	struct loop *loop;
	struct scsi_target *target;
	struct fake_disk *disk;
	struct scsi_request req;
	struct iovec iov[64];
	bool finished;
	uint8_t buffer[BUFFER_SIZE];
};

static inline struct bench *bench_of(struct scsi_request *req)
{
	return container_of(req, struct bench, req);
}

static inline void bench_done(struct scsi_request *req)
{
	assert_false(bench_of(req)->finished);
	bench_of(req)->finished = true;
}

static inline struct bench *bench_new(enum scsi_kind kind, uint64_t size, uint32_t sector)
{
	struct scsi_target_options options = { .identity = { { 1, 2, 3 } },
					       .max_transfer = 1024 * 1024 };
	struct bench *b = calloc(1, sizeof(*b));
	struct error err = { 0 };

	assert_non_null(b);
	assert_int_equal(loop_new(0, &b->loop, &err), 0);
	assert_int_equal(scsi_target_new(&options, &b->target, &err), 0);
	b->disk = fake_disk_new(b->loop, size, sector);
	assert_int_equal(scsi_target_attach(b->target, 0, kind, &b->disk->disk, &err), 0);
	return b;
}

static inline void bench_free(struct bench *b)
{
	scsi_target_free(b->target);
	fake_disk_free(b->disk);
	loop_free(b->loop);
	free(b);
}

/* Hands the command to the target; the buffer is cut into pieces of odd sizes. */
static inline void bench_start(struct bench *b, const uint8_t *cdb, size_t size,
			       enum scsi_direction direction, uint32_t bytes)
{
	uint32_t at = 0;

	assert_true(bytes <= BUFFER_SIZE);
	memset(b->req.cdb, 0, sizeof(b->req.cdb));
	memcpy(b->req.cdb, cdb, size);
	b->req.cdb_size = (uint8_t)size;
	b->req.direction = direction;
	b->req.iov = b->iov;
	b->req.iovmax = ARRAY_SIZE(b->iov);
	b->req.iovcnt = 0;
	b->req.bytes = bytes;
	b->req.done = bench_done;
	b->finished = false;
	while (at < bytes) {
		uint32_t n =
			b->req.iovcnt < 40 ? MIN(bytes - at, 100 + 8000 * (at % 3)) : bytes - at;

		b->iov[b->req.iovcnt++] = (struct iovec){ b->buffer + at, n };
		at += n;
	}
	scsi_execute(b->target, &b->req);
}

static inline void bench_wait(struct bench *b)
{
	for (int i = 0; i < 1000 && !b->finished; i++)
		assert_int_equal(loop_once(b->loop, 0), 0);
	assert_true(b->finished);
}

static inline void bench_run(struct bench *b, const uint8_t *cdb, size_t size,
			     enum scsi_direction direction, uint32_t bytes)
{
	bench_start(b, cdb, size, direction, bytes);
	bench_wait(b);
}

#define CDB(...) ((const uint8_t[]){ __VA_ARGS__ }), sizeof((const uint8_t[]){ __VA_ARGS__ })

static inline void assert_good(struct bench *b, uint32_t transferred)
{
	assert_int_equal(b->req.outcome, SCSI_FINISHED);
	assert_int_equal(b->req.status, SCSI_GOOD);
	assert_int_equal(b->req.transferred, transferred);
}

static inline void assert_sense(struct bench *b, struct scsi_sense s)
{
	assert_int_equal(b->req.outcome, SCSI_FINISHED);
	assert_int_equal(b->req.status, SCSI_CHECK_CONDITION);
	assert_int_equal(b->req.transferred, 0);
	assert_int_equal(b->req.sense[0], 0x70);
	assert_int_equal(b->req.sense[2], s.key);
	assert_int_equal(b->req.sense[12], s.asc);
	assert_int_equal(b->req.sense[13], s.ascq);
}

static inline uint32_t get32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}
