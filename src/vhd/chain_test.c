// SPDX-License-Identifier: MIT
/*
 * Chains of images in files: random sequences of requests, snapshots, merges, resizing, compacting
 * and reopening against a plain array; deep chains; parents that are missing, wrong or in a circle;
 * and merging while a guest goes on.
 */
#include "vhd/chain.h"

#include "lib/cleanup.h"
#include "vhd/disk_drive.h"
#include "vhd/disk_model.h"
#include "vhd/gate.h"
#include "vhd/image.h"
#include "vhd/merge.h"
#include "vhd/vhd.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cmocka.h>

static struct loop *loop;
/* In memory: the many flushes would take minutes on a disk that is busy. */
static char folder[] = "/dev/shm/partita-chain-XXXXXX";

static int run(const char *format, ...)
{
	char command[1024];
	va_list ap;
	int n = snprintf(command, sizeof(command), "cd %s && ", folder);

	va_start(ap, format);
	vsnprintf(command + n, sizeof(command) - (size_t)n, format, ap);
	va_end(ap);
	return system(command);
}

static const char *path_of(unsigned level)
{
	static char paths[4][256];
	static unsigned next;
	char *path = paths[next++ % 4];

	snprintf(path, sizeof(paths[0]), "%s/%u.vhdx", folder, level);
	return path;
}

