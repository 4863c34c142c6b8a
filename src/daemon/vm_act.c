// SPDX-License-Identifier: MIT
/*
 * Machines run: actions as jobs over the supervisor, what workers say of themselves, and what
 * happens when one ends. An action sets the state "under way" and asks the worker; the worker's own
 * reports end it. At most one job is under way for a machine; only powering off may overtake
 * another.
 */
#include "daemon/vm_internal.h"

#include "daemon/network.h"
#include "daemon/vm_check.h"
#include "daemon/vm_describe.h"
#include "daemon/vm_guest.h"
#include "daemon/vm_saved.h"
#include "lib/cleanup.h"
#include "lib/log.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define NS_PER_S          UINT64_C(1000000000)
#define ASK_TIMEOUT_MS    20000
#define GUEST_TIMEOUT_MS  45000              /* the worker waits 30 s for the guest's answer */
#define SAVE_TIMEOUT_MS   (24 * 3600 * 1000) /* of a terabyte on a slow disk; it can be cancelled */
#define STOP_TIMEOUT_S    60                 /* images are closed meanwhile; then it is killed */
#define RESTART_MAX_S     300                /* between two restarts after failures */
#define RESTART_FORGET_MS (10 * 60 * 1000)   /* that long it ran: the next failure is a first one */

static const struct act {
	enum operation op;
	const char *job;     /* type */
	const char *command; /* to the worker; NULL: none yet */
	const char *missing; /* why it cannot be had */
} acts[VM_ACTION_COUNT] = {
	[VM_START] = { OP_START_VM, "start-vm", "resume", NULL },
	[VM_STOP] = { OP_STOP_VM, "stop-vm", "power-off", NULL },
	[VM_SHUT_DOWN] = { OP_STOP_VM, "shut-down-vm", NULL, NULL },
	[VM_RESTART] = { OP_STOP_VM, "restart-vm", NULL, NULL },
	[VM_PAUSE] = { OP_PAUSE_VM, "pause-vm", "pause", NULL },
	[VM_RESUME] = { OP_PAUSE_VM, "resume-vm", "resume", NULL },
	[VM_SAVE] = { OP_STOP_VM, "save-vm", "save", NULL },
	[VM_RESET] = { OP_STOP_VM, "reset-vm", "reset", NULL },
	[VM_DISCARD] = { OP_STOP_VM, "discard-vm", NULL, NULL },
};

static void end_off(struct vm *vm, const char *words);

/* --- state --- */

void vm_state_set(struct vm *vm, enum vm_state state, const char *words)
{
	snprintf(vm->state_words, sizeof(vm->state_words), "%s", words ? words : "");
	if (vm->state == state)
		return;
	if (entry_of(vm)->timer_use == VM_TIMER_STORAGE)
		vm_timer_clear(vm);
	vm->state = state;
	vm->state_since = time_ms();
	if (!vm_state_has_worker(state))
		vm->started = 0;
	vm_auto_state(vm);
}

/* What the next service has to know. It is told; what cannot be written is not worth more. */
void vm_remember(struct vm *vm, bool running, const char *critical)
{
	const struct registry_row row = {
		.id = vm->id, .running = running, .started = vm->started, .critical = critical
	};
	struct error err = { 0 };

	if (registry_running(vm->daemon->db, &row, &err) < 0)
		log_line("vm %s: %s", vm->id, err.message);
}

void vm_timer_set(struct vm *vm, enum vm_timer use, unsigned seconds)
{
	struct vm_entry *e = entry_of(vm);

	e->timer_use = use;
	loop_timer_arm(&e->timer, loop_now(vm->daemon->loop) + seconds * NS_PER_S + 1);
}

void vm_timer_clear(struct vm *vm)
{
	struct vm_entry *e = entry_of(vm);

	e->timer_use = VM_TIMER_NONE;
	loop_timer_disarm(&e->timer);
}

static void job_finish(struct vm *vm, int result, const struct error *err)
{
	struct job *job = steal_ptr(vm->job);

	entry_of(vm)->job_stops = false;
	entry_of(vm)->shut.active = false;
	if (job)
		job_end(vm->daemon->jobs, job, result, err);
}

static void _printf_(3, 4) job_fail(struct vm *vm, int code, const char *format, ...)
{
	struct error err = { .code = code };
	va_list ap;

	va_start(ap, format);
	vsnprintf(err.message, sizeof(err.message), format, ap);
	va_end(ap);
	job_finish(vm, code, &err);
}

static void tell(struct vm *vm, enum severity severity, const char *kind, const char *words)
{
	event_add(vm->daemon->events, severity, kind, vm->id, NULL,
		  json_pack("{s:s,s:s}", "name", vm->settings.name, "state",
			    vm_state_name(vm->state)),
		  "\"%s\" %s", vm->settings.name, words);
}

