// SPDX-License-Identifier: MIT
/*
 * Reservations in a file: several openers, several processes, and power cuts. What a cut leaves is
 * built from the writes since the last flush: any of their sectors may be there or not.
 */
#include "vhd/reserve_file.h"

#include "lib/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include <cmocka.h>

#define SET_BYTES (RESERVE_SLOT(1) + RESERVE_SLOT_SIZE)
#define SECTOR    512u

static struct guid person(unsigned i)
{
	return (struct guid){ { 0xa0, (uint8_t)(i + 1), 7 } };
}

static struct reserve_request request(uint8_t action, uint8_t type, uint64_t key,
				      uint64_t action_key)
{
	return (struct reserve_request){
		.action = action, .type = type, .key = key, .action_key = action_key
	};
}

/* --- files --- */

struct files {
	char set[40], image[40];
};

static struct files files_new(void)
{
	struct files f = { "/var/tmp/partita-set-XXXXXX", "/var/tmp/partita-img-XXXXXX" };
	static const struct reserve_state none;
	static uint8_t bytes[SET_BYTES];
	int set = mkstemp(f.set), image = mkstemp(f.image);

	assert_true(set >= 0 && image >= 0);
	reserve_slot_encode(&none, 0, bytes + RESERVE_SLOT(0));
	assert_int_equal(pwrite(set, bytes, sizeof(bytes), 0), sizeof(bytes));
	close(set);
	close(image);
	return f;
}

static void files_remove(const struct files *f)
{
	unlink(f->set);
	unlink(f->image);
}

struct opener {
	int set, image;
	struct reserve_file *r;
};

static struct opener opener_new(const struct files *f, unsigned who)
{
	struct opener o = { open(f->set, O_RDWR | O_CLOEXEC), open(f->image, O_RDWR | O_CLOEXEC) };
	struct guid id = person(who);
	int r;

	do
		r = reserve_file_open(o.set, o.image, &id, &o.r, NULL);
	while (r == -EBUSY); /* as in apply */
	assert_int_equal(r, 0);
	return o;
}

static void opener_free(struct opener *o)
{
	reserve_file_close(o->r);
	close(o->set);
	close(o->image);
}

static enum reserve_result apply(struct opener *o, uint8_t action, uint8_t type, uint64_t key,
				 uint64_t action_key)
{
	const struct reserve_request q = request(action, type, key, action_key);
	enum reserve_result result = RESERVE_GOOD;
	int r;

	do
		r = reserve_file_apply(o->r, &q, &result);
	while (r == -EBUSY); /* many want to, and flushing takes long here */
	assert_int_equal(r, 0);
	return result;
}

static void test_openers_see_each_other(void **state)
{
	struct files f = files_new();
	struct opener a = opener_new(&f, 0), b = opener_new(&f, 1);
	uint64_t change = reserve_file_change(b.r);

	(void)state;
	assert_int_equal(reserve_file_refresh(b.r), 0);
	assert_int_equal(reserve_file_change(b.r), change);
	for (unsigned n = 1; n <= 5; n++) {
		assert_int_equal(apply(&a, RESERVE_REGISTER_IGNORE, 0, 0, n), RESERVE_GOOD);
		if (n % 2)
			continue; /* b sleeps through one change, or two */
		assert_int_equal(reserve_file_refresh(b.r), 0);
		assert_int_equal(reserve_file_change(b.r), change + n);
		assert_int_equal(reserve_file_state(b.r)->generation, n);
	}
	opener_free(&a);
	opener_free(&b);
	/* They are as they were when somebody opens it again. */
	a = opener_new(&f, 2);
	assert_int_equal(reserve_registered(reserve_file_state(a.r)), 1);
	opener_free(&a);
	files_remove(&f);
}

static void test_events_are_told_once(void **state)
{
	struct files f = files_new();
	struct opener a = opener_new(&f, 0), b = opener_new(&f, 1);

	(void)state;
	assert_int_equal(apply(&a, RESERVE_REGISTER, 0, 0, 1), RESERVE_GOOD);
	assert_int_equal(apply(&b, RESERVE_REGISTER, 0, 0, 2), RESERVE_GOOD);
	assert_int_equal(apply(&b, RESERVE_RESERVE, 5, 2, 0), RESERVE_GOOD);
	assert_int_equal(apply(&b, RESERVE_RELEASE, 5, 2, 0), RESERVE_GOOD);
	assert_int_equal(apply(&b, RESERVE_PREEMPT, 5, 2, 1), RESERVE_GOOD);
	assert_int_equal(reserve_file_refresh(a.r), 0);
	assert_int_equal(reserve_file_event(a.r), RESERVE_RESERVATIONS_RELEASED);
	assert_int_equal(reserve_file_event(a.r), RESERVE_REGISTRATIONS_PREEMPTED);
	assert_int_equal(reserve_file_event(a.r), RESERVE_EVENTS);
	assert_int_equal(reserve_file_event(b.r), RESERVE_EVENTS);
	opener_free(&a);
	a = opener_new(&f, 0); /* as after power-on */
	assert_int_equal(reserve_file_event(a.r), RESERVE_EVENTS);
	opener_free(&a);
	opener_free(&b);
	files_remove(&f);
}

