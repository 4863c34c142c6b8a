// SPDX-License-Identifier: MIT
/* See server.h. */
#include "control/server.h"

#include "lib/cleanup.h"
#include "lib/unix_socket.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define MAX_CLIENTS 4
#define MAX_OUTPUT  131072
#define MAX_PARCELS 4

/* Descriptors on their way out, with the byte before which nothing of them may arrive. */
struct parcel {
	size_t at;
	unsigned count;
	int fds[COMMAND_ANSWER_FDS];
};

struct client {
	struct control_server *control;
	int fd;          /* -1 = free */
	uint64_t serial; /* of the connection: answers that come later must not go to another */
	struct loop_watch watch;
	size_t input_size, output_size;
	char *input, *output; /* CONTROL_MAX_LINE and MAX_OUTPUT bytes while connected */
	unsigned fd_count;
	int fds[CONTROL_MAX_FDS];
	bool fds_lost; /* there were more */
	unsigned parcel_count;
	struct parcel parcels[MAX_PARCELS];
};

/* A command; it may be answered later. */
struct pending {
	struct command command;
	struct client *client;
	uint64_t serial;
	json_t *request;
	int fds[CONTROL_MAX_FDS];
};

struct control_server {
	uint64_t serial;
	struct control_options o;
	struct loop_watch listen_watch;
	struct client clients[MAX_CLIENTS];
};

static void fds_drop(const int *fds, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		if (fds[i] >= 0)
			close(fds[i]);
}

/* The first one has been sent, or never will be. */
static void parcel_done(struct client *c)
{
	fds_drop(c->parcels[0].fds, c->parcels[0].count);
	c->parcel_count--;
	memmove(&c->parcels[0], &c->parcels[1], c->parcel_count * sizeof(c->parcels[0]));
}

static void client_drop(struct client *c)
{
	if (c->fd < 0)
		return;
	loop_unwatch(&c->watch);
	close(c->fd);
	c->fd = -1;
	fds_drop(c->fds, c->fd_count);
	c->fd_count = 0;
	c->fds_lost = false;
	while (c->parcel_count)
		parcel_done(c);
	free(steal_ptr(c->input));
	free(steal_ptr(c->output));
	c->input_size = c->output_size = 0;
}

static void on_client(struct loop_watch *w, uint32_t events);

/* Up to where the next descriptors belong; they go along with the byte that they belong to. */
static ssize_t output_send(struct client *c)
{
	const struct parcel *p = c->parcel_count ? &c->parcels[0] : NULL;
	size_t size = c->output_size;

	if (p && p->at)
		return unix_send(c->fd, c->output, p->at, NULL, 0, MSG_DONTWAIT);
	if (c->parcel_count > 1)
		size = c->parcels[1].at;
	return unix_send(c->fd, c->output, size, p ? p->fds : NULL, p ? p->count : 0, MSG_DONTWAIT);
}

static void client_flush(struct client *c)
{
	bool waiting = c->output_size;

	while (c->output_size) {
		ssize_t n = output_send(c);

		if (n < 0 && errno == EAGAIN)
			break;
		if (n <= 0) {
			client_drop(c);
			return;
		}
		if (c->parcel_count && !c->parcels[0].at)
			parcel_done(c);
		for (unsigned i = 0; i < c->parcel_count; i++)
			c->parcels[i].at -= (size_t)n;
		c->output_size -= (size_t)n;
		memmove(c->output, c->output + n, c->output_size);
	}
	if (!waiting)
		return;
	loop_unwatch(&c->watch);
	if (loop_watch(c->control->o.loop, &c->watch, c->fd,
		       EPOLLIN | (c->output_size ? EPOLLOUT : 0u), on_client) < 0)
		client_drop(c);
}

/* The descriptors are taken. */
static void client_send(struct client *c, json_t *message, const int *fds, unsigned fd_count)
{
	_cleanup_free_ char *text = json_dumps(message, JSON_COMPACT);
	size_t size = text ? strlen(text) : 0;

	if (!text || size + 1 > MAX_OUTPUT - c->output_size ||
	    (fd_count && c->parcel_count == MAX_PARCELS)) {
		fds_drop(fds, fd_count);
		client_drop(c);
		return;
	}
	if (fd_count) {
		struct parcel *p = &c->parcels[c->parcel_count++];

		*p = (struct parcel){ .at = c->output_size, .count = fd_count };
		memcpy(p->fds, fds, fd_count * sizeof(*fds));
	}
	memcpy(c->output + c->output_size, text, size);
	c->output[c->output_size + size] = '\n';
	c->output_size += size + 1;
	client_flush(c);
}

