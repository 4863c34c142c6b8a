// SPDX-License-Identifier: MIT
/*
 * The service as a client of a worker's control socket. Requests are queued, sent in order, and
 * found again by their number. One with descriptors is sent when all before it are answered, as
 * partita-worker(1) asks. What a worker says is held to be hostile: lines have a limit, and what is
 * no answer to a question is dropped. A link that breaks is made again while the worker lives.
 */
#include "daemon/supervisor_internal.h"
#include "lib/cleanup.h"
#include "lib/unix_socket.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>

#define LINE_MAX_SIZE (256 * KIB) /* a worker's own limit is 128 KiB */
#define REQUEST_MAX   16384       /* the worker's limit, with the newline */
#define FDS_MAX       32
#define RETRY_MS      50
#define RETRY_MS_MAX  2000
#define MS            UINT64_C(1000000)

#define SERIAL_QUERY 0  /* our own first question */
#define SERIAL_GONE  -1 /* of a request that came too late */
#define SERIAL_LARGE -2 /* of one that cannot be sent */

struct message {
	struct list node;
	int64_t serial;
	size_t size, sent;
	unsigned fd_count;
	int fds[FDS_MAX];
	char text[];
};

static void on_link(struct loop_watch *w, uint32_t events);

static void message_free(struct message *m)
{
	for (unsigned i = 0; i < m->fd_count; i++)
		close(m->fds[i]);
	list_remove(&m->node);
	free(m);
}

/* --- ends of requests --- */

/* `done` may do anything but free the worker; it is the last that is done with `r`. */
static void request_end(struct worker_request *r, int result, json_t *answer,
			const struct error *err)
{
	list_remove(&r->node);
	loop_timer_disarm(&r->timer);
	r->done(r, result, answer, err);
}

static void request_fail(struct worker_request *r, int code, const char *words)
{
	struct error err = { 0 };

	error_set(&err, code, "%s", words);
	request_end(r, code, NULL, &err);
}

static void on_timer(struct loop_timer *t)
{
	struct worker_request *r = container_of(t, struct worker_request, timer);

	if (r->serial == SERIAL_GONE)
		request_fail(r, -EPIPE, "the machine's worker is gone");
	else if (r->serial == SERIAL_LARGE)
		request_fail(r, -EMSGSIZE, "the request is too large for a worker");
	else
		request_fail(r, -ETIMEDOUT, "the machine's worker does not answer");
}

static struct worker_request *request_find(struct worker_link *l, int64_t serial)
{
	list_foreach(it, &l->asked)
	{
		struct worker_request *r = list_entry(it, struct worker_request, node);

		if (r->serial == serial)
			return r;
	}
	return NULL;
}

/* --- the connection --- */

static void fds_close(const int *fds, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		if (fds[i] >= 0)
			close(fds[i]);
}

static void link_drop(struct worker_link *l)
{
	fds_close(l->fds, l->fd_count);
	l->fd_count = 0;
	loop_unwatch(&l->watch);
	if (l->fd >= 0)
		close(l->fd);
	l->fd = -1;
	l->input_size = 0;
	l->watching_output = false;
}

/* Ends the connection. What was asked on it is not answered on the next one. */
static void link_lost(struct worker_link *l)
{
	uint64_t wait = MIN((uint64_t)RETRY_MS << MIN(l->retries, 6u), RETRY_MS_MAX);

	link_drop(l);
	list_foreach_safe(it, &l->messages)
	{
		struct message *m = list_entry(it, struct message, node);

		if (m->sent || m->serial == SERIAL_QUERY)
			message_free(m);
	}
	l->retries++;
	if (!l->closed)
		loop_timer_arm(&l->retry, loop_now(l->retry.loop) + wait * MS);
}

/* Whether an answer to an earlier request has still to come. */
static bool waits_for_answers(struct worker_link *l, const struct message *m)
{
	if (l->greeting)
		return true;
	list_foreach(it, &l->asked) if (list_entry(it, struct worker_request, node)->serial <
					m->serial) return true;
	return false;
}

/* Whoever asked has been told that there is no answer, or does not want one any more. */
static bool unwanted(struct worker_link *l, const struct message *m)
{
	return !m->sent && m->serial != SERIAL_QUERY && !request_find(l, m->serial);
}

static ssize_t message_send(struct worker_link *l, struct message *m)
{
	return unix_send(l->fd, m->text + m->sent, m->size - m->sent, m->fds,
			 m->sent ? 0 : m->fd_count, MSG_DONTWAIT);
}

static void watch_output(struct worker_link *l, bool output)
{
	if (l->watching_output == output)
		return;
	loop_unwatch(&l->watch);
	l->watching_output = output;
	if (loop_watch(l->retry.loop, &l->watch, l->fd, EPOLLIN | (output ? EPOLLOUT : 0u),
		       on_link) < 0)
		link_lost(l);
}

