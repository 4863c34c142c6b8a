// SPDX-License-Identifier: MIT
/*
 * See dhcp.h. Clients are hostile: a request is read whole before anything changes, its hardware
 * address must be the frame's source (which the switch's guard holds to be the port's own), and
 * what one can occupy is one lease and a few declined addresses.
 */
#include "net/dhcp.h"
#include "lib/cleanup.h"

#include <errno.h>
#include <strings.h>

/* RFC 2131 2, figure 1. */
#define BOOTP_SIZE   236u
#define BOOTP_COOKIE 0x63825363u
#define BOOTP_FILE   108u /* the place of `file`, and before it of `sname` */
#define BOOTP_SNAME  44u
#define ANSWER_MIN   300u /* some clients drop what is shorter than BOOTP was (RFC 1542 2.1) */
#define PORT_SERVER  67u
#define PORT_CLIENT  68u
#define BROADCAST    0x8000u

enum message {
	DISCOVER = 1,
	OFFER = 2,
	REQUEST = 3,
	DECLINE = 4,
	ACK = 5,
	NAK = 6,
	RELEASE = 7,
	INFORM = 8,
};

/* RFC 2132; RFC 4702 for the last. */
enum option {
	OPT_PAD = 0,
	OPT_MASK = 1,
	OPT_ROUTER = 3,
	OPT_DNS = 6,
	OPT_HOST_NAME = 12,
	OPT_DOMAIN = 15,
	OPT_MTU = 26,
	OPT_BROADCAST = 28,
	OPT_REQUESTED = 50,
	OPT_LEASE = 51,
	OPT_OVERLOAD = 52,
	OPT_MESSAGE = 53,
	OPT_SERVER = 54,
	OPT_MAX_SIZE = 57,
	OPT_RENEW = 58,
	OPT_REBIND = 59,
	OPT_FQDN = 81,
	OPT_END = 255,
};

struct request {
	struct inet_udp udp;
	uint32_t transaction, client, relay;
	uint16_t flags;
	struct inet_mac mac;
	uint8_t message;
	uint32_t requested, server; /* 0 = not given */
	char name[DHCP_NAME_MAX + 1];
	bool broken;
};

struct dhcp_server {
	struct dhcp_settings settings;
	uint32_t mask;
	unsigned count, declined;
	struct dhcp_lease leases[DHCP_LEASES_MAX];
};

/* ---- leases ---- */

static bool lease_held(const struct dhcp_lease *l, uint64_t now)
{
	return l->state != DHCP_FREE && l->until > now;
}

static struct dhcp_lease *lease_of_mac(struct dhcp_server *s, const struct inet_mac *mac)
{
	for (unsigned i = 0; i < s->count; i++)
		if (s->leases[i].state != DHCP_DECLINED && inet_mac_equal(&s->leases[i].mac, mac))
			return &s->leases[i];
	return NULL;
}

static struct dhcp_lease *lease_of_address(struct dhcp_server *s, uint32_t address)
{
	for (unsigned i = 0; i < s->count; i++)
		if (s->leases[i].address == address)
			return &s->leases[i];
	return NULL;
}

static void lease_drop(struct dhcp_server *s, struct dhcp_lease *l)
{
	if (l->state == DHCP_DECLINED)
		s->declined--;
	*l = s->leases[--s->count];
}

/* The one that is missed least: free before held, then the one that ends first. */
static struct dhcp_lease *lease_oldest(struct dhcp_server *s, enum dhcp_state state, uint64_t now)
{
	struct dhcp_lease *oldest = NULL;

	for (unsigned i = 0; i < s->count; i++) {
		struct dhcp_lease *l = &s->leases[i];

		if (state == DHCP_DECLINED ? l->state != state : lease_held(l, now))
			continue;
		if (!oldest || l->until < oldest->until)
			oldest = l;
	}
	return oldest;
}

static bool address_served(const struct dhcp_server *s, uint32_t address)
{
	return address >= s->settings.first && address <= s->settings.last &&
	       address != s->settings.address;
}

static bool address_free(struct dhcp_server *s, uint32_t address, const struct inet_mac *mac,
			 uint64_t now)
{
	struct dhcp_lease *l;

	if (!address_served(s, address))
		return false;
	l = lease_of_address(s, address);
	if (!l || !lease_held(l, now))
		return true;
	return l->state != DHCP_DECLINED && inet_mac_equal(&l->mac, mac);
}

