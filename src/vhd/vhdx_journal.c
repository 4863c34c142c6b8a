// SPDX-License-Identifier: MIT
/*
 * The journal of an open VHDX: everything that is durable passes through here. There is one chain
 * of steps at a time; each step is a write or a flush of the store, and `next` continues when it is
 * through.
 *
 * Activation, once, before the first change (MS-VHDX 2.2.2): an empty log entry with a new LogGuid,
 * flush, then both headers in turn with new FileWriteGuid, DataWriteGuid and that LogGuid, each
 * flushed. The entry comes first, because a header that names a log without a valid entry is
 * damage. Changes that no guest can see (compacting, another parent's place) leave DataWriteGuid as
 * it is, since children hold on to it; a guest's first write then renews it in a second activation.
 *
 * A cycle makes durable what was complete when it started: entries with all pages that were dirty
 * then, one flush for them and the data, and the flush requests that waited are done. In a
 * differencing image each entry follows a flush of the data that its pages speak of. When half of
 * the log is in use, or when closing, all logged pages then go to their places, and after another
 * flush the tail may pass them.
 *
 * Room in the log. An entry takes at most a quarter. One is only started when at most half is in
 * use, or right after everything was applied; and what is in use is counted from the tail in the
 * last *durable* entry, since that entry must stay replayable until its successor is durable.
 */
#include "vhd/vhdx_internal.h"

#include "lib/cleanup.h"

#include <errno.h>
#include <string.h>

#define ENTRY_SECTORS_MAX 64u
#define USED_MAX          512u /* apply at the latest then, also in larger logs */
#define DIRTY_MAX         48u  /* pages that may gather before a cycle starts without a flush */

/* --- steps --- */

static void on_step(struct store_io *io, int result)
{
	struct vhdx *v = container_of(io, struct vhdx, journal.io);

	v->journal.next(v, result);
}

static void step_write(struct vhdx *v, uint64_t offset, void *buf, size_t n,
		       void (*next)(struct vhdx *v, int result))
{
	struct journal *j = &v->journal;

	j->iov = (struct iovec){ buf, n };
	j->io = (struct store_io){
		.op = STORE_WRITE,
		.offset = offset,
		.length = n,
		.iov = &j->iov,
		.iovcnt = 1,
		.done = on_step,
	};
	j->next = next;
	store_submit(v->store, &j->io);
}

/* Of the file, less what closing will cut off; in whole MiB, as all objects are. */
static uint64_t file_size(const struct vhdx *v)
{
	return round_down64(MIN(v->store->size, v->space.end), VHDX_OBJECT_ALIGN);
}

static void step_flush(struct vhdx *v, void (*next)(struct vhdx *v, int result))
{
	struct journal *j = &v->journal;

	/* What an entry may promise of the file's size is what a flush has made durable. */
	j->flushing_size = file_size(v);
	j->io = (struct store_io){ .op = STORE_FLUSH, .done = on_step };
	j->next = next;
	store_submit(v->store, &j->io);
}

static void flushed(struct vhdx *v)
{
	v->journal.flushed_size = v->journal.flushing_size;
	v->journal.durable_tail = v->journal.written_tail;
}

static struct vhdx_op *op_pop(struct list *l)
{
	struct vhdx_op *op;

	if (list_empty(l))
		return NULL;
	op = list_first(l, struct vhdx_op, node);
	list_remove(&op->node);
	return op;
}

static void finish_all(struct list *waiters, int result)
{
	struct list batch;
	struct vhdx_op *op;

	list_init(&batch);
	list_splice(&batch, waiters);
	while ((op = op_pop(&batch)))
		vhdx_op_finish(op, result);
}

static void resume_all(struct list *waiters, int result)
{
	struct list batch;
	struct vhdx_op *op;

	list_init(&batch);
	list_splice(&batch, waiters);
	while ((op = op_pop(&batch)))
		vhdx_op_resume(op, result);
}

/* Something should be done, at the end of this round of the loop: it may serve many then. */
static void kick(struct vhdx *v)
{
	if (!v->journal.busy)
		loop_defer(v->disk.loop, &v->journal.task);
}

static struct vhdx_log_stamp entry_stamp(struct vhdx *v)
{
	struct journal *j = &v->journal;

