// SPDX-License-Identifier: MIT
/*
 * /jobs, and all that answers with a job. ?wait= holds the request until the job has ended; who
 * waits is on a list, which each change of a job goes through. One timer ends the waiting.
 */
#include "daemon/vm.h"
#include "rest/api.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

#define SECOND UINT64_C(1000000000)

struct wait {
	struct call *call;
	char job[GUID_TEXT_SIZE];
	struct loop_timer timer;
	struct list node;
};

static void wait_free(struct wait *w)
{
	loop_timer_disarm(&w->timer);
	list_remove(&w->node);
	free(w);
}

static void on_left(struct call *call)
{
	wait_free(call->context);
}

static void answer_job(struct call *call, struct job *job)
{
	call_answer_job(call, job, job->state == JOB_RUNNING ? call->route->status : 200);
}

static void end(struct wait *w, struct job *job)
{
	struct call *call = w->call;
	struct error err = { 0 };

	wait_free(w);
	if (job) {
		answer_job(call, job);
		return;
	}
	error_set(&err, -ENOENT, "the job ended and was forgotten meanwhile");
	call_problem(call, &err);
}

static void on_timer(struct loop_timer *t)
{
	struct wait *w = container_of(t, struct wait, timer);

	end(w, job_find(w->call->d->jobs, w->job));
}

void waits_on_job(struct job_watch *watch, struct job *job)
{
	struct api *api = container_of(watch, struct api, job_watch);

	if (job->state == JOB_RUNNING)
		return;
	list_foreach_safe(it, &api->waits)
	{
		struct wait *w = list_entry(it, struct wait, node);

		if (!strcmp(w->job, job->id))
			end(w, job);
	}
}

int call_wait_for_job(struct call *call, struct job *job, struct error *err)
{
	int64_t seconds = call_integer(call, "wait", 0);
	struct wait *w;

	if (job->state != JOB_RUNNING || !seconds) {
		answer_job(call, job);
		return 0;
	}
	w = calloc(1, sizeof(*w));
	if (!w)
		return error_errno(err, -ENOMEM, "cannot wait for the job");
	w->call = call;
	snprintf(w->job, sizeof(w->job), "%s", job->id);
	loop_timer_init(call->d->loop, &w->timer, on_timer);
	loop_timer_arm(&w->timer, loop_now(call->d->loop) + (uint64_t)seconds * SECOND);
	list_append(&call->api->waits, &w->node);
	call->context = w;
	call_later(call, on_left);
	return 0;
}

/* One's own, and those of machines that one may see. */
static bool may_see(struct call *call, const struct job *job)
{
	struct vm *vm;
	struct target target;

	if (call->caller->administrator || !strcmp(job->owner, call->caller->name))
		return true;
	vm = *job->vm ? vm_by_id(call->d, job->vm, NULL) : NULL;
	if (!vm)
		return authz_allowed(call->d->authz, call->caller, OP_VIEW_HOST,
				     &(struct target){ 0 });
	target = vm_target(vm);
	return authz_allowed(call->d->authz, call->caller, OP_VIEW_VM, &target);
}

static int find(struct call *call, struct job **ret, struct error *err)
{
	struct job *job = job_find(call->d->jobs, call->id);

	if (!job || !may_see(call, job))
		return error_set(err, -ENOENT,
				 "there is no job %.40s; ended ones are kept for an hour",
				 call->id);
	*ret = job;
	return 0;
}

static bool wanted(struct call *call, const struct job *job)
{
	const char *state = call_text(call, "state"), *type = call_text(call, "type");
	const char *vm = call_text(call, "vm");
	static const char *const names[] = { "running", "completed", "failed", "cancelled" };

	return (!state || !strcmp(state, names[job->state])) &&
	       (!type || !strcmp(type, job->type)) && (!vm || !strcasecmp(vm, job->vm)) &&
	       may_see(call, job);
}

/* Oldest first, as they are kept. A cursor whose job is forgotten goes on after its time. */
static bool is_after(const char *cursor, const struct job *job)
{
	char *id;
	int64_t begun = strtoll(cursor, &id, 10);

	return job->begun > begun || (job->begun == begun && *id && strcmp(job->id, id + 1) > 0);
}

static int compare_jobs(const void *a, const void *b)
{
	const struct job *x = *(struct job *const *)a, *y = *(struct job *const *)b;

	return x->begun != y->begun ? (x->begun < y->begun ? -1 : 1) : strcmp(x->id, y->id);
}

static unsigned jobs_sorted(struct call *call, struct job ***ret)
{
	struct list *all = jobs_list(call->d->jobs);
	unsigned count = 0;

	list_foreach(it, all) count++;
	*ret = calloc(count ? count : 1, sizeof(**ret));
	count = 0;
	if (*ret) {
		list_foreach(it, all)(*ret)[count++] = list_entry(it, struct job, node);
		qsort(*ret, count, sizeof(**ret), compare_jobs);
	}
	return count;
}

int list_jobs(struct call *call, struct error *err)
{
	_cleanup_free_ struct job **jobs = NULL;
	struct page page;
	unsigned count;
	char cursor[80];
	int r = page_begin(&page, call, err);

	if (r < 0)
		return r;
	count = jobs_sorted(call, &jobs);
	if (!jobs) {
		page_deinit(&page);
		return error_errno(err, -ENOMEM, "cannot list the jobs");
	}
	for (unsigned i = 0; i < count; i++) {
		struct job *job = jobs[i];

		if (!wanted(call, job) || (page.cursor && !is_after(page.cursor, job)))
			continue;
		snprintf(cursor, sizeof(cursor), "%lld/%s", (long long)job->begun, job->id);
		if (!page_room(&page) || !page_add(&page, job_json(job), cursor))
			break;
	}
	return page_answer(&page);
}

int get_job(struct call *call, struct error *err)
{
	struct job *job;
	int r = find(call, &job, err);

	return r < 0 ? r : call_wait_for_job(call, job, err);
}

int delete_job(struct call *call, struct error *err)
{
	struct job *job;
	struct target target = { 0 };
	struct vm *vm;
	int r = find(call, &job, err);

	if (r < 0)
		return r;
	if (strcmp(job->owner, call->caller->name)) {
		vm = *job->vm ? vm_by_id(call->d, job->vm, NULL) : NULL;
		if (vm)
			target = vm_target(vm);
		r = authz_check(call->d->authz, call->caller, OP_CANCEL_JOB, &target, err);
	}
	if (r >= 0)
		r = job_cancel(call->d->jobs, job, err);
	return r < 0 ? r : call_wait_for_job(call, job, err);
}
