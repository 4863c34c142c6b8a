// SPDX-License-Identifier: MIT
/* Sockets between a scripted guest and programs on Unix sockets. */
#include "devices/hvsock/hvsock.h"
#include "devices/hvsock/hvsock_proto.h"
#include "lib/unix_socket.h"
#include "vmbus/testing.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

static const struct guid port_7 =
	GUID(7, 0xfacb, 0x11e6, 0xbd, 0x58, 0x64, 0x00, 0x6a, 0x79, 0x86, 0xd3);
static const struct guid endpoint =
	GUID(0x80000001, 0xfacb, 0x11e6, 0xbd, 0x58, 0x64, 0x00, 0x6a, 0x79, 0x86, 0xd3);

struct bench {
	struct test_guest *g;
	struct hvsock *h;
	char path[64];
	struct test_channel ch;
	uint8_t packet[20000];
};

static void bench_begin(struct bench *b)
{
	struct error err = { 0 };
	int fd;

	memset(b, 0, sizeof(*b));
	b->g = test_guest_new(1, 0, 0);
	assert_true(test_guest_connect(b->g, VERSION_COPPER));
	test_guest_request_offers(b->g);
	snprintf(b->path, sizeof(b->path), "/tmp/partita-hvsock-%d", getpid());
	fd = unix_listen(b->path, 0, 8, &err);
	assert_true(fd >= 0);
	assert_int_equal(hvsock_new(b->g->loop, b->g->bus, fd, &b->h, &err), 0);
}

static void bus_stop(void *context)
{
	*(bool *)context = true;
}

static void bench_end(struct bench *b)
{
	bool done = false;

	vmbus_reset(b->g->bus, bus_stop, &done);
	while (!done)
		assert_true(loop_once(b->g->loop, 1000) >= 0);
	hvsock_free(b->h);
	if (b->ch.guest) {
		ring_deinit(&b->ch.in);
		ring_deinit(&b->ch.out);
	}
	test_guest_free(b->g);
	unlink(b->path);
}

static int program(struct bench *b, const char *line)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(a.sun_path, sizeof(a.sun_path), "%s", b->path);
	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(write(fd, line, strlen(line)), strlen(line));
	for (int i = 0; i < 3; i++)
		test_guest_pump(b->g);
	return fd;
}

/* What is there to read; "" when nothing, "END" at the end. */
static const char *reads(struct bench *b, int fd)
{
	static char text[65536];
	ssize_t n;

	for (int i = 0; i < 4; i++)
		test_guest_pump(b->g);
	n = recv(fd, text, sizeof(text) - 1, MSG_DONTWAIT);
	if (n == 0 || (n < 0 && errno == ECONNRESET))
		return "END";
	text[n > 0 ? n : 0] = '\0';
	return text;
}

#define assert_says(b, fd, start) assert_memory_equal(reads(b, fd), start, strlen(start))

static const struct vmbus_offer_channel *last_offer(struct bench *b)
{
	test_guest_take_offers(b->g);
	return b->g->offer_count ? &b->g->offers[b->g->offer_count - 1] : NULL;
}

static void open_channel(struct bench *b)
{
	const struct vmbus_offer_channel *o = last_offer(b);

	assert_non_null(o);
	assert_int_equal(le16_get(o->flags), VMBUS_OFFER_ENUMERATE_DEVICE_INTERFACE |
						     VMBUS_OFFER_NAMED_PIPE_MODE |
						     VMBUS_OFFER_TLNPI_PROVIDER);
	assert_memory_equal(&o->interface, &port_7, 16);
	assert_true(test_channel_open(b->g, o, 6, &b->ch));
}

static void guest_sends_as(struct bench *b, uint32_t type, uint32_t says, const void *data,
			   size_t size)
{
	struct writer w = writer_of(b->packet, sizeof(b->packet));

	writer_le32(&w, type);
	writer_le32(&w, says);
	if (size)
		writer_put(&w, data, size);
	assert_int_equal(test_channel_send(&b->ch, VMBUS_PACKET_INBAND, 0, b->packet, w.at, 0), 0);
	test_channel_signal(&b->ch);
	for (int i = 0; i < 4; i++)
		test_guest_pump(b->g);
}

static void guest_sends(struct bench *b, const void *data, size_t size)
{
	guest_sends_as(b, VMPIPE_DATA, (uint32_t)size, data, size);
}

