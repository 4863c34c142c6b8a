/* SPDX-License-Identifier: MIT */
/*
 * The network behind a NAT switch: a port of the switch on one side, a way out on the other, and in
 * between who answers DHCP, DNS and router solicitations. All of partita-natd but its process.
 * Loop's thread.
 *
 * There are two ways out. A tap, behind which the host's kernel has the router's address and
 * translates, which takes a privileged helper to set up; and libslirp, which makes of the machines'
 * connections sockets of this process, and needs no rights.
 */
#pragma once

#include "net/dhcp.h"
#include "net/dns.h"
#include "net/uplink_wire.h"

#define NAT_NAMES_MAX    1024u /* machines that have names */
#define NAT_FORWARDS_MAX 128u

struct nat;

struct nat_settings {
	struct loop *loop;
	struct dhcp_settings dhcp; /* address, prefix, mac; the rest is filled in */
	union dns_server resolvers[DNS_SERVERS_MAX];
	unsigned resolver_count;
	bool ipv6;
	uint8_t prefix6[16]; /* a /64 */
	const char *folder;  /* libslirp: for a socket; borrowed */
	int tap;             /* taken in any case; -1 = libslirp */
	int dns_listener;    /* the same; -1 = none */
	/* The port has ended (-EPIPE, -EIO): give another, or end. */
	void (*ended)(void *context, int why);
	void (*link)(void *context, bool up, const char *words);
	void *context;
};

struct nat_counters {
	uint64_t frames_in, frames_out;
	uint64_t dropped_in, dropped_out; /* from machines; no room towards them */
};

struct nat_forward {
	bool udp;
	uint32_t listen; /* address of the host; 0 = all */
	uint16_t port;
	uint32_t machine;
	uint16_t machine_port;
};

int nat_new(const struct nat_settings *settings, struct nat **ret, struct error *err) _must_check_;
void nat_free(struct nat *n); /* NULL is fine */
/* Taken; what was there before is freed. */
int nat_attach(struct nat *n, struct net_port *port, struct error *err) _must_check_;
/*
 * Around each round of the loop, which may sleep for *timeout_ms at most (-1 = for ever, lowered if
 * it has to be).
 */
void nat_before(struct nat *n, int *timeout_ms);
void nat_after(struct nat *n);

struct nat_name {
	char name[DHCP_NAME_MAX + 1];
	struct inet_mac mac;
};
/* Who is called what, by who runs them; before what machines call themselves. Copied. */
int nat_set_names(struct nat *n, const struct nat_name *names, unsigned count,
		  struct error *err) _must_check_;
void nat_set_resolvers(struct nat *n, const union dns_server *servers, unsigned count);
/* -EOPNOTSUPP where the host's kernel forwards, -EADDRINUSE, ... with words. */
int nat_forward_add(struct nat *n, const struct nat_forward *f, struct error *err) _must_check_;
int nat_forward_remove(struct nat *n, const struct nat_forward *f, struct error *err) _must_check_;
const struct dhcp_lease *nat_leases(const struct nat *n, unsigned *ret_count);
struct nat_counters nat_counters(const struct nat *n);
struct dns_counters nat_dns_counters(const struct nat *n);
