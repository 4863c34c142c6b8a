// SPDX-License-Identifier: MIT
/*
 * The program itself, with its system-call filter: told what to do through its control socket, with
 * this process at the other side of its ports. argv[1] is the program.
 */
#include "net/port.h"

#include "lib/cleanup.h"
#include "net/netns_test.h"
#include "schema/json.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define PATIENCE 20000 /* ms; what does not come by then is lost */

static const char *program;

struct bed {
	pid_t pid;
	int control;
	char line[200000];
	size_t size;
	int fds[8];
	unsigned fd_count;
};

/* --- talking to it --- */

static int text_file(const char *text)
{
	int fd = memfd_create("text", 0);

	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
	return fd;
}

static void bed_start(struct bed *b, const char *more)
{
	char text[4000], number[16];
	int ends[2], description;

	memset(b, 0, sizeof(*b));
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
	fcntl(ends[0], F_SETFD, FD_CLOEXEC);
	snprintf(text, sizeof(text), "{\"name\":\"test\",\"control\":{\"descriptor\":%d}%s}",
		 ends[1], more);
	description = text_file(text);
	snprintf(number, sizeof(number), "%d", description);
	b->pid = fork();
	if (!b->pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		execl(program, program, "--description-fd", number, NULL);
		_exit(127);
	}
	close(ends[1]);
	close(description);
	b->control = ends[0];
}

static void bed_stop(struct bed *b)
{
	int status;

	kill(b->pid, SIGTERM);
	assert_int_equal(waitpid(b->pid, &status, 0), b->pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	close(b->control);
}

static void receive_more(struct bed *b)
{
	_Alignas(struct cmsghdr) char space[CMSG_SPACE(sizeof(b->fds))];
	struct iovec iov = { b->line + b->size, sizeof(b->line) - b->size };
	struct msghdr m = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = space,
		.msg_controllen = sizeof(space),
	};
	struct pollfd p = { .fd = b->control, .events = POLLIN };
	struct cmsghdr *c;
	ssize_t n;

	assert_int_equal(poll(&p, 1, PATIENCE), 1);
	n = recvmsg(b->control, &m, MSG_CMSG_CLOEXEC);
	if (n <= 0)
		fail_msg("the switch has ended");
	for (c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
		unsigned count = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));

		memcpy(b->fds + b->fd_count, CMSG_DATA(c), count * sizeof(int));
		b->fd_count += count;
	}
	b->size += (size_t)n;
}

/* The next line: an answer, or an event. */
static json_t *next_line(struct bed *b)
{
	char *end;
	json_t *json;

	while (!(end = memchr(b->line, '\n', b->size)))
		receive_more(b);
	json = json_loadb(b->line, (size_t)(end - b->line), 0, NULL);
	assert_non_null(json);
	b->size -= (size_t)(end + 1 - b->line);
	memmove(b->line, end + 1, b->size);
	return json;
}

static json_t *next_event(struct bed *b, const char *name)
{
	for (;;) {
		json_t *json = next_line(b);
		const char *event = json_string_value(json_object_get(json, "event"));

		if (event && !strcmp(event, name))
			return json;
		json_decref(json);
	}
}

static void send_line(struct bed *b, const char *text, const int *fds, unsigned count)
{
	_Alignas(struct cmsghdr) char space[CMSG_SPACE(4 * sizeof(int))] = { 0 };
	struct iovec iov[2] = { { (void *)text, strlen(text) }, { "\n", 1 } };
	struct msghdr m = { .msg_iov = iov, .msg_iovlen = 2 };
	struct cmsghdr *c;

	if (count) {
		m.msg_control = space;
		m.msg_controllen = CMSG_SPACE(count * sizeof(int));
		c = CMSG_FIRSTHDR(&m);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(count * sizeof(int));
		memcpy(CMSG_DATA(c), fds, count * sizeof(int));
	}
	assert_int_equal(sendmsg(b->control, &m, 0), (ssize_t)strlen(text) + 1);
}

/* The answer, whatever it is. */
static json_t *ask_with(struct bed *b, const char *text, const int *fds, unsigned count)
{
	send_line(b, text, fds, count);
	for (;;) {
		json_t *json = next_line(b);

		if (!json_object_get(json, "event"))
			return json;
		json_decref(json);
	}
}

static json_t *ask(struct bed *b, const char *text)
{
	json_t *json = ask_with(b, text, NULL, 0);

	if (!json_is_true(json_object_get(json, "ok")))
		fail_msg("%s: %s", text, json_string_value(json_object_get(json, "error")));
	return json;
}

static void tell(struct bed *b, const char *text)
{
	json_decref(ask(b, text));
}

