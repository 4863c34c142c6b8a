// SPDX-License-Identifier: MIT
/*
 * See rate.h. The table has sets of a few buckets, found by a hash of the key with a secret in it,
 * so that nobody can choose whose bucket he shares. A new client takes the place in its set that
 * was used longest ago: forgetting a client fills its bucket, which costs a flood nothing but
 * also gives it little, since it must come from that many addresses at once.
 */
#include "rest/rate.h"

#include <stdlib.h>
#include <sys/random.h>

#define SETS   256
#define WAYS   8
#define SECOND UINT64_C(1000000000)

struct bucket {
	uint64_t hash; /* 0 = free */
	uint64_t when; /* tokens were counted */
	double tokens;
};

struct rate {
	unsigned rate, burst;
	uint64_t secret;
	struct bucket sets[SETS][WAYS];
};

struct rate *rate_new(unsigned rate, unsigned burst)
{
	struct rate *r = calloc(1, sizeof(*r));

	if (!r)
		return NULL;
	r->rate = rate;
	r->burst = burst;
	if (getrandom(&r->secret, sizeof(r->secret), 0) != sizeof(r->secret))
		r->secret = (uintptr_t)r;
	return r;
}

void rate_free(struct rate *r)
{
	free(r);
}

/* FNV-1a, begun with the secret, with a last mix. */
static uint64_t hash_of(const struct rate *r, const uint8_t *key, size_t size)
{
	uint64_t h = UINT64_C(0xcbf29ce484222325) ^ r->secret;

	for (size_t i = 0; i < size; i++)
		h = (h ^ key[i]) * UINT64_C(0x100000001b3);
	h ^= h >> 32;
	return (h * UINT64_C(0x9e3779b97f4a7c15)) | 1;
}

bool rate_take(struct rate *r, const void *key, size_t size, uint64_t now)
{
	uint64_t hash = hash_of(r, key, size);
	struct bucket *set = r->sets[(hash >> 40) % SETS], *b = &set[0];

	for (unsigned i = 0; i < WAYS && b->hash != hash; i++) {
		if (set[i].hash == hash || !set[i].hash || (b->hash && set[i].when < b->when))
			b = &set[i];
	}
	if (b->hash != hash)
		*b = (struct bucket){ .hash = hash, .when = now, .tokens = r->burst };
	b->tokens += (double)(now - b->when) / (double)SECOND * r->rate;
	b->tokens = MIN(b->tokens, (double)r->burst);
	b->when = now;
	if (b->tokens < 1)
		return false;
	b->tokens -= 1;
	return true;
}
