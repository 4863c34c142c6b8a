// SPDX-License-Identifier: MIT
/*
 * The ports of a switch, and whose turn it is. See switch.h and, for one frame, forward.c.
 *
 * Ports that may have frames take turns, each as many bytes as its share says. A port whose frame
 * has no room waits at its destination, with that frame. A destination that has waiters is served
 * by deficit round robin: when it makes room each waiter in turn sends it as many bytes as its
 * share, and who comes to it meanwhile waits behind them. That gives shares of whatever a
 * destination takes without a queue of our own. A destination that makes no room for
 * PATIENCE is slow for a while: what has no room there is dropped, so that it holds up nobody.
 *
 * The maximum bandwidth is a bucket that may go below zero; its port then waits until it is half
 * full again, its frames where they are. Nothing else has a time, and a switch at rest no deadline.
 */
#include "net/switch_internal.h"

#include "lib/cleanup.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

#define SECOND         UINT64_C(1000000000)
#define PATIENCE       (SECOND / 50)
#define PATIENCE_BYTES (128 * KIB) /* that it must take meanwhile: 52 Mbit/s */
#define SLOW_FOR       SECOND
#define AGE            (300 * SECOND) /* IEEE 802.1Q 8.8.3: recommended */
#define TURN_LEAST     (16 * KIB)
#define TURN_MOST      (256 * KIB)
#define TURNS          256u /* of a run */
#define FRAME_COST     256  /* bytes that a frame counts at least: looking at it costs too */
#define RELEASE_EVERY  (64 * KIB)
#define EMPTY_TURNS    4u   /* before a port is armed */
#define SHARE_UNIT     4096 /* bytes for the least share */
#define SHARE_RATIO    INT64_C(1000000)
#define BURST_LEAST    3036u /* bytes: two frames */
#define BURST_PART     200u  /* of a second: 5 ms */
#define STORM_PART     10u   /* of a second */
#define MAC_LIMIT      128u
#define UPLINK_MACS    8192u

const struct net_settings net_settings_default = { .mac_limit = MAC_LIMIT };
const struct net_settings net_settings_uplink = {
	.spoofing = true,
	.drops = true,
	.mac_limit = UPLINK_MACS,
	.vlan = { .mode = NET_VLAN_TRUNK, .set = { [0 ... NET_VLANS / 64 - 1] = UINT64_MAX } },
};

const char *const net_drop_names[NET_DROPS] = {
	[NET_DROP_MALFORMED] = "malformed",
	[NET_DROP_OFFLOAD] = "offload",
	[NET_DROP_VLAN] = "vlan",
	[NET_DROP_SPOOF] = "spoof",
	[NET_DROP_DHCP_GUARD] = "dhcp_guard",
	[NET_DROP_ROUTER_GUARD] = "router_guard",
	[NET_DROP_RULE] = "rule",
	[NET_DROP_FLOWS] = "flows",
	[NET_DROP_STORM] = "storm",
	[NET_DROP_NOWHERE] = "nowhere",
	[NET_DROP_FULL] = "full",
};

/* --- buckets --- */

void bucket_set(struct bucket *b, uint64_t rate, uint64_t burst, uint64_t now)
{
	bool was = b->rate;

	bucket_fill(b, now);
	b->rate = rate;
	b->burst = (int64_t)burst;
	b->at = now;
	b->rest = 0;
	/* Another limit is no present. */
	b->credit = was ? MIN(b->credit, b->burst) : b->burst;
}

void bucket_fill(struct bucket *b, uint64_t now)
{
	unsigned __int128 grown;

	if (!b->rate || now <= b->at)
		return;
	grown = (unsigned __int128)(now - b->at) * b->rate + b->rest;
	b->at = now;
	b->rest = (uint64_t)(grown % SECOND);
	grown /= SECOND;
	if (grown >= (unsigned __int128)(b->burst - b->credit)) {
		b->credit = b->burst;
		b->rest = 0;
	} else {
		b->credit += (int64_t)grown;
	}
}

