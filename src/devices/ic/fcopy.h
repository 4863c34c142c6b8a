/* SPDX-License-Identifier: MIT */
/*
 * Guest file copy: a file of the host becomes one of the guest, in pieces of 6 KiB, each answered
 * by the guest's daemon before the next. One copy at a time.
 */
#pragma once

#include "devices/ic/ic.h"

#define FCOPY_SIZE_MAX       (1 * TIB) /* at 6 KiB each a guest is busy for days anyway */
#define FCOPY_NAME_MAX       255u      /* UTF-16 units; the wire has room for 259 and a NUL */
#define FCOPY_ANSWER_SECONDS 60u

struct fcopy_request {
	int fd;           /* a regular file, the copy's from here on, also when this fails */
	const char *path; /* in the guest, absolute: "/tmp/x" or "C:\\x" */
	bool overwrite, create_path;
	void (*progress)(void *context, uint64_t copied, uint64_t size);
	void (*done)(void *context, int result, const struct error *err);
	void *context;
};

struct fcopy {
	struct ic ic;
	bool running, cancelled, reading, cancelling;
	struct fcopy_request request;
	uint64_t size, copied;
	uint32_t operation, piece;
	struct loop_io io;
	struct iovec iov;
	struct error failure; /* what is told when the guest has heard of the cancellation */
	uint8_t data[6144];
};

void fcopy_init(struct fcopy *f, struct loop *loop, struct vmbus *bus);
/* No copy may be running (fcopy_cancel, or the channel has been closed). */
void fcopy_deinit(struct fcopy *f);
/* 0: `done` is called from the loop. Else words; a path that breaks the rules is -EINVAL. */
int fcopy_begin(struct fcopy *f, const struct fcopy_request *request,
		struct error *err) _must_check_;
/* The guest is told after its next answer, and removes what it has; `done` with -ECANCELED. */
int fcopy_cancel(struct fcopy *f, struct error *err) _must_check_;
