// SPDX-License-Identifier: MIT
/* See hv.h: hypercalls (TLFS 3), the SynIC (TLFS 11) and the clocks (TLFS 12), from below. */
#include "lib/hv.h"

#include "lib/print.h"

#define OUR_OS_ID 0x8150000000000001u /* TLFS 2.6: open source, no vendor's number */

static uint8_t hypercall_page[PAGE_SIZE] PAGE_ALIGNED;
static uint8_t inputs[MAX_CPUS][PAGE_SIZE] PAGE_ALIGNED;
static uint8_t message_pages[MAX_CPUS][PAGE_SIZE] PAGE_ALIGNED;
static uint8_t event_pages[MAX_CPUS][PAGE_SIZE] PAGE_ALIGNED;

void hv_init(void)
{
	wrmsr(HV_X64_MSR_GUEST_OS_ID, OUR_OS_ID);
	wrmsr(HV_X64_MSR_HYPERCALL, (uintptr_t)hypercall_page | HV_MSR_ENABLE);
	if (!(cpuid(LEAF_FEATURES, 0).eax & FEATURE_FREQUENCIES))
		return;
	tsc_per_ms = rdmsr(HV_X64_MSR_TSC_FREQUENCY) / 1000;
	apic_per_ms = rdmsr(HV_X64_MSR_APIC_FREQUENCY) / 1000;
}

const uint8_t *hv_hypercall_page(void)
{
	return hypercall_page;
}

uint64_t hv_call(uint64_t control, uint64_t input, uint64_t output)
{
	uint64_t result;

	asm volatile("movq %3, %%r8; call *%4"
		     : "=a"(result), "+c"(control), "+d"(input)
		     : "r"(output), "r"(hypercall_page)
		     : "memory", "cc", "r8", "r9", "r10", "r11");
	return result;
}

void *hv_input(void)
{
	return inputs[this_cpu()->index];
}

uint16_t hv_post(uint32_t connection, uint32_t type, const void *payload, size_t size)
{
	struct hv_post_input *in = hv_input();

	memset(in, 0, sizeof(*in));
	in->connection = connection;
	in->type = type;
	in->size = (uint32_t)size;
	memcpy(in->payload, payload, MIN(size, (size_t)HV_MESSAGE_PAYLOAD));
	return (uint16_t)hv_call(HVCALL_POST_MESSAGE, (uintptr_t)in, 0);
}

uint16_t hv_signal(uint32_t connection, unsigned flag)
{
	return (uint16_t)hv_call(HVCALL_SIGNAL_EVENT | HVCALL_FAST,
				 connection | (uint64_t)flag << 32, 0);
}

uint64_t hv_time(void)
{
	return rdmsr(HV_X64_MSR_TIME_REF_COUNT);
}

/* --- SynIC --- */

void synic_enable(void *unused)
{
	unsigned cpu = this_cpu()->index;

	(void)unused;
	for (unsigned i = 0; i < SINT_COUNT; i++)
		synic_mask(i);
	wrmsr(HV_X64_MSR_SIMP, (uintptr_t)message_pages[cpu] | HV_MSR_ENABLE);
	wrmsr(HV_X64_MSR_SIEFP, (uintptr_t)event_pages[cpu] | HV_MSR_ENABLE);
	wrmsr(HV_X64_MSR_SCONTROL, HV_MSR_ENABLE);
}

void synic_sint(unsigned sint, uint64_t flags)
{
	vector_set_auto_eoi(VECTOR_SINT + sint, flags & SINT_AUTO_EOI);
	wrmsr(HV_X64_MSR_SINT0 + sint, (VECTOR_SINT + sint) | flags);
}

void synic_mask(unsigned sint)
{
	wrmsr(HV_X64_MSR_SINT0 + sint, SINT_MASKED | (VECTOR_SINT + sint));
}

volatile struct hv_message *synic_slot(unsigned cpu, unsigned sint)
{
	return (volatile struct hv_message *)message_pages[cpu] + sint;
}

uint8_t *synic_events(unsigned cpu, unsigned sint)
{
	return event_pages[cpu] + sint * (EVENT_FLAGS / 8);
}

static void end_of_message(void *unused)
{
	(void)unused;
	wrmsr(HV_X64_MSR_EOM, 0);
}

bool message_take(unsigned cpu, unsigned sint, struct hv_message *ret)
{
	volatile struct hv_message *slot = synic_slot(cpu, sint);

	if (!__atomic_load_n(&slot->type, __ATOMIC_ACQUIRE))
		return false;
	memcpy(ret, (const void *)slot, sizeof(*ret));
	__atomic_store_n(&slot->type, 0, __ATOMIC_SEQ_CST);
	barrier();
	/* TLFS 11.11.1: the flag may come while the message is in its slot. */
	if (slot->flags & HV_MESSAGE_FLAG_PENDING)
		cpu_run(cpu, end_of_message, NULL);
	return true;
}

bool event_take(unsigned cpu, unsigned sint, unsigned flag)
{
	uint8_t *byte = synic_events(cpu, sint) + flag / 8;
	uint8_t bit = (uint8_t)BIT(flag % 8);

	return __atomic_fetch_and(byte, (uint8_t)~bit, __ATOMIC_SEQ_CST) & bit;
}

void synic_test(enum synic_test_command command, unsigned connection, unsigned vp, unsigned sint)
{
	outl(SYNIC_TEST_PORT, connection << 24 | (uint32_t)command << 16 | vp << 8 | sint);
}

static bool drain_once(void)
{
	struct hv_message m;
	bool any = false;

	for (unsigned cpu = 0; cpu < cpu_count; cpu++)
		for (unsigned sint = 0; sint < SINT_COUNT; sint++)
			any |= message_take(cpu, sint, &m);
	return any;
}

void synic_drain(void)
{
	for (unsigned quiet = 0; quiet < 20; quiet++) {
		if (drain_once())
			quiet = 0;
		else
			delay_ms(1);
	}
}