/* Bytes of the next packet; -1 none, 0 the end. */
static int guest_gets(struct bench *b, char *data, size_t room)
{
	int n = test_channel_receive(&b->ch, b->packet, sizeof(b->packet));
	struct reader r;
	uint32_t size;

	if (n <= 0)
		return -1;
	r = reader_of(b->packet, (size_t)n);
	reader_skip(&r, sizeof(struct vmbus_packet_descriptor));
	assert_int_equal(reader_le32(&r), VMPIPE_DATA);
	size = reader_le32(&r);
	assert_true(size <= room);
	reader_copy(&r, data, size);
	assert_true(reader_ok(&r));
	return (int)size;
}

/* The host's message about the channel: rescinded. */
static bool rescinded(struct bench *b)
{
	uint8_t m[HV_MESSAGE_PAYLOAD_SIZE];

	for (int i = 0; i < 20; i++) {
		test_guest_pump(b->g);
		while (test_guest_receive(b->g, 0, m))
			if (m[0] == CHANNELMSG_RESCIND_CHANNELOFFER)
				return true;
	}
	return false;
}

static void release(struct bench *b)
{
	uint8_t m[12] = { CHANNELMSG_RELID_RELEASED };

	memcpy(m + 8, &b->ch.relid, 4);
	test_guest_post(b->g, VMBUS_MESSAGE_CONNECTION_ID, m, sizeof(m));
}

static void guest_connects(struct bench *b, const struct guid *service)
{
	uint8_t m[40] = { CHANNELMSG_TL_CONNECT_REQUEST };

	memcpy(m + 8, &endpoint, 16);
	memcpy(m + 24, service, 16);
	test_guest_post(b->g, VMBUS_MESSAGE_CONNECTION_ID, m, sizeof(m));
}

/* --- tests --- */

static void test_a_program_connects_to_the_guest(void **state)
{
	struct bench b;
	char data[20000];
	int fd;

	(void)state;
	bench_begin(&b);
	fd = program(&b, "CONNECT 7\nfirst");
	open_channel(&b);
	assert_int_equal(b.g->offers[b.g->offer_count - 1].user_defined[4], 1);
	assert_says(&b, fd, "OK 1073741824\n");
	assert_int_equal(guest_gets(&b, data, sizeof(data)), 5);
	assert_memory_equal(data, "first", 5);
	guest_sends(&b, "hello", 5);
	assert_string_equal(reads(&b, fd), "hello");
	/* The guest has ended; the program may still send. */
	guest_sends(&b, NULL, 0);
	assert_string_equal(reads(&b, fd), "END");
	assert_int_equal(write(fd, "more", 4), 4);
	test_guest_pump(b.g);
	assert_int_equal(guest_gets(&b, data, sizeof(data)), 4);
	assert_false(rescinded(&b));
	shutdown(fd, SHUT_WR);
	assert_true(rescinded(&b));
	assert_int_equal(hvsock_stats(b.h).connections, 1);
	release(&b);
	assert_int_equal(hvsock_stats(b.h).connections, 0);
	assert_int_equal(hvsock_stats(b.h).broken, 0);
	close(fd);
	bench_end(&b);
}

static void test_a_program_ends_first(void **state)
{
	struct bench b;
	char data[20000];
	int fd;

	(void)state;
	bench_begin(&b);
	fd = program(&b, "CONNECT 00000007-facb-11e6-bd58-64006a7986d3\r\n");
	open_channel(&b);
	assert_says(&b, fd, "OK ");
	shutdown(fd, SHUT_WR);
	test_guest_pump(b.g);
	assert_int_equal(guest_gets(&b, data, sizeof(data)), 0);
	guest_sends(&b, "late", 4);
	assert_string_equal(reads(&b, fd), "late");
	guest_sends(&b, NULL, 0);
	assert_true(rescinded(&b));
	assert_string_equal(reads(&b, fd), "END");
	release(&b);
	close(fd);
	bench_end(&b);
}

