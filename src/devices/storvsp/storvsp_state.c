// SPDX-License-Identifier: MIT
/*
 * Saving and restoring the controller. It comes to rest when no SCSI request runs: then no I/O is
 * part of the state, only completions that found no room in the guest's ring. Runs on the event
 * loop's thread.
 */
#include "devices/storvsp/storvsp_channel.h"

#include <errno.h>

struct saved_controller {
	uint8_t state; /* enum storvsp_state */
	bool notify;
};

static const struct save_field controller_fields[] = {
	SAVE_FIELD(struct saved_controller, state),
	SAVE_FIELD(struct saved_controller, notify),
};
static const struct save_table controller_table =
	SAVE_TABLE("storvsp.controller", 1, struct saved_controller, controller_fields);

struct saved_completion {
	uint32_t channel;
	uint64_t transaction_id;
	struct vstor_packet response;
};

static const struct save_field completion_fields[] = {
	SAVE_FIELD(struct saved_completion, channel),
	SAVE_FIELD(struct saved_completion, transaction_id),
	SAVE_BYTES(struct saved_completion, response),
};
static const struct save_table completion_table =
	SAVE_TABLE("storvsp.completion", 1, struct saved_completion, completion_fields);

/* --- rest --- */

static bool running(const struct storvsp *s)
{
	for (unsigned i = 0; i < STORVSP_MAX_CHANNELS; i++)
		if (s->channels[i].ch && s->channels[i].running)
			return true;
	return false;
}

void storvsp_pause_check(struct storvsp *s)
{
	struct vmbus_channel *primary = s->pausing;

	if (!primary || running(s))
		return;
	s->pausing = NULL;
	vmbus_device_paused(primary);
}

void storvsp_pause(void *device, struct vmbus_channel *primary)
{
	struct storvsp *s = device;

	s->paused = true;
	s->pausing = primary;
	storvsp_pause_check(s);
}

void storvsp_resume(void *device)
{
	struct storvsp *s = device;

	s->paused = false;
	s->pausing = NULL;
	storvsp_channels_wake(s);
}

/* --- saving --- */

static void save_completions(const struct storvsp_channel *c, unsigned index, struct save_writer *w)
{
	list_foreach(it, &c->ready)
	{
		const struct storvsp_request *rq = list_entry(it, struct storvsp_request, node);
		const struct saved_completion s = { .channel = index,
						    .transaction_id = rq->transaction_id,
						    .response = rq->response };

		save_put(w, &completion_table, &s);
	}
}

int storvsp_save(void *device, struct save_writer *w, struct error *err)
{
	struct storvsp *s = device;
	const struct saved_controller c = { .state = (uint8_t)s->state, .notify = s->notify };

	(void)err;
	save_put(w, &controller_table, &c);
	for (unsigned i = 0; i < STORVSP_MAX_CHANNELS; i++)
		if (s->channels[i].ch)
			save_completions(&s->channels[i], i, w);
	scsi_target_save(s->target, w);
	return 0;
}

/* --- restoring --- */

static int restore_completions(struct storvsp *s, struct save_reader *r, struct error *err)
{
	struct saved_completion c;
	int n;

	while ((n = save_next(r, &completion_table, &c, err)) > 0) {
		struct storvsp_channel *ch;
		struct storvsp_request *rq;

		if (c.channel >= STORVSP_MAX_CHANNELS || !s->channels[c.channel].ch)
			return error_set(err, -EBADMSG,
					 "a completion for a channel that is not "
					 "open");
		ch = &s->channels[c.channel];
		rq = storvsp_request_take(ch);
		if (!rq)
			return error_set(err, -EBADMSG, "more completions than a channel has");
		rq->transaction_id = c.transaction_id;
		rq->response = c.response;
		list_remove(&rq->node);
		list_append(&ch->ready, &rq->node);
	}
	return n;
}

int storvsp_restore(void *device, struct save_reader *r, struct error *err)
{
	struct storvsp *s = device;
	struct saved_controller c;
	int n = save_get(r, &controller_table, &c, err);

	if (n < 0)
		return n;
	if (c.state > STORVSP_READY || (c.state != STORVSP_BEGIN && !s->channels[0].ch))
		return error_set(err, -EBADMSG, "a state of the protocol that does not exist");
	s->state = c.state;
	s->notify = c.notify;
	s->paused = true;
	n = restore_completions(s, r, err);
	return n < 0 ? n : scsi_target_restore(s->target, r, err);
}
