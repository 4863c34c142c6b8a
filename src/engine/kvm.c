// SPDX-License-Identifier: MIT
/*
 * Engine kvm: Linux KVM with a split irqchip (only the local APICs in the kernel) and its Hyper-V
 * emulation. This file: whether KVM can be used, the partition and its memory. kvm_vp.c runs VPs,
 * kvm_irq.c delivers interrupts and binds events.
 *
 * KVM has no exit for the end of a SynIC message, and refuses resampling irqfds with a split
 * irqchip; an MSR filter on EOM makes the guest's write exit to us, and we hand it on to KVM.
 */
#include "engine/kvm_internal.h"

#include "lib/cleanup.h"

#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#define HV_X64_MSR_EOM 0x40000084u /* TLFS 11.11.1 */

int kvm_ioctl(int fd, unsigned long request, void *argument)
{
	int r;

	do
		r = ioctl(fd, request, argument);
	while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : r;
}

/* Scalar arguments travel in the pointer. */
static int kvm_ioctl_value(int fd, unsigned long request, unsigned long value)
{
	return kvm_ioctl(fd, request, (void *)value);
}

/* --- whether it can be used --- */

/* What the kernel must offer, and what a person is told when it does not. */
static const struct {
	int capability;
	const char *what;
} required[] = {
	{ KVM_CAP_SPLIT_IRQCHIP, "split irqchip" },
	{ KVM_CAP_IMMEDIATE_EXIT, "immediate exit" },
	{ KVM_CAP_HYPERV_SYNIC2, "Hyper-V SynIC" },
	{ KVM_CAP_HYPERV_VP_INDEX, "Hyper-V VP index" },
	{ KVM_CAP_HYPERV_EVENTFD, "Hyper-V event connections" },
	{ KVM_CAP_SYS_HYPERV_CPUID, "Hyper-V CPUID" },
	{ KVM_CAP_X86_USER_SPACE_MSR, "MSR exits" },
	{ KVM_CAP_X86_MSR_FILTER, "MSR filter" },
	/* Not used; it came with the way in which KVM hands on HvCallSignalEvent (kvm_vp.c). */
	{ KVM_CAP_HYPERV_ENFORCE_CPUID, "Hyper-V CPUID enforcement" },
};

static bool cpu_has_virtualization(void)
{
	unsigned a, b, c, d;

	if (__get_cpuid(1, &a, &b, &c, &d) && (c & BIT(5))) /* VMX */
		return true;
	return __get_cpuid(0x80000001, &a, &b, &c, &d) && (c & BIT(2)); /* SVM */
}

static int kvm_open(int *ret_fd, struct error *err)
{
	_cleanup_close_ int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	if (fd < 0 && errno == ENOENT)
		return error_set(err, -ENOENT,
				 "there is no /dev/kvm: the kernel has no KVM, its module is not "
				 "loaded (modprobe kvm_intel or kvm_amd), or virtualization is "
				 "disabled in the firmware");
	if (fd < 0 && (errno == EACCES || errno == EPERM))
		return error_set(err, -EACCES,
				 "no permission to open /dev/kvm: run as root or add yourself to "
				 "the group that owns it (usually kvm)");
	if (fd < 0)
		return error_errno(err, -errno, "cannot open /dev/kvm");
	if (!cpu_has_virtualization())
		return error_set(err, -ENODEV,
				 "/dev/kvm opens, but this CPU shows neither VT-x (vmx) nor "
				 "AMD-V (svm): guests would be interpreted, far too slowly");
	if (kvm_ioctl_value(fd, KVM_GET_API_VERSION, 0) != KVM_API_VERSION)
		return error_set(err, -ENODEV, "/dev/kvm speaks another API version than %d",
				 KVM_API_VERSION);
	for (size_t i = 0; i < ARRAY_SIZE(required); i++)
		if (kvm_ioctl_value(fd, KVM_CHECK_EXTENSION, (unsigned)required[i].capability) <= 0)
			return error_set(err, -ENODEV,
					 "the kernel's KVM lacks: %s (Linux 5.14 or later with "
					 "CONFIG_KVM_HYPERV has it)",
					 required[i].what);
	*ret_fd = steal_fd(&fd);
	return 0;
}

