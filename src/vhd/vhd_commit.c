// SPDX-License-Identifier: MIT
/*
 * Commits: everything that is durable passes through here, in the order that vhd_internal.h gives
 * the reasons for. There is one commit at a time. Requests go on meanwhile; what they change
 * belongs to the next one, so a commit works on copies of the pages as they were when it began.
 *
 * A commit that fails to write may be tried again: pages stay dirty and bitmaps stay to be filled.
 * After a failed flush nobody knows what is on the disk: from then on the image only reads.
 */
#include "vhd/vhd_internal.h"

#include "lib/cleanup.h"

#include <errno.h>
#include <string.h>

#define DIRTY_MAX 512u  /* pages that may gather before a commit starts without a flush */
#define FILLS_MAX 4096u /* new blocks likewise */

/* --- steps --- */

static void on_step(struct store_io *io, int result)
{
	struct vhd *v = container_of(io, struct vhd, commit.io);

	v->commit.next(v, result);
}

static void step_flush(struct vhd *v, void (*next)(struct vhd *v, int result))
{
	struct vhd_commit *c = &v->commit;

	c->next = next;
	c->io = (struct store_io){ .op = STORE_FLUSH, .done = on_step };
	store_submit(v->store, &c->io);
}

/* A step of many transfers: starts with one that stands for the step itself. */
static void step_begin(struct vhd *v, void (*next)(struct vhd *v, int result))
{
	v->commit.next = next;
	v->commit.pending = 1;
	v->commit.step_result = 0;
}

static void step_put(struct vhd *v, int result)
{
	struct vhd_commit *c = &v->commit;

	if (result < 0 && c->step_result >= 0)
		c->step_result = result;
	if (!--c->pending)
		c->next(v, c->step_result);
}

static void step_write(struct vhd *v, struct store_io *io, struct iovec *iov, uint64_t offset,
		       void (*done)(struct store_io *io, int result))
{
	*io = (struct store_io){
		.op = STORE_WRITE,
		.offset = offset,
		.length = iov->iov_len,
		.iov = iov,
		.iovcnt = 1,
		.done = done,
	};
	v->commit.pending++;
	store_submit(v->store, io);
}

/* --- the end of a commit --- */

static void kick(struct vhd *v);

static void pages_end(struct vhd *v, int result)
{
	while (!list_empty(&v->commit.pages))
		vhd_page_commit_end(list_first(&v->commit.pages, struct vhd_page, dirty), result);
}

static void fills_end(struct vhd *v, bool filled)
{
	struct vhd_commit *c = &v->commit;

	while (filled && !list_empty(&c->fills_active)) {
		struct vhd_fill *f = list_first(&c->fills_active, struct vhd_fill, node);

		list_remove(&f->node);
		free(f);
	}
	list_foreach(it, &c->fills_active) c->fill_count++;
	list_splice(&c->fills, &c->fills_active);
}

static void commit_end(struct vhd *v, int result)
{
	struct vhd_commit *c = &v->commit;
	struct list done;

	pages_end(v, result);
	fills_end(v, result >= 0);
	c->busy = false;
	c->result = result;
	if (result >= 0)
		c->completed = c->started;
	vhd_space_poll(v);
	list_init(&done);
	list_splice(&done, &c->flush_active);
	while (!list_empty(&done)) {
		struct vhd_op *op = list_first(&done, struct vhd_op, node);

		list_remove(&op->node);
		vhd_op_finish(op, result);
	}
	vhd_commit_poll(v);
}

static void flush_failed(struct vhd *v)
{
	v->commit.failed = -ENOTRECOVERABLE;
	commit_end(v, v->commit.failed);
}

/* --- the steps of a commit, the last one first --- */

static void on_tables_flushed(struct vhd *v, int result)
{
	if (result < 0)
		flush_failed(v);
	else
		commit_end(v, 0);
}

static void on_tables_written(struct vhd *v, int result)
{
	if (result < 0)
		commit_end(v, result);
	else
		step_flush(v, on_tables_flushed);
}

