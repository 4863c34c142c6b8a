// SPDX-License-Identifier: MIT
/* See dns_message.h. Sections are those of RFC 1035 unless another is named. */
#include "net/dns_message.h"

#include <ctype.h>
#include <errno.h>
#include <strings.h>

/* 4.1.1: the second 16 bits. */
#define FLAG_ANSWER        0x8000u
#define FLAG_OPCODE        0x7800u
#define FLAG_AUTHORITATIVE 0x0400u
#define FLAG_TRUNCATED     0x0200u
#define FLAG_DESIRED       0x0100u
#define FLAG_AVAILABLE     0x0080u
#define FLAG_CHECKING      0x0010u /* RFC 4035 3.2.2 */

#define CLASS_IN  1u
#define NAME_MAX_ 255u /* 2.3.4 */
#define LABEL_MAX 63u
#define OWN_TTL   10u /* s; machines come and go */

/* What stands for itself in text; a name with anything else is handed on, and is no machine's. */
static bool plain(uint8_t c)
{
	return isalnum(c) || c == '-' || c == '_';
}

/* 3.1; a question's name has nothing before it that it could point to. */
static bool read_name(struct reader *r, char text[static DNS_NAME_TEXT])
{
	size_t start = r->at, n = 0;
	bool all_plain = true;
	uint8_t size;

	while ((size = reader_u8(r)) != 0) {
		const uint8_t *label = size <= LABEL_MAX ? reader_take(r, size) : NULL;

		if (!label || r->at - start >= NAME_MAX_)
			return false;
		if (n)
			text[n++] = '.';
		for (unsigned i = 0; i < size; i++) {
			all_plain &= plain(label[i]);
			text[n++] = (char)tolower(label[i]);
		}
	}
	text[all_plain ? n : 0] = '\0';
	return reader_ok(r);
}

/* RFC 6891 6.1.2: the root's name, the type, what fits, code and flags, options. */
static bool read_edns(struct reader *r, struct dns_query *q)
{
	uint8_t name = reader_u8(r);
	uint16_t type = reader_be16(r);
	size_t at = r->at;
	uint16_t size = reader_be16(r);

	reader_skip(r, 4);
	reader_skip(r, reader_be16(r));
	if (!reader_ok(r) || name || type != DNS_OPT)
		return false;
	q->edns = true;
	q->udp_size_at = at;
	q->udp_size = (uint16_t)MAX(size, DNS_PLAIN_MAX);
	return true;
}

int dns_read_query(const void *message, size_t size, struct dns_query *ret)
{
	struct reader r = reader_of(message, size);
	uint16_t questions, answers, authorities, more;

	*ret = (struct dns_query){ .udp_size = DNS_PLAIN_MAX, .end = DNS_HEADER };
	ret->id = reader_be16(&r);
	ret->flags = reader_be16(&r);
	questions = reader_be16(&r);
	answers = reader_be16(&r);
	authorities = reader_be16(&r);
	more = reader_be16(&r);
	if (!reader_ok(&r) || (ret->flags & FLAG_ANSWER) || size > DNS_QUERY_MAX)
		return -EINVAL;
	if (ret->flags & FLAG_OPCODE)
		return DNS_NOT_IMPLEMENTED;
	if (questions != 1 || answers || authorities || more > 1 || !read_name(&r, ret->name))
		return DNS_FORMAT;
	ret->type = reader_be16(&r);
	ret->class = reader_be16(&r);
	if (!reader_ok(&r))
		return DNS_FORMAT;
	ret->end = r.at;
	if ((more && !read_edns(&r, ret)) || reader_left(&r))
		return DNS_FORMAT;
	return 0;
}

static uint16_t get16(const void *message, size_t at)
{
	be16 v;

	memcpy(&v, (const uint8_t *)message + at, sizeof(v));
	return be16_get(v);
}

