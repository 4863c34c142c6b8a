/* SPDX-License-Identifier: MIT */
/*
 * What the command handlers share; private to this folder. A handler gets a unit and a request and
 * ends by exactly one of scsi_good, scsi_fail, scsi_reply, scsi_overrun or scsi_submit.
 */
#pragma once

#include "devices/storvsp/scsi.h"
#include "lib/cursor.h"

#define SCSI_MAX_REPLY       1024u
#define SCSI_MAX_UNMAP_BYTES (4 * GIB)
#define SCSI_MAX_SAME_BYTES  (64 * MIB)

/* A row of a unit type's command table. */
struct scsi_command {
	uint8_t opcode;
	uint8_t cdb_size;
	uint8_t flags; /* SCSI_CMD_* */
	uint8_t service_action;
	const char *name;
	void (*handler)(struct scsi_unit *unit, struct scsi_request *req);
};
#define SCSI_CMD_MEDIUM BIT(0) /* needs a medium */
#define SCSI_CMD_WRITES BIT(1) /* refused on a read-only medium */
#define SCSI_CMD_ACTION BIT(2) /* service_action counts */
#define SCSI_CMD_EXEMPT BIT(3) /* does not report a pending unit attention (SAM-3 5.9.7) */
#define SCSI_CMD_SHARED BIT(4) /* only units with reservations have it */
#define SCSI_CMD_READS  BIT(5) /* reading, in the eyes of a reservation (SPC-4 table 65) */
#define SCSI_CMD_ALTERS BIT(6) /* writing, likewise; it changes the unit even if no data */

struct scsi_unit_type {
	const char *product; /* 16 characters */
	uint8_t device_type;
	bool removable;
	uint32_t block_size; /* 0 = the disk's sector size */
	const struct scsi_command *commands;
	size_t command_count;
	/* Fills a VPD page of this type only; false when it has no such page. */
	bool (*vpd)(const struct scsi_unit *unit, uint8_t page, struct writer *w);
	const uint8_t *vpd_pages;
	size_t vpd_page_count;
	/* The same for mode pages; `changeable` asks for the mask of what MODE SELECT may alter. */
	void (*mode_page)(const struct scsi_unit *unit, uint8_t page, bool changeable,
			  struct writer *w);
	const uint8_t *mode_pages;
	size_t mode_page_count;
};

struct scsi_unit {
	const struct scsi_unit_type *type;
	struct disk *disk;                 /* NULL = an empty drive */
	struct reserve_file *reservations; /* NULL = nobody else uses the disk */
	struct guid id;
	uint32_t block_size;
	uint32_t max_transfer;
	unsigned running;
	bool write_cache;
	bool tray_open, removal_prevented;
	uint8_t media_event;         /* MMC: the next one to be told */
	struct scsi_sense attention; /* key 0 = none */
	bool detached;
	void (*gone)(void *arg);
	void *gone_arg;
	struct scsi_stats *stats;
};

/* Where a command reads or writes, decoded and inside the unit. */
struct scsi_range {
	uint64_t offset, length; /* bytes */
	uint64_t blocks;
};

extern const struct scsi_unit_type scsi_disk_type, scsi_dvd_type;

/* NULL when there is none. */
struct scsi_unit *scsi_target_unit(const struct scsi_target *target, unsigned lun);

void scsi_good(struct scsi_request *req, uint32_t transferred);
void scsi_fail(struct scsi_request *req, struct scsi_sense sense);
void scsi_overrun(struct scsi_request *req);
/* Ends with a status that has no sense data. */
void scsi_end(struct scsi_request *req, enum scsi_status status);
/* Sends at most `allocation` bytes of what the writer holds. */
void scsi_reply(struct scsi_request *req, const struct writer *w, size_t allocation);
/* For a command that comes with a parameter list: copies it whole. False: the request has ended. */
bool scsi_parameters(struct scsi_request *req, void *dst, size_t size);
/* The end of a command that its submitter gave up. */
void scsi_abort(struct scsi_request *req);
/* Passes req->disk (op, flags, offset, length and iov set) on; `done` gets the result. */
void scsi_submit(struct scsi_request *req, void (*done)(struct disk_request *, int));
/* The end of what the disk layer did: GOOD with req->transferred, or its error as sense data. */
void scsi_disk_done(struct scsi_request *req, int result);
void scsi_sense_fill(uint8_t sense[static SCSI_FIXED_SENSE_SIZE], struct scsi_sense s);

static inline bool scsi_unit_has_medium(const struct scsi_unit *unit)
{
	return unit->disk && !unit->tray_open;
}

static inline uint64_t scsi_unit_blocks(const struct scsi_unit *unit)
{
	return unit->disk->geometry.size / unit->block_size;
}

/* Gives space back on request, and says so. */
static inline bool scsi_unit_thin(const struct scsi_unit *unit)
{
	return unit->disk->geometry.trim_granularity && !unit->disk->geometry.read_only;
}

/* Bytes first..first+n-1 of the CDB as a big-endian number. */
static inline uint64_t scsi_cdb_be(const struct scsi_request *req, unsigned first, unsigned n)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < n; i++)
		v = v << 8 | req->cdb[first + i];
	return v;
}

/* Handlers that more than one unit type has. */
void scsi_inquiry(struct scsi_unit *unit, struct scsi_request *req);
void scsi_inquiry_absent(struct scsi_request *req);
void scsi_mode_sense(struct scsi_unit *unit, struct scsi_request *req);
void scsi_mode_select(struct scsi_unit *unit, struct scsi_request *req);
void scsi_request_sense(struct scsi_unit *unit, struct scsi_request *req);
void scsi_test_unit_ready(struct scsi_unit *unit, struct scsi_request *req);
void scsi_read(struct scsi_unit *unit, struct scsi_request *req);
void scsi_read_capacity_10(struct scsi_unit *unit, struct scsi_request *req);
/* Those of provisioning (scsi_provision.c). */
void scsi_unmap(struct scsi_unit *unit, struct scsi_request *req);
void scsi_write_same(struct scsi_unit *unit, struct scsi_request *req);
/* Decodes LBA and block count of any CDB group. False: the request has ended (out of range). */
bool scsi_range_decode(const struct scsi_unit *unit, struct scsi_request *req,
		       struct scsi_range *ret);
/*
 * Reservations (scsi_reserve.c), of units that have them. The first two are called before each
 * command; false: the request has ended. The third when a command that was admitted ends.
 */
bool scsi_reserve_refresh(struct scsi_unit *unit, struct scsi_request *req);
bool scsi_reserve_admit(struct scsi_unit *unit, const struct scsi_command *c,
			struct scsi_request *req);
void scsi_reserve_leave(struct scsi_unit *unit, struct scsi_request *req);
void scsi_persistent_reserve_in(struct scsi_unit *unit, struct scsi_request *req);
void scsi_persistent_reserve_out(struct scsi_unit *unit, struct scsi_request *req);
