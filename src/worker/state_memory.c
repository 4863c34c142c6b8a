// SPDX-License-Identifier: MIT
/*
 * See state_memory.h. A few pieces are in flight at a time, each in a slot with its buffers: while
 * the disk works on some, the next is looked through for zeros and its checksum made. One piece a
 * slot and a round of the loop, so that commands are heard meanwhile.
 *
 * Facts: O_DIRECT asks for memory, offset and length in multiples of the disk's block; everything
 * here is in multiples of 4,096. A file system that cannot refuses the flag, and is not asked.
 */
#include "worker/state_memory.h"

#include "lib/cleanup.h"
#include "lib/crc32c.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define PIECE       (4 * MIB)
#define PIECE_PAGES (PIECE / GMEM_PAGE_SIZE)
#define BITMAP_SIZE (PIECE_PAGES / 8)
#define SLOTS       8u
#define IOV_MAX_    (PIECE_PAGES / 2 + 2)

struct memory_piece {
	uint64_t gpa;
	uint32_t pages; /* in the piece, zero ones included */
	uint8_t present[BITMAP_SIZE];
};

static const struct save_field piece_fields[] = {
	SAVE_FIELD(struct memory_piece, gpa),
	SAVE_FIELD(struct memory_piece, pages),
	SAVE_BYTES(struct memory_piece, present),
};
static const struct save_table piece_table =
	SAVE_TABLE("memory", 1, struct memory_piece, piece_fields);

/* Where the bytes of a piece are in the file, for reading. */
struct memory_place {
	struct memory_piece piece;
	uint64_t at;
	uint32_t crc;
};

struct slot {
	struct state_file *f;
	struct loop_io io;
	struct iovec iov[IOV_MAX_], *next;
	unsigned count;
	uint64_t at, left; /* of the transfer, in the file */
	void *head;        /* SAVE_BULK_ALIGN bytes: the piece's record */
	const struct memory_place *place;
	bool busy;
};

struct state_file {
	struct state_file_options o;
	bool writing, ending, syncing;
	int result;
	struct error error;
	struct loop_task task;
	unsigned busy, percent;
	struct slot slots[SLOTS];

	/* writing */
	struct save_writer *w;
	uint64_t at; /* where the next record goes */
	size_t range;
	uint64_t offset; /* in the range */
	uint64_t scanned;
	void *blocks[2]; /* aligned bytes that are not memory: the first and the last */

	/* reading */
	struct memory_place *places;
	size_t place_count, place_next;
};

/* --- pages --- */

static bool page_is_zero(const void *page)
{
	const uint64_t *p = page;
	uint64_t any = 0;

	for (unsigned i = 0; i < GMEM_PAGE_SIZE / 8; i += 64) {
		for (unsigned j = 0; j < 64; j++)
			any |= p[i + j];
		if (any)
			return false;
	}
	return true;
}

static bool present(const struct memory_piece *piece, uint32_t page)
{
	return piece->present[page / 8] & BIT(page % 8);
}

/* iovecs of the pages that are there; adjacent ones make one. */
static unsigned piece_iov(const struct memory_piece *piece, uint8_t *host, struct iovec *iov)
{
	unsigned n = 0;

	for (uint32_t page = 0; page < piece->pages; page++) {
		void *base = host + page * (uint64_t)GMEM_PAGE_SIZE;

		if (!present(piece, page))
			continue;
		if (page && present(piece, page - 1))
			iov[n - 1].iov_len += GMEM_PAGE_SIZE;
		else
			iov[n++] = (struct iovec){ base, GMEM_PAGE_SIZE };
	}
	return n;
}

static uint32_t iov_crc(const struct iovec *iov, unsigned n)
{
	uint32_t crc = 0;

	for (unsigned i = 0; i < n; i++)
		crc = crc32c(crc, iov[i].iov_base, iov[i].iov_len);
	return crc;
}

static uint64_t iov_bytes(const struct iovec *iov, unsigned n)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < n; i++)
		sum += iov[i].iov_len;
	return sum;
}

/* --- ends --- */

static void fail(struct state_file *f, int result, const char *what)
{
	if (f->result < 0)
		return;
	f->result = result;
	if (result == -ECANCELED)
		error_set(&f->error, result, "it was cancelled");
	else
		error_errno(&f->error, result, "%s", what);
}

static void go_on(struct state_file *f)
{
	loop_defer(f->o.loop, &f->task);
}

