/* SPDX-License-Identifier: MIT */
/*
 * The processor as these guests use it: single instructions, recoverable accesses, interrupts, and
 * other processors. Names of registers are those of the AMD and Intel manuals.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PAGE_SIZE  4096u
#define MAX_CPUS   64u
#define STACK_SIZE 16384u

#define BIT(n)          (1u << (n))
#define BIT64(n)        (UINT64_C(1) << (n))
#define ARRAY_SIZE(a)   (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b)       ((a) < (b) ? (a) : (b))
#define PAGE_ALIGNED    __attribute__((aligned(PAGE_SIZE)))
#define NORETURN        __attribute__((noreturn))
#define PRINTF(f, args) __attribute__((format(printf, f, args)))

/* Vectors. Those of synthetic interrupt sources are VECTOR_SINT + number; none may keep the tick
 * out. */
#define VECTOR_TICK     0xe0u
#define VECTOR_CALL     0xe1u
#define VECTOR_IPI      0xe2u
#define VECTOR_DIRECT   0x24u
#define VECTOR_SINT     0x30u
#define VECTOR_GP       13u
#define VECTOR_SPURIOUS 0xffu

/* At the bottom of each processor's stack. */
struct cpu {
	unsigned index;
	bool x2apic;
	volatile uint32_t count[256]; /* interrupts taken, by vector */
	void (*volatile call)(void *);
	void *volatile call_argument;
};

static inline struct cpu *this_cpu(void)
{
	uintptr_t sp;

	asm volatile("movq %%rsp, %0" : "=r"(sp));
	return (struct cpu *)(sp & ~(uintptr_t)(STACK_SIZE - 1));
}

static inline void outb(uint16_t port, uint8_t value)
{
	asm volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static inline void outw(uint16_t port, uint16_t value)
{
	asm volatile("outw %0, %1" : : "a"(value), "Nd"(port));
}

static inline void outl(uint16_t port, uint32_t value)
{
	asm volatile("outl %0, %1" : : "a"(value), "Nd"(port));
}

static inline uint8_t inb(uint16_t port)
{
	uint8_t value;

	asm volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

static inline uint64_t rdtsc(void)
{
	uint32_t low, high;

	asm volatile("lfence; rdtsc; lfence" : "=a"(low), "=d"(high) : : "memory");
	return (uint64_t)high << 32 | low;
}

struct cpuid {
	uint32_t eax, ebx, ecx, edx;
};

static inline struct cpuid cpuid(uint32_t leaf, uint32_t index)
{
	struct cpuid c;

	asm volatile("cpuid"
		     : "=a"(c.eax), "=b"(c.ebx), "=c"(c.ecx), "=d"(c.edx)
		     : "a"(leaf), "c"(index));
	return c;
}

static inline uint64_t rdmsr(uint32_t msr)
{
	uint32_t low, high;

	asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr) : "memory");
	return (uint64_t)high << 32 | low;
}

static inline void wrmsr(uint32_t msr, uint64_t value)
{
	asm volatile("wrmsr"
		     :
		     : "c"(msr), "a"((uint32_t)value), "d"((uint32_t)(value >> 32))
		     : "memory");
}

static inline void interrupts_on(void)
{
	asm volatile("sti" : : : "memory");
}

static inline void interrupts_off(void)
{
	asm volatile("cli" : : : "memory");
}

static inline void barrier(void)
{
	asm volatile("mfence" : : : "memory");
}

/* --- traps.c --- */

/* 0, or the vector of the exception that the access raised. */
unsigned rdmsr_safe(uint32_t msr, uint64_t *ret);
unsigned wrmsr_safe(uint32_t msr, uint64_t value);
void traps_init(void); /* each processor */
/* Interrupts on this vector are not ended by software (auto-EOI sources). */
void vector_set_auto_eoi(unsigned vector, bool on);
/* The next interrupts on this vector stay in service; apic_eoi ends them. */
void vector_hold_eoi(unsigned vector, bool on);
/* An IDT that makes any exception a triple fault. */
void traps_remove(void);

/* --- apic.c --- */

extern unsigned cpu_count;   /* processors that are up */
void apic_init(bool x2apic); /* each processor */
uint32_t apic_id(void);      /* from the APIC itself */
uint32_t apic_version(void);
void apic_eoi(void);
void apic_tick(unsigned microseconds); /* one VECTOR_TICK from now */
void apic_send(unsigned cpu, unsigned vector);
struct cpu *cpu_of(unsigned index);
/* Starts the others by INIT and SIPI; how many processors are up afterwards. */
unsigned cpus_start(unsigned wanted);
/* Runs `fn` on another processor (or here) and waits for its end. */
void cpu_run(unsigned index, void (*fn)(void *), void *argument);

/* --- time --- */

extern uint64_t tsc_per_ms, apic_per_ms;
/* Sleeps until something happens on this processor, for a millisecond at most. */
void cpu_wait(void);
static inline uint64_t deadline_in(unsigned ms)
{
	return rdtsc() + ms * tsc_per_ms;
}
void delay_ms(unsigned ms);

/* Waits for a condition, which may have effects; whether it came true in time. */
#define WAIT_FOR(condition, ms)                                                                    \
	({                                                                                         \
		uint64_t end_ = deadline_in(ms);                                                   \
		bool met_;                                                                         \
		while (!(met_ = (condition)) && rdtsc() < end_)                                    \
			cpu_wait();                                                                \
		met_;                                                                              \
	})
