// SPDX-License-Identifier: MIT
/*
 * See machine.h. State changes are driven by three kinds of events, all on the loop: commands, what
 * VPs requested, and "all VPs have come to the gate". A reset or an end goes: hold the VPs, reset
 * the bus (devices finish their I/O into guest memory), then rebuild the partition or free it.
 */
#include "worker/machine.h"

#include "control/command.h"
#include "devices/hvsock/hvsock.h"
#include "firmware/boot.h"
#include "firmware/memmap.h"
#include "lib/cleanup.h"
#include "lib/log.h"
#include "lib/unix_socket.h"
#include "worker/adapter_control.h"
#include "worker/disk_control.h"
#include "worker/disk_hot.h"
#include "worker/disks.h"
#include "worker/live.h"
#include "worker/memory.h"
#include "worker/platform.h"
#include "worker/saving.h"
#include "worker/service_control.h"
#include "worker/vm_description.h"
#include "worker/vp.h"

#include <cpuid.h>
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

struct machine {
	struct loop *loop;
	const struct vm_description *description;
	enum machine_state state;
	struct memmap map;
	struct gmem *gm;
	struct partition *partition;
	struct vmbus *bus;
	struct platform *platform;
	struct disks *disks;
	struct memory *memory;
	struct adapters *adapters;
	struct services *services;
	struct hvsock *hvsock;
	struct vps *vps;
	int kernel_fd, initrd_fd, state_fd;

	_Atomic unsigned requests;
	atomic_int test_status;
	struct loop_task request_task, parked_task;
	pthread_mutex_t failure_lock;
	struct error failure; /* guarded by failure_lock, like the next */
	struct log_limit crash_limit;

	struct live_storage storage;
	bool waiting;    /* paused, or about to be, until the storage is back */
	bool off_wanted; /* by someone who asked while it was resetting */
	enum machine_end end;
	int exit_status;
	void (*on_state)(void *context, enum machine_state state);
	void *on_state_context;
	void (*on_event)(void *context, json_t *event, bool may_miss);
	void *on_event_context;
	struct saving *saving;    /* or restoring */
	struct machine_save save; /* who asked */
	bool save_wanted;         /* when the VPs have come to the gate */
	bool run_again;           /* if saving fails */
	bool restored;            /* and has not run since: its bus is at rest */
	unsigned family_count;
	struct command_family families[MACHINE_FAMILIES_MAX];
};

/* --- states --- */

static const char *const state_names[] = {
	[MACHINE_STARTING] = "starting",
	[MACHINE_RUNNING] = "running",
	[MACHINE_PAUSING] = "pausing",
	[MACHINE_PAUSED] = "paused",
	[MACHINE_CRITICAL] = "paused-critical",
	[MACHINE_RESETTING] = "resetting",
	[MACHINE_SAVING] = "saving",
	[MACHINE_STOPPING] = "stopping",
	[MACHINE_OFF] = "off",
};

const char *machine_state_name(enum machine_state state)
{
	return state_names[state];
}

enum machine_state machine_state(const struct machine *m)
{
	return m->state;
}

void machine_on_state(struct machine *m, void (*fn)(void *context, enum machine_state state),
		      void *context)
{
	m->on_state = fn;
	m->on_state_context = context;
}

static void set_state(struct machine *m, enum machine_state state)
{
	m->state = state;
	if (m->on_state)
		m->on_state(m->on_state_context, state);
	if (state == MACHINE_OFF)
		loop_stop(m->loop);
}

void machine_on_event(struct machine *m, void (*fn)(void *context, json_t *event, bool may_miss),
		      void *context)
{
	m->on_event = fn;
	m->on_event_context = context;
}

void machine_tell(struct machine *m, json_t *event, bool may_miss)
{
	if (m->on_event)
		m->on_event(m->on_event_context, event, may_miss);
	json_decref(event);
}

