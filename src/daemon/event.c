// SPDX-License-Identifier: MIT
/*
 * See event.h. An event waits in `queue` until a transaction commits, its own or anybody's: then it
 * gets its row, and moves by way of `written` to `due`, from where a deferred task tells it to the
 * watches. So what a round adds costs one flush of the disk, often none beside that of a change.
 *
 * Owned by the daemon; its loop's thread.
 */
#include "daemon/event.h"

#include "daemon/words.h"
#include "lib/cleanup.h"
#include "lib/log.h"

#include <errno.h>
#include <string.h>

#define QUERY_LIMIT 1000 /* events of a query that says none */

struct entry {
	struct list node;
	struct event event; /* strings and fields are ours */
	bool belongs;       /* to the transaction under way: undone with it */
};

struct events {
	struct database *db;
	struct loop *loop;
	struct database_hook hook;
	struct loop_task task;
	struct list queue, written, due; /* of struct entry */
	struct list watches;
	int64_t last_id; /* durable */
};

static const char *const severities[] = {
	[SEVERITY_INFORMATION] = "information",
	[SEVERITY_WARNING] = "warning",
	[SEVERITY_ERROR] = "error",
	[SEVERITY_CRITICAL] = "critical",
	[SEVERITY_AUDIT] = "audit",
};

const char *severity_name(enum severity s)
{
	return (unsigned)s < ARRAY_SIZE(severities) ? severities[s] : "?";
}

int severity_find(const char *name, enum severity *ret)
{
	for (unsigned i = 0; i < ARRAY_SIZE(severities); i++) {
		if (!strcmp(severities[i], name)) {
			*ret = (enum severity)i;
			return 0;
		}
	}
	return -ENOENT;
}

/* --- entries --- */

static void entry_free(struct entry *e)
{
	list_remove(&e->node);
	json_decref(e->event.fields);
	free((char *)e->event.kind);
	free((char *)e->event.vm);
	free((char *)e->event.actor);
	free((char *)e->event.words);
	free(e);
}

static void list_free(struct list *l)
{
	while (!list_empty(l))
		entry_free(list_first(l, struct entry, node));
}

static char *clean_copy(const char *text)
{
	char *copy = text ? strdup(text) : NULL;

	if (copy)
		text_clean(copy);
	return copy;
}

static char *compose(const char *format, va_list ap) _printf_(1, 0);

static char *compose(const char *format, va_list ap)
{
	char *words = malloc(EVENT_WORDS_MAX);

	if (words) {
		vsnprintf(words, EVENT_WORDS_MAX, format, ap);
		text_clean(words);
	}
	return words;
}

static void lost(const struct event *event, const char *why)
{
	log_line("event lost (%s): %s %s%s%s: %s", why, event->kind ? event->kind : "?",
		 event->vm ? "vm " : "", event->vm ? event->vm : "",
		 event->actor ? event->actor : "", event->words ? event->words : "?");
}

static void entry_add(struct events *events, struct entry *e, bool apart)
{
	struct event *event = &e->event;

	if (!event->kind || !event->words) {
		lost(event, "no memory");
		entry_free(e);
		return;
	}
	e->belongs = !apart && database_in_transaction(events->db);
	list_append(&events->queue, &e->node);
	loop_defer(events->loop, &events->task);
}

/* But for its words, which are its caller's to compose. NULL: no memory, and `fields` is released.
 */
static struct entry *entry_new(enum severity severity, const char *kind, const char *vm,
			       const struct caller *actor, json_t *fields)
{
	struct entry *e = calloc(1, sizeof(*e));

	if (!e) {
		log_line("event lost (no memory): %s", kind);
		json_decref(fields);
		return NULL;
	}
	list_init(&e->node);
	e->event = (struct event){
		.time = time_ms(),
		.severity = severity,
		.kind = clean_copy(kind),
		.vm = clean_copy(vm),
		.actor = actor && actor != &caller_service ? clean_copy(actor->name) : NULL,
		.fields = fields,
	};
	return e;
}

void event_add(struct events *events, enum severity severity, const char *kind, const char *vm,
	       const struct caller *actor, json_t *fields, const char *words, ...)
{
	struct entry *e = entry_new(severity, kind, vm, actor, fields);
	va_list ap;

	if (!e)
		return;
	va_start(ap, words);
	e->event.words = compose(words, ap);
	va_end(ap);
	entry_add(events, e, false);
}

