/* SPDX-License-Identifier: MIT */
/*
 * Rules of a port, in the order in which they decide, and the flows that stateful ones have let
 * through. A flow table has a fixed size and is its port's own: a guest or its peers can fill only
 * that. The switch's thread.
 */
#pragma once

#include "net/headers.h"
#include "net/switch.h"

struct rules;

/* NULL rules and count 0: no rules. -ENOMEM, -EINVAL with words. `old`: counters that stay. */
int rules_new(const struct net_rule *rules, unsigned count, const struct rules *old,
	      struct rules **ret, struct error *err) _must_check_;
void rules_free(struct rules *r); /* NULL is fine */
/*
 * Flows stay when the rules are the same. After a change they go: the next frame that a rule lets
 * through makes its flow again.
 */
void rules_move_flows(struct rules *to, struct rules *from);

enum rules_verdict {
	RULES_ALLOW,
	RULES_DENY,
	RULES_NO_ROOM, /* for its flow */
};
/* NULL rules allow. `now` in ns. Counts. */
enum rules_verdict rules_judge(struct rules *r, const struct net_headers *h,
			       enum net_direction direction, uint64_t now);
struct net_rule_counters rules_counters(const struct rules *r, unsigned i);
unsigned rules_flows(const struct rules *r, uint64_t now); /* that are alive */
