/* SPDX-License-Identifier: MIT */
/*
 * What a server sends on a WebSocket, without the socket: the answer to the handshake and the
 * frames behind it. The caller puts bytes in as they come, in pieces of any size.
 */
#pragma once

#include "lib/error.h"
#include "lib/types.h"

#include <sys/types.h>

#define FRAMES_ROOM          (64 * KIB)
#define FRAMES_HANDSHAKE_MAX (16 * KIB)

enum opcode { /* RFC 6455, 11.8 */
	      OPCODE_CONTINUE = 0,
	      OPCODE_TEXT = 1,
	      OPCODE_BINARY = 2,
	      OPCODE_CLOSE = 8,
	      OPCODE_PING = 9,
	      OPCODE_PONG = 10,
};

/* All zero at first, but for the caller's part. */
struct frames {
	uint8_t in[FRAMES_ROOM]; /* received, not used yet */
	size_t size;
	uint64_t left; /* of the payload of the data frame that is being handed out */
	bool closed;
	/* The caller's: a ping, at most 125 bytes, wants its pong; 1, or negative with words. */
	int (*ping)(struct frames *f, const void *payload, size_t size, struct error *err);
};

/* Where the next bytes go, and how many have room. */
uint8_t *frames_room(struct frames *f, size_t *ret_size);
void frames_added(struct frames *f, size_t size);
/* 1: it was all there, what follows are frames, or a body; 0: more bytes are needed. */
int frames_handshake(struct frames *f, int *ret_status, struct error *err) _must_check_;
/*
 * Bytes of data frames, at most `size`; 0: more must come in first. -EPIPE: closed by the other
 * end, with its reason; -EPROTO: what came breaks the protocol. Nothing comes after either.
 */
ssize_t frames_take(struct frames *f, void *data, size_t size, struct error *err);
/* Whether frames_take would do something. */
bool frames_pending(const struct frames *f);
