/* SPDX-License-Identifier: MIT */
/*
 * A scripted guest on engine fake, for unit tests and fuzzers of the bus and of devices: real guest
 * memory, real bus, one thread. Functions abort on what a test takes for granted.
 */
#pragma once

#include "engine/fake.h"
#include "vmbus/ring.h"
#include "vmbus/vmbus.h"

#define TEST_GUEST_RAM (32 * MIB)
/* Where gmem_grow makes more of it. */
#define TEST_GUEST_GROW_GPA   (4 * GIB)
#define TEST_GUEST_GROW_MOST  (640 * MIB)
#define TEST_GUEST_MAX_OFFERS 128

struct test_guest {
	struct gmem *gm;
	struct loop *loop;
	struct partition *partition;
	struct vmbus *bus;
	uint64_t next_page; /* bump allocator of guest pages */
	uint32_t next_gpadl;
	unsigned offer_count;
	bool paused;
	struct vmbus_offer_channel offers[TEST_GUEST_MAX_OFFERS];
};

/* The guest's side of an open channel. */
struct test_channel {
	struct test_guest *guest;
	uint32_t relid, connection_id, gpadl;
	struct ring out, in; /* to the host, from the host */
};

/* SynIC enabled on all VPs; io_depth as for loop_new. */
struct test_guest *test_guest_new(unsigned vp_count, uint32_t max_version, unsigned io_depth);
/* Resets and frees the bus: devices may be freed then, while the loop still lives. */
void test_guest_stop(struct test_guest *g);
void test_guest_free(struct test_guest *g); /* stops first if that was not done */
uint64_t test_guest_pages(struct test_guest *g, unsigned count); /* GPA of fresh, zeroed pages */
/* Runs the loop and delivers messages until nothing moves (and for at most 100 rounds). */
void test_guest_pump(struct test_guest *g);

/* Posts a channel message; the hypercall's status. Pumps. */
uint16_t test_guest_post(struct test_guest *g, uint32_t connection_id, const void *message,
			 size_t size);
/* The next message of VP `vp`'s slot for SINT 2 into a 240-byte buffer; its size, 0 if none. */
size_t test_guest_receive(struct test_guest *g, unsigned vp, void *buffer);

/* INITIATE_CONTACT; whether the version was accepted. */
bool test_guest_connect(struct test_guest *g, uint32_t version);
/* REQUESTOFFERS; fills offers. Offers that come later are added by test_guest_take_offers. */
void test_guest_request_offers(struct test_guest *g);
void test_guest_take_offers(struct test_guest *g);
/* Creates a GPADL over `pages` fresh pages; its id, 0 when refused. *ret_gpa: the first page. */
uint32_t test_guest_gpadl(struct test_guest *g, uint32_t relid, unsigned pages, uint64_t *ret_gpa);
/* Opens an offered channel with two rings of `ring_pages` pages each; whether the host agreed. */
bool test_channel_open(struct test_guest *g, const struct vmbus_offer_channel *offer,
		       unsigned ring_pages, struct test_channel *ret);
void test_channel_close(struct test_channel *c); /* CLOSECHANNEL and the GPADL; frees the rings */

/*
 * Saved state. Pausing pumps; whether everything came to rest (a disk may hold its requests back).
 * Saving gives the whole state, also what a failed save leaves as words; the guest can go on. The
 * other guest is new, with the same devices offered: it takes over memory and state, paused, and
 * `c` is made the same channel in it. Let it go on with vmbus_resume.
 */
bool test_guest_pause(struct test_guest *g);
struct save_writer *test_guest_save(struct test_guest *g);
int test_guest_restore(struct test_guest *to, struct test_guest *from, struct save_reader *r,
		       struct error *err) _must_check_;
void test_channel_move(struct test_channel *c, struct test_guest *to);

/* Writes a packet and signals if the rules say so. `header` bytes of payload are extended header.
 */
int test_channel_send(struct test_channel *c, uint16_t type, uint64_t transaction_id,
		      const void *payload, size_t size, size_t header);
/* An in-band packet that wants a completion. */
int test_channel_request(struct test_channel *c, uint64_t transaction_id, const void *payload,
			 size_t size);
/* A GPA-direct packet over [gpa, gpa + bytes), that wants a completion. */
int test_channel_request_gpa(struct test_channel *c, uint64_t transaction_id, const void *payload,
			     size_t size, uint64_t gpa, uint32_t bytes);
void test_channel_signal(struct test_channel *c);
/* Next packet from the host (descriptor first) into a buffer; its bytes, 0 if none. Pumps first. */
int test_channel_receive(struct test_channel *c, void *buffer, uint32_t max);
