/* SPDX-License-Identifier: MIT */
/*
 * HTTP/1.1 on the loop: Unix sockets, and TCP with TLS. Requests are whole when their handler sees
 * them, with a body of at most HTTP_BODY_MAX; they are answered at once or later; with an answer,
 * with a stream, or by becoming a WebSocket. Nothing in here knows what is asked for.
 *
 * All on the loop's thread.
 */
#pragma once

#include "daemon/authz.h"
#include "event/loop.h"
#include "rest/target.h"
#include "rest/websocket.h"

#include <gnutls/gnutls.h>

#define HTTP_BODY_MAX (1 * MIB)
#define HTTP_HEADER_MAX                                                                            \
	(16 * KIB)                 /* memory of a connection: request line, headers, our headers   \
				    */
#define HTTP_QUEUE_MAX (256 * KIB) /* of a stream; whoever lets it grow beyond is dropped */

/* Who is at the other end of a connection; kept as long as that is. */
struct http_client {
	bool local; /* a Unix socket: uid and gid are the kernel's word */
	uid_t uid;
	gid_t gid;
	char address[64];     /* a numeric address, else "" */
	gnutls_session_t tls; /* NULL on a Unix socket */
	/* The door's: who that is to us. Freed with the connection. */
	void *identity;
};

struct http_header {
	const char *name; /* a constant */
	char value[256];
};

struct http_answer {
	unsigned status;
	const char *type; /* of the body; a constant */
	char *body;       /* malloc'd, taken over; NULL: none */
	size_t size;
	unsigned header_count;
	struct http_header headers[4];
};

struct http_request;
struct http_stream;

/* How a request came in: from a connection, or from a test. */
struct http_transport {
	const char *(*header)(struct http_request *r, const char *name);
	void (*answer)(struct http_request *r, struct http_answer *answer);
	struct http_stream *(*stream)(struct http_request *r, const char *type);
	int (*upgrade)(struct http_request *r, const struct websocket_events *events, void *context,
		       struct websocket **ret, struct error *err);
};

struct http_request {
	const struct http_transport *transport;
	struct http_client *client;
	char method[8]; /* upper case; "" for a longer one */
	struct target_text target;
	struct error target_error; /* code != 0: `target` is empty for this reason */
	char *body;                /* NUL-terminated; NULL: none */
	size_t body_size;
	bool body_too_large; /* it was left out */
	/* The handler's, while it has not answered. */
	const struct caller *caller;
	void *data;
	/* It will not be answered: forget it. Not called once it is answered. */
	void (*gone)(struct http_request *r);
};

/* A header's value, or NULL. */
static inline const char *http_header(struct http_request *r, const char *name)
{
	return r->transport->header(r, name);
}

/* Takes the body over; `r` is not the handler's any more. */
static inline void http_answer(struct http_request *r, struct http_answer *answer)
{
	r->transport->answer(r, answer);
}

/*
 * 200 and an endless body. NULL: no memory, and r is still to be answered. The stream is the
 * caller's until http_stream_end, or until `gone` is called, which is never from inside a call.
 */
static inline struct http_stream *http_stream_begin(struct http_request *r, const char *type)
{
	return r->transport->stream(r, type);
}

struct http_stream {
	void (*gone)(struct http_stream *s);
	void *context;
	int (*send)(struct http_stream *s, const void *data, size_t size);
	size_t (*queued)(const struct http_stream *s);
	void (*end)(struct http_stream *s);
};

/* -ENOBUFS when the other side is too slow: the stream is cut, `gone` follows. */
static inline int http_stream_send(struct http_stream *s, const void *data, size_t size)
{
	return s->send(s, data, size);
}

static inline size_t http_stream_queued(const struct http_stream *s)
{
	return s->queued(s);
}

static inline void http_stream_end(struct http_stream *s)
{
	s->end(s);
}

/*
 * Makes the connection a WebSocket (RFC 6455 4.2) and ends the request. -EINVAL when it is not
 * asked for properly, -EPROTO when in another version than 13: r is then still to be answered.
 */
static inline int http_upgrade(struct http_request *r, const struct websocket_events *events,
			       void *context, struct websocket **ret, struct error *err)
{
	return r->transport->upgrade(r, events, context, ret, err);
}

/* What a door says to a request's head, before its body is read. */
enum http_admission {
	HTTP_ADMITTED,
	HTTP_ANSWERED, /* refused: http_answer was called */
	HTTP_LATER,    /* http_admit or http_answer will be called */
};

struct http_options {
	enum http_admission (*admit)(void *context, struct http_request *r);
	void (*handle)(void *context, struct http_request *r);
	/* Answers instead of `handle`: 429 with seconds, or 503 without memory. */
	void (*refuse)(void *context, struct http_request *r, unsigned status);
	void (*identity_free)(void *identity);
	void *context;
	unsigned connection_max, connection_max_per_client; /* 0: 1,400; 1,280 */
	unsigned rate, burst; /* requests per second of a client; 0: 500, 5,000 */
	unsigned head_ms;     /* a request's line and headers, from the connection; 0: 30 s */
	unsigned body_ms;     /* from there to the end of the body; 0: 60 s */
	unsigned answer_ms;   /* the answer must be taken within; 0: 60 s */
	unsigned idle_ms;     /* between requests; 0: 120 s */
};

struct http;

int http_new(struct loop *loop, const struct http_options *o, struct http **ret,
	     struct error *err) _must_check_;
/* Requests under way are `gone`, streams too; WebSockets were freed before. NULL is fine. */
void http_free(struct http *h);
/* PEM texts; `client_ca` NULL: clients are not asked for certificates. */
struct http_tls {
	const char *certificate, *key, *client_ca;
};
/*
 * Serves a listening socket, which is http's from here on, also on failure. With `tls` (copied)
 * TLS 1.3; one such socket at a time.
 */
int http_listen(struct http *h, int fd, const struct http_tls *tls, struct error *err) _must_check_;
/* No more of TLS: its socket is closed, its connections are cut; who has one is told, or will be.
 */
void http_unlisten_tls(struct http *h);
void http_admit(struct http_request *r);
unsigned http_connection_count(const struct http *h);
