// SPDX-License-Identifier: MIT
/*
 * Changes of a machine's settings. All is decided before anything is changed: the patch is applied
 * to a copy, the copy is judged like a file, what differs is held against what the schema says of
 * when and by whom. Then the event is durable, then the file, then memory follows. Where a running
 * worker has to change with it, that goes first, as a job (hot.h), and is taken back when anything
 * after it fails; a crash in between leaves the old settings, and the next service puts the worker
 * right.
 */
#include "daemon/vm_internal.h"

#include "daemon/hot.h"
#include "daemon/settings_change.h"
#include "daemon/vm_check.h"
#include "daemon/vm_describe.h"
#include "daemon/vm_file.h"
#include "daemon/vm_guest.h"
#include "lib/cleanup.h"
#include "lib/log.h"
#include "schema/json.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define TOLD_MAX 256 /* bytes of a value that an event repeats */

#define _cleanup_settings_ _cleanup_(vm_settings_deinit)

struct change {
	struct daemon *d;
	const struct caller *c;
	struct vm *vm;
	struct vm_settings settings; /* as they will be */
	json_t *told;                /* path: [old, new] */
	char paths[256];             /* for people */
	uint32_t operations;         /* a bit for each that it takes */
	bool limits;                 /* of its process, at once */
	bool memory;
	bool adapters; /* are among what changes */
	struct error *err;
};

static int refuse(const struct change *ch, const char *property, int code, const char *words)
{
	error_set(ch->err, code, "%s: %s", property, words);
	if (ch->err)
		snprintf(ch->err->property, sizeof(ch->err->property), "%s", property);
	return code;
}

static int check_when(const struct change *ch, const struct settings_difference *d)
{
	char words[160];

	if (d->when == SCHEMA_NOT_SET)
		return refuse(ch, d->path, -EINVAL, "is not set from outside; leave it out");
	if (d->when == SCHEMA_NEVER)
		return refuse(ch, d->path, -EINVAL,
			      "is given when the machine is made, and stays; make another one");
	if (d->when == SCHEMA_ANY_TIME || ch->vm->state == VM_OFF || ch->vm->state == VM_CRITICAL)
		return 0;
	snprintf(words, sizeof(words), "can be changed only while it is off, and it is %s; stop it",
		 vm_state_name(ch->vm->state));
	return refuse(ch, d->path, -EBADFD, words);
}

static json_t *told_value(const json_t *value)
{
	if (!value)
		return json_null();
	if (json_dumpb(value, NULL, 0, JSON_COMPACT | JSON_ENCODE_ANY) > TOLD_MAX)
		return json_string("...");
	return json_incref((json_t *)value);
}

static int on_difference(void *context, const struct settings_difference *d)
{
	struct change *ch = context;
	enum operation op = OP_CHANGE_VM;
	size_t n = strlen(ch->paths);
	int r = check_when(ch, d);

	if (r < 0)
		return r;
	/* The schema is ours: an operation that there is not is a mistake in it. */
	r = d->operation ? operation_find(d->operation, &op) : 0;
	assert(r == 0);
	ch->operations |= BIT(op);
	ch->adapters |= !strncmp(d->path, "network_adapters", 16);
	ch->limits |= !strcmp(d->path, "processors.limit") ||
		      !strcmp(d->path, "processors.weight") ||
		      !strcmp(d->path, "memory.host_maximum");
	ch->memory |= !strncmp(d->path, "memory.", 7);
	snprintf(ch->paths + n, sizeof(ch->paths) - n, "%s%s", n ? ", " : "", d->path);
	json_object_set_new(ch->told, d->path,
			    json_pack("[o,o]", told_value(d->old), told_value(d->new)));
	return 0;
}

