// SPDX-License-Identifier: MIT
/*
 * What partita-privd does for virtual switches, in its filter, in network namespaces of the test's
 * own: the host, and a world that knows no way to the switch's network.
 */
#include "net/inet.h"
#include "net/netns_test.h"
#include "net/uplink_wire.h"
#include "privd/privd.h"

#include <arpa/inet.h>
#include <errno.h>
#include <pwd.h>
#include <setjmp.h>
#include <sys/socket.h>

#include <cmocka.h>

static const char *program;

struct fixture {
	struct loop *loop;
	struct privd *p;
	char folder[64], socket[96], config[96];
	pid_t pid, world;
};

struct asked {
	struct privd_request r;
	bool done;
	int result, fds[2];
	char words[512], members[512];
};

static void on_done(struct privd_request *r, const struct privd_answer *a)
{
	struct asked *q = container_of(r, struct asked, r);
	char *text = a->members ? json_dumps(a->members, JSON_COMPACT) : NULL;

	q->done = true;
	q->result = a->result;
	snprintf(q->members, sizeof(q->members), "%s", text ? text : "");
	free(text);
	if (a->result < 0)
		snprintf(q->words, sizeof(q->words), "%s", a->err->message);
	for (unsigned i = 0; i < a->fd_count && i < 2; i++)
		q->fds[i] = steal_fd(&a->fds[i]);
}

/* Its result; the request is JSON. */
static int ask(struct fixture *f, struct asked *q, const char *request)
{
	json_t *o = json_loads(request, 0, NULL);

	assert_non_null(o);
	*q = (struct asked){ .r.done = on_done, .fds = { -1, -1 } };
	privd_ask(f->p, &q->r, o, NULL, 0);
	for (unsigned i = 0; i < 1000 && !q->done; i++)
		loop_once(f->loop, 10);
	assert_true(q->done);
	return q->result;
}

static void right(struct fixture *f, struct asked *q, const char *request)
{
	if (ask(f, q, request) < 0)
		fail_msg("%s: %s", request, q->words);
}

static void wrong(struct fixture *f, const char *request, int result, const char *words)
{
	struct asked q;

	assert_int_equal(ask(f, &q, request), result);
	if (!strstr(q.words, words))
		fail_msg("%s: %s", request, q.words);
	assert_int_equal(q.fds[0], -1);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	const struct passwd *me = getpwuid(geteuid());
	struct error err = { 0 };
	FILE *config;

	*state = f;
	strcpy(f->folder, "/tmp/partita-net-XXXXXX");
	f->world = netns_child();
	if (!me || f->world < 0 || !mkdtemp(f->folder) || loop_new(0, &f->loop, &err) < 0)
		return -1;
	snprintf(f->socket, sizeof(f->socket), "%s/socket", f->folder);
	snprintf(f->config, sizeof(f->config), "%s/config", f->folder);
	config = fopen(f->config, "w");
	fputs("bridge br0\ninterface h0\n", config);
	fclose(config);
	if (run("ip link add h0 type veth peer name w0 netns %d && ip addr add 192.0.2.1/24 dev h0 "
		"&& ip link set h0 up && nsenter -t %d -n ip addr add 192.0.2.2/24 dev w0 && "
		"nsenter -t %d -n ip link set w0 up && ip link add br0 type bridge",
		f->world, f->world, f->world) ||
	    privd_new(f->loop, f->socket, &f->p, &err) < 0)
		return -1;
	f->pid = fork();
	if (!f->pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		execl(program, program, "--socket", f->socket, "--service", me->pw_name, "--config",
		      f->config, "--worker", program, "--keeper", program, (char *)NULL);
		_exit(127);
	}
	for (unsigned i = 0; i < 500 && privd_check(f->p, &err) < 0; i++)
		usleep(10000);
	return privd_check(f->p, &err);
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	int status;

	kill(f->pid, SIGTERM);
	waitpid(f->pid, &status, 0);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
	privd_free(f->p);
	loop_free(f->loop);
	run("ip link del h0; ip link del br0; rm -r %s", f->folder);
	netns_end(f->world);
	free(f);
	return 0;
}

