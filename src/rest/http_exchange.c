// SPDX-License-Identifier: MIT
/*
 * A request and its answer, as MHD goes through them. MHD calls us with the address (before the
 * headers), with the head, with each piece of the body, and when all is there. Who has not answered
 * then answers later: the connection is suspended, with an eye on it for a client that leaves, and
 * resumed with the answer. A stream is a body that MHD asks for; when nothing waits to be sent the
 * connection is suspended likewise. An upgraded connection's descriptor is the WebSocket's until
 * that releases it.
 *
 * An exchange is made with the address and freed when MHD says that it is completed; whoever has a
 * pointer to it (a handler, a stream, a WebSocket's end) is told then, or has been before.
 */
#include "lib/cleanup.h"
#include "rest/http_internal.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>

#define STREAM_BLOCK 4096

struct upgrade {
	struct websocket *websocket; /* NULL: released */
	struct MHD_UpgradeResponseHandle *handle;
};

struct exchange {
	struct http_request r;
	struct connection *c;
	bool headed, has_body, admitting, admitted, handling;
	bool suspended, abandoned, answered;
	struct loop_watch watch; /* of the socket, while suspended */
	size_t body_capacity;
	unsigned status;
	struct MHD_Response *response; /* until it is queued */
	struct stream *stream;
	struct upgrade *upgrade;
};

/* Freed when neither the handler nor MHD holds it. */
struct stream {
	struct http_stream s;
	struct loop *loop;
	struct exchange *e; /* NULL: completed */
	unsigned references;
	bool ended, cut;
	struct loop_task task; /* tells that it is gone */
	char *queue;
	size_t queue_start, queue_size, queue_capacity;
};

static const struct http_transport transport;

/* --- suspending --- */

static void resume(struct exchange *e)
{
	if (!e->suspended)
		return;
	e->suspended = false;
	loop_unwatch(&e->watch);
	MHD_resume_connection(e->c->mhd);
	server_kick(e->c->server);
}

static void tell_gone(struct exchange *e)
{
	if (e->answered || !(e->handling || e->admitting))
		return;
	e->answered = true;
	if (e->r.gone)
		e->r.gone(&e->r);
}

/* The client has left: both directions are closed. */
static void on_hangup(struct loop_watch *w, uint32_t events)
{
	struct exchange *e = container_of(w, struct exchange, watch);

	(void)events;
	e->abandoned = true;
	tell_gone(e);
	resume(e);
}

static void suspend(struct exchange *e)
{
	struct http *h = e->c->http;

	connection_deadline(e->c, 0);
	MHD_suspend_connection(e->c->mhd);
	e->suspended = true;
	/* without it a client that leaves is found out later */
	if (loop_watch(h->loop, &e->watch, e->c->fd, 0, on_hangup) < 0)
		e->watch.fd = -1;
}

/* --- a request, step by step --- */

static struct connection *connection_of(struct MHD_Connection *mhd)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);

	return info->socket_context;
}

void *exchange_on_uri(void *cls, const char *uri, struct MHD_Connection *mhd)
{
	struct connection *c = connection_of(mhd);
	struct exchange *e = calloc(1, sizeof(*e));

	(void)cls;
	if (!e)
		return NULL;
	e->c = c;
	e->watch.fd = -1;
	e->r.transport = &transport;
	e->r.client = &c->client;
	c->exchange = e;
	if (target_parse(uri, &e->r.target, &e->r.target_error) == -ENOMEM)
		e->abandoned = true;
	connection_deadline(c, c->http->o.body_ms);
	return e;
}

static const char *header(struct http_request *r, const char *name)
{
	struct exchange *e = container_of(r, struct exchange, r);

	return MHD_lookup_connection_value(e->c->mhd, MHD_HEADER_KIND, name);
}

/* Whether a body follows, and (by its length) one that we will not take. */
static void look_at_length(struct exchange *e)
{
	const char *length = header(&e->r, "Content-Length");
	const char *coding = header(&e->r, "Transfer-Encoding");

	e->has_body = coding || (length && strspn(length, "0") != strlen(length));
	/* MHD has checked that it is a number; leading zeros make none larger */
	length = length ? length + strspn(length, "0") : "";
	e->r.body_too_large = strlen(length) > 7 || strtoul(length, NULL, 10) > HTTP_BODY_MAX;
}

