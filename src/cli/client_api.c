// SPDX-License-Identifier: MIT
/*
 * The client as a library for other programs (include/partita/client.h): the same one that the
 * command line has, with JSON as text, since a program may have a reader of its own.
 */
#include <partita/client.h>

#include "cli/client.h"
#include "lib/cleanup.h"
#include "schema/json.h"

#include <errno.h>
#include <string.h>

/* The public names stand for what is behind them. */
static struct client *client_of(struct partita_client *c)
{
	return (struct client *)c;
}

static struct client_socket *socket_of(const struct partita_console *c)
{
	return (struct client_socket *)c;
}

/* Copies the words of a failure (code < 0) to a caller who wants them; the code. */
static int tell(struct partita_client_error *ret, int code, const struct error *err)
{
	if (!ret || code >= 0)
		return code;
	*ret = (struct partita_client_error){ .code = code };
	snprintf(ret->message, sizeof(ret->message), "%s",
		 *err->message ? err->message : strerror(-code));
	snprintf(ret->property, sizeof(ret->property), "%s", err->property);
	return code;
}

static int no_memory(struct error *err)
{
	return error_set(err, -ENOMEM, "out of memory");
}

static int text_of(const json_t *json, char **ret, struct error *err)
{
	if (!ret)
		return 0;
	*ret = json ? json_dumps(json, JSON_COMPACT) : NULL;
	return json && !*ret ? no_memory(err) : 0;
}

int partita_client_open(const char *host, struct partita_client **ret,
			struct partita_client_error *err)
{
	struct client *c = NULL;
	struct error e = { 0 };
	int r = client_new_silent(host, &c, &e);

	if (r >= 0)
		*ret = (struct partita_client *)c;
	return tell(err, r, &e);
}

void partita_client_close(struct partita_client *client)
{
	client_free(client_of(client));
}

static int ask(struct partita_client *client, const struct partita_client_request *q,
	       struct partita_client_answer *ret, struct error *err)
{
	_cleanup_json_ json_t *body = NULL;
	struct client_answer a;
	json_error_t at;
	int r;

	if (q->body) {
		body = json_loads(q->body, JSON_REJECT_DUPLICATES, &at);
		if (!body)
			return error_set(err, -EINVAL,
					 "the body is no JSON: line %d, column %d: %s", at.line,
					 at.column, at.text);
	}
	r = client_ask(client_of(client),
		       &(struct client_request){ q->method, q->path, body, q->if_match, q->key },
		       &a, err);
	if (r < 0)
		return r;
	*ret = (struct partita_client_answer){ .status = a.status };
	memcpy(ret->etag, a.etag, sizeof(ret->etag));
	_Static_assert(sizeof(ret->etag) == sizeof(a.etag), "one length of ETags");
	r = text_of(a.body, &ret->body, err);
	client_answer_deinit(&a);
	return r;
}

int partita_client_ask(struct partita_client *client, const struct partita_client_request *request,
		       struct partita_client_answer *ret, struct partita_client_error *err)
{
	struct error e = { 0 };

	return tell(err, ask(client, request, ret, &e), &e);
}

int partita_client_list(struct partita_client *client, const char *path, char **ret,
			struct partita_client_error *err)
{
	_cleanup_json_ json_t *items = NULL;
	struct error e = { 0 };
	int r = client_list(client_of(client), path, &items, &e);

	if (r >= 0)
		r = text_of(items, ret, &e);
	return tell(err, r, &e);
}

char *partita_client_path(const char *prefix, const char *name, const char *rest)
{
	return client_path(prefix, name, rest);
}

/* --- what lasts --- */

static void on_shown(void *context, const json_t *job)
{
	const struct partita_client_wait *how = context;
	_cleanup_free_ char *text = json_dumps(job, JSON_COMPACT);

	if (text)
		how->shown(how->context, text);
}

int partita_client_wait(struct partita_client *client, const char *job,
			const struct partita_client_wait *how, char **ret,
			struct partita_client_error *err)
{
	static const struct partita_client_wait usual;
	const struct partita_client_wait *h = how ? how : &usual;
	const struct client_wait cw = { .shown = h->shown ? on_shown : NULL,
					.context = (void *)h,
					.timeout_s = h->timeout_s };
	_cleanup_json_ json_t *ended = NULL;
	struct error e = { 0 };
	int r = client_wait(client_of(client), job, &cw, &ended, &e);

	if (r >= 0)
		r = text_of(ended, ret, &e);
	return tell(err, r, &e);
}

static int on_event(void *context, const json_t *event)
{
	const struct partita_client_events *what = context;
	_cleanup_free_ char *text = event ? json_dumps(event, JSON_COMPACT) : NULL;

	if (event && !text)
		return -ENOMEM;
	return what->each(what->context, text);
}

int partita_client_events(struct partita_client *client, const struct partita_client_events *what,
			  struct partita_client_error *err)
{
	const struct client_stream s = { .path = what->path,
					 .after = what->after,
					 .idle_ms = what->idle_ms,
					 .each = on_event,
					 .context = (void *)what };
	struct error e = { 0 };

	return tell(err, client_stream(client_of(client), &s, &e), &e);
}

/* --- consoles --- */

int partita_console_open(struct partita_client *client, const char *path,
			 struct partita_console **ret, struct partita_client_error *err)
{
	struct client_socket *s = NULL;
	struct error e = { 0 };
	int r = client_socket_open(client_of(client), path, &s, &e);

	if (r >= 0)
		*ret = (struct partita_console *)s;
	return tell(err, r, &e);
}

void partita_console_close(struct partita_console *console)
{
	client_socket_close(socket_of(console));
}

int partita_console_fd(const struct partita_console *console)
{
	return client_socket_fd(socket_of(console));
}

int partita_console_pending(const struct partita_console *console)
{
	return client_socket_pending(socket_of(console));
}

ssize_t partita_console_read(struct partita_console *console, void *data, size_t size,
			     struct partita_client_error *err)
{
	struct error e = { 0 };
	ssize_t n = client_socket_receive(socket_of(console), data, size, &e);

	return n < 0 ? tell(err, (int)n, &e) : n;
}

int partita_console_write(struct partita_console *console, const void *data, size_t size,
			  struct partita_client_error *err)
{
	struct error e = { 0 };

	return tell(err, client_socket_send(socket_of(console), data, size, &e), &e);
}