/* --- asking the worker --- */

static bool guest_declined(struct vm *vm, int code, const char *words);

static void action_failed(struct vm *vm, int result, const char *words)
{
	vm_state_set(vm, entry_of(vm)->before, NULL);
	job_fail(vm, result, "%s", words);
}

/* The worker goes on with what it did before. */
static void save_failed(struct vm *vm, int result, const char *words)
{
	struct daemon *d = vm->daemon;

	vm_saved_abandon(vm->folder);
	if (result != -ECANCELED)
		event_add(d->events, SEVERITY_ERROR, "vm-save-failed", vm->id, NULL, NULL,
			  "\"%s\" could not be saved: %s", vm->settings.name, words);
	action_failed(vm, result, words);
	if (d->index->shutting_down)
		vm_stop_unsaved(vm, words);
}

static void ask_done(struct worker_request *r, int result, json_t *answer, const struct error *err)
{
	struct vm_entry *e = container_of(r, struct vm_entry, request);
	struct vm *vm = &e->vm;

	(void)answer;
	e->asking = false;
	e->saved_told = result >= 0 && vm->state == VM_SAVING;
	if (result >= 0 || result == -EPIPE)
		return; /* its state follows, or its end */
	if (e->shut.active && guest_declined(vm, result, err ? err->message : "it was refused"))
		return;
	if (vm->state == VM_STOPPING) {
		/* In a reset it does not listen: again in the next state, and the timer goes on. */
		e->stop_again = true;
		return;
	}
	if (vm_state_steady(vm->state))
		return;
	if (vm->state == VM_SAVING)
		save_failed(vm, e->cancelling ? -ECANCELED : result,
			    err ? err->message : "the worker refused");
	else
		action_failed(vm, result, err ? err->message : "the worker refused");
}

/* Takes the request; `fd` -1: none goes along. */
static void ask_with(struct vm *vm, json_t *request, int fd, unsigned timeout_ms)
{
	struct vm_entry *e = entry_of(vm);

	if (e->asking)
		worker_ask_cancel(&e->request);
	memset(&e->request, 0, sizeof(e->request));
	list_init(&e->request.node);
	e->request.done = ask_done;
	e->asking = true;
	worker_ask(vm->worker, &e->request, request, fd < 0 ? NULL : &fd, fd >= 0, timeout_ms);
	json_decref(request);
}

static void ask(struct vm *vm, const char *command)
{
	ask_with(vm, json_pack("{s:s}", "command", command), -1, ASK_TIMEOUT_MS);
}

static void ask_power_off(struct vm *vm)
{
	entry_of(vm)->stop_again = false;
	ask(vm, "power-off");
	if (entry_of(vm)->timer_use != VM_TIMER_STOP)
		vm_timer_set(vm, VM_TIMER_STOP, STOP_TIMEOUT_S);
}

/* --- asking the guest --- */

static void ask_guest(struct vm *vm, const struct vm_shut_down *how)
{
	struct vm_entry *e = entry_of(vm);
	unsigned timeout = how->timeout_s ? how->timeout_s : VM_SHUT_DOWN_TIME;

	e->shut.active = true;
	e->shut.left = false;
	e->shut.restart = how->restart;
	e->shut.turn_off = how->turn_off;
	e->shut.timeout_s = timeout;
	e->shut.passed_s = 0;
	ask_with(vm,
		 json_pack("{s:s,s:s,s:b,s:i,s:s*}", "command", "guest-shutdown", "action",
			   how->restart ? "restart" : "power-off", "force", how->force, "seconds",
			   (int)timeout, "reason", how->reason),
		 -1, GUEST_TIMEOUT_MS);
	vm_timer_set(vm, VM_TIMER_GUEST, 1);
}

/*
 * The guest cannot be asked, does not want to, or has not done it. Without leave to turn it off it
 * is as before. Whether that was all.
 */
static bool guest_declined(struct vm *vm, int code, const char *words)
{
	struct vm_entry *e = entry_of(vm);
	const char *verb = e->shut.restart ? "restart" : "shut down";

	vm_timer_clear(vm);
	e->shut.active = false;
	if (!e->shut.turn_off) {
		vm_state_set(vm, e->before, NULL);
		job_fail(vm, code, "%.300s; it runs on: ask again, or %s", words,
			 e->shut.restart ? "reset it" : "turn it off");
		return true;
	}
	event_add(vm->daemon->events, SEVERITY_WARNING, "guest-declined", vm->id, NULL, NULL,
		  "the guest of \"%s\" did not %s by itself: %s", vm->settings.name, verb, words);
	if (e->shut.restart)
		ask(vm, "reset");
	else
		ask_power_off(vm);
	return true;
}

