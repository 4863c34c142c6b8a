// SPDX-License-Identifier: MIT
/*
 * Machines that run, over workers that are what the test says (fake_supervisor.h): actions and
 * their jobs, ends of all sorts, restarts of the service and of the host.
 */
#include "daemon/vm_testing.h"

#include "daemon/vm_internal.h"

#define STARTABLE "'memory':{'startup':32},'boot':{'kernel':'k'}"

static struct job *act(struct vm *vm, enum vm_action action)
{
	struct error err = { 0 };
	struct job *job;

	if (vm_act(vm->daemon, &ada, vm, action, &job, &err) < 0)
		fail_msg("%s", err.message);
	return job;
}

static void assert_refused(struct vm *vm, enum vm_action action, int code, const char *words)
{
	struct error err = { 0 };
	struct job *job;

	assert_int_equal(vm_act(vm->daemon, &ada, vm, action, &job, &err), code);
	assert_words(err, words);
}

static struct vm *make_running(struct test *t, const char *settings)
{
	struct vm *vm = make(t, settings);

	act(vm, VM_START);
	fake_state(vm->id, "starting");
	fake_state(vm->id, "running");
	assert_int_equal(vm->state, VM_RUNNING);
	return vm;
}

static struct vm *running(struct test *t)
{
	return make_running(t, "{'name':'a'," STARTABLE "}");
}

/* A host that was restarted: its boot has another id. */
static void host_restarts(struct test *t)
{
	struct error err = { 0 };

	assert_int_equal(registry_value_set(t->d->db, "boot", "another", &err), 0);
	for (struct list *it = t->d->vms.next; it != &t->d->vms; it = it->next)
		if (fake_runs(list_entry(it, struct vm, node)->id))
			fake_lose(list_entry(it, struct vm, node)->id);
	test_again(t);
	test_turn(t);
}

static struct vm *named(struct test *t, const char *name)
{
	struct error err = { 0 };
	struct vm *vm;

	if (vm_one(t->d, &ada, name, &vm, &err) < 0)
		fail_msg("%s", err.message);
	return vm;
}

/* --- the usual --- */

static void test_a_life(void **state)
{
	struct test *t = *state;
	struct vm *vm = make(t, "{'name':'a','processors':{'count':2,'limit':50}," STARTABLE "}");
	struct job *job = act(vm, VM_START);
	json_t *json;

	assert_int_equal(vm->state, VM_STARTING);
	assert_int_equal(job->state, JOB_RUNNING);
	assert_string_equal(job->type, "start-vm");
	assert_string_equal(job->vm, vm->id);
	assert_int_equal(fake_limits(vm->id).cpu_limit, 50);
	assert_int_equal(fake_limits(vm->id).cpu_count, 2);
	assert_int_equal(
		json_integer_value(json_object_get(fake_description(vm->id), "processors")), 2);
	fake_state(vm->id, "starting");
	assert_int_equal(vm->state, VM_STARTING);
	fake_state(vm->id, "running");
	assert_int_equal(vm->state, VM_RUNNING);
	assert_int_equal(job->state, JOB_COMPLETED);
	assert_null(vm->job);
	json = vm_json(vm);
	assert_string_equal(json_string_value(json_object_get(json, "state")), "running");
	assert_int_equal(json_integer_value(json_object_get(json, "hyperv_state")), 2);
	assert_int_equal(json_array_size(json_object_get(json, "allowed")), 6);
	assert_true(json_is_integer(json_object_get(json_object_get(json, "status"), "pid")));
	json_decref(json);

	job = act(vm, VM_PAUSE);
	assert_int_equal(vm->state, VM_PAUSING);
	assert_string_equal(fake_asked(vm->id), "pause");
	fake_state(vm->id, "pausing");
	fake_answer(vm->id, 0, NULL);
	assert_int_equal(job->state, JOB_RUNNING);
	fake_state(vm->id, "paused");
	assert_int_equal(vm->state, VM_PAUSED);
	assert_int_equal(job->state, JOB_COMPLETED);

	job = act(vm, VM_START); /* goes on */
	assert_string_equal(fake_asked(vm->id), "resume");
	fake_state(vm->id, "running");
	fake_answer(vm->id, 0, NULL);
	assert_int_equal(vm->state, VM_RUNNING);
	assert_int_equal(job->state, JOB_COMPLETED);

	job = act(vm, VM_RESET);
	assert_string_equal(fake_asked(vm->id), "reset");
	fake_state(vm->id, "resetting");
	fake_answer(vm->id, 0, NULL);
	assert_int_equal(vm->state, VM_RESETTING);
	fake_state(vm->id, "running");
	assert_int_equal(job->state, JOB_COMPLETED);

	job = act(vm, VM_STOP);
	assert_string_equal(fake_asked(vm->id), "power-off");
	fake_answer(vm->id, 0, NULL);
	fake_state(vm->id, "stopping");
	fake_state(vm->id, "off");
	assert_int_equal(job->state, JOB_RUNNING);
	fake_end(vm->id, WORKER_END_OFF, "");
	assert_int_equal(vm->state, VM_OFF);
	assert_int_equal(job->state, JOB_COMPLETED);
	assert_int_equal(fake_count(), 0);
	assert_int_equal(events_of(t, "vm-started"), 1);
	assert_int_equal(events_of(t, "vm-stopped"), 1);
	assert_int_equal(events_of(t, "start-vm"), 2); /* the audit's */
}