/* --- requests --- */

/* Ends a request, and takes its answer's descriptors; `client` is NULL when it is gone. */
static void answer_send(struct control_server *c, struct client *client, struct command *command,
			const struct error *err)
{
	json_t *answer = command->answer;
	const json_t *request = command->request;

	if (json_object_get(request, "id"))
		json_object_set(answer, "id", json_object_get(request, "id"));
	json_object_set_new(answer, "ok", json_boolean(!err));
	if (c->o.stamp)
		c->o.stamp(c->o.context, answer);
	if (err)
		json_object_set_new(answer, "error", json_string(err->message));
	if (json_dumpb(answer, NULL, 0, JSON_COMPACT) >= MAX_OUTPUT) {
		json_object_clear(answer);
		answer_send(c, client, command,
			    &(struct error){ -EMSGSIZE, "the answer is too long; ask for one disk, "
							"or for less" });
		return;
	}
	if (!err && command->answer_fd_count)
		json_object_set_new(answer, "descriptors", json_integer(command->answer_fd_count));
	if (err || !client || client->fd < 0) {
		fds_drop(command->answer_fds, command->answer_fd_count);
		command->answer_fd_count = 0;
	}
	if (client && client->fd >= 0)
		client_send(client, answer, command->answer_fds, command->answer_fd_count);
	command->answer_fd_count = 0;
}

static void pending_free(struct pending *p)
{
	fds_drop(p->fds, p->command.fd_count);
	json_decref(p->command.answer);
	json_decref(p->request);
	free(p->command.state);
	free(p);
}

static void pending_end(struct pending *p, int r, const struct error *err)
{
	bool there = p->client->fd >= 0 && p->client->serial == p->serial;

	answer_send(p->client->control, there ? p->client : NULL, &p->command, r < 0 ? err : NULL);
	pending_free(p);
}

static void on_command(struct command *command, int r, const struct error *err)
{
	pending_end(container_of(command, struct pending, command), r, err);
}

/* With the descriptors that came with its line. The request is this function's. */
static void command_begin(struct client *client, const struct command_family *family,
			  const struct command_type *type, json_t *request)
{
	struct pending *p = calloc(1, sizeof(*p));
	struct error err = { 0 };
	int r;

	if (!p) {
		json_decref(request);
		client_drop(client);
		return;
	}
	p->client = client;
	p->serial = client->serial;
	p->request = request;
	memcpy(p->fds, client->fds, sizeof(p->fds));
	p->command = (struct command){
		.request = request,
		.answer = json_object(),
		.fds = p->fds,
		.fd_count = client->fd_count,
		.done = on_command,
	};
	client->fd_count = 0;
	r = client->fds_lost
		    ? error_set(&err, -EMFILE, "more than %d descriptors came with the request",
				CONTROL_MAX_FDS)
		    : command_run(family, type, &p->command, &err);
	if (r <= 0)
		pending_end(p, r, &err);
}

static void handle_request(struct client *client, json_t *request, const json_error_t *json_error)
{
	struct control_server *c = client->control;
	const char *command = json_string_value(json_object_get(request, "command"));
	const struct command_family *families, *family;
	const struct command_type *type;
	struct error err = { 0 };
	_cleanup_free_ char *names = NULL;
	struct command none = { .request = request };
	unsigned count;

	families = c->o.families(c->o.context, &count);
	type = command ? command_find(families, count, command, &family) : NULL;
	if (type) {
		command_begin(client, family, type, request);
		return;
	}
	none.answer = json_object();
	if (!request) {
		error_set(&err, -EINVAL, "not JSON: %s at column %d", json_error->text,
			  json_error->column);
	} else if (!command) {
		error_set(&err, -EINVAL, "a request is an object with a \"command\"");
	} else {
		names = command_names(families, count);
		error_set(&err, -EINVAL, "no such command \"%.40s\"; there are %s", command,
			  names ? names : "others");
	}
	answer_send(c, client, &none, &err);
	json_decref(none.answer);
	json_decref(request);
}

