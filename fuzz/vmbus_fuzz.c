// SPDX-License-Identifier: MIT
/*
 * The bus against a guest that posts anything: the input is a script of channel messages, packets
 * into the rings of an open channel, writes into ring memory, and releases of the device's close.
 * The device echoes, and reads the memory that GPA-direct packets name.
 */
#include "vmbus/testing.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct echo {
	struct vmbus_channel *closing[8];
	unsigned closing_count;
	bool hold;
};

static int echo_open(void *device, struct vmbus_channel *ch)
{
	(void)device;
	if (!vmbus_channel_index(ch))
		vmbus_channel_offer_subs(ch, 2);
	return 0;
}

static void echo_close(void *device, struct vmbus_channel *ch)
{
	struct echo *e = device;

	if (e->hold && e->closing_count < 8)
		e->closing[e->closing_count++] = ch;
	else
		vmbus_channel_closed(ch);
}

static void echo_packet(struct vmbus_channel *ch, const struct vmbus_packet *p)
{
	static uint8_t copy[VMBUS_MAX_PACKET];
	struct iovec iov[16];
	unsigned count;
	uint32_t bytes;

	for (unsigned i = 0; i < 4 && i < p->range_count; i++) {
		if (vmbus_packet_iov(ch, p, i, iov, 16, &count, &bytes) < 0)
			continue;
		for (unsigned j = 0; j < count; j++)
			copy[0] ^= ((const uint8_t *)iov[j].iov_base)[iov[j].iov_len - 1];
	}
	memcpy(copy, p->payload, p->size);
	if (vmbus_can_send(ch, p->size))
		(void)!vmbus_send(ch, VMBUS_PACKET_COMPLETION, p->transaction_id, copy, p->size);
}

static void echo_signal(void *device, struct vmbus_channel *ch)
{
	struct vmbus_packet p;

	(void)device;
	while (vmbus_receive(ch, &p) > 0)
		echo_packet(ch, &p);
}

static const struct vmbus_device_type echo_type = {
	.name = "echo",
	.interface = GUID(0x11111111, 0x2222, 0x3333, 1, 2, 3, 4, 5, 6, 7, 8),
	.open = echo_open,
	.close = echo_close,
	.signal = echo_signal,
};

static void release(struct echo *e)
{
	while (e->closing_count)
		vmbus_channel_closed(e->closing[--e->closing_count]);
}

struct script {
	struct test_guest *g;
	struct echo echo;
	struct test_channel channel;
	bool open;
	uint64_t ring_gpa;
};

static void drain(struct script *s)
{
	uint8_t drop[HV_MESSAGE_PAYLOAD_SIZE];

	for (unsigned vp = 0; vp < 2; vp++)
		for (int i = 0; i < 64 && test_guest_receive(s->g, vp, drop); i++)
			;
}

static void post(struct script *s, struct reader *r)
{
	uint8_t message[HV_MESSAGE_PAYLOAD_SIZE] = { 0 };
	size_t n = reader_u8(r) % sizeof(message);

	/* Types are drawn from the first 32, so that most messages find their handler. */
	n = MIN(n, reader_left(r));
	reader_copy(r, message, n);
	message[0] %= 32;
	memset(message + 1, 0, 7);
	test_guest_post(s->g, reader_u8(r) & 1 ? 4 : 1, message, MAX(n, 8u));
	drain(s);
}

static void scribble(struct script *s, struct reader *r)
{
	uint32_t at = reader_le16(r), value = reader_le32(r);

	if (s->open)
		(void)!gmem_write(s->g->gm, s->ring_gpa + at % (8 * GMEM_PAGE_SIZE - 4), &value,
				  sizeof(value));
}

static void packet(struct script *s, struct reader *r)
{
	uint8_t body[256];
	size_t n = MIN(reader_u8(r), reader_left(r)), header = reader_u8(r) % 8 * 8u;
	uint16_t type = reader_u8(r) % 16;

	n = MIN(n, reader_left(r));
	reader_copy(r, body, n);
	if (s->open)
		(void)!test_channel_send(&s->channel, type, 1, body, n, MIN(header, n & ~7u));
	test_guest_pump(s->g);
}

static void open_channel(struct script *s)
{
	if (s->open || !test_guest_connect(s->g, VERSION_WIN10_V5_3))
		return;
	test_guest_request_offers(s->g);
	s->g->next_page = 0x200000;
	s->ring_gpa = s->g->next_page;
	if (!s->g->offer_count)
		return;
	s->open = test_channel_open(s->g, &s->g->offers[0], 4, &s->channel);
	if (!s->open) {
		ring_deinit(&s->channel.in);
		ring_deinit(&s->channel.out);
	}
}

static void forget_channel(struct script *s)
{
	if (s->open) {
		ring_deinit(&s->channel.in);
		ring_deinit(&s->channel.out);
	}
	s->open = false;
}

static void step(struct script *s, struct reader *r)
{
	switch (reader_u8(r) % 8) {
	case 0:
	case 1:
		post(s, r);
		break;
	case 2:
		open_channel(s);
		break;
	case 3:
		packet(s, r);
		break;
	case 4:
		scribble(s, r);
		break;
	case 5:
		s->echo.hold = !s->echo.hold;
		release(&s->echo);
		break;
	case 6:
		if (s->open)
			test_channel_signal(&s->channel);
		test_guest_pump(s->g);
		break;
	case 7:
		forget_channel(s);
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct vmbus_offer_options o = { 0 };
	struct reader r = reader_of(data, MIN(size, 4096u));
	struct script s = { .g = test_guest_new(2, 0, 0) };
	struct vmbus_channel *ch;

	if (vmbus_device_offer(s.g->bus, &echo_type, &s.echo, &o, &ch, NULL) < 0)
		abort();
	while (reader_left(&r))
		step(&s, &r);
	s.echo.hold = false;
	release(&s.echo);
	forget_channel(&s);
	test_guest_free(s.g);
	return 0;
}
