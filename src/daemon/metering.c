// SPDX-License-Identifier: MIT
/*
 * See metering.h. All that is metered is in memory, in order of ids; a timer writes what changed in
 * one transaction. With the totals lie the counters that the last sample had: what the next one has
 * more is added, so that what was not written when the service died counts later.
 *
 * Owned by the daemon; its loop's thread.
 */
#include "daemon/metering.h"

#include "daemon/words.h"
#include "lib/cleanup.h"
#include "lib/guid.h"
#include "lib/log.h"

#include <errno.h>
#include <string.h>

enum counter {
	CPU_US,
	DISK_READ,
	DISK_WRITTEN,
	NETWORK_RECEIVED,
	NETWORK_SENT,
	COUNTERS,
};

struct meter {
	char vm[GUID_TEXT_SIZE];
	int64_t since;
	uint64_t total[COUNTERS];
	uint64_t memory_kib, memory_samples; /* the sum of so many */
	uint64_t memory_min_kib, memory_max_kib;
	int64_t run; /* 0: no sample yet */
	uint64_t last[COUNTERS];
	bool dirty;
};

struct metering {
	struct database *db;
	struct loop *loop;
	struct database_hook hook;
	struct loop_timer timer;
	unsigned write_ms;
	struct meter **meters; /* in order of ids */
	size_t count;
	bool changed; /* meters came, went or began anew in the transaction under way */
	bool failing; /* the last time of writing did; says so once */
};

/* --- which there are --- */

static int compare(const void *key, const void *item)
{
	return strcasecmp(key, (*(struct meter *const *)item)->vm);
}

static struct meter **find_at(const struct metering *m, const char *vm)
{
	return m->count ? bsearch(vm, m->meters, m->count, sizeof(*m->meters), compare) : NULL;
}

static struct meter *find(const struct metering *m, const char *vm)
{
	struct meter **at = find_at(m, vm);

	return at ? *at : NULL;
}

/* Takes `meter` over also when it fails. */
static int insert(struct metering *m, struct meter *meter)
{
	struct meter **meters = reallocarray(m->meters, m->count + 1, sizeof(*meters));
	size_t at = m->count;

	if (!meters) {
		free(meter);
		return -ENOMEM;
	}
	m->meters = meters;
	while (at && strcasecmp(meters[at - 1]->vm, meter->vm) > 0)
		at--;
	memmove(meters + at + 1, meters + at, (m->count - at) * sizeof(*meters));
	meters[at] = meter;
	m->count++;
	return 0;
}

static void remove_at(struct metering *m, size_t at)
{
	free(m->meters[at]);
	m->count--;
	memmove(m->meters + at, m->meters + at + 1, (m->count - at) * sizeof(*m->meters));
}

static void remove_meter(struct metering *m, const char *vm)
{
	struct meter **at = find_at(m, vm);

	if (at)
		remove_at(m, (size_t)(at - m->meters));
}

static void remove_all(struct metering *m)
{
	while (m->count)
		remove_at(m, m->count - 1);
}

/* --- rows --- */

static int load_row(void *context, const struct database_row *row)
{
	static const int last_columns[COUNTERS] = { 12, 13, 14, 15, 16 };
	static const int total_columns[COUNTERS] = { 2, 7, 8, 9, 10 };
	struct meter *meter = calloc(1, sizeof(*meter));

	if (!meter)
		return -ENOMEM;
	snprintf(meter->vm, sizeof(meter->vm), "%s", row_text(row, 0));
	meter->since = row_integer(row, 1);
	for (unsigned i = 0; i < COUNTERS; i++) {
		meter->total[i] = (uint64_t)row_integer(row, total_columns[i]);
		meter->last[i] = (uint64_t)row_integer(row, last_columns[i]);
	}
	meter->memory_kib = (uint64_t)row_integer(row, 3);
	meter->memory_samples = (uint64_t)row_integer(row, 4);
	meter->memory_min_kib = (uint64_t)row_integer(row, 5);
	meter->memory_max_kib = (uint64_t)row_integer(row, 6);
	meter->run = row_integer(row, 11);
	return insert(context, meter);
}

static int load(struct metering *m, struct error *err)
{
	int r;

	remove_all(m);
	r = database_query(
		m->db, err, load_row, m,
		"SELECT vm, since, cpu_us, memory_kib, memory_samples, memory_min_kib, "
		"memory_max_kib, disk_read, disk_written, network_received, network_sent, "
		"run, last_cpu_us, last_disk_read, last_disk_written, "
		"last_network_received, last_network_sent FROM metering ORDER BY vm",
		"");
	return r == -ENOMEM ? error_set(err, r, "metering: no memory") : r;
}

/* All columns in the order of the table, but for the id, which is the last. */
#define ROW_TYPES "iiiiiiiiiiiiiiiis"