/* Moving to another group takes the right there as well: its roles get power over the machine. */
static int check_operations(const struct change *ch)
{
	struct target there = vm_target(ch->vm);
	int r = 0;

	for (enum operation op = 0; op < OPERATION_COUNT && r == 0; op++)
		if (ch->operations & BIT(op))
			r = caller_check(ch->d, ch->c, op, ch->vm, ch->err);
	if (r < 0 || !strcmp(ch->settings.group, ch->vm->settings.group))
		return r;
	there.group = ch->settings.group;
	return authz_check(ch->d->authz, ch->c, OP_CHANGE_GROUP, &there, ch->err);
}

/* ch->settings becomes what the patch makes of them, and what differs is judged. */
static int change_decide(struct change *ch, const json_t *patch)
{
	_cleanup_json_ json_t *old = schema_encode(&vm_settings_schema, &ch->vm->settings);
	_cleanup_json_ json_t *merged = old ? merge_patch(old, patch) : NULL;
	_cleanup_json_ json_t *new = NULL;
	int r;

	if (!merged)
		return error_set(ch->err, -ENOMEM, "not enough memory");
	r = schema_decode(&vm_settings_schema, merged, &ch->settings, ch->err);
	if (r == 0)
		r = vm_adapters_fill(ch->d, &ch->settings, ch->err);
	if (r < 0)
		return r;
	new = schema_encode(&vm_settings_schema, &ch->settings);
	if (!new)
		return error_set(ch->err, -ENOMEM, "not enough memory");
	r = settings_compare(&vm_settings_schema, old, new, on_difference, ch);
	if (r == 0)
		r = check_operations(ch);
	if (r == 0)
		r = vm_check_here(ch->d, ch->c, ch->vm->folder, &ch->settings, ch->vm, ch->err);
	if (r == 0 && ch->vm->worker)
		r = vm_check_start(&ch->settings, ch->err);
	if (r == 0 && ch->memory)
		r = vm_memory_check(ch->vm, &ch->settings, ch->err);
	return r;
}

/* The event comes first: a change without one must not be, not even after a crash. */
static int change_write(struct change *ch)
{
	struct daemon *d = ch->d;
	struct vm *vm = ch->vm;
	int r = database_begin(d->db, ch->err);

	if (r < 0)
		return r;
	event_add(d->events, SEVERITY_AUDIT, "vm-changed", vm->id, ch->c,
		  json_pack("{s:O}", "changes", ch->told), "changed %s of \"%s\"", ch->paths,
		  vm->settings.name);
	r = database_commit(d->db, ch->err);
	if (r < 0)
		return r;
	r = vm_file_write(vm->folder, &ch->settings, ch->err);
	if (r == 0)
		return 0;
	vm_read(vm); /* whatever came of it */
	event_add(d->events, SEVERITY_ERROR, "vm-change-failed", vm->id, ch->c, NULL,
		  "the change of \"%s\" was not made: %s", vm->settings.name, ch->err->message);
	return r;
}

static int change_make(struct change *ch)
{
	struct error ignored = { 0 };
	int r = ch->limits && ch->vm->worker ? vm_limits_apply(ch->vm, &ch->settings, ch->err) : 0;

	if (r < 0)
		return r;
	r = change_write(ch);
	if (r == 0) {
		vm_guest_services(ch->vm, &ch->settings.integration_services);
		vm_settings_take(ch->vm, &ch->settings);
		if (ch->memory)
			vm_memory_follow(ch->vm);
		if (ch->adapters)
			vm_adapters_conflicts(ch->vm);
	} else if (ch->limits && ch->vm->worker &&
		   vm_limits_apply(ch->vm, &ch->vm->settings, &ignored) < 0) {
		log_line("vm %s: %s", ch->vm->id, ignored.message);
	}
	return r;
}

static int check_present(const struct vm *vm, struct error *err)
{
	if (vm->broken.code)
		return error_set(err, -EUCLEAN,
				 "the machine is broken: %.300s; repair it, then register its "
				 "folder again",
				 vm->broken.message);
	return 0;
}

/* --- of a running worker --- */

