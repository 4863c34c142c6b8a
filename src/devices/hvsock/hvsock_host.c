// SPDX-License-Identifier: MIT
/*
 * See hvsock.h. Who comes to the listening socket is a client until it has said its line; then it
 * is a connection to the guest, or a listener for those of the guest. What clients can make us keep
 * is bounded in number, in bytes and in time.
 */
#include "devices/hvsock/hvsock_internal.h"
#include "lib/unix_socket.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define LINE_SECONDS 10
#define NS           UINT64_C(1000000000)

struct client {
	struct list node; /* h->clients, or h->listeners */
	struct hvsock *h;
	int fd; /* -1 while it is a connection's that is not open yet */
	struct loop_watch watch;
	struct loop_timer timer;
	bool listens;
	struct guid service;
	uint32_t number;
};

static void watch_listener(struct hvsock *h);

static void client_free(struct client *c)
{
	struct hvsock *h = c->h;

	loop_unwatch(&c->watch);
	loop_timer_disarm(&c->timer);
	if (c->fd >= 0)
		close(c->fd);
	list_remove(&c->node);
	if (c->listens)
		h->stats.listeners--;
	else
		h->stats.clients--;
	free(c);
	if (h->full)
		watch_listener(h);
}

/* A few bytes into an empty socket: they fit, or nobody is there. */
static bool say(int fd, const char *text)
{
	size_t size = strlen(text);

	return send(fd, text, size, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)size;
}

static void say_number(int fd, uint32_t number)
{
	char line[32];

	snprintf(line, sizeof(line), "OK %u\n", number);
	(void)say(fd, line);
}

static void refuse(struct client *c, const char *words)
{
	char line[300];

	snprintf(line, sizeof(line), "ERROR %.280s\n", words);
	if (c->fd >= 0)
		(void)say(c->fd, line);
	client_free(c);
}

/* --- what they say --- */

static int parse_service(const char *text, struct guid *ret)
{
	static const struct guid template = HVSOCK_TEMPLATE;
	char *end;
	unsigned long long port;
	le32 number;

	if (guid_parse(text, ret) == 0)
		return 0;
	if (*text < '0' || *text > '9')
		return -EINVAL;
	errno = 0;
	port = strtoull(text, &end, 10);
	if (errno || *end || port > HVSOCK_MAX_PORT)
		return -EINVAL;
	number = le32_of((uint32_t)port);
	*ret = template;
	memcpy(ret->b, &number, sizeof(number));
	return 0;
}

/* The guest has taken the connection, or has not: then its descriptor is ours again. */
static void on_connected(void *context, int result, int fd)
{
	struct client *c = context;

	if (result >= 0) {
		/* Sent before any byte of the guest's: those come from the loop. */
		say_number(c->fd, c->number);
		c->fd = -1;
		client_free(c);
		return;
	}
	c->fd = fd;
	refuse(c, result == -ETIMEDOUT ? "nobody in the guest has taken the connection"
				       : "the guest has gone");
}

static void client_connect(struct client *c)
{
	struct connection_start s = { .from_host = true,
				      .service = c->service,
				      .endpoint = guid_random(),
				      .fd = c->fd,
				      .done = on_connected,
				      .context = c };
	struct error err = { 0 };

	if (c->h->paused) {
		refuse(c, "the machine is paused");
		return;
	}
	if (!vmbus_version(c->h->bus)) {
		refuse(c, "the guest is not connected to VMBus");
		return;
	}
	if (c->h->stats.connections == HVSOCK_CONNECTIONS_MAX) {
		refuse(c, "the machine has as many connections as it may");
		return;
	}
	if (connection_start(c->h, &s, &c->number, &err) < 0) {
		c->fd = -1; /* closed */
		client_free(c);
	}
}

static struct client *listener_find(struct hvsock *h, const struct guid *service)
{
	list_foreach(it, &h->listeners)
	{
		struct client *c = list_entry(it, struct client, node);

		if (guid_equal(&c->service, service))
			return c;
	}
	return NULL;
}

/* Its connection is watched: when it closes nobody listens any more. */
static void on_listener(struct loop_watch *w, uint32_t events)
{
	struct client *c = container_of(w, struct client, watch);
	char rest[64];
	ssize_t n = recv(c->fd, rest, sizeof(rest), MSG_DONTWAIT);

	(void)events;
	if (n > 0 || (n < 0 && errno == EAGAIN))
		return; /* it has nothing more to say */
	client_free(c);
}

static void client_listen(struct client *c)
{
	struct hvsock *h = c->h;

	if (h->stats.listeners == HVSOCK_LISTENERS_MAX) {
		refuse(c, "the machine has as many listeners as it may");
		return;
	}
	if (listener_find(h, &c->service)) {
		refuse(c, "somebody listens for this service already");
		return;
	}
	if (loop_watch(h->loop, &c->watch, c->fd, EPOLLIN, on_listener) < 0) {
		client_free(c);
		return;
	}
	c->listens = true;
	c->number = h->number++;
	list_remove(&c->node);
	list_append(&h->listeners, &c->node);
	h->stats.clients--;
	h->stats.listeners++;
	say_number(c->fd, c->number);
	if (h->full)
		watch_listener(h);
}

