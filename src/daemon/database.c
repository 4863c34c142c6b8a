// SPDX-License-Identifier: MIT
/*
 * See database.h. SQLite in write-ahead mode, in its exclusive locking mode; the service's own lock
 * is a file beside it, since SQLite cannot say who holds a database before it has looked into it.
 *
 * A file is judged before SQLite may write to it: its header by us, then by SQLite's checks while
 * checkpoints are off. A new database is made under another name and renamed when it is whole, so
 * that a file of that name that is not whole is always a damaged one.
 *
 * Owned by the daemon; its loop's thread.
 */
#include "daemon/database.h"

#include "daemon/database_tables.h"
#include "lib/cleanup.h"
#include "lib/folder.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <string.h>
#include <sys/stat.h>

#define APPLICATION_ID 0x50727469 /* "Prti", at offset 68 of the file */
#define HEADER_SIZE    100
#define WAL_SIZE_KEPT  "4194304" /* the log is cut to this after a checkpoint */
#define CACHE_SLOTS    512       /* twice as many as there can be statements, or more */

/* steps[n] makes version n + 1 of version n. */
static const char *const steps[DATABASE_VERSION] = { DATABASE_TABLES };

struct cached {
	const char *sql; /* its address is the key */
	sqlite3_stmt *statement;
	bool in_use; /* by a query whose `each` runs */
};

struct database {
	sqlite3 *sqlite;
	char *path;
	int lock;
	unsigned depth;  /* of transactions */
	bool undone;     /* the one under way was rolled back already */
	char cause[256]; /* why */
	struct list hooks;
	struct cached cache[CACHE_SLOTS];
	unsigned cached;
};

struct database_row {
	sqlite3_stmt *statement;
};

/* --- errors --- */

static int code_of(sqlite3 *sqlite, int rc)
{
	int system = sqlite ? sqlite3_system_errno(sqlite) : 0;

	switch (rc & 0xff) {
	case SQLITE_FULL:
		return -ENOSPC;
	case SQLITE_CONSTRAINT:
		return -EEXIST;
	case SQLITE_READONLY:
		return -EROFS;
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		return -EUCLEAN;
	case SQLITE_NOMEM:
		return -ENOMEM;
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return -EBUSY;
	case SQLITE_IOERR:
	case SQLITE_CANTOPEN:
		return system == ENOSPC || system == EDQUOT || system == EFBIG ? -ENOSPC : -EIO;
	default:
		return -EIO;
	}
}

static const struct {
	int code;
	const char *words;
} advice[] = {
	{ -ENOSPC, "the disk is full: make room on it, then try again" },
	{ -EROFS, "it cannot be written: see whether its disk became read-only" },
	{ -EUCLEAN, "it is damaged: stop the service, move it away and restore a copy" },
	{ -ENOMEM, "no memory" },
	{ -EBUSY, "another program has it open: close that" },
	{ -EIO, "the disk failed: see the kernel's log" },
};

/* Words for SQLite's result code. */
static int fail(struct database *db, int rc, struct error *err)
{
	int code = code_of(db->sqlite, rc);
	const char *detail = db->sqlite ? sqlite3_errmsg(db->sqlite) : sqlite3_errstr(rc);

	for (unsigned i = 0; i < ARRAY_SIZE(advice); i++) {
		if (advice[i].code == code)
			return error_set(err, code, "database %s: %s (%s)", db->path,
					 advice[i].words, detail);
	}
	return error_set(err, code, "database %s: %s", db->path, detail);
}

/* --- statements --- */

static struct cached *cache_find(struct database *db, const char *sql)
{
	size_t at = ((uintptr_t)sql >> 4) * 0x9e3779b1u % CACHE_SLOTS;

	while (db->cache[at].sql && db->cache[at].sql != sql)
		at = (at + 1) % CACHE_SLOTS;
	return &db->cache[at];
}

/* A statement to use and to give back; cached unless it is in use already. */
static int statement_get(struct database *db, const char *sql, sqlite3_stmt **ret,
			 struct error *err)
{
	struct cached *c = cache_find(db, sql);
	int rc;

	if (c->sql && !c->in_use && !strcmp(sqlite3_sql(c->statement), sql)) {
		c->in_use = true;
		*ret = c->statement;
		return 0;
	}
	rc = sqlite3_prepare_v3(db->sqlite, sql, -1, c->sql ? 0 : SQLITE_PREPARE_PERSISTENT, ret,
				NULL);
	if (rc != SQLITE_OK)
		return fail(db, rc, err);
	if (!c->sql && db->cached < CACHE_SLOTS / 2) {
		*c = (struct cached){ .sql = sql, .statement = *ret, .in_use = true };
		db->cached++;
	}
	return 0;
}

