// SPDX-License-Identifier: MIT
/* Order, cancellation from inside callbacks, posts from other threads, and real file I/O. */
#include "event/loop.h"
#include "lib/cleanup.h"

#include <errno.h>
#include <linux/io_uring.h>
#include <setjmp.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <cmocka.h>

static struct loop *make(void)
{
	struct loop *loop;
	struct error err = { 0 };

	if (loop_new(4, &loop, &err) < 0)
		fail_msg("%s", err.message);
	return loop;
}

static int fired[8], fired_count;

struct numbered_timer {
	struct loop_timer t;
	int number;
};

static void on_timer(struct loop_timer *t)
{
	fired[fired_count++] = container_of(t, struct numbered_timer, t)->number;
}

static void test_timers_fire_in_order(void **state)
{
	struct loop *loop = make();
	struct numbered_timer t[3];
	const uint64_t delay[] = { 3000000, 1000000, 2000000 };

	(void)state;
	fired_count = 0;
	for (int i = 0; i < 3; i++) {
		t[i].number = i;
		loop_timer_init(loop, &t[i].t, on_timer);
		loop_timer_arm(&t[i].t, loop_now(loop) + delay[i]);
	}
	loop_timer_disarm(&t[2].t);
	while (fired_count < 2)
		assert_int_equal(loop_once(loop, -1), 0);
	assert_int_equal(fired[0], 1);
	assert_int_equal(fired[1], 0);
	loop_free(loop);
}

static void on_timer_again(struct loop_timer *t)
{
	fired_count++;
	loop_timer_arm(t, loop_now(t->loop));
}

/* A timer that is always due, and a task that always comes back, do not keep others out. */
static void test_self_arming_timer_lets_the_round_end(void **state)
{
	struct loop *loop = make();
	struct loop_timer t, other;

	(void)state;
	fired_count = 0;
	loop_timer_init(loop, &t, on_timer_again);
	loop_timer_init(loop, &other, on_timer_again);
	loop_timer_arm(&t, loop_now(loop));
	loop_timer_arm(&other, loop_now(loop));
	for (int i = 1; i <= 3; i++) {
		assert_int_equal(loop_once(loop, 100), 0);
		assert_int_equal(fired_count, 2 * i);
	}
	loop_timer_disarm(&t);
	loop_timer_disarm(&other);
	loop_free(loop);
}

struct deferrer {
	struct loop_task task;
	struct loop *loop;
	int runs;
};

static void on_task_again(struct loop_task *t)
{
	struct deferrer *d = container_of(t, struct deferrer, task);

	d->runs++;
	loop_defer(d->loop, t);
}

static void test_self_deferring_task_lets_the_round_end(void **state)
{
	struct deferrer d = { .loop = make() };

	(void)state;
	loop_task_init(&d.task, on_task_again);
	loop_defer(d.loop, &d.task);
	assert_int_equal(loop_once(d.loop, 100), 0);
	assert_true(d.runs >= 1 && d.runs <= 100);
	loop_cancel(d.loop, &d.task);
	loop_free(d.loop);
}

static struct loop_watch watches[2];
static int watch_calls;

static void on_event_unwatch_both(struct loop_watch *w, uint32_t events)
{
	(void)w;
	(void)events;
	watch_calls++;
	loop_unwatch(&watches[0]);
	loop_unwatch(&watches[1]);
}

static void test_unwatch_of_a_fetched_event(void **state)
{
	struct loop *loop = make();
	int fd[2];

	(void)state;
	watch_calls = 0;
	for (int i = 0; i < 2; i++) {
		fd[i] = eventfd(1, EFD_CLOEXEC);
		assert_int_equal(
			loop_watch(loop, &watches[i], fd[i], EPOLLIN, on_event_unwatch_both), 0);
	}
	assert_int_equal(loop_once(loop, 100), 0);
	assert_int_equal(watch_calls, 1);
	close(fd[0]);
	close(fd[1]);
	loop_free(loop);
}

struct post_context {
	struct loop *loop;
	struct loop_task task;
	int runs;
};

static void on_posted(struct loop_task *t)
{
	struct post_context *c = container_of(t, struct post_context, task);

	if (++c->runs == 100)
		loop_stop(c->loop);
}

static void *poster(void *arg)
{
	struct post_context *c = arg;

	while (__atomic_load_n(&c->runs, __ATOMIC_RELAXED) < 100)
		loop_post(c->loop, &c->task);
	return NULL;
}

static void test_posts_from_a_thread(void **state)
{
	struct post_context c = { .loop = make() };
	pthread_t thread;

	(void)state;
	loop_task_init(&c.task, on_posted);
	assert_int_equal(pthread_create(&thread, NULL, poster, &c), 0);
	assert_int_equal(loop_run(c.loop), 0);
	pthread_join(thread, NULL);
	assert_true(c.runs >= 100);
	loop_free(c.loop);
}