static void test_what_a_state_does_not_allow(void **state)
{
	struct test *t = *state;
	struct vm *vm = make(t, "{'name':'a'," STARTABLE "}");
	struct error err = { 0 };

	assert_refused(vm, VM_PAUSE, -EBADFD, "cannot pause while it is off; allowed now: start");
	assert_refused(vm, VM_STOP, -EBADFD, "cannot stop while it is off");
	act(vm, VM_START);
	assert_refused(vm, VM_START, -EBADFD, "while it is starting");
	assert_refused(vm, VM_PAUSE, -EBADFD, "while it is starting");
	fake_state(vm->id, "running");
	assert_int_equal(vm_remove(t->d, &ada, vm, true, &err), -EBADFD);
	assert_words(err, "stop it first");
}

static void assert_job(const struct job *job, enum job_state state, const char *words)
{
	assert_int_equal(job->state, state);
	assert_non_null(strstr(job->error.message, words));
}

static struct job *shut_down(struct test *t, struct vm *vm, struct vm_shut_down how)
{
	struct error err = { 0 };
	struct job *job;

	assert_int_equal(vm_shut_down(t->d, &ada, vm, &how, &job, &err), 0);
	assert_string_equal(fake_asked(vm->id), "guest-shutdown");
	return job;
}

/* A second of waiting passes at once. */
static void second(struct test *t, struct vm *vm)
{
	loop_timer_arm(&entry_of(vm)->timer, 1);
	test_turn(t);
}

static void test_a_guest_is_asked_to_shut_down(void **state)
{
	struct test *t = *state;
	struct vm *vm = running(t);
	struct job *job = shut_down(t, vm, (struct vm_shut_down){ 0 });

	assert_int_equal(vm->state, VM_STOPPING);
	fake_answer(vm->id, 0, NULL);
	assert_int_equal(vm->state, VM_STOPPING);
	second(t, vm);
	fake_state(vm->id, "stopping");
	fake_end(vm->id, WORKER_END_OFF, "");
	assert_int_equal(vm->state, VM_OFF);
	assert_int_equal(job->state, JOB_COMPLETED);
}

static void test_a_guest_refuses_or_does_not_shut_down(void **state)
{
	struct test *t = *state;
	struct vm *vm = running(t);
	struct job *job = shut_down(t, vm, (struct vm_shut_down){ 0 });

	fake_answer(vm->id, -EINVAL, "the guest refused to");
	assert_int_equal(vm->state, VM_RUNNING);
	assert_job(job, JOB_FAILED, "the guest refused to; it runs on: ask again, or turn it off");
	job = shut_down(t, vm, (struct vm_shut_down){ .timeout_s = 3 });
	fake_answer(vm->id, 0, NULL);
	second(t, vm);
	second(t, vm);
	assert_int_equal(job->state, JOB_RUNNING);
	assert_int_equal(job->percent, 66);
	second(t, vm);
	assert_int_equal(vm->state, VM_RUNNING);
	assert_job(job, JOB_FAILED, "has not within 3 s; it runs on");
	/* Turned off when it does not, and when somebody does not want to wait. */
	job = shut_down(t, vm, (struct vm_shut_down){ .timeout_s = 1, .turn_off = true });
	fake_answer(vm->id, 0, NULL);
	second(t, vm);
	assert_string_equal(fake_asked(vm->id), "power-off");
	fake_end(vm->id, WORKER_END_OFF, "");
	assert_int_equal(job->state, JOB_COMPLETED);
	assert_int_equal(events_of(t, "guest-declined"), 1);
	act(vm, VM_START);
	fake_state(vm->id, "running");
	job = shut_down(t, vm, (struct vm_shut_down){ 0 });
	fake_answer(vm->id, 0, NULL);
	act(vm, VM_STOP);
	assert_job(job, JOB_CANCELLED, "stopped meanwhile");
	assert_string_equal(fake_asked(vm->id), "power-off");
	fake_end(vm->id, WORKER_END_OFF, "");
	assert_int_equal(vm->state, VM_OFF);
}

static void test_a_guest_is_asked_to_restart(void **state)
{
	struct test *t = *state;
	struct vm *vm = running(t);
	struct job *job = shut_down(t, vm, (struct vm_shut_down){ .restart = true });

	assert_int_equal(vm->state, VM_RESETTING);
	fake_answer(vm->id, 0, NULL);
	fake_state(vm->id, "running"); /* it has not begun yet */
	assert_int_equal(job->state, JOB_RUNNING);
	fake_state(vm->id, "resetting");
	fake_state(vm->id, "running");
	assert_int_equal(vm->state, VM_RUNNING);
	assert_int_equal(job->state, JOB_COMPLETED);
	job = shut_down(t, vm, (struct vm_shut_down){ .restart = true, .turn_off = true });
	fake_answer(vm->id, -EINVAL, "the guest has not opened the service");
	assert_string_equal(fake_asked(vm->id), "reset");
	fake_state(vm->id, "resetting");
	fake_state(vm->id, "running");
	assert_int_equal(job->state, JOB_COMPLETED);
}

