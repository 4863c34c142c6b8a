// SPDX-License-Identifier: MIT
/*
 * A machine whose storage is full or lost. Its worker pauses it, sends again what failed, and runs
 * on by itself when that succeeds (live_storage.c); here it is told of, and turned off when that
 * takes longer than its critical_error_timeout. A service that takes over such a machine does not
 * know which disk it was, and counts from then on.
 */
#include "daemon/vm_internal.h"

#include <string.h>

static const char *text_of(const json_t *o, const char *key)
{
	const char *text = json_string_value(json_object_get(o, key));

	return text ? text : "?";
}

static int number_of(const json_t *o, const char *key)
{
	return (int)json_integer_value(json_object_get(o, key));
}

void vm_storage_event(struct vm *vm, const json_t *event)
{
	struct vm_entry *e = entry_of(vm);
	const json_t *disk = json_object_get(event, "disk");
	int controller = number_of(disk, "controller"), lun = number_of(disk, "lun");

	if (!strcmp(text_of(event, "event"), "storage-lost")) {
		snprintf(e->storage, sizeof(e->storage), "drive %d:%d, %.150s: %.60s", controller,
			 lun, text_of(event, "file"), text_of(event, "error"));
		text_clean(e->storage);
		event_add(vm->daemon->events, SEVERITY_ERROR, "vm-storage-lost", vm->id, NULL,
			  json_pack("{s:s,s:i,s:i}", "name", vm->settings.name, "controller",
				    controller, "lun", lun),
			  "The storage of \"%s\" cannot be used: %s", vm->settings.name,
			  e->storage);
	} else if (!strcmp(text_of(event, "event"), "storage-back")) {
		event_add(vm->daemon->events, SEVERITY_INFORMATION, "vm-storage-back", vm->id, NULL,
			  json_pack("{s:s,s:i,s:i}", "name", vm->settings.name, "controller",
				    controller, "lun", lun),
			  "The storage of \"%s\" can be used again: drive %d:%d", vm->settings.name,
			  controller, lun);
	}
}

void vm_storage_wait(struct vm *vm)
{
	struct vm_entry *e = entry_of(vm);
	unsigned minutes = vm->settings.automatic.critical_error_timeout;
	char words[sizeof(vm->state_words)];

	snprintf(words, sizeof(words),
		 "%.160s; it runs on when that is mended, or is off in %u min",
		 *e->storage ? e->storage : "its storage cannot be used", minutes);
	vm_state_set(vm, VM_PAUSED_CRITICAL, words);
	vm_timer_set(vm, VM_TIMER_STORAGE, minutes * 60);
	event_add(vm->daemon->events, SEVERITY_CRITICAL, "vm-paused-critical", vm->id, NULL,
		  json_pack("{s:s}", "name", vm->settings.name), "\"%s\" is paused: %s",
		  vm->settings.name, words);
}

void vm_storage_give_up(struct vm *vm)
{
	event_add(vm->daemon->events, SEVERITY_CRITICAL, "vm-storage-timeout", vm->id, NULL,
		  json_pack("{s:s}", "name", vm->settings.name),
		  "\"%s\" is powered off: its storage was not back within %u min",
		  vm->settings.name, vm->settings.automatic.critical_error_timeout);
	vm_power_off(vm);
}
