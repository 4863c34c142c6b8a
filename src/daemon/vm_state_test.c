// SPDX-License-Identifier: MIT
/* Every pair of state and action, against a list of what is allowed that is written another way. */
#include "daemon/vm_state.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* "state action under-way end": all that is allowed. */
static const char *const allowed[] = {
	"off start starting running",
	"saved start starting running",
	"critical start starting running",
	"paused start resuming running",
	"paused resume resuming running",
	"running pause pausing paused",
	"running save saving saved",
	"paused save saving saved",
	"running reset resetting running",
	"paused reset resetting running",
	"running shut-down stopping off",
	"running stop stopping off",
	"starting stop stopping off",
	"pausing stop stopping off",
	"paused stop stopping off",
	"resuming stop stopping off",
	"resetting stop stopping off",
	"stopping stop stopping off",
	"critical stop stopping off",
	"paused-critical stop stopping off",
	"paused-critical reset resetting running",
	"running restart resetting running",
	"saved discard stopping off",
};

static const char *row_of(enum vm_state from, enum vm_action a)
{
	char key[64];
	size_t n = (size_t)snprintf(key, sizeof(key), "%s %s ", vm_state_name(from),
				    vm_action_name(a));

	for (size_t i = 0; i < ARRAY_SIZE(allowed); i++)
		if (!strncmp(allowed[i], key, n))
			return allowed[i] + n;
	return NULL;
}

static void test_every_action_in_every_state(void **state)
{
	unsigned found = 0;

	(void)state;
	for (enum vm_state s = 0; s < VM_STATE_COUNT; s++) {
		for (enum vm_action a = 0; a < VM_ACTION_COUNT; a++) {
			const char *expected = row_of(s, a);
			enum vm_state next = VM_STATE_COUNT;
			struct error err = { 0 };
			char got[64];
			int r = vm_state_next(s, a, &next, &err);

			if (!expected) {
				assert_int_equal(r, -EBADFD);
				assert_int_equal(next, VM_STATE_COUNT);
				assert_non_null(strstr(err.message, vm_state_name(s)));
				assert_non_null(strstr(err.message, vm_action_name(a)));
				continue;
			}
			found++;
			assert_int_equal(r, 0);
			snprintf(got, sizeof(got), "%s %s", vm_state_name(next),
				 vm_state_name(vm_state_end(next)));
			assert_string_equal(got, expected);
		}
	}
	assert_int_equal(found, ARRAY_SIZE(allowed));
}

static void test_a_refusal_lists_what_is_allowed(void **state)
{
	struct error err = { 0 };
	enum vm_state next;

	(void)state;
	assert_int_equal(vm_state_next(VM_PAUSED, VM_PAUSE, &next, &err), -EBADFD);
	assert_string_equal(err.message, "cannot pause while it is paused; allowed now: start, "
					 "stop, resume, save, reset");
	assert_int_equal(vm_state_next(VM_SAVING, VM_STOP, &next, &err), -EBADFD);
	assert_string_equal(err.message,
			    "cannot stop while it is saving; wait until that has ended");
}

static void test_states_under_way_end_in_steady_ones(void **state)
{
	unsigned steady = 0;

	(void)state;
	for (enum vm_state s = 0; s < VM_STATE_COUNT; s++) {
		assert_true(vm_state_steady(vm_state_end(s)));
		steady += vm_state_steady(s);
		/* What is under way is done by a process. */
		assert_true(vm_state_steady(s) || vm_state_has_worker(s));
	}
	assert_int_equal(steady, 6);
	assert_true(vm_state_has_worker(VM_RUNNING));
	assert_true(vm_state_has_worker(VM_PAUSED));
	assert_false(vm_state_has_worker(VM_OFF));
	assert_false(vm_state_has_worker(VM_SAVED));
	assert_false(vm_state_has_worker(VM_CRITICAL));
}

static void test_names_and_codes_are_distinct(void **state)
{
	enum vm_action found;

	(void)state;
	for (enum vm_state s = 0; s < VM_STATE_COUNT; s++) {
		for (enum vm_state t = 0; t < s; t++) {
			assert_string_not_equal(vm_state_name(s), vm_state_name(t));
			assert_int_not_equal(vm_state_hyperv(s), vm_state_hyperv(t));
		}
	}
	assert_int_equal(vm_state_hyperv(VM_RUNNING), 2);
	assert_int_equal(vm_state_hyperv(VM_OFF), 3);
	for (enum vm_action a = 0; a < VM_ACTION_COUNT; a++) {
		assert_int_equal(vm_action_find(vm_action_name(a), &found), 0);
		assert_int_equal(found, a);
	}
	assert_int_equal(vm_action_find("explode", &found), -ENOENT);
	assert_int_equal(vm_action_find("", &found), -ENOENT);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_action_in_every_state),
		cmocka_unit_test(test_a_refusal_lists_what_is_allowed),
		cmocka_unit_test(test_states_under_way_end_in_steady_ones),
		cmocka_unit_test(test_names_and_codes_are_distinct),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
