// SPDX-License-Identifier: MIT
/*
 * partitad: the management service as a program. It finds its folders and helpers, begins the
 * service and its doors, and runs the loop until a signal: SIGTERM and SIGINT end it and leave the
 * machines running, SIGPWR stops them first, as when the host shuts down.
 */
#include "daemon/daemon.h"
#include "daemon/door.h"
#include "lib/cleanup.h"
#include "lib/log.h"
#include "lib/program.h"
#include "privd/privd.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#define DOORS_MAX   8
#define DESCRIPTORS 65536 /* sockets of clients, and a few for each machine */

static const char usage[] =
	"usage: partitad [--user] [--state FOLDER] [--run FOLDER] [--socket PATH]\n"
	"                [--worker PROGRAM] [--keeper PROGRAM] [--cgroup PATH] [--privd PATH]\n"
	"\n"
	"Manages virtual machines: it keeps them, starts, watches and guards them, and serves\n"
	"the REST interface to `partita` and other clients.\n"
	"\n"
	"  --user             a user's own service, not the host's\n"
	"  --state FOLDER     the database and machines; default /var/lib/partita, with --user\n"
	"                     $XDG_STATE_HOME/partita\n"
	"  --run FOLDER       sockets of machines that run; default /run/partita, with --user\n"
	"                     $XDG_RUNTIME_DIR/partita\n"
	"  --socket PATH      the socket for clients; default partitad.sock in the run folder\n"
	"  --worker PROGRAM   partita-worker; default: beside this program\n"
	"  --keeper PROGRAM   partita-keeper; likewise\n"
	"  --cgroup PATH      the control group below which machines get theirs (see\n"
	"                     partitad(8)); default: ours, if it is delegated\n"
	"  --privd PATH       socket of partita-privd(8), which starts machines for a service "
	"that\n"
	"                     is not root; default, without --user: " PRIVD_SOCKET "\n"
	"  --help, --version\n"
	"\n"
	"SIGTERM ends the service and leaves the machines running; the next one takes them over.\n"
	"SIGPWR stops them first, each by its automatic stop action.\n";

struct options {
	struct daemon_options daemon;
	struct door_options door;
	char *state, *run, *machines, *socket, *worker, *keeper, *privd, *cgroup;
	char *switchd, *natd;
};

struct program {
	struct loop *loop;
	struct daemon *daemon;
	struct loop_watch signals;
	void *doors[DOORS_MAX];
	unsigned door_count;
};

/* --- options --- */

static char *join(const char *a, const char *b)
{
	char *path;

	return !a || *a != '/' || asprintf(&path, "%s/%s", a, b) < 0 ? NULL : path;
}

static char *default_state(bool user)
{
	const char *state = getenv("XDG_STATE_HOME");

	if (!user)
		return strdup("/var/lib/partita");
	return state && *state == '/' ? join(state, "partita")
				      : join(getenv("HOME"), ".local/state/partita");
}

static char *default_run(bool user, const char *state)
{
	const char *run = getenv("XDG_RUNTIME_DIR");

	if (!user)
		return strdup("/run/partita");
	return run && *run == '/' ? join(run, "partita") : join(state, "run");
}

/* Unless an option named it. */
static int find_program(const char *name, const char *built, char **program, struct error *err)
{
	char path[PATH_MAX];
	int r = *program ? 0 : program_find(name, built, path, err);

	if (r == 0 && !*program)
		*program = strdup(path);
	return r < 0 || *program ? r : error_set(err, -ENOMEM, "no memory");
}

/* Where we are among the control groups, if systemd says that all below is ours. */
static char *own_cgroup(void)
{
	_cleanup_fclose_ FILE *file = fopen("/proc/self/cgroup", "re");
	char line[PATH_MAX], path[PATH_MAX + 32], delegated[4] = "";

	while (file && fgets(line, sizeof(line), file)) {
		line[strcspn(line, "\n")] = 0;
		if (strncmp(line, "0::/", 4))
			continue;
		snprintf(path, sizeof(path), "/sys/fs/cgroup%s", line + 3);
		if (getxattr(path, "user.delegate", delegated, 1) == 1 && *delegated == '1')
			return strdup(path);
	}
	return NULL;
}

static int complete_options(struct options *o, struct error *err)
{
	bool user = o->daemon.user;
	int r;

	if (!o->state)
		o->state = default_state(user);
	if (o->state && !o->run)
		o->run = default_run(user, o->state);
	if (!o->state || !o->run)
		return error_set(err, -EINVAL,
				 "there is no home folder; give --state and --run, absolute paths");
	if (*o->state != '/' || *o->run != '/')
		return error_set(err, -EINVAL, "--state and --run must be absolute paths");
	if (!o->socket)
		o->socket = join(o->run, "partitad.sock");
	/* Others reach the socket, and nobody the machines beside it. */
	o->machines = join(o->run, "machines");
	if (mkdir(o->run, user ? 0700 : 0755) < 0 && errno != EEXIST)
		return error_errno(err, -errno, "cannot make \"%s\"", o->run);
	r = find_program("partita-worker", "../worker", &o->worker, err);
	if (r == 0)
		r = find_program("partita-keeper", "../daemon", &o->keeper, err);
	if (r < 0)
		return r;
	/* Without these there are no networks. */
	(void)find_program("partita-switchd", "../net", &o->switchd, NULL);
	(void)find_program("partita-natd", "../net", &o->natd, NULL);
	/* Root needs nobody; and in a user's own service machines run as the user. */
	if (!o->privd && !user && geteuid() && !access(PRIVD_SOCKET, F_OK))
		o->privd = strdup(PRIVD_SOCKET);
	if (!o->cgroup)
		o->cgroup = own_cgroup();
	o->daemon.state_folder = o->state;
	o->daemon.run_folder = o->machines;
	o->daemon.worker = o->worker;
	o->daemon.keeper = o->keeper;
	o->daemon.switchd = o->switchd;
	o->daemon.natd = o->natd;
	o->daemon.network_folder = o->run;
	o->daemon.privd = o->privd;
	o->daemon.cgroup = o->cgroup;
	o->door = (struct door_options){ o->socket, o->state };
	return 0;
}