static int kvm_probe(uint32_t *ret_capabilities, struct error *err)
{
	_cleanup_close_ int fd = -1;
	int r = kvm_open(&fd, err);

	if (r < 0)
		return r;
	*ret_capabilities = ENGINE_CAP_SYNIC | ENGINE_CAP_REFERENCE_TSC |
			    ENGINE_CAP_EVENTFD_SIGNAL | ENGINE_CAP_DIRTY_LOG | ENGINE_CAP_EOM_EXIT |
			    ENGINE_CAP_SAVE;
	return 0;
}

/* --- CPUID --- */

static int append_cpuid(int fd, unsigned long request, struct cpuid_list *ret)
{
	_cleanup_free_ struct kvm_cpuid2 *c = NULL;
	int r;

	c = calloc(1, sizeof(*c) + CPUID_LIST_MAX * sizeof(c->entries[0]));
	if (!c)
		return -ENOMEM;
	c->nent = CPUID_LIST_MAX;
	r = kvm_ioctl(fd, request, c);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < c->nent && ret->count < CPUID_LIST_MAX; i++) {
		const struct kvm_cpuid_entry2 *e = &c->entries[i];

		/* KVM's own leaves would sit where Microsoft's belong. */
		if (request == KVM_GET_SUPPORTED_CPUID && e->function >> 28 == 4)
			continue;
		ret->entries[ret->count++] = (struct cpuid_entry){
			.function = e->function,
			.index = e->index,
			.index_matters = e->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
			.eax = e->eax,
			.ebx = e->ebx,
			.ecx = e->ecx,
			.edx = e->edx,
		};
	}
	return 0;
}

static int kvm_supported_cpuid(struct cpuid_list *ret, struct error *err)
{
	_cleanup_close_ int fd = -1;
	int r = kvm_open(&fd, err);

	if (r < 0)
		return r;
	ret->count = 0;
	r = append_cpuid(fd, KVM_GET_SUPPORTED_CPUID, ret);
	if (r >= 0)
		r = append_cpuid(fd, KVM_GET_SUPPORTED_HV_CPUID, ret);
	return r < 0 ? error_errno(err, r, "KVM does not tell the CPUID leaves it supports") : 0;
}

/* --- the partition --- */

static int enable_cap(int fd, uint32_t cap, uint64_t argument)
{
	struct kvm_enable_cap c = { .cap = cap, .args = { argument } };

	return kvm_ioctl(fd, KVM_ENABLE_CAP, &c);
}

static int filter_eom(int vm_fd)
{
	uint8_t deny = 0;
	struct kvm_msr_filter filter = {
		.flags = KVM_MSR_FILTER_DEFAULT_ALLOW,
		.ranges[0] = { .flags = KVM_MSR_FILTER_WRITE,
			       .base = HV_X64_MSR_EOM,
			       .nmsrs = 1,
			       .bitmap = &deny },
	};
	int r = enable_cap(vm_fd, KVM_CAP_X86_USER_SPACE_MSR, KVM_MSR_EXIT_REASON_FILTER);

	return r < 0 ? r : kvm_ioctl(vm_fd, KVM_X86_SET_MSR_FILTER, &filter);
}

static int slot_map(struct kvm_partition *k, unsigned number)
{
	const struct kvm_slot *slot = &k->slots[number];
	size_t count;
	const struct gmem_range *range = &gmem_ranges(k->base.gm, &count)[slot->range];
	struct kvm_userspace_memory_region region = {
		.slot = number,
		.flags = k->dirty_log ? KVM_MEM_LOG_DIRTY_PAGES : 0,
		.guest_phys_addr = range->gpa + slot->offset,
		.memory_size = slot->size,
		.userspace_addr = (uintptr_t)range->host + slot->offset,
	};

	return kvm_ioctl(k->vm_fd, KVM_SET_USER_MEMORY_REGION, &region);
}

