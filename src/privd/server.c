// SPDX-License-Identifier: MIT
/*
 * See server.h. A packet is a JSON object with "op" and "id", and the members that the operation
 * has; its answer has the same id, and "error" (an errno) with "words" when it was refused. Each
 * refusal is logged. A client whose answers do not fit into its socket is cut off: it does not read
 * them.
 */
#include "privd/server.h"
#include "lib/cleanup.h"
#include "lib/log.h"
#include "privd/message.h"

#include <errno.h>
#include <seccomp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define CLIENTS_MAX 16 /* one of the service, and one for each password under way */

struct privd_client {
	struct privd_server *server;
	struct list node;
	struct loop_watch watch;
	pid_t pid;
	struct list calls; /* under way */
	unsigned call_count;
	int held[PRIVD_FDS_MAX]; /* descriptors that came ahead of their request */
	unsigned held_count;
};

struct privd_server {
	struct loop *loop;
	const struct privd_config *config;
	const struct privd_group *const *groups;
	struct loop_watch listener;
	struct list clients;
	unsigned client_count;
	struct log_limit log;
	char input[PRIVD_REQUEST_MAX];
};

/* --- clients --- */

static void held_close(struct privd_client *c)
{
	while (c->held_count)
		close(c->held[--c->held_count]);
}

static void client_free(struct privd_client *c)
{
	int fd = c->watch.fd;

	/* What is under way ends by itself, and is told nobody. */
	list_foreach_safe(it, &c->calls)
	{
		struct privd_call *call = list_entry(it, struct privd_call, node);

		call->client = NULL;
		list_remove(&call->node);
	}
	held_close(c);
	loop_unwatch(&c->watch);
	if (fd >= 0)
		close(fd);
	list_remove(&c->node);
	c->server->client_count--;
	free(c);
}

/* --- the end of a call --- */

static void call_free(struct privd_call *c)
{
	for (unsigned i = 0; i < c->fd_count; i++)
		if (c->fds[i] >= 0)
			close(c->fds[i]);
	for (unsigned i = 0; i < c->answer_fd_count; i++)
		close(c->answer_fds[i]);
	if (c->client) {
		list_remove(&c->node);
		c->client->call_count--;
	}
	if (c->arguments)
		explicit_bzero(c->arguments, c->operation->arguments_size);
	free(c->arguments);
	json_decref(c->request);
	json_decref(c->answer);
	free(c);
}

static void refusal_log(struct privd_server *s, const struct privd_call *c, const struct error *err)
{
	unsigned dropped;

	if (!log_allowed(&s->log, &dropped))
		return;
	if (dropped)
		log_line("%u refusals were not logged", dropped);
	log_line("refused \"%.32s\" to process %d: %s", c->operation ? c->operation->name : "?",
		 c->client ? (int)c->client->pid : 0, err->message);
}

void privd_call_end(struct privd_call *c, int result, const struct error *err)
{
	struct privd_client *client = c->client;
	_cleanup_free_ char *text = NULL;
	int r;

	if (result < 0) {
		refusal_log(c->server, c, err);
		json_object_clear(c->answer);
		json_object_set_new(c->answer, "error", json_integer(-result));
		json_object_set_new(c->answer, "words", json_string(err->message));
	}
	json_object_set_new(c->answer, "id", json_integer(c->id));
	text = json_dumps(c->answer, JSON_COMPACT);
	if (client) {
		r = text ? message_send(client->watch.fd, text, strlen(text), c->answer_fds,
					result < 0 ? 0 : c->answer_fd_count)
			 : -ENOMEM;
		call_free(c);
		if (r < 0)
			client_free(client);
		return;
	}
	call_free(c);
}

/* --- a call --- */

int privd_unpack(struct privd_call *c, struct error *err, const char *format, ...)
{
	json_error_t error;
	va_list ap;
	int r;

	va_start(ap, format);
	r = json_vunpack_ex(c->request, &error, JSON_STRICT, format, ap);
	va_end(ap);
	return r < 0 ? error_set(err, -EINVAL, "%.200s", error.text) : 0;
}

