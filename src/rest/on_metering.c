// SPDX-License-Identifier: MIT
/* /vms/{id}/metering: what a machine has used, if it is measured (its setting "metering"). */
#include "daemon/metering.h"
#include "daemon/vm.h"
#include "rest/api.h"

#include <errno.h>

static int find(struct call *call, struct vm **ret, struct error *err)
{
	struct target target;
	int r = vm_one(call->d, call->caller, call->id, ret, err);

	if (r < 0)
		return r;
	target = vm_target(*ret);
	r = authz_check(call->d->authz, call->caller, OP_METER, &target, err);
	if (r >= 0 && (!call->d->metering || !metering_enabled(call->d->metering, (*ret)->id)))
		r = error_set(err, -EBADFD, "it is not measured: its setting metering is off");
	return r;
}

int get_metering(struct call *call, struct error *err)
{
	struct metering_report report;
	struct vm *vm;
	int r = find(call, &vm, err);

	if (r >= 0)
		r = metering_get(call->d->metering, vm->id, &report, err);
	return r < 0 ? r : call_answer(call, 200, metering_json(&report));
}

int delete_metering(struct call *call, struct error *err)
{
	struct vm *vm;
	int r = find(call, &vm, err);

	if (r >= 0)
		r = metering_reset(call->d->metering, vm->id, err);
	if (r < 0)
		return r;
	event_add(call->d->events, SEVERITY_AUDIT, "metering-reset", vm->id, call->caller, NULL,
		  "What \"%s\" uses is measured anew", vm->settings.name);
	return call_answer_empty(call);
}