static void on_guest_second(struct vm *vm)
{
	struct vm_entry *e = entry_of(vm);
	char words[120];

	if (!e->shut.active)
		return;
	if (++e->shut.passed_s < e->shut.timeout_s) {
		if (vm->job)
			job_progress(vm->daemon->jobs, vm->job,
				     e->shut.passed_s * 99 / e->shut.timeout_s);
		vm_timer_set(vm, VM_TIMER_GUEST, 1);
		return;
	}
	snprintf(words, sizeof(words), "the guest was asked to %s and has not within %u s",
		 e->shut.restart ? "restart" : "shut down", e->shut.timeout_s);
	guest_declined(vm, -ETIMEDOUT, words);
}

void vm_power_off(struct vm *vm)
{
	if (!vm->worker || vm->state == VM_STOPPING)
		return;
	job_fail(vm, -ECANCELED, "the machine was powered off meanwhile");
	vm_state_set(vm, VM_STOPPING, NULL);
	ask_power_off(vm);
}

/* --- saved state --- */

/* The save's own answer says what came of it. */
static void cancel_done(struct worker_request *r, int result, json_t *answer,
			const struct error *err)
{
	(void)r, (void)result, (void)answer, (void)err;
}

static void save_cancel(struct job *job)
{
	struct vm *vm = job->operation;
	struct vm_entry *e = entry_of(vm);
	json_t *request = json_pack("{s:s}", "command", "save-cancel");

	if (!e->cancelling && vm->worker && vm->state == VM_SAVING) {
		e->cancelling = true;
		memset(&e->cancel, 0, sizeof(e->cancel));
		list_init(&e->cancel.node);
		e->cancel.done = cancel_done;
		worker_ask(vm->worker, &e->cancel, request, NULL, 0, ASK_TIMEOUT_MS);
	}
	json_decref(request);
}

static void ask_save(struct vm *vm)
{
	struct vm_entry *e = entry_of(vm);
	struct error err = { 0 };
	int fd, r = vm_saved_create(vm->folder, &fd, &err);

	if (r < 0) {
		save_failed(vm, r, err.message);
		return;
	}
	e->cancelling = e->saved_told = false;
	if (vm->job) {
		vm->job->operation = vm;
		vm->job->cancel = save_cancel;
	}
	ask_with(vm, json_pack("{s:s,s:i}", "command", "save", "file", 0), fd, SAVE_TIMEOUT_MS);
}

/* Its worker has ended, and said that all of it is in the file and on the disks. */
static void end_saved(struct vm *vm)
{
	struct error err = { 0 };

	entry_of(vm)->failures = 0;
	if (vm_saved_keep(vm->folder, &err) < 0) {
		event_add(vm->daemon->events, SEVERITY_ERROR, "vm-save-failed", vm->id, NULL, NULL,
			  "\"%s\" was saved, but its state is lost: %s", vm->settings.name,
			  err.message);
		vm_state_set(vm, VM_OFF, NULL);
		vm_remember(vm, false, NULL);
		job_finish(vm, err.code, &err);
		return;
	}
	vm_state_set(vm, VM_SAVED, NULL);
	/* One that the host's end saved is to run again when the host does. */
	vm_remember(vm, vm->daemon->index->shutting_down, NULL);
	tell(vm, SEVERITY_INFORMATION, "vm-saved", "is saved");
	job_finish(vm, 0, NULL);
}

/* Everything is as it was, and the guest waits. From here on its disks will change. */
static void restored(struct vm *vm)
{
	struct error err = { 0 };

	if (vm_saved_look(vm->folder) == VM_SAVED_WHOLE && vm_saved_use(vm->folder, &err) < 0) {
		event_add(vm->daemon->events, SEVERITY_ERROR, "vm-start-failed", vm->id, NULL, NULL,
			  "\"%s\" cannot be restored: %s", vm->settings.name, err.message);
		job_finish(vm, err.code, &err);
		vm_power_off(vm);
		return;
	}
	ask(vm, "resume");
}

/* It runs: its saved state is of the past. */
static void restore_ends(struct vm *vm)
{
	struct error err = { 0 };

	entry_of(vm)->restoring = false;
	if (vm_saved_remove(vm->folder, &err) < 0)
		event_add(vm->daemon->events, SEVERITY_WARNING, "vm-state-left", vm->id, NULL, NULL,
			  "\"%s\" runs again; %s", vm->settings.name, err.message);
}

/* What a machine without a worker is: a state that nobody has gone on from is still good. */
static enum vm_state resting_state(struct vm *vm)
{
	enum vm_saved saved = vm_saved_look(vm->folder);

