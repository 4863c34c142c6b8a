// SPDX-License-Identifier: MIT
/*
 * partita-switchd: the process of one virtual switch. It reads its description, gives up all
 * capabilities, shuts the door behind itself, and moves frames until it is told to end. Whatever it
 * works with from then on comes as descriptors through its control socket; it opens nothing.
 */
#include "control/server.h"
#include "lib/cleanup.h"
#include "lib/log.h"
#include "lib/program.h"
#include "lib/sandbox.h"
#include "lib/unix_socket.h"
#include "net/switchd.h"

#include <errno.h>
#include <getopt.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#define DESCRIPTION_LIMIT MIB

static const char usage[] =
	"usage: partita-switchd --description-fd N [--check] [--no-sandbox]\n"
	"\n"
	"Runs one virtual switch, described by JSON, until it gets SIGTERM. It is started by the\n"
	"management service; see partita-switchd(8) for the description and the control socket.\n"
	"\n"
	"  --description-fd N   descriptor that the description is read from (0)\n"
	"  --check              check the description and stop\n"
	"  --no-sandbox         leave out the system-call filter (for debuggers)\n"
	"  --help, --version\n";

struct program {
	struct loop *loop;
	struct switchd *daemon;
	struct control_server *server;
	struct command_family family;
	struct loop_watch signals;
	struct switch_description description;
};

struct options {
	int fd;
	bool check, sandbox;
};

/* --- the box --- */

static const int allowed[] = {
	/* the event loop */
	SCMP_SYS(epoll_wait),
	SCMP_SYS(epoll_pwait),
	SCMP_SYS(epoll_ctl),
	SCMP_SYS(restart_syscall),
	/* control socket, wake-ups, frames of packet sockets */
	SCMP_SYS(accept4),
	SCMP_SYS(sendmsg),
	SCMP_SYS(recvmsg),
	SCMP_SYS(sendmmsg),
	SCMP_SYS(recvmmsg),
	SCMP_SYS(recvfrom),
	SCMP_SYS(close),
	SCMP_SYS(fcntl),
	SCMP_SYS(fstat),
	SCMP_SYS(newfstatat),
	SCMP_SYS(pread64),
	/* ports are made here */
	SCMP_SYS(memfd_create),
	SCMP_SYS(ftruncate),
	SCMP_SYS(socketpair),
	/* what an uplink is, and its state */
	SCMP_SYS(getsockname),
	SCMP_SYS(getsockopt),
	SCMP_SYS(futex),
};

static const struct sandbox_rule rules[] = {
	/* to whom it is connected, and nobody else: no address */
	{ SCMP_SYS(sendto), 4, UINT64_MAX, 0 },
	{ SCMP_SYS(socket), 0, UINT64_MAX, AF_NETLINK },
	/* of a socket that it could only have made so; an address of 12 bytes is netlink's */
	{ SCMP_SYS(bind), 2, UINT64_MAX, 12 },
	{ SCMP_SYS(setsockopt), 1, UINT64_MAX, SOL_PACKET },
	{ SCMP_SYS(ioctl), 1, UINT32_MAX, TUNGETIFF },
	{ SCMP_SYS(ioctl), 1, UINT32_MAX, TUNSETVNETHDRSZ },
	{ SCMP_SYS(ioctl), 1, UINT32_MAX, TUNSETOFFLOAD },
	{ SCMP_SYS(ioctl), 1, UINT32_MAX, SIOCGIFINDEX },
	{ SCMP_SYS(ioctl), 1, UINT32_MAX, SIOCGIFNAME },
};

static int box_enter(struct error *err)
{
	const struct sandbox s = { allowed, ARRAY_SIZE(allowed), rules, ARRAY_SIZE(rules) };
	int r = sandbox_drop_capabilities(err);

	return r < 0 ? r : sandbox_enter(&s, err);
}

/* --- the program --- */

