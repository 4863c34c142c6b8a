// SPDX-License-Identifier: MIT
/*
 * Saving and restoring the adapter. Nothing is ever under way between two callbacks; a packet that
 * waits for the port is given up at rest, with the frames that are left of it lost. What the guest
 * holds of the receive buffer is saved, so that its completions are understood; frames that wait in
 * the port are the port's. Everything is judged like the guest's bytes. Runs on the event loop's
 * thread.
 */
#include "devices/netvsp/netvsp_internal.h"

#include <errno.h>
#include <stdlib.h>

struct saved_adapter {
	uint32_t version, ndis_version, capabilities, mtu, filter, hash_types;
	uint32_t receive_gpadl, send_gpadl; /* 0 = none */
	uint32_t section_size;
	uint16_t receive_id, subs_granted, table_size, multicast_count, frame_number;
	bool rndis_ready, rsc_ip4, rsc_ip6, table_due, link_told;
	uint64_t speed_told;
	uint8_t mac[NETVSP_MAC_SIZE], key[NDIS_RSS_KEY_SIZE], table[NDIS_RSS_TABLE_MAX];
	uint8_t multicast[NETVSP_MULTICAST_MAX * NETVSP_MAC_SIZE];
	struct save_blob sections; /* struct saved_section of each */
};

struct saved_section {
	le16 next;
	uint8_t channel, more;
};
_Static_assert(sizeof(struct saved_section) == 4, "");

static const struct save_field adapter_fields[] = {
	SAVE_FIELD(struct saved_adapter, version),
	SAVE_FIELD(struct saved_adapter, ndis_version),
	SAVE_FIELD(struct saved_adapter, capabilities),
	SAVE_FIELD(struct saved_adapter, mtu),
	SAVE_FIELD(struct saved_adapter, filter),
	SAVE_FIELD(struct saved_adapter, hash_types),
	SAVE_FIELD(struct saved_adapter, receive_gpadl),
	SAVE_FIELD(struct saved_adapter, send_gpadl),
	SAVE_FIELD(struct saved_adapter, section_size),
	SAVE_FIELD(struct saved_adapter, receive_id),
	SAVE_FIELD(struct saved_adapter, subs_granted),
	SAVE_FIELD(struct saved_adapter, table_size),
	SAVE_FIELD(struct saved_adapter, multicast_count),
	SAVE_FIELD(struct saved_adapter, frame_number),
	SAVE_FIELD(struct saved_adapter, rndis_ready),
	SAVE_FIELD(struct saved_adapter, rsc_ip4),
	SAVE_FIELD(struct saved_adapter, rsc_ip6),
	SAVE_FIELD(struct saved_adapter, table_due),
	SAVE_FIELD(struct saved_adapter, link_told),
	SAVE_FIELD(struct saved_adapter, speed_told),
	SAVE_BYTES(struct saved_adapter, mac),
	SAVE_BYTES(struct saved_adapter, key),
	SAVE_BYTES(struct saved_adapter, table),
	SAVE_BYTES(struct saved_adapter, multicast),
	SAVE_BLOB(struct saved_adapter, sections, NETVSP_SECTIONS * sizeof(struct saved_section)),
};
static const struct save_table adapter_table =
	SAVE_TABLE("netvsp.adapter", 1, struct saved_adapter, adapter_fields);

/* An answer that the guest has not got. */
struct saved_answer {
	struct save_blob message;
};
static const struct save_field answer_fields[] = {
	SAVE_BLOB(struct saved_answer, message, NETVSP_ANSWER_MAX),
};
static const struct save_table answer_table =
	SAVE_TABLE("netvsp.answer", 1, struct saved_answer, answer_fields);

/* --- rest --- */

void netvsp_pause(void *device, struct vmbus_channel *primary)
{
	struct netvsp *n = device;

	for (unsigned i = 0; i < NETVSP_MAX_CHANNELS; i++) {
		struct netvsp_channel *c = n->channels[i];

		if (!c)
			continue;
		n->counters.tx_full += c->tx.active;
		tx_abort(c);
		rx_flush(c);
		vmbus_flush(c->ch);
	}
	if (n->port)
		net_port_flush(n->port);
	n->paused = true;
	vmbus_device_paused(primary);
}