	return (struct vhdx_log_stamp){
		.sequence = j->sequence,
		.tail = (uint32_t)(j->tail % j->sectors),
		.log = v->header.log,
		.flushed_size = j->flushed_size,
		.last_size = v->space.end,
	};
}

/* --- activation --- */

static void activation_end(struct vhdx *v, int result)
{
	struct journal *j = &v->journal;

	j->busy = false;
	j->activate_wanted = j->renew_wanted = false;
	j->activate_result = result;
	if (result >= 0) {
		j->renewed = j->renewed ||
			     !guid_equal(&v->header.data_write, &j->next_header.data_write);
		v->header = j->next_header;
		j->warm = true;
		flushed(v);
	}
	resume_all(&j->activation_waiters, result);
	kick(v);
}

static void on_header2_flushed(struct vhdx *v, int result)
{
	if (result >= 0)
		v->header_slot ^= 1;
	activation_end(v, result);
}

static void on_flush_next(struct vhdx *v, int result, void (*next)(struct vhdx *v, int result))
{
	if (result < 0)
		activation_end(v, result);
	else
		step_flush(v, next);
}

static void on_header2(struct vhdx *v, int result)
{
	on_flush_next(v, result, on_header2_flushed);
}

static void header_write(struct vhdx *v, void (*next)(struct vhdx *v, int result))
{
	struct journal *j = &v->journal;

	j->next_header.sequence++;
	vhdx_header_encode(&j->next_header, j->buffer);
	step_write(v, VHDX_HEADER_OFFSET(v->header_slot ^ 1), j->buffer, VHDX_HEADER_SIZE, next);
}

static void on_header1_flushed(struct vhdx *v, int result)
{
	if (result < 0) {
		activation_end(v, result);
		return;
	}
	v->header_slot ^= 1;
	header_write(v, on_header2);
}

static void on_header1(struct vhdx *v, int result)
{
	on_flush_next(v, result, on_header1_flushed);
}

static void on_first_entry_flushed(struct vhdx *v, int result)
{
	if (result < 0)
		activation_end(v, result);
	else
		header_write(v, on_header1);
}

static void on_first_entry(struct vhdx *v, int result)
{
	on_flush_next(v, result, on_first_entry_flushed);
}

/* A second try keeps the GUIDs: a header of the first one may be on the disk already. */
static void guids_choose(struct vhdx *v)
{
	struct journal *j = &v->journal;
	uint64_t sequence = v->header.sequence;

	if (guid_is_zero(&j->next_header.log)) {
		j->next_header = v->header;
		j->next_header.file_write = guid_random();
		j->next_header.log = guid_random();
	}
	if ((!list_empty(&j->activation_waiters) || j->renew_wanted) &&
	    guid_equal(&j->next_header.data_write, &v->header.data_write))
		j->next_header.data_write =
			guid_is_zero(&j->next_data) ? guid_random() : j->next_data;
	j->next_header.sequence = sequence;
}

static void activation_start(struct vhdx *v)
{
	struct journal *j = &v->journal;
	struct vhdx_log_stamp stamp;
	int r;

	j->busy = true;
	guids_choose(v);
	if (j->warm) {
		header_write(v, on_header1);
		return;
	}
	space_scan(v);
	r = store_reserve(v->store, v->header.log_offset, v->header.log_length);
	if (r < 0) {
		activation_end(v, r);
		return;
	}
	j->head = 1;
	j->tail = j->written_tail = j->durable_tail = 0;
	j->sequence = 1;
	j->flushed_size = file_size(v);
	stamp = entry_stamp(v);
	stamp.log = j->next_header.log;
	j->sequence++;
	vhdx_log_entry_encode(j->buffer, &stamp, NULL, 0);
	step_write(v, v->header.log_offset, j->buffer, VHDX_SECTOR, on_first_entry);
}

int journal_activate(struct vhdx *v, struct vhdx_op *op)
{
	if (v->journal.failed)
		return v->journal.failed;
	list_append(&v->journal.activation_waiters, &op->node);
	kick(v);
	return 0;
}

/* --- cycles --- */

static void cycle_round(struct vhdx *v);

static uint64_t used(const struct journal *j)
{
	return j->head - j->durable_tail;
}

static bool pressed(const struct journal *j)
{
	return used(j) > MIN(j->sectors / 2, USED_MAX);
}

