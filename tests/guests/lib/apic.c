// SPDX-License-Identifier: MIT
/*
 * Local APICs in either mode, the other processors, and waiting. APIC ids are VP indices here,
 * which the tests check before they count on it.
 */
#include "lib/print.h"

#define IA32_APIC_BASE   0x1bu
#define APIC_BASE_ENABLE BIT(11)
#define APIC_BASE_X2APIC BIT(10)
#define X2APIC_MSR       0x800u
#define XAPIC_BASE       0xfee00000u

/* Register offsets of the memory-mapped form; an x2APIC MSR is X2APIC_MSR + offset / 16. */
#define APIC_ID       0x20u
#define APIC_VERSION  0x30u
#define APIC_EOI      0xb0u
#define APIC_SPURIOUS 0xf0u
#define APIC_ICR      0x300u
#define APIC_ICR_HIGH 0x310u
#define APIC_TIMER    0x320u
#define APIC_INITIAL  0x380u
#define APIC_DIVIDE   0x3e0u

#define ICR_INIT       0x4500u
#define ICR_SIPI       0x4600u
#define SVR_ENABLE     BIT(8)
#define TIMER_PERIODIC BIT(17)
#define DIVIDE_BY_1    0xbu
#define AP_TRAMPOLINE  0x10000u

extern const uint8_t ap_start[], ap_end[];
extern uint32_t ap_stack;
void ap_main(void);

uint8_t stacks[MAX_CPUS][STACK_SIZE] __attribute__((aligned(STACK_SIZE)));
unsigned cpu_count = 1;
uint64_t tsc_per_ms = 1000000, apic_per_ms = 1000000;
static volatile unsigned cpus_up = 1;

struct cpu *cpu_of(unsigned index)
{
	return (struct cpu *)stacks[index];
}

static void apic_write(uint32_t reg, uint32_t value)
{
	if (this_cpu()->x2apic)
		wrmsr(X2APIC_MSR + reg / 16, value);
	else
		*(volatile uint32_t *)(uintptr_t)(XAPIC_BASE + reg) = value;
}

static uint32_t apic_read(uint32_t reg)
{
	if (this_cpu()->x2apic)
		return (uint32_t)rdmsr(X2APIC_MSR + reg / 16);
	return *(volatile uint32_t *)(uintptr_t)(XAPIC_BASE + reg);
}

static void apic_command(uint32_t target, uint32_t command)
{
	if (this_cpu()->x2apic) {
		wrmsr(X2APIC_MSR + APIC_ICR / 16, (uint64_t)target << 32 | command);
		return;
	}
	apic_write(APIC_ICR_HIGH, target << 24);
	apic_write(APIC_ICR, command);
}

void apic_init(bool x2apic)
{
	uint64_t base = rdmsr(IA32_APIC_BASE) | APIC_BASE_ENABLE;

	this_cpu()->x2apic = x2apic;
	wrmsr(IA32_APIC_BASE, base);
	if (x2apic)
		wrmsr(IA32_APIC_BASE, base | APIC_BASE_X2APIC);
	apic_write(APIC_SPURIOUS, SVR_ENABLE | VECTOR_SPURIOUS);
	apic_write(APIC_DIVIDE, DIVIDE_BY_1);
	apic_write(APIC_TIMER, VECTOR_TICK);
}

uint32_t apic_id(void)
{
	uint32_t id = apic_read(APIC_ID);

	return this_cpu()->x2apic ? id : id >> 24;
}

uint32_t apic_version(void)
{
	return apic_read(APIC_VERSION) & 0xff;
}

void apic_eoi(void)
{
	apic_write(APIC_EOI, 0);
}

void apic_tick(unsigned microseconds)
{
	apic_write(APIC_INITIAL, (uint32_t)(apic_per_ms * microseconds / 1000));
}

void apic_send(unsigned cpu, unsigned vector)
{
	apic_command(cpu, vector);
}

/* --- waiting --- */

/*
 * STI and HLT are one step on a processor. In an emulated one an interrupt of the host's may come
 * between them and let the guest's in, so that the tick that was to end the sleep comes before it:
 * the timer goes on until there was a waking.
 */
void cpu_wait(void)
{
	interrupts_off();
	apic_write(APIC_TIMER, TIMER_PERIODIC | VECTOR_TICK);
	apic_tick(1000);
	asm volatile("sti; hlt" : : : "memory");
	apic_tick(0);
	apic_write(APIC_TIMER, VECTOR_TICK);
}

void delay_ms(unsigned ms)
{
	uint64_t end = deadline_in(ms);

	while (rdtsc() < end)
		cpu_wait();
}

/* --- other processors --- */

void ap_main(void)
{
	struct cpu *cpu = this_cpu();

	traps_init();
	apic_init(cpu_of(0)->x2apic);
	interrupts_on();
	cpus_up++;
	for (;;) {
		interrupts_off();
		if (!cpu->call) {
			asm volatile("sti; hlt" : : : "memory");
			continue;
		}
		interrupts_on();
		cpu->call(cpu->call_argument);
		barrier();
		cpu->call = NULL;
	}
}

unsigned cpus_start(unsigned wanted)
{
	memcpy((void *)(uintptr_t)AP_TRAMPOLINE, ap_start, (size_t)(ap_end - ap_start));
	for (unsigned i = 1; i < MIN(wanted, MAX_CPUS); i++) {
		cpu_of(i)->index = i;
		ap_stack = (uint32_t)(uintptr_t)stacks[i] + STACK_SIZE;
		barrier();
		apic_command(i, ICR_INIT);
		delay_ms(1);
		apic_command(i, ICR_SIPI | AP_TRAMPOLINE >> 12);
		if (!WAIT_FOR(cpus_up > i, 20000))
			break;
	}
	cpu_count = cpus_up;
	return cpu_count;
}

void cpu_run(unsigned index, void (*fn)(void *), void *argument)
{
	struct cpu *cpu = cpu_of(index);

	if (index == this_cpu()->index) {
		fn(argument);
		return;
	}
	cpu->call_argument = argument;
	barrier();
	cpu->call = fn;
	/* Again and again, for the reason at cpu_wait. */
	for (unsigned i = 0; i < 200; i++) {
		apic_send(index, VECTOR_CALL);
		if (WAIT_FOR(!cpu->call, 50))
			return;
	}
	guest_die("processor %u does not come back", index);
}