const struct command_family *machine_families(const struct machine *m, unsigned *ret_count)
{
	*ret_count = m->family_count;
	return m->families;
}

static void save_ends(struct machine *m, int result, const struct error *err);

/* What somebody else asked for came first. */
static void save_overtaken(struct machine *m, enum machine_state state)
{
	struct error err = { 0 };

	if (!m->save_wanted || state == MACHINE_PAUSING)
		return;
	save_ends(m, error_set(&err, -ECANCELED, "the machine was reset or ended meanwhile"), &err);
}

static void begin_hold(struct machine *m, enum machine_state state)
{
	bool parked = m->state == MACHINE_PAUSED || m->state == MACHINE_CRITICAL ||
		      m->state == MACHINE_STARTING;

	save_overtaken(m, state);
	if (state != MACHINE_PAUSING)
		m->waiting = false;
	set_state(m, state);
	/* The bus is quiet only when all requests have come back. */
	if (state != MACHINE_PAUSING)
		live_reset(disks_live(m->disks));
	if (parked)
		loop_defer(m->loop, &m->parked_task);
	else
		vps_hold(m->vps);
}

static void begin_stop(struct machine *m, enum machine_end end)
{
	if (m->state == MACHINE_STOPPING || m->state == MACHINE_OFF)
		return;
	if (m->restored)
		vmbus_resume(m->bus);
	m->restored = false;
	m->end = end;
	begin_hold(m, MACHINE_STOPPING);
}

/* --- starting and resetting --- */

/* Flat segments as boot.h describes them, with the attributes that a VMCB or VMCS wants. */
static void set_segments(struct vp_registers *r, bool long_mode)
{
	const struct vp_segment data = { .limit = 0xffffffff,
					 .selector = BOOT_DATA_SELECTOR,
					 .attributes = 0xc093 };

	r->cs = (struct vp_segment){ .limit = 0xffffffff,
				     .selector = BOOT_CODE_SELECTOR,
				     .attributes = long_mode ? 0xa09b : 0xc09b };
	r->ds = r->es = r->fs = r->gs = r->ss = data;
	r->tr = (struct vp_segment){ .limit = 0x67, .attributes = 0x8b };
	r->ldt = (struct vp_segment){ .attributes = 0x82 };
}

static int set_boot_registers(struct machine *m, const struct boot_state *b)
{
	struct engine_partition *e = partition_engine(m->partition);
	bool long_mode = b->mode == BOOT_LONG64;
	struct vp_registers r;
	int error = e->engine->vp_get_registers(e, 0, &r);

	if (error < 0)
		return error;
	set_segments(&r, long_mode);
	r.gdt = (struct vp_table){ .base = b->gdt_base, .limit = b->gdt_limit };
	r.idt = (struct vp_table){ 0 };
	r.rflags = 2;
	r.rip = b->rip, r.rsp = b->rsp, r.rax = b->rax, r.rbx = b->rbx, r.rsi = b->rsi;
	r.rcx = r.rdx = r.rdi = r.rbp = 0;
	r.cr0 = long_mode ? 0x80000011 : 0x11; /* PE, ET, and PG */
	r.cr4 = long_mode ? 0x20 : 0;          /* PAE */
	r.efer = long_mode ? 0x500 : 0;        /* LME, LMA */
	r.cr3 = b->cr3;
	return e->engine->vp_set_registers(e, 0, &r);
}

static int load(struct machine *m, struct error *err)
{
	const struct boot_config config = {
		.kernel_fd = m->kernel_fd,
		.initrd_fd = m->initrd_fd,
		.cmdline = m->description->boot.command_line,
		.memmap = &m->map,
		.rsdp = platform_rsdp(m->platform),
	};
	struct boot_state state;
	int r = boot_load(m->gm, &config, &state, err);

	if (r < 0)
		return r;
	r = set_boot_registers(m, &state);
	return r < 0 ? error_errno(err, r, "cannot set the first processor's registers") : 0;
}

