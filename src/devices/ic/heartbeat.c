// SPDX-License-Identifier: MIT
/* See heartbeat.h. Event loop's thread. */
#include "devices/ic/heartbeat.h"

#include "devices/ic/ic_proto.h"

static const struct ic_version versions[] = { { 1, 0 }, { 3, 0 } };

static struct heartbeat *of(struct ic *ic)
{
	return container_of(ic, struct heartbeat, ic);
}

enum heartbeat_state heartbeat_state(const struct heartbeat *h)
{
	if (h->ic.state == IC_OFF)
		return HEARTBEAT_DISABLED;
	if (h->ic.state == IC_REFUSED)
		return HEARTBEAT_ERROR;
	if (h->ic.paused)
		return HEARTBEAT_PAUSED;
	if (h->ic.state != IC_READY || !h->heard)
		return HEARTBEAT_NO_CONTACT;
	return h->lost ? HEARTBEAT_LOST : HEARTBEAT_OK;
}

const char *heartbeat_state_name(enum heartbeat_state state)
{
	static const char *const names[] = {
		[HEARTBEAT_DISABLED] = "disabled",
		[HEARTBEAT_NO_CONTACT] = "no-contact",
		[HEARTBEAT_OK] = "ok",
		[HEARTBEAT_LOST] = "lost",
		[HEARTBEAT_PAUSED] = "paused",
		[HEARTBEAT_ERROR] = "error",
	};

	return names[state];
}

const char *heartbeat_application_name(enum heartbeat_application application)
{
	static const char *const names[] = {
		[HEARTBEAT_UNKNOWN] = "unknown",
		[HEARTBEAT_HEALTHY] = "healthy",
		[HEARTBEAT_CRITICAL] = "critical",
		[HEARTBEAT_STOPPED] = "stopped",
	};

	return names[application];
}

static void tell(struct heartbeat *h, enum heartbeat_application application)
{
	enum heartbeat_state now = heartbeat_state(h);

	if (now == h->told && application == h->application)
		return;
	h->told = now;
	h->application = application;
	if (h->changed)
		h->changed(h);
}

static void arm(struct heartbeat *h)
{
	loop_timer_arm(&h->timer, loop_now(h->ic.loop) + HEARTBEAT_SECONDS * UINT64_C(1000000000));
}

static void beat(struct heartbeat *h)
{
	struct writer w = ic_begin(&h->ic);

	writer_le64(&w, ++h->sequence);
	writer_zero(&w, HEARTBEAT_MSG_SIZE - 8);
	ic_send(&h->ic, &w);
}

static void on_beat(struct loop_timer *t)
{
	struct heartbeat *h = container_of(t, struct heartbeat, timer);

	if (h->ic.state != IC_READY || h->ic.paused)
		return;
	if (!h->ic.busy) {
		beat(h);
		arm(h);
	} else if (++h->missed < HEARTBEAT_LOST_AFTER) {
		arm(h);
	} else {
		/* Whenever the answer comes, it goes on; until then nobody is woken. */
		h->lost = true;
		tell(h, HEARTBEAT_UNKNOWN);
	}
}

static void on_ready(struct ic *ic)
{
	struct heartbeat *h = of(ic);

	h->missed = 0;
	if (ic->paused)
		return;
	beat(h);
	arm(h);
}

static void on_gone(struct ic *ic)
{
	struct heartbeat *h = of(ic);

	loop_timer_disarm(&h->timer);
	h->heard = h->lost = false;
	tell(h, HEARTBEAT_UNKNOWN);
}

static void on_answer(struct ic *ic, int result, uint32_t status, struct reader *body)
{
	struct heartbeat *h = of(ic);
	uint64_t sequence;
	uint32_t application;

	if (result < 0)
		return;
	sequence = reader_le64(body);
	application = reader_le32(body);
	if (!reader_ok(body) || status != HV_S_OK || sequence != h->sequence + 1) {
		ic->refused++; /* not an answer to what was asked; the next beat will tell */
		if (h->lost)
			arm(h);
		return;
	}
	h->beats++;
	h->missed = 0;
	if (h->lost || !h->timer.deadline)
		arm(h);
	h->heard = true;
	h->lost = false;
	tell(h, application <= HEARTBEAT_STOPPED ? (enum heartbeat_application)application
						 : HEARTBEAT_UNKNOWN);
}

static void on_changed(struct ic *ic)
{
	tell(of(ic), HEARTBEAT_UNKNOWN);
}

static const struct ic_service service = {
	.name = "heartbeat",
	.type = IC_BUS_TYPE("heartbeat", 0x57164f39, 0x9115, 0x4e78, 0xab, 0x55, 0x38, 0x2f, 0x3b,
			    0xd5, 0x42, 0x2d),
	.instance =
		GUID(0xfd149e91, 0x82e0, 0x4a7d, 0xaf, 0xa6, 0x2a, 0x41, 0x66, 0xcb, 0xd7, 0xc0),
	.message = ICMSGTYPE_HEARTBEAT,
	.framework_1 = true,
	.versions = versions,
	.version_count = ARRAY_SIZE(versions),
	.ready = on_ready,
	.gone = on_gone,
	.answered = on_answer,
};

void heartbeat_pause(struct heartbeat *h)
{
	ic_pause(&h->ic);
	loop_timer_disarm(&h->timer);
	tell(h, h->application);
}

void heartbeat_resume(struct heartbeat *h)
{
	ic_resume(&h->ic);
	h->missed = 0;
	if (h->ic.state == IC_READY)
		arm(h);
	tell(h, h->application);
}

void heartbeat_init(struct heartbeat *h, struct loop *loop, struct vmbus *bus)
{
	ic_init(&h->ic, &service, loop, bus);
	h->ic.changed = on_changed;
	loop_timer_init(loop, &h->timer, on_beat);
}

void heartbeat_deinit(struct heartbeat *h)
{
	if (h->ic.loop)
		loop_timer_disarm(&h->timer);
	ic_deinit(&h->ic);
}
