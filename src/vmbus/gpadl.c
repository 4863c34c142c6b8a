// SPDX-License-Identifier: MIT
/*
 * GPADLs: lists of guest pages that a guest describes in one header and as many body messages as it
 * takes, for rings and large shared buffers. The list is kept as sent (a range header, then page
 * numbers) and checked when it is complete. Everything is charged against limits of the bus.
 */
#include "vmbus/internal.h"

#include <errno.h>
#include <stdlib.h>

struct gpadl *gpadl_find(struct vmbus *bus, uint32_t relid, uint32_t id)
{
	list_foreach(it, &bus->gpadls)
	{
		struct gpadl *g = list_entry(it, struct gpadl, node);

		if (g->id == id && g->relid == relid)
			return g;
	}
	return NULL;
}

static void gpadl_free(struct vmbus *bus, struct gpadl *g)
{
	list_remove(&g->node);
	bus->counters.gpadls--;
	bus->counters.gpadl_pages -= g->words;
	free(g);
}

void gpadls_free(struct vmbus *bus)
{
	list_foreach_safe(it, &bus->gpadls) gpadl_free(bus, list_entry(it, struct gpadl, node));
}

/* A range: {byte count, byte offset}, then the numbers of the pages it touches. */
bool gpadl_valid(struct vmbus *bus, const struct gpadl *g)
{
	uint32_t at = 0;

	for (unsigned i = 0; i < g->range_count; i++) {
		uint32_t count, offset;
		uint64_t pages;

		if (at == g->words)
			return false;
		count = (uint32_t)g->buffer[at];
		offset = (uint32_t)(g->buffer[at] >> 32);
		at++;
		if (!count || offset >= GMEM_PAGE_SIZE)
			return false;
		pages = range_pages(count, offset);
		if (pages > g->words - at)
			return false;
		for (; pages; pages--, at++)
			if (!pfn_addressable(g->buffer[at]) ||
			    !gmem_page(bus->gm, g->buffer[at] * GMEM_PAGE_SIZE))
				return false;
	}
	return true;
}

int gpadl_pages(struct vmbus *bus, const struct gpadl *g, void ***ret_pages, unsigned *ret_count)
{
	uint32_t count = (uint32_t)g->buffer[0], pages = count / GMEM_PAGE_SIZE;
	void **list;

	/* A complete GPADL has been checked: what is left is that it is one whole range. */
	if (g->range_count != 1 || g->buffer[0] >> 32 || count % GMEM_PAGE_SIZE)
		return -EINVAL;
	list = malloc(pages * sizeof(*list));
	if (!list)
		return -ENOMEM;
	for (uint32_t i = 0; i < pages; i++)
		list[i] = gmem_page(bus->gm, g->buffer[1 + i] * GMEM_PAGE_SIZE);
	*ret_pages = list;
	*ret_count = pages;
	return 0;
}

int vmbus_buffer_take(struct vmbus_channel *ch, uint32_t id, struct vmbus_buffer *ret)
{
	struct gpadl *g = gpadl_find(ch->bus, ch->relid, id);
	struct vmbus_buffer b = { .bus = ch->bus, .gpadl = g };
	int r;

	if (!g || !g->complete || g->in_use || g->torn_down)
		return -EINVAL;
	r = gpadl_pages(ch->bus, g, &b.pages, &b.count);
	if (r < 0)
		return r;
	b.id = id;
	b.linear = b.pages[0];
	for (unsigned i = 1; i < b.count && b.linear; i++)
		if (b.pages[i] != b.linear + (size_t)i * GMEM_PAGE_SIZE)
			b.linear = NULL;
	g->in_use = true;
	*ret = b;
	return 0;
}

void vmbus_buffer_give_back(struct vmbus_buffer *b)
{
	if (b->gpadl)
		gpadl_release(b->bus, b->gpadl);
	free(b->pages);
	*b = (struct vmbus_buffer){ 0 };
}

