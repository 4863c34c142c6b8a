// SPDX-License-Identifier: MIT
/* See log.h. A line is composed first and written with one call, so that threads do not mix. */
#include "lib/log.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LINE_MAX_SIZE 1024

static const char *log_program = "?", *log_instance;

void log_init(const char *program, const char *instance)
{
	log_program = program;
	log_instance = instance;
}

void log_line(const char *format, ...)
{
	char line[LINE_MAX_SIZE];
	int head = snprintf(line, sizeof(line) / 2, "%s%s%s: ", log_program,
			    log_instance ? " " : "", log_instance ? log_instance : "");
	size_t n = MIN((size_t)MAX(head, 0), sizeof(line) / 2 - 1);
	va_list ap;
	ssize_t written;

	va_start(ap, format);
	vsnprintf(line + n, sizeof(line) - n - 1, format, ap);
	va_end(ap);
	n = strlen(line);
	line[n++] = '\n';
	written = write(STDERR_FILENO, line, n);
	(void)written; /* there is no other place to complain to */
}

bool log_allowed(struct log_limit *limit, unsigned *ret_dropped)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	if ((uint64_t)now.tv_sec != limit->window) {
		limit->window = (uint64_t)now.tv_sec;
		limit->count = 0;
	}
	if (limit->count == LOG_LIMIT_PER_SECOND) {
		limit->dropped++;
		return false;
	}
	limit->count++;
	*ret_dropped = limit->dropped;
	limit->dropped = 0;
	return true;
}
