// SPDX-License-Identifier: MIT
/*
 * vhd serve: an image as an NBD export on a Unix socket. The process that was started is the
 * keeper: it makes the socket and the file with its process id, and removes them. Its child, the
 * server, opens the image and enters its box (box.h) before it reads a client's first byte. Through
 * a pipe it says twice how things went, as a struct error: when it is ready, unless it failed
 * before, and when the image is closed.
 */
#include "vhdtool/verbs.h"

#include "lib/cleanup.h"
#include "lib/sandbox.h"
#include "vhdtool/box.h"
#include "vhdtool/nbd_server.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>

static struct {
	const char *socket, *export, *pid_file, *fd;
	bool writable, once;
	struct tool_image image;
} options;

static const struct tool_option table[] = {
	{ "socket", TOOL_FILE, &options.socket, "PATH", "listen at this Unix socket" },
	{ "fd", TOOL_STRING, &options.fd, "N", "or on this descriptor, which listens already" },
	{ "writable", TOOL_FLAG, &options.writable, NULL, "clients may write" },
	{ "export", TOOL_STRING, &options.export, "NAME", "name of the export (empty)" },
	{ "once", TOOL_FLAG, &options.once, NULL, "end when the last client has gone" },
	{ "pid-file", TOOL_FILE, &options.pid_file, "PATH",
	  "write the process id there when ready" },
	TOOL_IMAGE_OPTIONS(options.image),
	{ 0 },
};

/* --- the server --- */

struct service {
	struct nbd_server *server;
	struct loop_watch signals;
};

static void on_signal(struct loop_watch *w, uint32_t events)
{
	struct service *s = container_of(w, struct service, signals);

	(void)events;
	loop_unwatch(w);
	nbd_server_stop(s->server);
}

/* The keeper has blocked them, all but those that are to be ignored. */
static int signal_fd(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static void say(int to, const struct error *what)
{
	ssize_t n = write(to, what, sizeof(*what));

	(void)n; /* without a keeper there is nobody to hear it */
}

static int serve(struct loop *loop, struct disk *disk, int fd, int keeper, struct error *err)
{
	struct nbd_export export = {
		.disk = disk,
		.name = options.export ? options.export : "",
		.writable = options.writable,
	};
	struct service s = { .signals.fd = -1 };
	_cleanup_close_ int signals = signal_fd();
	int r = nbd_server_new(loop, fd, &export, options.once, &s.server, err);

	if (r < 0)
		return r;
	r = loop_watch(loop, &s.signals, signals, EPOLLIN, on_signal);
	if (r < 0)
		error_errno(err, r, "cannot watch signals");
	else
		r = box_enter(true, err);
	if (r >= 0) {
		say(keeper, &(struct error){ 0 });
		r = loop_run(loop);
		if (r < 0)
			error_errno(err, r, "the event loop");
	}
	loop_unwatch(&s.signals);
	nbd_server_free(s.server);
	return r;
}

static int open_and_serve(const char *path, int fd, int keeper, struct error *err)
{
	struct disk *disk;
	struct loop *loop;
	int r = loop_new(1024, &loop, err), closed;

	if (r < 0)
		return r;
	options.image.server = true;
	r = tool_open(loop, path, !options.writable, &options.image, &disk, err);
	if (r >= 0) {
		r = serve(loop, disk, fd, keeper, err);
		closed = disk_close(disk, r < 0 ? NULL : err);
		r = r < 0 ? r : closed;
	}
	loop_free(loop);
	return r;
}

/* Out of the way of standard input, output and error. */
static int move_up(int fd)
{
	int up = fcntl(fd, F_DUPFD_CLOEXEC, 3);

	close(fd);
	return up;
}

static void server(const char *path, int fd, int keeper)
{
	struct error err = { 0 };
	int r;

	signal(SIGPIPE, SIG_IGN);
	fd = move_up(fd);
	keeper = move_up(keeper);
	if (!SANDBOX_SANITIZED)
		box_mute();
	r = open_and_serve(path, fd, keeper, &err);
	err.code = MIN(r, 0);
	say(keeper, &err);
	_exit(r < 0);
}

/* --- the keeper --- */

static int listener(struct error *err)
{
	int fd, listens = 0;
	socklen_t size = sizeof(listens);
	char *end;

	if (!options.fd)
		return nbd_listen(options.socket, err);
	fd = (int)strtol(options.fd, &end, 10);
	if (*end || end == options.fd ||
	    getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) < 0 || !listens)
		return error_set(err, -EINVAL, "descriptor %s is no socket that listens",
				 options.fd);
	if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) < 0)
		return error_errno(err, -errno, "descriptor %d", fd);
	return fd;
}

