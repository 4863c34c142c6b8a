/* SPDX-License-Identifier: MIT */
/*
 * The client of partita-privd, which does for the host's service what needs root. Requests are JSON
 * objects with a member "op" (partita-privd(8)); descriptors go along and come back. On the loop's
 * thread; it never waits. A connection that breaks is made again with the next request.
 */
#pragma once

#include "event/loop.h"
#include "lib/error.h"

#include <jansson.h>

#define PRIVD_SOCKET       "/run/partita-privd/socket"
#define PRIVD_REQUEST_MAX  (16 * 1024) /* bytes of a packet */
#define PRIVD_FDS_MAX      700         /* descriptors of a request */
#define PRIVD_ANSWER_FDS   4
#define PRIVD_REQUESTS_MAX 128 /* under way, of a connection */

struct privd;

/* What came back. Descriptors that `done` does not take (set to -1) are closed after it. */
struct privd_answer {
	int result; /* 0, or as `err` says it: refused, -EPIPE it is gone, -ETIMEDOUT */
	json_t *members;
	int *fds;
	unsigned fd_count;
	const struct error *err; /* if result is negative */
};

/* Embedded in its owner. `done` comes once, from the loop, unless it is cancelled. */
struct privd_request {
	void (*done)(struct privd_request *r, const struct privd_answer *a);
	struct list node; /* private from here on */
	struct loop_timer timer;
	struct loop_task failed;
	struct privd *privd;
	int64_t id;
	struct error error;
};

/* Nothing is connected yet. `path` is copied. */
int privd_new(struct loop *loop, const char *path, struct privd **ret,
	      struct error *err) _must_check_;
/* Forgets what is under way. NULL is fine. */
void privd_free(struct privd *p);
/* Whether one answers, now: waits for it a second at most. For a program's start. */
int privd_check(struct privd *p, struct error *err) _must_check_;
/* `request` is taken over; `fds` stay the caller's, who may close them at once. */
void privd_ask(struct privd *p, struct privd_request *r, json_t *request, const int *fds,
	       unsigned fd_count);
void privd_cancel(struct privd_request *r); /* harmless when it is not under way */

/*
 * One request on a connection of its own, for a thread that may wait: its result, with words. No
 * descriptors.
 */
int privd_ask_waiting(const char *path, json_t *request, unsigned timeout_ms,
		      struct error *err) _must_check_;
