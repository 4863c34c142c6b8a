// SPDX-License-Identifier: MIT
/*
 * partita-privd: does for the host's management service, which is no longer root, what only root
 * may. Two processes: this one reads requests, judges them and opens files, in a filter of system
 * calls; the other, the hands (hands.h), starts workers and asks PAM. Each keeps only the
 * capabilities that it needs. Both end together.
 */
#include "lib/cleanup.h"
#include "lib/log.h"
#include "lib/program.h"
#include "privd/config.h"
#include "privd/hands.h"
#include "privd/server.h"
#include "privd/spawn.h"

#include <assert.h>
#include <errno.h>
#include <getopt.h>
#include <linux/capability.h>
#include <pwd.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>

#define CONFIG       "/etc/partita/privd.conf"
#define LISTEN_FIRST 3 /* sd_listen_fds(3) */
#define BACKLOG      16
#define CALLS_MAX    128
#define RULES_MAX    32

static const char usage[] =
	"usage: partita-privd [--socket PATH] [--service USER] [--config FILE]\n"
	"                     [--worker PROGRAM] [--keeper PROGRAM] [--no-sandbox]\n"
	"\n"
	"Does for the management service what only root may: starts workers, opens images and\n"
	"disks, asks PAM. systemd starts it, with its socket.\n"
	"\n"
	"  --socket PATH      listen here; default: the socket that systemd passed\n"
	"  --service USER     who may ask; default partita\n"
	"  --config FILE      what files may be opened; default " CONFIG "\n"
	"  --worker PROGRAM   partita-worker; default: beside this program\n"
	"  --keeper PROGRAM   partita-keeper; likewise\n"
	"  --no-sandbox       without the system-call filter (for debuggers)\n"
	"  --help, --version\n";

static const struct privd_group *const groups[] = { &privd_machine, &privd_net, &privd_storage,
						    NULL };

struct options {
	const char *socket, *service, *config, *worker, *keeper;
	bool no_sandbox;
};

/* --- options --- */

