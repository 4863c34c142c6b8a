// SPDX-License-Identifier: MIT
/*
 * Taking a partition of engine kvm apart and putting it together again: clock, registers, events,
 * local APIC, MSRs. A VP's state is read and written by its own thread, while nothing runs.
 *
 * The order of writing is what KVM asks for: the APIC's base comes with the control registers and
 * before its registers, its timer's mode before the deadline, SynIC before the timers, the TSC
 * before all that compares with it, events last. A timer's count comes before its configuration,
 * because writing a count starts a timer that starts by itself.
 *
 * KVM names the MSRs that are worth saving; those of SynIC and of the timers, which it leaves out,
 * are added. One that the host refuses is an error only if the guest would see a difference.
 */
#include "engine/kvm_internal.h"

#include "lib/cleanup.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#define MSR_IA32_TSC          0x10u
#define MSR_IA32_TSC_DEADLINE 0x6e0u
#define MSR_KVM_FIRST         0x4b564d00u /* KVM's own paravirtual ones; a guest is not shown them */
#define MSR_KVM_LAST          0x4b564dffu
#define MSR_KVM_OLD_CLOCK     0x11u
#define MSR_KVM_OLD_TIME      0x12u

/* TLFS 12 and 11, by number */
#define HV_X64_MSR_GUEST_OS_ID    0x40000000u
#define HV_X64_MSR_RESET          0x40000003u
#define HV_X64_MSR_VP_INDEX       0x40000002u
#define HV_X64_MSR_TIME_REF_COUNT 0x40000020u
#define HV_X64_MSR_TSC_FREQUENCY  0x40000022u
#define HV_X64_MSR_APIC_FREQUENCY 0x40000023u
#define HV_X64_MSR_SCONTROL       0x40000080u
#define HV_X64_MSR_SVERSION       0x40000081u
#define HV_X64_MSR_SIEFP          0x40000082u
#define HV_X64_MSR_SIMP           0x40000083u
#define HV_X64_MSR_EOM            0x40000084u
#define HV_X64_MSR_SINT0          0x40000090u
#define HV_X64_MSR_STIMER0_CONFIG 0x400000b0u
#define HV_X64_MSR_STIMER_LAST    0x400000b7u
#define HV_X64_MSR_SYNDBG_FIRST   0x400000f1u
#define HV_X64_MSR_SYNDBG_LAST    0x400000ffu

/* --- clocks --- */

/* The host's TSC at the moment that *clock is from, or 0 when this kernel does not tell. */
static int read_clock(struct kvm_partition *k, struct kvm_clock_data *clock)
{
	int r;

	memset(clock, 0, sizeof(*clock));
	r = kvm_ioctl(k->vm_fd, KVM_GET_CLOCK, clock);
	k->clock_tsc = r >= 0 && clock->flags & KVM_CLOCK_HOST_TSC ? clock->host_tsc : 0;
	return r;
}

static int tsc_khz(struct kvm_partition *k)
{
	return kvm_ioctl(k->vps[0].fd, KVM_GET_TSC_KHZ, NULL);
}

int kvm_clock_get(struct engine_partition *p, struct engine_clock *ret, struct error *err)
{
	struct kvm_partition *k = kvm_of(p);
	struct kvm_clock_data clock;
	int r = read_clock(k, &clock), khz = tsc_khz(k);

	if (r < 0)
		return error_errno(err, r, "KVM does not tell the reference time");
	*ret = (struct engine_clock){ .reference_time = clock.clock,
				      .tsc_khz = khz > 0 ? (uint32_t)khz : 0 };
	return 0;
}

/*
 * The guest has measured its TSC, or was told: another rate must be scaled to that one. What
 * hosts with the same processor measure at boot differs by some parts in a million.
 */
static int set_tsc_rate(struct kvm_partition *k, uint32_t khz, struct error *err)
{
	int now = tsc_khz(k);
	int64_t off = (int64_t)khz - now;

	if (now <= 0 || !khz || (off < 0 ? -off : off) <= khz / 4000)
		return 0;
	for (unsigned i = 0; i < k->base.vp_count; i++)
		if (kvm_ioctl(k->vps[i].fd, KVM_SET_TSC_KHZ, (void *)(uintptr_t)khz) < 0)
			return error_set(err, -ENOTSUP,
					 "the guest's time stamp counter runs at %u kHz, this "
					 "host's at %d, and this processor cannot scale it",
					 khz, now);
	return 0;
}

