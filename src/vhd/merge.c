// SPDX-License-Identifier: MIT
/* See merge.h. The copying itself is a gate's (gate_merge.c), with or without a guest above it. */
#include "vhd/merge.h"

#include "lib/cleanup.h"
#include "vhd/chain.h"
#include "vhd/gate.h"
#include "vhd/rebase.h"
#include "vhd/track.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/* --- what both need --- */

/* With its parents only when options->follow: growing asks them. */
static int open_image(struct loop *loop, const char *path, bool read_only,
		      const struct disk_open_options *options, struct disk **ret, struct error *err)
{
	struct disk_open_options o = *options;
	int fd = open(path, (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);

	if (fd < 0)
		return error_errno(err, -errno, "cannot open \"%s\"%s", path,
				   read_only ? "" : " for writing");
	o.read_only = read_only;
	o.format = NULL;
	o.alone = !o.follow;
	return disk_open(loop, fd, path, &o, ret, err);
}

static const struct disk_parent *parent_of(struct disk *disk)
{
	return disk->ops->parent ? disk->ops->parent(disk) : NULL;
}

static int child_open(struct loop *loop, const char *path, const struct disk_open_options *options,
		      struct disk **ret, struct error *err)
{
	int r = open_image(loop, path, false, options, ret, err);

	if (r < 0 || parent_of(*ret))
		return r;
	disk_close(*ret, NULL);
	return error_set(err, -EINVAL, "\"%s\" is no differencing image: it has no parent", path);
}

/* The child says that the image at `path`, open as `parent`, is its parent from now on. */
static int reparent(struct disk *child, const char *child_path, struct disk *parent,
		    const char *path, struct error *err)
{
	struct disk_parent ref;
	int r = chain_name_parent(parent, path, child_path, &ref, err);

	if (r < 0)
		return r;
	r = child->ops->set_parent_ref(child, &ref, err);
	disk_parent_deinit(&ref);
	return r;
}

/* --- merging --- */

int merge_prepare(struct disk *child, struct disk *parent, struct error *err)
{
	struct disk_parent ref;
	struct guid next = guid_random();
	struct disk_identity now;
	int r = 0;

	if (parent->ops->set_next_identity) {
		if (disk_parent_copy(parent_of(child), &ref) < 0)
			return error_set(err, -ENOMEM, "out of memory");
		/* After a merge that was stopped it is the second one that is right. */
		parent->ops->identity(parent, &now);
		ref.id = now.id;
		ref.id2 = next;
		r = child->ops->set_parent_ref(child, &ref, err);
		disk_parent_deinit(&ref);
		if (r >= 0)
			parent->ops->set_next_identity(parent, &next);
	}
	if (r < 0 || parent->geometry.size >= child->geometry.size)
		return r;
	if (!parent->ops->resize)
		return error_set(err, -ENOTSUP, "the parent is smaller, and cannot be made larger");
	return parent->ops->resize(parent, child->geometry.size, err);
}

int merge_retire(struct disk *child, struct error *err)
{
	struct disk_parent ref;
	int r = disk_parent_copy(parent_of(child), &ref);

	if (r < 0)
		return error_set(err, r, "out of memory");
	ref.id = guid_random();
	ref.id2 = (struct guid){ 0 };
	r = child->ops->set_parent_ref(child, &ref, err);
	disk_parent_deinit(&ref);
	return r;
}

struct merging {
	struct gate_merge m;
	const struct merge_options *options;
	struct disk *merged;
	bool done, canceled;
	int result;
};

static void on_merged(struct gate_merge *m, int result, struct disk *merged)
{
	struct merging *mg = container_of(m, struct merging, m);

	mg->done = true;
	mg->result = result;
	mg->merged = merged;
}

static void on_progress(struct gate_merge *m, uint64_t done, uint64_t total)
{
	struct merging *mg = container_of(m, struct merging, m);

	if (mg->options->progress && !mg->options->progress(mg->options->context, done, total))
		mg->canceled = true;
}

static int merge_run(struct loop *loop, struct disk *gate, const struct merge_options *options,
		     struct error *err)
{
	struct merging mg = {
		.m = { .done = on_merged, .progress = on_progress, .depth = 16 },
		.options = options,
	};
	int r = gate_merge(gate_of(gate), &mg.m, err);

	if (r < 0)
		return r;
	while (!mg.done) {
		r = loop_once(loop, -1);
		if (r < 0)
			return error_errno(err, r, "cannot wait for I/O");
		if (mg.canceled)
			gate_merge_cancel(&mg.m);
	}
	if (mg.result == -ECANCELED)
		return error_set(
			err, mg.result,
			"merging was stopped; the chain is as it was, and the merge can be "
			"started again");
	if (mg.result < 0)
		return error_errno(err, mg.result,
				   "merging failed; the chain is as it was, and the merge can be "
				   "started again when the cause is gone");
	return disk_close(mg.merged, err);
}

static int children_reparent(struct loop *loop, const char *merged, const char *parent_path,
			     const struct merge_options *o, struct error *err)
{
	struct disk *parent = NULL, *child;
	int r = open_image(loop, parent_path, true, &o->open, &parent, err);

	for (unsigned i = 0; o->children && o->children[i] && r >= 0; i++) {
		r = child_open(loop, o->children[i], &o->open, &child, err);
		if (r < 0)
			break;
		r = reparent(child, o->children[i], parent, parent_path, err);
		if (r >= 0)
			r = disk_close(child, err);
		else
			disk_close(child, NULL);
	}
	disk_close(parent, NULL);
	return r < 0 ? error_prefix(err, "\"%s\" was merged and is kept", merged) : 0;
}

/* Both have to be given up before anything else is opened: their locks are exclusive. */
static int merge_into(struct loop *loop, struct disk *child, const char *parent_path,
		      const struct merge_options *o, struct error *err)
{
	struct disk_open_options po = o->open;
	struct disk *parent = NULL, *gate;
	int r, closed;

	po.follow = true;
	r = open_image(loop, parent_path, false, &po, &parent, err);
	if (r >= 0)
		r = chain_parent_check(child, parent, err);
	if (r >= 0)
		r = merge_prepare(child, parent, err);
	if (r < 0) {
		disk_close(parent, NULL);
		disk_close(child, NULL);
		return r;
	}
	child->ops->set_parent(child, parent);
	gate = gate_new(child);
	if (!gate)
		return error_set(err, -ENOMEM, "out of memory");
	r = merge_run(loop, gate, o, err);
	closed = disk_close(gate, r < 0 ? NULL : err);
	return r < 0 ? r : closed;
}

/* All that are named must be children of this image: found out before anything is changed. */
static int children_check(struct loop *loop, struct disk *disk, const struct merge_options *o,
			  struct error *err)
{
	for (unsigned i = 0; o->children && o->children[i]; i++) {
		struct disk *child;
		int r = child_open(loop, o->children[i], &o->open, &child, err);

		if (r < 0)
			return r;
		r = chain_parent_check(child, disk, err);
		if (r >= 0 && !child->ops->set_parent_ref)
			r = error_set(err, -ENOTSUP, "its parent cannot be changed");
		disk_close(child, NULL);
		if (r < 0)
			return error_prefix(err, "\"%s\"", o->children[i]);
	}
	return 0;
}

int image_merge(struct loop *loop, const char *path, const struct merge_options *options,
		struct error *err)
{
	_cleanup_free_ char *parent_path = NULL;
	struct disk *child;
	int r = child_open(loop, path, &options->open, &child, err);

	if (r < 0)
		return r;
	r = chain_parent_path(child, path, &options->open, &parent_path, err);
	if (r >= 0)
		r = children_check(loop, child, options, err);
	if (r < 0) {
		disk_close(child, NULL);
		return error_prefix(err, "%s", path);
	}
	r = merge_into(loop, child, parent_path, options, err);
	if (r >= 0)
		r = children_reparent(loop, path, parent_path, options, err);
	if (r >= 0 && !options->keep) {
		/* Its points are of no use to the parent, which has its own. */
		r = track_delete(path, err);
		r = r == -ENOENT ? 0 : r;
		if (r >= 0 && unlink(path) < 0)
			r = error_errno(err, -errno, "\"%s\" was merged but cannot be deleted",
					path);
	}
	return r;
}

/* --- another parent --- */

int image_rebase(struct loop *loop, const char *path, const char *parent_path,
		 const struct rebase_options *options, struct error *err)
{
	struct disk_open_options open = options->open;
	struct disk *child, *parent;
	int r, closed;

	open.follow = options->copy;
	r = child_open(loop, path, &open, &child, err);
	if (r < 0)
		return r;
	r = open_image(loop, parent_path, true, &open, &parent, err);
	if (r >= 0) {
		if (options->copy)
			r = rebase_copy(child, parent, options, err);
		else if (!options->any_identity)
			r = chain_parent_check(child, parent, err);
		if (r >= 0)
			r = reparent(child, path, parent, parent_path, err);
		disk_close(parent, NULL);
	}
	closed = disk_close(child, r < 0 ? NULL : err);
	return r < 0 ? error_prefix(err, "%s", path) : closed;
}