static void statement_put(struct database *db, const char *sql, sqlite3_stmt *statement)
{
	struct cached *c = cache_find(db, sql);

	if (c->statement != statement) {
		sqlite3_finalize(statement);
		return;
	}
	sqlite3_reset(statement);
	sqlite3_clear_bindings(statement);
	c->in_use = false;
}

static int bind(struct database *db, sqlite3_stmt *statement, const char *types, va_list ap,
		struct error *err)
{
	int rc = SQLITE_OK;

	assert((size_t)sqlite3_bind_parameter_count(statement) == strlen(types));
	for (int i = 1; rc == SQLITE_OK && types[i - 1]; i++) {
		switch (types[i - 1]) {
		case 'i':
			rc = sqlite3_bind_int64(statement, i, va_arg(ap, int64_t));
			break;
		case 'd':
			rc = sqlite3_bind_double(statement, i, va_arg(ap, double));
			break;
		case 's':
			rc = sqlite3_bind_text(statement, i, va_arg(ap, const char *), -1,
					       SQLITE_TRANSIENT);
			break;
		default:
			assert(!"a type that is none of i, d, s");
		}
	}
	return rc == SQLITE_OK ? 0 : fail(db, rc, err);
}

/* Some errors make SQLite undo the whole transaction by itself. */
static void note_undone(struct database *db, const char *words)
{
	if (!db->depth || db->undone || !sqlite3_get_autocommit(db->sqlite))
		return;
	db->undone = true;
	snprintf(db->cause, sizeof(db->cause), "%s", words);
}

static int refuse_undone(const struct database *db, struct error *err)
{
	return error_set(err, -ECANCELED, "database: nothing was changed: %s", db->cause);
}

static int step_all(struct database *db, sqlite3_stmt *statement,
		    int (*each)(void *context, const struct database_row *row), void *context,
		    struct error *err)
{
	struct database_row row = { statement };
	int rc, r;

	while ((rc = sqlite3_step(statement)) == SQLITE_ROW) {
		r = each ? each(context, &row) : 0;
		if (r)
			return r;
	}
	if (rc == SQLITE_DONE)
		return 0;
	r = fail(db, rc, err);
	note_undone(db, sqlite3_errmsg(db->sqlite));
	return r;
}

struct call {
	int (*each)(void *context, const struct database_row *row);
	void *context;
	const char *sql, *types;
};

static int call(struct database *db, const struct call *c, va_list ap, struct error *err)
{
	sqlite3_stmt *statement;
	int r;

	if (db->undone)
		return refuse_undone(db, err);
	r = statement_get(db, c->sql, &statement, err);
	if (r < 0)
		return r;
	r = bind(db, statement, c->types, ap, err);
	if (!r)
		r = step_all(db, statement, c->each, c->context, err);
	statement_put(db, c->sql, statement);
	return r;
}

int database_query(struct database *db, struct error *err,
		   int (*each)(void *context, const struct database_row *row), void *context,
		   const char *sql, const char *types, ...)
{
	const struct call c = { each, context, sql, types };
	va_list ap;
	int r;

	va_start(ap, types);
	r = call(db, &c, ap, err);
	va_end(ap);
	return r;
}

int database_run(struct database *db, struct error *err, const char *sql, const char *types, ...)
{
	const struct call c = { .sql = sql, .types = types };
	bool alone = !db->depth;
	va_list ap;
	int r = alone ? database_begin(db, err) : 0;

	if (r < 0)
		return r;
	va_start(ap, types);
	r = call(db, &c, ap, err);
	va_end(ap);
	if (!alone)
		return r;
	if (!r)
		return database_commit(db, err);
	database_rollback(db);
	return r;
}

int64_t database_last_id(const struct database *db)
{
	return sqlite3_last_insert_rowid(db->sqlite);
}

int database_changes(const struct database *db)
{
	return sqlite3_changes(db->sqlite);
}

int64_t row_integer(const struct database_row *row, int column)
{
	return sqlite3_column_int64(row->statement, column);
}

double row_real(const struct database_row *row, int column)
{
	return sqlite3_column_double(row->statement, column);
}

