/* SPDX-License-Identifier: MIT */
/*
 * A command of the control socket on its way: what the parts of a machine offer
 * to those who control it. Each part has a family, which is a table of commands and what they are
 * about. What comes in is judged whole before anything is done. Event loop's thread.
 */
#pragma once

#include "lib/error.h"
#include "lib/guid.h"
#include "lib/types.h"

#include <jansson.h>

#define COMMAND_ANSWER_FDS 4

/* Owned by who asks, and valid until `done` when that is to come. */
struct command {
	const json_t *request;
	json_t *answer; /* what the command has to say is added */
	int *fds;       /* that came with it; those that are taken become -1 */
	unsigned fd_count;
	/* Go along with the answer, and are its to close; dropped when the command fails. */
	int answer_fds[COMMAND_ANSWER_FDS];
	unsigned answer_fd_count;
	void (*done)(struct command *c, int result, const struct error *err);

	/* command_run's */
	void *context; /* the family's */
	void *state;   /* state_size bytes, zero at first; freed by who asked */
};

struct command_type {
	const char *name;
	const char *keys; /* that it knows, beside "command" and "id"; each between blanks */
	/* 0 = it is done, 1 = `done` will be called, never from in here; -errno with words. */
	int (*run)(struct command *c, struct error *err);
};

struct command_family {
	const struct command_type *types; /* ends with a name of NULL */
	void *context;
	size_t state_size; /* of what a command needs to remember; 0 = nothing */
	/* A command failed before `done` was to come: what it took goes. NULL = nothing to do. */
	void (*refused)(struct command *c);
};

/* NULL when there is none of that name; *ret_family is whose it is. */
const struct command_type *command_find(const struct command_family *families, unsigned count,
					const char *name, const struct command_family **ret_family);
/* As `run`, after the request's keys have been looked at. */
int command_run(const struct command_family *family, const struct command_type *type,
		struct command *c, struct error *err) _must_check_;
/* Names of all, for a message: "a, b, c". Malloc'ed. */
char *command_names(const struct command_family *families, unsigned count);

/* What a request says. The errors name the key. */
int take_number(const json_t *o, const char *key, uint64_t least, uint64_t most, uint64_t *ret,
		struct error *err) _must_check_;
/* The same, with what it is when it is not there. */
int take_number_or(const json_t *o, const char *key, uint64_t otherwise, uint64_t most,
		   uint64_t *ret, struct error *err) _must_check_;
int take_bool_or(const json_t *o, const char *key, bool otherwise, bool *ret,
		 struct error *err) _must_check_;
/* Borrowed; without a zero byte in it. NULL when it is not there and not needed. */
int take_text(const json_t *o, const char *key, bool needed, const char **ret,
	      struct error *err) _must_check_;
/* The same, an absolute path. */
int take_path(const json_t *o, const char *key, bool needed, const char **ret,
	      struct error *err) _must_check_;
int take_guid(const json_t *o, const char *key, struct guid *ret, struct error *err) _must_check_;
/* A descriptor that came with the request, by its place among them; the taker's. -1: none. */
int take_fd(struct command *c, const json_t *o, const char *key, bool needed, int *ret,
	    struct error *err) _must_check_;
