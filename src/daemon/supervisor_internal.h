/* SPDX-License-Identifier: MIT */
/* What supervisor.c and the files beside it share: supervisor_*.c, worker_*.c. One thread. */
#pragma once

#include "daemon/supervisor.h"
#include "lib/list.h"
#include "privd/privd.h"

#define WORKER_ID_MAX     64
#define WORKER_STATE_SIZE 32

struct supervisor {
	bool no_console;
	struct loop *loop;
	char *run, *worker, *keeper;
	int run_fd;
	uid_t first_uid;
	unsigned uid_count; /* 0 = workers run as we do */
	gid_t kvm_group;    /* (gid_t)-1 = none */
	bool namespaces;
	char *cgroup;        /* NULL = none */
	struct privd *privd; /* NULL = we do it ourselves */
	char notes[512];
	struct list workers;
};

/* --- worker_record.c: what is in a run folder --- */

/* worker.json */
struct worker_record {
	pid_t keeper, worker;
	uint64_t keeper_start, worker_start;
	char boot[40];
};

/* end.json */
struct worker_end_record {
	bool signalled, core;
	int status; /* exit status or signal */
	char failed[512], words[1100];
};

/* -ENOENT: it is not there (yet); -EUCLEAN with words: it is garbage. */
int worker_record_read(int folder, struct worker_record *ret, struct error *err) _must_check_;
int worker_end_read(int folder, struct worker_end_record *ret, struct error *err) _must_check_;
/* What these make of a file's text: 0 or -EUCLEAN. */
int worker_record_parse(const char *text, size_t size, struct worker_record *ret) _must_check_;
int worker_end_parse(const char *text, size_t size, struct worker_end_record *ret) _must_check_;
/* Whether it was written since the host started. */
bool worker_record_current(const struct worker_record *r);
/*
 * A pidfd of that very process, if it is there and is of the user who owns the run folder: numbers
 * of processes come again, and the file is the worker's user's.
 */
int worker_process_open(int folder, pid_t pid, uint64_t start);

/* What is known of an end beside the record. */
struct worker_end_facts {
	const struct worker_end_record *record; /* NULL: there is none */
	const char *why;                        /* there is none; or NULL */
	const char *state;                      /* the last one that it told */
	bool killed;                            /* by us */
	bool out_of_memory;                     /* its cgroup's killer was at work */
};
enum worker_end worker_end_judge(const struct worker_end_facts *f, char *words, size_t size);

/* Takes everything out of the folder RUN/ID and removes it. */
void worker_folder_remove(struct supervisor *s, const char *id);

/* --- worker_files.c: what is passed --- */

#define WORKER_FILES_MAX 640

/* One that we may not open, and partita-privd is asked for. */
struct worker_late_file {
	struct list node;
	struct privd_request request;
	struct worker_handover *handover;
	unsigned slot; /* in worker_files' fds */
	bool read_only, locked;
	char where[64];
	char path[];
};

/* In the order of their numbers in the keeper: its run folder and lock come first. */
struct worker_files {
	unsigned count;
	int fds[WORKER_FILES_MAX]; /* ours; -1 = given up */
	bool may_be_late;          /* what we may not open becomes one of: */
	struct list late;          /* worker_late_file */
};

/* How descriptors are numbered in a worker: keeper.c. */
#define WORKER_RUN_FD   3
#define WORKER_FIRST_FD 5

/* The descriptor's number in the worker, or -EMFILE. `fd` is the list's, also then. */
int worker_files_add(struct worker_files *f, int fd, struct error *err) _must_check_;
void worker_files_init(struct worker_files *f, bool may_be_late);
void worker_files_close(struct worker_files *f);
/* A late file has come: its descriptor becomes the list's, if it may be used. */
int worker_files_come(struct worker_files *f, const struct worker_late_file *late, int fd,
		      struct error *err) _must_check_;
/* Opens what the description names, and says so in it. */
int worker_files_open(struct worker_files *f, json_t *description, const char *folder,
		      struct error *err) _must_check_;
/* A description as a sealed memory file. */
int worker_files_describe(json_t *description, struct error *err) _must_check_;

/* --- worker_cgroup.c --- */

int supervisor_cgroup_set_up(struct supervisor *s, const char *path,
			     struct error *err) _must_check_;
