// SPDX-License-Identifier: MIT
/*
 * See adapters.h. An adapter that is removed has no port and no offer any more at once; it is freed
 * when the guest has let go of its channel, or when the machine is reset.
 */
#include "worker/adapters.h"

#include "lib/cleanup.h"
#include "worker/vm_description.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MEGABIT UINT64_C(1000000)

struct adapters {
	struct adapters_options options;
	uint32_t max_version;
	unsigned max_channels;
	struct adapter places[ADAPTERS_MAX];
};

int mac_parse(const char *text, uint8_t ret[static NETVSP_MAC_SIZE])
{
	unsigned b[NETVSP_MAC_SIZE];
	int end = 0;
	char rest;

	if (strlen(text) != 17)
		return -EINVAL;
	if (sscanf(text, "%2x:%2x:%2x:%2x:%2x:%2x%n%c", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5],
		   &end, &rest) != 6 &&
	    sscanf(text, "%2x-%2x-%2x-%2x-%2x-%2x%n%c", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5],
		   &end, &rest) != 6)
		return -EINVAL;
	if (end != 17)
		return -EINVAL;
	for (unsigned i = 0; i < NETVSP_MAC_SIZE; i++)
		ret[i] = (uint8_t)b[i];
	return 0;
}

struct adapter *adapters_at(struct adapters *a, unsigned index)
{
	struct adapter *p = index < ADAPTERS_MAX ? &a->places[index] : NULL;

	return p && p->netvsp ? p : NULL;
}

struct adapter *adapters_find(struct adapters *a, const struct guid *id)
{
	for (unsigned i = 0; i < ADAPTERS_MAX; i++)
		if (a->places[i].netvsp && guid_equal(&a->places[i].id, id))
			return &a->places[i];
	return NULL;
}

static void tell(const struct adapter *p, const char *event, int error)
{
	const struct adapters_options *o = &p->owner->options;

	if (o->event)
		o->event(o->context, p, event, error);
}

static void on_port_lost(void *context, int error)
{
	tell(context, "adapter-lost", error);
}

static void adapter_free(struct adapter *p)
{
	netvsp_free(p->netvsp);
	free(p->name);
	*p = (struct adapter){ .owner = p->owner };
}

static void fds_close(const int fds[NET_PORT_FDS])
{
	for (unsigned i = 0; i < NET_PORT_FDS; i++)
		if (fds[i] >= 0)
			close(fds[i]);
}

int adapters_connect(struct adapter *p, const int fds[NET_PORT_FDS], struct error *err)
{
	struct net_port *port;
	int r = net_port_open(fds, &port, err);

	return r < 0 ? r : netvsp_connect(p->netvsp, port, err);
}

static int fill(struct adapter *p, const struct adapter_settings *s, struct error *err)
{
	struct adapters *a = p->owner;
	struct netvsp_options o = {
		.name = s->name,
		.max_version = a->max_version,
		.max_channels = a->max_channels,
		.speed = s->speed,
		.cable_out = s->cable_out,
		.mac_changes = s->mac_changes,
		.port_lost = on_port_lost,
		.context = p,
	};
	const struct vmbus_offer_options offer = { .instance = s->id };
	int r;

	memcpy(o.mac, s->mac, sizeof(o.mac));
	if (s->name && !(p->name = strdup(s->name)))
		r = error_set(err, -ENOMEM, "out of memory");
	else
		r = netvsp_new(a->options.loop, &o, &p->netvsp, err);
	if (r < 0) {
		fds_close(s->fds);
		return r;
	}
	p->id = s->id;
	if (s->fds[0] >= 0 || s->fds[1] >= 0)
		r = adapters_connect(p, s->fds, err);
	if (r < 0)
		return r;
	return vmbus_device_offer(a->options.bus, &netvsp_type, p->netvsp, &offer, &p->channel,
				  err);
}

/* Two stations of one address in a machine cannot be meant. */
static int check_new(struct adapters *a, const struct adapter_settings *s, struct adapter **ret,
		     struct error *err)
{
	*ret = NULL;
	if (guid_is_zero(&s->id))
		return error_set(err, -EINVAL, "an adapter needs an id that is not all zeros");
	if (adapters_find(a, &s->id))
		return error_set(err, -EEXIST, "there is an adapter with this id already");
	for (unsigned i = ADAPTERS_MAX; i--;) {
		struct adapter *p = &a->places[i];

		if (!p->netvsp)
			*ret = p;
		else if (!memcmp(netvsp_state(p->netvsp).mac, s->mac, NETVSP_MAC_SIZE))
			return error_set(err, -EEXIST,
					 "another adapter of this machine has the same address");
	}
	return *ret ? 0
		    : error_set(err, -ENOSPC, "a machine has at most %d adapters", ADAPTERS_MAX);
}