	entry_of(vm)->restoring = false;
	if (saved == VM_SAVED_WHOLE)
		return VM_SAVED;
	if (saved == VM_SAVED_USED)
		restore_ends(vm);
	else if (saved == VM_SAVED_PARTIAL)
		vm_saved_abandon(vm->folder);
	return VM_OFF;
}

void vm_saved_find(struct vm *vm)
{
	if (vm->state == VM_OFF && vm_saved_look(vm->folder) == VM_SAVED_WHOLE)
		vm_state_set(vm, VM_SAVED, NULL);
}

static void discard(struct vm *vm)
{
	struct error err = { 0 };

	if (vm_saved_remove(vm->folder, &err) < 0)
		action_failed(vm, err.code, err.message);
	else
		end_off(vm, "is off; its saved state was deleted");
}

/* --- what a worker says --- */

static const struct report {
	const char *name;
	enum vm_state state;
} reports[] = {
	{ "starting", VM_STARTING },
	{ "running", VM_RUNNING },
	{ "pausing", VM_PAUSING },
	{ "paused", VM_PAUSED },
	{ "paused-critical", VM_PAUSED_CRITICAL },
	{ "resetting", VM_RESETTING },
	{ "stopping", VM_STOPPING },
	{ "off", VM_STOPPING },
};

/* What is told when a state under way has ended well. */
static const struct {
	const char *kind, *words;
} endings[VM_STATE_COUNT] = {
	[VM_STARTING] = { "vm-started", "runs" },
	[VM_PAUSING] = { "vm-paused", "is paused" },
	[VM_RESUMING] = { "vm-resumed", "runs again" },
	[VM_RESETTING] = { "vm-reset", "was reset" },
};

static void report_steady(struct vm *vm, enum vm_state state)
{
	enum vm_state was = vm->state;

	if (state == VM_PAUSED_CRITICAL && was != state && was != VM_STOPPING) {
		vm_storage_wait(vm);
		job_fail(vm, -EIO, "the machine waits for its storage: %s", vm->state_words);
		return;
	}
	/* What was meant to end elsewhere is not over: this is a report from before. */
	if (was == state || was == VM_STOPPING ||
	    (vm->job && !vm_state_steady(was) && vm_state_end(was) != state))
		return;
	vm_state_set(vm, state, NULL);
	/* It was taken over, or its adapters wait to be plugged in. */
	if (was == VM_STARTING && (!vm->job || vm->settings.network_adapters_count))
		vm_hot_settle(vm, !vm->job);
	if (vm_state_steady(was))
		tell(vm, SEVERITY_INFORMATION, state == VM_PAUSED ? "vm-paused" : "vm-resumed",
		     state == VM_PAUSED ? "is paused" : "runs again");
	else if (endings[was].kind)
		tell(vm, SEVERITY_INFORMATION, endings[was].kind, endings[was].words);
	job_finish(vm, 0, NULL);
}

static void on_worker_state(void *context, struct worker *w, const char *name)
{
	struct vm *vm = context;
	struct vm_entry *e = entry_of(vm);
	size_t i = 0;

	(void)w;
	while (i < ARRAY_SIZE(reports) && strcmp(reports[i].name, name))
		i++;
	if (i == ARRAY_SIZE(reports))
		return;
	if (reports[i].state == VM_STOPPING)
		vm_meter_sample(vm); /* the last chance */
	if (reports[i].state == VM_RUNNING)
		vm_memory_running(vm);
	/* A guest that was asked to restart runs until it does. */
	if (e->shut.active && e->shut.restart && reports[i].state == VM_RESETTING)
		e->shut.left = true;
	if (e->shut.active && e->shut.restart && !e->shut.left && reports[i].state == VM_RUNNING)
		return;
	if (e->restoring && vm->state == VM_STARTING && reports[i].state == VM_PAUSED) {
		restored(vm);
		return;
	}
	if (e->restoring && reports[i].state == VM_RUNNING)
		restore_ends(vm);
	if (vm->state == VM_STOPPING && e->stop_again && reports[i].state != VM_STOPPING &&
	    vm_state_steady(reports[i].state))
		ask_power_off(vm);
	else if (vm_state_steady(reports[i].state))
		report_steady(vm, reports[i].state);
	else if (!vm->job && vm_state_steady(vm->state))
		vm_state_set(vm, reports[i].state, NULL); /* the guest's doing */
}

static void on_worker_event(void *context, struct worker *w, json_t *event)
{
	struct vm *vm = context;
	const char *name = json_string_value(json_object_get(event, "event"));
	json_int_t percent = json_integer_value(json_object_get(event, "percent"));
	bool mine = name && ((!strcmp(name, "saving") && vm->state == VM_SAVING) ||
			     (!strcmp(name, "restoring") && entry_of(vm)->restoring));

	(void)w;
	vm_memory_event(vm, event);
	if (mine && vm->job && percent > 0 && percent < 100)
		job_progress(vm->daemon->jobs, vm->job, (unsigned)percent);
	vm_storage_event(vm, event);
	vm_guest_event(vm, event);
}

