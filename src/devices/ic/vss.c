// SPDX-License-Identifier: MIT
/*
 * See vss.h. A freeze is two questions: can the guest be backed up while it runs, and then the
 * order. Whatever becomes of the order, a thaw follows it; a thaw that is not answered counts as
 * done, since the guest thaws by itself in the end. Event loop's thread.
 */
#include "devices/ic/vss.h"

#include "devices/ic/ic_proto.h"
#include "lib/cleanup.h"

#include <errno.h>

static const struct ic_version versions[] = { { 5, 0 } };

static struct vss *of(struct ic *ic)
{
	return container_of(ic, struct vss, ic);
}

const char *vss_state_name(enum vss_state state)
{
	static const char *const names[] = {
		[VSS_IDLE] = "idle",     [VSS_ASKING] = "asking",   [VSS_FREEZING] = "freezing",
		[VSS_FROZEN] = "frozen", [VSS_THAWING] = "thawing",
	};

	return names[state];
}

static void end(struct vss *v, int result, const struct error *err)
{
	void (*done)(void *, int, const struct error *) = steal_ptr(v->done);

	if (done)
		done(v->context, result, err);
}

static void order(struct vss *v, uint8_t operation, enum vss_state state)
{
	struct writer w = ic_begin(&v->ic);

	v->state = state;
	writer_u8(&w, operation);
	writer_zero(&w, HV_VSS_MSG_SIZE - 1);
	ic_send(&v->ic, &w);
}

static void thaw_unasked(struct vss *v, const char *reason)
{
	if (v->ic.state == IC_READY)
		order(v, VSS_OP_THAW, VSS_THAWING);
	else
		v->state = VSS_IDLE;
	if (v->thawed)
		v->thawed(v, reason);
}

static void on_limit(struct loop_timer *t)
{
	struct vss *v = container_of(t, struct vss, limit_timer);

	if (v->state == VSS_FROZEN)
		thaw_unasked(v, "its time limit is over");
}

static int failed(int result, uint32_t status, const char *what, struct error *err)
{
	if (result == -ETIMEDOUT)
		return error_set(err, result, "the guest did not answer within %u s",
				 VSS_ANSWER_SECONDS);
	if (result < 0)
		return error_set(err, result, "the guest went away before it answered");
	if (ic_status_error(status, err) < 0)
		return error_prefix(err, "%s", what);
	return 0;
}

static void asked(struct vss *v, int result, uint32_t status, struct reader *body)
{
	struct error err = { 0 };

	result = failed(result, status, "the guest cannot be backed up while it runs", &err);
	if (result < 0) {
		v->state = VSS_IDLE;
		end(v, result, &err);
		return;
	}
	reader_skip(body, 8);
	v->can_recover = reader_le32(body) == 0;
	order(v, VSS_OP_FREEZE, VSS_FREEZING);
}

static void frozen(struct vss *v, int result, uint32_t status, struct reader *body)
{
	struct error err = { 0 };

	(void)body;
	result = failed(result, status, "the guest did not freeze its file systems", &err);
	if (result < 0) {
		/* Some may be frozen all the same. */
		v->state = VSS_IDLE;
		if (v->ic.state == IC_READY)
			order(v, VSS_OP_THAW, VSS_THAWING);
		end(v, result, &err);
		return;
	}
	v->state = VSS_FROZEN;
	loop_timer_arm(&v->limit_timer, loop_now(v->ic.loop) + v->limit * UINT64_C(1000000000));
	end(v, 0, NULL);
}

static void thawed(struct vss *v, int result, uint32_t status, struct reader *body)
{
	struct error err = { 0 };

	(void)body;
	v->state = VSS_IDLE;
	end(v, failed(result, status, "the guest did not thaw its file systems", &err), &err);
}

static void on_answer(struct ic *ic, int result, uint32_t status, struct reader *body)
{
	static void (*const next[])(struct vss *, int, uint32_t, struct reader *) = {
		[VSS_ASKING] = asked,
		[VSS_FREEZING] = frozen,
		[VSS_THAWING] = thawed,
	};
	struct vss *v = of(ic);

	if (v->state < ARRAY_SIZE(next) && next[v->state])
		next[v->state](v, result, status, body);
}

static void on_gone(struct ic *ic)
{
	struct vss *v = of(ic);
	bool told = v->state == VSS_FROZEN;

	loop_timer_disarm(&v->limit_timer);
	v->state = VSS_IDLE;
	if (told && v->thawed)
		v->thawed(v, "the guest has closed the service or was reset");
}

static const struct ic_service service = {
	.name = "backup",
	.type = IC_BUS_TYPE("vss", 0x35fa2e29, 0xea23, 0x4236, 0x96, 0xae, 0x3a, 0x6e, 0xba, 0xcb,
			    0xa4, 0x40),
	.instance =
		GUID(0x2450ee40, 0x33bf, 0x4fbd, 0x89, 0x2e, 0x9f, 0xb0, 0x6e, 0x92, 0x14, 0xcf),
	.message = ICMSGTYPE_VSS,
	.versions = versions,
	.version_count = ARRAY_SIZE(versions),
	.answer_seconds = VSS_ANSWER_SECONDS,
	.gone = on_gone,
	.answered = on_answer,
};

int vss_freeze(struct vss *v, unsigned seconds,
	       void (*done)(void *context, int result, const struct error *err), void *context,
	       struct error *err)
{
	int r;

	if (v->state != VSS_IDLE)
		return error_set(err, -EBUSY, "the guest is %s", vss_state_name(v->state));
	if (!seconds || seconds > VSS_FREEZE_MAX)
		return error_set(err, -EINVAL, "a guest can be frozen for 1 to %u s",
				 VSS_FREEZE_MAX);
	r = ic_usable(&v->ic, err);
	if (r < 0)
		return r;
	v->limit = seconds;
	v->done = done;
	v->context = context;
	order(v, VSS_OP_HOT_BACKUP, VSS_ASKING);
	return 0;
}

int vss_thaw(struct vss *v, void (*done)(void *context, int result, const struct error *err),
	     void *context, struct error *err)
{
	int r;

	if (v->state != VSS_FROZEN)
		return error_set(err, -EINVAL, "the guest is not frozen (it is %s)",
				 vss_state_name(v->state));
	r = ic_usable(&v->ic, err);
	if (r < 0)
		return r;
	loop_timer_disarm(&v->limit_timer);
	v->done = done;
	v->context = context;
	order(v, VSS_OP_THAW, VSS_THAWING);
	return 0;
}

void vss_init(struct vss *v, struct loop *loop, struct vmbus *bus)
{
	ic_init(&v->ic, &service, loop, bus);
	loop_timer_init(loop, &v->limit_timer, on_limit);
}

void vss_deinit(struct vss *v)
{
	if (v->ic.loop)
		loop_timer_disarm(&v->limit_timer);
	ic_deinit(&v->ic);
}
