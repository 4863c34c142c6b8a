// SPDX-License-Identifier: MIT
/*
 * The VHDX log as bytes (MS-VHDX 2.3). It is a ring of 4 KiB sectors. An entry counts only when
 * every field, every sequence number in its sectors and its checksum are right; neighbours whose
 * sequence numbers rise by one form a chain; the last entry of a chain is its head, and the chain
 * counts when the head's tail is in it. Of the chains that count the one with the greatest head is
 * active. All of it is untrusted: the work is linear in the size of the log, since an entry's
 * sectors are compared before its checksum is computed, and checksums have a budget.
 */
#include "vhd/vhdx_log.h"

#include "lib/cleanup.h"
#include "lib/crc32c.h"

#include <errno.h>
#include <string.h>

#define NOWHERE         UINT32_MAX
#define REPLAY_SIZE_MAX (128 * TIB)
#define REPLAY_FIRST    (192 * KIB) /* identifier and headers are never logged */
#define CHECKSUM_BUDGET 4u          /* times the size of the log */

static const uint8_t *sector_at(const struct vhdx_log *log, uint32_t start, uint32_t i)
{
	return log->bytes + (size_t)((start + i) % log->sectors) * VHDX_SECTOR;
}

static uint32_t header_sectors(uint32_t descriptors)
{
	if (descriptors <= VHDX_DESC_IN_FIRST_SECTOR)
		return 1;
	return 1 + (descriptors - VHDX_DESC_IN_FIRST_SECTOR + VHDX_DESC_PER_SECTOR - 1) /
			   VHDX_DESC_PER_SECTOR;
}

/* Sector and byte of descriptor n within an entry. */
static void descriptor_place(uint32_t n, uint32_t *ret_sector, uint32_t *ret_at)
{
	uint32_t size = sizeof(struct vhdx_log_descriptor);

	if (n < VHDX_DESC_IN_FIRST_SECTOR) {
		*ret_sector = 0;
		*ret_at = (uint32_t)sizeof(struct vhdx_log_header) + n * size;
		return;
	}
	n -= VHDX_DESC_IN_FIRST_SECTOR;
	*ret_sector = 1 + n / VHDX_DESC_PER_SECTOR;
	*ret_at = n % VHDX_DESC_PER_SECTOR * size;
}

static const struct vhdx_log_descriptor *descriptor_at(const struct vhdx_log *log, uint32_t start,
						       uint32_t n)
{
	uint32_t sector, at;

	descriptor_place(n, &sector, &at);
	return (const struct vhdx_log_descriptor *)(sector_at(log, start, sector) + at);
}

/* --- one entry --- */

static bool fields_decode(const struct vhdx_log *log, uint32_t start, const struct guid *guid,
			  struct vhdx_log_entry *ret)
{
	const struct vhdx_log_header *h = (const void *)sector_at(log, start, 0);
	uint32_t length = le32_get(h->entry_length), tail = le32_get(h->tail);

	if (le32_get(h->signature) != VHDX_LOG_SIGNATURE || !guid_equal(&h->log_guid, guid))
		return false;
	if (!length || (length | tail) % VHDX_SECTOR || length / VHDX_SECTOR > log->sectors ||
	    tail / VHDX_SECTOR >= log->sectors || !le64_get(h->sequence_number))
		return false;
	*ret = (struct vhdx_log_entry){
		.start = start,
		.sectors = length / VHDX_SECTOR,
		.tail = tail / VHDX_SECTOR,
		.descriptors = le32_get(h->descriptor_count),
		.sequence = le64_get(h->sequence_number),
		.flushed_size = le64_get(h->flushed_file_offset),
		.last_size = le64_get(h->last_file_offset),
	};
	return ret->descriptors <= UINT32_MAX / 2 &&
	       header_sectors(ret->descriptors) <= ret->sectors;
}

static bool data_sector_valid(const struct vhdx_log *log, const struct vhdx_log_entry *e,
			      uint32_t sector)
{
	const struct vhdx_log_data *d;

	if (sector >= e->sectors)
		return false;
	d = (const void *)sector_at(log, e->start, sector);
	return le32_get(d->signature) == VHDX_DATA_SIGNATURE &&
	       le32_get(d->sequence_high) == (uint32_t)(e->sequence >> 32) &&
	       le32_get(d->sequence_low) == (uint32_t)e->sequence;
}

