// SPDX-License-Identifier: MIT
/*
 * Saving and restoring the bus: the connection, GPADLs, channels with where we stand in their
 * rings, and each device's own records in a scope of its own. What the guest shares with us (rings,
 * buffers) is in its memory. Before that everything comes to rest: the bus waits until channels
 * that are closing are closed, and each device until its last I/O has ended. Event loop's thread.
 *
 * Restoring goes the way of the live bus where it can: a saved channel's rings are made by the code
 * that opens one for the guest, from a GPADL that is judged as the guest's own are.
 */
#include "vmbus/internal.h"

#include "lib/cleanup.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- descriptions --- */

struct saved_bus {
	uint32_t max_version, version, features, message_vp;
	uint8_t sint;
	bool connected, offers_requested;
};

static const struct save_field bus_fields[] = {
	SAVE_FIELD(struct saved_bus, max_version),
	SAVE_FIELD(struct saved_bus, version),
	SAVE_FIELD(struct saved_bus, features),
	SAVE_FIELD(struct saved_bus, message_vp),
	SAVE_FIELD(struct saved_bus, sint),
	SAVE_FIELD(struct saved_bus, connected),
	SAVE_FIELD(struct saved_bus, offers_requested),
};
static const struct save_table bus_table = SAVE_TABLE("vmbus", 1, struct saved_bus, bus_fields);

struct saved_gpadl {
	uint32_t relid, id;
	bool complete, torn_down;
	uint16_t range_count;
	uint32_t words;
	struct save_blob have; /* le64 each */
};

static const struct save_field gpadl_fields[] = {
	SAVE_FIELD(struct saved_gpadl, relid),
	SAVE_FIELD(struct saved_gpadl, id),
	SAVE_FIELD(struct saved_gpadl, complete),
	SAVE_FIELD(struct saved_gpadl, torn_down),
	SAVE_FIELD(struct saved_gpadl, range_count),
	SAVE_FIELD(struct saved_gpadl, words),
	SAVE_BLOB(struct saved_gpadl, have, VMBUS_MAX_GPADL_PAGES * 8),
};
static const struct save_table gpadl_table =
	SAVE_TABLE("vmbus.gpadl", 1, struct saved_gpadl, gpadl_fields);

struct saved_channel {
	uint8_t type[16];
	struct guid interface, instance;
	uint32_t index, relid;
	bool rescinded, open;
	/* while open: */
	uint32_t gpadl, out_page, target_vp, connection_id, event_flag;
	uint32_t in_own, out_own;
	bool in_broken, out_broken;
};

/* clang-format off */
#define CHANNEL(name) SAVE_FIELD(struct saved_channel, name)
static const struct save_field channel_fields[] = {
	SAVE_BYTES(struct saved_channel, type),
	SAVE_GUID(struct saved_channel, interface),
	SAVE_GUID(struct saved_channel, instance),
	CHANNEL(index), CHANNEL(relid), CHANNEL(rescinded), CHANNEL(open),
	CHANNEL(gpadl), CHANNEL(out_page), CHANNEL(target_vp), CHANNEL(connection_id),
	CHANNEL(event_flag), CHANNEL(in_own), CHANNEL(out_own), CHANNEL(in_broken),
	CHANNEL(out_broken),
};
/* clang-format on */
static const struct save_table channel_table =
	SAVE_TABLE("vmbus.channel", 1, struct saved_channel, channel_fields);

/* --- rest --- */

static struct vmbus_channel *channel_at(struct list *it)
{
	return list_entry(it, struct vmbus_channel, node);
}

/* A device has one primary channel; those whose device is gone only wait for the guest. */
static bool is_device(const struct vmbus_channel *ch)
{
	return !ch->primary && !ch->rescinded;
}

static bool at_rest(const struct vmbus *bus)
{
	if (bus->state == BUS_CLOSING)
		return false;
	list_foreach(it, &bus->channels) if (channel_at(it)->state == CHANNEL_CLOSING) return false;
	return true;
}

static bool pause_one(struct vmbus *bus)
{
	list_foreach(it, &bus->channels)
	{
		struct vmbus_channel *ch = channel_at(it);

		if (!is_device(ch) || ch->pause != DEVICE_RUNS)
			continue;
		ch->pause = ch->type->pause ? DEVICE_PAUSING : DEVICE_PAUSED;
		if (ch->type->pause)
			ch->type->pause(ch->device, ch);
		return true;
	}
	return false;
}

