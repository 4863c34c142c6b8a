// SPDX-License-Identifier: MIT
/* See testing.h. The guest's half of the protocol, as Linux speaks it. */
#include "vmbus/testing.h"

#include "partition/state.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define SYNIC_PAGES 0x100000u /* SIMP and SIEFP of VP n at 8 KiB * n from here */
#define FREE_PAGES  0x200000u
#define INPUT_PAGE  0x1f0000u

static uint64_t simp_of(unsigned vp)
{
	return SYNIC_PAGES + vp * 2 * (uint64_t)GMEM_PAGE_SIZE;
}

struct test_guest *test_guest_new(unsigned vp_count, uint32_t max_version, unsigned io_depth)
{
	const struct gmem_range ram[] = {
		{ .gpa = 0, .size = TEST_GUEST_RAM },
		{ .gpa = TEST_GUEST_GROW_GPA, .most = TEST_GUEST_GROW_MOST },
	};
	struct partition_options po = { .engine = &engine_fake, .vp_count = vp_count };
	struct vmbus_options vo = { .max_version = max_version };
	struct test_guest *g = calloc(1, sizeof(*g));

	if (!g || gmem_new(ram, 2, &g->gm, NULL) < 0 || loop_new(io_depth, &g->loop, NULL) < 0)
		abort();
	po.gm = g->gm;
	po.loop = g->loop;
	if (partition_new(&po, &g->partition, NULL) < 0)
		abort();
	vo.partition = g->partition;
	if (vmbus_new(&vo, &g->bus, NULL) < 0)
		abort();
	g->next_page = FREE_PAGES;
	g->next_gpadl = 1;
	for (unsigned vp = 0; vp < vp_count; vp++)
		partition_vp_synic(g->partition, vp, 1, simp_of(vp) | 1,
				   (simp_of(vp) + GMEM_PAGE_SIZE) | 1);
	return g;
}

static void on_reset(void *context)
{
	*(bool *)context = true;
}

void test_guest_stop(struct test_guest *g)
{
	bool done = false;

	vmbus_reset(g->bus, on_reset, &done);
	while (!done)
		if (loop_once(g->loop, 1000) < 0)
			abort();
	vmbus_free(g->bus);
	g->bus = NULL;
}

void test_guest_free(struct test_guest *g)
{
	if (g->bus)
		test_guest_stop(g);
	partition_free(g->partition);
	loop_free(g->loop);
	gmem_free(g->gm);
	free(g);
}

uint64_t test_guest_pages(struct test_guest *g, unsigned count)
{
	uint64_t gpa = g->next_page, size = count * (uint64_t)GMEM_PAGE_SIZE;

	if (gpa + size > TEST_GUEST_RAM)
		abort();
	g->next_page += size;
	if (gmem_fill(g->gm, gpa, 0, size) < 0)
		abort();
	return gpa;
}

void test_guest_pump(struct test_guest *g)
{
	for (int i = 0; i < 4; i++) {
		if (loop_once(g->loop, 0) < 0)
			abort();
		for (unsigned vp = 0; vp < partition_vp_count(g->partition); vp++)
			partition_vp_deliver(g->partition, vp);
	}
}

/* --- messages --- */

uint16_t test_guest_post(struct test_guest *g, uint32_t connection_id, const void *message,
			 size_t size)
{
	struct hv_input_post_message m = {
		.connection_id = le32_of(connection_id),
		.message_type = le32_of(VMBUS_MESSAGE_TYPE),
		.payload_size = le32_of((uint32_t)size),
	};
	uint16_t status;

	memcpy(m.payload, message, MIN(size, sizeof(m.payload)));
	if (gmem_write(g->gm, INPUT_PAGE, &m, sizeof(m)) < 0)
		abort();
	status = partition_hv_post_message(g->partition, 0, INPUT_PAGE).value;
	test_guest_pump(g);
	return status;
}

