/* SPDX-License-Identifier: MIT */
/* Shared by the verbs of the command line. */
#pragma once

#include "lib/error.h"
#include "lib/types.h"

#include <getopt.h>

/* The same for all verbs; partita(1) has them as a table. */
enum cli_exit {
	CLI_OK = 0,
	CLI_FAILED = 1,
	CLI_USAGE = 2,     /* wrong usage, or a value that the service refuses */
	CLI_NOT_FOUND = 3, /* there is no such thing */
	CLI_DENIED = 4,    /* one may not */
	CLI_STATE = 5,     /* not in this state: running, busy, changed meanwhile, not unique */
	CLI_AWAY = 6,      /* the service cannot be reached */
	CLI_TIMEOUT = 7,
	CLI_NO_ROOM = 8, /* memory, or room on a disk */
	CLI_CANCELLED = 9,
};

/* A verb that does without the service; `main` gets argv from its own name on. */
struct cli_verb {
	const char *name, *summary;
	int (*main)(int argc, char **argv);
	/* for completion: its options, and the words that may come first, ending with NULL */
	const struct option *options;
	const char *const *words;
};
extern const struct cli_verb cli_verbs[];
extern const unsigned cli_verb_count;
extern const struct option run_options[], disk_options[], save_options[];
extern const char *const disk_words[], *const completion_words[];

int cli_run(int argc, char **argv);
int cli_disk(int argc, char **argv);
int cli_save(int argc, char **argv);
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