void netvsp_resume(void *device)
{
	struct netvsp *n = device;

	n->paused = false;
	if (n->port)
		loop_timer_arm(&n->port_round, 1);
	netvsp_settle(n);
}

/* --- saving --- */

static struct saved_section *sections_of(const struct netvsp *n)
{
	struct saved_section *list = calloc(n->section_count + 1, sizeof(*list));

	for (uint32_t i = 0; list && i < n->section_count; i++)
		list[i] = (struct saved_section){ le16_of(n->sections[i].next),
						  n->sections[i].channel, n->sections[i].more };
	return list;
}

int netvsp_save(void *device, struct save_writer *w, struct error *err)
{
	const struct netvsp *n = device;
	struct saved_section *sections = sections_of(n);
	struct saved_adapter s = {
		.version = n->version,
		.ndis_version = n->ndis_version,
		.capabilities = n->capabilities,
		.mtu = n->mtu,
		.filter = n->filter,
		.hash_types = n->hash_types,
		.receive_gpadl = n->receive.id,
		.send_gpadl = n->send.id,
		.section_size = n->section_count ? n->section_size : 0,
		.receive_id = n->receive_id,
		.subs_granted = (uint16_t)n->subs_granted,
		.table_size = (uint16_t)n->table_size,
		.multicast_count = (uint16_t)n->multicast_count,
		.frame_number = n->frame_number,
		.rndis_ready = n->rndis_ready,
		.rsc_ip4 = n->rsc_ip4,
		.rsc_ip6 = n->rsc_ip6,
		.table_due = n->table_due,
		.link_told = n->link_told,
		.speed_told = n->speed_told,
		.sections = { sections, n->section_count * sizeof(*sections) },
	};

	if (!sections)
		return error_set(err, -ENOMEM, "out of memory");
	memcpy(s.mac, n->mac, sizeof(s.mac));
	memcpy(s.key, n->key, sizeof(s.key));
	memcpy(s.table, n->table, sizeof(s.table));
	memcpy(s.multicast, n->multicast, sizeof(s.multicast));
	save_put(w, &adapter_table, &s);
	for (unsigned i = 0; i < n->answer_count; i++) {
		const struct netvsp_answer *a = &n->answers[(n->answer_first + i) % NETVSP_ANSWERS];
		const struct saved_answer one = { .message = { a->data, a->size } };

		save_put(w, &answer_table, &one);
	}
	free(sections);
	return 0;
}

/* --- restoring --- */

static int bad(struct error *err, const char *what)
{
	return error_set(err, -EBADMSG, "a network adapter's state has %s", what);
}

/* Takes a packet's sections from the free ones, which `taken` tells. */
static bool take_packet(struct netvsp *n, const struct saved_section *list, uint32_t section,
			bool *taken)
{
	for (bool first = true;; first = false) {
		struct netvsp_section *s = &n->sections[section];

		if (taken[section] || (!first && list[section].channel))
			return false;
		taken[section] = true;
		s->channel = first ? list[section].channel : 0;
		s->more = list[section].more;
		s->next = le16_get(list[section].next);
		if (!s->more)
			return true;
		section = s->next;
		if (section >= n->section_count)
			return false;
	}
}

static bool channel_is_open(const struct netvsp *n, uint8_t saved)
{
	return saved && saved <= NETVSP_MAX_CHANNELS && n->channels[saved - 1];
}

static bool take_sections(struct netvsp *n, const struct saved_section *list, bool *taken)
{
	for (uint32_t i = 0; i < n->section_count; i++)
		if (list[i].channel &&
		    (!channel_is_open(n, list[i].channel) || !take_packet(n, list, i, taken)))
			return false;
	n->free_count = 0;
	for (uint32_t i = n->section_count; i--;)
		if (!taken[i])
			n->free[n->free_count++] = (uint16_t)i;
	return true;
}

