/* SPDX-License-Identifier: MIT */
/* What the operations of virtual switches (net.c, net_nat.c) have in common. Loop's thread. */
#pragma once

#include "privd/operation.h"

#include <net/if.h>

#define NET_ID_TEXT      12  /* bytes of a switch's id: "p-" and it name an interface */
#define NET_FORWARDS_MAX 128 /* ports of a network that are forwarded */
#define NET_NAT_SIZE     8192

/* Addresses of IPv4 are in the host's order. */
struct net_network {
	uint32_t address, mask;
	unsigned prefix;
};

/* The interface of the switch with this id. */
int net_take_name(const char *id, char ret[IFNAMSIZ], struct error *err) _must_check_;
/* "10.0.0.1/24": an address in a private network. */
int net_take_network(const char *text, struct net_network *ret, struct error *err) _must_check_;

/* net_nat.c */
int net_nat_begin(const struct privd_config *config, struct loop *loop, struct error *err);
int net_nat_decode(struct privd_call *c, struct error *err);
int net_nat_run(struct privd_call *c, struct error *err);
int net_nat_remove_decode(struct privd_call *c, struct error *err);
int net_nat_remove_run(struct privd_call *c, struct error *err);
int net_nat_list_run(struct privd_call *c, struct error *err);
