// SPDX-License-Identifier: MIT
/*
 * See console.h. Output goes into one ring, which is all that is shared with VP threads; each
 * stream reads it from a place of its own. Descriptors belong to the event loop. Positions count
 * all bytes that there ever were.
 */
#include "worker/console.h"

#include "lib/cleanup.h"
#include "lib/unix_socket.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <termios.h>
#include <time.h>

#define OUTPUT_LIMIT (256 * KIB)
#define OUTPUT_CHUNK 4096
#define INPUT_CHUNK  256
#define DRAIN_MS     5000

struct stream {
	struct console *console;
	int fd; /* -1 = none */
	struct loop_watch watch;
	bool watching_output;
	uint64_t at;                  /* the next byte that it gets */
	uint8_t pending[INPUT_CHUNK]; /* input that the port did not take yet */
	size_t pending_size;
};

struct console {
	struct loop *loop;
	struct console_options options;
	struct stream streams[CONSOLE_VIEWERS]; /* the first only, where there is no listener */
	int listener;
	int tty; /* a pseudo-terminal's other side: while it is open here, it never hangs up */
	struct loop_watch listen_watch;
	struct loop_task output_task, input_task;
	pthread_mutex_t lock; /* guards what follows */
	uint64_t total;       /* bytes put into the ring, ever */
	uint64_t taken;       /* of which some stream has got this much */
	uint8_t ring[OUTPUT_LIMIT];
};

static void on_stream(struct loop_watch *w, uint32_t events);

static void watch_stream(struct stream *s, bool output)
{
	uint32_t events = (s->pending_size ? 0u : EPOLLIN) | (output ? EPOLLOUT : 0u);

	loop_unwatch(&s->watch);
	if (s->fd < 0)
		return;
	s->watching_output = output;
	if (events && loop_watch(s->console->loop, &s->watch, s->fd, events, on_stream) < 0)
		s->watch.fd = -1;
}

/* A socket's client went: the next may come. Other streams are gone for good. */
static void stream_lost(struct stream *s)
{
	loop_unwatch(&s->watch);
	close(s->fd);
	s->fd = -1;
	s->watching_output = false;
	s->pending_size = 0;
}

/* --- output --- */

/*
 * A copy of what the stream gets next: a socket's ring is written over. What was written over
 * before is lost for it.
 */
static size_t ring_peek(struct stream *s, uint8_t chunk[static OUTPUT_CHUNK])
{
	struct console *c = s->console;
	size_t size, first;

	LOCK_SCOPE(&c->lock);
	if (c->total - s->at > OUTPUT_LIMIT)
		s->at = c->total - OUTPUT_LIMIT;
	size = MIN(c->total - s->at, OUTPUT_CHUNK);
	first = MIN(size, OUTPUT_LIMIT - s->at % OUTPUT_LIMIT);
	memcpy(chunk, c->ring + s->at % OUTPUT_LIMIT, first);
	memcpy(chunk + first, c->ring, size - first);
	return size;
}

static void ring_advance(struct stream *s, size_t n)
{
	struct console *c = s->console;

	LOCK_SCOPE(&c->lock);
	s->at += n;
	c->taken = MAX(c->taken, s->at);
}

static bool behind(struct stream *s)
{
	LOCK_SCOPE(&s->console->lock);
	return s->fd >= 0 && s->at < s->console->total;
}

static void write_output(struct stream *s)
{
	uint8_t chunk[OUTPUT_CHUNK];
	size_t size;

	while (s->fd >= 0 && (size = ring_peek(s, chunk))) {
		ssize_t n = write(s->fd, chunk, size);

		if (n < 0 && errno == EAGAIN) {
			if (!s->watching_output)
				watch_stream(s, true);
			return;
		}
		if (n < 0 && errno != EINTR) {
			stream_lost(s);
			return;
		}
		if (n > 0)
			ring_advance(s, (size_t)n);
	}
	if (s->watching_output)
		watch_stream(s, false);
}

static void write_all(struct console *c)
{
	for (size_t i = 0; i < CONSOLE_VIEWERS; i++)
		write_output(&c->streams[i]);
}

static void on_output(struct loop_task *t)
{
	write_all(container_of(t, struct console, output_task));
}

/* With several readers the newest counts; the only reader gets all in order, as far as it fits. */
void console_output(struct console *c, const uint8_t *data, size_t size)
{
	{
		LOCK_SCOPE(&c->lock);
		for (size_t i = 0; i < size; i++) {
			if (c->listener < 0 && c->total - c->taken == OUTPUT_LIMIT)
				break;
			c->ring[c->total++ % OUTPUT_LIMIT] = data[i];
		}
	}
	loop_post(c->loop, &c->output_task);
}

/* --- input --- */

static void give_input(struct stream *s)
{
	const struct console_options *o = &s->console->options;
	size_t taken;

	if (!s->pending_size)
		return;
	taken = o->input(o->context, s->pending, s->pending_size);
	s->pending_size -= taken;
	memmove(s->pending, s->pending + taken, s->pending_size);
}

