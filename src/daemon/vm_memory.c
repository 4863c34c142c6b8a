// SPDX-License-Identifier: MIT
/*
 * See vm_memory.h. Workers tell what changes in their guests' memory; each ten seconds, and sooner
 * when a guest comes close to its end, the balancer looks at all figures and gives machines new
 * targets. Without a guest that has the driver there is no timer.
 *
 * A target is a wish: the guest follows at its own speed, or does not. What it was asked to grow to
 * counts as its own from then on; what it was asked to give counts when it has given it.
 */
#include "daemon/vm_internal.h"

#include "daemon/vm_memory.h"
#include "lib/cleanup.h"
#include "lib/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define NS_PER_S        UINT64_C(1000000000)
#define ROUND_S         10
#define SOON_NS         UINT64_C(250000000) /* the least between two rounds */
#define ASK_TIMEOUT_MS  20000
#define PRESSED_PERCENT 10 /* of ten seconds somebody waited for memory */

static struct memory_facts *facts_of(const struct vm *vm)
{
	return &((struct vm_entry *)entry_of((struct vm *)vm))->memory;
}

/* --- figures --- */

uint64_t vm_memory_assigned(const struct vm *vm)
{
	const struct memory_facts *f = facts_of(vm);

	return f->said ? MAX(f->assigned, f->asked) : vm->settings.memory.startup;
}

uint64_t vm_memory_untouched(const struct vm *vm)
{
	struct worker_usage u;
	uint64_t all = vm_memory_assigned(vm);

	if (!vm->worker || worker_usage_get(vm->worker, &u) < 0)
		return all;
	return all - MIN(u.memory / MIB, all);
}

/* A guest that cannot add memory can still take back what it gave. */
static uint64_t can_have(const struct vm *vm)
{
	const struct memory_facts *f = facts_of(vm);

	if (!f->said)
		return vm->settings.memory.startup;
	return f->adds ? f->maximum : MAX(f->startup, f->assigned);
}

/* What a guest's memory stays at that is not to be balanced: it is nobody else's. */
static struct balance_vm balance_of(const struct vm *vm)
{
	const struct vm_memory *m = &vm->settings.memory;
	const struct memory_facts *f = facts_of(vm);
	bool ours = f->driver && vm->state == VM_RUNNING;

	return (struct balance_vm){
		.minimum = m->dynamic ? m->minimum : m->startup,
		.maximum = MIN(m->dynamic ? m->maximum : m->startup, can_have(vm)),
		.buffer = m->buffer,
		.weight = m->weight,
		.assigned = vm_memory_assigned(vm),
		/* What a static one is to have does not depend on what it needs. */
		.known = ours && (f->known || !m->dynamic),
		.demand = f->known ? f->demand : 0,
		.rise = f->rise,
		.grows = ours && can_have(vm) > f->assigned,
		.shrinks = ours && f->gives,
		.idle = f->idle,
		.target = f->asked,
	};
}

uint64_t vm_memory_spare(const struct vm *vm)
{
	struct balance_vm b = balance_of(vm);

	return vm->settings.memory.dynamic ? balance_spare(&b) : 0;
}

void vm_memory_status(const struct vm *vm, json_t *status)
{
	const struct memory_facts *f = facts_of(vm);
	struct balance_vm b = balance_of(vm);

	json_object_set_new(status, "memory_assigned_mib",
			    json_integer(!vm->worker ? 0
					 : f->said   ? (json_int_t)f->assigned
						     : vm->settings.memory.startup));
	if (!vm->worker || !f->known)
		return;
	b.assigned = f->assigned;
	json_object_set_new(status, "memory_demand_mib", json_integer((json_int_t)f->demand));
	json_object_set_new(status, "memory_target_mib", json_integer((json_int_t)f->asked));
	json_object_set_new(status, "memory_status",
			    json_string(balance_status_names[balance_status(&b)]));
}

/* Share of the last ten seconds in which somebody waited for memory (the kernel's psi.rst). */
static bool host_pressed(void)
{
	_cleanup_fclose_ FILE *f = fopen("/proc/pressure/memory", "re");
	double percent;

	return f && fscanf(f, "some avg10=%lf", &percent) == 1 && percent > PRESSED_PERCENT;
}

static void read_host(struct balance_host *ret)
{
	struct host_memory m;

	/* Without figures nothing is given out and nothing taken. */
	if (host_memory_read(&m) < 0)
		m = (struct host_memory){ 0 };
	ret->available = m.available;
	ret->pressed = host_pressed();
}

/* --- asking a worker --- */

