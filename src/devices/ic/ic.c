// SPDX-License-Identifier: MIT
/*
 * See ic.h. A transaction's life: built in ic->message, into the ring (at once, or when there is
 * room), answered, timed out or cut off. Its number is one byte on the wire and counts up, so an
 * answer that comes after its time is not taken for the next one's. A guest may let its answer to
 * the negotiation wait until its daemon is there (Linux: up to 55 s), so that has no time limit.
 * Event loop's thread.
 */
#include "devices/ic/ic.h"

#include "devices/ic/ic_proto.h"
#include "lib/cleanup.h"
#include "lib/utf16.h"

#include <errno.h>
#include <stdlib.h>

#define PACKETS_AT_ONCE 32 /* of a guest that keeps its ring full; others have their turn then */

static const struct ic_version frameworks[] = { { 1, 0 }, { 3, 0 } };

static const char *const state_names[] = {
	[IC_OFF] = "off",     [IC_CLOSED] = "closed",   [IC_NEGOTIATING] = "negotiating",
	[IC_READY] = "ready", [IC_REFUSED] = "refused",
};

const char *ic_state_name(enum ic_state state)
{
	return state_names[state];
}

static void set_state(struct ic *ic, enum ic_state state)
{
	if (ic->state == state)
		return;
	ic->state = state;
	if (ic->changed)
		ic->changed(ic);
}

bool ic_at_least(const struct ic *ic, uint16_t major, uint16_t minor)
{
	return ic->version.major > major ||
	       (ic->version.major == major && ic->version.minor >= minor);
}

/* --- sending --- */

static void arm_answer(struct ic *ic)
{
	unsigned seconds = ic->service->answer_seconds;

	if (seconds && ic->state == IC_READY && !ic->paused)
		loop_timer_arm(&ic->answer_timer,
			       loop_now(ic->loop) + seconds * UINT64_C(1000000000));
}

static void push(struct ic *ic)
{
	/* While the machine stands still its rings do too: they may be on their way to a file. */
	if (!ic->channel || ic->paused || !ic->unsent || !vmbus_can_send(ic->channel, ic->size))
		return;
	ic->unsent = false;
	if (vmbus_send(ic->channel, VMBUS_PACKET_INBAND, 0, ic->message, ic->size) < 0)
		return; /* a ring that the guest broke: as if it did not answer */
	arm_answer(ic);
}

/* `type` with `size` bytes of body that are in place behind the heads. */
static void send(struct ic *ic, uint16_t type, size_t size)
{
	struct writer w = writer_of(ic->message, VMBUSPIPE_HDR_SIZE + ICMSG_HDR_SIZE);
	bool negotiated = type != ICMSGTYPE_NEGOTIATE;

	ic->transaction++;
	writer_le32(&w, VMBUSPIPE_DATA);
	writer_le32(&w, (uint32_t)(ICMSG_HDR_SIZE + size));
	writer_le16(&w, negotiated ? ic->framework.major : 0);
	writer_le16(&w, negotiated ? ic->framework.minor : 0);
	writer_le16(&w, type);
	writer_le16(&w, negotiated ? ic->version.major : 0);
	writer_le16(&w, negotiated ? ic->version.minor : 0);
	writer_le16(&w, (uint16_t)size);
	writer_le32(&w, 0);
	writer_u8(&w, ic->transaction);
	writer_u8(&w, ICMSGHDRFLAG_TRANSACTION | ICMSGHDRFLAG_REQUEST);
	writer_zero(&w, 2);
	ic->size = w.at + size;
	ic->busy = ic->unsent = true;
	push(ic);
	/* A guest that leaves no room is one that does not answer. */
	if (ic->unsent)
		arm_answer(ic);
}

struct writer ic_begin(struct ic *ic)
{
	size_t heads = VMBUSPIPE_HDR_SIZE + ICMSG_HDR_SIZE;

	return writer_of(ic->message + heads, sizeof(ic->message) - heads);
}