uint64_t bucket_when(const struct bucket *b, int64_t credit)
{
	unsigned __int128 missing;

	if (!b->rate || b->credit >= credit)
		return b->at;
	missing = (unsigned __int128)(credit - b->credit) * SECOND - b->rest;
	missing = (missing + b->rate - 1) / b->rate;
	return missing > UINT64_MAX - b->at ? UINT64_MAX : b->at + (uint64_t)missing;
}

/* --- states --- */

static void port_state(struct net_switch_port *p, enum port_state state, struct list *list)
{
	list_remove(&p->run);
	p->state = state;
	if (list)
		list_append(list, &p->run);
}

static void port_activate(struct net_switch_port *p)
{
	p->empty = 0;
	port_state(p, PORT_ACTIVE, &p->owner->active);
}

/* Those who wait for it go on: their frames are delivered or dropped as it is now. */
static void waiters_let_go(struct net_switch_port *q)
{
	while (!list_empty(&q->waiters))
		port_activate(list_first(&q->waiters, struct net_switch_port, run));
	list_remove(&q->full);
}

static void flush_all(struct net_switch *s)
{
	for (unsigned i = 0; i < s->dirty_count; i++) {
		struct net_switch_port *q = s->dirty[i];

		q->dirty = false;
		if (q->port)
			net_port_flush(q->port);
		else if (q->uplink)
			q->uplink->ops->flush(q->uplink);
	}
	s->dirty_count = 0;
}

static bool link_want_room(struct net_switch_port *q)
{
	if (q->port)
		return net_port_want_room(q->port);
	return q->uplink ? q->uplink->ops->want_room(q->uplink) : true;
}

static void link_release(struct net_switch_port *p)
{
	if (p->port)
		net_port_release(p->port);
	else if (p->uplink)
		p->uplink->ops->release(p->uplink);
}

static int link_receive(struct net_switch_port *p, struct net_frame *ret)
{
	return p->port ? net_port_receive(p->port, ret) : p->uplink->ops->receive(p->uplink, ret);
}

static void link_drop(struct net_switch_port *p)
{
	net_port_free(p->port);
	p->port = NULL;
	if (p->uplink)
		p->uplink->ops->free(p->uplink);
	p->uplink = NULL;
	p->pending = false;
	/* Nobody learns of it, so that what it had may be seen elsewhere at once. */
	table_forget_port(&p->owner->table, p->index);
	port_state(p, PORT_EMPTY, NULL);
	waiters_let_go(p);
}

static void port_ended(struct net_switch_port *p, int why)
{
	const struct net_switch_watcher *w = &p->owner->options.watcher;

	port_state(p, PORT_EMPTY, NULL);
	waiters_let_go(p);
	if (w->ended)
		w->ended(w->context, p, why);
}

/* --- waiting --- */

static int64_t share_bytes(const struct net_switch_port *p)
{
	int64_t bytes = (int64_t)p->share * SHARE_UNIT / MAX(p->owner->share_least, 1u);

	return MIN(bytes, SHARE_RATIO * SHARE_UNIT);
}

static void port_wait(struct net_switch_port *p, struct net_switch_port *q, bool first)
{
	struct net_switch *s = p->owner;

	port_state(p, PORT_WAITING, NULL);
	list_append(first ? q->waiters.next : &q->waiters, &p->run);
	if (list_empty(&q->full)) {
		q->patience = s->now + PATIENCE;
		q->patience_bytes = q->counters.bytes_out;
		list_append(&s->full, &q->full);
	}
}

enum turn {
	TURN_MORE,
	TURN_EMPTY,
	TURN_AWAY, /* it waits, is shaped, or has ended */
};

/* The port's frame goes out. False: it waits now. */
static bool turn_deliver(struct net_switch_port *p)
{
	struct net_switch_port *q = p->frame.to;
	bool line = q && !list_empty(&q->waiters);
	uint64_t size;

	/* Others stand in line; who is served steps behind them when its share is used up. */
	if (line && !p->settings.drops && (!p->served || p->deficit <= 0)) {
		p->pending = true;
		port_wait(p, q, false);
		return false;
	}
	size = forward_size(&p->frame);
	if (forward_deliver(p) == -EAGAIN) {
		p->pending = true;
		p->blocked = true;
		port_wait(p, q, p->served);
		return false;
	}
	p->pending = false;
	if (p->served)
		p->deficit -= (int64_t)size;
	return true;
}

