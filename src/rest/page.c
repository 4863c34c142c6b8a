// SPDX-License-Identifier: MIT
/*
 * Pages of lists: {"items": [...], "next": cursor or null}. The cursor is the key of the last thing
 * on a page, in hexadecimal; the next page goes on after it, whether that is still there or not.
 * What keys are, and their order, is the list's. The answer is made as text, item by item: a
 * thousand machines as one tree would take more time and memory than all the rest.
 */
#include "rest/api.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

static int cursor_decode(const char *text, char **ret, struct error *err)
{
	size_t n = strlen(text);
	char *key = malloc(n / 2 + 1);

	if (!key)
		return error_errno(err, -ENOMEM, "cannot make the list");
	for (size_t i = 0; i < n / 2; i++) {
		char pair[3] = { text[2 * i], text[2 * i + 1], 0 };

		key[i] = (char)strtoul(pair, NULL, 16);
		if (!isxdigit((unsigned char)pair[0]) || !isxdigit((unsigned char)pair[1]) ||
		    !key[i]) {
			n = 1;
			break;
		}
	}
	key[n / 2] = '\0';
	if (n % 2 || !text_is_utf8(key)) {
		free(key);
		error_set(err, -EINVAL, "parameter \"cursor\" must be what \"next\" was");
		snprintf(err->property, sizeof(err->property), "cursor");
		return -EINVAL;
	}
	*ret = key;
	return 0;
}

static bool put(struct page *p, const char *text, size_t n)
{
	size_t need = p->size + n + 1, capacity = MAX(p->capacity, 4096);
	char *bigger;

	while (capacity < need)
		capacity *= 2;
	if (capacity > p->capacity) {
		bigger = realloc(p->text, capacity);
		if (!bigger)
			return false;
		p->text = bigger;
		p->capacity = capacity;
	}
	memcpy(p->text + p->size, text, n);
	p->size += n;
	return true;
}

int page_begin(struct page *p, struct call *call, struct error *err)
{
	const char *cursor = call_text(call, "cursor"), *fields = call_text(call, "fields");
	int r = 0;

	*p = (struct page){ .call = call };
	p->limit = (unsigned)call_integer(call, "limit", API_LIST_MAX);
	if (fields)
		p->fields = strdup(fields);
	if (!put(p, "{\"items\":[", 10) || (fields && !p->fields))
		r = error_errno(err, -ENOMEM, "cannot make the list");
	if (r >= 0 && cursor)
		r = cursor_decode(cursor, &p->cursor, err);
	if (r < 0)
		page_deinit(p);
	return r;
}

void page_deinit(struct page *p)
{
	free(p->cursor);
	free(p->fields);
	free(p->next);
	free(p->text);
	*p = (struct page){ 0 };
}

/* The next path of a list separated by commas; false at its end. */
static bool next_path(const char **list, char *ret, size_t size)
{
	size_t n = strcspn(*list, ",");

	if (!**list)
		return false;
	snprintf(ret, size, "%.*s", (int)n, *list);
	*list += n + ((*list)[n] == ',');
	return true;
}

bool page_wants(const struct page *p, const char *name)
{
	const char *list = p->fields;
	size_t n = strlen(name);
	char path[128];

	if (!list)
		return true;
	while (next_path(&list, path, sizeof(path))) {
		size_t m = strlen(path), both = MIN(n, m);

		if (!strncmp(path, name, both) && (n == m || (n < m ? path : name)[both] == '.'))
			return true;
	}
	return false;
}

/* Copies what is at `path` in `from` into `to`, with the objects around it. */
static void select_path(json_t *from, json_t *to, char *path)
{
	char *dot;

	for (; json_is_object(from) && (dot = strchr(path, '.')); path = dot + 1) {
		json_t *inner;

		*dot = '\0';
		from = json_object_get(from, path);
		if (!json_is_object(from))
			return;
		inner = json_object_get(to, path);
		if (!json_is_object(inner)) {
			inner = json_object();
			json_object_set_new(to, path, inner);
		}
		to = inner;
	}
	from = json_object_get(from, path);
	if (from)
		json_object_set(to, path, from);
}

static json_t *select_fields(const char *fields, json_t *item)
{
	json_t *selected = json_object();
	char path[128];

	while (selected && next_path(&fields, path, sizeof(path)))
		select_path(item, selected, path);
	json_decref(item);
	return selected;
}

bool page_room(struct page *p)
{
	if (p->count >= p->limit)
		p->full = true;
	return !p->full;
}

bool page_add_text(struct page *p, const char *item, const char *cursor)
{
	if (!page_room(p))
		return false;
	/* without memory the list would be short without a word: the answer is then 503 */
	if (!item || (p->count && !put(p, ",", 1)) || !put(p, item, strlen(item))) {
		p->failed = p->full = true;
		return false;
	}
	p->count++;
	if (p->count == p->limit) {
		free(p->next);
		p->next = strdup(cursor);
	}
	return true;
}

bool page_add(struct page *p, json_t *item, const char *cursor)
{
	_cleanup_free_ char *text = NULL;

	if (page_room(p)) {
		if (p->fields && item)
			item = select_fields(p->fields, item);
		text = item ? json_dumps(item, JSON_COMPACT) : NULL;
	}
	json_decref(item);
	return page_add_text(p, text, cursor);
}

/* "],"next":"..."}" */
static bool put_end(struct page *p)
{
	bool good = put(p, "],\"next\":", 9);

	if (!p->full || !p->next)
		return good && put(p, "null}", 5);
	good = good && put(p, "\"", 1);
	for (const char *c = p->next; *c; c++) {
		char pair[3];

		snprintf(pair, sizeof(pair), "%02x", (unsigned char)*c);
		good = good && put(p, pair, 2);
	}
	return good && put(p, "\"}", 2);
}

int page_answer(struct page *p)
{
	struct call *call = p->call;
	char *text = NULL;
	size_t size;

	if (!p->failed && put_end(p))
		text = steal_ptr(p->text);
	size = p->size;
	page_deinit(p);
	return call_answer_text(call, text, size);
}

/* With * and ?, without regard to the case of ASCII letters. Linear in time but for one star. */
bool name_matches_pattern(const char *pattern, const char *name)
{
	const char *star = NULL, *again = NULL;

	while (*name) {
		if (*pattern == '*') {
			star = ++pattern;
			again = name;
		} else if (*pattern == '?' ||
			   tolower((unsigned char)*pattern) == tolower((unsigned char)*name)) {
			pattern++;
			name++;
		} else if (star) {
			pattern = star;
			name = ++again;
		} else {
			return false;
		}
	}
	while (*pattern == '*')
		pattern++;
	return !*pattern;
}