static void tell_progress(struct state_file *f, uint64_t part, uint64_t whole)
{
	unsigned percent = whole ? (unsigned)(part * 100 / whole) : 100;

	if (percent == f->percent || !f->o.progress)
		return;
	f->percent = percent;
	f->o.progress(f->o.context, percent);
}

/* --- transfers --- */

static void transfer(struct slot *s)
{
	if (s->f->writing)
		loop_io_writev(s->f->o.loop, &s->io, s->f->o.fd, s->next, s->count, s->at);
	else
		loop_io_readv(s->f->o.loop, &s->io, s->f->o.fd, s->next, s->count, s->at);
}

/* Past the first n bytes. */
static void advance(struct slot *s, uint64_t n)
{
	s->at += n;
	s->left -= n;
	while (n && n >= s->next->iov_len) {
		n -= s->next->iov_len;
		s->next++;
		s->count--;
	}
	if (n) {
		s->next->iov_base = (uint8_t *)s->next->iov_base + n;
		s->next->iov_len -= n;
	}
}

static void check_piece(struct slot *s)
{
	struct state_file *f = s->f;
	uint8_t *host = gmem_page(f->o.gm, s->place->piece.gpa);
	unsigned n = piece_iov(&s->place->piece, host, s->iov);

	if (f->result >= 0 && iov_crc(s->iov, n) != s->place->crc) {
		f->result = -EBADMSG;
		error_set(&f->error, -EBADMSG,
			  "the saved state is damaged: the memory at 0x%llx is not what was saved",
			  (unsigned long long)s->place->piece.gpa);
	}
}

static void on_transfer(struct loop_io *io, int result)
{
	struct slot *s = container_of(io, struct slot, io);
	struct state_file *f = s->f;

	if (result > 0 && (uint64_t)result <= s->left)
		advance(s, (uint64_t)result);
	else if (result != -EINTR && result != -EAGAIN)
		fail(f, result < 0 ? result : -EIO,
		     f->writing ? "cannot write the state" : "cannot read the state");
	if (f->result >= 0 && s->left) {
		transfer(s);
		return;
	}
	if (!f->writing && s->place)
		check_piece(s);
	s->busy = false;
	f->busy--;
	go_on(f);
}

static void begin_transfer(struct slot *s, unsigned count, uint64_t at)
{
	s->busy = true;
	s->f->busy++;
	s->io.done = on_transfer;
	s->next = s->iov;
	s->count = count;
	s->at = at;
	s->left = iov_bytes(s->iov, count);
	transfer(s);
}

static struct slot *slot_free(struct state_file *f)
{
	for (unsigned i = 0; i < SLOTS; i++)
		if (!f->slots[i].busy)
			return &f->slots[i];
	return NULL;
}

/* --- writing --- */

/* To the piece in which there is something again. */
static void skip_untouched(struct state_file *f, const struct gmem_range *r)
{
	uint64_t at = gmem_next_touched(f->o.gm, f->range, f->offset);

	at = MIN(round_down64(at, PIECE), round_down64(r->size - 1, PIECE));
	if (at <= f->offset)
		return;
	f->scanned += at - f->offset;
	f->offset = at;
}

/* The next piece that is not all zeros; false at the end of memory. Looks at 64 MiB at most. */
static bool piece_next(struct state_file *f, struct memory_piece *piece, uint8_t **ret_host,
		       bool *ret_any)
{
	size_t count;
	const struct gmem_range *ranges = gmem_ranges(f->o.gm, &count);

	*ret_any = false;
	for (unsigned looked = 0; f->range < count && looked < 16; looked++) {
		const struct gmem_range *r = &ranges[f->range];
		uint8_t *host;
		uint64_t size;

		if (!r->size) { /* room to grow, and nothing in it */
			f->range++;
			continue;
		}
		skip_untouched(f, r);
		host = (uint8_t *)r->host + f->offset;
		size = MIN(PIECE, r->size - f->offset);

		*piece = (struct memory_piece){ .gpa = r->gpa + f->offset,
						.pages = (uint32_t)(size / GMEM_PAGE_SIZE) };
		for (uint32_t i = 0; i < piece->pages; i++)
			if (!page_is_zero(host + i * (uint64_t)GMEM_PAGE_SIZE)) {
				piece->present[i / 8] |= (uint8_t)BIT(i % 8);
				*ret_any = true;
			}
		f->scanned += size;
		f->offset += size;
		if (f->offset == r->size) {
			f->range++;
			f->offset = 0;
		}
		*ret_host = host;
		if (*ret_any)
			return true;
	}
	return f->range < count;
}

