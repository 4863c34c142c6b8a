// SPDX-License-Identifier: MIT
/*
 * /vms/{id}/console: a WebSocket whose binary messages are the bytes of the machine's first COM
 * port; and /vms/{id}/socket, the same with a program of the guest. Each viewer has a connection of
 * its own to the worker's socket, which serves several. What one side does not take stops the
 * other: reading from the worker while the viewer is slow, and from the viewer while the guest is.
 */
#include "daemon/vm.h"
#include "rest/api.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>

#define BLOCK       (16 * KIB)
#define BEHIND      (64 * KIB) /* waits for the viewer: no more is read from the worker */
#define INPUT_MAX   (64 * KIB) /* waits for the guest: no more is read from the viewer */
#define CONSOLE_MAX 256
#define OWN_MAX     64    /* of them for one user */
#define LOOK_MS     15000 /* between looks whether it is still allowed */
#define MS          UINT64_C(1000000)

struct console {
	struct api *api;
	struct list node;
	struct websocket *web;
	struct loop_watch watch;
	struct loop_timer timer;
	struct caller caller;
	int fd;
	bool read_only;
	bool socket; /* not the console */
	uint32_t watched;
	char vm[GUID_TEXT_SIZE];
	uint8_t *input; /* waits for the worker */
	size_t input_size, input_capacity;
};

static void on_watch(struct loop_watch *w, uint32_t events);

static void console_free(struct console *c)
{
	loop_unwatch(&c->watch);
	loop_timer_disarm(&c->timer);
	if (c->fd >= 0)
		close(c->fd);
	websocket_free(c->web);
	list_remove(&c->node);
	free(c->input);
	free(c);
}

/* The worker's side has ended. */
static void finish(struct console *c, unsigned code, const char *words)
{
	loop_unwatch(&c->watch);
	if (c->fd >= 0)
		close(steal_fd(&c->fd));
	websocket_close(c->web, code, words);
}

static void watch_again(struct console *c)
{
	uint32_t want =
		(websocket_queued(c->web) < BEHIND ? EPOLLIN : 0) | (c->input_size ? EPOLLOUT : 0);

	if (c->fd < 0 || want == c->watched)
		return;
	loop_unwatch(&c->watch);
	c->watched = want;
	if (loop_watch(c->api->d->loop, &c->watch, c->fd, want, on_watch) < 0)
		finish(c, WEBSOCKET_ERROR, "not enough memory");
}

/* --- from the worker --- */

static void take_output(struct console *c)
{
	uint8_t block[BLOCK];
	ssize_t n = recv(c->fd, block, sizeof(block), MSG_DONTWAIT);

	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
		finish(c, WEBSOCKET_NORMAL, "the machine has stopped");
	else if (n > 0 && websocket_send(c->web, block, (size_t)n) < 0)
		finish(c, WEBSOCKET_POLICY, "too slow");
}

static void give_input(struct console *c)
{
	ssize_t n = send(c->fd, c->input, c->input_size, MSG_DONTWAIT | MSG_NOSIGNAL);

	if (n < 0 && errno != EAGAIN && errno != EINTR) {
		finish(c, WEBSOCKET_NORMAL, "the machine has stopped");
		return;
	}
	if (n > 0) {
		c->input_size -= (size_t)n;
		memmove(c->input, c->input + n, c->input_size);
	}
	websocket_pause(c->web, c->input_size > INPUT_MAX);
}

static void on_watch(struct loop_watch *w, uint32_t events)
{
	struct console *c = container_of(w, struct console, watch);

	if (c->input_size && events & (EPOLLOUT | EPOLLERR))
		give_input(c);
	if (c->fd >= 0 && events & (EPOLLIN | EPOLLHUP | EPOLLERR))
		take_output(c);
	watch_again(c);
}

/* --- from the viewer --- */

