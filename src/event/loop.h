/* SPDX-License-Identifier: MIT */
/*
 * The event loop: one thread, epoll for descriptors, an io_uring for file I/O, timers, and tasks.
 * All functions except loop_post and loop_stop are called on the loop's own thread (or before it
 * runs). Watches, timers, tasks and operations are embedded in their owner; the loop never
 * allocates per event. Callbacks may remove any watch, timer or task, their own included.
 */
#pragma once

#include "lib/error.h"
#include "lib/list.h"

#include <sys/uio.h>

struct loop;

/* `io_depth` = entries of the io_uring (1..4096); 0 = no io_uring, the loop_io calls abort then. */
int loop_new(unsigned io_depth, struct loop **ret, struct error *err) _must_check_;
void loop_free(struct loop *loop); /* NULL is fine */
/* Runs until loop_stop. 0, or a negative errno when the kernel refuses to wait. */
int loop_run(struct loop *loop);
/* One round; waits at most timeout_ms (-1 = for ever). For tests and fuzzers. */
int loop_once(struct loop *loop, int timeout_ms);
void loop_stop(struct loop *loop); /* any thread, also a signal-safe place */
/* CLOCK_MONOTONIC in ns, read once per round: cheap, up to one round old. */
uint64_t loop_now(const struct loop *loop);

/* A descriptor. `events` are EPOLL* bits (EPOLLET allowed); the descriptor stays the caller's. */
struct loop_watch {
	void (*fn)(struct loop_watch *w, uint32_t events);
	int fd; /* -1 = not watched */
	struct loop *loop;
};
int loop_watch(struct loop *loop, struct loop_watch *w, int fd, uint32_t events,
	       void (*fn)(struct loop_watch *, uint32_t)) _must_check_;
void loop_unwatch(struct loop_watch *w); /* harmless when not watched */
/*
 * What ends a program: SIGTERM, SIGINT and, if not 0, `also` come as signalfd's records to w->fd,
 * which the program has until its end. They are blocked in this thread and in those it starts from
 * now on; SIGPIPE is ignored.
 */
int loop_watch_signals(struct loop *loop, struct loop_watch *w, int also,
		       void (*fn)(struct loop_watch *, uint32_t), struct error *err) _must_check_;

/* A timer fires once at `deadline` (loop_now's clock, ns) unless disarmed; arming again moves it.
 */
struct loop_timer {
	void (*fn)(struct loop_timer *t);
	uint64_t deadline; /* 0 = not armed */
	struct loop *loop;
	struct list node;
};
void loop_timer_init(struct loop *loop, struct loop_timer *t, void (*fn)(struct loop_timer *));
void loop_timer_arm(struct loop_timer *t, uint64_t deadline);
void loop_timer_disarm(struct loop_timer *t);

/*
 * A task runs once, soon. loop_defer: from the loop's thread, at the end of this round, before the
 * loop sleeps and before I/O queued in this round is submitted. loop_post: from any thread; wakes
 * the loop. Queueing a task that is queued already does nothing.
 */
struct loop_task {
	void (*fn)(struct loop_task *t);
	struct list node;
	bool queued; /* guarded by the loop's lock for posted tasks */
};
void loop_task_init(struct loop_task *t, void (*fn)(struct loop_task *));
void loop_defer(struct loop *loop, struct loop_task *t);
void loop_post(struct loop *loop, struct loop_task *t);
void loop_cancel(struct loop *loop, struct loop_task *t); /* loop's thread */

/*
 * File I/O. `done` is called from the loop, never from inside the call that queues, with the
 * system call's result (bytes, or negative errno). Short transfers are the caller's to continue.
 * Buffers, the iovec array and the op stay valid until then. There is no limit on queued ops: what
 * does not fit into the ring waits in order.
 */
struct loop_io {
	void (*done)(struct loop_io *io, int result);
	struct list node;
	uint8_t opcode; /* IORING_OP_* (private to the loop from here on) */
	int fd, flags;
	uint64_t offset, length;
	const struct iovec *iov;
	unsigned iovcnt;
};
/*
 * Memory that transfers use again and again, once in a loop's life and for the rest of it. The
 * kernel then has its pages at hand and need not find and hold them for each; transfers of one
 * piece inside of it gain from that by themselves. All of it is taken now and stays in RAM: it
 * counts as locked (RLIMIT_MEMLOCK), -ENOMEM with words when that is not allowed.
 */
int loop_buffer_register(struct loop *loop, void *base, size_t size,
			 struct error *err) _must_check_;
void loop_io_readv(struct loop *loop, struct loop_io *io, int fd, const struct iovec *iov,
		   unsigned iovcnt, uint64_t offset);
void loop_io_writev(struct loop *loop, struct loop_io *io, int fd, const struct iovec *iov,
		    unsigned iovcnt, uint64_t offset);
void loop_io_fdatasync(struct loop *loop, struct loop_io *io, int fd);
/* `mode` as in fallocate(2). */
void loop_io_fallocate(struct loop *loop, struct loop_io *io, int fd, int mode, uint64_t offset,
		       uint64_t length);
