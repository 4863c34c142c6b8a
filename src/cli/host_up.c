// SPDX-License-Identifier: MIT
/*
 * partita host up and down: a service of the user's own, without root and without systemd. The
 * service is a child that is in a session of its own; who listens at a socket the kernel knows, so
 * there is no file with a process id that could be wrong.
 */
#include "cli/host.h"
#include "cli/output.h"
#include "cli/place.h"
#include "cli/program.h"
#include "engine/engine.h"

#include "lib/cleanup.h"
#include "lib/folder.h"
#include "lib/program.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define UP_TRIES    400 /* of 50 ms */
#define DOWN_WAIT_S 30
#define TAIL_MAX    2000

static int no_memory(struct error *err)
{
	return error_set(err, -ENOMEM, "out of memory");
}

/* --- who listens --- */

/* The process that listens at the socket, or -ECONNREFUSED: none. */
static int listener(const char *path, pid_t *ret)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct ucred who;
	socklen_t size = sizeof(who);

	if (fd < 0 || strlen(path) >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	strcpy(address.sun_path, path);
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return -ECONNREFUSED;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &size) < 0)
		return -errno;
	*ret = who.pid;
	return 0;
}

/* --- up --- */

struct up {
	struct command *command;
	char *state, *run, *socket, *log;
	char program[PATH_MAX];
	pid_t pid;
};

static void up_deinit(struct up *u)
{
	free(u->state);
	free(u->run);
	free(u->socket);
	free(u->log);
}

static int up_prepare(struct up *u, struct error *err)
{
	u->state = place_state();
	u->run = place_run();
	u->socket = place_socket();
	if (!u->state || !u->run || !u->socket ||
	    asprintf(&u->log, "%s/partitad.log", u->state) < 0)
		return error_set(err, -ENOENT, "you have no home folder: set XDG_STATE_HOME");
	if (strlen(u->socket) >= sizeof(((struct sockaddr_un *)NULL)->sun_path))
		return error_set(err, -ENAMETOOLONG,
				 "\"%s\" is too long for a socket: set XDG_RUNTIME_DIR to a "
				 "shorter folder",
				 u->socket);
	if (folder_make_all(u->state, err) < 0 || folder_make_all(u->run, err) < 0)
		return err->code;
	return program_find("partitad", "../rest", u->program, err);
}

static void become_service(const struct up *u, int log)
{
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	setsid();
	if (chdir("/") < 0 || dup2(null, 0) < 0 || dup2(log, 1) < 0 || dup2(log, 2) < 0)
		_exit(127);
	execl(u->program, "partitad", "--user", "--socket", u->socket, "--state", u->state, "--run",
	      u->run, NULL);
	perror(u->program);
	_exit(127);
}