static void write_piece(struct state_file *f, struct slot *s, const struct memory_piece *piece,
			uint8_t *host)
{
	unsigned n = piece_iov(piece, host, s->iov + 1);
	const struct save_bulk bulk = { iov_bytes(s->iov + 1, n), iov_crc(s->iov + 1, n) };
	const void *head;
	size_t size;

	save_writer_restart(f->w, f->at);
	save_put_bulk(f->w, &piece_table, piece, &bulk);
	head = save_writer_bytes(f->w, &size);
	if (save_writer_check(f->w, &f->error) < 0 || size != SAVE_BULK_ALIGN) {
		fail(f, -EOVERFLOW, "the state became too large");
		return;
	}
	memcpy(s->head, head, size);
	s->iov[0] = (struct iovec){ s->head, size };
	begin_transfer(s, n + 1, f->at);
	f->at += size + bulk.size;
}

/* What the writer has, in a block of its own, padded: at the beginning, and at the end. */
static void write_block(struct state_file *f, uint64_t at)
{
	struct slot *s = slot_free(f);
	const void *bytes;
	size_t size, padded;
	uint8_t *block;

	bytes = save_writer_bytes(f->w, &size);
	padded = (size_t)round_up64(size, SAVE_BULK_ALIGN);
	block = f->blocks[f->ending] = aligned_alloc(SAVE_BULK_ALIGN, padded);
	if (!block || save_writer_check(f->w, NULL) < 0) {
		fail(f, -ENOMEM, "cannot write the state");
		return;
	}
	memcpy(block, bytes, size);
	memset(block + size, 0, padded - size);
	s->iov[0] = (struct iovec){ block, padded };
	begin_transfer(s, 1, at);
	f->at = at + padded;
}

static void write_end(struct state_file *f)
{
	f->ending = true;
	save_writer_restart(f->w, f->at);
	save_put_end(f->w);
	write_block(f, f->at);
}

static void on_synced(struct loop_io *io, int result)
{
	struct slot *s = container_of(io, struct slot, io);

	if (result < 0)
		fail(s->f, result, "cannot make the state durable");
	s->busy = false;
	s->f->busy--;
	go_on(s->f);
}

static void sync_file(struct state_file *f)
{
	struct slot *s = slot_free(f);

	f->syncing = true;
	s->busy = true;
	f->busy++;
	s->io.done = on_synced;
	loop_io_fdatasync(f->o.loop, &s->io, f->o.fd);
}

static void write_more(struct state_file *f)
{
	struct slot *s = slot_free(f);
	struct memory_piece piece;
	uint8_t *host;
	bool any, more;

	if (!s)
		return;
	if (f->ending) {
		if (!f->busy)
			sync_file(f);
		return;
	}
	more = piece_next(f, &piece, &host, &any);
	if (any)
		write_piece(f, s, &piece, host);
	if (!more)
		write_end(f);
	tell_progress(f, f->scanned, gmem_size(f->o.gm) + 1);
	if (f->result >= 0)
		go_on(f);
}

/* --- reading --- */

static void read_more(struct state_file *f)
{
	struct slot *s = slot_free(f);
	unsigned n;

	if (!s || f->place_next == f->place_count)
		return;
	s->place = &f->places[f->place_next++];
	n = piece_iov(&s->place->piece, gmem_page(f->o.gm, s->place->piece.gpa), s->iov);
	begin_transfer(s, n, s->place->at);
	tell_progress(f, f->place_next, f->place_count + 1);
	go_on(f);
}

/* --- the course of it --- */

static void on_task(struct loop_task *t)
{
	struct state_file *f = container_of(t, struct state_file, task);
	bool over = f->result < 0 || (f->writing ? f->syncing : f->place_next == f->place_count);

	if (f->result >= 0 && !(f->writing && f->syncing)) {
		if (f->writing)
			write_more(f);
		else
			read_more(f);
	}
	if (f->busy || !(over || f->result < 0))
		return;
	loop_cancel(f->o.loop, &f->task);
	f->o.done(f->o.context, f->result, &f->error);
}

/* Whether the file goes past the page cache from here on. Not on file systems that cannot. */
static void go_direct(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags >= 0)
		(void)fcntl(fd, F_SETFL, flags | O_DIRECT);
}

