// SPDX-License-Identifier: MIT
/* Machines whose setting says so are measured while they run (metering.h); now and then, by a
 * timer. */
#include "daemon/vm_internal.h"

#include "daemon/metering.h"
#include "lib/log.h"

#include <errno.h>

#define NS_PER_S UINT64_C(1000000000)
#define SAMPLE_S 10

static bool usage_of(const struct vm *vm, struct metering_usage *ret)
{
	struct worker_usage u;

	if (!vm->worker || worker_usage_get(vm->worker, &u) < 0)
		return false;
	*ret = (struct metering_usage){
		.run = vm->started,
		.cpu_us = u.cpu_us,
		.memory = u.memory,
		.disk_read = u.read_bytes,
		.disk_written = u.written_bytes,
	};
	return true;
}

void vm_meter_follow(struct vm *vm)
{
	struct metering *m = vm->daemon->metering;
	struct metering_usage u;
	struct error err = { 0 };
	bool wanted = vm->settings.metering && !vm->broken.code;
	int r = 0;

	/* A broken machine's figures are kept for when it is repaired. */
	if (vm->broken.code || wanted == metering_enabled(m, vm->id))
		return;
	if (wanted)
		r = metering_enable(m, vm->id, usage_of(vm, &u) ? &u : NULL, &err);
	else
		r = metering_disable(m, vm->id, &err);
	if (r < 0)
		log_line("vm %s: %s", vm->id, err.message);
}

void vm_meter_sample(struct vm *vm)
{
	struct metering_usage u;

	if (vm->settings.metering && usage_of(vm, &u))
		metering_sample(vm->daemon->metering, vm->id, &u);
}

static void on_sample(struct loop_timer *t)
{
	struct daemon *d = container_of(t, struct vm_index, sample)->daemon;

	list_foreach(it, &d->vms) vm_meter_sample(list_entry(it, struct vm, node));
	loop_timer_arm(t, loop_now(d->loop) + SAMPLE_S * NS_PER_S);
}

int meter_begin(struct daemon *d, struct error *err)
{
	loop_timer_init(d->loop, &d->index->sample, on_sample);
	loop_timer_arm(&d->index->sample, loop_now(d->loop) + SAMPLE_S * NS_PER_S);
	return metering_new(d->db, d->loop, METERING_WRITE_MS, &d->metering, err);
}

void meter_end(struct daemon *d)
{
	if (d->index && d->index->sample.loop)
		loop_timer_disarm(&d->index->sample);
	metering_free(d->metering);
	d->metering = NULL;
}
