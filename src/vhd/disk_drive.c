// SPDX-License-Identifier: MIT
/* See disk_drive.h. Data is cut into three iovec entries where it is long enough, to use that too.
 */
#include "vhd/disk_drive.h"

struct drive {
	struct disk_request req;
	struct iovec iov[3];
	bool done;
	int result;
};

static void on_done(struct disk_request *req, int result)
{
	struct drive *d = container_of(req, struct drive, req);

	d->done = true;
	d->result = result;
}

static int drive(struct disk *disk, enum disk_op op, void *buf, uint64_t length, uint64_t offset,
		 unsigned flags)
{
	struct drive d = {
		.req = { .op = op,
			 .flags = flags,
			 .offset = offset,
			 .length = length,
			 .done = on_done },
	};

	if (buf) {
		uint64_t cut = length / 3 & ~UINT64_C(511);

		d.iov[0] = (struct iovec){ buf, cut };
		d.iov[1] = (struct iovec){ (char *)buf + cut, cut };
		d.iov[2] = (struct iovec){ (char *)buf + 2 * cut, length - 2 * cut };
		d.req.iov = cut ? d.iov : d.iov + 2;
		d.req.iovcnt = cut ? 3 : 1;
	}
	disk_submit(disk, &d.req);
	while (!d.done)
		if (loop_once(disk->loop, -1) < 0)
			return -1;
	return d.result;
}

int drive_read(struct disk *d, void *buf, uint64_t length, uint64_t offset)
{
	return drive(d, DISK_READ, buf, length, offset, 0);
}

int drive_write(struct disk *d, const void *buf, uint64_t length, uint64_t offset, unsigned flags)
{
	return drive(d, DISK_WRITE, (void *)(uintptr_t)buf, length, offset, flags);
}

int drive_trim(struct disk *d, uint64_t length, uint64_t offset)
{
	return drive(d, DISK_TRIM, NULL, length, offset, 0);
}

int drive_zero(struct disk *d, uint64_t length, uint64_t offset)
{
	return drive(d, DISK_WRITE_ZEROES, NULL, length, offset, 0);
}

int drive_flush(struct disk *d)
{
	return drive(d, DISK_FLUSH, NULL, 0, 0, 0);
}
