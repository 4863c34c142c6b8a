// SPDX-License-Identifier: MIT
/*
 * See control.h. Everything that a client can make us keep is bounded; a client that does not read
 * its answers is dropped. Event loop's thread.
 */
#include "worker/control.h"

#include "lib/cleanup.h"
#include "lib/unix_socket.h"
#include "worker/disk_control.h"
#include "worker/vm_description.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define MAX_CLIENTS 4
#define MAX_LINE    16384 /* a snapshot names two files for each disk */
#define MAX_OUTPUT  131072
#define MAX_FDS     32 /* that wait for the end of their line */

struct client {
	struct control *control;
	int fd;          /* -1 = free */
	uint64_t serial; /* of the connection: answers that come later must not go to another */
	struct loop_watch watch;
	size_t input_size, output_size;
	char *input, *output; /* MAX_LINE and MAX_OUTPUT bytes while connected */
	unsigned fd_count;
	int fds[MAX_FDS];
	bool fds_lost; /* there were more */
};

/* A disk command; it may be answered later. */
struct pending {
	struct disk_command command;
	struct client *client;
	uint64_t serial;
	json_t *request, *answer;
	int fds[MAX_FDS];
};

struct control {
	uint64_t serial;
	struct loop *loop;
	struct machine *machine;
	int listener;
	struct loop_watch listen_watch;
	struct client clients[MAX_CLIENTS];
};

static void fds_drop(int *fds, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		if (fds[i] >= 0)
			close(fds[i]);
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
	free(steal_ptr(c->input));
	free(steal_ptr(c->output));
	c->input_size = c->output_size = 0;
}

static void on_client(struct loop_watch *w, uint32_t events);

static void client_flush(struct client *c)
{
	bool waiting = c->output_size;

	while (c->output_size) {
		ssize_t n = send(c->fd, c->output, c->output_size, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EAGAIN)
			break;
		if (n <= 0) {
			client_drop(c);
			return;
		}
		c->output_size -= (size_t)n;
		memmove(c->output, c->output + n, c->output_size);
	}
	if (!waiting)
		return;
	loop_unwatch(&c->watch);
	if (loop_watch(c->control->loop, &c->watch, c->fd,
		       EPOLLIN | (c->output_size ? EPOLLOUT : 0u), on_client) < 0)
		client_drop(c);
}

static void client_send(struct client *c, json_t *message)
{
	_cleanup_free_ char *text = json_dumps(message, JSON_COMPACT);
	size_t size = text ? strlen(text) : 0;

	if (!text || size + 1 > MAX_OUTPUT - c->output_size) {
		client_drop(c);
		return;
	}
	memcpy(c->output + c->output_size, text, size);
	c->output[c->output_size + size] = '\n';
	c->output_size += size + 1;
	client_flush(c);
}

/* --- requests --- */

static void add_query(struct control *c, json_t *answer)
{
	struct vmbus_counters n = vmbus_counters(machine_bus(c->machine));
	uint32_t version = vmbus_version(machine_bus(c->machine));
	char text[16] = "";

	if (version)
		snprintf(text, sizeof(text), "%u.%u", version >> 16, version & 0xffff);
	json_object_set_new(answer, "vmbus_version", json_string(text));
	json_object_set_new(answer, "exits", json_integer((json_int_t)machine_exits(c->machine)));
	json_object_set_new(
		answer, "vmbus",
		json_pack("{s:I,s:I,s:I,s:I,s:I,s:I,s:i,s:i}", "messages", (json_int_t)n.messages,
			  "bad_messages", (json_int_t)n.bad_messages, "packets_in",
			  (json_int_t)n.packets_in, "packets_out", (json_int_t)n.packets_out,
			  "signals_in", (json_int_t)n.signals_in, "signals_out",
			  (json_int_t)n.signals_out, "gpadls", (int)n.gpadls, "channels_open",
			  (int)n.channels_open));
}

static const struct {
	const char *name;
	enum machine_command command;
} commands[] = {
	{ "pause", MACHINE_PAUSE },
	{ "resume", MACHINE_RESUME },
	{ "reset", MACHINE_RESET },
	{ "power-off", MACHINE_POWER_OFF },
};

