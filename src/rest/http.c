// SPDX-License-Identifier: MIT
/*
 * See http.h. libmicrohttpd parses and frames; it runs on our loop, which watches its epoll and
 * calls it when it is ready or asks for it. Sockets are listened on and accepted here, so that we
 * know who comes before anything is read, and given to it; so are all times: MHD itself only knows
 * of idle connections, which a client avoids that sends a byte now and then. Each connection has
 * one deadline, for whatever it is doing, and is shut down when it is over. One timer is armed for
 * the earliest of them.
 *
 * There is an MHD daemon for Unix sockets and one for TLS.
 */
#include "rest/http.h"
#include "lib/cleanup.h"
#include "lib/log.h"
#include "rest/http_internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define ACCEPT_BATCH 64
#define REST_MS      200 /* of the listeners when there are too many connections or descriptors */
#define PRIORITIES   "NORMAL:-VERS-ALL:+VERS-TLS1.3"

struct listener {
	struct server *server;
	struct loop_watch watch;
	struct list node;
	int fd;
};

/* --- running MHD --- */

static void server_run(struct server *s)
{
	MHD_UNSIGNED_LONG_LONG ms;

	MHD_run(s->mhd);
	if (MHD_get_timeout(s->mhd, &ms) != MHD_YES)
		loop_timer_disarm(&s->timer);
	else if (!ms)
		loop_defer(s->http->loop, &s->task);
	else
		loop_timer_arm(&s->timer, loop_now(s->http->loop) + ms * HTTP_MS);
}

static void server_on_watch(struct loop_watch *w, uint32_t events)
{
	(void)events;
	server_run(container_of(w, struct server, watch));
}

static void server_on_timer(struct loop_timer *t)
{
	server_run(container_of(t, struct server, timer));
}

static void server_on_task(struct loop_task *t)
{
	server_run(container_of(t, struct server, task));
}

void server_kick(struct server *s)
{
	loop_defer(s->http->loop, &s->task);
}

/* --- deadlines --- */

void connection_deadline(struct connection *c, unsigned ms)
{
	struct http *h = c->http;

	c->deadline = ms ? loop_now(h->loop) + ms * HTTP_MS : 0;
	if (ms && (!h->timer.deadline || c->deadline < h->timer.deadline))
		loop_timer_arm(&h->timer, c->deadline);
}

/* MHD finds the socket closed and does the rest. */
void connection_cut(struct connection *c)
{
	c->deadline = 0;
	shutdown(c->fd, SHUT_RDWR);
}

static void listeners_wake(struct http *h);

static void http_on_timer(struct loop_timer *t)
{
	struct http *h = container_of(t, struct http, timer);
	uint64_t now = loop_now(h->loop), next = 0;

	if (h->full)
		listeners_wake(h);
	list_foreach(it, &h->connections)
	{
		struct connection *c = list_entry(it, struct connection, node);

		if (c->deadline && c->deadline <= now)
			connection_cut(c);
		else if (c->deadline && (!next || c->deadline < next))
			next = c->deadline;
	}
	if (h->full)
		next = next ? MIN(next, now + REST_MS * HTTP_MS) : now + REST_MS * HTTP_MS;
	if (next)
		loop_timer_arm(&h->timer, next);
}

/* --- connections --- */

static void connection_free(struct connection *c)
{
	struct http *h = c->http;

	if (c->client.identity)
		h->o.identity_free(c->client.identity);
	list_remove(&c->node);
	h->connection_count--;
	free(c);
}

static void on_connection(void *cls, struct MHD_Connection *mhd, void **context,
			  enum MHD_ConnectionNotificationCode what)
{
	struct server *s = cls;
	struct connection *c = *context;
	const union MHD_ConnectionInfo *tls;

	if (what == MHD_CONNECTION_NOTIFY_CLOSED) {
		if (c && s->adding == c)
			s->adding = NULL;
		if (c)
			connection_free(c);
		return;
	}
	c = s->adding;
	*context = c;
	c->mhd = mhd;
	tls = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_GNUTLS_SESSION);
	c->client.tls = tls ? tls->tls_session : NULL;
}

