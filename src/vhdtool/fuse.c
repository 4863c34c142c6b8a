// SPDX-License-Identifier: MIT
/*
 * See fuse.h. Each request is read into a slot of its own, so that the payload of a WRITE lies on a
 * page boundary and goes to the disk as it is; a READ's answer leaves from the same place. The
 * kernel is not hostile, but its users are: offsets and names are checked.
 */
#include "vhdtool/fuse.h"

#include "lib/cleanup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fuse.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>

#define PAGE        4096u
#define READS_MAX   64u /* requests taken in one round */
#define ID_ROOT     FUSE_ROOT_ID
#define ID_FILE     2u
#define ATTR_VALID  3600u /* s: nothing changes */
#define WRITE_HEAD  (sizeof(struct fuse_in_header) + sizeof(struct fuse_write_in))
#define OLDEST      23u /* minor version: Linux 3.15, fallocate and direct I/O are there */
#define DIRECT_MMAP (UINT64_C(1) << 36)

struct slot {
	struct list node; /* fuse.free */
	struct fuse *fuse;
	struct bytes_io io;
	struct loop_task seek;
	struct fuse_in_header head;
	uint8_t *area, *data; /* data = on a page boundary, FUSE_DATA_MAX bytes */
};

struct fuse {
	struct loop *loop;
	struct loop_watch watch;
	struct fuse_export export;
	struct bytes_queue queue;
	int fd;
	bool ended;
	unsigned busy;
	struct list free; /* slot.node */
	unsigned made;
	struct slot slots[FUSE_IN_FLIGHT];
};

static void on_readable(struct loop_watch *w, uint32_t events);

/* --- answers --- */

static void slot_give(struct slot *s)
{
	struct fuse *f = s->fuse;

	list_append(f->free.next, &s->node); /* first: its memory is still in the caches */
	f->busy--;
	if (f->ended && !f->busy)
		loop_stop(f->loop);
	else if (!f->ended && f->watch.fd < 0 &&
		 loop_watch(f->loop, &f->watch, f->fd, EPOLLIN, on_readable) < 0)
		f->ended = true;
}

/* Ends the request. The kernel may have given it up: that is no error. */
static void answer(struct slot *s, int result, const void *data, size_t size)
{
	struct fuse_out_header h = {
		.len = (uint32_t)(sizeof(h) + (result < 0 ? 0 : size)),
		.error = result < 0 ? result : 0,
		.unique = s->head.unique,
	};
	const struct iovec iov[2] = { { &h, sizeof(h) }, { (void *)(uintptr_t)data, size } };
	ssize_t n;

	do
		n = writev(s->fuse->fd, iov, result < 0 || !size ? 1 : 2);
	while (n < 0 && errno == EINTR);
	slot_give(s);
}

static void fill_attr(const struct fuse *f, uint64_t id, struct fuse_attr *a)
{
	*a = (struct fuse_attr){
		.ino = id,
		.uid = f->export.uid,
		.gid = f->export.gid,
		.blksize = PAGE,
	};
	if (id == ID_ROOT) {
		a->mode = S_IFDIR | 0700;
		a->nlink = 2;
	} else {
		a->mode = S_IFREG | (f->export.writable ? 0600 : 0400);
		a->nlink = 1;
		a->size = f->export.disk->geometry.size;
		a->blocks = a->size / 512;
	}
}

/* --- the session --- */

static void do_init(struct slot *s, const void *body)
{
	const struct fuse_init_in *in = body;
	struct fuse_init_out out = {
		.major = FUSE_KERNEL_VERSION,
		.minor = MIN(in->minor, (uint32_t)FUSE_KERNEL_MINOR_VERSION),
		.max_readahead = MIN(in->max_readahead, (uint32_t)FUSE_DATA_MAX),
		.max_background = FUSE_IN_FLIGHT - 16,
		.congestion_threshold = FUSE_IN_FLIGHT - 32,
		.max_write = FUSE_DATA_MAX,
		.time_gran = 1,
		.max_pages = FUSE_DATA_MAX / PAGE,
	};
	uint64_t can = in->flags;

	if (in->major != FUSE_KERNEL_VERSION || in->minor < OLDEST) {
		answer(s, -EPROTO, NULL, 0);
		return;
	}
	if (in->flags & FUSE_INIT_EXT)
		can |= (uint64_t)in->flags2 << 32;
	can &= FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_ASYNC_DIO | FUSE_MAX_PAGES | FUSE_INIT_EXT |
	       DIRECT_MMAP;
	out.flags = (uint32_t)can;
	out.flags2 = (uint32_t)(can >> 32);
	answer(s, 0, &out, sizeof(out));
}

