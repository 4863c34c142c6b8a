// SPDX-License-Identifier: MIT
/*
 * See timesync.h. From 4.0 on a message says at which reference time (TLFS 12.4) the host's time
 * was read, so the guest knows how old it is; before, the way to the guest counts as lateness. A
 * message is made only when it can go out at once. Event loop's thread.
 */
#include "devices/ic/timesync.h"

#include "devices/ic/ic_proto.h"

#include <time.h>

#define UNIX_EPOCH 116444736000000000u /* in 100 ns since 1601; MS-DTYP 2.3.3 */

static const struct ic_version versions[] = { { 1, 0 }, { 3, 0 }, { 4, 0 } };

static struct timesync *of(struct ic *ic)
{
	return container_of(ic, struct timesync, ic);
}

static uint64_t host_time(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return UNIX_EPOCH + (uint64_t)now.tv_sec * 10000000 + (uint64_t)now.tv_nsec / 100;
}

static void write_time(struct timesync *t, struct writer *w, uint8_t flags)
{
	uint64_t reference = 0;

	if (!ic_at_least(&t->ic, 4, 0)) {
		writer_le64(w, host_time());
		writer_zero(w, 16);
		writer_u8(w, flags);
		return;
	}
	(void)!vmbus_channel_reference_time(t->ic.channel, &reference);
	writer_le64(w, host_time());
	writer_le64(w, reference);
	writer_u8(w, flags);
	writer_zero(w, 5); /* no leap second; stratum unspecified */
}

/* Not when the guest leaves no room or has not answered the last one: that would be old news. */
static void tell(struct timesync *t)
{
	uint8_t flags = t->sync_due ? ICTIMESYNCFLAG_SYNC : ICTIMESYNCFLAG_SAMPLE;
	struct writer w;

	if (ic_usable(&t->ic, NULL) < 0 || !ic_room(&t->ic, 32))
		return;
	w = ic_begin(&t->ic);
	write_time(t, &w, flags);
	t->messages++;
	t->syncs += t->sync_due;
	t->sync_due = false;
	ic_send(&t->ic, &w);
}

static void arm(struct timesync *t)
{
	loop_timer_arm(&t->timer, loop_now(t->ic.loop) + TIMESYNC_SECONDS * UINT64_C(1000000000));
}

/* A guest that does not answer costs nothing until it does. */
static void on_tick(struct loop_timer *timer)
{
	struct timesync *t = container_of(timer, struct timesync, timer);

	if (t->ic.busy)
		return;
	tell(t);
	arm(t);
}

static void on_ready(struct ic *ic)
{
	struct timesync *t = of(ic);

	t->sync_due = true;
	tell(t);
	arm(t);
}

static void on_gone(struct ic *ic)
{
	loop_timer_disarm(&of(ic)->timer);
}

static void on_answer(struct ic *ic, int result, uint32_t status, struct reader *body)
{
	struct timesync *t = of(ic);

	(void)status;
	(void)body;
	if (result < 0)
		return;
	if (t->sync_due)
		tell(t);
	if (!t->timer.deadline && !ic->paused)
		arm(t);
}

static void on_room(struct ic *ic)
{
	if (of(ic)->sync_due)
		tell(of(ic));
}

static const struct ic_service service = {
	.name = "time-synchronization",
	.type = IC_BUS_TYPE("timesync", 0x9527e630, 0xd0ae, 0x497b, 0xad, 0xce, 0xe8, 0x0a, 0xb0,
			    0x17, 0x5c, 0xaf),
	.instance =
		GUID(0x2dd1ce17, 0x079e, 0x403c, 0xb3, 0x52, 0xa1, 0x92, 0x1e, 0xe2, 0x07, 0xee),
	.message = ICMSGTYPE_TIMESYNC,
	.framework_1 = true,
	.versions = versions,
	.version_count = ARRAY_SIZE(versions),
	.ready = on_ready,
	.gone = on_gone,
	.answered = on_answer,
	.room = on_room,
};

void timesync_pause(struct timesync *t)
{
	ic_pause(&t->ic);
	loop_timer_disarm(&t->timer);
}

void timesync_resume(struct timesync *t)
{
	ic_resume(&t->ic);
	if (t->ic.state != IC_READY)
		return;
	t->sync_due = true;
	tell(t);
	arm(t);
}

void timesync_init(struct timesync *t, struct loop *loop, struct vmbus *bus)
{
	ic_init(&t->ic, &service, loop, bus);
	loop_timer_init(loop, &t->timer, on_tick);
}

void timesync_deinit(struct timesync *t)
{
	if (t->ic.loop)
		loop_timer_disarm(&t->timer);
	ic_deinit(&t->ic);
}
