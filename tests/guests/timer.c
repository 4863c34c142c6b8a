// SPDX-License-Identifier: MIT
/* Synthetic timers: by message and directly, once and again, alone and beside messages. TLFS 12. */
#include "groups.h"

#include "lib/hv.h"
#include "lib/print.h"

#define SINT       6u
#define CONNECTION 0x41u
#define MS         10000u /* of the reference counter */
#define LONG_MS    15000u
#define SHARED     60u

static uint32_t config_msr(unsigned timer)
{
	return HV_X64_MSR_STIMER0_CONFIG + 2 * timer;
}

static uint32_t count_msr(unsigned timer)
{
	return HV_X64_MSR_STIMER0_COUNT + 2 * timer;
}

/* The count first: turning a timer on that has an old one lets it expire at once. */
static void timer_start(unsigned timer, uint64_t config, uint64_t count)
{
	wrmsr(config_msr(timer), 0);
	wrmsr(count_msr(timer), count);
	wrmsr(config_msr(timer), config | STIMER_ENABLE);
}

/* What a timer's message says; false for another message. */
static bool expiry(const struct hv_message *m, struct hv_timer_payload *ret)
{
	memcpy(ret, m->payload, sizeof(*ret));
	return m->type == HV_MESSAGE_TIMER_EXPIRED && m->size >= sizeof(*ret);
}

static bool next_expiry(unsigned cpu, struct hv_timer_payload *ret, unsigned ms)
{
	struct hv_message m;

	return WAIT_FOR(message_take(cpu, SINT, &m), ms) && expiry(&m, ret);
}

static void reset_values(void)
{
	unsigned wrong = 0;

	for (unsigned i = 0; i < STIMER_COUNT; i++)
		wrong += rdmsr(config_msr(i)) || rdmsr(count_msr(i));
	ok_equal(wrong, 0, "all timers start off");
}

static void one_shot(unsigned timer)
{
	struct hv_timer_payload p = { 0 };
	uint64_t at;

	wrmsr(config_msr(timer), STIMER_SINT(SINT) | STIMER_ENABLE);
	at = hv_time() + 10 * MS;
	wrmsr(count_msr(timer), at);
	ok(next_expiry(0, &p, LONG_MS), "timer %u: its message comes", timer);
	ok(hv_time() >= at, "timer %u: not before its time", timer);
	ok_equal(p.index, timer, "timer %u: with its number", timer);
	ok(p.expiration == at && p.delivery >= at,
	   "timer %u: with its time (%lu, asked for %lu, delivered %lu)", timer, p.expiration, at,
	   p.delivery);
	ok(!(rdmsr(config_msr(timer)) & STIMER_ENABLE), "timer %u: it is off then", timer);
	ok(!next_expiry(0, &p, 30), "timer %u: it comes once", timer);
}

static void in_the_past(void)
{
	struct hv_timer_payload p = { 0 };

	timer_start(0, STIMER_SINT(SINT), 1);
	ok(next_expiry(0, &p, LONG_MS), "a time in the past expires at once");
}

static void auto_enabled(void)
{
	struct hv_timer_payload p = { 0 };

	wrmsr(config_msr(1), STIMER_SINT(SINT) | STIMER_AUTO_ENABLE);
	ok(!(rdmsr(config_msr(1)) & STIMER_ENABLE), "a timer with auto-enable starts off");
	wrmsr(count_msr(1), hv_time() + 5 * MS);
	ok(rdmsr(config_msr(1)) & STIMER_ENABLE, "writing its count turns it on");
	ok(next_expiry(0, &p, LONG_MS) && p.index == 1, "and it expires");
	wrmsr(config_msr(1), 0);
}

static void disabled(void)
{
	struct hv_timer_payload p = { 0 };

	/* Far enough that a slow host doesn't come too late. */
	timer_start(2, STIMER_SINT(SINT), hv_time() + 100 * MS);
	wrmsr(config_msr(2), STIMER_SINT(SINT));
	if (!ok(!next_expiry(0, &p, 150), "a timer that was turned off does not expire"))
		say("#   timer %u, expired at %lu, delivered at %lu", p.index, p.expiration,
		    p.delivery);
	timer_start(2, STIMER_SINT(SINT), hv_time() + 100 * MS);
	wrmsr(count_msr(2), 0);
	ok(!next_expiry(0, &p, 150), "nor one whose count was made 0");
	wrmsr(config_msr(2), STIMER_ENABLE);
	ok_todo(!(rdmsr(config_msr(2)) & STIMER_ENABLE), "KVM looks at the timer's former state",
		"a timer without a source stays off");
	wrmsr(config_msr(2), 0);
}

