// SPDX-License-Identifier: MIT
/*
 * pattern: writes that can be told apart, for guests; and, for the host, what they must have left.
 * From a seed comes a list of writes, each of some sectors at some place of the disk, so that both
 * sides know it without talking. Every sector says of which write it is. Several writers at once
 * have a part of the disk each. Statically linked: it runs in a guest with nothing else on it.
 *
 * A disk that was being written when the power went: with --synced, a sector may hold what the last
 * write up to that one left, or that of any later write, but nothing else, and no mixture.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/fs.h>

#define SECTOR     512u
#define MAX_LENGTH 512u /* sectors of one write */
#define CHUNK      (1u << 20)
#define MAX_TOLD   10

static const char usage[] =
	"usage: pattern write FILE [OPTION...]\n"
	"       pattern verify FILE [OPTION...]\n"
	"\n"
	"Writes blocks to the disk or file FILE around the page cache; or checks that these\n"
	"writes, and nothing else, are on it.\n"
	"\n"
	"  --seed N      which writes (1)\n"
	"  --count N     how many, for each writer (1000)\n"
	"  --jobs N      writers at once, each in its own part of the disk (1)\n"
	"  --flush N     write: fsync after so many, and say `job J synced N` (64; 0 never)\n"
	"  --unit N      sectors of 512 bytes that offsets and lengths are multiples of (1)\n"
	"  --first N     write: begin with this one (1)\n"
	"  --synced N    verify: the writes after the Nth may have happened or not (all have)\n"
	"  --size N      only the first N bytes, of a disk that changes its size (all)\n"
	"  --cached      through the page cache\n";

struct options {
	const char *path;
	uint64_t seed, count, jobs, flush, unit, first, synced, size;
	int cached;
};

/* One writer's part of the disk, in sectors. */
struct part {
	uint64_t start, size, seed;
	unsigned job;
};

struct write {
	uint64_t start, length; /* sectors */
};

struct head {
	uint64_t magic, seed, sector, number;
};

#define MAGIC UINT64_C(0x4e52455454415031)

