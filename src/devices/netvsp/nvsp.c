// SPDX-License-Identifier: MIT
/*
 * NVSP: what the packets of the guest's driver mean. It agrees on a version, says what it can do,
 * lends a buffer each way, and then sends RNDIS; sub-channels carry nothing else. Packets are
 * judged as copies; what is malformed or out of order is answered with a failure, or dropped and
 * counted when it wants no answer. Linux drivers/net/hyperv/netvsc.c has the order, OpenVMM's
 * netvsp the sizes.
 */
#include "devices/netvsp/netvsp_internal.h"

#define MAX_MDL_CHAIN    34u /* pieces of one packet, as any host says */
#define NT_NOT_SUPPORTED 0xC00000BBu

static const struct {
	uint32_t version;
	const char *name;
} versions[] = {
	{ NVSP_PROTOCOL_VERSION_1, "1" }, { NVSP_PROTOCOL_VERSION_2, "2" },
	{ NVSP_PROTOCOL_VERSION_4, "4" }, { NVSP_PROTOCOL_VERSION_5, "5" },
	{ NVSP_PROTOCOL_VERSION_6, "6" }, { NVSP_PROTOCOL_VERSION_61, "6.1" },
};

const char *netvsp_version_name(uint32_t version)
{
	for (size_t i = 0; i < ARRAY_SIZE(versions); i++)
		if (versions[i].version == version)
			return versions[i].name;
	return NULL;
}

uint32_t netvsp_version_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(versions); i++)
		if (!strcmp(versions[i].name, name))
			return versions[i].version;
	return 0;
}

/* --- answers: a message is what the guest sent, and becomes what it gets --- */

static void handle_init(struct netvsp_channel *c, struct nvsp_message *m)
{
	uint32_t least = le32_get(m->init.min_protocol_ver);
	uint32_t most = MIN(le32_get(m->init.max_protocol_ver), c->n->options.max_version);
	uint32_t best = 0;

	for (size_t i = 0; i < ARRAY_SIZE(versions) && !c->n->version; i++)
		if (versions[i].version >= least && versions[i].version <= most)
			best = versions[i].version;
	c->n->version = best ? best : c->n->version;
	*m = (struct nvsp_message){
		.type = le32_of(NVSP_MSG_TYPE_INIT_COMPLETE),
		.init_complete.negotiated_protocol_ver = le32_of(best),
		.init_complete.max_mdl_chain_len = le32_of(MAX_MDL_CHAIN),
		.init_complete.status = le32_of(best ? NVSP_STAT_SUCCESS : NVSP_STAT_FAIL),
	};
}

static void handle_ndis_version(struct netvsp_channel *c, struct nvsp_message *m)
{
	uint32_t major = le32_get(m->init.min_protocol_ver);
	uint32_t minor = le32_get(m->init.max_protocol_ver);

	c->n->ndis_version = (major & 0xffff) << 16 | (minor & 0xffff);
	*m = (struct nvsp_message){ 0 };
}

/* Sizes of sections come from this: it is settled before there is a buffer. */
static void handle_config(struct netvsp_channel *c, struct nvsp_message *m)
{
	struct netvsp *n = c->n;
	const struct nvsp_ndis_config *config = (const void *)m->bytes;
	uint32_t frame = le32_get(config->mtu);

	if (!n->section_count) {
		n->capabilities = le32_get(config->capabilities);
		n->mtu = MIN(MAX(frame, FRAME_ETHERNET + NETVSP_MTU_MIN) - FRAME_ETHERNET,
			     NETVSP_MTU_MAX);
		if (n->version < NVSP_PROTOCOL_VERSION_61)
			n->capabilities &= ~NVSP_CAPABILITY_RSC;
	} else {
		n->counters.packets_refused++;
	}
	*m = (struct nvsp_message){ 0 };
}

static void handle_receive_buffer(struct netvsp_channel *c, struct nvsp_message *m)
{
	struct netvsp *n = c->n;
	int r = -1;

	if (!n->section_count)
		r = rx_buffer_set(n, c->ch, le32_get(m->buffer.gpadl_handle),
				  le16_get(m->buffer.id));
	*m = (struct nvsp_message){ .type = le32_of(NVSP_MSG1_TYPE_SEND_RECV_BUF_COMPLETE) };
	m->receive_buffer.status = le32_of(r < 0 ? NVSP_STAT_FAIL : NVSP_STAT_SUCCESS);
	if (r < 0) {
		n->counters.packets_refused++;
		return;
	}
	m->receive_buffer.num_sections = le32_of(1);
	m->receive_buffer.sub_alloc_size = le32_of(n->section_size);
	m->receive_buffer.num_sub_allocs = le32_of(n->section_count);
	m->receive_buffer.end_offset = le32_of(n->section_size * n->section_count);
}

