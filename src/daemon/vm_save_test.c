// SPDX-License-Identifier: MIT
/*
 * Saved machines, over workers that are what the test says: saving, going on, what is kept and what
 * is not when a worker, the service or the host ends in the middle of it.
 */
#include "daemon/vm_testing.h"

#include "daemon/job.h"
#include "daemon/vm_internal.h"
#include "daemon/vm_saved.h"

#define STARTABLE "'memory':{'startup':32},'boot':{'kernel':'k'}"

static struct job *act(struct vm *vm, enum vm_action action)
{
	struct error err = { 0 };
	struct job *job;

	if (vm_act(vm->daemon, &ada, vm, action, &job, &err) < 0)
		fail_msg("%s", err.message);
	return job;
}

static struct vm *running(struct test *t)
{
	struct vm *vm = make(t, "{'name':'a'," STARTABLE "}");

	act(vm, VM_START);
	fake_state(vm->id, "running");
	return vm;
}

static bool there(const struct vm *vm, const char *name)
{
	char path[512];

	snprintf(path, sizeof(path), "%s/%s", vm->folder, name);
	return !access(path, F_OK);
}

static void put_file(const struct vm *vm, const char *name)
{
	char path[512];

	snprintf(path, sizeof(path), "%s/saved", vm->folder);
	assert_true(!mkdir(path, 0700) || errno == EEXIST);
	snprintf(path, sizeof(path), "%s/%s", vm->folder, name);
	close(open(path, O_CREAT | O_WRONLY, 0600));
}

static struct vm *again(struct test *t)
{
	struct error err = { 0 };
	struct vm *vm;

	test_again(t);
	test_turn(t);
	if (vm_one(t->d, &ada, "a", &vm, &err) < 0)
		fail_msg("%s", err.message);
	return vm;
}

static struct vm *host_restarts(struct test *t)
{
	struct error err = { 0 };

	assert_int_equal(registry_value_set(t->d->db, "boot", "another", &err), 0);
	for (struct list *it = t->d->vms.next; it != &t->d->vms; it = it->next)
		if (fake_runs(list_entry(it, struct vm, node)->id))
			fake_lose(list_entry(it, struct vm, node)->id);
	return again(t);
}

/* The worker does its part. */
static void worker_saves(struct vm *vm)
{
	assert_string_equal(fake_asked(vm->id), "save");
	fake_state(vm->id, "pausing");
	fake_state(vm->id, "paused");
	fake_state(vm->id, "saving");
	assert_int_equal(vm->state, VM_SAVING);
	assert_true(there(vm, "saved/state.partial"));
	fake_state(vm->id, "stopping");
	fake_answer(vm->id, 0, NULL);
	fake_state(vm->id, "off");
	assert_int_equal(vm->state, VM_SAVING);
	fake_end(vm->id, WORKER_END_SAVED, "saved");
}

static struct vm *saved(struct test *t)
{
	struct vm *vm = running(t);

	act(vm, VM_SAVE);
	worker_saves(vm);
	assert_int_equal(vm->state, VM_SAVED);
	return vm;
}

static void worker_restores(struct vm *vm)
{
	json_t *state = json_object_get(fake_description(vm->id), "state");

	assert_string_equal(json_string_value(json_object_get(state, "path")), "saved/state");
	assert_true(json_is_true(json_object_get(state, "hold")));
	assert_int_equal(vm->state, VM_STARTING);
	assert_true(there(vm, "saved/state"));
	fake_state(vm->id, "paused");
	/* Before the guest runs its state is marked as used. */
	assert_false(there(vm, "saved/state"));
	assert_true(there(vm, "saved/state.used"));
	assert_string_equal(fake_asked(vm->id), "resume");
	fake_answer(vm->id, 0, NULL);
	fake_state(vm->id, "running");
	assert_int_equal(vm->state, VM_RUNNING);
	assert_false(there(vm, "saved"));
}

static void test_saved_and_back(void **state)
{
	struct test *t = *state;
	struct vm *vm = running(t);
	struct job *job = act(vm, VM_SAVE);

	assert_string_equal(job->type, "save-vm");
	fake_event(vm->id, quoted("{'event':'saving','percent':42}"));
	assert_int_equal(job->percent, 42);
	worker_saves(vm);
	assert_int_equal(vm->state, VM_SAVED);
	assert_int_equal(job->state, JOB_COMPLETED);
	assert_true(there(vm, "saved/state"));
	assert_false(there(vm, "saved/state.partial"));
	assert_int_equal(events_of(t, "vm-saved"), 1);
	vm = again(t); /* the service */
	assert_int_equal(vm->state, VM_SAVED);
	assert_int_equal(fake_count(), 0);
	vm = host_restarts(t);
	assert_int_equal(vm->state, VM_SAVED); /* it was not the host's end that saved it */
	job = act(vm, VM_START);
	fake_event(vm->id, quoted("{'event':'restoring','percent':7}"));
	assert_int_equal(job->percent, 7);
	worker_restores(vm);
	assert_int_equal(job->state, JOB_COMPLETED);
	assert_int_equal(events_of(t, "vm-started"), 2);
	vm = again(t);
	fake_state(vm->id, "running");
	assert_int_equal(vm->state, VM_RUNNING);
}

