// SPDX-License-Identifier: MIT
/*
 * See privd.h. Requests that do not fit into the socket wait in a list with copies of their
 * descriptors; there are few, as privd answers quickly. What comes from privd is judged like other
 * bytes from outside, although it is more trusted than we are.
 */
#include "lib/cleanup.h"
#include "privd/message.h"
#include "privd/privd.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define ANSWER_MS 30000
#define MS        UINT64_C(1000000)

struct privd {
	struct loop *loop;
	char *path;
	int fd; /* -1 = not connected */
	struct loop_watch watch;
	struct list asked;   /* privd_request, that wait for an answer */
	struct list packets; /* packet, that wait to be sent */
	int64_t serial;
	char input[PRIVD_REQUEST_MAX];
};

struct packet {
	struct list node;
	size_t size;
	unsigned fd_count;
	int fds[MESSAGE_FDS_MAX];
	char bytes[];
};

static void packet_free(struct packet *p)
{
	for (unsigned i = 0; i < p->fd_count; i++)
		close(p->fds[i]);
	list_remove(&p->node);
	free(p);
}

/* --- the end of a request --- */

static void request_end(struct privd_request *r, const struct privd_answer *a)
{
	list_remove(&r->node);
	loop_timer_disarm(&r->timer);
	loop_cancel(r->privd->loop, &r->failed);
	r->privd = NULL;
	r->done(r, a);
}

static void on_failed(struct loop_task *t)
{
	struct privd_request *r = container_of(t, struct privd_request, failed);
	struct error err = r->error;

	request_end(r, &(struct privd_answer){ .result = err.code, .err = &err });
}

/* Told from the loop: whoever asks is not called back from inside. */
static void request_fail(struct privd_request *r, int code, const char *words)
{
	error_set(&r->error, code, "%s", words);
	loop_defer(r->privd->loop, &r->failed);
}

static void on_timeout(struct loop_timer *t)
{
	struct privd_request *r = container_of(t, struct privd_request, timer);
	struct error err = { 0 };

	error_set(&err, -ETIMEDOUT, "partita-privd did not answer within %d s", ANSWER_MS / 1000);
	request_end(r, &(struct privd_answer){ .result = err.code, .err = &err });
}

static void disconnect(struct privd *p)
{
	loop_unwatch(&p->watch);
	if (p->fd >= 0)
		close(steal_fd(&p->fd));
	list_foreach_safe(it, &p->packets) packet_free(list_entry(it, struct packet, node));
	list_foreach(it, &p->asked)
	{
		struct privd_request *r = list_entry(it, struct privd_request, node);

		if (!r->failed.queued)
			request_fail(r, -EPIPE, "partita-privd has ended the connection");
	}
}

/* --- answers --- */

static struct privd_request *request_find(struct privd *p, const json_t *answer)
{
	json_int_t id = json_integer_value(json_object_get(answer, "id"));

	list_foreach(it, &p->asked)
	{
		struct privd_request *r = list_entry(it, struct privd_request, node);

		if (r->id == id && !r->failed.queued)
			return r;
	}
	return NULL;
}

/* 0, or the error in it. */
static int answer_judge(const json_t *answer, struct error *err)
{
	const json_t *code = json_object_get(answer, "error");
	const char *words = json_string_value(json_object_get(answer, "words"));

	if (!code)
		return 0;
	if (!json_is_integer(code) || json_integer_value(code) <= 0 ||
	    json_integer_value(code) > 4095)
		return error_set(err, -EPROTO, "partita-privd gave an error without a code");
	return error_set(err, -(int)json_integer_value(code), "%s", words ? words : "refused");
}

static void answer_take(struct privd *p, struct message *m)
{
	json_t *answer = json_loadb(p->input, m->size, JSON_REJECT_DUPLICATES, NULL);
	struct privd_request *r = json_is_object(answer) ? request_find(p, answer) : NULL;
	struct error err = { 0 };

	if (r) {
		struct privd_answer a = { answer_judge(answer, &err), answer, m->fds, m->fd_count,
					  &err };

		request_end(r, &a);
	}
	json_decref(answer);
	message_close(m);
}

