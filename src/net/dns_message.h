/* SPDX-License-Identifier: MIT */
/*
 * Messages of DNS (RFC 1035, EDNS of RFC 6891) as far as a forwarder has to read them: the
 * question, which is what an answer is checked against, and short answers of its own. Any thread.
 */
#pragma once

#include "lib/cursor.h"

#include <sys/types.h>

#define DNS_HEADER    12u
#define DNS_QUERY_MAX 1024u  /* bytes of what a client asks; a question has at most 271 */
#define DNS_PLAIN_MAX 512u   /* RFC 1035 4.2.1: what everybody takes by UDP */
#define DNS_UDP_MAX   1232u  /* what is asked for by UDP: never in pieces */
#define DNS_TCP_MAX   65535u /* RFC 1035 4.2.2 */
#define DNS_NAME_TEXT 256u

enum dns_type {
	DNS_A = 1,
	DNS_PTR = 12,
	DNS_AAAA = 28,
	DNS_OPT = 41,
	DNS_ANY = 255,
};
enum dns_rcode {
	DNS_OK = 0,
	DNS_FORMAT = 1,
	DNS_FAILED = 2,
	DNS_NO_NAME = 3,
	DNS_NOT_IMPLEMENTED = 4,
	DNS_REFUSED = 5,
};

struct dns_query {
	uint16_t id, flags, type, class;
	char name[DNS_NAME_TEXT]; /* small letters, no dot at the end; "" = root, or no plain text
				   */
	size_t end;               /* of the question, which begins at DNS_HEADER */
	bool edns;
	uint16_t udp_size;  /* what the client takes by UDP; DNS_PLAIN_MAX at least */
	size_t udp_size_at; /* where that stands, if `edns` */
};

/*
 * What a client sent: 0; an enum dns_rcode to refuse it with (id, flags are set then, and `end` if
 * the question can be repeated); -EINVAL = no query at all, say nothing.
 */
int dns_read_query(const void *message, size_t size, struct dns_query *ret);

/*
 * Whether `answer` is one to the query that was sent: its id, its question, all of its header.
 * What is behind the question is not looked at, only handed on.
 */
bool dns_answers(const void *query, const struct dns_query *q, const void *answer, size_t size);
enum dns_rcode dns_answer_code(const void *answer);
bool dns_answer_truncated(const void *answer);
void dns_set_id(void *message, uint16_t id);

/* An answer with nothing in it but a code; its size. `room` is DNS_QUERY_MAX at least. */
size_t dns_write_refusal(const void *query, const struct dns_query *q, enum dns_rcode code,
			 void *answer, size_t room);
/* With one record of `size` bytes; NULL = none, the name exists and has no such. */
size_t dns_write_record(const void *query, const struct dns_query *q, uint16_t type,
			const void *data, size_t size, struct writer *answer);
/* Without its records and marked so (RFC 2181 9), so that the client asks by TCP. */
size_t dns_write_truncated(const void *query, const struct dns_query *q, void *answer, size_t room);
/* A name of plain text as it lies in messages; its size, 0 = it cannot be. */
size_t dns_write_name(const char *text, void *name, size_t room);
