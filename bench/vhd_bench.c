// SPDX-License-Identifier: MIT
/*
 * The load of `qemu-img bench` on the disk layer, without a guest: so many requests of one size,
 * each a step further than the last (or anywhere), so many at once. Prints "seconds
 * operations-per-second" of the load alone; opening and closing are not counted, as with qemu-img.
 * With -M the load goes on until the image is merged into its parent under it.
 */
#include "lib/cleanup.h"
#include "vhd/disk.h"
#include "vhd/gate.h"
#include "vhd/merge.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define DEPTH_MAX 256u

struct bench;

struct slot {
	struct bench *bench;
	struct disk_request req;
	struct iovec iov;
};

struct bench {
	struct disk *disk;
	enum disk_op op;
	bool random;
	const char *parent; /* merged into, under the load; NULL = no */
	struct gate_merge merge;
	struct disk *merged;
	uint64_t size, step, offset, count, flush_interval;
	unsigned depth;
	uint64_t started, done, since_flush, seed;
	unsigned busy;
	bool flushing;
	int result;
	struct disk_request flush;
	struct slot slots[DEPTH_MAX];
};

static const char usage[] =
	"usage: vhd-bench IMAGE [-w] [-r] [-n] [-f FORMAT] [-d DEPTH] [-s SIZE] [-S STEP] [-o "
	"OFFSET]\n"
	"                 [-c COUNT] [-F FLUSH-INTERVAL] [-M PARENT]\n"
	"  -w write, -t trim, -r at random places, -n past the page cache, -T tracking changes;\n"
	"  -M until the image is merged into its parent; sizes in bytes\n";

static uint64_t place(struct bench *b)
{
	uint64_t places = (b->disk->geometry.size - b->offset) / b->size;

	if (!b->random)
		return (b->offset + b->started * b->step) % (places * b->size);
	b->seed = b->seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return b->offset + (b->seed >> 20) % places * b->size;
}

static void go_on(struct bench *b);

static void on_done(struct disk_request *req, int result)
{
	struct slot *s = container_of(req, struct slot, req);
	struct bench *b = s->bench;

	b->result = result < 0 ? result : b->result;
	b->busy--;
	b->done++;
	b->since_flush++;
	s->req.done = NULL;
	go_on(b);
}

static void on_flushed(struct disk_request *req, int result)
{
	struct bench *b = container_of(req, struct bench, flush);

	b->result = result < 0 ? result : b->result;
	b->flushing = false;
	b->busy--;
	go_on(b);
}

static void slot_start(struct slot *s)
{
	struct bench *b = s->bench;

	s->req = (struct disk_request){
		.op = b->op,
		.offset = place(b),
		.length = b->size,
		.iov = &s->iov,
		.iovcnt = 1,
		.done = on_done,
	};
	b->started++;
	b->busy++;
	disk_submit(b->disk, &s->req);
}

static void go_on(struct bench *b)
{
	if (b->flush_interval && b->since_flush >= b->flush_interval && !b->flushing) {
		b->since_flush = 0;
		b->flushing = true;
		b->busy++;
		b->flush = (struct disk_request){ .op = DISK_FLUSH, .done = on_flushed };
		disk_submit(b->disk, &b->flush);
	}
	for (unsigned i = 0; i < b->depth && b->started < b->count && b->result >= 0; i++)
		if (!b->slots[i].req.done)
			slot_start(&b->slots[i]);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void on_merged(struct gate_merge *m, int result, struct disk *merged)
{
	struct bench *b = container_of(m, struct bench, merge);

	b->result = result < 0 ? result : b->result;
	b->merged = merged;
	b->count = b->started;
}

/* The parent is opened again for writing, and a gate lies above the image. */
static int merge_start(struct bench *b, const struct disk_open_options *options, struct error *err)
{
	struct disk *parent, *old = b->disk->below;
	int fd = open(b->parent, O_RDWR | O_CLOEXEC), r;

	if (fd < 0 || !old)
		return error_set(err, -EINVAL, "\"%s\" is no parent", b->parent);
	b->disk->ops->set_parent(b->disk, NULL);
	disk_close(old, NULL);
	r = disk_open(b->disk->loop, fd, b->parent, options, &parent, err);
	if (r < 0)
		return r;
	r = merge_prepare(b->disk, parent, err);
	b->disk->ops->set_parent(b->disk, parent);
	if (r < 0)
		return r;
	b->disk = gate_new(b->disk);
	b->merge.done = on_merged;
	b->count = UINT64_MAX;
	return b->disk ? gate_merge(gate_of(b->disk), &b->merge, err) : -ENOMEM;
}

static int run(struct bench *b)
{
	double begun = now();

	for (unsigned i = 0; i < b->depth; i++) {
		void *p;

		if (posix_memalign(&p, 4096, b->size))
			return -ENOMEM;
		memset(p, 0xa5, b->size);
		b->slots[i].bench = b;
		b->slots[i].iov = (struct iovec){ p, b->size };
	}
	go_on(b);
	while (b->busy) {
		int r = loop_once(b->disk->loop, -1);

		if (r < 0)
			return r;
	}
	printf("%.6f %.0f\n", now() - begun, (double)b->done / (now() - begun));
	return b->result;
}

static int parse(struct bench *b, struct disk_open_options *options, int argc, char **argv)
{
	int c;

	while ((c = getopt(argc, argv, "wtrnTf:d:s:S:o:c:F:M:")) >= 0) {
		uint64_t value = optarg ? strtoull(optarg, NULL, 0) : 0;

		b->op = c == 'w' ? DISK_WRITE : c == 't' ? DISK_TRIM : b->op;
		b->random = b->random || c == 'r';
		options->direct = options->direct || c == 'n';
		options->tracking = c == 'T' ? DISK_TRACK_CREATE : options->tracking;
		options->format = c == 'f' ? optarg : options->format;
		b->parent = c == 'M' ? optarg : b->parent;
		b->depth = c == 'd' ? (unsigned)value : b->depth;
		b->size = c == 's' ? value : b->size;
		b->step = c == 'S' ? value : b->step;
		b->offset = c == 'o' ? value : b->offset;
		b->count = c == 'c' ? value : b->count;
		b->flush_interval = c == 'F' ? value : b->flush_interval;
		if (c == '?')
			return -EINVAL;
	}
	b->step = b->step ? b->step : b->size;
	return optind == argc - 1 && b->depth && b->depth <= DEPTH_MAX && b->size ? 0 : -EINVAL;
}

int main(int argc, char **argv)
{
	static struct bench b = { .depth = 64, .size = 4096, .count = 75000, .seed = 1 };
	struct disk_open_options options = { .follow = true };
	struct error err = { 0 };
	struct loop *loop = NULL;
	int r, fd;

	if (parse(&b, &options, argc, argv) < 0) {
		fputs(usage, stderr);
		return 2;
	}
	options.read_only = b.op == DISK_READ;
	fd = open(argv[optind], (options.read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);
	r = fd < 0 ? error_errno(&err, -errno, "cannot open \"%s\"", argv[optind])
		   : loop_new(2 * DEPTH_MAX, &loop, &err);
	if (r >= 0)
		r = disk_open(loop, fd, argv[optind], &options, &b.disk, &err);
	if (r >= 0 && b.parent)
		r = merge_start(&b, &options, &err);
	if (r >= 0)
		r = run(&b);
	if (r >= 0)
		r = disk_close(b.disk, &err);
	if (r >= 0)
		r = disk_close(b.merged, &err);
	if (r < 0)
		fprintf(stderr, "vhd-bench: %s\n", err.message[0] ? err.message : strerror(-r));
	return r < 0;
}
