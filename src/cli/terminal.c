// SPDX-License-Identifier: MIT
/* See terminal.h. */
#include "cli/terminal.h"

#include <errno.h>
#include <unistd.h>

bool terminal_raw(struct termios *before)
{
	struct termios raw;

	if (!isatty(STDIN_FILENO) || tcgetattr(STDIN_FILENO, before) < 0)
		return false;
	raw = *before;
	cfmakeraw(&raw);
	tcsetattr(STDIN_FILENO, TCSANOW, &raw);
	return true;
}

void terminal_restore(const struct termios *before)
{
	tcsetattr(STDIN_FILENO, TCSANOW, before);
}

void write_all(int fd, const void *data, size_t size)
{
	const uint8_t *p = data;

	while (size) {
		ssize_t n = write(fd, p, size);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return;
		p += n;
		size -= (size_t)n;
	}
}
