// SPDX-License-Identifier: MIT
/*
 * See rules.h. A later fragment has no ports: what is allowed by ports lets it through by its
 * addresses (the first one was judged whole, and without it nobody can assemble the datagram); what
 * is denied by ports leaves it to the next rule. Headers that could not be followed have no ports
 * either, and match rules that deny. Frames that are not IP match only what names no address and no
 * protocol.
 */
#include "net/rules.h"

#include "lib/cleanup.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

#define FLOW_SETS   512u
#define FLOW_WAYS   8u
#define SECOND      UINT64_C(1000000000)
#define ENDED_AFTER (10 * SECOND) /* a connection that was closed or reset */
#define TIMEOUT_MAX 86400u

struct flow_key {
	uint8_t local[16], remote[16];
	uint16_t local_port, remote_port;
	uint8_t version, protocol;
	uint16_t zero;
};
_Static_assert(sizeof(struct flow_key) == 40, "no holes: it is compared as bytes");

struct flow {
	struct flow_key key; /* version 0 = free */
	bool answered, ended;
	uint32_t timeout;
	uint64_t seen;
};

struct flows {
	uint64_t seed;
	struct flow flows[FLOW_SETS * FLOW_WAYS];
};

struct rules {
	unsigned count;
	struct net_rule *rules; /* as given */
	uint16_t *order;        /* outbound ones, then inbound ones */
	unsigned first[3];      /* of each direction in `order`, and the end */
	struct net_rule_counters *counters;
	struct flows *flows; /* NULL: no stateful ones */
};

/* --- flows --- */

static void key_make(struct flow_key *k, const struct net_headers *h, enum net_direction direction)
{
	const uint8_t *ip = h->bytes + h->l3;
	size_t size = h->version == 4 ? 4 : 16, at = h->version == 4 ? 12 : 8;
	bool out = direction == NET_OUTBOUND;

	memset(k, 0, sizeof(*k));
	k->version = h->version;
	k->protocol = h->protocol;
	memcpy(k->local, ip + at + (out ? 0 : size), size);
	memcpy(k->remote, ip + at + (out ? size : 0), size);
	k->local_port = out ? h->source_port : h->destination_port;
	k->remote_port = out ? h->destination_port : h->source_port;
}

static struct flow *flow_set(struct flows *f, const struct flow_key *k)
{
	uint64_t words[5], x = f->seed;

	memcpy(words, k, sizeof(words));
	for (unsigned i = 0; i < 5; i++) {
		x = (x ^ words[i]) * UINT64_C(0x9e3779b97f4a7c15);
		x ^= x >> 32;
	}
	return &f->flows[x % FLOW_SETS * FLOW_WAYS];
}

static bool flow_alive(const struct flow *f, uint64_t now)
{
	uint64_t timeout = f->ended ? ENDED_AFTER : f->timeout * SECOND;

	return f->key.version && (now <= f->seen || now - f->seen <= timeout);
}

static struct flow *flow_find(struct flow *set, const struct flow_key *k, uint64_t now)
{
	for (unsigned i = 0; i < FLOW_WAYS; i++)
		if (flow_alive(&set[i], now) && !memcmp(&set[i].key, k, sizeof(*k)))
			return &set[i];
	return NULL;
}

static void flow_touch(struct flow *f, const struct net_headers *h, uint64_t now)
{
	f->seen = now;
	if (h->protocol == IP_TCP && h->tcp_flags & (TCP_FIN | TCP_RST))
		f->ended = true;
}

/* A dead one's place, or that of the oldest which nobody has answered. */
static struct flow *flow_place(struct flow *set, uint64_t now)
{
	struct flow *oldest = NULL;

	for (unsigned i = 0; i < FLOW_WAYS; i++) {
		if (!flow_alive(&set[i], now))
			return &set[i];
		if (!set[i].answered && (!oldest || set[i].seen < oldest->seen))
			oldest = &set[i];
	}
	return oldest;
}

/* Whether it belongs to a flow, which then has been answered. */
static bool flow_known(struct rules *r, const struct net_headers *h, enum net_direction direction,
		       uint64_t now)
{
	struct flow_key k;
	struct flow *f;

	if (!r->flows || !h->version || !h->l4 || h->later)
		return false;
	key_make(&k, h, direction);
	f = flow_find(flow_set(r->flows, &k), &k, now);
	if (!f)
		return false;
	/* A new connection with the numbers of one that ended is judged by the rules. */
	if (f->ended && h->protocol == IP_TCP && (h->tcp_flags & 0x12) == 0x02)
		return false;
	f->answered = true;
	flow_touch(f, h, now);
	return true;
}

