// SPDX-License-Identifier: MIT
/*
 * talk: plays one side of a conversation over a guest's serial console or a worker's control
 * socket, for tests and the demo. Its steps are arguments: lines to send and texts to wait for,
 * with limits of time. A file that grows (a log) can be waited on as well.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

static const char usage[] =
	"usage: talk [OPTION...] PATH STEP...\n"
	"\n"
	"PATH is a Unix socket, a terminal, or a file that grows. The steps, in order:\n"
	"\n"
	"  wait:TEXT     until TEXT arrives (after what earlier steps waited for)\n"
	"  send:LINE     send a line; \\r, \\n, \\t, \\\\ and \\xHH stand for bytes\n"
	"  raw:TEXT      the same without an end of line\n"
	"  seconds:N     time limit for each of the following waits (60)\n"
	"  end           until the other side closes\n"
	"\n"
	"  --pid N       give up when the process N is no more\n"
	"  --log FILE    append to FILE all that arrives; without it, it goes to stdout\n"
	"  --quiet       it goes nowhere\n"
	"\n"
	"Exit status: 0 when all steps are done; 1 when one was not, and stderr says which.\n";

struct talk {
	const char *path;
	int fd, out;
	bool file; /* ends are not ends: more may come */
	pid_t pid;
	int seconds;
	char *data; /* what arrived since the last match */
	size_t size, room;
};

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static _Noreturn void fail(const char *what, const char *step)
{
	fprintf(stderr, "talk: %s%s%s\n", what, step ? ": " : "", step ? step : "");
	exit(1);
}

/* --- the other side --- */

static int connect_socket(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (strlen(path) >= sizeof(address.sun_path))
		fail("the name of the socket is too long", path);
	strcpy(address.sun_path, path);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		close(fd);
		fd = -1;
	}
	return fd;
}

static int open_terminal(const char *path)
{
	int fd = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);
	struct termios t;

	if (fd >= 0 && !tcgetattr(fd, &t)) {
		cfmakeraw(&t);
		tcsetattr(fd, TCSANOW, &t);
	}
	return fd;
}

static int try_open(struct talk *t)
{
	struct stat st;

	if (stat(t->path, &st) < 0)
		return -1;
	if (S_ISSOCK(st.st_mode))
		return connect_socket(t->path);
	if (S_ISCHR(st.st_mode))
		return open_terminal(t->path);
	t->file = S_ISREG(st.st_mode);
	return open(t->path, O_RDONLY | O_CLOEXEC);
}

static bool process_gone(const struct talk *t)
{
	return t->pid && kill(t->pid, 0) < 0;
}

/* The one that makes the socket may not have come so far. */
static void open_path(struct talk *t)
{
	double limit = now() + t->seconds;

	while ((t->fd = try_open(t)) < 0) {
		if (process_gone(t))
			fail("the process ended before it made", t->path);
		if (now() > limit)
			fail(strerror(errno), t->path);
		usleep(20000);
	}
}

/* --- steps --- */

static void show(const struct talk *t, const char *data, size_t size)
{
	while (size && t->out >= 0) {
		ssize_t n = write(t->out, data, size);

		if (n <= 0)
			return;
		data += n;
		size -= (size_t)n;
	}
}

/* More of what the other side says; false at its end. A little time at most. */
static bool receive(struct talk *t)
{
	struct pollfd p = { .fd = t->fd, .events = POLLIN };
	ssize_t n;

	if (t->room - t->size < 4096) {
		t->room += 65536;
		t->data = realloc(t->data, t->room);
		if (!t->data)
			fail("out of memory", NULL);
	}
	if (!t->file && poll(&p, 1, 100) == 0)
		return true;
	n = read(t->fd, t->data + t->size, t->room - t->size);
	if (n > 0) {
		show(t, t->data + t->size, (size_t)n);
		t->size += (size_t)n;
	}
	if (n == 0 && t->file)
		usleep(20000);
	return n > 0 || (n == 0 && t->file) || (n < 0 && (errno == EINTR || errno == EAGAIN));
}

static bool match(struct talk *t, const char *text)
{
	size_t length = strlen(text);
	char *at = memmem(t->data, t->size, text, length);

	if (!at)
		return false;
	t->size -= (size_t)(at - t->data) + length;
	memmove(t->data, at + length, t->size);
	return true;
}

static void step_wait(struct talk *t, const char *text)
{
	double limit = now() + t->seconds;
	bool more = true, gone = false;
	char told[64];

	while (!match(t, text)) {
		if (!more)
			fail("the other side closed without having said", text);
		if (gone)
			fail("the process ended without having said", text);
		if (now() > limit) {
			snprintf(told, sizeof(told), "%d s have passed without", t->seconds);
			fail(told, text);
		}
		gone = process_gone(t); /* what it said before that is still to be read */
		more = receive(t);
	}
}

static void step_end(struct talk *t)
{
	double limit = now() + t->seconds;

	while (receive(t) && !process_gone(t))
		if (now() > limit)
			fail("the other side did not close in time", t->path);
}

/* Takes the escapes out of the text; its new length. */
static size_t unescape(const char *text, char *ret)
{
	static const char names[] = "rnt\\", bytes[] = "\r\n\t\\";
	size_t n = 0;

	for (; *text; text++) {
		const char *name = text[0] == '\\' && text[1] ? strchr(names, text[1]) : NULL;
		unsigned byte;

		if (name) {
			ret[n++] = bytes[name - names];
			text++;
		} else if (sscanf(text, "\\x%2x", &byte) == 1) {
			ret[n++] = (char)byte;
			text += 3;
		} else {
			ret[n++] = *text;
		}
	}
	return n;
}

static void step_send(struct talk *t, const char *text, bool line)
{
	char *data = malloc(strlen(text) + 1);
	size_t size = unescape(text, data), done = 0;

	if (line)
		data[size++] = '\n';
	while (done < size) {
		ssize_t n = write(t->fd, data + done, size - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			fail(strerror(errno), text);
		done += (size_t)n;
	}
	free(data);
}

static void run_step(struct talk *t, const char *step)
{
	if (!strncmp(step, "wait:", 5))
		step_wait(t, step + 5);
	else if (!strncmp(step, "send:", 5))
		step_send(t, step + 5, true);
	else if (!strncmp(step, "raw:", 4))
		step_send(t, step + 4, false);
	else if (!strncmp(step, "seconds:", 8))
		t->seconds = atoi(step + 8);
	else if (!strcmp(step, "end"))
		step_end(t);
	else
		fail("there is no such step", step);
}

static void parse_options(struct talk *t, int argc, char **argv)
{
	static const struct option names[] = {
		{ "pid", required_argument, NULL, 'p' },
		{ "log", required_argument, NULL, 'l' },
		{ "quiet", no_argument, NULL, 'q' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	int c;

	while ((c = getopt_long(argc, argv, "+", names, NULL)) >= 0) {
		switch (c) {
		case 'p':
			t->pid = atoi(optarg);
			break;
		case 'l':
			t->out = open(optarg, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
			break;
		case 'q':
			t->out = -1;
			break;
		default:
			fputs(usage, c == 'h' ? stdout : stderr);
			exit(c == 'h' ? 0 : 2);
		}
	}
}

int main(int argc, char **argv)
{
	struct talk t = { .out = STDOUT_FILENO, .seconds = 60 };

	parse_options(&t, argc, argv);
	if (argc - optind < 1) {
		fputs(usage, stderr);
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	t.path = argv[optind];
	open_path(&t);
	for (int i = optind + 1; i < argc; i++)
		run_step(&t, argv[i]);
	return 0;
}