/* --- the end of one --- */

static void end_off(struct vm *vm, const char *words)
{
	bool keep = vm->daemon->index->shutting_down;
	bool stops = entry_of(vm)->job_stops;

	vm_state_set(vm, resting_state(vm), NULL);
	entry_of(vm)->failures = 0;
	/* A machine that the host's end stopped is to run again when the host does. */
	vm_remember(vm, keep, NULL);
	tell(vm, SEVERITY_INFORMATION, "vm-stopped", words);
	if (stops)
		job_finish(vm, 0, NULL);
	else
		job_fail(vm, -ECANCELED, "the machine powered off before that was done");
}

static unsigned restart_delay(unsigned failures)
{
	return failures > 8 ? RESTART_MAX_S : MIN(1u << (failures - 1), RESTART_MAX_S);
}

static void fail_restart(struct vm *vm, const char *words)
{
	struct vm_entry *e = entry_of(vm);
	char why[sizeof(vm->state_words)];
	unsigned delay;

	e->failures++;
	delay = restart_delay(e->failures);
	snprintf(why, sizeof(why), "%.180s; it is started again in %u s", words, delay);
	vm_state_set(vm, VM_CRITICAL, why);
	vm_remember(vm, true, words);
	tell(vm, SEVERITY_WARNING, "vm-restart", why);
	vm_timer_set(vm, VM_TIMER_RESTART, delay);
}

static void fail_by_setting(struct vm *vm, const char *words)
{
	switch (vm->settings.automatic.critical_error) {
	case VM_CRITICAL_ACTION_RESTART:
		fail_restart(vm, words);
		return;
	case VM_CRITICAL_ACTION_PAUSE:
		vm_state_set(vm, VM_CRITICAL, words);
		vm_remember(vm, false, words);
		return;
	case VM_CRITICAL_ACTION_NONE:
		break;
	}
	vm_state_set(vm, VM_OFF, NULL);
	vm_remember(vm, false, NULL);
}

/* It ended, and nobody wanted it to. */
static void end_failed(struct vm *vm, enum worker_end end, const char *words)
{
	struct vm_entry *e = entry_of(vm);
	/* Without a job it was taken over, and has not said yet what it did. */
	bool never_ran = vm->state == VM_STARTING && vm->job && !e->failures;
	enum vm_state rest;

	event_add(vm->daemon->events, SEVERITY_ERROR, "vm-failed", vm->id, NULL,
		  json_pack("{s:s,s:s,s:s}", "name", vm->settings.name, "end", worker_end_name(end),
			    "state", vm_state_name(vm->state)),
		  "\"%s\" failed while it was %s: %s", vm->settings.name, vm_state_name(vm->state),
		  words);
	if (vm->started && vm->state != VM_STARTING &&
	    time_boot_ms() - vm->started_boot > RESTART_FORGET_MS)
		e->failures = 0;
	rest = resting_state(vm);
	if (vm->daemon->index->shutting_down) {
		vm_state_set(vm, rest, NULL);
	} else if (never_ran || rest == VM_SAVED) {
		vm_state_set(vm, rest, NULL);
		vm_remember(vm, false, NULL);
	} else {
		fail_by_setting(vm, words);
	}
	job_fail(vm, -EIO, "%s", words);
}

static void on_worker_ended(void *context, struct worker *w, enum worker_end end, const char *words)
{
	struct vm *vm = context;
	struct vm_entry *e = entry_of(vm);
	bool asked = vm->state == VM_STOPPING && !e->shut.active &&
		     (e->job_stops || e->timer_use == VM_TIMER_STOP);

	(void)w;
	if (e->asking)
		worker_ask_cancel(&e->request);
	e->asking = e->stop_again = false;
	vm_timer_clear(vm);
	vm_hot_end(vm, "the machine ended meanwhile");
	vm_memory_gone(vm);
	if (vm->daemon->networks)
		networks_unplug_vm(vm->daemon->networks, vm->id);
	vm->worker = NULL;
	vm_guest_forget(vm);
	if (e->cancelling)
		worker_ask_cancel(&e->cancel);
	e->cancelling = false;
	words = words && *words ? words : worker_end_name(end);
	if (end == WORKER_END_SAVED || (end == WORKER_END_OFF && e->saved_told))
		end_saved(vm);
	else if (end == WORKER_END_OFF || end == WORKER_END_RESET)
		end_off(vm, end == WORKER_END_RESET ? "is off: the guest rebooted" : "is off");
	else if (asked)
		end_off(vm, "is off; its process had to be ended");
	else
		end_failed(vm, end, words);
}