static bool all_paused(const struct vmbus *bus)
{
	list_foreach(it, &bus->channels)
	{
		const struct vmbus_channel *ch = channel_at(it);

		if (is_device(ch) && ch->pause != DEVICE_PAUSED)
			return false;
	}
	return true;
}

/* From the loop, whenever something came to rest. */
static void on_pause(struct loop_task *t)
{
	struct vmbus *bus = container_of(t, struct vmbus, pause_task);

	if (!bus->paused || !at_rest(bus))
		return;
	/* From here on no channel is signalled, so none closes or opens. */
	bus->quiet = true;
	while (pause_one(bus))
		;
	if (all_paused(bus))
		steal_ptr(bus->paused)(bus->pause_context);
}

void bus_pause_check(struct vmbus *bus)
{
	if (bus->paused)
		loop_defer(bus->loop, &bus->pause_task);
}

void bus_pause_init(struct vmbus *bus)
{
	loop_task_init(&bus->pause_task, on_pause);
}

void vmbus_pause(struct vmbus *bus, void (*done)(void *context), void *context)
{
	bus->paused = done;
	bus->pause_context = context;
	loop_defer(bus->loop, &bus->pause_task);
}

void vmbus_device_paused(struct vmbus_channel *primary)
{
	primary->pause = DEVICE_PAUSED;
	bus_pause_check(primary->bus);
}

void vmbus_resume(struct vmbus *bus)
{
	bus->paused = NULL;
	bus->quiet = false;
	loop_cancel(bus->loop, &bus->pause_task);
	list_foreach_safe(it, &bus->channels)
	{
		struct vmbus_channel *ch = channel_at(it);
		bool was = ch->pause != DEVICE_RUNS;

		ch->pause = DEVICE_RUNS;
		if (was && ch->type->resume)
			ch->type->resume(ch->device);
	}
	list_foreach(it, &bus->channels) if (channel_at(it)->state == CHANNEL_OPEN)
		loop_defer(bus->loop, &channel_at(it)->kick);
}

/* --- saving --- */

static void scope_of(const struct vmbus_channel *ch, char scope[static SAVE_SCOPE_SIZE])
{
	char text[GUID_TEXT_SIZE];

	snprintf(scope, SAVE_SCOPE_SIZE, "device/%s", guid_format(&ch->options.instance, text));
}

static int save_gpadls(struct vmbus *bus, struct save_writer *w)
{
	list_foreach(it, &bus->gpadls)
	{
		const struct gpadl *g = list_entry(it, struct gpadl, node);
		const struct saved_gpadl s = {
			.relid = g->relid,
			.id = g->id,
			.complete = g->complete,
			.torn_down = g->torn_down,
			.range_count = g->range_count,
			.words = g->words,
			.have = { g->buffer, g->have * sizeof(g->buffer[0]) },
		};

		save_put(w, &gpadl_table, &s);
	}
	return 0;
}

static void save_channel(const struct vmbus_channel *ch, struct save_writer *w)
{
	struct saved_channel s = {
		.interface = ch->type->interface,
		.instance = ch->options.instance,
		.index = ch->index,
		.relid = ch->relid,
		.rescinded = ch->rescinded,
		.open = ch->state == CHANNEL_OPEN,
	};

	strncpy((char *)s.type, ch->type->name, sizeof(s.type) - 1);
	if (s.open) {
		s.gpadl = ch->ring_gpadl->id;
		s.out_page = ch->in.size / GMEM_PAGE_SIZE + 1;
		s.target_vp = ch->target_vp;
		s.connection_id = ch->event.connection_id;
		s.event_flag = ch->event_flag;
		s.in_own = ch->in.own;
		s.out_own = ch->out.own;
		s.in_broken = ch->in.broken;
		s.out_broken = ch->out.broken;
	}
	save_put(w, &channel_table, &s);
}

static int save_device(const struct vmbus_channel *ch, struct save_writer *w, struct error *err)
{
	char scope[SAVE_SCOPE_SIZE];
	int r;

	if (ch->type->begins_anew)
		return 0;
	scope_of(ch, scope);
	save_writer_scope(w, scope);
	r = ch->type->save(ch->device, w, err);
	save_writer_scope(w, "");
	return r < 0 ? error_prefix(err, "%s", ch->type->name) : 0;
}