static void test_an_identity_is_nobody_elses(void **state)
{
	struct files f = files_new();
	struct opener a = opener_new(&f, 0);
	int set = open(f.set, O_RDWR), image = open(f.image, O_RDWR);
	struct reserve_file *r;
	struct error err = { 0 };
	struct guid id = person(0);

	(void)state;
	assert_int_equal(reserve_file_open(set, image, &id, &r, &err), -EBUSY);
	assert_non_null(strstr(err.message, "identity"));
	opener_free(&a);
	assert_int_equal(reserve_file_open(set, image, &id, &r, &err), 0);
	reserve_file_close(r);
	close(set);
	close(image);
	files_remove(&f);
}

/* --- fences --- */

static void test_a_fence_is_quiet_when_old_commands_are_through(void **state)
{
	struct files f = files_new();
	struct opener a = opener_new(&f, 0), b = opener_new(&f, 1);
	unsigned first, second, third;

	(void)state;
	assert_int_equal(reserve_file_enter(b.r, &first), 0);
	assert_int_equal(apply(&a, RESERVE_REGISTER, 0, 0, 1), RESERVE_GOOD);
	assert_int_equal(reserve_file_enter(b.r, &second), -EAGAIN); /* a changed it */
	assert_int_equal(reserve_file_enter(b.r, &second), 0);
	assert_int_equal(reserve_file_enter(b.r, &third), 0);
	assert_int_equal(second, third);
	assert_int_equal(reserve_file_quiet(a.r, reserve_file_change(a.r)), 0);
	assert_int_equal(reserve_file_quiet(b.r, reserve_file_change(b.r)), 1); /* itself */
	assert_int_equal(apply(&a, RESERVE_REGISTER, 0, 1, 2), RESERVE_GOOD);
	reserve_file_leave(b.r, first);
	assert_int_equal(reserve_file_quiet(a.r, reserve_file_change(a.r) - 1), 1);
	assert_int_equal(reserve_file_quiet(a.r, reserve_file_change(a.r)), 0);
	reserve_file_leave(b.r, second);
	assert_int_equal(reserve_file_quiet(a.r, reserve_file_change(a.r)), 0);
	reserve_file_leave(b.r, third);
	assert_int_equal(reserve_file_quiet(a.r, reserve_file_change(a.r)), 1);
	opener_free(&a);
	opener_free(&b);
	files_remove(&f);
}

static void test_fences_wrap(void **state)
{
	struct files f = files_new();
	struct opener a = opener_new(&f, 0), b = opener_new(&f, 1);
	unsigned fence;

	(void)state;
	for (unsigned n = 0; n < 28; n++) { /* of 40 changes, so more than once round */
		assert_int_equal(reserve_file_refresh(b.r), 0);
		assert_int_equal(reserve_file_enter(b.r, &fence), 0);
		assert_int_equal(reserve_file_quiet(a.r, reserve_file_change(a.r)), 1);
		for (unsigned k = 0; k < 40; k++) {
			assert_int_equal(apply(&a, RESERVE_REGISTER_IGNORE, 0, 0, k + 1),
					 RESERVE_GOOD);
			assert_int_equal(reserve_file_quiet(a.r, reserve_file_change(a.r)), 0);
		}
		reserve_file_leave(b.r, fence);
		assert_int_equal(reserve_file_quiet(a.r, reserve_file_change(a.r)), 1);
	}
	opener_free(&a);
	opener_free(&b);
	files_remove(&f);
}

/* --- several processes --- */

#define PROCESSES 4
#define ROUNDS    60

/* Registers and unregisters; between them reserves and, when it holds it, checks that it does. */
static void work(const struct files *f, unsigned who)
{
	struct opener o = opener_new(f, who);

	for (unsigned i = 0; i < ROUNDS; i++) {
		assert_int_equal(apply(&o, RESERVE_REGISTER, 0, 0, who + 1), RESERVE_GOOD);
		if (apply(&o, RESERVE_RESERVE, 1, who + 1, 0) == RESERVE_GOOD) {
			const struct guid id = person(who);
			const struct reserve_state *s = reserve_file_state(o.r);

			assert_int_equal(reserve_file_refresh(o.r), 0);
			assert_true(reserve_holds(s, reserve_find(s, &id)));
		}
		assert_int_equal(apply(&o, RESERVE_REGISTER, 0, who + 1, 0), RESERVE_GOOD);
	}
	opener_free(&o);
}

