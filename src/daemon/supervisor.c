// SPDX-License-Identifier: MIT
/*
 * See supervisor.h. The supervisor itself, and the life of a worker from when it is watched until
 * its end is told. worker_spawn.c starts one, worker_adopt.c finds one again, worker_link.c talks
 * to it, worker_record.c reads what keepers write, worker_cgroup.c limits and counts.
 */
#include "daemon/supervisor_internal.h"
#include "lib/cleanup.h"
#include "lib/folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>

#define LOOK_MS     20 /* for a record that is not there yet */
#define LOOK_MS_MAX 1000
#define MS          UINT64_C(1000000)

/* --- a worker's life --- */

int worker_new(struct supervisor *s, const char *id, struct worker **ret, struct error *err)
{
	struct sockaddr_un address;
	struct worker *w;

	list_foreach(it, &s->workers) if (!strcmp(list_entry(it, struct worker, node)->id,
						  id)) return error_set(err, -EEXIST,
									"the machine runs already");
	w = calloc(1, sizeof(*w));
	if (!w)
		return error_set(err, -ENOMEM, "out of memory");
	w->supervisor = s;
	w->folder = w->keeper_fd = w->pid_fd = -1;
	w->keeper_watch.fd = w->pid_watch.fd = -1;
	list_append(&s->workers, &w->node);
	snprintf(w->id, sizeof(w->id), "%s", id);
	loop_timer_init(s->loop, &w->look, NULL);
	loop_timer_init(s->loop, &w->kill_again, NULL);
	worker_link_init(&w->link, w);
	if (asprintf(&w->control, "%s/%s/control", s->run, id) < 0)
		w->control = NULL;
	if (asprintf(&w->console, "%s/%s/console", s->run, id) < 0)
		w->console = NULL;
	if (asprintf(&w->sockets, "%s/%s/sockets", s->run, id) < 0)
		w->sockets = NULL;
	if (!w->control || !w->console || !w->sockets) {
		worker_free(w);
		return error_set(err, -ENOMEM, "out of memory");
	}
	if (strlen(w->control) >= sizeof(address.sun_path)) {
		error_set(err, -ENAMETOOLONG,
			  "\"%.200s\" is longer than the %zu bytes that a socket's path may have; "
			  "choose a shorter run folder",
			  w->control, sizeof(address.sun_path) - 1);
		worker_free(w);
		return -ENAMETOOLONG;
	}
	*ret = w;
	return 0;
}

void worker_free(struct worker *w)
{
	worker_handover_free(w);
	worker_link_deinit(&w->link);
	loop_timer_disarm(&w->look);
	loop_unwatch(&w->keeper_watch);
	loop_unwatch(&w->pid_watch);
	if (w->keeper_fd >= 0)
		close(w->keeper_fd);
	if (w->pid_fd >= 0)
		close(w->pid_fd);
	if (w->folder >= 0)
		close(w->folder);
	list_remove(&w->node);
	free(w->control);
	free(w->console);
	free(w->sockets);
	free(w);
}

void worker_on_state(struct worker *w, const char *state)
{
	if (!strcmp(w->state, state))
		return;
	snprintf(w->state, sizeof(w->state), "%s", state);
	if (w->events->state)
		w->events->state(w->context, w, w->state);
}

void worker_on_event(struct worker *w, json_t *event)
{
	if (w->events->event)
		w->events->event(w->context, w, event);
}

/* Nothing of it is left but `w`. */
static void worker_gone(struct worker *w, enum worker_end end, const char *words)
{
	loop_timer_disarm(&w->look);
	loop_unwatch(&w->keeper_watch);
	loop_unwatch(&w->pid_watch);
	worker_link_end(&w->link);
	worker_folder_remove(w->supervisor, w->id);
	worker_cgroup_remove(w->supervisor, w->id);
	/* Whoever is told may start the machine again at once. */
	list_remove(&w->node);
	if (w->events->ended)
		w->events->ended(w->context, w, end, words);
	worker_free(w);
}

void worker_fail(struct worker *w, const char *words)
{
	char copy[sizeof(((struct error *)NULL)->message)];

	snprintf(copy, sizeof(copy), "the worker was not started: %.480s", words);
	worker_gone(w, WORKER_END_ERROR, copy);
}