int kvm_clock_set(struct engine_partition *p, const struct engine_clock *clock, struct error *err)
{
	struct kvm_partition *k = kvm_of(p);
	struct kvm_clock_data data = { .clock = clock->reference_time };
	int r = set_tsc_rate(k, clock->tsc_khz, err);

	if (r < 0)
		return r;
	r = kvm_ioctl(k->vm_fd, KVM_SET_CLOCK, &data);
	if (r < 0)
		return error_errno(err, r, "KVM does not take the reference time");
	/* From here on both go forward together. */
	r = read_clock(k, &data);
	return r < 0 ? error_errno(err, r, "KVM does not tell the reference time") : 0;
}

/* What KVM adds to the host's TSC for this VP. -ENXIO from kernels before 5.16. */
static int tsc_offset(struct kvm_partition *k, unsigned vp, bool set, uint64_t *offset)
{
	struct kvm_device_attr attr = {
		.group = KVM_VCPU_TSC_CTRL,
		.attr = KVM_VCPU_TSC_OFFSET,
		.addr = (uintptr_t)offset,
	};

	return kvm_ioctl(k->vps[vp].fd, set ? KVM_SET_DEVICE_ATTR : KVM_GET_DEVICE_ATTR, &attr);
}

static int get_tsc(struct kvm_partition *k, unsigned vp, uint64_t *ret)
{
	uint64_t offset;

	if (k->clock_tsc && tsc_offset(k, vp, false, &offset) >= 0) {
		*ret = k->clock_tsc + offset;
		return 0;
	}
	return kvm_vp_get_msr(&k->base, vp, MSR_IA32_TSC, ret);
}

static int set_tsc(struct kvm_partition *k, unsigned vp, uint64_t tsc)
{
	uint64_t offset = tsc - k->clock_tsc;

	if (k->clock_tsc && tsc_offset(k, vp, true, &offset) >= 0)
		return 0;
	return kvm_vp_set_msr(&k->base, vp, MSR_IA32_TSC, tsc);
}

/* --- MSRs --- */

struct index_list {
	uint32_t count;
	uint32_t indices[VP_MSRS_MAX];
};
_Static_assert(offsetof(struct kvm_msr_list, indices) == 4, "what the kernel fills in");

/* Not state, or saved in another way. */
static bool msr_left_out(uint32_t index)
{
	switch (index) {
	case MSR_IA32_TSC:
	case MSR_KVM_OLD_CLOCK:
	case MSR_KVM_OLD_TIME:
	case HV_X64_MSR_RESET:
	case HV_X64_MSR_VP_INDEX:
	case HV_X64_MSR_TIME_REF_COUNT:
	case HV_X64_MSR_TSC_FREQUENCY:
	case HV_X64_MSR_APIC_FREQUENCY:
	case HV_X64_MSR_SVERSION:
	case HV_X64_MSR_EOM:
		return true;
	default:
		return (index >= MSR_KVM_FIRST && index <= MSR_KVM_LAST) ||
		       (index >= HV_X64_MSR_SYNDBG_FIRST && index <= HV_X64_MSR_SYNDBG_LAST);
	}
}

static void list_add(struct index_list *l, uint32_t index)
{
	for (uint32_t i = 0; i < l->count; i++)
		if (l->indices[i] == index)
			return;
	if (l->count < VP_MSRS_MAX)
		l->indices[l->count++] = index;
}

static int list_msrs(struct kvm_partition *k, struct index_list *ret)
{
	int r;

	ret->count = VP_MSRS_MAX;
	r = kvm_ioctl(k->kvm_fd, KVM_GET_MSR_INDEX_LIST, ret);
	if (r < 0)
		return r;
	list_add(ret, HV_X64_MSR_SCONTROL);
	list_add(ret, HV_X64_MSR_SIEFP);
	list_add(ret, HV_X64_MSR_SIMP);
	for (uint32_t i = 0; i < 16; i++)
		list_add(ret, HV_X64_MSR_SINT0 + i);
	for (uint32_t i = HV_X64_MSR_STIMER0_CONFIG; i <= HV_X64_MSR_STIMER_LAST; i++)
		list_add(ret, i);
	return 0;
}