static const struct privd_operation *operation_find(const struct privd_server *s, const char *name)
{
	for (const struct privd_group *const *g = s->groups; name && *g; g++)
		for (unsigned i = 0; i < (*g)->count; i++)
			if (!strcmp((*g)->operations[i].name, name))
				return &(*g)->operations[i];
	return NULL;
}

static int call_judge(struct privd_call *c, struct error *err)
{
	const struct privd_operation *op = c->operation;

	if (c->fd_count < op->fds_min || c->fd_count > op->fds_max)
		return error_set(err, -EINVAL, "%s takes %u to %u descriptors, not %u", op->name,
				 op->fds_min, op->fds_max, c->fd_count);
	c->arguments = calloc(1, MAX(op->arguments_size, 1));
	if (!c->arguments)
		return error_set(err, -ENOMEM, "out of memory");
	return op->decode ? op->decode(c, err) : privd_unpack(c, err, "{}");
}

/* `request` is taken over, and what the client had sent ahead. */
static int call_begin(struct privd_client *client, json_t *request, struct error *err)
{
	const json_t *id = json_object_get(request, "id"), *op = json_object_get(request, "op");
	struct privd_call *c = calloc(1, sizeof(*c));
	int r;

	if (!c || client->call_count == PRIVD_REQUESTS_MAX || !json_is_integer(id) ||
	    !(c->answer = json_object())) {
		free(c);
		json_decref(request);
		return error_set(err, -EPROTO, "a request without an id, or one too many");
	}
	c->config = client->server->config;
	c->server = client->server;
	c->client = client;
	list_append(&client->calls, &c->node);
	client->call_count++;
	c->id = json_integer_value(id);
	memcpy(c->fds, client->held, client->held_count * sizeof(*c->fds));
	c->fd_count = client->held_count;
	client->held_count = 0;
	c->request = request;
	c->operation = operation_find(c->server, json_string_value(op));
	if (c->operation) {
		json_object_del(request, "id");
		json_object_del(request, "op");
		r = call_judge(c, err);
		if (r >= 0)
			r = c->operation->run(c, err);
	} else {
		r = error_set(err, -ENOSYS, "there is no operation \"%.32s\"",
			      json_is_string(op) ? json_string_value(op) : "");
	}
	if (r != PRIVD_LATER)
		privd_call_end(c, r, err);
	return 0;
}

/* --- packets --- */

static int held_add(struct privd_client *c, struct message *m, struct error *err)
{
	if (c->held_count + m->fd_count > PRIVD_FDS_MAX)
		return error_set(err, -EMSGSIZE, "more than %d descriptors", PRIVD_FDS_MAX);
	memcpy(c->held + c->held_count, m->fds, m->fd_count * sizeof(*m->fds));
	c->held_count += m->fd_count;
	m->fd_count = 0;
	return 0;
}

/* Negative: this client speaks something else, and is cut off. */
static int packet_take(struct privd_client *c, struct message *m, struct error *err)
{
	json_t *request = json_loadb(c->server->input, m->size, JSON_REJECT_DUPLICATES, NULL);
	int r = held_add(c, m, err);

	explicit_bzero(c->server->input, m->size); /* it may have been a password */
	if (r >= 0 && !json_is_object(request))
		r = error_set(err, -EPROTO, "a packet that is no JSON object");
	if (r < 0 || json_is_true(json_object_get(request, "more"))) {
		json_decref(request);
		return r;
	}
	return call_begin(c, request, err);
}

