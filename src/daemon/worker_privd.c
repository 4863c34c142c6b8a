// SPDX-License-Identifier: MIT
/*
 * Starting and killing workers where the service has no rights to: partita-privd does it. Files of
 * the description that we may not open are asked for first, all at once; then the keeper, with
 * everything that it gets. Whatever is refused on the way ends the worker with the words of that.
 */
#include "daemon/supervisor_internal.h"
#include "lib/cleanup.h"

#include <errno.h>
#include <string.h>

#define KILLS_MAX     200
#define KILL_AGAIN_NS UINT64_C(50000000)

struct worker_handover {
	struct worker *worker;
	struct worker_files files;
	struct privd_request start;
	unsigned waiting; /* files that have not come */
};

void worker_handover_free(struct worker *w)
{
	struct worker_handover *h = steal_ptr(w->handover);

	privd_cancel(&w->kill);
	loop_timer_disarm(&w->kill_again);
	if (!h)
		return;
	privd_cancel(&h->start);
	worker_files_close(&h->files);
	free(h);
}

/* --- the keeper --- */

static void on_started(struct privd_request *r, const struct privd_answer *a)
{
	struct worker_handover *h = container_of(r, struct worker_handover, start);
	struct worker *w = h->worker;

	if (a->result < 0 || a->fd_count != 1) {
		worker_fail(w, a->result < 0 ? a->err->message
					     : "partita-privd gave no descriptor of the keeper");
		return;
	}
	worker_handover_free(w);
	if (worker_watch_keeper(w, steal_fd(&a->fds[0])) < 0)
		worker_look_later(w);
	if (w->killed)
		worker_kill(w);
}

static int start_ask(struct worker_handover *h, struct error *err)
{
	struct worker *w = h->worker;
	bool cgroup = w->supervisor->cgroup;
	json_t *request =
		json_pack("{s:s,s:s,s:b}", "op", "start", "machine", w->id, "cgroup", cgroup);
	int fd = cgroup ? worker_cgroup_open(w->supervisor, w->id) : -1;

	if (!request || (cgroup && fd < 0) ||
	    (cgroup && worker_files_add(&h->files, steal_fd(&fd), err) < 0)) {
		json_decref(request);
		return error_set(err, -EIO, "cannot pass the control group and %u files",
				 h->files.count);
	}
	privd_ask(w->supervisor->privd, &h->start, request, h->files.fds, h->files.count);
	return 0;
}

/* --- late files --- */

static void on_file(struct privd_request *r, const struct privd_answer *a)
{
	struct worker_late_file *late = container_of(r, struct worker_late_file, request);
	struct worker_handover *h = late->handover;
	struct error err = { 0 };
	int result = a->result;

	if (result < 0)
		result = error_set(&err, result, "%s: %s", late->where, a->err->message);
	else if (a->fd_count != 1)
		result = error_set(&err, -EPROTO, "%s: partita-privd gave no file", late->where);
	else
		result = worker_files_come(&h->files, late, steal_fd(&a->fds[0]), &err);
	if (result >= 0 && !--h->waiting)
		result = start_ask(h, &err);
	if (result < 0)
		worker_fail(h->worker, err.message);
}

static void files_ask(struct worker_handover *h)
{
	list_foreach(it, &h->files.late)
	{
		struct worker_late_file *late = list_entry(it, struct worker_late_file, node);

		late->handover = h;
		late->request.done = on_file;
		h->waiting++;
		privd_ask(h->worker->supervisor->privd, &late->request,
			  json_pack("{s:s,s:s,s:b}", "op", "open", "path", late->path, "write",
				    !late->read_only),
			  NULL, 0);
	}
}

int worker_hand_over(struct worker *w, struct worker_files *files, struct error *err)
{
	struct worker_handover *h = calloc(1, sizeof(*h));
	int r = 0;

	if (!h)
		return error_set(err, -ENOMEM, "out of memory");
	h->worker = w;
	h->start.done = on_started;
	worker_files_init(&h->files, true);
	h->files.count = files->count;
	memcpy(h->files.fds, files->fds, files->count * sizeof(*files->fds));
	files->count = 0;
	list_splice(&h->files.late, &files->late);
	w->handover = h;
	if (list_empty(&h->files.late))
		r = start_ask(h, err);
	else
		files_ask(h);
	return r;
}

/* --- killing --- */

static void on_kill_again(struct loop_timer *t)
{
	worker_kill(container_of(t, struct worker, kill_again));
}

/* A keeper that has not become its user yet is no machine's process: it soon is. */
static void on_killed(struct privd_request *r, const struct privd_answer *a)
{
	struct worker *w = container_of(r, struct worker, kill);

	if (a->result < 0 && a->result != -ESRCH && w->kills++ < KILLS_MAX) {
		w->kill_again.fn = on_kill_again;
		loop_timer_arm(&w->kill_again, loop_now(w->supervisor->loop) + KILL_AGAIN_NS);
	}
}

void worker_privd_kill(struct worker *w)
{
	bool known = w->pid_fd >= 0;
	int fd = known ? w->pid_fd : w->keeper_fd;

	if (fd < 0)
		return; /* it is done when the keeper is there */
	privd_cancel(&w->kill);
	w->kill.done = on_killed;
	privd_ask(w->supervisor->privd, &w->kill,
		  json_pack("{s:s,s:b}", "op", "kill", "keeper", !known), &fd, 1);
}
