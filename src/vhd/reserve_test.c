// SPDX-License-Identifier: MIT
/*
 * The rules of persistent reservations, against an oracle that was written from the standard's text
 * and tables in another shape: every state of three initiators with two keys, and every request.
 */
#include "vhd/reserve.h"

#include "lib/types.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define PEOPLE 3

static const uint8_t types[] = { 1, 3, 5, 6, 7, 8 };

static struct guid person(unsigned i)
{
	return (struct guid){ { 0xa0, (uint8_t)(i + 1) } };
}

/* --- the oracle --- */

struct model {
	uint64_t key[PEOPLE];
	bool holds[PEOPLE];
	uint8_t type;
};

struct outcome {
	enum reserve_result result;
	bool counts; /* PRgeneration goes up */
	int told[PEOPLE];
};

static bool shared_by_all(uint8_t type)
{
	return type == 7 || type == 8;
}

/* Holders follow from the registrations where all of them hold. */
static void holders_settle(struct model *m)
{
	bool any = false;

	for (int i = 0; i < PEOPLE; i++) {
		if (shared_by_all(m->type))
			m->holds[i] = m->key[i] != 0;
		m->holds[i] = m->holds[i] && m->type;
		any = any || m->holds[i];
	}
	if (!any)
		m->type = 0;
}

static void tell(struct model *m, struct outcome *o, int but, int event)
{
	for (int i = 0; i < PEOPLE; i++)
		if (i != but && m->key[i])
			o->told[i] = event;
}

/* 5.13.11.2.2 and table 67: types 5 to 8 end with a unit attention, 1 and 3 do not. */
static void end_reservation(struct model *m, struct outcome *o, int by)
{
	if (m->type >= 5)
		tell(m, o, by, RESERVE_RESERVATIONS_RELEASED);
	m->type = 0;
	memset(m->holds, 0, sizeof(m->holds));
}

static void oracle_register(struct model *m, int who, const struct reserve_request *q,
			    struct outcome *o)
{
	bool sole = m->holds[who];

	if (q->action == 0 && q->key != m->key[who]) {
		o->result = RESERVE_CONFLICT;
		return;
	}
	if (!m->key[who] && !q->action_key)
		return;
	o->counts = true;
	m->key[who] = q->action_key;
	for (int i = 0; i < PEOPLE; i++)
		if (i != who && m->holds[i])
			sole = false;
	if (!q->action_key && m->holds[who]) {
		m->holds[who] = false;
		if (sole)
			end_reservation(m, o, who);
	}
	holders_settle(m);
}

static void oracle_preempt(struct model *m, int who, const struct reserve_request *q,
			   struct outcome *o)
{
	bool found = false, takes = false;
	uint8_t old = m->type;

	for (int i = 0; i < PEOPLE; i++) {
		found = found || (m->key[i] && m->key[i] == q->action_key);
		if (m->holds[i] && !shared_by_all(old) && m->key[i] == q->action_key)
			takes = true;
	}
	if (shared_by_all(old) && !q->action_key)
		takes = true;
	if (!q->action_key && !takes) {
		o->result = RESERVE_BAD_PARAMETER;
		return;
	}
	if (q->action_key && !found) {
		o->result = RESERVE_CONFLICT;
		return;
	}
	if (takes && (q->scope || !strchr("\1\3\5\6\7\10", q->type) || !q->type)) {
		o->result = RESERVE_BAD_CDB;
		return;
	}
	o->counts = true;
	for (int i = 0; i < PEOPLE; i++) {
		if (!m->key[i] || (q->action_key && m->key[i] != q->action_key))
			continue;
		if (i == who && takes)
			continue;
		m->key[i] = 0;
		if (i != who)
			o->told[i] = RESERVE_REGISTRATIONS_PREEMPTED;
		m->holds[i] = false;
	}
	if (takes) {
		m->type = q->type;
		memset(m->holds, 0, sizeof(m->holds));
		m->holds[who] = true;
		if (old != q->type)
			tell(m, o, who, RESERVE_RESERVATIONS_RELEASED);
	}
	holders_settle(m);
}

static void oracle_reserve(struct model *m, int who, const struct reserve_request *q,
			   struct outcome *o)
{
	if (q->action == 2 && m->type && m->holds[who]) {
		if (m->type == q->type)
			end_reservation(m, o, who);
		else
			o->result = RESERVE_BAD_RELEASE;
	} else if (q->action == 1 && !m->type) {
		m->type = q->type;
		m->holds[who] = true;
		holders_settle(m);
	} else if (q->action == 1 && !(m->holds[who] && m->type == q->type)) {
		o->result = RESERVE_CONFLICT;
	}
}