static int write_with(struct metering *m, const char *sql, const struct meter *t, struct error *err)
{
	return database_run(m->db, err, sql, ROW_TYPES, t->since, (int64_t)t->total[CPU_US],
			    (int64_t)t->memory_kib, (int64_t)t->memory_samples,
			    (int64_t)t->memory_min_kib, (int64_t)t->memory_max_kib,
			    (int64_t)t->total[DISK_READ], (int64_t)t->total[DISK_WRITTEN],
			    (int64_t)t->total[NETWORK_RECEIVED], (int64_t)t->total[NETWORK_SENT],
			    t->run, (int64_t)t->last[CPU_US], (int64_t)t->last[DISK_READ],
			    (int64_t)t->last[DISK_WRITTEN], (int64_t)t->last[NETWORK_RECEIVED],
			    (int64_t)t->last[NETWORK_SENT], t->vm);
}

static int row_insert(struct metering *m, const struct meter *meter, struct error *err)
{
	return write_with(m,
			  "INSERT INTO metering (since, cpu_us, memory_kib, memory_samples, "
			  "memory_min_kib, memory_max_kib, disk_read, disk_written, "
			  "network_received, network_sent, run, last_cpu_us, last_disk_read, "
			  "last_disk_written, last_network_received, last_network_sent, vm) "
			  "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
			  meter, err);
}

static int row_update(struct metering *m, const struct meter *meter, struct error *err)
{
	return write_with(m,
			  "UPDATE metering SET since = ?, cpu_us = ?, memory_kib = ?, "
			  "memory_samples = ?, memory_min_kib = ?, memory_max_kib = ?, "
			  "disk_read = ?, disk_written = ?, network_received = ?, "
			  "network_sent = ?, run = ?, last_cpu_us = ?, last_disk_read = ?, "
			  "last_disk_written = ?, last_network_received = ?, "
			  "last_network_sent = ? WHERE vm = ?",
			  meter, err);
}

/* --- writing now and then --- */

static int write_dirty(struct metering *m, struct error *err)
{
	int r = database_begin(m->db, err);

	if (r)
		return r;
	for (size_t i = m->count; !r && i-- > 0;) {
		if (!m->meters[i]->dirty)
			continue;
		r = row_update(m, m->meters[i], err);
		/* its machine was removed, and the row with it */
		if (!r && !database_changes(m->db))
			remove_at(m, i);
	}
	if (!r)
		return database_commit(m->db, err);
	database_rollback(m->db);
	return r;
}

static void write_later(struct metering *m)
{
	if (!m->timer.deadline)
		loop_timer_arm(&m->timer, loop_now(m->loop) + UINT64_C(1000000) * m->write_ms);
}

static void write_now(struct metering *m)
{
	struct error err = { 0 };

	if (write_dirty(m, &err) < 0) {
		if (!m->failing)
			log_line("metering is not written for now: %s", err.message);
		m->failing = true;
		write_later(m);
		return;
	}
	m->failing = false;
	for (size_t i = 0; i < m->count; i++)
		m->meters[i]->dirty = false;
}

static void on_timer(struct loop_timer *t)
{
	write_now(container_of(t, struct metering, timer));
}

/* What a change that is undone did to the meters is undone: the rows know. */
static void on_ended(struct database_hook *h, bool committed)
{
	struct metering *m = container_of(h, struct metering, hook);
	struct error err = { 0 };
	bool changed = m->changed;

	m->changed = false;
	if (!committed && changed && load(m, &err) < 0)
		log_line("metering cannot be read: %s", err.message);
}

/* --- changes --- */

static void counters_of(const struct metering_usage *usage, uint64_t ret[static COUNTERS])
{
	ret[CPU_US] = usage->cpu_us;
	ret[DISK_READ] = usage->disk_read;
	ret[DISK_WRITTEN] = usage->disk_written;
	ret[NETWORK_RECEIVED] = usage->network_received;
	ret[NETWORK_SENT] = usage->network_sent;
}

static int change_begin(struct metering *m, struct error *err)
{
	int r = database_begin(m->db, err);

	if (!r)
		m->changed = true;
	return r;
}

static int change_end(struct metering *m, int r, struct error *err)
{
	if (!r)
		return database_commit(m->db, err);
	database_rollback(m->db);
	return r;
}

int metering_enable(struct metering *m, const char *vm, const struct metering_usage *now,
		    struct error *err)
{
	struct meter *meter;
	int r;

	if (find(m, vm))
		return 0;
	meter = calloc(1, sizeof(*meter));
	if (!meter)
		return error_set(err, -ENOMEM, "metering: no memory");
	snprintf(meter->vm, sizeof(meter->vm), "%s", vm);
	meter->since = time_ms();
	if (now) {
		meter->run = now->run;
		counters_of(now, meter->last);
	}
	r = change_begin(m, err);
	if (r) {
		free(meter);
		return r;
	}
	r = row_insert(m, meter, err);
	if (r)
		free(meter);
	else if ((r = insert(m, meter)))
		error_set(err, r, "metering: no memory");
	return change_end(m, r, err);
}

