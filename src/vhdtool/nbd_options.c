// SPDX-License-Identifier: MIT
/* The negotiation: one option, one or several replies. See nbd_internal.h. */
#include "vhdtool/nbd_internal.h"

#include "lib/cursor.h"

#include <errno.h>

static int reply(struct nbd *n, uint32_t type, const void *data, size_t size)
{
	const struct nbd_option_reply h = {
		.magic = be64_of(NBD_REP_MAGIC),
		.option = n->option.option,
		.type = be32_of(type),
		.length = be32_of((uint32_t)size),
	};
	int r = nbd_put(n, &h, sizeof(h));

	return r < 0 || !size ? r : nbd_put(n, data, size);
}

uint16_t nbd_flags(const struct nbd *n)
{
	uint32_t flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA |
			 NBD_FLAG_CAN_MULTI_CONN | NBD_FLAG_SEND_CACHE;

	if (n->export->writable)
		flags |= NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_SEND_FAST_ZERO;
	else
		flags |= NBD_FLAG_READ_ONLY;
	if (n->structured)
		flags |= NBD_FLAG_SEND_DF;
	return (uint16_t)flags;
}

static bool is_export(const struct nbd *n, const void *name, size_t size)
{
	const char *ours = n->export->name;

	return !size || (size == strlen(ours) && !memcmp(name, ours, size));
}

static int export_name(struct nbd *n, const void *data, size_t size)
{
	uint8_t bytes[8 + 2 + 124];
	struct writer w = writer_of(bytes, sizeof(bytes));

	if (!is_export(n, data, size))
		return -ENOENT; /* there is no other answer to this option */
	writer_be64(&w, n->export->disk->geometry.size);
	writer_be16(&w, nbd_flags(n));
	if (!n->no_zeroes)
		writer_zero(&w, 124);
	n->state = NBD_REQUEST;
	return nbd_put(n, bytes, w.at);
}

static int list(struct nbd *n, size_t size)
{
	uint8_t bytes[4 + NBD_NAME_MAX];
	struct writer w = writer_of(bytes, sizeof(bytes));
	size_t length = strlen(n->export->name);
	int r;

	if (size)
		return reply(n, NBD_REP_ERR_INVALID, NULL, 0);
	writer_be32(&w, (uint32_t)length);
	writer_put(&w, n->export->name, length);
	r = reply(n, NBD_REP_SERVER, bytes, w.at);
	return r < 0 ? r : reply(n, NBD_REP_ACK, NULL, 0);
}

static int put_info(struct nbd *n, uint16_t type)
{
	const struct disk_geometry *g = &n->export->disk->geometry;
	uint8_t bytes[2 + NBD_NAME_MAX];
	struct writer w = writer_of(bytes, sizeof(bytes));

	writer_be16(&w, type);
	switch (type) {
	case NBD_INFO_EXPORT:
		writer_be64(&w, g->size);
		writer_be16(&w, nbd_flags(n));
		break;
	case NBD_INFO_NAME:
		writer_put(&w, n->export->name, strlen(n->export->name));
		break;
	case NBD_INFO_BLOCK_SIZE:
		writer_be32(&w, 1);
		writer_be32(&w, MAX(g->physical_sector, 4096u));
		writer_be32(&w, NBD_PAYLOAD_MAX);
		break;
	default:
		return 0;
	}
	return reply(n, NBD_REP_INFO, bytes, w.at);
}

/* INFO and GO: a name, and a list of what is to be told. */
static int info(struct nbd *n, const void *data, size_t size)
{
	struct reader r = reader_of(data, size);
	uint32_t length = reader_be32(&r);
	const void *name = reader_take(&r, length);
	unsigned count = reader_be16(&r);
	bool wanted[NBD_INFO_BLOCK_SIZE + 1] = {
		[NBD_INFO_EXPORT] = true, [NBD_INFO_BLOCK_SIZE] = true
	};
	int result = 0;

	for (unsigned i = 0; i < count && reader_ok(&r); i++) {
		uint16_t type = reader_be16(&r);

		if (type < ARRAY_SIZE(wanted))
			wanted[type] = true;
	}
	if (!reader_ok(&r) || reader_left(&r))
		return reply(n, NBD_REP_ERR_INVALID, NULL, 0);
	if (!is_export(n, name, length))
		return reply(n, NBD_REP_ERR_UNKNOWN, NULL, 0);
	for (uint16_t i = 0; i < ARRAY_SIZE(wanted) && result >= 0; i++)
		if (wanted[i])
			result = put_info(n, i);
	if (result >= 0)
		result = reply(n, NBD_REP_ACK, NULL, 0);
	if (be32_get(n->option.option) == NBD_OPT_GO)
		n->state = NBD_REQUEST;
	return result;
}

static bool query_matches(const void *query, size_t size, bool listing)
{
	static const char full[] = NBD_BASE_ALLOCATION;

	if (listing && size == strlen("base:") && !memcmp(query, full, size))
		return true;
	return size == strlen(full) && !memcmp(query, full, size);
}

static int meta_context(struct nbd *n, const void *data, size_t size, bool listing)
{
	struct reader r = reader_of(data, size);
	uint32_t length = reader_be32(&r), count;
	const void *name = reader_take(&r, length);
	bool found = false;
	int result = 0;

	count = reader_be32(&r);
	for (uint32_t i = 0; i < count && reader_ok(&r); i++) {
		uint32_t n_query = reader_be32(&r);
		const void *query = reader_take(&r, n_query);

		found = found || (query && query_matches(query, n_query, listing));
	}
	if (!listing)
		n->allocation = false;
	if (!reader_ok(&r) || reader_left(&r) || !n->structured)
		return reply(n, NBD_REP_ERR_INVALID, NULL, 0);
	if (!is_export(n, name, length))
		return reply(n, NBD_REP_ERR_UNKNOWN, NULL, 0);
	if (found || (listing && !count)) {
		uint8_t bytes[4 + sizeof(NBD_BASE_ALLOCATION)] = { 0 };

		memcpy(bytes + 4, NBD_BASE_ALLOCATION, strlen(NBD_BASE_ALLOCATION));
		result = reply(n, NBD_REP_META_CONTEXT, bytes, 4 + strlen(NBD_BASE_ALLOCATION));
		n->allocation = n->allocation || !listing;
	}
	return result < 0 ? result : reply(n, NBD_REP_ACK, NULL, 0);
}

static int structured(struct nbd *n, size_t size)
{
	if (size)
		return reply(n, NBD_REP_ERR_INVALID, NULL, 0);
	n->structured = true;
	return reply(n, NBD_REP_ACK, NULL, 0);
}

int nbd_option_handle(struct nbd *n, const void *data, size_t size)
{
	switch (be32_get(n->option.option)) {
	case NBD_OPT_EXPORT_NAME:
		return export_name(n, data, size);
	case NBD_OPT_ABORT:
		n->state = NBD_LEAVING;
		return reply(n, NBD_REP_ACK, NULL, 0);
	case NBD_OPT_LIST:
		return list(n, size);
	case NBD_OPT_INFO:
	case NBD_OPT_GO:
		return info(n, data, size);
	case NBD_OPT_STRUCTURED_REPLY:
		return structured(n, size);
	case NBD_OPT_LIST_META_CONTEXT:
		return meta_context(n, data, size, true);
	case NBD_OPT_SET_META_CONTEXT:
		return meta_context(n, data, size, false);
	default:
		return reply(n, NBD_REP_ERR_UNSUP, NULL, 0);
	}
}
