// SPDX-License-Identifier: MIT
/*
 * Wires in a network namespace of the test's own, with the kernel's stack behind the tap, and at
 * the other end of a virtual cable.
 */
#include "net/netns_test.h"
#include "net/uplink_wire.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <poll.h>
#include <setjmp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <cmocka.h>

static const struct inet_mac guest = { { 2, 0, 0, 0, 0, 9 } };

struct seen {
	bool told, up;
	char words[NET_WIRE_WORDS];
};

static struct loop *loop;

static void on_link(void *context, bool up, const char *words)
{
	struct seen *s = context;

	s->told = true;
	s->up = up;
	snprintf(s->words, sizeof(s->words), "%s", words);
}

static struct net_uplink *wire(int fd, bool promiscuous, struct seen *seen)
{
	struct net_wire_options o = {
		.loop = loop, .fd = fd, .promiscuous = promiscuous, .link = on_link, .context = seen
	};
	struct net_uplink *u = NULL;
	struct error err = { 0 };

	assert_true(fd >= 0);
	if (net_wire_new(&o, &u, &err) < 0)
		fail_msg("%s", err.message);
	return u;
}

static void wait_link(struct seen *s, bool up)
{
	for (unsigned i = 0; i < 100 && !(s->told && s->up == up); i++)
		loop_once(loop, 50);
	assert_true(s->told);
	assert_int_equal(s->up, up);
}

static void wait_words(struct seen *s, const char *words)
{
	for (unsigned i = 0; i < 100 && strcmp(s->words, words) != 0; i++)
		loop_once(loop, 50);
	assert_string_equal(s->words, words);
	assert_false(s->up);
}

/* A frame of this type, within two seconds; it stays until release. */
static bool wait_frame(struct net_uplink *u, uint16_t type, struct net_frame *ret)
{
	for (unsigned i = 0; i < 200; i++) {
		struct pollfd p = { .fd = u->fd, .events = POLLIN };
		struct inet_ether e;
		struct reader r;

		while (u->ops->receive(u, ret) == 1) {
			r = reader_of(ret->data, ret->size);
			if (inet_read_ether(&r, &e) && e.type == type)
				return true;
		}
		u->ops->release(u);
		/* After a batch there may be more; it may be slept on when it says so. */
		if (u->ops->arm(u))
			poll(&p, 1, 10);
	}
	return false;
}

static void send_frame(struct net_uplink *u, const void *frame, size_t size)
{
	struct net_offload none = { 0 };
	struct iovec iov[] = { { (void *)frame, 14 }, { (uint8_t *)frame + 14, size - 14 } };

	assert_int_equal(u->ops->send(u, &none, iov, 2, size), 0);
	u->ops->flush(u);
}

static size_t arp_request(uint8_t *f, uint32_t from, uint32_t to)
{
	struct writer w = writer_of(f, 64);

	writer_put(&w, &INET_MAC_ALL, 6);
	writer_put(&w, &guest, 6);
	writer_be16(&w, INET_ETHER_ARP);
	writer_be16(&w, 1);
	writer_be16(&w, INET_ETHER_IP4);
	writer_be16(&w, 0x0604);
	writer_be16(&w, 1);
	writer_put(&w, &guest, 6);
	writer_be32(&w, from);
	writer_zero(&w, 6);
	writer_be32(&w, to);
	return w.at;
}

/* Asks who has `to`: the MAC address of who answers. */
static struct inet_mac resolve(struct net_uplink *u, uint32_t from, uint32_t to)
{
	struct net_frame f;
	struct inet_mac mac;
	uint8_t frame[64];
	bool there = false;

	/* As everybody does: an interface that has just come up may lose the first. */
	for (unsigned i = 0; i < 5 && !there; i++) {
		send_frame(u, frame, arp_request(frame, from, to));
		there = wait_frame(u, INET_ETHER_ARP, &f);
	}
	assert_true(there);
	memcpy(&mac, (const uint8_t *)f.data + 6, sizeof(mac));
	u->ops->release(u);
	return mac;
}

