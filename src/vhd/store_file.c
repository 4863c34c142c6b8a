// SPDX-License-Identifier: MIT
/*
 * A store on a regular file or block device, through the loop's io_uring. The descriptor was opened
 * by somebody with more rights; it is never opened again by name, since a sandboxed worker could
 * not. Short transfers are continued, what the file system cannot punch is overwritten with zeros.
 *
 * Direct I/O is an option. Its alignment rules differ by file system and are not all announced, so
 * memory is aligned (bounced) to DIRECT_ALIGN, offsets are as the disk layer sends them (multiples
 * of 512), and when the kernel still answers EINVAL the descriptor goes back to the page cache for
 * good and the transfer is repeated: slower, never wrong.
 */
#include "lib/cleanup.h"
#include "vhd/iov.h"
#include "vhd/store.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>

#define DIRECT_ALIGN  512u
#define LOCK_WAIT_MAX 256000 /* us; with all that is waited before, half a second */
#define ZEROS_SIZE    (64 * KIB)
#define ZEROS_COUNT   16u /* one fallback write carries 1 MiB of zeros */
#define CACHING_MAX   2u  /* one is copied, one waits */
#define PAGE          4096u
#define WRITE_LONG    UINT64_C(20000000)  /* ns: the kernel let the writer wait, not a scheduler */
#define WRITE_REST    UINT64_C(500000000) /* ns, in which it is then not tried again */

struct store_file {
	struct store store;
	int fd;
	bool direct, no_sync, writes_block;
	bool both;           /* writes go both ways: through `fd`, and past the page cache */
	int past;            /* the file again, for that; -1 */
	unsigned caching;    /* then: writes into the page cache under way */
	unsigned holding;    /* flushes and fallocates under way: writes may wait for them */
	uint64_t write_next; /* when a write may block again, as loop_now has it */
	struct list written; /* store_io.node: done, but not told yet */
	struct loop_task tell;
};

static const uint8_t zeros[ZEROS_SIZE] __attribute__((aligned(4096)));

static struct store_file *file_of(struct store *s)
{
	return container_of(s, struct store_file, store);
}

/* --- one asynchronous transfer, possibly in several system calls --- */

static void io_next(struct store_io *io);

static void io_finish(struct store_io *io, int result)
{
	struct store *s = io->store;

	if (io->bounce && io->op == STORE_READ && result >= 0)
		iov_put(io->iov, io->iovcnt, 0, io->bounce, io->length);
	if (io->op == STORE_WRITE && result >= 0)
		s->size = MAX(s->size, io->offset + io->length);
	else if (io->op != STORE_WRITE && io->op != STORE_READ)
		file_of(s)->holding--;
	free(io->bounce);
	free(io->own);
	io->bounce = NULL;
	io->own = NULL;
	io->done(io, result);
}

static bool aligned(const struct iovec *iov, unsigned iovcnt)
{
	for (unsigned i = 0; i < iovcnt; i++)
		if (((uintptr_t)iov[i].iov_base | iov[i].iov_len) & (DIRECT_ALIGN - 1))
			return false;
	return true;
}

static bool direct_ok(const struct store_file *f, const struct iovec *iov, unsigned iovcnt)
{
	return !f->direct || aligned(iov, iovcnt);
}

static void direct_off(struct store_file *f)
{
	int flags = fcntl(f->fd, F_GETFL);

	if (flags >= 0)
		fcntl(f->fd, F_SETFL, flags & ~O_DIRECT);
	f->direct = f->both = false;
}

/* Gives io one aligned buffer in place of its iovec. */
static int io_bounce(struct store_io *io)
{
	io->own = malloc(sizeof(*io->own));
	if (!io->own)
		return -ENOMEM;
	if (posix_memalign(&io->bounce, 4096, round_up64(io->length, 4096)))
		return -ENOMEM;
	if (io->op == STORE_WRITE)
		iov_get(io->iov, io->iovcnt, 0, io->bounce, io->length);
	return 0;
}

