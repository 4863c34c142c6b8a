// SPDX-License-Identifier: MIT
/*
 * What the guest's driver asks and sets by object identifiers: a table of them, with the function
 * that writes the value or takes it. The list is what the drivers of Linux and Windows and of UEFI
 * use; the values that stand for a real card's properties are those that Hyper-V is known to give.
 */
#include "devices/netvsp/netvsp_internal.h"
#include "lib/utf16.h"

#include <stdlib.h>

#define LSO_MAX_SIZE  0xF53Cu /* 62,780: with its headers it stays below 64 KiB */
#define LSO1_MAX_SIZE 0xF53Cu
#define CHECKSUM4                                                                                  \
	(NDIS_CHECKSUM_IP_OPTIONS | NDIS_CHECKSUM_TCP_OPTIONS | NDIS_CHECKSUM_TCP |                \
	 NDIS_CHECKSUM_UDP | NDIS_CHECKSUM_IP_HEADER)
/* Extension headers before TCP or UDP are not looked behind, but Linux wants to hear of them. */
#define CHECKSUM6                                                                                  \
	(NDIS_CHECKSUM_IP_OPTIONS | NDIS_CHECKSUM_TCP_OPTIONS | NDIS_CHECKSUM_TCP |                \
	 NDIS_CHECKSUM_UDP)

/* --- queries --- */

static uint32_t value_zero(const struct netvsp *n)
{
	(void)n;
	return 0; /* ready; Ethernet; connected; none */
}

static uint32_t value_mtu(const struct netvsp *n)
{
	return n->mtu;
}

static uint32_t value_frame(const struct netvsp *n)
{
	return n->mtu + FRAME_ETHERNET;
}

static uint32_t value_disconnected(const struct netvsp *n)
{
	return !n->link_told;
}

/* In units of 100 bits per second. */
static uint32_t value_speed(const struct netvsp *n)
{
	return (uint32_t)MIN(n->options.speed / 100, UINT32_MAX);
}

static uint32_t value_buffer(const struct netvsp *n)
{
	(void)n;
	return 256 * 1024;
}

static uint32_t value_filter(const struct netvsp *n)
{
	return n->filter;
}

static uint32_t value_mac_options(const struct netvsp *n)
{
	(void)n;
	return NDIS_MAC_OPTIONS;
}

static uint32_t value_many(const struct netvsp *n)
{
	(void)n;
	return UINT32_MAX;
}

static uint32_t value_multicast(const struct netvsp *n)
{
	(void)n;
	return NETVSP_MULTICAST_MAX;
}

static uint32_t value_driver_version(const struct netvsp *n)
{
	(void)n;
	return 0x0100;
}

static uint32_t value_vendor(const struct netvsp *n)
{
	return (uint32_t)(n->options.mac[0] | n->options.mac[1] << 8 | n->options.mac[2] << 16);
}

static uint32_t value_tx_ok(const struct netvsp *n)
{
	return (uint32_t)n->counters.tx_frames;
}

static uint32_t value_rx_ok(const struct netvsp *n)
{
	return (uint32_t)n->counters.rx_frames;
}

static uint64_t tx_lost(const struct netvsp *n)
{
	return n->counters.tx_invalid + n->counters.tx_full + n->counters.tx_no_link;
}

static uint32_t value_tx_error(const struct netvsp *n)
{
	return (uint32_t)tx_lost(n);
}

static uint32_t value_rx_error(const struct netvsp *n)
{
	return (uint32_t)n->counters.rx_invalid;
}

static uint32_t value_rx_no_buffer(const struct netvsp *n)
{
	return (uint32_t)n->counters.rx_full;
}

static void query_tx_bytes(struct netvsp *n, struct writer *w)
{
	writer_le64(w, n->counters.tx_bytes);
}

static void query_rx_bytes(struct netvsp *n, struct writer *w)
{
	writer_le64(w, n->counters.rx_bytes);
}

static void query_tx_lost(struct netvsp *n, struct writer *w)
{
	writer_le64(w, tx_lost(n));
}