static void on_client(struct loop_watch *w, uint32_t events)
{
	struct privd_client *c = container_of(w, struct privd_client, watch);
	struct error err = { 0 };
	struct message m;
	int r = message_receive(w->fd, c->server->input, sizeof(c->server->input), &m);

	(void)events;
	if (r == -EAGAIN)
		return;
	if (r > 0) {
		struct error refusal = { 0 };

		/* May have freed the client, but not when it is refused as a whole. */
		r = packet_take(c, &m, &refusal);
		message_close(&m);
		if (r >= 0)
			return;
		err = refusal;
	} else if (r < 0) {
		error_errno(&err, r, "a packet that cannot be taken");
	}
	if (r < 0)
		log_line("process %d is cut off: %s", (int)c->pid, err.message);
	client_free(c);
}

/* --- connections --- */

static int client_add(struct privd_server *s, int fd, pid_t pid, struct error *err)
{
	struct privd_client *c = calloc(1, sizeof(*c));
	int r;

	if (!c) {
		close(fd);
		return error_set(err, -ENOMEM, "out of memory");
	}
	c->server = s;
	c->pid = pid;
	list_init(&c->calls);
	list_append(&s->clients, &c->node);
	s->client_count++;
	r = loop_watch(s->loop, &c->watch, fd, EPOLLIN, on_client);
	if (r < 0) {
		c->watch.fd = fd;
		client_free(c);
		return error_errno(err, r, "cannot watch a connection");
	}
	return 0;
}

int privd_server_attach(struct privd_server *s, int fd, struct error *err)
{
	return client_add(s, fd, 0, err);
}

static void on_listener(struct loop_watch *w, uint32_t events)
{
	struct privd_server *s = container_of(w, struct privd_server, listener);
	int fd = accept4(w->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct ucred who;
	socklen_t size = sizeof(who);
	struct error err = { 0 };

	(void)events;
	if (fd < 0)
		return;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &size) < 0 ||
	    who.uid != s->config->service_uid) {
		unsigned dropped;

		if (log_allowed(&s->log, &dropped))
			log_line("process %d of user %u is not the service: refused", (int)who.pid,
				 who.uid);
		close(fd);
		return;
	}
	if (s->client_count >= CLIENTS_MAX) {
		log_line("there are %d connections already: refused", CLIENTS_MAX);
		close(fd);
		return;
	}
	if (client_add(s, fd, who.pid, &err) < 0)
		log_line("%s", err.message);
}

int privd_server_new(struct loop *loop, int listener, const struct privd_config *config,
		     const struct privd_group *const *groups, struct privd_server **ret,
		     struct error *err)
{
	struct privd_server *s = calloc(1, sizeof(*s));
	int r = 0;

	if (!s) {
		close(listener);
		return error_set(err, -ENOMEM, "out of memory");
	}
	s->loop = loop;
	s->config = config;
	s->groups = groups;
	s->listener.fd = -1;
	list_init(&s->clients);
	if (listener >= 0)
		r = loop_watch(loop, &s->listener, listener, EPOLLIN, on_listener);
	if (r < 0) {
		close(listener);
		free(s);
		return error_errno(err, r, "cannot watch the socket");
	}
	*ret = s;
	return 0;
}

void privd_server_free(struct privd_server *s)
{
	if (!s)
		return;
	list_foreach_safe(it, &s->clients) client_free(list_entry(it, struct privd_client, node));
	if (s->listener.fd >= 0) {
		int fd = s->listener.fd;

		loop_unwatch(&s->listener);
		close(fd);
	}
	free(s);
}

static const int server_calls[] = {
	SCMP_SYS(epoll_wait), SCMP_SYS(epoll_pwait), SCMP_SYS(epoll_ctl),  SCMP_SYS(accept4),
	SCMP_SYS(getsockopt), SCMP_SYS(recvmsg),     SCMP_SYS(sendmsg),    SCMP_SYS(close),
	SCMP_SYS(fcntl),      SCMP_SYS(fstat),       SCMP_SYS(newfstatat), SCMP_SYS(futex),
};

const struct sandbox privd_server_sandbox = { server_calls, ARRAY_SIZE(server_calls), NULL, 0 };