void ic_send(struct ic *ic, const struct writer *body)
{
	send(ic, ic->service->message, body->at);
}

bool ic_room(struct ic *ic, size_t size)
{
	return ic->channel &&
	       vmbus_can_send(ic->channel, VMBUSPIPE_HDR_SIZE + ICMSG_HDR_SIZE + size);
}

static void send_negotiate(struct ic *ic)
{
	const struct ic_service *s = ic->service;
	struct writer w = ic_begin(ic);
	size_t first = s->framework_1 ? 0 : 1;

	writer_le16(&w, (uint16_t)(ARRAY_SIZE(frameworks) - first));
	writer_le16(&w, (uint16_t)s->version_count);
	writer_le32(&w, 0);
	for (size_t i = first; i < ARRAY_SIZE(frameworks); i++) {
		writer_le16(&w, frameworks[i].major);
		writer_le16(&w, frameworks[i].minor);
	}
	for (unsigned i = 0; i < s->version_count; i++) {
		writer_le16(&w, s->versions[i].major);
		writer_le16(&w, s->versions[i].minor);
	}
	set_state(ic, IC_NEGOTIATING);
	send(ic, ICMSGTYPE_NEGOTIATE, w.at);
}

/* --- answers --- */

/* What was asked will not be answered; whether something was. */
static bool cut(struct ic *ic)
{
	bool asked = ic->busy && ic->state == IC_READY;

	loop_timer_disarm(&ic->answer_timer);
	ic->busy = ic->unsent = false;
	return asked;
}

static void on_answer_late(struct loop_timer *t)
{
	struct ic *ic = container_of(t, struct ic, answer_timer);

	if (cut(ic))
		ic->service->answered(ic, -ETIMEDOUT, 0, NULL);
}

static bool version_among(struct ic_version v, const struct ic_version *list, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (list[i].major == v.major && list[i].minor == v.minor)
			return true;
	return false;
}

/* One of each kind that we offered; or 0 and 0: it knows none. */
static bool take_negotiate(struct ic *ic, struct reader *r)
{
	const struct ic_service *s = ic->service;
	uint16_t framework_count = reader_le16(r), version_count = reader_le16(r);
	size_t first = s->framework_1 ? 0 : 1;
	struct ic_version framework, version;

	reader_skip(r, 4);
	framework.major = reader_le16(r), framework.minor = reader_le16(r);
	version.major = reader_le16(r), version.minor = reader_le16(r);
	if (!reader_ok(r))
		return false;
	ic->busy = false;
	if (framework_count != 1 || version_count != 1 ||
	    !version_among(framework, frameworks + first, ARRAY_SIZE(frameworks) - first) ||
	    !version_among(version, s->versions, s->version_count)) {
		ic->guest_framework = framework;
		ic->guest_version = version;
		set_state(ic, IC_REFUSED);
		return true;
	}
	ic->framework = framework;
	ic->version = version;
	set_state(ic, IC_READY);
	if (s->ready)
		s->ready(ic);
	return true;
}

/* Not what was asked; perhaps what was asked before. */
static bool take_stale(struct ic *ic, uint16_t type, uint8_t flags)
{
	if (ic->state == IC_READY && type == ic->service->message &&
	    flags & ICMSGHDRFLAG_RESPONSE && ic->service->heard)
		ic->service->heard(ic);
	return false;
}