static int run_command(struct control *c, const char *name, json_t *answer, struct error *err)
{
	if (!strcmp(name, "query")) {
		add_query(c, answer);
		return 0;
	}
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		if (!strcmp(name, commands[i].name))
			return machine_command(c->machine, commands[i].command, err);
	return error_set(err, -EINVAL,
			 "no such command \"%.40s\"; there are query, pause, resume, reset, "
			 "power-off, and disk-query, -resize, -snapshot, -merge, -cancel, -freeze, "
			 "-thaw, -track",
			 name);
}

/* Ends a request; `client` is NULL when it is gone. */
static void answer_send(struct control *c, struct client *client, const json_t *request,
			json_t *answer, const struct error *err)
{
	if (json_object_get(request, "id"))
		json_object_set(answer, "id", json_object_get(request, "id"));
	json_object_set_new(answer, "ok", json_boolean(!err));
	json_object_set_new(answer, "state",
			    json_string(machine_state_name(machine_state(c->machine))));
	if (err)
		json_object_set_new(answer, "error", json_string(err->message));
	if (json_dumpb(answer, NULL, 0, JSON_COMPACT) >= MAX_OUTPUT) {
		json_object_clear(answer);
		answer_send(c, client, request, answer,
			    &(struct error){ -EMSGSIZE, "the answer is too long; ask for one disk, "
							"or for less" });
		return;
	}
	if (client && client->fd >= 0)
		client_send(client, answer);
}

static void pending_free(struct pending *p)
{
	fds_drop(p->fds, p->command.fd_count);
	json_decref(p->answer);
	json_decref(p->request);
	free(p);
}

static void pending_end(struct pending *p, int r, const struct error *err)
{
	bool there = p->client->fd >= 0 && p->client->serial == p->serial;

	answer_send(p->client->control, there ? p->client : NULL, p->request, p->answer,
		    r < 0 ? err : NULL);
	pending_free(p);
}

static void on_disk_command(struct disk_command *command, int r, const struct error *err)
{
	pending_end(container_of(command, struct pending, command), r, err);
}

/* With the descriptors that came with its line. The request is this function's. */
static void disk_command(struct client *client, const char *name, json_t *request)
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
	p->answer = json_object();
	memcpy(p->fds, client->fds, sizeof(p->fds));
	p->command = (struct disk_command){
		.name = name,
		.request = request,
		.answer = p->answer,
		.fds = p->fds,
		.fd_count = client->fd_count,
		.done = on_disk_command,
	};
	client->fd_count = 0;
	r = client->fds_lost
		    ? error_set(&err, -EMFILE, "more than %d descriptors came with the request",
				MAX_FDS)
		    : disk_command_run(machine_live(client->control->machine), &p->command, &err);
	if (r <= 0)
		pending_end(p, r, &err);
}

static void handle_request(struct client *client, json_t *request, const json_error_t *json_error)
{
	struct control *c = client->control;
	const char *command = json_string_value(json_object_get(request, "command"));
	struct error err = { 0 };
	json_t *answer;
	int r;

	if (command && disk_command_known(command)) {
		disk_command(client, command, request);
		return;
	}
	answer = json_object();
	if (!request)
		r = error_set(&err, -EINVAL, "not JSON: %s at column %d", json_error->text,
			      json_error->column);
	else if (!command)
		r = error_set(&err, -EINVAL, "a request is an object with a \"command\"");
	else
		r = run_command(c, command, answer, &err);
	answer_send(c, client, request, answer, r < 0 ? &err : NULL);
	json_decref(answer);
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
		char line[MAX_LINE];

		memcpy(line, c->input, size);
		c->input_size -= size + 1;
		memmove(c->input, end + 1, c->input_size);
		handle_line(c, line, size);
	}
	if (c->fd >= 0 && c->input_size == MAX_LINE)
		client_drop(c);
}

static void fds_receive(struct client *c, struct msghdr *m)
{
	for (struct cmsghdr *h = CMSG_FIRSTHDR(m); h; h = CMSG_NXTHDR(m, h)) {
		unsigned count = (unsigned)((h->cmsg_len - CMSG_LEN(0)) / sizeof(int));

		if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
			continue;
		for (unsigned i = 0; i < count; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(h) + i * sizeof(fd), sizeof(fd));
			if (c->fd_count < MAX_FDS) {
				c->fds[c->fd_count++] = fd;
			} else {
				close(fd);
				c->fds_lost = true;
			}
		}
	}
	c->fds_lost |= m->msg_flags & MSG_CTRUNC;
}

