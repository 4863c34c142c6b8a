// SPDX-License-Identifier: MIT
/*
 * One frame: what a port may send is judged from the copied headers, in the order of
 * forward_judge; where it goes is looked up, and it is put out there, tagged and finished as that
 * port wants it. See switch.h for the rules of VLANs. The switch's thread.
 */
#include "net/switch_internal.h"

#include <errno.h>

#define PRIORITY_MASK 0xf000u /* of a tag: all but the VLAN */
#define DHCP4_SERVER  67u
#define DHCP4_CLIENT  68u
#define DHCP6_CLIENT  546u
#define DHCP6_SERVER  547u

/* RFC 792, RFC 1256; RFC 4861 4.1 to 4.5 */
enum {
	ICMP4_REDIRECT = 5,
	ICMP4_ROUTER = 9,
	ICMP6_SOLICIT_ROUTER = 133,
	ICMP6_ROUTER = 134,
	ICMP6_SOLICIT = 135,
	ICMP6_ADVERTISE = 136,
	ICMP6_REDIRECT = 137,
};

/* --- judging --- */

/* The frame's VLAN, or -1 when the port may not send it. */
static int vlan_of(const struct net_switch_port *p, const struct net_headers *h)
{
	const struct net_vlan *v = &p->settings.vlan;
	unsigned id = h->tci & VLAN_ID_MASK;

	if (!h->tags)
		return v->mode == NET_VLAN_ISOLATED || v->mode == NET_VLAN_COMMUNITY ? v->secondary
										     : v->id;
	if (h->tpid != ETHERTYPE_VLAN || id == VLAN_ID_MASK)
		return -1;
	if (v->mode != NET_VLAN_TRUNK) {
		/* A priority without a VLAN is no tag; but nothing hides behind it. */
		if (id || h->tags > 1)
			return -1;
		return v->mode == NET_VLAN_ISOLATED || v->mode == NET_VLAN_COMMUNITY ? v->secondary
										     : v->id;
	}
	if (!id)
		return v->id;
	return id == v->id || vlan_in(v->set, (uint16_t)id) ? (int)id : -1;
}

static bool is_dhcp_server(const struct net_headers *h)
{
	if (!h->l4 || h->protocol != IP_UDP)
		return false;
	if (h->version == 4)
		return h->source_port == DHCP4_SERVER || h->destination_port == DHCP4_CLIENT;
	return h->source_port == DHCP6_SERVER || h->destination_port == DHCP6_CLIENT;
}

static bool is_router(const struct net_headers *h)
{
	if (!h->l4)
		return false;
	if (h->version == 4)
		return h->protocol == IP_ICMP4 &&
		       (h->icmp_type == ICMP4_REDIRECT || h->icmp_type == ICMP4_ROUTER);
	return h->protocol == IP_ICMP6 &&
	       (h->icmp_type == ICMP6_ROUTER || h->icmp_type == ICMP6_REDIRECT);
}

static bool is_zero(const uint8_t mac[6])
{
	return !(mac[0] | mac[1] | mac[2] | mac[3] | mac[4] | mac[5]);
}

static int judge_source(const struct net_switch_port *p, const struct net_headers *h)
{
	const uint8_t *source = h->bytes + 6;

	if (h->cut || source[0] & 1 || is_zero(source))
		return NET_DROP_MALFORMED;
	if (!p->settings.spoofing && memcmp(source, p->settings.mac.bytes, 6) != 0)
		return NET_DROP_SPOOF;
	return -1;
}

static int judge_guards(const struct net_switch_port *p, const struct net_headers *h)
{
	const struct net_settings *s = &p->settings;

	if (!s->dhcp_guard && !s->router_guard)
		return -1;
	if (h->undecided)
		return NET_DROP_MALFORMED;
	if (s->dhcp_guard && is_dhcp_server(h))
		return NET_DROP_DHCP_GUARD;
	if (s->router_guard && is_router(h))
		return NET_DROP_ROUTER_GUARD;
	return -1;
}

static int judge_rules(struct net_switch_port *p, const struct net_headers *h,
		       enum net_direction direction)
{
	switch (rules_judge(p->rules, h, direction, p->owner->now)) {
	case RULES_ALLOW:
		return -1;
	case RULES_NO_ROOM:
		return NET_DROP_FLOWS;
	case RULES_DENY:
		break;
	}
	return NET_DROP_RULE;
}