/* --- names and attributes --- */

static void do_lookup(struct slot *s, const void *body)
{
	struct fuse_entry_out out = {
		.nodeid = ID_FILE,
		.entry_valid = ATTR_VALID,
		.attr_valid = ATTR_VALID,
	};

	if (s->head.nodeid != ID_ROOT || strcmp(body, FUSE_FILE_NAME)) {
		answer(s, -ENOENT, NULL, 0);
		return;
	}
	fill_attr(s->fuse, ID_FILE, &out.attr);
	answer(s, 0, &out, sizeof(out));
}

static void answer_attr(struct slot *s)
{
	struct fuse_attr_out out = { .attr_valid = ATTR_VALID };

	fill_attr(s->fuse, s->head.nodeid, &out.attr);
	answer(s, 0, &out, sizeof(out));
}

static void do_getattr(struct slot *s, const void *body)
{
	(void)body;
	answer_attr(s);
}

/* Owner and times are accepted and forgotten; the size stays. */
static void do_setattr(struct slot *s, const void *body)
{
	const struct fuse_setattr_in *in = body;

	if (in->valid & FATTR_SIZE && in->size != s->fuse->export.disk->geometry.size)
		answer(s, -EPERM, NULL, 0);
	else
		answer_attr(s);
}

static void do_open(struct slot *s, const void *body)
{
	const struct fuse_open_in *in = body;
	const struct fuse_open_out out = { .open_flags =
						   FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES };

	if (s->head.nodeid != ID_FILE)
		answer(s, -EISDIR, NULL, 0);
	else if ((in->flags & O_ACCMODE) != O_RDONLY && !s->fuse->export.writable)
		answer(s, -EROFS, NULL, 0);
	else
		answer(s, 0, &out, sizeof(out));
}

static void do_opendir(struct slot *s, const void *body)
{
	const struct fuse_open_out out = { 0 };

	(void)body;
	answer(s, 0, &out, sizeof(out));
}

static void do_readdir(struct slot *s, const void *body)
{
	static const struct {
		const char *name;
		uint64_t id;
		uint32_t type;
	} entries[] = { { ".", ID_ROOT, DT_DIR },
			{ "..", ID_ROOT, DT_DIR },
			{ FUSE_FILE_NAME, ID_FILE, DT_REG } };
	const struct fuse_read_in *in = body;
	uint64_t at = in->offset;
	uint8_t bytes[3 * 64] = { 0 };
	size_t size = 0;

	for (; at < ARRAY_SIZE(entries); at++) {
		struct fuse_dirent d = { .ino = entries[at].id,
					 .off = at + 1,
					 .namelen = (uint32_t)strlen(entries[at].name),
					 .type = entries[at].type };
		size_t n = FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + d.namelen);

		if (size + n > in->size)
			break;
		memcpy(bytes + size, &d, FUSE_NAME_OFFSET);
		memcpy(bytes + size + FUSE_NAME_OFFSET, entries[at].name, d.namelen);
		size += n;
	}
	answer(s, 0, bytes, size);
}

static void do_statfs(struct slot *s, const void *body)
{
	const struct fuse_statfs_out out = {
		.st = { .blocks = s->fuse->export.disk->geometry.size / PAGE,
			.bsize = PAGE,
			.frsize = PAGE,
			.namelen = 255,
			.files = 1 },
	};

	(void)body;
	answer(s, 0, &out, sizeof(out));
}

static void do_nothing(struct slot *s, const void *body)
{
	(void)body;
	answer(s, 0, NULL, 0);
}

/* --- data --- */

static void on_read(struct bytes_io *io, int result)
{
	struct slot *s = container_of(io, struct slot, io);

	answer(s, result, s->data, io->length);
}

static void on_written(struct bytes_io *io, int result)
{
	const struct fuse_write_out out = { .size = (uint32_t)io->length };

	answer(container_of(io, struct slot, io), result, &out, sizeof(out));
}

static void on_flushed(struct bytes_io *io, int result)
{
	answer(container_of(io, struct slot, io), result, NULL, 0);
}

static void submit(struct slot *s, enum disk_op op, void (*done)(struct bytes_io *, int))
{
	struct fuse *f = s->fuse;

	s->io.op = op;
	s->io.flags = 0;
	s->io.buf = s->data;
	s->io.done = done;
	bytes_submit(&f->queue, f->export.disk, &s->io);
}

