// SPDX-License-Identifier: MIT
/*
 * Virtual processors of engine kvm: set-up, registers, and the run loop's one step, which turns
 * KVM's exits into ours. All of it runs on the VP's thread except kvm_vp_kick.
 */
#include "engine/kvm_internal.h"

#include "lib/cleanup.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#define HV_X64_MSR_EOM       0x40000084u /* TLFS 11.11.1 */
#define HV_X64_MSR_SCONTROL  0x40000080u
#define HV_X64_MSR_CRASH_P0  0x40000100u /* TLFS 2.4.8: P0..P4, then CRASH_CTL */
#define HV_X64_MSR_CRASH_CTL 0x40000105u
#define HV_CRASH_NOTIFY      BIT64(63)
#define HVCALL_SIGNAL_EVENT  0x5du /* TLFS 11.11.2 */
#define HVCALL_FAST          BIT64(16)
#define KICK_SIGNAL          SIGUSR1

static void on_kick(int signo)
{
	(void)signo; /* its only purpose is to end the wait inside KVM_RUN */
}

static void install_kick_handler(void)
{
	struct sigaction action = { .sa_handler = on_kick };

	sigaction(KICK_SIGNAL, &action, NULL);
}

int kvm_vp_open(struct kvm_partition *k, unsigned index, struct error *err)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct kvm_enable_cap synic = { .cap = KVM_CAP_HYPERV_SYNIC2 };
	struct kvm_vp *vp = &k->vps[index];
	void *map;
	int r;

	pthread_once(&once, install_kick_handler);
	r = ioctl(k->vm_fd, KVM_CREATE_VCPU, (unsigned long)index);
	if (r < 0)
		return error_errno(err, -errno, "KVM cannot create virtual processor %u", index);
	vp->fd = r;
	map = mmap(NULL, k->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vp->fd, 0);
	if (map == MAP_FAILED)
		return error_errno(err, -errno, "cannot map the state of virtual processor %u",
				   index);
	vp->run = map;
	r = kvm_ioctl(vp->fd, KVM_ENABLE_CAP, &synic);
	if (r < 0)
		return error_errno(err, r, "KVM cannot enable the SynIC of virtual processor %u",
				   index);
	/* KVM starts it at 0; a real SynIC starts enabled (TLFS 11.8.1). */
	r = kvm_vp_set_msr(&k->base, index, HV_X64_MSR_SCONTROL, 1);
	/* What the guest reads there is whether crash reports can be sent. */
	return r < 0 ? r : kvm_vp_set_msr(&k->base, index, HV_X64_MSR_CRASH_CTL, HV_CRASH_NOTIFY);
}

void kvm_vp_close(struct kvm_partition *k, unsigned index)
{
	struct kvm_vp *vp = &k->vps[index];

	if (vp->run)
		munmap(vp->run, k->run_size);
	vp->run = NULL;
	if (vp->fd >= 0)
		close(vp->fd);
	vp->fd = -1;
}

int kvm_vp_set_cpuid(struct engine_partition *p, unsigned vp, const struct cpuid_list *list,
		     struct error *err)
{
	_cleanup_free_ struct kvm_cpuid2 *c = NULL;
	int r;

	c = calloc(1, sizeof(*c) + list->count * sizeof(c->entries[0]));
	if (!c)
		return error_set(err, -ENOMEM, "out of memory");
	c->nent = list->count;
	for (unsigned i = 0; i < list->count; i++) {
		const struct cpuid_entry *e = &list->entries[i];

		c->entries[i] = (struct kvm_cpuid_entry2){
			.function = e->function,
			.index = e->index,
			.flags = e->index_matters ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
			.eax = e->eax,
			.ebx = e->ebx,
			.ecx = e->ecx,
			.edx = e->edx,
		};
	}
	r = kvm_ioctl(kvm_of(p)->vps[vp].fd, KVM_SET_CPUID2, c);
	return r < 0 ? error_errno(err, r, "KVM refuses the CPUID of virtual processor %u", vp) : 0;
}

