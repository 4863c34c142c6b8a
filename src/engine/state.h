/* SPDX-License-Identifier: MIT */
/*
 * All that makes a virtual processor what it is, in terms of the architecture and of TLFS, not of
 * an engine: what one engine has put out the same one takes in again, on another host too.
 * Registers, fields and bits are named after TLFS 7 (virtual processor registers) where it has
 * them, else after the manuals of the processors.
 */
#pragma once

#include "engine/engine.h"

#define VP_XSAVE_MAX  16384u /* bytes of a standard-format XSAVE area; AMX needs 11,008 */
#define VP_APIC_SIZE  1024u  /* the registers of a local APIC, each in 16 bytes (SDM 3, 11.4.1) */
#define VP_MSRS_MAX   512u
#define VP_DEBUG_REGS 4u

/* TLFS 7.8, HvRegisterInternalActivityState; and a processor that was never started. */
enum vp_activity {
	VP_RUNNING,
	VP_HALTED,
	VP_WAIT_FOR_SIPI, /* after INIT: StartupSuspend */
	VP_NEVER_STARTED,
	VP_SIPI_RECEIVED,
};

/*
 * TLFS 7.9: HvRegisterPendingInterruption (what was being injected), HvRegisterInterruptState, and
 * HvRegisterPendingEvent0 (what is to be injected).
 */
struct vp_events {
	bool exception_injected, exception_pending, deliver_error_code;
	bool exception_has_payload;
	uint8_t exception_vector;
	uint32_t error_code;
	uint64_t exception_payload;
	bool interrupt_injected, interrupt_soft;
	uint8_t interrupt_vector;
	uint8_t interrupt_shadow; /* 1 after MOV SS, 2 after STI */
	bool nmi_injected, nmi_pending, nmi_masked;
	bool smm, smi_pending, smm_inside_nmi, init_latched;
	bool triple_fault_pending;
	uint32_t sipi_vector;
};

struct vp_msr {
	uint32_t index;
	uint64_t value;
};

struct vp_state {
	struct vp_registers registers;
	uint64_t xcr0;
	uint64_t dr[VP_DEBUG_REGS], dr6, dr7;
	struct vp_events events;
	uint8_t activity; /* enum vp_activity */
	/* The time stamp counter at the moment of the clock's reading. */
	uint64_t tsc;
	uint8_t apic[VP_APIC_SIZE];
	uint32_t xsave_size;
	uint8_t xsave[VP_XSAVE_MAX];
	/*
	 * Every MSR that is not above, by index: architectural ones, and those of TLFS (guest OS
	 * id, hypercall page, reference TSC page, VP assist page, SynIC, timers).
	 */
	uint32_t msr_count;
	struct vp_msr msrs[VP_MSRS_MAX];
};

/* The partition's clocks. Reference time goes on from `reference_time`, in ns (TLFS 12.3). */
struct engine_clock {
	uint64_t reference_time;
	uint32_t tsc_khz;
};
