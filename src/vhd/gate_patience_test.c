// SPDX-License-Identifier: MIT
/*
 * A gate that is patient over images whose store fails again and again: whoever sends requests sees
 * none of it, and what is there in the end is what a plain array says.
 */
#include "vhd/gate.h"

#include "lib/cleanup.h"
#include "vhd/disk_drive.h"
#include "vhd/disk_model.h"
#include "vhd/raw.h"
#include "vhd/store_memory.h"
#include "vhd/vhd.h"
#include "vhd/vhdx.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define SIZE (8 * MIB)

enum format { RAW, VHD, VHDX, FORMATS };

static struct loop *loop;

struct bed {
	enum format format;
	struct store *store;
	struct gate *gate;
	struct gate_patience patience;
	struct loop_timer retry;
	unsigned lost, back;
	int error;
	struct model m;
};

static struct disk *open_image(struct bed *b)
{
	struct error err = { 0 };
	struct disk *d = NULL;
	int r = b->format == RAW   ? raw_open(b->store, &d, &err)
		: b->format == VHD ? vhd_open(b->store, &d, &err)
				   : vhdx_open(b->store, &d, &err);

	if (r < 0)
		fail_msg("%s", err.message);
	return d;
}

static void on_lost(struct gate_patience *p, int error)
{
	struct bed *b = container_of(p, struct bed, patience);

	b->lost++;
	b->error = error;
	assert_true(gate_waits(b->gate));
	loop_timer_arm(&b->retry, loop_now(loop) + 1000);
}

static void on_back(struct gate_patience *p)
{
	struct bed *b = container_of(p, struct bed, patience);

	b->back++;
	assert_false(gate_waits(b->gate));
}

static void on_retry(struct loop_timer *t)
{
	struct bed *b = container_of(t, struct bed, retry);

	gate_retry(b->gate);
	loop_timer_arm(&b->retry, loop_now(loop) + 1000);
}

static struct bed *bed_new(enum format format, unsigned seed)
{
	const struct store_memory_options so = { .size_max = 64 * MIB,
						 .bytes_max = 64 * MIB,
						 .shuffle = seed };
	const struct vhdx_create_options xo = { .size = SIZE, .block_size = MIB };
	const struct vhd_create_options vo = { .size = SIZE,
					       .block_size = 512 * KIB,
					       .kind = VHD_DYNAMIC };
	struct bed *b = calloc(1, sizeof(*b));
	int r;

	assert_non_null(b);
	b->format = format;
	b->store = store_memory_new(loop, &so);
	r = format == RAW   ? store_resize(b->store, SIZE)
	    : format == VHD ? vhd_store_create(b->store, &vo, NULL)
			    : vhdx_store_create(b->store, &xo, NULL);
	assert_int_equal(r, 0);
	b->m = (struct model){ .size = SIZE, .sector = 512, .seed = seed };
	b->m.expect = calloc(1, SIZE);
	b->m.d = gate_new(open_image(b));
	b->gate = gate_of(b->m.d);
	b->patience = (struct gate_patience){ on_lost, on_back };
	loop_timer_init(loop, &b->retry, on_retry);
	gate_be_patient(b->gate, &b->patience);
	return b;
}

static void bed_free(struct bed *b)
{
	model_settle(&b->m);
	loop_timer_disarm(&b->retry);
	store_memory_fail_writes(b->store, 0, 0);
	assert_int_equal(drive_flush(b->m.d), 0);
	model_compare(&b->m);
	assert_int_equal(disk_close(b->m.d, NULL), 0);
	b->m.d = open_image(b);
	model_compare(&b->m);
	assert_int_equal(disk_close(b->m.d, NULL), 0);
	store_memory_free(b->store);
	free(b->m.expect);
	free(b);
}

static void test_a_store_that_fails_and_comes_back(void **state)
{
	static const int errors[] = { -ENOSPC, -EIO, -EDQUOT, -ESTALE };
	unsigned lost = 0;

	(void)state;
	for (unsigned seed = 1; seed < 40; seed++) {
		struct bed *b = bed_new(seed % FORMATS, seed);

		for (unsigned i = 0; i < 600; i++) {
			if (!model_pick(&b->m, 20))
				store_memory_fail_writes(b->store, (unsigned)model_pick(&b->m, 60),
							 errors[model_pick(&b->m, 4)]);
			model_step(&b->m, MIB);
		}
		model_settle(&b->m);
		assert_int_equal(b->lost, b->back);
		lost += b->lost;
		bed_free(b);
	}
	assert_true(lost > 500);
}

