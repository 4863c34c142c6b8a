/* SPDX-License-Identifier: MIT */
/*
 * The hypervisor as a guest sees it: TLFS (6.0b numbering). The guest has its own copy of these
 * numbers so that a mistake in the host's headers cannot hide here.
 */
#pragma once

#include "lib/cpu.h"

/* CPUID, TLFS 2.4 */
#define LEAF_VENDOR          0x40000000u
#define LEAF_INTERFACE       0x40000001u
#define LEAF_VERSION         0x40000002u
#define LEAF_FEATURES        0x40000003u
#define LEAF_RECOMMENDATIONS 0x40000004u
#define LEAF_LIMITS          0x40000005u
#define LEAF_HARDWARE        0x40000006u

/* Leaf 3 EAX: access to MSRs */
#define FEATURE_VP_RUNTIME    BIT(0)
#define FEATURE_REF_COUNTER   BIT(1)
#define FEATURE_SYNIC         BIT(2)
#define FEATURE_STIMER        BIT(3)
#define FEATURE_APIC_MSRS     BIT(4)
#define FEATURE_HYPERCALL     BIT(5)
#define FEATURE_VP_INDEX      BIT(6)
#define FEATURE_RESET         BIT(7)
#define FEATURE_REFERENCE_TSC BIT(9)
#define FEATURE_FREQUENCIES   BIT(11)
/* EBX: privileges */
#define PRIVILEGE_CREATE_PARTITIONS BIT(0)
#define PRIVILEGE_ACCESS_ID         BIT(1)
#define PRIVILEGE_MEMORY_POOL       BIT(2)
#define PRIVILEGE_POST_MESSAGES     BIT(4)
#define PRIVILEGE_SIGNAL_EVENTS     BIT(5)
#define PRIVILEGE_CREATE_PORT       BIT(6)
#define PRIVILEGE_CONNECT_PORT      BIT(7)
#define PRIVILEGE_DEBUGGING         BIT(11)
#define PRIVILEGE_CPU_MANAGEMENT    BIT(12)
/* EDX */
#define FEATURE_FREQUENCY_MSRS BIT(8)
#define FEATURE_CRASH_MSRS     BIT(10)
#define FEATURE_STIMER_DIRECT  BIT(19)
/* Leaf 4 EAX: recommendations */
#define RECOMMEND_REMOTE_FLUSH BIT(2)
#define RECOMMEND_NO_AUTO_EOI  BIT(9)
#define RECOMMEND_CLUSTER_IPI  BIT(10)
#define RECOMMEND_EX_MASKS     BIT(11)
#define RECOMMEND_EVMCS        BIT(14)

/* MSRs, TLFS appendix F */
#define HV_X64_MSR_GUEST_OS_ID    0x40000000u
#define HV_X64_MSR_HYPERCALL      0x40000001u
#define HV_X64_MSR_VP_INDEX       0x40000002u
#define HV_X64_MSR_RESET          0x40000003u
#define HV_X64_MSR_VP_RUNTIME     0x40000010u
#define HV_X64_MSR_TIME_REF_COUNT 0x40000020u
#define HV_X64_MSR_REFERENCE_TSC  0x40000021u
#define HV_X64_MSR_TSC_FREQUENCY  0x40000022u
#define HV_X64_MSR_APIC_FREQUENCY 0x40000023u
#define HV_X64_MSR_EOI            0x40000070u
#define HV_X64_MSR_TPR            0x40000072u
#define HV_X64_MSR_VP_ASSIST_PAGE 0x40000073u
#define HV_X64_MSR_SCONTROL       0x40000080u
#define HV_X64_MSR_SVERSION       0x40000081u
#define HV_X64_MSR_SIEFP          0x40000082u
#define HV_X64_MSR_SIMP           0x40000083u
#define HV_X64_MSR_EOM            0x40000084u
#define HV_X64_MSR_SINT0          0x40000090u
#define HV_X64_MSR_STIMER0_CONFIG 0x400000b0u
#define HV_X64_MSR_STIMER0_COUNT  0x400000b1u
#define HV_X64_MSR_CRASH_P0       0x40000100u
#define HV_X64_MSR_CRASH_CTL      0x40000105u
#define HV_MSR_ENABLE             BIT64(0) /* of the pages' MSRs */
#define HV_HYPERCALL_LOCKED       BIT64(1)
#define HV_CRASH_NOTIFY           BIT64(63)
#define SINT_MASKED               BIT64(16) /* TLFS 11.8.4 */
#define SINT_AUTO_EOI             BIT64(17)
#define SINT_COUNT                16u
#define STIMER_ENABLE             BIT64(0) /* TLFS 12.4.1 */
#define STIMER_PERIODIC           BIT64(1)
#define STIMER_AUTO_ENABLE        BIT64(3)
#define STIMER_VECTOR(v)          ((uint64_t)(v) << 4)
#define STIMER_DIRECT             BIT64(12)
#define STIMER_SINT(n)            ((uint64_t)(n) << 16)
#define STIMER_COUNT              4u

