// SPDX-License-Identifier: MIT
/* The NBD state machine on a raw disk in memory, byte by byte where that matters. */
#include "vhdtool/nbd.h"

#include "lib/cursor.h"
#include "vhd/raw.h"
#include "vhd/store_memory.h"
#include "vhdtool/nbd_proto.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define DISK_SIZE (4 * MIB)

struct bench {
	struct loop *loop;
	struct store *store;
	struct disk *disk;
	struct nbd_export export;
	struct nbd *nbd;
	size_t step; /* bytes in one go */
	unsigned closed, kicks;
	uint8_t out[MIB];
	size_t out_size;
	struct reader answer;
};

static void on_kick(void *context)
{
	((struct bench *)context)->kicks++;
}

static void on_closed(void *context)
{
	((struct bench *)context)->closed++;
}

static struct bench *bench_new(bool writable)
{
	static const struct store_memory_options o = { .size_max = DISK_SIZE,
						       .bytes_max = DISK_SIZE };
	static const struct nbd_hooks hooks = { .kick = on_kick, .closed = on_closed };
	struct bench *b = calloc(1, sizeof(*b));

	assert_non_null(b);
	assert_int_equal(loop_new(0, &b->loop, NULL), 0);
	b->store = store_memory_new(b->loop, &o);
	assert_non_null(b->store);
	assert_int_equal(store_resize(b->store, DISK_SIZE), 0);
	assert_int_equal(raw_open(b->store, &b->disk, NULL), 0);
	b->export = (struct nbd_export){ .disk = b->disk, .name = "x", .writable = writable };
	b->nbd = nbd_new(&b->export, &hooks, b);
	assert_non_null(b->nbd);
	b->step = SIZE_MAX;
	return b;
}

static void bench_free(struct bench *b)
{
	if (b->nbd)
		nbd_close(b->nbd);
	for (unsigned i = 0; i < 100 && !b->closed; i++)
		loop_once(b->loop, 0);
	assert_int_equal(b->closed, 1);
	assert_int_equal(disk_close(b->disk, NULL), 0);
	store_memory_free(b->store);
	loop_free(b->loop);
	free(b);
}

static void collect(struct bench *b)
{
	struct iovec iov[3];
	unsigned count;

	while ((count = nbd_output(b->nbd, iov, 3)) > 0) {
		/* less than all of it, so that the rest is asked for again */
		size_t n = MIN(iov[0].iov_len, 1000u);

		assert_true(b->out_size + n <= sizeof(b->out));
		memcpy(b->out + b->out_size, iov[0].iov_base, n);
		b->out_size += n;
		nbd_sent(b->nbd, n);
	}
}

static void settle(struct bench *b)
{
	for (unsigned i = 0; i < 20; i++) {
		loop_once(b->loop, 0);
		collect(b);
	}
	b->answer = reader_of(b->out, b->out_size);
}

/* 0, or what nbd_got said. */
static int send(struct bench *b, const void *bytes, size_t size)
{
	const uint8_t *p = bytes;
	int r = nbd_got(b->nbd, 0);

	while (size && r >= 0) {
		void *buf;
		size_t n = MIN(MIN(nbd_want(b->nbd, &buf), size), b->step);

		if (!n) {
			settle(b);
			r = nbd_got(b->nbd, 0);
			if (r >= 0 && !nbd_want(b->nbd, &buf))
				return -EAGAIN;
			continue;
		}
		memcpy(buf, p, n);
		p += n;
		size -= n;
		r = nbd_got(b->nbd, n);
	}
	settle(b);
	return r;
}

static int option(struct bench *b, uint32_t number, const void *data, size_t size)
{
	uint8_t bytes[512];
	struct writer w = writer_of(bytes, sizeof(bytes));

	writer_be64(&w, NBD_OPTION_MAGIC);
	writer_be32(&w, number);
	writer_be32(&w, (uint32_t)size);
	writer_put(&w, data, size);
	assert_true(writer_ok(&w));
	b->out_size = 0;
	return send(b, bytes, w.at);
}

