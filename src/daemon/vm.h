/* SPDX-License-Identifier: MIT */
/*
 * Virtual machines as the service knows them. A machine is its folder, with vm.json in it; the
 * registry in the database says which folders there are. Every change is durable before the call
 * that makes it returns, and a crash at any instant leaves the old or the new: see vm_file.h for a
 * file, and the registry's `phase` for whole folders.
 *
 * All on the loop's thread. Who may do it is checked here, not by the doors.
 */
#pragma once

#include "daemon/authz.h"
#include "daemon/daemon.h"
#include "daemon/vm_settings.h"
#include "daemon/vm_state.h"
#include "lib/guid.h"
#include "lib/list.h"

struct worker;

struct vm {
	struct daemon *daemon;
	struct list node;
	char id[GUID_TEXT_SIZE]; /* lower case */
	char *folder;            /* absolute */
	/*
	 * What is wrong with the folder: settings are then empty (but for name and id), and the
	 * machine can only be looked at, repaired and removed. code 0 = nothing.
	 */
	struct error broken;
	struct vm_settings settings;
	uint64_t revision; /* of the settings: for ETag; changes with each change, never repeats */
	enum vm_state state;
	char state_words[256]; /* why it is critical; "" */
	int64_t state_since;   /* ms since 1970 */
	int64_t started;       /* ms since 1970 of the last start; 0: not running */
	int64_t started_boot;  /* the same, in ms since the host's boot */
	struct worker *worker;
	struct job *job; /* the transition under way, or NULL */
};

/* --- finding --- */

/* NULL: unknown, with -ENOENT in err. Braces and upper case are fine. */
struct vm *vm_by_id(struct daemon *d, const char *id, struct error *err);
/*
 * The machines whose id or name is `pattern`, which may have * and ? (any case; of an id the first
 * eight digits must be there): each is called with those that `c` may see, in order of names. How
 * many, or negative what `each` returned.
 */
int vm_each(struct daemon *d, const struct caller *c, const char *pattern,
	    int (*each)(void *context, struct vm *vm), void *context);
/* Exactly one by id or name: -ENOENT, or -ENOTUNIQ with the ids. */
int vm_one(struct daemon *d, const struct caller *c, const char *name, struct vm **ret,
	   struct error *err) _must_check_;

/* --- making and changing; all check, audit and are durable --- */

/*
 * From settings as JSON (without id, created, ...); `folder` NULL: below the host's folder for
 * machines, named by the machine's name. Idempotent for the same `key` (NULL: none) of the same
 * caller within a day: the machine made then is found again.
 */
int vm_create(struct daemon *d, const struct caller *c, json_t *settings, const char *folder,
	      const char *key, struct vm **ret, struct error *err) _must_check_;
/* A folder that is there already. With `new_id` it becomes another machine (a copy). */
int vm_register(struct daemon *d, const struct caller *c, const char *folder, bool new_id,
		struct vm **ret, struct error *err) _must_check_;
/*
 * A merge patch (RFC 7396). `revision` nonzero: -ESTALE unless it is still that. -EBADFD when a
 * setting may not change in this state, -EACCES when its operation is not the caller's. Where the
 * worker has to change too it goes on as the job *ret, and nothing has changed until that has
 * ended well; else *ret is NULL.
 */
struct vm_change_options {
	uint64_t revision;
	bool force; /* also take away what the guest holds */
};
int vm_change(struct daemon *d, const struct caller *c, struct vm *vm, json_t *patch,
	      const struct vm_change_options *options, struct job **ret,
	      struct error *err) _must_check_;
/* Off machines only. `files`: with its folder; else it is only forgotten. */
int vm_remove(struct daemon *d, const struct caller *c, struct vm *vm, bool files,
	      struct error *err) _must_check_;

/* --- running --- */

/*
 * Begins an action; it goes on as the job *ret. Refused at once, with words, when the state does
 * not allow it, or (start) when the machine does not fit into the host or asks for what cannot be
 * had here. VM_SHUT_DOWN and VM_RESTART ask the guest, with what is usual of vm_shut_down.
 */
int vm_act(struct daemon *d, const struct caller *c, struct vm *vm, enum vm_action action,
	   struct job **ret, struct error *err) _must_check_;

#define VM_SHUT_DOWN_TIME     300u /* seconds that a guest has when none are said */
#define VM_SHUT_DOWN_TIME_MAX 86400u

/* How a guest is asked. The job fails when it refuses, does not answer, or has not done it in time;
 * then it runs on, unless `turn_off`. */
struct vm_shut_down {
	bool restart;       /* instead */
	bool force;         /* its programs are not asked */
	bool turn_off;      /* power it off (or reset it) when it has not done it itself */
	unsigned timeout_s; /* 0: VM_SHUT_DOWN_TIME */
	const char *reason; /* shown by the guest; NULL: none */
};
int vm_shut_down(struct daemon *d, const struct caller *c, struct vm *vm,
		 const struct vm_shut_down *how, struct job **ret, struct error *err) _must_check_;

/* Settings, state, and figures as the doors show them; new reference. */
json_t *vm_json(struct vm *vm);
/* The same, of settings and status only what is asked for: lists have thousands. */
#define VM_JSON_SETTINGS 1u
#define VM_JSON_STATUS   2u /* looks at files and processes */
json_t *vm_json_parts(struct vm *vm, unsigned parts);
char *vm_status_text(struct vm *vm); /* the status alone, as text; to be freed */
struct target vm_target(const struct vm *vm);
