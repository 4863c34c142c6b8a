// SPDX-License-Identifier: MIT
/* Hypercall input, message slots and event flags, on engine fake. */
#include "engine/fake.h"
#include "partition/partition.h"

#include <errno.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

#define SIMP  0x10000u
#define SIEFP 0x11000u
#define INPUT 0x12000u

struct fixture {
	struct gmem *gm;
	struct loop *loop;
	struct partition *p;
	struct partition_port port;
	unsigned received;
	uint8_t last[HV_MESSAGE_PAYLOAD_SIZE];
};

static void on_message(struct partition_port *port, uint32_t type, const void *payload, size_t size)
{
	struct fixture *f = container_of(port, struct fixture, port);

	assert_int_equal(type, 1);
	memcpy(f->last, payload, size);
	f->received++;
}

static int setup(void **state)
{
	struct gmem_range ram = { .gpa = 0, .size = MIB };
	struct fixture *f = calloc(1, sizeof(*f));
	struct partition_options o = { .engine = &engine_fake, .vp_count = 2 };

	assert_int_equal(gmem_new(&ram, 1, &f->gm, NULL), 0);
	assert_int_equal(loop_new(0, &f->loop, NULL), 0);
	o.gm = f->gm;
	o.loop = f->loop;
	assert_int_equal(partition_new(&o, &f->p, NULL), 0);
	f->port = (struct partition_port){ .connection_id = 1, .message = on_message };
	partition_port_open(f->p, &f->port);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	partition_free(f->p);
	loop_free(f->loop);
	gmem_free(f->gm);
	free(f);
	return 0;
}

static uint16_t post(struct fixture *f, uint64_t at, uint32_t connection, uint32_t type,
		     uint32_t size)
{
	struct hv_input_post_message m = { .connection_id = le32_of(connection),
					   .message_type = le32_of(type),
					   .payload_size = le32_of(size),
					   .payload = "hello" };

	if (at + sizeof(m) <= MIB)
		assert_int_equal(gmem_write(f->gm, at, &m, sizeof(m)), 0);
	return partition_hv_post_message(f->p, 0, at).value;
}

static void test_post_message_input(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(post(f, INPUT, 1, 1, 5), 0);
	assert_int_equal(post(f, INPUT + 4, 1, 1, 5), 4);
	assert_int_equal(post(f, INPUT + 4096 - 248, 1, 1, 5), 4);
	assert_int_equal(post(f, MIB, 1, 1, 5), 5);
	assert_int_equal(post(f, UINT64_MAX - 255 - 4096, 1, 1, 5), 5);
	assert_int_equal(post(f, INPUT, 2, 1, 5), 0x12);
	assert_int_equal(post(f, INPUT, 1, 0, 5), 5);
	assert_int_equal(post(f, INPUT, 1, 0x80000001, 5), 5);
	assert_int_equal(post(f, INPUT, 1, 1, 241), 5);
	loop_once(f->loop, 0);
	assert_int_equal(f->received, 1);
	assert_memory_equal(f->last, "hello", 5);
}

static void test_inbox_is_bounded(void **state)
{
	struct fixture *f = *state;
	unsigned accepted = 0;

	while (accepted < 10000 && !post(f, INPUT, 1, 1, 5))
		accepted++;
	assert_int_equal(post(f, INPUT, 1, 1, 5), 0x13);
	loop_once(f->loop, 0);
	assert_int_equal(f->received, accepted);
	assert_int_equal(post(f, INPUT, 1, 1, 5), 0);
}

static uint32_t slot_type(struct fixture *f, unsigned sint)
{
	return gshared_load32(gmem_page(f->gm, SIMP), sint * HV_MESSAGE_SIZE);
}

static uint8_t slot_flags(struct fixture *f, unsigned sint)
{
	return ((uint8_t *)gmem_page(f->gm, SIMP))[sint * HV_MESSAGE_SIZE + 5];
}

