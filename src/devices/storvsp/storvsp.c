// SPDX-License-Identifier: MIT
/*
 * The synthetic SCSI controller's channels: opening and closing, receiving packets into requests,
 * sending completions. What a packet means is in storvsp_packet.c. Owned by the worker, runs on the
 * event loop's thread.
 *
 * Flow: a channel receives only while it has a free request and nothing waits for room in the ring,
 * so a completion is never lost and a guest that does not read its ring stops only itself. One
 * round of the event loop takes a bounded number of packets, so that no guest keeps the loop from
 * its other work. Completions are gathered until the end of the round and sent together.
 */
#include "devices/storvsp/storvsp.h"

#include "devices/storvsp/storvsp_channel.h"
#include "lib/cleanup.h"

#include <assert.h>
#include <errno.h>
#include <sys/mman.h>

#define DEFAULT_DEPTH 512
#define MAX_DEPTH     4096
#define ROUND_BUDGET  256 /* packets per channel and round */

/* --- requests --- */

struct storvsp_request *storvsp_request_take(struct storvsp_channel *c)
{
	struct storvsp_request *rq;

	if (!list_empty(&c->free)) {
		rq = list_first(&c->free, struct storvsp_request, node);
		list_remove(&rq->node);
		return rq;
	}
	if (c->fresh == c->s->options.queue_depth)
		return NULL;
	rq = &c->pool[c->fresh++];
	rq->channel = c;
	list_init(&rq->node);
	return rq;
}

static void request_put(struct storvsp_request *rq)
{
	list_remove(&rq->node);
	list_append(rq->channel->free.next, &rq->node); /* to the front */
}

void storvsp_request_drop(struct storvsp_request *rq)
{
	rq->channel->s->stats.packets_refused++;
	request_put(rq);
}

void storvsp_request_ready(struct storvsp_request *rq)
{
	struct storvsp_channel *c = rq->channel;

	list_append(&c->ready, &rq->node);
	loop_defer(c->s->loop, &c->run);
}

/* --- one channel --- */

/* Sends what is ready, while there is room. */
static void channel_flush(struct storvsp_channel *c)
{
	c->blocked = false;
	while (!list_empty(&c->ready)) {
		struct storvsp_request *rq = list_first(&c->ready, struct storvsp_request, node);

		if (!c->broken && !vmbus_can_send(c->ch, sizeof(rq->response))) {
			c->blocked = true;
			c->s->stats.no_room++;
			return;
		}
		if (!c->broken && vmbus_send(c->ch, VMBUS_PACKET_COMPLETION, rq->transaction_id,
					     &rq->response, sizeof(rq->response)) < 0)
			c->broken = true;
		request_put(rq);
	}
}

/* Transaction 0 belongs to packets that nobody asked for. */
static void channel_notify(struct storvsp_channel *c)
{
	struct vstor_packet p = { .header.operation = le32_of(VSTOR_ENUMERATE_BUS) };

	if (!c->s->notify || c->s->paused || c != &c->s->channels[0] ||
	    c->s->state != STORVSP_READY || c->blocked || c->broken)
		return;
	if (!vmbus_can_send(c->ch, sizeof(p)))
		return; /* `signal` comes when it can */
	if (vmbus_send(c->ch, VMBUS_PACKET_INBAND, 0, &p, sizeof(p)) < 0)
		c->broken = true;
	c->s->notify = false;
}

static bool channel_may_receive(const struct storvsp_channel *c)
{
	bool spoken_to = c == &c->s->channels[0] || c->s->state == STORVSP_READY;

	return spoken_to && !c->blocked && !c->broken && !c->s->paused;
}

/* False when this round's share is used up; the next round goes on then. */
static bool channel_charge(struct storvsp_channel *c)
{
	if (c->round != loop_now(c->s->loop)) {
		c->round = loop_now(c->s->loop);
		c->budget = ROUND_BUDGET;
	}
	if (!c->budget) {
		loop_timer_arm(&c->next_round, c->round + 1); /* not due in this round */
		return false;
	}
	c->budget--;
	return true;
}

