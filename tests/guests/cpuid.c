// SPDX-License-Identifier: MIT
/* CPUID: the identity of the hypervisor, what it promises, and who each processor is. TLFS 2.4. */
#include "groups.h"

#include "lib/hv.h"
#include "lib/print.h"

#define CPUID_HYPERVISOR BIT(31) /* leaf 1 ECX, TLFS 2.3 */
#define CPUID_APIC       BIT(9)  /* leaf 1 EDX */

/* What this worker promises to every guest; TLFS 2.4.4. */
static const struct {
	const char *name;
	uint32_t bit;
} promised[] = {
	{ "VP runtime", FEATURE_VP_RUNTIME },
	{ "reference counter", FEATURE_REF_COUNTER },
	{ "SynIC", FEATURE_SYNIC },
	{ "synthetic timers", FEATURE_STIMER },
	{ "APIC MSRs", FEATURE_APIC_MSRS },
	{ "hypercalls", FEATURE_HYPERCALL },
	{ "VP index", FEATURE_VP_INDEX },
	{ "reset", FEATURE_RESET },
	{ "reference TSC", FEATURE_REFERENCE_TSC },
	{ "frequencies", FEATURE_FREQUENCIES },
};

static bool text_is(uint32_t a, uint32_t b, uint32_t c, const char *text)
{
	uint32_t words[3] = { a, b, c };

	return !memcmp(words, text, sizeof(words));
}

static void identity(void)
{
	struct cpuid c = cpuid(LEAF_VENDOR, 0);

	ok(cpuid(1, 0).ecx & CPUID_HYPERVISOR, "a hypervisor is present");
	ok(text_is(c.ebx, c.ecx, c.edx, "Microsoft Hv"), "vendor is \"Microsoft Hv\"");
	ok(c.eax >= LEAF_HARDWARE && c.eax < LEAF_VENDOR + 0x100, "last leaf 0x%x", c.eax);
	c = cpuid(LEAF_INTERFACE, 0);
	ok_equal(c.eax, 0x31237648, "interface is \"Hv#1\"");
	ok(!c.ebx && !c.ecx && !c.edx, "reserved registers of the interface leaf are 0");
	c = cpuid(LEAF_VENDOR + 0x100, 0);
	ok(!text_is(c.ebx, c.ecx, c.edx, "KVMKVMKVM\0\0\0"), "no other interface beside it");
}

static void features(void)
{
	struct cpuid c = cpuid(LEAF_FEATURES, 0);
	uint32_t forbidden = PRIVILEGE_CREATE_PARTITIONS | PRIVILEGE_ACCESS_ID |
			     PRIVILEGE_MEMORY_POOL | PRIVILEGE_CREATE_PORT |
			     PRIVILEGE_CONNECT_PORT | PRIVILEGE_DEBUGGING |
			     PRIVILEGE_CPU_MANAGEMENT;

	say("# features 0x%x 0x%x 0x%x 0x%x", c.eax, c.ebx, c.ecx, c.edx);
	for (size_t i = 0; i < ARRAY_SIZE(promised); i++)
		ok(c.eax & promised[i].bit, "%s may be used", promised[i].name);
	ok(c.ebx & PRIVILEGE_POST_MESSAGES, "messages may be posted");
	ok(c.ebx & PRIVILEGE_SIGNAL_EVENTS, "events may be signalled");
	ok_equal(c.ebx & forbidden, 0, "a child has none of a parent's privileges");
	ok(c.edx & FEATURE_FREQUENCY_MSRS, "frequency MSRs are there");
	ok(c.edx & FEATURE_CRASH_MSRS, "crash MSRs are there");
	c = cpuid(LEAF_RECOMMENDATIONS, 0);
	say("# recommendations 0x%x, spin count 0x%x", c.eax, c.ebx);
	ok(!(c.eax & RECOMMEND_EVMCS), "no enlightened VMCS: there is no nesting");
	c = cpuid(LEAF_LIMITS, 0);
	ok(c.eax >= cpu_count && c.eax != UINT32_MAX, "up to %u virtual processors", c.eax);
	ok(c.ebx >= cpu_count, "up to %u logical processors", c.ebx);
}

struct who {
	uint32_t apic, leaf1, leaf_b, vp_index, vendor_ebx, cores;
	bool x2apic_leaf, hypervisor;
};

static void ask(void *argument)
{
	struct who *w = argument;
	struct cpuid c = cpuid(1, 0);

	w->apic = apic_id();
	w->leaf1 = c.ebx >> 24;
	w->hypervisor = c.ecx & CPUID_HYPERVISOR;
	w->x2apic_leaf = cpuid(0, 0).eax >= 0xb;
	c = cpuid(0xb, 1);
	w->leaf_b = c.edx;
	w->cores = c.ebx;
	w->vp_index = (uint32_t)rdmsr(HV_X64_MSR_VP_INDEX);
	w->vendor_ebx = cpuid(LEAF_VENDOR, 0).ebx;
}

static void processors(void)
{
	for (unsigned i = 0; i < cpu_count; i++) {
		struct who w = { 0 };

		cpu_run(i, ask, &w);
		ok_equal(w.vp_index, i, "VP %u: its index", i);
		ok_equal(w.apic, i, "VP %u: the id in its APIC", i);
		ok_equal(w.leaf1, i, "VP %u: the id in leaf 1", i);
		if (w.x2apic_leaf) {
			ok_equal(w.leaf_b, i, "VP %u: the id in leaf 0xb", i);
			ok_equal(w.cores, cpu_count, "VP %u: processors in leaf 0xb", i);
		}
		ok(w.hypervisor && w.vendor_ebx == cpuid(LEAF_VENDOR, 0).ebx,
		   "VP %u sees the same hypervisor", i);
	}
}

void group_cpuid(void)
{
	group_begin("cpuid");
	identity();
	features();
	processors();
	ok(cpuid(1, 0).edx & CPUID_APIC && apic_version() >= 0x10, "APIC of version 0x%x",
	   apic_version());
}
