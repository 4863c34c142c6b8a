// SPDX-License-Identifier: MIT
/*
 * The balancer over machines of the fake supervisor, on a host whose figures are the test's: who is
 * asked for what and when, what is shown, and what is refused.
 */
#include "daemon/vm_describe.h"
#include "daemon/vm_internal.h"
#include "daemon/vm_testing.h"

#include <time.h>

static uint64_t host_available = 100000;
static bool host_is_pressed;

static void host_facts(struct balance_host *ret)
{
	ret->available = host_available;
	ret->pressed = host_is_pressed;
}

static int setup(void **state)
{
	int r = test_setup(state);

	host_available = 100000;
	host_is_pressed = false;
	if (r == 0)
		memory_facts_from(((struct test *)*state)->d, host_facts);
	return r;
}

static struct vm *begin(struct test *t, const char *name, const char *memory)
{
	struct error err = { 0 };
	char text[512];
	struct job *job;
	struct vm *vm;

	snprintf(text, sizeof(text), "{'name':'%s','boot':{'kernel':'/bin/sh'},'memory':%s}", name,
		 memory);
	vm = make(t, text);
	if (vm_act(t->d, &ada, vm, VM_START, &job, &err) < 0)
		fail_msg("%s", err.message);
	fake_state(vm->id, "running");
	assert_int_equal(fake_memory_asked(vm->id), 0); /* a query */
	return vm;
}

static json_t *memory_of(const struct vm *vm, unsigned assigned, unsigned demand, unsigned target)
{
	json_t *o = json_pack("{s:i,s:i,s:i,s:i,s:i,s:{s:b,s:b}}", "startup", 512, "maximum", 2048,
			      "target", target, "assigned", assigned, "resident", assigned,
			      "driver", "can_give", 1, "can_add", 1);

	(void)vm;
	if (demand) {
		json_object_set_new(o, "demand", json_integer(demand));
		json_object_set_new(o, "available",
				    json_integer(assigned > demand ? assigned - demand : 0));
	}
	return o;
}

static void says(struct vm *vm, unsigned assigned, unsigned demand, unsigned target)
{
	fake_memory(vm->id, assigned * MIB);
	fake_event(vm->id, json_pack("{s:s,s:o}", "event", "memory", "memory",
				     memory_of(vm, assigned, demand, target)));
}

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* Until it is asked for something; what that is. */
static int64_t wait_asked(struct test *t, const struct vm *vm, int ms)
{
	int64_t deadline = now_ms() + ms;

	while (fake_memory_asked(vm->id) < 0 && now_ms() < deadline)
		assert_true(loop_once(t->loop, 50) >= 0);
	return fake_memory_asked(vm->id);
}

static json_t *status_of(struct vm *vm, json_t **ret_json)
{
	*ret_json = vm_json(vm);
	return json_object_get(*ret_json, "status");
}

static void test_a_guest_that_needs_more_gets_it_soon(void **state)
{
	struct test *t = *state;
	struct vm *vm = begin(t, "a", "{'startup':512,'dynamic':true,'maximum':2048}");
	json_t *description = fake_description(vm->id), *json, *status;

	assert_int_equal(json_integer_value(json_object_get(description, "memory")), 512);
	assert_int_equal(json_integer_value(json_object_get(description, "memory_maximum")), 2048);
	fake_memory_answer(vm->id, memory_of(vm, 512, 0, 512));
	says(vm, 512, 500, 512);
	assert_int_equal(wait_asked(t, vm, 5000), 600);
	fake_memory_answer(vm->id, memory_of(vm, 512, 500, 600));
	says(vm, 600, 500, 600);
	status = status_of(vm, &json);
	assert_int_equal(json_integer_value(json_object_get(status, "memory_assigned_mib")), 600);
	assert_int_equal(json_integer_value(json_object_get(status, "memory_demand_mib")), 500);
	assert_string_equal(json_string_value(json_object_get(status, "memory_status")), "ok");
	json_decref(json);
	says(vm, 600, 650, 600);
	status = status_of(vm, &json);
	assert_string_equal(json_string_value(json_object_get(status, "memory_status")), "warning");
	json_decref(json);
}

static void test_a_pressed_host_gives_nothing_more(void **state)
{
	struct test *t = *state;
	struct vm *vm = begin(t, "a", "{'startup':512,'dynamic':true,'maximum':2048}");

	host_is_pressed = true;
	fake_memory_answer(vm->id, memory_of(vm, 512, 500, 512));
	assert_int_equal(wait_asked(t, vm, 2500), -1);
	assert_int_equal(events_of(t, "memory-short"), 1);
}

static void test_a_new_machine_takes_from_those_that_do_not_need_it(void **state)
{
	struct test *t = *state;
	struct vm *a = begin(t, "a", "{'startup':1024,'dynamic':true,'minimum':64}"), *b;
	struct admission admission;

	fake_memory_answer(a->id, memory_of(a, 1024, 300, 1024));
	says(a, 1024, 300, 1024);
	assert_int_equal(wait_asked(t, a, 1500), -1); /* there is enough: it keeps it, for now */
	host_available = 600;
	b = make(t, "{'name':'b','memory':{'startup':700}}");
	host_admission(t->d, b, &admission);
	assert_int_equal(admission.spare, 1024 - 364);
	admission.host.available = 600;
	admission.untouched = 0;
	assert_int_equal(admission_check(&admission, NULL), 0);
	/* with 1,212 to have and 712 in use by others */
	b = begin(t, "c", "{'startup':512}");
	assert_int_equal(wait_asked(t, a, 5000), 600);
}

