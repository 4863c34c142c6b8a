// SPDX-License-Identifier: MIT
/*
 * Operations "start" (a keeper and its worker, with a user and control group of their own), "kill"
 * and "password". The first and the last are judged here and done by the hands (hands.h), whose
 * answers end the calls.
 *
 * A worker's user is the next of the pool that no process has, so that one is not used again while
 * anything of its former machine may still be about. The run folder is given to it here.
 */
#include "lib/cleanup.h"
#include "lib/log.h"
#include "privd/hands.h"
#include "privd/message.h"
#include "privd/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/magic.h>
#include <seccomp.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>

/* Calls that the hands have: fewer than answers that fit into their socket. */
#define WAITING_MAX 64

struct waiting {
	uint64_t serial;
	struct privd_call *call; /* NULL = free */
};

static struct {
	struct loop_watch watch; /* the hands' socket */
	struct waiting waiting[WAITING_MAX];
	uint64_t serial;
	unsigned next_uid; /* of the pool */
} state = { .watch.fd = -1 };

/* --- the hands --- */

static void on_hands(struct loop_watch *w, uint32_t events)
{
	struct hands_answer answer;
	struct error err = { 0 };
	struct privd_call *call = NULL;
	struct message m;
	int r = message_receive(w->fd, &answer, sizeof(answer), &m);

	(void)events;
	if (r == -EAGAIN)
		return;
	if (r <= 0 || m.size != sizeof(answer)) {
		/* Without them there is little to do here: a new pair of us is started. */
		loop_stop(w->loop);
		message_close(&m);
		return;
	}
	for (unsigned i = 0; i < WAITING_MAX && !call; i++)
		if (state.waiting[i].call && state.waiting[i].serial == answer.serial)
			call = steal_ptr(state.waiting[i].call);
	if (call && !answer.result && m.fd_count == 1) {
		call->answer_fds[call->answer_fd_count++] = m.fds[0];
		m.fd_count = 0;
	}
	message_close(&m);
	if (!call)
		return;
	if (answer.result < 0)
		error_set(&err, answer.result, "%.399s", answer.words);
	privd_call_end(call, answer.result, &err);
}

int hands_ask(struct privd_call *c, struct hands_request *request, const int *fds,
	      unsigned fd_count, struct error *err)
{
	struct hands_request more = { .kind = HANDS_MORE };
	struct waiting *w = NULL;
	int r = 0;

	for (unsigned i = 0; i < WAITING_MAX && !w; i++)
		if (!state.waiting[i].call)
			w = &state.waiting[i];
	if (!w)
		return error_set(err, -EBUSY, "%d requests are under way already", WAITING_MAX);
	request->serial = ++state.serial;
	for (; fd_count > MESSAGE_FDS_MAX && r >= 0; fd_count -= MESSAGE_FDS_MAX) {
		r = message_send(c->config->hands, &more, sizeof(more), fds, MESSAGE_FDS_MAX);
		fds += MESSAGE_FDS_MAX;
	}
	if (r >= 0)
		r = message_send(c->config->hands, request, sizeof(*request), fds, fd_count);
	if (r < 0)
		return error_errno(err, r, "cannot pass the request on");
	*w = (struct waiting){ request->serial, c };
	return PRIVD_LATER;
}

static int machine_begin(const struct privd_config *config, struct loop *loop, struct error *err)
{
	int r = loop_watch(loop, &state.watch, config->hands, EPOLLIN, on_hands);

	return r < 0 ? error_errno(err, r, "cannot watch the other half") : 0;
}

/* --- start --- */

struct start_arguments {
	char id[64];
	int cgroup; /* the last descriptor is the worker's group */
};

static int folder_judge(const struct privd_config *config, int fd, struct error *err)
{
	struct stat st;

	if (fstat(fd, &st) < 0 || !S_ISDIR(st.st_mode) || st.st_uid != config->service_uid)
		return error_set(err, -EINVAL, "the run folder is no folder of the service");
	return 0;
}

