/* SPDX-License-Identifier: MIT */
/*
 * The engine: what turns host memory and threads into a partition with virtual processors. Code
 * above never knows which engine runs; what one cannot do, its capability bits say.
 *
 * Threads: engine_vp_run and the vp_get/vp_set calls of a VP belong to the one thread that runs it;
 * everything marked [any] may be called from any thread while the partition exists.
 */
#pragma once

#include "gmem/gmem.h"
#include "lib/error.h"

#include <pthread.h>

/* Times that a partition's memory can be added to, between two resets. */
#define ENGINE_MAX_ADDED 64
/* VPs per partition. TLFS allows a sparse set of 4,096; the code plans for 2,048. */
#define ENGINE_MAX_VPS     64
#define ENGINE_IOAPIC_PINS 24

enum engine_capability {
	ENGINE_CAP_SYNIC = BIT(0),         /* SynIC pages, SINTs, synthetic timers */
	ENGINE_CAP_REFERENCE_TSC = BIT(1), /* reference TSC page can be offered */
	ENGINE_CAP_EVENTFD_SIGNAL =
		BIT(2), /* HvCallSignalEvent reaches an eventfd without an exit */
	ENGINE_CAP_DIRTY_LOG = BIT(3),
	ENGINE_CAP_EOM_EXIT = BIT(4), /* the end of a message is reported (VP_EXIT_EOM) */
	ENGINE_CAP_SAVE = BIT(5),     /* clock_get .. vp_set_state */
};

/* --- CPUID as data --- */

struct cpuid_entry {
	uint32_t function, index;
	bool index_matters;
	uint32_t eax, ebx, ecx, edx;
};

#define CPUID_LIST_MAX 256
struct cpuid_list {
	unsigned count;
	struct cpuid_entry entries[CPUID_LIST_MAX];
};

/* --- VP state --- */

struct vp_segment {
	uint64_t base;
	uint32_t limit;
	uint16_t selector, attributes; /* attributes as in a VMCS/VMCB: type|S|DPL|P|AVL|L|DB|G */
};

struct vp_table {
	uint64_t base;
	uint16_t limit;
};

/* All architectural registers that a boot protocol or a debugger sets. */
struct vp_registers {
	uint64_t rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8, r9, r10, r11, r12, r13, r14, r15;
	uint64_t rip, rflags;
	uint64_t cr0, cr2, cr3, cr4, cr8, efer, apic_base;
	struct vp_segment cs, ds, es, fs, gs, ss, tr, ldt;
	struct vp_table gdt, idt;
};

struct vp_state;     /* engine/state.h: all of it, for saving */
struct engine_clock; /* likewise */

/* --- exits --- */

enum vp_exit_kind {
	VP_EXIT_INTERRUPTED, /* kicked, or a signal arrived */
	VP_EXIT_PIO,
	VP_EXIT_MMIO,
	VP_EXIT_HYPERCALL, /* one the engine does not serve itself */
	VP_EXIT_SYNIC,     /* the guest changed SCONTROL, SIMP or SIEFP */
	VP_EXIT_EOM,       /* the guest wrote end-of-message: message slots may be free */
	VP_EXIT_IOAPIC_EOI,
	VP_EXIT_CRASH, /* the guest reported a crash through the crash MSRs and runs on */
	VP_EXIT_RESET, /* the guest asked for a reset (reset MSR) */
	VP_EXIT_TRIPLE_FAULT,
	VP_EXIT_ERROR, /* the VP cannot go on; `error` has the words */
};

struct vp_exit {
	enum vp_exit_kind kind;
	union {
		struct {
			uint16_t port;
			uint8_t size; /* 1, 2, 4 */
			bool write;
			uint32_t count; /* > 1 for string instructions */
			void *data;     /* count * size bytes: read by the VP at its next run */
		} pio;
		struct {
			uint64_t gpa;
			uint8_t size; /* 1..8 */
			bool write;
			uint8_t *data;
		} mmio;
		struct {
			uint64_t control;       /* hypercall input value (TLFS 3.7) */
			uint64_t input, output; /* GPAs, or the values themselves when fast */
			uint64_t *result;       /* hypercall result value, to be filled in */
		} hypercall;
		struct {
			uint64_t control, simp, siefp; /* MSR values */
		} synic;
		struct {
			uint8_t vector;
		} ioapic_eoi;
		struct {
			uint64_t control, parameters[5]; /* HV_X64_MSR_CRASH_CTL, P0..P4 */
		} crash;
		struct error error;
	};
};

/* --- the engine --- */

struct engine;

struct engine_partition {
	const struct engine *engine;
	unsigned vp_count;
	struct gmem *gm;
};

