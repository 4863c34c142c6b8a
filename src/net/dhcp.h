/* SPDX-License-Identifier: MIT */
/*
 * The DHCP server of a NAT switch (RFC 2131, options of RFC 2132): frames in, frames out, no
 * descriptors. It serves one network of which it is the authority, so a client that asks for what
 * it cannot have is told at once. A machine's address follows from its MAC address and stays the
 * same, over restarts too, unless another one has it. One thread.
 */
#pragma once

#include "lib/error.h"
#include "net/inet.h"

#define DHCP_LEASES_MAX  1024u /* machines that it knows; a network of NAT has fewer */
#define DHCP_SERVERS_MAX 3u    /* name servers that it tells of */
#define DHCP_NAME_MAX    63u   /* bytes of a host name: one label (RFC 1035 2.3.4) */
#define DHCP_DOMAIN_MAX  253u
/* Addresses that clients say are in use already: at most a quarter of all, so long. */
#define DHCP_DECLINED_NS (UINT64_C(600) * 1000000000)
#define DHCP_OFFER_NS    (UINT64_C(30) * 1000000000)

struct dhcp_settings {
	struct inet_mac mac;  /* the server's */
	uint32_t address;     /* the server's, which is the router too */
	unsigned prefix;      /* 8..29 bits; its first and last address are nobody's */
	uint32_t first, last; /* what machines get, both included */
	uint32_t servers[DHCP_SERVERS_MAX];
	unsigned server_count;
	uint16_t mtu;                     /* 0 = not told */
	uint32_t seconds;                 /* of a lease */
	char domain[DHCP_DOMAIN_MAX + 1]; /* "" = none */
};

enum dhcp_state {
	DHCP_FREE, /* given back or run out; remembered while there is room */
	DHCP_OFFERED,
	DHCP_LEASED,
	DHCP_DECLINED, /* nobody's: somebody is there already */
};
struct dhcp_lease {
	struct inet_mac mac;
	uint32_t address;
	enum dhcp_state state;
	uint64_t until;               /* ns; of what the state says */
	char name[DHCP_NAME_MAX + 1]; /* what the client calls itself: a label, or "" */
};

struct dhcp_server;

/* -EINVAL with words when the settings do not fit together. */
int dhcp_server_new(const struct dhcp_settings *settings, struct dhcp_server **ret,
		    struct error *err) _must_check_;
void dhcp_server_free(struct dhcp_server *s); /* NULL is fine */

/* Whether the frame is for a DHCP server, so that nobody else needs to see it. */
bool dhcp_server_wants(const void *frame, size_t size);
/*
 * A frame of a client; `unfinished`: without its UDP checksum. The bytes of the answer, a frame,
 * in `answer`; 0 = there is none.
 */
size_t dhcp_server_frame(struct dhcp_server *s, const void *frame, size_t size, bool unfinished,
			 uint64_t now, void *answer, size_t room);

/* Borrowed until the next frame. */
const struct dhcp_lease *dhcp_server_leases(const struct dhcp_server *s, unsigned *ret_count);
/* The lease in force of a machine, or of who calls itself that; NULL = none. */
const struct dhcp_lease *dhcp_server_find_mac(const struct dhcp_server *s,
					      const struct inet_mac *mac, uint64_t now);
const struct dhcp_lease *dhcp_server_find_name(const struct dhcp_server *s, const char *name,
					       uint64_t now);
const struct dhcp_lease *dhcp_server_find_address(const struct dhcp_server *s, uint32_t address,
						  uint64_t now);
