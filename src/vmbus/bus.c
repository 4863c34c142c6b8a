// SPDX-License-Identifier: MIT
/*
 * The bus: the connection's life and the table of messages. INITIATE_CONTACT may come at any time
 * (reset, kexec, kdump, firmware handing over) and first closes all that the previous owner had
 * open; the answer waits until no device touches guest memory any more. So does that of UNLOAD.
 */
#include "vmbus/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const uint32_t versions[] = {
	VERSION_WIN8,       VERSION_WIN8_1,     VERSION_WIN10,
	VERSION_WIN10_V4_1, VERSION_WIN10_V5,   VERSION_WIN10_V5_1,
	VERSION_WIN10_V5_2, VERSION_WIN10_V5_3, VERSION_COPPER,
};
#define SUPPORTED_FEATURES (VMBUS_FEATURE_GUEST_SIGNAL_PARAMETERS | VMBUS_FEATURE_CLIENT_ID)

/* A guest that lets thousands of messages pile up loses what comes after: it is not reading. */
void bus_send(struct vmbus *bus, const void *message, size_t size)
{
	if (bus->state == BUS_CLOSING)
		return; /* the previous connection's guest is gone */
	(void)!partition_post_message(bus->partition, bus->message_vp, bus->sint,
				      VMBUS_MESSAGE_TYPE, message, size);
}

/* --- contact --- */

bool bus_version_supported(const struct vmbus *bus, uint32_t version)
{
	for (size_t i = 0; i < ARRAY_SIZE(versions); i++)
		if (versions[i] == version)
			return version <= bus->max_version;
	return false;
}

static void disconnect(struct vmbus *bus)
{
	bus_forget_channels(bus);
	gpadls_free(bus);
	bus->state = BUS_DISCONNECTED;
	bus->offers_requested = false;
	bus->version = 0;
	bus->features = 0;
	bus->after_close = NULL;
}

static void answer_contact(struct vmbus *bus)
{
	struct vmbus_version_response m = {
		.header.type = le32_of(CHANNELMSG_VERSION_RESPONSE),
	};
	bool supported = bus_version_supported(bus, bus->contact.version);
	size_t size = sizeof(m) - sizeof(m.features);

	disconnect(bus);
	bus->message_vp = bus->contact.vp;
	bus->sint = bus->contact.sint;
	m.supported = supported;
	if (supported) {
		bus->state = BUS_CONNECTED;
		bus->version = bus->contact.version;
		m.version_or_connection_id =
			le32_of(bus->version >= VERSION_WIN10_V5 ? bus->contact.connection_id
								 : bus->version);
	}
	if (bus->version >= VERSION_COPPER) {
		bus->features = bus->contact.features & SUPPORTED_FEATURES;
		m.features = le32_of(bus->features);
		size = sizeof(m);
	}
	bus_send(bus, &m, size);
}

static bool message_contact(struct vmbus *bus, struct reader *r)
{
	uint32_t version = reader_le32(r), vp = reader_le32(r);
	uint64_t target = reader_le64(r);

	if (bus->reset_done)
		return false; /* the VP that posted this is being reset */
	/* Before 3.0 answers go to VP 0, and before 5.0 to SINT 2. */
	bus->contact.version = version;
	bus->contact.vp = version >= VERSION_WIN8_1 ? vp : 0;
	bus->contact.sint = VMBUS_MESSAGE_SINT;
	bus->contact.features = 0;
	if (version >= VERSION_WIN10_V5) {
		bus->contact.sint = (uint8_t)target;
		if ((uint8_t)(target >> 8)) /* a virtual trust level that does not exist */
			return false;
	}
	if (version >= VERSION_COPPER)
		bus->contact.features = (uint32_t)(target >> 32);
	if (bus->contact.vp >= partition_vp_count(bus->partition) ||
	    bus->contact.sint >= HV_SYNIC_SINT_COUNT)
		return false;
	bus->after_close = answer_contact;
	bus_close_all(bus);
	return true;
}

static void answer_unload(struct vmbus *bus)
{
	struct vmbus_message_header m = { .type = le32_of(CHANNELMSG_UNLOAD_RESPONSE) };

	disconnect(bus);
	bus_send(bus, &m, sizeof(m));
}

