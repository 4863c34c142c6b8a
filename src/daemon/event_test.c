// SPDX-License-Identifier: MIT
/* Who is told of what, when; what belongs to a change; filters and retention. */
#include "daemon/event.h"
#include "daemon/testing.h"
#include "daemon/words.h"

#include <errno.h>

static struct error err;
static struct database *db;
static struct loop *loop;
static struct events *events;

static void open_all(const char *folder)
{
	assert_int_equal(loop_new(0, &loop, &err), 0);
	if (database_open(folder, &db, &err) < 0 || events_new(db, loop, &events, &err) < 0)
		fail_msg("%s", err.message);
}

static void close_all(void)
{
	events_free(events);
	database_close(db);
	loop_free(loop);
}

static int setup(void **state)
{
	int r = test_folder_setup(state);

	if (!r)
		open_all(*state);
	return r;
}

static int teardown(void **state)
{
	close_all();
	return test_folder_teardown(state);
}

static void add(const char *kind)
{
	event_add(events, SEVERITY_INFORMATION, kind, NULL, NULL, NULL, "%s happened", kind);
}

static void round_of_loop(void)
{
	assert_int_equal(loop_once(loop, 0), 0);
}

/* All kinds that a query or a watch saw, each with a space behind it. */
static char seen[1024];

static int see(void *context, const struct event *event)
{
	(void)context;
	strcat(strcat(seen, event->kind), " ");
	return 0;
}

static const char *query(const struct event_filter *filter)
{
	seen[0] = '\0';
	assert_int_equal(events_query(events, filter, see, NULL, &err), 0);
	return seen;
}

static void on_event(struct event_watch *w, const struct event *event)
{
	(void)w;
	see(NULL, event);
}

static int count_row(void *context, const struct database_row *row)
{
	*(int64_t *)context = row_integer(row, 0);
	return 0;
}

static int64_t rows(void)
{
	int64_t n = -1;

	assert_int_equal(database_query(db, &err, count_row, &n, "SELECT count(*) FROM events", ""),
			 0);
	return n;
}

static unsigned commits;

static void count_commit(struct database_hook *h, bool committed)
{
	(void)h;
	commits += committed;
}

static void test_a_round_is_one_transaction_and_told_after_it(void **state)
{
	struct event_watch w;
	struct database_hook h = { .ended = count_commit };

	(void)state;
	database_hook(db, &h);
	commits = 0;
	seen[0] = '\0';
	event_watch(events, &w, on_event);
	for (int i = 0; i < 50; i++)
		add("a");
	assert_int_equal(rows(), 0);
	assert_string_equal(seen, "");
	round_of_loop();
	assert_int_equal(commits, 1);
	assert_int_equal(rows(), 50);
	assert_int_equal(strlen(seen), 100);
	event_unwatch(&w);
	database_unhook(&h);
}

static int change(const char *id)
{
	return database_run(db, &err,
			    "INSERT INTO vms (id, folder, phase) VALUES (?, ?, 'present')", "ss",
			    id, id);
}

static void test_a_change_takes_its_events_along(void **state)
{
	struct event_watch w;

	seen[0] = '\0';
	event_watch(events, &w, on_event);
	add("before");
	assert_int_equal(database_begin(db, &err), 0);
	assert_int_equal(change("x"), 0);
	add("changed");
	assert_int_equal(database_commit(db, &err), 0);
	assert_int_equal(rows(), 2); /* without a round of the loop */
	assert_string_equal(seen, "");
	round_of_loop();
	assert_string_equal(seen, "before changed ");
	event_unwatch(&w);
	close_all();
	open_all(*state);
	assert_string_equal(query(&(struct event_filter){ 0 }), "before changed ");
}

static void test_what_is_undone_never_was(void **state)
{
	struct event_watch w;

	(void)state;
	seen[0] = '\0';
	event_watch(events, &w, on_event);
	add("before");
	assert_int_equal(database_begin(db, &err), 0);
	add("changed");
	database_rollback(db);
	add("after");
	round_of_loop();
	assert_string_equal(seen, "before after ");
	assert_string_equal(query(&(struct event_filter){ 0 }), "before after ");
	event_unwatch(&w);
}

static void test_what_happened_all_the_same_stays(void **state)
{
	(void)state;
	assert_int_equal(database_begin(db, &err), 0);
	add("changed");
	event_add_apart(events, SEVERITY_AUDIT, "refused", NULL, NULL, NULL, "no");
	database_rollback(db);
	round_of_loop();
	assert_string_equal(query(&(struct event_filter){ 0 }), "refused ");
}

static int refuse(struct database_hook *h, struct error *e)
{
	(void)h;
	return error_set(e, -ENOSPC, "full");
}

