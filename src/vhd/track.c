// SPDX-License-Identifier: MIT
/*
 * See track.h. For every granule of the disk the map has the generation of its last change. A point
 * begins a new generation, so what changed since it are the granules of that generation or a later
 * one: points cost nothing but their entry.
 *
 * Why no change is ever missed:
 *
 * - A write goes down only when a slot that is durable has the bit of each region that it touches.
 *   The slot says "in use" then. Whoever finds it so takes all granules of these regions for
 * changed in the newest generation. One slot takes the bits of all writes that wait.
 * - Pages of the map are written in place, at closing and at points. Their entries only grow, so
 * any mixture of old and new ones is right together with the bits. A torn page has a wrong sum, and
 *   counts as changed whole.
 * - Bits are dropped only by a slot that follows pages which are durable: at a point, which begins
 * a new generation, and at closing, when the image below is closed already. At a point the bits of
 *   writes under way are in the new slot too, and so are their granules in the new generation.
 * - After a slot failed to be written the file may have either of two. Nothing goes down before a
 *   later one is durable.
 * - That nobody else wrote is known by the tie of the file; after a crash by the image's identity,
 *   which every writer of the format changes, or else by the lease: we did not write after it ends.
 */
#include "vhd/track.h"

#include "lib/cleanup.h"
#include "vhd/track_format.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#define SECOND      UINT64_C(1000000000)
#define LEASE       (60 * SECOND) /* who writes all the time writes a slot every half of it */
#define LEASE_SLACK (60 * SECOND) /* that I/O may be late */

struct track {
	struct disk disk;
	struct disk_ops ops; /* those of below: what it cannot do we cannot */
	struct disk *below;
	struct store *file;
	struct track_image *image;
	bool read_only, leased;

	struct track_slot slot; /* as it is to be */
	uint16_t *map;          /* pages of TRACK_PER_PAGE */
	bool *dirty;            /* pages that the file does not have so */
	uint64_t pages;

	uint8_t durable[TRACK_REGIONS_MAX / 8]; /* bits of the slot that is durable */
	uint64_t lease;                         /* of that one */
	bool stale;                             /* a newer slot must be durable first */

	struct list in_flight, held; /* disk_request.tracker_node; changes only */
	bool committing, paused;
	uint8_t sent[TRACK_REGIONS_MAX / 8];
	uint8_t next[TRACK_REGIONS_MAX / 8]; /* of a point that is being made */
	uint8_t bytes[TRACK_SLOT_SIZE];
	struct iovec iov;
	struct store_io io;
};

static void track_submit(struct disk *disk, struct disk_request *req);

struct track *track_of(struct disk *disk)
{
	return disk->ops->submit == track_submit ? container_of(disk, struct track, disk) : NULL;
}

static struct track *of(struct disk *disk)
{
	return container_of(disk, struct track, disk);
}

/* --- the map --- */

static void page_fill(struct track *t, uint64_t page, uint16_t value)
{
	for (unsigned i = 0; i < TRACK_PER_PAGE; i++)
		t->map[page * TRACK_PER_PAGE + i] = value;
	t->dirty[page] = true;
}

/* Granules `first` to `end`, as far as there are such. */
static void map_mark(struct track *t, uint64_t first, uint64_t end, uint16_t generation)
{
	end = MIN(end, t->pages * TRACK_PER_PAGE);
	for (uint64_t i = first; i < end; i++) {
		t->map[i] = MAX(t->map[i], generation);
		t->dirty[i / TRACK_PER_PAGE] = true;
	}
}

static void mark(struct track *t, uint64_t offset, uint64_t length, uint16_t generation)
{
	if (length)
		map_mark(t, offset >> t->slot.shift, ((offset + length - 1) >> t->slot.shift) + 1,
			 generation);
}

