// SPDX-License-Identifier: MIT
/*
 * The storage protocol: what each packet of the guest means, when it is allowed, and what is
 * answered. The guest initialises in a fixed order (BEGIN, QUERY_PROTOCOL_VERSION,
 * QUERY_PROPERTIES, END) and may then create sub-channels and execute SCSI requests. Runs on the
 * event loop's thread. There is no public specification of it; the order and the layouts are those
 * that drivers/scsi/storvsc_drv.c of Linux relies on.
 *
 * A packet is copied once and judged as that copy. Nothing a guest sends ends the channel: what is
 * malformed or out of order is answered with a status, or dropped when it wants no answer.
 */
#include "devices/storvsp/storvsp_channel.h"

#define IN(state) BIT(STORVSP_##state)

static void respond(struct storvsp_request *rq, struct vstor_status status)
{
	rq->response.header.operation = le32_of(VSTOR_COMPLETE_IO);
	rq->response.header.status = le32_of(status.value);
	storvsp_request_ready(rq);
}

static void refuse(struct storvsp_request *rq, struct vstor_status status)
{
	rq->channel->s->stats.packets_refused++;
	respond(rq, status);
}

/* --- initialisation --- */

static void handle_begin(struct storvsp_channel *c, struct storvsp_request *rq,
			 const struct vstor_packet *in, const struct vmbus_packet *raw)
{
	(void)in;
	(void)raw;
	c->s->state = STORVSP_VERSION;
	respond(rq, VSTOR_SUCCESS);
}

bool storvsp_version_known(uint16_t version)
{
	return version == VSTOR_VERSION_5_1 || version == VSTOR_VERSION_6_0 ||
	       version == VSTOR_VERSION_6_2;
}

/* The guest asks from its newest version down until one is accepted. */
static void handle_version(struct storvsp_channel *c, struct storvsp_request *rq,
			   const struct vstor_packet *in, const struct vmbus_packet *raw)
{
	uint16_t version = le16_get(in->version.major_minor);

	(void)raw;
	rq->response.version.major_minor = in->version.major_minor;
	if (version > c->s->options.max_version || !storvsp_version_known(version)) {
		respond(rq, VSTOR_STATUS_REVISION_MISMATCH);
		return;
	}
	c->s->state = STORVSP_PROPERTIES;
	respond(rq, VSTOR_SUCCESS);
}

static unsigned sub_channels_max(const struct storvsp_channel *c)
{
	unsigned vps = vmbus_channel_vp_count(c->ch);

	return MIN(MAX(vps, 1u), c->s->options.max_channels) - 1;
}

static void handle_properties(struct storvsp_channel *c, struct storvsp_request *rq,
			      const struct vstor_packet *in, const struct vmbus_packet *raw)
{
	struct vstor_properties *p = &rq->response.properties;

	(void)in;
	(void)raw;
	p->max_sub_channels = le16_of((uint16_t)sub_channels_max(c));
	p->flags = le32_of(VSTOR_PROPERTY_MULTI);
	p->max_transfer_bytes = le32_of(STORVSP_MAX_TRANSFER);
	c->s->state = STORVSP_END;
	respond(rq, VSTOR_SUCCESS);
}

static void handle_end(struct storvsp_channel *c, struct storvsp_request *rq,
		       const struct vstor_packet *in, const struct vmbus_packet *raw)
{
	(void)in;
	(void)raw;
	c->s->state = STORVSP_READY;
	respond(rq, VSTOR_SUCCESS);
	storvsp_channels_wake(c->s);
}

static void handle_sub_channels(struct storvsp_channel *c, struct storvsp_request *rq,
				const struct vstor_packet *in, const struct vmbus_packet *raw)
{
	unsigned count = le16_get(in->sub_channel_count);

	(void)raw;
	if (count > sub_channels_max(c)) {
		refuse(rq, VSTOR_STATUS_INVALID_PARAMETER);
		return;
	}
	if (count && !vmbus_channel_offer_subs(c->ch, count)) {
		refuse(rq, VSTOR_STATUS_UNSUCCESSFUL);
		return;
	}
	respond(rq, VSTOR_SUCCESS);
}

/* What is in flight completes by itself, which is all that a driver waits for after a reset. */
static void handle_reset(struct storvsp_channel *c, struct storvsp_request *rq,
			 const struct vstor_packet *in, const struct vmbus_packet *raw)
{
	(void)c;
	(void)in;
	(void)raw;
	respond(rq, VSTOR_SUCCESS);
}

