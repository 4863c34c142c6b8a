// SPDX-License-Identifier: MIT
/*
 * A process that commits numbered changes, and tells of each when it is durable, is killed at
 * random instants, also while it makes the database or while a checkpoint is under way. What it
 * told of must be there, each change whole, and at most one more.
 */
#include "daemon/database.h"
#include "daemon/testing.h"
#include "lib/cleanup.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#define KILLS         250
#define FRESH_EVERY   6      /* kills after which it begins without a database */
#define INSTANT_US    15000  /* the latest */
#define CONTENT_BYTES 300000 /* of a change at most: some fill the log, so that it is played in */

static struct error err;

static int read_number(void *context, const struct database_row *row)
{
	*(int64_t *)context = row_integer(row, 0);
	return 0;
}

static int64_t number(struct database *db, const char *sql)
{
	int64_t n = -1;

	return database_query(db, &err, read_number, &n, sql, "") < 0 ? -1 : n;
}

static const char last_change[] = "SELECT ifnull(max(revision), 0) FROM host";

/* One change: rows of three tables, one of them in a transaction inside. */
static int change(struct database *db, int64_t n, const char *content)
{
	char id[32];
	int r = database_begin(db, &err);

	snprintf(id, sizeof(id), "%lld", (long long)n);
	if (!r)
		r = database_run(db, &err, "INSERT INTO things VALUES (?, 'pool', '', ?, ?)", "ssi",
				 id, content, n);
	if (!r)
		r = database_run(db, &err, "UPDATE things SET settings = '' WHERE revision < ?",
				 "i", n - 2);
	if (!r)
		r = database_begin(db, &err);
	if (!r)
		r = database_run(db, &err, "INSERT INTO keys VALUES ('c', ?, '', '', ?)", "si", id,
				 n);
	if (!r)
		r = database_commit(db, &err);
	if (!r)
		r = database_run(db, &err,
				 "INSERT INTO host VALUES (1, '', ?1) ON CONFLICT (id) DO UPDATE "
				 "SET revision = ?1",
				 "i", n);
	return r ? r : database_commit(db, &err);
}

static int child_fails(int64_t code)
{
	fprintf(stderr, "%s (%lld)\n", err.message, (long long)code);
	_exit(1);
}

static void child(const char *folder, int told, unsigned seed)
{
	char *content = malloc(CONTENT_BYTES + 1);
	struct database *db;
	int64_t n;
	int r = database_open(folder, &db, &err);

	if (r)
		child_fails(r);
	memset(content, 'x', CONTENT_BYTES);
	for (n = number(db, last_change) + 1;; n++) {
		size_t size = (size_t)(rand_r(&seed) % 4 ? 0 : rand_r(&seed) % CONTENT_BYTES);

		content[size] = '\0';
		r = change(db, n, content);
		content[size] = 'x';
		if (r || write(told, &n, sizeof(n)) != sizeof(n))
			child_fails(r);
	}
}

/* The last number that was told. */
static int64_t read_told(int fd, int64_t before)
{
	int64_t n, last = before;

	while (read(fd, &n, sizeof(n)) == sizeof(n)) {
		assert_int_equal(n, last + 1);
		last = n;
	}
	return last;
}

/* `late`: not before the first change is durable; else also while the database is opened or made.
 */
static int64_t kill_one(const char *folder, int64_t before, bool late, unsigned *seed)
{
	int ends[2], status;
	int64_t last;
	pid_t pid;

	assert_int_equal(pipe(ends), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid)
		child(folder, ends[1], *seed);
	close(ends[1]);
	if (late)
		assert_int_equal(
			poll(&(struct pollfd){ .fd = ends[0], .events = POLLIN }, 1, 60000), 1);
	usleep((useconds_t)rand_r(seed) % INSTANT_US);
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	last = read_told(ends[0], before);
	close(ends[0]);
	return last;
}

/* What is there now; `told` must be. */
static int64_t judge(const char *folder, int64_t told)
{
	struct database *db;
	int64_t n;

	if (database_open(folder, &db, &err) < 0)
		fail_msg("%s", err.message);
	n = number(db, last_change);
	if (n < told || n > told + 1)
		fail_msg("told of %lld changes, %lld are there", (long long)told, (long long)n);
	assert_int_equal(number(db, "SELECT count(*) FROM things"), n);
	assert_int_equal(number(db, "SELECT count(*) FROM keys"), n);
	assert_int_equal(number(db, "SELECT ifnull(max(revision), 0) FROM things"), n);
	assert_int_equal(number(db, "SELECT ifnull(max(time), 0) FROM keys"), n);
	database_close(db);
	return n;
}

static void forget(const char *folder)
{
	static const char *const names[] = { "partita.db", "partita.db-wal", "partita.db.new",
					     "partita.db.new-journal" };

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		_cleanup_free_ char *path = NULL;

		assert_true(asprintf(&path, "%s/%s", folder, names[i]) > 0);
		assert_true(unlink(path) == 0 || errno == ENOENT);
	}
}

static void test_what_was_told_survives_kills(void **state)
{
	unsigned seed = (unsigned)getpid(), early = 0;
	int64_t n = 0, all = 0;

	print_message("seed %u\n", seed);
	for (unsigned i = 0; i < KILLS; i++) {
		int64_t told;

		if (i % FRESH_EVERY == 0) {
			forget(*state);
			n = 0;
		}
		told = kill_one(*state, n, i % 2, &seed);
		early += told == n;
		all += told - n;
		n = judge(*state, told);
	}
	print_message("%d kills, %u before the first change, %lld changes\n", KILLS, early,
		      (long long)all);
	assert_true(all >= KILLS / 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_what_was_told_survives_kills,
						test_folder_setup, test_folder_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
