/* SPDX-License-Identifier: MIT */
/* What vm.c, its siblings vm_*.c, daemon.c and host.c share of a machine; nobody else. */
#pragma once

#include "daemon/host.h"
#include "daemon/vm.h"
#include "daemon/vm_memory.h"
#include "daemon/vm_registry.h"
#include "daemon/words.h"

enum vm_timer {
	VM_TIMER_NONE,
	VM_TIMER_STOP,    /* a worker that does not end is killed */
	VM_TIMER_RESTART, /* after a failure */
	VM_TIMER_STORAGE, /* a machine that waits for its storage is turned off */
	VM_TIMER_GUEST,   /* each second while a guest that was asked has not done it */
};

/* vm_guest.c's: what the guest says of itself, and what it is asked. */
struct vm_guest {
	char heartbeat[16], application[16];
	bool known; /* its daemon answers */
	json_t *facts;
	struct job *copy; /* of a file, under way */
	bool copy_cancelled;
	struct list asked;
	unsigned asks;
};

struct vm_entry {
	struct vm vm;
	struct vm_entry *hash_next;
	enum vm_state before; /* the action under way; what a refusal goes back to */
	bool job_stops;       /* vm.job is one that ends at off */
	bool stop_again;      /* the worker refused to power off in the state it is in */
	bool asking;
	bool was_running;   /* when the last service, or the host, went down */
	bool auto_starting; /* counted as such by vm_auto.c */
	bool restoring;     /* its worker reads the saved state, and waits for us then */
	bool saved_told;    /* the worker has answered that its state is safe */
	bool cancelling;    /* the save under way */
	struct worker_request cancel;
	struct worker_request request;
	struct loop_timer timer;
	enum vm_timer timer_use;
	struct vm_hot_change *hot; /* a change of the running worker, under way */
	bool settle_again;         /* when that has ended */
	struct loop_task settle;
	unsigned failures; /* one after another */
	char storage[256]; /* what was wrong with it, the last time */
	struct memory_facts memory;
	/* The guest was asked to shut down or to restart. */
	struct {
		bool active, restart, turn_off;
		bool left; /* the guest has begun to restart */
		unsigned timeout_s, passed_s;
	} shut;
	struct vm_guest guest;
	/* For cpu_percent: what it was then, and since. */
	uint64_t sample_ns, sample_cpu_us;
	double cpu_percent;
};

struct vm_index {
	struct daemon *daemon;
	struct vm_entry **buckets;
	unsigned bucket_count; /* a power of two */
	uint64_t revision;     /* that was given last */
	bool new_boot;         /* the host has restarted since the last service */
	struct vm_starts *starts;
	bool shutting_down;
	struct undone *undone; /* rows of machines that were not made */
	bool never_settled;
	bool unsettled; /* rows of machines that are there say that they are about to be */
	struct loop_timer settle;
	struct loop_timer sample;  /* of metering */
	struct loop_timer balance; /* of memory, vm_memory.c; ns of its last rounds: */
	uint64_t balanced, balanced_any;
	bool memory_short;
	void (*memory_facts)(struct balance_host *ret);
	struct loop_timer deadline, save_deadline;
	struct loop_task all_off;
	void (*down)(void *context);
	void *down_context;
};

#define entry_of(vm_) container_of(vm_, struct vm_entry, vm)

/* --- vm_list.c --- */
int index_new(struct daemon *d, struct error *err) _must_check_;
void index_free(struct daemon *d); /* with all machines */
void settle_later(struct daemon *d);
/* The row of a machine that was not made cannot be removed now; and: all such rows. */
void undone_add(struct daemon *d, const char *id);
int undone_forget(struct daemon *d, struct error *err) _must_check_;
uint64_t revision_next(struct daemon *d);
struct vm *vm_find(struct daemon *d, const char *id); /* exact, lower case */
/* Makes it with empty settings, on no list; NULL: no memory. */
struct vm *vm_new(struct daemon *d, const char *id, const char *folder);
void vm_free(struct vm *vm);
void vm_link(struct vm *vm);
void vm_unlink(struct vm *vm);
/* The settings become the machine's (and are zeroed); it moves to its place in the list. */
void vm_settings_take(struct vm *vm, struct vm_settings *s);
bool name_matches(const char *pattern, const char *name);

