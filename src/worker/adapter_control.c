// SPDX-License-Identifier: MIT
/* See adapter_control.h. The table of commands comes last. */
#include "worker/adapter_control.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define MEGABIT   UINT64_C(1000000)
#define SPEED_MAX 400000u /* Mb/s: what a guest can be told in units of 100 b/s */

/* What a command took, so that it can be dropped when it is refused. */
struct adapter_command {
	int fds[NET_PORT_FDS];
	bool taken;
};

static struct adapters *adapters_of(const struct command *c)
{
	return c->context;
}

static void refused(struct command *c)
{
	struct adapter_command *a = c->state;

	for (unsigned i = 0; i < NET_PORT_FDS && a->taken; i++)
		if (a->fds[i] >= 0)
			close(a->fds[i]);
	a->taken = false;
}

/* --- what comes in --- */

/* "memory" and "socket"; both or, when they are not needed, neither. */
static int take_port(struct command *c, bool needed, struct error *err)
{
	struct adapter_command *a = c->state;
	int r;

	a->taken = true;
	a->fds[0] = a->fds[1] = -1;
	needed = needed || json_object_get(c->request, "memory") ||
		 json_object_get(c->request, "socket");
	r = take_fd(c, c->request, "memory", needed, &a->fds[0], err);
	return r < 0 ? r : take_fd(c, c->request, "socket", needed, &a->fds[1], err);
}

static int take_adapter(struct command *c, struct adapter **ret, struct error *err)
{
	struct guid id;
	int r = take_guid(c->request, "adapter", &id, err);

	if (r < 0)
		return r;
	*ret = adapters_find(adapters_of(c), &id);
	if (!*ret)
		return error_set(err, -ENOENT, "there is no such adapter");
	return 0;
}

static int take_present(struct command *c, struct adapter **ret, struct error *err)
{
	int r = take_adapter(c, ret, err);

	if (r >= 0 && (*ret)->removing)
		r = error_set(err, -EBUSY, "the adapter is being removed");
	return r;
}

static int take_mac(const json_t *o, uint8_t ret[static NETVSP_MAC_SIZE], struct error *err)
{
	const char *text;
	int r = take_text(o, "mac", true, &text, err);

	if (r >= 0 && mac_parse(text, ret) < 0)
		r = error_set(err, -EINVAL, "\"mac\" must be an address like 00:15:5d:01:02:03");
	return r;
}

/* --- what goes out --- */

static json_t *mac_text(const uint8_t *mac)
{
	char text[18];

	snprintf(text, sizeof(text), "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2],
		 mac[3], mac[4], mac[5]);
	return json_string(text);
}

static json_t *id_text(const struct adapter *p)
{
	char text[GUID_TEXT_SIZE];

	return json_string(guid_format(&p->id, text));
}

static const struct {
	const char *name;
	size_t offset;
} counters[] = {
#define COUNTER(m)                                                                                 \
	{                                                                                          \
#m, offsetof(struct netvsp_counters, m)                                            \
	}
	COUNTER(tx_frames),    COUNTER(tx_bytes),        COUNTER(tx_segmented),
	COUNTER(tx_no_link),   COUNTER(tx_full),         COUNTER(tx_waits),
	COUNTER(tx_invalid),   COUNTER(rx_frames),       COUNTER(rx_bytes),
	COUNTER(rx_coalesced), COUNTER(rx_segmented),    COUNTER(rx_filtered),
	COUNTER(rx_waits),     COUNTER(rx_full),         COUNTER(rx_invalid),
	COUNTER(control),      COUNTER(packets_refused),
#undef COUNTER
};

static json_t *counters_tell(const struct netvsp *n)
{
	struct netvsp_counters all = netvsp_counters(n);
	json_t *o = json_object();

	for (size_t i = 0; i < ARRAY_SIZE(counters); i++) {
		uint64_t value;

		memcpy(&value, (const char *)&all + counters[i].offset, sizeof(value));
		json_object_set_new(o, counters[i].name, json_integer((json_int_t)value));
	}
	return o;
}

static json_t *channels_tell(const struct netvsp *n)
{
	json_t *list = json_array();
	uint64_t rx, tx;

	for (unsigned i = 0; i < NETVSP_MAX_CHANNELS; i++)
		if (netvsp_channel_counters(n, i, &rx, &tx))
			json_array_append_new(list, json_pack("{s:i,s:I,s:I}", "index", (int)i,
							      "rx_frames", (json_int_t)rx,
							      "tx_frames", (json_int_t)tx));
	return list;
}

