// SPDX-License-Identifier: MIT
/*
 * What happens by itself: machines start when the host has started, in order of their delays and
 * names and only so many at a time; and they stop, by their settings, when the host shuts down.
 * Loop's thread, without waiting: each change of a machine's state moves both on.
 */
#include "daemon/vm_internal.h"

#include "lib/cleanup.h"
#include "lib/log.h"

#include <errno.h>
#include <string.h>

#define NS_PER_S UINT64_C(1000000000)

struct due {
	char id[GUID_TEXT_SIZE]; /* it may be removed meanwhile */
	uint32_t delay;          /* s */
	unsigned place;          /* in the list: order among equal delays */
};

struct vm_starts {
	struct daemon *d;
	struct due *due;
	unsigned count, next, under_way;
	uint64_t begun;
	struct loop_timer timer;
	struct loop_task task;
};

/* --- starting --- */

/* Only when all were begun the restart of the host is over; a crash before that takes it up again.
 */
static void starts_end(struct daemon *d)
{
	_cleanup_free_ char *boot = host_boot_id();
	struct error err = { 0 };

	if (boot && registry_value_set(d->db, "boot", boot, &err) < 0)
		log_line("%s", err.message);
	d->index->new_boot = false;
}

static void start_one(struct vm_starts *s, const struct due *due)
{
	struct vm *vm = vm_find(s->d, due->id);
	struct error err = { 0 };
	struct job *job;

	if (!vm || vm->worker || vm->broken.code ||
	    (vm->state != VM_OFF && vm->state != VM_SAVED && vm->state != VM_CRITICAL))
		return;
	entry_of(vm)->auto_starting = true;
	s->under_way++;
	if (vm_act(s->d, &caller_service, vm, VM_START, &job, &err) == 0)
		return;
	if (entry_of(vm)->auto_starting) {
		entry_of(vm)->auto_starting = false;
		s->under_way--;
	}
	vm_remember(vm, false, vm->state == VM_CRITICAL ? vm->state_words : NULL);
	event_add(s->d->events, SEVERITY_ERROR, "vm-start-failed", vm->id, NULL, NULL,
		  "\"%s\" is not started with the host: %s", vm->settings.name, err.message);
}

static void on_starts_task(struct loop_task *t)
{
	struct vm_starts *s = container_of(t, struct vm_starts, task);

	while (s->next < s->count && s->under_way < s->d->host.start_parallel) {
		const struct due *due = &s->due[s->next];
		uint64_t when = s->begun + due->delay * NS_PER_S;

		if (when > loop_now(s->d->loop)) {
			loop_timer_arm(&s->timer, when);
			return;
		}
		s->next++;
		start_one(s, due);
	}
	if (s->next == s->count && s->d->index->new_boot)
		starts_end(s->d);
}

static void on_starts_timer(struct loop_timer *t)
{
	struct vm_starts *s = container_of(t, struct vm_starts, timer);

	loop_defer(s->d->loop, &s->task);
}

static int compare_due(const void *a, const void *b)
{
	const struct due *x = a, *y = b;

	if (x->delay != y->delay)
		return x->delay < y->delay ? -1 : 1;
	return x->place < y->place ? -1 : 1;
}

static bool starts_with_host(const struct vm *vm)
{
	switch (vm->settings.automatic.start) {
	case VM_START_ACTION_START:
		return true;
	case VM_START_ACTION_START_IF_RUNNING:
		return entry_of((struct vm *)vm)->was_running;
	case VM_START_ACTION_NOTHING:
		break;
	}
	return false;
}

static void starts_collect(struct vm_starts *s)
{
	list_foreach(it, &s->d->vms)
	{
		struct vm *vm = list_entry(it, struct vm, node);
		struct due *due = &s->due[s->count];

		if (vm->worker || vm->broken.code)
			continue;
		if (!starts_with_host(vm)) {
			if (entry_of(vm)->was_running)
				vm_remember(vm, false, NULL);
			continue;
		}
		memcpy(due->id, vm->id, sizeof(due->id));
		due->delay = vm->settings.automatic.start_delay;
		due->place = s->count++;
	}
	qsort(s->due, s->count, sizeof(*s->due), compare_due);
}

void starts_begin(struct daemon *d)
{
	struct vm_starts *s;

	if (!d->index->new_boot)
		return;
	s = calloc(1, sizeof(*s));
	if (s)
		s->due = calloc(d->vm_count + 1, sizeof(*s->due));
	if (!s || !s->due) {
		free(s);
		log_line("not enough memory to start the machines that are to start");
		return;
	}
	s->d = d;
	s->begun = loop_now(d->loop);
	loop_timer_init(d->loop, &s->timer, on_starts_timer);
	loop_task_init(&s->task, on_starts_task);
	d->index->starts = s;
	starts_collect(s);
	loop_defer(d->loop, &s->task);
}

void starts_free(struct daemon *d)
{
	struct vm_starts *s = d->index ? steal_ptr(d->index->starts) : NULL;

	if (!s)
		return;
	loop_timer_disarm(&s->timer);
	loop_cancel(d->loop, &s->task);
	free(s->due);
	free(s);
}

/* --- stopping --- */