/* --- vm.c --- */
int vms_load(struct daemon *d, struct error *err) _must_check_;
/* Reads the folder again; what is wrong is vm->broken. */
void vm_read(struct vm *vm);
int caller_check(struct daemon *d, const struct caller *c, enum operation op, const struct vm *vm,
		 struct error *err) _must_check_;
/* Rules that need to know the host and the other machines; `old` NULL: a new one. */
int vm_check_here(struct daemon *d, const struct caller *c, const char *folder,
		  const struct vm_settings *s, const struct vm *old,
		  struct error *err) _must_check_;
/* No "..", no ".", no "//": what it looks like is where it leads, but for links. */
bool path_plain(const char *path);
char *machine_folder(const struct daemon *d); /* where new ones are made; to be freed */

/* --- vm_act.c --- */
/* Takes over what runs. */
void vms_adopt(struct daemon *d);
void vm_state_set(struct vm *vm, enum vm_state state, const char *words);
void vm_let_go(struct vm *vm); /* of its worker and timers: the service ends */
int vm_limits_apply(struct vm *vm, const struct vm_settings *s, struct error *err) _must_check_;
void vm_power_off(struct vm *vm); /* of the service's own accord, without a job */
void vm_timer_clear(struct vm *vm);
void vm_timer_set(struct vm *vm, enum vm_timer use, unsigned seconds);
void vm_act_init(struct vm *vm);
/* In the registry: whether it is to run, and why it is critical. */
void vm_remember(struct vm *vm, bool running, const char *critical);
/* What the registry had when it was loaded. */
void vm_recall(struct vm *vm, const struct registry_row *row);
/* Its saved state, as it was found: what it says of the machine while no worker runs. */
void vm_saved_find(struct vm *vm);
/* When the host ends: 0, or why not. */
int vm_save_for_host(struct vm *vm, struct error *err) _must_check_;

/* --- vm_adapters.c --- */
/* Ids and addresses that are not set are chosen. */
int vm_adapters_fill(struct daemon *d, struct vm_settings *s, struct error *err) _must_check_;
void vm_adapters_conflicts(struct vm *vm); /* tells of addresses that others have too */

/* --- vm_things.c --- */
/* Switches and pools that `s` names and `old` (NULL: none) did not must be there: -EINVAL. */
int vm_things_check(struct daemon *d, const struct vm_settings *s, const struct vm_settings *old,
		    struct error *err) _must_check_;

/* --- vm_storage.c --- */
void vm_storage_event(struct vm *vm, const json_t *event); /* a worker's */
void vm_storage_wait(struct vm *vm);                       /* it is paused for that */
void vm_storage_give_up(struct vm *vm);                    /* its time has passed */

/* --- vm_change.c --- */
/* Makes the worker, which was taken over, what the settings say. */
void vm_hot_settle(struct vm *vm, bool tell); /* tell: of what was not so */
/* The worker has gone: a change under way fails with these words. NULL: the service ends. */
void vm_hot_end(struct vm *vm, const char *words);

/* --- vm_auto.c --- */
void vm_stop_unsaved(struct vm *vm, const char *words); /* the host ends, and it cannot be saved */
void starts_begin(struct daemon *d);
void starts_free(struct daemon *d);
void down_free(struct daemon *d);  /* a shutdown under way is not waited for any more */
void vm_auto_state(struct vm *vm); /* its state has changed */

/* --- vm_meter.c --- */
int meter_begin(struct daemon *d, struct error *err) _must_check_;
void meter_end(struct daemon *d);
void vm_meter_follow(struct vm *vm); /* its settings are new */
void vm_meter_sample(struct vm *vm);

/* --- host.c --- */
char *host_boot_id(void); /* to be freed; NULL: not known */
void host_admission(const struct daemon *d, const struct vm *vm, struct admission *ret);