const char *row_text(const struct database_row *row, int column)
{
	return (const char *)sqlite3_column_text(row->statement, column);
}

bool row_is_null(const struct database_row *row, int column)
{
	return sqlite3_column_type(row->statement, column) == SQLITE_NULL;
}

/* --- transactions --- */

/* BEGIN, COMMIT or ROLLBACK: outside of the levels that database_run looks at. */
static int control(struct database *db, const char *sql, struct error *err)
{
	sqlite3_stmt *statement;
	int r = statement_get(db, sql, &statement, err);

	if (r < 0)
		return r;
	r = step_all(db, statement, NULL, NULL, err);
	statement_put(db, sql, statement);
	return r;
}

int database_begin(struct database *db, struct error *err)
{
	if (!db->depth) {
		int r = control(db, "BEGIN IMMEDIATE", err);

		if (r < 0)
			return r;
	}
	db->depth++;
	return 0;
}

/* The outermost level has ended. */
static void transaction_end(struct database *db, bool committed)
{
	db->depth = 0;
	db->undone = false;
	list_foreach_safe(it, &db->hooks)
	{
		struct database_hook *h = list_entry(it, struct database_hook, node);

		if (h->ended)
			h->ended(h, committed);
	}
}

static void undo(struct database *db)
{
	struct error ignored;

	/* it fails only when SQLite has undone everything already */
	if (!sqlite3_get_autocommit(db->sqlite) && control(db, "ROLLBACK", &ignored) < 0)
		sqlite3_exec(db->sqlite, "ROLLBACK", NULL, NULL, NULL);
}

static int commit_outermost(struct database *db, struct error *err)
{
	int r = 0;

	list_foreach_safe(it, &db->hooks)
	{
		struct database_hook *h = list_entry(it, struct database_hook, node);

		if (!r && !db->undone && h->committing)
			r = h->committing(h, err);
	}
	if (!r)
		r = db->undone ? refuse_undone(db, err) : control(db, "COMMIT", err);
	if (r)
		undo(db);
	transaction_end(db, !r);
	return r;
}

int database_commit(struct database *db, struct error *err)
{
	assert(db->depth > 0);
	if (db->depth == 1)
		return commit_outermost(db, err);
	db->depth--;
	return db->undone ? refuse_undone(db, err) : 0;
}

void database_rollback(struct database *db)
{
	if (!db->depth)
		return;
	undo(db);
	if (db->depth == 1) {
		transaction_end(db, false);
		return;
	}
	db->depth--;
	if (!db->undone) {
		db->undone = true;
		snprintf(db->cause, sizeof(db->cause), "a part of it could not be done");
	}
}

bool database_in_transaction(const struct database *db)
{
	return db->depth > 0;
}

void database_hook(struct database *db, struct database_hook *h)
{
	list_append(&db->hooks, &h->node);
}

void database_unhook(struct database_hook *h)
{
	list_remove(&h->node);
}

/* --- judging a file --- */

static int exec(struct database *db, const char *sql, struct error *err)
{
	int rc = sqlite3_exec(db->sqlite, sql, NULL, NULL, NULL);

	return rc == SQLITE_OK ? 0 : fail(db, rc, err);
}

static uint32_t be32_at(const uint8_t *p)
{
	be32 v;

	memcpy(&v, p, sizeof(v));
	return be32_get(v);
}

static int damaged(const char *path, struct error *err, const char *what)
{
	return error_set(
		err, -EUCLEAN,
		"database %s %s; it was left as it is: move it away (with %s-wal, if there "
		"is one) and restore a copy, or let a new one be made",
		path, what, path);
}

static int version_judge(const char *path, uint32_t version, struct error *err)
{
	if (version > DATABASE_VERSION)
		return error_set(err, -EUCLEAN,
				 "database %s is of a newer service (its version is %u, this "
				 "service knows %u); it was left as it is: start the newer service",
				 path, version, DATABASE_VERSION);
	return version ? 0 : damaged(path, err, "has no version");
}