static bool sectors_valid(const struct vhdx_log *log, const struct vhdx_log_entry *e)
{
	uint32_t data = header_sectors(e->descriptors);

	for (uint32_t i = 0; i < e->descriptors; i++) {
		const struct vhdx_log_descriptor *d = descriptor_at(log, e->start, i);
		uint32_t signature = le32_get(d->signature);

		if (le64_get(d->sequence_number) != e->sequence)
			return false;
		if (signature == VHDX_DATA_SIGNATURE)
			return false;
		if (signature == VHDX_DESC_SIGNATURE) {
			if (!data_sector_valid(log, e, data++))
				return false;
		} else if (signature != VHDX_ZERO_SIGNATURE) {
			return false;
		}
	}
	return true;
}

static bool checksum_valid(const struct vhdx_log *log, const struct vhdx_log_entry *e)
{
	static const uint8_t none[4];
	const uint8_t *first = sector_at(log, e->start, 0);
	uint32_t crc = crc32c(0, first, 4);

	crc = crc32c(crc, none, 4);
	crc = crc32c(crc, first + 8, VHDX_SECTOR - 8);
	for (uint32_t i = 1; i < e->sectors; i++)
		crc = crc32c(crc, sector_at(log, e->start, i), VHDX_SECTOR);
	return crc == le32_get(((const struct vhdx_log_header *)first)->checksum);
}

/* --- the active sequence --- */

struct scan {
	struct vhdx_log_entry *entries;
	size_t count, room;
	uint32_t *by_start; /* sector -> entry that starts there, or NOWHERE */
	uint64_t budget;    /* sectors that may still be checksummed */
};

static int scan_add(struct scan *scan, const struct vhdx_log_entry *e)
{
	if (scan->count == scan->room) {
		size_t room = MAX(scan->room * 2, 64);
		struct vhdx_log_entry *p = reallocarray(scan->entries, room, sizeof(*p));

		if (!p)
			return -ENOMEM;
		scan->entries = p;
		scan->room = room;
	}
	scan->by_start[e->start] = (uint32_t)scan->count;
	scan->entries[scan->count++] = *e;
	return 0;
}

static int scan_entries(const struct vhdx_log *log, const struct guid *guid, struct scan *scan)
{
	for (uint32_t i = 0; i < log->sectors; i++) {
		struct vhdx_log_entry e;
		int r;

		scan->by_start[i] = NOWHERE;
		if (!fields_decode(log, i, guid, &e) || !sectors_valid(log, &e))
			continue;
		if (e.sectors > scan->budget)
			return -EINVAL;
		scan->budget -= e.sectors;
		if (!checksum_valid(log, &e))
			continue;
		e.chain = NOWHERE;
		r = scan_add(scan, &e);
		if (r < 0)
			return r;
	}
	return 0;
}

static struct vhdx_log_entry *scan_next(const struct vhdx_log *log, const struct scan *scan,
					const struct vhdx_log_entry *e)
{
	uint32_t n = scan->by_start[(e->start + e->sectors) % log->sectors];

	if (n == NOWHERE || scan->entries[n].sequence != e->sequence + 1)
		return NULL;
	return &scan->entries[n];
}

/*
 * Numbers the chains. Walks start only at entries that no other leads to. Damaged logs may have two
 * entries that lead to the same one; the first walk then has what follows, the second one ends.
 */
static void scan_chains(const struct vhdx_log *log, struct scan *scan, bool *led_to)
{
	for (size_t i = 0; i < scan->count; i++) {
		struct vhdx_log_entry *next = scan_next(log, scan, &scan->entries[i]);

		if (next)
			led_to[next - scan->entries] = true;
	}
	for (size_t i = 0; i < scan->count; i++) {
		struct vhdx_log_entry *e = &scan->entries[i];
		uint32_t index = 0;

		for (; !led_to[i] && e && e->chain == NOWHERE; e = scan_next(log, scan, e)) {
			e->chain = (uint32_t)i;
			e->index = index++;
		}
	}
}

/* The head of the active sequence, and where its tail is; NULL when there is none. */
static const struct vhdx_log_entry *scan_head(const struct vhdx_log *log, const struct scan *scan,
					      const struct vhdx_log_entry **ret_tail)
{
	const struct vhdx_log_entry *head = NULL;

	for (size_t i = 0; i < scan->count; i++) {
		const struct vhdx_log_entry *e = &scan->entries[i];
		uint32_t n = scan->by_start[e->tail];

		if (e->chain == NOWHERE || scan_next(log, scan, e) || n == NOWHERE)
			continue;
		if (scan->entries[n].chain != e->chain || scan->entries[n].index > e->index)
			continue;
		if (!head || e->sequence > head->sequence) {
			head = e;
			*ret_tail = &scan->entries[n];
		}
	}
	return head;
}

