// SPDX-License-Identifier: MIT
/* See control.h. What a worker sends is not trusted to be well-formed, or short. */
#include "cli/control.h"

#include "lib/cleanup.h"
#include "lib/types.h"
#include "lib/unix_socket.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#define LINE_MAX_BYTES MIB
#define FDS_MAX        64

int control_connect(const char *path, struct control_client *ret, struct error *err)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return error_errno(err, -errno, "cannot make a socket");
	if (strlen(path) >= sizeof(address.sun_path))
		return error_set(err, -ENAMETOOLONG,
				 "the name of the socket is longer than %zu bytes: go to its "
				 "folder and use a shorter one",
				 sizeof(address.sun_path) - 1);
	strcpy(address.sun_path, path);
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return error_errno(err, -errno,
				   "cannot connect to \"%s\", which should be the control socket "
				   "of a running machine (`partita run --control PATH`)",
				   path);
	*ret = (struct control_client){ .fd = steal_fd(&fd) };
	return 0;
}

void control_disconnect(struct control_client *c)
{
	close(c->fd);
	free(c->data);
}

/* --- lines --- */

static int more(struct control_client *c, struct error *err)
{
	ssize_t n;

	if (c->room - c->size < 4096) {
		char *data = c->room < LINE_MAX_BYTES ? realloc(c->data, c->room + 65536) : NULL;

		if (!data)
			return error_set(err, -EPROTO, "the worker's answer is too long");
		c->data = data;
		c->room += 65536;
	}
	do
		n = read(c->fd, c->data + c->size, c->room - c->size);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return error_errno(err, -errno, "cannot read from the control socket");
	if (!n)
		return error_set(err, -EPIPE,
				 "the machine has ended, or closed the control socket");
	c->size += (size_t)n;
	return 0;
}

static int line_next(struct control_client *c, json_t **ret, struct error *err)
{
	json_error_t e;
	size_t n;
	char *end;

	while (!c->size || !(end = memchr(c->data, '\n', c->size))) {
		int r = more(c, err);

		if (r < 0)
			return r;
	}
	n = (size_t)(end - c->data);
	*ret = json_loadb(c->data, n, 0, &e);
	c->size -= n + 1;
	memmove(c->data, end + 1, c->size);
	return *ret ? 0 : error_set(err, -EPROTO, "the worker's answer is no JSON: %s", e.text);
}

/* The descriptors go with the first byte; the rest may take more than one call. */
static int line_send(struct control_client *c, const char *text, size_t size, const int *fds,
		     unsigned fd_count, struct error *err)
{
	while (size) {
		ssize_t n = unix_send(c->fd, text, size, fds, fd_count, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return error_errno(err, -errno, "cannot write to the control socket");
		text += n, size -= (size_t)n;
		fd_count = 0;
	}
	return 0;
}

int control_ask(struct control_client *c, json_t *request, const int *fds, size_t fd_count,
		json_t **ret, struct error *err)
{
	_cleanup_free_ char *text = NULL, *line = NULL;
	json_t *answer = NULL;
	int n, r;

	if (fd_count > FDS_MAX) {
		json_decref(request);
		return error_set(err, -EINVAL, "these are too many files for one request");
	}
	json_object_set_new(request, "id", json_integer(++c->id));
	text = json_dumps(request, JSON_COMPACT);
	json_decref(request);
	n = text ? asprintf(&line, "%s\n", text) : -1;
	if (n < 0)
		return error_set(err, -ENOMEM, "out of memory");
	r = line_send(c, line, (size_t)n, fds, (unsigned)fd_count, err);
	while (r >= 0) {
		r = line_next(c, &answer, err);
		if (r < 0 || json_integer_value(json_object_get(answer, "id")) == c->id)
			break;
		json_decref(answer);
	}
	if (r < 0)
		return r;
	if (!json_is_true(json_object_get(answer, "ok"))) {
		const char *words = json_string_value(json_object_get(answer, "error"));

		r = error_set(err, -EIO, "%s", words ? words : "the worker says no, and not why");
		json_decref(answer);
		return r;
	}
	*ret = answer;
	return 0;
}

int control_event(struct control_client *c, json_t **ret, struct error *err)
{
	for (;;) {
		int r = line_next(c, ret, err);

		if (r < 0 || json_object_get(*ret, "event"))
			return r;
		json_decref(*ret);
	}
}