/* Pages that the cycle did not get into the log are dirty as before. */
static void cycle_end(struct vhdx *v, int result)
{
	struct journal *j = &v->journal;

	list_splice(&v->pages.dirty, &j->cycle_pages);
	j->busy = false;
	j->cycle_result = result;
	if (result >= 0)
		j->completed = j->started;
	finish_all(&j->flush_active, result);
	space_poll(v);
	journal_poll(v);
}

/* After a failed flush nobody knows what is on the disk; only opening again can tell. */
static void cycle_fail(struct vhdx *v)
{
	v->journal.failed = -ENOTRECOVERABLE;
	cycle_end(v, v->journal.failed);
	finish_all(&v->journal.flush_waiters, v->journal.failed);
}

static void on_applies_flushed(struct vhdx *v, int result)
{
	struct journal *j = &v->journal;

	if (result < 0) {
		cycle_fail(v);
		return;
	}
	flushed(v);
	j->tail = j->head;
	j->apply_tried = false;
	cycle_round(v);
}

static void applies_done(struct vhdx *v)
{
	struct journal *j = &v->journal;

	/* What could not be applied stays in the log; there may be room for more. */
	if (j->apply_result < 0 && !list_empty(&j->cycle_pages))
		cycle_round(v);
	else if (j->apply_result < 0)
		cycle_end(v, j->apply_result);
	else
		step_flush(v, on_applies_flushed);
}

static void on_applied(struct store_io *io, int result)
{
	struct page *p = container_of(io, struct page, io);
	struct vhdx *v = p->v;

	if (result < 0)
		v->journal.apply_result = result;
	else
		page_applied(v, p);
	if (!--v->journal.applying)
		applies_done(v);
}

static bool may_apply(const struct vhdx *v)
{
	list_foreach(it, &v->pages.unapplied) if (list_entry(it, struct page, unapplied_node)
							  ->unlogged) return false;
	return true;
}

static void apply(struct vhdx *v)
{
	struct journal *j = &v->journal;

	j->apply_tried = true;
	j->apply_result = may_apply(v) ? 0 : -ENOSPC;
	j->applying = 1;
	if (!j->apply_result) {
		list_foreach(it, &v->pages.unapplied)
		{
			struct page *p = list_entry(it, struct page, unapplied_node);

			p->iov = (struct iovec){ p->logged, VHDX_SECTOR };
			p->io = (struct store_io){
				.op = STORE_WRITE,
				.offset = p->offset,
				.length = VHDX_SECTOR,
				.iov = &p->iov,
				.iovcnt = 1,
				.done = on_applied,
			};
			j->applying++;
			store_submit(v->store, &p->io);
		}
	}
	if (!--j->applying)
		applies_done(v);
}

static void on_cycle_flushed(struct vhdx *v, int result)
{
	struct journal *j = &v->journal;

	if (result < 0) {
		cycle_fail(v);
		return;
	}
	flushed(v);
	if (list_empty(&j->cycle_pages)) {
		j->completed = j->started;
		finish_all(&j->flush_active, 0);
	}
	if (v->pages.unapplied_count && (j->drain || pressed(j)))
		apply(v);
	else
		cycle_round(v);
}

static void on_entry(struct vhdx *v, int result)
{
	struct journal *j = &v->journal;

	if (result < 0) {
		for (uint32_t i = 0; i < j->batch_count; i++)
			page_relog(v, j->batch[i]);
		cycle_end(v, result);
		return;
	}
	j->written_tail = j->tail;
	j->head += j->entry_sectors;
	j->sequence++;
	if (list_empty(&j->cycle_pages) || pressed(j))
		step_flush(v, on_cycle_flushed);
	else
		cycle_round(v);
}

/* An entry that reaches over the end of the ring goes on at its start, in a second write. */
static void on_entry_first_part(struct vhdx *v, int result)
{
	struct journal *j = &v->journal;
	uint64_t first = j->sectors - j->head % j->sectors;

	if (result < 0)
		on_entry(v, result);
	else
		step_write(v, v->header.log_offset, j->buffer + first * VHDX_SECTOR,
			   (j->entry_sectors - first) * VHDX_SECTOR, on_entry);
}