static int get_msrs(struct kvm_partition *k, unsigned vp, struct vp_state *s)
{
	_cleanup_free_ struct index_list *list = calloc(1, sizeof(*list));
	int r = list ? list_msrs(k, list) : -ENOMEM;

	s->msr_count = 0;
	for (uint32_t i = 0; i < (r < 0 ? 0 : list->count); i++) {
		struct vp_msr *m = &s->msrs[s->msr_count];

		m->index = list->indices[i];
		/* One that this guest does not have cannot be read. */
		if (!msr_left_out(m->index) &&
		    kvm_vp_get_msr(&k->base, vp, m->index, &m->value) >= 0)
			s->msr_count++;
	}
	return r;
}

static int set_msr(struct kvm_partition *k, unsigned vp, const struct vp_msr *m, struct error *err)
{
	uint64_t now;
	int r = kvm_vp_get_msr(&k->base, vp, m->index, &now);

	if (r >= 0 && now == m->value)
		return 0;
	if (r < 0 && !m->value)
		return 0; /* it is not there, and nobody can tell */
	r = kvm_vp_set_msr(&k->base, vp, m->index, m->value);
	return r < 0 ? error_errno(err, r,
				   "this host does not take over MSR 0x%x of processor %u, which "
				   "was 0x%llx",
				   m->index, vp, (unsigned long long)m->value)
		     : 0;
}

/* When an MSR is written: in ascending order of this number. */
static unsigned msr_turn(uint32_t index)
{
	bool timer = index >= HV_X64_MSR_STIMER0_CONFIG && index <= HV_X64_MSR_STIMER_LAST;

	if (index == HV_X64_MSR_GUEST_OS_ID)
		return 0;
	if (timer)
		return index & 1 ? 2 : 3; /* its count, its configuration */
	return index == MSR_IA32_TSC_DEADLINE ? 4 : 1;
}

static int set_msrs(struct kvm_partition *k, unsigned vp, const struct vp_state *s,
		    struct error *err)
{
	int r = 0;

	for (unsigned turn = 0; turn <= 4; turn++)
		for (uint32_t i = 0; i < s->msr_count && r >= 0; i++)
			if (!msr_left_out(s->msrs[i].index) && msr_turn(s->msrs[i].index) == turn)
				r = set_msr(k, vp, &s->msrs[i], err);
	return r;
}

/* --- floating point and vectors --- */

static unsigned xsave_size(struct kvm_partition *k)
{
	int n = kvm_ioctl(k->vm_fd, KVM_CHECK_EXTENSION, (void *)(uintptr_t)KVM_CAP_XSAVE2);

	return n > 0 ? MIN((unsigned)n, VP_XSAVE_MAX) : (unsigned)sizeof(struct kvm_xsave);
}

static int get_xsave(struct kvm_partition *k, unsigned vp, struct vp_state *s)
{
	struct kvm_xcrs xcrs = { 0 };
	int fd = k->vps[vp].fd;
	int r;

	s->xsave_size = xsave_size(k);
	memset(s->xsave, 0, sizeof(s->xsave));
	r = kvm_ioctl(fd, s->xsave_size > sizeof(struct kvm_xsave) ? KVM_GET_XSAVE2 : KVM_GET_XSAVE,
		      s->xsave);
	if (r < 0)
		return r;
	s->xcr0 = 1;
	if (kvm_ioctl(fd, KVM_GET_XCRS, &xcrs) < 0)
		return 0; /* a processor without XSAVE */
	for (unsigned i = 0; i < xcrs.nr_xcrs && i < KVM_MAX_XCRS; i++)
		if (!xcrs.xcrs[i].xcr)
			s->xcr0 = xcrs.xcrs[i].value;
	return 0;
}

static int set_xsave(struct kvm_partition *k, unsigned vp, const struct vp_state *s,
		     struct error *err)
{
	struct kvm_xcrs xcrs = { .nr_xcrs = 1, .xcrs[0] = { .value = s->xcr0 } };
	_cleanup_free_ uint8_t *area = NULL;
	int fd = k->vps[vp].fd, r = 0;

