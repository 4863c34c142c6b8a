// SPDX-License-Identifier: MIT
/*
 * Frames of and to a port: a byte with the direction, one with the time that passes, two with the
 * length, the frame. What is known stays in its limits, has no address twice and no group's.
 */
#include "net/learn.h"

#include <stdlib.h>
#include <sys/socket.h>

static void check_list(const struct net_address *list, unsigned count, unsigned most)
{
	if (count > most)
		abort();
	for (unsigned i = 0; i < count; i++) {
		const struct net_address *a = &list[i];

		if (a->family == AF_INET ? !a->bytes[0] || a->bytes[0] >= 224
					 : a->family != AF_INET6 || a->bytes[0] == 0xff)
			abort();
		for (unsigned k = 0; k < i; k++)
			if (list[k].family == a->family && !memcmp(list[k].bytes, a->bytes, 16))
				abort();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct reader r = reader_of(data, size);
	struct net_learner l = { 0 };
	uint64_t now = 1;

	while (reader_left(&r) > 4) {
		uint8_t flags = reader_u8(&r);
		struct net_learner before = l;
		const uint8_t *frame;
		bool changed, wants;
		size_t n;

		now += (uint64_t)reader_u8(&r) * 100000000;
		n = reader_be16(&r);
		n = MIN(n, reader_left(&r));
		frame = reader_take(&r, n);
		wants = net_learner_wants(frame, n);
		changed = net_learner_frame(&l, frame, n, flags & 1, now);
		/* What it would not want to see it learns nothing from. */
		if ((changed && !wants) || (!changed && l.count > before.count))
			abort();
		if (flags & 2)
			net_learner_age(&l, now);
		if (flags & 2 && net_learner_next(&l) <= now)
			abort();
		check_list(l.list, l.count, NET_LEARN_MAX);
		check_list(l.tested, l.tested_count, NET_LEARN_TESTED);
	}
	return 0;
}
