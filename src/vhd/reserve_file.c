// SPDX-License-Identifier: MIT
/*
 * Reservations in a file. Two slots are written in turn, each with a checksum and the number of the
 * change; the valid one with the higher number counts, so that a torn or lost write leaves the
 * state before it.
 *
 * Noticing. Change n lies in slot n & 1, so somebody who knows change n looks at the head of the
 * other slot: any later change has passed there. The head has a random part too: a write that a
 * crash tore has a number that is used again.
 *
 * Locks, on bytes that the files never have:
 *
 *     set    STATE           shared to read the slots, exclusive to write one
 *     image  NAME + hash     exclusive, of an initiator as long as it is open: no two are the same
 *     image  FENCE(n) + hash exclusive, while commands of that initiator are under way that change
 *                            n, modulo FENCES, allowed
 *
 * Who enters a fence looks whether the state has changed after taking the lock; who changes looks
 * at the old fences after having written. So one of them sees the other. Fences lie on the image
 * because its open file lives, with its locks, until the kernel is through with all I/O on it, also
 * when its process was killed.
 */
#include "vhd/reserve_file.h"

#include "lib/cleanup.h"
#include "lib/crc32c.h"
#include "lib/cursor.h"
#include "vhd/store.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#define SLOT_SIGNATURE UINT64_C(0x746f6c7374657376) /* "vsetslot" */
#define HEAD_SIZE      32u
#define NEXUS_SIZE     40u

#define LOCK_STATE    (INT64_C(1) << 60)
#define LOCK_NAME     STORE_SHARED_BYTE
#define LOCK_SPAN     (INT64_C(1) << 48)
#define LOCK_FENCE(n) ((INT64_C(1) << 61) + (int64_t)(n)*LOCK_SPAN)
#define FENCES        1024u /* changes that one command may outlast */
#define FENCES_OLD    (FENCES / 2)
#define INSIDE_MAX    16u   /* states that may have commands under way at once, of one opener */
#define LOCK_WAIT     1000u /* us */
#define LOCK_TRIES    1000u /* a second: the flushes of all that a cluster does at once */

struct fd_medium {
	struct reserve_medium medium;
	int fd;
};

struct reserve_file {
	struct fd_medium medium;
	struct guid initiator;
	int64_t hash;
	struct reserve_state state;
	uint64_t change;
	uint8_t head[HEAD_SIZE]; /* of the other slot, as last seen */
	uint32_t told[RESERVE_EVENTS];
	int image_fd;
	struct {
		uint64_t change;
		unsigned count;
	} inside[INSIDE_MAX]; /* commands under way; count 0 = unused */
};

/* --- a slot --- */

/*
 *     u64 signature, u64 change, u64 random, u32 checksum (itself 0), u32 PRgeneration
 *     u8 type, u8 holder, u8 aptpl, u8[13] 0
 *     64 * { u8[16] initiator, u64 key, u32 events[3], u32 0 }
 */
static uint32_t slot_sum(const void *bytes)
{
	static const uint8_t none[4];
	const uint8_t *b = bytes;
	uint32_t sum = crc32c(crc32c(0, b, 24), none, 4);

	return crc32c(sum, b + 28, RESERVE_SLOT_SIZE - 28);
}

void reserve_slot_encode(const struct reserve_state *s, uint64_t change, void *bytes)
{
	struct guid random = guid_random();
	struct writer w = writer_of(bytes, RESERVE_SLOT_SIZE);
	le32 sum;

	writer_le64(&w, SLOT_SIGNATURE);
	writer_le64(&w, change);
	writer_put(&w, &random, 8);
	writer_le32(&w, 0);
	writer_le32(&w, s->generation);
	writer_u8(&w, s->type);
	writer_u8(&w, s->holder);
	writer_u8(&w, s->aptpl);
	writer_zero(&w, 13);
	for (unsigned i = 0; i < RESERVE_NEXUS_MAX; i++) {
		writer_put(&w, &s->nexus[i].id, 16);
		writer_le64(&w, s->nexus[i].key);
		for (unsigned e = 0; e < RESERVE_EVENTS; e++)
			writer_le32(&w, s->nexus[i].events[e]);
		writer_le32(&w, 0);
	}
	writer_zero(&w, RESERVE_SLOT_SIZE - w.at);
	assert(writer_ok(&w));
	sum = le32_of(slot_sum(bytes));
	memcpy((uint8_t *)bytes + 24, &sum, 4);
}