void event_add_apart(struct events *events, enum severity severity, const char *kind,
		     const char *vm, const struct caller *actor, json_t *fields, const char *words,
		     ...)
{
	struct entry *e = entry_new(severity, kind, vm, actor, fields);
	va_list ap;

	if (!e)
		return;
	va_start(ap, words);
	e->event.words = compose(words, ap);
	va_end(ap);
	entry_add(events, e, true);
}

/* --- writing --- */

/* NULL without any, and when they are too large. */
static char *fields_format(const struct event *event)
{
	char *text = event->fields ? json_dumps(event->fields, JSON_COMPACT) : NULL;

	if (text && strlen(text) > EVENT_FIELDS_MAX) {
		log_line("event %s: its fields are left out, they are too large", event->kind);
		free(text);
		return NULL;
	}
	return text;
}

static int entry_write(struct events *events, struct entry *e, struct error *err)
{
	_cleanup_free_ char *fields = fields_format(&e->event);
	int r = database_run(events->db, err,
			     "INSERT INTO events (time, severity, kind, vm, actor, words, fields) "
			     "VALUES (?, ?, ?, ?, ?, ?, ?)",
			     "iisssss", e->event.time, (int64_t)e->event.severity, e->event.kind,
			     e->event.vm, e->event.actor, e->event.words, fields);

	if (!r)
		e->event.id = database_last_id(events->db);
	return r;
}

static int on_committing(struct database_hook *h, struct error *err)
{
	struct events *events = container_of(h, struct events, hook);

	while (!list_empty(&events->queue)) {
		struct entry *e = list_first(&events->queue, struct entry, node);
		int r = entry_write(events, e, err);

		if (r)
			return r;
		list_remove(&e->node);
		list_append(&events->written, &e->node);
	}
	return 0;
}

/* The rows of `written` are gone, and with them the events that told of what is undone. */
static void take_back(struct events *events)
{
	struct list all;

	list_init(&all);
	list_splice(&all, &events->written);
	list_splice(&all, &events->queue);
	while (!list_empty(&all)) {
		struct entry *e = list_first(&all, struct entry, node);

		list_remove(&e->node);
		if (e->belongs)
			entry_free(e);
		else
			list_append(&events->queue, &e->node);
	}
}

static void on_ended(struct database_hook *h, bool committed)
{
	struct events *events = container_of(h, struct events, hook);

	if (!committed) {
		take_back(events);
		return;
	}
	if (list_empty(&events->written))
		return;
	events->last_id = list_entry(events->written.prev, struct entry, node)->event.id;
	list_splice(&events->due, &events->written);
	loop_defer(events->loop, &events->task);
}

/* What no change took along. */
static void flush(struct events *events)
{
	struct error err = { 0 };

	if (list_empty(&events->queue) || database_in_transaction(events->db))
		return;
	if (database_begin(events->db, &err) == 0 && database_commit(events->db, &err) == 0)
		return;
	list_foreach(it, &events->queue)
		lost(&list_entry(it, struct entry, node)->event, err.message);
	list_free(&events->queue);
}

/* A watch may remove any, itself included: those still to be told are on a list of their own. */
static void tell(struct events *events, const struct event *event)
{
	struct list rest;

	list_init(&rest);
	list_splice(&rest, &events->watches);
	while (!list_empty(&rest)) {
		struct event_watch *w = list_first(&rest, struct event_watch, node);

		list_remove(&w->node);
		list_append(&events->watches, &w->node);
		if (event->id > w->after)
			w->fn(w, event);
	}
}

static void on_round_end(struct loop_task *t)
{
	struct events *events = container_of(t, struct events, task);

	flush(events);
	while (!list_empty(&events->due)) {
		struct entry *e = list_first(&events->due, struct entry, node);

		tell(events, &e->event);
		entry_free(e);
	}
}

void event_watch(struct events *events, struct event_watch *w,
		 void (*fn)(struct event_watch *, const struct event *))
{
	w->fn = fn;
	w->after = events->last_id;
	list_append(&events->watches, &w->node);
}

void event_unwatch(struct event_watch *w)
{
	list_remove(&w->node);
}

/* --- reading --- */

