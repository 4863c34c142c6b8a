// SPDX-License-Identifier: MIT
/*
 * A client's query, behind two bytes with its length, and what a server answers to it. What is
 * answered here is an answer to that query, and fits; what a server says is one only if it has id
 * and question.
 */
#include "net/dns.h"

#include <stdlib.h>

static bool find_name(void *context, const char *name, uint32_t *ret)
{
	(void)context;
	*ret = 0x0a000007;
	return name[0] == 'w';
}

static bool find_address(void *context, uint32_t address, char ret[static DNS_NAME_TEXT])
{
	(void)context;
	strcpy(ret, "web");
	return address & 1;
}

static void on_answer(void *context, const struct dns_who *who, const void *message, size_t size)
{
	(void)context;
	(void)who;
	(void)message;
	(void)size;
	abort(); /* nobody was asked */
}

/* An answer has to be one to its query, also by the judge of servers' answers. */
static void check_answer(const uint8_t *query, size_t size, const uint8_t *answer, size_t n)
{
	struct dns_query q;

	if (n < DNS_HEADER || n > DNS_QUERY_MAX || memcmp(query, answer, 2) != 0 ||
	    !(answer[2] & 0x80))
		abort();
	if (dns_read_query(query, size, &q) == 0 && !dns_answers(query, &q, answer, n))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct dns_settings o = { .domain = "partita.internal",
				  .network = 0x0a000000,
				  .mask = 0xffffff00,
				  .find_name = find_name,
				  .find_address = find_address,
				  .answer = on_answer };
	struct reader r = reader_of(data, size);
	size_t n = reader_be16(&r), answered;
	const uint8_t *query = reader_take(&r, n), *said;
	uint8_t answer[DNS_QUERY_MAX], copy[DNS_UDP_MAX];
	struct dns_who who = { { 0 } };
	struct dns_query q;
	struct error err;
	struct dns *d;

	if (!query)
		return 0;
	if (loop_new(0, &o.loop, &err) < 0 || dns_new(&o, &d, &err) < 0)
		abort();
	answered = dns_ask(d, &who, query, n, answer, sizeof(answer));
	if (answered)
		check_answer(query, n, answer, answered);
	size = reader_left(&r);
	said = reader_take(&r, size);
	if (dns_read_query(query, n, &q) == 0 && said && dns_answers(query, &q, said, size)) {
		if (size < q.end || memcmp(said, query, 2) != 0)
			abort();
		if (dns_write_truncated(said, &q, copy, sizeof(copy)) < q.end)
			abort();
	}
	dns_free(d);
	loop_free(o.loop);
	return 0;
}