static void test_a_tap_with_an_address(void **state)
{
	struct fixture *f = *state;
	struct asked q;
	int value;
	socklen_t size = sizeof(value);

	right(f, &q,
	      "{\"op\": \"net-tap\", \"switch\": \"abc1\", \"address\": \"10.99.0.1/24\", \"mac\": "
	      "\"02:00:00:00:00:01\", \"address6\": \"fd12:3456:789a:1::1\", \"mtu\": 9000, "
	      "\"dns\": "
	      "true}");
	assert_non_null(strstr(q.members, "\"p-abc1\""));
	assert_int_equal(run("ip addr show p-abc1 | grep -q 'inet 10.99.0.1/24' && ip link show "
			     "p-abc1 | grep -q 'UP.*mtu 9000' && ip addr show p-abc1 | grep -q "
			     "'fd12:3456:789a:1::1/64' && ip link show p-abc1 | grep -q "
			     "02:00:00:00:00:01"),
			 0);
	assert_int_equal(getsockopt(q.fds[1], SOL_SOCKET, SO_ACCEPTCONN, &value, &size), 0);
	assert_int_equal(value, 1);
	/* Twice there is none; nothing stays when it is closed. */
	wrong(f, "{\"op\": \"net-tap\", \"switch\": \"abc1\"}", -EBUSY, "p-abc1");
	close(q.fds[0]);
	close(q.fds[1]);
	assert_int_not_equal(run("ip link show p-abc1 2>/dev/null"), 0);
}

static void test_a_tap_in_a_bridge(void **state)
{
	struct fixture *f = *state;
	struct asked q;

	right(f, &q, "{\"op\": \"net-tap\", \"switch\": \"b1\", \"bridge\": \"br0\"}");
	assert_int_equal(run("ip link show p-b1 | grep -q 'master br0'"), 0);
	close(q.fds[0]);
	wrong(f, "{\"op\": \"net-tap\", \"switch\": \"b1\", \"bridge\": \"br1\"}", -EACCES,
	      "bridge br1");
	wrong(f,
	      "{\"op\": \"net-tap\", \"switch\": \"b1\", \"bridge\": \"br0\", \"address\": "
	      "\"10.1.0.1/24\"}",
	      -EINVAL, "no addresses");
	assert_int_not_equal(run("ip link show p-b1 2>/dev/null"), 0);
}

static void test_an_interface(void **state)
{
	struct fixture *f = *state;
	struct asked q;

	right(f, &q, "{\"op\": \"net-packet\", \"interface\": \"h0\"}");
	assert_true(q.fds[0] >= 0);
	close(q.fds[0]);
	wrong(f, "{\"op\": \"net-packet\", \"interface\": \"lo\"}", -EACCES, "interface lo");
	assert_int_equal(run("ip link set h0 name h1"), 0);
	wrong(f, "{\"op\": \"net-packet\", \"interface\": \"h0\"}", -ENODEV, "h0");
	run("ip link set h1 name h0");
}

