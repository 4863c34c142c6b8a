/* SPDX-License-Identifier: MIT */
/*
 * How a host's memory is shared among machines: a pure function of figures, called again and again.
 * All amounts are MiB.
 *
 * What a machine needs is what its guest says, and its buffer on top. While there is enough each
 * has that; what is more than that is taken back slowly, and only when it lasts. When there is not
 * enough nobody is taken what it uses: what is left is shared by weight among those who want more.
 */
#pragma once

#include "lib/types.h"

struct balance_vm {
	/* Settings; a machine whose memory does not change has minimum == maximum. */
	uint64_t minimum, maximum;
	unsigned buffer; /* percent of what it needs */
	unsigned weight; /* 0 to 100 */
	/* Its state. */
	uint64_t assigned;
	bool known;          /* its guest says what it needs; else it keeps what it has */
	uint64_t demand;     /* what that is */
	uint64_t rise;       /* by which it has just become more */
	bool grows, shrinks; /* whether the guest can */
	/* The caller keeps these from one time to the next; at first 0 and what it has. */
	unsigned idle; /* times that it had far more than it needs */
	uint64_t target;
};

struct balance_host {
	uint64_t available; /* that could be taken now */
	uint64_t reserve;   /* that must stay so */
	uint64_t promised;  /* assigned to machines, and not taken yet */
	bool pressed;       /* the host already waits for memory: nobody gets more */
	bool early; /* sooner than usual after the last time: it tells nothing of idleness */
};

struct balance_result {
	uint64_t budget; /* what machines may have in all */
	uint64_t wanted; /* what they would have if there were enough */
	bool short_of;   /* there is not */
};

/* Sets the targets. */
struct balance_result balance(const struct balance_host *host, struct balance_vm *vms,
			      unsigned count);

/* What it is to have beyond its demand: its buffer, and never very little. */
uint64_t balance_headroom(const struct balance_vm *vm);
/* What could be taken from a machine if another needed it. */
uint64_t balance_spare(const struct balance_vm *vm);

enum balance_status {
	BALANCE_OK,      /* it has what it needs, and its buffer */
	BALANCE_LOW,     /* less than half of its buffer */
	BALANCE_WARNING, /* less than it needs */
	BALANCE_UNKNOWN, /* its guest does not say */
};
extern const char *const balance_status_names[];
enum balance_status balance_status(const struct balance_vm *vm);