static unsigned channel_receive(struct storvsp_channel *c)
{
	struct vmbus_packet packet;
	unsigned count = 0;

	while (channel_may_receive(c) && channel_charge(c)) {
		struct storvsp_request *rq = storvsp_request_take(c);
		int r;

		if (!rq)
			return count; /* a completion will run the channel again */
		r = vmbus_receive(c->ch, &packet);
		if (r <= 0) {
			c->broken = r < 0;
			request_put(rq);
			return count;
		}
		storvsp_packet_handle(c, rq, &packet);
		count++;
	}
	return count;
}

static size_t pool_size(const struct storvsp *s)
{
	return s->options.queue_depth * sizeof(struct storvsp_request);
}

/* Not calloc: that clears what it used before, and the pool would cost its full size. */
static struct storvsp_request *pool_map(const struct storvsp *s)
{
	void *pool = mmap(NULL, pool_size(s), PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return pool == MAP_FAILED ? NULL : pool;
}

static void channel_finish(struct storvsp_channel *c)
{
	struct vmbus_channel *ch = steal_ptr(c->ch);

	loop_cancel(c->s->loop, &c->run);
	loop_timer_disarm(&c->next_round);
	munmap(steal_ptr(c->pool), pool_size(c->s));
	vmbus_channel_closed(ch);
}

static void channel_run(struct storvsp_channel *c)
{
	if (!c->ch)
		return;
	if (c->closing) {
		if (!c->running)
			channel_finish(c);
		storvsp_pause_check(c->s);
		return;
	}
	do
		channel_flush(c);
	while (channel_receive(c));
	channel_flush(c);
	channel_notify(c);
	storvsp_pause_check(c->s);
}

static void on_run(struct loop_task *t)
{
	channel_run(container_of(t, struct storvsp_channel, run));
}

static void on_next_round(struct loop_timer *t)
{
	channel_run(container_of(t, struct storvsp_channel, next_round));
}

void storvsp_channels_wake(struct storvsp *s)
{
	for (unsigned i = 0; i < STORVSP_MAX_CHANNELS; i++)
		if (s->channels[i].ch)
			loop_defer(s->loop, &s->channels[i].run);
}

/* --- what VMBus asks --- */

static int storvsp_open(void *device, struct vmbus_channel *ch)
{
	struct storvsp *s = device;
	unsigned index = vmbus_channel_index(ch);
	struct storvsp_channel *c;

	if (index >= s->options.max_channels)
		return -ENOSPC;
	c = &s->channels[index];
	if (c->ch)
		return -EBUSY;
	c->pool = pool_map(s);
	if (!c->pool)
		return -ENOMEM;
	c->s = s;
	c->ch = ch;
	c->fresh = c->running = c->budget = 0;
	c->round = 0;
	c->blocked = c->broken = c->closing = false;
	list_init(&c->free);
	list_init(&c->ready);
	loop_task_init(&c->run, on_run);
	loop_timer_init(s->loop, &c->next_round, on_next_round);
	vmbus_channel_set_context(ch, c);
	if (!index)
		s->state = STORVSP_BEGIN;
	return 0;
}

static void storvsp_close(void *device, struct vmbus_channel *ch)
{
	struct storvsp *s = device;
	struct storvsp_channel *c = vmbus_channel_context(ch);

	c->closing = true;
	if (c == &s->channels[0])
		s->state = STORVSP_BEGIN;
	for (unsigned i = 0; i < c->fresh; i++)
		if (c->pool[i].running)
			scsi_cancel(&c->pool[i].scsi);
	if (!c->running)
		channel_finish(c);
}

static void storvsp_signal(void *device, struct vmbus_channel *ch)
{
	(void)device;
	channel_run(vmbus_channel_context(ch));
}

static void storvsp_reset(void *device)
{
	struct storvsp *s = device;

	s->state = STORVSP_BEGIN;
	s->notify = false;
	scsi_target_reset(s->target);
}

/* --- the controller --- */

/* The guest that scans the bus only now sees the change anyway. */
static void units_changed(struct storvsp *s)
{
	struct storvsp_channel *primary = &s->channels[0];

	if (s->state != STORVSP_READY || !primary->ch)
		return;
	s->notify = true;
	loop_defer(s->loop, &primary->run);
}

int storvsp_attach_disk(struct storvsp *s, unsigned lun, struct disk *disk, enum scsi_kind kind,
			struct error *err)
{
	int r = scsi_target_attach(s->target, lun, kind, disk, err);