/* --- SCSI requests --- */

static uint8_t srb_status_of(const struct scsi_request *q)
{
	switch (q->outcome) {
	case SCSI_NO_UNIT:
		return SRB_STATUS_INVALID_LUN;
	case SCSI_OVERRUN:
		return SRB_STATUS_DATA_OVERRUN;
	case SCSI_ABORTED:
		return SRB_STATUS_ABORTED;
	case SCSI_FINISHED:
		break;
	}
	if (q->status == SCSI_GOOD)
		return SRB_STATUS_SUCCESS;
	if (q->status != SCSI_CHECK_CONDITION)
		return SRB_STATUS_ERROR;
	/* Linux's driver looks at the disk's size again when it reads this status with that sense
	 * data, in all its versions; with SRB_STATUS_ERROR only in newer ones. */
	if (q->capacity_changed)
		return SRB_STATUS_ABORTED | SRB_STATUS_AUTOSENSE_VALID;
	return SRB_STATUS_ERROR | SRB_STATUS_AUTOSENSE_VALID;
}

static struct vstor_status status_of_srb(uint8_t srb_status)
{
	switch (srb_status & 0x3f) {
	case SRB_STATUS_SUCCESS:
		return VSTOR_SUCCESS;
	case SRB_STATUS_INVALID_LUN:
		return VSTOR_STATUS_NO_SUCH_DEVICE;
	case SRB_STATUS_DATA_OVERRUN:
		return VSTOR_STATUS_BUFFER_OVERFLOW;
	case SRB_STATUS_ABORTED:
		return VSTOR_STATUS_CANCELLED;
	default:
		return VSTOR_STATUS_IO_DEVICE_ERROR;
	}
}

/* The request comes back without its CDB; sense data lies where that was. */
static void srb_respond(struct storvsp_request *rq, uint8_t srb_status)
{
	struct vstor_srb *out = &rq->response.srb;

	out->length = le16_of(sizeof(*out));
	out->srb_status = srb_status;
	out->cdb_length = VSTOR_CDB_SIZE;
	out->sense_length = VSTOR_SENSE_SIZE;
	respond(rq, status_of_srb(srb_status));
}

static void on_srb_done(struct scsi_request *q)
{
	struct storvsp_request *rq = container_of(q, struct storvsp_request, scsi);
	struct vstor_srb *out = &rq->response.srb;

	rq->running = false;
	rq->channel->running--;
	out->scsi_status = (uint8_t)q->status;
	out->data_transfer_length = le32_of(q->transferred);
	if (q->status == SCSI_CHECK_CONDITION)
		memcpy(out->payload, q->sense, sizeof(q->sense));
	srb_respond(rq, srb_status_of(q));
}

/*
 * The buffer: no range and no data, or one range with at least the bytes that the SRB claims. What
 * the range has beyond them is not touched.
 */
static bool srb_buffer(struct storvsp_channel *c, struct scsi_request *q, uint32_t bytes,
		       const struct vmbus_packet *raw)
{
	uint32_t range_bytes = 0;

	q->iovcnt = 0;
	q->bytes = bytes;
	if (raw->range_count > 1)
		return false;
	if (raw->range_count &&
	    vmbus_packet_iov(c->ch, raw, 0, q->iov, q->iovmax, &q->iovcnt, &range_bytes) < 0)
		return false;
	if (bytes > range_bytes)
		return false;
	q->iovcnt = iov_trim(q->iov, q->iovcnt, bytes);
	return true;
}

static enum scsi_direction srb_direction(const struct vstor_srb *srb)
{
	switch (srb->data_in) {
	case VSTOR_DATA_OUT:
		return SCSI_DATA_OUT;
	case VSTOR_DATA_IN:
		return SCSI_DATA_IN;
	default:
		return SCSI_DATA_NONE;
	}
}

