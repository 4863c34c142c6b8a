// SPDX-License-Identifier: MIT
/*
 * Queries by TCP (RFC 1035 4.2.2, RFC 7766): a stream is a client's connection and, while a
 * question is on its way, one to a server. One question of a connection at a time; a client that
 * sends more has them wait in its socket. What a client can make us keep: its query, and one
 * answer.
 */
#include "lib/cleanup.h"
#include "net/dns_private.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

/* A message with its length in front, going one way. */
struct parcel {
	uint8_t *bytes;
	size_t room, done, size; /* size: 0 = not known yet, as it is read */
};

struct stream {
	struct dns *dns;
	struct list node;
	struct loop_watch client, server;
	struct loop_timer timer;
	struct dns_query query;
	unsigned tries;
	bool asking;                    /* the server: what goes to it has not all gone */
	struct parcel question, answer; /* the answer goes to the client when it is whole */
	uint8_t question_bytes[2 + DNS_QUERY_MAX];
};

static void unplug(struct loop_watch *w)
{
	int fd = w->fd;

	loop_unwatch(w);
	if (fd >= 0)
		close(fd);
	w->fd = -1;
}

static void stream_free(struct stream *s)
{
	unplug(&s->client);
	unplug(&s->server);
	loop_timer_disarm(&s->timer);
	list_remove(&s->node);
	s->dns->stream_count--;
	free(s->answer.bytes);
	free(s);
}

/* 1 = whole, 0 = later, negative = the other side is gone or says too much. */
static int parcel_read(struct parcel *p, int fd)
{
	while (!p->size || p->done < p->size) {
		size_t want = (p->size ? p->size : 2) - p->done;
		ssize_t n = read(fd, p->bytes + p->done, want);

		if (n <= 0)
			return n == 0 ? -EPIPE : errno == EAGAIN || errno == EINTR ? 0 : -errno;
		p->done += (size_t)n;
		if (p->size || p->done < 2)
			continue;
		p->size = 2u + (size_t)(p->bytes[0] << 8 | p->bytes[1]);
		if (p->size > p->room || p->size < 2 + DNS_HEADER)
			return -EMSGSIZE;
	}
	return 1;
}

static int parcel_write(struct parcel *p, int fd)
{
	while (p->done < p->size) {
		ssize_t n = send(fd, p->bytes + p->done, p->size - p->done, MSG_NOSIGNAL);

		if (n < 0)
			return errno == EAGAIN || errno == EINTR ? 0 : -errno;
		p->done += (size_t)n;
	}
	return 1;
}

static void parcel_seal(struct parcel *p, size_t size)
{
	p->bytes[0] = (uint8_t)(size >> 8);
	p->bytes[1] = (uint8_t)size;
	p->size = 2 + size;
	p->done = 0;
}

static void stream_touch(struct stream *s)
{
	loop_timer_arm(&s->timer, loop_now(s->dns->settings.loop) + DNS_STREAM_NS);
}

static void client_ready(struct loop_watch *w, uint32_t events);
static void server_ready(struct loop_watch *w, uint32_t events);

static int rewatch(struct stream *s, struct loop_watch *w, uint32_t events,
		   void (*fn)(struct loop_watch *, uint32_t))
{
	int fd = w->fd;

	loop_unwatch(w);
	w->fd = -1;
	if (loop_watch(s->dns->settings.loop, w, fd, events, fn) < 0) {
		close(fd);
		return -EIO;
	}
	return 0;
}

/* The answer is whole in its parcel. False = s is gone. */
static bool stream_reply(struct stream *s)
{
	int r = parcel_write(&s->answer, s->client.fd);

	if (r == 0)
		r = rewatch(s, &s->client, EPOLLOUT, client_ready);
	else if (r == 1) {
		free(s->answer.bytes);
		s->answer = (struct parcel){ 0 };
		s->question.done = s->question.size = 0;
		r = rewatch(s, &s->client, EPOLLIN, client_ready);
	}
	if (r < 0)
		stream_free(s);
	return r >= 0;
}

static bool stream_fail(struct stream *s)
{
	size_t n;

	unplug(&s->server);
	dns_set_id(s->question.bytes + 2, s->query.id);
	n = dns_write_refusal(s->question.bytes + 2, &s->query, DNS_FAILED, s->answer.bytes + 2,
			      s->answer.room - 2);
	parcel_seal(&s->answer, n);
	return stream_reply(s);
}

