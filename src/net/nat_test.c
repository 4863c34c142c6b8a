// SPDX-License-Identifier: MIT
/*
 * partita-natd, in its box, between three network namespaces that the test makes: a guest with
 * Debian's clients, behind a tap; the host, where it runs; and the world, which knows no way to the
 * guest's network. The test is the switch: it carries frames between the tap and a port.
 */
#include "event/loop.h"
#include "net/netns_test.h"
#include "net/uplink_wire.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <cmocka.h>

static const char *natd, *switchd;

struct lab {
	struct loop *loop;
	pid_t guest, world, server, natd, switchd;
	struct net_uplink *tap;
	struct net_port *port;
	struct loop_watch tap_watch, port_watch;
	int control, switch_control, dns;
	char folder[64], out[4096];
};

/* ---- the world ---- */

static void serve_tcp(int listener)
{
	struct sockaddr_in from;
	socklen_t size = sizeof(from);
	int s = accept(listener, (struct sockaddr *)&from, &size);

	dprintf(s, "hello %s\n", inet_ntoa(from.sin_addr));
	shutdown(s, SHUT_WR);
	close(s);
}

/* Any name is 192.0.2.99. */
static void serve_dns(int s)
{
	static const uint8_t record[] = "\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\xc0\0\2\x63";
	struct sockaddr_in from;
	socklen_t size = sizeof(from);
	uint8_t m[600] = { 0 };
	ssize_t n = recvfrom(s, m, 512, 0, (struct sockaddr *)&from, &size);
	size_t end = 12 + strlen((char *)m + 12) + 5;

	if (n < 17)
		return;
	m[2] = 0x81;
	m[3] = 0x80;
	memset(m + 6, 0, 6);
	m[7] = 1;
	memcpy(m + end, record, 16);
	sendto(s, m, end + 16, 0, (struct sockaddr *)&from, size);
}

static void world_run(void)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(80) };
	int tcp = socket(AF_INET, SOCK_STREAM, 0), udp = socket(AF_INET, SOCK_DGRAM, 0);
	struct pollfd p[] = { { tcp, POLLIN, 0 }, { udp, POLLIN, 0 } };
	int one = 1;

	setsockopt(tcp, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(tcp, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(tcp, 8) < 0)
		_exit(1);
	a.sin_port = htons(53);
	if (bind(udp, (struct sockaddr *)&a, sizeof(a)) < 0)
		_exit(1);
	for (;;) {
		poll(p, 2, -1);
		if (p[0].revents)
			serve_tcp(tcp);
		if (p[1].revents)
			serve_dns(udp);
	}
}

static void enter(pid_t pid)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/ns/net", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_int_equal(setns(fd, CLONE_NEWNET), 0);
	close(fd);
}

/* ---- the switch ---- */

static void on_tap(struct loop_watch *w, uint32_t events)
{
	struct lab *l = container_of(w, struct lab, tap_watch);
	struct net_frame f;
	bool more = true;

	(void)events;
	while (more) {
		while (l->tap->ops->receive(l->tap, &f) == 1) {
			struct iovec iov = { (void *)f.data, f.size };

			(void)!net_port_send(l->port, &f.offload, &iov, 1, f.size);
		}
		more = !l->tap->ops->arm(l->tap);
		l->tap->ops->release(l->tap);
	}
	net_port_flush(l->port);
}

static void on_port(struct loop_watch *w, uint32_t events)
{
	struct lab *l = container_of(w, struct lab, port_watch);
	struct net_frame f;

	(void)events;
	do {
		while (net_port_receive(l->port, &f) == 1) {
			struct iovec iov = { (void *)f.data, f.size };

			(void)!l->tap->ops->send(l->tap, &f.offload, &iov, 1, f.size);
		}
		net_port_release(l->port);
	} while (!net_port_arm(l->port));
}

static void on_link(void *context, bool up, const char *words)
{
	(void)context;
	(void)up;
	(void)words;
}