static void fail(struct machine *m, const struct error *err)
{
	LOCK_SCOPE(&m->failure_lock);
	if (!m->failure.code)
		m->failure = *err;
}

static void run_on(struct machine *m)
{
	m->waiting = false;
	set_state(m, MACHINE_RUNNING);
	platform_hold_input(m->platform, false);
	vps_run(m->vps);
	hvsock_pause(m->hvsock, false);
	services_resume(m->services);
}

/* From its beginning, or from a saved state. */
static void run(struct machine *m)
{
	live_running(disks_live(m->disks));
	if (m->restored)
		vmbus_resume(m->bus);
	m->restored = false;
	run_on(m);
}

/* --- saved state --- */

static struct saving_options saving_options(struct machine *m, int fd)
{
	return (struct saving_options){
		.machine = { .loop = m->loop,
			     .map = &m->map,
			     .gm = m->gm,
			     .partition = m->partition,
			     .bus = m->bus,
			     .platform = m->platform,
			     .disks = m->disks,
			     .vps = m->vps },
		.fd = fd,
		.context = m,
	};
}

static void on_save_progress(void *context, unsigned percent)
{
	struct machine *m = context;

	machine_tell(m,
		     json_pack("{s:s,s:i}", "event",
			       m->state == MACHINE_SAVING ? "saving" : "restoring", "percent",
			       (int)percent),
		     true);
}

static void restore_ends(void *context, int result, const struct error *err)
{
	struct machine *m = context;
	struct error why = *err; /* what is freed now has it */

	saving_free(steal_ptr(m->saving));
	if (result < 0 || m->off_wanted) {
		if (result < 0 && !m->off_wanted)
			fail(m, &why);
		begin_stop(m, m->off_wanted ? MACHINE_END_POWER_OFF : MACHINE_END_ERROR);
		return;
	}
	m->restored = true;
	if (m->description->state.hold)
		set_state(m, MACHINE_PAUSED);
	else
		run(m);
}

static int restore(struct machine *m, struct error *err)
{
	struct saving_options o = saving_options(m, m->state_fd);

	platform_hold_input(m->platform, true);
	o.progress = on_save_progress;
	o.done = restore_ends;
	return restoring_begin(&o, &m->saving, err);
}

int machine_start(struct machine *m, struct error *err)
{
	int r;

	if (m->state_fd >= 0 && m->state == MACHINE_STARTING)
		return restore(m, err);
	r = platform_reset(m->platform, err);
	if (r >= 0)
		r = load(m, err);
	if (r >= 0)
		run(m);
	return r < 0 ? r : 0;
}

static void save_ends(struct machine *m, int result, const struct error *err)
{
	m->save_wanted = false;
	close(steal_fd(&m->save.fd));
	m->save.done(m->save.context, result, err);
}

static void stop_when_disks_are_quiet(void *context);

static void stop_when_bus_is_quiet(void *context)
{
	struct machine *m = context;

	live_settle(disks_live(m->disks), stop_when_disks_are_quiet, m);
}

/* The guest does not run again here: what follows is the end of any machine. */
static void on_saved(void *context, int result, const struct error *err)
{
	struct machine *m = context;
	struct error why = *err; /* what is freed now has it */

	saving_free(steal_ptr(m->saving));
	if (result >= 0) {
		m->end = MACHINE_END_SAVED;
		set_state(m, MACHINE_STOPPING);
		vmbus_reset(m->bus, stop_when_bus_is_quiet, m);
		return;
	}
	save_ends(m, result, &why);
	platform_hold_input(m->platform, false);
	set_state(m, MACHINE_PAUSED);
	if (m->off_wanted)
		begin_stop(m, MACHINE_END_POWER_OFF);
	else if (m->run_again)
		run(m);
}