/* --- registers --- */

static void segment_out(struct vp_segment *to, const struct kvm_segment *from)
{
	to->base = from->base;
	to->limit = from->limit;
	to->selector = from->selector;
	to->attributes =
		(uint16_t)(from->type | from->s << 4 | from->dpl << 5 | from->present << 7 |
			   from->avl << 12 | from->l << 13 | from->db << 14 | from->g << 15);
}

static void segment_in(struct kvm_segment *to, const struct vp_segment *from)
{
	uint16_t a = from->attributes;

	*to = (struct kvm_segment){
		.base = from->base,
		.limit = from->limit,
		.selector = from->selector,
		.type = a & 15,
		.s = a >> 4 & 1,
		.dpl = a >> 5 & 3,
		.present = a >> 7 & 1,
		.avl = a >> 12 & 1,
		.l = a >> 13 & 1,
		.db = a >> 14 & 1,
		.g = a >> 15 & 1,
		.unusable = !(a >> 7 & 1),
	};
}

/* The registers that both structures have, in one list for both directions. */
#define FOR_EACH_GPR(x)                                                                            \
	x(rax) x(rbx) x(rcx) x(rdx) x(rsi) x(rdi) x(rsp) x(rbp) x(r8) x(r9) x(r10) x(r11) x(r12)   \
		x(r13) x(r14) x(r15) x(rip) x(rflags)
#define FOR_EACH_CONTROL(x) x(cr0) x(cr2) x(cr3) x(cr4) x(cr8) x(efer) x(apic_base)
#define FOR_EACH_SEGMENT(x) x(cs) x(ds) x(es) x(fs) x(gs) x(ss) x(tr) x(ldt)

int kvm_vp_get_registers(struct engine_partition *p, unsigned vp, struct vp_registers *ret)
{
	int fd = kvm_of(p)->vps[vp].fd;
	struct kvm_sregs sregs;
	struct kvm_regs regs;
	int r = kvm_ioctl(fd, KVM_GET_REGS, &regs);

	if (r >= 0)
		r = kvm_ioctl(fd, KVM_GET_SREGS, &sregs);
	if (r < 0)
		return r;
#define OUT_GPR(name)     ret->name = regs.name;
#define OUT_CONTROL(name) ret->name = sregs.name;
#define OUT_SEGMENT(name) segment_out(&ret->name, &sregs.name);
	FOR_EACH_GPR(OUT_GPR)
	FOR_EACH_CONTROL(OUT_CONTROL)
	FOR_EACH_SEGMENT(OUT_SEGMENT)
	ret->gdt = (struct vp_table){ .base = sregs.gdt.base, .limit = sregs.gdt.limit };
	ret->idt = (struct vp_table){ .base = sregs.idt.base, .limit = sregs.idt.limit };
	return 0;
}

int kvm_vp_set_registers(struct engine_partition *p, unsigned vp, const struct vp_registers *v)
{
	int fd = kvm_of(p)->vps[vp].fd;
	struct kvm_sregs sregs;
	struct kvm_regs regs = { 0 };
	int r = kvm_ioctl(fd, KVM_GET_SREGS, &sregs);

	if (r < 0)
		return r;
#define IN_GPR(name)     regs.name = v->name;
#define IN_CONTROL(name) sregs.name = v->name;
#define IN_SEGMENT(name) segment_in(&sregs.name, &v->name);
	FOR_EACH_GPR(IN_GPR)
	FOR_EACH_CONTROL(IN_CONTROL)
	FOR_EACH_SEGMENT(IN_SEGMENT)
	sregs.gdt = (struct kvm_dtable){ .base = v->gdt.base, .limit = v->gdt.limit };
	sregs.idt = (struct kvm_dtable){ .base = v->idt.base, .limit = v->idt.limit };
	r = kvm_ioctl(fd, KVM_SET_SREGS, &sregs);
	return r < 0 ? r : kvm_ioctl(fd, KVM_SET_REGS, &regs);
}

struct one_msr {
	struct kvm_msrs head;
	struct kvm_msr_entry entry;
};

