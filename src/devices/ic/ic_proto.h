/* SPDX-License-Identifier: MIT */
/*
 * Messages of the integration components as they lie in ring packets. Microsoft publishes no
 * document for them; names and values are those of Linux include/linux/hyperv.h (icmsg_hdr,
 * shutdown_msg_data, ictimesync_data), include/uapi/linux/hyperv.h (hv_kvp_*, hv_vss_*, hv_fcopy_*)
 * and of OpenVMM's hyperv_ic_protocol, which agree. Nothing of our own lives here.
 *
 * A packet is vmbuspipe_hdr, icmsg_hdr, body. Both heads and most bodies are not aligned, so they
 * are read and written through cursors, by these sizes.
 */
#pragma once

#include "lib/types.h"

#define VMBUSPIPE_HDR_SIZE 8u /* u32 flags, u32 msgsize */
#define VMBUSPIPE_DATA     1u /* flags */
/* u16 framework major, minor; u16 type; u16 major, minor; u16 size; u32 status; u8 transaction id,
 * flags, reserved[2] */
#define ICMSG_HDR_SIZE    20u
#define VMBUSPIPE_MESSAGE 4u /* le32 at the start of an offer's user data: framed messages */

#define ICMSGTYPE_NEGOTIATE   0u
#define ICMSGTYPE_HEARTBEAT   1u
#define ICMSGTYPE_KVPEXCHANGE 2u
#define ICMSGTYPE_SHUTDOWN    3u
#define ICMSGTYPE_TIMESYNC    4u
#define ICMSGTYPE_VSS         5u
#define ICMSGTYPE_FCOPY       7u

#define ICMSGHDRFLAG_TRANSACTION BIT(0)
#define ICMSGHDRFLAG_REQUEST     BIT(1)
#define ICMSGHDRFLAG_RESPONSE    BIT(2)

/* Statuses (HRESULTs; MS-ERREF 2.1.1). */
#define HV_S_OK                       0x00000000u
#define HV_S_CONT                     0x80070103u /* no more items */
#define HV_E_FAIL                     0x80004005u
#define HV_ERROR_NOT_SUPPORTED        0x80070032u
#define HV_ERROR_ALREADY_EXISTS       0x80070050u
#define HV_INVALIDARG                 0x80070057u
#define HV_ERROR_DISK_FULL            0x80070070u
#define HV_ERROR_MACHINE_LOCKED       0x800704f7u
#define HV_ERROR_DEVICE_NOT_CONNECTED 0x8007048fu
#define HV_GUID_NOTFOUND              0x80041002u
#define HV_ERROR_FILE_NOT_FOUND       0x80070002u
#define HV_ERROR_PATH_NOT_FOUND       0x80070003u
#define HV_ERROR_ACCESS_DENIED        0x80070005u

/* icmsg_negotiate: u16 framework versions, u16 message versions, u32 reserved, then the versions */
#define ICMSG_NEGOTIATE_SIZE 8u

/* heartbeat_msg_data: u64 seq_num, u32 application state, u32 reserved[7] */
#define HEARTBEAT_MSG_SIZE 40u

/* shutdown_msg_data: u32 reason_code, timeout_seconds, flags; u16 display_message[1024] */
#define SHUTDOWN_MESSAGE_SIZE     2048u
#define SHUTDOWN_FORCE            BIT(0)
#define SHUTDOWN_RESTART          BIT(1)
#define SHUTDOWN_HIBERNATE        BIT(2)
#define SHTDN_REASON_FLAG_PLANNED 0x80000000u

/* ictimesync_data: u64 parenttime, childtime, roundtriptime; u8 flags (before 4.0) */
/* ictimesync_ref_data: u64 parenttime, vmreferencetime; u8 flags, leapflags, stratum, reserved[3]
 */
#define ICTIMESYNCFLAG_PROBE  0u
#define ICTIMESYNCFLAG_SYNC   BIT(0)
#define ICTIMESYNCFLAG_SAMPLE BIT(1)

/* hv_kvp_hdr: u8 operation, u8 pool, u16 pad */
enum hv_kvp_exchg_op {
	KVP_OP_GET = 0,
	KVP_OP_SET = 1,
	KVP_OP_DELETE = 2,
	KVP_OP_ENUMERATE = 3,
	KVP_OP_GET_IP_INFO = 4,
	KVP_OP_SET_IP_INFO = 5,
};

enum hv_kvp_exchg_pool {
	KVP_POOL_EXTERNAL = 0,      /* host's items, a person's */
	KVP_POOL_GUEST = 1,         /* guest's items, a person's */
	KVP_POOL_AUTO = 2,          /* guest's items, made by its daemon */
	KVP_POOL_AUTO_EXTERNAL = 3, /* host's items, made by the host */
	KVP_POOL_AUTO_INTERNAL = 4,
	KVP_POOL_COUNT = 5,
};

#define REG_SZ  1u
#define REG_U32 4u
#define REG_U64 8u

#define HV_KVP_EXCHANGE_MAX_KEY_SIZE   512u
#define HV_KVP_EXCHANGE_MAX_VALUE_SIZE 2048u

/* hv_kvp_ipaddr_value: u16 adapter_id[128]; u8 addr_family, dhcp_enabled; u16 ip_addr[1024],
 * sub_net[1024], gate_way[512], dns_addr[1024]; texts of several end with ';' each */
#define KVP_ADAPTER_ID_SIZE 256u
#define KVP_IP_ADDR_SIZE    2048u
#define KVP_GATEWAY_SIZE    1024u
#define ADDR_FAMILY_IPV4    1u
#define ADDR_FAMILY_IPV6    2u

/* hv_vss_hdr: u8 operation, u8 reserved[7]; then u32 flags */
#define VSS_OP_HOT_BACKUP 2u
#define VSS_OP_FREEZE     5u
#define VSS_OP_THAW       6u
#define HV_VSS_MSG_SIZE   12u

/* hv_fcopy_hdr: u32 operation, u8 service_id0[16], service_id1[16] */
#define START_FILE_COPY     0u
#define WRITE_TO_FILE       1u
#define COMPLETE_FCOPY      2u
#define CANCEL_FCOPY        3u
#define HV_FCOPY_HDR_SIZE   36u
#define FCOPY_PATH_SIZE     520u /* u16[260], of file_name and of path_name */
#define OVER_WRITE          BIT(0)
#define CREATE_PATH         BIT(1)
#define FCOPY_DATA_FRAGMENT 6144u
/* hv_start_fcopy: header, file_name, path_name, u32 copy_flags, u64 file_size
 * hv_do_fcopy: header, u32 pad, u64 offset, u32 size, u8 data[DATA_FRAGMENT] */