static void begin(struct exchange *e, const char *method)
{
	struct http *h = e->c->http;

	e->headed = true;
	if (strlen(method) < sizeof(e->r.method))
		strcpy(e->r.method, method);
	look_at_length(e);
	if (!e->c->exempt && !rate_take(h->rate, e->c->key, sizeof(e->c->key), loop_now(h->loop))) {
		h->o.refuse(h->o.context, &e->r, 429);
		return;
	}
	e->admitting = true;
	if (h->o.admit(h->o.context, &e->r) == HTTP_LATER)
		return;
	e->admitting = false;
	e->admitted = true;
}

void http_admit(struct http_request *r)
{
	struct exchange *e = container_of(r, struct exchange, r);

	e->admitting = false;
	resume(e);
}

static enum MHD_Result queue_answer(struct exchange *e)
{
	enum MHD_Result result = MHD_queue_response(e->c->mhd, e->status, e->response);

	MHD_destroy_response(steal_ptr(e->response));
	connection_deadline(e->c, e->stream || e->upgrade ? 0 : e->c->http->o.answer_ms);
	return result;
}

static void handle(struct exchange *e)
{
	struct http *h = e->c->http;

	e->handling = true;
	connection_deadline(e->c, 0);
	h->o.handle(h->o.context, &e->r);
}

/* After the head: refuse before the body comes, or wait for it. */
static enum MHD_Result after_head(struct exchange *e)
{
	if (e->admitting) {
		suspend(e);
		return MHD_YES;
	}
	e->admitted = true;
	if (e->has_body && e->r.body_too_large && !e->answered)
		handle(e);
	if (e->has_body && e->response)
		return queue_answer(e);
	connection_deadline(e->c, e->c->http->o.body_ms);
	return MHD_YES;
}

static bool take_body(struct exchange *e, const char *data, size_t size)
{
	size_t need = e->r.body_size + size + 1;
	char *bigger;

	if (e->r.body_too_large || size > HTTP_BODY_MAX - e->r.body_size) {
		/* chunks; what comes until the deadline is read and forgotten, for the answer */
		e->r.body_too_large = true;
		free(steal_ptr(e->r.body));
		e->r.body_size = 0;
		e->body_capacity = 0;
		return true;
	}
	if (need > e->body_capacity) {
		size_t capacity = MAX(need, MIN(e->body_capacity * 2, HTTP_BODY_MAX + 1));

		bigger = realloc(e->r.body, capacity);
		if (!bigger)
			return false;
		e->r.body = bigger;
		e->body_capacity = capacity;
	}
	memcpy(e->r.body + e->r.body_size, data, size);
	e->r.body_size += size;
	e->r.body[e->r.body_size] = '\0';
	return true;
}

enum MHD_Result exchange_on_access(void *cls, struct MHD_Connection *mhd, const char *url,
				   const char *method, const char *version, const char *upload_data,
				   size_t *upload_data_size, void **con_cls)
{
	struct exchange *e = *con_cls;

	(void)cls;
	(void)mhd;
	(void)url;
	(void)version;
	if (!e || e->abandoned || e->c->http->ending)
		return MHD_NO;
	if (!e->headed) {
		begin(e, method);
		return after_head(e);
	}
	if (!e->admitted)
		return after_head(e);
	if (*upload_data_size) {
		bool taken = take_body(e, upload_data, *upload_data_size);

		*upload_data_size = 0;
		return taken ? MHD_YES : MHD_NO;
	}
	if (!e->answered && !e->handling)
		handle(e);
	if (e->response)
		return queue_answer(e);
	suspend(e);
	return MHD_YES;
}

static void stream_completed(struct stream *s);

void exchange_on_completed(void *cls, struct MHD_Connection *mhd, void **con_cls,
			   enum MHD_RequestTerminationCode code)
{
	struct exchange *e = *con_cls;

	(void)cls;
	(void)mhd;
	(void)code;
	if (!e)
		return;
	*con_cls = NULL;
	loop_unwatch(&e->watch);
	tell_gone(e);
	if (e->stream)
		stream_completed(e->stream);
	if (e->upgrade && e->upgrade->websocket)
		websocket_lost(e->upgrade->websocket);
	free(e->upgrade);
	if (e->response)
		MHD_destroy_response(e->response);
	e->c->exchange = NULL;
	connection_deadline(e->c, e->c->http->o.idle_ms);
	target_deinit(&e->r.target);
	free(e->r.body);
	free(e);
}

/* --- answers --- */

static void set_response(struct exchange *e, unsigned status, struct MHD_Response *response)
{
	assert(!e->answered);
	e->answered = true;
	e->status = status;
	e->response = response;
	if (!response)
		e->abandoned = true; /* no memory for an answer: the connection is closed */
	e->admitting = false;
	resume(e);
}

