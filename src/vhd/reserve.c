// SPDX-License-Identifier: MIT
/*
 * The rules of persistent reservations (SPC-4 5.13). Where SPC leaves a choice: registering key 0
 * without being registered changes nothing, PRgeneration included; REGISTER AND MOVE is refused,
 * since initiators here have no transport that could name another one.
 */
#include "vhd/reserve.h"

#include "lib/types.h"

#include <assert.h>

/* --- what is so --- */

bool reserve_type_valid(uint8_t type)
{
	return type < 16 &&
	       (BIT(type) & (BIT(RESERVE_WRITE_EXCLUSIVE) | BIT(RESERVE_EXCLUSIVE_ACCESS) |
			     BIT(RESERVE_WRITE_EXCLUSIVE_REGISTRANTS) |
			     BIT(RESERVE_EXCLUSIVE_ACCESS_REGISTRANTS) |
			     BIT(RESERVE_WRITE_EXCLUSIVE_ALL) | BIT(RESERVE_EXCLUSIVE_ACCESS_ALL)));
}

const char *reserve_type_name(uint8_t type)
{
	static const char *const names[] = {
		[RESERVE_NONE] = "none",
		[RESERVE_WRITE_EXCLUSIVE] = "write exclusive",
		[RESERVE_EXCLUSIVE_ACCESS] = "exclusive access",
		[RESERVE_WRITE_EXCLUSIVE_REGISTRANTS] = "write exclusive, registrants only",
		[RESERVE_EXCLUSIVE_ACCESS_REGISTRANTS] = "exclusive access, registrants only",
		[RESERVE_WRITE_EXCLUSIVE_ALL] = "write exclusive, all registrants",
		[RESERVE_EXCLUSIVE_ACCESS_ALL] = "exclusive access, all registrants",
	};

	return type < ARRAY_SIZE(names) && names[type] ? names[type] : "unknown";
}

bool reserve_type_all(uint8_t type)
{
	return type == RESERVE_WRITE_EXCLUSIVE_ALL || type == RESERVE_EXCLUSIVE_ACCESS_ALL;
}

bool reserve_type_registrants(uint8_t type)
{
	return type >= RESERVE_WRITE_EXCLUSIVE_REGISTRANTS;
}

bool reserve_type_exclusive(uint8_t type)
{
	return type == RESERVE_EXCLUSIVE_ACCESS || type == RESERVE_EXCLUSIVE_ACCESS_REGISTRANTS ||
	       type == RESERVE_EXCLUSIVE_ACCESS_ALL;
}

const struct reserve_nexus *reserve_find(const struct reserve_state *s, const struct guid *id)
{
	for (unsigned i = 0; i < RESERVE_NEXUS_MAX; i++)
		if (guid_equal(&s->nexus[i].id, id))
			return &s->nexus[i];
	return NULL;
}

bool reserve_holds(const struct reserve_state *s, const struct reserve_nexus *n)
{
	if (!n || !n->key || !s->type)
		return false;
	return reserve_type_all(s->type) || n == &s->nexus[s->holder];
}

unsigned reserve_registered(const struct reserve_state *s)
{
	unsigned count = 0;

	for (unsigned i = 0; i < RESERVE_NEXUS_MAX; i++)
		count += s->nexus[i].key != 0;
	return count;
}

bool reserve_conflicts(const struct reserve_state *s, const struct guid *id,
		       enum reserve_class class)
{
	const struct reserve_nexus *n = reserve_find(s, id);

	if (!s->type || class == RESERVE_CLASS_FREE || reserve_holds(s, n))
		return false;
	if (class == RESERVE_CLASS_READ && !reserve_type_exclusive(s->type))
		return false;
	return !(n && n->key && reserve_type_registrants(s->type));
}