static bool flow_add(struct rules *r, const struct net_rule *rule, const struct net_headers *h,
		     uint64_t now)
{
	struct flow_key k;
	struct flow *set, *f;

	/* Of what has no ports there is nothing to remember. */
	if (!h->version || !h->l4 || h->later)
		return true;
	key_make(&k, h, rule->direction);
	set = flow_set(r->flows, &k);
	f = flow_find(set, &k, now);
	if (!f)
		f = flow_place(set, now);
	if (!f)
		return false;
	if (memcmp(&f->key, &k, sizeof(k)) || f->ended)
		*f = (struct flow){ .key = k };
	f->timeout = rule->timeout;
	flow_touch(f, h, now);
	return true;
}

unsigned rules_flows(const struct rules *r, uint64_t now)
{
	unsigned n = 0;

	for (unsigned i = 0; r && r->flows && i < ARRAY_SIZE(r->flows->flows); i++)
		n += flow_alive(&r->flows->flows[i], now);
	return n;
}

void rules_move_flows(struct rules *to, struct rules *from)
{
	if (!to || !from || !to->flows || !from->flows || to->count != from->count ||
	    memcmp(to->rules, from->rules, to->count * sizeof(*to->rules)) != 0)
		return;
	free(to->flows);
	to->flows = steal_ptr(from->flows);
}

/* --- matching --- */

static bool prefix_matches(const uint8_t *address, const struct net_match *m)
{
	unsigned bytes = m->prefix / 8, bits = m->prefix % 8;

	if (memcmp(address, m->address, bytes))
		return false;
	return !bits || !((address[bytes] ^ m->address[bytes]) >> (8 - bits));
}

static bool has_ports(const struct net_match *m)
{
	return m->port_first || m->port_last != 65535;
}

/* `which`: 0 the frame's source, 1 its destination. */
static bool end_matches(const struct net_match *m, const struct net_headers *h, unsigned which)
{
	size_t size = h->version == 4 ? 4 : 16, at = h->version == 4 ? 12 : 8;

	if (m->has_mac && memcmp(h->bytes + (which ? 0 : 6), m->mac.bytes, 6))
		return false;
	if (!m->version)
		return true;
	return m->version == h->version && prefix_matches(h->bytes + h->l3 + at + which * size, m);
}

static bool ports_match(const struct net_rule *r, const struct net_headers *h, bool out)
{
	const struct net_match *source = out ? &r->local : &r->remote;
	const struct net_match *destination = out ? &r->remote : &r->local;

	if (!has_ports(source) && !has_ports(destination))
		return true;
	if (h->undecided)
		return r->action == NET_DENY;
	if (h->later)
		return r->action == NET_ALLOW;
	if (!h->l4 || (h->protocol != IP_TCP && h->protocol != IP_UDP))
		return false;
	return h->source_port >= source->port_first && h->source_port <= source->port_last &&
	       h->destination_port >= destination->port_first &&
	       h->destination_port <= destination->port_last;
}

static bool rule_matches(const struct net_rule *r, const struct net_headers *h)
{
	bool out = r->direction == NET_OUTBOUND;

	if (!end_matches(&r->local, h, !out) || !end_matches(&r->remote, h, out))
		return false;
	if (r->protocol >= 0) {
		if (h->undecided && (h->version || h->type == ETHERTYPE_IP4 ||
				     h->type == ETHERTYPE_IP6 || !h->type))
			return r->action == NET_DENY;
		if (!h->version || h->protocol != r->protocol)
			return false;
	}
	return ports_match(r, h, out);
}

enum rules_verdict rules_judge(struct rules *r, const struct net_headers *h,
			       enum net_direction direction, uint64_t now)
{
	bool known;

	if (!r)
		return RULES_ALLOW;
	known = flow_known(r, h, direction, now);
	for (unsigned i = r->first[direction]; i < r->first[direction + 1]; i++) {
		unsigned n = r->order[i];
		const struct net_rule *rule = &r->rules[n];

		/* What is known is let through, and only counted. */
		if ((known && rule->action != NET_METER) || !rule_matches(rule, h))
			continue;
		r->counters[n].frames++;
		r->counters[n].bytes += h->size;
		if (rule->action == NET_METER)
			continue;
		if (rule->action == NET_DENY)
			return RULES_DENY;
		return !rule->stateful || flow_add(r, rule, h, now) ? RULES_ALLOW : RULES_NO_ROOM;
	}
	return RULES_ALLOW;
}

/* --- making them --- */

static int match_check(const struct net_match *m, struct error *err)
{
	if (m->version && m->version != 4 && m->version != 6)
		return error_set(err, -EINVAL, "IP version %u", m->version);
	if (m->prefix > (m->version == 4 ? 32 : m->version == 6 ? 128 : 0))
		return error_set(err, -EINVAL, "a prefix of %u bits is too long", m->prefix);
	if (m->port_first > m->port_last)
		return error_set(err, -EINVAL, "ports %u to %u are none", m->port_first,
				 m->port_last);
	return 0;
}

