// SPDX-License-Identifier: MIT
/*
 * The DHCP server: requests made byte by byte, and Debian's own clients behind a tap in a network
 * namespace.
 */
#include "net/dhcp.h"
#include "net/netns_test.h"
#include "net/uplink_wire.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <time.h>

#include <cmocka.h>

#define SECOND UINT64_C(1000000000)
#define ROUTER 0x0a000001u

static const struct dhcp_settings usual = { .mac = { { 2, 0, 0, 0, 0, 1 } },
					    .address = ROUTER,
					    .prefix = 24,
					    .first = 0x0a000010,
					    .last = 0x0a00001f,
					    .servers = { ROUTER },
					    .server_count = 1,
					    .mtu = 1400,
					    .seconds = 3600,
					    .domain = "partita.internal" };

struct ask {
	uint8_t message, machine; /* the last byte of its address */
	uint32_t client, requested, server;
	uint16_t flags;
	const void *more; /* options as they are */
	size_t more_size;
};
struct told {
	uint8_t message;
	uint32_t yours, lease, mask, router, dns;
	uint16_t mtu;
	char domain[64];
	struct inet_udp udp;
};

static struct dhcp_server *server_new(const struct dhcp_settings *settings)
{
	struct dhcp_server *s = NULL;
	struct error err = { 0 };

	if (dhcp_server_new(settings, &s, &err) < 0)
		fail_msg("%s", err.message);
	return s;
}

static void put32(struct writer *w, uint8_t code, uint32_t v)
{
	if (!v)
		return;
	writer_u8(w, code);
	writer_u8(w, 4);
	writer_be32(w, v);
}

static size_t request(uint8_t *frame, const struct ask *a)
{
	struct inet_mac mac = { { 2, 0, 0, 0, 1, a->machine } };
	uint8_t data[600] = { 0 };
	struct writer w = writer_of(data, sizeof(data));
	struct inet_udp u = { .ether = { INET_MAC_ALL, mac, 0 },
			      .ip = { a->client, UINT32_MAX, INET_UDP, false },
			      .from_port = 68,
			      .to_port = 67,
			      .data = data };

	writer_be32(&w, 0x01010600);
	writer_be32(&w, 0xabcd);
	writer_be16(&w, 0);
	writer_be16(&w, a->flags);
	writer_be32(&w, a->client);
	writer_zero(&w, 12);
	writer_put(&w, &mac, 6);
	w.at = 236;
	writer_be32(&w, 0x63825363);
	writer_u8(&w, 53);
	writer_u8(&w, 1);
	writer_u8(&w, a->message);
	put32(&w, 50, a->requested);
	put32(&w, 54, a->server);
	writer_put(&w, a->more, a->more_size);
	writer_u8(&w, 255);
	u.size = w.at;
	return inet_write_udp4(frame, 1500, &u);
}

static void read_answer(const uint8_t *frame, size_t size, struct told *t)
{
	struct reader r;
	uint8_t code;

	memset(t, 0, sizeof(*t));
	if (!size)
		return;
	assert_true(inet_read_udp4(frame, size, false, &t->udp));
	r = reader_of(t->udp.data, t->udp.size);
	reader_skip(&r, 4);
	assert_int_equal(reader_be32(&r), 0xabcd);
	reader_skip(&r, 8);
	t->yours = reader_be32(&r);
	reader_seek(&r, 240);
	while ((code = reader_u8(&r)) != 255 && reader_ok(&r)) {
		uint8_t n = reader_u8(&r);
		struct reader v = reader_of(reader_take(&r, n), n);

		if (code == 53)
			t->message = reader_u8(&v);
		else if (code == 51)
			t->lease = reader_be32(&v);
		else if (code == 1)
			t->mask = reader_be32(&v);
		else if (code == 3)
			t->router = reader_be32(&v);
		else if (code == 6)
			t->dns = reader_be32(&v);
		else if (code == 26)
			t->mtu = reader_be16(&v);
		else if (code == 15)
			reader_copy(&v, t->domain, MIN(n, sizeof(t->domain) - 1));
	}
	assert_true(reader_ok(&r));
}

static struct told ask(struct dhcp_server *s, uint64_t now, struct ask a)
{
	uint8_t frame[1514], answer[1514];
	size_t n = request(frame, &a);
	struct told t;

