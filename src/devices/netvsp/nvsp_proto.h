/* SPDX-License-Identifier: MIT */
/*
 * NVSP, the network adapter's protocol on VMBus: a message type and what belongs to it, padded to
 * the size of the version. Microsoft publishes no document for it; names and values are those of
 * Linux drivers/net/hyperv/hyperv_net.h and of OpenVMM's netvsp/src/protocol.rs, which agree.
 */
#pragma once

#include "lib/types.h"

#define NVSP_PROTOCOL_VERSION_1  0x00002u
#define NVSP_PROTOCOL_VERSION_2  0x30002u
#define NVSP_PROTOCOL_VERSION_4  0x40000u
#define NVSP_PROTOCOL_VERSION_5  0x50000u
#define NVSP_PROTOCOL_VERSION_6  0x60000u
#define NVSP_PROTOCOL_VERSION_61 0x60001u

enum nvsp_message_type {
	NVSP_MSG_TYPE_NONE = 0,
	NVSP_MSG_TYPE_INIT = 1,
	NVSP_MSG_TYPE_INIT_COMPLETE = 2,
	NVSP_MSG1_TYPE_SEND_NDIS_VER = 100,
	NVSP_MSG1_TYPE_SEND_RECV_BUF = 101,
	NVSP_MSG1_TYPE_SEND_RECV_BUF_COMPLETE = 102,
	NVSP_MSG1_TYPE_REVOKE_RECV_BUF = 103,
	NVSP_MSG1_TYPE_SEND_SEND_BUF = 104,
	NVSP_MSG1_TYPE_SEND_SEND_BUF_COMPLETE = 105,
	NVSP_MSG1_TYPE_REVOKE_SEND_BUF = 106,
	NVSP_MSG1_TYPE_SEND_RNDIS_PKT = 107,
	NVSP_MSG1_TYPE_SEND_RNDIS_PKT_COMPLETE = 108,
	NVSP_MSG2_TYPE_SEND_NDIS_CONFIG = 125,
	NVSP_MSG4_TYPE_SEND_VF_ASSOCIATION = 128,
	NVSP_MSG4_TYPE_SWITCH_DATA_PATH = 129,
	NVSP_MSG5_TYPE_OID_QUERY_EX = 131,
	NVSP_MSG5_TYPE_OID_QUERY_EX_COMP = 132,
	NVSP_MSG5_TYPE_SUBCHANNEL = 133,
	NVSP_MSG5_TYPE_SEND_INDIRECTION_TABLE = 134,
	NVSP_MSG6_TYPE_PD_API = 135,
};

enum nvsp_status {
	NVSP_STAT_NONE = 0,
	NVSP_STAT_SUCCESS = 1,
	NVSP_STAT_FAIL = 2,
	NVSP_STAT_INVALID_RNDIS_PKT = 5,
	NVSP_STAT_BUSY = 6,
};

#define NVSP_INVALID_SECTION      0xffffffffu /* nothing lies in the send buffer */
#define NVSP_DATAPATH_SYNTHETIC   0u
#define NVSP_SUBCHANNEL_ALLOCATE  1u
#define NVSP_CHANNEL_TYPE_DATA    0u
#define NVSP_CHANNEL_TYPE_CONTROL 1u
#define NVSP_SEND_TABLE_SIZE      16u

/* Capabilities of a guest in SEND_NDIS_CONFIG. */
#define NVSP_CAPABILITY_IEEE8021Q BIT(3)
#define NVSP_CAPABILITY_RSC       BIT(7)

struct nvsp_init {
	le32 min_protocol_ver, max_protocol_ver;
};
struct nvsp_init_complete {
	le32 negotiated_protocol_ver, max_mdl_chain_len, status;
};
struct nvsp_buffer {
	le32 gpadl_handle;
	le16 id, reserved;
};
struct nvsp_receive_buffer_complete {
	le32 status, num_sections; /* one is all that any host has ever sent */
	le32 offset, sub_alloc_size, num_sub_allocs, end_offset;
};
struct nvsp_send_buffer_complete {
	le32 status, section_size;
};
struct nvsp_rndis_packet {
	le32 channel_type, send_buf_section_index, send_buf_section_size;
};
struct nvsp_ndis_config {
	le32 mtu, reserved, capabilities, capabilities_high;
};
struct nvsp_subchannel {
	le32 operation, num_subchannels;
};
struct nvsp_subchannel_complete {
	le32 status, num_subchannels;
};
struct nvsp_indirection_table {
	le32 table_entry_count, table_offset;
};
struct nvsp_oid_query_ex_complete {
	le32 status, bytes;
};
struct nvsp_pd_api_complete {
	le32 operation, status;
};

struct nvsp_message {
	le32 type;
	union {
		struct nvsp_init init;
		struct nvsp_init_complete init_complete;
		struct nvsp_buffer buffer;
		struct nvsp_receive_buffer_complete receive_buffer;
		struct nvsp_send_buffer_complete send_buffer;
		struct nvsp_rndis_packet rndis;
		le32 status;
		le32 data_path;
		struct nvsp_subchannel subchannel;
		struct nvsp_subchannel_complete subchannel_complete;
		struct nvsp_indirection_table table;
		struct nvsp_oid_query_ex_complete oid;
		struct nvsp_pd_api_complete pd;
		uint8_t bytes[36];
	};
};
_Static_assert(sizeof(struct nvsp_message) == 40, "the size of 6.1");
#define NVSP_MESSAGE_SIZE_1  28u
#define NVSP_MESSAGE_SIZE_61 40u