static void begin_saving(struct machine *m)
{
	struct saving_options o = saving_options(m, m->save.fd);
	struct error err = { 0 };
	int r;

	o.progress = on_save_progress;
	o.done = on_saved;
	set_state(m, MACHINE_SAVING);
	platform_hold_input(m->platform, true);
	m->save_wanted = false;
	r = saving_begin(&o, &m->saving, &err);
	if (r < 0)
		on_saved(m, r, &err);
}

int machine_save(struct machine *m, const struct machine_save *save, struct error *err)
{
	const struct saving_options o = saving_options(m, -1);
	int r;

	if (m->state != MACHINE_RUNNING && m->state != MACHINE_PAUSED)
		return error_set(err, -EINVAL, "the machine is %s; save needs it running or paused",
				 machine_state_name(m->state));
	r = saving_possible(&o.machine, err);
	if (r < 0)
		return r;
	m->save = *save;
	m->save_wanted = true;
	m->run_again = m->state == MACHINE_RUNNING;
	if (m->state == MACHINE_RUNNING)
		begin_hold(m, MACHINE_PAUSING);
	else
		loop_defer(m->loop, &m->parked_task);
	return 0;
}

int machine_save_cancel(struct machine *m, struct error *err)
{
	if (m->state == MACHINE_SAVING && m->saving)
		saving_cancel(m->saving);
	else
		return error_set(err, -EINVAL, "the machine is %s; nothing is being saved",
				 machine_state_name(m->state));
	return 0;
}

/* --- ending and resetting --- */

static void stop_when_disks_are_quiet(void *context)
{
	struct machine *m = context;
	struct error err = { 0 };

	if (disks_close(m->disks, &err) < 0) {
		fail(m, &err);
		m->end = MACHINE_END_ERROR;
	}
	if (m->save.fd >= 0)
		save_ends(m, m->end == MACHINE_END_SAVED ? 0 : err.code, &err);
	set_state(m, MACHINE_OFF);
}

static void reset_when_bus_is_quiet(void *context)
{
	struct machine *m = context;
	struct error err = { 0 };

	if (m->off_wanted) {
		m->end = MACHINE_END_POWER_OFF;
		set_state(m, MACHINE_STOPPING);
		stop_when_bus_is_quiet(m);
		return;
	}
	memory_reset(m->memory);
	if (partition_reset(m->partition, &err) < 0 || machine_start(m, &err) < 0) {
		fail(m, &err);
		set_state(m, MACHINE_PAUSED);
		begin_stop(m, MACHINE_END_ERROR);
	}
}

static void on_request(struct loop_task *t);

/* What a VP asked for on its way to the gate comes first. */
static void pause_end(struct machine *m)
{
	bool lost = live_storage_lost(disks_live(m->disks));
	struct error err = { 0 };

	if (m->save_wanted && lost)
		save_ends(m, error_set(&err, -EIO, "its storage is full or lost"), &err);
	if (m->save_wanted || !m->waiting || atomic_load(&m->requests)) {
		m->waiting = false;
		set_state(m, MACHINE_PAUSED);
		if (atomic_load(&m->requests))
			on_request(&m->request_task);
		else if (m->save_wanted)
			begin_saving(m);
	} else if (lost) {
		set_state(m, MACHINE_CRITICAL);
	} else {
		run_on(m);
	}
}

/*
 * Its processors stop, so that the guest does not see the time that passes. One that is paused
 * anyway is left so.
 */
static void storage_lost(struct live_storage *s)
{
	struct machine *m = container_of(s, struct machine, storage);

	if (m->state != MACHINE_RUNNING)
		return;
	m->waiting = true;
	begin_hold(m, MACHINE_PAUSING);
}

static void storage_back(struct live_storage *s)
{
	struct machine *m = container_of(s, struct machine, storage);

	if (m->state == MACHINE_CRITICAL)
		run_on(m);
}

