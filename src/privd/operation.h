/* SPDX-License-Identifier: MIT */
/*
 * What partita-privd does, as tables. A request is decoded and judged as a whole by `decode`, which
 * changes nothing; then `run` does it. A group of operations lies in a file of its own, and names
 * the system calls and capabilities that it needs beside the server's. Loop's thread.
 */
#pragma once

#include "event/loop.h"
#include "lib/error.h"
#include "lib/sandbox.h"
#include "privd/privd.h"

#include <jansson.h>
#include <sys/types.h>

#define PRIVD_FOLDERS_MAX 64

/* From the command line and the configuration file: root's word. */
struct privd_config {
	uid_t service_uid; /* who may ask */
	gid_t service_gid;
	uid_t first_uid; /* of workers */
	unsigned uid_count;
	char *keeper, *worker;            /* programs */
	char *storage[PRIVD_FOLDERS_MAX]; /* folders below which files may be opened */
	unsigned storage_count;
	char *devices[PRIVD_FOLDERS_MAX]; /* disks that may be opened */
	unsigned device_count;
	char *bridges[PRIVD_FOLDERS_MAX]; /* that switches may be joined to */
	unsigned bridge_count;
	char *interfaces[PRIVD_FOLDERS_MAX]; /* that switches may have */
	unsigned interface_count;
	int hands; /* socket to the other half (hands.h) */
};

struct privd_server;

struct privd_call {
	const struct privd_config *config;
	struct privd_server *server;
	json_t *request; /* without "op" and "id" */
	int fds[PRIVD_FDS_MAX];
	unsigned fd_count;
	void *arguments; /* arguments_size bytes, zeroed; wiped and freed after the end */
	/* for `run`: members and descriptors that go back (these are closed when they are sent) */
	json_t *answer;
	int answer_fds[PRIVD_ANSWER_FDS];
	unsigned answer_fd_count;
	/* private to server.c from here on */
	const struct privd_operation *operation;
	struct privd_client *client; /* NULL = gone */
	struct list node;
	json_int_t id;
};

#define PRIVD_LATER 1 /* of `run`: privd_call_end follows, from the loop */

struct privd_operation {
	const char *name;
	size_t arguments_size;
	unsigned fds_min, fds_max;
	/* NULL: no members are allowed */
	int (*decode)(struct privd_call *c, struct error *err);
	int (*run)(struct privd_call *c, struct error *err);
};

struct privd_group {
	const struct privd_operation *operations;
	unsigned count;
	struct sandbox sandbox;
	uint64_t capabilities; /* BIT(CAP_...) */
	/* Before the filter is entered; or NULL. */
	int (*begin)(const struct privd_config *config, struct loop *loop, struct error *err);
};

/* storage.c, machine.c, net.c; the list is main.c's. */
extern const struct privd_group privd_storage, privd_machine, privd_net;

/*
 * For `decode`: takes the request apart as json_unpack would with `format`; a member that is not
 * named there is refused as well. Texts are borrowed from the request.
 */
int privd_unpack(struct privd_call *c, struct error *err, const char *format, ...) _must_check_;
/* Sends the answer and frees the call. `result` negative: `err` says why. */
void privd_call_end(struct privd_call *c, int result, const struct error *err);