static const struct worker_events worker_events = { on_worker_state, on_worker_ended,
						    on_worker_event };

/* --- starting --- */

static struct worker_limits limits_of(const struct vm_settings *s)
{
	return (struct worker_limits){ s->processors.limit, s->processors.count,
				       s->processors.weight,
				       (uint64_t)s->memory.host_maximum * MIB };
}

int vm_limits_apply(struct vm *vm, const struct vm_settings *s, struct error *err)
{
	const struct worker_limits limits = limits_of(s);

	return worker_limits_set(vm->worker, &limits, err);
}

static int start_check(struct vm *vm, struct error *err)
{
	struct admission a;
	int r = vm_check_start(&vm->settings, err);

	if (r < 0)
		return r;
	if (vm->daemon->index->shutting_down)
		return error_set(err, -EBUSY, "the host shuts down; nothing is started any more");
	host_admission(vm->daemon, vm, &a);
	return admission_check(&a, err);
}

/* The registry knows before the process exists: it is looked for after a crash. */
static int launch(struct vm *vm, struct error *err)
{
	struct daemon *d = vm->daemon;
	json_t *description = vm_describe(&vm->settings, host_memory_total());
	const struct worker_start start = {
		.id = vm->id,
		.name = vm->settings.name,
		.description = description,
		.folder = vm->folder,
		.limits = limits_of(&vm->settings),
		.events = &worker_events,
		.context = vm,
	};
	int r;

	if (!description)
		return error_set(err, -ENOMEM, "not enough memory to start the machine");
	entry_of(vm)->restoring = entry_of(vm)->before == VM_SAVED;
	if (entry_of(vm)->restoring)
		json_object_set_new(description, "state",
				    json_pack("{s:s,s:b}", "path", VM_SAVED_STATE, "hold", 1));
	vm->started = time_ms();
	vm->started_boot = time_boot_ms();
	r = registry_running(
		d->db,
		&(struct registry_row){ .id = vm->id, .running = true, .started = vm->started },
		err);
	if (r == 0)
		r = worker_start(d->supervisor, &start, &vm->worker, err);
	if (r == 0)
		vm_memory_follow(vm);
	json_decref(description);
	return r;
}

static int act_start(struct vm *vm, struct error *err)
{
	struct vm_entry *e = entry_of(vm);
	char words[sizeof(vm->state_words)];
	int r;

	snprintf(words, sizeof(words), "%s", vm->state_words);
	vm_state_set(vm, VM_STARTING, NULL);
	r = launch(vm, err);
	if (r == 0)
		return 0;
	vm->worker = NULL;
	vm_state_set(vm, e->before, words);
	vm_remember(vm, false, e->before == VM_CRITICAL ? words : NULL);
	event_add(vm->daemon->events, SEVERITY_ERROR, "vm-start-failed", vm->id, NULL, NULL,
		  "\"%s\" cannot be started: %s", vm->settings.name, err->message);
	job_finish(vm, r, err);
	return r;
}

/* --- actions --- */

static int act_begin(struct vm *vm, const struct caller *c, enum vm_action action,
		     struct error *err)
{
	struct daemon *d = vm->daemon;
	struct job *job;
	int r = database_begin(d->db, err);

	if (r < 0)
		return r;
	r = job_begin(d->jobs, acts[action].job, c, vm->id, &job, err);
	if (r < 0) {
		database_rollback(d->db);
		return r;
	}
	event_add(d->events, SEVERITY_AUDIT, acts[action].job, vm->id, c,
		  json_pack("{s:s,s:s}", "name", vm->settings.name, "job", job->id),
		  "asked to %s \"%s\"", vm_action_name(action), vm->settings.name);
	r = database_commit(d->db, err);
	if (r < 0)
		return r;
	if (vm->job)
		job_fail(vm, -ECANCELED, "the machine was stopped meanwhile");
	vm->job = job;
	entry_of(vm)->before = vm->state;
	entry_of(vm)->job_stops =
		action == VM_STOP || action == VM_SHUT_DOWN || action == VM_DISCARD;
	entry_of(vm)->shut.active = false;
	return 0;
}

static void act_ask(struct vm *vm, enum vm_action action, enum vm_state next,
		    const struct vm_shut_down *how)
{
	const struct vm_shut_down usual = { .restart = action == VM_RESTART };

	vm_state_set(vm, next, NULL);
	if (action == VM_STOP && vm->worker)
		ask_power_off(vm);
	else if (action == VM_STOP)
		end_off(vm, "is off; what was wrong is known");
	else if (action == VM_SHUT_DOWN || action == VM_RESTART)
		ask_guest(vm, how ? how : &usual);
	else if (action == VM_DISCARD)
		discard(vm);
	else if (action == VM_SAVE)
		ask_save(vm);
	else
		ask(vm, acts[action].command);
}

