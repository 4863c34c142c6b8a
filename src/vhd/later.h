/* SPDX-License-Identifier: MIT */
/*
 * Requests of a disk that end without I/O, or while they are being submitted: their `done` is
 * called from the loop, never from inside disk_submit.
 */
#pragma once

#include "vhd/disk.h"

struct later {
	struct loop *loop;
	struct loop_task task;
	struct list requests; /* disk_request.node */
};

/* `loop` may be NULL where nothing is submitted. */
void later_init(struct later *l, struct loop *loop);
void later_deinit(struct later *l); /* no request may wait */
/* The request's node and layer are this function's until it is done. */
void later_end(struct later *l, struct disk_request *req, int result);