struct single {
	struct disk_request req;
	int result;
	bool done;
	struct iovec iov;
	uint8_t sector[512];
};

static void on_single(struct disk_request *req, int result)
{
	struct single *s = container_of(req, struct single, req);

	assert_false(s->done);
	s->done = true;
	s->result = result;
}

static void send(struct bed *b, struct single *s, enum disk_op op, uint64_t offset)
{
	bool moves = op == DISK_READ || op == DISK_WRITE;

	*s = (struct single){ .sector = { 7 } };
	s->iov = (struct iovec){ s->sector, sizeof(s->sector) };
	s->req = (struct disk_request){ .op = op,
					.offset = op == DISK_FLUSH ? 0 : offset,
					.length = op == DISK_FLUSH ? 0 : 512,
					.iov = moves ? &s->iov : NULL,
					.iovcnt = moves,
					.done = on_single };
	disk_submit(b->m.d, &s->req);
}

static void turns(unsigned n)
{
	while (n--)
		assert_int_equal(loop_once(loop, 1), 0);
}

static void test_who_gives_up_is_told(void **state)
{
	struct bed *b = bed_new(VHDX, 0);
	struct single one, two;

	(void)state;
	store_memory_fail_writes(b->store, 1000000, -ENOSPC);
	send(b, &one, DISK_WRITE, 0);
	send(b, &two, DISK_WRITE, MIB);
	turns(50);
	assert_false(one.done || two.done);
	assert_int_equal(b->lost, 1);
	assert_int_equal(b->error, -ENOSPC);
	gate_be_patient(b->gate, NULL);
	assert_false(one.done || two.done); /* never from inside */
	turns(5);
	assert_true(one.done && two.done);
	assert_int_equal(one.result, -ENOSPC);
	assert_int_equal(two.result, -ENOSPC);
	assert_int_equal(b->back, 0);
	assert_false(gate_waits(b->gate));
	send(b, &one, DISK_WRITE, 0);
	turns(10);
	assert_int_equal(one.result, -ENOSPC);
	bed_free(b);
}

/* A failed flush may have lost what was written before: asking again would hide that. */
static void test_what_will_not_pass_is_told_at_once(void **state)
{
	struct single s;

	(void)state;
	for (enum format f = RAW; f < FORMATS; f++) {
		struct bed *b = bed_new(f, 0);

		send(b, &s, DISK_WRITE, 0);
		turns(10);
		assert_true(s.done && !s.result);
		store_memory_fail_flushes(b->store, 1, -ENOSPC);
		send(b, &s, DISK_FLUSH, 0);
		turns(20);
		assert_true(s.done);
		assert_int_equal(s.result, -ENOTRECOVERABLE);
		assert_int_equal(b->lost, 0);
		loop_timer_disarm(&b->retry);
		(void)!disk_close(b->m.d, NULL);
		store_memory_free(b->store);
		free(b->m.expect);
		free(b);
	}
}

static void on_frozen(struct gate_freeze *f, int result)
{
	assert_int_equal(result, 0);
	f->frozen = NULL;
}

/* A change under the gate waits for nobody's storage; what was kept comes after it. */
static void test_a_freeze_does_not_wait_for_storage(void **state)
{
	struct gate_freeze f = { .frozen = on_frozen };
	struct bed *b = bed_new(VHDX, 0);
	struct single s, first;

	(void)state;
	send(b, &first, DISK_WRITE, 0);
	turns(20);
	assert_true(first.done);
	send(b, &first, DISK_FLUSH, 0);
	turns(20);
	store_memory_fail_writes(b->store, 1000000, -EIO);
	send(b, &s, DISK_WRITE, 0);
	turns(3);
	assert_int_equal(b->lost, 1);
	assert_int_equal(gate_freeze(b->gate, &f), 0);
	turns(50);
	assert_null(f.frozen);
	assert_false(s.done);
	store_memory_fail_writes(b->store, 0, 0);
	gate_thaw(b->gate);
	turns(50);
	assert_true(s.done && !s.result);
	assert_int_equal(b->back, 1);
	b->m.expect[0] = 7;
	bed_free(b);
}

static int setup(void **state)
{
	struct error err;

	(void)state;
	return loop_new(64, &loop, &err);
}

static int teardown(void **state)
{
	(void)state;
	loop_free(loop);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_store_that_fails_and_comes_back),
		cmocka_unit_test(test_who_gives_up_is_told),
		cmocka_unit_test(test_what_will_not_pass_is_told_at_once),
		cmocka_unit_test(test_a_freeze_does_not_wait_for_storage),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
