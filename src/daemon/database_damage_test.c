// SPDX-License-Identifier: MIT
/*
 * Files that are damaged, cut, another program's or a newer service's: recognised, with words, and
 * left as they are. And disks that are full or read-only, as the kernel makes them.
 */
#include "daemon/database.h"
#include "daemon/testing.h"
#include "lib/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sqlite3.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#define VMS 300 /* some pages of them */

static struct error err;

/* --- a whole database as bytes --- */

struct bytes {
	char *data;
	size_t size;
};

static char *path_in(const char *folder, const char *name)
{
	char *path;

	assert_true(asprintf(&path, "%s/%s", folder, name) > 0);
	return path;
}

static struct bytes file_read(const char *folder, const char *name)
{
	_cleanup_free_ char *path = path_in(folder, name);
	struct bytes b = { 0 };
	struct stat st;
	_cleanup_close_ int fd = open(path, O_RDONLY);

	if (fd < 0)
		return b;
	assert_int_equal(fstat(fd, &st), 0);
	b.size = (size_t)st.st_size;
	b.data = malloc(b.size + 1);
	assert_int_equal(read(fd, b.data, b.size), b.size);
	return b;
}

static void file_write(const char *folder, const char *name, const void *data, size_t size)
{
	_cleanup_free_ char *path = path_in(folder, name);
	_cleanup_close_ int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, data, size), size);
}

static void file_remove(const char *folder, const char *name)
{
	_cleanup_free_ char *path = path_in(folder, name);

	assert_true(unlink(path) == 0 || errno == ENOENT);
}

static int insert(struct database *db, int n)
{
	char id[48];

	snprintf(id, sizeof(id), "aaaaaaaa-0000-0000-0000-%012d", n);
	return database_run(db, &err,
			    "INSERT INTO vms (id, folder, phase) VALUES (?1, '/folder/of/' || ?1, "
			    "'present')",
			    "s", id);
}

static struct database *open_ok(const char *folder)
{
	struct database *db;

	if (database_open(folder, &db, &err) < 0)
		fail_msg("%s", err.message);
	return db;
}

/* Closed, so that all is in the one file. */
static struct bytes whole(const char *folder)
{
	struct database *db = open_ok(folder);

	assert_int_equal(database_begin(db, &err), 0);
	for (int i = 0; i < VMS; i++)
		assert_int_equal(insert(db, i), 0);
	assert_int_equal(database_commit(db, &err), 0);
	database_close(db);
	return file_read(folder, "partita.db");
}

static int read_number(void *context, const struct database_row *row)
{
	*(int64_t *)context = row_integer(row, 0);
	return 0;
}

static int count(struct database *db, int64_t *ret)
{
	return database_query(db, &err, read_number, ret, "SELECT count(*) FROM vms", "");
}

/* Opens what lies there: all of it is there, or it is refused and not a byte has changed. */
static int open_or_refuse(const char *folder)
{
	struct bytes before = file_read(folder, "partita.db"), after;
	struct database *db;
	int64_t vms = -1;
	int r;

	file_remove(folder, "partita.db-wal");
	r = database_open(folder, &db, &err);
	if (!r) {
		assert_int_equal(count(db, &vms), 0);
		assert_int_equal(vms, VMS);
		database_close(db);
		free(before.data);
		return 0;
	}
	after = file_read(folder, "partita.db");
	assert_int_equal(before.size, after.size);
	assert_memory_equal(before.data, after.data, after.size);
	free(before.data);
	free(after.data);
	if (r != -EUCLEAN)
		fail_msg("%d: %s", r, err.message);
	return r;
}

/* --- damage --- */

static void test_damage_of_each_byte_of_the_header(void **state)
{
	struct bytes b = whole(*state);
	unsigned refused = 0;

	for (size_t at = 0; at < 100; at++) {
		for (int how = 0; how < 4; how++) {
			char was = b.data[at];

			b.data[at] = (char)(how == 0   ? 0
					    : how == 1 ? 0xff
						       : was ^ (how == 2 ? 1 : 64));
			file_write(*state, "partita.db", b.data, b.size);
			refused += open_or_refuse(*state) != 0;
			if (at < 16 || (at >= 68 && at < 72))
				assert_true(b.data[at] == was || err.code == -EUCLEAN);
			err.code = 0;
			b.data[at] = was;
		}
	}
	print_message("%u of 400 refused\n", refused);
	assert_true(refused > 100);
	file_write(*state, "partita.db", b.data, b.size);
	assert_int_equal(open_or_refuse(*state), 0);
	free(b.data);
}

