// SPDX-License-Identifier: MIT
/*
 * The sharing of memory: rules one by one, then hosts with hundreds of simulated machines and
 * random loads. In each round: what is given out fits, nobody is pushed below what it uses,
 * everybody stays in its bounds; and when the loads stand still, so do the targets.
 */
#include "daemon/balance.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct balance_vm vm_of(uint64_t assigned, uint64_t demand)
{
	return (struct balance_vm){ .minimum = 128,
				    .maximum = 4096,
				    .buffer = 20,
				    .weight = 50,
				    .assigned = assigned,
				    .known = true,
				    .demand = demand,
				    .grows = true,
				    .shrinks = true,
				    .target = assigned };
}

static const struct balance_host roomy = { .available = 100000, .reserve = 512 };

static void test_it_gets_what_it_needs_and_its_buffer(void **state)
{
	struct balance_vm vm = vm_of(512, 1000);
	struct balance_result r = balance(&roomy, &vm, 1);

	(void)state;
	assert_int_equal(vm.target, 1200);
	assert_false(r.short_of);
	vm = vm_of(512, 10000); /* beyond its maximum */
	balance(&roomy, &vm, 1);
	assert_int_equal(vm.target, 4096);
	vm = vm_of(512, 10);
	vm.minimum = 600;
	balance(&roomy, &vm, 1);
	assert_int_equal(vm.target, 600);
}

static void test_it_shrinks_only_when_that_lasts(void **state)
{
	struct balance_vm vm = vm_of(2000, 500);

	(void)state;
	for (int i = 0; i < 2; i++) {
		balance(&roomy, &vm, 1);
		assert_int_equal(vm.target, 2000);
	}
	balance(&roomy, &vm, 1);
	assert_int_equal(vm.target, 1500); /* by a quarter */
	vm.assigned = 1500;
	vm.demand = 1240; /* it needs it again */
	balance(&roomy, &vm, 1);
	assert_int_equal(vm.target, 1500);
	assert_int_equal(vm.idle, 0);
}

static void test_little_changes_are_left_out(void **state)
{
	struct balance_vm vm = vm_of(1200, 1000);

	(void)state;
	for (int i = 0; i < 100; i++) {
		vm.demand = 1000 + (uint64_t)(i % 2 * 25);
		balance(&roomy, &vm, 1);
		assert_int_equal(vm.target, 1200);
	}
}

static void test_who_does_not_say_keeps_what_it_has(void **state)
{
	struct balance_vm vms[2] = { vm_of(700, 9999), vm_of(1000, 3000) };
	const struct balance_host tight = { .available = 100, .reserve = 512 };

	(void)state;
	vms[0].known = false;
	balance(&roomy, vms, 2);
	assert_int_equal(vms[0].target, 700);
	balance(&tight, vms, 2);
	assert_int_equal(vms[0].target, 700);
	assert_int_equal(balance_spare(&vms[0]), 0);
	vms[0] = vm_of(700, 2000); /* cannot grow */
	vms[0].grows = false;
	balance(&roomy, vms, 2);
	assert_int_equal(vms[0].target, 700);
	vms[0] = vm_of(700, 50); /* cannot shrink */
	vms[0].shrinks = false;
	for (int i = 0; i < 10; i++)
		balance(&tight, vms, 2);
	assert_int_equal(vms[0].target, 700);
}

static void test_static_memory_is_not_shared(void **state)
{
	struct balance_vm vms[2] = { vm_of(1024, 100), vm_of(1000, 3000) };
	const struct balance_host tight = { .available = 0, .reserve = 512 };

	(void)state;
	vms[0].minimum = vms[0].maximum = 1024;
	for (int i = 0; i < 10; i++)
		balance(&tight, vms, 2);
	assert_int_equal(vms[0].target, 1024);
	/* unless it is to have less, or more */
	vms[0].minimum = vms[0].maximum = 512;
	for (int i = 0; i < 10; i++) {
		balance(&roomy, vms, 2);
		vms[0].assigned = vms[0].target;
	}
	assert_int_equal(vms[0].target, 512);
	vms[0].minimum = vms[0].maximum = 2048;
	balance(&roomy, vms, 2);
	assert_int_equal(vms[0].target, 2048);
}

static void test_idle_memory_goes_to_who_needs_it(void **state)
{
	struct balance_vm vms[2] = { vm_of(2000, 500), vm_of(1000, 1800) };
	const struct balance_host host = { .available = 512, .reserve = 512 };
	struct balance_result r;

	(void)state;
	r = balance(&host, vms, 2);
	assert_int_equal(r.budget, 3000);
	assert_true(vms[0].target + vms[1].target <= 3000);
	assert_int_equal(vms[1].target, 2160); /* at once, and all of it */
	assert_in_range(vms[0].target, 534, 840);
}