static void handle_srb(struct storvsp_channel *c, struct storvsp_request *rq,
		       const struct vstor_packet *in, const struct vmbus_packet *raw)
{
	const struct vstor_srb *srb = &in->srb;
	struct scsi_request *q = &rq->scsi;
	bool here = !srb->path_id && !srb->target_id;

	q->iov = rq->iov;
	q->iovmax = STORVSP_MAX_IOV;
	if (!srb->cdb_length || srb->cdb_length > VSTOR_CDB_SIZE ||
	    !srb_buffer(c, q, le32_get(srb->data_transfer_length), raw)) {
		c->s->stats.packets_refused++;
		srb_respond(rq, SRB_STATUS_INVALID_REQUEST);
		return;
	}
	memset(q->cdb, 0, sizeof(q->cdb));
	memcpy(q->cdb, srb->payload, srb->cdb_length);
	q->cdb_size = srb->cdb_length;
	q->lun = srb->lun;
	q->direction = srb_direction(srb);
	if (q->direction == SCSI_DATA_OUT && !q->bytes)
		q->direction = SCSI_DATA_NONE; /* 0 is also what a driver leaves there */
	q->done = on_srb_done;
	rq->running = true;
	c->running++;
	c->s->stats.requests++;
	scsi_execute(here ? c->s->target : c->s->nowhere, q);
}

/* --- dispatch --- */

struct packet_type {
	enum vstor_operation operation;
	uint8_t min_size; /* after the header */
	uint8_t states;
	bool on_sub_channels;
	const char *name;
	void (*handler)(struct storvsp_channel *c, struct storvsp_request *rq,
			const struct vstor_packet *in, const struct vmbus_packet *raw);
};

/* clang-format off */
static const struct packet_type packet_types[] = {
	{ VSTOR_EXECUTE_SRB, VSTOR_SRB_MIN_SIZE, IN(READY), true, "EXECUTE_SRB", handle_srb },
	{ VSTOR_BEGIN_INITIALIZATION, 0, IN(BEGIN), false, "BEGIN_INITIALIZATION", handle_begin },
	{ VSTOR_QUERY_PROTOCOL_VERSION, 4, IN(VERSION), false, "QUERY_PROTOCOL_VERSION",
	  handle_version },
	{ VSTOR_QUERY_PROPERTIES, 0, IN(PROPERTIES), false, "QUERY_PROPERTIES",
	  handle_properties },
	{ VSTOR_END_INITIALIZATION, 0, IN(END), false, "END_INITIALIZATION", handle_end },
	{ VSTOR_CREATE_SUB_CHANNELS, 2, IN(END) | IN(READY), false, "CREATE_SUB_CHANNELS",
	  handle_sub_channels },
	{ VSTOR_RESET_LUN, 0, IN(READY), true, "RESET_LUN", handle_reset },
	{ VSTOR_RESET_ADAPTER, 0, IN(READY), true, "RESET_ADAPTER", handle_reset },
	{ VSTOR_RESET_BUS, 0, IN(READY), true, "RESET_BUS", handle_reset },
};
/* clang-format on */

static const struct packet_type *packet_type_find(uint32_t operation)
{
	for (size_t i = 0; i < ARRAY_SIZE(packet_types); i++)
		if (packet_types[i].operation == operation)
			return &packet_types[i];
	return NULL;
}

void storvsp_packet_handle(struct storvsp_channel *c, struct storvsp_request *rq,
			   const struct vmbus_packet *packet)
{
	struct vstor_packet in = { 0 };
	const struct packet_type *type;

	if (!packet->wants_completion ||
	    (packet->type != VMBUS_PACKET_INBAND && packet->type != VMBUS_PACKET_GPA_DIRECT)) {
		storvsp_request_drop(rq);
		return;
	}
	rq->transaction_id = packet->transaction_id;
	rq->response = (struct vstor_packet){ 0 };
	/* Drivers send more than a version's packet, and less for the smaller operations. */
	memcpy(&in, packet->payload, MIN(packet->size, sizeof(in)));
	type = packet_type_find(le32_get(in.header.operation));
	if (packet->size < sizeof(in.header))
		refuse(rq, VSTOR_STATUS_INVALID_PARAMETER);
	else if (!type)
		refuse(rq, VSTOR_STATUS_INVALID_REQUEST);
	else if (!(type->states & BIT(c->s->state)) ||
		 (c != &c->s->channels[0] && !type->on_sub_channels))
		refuse(rq, VSTOR_STATUS_INVALID_STATE);
	else if (packet->size - sizeof(in.header) < type->min_size)
		refuse(rq, VSTOR_STATUS_INVALID_PARAMETER);
	else
		type->handler(c, rq, &in, packet);
}
