// SPDX-License-Identifier: MIT
/*
 * Finding out what became of workers that an earlier service started. The lock in a run folder says
 * whether a keeper lives; its record says who it and its worker are. A worker whose keeper was
 * killed is still watched, but when it ends nobody writes down how.
 */
#include "daemon/supervisor_internal.h"
#include "lib/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

/* --- who is there --- */

bool worker_folder_kept(int folder)
{
	_cleanup_close_ int fd =
		openat(folder, "lock", O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);

	return fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK;
}

/* A pidfd of the worker that the record names; or negative. */
static int recorded_worker(int folder)
{
	struct worker_record r;

	if (worker_record_read(folder, &r, NULL) < 0 || !worker_record_current(&r))
		return -ESRCH;
	return worker_process_open(folder, r.worker, r.worker_start);
}

bool worker_folder_in_use(int folder)
{
	_cleanup_close_ int fd = worker_folder_kept(folder) ? -1 : recorded_worker(folder);

	return fd >= 0 || worker_folder_kept(folder);
}

bool worker_recognise(struct worker *w)
{
	struct worker_record r;

	if (w->recorded)
		return true;
	if (worker_record_read(w->folder, &r, NULL) < 0 || !worker_record_current(&r))
		return false;
	w->recorded = true;
	w->pid_fd = worker_process_open(w->folder, r.worker, r.worker_start);
	w->pid = w->pid_fd < 0 ? 0 : r.worker;
	if (w->look.deadline)
		loop_timer_arm(&w->look, 1); /* its keeper can be named now, too */
	return true;
}

/* --- one that ended meanwhile --- */

static int ended(struct worker *w, enum worker_end *ret_end, struct error *err)
{
	struct worker_end_record record;
	struct worker_record r;
	struct error why = { 0 };
	struct worker_end_facts f = { .state = "" };
	char words[480];

	if (worker_end_read(w->folder, &record, &why) >= 0)
		f.record = &record;
	else if (worker_record_read(w->folder, &r, NULL) >= 0 && !worker_record_current(&r))
		f.why = "the host restarted";
	else if (why.code == -EUCLEAN)
		f.why = why.message;
	f.out_of_memory = worker_cgroup_out_of_memory(w->supervisor, w->id);
	*ret_end = worker_end_judge(&f, words, sizeof(words));
	worker_folder_remove(w->supervisor, w->id);
	worker_cgroup_remove(w->supervisor, w->id);
	return error_set(err, -ECHILD, "%s", words);
}

/* --- one that is there --- */

static int adopt_kept(struct worker *w)
{
	struct worker_record r;
	int fd;

	if (worker_record_read(w->folder, &r, NULL) < 0 || !worker_record_current(&r)) {
		worker_look_later(w); /* it has only just been started, or its record is garbage */
		return 0;
	}
	fd = worker_process_open(w->folder, r.keeper, r.keeper_start);
	if (fd >= 0)
		return worker_watch_keeper(w, fd);
	worker_look_later(w);
	return 0;
}

static int adopt_folder(struct worker *w, enum worker_end *ret_end, struct error *err)
{
	int r = 0;

	if (worker_folder_kept(w->folder)) {
		worker_recognise(w);
		r = adopt_kept(w);
	} else if (worker_recognise(w) && w->pid_fd >= 0) {
		r = worker_watch_orphan(w);
	} else {
		return ended(w, ret_end, err);
	}
	return r < 0 ? error_errno(err, r, "cannot watch the worker") : 0;
}

int worker_adopt(struct supervisor *s, const char *id, const struct worker_events *events,
		 void *context, struct worker **ret, enum worker_end *ret_end, struct error *err)
{
	struct worker *w;
	struct stat st;
	int r = worker_id_check(id, err);

	if (r >= 0)
		r = worker_new(s, id, &w, err);
	if (r < 0)
		return r;
	w->events = events;
	w->context = context;
	w->folder = openat(s->run_fd, id, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (w->folder < 0)
		r = error_errno(err, errno == ENOENT ? -ENOENT : -errno, "no worker of %s", id);
	else if (fstat(w->folder, &st) < 0)
		r = error_errno(err, -errno, "cannot look at \"%s/%s\"", s->run, id);
	else
		w->uid = st.st_uid;
	if (r >= 0)
		r = adopt_folder(w, ret_end, err);
	if (r < 0) {
		worker_free(w);
		return r;
	}
	worker_link_connect(&w->link);
	*ret = w;
	return 0;
}