static int active_take(struct vhdx_log *log, const struct scan *scan, struct error *err)
{
	const struct vhdx_log_entry *tail = NULL, *head = scan_head(log, scan, &tail);

	if (!head)
		return error_set(err, -EINVAL,
				 "the log is marked as in use but holds no valid sequence of "
				 "entries: the image is damaged");
	log->entries = calloc(head->index - tail->index + 1, sizeof(*log->entries));
	if (!log->entries)
		return error_set(err, -ENOMEM, "out of memory");
	for (; tail != head; tail = scan_next(log, scan, tail))
		log->entries[log->count++] = *tail;
	log->entries[log->count++] = *head;
	return 0;
}

static int active_find(struct vhdx_log *log, const struct guid *guid, struct error *err)
{
	_cleanup_free_ uint32_t *by_start = calloc(log->sectors, sizeof(*by_start));
	_cleanup_free_ bool *led_to = calloc(log->sectors, sizeof(*led_to));
	struct scan scan = {
		.by_start = by_start,
		.budget = (uint64_t)log->sectors * CHECKSUM_BUDGET,
	};
	int r;

	if (!by_start || !led_to)
		return error_set(err, -ENOMEM, "out of memory");
	r = scan_entries(log, guid, &scan);
	if (r == -ENOMEM)
		error_set(err, r, "out of memory");
	else if (r < 0)
		error_set(err, r, "the log's entries overlap: the image is damaged");
	if (r >= 0) {
		scan_chains(log, &scan, led_to);
		r = active_take(log, &scan, err);
	}
	free(scan.entries);
	return r;
}

/* --- what replaying would do --- */

static int target_check(const struct vhdx_log_descriptor *d, const struct vhdx_header *h,
			uint64_t limit)
{
	bool zero = le32_get(d->signature) == VHDX_ZERO_SIGNATURE;
	uint64_t offset = le64_get(d->file_offset), end;
	uint64_t length = zero ? le64_get(d->leading) : VHDX_SECTOR;

	if ((offset | length) % VHDX_SECTOR || add_overflow(offset, length, &end))
		return -EINVAL;
	if (offset < REPLAY_FIRST || end > limit)
		return -EINVAL;
	return offset < h->log_offset + h->log_length && end > h->log_offset ? -EINVAL : 0;
}

static int replay_check(const struct vhdx_log *log, const struct vhdx_header *h, uint64_t size,
			uint64_t *ret_size, struct error *err)
{
	const struct vhdx_log_entry *head = &log->entries[log->count - 1];
	uint64_t last = size;

	if (size < head->flushed_size)
		return error_set(err, -EINVAL,
				 "the file has %llu bytes, but the log says that it had %llu: it "
				 "was cut short",
				 (unsigned long long)size, (unsigned long long)head->flushed_size);
	for (size_t i = 0; i < log->count; i++)
		last = MAX(last, log->entries[i].last_size);
	if (last > REPLAY_SIZE_MAX)
		return error_set(err, -EINVAL, "the log wants a file of an impossible size");
	for (size_t i = 0; i < log->count; i++) {
		const struct vhdx_log_entry *e = &log->entries[i];

		for (uint32_t n = 0; n < e->descriptors; n++)
			if (target_check(descriptor_at(log, e->start, n), h, last) < 0)
				return error_set(err, -EINVAL,
						 "log entry %llu writes to a place where no log "
						 "entry may: the image is damaged",
						 (unsigned long long)e->sequence);
	}
	*ret_size = last;
	return 0;
}

int vhdx_log_read(struct store *s, const struct vhdx_header *h, struct vhdx_log *ret,
		  struct error *err)
{
	struct vhdx_log log = { .sectors = h->log_length / VHDX_SECTOR };
	uint64_t size;
	int r;

	if (h->log_length > VHDX_LOG_LENGTH_MAX)
		return error_set(err, -EFBIG, "the log has %u MiB; at most %u MiB can be replayed",
				 (unsigned)(h->log_length / MIB),
				 (unsigned)(VHDX_LOG_LENGTH_MAX / MIB));
	log.bytes = malloc(h->log_length);
	if (!log.bytes)
		return error_set(err, -ENOMEM, "out of memory");
	r = store_read(s, log.bytes, h->log_length, h->log_offset);
	if (r < 0)
		error_errno(err, r, "cannot read the log");
	else
		r = active_find(&log, &h->log, err);
	if (r >= 0)
		r = replay_check(&log, h, s->size, &size, err);
	if (r < 0) {
		vhdx_log_deinit(&log);
		return r;
	}
	*ret = log;
	return 0;
}