static void on_transfer(struct loop_io *lio, int result)
{
	struct store_io *io = container_of(lio, struct store_io, io);
	struct store_file *f = file_of(io->store);

	f->caching -= io->cached;
	if (result == -EINTR || result == -EAGAIN) {
		io_next(io);
	} else if (result == -EINVAL && io->direct) {
		direct_off(f);
		io_next(io);
	} else if (result < 0) {
		io_finish(io, result);
	} else if (!result && io->op == STORE_READ) {
		struct iovec bounce = { io->bounce, io->length };

		/* End of the file: what lies beyond are zeros. */
		iov_zero(io->bounce ? &bounce : io->iov, io->bounce ? 1 : io->iovcnt, io->moved,
			 io->length - io->moved);
		io_finish(io, 0);
	} else if (!result) {
		io_finish(io, -EIO);
	} else {
		io->moved += (uint64_t)result;
		if (io->moved >= io->length)
			io_finish(io, 0);
		else
			io_next(io);
	}
}

/* Sets *ret_iov to what of the transfer is still to be moved, as much as one system call takes. */
static int io_rest(struct store_io *io, const struct iovec **ret_iov, unsigned *ret_count)
{
	unsigned n;

	if (io->bounce) {
		io->own[0].iov_base = (char *)io->bounce + io->moved;
		io->own[0].iov_len = io->length - io->moved;
		*ret_iov = io->own;
		*ret_count = 1;
		return 0;
	}
	if (!io->moved) {
		*ret_iov = io->iov;
		*ret_count = MIN(io->iovcnt, (unsigned)IOV_MAX);
		return 0;
	}
	if (!io->own)
		io->own = calloc(io->iovcnt, sizeof(*io->own));
	if (!io->own)
		return -ENOMEM;
	n = iov_slice(io->iov, io->iovcnt, io->moved, io->length - io->moved, io->own);
	*ret_iov = io->own;
	*ret_count = MIN(n, (unsigned)IOV_MAX);
	return 0;
}

/*
 * Where nothing needs to be durable, the page cache is kept busy, with as much as the kernel copies
 * at a time; what comes beyond that the disk can take meanwhile. However slow it is, the rest goes
 * on.
 */
static int write_way(struct store_file *f, struct store_io *io, const struct iovec *iov, unsigned n)
{
	io->cached = f->both && (f->caching < CACHING_MAX || !aligned(iov, n) ||
				 (io->offset + io->moved) & (DIRECT_ALIGN - 1));
	io->direct = f->both ? !io->cached : f->direct;
	f->caching += io->cached;
	return io->direct && f->both ? f->past : f->fd;
}

static void io_next(struct store_io *io)
{
	struct store_file *f = file_of(io->store);
	const struct iovec *iov;
	unsigned n;
	int r = io_rest(io, &iov, &n);

	if (r < 0) {
		io_finish(io, r);
		return;
	}
	io->io.done = on_transfer;
	io->direct = f->direct;
	io->cached = false;
	if (io->op == STORE_READ)
		loop_io_readv(f->store.loop, &io->io, f->fd, iov, n, io->offset + io->moved);
	else
		loop_io_writev(f->store.loop, &io->io, write_way(f, io, iov, n), iov, n,
			       io->offset + io->moved);
}

static void on_tell(struct loop_task *t)
{
	struct store_file *f = container_of(t, struct store_file, tell);
	struct list written;

	list_init(&written);
	list_splice(&written, &f->written);
	while (!list_empty(&written)) {
		struct store_io *io = list_first(&written, struct store_io, node);

		list_remove(&io->node);
		io_finish(io, 0);
	}
}

/* A part of a page may have to be read first. */
static bool write_is_quick(const struct store_file *f, const struct store_io *io)
{
	return !f->holding && !((io->offset | io->length) & (PAGE - 1)) && io->iovcnt <= IOV_MAX &&
	       loop_now(f->store.loop) >= f->write_next;
}