/* Another server; what it says overwrites what the last one said. */
static bool stream_ask(struct stream *s)
{
	struct dns *d = s->dns;
	unsigned most = MAX(DNS_TRIES, d->settings.server_count);

	unplug(&s->server);
	while (d->settings.server_count && s->tries < most) {
		unsigned i = s->tries++ % d->settings.server_count;
		int fd = dns_connect(&d->settings.servers[i], SOCK_STREAM);

		if (fd < 0)
			continue;
		if (loop_watch(d->settings.loop, &s->server, fd, EPOLLOUT, server_ready) < 0) {
			close(fd);
			continue;
		}
		dns_set_id(s->question.bytes + 2, dns_random_id());
		s->question.done = 0;
		s->answer.done = s->answer.size = 0;
		s->asking = true;
		stream_touch(s);
		return true;
	}
	return stream_fail(s);
}

static bool stream_answered(struct stream *s)
{
	uint8_t *message = s->answer.bytes + 2;

	if (!dns_answers(s->question.bytes + 2, &s->query, message, s->answer.size - 2)) {
		s->dns->counters.lies++;
		return stream_ask(s);
	}
	unplug(&s->server);
	s->dns->counters.answered++;
	dns_set_id(message, s->query.id);
	s->answer.done = 0;
	return stream_reply(s);
}

static void server_ready(struct loop_watch *w, uint32_t events)
{
	struct stream *s = container_of(w, struct stream, server);
	int r;

	(void)events;
	if (s->asking) {
		r = parcel_write(&s->question, w->fd);
		if (r == 1) {
			s->asking = false;
			r = rewatch(s, w, EPOLLIN, server_ready);
		}
	} else {
		r = parcel_read(&s->answer, w->fd);
		if (r == 1) {
			stream_answered(s);
			return;
		}
	}
	if (r < 0)
		stream_ask(s);
}

/* A query is there. False = s is gone. */
static bool stream_query(struct stream *s)
{
	struct dns *d = s->dns;
	struct writer w;
	ssize_t n;

	s->answer.room = 2 + DNS_TCP_MAX;
	s->answer.bytes = malloc(s->answer.room);
	if (!s->answer.bytes) {
		stream_free(s);
		return false;
	}
	w = writer_of(s->answer.bytes + 2, s->answer.room - 2);
	n = dns_answer_here(d, s->question.bytes + 2, s->question.size - 2, &s->query, &w);
	if (n < 0) {
		stream_free(s);
		return false;
	}
	if (n > 0) {
		parcel_seal(&s->answer, (size_t)n);
		return stream_reply(s);
	}
	d->counters.forwarded++;
	s->tries = 0;
	if (rewatch(s, &s->client, 0, client_ready) < 0) {
		stream_free(s);
		return false;
	}
	return stream_ask(s);
}

static void client_ready(struct loop_watch *w, uint32_t events)
{
	struct stream *s = container_of(w, struct stream, client);
	int r;

	stream_touch(s);
	if (events & EPOLLERR || (events & EPOLLHUP && !(events & EPOLLIN))) {
		stream_free(s);
		return;
	}
	if (s->answer.size && s->server.fd < 0) {
		stream_reply(s);
		return;
	}
	r = parcel_read(&s->question, w->fd);
	if (r < 0)
		stream_free(s);
	else if (r == 1)
		stream_query(s);
}

static void stream_late(struct loop_timer *t)
{
	struct stream *s = container_of(t, struct stream, timer);

	if (s->server.fd < 0) {
		stream_free(s);
		return;
	}
	s->dns->counters.timeouts++;
	stream_ask(s);
}

static void on_accept(struct loop_watch *w, uint32_t events)
{
	struct dns *d = container_of(w, struct dns, listener);
	int fd = accept4(w->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	struct stream *s;

	(void)events;
	if (fd < 0)
		return;
	s = d->stream_count < DNS_STREAMS_MAX ? calloc(1, sizeof(*s)) : NULL;
	if (!s) {
		d->counters.dropped++;
		close(fd);
		return;
	}
	s->dns = d;
	s->client.fd = s->server.fd = -1;
	s->question =
		(struct parcel){ .bytes = s->question_bytes, .room = sizeof(s->question_bytes) };
	loop_timer_init(d->settings.loop, &s->timer, stream_late);
	list_append(&d->streams, &s->node);
	d->stream_count++;
	if (loop_watch(d->settings.loop, &s->client, fd, EPOLLIN, client_ready) < 0) {
		close(fd);
		stream_free(s);
		return;
	}
	stream_touch(s);
}

int dns_listen(struct dns *d, int fd, struct error *err)
{
	int r = loop_watch(d->settings.loop, &d->listener, fd, EPOLLIN, on_accept);

	if (r < 0) {
		close(fd);
		return error_errno(err, r, "cannot watch the socket of the DNS forwarder");
	}
	return 0;
}

void dns_streams_end(struct dns *d)
{
	unplug(&d->listener);
	list_foreach_safe(it, &d->streams) stream_free(list_entry(it, struct stream, node));
}
