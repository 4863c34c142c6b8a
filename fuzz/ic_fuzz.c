// SPDX-License-Identifier: MIT
/*
 * A hostile guest at the integration services, with a host that asks for everything. The first byte
 * chooses the service; then operations, each with its bytes. What must hold beside memory: whatever
 * the host asked ends exactly once.
 */
#include "devices/ic/fcopy.h"
#include "devices/ic/heartbeat.h"
#include "devices/ic/ic_proto.h"
#include "devices/ic/kvp.h"
#include "devices/ic/shutdown.h"
#include "devices/ic/timesync.h"
#include "devices/ic/vss.h"
#include "vmbus/testing.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define HEADS      (VMBUSPIPE_HDR_SIZE + ICMSG_HDR_SIZE)
#define CALLS      8
#define DESCRIPTOR sizeof(struct vmbus_packet_descriptor)

struct call {
	struct kvp_call kvp;
	bool open;
};

struct fuzz {
	struct test_guest *g;
	struct test_channel ch;
	bool channel_open;
	struct ic *ic;
	struct heartbeat heartbeat;
	struct shutdown shutdown;
	struct timesync timesync;
	struct kvp kvp;
	struct vss vss;
	struct fcopy fcopy;
	struct call calls[CALLS];
	bool pending; /* of services that do one thing at a time */
	uint8_t packet[VMBUS_MAX_PACKET];
	int size; /* of what the host sent last */
};

static void on_done(void *context, int result, const struct error *err)
{
	struct fuzz *f = context;

	if (!f->pending || (result < 0 && !err->message[0]))
		abort();
	f->pending = false;
}

static void on_kvp_done(struct kvp_call *call, int result, const struct error *err)
{
	struct call *c = container_of(call, struct call, kvp);

	if (!c->open || (result < 0 && !err->message[0]))
		abort();
	c->open = false;
	kvp_items_clear(&call->items);
	kvp_ip_clear(&call->ip);
}

static void ask_kvp(struct fuzz *f, uint8_t how)
{
	struct call *c = &f->calls[how % CALLS];

	if (c->open) {
		kvp_drop(&f->kvp, &c->kvp);
		c->open = false;
		kvp_items_clear(&c->kvp.items);
		kvp_ip_clear(&c->kvp.ip);
		return;
	}
	c->kvp = (struct kvp_call){ .op = how / 8 % (KVP_SET_IP + 1),
				    .pool = how % KVP_POOLS,
				    .key = "key",
				    .value = "value",
				    .done = on_kvp_done };
	c->open = true;
	if (kvp_ask(&f->kvp, &c->kvp, NULL) < 0)
		c->open = false;
}

static void ask(struct fuzz *f, uint8_t how)
{
	struct shutdown_request s = { .action = how % SHUTDOWN_ACTIONS,
				      .force = how & 8,
				      .reason = "reason" };
	struct fcopy_request c = { .path = "/a/b", .done = on_done, .context = f, .fd = -1 };
	bool was = f->pending;
	int r = -1;

	f->pending = true;
	if (f->ic == &f->kvp.ic)
		ask_kvp(f, how);
	else if (f->ic == &f->shutdown.ic)
		r = shutdown_ask(&f->shutdown, &s, on_done, f, NULL);
	else if (f->ic == &f->vss.ic)
		r = how & 1 ? vss_freeze(&f->vss, 1 + how, on_done, f, NULL)
			    : vss_thaw(&f->vss, on_done, f, NULL);
	else if (f->ic == &f->fcopy.ic && how & 1)
		(void)!fcopy_cancel(&f->fcopy, NULL);
	else if (f->ic == &f->fcopy.ic) {
		c.fd = memfd_create("file", MFD_CLOEXEC);
		if (ftruncate(c.fd, how * 100) < 0)
			abort();
		r = fcopy_begin(&f->fcopy, &c, NULL);
	}
	if (r < 0)
		f->pending = was;
}

static void fire(struct loop_timer *t)
{
	if (t->deadline)
		loop_timer_arm(t, 1);
}

static void fire_all(struct fuzz *f)
{
	fire(&f->ic->answer_timer);
	if (f->ic == &f->heartbeat.ic)
		fire(&f->heartbeat.timer);
	if (f->ic == &f->timesync.ic)
		fire(&f->timesync.timer);
	if (f->ic == &f->kvp.ic)
		fire(&f->kvp.info_timer);
	if (f->ic == &f->vss.ic)
		fire(&f->vss.limit_timer);
}

static void pump(struct fuzz *f)
{
	for (int i = 0; i < 50; i++) {
		test_guest_pump(f->g);
		if (!f->fcopy.reading)
			break;
	}
}

static void guest_open(struct fuzz *f)
{
	test_guest_take_offers(f->g);
	if (!f->g->offer_count || f->g->next_page > TEST_GUEST_RAM - 64 * GMEM_PAGE_SIZE)
		return;
	f->ch = (struct test_channel){ 0 };
	f->channel_open = test_channel_open(f->g, &f->g->offers[f->g->offer_count - 1], 4, &f->ch);
	if (!f->channel_open && f->ch.out.control)
		ring_deinit(&f->ch.out);
	if (!f->channel_open && f->ch.in.control)
		ring_deinit(&f->ch.in);
}

static void guest_close(struct fuzz *f)
{
	uint8_t m[12] = { CHANNELMSG_RELID_RELEASED };

	if (f->channel_open)
		test_channel_close(&f->ch);
	f->channel_open = false;
	memcpy(m + 8, &f->ch.relid, 4);
	test_guest_post(f->g, VMBUS_MESSAGE_CONNECTION_ID, m, sizeof(m));
}