static int rule_check(const struct net_rule *r, struct error *err)
{
	if (r->local.version && r->remote.version && r->local.version != r->remote.version)
		return error_set(err, -EINVAL, "its addresses are of IPv4 and IPv6");
	if (r->stateful && (r->action != NET_ALLOW || !r->timeout || r->timeout > TIMEOUT_MAX))
		return error_set(err, -EINVAL,
				 "only what allows is stateful, with a timeout of 1 to %u s",
				 TIMEOUT_MAX);
	if (match_check(&r->local, err) < 0 || match_check(&r->remote, err) < 0)
		return -EINVAL;
	return 0;
}

/* How narrow it is: bits of addresses, then whatever else it names. */
static unsigned rule_width(const struct net_rule *r)
{
	return (r->local.prefix + r->remote.prefix + r->local.has_mac * 48u +
		r->remote.has_mac * 48u) *
		       8 +
	       (r->protocol >= 0) + has_ports(&r->local) * 2u + has_ports(&r->remote) * 2u;
}

static bool rule_before(const struct net_rule *a, const struct net_rule *b)
{
	if (a->weight != b->weight)
		return a->weight > b->weight;
	return rule_width(a) > rule_width(b);
}

/* Insertion, stable: there are few. Meters come before what decides, at any weight. */
static void rules_sort(struct rules *r)
{
	unsigned n = 0;

	for (unsigned d = 0; d < 2; d++) {
		unsigned start = r->first[d] = n;

		for (unsigned i = 0; i < r->count; i++) {
			const struct net_rule *rule = &r->rules[i];
			unsigned at = n;

			if (rule->direction != (enum net_direction)d)
				continue;
			while (at > start) {
				const struct net_rule *prior = &r->rules[r->order[at - 1]];
				bool meter = rule->action == NET_METER;
				bool earlier = meter != (prior->action == NET_METER)
						       ? meter
						       : rule_before(rule, prior);

				if (!earlier)
					break;
				r->order[at] = r->order[at - 1];
				at--;
			}
			r->order[at] = (uint16_t)i;
			n++;
		}
	}
	r->first[2] = n;
}

static int rules_alloc(struct rules *r, bool stateful)
{
	r->rules = calloc(r->count, sizeof(*r->rules));
	r->order = calloc(r->count, sizeof(*r->order));
	r->counters = calloc(r->count, sizeof(*r->counters));
	if (stateful)
		r->flows = calloc(1, sizeof(*r->flows));
	if (!r->rules || !r->order || !r->counters || (stateful && !r->flows))
		return -ENOMEM;
	if (stateful && getrandom(&r->flows->seed, sizeof(r->flows->seed), 0) < 0)
		return -errno;
	return 0;
}

static void counters_keep(struct rules *r, const struct rules *old)
{
	for (unsigned i = 0; old && i < r->count; i++)
		for (unsigned j = 0; *r->rules[i].id && j < old->count; j++)
			if (!strcmp(r->rules[i].id, old->rules[j].id))
				r->counters[i] = old->counters[j];
}

DEFINE_CLEANUP(struct rules *, rules_free)

int rules_new(const struct net_rule *rules, unsigned count, const struct rules *old,
	      struct rules **ret, struct error *err)
{
	_cleanup_(rules_free_p) struct rules *r = NULL;
	bool stateful = false;

	*ret = NULL;
	if (!count)
		return 0;
	if (count > NET_PORT_RULES)
		return error_set(err, -EINVAL, "%u rules are more than %u", count, NET_PORT_RULES);
	for (unsigned i = 0; i < count; i++) {
		if (rule_check(&rules[i], err) < 0)
			return error_prefix(err, "rule %u \"%.*s\"", i, (int)NET_ID_MAX - 1,
					    rules[i].id);
		stateful |= rules[i].stateful;
	}
	r = calloc(1, sizeof(*r));
	if (r)
		r->count = count;
	if (!r || rules_alloc(r, stateful) < 0)
		return error_set(err, -ENOMEM, "no memory for the rules");
	memcpy(r->rules, rules, count * sizeof(*rules));
	counters_keep(r, old);
	rules_sort(r);
	*ret = steal_ptr(r);
	return 0;
}

void rules_free(struct rules *r)
{
	if (!r)
		return;
	free(r->rules);
	free(r->order);
	free(r->counters);
	free(r->flows);
	free(r);
}

struct net_rule_counters rules_counters(const struct rules *r, unsigned i)
{
	return r && i < r->count ? r->counters[i] : (struct net_rule_counters){ 0 };
}