size_t test_guest_receive(struct test_guest *g, unsigned vp, void *buffer)
{
	uint8_t *slot =
		(uint8_t *)gmem_page(g->gm, simp_of(vp)) + VMBUS_MESSAGE_SINT * HV_MESSAGE_SIZE;
	struct hv_message_header h;
	size_t size;

	partition_vp_deliver(g->partition, vp);
	memcpy(&h, slot, sizeof(h));
	if (!le32_get(h.message_type))
		return 0;
	size = MIN(h.payload_size, HV_MESSAGE_PAYLOAD_SIZE);
	memcpy(buffer, slot + sizeof(h), size);
	gshared_store32(slot, 0, HV_MESSAGE_NONE);
	return size;
}

/* Waits for a message of one type; other messages are dropped, offers are kept. */
static bool expect(struct test_guest *g, uint32_t type, void *buffer)
{
	for (int i = 0; i < 1000; i++) {
		size_t n = test_guest_receive(g, 0, buffer);
		struct vmbus_message_header h;

		if (!n) {
			test_guest_pump(g);
			if (!(n = test_guest_receive(g, 0, buffer)))
				return false;
		}
		memcpy(&h, buffer, sizeof(h));
		if (le32_get(h.type) == CHANNELMSG_OFFERCHANNEL &&
		    g->offer_count < TEST_GUEST_MAX_OFFERS)
			memcpy(&g->offers[g->offer_count++], buffer, sizeof(g->offers[0]));
		if (le32_get(h.type) == type)
			return true;
	}
	return false;
}

bool test_guest_connect(struct test_guest *g, uint32_t version)
{
	uint8_t m[56] = { 0 }, answer[HV_MESSAGE_PAYLOAD_SIZE];
	struct writer w = writer_of(m, sizeof(m));

	writer_le32(&w, CHANNELMSG_INITIATE_CONTACT);
	writer_le32(&w, 0);
	writer_le32(&w, version);
	writer_le32(&w, 0);
	writer_le64(&w, version >= VERSION_WIN10_V5 ? VMBUS_MESSAGE_SINT : 0);
	if (test_guest_post(g,
			    version >= VERSION_WIN10_V5 ? VMBUS_MESSAGE_CONNECTION_ID_4
							: VMBUS_MESSAGE_CONNECTION_ID,
			    m, version >= VERSION_COPPER ? 56 : 40))
		return false;
	return expect(g, CHANNELMSG_VERSION_RESPONSE, answer) && answer[8];
}

void test_guest_request_offers(struct test_guest *g)
{
	struct vmbus_message_header m = { .type = le32_of(CHANNELMSG_REQUESTOFFERS) };
	uint8_t answer[HV_MESSAGE_PAYLOAD_SIZE];

	g->offer_count = 0;
	test_guest_post(g, VMBUS_MESSAGE_CONNECTION_ID, &m, sizeof(m));
	expect(g, CHANNELMSG_ALLOFFERS_DELIVERED, answer);
}

void test_guest_take_offers(struct test_guest *g)
{
	uint8_t answer[HV_MESSAGE_PAYLOAD_SIZE];

	expect(g, 0, answer); /* a type that never comes: takes all there is */
}

uint32_t test_guest_gpadl(struct test_guest *g, uint32_t relid, unsigned pages, uint64_t *ret_gpa)
{
	uint8_t m[HV_MESSAGE_PAYLOAD_SIZE], answer[HV_MESSAGE_PAYLOAD_SIZE];
	uint32_t id = g->next_gpadl++, number = 0;
	uint64_t gpa = test_guest_pages(g, pages), pfn = gpa / GMEM_PAGE_SIZE;
	struct writer w = writer_of(m, sizeof(m));

	*ret_gpa = gpa;
	writer_le32(&w, CHANNELMSG_GPADL_HEADER);
	writer_le32(&w, 0);
	writer_le32(&w, relid);
	writer_le32(&w, id);
	writer_le16(&w, (uint16_t)(8 + 8 * pages));
	writer_le16(&w, 1);
	writer_le32(&w, pages * GMEM_PAGE_SIZE);
	writer_le32(&w, 0);
	while (pages) {
		for (; pages && w.size - w.at >= 8; pages--)
			writer_le64(&w, pfn++);
		test_guest_post(g, VMBUS_MESSAGE_CONNECTION_ID, m, w.at);
		w = writer_of(m, sizeof(m));
		writer_le32(&w, CHANNELMSG_GPADL_BODY);
		writer_le32(&w, 0);
		writer_le32(&w, number++);
		writer_le32(&w, id);
	}
	if (!expect(g, CHANNELMSG_GPADL_CREATED, answer))
		return 0;
	return memcmp(answer + 16, "\0\0\0\0", 4) ? 0 : id;
}

