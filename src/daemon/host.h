/* SPDX-License-Identifier: MIT */
/*
 * The host: its settings (host.schema.json, kept in the database), and facts and figures about it.
 * All on the loop's thread; who may do it is checked here.
 */
#pragma once

#include "daemon/daemon.h"

/*
 * Facts, figures, capabilities and settings as the doors show them; new reference. -EACCES
 * without OP_VIEW_HOST.
 */
int host_json(struct daemon *d, const struct caller *c, json_t **ret,
	      struct error *err) _must_check_;
/* A merge patch (RFC 7396) of the settings; `revision` nonzero: -ESTALE unless it is still that. */
int host_change(struct daemon *d, const struct caller *c, json_t *patch, uint64_t revision,
		struct error *err) _must_check_;

/* What can be done here, for clients that must know before they try; ended by NULL. */
extern const char *const host_capabilities[];

/* In MiB. */
struct host_memory {
	uint64_t total, available;
};
/* 0 or -errno. A cgroup's limit on us counts as less memory. */
int host_memory_read(struct host_memory *ret);
uint64_t host_memory_total(void); /* MiB; very much when it is not known */

/* What is known when a machine is to be started; memory in MiB. */
struct admission {
	struct host_memory host;
	uint64_t reserve;   /* left to the host */
	uint64_t need;      /* by the machine that is to start */
	uint64_t assigned;  /* to machines that run */
	uint64_t untouched; /* of that, what they have not taken yet */
	uint64_t spare;     /* of that, what the balancer can take back */
	unsigned running;
	unsigned cpus;         /* of the host */
	uint64_t cpu_reserved; /* percent of one processor, by machines that run */
	uint64_t cpu_need;
};
/* Pure. -ENOMEM, or -EBUSY for processors, with all figures in the words. */
int admission_check(const struct admission *a, struct error *err) _must_check_;

/* Private to daemon.c. */
int host_new(struct daemon *d, struct error *err) _must_check_;
void host_free(struct daemon *d);