static int map_new(struct track *t)
{
	uint64_t granules = track_granules(t->slot.size, t->slot.shift);

	t->pages = (granules + TRACK_PER_PAGE - 1) / TRACK_PER_PAGE;
	t->map = calloc(t->pages * TRACK_PER_PAGE, sizeof(*t->map));
	t->dirty = calloc(t->pages, sizeof(*t->dirty));
	return t->map && t->dirty ? 0 : -ENOMEM;
}

/* As map_new, with what the old one has; what is new is taken for changed. */
static int map_resize(struct track *t)
{
	uint16_t *map = t->map;
	bool *dirty = t->dirty;
	uint64_t pages = t->pages, keep;
	int r = map_new(t);

	if (r < 0) {
		free(t->map);
		free(t->dirty);
		t->map = map;
		t->dirty = dirty;
		t->pages = pages;
		return r;
	}
	keep = MIN(pages, t->pages);
	memcpy(t->map, map, keep * TRACK_PER_PAGE * sizeof(*map));
	memcpy(t->dirty, dirty, keep * sizeof(*dirty));
	for (uint64_t p = keep; p < t->pages; p++)
		page_fill(t, p, t->slot.generation);
	free(map);
	free(dirty);
	return 0;
}

/* Also reads what is not there, as zeros: pages that are not valid, thus changed. */
static int map_load(struct track *t)
{
	uint8_t bytes[TRACK_PAGE_SIZE];

	for (uint64_t p = 0; p < t->pages; p++) {
		int r = store_read(t->file, bytes, sizeof(bytes), TRACK_PAGE(p));

		if (r < 0)
			return r;
		if (!track_page_decode(&t->slot.id, p, bytes, t->map + p * TRACK_PER_PAGE))
			page_fill(t, p, t->slot.generation);
	}
	return 0;
}

static int map_save(struct track *t)
{
	uint8_t bytes[TRACK_PAGE_SIZE];
	int r = 0;

	for (uint64_t p = 0; p < t->pages && r >= 0; p++) {
		if (!t->dirty[p])
			continue;
		track_page_encode(&t->slot.id, p, t->map + p * TRACK_PER_PAGE, bytes);
		r = store_write(t->file, bytes, sizeof(bytes), TRACK_PAGE(p));
	}
	if (r >= 0)
		r = store_sync(t->file);
	/* Not before: a page that may be lost has to be written again. */
	if (r >= 0)
		memset(t->dirty, 0, t->pages * sizeof(*t->dirty));
	return r;
}

/* --- bits --- */

static void span_of(const struct track *t, uint64_t offset, uint64_t length, uint64_t *ret_first,
		    uint64_t *ret_last)
{
	*ret_first = (offset >> t->slot.shift) / TRACK_REGION;
	*ret_last = ((offset + length - 1) >> t->slot.shift) / TRACK_REGION;
	*ret_last = MIN(*ret_last, TRACK_REGIONS_MAX - 1);
}

static void bits_set(struct track *t, uint8_t *bits, uint64_t offset, uint64_t length)
{
	uint64_t first, last;

	if (!length)
		return;
	span_of(t, offset, length, &first, &last);
	for (uint64_t i = first; i <= last; i++)
		bits[i / 8] |= (uint8_t)(1 << i % 8);
}

static bool bits_durable(const struct track *t, uint64_t offset, uint64_t length)
{
	uint64_t first, last;

	span_of(t, offset, length, &first, &last);
	for (uint64_t i = first; i <= last; i++)
		if (!(t->durable[i / 8] & 1 << i % 8))
			return false;
	return true;
}

/* --- slots --- */

static void slot_prepare(struct track *t)
{
	t->slot.lease = t->image->now(t->image) + LEASE;
	t->slot.sequence++;
	memcpy(t->sent, t->slot.coarse, sizeof(t->sent));
	track_slot_encode(&t->slot, t->bytes);
}

