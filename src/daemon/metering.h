/* SPDX-License-Identifier: MIT */
/*
 * What machines use: processor time, memory, disk and network, since metering of a machine began or
 * was begun anew. Whoever knows a worker's counters gives samples; totals outlive workers and the
 * service. They are in the database soon after the sample (METERING_WRITE_MS), so that a crash
 * loses no more than that of memory's samples, and of the rest nothing, since counters go on.
 *
 * On the loop's thread. Who may do it (OP_METER) is checked by the caller.
 */
#pragma once

#include "daemon/database.h"
#include "event/loop.h"

#include <jansson.h>

#define METERING_WRITE_MS 30000 /* what the service gives to metering_new */

/* Counters of one run of a machine, growing from 0 at its start; memory is that of now. */
struct metering_usage {
	int64_t run; /* not 0; another for each worker, like the time of its start */
	uint64_t cpu_us;
	uint64_t memory; /* bytes */
	uint64_t disk_read, disk_written;
	uint64_t network_received, network_sent;
};

struct metering_report {
	int64_t since; /* ms since 1970 */
	uint64_t cpu_us;
	uint64_t memory_average, memory_min, memory_max; /* bytes; 0 before the first sample */
	uint64_t disk_read, disk_written;
	uint64_t network_received, network_sent;
};

struct metering;

/* Samples are written `write_ms` after the first that is not. */
int metering_new(struct database *db, struct loop *loop, unsigned write_ms, struct metering **ret,
		 struct error *err) _must_check_;
void metering_free(struct metering *m); /* writes what is not yet written */

/*
 * Durable. A machine (in the table `vms`) that is metered already goes on as it is. `now` is what
 * it has used already, which does not count; NULL: it is off.
 */
int metering_enable(struct metering *m, const char *vm, const struct metering_usage *now,
		    struct error *err) _must_check_;
/* Its totals are forgotten. One that is not metered is fine. */
int metering_disable(struct metering *m, const char *vm, struct error *err) _must_check_;
/* Begins anew from the last sample. -ENOENT: not metered. */
int metering_reset(struct metering *m, const char *vm, struct error *err) _must_check_;
bool metering_enabled(const struct metering *m, const char *vm);

/* One that is not metered is left out. Often, and once more when the worker ends, if that can be.
 */
void metering_sample(struct metering *m, const char *vm, const struct metering_usage *usage);

int metering_get(const struct metering *m, const char *vm, struct metering_report *ret,
		 struct error *err) _must_check_;
/*
 * {since, cpu_us, memory: {average_mib, minimum_mib, maximum_mib}, disk: {read_bytes,
 * written_bytes}, network: {received_bytes, sent_bytes}}; new reference.
 */
json_t *metering_json(const struct metering_report *report);
