// SPDX-License-Identifier: MIT
/*
 * A disk that fails, or is full, or loses power at each of its operations in turn: what was
 * acknowledged is there afterwards, each change whole, and the words are right. SQLite's files pass
 * through a layer that can refuse, and that knows what was written and not flushed: a power cut
 * drops any part of that.
 */
#include "daemon/database.h"
#include "daemon/testing.h"
#include "lib/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <unistd.h>

static struct error err;

/* --- the layer --- */

/* A write that is not flushed yet. */
struct unflushed {
	struct unflushed *before;
	char *path;
	sqlite3_int64 offset, old_file_size;
	int size;
	char *old_bytes, *new_bytes;
	int old_size; /* bytes that were there */
	bool kept;
};

static struct {
	long operations; /* since the last plan */
	long fail_at;    /* 0: never */
	bool for_ever;   /* all later ones, too */
	int code;
	bool failed;
	unsigned log_flushes;
	struct unflushed *last;
} disk;

struct layer_file {
	sqlite3_file base;
	const char *path; /* NULL: one without a name */
	sqlite3_file *below;
};

static sqlite3_vfs layer, *below_vfs;

static bool refused(void)
{
	long n = ++disk.operations;
	bool now = disk.fail_at && (disk.for_ever ? n >= disk.fail_at : n == disk.fail_at);

	disk.failed |= now;
	return now;
}

static sqlite3_file *below(sqlite3_file *f)
{
	return ((struct layer_file *)f)->below;
}

static void unflushed_free(struct unflushed *u)
{
	free(u->path);
	free(u->old_bytes);
	free(u->new_bytes);
	free(u);
}

static void flushed(const char *path)
{
	struct unflushed **at = &disk.last;

	while (*at) {
		struct unflushed *u = *at;

		if (path && strcmp(u->path, path)) {
			at = &u->before;
			continue;
		}
		*at = u->before;
		unflushed_free(u);
	}
}

static void note(struct layer_file *f, const void *bytes, int size, sqlite3_int64 offset)
{
	struct unflushed *u = calloc(1, sizeof(*u));
	sqlite3_int64 file_size;

	f->below->pMethods->xFileSize(f->below, &file_size);
	*u = (struct unflushed){ .before = disk.last,
				 .path = strdup(f->path),
				 .offset = offset,
				 .old_file_size = file_size,
				 .size = size,
				 .old_bytes = calloc(1, (size_t)size),
				 .new_bytes = memcpy(malloc((size_t)size), bytes, (size_t)size) };
	u->old_size = (int)MAX(0, MIN(file_size - offset, size));
	if (u->old_size)
		f->below->pMethods->xRead(f->below, u->old_bytes, u->old_size, offset);
	disk.last = u;
}

static int layer_close(sqlite3_file *f)
{
	int rc = below(f)->pMethods->xClose(below(f));

	free(below(f));
	return rc;
}

static int layer_read(sqlite3_file *f, void *bytes, int size, sqlite3_int64 offset)
{
	return below(f)->pMethods->xRead(below(f), bytes, size, offset);
}

static int layer_write(sqlite3_file *f, const void *bytes, int size, sqlite3_int64 offset)
{
	struct layer_file *l = (struct layer_file *)f;

	if (refused())
		return disk.code == SQLITE_FULL ? SQLITE_FULL : SQLITE_IOERR_WRITE;
	if (l->path)
		note(l, bytes, size, offset);
	return below(f)->pMethods->xWrite(below(f), bytes, size, offset);
}

static int layer_truncate(sqlite3_file *f, sqlite3_int64 size)
{
	return refused() ? SQLITE_IOERR_TRUNCATE : below(f)->pMethods->xTruncate(below(f), size);
}

static int layer_sync(sqlite3_file *f, int flags)
{
	if (refused())
		return SQLITE_IOERR_FSYNC;
	(void)flags; /* the disk is ours: nothing need reach the one below */
	if (((struct layer_file *)f)->path) {
		flushed(((struct layer_file *)f)->path);
		disk.log_flushes += strstr(((struct layer_file *)f)->path, "-wal") != NULL;
	}
	return SQLITE_OK;
}

static int layer_file_size(sqlite3_file *f, sqlite3_int64 *size)
{
	return below(f)->pMethods->xFileSize(below(f), size);
}

static int layer_lock(sqlite3_file *f, int level)
{
	return below(f)->pMethods->xLock(below(f), level);
}

