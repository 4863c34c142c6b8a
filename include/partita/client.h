/* SPDX-License-Identifier: MIT */
/*
 * A client of Partita's management service, for programs: its REST interface over the service's
 * Unix socket or TLS; docs/rest.md and the service's openapi.json say what there is to ask. What
 * goes to the service and comes from it is JSON text. Link with -lpartita-client.
 *
 * A client is used by one thread at a time; clients do not share anything. Calls block. Functions
 * that can fail return 0 or a negative errno; struct partita_client_error (NULL is fine) also gets
 * words for a person. What a service sends is bounded and not trusted to be well-formed.
 */
#ifndef PARTITA_CLIENT_H
#define PARTITA_CLIENT_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PARTITA_CLIENT_VERSION "0.1.0"

struct partita_client;

struct partita_client_error {
	int code;           /* negative errno */
	char message[1024]; /* one line: what was wrong, where, what to do */
	char property[128]; /* the setting at fault, or "" */
};

/*
 * Which service: `host` is "unix:PATH" or "https://[USER@]NAME[:PORT]"; NULL: the environment's
 * PARTITA_HOST, else the user's own service, else the host's. Nothing is sent yet. For TLS the
 * environment has what is needed, as for partita(1): PARTITA_CA, PARTITA_FINGERPRINT, PARTITA_CERT,
 * PARTITA_KEY, PARTITA_PASSWORD. Nobody is asked for anything.
 */
int partita_client_open(const char *host, struct partita_client **ret,
			struct partita_client_error *err);
void partita_client_close(struct partita_client *client); /* NULL is fine */

struct partita_client_request {
	const char *method;   /* "GET", ... */
	const char *path;     /* with its query, below /api/v1: "/vms?state=running" */
	const char *body;     /* JSON, or NULL */
	const char *if_match; /* an ETag: only if it is still that; or NULL */
	const char *key;      /* Idempotency-Key of what makes something, or NULL */
};

struct partita_client_answer {
	int status;     /* of HTTP: 200, 201, 202, 204 */
	char *body;     /* JSON, or NULL; to be freed */
	char etag[128]; /* or "" */
};

/*
 * 0 when the service did it. Else what it refused, in its words: -ENOENT there is no such thing,
 * -EACCES one may not, -EBADFD not in this state, -ESTALE it was changed meanwhile, -EINVAL a value
 * that it does not take, ...; or -ECONNREFUSED it is not there, -EPROTO it does not speak as it
 * should.
 */
int partita_client_ask(struct partita_client *client, const struct partita_client_request *request,
		       struct partita_client_answer *ret, struct partita_client_error *err);
/* All items of a list, however many pages it has: a JSON array, to be freed. */
int partita_client_list(struct partita_client *client, const char *path, char **ret,
			struct partita_client_error *err);
/* PREFIX NAME REST with what a path may not have in NAME escaped; to be freed. NULL: no memory. */
char *partita_client_path(const char *prefix, const char *name, const char *rest);

/*
 * Waits for a job's end, at most `timeout_s` (0: for ever; -ETIMEDOUT). 0 and *ret (NULL is fine;
 * to be freed) the job when it completed; its error when it failed or was cancelled. `shown` (NULL
 * is fine) gets the job at first and then at least each second.
 */
struct partita_client_wait {
	unsigned timeout_s;
	void (*shown)(void *context, const char *job);
	void *context;
};
int partita_client_wait(struct partita_client *client, const char *job,
			const struct partita_client_wait *how, char **ret,
			struct partita_client_error *err);

/*
 * Events as they happen, after the one with id `after`; negative: from now on. `each` gets an
 * event, or NULL: the stream is open, or `idle_ms` have passed without one (0: not told of). Ends
 * when `each` returns other than 0, with that; -EPIPE when the service has gone: come again with
 * the last id.
 */
struct partita_client_events {
	const char *path; /* "/events", perhaps with filters */
	int64_t after;
	unsigned idle_ms;
	int (*each)(void *context, const char *event);
	void *context;
};
int partita_client_events(struct partita_client *client, const struct partita_client_events *what,
			  struct partita_client_error *err);

/*
 * A machine's serial console ("/vms/ID/console"). Poll the descriptor for reading, unless
 * partita_console_pending says that there is something already. Reading gives bytes, 0 when there
 * is nothing now, -EPIPE when the other end has closed it, with its reason.
 */
struct partita_console;
int partita_console_open(struct partita_client *client, const char *path,
			 struct partita_console **ret, struct partita_client_error *err);
void partita_console_close(struct partita_console *console); /* NULL is fine */
int partita_console_fd(const struct partita_console *console);
int partita_console_pending(const struct partita_console *console);
ssize_t partita_console_read(struct partita_console *console, void *data, size_t size,
			     struct partita_client_error *err);
int partita_console_write(struct partita_console *console, const void *data, size_t size,
			  struct partita_client_error *err);

#ifdef __cplusplus
}
#endif

#endif