int metering_disable(struct metering *m, const char *vm, struct error *err)
{
	int r = find(m, vm) ? change_begin(m, err) : -ENOENT;

	if (r)
		return r == -ENOENT ? 0 : r;
	r = database_run(m->db, err, "DELETE FROM metering WHERE vm = ?", "s", find(m, vm)->vm);
	if (!r)
		remove_meter(m, vm);
	return change_end(m, r, err);
}

int metering_reset(struct metering *m, const char *vm, struct error *err)
{
	struct meter *meter = find(m, vm), fresh;
	int r;

	if (!meter)
		return error_set(err, -ENOENT,
				 "this machine is not metered: set its metering to true first");
	r = change_begin(m, err);
	if (r)
		return r;
	fresh = (struct meter){ .since = time_ms(), .run = meter->run };
	memcpy(fresh.vm, meter->vm, sizeof(fresh.vm));
	memcpy(fresh.last, meter->last, sizeof(fresh.last));
	r = row_update(m, &fresh, err);
	if (!r)
		*meter = fresh;
	return change_end(m, r, err);
}

bool metering_enabled(const struct metering *m, const char *vm)
{
	return find(m, vm) != NULL;
}

/* Totals stay below what a column holds. */
static uint64_t sum(uint64_t a, uint64_t b)
{
	uint64_t total;

	return add_overflow(a, b, &total) || total > INT64_MAX ? INT64_MAX : total;
}

static void add_memory(struct meter *meter, uint64_t bytes)
{
	uint64_t kib = bytes / KIB;

	meter->memory_min_kib = meter->memory_samples ? MIN(meter->memory_min_kib, kib) : kib;
	meter->memory_max_kib = MAX(meter->memory_max_kib, kib);
	meter->memory_kib = sum(meter->memory_kib, kib);
	meter->memory_samples++;
}

void metering_sample(struct metering *m, const char *vm, const struct metering_usage *usage)
{
	struct meter *meter = find(m, vm);
	uint64_t now[COUNTERS];

	if (!meter)
		return;
	counters_of(usage, now);
	for (unsigned i = 0; i < COUNTERS; i++) {
		uint64_t last = meter->run == usage->run ? meter->last[i] : 0;

		now[i] = MIN(now[i], (uint64_t)INT64_MAX);
		/* one that went back has nothing to add */
		if (now[i] > last)
			meter->total[i] = sum(meter->total[i], now[i] - last);
		meter->last[i] = MAX(now[i], last);
	}
	meter->run = usage->run;
	add_memory(meter, usage->memory);
	meter->dirty = true;
	write_later(m);
}

/* --- reading --- */

int metering_get(const struct metering *m, const char *vm, struct metering_report *ret,
		 struct error *err)
{
	const struct meter *meter = find(m, vm);

	if (!meter)
		return error_set(err, -ENOENT,
				 "this machine is not metered: set its metering to true first");
	*ret = (struct metering_report){
		.since = meter->since,
		.cpu_us = meter->total[CPU_US],
		.memory_average =
			meter->memory_samples ? meter->memory_kib / meter->memory_samples * KIB : 0,
		.memory_min = meter->memory_min_kib * KIB,
		.memory_max = meter->memory_max_kib * KIB,
		.disk_read = meter->total[DISK_READ],
		.disk_written = meter->total[DISK_WRITTEN],
		.network_received = meter->total[NETWORK_RECEIVED],
		.network_sent = meter->total[NETWORK_SENT],
	};
	return 0;
}

json_t *metering_json(const struct metering_report *r)
{
	return json_pack("{s:o, s:I, s:{s:I, s:I, s:I}, s:{s:I, s:I}, s:{s:I, s:I}}", "since",
			 json_time(r->since), "cpu_us", (json_int_t)r->cpu_us, "memory",
			 "average_mib", (json_int_t)(r->memory_average / MIB), "minimum_mib",
			 (json_int_t)(r->memory_min / MIB), "maximum_mib",
			 (json_int_t)(r->memory_max / MIB), "disk", "read_bytes",
			 (json_int_t)r->disk_read, "written_bytes", (json_int_t)r->disk_written,
			 "network", "received_bytes", (json_int_t)r->network_received, "sent_bytes",
			 (json_int_t)r->network_sent);
}

/* --- life --- */

int metering_new(struct database *db, struct loop *loop, unsigned write_ms, struct metering **ret,
		 struct error *err)
{
	struct metering *m = calloc(1, sizeof(*m));
	int r;

	if (!m)
		return error_set(err, -ENOMEM, "metering: no memory");
	m->db = db;
	m->loop = loop;
	m->write_ms = write_ms;
	m->hook.ended = on_ended;
	loop_timer_init(loop, &m->timer, on_timer);
	r = load(m, err);
	if (r) {
		remove_all(m);
		free(m->meters);
		free(m);
		return r;
	}
	database_hook(db, &m->hook);
	*ret = m;
	return 0;
}

void metering_free(struct metering *m)
{
	if (!m)
		return;
	write_now(m);
	loop_timer_disarm(&m->timer);
	database_unhook(&m->hook);
	remove_all(m);
	free(m->meters);
	free(m);
}