static void test_processes_lose_no_change(void **state)
{
	struct files f = files_new();
	pid_t children[PROCESSES];
	struct opener o;

	(void)state;
	for (unsigned i = 0; i < PROCESSES; i++) {
		children[i] = fork();
		assert_true(children[i] >= 0);
		if (!children[i]) {
			work(&f, i);
			_exit(0);
		}
	}
	for (unsigned i = 0; i < PROCESSES; i++) {
		int status;

		assert_int_equal(waitpid(children[i], &status, 0), children[i]);
		assert_true(WIFEXITED(status));
	}
	o = opener_new(&f, 50);
	assert_int_equal(reserve_file_state(o.r)->generation, PROCESSES * ROUNDS * 2);
	assert_int_equal(reserve_file_state(o.r)->type, 0);
	assert_int_equal(reserve_registered(reserve_file_state(o.r)), 0);
	opener_free(&o);
	files_remove(&f);
}

static void test_a_killed_process_leaves_no_lock(void **state)
{
	struct files f = files_new();
	struct opener a = opener_new(&f, 0), b;
	int ready[2], status;
	char byte;
	pid_t child;

	(void)state;
	assert_int_equal(pipe(ready), 0);
	child = fork();
	if (!child) {
		unsigned fence;

		b = opener_new(&f, 1);
		apply(&b, RESERVE_REGISTER, 0, 0, 2);
		(void)reserve_file_enter(b.r, &fence);
		(void)!write(ready[1], "", 1);
		pause();
	}
	assert_int_equal(read(ready[0], &byte, 1), 1);
	assert_int_equal(apply(&a, RESERVE_REGISTER, 0, 0, 1), RESERVE_GOOD);
	assert_int_equal(reserve_file_quiet(a.r, reserve_file_change(a.r)), 0);
	kill(child, SIGKILL);
	waitpid(child, &status, 0);
	assert_int_equal(reserve_file_quiet(a.r, reserve_file_change(a.r)), 1);
	b = opener_new(&f, 1); /* the registration is still there */
	assert_int_equal(reserve_registered(reserve_file_state(b.r)), 2);
	opener_free(&a);
	opener_free(&b);
	close(ready[0]);
	close(ready[1]);
	files_remove(&f);
}

/* --- power cuts --- */

struct cut_medium {
	struct reserve_medium medium;
	uint8_t durable[SET_BYTES], now[SET_BYTES];
	uint64_t at; /* of the write since the last flush; 0 = none */
	int fail_write, fail_sync;
};

static int cut_read(struct reserve_medium *m, void *buf, size_t n, uint64_t offset)
{
	memcpy(buf, container_of(m, struct cut_medium, medium)->now + offset, n);
	return 0;
}

static int cut_write(struct reserve_medium *m, const void *buf, size_t n, uint64_t offset)
{
	struct cut_medium *c = container_of(m, struct cut_medium, medium);

	if (c->fail_write)
		return c->fail_write;
	memcpy(c->now + offset, buf, n);
	c->at = offset;
	return 0;
}

static int cut_sync(struct reserve_medium *m)
{
	return container_of(m, struct cut_medium, medium)->fail_sync;
}

/* Cuts the power: of the slot that was being written, the sectors in `mask` are there. */
static void cut(struct cut_medium *c, unsigned mask)
{
	uint8_t after[SET_BYTES];

	memcpy(after, c->durable, sizeof(after));
	for (unsigned i = 0; c->at && i < RESERVE_SLOT_SIZE / SECTOR; i++)
		if (mask & BIT(i))
			memcpy(after + c->at + i * SECTOR, c->now + c->at + i * SECTOR, SECTOR);
	memcpy(c->now, after, sizeof(after));
}

static void test_a_power_cut_leaves_old_or_new(void **state)
{
	static struct cut_medium c;
	struct reserve_state s = { 0 }, old, got;
	uint64_t change = 0, got_change;
	unsigned news = 0, olds = 0;

	(void)state;
	c.medium = (struct reserve_medium){ cut_read, cut_write, cut_sync };
	reserve_slot_encode(&s, 0, c.now + RESERVE_SLOT(0));
	for (unsigned n = 0; n < 24; n++, change++) {
		memcpy(c.durable, c.now, sizeof(c.durable));
		old = s;
		/* A large part of the table changes, or a single bit of it. */
		for (unsigned i = 0; i < (n % 3 ? RESERVE_NEXUS_MAX : 1); i++)
			s.nexus[i] = (struct reserve_nexus){ .id = person(i), .key = n + i + 1 };
		s.generation++;
		for (unsigned mask = 0; mask < BIT(RESERVE_SLOT_SIZE / SECTOR); mask++) {
			memcpy(c.now, c.durable, sizeof(c.now));
			assert_int_equal(reserve_medium_store(&c.medium, &s, change), 0);
			cut(&c, mask);
			assert_int_equal(reserve_medium_load(&c.medium, &got, &got_change), 0);
			if (got_change == change + 1) {
				assert_memory_equal(&got, &s, sizeof(s));
				news++;
			} else {
				assert_int_equal(got_change, change);
				assert_memory_equal(&got, &old, sizeof(s));
				olds++;
			}
		}
		memcpy(c.now, c.durable, sizeof(c.now));
		assert_int_equal(reserve_medium_store(&c.medium, &s, change), 0);
	}
	print_message("%u cuts left the old state, %u the new one\n", olds, news);
	assert_true(olds && news);
}

