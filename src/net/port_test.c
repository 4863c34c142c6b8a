// SPDX-License-Identifier: MIT
/* Both sides of a port: frames, wake-ups, room, the end; and other sides that lie. */
#include "net/port.h"

#include "lib/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define RING     (128u * 1024)
#define LINE     64u
#define RINGS_AT 64u /* of the control words */

struct pair {
	struct net_port *a, *b; /* the switch's side, the port's */
	uint8_t *memory;        /* all of it, for those who lie */
};

static size_t memory_size(void)
{
	return 4096 + 2 * RING;
}

static void pair_make(struct pair *p)
{
	struct error err = { 0 };
	int fds[NET_PORT_FDS];

	assert_int_equal(net_port_new(RING, &p->a, &err), 0);
	net_port_fds(p->a, fds);
	p->memory = mmap(NULL, memory_size(), PROT_READ | PROT_WRITE, MAP_SHARED, fds[0], 0);
	assert_ptr_not_equal(p->memory, MAP_FAILED);
	assert_int_equal(net_port_open(fds, &p->b, &err), 0);
}

static void pair_drop(struct pair *p)
{
	net_port_free(p->a);
	net_port_free(p->b);
	munmap(p->memory, memory_size());
}

/* A control word: `ring` 0 is to the switch; `word` head, tail, asleep, wants_room. */
static uint32_t *word_of(struct pair *p, unsigned ring, unsigned word)
{
	return (uint32_t *)(p->memory + RINGS_AT + (ring * 5 + word) * LINE);
}

static bool readable(const struct net_port *p)
{
	struct pollfd f = { .fd = net_port_fd(p), .events = POLLIN };

	return poll(&f, 1, 0) == 1;
}

static int send_filled(struct net_port *p, uint8_t with, size_t size)
{
	static uint8_t bytes[NET_FRAME_MAX + 1];
	const struct iovec iov[2] = { { bytes, size / 2 }, { bytes + size / 2, size - size / 2 } };

	memset(bytes, with, size);
	return net_port_send(p, NULL, iov, 2, size);
}

static void expect_filled(struct net_port *p, uint8_t with, size_t size)
{
	struct net_frame f;

	assert_int_equal(net_port_receive(p, &f), 1);
	assert_int_equal(f.size, size);
	for (size_t i = 0; i < size; i++)
		assert_int_equal(((const uint8_t *)f.data)[i], with);
}

static void test_frames_of_all_sizes_both_ways(void **state)
{
	static const size_t sizes[] = { 14, 15, 16, 60, 64, 1500, 1514, 9014, 65562 };
	struct pair p;
	struct net_frame f;

	(void)state;
	pair_make(&p);
	/* Several times around, with every size at every place. */
	for (unsigned i = 0; i < 500; i++) {
		size_t size = sizes[i % ARRAY_SIZE(sizes)];
		struct net_port *from = i % 2 ? p.a : p.b, *to = i % 2 ? p.b : p.a;

		assert_int_equal(send_filled(from, (uint8_t)i, size), 0);
		assert_int_equal(net_port_receive(to, &f), 0); /* not before the flush */
		net_port_flush(from);
		expect_filled(to, (uint8_t)i, size);
		assert_int_equal(net_port_receive(to, &f), 0);
		net_port_release(to);
	}
	assert_int_equal(net_port_counters(p.a).frames_in, 250);
	assert_int_equal(net_port_counters(p.a).frames_out, 250);
	assert_int_equal(net_port_counters(p.b).bytes_in, net_port_counters(p.a).bytes_out);
	pair_drop(&p);
}