static void query_rx_lost(struct netvsp *n, struct writer *w)
{
	writer_le64(w, n->counters.rx_full + n->counters.rx_invalid);
}

static void query_mac(struct netvsp *n, struct writer *w)
{
	writer_put(w, n->options.mac, NETVSP_MAC_SIZE);
}

static void query_current_mac(struct netvsp *n, struct writer *w)
{
	writer_put(w, n->mac, NETVSP_MAC_SIZE);
}

static void query_multicast(struct netvsp *n, struct writer *w)
{
	writer_put(w, n->multicast, n->multicast_count * NETVSP_MAC_SIZE);
}

static void query_vendor_text(struct netvsp *n, struct writer *w)
{
	static const char text[] = "Partita";

	(void)n;
	writer_put(w, text, sizeof(text));
}

/* 255 units and a zero, whatever the name's length is. */
static void query_name(struct netvsp *n, struct writer *w)
{
	uint8_t units[2 * NETVSP_NAME_MAX + 2] = { 0 };

	if (n->name)
		(void)!utf16_encode(n->name, units, 2 * NETVSP_NAME_MAX, UTF16_LE);
	writer_put(w, units, sizeof(units));
}

static void query_link_state(struct netvsp *n, struct writer *w)
{
	const struct ndis_link_state s = {
		.header = { NDIS_OBJECT_TYPE_DEFAULT, 1, le16_of(sizeof(s)) },
		.connect_state = le32_of(n->link_told ? 1 : 2),
		.duplex_state = le32_of(2),
		.transmit_speed = le64_of(n->options.speed),
		.receive_speed = le64_of(n->options.speed),
	};

	writer_put(w, &s, sizeof(s));
}

static void query_max_speed(struct netvsp *n, struct writer *w)
{
	writer_le64(w, n->options.speed);
	writer_le64(w, n->options.speed);
}

static void query_encapsulation(struct netvsp *n, struct writer *w)
{
	const struct ndis_offload_encapsulation e = {
		.header = { NDIS_OBJECT_TYPE_ENCAPSULATION, 1, le16_of(sizeof(e)) },
		.ip4_enabled = le32_of(1),
		.ip4_type = le32_of(NDIS_ENCAPSULATION_IEEE_802_3),
		.ip4_header_size = le32_of(FRAME_ETHERNET),
		.ip6_enabled = le32_of(1),
		.ip6_type = le32_of(NDIS_ENCAPSULATION_IEEE_802_3),
		.ip6_header_size = le32_of(FRAME_ETHERNET),
	};

	(void)n;
	writer_put(w, &e, sizeof(e));
}

/* The revision that the driver's NDIS has: 6.0, 6.1, 6.30. */
static void query_offloads(struct netvsp *n, struct writer *w)
{
	const le32 ethernet = le32_of(NDIS_ENCAPSULATION_IEEE_802_3);
	struct ndis_offload o = {
		.header.type = NDIS_OBJECT_TYPE_OFFLOAD,
		.ip4_tx_encapsulation = ethernet,
		.ip4_tx = le32_of(CHECKSUM4),
		.ip4_rx_encapsulation = ethernet,
		.ip4_rx = le32_of(CHECKSUM4),
		.ip6_tx_encapsulation = ethernet,
		.ip6_tx = le32_of(CHECKSUM6),
		.ip6_rx_encapsulation = ethernet,
		.ip6_rx = le32_of(CHECKSUM6),
		.lso1_encapsulation = ethernet,
		.lso1_max_size = le32_of(LSO1_MAX_SIZE),
		.lso1_min_segments = le32_of(2),
		.lso1_options = le32_of(NDIS_CHECKSUM_IP_OPTIONS | NDIS_CHECKSUM_TCP_OPTIONS),
		.lso2_ip4_encapsulation = ethernet,
		.lso2_ip4_max_size = le32_of(LSO_MAX_SIZE),
		.lso2_ip4_min_segments = le32_of(2),
		.lso2_ip6_encapsulation = ethernet,
		.lso2_ip6_max_size = le32_of(LSO_MAX_SIZE),
		.lso2_ip6_min_segments = le32_of(2),
		.lso2_ip6_options = le32_of(NDIS_CHECKSUM_IP_OPTIONS | NDIS_CHECKSUM_TCP_OPTIONS),
	};
	uint16_t size = NDIS_OFFLOAD_SIZE_3;

	o.header.revision = 3;
	if (n->ndis_version < 0x0006001e) {
		o.header.revision = n->ndis_version < 0x00060001 ? 1 : 2;
		size = o.header.revision == 1 ? NDIS_OFFLOAD_SIZE_1 : NDIS_OFFLOAD_SIZE_2;
	}
	o.header.size = le16_of(size);
	o.rsc_ip4 = o.rsc_ip6 = !!(n->capabilities & NVSP_CAPABILITY_RSC);
	writer_put(w, &o, size);
}