static void test_what_cannot_be_stored_is_not_acknowledged(void **state)
{
	static struct cut_medium c;
	struct reserve_state s = { 0 }, got;
	uint64_t change;

	(void)state;
	c.medium = (struct reserve_medium){ cut_read, cut_write, cut_sync };
	reserve_slot_encode(&s, 0, c.now + RESERVE_SLOT(0));
	c.fail_write = -ENOSPC;
	assert_int_equal(reserve_medium_store(&c.medium, &s, 0), -ENOSPC);
	assert_int_equal(reserve_medium_load(&c.medium, &got, &change), 0);
	assert_int_equal(change, 0);
	c.fail_write = 0;
	c.fail_sync = -EIO;
	assert_int_equal(reserve_medium_store(&c.medium, &s, 0), -EIO);
	assert_int_equal(reserve_medium_store(&c.medium, &s, UINT64_MAX), -EOVERFLOW);
}

static void test_damaged_slots_are_refused(void **state)
{
	static uint8_t bytes[RESERVE_SLOT_SIZE], bad[RESERVE_SLOT_SIZE];
	struct reserve_state s = { .generation = 3 }, got;
	uint64_t change;

	(void)state;
	s.nexus[7] = (struct reserve_nexus){ .id = person(7), .key = 7 };
	reserve_slot_encode(&s, 12, bytes);
	assert_int_equal(reserve_slot_decode(bytes, &got, &change), 0);
	assert_int_equal(change, 12);
	assert_memory_equal(&got, &s, sizeof(s));
	for (unsigned i = 0; i < RESERVE_SLOT_SIZE * 8; i += 7) {
		memcpy(bad, bytes, sizeof(bad));
		bad[i / 8] ^= (uint8_t)BIT(i % 8);
		assert_int_equal(reserve_slot_decode(bad, &got, &change), -EINVAL);
	}
	s.type = 1; /* its holder is not registered */
	reserve_slot_encode(&s, 12, bytes);
	assert_int_equal(reserve_slot_decode(bytes, &got, &change), -EINVAL);
}

/* A crash tore a write of change 1; its number is used again, and must be noticed. */
static void test_a_torn_write_does_not_hide_the_next(void **state)
{
	struct files f = files_new();
	struct opener a = opener_new(&f, 0), b;
	uint8_t slot[RESERVE_SLOT_SIZE];
	static const struct reserve_state none;

	(void)state;
	reserve_slot_encode(&none, 1, slot);
	slot[2000] ^= 1;
	assert_int_equal(pwrite(a.set, slot, sizeof(slot), RESERVE_SLOT(1)), sizeof(slot));
	assert_int_equal(reserve_file_refresh(a.r), 0);
	assert_int_equal(reserve_file_change(a.r), 0);
	b = opener_new(&f, 1);
	assert_int_equal(apply(&b, RESERVE_REGISTER, 0, 0, 5), RESERVE_GOOD);
	assert_int_equal(reserve_file_change(b.r), 1);
	assert_int_equal(reserve_file_refresh(a.r), 0);
	assert_int_equal(reserve_file_change(a.r), 1);
	opener_free(&a);
	opener_free(&b);
	files_remove(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_openers_see_each_other),
		cmocka_unit_test(test_events_are_told_once),
		cmocka_unit_test(test_an_identity_is_nobody_elses),
		cmocka_unit_test(test_a_fence_is_quiet_when_old_commands_are_through),
		cmocka_unit_test(test_fences_wrap),
		cmocka_unit_test(test_processes_lose_no_change),
		cmocka_unit_test(test_a_killed_process_leaves_no_lock),
		cmocka_unit_test(test_a_power_cut_leaves_old_or_new),
		cmocka_unit_test(test_what_cannot_be_stored_is_not_acknowledged),
		cmocka_unit_test(test_damaged_slots_are_refused),
		cmocka_unit_test(test_a_torn_write_does_not_hide_the_next),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