int vmbus_savable(const struct vmbus *bus, struct error *err)
{
	list_foreach(it, &bus->channels)
	{
		const struct vmbus_device_type *type = channel_at(it)->type;

		if (is_device(channel_at(it)) && !type->begins_anew &&
		    !(type->save && type->restore))
			return error_set(err, -ENOTSUP,
					 "the device %s cannot be saved: take it out of the "
					 "machine, or shut the guest down instead",
					 type->name);
	}
	return 0;
}

int vmbus_save(struct vmbus *bus, struct save_writer *w, struct error *err)
{
	const struct saved_bus s = {
		.max_version = bus->max_version,
		.version = bus->version,
		.features = bus->features,
		.message_vp = bus->message_vp,
		.sint = bus->sint,
		.connected = bus->state == BUS_CONNECTED,
		.offers_requested = bus->offers_requested,
	};
	int r = vmbus_savable(bus, err);

	if (r < 0)
		return r;
	save_put(w, &bus_table, &s);
	save_gpadls(bus, w);
	list_foreach(it, &bus->channels)
	{
		save_channel(channel_at(it), w);
		r = is_device(channel_at(it)) ? save_device(channel_at(it), w, err) : 0;
		if (r < 0)
			return r;
	}
	return 0;
}

/* --- restoring --- */

static int does_not_fit(struct error *err, const char *what)
{
	return error_set(err, -EBADMSG, "the saved state does not fit: VMBus: %s", what);
}

static int restore_bus(struct vmbus *bus, struct save_reader *r, struct error *err)
{
	struct saved_bus s = { 0 };
	int n = save_get(r, &bus_table, &s, err);

	if (n < 0)
		return n;
	if (s.connected && (!bus_version_supported(bus, s.version)))
		return error_set(err, -ENOTSUP,
				 "the guest had agreed on VMBus %u.%u, which this machine does not "
				 "speak",
				 s.version >> 16, s.version & 0xffff);
	if (s.message_vp >= partition_vp_count(bus->partition) || s.sint >= HV_SYNIC_SINT_COUNT)
		return does_not_fit(err, "messages for nobody");
	bus->state = s.connected ? BUS_CONNECTED : BUS_DISCONNECTED;
	bus->offers_requested = s.offers_requested;
	bus->version = s.connected ? s.version : 0;
	bus->features = s.features;
	bus->message_vp = s.message_vp;
	bus->sint = s.sint;
	return 0;
}

static int restore_gpadl(struct vmbus *bus, const struct saved_gpadl *s, struct error *err)
{
	struct gpadl *g;

	if (!s->id || gpadl_find(bus, s->relid, s->id) || s->have.size % 8 ||
	    s->have.size / 8 > s->words || (s->complete && s->have.size / 8 != s->words))
		return does_not_fit(err, "a GPADL");
	g = gpadl_new(bus, s->words, s->range_count);
	if (!g)
		return does_not_fit(err, "the number or size of GPADLs");
	g->relid = s->relid;
	g->id = s->id;
	g->restore_torn_down = s->torn_down;
	g->have = (uint32_t)(s->have.size / 8);
	memcpy(g->buffer, s->have.data, s->have.size);
	g->complete = s->complete && gpadl_valid(bus, g);
	return s->complete && !g->complete ? does_not_fit(err, "a GPADL's pages") : 0;
}

static int restore_gpadls(struct vmbus *bus, struct save_reader *r, struct error *err)
{
	struct saved_gpadl s;
	int n;

	while ((n = save_next(r, &gpadl_table, &s, err)) > 0) {
		n = restore_gpadl(bus, &s, err);
		if (n < 0)
			return n;
	}
	return n;
}

/* Stands for a device that was taken out while its guest still held on to the channel. */
static const struct vmbus_device_type gone_type = { .name = "gone", .begins_anew = true };

static struct vmbus_channel *device_find(struct vmbus *bus, const struct saved_channel *s)
{
	list_foreach(it, &bus->channels)
	{
		struct vmbus_channel *ch = channel_at(it);

		if (is_device(ch) && guid_equal(&ch->options.instance, &s->instance) &&
		    guid_equal(&ch->type->interface, &s->interface))
			return ch;
	}
	return NULL;
}

/* The channel that a record is about: a device's, or a new one. */
static int channel_for(struct vmbus *bus, const struct saved_channel *s, struct vmbus_channel **ret,
		       struct error *err)
{
	struct vmbus_channel *primary = device_find(bus, s), *ch;
	char text[GUID_TEXT_SIZE];