static bool storm_takes(struct net_switch_port *p)
{
	if (!p->storm.rate)
		return true;
	bucket_fill(&p->storm, p->owner->now);
	if (p->storm.credit < 1)
		return false;
	p->storm.credit--;
	return true;
}

/* Why it is dropped, or -1; with its VLAN. */
static int judge(struct net_switch_port *p, struct frame *f)
{
	struct net_headers *h = &f->head;
	int why = judge_source(p, h), vlan;

	if (why >= 0)
		return why;
	vlan = vlan_of(p, h);
	if (vlan < 0)
		return NET_DROP_VLAN;
	f->vlan = (uint16_t)vlan;
	why = judge_guards(p, h);
	if (why >= 0)
		return why;
	if ((f->offload.flags & NET_CHECKSUM_NEEDED || f->offload.segmentation) &&
	    !finish_judge(h, &f->offload))
		return NET_DROP_OFFLOAD;
	if (p->rules) {
		why = judge_rules(p, h, NET_OUTBOUND);
		if (why >= 0)
			return why;
	}
	f->multicast = h->bytes[0] & 1;
	return f->multicast && !storm_takes(p) ? NET_DROP_STORM : -1;
}

/* --- where it goes --- */

/* The port whose own address that is, among those of the VLAN. */
static struct net_switch_port *owner_of(struct net_switch *s, const uint8_t mac[6], uint16_t vlan)
{
	struct net_switch_port *q = *mac_bucket(s, mac);

	while (q && (memcmp(q->settings.mac.bytes, mac, 6) != 0 || !vlan_in(q->carries, vlan)))
		q = q->mac_next;
	return q;
}

static void learn(struct net_switch_port *p, const struct frame *f)
{
	struct net_switch *s = p->owner;
	const uint8_t *mac = f->head.bytes + 6;

	/* A port's own address is where it is, whoever else sends from it. */
	if (!memcmp(mac, p->settings.mac.bytes, 6) || owner_of(s, mac, f->vlan))
		return;
	table_learn(&s->table, table_key(s->primary[f->vlan], mac), p->index, p->settings.mac_limit,
		    s->now);
}

/* Destinations that bridges keep to themselves (IEEE 802.1Q, table 8-1). */
static bool is_reserved(const uint8_t mac[6])
{
	static const uint8_t prefix[5] = { 0x01, 0x80, 0xc2, 0x00, 0x00 };

	return !memcmp(mac, prefix, sizeof(prefix)) && mac[5] < 0x10;
}

/* False: nowhere. */
static bool look_up(struct net_switch_port *p, struct frame *f)
{
	struct net_switch *s = p->owner;
	const uint8_t *mac = f->head.bytes;
	int index;

	f->to = NULL;
	if (f->multicast)
		return !is_reserved(mac);
	f->to = owner_of(s, mac, f->vlan);
	if (!f->to) {
		index = table_find(&s->table, table_key(s->primary[f->vlan], mac), s->now);
		f->to = index >= 0 ? s->ports[index] : NULL;
	}
	return !f->to || (f->to != p && vlan_in(f->to->carries, f->vlan));
}

/* --- putting it out --- */

/* How the tag changes on the way to a port. */
struct tagging {
	bool had, has;
	uint8_t tag[VLAN_TAG];
};

/* False: the frame cannot go there. */
static bool tagging_for(const struct net_switch_port *q, const struct frame *f, struct tagging *ret)
{
	const struct net_vlan *v = &q->settings.vlan;
	const struct net_headers *h = &f->head;

	ret->had = h->tags;
	ret->has = v->mode == NET_VLAN_TRUNK && v->id != f->vlan;
	/* Without its tag, one inside would be taken for it further on. */
	if (!ret->has)
		return h->tags <= 1;
	store_be16(ret->tag, ETHERTYPE_VLAN);
	store_be16(ret->tag + 2, (h->tags ? h->tci & PRIORITY_MASK : 0) | f->vlan);
	return true;
}

static void mark_dirty(struct net_switch_port *q)
{
	if (!q->dirty) {
		q->dirty = true;
		q->owner->dirty[q->owner->dirty_count++] = q;
	}
}