static int map_memory(struct kvm_partition *k)
{
	size_t count;
	const struct gmem_range *ranges = gmem_ranges(k->base.gm, &count);
	int r = 0;

	k->slot_count = 0;
	for (unsigned i = 0; i < count && r >= 0; i++) {
		if (!ranges[i].size)
			continue;
		k->slots[k->slot_count] = (struct kvm_slot){ .range = i, .size = ranges[i].size };
		r = slot_map(k, k->slot_count);
		if (r >= 0)
			k->slot_count++;
	}
	return r;
}

/* A slot's size cannot change while VPs run, so what is added is a slot of its own. */
static int kvm_memory_add(struct engine_partition *p, uint64_t offset, uint64_t size)
{
	struct kvm_partition *k = kvm_of(p);
	size_t count;
	int r;

	(void)gmem_ranges(p->gm, &count);
	if (k->slot_count == KVM_SLOTS_MAX)
		return -ENOSPC;
	k->slots[k->slot_count] =
		(struct kvm_slot){ .range = (unsigned)count - 1, .offset = offset, .size = size };
	r = slot_map(k, k->slot_count);
	if (r >= 0)
		k->slot_count++;
	return r;
}

static int vm_open(struct kvm_partition *k, struct error *err)
{
	uint64_t identity_map = 0xfeffc000; /* Intel without unrestricted guest: four pages */
	int r;

	k->vm_fd = kvm_ioctl_value(k->kvm_fd, KVM_CREATE_VM, 0);
	if (k->vm_fd < 0) {
		r = k->vm_fd;
		k->vm_fd = -1;
		return error_errno(err, r, "KVM cannot create a partition");
	}
	r = kvm_ioctl(k->vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity_map);
	if (r >= 0)
		r = kvm_ioctl_value(k->vm_fd, KVM_SET_TSS_ADDR, identity_map + 4096);
	if (r >= 0)
		r = enable_cap(k->vm_fd, KVM_CAP_SPLIT_IRQCHIP, ENGINE_IOAPIC_PINS);
	if (r >= 0)
		r = filter_eom(k->vm_fd);
	if (r >= 0)
		r = map_memory(k);
	if (r < 0)
		return error_errno(err, r, "KVM cannot set up the partition");
	kvm_routes_reset(k);
	/* In VP-index order: KVM then finds a VP by its index at once. */
	for (unsigned i = 0; i < k->base.vp_count; i++) {
		r = kvm_vp_open(k, i, err);
		if (r < 0)
			return r;
	}
	return 0;
}

static void vm_close(struct kvm_partition *k)
{
	for (unsigned i = 0; i < k->base.vp_count; i++)
		kvm_vp_close(k, i);
	if (k->vm_fd >= 0)
		close(k->vm_fd);
	k->vm_fd = -1;
}

static void kvm_destroy(struct engine_partition *p)
{
	struct kvm_partition *k;

	if (!p)
		return;
	k = kvm_of(p);
	vm_close(k);
	if (k->kvm_fd >= 0)
		close(k->kvm_fd);
	for (unsigned i = 0; i < ENGINE_MAX_VPS; i++)
		pthread_mutex_destroy(&k->vps[i].lock);
	pthread_mutex_destroy(&k->routes_lock);
	free(k);
}

static int kvm_create(struct gmem *gm, unsigned vp_count, struct engine_partition **ret,
		      struct error *err)
{
	struct kvm_partition *k;
	int r;