/* The rows were written, but the commit failed: they are taken back, and written later. */
static void test_a_failed_commit_loses_only_its_own_events(void **state)
{
	struct database_hook h = { .committing = refuse };
	struct event_watch w;

	(void)state;
	seen[0] = '\0';
	event_watch(events, &w, on_event);
	database_hook(db, &h); /* after ours: our rows are in by then */
	add("before");
	assert_int_equal(database_begin(db, &err), 0);
	add("changed");
	assert_int_equal(database_commit(db, &err), -ENOSPC);
	database_unhook(&h);
	assert_int_equal(rows(), 0);
	round_of_loop();
	assert_string_equal(seen, "before ");
	assert_int_equal(rows(), 1);
	event_unwatch(&w);
}

static void test_what_cannot_be_written_is_dropped(void **state)
{
	struct database_hook h = { .committing = refuse };
	struct event_watch w;

	(void)state;
	seen[0] = '\0';
	event_watch(events, &w, on_event);
	database_hook(db, &h);
	add("lost");
	round_of_loop();
	database_unhook(&h);
	add("kept");
	round_of_loop();
	assert_string_equal(seen, "kept ");
	event_unwatch(&w);
}

static void test_the_last_round_is_written_at_the_end(void **state)
{
	add("last");
	close_all();
	open_all(*state);
	assert_string_equal(query(&(struct event_filter){ 0 }), "last ");
}

static void test_a_query_and_a_watch_have_no_gap_and_no_overlap(void **state)
{
	struct event_watch w;

	(void)state;
	assert_int_equal(database_begin(db, &err), 0);
	add("first");
	assert_int_equal(database_commit(db, &err), 0); /* durable, not told yet */
	add("second");
	assert_string_equal(query(&(struct event_filter){ 0 }), "first ");
	event_watch(events, &w, on_event);
	round_of_loop();
	assert_string_equal(seen, "first second ");
	event_unwatch(&w);
}

static struct event_watch three[3];
static unsigned told[3];

static void on_event_remove(struct event_watch *w, const struct event *event)
{
	(void)event;
	told[w - three]++;
	if (w != &three[0])
		return;
	event_unwatch(&three[0]);
	event_unwatch(&three[1]); /* has not been told */
}

static void test_watches_are_removed_inside_of_one(void **state)
{
	(void)state;
	memset(told, 0, sizeof(told));
	for (int i = 0; i < 3; i++)
		event_watch(events, &three[i], on_event_remove);
	add("a");
	add("b");
	round_of_loop();
	assert_int_equal(told[0], 1);
	assert_int_equal(told[1], 0);
	assert_int_equal(told[2], 2);
	event_unwatch(&three[2]);
}

static void on_event_add(struct event_watch *w, const struct event *event)
{
	(void)w;
	see(NULL, event);
	if (!strcmp(event->kind, "a"))
		add("b");
}

static void test_an_event_may_cause_another(void **state)
{
	struct event_watch w;

	(void)state;
	seen[0] = '\0';
	event_watch(events, &w, on_event_add);
	add("a");
	for (int i = 0; i < 3; i++)
		round_of_loop();
	assert_string_equal(seen, "a b ");
	event_unwatch(&w);
}

static void test_filters(void **state)
{
	static const struct {
		struct event_filter filter;
		const char *kinds;
	} cases[] = {
		{ { 0 }, "a b c d " },
		{ { .newest_first = true }, "d c b a " },
		{ { .limit = 2 }, "a b " },
		{ { .limit = 2, .newest_first = true }, "d c " },
		{ { .after = 2 }, "c d " },
		{ { .before = 3, .newest_first = true, .limit = 1 }, "b " },
		{ { .after = 1, .before = 4 }, "b c " },
		{ { .vm = "one" }, "a c " },
		{ { .vm = "one", .newest_first = true }, "c a " },
		{ { .vm = "one", .after = 1 }, "c " },
		{ { .vm = "none" }, "" },
		{ { .kind = "b" }, "b " },
		{ { .kind = "b", .vm = "one" }, "" },
		{ { .severity_min = SEVERITY_ERROR }, "c d " },
		{ { .severity_min = -1 }, "a b c d " },
		{ { .since = INT64_MAX }, "" },
		{ { .since = 1 }, "a b c d " },
	};

	(void)state;
	event_add(events, SEVERITY_INFORMATION, "a", "one", NULL, NULL, "w");
	event_add(events, SEVERITY_WARNING, "b", "two", NULL, NULL, "w");
	event_add(events, SEVERITY_ERROR, "c", "one", NULL, NULL, "w");
	event_add(events, SEVERITY_AUDIT, "d", NULL, NULL, NULL, "w");
	round_of_loop();
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_string_equal(query(&cases[i].filter), cases[i].kinds);
}

