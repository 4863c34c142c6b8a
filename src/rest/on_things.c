// SPDX-License-Identifier: MIT
/* /switches and /pools: the same but for their kind, which is the route's argument. */
#include "daemon/thing.h"
#include "lib/guid.h"
#include "rest/api.h"

#include <errno.h>
#include <string.h>

static const char *const nouns[] = { [THING_SWITCH] = "switches", [THING_POOL] = "pools" };

static enum thing_kind kind_of(const struct call *call)
{
	return (enum thing_kind)call->route->argument;
}

static const char *member(const json_t *json, const char *name)
{
	const char *text = json_string_value(json_object_get(json, name));

	return text ? text : "";
}

struct thing_list {
	struct page page;
	const char *name, *type;
};

/* In order of names, which do not repeat. */
static int on_thing(void *context, json_t *thing, uint64_t revision)
{
	struct thing_list *l = context;
	const char *name = member(thing, "name");

	(void)revision;
	if ((l->page.cursor && strcmp(name, l->page.cursor) <= 0) ||
	    (l->name && !name_matches_pattern(l->name, name)) ||
	    (l->type && strcmp(l->type, member(thing, "type"))))
		return 0;
	return page_room(&l->page) && page_add(&l->page, json_incref(thing), name) ? 0 : -ECANCELED;
}

int list_things(struct call *call, struct error *err)
{
	struct thing_list l = { .name = call_text(call, "name"), .type = call_text(call, "type") };
	int r = page_begin(&l.page, call, err);

	if (r < 0)
		return r;
	r = things_each(call->d, call->caller, kind_of(call), on_thing, &l, err);
	if (r < 0 && r != -ECANCELED) {
		page_deinit(&l.page);
		return r;
	}
	return page_answer(&l.page);
}

int create_thing(struct call *call, struct error *err)
{
	char etag[ETAG_SIZE];
	uint64_t revision;
	json_t *thing;
	int r = thing_create(call->d, call->caller, kind_of(call), call->body,
			     http_header(call->r, "Idempotency-Key"), &thing, &revision, err);

	if (r < 0)
		return r;
	etag_of_revision(revision, etag);
	return call_answer_created(call, thing, etag, API_PREFIX "/%s/%s", nouns[kind_of(call)],
				   member(thing, "id"));
}

static int answer_thing(struct call *call, const char *id, struct error *err)
{
	char etag[ETAG_SIZE];
	uint64_t revision;
	json_t *thing;
	int r = thing_get(call->d, call->caller, kind_of(call), id, &thing, &revision, err);

	if (r < 0)
		return r;
	etag_of_revision(revision, etag);
	return call_answer_etag(call, 200, thing, etag);
}

int get_thing(struct call *call, struct error *err)
{
	return answer_thing(call, call->id, err);
}

/* Finds it, and holds If-Match against it. */
static int find(struct call *call, char ret_id[static GUID_TEXT_SIZE], struct error *err)
{
	_cleanup_json_ json_t *thing = NULL;
	char etag[ETAG_SIZE];
	uint64_t revision;
	int r = thing_get(call->d, call->caller, kind_of(call), call->id, &thing, &revision, err);

	if (r < 0)
		return r;
	snprintf(ret_id, GUID_TEXT_SIZE, "%s", member(thing, "id"));
	etag_of_revision(revision, etag);
	return call_if_match(call, etag, err);
}

int patch_thing(struct call *call, struct error *err)
{
	char id[GUID_TEXT_SIZE];
	int r = find(call, id, err);

	if (r >= 0)
		r = thing_change(call->d, call->caller, kind_of(call), id, call->body, 0, err);
	return r < 0 ? r : answer_thing(call, id, err);
}

int delete_thing(struct call *call, struct error *err)
{
	char id[GUID_TEXT_SIZE];
	int r = find(call, id, err);

	if (r >= 0)
		r = thing_remove(call->d, call->caller, kind_of(call), id, 0, err);
	return r < 0 ? r : call_answer_empty(call);
}