static void test_offloads_travel_and_are_judged(void **state)
{
	static const struct net_offload good = {
		.flags = NET_CHECKSUM_NEEDED,
		.segmentation = NET_SEGMENT_TCP4 | NET_SEGMENT_ECN,
		.header_size = 54,
		.segment_size = 1460,
		.checksum_start = 34,
		.checksum_offset = 16,
	};
	static const struct net_offload bad[] = {
		{ .flags = 4 },
		{ .segmentation = 2 },
		{ .flags = 1, .checksum_start = 13 },
		{ .flags = 1, .checksum_start = 100, .checksum_offset = 28 - 1 },
		{ .flags = 1, .checksum_start = 65535, .checksum_offset = 65535 },
		{ .header_size = 129 },
		{ .segmentation = 1, .segment_size = 1 },                /* no checksum */
		{ .flags = 1, .checksum_start = 34, .segmentation = 4 }, /* no size */
		{ .flags = 1, .checksum_start = 34, .segmentation = 0x85, .segment_size = 9 },
		{ .flags = 1, .checksum_start = 34, .segmentation = 0x80, .segment_size = 9 },
	};
	uint8_t bytes[128] = { 0 };
	const struct iovec iov = { bytes, sizeof(bytes) };
	struct net_frame f;
	struct pair p;

	(void)state;
	pair_make(&p);
	assert_int_equal(net_port_send(p.b, &good, &iov, 1, sizeof(bytes)), 0);
	net_port_flush(p.b);
	assert_int_equal(net_port_receive(p.a, &f), 1);
	assert_memory_equal(&f.offload, &good, sizeof(good));
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(net_port_send(p.b, &bad[i], &iov, 1, sizeof(bytes)), -EINVAL);
	pair_drop(&p);
	/* The same from one who does not judge: `record` is what lies before a frame. */
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		uint8_t *record;

		pair_make(&p);
		record = p.memory + 4096;
		*(uint32_t *)record = sizeof(bytes);
		record[4] = bad[i].flags;
		record[5] = bad[i].segmentation;
		memcpy(record + 6, &bad[i].header_size, 8);
		*word_of(&p, 0, 0) = 256;
		assert_int_equal(net_port_receive(p.a, &f), -EIO);
		pair_drop(&p);
	}
}

static void test_what_a_port_takes(void **state)
{
	struct pair p;

	(void)state;
	pair_make(&p);
	assert_int_equal(net_port_takes(p.a), 0);
	net_port_take(p.b, NET_TAKES_CHECKSUM | NET_TAKES_TCP4);
	assert_int_equal(net_port_takes(p.a), NET_TAKES_CHECKSUM | NET_TAKES_TCP4);
	assert_int_equal(net_port_takes(p.b), 0);
	*word_of(&p, 1, 4) = 0xffffffff;
	assert_int_equal(net_port_takes(p.a), NET_TAKES_ALL);
	pair_drop(&p);
}

static void test_sizes_that_are_refused(void **state)
{
	struct pair p;

	(void)state;
	pair_make(&p);
	assert_int_equal(send_filled(p.a, 1, 13), -EMSGSIZE);
	assert_int_equal(send_filled(p.a, 1, NET_FRAME_MAX + 1), -EMSGSIZE);
	pair_drop(&p);
}

static void test_wake_only_when_asleep(void **state)
{
	struct net_frame f;
	struct pair p;

	(void)state;
	pair_make(&p);
	/* Awake: no byte is sent. */
	assert_int_equal(send_filled(p.a, 1, 60), 0);
	net_port_flush(p.a);
	assert_false(readable(p.b));
	assert_false(net_port_arm(p.b)); /* there is a frame */
	assert_int_equal(net_port_receive(p.b, &f), 1);
	net_port_release(p.b);
	assert_true(net_port_arm(p.b));
	assert_false(readable(p.b));
	/* Asleep: one, for many frames. */
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(send_filled(p.a, 1, 60), 0);
		net_port_flush(p.a);
	}
	assert_true(readable(p.b));
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(net_port_receive(p.b, &f), 1);
	net_port_release(p.b);
	assert_true(net_port_arm(p.b));
	assert_false(readable(p.b));
	pair_drop(&p);
}

static void test_room_is_told(void **state)
{
	struct net_frame f;
	unsigned sent = 0;
	struct pair p;

	(void)state;
	pair_make(&p);
	while (!send_filled(p.a, 1, 1500))
		sent++;
	assert_int_equal(sent, RING / (1500 + 20));
	assert_int_equal(net_port_counters(p.a).full, 1);
	assert_false(net_port_want_room(p.a));
	assert_true(net_port_arm(p.a));
	assert_false(readable(p.a));
	/* want_room has flushed: all are there. */
	for (unsigned i = 0; i < sent; i++) {
		assert_int_equal(net_port_receive(p.b, &f), 1);
		net_port_release(p.b);
	}
	assert_true(readable(p.a));
	assert_false(net_port_arm(p.a)); /* says so once */
	assert_true(net_port_arm(p.a));
	assert_int_equal(send_filled(p.a, 1, NET_FRAME_MAX), 0);
	/* There is room now: nothing to wait for. */
	assert_int_equal(net_port_receive(p.b, &f), 0);
	net_port_flush(p.a);
	assert_int_equal(net_port_receive(p.b, &f), 1);
	net_port_release(p.b);
	assert_true(net_port_want_room(p.a));
	pair_drop(&p);
}

static void test_an_early_drain_loses_no_room(void **state)
{
	struct net_frame f;
	struct pair p;

	(void)state;
	pair_make(&p);
	while (!send_filled(p.a, 1, 1500))
		;
	assert_false(net_port_want_room(p.a));
	while (net_port_receive(p.b, &f) == 1)
		;
	net_port_release(p.b);
	/* A wake for a frame and one for room are drained by the same call. */
	assert_true(net_port_arm(p.b));
	assert_false(net_port_arm(p.a));
	pair_drop(&p);
}