/* An answer as it should be, but for what the input says of its head and its body. */
static void guest_answer(struct fuzz *f, struct reader *r)
{
	uint8_t *heads = f->packet + DESCRIPTOR;
	uint8_t flaw = reader_u8(r), status = reader_u8(r), n = reader_u8(r);
	static const uint32_t statuses[] = { HV_S_OK, HV_S_OK, HV_S_CONT, HV_E_FAIL };
	le32 s = le32_of(statuses[status % 4]);
	size_t size;

	if (!f->channel_open || f->size < (int)(DESCRIPTOR + HEADS))
		return;
	size = (size_t)f->size - DESCRIPTOR;
	memcpy(heads + 20, &s, 4);
	heads[25] = ICMSGHDRFLAG_TRANSACTION | ICMSGHDRFLAG_RESPONSE;
	if (flaw)
		heads[flaw % 28] ^= status;
	for (unsigned i = 0; i < n && reader_left(r) >= 3; i++) {
		unsigned at = reader_le16(r);

		f->packet[DESCRIPTOR + HEADS + at % (sizeof(f->packet) - DESCRIPTOR - HEADS)] =
			reader_u8(r);
	}
	(void)test_channel_send(&f->ch, VMBUS_PACKET_INBAND, 0, heads, MIN(size, 12000u), 0);
	test_channel_signal(&f->ch);
}

static void guest_raw(struct fuzz *f, struct reader *r)
{
	uint8_t type = reader_u8(r);
	size_t n = reader_u8(r), size = MIN(n, reader_left(r));
	const void *data = reader_take(r, size);

	if (!f->channel_open || !data)
		return;
	(void)test_channel_send(&f->ch, type, 0, data, size, 0);
	test_channel_signal(&f->ch);
}

static void step(struct fuzz *f, uint8_t op, struct reader *r)
{
	switch (op % 10) {
	case 0:
	case 1:
	case 2:
		if (f->channel_open)
			f->size = test_channel_receive(&f->ch, f->packet, sizeof(f->packet));
		guest_answer(f, r);
		break;
	case 3:
		ask(f, reader_u8(r));
		break;
	case 4:
		fire_all(f);
		break;
	case 5:
		guest_raw(f, r);
		break;
	case 6:
		if (f->channel_open)
			guest_close(f);
		else
			guest_open(f);
		break;
	case 7:
		if (f->ic->paused)
			ic_resume(f->ic);
		else
			ic_pause(f->ic);
		break;
	case 8:
		(void)!ic_switch(f->ic, op & 16, NULL);
		break;
	case 9:
		ic_restart(f->ic);
		break;
	}
	pump(f);
}

static void begin(struct fuzz *f, uint8_t which)
{
	struct ic *all[] = { &f->heartbeat.ic, &f->shutdown.ic, &f->timesync.ic,
			     &f->kvp.ic,       &f->vss.ic,      &f->fcopy.ic };

	f->g = test_guest_new(1, 0, 4);
	heartbeat_init(&f->heartbeat, f->g->loop, f->g->bus);
	shutdown_init(&f->shutdown, f->g->loop, f->g->bus);
	timesync_init(&f->timesync, f->g->loop, f->g->bus);
	kvp_init(&f->kvp, f->g->loop, f->g->bus);
	vss_init(&f->vss, f->g->loop, f->g->bus);
	fcopy_init(&f->fcopy, f->g->loop, f->g->bus);
	f->ic = all[which % ARRAY_SIZE(all)];
	if (ic_switch(f->ic, true, NULL) < 0 || !test_guest_connect(f->g, VERSION_COPPER))
		abort();
	test_guest_request_offers(f->g);
	guest_open(f);
}

/* A well-behaved start, unless the input wants to see to that itself. */
static void negotiate(struct fuzz *f, uint8_t version)
{
	struct writer w = writer_of(f->packet + DESCRIPTOR + HEADS, 16);
	struct ic_version v = f->ic->service->versions[version % f->ic->service->version_count];
	uint8_t none[4] = { 0 };
	struct reader r = reader_of(none, sizeof(none));

	f->size = test_channel_receive(&f->ch, f->packet, sizeof(f->packet));
	writer_le16(&w, 1);
	writer_le16(&w, 1);
	writer_le32(&w, 0);
	writer_le16(&w, 3);
	writer_le16(&w, 0);
	writer_le16(&w, v.major);
	writer_le16(&w, v.minor);
	guest_answer(f, &r);
	pump(f);
	if (f->ic->state != IC_READY)
		abort();
}

static void end(struct fuzz *f)
{
	test_guest_stop(f->g);
	for (unsigned i = 0; i < CALLS; i++)
		if (f->calls[i].open)
			abort();
	if (f->pending || f->fcopy.reading)
		abort();
	if (f->channel_open) {
		ring_deinit(&f->ch.in);
		ring_deinit(&f->ch.out);
	}
	heartbeat_deinit(&f->heartbeat);
	timesync_deinit(&f->timesync);
	kvp_deinit(&f->kvp);
	vss_deinit(&f->vss);
	fcopy_deinit(&f->fcopy);
	ic_deinit(&f->shutdown.ic);
	test_guest_free(f->g);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct reader r = reader_of(data, size);
	struct fuzz *f = calloc(1, sizeof(*f));
	uint8_t which = reader_u8(&r);

	if (!f)
		abort();
	begin(f, which);
	if (which < 128 && f->channel_open)
		negotiate(f, which / 8);
	for (int i = 0; i < 200 && reader_left(&r); i++)
		step(f, reader_u8(&r), &r);
	end(f);
	free(f);
	return 0;
}
