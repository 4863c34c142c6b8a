// SPDX-License-Identifier: MIT
/*
 * The event loop of loop.h. One round is: wait in epoll (not at all when tasks are queued), read
 * the clock, run ready watches, run due timers, reap io_uring completions, run tasks, submit queued
 * I/O, and reap what finished while it was submitted, so that I/O served from the page cache never
 * costs a second wait.
 *
 * Watches live in their owners, and an owner may unwatch any of them from a callback while events
 * for it are already fetched: unwatching therefore also wipes it from the batch at hand.
 */
#include "event/loop.h"

#include "lib/cleanup.h"

#include <assert.h>
#include <errno.h>
#include <liburing.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <time.h>

#define EVENT_BATCH 64
#define MAX_TURNS   16  /* of tasks and I/O in one round */
#define BUFFER_MAX  GIB /* of one registered buffer: io_uring_register_buffers(2) */
#define BUFFERS_MAX 1024u

struct loop {
	int epoll_fd, wake_fd;
	struct loop_watch wake_watch, ring_watch;
	struct epoll_event events[EVENT_BATCH];
	int event_count;
	uint64_t now;
	atomic_bool stop;
	struct list timers; /* by deadline */
	struct list tasks;  /* this thread's */
	pthread_mutex_t lock;
	struct list posted; /* other threads', guarded by lock */
	bool has_ring;
	struct io_uring ring;
	struct list io_waiting; /* did not fit into the submission queue yet */
	unsigned io_unsubmitted;
	uintptr_t buffer; /* registered memory */
	size_t buffer_size;
};

static uint64_t clock_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* --- watches --- */

int loop_watch(struct loop *loop, struct loop_watch *w, int fd, uint32_t events,
	       void (*fn)(struct loop_watch *, uint32_t))
{
	struct epoll_event ev = { .events = events, .data.ptr = w };

	if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0)
		return -errno;
	*w = (struct loop_watch){ .fn = fn, .fd = fd, .loop = loop };
	return 0;
}

int loop_watch_signals(struct loop *loop, struct loop_watch *w, int also,
		       void (*fn)(struct loop_watch *, uint32_t), struct error *err)
{
	sigset_t set;
	int fd;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	if (also)
		sigaddset(&set, also);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd < 0 || loop_watch(loop, w, fd, EPOLLIN, fn) < 0)
		return error_errno(err, -errno, "cannot watch for signals");
	return 0;
}

void loop_unwatch(struct loop_watch *w)
{
	struct loop *loop = w->loop;

	if (!loop)
		return;
	epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, w->fd, NULL);
	for (int i = 0; i < loop->event_count; i++)
		if (loop->events[i].data.ptr == w)
			loop->events[i].data.ptr = NULL;
	w->loop = NULL;
	w->fd = -1;
}

/* --- timers --- */

void loop_timer_init(struct loop *loop, struct loop_timer *t, void (*fn)(struct loop_timer *))
{
	*t = (struct loop_timer){ .fn = fn, .loop = loop };
	list_init(&t->node);
}

void loop_timer_arm(struct loop_timer *t, uint64_t deadline)
{
	struct list *at = &t->loop->timers;

	list_remove(&t->node);
	t->deadline = deadline ? deadline : 1;
	/* From the end: most timers are armed later than all others. */
	while (at->prev != &t->loop->timers &&
	       list_entry(at->prev, struct loop_timer, node)->deadline > t->deadline)
		at = at->prev;
	list_append(at, &t->node);
}

void loop_timer_disarm(struct loop_timer *t)
{
	t->deadline = 0;
	list_remove(&t->node);
}

/* Only what was due when the round began: a timer that arms itself again waits for the next. */
static void run_timers(struct loop *loop)
{
	struct list due, *last = &loop->timers;

	while (last->next != &loop->timers &&
	       list_entry(last->next, struct loop_timer, node)->deadline <= loop->now)
		last = last->next;
	if (last == &loop->timers)
		return;
	list_cut(&due, &loop->timers, last);
	while (!list_empty(&due)) {
		struct loop_timer *t = list_first(&due, struct loop_timer, node);

		loop_timer_disarm(t);
		t->fn(t);
	}
}

/* --- tasks --- */

void loop_task_init(struct loop_task *t, void (*fn)(struct loop_task *))
{
	*t = (struct loop_task){ .fn = fn };
	list_init(&t->node);
}

