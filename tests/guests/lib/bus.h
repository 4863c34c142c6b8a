/* SPDX-License-Identifier: MIT */
/*
 * The guest's half of VMBus. Microsoft publishes no document for it; numbers and layouts are those
 * of Linux include/linux/hyperv.h. There is one bus and one connection at a time.
 */
#pragma once

#include "lib/hv.h"

#define BUS_SINT                  2u
#define BUS_CONNECTION            1u
#define BUS_CONNECTION_V5         4u /* from 5.0 on */
#define BUS_VERSION(major, minor) ((uint32_t)(major) << 16 | (minor))
#define BUS_TIMEOUT_MS            15000u
#define BUS_QUIET_MS              30u /* long enough to say that nothing comes */

enum bus_message_type {
	MSG_OFFER = 1,
	MSG_RESCIND = 2,
	MSG_REQUEST_OFFERS = 3,
	MSG_ALL_OFFERS = 4,
	MSG_OPEN = 5,
	MSG_OPEN_RESULT = 6,
	MSG_CLOSE = 7,
	MSG_GPADL_HEADER = 8,
	MSG_GPADL_BODY = 9,
	MSG_GPADL_CREATED = 10,
	MSG_GPADL_TEARDOWN = 11,
	MSG_GPADL_TORNDOWN = 12,
	MSG_RELID_RELEASED = 13,
	MSG_CONTACT = 14,
	MSG_VERSION_RESPONSE = 15,
	MSG_UNLOAD = 16,
	MSG_UNLOAD_RESPONSE = 17,
	MSG_MODIFY = 22,
	MSG_MODIFY_RESPONSE = 24,
	MSG_LAST = 30, /* beyond all that are known */
};

/* Any message as words: word 0 is the type, word 1 padding. */
struct bus_message {
	union {
		uint32_t words[HV_MESSAGE_PAYLOAD / 4];
		uint64_t quads[HV_MESSAGE_PAYLOAD / 8];
		uint8_t bytes[HV_MESSAGE_PAYLOAD];
	};
	size_t size;
};

struct offer {
	uint8_t interface[16], instance[16];
	uint16_t sub_index;
	uint32_t relid, connection;
};

struct bus {
	unsigned vp;
	uint32_t version, connection;
	unsigned offer_count, offers_ignored;
	struct offer offers[64];
	uint32_t next_gpadl;
};
extern struct bus bus;

struct contact {
	uint32_t version, vp, sint, features, connection;
};

/* SynIC and the bus's source on all processors. */
void bus_prepare(void);
/* Contact with what is usual at this version; whether it was accepted. */
bool bus_connect(uint32_t version);
/* Posts a contact of any kind; the answer is the caller's to expect. */
void bus_post_contact(const struct contact *c);
void bus_post(const void *message, size_t size);
void bus_post_words(unsigned count, ...); /* a message of 32-bit words */
/* The next message of this type; others are dropped, offers are kept. */
bool bus_expect(enum bus_message_type type, struct bus_message *ret, unsigned ms);
/* Whether nothing of this type comes for a while. */
bool bus_silent(enum bus_message_type type);
bool bus_request_offers(void);
const struct offer *bus_find_offer(const uint8_t interface[16], unsigned sub_index);
bool bus_unload(void);

/* Page numbers of a GPADL are those from `base` on. The id, or 0 when it is refused. */
uint32_t bus_gpadl(uint32_t relid, const void *base, unsigned pages);
bool bus_gpadl_teardown(uint32_t relid, uint32_t gpadl);

/* --- channels --- */

#define RING_PAGES        5u /* of each direction, with its control page */
#define PACKET_INBAND     6u
#define PACKET_GPA_DIRECT 9u
#define PACKET_COMPLETION 11u

struct channel {
	uint32_t relid, connection, gpadl;
	uint8_t *out, *in; /* control pages; data follows */
};

struct packet_descriptor {
	uint16_t type, offset8, length8, flags;
	uint64_t transaction;
};

#define RING_WRITE 0u
#define RING_READ  4u
#define RING_SIZE  ((RING_PAGES - 1) * PAGE_SIZE)

static inline volatile uint32_t *ring_word(uint8_t *control, unsigned offset)
{
	return (volatile uint32_t *)(void *)(control + offset);
}

/* Opens with fresh rings (one set of pages exists for each of two channels, `set` 0 or 1). */
bool channel_open(const struct offer *o, uint32_t vp, unsigned set, struct channel *ret);
/* Close, and the GPADL's end; whether the host let go of the rings. */
bool channel_close(struct channel *ch);
/* A packet: descriptor, `header` bytes of extended header, payload. The host is signalled. */
bool channel_send(struct channel *ch, struct packet_descriptor d, const void *bytes, size_t size);
/* Descriptor and payload of the next packet; its bytes, or 0. */
size_t channel_receive(struct channel *ch, void *buffer, size_t max);
void channel_signal(const struct channel *ch);