	if (!primary && !s->rescinded)
		return error_set(err, -EINVAL,
				 "the machine was saved with a device (%.15s %s) that it does not "
				 "have any more",
				 (const char *)s->type, guid_format(&s->instance, text));
	if (!s->index && !s->rescinded) {
		*ret = primary;
		return primary->relid || primary->restored ? does_not_fit(err, "a device twice")
							   : 0;
	}
	if (s->index > VMBUS_MAX_SUB_CHANNELS)
		return does_not_fit(err, "a channel's number");
	ch = channel_new(bus, primary && s->index ? primary->type : &gone_type,
			 primary && s->index ? primary->device : NULL);
	if (!ch)
		return error_set(err, -ENOMEM, "out of memory");
	ch->index = s->index;
	ch->rescinded = s->rescinded;
	ch->options.instance = s->instance;
	if (s->index && primary) {
		ch->primary = primary;
		ch->options = primary->options;
	}
	*ret = ch;
	return 0;
}

static int restore_channel(struct vmbus *bus, const struct saved_channel *s, struct error *err)
{
	struct vmbus_channel *ch = NULL;
	const struct channel_open o = {
		.relid = s->relid,
		.gpadl = s->gpadl,
		.target_vp = s->target_vp,
		.out_page = s->out_page,
		.connection_id = s->connection_id,
		.event_flag = (uint16_t)s->event_flag,
		.restored = true,
		.in_own = s->in_own,
		.out_own = s->out_own,
		.in_broken = s->in_broken,
		.out_broken = s->out_broken,
	};
	int r = channel_for(bus, s, &ch, err);

	if (r < 0)
		return r;
	ch->restored = true;
	if (s->relid && !channel_claim_relid(ch, s->relid))
		return does_not_fit(err, "a channel's id");
	if (!s->open)
		return 0;
	if (!s->relid || s->rescinded || s->event_flag > UINT16_MAX)
		return does_not_fit(err, "an open channel");
	r = channel_reopen(ch, &o);
	return r < 0 ? error_errno(err, r, "cannot restore an open channel of %s", ch->type->name)
		     : 0;
}

static int restore_device(struct vmbus_channel *ch, struct save_reader *r, struct error *err)
{
	char scope[SAVE_SCOPE_SIZE];
	int n = 0;

	if (!ch->restored || ch->type->begins_anew)
		return 0;
	scope_of(ch, scope);
	save_reader_scope(r, scope);
	if (!ch->type->restore)
		n = error_set(err, -ENOTSUP, "it cannot be restored");
	else
		n = ch->type->restore(ch->device, r, err);
	if (n >= 0)
		n = save_scope_finish(r, err);
	save_reader_scope(r, "");
	return n < 0 ? error_prefix(err, "%s", ch->type->name) : 0;
}

/* A guest may ask for the pages of an open channel's rings: it gets them when that is closed. */
static void restore_teardowns(struct vmbus *bus)
{
	list_foreach_safe(it, &bus->gpadls)
	{
		struct gpadl *g = list_entry(it, struct gpadl, node);

		g->torn_down = g->restore_torn_down;
		if (g->torn_down && !g->in_use)
			gpadl_release(bus, g);
	}
}

/* A device that the machine has now and did not have then: the guest hears of it. */
static void offer_new_devices(struct vmbus *bus)
{
	list_foreach(it, &bus->channels)
	{
		struct vmbus_channel *ch = channel_at(it);

		if (is_device(ch) && !ch->restored && bus->offers_requested)
			channel_offer(ch);
		ch->restored = false;
	}
}

int vmbus_restore(struct vmbus *bus, struct save_reader *r, struct error *err)
{
	struct saved_channel s;
	int n = restore_bus(bus, r, err);

	if (n >= 0)
		n = restore_gpadls(bus, r, err);
	bus->quiet = true;
	list_foreach(it, &bus->channels) channel_at(it)->pause = DEVICE_PAUSED;
	while (n >= 0 && (n = save_next(r, &channel_table, &s, err)) > 0)
		n = restore_channel(bus, &s, err);
	list_foreach(it, &bus->channels)
	{
		if (n >= 0 && is_device(channel_at(it)))
			n = restore_device(channel_at(it), r, err);
	}
	if (n < 0)
		return n;
	restore_teardowns(bus);
	offer_new_devices(bus);
	return 0;
}
