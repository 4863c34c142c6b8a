// SPDX-License-Identifier: MIT
/*
 * See saving.h. Nothing is in flight when state is written: what a device cannot end at once it is
 * waited for. The records come first in the file, memory last, so that a reader can refuse a state
 * before it has read much of it.
 *
 * Restoring goes: records are judged as far as they can be without memory (is this file whole, this
 * engine, this processor, this much memory), memory is read, then bus and devices, then clock and
 * VPs. A guest that ran before its clock was set would find its reference TSC page wrong and wait
 * for minutes.
 */
#include "worker/saving.h"

#include "lib/cleanup.h"
#include "partition/state.h"
#include "save/save.h"
#include "worker/disks.h"
#include "worker/live.h"
#include "worker/state_memory.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <time.h>

struct flush {
	struct disk_request request;
	struct saving *saving;
};

struct saving {
	struct saving_options o;
	bool cancelled;
	struct state_file *file;
	struct loop_task task; /* ends it, from the loop */
	int result;
	struct error error;

	/* saving */
	bool resting; /* the devices, or nobody waits for them any more */
	unsigned flushing;
	struct flush *flushes; /* one for each drive */

	/* restoring */
	struct save_reader *reader;
};

/* --- the machine's own record --- */

struct saved_machine {
	uint8_t product[32];
	uint64_t time; /* seconds since 1970, for people */
	uint8_t range_count;
	uint64_t range_gpa[GMEM_MAX_RANGES], range_size[GMEM_MAX_RANGES];
};

static const struct save_field machine_fields[] = {
	SAVE_BYTES(struct saved_machine, product),
	SAVE_FIELD(struct saved_machine, time),
	SAVE_COUNTED(struct saved_machine, range_gpa, range_count),
	SAVE_ARRAY(struct saved_machine, range_size),
};
static const struct save_table machine_table =
	SAVE_TABLE("machine", 1, struct saved_machine, machine_fields);

static void save_machine(const struct gmem *gm, struct save_writer *w)
{
	struct saved_machine s = { .product = "partita " PARTITA_VERSION };
	struct timespec now;
	size_t count;
	const struct gmem_range *ranges = gmem_ranges(gm, &count);

	clock_gettime(CLOCK_REALTIME, &now);
	s.time = (uint64_t)now.tv_sec;
	s.range_count = (uint8_t)count;
	for (size_t i = 0; i < count; i++) {
		s.range_gpa[i] = ranges[i].gpa;
		s.range_size[i] = ranges[i].size;
	}
	save_put(w, &machine_table, &s);
}

/* What had been added to the machine is added again; what cannot be is seen by who compares. */
static void restore_growth(struct partition *p, uint64_t size)
{
	struct engine_partition *e = partition_engine(p);
	size_t count;
	const struct gmem_range *ranges = gmem_ranges(partition_gmem(p), &count);
	const struct gmem_range *last = &ranges[count - 1];

	if (size <= last->size || size > last->most || (size - last->size) % (2 * MIB))
		return;
	if (e->engine->memory_add(e, last->size, size - last->size) >= 0)
		(void)!gmem_grow(partition_gmem(p), size);
}

static int restore_machine(struct partition *p, struct save_reader *r, struct error *err)
{
	const struct gmem *gm = partition_gmem(p);
	struct saved_machine s = { 0 };
	uint64_t sum = 0;
	size_t count;
	const struct gmem_range *ranges = gmem_ranges(gm, &count);
	bool same;
	int n = save_get(r, &machine_table, &s, err);

	if (n < 0)
		return n;
	same = s.range_count == count;
	if (same)
		restore_growth(p, s.range_size[count - 1]);
	for (size_t i = 0; i < s.range_count; i++) {
		sum += s.range_size[i];
		same = same && s.range_gpa[i] == ranges[i].gpa && s.range_size[i] == ranges[i].size;
	}
	if (!same)
		return error_set(err, -EINVAL,
				 "the machine was saved with %llu MiB of memory and now has %llu, "
				 "or they lie elsewhere",
				 (unsigned long long)(sum / MIB),
				 (unsigned long long)(gmem_size(gm) / MIB));
	return 0;
}

/* --- ends --- */

static void on_task(struct loop_task *t)
{
	struct saving *s = container_of(t, struct saving, task);

	s->o.done(s->o.context, s->result, &s->error);
}

static void end(struct saving *s, int result)
{
	s->result = result;
	loop_defer(s->o.machine.loop, &s->task);
}

/* A save that failed: all goes on as if nothing was. */
static void give_up(struct saving *s, int result)
{
	vmbus_resume(s->o.machine.bus);
	end(s, result);
}

static bool cancelled(struct saving *s)
{
	if (s->cancelled)
		error_set(&s->error, -ECANCELED, "it was cancelled");
	return s->cancelled;
}

/* --- saving --- */

int saving_possible(const struct saving_machine *m, struct error *err)
{
	struct save_writer *w;
	int r = vmbus_savable(m->bus, err);

	if (r >= 0)
		r = live_quiet(disks_live(m->disks), err);
	if (r >= 0)
		r = save_writer_new(&w, err);
	if (r < 0)
		return r;
	r = platform_save(m->platform, w, err);
	save_writer_free(w);
	return r;
}

static void on_written(void *context, int result, const struct error *err)
{
	struct saving *s = context;

	s->error = *err;
	if (result < 0)
		give_up(s, result);
	else
		end(s, 0);
}

static int each_vp(void *context, int (*fn)(void *arg, unsigned vp, struct error *err), void *arg,
		   struct error *err)
{
	return vps_each(context, fn, arg, err);
}