/* Begun with vm_change, which it outlives; or without a change, to put a worker right. */
struct vm_hot_change {
	struct vm *vm;
	struct hot *hot;
	json_t *old, *new; /* descriptions */
	struct change change;
	struct caller caller;
	struct error err;
	struct job *job; /* NULL: no change, and nobody waits */
	bool tell;
};

static void hot_change_free(struct vm_hot_change *hc)
{
	struct vm_entry *e = entry_of(hc->vm);

	e->hot = NULL;
	if (e->settle_again)
		loop_defer(hc->vm->daemon->loop, &e->settle);
	hot_free(hc->hot);
	json_decref(hc->old);
	json_decref(hc->new);
	json_decref(hc->change.told);
	vm_settings_deinit(&hc->change.settings);
	free(hc);
}

static void hot_change_end(struct vm_hot_change *hc, int result)
{
	struct job *job = hc->job;
	struct jobs *jobs = hc->vm->daemon->jobs;
	struct error err = hc->err;

	hot_change_free(hc);
	job_end(jobs, job, result, &err);
}

static int hot_change_run(struct vm_hot_change *hc, json_t *wanted, bool force,
			  void (*done)(void *, int, unsigned, const struct error *))
{
	const struct hot_options o = {
		.vm = hc->vm, .wanted = wanted, .force = force, .done = done, .context = hc
	};

	return hot_begin(&o, &hc->hot, &hc->err);
}

static void on_undone(void *context, int result, unsigned steps, const struct error *err)
{
	struct vm_hot_change *hc = context;
	struct vm *vm = hc->vm;

	(void)steps;
	hc->hot = NULL;
	if (result < 0)
		event_add(vm->daemon->events, SEVERITY_ERROR, "vm-change-not-undone", vm->id, NULL,
			  NULL, "a failed change of \"%s\" could not be taken back: %s",
			  vm->settings.name, err->message);
	hot_change_end(hc, hc->err.code);
}

static void on_changed(void *context, int result, unsigned steps, const struct error *err)
{
	struct vm_hot_change *hc = context;

	hc->hot = NULL;
	if (result < 0)
		hc->err = *err;
	else
		result = change_make(&hc->change);
	hc->err.code = result;
	if (result < 0 && steps && hot_change_run(hc, hc->old, true, on_undone) == 0)
		return;
	hot_change_end(hc, result);
}

static void on_job_cancel(struct job *job)
{
	struct vm_hot_change *hc = job->operation;

	if (hc->hot)
		hot_cancel(hc->hot);
}

static struct vm_hot_change *hot_change_new(struct vm *vm, json_t *old, json_t *new)
{
	struct vm_hot_change *hc = calloc(1, sizeof(*hc));

	if (!hc)
		return NULL;
	hc->vm = vm;
	hc->old = json_incref(old);
	hc->new = json_incref(new);
	return hc;
}

/* What the change holds becomes the job's. */
static int hot_change_begin(struct change *ch, json_t *old, json_t *new, bool force,
			    struct job **ret)
{
	struct vm_hot_change *hc = hot_change_new(ch->vm, old, new);
	int r = hc ? job_begin(ch->d->jobs, "change-vm", ch->c, ch->vm->id, &hc->job, ch->err)
		   : error_set(ch->err, -ENOMEM, "not enough memory");

	if (r < 0) {
		if (hc)
			hot_change_free(hc);
		return r;
	}
	hc->change = *ch;
	hc->caller = *ch->c;
	hc->change.c = &hc->caller;
	hc->change.err = &hc->err;
	ch->told = NULL;
	ch->settings = (struct vm_settings){ 0 };
	hc->job->operation = hc;
	hc->job->cancel = on_job_cancel;
	*ret = hc->job;
	r = hot_change_run(hc, hc->new, force, on_changed);
	if (r < 0) {
		hot_change_end(hc, r);
		return 0;
	}
	entry_of(ch->vm)->hot = hc;
	return 0;
}