static struct outcome oracle(struct model *m, int who, const struct reserve_request *q)
{
	struct outcome o = { .result = RESERVE_GOOD, .told = { -1, -1, -1 } };

	if (q->action > 6) {
		o.result = RESERVE_BAD_CDB;
	} else if (q->action == 0 || q->action == 6) {
		oracle_register(m, who, q, &o);
	} else if (!m->key[who] || q->key != m->key[who]) {
		o.result = RESERVE_CONFLICT;
	} else if (q->action == 3) {
		tell(m, &o, who, RESERVE_RESERVATIONS_PREEMPTED);
		memset(m, 0, sizeof(*m));
		o.counts = true;
	} else if (q->action >= 4) {
		oracle_preempt(m, who, q, &o);
	} else if (q->scope || !memchr(types, q->type, sizeof(types))) {
		o.result = RESERVE_BAD_CDB;
	} else {
		oracle_reserve(m, who, q, &o);
	}
	return o;
}

/* --- every state and every request --- */

static struct reserve_state state_of(const struct model *m)
{
	struct reserve_state s = { .type = m->type, .generation = 41 };

	for (int i = 0; i < PEOPLE; i++) {
		/* not at the start of the table, and in another order */
		struct reserve_nexus *n = &s.nexus[10 - i];

		n->id = person((unsigned)i);
		n->key = m->key[i];
		if (m->type && !shared_by_all(m->type) && m->holds[i])
			s.holder = (uint8_t)(10 - i);
	}
	return s;
}

static void expect(const struct reserve_state *s, const struct model *m)
{
	assert_true(reserve_state_valid(s));
	assert_int_equal(s->type, m->type);
	for (int i = 0; i < PEOPLE; i++) {
		const struct guid id = person((unsigned)i);
		const struct reserve_nexus *n = reserve_find(s, &id);

		assert_non_null(n);
		assert_int_equal(n->key, m->key[i]);
		assert_int_equal(reserve_holds(s, n), m->holds[i]);
	}
}

static void expect_told(const struct reserve_state *s, const struct outcome *o)
{
	for (int i = 0; i < PEOPLE; i++) {
		const struct guid id = person((unsigned)i);
		const struct reserve_nexus *n = reserve_find(s, &id);

		for (int e = 0; e < RESERVE_EVENTS; e++)
			assert_int_equal(n->events[e], o->told[i] == e);
	}
}

static void try_one(const struct model *m, int who, const struct reserve_request *q)
{
	struct reserve_state s = state_of(m), before = s;
	struct model next = *m;
	struct outcome o = oracle(&next, who, q);
	struct guid id = person((unsigned)who);
	bool changed;
	enum reserve_result r = reserve_apply(&s, &id, q, &changed);

	if (r != o.result)
		print_error("type %u keys %d %d %d: %d asks %u scope %u type %u key %d %d\n",
			    m->type, (int)m->key[0], (int)m->key[1], (int)m->key[2], who, q->action,
			    q->scope, q->type, (int)q->key, (int)q->action_key);
	assert_int_equal(r, o.result);
	if (r != RESERVE_GOOD)
		assert_false(changed);
	if (!changed)
		assert_memory_equal(&s, &before, sizeof(s));
	if (r == RESERVE_GOOD)
		expect(&s, &next);
	expect_told(&s, &o);
	assert_int_equal(s.generation, before.generation + o.counts);
}

static uint64_t try_all(const struct model *m)
{
	static const uint8_t asked[] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 15 };
	uint64_t count = 0;
	struct reserve_request q = { 0 };

	for (int who = 0; who < PEOPLE; who++)
		for (q.action = 0; q.action <= 8; q.action++)
			for (q.scope = 0; q.scope <= 1; q.scope++)
				for (unsigned t = 0; t < sizeof(asked) * 9; t++, count++) {
					q.type = asked[t / 9];
					q.key = t % 3;
					q.action_key = t / 3 % 3;
					try_one(m, who, &q);
				}
	return count;
}

static void each_state(uint64_t (*fn)(const struct model *m), uint64_t *ret_states,
		       uint64_t *ret_sum)
{
	*ret_states = *ret_sum = 0;
	for (unsigned keys = 0; keys < 27; keys++)
		for (unsigned t = 0; t <= 6; t++)
			for (int holder = 0; holder < PEOPLE; holder++) {
				struct model m = { .type = t ? types[t - 1] : 0 };

				m.key[0] = keys % 3;
				m.key[1] = keys / 3 % 3;
				m.key[2] = keys / 9;
				m.holds[holder] = m.type && m.key[holder];
				if (m.type && !m.holds[holder])
					continue;
				if (holder && (!m.type || shared_by_all(m.type)) &&
				    (m.key[0] || !m.type))
					continue; /* the same state again */
				holders_settle(&m);
				(*ret_states)++;
				*ret_sum += fn(&m);
			}
}

