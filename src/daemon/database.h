/* SPDX-License-Identifier: MIT */
/*
 * The service's one SQLite database (registry, jobs, events, roles, metering), in write-ahead mode
 * with full synchronisation: what was committed survives a power cut. One thread.
 */
#pragma once

#include "lib/error.h"
#include "lib/list.h"

#define DATABASE_VERSION 1 /* of the tables; an older file is brought up to it when opened */

struct database;

/*
 * Opens, or makes, FOLDER/partita.db and holds it alone (FOLDER/partita.lock). With words: -EBUSY
 * another service has it, -EROFS or -EACCES it cannot be written, -ENOSPC no room, -EUCLEAN it is
 * damaged, another program's or of a newer service (nothing in it is then touched).
 */
int database_open(const char *folder, struct database **ret, struct error *err) _must_check_;
void database_close(struct database *db); /* NULL is fine; what is not committed is undone */

/*
 * Transactions nest: only the outermost commits, and any rollback undoes all of it. A commit ends
 * its level also when it fails, after which all is undone: no rollback is due then, but one outside
 * of any transaction is harmless. After an inner rollback, or after an error that made SQLite undo
 * everything (a full disk), statements and commits are refused with -ECANCELED until the outermost
 * level has ended.
 */
int database_begin(struct database *db, struct error *err) _must_check_;
int database_commit(struct database *db, struct error *err) _must_check_;
void database_rollback(struct database *db);
bool database_in_transaction(const struct database *db);

/*
 * For what keeps a copy of rows in memory. Around each outermost transaction: `committing` may add
 * rows and refuse with words; then `ended` says what became of all of it, outside of any
 * transaction (it may begin one). Each may be NULL. Called in order of database_hook.
 */
struct database_hook {
	int (*committing)(struct database_hook *h, struct error *err);
	void (*ended)(struct database_hook *h, bool committed);
	struct list node;
};
void database_hook(struct database *db, struct database_hook *h);
void database_unhook(struct database_hook *h);

/*
 * One statement, durable when it returns unless in a transaction. `sql` is a constant: it is
 * prepared once and kept by its address. `types` has a letter for each parameter: i int64_t, s
 * const char * (NULL is NULL), d double. -ENOSPC when the disk is full, -EEXIST when a constraint
 * refuses, -EROFS, -EUCLEAN (damaged), -ENOMEM, -ECANCELED (see above), else -EIO, with words. A
 * statement alone is one transaction to the hooks as well.
 */
int database_run(struct database *db, struct error *err, const char *sql, const char *types,
		 ...) _must_check_;
/* The id of the row that database_run inserted last, and how many rows it changed. */
int64_t database_last_id(const struct database *db);
int database_changes(const struct database *db);

/*
 * A row while `each` is called; columns from 0. Text is valid until `each` returns, NULL is NULL.
 */
struct database_row;
int64_t row_integer(const struct database_row *row, int column);
double row_real(const struct database_row *row, int column);
const char *row_text(const struct database_row *row, int column);
bool row_is_null(const struct database_row *row, int column);

/*
 * Calls `each` for each row until it returns other than 0, which is then the result. `each` may run
 * other statements, but not end a transaction that was open before.
 */
int database_query(struct database *db, struct error *err,
		   int (*each)(void *context, const struct database_row *row), void *context,
		   const char *sql, const char *types, ...) _must_check_;