static void handle_receive_revoke(struct netvsp_channel *c, struct nvsp_message *m)
{
	rx_buffer_revoke(c->n);
	*m = (struct nvsp_message){ 0 };
}

static void handle_send_buffer(struct netvsp_channel *c, struct nvsp_message *m)
{
	struct netvsp *n = c->n;
	int r = -1;

	if (!n->send.pages)
		r = vmbus_buffer_take(c->ch, le32_get(m->buffer.gpadl_handle), &n->send);
	*m = (struct nvsp_message){ .type = le32_of(NVSP_MSG1_TYPE_SEND_SEND_BUF_COMPLETE) };
	m->send_buffer.status = le32_of(r < 0 ? NVSP_STAT_FAIL : NVSP_STAT_SUCCESS);
	m->send_buffer.section_size = le32_of(r < 0 ? 0 : NETVSP_SECTION_MAX);
	n->counters.packets_refused += r < 0;
}

/* Frames that wait may lie in there. */
static void handle_send_revoke(struct netvsp_channel *c, struct nvsp_message *m)
{
	for (unsigned i = 0; i < NETVSP_MAX_CHANNELS; i++)
		if (c->n->channels[i])
			tx_abort(c->n->channels[i]);
	vmbus_buffer_give_back(&c->n->send);
	*m = (struct nvsp_message){ 0 };
}

/* There is no virtual function to switch to. */
static void handle_data_path(struct netvsp_channel *c, struct nvsp_message *m)
{
	if (le32_get(m->data_path) != NVSP_DATAPATH_SYNTHETIC)
		c->n->counters.packets_refused++;
	*m = (struct nvsp_message){ 0 };
}

static void handle_oid_query_ex(struct netvsp_channel *c, struct nvsp_message *m)
{
	(void)c;
	*m = (struct nvsp_message){ .type = le32_of(NVSP_MSG5_TYPE_OID_QUERY_EX_COMP),
				    .oid.status = le32_of(RNDIS_STATUS_NOT_SUPPORTED.value) };
}

static void handle_pd_api(struct netvsp_channel *c, struct nvsp_message *m)
{
	le32 operation = m->pd.operation;

	(void)c;
	*m = (struct nvsp_message){ .type = le32_of(NVSP_MSG6_TYPE_PD_API),
				    .pd.operation = operation,
				    .pd.status = le32_of(NT_NOT_SUPPORTED) };
}

static void handle_subchannels(struct netvsp_channel *c, struct nvsp_message *m)
{
	struct netvsp *n = c->n;
	uint32_t operation = le32_get(m->subchannel.operation);
	uint32_t count = le32_get(m->subchannel.num_subchannels), granted = 0;
	uint32_t most = MIN(MAX(vmbus_channel_vp_count(c->ch), 1u), n->options.max_channels) - 1;

	if (operation == NVSP_SUBCHANNEL_ALLOCATE && !n->subs_granted)
		granted = vmbus_channel_offer_subs(c->ch, MIN(count, most));
	if (granted)
		n->subs_granted = granted;
	else
		n->counters.packets_refused++;
	*m = (struct nvsp_message){ .type = le32_of(NVSP_MSG5_TYPE_SUBCHANNEL) };
	m->subchannel_complete.status = le32_of(granted ? NVSP_STAT_SUCCESS : NVSP_STAT_FAIL);
	m->subchannel_complete.num_subchannels = le32_of(granted);
}

/* Which channel the guest is to send on, by its own hash: all that are open in turn. */
void nvsp_send_table(struct netvsp *n)
{
	struct {
		struct nvsp_message m;
		le32 table[NVSP_SEND_TABLE_SIZE];
	} whole = { .m.type = le32_of(NVSP_MSG5_TYPE_SEND_INDIRECTION_TABLE) };
	struct netvsp_channel *c = n->channels[0];
	size_t head = netvsp_message_size(n), size = head + sizeof(whole.table);
	uint8_t bytes[sizeof(whole)] = { 0 };

	if (!vmbus_can_send(c->ch, size))
		return; /* `signal` comes when it can */
	whole.m.table.table_entry_count = le32_of(NVSP_SEND_TABLE_SIZE);
	whole.m.table.table_offset = le32_of((uint32_t)head);
	for (unsigned i = 0; i < NVSP_SEND_TABLE_SIZE; i++)
		whole.table[i] = le32_of(i % (n->subs_granted + 1));
	memcpy(bytes, &whole.m, head);
	memcpy(bytes + head, whole.table, sizeof(whole.table));
	if (vmbus_queue(c->ch, VMBUS_PACKET_INBAND, 0, bytes, size) < 0)
		c->broken = true;
	n->table_due = false;
}

