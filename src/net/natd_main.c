// SPDX-License-Identifier: MIT
/*
 * partita-natd: the process of the network behind one NAT switch. It has nothing of the switch but
 * a port, and no rights but those to make sockets, and with a tap not even all of these. It gives
 * up all capabilities and shuts the door behind itself before the first frame.
 */
#include "control/server.h"
#include "lib/cleanup.h"
#include "lib/log.h"
#include "lib/program.h"
#include "lib/sandbox.h"
#include "lib/unix_socket.h"
#include "net/natd.h"

#include <errno.h>
#include <getopt.h>
#include <linux/sockios.h>
#include <seccomp.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#define DESCRIPTION_LIMIT (64 * KIB)

static const char usage[] =
	"usage: partita-natd --description-fd N [--check] [--no-sandbox]\n"
	"\n"
	"Runs the network behind one NAT switch, described by JSON, until it gets SIGTERM. It is\n"
	"started by the management service; see partita-natd(8) for the description and the\n"
	"control socket.\n"
	"\n"
	"  --description-fd N   descriptor that the description is read from (0)\n"
	"  --check              check the description and stop\n"
	"  --no-sandbox         leave out the system-call filter (for debuggers)\n"
	"  --help, --version\n";

struct program {
	struct loop *loop;
	struct nat *nat;
	struct control_server *server;
	struct command_family family;
	struct loop_watch signals;
	struct nat_description description;
	bool stopped, failed;
};

struct options {
	int fd;
	bool check, sandbox;
};

/* ---- the box ---- */

static const int allowed[] = {
	/* the event loop, the control socket */
	SCMP_SYS(epoll_wait),
	SCMP_SYS(epoll_pwait),
	SCMP_SYS(epoll_ctl),
	SCMP_SYS(restart_syscall),
	SCMP_SYS(accept4),
	SCMP_SYS(accept),
	SCMP_SYS(sendmsg),
	SCMP_SYS(recvmsg),
	SCMP_SYS(close),
	SCMP_SYS(fcntl),
	SCMP_SYS(fstat),
	SCMP_SYS(newfstatat),
	SCMP_SYS(pread64),
	SCMP_SYS(futex),
	/* machines' connections, questions to name servers */
	SCMP_SYS(connect),
	SCMP_SYS(bind),
	SCMP_SYS(listen),
	SCMP_SYS(sendto),
	SCMP_SYS(recvfrom),
	SCMP_SYS(shutdown),
	SCMP_SYS(getsockname),
	SCMP_SYS(getpeername),
	SCMP_SYS(getsockopt),
	SCMP_SYS(setsockopt),
	SCMP_SYS(poll),
	SCMP_SYS(gettimeofday),
};

static const struct sandbox_rule rules[] = {
	/* AF_UNIX: libslirp's way to the DNS forwarder */
	{ SCMP_SYS(socket), 0, UINT64_MAX, AF_UNIX },
	{ SCMP_SYS(socket), 0, UINT64_MAX, AF_INET },
	{ SCMP_SYS(socket), 0, UINT64_MAX, AF_INET6 },
	{ SCMP_SYS(ioctl), 1, UINT32_MAX, FIONREAD },
	{ SCMP_SYS(ioctl), 1, UINT32_MAX, FIONBIO },
	{ SCMP_SYS(prlimit64), 2, UINT64_MAX, 0 }, /* to ask */
};

static int box_enter(struct error *err)
{
	const struct sandbox s = { allowed, ARRAY_SIZE(allowed), rules, ARRAY_SIZE(rules) };
	int r = sandbox_drop_capabilities(err);

	return r < 0 ? r : sandbox_enter(&s, err);
}

/* ---- the program ---- */

static int read_description(int fd, struct nat_description *ret, struct error *err)
{
	_cleanup_free_ char *text = NULL;
	size_t size;
	int r = program_description(fd, DESCRIPTION_LIMIT, &text, &size, err);

	if (r >= 0)
		r = nat_description_parse(text, size, ret, err);
	return r < 0 ? error_prefix(err, "NAT description") : 0;
}

static void on_signal(struct loop_watch *w, uint32_t events)
{
	(void)events;
	container_of(w, struct program, signals)->stopped = true;
}