static void identify_inet(struct connection *c, const struct sockaddr_storage *address)
{
	const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)address;
	const struct sockaddr_in *four = (const struct sockaddr_in *)address;
	int one = 1;

	c->key[0] = (uint8_t)address->ss_family;
	if (address->ss_family == AF_INET6) {
		/* who has an address there has 2^64 of them, but not when it is an IPv4 one */
		memcpy(c->key + 1, &six->sin6_addr, IN6_IS_ADDR_V4MAPPED(&six->sin6_addr) ? 16 : 8);
		inet_ntop(AF_INET6, &six->sin6_addr, c->client.address, sizeof(c->client.address));
	} else {
		memcpy(c->key + 1, &four->sin_addr, 4);
		inet_ntop(AF_INET, &four->sin_addr, c->client.address, sizeof(c->client.address));
	}
	setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

static int identify(struct connection *c, const struct sockaddr_storage *address)
{
	struct ucred cred;
	socklen_t size = sizeof(cred);

	if (c->server == &c->http->tls) {
		identify_inet(c, address);
		return 0;
	}
	if (getsockopt(c->fd, SOL_SOCKET, SO_PEERCRED, &cred, &size) < 0)
		return -errno;
	c->client.local = true;
	c->client.uid = cred.uid;
	c->client.gid = cred.gid;
	c->exempt = cred.uid == 0 || cred.uid == geteuid();
	c->key[0] = AF_UNIX;
	memcpy(c->key + 1, &cred.uid, sizeof(cred.uid));
	return 0;
}

static bool too_many_of(const struct connection *c)
{
	unsigned count = 0;

	list_foreach(it, &c->http->connections)
	{
		count += !memcmp(list_entry(it, struct connection, node)->key, c->key,
				 sizeof(c->key));
	}
	return count > c->http->o.connection_max_per_client;
}

