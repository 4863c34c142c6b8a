/* SPDX-License-Identifier: MIT */
/*
 * The memory of machines that run: what their workers say of it, and the balancer that moves it
 * between them (balance.h). Loop's thread.
 */
#pragma once

#include "daemon/balance.h"
#include "daemon/supervisor.h"
#include "daemon/vm.h"

/* What a machine's worker has said; in MiB. */
struct memory_facts {
	bool said;                /* anything */
	bool driver, gives, adds; /* the guest has the driver, and what it can */
	bool known;               /* the guest says what it needs: */
	uint64_t demand, available;
	uint64_t rise; /* of demand, since the last round */
	uint64_t startup, assigned, resident, maximum;
	uint64_t asked; /* the target that it was given last */
	unsigned idle;
	bool refused; /* that was told */
	bool asking;
	struct worker_request request;
};

/* All amounts in MiB. Assigned: what it has; what it starts with, before its worker says. */
uint64_t vm_memory_assigned(const struct vm *vm);
/* Of that, what it has not taken from the host. */
uint64_t vm_memory_untouched(const struct vm *vm);
/* What can be taken from it for another. */
uint64_t vm_memory_spare(const struct vm *vm);
/* Adds what doors show of it. */
void vm_memory_status(const struct vm *vm, json_t *status);

/* Whether a machine that runs can follow these settings. -EBADFD with words and property. */
int vm_memory_check(const struct vm *vm, const struct vm_settings *s,
		    struct error *err) _must_check_;
void vm_memory_follow(struct vm *vm); /* its settings are new, or it starts */
void vm_memory_running(struct vm *vm);
void vm_memory_gone(struct vm *vm); /* its worker is */
/* An event of its worker (partita-worker(1)). */
void vm_memory_event(struct vm *vm, const json_t *event);

void memory_begin(struct daemon *d);
void memory_end(struct daemon *d);
/* For tests: where figures of the host come from. */
void memory_facts_from(struct daemon *d, void (*fn)(struct balance_host *ret));