static bool take(struct ic *ic, const struct vmbus_packet *p)
{
	struct reader r = reader_of(p->payload, p->size);
	uint16_t type, expected;
	uint32_t size, status;
	uint8_t transaction, flags;

	reader_skip(&r, 4);
	size = reader_le32(&r);
	reader_skip(&r, 4);
	type = reader_le16(&r);
	reader_skip(&r, 6);
	status = reader_le32(&r);
	transaction = reader_u8(&r);
	flags = reader_u8(&r);
	reader_skip(&r, 2);
	if (!reader_ok(&r) || p->type != VMBUS_PACKET_INBAND || size < ICMSG_HDR_SIZE ||
	    size > p->size - VMBUSPIPE_HDR_SIZE)
		return false;
	r.size = VMBUSPIPE_HDR_SIZE + size; /* what follows is the ring's padding */
	expected = ic->state == IC_READY ? ic->service->message : ICMSGTYPE_NEGOTIATE;
	if (!ic->busy || ic->unsent || type != expected || transaction != ic->transaction ||
	    !(flags & ICMSGHDRFLAG_RESPONSE))
		return take_stale(ic, type, flags);
	if (type == ICMSGTYPE_NEGOTIATE)
		return take_negotiate(ic, &r);
	loop_timer_disarm(&ic->answer_timer);
	ic->busy = false;
	ic->service->answered(ic, 0, status, &r);
	return true;
}

static void receive(struct ic *ic)
{
	for (int i = 0; ic->channel; i++) {
		struct vmbus_packet p;

		if (i == PACKETS_AT_ONCE) {
			loop_defer(ic->loop, &ic->more);
			return;
		}
		if (vmbus_receive(ic->channel, &p) <= 0)
			break;
		if (!take(ic, &p))
			ic->refused++;
	}
}

static void on_more(struct loop_task *t)
{
	receive(container_of(t, struct ic, more));
}

void ic_signal(void *device, struct vmbus_channel *ch)
{
	struct ic *ic = device;

	(void)ch;
	/* The first one comes right after the opening, when the guest is told of it too. */
	if (ic->state == IC_CLOSED)
		send_negotiate(ic);
	receive(ic);
	push(ic);
	if (ic->service->room && ic->state == IC_READY && !ic->busy)
		ic->service->room(ic);
}

/* --- the channel --- */

int ic_open(void *device, struct vmbus_channel *ch)
{
	struct ic *ic = device;

	ic->channel = ch;
	return 0;
}

static void lose(struct ic *ic, enum ic_state state)
{
	bool ready = ic->state == IC_READY, asked = cut(ic);

	loop_cancel(ic->loop, &ic->more);
	set_state(ic, state); /* first: nothing can be asked any more */
	if (asked)
		ic->service->answered(ic, -ECONNRESET, 0, NULL);
	if (ready && ic->service->gone)
		ic->service->gone(ic);
}

void ic_close(void *device, struct vmbus_channel *ch)
{
	struct ic *ic = device;

	ic->channel = NULL;
	lose(ic, ic->leaving || !ic->offer ? IC_OFF : IC_CLOSED);
	if (ic->held)
		ic->closing = ch;
	else
		vmbus_channel_closed(ch);
}

void ic_hold(struct ic *ic)
{
	ic->held = true;
}

void ic_release(struct ic *ic)
{
	struct vmbus_channel *ch = steal_ptr(ic->closing);

	ic->held = false;
	if (ch)
		vmbus_channel_closed(ch);
}

void ic_reset(void *device)
{
	struct ic *ic = device;

	ic->refused = 0;
}

void ic_restart(struct ic *ic)
{
	if (!ic->channel)
		return;
	lose(ic, IC_CLOSED);
	send_negotiate(ic);
}

void ic_pause(struct ic *ic)
{
	ic->paused = true;
	loop_timer_disarm(&ic->answer_timer);
}

void ic_resume(struct ic *ic)
{
	ic->paused = false;
	push(ic);
	if (ic->busy)
		arm_answer(ic);
}

/* --- on and off --- */

static int offer(struct ic *ic, struct error *err)
{
	struct vmbus_offer_options o = { .instance = ic->service->instance };
	struct writer w = writer_of(o.user_data, sizeof(o.user_data));
	int r;

	writer_le32(&w, VMBUSPIPE_MESSAGE);
	r = vmbus_device_offer(ic->bus, &ic->service->type, ic, &o, &ic->offer, err);
	if (r >= 0)
		set_state(ic, IC_CLOSED);
	return r;
}

