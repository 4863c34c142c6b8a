// SPDX-License-Identifier: MIT
/*
 * Persistent reservations of a disk that other initiators use too: the two commands that read and
 * change them, and the check that precedes all others. The rules are vhd/reserve.c's and the state
 * vhd/reserve_file.c's; here are their wire formats. SPC-4 5.13 (model, table 65: what is allowed),
 * 6.15 (PERSISTENT RESERVE IN), 6.16 (PERSISTENT RESERVE OUT), 7.6.4 (TransportIDs).
 *
 * A preemption is not over while a preempted initiator still has writes on their way that were
 * allowed before. Nobody tells when those end, since they end in another process, perhaps of
 * another host: so it is looked at every millisecond, by a timer, as long as there are any.
 */
#include "devices/storvsp/scsi_unit.h"
#include "vhd/reserve_file.h"

#include <errno.h>

#define MS               UINT64_C(1000000)
#define PREEMPT_WAIT_MAX (20000 * MS) /* less than guests wait for a command */
#define ADMIT_TRIES      8            /* times that the state may change under a command */
#define STATUS_SIZE      48u          /* of one descriptor of READ FULL STATUS */

#define PARAMETER_SIZE 24u
#define SPEC_I_PT      0x08
#define ALL_TG_PT      0x04
#define APTPL          0x01

enum reserve_in_action {
	READ_KEYS = 0,
	READ_RESERVATION = 1,
	REPORT_CAPABILITIES = 2,
	READ_FULL_STATUS = 3,
};

/* --- before every command --- */

static const struct scsi_sense event_senses[RESERVE_EVENTS] = {
	[RESERVE_RESERVATIONS_PREEMPTED] = SENSE_RESERVATIONS_PREEMPTED,
	[RESERVE_RESERVATIONS_RELEASED] = SENSE_RESERVATIONS_RELEASED,
	[RESERVE_REGISTRATIONS_PREEMPTED] = SENSE_REGISTRATIONS_PREEMPTED,
};

/* The state cannot be seen: nothing may be allowed. Others may be busy changing it. */
static void end_unseen(struct scsi_request *req, int error)
{
	if (error == -EBUSY || error == -EAGAIN) {
		scsi_end(req, SCSI_BUSY);
		return;
	}
	req->unit->stats->errors++;
	scsi_fail(req, SENSE_INTERNAL_FAILURE);
}

bool scsi_reserve_refresh(struct scsi_unit *unit, struct scsi_request *req)
{
	int r = reserve_file_refresh(unit->reservations);
	enum reserve_event event;

	if (r < 0) {
		end_unseen(req, r);
		return false;
	}
	if (unit->attention.key)
		return true;
	event = reserve_file_event(unit->reservations);
	if (event < RESERVE_EVENTS)
		unit->attention = event_senses[event];
	return true;
}

static enum reserve_class class_of(const struct scsi_command *c, const struct scsi_request *req)
{
	/* Starting a unit, without a power condition, disturbs nobody. */
	if (c->opcode == SCSI_START_STOP_UNIT && (req->cdb[4] & 0xf1) == 0x01)
		return RESERVE_CLASS_FREE;
	if (c->flags & SCSI_CMD_ALTERS)
		return RESERVE_CLASS_WRITE;
	return c->flags & SCSI_CMD_READS ? RESERVE_CLASS_READ : RESERVE_CLASS_FREE;
}

bool scsi_reserve_admit(struct scsi_unit *unit, const struct scsi_command *c,
			struct scsi_request *req)
{
	enum reserve_class class = class_of(c, req);
	struct reserve_file *f = unit->reservations;
	int r = -EAGAIN;

	if (class == RESERVE_CLASS_FREE)
		return true;
	for (unsigned i = 0; i < ADMIT_TRIES && r == -EAGAIN; i++) {
		if (reserve_conflicts(reserve_file_state(f), reserve_file_initiator(f), class)) {
			scsi_end(req, SCSI_RESERVATION_CONFLICT);
			return false;
		}
		if (class == RESERVE_CLASS_READ)
			return true;
		r = reserve_file_enter(f, &req->fence);
	}
	if (r < 0) {
		end_unseen(req, r);
		return false;
	}
	req->fenced = true;
	return true;
}

