/* SPDX-License-Identifier: MIT */
/*
 * A running machine becomes what a description says (vm_describe.h): its worker is asked what is
 * there, what differs is done in small steps, each judged by what the worker says then. So the same
 * takes a change back, and brings a worker in line that an earlier service left half changed. Event
 * loop's thread.
 */
#pragma once

#include "daemon/vm.h"

#include <jansson.h>

#define HOT_FDS 32

struct hot_view {
	const struct vm *vm;
	const char *folder;    /* of the machine */
	const json_t *wanted;  /* the part of the description */
	const json_t *answers; /* of the worker, to all that was asked */
	bool force;            /* also what the guest holds */
};

struct hot_step {
	struct worker *target; /* who is asked; NULL: the machine's worker */
	json_t *request;
	int fds[HOT_FDS]; /* go along */
	unsigned fd_count;
	bool wants_fds; /* that come with the answer */
	/*
	 * Once, when it was answered; or with NULL, when it was not or nobody wants it any more.
	 * Descriptors that it does not take (-1) are closed. NULL is fine.
	 */
	void (*took)(void *context, const json_t *answer, int *fds, unsigned fd_count);
	void *context;
};

/* A part of a machine that can change while it runs. */
struct hot_part {
	const char *key; /* of the description */
	/* What to ask next, a new reference, after these answers; NULL: all is known. */
	json_t *(*query)(const json_t *answers);
	/* 1 and the next step; 0: it is as wanted; negative with words. */
	int (*next)(const struct hot_view *view, struct hot_step *ret, struct error *err);
};
extern const struct hot_part hot_disks, hot_adapters, hot_ports;

/* Whether a worker with the one description (vm_describe_parts) has to change for the other. */
bool hot_differs(const json_t *description, const json_t *other);

struct hot;
struct hot_options {
	struct vm *vm; /* runs */
	json_t *wanted;
	bool force;
	/* Once, never from inside hot_begin. `steps`: how many were done. */
	void (*done)(void *context, int result, unsigned steps, const struct error *err);
	void *context;
};
int hot_begin(const struct hot_options *options, struct hot **ret, struct error *err) _must_check_;
/* No further step is begun; it ends with -ECANCELED. */
void hot_cancel(struct hot *h);
/* The machine or the service goes: nothing is called any more. NULL is fine. */
void hot_free(struct hot *h);