static json_t *guest_status(struct vm *vm)
{
	json_t *json = vm_json(vm);
	json_t *guest = json_incref(json_object_get(json_object_get(json, "status"), "guest"));

	json_decref(json);
	return guest;
}

static void test_what_a_guest_says_is_told(void **state)
{
	struct test *t = *state;
	struct vm *vm = running(t);
	json_t *event, *guest;

	event = json_pack("{s:s,s:s,s:s}", "event", "guest-heartbeat", "state", "ok", "application",
			  "healthy");
	fake_event(vm->id, event);
	event = json_pack("{s:s,s:b,s:{s:s,s:s,s:s,s:i}}", "event", "guest-info", "known", true,
			  "items", "FullyQualifiedDomainName", "web.example", "NetworkAddressIPv4",
			  "10.0.0.7;10.0.0.8;10.0.0.7", "NetworkAddressIPv6", "fe80::1", "OSName",
			  7);
	fake_event(vm->id, event);
	guest = guest_status(vm);
	assert_string_equal(json_string_value(json_object_get(guest, "heartbeat")), "ok");
	assert_string_equal(json_string_value(json_object_get(guest, "name")), "web.example");
	assert_true(json_is_null(json_object_get(guest, "os")));
	assert_int_equal(json_array_size(json_object_get(guest, "addresses")), 3);
	json_decref(guest);
	event = json_pack("{s:s,s:s}", "event", "guest-heartbeat", "state", "lost");
	fake_event(vm->id, event);
	assert_int_equal(events_of(t, "guest-lost"), 1);
	fake_end(vm->id, WORKER_END_OFF, "");
	guest = guest_status(vm);
	assert_null(guest);
}

static void test_a_service_is_switched_at_once(void **state)
{
	struct test *t = *state;
	struct vm *vm = running(t);
	struct error err = { 0 };

	assert_int_equal(change(vm, &ada, "{'integration_services':{'vss':false}}", 0, &err), 0);
	assert_string_equal(fake_guest_asked(vm->id), "service-set");
	test_turn(t);
	assert_int_equal(events_of(t, "guest-service-failed"), 1); /* as it is refused here */
}

static void test_what_cannot_start(void **state)
{
	struct test *t = *state;
	struct vm *vm = make(t, "{'name':'a','security':{'tpm':true}," STARTABLE "}");
	struct error err = { 0 };

	assert_refused(vm, VM_START, -EOPNOTSUPP, "no virtual TPM");
	assert_int_equal(
		change(vm, &ada, "{'security':null,'memory':{'startup':16777000}}", 0, &err), 0);
	assert_refused(vm, VM_START, -EOPNOTSUPP, "1 TiB");
	assert_int_equal(change(vm, &ada, "{'memory':{'startup':1048576}}", 0, &err), 0);
	assert_refused(vm, VM_START, -ENOMEM, "needs 1048608 MiB");
	assert_int_equal(change(vm, &ada, "{'memory':{'startup':32}}", 0, &err), 0);
	fake_refuse_starts(-ENOENT, "k: no such file");
	assert_refused(vm, VM_START, -ENOENT, "no such file");
	assert_int_equal(vm->state, VM_OFF);
	assert_null(vm->job);
	assert_int_equal(events_of(t, "vm-start-failed"), 1);
	fake_refuse_starts(0, NULL);
	test_again(t); /* nothing is thought to run */
	assert_int_equal(only(t)->state, VM_OFF);
	act(only(t), VM_START);
}

static void test_a_worker_that_refuses(void **state)
{
	struct test *t = *state;
	struct vm *vm = running(t);
	struct job *job = act(vm, VM_PAUSE);

	fake_answer(vm->id, -EINVAL, "not now");
	assert_int_equal(vm->state, VM_RUNNING);
	assert_int_equal(job->state, JOB_FAILED);
	assert_string_equal(job->error.message, "not now");
	act(vm, VM_PAUSE);
	fake_state(vm->id, "paused");
	assert_int_equal(vm->state, VM_PAUSED);
}

static void test_stopping_overtakes(void **state)
{
	struct test *t = *state;
	struct vm *vm = running(t);
	struct job *reset = act(vm, VM_RESET), *stop;

	fake_state(vm->id, "resetting");
	stop = act(vm, VM_STOP);
	assert_int_equal(reset->state, JOB_CANCELLED);
	assert_string_equal(fake_asked(vm->id), "power-off");
	/* In a reset the worker does not listen to that. */
	fake_answer(vm->id, -EINVAL, "it is resetting");
	assert_int_equal(vm->state, VM_STOPPING);
	fake_state(vm->id, "running");
	assert_string_equal(fake_asked(vm->id), "power-off");
	assert_int_equal(vm->state, VM_STOPPING);
	assert_ptr_equal(act(vm, VM_STOP), stop); /* once more is the same */
	fake_end(vm->id, WORKER_END_OFF, "");
	assert_int_equal(stop->state, JOB_COMPLETED);
	assert_int_equal(vm->state, VM_OFF);
}

