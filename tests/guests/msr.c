// SPDX-License-Identifier: MIT
/*
 * Synthetic MSRs: what they start with, what they keep, what they refuse. TLFS 2.4.8 (crash), 2.6
 * (identity), 3.13 (hypercall page), 11.8 (SynIC), 12 (clocks).
 */
#include "groups.h"

#include "lib/hv.h"
#include "lib/print.h"

#define SPARE_SINT   9u
#define SPARE_VECTOR 0x90u

static uint8_t page[PAGE_SIZE] PAGE_ALIGNED;
static uint8_t code_copy[64];

static uint64_t difference(uint64_t a, uint64_t b)
{
	return a > b ? a - b : b - a;
}

/* --- identity and hypercall page --- */

static void identity(void)
{
	uint64_t id = rdmsr(HV_X64_MSR_GUEST_OS_ID), value;
	uint64_t hypercall = rdmsr(HV_X64_MSR_HYPERCALL);

	ok(id, "the guest's identity 0x%lx is kept", id);
	ok_equal(hypercall, (uintptr_t)hv_hypercall_page() | HV_MSR_ENABLE,
		 "the hypercall page is on");
	memcpy(code_copy, hv_hypercall_page(), sizeof(code_copy));
	ok(hv_call(HVCALL_SIGNAL_EVENT | HVCALL_FAST, 0xffffff, 0), "a call through it returns");
	wrmsr(HV_X64_MSR_GUEST_OS_ID, 0);
	ok(!(rdmsr(HV_X64_MSR_HYPERCALL) & HV_MSR_ENABLE),
	   "identity 0 turns the hypercall page off");
	wrmsr(HV_X64_MSR_HYPERCALL, hypercall);
	ok(!(rdmsr(HV_X64_MSR_HYPERCALL) & HV_MSR_ENABLE),
	   "it cannot be turned on without an identity");
	wrmsr(HV_X64_MSR_GUEST_OS_ID, id);
	wrmsr(HV_X64_MSR_HYPERCALL, hypercall);
	ok_equal(rdmsr(HV_X64_MSR_HYPERCALL), hypercall, "it is on again");
	ok(!memcmp(code_copy, hv_hypercall_page(), sizeof(code_copy)),
	   "its content is the same as before");
	ok_equal(wrmsr_safe(HV_X64_MSR_HYPERCALL, UINT64_C(1) << 52 | HV_MSR_ENABLE), VECTOR_GP,
		 "a hypercall page beyond the address space raises #GP");
	rdmsr_safe(HV_X64_MSR_HYPERCALL, &value);
	wrmsr(HV_X64_MSR_HYPERCALL, hypercall);
	ok(!memcmp(code_copy, hv_hypercall_page(), sizeof(code_copy)), "its content stays");
}

static void lock(void)
{
	uint64_t locked = rdmsr(HV_X64_MSR_HYPERCALL) | HV_HYPERCALL_LOCKED;

	wrmsr(HV_X64_MSR_HYPERCALL, locked);
	(void)wrmsr_safe(HV_X64_MSR_HYPERCALL, (uintptr_t)page | HV_MSR_ENABLE);
	ok_todo(rdmsr(HV_X64_MSR_HYPERCALL) == locked, "KVM does not know the bit",
		"a locked hypercall page stays where it is");
	wrmsr(HV_X64_MSR_HYPERCALL, locked & ~HV_HYPERCALL_LOCKED);
	ok(!memcmp(code_copy, hv_hypercall_page(), sizeof(code_copy)),
	   "the hypercall page is intact");
}

/* --- clocks --- */

/* Both clocks at one moment: the closest of many tries, for the host may pause us at any time. */
static void both_clocks(uint64_t *ret_time, uint64_t *ret_tsc)
{
	uint64_t closest = UINT64_MAX;

	for (unsigned i = 0; i < 20; i++) {
		uint64_t before = rdtsc(), time = hv_time(), after = rdtsc();

		if (after - before >= closest)
			continue;
		closest = after - before;
		*ret_time = time;
		*ret_tsc = before + closest / 2;
	}
}