bool reserve_state_valid(const struct reserve_state *s)
{
	if (s->type && !reserve_type_valid(s->type))
		return false;
	if (s->holder >= RESERVE_NEXUS_MAX)
		return false;
	if (s->type && !reserve_type_all(s->type) && !s->nexus[s->holder].key)
		return false;
	if ((!s->type || reserve_type_all(s->type)) && s->holder)
		return false;
	if (reserve_type_all(s->type) && !reserve_registered(s))
		return false;
	for (unsigned i = 0; i < RESERVE_NEXUS_MAX; i++) {
		if (guid_is_zero(&s->nexus[i].id) && s->nexus[i].key)
			return false;
		for (unsigned k = 0; k < i; k++)
			if (!guid_is_zero(&s->nexus[i].id) &&
			    guid_equal(&s->nexus[i].id, &s->nexus[k].id))
				return false;
	}
	return true;
}

/* --- changes --- */

static struct reserve_nexus *nexus_of(struct reserve_state *s, const struct guid *id)
{
	return (struct reserve_nexus *)(uintptr_t)reserve_find(s, id);
}

/* Tells every registrant but one. */
static void tell_others(struct reserve_state *s, const struct reserve_nexus *but,
			enum reserve_event event)
{
	for (unsigned i = 0; i < RESERVE_NEXUS_MAX; i++)
		if (s->nexus[i].key && &s->nexus[i] != but)
			s->nexus[i].events[event]++;
}

static void reservation_end(struct reserve_state *s)
{
	s->type = RESERVE_NONE;
	s->holder = 0;
}

static void reservation_begin(struct reserve_state *s, const struct reserve_nexus *n, uint8_t type)
{
	s->type = type;
	s->holder = reserve_type_all(type) ? 0 : (uint8_t)(n - s->nexus);
}

/* One that registrants shared is gone: they should know. The others nobody could rely on. */
static void reservation_release(struct reserve_state *s, const struct reserve_nexus *by)
{
	if (reserve_type_registrants(s->type))
		tell_others(s, by, RESERVE_RESERVATIONS_RELEASED);
	reservation_end(s);
}

/* A place for a newcomer: a free one, or that of somebody who is registered no more. */
static struct reserve_nexus *nexus_new(struct reserve_state *s, const struct guid *id)
{
	struct reserve_nexus *place = NULL;

	for (unsigned i = 0; i < RESERVE_NEXUS_MAX; i++) {
		struct reserve_nexus *n = &s->nexus[i];

		if (guid_is_zero(&n->id)) {
			place = n;
			break;
		}
		if (!n->key && !place)
			place = n;
	}
	if (place)
		*place = (struct reserve_nexus){ .id = *id };
	return place;
}

static void unregister(struct reserve_state *s, struct reserve_nexus *n)
{
	bool held = reserve_holds(s, n);

	n->key = 0;
	if (held && (!reserve_type_all(s->type) || !reserve_registered(s)))
		reservation_release(s, n);
}

static enum reserve_result do_register(struct reserve_state *s, struct reserve_nexus *n,
				       const struct guid *id, const struct reserve_request *q,
				       bool *ret_changed)
{
	uint64_t key = n ? n->key : 0;

	if (q->action == RESERVE_REGISTER && q->key != key)
		return RESERVE_CONFLICT;
	if (!key && !q->action_key)
		return RESERVE_GOOD;
	if (!n)
		n = nexus_new(s, id);
	if (!n)
		return RESERVE_NO_ROOM;
	if (q->action_key)
		n->key = q->action_key;
	else
		unregister(s, n);
	s->aptpl = q->aptpl;
	s->generation++;
	*ret_changed = true;
	return RESERVE_GOOD;
}

static enum reserve_result do_reserve(struct reserve_state *s, struct reserve_nexus *n,
				      const struct reserve_request *q, bool *ret_changed)
{
	if (s->type)
		return reserve_holds(s, n) && s->type == q->type ? RESERVE_GOOD : RESERVE_CONFLICT;
	reservation_begin(s, n, q->type);
	*ret_changed = true;
	return RESERVE_GOOD;
}

static enum reserve_result do_release(struct reserve_state *s, struct reserve_nexus *n,
				      const struct reserve_request *q, bool *ret_changed)
{
	if (!reserve_holds(s, n))
		return RESERVE_GOOD;
	if (q->type != s->type)
		return RESERVE_BAD_RELEASE;
	reservation_release(s, n);
	*ret_changed = true;
	return RESERVE_GOOD;
}