static bool any_worker(const struct daemon *d)
{
	list_foreach(it, &d->vms) if (list_entry(it, struct vm, node)->worker) return true;
	return false;
}

static void down_end(struct daemon *d)
{
	void (*down)(void *context) = steal_ptr(d->index->down);

	loop_timer_disarm(&d->index->deadline);
	loop_timer_disarm(&d->index->save_deadline);
	loop_cancel(d->loop, &d->index->all_off);
	if (down)
		down(d->index->down_context);
}

static void on_all_off(struct loop_task *t)
{
	struct daemon *d = container_of(t, struct vm_index, all_off)->daemon;

	if (!any_worker(d))
		down_end(d);
}

static void on_deadline(struct loop_timer *t)
{
	struct daemon *d = container_of(t, struct vm_index, deadline)->daemon;

	list_foreach_safe(it, &d->vms)
	{
		struct vm *vm = list_entry(it, struct vm, node);

		if (!vm->worker)
			continue;
		event_add(d->events, SEVERITY_WARNING, "vm-killed", vm->id, NULL, NULL,
			  "\"%s\" was not off when the time to shut down had passed; its process "
			  "is killed",
			  vm->settings.name);
		worker_kill(vm->worker);
	}
	down_end(d);
}

/* What cannot be done becomes a power-off, and is said. */
static void stop_instead(struct vm *vm, const char *lack)
{
	event_add(vm->daemon->events, SEVERITY_WARNING, "vm-stop-action", vm->id, NULL,
		  json_pack("{s:s}", "action", vm_stop_action_names[vm->settings.automatic.stop]),
		  "\"%s\" %s; it is powered off", vm->settings.name, lack);
	vm_power_off(vm);
}

void vm_stop_unsaved(struct vm *vm, const char *words)
{
	char lack[320];

	snprintf(lack, sizeof(lack), "cannot be saved: %.280s", words);
	stop_instead(vm, lack);
}

static void stop_by_setting(struct vm *vm, unsigned deadline_s)
{
	const struct vm_shut_down how = { .turn_off = true,
					  .timeout_s = MAX(deadline_s * 3 / 4, 1u),
					  .reason = "The host shuts down." };
	struct error err = { 0 };
	struct job *job;

	switch (vm->settings.automatic.stop) {
	case VM_STOP_ACTION_SAVE:
		if (vm_save_for_host(vm, &err) < 0)
			vm_stop_unsaved(vm, err.message);
		return;
	case VM_STOP_ACTION_SHUT_DOWN:
		/* It is powered off, with words, when it does not do it. */
		if (vm_shut_down(vm->daemon, &caller_service, vm, &how, &job, &err) < 0)
			stop_instead(vm, err.message);
		return;
	case VM_STOP_ACTION_TURN_OFF:
		vm_power_off(vm);
	}
}

/* Those that are still being saved get what is left of the time to power off. */
static void on_save_deadline(struct loop_timer *t)
{
	struct daemon *d = container_of(t, struct vm_index, save_deadline)->daemon;

	list_foreach_safe(it, &d->vms)
	{
		struct vm *vm = list_entry(it, struct vm, node);

		if (vm->worker && vm->state == VM_SAVING)
			vm_stop_unsaved(vm, "it takes longer than the host has");
	}
}

void daemon_shut_down(struct daemon *d, unsigned deadline_s, void (*done)(void *context),
		      void *context)
{
	struct vm_index *index = d->index;

	starts_free(d);
	index->shutting_down = true;
	index->down = done;
	index->down_context = context;
	loop_task_init(&index->all_off, on_all_off);
	loop_timer_init(d->loop, &index->deadline, on_deadline);
	loop_timer_arm(&index->deadline, loop_now(d->loop) + deadline_s * NS_PER_S + 1);
	loop_timer_init(d->loop, &index->save_deadline, on_save_deadline);
	loop_timer_arm(&index->save_deadline,
		       loop_now(d->loop) + deadline_s * NS_PER_S * 3 / 4 + 1);
	event_add(d->events, SEVERITY_INFORMATION, "host-shuts-down", NULL, NULL, NULL,
		  "the host shuts down; machines have %u s to stop", deadline_s);
	list_foreach_safe(it, &d->vms)
	{
		struct vm *vm = list_entry(it, struct vm, node);

		vm_timer_clear(vm);
		if (vm->worker)
			stop_by_setting(vm, deadline_s);
	}
	loop_defer(d->loop, &index->all_off);
}

void down_free(struct daemon *d)
{
	if (!d->index->shutting_down)
		return;
	d->index->down = NULL;
	loop_timer_disarm(&d->index->deadline);
	loop_timer_disarm(&d->index->save_deadline);
	loop_cancel(d->loop, &d->index->all_off);
}

/* --- both --- */

void vm_auto_state(struct vm *vm)
{
	struct vm_index *index = vm->daemon->index;
	struct vm_entry *e = entry_of(vm);

	if (e->auto_starting && vm->state != VM_STARTING) {
		e->auto_starting = false;
		if (index->starts) {
			index->starts->under_way--;
			loop_defer(vm->daemon->loop, &index->starts->task);
		}
	}
	if (index->shutting_down && index->down && !vm->worker)
		loop_defer(vm->daemon->loop, &index->all_off);
}