static uint64_t mix(uint64_t x)
{
	x += UINT64_C(0x9e3779b97f4a7c15);
	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

/* The Nth write to a part: mostly short, now and then long. */
static struct write nth_write(const struct options *o, const struct part *p, uint64_t number)
{
	uint64_t r = mix(p->seed ^ mix(number));
	uint64_t units = p->size / o->unit;
	uint64_t most = (r & 15 ? 64 : MAX_LENGTH) / o->unit;
	uint64_t length = 1 + (r >> 4 & 0xffff) % most;

	if (length > units)
		length = units;
	return (struct write){ .start = p->start + mix(r) % (units - length + 1) * o->unit,
			       .length = length * o->unit };
}

static void fill_sector(uint64_t *words, const struct part *p, uint64_t sector, uint64_t number)
{
	const struct head head = { MAGIC, p->seed, sector, number };
	uint64_t x = mix(p->seed ^ mix(sector) ^ number);

	memcpy(words, &head, sizeof(head));
	for (size_t i = sizeof(head) / 8; i < SECTOR / 8; i++)
		words[i] = x = x * UINT64_C(6364136223846793005) + i;
}

static struct part nth_part(const struct options *o, uint64_t sectors, unsigned job)
{
	uint64_t size = sectors / o->jobs / o->unit * o->unit;

	return (struct part){
		.start = size * job, .size = size, .seed = mix(o->seed + job), .job = job
	};
}

static int open_disk(const struct options *o, int flags, uint64_t *ret_sectors)
{
	int fd = open(o->path, flags | O_CLOEXEC | (o->cached ? 0 : O_DIRECT));
	struct stat st;
	uint64_t size;

	if (fd < 0 && errno == EINVAL) /* tmpfs knows no O_DIRECT */
		fd = open(o->path, flags | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0) {
		fprintf(stderr, "pattern: %s cannot be opened: %s\n", o->path, strerror(errno));
		exit(1);
	}
	size = (uint64_t)st.st_size;
	if (S_ISBLK(st.st_mode) && ioctl(fd, BLKGETSIZE64, &size) < 0)
		size = 0;
	if (o->size && o->size < size)
		size = o->size;
	*ret_sectors = size / SECTOR;
	if (*ret_sectors / o->jobs < o->unit) {
		fprintf(stderr, "pattern: %s is too small: %llu bytes\n", o->path,
			(unsigned long long)size);
		exit(1);
	}
	return fd;
}

static void *new_buffer(size_t size)
{
	void *p = aligned_alloc(4096, size);

	if (!p) {
		fputs("pattern: out of memory\n", stderr);
		exit(1);
	}
	return p;
}

/* --- write --- */

static int write_failed(const struct options *o, const struct part *p, uint64_t number)
{
	printf("job %u write %llu failed: %s\n", p->job, (unsigned long long)number,
	       strerror(errno));
	fprintf(stderr, "pattern: writing to %s failed\n", o->path);
	return 1;
}

static int write_part(const struct options *o, const struct part *p, int fd)
{
	uint64_t *buffer = new_buffer(MAX_LENGTH * SECTOR), number;

	for (number = o->first; number <= o->count; number++) {
		struct write w = nth_write(o, p, number);
		ssize_t size = (ssize_t)(w.length * SECTOR);

		for (uint64_t i = 0; i < w.length; i++)
			fill_sector(buffer + i * (SECTOR / 8), p, w.start + i, number);
		if (pwrite(fd, buffer, (size_t)size, (off_t)(w.start * SECTOR)) != size)
			return write_failed(o, p, number);
		if (!o->flush || number % o->flush)
			continue;
		if (fsync(fd) < 0)
			return write_failed(o, p, number);
		printf("job %u synced %llu\n", p->job, (unsigned long long)number);
	}
	if (fsync(fd) < 0)
		return write_failed(o, p, number);
	printf("job %u wrote %llu\n", p->job, (unsigned long long)o->count);
	free(buffer);
	return 0;
}

static int write_all(const struct options *o)
{
	int failed = 0, status;

	for (unsigned job = 0; job < o->jobs; job++) {
		pid_t pid = fork();

		if (pid < 0) {
			perror("pattern: fork");
			return 1;
		}
		if (!pid) {
			uint64_t sectors;
			int fd = open_disk(o, O_WRONLY, &sectors);
			struct part p = nth_part(o, sectors, job);

			exit(write_part(o, &p, fd));
		}
	}
	while (wait(&status) > 0)
		failed |= status;
	return !!failed;
}

/* --- verify --- */

struct check {
	const struct options *o;
	struct part part;
	uint32_t *last; /* of each sector of the part: the last write that must have happened */
	uint64_t told, zeros, sectors_written;
	uint32_t low, high; /* the writes that are missing, if told */
};

static uint32_t *last_writes(const struct options *o, const struct part *p)
{
	uint32_t *last = calloc(p->size, sizeof(*last));

	if (!last) {
		fputs("pattern: out of memory\n", stderr);
		exit(1);
	}
	for (uint64_t number = 1; number <= o->synced; number++) {
		struct write w = nth_write(o, p, number);

		for (uint64_t i = 0; i < w.length; i++)
			last[w.start - p->start + i] = (uint32_t)number;
	}
	return last;
}

/* True if the sector may hold what the write of that number, one after the last sure one, left. */
static int may_be(const struct check *c, uint64_t sector, uint64_t number)
{
	struct write w;

	if (number <= c->o->synced || number > c->o->count)
		return 0;
	w = nth_write(c->o, &c->part, number);
	return sector >= w.start && sector - w.start < w.length;
}

static void wrong(struct check *c, uint64_t sector, const char *what)
{
	uint32_t expected = c->last[sector - c->part.start];
	char text[32] = "zeros";

	if (!c->told || expected < c->low)
		c->low = expected;
	if (expected > c->high)
		c->high = expected;
	c->zeros += !strcmp(what, "zeros");
	if (c->told++ >= MAX_TOLD)
		return;
	if (expected)
		snprintf(text, sizeof(text), "write %u", expected);
	printf("%s: sector %llu should hold %s but holds %s\n", c->o->path,
	       (unsigned long long)sector, text, what);
}

static void check_sector(struct check *c, uint64_t sector, const uint64_t *words)
{
	uint64_t expected = c->last[sector - c->part.start], copy[SECTOR / 8];
	struct head head;
	char text[64];

	memcpy(&head, words, sizeof(head));
	memset(copy, 0, sizeof(copy));
	if (!memcmp(words, copy, SECTOR)) {
		if (expected)
			wrong(c, sector, "zeros");
		return;
	}
	c->sectors_written++;
	fill_sector(copy, &c->part, sector, head.number);
	if (head.magic != MAGIC) {
		wrong(c, sector, "something else");
	} else if (memcmp(words, copy, SECTOR)) {
		snprintf(text, sizeof(text), "a mixture, or write %llu for sector %llu",
			 (unsigned long long)head.number, (unsigned long long)head.sector);
		wrong(c, sector, text);
	} else if (head.number != expected && !may_be(c, sector, head.number)) {
		snprintf(text, sizeof(text), "write %llu", (unsigned long long)head.number);
		wrong(c, sector, text);
	}
}

static int verify_part(struct check *c, int fd)
{
	uint64_t *buffer = new_buffer(CHUNK), end = c->part.start + c->part.size;

	c->last = last_writes(c->o, &c->part);
	for (uint64_t at = c->part.start; at < end; at += CHUNK / SECTOR) {
		uint64_t n = end - at < CHUNK / SECTOR ? end - at : CHUNK / SECTOR;

		if (pread(fd, buffer, n * SECTOR, (off_t)(at * SECTOR)) != (ssize_t)(n * SECTOR)) {
			printf("%s: reading sector %llu failed: %s\n", c->o->path,
			       (unsigned long long)at, strerror(errno));
			return 1;
		}
		for (uint64_t i = 0; i < n; i++)
			check_sector(c, at + i, buffer + i * (SECTOR / 8));
	}
	free(c->last);
	free(buffer);
	if (c->told)
		printf("%s: job %u: %llu sectors of writes %u to %u are wrong, %llu hold zeros\n",
		       c->o->path, c->part.job, (unsigned long long)c->told, c->low, c->high,
		       (unsigned long long)c->zeros);
	return c->told > 0;
}

static int verify_all(const struct options *o)
{
	uint64_t sectors, found = 0;
	int fd = open_disk(o, O_RDONLY, &sectors), failed = 0;

	for (unsigned job = 0; job < o->jobs; job++) {
		struct check c = { .o = o, .part = nth_part(o, sectors, job) };

		failed |= verify_part(&c, fd);
		found += c.sectors_written;
	}
	close(fd);
	if (!failed && !found) {
		printf("%s: none of the writes is there\n", o->path);
		return 1;
	}
	if (!failed)
		printf("%s: verified, %llu sectors written\n", o->path, (unsigned long long)found);
	return failed;
}

/* --- options --- */

static uint64_t number(const char *text)
{
	char *end;
	uint64_t n = strtoull(text, &end, 10);

	if (end == text || *end) {
		fprintf(stderr, "pattern: \"%s\" is not a number\n", text);
		exit(2);
	}
	return n;
}

static void parse_options(struct options *o, int argc, char **argv)
{
	static const struct option names[] = {
		{ "seed", required_argument, NULL, 's' },
		{ "count", required_argument, NULL, 'c' },
		{ "jobs", required_argument, NULL, 'j' },
		{ "flush", required_argument, NULL, 'f' },
		{ "unit", required_argument, NULL, 'u' },
		{ "first", required_argument, NULL, 'b' },
		{ "synced", required_argument, NULL, 'y' },
		{ "size", required_argument, NULL, 'z' },
		{ "cached", no_argument, NULL, 'm' },
		{ 0 },
	};
	uint64_t *const numbers[] = {
		['s'] = &o->seed, ['c'] = &o->count, ['j'] = &o->jobs,   ['f'] = &o->flush,
		['u'] = &o->unit, ['b'] = &o->first, ['y'] = &o->synced, ['z'] = &o->size,
	};
	int c;

	while ((c = getopt_long(argc, argv, "", names, NULL)) >= 0) {
		if (c == '?')
			exit(2);
		if (c == 'm')
			o->cached = 1;
		else
			*numbers[c] = number(optarg);
	}
	if (o->synced > o->count)
		o->synced = o->count;
	if (optind != argc - 1 || !o->jobs || !o->unit || o->unit > 64 || o->count >> 32) {
		fputs(usage, stderr);
		exit(2);
	}
	o->path = argv[optind];
}

int main(int argc, char **argv)
{
	struct options o = { .seed = 1,
			     .count = 1000,
			     .jobs = 1,
			     .flush = 64,
			     .unit = 1,
			     .first = 1,
			     .synced = UINT64_MAX };

	if (argc > 1 && !strcmp(argv[1], "--help")) {
		fputs(usage, stdout);
		return 0;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc > 2) {
		parse_options(&o, argc - 1, argv + 1);
		if (!strcmp(argv[1], "write"))
			return write_all(&o);
		if (!strcmp(argv[1], "verify"))
			return verify_all(&o);
	}
	fputs(usage, stderr);
	return 2;
}
