// SPDX-License-Identifier: MIT
/*
 * Starting a worker: its folder, lock, sockets, cgroup and files are made here, with our rights;
 * then the keeper is executed with all of them as descriptors, in the order that keeper.c has. We
 * connect to the control socket at once: whoever listens on it later finds us waiting.
 */
#include "daemon/supervisor_internal.h"
#include "lib/cleanup.h"
#include "lib/unix_socket.h"
#include "privd/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>

#define BACKLOG             16
#define CONSOLE_HISTORY_KIB 64 /* that a viewer gets who joins */

/* `files` begin with the run folder and the lock. */
int keeper_spawn(struct worker *w, struct worker_files *files, int procs, struct error *err)
{
	const struct supervisor *s = w->supervisor;
	bool own = s->uid_count > 0;
	const struct keeper_start start = {
		.keeper = s->keeper,
		.worker = s->worker,
		.uid = own ? (long)w->uid : -1,
		.gid = own ? (long)getegid() : -1,
		.group = own && s->kvm_group != (gid_t)-1 ? (long)s->kvm_group : -1,
		.namespaces = s->namespaces,
		.fds = files->fds,
		.fd_count = files->count,
		.procs = procs,
	};

	return keeper_start(&start, err);
}

/* --- the run folder --- */

int worker_id_check(const char *id, struct error *err)
{
	static const char letters[] =
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
	size_t size = strlen(id);

	if (!size || size >= WORKER_ID_MAX || strspn(id, letters) != size)
		return error_set(err, -EINVAL, "\"%.80s\" is no identity of a machine", id);
	return 0;
}