static int io_results[64], io_count;

static void on_io(struct loop_io *io, int result)
{
	(void)io;
	io_results[io_count++] = result;
}

/* Sixty-four operations through a ring of four. */
static void test_more_io_than_the_ring_holds(void **state)
{
	struct loop *loop = make();
	struct loop_io io[64];
	struct iovec iov[64];
	char data[64], back[64] = { 0 };
	_cleanup_close_ int fd = memfd_create("loop-test", MFD_CLOEXEC);

	(void)state;
	io_count = 0;
	for (int i = 0; i < 64; i++) {
		data[i] = (char)i;
		iov[i] = (struct iovec){ .iov_base = &data[i], .iov_len = 1 };
		io[i].done = on_io;
		loop_io_writev(loop, &io[i], fd, &iov[i], 1, (uint64_t)i);
	}
	while (io_count < 64)
		assert_int_equal(loop_once(loop, 1000), 0);
	for (int i = 0; i < 64; i++)
		assert_int_equal(io_results[i], 1);
	assert_int_equal(pread(fd, back, 64, 0), 64);
	assert_memory_equal(data, back, 64);
	loop_free(loop);
}

#define AREA ((size_t)64 * 1024)

static int transfer(struct loop *loop, int fd, bool write, void *base, size_t n)
{
	struct iovec iov = { base, n };
	struct loop_io io = { .done = on_io };

	io_count = 0;
	(write ? loop_io_writev : loop_io_readv)(loop, &io, fd, &iov, 1, 0);
	while (!io_count)
		assert_int_equal(loop_once(loop, 1000), 0);
	return io_results[0];
}

/* Registered pages stay those of the transfers, whatever is mapped in their place afterwards. */
static void test_registered_memory(void **state)
{
	struct loop *loop = make();
	_cleanup_close_ int fd = memfd_create("loop-test", MFD_CLOEXEC);
	const int flags = MAP_PRIVATE | MAP_ANONYMOUS;
	char *area = mmap(NULL, 2 * AREA, PROT_READ | PROT_WRITE, flags, -1, 0);
	struct error err = { 0 };

	(void)state;
	assert_true(area != MAP_FAILED);
	if (loop_buffer_register(loop, area, AREA, &err) < 0)
		fail_msg("%s", err.message);
	assert_int_equal(loop_buffer_register(loop, area, AREA, &err), -EINVAL);
	memset(area, 0x5a, AREA);
	assert_int_equal(transfer(loop, fd, true, area + 100, 1000), 1000);
	/* across the end, and outside: as ever */
	assert_int_equal(transfer(loop, fd, false, area + AREA - 500, 1000), 1000);
	assert_int_equal(transfer(loop, fd, false, area + AREA + 2000, 1000), 1000);
	assert_memory_equal(area + AREA + 2000, area, 1000);
	assert_ptr_equal(mmap(area, AREA, PROT_READ | PROT_WRITE, flags | MAP_FIXED, -1, 0), area);
	assert_int_equal(transfer(loop, fd, false, area, 1000), 1000);
	assert_int_equal(area[0], 0);
	assert_int_equal(transfer(loop, fd, true, area + 4096, 1000), 1000);
	assert_int_equal(transfer(loop, fd, false, area + AREA, 1000), 1000);
	assert_int_equal(area[AREA], 0x5a);
	munmap(area, 2 * AREA);
	loop_free(loop);
}

static int find_ring(void)
{
	for (int fd = 0; fd < 64; fd++) {
		char path[32], target[64] = "";

		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		if (readlink(path, target, sizeof(target) - 1) > 0 && strstr(target, "io_uring"))
			return fd;
	}
	return -1;
}

/* The sandbox of the worker rests on it: only a restricted ring refuses to register things. */
static void test_ring_is_restricted(void **state)
{
	struct loop *loop = make();
	_cleanup_close_ int event = eventfd(0, EFD_CLOEXEC);
	int ring = find_ring();

	(void)state;
	assert_true(ring >= 0);
	assert_int_equal(syscall(SYS_io_uring_register, ring, IORING_REGISTER_EVENTFD, &event, 1),
			 -1);
	assert_int_equal(errno, EACCES);
	loop_free(loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_timers_fire_in_order),
		cmocka_unit_test(test_self_arming_timer_lets_the_round_end),
		cmocka_unit_test(test_self_deferring_task_lets_the_round_end),
		cmocka_unit_test(test_unwatch_of_a_fetched_event),
		cmocka_unit_test(test_posts_from_a_thread),
		cmocka_unit_test(test_more_io_than_the_ring_holds),
		cmocka_unit_test(test_registered_memory),
		cmocka_unit_test(test_ring_is_restricted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
