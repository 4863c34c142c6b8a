// SPDX-License-Identifier: MIT
/*
 * See table.h. Sets of four entries, chosen by a hash that nobody outside can know. Where all four
 * are others' and fresh, an address is not learned: its frames are flooded, as unknown ones are.
 */
#include "net/table.h"

#include <string.h>

#define SWEEP_EVERY UINT64_C(1000000000) /* ns; sweeping costs a look at the whole table */

static struct table_entry *set_of(const struct table *t, uint64_t key)
{
	uint64_t h = (key ^ t->seed) * UINT64_C(0x9e3779b97f4a7c15);

	h ^= h >> 29;
	h *= UINT64_C(0xbf58476d1ce4e5b9);
	return (struct table_entry *)&t->entries[(h >> 40) % TABLE_SETS * TABLE_WAYS];
}

static bool is_old(const struct table *t, const struct table_entry *e, uint64_t now)
{
	return now > e->seen && now - e->seen > t->age;
}

void table_init(struct table *t, uint64_t age, uint64_t seed)
{
	memset(t, 0, sizeof(*t));
	t->age = age;
	t->seed = seed;
}

static void entry_drop(struct table *t, struct table_entry *e)
{
	t->counts[e->port]--;
	e->key = 0;
}

static struct table_entry *entry_find(const struct table *t, uint64_t key)
{
	struct table_entry *set = set_of(t, key);

	for (unsigned i = 0; i < TABLE_WAYS; i++)
		if (set[i].key == key)
			return &set[i];
	return NULL;
}

int table_find(const struct table *t, uint64_t key, uint64_t now)
{
	const struct table_entry *e = entry_find(t, key);

	return e && !is_old(t, e, now) ? e->port : -1;
}

/* Old ones count against their port's limit only until somebody needs it. */
static void sweep(struct table *t, uint64_t now)
{
	if (t->swept && now - t->swept < SWEEP_EVERY)
		return;
	t->swept = now;
	for (unsigned i = 0; i < ARRAY_SIZE(t->entries); i++)
		if (t->entries[i].key && is_old(t, &t->entries[i], now))
			entry_drop(t, &t->entries[i]);
}

/* A place for a new entry of the port: free, old, or its own oldest; else NULL. */
static struct table_entry *place_find(struct table *t, uint64_t key, uint16_t port, uint64_t now)
{
	struct table_entry *set = set_of(t, key), *own = NULL;

	for (unsigned i = 0; i < TABLE_WAYS; i++) {
		struct table_entry *e = &set[i];

		if (e->key && is_old(t, e, now))
			entry_drop(t, e);
		if (!e->key)
			return e;
		if (e->port == port && (!own || e->seen < own->seen))
			own = e;
	}
	if (own)
		entry_drop(t, own);
	return own;
}

bool table_learn(struct table *t, uint64_t key, uint16_t port, uint32_t limit, uint64_t now)
{
	struct table_entry *e = entry_find(t, key);

	if (e && e->port == port) {
		e->seen = now;
		return true;
	}
	if (t->counts[port] >= limit)
		sweep(t, now);
	if (t->counts[port] >= limit)
		return false;
	/* It has moved. */
	e = entry_find(t, key);
	if (e)
		entry_drop(t, e);
	else
		e = place_find(t, key, port, now);
	if (!e)
		return false;
	*e = (struct table_entry){ .key = key, .seen = now, .port = port };
	t->counts[port]++;
	return true;
}

void table_forget_port(struct table *t, uint16_t port)
{
	for (unsigned i = 0; i < ARRAY_SIZE(t->entries) && t->counts[port]; i++)
		if (t->entries[i].key && t->entries[i].port == port)
			entry_drop(t, &t->entries[i]);
}

const struct table_entry *table_next(const struct table *t, unsigned *at, uint64_t now)
{
	while (*at < ARRAY_SIZE(t->entries)) {
		const struct table_entry *e = &t->entries[(*at)++];

		if (e->key && !is_old(t, e, now))
			return e;
	}
	return NULL;
}
