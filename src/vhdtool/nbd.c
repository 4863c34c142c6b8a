// SPDX-License-Identifier: MIT
/*
 * See nbd.h. Input is gathered in n->in until a header is whole; the payload of a WRITE goes
 * straight into the request's buffer. A request is admitted when its data fits into NBD_HELD_MAX
 * with what is there (or it is alone); until then nothing is read, so the client waits. A request
 * counts until its reply is sent: a client that does not read its replies gets no more.
 *
 * Reads of SPARSE_MIN and more ask the disk what lies there, and zeros travel as holes. Answers of
 * disk_ops.extent can be expensive (they go on to the next change), so the last one is kept:
 * "data" is always a right answer, "zeros" only until the next write.
 */
#include "vhdtool/nbd_internal.h"

#include "lib/cleanup.h"
#include "lib/cursor.h"

#include <errno.h>
#include <stdlib.h>

#define SPARSE_MIN (32 * KIB)

/* A stretch of a READ that is one chunk of the reply; other requests have one for the disk. */
struct segment {
	struct bytes_io io;
	struct nbd_op *op;
	bool hole;
	uint64_t offset, length;
	uint8_t head[sizeof(struct nbd_chunk) + 12];
};

struct nbd_op {
	struct nbd_out out; /* out.iov has room for two for each segment, and one */
	struct nbd_request request;
	uint8_t *data;
	unsigned pending;
	int result;
	uint8_t tail[sizeof(struct nbd_chunk) + 8];
	unsigned segment_count;
	struct segment segments[];
};

static void kick(struct nbd *n)
{
	if (!n->closing)
		n->hooks.kick(n->context);
}

/* --- output --- */

static void out_free(struct nbd_out *out)
{
	struct nbd *n = out->n;

	n->held -= out->cost;
	n->requests -= out->is_request;
	free(out->payload);
	free(out);
}

static void out_queue(struct nbd_out *out)
{
	list_append(&out->n->output, &out->node);
}

int nbd_put(struct nbd *n, const void *bytes, size_t size)
{
	struct nbd_out *out = calloc(1, sizeof(*out) + sizeof(struct iovec) + size);

	if (!out)
		return -ENOMEM;
	out->n = n;
	out->cost = sizeof(*out) + sizeof(struct iovec) + size;
	n->held += out->cost;
	out->iov = (struct iovec *)(out + 1);
	out->iov[0] = (struct iovec){ out->iov + 1, size };
	out->count = 1;
	memcpy(out->iov + 1, bytes, size);
	out_queue(out);
	return 0;
}

unsigned nbd_output(struct nbd *n, struct iovec *iov, unsigned max)
{
	unsigned count = 0;

	list_foreach(it, &n->output)
	{
		struct nbd_out *out = list_entry(it, struct nbd_out, node);
		size_t skip = out->from;

		for (unsigned i = 0; i < out->count && count < max; i++) {
			size_t length = out->iov[i].iov_len;

			if (skip < length)
				iov[count++] =
					(struct iovec){ (uint8_t *)out->iov[i].iov_base + skip,
							length - skip };
			skip -= MIN(skip, length);
		}
		if (count == max)
			break;
	}
	return count;
}

static size_t out_size(const struct nbd_out *out)
{
	size_t size = 0;

	for (unsigned i = 0; i < out->count; i++)
		size += out->iov[i].iov_len;
	return size;
}

void nbd_sent(struct nbd *n, size_t bytes)
{
	while (!list_empty(&n->output)) {
		struct nbd_out *out = list_first(&n->output, struct nbd_out, node);
		size_t rest = out_size(out) - out->from;

		if (bytes < rest) {
			out->from += bytes;
			return;
		}
		bytes -= rest;
		list_remove(&out->node);
		out_free(out);
	}
}

/* --- replies --- */

static uint32_t wire_error(int result)
{
	switch (result) {
	case -EPERM:
	case -EROFS:
		return NBD_EPERM;
	case -ENOMEM:
		return NBD_ENOMEM;
	case -EINVAL:
		return NBD_EINVAL;
	case -ENOSPC:
	case -EFBIG:
	case -EDQUOT:
		return NBD_ENOSPC;
	case -ENOTSUP:
		return NBD_ENOTSUP;
	case -EOVERFLOW:
		return NBD_EOVERFLOW;
	default:
		return NBD_EIO;
	}
}

