/* SPDX-License-Identifier: MIT */
/*
 * What happened: an append-only log in the database, with subscribers that are told at once.
 * Events of one round of the loop are one transaction; events that are added inside of a
 * transaction belong to that: they are committed with it, and never were when it is undone. Kept
 * for 90 days and 100,000 events, whichever is less, unless the host's settings say otherwise.
 */
#pragma once

#include "daemon/authz.h"
#include "daemon/database.h"
#include "event/loop.h"
#include "lib/list.h"

enum severity {
	SEVERITY_INFORMATION,
	SEVERITY_WARNING,
	SEVERITY_ERROR,
	SEVERITY_CRITICAL,
	SEVERITY_AUDIT, /* who changed what, and what was refused to whom */
};

struct event {
	int64_t id;   /* grows by one */
	int64_t time; /* ms since 1970 */
	enum severity severity;
	const char *kind;  /* stable, for programs: "vm-started" */
	const char *vm;    /* id or NULL */
	const char *actor; /* a caller's name, or NULL: the service */
	const char *words; /* a sentence */
	json_t *fields;    /* more, for programs; NULL or an object */
};

struct events;

int events_new(struct database *db, struct loop *loop, struct events **ret,
	       struct error *err) _must_check_;
/* Writes what is still to be written; nobody is told of it. */
void events_free(struct events *events);

/*
 * `fields` is taken over. Never fails: what cannot be written is logged by the process. Words and
 * fields have limits (EVENT_WORDS_MAX, EVENT_FIELDS_MAX): words are cut, fields that are larger are
 * left out.
 */
#define EVENT_WORDS_MAX  2048
#define EVENT_FIELDS_MAX 65536 /* bytes as text */
void event_add(struct events *events, enum severity severity, const char *kind, const char *vm,
	       const struct caller *actor, json_t *fields, const char *words, ...) _printf_(7, 8);

/*
 * The same, but it stays when the transaction under way is undone: for what happened all the same,
 * like a refusal.
 */
void event_add_apart(struct events *events, enum severity severity, const char *kind,
		     const char *vm, const struct caller *actor, json_t *fields, const char *words,
		     ...) _printf_(7, 8);

/* Oldest first. All conditions may be left out (0, NULL). */
struct event_filter {
	int64_t after, before; /* ids, not included */
	int64_t since;         /* ms since 1970 */
	const char *vm;
	const char *kind;
	int severity_min; /* 0 = all */
	unsigned limit;   /* 0 = 1,000 */
	bool newest_first;
};
int events_query(struct events *events, const struct event_filter *filter,
		 int (*each)(void *context, const struct event *event), void *context,
		 struct error *err) _must_check_;

/*
 * Called for each event that becomes durable after event_watch, in order of ids, never from inside
 * a call of ours. What events_query found in the same round does not come again. Watches may be
 * removed inside of it.
 */
struct event_watch {
	void (*fn)(struct event_watch *w, const struct event *event);
	int64_t after; /* id: what was durable already */
	struct list node;
};
void event_watch(struct events *events, struct event_watch *w,
		 void (*fn)(struct event_watch *, const struct event *));
void event_unwatch(struct event_watch *w);

const char *severity_name(enum severity s);
int severity_find(const char *name, enum severity *ret); /* 0 or -ENOENT */
json_t *event_json(const struct event *event);           /* as in docs/rest.md; new reference */
/* Removes what is older or beyond the count; the service calls it now and then. */
void events_expire(struct events *events, int64_t now_ms, unsigned days, unsigned count);