static void entry_write(struct vhdx *v)
{
	struct journal *j = &v->journal;
	uint64_t at = j->head % j->sectors, first = MIN(j->entry_sectors, j->sectors - at);

	step_write(v, v->header.log_offset + at * VHDX_SECTOR, j->buffer, first * VHDX_SECTOR,
		   first < j->entry_sectors ? on_entry_first_part : on_entry);
}

/* Takes pages of the cycle into an entry, as many as one may have. 0 or -ENOMEM. */
static int entry_build(struct vhdx *v)
{
	struct journal *j = &v->journal;
	struct vhdx_log_page pages[ENTRY_SECTORS_MAX];
	struct vhdx_log_stamp stamp;

	/* An entry that everything before it is applied for is its own tail. */
	if (!v->pages.unapplied_count)
		j->tail = j->head;
	j->batch_count = 0;
	while (!list_empty(&j->cycle_pages) && j->batch_count < ENTRY_SECTORS_MAX - 1) {
		struct page *p = list_first(&j->cycle_pages, struct page, dirty_node);

		if (page_log(v, p) < 0)
			break;
		pages[j->batch_count] = (struct vhdx_log_page){ p->offset, p->logged };
		j->batch[j->batch_count++] = p;
	}
	if (!j->batch_count)
		return -ENOMEM;
	stamp = entry_stamp(v);
	vhdx_log_entry_encode(j->buffer, &stamp, pages, j->batch_count);
	j->entry_sectors = vhdx_log_entry_sectors(j->batch_count);
	return 0;
}

static void on_data_flushed(struct vhdx *v, int result)
{
	if (result < 0) {
		for (uint32_t i = 0; i < v->journal.batch_count; i++)
			page_relog(v, v->journal.batch[i]);
		cycle_fail(v);
		return;
	}
	flushed(v);
	entry_write(v);
}

/* Goes on with the cycle's pages; without any left, the cycle is at its end. */
static void cycle_round(struct vhdx *v)
{
	struct journal *j = &v->journal;
	int r;

	if (list_empty(&j->cycle_pages)) {
		cycle_end(v, 0);
		return;
	}
	if (used(j) + ENTRY_SECTORS_MAX > j->sectors) {
		/* Only when applying failed before is there no room: it may work now. */
		if (j->apply_tried || !v->pages.unapplied_count)
			cycle_end(v, j->apply_result < 0 ? j->apply_result : -ENOSPC);
		else
			apply(v);
		return;
	}
	r = entry_build(v);
	if (r < 0)
		cycle_end(v, r);
	else if (v->params.has_parent)
		step_flush(v, on_data_flushed);
	else
		entry_write(v);
}

static void cycle_start(struct vhdx *v)
{
	struct journal *j = &v->journal;

	j->busy = true;
	j->flush_wanted = false;
	j->apply_tried = false;
	j->apply_result = 0;
	j->started++;
	list_splice(&j->flush_active, &j->flush_waiters);
	list_splice(&j->cycle_pages, &v->pages.dirty);
	if (list_empty(&j->cycle_pages))
		step_flush(v, on_cycle_flushed);
	else
		cycle_round(v);
}

static void run_task(struct loop_task *t)
{
	struct vhdx *v = container_of(t, struct vhdx, journal.task);
	struct journal *j = &v->journal;

	if (j->busy)
		return;
	if (j->failed) {
		finish_all(&j->flush_waiters, j->failed);
		resume_all(&j->activation_waiters, j->failed);
	} else if ((!list_empty(&j->activation_waiters) && !j->renewed) || j->activate_wanted) {
		activation_start(v);
	} else if (!list_empty(&j->activation_waiters)) {
		resume_all(&j->activation_waiters, 0);
		kick(v);
	} else if (!list_empty(&j->flush_waiters) || v->pages.dirty_count >= DIRTY_MAX ||
		   j->flush_wanted) {
		cycle_start(v);
	}
}

void journal_flush(struct vhdx *v, struct vhdx_op *op)
{
	list_append(&v->journal.flush_waiters, &op->node);
	kick(v);
}

void journal_poll(struct vhdx *v)
{
	struct journal *j = &v->journal;

	/* After a failed cycle only a flush tries again; otherwise a full disk would spin. */
	if (!list_empty(&j->flush_waiters) || !list_empty(&j->activation_waiters) ||
	    (v->pages.dirty_count >= DIRTY_MAX && j->cycle_result >= 0))
		kick(v);
}

/* --- opening and closing --- */

