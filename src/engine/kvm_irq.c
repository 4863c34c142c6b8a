// SPDX-License-Identifier: MIT
/*
 * Interrupts into KVM and events out of it. Synthetic interrupt sources are raised through GSI
 * routes of type HV_SINT, made when first used; I/O APIC pins have MSI routes only so that KVM can
 * tell us of the end of their level interrupts.
 */
#include "engine/kvm_internal.h"

#include "lib/cleanup.h"

#include <errno.h>
#include <string.h>

static int routes_commit(struct kvm_partition *k)
{
	_cleanup_free_ struct kvm_irq_routing *table = NULL;

	table = calloc(1, sizeof(*table) + k->route_count * sizeof(table->entries[0]));
	if (!table)
		return -ENOMEM;
	for (unsigned i = 0; i < k->route_count; i++)
		if (k->routes[i].type)
			table->entries[table->nr++] = k->routes[i];
	return kvm_ioctl(k->vm_fd, KVM_SET_GSI_ROUTING, table);
}

void kvm_routes_reset(struct kvm_partition *k)
{
	LOCK_SCOPE(&k->routes_lock);
	memset(k->routes, 0, sizeof(k->routes));
	memset(k->sint_gsi, 0, sizeof(k->sint_gsi));
	k->route_count = ENGINE_IOAPIC_PINS;
}

int kvm_interrupt(struct engine_partition *p, uint64_t address, uint32_t data)
{
	struct kvm_msi msi = {
		.address_lo = (uint32_t)address,
		.address_hi = (uint32_t)(address >> 32),
		.data = data,
	};

	return kvm_ioctl(kvm_of(p)->vm_fd, KVM_SIGNAL_MSI, &msi);
}

int kvm_ioapic_route(struct engine_partition *p, unsigned pin, uint64_t address, uint32_t data)
{
	struct kvm_partition *k = kvm_of(p);
	struct kvm_irq_routing_entry *e;

	if (pin >= ENGINE_IOAPIC_PINS)
		return -EINVAL;
	LOCK_SCOPE(&k->routes_lock);
	e = &k->routes[pin];
	memset(e, 0, sizeof(*e));
	if (address || data) {
		e->gsi = pin;
		e->type = KVM_IRQ_ROUTING_MSI;
		e->u.msi.address_lo = (uint32_t)address;
		e->u.msi.address_hi = (uint32_t)(address >> 32);
		e->u.msi.data = data;
	}
	return routes_commit(k);
}

static int sint_route(struct kvm_partition *k, unsigned vp, unsigned sint)
{
	struct kvm_irq_routing_entry *e;
	int r;

	LOCK_SCOPE(&k->routes_lock);
	if (k->sint_gsi[vp][sint])
		return k->sint_gsi[vp][sint];
	if (k->route_count == KVM_ROUTES_MAX)
		return -ENOSPC;
	e = &k->routes[k->route_count];
	e->gsi = k->route_count;
	e->type = KVM_IRQ_ROUTING_HV_SINT;
	e->u.hv_sint.vcpu = vp;
	e->u.hv_sint.sint = sint;
	k->route_count++;
	r = routes_commit(k);
	if (r < 0) {
		k->route_count--;
		memset(e, 0, sizeof(*e));
		return r;
	}
	k->sint_gsi[vp][sint] = (uint16_t)e->gsi;
	return (int)e->gsi;
}

int kvm_sint_raise(struct engine_partition *p, unsigned vp, unsigned sint)
{
	struct kvm_partition *k = kvm_of(p);
	struct kvm_irq_level level = { .level = 1 };
	int gsi;

	if (vp >= p->vp_count || sint >= 16)
		return -EINVAL;
	gsi = __atomic_load_n(&k->sint_gsi[vp][sint], __ATOMIC_RELAXED);
	if (!gsi)
		gsi = sint_route(k, vp, sint);
	if (gsi < 0)
		return gsi;
	level.irq = (uint32_t)gsi;
	return kvm_ioctl(k->vm_fd, KVM_IRQ_LINE, &level);
}

int kvm_bind_connection(struct engine_partition *p, uint32_t connection_id, int eventfd)
{
	struct kvm_hyperv_eventfd e = {
		.conn_id = connection_id,
		.fd = eventfd,
		.flags = eventfd < 0 ? KVM_HYPERV_EVENTFD_DEASSIGN : 0,
	};
	int r = kvm_ioctl(kvm_of(p)->vm_fd, KVM_HYPERV_EVENTFD, &e);

	/* After a reset nothing is bound any more. */
	return r == -ENOENT && eventfd < 0 ? 0 : r;
}

static int bind_io(struct engine_partition *p, const struct kvm_ioeventfd *e)
{
	struct kvm_ioeventfd copy = *e;

	return kvm_ioctl(kvm_of(p)->vm_fd, KVM_IOEVENTFD, &copy);
}

int kvm_bind_pio(struct engine_partition *p, uint16_t port, unsigned size, int eventfd, bool bind)
{
	return bind_io(p, &(struct kvm_ioeventfd){
				  .addr = port,
				  .len = size,
				  .fd = eventfd,
				  .flags = KVM_IOEVENTFD_FLAG_PIO |
					   (bind ? 0 : KVM_IOEVENTFD_FLAG_DEASSIGN),
			  });
}

int kvm_bind_mmio(struct engine_partition *p, uint64_t gpa, unsigned size, int eventfd, bool bind)
{
	return bind_io(p, &(struct kvm_ioeventfd){
				  .addr = gpa,
				  .len = size,
				  .fd = eventfd,
				  .flags = bind ? 0 : KVM_IOEVENTFD_FLAG_DEASSIGN,
			  });
}
