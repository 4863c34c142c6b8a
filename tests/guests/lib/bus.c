// SPDX-License-Identifier: MIT
/*
 * See bus.h. Messages are taken by looking at the slot, on whatever processor the bus was told to
 * use; interrupts only wake the waiting processor up.
 */
#include "lib/bus.h"

#include "lib/print.h"

#include <stdarg.h>

struct bus bus;
static uint8_t rings[2][2 * RING_PAGES * PAGE_SIZE] PAGE_ALIGNED;

static void bus_sint(void *unused)
{
	(void)unused;
	synic_enable(NULL);
	synic_sint(BUS_SINT, 0);
}

void bus_prepare(void)
{
	for (unsigned i = 0; i < cpu_count; i++)
		cpu_run(i, bus_sint, NULL);
	synic_drain();
}

/* --- messages --- */

void bus_post(const void *message, size_t size)
{
	uint64_t end = deadline_in(BUS_TIMEOUT_MS);

	/* The host may be behind: TLFS 11.10.4 says to try again. */
	while (hv_post(bus.connection, 1, message, size) == HV_INSUFFICIENT_BUFFERS &&
	       rdtsc() < end)
		delay_ms(1);
}

void bus_post_words(unsigned count, ...)
{
	uint32_t words[HV_MESSAGE_PAYLOAD / 4];
	va_list args;

	va_start(args, count);
	for (unsigned i = 0; i < count; i++)
		words[i] = va_arg(args, uint32_t);
	va_end(args);
	bus_post(words, count * sizeof(words[0]));
}

static void keep_offer(const struct bus_message *m)
{
	struct offer *o = &bus.offers[bus.offer_count];

	if (bus.offer_count == ARRAY_SIZE(bus.offers)) {
		bus.offers_ignored++;
		return;
	}
	bus.offer_count++;
	memcpy(o->interface, m->bytes + 8, 16);
	memcpy(o->instance, m->bytes + 24, 16);
	memcpy(&o->sub_index, m->bytes + 180, 2);
	memcpy(&o->relid, m->bytes + 184, 4);
	memcpy(&o->connection, m->bytes + 192, 4);
}

static bool bus_receive(struct bus_message *ret)
{
	struct hv_message m;

	if (!message_take(bus.vp, BUS_SINT, &m) || m.type != 1)
		return false;
	memset(ret, 0, sizeof(*ret));
	ret->size = MIN(m.size, HV_MESSAGE_PAYLOAD);
	memcpy(ret->bytes, m.payload, ret->size);
	if (ret->words[0] == MSG_OFFER)
		keep_offer(ret);
	return true;
}

bool bus_expect(enum bus_message_type type, struct bus_message *ret, unsigned ms)
{
	uint64_t end = deadline_in(ms);

	do {
		if (!bus_receive(ret))
			cpu_wait();
		else if (ret->words[0] == type)
			return true;
	} while (rdtsc() < end);
	return false;
}

bool bus_silent(enum bus_message_type type)
{
	struct bus_message m;

	return !bus_expect(type, &m, BUS_QUIET_MS);
}

/* --- contact --- */

void bus_post_contact(const struct contact *c)
{
	uint64_t quads[7] = { MSG_CONTACT, c->version | (uint64_t)c->vp << 32 };

	if (c->version >= BUS_VERSION(5, 0))
		quads[2] = c->sint;
	if (c->version >= BUS_VERSION(6, 0))
		quads[2] |= (uint64_t)c->features << 32;
	bus.connection = c->connection;
	bus_post(quads, c->version >= BUS_VERSION(6, 0) ? 56 : 40);
}

bool bus_connect(uint32_t version)
{
	struct contact c = { .version = version, .sint = BUS_SINT };
	struct bus_message m;

	c.connection = version >= BUS_VERSION(5, 0) ? BUS_CONNECTION_V5 : BUS_CONNECTION;
	bus.vp = 0;
	bus.offer_count = 0;
	bus_post_contact(&c);
	/* Refusals may still be on their way that an earlier contact earned. */
	do {
		if (!bus_expect(MSG_VERSION_RESPONSE, &m, BUS_TIMEOUT_MS))
			return false;
	} while (!m.bytes[8]);
	bus.version = version;
	if (version >= BUS_VERSION(5, 0))
		bus.connection = m.words[3];
	return true;
}

bool bus_request_offers(void)
{
	struct bus_message m;

	bus.offer_count = 0;
	bus_post_words(2, MSG_REQUEST_OFFERS, 0);
	return bus_expect(MSG_ALL_OFFERS, &m, BUS_TIMEOUT_MS);
}

const struct offer *bus_find_offer(const uint8_t interface[16], unsigned sub_index)
{
	for (unsigned i = 0; i < bus.offer_count; i++)
		if (!memcmp(bus.offers[i].interface, interface, 16) &&
		    bus.offers[i].sub_index == sub_index)
			return &bus.offers[i];
	return NULL;
}