	assert_true(dhcp_server_wants(frame, n));
	read_answer(answer, dhcp_server_frame(s, frame, n, false, now, answer, sizeof(answer)), &t);
	return t;
}

static uint32_t lease(struct dhcp_server *s, uint64_t now, uint8_t machine)
{
	struct told t = ask(s, now, (struct ask){ .message = 1, .machine = machine });
	uint32_t a = t.yours;

	if (t.message != 2)
		return 0;
	t = ask(s, now,
		(struct ask){ .message = 3, .machine = machine, .requested = a, .server = ROUTER });
	assert_int_equal(t.message, 5);
	assert_int_equal(t.yours, a);
	return a;
}

static void test_an_address_and_all_that_goes_with_it(void **state)
{
	struct dhcp_server *s = server_new(&usual);
	struct told t = ask(s, 1, (struct ask){ .message = 1, .machine = 7 });

	(void)state;
	assert_int_equal(t.message, 2);
	assert_in_range(t.yours, usual.first, usual.last);
	assert_int_equal(t.udp.ip.to, t.yours);
	assert_int_equal(t.mask, 0xffffff00);
	assert_int_equal(t.router, ROUTER);
	assert_int_equal(t.dns, ROUTER);
	assert_int_equal(t.mtu, 1400);
	assert_int_equal(t.lease, 3600);
	assert_string_equal(t.domain, "partita.internal");
	t = ask(s, 1, (struct ask){ .message = 1, .machine = 7, .flags = 0x8000 });
	assert_int_equal(t.udp.ip.to, UINT32_MAX);
	assert_memory_equal(&t.udp.ether.to, &INET_MAC_ALL, 6);
	dhcp_server_free(s);
}

static void test_the_same_address_each_time(void **state)
{
	struct dhcp_server *s = server_new(&usual), *again = server_new(&usual);
	uint32_t a = lease(s, 1, 7);

	(void)state;
	assert_int_equal(lease(s, 2, 7), a);
	assert_int_equal(lease(s, 10000 * SECOND, 7), a);
	/* Another server, which knows nothing: by itself, and because the client asks. */
	assert_int_equal(lease(again, 1, 7), a);
	assert_int_equal(
		ask(again, 1, (struct ask){ .message = 3, .machine = 9, .client = a + 1 }).message,
		a + 1 <= usual.last ? 5 : 6);
	dhcp_server_free(s);
	dhcp_server_free(again);
}

static void test_renew_rebind_reboot(void **state)
{
	struct dhcp_server *s = server_new(&usual);
	uint32_t a = lease(s, 1, 7), b = lease(s, 1, 8);
	struct told t;

	(void)state;
	assert_int_not_equal(a, b);
	t = ask(s, SECOND * 1800, (struct ask){ .message = 3, .machine = 7, .client = a });
	assert_int_equal(t.message, 5);
	assert_int_equal(t.udp.ip.to, a);
	assert_non_null(dhcp_server_find_address(s, a, SECOND * 5000));
	assert_null(dhcp_server_find_address(s, b, SECOND * 5000));
	assert_int_equal(
		ask(s, 1, (struct ask){ .message = 3, .machine = 7, .requested = a }).message, 5);
	/* What is another's, or elsewhere, is denied at once. */
	t = ask(s, 1, (struct ask){ .message = 3, .machine = 7, .requested = b });
	assert_int_equal(t.message, 6);
	assert_int_equal(t.udp.ip.to, UINT32_MAX);
	assert_int_equal(t.yours, 0);
	assert_int_equal(
		ask(s, 1, (struct ask){ .message = 3, .machine = 7, .requested = 0xc0a80005 })
			.message,
		6);
	assert_int_equal(
		ask(s, 1, (struct ask){ .message = 3, .machine = 7, .requested = ROUTER }).message,
		6);
	dhcp_server_free(s);
}

static void test_release_and_another_server(void **state)
{
	struct dhcp_server *s = server_new(&usual);
	uint32_t a = lease(s, 1, 7);

	(void)state;
	ask(s, 2, (struct ask){ .message = 7, .machine = 8, .client = a, .server = ROUTER });
	assert_non_null(dhcp_server_find_address(s, a, 3));
	ask(s, 2, (struct ask){ .message = 7, .machine = 7, .client = a, .server = ROUTER });
	assert_null(dhcp_server_find_address(s, a, 3));
	assert_int_equal(
		ask(s, 3,
		    (struct ask){ .message = 3, .machine = 8, .requested = a, .server = ROUTER })
			.message,
		5);
	assert_int_equal(
		ask(s, 3,
		    (struct ask){
			    .message = 3, .machine = 7, .requested = a, .server = 0x0a0000fe })
			.message,
		0);
	dhcp_server_free(s);
}