/* The first 100 bytes, before SQLite sees the file (SQLite's file format, 1.3). */
static int header_judge(const char *path, struct error *err)
{
	_cleanup_close_ int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	uint8_t header[HEADER_SIZE];
	struct stat st;
	ssize_t n;

	if (fd < 0 || fstat(fd, &st) < 0)
		return error_errno(err, -errno, "database %s cannot be opened for writing", path);
	if (!S_ISREG(st.st_mode))
		return damaged(path, err, "is not a file");
	if (!st.st_size)
		return damaged(path, err, "is empty");
	n = pread(fd, header, sizeof(header), 0);
	if (n < 0)
		return error_errno(err, -errno, "database %s cannot be read", path);
	if (n < HEADER_SIZE)
		return damaged(path, err, "is cut short");
	if (memcmp(header, "SQLite format 3", 16))
		return damaged(path, err, "is damaged or another program's: it is no SQLite file");
	if (be32_at(header + 68) != APPLICATION_ID)
		return damaged(path, err, "is damaged or another program's: it has not our mark");
	if (header[18] < 1 || header[18] > 2 || header[19] < 1 || header[19] > 2)
		return damaged(path, err, "is damaged: its format is none that we write");
	return version_judge(path, be32_at(header + 60), err);
}

static int append_name(void *context, int columns, char **values, char **names)
{
	char **text = context, *longer = NULL;

	(void)columns;
	(void)names;
	if (asprintf(&longer, "%s %s", *text, values[0] ? values[0] : "") < 0)
		return 1;
	free(*text);
	*text = longer;
	return 0;
}

/* The names of all tables, columns and indices, to compare; NULL with the rc. */
static char *layout_of(sqlite3 *sqlite, int *ret_rc)
{
	char *text = strdup("");
	static const char query[] =
		"SELECT m.type || ':' || m.name || '.' || ifnull(p.name, '') FROM sqlite_schema m "
		"LEFT JOIN pragma_table_info(m.name) p WHERE m.name NOT LIKE 'sqlite_stat%' "
		"ORDER BY 1";

	*ret_rc = text ? sqlite3_exec(sqlite, query, append_name, &text, NULL) : SQLITE_NOMEM;
	if (*ret_rc == SQLITE_OK)
		return text;
	free(text);
	return NULL;
}

/* What the steps up to `version` make; NULL: no memory. */
static char *layout_expected(int64_t version)
{
	sqlite3 *memory = NULL;
	char *text = NULL;
	int rc = sqlite3_open_v2(":memory:", &memory, SQLITE_OPEN_READWRITE, NULL);

	for (unsigned i = 0; rc == SQLITE_OK && i < version; i++)
		rc = sqlite3_exec(memory, steps[i], NULL, NULL, NULL);
	if (rc == SQLITE_OK)
		text = layout_of(memory, &rc);
	sqlite3_close(memory);
	return text;
}

static int layout_judge(struct database *db, int64_t version, struct error *err)
{
	_cleanup_free_ char *expected = layout_expected(version), *have = NULL;
	int rc;

	if (!expected)
		return error_set(err, -ENOMEM, "database %s: no memory", db->path);
	have = layout_of(db->sqlite, &rc);
	if (!have)
		return fail(db, rc, err);
	if (strcmp(have, expected))
		return damaged(db->path, err,
			       "is damaged: its tables are not those of its version");
	return 0;
}

static int first_integer(void *context, const struct database_row *row)
{
	*(int64_t *)context = row_integer(row, 0);
	return 0;
}

/* quick_check says "ok", or what is wrong. */
static int verdict(void *context, const struct database_row *row)
{
	struct database *db = context;
	const char *text = row_text(row, 0);

	if (text && !strcmp(text, "ok"))
		return 0;
	snprintf(db->cause, sizeof(db->cause), "is damaged (%s)", text ? text : "?");
	return -EUCLEAN;
}

/* Not events and jobs: they may be large, and a machine runs without them. */
static const char *const checks[] = {
	"PRAGMA quick_check(vms)",         "PRAGMA quick_check(roles)",
	"PRAGMA quick_check(assignments)", "PRAGMA quick_check(host)",
	"PRAGMA quick_check(metering)",    "PRAGMA quick_check(things)",
	"PRAGMA quick_check(keys)",
};

/* With SQLite, which has joined the log to it by now; nothing is written yet. */
static int content_judge(struct database *db, int64_t *ret_version, struct error *err)
{
	int64_t mark = 0;
	int r = database_query(db, err, first_integer, &mark, "PRAGMA application_id", "");

	if (!r)
		r = database_query(db, err, first_integer, ret_version, "PRAGMA user_version", "");
	if (!r && (uint32_t)mark != APPLICATION_ID)
		r = damaged(db->path, err, "is damaged or another program's: it has not our mark");
	if (!r)
		r = version_judge(db->path, (uint32_t)*ret_version, err);
	if (!r)
		r = layout_judge(db, *ret_version, err);
	for (unsigned i = 0; !r && i < ARRAY_SIZE(checks); i++) {
		db->cause[0] = '\0';
		r = database_query(db, err, verdict, db, checks[i], "");
		if (r == -EUCLEAN && db->cause[0])
			r = damaged(db->path, err, db->cause);
	}
	return r;
}