static int put(struct net_switch_port *q, const struct net_piece *piece, const struct tagging *t,
	       const struct net_offload *offload)
{
	struct net_offload moved = *offload;
	struct iovec iov[4];
	size_t size = piece->head_size + piece->rest_size, skip = ETHER_MACS;
	unsigned n = 0;
	int r;

	if (!t->had && !t->has) {
		iov[n++] = (struct iovec){ (void *)piece->head, piece->head_size };
	} else {
		int by = (t->has ? (int)VLAN_TAG : 0) - (t->had ? (int)VLAN_TAG : 0);

		iov[n++] = (struct iovec){ (void *)piece->head, ETHER_MACS };
		if (t->has)
			iov[n++] = (struct iovec){ (void *)t->tag, VLAN_TAG };
		skip += t->had ? VLAN_TAG : 0;
		iov[n++] = (struct iovec){ (void *)(piece->head + skip), piece->head_size - skip };
		size = (size_t)((ssize_t)size + by);
		if (moved.flags & NET_CHECKSUM_NEEDED)
			moved.checksum_start = (uint16_t)(moved.checksum_start + by);
		if (moved.header_size)
			moved.header_size = (uint16_t)(moved.header_size + by);
	}
	if (piece->rest_size)
		iov[n++] = (struct iovec){ (void *)piece->rest, piece->rest_size };
	mark_dirty(q);
	r = q->port ? net_port_send(q->port, &moved, iov, n, size)
		    : q->uplink->ops->send(q->uplink, &moved, iov, n, size);
	if (r < 0)
		return r;
	q->counters.frames_out++;
	q->counters.bytes_out += size;
	return 0;
}

struct finishing {
	struct net_switch_port *to;
	const struct tagging *tagging;
};

static int put_finished(void *context, const struct net_piece *piece)
{
	static const struct net_offload nothing = { 0 };
	const struct finishing *f = context;

	return put(f->to, piece, f->tagging, &nothing);
}

/* -EAGAIN; other errors are frames that the port can never take. */
static int put_frame(struct net_switch_port *q, struct frame *f, unsigned *segment,
		     const struct tagging *t)
{
	const struct net_headers *h = &f->head;
	struct finishing finishing = { q, t };
	struct net_piece whole;
	unsigned needs;

	if (!q->port && !q->uplink)
		return -ENOTCONN;
	if (f->offload.flags & NET_CHECKSUM_NEEDED) {
		needs = finish_needs(&f->offload);
		if (needs & ~(q->port ? net_port_takes(q->port) : q->uplink->takes))
			return finish_frame(h, &f->offload, segment, put_finished, &finishing);
	}
	whole = (struct net_piece){
		.head = h->bytes,
		.rest = h->data + h->have,
		.head_size = h->have,
		.rest_size = h->size - h->have,
	};
	return put(q, &whole, t, &f->offload);
}

/* To one of many, or a copy for a mirror: never waits. */
static void put_copy(struct net_switch_port *q, struct frame *f, const struct tagging *t)
{
	unsigned segment = 0;

	if (put_frame(q, f, &segment, t) < 0)
		port_drop(q, NET_DROP_FULL);
	else
		q->counters.multicast_out += f->multicast;
}

static void mirror(struct net_switch *s, struct net_switch_port *p, struct frame *f)
{
	struct tagging as_it_is = { .had = f->head.tags, .has = f->head.tags };

	store_be16(as_it_is.tag, f->head.tpid);
	store_be16(as_it_is.tag + 2, f->head.tci);
	for (unsigned i = 0; i < s->port_end; i++) {
		struct net_switch_port *q = s->ports[i];

		if (q && q != p && q->settings.mirror == NET_MIRROR_DESTINATION)
			put_copy(q, f, &as_it_is);
	}
}

/* Neighbour discovery, ARP and DHCP tell addresses. */
static bool tells(const struct net_headers *h, bool from)
{
	if (h->type == ETHERTYPE_ARP)
		return from;
	if (!h->l4)
		return false;
	if (h->protocol == IP_ICMP6)
		/* Towards it: that another has the address that it is testing (RFC 4862 5.4). */
		return h->version == 6 && h->icmp_type <= ICMP6_ADVERTISE &&
		       h->icmp_type >= (from ? ICMP6_SOLICIT_ROUTER : ICMP6_SOLICIT);
	if (h->protocol != IP_UDP)
		return false;
	if (h->version == 4)
		return from ? h->destination_port == DHCP4_SERVER
			    : h->destination_port == DHCP4_CLIENT;
	return from ? h->destination_port == DHCP6_SERVER : h->destination_port == DHCP6_CLIENT;
}