static void test_declined_addresses_are_bounded(void **state)
{
	struct dhcp_server *s = server_new(&usual);
	uint32_t first = lease(s, 1, 7), a = first;
	unsigned count, declined = 0;
	const struct dhcp_lease *l;

	(void)state;
	ask(s, 2, (struct ask){ .message = 4, .machine = 7, .requested = a, .server = ROUTER });
	a = lease(s, 3, 7);
	assert_int_not_equal(a, first);
	assert_int_equal(
		ask(s, 3, (struct ask){ .message = 3, .machine = 9, .requested = first }).message,
		6);
	for (unsigned i = 0; i < 100; i++) {
		ask(s, 4 + i,
		    (struct ask){ .message = 4, .machine = 7, .requested = a, .server = ROUTER });
		a = lease(s, 4 + i, 7);
		assert_int_not_equal(a, 0);
	}
	l = dhcp_server_leases(s, &count);
	for (unsigned i = 0; i < count; i++)
		declined += l[i].state == DHCP_DECLINED;
	assert_int_equal(declined, 4);
	/* It comes back with time. */
	assert_int_not_equal(lease(s, 3 * DHCP_DECLINED_NS, 7), 0);
	dhcp_server_free(s);
}

static void test_more_machines_than_addresses(void **state)
{
	struct dhcp_server *s = server_new(&usual);
	uint32_t seen = 0;

	(void)state;
	for (uint8_t i = 0; i < 16; i++) {
		uint32_t a = lease(s, 1, i);

		assert_in_range(a, usual.first, usual.last);
		assert_false(seen & BIT(a - usual.first));
		seen |= BIT(a - usual.first);
	}
	assert_int_equal(lease(s, 1, 99), 0);
	assert_int_not_equal(lease(s, 4000 * SECOND, 99), 0);
	dhcp_server_free(s);
}

static void test_what_is_known_is_bounded(void **state)
{
	struct dhcp_settings wide = usual;
	struct dhcp_server *s;
	unsigned count;
	uint8_t frame[1514], answer[1514];

	(void)state;
	wide.prefix = 16;
	wide.last = 0x0a00fff0;
	s = server_new(&wide);
	for (unsigned i = 0; i < 3000; i++) {
		struct ask a = { .message = 1 };
		size_t n = request(frame, &a);

		/* Two machines more in each of the 64 Ki */
		memcpy(frame + 8, &(be32){ htobe32(i) }, 4);
		memcpy(frame + 42 + 30, &(be32){ htobe32(i) }, 4);
		dhcp_server_frame(s, frame, n, true, i, answer, sizeof(answer));
	}
	dhcp_server_leases(s, &count);
	assert_int_equal(count, DHCP_LEASES_MAX);
	/* Those were offers; they make room when they have run out. */
	assert_int_not_equal(lease(s, DHCP_OFFER_NS + 3001, 5), 0);
	dhcp_server_free(s);
}

static const char *name_after(const void *options, size_t size)
{
	static char name[DHCP_NAME_MAX + 1];
	struct dhcp_server *s = server_new(&usual);
	unsigned count;

	ask(s, 1, (struct ask){ .message = 1, .machine = 1, .more = options, .more_size = size });
	strcpy(name, dhcp_server_leases(s, &count)[0].name);
	assert_int_equal(count, 1);
	dhcp_server_free(s);
	return name;
}

static void test_names_of_clients(void **state)
{
	uint8_t longest[66] = { 12, 64 };

	(void)state;
	assert_string_equal(name_after("\x0c\x03Web", 5), "web");
	assert_string_equal(name_after("\x0c\x0bweb.example", 13), "web");
	assert_string_equal(name_after("\x0c\x04-web", 6), "");
	assert_string_equal(name_after("\x0c\x04w\0eb", 6), "w");
	assert_string_equal(name_after("\x0c\x04w b!", 6), "");
	assert_string_equal(name_after("\x51\x08\x05\0\0\x03web\0", 10), "web");
	assert_string_equal(name_after("\x51\x06\x01\0\0web", 8), "web");
	assert_string_equal(name_after("\x51\x05\x05\0\0\x30w", 7), "");
	memset(longest + 2, 'a', 64);
	assert_string_equal(name_after(longest, sizeof(longest)), "");
}

