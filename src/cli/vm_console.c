// SPDX-License-Identifier: MIT
/*
 * partita vm console: a WebSocket of the service between a person's terminal and a machine's
 * serial port. Bytes go through as they are, except after the escape key Ctrl-A; in pipes there is
 * no escape key, and the end of the input leaves the output going on.
 */
#include "cli/terminal.h"
#include "cli/vm.h"

#include "lib/cleanup.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

static const char help[] = "\r\nCtrl-A then: d leave, x power off, r reset, p pause, c continue, "
			   "Ctrl-A a Ctrl-A for the guest, h this help\r\n";

struct console {
	struct command *command;
	struct client_socket *socket;
	const char *name;
	bool terminal, read_only, escaped, left;
};

static volatile sig_atomic_t interrupted;

static void on_signal(int signo)
{
	interrupted = signo;
}

/* In raw mode a newline does not return the carriage. */
static void say(const char *words)
{
	write_all(STDERR_FILENO, "\r\n", 2);
	write_all(STDERR_FILENO, words, strlen(words));
	write_all(STDERR_FILENO, "\r\n", 2);
}

static void act(struct console *k, const char *action)
{
	char rest[32];
	_cleanup_free_ char *path = NULL;
	struct error err = { 0 };
	struct client_answer a;

	snprintf(rest, sizeof(rest), "/%s", action);
	path = client_path("/vms/", k->name, rest);
	if (client_ask(k->command->client,
		       &(struct client_request){ .method = "POST", .path = path }, &a, &err) < 0)
		say(err.message);
	else
		client_answer_deinit(&a);
}

static int escape_key(struct console *k, uint8_t key)
{
	static const struct {
		uint8_t key;
		const char *action;
	} keys[] = {
		{ 'x', "stop" },
		{ 'r', "reset" },
		{ 'p', "pause" },
		{ 'c', "resume" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		if (keys[i].key == key)
			act(k, keys[i].action);
	if (key == 'h' || key == '?')
		write_all(STDOUT_FILENO, help, sizeof(help) - 1);
	if (key == 'd' || key == 'q')
		k->left = true;
	if (key == ESCAPE_KEY && !k->read_only)
		return client_socket_send(k->socket, &key, 1, &k->command->err);
	return 0;
}

/* What lies between escape keys goes in one piece. */
static int typed(struct console *k, const uint8_t *data, size_t size)
{
	size_t from = 0;
	int r = 0;

	for (size_t i = 0; i <= size && r >= 0 && !k->left; i++) {
		bool escape = i < size && k->terminal && !k->escaped && data[i] == ESCAPE_KEY;

		if (i < size && !escape && !k->escaped)
			continue;
		if (i > from && !k->read_only)
			r = client_socket_send(k->socket, data + from, i - from, &k->command->err);
		from = i + 1;
		if (i == size)
			break;
		if (k->escaped && r >= 0)
			r = escape_key(k, data[i]);
		k->escaped = escape;
	}
	return r;
}

static int show(struct console *k)
{
	uint8_t data[4096];
	ssize_t n;

	do {
		n = client_socket_receive(k->socket, data, sizeof(data), &k->command->err);
		if (n > 0)
			write_all(STDOUT_FILENO, data, (size_t)n);
	} while (n > 0 || (n == 0 && client_socket_pending(k->socket)));
	return (int)n;
}

static int console_loop(struct console *k)
{
	struct pollfd fds[2] = {
		{ .fd = client_socket_fd(k->socket), .events = POLLIN },
		{ .fd = STDIN_FILENO, .events = POLLIN },
	};
	int r = show(k);

	while (r >= 0 && !k->left && !interrupted) {
		uint8_t data[256];
		ssize_t n;

		if (poll(fds, ARRAY_SIZE(fds), -1) < 0)
			continue;
		if (fds[0].revents)
			r = show(k);
		if (fds[1].fd < 0 || !fds[1].revents || r < 0)
			continue;
		n = read(STDIN_FILENO, data, sizeof(data));
		if (n > 0)
			r = typed(k, data, (size_t)n);
		else if (n == 0 || errno != EINTR)
			fds[1].fd = -1;
	}
	return r;
}

int vm_run_console(struct command *c)
{
	struct sigaction action = { .sa_handler = on_signal };
	struct console k = { .command = c,
			     .name = c->words[0],
			     .read_only = command_flag(c, "read-only") };
	_cleanup_free_ char *path = client_path(
		"/vms/", c->words[0], k.read_only ? "/console?read_only=true" : "/console");
	struct termios before;
	int r;

	if (!command_client(c))
		return c->err.code;
	r = client_socket_open(c->client, path, &k.socket, &c->err);
	if (r < 0)
		return r;
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	signal(SIGPIPE, SIG_IGN);
	k.terminal = terminal_raw(&before);
	if (k.terminal)
		say("Ctrl-A h helps, Ctrl-A d leaves");
	r = console_loop(&k);
	if (k.terminal)
		terminal_restore(&before);
	client_socket_close(k.socket);
	if (r == -EPIPE) {
		/* the machine stopped, or the service: it is no failure of ours */
		fprintf(stderr, "%s\n", c->err.message);
		return CLI_OK;
	}
	return r < 0 ? r : CLI_OK;
}