static int lock_judge(const struct privd_config *config, int fd, struct error *err)
{
	struct stat st;

	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_uid != config->service_uid)
		return error_set(err, -EINVAL, "the lock is no file of the service");
	return 0;
}

/* A group that was delegated to the service, or one below: those are its own. */
static int cgroup_judge(const struct privd_config *config, int fd, struct error *err)
{
	struct statfs fs;
	struct stat st;

	if (fstatfs(fd, &fs) < 0 || fs.f_type != CGROUP2_SUPER_MAGIC || fstat(fd, &st) < 0 ||
	    !S_ISDIR(st.st_mode) || st.st_uid != config->service_uid)
		return error_set(err, -EINVAL, "the control group is none of the service");
	return 0;
}

static int start_decode(struct privd_call *c, struct error *err)
{
	static const char letters[] =
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
	struct start_arguments *a = c->arguments;
	const char *id;
	int r = privd_unpack(c, err, "{s:s, s?b}", "machine", &id, "cgroup", &a->cgroup);

	if (r < 0)
		return r;
	if (!*id || strlen(id) >= sizeof(a->id) || strspn(id, letters) != strlen(id))
		return error_set(err, -EINVAL, "\"%.80s\" is no identity of a machine", id);
	strcpy(a->id, id);
	if (a->cgroup && c->fd_count < 4)
		return error_set(err, -EINVAL, "the control group was not passed");
	r = folder_judge(c->config, c->fds[0], err);
	if (r >= 0)
		r = lock_judge(c->config, c->fds[1], err);
	if (r >= 0 && a->cgroup)
		r = cgroup_judge(c->config, c->fds[c->fd_count - 1], err);
	return r;
}

static bool user_in_use(uid_t uid)
{
	errno = 0;
	return getpriority(PRIO_USER, uid) != -1 || errno != ESRCH;
}

static int uid_choose(const struct privd_config *config, uid_t *ret, struct error *err)
{
	for (unsigned i = 0; i < config->uid_count; i++) {
		uid_t uid = config->first_uid + state.next_uid++ % config->uid_count;

		if (!user_in_use(uid)) {
			*ret = uid;
			return 0;
		}
	}
	return error_set(err, -EUSERS, "all %u users for workers are in use; stop a machine",
			 config->uid_count);
}

static int start_run(struct privd_call *c, struct error *err)
{
	struct start_arguments *a = c->arguments;
	struct hands_request request = { .kind = HANDS_KEEPER, .procs = a->cgroup };
	int fds[PRIVD_FDS_MAX], procs = -1, r;
	unsigned count = 0;

	r = uid_choose(c->config, &request.uid, err);
	if (r < 0)
		return r;
	if (a->cgroup) {
		procs = openat(c->fds[--c->fd_count], "cgroup.procs",
			       O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
		close(c->fds[c->fd_count]);
		if (procs < 0)
			return error_errno(err, -errno, "cannot use the control group");
		fds[count++] = procs;
	}
	memcpy(fds + count, c->fds, c->fd_count * sizeof(*fds));
	count += c->fd_count;
	if (fchown(c->fds[0], request.uid, c->config->service_gid) < 0 ||
	    fchmod(c->fds[0], 0770) < 0)
		r = error_errno(err, -errno, "cannot give the run folder to user %u", request.uid);
	if (r >= 0)
		r = hands_ask(c, &request, fds, count, err);
	if (procs >= 0)
		close(procs);
	if (r < 0)
		return r;
	log_line("machine %s: a worker is started as user %u", a->id, request.uid);
	json_object_set_new(c->answer, "uid", json_integer(request.uid));
	return r;
}

/* --- kill --- */

struct kill_arguments {
	pid_t pid;
	int keeper; /* it is one, and is to kill its worker */
};

/* The file's text, ended by 0. */
static int proc_read(const char *path, char *text, size_t size)
{
	_cleanup_close_ int fd = openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, size - 1);

	text[MAX(n, 0)] = 0;
	return n < 0 ? -errno : 0;
}

