// SPDX-License-Identifier: MIT
/*
 * A machine's adapters and the commands about them, on a bus with a scripted guest: what a
 * description and a client may say, that descriptors are never lost, and that the guest sees
 * adapters come and go.
 */
#include "worker/adapter_control.h"

#include "vmbus/testing.h"
#include "worker/vm_description.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define ID "6e657461-0000-4000-8000-00000000000"

struct bed {
	struct test_guest *g;
	struct vm_description vm;
	struct adapters *a;
	unsigned removed, lost;
	json_t *answer;
	struct error err;
};

static void on_event(void *context, const struct adapter *adapter, const char *event, int error)
{
	struct bed *b = context;
	json_t *o = adapter_event(adapter, event, error);

	b->removed += !strcmp(json_string_value(json_object_get(o, "event")), "adapter-removed");
	b->lost += !!json_object_get(o, "error");
	json_decref(o);
}

/* With `network` as the description's list; -errno of what it is refused with. */
static int bed_open(struct bed *b, const char *network)
{
	struct adapters_options o = { .event = on_event, .context = b };
	char text[4096];
	int r;

	*b = (struct bed){ 0 };
	snprintf(text, sizeof(text),
		 "{\"name\":\"t\",\"boot\":{\"kernel\":{\"path\":\"k\"}},\"network\":%s}", network);
	r = vm_description_parse(text, strlen(text), &b->vm, &b->err);
	if (r < 0)
		return r;
	b->g = test_guest_new(1, 0, 0);
	o.loop = b->g->loop;
	o.bus = b->g->bus;
	o.description = &b->vm;
	return adapters_open(&o, &b->a, &b->err);
}

static void bed_close(struct bed *b)
{
	if (b->g)
		test_guest_stop(b->g);
	adapters_free(b->a);
	if (b->g)
		test_guest_free(b->g);
	vm_description_deinit(&b->vm);
	json_decref(b->answer);
}

/* A command with descriptors; 0 or -errno. What was not taken is closed. */
static int ask(struct bed *b, const char *text, int *fds, unsigned fd_count)
{
	struct command_family family = adapter_family(b->a);
	const struct command_family *of;
	json_t *request = json_loads(text, 0, NULL);
	struct command c = { .request = request, .fds = fds, .fd_count = fd_count };
	const struct command_type *type;
	int r;

	assert_non_null(request);
	json_decref(b->answer);
	c.answer = b->answer = json_object();
	type = command_find(&family, 1, json_string_value(json_object_get(request, "command")),
			    &of);
	assert_non_null(type);
	r = command_run(&family, type, &c, &b->err);
	for (unsigned i = 0; i < fd_count; i++)
		if (fds[i] >= 0)
			close(fds[i]);
	free(c.state);
	json_decref(request);
	return r;
}