static uint64_t clock_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* What goes wrong here is left to the ring, which does the rest again. */
static void write_now(struct store_file *f, struct store_io *io)
{
	uint64_t begun = clock_now(), ended;
	ssize_t n = pwritev(f->fd, io->iov, (int)io->iovcnt, (off_t)io->offset);

	ended = clock_now();
	if (ended - begun > WRITE_LONG)
		f->write_next = ended + WRITE_REST;
	if (n > 0)
		io->moved = (uint64_t)n;
	if (io->moved < io->length) {
		io_next(io);
		return;
	}
	list_append(&f->written, &io->node);
	loop_defer(f->store.loop, &f->tell);
}

/* --- zeros, where fallocate cannot make them --- */

static void zeros_next(struct store_io *io);

static void on_zeros(struct loop_io *lio, int result)
{
	struct store_io *io = container_of(lio, struct store_io, io);

	if (result == 0)
		result = -EIO;
	if (result > 0)
		io->moved += (uint64_t)result;
	else if (result != -EINTR && result != -EAGAIN)
		io_finish(io, result);
	if (result > 0 || result == -EINTR || result == -EAGAIN)
		zeros_next(io);
}

/* Beyond the end of the file everything is zeros already, and the size must not change. */
static uint64_t zeros_left(const struct store_io *io)
{
	uint64_t end = MIN(io->offset + io->length, io->store->size);
	uint64_t at = io->offset + io->moved;

	return at < end ? end - at : 0;
}

static void zeros_next(struct store_io *io)
{
	struct store_file *f = file_of(io->store);
	uint64_t left = zeros_left(io);
	unsigned n = 0;

	if (!left) {
		io_finish(io, 0);
		return;
	}
	if (!io->own)
		io->own = calloc(ZEROS_COUNT, sizeof(*io->own));
	if (!io->own) {
		io_finish(io, -ENOMEM);
		return;
	}
	for (; n < ZEROS_COUNT && left; n++) {
		io->own[n].iov_base = (void *)(uintptr_t)zeros;
		io->own[n].iov_len = MIN(left, ZEROS_SIZE);
		left -= io->own[n].iov_len;
	}
	io->io.done = on_zeros;
	loop_io_writev(f->store.loop, &io->io, f->fd, io->own, n, io->offset + io->moved);
}

/* Punching is always tried first or second: a hole is the cheapest way to have zeros. */
static const int punch_modes[] = {
	FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
	FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
};

static int zero_mode(enum store_op op, unsigned attempt)
{
	return punch_modes[op == STORE_PUNCH ? attempt : 1 - attempt];
}

static bool fallocate_unsupported(int error)
{
	return error == -EOPNOTSUPP || error == -ENOSYS || error == -ENODEV || error == -EINVAL;
}

static void on_fallocate(struct loop_io *lio, int result)
{
	struct store_io *io = container_of(lio, struct store_io, io);
	struct store_file *f = file_of(io->store);

	if (fallocate_unsupported(result) && io->io.flags == zero_mode(io->op, 0)) {
		loop_io_fallocate(f->store.loop, &io->io, f->fd, zero_mode(io->op, 1), io->offset,
				  io->length);
		return;
	}
	if (fallocate_unsupported(result))
		zeros_next(io);
	else if (result == -EINTR)
		loop_io_fallocate(f->store.loop, &io->io, f->fd, io->io.flags, io->offset,
				  io->length);
	else
		io_finish(io, result);
}

static void on_flush(struct loop_io *lio, int result)
{
	struct store_io *io = container_of(lio, struct store_io, io);

	if (result == -EINTR)
		loop_io_fdatasync(io->store->loop, lio, file_of(io->store)->fd);
	else
		io_finish(io, result);
}

static void on_refused(struct loop_io *lio, int result)
{
	struct store_io *io = container_of(lio, struct store_io, io);

	(void)result;
	io_finish(io, -(int)io->moved);
}

/* Submitting must not call done: a system call that cannot succeed carries the error round. */
static void io_refuse(struct store_file *f, struct store_io *io, int error)
{
	io->moved = (uint64_t)-error;
	io->io.done = on_refused;
	loop_io_fallocate(f->store.loop, &io->io, -1, 0, 0, 0);
}