static void periodic(void)
{
	struct hv_timer_payload p = { 0 };
	uint64_t last = 0, start = hv_time();
	unsigned count = 0, backwards = 0;

	timer_start(3, STIMER_SINT(SINT) | STIMER_PERIODIC, 10 * MS);
	while (count < 10 && next_expiry(0, &p, LONG_MS)) {
		backwards += p.expiration <= last;
		last = p.expiration;
		count++;
	}
	ok_equal(count, 10, "a periodic timer expires again and again");
	ok_equal(backwards, 0, "each time later");
	ok(last >= start + 99 * MS, "in its period: %lu us for 10 times 10 ms",
	   (hv_time() - start) / 10);
	wrmsr(config_msr(3), 0);
	synic_drain();
	ok(!next_expiry(0, &p, 60), "until it is turned off");
}

static void direct(void)
{
	uint32_t before = this_cpu()->count[VECTOR_DIRECT];
	uint64_t at;

	if (!(cpuid(LEAF_FEATURES, 0).edx & FEATURE_STIMER_DIRECT)) {
		skip("direct timers", "not offered");
		return;
	}
	at = hv_time() + 5 * MS;
	timer_start(0, STIMER_DIRECT | STIMER_VECTOR(VECTOR_DIRECT), at);
	ok(WAIT_FOR(this_cpu()->count[VECTOR_DIRECT] == before + 1, LONG_MS),
	   "a direct timer interrupts");
	ok(hv_time() >= at, "not before its time");
	ok(!synic_slot(0, 0)->type && !synic_slot(0, SINT)->type, "and sends no message");
	wrmsr(config_msr(0),
	      STIMER_DIRECT | STIMER_VECTOR(VECTOR_DIRECT) | STIMER_PERIODIC | STIMER_ENABLE);
	wrmsr(count_msr(0), 5 * MS);
	ok(WAIT_FOR(this_cpu()->count[VECTOR_DIRECT] >= before + 5, LONG_MS),
	   "a periodic direct timer too");
	wrmsr(config_msr(0), 0);
}

/* The hypervisor's timers and the host's messages are two writers of one slot. */
static void shared_source(void)
{
	unsigned posted = 0, echoes = 0, expiries = 0, wrong = 0;
	uint64_t end = deadline_in(20000);
	struct hv_timer_payload p;
	struct hv_message m;
	uint64_t number;

	synic_test(MESSAGE_CREATE, CONNECTION, 0, SINT);
	timer_start(0, STIMER_SINT(SINT) | STIMER_PERIODIC, 2 * MS);
	while ((echoes < SHARED || expiries < SHARED / 4) && rdtsc() < end) {
		number = posted;
		if (posted < SHARED && posted < echoes + 4)
			posted += !hv_post(CONNECTION, 1, &number, sizeof(number));
		if (!message_take(0, SINT, &m)) {
			cpu_wait();
			continue;
		}
		if (expiry(&m, &p)) {
			expiries++;
			continue;
		}
		memcpy(&number, m.payload, sizeof(number));
		wrong += m.type != 1 || number != echoes++;
	}
	wrmsr(config_msr(0), 0);
	ok_equal(echoes, SHARED, "of %u messages beside a timer all come", SHARED);
	ok_equal(wrong, 0, "in order");
	ok(expiries >= SHARED / 4, "and the timer's %u", expiries);
	synic_test(MESSAGE_DESTROY, CONNECTION, 0, SINT);
	synic_drain();
}

struct remote {
	unsigned cpu;
	uint64_t at;
};

static void start_here(void *argument)
{
	struct remote *r = argument;

	synic_enable(NULL);
	synic_sint(SINT, 0);
	r->at = hv_time() + 10 * MS;
	timer_start(0, STIMER_SINT(SINT), r->at);
}

static void other_processor(void)
{
	struct remote r = { .cpu = cpu_count - 1 };
	struct hv_timer_payload p = { 0 };
	uint32_t before = cpu_of(r.cpu)->count[VECTOR_SINT + SINT];

	cpu_run(r.cpu, start_here, &r);
	ok(next_expiry(r.cpu, &p, LONG_MS) && p.expiration == r.at, "VP %u: its timer expires",
	   r.cpu);
	ok(WAIT_FOR(cpu_of(r.cpu)->count[VECTOR_SINT + SINT] == before + 1, LONG_MS),
	   "VP %u: it interrupts", r.cpu);
}

void group_timer(void)
{
	group_begin("timer");
	synic_enable(NULL);
	synic_sint(SINT, 0);
	reset_values();
	for (unsigned i = 0; i < STIMER_COUNT; i++)
		one_shot(i);
	in_the_past();
	auto_enabled();
	disabled();
	periodic();
	direct();
	shared_source();
	if (cpu_count > 1)
		other_processor();
	synic_mask(SINT);
}
