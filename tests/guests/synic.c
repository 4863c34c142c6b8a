// SPDX-License-Identifier: MIT
/*
 * The SynIC: messages and events that echo through the test port to this processor and to another;
 * full slots, masked sources, the two ways to end an interrupt. TLFS 11.
 */
#include "groups.h"

#include "lib/hv.h"
#include "lib/print.h"

#define CONNECTION 0x40u
#define SINT       5u
#define VECTOR     (VECTOR_SINT + SINT)
#define MANY       200u
#define QUIET_MS   30u
#define LONG_MS    15000u

static uint32_t interrupts(unsigned cpu)
{
	return cpu_of(cpu)->count[VECTOR];
}

static void unmask(void *flags)
{
	synic_sint(SINT, (uintptr_t)flags);
}

static void mask(void *unused)
{
	(void)unused;
	synic_mask(SINT);
}

static bool take(unsigned cpu, struct hv_message *m)
{
	return WAIT_FOR(message_take(cpu, SINT, m), LONG_MS);
}

static uint16_t post_number(uint64_t number)
{
	uint64_t words[2] = { number, ~number };

	return hv_post(CONNECTION, 1, words, sizeof(words));
}

static uint64_t number_of(const struct hv_message *m)
{
	uint64_t words[2];

	memcpy(words, m->payload, sizeof(words));
	return m->size == sizeof(words) && words[1] == ~words[0] ? words[0] : UINT64_MAX;
}

/* --- messages --- */

static void echo(unsigned cpu)
{
	uint32_t before = interrupts(cpu);
	uint8_t payload[HV_MESSAGE_PAYLOAD];
	struct hv_message m;

	for (unsigned i = 0; i < sizeof(payload); i++)
		payload[i] = (uint8_t)(i * 7 + 1);
	synic_test(MESSAGE_CREATE, CONNECTION, cpu, SINT);
	ok_equal(hv_post(CONNECTION, 0x1234, payload, sizeof(payload)), HV_SUCCESS,
		 "VP %u: a message is posted", cpu);
	ok(take(cpu, &m), "VP %u: it comes back", cpu);
	ok_equal(m.type, 0x1234, "VP %u: with its type", cpu);
	ok(m.size == sizeof(payload) && !memcmp(m.payload, payload, sizeof(payload)),
	   "VP %u: and its payload of 240 bytes", cpu);
	ok(WAIT_FOR(interrupts(cpu) == before + 1, LONG_MS), "VP %u: with one interrupt", cpu);
	ok_equal(hv_post(CONNECTION, 1, payload, 1), HV_SUCCESS, "VP %u: one byte", cpu);
	ok(take(cpu, &m) && m.size == 1, "VP %u: comes back", cpu);
	synic_test(MESSAGE_DESTROY, CONNECTION, cpu, SINT);
	ok_equal(hv_post(CONNECTION, 1, payload, 1), HV_INVALID_CONNECTION_ID,
		 "VP %u: the connection is gone", cpu);
}

static void busy_slot(void)
{
	volatile struct hv_message *slot = synic_slot(0, SINT);
	struct hv_message m;

	synic_test(MESSAGE_CREATE, CONNECTION, 0, SINT);
	for (unsigned i = 0; i < 3; i++)
		ok_equal(post_number(i), HV_SUCCESS, "message %u of three is posted", i);
	ok(WAIT_FOR(slot->type && slot->flags & HV_MESSAGE_FLAG_PENDING, LONG_MS),
	   "the full slot says that more wait");
	memcpy(&m, (const void *)slot, sizeof(m));
	ok_equal(number_of(&m), 0, "the slot holds the first");
	delay_ms(QUIET_MS);
	memcpy(&m, (const void *)slot, sizeof(m));
	ok_equal(number_of(&m), 0, "and is not written over");
	/* Emptying the slot alone must not be enough: the host looks at end-of-message. */
	for (unsigned i = 0; i < 3; i++)
		ok(take(0, &m) && number_of(&m) == i, "message %u comes in its turn", i);
	ok(!WAIT_FOR(slot->type, QUIET_MS), "and no other");
	wrmsr(HV_X64_MSR_EOM, 0);
	ok(!slot->type, "end of message with an empty queue does nothing");
	synic_test(MESSAGE_DESTROY, CONNECTION, 0, SINT);
}

static void order(unsigned cpu)
{
	unsigned taken = 0, posted = 0, wrong = 0, full = 0;
	uint64_t end = deadline_in(30000);
	struct hv_message m;

	synic_test(MESSAGE_CREATE, CONNECTION, cpu, SINT);
	while (taken < MANY && rdtsc() < end) {
		/* Eight ahead of what was taken, so that most of them wait for the slot. */
		while (posted < MANY && posted < taken + 8) {
			if (post_number(posted)) {
				full++;
				break;
			}
			posted++;
		}
		if (message_take(cpu, SINT, &m))
			wrong += number_of(&m) != taken++;
		else
			cpu_wait();
	}
	ok_equal(taken, MANY, "VP %u: of %u messages all come", cpu, MANY);
	ok_equal(wrong, 0, "VP %u: in order (%u times told to wait)", cpu, full);
	synic_test(MESSAGE_DESTROY, CONNECTION, cpu, SINT);
}

struct poster {
	unsigned failed;
};

static void post_many(void *argument)
{
	struct poster *p = argument;

	for (unsigned i = 0; i < MANY / 4; i++)
		p->failed += post_number(UINT64_C(1) << 32 | i) != HV_SUCCESS;
}