static void expect_refusal(struct bed *b, const char *text, const char *words)
{
	_cleanup_json_ json_t *json = ask_with(b, text, NULL, 0);
	const char *error = json_string_value(json_object_get(json, "error"));

	assert_false(json_is_true(json_object_get(json, "ok")));
	if (!error || !strstr(error, words))
		fail_msg("%s: \"%s\" does not say \"%s\"", text, error ? error : "", words);
}

/* The port of an answer with descriptors. */
static struct net_port *port_open(struct bed *b)
{
	struct error err = { 0 };
	struct net_port *p;
	int fds[NET_PORT_FDS];

	assert_int_equal(b->fd_count, NET_PORT_FDS);
	memcpy(fds, b->fds, sizeof(fds));
	b->fd_count = 0;
	if (net_port_open(fds, &p, &err) < 0)
		fail_msg("%s", err.message);
	return p;
}

static struct net_port *port_add(struct bed *b, unsigned n, const char *more)
{
	char text[1000];

	snprintf(
		text, sizeof(text),
		"{\"command\":\"port-add\",\"port\":{\"id\":\"p%u\",\"mac\":\"00155d0000%02x\"%s}}",
		n, n, more);
	tell(b, text);
	return port_open(b);
}

static json_int_t number_at(struct bed *b, const char *port, const char *group, const char *key)
{
	char text[200];
	_cleanup_json_ json_t *json = NULL;

	snprintf(text, sizeof(text), "{\"command\":\"port-query\",\"port\":\"%s\"}", port);
	json = ask(b, text);
	return json_integer_value(
		json_object_get(group ? json_object_get(json, group) : json, key));
}

static void wait_number(struct bed *b, const char *port, const char *key, json_int_t least)
{
	for (unsigned i = 0; i < PATIENCE && number_at(b, port, NULL, key) < least; i++)
		usleep(1000);
	assert_true(number_at(b, port, NULL, key) >= least);
}

/* --- frames --- */

static void send_frame(struct net_port *p, unsigned from, unsigned to, uint16_t type)
{
	uint8_t f[60] = { 0x00,
			  0x15,
			  0x5d,
			  0,
			  0,
			  (uint8_t)to,
			  0x00,
			  0x15,
			  0x5d,
			  0,
			  0,
			  (uint8_t)from,
			  (uint8_t)(type >> 8),
			  (uint8_t)type };
	const struct iovec iov = { f, sizeof(f) };

	if (to == 255)
		memset(f, 0xff, 6);
	assert_int_equal(net_port_send(p, NULL, &iov, 1, sizeof(f)), 0);
	net_port_flush(p);
}

/* Waits; the size, or 0 when the other side has ended. */
static size_t receive_frame(struct net_port *p)
{
	struct pollfd f = { .fd = net_port_fd(p), .events = POLLIN };
	struct net_frame frame;
	int r;

	while (!(r = net_port_receive(p, &frame)))
		if (net_port_arm(p))
			assert_int_equal(poll(&f, 1, PATIENCE), 1);
	if (r < 0)
		return 0;
	net_port_release(p);
	return frame.size;
}

/* --- tests --- */

static void test_two_ports_talk(void **state)
{
	struct net_port *a, *c;
	struct bed b;

	(void)state;
	bed_start(&b, "");
	a = port_add(&b, 1, "");
	c = port_add(&b, 2, "");
	for (unsigned i = 0; i < 100; i++) {
		send_frame(a, 1, 2, 0x88b5);
		assert_int_equal(receive_frame(c), 60);
		send_frame(c, 2, 1, 0x88b5);
		assert_int_equal(receive_frame(a), 60);
	}
	assert_int_equal(number_at(&b, "p1", NULL, "frames_in"), 100);
	assert_int_equal(number_at(&b, "p1", NULL, "frames_out"), 100);
	net_port_free(a);
	net_port_free(c);
	bed_stop(&b);
}

static void test_settings_change_between_two_frames(void **state)
{
	struct net_port *a, *c;
	struct bed b;

	(void)state;
	bed_start(&b, "");
	a = port_add(&b, 1, "");
	c = port_add(&b, 2, "");
	send_frame(a, 1, 2, 0x88b5);
	assert_int_equal(receive_frame(c), 60);
	tell(&b, "{\"command\":\"port-set\",\"port\":{\"id\":\"p2\",\"mac\":\"00155d000002\","
		 "\"vlan\":{\"id\":5}}}");
	send_frame(a, 1, 2, 0x88b5);
	wait_number(&b, "p1", "frames_in", 2);
	expect_refusal(&b,
		       "{\"command\":\"port-set\",\"port\":{\"id\":\"p2\",\"mac\":\"00155d000002\","
		       "\"vlan\":{\"mode\":\"isolated\",\"id\":5}}}",
		       "secondary");
	tell(&b, "{\"command\":\"port-set\",\"port\":{\"id\":\"p2\",\"mac\":\"00155d000002\"}}");
	send_frame(a, 1, 2, 0x88b5);
	assert_int_equal(receive_frame(c), 60);
	wait_number(&b, "p1", "frames_in", 3);
	assert_int_equal(number_at(&b, "p1", "dropped", "nowhere"), 1);
	net_port_free(a);
	net_port_free(c);
	bed_stop(&b);
}