static void on_all_parked(struct loop_task *t)
{
	struct machine *m = container_of(t, struct machine, parked_task);

	switch (m->state) {
	case MACHINE_PAUSING:
		services_pause(m->services);
		hvsock_pause(m->hvsock, true);
		pause_end(m);
		break;
	case MACHINE_RESETTING:
		vmbus_reset(m->bus, reset_when_bus_is_quiet, m);
		break;
	case MACHINE_STOPPING:
		vmbus_reset(m->bus, stop_when_bus_is_quiet, m);
		break;
	case MACHINE_STARTING:
	case MACHINE_RUNNING:
	case MACHINE_CRITICAL:
	case MACHINE_SAVING:
	case MACHINE_OFF:
		break; /* a hold that something else overtook */
	case MACHINE_PAUSED:
		if (m->save_wanted)
			begin_saving(m);
		break;
	}
}

/* --- commands --- */

static void do_pause(struct machine *m)
{
	begin_hold(m, MACHINE_PAUSING);
}

static void do_resume(struct machine *m)
{
	m->waiting = live_storage_lost(disks_live(m->disks));
	if (m->waiting)
		set_state(m, MACHINE_CRITICAL);
	else if (m->restored)
		run(m);
	else
		run_on(m);
}

static void do_reset(struct machine *m)
{
	begin_hold(m, MACHINE_RESETTING);
}

/* A reset is not left half done, nor a save: devices or the disk may be using guest memory. */
static void do_power_off(struct machine *m)
{
	m->off_wanted = true;
	if (m->saving)
		saving_cancel(m->saving);
	else if (m->state != MACHINE_RESETTING)
		begin_stop(m, MACHINE_END_POWER_OFF);
}

static const struct {
	const char *name;
	unsigned states; /* in which it is allowed */
	const char *allowed;
	void (*run)(struct machine *m);
} commands[] = {
	[MACHINE_PAUSE] = { "pause", BIT(MACHINE_RUNNING), "running", do_pause },
	[MACHINE_RESUME] = { "resume", BIT(MACHINE_PAUSED), "paused", do_resume },
	[MACHINE_RESET] = { "reset",
			    BIT(MACHINE_RUNNING) | BIT(MACHINE_PAUSED) | BIT(MACHINE_CRITICAL),
			    "running or paused", do_reset },
	[MACHINE_POWER_OFF] = { "power-off",
				BIT(MACHINE_RUNNING) | BIT(MACHINE_PAUSED) | BIT(MACHINE_CRITICAL) |
					BIT(MACHINE_PAUSING) | BIT(MACHINE_STARTING) |
					BIT(MACHINE_RESETTING) | BIT(MACHINE_SAVING),
				"running, pausing, paused, starting, saving or resetting",
				do_power_off },
};

int machine_command(struct machine *m, enum machine_command command, struct error *err)
{
	if (!(commands[command].states & BIT(m->state)))
		return error_set(err, -EINVAL, "the machine is %s; %s needs it %s",
				 machine_state_name(m->state), commands[command].name,
				 commands[command].allowed);
	commands[command].run(m);
	return 0;
}

/* --- what VPs ask for --- */

void machine_request(struct machine *m, enum machine_request request)
{
	atomic_fetch_or(&m->requests, request);
	/* The VP that asked must not run on: it finds the gate closed. */
	vps_hold(m->vps);
	loop_post(m->loop, &m->request_task);
}

void machine_fail(struct machine *m, const struct error *err)
{
	fail(m, err);
	machine_request(m, REQUEST_FAILED);
}

void machine_test_exit(struct machine *m, int status)
{
	atomic_store(&m->test_status, status);
	machine_request(m, REQUEST_TEST_EXIT);
}