static int layer_unlock(sqlite3_file *f, int level)
{
	return below(f)->pMethods->xUnlock(below(f), level);
}

static int layer_check_lock(sqlite3_file *f, int *ret)
{
	return below(f)->pMethods->xCheckReservedLock(below(f), ret);
}

static int layer_control(sqlite3_file *f, int op, void *argument)
{
	return below(f)->pMethods->xFileControl(below(f), op, argument);
}

static int layer_sector_size(sqlite3_file *f)
{
	return below(f)->pMethods->xSectorSize(below(f));
}

static int layer_characteristics(sqlite3_file *f)
{
	/* nothing that is atomic or in order by itself */
	(void)f;
	return 0;
}

/* Version 1: no shared memory, so that this also shows that the database is held alone. */
static const sqlite3_io_methods layer_methods = {
	.iVersion = 1,
	.xClose = layer_close,
	.xRead = layer_read,
	.xWrite = layer_write,
	.xTruncate = layer_truncate,
	.xSync = layer_sync,
	.xFileSize = layer_file_size,
	.xLock = layer_lock,
	.xUnlock = layer_unlock,
	.xCheckReservedLock = layer_check_lock,
	.xFileControl = layer_control,
	.xSectorSize = layer_sector_size,
	.xDeviceCharacteristics = layer_characteristics,
};

static int layer_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *f, int flags, int *out)
{
	struct layer_file *l = (struct layer_file *)f;
	int rc;

	(void)vfs;
	l->base.pMethods = NULL;
	l->path = name;
	l->below = calloc(1, (size_t)below_vfs->szOsFile);
	rc = below_vfs->xOpen(below_vfs, name, l->below, flags, out);
	if (rc == SQLITE_OK)
		l->base.pMethods = &layer_methods;
	else
		free(l->below);
	return rc;
}

static int layer_delete(sqlite3_vfs *vfs, const char *name, int sync)
{
	(void)vfs;
	return refused() ? SQLITE_IOERR_DELETE : below_vfs->xDelete(below_vfs, name, sync);
}

static int group_setup(void **state)
{
	(void)state;
	below_vfs = sqlite3_vfs_find(NULL);
	layer = *below_vfs;
	layer.zName = "layer";
	layer.szOsFile = sizeof(struct layer_file);
	layer.xOpen = layer_open;
	layer.xDelete = layer_delete;
	return sqlite3_vfs_register(&layer, 1);
}

/* --- power cuts --- */

static void file_put(const char *path, const char *bytes, int size, sqlite3_int64 offset)
{
	_cleanup_close_ int fd = open(path, O_WRONLY);

	if (fd < 0)
		return; /* deleted since: that was durable */
	assert_int_equal(pwrite(fd, bytes, (size_t)size, offset), size);
}

static void apply_kept(const struct unflushed *u)
{
	if (!u)
		return;
	apply_kept(u->before);
	if (u->kept)
		file_put(u->path, u->new_bytes, u->size, u->offset);
}

/* Any part of what was not flushed reached the disk. */
static void cut_power(unsigned *seed)
{
	int share = rand_r(seed) % 3; /* nothing, half, nearly all */

	for (struct unflushed *u = disk.last; u; u = u->before) {
		u->kept = rand_r(seed) % 8 < share * 4 - (share == 2);
		if (u->old_size)
			file_put(u->path, u->old_bytes, u->old_size, u->offset);
		if (u->old_size < u->size)
			assert_true(truncate(u->path, u->old_file_size) == 0 || errno == ENOENT);
	}
	apply_kept(disk.last);
	flushed(NULL);
}

/* --- a history --- */

#define CHANGES 8

static struct database *db;
static bool acknowledged[CHANGES];

static int change(int64_t n)
{
	static char content[1500000];
	char id[16];
	int r;

	memset(content, 'x', sizeof(content) - 1);
	/* some fill the log, so that it is played in; the last is small again */
	content[n % 3 ? 10 : sizeof(content) - 1] = '\0';
	snprintf(id, sizeof(id), "%d", (int)n);
	r = database_begin(db, &err);
	if (r)
		return r;
	r = database_run(db, &err, "INSERT INTO things VALUES (?, 'pool', '', ?, ?)", "ssi", id,
			 content, n);
	if (!r)
		r = database_run(db, &err, "INSERT INTO keys VALUES ('c', ?, '', '', ?)", "si", id,
				 n);
	if (!r)
		return database_commit(db, &err);
	database_rollback(db);
	return r;
}