static void add_iov(struct nbd_op *op, void *base, size_t length)
{
	op->out.iov[op->out.count++] = (struct iovec){ base, length };
}

static void put_chunk(struct writer *w, const struct nbd_op *op, uint32_t type, size_t length)
{
	const struct nbd_chunk h = {
		.magic = be32_of(NBD_STRUCTURED_MAGIC),
		.flags = be16_of(0),
		.type = be16_of((uint16_t)type),
		.cookie = op->request.cookie,
		.length = be32_of((uint32_t)length),
	};

	writer_put(w, &h, sizeof(h));
}

static void set_done_flag(uint8_t *chunk)
{
	const be16 flags = be16_of(NBD_REPLY_FLAG_DONE);

	memcpy(chunk + offsetof(struct nbd_chunk, flags), &flags, sizeof(flags));
}

static void reply_simple(struct nbd_op *op)
{
	const struct nbd_simple_reply h = {
		.magic = be32_of(NBD_SIMPLE_MAGIC),
		.error = be32_of(op->result < 0 ? wire_error(op->result) : 0),
		.cookie = op->request.cookie,
	};

	memcpy(op->tail, &h, sizeof(h));
	add_iov(op, op->tail, sizeof(h));
	if (op->result >= 0 && be16_get(op->request.type) == NBD_CMD_READ)
		add_iov(op, op->data, be32_get(op->request.length));
}

static void reply_error(struct nbd_op *op)
{
	struct writer w = writer_of(op->tail, sizeof(op->tail));

	put_chunk(&w, op, NBD_REPLY_TYPE_ERROR, 6);
	writer_be32(&w, wire_error(op->result));
	writer_be16(&w, 0);
	set_done_flag(op->tail);
	add_iov(op, op->tail, w.at);
}

static void reply_segments(struct nbd_op *op)
{
	for (unsigned i = 0; i < op->segment_count; i++) {
		struct segment *s = &op->segments[i];
		struct writer w = writer_of(s->head, sizeof(s->head));

		put_chunk(&w, op, s->hole ? NBD_REPLY_TYPE_OFFSET_HOLE : NBD_REPLY_TYPE_OFFSET_DATA,
			  s->hole ? 12 : 8 + s->length);
		writer_be64(&w, s->offset);
		if (s->hole)
			writer_be32(&w, (uint32_t)s->length);
		if (i == op->segment_count - 1)
			set_done_flag(s->head);
		add_iov(op, s->head, w.at);
		if (!s->hole)
			add_iov(op, s->io.buf, s->length);
	}
}

static void op_reply(struct nbd_op *op)
{
	struct nbd *n = op->out.n;
	uint16_t type = be16_get(op->request.type);

	if (!n->structured || (type != NBD_CMD_READ && type != NBD_CMD_BLOCK_STATUS))
		reply_simple(op);
	else if (op->result < 0)
		reply_error(op);
	else
		reply_segments(op);
	out_queue(&op->out);
}

/* --- requests --- */

static void nbd_free(struct nbd *n)
{
	void (*closed)(void *) = n->hooks.closed;
	void *context = n->context;

	free(n);
	closed(context);
}

static void on_segment_done(struct bytes_io *io, int result)
{
	struct segment *s = container_of(io, struct segment, io);
	struct nbd_op *op = s->op;
	struct nbd *n = op->out.n;

	if (result < 0 && !op->result)
		op->result = result;
	if (--op->pending)
		return;
	n->running--;
	if (!n->closing) {
		op_reply(op);
		kick(n);
		return;
	}
	out_free(&op->out);
	if (!n->running)
		nbd_free(n);
}

static struct nbd_op *op_new(struct nbd *n, const struct nbd_request *request, unsigned segments)
{
	size_t size = sizeof(struct nbd_op) + segments * sizeof(struct segment);
	struct nbd_op *op = calloc(1, size + (2 * segments + 1) * sizeof(struct iovec));

