/* SPDX-License-Identifier: MIT */
/*
 * The server's side of one NBD connection, without a socket: bytes in, bytes out, disk requests
 * below. Fixed newstyle handshake, structured replies, base:allocation. A client can send anything;
 * what it can make us hold is limited by the numbers below. The loop's thread.
 */
#pragma once

#include "vhdtool/bytes.h"

#define NBD_PAYLOAD_MAX  (32 * MIB) /* one request; what others serve too */
#define NBD_HELD_MAX     (64 * MIB) /* data of one connection's requests and replies */
#define NBD_REQUESTS_MAX 4096u      /* of one connection */
#define NBD_OPTION_MAX   (32 * KIB) /* data of an option: two names and some contexts */
#define NBD_NAME_MAX     4096u

/* The last answer of disk_ops.extent. */
struct nbd_known {
	uint64_t from, end;
	enum disk_extent_kind kind;
};

/* Shared by all connections; valid as long as any. Zero but for the first three. */
struct nbd_export {
	struct disk *disk;
	const char *name;
	bool writable;
	struct bytes_queue queue;
	struct nbd_known known;
};

struct nbd;

struct nbd_hooks {
	/* There is more to send, or room for what was not wanted before. Never from inside a call.
	 */
	void (*kick)(void *context);
	/* After nbd_close: the last request is done, and the connection is freed. */
	void (*closed)(void *context);
};

/* NULL when there is no memory. */
struct nbd *nbd_new(struct nbd_export *export, const struct nbd_hooks *hooks, void *context);
/* Nothing is called from here on but `closed`, perhaps from inside this call. */
void nbd_close(struct nbd *n);

/* Where the client's next bytes belong and how many there may be; 0 = none are wanted now. */
size_t nbd_want(struct nbd *n, void **ret_buf);
/* So many are there. 0; negative errno: the client broke the protocol: close. */
int nbd_got(struct nbd *n, size_t bytes) _must_check_;
/* What is to be sent: fills `iov`, returns how many entries. */
unsigned nbd_output(struct nbd *n, struct iovec *iov, unsigned max);
void nbd_sent(struct nbd *n, size_t bytes);
/* The client has said goodbye, and all that it asked for is sent. */
bool nbd_finished(const struct nbd *n);