static json_t *as_json;

static int keep_json(void *context, const struct event *event)
{
	(void)context;
	as_json = event_json(event);
	return 7;
}

static void test_an_event_comes_back_as_it_was(void **state)
{
	const struct caller actor = { .name = "jo" };
	const char *time;

	(void)state;
	event_add(events, SEVERITY_AUDIT, "vm-started", "id", &actor, json_pack("{s:i}", "n", 5),
		  "%s cut \xe2\x82", "words");
	event_add(events, SEVERITY_AUDIT, "x", NULL, &caller_service, NULL, "w");
	round_of_loop();
	assert_int_equal(events_query(events, &(struct event_filter){ 0 }, keep_json, NULL, &err),
			 7);
	time = json_string_value(json_object_get(as_json, "time"));
	assert_int_equal(strlen(time), 24);
	json_object_del(as_json, "time");
	{
		char *text = json_dumps(as_json, JSON_COMPACT);

		assert_string_equal(text,
				    "{\"id\":1,\"severity\":\"audit\",\"kind\":\"vm-started\","
				    "\"vm\":\"id\",\"actor\":\"jo\",\"words\":\"words cut ??\","
				    "\"fields\":{\"n\":5}}");
		free(text);
	}
	json_decref(as_json);
	assert_int_equal(
		events_query(events, &(struct event_filter){ .after = 1 }, keep_json, NULL, &err),
		7);
	assert_true(json_is_null(json_object_get(as_json, "actor")));
	assert_true(json_is_null(json_object_get(as_json, "vm")));
	assert_true(json_is_null(json_object_get(as_json, "fields")));
	json_decref(as_json);
}

static void test_words_and_fields_have_limits(void **state)
{
	char *large = malloc(EVENT_FIELDS_MAX + 1);

	(void)state;
	memset(large, 'x', EVENT_FIELDS_MAX);
	large[EVENT_FIELDS_MAX] = '\0';
	event_add(events, SEVERITY_ERROR, "k", NULL, NULL, json_pack("{s:s}", "f", large), "%s",
		  large);
	free(large);
	round_of_loop();
	assert_int_equal(events_query(events, &(struct event_filter){ 0 }, keep_json, NULL, &err),
			 7);
	assert_int_equal(json_string_length(json_object_get(as_json, "words")),
			 EVENT_WORDS_MAX - 1);
	assert_true(json_is_null(json_object_get(as_json, "fields")));
	json_decref(as_json);
}

static void test_old_and_surplus_events_go(void **state)
{
	int64_t now = time_ms();
	const int64_t day = 86400000;

	for (int i = 0; i < 20; i++)
		add("x");
	round_of_loop();
	assert_int_equal(database_run(db, &err, "UPDATE events SET time = ? WHERE id <= 5", "i",
				      now - 10 * day),
			 0);
	events_expire(events, now, 11, 1000);
	assert_int_equal(rows(), 20);
	events_expire(events, now, 9, 1000);
	assert_int_equal(rows(), 15);
	events_expire(events, now, 9, 4);
	assert_int_equal(rows(), 4);
	events_expire(events, now + 100 * day, 9, 4);
	assert_int_equal(rows(), 0);
	/* ids go on, also after a restart: a client's "after" stays true */
	close_all();
	open_all(*state);
	add("y");
	round_of_loop();
	assert_string_equal(query(&(struct event_filter){ .after = 20 }), "y ");
	assert_string_equal(query(&(struct event_filter){ .after = 21 }), "");
}

static void test_severities_have_names(void **state)
{
	enum severity s;

	(void)state;
	assert_string_equal(severity_name(SEVERITY_WARNING), "warning");
	assert_int_equal(severity_find("critical", &s), 0);
	assert_int_equal(s, SEVERITY_CRITICAL);
	assert_int_equal(severity_find("Critical", &s), -ENOENT);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_a_round_is_one_transaction_and_told_after_it),
		TEST(test_a_change_takes_its_events_along),
		TEST(test_what_is_undone_never_was),
		TEST(test_what_happened_all_the_same_stays),
		TEST(test_a_failed_commit_loses_only_its_own_events),
		TEST(test_what_cannot_be_written_is_dropped),
		TEST(test_the_last_round_is_written_at_the_end),
		TEST(test_a_query_and_a_watch_have_no_gap_and_no_overlap),
		TEST(test_watches_are_removed_inside_of_one),
		TEST(test_an_event_may_cause_another),
		TEST(test_filters),
		TEST(test_an_event_comes_back_as_it_was),
		TEST(test_words_and_fields_have_limits),
		TEST(test_old_and_surplus_events_go),
		cmocka_unit_test(test_severities_have_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