struct engine {
	const char *name;
	const char *summary; /* one line for people */
	/* 0 and the capability bits when usable here; else negative errno and why not. */
	int (*probe)(uint32_t *ret_capabilities, struct error *err);
	/* Leaves that the engine can give to a guest; Hyper-V leaves included. */
	int (*supported_cpuid)(struct cpuid_list *ret, struct error *err);

	/* Creates the partition with all its VPs and maps the RAM of `gm` (borrowed). */
	int (*create)(struct gmem *gm, unsigned vp_count, struct engine_partition **ret,
		      struct error *err);
	void (*destroy)(struct engine_partition *p); /* no VP may be running */
	/* Back to the state after create: VPs, SynIC, timers, routes. No VP may be running. */
	int (*reset)(struct engine_partition *p, struct error *err);

	/*
	 * Adds memory that gmem's last range is about to grow by, from `offset` in it (its size so
	 * far) on; multiples of 2 MiB. VPs may be running. -ENOSPC when there are too many pieces.
	 */
	int (*memory_add)(struct engine_partition *p, uint64_t offset, uint64_t size);

	int (*vp_set_cpuid)(struct engine_partition *p, unsigned vp, const struct cpuid_list *list,
			    struct error *err);
	int (*vp_get_registers)(struct engine_partition *p, unsigned vp, struct vp_registers *ret);
	int (*vp_set_registers)(struct engine_partition *p, unsigned vp,
				const struct vp_registers *regs);
	int (*vp_get_msr)(struct engine_partition *p, unsigned vp, uint32_t msr, uint64_t *ret);
	int (*vp_set_msr)(struct engine_partition *p, unsigned vp, uint32_t msr, uint64_t value);
	/*
	 * Saved state (state.h). No VP runs, and the last exit of each was VP_EXIT_INTERRUPTED: an
	 * access that was served but not finished by another vp_run would be lost. Saving: the
	 * clock once, then each VP on its thread. Restoring, after `create` and CPUID: likewise,
	 * the clock first. Words say what a host cannot take over.
	 */
	int (*clock_get)(struct engine_partition *p, struct engine_clock *ret, struct error *err);
	int (*clock_set)(struct engine_partition *p, const struct engine_clock *clock,
			 struct error *err);
	int (*vp_get_state)(struct engine_partition *p, unsigned vp, struct vp_state *ret,
			    struct error *err);
	int (*vp_set_state)(struct engine_partition *p, unsigned vp, const struct vp_state *state,
			    struct error *err);
	/* Runs the VP until something needs attention. Never fails: see VP_EXIT_ERROR. */
	void (*vp_run)(struct engine_partition *p, unsigned vp, struct vp_exit *ret);
	/* [any] Makes a running or the next vp_run of the VP return VP_EXIT_INTERRUPTED. */
	void (*vp_kick)(struct engine_partition *p, unsigned vp);

	/* [any] A message-signalled interrupt (x86 address and data format). */
	int (*interrupt)(struct engine_partition *p, uint64_t address, uint32_t data);
	/*
	 * Tells what an I/O APIC pin delivers, so that the engine can report ends of level
	 * interrupts. data 0 and address 0 = masked.
	 */
	int (*ioapic_route)(struct engine_partition *p, unsigned pin, uint64_t address,
			    uint32_t data);
	/* [any] Requests the interrupt of a synthetic interrupt source, as its SINT says. */
	int (*sint_raise)(struct engine_partition *p, unsigned vp, unsigned sint);
	/*
	 * HvCallSignalEvent on this connection id (24 bits) writes to the eventfd; -1 unbinds.
	 * The descriptor is borrowed while bound.
	 */
	int (*bind_connection)(struct engine_partition *p, uint32_t connection_id, int eventfd);
	/* Writes of 1, 2, 4 or 8 bytes to a port or an address become eventfd signals. */
	int (*bind_pio)(struct engine_partition *p, uint16_t port, unsigned size, int eventfd,
			bool bind);
	int (*bind_mmio)(struct engine_partition *p, uint64_t gpa, unsigned size, int eventfd,
			 bool bind);
	/* [any] The partition's reference time in 100 ns (TLFS 12.4), as its VPs read it. */
	int (*reference_time)(struct engine_partition *p, uint64_t *ret);
	/*
	 * Dirty log of one gmem range: turned on or off; fetching reads and clears it, one bit per
	 * page into `bitmap` (size of the range / 32 KiB bytes, rounded up to 8).
	 */
	int (*dirty_log_enable)(struct engine_partition *p, bool on);
	int (*dirty_log_fetch)(struct engine_partition *p, unsigned range, uint64_t *bitmap);
};

extern const struct engine engine_kvm;
extern const struct engine engine_fake; /* for tests; see engine/fake.h */

/* All engines for guests, ended by NULL (fake is not one). */
extern const struct engine *const engines[];
/* By name, also "fake"; NULL or "auto" = the first usable one of `engines`. */
const struct engine *engine_find(const char *name, struct error *err);