static enum reserve_result do_clear(struct reserve_state *s, struct reserve_nexus *n,
				    bool *ret_changed)
{
	tell_others(s, n, RESERVE_RESERVATIONS_PREEMPTED);
	for (unsigned i = 0; i < RESERVE_NEXUS_MAX; i++)
		s->nexus[i].key = 0;
	reservation_end(s);
	s->generation++;
	*ret_changed = true;
	return RESERVE_GOOD;
}

/* Removes registrations with `key` (0 = all), but that of `but`; how many there were. */
static unsigned remove_registrations(struct reserve_state *s, uint64_t key,
				     const struct reserve_nexus *but,
				     const struct reserve_nexus *by)
{
	unsigned count = 0;

	for (unsigned i = 0; i < RESERVE_NEXUS_MAX; i++) {
		struct reserve_nexus *n = &s->nexus[i];

		if (n == but || !n->key || (key && n->key != key))
			continue;
		n->key = 0;
		if (n != by)
			n->events[RESERVE_REGISTRATIONS_PREEMPTED]++;
		count++;
	}
	return count;
}

static bool key_registered(const struct reserve_state *s, uint64_t key)
{
	for (unsigned i = 0; i < RESERVE_NEXUS_MAX; i++)
		if (s->nexus[i].key == key)
			return true;
	return false;
}

/* SPC-4 5.13.11.2.7: the reservation becomes the preempter's, of the type that it wants. */
static enum reserve_result preempt_reservation(struct reserve_state *s, struct reserve_nexus *n,
					       const struct reserve_request *q)
{
	bool other_type = s->type != q->type;

	if (q->scope || !reserve_type_valid(q->type))
		return RESERVE_BAD_CDB;
	remove_registrations(s, q->action_key, n, n);
	reservation_begin(s, n, q->type);
	if (other_type)
		tell_others(s, n, RESERVE_RESERVATIONS_RELEASED);
	return RESERVE_GOOD;
}

/* SPC-4 5.13.11.2.6: only registrations go; the preempter's own too, when it names its own key. */
static void preempt_registrations(struct reserve_state *s, struct reserve_nexus *n, uint64_t key)
{
	remove_registrations(s, key, NULL, n);
	if (s->type && reserve_type_all(s->type) && !reserve_registered(s))
		reservation_end(s);
}

static enum reserve_result do_preempt(struct reserve_state *s, struct reserve_nexus *n,
				      const struct reserve_request *q, bool *ret_changed)
{
	bool all = reserve_type_all(s->type);
	bool takes = s->type && (all ? !q->action_key : q->action_key == s->nexus[s->holder].key);

	if (!q->action_key && !all)
		return RESERVE_BAD_PARAMETER;
	if (q->action_key && !key_registered(s, q->action_key))
		return RESERVE_CONFLICT;
	if (takes) {
		enum reserve_result r = preempt_reservation(s, n, q);

		if (r != RESERVE_GOOD)
			return r;
	} else {
		preempt_registrations(s, n, q->action_key);
	}
	s->generation++;
	*ret_changed = true;
	return RESERVE_GOOD;
}

enum reserve_result reserve_apply(struct reserve_state *s, const struct guid *id,
				  const struct reserve_request *q, bool *ret_changed)
{
	struct reserve_nexus *n = nexus_of(s, id);

	assert(!guid_is_zero(id));
	*ret_changed = false;
	if (q->action > RESERVE_REGISTER_IGNORE)
		return RESERVE_BAD_CDB;
	if (q->action == RESERVE_REGISTER || q->action == RESERVE_REGISTER_IGNORE)
		return do_register(s, n, id, q, ret_changed);
	if (!n || !n->key || n->key != q->key)
		return RESERVE_CONFLICT;
	if (q->action == RESERVE_RESERVE || q->action == RESERVE_RELEASE) {
		if (q->scope || !reserve_type_valid(q->type))
			return RESERVE_BAD_CDB;
		return q->action == RESERVE_RESERVE ? do_reserve(s, n, q, ret_changed)
						    : do_release(s, n, q, ret_changed);
	}
	if (q->action == RESERVE_CLEAR)
		return do_clear(s, n, ret_changed);
	return do_preempt(s, n, q, ret_changed);
}