int reserve_slot_decode(const void *bytes, struct reserve_state *ret, uint64_t *ret_change)
{
	struct reader r = reader_of(bytes, RESERVE_SLOT_SIZE);
	struct reserve_state s = { 0 };
	uint64_t signature = reader_le64(&r), change = reader_le64(&r);
	uint8_t aptpl;

	reader_skip(&r, 8);
	if (signature != SLOT_SIGNATURE || reader_le32(&r) != slot_sum(bytes))
		return -EINVAL;
	s.generation = reader_le32(&r);
	s.type = reader_u8(&r);
	s.holder = reader_u8(&r);
	aptpl = reader_u8(&r);
	s.aptpl = aptpl;
	reader_skip(&r, 13);
	for (unsigned i = 0; i < RESERVE_NEXUS_MAX; i++) {
		reader_copy(&r, &s.nexus[i].id, 16);
		s.nexus[i].key = reader_le64(&r);
		for (unsigned e = 0; e < RESERVE_EVENTS; e++)
			s.nexus[i].events[e] = reader_le32(&r);
		reader_skip(&r, 4);
	}
	if (!reader_ok(&r) || aptpl > 1 || !reserve_state_valid(&s))
		return -EINVAL;
	*ret = s;
	*ret_change = change;
	return 0;
}

/* --- both slots --- */

int reserve_medium_load(struct reserve_medium *m, struct reserve_state *ret, uint64_t *ret_change)
{
	uint8_t bytes[RESERVE_SLOT_SIZE];
	struct reserve_state s;
	bool found = false;
	uint64_t change;

	for (unsigned n = 0; n < 2; n++) {
		int r = m->read(m, bytes, sizeof(bytes), RESERVE_SLOT(n));

		if (r < 0)
			return r;
		if (reserve_slot_decode(bytes, &s, &change) < 0 || (change & 1) != n)
			continue;
		if (found && change < *ret_change)
			continue;
		*ret = s;
		*ret_change = change;
		found = true;
	}
	return found ? 0 : -EINVAL;
}

int reserve_medium_store(struct reserve_medium *m, const struct reserve_state *s, uint64_t change)
{
	uint8_t bytes[RESERVE_SLOT_SIZE];
	int r;

	if (change == UINT64_MAX)
		return -EOVERFLOW;
	reserve_slot_encode(s, change + 1, bytes);
	r = m->write(m, bytes, sizeof(bytes), RESERVE_SLOT((change + 1) & 1));
	return r < 0 ? r : m->sync(m);
}

/* --- the medium that is a file --- */

static int fd_of(struct reserve_medium *m)
{
	return container_of(m, struct fd_medium, medium)->fd;
}

static int fd_read(struct reserve_medium *m, void *buf, size_t n, uint64_t offset)
{
	uint8_t *p = buf;

	while (n) {
		ssize_t r = pread(fd_of(m), p, n, (off_t)offset);

		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			return r < 0 ? -errno : -EIO;
		p += r;
		n -= (size_t)r;
		offset += (uint64_t)r;
	}
	return 0;
}

static int fd_write(struct reserve_medium *m, const void *buf, size_t n, uint64_t offset)
{
	const uint8_t *p = buf;

	while (n) {
		ssize_t r = pwrite(fd_of(m), p, n, (off_t)offset);

		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			return r < 0 ? -errno : -EIO;
		p += r;
		n -= (size_t)r;
		offset += (uint64_t)r;
	}
	return 0;
}

static int fd_sync(struct reserve_medium *m)
{
	int r;

	do
		r = fdatasync(fd_of(m)) < 0 ? -errno : 0;
	while (r == -EINTR);
	return r;
}

/* --- locks --- */

static int lock_try(int fd, short type, int64_t at)
{
	struct flock lock = { .l_type = type, .l_whence = SEEK_SET, .l_start = at, .l_len = 1 };
	int r;

	do
		r = fcntl(fd, F_OFD_SETLK, &lock) < 0 ? -errno : 0;
	while (r == -EINTR);
	return r == -EACCES ? -EAGAIN : r;
}

/* A change takes as long as a flush; who waits longer waits for a process that stands still. */
static int lock_state(int fd, short type)
{
	int r = lock_try(fd, type, LOCK_STATE);

	for (unsigned i = 0; r == -EAGAIN && i < LOCK_TRIES; i++) {
		usleep(LOCK_WAIT);
		r = lock_try(fd, type, LOCK_STATE);
	}
	return r == -EAGAIN ? -EBUSY : r;
}