static int slot_settle(struct track *t, int result)
{
	if (result < 0) {
		/* The next one takes the same place: the one before stays what it was. */
		t->slot.sequence--;
		t->stale = true;
		return result;
	}
	memcpy(t->durable, t->sent, sizeof(t->durable));
	t->lease = t->slot.lease;
	t->stale = false;
	return 0;
}

static int commit_now(struct track *t)
{
	int r;

	assert(!t->committing);
	slot_prepare(t);
	r = store_write(t->file, t->bytes, sizeof(t->bytes), TRACK_SLOT(t->slot.sequence & 1));
	if (r >= 0)
		r = store_sync(t->file);
	return slot_settle(t, r);
}

static void retry_held(struct track *t, int failed);

static void on_committed(struct store_io *io, int result)
{
	struct track *t = container_of(io, struct track, io);

	t->committing = false;
	/* What waited for a slot that failed fails too; later writes try again. */
	retry_held(t, slot_settle(t, result));
}

static void on_slot_written(struct store_io *io, int result)
{
	struct track *t = container_of(io, struct track, io);

	if (result < 0) {
		on_committed(io, result);
		return;
	}
	t->io = (struct store_io){ .op = STORE_FLUSH, .done = on_committed };
	store_submit(t->file, &t->io);
}

static void commit_start(struct track *t)
{
	if (t->committing || t->paused)
		return;
	t->committing = true;
	slot_prepare(t);
	t->iov = (struct iovec){ t->bytes, sizeof(t->bytes) };
	t->io = (struct store_io){
		.op = STORE_WRITE,
		.offset = TRACK_SLOT(t->slot.sequence & 1),
		.length = sizeof(t->bytes),
		.iov = &t->iov,
		.iovcnt = 1,
		.done = on_slot_written,
	};
	store_submit(t->file, &t->io);
}

/* --- requests --- */

static void on_done(struct disk_request *req, int result)
{
	req->done = req->tracker_done;
	list_remove(&req->tracker_node);
	req->done(req, result);
}

static void pass_down(struct track *t, struct disk_request *req)
{
	mark(t, req->offset, req->length, t->slot.generation);
	list_append(&t->in_flight, &req->tracker_node);
	req->tracker = &t->disk;
	req->tracker_done = req->done;
	req->done = on_done;
	disk_submit(t->below, req);
}

static bool lease_ends(struct track *t, uint64_t before)
{
	return t->leased && t->image->now(t->image) + before > t->lease;
}

static bool may_pass(struct track *t, const struct disk_request *req)
{
	return !t->paused && !t->stale && bits_durable(t, req->offset, req->length) &&
	       !lease_ends(t, 0);
}

static void change_submit(struct track *t, struct disk_request *req)
{
	if (may_pass(t, req)) {
		pass_down(t, req);
		if (lease_ends(t, LEASE / 2))
			commit_start(t);
		return;
	}
	bits_set(t, t->slot.coarse, req->offset, req->length);
	list_append(&t->held, &req->tracker_node);
	commit_start(t);
}

static void retry_held(struct track *t, int failed)
{
	struct list batch;

	list_init(&batch);
	list_splice(&batch, &t->held);
	while (!list_empty(&batch)) {
		struct disk_request *req = list_first(&batch, struct disk_request, tracker_node);

		list_remove(&req->tracker_node);
		if (failed < 0 && !t->paused)
			req->done(req, failed);
		else
			change_submit(t, req);
	}
}

static void track_submit(struct disk *disk, struct disk_request *req)
{
	struct track *t = of(disk);

	if (t->read_only || req->op == DISK_READ || req->op == DISK_FLUSH || !req->length)
		disk_submit(t->below, req);
	else
		change_submit(t, req);
}

/* --- blocking changes --- */

/* Until resume no slot is under way and no change goes down; those that are go on. */
static int hold_back(struct track *t)
{
	int r = 0;

	t->paused = true;
	while (t->committing && r >= 0)
		r = loop_once(t->disk.loop, -1);
	if (r < 0)
		t->paused = false;
	return r;
}