void loop_defer(struct loop *loop, struct loop_task *t)
{
	LOCK_SCOPE(&loop->lock);
	if (t->queued)
		return;
	t->queued = true;
	list_append(&loop->tasks, &t->node);
}

static void wake(struct loop *loop)
{
	uint64_t one = 1;
	ssize_t n = write(loop->wake_fd, &one, sizeof(one));

	(void)n; /* EAGAIN: the counter is full, so the loop wakes anyway */
}

void loop_post(struct loop *loop, struct loop_task *t)
{
	bool first;

	{
		LOCK_SCOPE(&loop->lock);
		if (t->queued)
			return;
		t->queued = true;
		first = list_empty(&loop->posted);
		list_append(&loop->posted, &t->node);
	}
	if (first)
		wake(loop);
}

void loop_cancel(struct loop *loop, struct loop_task *t)
{
	LOCK_SCOPE(&loop->lock);
	list_remove(&t->node);
	t->queued = false;
}

static struct loop_task *next_task(struct loop *loop, struct list *batch)
{
	struct loop_task *t;

	LOCK_SCOPE(&loop->lock);
	if (list_empty(batch))
		return NULL;
	t = list_first(batch, struct loop_task, node);
	list_remove(&t->node);
	t->queued = false;
	return t;
}

/* Tasks queued by tasks wait for the next batch; the caller's loop does not sleep before that. */
static void run_tasks(struct loop *loop)
{
	struct list batch;
	struct loop_task *t;

	list_init(&batch);
	{
		LOCK_SCOPE(&loop->lock);
		list_splice(&batch, &loop->posted);
		list_splice(&batch, &loop->tasks);
	}
	while ((t = next_task(loop, &batch)))
		t->fn(t);
}

static void on_wake(struct loop_watch *w, uint32_t events)
{
	uint64_t count;
	ssize_t n = read(w->fd, &count, sizeof(count));

	(void)n;
	(void)events;
}

/* --- file I/O --- */

/* The registered buffer that the transfer lies in, or -1. */
static int buffer_of(const struct loop *loop, const struct loop_io *io)
{
	uintptr_t at = (uintptr_t)io->iov[0].iov_base - loop->buffer;
	size_t n = io->iov[0].iov_len;

	if (io->iovcnt != 1 || !n || n > UINT32_MAX || !range_inside(at, n, loop->buffer_size) ||
	    at / BUFFER_MAX != (at + n - 1) / BUFFER_MAX)
		return -1;
	return (int)(at / BUFFER_MAX);
}

static void prepare_transfer(const struct loop *loop, struct io_uring_sqe *sqe, struct loop_io *io)
{
	int buffer = buffer_of(loop, io);
	void *base = io->iov[0].iov_base;
	unsigned n = (unsigned)io->iov[0].iov_len;

	if (io->opcode == IORING_OP_READV && buffer >= 0)
		io_uring_prep_read_fixed(sqe, io->fd, base, n, io->offset, buffer);
	else if (io->opcode == IORING_OP_READV)
		io_uring_prep_readv(sqe, io->fd, io->iov, io->iovcnt, io->offset);
	else if (buffer >= 0)
		io_uring_prep_write_fixed(sqe, io->fd, base, n, io->offset, buffer);
	else
		io_uring_prep_writev(sqe, io->fd, io->iov, io->iovcnt, io->offset);
}

static void io_prepare(const struct loop *loop, struct io_uring_sqe *sqe, struct loop_io *io)
{
	switch (io->opcode) {
	case IORING_OP_READV:
	case IORING_OP_WRITEV:
		prepare_transfer(loop, sqe, io);
		break;
	case IORING_OP_FSYNC:
		io_uring_prep_fsync(sqe, io->fd, IORING_FSYNC_DATASYNC);
		break;
	case IORING_OP_FALLOCATE:
		io_uring_prep_fallocate(sqe, io->fd, io->flags, (off_t)io->offset,
					(off_t)io->length);
		break;
	default:
		abort();
	}
	io_uring_sqe_set_data(sqe, io);
}

static void io_fill(struct loop *loop)
{
	while (!list_empty(&loop->io_waiting)) {
		struct loop_io *io = list_first(&loop->io_waiting, struct loop_io, node);
		struct io_uring_sqe *sqe = io_uring_get_sqe(&loop->ring);

		if (!sqe)
			return;
		list_remove(&io->node);
		io_prepare(loop, sqe, io);
		loop->io_unsubmitted++;
	}
}

