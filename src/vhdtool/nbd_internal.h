/* SPDX-License-Identifier: MIT */
/*
 * nbd.c moves bytes and runs requests, nbd_options.c negotiates. What is to be sent is a list of
 * `nbd_out`: gathered bytes, some inside, some a request's own.
 */
#pragma once

#include "vhdtool/nbd.h"
#include "vhdtool/nbd_proto.h"

#define NBD_SEGMENTS_MAX 16u   /* of a read: more are joined and read as data */
#define NBD_STATUS_MAX   1024u /* extents in one answer to BLOCK_STATUS */
#define NBD_INPUT_SIZE   (64 * KIB)

enum nbd_state {
	NBD_CLIENT_FLAGS,
	NBD_OPTION,
	NBD_OPTION_DATA,
	NBD_REQUEST,
	NBD_PAYLOAD,
	NBD_DISCARD, /* the payload of a request that is refused */
	NBD_LEAVING, /* nothing is read any more */
};

struct nbd_out {
	struct list node;
	struct nbd *n;
	uint64_t cost;   /* of n->held */
	void *payload;   /* freed with it */
	unsigned count;  /* of iov */
	size_t from;     /* bytes that are sent */
	bool is_request; /* counts in n->requests */
	struct iovec *iov;
};

struct nbd {
	struct nbd_export *export;
	struct nbd_hooks hooks;
	void *context;
	enum nbd_state state;
	bool no_zeroes, structured, allocation, closing;
	struct list output; /* nbd_out.node */
	unsigned requests;  /* not yet answered completely */
	unsigned running;   /* of these, what the disk has */
	uint64_t held;
	struct nbd_option option;
	struct nbd_op *op; /* whose payload comes */
	uint64_t left;     /* of the payload */
	size_t in_from, in_have;
	uint8_t in[NBD_INPUT_SIZE];
};

/* Queues bytes; -ENOMEM. */
int nbd_put(struct nbd *n, const void *bytes, size_t size);
uint16_t nbd_flags(const struct nbd *n);
/* Handles n->option, whose data is `data`. Negative errno: close. */
int nbd_option_handle(struct nbd *n, const void *data, size_t size);