static void test_the_end_is_told_after_the_last_frame(void **state)
{
	struct net_frame f;
	struct pair p;

	(void)state;
	pair_make(&p);
	assert_true(net_port_arm(p.b));
	assert_int_equal(send_filled(p.a, 7, 60), 0);
	net_port_flush(p.a);
	net_port_free(p.a);
	p.a = NULL;
	assert_true(readable(p.b));
	assert_false(net_port_arm(p.b));
	expect_filled(p.b, 7, 60);
	assert_false(net_port_arm(p.b));
	assert_int_equal(net_port_receive(p.b, &f), -EPIPE);
	assert_int_equal(send_filled(p.b, 1, 60), -EPIPE);
	pair_drop(&p);
}

static void test_indices_that_cannot_be(void **state)
{
	static const uint32_t heads[] = { 1, 8, RING + 16, 0x80000000, 0xfffffff0 };
	struct net_frame f;
	struct pair p;

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(heads); i++) {
		pair_make(&p);
		*word_of(&p, 0, 0) = heads[i];
		assert_int_equal(net_port_receive(p.a, &f), -EIO);
		*word_of(&p, 0, 0) = 0;
		assert_int_equal(net_port_receive(p.a, &f), -EIO); /* ever after */
		assert_int_equal(send_filled(p.a, 1, 60), -EIO);
		pair_drop(&p);
		/* The reader's position, seen by the writer that needs room. */
		pair_make(&p);
		while (!send_filled(p.a, 1, 1500))
			;
		*word_of(&p, 1, 1) = heads[i] == RING + 16 ? RING + 32 : heads[i];
		assert_int_equal(send_filled(p.a, 1, 1500), -EIO);
		pair_drop(&p);
	}
}

static void test_lengths_that_cannot_be(void **state)
{
	static const uint32_t sizes[] = { 0, 13, 113, NET_FRAME_MAX + 1, 0xffffffff, 0xfffffff0 };
	struct net_frame f;
	struct pair p;

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
		pair_make(&p);
		*(uint32_t *)(p.memory + 4096) = sizes[i];
		*word_of(&p, 0, 0) = 128; /* a record of 16 and a frame of at most 112 */
		assert_int_equal(net_port_receive(p.a, &f), -EIO);
		pair_drop(&p);
	}
}

