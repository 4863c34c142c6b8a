// SPDX-License-Identifier: MIT
/* See disk_model.h. Requests in flight never overlap, so that each has one right result. */
#include "vhd/disk_model.h"

#include "lib/cleanup.h"
#include "vhd/disk_drive.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

uint64_t model_pick(struct model *m, uint64_t below)
{
	return ((uint64_t)rand_r(&m->seed) << 31 | (uint64_t)rand_r(&m->seed)) % below;
}

static void fill(struct model *m, uint8_t *p, uint64_t n)
{
	uint8_t start = (uint8_t)model_pick(m, 256);

	for (uint64_t i = 0; i < n; i++)
		p[i] = (uint8_t)(start + i + (i >> 9));
}

void model_request_done(struct disk_request *req, int result)
{
	struct model_request *r = container_of(req, struct model_request, req);

	assert_int_equal(result, 0);
	if (req->op == DISK_READ)
		assert_memory_equal(r->buf, r->m->expect + req->offset, req->length);
	free(r->buf);
	r->buf = NULL;
	r->busy = false;
	r->m->busy--;
}

static bool model_conflict(const struct model *m, uint64_t offset, uint64_t length)
{
	for (int i = 0; i < MODEL_REQUESTS; i++) {
		const struct model_request *r = &m->requests[i];

		if (r->busy && r->req.op != DISK_FLUSH && offset < r->req.offset + r->req.length &&
		    r->req.offset < offset + length)
			return true;
	}
	return false;
}

static enum disk_op pick_op(struct model *m)
{
	static const enum disk_op ops[] = { DISK_READ,  DISK_READ,         DISK_READ,
					    DISK_WRITE, DISK_WRITE,        DISK_WRITE,
					    DISK_TRIM,  DISK_WRITE_ZEROES, DISK_FLUSH };

	return ops[model_pick(m, ARRAY_SIZE(ops))];
}

static void model_span(struct model *m, uint64_t block, uint64_t *ret_offset, uint64_t *ret_length)
{
	uint64_t sectors = m->size / m->sector;

	*ret_offset = model_pick(m, sectors) * m->sector;
	*ret_length = (1 + model_pick(m, 64)) * m->sector;
	switch (model_pick(m, 8)) {
	case 0: /* whole blocks */
		*ret_offset = round_down64(*ret_offset, block);
		*ret_length = block * (1 + model_pick(m, 2));
		break;
	case 1: /* over a border */
		*ret_offset = round_down64(*ret_offset, block);
		if (*ret_offset >= m->sector)
			*ret_offset -= m->sector;
		*ret_length = 8 * m->sector;
		break;
	}
	*ret_length = MIN(*ret_length, m->size - *ret_offset);
}

static void model_submit(struct model *m, struct model_request *r, uint64_t block)
{
	enum disk_op op = pick_op(m);
	uint64_t offset, length;

	model_span(m, block, &offset, &length);
	if (model_conflict(m, offset, length))
		return;
	r->m = m;
	r->busy = true;
	m->busy++;
	r->buf = malloc(length);
	assert_non_null(r->buf);
	r->iov = (struct iovec){ r->buf, length };
	r->req = (struct disk_request){
		.op = op,
		.flags = op == DISK_READ || model_pick(m, 10) ? 0 : DISK_FUA,
		.offset = offset,
		.length = length,
		.iov = &r->iov,
		.iovcnt = 1,
		.done = model_request_done,
	};
	if (op == DISK_WRITE) {
		fill(m, r->buf, length);
		memcpy(m->expect + offset, r->buf, length);
	}
	if (op == DISK_FLUSH)
		r->req.offset = r->req.length = 0;
	if (op == DISK_WRITE_ZEROES)
		memset(m->expect + offset, 0, length);
	disk_submit(m->d, &r->req);
}

/* A TRIM may leave the old data or zeros: what it left is what counts from then on. */
void model_settle(struct model *m)
{
	while (m->busy)
		assert_int_equal(loop_once(m->d->loop, -1), 0);
}

static void on_trim_done(struct model *m, struct model_request *r)
{
	assert_int_equal(drive_read(m->d, m->expect + r->req.offset, r->req.length, r->req.offset),
			 0);
}

void model_step(struct model *m, uint64_t block)
{
	struct model_request *r = &m->requests[model_pick(m, MODEL_REQUESTS)];

	if (!r->busy) {
		model_submit(m, r, block);
		if (r->busy && r->req.op == DISK_TRIM) {
			model_settle(m);
			on_trim_done(m, r);
		}
	}
	if (!model_pick(m, 3))
		assert_int_equal(loop_once(m->d->loop, 0), 0);
}

void model_compare(struct model *m)
{
	_cleanup_free_ uint8_t *got = malloc(m->size);

	assert_non_null(got);
	assert_int_equal(drive_read(m->d, got, m->size, 0), 0);
	assert_memory_equal(got, m->expect, m->size);
}