void scsi_reserve_leave(struct scsi_unit *unit, struct scsi_request *req)
{
	reserve_file_leave(unit->reservations, req->fence);
	req->fenced = false;
}

/* --- PERSISTENT RESERVE IN --- */

static void read_keys(const struct reserve_state *s, struct writer *w)
{
	writer_be32(w, s->generation);
	writer_be32(w, 8 * reserve_registered(s));
	for (unsigned i = 0; i < RESERVE_NEXUS_MAX; i++)
		if (s->nexus[i].key)
			writer_be64(w, s->nexus[i].key);
}

static void read_reservation(const struct reserve_state *s, struct writer *w)
{
	writer_be32(w, s->generation);
	writer_be32(w, s->type ? 16 : 0);
	if (!s->type)
		return;
	writer_be64(w, reserve_type_all(s->type) ? 0 : s->nexus[s->holder].key);
	writer_zero(w, 5);
	writer_u8(w, s->type); /* the scope is the unit */
	writer_zero(w, 2);
}

static void report_capabilities(const struct reserve_state *s, struct writer *w)
{
	writer_be16(w, 8);
	writer_u8(w, 0x01);                         /* PTPL_C: can persist through power loss */
	writer_u8(w, 0x80 | (s->aptpl ? 0x01 : 0)); /* TMV: the mask counts; PTPL_A */
	writer_be16(w, 0xea01);                     /* all six types */
	writer_be16(w, 0);
}

/* Initiators here have GUIDs; a locally assigned SAS address is the shortest name for one. */
static void transport_id(struct writer *w, const struct guid *id)
{
	uint8_t address[8];

	for (unsigned i = 0; i < sizeof(address); i++)
		address[i] = id->b[i] ^ id->b[i + 8];
	/* NAA 3: locally assigned. */
	address[0] = (uint8_t)(0x30 | ((address[0] ^ address[0] >> 4) & 0x0f));
	writer_u8(w, 0x06); /* SAS */
	writer_zero(w, 3);
	writer_put(w, address, sizeof(address));
	writer_zero(w, 12);
}

static void read_full_status(const struct reserve_state *s, struct writer *w)
{
	writer_be32(w, s->generation);
	writer_be32(w, STATUS_SIZE * reserve_registered(s));
	for (unsigned i = 0; i < RESERVE_NEXUS_MAX; i++) {
		const struct reserve_nexus *n = &s->nexus[i];
		bool holds = reserve_holds(s, n);

		if (!n->key)
			continue;
		writer_be64(w, n->key);
		writer_zero(w, 4);
		writer_u8(w, holds ? 0x01 : 0);
		writer_u8(w, holds ? s->type : 0);
		writer_zero(w, 4);
		writer_be16(w, 1); /* the only target port */
		writer_be32(w, STATUS_SIZE - 24);
		transport_id(w, &n->id);
	}
}

void scsi_persistent_reserve_in(struct scsi_unit *unit, struct scsi_request *req)
{
	static void (*const actions[])(const struct reserve_state *s, struct writer *w) = {
		[READ_KEYS] = read_keys,
		[READ_RESERVATION] = read_reservation,
		[REPORT_CAPABILITIES] = report_capabilities,
		[READ_FULL_STATUS] = read_full_status,
	};
	uint8_t data[8 + STATUS_SIZE * RESERVE_NEXUS_MAX];
	struct writer w = writer_of(data, sizeof(data));
	unsigned action = req->cdb[1] & 0x1f;

	if (action >= ARRAY_SIZE(actions)) {
		scsi_fail(req, SENSE_INVALID_FIELD);
		return;
	}
	actions[action](reserve_file_state(unit->reservations), &w);
	scsi_reply(req, &w, scsi_cdb_be(req, 7, 2));
}

