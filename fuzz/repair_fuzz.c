// SPDX-License-Identifier: MIT
/*
 * A whole small image, VHD or VHDX by what is in it, that somebody wants repaired: it is checked
 * and repaired in memory, and what comes out must open and pass the check, or there are words. A
 * second repair finds nothing to do. The file is sparse, so the input tells what is in it:
 *
 *     u16             size of the file in units of 4 KiB, and ...
 *     u16             ... bytes beyond that
 *     pieces          u32 offset, u16 length, bytes; what no piece has is zeros
 */
#include "lib/cursor.h"
#include "vhd/image.h"
#include "vhd/repair.h"
#include "vhd/store_memory.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FILE_MAX (96 * MIB)
#define DATA_MAX (24 * MIB)
#define PIECES   1024

static struct loop *loop;

static void wrong(const char *what)
{
	fprintf(stderr, "%s\n", what);
	abort();
}

static void on_found(struct repair_report *r, enum repair_kind kind, uint64_t offset,
		     uint64_t length, const char *text)
{
	(void)r, (void)offset;
	if (getenv("REPAIR_FUZZ_TELL"))
		fprintf(stderr, "repair: %s\n", text);
	if (!text[0] || (kind == REPAIR_LOST && !length))
		abort();
}

static void on_checked(struct check_report *r, enum check_kind kind, const char *text)
{
	(void)r;
	if (kind == CHECK_DAMAGE && getenv("REPAIR_FUZZ_TELL"))
		fprintf(stderr, "check: %s\n", text);
}

static struct store *image_new(struct reader *r)
{
	const struct store_memory_options o = { .size_max = FILE_MAX, .bytes_max = DATA_MAX };
	struct store *s = store_memory_new(loop, &o);
	uint64_t size = reader_le16(r) * UINT64_C(4096);

	size += reader_le16(r) % 4096;
	if (!s || store_resize(s, MIN(size, FILE_MAX / 2)) < 0)
		abort();
	for (unsigned i = 0; i < PIECES && reader_left(r); i++) {
		uint64_t at = reader_le32(r);
		size_t n = reader_le16(r);
		const void *bytes = reader_take(r, n);

		if (!reader_ok(r))
			break;
		if (range_inside(at, n, s->size))
			store_write(s, bytes, n, at);
	}
	return s;
}

static unsigned damage(struct store *s)
{
	struct check_report report = { .found = on_checked };
	struct error err = { 0 };
	int r;

	s->read_only = true;
	r = store_check(s, &report, &err);
	s->read_only = false;
	if (r < 0 && getenv("REPAIR_FUZZ_TELL"))
		fprintf(stderr, "check: %s\n", err.message);
	if (r < 0 && !err.message[0])
		abort();
	return r < 0 ? 1 : report.counts[CHECK_DAMAGE];
}

static void opens(struct store *s)
{
	struct error err = { 0 };
	struct disk *d;

	if (disk_open_store(s, &d, &err) < 0 || disk_close(d, &err) < 0) {
		fprintf(stderr, "%s\n", err.message);
		abort();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct reader r = reader_of(data, size);
	struct repair_report report = { .found = on_found }, again = { .found = on_found };
	struct error err = { 0 };
	struct store *s;
	int e;

	if (!loop && loop_new(0, &loop, NULL) < 0)
		abort();
	s = image_new(&r);
	(void)damage(s);
	e = store_repair(s, &report, &err);
	if (e < 0 && !err.message[0])
		wrong("refused without words");
	if (e >= 0) {
		if (damage(s))
			wrong("damaged after the repair");
		if (store_repair(s, &again, &err) < 0)
			wrong("a second repair is refused");
		if (again.counts[REPAIR_LOST] || again.counts[REPAIR_RISK])
			wrong("a second repair finds something");
		opens(s);
	}
	store_memory_free(s);
	return 0;
}
