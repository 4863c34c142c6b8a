// SPDX-License-Identifier: MIT
/*
 * See control.h. Everything that a client can make us keep is bounded; a client that does not read
 * its answers is dropped. Event loop's thread.
 */
#include "worker/control.h"

#include "lib/cleanup.h"
#include "worker/unix_socket.h"
#include "worker/vm_description.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define MAX_CLIENTS 4
#define MAX_LINE    4096
#define MAX_OUTPUT  65536

struct client {
	struct control *control;
	int fd; /* -1 = free */
	struct loop_watch watch;
	size_t input_size, output_size;
	char *input, *output; /* MAX_LINE and MAX_OUTPUT bytes while connected */
};

struct control {
	struct loop *loop;
	struct machine *machine;
	int listener;
	struct loop_watch listen_watch;
	struct client clients[MAX_CLIENTS];
};

static void client_drop(struct client *c)
{
	if (c->fd < 0)
		return;
	loop_unwatch(&c->watch);
	close(c->fd);
	c->fd = -1;
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
			 "no such command \"%.40s\"; there are query, pause, resume, reset and "
			 "power-off",
			 name);
}

static void handle_line(struct client *client, const char *line, size_t size)
{
	struct control *c = client->control;
	json_error_t json_error;
	struct error err = { 0 };
	json_t *request = json_loadb(line, size, JSON_REJECT_DUPLICATES, &json_error);
	json_t *answer = json_object();
	const char *command = json_string_value(json_object_get(request, "command"));
	int r;

	if (!request)
		r = error_set(&err, -EINVAL, "not JSON: %s at column %d", json_error.text,
			      json_error.column);
	else if (!command)
		r = error_set(&err, -EINVAL, "a request is an object with a \"command\"");
	else
		r = run_command(c, command, answer, &err);
	if (json_object_get(request, "id"))
		json_object_set(answer, "id", json_object_get(request, "id"));
	json_object_set_new(answer, "ok", json_boolean(r >= 0));
	json_object_set_new(answer, "state",
			    json_string(machine_state_name(machine_state(c->machine))));
	if (r < 0)
		json_object_set_new(answer, "error", json_string(err.message));
	if (client->fd >= 0)
		client_send(client, answer);
	json_decref(answer);
	json_decref(request);
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

static void on_client(struct loop_watch *w, uint32_t events)
{
	struct client *c = container_of(w, struct client, watch);
	ssize_t n;

	if (events & EPOLLOUT)
		client_flush(c);
	if (c->fd < 0 || !(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		return;
	n = recv(c->fd, c->input + c->input_size, MAX_LINE - c->input_size, MSG_DONTWAIT);
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

static void on_state(void *context, enum machine_state state)
{
	struct control *c = context;
	json_t *event =
		json_pack("{s:s,s:s}", "event", "state", "state", machine_state_name(state));

	for (size_t i = 0; i < MAX_CLIENTS; i++)
		if (c->clients[i].fd >= 0)
			client_send(&c->clients[i], event);
	json_decref(event);
}

static int listen_on(struct control *c, const char *path, struct error *err)
{
	c->listener = unix_listen(path, err);
	if (c->listener < 0)
		return c->listener;
	if (loop_watch(c->loop, &c->listen_watch, c->listener, EPOLLIN, on_connection) < 0)
		return error_errno(err, -errno, "cannot watch \"%s\"", path);
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
	if (description->path)
		r = listen_on(c, description->path, err);
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
	*ret = c;
	return 0;
}

void control_free(struct control *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < MAX_CLIENTS; i++)
		client_drop(&c->clients[i]);
	loop_unwatch(&c->listen_watch);
	if (c->listener >= 0)
		close(c->listener);
	free(c);
}