static void add_header(struct MHD_Response *response, const char *name, const char *value)
{
	if (response)
		MHD_add_response_header(response, name, value);
}

static void answer(struct http_request *r, struct http_answer *a)
{
	struct exchange *e = container_of(r, struct exchange, r);
	char *body = steal_ptr(a->body);
	struct MHD_Response *response;

	response = MHD_create_response_from_buffer(body ? a->size : 0, body ? body : (char *)"",
						   body ? MHD_RESPMEM_MUST_FREE
							: MHD_RESPMEM_PERSISTENT);
	if (!response)
		free(body);
	if (body)
		add_header(response, "Content-Type", a->type);
	add_header(response, "Cache-Control", "no-store");
	add_header(response, "X-Content-Type-Options", "nosniff");
	for (unsigned i = 0; i < a->header_count; i++)
		add_header(response, a->headers[i].name, a->headers[i].value);
	set_response(e, a->status, response);
}

/* --- streams --- */

static void stream_unref(void *p)
{
	struct stream *s = p;

	if (--s->references)
		return;
	loop_cancel(s->loop, &s->task);
	free(s->queue);
	free(s);
}

static void stream_on_task(struct loop_task *t)
{
	struct stream *s = container_of(t, struct stream, task);

	if (!s->ended) {
		s->ended = true;
		s->s.gone(&s->s);
		stream_unref(s);
	}
}

static void stream_completed(struct stream *s)
{
	s->e = NULL;
	if (!s->ended)
		loop_defer(s->loop, &s->task);
}

static ssize_t stream_read(void *p, uint64_t position, char *data, size_t max)
{
	struct stream *s = p;
	size_t n = MIN(s->queue_size, max);

	(void)position;
	if (!s->e || s->e->abandoned || s->cut)
		return MHD_CONTENT_READER_END_WITH_ERROR;
	if (!n && s->ended)
		return MHD_CONTENT_READER_END_OF_STREAM;
	if (!n) {
		suspend(s->e);
		return 0;
	}
	memcpy(data, s->queue + s->queue_start, n);
	s->queue_start += n;
	s->queue_size -= n;
	if (!s->queue_size)
		s->queue_start = 0;
	/* it takes them, or more waits for that */
	connection_deadline(s->e->c, s->queue_size ? s->e->c->http->o.answer_ms : 0);
	return (ssize_t)n;
}

static int stream_reserve(struct stream *s, size_t more)
{
	size_t need = s->queue_size + more, capacity = MAX(s->queue_capacity, 1024);
	char *bigger;

	if (s->queue_start + need <= s->queue_capacity)
		return 0;
	if (s->queue_size)
		memmove(s->queue, s->queue + s->queue_start, s->queue_size);
	s->queue_start = 0;
	while (capacity < need)
		capacity *= 2;
	bigger = realloc(s->queue, capacity);
	if (!bigger)
		return -ENOMEM;
	s->queue = bigger;
	s->queue_capacity = capacity;
	return 0;
}

static int stream_send(struct http_stream *stream, const void *data, size_t size)
{
	struct stream *s = container_of(stream, struct stream, s);

	if (s->ended || s->cut || !s->e || !size)
		return size ? -ENOBUFS : 0;
	if (size > HTTP_QUEUE_MAX - s->queue_size || stream_reserve(s, size) < 0) {
		s->cut = true;
		connection_cut(s->e->c);
		resume(s->e);
		return -ENOBUFS;
	}
	memcpy(s->queue + s->queue_start + s->queue_size, data, size);
	if (!s->queue_size && !s->e->suspended)
		connection_deadline(s->e->c, s->e->c->http->o.answer_ms);
	s->queue_size += size;
	resume(s->e);
	return 0;
}

static size_t stream_queued(const struct http_stream *stream)
{
	return container_of(stream, struct stream, s)->queue_size;
}

static void stream_end(struct http_stream *stream)
{
	struct stream *s = container_of(stream, struct stream, s);

	assert(!s->ended);
	s->ended = true;
	if (s->e && !s->cut) {
		connection_deadline(s->e->c, s->e->c->http->o.answer_ms);
		resume(s->e);
	}
	stream_unref(s);
}

static struct http_stream *stream_begin(struct http_request *r, const char *type)
{
	struct exchange *e = container_of(r, struct exchange, r);
	struct stream *s = calloc(1, sizeof(*s));
	struct MHD_Response *response;

