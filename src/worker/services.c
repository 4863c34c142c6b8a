// SPDX-License-Identifier: MIT
/*
 * See services.h. The host's items go into the pool that Hyper-V uses for them, under its names
 * (Hyper-V's documentation, "Data Exchange": Guest\Parameters), whenever the guest comes.
 */
#include "worker/services.h"

#include "worker/vm_description.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const struct {
	const char *name;
	size_t offset; /* of its struct ic, which comes first */
} kinds[SERVICE_COUNT] = {
	[SERVICE_HEARTBEAT] = { "heartbeat", offsetof(struct services, heartbeat) },
	[SERVICE_SHUTDOWN] = { "shutdown", offsetof(struct services, shutdown) },
	[SERVICE_TIMESYNC] = { "time_synchronization", offsetof(struct services, timesync) },
	[SERVICE_KVP] = { "key_value_exchange", offsetof(struct services, kvp) },
	[SERVICE_VSS] = { "vss", offsetof(struct services, vss) },
	[SERVICE_FCOPY] = { "guest_services", offsetof(struct services, fcopy) },
};

_Static_assert(!offsetof(struct heartbeat, ic) && !offsetof(struct shutdown, ic) &&
		       !offsetof(struct timesync, ic) && !offsetof(struct kvp, ic) &&
		       !offsetof(struct vss, ic) && !offsetof(struct fcopy, ic),
	       "services_ic relies on it");

struct ic *services_ic(struct services *s, enum service_kind kind)
{
	return (struct ic *)((char *)s + kinds[kind].offset);
}

const char *services_name(enum service_kind kind)
{
	return kinds[kind].name;
}

/* --- what the host tells of itself --- */

static void host_item_next(struct services *s);

static void on_host_item(struct kvp_call *call, int result, const struct error *err)
{
	struct services *s = container_of(call, struct services, host_call);

	(void)err; /* without a daemon in the guest none will go: the next one tells it again */
	if (result >= 0)
		host_item_next(s);
	else
		s->host_next = HOST_ITEMS;
}

static void host_item_next(struct services *s)
{
	while (s->host_next < HOST_ITEMS && !*s->host_items[s->host_next].value)
		s->host_next++;
	if (s->host_next >= HOST_ITEMS)
		return;
	s->host_call = (struct kvp_call){
		.op = KVP_SET,
		.pool = KVP_AUTO_EXTERNAL,
		.key = s->host_items[s->host_next].key,
		.value = s->host_items[s->host_next].value,
		.done = on_host_item,
	};
	s->host_next++;
	if (kvp_ask(&s->kvp, &s->host_call, NULL) < 0)
		s->host_next = HOST_ITEMS;
}

/* The daemon answers: what it is to know of the host it does not have yet. */
void services_guest_known(struct services *s)
{
	if (s->host_next)
		return;
	host_item_next(s);
}

static void on_kvp_ready(struct kvp *k)
{
	struct services *s = k->ic.context;

	s->host_next = 0;
}

static void host_item(struct services *s, const char *key, const char *value)
{
	unsigned i = s->host_next++;

	s->host_items[i].key = key;
	if (value && strlen(value) < sizeof(s->host_items[i].value) &&
	    kvp_value_check(value, NULL) == 0)
		snprintf(s->host_items[i].value, sizeof(s->host_items[i].value), "%s", value);
}

static void host_items_init(struct services *s, const struct vm_description *d)
{
	char host[256] = "";

	(void)gethostname(host, sizeof(host) - 1);
	host_item(s, "HostName", host);
	host_item(s, "PhysicalHostName", host);
	host_item(s, "PhysicalHostNameFullyQualified", host);
	host_item(s, "VirtualMachineName", d->name);
	host_item(s, "VirtualMachineId", d->id);
	s->host_next = 0;
}

/* --- life --- */

void services_pause(struct services *s)
{
	heartbeat_pause(&s->heartbeat);
	timesync_pause(&s->timesync);
	kvp_pause(&s->kvp);
	ic_pause(&s->shutdown.ic);
	ic_pause(&s->vss.ic);
	ic_pause(&s->fcopy.ic);
}

/* The time first: whatever else the guest is asked it answers with its clock right. */
void services_resume(struct services *s)
{
	if (!s->timesync.ic.paused)
		return;
	timesync_resume(&s->timesync);
	heartbeat_resume(&s->heartbeat);
	kvp_resume(&s->kvp);
	ic_resume(&s->shutdown.ic);
	ic_resume(&s->vss.ic);
	ic_resume(&s->fcopy.ic);
}

void services_restart(struct services *s)
{
	for (unsigned i = 0; i < SERVICE_COUNT; i++)
		ic_restart(services_ic(s, i));
}

static void init_all(struct services *s, struct vmbus *bus)
{
	heartbeat_init(&s->heartbeat, s->loop, bus);
	shutdown_init(&s->shutdown, s->loop, bus);
	timesync_init(&s->timesync, s->loop, bus);
	kvp_init(&s->kvp, s->loop, bus);
	vss_init(&s->vss, s->loop, bus);
	fcopy_init(&s->fcopy, s->loop, bus);
	for (unsigned i = 0; i < SERVICE_COUNT; i++)
		services_ic(s, i)->context = s;
	s->kvp.ready = on_kvp_ready;
}

int services_new(struct loop *loop, struct vmbus *bus, const struct vm_description *d,
		 struct services **ret, struct error *err)
{
	const bool on[SERVICE_COUNT] = {
		[SERVICE_HEARTBEAT] = d->integration_services.heartbeat,
		[SERVICE_SHUTDOWN] = d->integration_services.shutdown,
		[SERVICE_TIMESYNC] = d->integration_services.time_synchronization,
		[SERVICE_KVP] = d->integration_services.key_value_exchange,
		[SERVICE_VSS] = d->integration_services.vss,
		[SERVICE_FCOPY] = d->integration_services.guest_services,
	};
	struct services *s = calloc(1, sizeof(*s));

	if (!s)
		return error_set(err, -ENOMEM, "out of memory");
	s->loop = loop;
	host_items_init(s, d);
	init_all(s, bus);
	for (unsigned i = 0; i < SERVICE_COUNT; i++) {
		int r = on[i] ? ic_switch(services_ic(s, i), true, err) : 0;

		if (r < 0) {
			services_free(s);
			return r;
		}
	}
	*ret = s;
	return 0;
}

void services_free(struct services *s)
{
	if (!s)
		return;
	heartbeat_deinit(&s->heartbeat);
	timesync_deinit(&s->timesync);
	kvp_deinit(&s->kvp);
	vss_deinit(&s->vss);
	fcopy_deinit(&s->fcopy);
	ic_deinit(&s->shutdown.ic);
	free(s);
}