	if (s->xsave_size > xsave_size(k))
		return error_set(err, -ENOTSUP,
				 "processor %u has %u bytes of extended registers, and this host's "
				 "have %u",
				 vp, s->xsave_size, xsave_size(k));
	if (s->xcr0 != 1)
		r = kvm_ioctl(fd, KVM_SET_XCRS, &xcrs);
	if (r < 0)
		return error_errno(err, r, "this host does not take over XCR0 0x%llx",
				   (unsigned long long)s->xcr0);
	area = calloc(1, VP_XSAVE_MAX);
	if (!area)
		return error_set(err, -ENOMEM, "out of memory");
	memcpy(area, s->xsave, MIN(s->xsave_size, VP_XSAVE_MAX));
	r = kvm_ioctl(fd, KVM_SET_XSAVE, area);
	return r < 0 ? error_errno(err, r, "this host does not take over the extended registers")
		     : 0;
}

/* --- debug registers, events, activity --- */

static int get_debug(struct kvm_partition *k, unsigned vp, struct vp_state *s)
{
	struct kvm_debugregs d = { 0 };
	int r = kvm_ioctl(k->vps[vp].fd, KVM_GET_DEBUGREGS, &d);

	memcpy(s->dr, d.db, sizeof(s->dr));
	s->dr6 = d.dr6;
	s->dr7 = d.dr7;
	return r;
}

static int set_debug(struct kvm_partition *k, unsigned vp, const struct vp_state *s)
{
	struct kvm_debugregs d = { .dr6 = s->dr6, .dr7 = s->dr7 };

	memcpy(d.db, s->dr, sizeof(d.db));
	return kvm_ioctl(k->vps[vp].fd, KVM_SET_DEBUGREGS, &d);
}

static int get_events(struct kvm_partition *k, unsigned vp, struct vp_events *ret)
{
	struct kvm_vcpu_events e = { 0 };
	int r = kvm_ioctl(k->vps[vp].fd, KVM_GET_VCPU_EVENTS, &e);

	*ret = (struct vp_events){
		.exception_injected = e.exception.injected,
		.exception_pending = e.exception.pending,
		.deliver_error_code = e.exception.has_error_code,
		.exception_has_payload = e.exception_has_payload,
		.exception_vector = e.exception.nr,
		.error_code = e.exception.error_code,
		.exception_payload = e.exception_payload,
		.interrupt_injected = e.interrupt.injected,
		.interrupt_soft = e.interrupt.soft,
		.interrupt_vector = e.interrupt.nr,
		.interrupt_shadow = e.interrupt.shadow,
		.nmi_injected = e.nmi.injected,
		.nmi_pending = e.nmi.pending,
		.nmi_masked = e.nmi.masked,
		.smm = e.smi.smm,
		.smi_pending = e.smi.pending,
		.smm_inside_nmi = e.smi.smm_inside_nmi,
		.init_latched = e.smi.latched_init,
		.triple_fault_pending = e.triple_fault.pending,
		.sipi_vector = e.sipi_vector,
	};
	return r;
}

/* Without payloads (a capability that is not enabled) KVM tells a pending exception as injected. */
static int set_events(struct kvm_partition *k, unsigned vp, const struct vp_events *v)
{
	struct kvm_vcpu_events e = {
		.flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SIPI_VECTOR |
			 KVM_VCPUEVENT_VALID_SHADOW | KVM_VCPUEVENT_VALID_SMM,
		.exception = { .injected = v->exception_injected || v->exception_pending,
			       .nr = v->exception_vector,
			       .has_error_code = v->deliver_error_code,
			       .error_code = v->error_code },
		.interrupt = { .injected = v->interrupt_injected,
			       .nr = v->interrupt_vector,
			       .soft = v->interrupt_soft,
			       .shadow = v->interrupt_shadow },
		.nmi = { .injected = v->nmi_injected,
			 .pending = v->nmi_pending,
			 .masked = v->nmi_masked },
		.smi = { .smm = v->smm,
			 .pending = v->smi_pending,
			 .smm_inside_nmi = v->smm_inside_nmi,
			 .latched_init = v->init_latched },
		.sipi_vector = v->sipi_vector,
	};

	return kvm_ioctl(k->vps[vp].fd, KVM_SET_VCPU_EVENTS, &e);
}