/* FNV-1a: the same machine gets the same address again, whatever was forgotten. */
static uint32_t mac_hash(const struct inet_mac *mac)
{
	uint32_t h = 2166136261u;

	for (unsigned i = 0; i < INET_MAC_SIZE; i++)
		h = (h ^ mac->byte[i]) * 16777619u;
	return h ^ h >> 15;
}

/* Its last one, the one it asks for, its own by its MAC address, any; 0 = all are taken. */
static uint32_t address_choose(struct dhcp_server *s, const struct request *q, uint64_t now)
{
	uint32_t first = s->settings.first, size = s->settings.last - first + 1;
	const struct dhcp_lease *known = lease_of_mac(s, &q->mac);
	uint32_t tries = MIN(size, DHCP_LEASES_MAX + 2);

	if (known && address_free(s, known->address, &q->mac, now))
		return known->address;
	if (q->requested && address_free(s, q->requested, &q->mac, now))
		return q->requested;
	for (uint32_t i = 0; i < tries; i++) {
		uint32_t a = first + (uint32_t)(((uint64_t)mac_hash(&q->mac) + i) % size);

		if (address_free(s, a, &q->mac, now))
			return a;
	}
	return 0;
}

/* The machine's lease, at that address, which is free for it; NULL = no more can be known. */
static struct dhcp_lease *lease_take(struct dhcp_server *s, const struct request *q,
				     uint32_t address, uint64_t now)
{
	struct dhcp_lease *l = lease_of_address(s, address);

	/* Somebody's who left it, or what had been declined. */
	if (l && (l->state == DHCP_DECLINED || !inet_mac_equal(&l->mac, &q->mac)))
		lease_drop(s, l);
	l = lease_of_mac(s, &q->mac);
	if (!l) {
		if (s->count == DHCP_LEASES_MAX) {
			l = lease_oldest(s, DHCP_FREE, now);
			if (!l)
				return NULL;
			lease_drop(s, l);
		}
		l = &s->leases[s->count++];
		*l = (struct dhcp_lease){ .mac = q->mac };
	}
	l->address = address;
	return l;
}

static void lease_grant(struct dhcp_server *s, struct dhcp_lease *l, const struct request *q,
			enum dhcp_state state, uint64_t now)
{
	uint64_t length =
		state == DHCP_OFFERED ? DHCP_OFFER_NS : (uint64_t)s->settings.seconds * 1000000000;

	/* An offer does not shorten what is in force. */
	if (state == DHCP_OFFERED && l->state == DHCP_LEASED && l->until > now + length)
		return;
	l->state = state;
	l->until = now + length;
	if (*q->name)
		memcpy(l->name, q->name, sizeof(l->name));
}

static void lease_decline(struct dhcp_server *s, struct dhcp_lease *l, uint64_t now)
{
	uint32_t size = s->settings.last - s->settings.first + 1;
	unsigned most = MIN(size, DHCP_LEASES_MAX) / 4;

	if (!most) {
		l->state = DHCP_FREE;
		return;
	}
	if (s->declined >= most) {
		struct inet_mac mac = l->mac;

		lease_drop(s, lease_oldest(s, DHCP_DECLINED, now));
		l = lease_of_mac(s, &mac); /* it may have moved */
	}
	*l = (struct dhcp_lease){ .address = l->address,
				  .state = DHCP_DECLINED,
				  .until = now + DHCP_DECLINED_NS };
	s->declined++;
}

/* ---- requests ---- */

/* The first label of a host name, in small letters; what is no label leaves "" (RFC 1123 2.1). */
static void take_name(struct request *q, const uint8_t *data, size_t size)
{
	char name[DHCP_NAME_MAX + 1];
	size_t n = 0;

	while (n < size && data[n] && data[n] != '.') {
		uint8_t c = data[n];

		if (n == DHCP_NAME_MAX)
			return;
		if (c >= 'A' && c <= 'Z')
			c = (uint8_t)(c | 0x20);
		if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-'))
			return;
		name[n++] = (char)c;
	}
	if (!n || name[0] == '-' || name[n - 1] == '-')
		return;
	name[n] = '\0';
	memcpy(q->name, name, n + 1);
}

/* RFC 4702 2: flags, two codes, and the name as it is said in DNS, or in letters. */
static void take_fqdn(struct request *q, const uint8_t *data, size_t size)
{
	if (size < 4 || *q->name)
		return;
	if (!(data[0] & 4))
		take_name(q, data + 3, size - 3);
	else if (data[3] && data[3] < size - 3)
		take_name(q, data + 4, data[3]);
}