static void test_refusals(void **state)
{
	struct fixture *f = *state;

	wrong(f, "{\"op\": \"net-tap\", \"switch\": \"../x\"}", -EINVAL, "letters");
	wrong(f, "{\"op\": \"net-tap\", \"switch\": \"abcdefghijklm\"}", -EINVAL, "letters");
	wrong(f, "{\"op\": \"net-tap\", \"switch\": \"\"}", -EINVAL, "letters");
	wrong(f, "{\"op\": \"net-tap\", \"switch\": \"a\", \"address\": \"8.8.8.1/24\"}", -EACCES,
	      "private");
	wrong(f, "{\"op\": \"net-tap\", \"switch\": \"a\", \"address\": \"10.0.0.1/8\"}", -EINVAL,
	      "prefix");
	wrong(f, "{\"op\": \"net-tap\", \"switch\": \"a\", \"address\": \"10.0.0.0/24\"}", -EINVAL,
	      "nobody");
	wrong(f, "{\"op\": \"net-tap\", \"switch\": \"a\", \"address6\": \"2001:db8::1\"}", -EACCES,
	      "unique local");
	wrong(f, "{\"op\": \"net-tap\", \"switch\": \"a\", \"mtu\": 100}", -EINVAL, "MTU");
	wrong(f, "{\"op\": \"net-tap\", \"switch\": \"a\", \"mac\": \"01:00:00:00:00:01\"}",
	      -EINVAL, "hardware");
	wrong(f, "{\"op\": \"net-tap\", \"switch\": \"a\", \"other\": 1}", -EINVAL, "other");
	assert_int_equal(run("ip addr add 10.5.0.1/16 dev h0"), 0);
	wrong(f, "{\"op\": \"net-tap\", \"switch\": \"a\", \"address\": \"10.5.7.1/24\"}",
	      -EADDRINUSE, "h0");
	wrong(f,
	      "{\"op\": \"net-nat\", \"switch\": \"a\", \"address\": \"10.99.0.1/24\", "
	      "\"forwards\": "
	      "[{\"protocol\": \"tcp\", \"port\": 80, \"machine\": \"10.98.0.1\", "
	      "\"machine_port\": "
	      "80}]}",
	      -EACCES, "not in this network");
	wrong(f,
	      "{\"op\": \"net-nat\", \"switch\": \"a\", \"address\": \"10.99.0.1/24\", "
	      "\"forwards\": "
	      "[{\"protocol\": \"tcp; flush ruleset\", \"port\": 80, \"machine\": \"10.99.0.2\", "
	      "\"machine_port\": 80}]}",
	      -EINVAL, "protocol");
	assert_int_not_equal(run("nft list tables | grep -q partita"), 0);
}

/* From 10.99.0.5 behind the tap to the world's port 7: whom the world sees. */
static uint32_t seen_by_the_world(struct fixture *f, int tap)
{
	_cleanup_close_ int here = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC), there = -1, s;
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(7) }, from = { 0 };
	struct inet_udp u = { .ether = { { { 2, 0, 0, 0, 0, 1 } }, { { 2, 0, 0, 0, 0, 9 } }, 0 },
			      .ip = { 0x0a630005, 0xc0000202, INET_UDP, false },
			      .from_port = 999,
			      .to_port = 7,
			      .data = (const uint8_t *)"x",
			      .size = 1 };
	struct timeval second = { .tv_sec = 1 };
	uint8_t frame[10 + 128] = { 0 };
	socklen_t size = sizeof(from);
	char path[64];
	size_t n;

	snprintf(path, sizeof(path), "/proc/%d/ns/net", f->world);
	there = open(path, O_RDONLY | O_CLOEXEC);
	assert_int_equal(setns(there, CLONE_NEWNET), 0);
	s = socket(AF_INET, SOCK_DGRAM, 0);
	assert_int_equal(bind(s, (struct sockaddr *)&at, sizeof(at)), 0);
	assert_int_equal(setns(here, CLONE_NEWNET), 0);
	setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &second, sizeof(second));
	for (unsigned i = 0; i < 3; i++) { /* the first asks for the neighbour */
		n = inet_write_udp4(frame + 10, 128, &u);
		assert_int_equal(write(tap, frame, 10 + n), 10 + n);
		if (recvfrom(s, path, sizeof(path), 0, (struct sockaddr *)&from, &size) == 1)
			break;
	}
	close(s);
	return ntohl(from.sin_addr.s_addr);
}