static json_t *adapter_tell(const struct adapter *p)
{
	struct netvsp_state s = netvsp_state(p->netvsp);
	const char *version = netvsp_version_name(s.version);
	json_t *o = json_object();

	json_object_set_new(o, "id", id_text(p));
	json_object_set_new(o, "name", json_string(p->name ? p->name : ""));
	json_object_set_new(o, "mac", mac_text(s.mac));
	json_object_set_new(o, "removing", json_boolean(p->removing));
	json_object_set_new(o, "connected", json_boolean(s.connected));
	json_object_set_new(o, "link", json_boolean(s.link));
	json_object_set_new(o, "speed", json_integer((json_int_t)(s.speed / MEGABIT)));
	json_object_set_new(o, "version", json_string(version ? version : ""));
	json_object_set_new(o, "mtu", json_integer(s.mtu));
	json_object_set_new(o, "filter", json_integer(s.filter));
	json_object_set_new(o, "receive_scaling", json_boolean(s.rss));
	json_object_set_new(o, "coalescing", json_boolean(s.coalescing));
	json_object_set_new(o, "sections", json_integer(s.sections));
	json_object_set_new(o, "sections_free", json_integer(s.sections_free));
	json_object_set_new(o, "channels", channels_tell(p->netvsp));
	json_object_set_new(o, "counters", counters_tell(p->netvsp));
	return o;
}

json_t *adapter_event(const struct adapter *p, const char *event, int error)
{
	json_t *o = json_pack("{s:s,s:o}", "event", event, "adapter", id_text(p));

	if (error)
		json_object_set_new(
			o, "error",
			json_string(error == -EPIPE ? "the switch is gone" : "the port is broken"));
	return o;
}

/* --- commands --- */

static int run_query(struct command *c, struct error *err)
{
	struct adapter *only = NULL;
	json_t *list;
	int r = 0;

	if (json_object_get(c->request, "adapter"))
		r = take_adapter(c, &only, err);
	if (r < 0)
		return r;
	list = json_array();
	for (unsigned i = 0; i < ADAPTERS_MAX; i++) {
		struct adapter *p = adapters_at(adapters_of(c), i);

		if (p && (!only || p == only))
			json_array_append_new(list, adapter_tell(p));
	}
	json_object_set_new(c->answer, "adapters", list);
	return 0;
}

static int take_settings(struct command *c, struct adapter_settings *s, struct error *err)
{
	uint64_t speed;
	bool cable;
	int r = take_guid(c->request, "adapter", &s->id, err);

	if (r >= 0)
		r = take_mac(c->request, s->mac, err);
	if (r >= 0)
		r = take_text(c->request, "name", false, &s->name, err);
	if (r >= 0)
		r = take_number_or(c->request, "speed", 10000, SPEED_MAX, &speed, err);
	if (r >= 0)
		r = take_bool_or(c->request, "cable", true, &cable, err);
	if (r >= 0)
		r = take_bool_or(c->request, "mac_changes", false, &s->mac_changes, err);
	if (r < 0)
		return r;
	s->speed = speed * MEGABIT;
	s->cable_out = !cable;
	return 0;
}

static int run_add(struct command *c, struct error *err)
{
	struct adapter_command *a = c->state;
	struct adapter_settings s = { 0 };
	int r = take_settings(c, &s, err);

	if (r >= 0)
		r = take_port(c, false, err);
	if (r < 0)
		return r;
	memcpy(s.fds, a->fds, sizeof(s.fds));
	a->taken = false;
	return adapters_add(adapters_of(c), &s, err);
}

static int run_remove(struct command *c, struct error *err)
{
	struct adapter *p;
	bool now;
	int r = take_adapter(c, &p, err);

	if (r >= 0)
		r = take_bool_or(c->request, "now", false, &now, err);
	return r < 0 ? r : adapters_remove(p, now, err);
}

static int run_connect(struct command *c, struct error *err)
{
	struct adapter_command *a = c->state;
	struct adapter *p;
	int r = take_present(c, &p, err);

	if (r >= 0)
		r = take_port(c, true, err);
	if (r < 0)
		return r;
	a->taken = false;
	return adapters_connect(p, a->fds, err);
}

static int run_disconnect(struct command *c, struct error *err)
{
	struct adapter *p;
	int r = take_present(c, &p, err);

	if (r >= 0)
		netvsp_disconnect(p->netvsp);
	return r;
}

/* What is not said stays. */
static int run_set(struct command *c, struct error *err)
{
	struct adapter *p;
	uint64_t speed;
	bool cable;
	int r = take_present(c, &p, err);

	if (r >= 0)
		r = take_number_or(c->request, "speed", 0, SPEED_MAX, &speed, err);
	if (r >= 0)
		r = take_bool_or(c->request, "cable", netvsp_cable(p->netvsp), &cable, err);
	if (r < 0)
		return r;
	netvsp_set_link(p->netvsp, !cable, speed ? speed * MEGABIT : netvsp_state(p->netvsp).speed);
	return 0;
}

/* --- the table --- */

static const struct command_type adapter_commands[] = {
	{ "adapter-query", " adapter ", run_query },
	{ "adapter-add", " adapter mac name memory socket speed cable mac_changes ", run_add },
	{ "adapter-remove", " adapter now ", run_remove },
	{ "adapter-connect", " adapter memory socket ", run_connect },
	{ "adapter-disconnect", " adapter ", run_disconnect },
	{ "adapter-set", " adapter cable speed ", run_set },
	{ 0 },
};

struct command_family adapter_family(struct adapters *adapters)
{
	return (struct command_family){ .types = adapter_commands,
					.context = adapters,
					.state_size = sizeof(struct adapter_command),
					.refused = refused };
}