static int udp_socket(uint16_t port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(port) };
	struct timeval two = { .tv_sec = 2 };
	int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	assert_int_equal(bind(s, (struct sockaddr *)&a, sizeof(a)), 0);
	setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &two, sizeof(two));
	return s;
}

/* A datagram each way, and what the kernel leaves to do to its own. */
static void talk(struct net_uplink *u, uint32_t from, uint32_t to)
{
	struct inet_mac mac = resolve(u, from, to);
	struct inet_udp q = { .ether = { mac, guest, 0 },
			      .ip = { from, to, INET_UDP, false },
			      .from_port = 999,
			      .to_port = 1000,
			      .data = (const uint8_t *)"hello",
			      .size = 5 },
			a;
	struct sockaddr_in peer;
	socklen_t size = sizeof(peer);
	int s = udp_socket(1000);
	uint8_t frame[128];
	struct net_frame f;

	send_frame(u, frame, inet_write_udp4(frame, sizeof(frame), &q));
	assert_int_equal(recvfrom(s, frame, sizeof(frame), 0, (struct sockaddr *)&peer, &size), 5);
	assert_memory_equal(frame, "hello", 5);
	assert_int_equal(ntohl(peer.sin_addr.s_addr), from);
	assert_int_equal(sendto(s, "world!", 6, 0, (struct sockaddr *)&peer, size), 6);
	assert_true(wait_frame(u, INET_ETHER_IP4, &f));
	assert_true(inet_read_udp4(f.data, f.size, f.offload.flags & NET_CHECKSUM_NEEDED, &a));
	assert_int_equal(a.to_port, 999);
	assert_int_equal(a.size, 6);
	assert_memory_equal(a.data, "world!", 6);
	u->ops->release(u);
	close(s);
}

static void test_tap_both_ways(void **state)
{
	struct seen seen = { 0 };
	struct net_uplink *u = wire(tap_make("t0"), false, &seen);

	(void)state;
	assert_string_equal(net_wire_interface(u), "t0");
	wait_link(&seen, false);
	assert_non_null(strstr(seen.words, "t0 is switched off"));
	assert_int_equal(run("ip addr add 10.1.0.1/24 dev t0 && ip link set t0 up"), 0);
	wait_link(&seen, true);
	talk(u, 0x0a010002, 0x0a010001);
	assert_true(net_wire_counters(u).frames_in >= 2);
	u->ops->free(u);
}

static void test_a_tap_that_goes(void **state)
{
	struct seen seen = { 0 };
	struct net_uplink *u = wire(tap_make("t1"), false, &seen);
	struct net_offload none = { 0 };
	uint8_t frame[64] = { 0 };
	struct iovec iov = { frame, sizeof(frame) };
	struct net_frame f;

	(void)state;
	assert_int_equal(run("ip link set t1 up"), 0);
	wait_link(&seen, true);
	assert_int_equal(run("ip link del t1"), 0);
	wait_words(&seen, "the interface t1 is gone");
	assert_int_equal(u->ops->receive(u, &f), -ENODEV);
	assert_int_equal(u->ops->send(u, &none, &iov, 1, sizeof(frame)), -ENODEV);
	u->ops->free(u);
}

static void test_more_frames_than_a_batch(void **state)
{
	struct seen seen = { 0 };
	struct net_uplink *u = wire(tap_make("t2"), false, &seen);
	struct sockaddr_in to = { .sin_family = AF_INET,
				  .sin_port = htons(9),
				  .sin_addr.s_addr = htonl(0x0a020002) };
	int s = socket(AF_INET, SOCK_DGRAM, 0);
	unsigned got = 0, rounds = 0;
	struct net_frame f;

	(void)state;
	assert_int_equal(run("ip addr add 10.2.0.1/24 dev t2 && ip link set t2 up && "
			     "sysctl -qw net.ipv6.conf.t2.disable_ipv6=1 && "
			     "ip neigh add 10.2.0.2 lladdr 02:00:00:00:00:09 dev t2"),
			 0);
	for (unsigned i = 0; i < 50; i++)
		sendto(s, &i, sizeof(i), 0, (struct sockaddr *)&to, sizeof(to));
	for (unsigned idle = 0; got < 50 && idle < 100; rounds++) {
		unsigned before = got;

		for (; u->ops->receive(u, &f) == 1; got++)
			assert_true(got - before < NET_WIRE_BATCH);
		/* It may not be slept on while frames wait for room. */
		if (got - before == NET_WIRE_BATCH)
			assert_false(u->ops->arm(u));
		u->ops->release(u);
		idle += got == before;
		if (got == before)
			usleep(10000);
	}
	assert_true(got >= 50);
	assert_true(rounds >= 4);
	close(s);
	u->ops->free(u);
}