/* Whether it may send now; else it is shaped. */
static bool turn_allowed(struct net_switch_port *p)
{
	struct bucket *b = &p->bandwidth;

	if (!b->rate)
		return true;
	bucket_fill(b, p->owner->now);
	if (b->credit > 0)
		return true;
	p->deadline = bucket_when(b, b->burst / 2);
	port_state(p, PORT_SHAPED, &p->owner->shaped);
	return false;
}

static enum turn turn_frames(struct net_switch_port *p, int64_t budget)
{
	struct net_frame in;
	size_t held = 0;
	int r;

	for (;;) {
		if (p->pending && !turn_deliver(p))
			return TURN_AWAY;
		if (budget <= 0)
			return TURN_MORE;
		if (!turn_allowed(p))
			return TURN_AWAY;
		if (held >= RELEASE_EVERY) {
			link_release(p);
			held = 0;
		}
		r = link_receive(p, &in);
		if (!r)
			return TURN_EMPTY;
		if (r < 0) {
			port_ended(p, r);
			return TURN_AWAY;
		}
		p->empty = 0;
		held += in.size;
		budget -= (int64_t)MAX(in.size, (size_t)FRAME_COST);
		p->pending = forward_judge(p, &in);
		/* What is dropped has been sent all the same. */
		if (p->bandwidth.rate)
			p->bandwidth.credit -=
				(int64_t)(p->pending ? forward_size(&p->frame) : in.size);
	}
}

static enum turn turn(struct net_switch_port *p, int64_t budget)
{
	enum turn t = turn_frames(p, budget);

	/* A frame that waits lies there still. */
	if (!p->pending)
		link_release(p);
	return t;
}

/* One who waits for `q` sends. False: `q` has no room. */
static bool serve_one(struct net_switch_port *q, struct net_switch_port *p)
{
	bool alone;

	port_state(p, PORT_WAITING, NULL);
	alone = list_empty(&q->waiters);
	if (alone)
		p->deficit = 0;
	if (!p->blocked)
		p->deficit += share_bytes(p);
	p->blocked = false;
	p->served = true;
	/* Who has nothing more, or has looked at many frames, stands in line again if need be. */
	if (turn(p, MAX(p->deficit * 4, (int64_t)TURN_LEAST)) != TURN_AWAY)
		port_activate(p);
	p->served = false;
	if (p->state != PORT_WAITING || p->frame.to != q)
		p->deficit = MIN(p->deficit, 0);
	flush_all(q->owner);
	return !(p->state == PORT_WAITING && p->blocked && p->frame.to == q);
}

/* It makes room, or may have: those who wait for it send, each its share. */
static void serve(struct net_switch_port *q)
{
	unsigned turns = TURNS;

	q->ready = false;
	while (!list_empty(&q->waiters)) {
		if (!turns--) {
			q->ready = true;
			return;
		}
		if (!serve_one(q, list_first(&q->waiters, struct net_switch_port, run)) &&
		    !link_want_room(q))
			return;
	}
	list_remove(&q->full);
}

/* --- running --- */

static void shaped_resume(struct net_switch *s)
{
	list_foreach_safe(it, &s->shaped)
	{
		struct net_switch_port *p = list_entry(it, struct net_switch_port, run);

		if (p->deadline <= s->now)
			port_activate(p);
	}
}

/* Those with room serve; those without, for too long, are slow from now on. */
static void full_resume(struct net_switch *s)
{
	list_foreach_safe(it, &s->full)
	{
		struct net_switch_port *q = list_entry(it, struct net_switch_port, full);

		if (q->ready)
			serve(q);
		if (list_empty(&q->waiters)) {
			list_remove(&q->full);
		} else if (s->now >= q->patience) {
			uint64_t took = q->counters.bytes_out - q->patience_bytes;

			q->patience = s->now + PATIENCE;
			q->patience_bytes = q->counters.bytes_out;
			if (took >= PATIENCE_BYTES)
				continue;
			q->slow_until = s->now + SLOW_FOR;
			waiters_let_go(q);
		}
	}
}

