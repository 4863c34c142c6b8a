// SPDX-License-Identifier: MIT
/*
 * Between a person's terminal and a guest's serial console: bytes go through as they are, except
 * after the escape key Ctrl-A. Works with pipes too (then there is no escape key).
 */
#include "cli/cli.h"
#include "cli/terminal.h"

#include "lib/cleanup.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>

static const char help[] = "\r\nCtrl-A then: x power off, r reset, p pause, c continue, "
			   "Ctrl-A a Ctrl-A for the guest, h this help\r\n";

static volatile sig_atomic_t worker_pid;

static void forward_signal(int signo)
{
	(void)signo;
	if (worker_pid > 0)
		kill(worker_pid, SIGTERM);
}

static void send_command(const struct relay *relay, const char *command)
{
	char line[64];
	int n = snprintf(line, sizeof(line), "{\"command\":\"%s\"}\n", command);

	write_all(relay->control, line, (size_t)n);
}

static void escape_key(const struct relay *relay, uint8_t key)
{
	static const struct {
		uint8_t key;
		const char *command;
	} keys[] = {
		{ 'x', "power-off" },
		{ 'r', "reset" },
		{ 'p', "pause" },
		{ 'c', "resume" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		if (keys[i].key == key)
			send_command(relay, keys[i].command);
	if (key == ESCAPE_KEY)
		write_all(relay->console, &key, 1);
	if (key == 'h' || key == '?')
		write_all(STDOUT_FILENO, help, sizeof(help) - 1);
}

/* Typed bytes; `*escaped` lives from call to call. */
static void typed(const struct relay *relay, const uint8_t *data, size_t size, bool terminal,
		  bool *escaped)
{
	for (size_t i = 0; i < size; i++) {
		if (*escaped)
			escape_key(relay, data[i]);
		else if (!terminal || data[i] != ESCAPE_KEY)
			write_all(relay->console, &data[i], 1);
		*escaped = !*escaped && terminal && data[i] == ESCAPE_KEY;
	}
}

/* false when the other side is gone. */
static bool copy_output(int from, int to)
{
	uint8_t buffer[4096];
	ssize_t n = read(from, buffer, sizeof(buffer));

	if (n > 0 && to >= 0)
		write_all(to, buffer, (size_t)n);
	return n > 0 || (n < 0 && (errno == EINTR || errno == EAGAIN));
}

static void relay_loop(const struct relay *relay, bool terminal)
{
	struct pollfd fds[3] = {
		{ .fd = relay->console, .events = POLLIN },
		{ .fd = relay->control, .events = POLLIN },
		{ .fd = STDIN_FILENO, .events = POLLIN },
	};
	bool escaped = false;

	while (fds[0].fd >= 0 || fds[1].fd >= 0) {
		uint8_t buffer[256];
		ssize_t n;

		if (poll(fds, ARRAY_SIZE(fds), -1) < 0 && errno != EINTR)
			return;
		if (fds[0].fd >= 0 && fds[0].revents && !copy_output(fds[0].fd, STDOUT_FILENO))
			fds[0].fd = -1;
		if (fds[1].fd >= 0 && fds[1].revents && !copy_output(fds[1].fd, -1))
			fds[1].fd = -1;
		if (fds[2].fd < 0 || !fds[2].revents)
			continue;
		n = read(STDIN_FILENO, buffer, sizeof(buffer));
		if (n > 0)
			typed(relay, buffer, (size_t)n, terminal, &escaped);
		else if (n == 0 || errno != EINTR)
			fds[2].fd = -1;
	}
}

int relay_run(const struct relay *relay)
{
	struct sigaction action = { .sa_handler = forward_signal };
	struct termios before;
	bool terminal;
	int status = 0;

	worker_pid = relay->pid;
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	signal(SIGPIPE, SIG_IGN);
	terminal = terminal_raw(&before);
	relay_loop(relay, terminal);
	while (waitpid(relay->pid, &status, 0) < 0 && errno == EINTR)
		;
	if (terminal)
		terminal_restore(&before);
	return status;
}
