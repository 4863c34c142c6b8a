// SPDX-License-Identifier: MIT
/*
 * See console.h. The output ring is the only state shared with VP threads; descriptors belong to
 * the event loop.
 */
#include "worker/console.h"

#include "lib/cleanup.h"
#include "worker/unix_socket.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <termios.h>
#include <time.h>

#define OUTPUT_LIMIT (256 * KIB)
#define INPUT_CHUNK  256
#define DRAIN_MS     5000

struct console {
	struct loop *loop;
	struct console_options options;
	int fd; /* the byte stream, -1 while there is none */
	int listener;
	int tty; /* a pseudo-terminal's other side: while it is open here, it never hangs up */
	struct loop_watch watch, listen_watch;
	struct loop_task output_task, input_task;
	bool watching_output;
	uint8_t pending[INPUT_CHUNK]; /* input that the port did not take yet */
	size_t pending_size;
	pthread_mutex_t lock; /* guards the output ring */
	size_t head, used;
	uint8_t ring[OUTPUT_LIMIT];
};

static void on_stream(struct loop_watch *w, uint32_t events);

static void watch_stream(struct console *c, bool output)
{
	uint32_t events = (c->pending_size ? 0u : EPOLLIN) | (output ? EPOLLOUT : 0u);

	loop_unwatch(&c->watch);
	if (c->fd < 0 || !events)
		return;
	c->watching_output = output;
	if (loop_watch(c->loop, &c->watch, c->fd, events, on_stream) < 0)
		c->watch.fd = -1;
}

/* A socket's client went: the next may come. Other streams are gone for good. */
static void stream_lost(struct console *c)
{
	loop_unwatch(&c->watch);
	close(c->fd);
	c->fd = -1;
	c->pending_size = 0;
}

/* --- output --- */

/* The next piece of the ring; its bytes stay valid because only the loop takes them out. */
static size_t ring_peek(struct console *c, const uint8_t **ret)
{
	LOCK_SCOPE(&c->lock);
	*ret = c->ring + c->head;
	return MIN(c->used, OUTPUT_LIMIT - c->head);
}

static void ring_drop(struct console *c, size_t n)
{
	LOCK_SCOPE(&c->lock);
	c->head = (c->head + n) % OUTPUT_LIMIT;
	c->used -= n;
}

static void write_output(struct console *c)
{
	const uint8_t *data;
	size_t size;

	while (c->fd >= 0 && (size = ring_peek(c, &data))) {
		ssize_t n = write(c->fd, data, size);

		if (n < 0 && errno == EAGAIN) {
			watch_stream(c, true);
			return;
		}
		if (n < 0 && errno != EINTR) {
			stream_lost(c);
			return;
		}
		if (n > 0)
			ring_drop(c, (size_t)n);
	}
	if (c->watching_output)
		watch_stream(c, false);
}

static void on_output(struct loop_task *t)
{
	write_output(container_of(t, struct console, output_task));
}

void console_output(struct console *c, const uint8_t *data, size_t size)
{
	{
		LOCK_SCOPE(&c->lock);
		for (size_t i = 0; i < size && c->used < OUTPUT_LIMIT; i++)
			c->ring[(c->head + c->used++) % OUTPUT_LIMIT] = data[i];
	}
	loop_post(c->loop, &c->output_task);
}

/* --- input --- */

static void give_input(struct console *c)
{
	size_t taken;

	if (!c->pending_size)
		return;
	taken = c->options.input(c->options.context, c->pending, c->pending_size);
	c->pending_size -= taken;
	memmove(c->pending, c->pending + taken, c->pending_size);
}

static void read_input(struct console *c)
{
	while (!c->pending_size) {
		ssize_t n = read(c->fd, c->pending, sizeof(c->pending));

		if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
			stream_lost(c);
			return;
		}
		if (n < 0)
			return;
		c->pending_size = (size_t)n;
		give_input(c);
	}
	watch_stream(c, c->watching_output);
}

static void on_input_resumed(struct loop_task *t)
{
	struct console *c = container_of(t, struct console, input_task);

	if (!c->pending_size)
		return;
	give_input(c);
	if (!c->pending_size)
		watch_stream(c, c->watching_output);
}

void console_resume(struct console *c)
{
	loop_post(c->loop, &c->input_task);
}

static void on_stream(struct loop_watch *w, uint32_t events)
{
	struct console *c = container_of(w, struct console, watch);

	if (events & EPOLLOUT)
		write_output(c);
	if (c->fd >= 0 && events & (EPOLLIN | EPOLLHUP | EPOLLERR))
		read_input(c);
}

/* --- kinds --- */

