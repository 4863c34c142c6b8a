// SPDX-License-Identifier: MIT
/*
 * The commands of the control socket that are about memory, in front of memory.h. Event loop's
 * thread. Amounts are in MiB, as in the description.
 */
#include "worker/memory.h"

#include <errno.h>
#include <stdio.h>

#define MIB_MOST (12 * TIB / MIB)

static json_t *mib(uint64_t bytes)
{
	return json_integer((json_int_t)(bytes / MIB));
}

/* What is needed of what it has, in percent: as Hyper-V's counter has it. */
static json_int_t pressure(const struct dynmem_status *s)
{
	return s->assigned ? (json_int_t)(MIN(s->demand / KIB * 100 / MAX(s->assigned / KIB, 1u),
					      1000u))
			   : 0;
}

static json_t *driver_json(const struct dynmem_status *s)
{
	char version[16];

	if (!s->version)
		return json_null();
	snprintf(version, sizeof(version), "%u.%u", s->version >> 16, s->version & 0xffff);
	return json_pack("{s:s,s:b,s:b}", "version", version, "can_give", s->can_balloon, "can_add",
			 s->can_hot_add);
}

json_t *memory_json(const struct memory *m)
{
	struct dynmem_status s = memory_status(m);
	json_t *o =
		json_pack("{s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:s,s:o}", "startup",
			  mib(memory_startup(m)), "maximum", mib(s.most), "target", mib(s.target),
			  "assigned", mib(s.assigned), "ballooned", mib(s.ballooned), "added",
			  mib(s.hot_added), "resident", mib(memory_resident(m)), "hinted",
			  mib(memory_hinted(m)), "state", s.state, "driver", driver_json(&s));

	if (!s.reported)
		return o;
	json_object_set_new(o, "available", mib(s.available));
	json_object_set_new(o, "committed", mib(s.committed));
	json_object_set_new(o, "demand", mib(s.demand));
	json_object_set_new(o, "pressure", json_integer(pressure(&s)));
	return o;
}

static int run_query(struct command *c, struct error *err)
{
	struct memory *m = c->context;
	struct dynmem_status s = memory_status(m);
	json_t *o = memory_json(m);

	(void)err;
	json_object_set_new(o, "requests", json_integer((json_int_t)s.requests));
	json_object_set_new(o, "refusals", json_integer((json_int_t)s.refusals));
	json_object_set_new(o, "bad_messages", json_integer((json_int_t)s.bad_messages));
	json_object_set_new(o, "discard_failures", json_integer((json_int_t)s.discard_failures));
	json_object_set_new(c->answer, "memory", o);
	return 0;
}

/* It is accepted; events tell how far the guest follows. */
static int run_set(struct command *c, struct error *err)
{
	struct memory *m = c->context;
	uint64_t target;
	int r = take_number(c->request, "target", 1, MIB_MOST, &target, err);

	if (r >= 0)
		r = memory_set_target(m, target * MIB, err);
	if (r >= 0)
		json_object_set_new(c->answer, "memory", memory_json(m));
	return r;
}

static const struct command_type memory_commands[] = {
	{ "memory-query", "", run_query },
	{ "memory-set", " target ", run_set },
	{ 0 },
};

struct command_family memory_family(struct memory *m)
{
	return (struct command_family){ .types = memory_commands, .context = m };
}