static const struct command_family *families(void *context, unsigned *ret_count)
{
	struct program *p = context;

	*ret_count = 1;
	return &p->family;
}

/* The switch has ended: whoever controls this plugs it into the next one. */
static void on_ended(void *context, int why)
{
	struct program *p = context;

	log_line("the port of the switch has ended: %s", strerror(-why));
	if (!p->server) {
		p->stopped = true;
		return;
	}
	control_server_tell(p->server, json_pack("{s:s}", "event", "port-ended"), false);
}

static void on_link(void *context, bool up, const char *words)
{
	struct program *p = context;

	if (!up)
		log_line("the way out is down: %s", words);
	if (p->server)
		control_server_tell(p->server,
				    json_pack("{s:s, s:b, s:s}", "event", "link", "up", up, "words",
					      up ? "" : words),
				    false);
}

static int control_open(struct program *p, struct error *err)
{
	const struct nat_control *d = &p->description.control;
	struct control_options o = { .loop = p->loop,
				     .listener = -1,
				     .descriptor = (int)d->descriptor,
				     .families = families,
				     .context = p };

	p->family = (struct command_family){ .types = natd_commands, .context = p->nat };
	if (d->descriptor < 0 && d->listener < 0)
		return 0;
	if (d->listener >= 0) {
		o.listener = unix_listener_take((int)d->listener, "control.listener", err);
		if (o.listener < 0)
			return o.listener;
	}
	return control_server_new(&o, &p->server, err);
}

static int program_begin(struct program *p, const struct options *o, struct error *err)
{
	struct nat_settings s;
	int r = loop_new(0, &p->loop, err);

	if (!r)
		r = loop_watch_signals(p->loop, &p->signals, 0, on_signal, err);
	if (!r)
		r = natd_settings(&p->description, &s, err);
	if (r < 0)
		return r;
	s.loop = p->loop;
	s.ended = on_ended;
	s.link = on_link;
	s.context = p;
	r = nat_new(&s, &p->nat, err);
	if (!r)
		r = control_open(p, err);
	if (!r)
		r = natd_attach(&p->description, p->nat, err);
	if (!r && o->sandbox && !SANDBOX_SANITIZED)
		r = box_enter(err);
	return r;
}

static void program_run(struct program *p)
{
	while (!p->stopped) {
		int timeout_ms = -1;

		nat_before(p->nat, &timeout_ms);
		if (loop_once(p->loop, timeout_ms) < 0)
			break;
		nat_after(p->nat);
	}
}

static int program(const struct options *o)
{
	struct program p = { .signals = { .fd = -1 } };
	struct error err = { 0 };
	int r = read_description(o->fd, &p.description, &err);
	struct nat_settings s;

	if (!r && o->check) {
		p.description.descriptors.dns = -1;
		r = natd_settings(&p.description, &s, &err);
	} else if (!r) {
		log_init("partita-natd", p.description.name);
		r = program_begin(&p, o, &err);
		if (!r)
			program_run(&p);
	}
	if (r < 0)
		log_line("%s", err.message);
	control_server_free(p.server);
	nat_free(p.nat);
	if (p.loop) {
		close_p(&p.signals.fd);
		loop_free(p.loop);
	}
	nat_description_deinit(&p.description);
	return r < 0;
}

int main(int argc, char **argv)
{
	static const struct option table[] = {
		{ "description-fd", required_argument, NULL, 'f' },
		{ "check", no_argument, NULL, 'c' },
		{ "no-sandbox", no_argument, NULL, 's' },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'v' },
		{ 0 },
	};
	struct options o = { .sandbox = true };
	int c;

	log_init("partita-natd", NULL);
	while ((c = getopt_long(argc, argv, "", table, NULL)) >= 0) {
		if (c == 'h')
			return fputs(usage, stdout) < 0;
		if (c == 'v')
			return puts("partita-natd " PARTITA_VERSION) < 0;
		if (c == 'f')
			o.fd = atoi(optarg);
		else if (c == 'c')
			o.check = true;
		else if (c == 's')
			o.sandbox = false;
		else
			return 2;
	}
	if (optind < argc) {
		fputs(usage, stderr);
		return 2;
	}
	return program(&o);
}