static int read_description(int fd, struct switch_description *ret, struct error *err)
{
	_cleanup_free_ char *text = NULL;
	size_t size;
	int r = program_description(fd, DESCRIPTION_LIMIT, &text, &size, err);

	if (r >= 0)
		r = switch_description_parse(text, size, ret, err);
	return r < 0 ? error_prefix(err, "switch description") : 0;
}

static void on_signal(struct loop_watch *w, uint32_t events)
{
	struct program *p = container_of(w, struct program, signals);

	(void)events;
	loop_stop(p->loop);
}

static const struct command_family *families(void *context, unsigned *ret_count)
{
	struct program *p = context;

	*ret_count = 1;
	return &p->family;
}

static void on_tell(void *context, json_t *event, bool may_miss)
{
	struct program *p = context;

	control_server_tell(p->server, event, may_miss);
}

static int control_open(struct program *p, struct error *err)
{
	const struct switch_control *c = &p->description.control;
	struct control_options o = {
		.loop = p->loop,
		.listener = -1,
		.descriptor = (int)c->descriptor,
		.families = families,
		.context = p,
	};
	int r;

	if (c->listener < 0 && c->descriptor < 0)
		return error_set(err, -EINVAL,
				 "control: without a descriptor or listener nothing can be "
				 "plugged into the switch");
	if (c->listener >= 0) {
		o.listener = unix_listener_take((int)c->listener, "control.listener", err);
		if (o.listener < 0)
			return o.listener;
	}
	p->family = switchd_family(p->daemon);
	r = control_server_new(&o, &p->server, err);
	if (r >= 0)
		switchd_tell_to(p->daemon, on_tell, p);
	return r;
}

static int program_setup(struct program *p, const struct options *o, struct error *err)
{
	int r = loop_new(0, &p->loop, err);

	if (r >= 0)
		r = loop_watch_signals(p->loop, &p->signals, 0, on_signal, err);
	if (r >= 0)
		r = switchd_new(p->loop, &p->description, &p->daemon, err);
	if (r >= 0)
		r = control_open(p, err);
	if (r >= 0 && o->sandbox && !SANDBOX_SANITIZED)
		r = box_enter(err);
	return r;
}

static int program_run(const struct options *o)
{
	struct program p = { 0 };
	struct error err = { 0 };
	static char instance[512];
	int r;

	log_init("partita-switchd", NULL);
	r = read_description(o->fd, &p.description, &err);
	if (p.description.name) {
		snprintf(instance, sizeof(instance), "switch=%s", p.description.name);
		log_init("partita-switchd", instance);
	}
	p.signals.fd = -1;
	if (r >= 0 && !o->check)
		r = program_setup(&p, o, &err);
	if (r >= 0 && !o->check) {
		r = loop_run(p.loop);
		if (r < 0)
			error_errno(&err, r, "the event loop failed");
	}
	if (r < 0)
		log_line("%s", err.message);
	else if (o->check)
		puts("the description is valid");
	if (p.daemon)
		switchd_tell_to(p.daemon, NULL, NULL);
	control_server_free(p.server);
	switchd_free(p.daemon);
	loop_unwatch(&p.signals);
	loop_free(p.loop);
	switch_description_deinit(&p.description);
	return r < 0;
}

int main(int argc, char **argv)
{
	static const struct option long_options[] = {
		{ "description-fd", required_argument, NULL, 'f' },
		{ "check", no_argument, NULL, 'c' },
		{ "no-sandbox", no_argument, NULL, 'n' },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },
		{ 0 },
	};
	struct options o = { .sandbox = true };
	int c;

	while ((c = getopt_long(argc, argv, "h", long_options, NULL)) >= 0) {
		switch (c) {
		case 'f':
			o.fd = atoi(optarg);
			break;
		case 'c':
			o.check = true;
			break;
		case 'n':
			o.sandbox = false;
			break;
		case 'h':
			fputs(usage, stdout);
			return 0;
		case 'V':
			puts("partita-switchd " PARTITA_VERSION);
			return 0;
		default:
			fputs(usage, stderr);
			return 2;
		}
	}
	if (optind < argc) {
		fputs(usage, stderr);
		return 2;
	}
	return program_run(&o);
}