static uint32_t reply_type(struct bench *b)
{
	uint32_t type, length;

	assert_true(reader_be64(&b->answer) == NBD_REP_MAGIC);
	reader_skip(&b->answer, 4);
	type = reader_be32(&b->answer);
	length = reader_be32(&b->answer);
	reader_skip(&b->answer, length);
	assert_true(reader_ok(&b->answer));
	return type;
}

static void hello(struct bench *b)
{
	const be32 flags = be32_of(NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES);

	settle(b);
	assert_int_equal(b->out_size, 18);
	assert_int_equal(send(b, &flags, sizeof(flags)), 0);
}

/* Structured replies and base:allocation, then GO. */
static void negotiate(struct bench *b)
{
	static const uint8_t context[] = "\0\0\0\1x\0\0\0\1\0\0\0\017base:allocation";
	static const uint8_t go[] = "\0\0\0\1x\0\0";

	hello(b);
	assert_int_equal(option(b, NBD_OPT_STRUCTURED_REPLY, NULL, 0), 0);
	assert_int_equal(reply_type(b), NBD_REP_ACK);
	assert_int_equal(option(b, NBD_OPT_SET_META_CONTEXT, context, sizeof(context) - 1), 0);
	assert_int_equal(reply_type(b), NBD_REP_META_CONTEXT);
	assert_int_equal(reply_type(b), NBD_REP_ACK);
	assert_int_equal(option(b, NBD_OPT_GO, go, sizeof(go) - 1), 0);
	assert_int_equal(reply_type(b), NBD_REP_INFO);
	assert_int_equal(reply_type(b), NBD_REP_INFO);
	assert_int_equal(reply_type(b), NBD_REP_ACK);
	b->out_size = 0;
}

static int request(struct bench *b, unsigned type, unsigned flags, uint64_t offset, uint32_t length)
{
	const struct nbd_request r = {
		.magic = be32_of(NBD_REQUEST_MAGIC),
		.flags = be16_of((uint16_t)flags),
		.type = be16_of((uint16_t)type),
		.cookie = be64_of(42),
		.offset = be64_of(offset),
		.length = be32_of(length),
	};

	return send(b, &r, sizeof(r));
}

static uint32_t simple_error(struct bench *b)
{
	uint32_t error;

	assert_true(reader_be32(&b->answer) == NBD_SIMPLE_MAGIC);
	error = reader_be32(&b->answer);
	assert_true(reader_be64(&b->answer) == 42);
	assert_true(reader_ok(&b->answer));
	b->out_size = 0;
	return error;
}

static uint32_t chunk(struct bench *b, bool *ret_done, uint32_t *ret_length)
{
	uint32_t type;

	assert_true(reader_be32(&b->answer) == NBD_STRUCTURED_MAGIC);
	*ret_done = reader_be16(&b->answer) & NBD_REPLY_FLAG_DONE;
	type = reader_be16(&b->answer);
	assert_true(reader_be64(&b->answer) == 42);
	*ret_length = reader_be32(&b->answer);
	assert_true(reader_ok(&b->answer));
	return type;
}

static void write_bytes(struct bench *b, uint64_t offset, const void *bytes, uint32_t length)
{
	assert_int_equal(request(b, NBD_CMD_WRITE, 0, offset, length), 0);
	assert_int_equal(send(b, bytes, length), 0);
	assert_int_equal(simple_error(b), 0);
}

static void test_bytes_of_any_alignment(void **state)
{
	struct bench *b = bench_new(true);
	uint8_t data[3000], back[1 + sizeof(data)];
	uint32_t length;
	bool done;

	(void)state;
	b->step = 7;
	negotiate(b);
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * 7 + 1);
	write_bytes(b, 1001, data, sizeof(data));
	assert_int_equal(request(b, NBD_CMD_READ, 0, 1000, sizeof(back)), 0);
	assert_int_equal(chunk(b, &done, &length), NBD_REPLY_TYPE_OFFSET_DATA);
	assert_true(done);
	assert_true(reader_be64(&b->answer) == 1000);
	reader_copy(&b->answer, back, sizeof(back));
	assert_true(reader_ok(&b->answer));
	assert_int_equal(back[0], 0);
	assert_memory_equal(back + 1, data, sizeof(data));
	bench_free(b);
}