	if (!s)
		return NULL;
	response = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_BLOCK, stream_read, s,
						     stream_unref);
	if (!response) {
		free(s);
		return NULL;
	}
	*s = (struct stream){
		.s = { .send = stream_send, .queued = stream_queued, .end = stream_end },
		.loop = e->c->http->loop,
		.e = e,
		.references = 2
	};
	loop_task_init(&s->task, stream_on_task);
	e->stream = s;
	add_header(response, "Content-Type", type);
	add_header(response, "Cache-Control", "no-store");
	set_response(e, 200, response);
	return &s->s;
}

/* --- WebSockets --- */

static void upgrade_release(void *owner)
{
	struct exchange *e = owner;
	struct upgrade *u = e->upgrade;

	u->websocket = NULL;
	if (u->handle)
		MHD_upgrade_action(steal_ptr(u->handle), MHD_UPGRADE_ACTION_CLOSE);
	server_kick(e->c->server);
}

void exchange_abort(struct exchange *e)
{
	e->abandoned = true;
	tell_gone(e);
	if (e->upgrade && e->upgrade->websocket) {
		websocket_lost(e->upgrade->websocket);
		upgrade_release(e);
	}
	if (e->stream)
		stream_on_task(&e->stream->task);
	resume(e);
}

static void on_upgrade(void *cls, struct MHD_Connection *mhd, void *con_cls, const char *extra,
		       size_t extra_size, MHD_socket fd, struct MHD_UpgradeResponseHandle *handle)
{
	struct exchange *e = con_cls;
	struct upgrade *u = e->upgrade;

	(void)cls;
	(void)mhd;
	connection_deadline(e->c, 0);
	u->handle = handle;
	if (!u->websocket)
		MHD_upgrade_action(steal_ptr(u->handle), MHD_UPGRADE_ACTION_CLOSE);
	else if (websocket_begin(u->websocket, fd, extra, extra_size) < 0) {
		websocket_lost(u->websocket);
		upgrade_release(e);
	}
}

/* Whether a list like "keep-alive, Upgrade" has this word. */
static bool has_token(const char *list, const char *token)
{
	size_t n = strlen(token);

	while (list && *list) {
		list += strspn(list, " \t,");
		if (!strncasecmp(list, token, n) && strchr(" \t,", list[n]))
			return true;
		list += strcspn(list, ",");
	}
	return false;
}

static int check_upgrade(struct http_request *r, char accept[static 29], struct error *err)
{
	const char *version = header(r, "Sec-WebSocket-Version");
	const char *key = header(r, "Sec-WebSocket-Key");

	if (strcmp(r->method, "GET") || r->body || !has_token(header(r, "Connection"), "upgrade") ||
	    !has_token(header(r, "Upgrade"), "websocket"))
		return error_set(err, -EINVAL,
				 "this is for WebSockets: ask with GET, \"Connection: "
				 "Upgrade\" and \"Upgrade: websocket\"");
	if (!version || strcmp(version, "13"))
		return error_set(err, -EPROTO, "the version of WebSocket must be 13");
	if (!key || websocket_accept(key, accept) < 0)
		return error_set(err, -EINVAL, "Sec-WebSocket-Key must be 16 bytes in base64");
	return 0;
}

static int upgrade(struct http_request *r, const struct websocket_events *events, void *context,
		   struct websocket **ret, struct error *err)
{
	struct exchange *e = container_of(r, struct exchange, r);
	struct websocket_options o = {
		.events = events, .context = context, .release = upgrade_release, .owner = e
	};
	struct MHD_Response *response;
	char accept[29];
	int result = check_upgrade(r, accept, err);

	if (result < 0)
		return result;
	response = MHD_create_response_for_upgrade(on_upgrade, NULL);
	e->upgrade = calloc(1, sizeof(*e->upgrade));
	if (!response || !e->upgrade ||
	    websocket_new(e->c->http->loop, &o, &e->upgrade->websocket) < 0) {
		if (response)
			MHD_destroy_response(response);
		free(steal_ptr(e->upgrade));
		return error_errno(err, -ENOMEM, "cannot open a WebSocket");
	}
	*ret = e->upgrade->websocket;
	add_header(response, "Upgrade", "websocket");
	add_header(response, "Sec-WebSocket-Accept", accept);
	set_response(e, 101, response);
	return 0;
}

static const struct http_transport transport = {
	.header = header,
	.answer = answer,
	.stream = stream_begin,
	.upgrade = upgrade,
};