/* In what is not looked at (events, free pages) damage may stay unseen; machines are all there. */
static void test_damage_anywhere(void **state)
{
	struct bytes b = whole(*state);
	char *copy = malloc(b.size);
	unsigned seed = 7, refused = 0;

	for (int i = 0; i < 300; i++) {
		memcpy(copy, b.data, b.size);
		for (int n = rand_r(&seed) % 64 + 1; n; n--)
			copy[100 + (size_t)rand_r(&seed) % (b.size - 100)] ^= (char)(1 << n % 8);
		file_write(*state, "partita.db", copy, b.size);
		file_remove(*state, "partita.db-wal");
		{
			struct database *db;
			int r = database_open(*state, &db, &err);
			int64_t vms;

			refused += r != 0;
			assert_true(!r || r == -EUCLEAN);
			if (!r && count(db, &vms) == 0)
				assert_int_equal(vms, VMS);
			if (!r)
				database_close(db);
		}
	}
	print_message("%u of 300 refused\n", refused);
	assert_true(refused > 100);
	free(copy);
	free(b.data);
}

static void test_files_that_are_cut(void **state)
{
	struct bytes b = whole(*state);
	static const size_t sizes[] = { 0, 1, 15, 16, 99, 100, 511, 512, 4095, 4096, 4097, 8192 };

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		file_write(*state, "partita.db", b.data, sizes[i]);
		assert_int_equal(open_or_refuse(*state), -EUCLEAN);
		assert_non_null(strstr(err.message, "was left as it is"));
	}
	/* a part of the last page may be missing when there was nothing in it */
	for (size_t size = b.size - 4096; size > 8192; size -= MIN(size, 3000)) {
		file_write(*state, "partita.db", b.data, size);
		assert_int_equal(open_or_refuse(*state), -EUCLEAN);
	}
	free(b.data);
}

/* The log is checked by SQLite: what is behind the damage did not happen, nothing worse. */
static void test_damage_of_the_log(void **state)
{
	struct database *db = open_ok(*state);
	struct bytes main_file, log;
	unsigned seed = 3;
	int64_t vms;

	for (int i = 0; i < 20; i++)
		assert_int_equal(insert(db, i), 0);
	main_file = file_read(*state, "partita.db");
	log = file_read(*state, "partita.db-wal");
	assert_true(log.size > 20 * 4096);
	database_close(db);
	for (int i = 0; i < 100; i++) {
		size_t at = (size_t)rand_r(&seed) % log.size;

		log.data[at] ^= 16;
		file_write(*state, "partita.db", main_file.data, main_file.size);
		file_write(*state, "partita.db-wal", log.data, log.size);
		log.data[at] ^= 16;
		db = open_ok(*state);
		assert_int_equal(count(db, &vms), 0);
		assert_in_range(vms, 0, 20);
		database_close(db);
	}
	free(main_file.data);
	free(log.data);
}

/* --- other files --- */