static void file_submit(struct store *s, struct store_io *io)
{
	struct store_file *f = file_of(s);

	io->moved = 0;
	io->own = NULL;
	io->bounce = NULL;
	switch (io->op) {
	case STORE_READ:
	case STORE_WRITE:
		if (!direct_ok(f, io->iov, io->iovcnt) && io_bounce(io) < 0)
			io_refuse(f, io, -ENOMEM);
		else if (io->op == STORE_WRITE && f->writes_block && !f->direct &&
			 write_is_quick(f, io))
			write_now(f, io);
		else
			io_next(io);
		return;
	case STORE_FLUSH:
		f->holding++;
		if (f->no_sync) {
			io_refuse(f, io, 0);
			return;
		}
		io->io.done = on_flush;
		loop_io_fdatasync(s->loop, &io->io, f->fd);
		return;
	case STORE_PUNCH:
	case STORE_ZERO:
		f->holding++;
		io->io.done = on_fallocate;
		loop_io_fallocate(s->loop, &io->io, f->fd, zero_mode(io->op, 0), io->offset,
				  io->length);
		return;
	}
}

/* --- the blocking calls --- */

/* One aligned transfer; the buffer is used directly unless direct I/O needs another. */
static ssize_t transfer(struct store_file *f, bool write, void *buf, size_t n, uint64_t offset)
{
	ssize_t r =
		write ? pwrite(f->fd, buf, n, (off_t)offset) : pread(f->fd, buf, n, (off_t)offset);

	if (r < 0 && errno == EINVAL && f->direct) {
		direct_off(f);
		return transfer(f, write, buf, n, offset);
	}
	return r < 0 ? -errno : r;
}

static int transfer_all(struct store_file *f, bool write, void *buf, size_t n, uint64_t offset)
{
	char *p = buf;

	while (n) {
		ssize_t r = transfer(f, write, p, n, offset);

		if (r == -EINTR)
			continue;
		if (r < 0)
			return (int)r;
		if (!r && write)
			return -EIO;
		if (!r) {
			memset(p, 0, n);
			return 0;
		}
		p += r;
		n -= (size_t)r;
		offset += (uint64_t)r;
	}
	return 0;
}

static bool sync_aligned(const struct store_file *f, const void *buf, size_t n, uint64_t offset)
{
	return !f->direct || !(((uintptr_t)buf | n | offset) & (DIRECT_ALIGN - 1));
}

static int file_read(struct store *s, void *buf, size_t n, uint64_t offset)
{
	struct store_file *f = file_of(s);
	uint64_t start = round_down64(offset, DIRECT_ALIGN);
	uint64_t end = round_up64(offset + n, DIRECT_ALIGN);
	_cleanup_free_ void *bounce = NULL;
	int r;

	if (sync_aligned(f, buf, n, offset))
		return transfer_all(f, false, buf, n, offset);
	if (posix_memalign(&bounce, 4096, end - start))
		return -ENOMEM;
	r = transfer_all(f, false, bounce, end - start, start);
	if (r >= 0)
		memcpy(buf, (char *)bounce + (offset - start), n);
	return r;
}

static int file_write(struct store *s, const void *buf, size_t n, uint64_t offset)
{
	struct store_file *f = file_of(s);
	_cleanup_free_ void *bounce = NULL;
	int r;

	if (sync_aligned(f, buf, n, offset)) {
		r = transfer_all(f, true, (void *)(uintptr_t)buf, n, offset);
	} else {
		if (posix_memalign(&bounce, 4096, n))
			return -ENOMEM;
		memcpy(bounce, buf, n);
		r = transfer_all(f, true, bounce, n, offset);
	}
	if (r >= 0)
		s->size = MAX(s->size, offset + n);
	return r;
}

static int fallocate_retry(int fd, int mode, uint64_t offset, uint64_t length)
{
	int r;

	do
		r = fallocate(fd, mode, (off_t)offset, (off_t)length) < 0 ? -errno : 0;
	while (r == -EINTR);
	return r;
}