int kvm_vp_get_msr(struct engine_partition *p, unsigned vp, uint32_t msr, uint64_t *ret)
{
	struct one_msr m = { .head.nmsrs = 1, .entry.index = msr };
	int r = kvm_ioctl(kvm_of(p)->vps[vp].fd, KVM_GET_MSRS, &m);

	if (r < 0)
		return r;
	if (r != 1)
		return -ENOENT;
	*ret = m.entry.data;
	return 0;
}

int kvm_vp_set_msr(struct engine_partition *p, unsigned vp, uint32_t msr, uint64_t value)
{
	struct one_msr m = { .head.nmsrs = 1, .entry = { .index = msr, .data = value } };
	int r = kvm_ioctl(kvm_of(p)->vps[vp].fd, KVM_SET_MSRS, &m);

	if (r < 0)
		return r;
	return r == 1 ? 0 : -EINVAL;
}

/* --- exits --- */

static void exit_io(struct kvm_run *run, struct vp_exit *ret)
{
	ret->kind = VP_EXIT_PIO;
	ret->pio.port = run->io.port;
	ret->pio.size = run->io.size;
	ret->pio.write = run->io.direction == KVM_EXIT_IO_OUT;
	ret->pio.count = run->io.count;
	ret->pio.data = (uint8_t *)run + run->io.data_offset;
}

static void exit_mmio(struct kvm_run *run, struct vp_exit *ret)
{
	ret->kind = VP_EXIT_MMIO;
	ret->mmio.gpa = run->mmio.phys_addr;
	ret->mmio.size = (uint8_t)MIN(run->mmio.len, 8u);
	ret->mmio.write = run->mmio.is_write;
	ret->mmio.data = run->mmio.data;
}

static void exit_hyperv(struct kvm_run *run, struct vp_exit *ret)
{
	if (run->hyperv.type == KVM_EXIT_HYPERV_HCALL) {
		ret->kind = VP_EXIT_HYPERCALL;
		ret->hypercall.control = run->hyperv.u.hcall.input;
		ret->hypercall.input = run->hyperv.u.hcall.params[0];
		ret->hypercall.output = run->hyperv.u.hcall.params[1];
		/* KVM has looked for the connection itself, and has read the input for that. */
		if ((uint16_t)ret->hypercall.control == HVCALL_SIGNAL_EVENT)
			ret->hypercall.control |= HVCALL_FAST;
		/* Two __u64 fields of a naturally aligned structure. */
		ret->hypercall.result = (uint64_t *)&run->hyperv.u.hcall.result;
		return;
	}
	ret->kind = VP_EXIT_SYNIC;
	ret->synic.control = run->hyperv.u.synic.control;
	ret->synic.simp = run->hyperv.u.synic.msg_page;
	ret->synic.siefp = run->hyperv.u.synic.evt_page;
}

static void exit_wrmsr(struct kvm_partition *k, unsigned vp, struct vp_exit *ret)
{
	struct kvm_run *run = k->vps[vp].run;

	ret->kind = VP_EXIT_EOM;
	/* KVM's own timers wait for it too. A refusal is the guest's #GP. */
	run->msr.error = run->msr.index != HV_X64_MSR_EOM ||
			 kvm_vp_set_msr(&k->base, vp, run->msr.index, run->msr.data) < 0;
}

static void exit_system_event(struct kvm_partition *k, unsigned vp, struct vp_exit *ret)
{
	switch (k->vps[vp].run->system_event.type) {
	case KVM_SYSTEM_EVENT_CRASH:
		ret->kind = VP_EXIT_CRASH;
		for (unsigned i = 0; i < 5; i++)
			if (kvm_vp_get_msr(&k->base, vp, HV_X64_MSR_CRASH_P0 + i,
					   &ret->crash.parameters[i]) < 0)
				ret->crash.parameters[i] = 0;
		if (kvm_vp_get_msr(&k->base, vp, HV_X64_MSR_CRASH_P0 + 5, &ret->crash.control) < 0)
			ret->crash.control = 0;
		break;
	default:
		ret->kind = VP_EXIT_RESET;
	}
}

