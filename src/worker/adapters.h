/* SPDX-License-Identifier: MIT */
/* The network adapters of a machine, which come, go and are replugged while it runs. Event loop's
 * thread. */
#pragma once

#include "devices/netvsp/netvsp.h"
#include "vmbus/vmbus.h"

#define ADAPTERS_MAX 8

struct vm_description;

struct adapter {
	struct adapters *owner;
	struct guid id; /* its instance on the bus; zero = the place is free */
	char *name;
	struct netvsp *netvsp;
	struct vmbus_channel *channel;
	bool removing;  /* until the guest lets go of it */
	bool rescinded; /* its offer is taken back */
};

struct adapters_options {
	struct loop *loop;
	struct vmbus *bus;
	const struct vm_description *description;
	/* "adapter-lost": the port ended, with -errno; "adapter-removed". */
	void (*event)(void *context, const struct adapter *adapter, const char *event, int error);
	void *context;
};

struct adapter_settings {
	struct guid id;
	const char *name; /* NULL = none */
	uint8_t mac[NETVSP_MAC_SIZE];
	int fds[NET_PORT_FDS]; /* of a port; all -1 = none. Taken in any case */
	bool cable_out, mac_changes;
	uint64_t speed; /* bits per second */
};

/* Makes and offers every adapter of the description, or none; the error names which. */
int adapters_open(const struct adapters_options *options, struct adapters **ret,
		  struct error *err) _must_check_;
/* When no channel is open any more. NULL is fine. */
void adapters_free(struct adapters *a);

/* By place, 0 to ADAPTERS_MAX - 1; NULL when that is free. */
struct adapter *adapters_at(struct adapters *a, unsigned index);
struct adapter *adapters_find(struct adapters *a, const struct guid *id); /* NULL = none */
/* -EEXIST, -ENOSPC, or what the settings are at fault for; all with words. */
int adapters_add(struct adapters *a, const struct adapter_settings *settings,
		 struct error *err) _must_check_;
/*
 * The guest loses it: first the link, then, when its driver is at rest or some seconds are over, or
 * with `now` at once, the offer. "adapter-removed" comes when it has let go. -EBUSY when it goes
 * already, and there is nothing left to be hurried.
 */
int adapters_remove(struct adapter *adapter, bool now, struct error *err) _must_check_;
int adapters_connect(struct adapter *adapter, const int fds[NET_PORT_FDS],
		     struct error *err) _must_check_;

/* "00:15:5d:01:02:03", or with dashes. 0 or -EINVAL. */
int mac_parse(const char *text, uint8_t ret[static NETVSP_MAC_SIZE]);