/* Hypercalls, TLFS appendix A, and statuses, appendix B */
#define HVCALL_FLUSH_SPACE         0x0002u
#define HVCALL_FLUSH_LIST          0x0003u
#define HVCALL_LONG_SPIN_WAIT      0x0008u
#define HVCALL_CLUSTER_IPI         0x000bu
#define HVCALL_CREATE_PARTITION    0x0040u
#define HVCALL_POST_MESSAGE        0x005cu
#define HVCALL_SIGNAL_EVENT        0x005du
#define HVCALL_FAST                BIT64(16)
#define HVCALL_REPS(n)             ((uint64_t)(n) << 32)
#define HV_SUCCESS                 0x0000u
#define HV_INVALID_HYPERCALL_CODE  0x0002u
#define HV_INVALID_HYPERCALL_INPUT 0x0003u
#define HV_INVALID_ALIGNMENT       0x0004u
#define HV_INVALID_PARAMETER       0x0005u
#define HV_ACCESS_DENIED           0x0006u
#define HV_INVALID_CONNECTION_ID   0x0012u
#define HV_INSUFFICIENT_BUFFERS    0x0013u

/* Messages, TLFS 11.10 */
#define HV_MESSAGE_TIMER_EXPIRED 0x80000010u
#define HV_MESSAGE_PAYLOAD       240u
#define HV_MESSAGE_FLAG_PENDING  BIT(0)
#define EVENT_FLAGS              2048u

struct hv_message {
	uint32_t type;
	uint8_t size, flags;
	uint16_t reserved;
	uint64_t port;
	uint8_t payload[HV_MESSAGE_PAYLOAD];
};
_Static_assert(sizeof(struct hv_message) == 256, "TLFS 11.10.1");

struct hv_post_input {
	uint32_t connection, reserved, type, size;
	uint8_t payload[HV_MESSAGE_PAYLOAD];
};

struct hv_timer_payload {
	uint32_t index, reserved;
	uint64_t expiration, delivery;
};

struct reference_tsc_page {
	volatile uint32_t sequence;
	uint32_t reserved;
	volatile uint64_t scale;
	volatile int64_t offset;
};

/* The test port of partita's --test-devices. */
#define SYNIC_TEST_PORT 0x3000
enum synic_test_command {
	ROUTE_CREATE = 1,
	ROUTE_DESTROY = 2,
	ROUTE_RAISE = 3,
	MESSAGE_CREATE = 4,
	EVENT_CREATE = 5,
	MESSAGE_DESTROY = 6,
	EVENT_DESTROY = 7,
};

void hv_init(void); /* identity, hypercall page, clock rates; processor 0 */
const uint8_t *hv_hypercall_page(void);
uint64_t hv_call(uint64_t control, uint64_t input, uint64_t output);
/* A page for hypercall input, one for each processor. */
void *hv_input(void);
uint16_t hv_post(uint32_t connection, uint32_t type, const void *payload, size_t size);
uint16_t hv_signal(uint32_t connection, unsigned flag); /* the fast form */
uint64_t hv_time(void);                                 /* 100 ns, the reference counter */

/* SynIC of the processor it runs on: pages and control on, all SINTs masked. */
void synic_enable(void *unused);
void synic_sint(unsigned sint, uint64_t flags); /* unmasked at VECTOR_SINT + sint */
void synic_mask(unsigned sint);
volatile struct hv_message *synic_slot(unsigned cpu, unsigned sint);
uint8_t *synic_events(unsigned cpu, unsigned sint);
/* Takes a message out of a slot of any processor, with end-of-message there when asked for. */
bool message_take(unsigned cpu, unsigned sint, struct hv_message *ret);
/* Whether the flag was set; it is cleared. */
bool event_take(unsigned cpu, unsigned sint, unsigned flag);
void synic_test(enum synic_test_command command, unsigned connection, unsigned vp, unsigned sint);
/* Empties all slots of all processors until nothing comes any more. */
void synic_drain(void);