static void resume(struct track *t)
{
	t->paused = false;
	retry_held(t, 0);
}

static int refuse_read_only(const struct track *t, struct error *err)
{
	return t->read_only ? error_set(err, -EROFS,
					"the image is open for reading only; open it for "
					"writing to change its points")
			    : 0;
}

static const char not_saved[] = "the track file of the image cannot be written";

static void lose(struct track *t, enum track_lost why)
{
	for (unsigned i = 0; i < t->slot.count; i++)
		if (!t->slot.points[i].lost)
			t->slot.points[i].lost = (uint8_t)why;
}

/* Generations are used up: with no point that counts, all may be 1 again. */
static int begin_again(struct track *t)
{
	int r;

	lose(t, TRACK_LOST_AGE);
	r = commit_now(t);
	if (r < 0)
		return r;
	for (uint64_t p = 0; p < t->pages; p++)
		page_fill(t, p, 0);
	r = map_save(t);
	if (r < 0)
		return r;
	t->slot.generation = 1;
	for (unsigned i = 0; i < t->slot.count; i++)
		t->slot.points[i].generation = 1;
	return 0;
}

struct flush {
	struct disk_request req;
	bool done;
	int result;
};

static void on_flushed(struct disk_request *req, int result)
{
	struct flush *f = container_of(req, struct flush, req);

	f->done = true;
	f->result = result;
}

static int flush_image(struct track *t)
{
	struct flush f = { .req = { .op = DISK_FLUSH, .done = on_flushed } };

	disk_submit(t->below, &f.req);
	while (!f.done) {
		int r = loop_once(t->disk.loop, -1);

		/* The request is on our stack: it has to come back. */
		if (r < 0 && r != -EINTR)
			abort();
	}
	return f.result;
}

/*
 * A change that was done before the point is durable there: else a power cut would take it back,
 * which is a change after it. The flush does that but for what is under way, which counts as later.
 */
static int point_prepare(struct track *t, struct track_slot *s)
{
	int r;

	if (s->generation == TRACK_GENERATION_MAX) {
		r = begin_again(t);
		if (r < 0)
			return r;
	}
	memset(t->next, 0, sizeof(t->next));
	list_foreach(it, &t->in_flight)
	{
		struct disk_request *req = list_entry(it, struct disk_request, tracker_node);

		bits_set(t, t->next, req->offset, req->length);
		mark(t, req->offset, req->length, (uint16_t)(s->generation + 1));
	}
	r = flush_image(t);
	return r < 0 ? r : map_save(t);
}

static int point_commit(struct track *t, struct guid *ret_id)
{
	_cleanup_free_ struct track_slot *before = malloc(sizeof(*before));
	struct track_slot *s = &t->slot;
	int r = before ? point_prepare(t, s) : -ENOMEM;

	if (r < 0)
		return r;
	/* What waits has set bits meanwhile; it asks again afterwards. */
	*before = *s;
	s->generation++;
	s->points[s->count++] = (struct track_point){
		.id = guid_random(),
		.time = t->image->now(t->image),
		.generation = s->generation,
	};
	memcpy(s->coarse, t->next, sizeof(s->coarse));
	r = commit_now(t);
	if (r < 0)
		*s = *before;
	else
		*ret_id = s->points[s->count - 1].id;
	return r;
}

int track_point(struct track *t, struct guid *ret_id, struct error *err)
{
	int r = refuse_read_only(t, err);

	if (r < 0)
		return r;
	if (t->slot.count == TRACK_POINTS_MAX)
		return error_set(err, -ENOSPC,
				 "there are %u points already; drop those that no backup needs",
				 TRACK_POINTS_MAX);
	r = hold_back(t);
	if (r < 0)
		return error_errno(err, r, "cannot wait for I/O");
	r = point_commit(t, ret_id);
	resume(t);
	return r < 0 ? error_errno(err, r, "%s, and there is no new point", not_saved) : 0;
}

