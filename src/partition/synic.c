// SPDX-License-Identifier: MIT
/*
 * Messages and event flags. A message slot has one writer at a time: the VP's own thread, outside
 * of the guest, because an engine's synthetic timers write slots while the VP is being entered.
 * Event flags are set with atomic instructions from any thread. TLFS 11.8 to 11.11.
 */
#include "partition/synic.h"

#include "lib/cleanup.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

void synic_init(struct synic *s)
{
	pthread_mutex_init(&s->lock, NULL);
	list_init(&s->queue);
	synic_reset(s);
}

void synic_deinit(struct synic *s)
{
	synic_reset(s);
	pthread_mutex_destroy(&s->lock);
}

void synic_reset(struct synic *s)
{
	LOCK_SCOPE(&s->lock);
	atomic_store(&s->control, HV_SYNIC_CONTROL_ENABLE);
	atomic_store(&s->simp, 0);
	atomic_store(&s->siefp, 0);
	list_foreach_safe(it, &s->queue) free(list_entry(it, struct synic_message, node));
	list_init(&s->queue);
	s->queued = 0;
}

int synic_queue(struct synic *s, unsigned sint, uint32_t type, const void *payload, size_t size)
{
	struct hv_message_header header = { .message_type = le32_of(type),
					    .payload_size = (uint8_t)size };
	struct synic_message *m;

	LOCK_SCOPE(&s->lock);
	if (s->queued == SYNIC_QUEUE_LENGTH)
		return -EAGAIN;
	m = calloc(1, sizeof(*m));
	if (!m)
		return -ENOMEM;
	m->sint = sint;
	memcpy(m->bytes, &header, sizeof(header));
	memcpy(m->bytes + sizeof(header), payload, size);
	list_append(&s->queue, &m->node);
	s->queued++;
	return 0;
}

/* The type is written last, with release: a guest that sees it sees the whole message. */
static void slot_fill(uint8_t *slot, const uint8_t *message)
{
	uint32_t type;

	memcpy(slot + sizeof(type), message + sizeof(type), HV_MESSAGE_SIZE - sizeof(type));
	memcpy(&type, message, sizeof(type));
	gshared_store32(slot, 0, type);
}

static bool slot_free(const uint8_t *slot)
{
	return gshared_load32(slot, 0) == HV_MESSAGE_NONE;
}

/*
 * A guest empties a slot and then looks at the flag; so the flag is set first and the slot looked
 * at again after a full barrier, and one of the two sides sees the other's store.
 */
static bool slot_claim(uint8_t *slot)
{
	if (slot_free(slot))
		return true;
	__atomic_fetch_or(slot + HV_MESSAGE_FLAGS_OFFSET, HV_MESSAGE_PENDING, __ATOMIC_SEQ_CST);
	return slot_free(slot);
}

static bool another_follows(const struct synic *s, const struct synic_message *m)
{
	for (struct list *it = m->node.next; it != &s->queue; it = it->next)
		if (list_entry(it, struct synic_message, node)->sint == m->sint)
			return true;
	return false;
}

/* Whether the message went into its slot; it is freed then. */
static bool deliver_one(struct synic *s, uint8_t *slot, struct synic_message *m)
{
	if (!slot_claim(slot))
		return false;
	if (another_follows(s, m))
		m->bytes[HV_MESSAGE_FLAGS_OFFSET] = HV_MESSAGE_PENDING;
	slot_fill(slot, m->bytes);
	list_remove(&m->node);
	s->queued--;
	free(m);
	return true;
}

uint16_t synic_deliver(struct synic *s, struct gmem *gm)
{
	uint64_t simp = atomic_load(&s->simp);
	uint16_t raise = 0, seen = 0;
	uint8_t *page;

	if (!(atomic_load(&s->control) & HV_SYNIC_CONTROL_ENABLE) || !(simp & HV_SIMP_ENABLE))
		return 0;
	page = gmem_page(gm, simp & HV_PAGE_ADDRESS_MASK);
	if (!page)
		return 0;
	LOCK_SCOPE(&s->lock);
	list_foreach_safe(it, &s->queue)
	{
		struct synic_message *m = list_entry(it, struct synic_message, node);
		unsigned sint = m->sint;

		/* One message at a time goes into a slot. */
		if (seen & BIT(sint))
			continue;
		seen |= (uint16_t)BIT(sint);
		if (deliver_one(s, page + sint * HV_MESSAGE_SIZE, m))
			raise |= (uint16_t)BIT(sint);
	}
	return raise;
}

int synic_set_flag(struct synic *s, struct gmem *gm, unsigned sint, unsigned flag)
{
	uint64_t siefp = atomic_load(&s->siefp);
	uint8_t bit = (uint8_t)BIT(flag % 8);
	uint8_t *page;

	if (!(atomic_load(&s->control) & HV_SYNIC_CONTROL_ENABLE) || !(siefp & HV_SIEFP_ENABLE))
		return -ENODEV;
	page = gmem_page(gm, siefp & HV_PAGE_ADDRESS_MASK);
	if (!page)
		return -ENODEV;
	page += sint * HV_EVENT_FLAGS_BYTES + flag / 8;
	return !(__atomic_fetch_or(page, bit, __ATOMIC_SEQ_CST) & bit);
}
