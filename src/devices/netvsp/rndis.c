// SPDX-License-Identifier: MIT
/*
 * RNDIS requests of the guest's driver (MS-RNDIS 2.2): initialise, query, set, reset, keep alive,
 * halt, and what the host says by itself. A request is judged in private memory; its answer waits
 * in a short queue for a section of the receive buffer. While the queue is full, requests are
 * refused (BUSY): drivers send the next one when they have read the answer.
 */
#include "devices/netvsp/netvsp_internal.h"

#define MAX_TRANSFER_SIZE   0xEFFFFFFFu
#define ALIGNMENT_FACTOR    3u /* messages of one packet begin at multiples of 8 */
#define MESSAGES_PER_PACKET 8u

struct netvsp_answer *rndis_answer(struct netvsp *n)
{
	struct netvsp_answer *a;

	if (n->answer_count == NETVSP_ANSWERS)
		return NULL;
	a = &n->answers[(n->answer_first + n->answer_count++) % NETVSP_ANSWERS];
	*a = (struct netvsp_answer){ 0 };
	return a;
}

/* The header, once the length is known. */
static void answer_end(struct netvsp_answer *a, uint32_t type, size_t size)
{
	struct writer w = writer_of(a->data, sizeof(a->data));

	writer_le32(&w, type);
	writer_le32(&w, (uint32_t)size);
	a->size = (uint32_t)size;
}

static struct writer answer_body(struct netvsp_answer *a)
{
	struct writer w = writer_of(a->data, sizeof(a->data));

	writer_zero(&w, sizeof(struct rndis_header));
	return w;
}

void rndis_indicate(struct netvsp *n, uint32_t status, const void *data, size_t size)
{
	struct netvsp_answer *a = rndis_answer(n);
	struct writer w;

	if (!a)
		return;
	w = answer_body(a);
	writer_le32(&w, status);
	writer_le32(&w, (uint32_t)size);
	writer_le32(&w, size ? sizeof(struct rndis_indicate) : 0);
	writer_put(&w, data, size);
	answer_end(a, RNDIS_MSG_INDICATE, w.at);
}

/* --- requests: each is given what follows the header --- */

static uint32_t handle_init(struct netvsp *n, struct reader *r, struct netvsp_answer *a)
{
	const struct rndis_init_complete done = {
		.request_id = le32_of(reader_le32(r)),
		.major_version = le32_of(1),
		.device_flags = le32_of(1), /* connectionless */
		.max_packets_per_message = le32_of(MESSAGES_PER_PACKET),
		.max_transfer_size = le32_of(MAX_TRANSFER_SIZE),
		.packet_alignment_factor = le32_of(ALIGNMENT_FACTOR),
	};
	struct writer w = answer_body(a);

	n->rndis_ready = true;
	writer_put(&w, &done, sizeof(done));
	answer_end(a, RNDIS_MSG_INIT | RNDIS_MSG_COMPLETION, w.at);
	return NVSP_STAT_SUCCESS;
}

/* What a request carries; its offset counts from the request's id, which the reader is at. */
static bool take_request(struct reader *r, struct rndis_request *ret, struct reader *ret_data)
{
	size_t start = r->at;
	uint32_t offset, length;

	reader_copy(r, ret, sizeof(*ret));
	offset = le32_get(ret->information_offset);
	length = le32_get(ret->information_length);
	*ret_data = reader_of(r->data + r->at, 0);
	if (!reader_ok(r))
		return false;
	if (!length)
		return true;
	if (offset < sizeof(*ret) || !range_inside(offset, length, r->size - start))
		return false;
	*ret_data = reader_of(r->data + start + offset, length);
	return true;
}

static uint32_t handle_query(struct netvsp *n, struct reader *r, struct netvsp_answer *a)
{
	struct rndis_query_complete done = { 0 };
	struct rndis_status status = RNDIS_STATUS_INVALID_DATA;
	struct writer head, w = answer_body(a);
	struct rndis_request q;
	struct reader in;
	size_t start;

	head = w;
	writer_zero(&w, sizeof(done));
	start = w.at;
	if (take_request(r, &q, &in))
		status = oid_query(n, le32_get(q.oid), in, &w);
	if (status.value || !writer_ok(&w))
		w.at = start;
	done.request_id = q.request_id;
	done.status = le32_of(status.value);
	done.information_length = le32_of((uint32_t)(w.at - start));
	done.information_offset = le32_of(w.at == start ? 0 : sizeof(done));
	writer_put(&head, &done, sizeof(done));
	answer_end(a, RNDIS_MSG_QUERY | RNDIS_MSG_COMPLETION, w.at);
	return NVSP_STAT_SUCCESS;
}