/* Letters compare without case (2.3.3); bytes of lengths and types are no letters that differ. */
static bool same_question(const uint8_t *a, const uint8_t *b, size_t size)
{
	if (size < 4)
		return false;
	for (size_t i = 0; i < size - 4; i++)
		if (tolower(a[i]) != tolower(b[i]))
			return false;
	return !memcmp(a + size - 4, b + size - 4, 4);
}

bool dns_answers(const void *query, const struct dns_query *q, const void *answer, size_t size)
{
	uint16_t flags;

	if (size < q->end || size > DNS_TCP_MAX || get16(answer, 0) != get16(query, 0))
		return false;
	flags = get16(answer, 2);
	return (flags & FLAG_ANSWER) && !(flags & FLAG_OPCODE) && get16(answer, 4) == 1 &&
	       same_question((const uint8_t *)query + DNS_HEADER,
			     (const uint8_t *)answer + DNS_HEADER, q->end - DNS_HEADER);
}

enum dns_rcode dns_answer_code(const void *answer)
{
	return (enum dns_rcode)(get16(answer, 2) & 15u);
}

bool dns_answer_truncated(const void *answer)
{
	return get16(answer, 2) & FLAG_TRUNCATED;
}

void dns_set_id(void *message, uint16_t id)
{
	be16 v = be16_of(id);

	memcpy(message, &v, sizeof(v));
}

static void put_header(struct writer *w, const void *query, const struct dns_query *q,
		       uint16_t flags, unsigned records)
{
	writer_be16(w, q->id);
	writer_be16(w,
		    (uint16_t)(FLAG_ANSWER | FLAG_AVAILABLE |
			       (q->flags & (FLAG_OPCODE | FLAG_DESIRED | FLAG_CHECKING)) | flags));
	writer_be16(w, q->end > DNS_HEADER);
	writer_be16(w, (uint16_t)records);
	writer_be16(w, 0);
	writer_be16(w, q->edns);
	writer_put(w, (const uint8_t *)query + DNS_HEADER, q->end - DNS_HEADER);
}

/* RFC 6891 6.1.1: who sent one gets one. */
static size_t put_end(struct writer *w, const struct dns_query *q)
{
	if (q->edns) {
		writer_u8(w, 0);
		writer_be16(w, DNS_OPT);
		writer_be16(w, DNS_UDP_MAX);
		writer_be32(w, 0);
		writer_be16(w, 0);
	}
	return writer_ok(w) ? w->at : 0;
}

size_t dns_write_refusal(const void *query, const struct dns_query *q, enum dns_rcode code,
			 void *answer, size_t room)
{
	struct writer w = writer_of(answer, room);

	put_header(&w, query, q, (uint16_t)code, 0);
	return put_end(&w, q);
}

size_t dns_write_record(const void *query, const struct dns_query *q, uint16_t type,
			const void *data, size_t size, struct writer *w)
{
	put_header(w, query, q, FLAG_AUTHORITATIVE, data != NULL);
	if (data) {
		writer_be16(w, 0xc000 | DNS_HEADER); /* 4.1.4: the question's name */
		writer_be16(w, type);
		writer_be16(w, CLASS_IN);
		writer_be32(w, OWN_TTL);
		writer_be16(w, (uint16_t)size);
		writer_put(w, data, size);
	}
	return put_end(w, q);
}

size_t dns_write_truncated(const void *query, const struct dns_query *q, void *answer, size_t room)
{
	struct writer w = writer_of(answer, room);

	put_header(&w, query, q, FLAG_TRUNCATED, 0);
	return put_end(&w, q);
}

size_t dns_write_name(const char *text, void *name, size_t room)
{
	struct writer w = writer_of(name, MIN(room, NAME_MAX_));

	while (*text) {
		size_t n = strcspn(text, ".");

		if (!n || n > LABEL_MAX)
			return 0;
		writer_u8(&w, (uint8_t)n);
		writer_put(&w, text, n);
		text += n + (text[n] == '.');
	}
	writer_u8(&w, 0);
	return writer_ok(&w) ? w.at : 0;
}