static int find_point(const struct track *t, const struct guid *id, unsigned *ret,
		      struct error *err)
{
	char text[GUID_TEXT_SIZE];

	for (unsigned i = 0; i < t->slot.count; i++) {
		if (guid_equal(&t->slot.points[i].id, id)) {
			*ret = i;
			return 0;
		}
	}
	return error_set(err, -ENOENT,
			 "there is no point %s, so everything may have changed since; make a full "
			 "backup and a new point",
			 guid_format(id, text));
}

int track_drop(struct track *t, const struct guid *id, struct error *err)
{
	struct track_point *p = t->slot.points;
	unsigned i;
	int r = refuse_read_only(t, err);

	if (r >= 0)
		r = find_point(t, id, &i, err);
	if (r < 0)
		return r;
	r = hold_back(t);
	if (r < 0)
		return error_errno(err, r, "cannot wait for I/O");
	memmove(p + i, p + i + 1, (t->slot.count - i - 1) * sizeof(*p));
	t->slot.count--;
	r = commit_now(t);
	resume(t);
	return r < 0 ? error_errno(err, r, "%s; the point may come back", not_saved) : 0;
}

const struct track_point *track_points(const struct track *t, unsigned *ret_count)
{
	*ret_count = t->slot.count;
	return t->slot.points;
}

uint64_t track_granularity(const struct track *t)
{
	return BIT64(t->slot.shift);
}

struct disk *track_below(struct track *t)
{
	return t->below;
}

const char *track_lost_words(enum track_lost lost)
{
	static const char *const words[] = {
		[TRACK_KNOWN] = "nothing is lost",
		[TRACK_LOST_OTHER] = "the image was changed, moved or replaced where nobody "
				     "tracked it",
		[TRACK_LOST_PARENT] = "the image got another parent",
		[TRACK_LOST_SIZE] = "the disk became much larger",
		[TRACK_LOST_AGE] = "there were too many points since",
	};

	return words[lost];
}

int track_query(struct track *t, const struct guid *since, uint64_t offset, uint64_t length,
		int (*changed)(void *context, uint64_t offset, uint64_t length), void *context,
		struct error *err)
{
	uint64_t granule = BIT64(t->slot.shift), end, start = 0;
	const struct track_point *p;
	bool open = false;
	unsigned i;
	int r = find_point(t, since, &i, err);

	if (r < 0)
		return r;
	p = &t->slot.points[i];
	if (p->lost)
		return error_set(err, -ESTALE,
				 "everything may have changed since that point: %s; make a full "
				 "backup and a new point",
				 track_lost_words(p->lost));
	if (offset >= t->disk.geometry.size)
		return 0;
	end = offset + MIN(length, t->disk.geometry.size - offset);
	for (uint64_t at = offset; at < end && !r; at = (at & ~(granule - 1)) + granule) {
		bool is = t->map[at >> t->slot.shift] >= p->generation;

		if (is && !open)
			start = at;
		else if (!is && open)
			r = changed(context, start, at - start);
		open = is;
	}
	return !r && open ? changed(context, start, end - start) : r;
}

/* --- the rest of a disk: nothing of it changes what a guest reads, but where it says so --- */

static void refresh(struct track *t)
{
	t->disk.geometry = t->below->geometry;
	t->disk.below = t->below->below;
}

static int track_extent(struct disk *disk, uint64_t offset, enum disk_extent_kind *ret_kind,
			uint64_t *ret_length)
{
	struct disk *below = of(disk)->below;

	return below->ops->extent(below, offset, ret_kind, ret_length);
}

static int track_held(struct disk *disk, uint64_t offset, enum disk_held *ret_held,
		      uint64_t *ret_length)
{
	struct disk *below = of(disk)->below;

	return below->ops->held(below, offset, ret_held, ret_length);
}