/* The VPs are on their way to the gate, or there: state and gate must agree again. */
static void on_request(struct loop_task *t)
{
	struct machine *m = container_of(t, struct machine, request_task);
	unsigned requests = atomic_exchange(&m->requests, 0);

	if (m->state != MACHINE_RUNNING && m->state != MACHINE_PAUSING &&
	    m->state != MACHINE_PAUSED)
		return; /* stopping or resetting anyway */
	if (requests & REQUEST_FAILED)
		begin_stop(m, MACHINE_END_ERROR);
	else if (requests & REQUEST_TEST_EXIT)
		begin_stop(m, MACHINE_END_TEST_EXIT);
	else if (requests & REQUEST_POWER_OFF)
		begin_stop(m, MACHINE_END_POWER_OFF);
	else if (requests & REQUEST_RESET && m->description->on_reset == VM_ON_RESET_STOP)
		begin_stop(m, MACHINE_END_RESET);
	else if (requests & REQUEST_RESET)
		begin_hold(m, MACHINE_RESETTING);
}

static void vp_parked(void *context)
{
	struct machine *m = context;

	loop_post(m->loop, &m->parked_task);
}

/* The guest runs on: it may still be writing its dump. */
static void vp_crashed(void *context, const uint64_t parameters[5])
{
	struct machine *m = context;
	unsigned dropped;

	LOCK_SCOPE(&m->failure_lock);
	if (log_allowed(&m->crash_limit, &dropped))
		log_line("guest crash report: 0x%llx 0x%llx 0x%llx 0x%llx 0x%llx (%u not shown)",
			 (unsigned long long)parameters[0], (unsigned long long)parameters[1],
			 (unsigned long long)parameters[2], (unsigned long long)parameters[3],
			 (unsigned long long)parameters[4], dropped);
}

static void vp_reset(void *context)
{
	machine_request(context, REQUEST_RESET);
}

static void vp_failed(void *context, const struct error *err)
{
	machine_fail(context, err);
}

/* --- life --- */

static unsigned physical_address_bits(void)
{
	unsigned a, b, c, d;

	return __get_cpuid(0x80000008, &a, &b, &c, &d) ? a & 0xff : 36;
}

static int build_partition(struct machine *m, struct error *err)
{
	const struct vm_description *d = m->description;
	struct partition_options o = { .loop = m->loop, .vp_count = d->processors };
	uint64_t most = MAX(d->memory, d->memory_maximum);
	int r = memmap_init_growing(d->memory * MIB, most * MIB, physical_address_bits(), &m->map,
				    err);

	if (r < 0)
		return r;
	if (d->memory_locked && most > d->memory)
		return error_set(
			err, -EINVAL,
			"memory_locked: such memory cannot grow; leave out memory_maximum");
	r = gmem_new(m->map.ranges, m->map.range_count, &m->gm, err);
	if (r < 0)
		return r;
	if (d->memory_locked) {
		size_t count;
		void *base = gmem_ranges(m->gm, &count)->host;

		r = loop_buffer_register(m->loop, base, gmem_size(m->gm), err);
		if (r < 0)
			return error_prefix(err, "memory_locked");
	}
	o.engine = engine_find(d->engine, err);
	if (!o.engine)
		return -ENODEV;
	o.gm = m->gm;
	o.cold_hints = d->memory_hints && !d->memory_locked;
	return partition_new(&o, &m->partition, err);
}

static int parse_version(const char *text, uint32_t *ret, struct error *err)
{
	unsigned major, minor;

	*ret = 0;
	if (!text)
		return 0;
	if (sscanf(text, "%u.%u", &major, &minor) != 2 || major > 0xff || minor > 0xff)
		return error_set(err, -EINVAL, "\"%s\" is not a version (like \"5.3\")", text);
	*ret = major << 16 | minor;
	return 0;
}

static void on_disk_event(void *context, const struct live_event *event)
{
	bool may_miss;
	json_t *o = disk_event(event, &may_miss);

	machine_tell(context, o, may_miss);
}

static void on_memory_event(void *context, json_t *event, bool may_miss)
{
	machine_tell(context, event, may_miss);
}

