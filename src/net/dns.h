/* SPDX-License-Identifier: MIT */
/*
 * The DNS forwarder of a NAT switch. Names of the switch's own machines are answered here; other
 * questions go to the host's servers, each from a socket of its own, so that the port is as random
 * as the id, and only what answers the question asked comes back. There is no cache. Queries by UDP
 * come in and go out as bytes (whoever takes frames apart calls); those by TCP from a listening
 * socket. Loop's thread.
 */
#pragma once

#include "event/loop.h"
#include "net/dns_message.h"

#include <netinet/in.h>

#define DNS_SERVERS_MAX 3u   /* as resolv.conf(5) */
#define DNS_FLIGHTS_MAX 256u /* questions that wait for their answer, each with a socket */
#define DNS_CLIENT_MAX  64u  /* of one client */
#define DNS_STREAMS_MAX 64u  /* connections of clients */
#define DNS_TRIES       3u   /* in turn over the servers */
#define DNS_TRY_NS      UINT64_C(2000000000)
#define DNS_STREAM_NS   UINT64_C(10000000000) /* a connection on which nothing happens ends */
#define DNS_WHO_SIZE    16u

union dns_server {
	struct sockaddr any;
	struct sockaddr_in ip4;
	struct sockaddr_in6 ip6;
};

/* Who asks by UDP, for the caller to know again; the first `alike` bytes are the client. */
struct dns_who {
	uint8_t bytes[DNS_WHO_SIZE];
};
#define DNS_WHO_ALIKE 10u /* MAC and IPv4 address */

struct dns_settings {
	struct loop *loop;
	union dns_server servers[DNS_SERVERS_MAX];
	unsigned server_count;  /* 0 = other names than the machines' fail */
	const char *domain;     /* of the machines; copied; "" = they have none */
	uint32_t network, mask; /* whose reverse names are answered here */
	/* A machine by its name, a label; by its address. False = there is none. */
	bool (*find_name)(void *context, const char *name, uint32_t *ret);
	bool (*find_address)(void *context, uint32_t address, char ret[static DNS_NAME_TEXT]);
	/* To a query of dns_ask; never from inside of it. */
	void (*answer)(void *context, const struct dns_who *who, const void *message, size_t size);
	void *context;
};

struct dns_counters {
	uint64_t asked, local, forwarded, answered, timeouts;
	uint64_t refused; /* not understood */
	uint64_t dropped; /* too many at a time */
	uint64_t lies;    /* came as an answer and was none */
};

struct dns;

int dns_new(const struct dns_settings *settings, struct dns **ret, struct error *err) _must_check_;
void dns_free(struct dns *d); /* NULL is fine */
/* The host's servers have changed; what is under way goes on. */
void dns_set_servers(struct dns *d, const union dns_server *servers, unsigned count);
/*
 * A query by UDP. What is known here is written to `answer` (DNS_QUERY_MAX bytes at least): its
 * size; 0 = the answer comes later, or not at all.
 */
size_t dns_ask(struct dns *d, const struct dns_who *who, const void *query, size_t size,
	       void *answer, size_t room);
/* Takes a socket that listens already, for queries by TCP. */
int dns_listen(struct dns *d, int fd, struct error *err) _must_check_;
struct dns_counters dns_counters(const struct dns *d);