static void port_sleep(struct net_switch_port *p)
{
	bool asleep = p->port ? net_port_arm(p->port) : p->uplink->ops->arm(p->uplink);

	port_state(p, asleep ? PORT_ASLEEP : PORT_ACTIVE, asleep ? NULL : &p->owner->active);
	if (!asleep) {
		p->empty = 0;
		p->ready = true;
	}
}

static void run_one(struct net_switch_port *p)
{
	struct net_switch *s = p->owner;
	int64_t budget = share_bytes(p) * 4;
	enum turn t;

	port_state(p, PORT_ACTIVE, NULL);
	p->blocked = false;
	t = turn(p, MIN(MAX(budget, (int64_t)TURN_LEAST), (int64_t)TURN_MOST));
	flush_all(s);
	switch (t) {
	case TURN_MORE:
		port_state(p, PORT_ACTIVE, &s->active);
		break;
	case TURN_EMPTY:
		if (++p->empty < EMPTY_TURNS)
			port_state(p, PORT_ACTIVE, &s->active);
		else
			port_sleep(p);
		break;
	case TURN_AWAY:
		if (p->state == PORT_WAITING && p->blocked && link_want_room(p->frame.to))
			p->frame.to->ready = true;
		break;
	}
}

static uint64_t next_deadline(const struct net_switch *s)
{
	uint64_t next = UINT64_MAX;

	list_foreach(it, &s->shaped) next =
		MIN(next, list_entry(it, struct net_switch_port, run)->deadline);
	list_foreach(it, &s->full) next =
		MIN(next, list_entry(it, struct net_switch_port, full)->patience);
	return next == UINT64_MAX ? 0 : next;
}

bool net_switch_run(struct net_switch *s, uint64_t now, uint64_t *ret_deadline)
{
	bool more;

	s->now = MAX(s->now, now);
	shaped_resume(s);
	full_resume(s);
	for (unsigned i = 0; i < TURNS && !list_empty(&s->active); i++)
		run_one(list_first(&s->active, struct net_switch_port, run));
	more = !list_empty(&s->active);
	list_foreach(it, &s->full) more |= list_entry(it, struct net_switch_port, full)->ready;
	*ret_deadline = next_deadline(s);
	return more;
}

void net_switch_wake(struct net_switch_port *p)
{
	if (p->state == PORT_ASLEEP)
		port_activate(p);
	p->ready = true;
}

/* --- settings --- */

static int vlan_check(const struct net_vlan *v, struct error *err)
{
	bool private = v->mode == NET_VLAN_ISOLATED || v->mode == NET_VLAN_COMMUNITY;

	if (v->id >= NET_VLANS - 1)
		return error_set(err, -EINVAL, "VLAN %u is none: they end at 4094", v->id);
	if ((private || v->mode == NET_VLAN_PROMISCUOUS) && !v->id)
		return error_set(err, -EINVAL, "a private VLAN needs a primary one");
	if (private && (!v->secondary || v->secondary >= NET_VLANS - 1 || v->secondary == v->id))
		return error_set(err, -EINVAL,
				 "a private VLAN needs a secondary one, 1 to 4094 and not the "
				 "primary");
	return 0;
}

static bool is_secondary(const struct net_vlan *v, uint16_t id)
{
	if (v->mode == NET_VLAN_PROMISCUOUS)
		return id != v->id && vlan_in(v->set, id);
	return (v->mode == NET_VLAN_ISOLATED || v->mode == NET_VLAN_COMMUNITY) &&
	       v->secondary == id;
}

/* A secondary VLAN has one primary, and is isolated or a community on all ports. */
static int private_check(const struct net_vlan *a, const struct net_switch_port *q,
			 struct error *err)
{
	const struct net_vlan *b = &q->settings.vlan;

	if (a->mode < NET_VLAN_ISOLATED || b->mode < NET_VLAN_ISOLATED)
		return 0;
	for (uint16_t id = 1; id < NET_VLANS - 1; id++) {
		if (!is_secondary(a, id) || !is_secondary(b, id))
			continue;
		if (a->id != b->id)
			return error_set(err, -EINVAL,
					 "VLAN %u is a secondary one of %u on port \"%s\"", id,
					 b->id, q->id);
		if (a->mode != b->mode && a->mode != NET_VLAN_PROMISCUOUS &&
		    b->mode != NET_VLAN_PROMISCUOUS)
			return error_set(err, -EINVAL,
					 "VLAN %u is isolated here or on port \"%s\", and a "
					 "community there or here",
					 id, q->id);
	}
	return 0;
}