	if (!op)
		return NULL;
	op->out.n = n;
	op->out.is_request = true;
	op->out.iov = (struct iovec *)((uint8_t *)op + size);
	op->request = *request;
	op->segment_count = segments;
	for (unsigned i = 0; i < segments; i++)
		op->segments[i].op = op;
	n->requests++;
	return op;
}

static int op_buffer(struct nbd_op *op, size_t size)
{
	if (posix_memalign(&op->out.payload, 4096, MAX(size, 1u))) {
		op->out.payload = NULL;
		return -ENOMEM;
	}
	op->data = op->out.payload;
	op->out.cost = size;
	op->out.n->held += size;
	return 0;
}

static void op_submit(struct nbd_op *op)
{
	struct nbd *n = op->out.n;
	unsigned count = op->segment_count;

	n->running++;
	op->pending = 1;
	for (unsigned i = 0; i < count; i++)
		op->pending += !op->segments[i].hole;
	for (unsigned i = 0; i < count; i++) {
		struct segment *s = &op->segments[i];

		if (s->hole)
			continue;
		s->io.done = on_segment_done;
		bytes_submit(&n->export->queue, n->export->disk, &s->io);
	}
	if (--op->pending)
		return;
	n->running--;
	op_reply(op);
}

/* Answers at once. */
static int op_end(struct nbd *n, const struct nbd_request *request, int result)
{
	struct nbd_op *op = op_new(n, request, 0);

	if (!op)
		return -ENOMEM;
	op->result = result;
	op_reply(op);
	return 0;
}

/* --- extents --- */

/* What lies at offset, cut at `end`. */
static int extent_at(struct nbd_export *e, uint64_t offset, uint64_t end,
		     enum disk_extent_kind *ret_kind, uint64_t *ret_length)
{
	struct nbd_known *k = &e->known;
	uint64_t length;
	int r;

	if (offset < k->from || offset >= k->end) {
		r = e->disk->ops->extent(e->disk, offset, &k->kind, &length);
		if (r < 0) {
			k->from = k->end = 0;
			return r;
		}
		k->from = offset;
		k->end = offset + MIN(length, e->disk->geometry.size - offset);
	}
	*ret_kind = k->kind;
	*ret_length = MIN(k->end, end) - offset;
	return 0;
}

static void forget_extents(struct nbd_export *e, bool zeros)
{
	if (zeros || e->known.kind != DISK_EXTENT_DATA)
		e->known.from = e->known.end = 0;
}

static unsigned find_segments(struct nbd *n, uint64_t offset, uint64_t length, struct segment *ret)
{
	uint64_t end = offset + length;
	unsigned count = 0;

	while (offset < end) {
		enum disk_extent_kind kind = DISK_EXTENT_DATA;
		uint64_t step = end - offset;
		bool hole;

		if (n->structured && length >= SPARSE_MIN && count < NBD_SEGMENTS_MAX - 1 &&
		    (extent_at(n->export, offset, end, &kind, &step) < 0 || !step)) {
			kind = DISK_EXTENT_DATA;
			step = end - offset;
		}
		hole = kind != DISK_EXTENT_DATA;
		if (count && ret[count - 1].hole == hole)
			ret[count - 1].length += step;
		else
			ret[count++] =
				(struct segment){ .hole = hole, .offset = offset, .length = step };
		offset += step;
	}
	return count;
}

/* --- commands --- */

static int start_read(struct nbd *n, const struct nbd_request *request)
{
	struct segment found[NBD_SEGMENTS_MAX] = { 0 };
	uint64_t offset = be64_get(request->offset), length = be32_get(request->length), data = 0;
	bool whole = be16_get(request->flags) & NBD_CMD_FLAG_DF;
	unsigned count = 1;
	struct nbd_op *op;

	if (whole)
		found[0] = (struct segment){ .offset = offset, .length = length };
	else
		count = find_segments(n, offset, length, found);
	op = op_new(n, request, count);
	if (!op)
		return -ENOMEM;
	for (unsigned i = 0; i < count; i++)
		data += found[i].hole ? 0 : found[i].length;
	if (op_buffer(op, data) < 0) {
		op->result = -ENOMEM;
		op_reply(op);
		return 0;
	}
	data = 0;
	for (unsigned i = 0; i < count; i++) {
		struct segment *s = &op->segments[i];

		*s = found[i];
		s->op = op;
		s->io.op = DISK_READ;
		s->io.offset = s->offset;
		s->io.length = s->length;
		s->io.buf = op->data + data;
		data += s->hole ? 0 : s->length;
	}
	op_submit(op);
	return 0;
}

