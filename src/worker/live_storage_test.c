// SPDX-License-Identifier: MIT
/*
 * A file system that is full under the disk of a machine, for real: a small tmpfs. The guest is a
 * model (vhd/disk_model.h): random requests, against an array.
 */
#include "vhd/disk_drive.h"
#include "vhd/disk_model.h"
#include "vhd/image.h"
#include "vhd/vhd.h"
#include "vhd/vhdx.h"
#include "worker/live.h"

#include "lib/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mount.h>

#include <cmocka.h>

#define SIZE  (16 * MIB)
#define LARGE (12 * MIB)

static char folder[] = "/tmp/partita-full-XXXXXX";

struct bed {
	struct loop *loop;
	struct live *live;
	struct drive *drive;
	struct model m;
	struct live_storage storage;
	struct loop_timer room;
	unsigned lost, back, lost_told, back_told;
	char reason[64];
};

static void file_system(const char *size, unsigned long flags)
{
	char options[32];

	snprintf(options, sizeof(options), "size=%s", size);
	assert_int_equal(mount("small", folder, "tmpfs", flags, options), 0);
}

static void on_event(void *context, const struct live_event *e)
{
	struct bed *b = context;

	assert_ptr_equal(e->drive, b->drive);
	if (e->type == LIVE_STORAGE_LOST)
		snprintf(b->reason, sizeof(b->reason), "%s", e->reason);
	b->lost_told += e->type == LIVE_STORAGE_LOST;
	b->back_told += e->type == LIVE_STORAGE_BACK;
}

static void on_lost(struct live_storage *s)
{
	struct bed *b = container_of(s, struct bed, storage);

	b->lost++;
	assert_true(live_storage_lost(b->live));
	loop_timer_arm(&b->room, loop_now(b->loop) + UINT64_C(2500000000));
}

static void on_back(struct live_storage *s)
{
	struct bed *b = container_of(s, struct bed, storage);

	b->back++;
	assert_false(live_storage_lost(b->live));
}

static void on_room(struct loop_timer *t)
{
	(void)t;
	file_system("100m", MS_REMOUNT);
}

static struct bed *bed_new(bool vhd)
{
	const struct vhdx_create_options xo = { .size = SIZE, .block_size = MIB };
	const struct vhd_create_options vo = { .size = SIZE, .kind = VHD_DYNAMIC };
	struct bed *b = calloc(1, sizeof(*b));
	struct drive_options o = { 0 };
	struct error err = { 0 };
	char path[64];
	int fd;

	file_system("4m", 0);
	snprintf(path, sizeof(path), "%s/disk", folder);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(vhd ? vhd_create(fd, &vo, NULL) : vhdx_create(fd, &xo, NULL), 0);
	assert_int_equal(loop_new(64, &b->loop, &err), 0);
	o.loop = b->loop;
	assert_int_equal(drive_open(&o, fd, path, &b->drive, &err), 0);
	assert_int_equal(live_new(&(struct live_options){ b->loop, &b->drive, 1 }, &b->live, &err),
			 0);
	live_on_event(b->live, on_event, b);
	b->storage = (struct live_storage){ on_lost, on_back };
	live_on_storage(b->live, &b->storage);
	loop_timer_init(b->loop, &b->room, on_room);
	b->m = (struct model){ .d = b->drive->disk,
			       .expect = calloc(1, SIZE),
			       .size = SIZE,
			       .sector = 512,
			       .seed = 3 };
	live_running(b->live);
	return b;
}

static void on_settled(void *context)
{
	*(bool *)context = true;
}

static void bed_free(struct bed *b)
{
	bool settled = false;

	live_settle(b->live, on_settled, &settled);
	while (!settled)
		assert_int_equal(loop_once(b->loop, -1), 0);
	(void)!drive_close(b->drive, NULL);
	live_free(b->live);
	loop_timer_disarm(&b->room);
	loop_free(b->loop);
	free(b->m.expect);
	free(b);
	assert_int_equal(umount2(folder, MNT_DETACH), 0);
}

struct write {
	struct disk_request req;
	struct iovec iov;
	int result;
	bool done;
};

static void on_write(struct disk_request *req, int result)
{
	struct write *w = container_of(req, struct write, req);

	w->done = true;
	w->result = result;
}

/* More than there is room for. */
static void write_begin(struct bed *b, struct write *w, uint8_t *bytes)
{
	*w = (struct write){ .iov = { bytes, LARGE } };
	w->req = (struct disk_request){
		.op = DISK_WRITE, .length = LARGE, .iov = &w->iov, .iovcnt = 1, .done = on_write
	};
	disk_submit(b->m.d, &w->req);
}

/* The guest goes on with other things while its file system is full. */
static void goes_on(bool vhd)
{
	struct bed *b = bed_new(vhd);
	struct write w;

	memset(b->m.expect, 7, LARGE);
	write_begin(b, &w, b->m.expect);
	while (!w.done)
		assert_int_equal(loop_once(b->loop, -1), 0);
	assert_int_equal(w.result, 0);
	assert_true(b->lost >= 1 && b->lost == b->back);
	assert_int_equal(b->lost_told, b->lost);
	assert_int_equal(b->back_told, b->back);
	assert_string_equal(b->reason, "No space left on device");
	for (unsigned i = 0; i < 2000; i++)
		model_step(&b->m, MIB);
	model_settle(&b->m);
	assert_int_equal(drive_flush(b->m.d), 0);
	model_compare(&b->m);
	bed_free(b);
}

static void test_a_full_file_system_that_gets_room(void **state)
{
	(void)state;
	goes_on(false);
	goes_on(true);
}

/* A reset, or the end, does not wait: the requests fail, and the next life waits again. */
static void test_a_reset_does_not_wait(void **state)
{
	_cleanup_free_ uint8_t *bytes = calloc(1, LARGE);
	struct bed *b = bed_new(false);
	struct write w[2] = { 0 };

	(void)state;
	memset(bytes, 7, LARGE);
	for (unsigned i = 0; i < 2; i++) {
		write_begin(b, &w[i], bytes);
		while (b->lost < i + 1)
			assert_int_equal(loop_once(b->loop, -1), 0);
		loop_timer_disarm(&b->room);
		assert_false(w[i].done);
		live_reset(b->live);
		assert_false(live_storage_lost(b->live));
		while (!w[i].done)
			assert_int_equal(loop_once(b->loop, -1), 0);
		assert_int_equal(w[i].result, -ENOSPC);
		assert_int_equal(b->back, 0);
		live_running(b->live);
	}
	bed_free(b);
}

static int setup(void **state)
{
	(void)state;
	return mkdtemp(folder) && !mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	return rmdir(folder);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_full_file_system_that_gets_room),
		cmocka_unit_test(test_a_reset_does_not_wait),
	};

	if (unshare(geteuid() ? CLONE_NEWUSER | CLONE_NEWNS : CLONE_NEWNS) < 0) {
		fprintf(stderr, "nobody lets us mount: %s\n", strerror(errno));
		return 77;
	}
	return cmocka_run_group_tests(tests, setup, teardown);
}
