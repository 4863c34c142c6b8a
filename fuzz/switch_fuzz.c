// SPDX-License-Identifier: MIT
/*
 * Frames and settings of four ports, against a model that is told nothing but the settings: it
 * says for each frame that arrives somewhere whether it may be there. No frame arrives with a VLAN,
 * from an address, or past a guard that the settings forbid; headers that were judged arrive
 * unchanged; and the switch always comes to rest.
 */
#include "lib/cursor.h"
#include "net/testing.h"

#include <stdlib.h>
#include <string.h>

#define PORTS 4u
#define TRIES 2000u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct bed {
	struct net_switch *s;
	struct net_switch_port *ports[PORTS];
	struct net_settings settings[PORTS];
	struct net_rule rules[PORTS][4];
	struct net_fake links[PORTS];
	uint64_t now;
};

static void read_match(struct reader *r, struct net_match *m)
{
	uint8_t what = reader_u8(r);

	memset(m, 0, sizeof(*m));
	m->port_last = 65535;
	if (what & 1) {
		m->version = what & 2 ? 4 : 6;
		m->prefix = reader_u8(r);
		reader_copy(r, m->address, sizeof(m->address));
	}
	if (what & 4) {
		m->port_first = reader_le16(r);
		m->port_last = reader_le16(r);
	}
	if (what & 8) {
		m->has_mac = true;
		reader_copy(r, m->mac.bytes, 6);
	}
}

static void read_rules(struct reader *r, struct bed *b, unsigned i)
{
	struct net_settings *s = &b->settings[i];

	s->rule_count = reader_u8(r) % 5;
	s->rules = b->rules[i];
	for (unsigned n = 0; n < s->rule_count; n++) {
		struct net_rule *rule = &b->rules[i][n];
		uint8_t what = reader_u8(r);

		memset(rule, 0, sizeof(*rule));
		rule->direction = what & 1 ? NET_INBOUND : NET_OUTBOUND;
		rule->action = (enum net_action)(what >> 1 & 3) % 3;
		rule->stateful = what & 8;
		rule->timeout = reader_u8(r);
		rule->weight = reader_u8(r) % 4;
		rule->protocol = (int16_t)(reader_u8(r) - 1);
		read_match(r, &rule->local);
		read_match(r, &rule->remote);
	}
}

static void read_settings(struct reader *r, struct bed *b, unsigned i)
{
	struct net_settings old = b->settings[i], *s = &b->settings[i];
	struct net_rule kept[4];
	uint8_t flags = reader_u8(r), more = reader_u8(r);
	struct error err;

	memcpy(kept, b->rules[i], sizeof(kept));
	*s = net_settings_default;
	s->mac = (net_mac){ { 2, 0, 0, 0, 0, (uint8_t)(i + 1) } };
	s->spoofing = flags & 1;
	s->dhcp_guard = flags & 2;
	s->router_guard = flags & 4;
	s->drops = flags & 8;
	s->mirror = (enum net_mirror)(flags >> 4 & 3) % 3;
	s->storm_limit = more & 1 ? 5 : 0;
	s->maximum_bandwidth = more & 2 ? 1000000 : 0;
	s->minimum_weight = more >> 2;
	s->vlan.mode = (enum net_vlan_mode)(reader_u8(r) % 5);
	s->vlan.id = reader_u8(r) % 16;
	s->vlan.secondary = reader_u8(r) % 16;
	s->vlan.set[0] = reader_le16(r);
	b->links[i].uplink.takes = reader_u8(r) & NET_TAKES_ALL;
	read_rules(r, b, i);
	if (net_switch_set(b->ports[i], s, &err) < 0) {
		*s = old;
		memcpy(b->rules[i], kept, sizeof(kept));
		s->rules = b->rules[i];
	}
}

/* --- the model --- */