static void test_messages_wait_for_their_slot(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(gmem_fill(f->gm, SIMP, 0xff, 4096), 0);
	for (uint32_t i = 1; i <= 3; i++)
		assert_int_equal(partition_post_message(f->p, 1, 2, i, "x", 1), 0);
	assert_int_equal(partition_post_message(f->p, 1, 4, 9, "y", 1), 0);
	partition_vp_deliver(f->p, 1);
	assert_int_equal(fake_take_sint(partition_engine(f->p), 1, 2), 0);
	/* Enabling the page clears it; then one message goes into each slot. */
	partition_vp_synic(f->p, 1, 1, SIMP | 1, 0);
	partition_vp_deliver(f->p, 1);
	assert_int_equal(slot_type(f, 2), 1);
	assert_int_equal(slot_flags(f, 2), HV_MESSAGE_PENDING);
	assert_int_equal(slot_type(f, 4), 9);
	assert_int_equal(slot_flags(f, 4), 0);
	assert_int_equal(fake_take_sint(partition_engine(f->p), 1, 2), 1);
	partition_vp_deliver(f->p, 1); /* still busy */
	assert_int_equal(slot_type(f, 2), 1);
	for (uint32_t i = 2; i <= 3; i++) {
		gshared_store32(gmem_page(f->gm, SIMP), 2 * HV_MESSAGE_SIZE, 0);
		partition_vp_deliver(f->p, 1);
		assert_int_equal(slot_type(f, 2), i);
	}
	assert_int_equal(slot_flags(f, 2), 0);
}

static void test_message_limits(void **state)
{
	struct fixture *f = *state;
	uint8_t big[241] = { 0 };
	unsigned n = 0;

	assert_int_equal(partition_post_message(f->p, 2, 2, 1, "x", 1), -EINVAL);
	assert_int_equal(partition_post_message(f->p, 0, 16, 1, "x", 1), -EINVAL);
	assert_int_equal(partition_post_message(f->p, 0, 2, 1, big, 241), -EINVAL);
	while (n < 100000 && !partition_post_message(f->p, 0, 2, 1, big, 240))
		n++;
	assert_int_equal(partition_post_message(f->p, 0, 2, 1, big, 240), -EAGAIN);
}

static void test_event_flags(void **state)
{
	struct fixture *f = *state;
	struct engine_partition *e = partition_engine(f->p);
	uint8_t *page = gmem_page(f->gm, SIEFP);

	assert_int_equal(partition_signal_event(f->p, 0, 2, 9), -ENODEV);
	partition_vp_synic(f->p, 0, 1, 0, SIEFP | 1);
	assert_int_equal(partition_signal_event(f->p, 0, 2, 9), 0);
	assert_int_equal(page[2 * 256 + 1], 2);
	assert_int_equal(fake_take_sint(e, 0, 2), 1);
	assert_int_equal(partition_signal_event(f->p, 0, 2, 9), 0);
	assert_int_equal(fake_take_sint(e, 0, 2), 0); /* still set: the guest knows */
	assert_int_equal(partition_signal_event(f->p, 0, 2, 2048), -EINVAL);
	partition_vp_synic(f->p, 0, 1, 0, 0xfff000 | 1); /* not RAM */
	assert_int_equal(partition_signal_event(f->p, 0, 2, 9), -ENODEV);
}

static void test_event_connections(void **state)
{
	struct fixture *f = *state;
	struct partition_event e = { .connection_id = 0x2001, .eventfd = eventfd(0, EFD_NONBLOCK) };
	uint64_t count;

	assert_int_equal(partition_event_open(f->p, &e), 0);
	assert_int_equal(fake_signal_connection(partition_engine(f->p), 0x2001), 0);
	assert_int_equal(read(e.eventfd, &count, 8), 8);
	partition_event_close(f->p, &e);
	assert_int_equal(fake_signal_connection(partition_engine(f->p), 0x2001), -ENOENT);
	close(e.eventfd);
}

static void test_cpuid_identity(void **state)
{
	struct cpuid_list in = { .count = 4,
				 .entries = { { .function = 1, .ecx = 0x20 },
					      { .function = 0x40000000 },
					      { .function = 0x4000000a },
					      { .function = 0xb, .index_matters = true } } };
	struct cpuid_list *out = calloc(1, sizeof(*out));

	(void)state;
	assert_int_equal(partition_cpuid(&in, 3, 4, out), 0);
	assert_int_equal(out->count, 6); /* leaf 0x40000006 is added */
	assert_int_equal(out->entries[5].function, 0x40000006);
	assert_int_equal(out->entries[0].ebx >> 24, 3);
	assert_int_equal(out->entries[0].ecx, 0x80000000);
	assert_memory_equal(&out->entries[1].ebx, "Micr", 4);
	assert_int_equal(out->entries[3].eax, 2);
	free(out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_post_message_input, setup, teardown),
		cmocka_unit_test_setup_teardown(test_inbox_is_bounded, setup, teardown),
		cmocka_unit_test_setup_teardown(test_messages_wait_for_their_slot, setup, teardown),
		cmocka_unit_test_setup_teardown(test_message_limits, setup, teardown),
		cmocka_unit_test_setup_teardown(test_event_flags, setup, teardown),
		cmocka_unit_test_setup_teardown(test_event_connections, setup, teardown),
		cmocka_unit_test(test_cpuid_identity),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