static int file_check(int fd, struct error *err)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return error_errno(err, -errno, "cannot look at the state file");
	if (!S_ISREG(st.st_mode))
		return error_set(err, -EINVAL, "the state file is no regular file");
	return 0;
}

static struct state_file *file_new(const struct state_file_options *o, bool writing)
{
	struct state_file *f = calloc(1, sizeof(*f));

	if (!f)
		return NULL;
	f->o = *o;
	f->writing = writing;
	loop_task_init(&f->task, on_task);
	for (unsigned i = 0; i < SLOTS; i++) {
		f->slots[i].f = f;
		f->slots[i].head = writing ? aligned_alloc(SAVE_BULK_ALIGN, SAVE_BULK_ALIGN) : NULL;
		if (writing && !f->slots[i].head) {
			state_file_free(f);
			return NULL;
		}
	}
	return f;
}

int state_file_write(const struct state_file_options *o, struct save_writer *w,
		     struct state_file **ret, struct error *err)
{
	struct state_file *f = NULL;
	int r = save_writer_check(w, err);

	if (r >= 0)
		r = file_check(o->fd, err);
	if (r >= 0 && ftruncate(o->fd, 0) < 0)
		r = error_errno(err, -errno, "cannot empty the state file");
	if (r >= 0 && !(f = file_new(o, true)))
		r = error_set(err, -ENOMEM, "out of memory");
	if (r < 0) {
		save_writer_free(w);
		return r;
	}
	f->w = w;
	go_direct(o->fd);
	write_block(f, 0);
	go_on(f);
	*ret = f;
	return 0;
}

static int piece_check(const struct state_file *f, const struct memory_place *p, uint64_t bulk,
		       struct error *err)
{
	uint64_t size = p->piece.pages * (uint64_t)GMEM_PAGE_SIZE, bytes = 0;
	struct iovec iov;
	unsigned n = 0;

	for (uint32_t i = 0; i < PIECE_PAGES; i++)
		if (present(&p->piece, i)) {
			bytes += GMEM_PAGE_SIZE;
			if (i >= p->piece.pages)
				bytes = UINT64_MAX / 2;
		}
	if (p->piece.gpa % GMEM_PAGE_SIZE || !p->piece.pages || size > PIECE || bytes != bulk ||
	    gmem_iov(f->o.gm, p->piece.gpa, size, &iov, 1, &n) < 0)
		return error_set(err, -EBADMSG,
				 "the saved state does not fit: memory at 0x%llx that the machine "
				 "does not have",
				 (unsigned long long)p->piece.gpa);
	return 0;
}

static int list_places(struct state_file *f, struct save_reader *r, struct error *err)
{
	struct memory_place p;
	struct save_bulk bulk;
	size_t room = 0;
	int n;

	while ((n = save_next_bulk(r, &piece_table, &p.piece, &bulk, &p.at, err)) > 0) {
		p.crc = bulk.crc;
		n = piece_check(f, &p, bulk.size, err);
		if (n < 0)
			return n;
		if (f->place_count == room) {
			struct memory_place *grown;

			room = room ? room * 2 : 64;
			grown = realloc(f->places, room * sizeof(*grown));
			if (!grown)
				return error_set(err, -ENOMEM, "out of memory");
			f->places = grown;
		}
		f->places[f->place_count++] = p;
	}
	return n;
}

int state_file_read(const struct state_file_options *o, struct save_reader *r,
		    struct state_file **ret, struct error *err)
{
	struct state_file *f;
	int n = file_check(o->fd, err);

	if (n < 0)
		return n;
	f = file_new(o, false);
	if (!f)
		return error_set(err, -ENOMEM, "out of memory");
	n = list_places(f, r, err);
	if (n < 0) {
		state_file_free(f);
		return n;
	}
	go_direct(o->fd);
	go_on(f);
	*ret = f;
	return 0;
}

void state_file_cancel(struct state_file *f)
{
	fail(f, -ECANCELED, "");
	go_on(f);
}

void state_file_free(struct state_file *f)
{
	if (!f)
		return;
	loop_cancel(f->o.loop, &f->task);
	for (unsigned i = 0; i < SLOTS; i++)
		free(f->slots[i].head);
	save_writer_free(f->w);
	free(f->blocks[0]);
	free(f->blocks[1]);
	free(f->places);
	free(f);
}