static void test_the_guest_connects_to_a_program(void **state)
{
	char space[CMSG_SPACE(sizeof(int))], line[100], data[100];
	struct iovec iov = { line, sizeof(line) };
	struct msghdr m = { .msg_iov = &iov,
			    .msg_iovlen = 1,
			    .msg_control = space,
			    .msg_controllen = sizeof(space) };
	struct bench b;
	int listener, other, fd;

	(void)state;
	bench_begin(&b);
	guest_connects(&b, &port_7); /* nobody is there */
	assert_int_equal(hvsock_stats(b.h).refused, 1);
	listener = program(&b, "LISTEN 7\n");
	assert_says(&b, listener, "OK ");
	other = program(&b, "LISTEN 7\n");
	assert_says(&b, other, "ERROR somebody listens");
	close(other);
	guest_connects(&b, &port_7);
	assert_true(recvmsg(listener, &m, MSG_DONTWAIT) > 0);
	assert_memory_equal(line, "CONNECTED 80000001-facb-11e6-bd58-64006a7986d3\n", 47);
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof(fd));
	guest_connects(&b, &port_7); /* the same endpoint again */
	assert_int_equal(hvsock_stats(b.h).refused, 2);
	open_channel(&b);
	assert_memory_equal(&b.g->offers[b.g->offer_count - 1].instance, &endpoint, 16);
	assert_int_equal(b.g->offers[b.g->offer_count - 1].user_defined[4], 0);
	guest_sends(&b, "ping", 4);
	assert_string_equal(reads(&b, fd), "ping");
	assert_int_equal(write(fd, "pong", 4), 4);
	test_guest_pump(b.g);
	assert_int_equal(guest_gets(&b, data, sizeof(data)), 4);
	close(listener);
	test_guest_pump(b.g);
	assert_int_equal(hvsock_stats(b.h).listeners, 0);
	close(fd); /* and with it both directions */
	test_guest_pump(b.g);
	assert_int_equal(guest_gets(&b, data, sizeof(data)), 0);
	guest_sends(&b, "x", 1);
	assert_true(rescinded(&b));
	assert_int_equal(hvsock_stats(b.h).broken, 1);
	release(&b);
	bench_end(&b);
}

static void test_backpressure_is_whole(void **state)
{
	static uint8_t block[4088];
	struct bench b;
	static char data[20000];
	uint64_t sent = 0, got = 0;
	int fd, n;

	(void)state;
	bench_begin(&b);
	fd = program(&b, "CONNECT 7\n");
	open_channel(&b);
	assert_says(&b, fd, "OK ");
	/* The program does not read: the guest's ring fills, and is not emptied. */
	for (size_t i = 0; i < sizeof(block); i++)
		block[i] = (uint8_t)(i * 13);
	for (int i = 0; i < 4000; i++) {
		struct writer w = writer_of(b.packet, sizeof(b.packet));

		writer_le32(&w, VMPIPE_DATA);
		writer_le32(&w, sizeof(block));
		writer_put(&w, block, sizeof(block));
		if (test_channel_send(&b.ch, VMBUS_PACKET_INBAND, 0, b.packet, w.at, 0) < 0)
			break;
		test_channel_signal(&b.ch);
		sent += sizeof(block);
		for (int k = 0; k < 4; k++)
			test_guest_pump(b.g);
	}
	assert_true(sent < 4000 * sizeof(block));
	for (int idle = 0; got < sent && idle < 100;) {
		for (int k = 0; k < 4; k++)
			test_guest_pump(b.g);
		n = (int)recv(fd, data, sizeof(data), MSG_DONTWAIT);
		idle = n > 0 ? 0 : idle + 1;
		for (int i = 0; i < n; i++)
			assert_int_equal((uint8_t)data[i], block[(got + (unsigned)i) % 4088]);
		got += n > 0 ? (uint64_t)n : 0;
	}
	assert_int_equal(got, sent);
	/* The other way: the guest does not read. */
	sent = got = 0;
	while ((n = (int)send(fd, block, sizeof(block), MSG_DONTWAIT)) > 0) {
		sent += (unsigned)n;
		test_guest_pump(b.g);
	}
	for (int idle = 0; got < sent && idle < 100;) {
		n = guest_gets(&b, data, sizeof(data));
		idle = n > 0 ? 0 : idle + 1;
		for (int i = 0; i < n; i++)
			assert_int_equal((uint8_t)data[i], block[(got + (unsigned)i) % 4088]);
		got += n > 0 ? (uint64_t)n : 0;
		test_channel_signal(&b.ch);
	}
	assert_int_equal(got, sent);
	close(fd);
	bench_end(&b);
}