static void test_a_save_that_fails_changes_nothing(void **state)
{
	struct test *t = *state;
	struct vm *vm = running(t);
	struct job *job = act(vm, VM_SAVE);

	fake_state(vm->id, "paused");
	fake_state(vm->id, "saving");
	fake_answer(vm->id, -EINVAL, "cannot write the state: No space left on device");
	fake_state(vm->id, "paused");
	fake_state(vm->id, "running");
	assert_int_equal(vm->state, VM_RUNNING);
	assert_int_equal(job->state, JOB_FAILED);
	assert_words(job->error, "No space left");
	assert_false(there(vm, "saved"));
	assert_int_equal(events_of(t, "vm-save-failed"), 1);
	/* A paused one stays paused. */
	act(vm, VM_PAUSE);
	fake_state(vm->id, "paused");
	fake_answer(vm->id, 0, NULL);
	act(vm, VM_SAVE);
	fake_answer(vm->id, -EINVAL, "no");
	assert_int_equal(vm->state, VM_PAUSED);
}

static void test_a_save_can_be_cancelled(void **state)
{
	struct test *t = *state;
	struct vm *vm = running(t);
	struct job *job = act(vm, VM_SAVE);
	struct error err = { 0 };

	assert_int_equal(job_cancel(t->d->jobs, job, &err), 0);
	assert_int_equal(fake_save_cancels(vm->id), 1);
	fake_answer(vm->id, -EINVAL, "it was cancelled");
	assert_int_equal(vm->state, VM_RUNNING);
	assert_int_equal(job->state, JOB_CANCELLED);
	assert_false(there(vm, "saved"));
	assert_int_equal(events_of(t, "vm-save-failed"), 0);
}

static void test_a_worker_that_dies_while_saving(void **state)
{
	struct test *t = *state;
	struct vm *vm = running(t);
	struct job *job = act(vm, VM_SAVE);

	fake_state(vm->id, "saving");
	fake_end(vm->id, WORKER_END_CRASH, "killed by signal 9");
	assert_int_equal(vm->state, VM_CRITICAL); /* by its setting, as ever */
	assert_int_equal(job->state, JOB_FAILED);
	assert_false(there(vm, "saved"));
}

static void test_what_cannot_be_changed_while_saved(void **state)
{
	struct test *t = *state;
	struct vm *vm = saved(t);
	struct error err = { 0 };

	assert_int_equal(change(vm, &ada, "{'memory':{'startup':64}}", 0, &err), -EBADFD);
	assert_words(err, "it is saved");
	assert_int_equal(change(vm, &ada, "{'processors':{'count':2}}", 0, &err), -EBADFD);
	assert_int_equal(change(vm, &ada, "{'notes':'sleeps'}", 0, &err), 0);
}

static void test_the_saved_state_can_be_deleted(void **state)
{
	struct test *t = *state;
	struct vm *vm = saved(t);
	struct job *job = act(vm, VM_DISCARD);
	struct error err = { 0 };

	assert_int_equal(job->state, JOB_COMPLETED);
	assert_int_equal(vm->state, VM_OFF);
	assert_false(there(vm, "saved"));
	assert_int_equal(vm_act(t->d, &ada, vm, VM_DISCARD, &job, &err), -EBADFD);
	assert_int_equal(change(vm, &ada, "{'memory':{'startup':64}}", 0, &err), 0);
	act(vm, VM_START);
	assert_null(json_object_get(fake_description(vm->id), "state"));
}

static void test_a_saved_machine_can_be_removed(void **state)
{
	struct test *t = *state;
	struct vm *vm = saved(t);
	struct error err = { 0 };

	assert_int_equal(vm_remove(t->d, &ada, vm, true, &err), 0);
}

static void test_what_cannot_be_restored_stays_saved(void **state)
{
	struct test *t = *state;
	struct vm *vm = saved(t);
	struct job *job = act(vm, VM_START);

	fake_end(vm->id, WORKER_END_ERROR, "the guest was shown processor features");
	assert_int_equal(vm->state, VM_SAVED);
	assert_int_equal(job->state, JOB_FAILED);
	assert_words(job->error, "processor features");
	assert_true(there(vm, "saved/state"));
	/* A start that is stopped is no other. */
	act(vm, VM_START);
	act(vm, VM_STOP);
	fake_answer(vm->id, 0, NULL);
	fake_end(vm->id, WORKER_END_OFF, "");
	assert_int_equal(vm->state, VM_SAVED);
	act(vm, VM_START);
	worker_restores(vm);
}

static void test_the_service_ends_while_a_worker_saves(void **state)
{
	struct test *t = *state;
	struct vm *vm = running(t);

	act(vm, VM_SAVE);
	fake_state(vm->id, "saving");
	fake_end_unseen(vm->id, WORKER_END_SAVED, "saved");
	vm = again(t);
	assert_int_equal(vm->state, VM_SAVED);
	assert_true(there(vm, "saved/state"));
	act(vm, VM_START);
	worker_restores(vm);
	/* And once more, with a service that comes while it is still at it. */
	act(vm, VM_SAVE);
	fake_state(vm->id, "saving");
	vm = again(t);
	fake_state(vm->id, "saving");
	assert_true(there(vm, "saved/state.partial"));
	fake_end(vm->id, WORKER_END_SAVED, "saved");
	assert_int_equal(vm->state, VM_SAVED);
}