static void on_data(void *context, struct websocket *web, const uint8_t *data, size_t size)
{
	struct console *c = context;
	size_t need = c->input_size + size;

	(void)web;
	if (c->read_only || c->fd < 0)
		return;
	if (need > c->input_capacity) {
		uint8_t *bigger = realloc(c->input, need);

		if (!bigger) {
			finish(c, WEBSOCKET_ERROR, "not enough memory");
			return;
		}
		c->input = bigger;
		c->input_capacity = need;
	}
	memcpy(c->input + c->input_size, data, size);
	c->input_size = need;
	give_input(c);
	watch_again(c);
}

static void on_drained(void *context, struct websocket *web)
{
	(void)web;
	watch_again(context);
}

static void on_closed(void *context, struct websocket *web, unsigned code)
{
	struct console *c = context;

	(void)web;
	(void)code;
	c->web = NULL; /* it frees itself */
	console_free(c);
}

void consoles_end(struct api *api)
{
	list_foreach_safe(it, &api->consoles) console_free(list_entry(it, struct console, node));
}

/* --- opening --- */

static int dial(const char *path, struct error *err)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0 || strlen(path) >= sizeof(address.sun_path))
		return error_errno(err, fd < 0 ? -errno : -ENAMETOOLONG,
				   "cannot reach the console");
	strcpy(address.sun_path, path);
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		if (errno == EAGAIN)
			return error_set(err, -EBUSY, "the console has too many viewers");
		if (errno == ENOENT || errno == ECONNREFUSED)
			return error_set(err, -EBADFD, "the machine's console is not there now");
		return error_errno(err, -errno, "cannot reach the console");
	}
	return steal_fd(&fd);
}

static enum operation operation_of(bool socket, bool read_only)
{
	if (socket)
		return OP_GUEST_SERVICE;
	return read_only ? OP_VIEW_CONSOLE : OP_CONSOLE;
}

/* Roles change while somebody looks, and machines go from one group to another. */
static void look(struct console *c)
{
	struct daemon *d = c->api->d;
	struct vm *vm = vm_by_id(d, c->vm, NULL);
	struct target target;

	if (vm)
		target = vm_target(vm);
	if (c->fd >= 0 && (!vm || !authz_allowed(d->authz, &c->caller,
						 operation_of(c->socket, c->read_only), &target)))
		finish(c, WEBSOCKET_POLICY,
		       c->socket ? "you may not use this socket any more"
				 : "you may not see this console any more");
}

static void on_timer(struct loop_timer *t)
{
	struct console *c = container_of(t, struct console, timer);

	look(c);
	if (c->fd >= 0)
		loop_timer_arm(t, loop_now(c->api->d->loop) + LOOK_MS * MS);
}

void consoles_look(struct api *api)
{
	list_foreach_safe(it, &api->consoles) look(list_entry(it, struct console, node));
}

static int check_count(struct call *call, struct error *err)
{
	unsigned count = 0, own = 0;

	list_foreach(it, &call->api->consoles)
	{
		count++;
		own += !strcmp(list_entry(it, struct console, node)->caller.name,
			       call->caller->name);
	}
	if (count >= CONSOLE_MAX || own >= OWN_MAX)
		return error_set(err, -EBUSY,
				 "there are %u viewers of consoles already, %u of them yours",
				 count, own);
	return 0;
}

static int check(struct call *call, struct vm *vm, bool read_only, struct error *err)
{
	struct target target = vm_target(vm);
	int r = authz_check(call->d->authz, call->caller, read_only ? OP_VIEW_CONSOLE : OP_CONSOLE,
			    &target, err);

	if (r < 0)
		return r;
	if (!vm->worker || !worker_console_path(vm->worker))
		return error_set(err, -EBADFD, "it is %s: only what runs has a console",
				 vm_state_name(vm->state));
	return check_count(call, err);
}

static struct console *console_new(struct call *call, const struct vm *vm, int fd, bool read_only)
{
	struct console *c = calloc(1, sizeof(*c));