/* What descriptors a line does not use are closed with it. */
static void handle_line(struct client *client, const char *line, size_t size)
{
	json_error_t json_error;
	json_t *request = json_loadb(line, size, JSON_REJECT_DUPLICATES, &json_error);
	uint64_t serial = client->serial;

	handle_request(client, request, &json_error);
	if (client->fd < 0 || client->serial != serial)
		return;
	fds_drop(client->fds, client->fd_count);
	client->fd_count = 0;
	client->fds_lost = false;
}

static void handle_input(struct client *c)
{
	char *end;

	while (c->fd >= 0 && (end = memchr(c->input, '\n', c->input_size))) {
		size_t size = (size_t)(end - c->input);
		char line[CONTROL_MAX_LINE];

		memcpy(line, c->input, size);
		c->input_size -= size + 1;
		memmove(c->input, end + 1, c->input_size);
		handle_line(c, line, size);
	}
	if (c->fd >= 0 && c->input_size == CONTROL_MAX_LINE)
		client_drop(c);
}

static ssize_t receive(struct client *c)
{
	struct unix_fds fds = { c->fds, c->fd_count, CONTROL_MAX_FDS, c->fds_lost };
	ssize_t n = unix_receive(c->fd, c->input + c->input_size, CONTROL_MAX_LINE - c->input_size,
				 &fds, MSG_DONTWAIT);

	c->fd_count = fds.count;
	c->fds_lost = fds.lost;
	return n;
}

static void on_client(struct loop_watch *w, uint32_t events)
{
	struct client *c = container_of(w, struct client, watch);
	ssize_t n;

	if (events & EPOLLOUT)
		client_flush(c);
	if (c->fd < 0 || !(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		return;
	n = receive(c);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		client_drop(c);
		return;
	}
	c->input_size += (size_t)n;
	handle_input(c);
}

/* --- clients --- */

static int client_add(struct control_server *c, int fd)
{
	for (size_t i = 0; i < MAX_CLIENTS; i++) {
		struct client *client = &c->clients[i];

		if (client->fd >= 0)
			continue;
		client->input = malloc(CONTROL_MAX_LINE);
		client->output = malloc(MAX_OUTPUT);
		client->fd = fd;
		client->serial = ++c->serial;
		if (client->input && client->output &&
		    loop_watch(c->o.loop, &client->watch, fd, EPOLLIN, on_client) >= 0)
			return 0;
		client->fd = -1;
		free(steal_ptr(client->input));
		free(steal_ptr(client->output));
		return -ENOMEM;
	}
	return -EMFILE;
}

static void on_connection(struct loop_watch *w, uint32_t events)
{
	struct control_server *c = container_of(w, struct control_server, listen_watch);
	int fd = accept4(c->o.listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	(void)events;
	if (fd >= 0 && ((c->o.admit && !c->o.admit(c->o.context, fd)) || client_add(c, fd) < 0))
		close(fd);
}

void control_server_tell(struct control_server *s, json_t *event, bool may_miss)
{
	for (size_t i = 0; i < MAX_CLIENTS; i++)
		if (s->clients[i].fd >= 0 && !(may_miss && s->clients[i].output_size))
			client_send(&s->clients[i], event, NULL, 0);
}

int control_server_new(const struct control_options *o, struct control_server **ret,
		       struct error *err)
{
	struct control_server *c = calloc(1, sizeof(*c));
	int r = 0;

	if (!c)
		return error_set(err, -ENOMEM, "out of memory");
	c->o = *o;
	for (size_t i = 0; i < MAX_CLIENTS; i++) {
		c->clients[i].control = c;
		c->clients[i].fd = -1;
	}
	if (o->listener >= 0 &&
	    loop_watch(o->loop, &c->listen_watch, o->listener, EPOLLIN, on_connection) < 0)
		r = error_errno(err, -errno, "cannot watch the control socket");
	if (r >= 0 && o->descriptor >= 0) {
		r = client_add(c, o->descriptor);
		if (r < 0)
			error_errno(err, r, "control descriptor %d", o->descriptor);
	}
	if (r < 0) {
		control_server_free(c);
		return r;
	}
	*ret = c;
	return 0;
}

void control_server_free(struct control_server *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < MAX_CLIENTS; i++)
		client_drop(&c->clients[i]);
	loop_unwatch(&c->listen_watch);
	if (c->o.listener >= 0)
		close(c->o.listener);
	free(c);
}
