// SPDX-License-Identifier: MIT
/*
 * guest_io: the load of the disk measurements. Runs inside the guest, from its initial RAM disk,
 * linked statically. It does a fixed number of transfers to the guest's first disk around the
 * guest's page cache (O_DIRECT), at the same places each time, and prints, by the guest's clock,
 *
 *   guest_io: begin NAME
 *   guest_io: end NAME OPERATIONS SECONDS
 *
 * Buffers lie in pages of 4 KiB that are no neighbours in the guest's memory, as after some days of
 * use, and for the loads named -huge in one page of 2 MiB: left to chance it would be now this, now
 * that. One transfer at a time is a plain system call; several are Linux' asynchronous I/O, with
 * all that have finished sent again in one call. Between "begin" and the start there is a pause, so
 * that whoever watches the console is done with that line before the clock runs.
 *
 * Arguments: NAME=OPERATIONS for each measurement, in order (`guest_io` alone lists the names). Any
 * other word is a command for sh, whose time counts for nothing.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define MAX_DEPTH   32u
#define BUFFER_SIZE (2u << 20)
#define DISK_BYTES  (64ull << 20) /* how much of the disk is used */
#define PAGE_SIZE   4096u
#define PAGES       (BUFFER_SIZE / PAGE_SIZE)
#define PAUSE_MS    200

struct load {
	const char *name;
	bool write, random;
	uint32_t size;
	unsigned depth; /* 0 = idle: an "operation" is a second asleep */
};

static const struct load loads[] = {
	{ "null", false, false, 4096, 1 }, /* with 0 operations: what the two lines cost */
	{ "idle", false, false, 0, 0 },
	{ "read-4k-qd1", false, true, 4096, 1 },
	{ "read-4k-qd32", false, true, 4096, 32 },
	{ "write-4k-qd1", true, true, 4096, 1 },
	{ "write-4k-qd32", true, true, 4096, 32 },
	{ "read-1m", false, false, 1u << 20, 1 },
	{ "write-1m", true, false, 1u << 20, 1 },
	{ "read-1m-huge", false, false, 1u << 20, 1 },
	{ "write-1m-huge", true, false, 1u << 20, 1 },
};

static uint8_t *small_pages, *huge_page, *buffers;
static int disk = -1;

static void die(const char *what)
{
	printf("guest_io: %s: %s\n", what, strerror(errno));
	exit(1);
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void pause_ms(unsigned ms)
{
	struct timespec ts = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000l };

	nanosleep(&ts, NULL);
}

static uint64_t next_offset(const struct load *l, uint64_t index)
{
	static uint64_t state = 88172645463325252ull; /* xorshift64, the same in each run */

	if (!l->random)
		return index * l->size % DISK_BYTES;
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state % (DISK_BYTES / l->size) * l->size;
}

/* --- one at a time --- */

static void run_sync(const struct load *l, uint64_t operations)
{
	for (uint64_t i = 0; i < operations; i++) {
		off_t at = (off_t)next_offset(l, i);
		ssize_t n = l->write ? pwrite(disk, buffers, l->size, at)
				     : pread(disk, buffers, l->size, at);

		if (n != (ssize_t)l->size)
			die("transfer");
	}
}

/* --- several at a time --- */

static void prepare(const struct load *l, struct iocb *cb, unsigned slot, uint64_t index)
{
	*cb = (struct iocb){
		.aio_data = slot,
		.aio_lio_opcode = l->write ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD,
		.aio_fildes = (uint32_t)disk,
		.aio_buf = (uintptr_t)(buffers + (size_t)slot * l->size),
		.aio_nbytes = l->size,
		.aio_offset = (int64_t)next_offset(l, index),
	};
}

static void submit(aio_context_t context, struct iocb **list, long count)
{
	while (count) {
		long n = syscall(SYS_io_submit, context, count, list);

		if (n <= 0)
			die("io_submit");
		list += n;
		count -= n;
	}
}