/* 0 to go on; 1 to end well, -1 to end with a usage error. */
static int parse_options(int argc, char **argv, struct options *o)
{
	static const struct option options[] = {
		{ "user", no_argument, NULL, 'u' },
		{ "state", required_argument, NULL, 's' },
		{ "run", required_argument, NULL, 'r' },
		{ "socket", required_argument, NULL, 'S' },
		{ "worker", required_argument, NULL, 'w' },
		{ "keeper", required_argument, NULL, 'k' },
		{ "cgroup", required_argument, NULL, 'c' },
		{ "privd", required_argument, NULL, 'p' },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },
		{ 0 },
	};
	const struct {
		int letter;
		char **place;
	} texts[] = { { 's', &o->state },  { 'r', &o->run },    { 'S', &o->socket },
		      { 'w', &o->worker }, { 'k', &o->keeper }, { 'c', &o->cgroup },
		      { 'p', &o->privd } };
	int c;

	while ((c = getopt_long(argc, argv, "h", options, NULL)) >= 0) {
		size_t i = 0;

		while (i < ARRAY_SIZE(texts) && texts[i].letter != c)
			i++;
		if (i < ARRAY_SIZE(texts)) {
			free(*texts[i].place);
			*texts[i].place = strdup(optarg);
		} else if (c == 'u') {
			o->daemon.user = true;
		} else if (c == 'V') {
			puts("partitad " PARTITA_VERSION);
			return 1;
		} else {
			fputs(usage, c == 'h' ? stdout : stderr);
			return c == 'h' ? 1 : -1;
		}
	}
	if (optind == argc)
		return 0;
	fputs(usage, stderr);
	return -1;
}

static void options_deinit(struct options *o)
{
	free(o->state);
	free(o->run);
	free(o->socket);
	free(o->machines);
	free(o->worker);
	free(o->keeper);
	free(o->switchd);
	free(o->natd);
	free(o->privd);
	free(o->cgroup);
}

/* --- running --- */

static void on_down(void *context)
{
	struct program *p = context;

	log_line("all machines have stopped");
	loop_stop(p->loop);
}

static void on_signal(struct loop_watch *w, uint32_t events)
{
	struct program *p = container_of(w, struct program, signals);
	struct signalfd_siginfo info;

	(void)events;
	if (read(w->fd, &info, sizeof(info)) != sizeof(info))
		return;
	if (info.ssi_signo == SIGPWR)
		daemon_shut_down(p->daemon, p->daemon->host.stop_deadline, on_down, p);
	else
		loop_stop(p->loop);
}

/* As many as we may have, but no more than are of use. */
static void raise_descriptors(void)
{
	struct rlimit l;

	if (getrlimit(RLIMIT_NOFILE, &l) < 0)
		return;
	l.rlim_cur = MIN(l.rlim_max, DESCRIPTORS);
	setrlimit(RLIMIT_NOFILE, &l);
}

static int open_doors(struct program *p, const struct door_options *o, struct error *err)
{
	int r = 0;

	for (size_t i = 0; doors[i] && i < DOORS_MAX && r == 0; i++) {
		r = doors[i]->begin(p->daemon, o, &p->doors[i], err);
		if (r < 0)
			error_prefix(err, "%s", doors[i]->name);
		else
			p->door_count++;
	}
	return r;
}

static int program_begin(struct program *p, const struct options *o, struct error *err)
{
	int r = loop_new(0, &p->loop, err);

	if (r == 0)
		r = loop_watch_signals(p->loop, &p->signals, SIGPWR, on_signal, err);
	if (r == 0)
		r = daemon_new(p->loop, &o->daemon, &p->daemon, err);
	return r == 0 ? open_doors(p, &o->door, err) : r;
}

static void program_end(struct program *p)
{
	while (p->door_count) {
		p->door_count--;
		doors[p->door_count]->end(p->doors[p->door_count]);
	}
	daemon_free(p->daemon);
	if (p->signals.loop) {
		int fd = p->signals.fd;

		loop_unwatch(&p->signals);
		close(fd);
	}
	loop_free(p->loop);
}

static int program_run(const struct options *o)
{
	struct program p = { .signals.fd = -1 };
	struct error err = { 0 };
	int r = program_begin(&p, o, &err);

	if (r == 0) {
		log_line("version " PARTITA_VERSION ", %u machines, at %s", p.daemon->vm_count,
			 o->socket);
		r = loop_run(p.loop);
		if (r < 0)
			error_errno(&err, r, "the event loop failed");
	}
	if (r < 0)
		log_line("%s", err.message);
	program_end(&p);
	return r < 0 ? 1 : 0;
}

int main(int argc, char **argv)
{
	struct options o = { 0 };
	struct error err = { 0 };
	int r = parse_options(argc, argv, &o);

	log_init("partitad", NULL);
	umask(077);
	if (r == 0) {
		raise_descriptors();
		r = complete_options(&o, &err);
		/* Workers are of our group, if not of our user: they find parents of images. */
		umask(o.privd ? 027 : 077);
		if (r < 0)
			log_line("%s", err.message);
		else
			r = program_run(&o);
	} else {
		r = r < 0 ? 2 : 0;
	}
	options_deinit(&o);
	return r < 0 ? 1 : r;
}
