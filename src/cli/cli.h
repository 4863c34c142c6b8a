/* SPDX-License-Identifier: MIT */
/* Shared by the verbs of the command line. */
#pragma once

#include "lib/error.h"
#include "lib/types.h"

enum cli_exit {
	CLI_OK = 0,
	CLI_FAILED = 1,
	CLI_USAGE = 2,
};

/* One row of the table of verbs: `main` gets argv from the verb's own name on. */
struct cli_verb {
	const char *name, *summary;
	int (*main)(int argc, char **argv);
};

int cli_run(int argc, char **argv);
int cli_disk(int argc, char **argv);
int cli_engines(int argc, char **argv);

/* "partita VERB: message" on standard error; returns CLI_FAILED. */
int cli_fail(const char *verb, const struct error *err);
/* Bytes from "512", "20G", "1.5T" (binary units); -EINVAL with words. */
int cli_parse_size(const char *text, uint64_t *ret, struct error *err) _must_check_;

/* relay.c: a terminal (or pipes) in front of a guest's console. */
struct relay {
	int console; /* connected socket */
	int control; /* the worker's control socket */
	int pid;     /* the worker */
};
/* Until the worker ends; its wait status. Puts a terminal in raw mode meanwhile. */
int relay_run(const struct relay *relay);
