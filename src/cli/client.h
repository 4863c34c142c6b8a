/* SPDX-License-Identifier: MIT */
/*
 * A client of the management service: its REST interface (docs/rest.md) over a Unix socket or TLS.
 * Calls block; one thread. What a server sends is bounded and not trusted to be well-formed.
 */
#pragma once

#include "lib/error.h"
#include "lib/types.h"

#include <jansson.h>

#define CLIENT_ANSWER_MAX (64 * MIB) /* a list of 1,000 machines is below 8 MiB */

struct client;

/*
 * Which service: `host` is unix:PATH or https://[USER@]NAME[:PORT]; NULL: PARTITA_HOST, else the
 * user's own, else the host's. Nothing is sent yet. PARTITA_CA names a file of certificates to
 * trust, PARTITA_FINGERPRINT is the SHA-256 of the server's (AB:CD:...), PARTITA_CERT and
 * PARTITA_KEY are the client's own, PARTITA_PASSWORD the user's.
 */
int client_new(const char *host, struct client **ret, struct error *err) _must_check_;
/* The same, for programs without a person: a password that is not there is an error. */
int client_new_silent(const char *host, struct client **ret, struct error *err) _must_check_;
void client_free(struct client *c); /* NULL is fine */
/* The path of the Unix socket, or NULL when it is reached over TLS. */
const char *client_socket(const struct client *c);
/* Where it is, when that is another host than this, by its name; NULL: it is this one. */
const char *client_elsewhere(const struct client *c);

struct client_request {
	const char *method, *path; /* path and query, below /api/v1 */
	json_t *body;              /* borrowed; NULL: none */
	const char *if_match;      /* an ETag, or NULL */
	const char *key;           /* Idempotency-Key, or NULL */
};

struct client_answer {
	int status;
	json_t *body; /* NULL: none */
	char etag[128];
};
void client_answer_deinit(struct client_answer *a);

/*
 * 0 when the service did it, and *ret is to be released. Else words, and the property at fault, in
 * err: -ECONNREFUSED it is not there, -EPROTO it does not speak as it should, and what
 * client_problem says of its own refusals.
 */
int client_ask(struct client *c, const struct client_request *q, struct client_answer *ret,
	       struct error *err) _must_check_;
/* GET of one thing. */
int client_get(struct client *c, const char *path, json_t **ret, struct error *err) _must_check_;
/* All items of a list, however many pages it has. `path` may have a query. */
int client_list(struct client *c, const char *path, json_t **ret, struct error *err) _must_check_;
/* A problem's stable code, like "wrong-state", as an errno; -EIO for one not known. */
int client_problem(const char *code);

/* PREFIX + NAME with what a path may not have escaped + REST, to be freed; NULL: no memory. */
char *client_path(const char *prefix, const char *name, const char *rest);
/* Adds ?KEY=VALUE or &KEY=VALUE, escaped; frees `path`, which may be NULL. */
char *client_query(char *path, const char *key, const char *value);

/*
 * Waits for a job's end. `shown` (may be NULL) is told how it is, first of all and then at least
 * each second. 0 and *ret (may be NULL) the job when it completed; its error when it failed or was
 * cancelled (-ECANCELED); -ETIMEDOUT after `timeout_s` (0: none).
 */
struct client_wait {
	void (*shown)(void *context, const json_t *job);
	void *context;
	unsigned timeout_s;
};
int client_wait(struct client *c, const char *job, const struct client_wait *w, json_t **ret,
		struct error *err) _must_check_;

/*
 * The stream of events after the one with id `after` (negative: from now on). `each` gets an event,
 * or NULL: the stream is open, or `idle_ms` have passed without one (0: not told of). Ends when
 * `each` returns other than 0, with that; -EPIPE: the service has gone.
 */
struct client_stream {
	const char *path; /* "/events" with filters */
	int64_t after;
	unsigned idle_ms;
	int (*each)(void *context, const json_t *event);
	void *context;
};
int client_stream(struct client *c, const struct client_stream *s, struct error *err) _must_check_;

/* --- WebSocket (RFC 6455), for consoles --- */

struct client_socket;

int client_socket_open(struct client *c, const char *path, struct client_socket **ret,
		       struct error *err) _must_check_;
void client_socket_close(struct client_socket *s);
/* To poll for reading; look at client_socket_pending too, since TLS reads ahead. */
int client_socket_fd(const struct client_socket *s);
bool client_socket_pending(const struct client_socket *s);
int client_socket_send(struct client_socket *s, const void *data, size_t size,
		       struct error *err) _must_check_;
/*
 * Bytes that came, at most `size`; 0: nothing yet. -EPIPE: the other end has closed, with its
 * reason.
 */
ssize_t client_socket_receive(struct client_socket *s, void *data, size_t size,
			      struct error *err) _must_check_;