static int file_zero(struct store *s, uint64_t offset, uint64_t length)
{
	struct store_file *f = file_of(s);
	uint64_t end = MIN(offset + length, s->size);
	int r = 0;

	if (offset >= end)
		return 0;
	for (unsigned i = 0; i < ARRAY_SIZE(punch_modes); i++) {
		r = fallocate_retry(f->fd, punch_modes[i], offset, end - offset);
		if (!fallocate_unsupported(r))
			return r;
	}
	for (r = 0; r >= 0 && offset < end; offset += MIN(end - offset, ZEROS_SIZE))
		r = file_write(s, zeros, MIN(end - offset, ZEROS_SIZE), offset);
	return r;
}

static int file_sync(struct store *s)
{
	int r;

	if (file_of(s)->no_sync)
		return 0;
	do
		r = fdatasync(file_of(s)->fd) < 0 ? -errno : 0;
	while (r == -EINTR);
	return r;
}

static int file_resize(struct store *s, uint64_t size)
{
	if (s->fixed_size)
		return size <= s->size ? 0 : -ENOSPC;
	if (size > INT64_MAX)
		return -EFBIG;
	if (ftruncate(file_of(s)->fd, (off_t)size) < 0)
		return -errno;
	s->size = size;
	return 0;
}

static int file_reserve(struct store *s, uint64_t offset, uint64_t length)
{
	int r = s->fixed_size ? 0 : fallocate_retry(file_of(s)->fd, 0, offset, length);

	if (fallocate_unsupported(r))
		return s->size < offset + length ? file_resize(s, offset + length) : 0;
	if (r >= 0)
		s->size = MAX(s->size, offset + length);
	return r;
}

/* Where the file system can: copying inside of the kernel is slower than past the page cache. */
static int file_copy(struct store *s, uint64_t from, uint64_t to, uint64_t length)
{
	int fd = file_of(s)->fd;
	struct file_clone_range range = {
		.src_fd = fd, .src_offset = from, .src_length = length, .dest_offset = to
	};

	if (ioctl(fd, FICLONERANGE, &range) < 0)
		return errno == EIO || errno == ENOSPC ? -errno : -EOPNOTSUPP;
	s->size = MAX(s->size, to + length);
	return 0;
}

static int file_extent(struct store *s, uint64_t offset, enum disk_extent_kind *ret_kind,
		       uint64_t *ret_length)
{
	const struct store_file *f = file_of(s);
	int fd = f->fd;
	off_t data, hole;

	/* Looking would wait. Not all of the rest: what is told may be remembered. */
	if (f->writes_block && f->holding) {
		*ret_kind = DISK_EXTENT_DATA;
		*ret_length = MIN(s->size - offset, MIB);
		return 0;
	}
	data = lseek(fd, (off_t)offset, SEEK_DATA);
	if (data < 0 && errno == ENXIO)
		data = (off_t)s->size;
	else if (data < 0)
		data = (off_t)offset; /* cannot say: all of it is data */
	if ((uint64_t)data > offset) {
		*ret_kind = DISK_EXTENT_HOLE;
		*ret_length = (uint64_t)data - offset;
		return 0;
	}
	hole = lseek(fd, (off_t)offset, SEEK_HOLE);
	if (hole < 0 || (uint64_t)hole <= offset)
		hole = (off_t)s->size;
	*ret_kind = DISK_EXTENT_DATA;
	*ret_length = (uint64_t)hole - offset;
	return 0;
}

static void file_close(struct store *s)
{
	if (file_of(s)->past >= 0)
		close(file_of(s)->past);
	close(file_of(s)->fd);
	free(file_of(s));
}

/* --- opening --- */

/*
 * A killed process is gone for its parent while the kernel still finishes its I/O, and the lock
 * with it: who starts a virtual machine again at once would find it locked. So it is tried for half
 * a second before somebody else is blamed.
 */