/* --- the connection --- */

static int packets_send(struct privd *p)
{
	while (!list_empty(&p->packets)) {
		struct packet *k = list_first(&p->packets, struct packet, node);
		int r = message_send(p->fd, k->bytes, k->size, k->fds, k->fd_count);

		if (r < 0)
			return r;
		packet_free(k);
	}
	return 0;
}

static void on_socket(struct loop_watch *w, uint32_t events);

static int watch_events(struct privd *p)
{
	uint32_t events = EPOLLIN | (list_empty(&p->packets) ? 0 : EPOLLOUT);

	loop_unwatch(&p->watch);
	return loop_watch(p->loop, &p->watch, p->fd, events, on_socket);
}

static void on_socket(struct loop_watch *w, uint32_t events)
{
	struct privd *p = container_of(w, struct privd, watch);
	struct message m;
	int r;

	if (events & EPOLLOUT) {
		r = packets_send(p);
		if ((r < 0 && r != -EAGAIN) || watch_events(p) < 0) {
			disconnect(p);
			return;
		}
	}
	/* One a round: `done` may have freed us. */
	r = events & ~(uint32_t)EPOLLOUT ? message_receive(p->fd, p->input, sizeof(p->input), &m)
					 : -EAGAIN;
	if (r > 0)
		answer_take(p, &m);
	else if (r != -EAGAIN)
		disconnect(p);
}

static int connected(struct privd *p, struct error *err)
{
	int r;

	if (p->fd >= 0)
		return 0;
	r = message_connect(p->path, false, err);
	if (r < 0)
		return r;
	p->fd = r;
	r = watch_events(p);
	if (r < 0) {
		close(steal_fd(&p->fd));
		return error_errno(err, r, "cannot watch the connection to partita-privd");
	}
	return 0;
}

/* --- asking --- */

static int packet_add(struct privd *p, const char *bytes, const int *fds, unsigned fd_count)
{
	size_t size = strlen(bytes);
	struct packet *k = calloc(1, sizeof(*k) + size + 1);

	if (!k)
		return -ENOMEM;
	k->size = size;
	memcpy(k->bytes, bytes, size);
	list_append(&p->packets, &k->node);
	for (; k->fd_count < fd_count; k->fd_count++) {
		k->fds[k->fd_count] = fcntl(fds[k->fd_count], F_DUPFD_CLOEXEC, 3);
		if (k->fds[k->fd_count] < 0) {
			int r = -errno;

			packet_free(k);
			return r;
		}
	}
	return 0;
}

/* Descriptors that one packet cannot hold go in front of it. */
static int packets_add(struct privd *p, const char *text, const int *fds, unsigned fd_count)
{
	int r = 0;

	for (; fd_count > MESSAGE_FDS_MAX && !r; fd_count -= MESSAGE_FDS_MAX) {
		r = packet_add(p, "{\"more\":true}", fds, MESSAGE_FDS_MAX);
		fds += MESSAGE_FDS_MAX;
	}
	return r < 0 ? r : packet_add(p, text, fds, fd_count);
}

static int ask(struct privd *p, struct privd_request *r, const json_t *request, const int *fds,
	       unsigned fd_count)
{
	_cleanup_free_ char *text = json_dumps(request, JSON_COMPACT);
	bool waiting = !list_empty(&p->packets);
	int result;

	if (!text)
		return error_set(&r->error, -EINVAL, "the request cannot be written as JSON");
	if (strlen(text) >= PRIVD_REQUEST_MAX || fd_count > PRIVD_FDS_MAX)
		return error_set(&r->error, -EMSGSIZE, "the request to partita-privd is too large");
	result = connected(p, &r->error);
	if (result < 0)
		return result;
	result = packets_add(p, text, fds, fd_count);
	if (result >= 0 && !waiting)
		result = packets_send(p);
	if (result == -EAGAIN)
		result = watch_events(p);
	if (result >= 0)
		return 0;
	/* A request that went out by half is not to be followed by others. */
	disconnect(p);
	return error_errno(&r->error, result, "cannot ask partita-privd");
}

