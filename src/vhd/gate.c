// SPDX-License-Identifier: MIT
/* See gate.h. What merges an image behind a gate is in gate_merge.c. */
#include "vhd/gate_internal.h"

#include "lib/cleanup.h"

#include <errno.h>

static const struct disk_ops gate_ops;

struct gate *gate_of(struct disk *disk)
{
	assert(disk->ops == &gate_ops);
	return container_of(disk, struct gate, disk);
}

/* --- requests --- */

void gate_drained(struct gate *g)
{
	struct gate_freeze *f = g->freeze;

	if (!f || g->in_flight || g->copies || g->flushing)
		return;
	g->flushing = true;
	if (g->below) {
		disk_submit(g->below, &f->flush);
		return;
	}
	g->frozen_result = -EIO;
	loop_defer(g->disk.loop, &g->task);
}

/* What goes by when somebody makes room, or a path to the storage comes back. */
static bool may_pass(int error)
{
	static const int errors[] = { ENOSPC,  EDQUOT,    EIO,       ENODEV,      ESTALE,
				      ENOLINK, ETIMEDOUT, EHOSTDOWN, EHOSTUNREACH };

	for (size_t i = 0; i < ARRAY_SIZE(errors); i++)
		if (error == -errors[i])
			return true;
	return false;
}

static void keep(struct gate *g, struct disk_request *req, int error)
{
	bool first = !g->kept_count;

	if (!req->gate_kept)
		g->kept_count++;
	req->gate_kept = true;
	req->layer = (void *)(intptr_t)error;
	list_append(&g->kept, &req->node);
	if (first)
		g->patience->lost(g->patience, error);
}

/* It is not kept any more, whatever became of it. */
static void unkeep(struct gate *g, struct disk_request *req)
{
	if (!req->gate_kept)
		return;
	req->gate_kept = false;
	if (!--g->kept_count && g->patience)
		g->patience->back(g->patience);
}

void gate_request_end(struct gate *g, struct disk_request *req, int result)
{
	if (g->patience && may_pass(result)) {
		keep(g, req, result);
		return;
	}
	g->in_flight--;
	unkeep(g, req);
	req->done(req, result);
	gate_drained(g);
}

static void on_done(struct disk_request *req, int result)
{
	req->done = req->gate_done;
	gate_request_end(gate_of(req->gate), req, result);
}

/* Whoever sent it looked at the size, but that may have changed while it waited. */
static bool fits(const struct gate *g, const struct disk_request *req)
{
	return g->below && (req->op == DISK_FLUSH ||
			    range_inside(req->offset, req->length, g->below->geometry.size));
}

static void submit(struct gate *g, struct disk_request *req)
{
	if (g->freeze) {
		list_append(&g->held, &req->node);
		return;
	}
	if (!fits(g, req)) {
		unkeep(g, req);
		later_end(&g->refused, req, g->below ? -ENXIO : -EIO);
		return;
	}
	g->in_flight++;
	if (gate_merge_change(g, req))
		return;
	req->gate = &g->disk;
	req->gate_done = req->done;
	req->done = on_done;
	disk_submit(g->below, req);
}

static void gate_submit(struct disk *disk, struct disk_request *req)
{
	req->gate_kept = false;
	submit(gate_of(disk), req);
}

/* --- patience --- */

void gate_retry(struct gate *g)
{
	struct list batch;

	list_init(&batch);
	list_splice(&batch, &g->kept);
	while (!list_empty(&batch)) {
		struct disk_request *req = list_first(&batch, struct disk_request, node);

		list_remove(&req->node);
		g->in_flight--;
		submit(g, req);
	}
	gate_drained(g);
}

void gate_be_patient(struct gate *g, struct gate_patience *p)
{
	g->patience = p;
	while (!p && !list_empty(&g->kept)) {
		struct disk_request *req = list_first(&g->kept, struct disk_request, node);

		list_remove(&req->node);
		g->in_flight--;
		unkeep(g, req);
		later_end(&g->refused, req, (int)(intptr_t)req->layer);
	}
	gate_drained(g);
}

bool gate_waits(const struct gate *g)
{
	return g->kept_count;
}

/* --- freezing --- */