static void worker_end(struct worker *w)
{
	struct worker_end_record record;
	struct error why = { 0 };
	struct worker_end_facts f = { .state = w->state, .killed = w->killed };
	enum worker_end end;
	char words[480];

	if (worker_end_read(w->folder, &record, &why) >= 0)
		f.record = &record;
	else if (why.code == -EUCLEAN)
		f.why = why.message;
	f.out_of_memory = worker_cgroup_out_of_memory(w->supervisor, w->id);
	end = worker_end_judge(&f, words, sizeof(words));
	worker_gone(w, end, words);
}

static bool end_is_written(const struct worker *w)
{
	return !faccessat(w->folder, "end.json", F_OK, AT_SYMLINK_NOFOLLOW);
}

static void on_worker_exit(struct loop_watch *watch, uint32_t events)
{
	(void)events;
	worker_end(container_of(watch, struct worker, pid_watch));
}

int worker_watch_orphan(struct worker *w)
{
	return loop_watch(w->supervisor->loop, &w->pid_watch, w->pid_fd, EPOLLIN, on_worker_exit);
}

/* The keeper ended: with its worker, or, killed by somebody, before it. */
static void keeper_gone(struct worker *w)
{
	siginfo_t info;

	if (w->keeper_fd >= 0) {
		loop_unwatch(&w->keeper_watch);
		(void)waitid((idtype_t)P_PIDFD, (id_t)w->keeper_fd, &info, WEXITED | WNOHANG);
		close(steal_fd(&w->keeper_fd));
	}
	if (!end_is_written(w) && worker_recognise(w) && w->pid_fd >= 0 &&
	    worker_watch_orphan(w) >= 0)
		return;
	worker_end(w);
}

static void on_keeper_exit(struct loop_watch *watch, uint32_t events)
{
	(void)events;
	keeper_gone(container_of(watch, struct worker, keeper_watch));
}

int worker_watch_keeper(struct worker *w, int keeper_fd)
{
	w->keeper_fd = keeper_fd;
	return loop_watch(w->supervisor->loop, &w->keeper_watch, keeper_fd, EPOLLIN,
			  on_keeper_exit);
}

/* A keeper that cannot be named: its lock tells when it ends, if its record never does. */
static void on_look(struct loop_timer *t)
{
	struct worker *w = container_of(t, struct worker, look);
	struct worker_record r;
	int fd = -1;

	if (!worker_folder_kept(w->folder)) {
		keeper_gone(w);
		return;
	}
	worker_recognise(w);
	if (worker_record_read(w->folder, &r, NULL) >= 0 && worker_record_current(&r))
		fd = worker_process_open(w->folder, r.keeper, r.keeper_start);
	if (fd >= 0 && worker_watch_keeper(w, fd) >= 0)
		return;
	worker_look_later(w);
}

void worker_look_later(struct worker *w)
{
	uint64_t wait = MIN((uint64_t)LOOK_MS << MIN(w->looks++, 5u), LOOK_MS_MAX);

	w->look.fn = on_look;
	loop_timer_arm(&w->look, loop_now(w->supervisor->loop) + wait * MS);
}

/* Before the worker is known its keeper does it. */
void worker_kill(struct worker *w)
{
	w->killed = true;
	worker_recognise(w);
	if (w->supervisor->privd)
		worker_privd_kill(w);
	else if (w->pid_fd >= 0)
		(void)syscall(SYS_pidfd_send_signal, w->pid_fd, SIGKILL, NULL, 0);
	else if (w->keeper_fd >= 0)
		(void)syscall(SYS_pidfd_send_signal, w->keeper_fd, SIGQUIT, NULL, 0);
}

int worker_limits_set(struct worker *w, const struct worker_limits *limits, struct error *err)
{
	return worker_cgroup_limit(w->supervisor, w->id, limits, err);
}

const char *worker_sockets_path(const struct worker *w)
{
	return w->sockets;
}

const char *worker_console_path(const struct worker *w)
{
	return w->console;
}

pid_t worker_pid(const struct worker *w)
{
	return w->pid;
}

/* --- the supervisor --- */

static void note(struct supervisor *s, const char *text)
{
	size_t n = strlen(s->notes);

	snprintf(s->notes + n, sizeof(s->notes) - n, "%s%s", n ? "; " : "", text);
}

const char *supervisor_notes(const struct supervisor *s)
{
	return *s->notes ? s->notes : NULL;
}