static const uint32_t mp_states[] = {
	[VP_RUNNING] = KVM_MP_STATE_RUNNABLE,
	[VP_HALTED] = KVM_MP_STATE_HALTED,
	[VP_WAIT_FOR_SIPI] = KVM_MP_STATE_INIT_RECEIVED,
	[VP_NEVER_STARTED] = KVM_MP_STATE_UNINITIALIZED,
	[VP_SIPI_RECEIVED] = KVM_MP_STATE_SIPI_RECEIVED,
};

static int get_activity(struct kvm_partition *k, unsigned vp, uint8_t *ret)
{
	struct kvm_mp_state m = { 0 };
	int r = kvm_ioctl(k->vps[vp].fd, KVM_GET_MP_STATE, &m);

	for (uint8_t i = 0; i < ARRAY_SIZE(mp_states) && r >= 0; i++) {
		if (mp_states[i] != m.mp_state)
			continue;
		*ret = i;
		return 0;
	}
	return r < 0 ? r : -ENOTSUP;
}

static int set_activity(struct kvm_partition *k, unsigned vp, uint8_t activity)
{
	struct kvm_mp_state m;

	if (activity >= ARRAY_SIZE(mp_states))
		return -EINVAL;
	m.mp_state = mp_states[activity];
	return kvm_ioctl(k->vps[vp].fd, KVM_SET_MP_STATE, &m);
}

static int get_apic(struct kvm_partition *k, unsigned vp, struct vp_state *s)
{
	struct kvm_lapic_state apic;
	int r = kvm_ioctl(k->vps[vp].fd, KVM_GET_LAPIC, &apic);

	_Static_assert(sizeof(apic.regs) == VP_APIC_SIZE, "");
	memcpy(s->apic, apic.regs, sizeof(s->apic));
	return r;
}

static int set_apic(struct kvm_partition *k, unsigned vp, const struct vp_state *s)
{
	struct kvm_lapic_state apic;

	memcpy(apic.regs, s->apic, sizeof(apic.regs));
	return kvm_ioctl(k->vps[vp].fd, KVM_SET_LAPIC, &apic);
}

/* --- all of it --- */

/* The first thing that fails, by its name. */
#define STEP(call, what)                                                                           \
	do {                                                                                       \
		int step_ = (call);                                                                \
		if (step_ < 0)                                                                     \
			return error_errno(err, step_, "%s of processor %u", (what), vp);          \
	} while (0)

int kvm_vp_get_state(struct engine_partition *p, unsigned vp, struct vp_state *ret,
		     struct error *err)
{
	struct kvm_partition *k = kvm_of(p);

	/* First: KVM takes pending INIT and SIPI in when asked for it. */
	STEP(get_activity(k, vp, &ret->activity), "KVM does not tell the activity");
	STEP(kvm_vp_get_registers(p, vp, &ret->registers), "KVM does not tell the registers");
	STEP(get_xsave(k, vp, ret), "KVM does not tell the extended registers");
	STEP(get_debug(k, vp, ret), "KVM does not tell the debug registers");
	STEP(get_events(k, vp, &ret->events), "KVM does not tell the pending events");
	STEP(get_apic(k, vp, ret), "KVM does not tell the local APIC");
	STEP(get_tsc(k, vp, &ret->tsc), "KVM does not tell the time stamp counter");
	STEP(get_msrs(k, vp, ret), "KVM does not tell the MSRs");
	return 0;
}

int kvm_vp_set_state(struct engine_partition *p, unsigned vp, const struct vp_state *s,
		     struct error *err)
{
	struct kvm_partition *k = kvm_of(p);
	int r;

	STEP(kvm_vp_set_registers(p, vp, &s->registers), "KVM refuses the registers");
	r = set_xsave(k, vp, s, err);
	if (r < 0)
		return r;
	STEP(set_debug(k, vp, s), "KVM refuses the debug registers");
	STEP(set_tsc(k, vp, s->tsc), "KVM refuses the time stamp counter");
	STEP(set_apic(k, vp, s), "KVM refuses the local APIC");
	r = set_msrs(k, vp, s, err);
	if (r < 0)
		return r;
	STEP(set_events(k, vp, &s->events), "KVM refuses the pending events");
	STEP(set_activity(k, vp, s->activity), "KVM refuses the activity");
	return 0;
}