static void test_holes_travel_as_holes(void **state)
{
	struct bench *b = bench_new(true);
	uint8_t data[4096] = { 1 };
	uint32_t length, sum = 0;
	unsigned holes = 0;
	bool done = false;

	(void)state;
	negotiate(b);
	write_bytes(b, 64 * KIB, data, sizeof(data));
	assert_int_equal(request(b, NBD_CMD_READ, 0, 0, 256 * KIB), 0);
	while (!done) {
		uint32_t type = chunk(b, &done, &length);

		reader_skip(&b->answer, 8);
		if (type == NBD_REPLY_TYPE_OFFSET_HOLE) {
			holes++;
			sum += reader_be32(&b->answer);
		} else {
			sum += length - 8;
			reader_skip(&b->answer, length - 8);
		}
	}
	assert_true(reader_ok(&b->answer));
	assert_int_equal(sum, 256 * KIB);
	assert_int_equal(holes, 2);
	bench_free(b);
}

static void test_block_status(void **state)
{
	struct bench *b = bench_new(true);
	uint8_t data[4096] = { 1 };
	uint32_t length;
	bool done;

	(void)state;
	negotiate(b);
	write_bytes(b, 0, data, sizeof(data));
	assert_int_equal(request(b, NBD_CMD_BLOCK_STATUS, 0, 0, DISK_SIZE), 0);
	assert_int_equal(chunk(b, &done, &length), NBD_REPLY_TYPE_BLOCK_STATUS);
	assert_true(done);
	assert_int_equal(length, 4 + 2 * 8);
	reader_skip(&b->answer, 4 + 4);
	assert_int_equal(reader_be32(&b->answer), 0);
	reader_skip(&b->answer, 4);
	assert_int_equal(reader_be32(&b->answer), NBD_STATE_HOLE | NBD_STATE_ZERO);
	bench_free(b);
}

static void test_what_is_refused(void **state)
{
	static const struct {
		unsigned type, flags;
		uint64_t offset;
		uint32_t length, error;
	} cases[] = {
		{ NBD_CMD_TRIM, 0, DISK_SIZE, 512, NBD_ENOSPC },
		{ NBD_CMD_TRIM, 0, UINT64_MAX, 512, NBD_ENOSPC },
		{ NBD_CMD_WRITE_ZEROES, 0, DISK_SIZE - 511, 512, NBD_ENOSPC },
		{ NBD_CMD_CACHE, 0, DISK_SIZE, 1, NBD_EINVAL },
		{ NBD_CMD_FLUSH, 0x8000, 0, 0, NBD_EINVAL },
		{ 99, 0, 0, 0, NBD_EINVAL },
	};
	struct bench *b = bench_new(true);
	uint8_t data[1024] = { 0 };
	uint32_t length;
	bool done;

	(void)state;
	negotiate(b);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(
			request(b, cases[i].type, cases[i].flags, cases[i].offset, cases[i].length),
			0);
		assert_int_equal(simple_error(b), cases[i].error);
	}
	/* the payload of a refused write is no request */
	assert_int_equal(request(b, NBD_CMD_WRITE, 0, DISK_SIZE - 512, 1024), 0);
	assert_int_equal(send(b, data, sizeof(data)), 0);
	assert_int_equal(simple_error(b), NBD_ENOSPC);
	assert_int_equal(request(b, NBD_CMD_READ, 0, 0, 0), 0);
	assert_int_equal(chunk(b, &done, &length), NBD_REPLY_TYPE_ERROR);
	b->out_size = 0;
	/* too much to swallow, and no request at all: the connection ends */
	assert_true(request(b, NBD_CMD_WRITE, 0, 0, NBD_PAYLOAD_MAX + 1) < 0);
	bench_free(b);
	b = bench_new(true);
	negotiate(b);
	assert_true(send(b, data, sizeof(data)) < 0);
	bench_free(b);
}