/* Runs a command in the guest (or where `pid` is) and shows what it says; its exit status. */
static int in(struct lab *l, pid_t pid, const char *format, ...)
{
	char command[1024], where[16];
	int pipes[2], status = -1;
	size_t n = 0;
	va_list args;
	pid_t child;

	va_start(args, format);
	vsnprintf(command, sizeof(command), format, args);
	va_end(args);
	snprintf(where, sizeof(where), "%d", pid);
	assert_int_equal(pipe2(pipes, O_CLOEXEC | O_NONBLOCK), 0);
	child = fork();
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(pipes[1], 1);
		dup2(pipes[1], 2);
		execlp("nsenter", "nsenter", "-t", where, "-n", "timeout", "20", "sh", "-c",
		       command, (char *)NULL);
		_exit(127);
	}
	close(pipes[1]);
	for (unsigned i = 0; i < 3000 && waitpid(child, &status, WNOHANG) == 0; i++) {
		ssize_t k = read(pipes[0], l->out + n, sizeof(l->out) - 1 - n);

		n += k > 0 ? (size_t)k : 0;
		loop_once(l->loop, 10);
	}
	for (ssize_t k; (k = read(pipes[0], l->out + n, sizeof(l->out) - 1 - n)) > 0;)
		n += (size_t)k;
	l->out[n] = '\0';
	close(pipes[0]);
	if (status)
		print_message("%s: %s\n", command, l->out);
	return status;
}

/* One command on the control socket; the answer is in l->out. Events may come before it. */
static void control(struct lab *l, const char *line)
{
	size_t n = 0;

	assert_int_equal(write(l->control, line, strlen(line)), strlen(line));
	do {
		ssize_t k = read(l->control, l->out + n, sizeof(l->out) - 1 - n);

		assert_true(k > 0);
		n += (size_t)k;
		l->out[n] = '\0';
	} while (!strstr(l->out, "\"ok\"") || l->out[n - 1] != '\n');
}

/* ---- setting up ---- */