static int guest_ring(struct test_guest *g, uint64_t gpa, unsigned pages, struct ring *ret)
{
	void *list[64];

	assert(pages <= 64);
	for (unsigned i = 0; i < pages; i++)
		list[i] = gmem_page(g->gm, gpa + i * (uint64_t)GMEM_PAGE_SIZE);
	return ring_init(ret, list, pages);
}

bool test_channel_open(struct test_guest *g, const struct vmbus_offer_channel *offer,
		       unsigned ring_pages, struct test_channel *c)
{
	uint8_t m[148] = { 0 }, answer[HV_MESSAGE_PAYLOAD_SIZE];
	struct writer w = writer_of(m, sizeof(m));
	uint64_t gpa;

	*c = (struct test_channel){ .guest = g,
				    .relid = le32_get(offer->child_relid),
				    .connection_id = le32_get(offer->connection_id) };
	c->gpadl = test_guest_gpadl(g, c->relid, 2 * ring_pages, &gpa);
	if (!c->gpadl || guest_ring(g, gpa, ring_pages, &c->out) < 0 ||
	    guest_ring(g, gpa + ring_pages * (uint64_t)GMEM_PAGE_SIZE, ring_pages, &c->in) < 0)
		return false;
	writer_le32(&w, CHANNELMSG_OPENCHANNEL);
	writer_le32(&w, 0);
	writer_le32(&w, c->relid);
	writer_le32(&w, c->relid);
	writer_le32(&w, c->gpadl);
	writer_le32(&w, 0);
	writer_le32(&w, ring_pages);
	test_guest_post(g, VMBUS_MESSAGE_CONNECTION_ID, m, sizeof(m));
	return expect(g, CHANNELMSG_OPENCHANNEL_RESULT, answer) &&
	       !memcmp(answer + 16, "\0\0\0\0", 4);
}

static void post_ids(struct test_guest *g, uint32_t type, uint32_t a, uint32_t b)
{
	uint8_t m[16];
	struct writer w = writer_of(m, sizeof(m));

	writer_le32(&w, type);
	writer_le32(&w, 0);
	writer_le32(&w, a);
	writer_le32(&w, b);
	test_guest_post(g, VMBUS_MESSAGE_CONNECTION_ID, m, sizeof(m));
}

void test_channel_close(struct test_channel *c)
{
	post_ids(c->guest, CHANNELMSG_CLOSECHANNEL, c->relid, 0);
	post_ids(c->guest, CHANNELMSG_GPADL_TEARDOWN, c->relid, c->gpadl);
	ring_deinit(&c->out);
	ring_deinit(&c->in);
}

/* --- saved state --- */

static int each_vp(void *context, int (*fn)(void *arg, unsigned vp, struct error *err), void *arg,
		   struct error *err)
{
	const struct test_guest *g = context;
	int r = 0;

	for (unsigned vp = 0; vp < partition_vp_count(g->partition) && r >= 0; vp++)
		r = fn(arg, vp, err);
	return r;
}

static void on_paused(void *context)
{
	*(bool *)context = true;
}

bool test_guest_pause(struct test_guest *g)
{
	partition_drain(g->partition);
	g->paused = false;
	vmbus_pause(g->bus, on_paused, &g->paused);
	test_guest_pump(g);
	return g->paused;
}

struct save_writer *test_guest_save(struct test_guest *g)
{
	const struct partition_threads threads = { each_vp, g };
	struct save_writer *w;