	if (!r)
		units_changed(s);
	return r;
}

int storvsp_share_disk(struct storvsp *s, unsigned lun, struct reserve_file *reservations)
{
	return scsi_target_share(s->target, lun, reservations);
}

int storvsp_detach(struct storvsp *s, unsigned lun, void (*done)(void *arg), void *arg)
{
	int r = scsi_target_detach(s->target, lun, done, arg);

	if (!r)
		units_changed(s);
	return r;
}

int storvsp_capacity_changed(struct storvsp *s, unsigned lun)
{
	int r = scsi_target_capacity_changed(s->target, lun);

	if (!r)
		units_changed(s);
	return r;
}

struct storvsp_stats storvsp_stats(const struct storvsp *s)
{
	struct storvsp_stats stats = s->stats;

	stats.scsi = *scsi_target_stats(s->target);
	return stats;
}

static int options_check(struct storvsp_options *o, struct error *err)
{
	if (!o->queue_depth)
		o->queue_depth = DEFAULT_DEPTH;
	if (!o->max_channels)
		o->max_channels = STORVSP_MAX_CHANNELS;
	if (!o->max_version)
		o->max_version = VSTOR_VERSION_6_2;
	if (!storvsp_version_known(o->max_version))
		return error_set(err, -EINVAL,
				 "there is no storage protocol %u.%u; known are 5.1, 6.0 and 6.2",
				 o->max_version >> 8, o->max_version & 0xff);
	if (o->queue_depth > MAX_DEPTH)
		return error_set(err, -EINVAL, "a SCSI queue depth of %u is above %d",
				 o->queue_depth, MAX_DEPTH);
	if (o->max_channels > STORVSP_MAX_CHANNELS)
		return error_set(err, -EINVAL, "%u SCSI channels are more than %d", o->max_channels,
				 STORVSP_MAX_CHANNELS);
	return 0;
}

int storvsp_new(struct loop *loop, const struct storvsp_options *options, struct storvsp **ret,
		struct error *err)
{
	struct scsi_target_options units = { options->instance, STORVSP_MAX_TRANSFER };
	struct storvsp *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return error_set(err, -ENOMEM, "out of memory");
	s->loop = loop;
	s->options = *options;
	r = options_check(&s->options, err);
	if (!r)
		r = scsi_target_new(&units, &s->target, err);
	if (!r)
		r = scsi_target_new(&units, &s->nowhere, err);
	if (r < 0) {
		storvsp_free(s);
		return r;
	}
	*ret = s;
	return 0;
}

void storvsp_free(struct storvsp *s)
{
	if (!s)
		return;
	for (unsigned i = 0; i < STORVSP_MAX_CHANNELS; i++)
		assert(!s->channels[i].ch);
	scsi_target_free(s->target);
	scsi_target_free(s->nowhere);
	free(s);
}

const struct vmbus_device_type storvsp_type = {
	.name = "storvsp",
	.interface =
		GUID(0xba6163d9, 0x04a1, 0x4d29, 0xb6, 0x05, 0x72, 0xe2, 0xff, 0xb1, 0xdc, 0x7f),
	.open = storvsp_open,
	.close = storvsp_close,
	.signal = storvsp_signal,
	.reset = storvsp_reset,
	.pause = storvsp_pause,
	.save = storvsp_save,
	.restore = storvsp_restore,
	.resume = storvsp_resume,
};