static void io_submit(struct loop *loop)
{
	while (loop->has_ring) {
		int r;

		io_fill(loop);
		if (!loop->io_unsubmitted)
			return;
		r = io_uring_submit(&loop->ring);
		if (r <= 0)
			return; /* out of kernel resources: what is in flight must finish first */
		loop->io_unsubmitted -= (unsigned)r;
	}
}

static bool io_reap(struct loop *loop)
{
	struct io_uring_cqe *cqe;
	bool any = false;

	while (loop->has_ring && !io_uring_peek_cqe(&loop->ring, &cqe)) {
		struct loop_io *io = io_uring_cqe_get_data(cqe);
		int result = cqe->res;

		io_uring_cqe_seen(&loop->ring, cqe);
		io->done(io, result);
		any = true;
	}
	return any;
}

static void on_ring(struct loop_watch *w, uint32_t events)
{
	(void)events;
	io_reap(w->loop);
}

static void io_queue(struct loop *loop, struct loop_io *io)
{
	assert(loop->has_ring);
	list_append(&loop->io_waiting, &io->node);
}

void loop_io_readv(struct loop *loop, struct loop_io *io, int fd, const struct iovec *iov,
		   unsigned iovcnt, uint64_t offset)
{
	io->opcode = IORING_OP_READV;
	io->fd = fd, io->iov = iov, io->iovcnt = iovcnt, io->offset = offset;
	io_queue(loop, io);
}

void loop_io_writev(struct loop *loop, struct loop_io *io, int fd, const struct iovec *iov,
		    unsigned iovcnt, uint64_t offset)
{
	io->opcode = IORING_OP_WRITEV;
	io->fd = fd, io->iov = iov, io->iovcnt = iovcnt, io->offset = offset;
	io_queue(loop, io);
}

void loop_io_fdatasync(struct loop *loop, struct loop_io *io, int fd)
{
	io->opcode = IORING_OP_FSYNC;
	io->fd = fd;
	io_queue(loop, io);
}

void loop_io_fallocate(struct loop *loop, struct loop_io *io, int fd, int mode, uint64_t offset,
		       uint64_t length)
{
	io->opcode = IORING_OP_FALLOCATE;
	io->fd = fd, io->flags = mode, io->offset = offset, io->length = length;
	io_queue(loop, io);
}

int loop_buffer_register(struct loop *loop, void *base, size_t size, struct error *err)
{
	struct iovec buffers[BUFFERS_MAX];
	unsigned count = 0;

	if (size > BUFFERS_MAX * BUFFER_MAX || loop->buffer_size)
		return error_set(err, -EINVAL, "the memory is too large to be locked, or some is");
	for (size_t at = 0; at < size; at += BUFFER_MAX)
		buffers[count++] = (struct iovec){ (char *)base + at, MIN(BUFFER_MAX, size - at) };
	if (syscall(SYS_io_uring_register, loop->ring.ring_fd, IORING_REGISTER_BUFFERS, buffers,
		    count) < 0)
		return error_errno(err, -errno,
				   "cannot lock %zu MiB of memory: is there as much free, and does "
				   "the limit on locked memory allow it (ulimit -l, "
				   "LimitMEMLOCK=)?",
				   size / MIB);
	loop->buffer = (uintptr_t)base;
	loop->buffer_size = size;
	return 0;
}

/* --- the loop itself --- */

/*
 * The ring is restricted to what loop_io_* does: a system-call filter does not see ring operations,
 * and without this a captured process could open files and sockets through it.
 */
static int restrict_ring(int fd)
{
	static const uint8_t opcodes[] = { IORING_OP_READV,      IORING_OP_WRITEV,
					   IORING_OP_READ_FIXED, IORING_OP_WRITE_FIXED,
					   IORING_OP_FSYNC,      IORING_OP_FALLOCATE };
	struct io_uring_restriction allow[ARRAY_SIZE(opcodes) + 1] = { 0 };

	for (size_t i = 0; i < ARRAY_SIZE(opcodes); i++) {
		allow[i].opcode = IORING_RESTRICTION_SQE_OP;
		allow[i].sqe_op = opcodes[i];
	}
	allow[ARRAY_SIZE(opcodes)].opcode = IORING_RESTRICTION_REGISTER_OP;
	allow[ARRAY_SIZE(opcodes)].register_op = IORING_REGISTER_BUFFERS;
	if (syscall(SYS_io_uring_register, fd, IORING_REGISTER_RESTRICTIONS, allow,
		    ARRAY_SIZE(allow)) < 0 ||
	    syscall(SYS_io_uring_register, fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0) < 0)
		return -errno;
	return 0;
}