static int packet_socket(const char *name)
{
	struct sockaddr_ll a = { .sll_family = AF_PACKET,
				 .sll_protocol = htons(3 /* ETH_P_ALL */),
				 .sll_ifindex = (int)if_nametoindex(name) };
	int s = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);

	assert_int_equal(bind(s, (struct sockaddr *)&a, sizeof(a)), 0);
	return s;
}

/* Names v0 here and v1 in the child's, which has 10.3.0.1. */
static pid_t cable(void)
{
	pid_t child = netns_child();

	assert_true(child > 0);
	assert_int_equal(run("ip link add v0 type veth peer name v1 netns %d", child), 0);
	assert_int_equal(run("nsenter -t %d -n ip addr add 10.3.0.1/24 dev v1 && "
			     "nsenter -t %d -n ip link set v1 up && ip link set v0 up",
			     child, child),
			 0);
	return child;
}

static void test_packet_socket_over_a_cable(void **state)
{
	pid_t child = cable();
	struct seen seen = { 0 };
	struct net_uplink *u = wire(packet_socket("v0"), true, &seen);
	struct inet_mac mac;

	(void)state;
	wait_link(&seen, true);
	mac = resolve(u, 0x0a030002, 0x0a030001);
	assert_true(inet_mac_single(&mac));
	assert_int_equal(run("nsenter -t %d -n ip link set v1 down", child), 0);
	wait_link(&seen, false);
	assert_non_null(strstr(seen.words, "no link"));
	assert_int_equal(run("nsenter -t %d -n ip link set v1 up", child), 0);
	wait_link(&seen, true);
	resolve(u, 0x0a030002, 0x0a030001);
	netns_end(child);
	wait_words(&seen, "the interface v0 is gone");
	u->ops->free(u);
}

static void test_tags_stay_in_frames(void **state)
{
	struct seen seen[2] = { 0 };
	struct net_frame f;
	struct net_uplink *a, *b;
	uint8_t frame[64] = { 0 };

	(void)state;
	assert_int_equal(run("ip link add w0 type veth peer name w1 && ip link set w0 up && "
			     "ip link set w1 up"),
			 0);
	a = wire(packet_socket("w0"), true, &seen[0]);
	b = wire(packet_socket("w1"), true, &seen[1]);
	memcpy(frame, "\xff\xff\xff\xff\xff\xff\x02\0\0\0\0\x09\x81\x00\x60\x2a\x12\x34hello", 23);
	send_frame(a, frame, sizeof(frame));
	assert_true(wait_frame(b, 0x1234, &f));
	assert_int_equal(f.size, sizeof(frame));
	assert_memory_equal(f.data, frame, sizeof(frame));
	b->ops->release(b);
	/* What it sent itself it does not see. */
	while (a->ops->receive(a, &f) == 1)
		assert_memory_not_equal((const uint8_t *)f.data + 6, &guest, 6);
	a->ops->free(a);
	b->ops->free(b);
	run("ip link del w0");
}