	k = calloc(1, sizeof(*k));
	if (!k)
		return error_set(err, -ENOMEM, "out of memory");
	k->base =
		(struct engine_partition){ .engine = &engine_kvm, .vp_count = vp_count, .gm = gm };
	k->kvm_fd = k->vm_fd = -1;
	pthread_mutex_init(&k->routes_lock, NULL);
	for (unsigned i = 0; i < ENGINE_MAX_VPS; i++) {
		pthread_mutex_init(&k->vps[i].lock, NULL);
		k->vps[i].fd = -1;
	}
	r = kvm_open(&k->kvm_fd, err);
	if (r >= 0) {
		r = kvm_ioctl_value(k->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
		k->run_size = r > 0 ? (size_t)r : 0;
	}
	if (r >= 0)
		r = vm_open(k, err);
	if (r < 0) {
		kvm_destroy(&k->base);
		return r;
	}
	*ret = &k->base;
	return 0;
}

/*
 * A new VM around the same memory: KVM keeps much hidden state in a VM (SynIC, timers, reference
 * TSC page, clock), and rebuilding it from nothing is the only reset that forgets all of it.
 */
static int kvm_reset(struct engine_partition *p, struct error *err)
{
	struct kvm_partition *k = kvm_of(p);

	vm_close(k);
	return vm_open(k, err);
}

static int kvm_dirty_log_enable(struct engine_partition *p, bool on)
{
	struct kvm_partition *k = kvm_of(p);
	int r = 0;

	k->dirty_log = on;
	for (unsigned i = 0; i < k->slot_count && r >= 0; i++)
		r = slot_map(k, i);
	return r;
}

static int kvm_dirty_log_fetch(struct engine_partition *p, unsigned range, uint64_t *bitmap)
{
	struct kvm_partition *k = kvm_of(p);
	int r = 0;

	for (unsigned i = 0; i < k->slot_count && r >= 0; i++) {
		struct kvm_dirty_log log = { .slot = i };

		if (k->slots[i].range != range)
			continue;
		log.dirty_bitmap = bitmap + k->slots[i].offset / GMEM_PAGE_SIZE / 64;
		r = kvm_ioctl(k->vm_fd, KVM_GET_DIRTY_LOG, &log);
	}
	return r;
}

/* KVM serves the reference counter from its own clock: arch/x86/kvm/hyperv.c. */
static int kvm_reference_time(struct engine_partition *p, uint64_t *ret)
{
	struct kvm_clock_data clock = { 0 };
	int r = kvm_ioctl(kvm_of(p)->vm_fd, KVM_GET_CLOCK, &clock);

	if (r < 0)
		return r;
	*ret = clock.clock / 100;
	return 0;
}

const struct engine engine_kvm = {
	.name = "kvm",
	.summary = "Linux KVM with its Hyper-V emulation",
	.probe = kvm_probe,
	.supported_cpuid = kvm_supported_cpuid,
	.create = kvm_create,
	.destroy = kvm_destroy,
	.reset = kvm_reset,
	.memory_add = kvm_memory_add,
	.vp_set_cpuid = kvm_vp_set_cpuid,
	.vp_get_registers = kvm_vp_get_registers,
	.vp_set_registers = kvm_vp_set_registers,
	.vp_get_msr = kvm_vp_get_msr,
	.vp_set_msr = kvm_vp_set_msr,
	.clock_get = kvm_clock_get,
	.clock_set = kvm_clock_set,
	.vp_get_state = kvm_vp_get_state,
	.vp_set_state = kvm_vp_set_state,
	.vp_run = kvm_vp_run,
	.vp_kick = kvm_vp_kick,
	.interrupt = kvm_interrupt,
	.ioapic_route = kvm_ioapic_route,
	.sint_raise = kvm_sint_raise,
	.bind_connection = kvm_bind_connection,
	.bind_pio = kvm_bind_pio,
	.bind_mmio = kvm_bind_mmio,
	.reference_time = kvm_reference_time,
	.dirty_log_enable = kvm_dirty_log_enable,
	.dirty_log_fetch = kvm_dirty_log_fetch,
};