static void test_a_guest_that_breaks_the_rules_loses_the_connection(void **state)
{
	static const struct {
		uint32_t type, says;
	} wrong[] = { { 2, 4 }, { VMPIPE_DATA, 100 }, { VMPIPE_DATA, 0xffffffff } };

	(void)state;
	for (size_t i = 0; i <= ARRAY_SIZE(wrong); i++) {
		struct bench b;
		int fd;

		bench_begin(&b);
		fd = program(&b, "CONNECT 7\n");
		open_channel(&b);
		assert_says(&b, fd, "OK ");
		if (i < ARRAY_SIZE(wrong)) {
			guest_sends_as(&b, wrong[i].type, wrong[i].says, "1234", 4);
		} else {
			guest_sends(&b, NULL, 0);
			guest_sends(&b, "after the end", 13);
		}
		assert_true(rescinded(&b));
		assert_int_equal(hvsock_stats(b.h).broken, 1);
		assert_string_equal(reads(&b, fd), "END");
		close(fd);
		bench_end(&b);
	}
}

static void test_what_makes_no_sense_is_refused(void **state)
{
	static const char *const lines[] = { "HELLO\n",       "CONNECT\n",
					     "CONNECT -1\n",  "CONNECT 2147483648\n",
					     "CONNECT 7 8\n", "\n",
					     "LISTEN x\n" };
	char longer[HVSOCK_LINE_MAX + 1];
	struct bench b;
	int fd;

	(void)state;
	bench_begin(&b);
	for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
		fd = program(&b, lines[i]);
		assert_says(&b, fd, "ERROR ");
		assert_string_equal(reads(&b, fd), "END");
		close(fd);
	}
	memset(longer, 'x', sizeof(longer));
	longer[HVSOCK_LINE_MAX] = '\0';
	fd = program(&b, longer);
	assert_string_equal(reads(&b, fd), "END");
	close(fd);
	/* In two pieces. */
	fd = program(&b, "LIST");
	assert_string_equal(reads(&b, fd), "");
	assert_int_equal(write(fd, "EN 9\n", 5), 5);
	assert_says(&b, fd, "OK ");
	close(fd);
	bench_end(&b);
}

static void test_limits_hold(void **state)
{
	int fds[HVSOCK_CLIENTS_MAX + 5], listeners[HVSOCK_LISTENERS_MAX + 1];
	char line[40];
	struct bench b;

	(void)state;
	bench_begin(&b);
	for (unsigned i = 0; i < ARRAY_SIZE(fds); i++)
		fds[i] = program(&b, "LIS");
	assert_int_equal(hvsock_stats(b.h).clients, HVSOCK_CLIENTS_MAX);
	for (unsigned i = 0; i < ARRAY_SIZE(fds); i++) {
		close(fds[i]);
		for (int k = 0; k < 4; k++)
			test_guest_pump(b.g);
	}
	assert_int_equal(hvsock_stats(b.h).clients, 0);
	for (unsigned i = 0; i < ARRAY_SIZE(listeners); i++) {
		snprintf(line, sizeof(line), "LISTEN %u\n", 100 + i);
		listeners[i] = program(&b, line);
		assert_says(&b, listeners[i], i < HVSOCK_LISTENERS_MAX ? "OK " : "ERROR ");
	}
	for (unsigned i = 0; i < ARRAY_SIZE(listeners); i++)
		close(listeners[i]);
	bench_end(&b);
}

static void test_a_reset_ends_all(void **state)
{
	struct bench b;
	int open, offered;

	(void)state;
	bench_begin(&b);
	open = program(&b, "CONNECT 7\n");
	open_channel(&b);
	assert_says(&b, open, "OK ");
	offered = program(&b, "CONNECT 8\n");
	bench_end(&b);
	close(open);
	close(offered);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_program_connects_to_the_guest),
		cmocka_unit_test(test_a_program_ends_first),
		cmocka_unit_test(test_the_guest_connects_to_a_program),
		cmocka_unit_test(test_backpressure_is_whole),
		cmocka_unit_test(test_a_guest_that_breaks_the_rules_loses_the_connection),
		cmocka_unit_test(test_what_makes_no_sense_is_refused),
		cmocka_unit_test(test_limits_hold),
		cmocka_unit_test(test_a_reset_ends_all),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
