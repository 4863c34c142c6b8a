/* SPDX-License-Identifier: MIT */
/*
 * Long operations. A job is in the database before its operation begins and again when it has
 * ended; what was running when the service died is failed, with words, by the next one, unless its
 * owner takes it up again. Ended jobs are kept for a while (jobs_expire).
 *
 * What is done to a job inside of a database transaction counts when that has been committed, and
 * is told then. When it is undone, a job that began in it never was (the pointer is gone); one that
 * ended in it has ended all the same.
 */
#pragma once

#include "daemon/authz.h"
#include "daemon/database.h"
#include "lib/guid.h"
#include "lib/list.h"

enum job_state {
	JOB_RUNNING,
	JOB_COMPLETED,
	JOB_FAILED,
	JOB_CANCELLED,
};

struct job {
	char id[GUID_TEXT_SIZE];
	char type[32];           /* "start-vm" */
	char owner[64];          /* the caller's name */
	char vm[GUID_TEXT_SIZE]; /* "" = none */
	enum job_state state;
	unsigned percent;     /* 0..100 */
	int64_t begun, ended; /* ms since 1970; 0 = not yet */
	struct error error;   /* JOB_FAILED, JOB_CANCELLED */
	/* Asks the operation to stop; it then ends with -ECANCELED. NULL: cannot be stopped. */
	void (*cancel)(struct job *job);
	void *operation; /* whoever runs it */
	struct list node;
};

struct jobs;

/* Fails what an earlier service left running, unless `adopt` says that it goes on. */
int jobs_new(struct database *db, bool (*adopt)(void *context, struct job *job), void *context,
	     struct jobs **ret, struct error *err) _must_check_;
void jobs_free(struct jobs *jobs);

/*
 * Durable when it returns, unless in a transaction. The job belongs to `jobs`; it is valid until it
 * has ended and expired.
 */
int job_begin(struct jobs *jobs, const char *type, const struct caller *owner, const char *vm,
	      struct job **ret, struct error *err) _must_check_;
void job_progress(struct jobs *jobs, struct job *job, unsigned percent);
/*
 * `result` 0, or negative with `err` (-ECANCELED: cancelled). Watchers are told when that is
 * durable. When it cannot be written it is logged, told, and written as soon as it can be.
 */
void job_end(struct jobs *jobs, struct job *job, int result, const struct error *err);
/* 0 when asked, -EBADFD when it has ended, -EOPNOTSUPP when it cannot be stopped. */
int job_cancel(struct jobs *jobs, struct job *job, struct error *err) _must_check_;

struct job *job_find(struct jobs *jobs, const char *id); /* NULL: unknown */
struct list *jobs_list(struct jobs *jobs);               /* of struct job, oldest first */
void jobs_expire(struct jobs *jobs, int64_t now_ms); /* ended over an hour ago, or beyond 1,000 */

/* Told of each change of a job, its beginning included. Watchers may be removed inside of it. */
struct job_watch {
	void (*fn)(struct job_watch *w, struct job *job);
	struct list node;
};
void job_watch(struct jobs *jobs, struct job_watch *w,
	       void (*fn)(struct job_watch *, struct job *));
void job_unwatch(struct job_watch *w);
json_t *job_json(const struct job *job); /* as in docs/rest.md; new reference */
const char *job_state_name(enum job_state state);