static int set_stream(struct console *c, int fd)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return -errno;
	c->fd = fd;
	watch_stream(c, false);
	loop_post(c->loop, &c->output_task);
	return 0;
}

static void on_connection(struct loop_watch *w, uint32_t events)
{
	struct console *c = container_of(w, struct console, listen_watch);
	int fd = accept4(c->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	(void)events;
	if (fd < 0)
		return;
	if (c->fd >= 0 || set_stream(c, fd) < 0)
		close(fd); /* one client at a time */
}

static int open_socket(struct console *c, struct error *err)
{
	c->listener = unix_listen(c->options.path, err);
	if (c->listener < 0)
		return c->listener;
	if (loop_watch(c->loop, &c->listen_watch, c->listener, EPOLLIN, on_connection) < 0)
		return error_errno(err, -errno, "cannot watch \"%s\"", c->options.path);
	return 0;
}

/* The link of a worker that is gone is replaced. */
static int link_pty(const char *name, const char *path, struct error *err)
{
	char old[64];
	ssize_t n = readlink(path, old, sizeof(old) - 1);

	if (n > 0 && !strncmp(old, "/dev/pts/", 9))
		(void)unlink(path);
	if (symlink(name, path) < 0)
		return error_errno(err, -errno, "cannot link \"%s\" to %s", path, name);
	return 0;
}

static int open_pty(struct console *c, struct error *err)
{
	_cleanup_close_ int fd = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
	struct termios t;
	char name[64];
	int r;

	if (fd < 0 || grantpt(fd) < 0 || unlockpt(fd) < 0 || ptsname_r(fd, name, sizeof(name)))
		return error_errno(err, -errno, "cannot make a pseudo-terminal");
	if (!tcgetattr(fd, &t)) {
		cfmakeraw(&t);
		tcsetattr(fd, TCSANOW, &t);
	}
	if (c->options.path) {
		r = link_pty(name, c->options.path, err);
		if (r < 0)
			return r;
	}
	c->tty = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (c->tty < 0)
		return error_errno(err, -errno, "cannot open the pseudo-terminal %s", name);
	r = set_stream(c, fd);
	if (r < 0)
		return error_errno(err, r, "cannot use the pseudo-terminal");
	steal_fd(&fd);
	return 0;
}

static int open_descriptor(struct console *c, struct error *err)
{
	int r = set_stream(c, c->options.descriptor);

	return r < 0 ? error_errno(err, r, "serial descriptor %d", c->options.descriptor) : 0;
}

static int open_none(struct console *c, struct error *err)
{
	(void)c;
	(void)err;
	return 0;
}

static int (*const openers[])(struct console *c, struct error *err) = {
	[CONSOLE_NONE] = open_none,
	[CONSOLE_DESCRIPTOR] = open_descriptor,
	[CONSOLE_SOCKET] = open_socket,
	[CONSOLE_PTY] = open_pty,
};

int console_new(struct loop *loop, const struct console_options *options, struct console **ret,
		struct error *err)
{
	struct console *c = calloc(1, sizeof(*c));
	int r;

	if (!c)
		return error_set(err, -ENOMEM, "out of memory");
	c->loop = loop;
	c->options = *options;
	c->fd = c->listener = c->tty = -1;
	pthread_mutex_init(&c->lock, NULL);
	loop_task_init(&c->output_task, on_output);
	loop_task_init(&c->input_task, on_input_resumed);
	r = openers[options->kind](c, err);
	if (r < 0) {
		console_free(c);
		return r;
	}
	*ret = c;
	return 0;
}

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* The last words of a machine matter most, and its reader may be slower than its end. */
static void drain(struct console *c)
{
	int64_t end = now_ms() + DRAIN_MS, left = DRAIN_MS;
	const uint8_t *data;

	write_output(c);
	if (c->options.kind == CONSOLE_PTY)
		return; /* nobody can say whether it has a reader */
	while (left > 0 && c->fd >= 0 && ring_peek(c, &data)) {
		struct pollfd p = { .fd = c->fd, .events = POLLOUT };

		if (poll(&p, 1, (int)left) < 0 && errno != EINTR)
			return;
		write_output(c);
		left = end - now_ms();
	}
}

void console_free(struct console *c)
{
	if (!c)
		return;
	drain(c);
	loop_unwatch(&c->watch);
	loop_unwatch(&c->listen_watch);
	loop_cancel(c->loop, &c->output_task);
	loop_cancel(c->loop, &c->input_task);
	if (c->fd >= 0)
		close(c->fd);
	if (c->listener >= 0)
		close(c->listener);
	if (c->tty >= 0)
		close(c->tty);
	pthread_mutex_destroy(&c->lock);
	free(c);
}