static void link_flush(struct worker_link *l)
{
	while (l->fd >= 0 && !list_empty(&l->messages)) {
		struct message *m = list_first(&l->messages, struct message, node);
		ssize_t n;

		if (unwanted(l, m)) {
			message_free(m);
			continue;
		}
		if (m->fd_count && !m->sent && waits_for_answers(l, m))
			break;
		n = message_send(l, m);
		if (n < 0 && errno == EAGAIN) {
			watch_output(l, true);
			return;
		}
		if (n < 0) {
			link_lost(l);
			return;
		}
		m->sent += (size_t)n;
		if (m->sent == m->size)
			message_free(m);
	}
	if (l->fd >= 0)
		watch_output(l, false);
}

/* --- what the worker says --- */

static void handle_state(struct worker_link *l, const json_t *o)
{
	const char *state = json_string_value(json_object_get(o, "state"));

	if (state && *state && strlen(state) < WORKER_STATE_SIZE)
		worker_on_state(l->worker, state);
}

/* Those that the answer says are its own become the request's; without one they are closed. */
static void fds_take(struct worker_link *l, const json_t *o, struct worker_request *r)
{
	json_int_t said = json_integer_value(json_object_get(o, "descriptors"));
	unsigned n = said < 0 || said > l->fd_count ? l->fd_count : (unsigned)said;

	if (r && r->wants_fds && n <= WORKER_ANSWER_FDS) {
		memcpy(r->fds, l->fds, n * sizeof(*r->fds));
		r->fd_count = n;
	} else {
		fds_close(l->fds, n);
	}
	l->fd_count -= n;
	memmove(l->fds, l->fds + n, l->fd_count * sizeof(*l->fds));
}

static void handle_answer(struct worker_link *l, json_t *o, int64_t serial)
{
	struct worker_request *r = request_find(l, serial);
	const char *words = json_string_value(json_object_get(o, "error"));

	fds_take(l, o, r);
	l->greeting &= serial != SERIAL_QUERY;
	if (serial != SERIAL_QUERY && !r)
		return; /* it came too late, or was never asked */
	l->retries = 0;
	handle_state(l, o);
	if (!r)
		return;
	if (json_is_true(json_object_get(o, "ok")))
		request_end(r, 0, o, NULL);
	else
		request_fail(r, -EINVAL, words && *words ? words : "the worker refused");
}

static void handle_line(struct worker_link *l, const char *line, size_t size)
{
	json_error_t error;
	json_t *o = json_loadb(line, size, JSON_REJECT_DUPLICATES, &error), *id;
	const char *event = json_string_value(json_object_get(o, "event"));

	worker_recognise(l->worker);
	id = json_object_get(o, "id");
	if (event && !strcmp(event, "state"))
		handle_state(l, o);
	else if (event)
		worker_on_event(l->worker, o);
	else if (json_is_integer(id))
		handle_answer(l, o, json_integer_value(id));
	json_decref(o);
}

/* Whoever is called may ask more, and so lose the link: nothing is taken for granted after it. */
static void handle_input(struct worker_link *l)
{
	char *end;

	while (l->fd >= 0 && (end = memchr(l->input, '\n', l->input_size))) {
		size_t size = (size_t)(end - l->input);
		_cleanup_free_ char *line = malloc(size + 1);

		if (!line) {
			link_lost(l);
			return;
		}
		memcpy(line, l->input, size);
		l->input_size -= size + 1;
		memmove(l->input, end + 1, l->input_size);
		handle_line(l, line, size);
	}
	if (l->fd >= 0)
		link_flush(l); /* what waited for answers */
}

static bool input_grow(struct worker_link *l)
{
	size_t room = l->input_room ? 2 * l->input_room : 4096;
	char *input;

	if (l->input_size < l->input_room)
		return true;
	if (room > LINE_MAX_SIZE)
		return false;
	input = realloc(l->input, room);
	if (!input)
		return false;
	l->input = input;
	l->input_room = room;
	return true;
}

/* When there were too many the answer gets fewer than it says. */
static ssize_t link_receive(struct worker_link *l)
{
	struct unix_fds fds = { l->fds, l->fd_count, LINK_FDS, false };
	ssize_t n = unix_receive(l->fd, l->input + l->input_size, l->input_room - l->input_size,
				 &fds, MSG_DONTWAIT);

	l->fd_count = fds.count;
	return n;
}

