/* SPDX-License-Identifier: MIT */
/*
 * The other half of partita-privd: a process that starts keepers and asks PAM. What it starts would
 * inherit a filter, so it has none that is narrow; but it reads nothing of a client, only requests
 * of a fixed size that the first half has made of what it judged.
 */
#pragma once

#include "privd/operation.h"

#include <stdint.h>

#define HANDS_USER_MAX     64
#define HANDS_PASSWORD_MAX 512
#define HANDS_ADDRESS_MAX  64

enum hands_kind {
	HANDS_MORE,     /* descriptors for the next request */
	HANDS_KEEPER,   /* descriptors: cgroup.procs if `procs`, then the keeper's */
	HANDS_PASSWORD, /* no descriptors */
};

struct hands_request {
	enum hands_kind kind;
	uint64_t serial;
	uid_t uid; /* HANDS_KEEPER */
	bool procs;
	char user[HANDS_USER_MAX]; /* HANDS_PASSWORD */
	char password[HANDS_PASSWORD_MAX];
	char address[HANDS_ADDRESS_MAX];
};

/* With a pidfd for HANDS_KEEPER. */
struct hands_answer {
	uint64_t serial;
	int result;
	char words[400];
};

/* Serves until the other side of `socket` is gone. The program's exit status. */
int hands_run(const struct privd_config *config, int socket);
/* What it needs of root. */
uint64_t hands_capabilities(void);

/* machine.c: sends a request for `c`, which ends with the answer. PRIVD_LATER or negative. */
int hands_ask(struct privd_call *c, struct hands_request *request, const int *fds,
	      unsigned fd_count, struct error *err) _must_check_;