static int start_status(struct nbd *n, const struct nbd_request *request)
{
	static uint8_t bytes[sizeof(struct nbd_chunk) + 4 + NBD_STATUS_MAX * 8];
	struct writer w = writer_of(bytes, sizeof(bytes));
	uint64_t at = be64_get(request->offset), end = at + be32_get(request->length), length;
	unsigned max = be16_get(request->flags) & NBD_CMD_FLAG_REQ_ONE ? 1 : NBD_STATUS_MAX;
	struct nbd_op head = { .request = *request };
	be32 size;

	if (!n->allocation || at == end)
		return op_end(n, request, -EINVAL);
	put_chunk(&w, &head, NBD_REPLY_TYPE_BLOCK_STATUS, 0);
	writer_be32(&w, 0); /* the only context */
	for (unsigned i = 0; i < max && at < end; i++, at += length) {
		enum disk_extent_kind kind;
		int r = extent_at(n->export, at, end, &kind, &length);

		if (r >= 0 && !length)
			r = -EIO;
		if (r < 0)
			return op_end(n, request, r);
		writer_be32(&w, (uint32_t)length);
		writer_be32(&w, kind == DISK_EXTENT_DATA   ? 0
				: kind == DISK_EXTENT_HOLE ? NBD_STATE_HOLE | NBD_STATE_ZERO
							   : NBD_STATE_ZERO);
	}
	size = be32_of((uint32_t)(w.at - sizeof(struct nbd_chunk)));
	memcpy(bytes + offsetof(struct nbd_chunk, length), &size, sizeof(size));
	set_done_flag(bytes);
	return nbd_put(n, bytes, w.at);
}

static int start_simple(struct nbd *n, const struct nbd_request *request, enum disk_op kind)
{
	struct nbd_op *op = op_new(n, request, 1);
	struct bytes_io *io;

	if (!op)
		return -ENOMEM;
	io = &op->segments[0].io;
	io->op = kind;
	io->flags = be16_get(request->flags) & NBD_CMD_FLAG_FUA ? DISK_FUA : 0;
	if (kind != DISK_FLUSH) {
		io->offset = be64_get(request->offset);
		io->length = be32_get(request->length);
		forget_extents(n->export, true);
	}
	op_submit(op);
	return 0;
}

static int start_zeroes(struct nbd *n, const struct nbd_request *request)
{
	uint32_t granularity = n->export->disk->geometry.trim_granularity;
	uint64_t mask = granularity ? granularity - 1 : 0;

	/* Only what the format can do without writing. */
	if (be16_get(request->flags) & NBD_CMD_FLAG_FAST_ZERO &&
	    (!granularity || ((be64_get(request->offset) | be32_get(request->length)) & mask)))
		return op_end(n, request, -ENOTSUP);
	return start_simple(n, request, DISK_WRITE_ZEROES);
}

/* The payload follows: it is read even when the request is refused. */
static int start_write(struct nbd *n, const struct nbd_request *request, int refused)
{
	uint32_t length = be32_get(request->length);
	struct nbd_op *op;

	if (length > NBD_PAYLOAD_MAX)
		return -EPROTO;
	op = op_new(n, request, 1);
	if (!op)
		return -ENOMEM;
	if (!refused)
		refused = op_buffer(op, length);
	op->result = refused;
	n->op = op;
	n->left = length;
	n->state = refused ? NBD_DISCARD : NBD_PAYLOAD;
	return 0;
}

static void end_write(struct nbd *n)
{
	struct nbd_op *op = steal_ptr(n->op);
	struct bytes_io *io = &op->segments[0].io;

	n->state = NBD_REQUEST;
	if (op->result < 0) {
		op_reply(op);
		return;
	}
	forget_extents(n->export, false);
	io->op = DISK_WRITE;
	io->flags = be16_get(op->request.flags) & NBD_CMD_FLAG_FUA ? DISK_FUA : 0;
	io->offset = be64_get(op->request.offset);
	io->length = be32_get(op->request.length);
	io->buf = op->data;
	op_submit(op);
}