static void carries_of(const struct net_vlan *v, uint64_t ret[NET_VLANS / 64])
{
	memset(ret, 0, NET_VLANS / 8);
	if (v->mode == NET_VLAN_TRUNK || v->mode == NET_VLAN_PROMISCUOUS)
		memcpy(ret, v->set, NET_VLANS / 8);
	ret[0] &= ~UINT64_C(1);
	ret[NET_VLANS / 64 - 1] &= UINT64_MAX >> 1;
	ret[v->id / 64] |= BIT64(v->id % 64);
	if (v->mode == NET_VLAN_COMMUNITY)
		ret[v->secondary / 64] |= BIT64(v->secondary % 64);
}

static bool mac_is_none(const net_mac *m)
{
	return !memcmp(m, &(net_mac){ 0 }, sizeof(*m));
}

static int mac_check(const struct net_switch *s, const struct net_switch_port *self,
		     const struct net_settings *n, struct error *err)
{
	uint64_t carries[NET_VLANS / 64];

	if (n->mac.bytes[0] & 1)
		return error_set(err, -EINVAL, "the MAC address is that of a group");
	if (mac_is_none(&n->mac))
		return n->spoofing ? 0
				   : error_set(err, -EINVAL,
					       "without a MAC address it can send nothing");
	carries_of(&n->vlan, carries);
	for (unsigned i = 0; i < s->port_end; i++) {
		const struct net_switch_port *q = s->ports[i];

		if (!q || q == self || memcmp(&q->settings.mac, &n->mac, sizeof(n->mac)) != 0)
			continue;
		for (unsigned j = 0; j < NET_VLANS / 64; j++)
			if (carries[j] & q->carries[j])
				return error_set(err, -EEXIST,
						 "port \"%s\" has that MAC address already", q->id);
	}
	return 0;
}

static int settings_check(const struct net_switch *s, const struct net_switch_port *self,
			  const struct net_settings *n, struct error *err)
{
	int r = vlan_check(&n->vlan, err);

	if (r < 0)
		return r;
	for (unsigned i = 0; i < s->port_end; i++) {
		const struct net_switch_port *q = s->ports[i];

		r = q && q != self ? private_check(&n->vlan, q, err) : 0;
		if (r < 0)
			return r;
	}
	if (n->minimum_weight > 100)
		return error_set(err, -EINVAL, "a weight is at most 100");
	return mac_check(s, self, n, err);
}

struct net_switch_port **mac_bucket(struct net_switch *s, const uint8_t mac[6])
{
	uint64_t h = (table_key(0, mac) ^ s->seed) * UINT64_C(0x9e3779b97f4a7c15);

	return &s->macs[(h >> 48) % MAC_BUCKETS];
}

static void mac_remove(struct net_switch_port *p)
{
	struct net_switch_port **at = mac_bucket(p->owner, p->settings.mac.bytes);

	while (*at && *at != p)
		at = &(*at)->mac_next;
	if (*at)
		*at = p->mac_next;
	p->mac_next = NULL;
}

static void mac_insert(struct net_switch_port *p)
{
	struct net_switch_port **at = mac_bucket(p->owner, p->settings.mac.bytes);

	if (mac_is_none(&p->settings.mac))
		return;
	p->mac_next = *at;
	*at = p;
}

/* What the switch knows of all ports together. */
static void switch_sum(struct net_switch *s)
{
	s->mirrors = 0;
	s->share_least = UINT32_MAX;
	for (unsigned v = 0; v < NET_VLANS; v++)
		s->primary[v] = (uint16_t)v;
	for (unsigned i = 0; i < s->port_end; i++) {
		const struct net_switch_port *q = s->ports[i];

		if (!q)
			continue;
		s->mirrors += q->settings.mirror == NET_MIRROR_DESTINATION;
		s->share_least = MIN(s->share_least, q->share);
		for (uint16_t v = 1; q->settings.vlan.mode >= NET_VLAN_ISOLATED && v < NET_VLANS;
		     v++)
			if (is_secondary(&q->settings.vlan, v))
				s->primary[v] = q->settings.vlan.id;
	}
}

