/* SPDX-License-Identifier: MIT */
/*
 * RNDIS messages (MS-RNDIS 2.2) and the NDIS structures inside of them, as they lie in the guest's
 * buffers. Names are those of Linux include/linux/rndis.h and drivers/net/hyperv/hyperv_net.h;
 * NDIS_OFFLOAD and the RSS structures are those of the Windows driver documentation (ntddndis.h).
 */
#pragma once

#include "lib/types.h"

enum rndis_message_type {
	RNDIS_MSG_PACKET = 0x00000001,
	RNDIS_MSG_INIT = 0x00000002,
	RNDIS_MSG_HALT = 0x00000003,
	RNDIS_MSG_QUERY = 0x00000004,
	RNDIS_MSG_SET = 0x00000005,
	RNDIS_MSG_RESET = 0x00000006,
	RNDIS_MSG_INDICATE = 0x00000007,
	RNDIS_MSG_KEEPALIVE = 0x00000008,
	RNDIS_MSG_SET_EX = 0x00000009,
};
#define RNDIS_MSG_COMPLETION 0x80000000u

/* Its own type, so that it cannot be mixed with an errno. */
struct rndis_status {
	uint32_t value;
};
#define RNDIS_STATUS_(v)               ((struct rndis_status){ UINT32_C(v) })
#define RNDIS_STATUS_SUCCESS           RNDIS_STATUS_(0x00000000)
#define RNDIS_STATUS_FAILURE           RNDIS_STATUS_(0xC0000001)
#define RNDIS_STATUS_NOT_SUPPORTED     RNDIS_STATUS_(0xC00000BB)
#define RNDIS_STATUS_MULTICAST_FULL    RNDIS_STATUS_(0xC0010009)
#define RNDIS_STATUS_INVALID_LENGTH    RNDIS_STATUS_(0xC0010014)
#define RNDIS_STATUS_INVALID_DATA      RNDIS_STATUS_(0xC0010015)
#define RNDIS_STATUS_INVALID_OID       RNDIS_STATUS_(0xC0010017)
#define RNDIS_STATUS_MEDIA_CONNECT     0x4001000Bu
#define RNDIS_STATUS_MEDIA_DISCONNECT  0x4001000Cu
#define RNDIS_STATUS_LINK_SPEED_CHANGE 0x40010013u