static void test_every_request_in_every_state(void **state)
{
	uint64_t states, requests;

	(void)state;
	each_state(try_all, &states, &requests);
	print_message("%llu states, %llu requests\n", (unsigned long long)states,
		      (unsigned long long)requests);
	assert_true(states > 300);
}

/* SPC-4 table 65 by columns: reading and writing, C = conflict, - = allowed. */
static const struct {
	uint8_t type;
	const char *read, *write; /* holder, registrant, stranger */
} rights[] = {
	{ 0, "---", "---" }, { 1, "---", "-CC" }, { 3, "-CC", "-CC" }, { 5, "---", "--C" },
	{ 6, "--C", "--C" }, { 7, "---", "--C" }, { 8, "--C", "--C" },
};

static void test_who_may_do_what(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rights); i++) {
		struct model m = { .key = { 1, 2, 0 }, .type = rights[i].type };
		struct reserve_state s;

		m.holds[0] = m.type != 0;
		holders_settle(&m);
		s = state_of(&m);
		for (unsigned who = 0; who < PEOPLE; who++) {
			struct guid id = person(who);

			assert_int_equal(reserve_conflicts(&s, &id, RESERVE_CLASS_READ),
					 rights[i].read[who] == 'C');
			assert_int_equal(reserve_conflicts(&s, &id, RESERVE_CLASS_WRITE),
					 rights[i].write[who] == 'C');
			assert_false(reserve_conflicts(&s, &id, RESERVE_CLASS_FREE));
		}
		/* Nobody has ever heard of this one. */
		assert_int_equal(
			reserve_conflicts(&s, &(struct guid){ { 9 } }, RESERVE_CLASS_WRITE),
			rights[i].write[2] == 'C');
	}
}

static enum reserve_result ask(struct reserve_state *s, unsigned who, uint8_t action, uint64_t key,
			       uint64_t action_key)
{
	const struct reserve_request q = {
		.action = action, .type = 1, .key = key, .action_key = action_key
	};
	struct guid id = person(who);
	bool changed;

	return reserve_apply(s, &id, &q, &changed);
}

static void test_registrants_are_limited(void **state)
{
	struct reserve_state s = { 0 };

	(void)state;
	for (unsigned i = 0; i < RESERVE_NEXUS_MAX; i++)
		assert_int_equal(ask(&s, i, RESERVE_REGISTER, 0, i + 1), RESERVE_GOOD);
	assert_int_equal(ask(&s, 64, RESERVE_REGISTER, 0, 99), RESERVE_NO_ROOM);
	assert_int_equal(ask(&s, 5, RESERVE_REGISTER, 6, 77), RESERVE_GOOD);
	/* The place of one that has lost its registration is given away; others' are not. */
	assert_int_equal(ask(&s, 0, RESERVE_PREEMPT, 1, 9), RESERVE_GOOD);
	assert_int_equal(ask(&s, 64, RESERVE_REGISTER, 0, 99), RESERVE_GOOD);
	assert_int_equal(ask(&s, 8, RESERVE_REGISTER, 0, 9), RESERVE_NO_ROOM);
	assert_int_equal(reserve_registered(&s), RESERVE_NEXUS_MAX);
	assert_true(reserve_state_valid(&s));
}

static void test_states_that_contradict_themselves(void **state)
{
	const struct model m = { .key = { 1, 2, 0 }, .type = 1, .holds = { true } };
	struct reserve_state good = state_of(&m), s;

	(void)state;
	assert_true(reserve_state_valid(&good));
	s = good, s.type = 2;
	assert_false(reserve_state_valid(&s));
	s = good, s.holder = 64;
	assert_false(reserve_state_valid(&s));
	s = good, s.holder = 8; /* not registered */
	assert_false(reserve_state_valid(&s));
	s = good, s.type = 7; /* has no single holder */
	assert_false(reserve_state_valid(&s));
	s = good, s.nexus[20].id = person(0);
	assert_false(reserve_state_valid(&s));
	s = good, s.nexus[20].key = 5; /* nobody's */
	assert_false(reserve_state_valid(&s));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_request_in_every_state),
		cmocka_unit_test(test_who_may_do_what),
		cmocka_unit_test(test_registrants_are_limited),
		cmocka_unit_test(test_states_that_contradict_themselves),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