/* Now, or by way of the worker. */
static int change_begin(struct change *ch, bool force, struct job **ret)
{
	struct vm_hot_change *under_way = entry_of(ch->vm)->hot;
	_cleanup_json_ json_t *old = NULL, *new = NULL;

	if (under_way && under_way->job)
		return error_set(ch->err, -EBUSY,
				 "another change of it is under way, job %s; wait for its end",
				 under_way->job->id);
	if (!ch->vm->worker)
		return change_make(ch);
	old = vm_describe_parts(&ch->vm->settings);
	new = vm_describe_parts(&ch->settings);
	if (!old || !new)
		return error_set(ch->err, -ENOMEM, "not enough memory");
	if (!hot_differs(old, new))
		return change_make(ch);
	if (under_way)
		return error_set(ch->err, -EBUSY,
				 "its worker was just taken over and is looked at; try again");
	return hot_change_begin(ch, old, new, force, ret);
}

static void on_settled(void *context, int result, unsigned steps, const struct error *err)
{
	struct vm_hot_change *hc = context;
	struct vm *vm = hc->vm;
	bool tell = hc->tell;

	hc->hot = NULL;
	hot_change_free(hc);
	if (result < 0)
		event_add(vm->daemon->events, SEVERITY_WARNING, "vm-not-settled", vm->id, NULL,
			  NULL, "\"%s\" is not what its settings say: %s", vm->settings.name,
			  err->message);
	else if (steps && tell)
		event_add(vm->daemon->events, SEVERITY_INFORMATION, "vm-settled", vm->id, NULL,
			  json_pack("{s:i}", "steps", (int)steps),
			  "what an unfinished change of \"%s\" had left was put right",
			  vm->settings.name);
}

void vm_hot_settle(struct vm *vm, bool tell)
{
	_cleanup_json_ json_t *wanted = vm_describe_parts(&vm->settings);
	struct vm_hot_change *hc;

	entry_of(vm)->settle_again = entry_of(vm)->hot != NULL;
	if (entry_of(vm)->hot || !wanted)
		return;
	hc = hot_change_new(vm, NULL, NULL);
	if (!hc)
		return;
	hc->tell = tell;
	entry_of(vm)->hot = hc;
	if (hot_change_run(hc, wanted, true, on_settled) < 0)
		hot_change_free(hc);
}

void vm_hot_end(struct vm *vm, const char *words)
{
	struct vm_hot_change *hc = entry_of(vm)->hot;

	if (!hc)
		return;
	if (hc->job && words)
		hot_change_end(hc, error_set(&hc->err, -ECANCELED, "%s", words));
	else
		hot_change_free(hc);
}

/* --- the change --- */

int vm_change(struct daemon *d, const struct caller *c, struct vm *vm, json_t *patch,
	      const struct vm_change_options *o, struct job **ret, struct error *err)
{
	struct error mine = { 0 };
	struct change ch = { .d = d, .c = c, .vm = vm, .operations = 0, .err = &mine };
	int r;

	*ret = NULL;
	if (!json_is_object(patch))
		return error_set(err, -EINVAL, "a change is an object with the settings to change");
	ch.told = json_object();
	r = ch.told ? 0 : error_set(&mine, -ENOMEM, "not enough memory");
	if (r == 0)
		r = check_present(vm, &mine);
	if (r == 0 && !json_object_size(patch))
		r = caller_check(d, c, OP_CHANGE_VM, vm, &mine);
	if (r == 0 && o->revision && o->revision != vm->revision)
		r = error_set(&mine, -ESTALE,
			      "it was changed meanwhile: it is at revision %" PRIu64
			      ", not %" PRIu64 "; read it again, then change that",
			      vm->revision, o->revision);
	if (r == 0)
		r = change_decide(&ch, patch);
	if (r == 0 && ch.operations)
		r = change_begin(&ch, o->force, ret);
	vm_settings_deinit(&ch.settings);
	json_decref(ch.told);
	if (r < 0 && err)
		*err = mine;
	return r;
}
