/* SPDX-License-Identifier: MIT */
/* Shared by the files of engine kvm only. */
#pragma once

#include "engine/state.h"

#include <linux/kvm.h>

struct kvm_vp {
	int fd;
	struct kvm_run *run;
	pthread_t thread; /* the one inside vp_run, for kicks */
	bool running;     /* guarded by lock: thread is valid */
	pthread_mutex_t lock;
};

struct kvm_route {
	bool used;
	struct kvm_irq_routing_entry entry;
};

/* A piece of a gmem range that KVM knows; its number is its place among them. */
struct kvm_slot {
	unsigned range;
	uint64_t offset, size;
};

/* One more for what a restored machine had been given. */
#define KVM_SLOTS_MAX (GMEM_MAX_RANGES + ENGINE_MAX_ADDED + 1)

/* Routes: the I/O APIC's pins, then one for each SINT that was ever raised. */
#define KVM_ROUTES_MAX (ENGINE_IOAPIC_PINS + ENGINE_MAX_VPS * 16)

struct kvm_partition {
	struct engine_partition base;
	int kvm_fd, vm_fd;
	size_t run_size;
	struct kvm_vp vps[ENGINE_MAX_VPS];
	pthread_mutex_t routes_lock;
	unsigned route_count;
	struct kvm_irq_routing_entry routes[KVM_ROUTES_MAX];
	uint16_t sint_gsi[ENGINE_MAX_VPS][16]; /* 0 = no route yet */
	bool dirty_log;
	unsigned slot_count; /* event loop's thread, like the next */
	struct kvm_slot slots[KVM_SLOTS_MAX];
	uint64_t clock_tsc; /* the host's TSC when the clock was read or set; 0 = not known */
};

static inline struct kvm_partition *kvm_of(struct engine_partition *p)
{
	return container_of(p, struct kvm_partition, base);
}

/* ioctl(2) that gives back a negative errno and goes on after signals. */
int kvm_ioctl(int fd, unsigned long request, void *argument);

/* kvm_vp.c */
int kvm_vp_open(struct kvm_partition *k, unsigned index, struct error *err);
void kvm_vp_close(struct kvm_partition *k, unsigned index);
int kvm_vp_set_cpuid(struct engine_partition *p, unsigned vp, const struct cpuid_list *list,
		     struct error *err);
int kvm_vp_get_registers(struct engine_partition *p, unsigned vp, struct vp_registers *ret);
int kvm_vp_set_registers(struct engine_partition *p, unsigned vp, const struct vp_registers *regs);
int kvm_vp_get_msr(struct engine_partition *p, unsigned vp, uint32_t msr, uint64_t *ret);
int kvm_vp_set_msr(struct engine_partition *p, unsigned vp, uint32_t msr, uint64_t value);
void kvm_vp_run(struct engine_partition *p, unsigned vp, struct vp_exit *ret);
void kvm_vp_kick(struct engine_partition *p, unsigned vp);

/* kvm_irq.c */
int kvm_interrupt(struct engine_partition *p, uint64_t address, uint32_t data);
int kvm_ioapic_route(struct engine_partition *p, unsigned pin, uint64_t address, uint32_t data);
int kvm_sint_raise(struct engine_partition *p, unsigned vp, unsigned sint);
int kvm_bind_connection(struct engine_partition *p, uint32_t connection_id, int eventfd);
int kvm_bind_pio(struct engine_partition *p, uint16_t port, unsigned size, int eventfd, bool bind);
int kvm_bind_mmio(struct engine_partition *p, uint64_t gpa, unsigned size, int eventfd, bool bind);
void kvm_routes_reset(struct kvm_partition *k);

/* kvm_state.c */
int kvm_clock_get(struct engine_partition *p, struct engine_clock *ret, struct error *err);
int kvm_clock_set(struct engine_partition *p, const struct engine_clock *clock, struct error *err);
int kvm_vp_get_state(struct engine_partition *p, unsigned vp, struct vp_state *ret,
		     struct error *err);
int kvm_vp_set_state(struct engine_partition *p, unsigned vp, const struct vp_state *state,
		     struct error *err);