static void track_identity(struct disk *disk, struct disk_identity *ret)
{
	struct disk *below = of(disk)->below;

	below->ops->identity(below, ret);
}

static const struct disk_parent *track_parent(struct disk *disk)
{
	struct disk *below = of(disk)->below;

	return below->ops->parent(below);
}

static void track_set_parent(struct disk *disk, struct disk *parent)
{
	struct track *t = of(disk);

	t->below->ops->set_parent(t->below, parent);
	refresh(t);
}

/* Another parent may be other data; that it is not is only known to who says so. */
static int track_set_parent_ref(struct disk *disk, const struct disk_parent *parent,
				struct error *err)
{
	struct track *t = of(disk);
	int r;

	if (!t->read_only && t->slot.count) {
		r = hold_back(t);
		if (r >= 0) {
			lose(t, TRACK_LOST_PARENT);
			r = commit_now(t);
			resume(t);
		}
		if (r < 0)
			return error_errno(err, r, "%s", not_saved);
	}
	return t->below->ops->set_parent_ref(t->below, parent, err);
}

/* Nothing has been written: the slot with the new identity is durable before anything is. */
static void track_set_next_identity(struct disk *disk, const struct guid *id)
{
	struct track *t = of(disk);

	t->slot.next = *id;
	t->stale = true;
	t->below->ops->set_next_identity(t->below, id);
}

static unsigned shift_for(uint64_t size)
{
	unsigned shift = TRACK_SHIFT_USUAL;

	while (track_granules(size, shift) > TRACK_GRANULES_MAX)
		shift++;
	return shift;
}

/*
 * Takes another size of the disk for granted: what is between the two has changed. Generations in
 * the map stay when granules become larger: no point that counts asks for them.
 */
static int size_set(struct track *t, uint64_t size)
{
	uint64_t old = t->slot.size;
	int r;

	t->slot.size = MAX(size, old);
	if (track_granules(t->slot.size, t->slot.shift) > TRACK_GRANULES_MAX) {
		t->slot.shift = shift_for(t->slot.size);
		lose(t, TRACK_LOST_SIZE);
		memset(t->slot.coarse, 0xff, sizeof(t->slot.coarse));
	}
	r = map_resize(t);
	if (r < 0)
		return r;
	mark(t, MIN(old, size), MAX(old, size) - MIN(old, size), t->slot.generation);
	bits_set(t, t->slot.coarse, MIN(old, size), MAX(old, size) - MIN(old, size));
	t->slot.size = size;
	return 0;
}

static int track_resize(struct disk *disk, uint64_t size, struct error *err)
{
	struct track *t = of(disk);
	uint64_t old = t->slot.size;
	int r;

	if (t->read_only || !size || size > INT64_MAX || t->below->geometry.read_only)
		return t->below->ops->resize(t->below, size, err);
	r = hold_back(t);
	if (r < 0)
		return error_errno(err, r, "cannot wait for I/O");
	/* Both sizes' granules are marked before; the size that is found when it opens is right. */
	r = size_set(t, size);
	if (r >= 0)
		r = commit_now(t);
	if (r < 0) {
		t->slot.size = old;
		resume(t);
		return error_errno(err, r, "%s", not_saved);
	}
	r = t->below->ops->resize(t->below, size, err);
	refresh(t);
	/* It may have failed, or be another one by the format's rules. */
	if (t->slot.size != t->disk.geometry.size) {
		if (size_set(t, t->disk.geometry.size) < 0)
			lose(t, TRACK_LOST_SIZE);
		t->stale = true;
	}
	resume(t);
	return r;
}

static int track_compact(struct disk *disk, const struct disk_compact_options *options,
			 struct error *err)
{
	struct disk *below = of(disk)->below;

	return below->ops->compact(below, options, err);
}

static void track_free(struct track *t)
{
	free(t->map);
	free(t->dirty);
	free(t);
}