/* --- dispatch --- */

static const struct {
	enum nvsp_message_type type;
	uint32_t min_version; /* 0: also before INIT */
	size_t min_size;      /* after the type */
	void (*handler)(struct netvsp_channel *c, struct nvsp_message *m);
} messages[] = {
	{ NVSP_MSG_TYPE_INIT, 0, 8, handle_init },
	{ NVSP_MSG1_TYPE_SEND_NDIS_VER, NVSP_PROTOCOL_VERSION_1, 8, handle_ndis_version },
	{ NVSP_MSG1_TYPE_SEND_RECV_BUF, NVSP_PROTOCOL_VERSION_1, 6, handle_receive_buffer },
	{ NVSP_MSG1_TYPE_REVOKE_RECV_BUF, NVSP_PROTOCOL_VERSION_1, 2, handle_receive_revoke },
	{ NVSP_MSG1_TYPE_SEND_SEND_BUF, NVSP_PROTOCOL_VERSION_1, 6, handle_send_buffer },
	{ NVSP_MSG1_TYPE_REVOKE_SEND_BUF, NVSP_PROTOCOL_VERSION_1, 2, handle_send_revoke },
	{ NVSP_MSG2_TYPE_SEND_NDIS_CONFIG, NVSP_PROTOCOL_VERSION_2, 16, handle_config },
	{ NVSP_MSG4_TYPE_SWITCH_DATA_PATH, NVSP_PROTOCOL_VERSION_4, 4, handle_data_path },
	{ NVSP_MSG5_TYPE_OID_QUERY_EX, NVSP_PROTOCOL_VERSION_5, 8, handle_oid_query_ex },
	{ NVSP_MSG5_TYPE_SUBCHANNEL, NVSP_PROTOCOL_VERSION_5, 8, handle_subchannels },
	{ NVSP_MSG6_TYPE_PD_API, NVSP_PROTOCOL_VERSION_61, 4, handle_pd_api },
};

/* Answered when its frames have gone. */
static void handle_rndis(struct netvsp_channel *c, const struct vmbus_packet *packet,
			 const struct nvsp_message *m)
{
	struct nvsp_message done = {
		.type = le32_of(NVSP_MSG1_TYPE_SEND_RNDIS_PKT_COMPLETE),
	};
	uint32_t status = NVSP_STAT_FAIL;

	if (c->n->version && packet->size >= 16)
		status = tx_begin(c, packet, &m->rndis);
	if (status == NVSP_STAT_SUCCESS) {
		(void)tx_continue(c);
		return;
	}
	c->n->counters.tx_invalid++;
	done.status = le32_of(status);
	if (packet->wants_completion)
		netvsp_complete(c, packet->transaction_id, &done);
}

static bool handle_message(struct netvsp_channel *c, size_t size, struct nvsp_message *m)
{
	uint32_t type = le32_get(m->type);

	for (size_t i = 0; i < ARRAY_SIZE(messages); i++) {
		if (messages[i].type != type)
			continue;
		if (c->index || c->n->version < messages[i].min_version ||
		    size < sizeof(m->type) + messages[i].min_size)
			return false;
		messages[i].handler(c, m);
		return true;
	}
	return false;
}

void nvsp_handle(struct netvsp_channel *c, const struct vmbus_packet *packet)
{
	struct nvsp_message m = { 0 };
	uint64_t transaction_id = packet->transaction_id;
	bool wants = packet->wants_completion;

	c->n->packets++;
	memcpy(&m, packet->payload, MIN(packet->size, sizeof(m)));
	if (packet->type == VMBUS_PACKET_COMPLETION) {
		rx_completed(c, transaction_id);
		return;
	}
	if (le32_get(m.type) == NVSP_MSG1_TYPE_SEND_RNDIS_PKT) {
		handle_rndis(c, packet, &m);
		return;
	}
	if (!handle_message(c, packet->size, &m)) {
		c->n->counters.packets_refused++;
		m = (struct nvsp_message){ .status = le32_of(NVSP_STAT_FAIL) };
	}
	if (wants)
		netvsp_complete(c, transaction_id, &m);
}