void vhdx_log_deinit(struct vhdx_log *log)
{
	free(log->bytes);
	free(log->entries);
	*log = (struct vhdx_log){ 0 };
}

/* --- replay --- */

static int replay_page(const struct vhdx_log_descriptor *d, const uint8_t *sector, struct store *s)
{
	const struct vhdx_log_data *data = (const void *)sector;
	uint8_t page[VHDX_SECTOR] __attribute__((aligned(8)));

	memcpy(page, &d->leading, 8);
	memcpy(page + 8, data->data, sizeof(data->data));
	memcpy(page + 4092, &d->trailing, 4);
	return store_write(s, page, sizeof(page), le64_get(d->file_offset));
}

static int replay_entry(const struct vhdx_log *log, const struct vhdx_log_entry *e, struct store *s)
{
	uint32_t data = header_sectors(e->descriptors);

	for (uint32_t n = 0; n < e->descriptors; n++) {
		const struct vhdx_log_descriptor *d = descriptor_at(log, e->start, n);
		int r;

		if (le32_get(d->signature) == VHDX_ZERO_SIGNATURE)
			r = store_zero(s, le64_get(d->file_offset), le64_get(d->leading));
		else
			r = replay_page(d, sector_at(log, e->start, data++), s);
		if (r < 0)
			return r;
	}
	return 0;
}

int vhdx_log_replay(const struct vhdx_log *log, const struct vhdx_header *h, struct store *s,
		    struct error *err)
{
	uint64_t size = 0;
	int r = replay_check(log, h, s->size, &size, err);

	if (r < 0)
		return r;
	/* First the size: zeroing beyond the end would do nothing. */
	if (size > s->size)
		r = store_resize(s, size);
	for (size_t i = 0; i < log->count && r >= 0; i++)
		r = replay_entry(log, &log->entries[i], s);
	return r < 0 ? error_errno(err, r, "cannot replay the log into the image") : 0;
}

/* --- new entries --- */

uint32_t vhdx_log_entry_sectors(uint32_t pages)
{
	return header_sectors(pages) + pages;
}

static void page_encode(uint8_t *entry, uint32_t n, uint8_t *sector, uint64_t sequence,
			const struct vhdx_log_page *page)
{
	struct vhdx_log_data *data = (void *)sector;
	struct vhdx_log_descriptor *d;
	uint32_t at_sector, at;

	descriptor_place(n, &at_sector, &at);
	d = (void *)(entry + at_sector * VHDX_SECTOR + at);
	d->signature = le32_of(VHDX_DESC_SIGNATURE);
	memcpy(&d->trailing, (const uint8_t *)page->bytes + 4092, 4);
	memcpy(&d->leading, page->bytes, 8);
	d->file_offset = le64_of(page->offset);
	d->sequence_number = le64_of(sequence);
	data->signature = le32_of(VHDX_DATA_SIGNATURE);
	data->sequence_high = le32_of((uint32_t)(sequence >> 32));
	memcpy(data->data, (const uint8_t *)page->bytes + 8, sizeof(data->data));
	data->sequence_low = le32_of((uint32_t)sequence);
}

void vhdx_log_entry_encode(void *buf, const struct vhdx_log_stamp *stamp,
			   const struct vhdx_log_page *pages, uint32_t count)
{
	struct vhdx_log_header *h = buf;
	uint32_t data = header_sectors(count), length = (data + count) * VHDX_SECTOR;

	memset(buf, 0, data * VHDX_SECTOR);
	h->signature = le32_of(VHDX_LOG_SIGNATURE);
	h->entry_length = le32_of(length);
	h->tail = le32_of(stamp->tail * VHDX_SECTOR);
	h->sequence_number = le64_of(stamp->sequence);
	h->descriptor_count = le32_of(count);
	h->log_guid = stamp->log;
	h->flushed_file_offset = le64_of(stamp->flushed_size);
	h->last_file_offset = le64_of(stamp->last_size);
	for (uint32_t i = 0; i < count; i++)
		page_encode(buf, i, (uint8_t *)buf + (data + i) * VHDX_SECTOR, stamp->sequence,
			    &pages[i]);
	h->checksum = le32_of(crc32c(0, buf, length));
}