static uint32_t take_be32(struct request *q, const uint8_t *data, size_t size)
{
	be32 v;

	if (size != 4) {
		q->broken = true;
		return 0;
	}
	memcpy(&v, data, 4);
	return be32_get(v);
}

static void take_option(struct request *q, uint8_t code, const uint8_t *data, size_t size)
{
	switch (code) {
	case OPT_MESSAGE:
		/* The second of two would be another request than guards have seen. */
		q->broken |= size != 1 || q->message;
		if (size == 1)
			q->message = data[0];
		break;
	case OPT_REQUESTED:
		q->requested = take_be32(q, data, size);
		break;
	case OPT_SERVER:
		q->server = take_be32(q, data, size);
		break;
	case OPT_HOST_NAME:
		take_name(q, data, size);
		break;
	case OPT_FQDN:
		take_fqdn(q, data, size);
		break;
	default:
		break;
	}
}

/* The options in one field. The value of option 52, if it is there. */
static uint8_t read_options(struct request *q, struct reader r)
{
	uint8_t overload = 0;

	while (reader_left(&r)) {
		uint8_t code = reader_u8(&r), size;
		const uint8_t *data;

		if (code == OPT_PAD)
			continue;
		if (code == OPT_END)
			break;
		size = reader_u8(&r);
		data = reader_take(&r, size);
		if (!data) {
			q->broken = true;
			break;
		}
		if (code == OPT_OVERLOAD && size == 1)
			overload = data[0];
		take_option(q, code, data, size);
	}
	return overload;
}

static bool read_request(const void *frame, size_t size, bool unfinished, struct request *q)
{
	struct reader r;
	uint8_t op, overload;
	uint16_t hardware;

	if (!inet_read_udp4(frame, size, unfinished, &q->udp) || q->udp.to_port != PORT_SERVER)
		return false;
	r = reader_of(q->udp.data, q->udp.size);
	op = reader_u8(&r);
	hardware = reader_be16(&r);
	reader_skip(&r, 1);
	q->transaction = reader_be32(&r);
	reader_skip(&r, 2);
	q->flags = reader_be16(&r);
	q->client = reader_be32(&r);
	reader_skip(&r, 8);
	q->relay = reader_be32(&r);
	reader_copy(&r, &q->mac, sizeof(q->mac));
	reader_skip(&r, BOOTP_SIZE - 34);
	if (reader_be32(&r) != BOOTP_COOKIE || !reader_ok(&r) || op != 1 || hardware != 0x0106)
		return false;
	overload = read_options(q, r);
	if (overload & 1)
		read_options(q, reader_of(q->udp.data + BOOTP_FILE, 128));
	if (overload & 2)
		read_options(q, reader_of(q->udp.data + BOOTP_SNAME, 64));
	return !q->broken && !q->relay && inet_mac_single(&q->mac) &&
	       inet_mac_equal(&q->mac, &q->udp.ether.from);
}

/* ---- answers ---- */

static void put_option(struct writer *w, uint8_t code, const void *data, size_t size)
{
	writer_u8(w, code);
	writer_u8(w, (uint8_t)size);
	writer_put(w, data, size);
}

static void put_option32(struct writer *w, uint8_t code, uint32_t v)
{
	be32 wire = be32_of(v);

	put_option(w, code, &wire, sizeof(wire));
}

static void put_times(const struct dhcp_server *s, struct writer *w)
{
	uint32_t t = s->settings.seconds;

	put_option32(w, OPT_LEASE, t);
	put_option32(w, OPT_RENEW, t / 2);
	put_option32(w, OPT_REBIND, (uint32_t)((uint64_t)t * 7 / 8));
}

static void put_network(const struct dhcp_server *s, struct writer *w)
{
	const struct dhcp_settings *t = &s->settings;

	put_option32(w, OPT_MASK, s->mask);
	put_option32(w, OPT_BROADCAST, t->address | ~s->mask);
	put_option32(w, OPT_ROUTER, t->address);
	if (t->server_count) {
		writer_u8(w, OPT_DNS);
		writer_u8(w, (uint8_t)(4 * t->server_count));
		for (unsigned i = 0; i < t->server_count; i++)
			writer_be32(w, t->servers[i]);
	}
	if (*t->domain)
		put_option(w, OPT_DOMAIN, t->domain, strlen(t->domain));
	if (t->mtu) {
		be16 mtu = be16_of(t->mtu);

		put_option(w, OPT_MTU, &mtu, sizeof(mtu));
	}
}