/* Makes the group; *ret_procs is where a process joins it. */
int worker_cgroup_make(struct supervisor *s, const char *id, int *ret_procs,
		       struct error *err) _must_check_;
int worker_cgroup_open(struct supervisor *s, const char *id); /* the folder; or negative */
void worker_cgroup_remove(struct supervisor *s, const char *id);
int worker_cgroup_limit(struct supervisor *s, const char *id, const struct worker_limits *l,
			struct error *err) _must_check_;
bool worker_cgroup_out_of_memory(struct supervisor *s, const char *id);
/* The number behind `key` in a file of the group, or of the file alone (key NULL). */
int worker_cgroup_number(struct supervisor *s, const char *id, const char *file, const char *key,
			 uint64_t *ret);
/* As the kernel wants them. */
void worker_cpu_max(const struct worker_limits *l, char text[static 48]);
unsigned worker_cpu_weight(unsigned hyperv);

/* --- worker_privd.c: through partita-privd --- */

/*
 * Has the late files opened and the keeper started; `files` are taken over, `procs` is not needed
 * then. What goes wrong ends the worker.
 */
int worker_hand_over(struct worker *w, struct worker_files *files, struct error *err) _must_check_;
void worker_handover_free(struct worker *w); /* harmless when there is none */
void worker_privd_kill(struct worker *w);

/* --- worker_link.c: the client of the control socket --- */

#define LINK_FDS 16 /* a few answers' */

struct worker_link {
	struct worker *worker;
	int fd; /* -1 = not connected */
	struct loop_watch watch;
	bool watching_output;
	struct loop_timer retry;
	unsigned retries;
	char *input;
	size_t input_size, input_room;
	struct list messages; /* to be sent */
	struct list asked;    /* worker_request, in order */
	int64_t serial;
	unsigned fd_count; /* that came, before the answers that they belong to */
	int fds[LINK_FDS];
	bool greeting; /* our own first question is not answered yet */
	bool closed;   /* the worker is gone */
};

int worker_link_init(struct worker_link *l, struct worker *w);
void worker_link_connect(struct worker_link *l);
/* The rest of that, on a socket that is connected; it is the link's. */
void worker_link_attach(struct worker_link *l, int fd);
/* Ends all requests with -EPIPE, from here. */
void worker_link_end(struct worker_link *l);
/* Forgets them. */
void worker_link_deinit(struct worker_link *l);

/* --- supervisor.c --- */

struct worker {
	struct supervisor *supervisor;
	struct list node;
	char id[WORKER_ID_MAX];
	char *control, *console, *sockets; /* paths */
	const struct worker_events *events;
	void *context;
	int folder; /* RUN/ID */
	uid_t uid;
	pid_t pid;             /* 0 = not known yet */
	int keeper_fd, pid_fd; /* pidfds, -1 = not known, or gone */
	struct loop_watch keeper_watch, pid_watch;
	struct loop_timer look; /* until its record is there */
	unsigned looks;
	bool killed, recorded;
	struct worker_handover *handover; /* partita-privd is starting it; NULL = not */
	struct privd_request kill;
	struct loop_timer kill_again;
	unsigned kills;
	char state[WORKER_STATE_SIZE];
	struct worker_link link;
};

/* It was not started after all: tells why, and frees it. From the loop. */
void worker_fail(struct worker *w, const char *words);
/* What the link tells. */
void worker_on_state(struct worker *w, const char *state);
void worker_on_event(struct worker *w, json_t *event);

/* --- worker_spawn.c, worker_adopt.c --- */

int worker_new(struct supervisor *s, const char *id, struct worker **ret,
	       struct error *err) _must_check_;
void worker_free(struct worker *w);
/* Finds out who it is, if that is written down by now. */
bool worker_recognise(struct worker *w);
/* From now on its end is noticed. */
int worker_watch_keeper(struct worker *w, int keeper_fd) _must_check_;
int worker_watch_orphan(struct worker *w) _must_check_;
void worker_look_later(struct worker *w);
/* Whether somebody keeps the machine of that folder, or it runs without a keeper. */
bool worker_folder_in_use(int folder);
bool worker_folder_kept(int folder);
/* Starts the keeper with its descriptors: a pidfd. */
int keeper_spawn(struct worker *w, struct worker_files *files, int procs,
		 struct error *err) _must_check_;
int worker_id_check(const char *id, struct error *err) _must_check_;