static int write_pid_file(struct error *err)
{
	_cleanup_fclose_ FILE *f = NULL;

	if (!options.pid_file)
		return 0;
	f = fopen(options.pid_file, "we");
	if (!f || fprintf(f, "%d\n", getpid()) < 0 || fflush(f))
		return error_errno(err, -errno, "cannot write \"%s\"", options.pid_file);
	return 0;
}

/* Those that are waited for: they pend until then, also in the server. */
static void block_signals(sigset_t *ret)
{
	struct sigaction hangup;

	signal(SIGCHLD, SIG_DFL);
	sigemptyset(ret);
	sigaddset(ret, SIGCHLD);
	sigaddset(ret, SIGINT);
	sigaddset(ret, SIGTERM);
	if (sigaction(SIGHUP, NULL, &hangup) < 0 || hangup.sa_handler != SIG_IGN) /* nohup(1) */
		sigaddset(ret, SIGHUP);
	sigprocmask(SIG_BLOCK, ret, NULL);
}

/* Passes signals on until the server has ended; its status. */
static int wait_for(pid_t pid, const sigset_t *signals)
{
	int status = 0, signo;

	while (!waitpid(pid, &status, WNOHANG))
		if (!sigwait(signals, &signo) && signo != SIGCHLD)
			kill(pid, signo);
	return status;
}

static bool hear(int from, struct error *ret)
{
	bool heard = read(from, ret, sizeof(*ret)) == (ssize_t)sizeof(*ret);

	box_clean(ret->message, sizeof(ret->message));
	return heard;
}

static int gone(int status, struct error *err)
{
	if (!WIFSIGNALED(status))
		return error_set(err, -EIO, "the server ended early");
	return error_set(err, -EIO, "the server %s (signal %d); what was not flushed is lost",
			 WTERMSIG(status) == SIGSYS ? "did what it may not and was stopped"
						    : "was killed",
			 WTERMSIG(status));
}

static int keep(pid_t pid, int from, const sigset_t *signals, struct error *err)
{
	struct error said = { 0 };
	bool heard = hear(from, &said), ready = heard && said.code >= 0;
	int status, r = 0;

	if (ready)
		r = write_pid_file(err);
	if (r < 0)
		kill(pid, SIGTERM);
	status = wait_for(pid, signals);
	if (ready) {
		heard = hear(from, &said);
		if (options.pid_file)
			unlink(options.pid_file);
	}
	if (r < 0)
		return r;
	if (!heard)
		return gone(status, err);
	return said.code < 0 ? error_set(err, said.code, "%s", said.message) : 0;
}

/* Forks the server; `fd` is its own. */
static pid_t start(const char *path, int fd, int *ret_from, struct error *err)
{
	pid_t keeper = getpid(), pid;
	int ends[2];

	if (pipe2(ends, O_CLOEXEC) < 0) {
		close(fd);
		return error_errno(err, -errno, "cannot make a pipe");
	}
	fflush(NULL);
	pid = fork();
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGTERM);
		if (getppid() != keeper)
			_exit(1);
		close(ends[0]);
		server(path, fd, ends[1]);
	}
	close(fd);
	close(ends[1]);
	if (pid < 0) {
		close(ends[0]);
		return error_errno(err, -errno, "cannot start the server");
	}
	*ret_from = ends[0];
	return pid;
}

static int run(unsigned count, char **arguments, struct error *err)
{
	_cleanup_close_ int from = -1;
	sigset_t signals;
	pid_t pid;
	int fd, r;

	(void)count;
	if (!options.socket == !options.fd)
		return tool_usage(err, "say --socket or --fd");
	if (options.export && strlen(options.export) > NBD_NAME_MAX)
		return tool_usage(err, "--export is too long");
	fd = listener(err);
	if (fd < 0)
		return fd;
	block_signals(&signals);
	r = pid = start(arguments[0], fd, &from, err);
	if (r >= 0)
		r = keep(pid, from, &signals, err);
	if (options.socket)
		unlink(options.socket);
	return r < 0 ? r : TOOL_OK;
}

const struct tool_verb verb_serve = {
	.name = "serve",
	.synopsis = "IMAGE --socket PATH [OPTION...]",
	.summary = "serve an image to NBD clients",
	.notes = "Serves until SIGTERM; then all is written and the image is closed.\n\n"
		 "Example:\n"
		 "  vhd serve disk.vhdx --socket /run/disk.sock &\n"
		 "  nbdinfo nbd+unix:///?socket=/run/disk.sock\n",
	.options = table,
	.arguments_min = 1,
	.arguments_max = 1,
	.run = run,
};
