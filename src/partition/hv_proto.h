/* SPDX-License-Identifier: MIT */
/*
 * Constants and layouts of Microsoft's Hypervisor Top Level Functional Specification (TLFS, 6.0b
 * numbering), names as there. Nothing of our own lives here.
 */
#pragma once

#include "lib/types.h"

/* CPUID, TLFS 2.4 */
#define HV_CPUID_VENDOR         0x40000000u
#define HV_CPUID_INTERFACE      0x40000001u
#define HV_CPUID_FEATURES       0x40000003u
#define HV_CPUID_ENLIGHTENMENTS 0x40000004u
#define HV_CPUID_LIMITS         0x40000005u
#define HV_CPUID_HARDWARE       0x40000006u
#define HV_CPUID_NESTED         0x4000000au
#define HV_INTERFACE_HV1        0x31237648u /* "Hv#1" */
/* Leaf 3, EBX and EDX (TLFS 2.4.4) and leaf 4, EAX (2.4.5) */
#define HV_EXTENDED_HYPERCALLS          BIT(20)
#define HV_GUEST_DEBUGGING              BIT(1)
#define HV_DEBUGGING                    BIT(11)
#define HV_DEBUG_REGISTERS              BIT(11)
#define HV_ENLIGHTENED_VMCS_RECOMMENDED BIT(14)

/* SynIC MSRs, TLFS 11.8 */
#define HV_SYNIC_CONTROL_ENABLE BIT64(0)
#define HV_SIMP_ENABLE          BIT64(0)
#define HV_SIEFP_ENABLE         BIT64(0)
#define HV_PAGE_ADDRESS_MASK    (~UINT64_C(0xfff))
#define HV_SYNIC_SINT_COUNT     16u
#define HV_EVENT_FLAGS_COUNT    2048u
#define HV_EVENT_FLAGS_BYTES    256u

/* Messages, TLFS 11.10: 256 bytes, 16 slots to a page */
#define HV_MESSAGE_SIZE            256u
#define HV_MESSAGE_PAYLOAD_SIZE    240u
#define HV_MESSAGE_NONE            0u
#define HV_MESSAGE_TYPE_HYPERVISOR BIT(31)
#define HV_MESSAGE_FLAGS_OFFSET    5u
#define HV_MESSAGE_PENDING         1u

struct hv_message_header {
	le32 message_type;
	uint8_t payload_size;
	uint8_t message_flags;
	le16 reserved;
	le64 port_id;
};
_Static_assert(sizeof(struct hv_message_header) == 16, "TLFS 11.10.1");

/* Hypercalls, TLFS 3.7 and appendix A */
#define HVCALL_POST_MESSAGE        0x5cu
#define HVCALL_SIGNAL_EVENT        0x5du
#define HVCALL_EXT_QUERY           0x8001u /* HvExtCallQueryCapabilities */
#define HVCALL_EXT_HEAT_HINT       0x8003u /* HvExtCallMemoryHeatHint */
#define HV_HYPERCALL_CODE(control) ((uint16_t)(control))
#define HV_HYPERCALL_FAST          BIT64(16)
/* Repeated calls: how many elements, the first of them, and those done in the result, 3.7.2 */
#define HV_HYPERCALL_REP_COUNT(control) ((unsigned)((control) >> 32 & 0xfff))
#define HV_HYPERCALL_REP_START(control) ((unsigned)((control) >> 48 & 0xfff))
#define HV_HYPERCALL_REPS_DONE(n)       ((uint64_t)(n) << 32)

#define HV_X64_MSR_GUEST_OS_ID 0x40000000u /* TLFS 2.6 */

/* Linux include/asm-generic/hyperv-tlfs.h: what HvExtCallQueryCapabilities answers; hints */
#define HV_EXT_CAPABILITY_COLD_DISCARD_HINT BIT64(8)
#define HV_HEAT_HINT_COLD_DISCARD           2u
#define HV_GPA_RANGE_ADDITIONAL             UINT64_C(0x7ff)
#define HV_GPA_RANGE_LARGE                  BIT64(11)
#define HV_GPA_RANGE_1G                     BIT64(12) /* of large ones: 1 GiB, not 2 MiB */

struct hv_input_post_message {
	le32 connection_id;
	le32 reserved;
	le32 message_type;
	le32 payload_size;
	uint8_t payload[HV_MESSAGE_PAYLOAD_SIZE];
};
_Static_assert(sizeof(struct hv_input_post_message) == 256, "TLFS 11.10.4");

/* Status values, TLFS appendix B. Their own type: they never mix with errno. */
typedef struct {
	uint16_t value;
} hv_status;

#define HV_STATUS(v)                      ((hv_status){ .value = (v) })
#define HV_STATUS_SUCCESS                 HV_STATUS(0x0000)
#define HV_STATUS_INVALID_HYPERCALL_CODE  HV_STATUS(0x0002)
#define HV_STATUS_INVALID_HYPERCALL_INPUT HV_STATUS(0x0003)
#define HV_STATUS_INVALID_ALIGNMENT       HV_STATUS(0x0004)
#define HV_STATUS_INVALID_PARAMETER       HV_STATUS(0x0005)
#define HV_STATUS_INVALID_CONNECTION_ID   HV_STATUS(0x0012)
#define HV_STATUS_INSUFFICIENT_BUFFERS    HV_STATUS(0x0013)
