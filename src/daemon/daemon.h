/* SPDX-License-Identifier: MIT */
/*
 * The management service without its doors: what src/rest (and later WS-Management and PowerShell)
 * stands on. One thread, on its loop.
 */
#pragma once

#include "daemon/authz.h"
#include "daemon/database.h"
#include "daemon/event.h"
#include "daemon/host_settings.h"
#include "daemon/job.h"
#include "daemon/supervisor.h"
#include "event/loop.h"

struct daemon_options {
	const char *state_folder;    /* the database, default machines; made if missing */
	const char *run_folder;      /* sockets and workers */
	bool user;                   /* a user's own service, not the host's */
	const char *worker, *keeper; /* programs */
	const char *switchd, *natd;  /* the same; NULL: no networks */
	const char *network_folder;  /* where these run */
	const char *cgroup;          /* delegated to us (supervisor.h); NULL: none */
	const char *privd;           /* socket of partita-privd; NULL: none */
};

struct daemon {
	struct loop *loop;
	struct database *db;
	struct authz *authz;
	struct events *events;
	struct jobs *jobs;
	struct supervisor *supervisor;
	struct networks *networks; /* network.h */
	bool networks_wanted;      /* there are programs for them */
	struct metering *metering; /* metering.h */
	struct host_settings host; /* host.schema.json */
	uint64_t host_revision;
	struct list vms; /* struct vm, in order of names, then ids */
	unsigned vm_count;
	char *state_folder, *run_folder;
	char *privd; /* as in the options */
	bool user;
	int64_t begun; /* ms since 1970 */
	/* private to vm.c and host.c from here on */
	struct vm_index *index;
	struct host *host_state;
};

/*
 * Opens the state, reads all machines, adopts workers that run, begins automatic starts. A machine
 * that cannot be read does not stop it (vm.h, `broken`).
 */
int daemon_new(struct loop *loop, const struct daemon_options *o, struct daemon **ret,
	       struct error *err) _must_check_;
/* Workers go on. */
void daemon_free(struct daemon *d);
/*
 * The host shuts down: each machine's stop action, all within `deadline_s`; `done` when all are off
 * or it has passed.
 */
void daemon_shut_down(struct daemon *d, unsigned deadline_s, void (*done)(void *context),
		      void *context);