/*
 * Only processes of workers' users may be killed. Whose the number of a process was is of worth
 * because the signal goes to the descriptor: if another one has the number by now, to nobody.
 */
static int kill_decode(struct privd_call *c, struct error *err)
{
	struct kill_arguments *a = c->arguments;
	char path[64], text[2048], *at;
	unsigned uid = 0;
	int r = privd_unpack(c, err, "{s?b}", "keeper", &a->keeper);

	if (r < 0)
		return r;
	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", c->fds[0]);
	at = proc_read(path, text, sizeof(text)) < 0 ? NULL : strstr(text, "\nPid:");
	if (!at || sscanf(at, "\nPid: %d", &a->pid) != 1 || a->pid <= 0)
		return error_set(err, -EINVAL, "the descriptor is of no process");
	snprintf(path, sizeof(path), "/proc/%d/status", a->pid);
	at = proc_read(path, text, sizeof(text)) < 0 ? NULL : strstr(text, "\nUid:");
	if (!at || sscanf(at, "\nUid: %u", &uid) != 1)
		return error_set(err, -ESRCH, "process %d is gone", a->pid);
	if (c->config->uid_count && uid - c->config->first_uid >= c->config->uid_count)
		return error_set(err, -EACCES, "process %d is no machine's", a->pid);
	return 0;
}

static int kill_run(struct privd_call *c, struct error *err)
{
	const struct kill_arguments *a = c->arguments;
	int signo = a->keeper ? SIGQUIT : SIGKILL;

	if (syscall(SYS_pidfd_send_signal, c->fds[0], signo, NULL, 0) < 0)
		return error_errno(err, -errno, "cannot kill process %d", a->pid);
	return 0;
}

/* --- password --- */

static int password_decode(struct privd_call *c, struct error *err)
{
	struct hands_request *a = c->arguments;
	const char *user, *password, *address;
	int r = privd_unpack(c, err, "{s:s, s:s, s:s}", "user", &user, "password", &password,
			     "address", &address);

	if (r < 0)
		return r;
	if (!*user || strlen(user) >= sizeof(a->user) || strlen(password) >= sizeof(a->password) ||
	    strlen(address) >= sizeof(a->address))
		return error_set(err, -EINVAL, "a name, password or address that is too long");
	a->kind = HANDS_PASSWORD;
	strcpy(a->user, user);
	strcpy(a->password, password);
	strcpy(a->address, address);
	return 0;
}

static int password_run(struct privd_call *c, struct error *err)
{
	return hands_ask(c, c->arguments, NULL, 0, err);
}

/* --- ping --- */

/* Whether one is there. */
static int ping_run(struct privd_call *c, struct error *err)
{
	(void)c;
	(void)err;
	return 0;
}

static const int calls[] = { SCMP_SYS(openat), SCMP_SYS(fstatfs),           SCMP_SYS(fchown),
			     SCMP_SYS(fchmod), SCMP_SYS(pidfd_send_signal), SCMP_SYS(getpriority) };

static const struct privd_operation operations[] = {
	{ "ping", 0, 0, 0, NULL, ping_run },
	{ "start", sizeof(struct start_arguments), 3, PRIVD_FDS_MAX - 1, start_decode, start_run },
	{ "kill", sizeof(struct kill_arguments), 1, 1, kill_decode, kill_run },
	{ "password", sizeof(struct hands_request), 0, 0, password_decode, password_run },
};

const struct privd_group privd_machine = {
	operations,
	ARRAY_SIZE(operations),
	{ calls, ARRAY_SIZE(calls), NULL, 0 },
	BIT(CAP_CHOWN) | BIT(CAP_FOWNER) | BIT(CAP_DAC_OVERRIDE) | BIT(CAP_KILL),
	machine_begin,
};
