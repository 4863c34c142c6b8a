/* SPDX-License-Identifier: MIT */
/* What nat.c and its ways out (nat_tap.c, nat_slirp.c) have in common. Loop's thread. */
#pragma once

#include "net/nat.h"

struct nat_way;

struct nat_way_ops {
	/* A machine's frame; private memory that may be written to. */
	void (*send)(struct nat_way *w, const struct net_offload *o, uint8_t *frame, size_t size);
	void (*flush)(struct nat_way *w);
	/* Around each round of the loop; NULL = nothing to do. */
	void (*before)(struct nat_way *w, int *timeout_ms);
	void (*after)(struct nat_way *w);
	int (*forward)(struct nat_way *w, const struct nat_forward *f, bool add, struct error *err);
	void (*free)(struct nat_way *w);
};
struct nat_way {
	const struct nat_way_ops *ops;
	struct nat *nat;
	unsigned takes;   /* NET_TAKES_* that it can be given */
	bool own_routers; /* answers router solicitations by itself */
};

/* `settings` stay valid for the way's life, and are the way's to add to. */
int nat_way_tap(struct nat_settings *settings, struct nat *n, struct nat_way **ret,
		struct error *err) _must_check_;
int nat_way_slirp(struct nat_settings *settings, struct nat *n, struct nat_way **ret,
		  struct error *err) _must_check_;

/* To the machines; what has no room is dropped. `o` NULL = nothing is left to do. */
void nat_deliver(struct nat *n, const struct net_offload *o, const void *frame, size_t size);
void nat_delivered(struct nat *n); /* after a batch */
/* For who cannot finish it: computes the checksum that is left open (RFC 1071). */
void nat_finish_checksum(const struct net_offload *o, uint8_t *frame, size_t size);

/* nat_router.c: whether that asks for routers; an advertisement, its size. */
bool nat_router_asked(const void *frame, size_t size);
size_t nat_router_advertise(const struct nat_settings *s, void *frame, size_t room);
#define NAT_ROUTER_NS (UINT64_C(600) * 1000000000) /* RFC 4861 6.2.1: MaxRtrAdvInterval */