static void ask_done(struct worker_request *r, int result, json_t *answer, const struct error *err)
{
	struct vm_entry *e = container_of(r, struct vm_entry, memory.request);

	e->memory.asking = false;
	if (result >= 0)
		vm_memory_event(&e->vm, answer);
	else if (result != -EPIPE)
		log_line("vm %s: memory: %s", e->vm.id, err ? err->message : "no answer");
}

/* `request` is taken over. False while it has not answered the one before. */
static bool ask(struct vm *vm, json_t *request)
{
	struct memory_facts *f = facts_of(vm);

	if (f->asking || !request) {
		json_decref(request);
		return false;
	}
	memset(&f->request, 0, sizeof(f->request));
	list_init(&f->request.node);
	f->request.done = ask_done;
	f->asking = true;
	worker_ask(vm->worker, &f->request, request, NULL, 0, ASK_TIMEOUT_MS);
	json_decref(request);
	return true;
}

static void set_target(struct vm *vm, uint64_t target)
{
	struct memory_facts *f = facts_of(vm);

	if (target == f->asked || !vm->worker || !f->driver)
		return;
	if (ask(vm, json_pack("{s:s,s:I}", "command", "memory-set", "target", (json_int_t)target)))
		f->asked = target;
}

/* --- the balancer --- */

static void tell_shortage(struct daemon *d, const struct balance_result *r)
{
	if (r->short_of && !d->index->memory_short)
		event_add(d->events, SEVERITY_WARNING, "memory-short", NULL, NULL,
			  json_pack("{s:I,s:I}", "wanted_mib", (json_int_t)r->wanted, "budget_mib",
				    (json_int_t)r->budget),
			  "machines could use %" PRIu64 " MiB of memory, and may have %" PRIu64,
			  r->wanted, r->budget);
	d->index->memory_short = r->short_of;
}

static void apply(struct daemon *d, const struct balance_vm *vms)
{
	unsigned i = 0;

	list_foreach(it, &d->vms)
	{
		struct vm *vm = list_entry(it, struct vm, node);

		if (!vm->worker)
			continue;
		facts_of(vm)->idle = vms[i].idle;
		facts_of(vm)->rise = 0;
		set_target(vm, vms[i++].target);
	}
}

/* Whether there is a guest that could follow. */
static bool balance_all(struct daemon *d)
{
	_cleanup_free_ struct balance_vm *vms = calloc(d->vm_count + 1, sizeof(*vms));
	struct balance_host host = { .reserve = d->host.memory_reserve };
	uint64_t now = loop_now(d->loop);
	struct balance_result r;
	unsigned count = 0;
	bool any = false;

	if (!vms)
		return true;
	d->index->memory_facts(&host);
	host.early = now < d->index->balanced + (ROUND_S - 1) * NS_PER_S;
	list_foreach(it, &d->vms)
	{
		const struct vm *vm = list_entry(it, struct vm, node);

		if (!vm->worker)
			continue;
		vms[count++] = balance_of(vm);
		host.promised += vm_memory_untouched(vm);
		any = any || facts_of(vm)->driver;
	}
	r = balance(&host, vms, count);
	tell_shortage(d, &r);
	apply(d, vms);
	if (!host.early)
		d->index->balanced = now;
	d->index->balanced_any = now;
	return any;
}

static void on_balance(struct loop_timer *t)
{
	struct daemon *d = container_of(t, struct vm_index, balance)->daemon;

	if (balance_all(d))
		loop_timer_arm(t, loop_now(d->loop) + ROUND_S * NS_PER_S);
}

static void balance_within(struct daemon *d, uint64_t seconds)
{
	struct loop_timer *t = &d->index->balance;
	uint64_t now = loop_now(d->loop);
	uint64_t when = MAX(d->index->balanced_any + SOON_NS, now + seconds * NS_PER_S);

	if (!t->deadline || t->deadline > when)
		loop_timer_arm(t, when + 1);
}

/* --- what workers say --- */

static uint64_t number(const json_t *o, const char *key)
{
	json_int_t n = json_integer_value(json_object_get(o, key));

	return n > 0 ? (uint64_t)n : 0;
}

static void take(struct vm *vm, const json_t *o)
{
	struct memory_facts *f = facts_of(vm);
	const json_t *driver = json_object_get(o, "driver");

	if (!f->said)
		f->asked = number(o, "target");
	f->said = true;
	f->driver = json_is_object(driver);
	f->gives = json_is_true(json_object_get(driver, "can_give"));
	f->adds = json_is_true(json_object_get(driver, "can_add"));
	f->startup = number(o, "startup");
	if (f->assigned != number(o, "assigned"))
		f->refused = false;
	f->assigned = number(o, "assigned");
	f->maximum = number(o, "maximum");
	f->resident = number(o, "resident");
	if (f->known && number(o, "demand") > f->demand)
		f->rise += number(o, "demand") - f->demand;
	f->known = json_object_get(o, "demand");
	f->demand = number(o, "demand");
	f->available = number(o, "available");
}