/* What an earlier service left, and nobody is behind any more, makes room. */
static int folder_make(struct supervisor *s, const char *id, struct error *err)
{
	_cleanup_close_ int old = -1;

	if (!mkdirat(s->run_fd, id, 0700))
		return 0;
	if (errno != EEXIST)
		return error_errno(err, -errno, "cannot make \"%s/%s\"", s->run, id);
	old = openat(s->run_fd, id, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (old >= 0 && worker_folder_in_use(old))
		return error_set(err, -EEXIST, "the machine runs already");
	worker_folder_remove(s, id);
	if (mkdirat(s->run_fd, id, 0700) < 0)
		return error_errno(err, -errno, "cannot make \"%s/%s\"", s->run, id);
	return 0;
}

/* A worker with a user of its own writes its records by that; we read them as the group. */
static int folder_open(struct worker *w, struct error *err)
{
	struct supervisor *s = w->supervisor;

	w->folder = openat(s->run_fd, w->id, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (w->folder < 0)
		return error_errno(err, -errno, "cannot open \"%s/%s\"", s->run, w->id);
	if (s->uid_count &&
	    (fchown(w->folder, w->uid, getegid()) < 0 || fchmod(w->folder, 0770) < 0))
		return error_errno(err, -errno, "cannot give \"%s/%s\" to user %u", s->run, w->id,
				   w->uid);
	return 0;
}

static int lock_take(struct worker *w, struct error *err)
{
	_cleanup_close_ int fd =
		openat(w->folder, "lock", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0)
		return error_errno(err, -errno, "cannot lock \"%s/%s\"", w->supervisor->run, w->id);
	return steal_fd(&fd);
}

/* --- what it is given --- */

/* Takes `fd` or the error in it: its number in the worker. */
static int pass(struct worker_files *f, int fd, struct error *err)
{
	return fd < 0 ? fd : worker_files_add(f, fd, err);
}

static void serial_connect(json_t *description, int listener)
{
	json_t *serial = json_object_get(description, "serial");
	json_t *port = json_pack("{s:s,s:i,s:i}", "kind", "socket", "descriptor", listener,
				 "history", CONSOLE_HISTORY_KIB);

	if (!json_array_size(serial)) {
		json_object_set_new(description, "serial", json_pack("[o]", port));
		return;
	}
	json_array_set_new(serial, 0, port);
}

/* The first COM port is the console, unless the description says where else it goes. */
static bool serial_is_ours(const json_t *description)
{
	const json_t *port = json_array_get(json_object_get(description, "serial"), 0);
	const char *kind = json_string_value(json_object_get(port, "kind"));

	return !kind || !strcmp(kind, "none");
}

static int sockets_pass(struct worker *w, struct worker_files *f, json_t *description,
			struct error *err)
{
	int n = pass(f, unix_listen(w->control, 0600, BACKLOG, err), err);

	if (n < 0)
		return n;
	json_object_set_new(description, "control", json_pack("{s:i}", "listener", n));
	if (w->supervisor->no_console)
		return 0;
	n = pass(f, unix_listen(w->sockets, 0600, BACKLOG, err), err);
	if (n < 0)
		return n;
	json_object_set_new(description, "sockets", json_pack("{s:i}", "listener", n));
	if (!serial_is_ours(description))
		return 0;
	n = pass(f, unix_listen(w->console, 0600, BACKLOG, err), err);
	if (n >= 0)
		serial_connect(description, n);
	return MIN(n, 0);
}

/* Run folder, lock, a place for the description, sockets, files; then the description itself. */
static int files_gather(struct worker *w, const struct worker_start *start, struct worker_files *f,
			struct error *err)
{
	json_t *description = json_deep_copy(start->description);
	int fd = fcntl(w->folder, F_DUPFD_CLOEXEC, 3), r;

	if (!json_is_object(description)) {
		json_decref(description);
		close(fd);
		return error_set(err, -EINVAL, "the description is not an object");
	}
	if (!json_object_get(description, "name") && start->name)
		json_object_set_new(description, "name", json_string(start->name));
	r = fd < 0 ? error_errno(err, -errno, "cannot pass the run folder") : 0;
	if (r >= 0)
		r = pass(f, fd, err);
	if (r >= 0)
		r = pass(f, lock_take(w, err), err);
	/* The first that the worker gets; these two are the keeper's. */
	if (r >= 0)
		r = pass(f, fcntl(w->folder, F_DUPFD_CLOEXEC, 3), err);
	if (r >= 0)
		r = sockets_pass(w, f, description, err);
	if (r >= 0)
		r = worker_files_open(f, description, start->folder, err);
	if (r >= 0)
		r = worker_files_describe(description, err);
	if (r >= 0) {
		close(f->fds[2]);
		f->fds[2] = r;
	}
	json_decref(description);
	return MIN(r, 0);
}

/* --- starting --- */

static int uid_choose(struct worker *w, struct error *err)
{
	struct supervisor *s = w->supervisor;

	w->uid = geteuid();
	for (unsigned i = 0; i < s->uid_count; i++) {
		bool used = false;

		list_foreach(it, &s->workers) used |=
			list_entry(it, struct worker, node)->uid == s->first_uid + i;
		if (!used) {
			w->uid = s->first_uid + i;
			return 0;
		}
	}
	return s->uid_count ? error_set(err, -EUSERS,
					"all %u users for workers are in use; stop a machine, or "
					"give the service more",
					s->uid_count)
			    : 0;
}

static int programs_check(const struct supervisor *s, struct error *err)
{
	if (access(s->keeper, X_OK) < 0)
		return error_errno(err, -errno, "cannot run \"%.300s\"", s->keeper);
	if (access(s->worker, X_OK) < 0)
		return error_errno(err, -errno, "cannot run \"%.300s\"", s->worker);
	return 0;
}

/* Unlike when it is asked for later, a limit that cannot be had here does not stop a machine. */
static int cgroup_join(struct worker *w, const struct worker_limits *l, int *ret_procs,
		       struct error *err)
{
	struct supervisor *s = w->supervisor;
	int r = worker_cgroup_make(s, w->id, ret_procs, err);

	if (r >= 0 && s->cgroup)
		(void)!worker_cgroup_limit(s, w->id, l, NULL);
	return r;
}

static int start_in_folder(struct worker *w, const struct worker_start *start, struct error *err)
{
	struct worker_files files;
	_cleanup_close_ int procs = -1;
	int r = folder_open(w, err);

	worker_files_init(&files, w->supervisor->privd);
	if (r >= 0)
		r = files_gather(w, start, &files, err);
	if (r >= 0)
		r = cgroup_join(w, &start->limits, &procs, err);
	if (r >= 0 && w->supervisor->privd)
		return worker_hand_over(w, &files, err);
	if (r >= 0)
		r = keeper_spawn(w, &files, procs, err);
	worker_files_close(&files);
	if (r >= 0)
		r = worker_watch_keeper(w, r);
	return r;
}

int worker_start(struct supervisor *s, const struct worker_start *start, struct worker **ret,
		 struct error *err)
{
	struct worker *w;
	int r = worker_id_check(start->id, err);

	if (r >= 0)
		r = programs_check(s, err);
	if (r >= 0)
		r = worker_new(s, start->id, &w, err);
	if (r < 0)
		return r;
	w->events = start->events;
	w->context = start->context;
	r = uid_choose(w, err);
	if (r >= 0)
		r = folder_make(s, w->id, err);
	if (r >= 0) {
		r = start_in_folder(w, start, err);
		if (r < 0) {
			worker_folder_remove(s, w->id);
			worker_cgroup_remove(s, w->id);
		}
	}
	if (r < 0) {
		worker_free(w);
		return r;
	}
	worker_link_connect(&w->link);
	*ret = w;
	return 0;
}