static const struct command {
	uint16_t flags; /* that may be set */
	bool changes, has_range;
} commands[] = {
	[NBD_CMD_READ] = { NBD_CMD_FLAG_DF | NBD_CMD_FLAG_FUA, false, true },
	[NBD_CMD_WRITE] = { NBD_CMD_FLAG_FUA, true, true },
	[NBD_CMD_DISC] = { 0xffff, false, false },
	[NBD_CMD_FLUSH] = { NBD_CMD_FLAG_FUA, false, false },
	[NBD_CMD_TRIM] = { NBD_CMD_FLAG_FUA, true, true },
	[NBD_CMD_CACHE] = { NBD_CMD_FLAG_FUA, false, true },
	[NBD_CMD_WRITE_ZEROES] = { NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO,
				   true, true },
	[NBD_CMD_BLOCK_STATUS] = { NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_REQ_ONE, false, true },
};

static int judge(const struct nbd *n, const struct nbd_request *request)
{
	uint16_t type = be16_get(request->type);
	const struct command *c;
	uint64_t size = n->export->disk->geometry.size;

	if (type >= ARRAY_SIZE(commands))
		return -EINVAL;
	c = &commands[type];
	if (be16_get(request->flags) & ~c->flags)
		return -EINVAL;
	if (c->changes && !n->export->writable)
		return -EPERM;
	if (c->has_range &&
	    !range_inside(be64_get(request->offset), be32_get(request->length), size))
		return c->changes ? -ENOSPC : -EINVAL;
	if (type == NBD_CMD_READ &&
	    (!be32_get(request->length) || be32_get(request->length) > NBD_PAYLOAD_MAX))
		return -EINVAL;
	return 0;
}

static int start(struct nbd *n, const struct nbd_request *request)
{
	int refused = judge(n, request);

	if (be16_get(request->type) == NBD_CMD_WRITE)
		return start_write(n, request, refused);
	if (refused < 0)
		return op_end(n, request, refused);
	switch (be16_get(request->type)) {
	case NBD_CMD_READ:
		return start_read(n, request);
	case NBD_CMD_DISC:
		n->state = NBD_LEAVING;
		return 0;
	case NBD_CMD_FLUSH:
		return start_simple(n, request, DISK_FLUSH);
	case NBD_CMD_TRIM:
		return start_simple(n, request, DISK_TRIM);
	case NBD_CMD_WRITE_ZEROES:
		return start_zeroes(n, request);
	case NBD_CMD_BLOCK_STATUS:
		return start_status(n, request);
	default: /* CACHE: the kernel reads ahead by itself */
		return op_end(n, request, 0);
	}
}

/* --- input --- */

static bool has_room(const struct nbd *n)
{
	const struct nbd_request *next = (const void *)(n->in + n->in_from);
	uint16_t type;
	uint64_t need;

	if (n->requests >= NBD_REQUESTS_MAX)
		return false;
	if (n->state != NBD_REQUEST || n->in_have < sizeof(*next))
		return n->held < NBD_HELD_MAX;
	type = be16_get(next->type);
	need = type == NBD_CMD_READ || type == NBD_CMD_WRITE ? be32_get(next->length) : 0;
	return !n->held || MIN(need, NBD_PAYLOAD_MAX) + n->held <= NBD_HELD_MAX;
}

/* The next bytes when all of them are there, else NULL. */
static const void *take(struct nbd *n, size_t size)
{
	const void *p = n->in + n->in_from;

	if (n->in_have < size)
		return NULL;
	n->in_from += size;
	n->in_have -= size;
	return p;
}

static int read_client_flags(struct nbd *n)
{
	const be32 *flags = take(n, sizeof(*flags));
	uint32_t value;

	if (!flags)
		return 0;
	value = be32_get(*flags);
	if (value & ~(NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES))
		return -EPROTO;
	n->no_zeroes = value & NBD_FLAG_C_NO_ZEROES;
	n->state = NBD_OPTION;
	return 1;
}