static int lock_set(int fd, short type, int64_t start, int64_t length)
{
	struct flock lock = {
		.l_type = type,
		.l_whence = SEEK_SET,
		.l_start = start,
		.l_len = length,
	};

	for (useconds_t wait = 1000; fcntl(fd, F_OFD_SETLK, &lock) < 0; wait *= 2) {
		if ((errno != EAGAIN && errno != EACCES) || wait > LOCK_WAIT_MAX)
			return -errno;
		usleep(wait);
	}
	return 0;
}

int store_file_lock(int fd, bool read_only, struct error *err)
{
	int r = lock_set(fd, read_only ? F_RDLCK : F_WRLCK, 0, 0);

	if (r >= 0)
		return 0;
	if (r == -EAGAIN || r == -EACCES)
		return error_set(err, -EBUSY,
				 "another process has the image open%s; close that one first (it "
				 "may be a running virtual machine)",
				 read_only ? " for writing" : "");
	if (r == -EBADF)
		return error_set(err, -EBADF, "the image was not opened for %s",
				 read_only ? "reading" : "writing");
	return error_errno(err, r, "cannot lock the image");
}

int store_file_lock_shared(int fd, int64_t byte, struct error *err)
{
	int r = lock_set(fd, F_WRLCK, byte, 1);

	if (r == -EAGAIN || r == -EACCES)
		return error_set(err, -EBUSY,
				 "the image is open without its set, or its set is open with the "
				 "same initiator's identity; close that first");
	if (r >= 0)
		r = lock_set(fd, F_UNLCK, 0, byte);
	if (r >= 0)
		r = lock_set(fd, F_UNLCK, byte + 1, 0);
	return r < 0 ? error_errno(err, r, "cannot lock the image") : 0;
}

static int size_find(struct store_file *f, struct error *err)
{
	struct stat st;

	if (fstat(f->fd, &st) < 0)
		return error_errno(err, -errno, "cannot look at the image");
	if (S_ISREG(st.st_mode)) {
		f->store.size = (uint64_t)st.st_size;
		return 0;
	}
	if (!S_ISBLK(st.st_mode))
		return error_set(err, -EINVAL,
				 "the image is neither a regular file nor a block device");
	if (ioctl(f->fd, BLKGETSIZE64, &f->store.size) < 0)
		return error_errno(err, -errno, "cannot read the block device's size");
	f->store.fixed_size = true;
	return 0;
}

static void direct_on(struct store_file *f)
{
	int flags = fcntl(f->fd, F_GETFL);

	f->direct = flags >= 0 && fcntl(f->fd, F_SETFL, flags | O_DIRECT) == 0;
}

/* Without it all goes through the page cache. */
static void both_on(struct store_file *f)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", f->fd);
	f->past = open(path, O_WRONLY | O_CLOEXEC | O_DIRECT);
	f->both = f->past >= 0;
}

static const struct store_ops file_ops = {
	.name = "file",
	.submit = file_submit,
	.read = file_read,
	.write = file_write,
	.zero = file_zero,
	.sync = file_sync,
	.resize = file_resize,
	.reserve = file_reserve,
	.copy = file_copy,
	.extent = file_extent,
	.close = file_close,
};

int store_file_open(struct loop *loop, int fd, const struct store_file_options *options,
		    struct store **ret, struct error *err)
{
	struct store_file *f = calloc(1, sizeof(*f));
	int r = 0;

	if (!f) {
		close(fd);
		return error_set(err, -ENOMEM, "out of memory");
	}
	*f = (struct store_file){
		.store = { .ops = &file_ops, .loop = loop, .read_only = options->read_only },
		.fd = fd,
		.past = -1,
		.no_sync = options->no_sync,
		.writes_block = options->writes_block,
	};
	list_init(&f->written);
	loop_task_init(&f->tell, on_tell);
	if (!options->no_lock)
		r = store_file_lock(fd, options->read_only, err);
	if (r >= 0)
		r = size_find(f, err);
	if (r < 0) {
		file_close(&f->store);
		return r;
	}
	if (options->direct && options->no_sync)
		both_on(f);
	else if (options->direct)
		direct_on(f);
	*ret = &f->store;
	return 0;
}
