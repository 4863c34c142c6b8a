// SPDX-License-Identifier: MIT
/*
 * See job.h. All jobs are in memory, in order of their beginning; their rows are what a later
 * service needs of them. Progress is not written: what was running is failed after a crash anyway.
 *
 * Owned by the daemon; its loop's thread.
 */
#include "daemon/job.h"

#include "daemon/words.h"
#include "lib/cleanup.h"
#include "lib/log.h"

#include <errno.h>
#include <string.h>

#define JOBS_ENDED_MAX 1000    /* ended jobs that are kept: a client's list in one answer */
#define JOB_KEPT_MS    3600000 /* for clients that ask late how it went */

struct entry {
	struct job job;
	bool unborn;  /* its row is in the transaction under way */
	bool pending; /* changed in the transaction under way, not told yet */
	bool unsaved; /* it has ended, and its row does not say so */
};

struct jobs {
	struct database *db;
	struct database_hook hook;
	struct list list; /* of struct entry by job.node */
	struct list watches;
	bool settling; /* inside settle: what it writes ends transactions, too */
	bool telling;  /* inside a watch */
};

static const char *const states[] = {
	[JOB_RUNNING] = "running",
	[JOB_COMPLETED] = "completed",
	[JOB_FAILED] = "failed",
	[JOB_CANCELLED] = "cancelled",
};

const char *job_state_name(enum job_state state)
{
	return (unsigned)state < ARRAY_SIZE(states) ? states[state] : "?";
}

static struct entry *entry_at(struct list *node)
{
	return container_of(list_entry(node, struct job, node), struct entry, job);
}

static void entry_free(struct entry *e)
{
	list_remove(&e->job.node);
	free(e);
}

/* A watch may remove any, itself included: those still to be told are on a list of their own. */
static void tell(struct jobs *jobs, struct job *job)
{
	struct list rest;

	list_init(&rest);
	list_splice(&rest, &jobs->watches);
	while (!list_empty(&rest)) {
		struct job_watch *w = list_first(&rest, struct job_watch, node);

		list_remove(&w->node);
		list_append(&jobs->watches, &w->node);
		w->fn(w, job);
	}
}

/* --- rows --- */

static const char *vm_or_null(const struct job *job)
{
	return job->vm[0] ? job->vm : NULL;
}

static int row_insert(struct jobs *jobs, const struct job *job, struct error *err)
{
	return database_run(jobs->db, err,
			    "INSERT INTO jobs (id, type, owner, vm, state, begun) "
			    "VALUES (?, ?, ?, ?, ?, ?)",
			    "sssssi", job->id, job->type, job->owner, vm_or_null(job),
			    job_state_name(job->state), job->begun);
}

static int row_update(struct jobs *jobs, const struct job *job, struct error *err)
{
	return database_run(jobs->db, err,
			    "UPDATE jobs SET state = ?, percent = ?, ended = ?, code = ?, "
			    "message = ?, property = ? WHERE id = ?",
			    "siiisss", job_state_name(job->state), (int64_t)job->percent,
			    job->ended, (int64_t)job->error.code, job->error.message,
			    job->error.property, job->id);
}

static void entry_save(struct jobs *jobs, struct entry *e)
{
	struct error err = { 0 };
	int r = row_update(jobs, &e->job, &err);

	if (r && !e->unsaved)
		log_line("end of job %s (%s) is not written yet: %s", e->job.id, e->job.type,
			 err.message);
	e->unsaved = r != 0;
}

static void save_unsaved(struct jobs *jobs)
{
	list_foreach(it, &jobs->list)
	{
		if (entry_at(it)->unsaved)
			entry_save(jobs, entry_at(it));
	}
}

/* One that waits to be told; a watch may change the list, so each search begins anew. */
static struct entry *find_pending(struct jobs *jobs)
{
	list_foreach(it, &jobs->list)
	{
		if (entry_at(it)->pending)
			return entry_at(it);
	}
	return NULL;
}

/* Not inside of a transaction, and not from a watch: whoever ends that goes on here. */
static void tell_pending(struct jobs *jobs)
{
	struct entry *e;

	if (jobs->telling || database_in_transaction(jobs->db))
		return;
	jobs->telling = true;
	while ((e = find_pending(jobs))) {
		e->pending = false;
		tell(jobs, &e->job);
	}
	jobs->telling = false;
}

/* What the transaction that has ended makes of the jobs that it changed. */
static void settle(struct jobs *jobs, bool committed)
{
	list_foreach_safe(it, &jobs->list)
	{
		struct entry *e = entry_at(it);

		if (!committed && e->unborn) {
			entry_free(e);
			continue;
		}
		e->unborn = false;
		if (!committed && e->pending && e->job.state != JOB_RUNNING)
			e->unsaved = true;
	}
	save_unsaved(jobs);
}

