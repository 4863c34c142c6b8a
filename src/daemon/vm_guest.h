/* SPDX-License-Identifier: MIT */
/*
 * What goes on between a machine that runs and its guest: what the guest says of itself (kept from
 * its worker's events), and what it is asked on behalf of callers. Loop's thread.
 */
#pragma once

#include "daemon/job.h"
#include "daemon/supervisor.h"
#include "daemon/vm.h"

/* --- for vm_*.c --- */

void vm_guest_init(struct vm *vm);
void vm_guest_forget(struct vm *vm); /* the worker is gone */
void vm_guest_let_go(struct vm *vm); /* the service ends; the worker goes on */
void vm_guest_learn(struct vm *vm);  /* of a worker that was taken over: asks what is known */
void vm_guest_event(struct vm *vm, json_t *event);
/* Services that differ are switched in the running machine; it says later when that failed. */
void vm_guest_services(struct vm *vm, const struct vm_integration_services *now);
/* As a machine's status has it: heartbeat, application, known, facts, addresses. */
json_t *vm_guest_json(const struct vm *vm);
/*
 * All addresses that are known of the guest, without repetition: those that it says itself. What a
 * switch has learned is to be added here.
 */
json_t *vm_guest_addresses(const struct vm *vm);

/* --- for doors; OP_GUEST_SERVICE --- */

struct guest_ask;

/*
 * A command of partita-worker(1) about the guest; `request` is borrowed. `done` comes once, from
 * the loop, unless guest_ask_leave is called before. `what` is told in an event when it is not
 * NULL.
 */
struct guest_question {
	json_t *request;
	const char *what;
	void (*done)(void *context, int result, json_t *answer, const struct error *err);
	void *context;
};
int vm_guest_ask(struct daemon *d, const struct caller *c, struct vm *vm,
		 const struct guest_question *q, struct guest_ask **ret,
		 struct error *err) _must_check_;
void guest_ask_leave(struct guest_ask *a);

struct guest_copy {
	const char *source; /* a file of the host's, in the machine's folder unless administrator */
	const char *path;   /* in the guest */
	bool overwrite, create_path;
};
/* It goes on as the job *ret, which can be cancelled. */
int vm_guest_copy(struct daemon *d, const struct caller *c, struct vm *vm,
		  const struct guest_copy *copy, struct job **ret, struct error *err) _must_check_;