static void put_fixed(const struct dhcp_server *s, struct writer *w, const struct request *q,
		      uint8_t message, uint32_t yours)
{
	writer_u8(w, 2);
	writer_be16(w, 0x0106);
	writer_u8(w, 0);
	writer_be32(w, q->transaction);
	writer_be16(w, 0);
	writer_be16(w, q->flags);
	writer_be32(w, message == NAK ? 0 : q->client);
	writer_be32(w, yours);
	writer_be32(w, message == NAK ? 0 : s->settings.address);
	writer_be32(w, 0);
	writer_put(w, &q->mac, sizeof(q->mac));
	writer_zero(w, BOOTP_SIZE - 34);
	writer_be32(w, BOOTP_COOKIE);
	put_option(w, OPT_MESSAGE, &message, 1);
	put_option32(w, OPT_SERVER, s->settings.address);
}

/* RFC 2131 4.1: to its address if it has one, to all if it asks for that or is refused. */
static void address_answer(const struct dhcp_server *s, const struct request *q, uint8_t message,
			   uint32_t yours, struct inet_udp *u)
{
	bool all = message == NAK || (!q->client && (q->flags & BROADCAST));

	u->ether.to = all ? INET_MAC_ALL : q->mac;
	u->ether.from = s->settings.mac;
	u->ip.from = s->settings.address;
	u->ip.to = all ? UINT32_MAX : q->client ? q->client : yours;
	u->from_port = PORT_SERVER;
	u->to_port = PORT_CLIENT;
}

static size_t answer(const struct dhcp_server *s, const struct request *q, uint8_t message,
		     uint32_t yours, struct writer *out)
{
	uint8_t bytes[INET_UDP4_MAX];
	struct writer w = writer_of(bytes, sizeof(bytes));
	struct inet_udp u = { .data = bytes };

	put_fixed(s, &w, q, message, yours);
	if (message == OFFER || (message == ACK && yours))
		put_times(s, &w);
	if (message != NAK)
		put_network(s, &w);
	writer_u8(&w, OPT_END);
	if (w.at < ANSWER_MIN)
		writer_zero(&w, ANSWER_MIN - w.at);
	if (!writer_ok(&w))
		return 0;
	u.size = w.at;
	address_answer(s, q, message, yours, &u);
	return inet_write_udp4(out->data, out->size, &u);
}

static size_t on_discover(struct dhcp_server *s, struct request *q, uint64_t now,
			  struct writer *out)
{
	uint32_t a = address_choose(s, q, now);
	struct dhcp_lease *l = a ? lease_take(s, q, a, now) : NULL;

	if (!l)
		return 0;
	lease_grant(s, l, q, DHCP_OFFERED, now);
	return answer(s, q, OFFER, a, out);
}

/*
 * RFC 2131 4.3.2. After an offer, after a restart, to renew, to rebind: all come to whether it may
 * have the address. Nobody else serves this network, so what it cannot have is denied, not ignored.
 */
static size_t on_request(struct dhcp_server *s, struct request *q, uint64_t now, struct writer *out)
{
	uint32_t a = q->client ? q->client : q->requested;
	struct dhcp_lease *l = lease_of_mac(s, &q->mac);

	if (q->server && q->server != s->settings.address) {
		/* It took another server's offer. */
		if (l && l->state == DHCP_OFFERED)
			l->state = DHCP_FREE;
		return 0;
	}
	if (!a)
		return 0;
	l = address_free(s, a, &q->mac, now) ? lease_take(s, q, a, now) : NULL;
	if (!l)
		return answer(s, q, NAK, 0, out);
	lease_grant(s, l, q, DHCP_LEASED, now);
	return answer(s, q, ACK, a, out);
}

static size_t on_decline(struct dhcp_server *s, struct request *q, uint64_t now, struct writer *out)
{
	struct dhcp_lease *l = lease_of_mac(s, &q->mac);

	(void)out;
	if (l && l->state != DHCP_FREE && q->requested == l->address &&
	    q->server == s->settings.address)
		lease_decline(s, l, now);
	return 0;
}

