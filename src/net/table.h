/* SPDX-License-Identifier: MIT */
/*
 * The addresses that a switch has learned: MAC and VLAN to port, of a fixed size. Each port has a
 * limit, and no port can push another's addresses out. An address that has not been seen for the
 * table's age is not there any more; nothing runs for that. The switch's thread.
 */
#pragma once

#include "lib/types.h"

#define TABLE_WAYS 4u
#define TABLE_SETS 4096u

struct table_entry {
	uint64_t key;  /* VLAN << 48 | MAC; 0 = free */
	uint64_t seen; /* ns */
	uint16_t port;
};

struct table {
	uint64_t seed, age, swept;
	uint32_t counts[512]; /* of each port */
	struct table_entry entries[TABLE_SETS * TABLE_WAYS];
};

void table_init(struct table *t, uint64_t age, uint64_t seed);
/* The port, or -1. */
int table_find(const struct table *t, uint64_t key, uint64_t now);
/* The address was seen at the port, which may have `limit`. False: it is not kept. */
bool table_learn(struct table *t, uint64_t key, uint16_t port, uint32_t limit, uint64_t now);
void table_forget_port(struct table *t, uint16_t port);
/* An entry that is not too old, from *at on; NULL at the end. */
const struct table_entry *table_next(const struct table *t, unsigned *at, uint64_t now);

static inline uint64_t table_key(uint16_t vlan, const uint8_t mac[6])
{
	uint64_t key = vlan;

	for (unsigned i = 0; i < 6; i++)
		key = key << 8 | mac[i];
	return key;
}