static bool message_unload(struct vmbus *bus, struct reader *r)
{
	(void)r;
	bus->after_close = answer_unload;
	bus_close_all(bus);
	return true;
}

/* --- offers --- */

static bool message_request_offers(struct vmbus *bus, struct reader *r)
{
	struct vmbus_message_header end = { .type = le32_of(CHANNELMSG_ALLOFFERS_DELIVERED) };

	(void)r;
	if (bus->offers_requested)
		return false;
	bus->offers_requested = true;
	list_foreach(it, &bus->channels) channel_offer(list_entry(it, struct vmbus_channel, node));
	bus_send(bus, &end, sizeof(end));
	return true;
}

void vmbus_on_connect(struct vmbus *bus,
		      int (*connect)(void *context, const struct guid *endpoint,
				     const struct guid *service),
		      void *context)
{
	bus->connect = connect;
	bus->connect_context = context;
}

/* A connection is offered, or refused, but not left waiting. */
static bool message_tl_connect(struct vmbus *bus, struct reader *r)
{
	struct vmbus_tl_connect_result m = {
		.header.type = le32_of(CHANNELMSG_TL_CONNECT_RESULT),
		.status = le32_of(VMBUS_STATUS_CONNECTION_REFUSED),
	};

	reader_copy(r, &m.endpoint, sizeof(m.endpoint));
	reader_copy(r, &m.service, sizeof(m.service));
	if (bus->connect && bus->connect(bus->connect_context, &m.endpoint, &m.service) >= 0)
		return true;
	if (bus->version >= VERSION_WIN10_V4_1)
		bus_send(bus, &m, sizeof(m));
	return true;
}

/* --- the table --- */

/* Handlers return whether the message made sense; one that did not is counted and forgotten. */
static const struct message_handler {
	enum vmbus_message_type type;
	size_t min_size; /* header included */
	uint32_t min_version;
	unsigned states;
	bool (*handler)(struct vmbus *bus, struct reader *r);
} handlers[] = {
	/* clang-format off */
	{ CHANNELMSG_INITIATE_CONTACT,	 40,  0, BUS_ANY, message_contact },
	{ CHANNELMSG_REQUESTOFFERS,	 8,   0, BUS_CONNECTED, message_request_offers },
	{ CHANNELMSG_GPADL_HEADER,	 28,  0, BUS_CONNECTED, bus_message_gpadl_header },
	{ CHANNELMSG_GPADL_BODY,	 16,  0, BUS_CONNECTED, bus_message_gpadl_body },
	{ CHANNELMSG_GPADL_TEARDOWN,	 16,  0, BUS_CONNECTED, bus_message_gpadl_teardown },
	{ CHANNELMSG_OPENCHANNEL,	 148, 0, BUS_CONNECTED, bus_message_open },
	{ CHANNELMSG_CLOSECHANNEL,	 12,  0, BUS_CONNECTED, bus_message_close },
	{ CHANNELMSG_RELID_RELEASED,	 12,  0, BUS_CONNECTED, bus_message_released },
	{ CHANNELMSG_MODIFYCHANNEL,	 16,  VERSION_WIN10_V4_1, BUS_CONNECTED, bus_message_modify },
	{ CHANNELMSG_TL_CONNECT_REQUEST, 40,  VERSION_WIN10, BUS_CONNECTED, message_tl_connect },
	{ CHANNELMSG_UNLOAD,		 8,   0, BUS_CONNECTED, message_unload },
	/* clang-format on */
};

static const struct message_handler *handler_find(uint32_t type)
{
	for (size_t i = 0; i < ARRAY_SIZE(handlers); i++)
		if (handlers[i].type == type)
			return &handlers[i];
	return NULL;
}

static void message(struct vmbus *bus, uint32_t connection_id, const void *payload, size_t size)
{
	struct reader r = reader_of(payload, size);
	const struct message_handler *h = handler_find(reader_le32(&r));

	bus->counters.messages++;
	reader_skip(&r, 4);
	if (!h || size < h->min_size || !(h->states & bus->state) ||
	    bus->version < h->min_version) {
		bus->counters.bad_messages++;
		return;
	}
	if (h->type == CHANNELMSG_INITIATE_CONTACT)
		bus->contact.connection_id = connection_id;
	if (!h->handler(bus, &r))
		bus->counters.bad_messages++;
}

