/* SPDX-License-Identifier: MIT */
/*
 * Ways into the service: protocols that speak to clients and call what is in daemon.h. The program
 * is linked with a list of them; main.c begins each and ends it, and knows no more.
 */
#pragma once

#include "daemon/daemon.h"

struct door_options {
	const char *socket;       /* path of the Unix socket */
	const char *state_folder; /* for keys and certificates */
};

struct door {
	const char *name;
	int (*begin)(struct daemon *d, const struct door_options *o, void **ret,
		     struct error *err) _must_check_;
	void (*end)(void *door);
};

extern const struct door *const doors[]; /* ended by NULL */
