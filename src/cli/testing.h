/* SPDX-License-Identifier: MIT */
/* For tests: a service that gives recorded answers, and what a command prints. */
#pragma once

#include "lib/types.h"

struct exchange {
	const char *request; /* its first line without the version: "GET /api/v1/vms" */
	const char *body;    /* text that the body must have; NULL: not looked at */
	int status;
	const char *header; /* one more, or NULL */
	const char *answer; /* NULL: none */
	/* Bytes after the answer of an upgrade; the connection stays open until the client ends. */
	const char *more;
	size_t more_size;
	bool ends; /* and the service says nothing more after them */
};

struct recorded;

/* Serves the exchanges in their order, each on a connection of its own. */
struct recorded *recorded_new(const struct exchange *exchanges, unsigned count);
/* "unix:PATH". */
const char *recorded_place(const struct recorded *r);
/* Whether all were asked for, just so; what was wrong is printed. Frees it. */
bool recorded_end(struct recorded *r);
/* What the client sent after an upgrade; the caller's. */
size_t recorded_sent(struct recorded *r, uint8_t *data, size_t room);

/* Runs `partita WORDS...` (ends with NULL) and catches what it prints, to be freed. The status. */
int partita_run(char **out, char **errors, const char *noun, ...);
