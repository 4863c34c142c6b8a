// SPDX-License-Identifier: MIT
/*
 * See memory.h. Between the device, which speaks with the guest, and the map: memory that is added
 * is first the engine's, then the map's, and then the guest is told. It is added in few large
 * pieces, more than the guest is told of; what it has not been told of costs nothing.
 *
 * Guests report what they need once in a second or as often as they like. Those who control the
 * machine are told at most four times a second, and only of what has changed by enough to matter.
 */
#include "worker/memory.h"

#include "vmbus/vmbus.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define SPACING    UINT64_C(250000000) /* ns between two events: a guest may be close to its end */
#define PIECE_UNIT (128 * MIB)
#define MATTERS    32u /* a change of 1/32 of what it has */

struct memory {
	struct memory_options options;
	struct dynmem *device;
	struct vmbus_channel *channel;
	uint64_t startup;
	int statm; /* -1: this system has none */
	struct loop_timer tell;
	uint64_t told; /* when, ns */
	bool news_may_miss, refused_shrink, refused_grow, due;
	struct dynmem_status last; /* as told */
};

/* --- growing --- */

static uint64_t piece_size(const struct memory *m)
{
	uint64_t least = m->options.map->grow_size / ENGINE_MAX_ADDED + 1;

	return (least + PIECE_UNIT - 1) / PIECE_UNIT * PIECE_UNIT;
}

static int on_grow(void *context, uint64_t size)
{
	struct memory *m = context;
	struct engine_partition *e = partition_engine(m->options.partition);
	struct gmem *gm = partition_gmem(m->options.partition);
	uint64_t piece = piece_size(m), most = round_down64(m->options.map->grow_size, 2 * MIB);
	size_t count;
	uint64_t has = gmem_ranges(gm, &count)[m->options.map->range_count - 1].size;
	uint64_t wants = MIN((size + piece - 1) / piece * piece, most);
	int r;

	if (size <= has)
		return 0;
	r = e->engine->memory_add(e, has, wants - has);
	return r < 0 ? r : gmem_grow(gm, wants);
}

static uint64_t on_guest_os(void *context)
{
	struct memory *m = context;

	return partition_guest_os(m->options.partition);
}

/* --- telling --- */

static void tell_refused(struct memory *m, bool *flag, const char *what)
{
	if (*flag)
		m->options.tell(m->options.context,
				json_pack("{s:s,s:s,s:o}", "event", "memory-refused", "what", what,
					  "memory", memory_json(m)),
				false);
	*flag = false;
}

static void tell(struct memory *m)
{
	m->told = loop_now(m->options.loop);
	m->due = false;
	m->last = dynmem_status(m->device);
	m->options.tell(m->options.context,
			json_pack("{s:s,s:o}", "event", "memory", "memory", memory_json(m)),
			m->news_may_miss);
	m->news_may_miss = true;
	tell_refused(m, &m->refused_shrink, "shrink");
	tell_refused(m, &m->refused_grow, "grow");
}

static void on_tell(struct loop_timer *t)
{
	tell(container_of(t, struct memory, tell));
}

/* At once if there was nothing for a while, else when that is over. */
static void tell_soon(struct memory *m)
{
	uint64_t now = loop_now(m->options.loop);

	if (m->due)
		return;
	m->due = true;
	loop_timer_arm(&m->tell, MAX(m->told + SPACING, now + 1));
}

static bool differs(uint64_t a, uint64_t b, uint64_t whole)
{
	return (a > b ? a - b : b - a) > whole / MATTERS;
}

static void on_event(void *context, enum dynmem_event event)
{
	struct memory *m = context;
	struct dynmem_status s = dynmem_status(m->device);

	if (event == DYNMEM_REPORTED && m->last.reported &&
	    !differs(s.demand, m->last.demand, s.assigned) &&
	    !differs(s.available, m->last.available, s.assigned))
		return;
	m->news_may_miss = m->news_may_miss && event == DYNMEM_REPORTED;
	m->refused_shrink = m->refused_shrink || event == DYNMEM_SHRINK_REFUSED;
	m->refused_grow = m->refused_grow || event == DYNMEM_GROW_REFUSED;
	tell_soon(m);
}

/* --- asking --- */

int memory_set_target(struct memory *m, uint64_t bytes, struct error *err)
{
	if (m->options.locked)
		return error_set(err, -EPERM,
				 "the machine's memory is locked: it neither grows nor shrinks");
	if (!m->channel)
		return error_set(err, -EPERM,
				 "the machine has no dynamic memory (memory_device is false)");
	return dynmem_set_target(m->device, bytes, err);
}

struct dynmem_status memory_status(const struct memory *m)
{
	return dynmem_status(m->device);
}

/* The second number of statm (proc(5)). */
uint64_t memory_resident(const struct memory *m)
{
	char text[128];
	unsigned long long pages;
	ssize_t n = m->statm < 0 ? -1 : pread(m->statm, text, sizeof(text) - 1, 0);

	if (n <= 0)
		return 0;
	text[n] = 0;
	return sscanf(text, "%*u %llu", &pages) == 1 ? pages * GMEM_PAGE_SIZE : 0;
}

uint64_t memory_hinted(const struct memory *m)
{
	return partition_hinted(m->options.partition);
}

uint64_t memory_startup(const struct memory *m)
{
	return m->startup;
}

/* --- life --- */

void memory_reset(struct memory *m)
{
	gmem_shrink(partition_gmem(m->options.partition));
}

int memory_new(const struct memory_options *options, struct memory **ret, struct error *err)
{
	struct vmbus_offer_options offer = { .instance = dynmem_instance };
	struct dynmem_options o = { .gm = partition_gmem(options->partition),
				    .base = options->map->ram_size,
				    .grow_gpa = options->map->grow_base,
				    .grow_most = options->map->grow_size,
				    .grow = on_grow,
				    .guest_os = on_guest_os,
				    .event = on_event };
	struct memory *m = calloc(1, sizeof(*m));
	int r;

	if (!m)
		return error_set(err, -ENOMEM, "out of memory");
	m->options = *options;
	m->startup = options->map->ram_size;
	m->news_may_miss = true;
	m->statm = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
	loop_timer_init(options->loop, &m->tell, on_tell);
	o.context = m;
	r = dynmem_new(options->loop, &o, &m->device, err);
	if (r >= 0 && options->offered && !options->locked)
		r = vmbus_device_offer(options->bus, &dynmem_type, m->device, &offer, &m->channel,
				       err);
	if (r < 0) {
		memory_free(m);
		return r;
	}
	*ret = m;
	return 0;
}

void memory_free(struct memory *m)
{
	if (!m)
		return;
	loop_timer_disarm(&m->tell);
	dynmem_free(m->device);
	if (m->statm >= 0)
		close(m->statm);
	free(m);
}
