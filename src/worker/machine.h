/* SPDX-License-Identifier: MIT */
/*
 * The machine: one VM with its memory, partition, bus and devices, and the life that it leads. All
 * functions run on the event loop's thread unless marked [any].
 */
#pragma once

#include "event/loop.h"
#include "partition/partition.h"
#include "vmbus/vmbus.h"

#include <jansson.h>

struct command_family;
struct live;
struct machine;
struct vm_description;

enum machine_state {
	MACHINE_STARTING,
	MACHINE_RUNNING,
	MACHINE_PAUSING,
	MACHINE_PAUSED,
	MACHINE_RESETTING,
	MACHINE_SAVING,
	MACHINE_STOPPING,
	MACHINE_OFF,
};
const char *machine_state_name(enum machine_state state);

enum machine_command {
	MACHINE_PAUSE,
	MACHINE_RESUME,
	MACHINE_RESET,
	MACHINE_POWER_OFF,
};

/* Why the machine ended, for the exit status and for people. */
enum machine_end {
	MACHINE_END_POWER_OFF, /* by the guest or by command */
	MACHINE_END_RESET,     /* the guest rebooted and the description says "stop" */
	MACHINE_END_SAVED,     /* its state is in the file that machine_save was given */
	MACHINE_END_TEST_EXIT, /* the test device; machine_exit_status has its value */
	MACHINE_END_ERROR,
};

/*
 * Builds everything and leaves the VPs waiting. Files are opened here, or were passed as
 * descriptors; `description` is borrowed for the machine's life.
 */
int machine_new(struct loop *loop, const struct vm_description *description, struct machine **ret,
		struct error *err) _must_check_;
/* Only in state OFF, or when it was never started. NULL is fine. */
void machine_free(struct machine *m);
/*
 * Loads the kernel and lets the VPs run. Or, when the description names a saved state, begins to
 * read that; then it runs later, or waits in state PAUSED when the description says so, or ends.
 */
int machine_start(struct machine *m, struct error *err) _must_check_;

enum machine_state machine_state(const struct machine *m);
/* -EINVAL with the present state and what is allowed in it. What is begun ends by itself. */
int machine_command(struct machine *m, enum machine_command command, struct error *err);
/*
 * Saves it: from RUNNING or PAUSED to SAVING, and then, when state and disks are safe, to OFF. If
 * that fails it is again what it was. `done` is called once with how it went, unless this failed;
 * on success just before OFF. The descriptor is taken when this succeeds.
 */
struct machine_save {
	int fd;
	void (*done)(void *context, int result, const struct error *err);
	void *context;
};
int machine_save(struct machine *m, const struct machine_save *save,
		 struct error *err) _must_check_;
int machine_save_cancel(struct machine *m, struct error *err);
/* Called after each change of state; the loop is stopped at OFF. */
void machine_on_state(struct machine *m, void (*fn)(void *context, enum machine_state state),
		      void *context);
/* What those who control it are told, as JSON; `may_miss`: not to those who are slow. One listener.
 */
void machine_on_event(struct machine *m, void (*fn)(void *context, json_t *event, bool may_miss),
		      void *context);
void machine_tell(struct machine *m, json_t *event, bool may_miss); /* takes the event */
#define MACHINE_FAMILIES_MAX 16
/* The commands of its parts (control/command.h). */
const struct command_family *machine_families(const struct machine *m, unsigned *ret_count);
enum machine_end machine_end(const struct machine *m, int *ret_exit_status);

/* [any] What a VP found; the machine acts on it from the loop. The calling VP goes on to its gate.
 */
enum machine_request {
	REQUEST_RESET = BIT(0),
	REQUEST_POWER_OFF = BIT(1),
	REQUEST_TEST_EXIT = BIT(2),
	REQUEST_FAILED = BIT(3),
};
void machine_request(struct machine *m, enum machine_request request);
void machine_fail(struct machine *m, const struct error *err); /* [any] */
void machine_test_exit(struct machine *m, int status);         /* [any] */

const struct error *machine_failure(const struct machine *m); /* after MACHINE_END_ERROR */
uint64_t machine_exits(const struct machine *m);              /* exits to this process so far */
struct partition *machine_partition(struct machine *m);
struct vmbus *machine_bus(struct machine *m);
