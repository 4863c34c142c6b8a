// SPDX-License-Identifier: MIT
/*
 * The load of `qemu-img bench` on the disk layer, without a guest: so many requests of one size,
 * each a step further than the last (or anywhere), so many at once. Prints "seconds
 * operations-per-second" of the load alone; opening and closing are not counted, as with qemu-img.
 */
#include "lib/cleanup.h"
#include "vhd/disk.h"

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
	bool write, random;
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
	"                 [-c COUNT] [-F FLUSH-INTERVAL]\n"
	"  -w write, -r at random places, -n past the page cache; sizes in bytes\n";

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
		.op = b->write ? DISK_WRITE : DISK_READ,
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

	while ((c = getopt(argc, argv, "wrnf:d:s:S:o:c:F:")) >= 0) {
		uint64_t value = optarg ? strtoull(optarg, NULL, 0) : 0;

		b->write = b->write || c == 'w';
		b->random = b->random || c == 'r';
		options->direct = options->direct || c == 'n';
		options->format = c == 'f' ? optarg : options->format;
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
	options.read_only = !b.write;
	fd = open(argv[optind], (b.write ? O_RDWR : O_RDONLY) | O_CLOEXEC);
	r = fd < 0 ? error_errno(&err, -errno, "cannot open \"%s\"", argv[optind])
		   : loop_new(DEPTH_MAX, &loop, &err);
	if (r >= 0)
		r = disk_open(loop, fd, argv[optind], &options, &b.disk, &err);
	if (r >= 0)
		r = run(&b);
	if (r >= 0)
		r = disk_close(b.disk, &err);
	if (r < 0)
		fprintf(stderr, "vhd-bench: %s\n", err.message[0] ? err.message : strerror(-r));
	return r < 0;
}