static int build_memory(struct machine *m, struct error *err)
{
	const struct memory_options o = {
		.loop = m->loop,
		.bus = m->bus,
		.partition = m->partition,
		.map = &m->map,
		.locked = m->description->memory_locked,
		.offered = m->description->memory_device,
		.tell = on_memory_event,
		.context = m,
	};
	int r = memory_new(&o, &m->memory, err);

	if (r >= 0)
		m->families[m->family_count++] = memory_family(m->memory);
	return r;
}

static void on_adapter_event(void *context, const struct adapter *adapter, const char *event,
			     int error)
{
	machine_tell(context, adapter_event(adapter, event, error), false);
}

static int build_adapters(struct machine *m, struct error *err)
{
	const struct adapters_options o = { .loop = m->loop,
					    .bus = m->bus,
					    .description = m->description,
					    .event = on_adapter_event,
					    .context = m };
	int r = adapters_open(&o, &m->adapters, err);

	if (r >= 0)
		m->families[m->family_count++] = adapter_family(m->adapters);
	return r;
}

static void on_service_event(void *context, json_t *event, bool may_miss)
{
	machine_tell(context, event, may_miss);
}

static int build_services(struct machine *m, struct error *err)
{
	int r = services_new(m->loop, m->bus, m->description, &m->services, err);

	if (r >= 0)
		m->families[m->family_count++] = service_family(m->services, on_service_event, m);
	return r;
}

static int build_sockets(struct machine *m, struct error *err)
{
	const struct vm_sockets *s = &m->description->sockets;
	int fd;

	if (!s->present)
		return 0;
	if (!s->path == (s->listener < 0))
		return error_set(err, -EINVAL, "sockets: either a path or a listener");
	fd = s->path ? unix_listen(s->path, 0, 16, err)
		     : unix_listener_take((int)s->listener, "sockets.listener", err);
	return fd < 0 ? fd : hvsock_new(m->loop, m->bus, fd, &m->hvsock, err);
}

static int build_bus(struct machine *m, struct error *err)
{
	const struct vm_description *d = m->description;
	struct vmbus_options bo = { .partition = m->partition };
	struct disks_options o = { .loop = m->loop, .description = d };
	uint32_t storvsp;
	int r = parse_version(d->vmbus.max_version, &bo.max_version, err);

	if (r >= 0)
		r = parse_version(d->storvsp.max_version, &storvsp, err);
	if (r >= 0)
		r = vmbus_new(&bo, &m->bus, err);
	if (r < 0)
		return r;
	o.bus = m->bus;
	o.storvsp_version = (uint16_t)((storvsp >> 16 & 0xff) << 8 | (storvsp & 0xff));
	r = disks_open(&o, &m->disks, err);
	if (r < 0)
		return r;
	live_on_event(disks_live(m->disks), on_disk_event, m);
	m->storage = (struct live_storage){ storage_lost, storage_back };
	if (d->on_storage_error == VM_ON_STORAGE_ERROR_WAIT)
		live_on_storage(disks_live(m->disks), &m->storage);
	m->families[m->family_count++] = disk_family(disks_live(m->disks));
	m->families[m->family_count++] = disk_hot_family(m->disks);
	r = build_adapters(m, err);
	if (r >= 0)
		r = build_services(m, err);
	return r < 0 ? r : build_sockets(m, err);
}

static void serial_options(const struct vm_serial *s, struct console_options *ret)
{
	static const enum console_kind kinds[] = {
		[VM_SERIAL_KIND_NONE] = CONSOLE_NONE,
		[VM_SERIAL_KIND_DESCRIPTOR] = CONSOLE_DESCRIPTOR,
		[VM_SERIAL_KIND_SOCKET] = CONSOLE_SOCKET,
		[VM_SERIAL_KIND_PTY] = CONSOLE_PTY,
	};

	ret->kind = kinds[s->kind];
	ret->descriptor = (int)s->descriptor;
	ret->path = s->path;
	ret->history = s->history * KIB;
}