static void on_ended(struct database_hook *h, bool committed)
{
	struct jobs *jobs = container_of(h, struct jobs, hook);

	if (jobs->settling)
		return;
	jobs->settling = true;
	settle(jobs, committed);
	jobs->settling = false;
	tell_pending(jobs);
}

/* Tells now, or when the transaction under way has ended. */
static void changed(struct jobs *jobs, struct entry *e)
{
	e->pending = true;
	tell_pending(jobs);
}

/* --- the life of a job --- */

int job_begin(struct jobs *jobs, const char *type, const struct caller *owner, const char *vm,
	      struct job **ret, struct error *err)
{
	struct entry *e = calloc(1, sizeof(*e));
	struct guid id = guid_random();
	int r;

	if (!e)
		return error_set(err, -ENOMEM, "job %s: no memory", type);
	list_init(&e->job.node);
	guid_format(&id, e->job.id);
	snprintf(e->job.type, sizeof(e->job.type), "%s", type);
	snprintf(e->job.owner, sizeof(e->job.owner), "%s", owner->name);
	snprintf(e->job.vm, sizeof(e->job.vm), "%s", vm ? vm : "");
	e->job.begun = time_ms();
	e->unborn = database_in_transaction(jobs->db);
	r = row_insert(jobs, &e->job, err);
	if (r) {
		free(e);
		return r;
	}
	list_append(&jobs->list, &e->job.node);
	*ret = &e->job;
	changed(jobs, e);
	return 0;
}

void job_progress(struct jobs *jobs, struct job *job, unsigned percent)
{
	percent = MIN(percent, 100u);
	if (job->state != JOB_RUNNING || job->percent == percent)
		return;
	job->percent = percent;
	changed(jobs, container_of(job, struct entry, job));
}

static void set_result(struct job *job, int result, const struct error *err)
{
	job->state = !result ? JOB_COMPLETED : result == -ECANCELED ? JOB_CANCELLED : JOB_FAILED;
	job->ended = MAX(time_ms(), job->begun);
	job->cancel = NULL;
	job->operation = NULL;
	if (!result) {
		job->percent = 100;
		return;
	}
	if (err && err->code)
		job->error = *err;
	else if (result == -ECANCELED)
		error_set(&job->error, result, "cancelled");
	else
		error_errno(&job->error, result, "%s", job->type);
	job->error.code = result;
	text_clean(job->error.message);
}

void job_end(struct jobs *jobs, struct job *job, int result, const struct error *err)
{
	struct entry *e = container_of(job, struct entry, job);

	if (job->state != JOB_RUNNING)
		return;
	set_result(job, result, err);
	entry_save(jobs, e);
	changed(jobs, e);
}

int job_cancel(struct jobs *jobs, struct job *job, struct error *err)
{
	(void)jobs;
	if (job->state != JOB_RUNNING)
		return error_set(err, -EBADFD, "job %s (%s) has ended already: it is %s", job->id,
				 job->type, job_state_name(job->state));
	if (!job->cancel)
		return error_set(err, -EOPNOTSUPP,
				 "job %s (%s) cannot be stopped: wait for its end", job->id,
				 job->type);
	job->cancel(job);
	return 0;
}

struct job *job_find(struct jobs *jobs, const char *id)
{
	list_foreach(it, &jobs->list)
	{
		struct job *job = list_entry(it, struct job, node);

		if (!strcasecmp(job->id, id))
			return job;
	}
	return NULL;
}

struct list *jobs_list(struct jobs *jobs)
{
	return &jobs->list;
}

void job_watch(struct jobs *jobs, struct job_watch *w, void (*fn)(struct job_watch *, struct job *))
{
	w->fn = fn;
	list_append(&jobs->watches, &w->node);
}

void job_unwatch(struct job_watch *w)
{
	list_remove(&w->node);
}

static json_t *error_json(const struct job *job)
{
	if (job->state == JOB_RUNNING || job->state == JOB_COMPLETED)
		return json_null();
	return json_pack("{s:s, s:o}", "code", error_code_name(job->error.code), "detail",
			 json_text(job->error.message));
}

json_t *job_json(const struct job *job)
{
	return json_pack("{s:s, s:o, s:o, s:o, s:s, s:i, s:o, s:o, s:o, s:b}", "id", job->id,
			 "type", json_text(job->type), "owner", json_text(job->owner), "vm",
			 json_text(vm_or_null(job)), "state", job_state_name(job->state), "percent",
			 (int)job->percent, "begun", json_time(job->begun), "ended",
			 json_time(job->ended), "error", error_json(job), "cancellable",
			 job->state == JOB_RUNNING && job->cancel);
}

/* --- expiry --- */

static int rows_delete(struct jobs *jobs, struct list *expired, struct error *err)
{
	int r = database_begin(jobs->db, err);

	if (r)
		return r;
	list_foreach(it, expired)
	{
		r = database_run(jobs->db, err, "DELETE FROM jobs WHERE id = ?", "s",
				 list_entry(it, struct job, node)->id);
		if (r) {
			database_rollback(jobs->db);
			return r;
		}
	}
	return database_commit(jobs->db, err);
}

