/* SPDX-License-Identifier: MIT */
/*
 * Persistent reservations of a disk that several initiators share (SPC-4 5.13): who has registered
 * a key, who holds a reservation of which type, and what a command may do then. A plain struct and
 * pure functions over it: no I/O, no clock, no memory of their own. reserve_file.h makes it durable
 * and common to several processes.
 */
#pragma once

#include "lib/guid.h"

#define RESERVE_NEXUS_MAX 64u /* registered initiators of one disk: a cluster's size */

/* SPC-4 table 68; 0 = there is no reservation. */
enum reserve_type {
	RESERVE_NONE = 0,
	RESERVE_WRITE_EXCLUSIVE = 1,
	RESERVE_EXCLUSIVE_ACCESS = 3,
	RESERVE_WRITE_EXCLUSIVE_REGISTRANTS = 5,
	RESERVE_EXCLUSIVE_ACCESS_REGISTRANTS = 6,
	RESERVE_WRITE_EXCLUSIVE_ALL = 7, /* every registrant is a holder */
	RESERVE_EXCLUSIVE_ACCESS_ALL = 8,
};

/* Service actions of PERSISTENT RESERVE OUT. */
enum reserve_action {
	RESERVE_REGISTER = 0,
	RESERVE_RESERVE = 1,
	RESERVE_RELEASE = 2,
	RESERVE_CLEAR = 3,
	RESERVE_PREEMPT = 4,
	RESERVE_PREEMPT_ABORT = 5,
	RESERVE_REGISTER_IGNORE = 6,
};

/* What an initiator is to be told once (unit attentions, SPC-4 table 67). */
enum reserve_event {
	RESERVE_RESERVATIONS_PREEMPTED,
	RESERVE_RESERVATIONS_RELEASED,
	RESERVE_REGISTRATIONS_PREEMPTED,
	RESERVE_EVENTS,
};

/*
 * What is known of an initiator. `events` only ever count up: who remembers what they were knows
 * what has happened since. One that lost its registration stays, with key 0, so that it can learn
 * of that; its place is given away when there is no other.
 */
struct reserve_nexus {
	struct guid id; /* all zero = the place is free */
	uint64_t key;   /* 0 = not registered */
	uint32_t events[RESERVE_EVENTS];
};

struct reserve_state {
	uint32_t generation; /* PRgeneration */
	uint8_t type;        /* enum reserve_type */
	uint8_t holder;      /* index of the holder, of a type that has one; else 0 */
	bool aptpl;          /* what the last registration asked for; all is durable in any case */
	struct reserve_nexus nexus[RESERVE_NEXUS_MAX];
};

/* A PERSISTENT RESERVE OUT, decoded. */
struct reserve_request {
	uint8_t action; /* enum reserve_action; anything else is refused */
	uint8_t scope, type;
	uint64_t key, action_key;
	bool aptpl;
};

enum reserve_result {
	RESERVE_GOOD,
	RESERVE_CONFLICT,      /* status RESERVATION CONFLICT */
	RESERVE_BAD_CDB,       /* INVALID FIELD IN CDB */
	RESERVE_BAD_PARAMETER, /* INVALID FIELD IN PARAMETER LIST */
	RESERVE_BAD_RELEASE,   /* INVALID RELEASE OF PERSISTENT RESERVATION */
	RESERVE_NO_ROOM,       /* INSUFFICIENT REGISTRATION RESOURCES */
};

/* What a command does, as far as reservations care (SPC-4 table 65, SBC-3 table 13). */
enum reserve_class {
	RESERVE_CLASS_FREE,  /* never conflicts: INQUIRY, READ CAPACITY, reserving itself, ... */
	RESERVE_CLASS_READ,  /* conflicts where access is exclusive */
	RESERVE_CLASS_WRITE, /* conflicts where writing is */
};

/*
 * Does what initiator `id` (not all zero) asks for. The state changes only with RESERVE_GOOD;
 * *ret_changed says whether it did.
 */
enum reserve_result reserve_apply(struct reserve_state *s, const struct guid *id,
				  const struct reserve_request *request, bool *ret_changed);

/* Whether a command of that class from `id` ends with RESERVATION CONFLICT. */
bool reserve_conflicts(const struct reserve_state *s, const struct guid *id,
		       enum reserve_class class);

/* NULL when nothing is known of it. */
const struct reserve_nexus *reserve_find(const struct reserve_state *s, const struct guid *id);
bool reserve_holds(const struct reserve_state *s, const struct reserve_nexus *n);
unsigned reserve_registered(const struct reserve_state *s); /* how many */
bool reserve_type_valid(uint8_t type);
const char *reserve_type_name(uint8_t type); /* for people; RESERVE_NONE too */
bool reserve_type_all(uint8_t type);         /* every registrant holds it */
bool reserve_type_registrants(uint8_t type); /* registrants may do what it reserves */
bool reserve_type_exclusive(uint8_t type);   /* reserves reading too */

/* Whether the parts of a state that came from outside agree with each other. */
bool reserve_state_valid(const struct reserve_state *s);