static void test_only_wanted_addresses(void **state)
{
	struct seen seen[2] = { 0 };
	struct net_uplink *a, *b;
	struct net_frame f;
	uint8_t frame[64] = { 0 };

	(void)state;
	assert_int_equal(run("ip link add x0 type veth peer name x1 && ip link set x0 up && "
			     "ip link set x1 up"),
			 0);
	a = wire(packet_socket("x0"), true, &seen[0]);
	b = wire(packet_socket("x1"), false, &seen[1]);
	assert_int_equal(net_wire_mac(b, &guest, true), 0);
	assert_int_equal(net_wire_mac(b, &guest, false), 0);
	assert_int_equal(net_wire_mac(a, &guest, false), 0);
	memcpy(frame, "\xff\xff\xff\xff\xff\xff\x02\0\0\0\0\x09\x12\x34", 14);
	send_frame(a, frame, sizeof(frame));
	assert_true(wait_frame(b, 0x1234, &f));
	a->ops->free(a);
	b->ops->free(b);
	run("ip link del x0");
}

static int macvtap_open(const char *name)
{
	char path[128], folder[] = "/tmp/partita-test-XXXXXX";
	unsigned major, minor;
	int fd = -1;
	FILE *f;

	snprintf(path, sizeof(path), "nsenter -t %d -n cat /sys/class/net/%s/macvtap/*/dev",
		 (int)getpid(), name);
	/* The file system of /sys shows the namespace in which it was mounted. */
	f = popen("unshare -m sh -c 'mount -t sysfs s /sys && cat /sys/class/net/m0/macvtap/*/dev' "
		  "2>/dev/null",
		  "r");
	if (f && fscanf(f, "%u:%u", &major, &minor) == 2 && mkdtemp(folder)) {
		snprintf(path, sizeof(path), "%s/tap", folder);
		if (mknod(path, S_IFCHR | 0600, makedev(major, minor)) == 0)
			fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
		unlink(path);
		rmdir(folder);
	}
	if (f)
		pclose(f);
	return fd;
}

static void test_macvtap(void **state)
{
	struct ifreq q = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, .ifr_name = "m0" };
	struct seen seen = { 0 };
	struct net_uplink *u;
	pid_t child = cable();
	struct net_frame f;
	int fd;

	(void)state;
	if (run("ip link add link v0 name m0 address 02:00:00:00:00:09 type macvtap mode bridge && "
		"ip link set m0 up"))
		goto unavailable;
	fd = macvtap_open("m0");
	if (fd < 0)
		goto unavailable;
	assert_int_equal(ioctl(fd, TUNSETIFF, &q), 0);
	u = wire(fd, false, &seen);
	wait_link(&seen, true);
	resolve(u, 0x0a030002, 0x0a030001);
	assert_int_equal(run("ip link del m0"), 0);
	wait_link(&seen, false);
	assert_int_equal(u->ops->receive(u, &f), -ENODEV);
	u->ops->free(u);
	netns_end(child);
	return;
unavailable:
	netns_end(child);
	print_message("no macvtap can be made here\n");
	skip();
}

static void test_other_descriptors_are_refused(void **state)
{
	struct net_wire_options o = { .loop = loop, .link = on_link };
	struct net_uplink *u;
	struct error err = { 0 };

	(void)state;
	o.fd = open("/dev/null", O_RDWR);
	assert_int_equal(net_wire_new(&o, &u, &err), -EINVAL);
	assert_non_null(strstr(err.message, "no tap"));
	o.fd = socket(AF_PACKET, SOCK_RAW, 0);
	assert_int_equal(net_wire_new(&o, &u, &err), -EINVAL);
	assert_non_null(strstr(err.message, "bound"));
	o.fd = socket(AF_PACKET, SOCK_DGRAM, 0);
	assert_int_equal(net_wire_new(&o, &u, &err), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_tap_both_ways),
		cmocka_unit_test(test_a_tap_that_goes),
		cmocka_unit_test(test_more_frames_than_a_batch),
		cmocka_unit_test(test_packet_socket_over_a_cable),
		cmocka_unit_test(test_tags_stay_in_frames),
		cmocka_unit_test(test_only_wanted_addresses),
		cmocka_unit_test(test_macvtap),
		cmocka_unit_test(test_other_descriptors_are_refused),
	};
	struct error err;
	int r;

	if (!netns_enter()) {
		puts("no network namespace can be made here");
		return 77;
	}
	if (loop_new(0, &loop, &err) < 0)
		return 1;
	r = cmocka_run_group_tests(tests, NULL, NULL);
	loop_free(loop);
	return r;
}