/* Another processor posts while this one takes. */
static void crossing(void)
{
	struct poster p = { 0 };
	unsigned taken = 0, wrong = 0;
	struct hv_message m;

	synic_test(MESSAGE_CREATE, CONNECTION, 0, SINT);
	cpu_run(1, post_many, &p);
	while (WAIT_FOR(synic_slot(0, SINT)->type, 500) && message_take(0, SINT, &m))
		wrong += number_of(&m) != (UINT64_C(1) << 32 | taken++);
	ok_equal(p.failed, 0, "VP 1 posts %u messages", MANY / 4);
	ok(taken == MANY / 4 && !wrong, "VP 0 gets them in order (%u, %u wrong)", taken, wrong);
	synic_test(MESSAGE_DESTROY, CONNECTION, 0, SINT);
}

/* TLFS 11.9: a masked source loses the interrupt, not the message; EOM polls for messages. */
static void masked(void)
{
	uint32_t before = interrupts(0);
	struct hv_message m;

	synic_mask(SINT);
	synic_test(MESSAGE_CREATE, CONNECTION, 0, SINT);
	post_number(7);
	ok(take(0, &m) && number_of(&m) == 7, "a masked source still gets messages");
	delay_ms(QUIET_MS);
	ok_equal(interrupts(0), before, "but no interrupt");
	synic_test(MESSAGE_DESTROY, CONNECTION, 0, SINT);
	unmask(NULL);
}

static void pages_off(void)
{
	uint64_t simp = rdmsr(HV_X64_MSR_SIMP);
	struct hv_message m;

	synic_test(MESSAGE_CREATE, CONNECTION, 0, SINT);
	wrmsr(HV_X64_MSR_SIMP, 0);
	ok_equal(post_number(9), HV_SUCCESS, "a message is posted while the page is off");
	delay_ms(QUIET_MS);
	ok(!synic_slot(0, SINT)->type, "it is not delivered");
	wrmsr(HV_X64_MSR_SIMP, simp);
	ok(take(0, &m) && number_of(&m) == 9, "it is when the page is on again");
	wrmsr(HV_X64_MSR_SCONTROL, 0);
	post_number(10);
	delay_ms(QUIET_MS);
	ok(!synic_slot(0, SINT)->type, "nothing is delivered while the SynIC is off");
	wrmsr(HV_X64_MSR_SCONTROL, HV_MSR_ENABLE);
	ok(take(0, &m) && number_of(&m) == 10, "it is when the SynIC is on again");
	synic_test(MESSAGE_DESTROY, CONNECTION, 0, SINT);
}

/* --- interrupts --- */

static void raise(unsigned cpu)
{
	synic_test(ROUTE_RAISE, 0, cpu, SINT);
}

static void ending(void)
{
	uint32_t before = interrupts(0);

	vector_hold_eoi(VECTOR, true);
	raise(0);
	ok(WAIT_FOR(interrupts(0) == before + 1, LONG_MS), "a raised source interrupts");
	raise(0);
	ok(!WAIT_FOR(interrupts(0) > before + 1, QUIET_MS), "not again before its end");
	vector_hold_eoi(VECTOR, false);
	apic_eoi();
	ok(WAIT_FOR(interrupts(0) == before + 2, LONG_MS), "but then");
	if (cpuid(LEAF_RECOMMENDATIONS, 0).eax & RECOMMEND_NO_AUTO_EOI) {
		skip("automatic end of interrupt", "the hypervisor asks not to use it");
		return;
	}
	synic_sint(SINT, SINT_AUTO_EOI);
	before = interrupts(0);
	for (unsigned i = 1; i <= 3; i++) {
		raise(0);
		ok(WAIT_FOR(interrupts(0) == before + i, LONG_MS),
		   "interrupt %u of a source that ends by itself", i);
	}
	synic_mask(SINT);
	synic_sint(SINT, 0);
}

/* --- events --- */

static void events(unsigned cpu)
{
	uint32_t before = interrupts(cpu);
	uint64_t *in = hv_input();

	synic_test(EVENT_CREATE, CONNECTION, cpu, SINT);
	ok_equal(hv_signal(CONNECTION, 0), HV_SUCCESS, "VP %u: an event is signalled", cpu);
	ok(WAIT_FOR(interrupts(cpu) == before + 1, LONG_MS), "VP %u: it interrupts", cpu);
	ok_equal(hv_signal(CONNECTION, 0), HV_SUCCESS, "VP %u: it is signalled again", cpu);
	delay_ms(QUIET_MS);
	ok_equal(interrupts(cpu), before + 1, "VP %u: a set flag does not interrupt", cpu);
	ok(event_take(cpu, SINT, CONNECTION), "VP %u: its flag is set", cpu);
	in[0] = CONNECTION;
	ok_equal((uint16_t)hv_call(HVCALL_SIGNAL_EVENT, (uintptr_t)in, 0), HV_SUCCESS,
		 "VP %u: by the slow call too", cpu);
	ok(WAIT_FOR(event_take(cpu, SINT, CONNECTION), LONG_MS), "VP %u: its flag is set", cpu);
	ok(hv_signal(CONNECTION, 1), "VP %u: the port has one flag only", cpu);
	synic_test(EVENT_DESTROY, CONNECTION, cpu, SINT);
	ok_equal(hv_signal(CONNECTION, 0), HV_INVALID_CONNECTION_ID,
		 "VP %u: the connection is gone", cpu);
}

void group_synic(void)
{
	group_begin("synic");
	for (unsigned i = 0; i < cpu_count; i++) {
		cpu_run(i, synic_enable, NULL);
		cpu_run(i, unmask, NULL);
	}
	echo(0);
	busy_slot();
	order(0);
	masked();
	pages_off();
	ending();
	events(0);
	if (cpu_count > 1) {
		echo(cpu_count - 1);
		order(1);
		crossing();
		events(cpu_count - 1);
	}
	for (unsigned i = 0; i < cpu_count; i++)
		cpu_run(i, mask, NULL);
	synic_drain();
}