static void test_one_that_does_not_stop_is_killed(void **state)
{
	struct test *t = *state;
	struct vm *vm = running(t);
	struct job *job = act(vm, VM_STOP);

	assert_int_equal(entry_of(vm)->timer_use, VM_TIMER_STOP);
	entry_of(vm)->timer.fn(&entry_of(vm)->timer);
	assert_int_equal(fake_kills(vm->id), 1);
	fake_end(vm->id, WORKER_END_CRASH, "killed");
	assert_int_equal(vm->state, VM_OFF);
	assert_int_equal(job->state, JOB_COMPLETED);
	assert_int_equal(events_of(t, "vm-failed"), 0);
	assert_int_equal(events_of(t, "vm-killed"), 1);
}

static void test_the_guests_own_doings(void **state)
{
	struct test *t = *state;
	struct vm *vm = running(t);

	fake_state(vm->id, "resetting");
	assert_int_equal(vm->state, VM_RESETTING);
	fake_state(vm->id, "running");
	assert_int_equal(vm->state, VM_RUNNING);
	assert_int_equal(events_of(t, "vm-reset"), 1);
	fake_state(vm->id, "nonsense");
	assert_int_equal(vm->state, VM_RUNNING);
	fake_state(vm->id, "stopping");
	fake_end(vm->id, WORKER_END_OFF, "");
	assert_int_equal(vm->state, VM_OFF);
	assert_int_equal(events_of(t, "vm-failed"), 0);
	assert_int_equal(events_of(t, "vm-stopped"), 1);
}

static void test_limits_change_while_it_runs(void **state)
{
	struct test *t = *state;
	struct vm *vm = running(t);
	struct error err = { 0 };

	assert_int_equal(change(vm, &ada, "{'processors':{'limit':25,'weight':200}}", 0, &err), 0);
	assert_int_equal(fake_limits(vm->id).cpu_limit, 25);
	assert_int_equal(fake_limits(vm->id).cpu_weight, 200);
	assert_int_equal(change(vm, &ada, "{'memory':{'host_maximum':2048}}", 0, &err), 0);
	assert_true(fake_limits(vm->id).memory_max == 2048 * MIB);
	assert_int_equal(change(vm, &ada, "{'memory':{'host_maximum':16}}", 0, &err), -EINVAL);
	assert_string_equal(err.property, "memory.host_maximum");
	assert_int_equal(change(vm, &ada, "{'notes':'any time'}", 0, &err), 0);
	assert_int_equal(change(vm, &ada, "{'processors':{'count':2}}", 0, &err), -EBADFD);
	assert_words(err, "only while it is off, and it is running");
	assert_string_equal(err.property, "processors.count");
	fake_limits_refused(-EOPNOTSUPP);
	assert_int_equal(change(vm, &ada, "{'processors':{'limit':26}}", 0, &err), -EOPNOTSUPP);
	assert_int_equal(vm->settings.processors.limit, 25);
	/* What could not be served later is not taken either. */
	assert_int_equal(change(vm, &ada, "{'network_adapters':[]}", 0, &err), 0);
	assert_int_equal(change(vm, &ada, "{'memory':{'minimum':64}}", 0, &err), 0);
}

/* --- failures --- */

static void fail_running(struct vm *vm)
{
	fake_end(vm->id, WORKER_END_CRASH, "killed by signal 11");
}

static void test_a_failure_by_each_setting(void **state)
{
	struct test *t = *state;
	struct vm *none =
		make_running(t, "{'name':'n','automatic':{'critical_error':'none'}," STARTABLE "}");
	struct vm *pause = make_running(t, "{'name':'p'," STARTABLE "}");
	struct job *job;

	fail_running(none);
	assert_int_equal(none->state, VM_OFF);
	fail_running(pause);
	assert_int_equal(pause->state, VM_CRITICAL);
	assert_string_equal(pause->state_words, "killed by signal 11");
	assert_int_equal(events_of(t, "vm-failed"), 2);
	test_again(t);
	pause = named(t, "p");
	assert_int_equal(pause->state, VM_CRITICAL);
	assert_string_equal(pause->state_words, "killed by signal 11");
	assert_int_equal(named(t, "n")->state, VM_OFF);
	assert_int_equal(change(pause, &ada, "{'memory':{'startup':40}}", 0, NULL), 0);
	job = act(pause, VM_STOP);
	assert_int_equal(pause->state, VM_OFF);
	assert_string_equal(pause->state_words, "");
	assert_int_equal(job->state, JOB_COMPLETED);
	test_again(t);
	assert_int_equal(named(t, "p")->state, VM_OFF);
}

