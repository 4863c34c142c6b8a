// SPDX-License-Identifier: MIT
/* See hot.h: the order of asking and doing. What a part needs is in hot_*.c. */
#include "daemon/hot.h"

#include "daemon/supervisor.h"
#include "lib/cleanup.h"
#include "schema/json.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define ASK_TIMEOUT_MS 60000 /* closing an image writes it out */
#define STEPS_MAX      1024u /* a machine has 256 drives; more is going round in circles */

static const struct hot_part *const parts[] = { &hot_disks, &hot_adapters, &hot_ports };

struct hot {
	struct hot_options o;
	unsigned part, steps;
	json_t *answers; /* to the part's questions */
	bool doing;      /* a step; else a question */
	struct hot_step step;
	bool cancelled, asking;
	struct worker_request request;
	struct loop_task task;
	int result;
	struct error err;
};

bool hot_differs(const json_t *description, const json_t *other)
{
	for (size_t i = 0; i < ARRAY_SIZE(parts); i++)
		if (!json_equal(json_object_get(description, parts[i]->key),
				json_object_get(other, parts[i]->key)))
			return true;
	return false;
}

static void hot_end(struct hot *h, int result)
{
	struct hot_options o = h->o;
	struct error err = h->err;
	unsigned steps = h->steps;

	h->o.wanted = NULL;
	hot_free(h);
	json_decref(o.wanted);
	o.done(o.context, result, steps, &err);
}

static void on_answer(struct worker_request *r, int result, json_t *answer,
		      const struct error *err);

/* What the step came to; whoever began it knows then. */
static void step_end(struct hot *h, const json_t *answer, int *fds, unsigned fd_count)
{
	void (*took)(void *, const json_t *, int *, unsigned) = steal_ptr(h->step.took);

	if (took)
		took(h->step.context, answer, fds, fd_count);
	for (unsigned i = 0; i < fd_count; i++)
		if (fds[i] >= 0)
			close(fds[i]);
}

/* The request is taken. */
static void ask(struct hot *h, struct worker *w, json_t *request)
{
	memset(&h->request, 0, sizeof(h->request));
	h->request.done = on_answer;
	h->request.wants_fds = h->step.wants_fds;
	h->asking = true;
	worker_ask(w, &h->request, request, h->step.fds, h->step.fd_count, ASK_TIMEOUT_MS);
	json_decref(request);
}

static int step_begin(struct hot *h)
{
	struct hot_step *step = &h->step;

	h->doing = true;
	if (h->steps++ < STEPS_MAX) {
		ask(h, step->target ? step->target : h->o.vm->worker, step->request);
		return 1;
	}
	for (unsigned i = 0; i < step->fd_count; i++)
		close(step->fds[i]);
	json_decref(step->request);
	step_end(h, NULL, NULL, 0);
	return error_set(&h->err, -ELOOP,
			 "the machine is not what it was told to be after %u steps; this is a "
			 "mistake in the service",
			 STEPS_MAX);
}

/* One part: 1 = the worker was asked, 0 = it is as wanted. */
static int part_go_on(struct hot *h, const struct hot_part *part)
{
	struct hot_view view = { .vm = h->o.vm, .folder = h->o.vm->folder, .force = h->o.force };
	json_t *question;
	int r;

	if (!h->answers)
		h->answers = json_array();
	question = part->query(h->answers);
	h->doing = false;
	h->step = (struct hot_step){ .fd_count = 0 };
	if (question) {
		ask(h, h->o.vm->worker, question);
		return 1;
	}
	view.answers = h->answers;
	view.wanted = json_object_get(h->o.wanted, part->key);
	r = part->next(&view, &h->step, &h->err);
	return r <= 0 ? r : step_begin(h);
}

static void go_on(struct hot *h)
{
	int r = 0;

	while (r == 0 && h->part < ARRAY_SIZE(parts)) {
		if (h->cancelled)
			r = error_set(&h->err, -ECANCELED, "cancelled");
		else
			r = part_go_on(h, parts[h->part]);
		if (r == 0) {
			h->part++;
			json_decref(steal_ptr(h->answers));
		}
	}
	if (r <= 0)
		hot_end(h, r);
}

static void on_answer(struct worker_request *r, int result, json_t *answer, const struct error *err)
{
	struct hot *h = container_of(r, struct hot, request);

	h->asking = false;
	step_end(h, result < 0 ? NULL : answer, r->fds, r->fd_count);
	if (result < 0) {
		h->err = *err;
		hot_end(h, result);
		return;
	}
	if (h->doing)
		json_decref(steal_ptr(h->answers)); /* it is not like that any more */
	else
		json_array_append(h->answers, answer);
	go_on(h);
}

static void on_task(struct loop_task *t)
{
	go_on(container_of(t, struct hot, task));
}

int hot_begin(const struct hot_options *o, struct hot **ret, struct error *err)
{
	struct hot *h = calloc(1, sizeof(*h));

	if (!h)
		return error_set(err, -ENOMEM, "out of memory");
	h->o = *o;
	json_incref(h->o.wanted);
	list_init(&h->request.node);
	loop_task_init(&h->task, on_task);
	loop_defer(o->vm->daemon->loop, &h->task);
	*ret = h;
	return 0;
}

void hot_cancel(struct hot *h)
{
	h->cancelled = true;
}

void hot_free(struct hot *h)
{
	if (!h)
		return;
	if (h->asking)
		worker_ask_cancel(&h->request);
	step_end(h, NULL, NULL, 0);
	loop_cancel(h->o.vm->daemon->loop, &h->task);
	json_decref(h->answers);
	json_decref(h->o.wanted);
	free(h);
}
