/* SPDX-License-Identifier: MIT */
/*
 * The storage protocol from the guest's side; layouts are those that Linux
 * drivers/scsi/storvsc_drv.c sends and expects.
 */
#pragma once

#include "lib/bus.h"

#define STORAGE_PACKET     64u
#define STORAGE_TIMEOUT_MS 10000u

enum storage_operation {
	STORAGE_COMPLETE = 1,
	STORAGE_EXECUTE_SRB = 3,
	STORAGE_BEGIN = 7,
	STORAGE_END = 8,
	STORAGE_VERSION = 9,
	STORAGE_PROPERTIES = 10,
	STORAGE_SUB_CHANNELS = 13,
};

struct storage_packet {
	uint32_t operation, flags, status;
	union {
		struct {
			uint16_t length;
			uint8_t srb_status, scsi_status, port, path, target, lun;
			uint8_t cdb_length, sense_length, data_in, properties;
			uint32_t transfer_length;
			uint8_t cdb[20];
			uint8_t rest[16];
		} srb;
		struct {
			uint32_t reserved;
			uint16_t max_sub_channels, reserved1;
			uint32_t flags, max_transfer;
		} properties;
		uint16_t version;
		uint16_t count;
		uint8_t bytes[52];
	};
};
_Static_assert(sizeof(struct storage_packet) == STORAGE_PACKET, "64 bytes");

/* The first SCSI controller's offer, or NULL. */
const struct offer *storage_offer(void);
/* Sends a packet and waits for its completion, which replaces it. */
bool storage_request(struct channel *ch, struct storage_packet *p);
/* BEGIN to END at this version, 0x0602 and so on; the properties if they are wanted. */
bool storage_handshake(struct channel *ch, uint16_t version, struct storage_packet *properties);
/* A SCSI command that reads `bytes` (less than a page) into a page; whether it succeeded. */
bool storage_read(struct channel *ch, const uint8_t *cdb, unsigned cdb_length, void *page,
		  unsigned bytes);
/* Connects at the newest version, opens the controller and inquires: all that must work. */
bool storage_works(void);
