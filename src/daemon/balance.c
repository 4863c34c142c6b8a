// SPDX-License-Identifier: MIT
/*
 * See balance.h. No state, no time, no I/O: balance_test.c runs it against simulated hosts.
 *
 * Three amounts of each machine: its floor, below which it is not pushed; what it wants; and where
 * it is now. The budget is what all have now, and what the host can spare or lacks. If the wants
 * fit, that is it. If not, floors come first and the rest is poured like water: all who want more
 * rise at a speed that is their weight, until they have what they want or there is none left.
 *
 * It does not swing: a machine grows at once but not by less than a step; it shrinks only after it
 * has had far more than it needs several times, and then by a part of what it has.
 */
#include "daemon/balance.h"

#define UNIT         2u  /* memory changes in 2 MiB */
#define STEP_LEAST   16u /* growth that is worth asking for, and 1/32 of what it has */
#define STEP_PART    32u
#define EXCESS_LEAST 64u /* "far more" than it needs, and 1/8 of what it has */
#define EXCESS_PART  8u
#define IDLE_TIMES   3u   /* it had that */
#define SHRINK_LEAST 256u /* in one go, or 1/4 of what it has */
#define SHRINK_PART  4u
/* How much a guest takes between two of its reports does not depend on how much it has. */
#define HEADROOM_LEAST 64u
#define SAFETY_LEAST   64u /* above what it uses, or 1/16 of that */
#define SAFETY_PART    16u
#define ROUNDS         48 /* of halving, when the water level is looked for */

static uint64_t clamp(uint64_t v, uint64_t least, uint64_t most)
{
	return MAX(MIN(v, most), least);
}

uint64_t balance_headroom(const struct balance_vm *vm)
{
	uint64_t buffer = vm->demand / 100 * vm->buffer + vm->demand % 100 * vm->buffer / 100;

	return MAX(buffer, HEADROOM_LEAST);
}

/* Who takes more goes on taking: it gets twice what it has just taken on top. */
static uint64_t wants(const struct balance_vm *vm)
{
	uint64_t want = vm->demand + balance_headroom(vm) + 2 * vm->rise;

	if (!vm->known)
		want = vm->assigned;
	want = clamp(round_up64(want, UNIT), vm->minimum, vm->maximum);
	if (want > vm->assigned && !vm->grows)
		want = vm->assigned;
	if (want < vm->assigned && !vm->shrinks)
		want = vm->assigned;
	return want;
}

/* What it uses and a little, so that it does not run out while the next report is on its way. */
static uint64_t floor_of(const struct balance_vm *vm)
{
	uint64_t safe = vm->demand + MAX(SAFETY_LEAST, vm->demand / SAFETY_PART);

	if (!vm->known || !vm->shrinks)
		return vm->assigned;
	return MIN(MAX(round_up64(safe, UNIT), vm->minimum), vm->assigned);
}

uint64_t balance_spare(const struct balance_vm *vm)
{
	return vm->assigned - floor_of(vm);
}

static uint64_t step(const struct balance_vm *vm)
{
	return MAX(STEP_LEAST, vm->assigned / STEP_PART);
}

/* --- when there is not enough --- */

/* Between floor and want, at this level of the water. */
static uint64_t share_at(const struct balance_vm *vm, double level)
{
	uint64_t floor = floor_of(vm), want = MAX(wants(vm), floor);
	double more = level * (vm->weight + 1);

	if (more >= (double)(want - floor))
		return want;
	return round_down64(floor + (uint64_t)more, UNIT) < floor
		       ? floor
		       : round_down64(floor + (uint64_t)more, UNIT);
}

static uint64_t total_at(const struct balance_vm *vms, unsigned count, double level)
{
	uint64_t total = 0;

	for (unsigned i = 0; i < count; i++)
		total += share_at(&vms[i], level);
	return total;
}

static double level_for(const struct balance_vm *vms, unsigned count, uint64_t budget)
{
	double low = 0, high = 1;

	while (total_at(vms, count, high) < budget && high < 1e12)
		high *= 2;
	for (int i = 0; i < ROUNDS; i++) {
		double middle = (low + high) / 2;

		if (total_at(vms, count, middle) <= budget)
			low = middle;
		else
			high = middle;
	}
	return low;
}

/* --- when there is --- */

static uint64_t settle(struct balance_vm *vm, uint64_t want, bool early)
{
	uint64_t has = vm->assigned, excess = has > want ? has - want : 0;

	if (want > has) {
		vm->idle = 0;
		if (want - has < step(vm) && has >= vm->demand && has >= vm->minimum &&
		    want < vm->maximum)
			return has;
		return want;
	}
	if (has > vm->maximum)
		return MAX(want, floor_of(vm));
	vm->idle = excess > MAX(EXCESS_LEAST, has / EXCESS_PART) ? vm->idle + !early : 0;
	if (vm->idle < IDLE_TIMES)
		return has;
	return has - MIN(excess, round_down64(MAX(SHRINK_LEAST, has / SHRINK_PART), UNIT));
}

/*
 * Little growth is left out, since the level moves with every report. Nobody is taken more than the
 * budget asks for, though it may have more than it wants.
 */
static void share(struct balance_vm *vms, unsigned count, uint64_t budget)
{
	double level = level_for(vms, count, budget);
	uint64_t total = 0;

	for (unsigned i = 0; i < count; i++) {
		struct balance_vm *vm = &vms[i];
		uint64_t n = share_at(vm, level);

		vm->target = n > vm->assigned && n - vm->assigned < step(vm) ? vm->assigned : n;
		vm->idle = 0;
		total += vm->target;
	}
	for (unsigned i = 0; i < count; i++) {
		struct balance_vm *vm = &vms[i];
		uint64_t less = vm->assigned > vm->target ? vm->assigned - vm->target : 0;
		uint64_t back = total < budget ? MIN(less, round_down64(budget - total, UNIT)) : 0;

		vm->target += back;
		total += back;
	}
}

struct balance_result balance(const struct balance_host *host, struct balance_vm *vms,
			      unsigned count)
{
	struct balance_result r = { 0 };
	uint64_t assigned = 0, keep = host->reserve + host->promised, total = 0;

	for (unsigned i = 0; i < count; i++) {
		assigned += vms[i].assigned;
		r.wanted += wants(&vms[i]);
	}
	if (host->available >= keep)
		r.budget = assigned + (host->pressed ? 0 : host->available - keep);
	else
		r.budget = assigned - MIN(assigned, keep - host->available);
	r.short_of = r.wanted > r.budget;
	if (!r.short_of) {
		for (unsigned i = 0; i < count; i++) {
			vms[i].target = settle(&vms[i], wants(&vms[i]), host->early);
			total += vms[i].target;
		}
		/* Who has too much still has it: the others wait for that. */
		if (total <= r.budget)
			return r;
	}
	share(vms, count, r.budget);
	return r;
}

/* --- for people --- */

const char *const balance_status_names[] = {
	[BALANCE_OK] = "ok",
	[BALANCE_LOW] = "low",
	[BALANCE_WARNING] = "warning",
	[BALANCE_UNKNOWN] = "unknown",
};

enum balance_status balance_status(const struct balance_vm *vm)
{
	if (!vm->known)
		return BALANCE_UNKNOWN;
	if (vm->assigned < vm->demand)
		return BALANCE_WARNING;
	return vm->assigned < vm->demand + balance_headroom(vm) / 2 ? BALANCE_LOW : BALANCE_OK;
}
