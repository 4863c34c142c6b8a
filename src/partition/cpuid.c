// SPDX-License-Identifier: MIT
/*
 * The CPUID policy: what the engine supports, minus what is not offered (yet), with the identity
 * "Microsoft Hv" that in-box drivers look for, and a topology of one socket with one thread a core.
 * Pure functions; called while the partition is built. TLFS 2.4.
 */
#include "partition/partition.h"

#include <errno.h>
#include <string.h>

/* Leaves that are not shown: their features are not offered, or make no sense in a guest. */
static bool leaf_hidden(uint32_t function)
{
	return function == HV_CPUID_NESTED ||                          /* nested virtualization */
	       (function >= 0x40000080u && function <= 0x400000ffu) || /* synthetic debugging */
	       function == 0x8000000au ||                              /* SVM */
	       function == 0x1fu; /* the same as 0xb, in more words */
}

static unsigned bits_for(unsigned count)
{
	unsigned bits = 0;

	while ((1u << bits) < count)
		bits++;
	return bits;
}

static void patch_vendor(struct cpuid_entry *e)
{
	memcpy(&e->ebx, "Micr", 4);
	memcpy(&e->ecx, "osof", 4);
	memcpy(&e->edx, "t Hv", 4);
}

static void patch_architectural(struct cpuid_entry *e, unsigned vp, unsigned vp_count)
{
	switch (e->function) {
	case 1:
		e->ebx = (e->ebx & 0xffff) | (vp & 0xff) << 24 | MIN(vp_count, 255u) << 16;
		e->ecx &= ~BIT(5); /* VMX: no nested virtualization yet */
		e->ecx |= BIT(31); /* a hypervisor is present, TLFS 2.3 */
		if (vp_count > 1)
			e->edx |= BIT(28); /* the count in EBX is valid */
		else
			e->edx &= ~BIT(28);
		break;
	case 4: /* Intel: cores of the package, threads sharing a cache */
		if (e->eax & 0x1f)
			e->eax = (e->eax & 0x3fff) | MIN(vp_count - 1, 63u) << 26;
		break;
	case 0x80000001u:
		e->ecx &= ~BIT(2); /* SVM */
		break;
	case 0x80000008u: /* AMD: cores of the package */
		e->ecx = (e->ecx & ~0xf0ffu) | MIN(vp_count - 1, 255u) | bits_for(vp_count) << 12;
		break;
	case 0x8000001eu: /* AMD: own APIC id, core id, one thread a core, one node */
		e->eax = vp;
		e->ebx = vp & 0xff;
		e->ecx = 0;
		break;
	default:
		break;
	}
}

static void patch_hypervisor(struct cpuid_entry *e)
{
	switch (e->function) {
	case HV_CPUID_VENDOR:
		e->eax = HV_CPUID_HARDWARE;
		patch_vendor(e);
		break;
	case HV_CPUID_INTERFACE:
		e->eax = HV_INTERFACE_HV1;
		break;
	case HV_CPUID_FEATURES:
		e->ebx &= ~HV_DEBUGGING;
		e->edx &= ~(HV_GUEST_DEBUGGING | HV_DEBUG_REGISTERS);
		break;
	case HV_CPUID_ENLIGHTENMENTS:
		e->eax &= ~HV_ENLIGHTENED_VMCS_RECOMMENDED;
		break;
	case HV_CPUID_LIMITS:
		e->eax = ENGINE_MAX_VPS;
		e->ebx = ENGINE_MAX_VPS;
		break;
	default:
		break;
	}
}

static int append(struct cpuid_list *list, const struct cpuid_entry *e)
{
	if (list->count == CPUID_LIST_MAX)
		return -E2BIG;
	list->entries[list->count++] = *e;
	return 0;
}

/* Extended topology: level 0 one thread a core, level 1 all cores, level 2 the end. */
static int append_topology(struct cpuid_list *list, unsigned vp, unsigned vp_count)
{
	const struct cpuid_entry levels[] = {
		{ .function = 0xb,
		  .index = 0,
		  .index_matters = true,
		  .eax = 0,
		  .ebx = 1,
		  .ecx = 0x100,
		  .edx = vp },
		{ .function = 0xb,
		  .index = 1,
		  .index_matters = true,
		  .eax = bits_for(vp_count),
		  .ebx = vp_count,
		  .ecx = 0x201,
		  .edx = vp },
		{ .function = 0xb, .index = 2, .index_matters = true, .ecx = 2, .edx = vp },
	};
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(levels) && !r; i++)
		r = append(list, &levels[i]);
	return r;
}

int partition_cpuid(const struct cpuid_list *supported, unsigned vp, unsigned vp_count,
		    struct cpuid_list *ret)
{
	const struct cpuid_entry hardware = { .function = HV_CPUID_HARDWARE };
	bool topology = false, has_hardware = false;
	int r = 0;

	ret->count = 0;
	for (unsigned i = 0; i < supported->count && !r; i++) {
		struct cpuid_entry e = supported->entries[i];

		if (leaf_hidden(e.function))
			continue;
		has_hardware = has_hardware || e.function == HV_CPUID_HARDWARE;
		if (e.function == 0xb) {
			r = topology ? 0 : append_topology(ret, vp, vp_count);
			topology = true;
			continue;
		}
		if (e.function >> 28 == 4)
			patch_hypervisor(&e);
		else
			patch_architectural(&e, vp, vp_count);
		r = append(ret, &e);
	}
	/* Leaf 0 names it as the highest; no feature in it is claimed. */
	return r || has_hardware ? r : append(ret, &hardware);
}