static bool may(unsigned capability)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2] = { 0 };

	return !syscall(SYS_capget, &header, data) &&
	       data[capability / 32].effective & BIT(capability % 32);
}

static void isolation_choose(struct supervisor *s, const struct supervisor_options *o)
{
	bool users = may(CAP_SETUID) && may(CAP_SETGID) && may(CAP_CHOWN) && may(CAP_KILL);
	struct stat st;

	s->kvm_group = stat("/dev/kvm", &st) < 0 ? (gid_t)-1 : st.st_gid;
	s->first_uid = o->first_uid;
	if (s->privd)
		return; /* it isolates workers, or refuses to start them */
	if (o->first_uid && o->uid_count && users)
		s->uid_count = o->uid_count;
	else
		note(s, o->first_uid && o->uid_count
				? "workers run as the service does: it may not change its user"
				: "workers run as the service does: no users are set aside for "
				  "them");
	s->namespaces = !o->host_network && may(CAP_SYS_ADMIN);
	if (!s->namespaces && !o->host_network)
		note(s, "workers have no namespaces of their own: the service may not make any");
}

static void cgroup_choose(struct supervisor *s, const char *path)
{
	struct error err = { 0 };

	if (!path)
		note(s, "processor time is not limited: no cgroup is delegated to the service");
	else if (supervisor_cgroup_set_up(s, path, &err) < 0)
		note(s, err.message);
}

static int run_folder_make(struct supervisor *s, const char *path, struct error *err)
{
	struct stat st;
	int r = folder_make_all(path, err);

	if (r < 0)
		return r;
	s->run = realpath(path, NULL);
	s->run_fd = s->run ? open(s->run, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	if (s->run_fd < 0 || fstat(s->run_fd, &st) < 0)
		return error_errno(err, -errno, "cannot open the folder \"%.300s\"", path);
	if (st.st_uid != geteuid() || st.st_mode & 022)
		return error_set(err, -EPERM,
				 "the folder \"%.300s\" belongs to another user, or others may "
				 "write in it",
				 path);
	/* Workers may be of our group: they have no business in each other's folders. */
	return fchmod(s->run_fd, 0700) < 0 ? error_errno(err, -errno, "\"%.300s\"", path) : 0;
}

/* From the root on: keepers leave our folder. One that is not there yet may come. */
static char *program_path(const char *path)
{
	char *real = realpath(path, NULL);

	return real ? real : strdup(path);
}

int supervisor_new(struct loop *loop, const struct supervisor_options *o, struct supervisor **ret,
		   struct error *err)
{
	struct supervisor *s = calloc(1, sizeof(*s));
	int r = 0;

	if (!s)
		return error_set(err, -ENOMEM, "out of memory");
	s->loop = loop;
	s->run_fd = -1;
	list_init(&s->workers);
	s->worker = program_path(o->worker);
	s->keeper = program_path(o->keeper);
	if (!s->worker || !s->keeper)
		r = error_set(err, -ENOMEM, "out of memory");
	if (r >= 0)
		r = run_folder_make(s, o->run_folder, err);
	if (r < 0) {
		supervisor_free(s);
		return r;
	}
	if (o->privd && (r = privd_new(loop, o->privd, &s->privd, err)) < 0) {
		supervisor_free(s);
		return r;
	}
	s->no_console = o->no_console;
	isolation_choose(s, o);
	cgroup_choose(s, o->cgroup);
	*ret = s;
	return 0;
}

void supervisor_free(struct supervisor *s)
{
	if (!s)
		return;
	while (!list_empty(&s->workers))
		worker_free(list_first(&s->workers, struct worker, node));
	privd_free(s->privd);
	if (s->run_fd >= 0)
		close(s->run_fd);
	free(s->cgroup);
	free(s->run);
	free(s->worker);
	free(s->keeper);
	free(s);
}

int supervisor_found(struct supervisor *s, void (*each)(void *context, const char *id),
		     void *context, struct error *err)
{
	DIR *dir = opendir(s->run);
	struct dirent *e;

	if (!dir)
		return error_errno(err, -errno, "cannot read \"%s\"", s->run);
	while ((e = readdir(dir))) {
		struct stat st;

		if (worker_id_check(e->d_name, NULL) < 0 ||
		    fstatat(s->run_fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
		    !S_ISDIR(st.st_mode))
			continue;
		each(context, e->d_name);
	}
	closedir(dir);
	return 0;
}