static void test_other_files_are_not_touched(void **state)
{
	static const char text[] =
		"This is the diary of somebody else, who would like to keep it. "
		"It is more than a hundred bytes long, as a header of SQLite is.";
	_cleanup_free_ char *path = path_in(*state, "partita.db");
	struct database *db;
	sqlite3 *other;

	file_write(*state, "partita.db", text, sizeof(text));
	assert_int_equal(open_or_refuse(*state), -EUCLEAN);
	assert_non_null(strstr(err.message, "no SQLite file"));
	file_remove(*state, "partita.db");
	assert_int_equal(sqlite3_open(path, &other), SQLITE_OK);
	assert_int_equal(sqlite3_exec(other, "CREATE TABLE vms (id)", NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(other);
	assert_int_equal(open_or_refuse(*state), -EUCLEAN);
	assert_non_null(strstr(err.message, "another program's"));
	file_remove(*state, "partita.db");
	assert_int_equal(mkdir(path, 0700), 0);
	assert_true(database_open(*state, &db, &err) < 0);
	assert_int_equal(rmdir(path), 0);
	assert_int_equal(symlink("elsewhere", path), 0);
	assert_true(database_open(*state, &db, &err) < 0);
	file_remove(*state, "partita.db");
}

static void alter(const char *folder, const char *sql)
{
	_cleanup_free_ char *path = path_in(folder, "partita.db");
	sqlite3 *other;

	assert_int_equal(sqlite3_open(path, &other), SQLITE_OK);
	if (sqlite3_exec(other, sql, NULL, NULL, NULL) != SQLITE_OK)
		fail_msg("%s", sqlite3_errmsg(other));
	sqlite3_close(other);
}

static void test_a_newer_file_is_refused(void **state)
{
	free(whole(*state).data);
	alter(*state, "PRAGMA user_version = 99");
	assert_int_equal(open_or_refuse(*state), -EUCLEAN);
	assert_non_null(strstr(err.message, "newer service"));
	assert_non_null(strstr(err.message, "99"));
	alter(*state, "PRAGMA user_version = 0");
	assert_int_equal(open_or_refuse(*state), -EUCLEAN);
}

/* A newer service died, and its version is in the log only. */
static void test_a_newer_log_is_refused(void **state)
{
	_cleanup_free_ char *path = path_in(*state, "partita.db");
	struct bytes main_file = whole(*state), log, after;
	struct database *db;
	sqlite3 *newer;

	assert_int_equal(sqlite3_open(path, &newer), SQLITE_OK);
	assert_int_equal(sqlite3_exec(newer, "PRAGMA user_version = 2", NULL, NULL, NULL),
			 SQLITE_OK);
	log = file_read(*state, "partita.db-wal");
	assert_true(log.size > 0);
	sqlite3_close(newer);
	file_write(*state, "partita.db", main_file.data, main_file.size);
	file_write(*state, "partita.db-wal", log.data, log.size);
	assert_int_equal(database_open(*state, &db, &err), -EUCLEAN);
	assert_non_null(strstr(err.message, "newer service"));
	after = file_read(*state, "partita.db");
	assert_int_equal(after.size, main_file.size);
	assert_memory_equal(after.data, main_file.data, after.size);
	free(after.data);
	after = file_read(*state, "partita.db-wal");
	assert_int_equal(after.size, log.size);
	assert_memory_equal(after.data, log.data, after.size);
	free(after.data);
	free(main_file.data);
	free(log.data);
}

static void test_tables_that_are_not_ours_are_refused(void **state)
{
	static const char *const changes[] = {
		"DROP TABLE keys",
		"ALTER TABLE vms RENAME COLUMN folder TO directory",
		"CREATE TABLE more (id)",
		"DROP INDEX events_vm",
		"CREATE TRIGGER t AFTER INSERT ON vms BEGIN DELETE FROM vms; END",
		"CREATE VIEW v AS SELECT 1",
	};
	struct bytes b = whole(*state);

	for (size_t i = 0; i < ARRAY_SIZE(changes); i++) {
		file_write(*state, "partita.db", b.data, b.size);
		alter(*state, changes[i]);
		assert_int_equal(open_or_refuse(*state), -EUCLEAN);
		assert_non_null(strstr(err.message, "its tables are not those"));
	}
	free(b.data);
}

static void test_a_log_without_its_database_is_not_played(void **state)
{
	struct database *db;

	file_write(*state, "partita.db-wal", "log", 3);
	assert_int_equal(database_open(*state, &db, &err), -EUCLEAN);
	assert_non_null(strstr(err.message, "is missing"));
	file_remove(*state, "partita.db-wal");
	file_write(*state, "partita.db.new", "a draft that an earlier service left", 20);
	file_write(*state, "partita.db.new-journal", "and its journal", 10);
	db = open_ok(*state);
	database_close(db);
}

static void test_a_folder_that_is_missing(void **state)
{
	_cleanup_free_ char *path = path_in(*state, "nowhere");
	struct database *db;

	assert_int_equal(database_open(path, &db, &err), -ENOENT);
	assert_non_null(strstr(err.message, path));
}

/* Another program (a backup, a shell of SQLite) has it open. */
static void test_a_file_that_is_in_use_is_refused(void **state)
{
	_cleanup_free_ char *path = path_in(*state, "partita.db");
	int ready[2], done[2], status;
	struct database *db;
	char byte;
	pid_t pid;

	free(whole(*state).data);
	assert_true(pipe(ready) == 0 && pipe(done) == 0);
	pid = fork();
	if (!pid) {
		sqlite3 *other;

		sqlite3_open(path, &other);
		sqlite3_exec(other, "BEGIN IMMEDIATE", NULL, NULL, NULL);
		if (write(ready[1], "", 1) == 1)
			(void)!read(done[0], &byte, 1);
		_exit(0);
	}
	assert_int_equal(read(ready[0], &byte, 1), 1);
	assert_int_equal(database_open(*state, &db, &err), -EBUSY);
	assert_non_null(strstr(err.message, "another program"));
	assert_int_equal(write(done[1], "", 1), 1);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	db = open_ok(*state);
	database_close(db);
	for (int i = 0; i < 2; i++) {
		close(ready[i]);
		close(done[i]);
	}
}

/* --- disks as the kernel makes them: in a child, since it changes what the process is --- */

#define CHECK(condition)                                                                           \
	do {                                                                                       \
		if (!(condition)) {                                                                \
			fprintf(stderr, "line %d: %s: %s\n", __LINE__, #condition, err.message);   \
			_exit(1);                                                                  \
		}                                                                                  \
	} while (0)

static void in_child(void (*fn)(const char *folder), const char *folder)
{
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (!pid) {
		fn(folder);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77)
		skip();
	assert_int_equal(WEXITSTATUS(status), 0);
}

/* A small file system of its own on the folder; 77 where that is not allowed. */
static void mount_small(const char *folder)
{
	if (unshare(geteuid() ? CLONE_NEWUSER | CLONE_NEWNS : CLONE_NEWNS) < 0 ||
	    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("small", folder, "tmpfs", 0, "size=512k") < 0) {
		fprintf(stderr, "no file system can be mounted here (%s)\n", strerror(errno));
		_exit(77);
	}
}

static void fill_disk(const char *folder)
{
	struct database *db;
	int64_t vms = -1;
	int n = 0, r;

	mount_small(folder);
	CHECK(database_open(folder, &db, &err) == 0);
	while ((r = insert(db, n)) == 0)
		n++;
	CHECK(r == -ENOSPC && strstr(err.message, "full"));
	CHECK(n > 10);
	CHECK(insert(db, n) == -ENOSPC);
	/* what there is can be read, and a restart finds it */
	CHECK(count(db, &vms) == 0 && vms == n);
	database_close(db);
	CHECK(database_open(folder, &db, &err) == 0);
	CHECK(count(db, &vms) == 0 && vms == n);
	database_close(db);
}

static void test_a_full_disk_refuses_with_words_and_loses_nothing(void **state)
{
	in_child(fill_disk, *state);
}

static void begin_on_full_disk(const char *folder)
{
	char *filler = calloc(1, 600000);
	struct database *db;
	int fd;

	mount_small(folder);
	fd = open(path_in(folder, "filler"), O_WRONLY | O_CREAT, 0600);
	CHECK(write(fd, filler, 600000) > 500000);
	CHECK(database_open(folder, &db, &err) == -ENOSPC && strstr(err.message, "full"));
	CHECK(access(path_in(folder, "partita.db"), F_OK) < 0);
	CHECK(ftruncate(fd, 0) == 0);
	CHECK(database_open(folder, &db, &err) == 0);
	database_close(db);
	free(filler);
}

static void test_a_database_is_not_begun_on_a_full_disk(void **state)
{
	in_child(begin_on_full_disk, *state);
}

static void read_only_disk(const char *folder)
{
	struct database *db;

	mount_small(folder);
	CHECK(database_open(folder, &db, &err) == 0);
	database_close(db);
	CHECK(mount(NULL, folder, NULL, MS_REMOUNT | MS_RDONLY, "") == 0);
	CHECK(database_open(folder, &db, &err) == -EROFS);
	CHECK(strstr(err.message, "cannot be written") && strstr(err.message, "Read-only"));
}

static void test_a_read_only_disk_is_refused(void **state)
{
	in_child(read_only_disk, *state);
}

/* As somebody else, whom permissions bind. */
static void no_permission(const char *folder)
{
	_cleanup_free_ char *path = path_in(folder, "partita.db");
	_cleanup_free_ char *lock = path_in(folder, "partita.lock");
	struct database *db;

	CHECK(database_open(folder, &db, &err) == 0);
	database_close(db);
	CHECK(chmod(folder, 0777) == 0 && chmod(path, 0444) == 0 && chmod(lock, 0666) == 0);
	CHECK(geteuid() || setresuid(65534, 65534, 65534) == 0);
	CHECK(database_open(folder, &db, &err) == -EACCES);
	CHECK(strstr(err.message, path));
	CHECK(unlink(lock) == 0 && (chmod(folder, 0555) == 0 || errno == EPERM));
}

static void no_permission_for_folder(const char *folder)
{
	struct database *db;

	CHECK(chmod(folder, 0555) == 0);
	CHECK(geteuid() || setresuid(65534, 65534, 65534) == 0);
	CHECK(database_open(folder, &db, &err) == -EACCES);
	CHECK(strstr(err.message, "cannot be written"));
}

static void test_files_without_permission_are_refused(void **state)
{
	in_child(no_permission, *state);
	in_child(no_permission_for_folder, *state);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, test_folder_setup, test_folder_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_damage_of_each_byte_of_the_header),
		TEST(test_damage_anywhere),
		TEST(test_files_that_are_cut),
		TEST(test_damage_of_the_log),
		TEST(test_other_files_are_not_touched),
		TEST(test_a_newer_file_is_refused),
		TEST(test_a_newer_log_is_refused),
		TEST(test_tables_that_are_not_ours_are_refused),
		TEST(test_a_log_without_its_database_is_not_played),
		TEST(test_a_folder_that_is_missing),
		TEST(test_a_file_that_is_in_use_is_refused),
		TEST(test_a_full_disk_refuses_with_words_and_loses_nothing),
		TEST(test_a_database_is_not_begun_on_a_full_disk),
		TEST(test_a_read_only_disk_is_refused),
		TEST(test_files_without_permission_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