static void query_rss(struct netvsp *n, struct writer *w)
{
	unsigned queues = n->channels[0] ? vmbus_channel_vp_count(n->channels[0]->ch) : 1;
	const struct ndis_receive_scale_capabilities c = {
		.header = { NDIS_OBJECT_TYPE_RSS_CAPABILITIES, 2,
			    le16_of(NDIS_RSS_CAPABILITIES_SIZE_2) },
		.capabilities = le32_of(NDIS_RSS_CAPS_TOEPLITZ | NDIS_RSS_CAPS_TCP_IPV4 |
					NDIS_RSS_CAPS_TCP_IPV6),
		.interrupt_messages = le32_of(1),
		.receive_queues = le32_of(MIN(queues, n->options.max_channels)),
		.indirection_entries = le16_of(NDIS_RSS_TABLE_MAX),
	};

	writer_put(w, &c, NDIS_RSS_CAPABILITIES_SIZE_2);
}

static void query_list(struct netvsp *n, struct writer *w);

/* --- setting --- */

static struct rndis_status set_filter(struct netvsp *n, struct reader r)
{
	uint32_t filter = reader_le32(&r);

	if (!reader_ok(&r))
		return RNDIS_STATUS_INVALID_LENGTH;
	n->filter = filter;
	netvsp_settle(n);
	return RNDIS_STATUS_SUCCESS;
}

static struct rndis_status set_multicast(struct netvsp *n, struct reader r)
{
	size_t size = reader_left(&r);

	if (size % NETVSP_MAC_SIZE)
		return RNDIS_STATUS_INVALID_LENGTH;
	if (size > sizeof(n->multicast))
		return RNDIS_STATUS_MULTICAST_FULL;
	reader_copy(&r, n->multicast, size);
	n->multicast_count = (unsigned)(size / NETVSP_MAC_SIZE);
	return RNDIS_STATUS_SUCCESS;
}

static struct rndis_status set_nothing(struct netvsp *n, struct reader r)
{
	(void)n;
	(void)r;
	return RNDIS_STATUS_SUCCESS;
}

/* Checksums and large sends are per frame; only coalescing has to be remembered. */
static struct rndis_status set_offloads(struct netvsp *n, struct reader r)
{
	struct ndis_offload_parameters p = { 0 };
	bool offered = n->capabilities & NVSP_CAPABILITY_RSC;
	size_t size = MIN(reader_left(&r), sizeof(p));

	if (size < NDIS_OFFLOAD_PARAMETERS_SIZE_1)
		return RNDIS_STATUS_INVALID_LENGTH;
	reader_copy(&r, &p, size);
	if (p.header.type != NDIS_OBJECT_TYPE_DEFAULT)
		return RNDIS_STATUS_INVALID_DATA;
	if (p.rsc_ip4)
		n->rsc_ip4 = offered && p.rsc_ip4 == NDIS_OFFLOAD_PARAMETERS_ON;
	if (p.rsc_ip6)
		n->rsc_ip6 = offered && p.rsc_ip6 == NDIS_OFFLOAD_PARAMETERS_ON;
	return RNDIS_STATUS_SUCCESS;
}