static void on_rescinded(void *device)
{
	struct ic *ic = device;

	ic->offer = NULL;
	ic->leaving = false;
	set_state(ic, IC_OFF);
	/* Wanted again meanwhile: not before the guest has let go of the first offer. */
	if (ic->wanted)
		(void)!offer(ic, NULL);
}

int ic_switch(struct ic *ic, bool on, struct error *err)
{
	ic->wanted = on;
	if (on)
		return ic->offer ? 0 : offer(ic, err);
	if (!ic->offer || ic->leaving)
		return 0;
	ic->leaving = true;
	vmbus_device_rescind(ic->offer, on_rescinded);
	return 0;
}

void ic_init(struct ic *ic, const struct ic_service *service, struct loop *loop, struct vmbus *bus)
{
	ic->service = service;
	ic->loop = loop;
	ic->bus = bus;
	loop_timer_init(loop, &ic->answer_timer, on_answer_late);
	loop_task_init(&ic->more, on_more);
}

void ic_deinit(struct ic *ic)
{
	if (!ic->loop)
		return;
	loop_timer_disarm(&ic->answer_timer);
	loop_cancel(ic->loop, &ic->more);
}

/* --- words --- */

int ic_usable(const struct ic *ic, struct error *err)
{
	static const char *const why[] = {
		[IC_OFF] = "the service is switched off for this machine",
		[IC_CLOSED] =
			"the guest has not opened the service: its driver is not loaded (yet)",
		[IC_NEGOTIATING] =
			"the guest has not picked a version yet: its daemon may be missing",
		[IC_REFUSED] = "the guest speaks no version of the service that we know",
	};

	if (ic->state != IC_READY)
		return error_set(err, -ENOTCONN, "%s: %s", ic->service->name, why[ic->state]);
	if (ic->paused)
		return error_set(err, -ENOTCONN, "%s: the machine is paused", ic->service->name);
	if (ic->busy)
		return error_set(err, -EBUSY,
				 "%s: the guest has not answered what was asked before",
				 ic->service->name);
	return 0;
}

static const struct {
	uint32_t status;
	int code;
	const char *words;
} statuses[] = {
	{ HV_E_FAIL, -EIO, "the guest failed: its daemon is not running or could not do it" },
	{ HV_S_CONT, -ENOENT, "the guest has no more items" },
	{ HV_ERROR_NOT_SUPPORTED, -EOPNOTSUPP, "the guest does not support this" },
	{ HV_ERROR_ALREADY_EXISTS, -EEXIST, "the guest has a file of that name already" },
	{ HV_INVALIDARG, -EINVAL, "the guest found the request not valid" },
	{ HV_ERROR_DISK_FULL, -ENOSPC, "the guest's disk is full" },
	{ HV_ERROR_MACHINE_LOCKED, -EBUSY, "the guest is locked" },
	{ HV_ERROR_DEVICE_NOT_CONNECTED, -ENODEV, "the guest has no such adapter connected" },
	{ HV_GUID_NOTFOUND, -ENODEV, "the guest has no adapter with that address" },
	{ HV_ERROR_FILE_NOT_FOUND, -ENOENT, "the guest did not find it" },
	{ HV_ERROR_PATH_NOT_FOUND, -ENOENT, "the guest has no such folder" },
	{ HV_ERROR_ACCESS_DENIED, -EACCES, "the guest denied access" },
};

int ic_status_error(uint32_t status, struct error *err)
{
	if (status == HV_S_OK)
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(statuses); i++)
		if (statuses[i].status == status)
			return error_set(err, statuses[i].code, "%s", statuses[i].words);
	return error_set(err, -EIO, "the guest answered with status 0x%08x", status);
}

bool ic_text(struct writer *w, const char *text, size_t room)
{
	uint8_t *at = writer_take(w, room);
	size_t size;

	if (!at)
		return false;
	memset(at, 0, room);
	if (!*text)
		return true;
	size = utf16_encode(text, at, room - 2, UTF16_LE);
	return size && size <= room - 2;
}
