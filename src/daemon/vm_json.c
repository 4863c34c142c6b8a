// SPDX-License-Identifier: MIT
/*
 * A machine as the doors show it (docs/rest.md). Lists show thousands: what is not asked for is not
 * made, and files are looked at only for the status.
 */
#include "daemon/network.h"
#include "daemon/vm_internal.h"

#include "daemon/vm_check.h"
#include "daemon/vm_guest.h"
#include "lib/cleanup.h"

#include <string.h>
#include <time.h>

#define SAMPLE_NS    UINT64_C(1000000000) /* the least between two samples of processor time */
#define WARNINGS_MAX 64

static json_t *allowed_json(const struct vm *vm)
{
	json_t *list = json_array();
	enum vm_state next;

	for (enum vm_action a = 0; a < VM_ACTION_COUNT && !vm->broken.code; a++)
		if (vm_state_next(vm->state, a, &next, NULL) == 0)
			json_array_append_new(list, json_string(vm_action_name(a)));
	return list;
}

/* --- figures --- */

static double cpu_percent(struct vm_entry *e, uint64_t cpu_us)
{
	struct timespec t;
	uint64_t now;

	clock_gettime(CLOCK_MONOTONIC, &t);
	now = (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
	if (cpu_us < e->sample_cpu_us || !e->sample_ns) {
		e->cpu_percent = 0;
	} else if (now - e->sample_ns < SAMPLE_NS) {
		return e->cpu_percent;
	} else {
		e->cpu_percent = (double)(cpu_us - e->sample_cpu_us) * 100000 /
				 (double)(now - e->sample_ns) / e->vm.settings.processors.count;
	}
	e->sample_ns = now;
	e->sample_cpu_us = cpu_us;
	return e->cpu_percent;
}

static void add_usage(json_t *status, struct vm *vm)
{
	struct worker_usage u;

	if (!vm->worker || worker_usage_get(vm->worker, &u) < 0)
		return;
	json_object_set_new(status, "memory_mib", json_integer((json_int_t)(u.memory / MIB)));
	json_object_set_new(status, "cpu_us", json_integer((json_int_t)u.cpu_us));
	json_object_set_new(status, "cpu_percent", json_real(cpu_percent(entry_of(vm), u.cpu_us)));
	json_object_set_new(status, "read_bytes", json_integer((json_int_t)u.read_bytes));
	json_object_set_new(status, "written_bytes", json_integer((json_int_t)u.written_bytes));
}

struct warnings {
	const struct vm *vm;
	json_t *list;
};

static int warn_of_path(void *context, const char *property, const char *path)
{
	const struct warnings *w = context;
	_cleanup_free_ char *full = NULL;
	char text[640];

	if (strncmp(property, "scsi", 4) && strncmp(property, "boot", 4))
		return 0;
	if (*path != '/' && asprintf(&full, "%s/%s", w->vm->folder, path) < 0)
		return -1;
	if (access(full ? full : path, F_OK) == 0)
		return 0;
	snprintf(text, sizeof(text), "%s: %.500s is missing", property, full ? full : path);
	json_array_append_new(w->list, json_string(text));
	return json_array_size(w->list) < WARNINGS_MAX ? 0 : 1;
}

static json_t *warnings_json(const struct vm *vm)
{
	struct warnings w = { vm, json_array() };

	if (w.list && !vm->broken.code)
		vm_check_paths(&vm->settings, warn_of_path, &w);
	return w.list;
}

/* Takes over `warnings`. */
static json_t *status_json(struct vm *vm, json_t *warnings)
{
	json_t *status = json_object();
	const char *console = vm->worker ? worker_console_path(vm->worker) : NULL;

	json_object_set_new(
		status, "uptime_s",
		json_integer(vm->started ? (time_boot_ms() - vm->started_boot) / 1000 : 0));
	json_object_set_new(status, "started", json_time(vm->started));
	json_object_set_new(status, "pid",
			    vm->worker && worker_pid(vm->worker)
				    ? json_integer(worker_pid(vm->worker))
				    : json_null());
	vm_memory_status(vm, status);
	if (console)
		json_object_set_new(status, "console", json_string(console));
	if (vm->worker)
		json_object_set_new(status, "guest", vm_guest_json(vm));
	add_usage(status, vm);
	json_object_set_new(status, "addresses", networks_addresses(vm->daemon->networks, vm->id));
	json_object_set_new(status, "warnings", warnings);
	return status;
}

/* Most of thousands are off, and nothing is wrong with them. */
static const char off_text[] = "{\"uptime_s\":0,\"started\":null,\"pid\":null,"
			       "\"memory_assigned_mib\":0,\"addresses\":[],\"warnings\":[]}";

char *vm_status_text(struct vm *vm)
{
	json_t *warnings = warnings_json(vm), *json;
	char *text;

	if (!vm->worker && !vm->started && warnings && !json_array_size(warnings)) {
		json_decref(warnings);
		return strdup(off_text);
	}
	json = status_json(vm, warnings);
	text = json ? json_dumps(json, JSON_COMPACT) : NULL;
	json_decref(json);
	return text;
}

json_t *vm_json_parts(struct vm *vm, unsigned parts)
{
	json_t *json = json_pack("{s:s,s:s,s:s,s:s,s:s,s:o,s:i,s:o,s:o,s:I}", "id", vm->id, "name",
				 vm->settings.name, "folder", vm->folder, "state",
				 vm_state_name(vm->state), "state_words", vm->state_words,
				 "state_since", json_time(vm->state_since), "hyperv_state",
				 (int)vm_state_hyperv(vm->state), "broken",
				 vm->broken.code ? json_string(vm->broken.message) : json_null(),
				 "job", vm->job ? json_string(vm->job->id) : json_null(),
				 "revision", (json_int_t)vm->revision);

	if (!json)
		return NULL;
	if (parts & VM_JSON_SETTINGS)
		json_object_set_new(json, "settings",
				    schema_encode(&vm_settings_schema, &vm->settings));
	if (parts & VM_JSON_STATUS)
		json_object_set_new(json, "status", status_json(vm, warnings_json(vm)));
	json_object_set_new(json, "allowed", allowed_json(vm));
	return json;
}

json_t *vm_json(struct vm *vm)
{
	return vm_json_parts(vm, VM_JSON_SETTINGS | VM_JSON_STATUS);
}