#define OID_GEN_SUPPORTED_LIST                0x00010101u
#define OID_GEN_HARDWARE_STATUS               0x00010102u
#define OID_GEN_MEDIA_SUPPORTED               0x00010103u
#define OID_GEN_MEDIA_IN_USE                  0x00010104u
#define OID_GEN_MAXIMUM_LOOKAHEAD             0x00010105u
#define OID_GEN_MAXIMUM_FRAME_SIZE            0x00010106u
#define OID_GEN_LINK_SPEED                    0x00010107u
#define OID_GEN_TRANSMIT_BUFFER_SPACE         0x00010108u
#define OID_GEN_RECEIVE_BUFFER_SPACE          0x00010109u
#define OID_GEN_TRANSMIT_BLOCK_SIZE           0x0001010Au
#define OID_GEN_RECEIVE_BLOCK_SIZE            0x0001010Bu
#define OID_GEN_VENDOR_ID                     0x0001010Cu
#define OID_GEN_VENDOR_DESCRIPTION            0x0001010Du
#define OID_GEN_CURRENT_PACKET_FILTER         0x0001010Eu
#define OID_GEN_CURRENT_LOOKAHEAD             0x0001010Fu
#define OID_GEN_DRIVER_VERSION                0x00010110u
#define OID_GEN_MAXIMUM_TOTAL_SIZE            0x00010111u
#define OID_GEN_MAC_OPTIONS                   0x00010113u
#define OID_GEN_MEDIA_CONNECT_STATUS          0x00010114u
#define OID_GEN_MAXIMUM_SEND_PACKETS          0x00010115u
#define OID_GEN_VENDOR_DRIVER_VERSION         0x00010116u
#define OID_GEN_NETWORK_LAYER_ADDRESSES       0x00010118u
#define OID_GEN_RECEIVE_SCALE_CAPABILITIES    0x00010203u
#define OID_GEN_RECEIVE_SCALE_PARAMETERS      0x00010204u
#define OID_GEN_MAX_LINK_SPEED                0x00010206u
#define OID_GEN_LINK_STATE                    0x00010207u
#define OID_GEN_RNDIS_CONFIG_PARAMETER        0x0001021Bu
#define OID_GEN_XMIT_OK                       0x00020101u
#define OID_GEN_RCV_OK                        0x00020102u
#define OID_GEN_XMIT_ERROR                    0x00020103u
#define OID_GEN_RCV_ERROR                     0x00020104u
#define OID_GEN_RCV_NO_BUFFER                 0x00020105u
#define OID_GEN_FRIENDLY_NAME                 0x00020216u
#define OID_GEN_BYTES_RCV                     0x00020219u
#define OID_GEN_BYTES_XMIT                    0x0002021Au
#define OID_GEN_RCV_DISCARDS                  0x0002021Bu
#define OID_GEN_XMIT_DISCARDS                 0x0002021Cu
#define OID_802_3_PERMANENT_ADDRESS           0x01010101u
#define OID_802_3_CURRENT_ADDRESS             0x01010102u
#define OID_802_3_MULTICAST_LIST              0x01010103u
#define OID_802_3_MAXIMUM_LIST_SIZE           0x01010104u
#define OID_802_3_RCV_ERROR_ALIGNMENT         0x01020101u
#define OID_802_3_XMIT_ONE_COLLISION          0x01020102u
#define OID_802_3_XMIT_MORE_COLLISIONS        0x01020103u
#define OID_OFFLOAD_ENCAPSULATION             0x0101010Au
#define OID_TCP_OFFLOAD_CURRENT_CONFIG        0xFC01020Bu
#define OID_TCP_OFFLOAD_PARAMETERS            0xFC01020Cu
#define OID_TCP_OFFLOAD_HARDWARE_CAPABILITIES 0xFC01020Du

#define NDIS_PACKET_TYPE_DIRECTED      0x00000001u
#define NDIS_PACKET_TYPE_MULTICAST     0x00000002u
#define NDIS_PACKET_TYPE_ALL_MULTICAST 0x00000004u
#define NDIS_PACKET_TYPE_BROADCAST     0x00000008u
#define NDIS_PACKET_TYPE_PROMISCUOUS   0x00000020u

/* MAC options: full duplex, no loopback, transfers not pending, priority and VLAN tags. */
#define NDIS_MAC_OPTIONS 0x0000025Cu

struct rndis_header {
	le32 type, length; /* of the whole message */
};

/* Offsets count from `data_offset` here, and from `request_id` in the other messages. */
struct rndis_packet {
	le32 data_offset, data_length;
	le32 oob_data_offset, oob_data_length, num_oob_data_elements;
	le32 per_packet_info_offset, per_packet_info_length;
	le32 vc_handle, reserved;
};

struct rndis_init {
	le32 request_id, major_version, minor_version, max_transfer_size;
};
struct rndis_init_complete {
	le32 request_id, status, major_version, minor_version, device_flags, medium;
	le32 max_packets_per_message, max_transfer_size, packet_alignment_factor;
	le32 af_list_offset, af_list_size;
};
struct rndis_request {
	le32 request_id, oid, information_length, information_offset, vc_handle;
};
struct rndis_query_complete {
	le32 request_id, status, information_length, information_offset;
};
struct rndis_set_complete {
	le32 request_id, status;
};
struct rndis_reset_complete {
	le32 status, addressing_reset;
};
struct rndis_indicate {
	le32 status, status_buffer_length, status_buffer_offset;
};

