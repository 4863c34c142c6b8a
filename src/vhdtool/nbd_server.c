// SPDX-License-Identifier: MIT
/*
 * See nbd_server.h. Sockets are watched edge-triggered; `pump` moves bytes both ways until neither
 * goes on, and gives way to other connections after some turns.
 */
#include "vhdtool/nbd_server.h"

#include "lib/cleanup.h"
#include "lib/unix_socket.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#define TURNS       16
#define IOV_AT_ONCE 128u

struct connection {
	struct loop_watch watch;
	struct loop_task task;
	struct list node;
	struct nbd_server *server;
	struct nbd *nbd; /* NULL = closed, or closing */
	bool readable, writable;
};

struct nbd_server {
	struct loop *loop;
	struct loop_watch watch;
	struct nbd_export *export;
	struct list connections; /* those that are not gone, closing ones too */
	unsigned count;
	bool once, stopping;
	int fd;
};

static void on_client(struct loop_watch *w, uint32_t events);
static void on_listener(struct loop_watch *w, uint32_t events);

static void listen_again(struct nbd_server *s)
{
	if (s->watch.fd < 0 && !s->stopping && s->count < NBD_CONNECTIONS_MAX &&
	    loop_watch(s->loop, &s->watch, s->fd, EPOLLIN, on_listener) < 0)
		nbd_server_stop(s);
}

static void on_closed(void *context)
{
	struct connection *c = context;
	struct nbd_server *s = c->server;

	loop_cancel(s->loop, &c->task);
	list_remove(&c->node);
	free(c);
	s->count--;
	if (!s->count && (s->once || s->stopping)) {
		s->stopping = true;
		loop_stop(s->loop);
		return;
	}
	listen_again(s);
}

static void drop(struct connection *c)
{
	int fd = c->watch.fd;

	if (!c->nbd)
		return;
	loop_unwatch(&c->watch);
	close(fd);
	nbd_close(steal_ptr(c->nbd)); /* may free c */
}

/* Each: 1 = moved something, 0 = cannot now, negative = the connection is over. */
static int receive(struct connection *c)
{
	void *buf;
	size_t want = nbd_want(c->nbd, &buf);
	ssize_t n;
	int r;

	if (!c->readable || !want)
		return 0;
	n = recv(c->watch.fd, buf, want, 0);
	if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
		c->readable = errno == EINTR;
		return 0;
	}
	if (n <= 0)
		return -ECONNRESET;
	r = nbd_got(c->nbd, (size_t)n);
	return r < 0 ? r : 1;
}

static int transmit(struct connection *c)
{
	struct iovec iov[IOV_AT_ONCE];
	struct msghdr m = { .msg_iov = iov };
	ssize_t n;

	m.msg_iovlen = nbd_output(c->nbd, iov, IOV_AT_ONCE);
	if (!c->writable || !m.msg_iovlen)
		return 0;
	n = sendmsg(c->watch.fd, &m, MSG_NOSIGNAL);
	if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
		c->writable = errno == EINTR;
		return 0;
	}
	if (n < 0)
		return -errno;
	nbd_sent(c->nbd, (size_t)n);
	return 1;
}

static void pump(struct connection *c)
{
	int in = nbd_got(c->nbd, 0), out = 0; /* what waited for room */

	for (unsigned i = 0; in >= 0 && out >= 0; i++) {
		in = receive(c);
		if (in >= 0)
			out = transmit(c);
		if (in < 0 || out < 0 || nbd_finished(c->nbd))
			break;
		if (!in && !out)
			return;
		if (i == TURNS) {
			loop_defer(c->server->loop, &c->task);
			return;
		}
	}
	drop(c);
}

static void on_task(struct loop_task *t)
{
	struct connection *c = container_of(t, struct connection, task);

	if (c->nbd)
		pump(c);
}

static void on_kick(void *context)
{
	struct connection *c = context;

	loop_defer(c->server->loop, &c->task);
}

static void on_client(struct loop_watch *w, uint32_t events)
{
	struct connection *c = container_of(w, struct connection, watch);

	c->readable = c->readable || (events & ~(uint32_t)EPOLLOUT);
	c->writable = c->writable || (events & ~(uint32_t)EPOLLIN);
	pump(c);
}

static void connection_new(struct nbd_server *s, int fd)
{
	static const struct nbd_hooks hooks = { .kick = on_kick, .closed = on_closed };
	struct connection *c = calloc(1, sizeof(*c));

	if (c)
		c->nbd = nbd_new(s->export, &hooks, c);
	if (!c || !c->nbd) {
		close(fd);
		free(c);
		return;
	}
	c->server = s;
	c->readable = c->writable = true;
	c->watch.fd = -1;
	loop_task_init(&c->task, on_task);
	list_append(&s->connections, &c->node);
	s->count++;
	if (loop_watch(s->loop, &c->watch, fd, EPOLLIN | EPOLLOUT | EPOLLET, on_client) < 0) {
		close(fd);
		nbd_close(steal_ptr(c->nbd));
		return;
	}
	loop_defer(s->loop, &c->task);
}

static void on_listener(struct loop_watch *w, uint32_t events)
{
	struct nbd_server *s = container_of(w, struct nbd_server, watch);
	int fd = accept4(s->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	(void)events;
	if (fd >= 0)
		connection_new(s, fd);
	if (s->count >= NBD_CONNECTIONS_MAX)
		loop_unwatch(&s->watch);
}

int nbd_server_new(struct loop *loop, int fd, struct nbd_export *export, bool once,
		   struct nbd_server **ret, struct error *err)
{
	struct nbd_server *s = calloc(1, sizeof(*s));
	int r;

	if (!s) {
		close(fd);
		return error_set(err, -ENOMEM, "out of memory");
	}
	s->loop = loop;
	s->export = export;
	s->once = once;
	s->fd = fd;
	list_init(&s->connections);
	r = loop_watch(loop, &s->watch, fd, EPOLLIN, on_listener);
	if (r < 0) {
		s->watch.fd = -1;
		nbd_server_free(s);
		return error_errno(err, r, "cannot watch the socket");
	}
	*ret = s;
	return 0;
}

void nbd_server_stop(struct nbd_server *s)
{
	s->stopping = true;
	loop_unwatch(&s->watch);
	list_foreach_safe(it, &s->connections) drop(list_entry(it, struct connection, node));
	if (!s->count)
		loop_stop(s->loop);
}

void nbd_server_free(struct nbd_server *s)
{
	if (!s)
		return;
	loop_unwatch(&s->watch);
	close(s->fd);
	free(s);
}

/* --- the listening socket --- */

int nbd_listen(const char *path, struct error *err)
{
	return unix_listen(path, 0600, 16, err); /* who may connect may read the disk */
}