static int read_option(struct nbd *n)
{
	const void *o = take(n, sizeof(n->option));

	if (!o)
		return 0;
	memcpy(&n->option, o, sizeof(n->option));
	if (be64_get(n->option.magic) != NBD_OPTION_MAGIC ||
	    be32_get(n->option.length) > NBD_OPTION_MAX)
		return -EPROTO;
	n->state = NBD_OPTION_DATA;
	return 1;
}

static int read_option_data(struct nbd *n)
{
	size_t size = be32_get(n->option.length);
	const void *data = take(n, size);
	int r;

	if (!data)
		return 0;
	n->state = NBD_OPTION;
	r = nbd_option_handle(n, data, size);
	return r < 0 ? r : 1;
}

static int read_request(struct nbd *n)
{
	struct nbd_request request;
	const void *p = take(n, sizeof(request));
	int r;

	if (!p)
		return 0;
	memcpy(&request, p, sizeof(request));
	if (be32_get(request.magic) != NBD_REQUEST_MAGIC)
		return -EPROTO;
	r = start(n, &request);
	return r < 0 ? r : 1;
}

static int read_payload(struct nbd *n)
{
	size_t size = MIN(n->left, n->in_have);
	const void *p = take(n, size);

	if (n->state == NBD_PAYLOAD && size)
		memcpy(n->op->data + be32_get(n->op->request.length) - n->left, p, size);
	n->left -= size;
	if (n->left)
		return 0;
	end_write(n);
	return 1;
}

/* One step: 1 = go on, 0 = more bytes or room are needed. */
static int step(struct nbd *n)
{
	switch (n->state) {
	case NBD_CLIENT_FLAGS:
		return read_client_flags(n);
	case NBD_OPTION:
		return read_option(n);
	case NBD_OPTION_DATA:
		return has_room(n) ? read_option_data(n) : 0;
	case NBD_REQUEST:
		return has_room(n) ? read_request(n) : 0;
	case NBD_PAYLOAD:
	case NBD_DISCARD:
		return read_payload(n);
	case NBD_LEAVING:
		break;
	}
	n->in_have = 0;
	return 0;
}

int nbd_got(struct nbd *n, size_t bytes)
{
	int r;

	if (n->state == NBD_PAYLOAD && !n->in_have) {
		n->left -= bytes;
		if (!n->left)
			end_write(n);
	} else {
		n->in_have += bytes;
	}
	do
		r = step(n);
	while (r > 0);
	return r;
}

size_t nbd_want(struct nbd *n, void **ret_buf)
{
	if (n->state == NBD_LEAVING)
		return 0;
	if (n->state == NBD_PAYLOAD && !n->in_have) {
		*ret_buf = n->op->data + be32_get(n->op->request.length) - n->left;
		return n->left;
	}
	if (n->state != NBD_DISCARD && !has_room(n))
		return 0;
	if (n->in_from) {
		memmove(n->in, n->in + n->in_from, n->in_have);
		n->in_from = 0;
	}
	*ret_buf = n->in + n->in_have;
	return sizeof(n->in) - n->in_have;
}

bool nbd_finished(const struct nbd *n)
{
	return n->state == NBD_LEAVING && !n->requests && list_empty(&n->output);
}

/* --- life --- */

struct nbd *nbd_new(struct nbd_export *export, const struct nbd_hooks *hooks, void *context)
{
	struct nbd *n = calloc(1, sizeof(*n));
	uint8_t hello[18];
	struct writer w = writer_of(hello, sizeof(hello));

	if (!n)
		return NULL;
	n->export = export;
	n->hooks = *hooks;
	n->context = context;
	list_init(&n->output);
	writer_be64(&w, NBD_MAGIC);
	writer_be64(&w, NBD_OPTION_MAGIC);
	writer_be16(&w, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
	if (nbd_put(n, hello, w.at) < 0) {
		free(n);
		return NULL;
	}
	return n;
}

void nbd_close(struct nbd *n)
{
	n->closing = true;
	n->state = NBD_LEAVING;
	if (n->op)
		out_free(&n->op->out);
	n->op = NULL;
	list_foreach_safe(it, &n->output)
	{
		list_remove(it);
		out_free(list_entry(it, struct nbd_out, node));
	}
	if (!n->running)
		nbd_free(n);
}
