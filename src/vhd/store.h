/* SPDX-License-Identifier: MIT */
/*
 * Where the bytes of an image lie: a file or block device, or (in tests) memory, or an overlay that
 * changes nothing below. A store is a growable row of bytes without sectors or geometry; the disk
 * layers (disk.h) stand on it.
 *
 * The data path is asynchronous. Opening, creating, checking and closing also use the blocking
 * calls, which need no event loop.
 */
#pragma once

#include "event/loop.h"
#include "vhd/disk.h"

enum store_op {
	STORE_READ,  /* bytes beyond the end read as zeros */
	STORE_WRITE, /* beyond the end: the store grows */
	STORE_FLUSH, /* makes durable what was completed before this was submitted */
	STORE_PUNCH, /* zeros, and the space is given back where that is possible */
	STORE_ZERO,  /* zeros, and the space is kept where that is possible */
};

/*
 * Owned by the submitter and valid until done, which gets 0 or a negative errno on the loop's
 * thread, never from inside store_submit. Nothing is transferred short. PUNCH and ZERO never
 * change the size.
 */
struct store_io {
	enum store_op op;
	uint64_t offset, length;
	const struct iovec *iov;
	unsigned iovcnt;
	void (*done)(struct store_io *io, int result);
	/* the store's, from submit to done: */
	struct store *store;
	struct list node;
	struct loop_io io;
	uint64_t moved;    /* bytes that are through */
	struct iovec *own; /* replaces iov after a short transfer */
	void *bounce;
	bool direct;         /* sent past the page cache */
	bool cached;         /* into it, where writes go both ways */
	struct store *upper; /* an overlay's: itself, and the submitter's done */
	void (*upper_done)(struct store_io *io, int result);
};

/*
 * Gives `io` the memory of the part [from, from + length) of a request. *ret_own is the caller's to
 * free afterwards; NULL when the request's own array serves, which is so for the whole of it.
 */
int store_io_part(struct store_io *io, const struct disk_request *req, uint64_t from,
		  uint64_t length, struct iovec **ret_own) _must_check_;

struct store {
	const struct store_ops *ops;
	struct loop *loop; /* NULL: only the blocking calls may be used */
	uint64_t size;
	bool read_only;
	bool fixed_size; /* a block device: cannot grow, and its bytes are not zeros at first */
};

struct store_ops {
	const char *name;
	void (*submit)(struct store *s, struct store_io *io);
	/* Blocking; 0 or negative errno, never short; read gives zeros beyond the end. */
	int (*read)(struct store *s, void *buf, size_t n, uint64_t offset);
	int (*write)(struct store *s, const void *buf, size_t n, uint64_t offset);
	int (*zero)(struct store *s, uint64_t offset, uint64_t length);
	int (*sync)(struct store *s);
	int (*resize)(struct store *s, uint64_t size);
	/* Gets the space for a range, so that writing there cannot fail for want of it. */
	int (*reserve)(struct store *s, uint64_t offset, uint64_t length);
	/* Shares a range's bytes with another place; -EOPNOTSUPP or NULL = read and write. */
	int (*copy)(struct store *s, uint64_t from, uint64_t to, uint64_t length);
	/* Data or hole at offset (< size), and how far. */
	int (*extent)(struct store *s, uint64_t offset, enum disk_extent_kind *ret_kind,
		      uint64_t *ret_length);
	void (*close)(struct store *s); /* no I/O may be in flight */
};

static inline void store_submit(struct store *s, struct store_io *io)
{
	io->store = s;
	s->ops->submit(s, io);
}

static inline int store_read(struct store *s, void *buf, size_t n, uint64_t offset)
{
	return s->ops->read(s, buf, n, offset);
}

static inline int store_write(struct store *s, const void *buf, size_t n, uint64_t offset)
{
	return s->ops->write(s, buf, n, offset);
}

static inline int store_zero(struct store *s, uint64_t offset, uint64_t length)
{
	return s->ops->zero(s, offset, length);
}

static inline int store_sync(struct store *s)
{
	return s->ops->sync(s);
}

static inline int store_resize(struct store *s, uint64_t size)
{
	return s->ops->resize(s, size);
}

static inline int store_reserve(struct store *s, uint64_t offset, uint64_t length)
{
	return s->ops->reserve(s, offset, length);
}

static inline int store_extent(struct store *s, uint64_t offset, enum disk_extent_kind *ret_kind,
			       uint64_t *ret_length)
{
	return s->ops->extent(s, offset, ret_kind, ret_length);
}

/*
 * Copies a range to another that it does not overlap; holes stay holes. Blocks, running the loop
 * meanwhile if there is one: not from a callback. `buffer` has `room` bytes (at least 1; it should
 * be on a page's boundary), for stores that cannot copy by themselves.
 */
int store_copy(struct store *s, uint64_t from, uint64_t to, uint64_t length, void *buffer,
	       size_t room);

static inline void store_close(struct store *s)
{
	if (s)
		s->ops->close(s);
}

struct store_file_options {
	bool read_only;
	bool direct;  /* past the page cache where the file system can; unaligned I/O is bounced */
	bool no_lock; /* the caller holds the lock through this same descriptor */
	bool no_sync; /* flushes do nothing; with direct, writes go both ways at once */
	/*
	 * Writes of whole pages into the page cache are done at once, on the loop's thread, as long
	 * as they are quick. Else the ring hands each to a thread of its own: ext4, for one, can
	 * only do these blocking. It also does so here while the kernel is likely to let a write
	 * wait: behind a flush or the making of zeros, where also holes are not looked for (all is
	 * told as data), and for a while after one that took long.
	 */
	bool writes_block;
};

/*
 * On a regular file or block device. Takes an open file description lock, a reader's or a writer's
 * (see below); -EBUSY with words when somebody else has it. The descriptor belongs to the
 * store from here on, also when this fails.
 */
int store_file_open(struct loop *loop, int fd, const struct store_file_options *options,
		    struct store **ret, struct error *err) _must_check_;

/*
 * Who may have an image open, by locks on bytes of its open file description:
 *
 *     reader                      shared, all bytes
 *     writer                      exclusive, all bytes
 *     one of several writers      exclusive, one byte of its own from STORE_SHARED_BYTE on; and
 *                                 while it writes, others behind them (reserve_file.c)
 *
 * So those writers exclude readers and a single writer, but not each other. That they belong
 * together is their own affair: the first of them takes the lock of a single writer and then keeps
 * only its byte.
 */
#define STORE_SHARED_BYTE (INT64_C(1) << 60)

/* The lock that store_file_open takes; for use with no_lock. */
int store_file_lock(int fd, bool read_only, struct error *err) _must_check_;
/* That of one of several writers, in place of any that this descriptor has. */
int store_file_lock_shared(int fd, int64_t byte, struct error *err) _must_check_;

/*
 * Lies over `below` (owned from here on, also when this fails) and takes all blocking writes into
 * memory; `below` never changes. For the log replay of an image that is opened read-only, so it
 * carries few and small changes. Only reads and flushes may be submitted.
 */
int store_overlay_new(struct store *below, struct store **ret) _must_check_;