/* 0 to go on; 1 to end well, -1 to end with a usage error. */
static int parse_options(int argc, char **argv, struct options *o)
{
	static const struct option options[] = {
		{ "socket", required_argument, NULL, 's' },
		{ "service", required_argument, NULL, 'u' },
		{ "config", required_argument, NULL, 'c' },
		{ "worker", required_argument, NULL, 'w' },
		{ "keeper", required_argument, NULL, 'k' },
		{ "no-sandbox", no_argument, NULL, 'n' },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },
		{ 0 },
	};
	const struct {
		int letter;
		const char **place;
	} texts[] = { { 's', &o->socket },
		      { 'u', &o->service },
		      { 'c', &o->config },
		      { 'w', &o->worker },
		      { 'k', &o->keeper } };
	int c;

	while ((c = getopt_long(argc, argv, "h", options, NULL)) >= 0) {
		size_t i = 0;

		while (i < ARRAY_SIZE(texts) && texts[i].letter != c)
			i++;
		if (i < ARRAY_SIZE(texts)) {
			*texts[i].place = optarg;
		} else if (c == 'n') {
			o->no_sandbox = true;
		} else if (c == 'V') {
			puts("partita-privd " PARTITA_VERSION);
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

static int find_program(const char *named, const char *name, const char *built, char **ret,
			struct error *err)
{
	char path[PATH_MAX];
	int r = 0;

	/* From the root on: a keeper leaves our folder. */
	if (named && !realpath(named, path))
		r = error_errno(err, -errno, "cannot find \"%.300s\"", named);
	else if (!named)
		r = program_find(name, built, path, err);
	if (r < 0)
		return r;
	*ret = strdup(path);
	return *ret ? 0 : error_set(err, -ENOMEM, "out of memory");
}

static int configure(const struct options *o, struct privd_config *c, struct error *err)
{
	const char *service = o->service ? o->service : "partita";
	const struct passwd *user = getpwnam(service);
	int r;

	if (!user)
		return error_set(err, -ENOENT,
				 "there is no user \"%.60s\"; systemd-sysusers makes it, or name "
				 "another with --service",
				 service);
	c->service_uid = user->pw_uid;
	c->service_gid = user->pw_gid;
	if (!geteuid()) {
		c->first_uid = WORKER_UID_FIRST;
		c->uid_count = WORKER_UID_COUNT;
	}
	r = config_read(c, o->config ? o->config : CONFIG, err);
	if (r >= 0)
		r = find_program(o->worker, "partita-worker", "../worker", &c->worker, err);
	if (r >= 0)
		r = find_program(o->keeper, "partita-keeper", "../daemon", &c->keeper, err);
	return r;
}

/* --- rights --- */

/* All others are gone, for what is started from here too. */
static int capabilities_keep(uint64_t keep, struct error *err)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2] = { 0 };

	if (geteuid())
		return 0;
	for (unsigned long cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
		if (!(keep >> cap & 1) && prctl(PR_CAPBSET_READ, cap, 0, 0, 0) > 0 &&
		    prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
			return error_errno(err, -errno, "cannot give up capability %lu", cap);
	if (syscall(SYS_capget, &header, data) < 0)
		return error_errno(err, -errno, "cannot read the capabilities");
	for (unsigned i = 0; i < 2; i++) {
		data[i].permitted &= (uint32_t)(keep >> (32 * i));
		data[i].effective = data[i].permitted;
		data[i].inheritable = 0;
	}
	if (syscall(SYS_capset, &header, data) < 0)
		return error_errno(err, -errno, "cannot give up capabilities");
	return 0;
}

static uint64_t capabilities_of_groups(void)
{
	uint64_t all = 0;

	for (const struct privd_group *const *g = groups; *g; g++)
		all |= (*g)->capabilities;
	return all;
}

static void sandbox_add(struct sandbox *all, int *calls, struct sandbox_rule *rules,
			const struct sandbox *one)
{
	assert(all->call_count + one->call_count <= CALLS_MAX);
	assert(all->rule_count + one->rule_count <= RULES_MAX);
	memcpy(calls + all->call_count, one->calls, one->call_count * sizeof(*calls));
	all->call_count += one->call_count;
	if (one->rule_count)
		memcpy(rules + all->rule_count, one->rules, one->rule_count * sizeof(*rules));
	all->rule_count += one->rule_count;
}

static int filter_enter(struct error *err)
{
	struct sandbox_rule rules[RULES_MAX];
	int calls[CALLS_MAX];
	struct sandbox all = { calls, 0, rules, 0 };

	sandbox_add(&all, calls, rules, &privd_server_sandbox);
	for (const struct privd_group *const *g = groups; *g; g++)
		sandbox_add(&all, calls, rules, &(*g)->sandbox);
	return sandbox_enter(&all, err);
}

/* --- running --- */

/* The first that systemd passed, or one at `path`. */
static int listener_open(const char *path, struct error *err)
{
	const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS");
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	_cleanup_close_ int fd = -1;

	if (!path && pid && count && atol(pid) == getpid() && atoi(count) == 1)
		return LISTEN_FIRST;
	if (!path)
		return error_set(err, -EINVAL, "systemd passed no socket; give one with --socket");
	if (strlen(path) >= sizeof(address.sun_path))
		return error_set(err, -ENAMETOOLONG, "the path of the socket is too long");
	strcpy(address.sun_path, path);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || (unlink(path) < 0 && errno != ENOENT) ||
	    bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 ||
	    listen(fd, BACKLOG) < 0)
		return error_errno(err, -errno, "cannot listen at \"%.200s\"", path);
	return steal_fd(&fd);
}

/* Both halves: the hands do not come back from here. */
static int hands_start(struct privd_config *c, int listener, struct error *err)
{
	int pair[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return error_errno(err, -errno, "cannot make a socket");
	pid = fork();
	if (pid < 0)
		return error_errno(err, -errno, "cannot start the other half");
	if (!pid) {
		struct error why = { 0 };

		close(pair[0]);
		close(listener);
		if (capabilities_keep(hands_capabilities(), &why) < 0) {
			log_line("%s", why.message);
			_exit(1);
		}
		_exit(hands_run(c, pair[1]));
	}
	close(pair[1]);
	c->hands = pair[0];
	return 0;
}

static int begin(struct privd_config *c, const struct options *o, struct loop *loop, int listener,
		 struct privd_server **ret, struct error *err)
{
	int r = 0;

	for (const struct privd_group *const *g = groups; *g && r >= 0; g++)
		if ((*g)->begin)
			r = (*g)->begin(c, loop, err);
	if (r >= 0)
		r = privd_server_new(loop, listener, c, groups, ret, err);
	if (r >= 0)
		r = capabilities_keep(capabilities_of_groups(), err);
	if (r >= 0 && !SANDBOX_SANITIZED && !o->no_sandbox)
		r = filter_enter(err);
	return r;
}

static int serve(struct privd_config *c, const struct options *o, struct error *err)
{
	struct privd_server *server = NULL;
	struct loop *loop = NULL;
	int listener = listener_open(o->socket, err), r;

	if (listener < 0)
		return listener;
	r = hands_start(c, listener, err);
	if (r >= 0)
		r = loop_new(0, &loop, err);
	if (r >= 0)
		r = begin(c, o, loop, listener, &server, err);
	if (r >= 0) {
		log_line("version " PARTITA_VERSION ", for user %u, %u folders, %u disks",
			 c->service_uid, c->storage_count, c->device_count);
		r = loop_run(loop);
		error_set(err, -EPIPE, "the half that starts workers has ended");
	}
	privd_server_free(server);
	loop_free(loop);
	return r < 0 ? r : -EPIPE;
}

int main(int argc, char **argv)
{
	struct privd_config c = { .hands = -1 };
	struct options o = { 0 };
	struct error err = { 0 };
	int r = parse_options(argc, argv, &o);

	if (r)
		return r < 0 ? 2 : 0;
	log_init("partita-privd", NULL);
	umask(077);
	signal(SIGPIPE, SIG_IGN);
	r = configure(&o, &c, &err);
	if (r >= 0)
		r = serve(&c, &o, &err);
	if (r < 0)
		log_line("%s", err.message);
	config_deinit(&c);
	return r < 0 ? 1 : 0;
}