static int setup_ring(struct loop *loop, unsigned depth, struct error *err)
{
	struct io_uring_params params = { .flags = IORING_SETUP_CLAMP | IORING_SETUP_R_DISABLED };
	int r;

	r = io_uring_queue_init_params(depth, &loop->ring, &params);
	if (r < 0)
		return error_errno(err, r,
				   "cannot set up io_uring (is it disabled by "
				   "kernel.io_uring_disabled or a container?)");
	loop->has_ring = true;
	r = restrict_ring(loop->ring.ring_fd);
	if (r < 0)
		return error_errno(err, r, "cannot restrict io_uring (Linux 5.10 or later can)");
	r = loop_watch(loop, &loop->ring_watch, loop->ring.ring_fd, EPOLLIN, on_ring);
	return r < 0 ? error_errno(err, r, "cannot watch io_uring") : 0;
}

int loop_new(unsigned io_depth, struct loop **ret, struct error *err)
{
	struct loop *loop = calloc(1, sizeof(*loop));
	int r = 0;

	if (!loop)
		return error_set(err, -ENOMEM, "out of memory");
	pthread_mutex_init(&loop->lock, NULL);
	list_init(&loop->timers);
	list_init(&loop->tasks);
	list_init(&loop->posted);
	list_init(&loop->io_waiting);
	loop->now = clock_now();
	loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (loop->epoll_fd < 0 || loop->wake_fd < 0)
		r = error_errno(err, -errno, "cannot set up the event loop");
	else if (loop_watch(loop, &loop->wake_watch, loop->wake_fd, EPOLLIN, on_wake) < 0)
		r = error_errno(err, -errno, "cannot set up the event loop");
	else if (io_depth)
		r = setup_ring(loop, io_depth, err);
	if (r < 0) {
		loop_free(loop);
		return r;
	}
	*ret = loop;
	return 0;
}

void loop_free(struct loop *loop)
{
	if (!loop)
		return;
	if (loop->has_ring)
		io_uring_queue_exit(&loop->ring);
	if (loop->wake_fd >= 0)
		close(loop->wake_fd);
	if (loop->epoll_fd >= 0)
		close(loop->epoll_fd);
	pthread_mutex_destroy(&loop->lock);
	free(loop);
}

static bool tasks_queued(struct loop *loop)
{
	LOCK_SCOPE(&loop->lock);
	return !list_empty(&loop->tasks) || !list_empty(&loop->posted);
}

static int wait_ms(struct loop *loop, int timeout_ms)
{
	struct loop_timer *t;
	uint64_t now, ms;

	if (tasks_queued(loop))
		return 0;
	if (list_empty(&loop->timers))
		return timeout_ms;
	t = list_first(&loop->timers, struct loop_timer, node);
	now = clock_now();
	ms = t->deadline <= now ? 0 : (t->deadline - now + 999999) / 1000000;
	if (timeout_ms >= 0 && ms > (uint64_t)timeout_ms)
		return timeout_ms;
	return (int)MIN(ms, 3600u * 1000u);
}

int loop_once(struct loop *loop, int timeout_ms)
{
	int n;

	io_submit(loop);
	if (io_reap(loop))
		timeout_ms = 0;
	n = epoll_wait(loop->epoll_fd, loop->events, EVENT_BATCH, wait_ms(loop, timeout_ms));
	if (n < 0 && errno != EINTR)
		return -errno;
	loop->now = clock_now();
	loop->event_count = MAX(n, 0);
	for (int i = 0; i < loop->event_count; i++) {
		struct loop_watch *w = loop->events[i].data.ptr;

		if (w)
			w->fn(w, loop->events[i].events);
	}
	loop->event_count = 0;
	run_timers(loop);
	/* A few turns save waits; more would keep descriptors and timers from their share. */
	for (int turn = 0; turn < MAX_TURNS; turn++) {
		run_tasks(loop);
		io_submit(loop);
		if (!io_reap(loop) && list_empty(&loop->tasks))
			break;
	}
	return 0;
}

int loop_run(struct loop *loop)
{
	int r = 0;

	while (r >= 0 && !atomic_load(&loop->stop))
		r = loop_once(loop, -1);
	atomic_store(&loop->stop, false);
	return r;
}

void loop_stop(struct loop *loop)
{
	atomic_store(&loop->stop, true);
	wake(loop);
}

uint64_t loop_now(const struct loop *loop)
{
	return loop->now;
}