static unsigned fds_open(void)
{
	unsigned n = 0;

	for (int fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static void test_descriptions(void **state)
{
	static const char *const bad[] = {
		"[{}]",
		"[{\"mac\":\"00:15:5d:01:02:zz\"}]",
		"[{\"mac\":\"00:15:5d:01:02:03x\"}]",
		"[{\"mac\":\"01:15:5d:01:02:03\"}]",
		"[{\"mac\":\"00:00:00:00:00:00\"}]",
		"[{\"mac\":\"00:15:5d:01:02:03\",\"id\":\"00000000-0000-0000-0000-000000000000\"}]",
		"[{\"mac\":\"00:15:5d:01:02:03\",\"id\":\"nothing-like-a-guid-but-as-long-as-one!"
		"\"}]",
		"[{\"mac\":\"00:15:5d:01:02:03\"},{\"mac\":\"00:15:5d:01:02:03\"}]",
		"[{\"mac\":\"00:15:5d:01:02:03\",\"port\":{\"memory\":200,\"socket\":201}}]",
	};
	struct bed b;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_true(bed_open(&b, bad[i]) < 0);
		assert_true(strlen(b.err.message) > 10);
		bed_close(&b);
	}
	assert_int_equal(bed_open(&b, "[{\"mac\":\"00-15-5D-01-02-03\",\"name\":\"one\"},"
				      "{\"mac\":\"00:15:5d:01:02:04\",\"speed\":1000}]"),
			 0);
	assert_int_equal(ask(&b, "{\"command\":\"adapter-query\"}", NULL, 0), 0);
	assert_int_equal(json_array_size(json_object_get(b.answer, "adapters")), 2);
	bed_close(&b);
}

static int add(struct bed *b, unsigned number, int *fds, unsigned fd_count)
{
	char text[512];

	snprintf(text, sizeof(text),
		 "{\"command\":\"adapter-add\",\"adapter\":\"" ID
		 "%u\",\"mac\":\"00:15:5d:00:00:0%u\"%s}",
		 number, number, fd_count ? ",\"memory\":0,\"socket\":1" : "");
	return ask(b, text, fds, fd_count);
}

static void test_adding_and_removing(void **state)
{
	struct vmbus_relid_message released = { .header.type = le32_of(CHANNELMSG_RELID_RELEASED) };
	struct bed b;

	(void)state;
	assert_int_equal(bed_open(&b, "[]"), 0);
	assert_true(test_guest_connect(b.g, VERSION_WIN10_V5_3));
	test_guest_request_offers(b.g);
	for (unsigned i = 1; i <= ADAPTERS_MAX; i++)
		assert_int_equal(add(&b, i, NULL, 0), 0);
	test_guest_take_offers(b.g);
	assert_int_equal(b.g->offer_count, ADAPTERS_MAX);
	assert_int_equal(add(&b, 9, NULL, 0), -ENOSPC);
	assert_int_equal(add(&b, 3, NULL, 0), -EEXIST);
	assert_int_equal(
		ask(&b, "{\"command\":\"adapter-remove\",\"adapter\":\"" ID "3\"}", NULL, 0), 0);
	assert_int_equal(
		ask(&b, "{\"command\":\"adapter-remove\",\"adapter\":\"" ID "3\",\"now\":true}",
		    NULL, 0),
		-EBUSY);
	/* The guest holds it: its place is not free, and it cannot be touched. */
	assert_int_equal(add(&b, 9, NULL, 0), -ENOSPC);
	assert_int_equal(
		ask(&b, "{\"command\":\"adapter-remove\",\"adapter\":\"" ID "3\"}", NULL, 0),
		-EBUSY);
	assert_int_equal(ask(&b,
			     "{\"command\":\"adapter-set\",\"adapter\":\"" ID "3\",\"cable\":true}",
			     NULL, 0),
			 -EBUSY);
	assert_int_equal(b.removed, 0);
	released.child_relid = b.g->offers[2].child_relid;
	test_guest_post(b.g, VMBUS_MESSAGE_CONNECTION_ID, &released, sizeof(released));
	assert_int_equal(b.removed, 1);
	assert_int_equal(add(&b, 9, NULL, 0), 0);
	assert_int_equal(
		ask(&b, "{\"command\":\"adapter-remove\",\"adapter\":\"" ID "3\"}", NULL, 0),
		-ENOENT);
	bed_close(&b);
}

static void test_ports(void **state)
{
	unsigned before = fds_open();
	struct net_port *port;
	int fds[2];
	struct bed b;

	(void)state;
	assert_int_equal(bed_open(&b, "[]"), 0);
	assert_int_equal(net_port_new(NET_RING_SIZE, &port, &b.err), 0);
	net_port_fds(port, fds);
	assert_int_equal(add(&b, 1, fds, 2), 0);
	test_guest_pump(b.g);
	net_port_free(port);
	test_guest_pump(b.g);
	assert_int_equal(b.lost, 1);
	/* What is no port, half of one, or too much. */
	fds[0] = open("/dev/null", O_RDWR);
	fds[1] = open("/dev/null", O_RDWR);
	assert_int_equal(add(&b, 2, fds, 2), -EINVAL);
	fds[0] = open("/dev/null", O_RDWR);
	assert_true(ask(&b,
			"{\"command\":\"adapter-connect\",\"adapter\":\"" ID "1\",\"memory\":0}",
			fds, 1) < 0);
	fds[0] = open("/dev/null", O_RDWR);
	assert_true(ask(&b,
			"{\"command\":\"adapter-add\",\"adapter\":\"" ID
			"5\",\"mac\":\"x\",\"memory\":0,"
			"\"socket\":1}",
			fds, 1) < 0);
	/* Another switch. */
	assert_int_equal(net_port_new(NET_RING_SIZE, &port, &b.err), 0);
	net_port_fds(port, fds);
	assert_int_equal(ask(&b,
			     "{\"command\":\"adapter-connect\",\"adapter\":\"" ID
			     "1\",\"memory\":0,\"socket\":1}",
			     fds, 2),
			 0);
	assert_int_equal(
		ask(&b, "{\"command\":\"adapter-query\",\"adapter\":\"" ID "1\"}", NULL, 0), 0);
	assert_true(json_is_true(json_object_get(
		json_array_get(json_object_get(b.answer, "adapters"), 0), "connected")));
	assert_int_equal(
		ask(&b, "{\"command\":\"adapter-disconnect\",\"adapter\":\"" ID "1\"}", NULL, 0),
		0);
	assert_int_equal(
		ask(&b, "{\"command\":\"adapter-set\",\"adapter\":\"" ID "1\",\"speed\":25000}",
		    NULL, 0),
		0);
	assert_true(ask(&b, "{\"command\":\"adapter-set\",\"adapter\":\"" ID "1\",\"speed\":-1}",
			NULL, 0) < 0);
	net_port_free(port);
	bed_close(&b);
	assert_int_equal(fds_open(), before);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_descriptions),
		cmocka_unit_test(test_adding_and_removing),
		cmocka_unit_test(test_ports),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