int adapters_add(struct adapters *a, const struct adapter_settings *s, struct error *err)
{
	struct adapter *p;
	int r = check_new(a, s, &p, err);

	if (r < 0) {
		fds_close(s->fds);
		return r;
	}
	r = fill(p, s, err);
	if (r < 0)
		adapter_free(p);
	return r;
}

/* The bus says the device, which is the adapter's heart. */
static void on_removed(void *device)
{
	struct netvsp *n = device;
	struct adapter *p = netvsp_context(n);

	tell(p, "adapter-removed", 0);
	adapter_free(p);
}

static void rescind(void *context)
{
	struct adapter *p = context;

	if (p->rescinded)
		return;
	p->rescinded = true;
	vmbus_device_rescind(p->channel, on_removed);
}

int adapters_remove(struct adapter *p, bool now, struct error *err)
{
	if (p->rescinded || (p->removing && !now))
		return error_set(err, -EBUSY,
				 "the adapter is being removed: the guest still holds it");
	if (now)
		netvsp_disconnect(p->netvsp);
	if (p->removing || now) {
		p->removing = true;
		rescind(p);
		return 0;
	}
	p->removing = true;
	netvsp_leave(p->netvsp, rescind);
	return 0;
}

/* --- the description --- */

static struct guid adapter_instance(unsigned index)
{
	struct guid g =
		GUID(0x6e657461, 0x7e5c, 0x4f1f, 0x9d, 0x5e, 0x50, 0x41, 0x52, 0x54, 0x49, 0x00);

	g.b[15] = (uint8_t)index;
	return g;
}

static int open_one(struct adapters *a, unsigned index, struct error *err)
{
	const struct vm_adapter *d = &a->options.description->network[index];
	struct adapter_settings s = {
		.id = adapter_instance(index),
		.name = d->name,
		.fds = { (int)d->port.memory, (int)d->port.socket },
		.cable_out = !d->cable,
		.mac_changes = d->mac_changes,
		.speed = d->speed * MEGABIT,
	};

	if (!d->port.present)
		s.fds[0] = s.fds[1] = -1;
	if (d->id && guid_parse(d->id, &s.id) < 0) {
		fds_close(s.fds);
		return error_set(err, -EINVAL, "id: \"%s\" is no GUID", d->id);
	}
	if (mac_parse(d->mac, s.mac) < 0) {
		fds_close(s.fds);
		return error_set(err, -EINVAL, "mac: \"%s\" is no address like 00:15:5d:01:02:03",
				 d->mac);
	}
	return adapters_add(a, &s, err);
}

/* No guest knows of any yet. */
static void take_back(struct adapters *a)
{
	for (unsigned i = 0; i < ADAPTERS_MAX; i++)
		if (a->places[i].channel)
			vmbus_device_rescind(a->places[i].channel, NULL);
}

int adapters_open(const struct adapters_options *o, struct adapters **ret, struct error *err)
{
	const struct vm_description *d = o->description;
	struct adapters *a = calloc(1, sizeof(*a));

	if (!a)
		return error_set(err, -ENOMEM, "out of memory");
	a->options = *o;
	a->max_channels = 1 + MIN((unsigned)d->netvsp.sub_channels, NETVSP_MAX_CHANNELS - 1);
	for (unsigned i = 0; i < ADAPTERS_MAX; i++)
		a->places[i].owner = a;
	if (d->netvsp.max_version) {
		a->max_version = netvsp_version_find(d->netvsp.max_version);
		if (!a->max_version) {
			free(a);
			return error_set(err, -EINVAL,
					 "netvsp.max_version: there is no network protocol \"%s\"; "
					 "known are 1, 2, 4, 5, 6 and 6.1",
					 d->netvsp.max_version);
		}
	}
	for (unsigned i = 0; i < d->network_count; i++) {
		int r = open_one(a, i, err);

		if (r < 0) {
			take_back(a);
			adapters_free(a);
			return error_prefix(err, "network[%u]", i);
		}
	}
	*ret = a;
	return 0;
}

void adapters_free(struct adapters *a)
{
	if (!a)
		return;
	for (unsigned i = 0; i < ADAPTERS_MAX; i++)
		if (a->places[i].netvsp)
			adapter_free(&a->places[i]);
	free(a);
}