static void test_shortage_is_shared_by_weight(void **state)
{
	struct balance_vm vms[2] = { vm_of(1000, 900), vm_of(1000, 900) };
	const struct balance_host host = { .available = 612, .reserve = 512 };
	struct balance_result r;

	(void)state;
	vms[0].demand = vms[1].demand = 3000;
	vms[0].weight = 75;
	vms[1].weight = 24;
	r = balance(&host, vms, 2);
	assert_true(r.short_of);
	assert_int_equal(r.budget, 2100);
	/* nobody is taken what it has: both use all of it */
	assert_in_range(vms[0].target, 1070, 1076);
	assert_in_range(vms[1].target, 1000, 1030);
	assert_true(vms[0].target + vms[1].target <= 2100);
}

static void test_a_pressed_host_gives_nothing(void **state)
{
	struct balance_vm vm = vm_of(1000, 1500);
	struct balance_host host = roomy;

	(void)state;
	host.pressed = true;
	balance(&host, &vm, 1);
	assert_int_equal(vm.target, 1000);
}

static void test_a_host_that_lacks_memory_takes_what_is_not_used(void **state)
{
	struct balance_vm vms[2] = { vm_of(2000, 1000), vm_of(2000, 1900) };
	const struct balance_host host = { .available = 0, .reserve = 512, .promised = 3000 };

	(void)state;
	balance(&host, vms, 2);
	assert_int_equal(vms[0].target, 1064); /* what it uses, and 64 MiB */
	assert_int_equal(vms[1].target, 2000);
	assert_int_equal(balance_spare(&vms[0]), 936);
}

static void test_who_takes_more_gets_more_than_that(void **state)
{
	struct balance_vm vm = vm_of(300, 200);

	(void)state;
	balance(&roomy, &vm, 1);
	assert_int_equal(vm.target, 300); /* its buffer is small; what it has left is not */
	vm.demand = 240;
	vm.rise = 40;
	balance(&roomy, &vm, 1);
	assert_int_equal(vm.target, 240 + 64 + 80);
}

static void test_status(void **state)
{
	struct balance_vm vm = vm_of(1200, 1000);

	(void)state;
	assert_int_equal(balance_status(&vm), BALANCE_OK);
	vm.assigned = 1050;
	assert_int_equal(balance_status(&vm), BALANCE_LOW);
	vm.assigned = 999;
	assert_int_equal(balance_status(&vm), BALANCE_WARNING);
	vm.known = false;
	assert_int_equal(balance_status(&vm), BALANCE_UNKNOWN);
}

/* --- simulated hosts --- */

#define VMS   300
#define OTHER 4096 /* of the host's memory, taken by itself */

struct sim {
	unsigned count;
	uint64_t total;
	struct balance_vm vms[VMS];
	uint64_t use[VMS], aim[VMS], touched[VMS];
	unsigned starved, starved_with_room;
};

static uint64_t below(uint64_t n)
{
	return (uint64_t)rand() % n;
}

static void sim_begin(struct sim *s, unsigned seed, uint64_t percent)
{
	uint64_t sum = 0;

	srand(seed);
	memset(s, 0, sizeof(*s));
	s->count = 1 + (unsigned)below(VMS);
	for (unsigned i = 0; i < s->count; i++) {
		uint64_t startup = 256 + 2 * below(900);
		struct balance_vm vm = vm_of(startup, 0);

		vm.minimum = 64 + 2 * below(startup / 2 - 32);
		vm.maximum = startup + 2 * below(3000);
		vm.buffer = 5 + (unsigned)below(50);
		vm.weight = (unsigned)below(101);
		vm.known = below(10) > 0;
		vm.grows = below(10) > 0;
		vm.shrinks = below(10) > 0;
		if (!below(8))
			vm.minimum = vm.maximum = startup;
		s->vms[i] = vm;
		s->use[i] = s->aim[i] = 32 + below(startup - 32);
		s->touched[i] = s->use[i];
		sum += startup;
	}
	s->total = OTHER + 512 + sum * percent / 100;
}

/* Programs come and go; what they take comes in pieces, as long as the guest has it. */
static void sim_load(struct sim *s, bool changing)
{
	for (unsigned i = 0; i < s->count; i++) {
		struct balance_vm *vm = &s->vms[i];
		uint64_t step = 16 + vm->assigned / 20;

		if (changing && !below(40))
			s->aim[i] = 32 + below(vm->maximum + vm->maximum / 8);
		if (s->use[i] > s->aim[i])
			s->use[i] -= MIN(s->use[i] - s->aim[i], 4 * step);
		else
			s->use[i] += MIN(s->aim[i] - s->use[i], step);
		s->use[i] = MIN(s->use[i], vm->assigned); /* the rest waits, or is swapped */
		s->touched[i] = MAX(s->touched[i], s->use[i]);
		vm->demand =
			s->use[i] + (s->aim[i] > s->use[i] ? MIN(s->aim[i] - s->use[i], step) : 0);
	}
}