static void test_read_only_is_read_only(void **state)
{
	struct bench *b = bench_new(false);
	uint8_t data[512] = { 1 };

	(void)state;
	negotiate(b);
	assert_int_equal(request(b, NBD_CMD_WRITE, 0, 0, 512), 0);
	assert_int_equal(send(b, data, sizeof(data)), 0);
	assert_int_equal(simple_error(b), NBD_EPERM);
	assert_int_equal(request(b, NBD_CMD_TRIM, 0, 0, 512), 0);
	assert_int_equal(simple_error(b), NBD_EPERM);
	bench_free(b);
}

static void test_options_that_do_not_fit(void **state)
{
	struct bench *b = bench_new(true);
	static const uint8_t other[] = "\0\0\0\1y\0\0", cut[] = "\0\0\1\0x\0\0";

	(void)state;
	hello(b);
	assert_int_equal(option(b, 77, "abc", 3), 0);
	assert_int_equal(reply_type(b), NBD_REP_ERR_UNSUP);
	assert_int_equal(option(b, NBD_OPT_GO, other, sizeof(other) - 1), 0);
	assert_int_equal(reply_type(b), NBD_REP_ERR_UNKNOWN);
	assert_int_equal(option(b, NBD_OPT_INFO, cut, sizeof(cut) - 1), 0);
	assert_int_equal(reply_type(b), NBD_REP_ERR_INVALID);
	assert_int_equal(option(b, NBD_OPT_LIST, NULL, 0), 0);
	assert_int_equal(reply_type(b), NBD_REP_SERVER);
	assert_int_equal(reply_type(b), NBD_REP_ACK);
	assert_int_equal(option(b, NBD_OPT_ABORT, NULL, 0), 0);
	assert_int_equal(reply_type(b), NBD_REP_ACK);
	assert_true(nbd_finished(b->nbd));
	bench_free(b);
}

/* A client that asks for everything and takes nothing. */
static void test_a_client_that_does_not_read_is_not_read(void **state)
{
	struct bench *b = bench_new(true);
	unsigned asked = 0;
	void *buf;

	(void)state;
	negotiate(b);
	for (; asked < 1000; asked++) {
		const struct nbd_request r = {
			.magic = be32_of(NBD_REQUEST_MAGIC),
			.flags = be16_of(NBD_CMD_FLAG_DF),
			.length = be32_of(DISK_SIZE),
		};
		if (nbd_want(b->nbd, &buf) < sizeof(r))
			break;
		memcpy(buf, &r, sizeof(r));
		assert_int_equal(nbd_got(b->nbd, sizeof(r)), 0);
		loop_once(b->loop, 0);
	}
	assert_in_range(asked, 1, NBD_HELD_MAX / DISK_SIZE + 1);
	bench_free(b);
}

static void test_closing_waits_for_what_runs(void **state)
{
	struct bench *b = bench_new(true);
	const struct nbd_request r = {
		.magic = be32_of(NBD_REQUEST_MAGIC),
		.length = be32_of(4096),
	};
	void *buf;

	(void)state;
	negotiate(b);
	assert_true(nbd_want(b->nbd, &buf) >= sizeof(r));
	memcpy(buf, &r, sizeof(r));
	assert_int_equal(nbd_got(b->nbd, sizeof(r)), 0);
	nbd_close(b->nbd);
	b->nbd = NULL;
	assert_int_equal(b->closed, 0);
	bench_free(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bytes_of_any_alignment),
		cmocka_unit_test(test_holes_travel_as_holes),
		cmocka_unit_test(test_block_status),
		cmocka_unit_test(test_what_is_refused),
		cmocka_unit_test(test_read_only_is_read_only),
		cmocka_unit_test(test_options_that_do_not_fit),
		cmocka_unit_test(test_a_client_that_does_not_read_is_not_read),
		cmocka_unit_test(test_closing_waits_for_what_runs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
