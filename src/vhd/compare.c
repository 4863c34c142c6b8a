// SPDX-License-Identifier: MIT
/*
 * Comparing two disks: a few slots, each of which reads the same chunk of both. What both know to
 * be zeros is skipped, and what one of them knows to be zeros is read from the other one only.
 * Chunks are started in order and none after a difference, so the lowest difference found is the
 * first.
 */
#include "lib/cleanup.h"
#include "vhd/image.h"
#include "vhd/iov.h"

#include <errno.h>
#include <string.h>

#define DEPTH 8u
#define CHUNK MIB

struct compare;
struct slot;

struct side {
	struct slot *slot;
	struct disk_request req;
	struct iovec iov;
	uint8_t *buf;
};

struct slot {
	struct compare *compare;
	struct side sides[2];
	uint64_t offset, length;
	unsigned pending;
};

/* What one of the disks has from compare.at on. */
struct known {
	uint64_t end;
	bool zero;
};

struct compare {
	struct disk *disks[2];
	struct known known[2];
	const struct disk_compare_options *options;
	uint64_t at, total, done, first;
	unsigned busy;
	int result;
	struct slot slots[DEPTH];
};

static uint64_t differs_at(const uint8_t *a, const uint8_t *b, uint64_t length)
{
	uint64_t at = 0;

	while (length - at >= 4096 && !memcmp(a + at, b + at, 4096))
		at += 4096;
	while (at < length && a[at] == b[at])
		at++;
	return at;
}

static void slot_judge(struct slot *s)
{
	struct compare *c = s->compare;
	uint64_t at;

	c->busy--;
	c->done += s->length;
	if (c->result < 0)
		return;
	at = differs_at(s->sides[0].buf, s->sides[1].buf, s->length);
	if (at < s->length)
		c->first = MIN(c->first, s->offset + at);
}

static void on_read(struct disk_request *req, int result)
{
	struct slot *s = container_of(req, struct side, req)->slot;

	if (result < 0 && s->compare->result >= 0)
		s->compare->result = result;
	if (!--s->pending)
		slot_judge(s);
}

static void side_read(struct slot *s, unsigned i, uint64_t length)
{
	struct side *side = &s->sides[i];

	side->iov = (struct iovec){ side->buf, length };
	side->req = (struct disk_request){
		.op = DISK_READ,
		.offset = s->offset,
		.length = length,
		.iov = &side->iov,
		.iovcnt = 1,
		.done = on_read,
	};
	s->pending++;
	disk_submit(s->compare->disks[i], &side->req);
}

static void slot_start(struct slot *s, uint64_t length)
{
	struct compare *c = s->compare;

	s->offset = c->at;
	s->length = length;
	c->busy++;
	for (unsigned i = 0; i < 2; i++) {
		uint64_t size = c->disks[i]->geometry.size;
		uint64_t there = s->offset < size ? MIN(length, size - s->offset) : 0;

		if (c->known[i].zero)
			there = 0;
		memset(s->sides[i].buf + there, 0, length - there);
		if (there)
			side_read(s, i, there);
	}
}

static void known_update(struct compare *c, unsigned i)
{
	struct disk *d = c->disks[i];
	enum disk_extent_kind kind;
	uint64_t length;

	if (c->at < c->known[i].end)
		return;
	if (c->at >= d->geometry.size) {
		c->known[i] = (struct known){ c->total, true };
	} else if (d->ops->extent(d, c->at, &kind, &length) < 0) {
		c->known[i] = (struct known){ MIN(c->at + CHUNK, d->geometry.size), false };
	} else {
		c->known[i] = (struct known){ MIN(c->at + length, d->geometry.size),
					      kind != DISK_EXTENT_DATA };
	}
}

/* Bytes from c->at on that are to be read at once; skips what both know to be zeros. */
static uint64_t next_length(struct compare *c)
{
	while (c->at < c->total) {
		uint64_t end;

		known_update(c, 0);
		known_update(c, 1);
		end = MIN(c->known[0].end, c->known[1].end);
		/* Reads end at whole sectors of both; what is known ends at those of one. */
		if (!c->known[0].zero || !c->known[1].zero)
			return MIN(MIN(round_up64(end, 4096), c->total) - c->at, CHUNK);
		end = end < c->total ? round_down64(end, 4096) : end;
		if (end <= c->at)
			return MIN(4096, c->total - c->at);
		c->done += end - c->at;
		c->at = end;
	}
	return 0;
}

static void slots_fill(struct compare *c)
{
	for (unsigned i = 0; i < DEPTH && c->result >= 0 && c->first == DISK_SAME; i++) {
		uint64_t n;

		if (c->slots[i].pending)
			continue;
		n = next_length(c);
		if (!n)
			return;
		/* Beyond what is known the rest of a sector must be read to be known. */
		for (unsigned k = 0; k < 2; k++)
			c->known[k].zero = c->known[k].zero && c->at + n <= c->known[k].end;
		slot_start(&c->slots[i], n);
		c->at += n;
	}
}

static int compare_run(struct compare *c)
{
	const struct disk_compare_options *o = c->options;

	for (;;) {
		int r;

		slots_fill(c);
		if (!c->busy)
			return c->result;
		r = loop_once(c->disks[0]->loop, -1);
		if (r < 0)
			return r;
		if (o->progress && c->result >= 0 && !o->progress(o->context, c->done, c->total))
			c->result = -ECANCELED;
	}
}

static void slots_free(struct compare *c)
{
	for (unsigned i = 0; i < DEPTH; i++) {
		free(c->slots[i].sides[0].buf);
		free(c->slots[i].sides[1].buf);
	}
}

static int slots_new(struct compare *c)
{
	for (unsigned i = 0; i < DEPTH; i++) {
		c->slots[i].compare = c;
		for (unsigned k = 0; k < 2; k++) {
			void *p;

			if (posix_memalign(&p, 4096, CHUNK))
				return -ENOMEM;
			c->slots[i].sides[k].buf = p;
			c->slots[i].sides[k].slot = &c->slots[i];
		}
	}
	return 0;
}

int disk_compare(struct disk *a, struct disk *b, const struct disk_compare_options *options,
		 uint64_t *ret_offset, struct error *err)
{
	struct compare c = {
		.disks = { a, b },
		.options = options,
		.total = MAX(a->geometry.size, b->geometry.size),
		.first = DISK_SAME,
	};
	int r;

	if (a->geometry.size != b->geometry.size && !options->allow_size)
		return error_set(err, -EINVAL,
				 "the disks have %llu and %llu bytes; --allow-size compares them "
				 "as if zeros followed the shorter one",
				 (unsigned long long)a->geometry.size,
				 (unsigned long long)b->geometry.size);
	r = slots_new(&c);
	if (r >= 0)
		r = compare_run(&c);
	slots_free(&c);
	if (r < 0)
		return r == -ECANCELED ? error_set(err, r, "stopped")
				       : error_errno(err, r, "the disks could not be compared");
	*ret_offset = c.first;
	return 0;
}