static void client_said(struct client *c, const char *line)
{
	static const struct {
		const char *word;
		void (*run)(struct client *c);
	} words[] = { { "CONNECT ", client_connect }, { "LISTEN ", client_listen } };

	loop_unwatch(&c->watch);
	loop_timer_disarm(&c->timer);
	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		size_t n = strlen(words[i].word);

		if (strncmp(line, words[i].word, n))
			continue;
		if (parse_service(line + n, &c->service) < 0)
			refuse(c, "a service is a port from 0 to 2147483647 or a GUID");
		else
			words[i].run(c);
		return;
	}
	refuse(c, "say CONNECT or LISTEN, and the service");
}

/* Nothing behind the line is taken: it is for the guest. */
static void on_client(struct loop_watch *w, uint32_t events)
{
	struct client *c = container_of(w, struct client, watch);
	char line[HVSOCK_LINE_MAX + 1];
	ssize_t n = recv(c->fd, line, HVSOCK_LINE_MAX, MSG_PEEK | MSG_DONTWAIT);
	char *end = n > 0 ? memchr(line, '\n', (size_t)n) : NULL;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0 || (!end && (n == HVSOCK_LINE_MAX || events & (EPOLLHUP | EPOLLRDHUP)))) {
		client_free(c);
		return;
	}
	if (!end) {
		/* The rest wakes us again: a peeked one would without end. */
		loop_unwatch(&c->watch);
		if (loop_watch(c->h->loop, &c->watch, c->fd, EPOLLIN | EPOLLRDHUP | EPOLLET,
			       on_client) < 0)
			client_free(c);
		return;
	}
	if (recv(c->fd, line, (size_t)(end - line) + 1, MSG_DONTWAIT) != end - line + 1) {
		client_free(c);
		return;
	}
	*end = '\0';
	if (end > line && end[-1] == '\r')
		end[-1] = '\0';
	client_said(c, line);
}

static void on_silent(struct loop_timer *t)
{
	client_free(container_of(t, struct client, timer));
}

/* --- who comes --- */

static void client_new(struct hvsock *h, int fd)
{
	struct client *c = calloc(1, sizeof(*c));

	if (!c) {
		close(fd);
		return;
	}
	c->h = h;
	c->fd = fd;
	c->watch.fd = -1;
	loop_timer_init(h->loop, &c->timer, on_silent);
	loop_timer_arm(&c->timer, loop_now(h->loop) + LINE_SECONDS * NS);
	list_append(&h->clients, &c->node);
	h->stats.clients++;
	if (loop_watch(h->loop, &c->watch, fd, EPOLLIN, on_client) < 0)
		client_free(c);
}

static void on_incoming(struct loop_watch *w, uint32_t events)
{
	struct hvsock *h = container_of(w, struct hvsock, listener);
	int fd;

	(void)events;
	if (h->stats.clients >= HVSOCK_CLIENTS_MAX) {
		/* They wait outside. */
		h->full = true;
		loop_unwatch(w);
		return;
	}
	fd = accept4(h->listener_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd >= 0)
		client_new(h, fd);
}

static void watch_listener(struct hvsock *h)
{
	if (h->listener_fd >= 0 && h->stats.clients < HVSOCK_CLIENTS_MAX)
		h->full =
			loop_watch(h->loop, &h->listener, h->listener_fd, EPOLLIN, on_incoming) < 0;
}

int host_begin(struct hvsock *h, int listener, struct error *err)
{
	int r;

	h->listener_fd = listener;
	r = loop_watch(h->loop, &h->listener, listener, EPOLLIN, on_incoming);
	if (r >= 0)
		return 0;
	close(listener);
	return error_errno(err, r, "cannot wait for those who connect to the guest");
}

void host_end(struct hvsock *h)
{
	loop_unwatch(&h->listener);
	close(h->listener_fd);
	h->listener_fd = -1; /* nobody more is taken */
	while (!list_empty(&h->clients))
		client_free(list_first(&h->clients, struct client, node));
	while (!list_empty(&h->listeners))
		client_free(list_first(&h->listeners, struct client, node));
}

/* --- from the guest --- */

static bool pass(int to, const struct guid *endpoint, int fd)
{
	char id[GUID_TEXT_SIZE], line[64];
	int size = snprintf(line, sizeof(line), "CONNECTED %s\n", guid_format(endpoint, id));

	return unix_send(to, line, (size_t)size, &fd, 1, MSG_DONTWAIT) == size;
}

/* A listener that does not read what it was sent before gets no more. */
int host_wanted(struct hvsock *h, const struct guid *endpoint, const struct guid *service)
{
	struct client *c = listener_find(h, service);
	struct connection_start s = { .service = *service, .endpoint = *endpoint };
	uint32_t number;
	int pair[2];

	if (!c || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return -ECONNREFUSED;
	s.fd = pair[0];
	if (connection_start(h, &s, &number, NULL) < 0) {
		close(pair[1]);
		return -ECONNREFUSED;
	}
	/* If it does not go, the other end is closed: the guest finds a connection that has ended.
	 */
	(void)pass(c->fd, endpoint, pair[1]);
	close(pair[1]);
	return 0;
}