static void on_page_written(struct store_io *io, int result)
{
	step_put(container_of(io, struct vhd_page, io)->v, result);
}

static void on_data_flushed(struct vhd *v, int result)
{
	if (result < 0) {
		flush_failed(v);
		return;
	}
	fills_end(v, true);
	if (list_empty(&v->commit.pages)) {
		commit_end(v, 0);
		return;
	}
	step_begin(v, on_tables_written);
	list_foreach(it, &v->commit.pages)
	{
		struct vhd_page *p = list_entry(it, struct vhd_page, dirty);

		p->iov = (struct iovec){ p->commit, p->length };
		step_write(v, &p->io, &p->iov, p->offset, on_page_written);
	}
	step_put(v, 0);
}

static void on_prepared(struct vhd *v, int result)
{
	if (result < 0) {
		v->commit.footer_at = UINT64_MAX;
		commit_end(v, result);
	} else {
		step_flush(v, on_data_flushed);
	}
}

static void on_filled(struct store_io *io, int result)
{
	step_put(container_of(io, struct vhd_fill, io)->v, result);
}

static void on_footer(struct store_io *io, int result)
{
	step_put(container_of(io, struct vhd, commit.io), result);
}

static void prepare(struct vhd *v)
{
	struct vhd_commit *c = &v->commit;

	step_begin(v, on_prepared);
	list_foreach(it, &c->fills_active)
	{
		struct vhd_fill *f = list_entry(it, struct vhd_fill, node);

		f->iov = (struct iovec){ c->ones, v->bitmap_bytes };
		step_write(v, &f->io, &f->iov, f->offset, on_filled);
	}
	if (v->kind != VHD_FIXED && c->footer_at != v->space.end) {
		c->footer_at = v->space.end;
		*c->sector = v->footer;
		c->iov = (struct iovec){ c->sector, sizeof(*c->sector) };
		step_write(v, &c->io, &c->iov, c->footer_at, on_footer);
	}
	step_put(v, 0);
}

static int pages_collect(struct vhd *v)
{
	while (!list_empty(&v->cache.dirty)) {
		int r = vhd_page_commit_start(list_first(&v->cache.dirty, struct vhd_page, dirty),
					      &v->commit.pages);

		if (r < 0)
			return r;
	}
	return 0;
}

static void commit_run(struct vhd *v)
{
	struct vhd_commit *c = &v->commit;
	int r;

	c->busy = true;
	c->flush_wanted = false;
	c->started++;
	list_splice(&c->flush_active, &c->flush_waiters);
	list_splice(&c->fills_active, &c->fills);
	c->fill_count = 0;
	r = c->failed ? c->failed : pages_collect(v);
	if (r < 0)
		commit_end(v, r);
	else
		prepare(v);
}

static bool enough(const struct vhd *v)
{
	return v->cache.dirty_count >= DIRTY_MAX || v->commit.fill_count >= FILLS_MAX;
}

static void run_task(struct loop_task *t)
{
	struct vhd *v = container_of(t, struct vhd, commit.task);
	struct vhd_commit *c = &v->commit;

	if (!c->busy && (c->flush_wanted || !list_empty(&c->flush_waiters) || enough(v)))
		commit_run(v);
}

static void kick(struct vhd *v)
{
	if (!v->commit.busy)
		loop_defer(v->disk.loop, &v->commit.task);
}

void vhd_commit_poll(struct vhd *v)
{
	struct vhd_commit *c = &v->commit;

	/* After a failed commit only a flush tries again; otherwise a full disk would spin. */
	if (c->flush_wanted || !list_empty(&c->flush_waiters) || (enough(v) && c->result >= 0))
		kick(v);
}

void vhd_commit_flush(struct vhd *v, struct vhd_op *op)
{
	list_append(&v->commit.flush_waiters, &op->node);
	kick(v);
}

