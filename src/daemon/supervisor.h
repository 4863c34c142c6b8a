/* SPDX-License-Identifier: MIT */
/*
 * Worker processes. Each has a keeper (partita-keeper), a small process between us and it that
 * starts it, waits for it and writes down how it ended, so that nothing is lost while no service
 * runs. A running worker has a folder RUN/ID: `worker.json` (who it is: pids and their start
 * times), `control`, `console` and `sockets` (its sockets), `end.json` (how it ended, written by
 * the keeper). A later service adopts what it finds there.
 */
#pragma once

#include "event/loop.h"
#include "lib/error.h"

#include <jansson.h>
#include <sys/types.h>

enum worker_end {
	WORKER_END_OFF,    /* the guest powered off, or it was told to */
	WORKER_END_SAVED,  /* its state is in the file that came with "save", durably */
	WORKER_END_RESET,  /* the guest rebooted, and was to stop then */
	WORKER_END_ERROR,  /* an error of its own: `words` has it */
	WORKER_END_CRASH,  /* a signal */
	WORKER_END_DENIED, /* the system-call filter ended it */
	WORKER_END_MEMORY, /* the kernel's or the cgroup's out-of-memory killer */
	WORKER_END_LOST,   /* nobody knows: the keeper died too, or the host restarted */
};
const char *worker_end_name(enum worker_end end);

struct worker;
struct supervisor;

/* What is told of a worker; on the loop's thread, never from inside a call of ours. */
struct worker_events {
	/* As the worker names it: "starting", "running", "paused", ... */
	void (*state)(void *context, struct worker *w, const char *state);
	/* After this the worker is gone, and freed when the call returns. */
	void (*ended)(void *context, struct worker *w, enum worker_end end, const char *words);
	/* Its other events, as partita-worker(1) has them ("disk-merged", ...). NULL is fine. */
	void (*event)(void *context, struct worker *w, json_t *event);
};

struct supervisor_options {
	const char *run_folder;      /* made if missing, 0700 */
	const char *worker, *keeper; /* programs */
	/*
	 * Each worker gets a uid of its own from here on, if we may change it; 0: ours. Without the
	 * right, or in a user's own service, workers run as we do, and supervisor_notes says so.
	 */
	uid_t first_uid;
	unsigned uid_count;
	/* Path of our cgroup (version 2), delegated to us, below which each has one; NULL: none. */
	const char *cgroup;
	/*
	 * Socket of partita-privd: it starts and kills workers, with users of its own, and opens
	 * what we may not. What it refuses is told as an end of the worker. NULL: we do it.
	 */
	const char *privd;
	bool no_console;   /* what it starts has no serial ports: partita-switchd */
	bool host_network; /* what it starts works on the host's network: no namespaces */
};

int supervisor_new(struct loop *loop, const struct supervisor_options *o, struct supervisor **ret,
		   struct error *err) _must_check_;
/* Lets go of the workers: they go on. */
void supervisor_free(struct supervisor *s);
/* What isolation is missing here and why, one sentence; NULL: none. */
const char *supervisor_notes(const struct supervisor *s);

struct worker_limits {
	unsigned cpu_limit; /* percent of cpu_count processors; 100 = none */
	unsigned cpu_count;
	unsigned cpu_weight; /* 1..10000 as Hyper-V's; 100 = usual */
	uint64_t memory_max; /* bytes, beyond which it is killed (WORKER_END_MEMORY); 0 = none */
};

struct worker_start {
	const char *id; /* of the machine: the folder's name */
	const char *name;
	json_t *description; /* partita-vm(5), without control and console; borrowed */
	/*
	 * Files of the description are opened by us and passed: each "path" in it gets a
	 * "descriptor" beside it. Relative ones are below `folder`. Parents of an image and its
	 * track are opened by the worker, which has our group when it has a user of its own.
	 */
	const char *folder;
	struct worker_limits limits;
	const struct worker_events *events;
	void *context;
};

/* A file for a worker that runs, opened as those of its description are. */
struct worker_file {
	const char *folder, *path; /* a relative path is below the folder */
	bool read_only;
	bool locked; /* -EBUSY when another process has it open for writing, or we want to */
};
/* The descriptor, and its path without links (malloc'ed); or negative with words. */
int worker_file_open(const struct worker_file *file, char **ret_path,
		     struct error *err) _must_check_;

/*
 * Starts a worker; its states follow as events. What can be seen at once is an error with words: a
 * file that is missing or held by another, no keeper, no memory. -EEXIST: one runs already.
 */
int worker_start(struct supervisor *s, const struct worker_start *start, struct worker **ret,
		 struct error *err) _must_check_;
/*
 * Takes over a worker that an earlier service started; its present state follows as an event.
 * -ENOENT: there is none. -ECHILD: it ended meanwhile, *ret_end and err tell how, and its folder is
 * removed.
 */
int worker_adopt(struct supervisor *s, const char *id, const struct worker_events *events,
		 void *context, struct worker **ret, enum worker_end *ret_end,
		 struct error *err) _must_check_;
/* Calls `each` with the id of every folder in RUN. */
int supervisor_found(struct supervisor *s, void (*each)(void *context, const char *id),
		     void *context, struct error *err) _must_check_;

/*
 * A request on the control socket (partita-worker(1)), with descriptors that go along (they are
 * closed). `done` comes once, with the answer (borrowed) or with an error: refused by the worker,
 * -EPIPE the worker is gone, -ETIMEDOUT no answer within `timeout_ms`.
 */
#define WORKER_ANSWER_FDS 4
struct worker_request {
	bool wants_fds; /* those that come with the answer are `done`'s; else they are closed */
	unsigned fd_count;
	int fds[WORKER_ANSWER_FDS];
	void (*done)(struct worker_request *r, int result, json_t *answer, const struct error *err);
	struct list node;
	struct loop_timer timer;
	int64_t serial;
};
void worker_ask(struct worker *w, struct worker_request *r, json_t *request, const int *fds,
		unsigned fd_count, unsigned timeout_ms);
void worker_ask_cancel(struct worker_request *r); /* `done` is not called any more */
/* Kills it: when it does not answer. `ended` follows, with WORKER_END_CRASH. */
void worker_kill(struct worker *w);
/* -EOPNOTSUPP without a cgroup, unless nothing is limited. */
int worker_limits_set(struct worker *w, const struct worker_limits *limits,
		      struct error *err) _must_check_;

const char *worker_console_path(const struct worker *w);
const char *worker_sockets_path(const struct worker *w); /* devices/hvsock/hvsock.h */
pid_t worker_pid(const struct worker *w);                /* 0 = not known yet */
struct worker_usage {
	uint64_t cpu_us; /* processor time since it started */
	uint64_t memory; /* bytes, resident */
	uint64_t read_bytes, written_bytes;
};
int worker_usage_get(const struct worker *w, struct worker_usage *ret);
