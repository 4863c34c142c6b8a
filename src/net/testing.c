// SPDX-License-Identifier: MIT
/* See testing.h. Its frames lie in memory of their exact size, so that sanitizers see every byte.
 */
#include "net/testing.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct net_fake *fake_of(struct net_uplink *u)
{
	return container_of(u, struct net_fake, uplink);
}

static int fake_receive(struct net_uplink *u, struct net_frame *ret)
{
	struct net_fake *f = fake_of(u);

	if (f->in_at == f->in_count)
		return 0;
	ret->offload = f->in[f->in_at].offload;
	ret->data = f->in[f->in_at].bytes;
	ret->size = f->in[f->in_at].size;
	f->in_at++;
	return 1;
}

static void fake_release(struct net_uplink *u)
{
	struct net_fake *f = fake_of(u);

	while (f->released < f->in_at) {
		free(f->in[f->released].bytes);
		f->in[f->released++].bytes = NULL;
	}
	if (f->released == f->in_count)
		f->released = f->in_at = f->in_count = 0;
}

static int fake_send(struct net_uplink *u, const struct net_offload *offload,
		     const struct iovec *iov, unsigned count, size_t size)
{
	struct net_fake *f = fake_of(u);
	struct net_fake_frame *g = &f->got[f->got_count % NET_FAKE_KEEPS];
	size_t at = 0;

	if (f->limited && f->room < size)
		return -EAGAIN;
	free(g->bytes);
	g->bytes = malloc(size);
	g->size = size;
	g->offload = *offload;
	for (unsigned i = 0; i < count; i++) {
		if (at + iov[i].iov_len > size)
			abort();
		memcpy(g->bytes + at, iov[i].iov_base, iov[i].iov_len);
		at += iov[i].iov_len;
	}
	if (at != size)
		abort();
	f->got_count++;
	f->got_bytes += size;
	if (f->limited)
		f->room -= size;
	return 0;
}

static void fake_flush(struct net_uplink *u)
{
	(void)u;
}

static bool fake_want_room(struct net_uplink *u)
{
	fake_of(u)->wants_room = true;
	return false;
}

static bool fake_arm(struct net_uplink *u)
{
	return fake_of(u)->in_at == fake_of(u)->in_count;
}

static void fake_free(struct net_uplink *u)
{
	fake_of(u)->freed++;
}

static const struct net_uplink_ops fake_ops = {
	.receive = fake_receive,
	.release = fake_release,
	.send = fake_send,
	.flush = fake_flush,
	.want_room = fake_want_room,
	.arm = fake_arm,
	.free = fake_free,
};

void net_fake_init(struct net_fake *f, unsigned takes)
{
	memset(f, 0, sizeof(*f));
	f->uplink.ops = &fake_ops;
	f->uplink.fd = -1;
	f->uplink.takes = takes;
}

void net_fake_clear(struct net_fake *f)
{
	for (unsigned i = 0; i < NET_FAKE_KEEPS; i++) {
		free(f->got[i].bytes);
		f->got[i].bytes = NULL;
	}
	f->got_count = f->got_bytes = 0;
}

void net_fake_deinit(struct net_fake *f)
{
	net_fake_clear(f);
	for (unsigned i = f->released; i < f->in_count; i++)
		free(f->in[i].bytes);
	free(f->in);
}

void net_fake_queue(struct net_fake *f, const void *bytes, size_t size,
		    const struct net_offload *offload)
{
	struct net_fake_frame *g;

	/* A power of two: room for twice as many. */
	if (!(f->in_count & (f->in_count - 1)))
		f->in = reallocarray(f->in, f->in_count ? f->in_count * 2 : 1, sizeof(*f->in));
	g = &f->in[f->in_count++];
	*g = (struct net_fake_frame){ .size = size, .bytes = malloc(size) };
	memcpy(g->bytes, bytes, size);
	if (offload)
		g->offload = *offload;
}