struct rndis_per_packet_info {
	le32 size, type, offset; /* the offset counts from here */
};
#define RNDIS_PPI_INTERNAL   0x80000000u
#define RNDIS_PPI_CHECKSUM   0u
#define RNDIS_PPI_LARGE_SEND 2u
#define RNDIS_PPI_VLAN       6u
#define RNDIS_PPI_HASH       8u
#define RNDIS_PPI_ID         (RNDIS_PPI_INTERNAL | 1u)

#define RNDIS_CHECKSUM_TX_IPV4      BIT(0)
#define RNDIS_CHECKSUM_TX_IPV6      BIT(1)
#define RNDIS_CHECKSUM_TX_TCP       BIT(2)
#define RNDIS_CHECKSUM_TX_UDP       BIT(3)
#define RNDIS_CHECKSUM_TX_IP_HEADER BIT(4)
#define RNDIS_CHECKSUM_RX_TCP_GOOD  BIT(3)
#define RNDIS_CHECKSUM_RX_UDP_GOOD  BIT(4)
#define RNDIS_CHECKSUM_RX_IP_GOOD   BIT(5)

#define RNDIS_LARGE_SEND_MSS(v) ((v)&0xfffffu)

/* Fragments of a coalesced frame: version 1 in the lowest byte, then flags, then a number. */
#define RNDIS_ID_VERSION   1u
#define RNDIS_ID_SUBALLOC  BIT(8)
#define RNDIS_ID_1ST_FRAG  BIT(9)
#define RNDIS_ID_LAST_FRAG BIT(10)
#define RNDIS_ID_NUMBER(v) ((uint32_t)(v) << 16)

struct ndis_object_header {
	uint8_t type, revision;
	le16 size;
};
#define NDIS_OBJECT_TYPE_DEFAULT          0x80
#define NDIS_OBJECT_TYPE_RSS_CAPABILITIES 0x88
#define NDIS_OBJECT_TYPE_RSS_PARAMETERS   0x89
#define NDIS_OBJECT_TYPE_OFFLOAD          0xA7
#define NDIS_OBJECT_TYPE_ENCAPSULATION    0xA8

#define NDIS_ENCAPSULATION_IEEE_802_3 2u

/* What an IPv4 or IPv6 checksum can do: two bits each, 1 = supported. */
#define NDIS_CHECKSUM_IP_OPTIONS  0x001u
#define NDIS_CHECKSUM_TCP_OPTIONS 0x004u
#define NDIS_CHECKSUM_TCP         0x010u
#define NDIS_CHECKSUM_UDP         0x040u
#define NDIS_CHECKSUM_IP_HEADER   0x100u

struct ndis_offload {
	struct ndis_object_header header;
	le32 ip4_tx_encapsulation, ip4_tx, ip4_rx_encapsulation, ip4_rx;
	le32 ip6_tx_encapsulation, ip6_tx, ip6_rx_encapsulation, ip6_rx;
	le32 lso1_encapsulation, lso1_max_size, lso1_min_segments, lso1_options;
	le32 ipsec1[7];
	le32 lso2_ip4_encapsulation, lso2_ip4_max_size, lso2_ip4_min_segments;
	le32 lso2_ip6_encapsulation, lso2_ip6_max_size, lso2_ip6_min_segments, lso2_ip6_options;
	le32 flags;     /* revision 1 ends here */
	le32 ipsec2[8]; /* revision 2 ends here */
	uint8_t rsc_ip4, rsc_ip6, reserved[2];
	le32 gre[2]; /* revision 3 ends here */
};
#define NDIS_OFFLOAD_SIZE_1 112u
#define NDIS_OFFLOAD_SIZE_2 144u
#define NDIS_OFFLOAD_SIZE_3 156u
_Static_assert(offsetof(struct ndis_offload, ipsec2) == NDIS_OFFLOAD_SIZE_1, "");
_Static_assert(offsetof(struct ndis_offload, rsc_ip4) == NDIS_OFFLOAD_SIZE_2, "");
_Static_assert(sizeof(struct ndis_offload) == NDIS_OFFLOAD_SIZE_3, "");