static int act_check(struct daemon *d, const struct caller *c, struct vm *vm, enum vm_action action,
		     struct error *err)
{
	int r = caller_check(d, c, acts[action].op, vm, err);

	if (r < 0)
		return r;
	if (vm->broken.code)
		return error_set(err, -EUCLEAN, "the machine is broken: %.300s; repair it first",
				 vm->broken.message);
	return 0;
}

/* What an action is about, in one. */
struct act_call {
	struct daemon *d;
	const struct caller *c;
	enum vm_action action;
	const struct vm_shut_down *how; /* NULL: as usual */
};

static int act(const struct act_call *a, struct vm *vm, struct job **ret, struct error *err)
{
	enum vm_action action = a->action;
	struct error mine = { 0 };
	enum vm_state next;
	struct job *job;
	int r = act_check(a->d, a->c, vm, action, &mine);

	if (r == 0)
		r = vm_state_next(vm->state, action, &next, &mine);
	if (r == 0 && acts[action].missing)
		r = error_set(&mine, -EOPNOTSUPP, "%s", acts[action].missing);
	if (r == 0 && next == VM_STARTING)
		r = start_check(vm, &mine);
	if (r == 0 && entry_of(vm)->job_stops && action == VM_STOP && !entry_of(vm)->shut.active) {
		*ret = vm->job; /* that is under way */
		return 0;
	}
	if (r == 0)
		r = act_begin(vm, a->c, action, &mine);
	if (r == 0) {
		job = vm->job;
		if (!vm->worker || entry_of(vm)->timer_use == VM_TIMER_GUEST)
			vm_timer_clear(vm);
		if (next == VM_STARTING)
			r = act_start(vm, &mine);
		else
			act_ask(vm, action, next, a->how);
		*ret = job;
	}
	if (r < 0 && err)
		*err = mine;
	return r;
}

int vm_act(struct daemon *d, const struct caller *c, struct vm *vm, enum vm_action action,
	   struct job **ret, struct error *err)
{
	const struct act_call a = { d, c, action, NULL };

	return act(&a, vm, ret, err);
}

int vm_shut_down(struct daemon *d, const struct caller *c, struct vm *vm,
		 const struct vm_shut_down *how, struct job **ret, struct error *err)
{
	const struct act_call a = { d, c, how->restart ? VM_RESTART : VM_SHUT_DOWN, how };

	if (how->timeout_s > VM_SHUT_DOWN_TIME_MAX)
		return error_set(err, -EINVAL, "timeout: must be at most %u s",
				 VM_SHUT_DOWN_TIME_MAX);
	return act(&a, vm, ret, err);
}

int vm_save_for_host(struct vm *vm, struct error *err)
{
	struct job *job;

	if (vm->state == VM_SAVING)
		return 0;
	return vm_act(vm->daemon, &caller_service, vm, VM_SAVE, &job, err);
}

/* --- timers --- */

static void restart(struct vm *vm)
{
	struct error err = { 0 };
	struct job *job;

	if (vm->state != VM_CRITICAL || vm->broken.code)
		return;
	if (vm_act(vm->daemon, &caller_service, vm, VM_START, &job, &err) < 0 &&
	    vm->state == VM_CRITICAL)
		fail_restart(vm, err.message);
}

static void on_timer(struct loop_timer *t)
{
	struct vm_entry *e = container_of(t, struct vm_entry, timer);
	enum vm_timer use = e->timer_use;

	if (use == VM_TIMER_STOP && e->vm.worker) {
		tell(&e->vm, SEVERITY_WARNING, "vm-killed",
		     "did not power off in time; its process is killed");
		worker_kill(e->vm.worker);
		return; /* the timer's use says that its end was wanted */
	}
	e->timer_use = VM_TIMER_NONE;
	if (use == VM_TIMER_RESTART)
		restart(&e->vm);
	else if (use == VM_TIMER_STORAGE)
		vm_storage_give_up(&e->vm);
	else if (use == VM_TIMER_GUEST)
		on_guest_second(&e->vm);
}

static void on_settle(struct loop_task *t)
{
	struct vm *vm = &container_of(t, struct vm_entry, settle)->vm;

	if (vm->worker)
		vm_hot_settle(vm, false);
}

void vm_act_init(struct vm *vm)
{
	list_init(&entry_of(vm)->request.node);
	loop_timer_init(vm->daemon->loop, &entry_of(vm)->timer, on_timer);
	vm_guest_init(vm);
	loop_task_init(&entry_of(vm)->settle, on_settle);
}