	if (!c) {
		close(fd);
		return NULL;
	}
	c->api = call->api;
	c->fd = fd;
	c->watch.fd = -1;
	c->read_only = read_only;
	c->caller = *call->caller;
	loop_timer_init(call->d->loop, &c->timer, on_timer);
	loop_timer_arm(&c->timer, loop_now(call->d->loop) + LOOK_MS * MS);
	snprintf(c->vm, sizeof(c->vm), "%s", vm->id);
	list_append(&call->api->consoles, &c->node);
	return c;
}

/* `c` is NULL or has no WebSocket yet. */
static int upgrade(struct call *call, struct console *c, struct error *err)
{
	static const struct websocket_events events = { on_data, on_drained, on_closed };
	int r = c ? http_upgrade(call->r, &events, c, &c->web, err)
		  : error_errno(err, -ENOMEM, "cannot open a connection");

	if (r < 0 && c)
		console_free(c);
	return r;
}

int open_console(struct call *call, struct error *err)
{
	bool read_only = call_bool(call, "read_only", false);
	struct console *c;
	struct vm *vm;
	int fd, r = vm_one(call->d, call->caller, call->id, &vm, err);

	if (r >= 0)
		r = check(call, vm, read_only, err);
	if (r < 0)
		return r;
	fd = dial(worker_console_path(vm->worker), err);
	if (fd < 0)
		return fd;
	c = console_new(call, vm, fd, read_only);
	r = upgrade(call, c, err);
	if (r < 0)
		return r;
	event_add(call->d->events, SEVERITY_AUDIT, "console-opened", vm->id, call->caller,
		  json_pack("{s:b}", "read_only", read_only), "The console of \"%s\" was opened%s",
		  vm->settings.name, read_only ? " to be looked at" : "");
	call_free(call);
	watch_again(c);
	return 0;
}

/* --- sockets of the guest --- */

/* A port or a GUID, and nothing that could be another line. */
static int service_check(const char *service, struct error *err)
{
	size_t n = service ? strlen(service) : 0;

	if (!n || strspn(service, "0123456789abcdefABCDEF-") != n)
		return error_set(err, -EINVAL,
				 "parameter \"service\" must be a vsock port or a GUID");
	return 0;
}

static int check_socket(struct call *call, struct vm *vm, struct error *err)
{
	struct target target = vm_target(vm);
	int r = authz_check(call->d->authz, call->caller, OP_GUEST_SERVICE, &target, err);

	if (r < 0)
		return r;
	if (!vm->worker || !worker_sockets_path(vm->worker))
		return error_set(err, -EBADFD, "it is %s: only a guest that runs has sockets",
				 vm_state_name(vm->state));
	return check_count(call, err);
}

/* What the worker answers to that comes as the first line: "OK NUMBER" or "ERROR WORDS". */
int open_socket(struct call *call, struct error *err)
{
	const char *service = call_text(call, "service");
	char line[80];
	struct console *c;
	struct vm *vm;
	int fd, n, r = vm_one(call->d, call->caller, call->id, &vm, err);

	if (r >= 0)
		r = check_socket(call, vm, err);
	if (r >= 0)
		r = service_check(service, err);
	if (r < 0)
		return r;
	fd = dial(worker_sockets_path(vm->worker), err);
	if (fd < 0)
		return fd;
	n = snprintf(line, sizeof(line), "CONNECT %s\n", service);
	if (send(fd, line, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL) != n) {
		close(fd);
		return error_set(err, -EBADFD, "the machine's sockets are not there now");
	}
	c = console_new(call, vm, fd, false);
	if (c)
		c->socket = true;
	r = upgrade(call, c, err);
	if (r < 0)
		return r;
	event_add(call->d->events, SEVERITY_AUDIT, "socket-opened", vm->id, call->caller,
		  json_pack("{s:s}", "service", service),
		  "A connection to service %s of the guest of \"%s\" was opened", service,
		  vm->settings.name);
	call_free(call);
	watch_again(c);
	return 0;
}
