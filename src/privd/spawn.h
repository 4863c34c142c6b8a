/* SPDX-License-Identifier: MIT */
/*
 * Starting a keeper (partita-keeper(8)) with a worker's descriptors: what partita-privd does for
 * the host's service, and a user's own service itself.
 */
#pragma once

#include "lib/error.h"

#include <stdbool.h>
#include <sys/types.h>

/* How descriptors are numbered in a keeper: its run folder, its lock, then the worker's. */
#define KEEPER_RUN_FD   3
#define KEEPER_FIRST_FD 5

/* Users of workers: far from people's and from containers' usual ranges. */
#define WORKER_UID_FIRST 2000000
#define WORKER_UID_COUNT 65536

struct keeper_start {
	const char *keeper, *worker; /* programs */
	long uid, gid, group;        /* -1 = as we are; `group` is the one further */
	bool namespaces;
	const int *fds; /* from KEEPER_RUN_FD on; they stay the caller's */
	unsigned fd_count;
	int procs; /* cgroup.procs that it joins by writing; -1 = none */
};

/* A pidfd of the keeper; SIGCHLD must not be ignored. Blocks until it is executed. */
int keeper_start(const struct keeper_start *k, struct error *err) _must_check_;