static void exit_error(struct kvm_partition *k, unsigned vp, struct vp_exit *ret)
{
	const struct kvm_run *run = k->vps[vp].run;
	struct vp_registers regs;
	uint64_t rip = 0;

	if (!kvm_vp_get_registers(&k->base, vp, &regs))
		rip = regs.rip;
	ret->kind = VP_EXIT_ERROR;
	memset(&ret->error, 0, sizeof(ret->error));
	if (run->exit_reason == KVM_EXIT_FAIL_ENTRY)
		error_set(&ret->error, -EIO,
			  "the CPU refuses to enter the guest at rip 0x%llx (reason 0x%llx)",
			  (unsigned long long)rip,
			  (unsigned long long)run->fail_entry.hardware_entry_failure_reason);
	else if (run->exit_reason == KVM_EXIT_INTERNAL_ERROR)
		error_set(&ret->error, -EIO,
			  "KVM cannot emulate what the guest does at rip 0x%llx (suberror %u)",
			  (unsigned long long)rip, run->internal.suberror);
	else
		error_set(&ret->error, -EIO, "unexpected KVM exit %u at rip 0x%llx",
			  run->exit_reason, (unsigned long long)rip);
}

static void decode_exit(struct kvm_partition *k, unsigned vp, struct vp_exit *ret)
{
	struct kvm_run *run = k->vps[vp].run;

	switch (run->exit_reason) {
	case KVM_EXIT_IO:
		exit_io(run, ret);
		break;
	case KVM_EXIT_MMIO:
		exit_mmio(run, ret);
		break;
	case KVM_EXIT_HYPERV:
		exit_hyperv(run, ret);
		break;
	case KVM_EXIT_X86_WRMSR:
		exit_wrmsr(k, vp, ret);
		break;
	case KVM_EXIT_IOAPIC_EOI:
		ret->kind = VP_EXIT_IOAPIC_EOI;
		ret->ioapic_eoi.vector = run->eoi.vector;
		break;
	case KVM_EXIT_SYSTEM_EVENT:
		exit_system_event(k, vp, ret);
		break;
	case KVM_EXIT_SHUTDOWN:
		ret->kind = VP_EXIT_TRIPLE_FAULT;
		break;
	case KVM_EXIT_INTR:
	case KVM_EXIT_IRQ_WINDOW_OPEN:
		ret->kind = VP_EXIT_INTERRUPTED;
		break;
	default:
		exit_error(k, vp, ret);
	}
}

static void set_running(struct kvm_vp *vp, bool running)
{
	LOCK_SCOPE(&vp->lock);
	vp->thread = pthread_self();
	vp->running = running;
}

void kvm_vp_run(struct engine_partition *p, unsigned index, struct vp_exit *ret)
{
	struct kvm_partition *k = kvm_of(p);
	struct kvm_vp *vp = &k->vps[index];
	int r;

	if (!vp->running || vp->thread != pthread_self())
		set_running(vp, true);
	r = ioctl(vp->fd, KVM_RUN, NULL);
	if (!r) {
		decode_exit(k, index, ret);
		return;
	}
	if (errno == EINTR || errno == EAGAIN) {
		__atomic_store_n(&vp->run->immediate_exit, 0, __ATOMIC_RELAXED);
		ret->kind = VP_EXIT_INTERRUPTED;
		return;
	}
	ret->kind = VP_EXIT_ERROR;
	memset(&ret->error, 0, sizeof(ret->error));
	error_errno(&ret->error, -errno, "KVM cannot run virtual processor %u", index);
}

void kvm_vp_kick(struct engine_partition *p, unsigned index)
{
	struct kvm_vp *vp = &kvm_of(p)->vps[index];

	LOCK_SCOPE(&vp->lock);
	if (vp->run)
		__atomic_store_n(&vp->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
	if (vp->running)
		pthread_kill(vp->thread, KICK_SIGNAL);
}