static void test_who_does_not_say_is_left_alone(void **state)
{
	struct test *t = *state;
	struct vm *vm = begin(t, "a", "{'startup':512,'dynamic':true}");

	fake_memory_answer(vm->id, json_pack("{s:i,s:i,s:i,s:i,s:n}", "startup", 512, "maximum",
					     2048, "target", 512, "assigned", 512, "driver"));
	host_available = 0;
	vm_memory_follow(vm);
	assert_int_equal(wait_asked(t, vm, 2500), -1);
	assert_int_equal(vm_memory_spare(vm), 0);
}

static void test_static_memory_is_changed_while_it_runs(void **state)
{
	struct test *t = *state;
	struct vm *vm = begin(t, "a", "{'startup':512}");
	struct error err = { 0 };

	/* no driver yet */
	assert_int_equal(change(vm, &ada, "{'memory':{'startup':768}}", 0, &err), -EBADFD);
	assert_words(err, "hv_balloon");
	assert_string_equal(err.property, "memory.startup");
	fake_memory_answer(vm->id, memory_of(vm, 512, 100, 512));
	assert_int_equal(change(vm, &ada, "{'memory':{'startup':4096}}", 0, &err), -EBADFD);
	assert_words(err, "2048 MiB");
	assert_int_equal(change(vm, &ada, "{'memory':{'startup':768}}", 0, &err), 0);
	assert_int_equal(wait_asked(t, vm, 5000), 768);
	fake_memory_answer(vm->id, memory_of(vm, 512, 100, 768));
	says(vm, 768, 100, 768);
	/* the guest refuses to give */
	assert_int_equal(change(vm, &ada, "{'memory':{'startup':256}}", 0, &err), 0);
	fake_event(vm->id, json_pack("{s:s,s:s,s:o}", "event", "memory-refused", "what", "shrink",
				     "memory", memory_of(vm, 768, 100, 256)));
	assert_int_equal(events_of(t, "vm-memory-refused"), 1);
}

static void test_settings_apply_at_once(void **state)
{
	struct test *t = *state;
	struct vm *vm = begin(t, "a", "{'startup':512,'dynamic':true,'maximum':600}");
	struct error err = { 0 };

	fake_memory_answer(vm->id, memory_of(vm, 512, 1000, 512));
	assert_int_equal(wait_asked(t, vm, 5000), 600);
	fake_memory_answer(vm->id, memory_of(vm, 512, 1000, 600));
	says(vm, 600, 1000, 600);
	assert_int_equal(change(vm, &ada, "{'memory':{'maximum':1100}}", 0, &err), 0);
	assert_int_equal(wait_asked(t, vm, 5000), 1100);
}

static void test_growth_that_was_refused_is_nobody_s(void **state)
{
	struct test *t = *state;
	struct vm *vm = begin(t, "a", "{'startup':512,'dynamic':true,'maximum':2048}");

	fake_memory_answer(vm->id, memory_of(vm, 512, 500, 512));
	assert_int_equal(wait_asked(t, vm, 5000), 600);
	fake_memory_answer(vm->id, memory_of(vm, 512, 500, 600));
	assert_int_equal(vm_memory_assigned(vm), 600);
	for (int i = 0; i < 3; i++)
		fake_event(vm->id, json_pack("{s:s,s:s,s:o}", "event", "memory-refused", "what",
					     "grow", "memory", memory_of(vm, 512, 500, 600)));
	assert_int_equal(vm_memory_assigned(vm), 512);
	assert_int_equal(events_of(t, "vm-memory-refused"), 1);
}

static void test_room_to_grow(void **state)
{
	struct vm_settings s = { .memory = { .startup = 1024, .maximum = 1048576 } };

	(void)state;
	assert_int_equal(vm_memory_most(&s, 64 * 1024), 3912);
	assert_int_equal(vm_memory_most(&s, 2048), 2048);
	assert_int_equal(vm_memory_most(&s, 512), 1024);
	s.memory.startup = 8192;
	assert_int_equal(vm_memory_most(&s, 64 * 1024), 64 * 1024);
	s.memory.dynamic = true;
	s.memory.startup = 1024;
	assert_int_equal(vm_memory_most(&s, 64 * 1024), 64 * 1024);
	assert_int_equal(vm_memory_most(&s, UINT32_MAX), 1048576);
	s.memory.maximum = 2000;
	assert_int_equal(vm_memory_most(&s, 64 * 1024), 2000);
	s.memory.dynamic = false;
	s.memory.locked = true;
	assert_int_equal(vm_memory_most(&s, 64 * 1024), 1024);
}

static void test_the_end_in_the_middle(void **state)
{
	struct test *t = *state;
	struct vm *vm = begin(t, "a", "{'startup':512,'dynamic':true,'maximum':2048}");

	fake_memory_answer(vm->id, memory_of(vm, 512, 500, 512));
	assert_int_equal(wait_asked(t, vm, 5000), 600);
	fake_end(vm->id, WORKER_END_OFF, "");
	assert_int_equal(vm->state, VM_OFF);
	assert_int_equal(vm_memory_assigned(vm), 512);
	test_turn(t);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, test_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_a_guest_that_needs_more_gets_it_soon),
		TEST(test_a_pressed_host_gives_nothing_more),
		TEST(test_a_new_machine_takes_from_those_that_do_not_need_it),
		TEST(test_who_does_not_say_is_left_alone),
		TEST(test_static_memory_is_changed_while_it_runs),
		TEST(test_settings_apply_at_once),
		TEST(test_growth_that_was_refused_is_nobody_s),
		TEST(test_room_to_grow),
		TEST(test_the_end_in_the_middle),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
