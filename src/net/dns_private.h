/* SPDX-License-Identifier: MIT */
/* What the two halves of the forwarder share: dns.c (UDP), dns_tcp.c. Loop's thread. */
#pragma once

#include "net/dns.h"

struct dns {
	struct dns_settings settings;
	char domain[DNS_NAME_TEXT];
	struct list flights, streams;
	unsigned flight_count, stream_count;
	struct loop_watch listener;
	struct dns_counters counters;
};

/*
 * What can be said without asking anybody: the answer's size, or 0 = it has to be asked; *ret_query
 * is set then. -EINVAL = that was no query.
 */
ssize_t dns_answer_here(struct dns *d, const void *message, size_t size,
			struct dns_query *ret_query, struct writer *answer);
/* Sockets to a server: non-blocking, connecting; negative errno. */
int dns_connect(const union dns_server *server, int type);
uint16_t dns_random_id(void);
/* dns_tcp.c */
void dns_streams_end(struct dns *d);