static void on_message(struct partition_port *port, uint32_t type, const void *payload, size_t size)
{
	if (type == VMBUS_MESSAGE_TYPE)
		message(container_of(port, struct vmbus, port), port->connection_id, payload, size);
}

static void on_multi_message(struct partition_port *port, uint32_t type, const void *payload,
			     size_t size)
{
	if (type == VMBUS_MESSAGE_TYPE)
		message(container_of(port, struct vmbus, multi_port), port->connection_id, payload,
			size);
}

/* --- life --- */

static void on_all_closed(struct loop_task *t)
{
	struct vmbus *bus = container_of(t, struct vmbus, closed_task);

	if (bus->after_close)
		bus->after_close(bus);
	bus_pause_check(bus);
}

static void finish_reset(struct vmbus *bus)
{
	void (*done)(void *) = bus->reset_done;

	disconnect(bus);
	bus->reset_done = NULL;
	bus->message_vp = 0;
	bus->sint = VMBUS_MESSAGE_SINT;
	list_foreach(it, &bus->channels)
	{
		struct vmbus_channel *ch = list_entry(it, struct vmbus_channel, node);

		if (ch->type->reset)
			ch->type->reset(ch->device);
	}
	done(bus->reset_context);
}

void vmbus_reset(struct vmbus *bus, void (*done)(void *context), void *context)
{
	bus->reset_done = done;
	bus->reset_context = context;
	bus->after_close = finish_reset;
	bus_close_all(bus);
}

uint32_t vmbus_version(const struct vmbus *bus)
{
	return bus->version;
}

struct vmbus_counters vmbus_counters(const struct vmbus *bus)
{
	return bus->counters;
}

int vmbus_new(const struct vmbus_options *o, struct vmbus **ret, struct error *err)
{
	struct vmbus *bus = calloc(1, sizeof(*bus));

	if (!bus)
		return error_set(err, -ENOMEM, "out of memory");
	bus->partition = o->partition;
	bus->gm = partition_gmem(o->partition);
	bus->loop = partition_loop(o->partition);
	bus->max_version = o->max_version ? o->max_version : VERSION_COPPER;
	if (!bus_version_supported(bus, bus->max_version)) {
		free(bus);
		return error_set(err, -EINVAL,
				 "there is no VMBus version %u.%u; known are 2.4, 3.0, 4.0, 4.1, "
				 "5.0, 5.1, 5.2, 5.3 and 6.0",
				 o->max_version >> 16, o->max_version & 0xffff);
	}
	bus->state = BUS_DISCONNECTED;
	bus->sint = VMBUS_MESSAGE_SINT;
	list_init(&bus->channels);
	list_init(&bus->gpadls);
	loop_task_init(&bus->closed_task, on_all_closed);
	bus_pause_init(bus);
	bus->port = (struct partition_port){ .connection_id = VMBUS_MESSAGE_CONNECTION_ID,
					     .message = on_message };
	partition_port_open(bus->partition, &bus->port);
	bus->multi_port = (struct partition_port){ .connection_id = VMBUS_MESSAGE_CONNECTION_ID_4,
						   .message = on_multi_message };
	/* A guest that tries 5.0 and later finds no such connection on an older host. */
	if (bus->max_version >= VERSION_WIN10_V5)
		partition_port_open(bus->partition, &bus->multi_port);
	else
		list_init(&bus->multi_port.node);
	*ret = bus;
	return 0;
}

void vmbus_free(struct vmbus *bus)
{
	if (!bus)
		return;
	partition_port_close(bus->partition, &bus->port);
	partition_port_close(bus->partition, &bus->multi_port);
	loop_cancel(bus->loop, &bus->closed_task);
	loop_cancel(bus->loop, &bus->pause_task);
	gpadls_free(bus);
	while (!list_empty(&bus->channels)) {
		struct vmbus_channel *ch = list_first(&bus->channels, struct vmbus_channel, node);

		loop_cancel(bus->loop, &ch->kick);
		list_remove(&ch->node);
		free(ch);
	}
	free(bus);
}
