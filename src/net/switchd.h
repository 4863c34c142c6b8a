/* SPDX-License-Identifier: MIT */
/*
 * What partita-switchd is made of: the switch on an event loop, who learns and tells, and the
 * commands of its control socket. Loop's thread.
 */
#pragma once

#include "control/command.h"
#include "event/loop.h"
#include "net/learn.h"
#include "net/switch.h"
#include "net/switch_description.h"

struct switchd;

/* Neither is taken. `tell` sends an event, NULL drops them. */
int switchd_new(struct loop *loop, const struct switch_description *description,
		struct switchd **ret, struct error *err) _must_check_;
void switchd_free(struct switchd *d); /* NULL is fine */
void switchd_tell_to(struct switchd *d, void (*tell)(void *context, json_t *event, bool may_miss),
		     void *context);
/* Its commands (switchd_control.c). */
struct command_family switchd_family(struct switchd *d);

/* --- for the commands --- */

/* A port of the switch, as the program has it: the port's context. */
struct plug {
	struct switchd *owner;
	struct net_switch_port *port;
	struct loop_watch watch;
	struct net_learner learner;
	struct net_address told[NET_LEARN_MAX]; /* that events have told */
	unsigned told_count;
	bool changed; /* the learner's list, since */
	int ended;    /* why what was plugged in is silent */
	bool wire;
	struct report {
		uint64_t at, count; /* of the last event; drops since */
	} reports[NET_DROPS];
};

struct net_switch *switchd_switch(const struct switchd *d);
const char *switchd_name(const struct switchd *d);
struct plug *switchd_find(const struct switchd *d, const char *id);
/* Decodes a port of switch.schema.json and adds or changes it. */
int switchd_add(struct switchd *d, json_t *port, struct plug **ret, struct error *err) _must_check_;
int switchd_set(struct switchd *d, json_t *port, struct error *err) _must_check_;
void switchd_remove(struct plug *p);
/* New rings in the port; the descriptors for the other side are the caller's. */
int switchd_attach(struct plug *p, size_t ring_size, int ret_fds[NET_PORT_FDS],
		   struct error *err) _must_check_;
/* A tap or packet socket (taken in any case) in the port. */
int switchd_wire(struct plug *p, int fd, bool promiscuous, struct error *err) _must_check_;