static void fire(struct vm *vm)
{
	assert_int_equal(entry_of(vm)->timer_use, VM_TIMER_RESTART);
	loop_timer_disarm(&entry_of(vm)->timer);
	entry_of(vm)->timer.fn(&entry_of(vm)->timer);
}

static void test_restarts_back_off(void **state)
{
	static const unsigned delays[] = { 1, 2, 4, 8, 16, 32, 64, 128, 300, 300 };
	struct test *t = *state;
	struct vm *vm = make_running(
		t, "{'name':'a','automatic':{'critical_error':'restart'}," STARTABLE "}");

	for (size_t i = 0; i < ARRAY_SIZE(delays); i++) {
		char words[64];
		uint64_t delay;

		fail_running(vm);
		assert_int_equal(vm->state, VM_CRITICAL);
		snprintf(words, sizeof(words), "killed by signal 11; it is started again in %u s",
			 delays[i]);
		assert_string_equal(vm->state_words, words);
		delay = entry_of(vm)->timer.deadline - loop_now(t->loop);
		assert_int_equal(delay / 1000000000, delays[i]);
		fire(vm);
		assert_int_equal(vm->state, VM_STARTING);
		/* Sometimes it does not even come to run. */
		if (i % 2)
			fake_state(vm->id, "running");
	}
	fake_state(vm->id, "running");
	/* It ran for long: the next failure is a first one. */
	vm->started_boot -= 11 * 60 * 1000;
	fail_running(vm);
	assert_non_null(strstr(vm->state_words, "in 1 s"));
	/* A person is quicker, or has enough of it. */
	act(vm, VM_START);
	assert_int_equal(entry_of(vm)->timer_use, VM_TIMER_NONE);
	fake_state(vm->id, "running");
	fail_running(vm);
	act(vm, VM_STOP);
	assert_int_equal(vm->state, VM_OFF);
	assert_int_equal(entry_of(vm)->timer_use, VM_TIMER_NONE);
}

static void test_a_restart_that_is_refused_is_tried_again(void **state)
{
	struct test *t = *state;
	struct vm *vm = make_running(
		t, "{'name':'a','automatic':{'critical_error':'restart'}," STARTABLE "}");

	fail_running(vm);
	fake_refuse_starts(-EIO, "the disk is gone");
	fire(vm);
	assert_int_equal(vm->state, VM_CRITICAL);
	assert_string_equal(vm->state_words, "the disk is gone; it is started again in 2 s");
	fake_refuse_starts(0, NULL);
	fire(vm);
	assert_int_equal(vm->state, VM_STARTING);
	/* Over a restart of the service too. */
	fake_state(vm->id, "running");
	fail_running(vm);
	test_again(t);
	vm = only(t);
	assert_int_equal(vm->state, VM_CRITICAL);
	fire(vm);
	assert_int_equal(vm->state, VM_STARTING);
}

/* --- storage --- */

static void lose_storage(struct vm *vm)
{
	fake_event(vm->id, json_pack("{s:s,s:{s:i,s:i},s:s,s:s}", "event", "storage-lost", "disk",
				     "controller", 0, "lun", 3, "file", "/srv/web.vhdx", "error",
				     "No space left on device"));
	fake_state(vm->id, "pausing");
	fake_state(vm->id, "paused-critical");
}

static void test_one_that_waits_for_its_storage_runs_on(void **state)
{
	struct test *t = *state;
	struct vm *vm = running(t);

	lose_storage(vm);
	assert_int_equal(vm->state, VM_PAUSED_CRITICAL);
	assert_string_equal(vm->state_words,
			    "drive 0:3, /srv/web.vhdx: No space left on device; it runs on when "
			    "that is mended, or is off in 30 min");
	assert_int_equal(entry_of(vm)->timer_use, VM_TIMER_STORAGE);
	assert_int_equal((entry_of(vm)->timer.deadline - loop_now(t->loop)) / 60000000000, 30);
	assert_refused(vm, VM_RESUME, -EBADFD, "while it is paused-critical");
	fake_event(vm->id, json_pack("{s:s,s:{s:i,s:i}}", "event", "storage-back", "disk",
				     "controller", 0, "lun", 3));
	fake_state(vm->id, "running");
	assert_int_equal(vm->state, VM_RUNNING);
	assert_string_equal(vm->state_words, "");
	assert_int_equal(entry_of(vm)->timer_use, VM_TIMER_NONE);
	assert_int_equal(events_of(t, "vm-storage-lost"), 1);
	assert_int_equal(events_of(t, "vm-paused-critical"), 1);
	assert_int_equal(events_of(t, "vm-storage-back"), 1);
}

