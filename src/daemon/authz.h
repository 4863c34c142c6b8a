/* SPDX-License-Identifier: MIT */
/*
 * Who may do what. Operations follow Hyper-V's authorisation store; a role bundles operations and
 * is assigned to a user or group for a scope: the host, a group of machines ("lab" holds
 * "lab/web"), or one machine. Root and the service's own user may do everything, as may members of
 * the group partita-administrators. Whoever created a machine by a role that says so owns it: for
 * that machine the role counts with its operations on what is one's own.
 */
#pragma once

#include "daemon/database.h"

#include <jansson.h>
#include <sys/types.h>

enum operation {
	OP_VIEW_HOST, /* the host, its capabilities and figures */
	OP_CHANGE_HOST,
	OP_VIEW_EVENTS,
	OP_VIEW_ROLES,
	OP_CHANGE_ROLES,
	OP_VIEW_SWITCH,
	OP_CHANGE_SWITCH,
	OP_VIEW_IMAGE,
	OP_CHANGE_IMAGE,
	OP_VIEW_POOL,
	OP_CHANGE_POOL,
	OP_CREATE_VM,
	OP_IMPORT_VM,
	OP_EXPORT_VM,
	OP_VIEW_VM,
	OP_CHANGE_VM,
	OP_CHANGE_GROUP, /* of machines that it is in: moves it between scopes */
	OP_DELETE_VM,
	OP_START_VM,
	OP_STOP_VM,  /* also shut down, reset, save */
	OP_PAUSE_VM, /* and resume */
	OP_CONSOLE,
	OP_VIEW_CONSOLE, /* read only */
	OP_CHANGE_DISK,  /* create, resize, merge and the like, of a machine's images */
	OP_CHECKPOINT,
	OP_METER,
	OP_MIGRATE,
	OP_REPLICATE,
	OP_GUEST_SERVICE, /* facts and files in and out of the guest */
	OP_CHANGE_SECURITY,
	OP_CANCEL_JOB, /* another's */
	OPERATION_COUNT,
};

const char *operation_name(enum operation op);             /* "start-vm" */
const char *operation_description(enum operation op);      /* for people */
int operation_find(const char *name, enum operation *ret); /* 0 or -ENOENT */
/* Whether it is done to one machine, so that roles for a group or a machine can give it. */
bool operation_on_vm(enum operation op);

#define CALLER_GROUPS_MAX 64

/* Who asks; filled in by the door. Kept with jobs by name only. */
struct caller {
	char name[64]; /* of the user; "uid 1234" without one; for events */
	uid_t uid;
	bool administrator; /* root, our own user, partita-administrators */
	unsigned group_count;
	char groups[CALLER_GROUPS_MAX][32];
};

/* The service itself, as in "the host shut down". */
extern const struct caller caller_service;
/* From the credentials of a socket's other end; an unknown uid has no groups. */
void caller_from_uid(uid_t uid, gid_t gid, struct caller *ret);

/*
 * What an operation is done to; all NULL: the host. A machine that is still to be made has a group
 * only, an event or job has the machine that it is about.
 */
struct target {
	const char *vm;      /* id */
	const char *vm_name; /* for messages */
	const char *group;
	const char *creator;
};

struct authz;

int authz_new(struct database *db, struct authz **ret, struct error *err) _must_check_;
void authz_free(struct authz *a);

/* Pure: no audit. For lists, where what one may not see is left out. */
bool authz_allowed(const struct authz *a, const struct caller *c, enum operation op,
		   const struct target *t);
/*
 * 0, or -EACCES with words that name the operation, the caller and a role that would do. A refusal
 * is an audit event (the caller of authz_on_refusal writes it, with event_add_apart).
 */
int authz_check(struct authz *a, const struct caller *c, enum operation op, const struct target *t,
		struct error *err) _must_check_;
void authz_on_refusal(struct authz *a,
		      void (*fn)(void *context, const struct caller *c, enum operation op,
				 const struct target *t),
		      void *context);

/*
 * Roles and assignments as JSON for the doors: arrays of objects, new references. Who may change
 * them (OP_CHANGE_ROLES) is checked by the caller, who leaves the event in the same transaction;
 * when that is undone, so is what is in memory.
 *
 * A role is {"name", "description", "built_in", "operations": [NAME], "own_operations": [NAME]};
 * the latter count for machines that the caller created. Built-in roles (administrator, operator,
 * creator, configurator, viewer) can be assigned but not changed; one that is assigned cannot be
 * removed (-EBUSY). To set, "operations" must be given; -EINVAL names the property at fault.
 */
#define AUTHZ_ROLES_MAX       256
#define AUTHZ_ASSIGNMENTS_MAX 10000
json_t *authz_roles(const struct authz *a);
int authz_role_set(struct authz *a, const char *name, json_t *role, struct error *err) _must_check_;
int authz_role_remove(struct authz *a, const char *name, struct error *err) _must_check_;
json_t *authz_assignments(const struct authz *a); /* with "id" */
/*
 * {"user"|"group": NAME, "role": NAME, "scope": "host"|"group:PATH"|"vm:ID"}; *ret_id its number.
 * -ENOENT: no such user, group, role or machine; -EEXIST: it is there already.
 */
int authz_assign(struct authz *a, json_t *assignment, int64_t *ret_id,
		 struct error *err) _must_check_;
int authz_unassign(struct authz *a, int64_t id, struct error *err) _must_check_;
