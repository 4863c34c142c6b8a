// SPDX-License-Identifier: MIT
/*
 * See key.h. Of a body its length and checksum are kept, with members in order: that is no secret
 * and no defence, only a client's protection against its own mistakes. All on the loop's thread.
 */
#include "daemon/key.h"
#include "daemon/vm_check.h"
#include "daemon/words.h"
#include "lib/cleanup.h"
#include "lib/crc32c.h"

#include <errno.h>
#include <string.h>

#define KEY_MS (INT64_C(24) * 3600 * 1000)

int key_init(struct key *key, const char *text, const char *request, const json_t *body,
	     struct error *err)
{
	_cleanup_free_ char *all = NULL;
	size_t n;

	*key = (struct key){ .text = text };
	if (!text)
		return 0;
	if (!*text || strlen(text) > KEY_MAX || !text_printable(text))
		return error_set(err, -EINVAL, "an Idempotency-Key has 1 to %d characters",
				 KEY_MAX);
	all = json_dumps(body, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY);
	if (!all)
		return error_set(err, -ENOMEM, "not enough memory");
	n = strlen(all);
	snprintf(key->request, sizeof(key->request), "%s %zu %08x", request, n, crc32c(0, all, n));
	return 0;
}

struct found {
	const struct key *key;
	char *result;
	bool other;
};

static int on_key(void *context, const struct database_row *row)
{
	struct found *found = context;

	found->other = strcmp(row_text(row, 0), found->key->request) != 0;
	found->result = strdup(row_text(row, 1));
	return found->result ? 0 : -ENOMEM;
}

int key_find(struct database *db, const struct caller *c, const struct key *key, char **ret,
	     struct error *err)
{
	struct found found = { .key = key };
	int r;

	*ret = NULL;
	if (!key->text)
		return 0;
	r = database_query(db, err, on_key, &found,
			   "SELECT request, result FROM keys WHERE caller = ? AND key = ?", "ss",
			   c->name, key->text);
	if (r >= 0 && found.other)
		r = error_set(err, -EKEYREJECTED,
			      "this Idempotency-Key was used for another request, or for one with "
			      "another body: take a new one");
	if (r < 0)
		free(found.result);
	else
		*ret = found.result;
	return r < 0 ? r : 0;
}

int key_add(struct database *db, const struct caller *c, const struct key *key, const char *result,
	    struct error *err)
{
	if (!key->text)
		return 0;
	return database_run(db, err,
			    "INSERT OR REPLACE INTO keys (caller, key, request, result, time) "
			    "VALUES (?, ?, ?, ?, ?)",
			    "ssssi", c->name, key->text, key->request, result, time_ms());
}

void keys_expire(struct database *db)
{
	/* What cannot be removed now goes the next time. */
	int r = database_run(db, NULL, "DELETE FROM keys WHERE time < ?", "i", time_ms() - KEY_MS);

	(void)r;
}
