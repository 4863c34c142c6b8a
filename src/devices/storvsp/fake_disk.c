// SPDX-License-Identifier: MIT
/*
 * The disk of fake_disk.h. Belongs to the test that made it and to its loop's thread. A breach of
 * disk.h's rules by the submitter ends the program: the point of this file is to catch them.
 */
#include "devices/storvsp/fake_disk.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct fake_disk *fake_of(struct disk *disk)
{
	return container_of(disk, struct fake_disk, disk);
}

static void insist(bool holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "fake disk: a request is wrong: %s\n", what);
	abort();
}

static void request_check(const struct fake_disk *fake, const struct disk_request *req)
{
	const struct disk_geometry *g = &fake->disk.geometry;
	uint64_t bytes = 0;

	insist(range_inside(req->offset, req->length, g->size), "not inside the disk");
	insist(!(req->offset % g->logical_sector), "offset is not aligned");
	insist(!(req->length % g->logical_sector), "length is not aligned");
	insist(req->op == DISK_FLUSH || req->length, "empty");
	insist(req->op == DISK_READ || req->op == DISK_FLUSH || !g->read_only, "read-only");
	insist(!(req->flags & ~DISK_FUA), "unknown flag");
	if (req->op != DISK_READ && req->op != DISK_WRITE)
		return;
	for (unsigned i = 0; i < req->iovcnt; i++)
		bytes += req->iov[i].iov_len;
	insist(bytes == req->length, "iovecs and length differ");
}

static void copy(struct fake_disk *fake, const struct disk_request *req)
{
	uint8_t *at = fake->data + req->offset;

	for (unsigned i = 0; i < req->iovcnt; i++) {
		if (req->op == DISK_READ)
			memcpy(req->iov[i].iov_base, at, req->iov[i].iov_len);
		else
			memcpy(at, req->iov[i].iov_base, req->iov[i].iov_len);
		at += req->iov[i].iov_len;
	}
}

static int perform(struct fake_disk *fake, const struct disk_request *req)
{
	if (fake->fail && !fake->pass)
		return fake->fail;
	if (fake->pass)
		fake->pass--;
	switch (req->op) {
	case DISK_READ:
	case DISK_WRITE:
		copy(fake, req);
		break;
	case DISK_TRIM:
	case DISK_WRITE_ZEROES:
		memset(fake->data + req->offset, 0, req->length);
		break;
	case DISK_FLUSH:
		break;
	}
	return 0;
}

static void on_task(struct loop_task *t)
{
	struct fake_disk *fake = container_of(t, struct fake_disk, task);
	struct list batch;

	if (fake->hold)
		return;
	list_init(&batch);
	list_splice(&batch, &fake->queue);
	while (!list_empty(&batch)) {
		struct disk_request *req = list_first(&batch, struct disk_request, node);

		list_remove(&req->node);
		fake->queued--;
		req->done(req, perform(fake, req));
	}
}

void fake_disk_release(struct fake_disk *fake)
{
	fake->hold = false;
	loop_defer(fake->disk.loop, &fake->task);
}

static void fake_submit(struct disk *disk, struct disk_request *req)
{
	struct fake_disk *fake = fake_of(disk);

	request_check(fake, req);
	fake->counts[req->op]++;
	fake->fua += req->flags & DISK_FUA;
	fake->iovcnt = req->iovcnt;
	fake->queued++;
	list_append(&fake->queue, &req->node);
	loop_defer(disk->loop, &fake->task);
}

static const struct disk_ops fake_ops = {
	.name = "fake",
	.submit = fake_submit,
};

struct fake_disk *fake_disk_new(struct loop *loop, uint64_t size, uint32_t sector)
{
	struct fake_disk *fake = calloc(1, sizeof(*fake));

	insist(fake && (fake->data = calloc(1, size)), "out of memory");
	fake->disk = (struct disk){
		.ops = &fake_ops,
		.loop = loop,
		.geometry = { .size = size,
			      .logical_sector = sector,
			      .physical_sector = 4096,
			      .trim_granularity = 4096 },
	};
	list_init(&fake->queue);
	loop_task_init(&fake->task, on_task);
	return fake;
}

void fake_disk_free(struct fake_disk *fake)
{
	if (!fake)
		return;
	insist(!fake->queued, "still queued while the disk is freed");
	loop_cancel(fake->disk.loop, &fake->task);
	free(fake->data);
	free(fake);
}