static unsigned count_ended(struct jobs *jobs)
{
	unsigned count = 0;

	list_foreach(it, &jobs->list) count +=
		list_entry(it, struct job, node)->state != JOB_RUNNING;
	return count;
}

/* Jobs whose end is not written stay until it is. */
void jobs_expire(struct jobs *jobs, int64_t now_ms)
{
	unsigned ended = count_ended(jobs);
	unsigned surplus = ended - MIN(ended, JOBS_ENDED_MAX);
	struct error err = { 0 };
	struct list expired;

	if (jobs->telling)
		return;
	save_unsaved(jobs);
	list_init(&expired);
	list_foreach_safe(it, &jobs->list)
	{
		struct entry *e = entry_at(it);

		if (e->job.state == JOB_RUNNING || e->unsaved || e->pending)
			continue;
		if (!surplus && now_ms - e->job.ended <= JOB_KEPT_MS)
			continue;
		surplus -= surplus > 0;
		list_remove(&e->job.node);
		list_append(&expired, &e->job.node);
	}
	if (list_empty(&expired))
		return;
	if (rows_delete(jobs, &expired, &err) < 0)
		log_line("ended jobs cannot be removed: %s", err.message);
	while (!list_empty(&expired))
		entry_free(entry_at(expired.next));
}

/* --- what an earlier service left --- */

static enum job_state state_from(const char *name)
{
	for (unsigned i = 0; i < ARRAY_SIZE(states); i++) {
		if (!strcmp(states[i], name))
			return (enum job_state)i;
	}
	return JOB_FAILED;
}

static void text_read(const struct database_row *row, int column, char *ret, size_t size)
{
	const char *text = row_text(row, column);

	snprintf(ret, size, "%s", text ? text : "");
}

static int load_row(void *context, const struct database_row *row)
{
	struct jobs *jobs = context;
	struct entry *e = calloc(1, sizeof(*e));

	if (!e)
		return -ENOMEM;
	text_read(row, 0, e->job.id, sizeof(e->job.id));
	text_read(row, 1, e->job.type, sizeof(e->job.type));
	text_read(row, 2, e->job.owner, sizeof(e->job.owner));
	text_read(row, 3, e->job.vm, sizeof(e->job.vm));
	e->job.state = state_from(row_text(row, 4));
	e->job.percent = (unsigned)row_integer(row, 5);
	e->job.begun = row_integer(row, 6);
	e->job.ended = row_integer(row, 7);
	e->job.error.code = (int)row_integer(row, 8);
	text_read(row, 9, e->job.error.message, sizeof(e->job.error.message));
	text_read(row, 10, e->job.error.property, sizeof(e->job.error.property));
	list_append(&jobs->list, &e->job.node);
	return 0;
}

static int load(struct jobs *jobs, struct error *err)
{
	int r = database_query(jobs->db, err, load_row, jobs,
			       "SELECT id, type, owner, vm, state, percent, begun, ended, code, "
			       "message, property FROM jobs ORDER BY serial",
			       "");

	return r == -ENOMEM ? error_set(err, r, "jobs: no memory") : r;
}

static int fail_left(struct jobs *jobs, bool (*adopt)(void *context, struct job *job),
		     void *context, struct error *err)
{
	struct error ended;
	int r = database_begin(jobs->db, err);

	if (r)
		return r;
	error_set(
		&ended, -EINTR,
		"the service ended while this was under way; see what came of it, and do it again "
		"if need be");
	list_foreach(it, &jobs->list)
	{
		struct job *job = list_entry(it, struct job, node);

		if (job->state != JOB_RUNNING || (adopt && adopt(context, job)))
			continue;
		set_result(job, -EINTR, &ended);
		r = row_update(jobs, job, err);
		if (r) {
			database_rollback(jobs->db);
			return r;
		}
	}
	return database_commit(jobs->db, err);
}

int jobs_new(struct database *db, bool (*adopt)(void *context, struct job *job), void *context,
	     struct jobs **ret, struct error *err)
{
	struct jobs *jobs = calloc(1, sizeof(*jobs));
	int r;

	if (!jobs)
		return error_set(err, -ENOMEM, "jobs: no memory");
	jobs->db = db;
	jobs->hook.ended = on_ended;
	list_init(&jobs->list);
	list_init(&jobs->watches);
	database_hook(db, &jobs->hook);
	r = load(jobs, err);
	if (!r)
		r = fail_left(jobs, adopt, context, err);
	if (r) {
		jobs_free(jobs);
		return r;
	}
	*ret = jobs;
	return 0;
}

void jobs_free(struct jobs *jobs)
{
	if (!jobs)
		return;
	save_unsaved(jobs);
	database_unhook(&jobs->hook);
	while (!list_empty(&jobs->list))
		entry_free(entry_at(jobs->list.next));
	while (!list_empty(&jobs->watches))
		list_remove(jobs->watches.next);
	free(jobs);
}