static void test_nat_begins_and_ends(void **state)
{
	struct fixture *f = *state;
	struct asked tap, q;

	assert_int_equal(run("sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0 "
			     "net.ipv6.conf.h0.accept_ra=1 net.ipv6.conf.br0.accept_ra=2"),
			 0);
	right(f, &tap,
	      "{\"op\": \"net-tap\", \"switch\": \"nat\", \"address\": \"10.99.0.1/24\", \"mac\": "
	      "\"02:00:00:00:00:01\"}");
	assert_int_equal(seen_by_the_world(f, tap.fds[0]), 0);
	right(f, &q,
	      "{\"op\": \"net-nat\", \"switch\": \"nat\", \"address\": \"10.99.0.1/24\", \"ipv6\": "
	      "\"fd12:3456:789a:1::\", \"forwards\": [{\"protocol\": \"tcp\", \"port\": 8080, "
	      "\"machine\": \"10.99.0.5\", \"machine_port\": 80}, {\"protocol\": \"udp\", "
	      "\"listen\": "
	      "\"192.0.2.1\", \"port\": 53, \"machine\": \"10.99.0.6\", \"machine_port\": 53}]}");
	assert_int_equal(seen_by_the_world(f, tap.fds[0]), 0xc0000201);
	assert_int_equal(run("nft list table inet partita-nat | grep -q 'udp dport 53 dnat ip to "
			     "10.99.0.6:53' && nft list table inet partita >/dev/null && [ $(cat "
			     "/proc/sys/net/ipv4/ip_forward) = 1 ]"),
			 0);
	/* The host still listens to its own routers. */
	assert_int_equal(run("[ $(cat /proc/sys/net/ipv6/conf/all/forwarding) = 1 ] && [ $(cat "
			     "/proc/sys/net/ipv6/conf/h0/accept_ra) = 2 ]"),
			 0);
	/* Again, with less: the same as if it were the first time. */
	right(f, &q, "{\"op\": \"net-nat\", \"switch\": \"nat\", \"address\": \"10.99.0.1/24\"}");
	assert_int_not_equal(run("nft list table inet partita-nat | grep dnat.ip"), 0);
	right(f, &q, "{\"op\": \"net-nat\", \"switch\": \"two\", \"address\": \"10.98.0.1/24\"}");
	right(f, &q, "{\"op\": \"net-nat-list\"}");
	assert_non_null(strstr(q.members, "\"nat\""));
	assert_non_null(strstr(q.members, "\"two\""));
	right(f, &q, "{\"op\": \"net-nat-remove\", \"switch\": \"nat\"}");
	assert_int_equal(run("[ $(cat /proc/sys/net/ipv4/ip_forward) = 1 ]"), 0);
	right(f, &q, "{\"op\": \"net-nat-remove\", \"switch\": \"two\"}");
	right(f, &q, "{\"op\": \"net-nat-remove\", \"switch\": \"two\"}");
	assert_int_equal(run("[ $(cat /proc/sys/net/ipv6/conf/all/forwarding) = 0 ] && [ $(cat "
			     "/proc/sys/net/ipv6/conf/h0/accept_ra) = 1 ] && [ $(cat "
			     "/proc/sys/net/ipv6/conf/br0/accept_ra) = 2 ]"),
			 0);
	assert_int_equal(run("[ $(cat /proc/sys/net/ipv4/ip_forward) = 0 ] && ! nft list tables | "
			     "grep partita"),
			 0);
	assert_int_equal(seen_by_the_world(f, tap.fds[0]), 0);
	close(tap.fds[0]);
}

static void test_a_router_stays_one(void **state)
{
	struct fixture *f = *state;
	struct asked q;

	assert_int_equal(run("sysctl -qw net.ipv4.ip_forward=1"), 0);
	right(f, &q, "{\"op\": \"net-nat\", \"switch\": \"nat\", \"address\": \"10.99.0.1/24\"}");
	assert_int_not_equal(run("nft list table inet partita 2>/dev/null"), 0);
	right(f, &q, "{\"op\": \"net-nat-remove\", \"switch\": \"nat\"}");
	assert_int_equal(run("[ $(cat /proc/sys/net/ipv4/ip_forward) = 1 ]"), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		TEST(test_a_tap_with_an_address), TEST(test_a_tap_in_a_bridge),
		TEST(test_an_interface),          TEST(test_refusals),
		TEST(test_nat_begins_and_ends),   TEST(test_a_router_stays_one),
	};

	if (argc != 2)
		return 2;
	program = argv[1];
	if (geteuid() || !netns_enter() || run("command -v nft >/dev/null")) {
		puts("only root can do this, with nft");
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
