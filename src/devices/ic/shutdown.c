// SPDX-License-Identifier: MIT
/* See shutdown.h. Event loop's thread. */
#include "devices/ic/shutdown.h"

#include "devices/ic/ic_proto.h"
#include "lib/cleanup.h"

#include <errno.h>

static const struct ic_version versions[] = { { 1, 0 }, { 3, 0 }, { 3, 1 }, { 3, 2 } };

/* Older versions know powering off only: Linux drivers/hv/hv_util.c. */
static const struct {
	uint32_t flag;
	uint16_t minor; /* of 3.x, from which a guest knows it */
	const char *name;
} actions[SHUTDOWN_ACTIONS] = {
	[SHUTDOWN_POWER_OFF] = { 0, 0, "power off" },
	[SHUTDOWN_RESTART_GUEST] = { SHUTDOWN_RESTART, 1, "restart" },
	[SHUTDOWN_HIBERNATE_GUEST] = { SHUTDOWN_HIBERNATE, 2, "hibernate" },
};

int shutdown_ask(struct shutdown *s, const struct shutdown_request *q,
		 void (*done)(void *context, int result, const struct error *err), void *context,
		 struct error *err)
{
	const char *reason = q->reason ? q->reason : "";
	struct writer w;
	int r = ic_usable(&s->ic, err);

	if (r < 0)
		return r;
	if (q->action != SHUTDOWN_POWER_OFF && !ic_at_least(&s->ic, 3, actions[q->action].minor))
		return error_set(err, -EOPNOTSUPP,
				 "the guest cannot be asked to %s: it speaks version %u.%u of the "
				 "shutdown service, 3.%u has that",
				 actions[q->action].name, s->ic.version.major, s->ic.version.minor,
				 actions[q->action].minor);
	w = ic_begin(&s->ic);
	writer_le32(&w, SHTDN_REASON_FLAG_PLANNED);
	writer_le32(&w, q->patience);
	writer_le32(&w, actions[q->action].flag | (q->force ? SHUTDOWN_FORCE : 0));
	if (strlen(reason) > SHUTDOWN_REASON_MAX || !ic_text(&w, reason, SHUTDOWN_MESSAGE_SIZE))
		return error_set(err, -EINVAL, "the reason must be text of at most %u bytes",
				 SHUTDOWN_REASON_MAX);
	s->done = done;
	s->context = context;
	ic_send(&s->ic, &w);
	return 0;
}

static void on_answer(struct ic *ic, int result, uint32_t status, struct reader *body)
{
	struct shutdown *s = container_of(ic, struct shutdown, ic);
	void (*done)(void *, int, const struct error *) = steal_ptr(s->done);
	struct error err = { 0 };

	(void)body;
	if (result == -ETIMEDOUT)
		result = error_set(&err, result, "the guest did not answer within %u s",
				   SHUTDOWN_ANSWER_SECONDS);
	else if (result < 0)
		result = error_set(&err, result, "the guest went away before it answered");
	else if (ic_status_error(status, &err) < 0)
		result = error_set(&err, -EPERM, "the guest refused to (status 0x%08x)", status);
	if (done)
		done(s->context, result, &err);
}

static const struct ic_service service = {
	.name = "shutdown",
	.type = IC_BUS_TYPE("shutdown", 0x0e0b6031, 0x5213, 0x4934, 0x81, 0x8b, 0x38, 0xd9, 0x0c,
			    0xed, 0x39, 0xdb),
	.instance =
		GUID(0xb6650ff7, 0x33bc, 0x4840, 0x80, 0x48, 0xe0, 0x67, 0x67, 0x86, 0xf3, 0x93),
	.message = ICMSGTYPE_SHUTDOWN,
	.framework_1 = true,
	.versions = versions,
	.version_count = ARRAY_SIZE(versions),
	.answer_seconds = SHUTDOWN_ANSWER_SECONDS,
	.answered = on_answer,
};

void shutdown_init(struct shutdown *s, struct loop *loop, struct vmbus *bus)
{
	ic_init(&s->ic, &service, loop, bus);
}