static void assert_code(int r, int code)
{
	/* a full disk refuses writes only: a flush or a truncation that fails is another thing */
	if (r && r != -EIO && r != (code == SQLITE_FULL ? -ENOSPC : -EIO))
		fail_msg("%d: %s", r, err.message);
	if (r == -ENOSPC)
		assert_non_null(strstr(err.message, "full"));
	assert_true(!r || err.message[0]);
}

static void history(const char *folder, int code)
{
	int r = database_open(folder, &db, &err);

	memset(acknowledged, 0, sizeof(acknowledged));
	assert_code(r, code);
	if (r)
		return;
	for (int n = 0; n < CHANGES; n++) {
		unsigned flushes = disk.log_flushes;

		r = change(n);
		assert_code(r, code);
		acknowledged[n] = !r;
		assert_false(database_in_transaction(db));
		assert_true(r || disk.log_flushes > flushes);
	}
	database_close(db);
}

static int read_number(void *context, const struct database_row *row)
{
	*(int64_t *)context = row_integer(row, 0);
	return 0;
}

static int64_t count_of(const char *sql, int64_t n)
{
	int64_t count = -1;

	if (database_query(db, &err, read_number, &count, sql, "i", n) < 0)
		fail_msg("%s", err.message);
	return count;
}

static void judge(const char *folder, long n)
{
	disk.fail_at = 0;
	if (database_open(folder, &db, &err) < 0)
		fail_msg("after operation %ld: %s", n, err.message);
	for (int i = 0; i < CHANGES; i++) {
		int64_t here = count_of("SELECT count(*) FROM things WHERE revision = ?", i);

		assert_int_equal(count_of("SELECT count(*) FROM keys WHERE time = ?", i), here);
		if (acknowledged[i] && !here)
			fail_msg("operation %ld failed: change %d was acknowledged and is lost", n,
				 i);
	}
	/* and it can be used on */
	assert_int_equal(change(1000), 0);
	database_close(db);
	flushed(NULL);
}

static void forget(const char *folder)
{
	static const char *const names[] = { "partita.db", "partita.db-wal", "partita.db-journal" };

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		_cleanup_free_ char *path = NULL;

		assert_true(asprintf(&path, "%s/%s", folder, names[i]) > 0);
		assert_true(unlink(path) == 0 || errno == ENOENT);
	}
}

/* Each operation in turn, until a history passes without; then `after`. */
static void fail_each(const char *folder, bool for_ever, int code, void (*after)(unsigned *seed))
{
	unsigned seed = 1;
	long n = 0;

	do {
		forget(folder);
		disk.operations = 0;
		disk.fail_at = ++n;
		disk.for_ever = for_ever;
		disk.code = code;
		disk.failed = false;
		history(folder, code);
		if (after && disk.failed)
			after(&seed);
		flushed(NULL);
		judge(folder, n);
		/* all around what is interesting: opening and small changes; some of the large */
		if (n > 60)
			n += 1 + rand_r(&seed) % 180;
	} while (disk.failed);
	assert_true(n > 100);
	for (int i = 0; i < CHANGES; i++)
		assert_true(acknowledged[i]);
}

static void test_an_operation_that_fails(void **state)
{
	fail_each(*state, false, SQLITE_IOERR, NULL);
}

static void test_a_disk_that_is_full_for_a_moment(void **state)
{
	fail_each(*state, false, SQLITE_FULL, NULL);
}

static void test_a_disk_that_stays_full(void **state)
{
	fail_each(*state, true, SQLITE_FULL, NULL);
}

static void test_a_disk_that_is_gone(void **state)
{
	fail_each(*state, true, SQLITE_IOERR, NULL);
}

static void test_a_power_cut(void **state)
{
	for (int i = 0; i < 3; i++)
		fail_each(*state, true, SQLITE_IOERR, cut_power);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, test_folder_setup, test_folder_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_an_operation_that_fails),
		TEST(test_a_disk_that_is_full_for_a_moment),
		TEST(test_a_disk_that_stays_full),
		TEST(test_a_disk_that_is_gone),
		TEST(test_a_power_cut),
	};

	return cmocka_run_group_tests(tests, group_setup, NULL);
}
