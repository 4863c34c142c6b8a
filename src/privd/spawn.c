// SPDX-License-Identifier: MIT
/*
 * See spawn.h. Between fork and exec only system calls are made, and what went wrong there comes
 * back as an errno through a pipe.
 */
#include "privd/spawn.h"
#include "lib/cleanup.h"
#include "lib/types.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define ARGS_MAX 16

struct call {
	char *argv[ARGS_MAX];
	unsigned count;
	char numbers[4][24];
	int *fds;
	int fd_count;
	int procs, outcome;
};

static void argument(struct call *c, const char *text)
{
	c->argv[c->count++] = (char *)text;
}

static void option(struct call *c, unsigned slot, const char *name, long value)
{
	if (value < 0)
		return;
	snprintf(c->numbers[slot], sizeof(c->numbers[slot]), "%ld", value);
	argument(c, name);
	argument(c, c->numbers[slot]);
}

static void call_build(struct call *c, const struct keeper_start *k)
{
	argument(c, "partita-keeper");
	option(c, 0, "--files", (long)k->fd_count - (KEEPER_FIRST_FD - KEEPER_RUN_FD));
	option(c, 1, "--uid", k->uid);
	option(c, 2, "--gid", k->gid);
	option(c, 3, "--group", k->group);
	if (k->namespaces)
		argument(c, "--namespaces");
	argument(c, "--");
	argument(c, k->worker);
	argument(c, "--description-fd");
	argument(c, "5");
	argument(c, NULL);
}

/*
 * In the child. Descriptors go out of the way first, so that none is written over before it has
 * moved.
 */
static void child_exec(struct call *c, const char *program)
{
	int above = KEEPER_RUN_FD + c->fd_count, error;
	sigset_t none;
	ssize_t n;

	c->outcome = fcntl(c->outcome, F_DUPFD_CLOEXEC, above);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	umask(007);
	if (c->procs >= 0 && write(c->procs, "0", 1) < 0)
		goto fail;
	for (int i = 0; i < c->fd_count; i++) {
		c->fds[i] = fcntl(c->fds[i], F_DUPFD_CLOEXEC, above);
		if (c->fds[i] < 0)
			goto fail;
	}
	for (int i = 0; i < c->fd_count; i++)
		if (dup2(c->fds[i], KEEPER_RUN_FD + i) < 0)
			goto fail;
	close_range((unsigned)above, ~0u, CLOSE_RANGE_CLOEXEC);
	execv(program, c->argv);
fail:
	error = errno;
	n = write(c->outcome, &error, sizeof(error));
	_exit(n > 0 ? 127 : 126);
}

static int keeper_fork(struct call *c, const char *program, struct error *err)
{
	int outcome[2], fd, error = 0;
	ssize_t n;
	pid_t pid;

	if (pipe2(outcome, O_CLOEXEC) < 0)
		return error_errno(err, -errno, "cannot make a pipe");
	c->outcome = outcome[1];
	pid = fork();
	if (!pid)
		child_exec(c, program);
	close(outcome[1]);
	if (pid < 0) {
		close(outcome[0]);
		return error_errno(err, -errno, "cannot start a process");
	}
	do
		n = read(outcome[0], &error, sizeof(error));
	while (n < 0 && errno == EINTR);
	close(outcome[0]);
	if (n > 0) {
		waitpid(pid, NULL, 0);
		return error_errno(err, -error, "cannot run \"%.300s\"", program);
	}
	fd = (int)syscall(SYS_pidfd_open, pid, 0);
	return fd < 0 ? error_errno(err, -errno, "cannot watch the keeper") : fd;
}

int keeper_start(const struct keeper_start *k, struct error *err)
{
	struct call c = { .procs = k->procs };
	_cleanup_free_ int *fds = calloc(k->fd_count, sizeof(*fds));

	if (!fds)
		return error_set(err, -ENOMEM, "out of memory");
	memcpy(fds, k->fds, k->fd_count * sizeof(*fds));
	c.fds = fds;
	c.fd_count = (int)k->fd_count;
	call_build(&c, k);
	return keeper_fork(&c, k->keeper, err);
}