/* --- opening --- */

static int settings_apply(struct database *db, struct error *err)
{
	sqlite3_db_config(db->sqlite, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
	sqlite3_db_config(db->sqlite, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
	sqlite3_wal_autocheckpoint(db->sqlite, 0);
	return exec(db,
		    "PRAGMA locking_mode = EXCLUSIVE; PRAGMA synchronous = FULL;"
		    "PRAGMA foreign_keys = ON; PRAGMA trusted_schema = OFF;"
		    "PRAGMA cell_size_check = ON; PRAGMA temp_store = MEMORY",
		    err);
}

static int sqlite_open(struct database *db, const char *path, struct error *err)
{
	int rc = sqlite3_open_v2(path, &db->sqlite,
				 SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX |
					 SQLITE_OPEN_EXRESCODE | SQLITE_OPEN_PRIVATECACHE,
				 NULL);

	return rc == SQLITE_OK ? settings_apply(db, err) : fail(db, rc, err);
}

static void sqlite_close(struct database *db)
{
	for (unsigned i = 0; i < CACHE_SLOTS; i++)
		sqlite3_finalize(db->cache[i].statement);
	memset(db->cache, 0, sizeof(db->cache));
	db->cached = 0;
	sqlite3_close(db->sqlite);
	db->sqlite = NULL;
}

/* From `version` to ours, in one transaction. */
static int migrate(struct database *db, int64_t version, struct error *err)
{
	char mark[96];
	int r;

	if (version == DATABASE_VERSION)
		return 0;
	snprintf(mark, sizeof(mark), "PRAGMA application_id = %d; PRAGMA user_version = %d",
		 APPLICATION_ID, DATABASE_VERSION);
	r = exec(db, "BEGIN IMMEDIATE", err);
	for (int64_t i = version; !r && i < DATABASE_VERSION; i++)
		r = exec(db, steps[i], err);
	if (!r)
		r = exec(db, mark, err);
	if (!r)
		r = exec(db, "COMMIT", err);
	if (r)
		sqlite3_exec(db->sqlite, "ROLLBACK", NULL, NULL, NULL);
	return r;
}

/* An empty file of that name for SQLite; what an earlier service left there goes first. */
static int draft_begin(const char *draft, struct error *err)
{
	static const char *const left[] = { "", "-journal", "-wal" };
	int fd;

	for (unsigned i = 0; i < ARRAY_SIZE(left); i++) {
		_cleanup_free_ char *name = NULL;

		if (asprintf(&name, "%s%s", draft, left[i]) < 0)
			return error_set(err, -ENOMEM, "database %s: no memory", draft);
		if (unlink(name) < 0 && errno != ENOENT)
			return error_errno(err, -errno, "database: %s cannot be removed", name);
	}
	fd = open(draft, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return error_errno(err, -errno, "database: %s cannot be made", draft);
	close(fd);
	return 0;
}

/* Makes a new one, whole or not at all. */
static int create(struct database *db, struct error *err)
{
	_cleanup_free_ char *draft = NULL;
	int r;

	if (asprintf(&draft, "%s.new", db->path) < 0)
		return error_set(err, -ENOMEM, "database %s: no memory", db->path);
	r = draft_begin(draft, err);
	if (!r)
		r = sqlite_open(db, draft, err);
	if (!r)
		r = migrate(db, 0, err);
	sqlite_close(db);
	if (!r && rename(draft, db->path) < 0)
		r = error_errno(err, -errno, "database: %s cannot be renamed", draft);
	if (!r) {
		r = folder_sync(db->path);
		return r < 0 ? error_errno(err, r, "database %s cannot be made durable", db->path)
			     : 0;
	}
	unlink(draft);
	return r;
}

/* A log without its database would be played into the new one. */
static int missing_judge(const char *path, struct error *err)
{
	_cleanup_free_ char *log = NULL;
	struct stat st;

	if (asprintf(&log, "%s-wal", path) < 0)
		return error_set(err, -ENOMEM, "database %s: no memory", path);
	if (stat(log, &st) < 0 || !st.st_size)
		return 0;
	return error_set(err, -EUCLEAN,
			 "database %s is missing, but its log %s is there: restore a copy of both, "
			 "or move the log away to begin anew",
			 path, log);
}

/* The lock file has the number of the process that holds it. */
static int lock_refused(int fd, const char *folder, int error, struct error *err)
{
	char pid[24] = "";
	ssize_t n = pread(fd, pid, sizeof(pid) - 1, 0);

	if (error != EAGAIN && error != EACCES)
		return error_errno(err, -error, "%s/partita.lock cannot be locked", folder);
	pid[n > 0 ? strspn(pid, "0123456789") : 0] = '\0';
	return error_set(err, -EBUSY,
			 "another service%s%s has %s/partita.db: stop that one first, or use "
			 "another folder",
			 pid[0] ? ", process " : "", pid, folder);
}

static int lock_take(const char *folder, int *ret, struct error *err)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	_cleanup_free_ char *path = NULL;
	_cleanup_close_ int fd = -1;
	char pid[24];
	int n = snprintf(pid, sizeof(pid), "%d\n", (int)getpid());

	if (asprintf(&path, "%s/partita.lock", folder) < 0)
		return error_set(err, -ENOMEM, "database in %s: no memory", folder);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return error_errno(err, -errno, "the service's state cannot be written: %s", path);
	if (fcntl(fd, F_OFD_SETLK, &lock) < 0)
		return lock_refused(fd, folder, errno, err);
	/* only for the words above: on a full disk they lack it */
	if (ftruncate(fd, 0) < 0 || pwrite(fd, pid, (size_t)n, 0) != n)
		n = 0;
	*ret = steal_fd(&fd);
	return 0;
}

static int is_wal(void *context, const struct database_row *row)
{
	const char *mode = row_text(row, 0);

	(void)context;
	return mode && !strcmp(mode, "wal") ? 0 : -EOPNOTSUPP;
}

static int wal_begin(struct database *db, struct error *err)
{
	int r = database_query(db, err, is_wal, NULL, "PRAGMA journal_mode = WAL", "");

	if (r == -EOPNOTSUPP)
		return error_set(err, r, "database %s: its file system cannot have a log beside it",
				 db->path);
	return r;
}

static int open_existing(struct database *db, struct error *err)
{
	int64_t version = 0;
	int r = header_judge(db->path, err), rc;

	if (r)
		return r;
	r = sqlite_open(db, db->path, err);
	if (!r)
		r = content_judge(db, &version, err);
	if (!r)
		r = wal_begin(db, err);
	if (!r)
		r = migrate(db, version, err);
	rc = db->sqlite ? sqlite3_errcode(db->sqlite) & 0xff : SQLITE_OK;
	/* what SQLite cannot make sense of is damage, too */
	if (r && (rc == SQLITE_ERROR || rc == SQLITE_CORRUPT || rc == SQLITE_NOTADB))
		r = damaged(db->path, err, "is damaged");
	return r;
}

static int opened(struct database *db, struct error *err)
{
	sqlite3_db_config(db->sqlite, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0, NULL);
	return exec(db,
		    "PRAGMA wal_autocheckpoint = 1000; PRAGMA journal_size_limit = " WAL_SIZE_KEPT,
		    err);
}

int database_open(const char *folder, struct database **ret, struct error *err)
{
	struct database *db = calloc(1, sizeof(*db));
	struct stat st;
	int r;

	if (!db)
		return error_set(err, -ENOMEM, "database in %s: no memory", folder);
	db->lock = -1;
	list_init(&db->hooks);
	r = asprintf(&db->path, "%s/partita.db", folder) < 0
		    ? error_set(err, -ENOMEM, "database in %s: no memory", folder)
		    : lock_take(folder, &db->lock, err);
	if (!r && lstat(db->path, &st) < 0 && errno == ENOENT) {
		r = missing_judge(db->path, err);
		if (!r)
			r = create(db, err);
	}
	if (!r)
		r = open_existing(db, err);
	if (!r)
		r = opened(db, err);
	if (r) {
		database_close(db);
		return r;
	}
	*ret = db;
	return 0;
}

void database_close(struct database *db)
{
	if (!db)
		return;
	while (db->depth)
		database_rollback(db);
	sqlite_close(db);
	if (db->lock >= 0)
		close(db->lock);
	free(db->path);
	free(db);
}