static void test_what_is_refused(void **state)
{
	static const struct {
		const char *text, *words;
	} bad[] = {
		{ "{\"command\":\"port-add\",\"port\":{\"id\":\"x\"}}", "MAC" },
		{ "{\"command\":\"port-add\",\"port\":{\"id\":\"x\",\"mac\":\"00155dxxxxxx\"}}",
		  "mac" },
		{ "{\"command\":\"port-add\",\"port\":{\"mac\":\"00155d000001\"}}", "id" },
		{ "{\"command\":\"port-add\"}", "port_file" },
		{ "{\"command\":\"port-add\",\"port\":{\"id\":\"x\",\"mac\":\"00155d000009\"},"
		  "\"ring_size\":5000}",
		  "power of two" },
		{ "{\"command\":\"port-set\",\"port\":{\"id\":\"x\",\"mac\":\"00155d000001\"}}",
		  "no port" },
		{ "{\"command\":\"port-remove\",\"port\":\"x\"}", "no port" },
		{ "{\"command\":\"uplink-set\",\"descriptor\":0}", "descriptor" },
		{ "{\"command\":\"port-add\",\"port\":{\"id\":\"x\",\"mac\":\"00155d000009\","
		  "\"rules\":[{\"action\":\"deny\",\"direction\":\"inbound\","
		  "\"remote_address\":\"10.0.0.0/33\"}]}}",
		  "rules[0]" },
		{ "{\"command\":\"port-add\",\"port\":{\"id\":\"x\",\"mac\":\"00155d000009\","
		  "\"vlan\":{\"mode\":\"trunk\",\"list\":\"1-5000\"}}}",
		  "vlan.list" },
	};
	struct bed b;

	(void)state;
	bed_start(&b, "");
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		expect_refusal(&b, bad[i].text, bad[i].words);
	assert_int_equal(b.fd_count, 0);
	{
		_cleanup_json_ json_t *json = ask(&b, "{\"command\":\"query\"}");

		assert_int_equal(json_array_size(json_object_get(json, "ports")), 0);
	}
	bed_stop(&b);
}

static void test_settings_in_a_file(void **state)
{
	static char text[40000];
	_cleanup_json_ json_t *json = NULL;
	struct bed b;
	size_t n;
	int fd;

	(void)state;
	bed_start(&b, "");
	/* More than a line may have. */
	n = (size_t)snprintf(text, sizeof(text),
			     "{\"id\":\"p1\",\"mac\":\"00155d000001\",\"rules\":[");
	for (unsigned i = 0; i < 256; i++)
		n += (size_t)snprintf(text + n, sizeof(text) - n,
				      "%s{\"id\":\"r%u\",\"action\":\"deny\",\"direction\":"
				      "\"inbound\",\"remote_address\":\"10.0.%u.0/24\"}",
				      i ? "," : "", i, i);
	snprintf(text + n, sizeof(text) - n, "]}");
	fd = text_file(text);
	json = ask_with(&b, "{\"command\":\"port-add\",\"port_file\":0}", &fd, 1);
	assert_true(json_is_true(json_object_get(json, "ok")));
	net_port_free(port_open(&b));
	close(fd);
	json_decref(json);
	json = ask(&b, "{\"command\":\"port-query\",\"port\":\"p1\"}");
	assert_int_equal(json_array_size(json_object_get(json, "rules")), 256);
	bed_stop(&b);
}

static void test_a_worker_that_dies_is_told_and_comes_back(void **state)
{
	_cleanup_json_ json_t *event = NULL;
	struct net_port *a, *c;
	struct bed b;

	(void)state;
	bed_start(&b, "");
	a = port_add(&b, 1, "");
	c = port_add(&b, 2, "");
	net_port_free(c);
	event = next_event(&b, "ended");
	assert_string_equal(json_string_value(json_object_get(event, "port")), "p2");
	assert_string_equal(json_string_value(json_object_get(event, "why")), "gone");
	tell(&b, "{\"command\":\"port-attach\",\"port\":\"p2\"}");
	c = port_open(&b);
	send_frame(a, 1, 2, 0x88b5);
	assert_int_equal(receive_frame(c), 60);
	net_port_free(a);
	net_port_free(c);
	bed_stop(&b);
}