bool bus_unload(void)
{
	struct bus_message m;

	bus_post_words(2, MSG_UNLOAD, 0);
	return bus_expect(MSG_UNLOAD_RESPONSE, &m, BUS_TIMEOUT_MS);
}

/* --- GPADLs --- */

uint32_t bus_gpadl(uint32_t relid, const void *base, unsigned pages)
{
	struct bus_message m = { .words = { MSG_GPADL_HEADER, 0, relid, 0,
					    (8 + 8 * pages) | 1u << 16, pages * PAGE_SIZE, 0 } };
	uint32_t id = ++bus.next_gpadl, number = 0;
	uint64_t pfn = (uintptr_t)base / PAGE_SIZE;
	size_t at = 28;

	m.words[3] = id;
	for (;;) {
		for (; pages && at + 8 <= sizeof(m.bytes); pages--, at += 8, pfn++)
			memcpy(m.bytes + at, &pfn, 8);
		bus_post(m.bytes, at);
		if (!pages)
			break;
		m.words[0] = MSG_GPADL_BODY;
		m.words[2] = number++;
		at = 16;
	}
	if (!bus_expect(MSG_GPADL_CREATED, &m, BUS_TIMEOUT_MS) || m.words[3] != id || m.words[4])
		return 0;
	return id;
}

bool bus_gpadl_teardown(uint32_t relid, uint32_t gpadl)
{
	struct bus_message m;

	bus_post_words(4, MSG_GPADL_TEARDOWN, 0, relid, gpadl);
	return bus_expect(MSG_GPADL_TORNDOWN, &m, BUS_TIMEOUT_MS) && m.words[2] == gpadl;
}

/* --- channels --- */

bool channel_open(const struct offer *o, uint32_t vp, unsigned set, struct channel *ret)
{
	struct bus_message m = { .words = { MSG_OPEN, 0, o->relid, o->relid, 0, vp, RING_PAGES } };

	memset(rings[set], 0, sizeof(rings[set]));
	*ret = (struct channel){ .relid = o->relid,
				 .connection = o->connection,
				 .out = rings[set],
				 .in = rings[set] + RING_PAGES * PAGE_SIZE };
	ret->gpadl = bus_gpadl(o->relid, rings[set], 2 * RING_PAGES);
	if (!ret->gpadl)
		return false;
	m.words[4] = ret->gpadl;
	bus_post(m.bytes, 148);
	return bus_expect(MSG_OPEN_RESULT, &m, BUS_TIMEOUT_MS) && m.words[2] == o->relid &&
	       !m.words[4];
}

bool channel_close(struct channel *ch)
{
	bus_post_words(3, MSG_CLOSE, 0, ch->relid);
	return bus_gpadl_teardown(ch->relid, ch->gpadl);
}

void channel_signal(const struct channel *ch)
{
	(void)hv_signal(ch->connection, 0);
}

static uint32_t ring_copy_in(uint8_t *control, uint32_t at, const void *bytes, size_t size)
{
	const uint8_t *from = bytes;

	for (; size; size--, at = (at + 1) % RING_SIZE)
		control[PAGE_SIZE + at] = *from++;
	return at;
}

static uint32_t ring_copy_out(const uint8_t *control, uint32_t at, void *bytes, size_t size)
{
	uint8_t *to = bytes;

	for (; size; size--, at = (at + 1) % RING_SIZE)
		*to++ = control[PAGE_SIZE + at];
	return at;
}

bool channel_send(struct channel *ch, struct packet_descriptor d, const void *bytes, size_t size)
{
	uint32_t write = *ring_word(ch->out, RING_WRITE), read = *ring_word(ch->out, RING_READ);
	uint32_t room = RING_SIZE - (write - read + RING_SIZE) % RING_SIZE;
	uint64_t trailer = (uint64_t)write << 32;
	uint64_t zero = 0;
	size_t pad = (8 - size % 8) % 8;

	if (sizeof(d) + size + pad + sizeof(trailer) >= room)
		return false;
	d.length8 = (uint16_t)((sizeof(d) + size + pad) / 8);
	write = ring_copy_in(ch->out, write, &d, sizeof(d));
	write = ring_copy_in(ch->out, write, bytes, size);
	write = ring_copy_in(ch->out, write, &zero, pad);
	write = ring_copy_in(ch->out, write, &trailer, sizeof(trailer));
	barrier();
	*ring_word(ch->out, RING_WRITE) = write;
	channel_signal(ch);
	return true;
}

size_t channel_receive(struct channel *ch, void *buffer, size_t max)
{
	uint32_t read = *ring_word(ch->in, RING_READ);
	struct packet_descriptor d;
	size_t size;

	if (read == *ring_word(ch->in, RING_WRITE))
		return 0;
	barrier();
	ring_copy_out(ch->in, read, &d, sizeof(d));
	size = d.length8 * 8u;
	if (size > max || size < sizeof(d))
		guest_die("the host wrote a packet of %lu bytes", (uint64_t)size);
	read = ring_copy_out(ch->in, read, buffer, size);
	barrier();
	*ring_word(ch->in, RING_READ) = (read + 8) % RING_SIZE;
	return size;
}