static void unlock(int fd, int64_t at)
{
	(void)lock_try(fd, F_UNLCK, at);
}

int reserve_file_read(int fd, void *buf, size_t n, size_t *ret_size)
{
	int r = lock_state(fd, F_RDLCK);
	ssize_t got;

	if (r < 0)
		return r;
	got = pread(fd, buf, n, 0);
	r = got < 0 ? -errno : 0;
	unlock(fd, LOCK_STATE);
	if (r >= 0)
		*ret_size = (size_t)got;
	return r;
}

/* --- an opener --- */

static int head_read(struct reserve_file *f, uint64_t change, uint8_t head[static HEAD_SIZE])
{
	struct reserve_medium *m = &f->medium.medium;

	return m->read(m, head, HEAD_SIZE, RESERVE_SLOT((change + 1) & 1));
}

/* With the STATE lock. */
static int load(struct reserve_file *f)
{
	struct reserve_state s;
	uint64_t change;
	int r = reserve_medium_load(&f->medium.medium, &s, &change);

	if (r >= 0)
		r = head_read(f, change, f->head);
	if (r < 0)
		return r;
	f->state = s;
	f->change = change;
	return 0;
}

int reserve_file_refresh(struct reserve_file *f)
{
	uint8_t head[HEAD_SIZE];
	int r = head_read(f, f->change, head);

	if (r < 0 || !memcmp(head, f->head, sizeof(head)))
		return r;
	r = lock_state(f->medium.fd, F_RDLCK);
	if (r < 0)
		return r;
	r = load(f);
	unlock(f->medium.fd, LOCK_STATE);
	return r;
}

const struct reserve_state *reserve_file_state(const struct reserve_file *f)
{
	return &f->state;
}

const struct guid *reserve_file_initiator(const struct reserve_file *f)
{
	return &f->initiator;
}

enum reserve_event reserve_file_event(struct reserve_file *f)
{
	const struct reserve_nexus *n = reserve_find(&f->state, &f->initiator);

	for (unsigned e = 0; n && e < RESERVE_EVENTS; e++) {
		if (n->events[e] == f->told[e])
			continue;
		f->told[e] = n->events[e];
		return e;
	}
	return RESERVE_EVENTS;
}

/* What happened before now is no news. */
static void events_skip(struct reserve_file *f)
{
	const struct reserve_nexus *n = reserve_find(&f->state, &f->initiator);

	for (unsigned e = 0; e < RESERVE_EVENTS; e++)
		f->told[e] = n ? n->events[e] : 0;
}

static int apply_locked(struct reserve_file *f, const struct reserve_request *q,
			enum reserve_result *ret)
{
	struct reserve_state next;
	enum reserve_result result;
	bool changed, known;
	int r = load(f), again;

	if (r < 0)
		return r;
	next = f->state;
	known = reserve_find(&f->state, &f->initiator) != NULL;
	result = reserve_apply(&next, &f->initiator, q, &changed);
	if (changed) {
		r = reserve_medium_store(&f->medium.medium, &next, f->change);
		again = load(f);
		r = r < 0 ? r : again;
	}
	if (r < 0)
		return r;
	if (!known)
		events_skip(f);
	*ret = result;
	return 0;
}

int reserve_file_apply(struct reserve_file *f, const struct reserve_request *request,
		       enum reserve_result *ret)
{
	int r = lock_state(f->medium.fd, F_WRLCK);

	if (r < 0)
		return r;
	r = apply_locked(f, request, ret);
	unlock(f->medium.fd, LOCK_STATE);
	return r;
}

/* --- commands under way --- */

static int64_t fence_of(const struct reserve_file *f, uint64_t change)
{
	return LOCK_FENCE(change % FENCES) + f->hash;
}

/* The place that counts the commands of the state at hand; INSIDE_MAX when there is none. */
static unsigned inside_find(const struct reserve_file *f)
{
	unsigned place = INSIDE_MAX;

	for (unsigned i = 0; i < INSIDE_MAX; i++) {
		if (f->inside[i].count && f->inside[i].change == f->change)
			return i;
		if (!f->inside[i].count)
			place = i;
	}
	return place;
}

