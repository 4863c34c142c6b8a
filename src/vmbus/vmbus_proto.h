/* SPDX-License-Identifier: MIT */
/*
 * VMBus messages and ring layout as they lie in guest memory. Microsoft publishes no document for
 * them; names and values are those of Linux include/linux/hyperv.h and of OpenVMM's
 * vmbus_core/src/protocol.rs, which agree. Nothing of our own lives here.
 */
#pragma once

#include "lib/guid.h"

#define VMBUS_MESSAGE_TYPE            1u /* SynIC message type that carries channel messages */
#define VMBUS_MESSAGE_SINT            2u
#define VMBUS_MESSAGE_CONNECTION_ID   1u
#define VMBUS_MESSAGE_CONNECTION_ID_4 4u /* multi-client, from version 5.0 */

#define VMBUS_VERSION(major, minor) ((uint32_t)(major) << 16 | (minor))
#define VERSION_WIN8                VMBUS_VERSION(2, 4)
#define VERSION_WIN8_1              VMBUS_VERSION(3, 0)
#define VERSION_WIN10               VMBUS_VERSION(4, 0)
#define VERSION_WIN10_V4_1          VMBUS_VERSION(4, 1)
#define VERSION_WIN10_V5            VMBUS_VERSION(5, 0)
#define VERSION_WIN10_V5_1          VMBUS_VERSION(5, 1)
#define VERSION_WIN10_V5_2          VMBUS_VERSION(5, 2)
#define VERSION_WIN10_V5_3          VMBUS_VERSION(5, 3)
#define VERSION_COPPER              VMBUS_VERSION(6, 0)

/* Feature flags of 6.0 (upper half of the target information in INITIATE_CONTACT). */
#define VMBUS_FEATURE_GUEST_SIGNAL_PARAMETERS BIT(0)
#define VMBUS_FEATURE_CLIENT_ID               BIT(3)

enum vmbus_message_type {
	CHANNELMSG_OFFERCHANNEL = 1,
	CHANNELMSG_RESCIND_CHANNELOFFER = 2,
	CHANNELMSG_REQUESTOFFERS = 3,
	CHANNELMSG_ALLOFFERS_DELIVERED = 4,
	CHANNELMSG_OPENCHANNEL = 5,
	CHANNELMSG_OPENCHANNEL_RESULT = 6,
	CHANNELMSG_CLOSECHANNEL = 7,
	CHANNELMSG_GPADL_HEADER = 8,
	CHANNELMSG_GPADL_BODY = 9,
	CHANNELMSG_GPADL_CREATED = 10,
	CHANNELMSG_GPADL_TEARDOWN = 11,
	CHANNELMSG_GPADL_TORNDOWN = 12,
	CHANNELMSG_RELID_RELEASED = 13,
	CHANNELMSG_INITIATE_CONTACT = 14,
	CHANNELMSG_VERSION_RESPONSE = 15,
	CHANNELMSG_UNLOAD = 16,
	CHANNELMSG_UNLOAD_RESPONSE = 17,
	CHANNELMSG_TL_CONNECT_REQUEST = 21,
	CHANNELMSG_MODIFYCHANNEL = 22,
	CHANNELMSG_TL_CONNECT_RESULT = 23,
	CHANNELMSG_MODIFYCHANNEL_RESPONSE = 24,
};

#define VMBUS_STATUS_SUCCESS            0u
#define VMBUS_STATUS_FAILED             0xc0000001u /* STATUS_UNSUCCESSFUL, MS-ERREF 2.3.1 */
#define VMBUS_STATUS_CONNECTION_REFUSED 0xc0000236u /* MS-ERREF 2.3.1 */
#define VMBUS_VP_NO_INTERRUPT           0xffffffffu

#define VMBUS_OFFER_ENUMERATE_DEVICE_INTERFACE 0x1u
#define VMBUS_OFFER_NAMED_PIPE_MODE            0x10u
#define VMBUS_OFFER_TLNPI_PROVIDER             0x2000u /* a socket's */

struct vmbus_message_header {
	le32 type;
	le32 padding;
};

struct vmbus_offer_channel {
	struct vmbus_message_header header;
	struct guid interface, instance;
	le32 reserved[4];
	le16 flags;
	le16 mmio_megabytes;
	uint8_t user_defined[120];
	le16 sub_channel_index;
	le16 mmio_megabytes_optional;
	le32 child_relid;
	uint8_t monitor_id;
	uint8_t monitor_allocated;
	le16 is_dedicated_interrupt;
	le32 connection_id;
};
_Static_assert(sizeof(struct vmbus_offer_channel) == 196, "196 bytes at Linux and OpenVMM");

/* RESCIND_CHANNELOFFER */
struct vmbus_relid_message {
	struct vmbus_message_header header;
	le32 child_relid;
};

struct vmbus_open_result {
	struct vmbus_message_header header;
	le32 child_relid, open_id, status;
};

struct vmbus_gpadl_created {
	struct vmbus_message_header header;
	le32 child_relid, gpadl, status;
};

struct vmbus_gpadl_torndown {
	struct vmbus_message_header header;
	le32 gpadl;
};

struct vmbus_version_response {
	struct vmbus_message_header header;
	uint8_t supported;
	uint8_t connection_state;
	le16 padding;
	le32 version_or_connection_id;
	le32 features; /* sent from 6.0 on */
};

struct vmbus_modify_channel_response {
	struct vmbus_message_header header;
	le32 child_relid, status;
};

struct vmbus_tl_connect_result {
	struct vmbus_message_header header;
	struct guid endpoint, service;
	le32 status;
};

/* --- rings: a control page, then data --- */

#define RING_IN                        0u  /* u32 write index */
#define RING_OUT                       4u  /* u32 read index */
#define RING_INTERRUPT_MASK            8u  /* u32, the reader's: no signals, please */
#define RING_PENDING_SEND_SIZE         12u /* u32, the writer's: signal me when so much is free */
#define RING_FEATURES                  64u
#define RING_FEATURE_PENDING_SEND_SIZE BIT(0)

struct vmbus_packet_descriptor {
	le16 type, offset8, length8, flags;
	le64 transaction_id;
};
_Static_assert(sizeof(struct vmbus_packet_descriptor) == 16, "16 bytes");

#define VMBUS_PACKET_COMPLETION_REQUESTED BIT(0)
#define VMBUS_PACKET_TRAILER              8u