/* Which tag a frame has: -1 none. */
static int tag_of(const uint8_t *f, size_t size)
{
	return size >= 16 && f[12] == 0x81 && f[13] == 0 ? (f[14] << 8 | f[15]) & 0xfff : -1;
}

static bool in_set(const struct net_vlan *v, int id)
{
	return id > 0 && id < 4095 && v->set[id / 64] >> id % 64 & 1;
}

/* Whether a frame may leave the switch there with this tag. */
static bool may_have(const struct net_vlan *v, int tag)
{
	if (v->mode == NET_VLAN_TRUNK)
		return tag < 0 || (tag != v->id && in_set(v, tag));
	return tag < 0;
}

/* Of the VLANs that settings here have: whether anything that `from` may send can reach `to`, with
 * that tag there. */
static bool may_meet(const struct net_vlan *from, const struct net_vlan *to, int tag)
{
	for (int id = 0; id < 64; id++) {
		bool sends, gets;

		switch (from->mode) {
		case NET_VLAN_ISOLATED:
		case NET_VLAN_COMMUNITY:
			sends = id == from->secondary;
			break;
		case NET_VLAN_TRUNK:
			sends = id == from->id || in_set(from, id);
			break;
		case NET_VLAN_ACCESS:
		case NET_VLAN_PROMISCUOUS:
		default:
			sends = id == from->id;
		}
		switch (to->mode) {
		case NET_VLAN_ISOLATED:
		case NET_VLAN_ACCESS:
			gets = id == to->id && tag < 0;
			break;
		case NET_VLAN_COMMUNITY:
			gets = (id == to->id || id == to->secondary) && tag < 0;
			break;
		case NET_VLAN_TRUNK:
			gets = tag < 0 ? id == to->id : id == tag && id != to->id && in_set(to, id);
			break;
		case NET_VLAN_PROMISCUOUS:
		default:
			gets = (id == to->id || in_set(to, id)) && tag < 0;
		}
		if (sends && gets)
			return true;
	}
	return false;
}

/* Plain router advertisements and DHCP answers, as any receiver understands them. */
static bool is_forbidden(const struct net_settings *s, const uint8_t *f, size_t size)
{
	size_t l3 = tag_of(f, size) >= 0 ? 18 : 14;
	unsigned type = size >= l3 ? (unsigned)(f[l3 - 2] << 8 | f[l3 - 1]) : 0;
	size_t l4 = type == 0x0800 ? l3 + 20 : l3 + 40;

	if (size < l4 + 8)
		return false;
	if (type == 0x0800 && f[l3] == 0x45 && !(f[l3 + 6] & 0x1f) && !f[l3 + 7] &&
	    f[l3 + 9] == 17 && s->dhcp_guard)
		return !f[l4] && f[l4 + 1] == 67;
	if (type == 0x86dd && f[l3] >> 4 == 6 && f[l3 + 6] == 58 && s->router_guard)
		return f[l4] == 134;
	return false;
}

/* `from` sent it last; all ports may be mirrors, whose copies are not judged. */
static void check_port(const struct bed *b, unsigned from, unsigned to)
{
	const struct net_settings *s = &b->settings[from], *t = &b->settings[to];
	const struct net_fake *link = &b->links[to];

	for (unsigned i = 0; i < MIN(link->got_count, (uint64_t)NET_FAKE_KEEPS); i++) {
		const struct net_fake_frame *f = &link->got[i];
		int tag = tag_of(f->bytes, f->size);
		unsigned needs = f->offload.flags & NET_CHECKSUM_NEEDED;

		if (f->size < 14 || f->bytes[6] & 1)
			abort();
		if (!s->spoofing && memcmp(f->bytes + 6, s->mac.bytes, 6) != 0)
			abort();
		if (is_forbidden(s, f->bytes, f->size))
			abort();
		if (needs & ~link->uplink.takes)
			abort();
		if (t->mirror == NET_MIRROR_DESTINATION)
			continue;
		if (to == from || !may_have(&t->vlan, tag) || !may_meet(&s->vlan, &t->vlan, tag))
			abort();
	}
}