/* A guest takes what it is given, and gives what it does not use. */
static void sim_follow(struct sim *s)
{
	for (unsigned i = 0; i < s->count; i++) {
		struct balance_vm *vm = &s->vms[i];

		if (vm->target > vm->assigned)
			vm->assigned = vm->target;
		else if (vm->target < vm->assigned)
			vm->assigned = MAX(vm->target, s->use[i]);
		s->touched[i] = MIN(s->touched[i], vm->assigned);
	}
}

static struct balance_host sim_host(const struct sim *s)
{
	struct balance_host host = { .reserve = 512 };
	uint64_t taken = OTHER;

	for (unsigned i = 0; i < s->count; i++) {
		taken += s->touched[i];
		host.promised += s->vms[i].assigned - s->touched[i];
	}
	host.available = s->total - MIN(taken, s->total);
	return host;
}

/* How many targets changed. */
static unsigned sim_round(struct sim *s, bool changing)
{
	struct balance_host host;
	struct balance_result r;
	uint64_t total = 0, before = 0, stuck = 0;
	unsigned changes = 0;

	sim_load(s, changing);
	host = sim_host(s);
	r = balance(&host, s->vms, s->count);
	for (unsigned i = 0; i < s->count; i++) {
		const struct balance_vm *vm = &s->vms[i];

		assert_int_equal(vm->target % 2, 0);
		assert_true(vm->target >= MIN(s->use[i], vm->assigned));
		if (vm->known && vm->grows && vm->shrinks)
			assert_in_range(vm->target, MIN(vm->minimum, vm->assigned), vm->maximum);
		else if (!vm->known)
			assert_int_equal(vm->target, vm->assigned);
		assert_true(vm->grows || vm->target <= vm->assigned);
		assert_true(vm->shrinks || vm->target >= vm->assigned);
		total += vm->target;
		before += vm->assigned;
		stuck += vm->assigned - balance_spare(vm);
		changes += vm->target != vm->assigned;
	}
	assert_true(total <= MAX(r.budget, stuck));
	assert_true(total <= MAX(r.budget, before));
	sim_follow(s);
	return changes;
}

static void test_simulated_hosts(void **state)
{
	struct sim *s = malloc(sizeof(*s));

	(void)state;
	assert_non_null(s);
	for (unsigned seed = 1; seed <= 60; seed++) {
		unsigned late = 0;

		sim_begin(s, seed, 60 + below(150));
		for (int i = 0; i < 300; i++)
			sim_round(s, true);
		for (int i = 0; i < 200; i++)
			sim_round(s, false);
		/* All loads have stood still for long. */
		for (int i = 0; i < 100; i++)
			late += sim_round(s, false);
		assert_int_equal(late, 0);
	}
	free(s);
}

/* With enough for all, everyone gets what it asks for soon, and nobody waits for long. */
static void test_nobody_starves_on_a_large_host(void **state)
{
	struct sim *s = malloc(sizeof(*s));

	(void)state;
	assert_non_null(s);
	for (unsigned seed = 1; seed <= 20; seed++) {
		sim_begin(s, seed, 1000);
		for (int i = 0; i < 200; i++) {
			sim_round(s, true);
			for (unsigned j = 0; j < s->count; j++) {
				const struct balance_vm *vm = &s->vms[j];

				if (vm->known && vm->grows)
					assert_true(vm->assigned >= MIN(vm->demand, vm->maximum));
			}
		}
	}
	free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_it_gets_what_it_needs_and_its_buffer),
		cmocka_unit_test(test_it_shrinks_only_when_that_lasts),
		cmocka_unit_test(test_little_changes_are_left_out),
		cmocka_unit_test(test_who_does_not_say_keeps_what_it_has),
		cmocka_unit_test(test_static_memory_is_not_shared),
		cmocka_unit_test(test_idle_memory_goes_to_who_needs_it),
		cmocka_unit_test(test_shortage_is_shared_by_weight),
		cmocka_unit_test(test_a_pressed_host_gives_nothing),
		cmocka_unit_test(test_a_host_that_lacks_memory_takes_what_is_not_used),
		cmocka_unit_test(test_who_takes_more_gets_more_than_that),
		cmocka_unit_test(test_status),
		cmocka_unit_test(test_simulated_hosts),
		cmocka_unit_test(test_nobody_starves_on_a_large_host),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