static void test_hostile_requests_get_nothing(void **state)
{
	struct dhcp_server *s = server_new(&usual);
	struct ask discover = { .message = 1, .machine = 7 };
	uint8_t frame[1514], answer[1514], broken[1514];
	size_t n = request(frame, &discover);
	static const struct {
		unsigned at, value;
	} changes[] = {
		{ 42, 2 },        /* an answer */
		{ 43, 6 },        /* other hardware */
		{ 44, 16 },       /* long addresses */
		{ 42 + 24, 10 },  /* by a relay */
		{ 42 + 33, 8 },   /* another's address */
		{ 42 + 236, 1 },  /* no cookie */
		{ 42 + 241, 9 },  /* options that end behind the end */
		{ 42 + 242, 99 }, /* an unknown message */
		{ 42 + 242, 0 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(changes); i++) {
		memcpy(broken, frame, n);
		broken[changes[i].at] = (uint8_t)changes[i].value;
		if (dhcp_server_frame(s, broken, n, true, 1, answer, sizeof(answer)))
			fail_msg("change %zu was answered", i);
	}
	for (size_t i = 0; i < n; i++)
		assert_int_equal(dhcp_server_frame(s, frame, i, true, 1, answer, sizeof(answer)),
				 0);
	/* The same option twice, so that guards would see another than we. */
	assert_int_equal(
		ask(s, 1,
		    (struct ask){
			    .message = 1, .machine = 7, .more = "\x35\x01\x03", .more_size = 3 })
			.message,
		0);
	frame[42 + 100] ^= 1; /* its checksum is wrong then */
	assert_int_equal(dhcp_server_frame(s, frame, n, false, 1, answer, sizeof(answer)), 0);
	frame[42 + 100] ^= 1;
	assert_int_equal(dhcp_server_frame(s, frame, n, false, 1, answer, 100), 0);
	assert_true(dhcp_server_frame(s, frame, n, false, 1, answer, sizeof(answer)) > 0);
	dhcp_server_free(s);
}

static void test_inform(void **state)
{
	struct dhcp_server *s = server_new(&usual);
	struct told t = ask(s, 1, (struct ask){ .message = 8, .machine = 7, .client = ROUTER + 1 });

	(void)state;
	assert_int_equal(t.message, 5);
	assert_int_equal(t.yours, 0);
	assert_int_equal(t.lease, 0);
	assert_int_equal(t.dns, ROUTER);
	assert_int_equal(
		ask(s, 1, (struct ask){ .message = 8, .machine = 7, .client = 0xc0a80001 }).message,
		0);
	dhcp_server_free(s);
}

static void test_settings_that_do_not_fit(void **state)
{
	struct dhcp_settings t = usual;
	struct dhcp_server *s;
	struct error err;

	(void)state;
	t.prefix = 30;
	assert_int_equal(dhcp_server_new(&t, &s, &err), -EINVAL);
	t = usual;
	t.last = 0x0a0000ff;
	assert_int_equal(dhcp_server_new(&t, &s, &err), -EINVAL);
	t = usual;
	t.first = 0x0a000000;
	assert_int_equal(dhcp_server_new(&t, &s, &err), -EINVAL);
	t = usual;
	t.first = 0x0a010010;
	assert_int_equal(dhcp_server_new(&t, &s, &err), -EINVAL);
}

/* ---- real clients ---- */

static void on_link(void *context, bool up, const char *words)
{
	(void)context;
	(void)up;
	(void)words;
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec;
}

static void serve(struct dhcp_server *s, struct net_uplink *u)
{
	struct net_offload none = { 0 };
	uint8_t answer[1514];
	struct net_frame f;

	while (u->ops->receive(u, &f) == 1) {
		size_t n =
			dhcp_server_frame(s, f.data, f.size, f.offload.flags & NET_CHECKSUM_NEEDED,
					  now_ns(), answer, sizeof(answer));
		struct iovec iov = { answer, n };

		if (n)
			assert_int_equal(u->ops->send(u, &none, &iov, 1, n), 0);
	}
	u->ops->release(u);
}

/* Runs a client of the system, which configures d0; its exit status. */
static int with_client(struct dhcp_server *s, struct net_uplink *u, const char *command)
{
	pid_t pid = fork();
	int status = -1;

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		execl("/bin/sh", "sh", "-c", command, (char *)NULL);
		_exit(127);
	}
	for (unsigned i = 0; i < 3000 && waitpid(pid, &status, WNOHANG) == 0; i++) {
		struct pollfd p = { .fd = u->fd, .events = POLLIN };

		poll(&p, 1, 10);
		serve(s, u);
	}
	for (unsigned i = 0; i < 20; i++) { /* what it said last */
		serve(s, u);
		usleep(1000);
	}
	return status;
}

