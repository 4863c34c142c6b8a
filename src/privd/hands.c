// SPDX-License-Identifier: MIT
/*
 * See hands.h. One thread, one request after another; a password is asked in a child, which sends
 * the answer itself, since PAM takes its time. What is here is small on purpose: it may change its
 * user and make namespaces.
 */
#include "privd/hands.h"
#include "lib/cleanup.h"
#include "lib/log.h"
#include "privd/message.h"
#include "privd/password.h"
#include "privd/spawn.h"

#include <errno.h>
#include <linux/capability.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define CHILDREN_MAX 16 /* passwords at a time */

struct hands {
	const struct privd_config *config;
	int socket;
	int fds[PRIVD_FDS_MAX];
	unsigned fd_count;
};

/* That check passwords; 0 = none. The handler of SIGCHLD writes it, which is blocked but while we
 * wait for a request. */
static volatile pid_t children[CHILDREN_MAX];

static void answer(struct hands *h, uint64_t serial, int fd, const struct error *err)
{
	struct hands_answer a = { .serial = serial, .result = err->code };

	snprintf(a.words, sizeof(a.words), "%.399s", err->message);
	if (message_send(h->socket, &a, sizeof(a), &fd, fd >= 0) < 0)
		_exit(1); /* the other half is gone */
}

/* --- keepers --- */

/* Whose group is root's is not given to a worker. */
static long kvm_group(void)
{
	struct stat st;

	return stat("/dev/kvm", &st) < 0 || !st.st_gid ? -1 : (long)st.st_gid;
}

static void keeper_begin(struct hands *h, const struct hands_request *q)
{
	bool own = h->config->uid_count > 0;
	struct keeper_start k = {
		.keeper = h->config->keeper,
		.worker = h->config->worker,
		.uid = own ? (long)q->uid : -1,
		.gid = own ? (long)h->config->service_gid : -1,
		.group = own ? kvm_group() : -1,
		.namespaces = own,
		.fds = h->fds + q->procs,
		.fd_count = h->fd_count - q->procs,
		.procs = q->procs ? h->fds[0] : -1,
	};
	struct error err = { 0 };
	_cleanup_close_ int fd = keeper_start(&k, &err);

	answer(h, q->serial, fd, &err);
}

/* --- passwords --- */

/* Keepers too: somebody else watches those. */
static void on_child(int signo)
{
	int error = errno;

	(void)signo;
	for (pid_t pid; (pid = waitpid(-1, NULL, WNOHANG)) > 0;)
		for (unsigned i = 0; i < CHILDREN_MAX; i++)
			if (children[i] == pid)
				children[i] = 0;
	errno = error;
}

static void children_block(int how)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigprocmask(how, &set, NULL);
}

static void password_ask(struct hands *h, const struct hands_request *q)
{
	struct error err = { 0 };

	/* modules start processes of their own */
	signal(SIGCHLD, SIG_DFL);
	children_block(SIG_UNBLOCK);
	if (password_check(q->user, q->password, q->address) < 0)
		error_set(&err, -EACCES, "the user's name or password is wrong");
	answer(h, q->serial, -1, &err);
}

static void password_begin(struct hands *h, const struct hands_request *q)
{
	struct error err = { 0 };
	volatile pid_t *child = NULL;

	for (unsigned i = 0; i < CHILDREN_MAX && !child; i++)
		child = children[i] ? NULL : &children[i];
	if (!child) {
		error_set(&err, -EBUSY, "%d passwords are being checked already", CHILDREN_MAX);
		answer(h, q->serial, -1, &err);
		return;
	}
	*child = fork();
	if (!*child) {
		password_ask(h, q);
		_exit(0);
	}
	if (*child < 0) {
		*child = 0;
		error_errno(&err, -errno, "cannot start a process");
		answer(h, q->serial, -1, &err);
	}
}

/* --- the whole --- */

static void take(struct hands *h, struct hands_request *q, struct message *m)
{
	if (h->fd_count + m->fd_count > PRIVD_FDS_MAX)
		_exit(1);
	memcpy(h->fds + h->fd_count, m->fds, m->fd_count * sizeof(*m->fds));
	h->fd_count += m->fd_count;
	m->fd_count = 0;
	if (q->kind == HANDS_MORE)
		return;
	if (q->kind == HANDS_KEEPER)
		keeper_begin(h, q);
	else
		password_begin(h, q);
	explicit_bzero(q, sizeof(*q));
	while (h->fd_count)
		close(h->fds[--h->fd_count]);
}

int hands_run(const struct privd_config *config, int socket)
{
	struct hands h = { .config = config, .socket = socket };
	struct hands_request q;
	struct message m;

	children_block(SIG_BLOCK);
	signal(SIGCHLD, on_child);
	for (;;) {
		int r;

		children_block(SIG_UNBLOCK);
		r = message_receive(socket, &q, sizeof(q), &m);
		children_block(SIG_BLOCK);
		if (r <= 0 || m.size != sizeof(q))
			return 0;
		take(&h, &q, &m);
	}
}

uint64_t hands_capabilities(void)
{
	return BIT(CAP_SETUID) | BIT(CAP_SETGID) | BIT(CAP_SYS_ADMIN) | BIT(CAP_AUDIT_WRITE);
}