static void frequencies(void)
{
	uint64_t tsc = rdmsr(HV_X64_MSR_TSC_FREQUENCY), apic = rdmsr(HV_X64_MSR_APIC_FREQUENCY);
	uint64_t t0 = 0, c0 = 0, t1 = 0, c1 = 0, expected;
	uint32_t ticks;

	ok(tsc > 100000000 && tsc < 20000000000, "TSC frequency %lu", tsc);
	ok(apic > 1000000 && apic < 20000000000, "APIC frequency %lu", apic);
	both_clocks(&t0, &c0);
	delay_ms(100);
	both_clocks(&t1, &c1);
	expected = (c1 - c0) / (tsc / 10000000);
	ok(difference(t1 - t0, expected) < expected / 20 + 20000,
	   "the reference counter runs at 10 MHz: %lu against %lu ticks", t1 - t0, expected);
	/* 20 ms of APIC time, by its interrupt. */
	ticks = this_cpu()->count[VECTOR_TICK];
	t0 = hv_time();
	apic_tick(20000);
	while (this_cpu()->count[VECTOR_TICK] == ticks && hv_time() - t0 < 100000000)
		asm volatile("pause");
	t1 = hv_time();
	ok(t1 - t0 >= 195000 && t1 - t0 < 50000000, "20 ms of APIC time took %lu us",
	   (t1 - t0) / 10);
}

static void counter(void)
{
	uint64_t last = hv_time();
	bool backwards = false;

	for (int i = 0; i < 500; i++) {
		uint64_t now = hv_time();

		backwards |= now < last;
		last = now;
	}
	ok(!backwards, "the reference counter never runs backwards");
	ok_equal(wrmsr_safe(HV_X64_MSR_TIME_REF_COUNT, 0), VECTOR_GP, "it cannot be written");
}

static void take_time(void *argument)
{
	*(uint64_t *)argument = hv_time();
}

static void counter_of_all(void)
{
	bool ordered = true;

	for (unsigned i = 0; i < 4 * cpu_count; i++) {
		uint64_t before = hv_time(), there;

		cpu_run(i % cpu_count, take_time, &there);
		ordered &= before <= there && there <= hv_time();
	}
	ok(ordered, "all processors read the same reference counter");
}

static uint64_t page_time(const struct reference_tsc_page *p)
{
	uint64_t tsc, scale;
	uint32_t sequence;
	int64_t offset;

	do {
		sequence = p->sequence;
		tsc = rdtsc();
		scale = p->scale;
		offset = p->offset;
	} while (sequence != p->sequence);
	return (uint64_t)((unsigned __int128)tsc * scale >> 64) + (uint64_t)offset;
}

static void reference_page(void)
{
	struct reference_tsc_page *p = (void *)page;
	uint64_t worst = 0;

	ok_equal(rdmsr(HV_X64_MSR_REFERENCE_TSC) & HV_MSR_ENABLE, 0, "reference TSC starts off");
	wrmsr(HV_X64_MSR_REFERENCE_TSC, (uintptr_t)page | HV_MSR_ENABLE);
	if (!WAIT_FOR(p->sequence, 500)) {
		skip("the reference TSC page agrees with the counter", "the host's clock is not "
								       "the TSC");
		wrmsr(HV_X64_MSR_REFERENCE_TSC, 0);
		return;
	}
	for (int i = 0; i < 50; i++) {
		uint64_t before = hv_time(), now = page_time(p), after = hv_time();

		if (now < before)
			worst = before - now > worst ? before - now : worst;
		if (now > after)
			worst = now - after > worst ? now - after : worst;
	}
	/* Half a millisecond of a slow, emulated host. */
	ok(worst < 5000, "the reference TSC page agrees with the counter: %lu ticks off", worst);
	wrmsr(HV_X64_MSR_REFERENCE_TSC, 0);
	ok_equal(rdmsr(HV_X64_MSR_REFERENCE_TSC) & HV_MSR_ENABLE, 0, "it can be turned off");
}

static void runtime(void)
{
	uint64_t t0 = rdmsr(HV_X64_MSR_VP_RUNTIME), end = deadline_in(5000), t1;

	/* KVM counts it in ticks of the host's scheduler. */
	do
		t1 = rdmsr(HV_X64_MSR_VP_RUNTIME);
	while (t1 == t0 && rdtsc() < end);
	ok(t1 > t0, "VP runtime grows: %lu ticks", t1 - t0);
}

/* --- crash --- */

static void crash(void)
{
	for (uint32_t i = 0; i < 5; i++)
		wrmsr(HV_X64_MSR_CRASH_P0 + i, 0x1111 * (i + 1));
	ok_equal(rdmsr(HV_X64_MSR_CRASH_P0 + 4), 0x5555, "crash parameters are kept");
	ok(rdmsr(HV_X64_MSR_CRASH_CTL) & HV_CRASH_NOTIFY, "crash reports can be sent");
	wrmsr(HV_X64_MSR_CRASH_CTL, HV_CRASH_NOTIFY);
	ok(true, "the guest runs on after a crash report");
}

/* --- SynIC --- */

struct synic_state {
	uint64_t scontrol, sversion, siefp, simp, eom;
	unsigned sints_wrong, refused;
};