static int hex_digit(uint16_t unit)
{
	if (unit >= '0' && unit <= '9')
		return unit - '0';
	if ((unit | 0x20) >= 'a' && (unit | 0x20) <= 'f')
		return (unit | 0x20) - 'a' + 10;
	return -1;
}

/* Twelve digits in UTF-16. */
static bool take_address(struct reader *r, uint8_t *ret)
{
	for (unsigned i = 0; i < NETVSP_MAC_SIZE; i++) {
		int high = hex_digit(reader_le16(r)), low = hex_digit(reader_le16(r));

		if (high < 0 || low < 0)
			return false;
		ret[i] = (uint8_t)(high << 4 | low);
	}
	return reader_ok(r) && !(ret[0] & 1);
}

/* "NetworkAddress" is the only parameter that there is. */
static struct rndis_status set_parameter(struct netvsp *n, struct reader r)
{
	static const char name[] = "NetworkAddress";
	const uint8_t *data = r.data;
	struct rndis_config_parameter p;
	uint8_t mac[NETVSP_MAC_SIZE];
	struct reader text;

	reader_copy(&r, &p, sizeof(p));
	if (!reader_ok(&r) ||
	    !range_inside(le32_get(p.name_offset), le32_get(p.name_length), r.size) ||
	    !range_inside(le32_get(p.value_offset), le32_get(p.value_length), r.size))
		return RNDIS_STATUS_INVALID_LENGTH;
	text = reader_of(data + le32_get(p.name_offset), le32_get(p.name_length));
	for (size_t i = 0; i < sizeof(name) - 1; i++)
		if (reader_le16(&text) != name[i])
			return RNDIS_STATUS_NOT_SUPPORTED;
	text = reader_of(data + le32_get(p.value_offset), le32_get(p.value_length));
	if (le32_get(p.type) != NDIS_PARAMETER_STRING || !take_address(&text, mac))
		return RNDIS_STATUS_INVALID_DATA;
	if (!n->options.mac_changes && memcmp(mac, n->options.mac, sizeof(mac)))
		return RNDIS_STATUS_NOT_SUPPORTED;
	memcpy(n->mac, mac, sizeof(mac));
	return RNDIS_STATUS_SUCCESS;
}

/* --- receive scaling --- */

void oid_rss_off(struct netvsp *n)
{
	n->hash_types = 0;
	n->table_size = 0;
	free(n->prepared);
	n->prepared = NULL;
}

/* A part of the structure, by its offset in there. */
static struct reader part_of(const struct reader *r, uint32_t offset, uint32_t size, bool *ok)
{
	if (!range_inside(offset, size, r->size)) {
		*ok = false;
		return reader_of(r->data, 0);
	}
	return reader_of(r->data + offset, size);
}

struct rss_settings {
	uint32_t types;
	unsigned table_size;
	uint8_t table[NDIS_RSS_TABLE_MAX], key[NDIS_RSS_KEY_SIZE];
};

static bool rss_table(struct netvsp *n, struct reader entries, struct rss_settings *s)
{
	unsigned count = (unsigned)(reader_left(&entries) / 4);

	if (!count || count > NDIS_RSS_TABLE_MAX || reader_left(&entries) % 4)
		return false;
	for (unsigned i = 0; i < count; i++) {
		uint32_t channel = reader_le32(&entries);

		if (channel >= n->options.max_channels)
			return false;
		s->table[i] = (uint8_t)channel;
	}
	s->table_size = count;
	return true;
}

