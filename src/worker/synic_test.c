// SPDX-License-Identifier: MIT
/*
 * See synic_test.h. The guest's write and the connection's existence are one event for the guest,
 * so connections are made on the VP's thread; echoes of messages come from the event loop.
 */
#include "worker/synic_test.h"

#include "lib/cleanup.h"

#include <errno.h>
#include <string.h>

#define MAX_CONNECTIONS 256

enum command {
	ROUTE_CREATE = 1,
	ROUTE_DESTROY = 2,
	ROUTE_RAISE = 3,
	MESSAGE_CREATE = 4,
	EVENT_CREATE = 5,
	MESSAGE_DESTROY = 6,
	EVENT_DESTROY = 7,
};

struct target {
	struct synic_test *test;
	uint8_t vp, sint;
	bool open;
};

struct message_connection {
	struct target target;
	struct partition_port port;
};

struct event_connection {
	struct target target;
	struct partition_event event;
};

struct synic_test {
	struct partition *partition;
	struct pio_device pio;
	pthread_mutex_t lock;
	struct message_connection messages[MAX_CONNECTIONS];
	struct event_connection events[MAX_CONNECTIONS];
};

static void echo_message(struct partition_port *port, uint32_t type, const void *payload,
			 size_t size)
{
	struct message_connection *c = container_of(port, struct message_connection, port);

	(void)!partition_post_message(c->target.test->partition, c->target.vp, c->target.sint, type,
				      payload, size);
}

static void echo_event(struct partition_event *event)
{
	struct event_connection *c = container_of(event, struct event_connection, event);

	(void)partition_signal_event(c->target.test->partition, c->target.vp, c->target.sint,
				     event->connection_id);
}

static void message_set(struct synic_test *t, uint8_t id, uint8_t vp, uint8_t sint, bool open)
{
	struct message_connection *c = &t->messages[id];

	if (c->target.open == open)
		return;
	c->target = (struct target){ .test = t, .vp = vp, .sint = sint, .open = open };
	if (!open) {
		partition_port_close(t->partition, &c->port);
		return;
	}
	c->port = (struct partition_port){ .connection_id = id, .message = echo_message };
	partition_port_open(t->partition, &c->port);
}

static void event_set(struct synic_test *t, uint8_t id, uint8_t vp, uint8_t sint, bool open)
{
	struct event_connection *c = &t->events[id];

	if (c->target.open == open)
		return;
	c->target = (struct target){ .test = t, .vp = vp, .sint = sint, .open = open };
	if (!open) {
		partition_event_close(t->partition, &c->event);
		return;
	}
	c->event = (struct partition_event){ .connection_id = id,
					     .eventfd = -1,
					     .signalled = echo_event };
	c->target.open = partition_event_open(t->partition, &c->event) >= 0;
}

static void test_write(struct pio_device *d, uint16_t offset, unsigned size, uint32_t value)
{
	struct synic_test *t = container_of(d, struct synic_test, pio);
	uint8_t id = (uint8_t)(value >> 24), vp = (uint8_t)(value >> 8), sint = (uint8_t)value;
	struct engine_partition *e = partition_engine(t->partition);

	if (offset || size != 4)
		return;
	LOCK_SCOPE(&t->lock);
	switch ((enum command)(value >> 16 & 0xff)) {
	case ROUTE_CREATE:
	case ROUTE_DESTROY:
		break; /* routes are made when a SINT is first raised */
	case ROUTE_RAISE:
		(void)e->engine->sint_raise(e, vp, sint);
		break;
	case MESSAGE_CREATE:
	case MESSAGE_DESTROY:
		message_set(t, id, vp, sint, (value >> 16 & 0xff) == MESSAGE_CREATE);
		break;
	case EVENT_CREATE:
	case EVENT_DESTROY:
		event_set(t, id, vp, sint, (value >> 16 & 0xff) == EVENT_CREATE);
		break;
	}
}

static uint32_t test_read(struct pio_device *d, uint16_t offset, unsigned size)
{
	(void)d, (void)offset, (void)size;
	return UINT32_MAX;
}

int synic_test_new(struct partition *p, struct synic_test **ret, struct error *err)
{
	struct synic_test *t = calloc(1, sizeof(*t));

	if (!t)
		return error_set(err, -ENOMEM, "out of memory");
	t->partition = p;
	pthread_mutex_init(&t->lock, NULL);
	t->pio = (struct pio_device){ .name = "SynIC test",
				      .base = SYNIC_TEST_PORT,
				      .length = 4,
				      .read = test_read,
				      .write = test_write };
	*ret = t;
	return 0;
}

void synic_test_reset(struct synic_test *t)
{
	LOCK_SCOPE(&t->lock);
	for (unsigned id = 0; id < MAX_CONNECTIONS; id++) {
		message_set(t, (uint8_t)id, 0, 0, false);
		event_set(t, (uint8_t)id, 0, 0, false);
	}
}

void synic_test_free(struct synic_test *t)
{
	if (!t)
		return;
	synic_test_reset(t);
	pthread_mutex_destroy(&t->lock);
	free(t);
}

struct pio_device *synic_test_pio(struct synic_test *t)
{
	return &t->pio;
}