static uint32_t share_of(const struct net_switch *s, const struct net_settings *n)
{
	if (s->options.sharing == NET_SHARE_WEIGHT)
		return MAX(n->minimum_weight, 1u);
	return (uint32_t)MIN(n->minimum_bandwidth / 1000000 + 1, (uint64_t)UINT32_MAX);
}

static void settings_apply(struct net_switch_port *p, const struct net_settings *n)
{
	struct net_switch *s = p->owner;
	uint64_t rate = n->maximum_bandwidth / 8, storm = n->storm_limit;

	mac_remove(p);
	if (p->settings.mac_limit > n->mac_limit || p->settings.spoofing != n->spoofing ||
	    memcmp(&p->settings.vlan, &n->vlan, sizeof(n->vlan)) != 0)
		table_forget_port(&s->table, p->index);
	p->settings = *n;
	p->settings.rules = p->rule_list;
	mac_insert(p);
	carries_of(&n->vlan, p->carries);
	p->share = share_of(s, n);
	bucket_set(&p->bandwidth, n->maximum_bandwidth && !rate ? 1 : rate,
		   MAX(rate / BURST_PART, (uint64_t)BURST_LEAST), s->now);
	bucket_set(&p->storm, storm, MAX(storm / STORM_PART, (uint64_t)1), s->now);
	if (p->state == PORT_SHAPED)
		port_activate(p);
	switch_sum(s);
}

int net_switch_set(struct net_switch_port *p, const struct net_settings *settings,
		   struct error *err)
{
	struct net_settings n = *settings;
	struct net_rule *list = NULL;
	struct rules *rules;
	int r = settings_check(p->owner, p, &n, err);

	if (r >= 0)
		r = rules_new(n.rules, n.rule_count, p->rules, &rules, err);
	if (r < 0)
		return error_prefix(err, "port \"%s\"", p->id);
	if (n.rule_count) {
		list = calloc(n.rule_count, sizeof(*list));
		if (!list) {
			rules_free(rules);
			return error_set(err, -ENOMEM, "port \"%s\": out of memory", p->id);
		}
		memcpy(list, n.rules, n.rule_count * sizeof(*list));
	}
	rules_move_flows(rules, p->rules);
	rules_free(p->rules);
	free(p->rule_list);
	p->rules = rules;
	p->rule_list = list;
	settings_apply(p, &n);
	return 0;
}

/* --- ports --- */

static void port_free(struct net_switch_port *p)
{
	rules_free(p->rules);
	free(p->rule_list);
	free(p);
}

DEFINE_CLEANUP(struct net_switch_port *, port_free)

static int place_find(const struct net_switch *s, const char *id, struct error *err)
{
	if (!*id || strlen(id) >= NET_ID_MAX)
		return error_set(err, -EINVAL, "a port's id has 1 to %u bytes", NET_ID_MAX - 1);
	if (net_switch_find(s, id))
		return error_set(err, -EEXIST, "there is a port \"%s\" already", id);
	for (unsigned i = 0; i < NET_SWITCH_PORTS; i++)
		if (!s->ports[i])
			return (int)i;
	return error_set(err, -ENOSPC, "a switch has at most %u ports", NET_SWITCH_PORTS);
}

int net_switch_add(struct net_switch *s, const char *id, const struct net_settings *settings,
		   struct net_switch_port **ret, struct error *err)
{
	_cleanup_(port_free_p) struct net_switch_port *p = NULL;
	int index = place_find(s, id, err), r;

	if (index < 0)
		return index;
	p = calloc(1, sizeof(*p));
	if (!p)
		return error_set(err, -ENOMEM, "no memory for a port");
	p->owner = s;
	p->index = (uint16_t)index;
	snprintf(p->id, sizeof(p->id), "%s", id);
	list_init(&p->run);
	list_init(&p->waiters);
	list_init(&p->full);
	s->ports[index] = p;
	s->port_end = MAX(s->port_end, (unsigned)index + 1);
	r = net_switch_set(p, settings, err);
	if (r < 0) {
		s->ports[index] = NULL;
		return r;
	}
	*ret = steal_ptr(p);
	return 0;
}

