// SPDX-License-Identifier: MIT
/*
 * Changes of a machine's settings. All is decided before anything is changed: the patch is applied
 * to a copy, the copy is judged like a file, what differs is held against what the schema says of
 * when and by whom. Then the event is durable, then the file, then memory follows.
 */
#include "daemon/vm_internal.h"

#include "daemon/settings_change.h"
#include "daemon/vm_check.h"
#include "daemon/vm_file.h"
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
	ch->limits |= !strcmp(d->path, "processors.limit") ||
		      !strcmp(d->path, "processors.weight") ||
		      !strcmp(d->path, "memory.host_maximum");
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
	if (r == 0)
		vm_settings_take(ch->vm, &ch->settings);
	else if (ch->limits && ch->vm->worker &&
		 vm_limits_apply(ch->vm, &ch->vm->settings, &ignored) < 0)
		log_line("vm %s: %s", ch->vm->id, ignored.message);
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

int vm_change(struct daemon *d, const struct caller *c, struct vm *vm, json_t *patch,
	      uint64_t revision, struct error *err)
{
	struct error mine = { 0 };
	struct change ch = { .d = d, .c = c, .vm = vm, .operations = 0, .err = &mine };
	int r;

	if (!json_is_object(patch))
		return error_set(err, -EINVAL, "a change is an object with the settings to change");
	ch.told = json_object();
	r = ch.told ? 0 : error_set(&mine, -ENOMEM, "not enough memory");
	if (r == 0)
		r = check_present(vm, &mine);
	if (r == 0 && !json_object_size(patch))
		r = caller_check(d, c, OP_CHANGE_VM, vm, &mine);
	if (r == 0 && revision && revision != vm->revision)
		r = error_set(&mine, -ESTALE,
			      "it was changed meanwhile: it is at revision %" PRIu64
			      ", not %" PRIu64 "; read it again, then change that",
			      vm->revision, revision);
	if (r == 0)
		r = change_decide(&ch, patch);
	if (r == 0 && ch.operations)
		r = change_make(&ch);
	vm_settings_deinit(&ch.settings);
	json_decref(ch.told);
	if (r < 0 && err)
		*err = mine;
	return r;
}