static void refuse_connection(const struct connection *c)
{
	static const char words[] =
		"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\n"
		"Content-Type: text/plain\r\nContent-Length: 37\r\n\r\n"
		"there are too many connections of you";

	if (c->client.local)
		send(c->fd, words, sizeof(words) - 1, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* Takes `fd` over. */
static void connection_add(struct server *s, int fd, const struct sockaddr_storage *address,
			   socklen_t size)
{
	struct connection *c = calloc(1, sizeof(*c));

	if (!c) {
		close(fd);
		return;
	}
	c->http = s->http;
	c->server = s;
	c->fd = fd;
	list_append(&s->http->connections, &c->node);
	s->http->connection_count++;
	if (identify(c, address) < 0 || too_many_of(c)) {
		refuse_connection(c);
		close(fd);
		connection_free(c);
		return;
	}
	s->adding = c;
	if (MHD_add_connection(s->mhd, fd, (const struct sockaddr *)address, size) != MHD_YES) {
		if (s->adding)
			connection_free(c); /* it was not told of; the socket is closed */
	} else if (s->adding) {
		connection_deadline(c, s->http->o.head_ms);
	}
	s->adding = NULL;
	server_kick(s);
}

/* --- listening --- */

static void listener_on_watch(struct loop_watch *w, uint32_t events);

static void listeners_rest(struct http *h)
{
	uint64_t until = loop_now(h->loop) + REST_MS * HTTP_MS;

	h->full = true;
	list_foreach(it, &h->listeners) loop_unwatch(&list_entry(it, struct listener, node)->watch);
	if (!h->timer.deadline || until < h->timer.deadline)
		loop_timer_arm(&h->timer, until);
}

static void listeners_wake(struct http *h)
{
	if (h->connection_count >= h->o.connection_max)
		return;
	h->full = false;
	list_foreach(it, &h->listeners)
	{
		struct listener *l = list_entry(it, struct listener, node);

		if (loop_watch(h->loop, &l->watch, l->fd, EPOLLIN, listener_on_watch) < 0)
			h->full = true;
	}
}

static void listener_on_watch(struct loop_watch *w, uint32_t events)
{
	struct listener *l = container_of(w, struct listener, watch);
	struct http *h = l->server->http;

	(void)events;
	for (unsigned i = 0; i < ACCEPT_BATCH && !h->full; i++) {
		struct sockaddr_storage address = { 0 };
		socklen_t size = sizeof(address);
		int fd;

		if (h->connection_count >= h->o.connection_max) {
			listeners_rest(h); /* they wait in the kernel's queue */
			return;
		}
		fd = accept4(l->fd, (struct sockaddr *)&address, &size,
			     SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd >= 0)
			connection_add(l->server, fd, &address, size);
		else if (errno == EAGAIN)
			return;
		else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
			listeners_rest(h);
	}
}

static void listener_free(struct listener *l)
{
	loop_unwatch(&l->watch);
	close(l->fd);
	list_remove(&l->node);
	free(l);
}

/* Left to the router, which sees the text as it came. */
static size_t leave_escapes(void *cls, struct MHD_Connection *mhd, char *text)
{
	(void)cls;
	(void)mhd;
	return strlen(text);
}

static int server_start(struct server *s, const struct http_tls *tls, struct error *err)
{
	unsigned flags = MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET | MHD_ALLOW_SUSPEND_RESUME |
			 MHD_ALLOW_UPGRADE | (tls ? MHD_USE_TLS : 0);
	const union MHD_DaemonInfo *info;
	struct MHD_OptionItem tls_options[] = {
		{ MHD_OPTION_HTTPS_PRIORITIES, 0, (char *)PRIORITIES },
		{ MHD_OPTION_HTTPS_MEM_CERT, 0, s->pem[0] },
		{ MHD_OPTION_HTTPS_MEM_KEY, 0, s->pem[1] },
		{ s->pem[2] ? MHD_OPTION_HTTPS_MEM_TRUST : MHD_OPTION_END, 0, s->pem[2] },
		{ MHD_OPTION_END, 0, NULL },
	};
	struct MHD_OptionItem none[] = { { MHD_OPTION_END, 0, NULL } };

	s->mhd = MHD_start_daemon(
		flags, 0, NULL, NULL, exchange_on_access, s, MHD_OPTION_NOTIFY_CONNECTION,
		on_connection, s, MHD_OPTION_NOTIFY_COMPLETED, exchange_on_completed, s,
		MHD_OPTION_URI_LOG_CALLBACK, exchange_on_uri, s, MHD_OPTION_UNESCAPE_CALLBACK,
		leave_escapes, s, MHD_OPTION_CONNECTION_LIMIT, s->http->o.connection_max + 1,
		MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)HTTP_HEADER_MAX,
		MHD_OPTION_CONNECTION_TIMEOUT, 0u, MHD_OPTION_STRICT_FOR_CLIENT, 1,
		MHD_OPTION_ARRAY, tls ? tls_options : none, MHD_OPTION_END);
	if (!s->mhd)
		return error_set(err, -EINVAL, "cannot serve HTTP%s",
				 tls ? ": is the certificate, its key, or the clients' one damaged?"
				     : "");
	info = MHD_get_daemon_info(s->mhd, MHD_DAEMON_INFO_EPOLL_FD);
	if (!info ||
	    loop_watch(s->http->loop, &s->watch, info->epoll_fd, EPOLLIN, server_on_watch) < 0)
		return error_set(err, -EIO, "cannot watch the connections");
	return 0;
}

static int server_keep_pem(struct server *s, const struct http_tls *tls)
{
	const char *from[] = { tls->certificate, tls->key, tls->client_ca };

	for (unsigned i = 0; i < ARRAY_SIZE(from); i++) {
		s->pem[i] = from[i] ? strdup(from[i]) : NULL;
		if (from[i] && !s->pem[i])
			return -ENOMEM;
	}
	return 0;
}

int http_listen(struct http *h, int fd, const struct http_tls *tls, struct error *err)
{
	struct server *s = tls ? &h->tls : &h->plain;
	struct listener *l = calloc(1, sizeof(*l));
	int r;

	if (!l || (tls && server_keep_pem(s, tls) < 0)) {
		free(l);
		close(fd);
		return error_errno(err, -ENOMEM, "cannot listen");
	}
	*l = (struct listener){ .server = s, .fd = fd, .watch.fd = -1 };
	list_append(&h->listeners, &l->node);
	r = s->mhd ? 0 : server_start(s, tls, err);
	if (r >= 0) {
		r = loop_watch(h->loop, &l->watch, fd, EPOLLIN, listener_on_watch);
		if (r < 0)
			error_errno(err, r, "cannot watch a socket");
	}
	if (r < 0)
		listener_free(l);
	if (r < 0 && tls)
		http_unlisten_tls(h);
	return r;
}

static void server_stop(struct server *s)
{
	struct http *h = s->http;

	list_foreach_safe(it, &h->listeners)
	{
		struct listener *l = list_entry(it, struct listener, node);

		if (l->server == s)
			listener_free(l);
	}
	list_foreach(it, &h->connections)
	{
		struct connection *c = list_entry(it, struct connection, node);

		if (c->server == s && c->exchange)
			exchange_abort(c->exchange);
	}
	loop_unwatch(&s->watch);
	loop_timer_disarm(&s->timer);
	if (s->mhd) {
		MHD_run(s->mhd); /* what was suspended goes on to its end */
		MHD_stop_daemon(s->mhd);
	}
	loop_cancel(h->loop, &s->task);
	s->mhd = NULL;
	for (unsigned i = 0; i < ARRAY_SIZE(s->pem); i++)
		free(steal_ptr(s->pem[i]));
}

void http_unlisten_tls(struct http *h)
{
	server_stop(&h->tls);
}

static void server_init(struct http *h, struct server *s)
{
	s->http = h;
	s->watch.fd = -1;
	loop_timer_init(h->loop, &s->timer, server_on_timer);
	loop_task_init(&s->task, server_on_task);
}

static unsigned or_default(unsigned value, unsigned fallback)
{
	return value ? value : fallback;
}

int http_new(struct loop *loop, const struct http_options *o, struct http **ret, struct error *err)
{
	struct http *h = calloc(1, sizeof(*h));

	if (!h)
		return error_errno(err, -ENOMEM, "cannot serve HTTP");
	h->loop = loop;
	h->o = *o;
	h->o.connection_max = or_default(o->connection_max, 1400);
	h->o.connection_max_per_client = or_default(o->connection_max_per_client, 1280);
	h->o.rate = or_default(o->rate, 500);
	h->o.burst = or_default(o->burst, 5000);
	h->o.head_ms = or_default(o->head_ms, 30000);
	h->o.body_ms = or_default(o->body_ms, 60000);
	h->o.answer_ms = or_default(o->answer_ms, 60000);
	h->o.idle_ms = or_default(o->idle_ms, 120000);
	list_init(&h->listeners);
	list_init(&h->connections);
	server_init(h, &h->plain);
	server_init(h, &h->tls);
	loop_timer_init(loop, &h->timer, http_on_timer);
	h->rate = rate_new(h->o.rate, h->o.burst);
	if (!h->rate) {
		http_free(h);
		return error_errno(err, -ENOMEM, "cannot serve HTTP");
	}
	*ret = h;
	return 0;
}

void http_free(struct http *h)
{
	if (!h)
		return;
	h->ending = true;
	server_stop(&h->plain);
	server_stop(&h->tls);
	loop_timer_disarm(&h->timer);
	rate_free(h->rate);
	free(h);
}

unsigned http_connection_count(const struct http *h)
{
	return h->connection_count;
}