static void do_read(struct slot *s, const void *body)
{
	const struct fuse_read_in *in = body;
	uint64_t size = s->fuse->export.disk->geometry.size;

	if (in->offset >= size || !in->size || in->size > FUSE_DATA_MAX) {
		answer(s, in->size > FUSE_DATA_MAX ? -EINVAL : 0, NULL, 0);
		return;
	}
	s->io.offset = in->offset;
	s->io.length = MIN(in->size, size - in->offset);
	submit(s, DISK_READ, on_read);
}

static void do_write(struct slot *s, const void *body)
{
	const struct fuse_write_in *in = body;
	uint64_t size = s->fuse->export.disk->geometry.size;

	if (!s->fuse->export.writable) {
		answer(s, -EROFS, NULL, 0);
		return;
	}
	if (in->offset >= size || in->size > s->head.len - WRITE_HEAD) {
		answer(s, in->offset >= size ? -ENOSPC : -EINVAL, NULL, 0);
		return;
	}
	s->io.offset = in->offset;
	s->io.length = MIN(in->size, size - in->offset);
	submit(s, DISK_WRITE, on_written);
}

static void do_fsync(struct slot *s, const void *body)
{
	(void)body;
	if (!s->fuse->export.writable)
		answer(s, 0, NULL, 0);
	else
		submit(s, DISK_FLUSH, on_flushed);
}

/* What a punched hole must be: zeros, and given back where that can be. */
static enum disk_op punch_op(const struct slot *s)
{
	const struct disk_geometry *g = &s->fuse->export.disk->geometry;
	bool whole = !((s->io.offset | s->io.length) & (g->logical_sector - 1));

	/* WRITE_ZEROES may keep the space. */
	return whole && g->trim_zeros ? DISK_TRIM : DISK_WRITE_ZEROES;
}

static void do_fallocate(struct slot *s, const void *body)
{
	const struct fuse_fallocate_in *in = body;
	uint64_t size = s->fuse->export.disk->geometry.size;
	uint32_t kind = in->mode & ~(uint32_t)FALLOC_FL_KEEP_SIZE;

	if (!s->fuse->export.writable) {
		answer(s, -EROFS, NULL, 0);
		return;
	}
	if (in->offset >= size || (kind != FALLOC_FL_PUNCH_HOLE && kind != FALLOC_FL_ZERO_RANGE)) {
		answer(s, in->offset >= size ? -ENOSPC : -EOPNOTSUPP, NULL, 0);
		return;
	}
	s->io.offset = in->offset;
	s->io.length = MIN(in->length, size - in->offset);
	submit(s, kind == FALLOC_FL_PUNCH_HOLE ? punch_op(s) : DISK_WRITE_ZEROES, on_flushed);
}

static void seek_end(struct slot *s, uint64_t at)
{
	const struct fuse_lseek_out out = { .offset = at };

	answer(s, 0, &out, sizeof(out));
}

/* One stretch of the disk at a time: there may be many until the one that is wanted. */
static void on_seek(struct loop_task *t)
{
	struct slot *s = container_of(t, struct slot, seek);
	struct disk *d = s->fuse->export.disk;
	bool data = s->io.flags == SEEK_DATA;
	uint64_t at = s->io.offset, length;
	enum disk_extent_kind kind;
	int r = d->ops->extent(d, at & ~UINT64_C(511), &kind, &length);

	if (r < 0) {
		answer(s, r, NULL, 0);
		return;
	}
	if ((kind == DISK_EXTENT_DATA) == data) {
		seek_end(s, at);
		return;
	}
	s->io.offset += length - (at & 511);
	if (s->io.offset < d->geometry.size)
		loop_defer(s->fuse->loop, &s->seek);
	else if (data)
		answer(s, -ENXIO, NULL, 0);
	else
		seek_end(s, d->geometry.size);
}

static void do_lseek(struct slot *s, const void *body)
{
	const struct fuse_lseek_in *in = body;

	if (in->whence != SEEK_DATA && in->whence != SEEK_HOLE) {
		answer(s, -EINVAL, NULL, 0);
		return;
	}
	if (in->offset >= s->fuse->export.disk->geometry.size) {
		answer(s, -ENXIO, NULL, 0);
		return;
	}
	s->io.offset = in->offset;
	s->io.flags = in->whence;
	loop_task_init(&s->seek, on_seek);
	on_seek(&s->seek);
}

/* --- requests --- */