static int close_clean(struct track *t)
{
	int r = t->image->look(t->image, true, &t->slot.tie);

	if (r < 0)
		return r;
	t->slot.in_use = false;
	memset(t->slot.coarse, 0, sizeof(t->slot.coarse));
	return commit_now(t);
}

static int track_close(struct disk *disk, struct error *err)
{
	struct track *t = of(disk);
	struct disk_identity id = { 0 };
	int r = t->read_only ? 0 : hold_back(t), closed;

	if (r >= 0 && !t->read_only)
		r = map_save(t);
	if (t->below->ops->identity)
		t->below->ops->identity(t->below, &id);
	t->slot.identity = id.id;
	closed = disk_close(t->below, err);
	if (r >= 0 && closed >= 0 && !t->read_only)
		r = close_clean(t);
	store_close(t->file);
	t->image->free(t->image);
	track_free(t);
	if (closed >= 0 && r < 0)
		return error_errno(err, r,
				   "the image is closed and well, but its track file cannot be "
				   "written: more than what has changed will be reported");
	return closed;
}

int track_end(struct track *t, struct disk **ret, struct error *err)
{
	int r = hold_back(t);

	if (r < 0)
		return error_errno(err, r, "cannot wait for I/O");
	/* Whoever finds the file later must not believe that it has all changes. */
	lose(t, TRACK_LOST_OTHER);
	r = t->read_only ? 0 : commit_now(t);
	if (r < 0) {
		resume(t);
		return error_errno(err, r, "%s", not_saved);
	}
	*ret = t->below;
	store_close(t->file);
	t->image->free(t->image);
	track_free(t);
	return 0;
}

static struct disk_ops ops_above(const struct disk_ops *b)
{
	return (struct disk_ops){
		.name = b->name,
		.submit = track_submit,
		.extent = track_extent,
		.held = b->held ? track_held : NULL,
		.identity = b->identity ? track_identity : NULL,
		.parent = b->parent ? track_parent : NULL,
		.set_parent = b->set_parent ? track_set_parent : NULL,
		.set_parent_ref = b->set_parent_ref ? track_set_parent_ref : NULL,
		.set_next_identity = b->set_next_identity ? track_set_next_identity : NULL,
		.resize = b->resize ? track_resize : NULL,
		.compact = b->compact ? track_compact : NULL,
		.close = track_close,
	};
}

/* --- opening --- */

/* The newer valid slot; else the best that can be said of them. */
static int slots_load(struct track *t)
{
	_cleanup_free_ struct track_slot *s = malloc(sizeof(*s));
	uint8_t bytes[TRACK_SLOT_SIZE];
	int found = -EINVAL;

	if (!s)
		return -ENOMEM;
	for (unsigned n = 0; n < 2; n++) {
		int r = store_read(t->file, bytes, sizeof(bytes), TRACK_SLOT(n));

		if (r < 0)
			return r;
		r = track_slot_decode(bytes, s);
		if (r >= 0 && (s->sequence & 1) != n)
			r = -EBADMSG;
		if (r < 0) {
			if (found != 0 && (r == -ENOTSUP || found == -EINVAL))
				found = r;
			continue;
		}
		if (found != 0 || s->sequence > t->slot.sequence)
			t->slot = *s;
		found = 0;
	}
	return found;
}

static int slots_words(int r, struct error *err)
{
	switch (r) {
	case -EINVAL:
		return error_set(err, r, "it is no track file; move it away");
	case -ENOTSUP:
		return error_set(err, r, "it is a track file of a later version of this program");
	case -EBADMSG:
		return error_set(err, r,
				 "it is damaged, and everything may have changed: disable and "
				 "enable tracking, and make a full backup");
	}
	return error_errno(err, r, "cannot read it");
}

static void begin(struct track *t, unsigned shift)
{
	t->slot = (struct track_slot){
		.id = guid_random(),
		.size = t->below->geometry.size,
		.shift = shift ? shift : shift_for(t->below->geometry.size),
		.generation = 1,
	};
}

