// SPDX-License-Identifier: MIT
/*
 * Exceptions and interrupts. An exception at an instruction that is listed in the fix-up section
 * goes on behind it with 0x100 | vector in RDI; any other ends the guest with a dump. Interrupts
 * are counted, and ended unless their vector says otherwise.
 */
#include "lib/print.h"

struct frame {
	uint64_t r15, r14, r13, r12, r11, r10, r9, r8, rbp, rdi, rsi, rdx, rcx, rbx, rax;
	uint64_t vector, error, rip, cs, rflags, rsp, ss;
};

struct gate {
	uint16_t offset_low, selector, flags, offset_mid;
	uint32_t offset_high, reserved;
};

struct fixup {
	uint64_t at, resume;
};

struct __attribute__((packed)) table_pointer {
	uint16_t limit;
	uint64_t base;
};

#define GATE_INTERRUPT 0x8e00u
#define CODE_SELECTOR  0x08u
#define RAISED         0x100u

extern const uint8_t trap_gates[256][16];
extern const struct fixup fixups_begin[], fixups_end[];
void trap(struct frame *f);

static struct gate idt[256] __attribute__((aligned(16)));
static bool auto_eoi[256], hold_eoi[256];

#define FIXUP(from, to) ".pushsection .fixups, \"a\"\n.quad " from ", " to "\n.popsection\n"

unsigned rdmsr_safe(uint32_t msr, uint64_t *ret)
{
	uint32_t low = 0, high = 0;
	uint64_t raised = 0;

	asm volatile("1: rdmsr\n2:\n" FIXUP("1b", "2b")
		     : "+a"(low), "+d"(high), "+D"(raised)
		     : "c"(msr)
		     : "memory");
	*ret = (uint64_t)high << 32 | low;
	return raised & 0xff;
}

unsigned wrmsr_safe(uint32_t msr, uint64_t value)
{
	uint64_t raised = 0;

	asm volatile("1: wrmsr\n2:\n" FIXUP("1b", "2b")
		     : "+D"(raised)
		     : "c"(msr), "a"((uint32_t)value), "d"((uint32_t)(value >> 32))
		     : "memory");
	return raised & 0xff;
}

static void exception(struct frame *f)
{
	uint64_t address;

	for (const struct fixup *x = fixups_begin; x < fixups_end; x++) {
		if (x->at != f->rip)
			continue;
		f->rip = x->resume;
		f->rdi = RAISED | f->vector;
		return;
	}
	asm volatile("movq %%cr2, %0" : "=r"(address));
	guest_die("exception %lu, error 0x%lx, at 0x%lx, cr2 0x%lx, processor %u", f->vector,
		  f->error, f->rip, address, this_cpu()->index);
}

void trap(struct frame *f)
{
	struct cpu *cpu = this_cpu();
	unsigned vector = (unsigned)f->vector;

	if (vector < 32) {
		exception(f);
		return;
	}
	cpu->count[vector]++;
	if (!auto_eoi[vector] && !hold_eoi[vector] && vector != VECTOR_SPURIOUS)
		apic_eoi();
}

static void idt_load(const void *base, size_t size)
{
	struct table_pointer p = { .limit = (uint16_t)(size ? size - 1 : 0),
				   .base = (uintptr_t)base };

	asm volatile("lidt %0" : : "m"(p));
}

void traps_init(void)
{
	for (unsigned i = 0; i < 256; i++) {
		uintptr_t at = (uintptr_t)trap_gates[i];

		idt[i] = (struct gate){ .offset_low = (uint16_t)at,
					.selector = CODE_SELECTOR,
					.flags = GATE_INTERRUPT,
					.offset_mid = (uint16_t)(at >> 16) };
	}
	idt_load(idt, sizeof(idt));
}

void traps_remove(void)
{
	idt_load(NULL, 0);
}

void vector_set_auto_eoi(unsigned vector, bool on)
{
	auto_eoi[vector] = on;
}

void vector_hold_eoi(unsigned vector, bool on)
{
	hold_eoi[vector] = on;
}