/* Checksums: 0 no change, 1 off, 2 only transmit, 3 only receive, 4 both. The rest: 1 off, 2 on. */
struct ndis_offload_parameters {
	struct ndis_object_header header;
	uint8_t ip4_checksum, tcp4_checksum, udp4_checksum, tcp6_checksum, udp6_checksum;
	uint8_t lso1, ipsec1, lso2_ip4, lso2_ip6, connection_ip4, connection_ip6, reserved;
	le32 flags;                 /* revision 1 ends here */
	uint8_t ipsec2, ipsec2_ip4; /* revision 2 ends here */
	uint8_t rsc_ip4, rsc_ip6;
};
#define NDIS_OFFLOAD_PARAMETERS_SIZE_1 20u
#define NDIS_OFFLOAD_PARAMETERS_ON     2u
_Static_assert(sizeof(struct ndis_offload_parameters) == 24, "");
_Static_assert(offsetof(struct ndis_offload_parameters, rsc_ip4) == 22, "");

struct ndis_receive_scale_capabilities {
	struct ndis_object_header header;
	le32 capabilities, interrupt_messages, receive_queues;
	le16 indirection_entries, padding; /* the last is not sent: revision 2 has 18 bytes */
};
#define NDIS_RSS_CAPABILITIES_SIZE_2 18u
#define NDIS_RSS_CAPS_TOEPLITZ       0x00000001u
#define NDIS_RSS_CAPS_TCP_IPV4       0x00000100u
#define NDIS_RSS_CAPS_TCP_IPV6       0x00000200u

struct ndis_receive_scale_parameters {
	struct ndis_object_header header;
	le16 flags, base_cpu_number;
	le32 hash_information;
	le16 indirection_table_size, pad0;
	le32 indirection_table_offset;
	le16 hash_key_size, pad1;
	le32 hash_key_offset; /* revision 1 ends here */
};
_Static_assert(sizeof(struct ndis_receive_scale_parameters) == 28, "");
#define NDIS_RSS_PARAM_HASH_INFO_UNCHANGED 0x0002u
#define NDIS_RSS_PARAM_TABLE_UNCHANGED     0x0004u
#define NDIS_RSS_PARAM_KEY_UNCHANGED       0x0008u
#define NDIS_RSS_PARAM_DISABLE             0x0010u
#define NDIS_RSS_TABLE_MAX                 128u
#define NDIS_RSS_KEY_SIZE                  40u
#define NDIS_HASH_FUNCTION_TOEPLITZ        0x00000001u
#define NDIS_HASH_IPV4                     0x00000100u
#define NDIS_HASH_TCP_IPV4                 0x00000200u
#define NDIS_HASH_IPV6                     0x00000400u
#define NDIS_HASH_TCP_IPV6                 0x00001000u

struct ndis_link_state {
	struct ndis_object_header header;
	le32 connect_state; /* 0 unknown, 1 connected, 2 disconnected */
	le32 duplex_state;  /* 2 full */
	le32 padding;
	le64 transmit_speed, receive_speed; /* bits per second */
	le32 pause_functions, auto_negotiation;
};
_Static_assert(sizeof(struct ndis_link_state) == 40, "");
struct ndis_offload_encapsulation {
	struct ndis_object_header header;
	le32 ip4_enabled, ip4_type, ip4_header_size;
	le32 ip6_enabled, ip6_type, ip6_header_size;
};
_Static_assert(sizeof(struct ndis_offload_encapsulation) == 28, "");
struct rndis_config_parameter {
	le32 name_offset, name_length, type, value_offset, value_length;
};
#define NDIS_PARAMETER_STRING 2u