/* Whether only we have written to the image since the slot. */
static bool tie_holds(const struct track *t, const struct track_tie *tie)
{
	const struct track_slot *s = &t->slot;
	struct disk_identity id = { 0 };

	if (t->below->ops->identity)
		t->below->ops->identity(t->below, &id);
	if (!guid_equal(&id.id, &s->identity) &&
	    (!s->in_use || !t->below->ops->set_next_identity || !guid_equal(&id.id, &s->next)))
		return false;
	if (!s->in_use)
		return !memcmp(tie, &s->tie, sizeof(*tie));
	return tie->inode == s->tie.inode && (!t->leased || s->lease > UINT64_MAX - LEASE_SLACK ||
					      tie->modified <= s->lease + LEASE_SLACK);
}

static void recover(struct track *t, const struct track_tie *tie)
{
	if (!tie_holds(t, tie))
		lose(t, TRACK_LOST_OTHER);
	for (uint64_t i = 0; t->slot.in_use && i < TRACK_REGIONS_MAX; i++)
		if (t->slot.coarse[i / 8] & 1 << i % 8)
			map_mark(t, i * TRACK_REGION, (i + 1) * TRACK_REGION, t->slot.generation);
	if (!t->slot.in_use)
		memset(t->slot.coarse, 0, sizeof(t->slot.coarse));
}

static int load(struct track *t, const struct track_options *o, struct error *err)
{
	int r = o->create ? -EBADMSG : slots_load(t);

	if (r == -EBADMSG && !o->read_only)
		begin(t, o->shift);
	else if (r < 0)
		return slots_words(r, err);
	if (map_new(t) < 0)
		return error_set(err, -ENOMEM, "out of memory");
	/* With a new id no page is valid, and all are changed: for the first point that is past. */
	r = map_load(t);
	if (r < 0)
		return error_errno(err, r, "cannot read it");
	recover(t, &o->tie);
	if (t->slot.size != t->below->geometry.size && size_set(t, t->below->geometry.size) < 0)
		return error_set(err, -ENOMEM, "out of memory");
	return 0;
}

/* From here on the file says that it is in use, and by what the image is to be known after. */
static int take(struct track *t, const struct track_options *o, struct error *err)
{
	struct disk_identity id = { 0 };
	int r = 0;

	if (t->below->ops->identity)
		t->below->ops->identity(t->below, &id);
	t->slot.identity = id.id;
	t->slot.in_use = true;
	t->slot.tie = o->tie;
	t->slot.next = guid_random();
	/* Its whole space is taken at once: later writes are in place. */
	if (o->create)
		r = map_save(t);
	if (r >= 0)
		r = commit_now(t);
	if (r < 0)
		return error_errno(err, r, "cannot write it");
	if (t->below->ops->set_next_identity)
		t->below->ops->set_next_identity(t->below, &t->slot.next);
	return 0;
}

int track_new(struct disk *below, struct store *file, struct track_image *image,
	      const struct track_options *options, struct disk **ret, struct error *err)
{
	struct track *t = calloc(1, sizeof(*t));
	int r;

	if (!t)
		return error_set(err, -ENOMEM, "out of memory");
	t->ops = ops_above(below->ops);
	t->disk = (struct disk){ .ops = &t->ops, .loop = below->loop };
	t->below = below;
	t->file = file;
	t->image = image;
	t->read_only = options->read_only;
	t->leased = !below->ops->set_next_identity;
	list_init(&t->in_flight);
	list_init(&t->held);
	refresh(t);
	r = below->geometry.size ? load(t, options, err)
				 : error_set(err, -EINVAL, "a disk of no size has no changes");
	if (r >= 0 && !t->read_only)
		r = take(t, options, err);
	if (r < 0)
		track_free(t);
	else
		*ret = &t->disk;
	return r;
}