static void on_link(struct loop_watch *w, uint32_t events)
{
	struct worker_link *l = container_of(w, struct worker_link, watch);
	ssize_t n;

	if (events & EPOLLOUT)
		link_flush(l);
	if (l->fd < 0 || !(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		return;
	if (!input_grow(l)) {
		link_lost(l);
		return;
	}
	n = link_receive(l);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		link_lost(l);
		return;
	}
	l->input_size += (size_t)n;
	handle_input(l);
}

static int message_queue(struct worker_link *l, json_t *request, int64_t serial, const int *fds,
			 unsigned fd_count)
{
	_cleanup_free_ char *text = NULL;
	struct message *m;
	size_t size;

	json_object_set_new(request, "id", json_integer(serial));
	text = json_dumps(request, JSON_COMPACT);
	size = text ? strlen(text) : 0;
	if (!text || size + 1 > REQUEST_MAX || fd_count > FDS_MAX)
		return -EMSGSIZE;
	m = malloc(sizeof(*m) + size + 1);
	if (!m)
		return -ENOMEM;
	*m = (struct message){ .serial = serial, .size = size + 1, .fd_count = fd_count };
	if (fd_count)
		memcpy(m->fds, fds, fd_count * sizeof(*fds));
	memcpy(m->text, text, size);
	m->text[size] = '\n';
	list_append(&l->messages, &m->node);
	return 0;
}

/* Its first question; before any that was asked meanwhile. */
static void ask_state(struct worker_link *l)
{
	json_t *query = json_pack("{s:s}", "command", "query");
	struct list later;

	list_init(&later);
	list_splice(&later, &l->messages);
	l->greeting = message_queue(l, query, SERIAL_QUERY, NULL, 0) >= 0;
	list_splice(&l->messages, &later);
	json_decref(query);
}

void worker_link_attach(struct worker_link *l, int fd)
{
	l->fd = fd;
	if (loop_watch(l->retry.loop, &l->watch, fd, EPOLLIN, on_link) < 0) {
		link_lost(l);
		return;
	}
	ask_state(l);
	link_flush(l);
}

void worker_link_connect(struct worker_link *l)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	strncpy(address.sun_path, l->worker->control, sizeof(address.sun_path) - 1);
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		if (fd >= 0)
			close(fd);
		link_lost(l);
		return;
	}
	worker_link_attach(l, fd);
}

static void on_retry(struct loop_timer *t)
{
	worker_link_connect(container_of(t, struct worker_link, retry));
}

int worker_link_init(struct worker_link *l, struct worker *w)
{
	l->worker = w;
	l->fd = -1;
	list_init(&l->messages);
	list_init(&l->asked);
	loop_timer_init(w->supervisor->loop, &l->retry, on_retry);
	return 0;
}

static void link_close(struct worker_link *l)
{
	l->closed = true;
	loop_timer_disarm(&l->retry);
	link_drop(l);
	list_foreach_safe(it, &l->messages) message_free(list_entry(it, struct message, node));
	free(steal_ptr(l->input));
	l->input_room = 0;
}

void worker_link_end(struct worker_link *l)
{
	link_close(l);
	while (!list_empty(&l->asked))
		request_fail(list_first(&l->asked, struct worker_request, node), -EPIPE,
			     "the machine's worker is gone");
}

void worker_link_deinit(struct worker_link *l)
{
	link_close(l);
	while (!list_empty(&l->asked)) {
		struct worker_request *r = list_first(&l->asked, struct worker_request, node);

		list_remove(&r->node);
		loop_timer_disarm(&r->timer);
	}
}

/* --- asking --- */

/* Answers never come from inside of a call of the asker's: a failure waits for the loop too. */
static void fail_soon(struct worker_request *r, int64_t why)
{
	r->serial = why;
	loop_timer_arm(&r->timer, 1);
}

void worker_ask(struct worker *w, struct worker_request *r, json_t *request, const int *fds,
		unsigned fd_count, unsigned timeout_ms)
{
	struct worker_link *l = &w->link;
	int queued = -EPIPE;

	list_init(&r->node);
	r->fd_count = 0;
	loop_timer_init(l->retry.loop, &r->timer, on_timer);
	r->serial = ++l->serial;
	list_append(&l->asked, &r->node);
	loop_timer_arm(&r->timer, loop_now(l->retry.loop) + timeout_ms * MS);
	if (!l->closed) {
		json_t *o = json_copy(request);

		queued = message_queue(l, o, r->serial, fds, fd_count);
		json_decref(o);
	}
	if (queued < 0) {
		for (unsigned i = 0; i < fd_count; i++)
			close(fds[i]);
		fail_soon(r, queued == -EPIPE ? SERIAL_GONE : SERIAL_LARGE);
		return;
	}
	link_flush(l);
}

void worker_ask_cancel(struct worker_request *r)
{
	list_remove(&r->node);
	loop_timer_disarm(&r->timer);
}