	if (save_writer_new(&w, NULL) < 0 || partition_save(g->partition, &threads, w, NULL) < 0 ||
	    vmbus_save(g->bus, w, NULL) < 0 || save_writer_check(w, NULL) < 0)
		abort();
	return w;
}

int test_guest_restore(struct test_guest *to, struct test_guest *from, struct save_reader *r,
		       struct error *err)
{
	const struct partition_threads threads = { each_vp, to };
	int n;

	memcpy(gmem_page(to->gm, 0), gmem_page(from->gm, 0), TEST_GUEST_RAM);
	to->next_page = from->next_page;
	to->next_gpadl = from->next_gpadl;
	n = partition_restore(to->partition, r, err);
	if (n >= 0)
		n = vmbus_restore(to->bus, r, err);
	if (n >= 0)
		n = save_reader_finish(r, err);
	return n < 0 ? n : partition_restore_vps(to->partition, &threads, err);
}

static void *moved(const struct test_channel *c, struct test_guest *to, const void *p)
{
	return (uint8_t *)gmem_page(to->gm, 0) +
	       ((const uint8_t *)p - (const uint8_t *)gmem_page(c->guest->gm, 0));
}

static void ring_move(const struct test_channel *c, struct test_guest *to, struct ring *ring)
{
	for (uint32_t i = 0; i < ring->size / GMEM_PAGE_SIZE; i++)
		ring->pages[i] = moved(c, to, ring->pages[i]);
	ring->control = moved(c, to, ring->control);
	if (ring->linear)
		ring->linear = moved(c, to, ring->linear);
}

void test_channel_move(struct test_channel *c, struct test_guest *to)
{
	ring_move(c, to, &c->out);
	ring_move(c, to, &c->in);
	c->guest = to;
}

/* --- packets --- */

void test_channel_signal(struct test_channel *c)
{
	(void)fake_signal_connection(partition_engine(c->guest->partition), c->connection_id);
}

static int send_packet(struct test_channel *c, struct vmbus_packet_descriptor d,
		       const void *payload, size_t size)
{
	bool signal;
	int r = ring_write(&c->out, d, payload, size, &signal);

	if (signal)
		test_channel_signal(c);
	return r;
}

int test_channel_send(struct test_channel *c, uint16_t type, uint64_t transaction_id,
		      const void *payload, size_t size, size_t header)
{
	struct vmbus_packet_descriptor d = {
		.type = le16_of(type),
		.offset8 = le16_of((uint16_t)((sizeof(d) + header) / 8)),
		.flags = le16_of(VMBUS_PACKET_COMPLETION_REQUESTED),
		.transaction_id = le64_of(transaction_id),
	};

	return send_packet(c, d, payload, size);
}

int test_channel_request(struct test_channel *c, uint64_t transaction_id, const void *payload,
			 size_t size)
{
	return test_channel_send(c, VMBUS_PACKET_INBAND, transaction_id, payload, size, 0);
}

int test_channel_request_gpa(struct test_channel *c, uint64_t transaction_id, const void *payload,
			     size_t size, uint64_t gpa, uint32_t bytes)
{
	uint8_t packet[4096];
	struct writer w = writer_of(packet, sizeof(packet));
	uint64_t last = (gpa + bytes - 1) / GMEM_PAGE_SIZE;
	size_t header;

	writer_le32(&w, 0);
	writer_le32(&w, 1);
	writer_le32(&w, bytes);
	writer_le32(&w, (uint32_t)(gpa % GMEM_PAGE_SIZE));
	for (uint64_t page = gpa / GMEM_PAGE_SIZE; page <= last; page++)
		writer_le64(&w, page);
	header = w.at;
	writer_put(&w, payload, size);
	assert(writer_ok(&w));
	return test_channel_send(c, VMBUS_PACKET_GPA_DIRECT, transaction_id, packet, w.at, header);
}

int test_channel_receive(struct test_channel *c, void *buffer, uint32_t max)
{
	bool signal;
	int n;

	test_guest_pump(c->guest);
	n = ring_read(&c->in, buffer, max, &signal);
	if (signal)
		test_channel_signal(c);
	return n;
}