static int put_records(struct saving *s, struct save_writer *w)
{
	const struct saving_machine *m = &s->o.machine;
	const struct partition_threads threads = { each_vp, m->vps };
	int r;

	save_machine(m->gm, w);
	r = partition_save(m->partition, &threads, w, &s->error);
	if (r >= 0)
		r = vmbus_save(m->bus, w, &s->error);
	if (r >= 0)
		r = platform_save(m->platform, w, &s->error);
	return r;
}

static void on_progress(void *context, unsigned percent)
{
	struct saving *s = context;

	if (s->o.progress)
		s->o.progress(s->o.context, percent);
}

static struct state_file_options
file_options(struct saving *s, void (*done)(void *context, int result, const struct error *err))
{
	return (struct state_file_options){
		.loop = s->o.machine.loop,
		.gm = s->o.machine.gm,
		.fd = s->o.fd,
		.progress = on_progress,
		.done = done,
		.context = s,
	};
}

static void write_all(struct saving *s)
{
	const struct state_file_options o = file_options(s, on_written);
	struct save_writer *w;
	int r = save_writer_new(&w, &s->error);

	if (r >= 0) {
		r = put_records(s, w);
		if (r < 0)
			save_writer_free(w);
	}
	if (r >= 0)
		r = state_file_write(&o, w, &s->file, &s->error);
	if (r < 0)
		give_up(s, r);
}

static void flushes_ended(struct saving *s)
{
	if (s->error.code < 0)
		give_up(s, s->error.code);
	else if (cancelled(s))
		give_up(s, -ECANCELED);
	else
		write_all(s);
}

static void on_flushed(struct disk_request *req, int result)
{
	struct saving *s = container_of(req, struct flush, request)->saving;

	if (result < 0 && !s->error.code)
		error_errno(&s->error, result, "a disk could not be flushed");
	if (!--s->flushing)
		flushes_ended(s);
}

/* What the guest was told is written must be in the images before the state refers to it. */
static void flush_disks(struct saving *s)
{
	const struct live *live = disks_live(s->o.machine.disks);
	unsigned count = live_count(live);

	s->flushes = calloc(count + 1, sizeof(*s->flushes));
	if (!s->flushes) {
		give_up(s, error_set(&s->error, -ENOMEM, "out of memory"));
		return;
	}
	s->flushing = 1;
	for (unsigned i = 0; i < count; i++) {
		struct drive *drive = live_drive(live, i);
		struct flush *f = &s->flushes[i];

		if (!drive->disk || drive->disk->geometry.read_only)
			continue;
		f->saving = s;
		f->request = (struct disk_request){ .op = DISK_FLUSH, .done = on_flushed };
		s->flushing++;
		disk_submit(drive->disk, &f->request);
	}
	if (!--s->flushing)
		flushes_ended(s);
}

static void on_paused(void *context)
{
	struct saving *s = context;

	s->resting = true;
	if (cancelled(s))
		give_up(s, -ECANCELED);
	else
		flush_disks(s);
}

static struct saving *saving_new(const struct saving_options *o, struct error *err)
{
	struct saving *s = calloc(1, sizeof(*s));

	if (!s) {
		error_set(err, -ENOMEM, "out of memory");
		return NULL;
	}
	s->o = *o;
	loop_task_init(&s->task, on_task);
	return s;
}

int saving_begin(const struct saving_options *o, struct saving **ret, struct error *err)
{
	struct saving *s;
	int r = saving_possible(&o->machine, err);

	if (r < 0)
		return r;
	s = saving_new(o, err);
	if (!s)
		return -ENOMEM;
	partition_drain(o->machine.partition);
	vmbus_pause(o->machine.bus, on_paused, s);
	*ret = s;
	return 0;
}

/* --- restoring --- */

static int restore_rest(struct saving *s)
{
	const struct saving_machine *m = &s->o.machine;
	const struct partition_threads threads = { each_vp, m->vps };
	int r = vmbus_restore(m->bus, s->reader, &s->error);

	if (r >= 0)
		r = platform_restore(m->platform, s->reader, &s->error);
	if (r >= 0)
		r = save_reader_finish(s->reader, &s->error);
	return r < 0 ? r : partition_restore_vps(m->partition, &threads, &s->error);
}

static void on_read(void *context, int result, const struct error *err)
{
	struct saving *s = context;

	s->error = *err;
	end(s, result < 0 ? result : restore_rest(s));
}

static int judge(struct saving *s, struct error *err)
{
	const struct state_file_options o = file_options(s, on_read);
	int r = save_reader_open(s->o.fd, &s->reader, err);

	if (r >= 0)
		r = restore_machine(s->o.machine.partition, s->reader, err);
	if (r >= 0)
		r = partition_restore(s->o.machine.partition, s->reader, err);
	return r < 0 ? r : state_file_read(&o, s->reader, &s->file, err);
}

int restoring_begin(const struct saving_options *o, struct saving **ret, struct error *err)
{
	struct saving *s = saving_new(o, err);
	int r = s ? judge(s, err) : -ENOMEM;

	if (r < 0) {
		saving_free(s);
		return r;
	}
	*ret = s;
	return 0;
}

/* --- both --- */

void saving_cancel(struct saving *s)
{
	s->cancelled = true;
	if (s->file) {
		state_file_cancel(s->file);
	} else if (!s->resting && !s->reader) {
		/* Devices may take long to come to rest: nobody waits for that. */
		s->resting = true;
		(void)cancelled(s);
		give_up(s, -ECANCELED);
	}
}

void saving_free(struct saving *s)
{
	if (!s)
		return;
	assert(!s->flushing);
	loop_cancel(s->o.machine.loop, &s->task);
	state_file_free(s->file);
	save_reader_free(s->reader);
	free(s->flushes);
	free(s);
}