static int restore_receive(struct netvsp *n, const struct saved_adapter *s, struct error *err)
{
	bool *taken, ok;

	if (rx_buffer_set(n, n->channels[0]->ch, s->receive_gpadl, s->receive_id) < 0)
		return bad(err, "a receive buffer that the guest has not lent");
	if (n->section_size != s->section_size ||
	    s->sections.size != n->section_count * sizeof(struct saved_section))
		return bad(err, "a receive buffer that is cut in another way");
	taken = calloc(n->section_count, sizeof(*taken));
	if (!taken)
		return error_set(err, -ENOMEM, "out of memory");
	ok = take_sections(n, s->sections.data, taken);
	free(taken);
	return ok ? 0 : bad(err, "packets that overlap");
}

static int restore_scaling(struct netvsp *n, const struct saved_adapter *s, struct error *err)
{
	if (s->table_size > NDIS_RSS_TABLE_MAX)
		return bad(err, "a table that is too large");
	for (unsigned i = 0; i < s->table_size; i++)
		if (s->table[i] >= NETVSP_MAX_CHANNELS)
			return bad(err, "a channel that there is not");
	if (s->hash_types && !(n->prepared = malloc(sizeof(*n->prepared))))
		return error_set(err, -ENOMEM, "out of memory");
	n->hash_types = s->hash_types;
	n->table_size = s->table_size;
	memcpy(n->table, s->table, sizeof(n->table));
	memcpy(n->key, s->key, sizeof(n->key));
	if (n->prepared)
		rss_key_prepare(n->prepared, n->key);
	return 0;
}

static int restore_answers(struct netvsp *n, struct save_reader *r, struct error *err)
{
	struct saved_answer s;
	int got;

	while ((got = save_next(r, &answer_table, &s, err)) > 0) {
		struct netvsp_answer *a = rndis_answer(n);

		if (!a || s.message.size > sizeof(a->data))
			return bad(err, "more answers than there can be");
		a->size = (uint32_t)s.message.size;
		memcpy(a->data, s.message.data, s.message.size);
	}
	return got;
}

static int restore_protocol(struct netvsp *n, const struct saved_adapter *s, struct error *err)
{
	int r = 0;

	if (!n->channels[0] || !netvsp_version_name(s->version))
		return bad(err, "a version that is not known, or none of its channels");
	if (s->mtu < NETVSP_MTU_MIN || s->mtu > NETVSP_MTU_MAX ||
	    s->multicast_count > NETVSP_MULTICAST_MAX || s->subs_granted >= NETVSP_MAX_CHANNELS)
		return bad(err, "numbers beyond what is possible");
	n->version = s->version;
	n->ndis_version = s->ndis_version;
	n->capabilities = s->capabilities;
	n->mtu = s->mtu;
	n->filter = s->filter;
	n->subs_granted = s->subs_granted;
	n->multicast_count = s->multicast_count;
	n->frame_number = s->frame_number;
	n->rndis_ready = s->rndis_ready;
	n->rsc_ip4 = s->rsc_ip4;
	n->rsc_ip6 = s->rsc_ip6;
	n->table_due = s->table_due;
	n->link_told = s->link_told;
	n->speed_told = s->speed_told;
	memcpy(n->mac, s->mac, sizeof(n->mac));
	memcpy(n->multicast, s->multicast, sizeof(n->multicast));
	if (s->receive_gpadl)
		r = restore_receive(n, s, err);
	if (r >= 0 && s->send_gpadl &&
	    vmbus_buffer_take(n->channels[0]->ch, s->send_gpadl, &n->send) < 0)
		r = bad(err, "a send buffer that the guest has not lent");
	return r < 0 ? r : restore_scaling(n, s, err);
}

int netvsp_restore(void *device, struct save_reader *r, struct error *err)
{
	struct netvsp *n = device;
	struct saved_adapter s;
	int e = save_get(r, &adapter_table, &s, err);

	n->paused = true;
	if (e < 0 || !s.version)
		return e < 0 ? e : 0;
	e = restore_protocol(n, &s, err);
	return e < 0 ? e : restore_answers(n, r, err);
}