static void read_input(struct stream *s)
{
	while (!s->pending_size) {
		ssize_t n = read(s->fd, s->pending, sizeof(s->pending));

		if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
			stream_lost(s);
			return;
		}
		if (n < 0)
			return;
		s->pending_size = (size_t)n;
		give_input(s);
	}
	watch_stream(s, s->watching_output);
}

static void on_input_resumed(struct loop_task *t)
{
	struct console *c = container_of(t, struct console, input_task);

	for (size_t i = 0; i < CONSOLE_VIEWERS; i++) {
		struct stream *s = &c->streams[i];

		if (!s->pending_size)
			continue;
		give_input(s);
		if (!s->pending_size)
			watch_stream(s, s->watching_output);
	}
}

void console_resume(struct console *c)
{
	loop_post(c->loop, &c->input_task);
}

static void on_stream(struct loop_watch *w, uint32_t events)
{
	struct stream *s = container_of(w, struct stream, watch);

	if (events & EPOLLOUT)
		write_output(s);
	if (s->fd >= 0 && events & (EPOLLIN | EPOLLHUP | EPOLLERR))
		read_input(s);
}

/* --- kinds --- */

static int set_stream(struct stream *s, int fd)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return -errno;
	s->fd = fd;
	watch_stream(s, false);
	loop_post(s->console->loop, &s->console->output_task);
	return 0;
}

/* Where one who joins begins: at what nobody has got yet, or earlier. */
static uint64_t joiner_start(struct console *c)
{
	LOCK_SCOPE(&c->lock);
	return MIN(c->taken, c->total - MIN(c->total, c->options.history));
}

static void on_connection(struct loop_watch *w, uint32_t events)
{
	struct console *c = container_of(w, struct console, listen_watch);
	int fd = accept4(c->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	(void)events;
	if (fd < 0)
		return;
	for (size_t i = 0; i < CONSOLE_VIEWERS; i++) {
		struct stream *s = &c->streams[i];

		if (s->fd >= 0)
			continue;
		s->at = joiner_start(c);
		if (set_stream(s, fd) < 0)
			break;
		return;
	}
	close(fd);
}

static int open_socket(struct console *c, struct error *err)
{
	const struct console_options *o = &c->options;

	if (o->path && o->descriptor >= 0)
		return error_set(err, -EINVAL, "serial socket: either a path or a descriptor");
	if (!o->path && o->descriptor < 0)
		return error_set(err, -EINVAL, "serial socket: a path or a descriptor is missing");
	c->listener = o->path ? unix_listen(o->path, 0, 4, err)
			      : unix_listener_take(o->descriptor, "serial socket", err);
	if (c->listener < 0)
		return c->listener;
	if (loop_watch(c->loop, &c->listen_watch, c->listener, EPOLLIN, on_connection) < 0)
		return error_errno(err, -errno, "cannot watch the serial socket");
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
	r = set_stream(&c->streams[0], fd);
	if (r < 0)
		return error_errno(err, r, "cannot use the pseudo-terminal");
	steal_fd(&fd);
	return 0;
}

static int open_descriptor(struct console *c, struct error *err)
{
	int r = set_stream(&c->streams[0], c->options.descriptor);

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
	c->listener = c->tty = -1;
	for (size_t i = 0; i < CONSOLE_VIEWERS; i++) {
		c->streams[i].console = c;
		c->streams[i].fd = -1;
	}
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

/* Those who have not got everything yet, for poll. */
static unsigned readers_behind(struct console *c, struct pollfd p[static CONSOLE_VIEWERS])
{
	unsigned count = 0;

	for (size_t i = 0; i < CONSOLE_VIEWERS; i++)
		if (behind(&c->streams[i]))
			p[count++] = (struct pollfd){ c->streams[i].fd, POLLOUT, 0 };
	return count;
}

/* The last words of a machine matter most, and its reader may be slower than its end. */
static void drain(struct console *c)
{
	int64_t end = now_ms() + DRAIN_MS, left = DRAIN_MS;
	struct pollfd p[CONSOLE_VIEWERS];
	unsigned count;

	write_all(c);
	if (c->options.kind == CONSOLE_PTY)
		return; /* nobody can say whether it has a reader */
	while (left > 0 && (count = readers_behind(c, p))) {
		if (poll(p, count, (int)left) < 0 && errno != EINTR)
			return;
		write_all(c);
		left = end - now_ms();
	}
}

void console_free(struct console *c)
{
	if (!c)
		return;
	drain(c);
	for (size_t i = 0; i < CONSOLE_VIEWERS; i++)
		if (c->streams[i].fd >= 0)
			stream_lost(&c->streams[i]);
	loop_unwatch(&c->listen_watch);
	loop_cancel(c->loop, &c->output_task);
	loop_cancel(c->loop, &c->input_task);
	if (c->listener >= 0)
		close(c->listener);
	if (c->tty >= 0)
		close(c->tty);
	pthread_mutex_destroy(&c->lock);
	free(c);
}