/* Half of its buffer is gone: it does not wait for the next round. */
static bool is_close(const struct vm *vm)
{
	const struct memory_facts *f = facts_of(vm);
	struct balance_vm b = balance_of(vm);

	return vm->settings.memory.dynamic && f->known && f->asked < b.maximum &&
	       f->asked < f->demand + f->rise + balance_headroom(&b) / 2;
}

static void refused(struct vm *vm, const char *what)
{
	struct memory_facts *f = facts_of(vm);
	bool grow = what && !strcmp(what, "grow");

	/* What it did not take is nobody's. That a guest gives less than asked is its right. */
	if (grow)
		f->asked = f->assigned;
	if (f->refused || (!grow && vm->settings.memory.dynamic))
		return;
	f->refused = true;
	event_add(vm->daemon->events, SEVERITY_WARNING, "vm-memory-refused", vm->id, NULL,
		  json_pack("{s:s,s:s,s:I}", "name", vm->settings.name, "what",
			    grow ? "grow" : "shrink", "assigned_mib", (json_int_t)f->assigned),
		  "the guest of \"%s\" did not %s as far as it was asked to: it has %" PRIu64
		  " MiB",
		  vm->settings.name, grow ? "take memory" : "give memory back", f->assigned);
}

void vm_memory_event(struct vm *vm, const json_t *event)
{
	const json_t *memory = json_object_get(event, "memory");
	const char *kind = json_string_value(json_object_get(event, "event"));

	if (!json_is_object(memory))
		return;
	take(vm, memory);
	if (kind && !strcmp(kind, "memory-refused"))
		refused(vm, json_string_value(json_object_get(event, "what")));
	if (facts_of(vm)->driver)
		balance_within(vm->daemon, is_close(vm) ? 0 : ROUND_S);
}

/* --- from outside --- */

void vm_memory_running(struct vm *vm)
{
	if (!facts_of(vm)->said)
		ask(vm, json_pack("{s:s}", "command", "memory-query"));
}

void vm_memory_gone(struct vm *vm)
{
	struct memory_facts *f = facts_of(vm);

	if (f->asking)
		worker_ask_cancel(&f->request);
	memset(f, 0, sizeof(*f));
}

static int refuse(struct error *err, const char *words)
{
	error_set(err, -EBADFD, "memory.startup: %s", words);
	if (err)
		snprintf(err->property, sizeof(err->property), "memory.startup");
	return -EBADFD;
}

int vm_memory_check(const struct vm *vm, const struct vm_settings *s, struct error *err)
{
	const struct memory_facts *f = facts_of(vm);
	const struct vm_memory *was = &vm->settings.memory;
	char words[128];

	/* Where memory lies follows from both. */
	if (vm->state == VM_SAVED &&
	    (s->memory.startup != was->startup || s->memory.maximum != was->maximum))
		return refuse(err,
			      "can be changed only while it is off, and it is saved, with that "
			      "memory; start it, or discard its saved state");
	if (!vm->worker || s->memory.dynamic || s->memory.startup == vm->settings.memory.startup)
		return 0;
	if (s->memory.locked)
		return refuse(err, "locked memory neither grows nor shrinks; stop the machine");
	if (!f->driver)
		return refuse(err, "the guest has no driver for dynamic memory (Linux: hv_balloon) "
				   "that listens; stop the machine");
	if (s->memory.startup <= can_have(vm))
		return 0;
	snprintf(words, sizeof(words), "it can grow to %" PRIu64 " MiB while it runs; stop it",
		 can_have(vm));
	return refuse(err, words);
}

void vm_memory_follow(struct vm *vm)
{
	if (vm->worker)
		balance_within(vm->daemon, 0);
}

void memory_facts_from(struct daemon *d, void (*fn)(struct balance_host *ret))
{
	d->index->memory_facts = fn ? fn : read_host;
}

void memory_begin(struct daemon *d)
{
	memory_facts_from(d, NULL);
	loop_timer_init(d->loop, &d->index->balance, on_balance);
}

void memory_end(struct daemon *d)
{
	if (d->index && d->index->balance.loop)
		loop_timer_disarm(&d->index->balance);
}