static void test_one_whose_storage_stays_away_is_turned_off(void **state)
{
	struct test *t = *state;
	struct vm *vm = make_running(
		t, "{'name':'a','automatic':{'critical_error_timeout':2}," STARTABLE "}");

	lose_storage(vm);
	/* The next service takes it over, and it has its time again. */
	test_again(t);
	vm = only(t);
	fake_state(vm->id, "paused-critical");
	assert_int_equal(vm->state, VM_PAUSED_CRITICAL);
	assert_string_equal(vm->state_words, "its storage cannot be used; it runs on when that is "
					     "mended, or is off in 2 min");
	assert_int_equal((entry_of(vm)->timer.deadline - loop_now(t->loop)) / 1000000000, 120);
	loop_timer_disarm(&entry_of(vm)->timer);
	entry_of(vm)->timer.fn(&entry_of(vm)->timer);
	assert_int_equal(vm->state, VM_STOPPING);
	assert_string_equal(fake_asked(vm->id), "power-off");
	fake_answer(vm->id, 0, "");
	fake_end(vm->id, WORKER_END_OFF, "");
	assert_int_equal(vm->state, VM_OFF);
	assert_int_equal(events_of(t, "vm-storage-timeout"), 1);
}

/* An action that was under way when it happened has failed, and says why. */
static void test_storage_that_is_lost_ends_what_is_under_way(void **state)
{
	struct test *t = *state;
	struct vm *vm = running(t);
	struct job *job = act(vm, VM_RESET);

	lose_storage(vm);
	assert_int_equal(vm->state, VM_PAUSED_CRITICAL);
	assert_int_equal(job->state, JOB_FAILED);
	assert_non_null(strstr(job->error.message, "No space left on device"));
	job = act(vm, VM_STOP);
	assert_int_equal(vm->state, VM_STOPPING);
	assert_int_equal(entry_of(vm)->timer_use, VM_TIMER_STOP);
	fake_state(vm->id, "stopping");
	fake_end(vm->id, WORKER_END_OFF, "");
	assert_int_equal(job->state, JOB_COMPLETED);
}

static void test_one_that_never_ran_is_off(void **state)
{
	struct test *t = *state;
	struct vm *vm =
		make(t, "{'name':'a','automatic':{'critical_error':'restart'}," STARTABLE "}");
	struct job *job = act(vm, VM_START);

	fake_end(vm->id, WORKER_END_ERROR, "no engine can be used here");
	assert_int_equal(vm->state, VM_OFF);
	assert_int_equal(job->state, JOB_FAILED);
	assert_string_equal(job->error.message, "no engine can be used here");
	job = act(vm, VM_START);
	fake_end(vm->id, WORKER_END_OFF, "");
	assert_int_equal(job->state, JOB_CANCELLED);
	assert_int_equal(vm->state, VM_OFF);
}

/* --- clocks --- */

static json_int_t uptime_of(struct vm *vm)
{
	json_t *json = vm_json(vm);
	json_int_t up =
		json_integer_value(json_object_get(json_object_get(json, "status"), "uptime_s"));

	json_decref(json);
	return up;
}

/* Years forth and back, while it runs and over a restart of the service. */
static void test_a_clock_that_is_set_changes_no_duration(void **state)
{
	static const int64_t years[] = { INT64_C(20) * 365 * 86400000,
					 INT64_C(-20) * 365 * 86400000, 0 };
	struct test *t = *state;
	struct vm *vm = make_running(
		t, "{'name':'a','automatic':{'critical_error':'restart'}," STARTABLE "}");
	struct job *job;

	for (size_t i = 0; i < ARRAY_SIZE(years); i++) {
		time_shift(years[i]);
		assert_in_range(uptime_of(vm), 0, 600);
		/* it has not run for ten minutes, whatever the clock says */
		fail_running(vm);
		fire(vm);
		fake_state(vm->id, "running");
		assert_int_equal(entry_of(vm)->failures, i + 1);
		job = act(vm, VM_PAUSE);
		time_shift(years[(i + 1) % ARRAY_SIZE(years)]);
		fake_state(vm->id, "paused");
		assert_true(job->ended >= job->begun);
		job = act(vm, VM_RESUME);
		fake_state(vm->id, "running");
		assert_int_equal(job->state, JOB_COMPLETED);
	}
	time_shift(years[1]);
	test_again(t);
	vm = only(t);
	fake_state(vm->id, "running");
	assert_true(uptime_of(vm) >= 0);
	assert_true(uptime_of(vm) <= time_boot_ms() / 1000);
	time_shift(0);
}

/* --- restarts of the service --- */

static void test_workers_are_taken_over(void **state)
{
	struct test *t = *state;
	struct vm *vm = running(t);
	int64_t started = vm->started;
	struct job *job;

	act(vm, VM_PAUSE); /* under way when the service dies */
	test_again(t);
	vm = only(t);
	assert_non_null(vm->worker);
	assert_int_equal(vm->started, started);
	assert_int_equal(fake_count(), 1);
	fake_state(vm->id, "paused");
	assert_int_equal(vm->state, VM_PAUSED);
	assert_int_equal(events_of(t, "vm-adopted"), 1);
	list_foreach(it, jobs_list(t->d->jobs))
		assert_int_not_equal(list_entry(it, struct job, node)->state, JOB_RUNNING);
	act(vm, VM_RESUME);
	fake_state(vm->id, "running");
	job = act(vm, VM_STOP);
	fake_end(vm->id, WORKER_END_OFF, "");
	assert_int_equal(job->state, JOB_COMPLETED);
}

