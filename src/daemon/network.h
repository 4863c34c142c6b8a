/* SPDX-License-Identifier: MIT */
/*
 * Virtual switches as they run: each in a process of its own (partita-switchd(8)), started with the
 * first adapter that is plugged in and ended with the last, and beside a switch of type nat the
 * network behind it (partita-natd(8)). Like workers they outlive the service, and the next one
 * takes them over. One that dies is started again, and the machines on it are plugged in anew.
 * Event loop's thread.
 */
#pragma once

#include "daemon/hot.h"

struct networks;
struct network;

struct networks_options {
	const char *run_folder;              /* of the service; theirs are below */
	const char *switchd, *natd, *keeper; /* programs; NULL: there are no networks */
};
int networks_new(struct daemon *d, const struct networks_options *options, struct networks **ret,
		 struct error *err) _must_check_;
/* Lets go of the processes: they go on. NULL is fine. */
void networks_free(struct networks *n);
/* Takes over what an earlier service left. */
int networks_adopt(struct networks *n, struct error *err) _must_check_;

/* The switch of that id or name, which runs from now on; NULL with words. */
struct network *network_use(struct networks *n, const char *name, struct error *err);
/*
 * What has to be done before the network can be used: 1 and the step, 0 when it can. Steps of a
 * hot change, addressed to the network's processes.
 */
int network_prepare(struct network *n, struct hot_step *ret, struct error *err);

/*
 * Where the adapter is, among all networks, as far as that is known. `settings` is what its port
 * was told last, NULL: not known; `held`: descriptors for the other end wait to be passed on.
 */
struct network_port {
	struct list node;
	struct network *network;
	char id[GUID_TEXT_SIZE], vm[GUID_TEXT_SIZE]; /* of adapter and machine; vm "" not known */
	json_t *settings, *addresses;
	bool plugged; /* something is in it */
	int held[2];  /* -1 = none */
};
struct network_port *networks_port(struct networks *n, const char *adapter,
				   const struct network *only);
/* Steps: to put something new into a port, which is made if it is not there; to change one. */
int network_plug(struct network *n, const char *vm, const json_t *port, struct hot_step *ret);
int network_set(struct network_port *p, const json_t *port, struct hot_step *ret);
/* At once, and nobody waits for it. */
void network_unplug(struct network_port *p);
void networks_unplug_vm(struct networks *n, const char *vm);

/* What is known of a machine's addresses: [{adapter, ip, mac}], a new reference. */
json_t *networks_addresses(struct networks *n, const char *vm);