void journal_init(struct vhdx *v)
{
	struct journal *j = &v->journal;

	list_init(&j->activation_waiters);
	list_init(&j->flush_waiters);
	list_init(&j->flush_active);
	list_init(&j->cycle_pages);
	loop_task_init(&j->task, run_task);
}

int journal_start(struct vhdx *v)
{
	struct journal *j = &v->journal;
	void *buffer;

	if (v->store->read_only)
		return 0;
	j->sectors = v->header.log_length / VHDX_SECTOR;
	j->batch = calloc(ENTRY_SECTORS_MAX, sizeof(struct page *));
	if (!j->batch || posix_memalign(&buffer, VHDX_SECTOR, ENTRY_SECTORS_MAX * VHDX_SECTOR))
		return -ENOMEM;
	j->buffer = buffer;
	return 0;
}

void journal_deinit(struct vhdx *v)
{
	if (v->disk.loop)
		loop_cancel(v->disk.loop, &v->journal.task);
	free(v->journal.batch);
	free(v->journal.buffer);
}

int journal_headers_write(struct vhdx *v, const struct vhdx_header *h)
{
	_cleanup_free_ void *bytes = NULL;
	struct vhdx_header header = *h;

	if (posix_memalign(&bytes, VHDX_HEADER_SIZE, VHDX_HEADER_SIZE))
		return -ENOMEM;
	for (int i = 0; i < 2; i++) {
		int r;

		header.sequence++;
		vhdx_header_encode(&header, bytes);
		r = store_write(v->store, bytes, VHDX_HEADER_SIZE,
				VHDX_HEADER_OFFSET(v->header_slot ^ 1));
		if (r >= 0)
			r = store_sync(v->store);
		if (r < 0)
			return r;
		v->header_slot ^= 1;
		v->header = header;
	}
	return 0;
}

static int pump(struct vhdx *v, bool (*waiting)(const struct vhdx *v))
{
	int r = 0;

	while (r >= 0 && waiting(v))
		r = loop_once(v->disk.loop, -1);
	return r;
}

static bool steps_waiting(const struct vhdx *v)
{
	return v->journal.busy || v->space.punching;
}

static bool cycle_waiting(const struct vhdx *v)
{
	return v->journal.busy || v->journal.flush_wanted;
}

static bool activation_waiting(const struct vhdx *v)
{
	return v->journal.busy || v->journal.activate_wanted;
}

int journal_start_change(struct vhdx *v, bool renew)
{
	struct journal *j = &v->journal;
	int r = pump(v, steps_waiting);

	if (r < 0 || j->failed || (renew ? j->renewed : j->warm))
		return r < 0 ? r : j->failed;
	j->activate_wanted = true;
	j->renew_wanted = renew;
	kick(v);
	r = pump(v, activation_waiting);
	return r < 0 ? r : j->activate_result;
}

int journal_sync(struct vhdx *v, bool apply)
{
	struct journal *j = &v->journal;
	int r = pump(v, steps_waiting);

	if (r < 0 || !j->warm || j->failed)
		return r < 0 ? r : j->failed;
	j->drain = apply;
	j->flush_wanted = true;
	kick(v);
	r = pump(v, cycle_waiting);
	j->drain = false;
	if (r < 0 || j->cycle_result < 0)
		return r < 0 ? r : j->cycle_result;
	return v->pages.dirty_count || (apply && v->pages.unapplied_count) ? -EIO : 0;
}

int journal_rest(struct vhdx *v)
{
	struct journal *j = &v->journal;
	struct vhdx_header h;
	int r = journal_sync(v, true);

	if (r < 0 || !j->warm)
		return r;
	h = v->header;
	h.log = (struct guid){ 0 };
	r = journal_headers_write(v, &h);
	if (r < 0)
		return r;
	j->warm = j->renewed = false;
	j->next_header = (struct vhdx_header){ 0 };
	space_trim_end(v);
	return v->store->size > v->space.end ? store_resize(v->store, v->space.end) : 0;
}

int journal_close(struct vhdx *v, struct error *err)
{
	int r = v->store->read_only ? 0 : journal_rest(v);

	if (r >= 0)
		return 0;
	return error_errno(err, r,
			   "the image could not be closed cleanly; what was flushed is safe in its "
			   "log, which the next opening replays");
}