#define CONDITIONS                                                                                 \
	"SELECT id, time, severity, kind, vm, actor, words, fields FROM events "                   \
	"WHERE id > ?1 AND id < ?2 AND time >= ?3 AND severity >= ?4 "                             \
	"AND (?5 IS NULL OR kind = ?5) AND "

/* by vm, newest first */
static const char *const queries[2][2] = {
	{ CONDITIONS "?6 IS NULL ORDER BY id LIMIT ?7",
	  CONDITIONS "?6 IS NULL ORDER BY id DESC LIMIT ?7" },
	{ CONDITIONS "vm = ?6 ORDER BY id LIMIT ?7",
	  CONDITIONS "vm = ?6 ORDER BY id DESC LIMIT ?7" },
};

struct query {
	int (*each)(void *context, const struct event *event);
	void *context;
};

static int each_row(void *context, const struct database_row *row)
{
	const struct query *q = context;
	const char *fields = row_text(row, 7);
	const struct event event = {
		.id = row_integer(row, 0),
		.time = row_integer(row, 1),
		.severity = (enum severity)row_integer(row, 2),
		.kind = row_text(row, 3),
		.vm = row_text(row, 4),
		.actor = row_text(row, 5),
		.words = row_text(row, 6),
		.fields = fields ? json_loads(fields, 0, NULL) : NULL,
	};
	int r = q->each(q->context, &event);

	json_decref(event.fields);
	return r;
}

int events_query(struct events *events, const struct event_filter *filter,
		 int (*each)(void *context, const struct event *event), void *context,
		 struct error *err)
{
	struct query q = { each, context };

	return database_query(events->db, err, each_row, &q,
			      queries[filter->vm != NULL][filter->newest_first], "iiiissi",
			      filter->after, filter->before ? filter->before : INT64_MAX,
			      filter->since, (int64_t)filter->severity_min, filter->kind,
			      filter->vm, (int64_t)(filter->limit ? filter->limit : QUERY_LIMIT));
}

json_t *event_json(const struct event *event)
{
	return json_pack("{s:I, s:o, s:s, s:o, s:o, s:o, s:o, s:O}", "id", (json_int_t)event->id,
			 "time", json_time(event->time), "severity", severity_name(event->severity),
			 "kind", json_text(event->kind), "vm", json_text(event->vm), "actor",
			 json_text(event->actor), "words", json_text(event->words), "fields",
			 event->fields ? event->fields : json_null());
}

void events_expire(struct events *events, int64_t now_ms, unsigned days, unsigned count)
{
	struct error err = { 0 };
	int r = database_begin(events->db, &err);

	if (!r) {
		r = database_run(events->db, &err, "DELETE FROM events WHERE time < ?", "i",
				 now_ms - (int64_t)days * 86400000);
		if (!r)
			r = database_run(events->db, &err,
					 "DELETE FROM events WHERE id <= "
					 "(SELECT max(id) FROM events) - ?",
					 "i", (int64_t)count);
		if (!r)
			r = database_commit(events->db, &err);
		else
			database_rollback(events->db);
	}
	if (r)
		log_line("old events cannot be removed: %s", err.message);
}

/* --- life --- */

static int see_last_id(void *context, const struct database_row *row)
{
	*(int64_t *)context = row_integer(row, 0);
	return 0;
}

int events_new(struct database *db, struct loop *loop, struct events **ret, struct error *err)
{
	struct events *events = calloc(1, sizeof(*events));
	int r;

	if (!events)
		return error_set(err, -ENOMEM, "events: no memory");
	events->db = db;
	events->loop = loop;
	events->hook = (struct database_hook){ .committing = on_committing, .ended = on_ended };
	list_init(&events->queue);
	list_init(&events->written);
	list_init(&events->due);
	list_init(&events->watches);
	loop_task_init(&events->task, on_round_end);
	database_hook(db, &events->hook);
	r = database_query(db, err, see_last_id, &events->last_id,
			   "SELECT seq FROM sqlite_sequence WHERE name = 'events'", "");
	if (r) {
		events_free(events);
		return r;
	}
	*ret = events;
	return 0;
}

void events_free(struct events *events)
{
	if (!events)
		return;
	flush(events);
	database_unhook(&events->hook);
	loop_cancel(events->loop, &events->task);
	list_free(&events->queue);
	list_free(&events->due);
	while (!list_empty(&events->watches))
		list_remove(events->watches.next);
	free(events);
}