int reserve_file_enter(struct reserve_file *f, unsigned *ret_fence)
{
	unsigned i = inside_find(f);
	uint8_t head[HEAD_SIZE];
	int r = i < INSIDE_MAX ? 0 : -EBUSY;

	if (r >= 0 && !f->inside[i].count)
		r = lock_try(f->image_fd, F_WRLCK, fence_of(f, f->change));
	if (r < 0)
		return r == -EAGAIN ? -EBUSY : r;
	f->inside[i].change = f->change;
	f->inside[i].count++;
	r = head_read(f, f->change, head);
	if (r >= 0 && memcmp(head, f->head, sizeof(head)))
		r = reserve_file_refresh(f) < 0 ? -EBUSY : -EAGAIN;
	if (r < 0) {
		reserve_file_leave(f, i);
		return r;
	}
	*ret_fence = i;
	return 0;
}

void reserve_file_leave(struct reserve_file *f, unsigned fence)
{
	assert(fence < INSIDE_MAX && f->inside[fence].count);
	if (!--f->inside[fence].count)
		unlock(f->image_fd, fence_of(f, f->inside[fence].change));
}

uint64_t reserve_file_change(const struct reserve_file *f)
{
	return f->change;
}

/* No other opener has a lock on these fences. */
static int fences_free(const struct reserve_file *f, uint64_t first, uint64_t count)
{
	struct flock lock = {
		.l_type = F_WRLCK,
		.l_whence = SEEK_SET,
		.l_start = LOCK_FENCE(first),
		.l_len = (off_t)count * LOCK_SPAN,
	};

	if (!count)
		return 1;
	if (fcntl(f->image_fd, F_OFD_GETLK, &lock) < 0)
		return -errno;
	return lock.l_type == F_UNLCK;
}

int reserve_file_quiet(struct reserve_file *f, uint64_t change)
{
	uint64_t first = (change - FENCES_OLD) % FENCES;
	uint64_t count = MIN(FENCES_OLD, FENCES - first);
	int r = fences_free(f, first, count);

	return r == 1 ? fences_free(f, 0, FENCES_OLD - count) : r;
}

/* --- opening --- */

static int64_t hash_of(const struct guid *id)
{
	uint64_t low = crc32c(0, id, sizeof(*id)), high = crc32c(1, id->b, 8);

	return (int64_t)((high << 32 | low) & (LOCK_SPAN - 1));
}

int64_t reserve_file_byte(const struct guid *initiator)
{
	return LOCK_NAME + hash_of(initiator);
}

static int open_locked(struct reserve_file *f, struct error *err)
{
	int r = lock_try(f->image_fd, F_WRLCK, reserve_file_byte(&f->initiator));
	char text[GUID_TEXT_SIZE];

	if (r == -EAGAIN)
		return error_set(err, -EBUSY,
				 "the initiator %s has the set open already; every virtual machine "
				 "and controller needs an identity of its own",
				 guid_format(&f->initiator, text));
	if (r >= 0)
		r = lock_state(f->medium.fd, F_RDLCK);
	if (r < 0)
		return error_errno(err, r, "cannot lock the set");
	r = load(f);
	unlock(f->medium.fd, LOCK_STATE);
	if (r == -EINVAL)
		return error_set(err, r, "the set is damaged: neither of its two states is valid");
	return r < 0 ? error_errno(err, r, "cannot read the set") : 0;
}

int reserve_file_open(int fd, int image_fd, const struct guid *initiator, struct reserve_file **ret,
		      struct error *err)
{
	struct reserve_file *f = calloc(1, sizeof(*f));
	int r;

	if (!f)
		return error_set(err, -ENOMEM, "out of memory");
	assert(!guid_is_zero(initiator));
	f->medium = (struct fd_medium){ { fd_read, fd_write, fd_sync }, fd };
	f->image_fd = image_fd;
	f->initiator = *initiator;
	f->hash = hash_of(initiator);
	r = open_locked(f, err);
	if (r < 0) {
		reserve_file_close(f);
		return r;
	}
	events_skip(f);
	*ret = f;
	return 0;
}

void reserve_file_close(struct reserve_file *f)
{
	if (!f)
		return;
	for (unsigned i = 0; i < INSIDE_MAX; i++)
		if (f->inside[i].count)
			unlock(f->image_fd, fence_of(f, f->inside[i].change));
	unlock(f->image_fd, reserve_file_byte(&f->initiator));
	unlock(f->medium.fd, LOCK_STATE);
	free(f);
}
