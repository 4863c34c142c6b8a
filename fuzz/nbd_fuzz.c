// SPDX-License-Identifier: MIT
/*
 * A hostile NBD client. Byte 0: bit 0 writable, bit 1 negotiate first (structured replies, base:
 * allocation, GO), bit 2 frame: then what follows are requests, each of u8 type, u8 flags, u16
 * offset in 512 bytes, u16 length in 64 bytes, without magic and cookie; payloads come from the
 * rest. Else the bytes go in as they are. Byte 1: bytes in one go. Whatever comes: no crash, the
 * connection can be closed, what is held stays within its limit.
 */
#include "lib/cursor.h"
#include "vhd/raw.h"
#include "vhd/store_memory.h"
#include "vhdtool/nbd.h"
#include "vhdtool/nbd_proto.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define DISK_SIZE (2 * MIB)

struct client {
	struct loop *loop;
	struct nbd *nbd;
	size_t step;
	unsigned closed;
	bool over;
};

static void on_kick(void *context)
{
	(void)context;
}

static void on_closed(void *context)
{
	((struct client *)context)->closed++;
}

static void drain(struct client *c)
{
	struct iovec iov[8];
	unsigned count;

	loop_once(c->loop, 0);
	while ((count = nbd_output(c->nbd, iov, 8)) > 0) {
		size_t n = 0;

		for (unsigned i = 0; i < count; i++) {
			if (iov[i].iov_len && !iov[i].iov_base)
				abort();
			n += iov[i].iov_len;
		}
		nbd_sent(c->nbd, n);
	}
}

static void feed(struct client *c, const uint8_t *p, size_t size)
{
	unsigned idle = 0;

	while (size && !c->over) {
		void *buf;
		size_t n = MIN(MIN(nbd_want(c->nbd, &buf), size), c->step);

		if (!n) {
			drain(c);
			if (nbd_finished(c->nbd) || nbd_got(c->nbd, 0) < 0)
				c->over = true;
			else if (++idle > 64)
				abort(); /* all is answered, and it still wants nothing */
			continue;
		}
		idle = 0;
		memcpy(buf, p, n);
		p += n;
		size -= n;
		c->over = nbd_got(c->nbd, n) < 0;
	}
	if (!c->over)
		drain(c);
}

static void negotiate(struct client *c)
{
	static const uint8_t hello[] = "\0\0\0\3"
				       "IHAVEOPT\0\0\0\10\0\0\0\0"
				       "IHAVEOPT\0\0\0\12\0\0\0\33\0\0\0\0\0\0\0\1\0\0\0\017"
				       "base:allocation"
				       "IHAVEOPT\0\0\0\7\0\0\0\6\0\0\0\0\0\0";

	feed(c, hello, sizeof(hello) - 1);
	if (c->over)
		abort();
}

static void requests(struct client *c, struct reader *r)
{
	while (reader_left(r) >= 6 && !c->over) {
		uint8_t type = reader_u8(r), flags = reader_u8(r);
		uint64_t offset = reader_le16(r) * UINT64_C(512);
		uint32_t length = reader_le16(r) * 64u;
		const struct nbd_request q = {
			.magic = be32_of(NBD_REQUEST_MAGIC),
			.flags = be16_of(flags),
			.type = be16_of(type),
			.cookie = be64_of(r->at),
			.offset = be64_of(offset + (flags >> 5)),
			.length = be32_of(length),
		};

		feed(c, (const uint8_t *)&q, sizeof(q));
		if (type == NBD_CMD_WRITE) {
			size_t n = MIN(length, reader_left(r));

			feed(c, reader_take(r, n), n);
			if (n < length)
				return;
		}
	}
}

static struct disk *open_disk(struct loop *loop, struct store **ret)
{
	static const struct store_memory_options o = { .size_max = DISK_SIZE,
						       .bytes_max = DISK_SIZE };
	struct disk *d;

	*ret = store_memory_new(loop, &o);
	if (!*ret || store_resize(*ret, DISK_SIZE) < 0 || raw_open(*ret, &d, NULL) < 0)
		abort();
	return d;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct nbd_hooks hooks = { .kick = on_kick, .closed = on_closed };
	static struct loop *loop;
	struct reader r = reader_of(data, size);
	uint8_t flags = reader_u8(&r), step = reader_u8(&r);
	struct client c = { .step = step ? step : SIZE_MAX };
	struct nbd_export export = { .name = "", .writable = flags & 1 };
	struct store *store;

	if (!loop && loop_new(0, &loop, NULL) < 0)
		abort();
	c.loop = loop;
	export.disk = open_disk(loop, &store);
	c.nbd = nbd_new(&export, &hooks, &c);
	if (!c.nbd)
		abort();
	if (flags & 2)
		negotiate(&c);
	if (flags & 4)
		requests(&c, &r);
	else
		feed(&c, data + MIN(size, 2), size - MIN(size, 2));
	nbd_close(c.nbd);
	for (unsigned i = 0; i < 1000 && !c.closed; i++)
		loop_once(loop, 0);
	if (c.closed != 1)
		abort();
	disk_close(export.disk, NULL);
	store_memory_free(store);
	return 0;
}