static void run_frozen(struct loop_task *t)
{
	struct gate *g = container_of(t, struct gate, task);
	struct gate_freeze *f = g->freeze;
	int result = g->frozen_result;

	if (result < 0)
		gate_thaw(g);
	f->frozen(f, result);
}

/* A task tells it, so that no request's done is on the stack: images may be closed then. */
static void on_flushed(struct disk_request *req, int result)
{
	struct gate *g = container_of(req, struct gate_freeze, flush)->gate;

	g->frozen_result = result;
	loop_defer(g->disk.loop, &g->task);
}

int gate_freeze(struct gate *g, struct gate_freeze *f)
{
	if (g->freeze)
		return -EBUSY;
	f->gate = g;
	f->flush = (struct disk_request){ .op = DISK_FLUSH, .done = on_flushed };
	g->freeze = f;
	gate_drained(g);
	return 0;
}

void gate_thaw(struct gate *g)
{
	struct list batch;

	g->freeze = NULL;
	g->flushing = false;
	list_init(&batch);
	list_splice(&batch, &g->held);
	while (!list_empty(&batch)) {
		struct disk_request *req = list_first(&batch, struct disk_request, node);

		list_remove(&req->node);
		submit(g, req);
	}
	if (g->copier)
		gate_merge_thawed(g);
}

bool gate_is_frozen(const struct gate *g)
{
	return g->freeze;
}

struct disk *gate_below(struct gate *g)
{
	return g->below;
}

void gate_refresh(struct gate *g)
{
	if (!g->below)
		return;
	g->disk.geometry = g->below->geometry;
	/* Also while a change has an image below that is not to be written: requests wait then. */
	g->disk.geometry.read_only = g->read_only;
}

void gate_replace(struct gate *g, struct disk *below)
{
	struct guid id = g->disk.geometry.id;

	g->below = below;
	gate_refresh(g);
	g->disk.geometry.id = id;
}

struct disk *gate_remove(struct gate *g)
{
	struct disk *below = g->below;

	assert(!g->in_flight && !g->kept_count && !g->freeze && !g->merging && !g->copier);
	loop_cancel(g->disk.loop, &g->task);
	later_deinit(&g->refused);
	free(g);
	return below;
}

/* --- the rest of a disk --- */

static int gate_extent(struct disk *disk, uint64_t offset, enum disk_extent_kind *ret_kind,
		       uint64_t *ret_length)
{
	struct disk *below = gate_of(disk)->below;

	if (!below)
		return -EIO;
	return below->ops->extent(below, offset, ret_kind, ret_length);
}

static int gate_resize(struct disk *disk, uint64_t size, struct error *err)
{
	struct gate *g = gate_of(disk);
	int r;

	if (!g->below)
		return error_set(err, -EIO, "the image was lost");
	if (!g->below->ops->resize)
		return error_set(err, -ENOTSUP, "%s images keep their size", g->below->ops->name);
	if (g->merging)
		return error_set(err, -EBUSY,
				 "the image is being merged; wait for the end of that");
	r = g->below->ops->resize(g->below, size, err);
	gate_refresh(g);
	return r;
}

static int gate_close(struct disk *disk, struct error *err)
{
	struct gate *g = gate_of(disk);
	int r;

	gate_merge_abandon(g);
	if (disk->loop)
		loop_cancel(disk->loop, &g->task);
	later_deinit(&g->refused);
	r = disk_close(g->below, err);
	free(g);
	return r;
}

static const struct disk_ops gate_ops = {
	.name = "gate",
	.submit = gate_submit,
	.extent = gate_extent,
	.resize = gate_resize,
	.close = gate_close,
};

struct disk *gate_new(struct disk *below)
{
	struct gate *g = calloc(1, sizeof(*g));

	if (!g) {
		disk_close(below, NULL);
		return NULL;
	}
	g->disk =
		(struct disk){ .ops = &gate_ops, .loop = below->loop, .geometry = below->geometry };
	g->below = below;
	g->read_only = below->geometry.read_only;
	list_init(&g->held);
	list_init(&g->kept);
	loop_task_init(&g->task, run_frozen);
	later_init(&g->refused, below->loop);
	return &g->disk;
}
