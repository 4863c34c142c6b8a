/* SPDX-License-Identifier: MIT */
/*
 * The storage protocol on the wire: a 12-byte header and 52 bytes that depend on the operation.
 * The packet is always sent whole (Windows checks the exact size), so a version below 5.1, whose
 * packets are shorter, is not spoken.
 */
#pragma once

#include "lib/types.h"

enum vstor_operation {
	VSTOR_COMPLETE_IO = 1,
	VSTOR_REMOVE_DEVICE = 2,
	VSTOR_EXECUTE_SRB = 3,
	VSTOR_RESET_LUN = 4,
	VSTOR_RESET_ADAPTER = 5,
	VSTOR_RESET_BUS = 6,
	VSTOR_BEGIN_INITIALIZATION = 7,
	VSTOR_END_INITIALIZATION = 8,
	VSTOR_QUERY_PROTOCOL_VERSION = 9,
	VSTOR_QUERY_PROPERTIES = 10,
	VSTOR_ENUMERATE_BUS = 11,
	VSTOR_FCHBA_DATA = 12,
	VSTOR_CREATE_SUB_CHANNELS = 13,
};

#define VSTOR_VERSION(major, minor) ((uint16_t)((major) << 8 | (minor)))
#define VSTOR_VERSION_5_1           VSTOR_VERSION(5, 1)
#define VSTOR_VERSION_6_0           VSTOR_VERSION(6, 0)
#define VSTOR_VERSION_6_2           VSTOR_VERSION(6, 2)

/* NTSTATUS of a packet: its own type, so that it cannot be mixed with an errno. */
struct vstor_status {
	uint32_t value;
};
#define VSTOR_STATUS_(v)               ((struct vstor_status){ UINT32_C(v) })
#define VSTOR_SUCCESS                  VSTOR_STATUS_(0x00000000)
#define VSTOR_STATUS_BUFFER_OVERFLOW   VSTOR_STATUS_(0x80000005)
#define VSTOR_STATUS_UNSUCCESSFUL      VSTOR_STATUS_(0xC0000001)
#define VSTOR_STATUS_INVALID_PARAMETER VSTOR_STATUS_(0xC000000D)
#define VSTOR_STATUS_INVALID_REQUEST   VSTOR_STATUS_(0xC0000010)
#define VSTOR_STATUS_REVISION_MISMATCH VSTOR_STATUS_(0xC0000059)
#define VSTOR_STATUS_NO_SUCH_DEVICE    VSTOR_STATUS_(0xC00000C0)
#define VSTOR_STATUS_CANCELLED         VSTOR_STATUS_(0xC0000120)
#define VSTOR_STATUS_INVALID_STATE     VSTOR_STATUS_(0xC0000184)
#define VSTOR_STATUS_IO_DEVICE_ERROR   VSTOR_STATUS_(0xC0000185)

#define VSTOR_SENSE_SIZE           20
#define VSTOR_CDB_SIZE             16
#define VSTOR_SRB_MIN_SIZE         36 /* what a request must have; the rest is queueing hints */
#define VSTOR_PROPERTY_MULTI       BIT(0)
#define SRB_STATUS_SUCCESS         0x01
#define SRB_STATUS_ABORTED         0x02
#define SRB_STATUS_ERROR           0x04
#define SRB_STATUS_INVALID_REQUEST 0x06
#define SRB_STATUS_DATA_OVERRUN    0x12
#define SRB_STATUS_INVALID_LUN     0x20
#define SRB_STATUS_AUTOSENSE_VALID 0x80

enum vstor_data {
	VSTOR_DATA_OUT = 0, /* guest to disk */
	VSTOR_DATA_IN = 1,
	VSTOR_DATA_UNKNOWN = 2,
};

struct vstor_header {
	le32 operation;
	le32 flags;
	le32 status;
};

struct vstor_srb {
	le16 length;
	uint8_t srb_status;
	uint8_t scsi_status;
	uint8_t port_number;
	uint8_t path_id;
	uint8_t target_id;
	uint8_t lun;
	uint8_t cdb_length;
	uint8_t sense_length;
	uint8_t data_in;
	uint8_t properties;
	le32 data_transfer_length;
	uint8_t payload[VSTOR_SENSE_SIZE]; /* the CDB there, sense data back */
	le16 reserved;
	uint8_t queue_tag;
	uint8_t queue_action;
	le32 srb_flags;
	le32 time_out_value;
	le32 queue_sort_key;
};

struct vstor_properties {
	le32 reserved;
	le16 max_sub_channels;
	le16 reserved1;
	le32 flags;
	le32 max_transfer_bytes;
	le32 reserved2[2];
};

struct vstor_version {
	le16 major_minor;
	le16 revision;
};

struct vstor_packet {
	struct vstor_header header;
	union {
		struct vstor_srb srb;
		struct vstor_properties properties;
		struct vstor_version version;
		le16 sub_channel_count;
		uint8_t bytes[52];
	};
};

_Static_assert(sizeof(struct vstor_header) == 12, "");
_Static_assert(sizeof(struct vstor_srb) == 52, "");
_Static_assert(offsetof(struct vstor_srb, data_transfer_length) == 12, "");
_Static_assert(offsetof(struct vstor_srb, payload) == 16, "");
_Static_assert(offsetof(struct vstor_srb, srb_flags) == 40, "");
_Static_assert(sizeof(struct vstor_properties) == 24, "");
_Static_assert(sizeof(struct vstor_packet) == 64, "");