/* --- PERSISTENT RESERVE OUT --- */

static void preempt_poll(struct scsi_request *req)
{
	struct scsi_unit *unit = req->unit;
	struct loop *loop = unit->disk->loop;
	int r = reserve_file_quiet(unit->reservations, req->change);

	if (r == 1)
		scsi_good(req, PARAMETER_SIZE);
	else if (req->cancelled)
		scsi_abort(req);
	else if (r < 0 || loop_now(loop) > req->give_up)
		scsi_fail(req, SENSE_INTERNAL_FAILURE);
	else
		loop_timer_arm(&req->timer, loop_now(loop) + MS);
}

static void on_preempt_timer(struct loop_timer *t)
{
	preempt_poll(container_of(t, struct scsi_request, timer));
}

static void preempt_wait(struct scsi_unit *unit, struct scsi_request *req)
{
	struct loop *loop = unit->disk->loop;

	req->change = reserve_file_change(unit->reservations);
	req->give_up = loop_now(loop) + PREEMPT_WAIT_MAX;
	loop_timer_init(loop, &req->timer, on_preempt_timer);
	preempt_poll(req);
}

static void reserve_end(struct scsi_unit *unit, struct scsi_request *req,
			const struct reserve_request *q, enum reserve_result result)
{
	switch (result) {
	case RESERVE_GOOD:
		if (q->action == RESERVE_PREEMPT || q->action == RESERVE_PREEMPT_ABORT)
			preempt_wait(unit, req);
		else
			scsi_good(req, PARAMETER_SIZE);
		break;
	case RESERVE_CONFLICT:
		scsi_end(req, SCSI_RESERVATION_CONFLICT);
		break;
	case RESERVE_BAD_CDB:
		scsi_fail(req, SENSE_INVALID_FIELD);
		break;
	case RESERVE_BAD_PARAMETER:
		scsi_fail(req, SENSE_INVALID_PARAMETER);
		break;
	case RESERVE_BAD_RELEASE:
		scsi_fail(req, SENSE_INVALID_RELEASE);
		break;
	case RESERVE_NO_ROOM:
		scsi_fail(req, SENSE_NO_REGISTRATIONS_LEFT);
		break;
	}
}

/* False: the request has ended. */
static bool parameters_decode(struct scsi_request *req, struct reserve_request *ret)
{
	uint8_t bytes[PARAMETER_SIZE];
	struct reader r = reader_of(bytes, sizeof(bytes));
	uint8_t flags;

	if (ret->action > RESERVE_REGISTER_IGNORE) { /* REGISTER AND MOVE, and what is newer */
		scsi_fail(req, SENSE_INVALID_FIELD);
		return false;
	}
	if (scsi_cdb_be(req, 5, 4) != PARAMETER_SIZE) {
		scsi_fail(req, SENSE_PARAMETER_LIST_LENGTH);
		return false;
	}
	if (!scsi_parameters(req, bytes, sizeof(bytes)))
		return false;
	ret->key = reader_be64(&r);
	ret->action_key = reader_be64(&r);
	reader_skip(&r, 4);
	flags = reader_u8(&r);
	ret->aptpl = flags & APTPL;
	if (flags & (SPEC_I_PT | ALL_TG_PT)) {
		scsi_fail(req, SENSE_INVALID_PARAMETER);
		return false;
	}
	return true;
}

void scsi_persistent_reserve_out(struct scsi_unit *unit, struct scsi_request *req)
{
	struct reserve_request q = {
		.action = req->cdb[1] & 0x1f,
		.scope = req->cdb[2] >> 4,
		.type = req->cdb[2] & 0x0f,
	};
	enum reserve_result result;
	int r;

	if (!parameters_decode(req, &q))
		return;
	r = reserve_file_apply(unit->reservations, &q, &result);
	if (r < 0)
		end_unseen(req, r);
	else
		reserve_end(unit, req, &q, result);
}