static void run_async(const struct load *l, uint64_t operations)
{
	struct iocb cbs[MAX_DEPTH], *list[MAX_DEPTH];
	struct io_event events[MAX_DEPTH];
	aio_context_t context = 0;
	uint64_t sent = 0, done = 0;
	long fresh = 0;

	if (syscall(SYS_io_setup, MAX_DEPTH, &context) < 0)
		die("io_setup");
	for (; fresh < (long)l->depth && sent < operations; fresh++) {
		prepare(l, &cbs[fresh], (unsigned)fresh, sent++);
		list[fresh] = &cbs[fresh];
	}
	submit(context, list, fresh);
	while (done < operations) {
		long n = syscall(SYS_io_getevents, context, 1l, (long)MAX_DEPTH, events, NULL);

		if (n <= 0)
			die("io_getevents");
		fresh = 0;
		for (long i = 0; i < n; i++, done++) {
			unsigned slot = (unsigned)events[i].data;

			if (events[i].res != (int64_t)l->size)
				die("asynchronous transfer");
			if (sent == operations)
				continue;
			prepare(l, &cbs[slot], slot, sent++);
			list[fresh++] = &cbs[slot];
		}
		submit(context, list, fresh);
	}
	syscall(SYS_io_destroy, context);
}

/* --- what was asked for --- */

static void run(const struct load *l, uint64_t operations)
{
	double start;

	buffers = strstr(l->name, "-huge") ? huge_page : small_pages;
	printf("guest_io: begin %s\n", l->name);
	pause_ms(PAUSE_MS);
	start = now();
	if (!l->depth)
		pause_ms((unsigned)operations * 1000);
	else if (l->depth == 1)
		run_sync(l, operations);
	else
		run_async(l, operations);
	printf("guest_io: end %s %llu %.6f\n", l->name, (unsigned long long)operations,
	       now() - start);
}

/* Debian's cloud kernel has huge pages off. */
static void allow_huge_pages(void)
{
	int fd = open("/sys/kernel/mm/transparent_hugepage/enabled", O_WRONLY);

	if (fd < 0 || write(fd, "madvise", 7) != 7)
		die("huge pages");
	close(fd);
}

static uint8_t *new_buffer(int advice)
{
	void *p;

	if (posix_memalign(&p, BUFFER_SIZE, BUFFER_SIZE))
		die("memory");
	madvise(p, BUFFER_SIZE, advice);
	/* Memory is given out as it is touched: with this stride no page comes after its neighbour.
	 */
	for (size_t i = 0; i < PAGES; i++)
		memset((uint8_t *)p + i * 197 % PAGES * PAGE_SIZE, 'w', PAGE_SIZE);
	return p;
}

/* The disk is found in the background. */
static void open_disk(void)
{
	for (int i = 0; i < 600 && disk < 0; i++) {
		disk = open("/dev/sda", O_RDWR | O_DIRECT);
		if (disk < 0)
			disk = open("/dev/vda", O_RDWR | O_DIRECT);
		if (disk < 0)
			pause_ms(50);
	}
	if (disk < 0)
		die("no disk");
	allow_huge_pages();
	small_pages = new_buffer(MADV_NOHUGEPAGE);
	huge_page = new_buffer(MADV_HUGEPAGE);
}

static const struct load *find(const char *argument, const char *equals)
{
	for (size_t i = 0; equals && i < sizeof(loads) / sizeof(loads[0]); i++)
		if (strlen(loads[i].name) == (size_t)(equals - argument) &&
		    !memcmp(loads[i].name, argument, (size_t)(equals - argument)))
			return &loads[i];
	return NULL;
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc < 2) {
		for (size_t i = 0; i < sizeof(loads) / sizeof(loads[0]); i++)
			puts(loads[i].name);
		return 2;
	}
	open_disk();
	for (int i = 1; i < argc; i++) {
		const char *equals = strchr(argv[i], '=');
		const struct load *l = find(argv[i], equals);

		if (l)
			run(l, strtoull(equals + 1, NULL, 10));
		else if (system(argv[i]))
			die(argv[i]);
	}
	return 0;
}