static void read_synic(void *argument)
{
	struct synic_state *s = argument;

	s->scontrol = rdmsr(HV_X64_MSR_SCONTROL);
	s->sversion = rdmsr(HV_X64_MSR_SVERSION);
	s->siefp = rdmsr(HV_X64_MSR_SIEFP);
	s->simp = rdmsr(HV_X64_MSR_SIMP);
	s->eom = rdmsr(HV_X64_MSR_EOM);
	s->sints_wrong = 0;
	for (unsigned i = 0; i < SINT_COUNT; i++)
		s->sints_wrong += rdmsr(HV_X64_MSR_SINT0 + i) != SINT_MASKED;
	s->refused = wrmsr_safe(HV_X64_MSR_SVERSION, 2);
}

static void synic_reset_values(void)
{
	for (unsigned i = 0; i < cpu_count; i++) {
		struct synic_state s;

		cpu_run(i, read_synic, &s);
		ok_equal(s.scontrol, 1, "VP %u: the SynIC starts enabled", i);
		ok_equal(s.sversion, 1, "VP %u: SVERSION is 1", i);
		ok(!(s.siefp & 1) && !(s.simp & 1), "VP %u: SynIC pages start off", i);
		ok_equal(s.sints_wrong, 0, "VP %u: all SINTs start masked", i);
		ok_equal(s.eom, 0, "VP %u: EOM reads as 0", i);
		ok_equal(s.refused, VECTOR_GP, "VP %u: SVERSION cannot be written", i);
	}
}

static void synic_keeps(void)
{
	uint64_t sint = SPARE_VECTOR | SINT_AUTO_EOI;

	wrmsr(HV_X64_MSR_SINT0 + SPARE_SINT, sint);
	ok_equal(rdmsr(HV_X64_MSR_SINT0 + SPARE_SINT), sint, "a SINT keeps what is written");
	/* KVM tells a VMM nothing of the vector's validity when the source is masked. */
	ok_equal(wrmsr_safe(HV_X64_MSR_SINT0 + SPARE_SINT, 3), VECTOR_GP,
		 "an unmasked SINT with a vector below 16 raises #GP");
	wrmsr(HV_X64_MSR_SINT0 + SPARE_SINT, SINT_MASKED);
	memset(page, 0xa5, sizeof(page));
	wrmsr(HV_X64_MSR_SIMP, (uintptr_t)page | HV_MSR_ENABLE);
	ok_equal(rdmsr(HV_X64_MSR_SIMP), (uintptr_t)page | HV_MSR_ENABLE, "SIMP is kept");
	ok(!page[0] && !memcmp(page, page + 1, sizeof(page) - 1), "the message page starts as 0");
	wrmsr(HV_X64_MSR_SIMP, 0);
	memset(page, 0xa5, sizeof(page));
	wrmsr(HV_X64_MSR_SIEFP, (uintptr_t)page | HV_MSR_ENABLE);
	ok_equal(rdmsr(HV_X64_MSR_SIEFP), (uintptr_t)page | HV_MSR_ENABLE, "SIEFP is kept");
	ok(!page[0] && !memcmp(page, page + 1, sizeof(page) - 1), "the event page starts as 0");
	wrmsr(HV_X64_MSR_SIEFP, 0);
}

/* --- what is not there --- */

static void refused(void)
{
	static const uint32_t unknown[] = { 0x40000005, 0x40000050, 0x400000a5,
					    0x40000200, 0x400001ff, 0x4fffffff };
	uint64_t value;

	for (size_t i = 0; i < ARRAY_SIZE(unknown); i++)
		ok(rdmsr_safe(unknown[i], &value) == VECTOR_GP &&
			   wrmsr_safe(unknown[i], 0) == VECTOR_GP,
		   "MSR 0x%x raises #GP", unknown[i]);
	ok_equal(wrmsr_safe(HV_X64_MSR_VP_INDEX, 1), VECTOR_GP, "the VP index cannot be written");
	ok_equal(wrmsr_safe(HV_X64_MSR_TSC_FREQUENCY, 1), VECTOR_GP,
		 "the TSC frequency cannot be written");
	ok_equal(wrmsr_safe(HV_X64_MSR_VP_RUNTIME, 1), VECTOR_GP, "VP runtime cannot be written");
}

/* The first group to touch the SynIC: it looks at what a reset leaves. */
void group_msr(void)
{
	group_begin("msr");
	identity();
	lock();
	frequencies();
	counter();
	counter_of_all();
	reference_page();
	runtime();
	crash();
	synic_reset_values();
	synic_keeps();
	refused();
}