static bool rss_decode(struct netvsp *n, const struct reader *all,
		       const struct ndis_receive_scale_parameters *p, struct rss_settings *s)
{
	uint32_t flags = le16_get(p->flags), info = le32_get(p->hash_information);
	bool ok = true;
	struct reader part;

	if (!(flags & NDIS_RSS_PARAM_HASH_INFO_UNCHANGED)) {
		if ((info & 0xff) != NDIS_HASH_FUNCTION_TOEPLITZ)
			return false;
		s->types = info & (NDIS_HASH_IPV4 | NDIS_HASH_TCP_IPV4 | NDIS_HASH_IPV6 |
				   NDIS_HASH_TCP_IPV6);
	}
	if (!(flags & NDIS_RSS_PARAM_TABLE_UNCHANGED)) {
		part = part_of(all, le32_get(p->indirection_table_offset),
			       le16_get(p->indirection_table_size), &ok);
		if (!ok || !rss_table(n, part, s))
			return false;
	}
	if (flags & NDIS_RSS_PARAM_KEY_UNCHANGED)
		return true;
	part = part_of(all, le32_get(p->hash_key_offset), le16_get(p->hash_key_size), &ok);
	if (!ok || reader_left(&part) != sizeof(s->key))
		return false;
	reader_copy(&part, s->key, sizeof(s->key));
	return true;
}

static struct rndis_status set_rss(struct netvsp *n, struct reader r)
{
	struct rss_settings s = { .types = n->hash_types, .table_size = n->table_size };
	struct ndis_receive_scale_parameters p;
	struct reader all = r;

	memcpy(s.table, n->table, sizeof(s.table));
	memcpy(s.key, n->key, sizeof(s.key));
	reader_copy(&r, &p, sizeof(p));
	if (!reader_ok(&r))
		return RNDIS_STATUS_INVALID_LENGTH;
	if (p.header.type != NDIS_OBJECT_TYPE_RSS_PARAMETERS)
		return RNDIS_STATUS_INVALID_DATA;
	if (le16_get(p.flags) & NDIS_RSS_PARAM_DISABLE) {
		oid_rss_off(n);
		return RNDIS_STATUS_SUCCESS;
	}
	if (!rss_decode(n, &all, &p, &s))
		return RNDIS_STATUS_INVALID_DATA;
	if (!n->prepared && !(n->prepared = malloc(sizeof(*n->prepared))))
		return RNDIS_STATUS_FAILURE;
	n->hash_types = s.types;
	n->table_size = s.table_size;
	memcpy(n->table, s.table, sizeof(n->table));
	memcpy(n->key, s.key, sizeof(n->key));
	rss_key_prepare(n->prepared, n->key);
	return RNDIS_STATUS_SUCCESS;
}

/* --- the table --- */

