/* SPDX-License-Identifier: MIT */
/*
 * The server's side of a WebSocket (RFC 6455) on a descriptor that was upgraded. Messages come as
 * they are framed, in pieces; a client's ping is answered, and it is pinged when it is silent.
 */
#pragma once

#include "event/loop.h"

#define WEBSOCKET_QUEUE_MAX   (256 * KIB) /* what waits to be sent; beyond it: policy violation */
#define WEBSOCKET_MESSAGE_MAX (1 * MIB)   /* a message's length, over all its frames */

enum websocket_code { /* RFC 6455 7.4.1 */
		      WEBSOCKET_NORMAL = 1000,
		      WEBSOCKET_GOING_AWAY = 1001,
		      WEBSOCKET_PROTOCOL_ERROR = 1002,
		      WEBSOCKET_NO_CODE = 1005,  /* a close frame without one */
		      WEBSOCKET_ABNORMAL = 1006, /* none: the connection was lost */
		      WEBSOCKET_NOT_UTF8 = 1007,
		      WEBSOCKET_POLICY = 1008,
		      WEBSOCKET_TOO_LARGE = 1009,
		      WEBSOCKET_ERROR = 1011,
};

struct websocket;

struct websocket_events {
	/* A piece of a message. Text need not end at a character. */
	void (*data)(void *context, struct websocket *w, const uint8_t *data, size_t size);
	/* What was queued has been sent. May be NULL. */
	void (*drained)(void *context, struct websocket *w);
	/* It is over and w is freed when this returns. Not called after websocket_free. */
	void (*closed)(void *context, struct websocket *w, unsigned code);
};

/* The descriptor belongs to `release`'s owner, who is called once at the end. */
struct websocket_options {
	const struct websocket_events *events;
	void *context;
	void (*release)(void *owner);
	void *owner;
	unsigned ping_ms; /* silence before a ping, and again until it is given up; 0: 30 s */
};

int websocket_new(struct loop *loop, const struct websocket_options *o, struct websocket **ret);
/* From here on it runs; before that, sends are kept. `data` was read already. */
int websocket_begin(struct websocket *w, int fd, const void *data, size_t size);
void websocket_free(struct websocket *w); /* cut off at once; NULL is fine */
/* The descriptor is gone, or never came: `closed` follows, `release` does not. */
void websocket_lost(struct websocket *w);
/* A binary message. -ENOBUFS: too much waits already; nothing was taken. */
int websocket_send(struct websocket *w, const void *data, size_t size);
size_t websocket_queued(const struct websocket *w);
/* Says goodbye; `closed` follows when the other side has answered, or soon. */
void websocket_close(struct websocket *w, unsigned code, const char *words);
/* Reads no more until it is told otherwise. */
void websocket_pause(struct websocket *w, bool pause);
/* The Sec-WebSocket-Accept of a key; 0 or -EINVAL. */
int websocket_accept(const char *key, char ret[static 29]);