static int build_platform(struct machine *m, struct error *err)
{
	const struct vm_description *d = m->description;
	const struct vps_callbacks callbacks = {
		.parked = vp_parked,
		.crashed = vp_crashed,
		.reset = vp_reset,
		.failed = vp_failed,
		.context = m,
	};
	struct platform_options o = {
		.machine = m,
		.partition = m->partition,
		.memmap = &m->map,
		.test_devices = d->test_devices,
	};
	int r;

	for (unsigned i = 0; i < d->serial_count; i++)
		serial_options(&d->serial[i], &o.serial[i]);
	r = platform_new(m->loop, &o, &m->platform, err);
	return r < 0 ? r : vps_new(m->partition, m->platform, &callbacks, &m->vps, err);
}

static int open_boot_files(struct machine *m, struct error *err)
{
	const struct vm_description *d = m->description;
	int r = vm_file_open(&d->boot.kernel, "boot.kernel", true, err);

	if (r < 0)
		return r;
	m->kernel_fd = r;
	if (d->boot.initrd.present)
		r = m->initrd_fd = vm_file_open(&d->boot.initrd, "boot.initrd", true, err);
	if (r >= 0 && d->state.present && (d->state.path || d->state.descriptor >= 0)) {
		const struct vm_file file = { .path = d->state.path,
					      .descriptor = d->state.descriptor };

		r = m->state_fd = vm_file_open(&file, "state", true, err);
	}
	return r < 0 ? r : 0;
}

int machine_new(struct loop *loop, const struct vm_description *description, struct machine **ret,
		struct error *err)
{
	struct machine *m = calloc(1, sizeof(*m));
	int r;

	if (!m)
		return error_set(err, -ENOMEM, "out of memory");
	m->loop = loop;
	m->description = description;
	m->kernel_fd = m->initrd_fd = m->state_fd = m->save.fd = -1;
	pthread_mutex_init(&m->failure_lock, NULL);
	loop_task_init(&m->request_task, on_request);
	loop_task_init(&m->parked_task, on_all_parked);
	r = open_boot_files(m, err);
	if (r >= 0)
		r = build_partition(m, err);
	if (r >= 0)
		r = build_bus(m, err);
	if (r >= 0)
		r = build_memory(m, err);
	if (r >= 0)
		r = build_platform(m, err);
	if (r < 0) {
		machine_free(m);
		return r;
	}
	*ret = m;
	return 0;
}

void machine_free(struct machine *m)
{
	if (!m)
		return;
	vps_free(m->vps);
	loop_cancel(m->loop, &m->request_task);
	loop_cancel(m->loop, &m->parked_task);
	(void)disks_close(m->disks, NULL);
	disks_free(m->disks);
	adapters_free(m->adapters);
	services_free(m->services);
	hvsock_free(m->hvsock);
	vmbus_free(m->bus);
	memory_free(m->memory);
	platform_free(m->platform);
	partition_free(m->partition);
	gmem_free(m->gm);
	if (m->kernel_fd >= 0)
		close(m->kernel_fd);
	if (m->initrd_fd >= 0)
		close(m->initrd_fd);
	if (m->state_fd >= 0)
		close(m->state_fd);
	if (m->save.fd >= 0)
		close(m->save.fd);
	pthread_mutex_destroy(&m->failure_lock);
	free(m);
}

enum machine_end machine_end(const struct machine *m, int *ret_exit_status)
{
	*ret_exit_status = atomic_load(&m->test_status);
	return m->end;
}

const struct error *machine_failure(const struct machine *m)
{
	return &m->failure;
}

uint64_t machine_exits(const struct machine *m)
{
	return vps_exits(m->vps);
}

struct partition *machine_partition(struct machine *m)
{
	return m->partition;
}

struct vmbus *machine_bus(struct machine *m)
{
	return m->bus;
}