static int try_open(const char *path, bool read_only, struct disk **ret, struct error *err)
{
	const struct disk_open_options o = { .read_only = read_only, .follow = true };
	int fd = open(path, (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);

	assert_true(fd >= 0);
	return disk_open(loop, fd, path, &o, ret, err);
}

static struct disk *open_ok(unsigned level)
{
	struct error err = { 0 };
	struct disk *d = NULL;

	if (try_open(path_of(level), false, &d, &err) < 0)
		fail_msg("%s", err.message);
	return d;
}

static void close_ok(struct disk *d)
{
	struct error err = { 0 };

	if (disk_close(d, &err) < 0)
		fail_msg("%s", err.message);
}

/* Whether images are VHD; options are VHDX's either way. */
static bool vhd;

static int create_vhd(int fd, const struct vhdx_create_options *o, struct error *err)
{
	struct vhd_create_options vo = {
		.size = o->size,
		.block_size = o->fixed ? 0 : o->block_size,
		.kind = o->fixed ? VHD_FIXED : VHD_DYNAMIC,
	};

	if (o->parent) {
		vo.kind = VHD_DIFFERENCING;
		vo.parent = (struct disk_identity){ o->parent->id, o->parent->timestamp };
		vo.relative = o->parent->relative;
		vo.absolute = o->parent->absolute;
	}
	return vhd_create(fd, &vo, err);
}

static void create(unsigned level, const struct vhdx_create_options *o)
{
	_cleanup_close_ int fd = open(path_of(level), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	struct error err = { 0 };

	assert_true(fd >= 0);
	if ((vhd ? create_vhd : vhdx_create)(fd, o, &err) < 0)
		fail_msg("%s", err.message);
}

/* A child at `level` of the image below it. */
static void snapshot(unsigned level, const struct vhdx_create_options *like)
{
	struct vhdx_create_options o = *like;
	struct disk_parent ref = { 0 };
	struct error err = { 0 };
	struct disk *parent = NULL;

	assert_int_equal(try_open(path_of(level - 1), true, &parent, &err), 0);
	if (chain_name_parent(parent, path_of(level - 1), path_of(level), &ref, &err) < 0)
		fail_msg("%s", err.message);
	o.size = parent->geometry.size;
	o.id = parent->geometry.id;
	o.parent = &ref;
	o.fixed = false;
	create(level, &o);
	disk_parent_deinit(&ref);
	close_ok(parent);
}

static void on_found(struct check_report *r, enum check_kind kind, const char *text)
{
	(void)r;
	if (kind == CHECK_DAMAGE)
		print_message("check: %s\n", text);
}

static void check_ok(unsigned level)
{
	struct check_report report = { .found = on_found };
	struct error err = { 0 };
	int fd = open(path_of(level), O_RDONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	if (image_check(fd, path_of(level), &report, &err) < 0)
		fail_msg("%s", err.message);
	assert_int_equal(report.counts[CHECK_DAMAGE], 0);
}

/* --- random sequences --- */

struct history {
	struct model m;
	struct vhdx_create_options o;
	unsigned level; /* of the top */
};

static void expect_size(struct history *h, uint64_t size)
{
	h->m.expect = realloc(h->m.expect, size);
	assert_non_null(h->m.expect);
	if (size > h->m.size)
		memset(h->m.expect + h->m.size, 0, size - h->m.size);
	h->m.size = size;
}

static void do_merge(struct history *h)
{
	const struct merge_options mo = { 0 };
	struct error err = { 0 };

	close_ok(h->m.d);
	if (image_merge(loop, path_of(h->level), &mo, &err) < 0)
		fail_msg("%s", err.message);
	assert_int_equal(access(path_of(h->level), F_OK), -1);
	h->m.d = open_ok(--h->level);
}

/* The image in the middle goes; the one above it gets its parent. */
static void do_merge_middle(struct history *h)
{
	char top[256], moved[256];
	const char *const children[] = { top, NULL };
	const struct merge_options mo = { .children = children };
	struct error err = { 0 };

	snprintf(top, sizeof(top), "%s", path_of(h->level));
	snprintf(moved, sizeof(moved), "%s", path_of(h->level - 1));
	close_ok(h->m.d);
	if (image_merge(loop, moved, &mo, &err) < 0)
		fail_msg("%s", err.message);
	assert_int_equal(rename(top, moved), 0);
	h->m.d = open_ok(--h->level);
}

static void do_resize(struct history *h)
{
	uint64_t size = h->m.size + (model_pick(&h->m, 8) + 1) * MIB;
	struct error err = { 0 };

	if (!h->level && model_pick(&h->m, 2) && h->m.size > 6 * MIB)
		size = h->m.size - (model_pick(&h->m, 4) + 1) * MIB - h->o.logical_sector;
	if (h->m.d->ops->resize(h->m.d, size, &err) < 0)
		fail_msg("%s", err.message);
	expect_size(h, size);
	assert_int_equal(h->m.d->geometry.size, size);
}

static void do_compact(struct history *h)
{
	const struct disk_compact_options co = { .zeros = model_pick(&h->m, 2) };
	struct error err = { 0 };

	close_ok(h->m.d);
	h->m.d = open_ok(h->level);
	if (h->m.d->ops->compact && (!h->o.fixed || h->level))
		if (h->m.d->ops->compact(h->m.d, &co, &err) < 0)
			fail_msg("%s", err.message);
}

static void history_step(struct history *h)
{
	uint64_t what;

	for (unsigned n = (unsigned)model_pick(&h->m, 120); n; n--)
		model_step(&h->m, h->o.block_size);
	model_settle(&h->m);
	what = model_pick(&h->m, 8);
	if (getenv("PARTITA_CHAIN_TRACE"))
		print_message("seed %u: level %u, %llu bytes, action %u\n", h->m.seed, h->level,
			      (unsigned long long)h->m.size, (unsigned)what);
	switch (what) {
	case 0:
	case 1:
		close_ok(h->m.d);
		snapshot(++h->level, &h->o);
		h->m.d = open_ok(h->level);
		break;
	case 2:
		if (h->level)
			do_merge(h);
		break;
	case 3:
		if (h->level > 1)
			do_merge_middle(h);
		break;
	case 4:
		do_resize(h);
		break;
	case 5:
		do_compact(h);
		break;
	case 6:
		close_ok(h->m.d);
		check_ok(h->level);
		h->m.d = open_ok(h->level);
		break;
	}
	model_compare(&h->m);
}

static void history_run(const struct vhdx_create_options *o, unsigned seed, unsigned steps)
{
	struct history h = { .o = *o, .m = { .sector = o->logical_sector, .seed = seed } };

	create(0, o);
	expect_size(&h, o->size);
	h.m.d = open_ok(0);
	for (unsigned i = 0; i < steps; i++)
		history_step(&h);
	close_ok(h.m.d);
	for (unsigned i = 0; i <= h.level; i++)
		check_ok(i);
	free(h.m.expect);
	assert_int_equal(run("rm -f *.vhdx"), 0);
}

static void histories_run(const struct vhdx_create_options *cases, unsigned count)
{
	const char *rounds = getenv("PARTITA_CHAIN_ROUNDS"), *seed = getenv("PARTITA_CHAIN_SEED");
	unsigned first = seed ? (unsigned)atoi(seed) : 1;

	for (unsigned n = 0; n < (rounds ? (unsigned)atoi(rounds) : 1); n++)
		for (unsigned i = 0; i < count; i++)
			history_run(&cases[i], (first + n) * 100 + i, 40);
}

static void test_histories(void **state)
{
	static const struct vhdx_create_options cases[] = {
		{ .size = 16 * MIB, .block_size = MIB, .logical_sector = 512 },
		{ .size = 16 * MIB, .block_size = MIB, .logical_sector = 4096 },
		{ .size = 9 * MIB + 512, .block_size = 2 * MIB, .logical_sector = 512 },
		{ .size = 11 * MIB, .block_size = 32 * MIB, .logical_sector = 4096 },
		{ .size = 12 * MIB, .block_size = MIB, .logical_sector = 512, .fixed = true },
	};

	(void)state;
	histories_run(cases, ARRAY_SIZE(cases));
}

static void test_histories_vhd(void **state)
{
	static const struct vhdx_create_options cases[] = {
		{ .size = 16 * MIB, .block_size = MIB, .logical_sector = 512 },
		{ .size = 9 * MIB + 512, .block_size = 2 * MIB, .logical_sector = 512 },
		{ .size = 12 * MIB, .block_size = MIB, .logical_sector = 512, .fixed = true },
	};

	(void)state;
	vhd = true;
	histories_run(cases, ARRAY_SIZE(cases));
	vhd = false;
}

/* --- larger tables --- */

/* The BAT has to move twice; what was there stays. */
static void test_table_moves(void **state)
{
	const struct vhdx_create_options o = { .size = 8 * MIB, .block_size = MIB };
	static const uint64_t sizes[] = { 200 * GIB, 900 * GIB, 8 * TIB };
	uint8_t b[4096], got[4096];
	struct error err = { 0 };
	struct disk *d;

	(void)state;
	create(0, &o);
	d = open_ok(0);
	memset(b, 0x5a, sizeof(b));
	assert_int_equal(drive_write(d, b, sizeof(b), 5 * MIB, 0), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
		if (d->ops->resize(d, sizes[i], &err) < 0)
			fail_msg("%s", err.message);
		assert_int_equal(drive_write(d, b, sizeof(b), sizes[i] - 4096, 0), 0);
		close_ok(d);
		check_ok(0);
		d = open_ok(0);
		assert_int_equal(d->geometry.size, sizes[i]);
		for (unsigned n = 0; n <= i; n++) {
			assert_int_equal(drive_read(d, got, sizeof(got), sizes[n] - 4096), 0);
			assert_memory_equal(got, b, sizeof(b));
		}
		assert_int_equal(drive_read(d, got, sizeof(got), 5 * MIB), 0);
		assert_memory_equal(got, b, sizeof(b));
	}
	close_ok(d);
	assert_int_equal(run("rm -f *.vhdx"), 0);
}

/* --- depth, and chains that are wrong --- */

static void test_deep(void **state)
{
	const struct vhdx_create_options o = { .size = 64 * MIB, .block_size = MIB };
	const unsigned depth = 256;
	uint8_t b[512];
	struct disk *d;

	(void)state;
	create(0, &o);
	for (unsigned i = 0; i < depth; i++) {
		if (i)
			snapshot(i, &o);
		d = open_ok(i);
		memset(b, (int)(i + 1), sizeof(b));
		assert_int_equal(drive_write(d, b, sizeof(b), i * 100 * KIB, 0), 0);
		close_ok(d);
	}
	d = open_ok(depth - 1);
	for (unsigned i = 0; i < depth; i++) {
		assert_int_equal(drive_read(d, b, sizeof(b), i * 100 * KIB), 0);
		assert_int_equal(b[7], (uint8_t)(i + 1));
	}
	close_ok(d);
	assert_int_equal(run("rm -f *.vhdx"), 0);
}

static void expect_refused(unsigned level, int error, const char *words)
{
	struct error err = { 0 };
	struct disk *d = NULL;

	assert_int_equal(try_open(path_of(level), true, &d, &err), error);
	if (!strstr(err.message, words))
		fail_msg("\"%s\" does not say \"%s\"", err.message, words);
}

static void test_wrong_parents(void **state)
{
	const struct vhdx_create_options o = { .size = 8 * MIB, .block_size = MIB };
	struct rebase_options ro = { 0 };
	struct error err = { 0 };
	uint8_t b[512] = { 1 };
	char moved[256];
	struct disk *d;

	(void)state;
	create(0, &o);
	snapshot(1, &o);
	snapshot(2, &o);
	close_ok(open_ok(2));
	/* missing */
	assert_int_equal(run("mkdir moved && mv 0.vhdx moved/0.vhdx"), 0);
	expect_refused(2, -ENOENT, "is not there");
	/* there, but not to be opened */
	assert_int_equal(run("ln -s 0.vhdx 0.vhdx"), 0);
	expect_refused(2, -ELOOP, "cannot be opened");
	assert_int_equal(run("rm 0.vhdx"), 0);
	/* found again by its new name */
	snprintf(moved, sizeof(moved), "%s/moved/0.vhdx", folder);
	if (image_rebase(loop, path_of(1), moved, &ro, &err) < 0)
		fail_msg("%s", err.message);
	close_ok(open_ok(2));
	/* replaced */
	create(0, &o);
	assert_int_equal(image_rebase(loop, path_of(1), path_of(0), &ro, &err), -ESTALE);
	assert_int_equal(run("mv 0.vhdx moved/0.vhdx"), 0);
	expect_refused(2, -ESTALE, "not the parent that its child was made for");
	ro.any_identity = true;
	assert_int_equal(image_rebase(loop, path_of(1), moved, &ro, &err), 0);
	close_ok(open_ok(2));
	/* changed by a write */
	d = open_ok(1);
	assert_int_equal(drive_write(d, b, sizeof(b), 0, 0), 0);
	close_ok(d);
	expect_refused(2, -ESTALE, "wanted is");
	/* in a circle */
	assert_int_equal(image_rebase(loop, path_of(2), path_of(1), &ro, &err), 0);
	assert_int_equal(image_rebase(loop, path_of(1), path_of(2), &ro, &err), 0);
	expect_refused(2, -ELOOP, "back into itself");
	assert_int_equal(run("rm -rf *.vhdx moved"), 0);
}

static bool stop_after(void *context, uint64_t done, uint64_t total)
{
	unsigned *left = context;

	(void)done;
	(void)total;
	return (*left)--;
}

/* 0 <- 1 <- 2, and 3: what 0 was, changed here and there, and of another size. */
static void rebase_set_up(struct model *m, const struct vhdx_create_options *o)
{
	struct disk *d;

	create(0, o);
	for (unsigned level = 0; level < 3; level++) {
		if (level)
			snapshot(level, o);
		m->d = open_ok(level);
		for (int n = 0; n < 100; n++)
			model_step(m, MIB);
		model_settle(m);
		close_ok(m->d);
		if (level == 0)
			assert_int_equal(run("cp 0.vhdx 3.vhdx"), 0);
	}
	d = open_ok(3);
	assert_int_equal(drive_zero(d, 3 * MIB, 2 * MIB), 0);
	assert_int_equal(drive_write(d, m->expect, (uint64_t)100 * 512, 5 * MIB + 512, 0), 0);
	assert_int_equal(d->ops->resize(d, o->size / 2 * (2 + (m->seed & 1)), NULL), 0);
	close_ok(d);
}

static void rebase_copies(uint64_t seed)
{
	const struct vhdx_create_options o = { .size = 16 * MIB,
					       .block_size = MIB,
					       .logical_sector = 512 };
	struct model m = { .size = o.size, .sector = 512, .seed = seed };
	unsigned left = 0;
	struct rebase_options ro = { .copy = true, .progress = stop_after, .context = &left };
	struct error err = { 0 };
	char parent[256];

	m.expect = calloc(1, o.size);
	assert_non_null(m.expect);
	rebase_set_up(&m, &o);
	snprintf(parent, sizeof(parent), "%s", path_of(3));
	for (; left < 8; left += 3) {
		unsigned stop = left;

		assert_int_equal(image_rebase(loop, path_of(1), parent, &ro, &err), -ECANCELED);
		left = stop;
		m.d = open_ok(2);
		model_compare(&m);
		close_ok(m.d);
	}
	ro.progress = NULL;
	if (image_rebase(loop, path_of(1), parent, &ro, &err) < 0)
		fail_msg("%s", err.message);
	assert_int_equal(unlink(path_of(0)), 0);
	m.d = open_ok(2);
	model_compare(&m);
	close_ok(m.d);
	for (unsigned level = 1; level < 4; level++)
		check_ok(level);
	free(m.expect);
	assert_int_equal(run("rm -f *.vhdx"), 0);
}

static void test_rebase_copies(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed < 5; seed++) {
		vhd = seed > 2;
		rebase_copies(seed);
	}
	vhd = false;
}

/* --- behind a gate --- */

struct live {
	struct gate_merge merge;
	struct gate_freeze freeze;
	struct gate *gate;
	struct disk *merged;
	unsigned level;
	bool done;
	int result;
};

static void on_merged(struct gate_merge *m, int result, struct disk *merged)
{
	struct live *l = container_of(m, struct live, merge);

	l->done = true;
	l->result = result;
	l->merged = merged;
}

/* The parent of the image below the gate is opened again, for writing. */
static void parent_replace(struct gate *g, unsigned level, struct error *err)
{
	struct disk *top = gate_below(g), *old = top->below, *parent;

	top->ops->set_parent(top, NULL);
	close_ok(old);
	parent = open_ok(level);
	if (merge_prepare(top, parent, err) < 0)
		fail_msg("%s", err->message);
	top->ops->set_parent(top, parent);
}

/* As in a worker: all is done when it is told, while the guest's requests wait. */
static void on_frozen(struct gate_freeze *f, int result)
{
	struct live *l = container_of(f, struct live, freeze);
	struct error err = { 0 };

	assert_int_equal(result, 0);
	assert_int_equal(gate_freeze(l->gate, f), -EBUSY);
	parent_replace(l->gate, l->level - 1, &err);
	if (gate_merge(l->gate, &l->merge, &err) < 0)
		fail_msg("%s", err.message);
	gate_thaw(l->gate);
}

static void live_merge(struct model *m, unsigned level)
{
	struct live l = {
		.freeze.frozen = on_frozen,
		.merge.done = on_merged,
		.gate = gate_of(m->d),
		.level = level,
	};

	assert_int_equal(gate_freeze(l.gate, &l.freeze), 0);
	while (!l.done)
		model_step(m, MIB);
	assert_int_equal(l.result, 0);
	close_ok(l.merged);
}

static void test_live_merge(void **state)
{
	const struct vhdx_create_options o = { .size = 16 * MIB,
					       .block_size = MIB,
					       .logical_sector = 512 };
	struct model m = { .size = o.size, .sector = 512, .seed = 7 };
	const unsigned levels = 4;

	(void)state;
	m.expect = calloc(1, o.size);
	assert_non_null(m.expect);
	create(0, &o);
	for (unsigned i = 0; i < levels; i++) {
		if (i)
			snapshot(i, &o);
		m.d = open_ok(i);
		for (int n = 0; n < 200; n++)
			model_step(&m, MIB);
		model_settle(&m);
		close_ok(m.d);
	}
	m.d = gate_new(open_ok(levels - 1));
	assert_non_null(m.d);
	for (unsigned level = levels - 1; level; level--) {
		live_merge(&m, level);
		for (int n = 0; n < 100; n++)
			model_step(&m, MIB);
		model_settle(&m);
		model_compare(&m);
		check_ok(level);
	}
	close_ok(m.d);
	check_ok(0);
	m.d = open_ok(0);
	model_compare(&m);
	close_ok(m.d);
	free(m.expect);
	assert_int_equal(run("rm -f *.vhdx"), 0);
}

/* --- what a gate refuses and waits for --- */

struct waiting {
	struct disk_request req;
	struct iovec iov;
	uint8_t bytes[512];
	bool done;
	int result;
};

static void on_waited(struct disk_request *req, int result)
{
	struct waiting *w = container_of(req, struct waiting, req);

	w->done = true;
	w->result = result;
}

static void waiting_read(struct waiting *w, struct disk *d, uint64_t offset)
{
	*w = (struct waiting){ 0 };
	w->iov = (struct iovec){ w->bytes, sizeof(w->bytes) };
	w->req = (struct disk_request){ .op = DISK_READ,
					.offset = offset,
					.length = sizeof(w->bytes),
					.iov = &w->iov,
					.iovcnt = 1,
					.done = on_waited };
	disk_submit(d, &w->req);
}

static int waiting_end(struct waiting *w)
{
	while (!w->done)
		assert_int_equal(loop_once(loop, -1), 0);
	return w->result;
}

struct held_back {
	struct gate_freeze freeze;
	bool done;
	int result;
};

static void on_held_back(struct gate_freeze *f, int result)
{
	struct held_back *h = container_of(f, struct held_back, freeze);

	h->done = true;
	h->result = result;
}

static void hold(struct gate *g, struct held_back *h)
{
	*h = (struct held_back){ .freeze.frozen = on_held_back };
	assert_int_equal(gate_freeze(g, &h->freeze), 0);
	while (!h->done)
		assert_int_equal(loop_once(loop, -1), 0);
	assert_int_equal(h->result, 0);
}

static void test_gate_refuses_what_is_beyond_the_end(void **state)
{
	const struct vhdx_create_options o = { .size = 16 * MIB, .block_size = MIB };
	struct held_back h;
	struct waiting in, out;
	struct error err = { 0 };
	struct disk *d;
	struct gate *g;

	(void)state;
	create(0, &o);
	d = gate_new(open_ok(0));
	g = gate_of(d);
	hold(g, &h);
	waiting_read(&in, d, 0);
	waiting_read(&out, d, 15 * MIB);
	assert_int_equal(d->ops->resize(d, 8 * MIB, &err), 0);
	assert_false(in.done || out.done);
	gate_thaw(g);
	assert_false(out.done); /* never from inside */
	assert_int_equal(waiting_end(&in), 0);
	assert_int_equal(waiting_end(&out), -ENXIO);
	/* lost altogether */
	hold(g, &h);
	waiting_read(&in, d, 0);
	close_ok(gate_below(g));
	gate_replace(g, NULL);
	gate_thaw(g);
	assert_int_equal(waiting_end(&in), -EIO);
	assert_int_equal(d->ops->resize(d, 16 * MIB, &err), -EIO);
	close_ok(d);
	assert_int_equal(run("rm -f *.vhdx"), 0);
}

struct marked {
	struct gate_merge merge;
	struct disk *merged;
	bool copied, done;
	int result;
};

static void on_marked_copied(struct gate_merge *m)
{
	container_of(m, struct marked, merge)->copied = true;
}

static void on_marked_done(struct gate_merge *m, int result, struct disk *merged)
{
	struct marked *k = container_of(m, struct marked, merge);

	k->done = true;
	k->result = result;
	k->merged = merged;
}

/*
 * A merge waits for the end of a freeze without using up the processor, and for whoever has
 * something to do before the guest writes to the parent; then it can no longer be cancelled.
 */
static void test_merge_waits(void **state)
{
	const struct vhdx_create_options o = { .size = 16 * MIB, .block_size = MIB };
	struct marked k = { .merge = { .done = on_marked_done, .copied = on_marked_copied } };
	struct held_back h;
	struct waiting w;
	struct error err = { 0 };
	struct disk *d;
	struct gate *g;

	(void)state;
	create(0, &o);
	snapshot(1, &o);
	d = gate_new(open_ok(1));
	g = gate_of(d);
	hold(g, &h);
	parent_replace(g, 0, &err);
	assert_int_equal(gate_merge(g, &k.merge, &err), 0);
	for (int i = 0; i < 200; i++)
		assert_int_equal(loop_once(loop, 0), 0);
	assert_false(k.copied || k.done);
	gate_thaw(g);
	while (!k.copied)
		assert_int_equal(loop_once(loop, -1), 0);
	waiting_read(&w, d, 0);
	gate_merge_cancel(&k.merge);
	for (int i = 0; i < 20; i++)
		assert_int_equal(loop_once(loop, 0), 0);
	assert_false(k.done || w.done);
	gate_merge_finish(&k.merge, 0);
	assert_int_equal(waiting_end(&w), 0);
	assert_true(k.done);
	assert_int_equal(k.result, 0);
	close_ok(k.merged);
	close_ok(d);
	/* the same, and what was to be done fails */
	snapshot(1, &o);
	d = gate_new(open_ok(1));
	g = gate_of(d);
	hold(g, &h);
	parent_replace(g, 0, &err);
	gate_thaw(g);
	k.copied = k.done = false;
	assert_int_equal(gate_merge(g, &k.merge, &err), 0);
	while (!k.copied)
		assert_int_equal(loop_once(loop, -1), 0);
	gate_merge_finish(&k.merge, -EIO);
	while (!k.done)
		assert_int_equal(loop_once(loop, -1), 0);
	assert_int_equal(k.result, -EIO);
	assert_null(k.merged);
	close_ok(d);
	assert_int_equal(run("rm -f *.vhdx"), 0);
}

/* --- merges that do not come to their end --- */

#define STOPPED_SIZE (64 * MIB)

/* Base and child, both full of different data; `expect` is what the child shows. */
static void stopped_chain(uint8_t *expect)
{
	const struct vhdx_create_options o = { .size = STOPPED_SIZE, .block_size = MIB };
	struct disk *d;

	create(0, &o);
	for (unsigned level = 0; level < 2; level++) {
		if (level)
			snapshot(1, &o);
		for (uint64_t i = level; i < STOPPED_SIZE / 8; i += level + 1)
			expect[i * 8] = (uint8_t)(i * 7 + level + 1);
		d = open_ok(level);
		for (uint64_t at = 0; at < STOPPED_SIZE; at += 2 * MIB)
			assert_int_equal(drive_write(d, expect + at, MIB, at, 0), 0);
		if (!level)
			assert_int_equal(drive_write(d, expect, STOPPED_SIZE, 0, 0), 0);
		close_ok(d);
	}
	d = open_ok(1);
	assert_int_equal(drive_read(d, expect, STOPPED_SIZE, 0), 0);
	close_ok(d);
}

static void expect_top(unsigned level, const uint8_t *expect)
{
	_cleanup_free_ uint8_t *got = malloc(STOPPED_SIZE);
	struct disk *d = open_ok(level);

	assert_non_null(got);
	assert_int_equal(drive_read(d, got, STOPPED_SIZE, 0), 0);
	assert_memory_equal(got, expect, STOPPED_SIZE);
	close_ok(d);
}

static bool stop_at(void *context, uint64_t done, uint64_t total)
{
	unsigned *left = context;

	(void)done;
	(void)total;
	return (*left)-- > 0;
}

/* Another process merges, and is killed after so many microseconds. True if it had finished. */
static bool merge_killed(unsigned delay)
{
	const struct merge_options mo = { 0 };
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (!pid) {
		struct loop *own;

		_exit(loop_new(128, &own, NULL) < 0 || image_merge(own, path_of(1), &mo, NULL) < 0);
	}
	usleep(delay);
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) && !WEXITSTATUS(status);
}

static void test_stopped_merge(void **state)
{
	_cleanup_free_ uint8_t *expect = calloc(1, STOPPED_SIZE);
	const struct merge_options plain = { 0 };
	struct error err = { 0 };
	bool finished = false;

	(void)state;
	assert_non_null(expect);
	stopped_chain(expect);
	for (unsigned i = 0; i < 5; i++) {
		unsigned left = i;
		const struct merge_options mo = { .progress = stop_at, .context = &left };

		assert_int_equal(image_merge(loop, path_of(1), &mo, &err), -ECANCELED);
		expect_top(1, expect);
	}
	for (unsigned i = 0; i < 12 && !finished; i++) {
		finished = merge_killed(i * i * 500);
		if (!access(path_of(1), F_OK))
			expect_top(1, expect);
	}
	if (!access(path_of(1), F_OK) && image_merge(loop, path_of(1), &plain, &err) < 0)
		fail_msg("%s", err.message);
	expect_top(0, expect);
	check_ok(0);
	assert_int_equal(run("rm -f *.vhdx"), 0);
}

static int teardown(void **state)
{
	char command[128];

	(void)state;
	snprintf(command, sizeof(command), "rm -rf %s", folder);
	return system(command);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_histories),
		cmocka_unit_test(test_histories_vhd),
		cmocka_unit_test(test_table_moves),
		cmocka_unit_test(test_deep),
		cmocka_unit_test(test_wrong_parents),
		cmocka_unit_test(test_rebase_copies),
		cmocka_unit_test(test_live_merge),
		cmocka_unit_test(test_stopped_merge),
		cmocka_unit_test(test_merge_waits),
		cmocka_unit_test(test_gate_refuses_what_is_beyond_the_end),
	};
	int r;

	if (loop_new(128, &loop, NULL) < 0 || !mkdtemp(folder))
		return 1;
	cmocka_set_test_filter(getenv("PARTITA_TEST"));
	r = cmocka_run_group_tests(tests, NULL, teardown);
	loop_free(loop);
	return r;
}