/* --- playing --- */

static void run(struct bed *b)
{
	uint64_t deadline;

	for (unsigned i = 0; i < PORTS; i++)
		net_switch_wake(b->ports[i]);
	for (unsigned i = 0; i < TRIES; i++) {
		if (net_switch_run(b->s, b->now, &deadline))
			continue;
		if (!deadline)
			return;
		if (deadline <= b->now)
			abort();
		b->now = deadline;
	}
	abort();
}

static void read_offload(struct reader *r, size_t size, struct net_offload *o)
{
	static const uint8_t kinds[] = { 0, 0, 1, 4, 5, 0x81, 0x84, 3 };
	uint8_t what = reader_u8(r);

	*o = (struct net_offload){ .flags = what & 3, .segmentation = kinds[what >> 2 & 7] };
	if (!o->flags && !o->segmentation)
		return;
	o->segment_size = reader_u8(r);
	o->checksum_start = reader_u8(r);
	o->checksum_offset = reader_u8(r);
	/* What a port lets through (port.c). */
	if (!range_inside((size_t)o->checksum_start + o->checksum_offset, 2, size))
		o->flags &= NET_CHECKSUM_VALID;
}

static void play_frames(struct bed *b, unsigned from, struct reader *r)
{
	unsigned count = reader_u8(r) % 8;

	for (unsigned i = 0; i < count; i++) {
		uint8_t frame[1700];
		struct net_offload o;
		uint8_t shape = reader_u8(r);
		size_t n = MIN(reader_u8(r), reader_left(r)), size = 14 + n + (shape >> 5) * 200u;

		memset(frame, 0, sizeof(frame));
		reader_copy(r, frame + 12, n);
		frame[0] = 2;
		frame[5] = shape & 7; /* to a port, or to nobody known */
		if (shape & 8)
			memset(frame, 0xff, 6);
		frame[6] = 2;
		frame[11] = (uint8_t)(shape & 16 ? reader_u8(r) : from + 1);
		read_offload(r, size, &o);
		net_fake_queue(&b->links[from], frame, size, &o);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct net_switch_options options = { .sharing = NET_SHARE_WEIGHT };
	struct reader r = reader_of(data, size);
	struct bed b = { .now = 1 };
	struct error err;

	if (net_switch_new(&options, &b.s, &err) < 0)
		abort();
	for (unsigned i = 0; i < PORTS; i++) {
		char id[2] = { (char)('a' + i), 0 };

		b.settings[i] = net_settings_default;
		b.settings[i].mac = (net_mac){ { 2, 0, 0, 0, 0, (uint8_t)(i + 1) } };
		net_fake_init(&b.links[i], NET_TAKES_ALL);
		if (net_switch_add(b.s, id, &b.settings[i], &b.ports[i], &err) < 0)
			abort();
		net_switch_plug_uplink(b.ports[i], &b.links[i].uplink);
	}
	while (reader_left(&r)) {
		uint8_t op = reader_u8(&r);
		unsigned port = op % PORTS;

		if (op & 0x80) {
			read_settings(&r, &b, port);
			continue;
		}
		b.now += (uint64_t)reader_u8(&r) * reader_u8(&r) * 1000000;
		b.links[(op >> 2) % PORTS].limited = op & 0x40;
		b.links[(op >> 2) % PORTS].room = reader_u8(&r) * 16u;
		play_frames(&b, port, &r);
		run(&b);
		for (unsigned i = 0; i < PORTS; i++)
			check_port(&b, port, i);
		for (unsigned i = 0; i < PORTS; i++)
			net_fake_clear(&b.links[i]);
	}
	net_switch_free(b.s);
	for (unsigned i = 0; i < PORTS; i++)
		net_fake_deinit(&b.links[i]);
	return 0;
}