static const struct handler {
	size_t size; /* of the body, at least */
	void (*fn)(struct slot *s, const void *body);
} handlers[] = {
	[FUSE_LOOKUP] = { 1, do_lookup },
	[FUSE_GETATTR] = { 0, do_getattr },
	[FUSE_SETATTR] = { sizeof(struct fuse_setattr_in), do_setattr },
	[FUSE_OPEN] = { sizeof(struct fuse_open_in), do_open },
	[FUSE_READ] = { sizeof(struct fuse_read_in), do_read },
	[FUSE_WRITE] = { sizeof(struct fuse_write_in), do_write },
	[FUSE_STATFS] = { 0, do_statfs },
	[FUSE_RELEASE] = { 0, do_nothing },
	[FUSE_FSYNC] = { 0, do_fsync },
	[FUSE_FLUSH] = { 0, do_nothing },
	[FUSE_INIT] = { offsetof(struct fuse_init_in, flags2), do_init },
	[FUSE_OPENDIR] = { 0, do_opendir },
	[FUSE_READDIR] = { sizeof(struct fuse_read_in), do_readdir },
	[FUSE_RELEASEDIR] = { 0, do_nothing },
	[FUSE_FSYNCDIR] = { 0, do_nothing },
	[FUSE_DESTROY] = { 0, do_nothing },
	[FUSE_FALLOCATE] = { sizeof(struct fuse_fallocate_in), do_fallocate },
	[FUSE_LSEEK] = { sizeof(struct fuse_lseek_in), do_lseek },
};

static void dispatch(struct slot *s, uint8_t *bytes, size_t size)
{
	uint32_t opcode = s->head.opcode;
	const struct handler *h = opcode < ARRAY_SIZE(handlers) ? &handlers[opcode] : NULL;

	if (opcode == FUSE_FORGET || opcode == FUSE_BATCH_FORGET || opcode == FUSE_INTERRUPT) {
		slot_give(s); /* these have no answer */
		return;
	}
	if (!h || !h->fn || size - sizeof(s->head) < h->size) {
		answer(s, h && h->fn ? -EIO : -ENOSYS, NULL, 0);
		return;
	}
	bytes[size] = 0; /* a name ends */
	h->fn(s, bytes + sizeof(s->head));
}

static struct slot *slot_take(struct fuse *f)
{
	struct slot *s;

	if (!list_empty(&f->free)) {
		s = list_first(&f->free, struct slot, node);
		list_remove(&s->node);
		f->busy++;
		return s;
	}
	if (f->made == FUSE_IN_FLIGHT)
		return NULL;
	s = &f->slots[f->made];
	if (posix_memalign((void **)&s->area, PAGE, FUSE_DATA_MAX + 2 * PAGE)) {
		s->area = NULL;
		return NULL;
	}
	s->data = s->area + PAGE;
	s->fuse = f;
	f->made++;
	f->busy++;
	return s;
}

static void end(struct fuse *f)
{
	f->ended = true;
	loop_unwatch(&f->watch);
	if (!f->busy)
		loop_stop(f->loop);
}

/* One request; false = there is none, or no slot. */
static bool take_request(struct fuse *f)
{
	struct slot *s = slot_take(f);
	uint8_t *bytes;
	ssize_t n;

	if (!s) {
		loop_unwatch(&f->watch);
		if (!f->busy)
			end(f);
		return false;
	}
	bytes = s->data - WRITE_HEAD;
	n = read(f->fd, bytes, WRITE_HEAD + FUSE_DATA_MAX);
	if (n >= (ssize_t)sizeof(s->head)) {
		memcpy(&s->head, bytes, sizeof(s->head));
		dispatch(s, bytes, (size_t)n);
		return true;
	}
	if (n >= 0 || (errno != EAGAIN && errno != EINTR && errno != ENOENT))
		end(f); /* ENODEV: unmounted */
	slot_give(s);
	return false;
}

static void on_readable(struct loop_watch *w, uint32_t events)
{
	struct fuse *f = container_of(w, struct fuse, watch);

	(void)events;
	for (unsigned i = 0; i < READS_MAX && !f->ended; i++)
		if (!take_request(f))
			return;
}

/* --- life --- */

int fuse_new(struct loop *loop, int fd, const struct fuse_export *export, struct fuse **ret,
	     struct error *err)
{
	struct fuse *f = calloc(1, sizeof(*f));
	int r;

	if (!f)
		return error_set(err, -ENOMEM, "out of memory");
	f->loop = loop;
	f->fd = fd;
	f->export = *export;
	list_init(&f->free);
	if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) < 0)
		r = -errno;
	else
		r = loop_watch(loop, &f->watch, fd, EPOLLIN, on_readable);
	if (r < 0) {
		f->watch.fd = -1;
		fuse_free(f);
		return error_errno(err, r, "cannot watch the FUSE device");
	}
	*ret = f;
	return 0;
}

void fuse_free(struct fuse *f)
{
	if (!f)
		return;
	loop_unwatch(&f->watch);
	for (unsigned i = 0; i < f->made; i++)
		free(f->slots[i].area);
	free(f);
}