void privd_ask(struct privd *p, struct privd_request *r, json_t *request, const int *fds,
	       unsigned fd_count)
{
	r->privd = p;
	r->id = ++p->serial;
	r->error = (struct error){ 0 };
	loop_task_init(&r->failed, on_failed);
	loop_timer_init(p->loop, &r->timer, on_timeout);
	json_object_set_new(request, "id", json_integer(r->id));
	if (ask(p, r, request, fds, fd_count) < 0) {
		list_append(&p->asked, &r->node);
		loop_defer(p->loop, &r->failed);
	} else {
		list_append(&p->asked, &r->node);
		loop_timer_arm(&r->timer, loop_now(p->loop) + ANSWER_MS * MS);
	}
	json_decref(request);
}

void privd_cancel(struct privd_request *r)
{
	if (!r->privd)
		return;
	list_remove(&r->node);
	loop_timer_disarm(&r->timer);
	loop_cancel(r->privd->loop, &r->failed);
	r->privd = NULL;
}

/* --- the whole --- */

int privd_new(struct loop *loop, const char *path, struct privd **ret, struct error *err)
{
	struct privd *p = calloc(1, sizeof(*p));

	if (!p)
		return error_set(err, -ENOMEM, "out of memory");
	p->loop = loop;
	p->fd = p->watch.fd = -1;
	list_init(&p->asked);
	list_init(&p->packets);
	p->path = strdup(path);
	if (!p->path) {
		free(p);
		return error_set(err, -ENOMEM, "out of memory");
	}
	*ret = p;
	return 0;
}

void privd_free(struct privd *p)
{
	if (!p)
		return;
	list_foreach_safe(it, &p->asked) privd_cancel(list_entry(it, struct privd_request, node));
	list_foreach_safe(it, &p->packets) packet_free(list_entry(it, struct packet, node));
	loop_unwatch(&p->watch);
	if (p->fd >= 0)
		close(p->fd);
	free(p->path);
	free(p);
}

int privd_check(struct privd *p, struct error *err)
{
	return privd_ask_waiting(p->path, json_pack("{s:s}", "op", "ping"), 1000, err);
}

int privd_ask_waiting(const char *path, json_t *request, unsigned timeout_ms, struct error *err)
{
	_cleanup_close_ int fd = message_connect(path, true, err);
	struct pollfd poll_fd = { fd, POLLIN, 0 };
	_cleanup_free_ char *text = NULL;
	char answer[PRIVD_REQUEST_MAX];
	struct message m = { 0 };
	json_t *members;
	int r = fd;

	json_object_set_new(request, "id", json_integer(1));
	text = json_dumps(request, JSON_COMPACT);
	json_decref(request);
	if (r < 0)
		return r;
	r = text ? message_send(fd, text, strlen(text), NULL, 0) : -EINVAL;
	if (text)
		explicit_bzero(text, strlen(text));
	if (r >= 0)
		r = poll(&poll_fd, 1, (int)timeout_ms) > 0
			    ? message_receive(fd, answer, sizeof(answer), &m)
			    : -ETIMEDOUT;
	message_close(&m);
	if (r <= 0)
		return error_errno(err, r ? r : -EPIPE, "partita-privd did not answer");
	members = json_loadb(answer, m.size, JSON_REJECT_DUPLICATES, NULL);
	r = members ? answer_judge(members, err)
		    : error_set(err, -EPROTO, "partita-privd did not answer in JSON");
	json_decref(members);
	return r;
}