static size_t on_release(struct dhcp_server *s, struct request *q, uint64_t now, struct writer *out)
{
	struct dhcp_lease *l = lease_of_mac(s, &q->mac);

	(void)out;
	if (l && q->client == l->address && (!q->server || q->server == s->settings.address)) {
		l->state = DHCP_FREE;
		l->until = now;
	}
	return 0;
}

/* RFC 2131 4.3.5: what else there is to know, to who has an address in this network. */
static size_t on_inform(struct dhcp_server *s, struct request *q, uint64_t now, struct writer *out)
{
	(void)now;
	if ((q->client & s->mask) != (s->settings.address & s->mask))
		return 0;
	return answer(s, q, ACK, 0, out);
}

bool dhcp_server_wants(const void *frame, size_t size)
{
	struct inet_udp u;

	return inet_read_udp4(frame, size, true, &u) && u.to_port == PORT_SERVER;
}

size_t dhcp_server_frame(struct dhcp_server *s, const void *frame, size_t size, bool unfinished,
			 uint64_t now, void *bytes, size_t room)
{
	static size_t (*const handlers[])(struct dhcp_server *, struct request *, uint64_t,
					  struct writer *) = {
		[DISCOVER] = on_discover, [REQUEST] = on_request, [DECLINE] = on_decline,
		[RELEASE] = on_release,   [INFORM] = on_inform,
	};
	struct writer out = writer_of(bytes, room);
	struct request q = { 0 };

	if (!read_request(frame, size, unfinished, &q) || q.message >= ARRAY_SIZE(handlers) ||
	    !handlers[q.message])
		return 0;
	return handlers[q.message](s, &q, now, &out);
}

/* ---- what is known ---- */

const struct dhcp_lease *dhcp_server_leases(const struct dhcp_server *s, unsigned *ret_count)
{
	*ret_count = s->count;
	return s->leases;
}

static bool in_force(const struct dhcp_lease *l, uint64_t now)
{
	return l->state == DHCP_LEASED && l->until > now;
}

const struct dhcp_lease *dhcp_server_find_mac(const struct dhcp_server *s,
					      const struct inet_mac *mac, uint64_t now)
{
	for (unsigned i = 0; i < s->count; i++)
		if (in_force(&s->leases[i], now) && inet_mac_equal(&s->leases[i].mac, mac))
			return &s->leases[i];
	return NULL;
}

const struct dhcp_lease *dhcp_server_find_name(const struct dhcp_server *s, const char *name,
					       uint64_t now)
{
	for (unsigned i = 0; i < s->count; i++)
		if (in_force(&s->leases[i], now) && *name && !strcasecmp(s->leases[i].name, name))
			return &s->leases[i];
	return NULL;
}

const struct dhcp_lease *dhcp_server_find_address(const struct dhcp_server *s, uint32_t address,
						  uint64_t now)
{
	for (unsigned i = 0; i < s->count; i++)
		if (in_force(&s->leases[i], now) && s->leases[i].address == address)
			return &s->leases[i];
	return NULL;
}

static int settings_check(const struct dhcp_settings *t, uint32_t mask, struct error *err)
{
	uint32_t network = t->address & mask;

	if (t->first > t->last || (t->first & mask) != network || (t->last & mask) != network ||
	    !(t->first & ~mask) || (t->last | mask) == UINT32_MAX)
		return error_set(err, -EINVAL,
				 "the addresses for machines do not lie inside of the network");
	if (t->server_count > DHCP_SERVERS_MAX)
		return error_set(err, -EINVAL, "at most %u name servers can be told of",
				 DHCP_SERVERS_MAX);
	if (!t->seconds)
		return error_set(err, -EINVAL, "a lease must last a second at least");
	return 0;
}

int dhcp_server_new(const struct dhcp_settings *settings, struct dhcp_server **ret,
		    struct error *err)
{
	struct dhcp_server *s;
	uint32_t mask;
	int r;

	if (settings->prefix < 8 || settings->prefix > 29)
		return error_set(err, -EINVAL, "a network has a prefix of 8 to 29 bits, not %u",
				 settings->prefix);
	mask = ~(UINT32_MAX >> settings->prefix);
	r = settings_check(settings, mask, err);
	if (r < 0)
		return r;
	s = calloc(1, sizeof(*s));
	if (!s)
		return error_set(err, -ENOMEM, "no memory for a DHCP server");
	s->settings = *settings;
	s->mask = mask;
	*ret = s;
	return 0;
}

void dhcp_server_free(struct dhcp_server *s)
{
	free(s);
}