static void test_descriptors_that_are_no_port(void **state)
{
	struct error err = { 0 };
	struct net_port *p, *other;
	int fds[NET_PORT_FDS], memory;

	(void)state;
	assert_int_equal(net_port_new(RING + 4096, &p, &err), -EINVAL);
	assert_int_equal(net_port_new(65536, &p, &err), -EINVAL);
	assert_int_equal(net_port_open((int[]){ -1, -1 }, &p, &err), -EINVAL);
	/* Not sealed. */
	memory = memfd_create("x", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	assert_int_equal(ftruncate(memory, (off_t)memory_size()), 0);
	assert_int_equal(net_port_open((int[]){ dup(memory), -1 }, &p, &err), -EINVAL);
	/* Sealed, but empty; then of another size. */
	assert_int_equal(fcntl(memory, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0);
	assert_int_equal(net_port_open((int[]){ memory, -1 }, &p, &err), -EINVAL);
	memory = memfd_create("x", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	assert_int_equal(ftruncate(memory, 100), 0);
	assert_int_equal(fcntl(memory, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0);
	assert_int_equal(net_port_open((int[]){ memory, -1 }, &p, &err), -EINVAL);
	/* The right memory and something that is no socket. */
	assert_int_equal(net_port_new(RING, &p, &err), 0);
	net_port_fds(p, fds);
	close(fds[1]);
	fds[1] = open("/dev/null", O_RDWR | O_CLOEXEC);
	assert_int_equal(net_port_open(fds, &other, &err), -EINVAL);
	net_port_fds(p, fds);
	assert_int_equal(fds[0], -1); /* given away once */
	net_port_free(p);
}

static void test_the_other_side_cannot_block_us(void **state)
{
	struct pair p;
	char bytes[4096] = { 0 };
	int fd;

	(void)state;
	pair_make(&p);
	/* It makes its end blocking, and never reads: our wakes fill the socket and go on. */
	fd = net_port_fd(p.b);
	assert_int_equal(fcntl(fd, F_SETFL, 0), 0);
	for (unsigned i = 0; i < 5000; i++) {
		struct net_frame f;

		*word_of(&p, 1, 2) = 1;
		assert_int_equal(send_filled(p.a, 1, 60), 0);
		net_port_flush(p.a);
		assert_int_equal(net_port_receive(p.b, &f), 1);
		net_port_release(p.b);
	}
	/* It sends more than a wake is. */
	while (send(fd, bytes, sizeof(bytes), MSG_DONTWAIT) > 0)
		;
	for (unsigned i = 0; i < 10; i++)
		assert_true(net_port_arm(p.a));
	pair_drop(&p);
}

/* --- two threads --- */

struct scribbler {
	uint8_t *memory;
	bool stop;
};

static void *scribble(void *arg)
{
	struct scribbler *s = arg;
	uint32_t x = 1;

	while (!__atomic_load_n(&s->stop, __ATOMIC_RELAXED)) {
		x = x * 1664525 + 1013904223;
		/* The records of the first frames, ever again. */
		*(volatile uint32_t *)(s->memory + 4096 + (x >> 8 & 0x3ff) * 4) = x >> 16 & 0x1ff;
	}
	return NULL;
}

static void test_memory_rewritten_while_it_is_read(void **state)
{
	struct scribbler s = { 0 };
	unsigned broken = 0;
	pthread_t thread;
	struct pair p;

	(void)state;
	pair_make(&p);
	s.memory = p.memory;
	assert_int_equal(pthread_create(&thread, NULL, scribble, &s), 0);
	for (unsigned i = 0; i < 3000; i++) {
		struct net_port *reader = p.a;
		struct net_frame f;
		int r;

		*word_of(&p, 0, 0) += 256;
		while ((r = net_port_receive(reader, &f)) == 1) {
			assert_true(f.size >= NET_FRAME_MIN && f.size <= 256 - 16);
			assert_true(f.offload.checksum_start <= f.size);
		}
		net_port_release(reader);
		if (r < 0) {
			s.stop = true;
			pthread_join(thread, NULL);
			broken++;
			pair_drop(&p);
			pair_make(&p);
			s = (struct scribbler){ .memory = p.memory };
			assert_int_equal(pthread_create(&thread, NULL, scribble, &s), 0);
		}
	}
	__atomic_store_n(&s.stop, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	assert_true(broken);
	pair_drop(&p);
}

#define MANY 20000u

static void wait_for(struct net_port *p)
{
	struct pollfd f = { .fd = net_port_fd(p), .events = POLLIN };

	if (net_port_arm(p))
		assert_int_equal(poll(&f, 1, 10000), 1); /* a wake that is lost fails here */
}

static void *send_many(void *arg)
{
	struct net_port *p = arg;
	uint8_t frame[1514] = { 0 };

	for (uint32_t i = 0; i < MANY; i++) {
		size_t size = 14 + i * 7 % 1500;
		const struct iovec iov = { frame, size };

		memcpy(frame, &i, sizeof(i));
		while (net_port_send(p, NULL, &iov, 1, size) == -EAGAIN)
			if (!net_port_want_room(p))
				wait_for(p);
		if (i % 5 == 0)
			net_port_flush(p);
	}
	net_port_flush(p);
	return NULL;
}

static void test_two_threads_lose_nothing_and_sleep(void **state)
{
	pthread_t thread;
	uint32_t next = 0;
	struct pair p;

	(void)state;
	pair_make(&p);
	assert_int_equal(pthread_create(&thread, NULL, send_many, p.b), 0);
	while (next < MANY) {
		struct net_frame f;

		while (net_port_receive(p.a, &f) == 1) {
			assert_int_equal(f.size, 14 + next * 7 % 1500);
			assert_memory_equal(f.data, &next, sizeof(next));
			next++;
		}
		net_port_release(p.a);
		if (next < MANY)
			wait_for(p.a);
	}
	pthread_join(thread, NULL);
	pair_drop(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_frames_of_all_sizes_both_ways),
		cmocka_unit_test(test_offloads_travel_and_are_judged),
		cmocka_unit_test(test_what_a_port_takes),
		cmocka_unit_test(test_sizes_that_are_refused),
		cmocka_unit_test(test_wake_only_when_asleep),
		cmocka_unit_test(test_room_is_told),
		cmocka_unit_test(test_an_early_drain_loses_no_room),
		cmocka_unit_test(test_the_end_is_told_after_the_last_frame),
		cmocka_unit_test(test_indices_that_cannot_be),
		cmocka_unit_test(test_lengths_that_cannot_be),
		cmocka_unit_test(test_descriptors_that_are_no_port),
		cmocka_unit_test(test_the_other_side_cannot_block_us),
		cmocka_unit_test(test_memory_rewritten_while_it_is_read),
		cmocka_unit_test(test_two_threads_lose_nothing_and_sleep),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