static const struct oid {
	uint32_t oid;
	uint32_t (*value)(const struct netvsp *n);
	void (*query)(struct netvsp *n, struct writer *w);
	struct rndis_status (*set)(struct netvsp *n, struct reader r);
} oids[] = {
	{ OID_GEN_SUPPORTED_LIST, .query = query_list },
	{ OID_GEN_HARDWARE_STATUS, value_zero },
	{ OID_GEN_MEDIA_SUPPORTED, value_zero },
	{ OID_GEN_MEDIA_IN_USE, value_zero },
	{ OID_GEN_MAXIMUM_LOOKAHEAD, value_mtu },
	{ OID_GEN_CURRENT_LOOKAHEAD, value_mtu, .set = set_nothing },
	{ OID_GEN_MAXIMUM_FRAME_SIZE, value_mtu },
	{ OID_GEN_MAXIMUM_TOTAL_SIZE, value_frame },
	{ OID_GEN_TRANSMIT_BLOCK_SIZE, value_frame },
	{ OID_GEN_RECEIVE_BLOCK_SIZE, value_frame },
	{ OID_GEN_LINK_SPEED, value_speed },
	{ OID_GEN_TRANSMIT_BUFFER_SPACE, value_buffer },
	{ OID_GEN_RECEIVE_BUFFER_SPACE, value_buffer },
	{ OID_GEN_VENDOR_ID, value_vendor },
	{ OID_GEN_VENDOR_DESCRIPTION, .query = query_vendor_text },
	{ OID_GEN_VENDOR_DRIVER_VERSION, value_driver_version },
	{ OID_GEN_DRIVER_VERSION, value_driver_version },
	{ OID_GEN_CURRENT_PACKET_FILTER, value_filter, .set = set_filter },
	{ OID_GEN_MAC_OPTIONS, value_mac_options },
	{ OID_GEN_MEDIA_CONNECT_STATUS, value_disconnected },
	{ OID_GEN_MAXIMUM_SEND_PACKETS, value_many },
	{ OID_GEN_NETWORK_LAYER_ADDRESSES, .set = set_nothing },
	{ OID_GEN_RECEIVE_SCALE_CAPABILITIES, .query = query_rss },
	{ OID_GEN_RECEIVE_SCALE_PARAMETERS, .set = set_rss },
	{ OID_GEN_MAX_LINK_SPEED, .query = query_max_speed },
	{ OID_GEN_LINK_STATE, .query = query_link_state },
	{ OID_GEN_RNDIS_CONFIG_PARAMETER, .set = set_parameter },
	{ OID_GEN_XMIT_OK, value_tx_ok },
	{ OID_GEN_RCV_OK, value_rx_ok },
	{ OID_GEN_XMIT_ERROR, value_tx_error },
	{ OID_GEN_RCV_ERROR, value_rx_error },
	{ OID_GEN_RCV_NO_BUFFER, value_rx_no_buffer },
	{ OID_GEN_FRIENDLY_NAME, .query = query_name },
	{ OID_GEN_BYTES_RCV, .query = query_rx_bytes },
	{ OID_GEN_BYTES_XMIT, .query = query_tx_bytes },
	{ OID_GEN_RCV_DISCARDS, .query = query_rx_lost },
	{ OID_GEN_XMIT_DISCARDS, .query = query_tx_lost },
	{ OID_802_3_PERMANENT_ADDRESS, .query = query_mac },
	{ OID_802_3_CURRENT_ADDRESS, .query = query_current_mac },
	{ OID_802_3_MULTICAST_LIST, .query = query_multicast, .set = set_multicast },
	{ OID_802_3_MAXIMUM_LIST_SIZE, value_multicast },
	{ OID_802_3_RCV_ERROR_ALIGNMENT, value_zero },
	{ OID_802_3_XMIT_ONE_COLLISION, value_zero },
	{ OID_802_3_XMIT_MORE_COLLISIONS, value_zero },
	{ OID_OFFLOAD_ENCAPSULATION, .query = query_encapsulation, .set = set_nothing },
	{ OID_TCP_OFFLOAD_CURRENT_CONFIG, .query = query_offloads },
	{ OID_TCP_OFFLOAD_PARAMETERS, .set = set_offloads },
	{ OID_TCP_OFFLOAD_HARDWARE_CAPABILITIES, .query = query_offloads },
};

static void query_list(struct netvsp *n, struct writer *w)
{
	(void)n;
	for (size_t i = 0; i < ARRAY_SIZE(oids); i++)
		writer_le32(w, oids[i].oid);
}

static const struct oid *oid_find(uint32_t oid)
{
	for (size_t i = 0; i < ARRAY_SIZE(oids); i++)
		if (oids[i].oid == oid)
			return &oids[i];
	return NULL;
}

struct rndis_status oid_query(struct netvsp *n, uint32_t oid, struct reader in, struct writer *out)
{
	const struct oid *o = oid_find(oid);

	(void)in; /* sizes and revisions that the driver knows; ours are what its NDIS has */
	if (!o)
		return RNDIS_STATUS_INVALID_OID;
	if (o->value)
		writer_le32(out, o->value(n));
	else if (o->query)
		o->query(n, out);
	else
		return RNDIS_STATUS_NOT_SUPPORTED;
	return RNDIS_STATUS_SUCCESS;
}

struct rndis_status oid_set(struct netvsp *n, uint32_t oid, struct reader in)
{
	const struct oid *o = oid_find(oid);

	if (!o)
		return RNDIS_STATUS_INVALID_OID;
	return o->set ? o->set(n, in) : RNDIS_STATUS_NOT_SUPPORTED;
}
