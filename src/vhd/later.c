// SPDX-License-Identifier: MIT
/* See later.h. A request that comes while others are ended waits for the next round. */
#include "vhd/later.h"

static void run(struct loop_task *t)
{
	struct later *l = container_of(t, struct later, task);
	struct list batch;

	list_init(&batch);
	list_splice(&batch, &l->requests);
	while (!list_empty(&batch)) {
		struct disk_request *req = list_first(&batch, struct disk_request, node);

		list_remove(&req->node);
		req->done(req, (int)(intptr_t)req->layer);
	}
}

void later_init(struct later *l, struct loop *loop)
{
	l->loop = loop;
	list_init(&l->requests);
	loop_task_init(&l->task, run);
}

void later_deinit(struct later *l)
{
	if (l->loop)
		loop_cancel(l->loop, &l->task);
}

void later_end(struct later *l, struct disk_request *req, int result)
{
	req->layer = (void *)(intptr_t)result;
	list_append(&l->requests, &req->node);
	loop_defer(l->loop, &l->task);
}