static void client(const char *program, const char *get, const char *give_back)
{
	struct net_wire_options o = { .link = on_link };
	struct dhcp_server *s = server_new(&usual);
	struct net_uplink *u = NULL;
	const struct dhcp_lease *l;
	struct error err;
	unsigned count;

	if (run("command -v %s >/dev/null", program)) {
		print_message("there is no %s\n", program);
		skip();
	}
	assert_int_equal(loop_new(0, &o.loop, &err), 0);
	o.fd = tap_make("d0");
	assert_int_equal(net_wire_new(&o, &u, &err), 0);
	assert_int_equal(run("ip link set d0 address 02:00:00:00:01:07 up && ip neigh add "
			     "10.0.0.1 lladdr 02:00:00:00:00:01 dev d0"),
			 0);
	assert_int_equal(with_client(s, u, get), 0);
	l = dhcp_server_leases(s, &count);
	assert_int_equal(count, 1);
	assert_int_equal(l->state, DHCP_LEASED);
	assert_string_equal(l->name, "web");
	assert_int_equal(
		run("ip -4 addr show dev d0 | grep -q 'inet 10.0.0.%u/24'", l->address & 0xff), 0);
	if (give_back) {
		assert_int_equal(with_client(s, u, give_back), 0);
		assert_int_equal(dhcp_server_leases(s, &count)->state, DHCP_FREE);
	}
	u->ops->free(u);
	loop_free(o.loop);
	dhcp_server_free(s);
}

#define SCRIPT                                                                                     \
	"#!/bin/sh\\ncase $reason$1 in BOUND|*bound) ip addr add "                                 \
	"${new_ip_address:-$ip}/24 dev d0;; esac\\n"

static void test_isc_dhclient(void **state)
{
	(void)state;
	client("dhclient",
	       "d=$(mktemp -d) && printf '" SCRIPT "' >$d/s && chmod +x $d/s && echo "
	       "'send host-name \"web\";' >$d/c && dhclient -1 -q -4 -sf $d/s -cf $d/c -lf $d/l "
	       "-pf "
	       "$d/p d0; r=$?; mv $d /tmp/partita-dhclient-$PPID; exit $r",
	       "d=/tmp/partita-dhclient-$PPID; dhclient -r -q -4 -sf $d/s -cf $d/c -lf $d/l -pf "
	       "$d/p "
	       "d0; r=$?; rm -r $d; exit $r");
}

static void test_busybox_udhcpc(void **state)
{
	(void)state;
	client("busybox",
	       "d=$(mktemp -d) && printf '" SCRIPT "' >$d/s && chmod +x $d/s && "
	       "busybox udhcpc -q -n -f -i d0 -x hostname:web -s $d/s 2>/dev/null; r=$?; rm -r $d; "
	       "exit $r",
	       NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_an_address_and_all_that_goes_with_it),
		cmocka_unit_test(test_the_same_address_each_time),
		cmocka_unit_test(test_renew_rebind_reboot),
		cmocka_unit_test(test_release_and_another_server),
		cmocka_unit_test(test_declined_addresses_are_bounded),
		cmocka_unit_test(test_more_machines_than_addresses),
		cmocka_unit_test(test_what_is_known_is_bounded),
		cmocka_unit_test(test_names_of_clients),
		cmocka_unit_test(test_hostile_requests_get_nothing),
		cmocka_unit_test(test_inform),
		cmocka_unit_test(test_settings_that_do_not_fit),
	};
	const struct CMUnitTest clients[] = {
		cmocka_unit_test(test_isc_dhclient),
		cmocka_unit_test(test_busybox_udhcpc),
	};
	int r = cmocka_run_group_tests(tests, NULL, NULL);

	if (netns_enter())
		r += cmocka_run_group_tests(clients, NULL, NULL);
	else
		puts("no network namespace can be made here: clients were not tried");
	return r;
}