static void test_one_that_ends_before_it_says_anything(void **state)
{
	struct test *t = *state;

	running(t);
	test_again(t);
	fake_end(only(t)->id, WORKER_END_CRASH, "killed");
	assert_int_equal(only(t)->state, VM_CRITICAL);
	assert_string_equal(only(t)->state_words, "killed");
}

static void test_what_ended_meanwhile(void **state)
{
	struct test *t = *state;
	struct vm *crashed = make_running(t, "{'name':'crashed'," STARTABLE "}");
	struct vm *off = make_running(t, "{'name':'off'," STARTABLE "}");
	struct vm *lost = make_running(t, "{'name':'lost'," STARTABLE "}");

	fake_end_unseen(crashed->id, WORKER_END_MEMORY, "out of memory");
	fake_end_unseen(off->id, WORKER_END_OFF, "");
	fake_lose(lost->id);
	test_again(t);
	assert_int_equal(named(t, "crashed")->state, VM_CRITICAL);
	assert_string_equal(named(t, "crashed")->state_words, "out of memory");
	assert_int_equal(named(t, "off")->state, VM_OFF);
	assert_int_equal(named(t, "lost")->state, VM_CRITICAL);
	assert_non_null(strstr(named(t, "lost")->state_words, "gone"));
	test_again(t); /* told once */
	assert_int_equal(events_of(t, "vm-failed"), 2);
}

/* --- restarts of the host --- */

#define AUTO(name, start, delay)                                                                   \
	"{'name':'" name "','automatic':{'start':'" start "','start_delay':" delay "}," STARTABLE  \
	"}"

static void test_machines_start_with_the_host(void **state)
{
	struct test *t = *state;
	json_t *two = quoted("{'start_parallel':2}");

	assert_int_equal(host_change(t->d, &ada, two, 0, NULL), 0);
	json_decref(two);
	make_running(t, AUTO("d", "start-if-running", "0"));
	make(t, AUTO("not-it-was-off", "start-if-running", "0"));
	make_running(t, AUTO("nothing", "nothing", "0"));
	make(t, AUTO("c", "start", "0"));
	make(t, AUTO("b", "start", "0"));
	make(t, AUTO("a-late", "start", "3600"));
	host_restarts(t);
	/* By name, two at a time. */
	assert_int_equal(named(t, "b")->state, VM_STARTING);
	assert_int_equal(named(t, "c")->state, VM_STARTING);
	assert_int_equal(named(t, "d")->state, VM_OFF);
	fake_state(named(t, "b")->id, "running");
	test_turn(t);
	assert_int_equal(named(t, "d")->state, VM_STARTING);
	fake_end(named(t, "c")->id, WORKER_END_ERROR, "no kernel");
	fake_state(named(t, "d")->id, "running");
	test_turn(t);
	assert_int_equal(named(t, "c")->state, VM_OFF);
	assert_int_equal(named(t, "a-late")->state, VM_OFF);
	assert_int_equal(named(t, "not-it-was-off")->state, VM_OFF);
	assert_int_equal(named(t, "nothing")->state, VM_OFF);
	assert_true(t->d->index->new_boot);
	/* A restart of the service goes on with what is left, and starts nothing twice. */
	test_again(t);
	test_turn(t);
	assert_int_equal(fake_count(), 3); /* c, that failed, is tried again */
	assert_int_equal(events_of(t, "vm-failed"), 1);
}

static void test_a_restart_of_the_service_starts_nothing(void **state)
{
	struct test *t = *state;
	struct vm *vm = make_running(t, AUTO("a", "start", "0"));

	act(vm, VM_STOP);
	fake_end(vm->id, WORKER_END_OFF, "");
	test_turn(t);
	assert_false(t->d->index->new_boot);
	test_again(t);
	test_turn(t);
	assert_int_equal(fake_count(), 0);
}

static void mark(void *context)
{
	++*(int *)context;
}

static void test_machines_stop_with_the_host(void **state)
{
	struct test *t = *state;
	struct vm *off =
		make_running(t, "{'name':'off','automatic':{'stop':'turn-off'}," STARTABLE "}");
	struct vm *ask =
		make_running(t, "{'name':'ask','automatic':{'stop':'shut-down'}," STARTABLE "}");
	struct vm *other = make(t, "{'name':'other'," STARTABLE "}");
	int down = 0;

	daemon_shut_down(t->d, 100, mark, &down);
	assert_string_equal(fake_asked(off->id), "power-off");
	assert_string_equal(fake_asked(ask->id), "guest-shutdown");
	fake_answer(ask->id, -EINVAL, "it refused");
	assert_string_equal(fake_asked(ask->id), "power-off");
	assert_refused(other, VM_START, -EBUSY, "shuts down");
	fake_end(off->id, WORKER_END_OFF, "");
	test_turn(t);
	assert_int_equal(down, 0);
	fake_end(ask->id, WORKER_END_OFF, "");
	test_turn(t);
	assert_int_equal(down, 1);
	assert_int_equal(events_of(t, "guest-declined"), 1);
	/* What ran runs again with the host, what did not does not. */
	host_restarts(t);
	assert_int_equal(fake_count(), 2);
	assert_int_equal(named(t, "other")->state, VM_OFF);
}