static void test_the_service_ends_while_a_worker_restores(void **state)
{
	struct test *t = *state;
	struct vm *vm = saved(t);

	act(vm, VM_START);
	vm = again(t);
	fake_state(vm->id, "paused"); /* it waits for the service */
	assert_string_equal(fake_asked(vm->id), "resume");
	assert_true(there(vm, "saved/state.used"));
	vm = again(t); /* that has not heard whether it did */
	fake_state(vm->id, "paused");
	assert_string_equal(fake_asked(vm->id), "resume");
	fake_answer(vm->id, 0, NULL);
	fake_state(vm->id, "running");
	assert_int_equal(vm->state, VM_RUNNING);
	assert_false(there(vm, "saved"));
}

/* The guest may have written to its disks since: its old memory would not fit to them. */
static void test_a_state_is_not_used_twice(void **state)
{
	struct test *t = *state;
	struct vm *vm = saved(t);

	act(vm, VM_START);
	fake_state(vm->id, "paused");
	assert_true(there(vm, "saved/state.used"));
	vm = host_restarts(t);
	assert_int_not_equal(vm->state, VM_SAVED);
	assert_false(there(vm, "saved"));
	assert_int_equal(events_of(t, "vm-state-discarded"), 1);
}

static void test_a_save_cut_short_by_the_host_is_nothing(void **state)
{
	struct test *t = *state;
	struct vm *vm = make(t, "{'name':'a'," STARTABLE "}");

	put_file(vm, "saved/state.partial");
	vm = host_restarts(t);
	assert_int_equal(vm->state, VM_OFF);
	assert_false(there(vm, "saved"));
	/* What came with a copied folder counts. */
	put_file(vm, "saved/state");
	vm = again(t);
	assert_int_equal(vm->state, VM_SAVED);
}

/* --- the host's end --- */

static void mark(void *context)
{
	++*(int *)context;
}

static void test_the_host_saves_and_restores(void **state)
{
	struct test *t = *state;
	struct vm *vm = running(t);
	int down = 0;

	daemon_shut_down(t->d, 100, mark, &down);
	worker_saves(vm);
	assert_int_equal(vm->state, VM_SAVED);
	test_turn(t);
	assert_int_equal(down, 1);
	assert_int_equal(events_of(t, "vm-stop-action"), 0);
	vm = host_restarts(t);
	assert_int_equal(vm->state, VM_STARTING);
	worker_restores(vm);
}

static void test_the_host_powers_off_what_cannot_be_saved(void **state)
{
	struct test *t = *state;
	struct vm *vm = running(t);
	int down = 0;

	daemon_shut_down(t->d, 100, mark, &down);
	fake_answer(vm->id, -EINVAL, "the device gadget cannot be saved");
	assert_string_equal(fake_asked(vm->id), "power-off");
	fake_answer(vm->id, 0, NULL);
	fake_end(vm->id, WORKER_END_OFF, "");
	test_turn(t);
	assert_int_equal(down, 1);
	assert_int_equal(vm->state, VM_OFF);
	assert_int_equal(events_of(t, "vm-stop-action"), 1);
}

static void test_the_host_does_not_wait_for_ever(void **state)
{
	struct test *t = *state;
	struct vm *vm = running(t);
	int down = 0;

	daemon_shut_down(t->d, 100, mark, &down);
	assert_string_equal(fake_asked(vm->id), "save");
	t->d->index->save_deadline.fn(&t->d->index->save_deadline); /* 75 s later */
	assert_string_equal(fake_asked(vm->id), "power-off");
	assert_int_equal(vm->state, VM_STOPPING);
	fake_answer(vm->id, 0, NULL);
	fake_end(vm->id, WORKER_END_OFF, "");
	test_turn(t);
	assert_int_equal(down, 1);
	assert_false(there(vm, "saved"));
	assert_int_equal(events_of(t, "vm-stop-action"), 1);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, test_setup, test_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_saved_and_back),
		TEST(test_a_save_that_fails_changes_nothing),
		TEST(test_a_save_can_be_cancelled),
		TEST(test_a_worker_that_dies_while_saving),
		TEST(test_what_cannot_be_changed_while_saved),
		TEST(test_the_saved_state_can_be_deleted),
		TEST(test_a_saved_machine_can_be_removed),
		TEST(test_what_cannot_be_restored_stays_saved),
		TEST(test_the_service_ends_while_a_worker_saves),
		TEST(test_the_service_ends_while_a_worker_restores),
		TEST(test_a_state_is_not_used_twice),
		TEST(test_a_save_cut_short_by_the_host_is_nothing),
		TEST(test_the_host_saves_and_restores),
		TEST(test_the_host_powers_off_what_cannot_be_saved),
		TEST(test_the_host_does_not_wait_for_ever),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
