/* SPDX-License-Identifier: MIT */
/*
 * Where a serial port's bytes go: a descriptor that was passed, a Unix socket that several clients
 * connect to, or a pseudo-terminal. Output comes from VP threads and is written by the loop; what
 * nobody takes is kept up to a limit. What comes then is dropped; for a socket the oldest is.
 */
#pragma once

#include "event/loop.h"

struct console;

#define CONSOLE_VIEWERS 8 /* clients of a socket; all get all output, input is taken from any */

enum console_kind {
	CONSOLE_NONE,
	CONSOLE_DESCRIPTOR,
	CONSOLE_SOCKET,
	CONSOLE_PTY,
};

struct console_options {
	enum console_kind kind;
	int descriptor;   /* of DESCRIPTOR, or of SOCKET: listens; the console's from here on */
	const char *path; /* of SOCKET, without a descriptor: made; of PTY: a symbolic link to it,
			     may be NULL */
	size_t history;   /* of SOCKET: bytes that a client gets although others have had them */
	/* Input; returns how many bytes were taken, the rest is offered again by console_resume. */
	size_t (*input)(void *context, const uint8_t *data, size_t size);
	void *context;
};

int console_new(struct loop *loop, const struct console_options *options, struct console **ret,
		struct error *err) _must_check_;
/* Waits up to 5 s for a reader to take the rest; not on a pseudo-terminal. NULL is fine. */
void console_free(struct console *c);
void console_output(struct console *c, const uint8_t *data, size_t size); /* any thread */
void console_resume(struct console *c); /* any thread: the port takes input again */
