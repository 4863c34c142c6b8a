// SPDX-License-Identifier: MIT
/*
 * See live.h: waiting for the host's storage. The gates of a machine's disks keep what fails
 * (gate.h); it is sent again each second until it succeeds. Whoever has the machine stops its
 * processors meanwhile, so that the guest does not see how long that takes.
 */
#include "worker/live_internal.h"

#include <string.h>

#define RETRY_NS UINT64_C(1000000000)

static unsigned lost_count(const struct live *live)
{
	unsigned n = 0;

	for (unsigned i = 0; i < live->drive_count; i++)
		n += live->drives[i]->storage_lost;
	return n;
}

bool live_storage_lost(const struct live *live)
{
	return lost_count(live);
}

static void on_lost(struct gate_patience *p, int error)
{
	struct drive *drive = container_of(p, struct drive, patience);
	struct live *live = drive->owner;
	bool first = !lost_count(live);

	drive->storage_lost = true;
	live_tell(live, &(struct live_event){ .type = LIVE_STORAGE_LOST,
					      .drive = drive,
					      .file = drive->images[0].name,
					      .reason = strerror(-error) });
	if (!first)
		return;
	loop_timer_arm(&live->retry, loop_now(live->loop) + RETRY_NS);
	live->storage->lost(live->storage);
}

static void on_back(struct gate_patience *p)
{
	struct drive *drive = container_of(p, struct drive, patience);
	struct live *live = drive->owner;

	drive->storage_lost = false;
	live_tell(live, &(struct live_event){ .type = LIVE_STORAGE_BACK, .drive = drive });
	if (!lost_count(live))
		live->storage->back(live->storage);
}

static void on_retry(struct loop_timer *t)
{
	struct live *live = container_of(t, struct live, retry);

	for (unsigned i = 0; i < live->drive_count; i++)
		if (live->drives[i]->storage_lost)
			gate_retry(live->drives[i]->gate);
	if (lost_count(live))
		loop_timer_arm(t, loop_now(live->loop) + RETRY_NS);
}

void live_storage_init(struct live *live)
{
	loop_timer_init(live->loop, &live->retry, on_retry);
}

void live_storage_follow(struct live *live, struct drive *drive)
{
	if (drive->kind != DRIVE_DISK)
		return;
	drive->patience = (struct gate_patience){ on_lost, on_back };
	gate_be_patient(drive->gate, live->patient ? &drive->patience : NULL);
	drive->storage_lost &= live->patient;
}

void live_storage_patient(struct live *live, bool patient)
{
	live->patient = patient && live->storage;
	for (unsigned i = 0; i < live->drive_count; i++)
		live_storage_follow(live, live->drives[i]);
	if (!live->patient)
		loop_timer_disarm(&live->retry);
}

void live_on_storage(struct live *live, struct live_storage *storage)
{
	live->storage = storage;
}