static __attribute__((noinline)) void watch_tell(struct net_switch_port *p, struct frame *f,
						 bool from)
{
	const struct net_switch_watcher *w = &p->owner->options.watcher;
	uint8_t bytes[NET_WATCH_MAX];
	size_t n, skip = ETHER_MACS + f->head.tags * VLAN_TAG;

	n = net_headers_more(&f->head, NET_WATCH_MAX);
	memcpy(bytes, f->head.bytes, ETHER_MACS);
	memcpy(bytes + ETHER_MACS, f->head.bytes + skip, n - skip);
	w->frame(w->context, p, from, f->vlan, bytes, n - skip + ETHER_MACS);
}

/* The copy is made elsewhere: its buffer is too large for the way of every frame. */
static inline void watch(struct net_switch_port *p, struct frame *f, bool from)
{
	if (p->owner->options.watcher.frame && f->head.tags <= 1 && tells(&f->head, from))
		watch_tell(p, f, from);
}

/* It may go to that port: rules, and who looks on. */
static bool admit(struct net_switch_port *q, struct frame *f)
{
	int why = q->rules ? judge_rules(q, &f->head, NET_INBOUND) : -1;

	if (why >= 0) {
		port_drop(q, (enum net_drop)why);
		return false;
	}
	watch(q, f, false);
	return true;
}

static bool dropped(struct net_switch_port *p, enum net_drop why)
{
	const struct net_switch_watcher *w = &p->owner->options.watcher;

	port_drop(p, why);
	if (w->dropped &&
	    (why == NET_DROP_SPOOF || why == NET_DROP_DHCP_GUARD || why == NET_DROP_ROUTER_GUARD))
		w->dropped(w->context, p, why);
	return false;
}

bool forward_judge(struct net_switch_port *p, const struct net_frame *in)
{
	struct net_switch *s = p->owner;
	struct frame *f = &p->frame;
	int why;

	p->counters.frames_in++;
	p->counters.bytes_in += in->size;
	net_headers_read(&f->head, in->data, in->size);
	f->offload = in->offload;
	f->segment = 0;
	p->counters.multicast_in += f->head.bytes[0] & 1;
	why = judge(p, f);
	if (why >= 0)
		return dropped(p, (enum net_drop)why);
	learn(p, f);
	watch(p, f, true);
	if (s->mirrors && p->settings.mirror == NET_MIRROR_SOURCE)
		mirror(s, p, f);
	if (!look_up(p, f))
		return dropped(p, NET_DROP_NOWHERE);
	if (!f->to)
		return true;
	if (!admit(f->to, f))
		return false;
	if (s->mirrors && f->to->settings.mirror == NET_MIRROR_SOURCE &&
	    p->settings.mirror != NET_MIRROR_SOURCE)
		mirror(s, p, f);
	return true;
}

static void flood(struct net_switch_port *p, struct frame *f)
{
	struct net_switch *s = p->owner;
	bool mirrored = p->settings.mirror == NET_MIRROR_SOURCE, anybody = false;
	struct tagging t;

	for (unsigned i = 0; i < s->port_end; i++) {
		struct net_switch_port *q = s->ports[i];

		if (!q || q == p || !vlan_in(q->carries, f->vlan) || (!q->port && !q->uplink))
			continue;
		/* An unknown address is not that of a port which has only its own. */
		if (!f->multicast && !q->settings.spoofing)
			continue;
		anybody = true;
		if (!tagging_for(q, f, &t) || !admit(q, f))
			continue;
		if (s->mirrors && q->settings.mirror == NET_MIRROR_SOURCE && !mirrored) {
			mirror(s, p, f);
			mirrored = true;
		}
		put_copy(q, f, &t);
	}
	if (!anybody)
		port_drop(p, NET_DROP_NOWHERE);
}

uint64_t forward_size(const struct frame *f)
{
	uint64_t size = f->head.size;

	if (f->offload.segmentation == NET_SEGMENT_NONE)
		return size;
	return size + (uint64_t)(finish_segments(&f->head, &f->offload) - 1) * f->head.l4_end;
}

int forward_deliver(struct net_switch_port *p)
{
	struct frame *f = &p->frame;
	struct tagging t;
	int r;

	if (!f->to) {
		flood(p, f);
		return 0;
	}
	if (!tagging_for(f->to, f, &t)) {
		port_drop(p, NET_DROP_VLAN);
		return 0;
	}
	r = put_frame(f->to, f, &f->segment, &t);
	if (r == -EAGAIN && !p->settings.drops && p->owner->now >= f->to->slow_until)
		return -EAGAIN;
	if (r < 0)
		port_drop(f->to, NET_DROP_FULL);
	return 0;
}
