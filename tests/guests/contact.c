// SPDX-License-Identifier: MIT
/* The beginning and the end of a VMBus connection: versions, targets, offers, unload. */
#include "groups.h"

#include "lib/bus.h"
#include "lib/print.h"

static const uint32_t supported[] = {
	BUS_VERSION(2, 4), BUS_VERSION(3, 0), BUS_VERSION(4, 0),
	BUS_VERSION(4, 1), BUS_VERSION(5, 0), BUS_VERSION(5, 1),
	BUS_VERSION(5, 2), BUS_VERSION(5, 3), BUS_VERSION(6, 0),
};
static const uint32_t unsupported[] = {
	0,
	13,
	BUS_VERSION(1, 1),
	BUS_VERSION(2, 3),
	BUS_VERSION(3, 1),
	BUS_VERSION(4, 2),
	BUS_VERSION(5, 4),
	BUS_VERSION(6, 1),
	BUS_VERSION(7, 0),
	UINT32_MAX,
};

static void versions(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(supported); i++) {
		uint32_t v = supported[i];

		ok(bus_connect(v), "version %u.%u is accepted", v >> 16, v & 0xffff);
		if (v >= BUS_VERSION(5, 0))
			ok_equal(bus.connection, BUS_CONNECTION_V5,
				 "version %u.%u: messages go to connection 4", v >> 16, v & 0xffff);
	}
	for (size_t i = 0; i < ARRAY_SIZE(unsupported); i++) {
		struct contact c = { .version = unsupported[i], .sint = BUS_SINT };
		struct bus_message m;

		c.connection = BUS_CONNECTION;
		bus_post_contact(&c);
		ok(bus_expect(MSG_VERSION_RESPONSE, &m, BUS_TIMEOUT_MS) && !m.bytes[8],
		   "version 0x%x is refused", unsupported[i]);
	}
	bus_post_words(2, MSG_REQUEST_OFFERS, 0);
	ok(bus_silent(MSG_ALL_OFFERS), "nothing is offered without a connection");
}

static void newest(void)
{
	struct contact c = { .version = BUS_VERSION(6, 0),
			     .sint = BUS_SINT,
			     .features = UINT32_MAX,
			     .connection = BUS_CONNECTION };
	struct bus_message m;

	bus_post_contact(&c);
	ok(bus_expect(MSG_VERSION_RESPONSE, &m, BUS_TIMEOUT_MS) && m.bytes[8],
	   "version 6.0 on connection 1 is accepted");
	ok(m.size >= 20 && m.words[4] != UINT32_MAX,
	   "it answers with the features of both sides: 0x%x", m.words[4]);
}

static void refused_targets(void)
{
	static const struct contact bad[] = {
		{ .version = BUS_VERSION(4, 0), .vp = 1000, .connection = BUS_CONNECTION },
		{ .version = BUS_VERSION(4, 0), .vp = UINT32_MAX, .connection = BUS_CONNECTION },
		{ .version = BUS_VERSION(5, 3), .sint = 16, .connection = BUS_CONNECTION_V5 },
		{ .version = BUS_VERSION(5, 3), .sint = 255, .connection = BUS_CONNECTION_V5 },
		{ .version = BUS_VERSION(5, 3), .sint = 0x102, .connection = BUS_CONNECTION_V5 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		bus_post_contact(&bad[i]);
		ok(bus_silent(MSG_VERSION_RESPONSE), "no answer to processor %u, SINT 0x%x",
		   bad[i].vp, bad[i].sint);
	}
}

static void other_processor(void)
{
	struct contact c = { .version = BUS_VERSION(5, 3),
			     .vp = cpu_count - 1,
			     .sint = BUS_SINT,
			     .connection = BUS_CONNECTION_V5 };
	uint32_t before = cpu_of(c.vp)->count[VECTOR_SINT + BUS_SINT];
	struct bus_message m;

	bus.vp = c.vp;
	bus_post_contact(&c);
	ok(bus_expect(MSG_VERSION_RESPONSE, &m, BUS_TIMEOUT_MS) && m.bytes[8],
	   "the answer goes to VP %u when asked", c.vp);
	ok(WAIT_FOR(cpu_of(c.vp)->count[VECTOR_SINT + BUS_SINT] > before, BUS_TIMEOUT_MS),
	   "with its interrupt");
	ok(bus_request_offers(), "the offers too");
	ok(bus_unload(), "and the answer to the unload");
	bus.vp = 0;
}

static void offers(void)
{
	static struct bus first;
	bool same = true;

	ok(bus_connect(BUS_VERSION(5, 3)) && bus_request_offers(),
	   "offers come and end (%u of them)", bus.offer_count);
	first = bus;
	bus_post_words(2, MSG_REQUEST_OFFERS, 0);
	ok(bus_silent(MSG_ALL_OFFERS), "a second request is ignored");
	for (int i = 0; i < 3; i++) {
		same &= bus_connect(BUS_VERSION(5, 3)) && bus_request_offers();
		same &= bus.offer_count == first.offer_count &&
			!memcmp(bus.offers, first.offers, first.offer_count * sizeof(struct offer));
	}
	ok(same, "they are the same, with the same ids, at each connection");
	for (unsigned i = 0; i < bus.offer_count; i++)
		for (unsigned j = 0; j < i; j++)
			same &= bus.offers[i].relid != bus.offers[j].relid &&
				bus.offers[i].connection != bus.offers[j].connection;
	ok(same, "each has its own channel and connection id");
}

static void unload(void)
{
	ok(bus_unload(), "unload is answered");
	bus_post_words(2, MSG_REQUEST_OFFERS, 0);
	ok(bus_silent(MSG_ALL_OFFERS), "the connection is gone");
	bus_post_words(2, MSG_UNLOAD, 0);
	ok(bus_silent(MSG_UNLOAD_RESPONSE), "a second unload is ignored");
	ok(bus_connect(BUS_VERSION(4, 1)) && bus_request_offers(), "a new one can be made");
	ok(bus_unload(), "and ended");
}

void group_contact(void)
{
	group_begin("contact");
	bus_prepare();
	versions();
	newest();
	refused_targets();
	if (cpu_count > 1)
		other_processor();
	offers();
	unload();
}