/* --- what an earlier service left --- */

void vm_recall(struct vm *vm, const struct registry_row *row)
{
	if (row->critical)
		vm_state_set(vm, VM_CRITICAL, row->critical);
	entry_of(vm)->was_running = row->running;
	vm->started = row->running ? row->started : 0;
	/* The clock may have been set since: not before the boot, and not after now. */
	vm->started_boot = MAX(time_boot_ms() - MAX(time_ms() - vm->started, 0), 0);
}

static void adopt(void *context, const char *id)
{
	struct daemon *d = context;
	struct vm *vm = vm_find(d, id);
	enum worker_end end = WORKER_END_LOST;
	struct error err = { 0 };
	int r;

	if (!vm) {
		event_add(d->events, SEVERITY_WARNING, "worker-unknown", NULL, NULL,
			  json_pack("{s:s}", "id", id),
			  "a worker runs for the machine %s, which is not registered", id);
		return;
	}
	r = worker_adopt(d->supervisor, vm->id, &worker_events, vm, &vm->worker, &end, &err);
	if (r < 0)
		vm->worker = NULL;
	if (r == 0) {
		int64_t started = vm->started;

		vm_state_set(vm, VM_STARTING, NULL);
		vm->started = started;
		vm->state_since = started;
		entry_of(vm)->was_running = false;
		entry_of(vm)->restoring = vm_saved_look(vm->folder) >= VM_SAVED_WHOLE;
		/* A restart of the service may have cost them. */
		if (vm_limits_apply(vm, &vm->settings, &err) < 0)
			event_add(d->events, SEVERITY_WARNING, "vm-limits-lost", vm->id, NULL, NULL,
				  "\"%s\" runs on without its limits: %s", vm->settings.name,
				  err.message);
		tell(vm, SEVERITY_INFORMATION, "vm-adopted", "runs on: it was taken over");
		vm_guest_learn(vm);
	} else if (r == -ECHILD) {
		vm_state_set(vm, VM_RUNNING, NULL);
		entry_of(vm)->was_running = false;
		on_worker_ended(vm, NULL, end, err.message);
	}
}

/* It ran, the host did not restart, and there is no trace of its worker. */
static void find_lost(struct vm *vm)
{
	struct vm_entry *e = entry_of(vm);

	if (!e->was_running)
		return;
	e->was_running = false;
	if (vm->state == VM_SAVED)
		return; /* with the host's end; the host came back, or only the service did */
	if (vm->state == VM_CRITICAL) {
		/* An earlier service was about to start it again. */
		if (vm->settings.automatic.critical_error == VM_CRITICAL_ACTION_RESTART)
			vm_timer_set(vm, VM_TIMER_RESTART, 1);
		return;
	}
	vm_state_set(vm, VM_RUNNING, NULL);
	on_worker_ended(vm, NULL, WORKER_END_LOST,
			"its process is gone, and nobody knows how it ended");
}

/* A save that nobody ended, or a state that a guest went on from before the host ended. */
static void find_leftovers(struct vm *vm)
{
	enum vm_saved saved = vm->worker ? VM_SAVED_NONE : vm_saved_look(vm->folder);

	if (saved == VM_SAVED_USED)
		event_add(vm->daemon->events, SEVERITY_WARNING, "vm-state-discarded", vm->id, NULL,
			  NULL,
			  "the saved state of \"%s\" is deleted: the machine had gone on from it "
			  "when the host ended",
			  vm->settings.name);
	if (saved == VM_SAVED_USED || saved == VM_SAVED_PARTIAL)
		(void)resting_state(vm);
}

void vms_adopt(struct daemon *d)
{
	struct error err = { 0 };

	if (supervisor_found(d->supervisor, adopt, d, &err) < 0)
		event_add(d->events, SEVERITY_ERROR, "workers-unknown", NULL, NULL, NULL,
			  "cannot look for running workers: %s", err.message);
	list_foreach_safe(it, &d->vms) find_leftovers(list_entry(it, struct vm, node));
	if (d->index->new_boot)
		return;
	list_foreach_safe(it, &d->vms) find_lost(list_entry(it, struct vm, node));
}

void vm_let_go(struct vm *vm)
{
	struct vm_entry *e = entry_of(vm);

	if (e->asking)
		worker_ask_cancel(&e->request);
	if (e->cancelling)
		worker_ask_cancel(&e->cancel);
	e->asking = e->cancelling = false;
	vm_hot_end(vm, NULL);
	loop_cancel(vm->daemon->loop, &e->settle);
	vm_timer_clear(vm);
	vm_memory_gone(vm);
	vm_guest_let_go(vm);
	vm->worker = NULL;
}