static void test_a_switch_that_is_killed_is_started_again(void **state)
{
	static const char ports[] = ",\"ports\":[{\"id\":\"p1\",\"mac\":\"00155d000001\"},"
				    "{\"id\":\"p2\",\"mac\":\"00155d000002\"}]";
	struct net_port *a, *c;
	struct bed b;

	(void)state;
	bed_start(&b, ports);
	tell(&b, "{\"command\":\"port-attach\",\"port\":\"p1\"}");
	a = port_open(&b);
	kill(b.pid, SIGKILL);
	waitpid(b.pid, NULL, 0);
	close(b.control);
	/* The other side sees it at once. */
	assert_int_equal(receive_frame(a), 0);
	net_port_free(a);
	bed_start(&b, ports);
	tell(&b, "{\"command\":\"port-attach\",\"port\":\"p1\"}");
	a = port_open(&b);
	tell(&b, "{\"command\":\"port-attach\",\"port\":\"p2\"}");
	c = port_open(&b);
	send_frame(a, 1, 2, 0x88b5);
	assert_int_equal(receive_frame(c), 60);
	net_port_free(a);
	net_port_free(c);
	bed_stop(&b);
}

static void test_events_are_told(void **state)
{
	static const uint8_t arp[60] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00, 0x15, 0x5d, 0, 0,
					 1,    0x08, 0x06, 0,    1,    8,    0,    6,    4,    0, 1,
					 0x00, 0x15, 0x5d, 0,    0,    1,    192,  168,  7,    9, 0,
					 0,    0,    0,    0,    0,    192,  168,  7,    9 };
	const struct iovec iov = { (void *)arp, sizeof(arp) };
	_cleanup_json_ json_t *dropped = NULL, *learned = NULL, *lost = NULL;
	struct net_port *a;
	struct bed b;

	(void)state;
	bed_start(&b, "");
	a = port_add(&b, 1, "");
	for (unsigned i = 0; i < 1000; i++)
		send_frame(a, 99, 2, 0x88b5);
	dropped = next_event(&b, "dropped");
	assert_string_equal(json_string_value(json_object_get(dropped, "why")), "spoof");
	assert_int_equal(net_port_send(a, NULL, &iov, 1, sizeof(arp)), 0);
	net_port_flush(a);
	learned = next_event(&b, "address-learned");
	assert_string_equal(json_string_value(json_object_get(learned, "ip")), "192.168.7.9");
	assert_string_equal(json_string_value(json_object_get(learned, "mac")), "00155d000001");
	wait_number(&b, "p1", "frames_in", 1001);
	assert_int_equal(number_at(&b, "p1", "dropped", "spoof"), 1000);
	send_line(&b, "{\"command\":\"port-remove\",\"port\":\"p1\"}", NULL, 0);
	lost = next_event(&b, "address-lost");
	assert_string_equal(json_string_value(json_object_get(lost, "port")), "p1");
	net_port_free(a);
	bed_stop(&b);
}

static void test_a_tap_is_plugged_in(void **state)
{
	struct ifreq q = { .ifr_name = "t0", .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR };
	_cleanup_json_ json_t *json = NULL, *event = NULL;
	struct net_port *a;
	struct bed b;
	int fd, s;

	(void)state;
	if (!netns_enter())
		skip();
	fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0 || ioctl(fd, TUNSETIFF, &q) < 0)
		skip();
	bed_start(&b, "");
	a = port_add(&b, 1, "");
	send_line(&b, "{\"command\":\"uplink-set\",\"descriptor\":0}", &fd, 1);
	close(fd);
	event = next_event(&b, "link");
	s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	q.ifr_flags = IFF_UP;
	assert_int_equal(ioctl(s, SIOCSIFFLAGS, &q), 0);
	close(s);
	/* The host says something by itself when its interface comes up (ND); so do we. */
	send_frame(a, 1, 255, 0x88b5);
	wait_number(&b, "uplink", "frames_out", 1);
	assert_true(receive_frame(a) > 0);
	json = ask(&b, "{\"command\":\"macs\"}");
	assert_true(json_array_size(json_object_get(json, "macs")) >= 1);
	net_port_free(a);
	bed_stop(&b);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_two_ports_talk),
		cmocka_unit_test(test_settings_change_between_two_frames),
		cmocka_unit_test(test_what_is_refused),
		cmocka_unit_test(test_settings_in_a_file),
		cmocka_unit_test(test_a_worker_that_dies_is_told_and_comes_back),
		cmocka_unit_test(test_a_switch_that_is_killed_is_started_again),
		cmocka_unit_test(test_events_are_told),
		cmocka_unit_test(test_a_tap_is_plugged_in),
	};

	if (argc != 2)
		return 2;
	program = argv[1];
	return cmocka_run_group_tests(tests, NULL, NULL);
}