/* `fds` are its port's; closed here. */
static void natd_run(struct lab *l, const int fds[NET_PORT_FDS], int tap, const char *more)
{
	int pair[2], text[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	assert_int_equal(pipe(text), 0);
	dprintf(text[1],
		"{\"name\": \"test\", \"address\": \"10.99.0.1/24\", \"resolvers\": "
		"[\"192.0.2.2\"], "
		"%s, \"control\": {\"descriptor\": %d}, \"descriptors\": {\"memory\": %d, "
		"\"socket\": %d, \"tap\": %d, \"dns\": %d}}",
		more, pair[1], fds[0], fds[1], tap, l->dns);
	close(text[1]);
	l->natd = fork();
	if (l->natd == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (unsigned i = 0; i < NET_PORT_FDS; i++)
			fcntl(fds[i], F_SETFD, 0);
		if (tap >= 0)
			fcntl(tap, F_SETFD, 0);
		if (l->dns >= 0)
			fcntl(l->dns, F_SETFD, 0);
		dup2(text[0], 0);
		execl(natd, natd, "--description-fd", "0", (char *)NULL);
		_exit(127);
	}
	for (unsigned i = 0; i < NET_PORT_FDS; i++)
		close(fds[i]);
	close(pair[1]);
	close(text[0]);
	l->control = pair[0];
}

static void port_begin(struct lab *l)
{
	assert_int_equal(
		loop_watch(l->loop, &l->port_watch, net_port_fd(l->port), EPOLLIN, on_port), 0);
	on_port(&l->port_watch, 0);
}

/* The test itself is the switch. */
static void natd_start(struct lab *l, int tap, const char *more)
{
	int fds[NET_PORT_FDS];
	struct error err = { 0 };

	assert_int_equal(net_port_new(NET_RING_SIZE, &l->port, &err), 0);
	net_port_fds(l->port, fds);
	natd_run(l, fds, tap, more);
	port_begin(l);
}

static void switchd_start(struct lab *l)
{
	int pair[2], text[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	assert_int_equal(pipe(text), 0);
	dprintf(text[1], "{\"name\": \"test\", \"control\": {\"descriptor\": %d}}", pair[1]);
	close(text[1]);
	l->switchd = fork();
	if (l->switchd == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(text[0], 0);
		execl(switchd, switchd, "--description-fd", "0", (char *)NULL);
		_exit(127);
	}
	close(pair[1]);
	close(text[0]);
	l->switch_control = pair[0];
}

/* What comes on the switch's control socket until `words` are there; descriptors in `fds`. */
static void switch_wait(struct lab *l, const char *words, int fds[NET_PORT_FDS])
{
	char room[CMSG_SPACE(NET_PORT_FDS * sizeof(int))];
	size_t n = 0;

	do {
		struct iovec iov = { l->out + n, sizeof(l->out) - 1 - n };
		struct msghdr m = { .msg_iov = &iov,
				    .msg_iovlen = 1,
				    .msg_control = room,
				    .msg_controllen = sizeof(room) };
		ssize_t k = recvmsg(l->switch_control, &m, MSG_CMSG_CLOEXEC);
		struct cmsghdr *c = CMSG_FIRSTHDR(&m);

		assert_true(k > 0);
		n += (size_t)k;
		l->out[n] = '\0';
		if (c && fds)
			memcpy(fds, CMSG_DATA(c), NET_PORT_FDS * sizeof(int));
	} while (!strstr(l->out, words));
}

static void port_add(struct lab *l, const char *port, int fds[NET_PORT_FDS])
{
	dprintf(l->switch_control, "{\"command\": \"port-add\", \"port\": {%s}}\n", port);
	fds[0] = fds[1] = -1;
	switch_wait(l, "\"ok\"", fds);
	if (fds[1] < 0)
		fail_msg("%s", l->out);
}

static int setup(void **state)
{
	_cleanup_close_ int here = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	struct lab *l = calloc(1, sizeof(*l));
	struct net_wire_options o = { .link = on_link };
	struct error err = { 0 };

	*state = l;
	l->dns = -1;
	l->guest = netns_child();
	l->world = netns_child();
	strcpy(l->folder, "/tmp/partita-nat-XXXXXX");
	if (l->guest < 0 || l->world < 0 || !mkdtemp(l->folder) || loop_new(0, &l->loop, &err) < 0)
		return -1;
	if (run("ip link add h0 type veth peer name w0 netns %d && ip addr add 192.0.2.1/24 dev h0 "
		"&& ip link set h0 up && nsenter -t %d -n ip addr add 192.0.2.2/24 dev w0 && "
		"nsenter -t %d -n ip link set w0 up",
		l->world, l->world, l->world))
		return -1;
	l->server = fork();
	if (l->server == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		enter(l->world);
		world_run();
	}
	enter(l->guest);
	o.loop = l->loop;
	o.fd = tap_make("eth0");
	if (net_wire_new(&o, &l->tap, &err) < 0)
		return -1;
	assert_int_equal(setns(here, CLONE_NEWNET), 0);
	return loop_watch(l->loop, &l->tap_watch, l->tap->fd, l->tap->events, on_tap);
}

static int teardown(void **state)
{
	struct lab *l = *state;

	if (l->natd > 0)
		netns_end(l->natd);
	if (l->switchd > 0) {
		netns_end(l->switchd);
		close(l->switch_control);
	}
	netns_end(l->server);
	netns_end(l->guest);
	netns_end(l->world);
	run("rm -rf %s; ip link del h0 2>/dev/null", l->folder);
	loop_unwatch(&l->tap_watch);
	loop_unwatch(&l->port_watch);
	l->tap->ops->free(l->tap);
	net_port_free(l->port);
	if (l->control > 0)
		close(l->control);
	loop_free(l->loop);
	free(l);
	return 0;
}

/* ---- what holds with both ways out ---- */

#define SCRIPT                                                                                     \
	"#!/bin/sh\\n[ $1 = bound ] || exit 0\\nip addr add $ip/24 dev eth0\\n"                    \
	"ip route add default via $router\\necho ip=$ip dns=$dns domain=$domain mtu=$mtu\\n"

/* By DHCP; the name server's address in `dns`. */
static void configure(struct lab *l, char dns[16])
{
	const char *at;

	assert_int_equal(in(l, l->guest,
			    "ip link set eth0 address 02:00:00:00:01:07 up && printf '" SCRIPT
			    "' >%s/s && chmod +x %s/s && "
			    "busybox udhcpc -q -n -f -i eth0 -x hostname:web -s %s/s 2>/dev/null",
			    l->folder, l->folder, l->folder),
			 0);
	assert_non_null(strstr(l->out, "ip=10.99.0."));
	assert_non_null(strstr(l->out, "domain=partita.internal"));
	at = strstr(l->out, "dns=");
	assert_non_null(at);
	assert_int_equal(sscanf(at, "dns=%15s", dns), 1);
}

static void check_services(struct lab *l)
{
	char dns[16];

	configure(l, dns);
	assert_int_equal(in(l, l->guest, "ping -c 1 -W 5 10.99.0.1"), 0);
	assert_int_equal(in(l, l->guest, "dig @%s +short +tries=2 +time=3 www.example.org", dns),
			 0);
	assert_string_equal(l->out, "192.0.2.99\n");
	assert_int_equal(in(l, l->guest, "dig @%s +short web.partita.internal", dns), 0);
	assert_non_null(strstr(l->out, "10.99.0."));
	control(l, "{\"command\": \"names\", \"names\": [{\"name\": \"shop\", \"mac\": "
		   "\"02:00:00:00:01:07\"}]}\n");
	assert_non_null(strstr(l->out, "true"));
	assert_int_equal(in(l, l->guest, "dig @%s +short shop.partita.internal", dns), 0);
	assert_non_null(strstr(l->out, "10.99.0."));
	/* The world sees the host. */
	assert_int_equal(in(l, l->guest, "busybox nc -w 5 192.0.2.2 80 </dev/null"), 0);
	assert_string_equal(l->out, "hello 192.0.2.1\n");
	control(l, "{\"command\": \"query\"}\n");
	assert_non_null(strstr(l->out, "\"leased\""));
	assert_non_null(strstr(l->out, "\"web\""));
}

static void test_without_rights(void **state)
{
	struct lab *l = *state;
	char more[128], dns[16];

	snprintf(more, sizeof(more), "\"folder\": \"%s\"", l->folder);
	natd_start(l, -1, more);
	check_services(l);
	/* DNS by TCP goes through libslirp to the forwarder. */
	strcpy(dns, "10.99.0.2");
	assert_int_equal(
		in(l, l->guest, "dig @%s +tcp +short +tries=1 +time=5 shop.partita.internal", dns),
		0);
	assert_non_null(strstr(l->out, "10.99.0."));
	/* The host's own services are out of reach. */
	assert_int_not_equal(in(l, l->guest, "busybox nc -w 2 10.99.0.1 22 </dev/null"), 0);
}

static void test_a_forwarded_port(void **state)
{
	struct lab *l = *state;
	char more[128], dns[16], line[256], address[16];

	snprintf(more, sizeof(more), "\"folder\": \"%s\"", l->folder);
	natd_start(l, -1, more);
	configure(l, dns);
	assert_int_equal(sscanf(strstr(l->out, "ip="), "ip=%15s", address), 1);
	snprintf(line, sizeof(line),
		 "{\"command\": \"forward-add\", \"port\": 8080, \"machine\": \"%s\", "
		 "\"machine_port\": 80}\n",
		 address);
	control(l, line);
	assert_non_null(strstr(l->out, "true"));
	assert_int_equal(
		in(l, l->world,
		   "(nsenter -t %d -n sh -c 'echo from-guest | timeout 5 busybox nc -l -p 80' "
		   "&) ; sleep 1; busybox nc -w 5 192.0.2.1 8080 </dev/null",
		   l->guest),
		0);
	assert_string_equal(l->out, "from-guest\n");
	control(l, "{\"command\": \"forward-remove\", \"port\": 8080}\n");
	assert_non_null(strstr(l->out, "true"));
	control(l, "{\"command\": \"forward-remove\", \"port\": 8080}\n");
	assert_non_null(strstr(l->out, "false"));
	control(l, "{\"command\": \"forward-add\", \"port\": 8080, \"machine\": \"10.98.0.5\", "
		   "\"machine_port\": 80}\n");
	assert_non_null(strstr(l->out, "not in this network"));
}

static void test_large_transfers(void **state)
{
	struct lab *l = *state;
	char more[128], dns[16];

	snprintf(more, sizeof(more), "\"folder\": \"%s\"", l->folder);
	natd_start(l, -1, more);
	configure(l, dns);
	assert_int_equal(in(l, l->guest,
			    "(nsenter -t %d -n sh -c 'sleep 12 | busybox nc -l -p 5001 | md5sum "
			    ">%s/sum' &) ; sleep 1; head -c 4000000 /dev/zero | busybox nc -w 10 "
			    "192.0.2.2 5001; for i in 1 2 3 4 5 6 7 8 9; do [ -s %s/sum ] && "
			    "break; sleep 1; done; cat %s/sum; head -c 4000000 /dev/zero | md5sum",
			    l->world, l->folder, l->folder, l->folder),
			 0);
	assert_memory_equal(l->out, strchr(l->out, '\n') + 1, 32);
}

/* As partita-privd makes it. */
static int dns_listener(void)
{
	struct sockaddr_in a = { .sin_family = AF_INET,
				 .sin_port = htons(53),
				 .sin_addr.s_addr = htonl(0x0a630001) };
	int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(bind(s, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(s, 8), 0);
	return s;
}

static void test_behind_the_kernel(void **state)
{
	struct lab *l = *state;
	int tap;

	if (run("command -v nft >/dev/null")) {
		print_message("there is no nft\n");
		skip();
	}
	tap = tap_make("nat0");
	assert_int_equal(
		run("ip link set nat0 address 02:00:00:00:00:01 up && ip addr add 10.99.0.1/24 dev "
		    "nat0 && ip -6 addr add fd12:3456:789a:1::1/64 dev nat0 nodad && "
		    "sysctl -qw net.ipv4.ip_forward=1 && "
		    "nft 'table ip partita { chain post { type nat hook postrouting priority 100; "
		    "ip "
		    "saddr 10.99.0.0/24 oifname != \"nat0\" masquerade; }; }'"),
		0);
	l->dns = dns_listener();
	natd_start(l, tap, "\"mac\": \"020000000001\", \"ipv6\": \"fd12:3456:789a:1::/64\"");
	close(tap);
	close(l->dns);
	check_services(l);
	assert_int_equal(in(l, l->guest,
			    "dig @10.99.0.1 +tcp +short +tries=1 +time=5 shop.partita.internal"),
			 0);
	assert_non_null(strstr(l->out, "10.99.0."));
	/* By router advertisement. */
	assert_int_equal(
		in(l, l->guest,
		   "for i in 1 2 3 4 5 6 7 8; do ip -6 addr show dev eth0 -tentative | grep -q "
		   "'fd12:3456:789a:1:.*global' && exit; sleep 1; done; exit 1"),
		0);
	assert_int_equal(in(l, l->guest, "ping -6 -c 3 -W 5 fd12:3456:789a:1::1"), 0);
	control(l, "{\"command\": \"forward-add\", \"port\": 8080, \"machine\": \"10.99.0.5\", "
		   "\"machine_port\": 80}\n");
	assert_non_null(strstr(l->out, "partita-privd"));
}

static void test_another_port_of_another_switch(void **state)
{
	struct lab *l = *state;
	char more[128], dns[16];

	snprintf(more, sizeof(more), "\"folder\": \"%s\"", l->folder);
	natd_start(l, -1, more);
	configure(l, dns);
	loop_unwatch(&l->port_watch);
	net_port_free(l->port);
	l->port = NULL;
	assert_true(read(l->control, l->out, sizeof(l->out)) > 0);
	assert_non_null(strstr(l->out, "port-ended"));
	control(l, "{\"command\": \"query\"}\n");
	assert_non_null(strstr(l->out, "leased"));
	control(l, "{\"command\": \"attach\", \"memory\": 0, \"socket\": 1}\n");
	assert_non_null(strstr(l->out, "false"));
}

static void test_through_a_switch(void **state)
{
	struct lab *l = *state;
	struct error err = { 0 };
	int fds[NET_PORT_FDS];
	char more[128];

	snprintf(more, sizeof(more), "\"folder\": \"%s\"", l->folder);
	switchd_start(l);
	/* The router's and the name server's hardware addresses are libslirp's. */
	port_add(l, "\"id\": \"nat\", \"mac\": \"52550a630001\", \"mac_spoofing\": true", fds);
	natd_run(l, fds, -1, more);
	port_add(l, "\"id\": \"web\", \"mac\": \"020000000107\"", fds);
	assert_int_equal(net_port_open(fds, &l->port, &err), 0);
	net_port_take(l->port, NET_TAKES_ALL & ~(unsigned)NET_TAKES_UDP);
	port_begin(l);
	check_services(l);
	/* And the switch has learned the address from what they said. */
	switch_wait(l, "\"10.99.0.", NULL);
	assert_non_null(strstr(l->out, "address-learned"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		TEST(test_without_rights),
		TEST(test_a_forwarded_port),
		TEST(test_large_transfers),
		TEST(test_behind_the_kernel),
		TEST(test_another_port_of_another_switch),
		TEST(test_through_a_switch),
	};

	if (argc != 3)
		return 2;
	natd = argv[1];
	switchd = argv[2];
	if (!netns_enter()) {
		puts("no network namespace can be made here");
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