static uint32_t handle_set(struct netvsp *n, struct reader *r, struct netvsp_answer *a)
{
	struct rndis_status status = RNDIS_STATUS_INVALID_DATA;
	struct writer w = answer_body(a);
	struct rndis_request q;
	struct reader in;

	if (take_request(r, &q, &in))
		status = oid_set(n, le32_get(q.oid), in);
	writer_le32(&w, le32_get(q.request_id));
	writer_le32(&w, status.value);
	answer_end(a, RNDIS_MSG_SET | RNDIS_MSG_COMPLETION, w.at);
	return NVSP_STAT_SUCCESS;
}

static uint32_t handle_set_ex(struct netvsp *n, struct reader *r, struct netvsp_answer *a)
{
	struct writer w = answer_body(a);

	(void)n;
	writer_le32(&w, reader_le32(r));
	writer_le32(&w, RNDIS_STATUS_NOT_SUPPORTED.value);
	writer_zero(&w, 8);
	answer_end(a, RNDIS_MSG_SET_EX | RNDIS_MSG_COMPLETION, w.at);
	return NVSP_STAT_SUCCESS;
}

static uint32_t handle_keepalive(struct netvsp *n, struct reader *r, struct netvsp_answer *a)
{
	struct writer w = answer_body(a);

	(void)n;
	writer_le32(&w, reader_le32(r));
	writer_le32(&w, RNDIS_STATUS_SUCCESS.value);
	answer_end(a, RNDIS_MSG_KEEPALIVE | RNDIS_MSG_COMPLETION, w.at);
	return NVSP_STAT_SUCCESS;
}

static uint32_t handle_reset(struct netvsp *n, struct reader *r, struct netvsp_answer *a)
{
	struct writer w = answer_body(a);

	(void)n;
	(void)r;
	writer_le32(&w, RNDIS_STATUS_SUCCESS.value);
	writer_le32(&w, 0); /* addresses and filters are still as they were set */
	answer_end(a, RNDIS_MSG_RESET | RNDIS_MSG_COMPLETION, w.at);
	return NVSP_STAT_SUCCESS;
}

/* No answer: the driver goes. */
static uint32_t handle_halt(struct netvsp *n, struct reader *r, struct netvsp_answer *a)
{
	(void)r;
	(void)a;
	n->rndis_ready = false;
	n->filter = 0;
	n->multicast_count = 0;
	oid_rss_off(n);
	return NVSP_STAT_SUCCESS;
}

static const struct {
	enum rndis_message_type type;
	uint32_t min_size; /* after the header */
	bool answered, before_init;
	uint32_t (*handler)(struct netvsp *n, struct reader *r, struct netvsp_answer *a);
} requests[] = {
	{ RNDIS_MSG_INIT, sizeof(struct rndis_init), true, true, handle_init },
	{ RNDIS_MSG_QUERY, sizeof(struct rndis_request), true, false, handle_query },
	{ RNDIS_MSG_SET, sizeof(struct rndis_request), true, false, handle_set },
	{ RNDIS_MSG_SET_EX, sizeof(struct rndis_request), true, false, handle_set_ex },
	{ RNDIS_MSG_KEEPALIVE, 4, true, true, handle_keepalive },
	{ RNDIS_MSG_RESET, 0, true, true, handle_reset },
	{ RNDIS_MSG_HALT, 4, false, true, handle_halt },
};

uint32_t rndis_control(struct netvsp *n, const uint8_t *message, size_t size)
{
	struct reader r = reader_of(message, size);
	uint32_t type = reader_le32(&r);
	struct netvsp_answer *a = NULL;

	reader_skip(&r, 4); /* the length, which `size` is */
	n->counters.control++;
	for (size_t i = 0; i < ARRAY_SIZE(requests); i++) {
		if (requests[i].type != type)
			continue;
		if (reader_left(&r) < requests[i].min_size ||
		    (!n->rndis_ready && !requests[i].before_init))
			return NVSP_STAT_INVALID_RNDIS_PKT;
		if (requests[i].answered && !(a = rndis_answer(n)))
			return NVSP_STAT_BUSY;
		return requests[i].handler(n, &r, a);
	}
	return NVSP_STAT_INVALID_RNDIS_PKT;
}