static ssize_t receive(struct client *c)
{
	_Alignas(struct cmsghdr) char space[CMSG_SPACE(MAX_FDS * sizeof(int))];
	struct iovec iov = { c->input + c->input_size, MAX_LINE - c->input_size };
	struct msghdr m = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = space,
		.msg_controllen = sizeof(space),
	};
	ssize_t n = recvmsg(c->fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	if (n >= 0)
		fds_receive(c, &m);
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

static int client_add(struct control *c, int fd)
{
	for (size_t i = 0; i < MAX_CLIENTS; i++) {
		struct client *client = &c->clients[i];

		if (client->fd >= 0)
			continue;
		client->input = malloc(MAX_LINE);
		client->output = malloc(MAX_OUTPUT);
		client->fd = fd;
		client->serial = ++c->serial;
		if (client->input && client->output &&
		    loop_watch(c->loop, &client->watch, fd, EPOLLIN, on_client) >= 0)
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
	struct control *c = container_of(w, struct control, listen_watch);
	int fd = accept4(c->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	(void)events;
	if (fd >= 0 && client_add(c, fd) < 0)
		close(fd);
}

/* To all; `may_miss`: not to those who have not read what was there before. */
static void tell_all(struct control *c, json_t *event, bool may_miss)
{
	for (size_t i = 0; i < MAX_CLIENTS; i++)
		if (c->clients[i].fd >= 0 && !(may_miss && c->clients[i].output_size))
			client_send(&c->clients[i], event);
	json_decref(event);
}

static void on_state(void *context, enum machine_state state)
{
	tell_all(context,
		 json_pack("{s:s,s:s}", "event", "state", "state", machine_state_name(state)),
		 false);
}

static void on_disk_event(void *context, const struct live_event *event)
{
	bool may_miss;
	json_t *o = disk_event(event, &may_miss);

	tell_all(context, o, may_miss);
}

static int listen_on(struct control *c, const struct vm_control *d, struct error *err)
{
	if (d->path && d->listener >= 0)
		return error_set(err, -EINVAL, "control: either a path or a listener");
	c->listener = d->path ? unix_listen(d->path, 0, 4, err)
			      : unix_listener_take((int)d->listener, "control.listener", err);
	if (c->listener < 0)
		return c->listener;
	if (loop_watch(c->loop, &c->listen_watch, c->listener, EPOLLIN, on_connection) < 0)
		return error_errno(err, -errno, "cannot watch the control socket");
	return 0;
}

int control_new(struct loop *loop, struct machine *machine, const struct vm_control *description,
		struct control **ret, struct error *err)
{
	struct control *c = calloc(1, sizeof(*c));
	int r = 0;

	if (!c)
		return error_set(err, -ENOMEM, "out of memory");
	c->loop = loop;
	c->machine = machine;
	c->listener = -1;
	for (size_t i = 0; i < MAX_CLIENTS; i++) {
		c->clients[i].control = c;
		c->clients[i].fd = -1;
	}
	if (description->path || description->listener >= 0)
		r = listen_on(c, description, err);
	if (r >= 0 && description->descriptor >= 0) {
		r = client_add(c, (int)description->descriptor);
		if (r < 0)
			error_errno(err, r, "control descriptor %d", (int)description->descriptor);
	}
	if (r < 0) {
		control_free(c);
		return r;
	}
	machine_on_state(machine, on_state, c);
	live_on_event(machine_live(machine), on_disk_event, c);
	*ret = c;
	return 0;
}

void control_free(struct control *c)
{
	if (!c)
		return;
	live_on_event(machine_live(c->machine), NULL, NULL);
	for (size_t i = 0; i < MAX_CLIENTS; i++)
		client_drop(&c->clients[i]);
	loop_unwatch(&c->listen_watch);
	if (c->listener >= 0)
		close(c->listener);
	free(c);
}