static void test_the_deadline_of_a_shutdown(void **state)
{
	struct test *t = *state;
	struct vm *vm = running(t);
	int down = 0;

	daemon_shut_down(t->d, 0, mark, &down);
	test_turn(t);
	assert_int_equal(down, 1);
	assert_int_equal(fake_kills(vm->id), 1);
	fake_end(vm->id, WORKER_END_CRASH, "killed");
	test_turn(t);
	assert_int_equal(down, 1);
	assert_int_equal(vm->state, VM_OFF);
}

static void test_a_shutdown_without_machines(void **state)
{
	struct test *t = *state;
	int down = 0;

	daemon_shut_down(t->d, 100, mark, &down);
	assert_int_equal(down, 0); /* not from inside */
	test_turn(t);
	assert_int_equal(down, 1);
}

/* --- admission --- */

static void test_admission(void **state)
{
	struct admission a = {
		.host = { 8192, 4096 },
		.reserve = 512,
		.need = 2048,
		.assigned = 3000,
		.untouched = 1000,
		.running = 2,
		.cpus = 4,
	};
	struct error err = { 0 };

	(void)state;
	assert_int_equal(admission_check(&a, &err), 0);
	a.need = 2584;
	assert_int_equal(admission_check(&a, &err), 0);
	a.need = 2585;
	assert_int_equal(admission_check(&a, &err), -ENOMEM);
	assert_string_equal(err.property, "memory.startup");
	assert_words(err, "needs 2585 MiB and there are 2584: the host has 8192 MiB, of which 4096 "
			  "are available; 2 running machines (3000 MiB) may still take 1000 and "
			  "can give 0, and 512 are reserved");
	a.spare = 1; /* the balancer can take that much back */
	assert_int_equal(admission_check(&a, &err), 0);
	a.spare = 0;
	a.reserve = 5000;
	a.need = 1;
	assert_int_equal(admission_check(&a, &err), -ENOMEM);
	a = (struct admission){ .host = { 9, 9 }, .cpus = 2, .cpu_reserved = 150, .cpu_need = 50 };
	assert_int_equal(admission_check(&a, &err), 0);
	a.cpu_need = 51;
	assert_int_equal(admission_check(&a, &err), -EBUSY);
	assert_string_equal(err.property, "processors.reserve");
}

static void test_admission_counts_what_running_machines_may_still_take(void **state)
{
	struct test *t = *state;
	struct vm *vm = make_running(t, "{'name':'a','boot':{'kernel':'k'},'memory':{'startup':"
					"256}}");
	struct vm *other = make(t, "{'name':'b'," STARTABLE "}");
	struct admission a;

	fake_memory(vm->id, 100 * MIB);
	host_admission(t->d, other, &a);
	assert_int_equal(a.need, 64);
	assert_int_equal(a.running, 1);
	assert_int_equal(a.assigned, 288);
	assert_int_equal(a.untouched, 188);
	fake_memory(vm->id, 1000 * MIB);
	host_admission(t->d, other, &a);
	assert_int_equal(a.untouched, 0);
	assert_true(a.host.total > 0);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, test_setup, test_teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(test_a_life),
		TEST(test_what_a_state_does_not_allow),
		TEST(test_a_guest_is_asked_to_shut_down),
		TEST(test_a_guest_refuses_or_does_not_shut_down),
		TEST(test_a_guest_is_asked_to_restart),
		TEST(test_what_a_guest_says_is_told),
		TEST(test_a_service_is_switched_at_once),
		TEST(test_what_cannot_start),
		TEST(test_a_worker_that_refuses),
		TEST(test_stopping_overtakes),
		TEST(test_one_that_does_not_stop_is_killed),
		TEST(test_the_guests_own_doings),
		TEST(test_limits_change_while_it_runs),
		TEST(test_a_failure_by_each_setting),
		TEST(test_restarts_back_off),
		TEST(test_a_restart_that_is_refused_is_tried_again),
		TEST(test_one_that_waits_for_its_storage_runs_on),
		TEST(test_one_whose_storage_stays_away_is_turned_off),
		TEST(test_storage_that_is_lost_ends_what_is_under_way),
		TEST(test_one_that_never_ran_is_off),
		TEST(test_a_clock_that_is_set_changes_no_duration),
		TEST(test_workers_are_taken_over),
		TEST(test_one_that_ends_before_it_says_anything),
		TEST(test_what_ended_meanwhile),
		TEST(test_machines_start_with_the_host),
		TEST(test_a_restart_of_the_service_starts_nothing),
		TEST(test_machines_stop_with_the_host),
		TEST(test_the_deadline_of_a_shutdown),
		TEST(test_a_shutdown_without_machines),
		TEST(test_admission),
		TEST(test_admission_counts_what_running_machines_may_still_take),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