static int up_start(struct up *u, struct error *err)
{
	_cleanup_close_ int log = open(u->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

	if (log < 0)
		return error_errno(err, -errno, "cannot write \"%s\"", u->log);
	u->pid = fork();
	if (u->pid < 0)
		return error_errno(err, -errno, "cannot start the service");
	if (!u->pid)
		become_service(u, log);
	return 0;
}

/* What it said last, where it says why it cannot. */
static void show_log(const struct up *u)
{
	_cleanup_fclose_ FILE *f = fopen(u->log, "re");
	char text[TAIL_MAX + 1];
	size_t n;

	if (!f || fseek(f, 0, SEEK_END) < 0)
		return;
	if (ftell(f) > TAIL_MAX)
		fseek(f, -TAIL_MAX, SEEK_END);
	else
		rewind(f);
	n = fread(text, 1, TAIL_MAX, f);
	fwrite(text, 1, n, stderr);
}

static int up_wait(struct up *u)
{
	struct command *c = u->command;
	_cleanup_free_ char *place = NULL;
	json_t *host;
	int status, r;

	if (asprintf(&place, "unix:%s", u->socket) < 0) {
		place = NULL;
		return no_memory(&c->err);
	}
	if (!c->client && client_new(place, &c->client, &c->err) < 0)
		return c->err.code;
	for (int i = 0; i < UP_TRIES; i++) {
		struct error err = { 0 };

		r = client_get(c->client, "/host", &host, &err);
		if (r >= 0) {
			json_decref(host);
			return 0;
		}
		if (r != -ECONNREFUSED)
			return error_set(&c->err, r, "%s", err.message);
		if (u->pid > 0 && waitpid(u->pid, &status, WNOHANG) == u->pid) {
			show_log(u);
			return error_set(&c->err, -EIO,
					 "the service ended at once; \"%s\" is its log", u->log);
		}
		nanosleep(&(struct timespec){ .tv_nsec = 50000000 }, NULL);
	}
	return error_set(&c->err, -ETIMEDOUT, "the service does not answer; \"%s\" is its log",
			 u->log);
}

static void print_engine(void)
{
	const struct engine *found = NULL;
	struct error err = { 0 };
	uint32_t caps;

	for (size_t i = 0; engines[i] && !found; i++) {
		struct error why = { 0 };

		if (!engines[i]->probe(&caps, &why))
			found = engines[i];
		else if (!err.message[0])
			err = why;
	}
	if (found) {
		printf("engine   %s: %s\n", found->name, found->summary);
		return;
	}
	printf("engine   none: %s\n", err.message);
	puts("         Machines can be made and changed, but not started. In the source tree,\n"
	     "         `lab/lab --shell` boots an emulated host that has KVM, slowly; there\n"
	     "         `partita host up` gives a service whose machines run.");
}

static int up_report(const struct up *u, bool already)
{
	struct command *c = u->command;
	pid_t pid = 0;

	(void)!listener(u->socket, &pid);
	if (c->json) {
		json_t *o = json_pack("{s:s,s:s,s:s,s:i,s:b}", "socket", u->socket, "state",
				      u->state, "log", u->log, "pid", (int)pid, "already", already);

		print_json(o);
		json_decref(o);
		return 0;
	}
	printf("%s\nsocket   %s\nstate    %s\nlog      %s\nprocess  %d\n",
	       already ? "The service is up already." : "The service is up.", u->socket, u->state,
	       u->log, (int)pid);
	print_engine();
	return 0;
}

int host_run_up(struct command *c)
{
	struct up u = { .command = c };
	bool already = false;
	pid_t pid;
	int r;

	if (command_option(c, "host"))
		return command_usage(c, "a service is started on this host only");
	r = up_prepare(&u, &c->err);
	if (r >= 0 && listener(u.socket, &pid) >= 0)
		already = true;
	else if (r >= 0)
		r = up_start(&u, &c->err);
	if (r >= 0)
		r = up_wait(&u);
	if (r >= 0)
		r = up_report(&u, already);
	up_deinit(&u);
	return r;
}

/* --- down --- */

/* SIGTERM leaves machines running, SIGPWR ends them first. */
static int end_process(pid_t pid, int signo, unsigned wait_s, struct error *err)
{
	_cleanup_close_ int fd = pidfd_open(pid, 0);
	struct pollfd p = { .fd = fd, .events = POLLIN };

	if (fd < 0)
		return errno == ESRCH ? 0 : error_errno(err, -errno, "cannot find process %d", pid);
	if (pidfd_send_signal(fd, signo, NULL, 0) < 0 && errno != ESRCH)
		return error_errno(err, -errno, "cannot end process %d", pid);
	if (poll(&p, 1, (int)wait_s * 1000) <= 0)
		return error_set(err, -ETIMEDOUT, "process %d has not ended after %u s", pid,
				 wait_s);
	return 0;
}

/* How long the service gives its machines. */
static int deadline(struct command *c, const char *place, unsigned *ret)
{
	json_t *host;
	int r = client_new(place, &c->client, &c->err);

	if (r >= 0)
		r = client_get(c->client, "/host", &host, &c->err);
	if (r < 0)
		return r;
	*ret = (unsigned)json_integer_value(json_at(host, "settings.stop_deadline"));
	*ret = MIN(*ret, 86400u);
	json_decref(host);
	return 0;
}

int host_run_down(struct command *c)
{
	_cleanup_free_ char *socket = place_socket(), *place = NULL;
	unsigned wait_s = 0;
	int signo = SIGTERM, r;
	pid_t pid;

	if (command_option(c, "host"))
		return command_usage(c, "only a service of one's own is ended so");
	if (!socket || asprintf(&place, "unix:%s", socket) < 0) {
		place = NULL;
		return no_memory(&c->err);
	}
	if (listener(socket, &pid) < 0)
		return error_set(&c->err, -ECONNREFUSED, "no service of yours is up at \"%s\"",
				 socket);
	if (command_flag(c, "stop-machines")) {
		r = deadline(c, place, &wait_s);
		if (r < 0)
			return r;
		signo = SIGPWR;
	}
	r = end_process(pid, signo, wait_s + DOWN_WAIT_S, &c->err);
	if (r >= 0 && !c->json)
		puts("The service has ended.");
	return r;
}