int vhd_commit_fill(struct vhd *v, uint64_t offset)
{
	struct vhd_fill *f = malloc(sizeof(*f));

	if (!f)
		return -ENOMEM;
	f->v = v;
	f->offset = offset;
	list_append(&v->commit.fills, &f->node);
	v->commit.fill_count++;
	vhd_commit_poll(v);
	return 0;
}

/* --- opening and closing --- */

void vhd_commit_init(struct vhd *v)
{
	struct vhd_commit *c = &v->commit;

	list_init(&c->flush_waiters);
	list_init(&c->flush_active);
	list_init(&c->fills);
	list_init(&c->fills_active);
	list_init(&c->pages);
	loop_task_init(&c->task, run_task);
}

int vhd_commit_start(struct vhd *v)
{
	struct vhd_commit *c = &v->commit;
	void *p;

	c->footer_at = v->end_good ? v->space.end : UINT64_MAX;
	if (v->store->read_only)
		return 0;
	if (posix_memalign(&p, 4096, VHD_FOOTER_SIZE))
		return -ENOMEM;
	c->sector = p;
	if (v->kind != VHD_DYNAMIC)
		return 0;
	if (posix_memalign(&p, 4096, v->bitmap_bytes))
		return -ENOMEM;
	c->ones = p;
	memset(c->ones, 0xff, v->bitmap_bytes);
	return 0;
}

void vhd_commit_deinit(struct vhd *v)
{
	struct vhd_commit *c = &v->commit;

	if (v->disk.loop)
		loop_cancel(v->disk.loop, &c->task);
	fills_end(v, false);
	list_splice(&c->fills_active, &c->fills);
	fills_end(v, true);
	free(c->ones);
	free(c->sector);
}

int vhd_footer_write(struct vhd *v, const struct vhd_disk_footer *f, uint64_t offset)
{
	*v->commit.sector = *f;
	return store_write(v->store, v->commit.sector, VHD_FOOTER_SIZE, offset);
}

static int pump(struct vhd *v, bool (*waiting)(const struct vhd *v))
{
	int r = 0;

	while (r >= 0 && waiting(v))
		r = loop_once(v->disk.loop, -1);
	return r;
}

static bool steps_waiting(const struct vhd *v)
{
	return v->commit.busy || v->space.punching;
}

static bool commit_waiting(const struct vhd *v)
{
	return v->commit.busy || v->commit.flush_wanted;
}

static bool anything_to_do(const struct vhd *v)
{
	return !list_empty(&v->in_flight) || v->commit.busy || v->io_sequence ||
	       v->cache.dirty_count || v->commit.fill_count;
}

int vhd_commit_drain(struct vhd *v)
{
	struct vhd_commit *c = &v->commit;
	int r;

	if (v->store->read_only || !anything_to_do(v))
		return 0;
	r = pump(v, steps_waiting);
	if (r < 0 || c->failed)
		return r < 0 ? r : c->failed;
	c->flush_wanted = true;
	kick(v);
	r = pump(v, commit_waiting);
	if (r < 0 || c->result < 0)
		return r < 0 ? r : c->result;
	return v->cache.dirty_count || c->fill_count ? -EIO : 0;
}

/* The footer goes to a place before the end first: until the file is cut, both are good. */
static int end_cut(struct vhd *v)
{
	uint64_t end = v->space.end;
	int r;

	vhd_space_trim_end(v);
	if (v->kind == VHD_FIXED || v->space.end >= end)
		return 0;
	r = vhd_footer_write(v, &v->footer, v->space.end);
	if (r >= 0)
		r = store_resize(v->store, v->space.end + VHD_FOOTER_SIZE);
	return r >= 0 ? store_sync(v->store) : r;
}

int vhd_commit_close(struct vhd *v, struct error *err)
{
	int r = vhd_commit_drain(v);

	if (r >= 0 && !v->store->read_only)
		r = end_cut(v);
	if (r >= 0)
		return 0;
	return error_errno(err, r,
			   "the image could not be written completely; what was flushed is safe");
}