static void send_created(struct vmbus *bus, uint32_t relid, uint32_t id, uint32_t status)
{
	struct vmbus_gpadl_created m = {
		.header.type = le32_of(CHANNELMSG_GPADL_CREATED),
		.child_relid = le32_of(relid),
		.gpadl = le32_of(id),
		.status = le32_of(status),
	};

	bus_send(bus, &m, sizeof(m));
}

static void send_torn_down(struct vmbus *bus, uint32_t id)
{
	struct vmbus_gpadl_torndown m = {
		.header.type = le32_of(CHANNELMSG_GPADL_TORNDOWN),
		.gpadl = le32_of(id),
	};

	bus_send(bus, &m, sizeof(m));
}

/* Takes what is still missing: senders pad their last message. */
static void take_words(struct vmbus *bus, struct gpadl *g, struct reader *r)
{
	while (g->have < g->words && reader_left(r) >= 8)
		g->buffer[g->have++] = reader_le64(r);
	if (g->have < g->words)
		return;
	g->complete = gpadl_valid(bus, g);
	send_created(bus, g->relid, g->id,
		     g->complete ? VMBUS_STATUS_SUCCESS : VMBUS_STATUS_FAILED);
	if (!g->complete)
		gpadl_free(bus, g);
}

struct gpadl *gpadl_new(struct vmbus *bus, uint32_t words, uint16_t ranges)
{
	struct gpadl *g;

	if (!ranges || words < 2 || bus->counters.gpadls == VMBUS_MAX_GPADLS ||
	    words > VMBUS_MAX_GPADL_PAGES - bus->counters.gpadl_pages)
		return NULL;
	g = calloc(1, sizeof(*g) + words * sizeof(g->buffer[0]));
	if (!g)
		return NULL;
	g->range_count = ranges;
	g->words = words;
	list_append(&bus->gpadls, &g->node);
	bus->counters.gpadls++;
	bus->counters.gpadl_pages += words;
	return g;
}

bool bus_message_gpadl_header(struct vmbus *bus, struct reader *r)
{
	uint32_t relid = reader_le32(r), id = reader_le32(r);
	uint32_t bytes = reader_le16(r), words = bytes / 8;
	uint16_t ranges = reader_le16(r);
	struct gpadl *g;

	if (!channel_find(bus, relid) || !id || gpadl_find(bus, relid, id))
		return false;
	g = bytes % 8 ? NULL : gpadl_new(bus, words, ranges);
	if (!g) {
		send_created(bus, relid, id, VMBUS_STATUS_FAILED);
		return false;
	}
	g->relid = relid;
	g->id = id;
	take_words(bus, g, r);
	return true;
}

/* A body names no channel: an id is unique among those still incomplete. */
static struct gpadl *find_incomplete(struct vmbus *bus, uint32_t id)
{
	list_foreach(it, &bus->gpadls)
	{
		struct gpadl *g = list_entry(it, struct gpadl, node);

		if (g->id == id && !g->complete)
			return g;
	}
	return NULL;
}

bool bus_message_gpadl_body(struct vmbus *bus, struct reader *r)
{
	struct gpadl *g;

	reader_skip(r, 4); /* message number: they come in order */
	g = find_incomplete(bus, reader_le32(r));
	if (!g)
		return false;
	take_words(bus, g, r);
	return true;
}

void gpadl_release(struct vmbus *bus, struct gpadl *g)
{
	g->in_use = false;
	if (!g->torn_down)
		return;
	send_torn_down(bus, g->id);
	gpadl_free(bus, g);
}

bool bus_message_gpadl_teardown(struct vmbus *bus, struct reader *r)
{
	uint32_t relid = reader_le32(r), id = reader_le32(r);
	struct gpadl *g = gpadl_find(bus, relid, id);

	if (!g || !g->complete || g->torn_down)
		return false;
	g->torn_down = true;
	if (!g->in_use)
		gpadl_release(bus, g);
	return true;
}
