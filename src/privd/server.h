/* SPDX-License-Identifier: MIT */
/* partita-privd's socket: who may ask, packets in and out, the tables. Loop's thread. */
#pragma once

#include "privd/operation.h"

/* `listener` is taken over; `groups` ends with NULL and is borrowed, as `config` is. */
int privd_server_new(struct loop *loop, int listener, const struct privd_config *config,
		     const struct privd_group *const *groups, struct privd_server **ret,
		     struct error *err) _must_check_;
void privd_server_free(struct privd_server *s); /* NULL is fine */
/* A connected socket, taken over. Its owner is not asked for (tests and fuzzers). */
int privd_server_attach(struct privd_server *s, int fd, struct error *err) _must_check_;
/* The system calls that it needs itself. */
extern const struct sandbox privd_server_sandbox;