void net_switch_unplug(struct net_switch_port *p)
{
	flush_all(p->owner);
	link_drop(p);
}

void net_switch_plug(struct net_switch_port *p, struct net_port *port)
{
	net_switch_unplug(p);
	p->port = port;
	port_activate(p);
}

void net_switch_plug_uplink(struct net_switch_port *p, struct net_uplink *uplink)
{
	net_switch_unplug(p);
	p->uplink = uplink;
	uplink->port = p;
	port_activate(p);
}

void net_switch_remove(struct net_switch_port *p)
{
	struct net_switch *s = p->owner;

	net_switch_unplug(p);
	for (unsigned i = 0; i < s->port_end; i++) {
		struct net_switch_port *q = s->ports[i];

		if (q && q->pending && q->frame.to == p) {
			q->pending = false;
			port_drop(q, NET_DROP_NOWHERE);
		}
	}
	mac_remove(p);
	s->ports[p->index] = NULL;
	switch_sum(s);
	port_free(p);
}

struct net_switch_port *net_switch_find(const struct net_switch *s, const char *id)
{
	for (unsigned i = 0; i < s->port_end; i++)
		if (s->ports[i] && !strcmp(s->ports[i]->id, id))
			return s->ports[i];
	return NULL;
}

struct net_switch_port *net_switch_next(const struct net_switch *s, const struct net_switch_port *p)
{
	for (unsigned i = p ? p->index + 1u : 0; i < s->port_end; i++)
		if (s->ports[i])
			return s->ports[i];
	return NULL;
}

const char *net_switch_port_id(const struct net_switch_port *p)
{
	return p->id;
}

const struct net_settings *net_switch_port_settings(const struct net_switch_port *p)
{
	return &p->settings;
}

struct net_uplink *net_switch_port_uplink(const struct net_switch_port *p)
{
	return p->uplink;
}

struct net_port *net_switch_port_link(const struct net_switch_port *p)
{
	return p->port;
}

const struct net_switch_counters *net_switch_port_counters(const struct net_switch_port *p)
{
	return &p->counters;
}

struct net_rule_counters net_switch_rule_counters(const struct net_switch_port *p, unsigned i)
{
	return rules_counters(p->rules, i);
}

unsigned net_switch_port_flows(const struct net_switch_port *p)
{
	return rules_flows(p->rules, p->owner->now);
}

void net_switch_port_set_context(struct net_switch_port *p, void *context)
{
	p->context = context;
}

void *net_switch_port_context(const struct net_switch_port *p)
{
	return p->context;
}

bool net_switch_mac_next(const struct net_switch *s, unsigned *at, struct net_mac_entry *ret)
{
	const struct table_entry *e = table_next(&s->table, at, s->now);

	if (!e)
		return false;
	ret->port = s->ports[e->port];
	ret->vlan = (uint16_t)(e->key >> 48);
	ret->seen = e->seen;
	for (unsigned i = 0; i < 6; i++)
		ret->mac.bytes[i] = (uint8_t)(e->key >> (40 - 8 * i));
	return true;
}

/* --- the switch --- */

int net_switch_new(const struct net_switch_options *options, struct net_switch **ret,
		   struct error *err)
{
	_cleanup_free_ struct net_switch *s = calloc(1, sizeof(*s));
	uint64_t seeds[2];

	if (!s)
		return error_set(err, -ENOMEM, "no memory for a switch");
	if (getrandom(seeds, sizeof(seeds), 0) != sizeof(seeds))
		return error_errno(err, -errno, "no random numbers for a switch");
	s->options = *options;
	s->seed = seeds[0];
	list_init(&s->active);
	list_init(&s->shaped);
	list_init(&s->full);
	table_init(&s->table, options->mac_age ? options->mac_age : AGE, seeds[1]);
	switch_sum(s);
	*ret = steal_ptr(s);
	return 0;
}

void net_switch_free(struct net_switch *s)
{
	if (!s)
		return;
	for (unsigned i = 0; i < s->port_end; i++)
		if (s->ports[i])
			net_switch_remove(s->ports[i]);
	free(s);
}
