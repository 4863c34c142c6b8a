// SPDX-License-Identifier: MIT
/*
 * /events: a list, or with Accept: text/event-stream a stream (server-sent events, as HTML has
 * them). A stream begins after Last-Event-ID, or with what happens from now on. What is older comes
 * from the database, some at a time while the client takes them; when there is no more the stream
 * is told by the log itself. A client that is too slow is dropped, and comes again with the last id
 * that it has seen.
 */
#include "daemon/vm.h"
#include "rest/api.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <strings.h>

#define BATCH      100        /* events from the database at a time */
#define CALM       (64 * KIB) /* more waits for the client: no more from the database */
#define KEEP_MS    15000      /* between signs of life */
#define BEHIND_MS  50         /* between looks while it catches up */
#define STREAM_MAX 256
#define OWN_MAX    64 /* of them for one user */
#define MS         UINT64_C(1000000)

struct stream {
	struct api *api;
	struct http_stream *http;
	struct caller caller;
	struct list node;
	struct loop_timer timer;
	bool behind;   /* still reading from the database */
	int64_t after; /* the last that was sent */
	char vm[GUID_TEXT_SIZE], kind[65];
	int severity;
};

/* Of one machine when that may be seen; of all for those who may see events of the host. */
static bool sees_vm(struct daemon *d, const struct caller *c, const char *id)
{
	struct vm *vm = id && *id ? vm_by_id(d, id, NULL) : NULL;
	struct target target;

	if (!vm)
		return false;
	target = vm_target(vm);
	return authz_allowed(d->authz, c, OP_VIEW_VM, &target);
}

static int check(struct call *call, struct error *err)
{
	if (sees_vm(call->d, call->caller, call_text(call, "vm")))
		return 0;
	return authz_check(call->d->authz, call->caller, OP_VIEW_EVENTS, &(struct target){ 0 },
			   err);
}

static int severity_of(struct call *call)
{
	const char *name = call_text(call, "severity");
	enum severity s;

	return name && severity_find(name, &s) >= 0 ? (int)s : -1;
}

/* Ids of machines are in lower case, and without braces. */
static const char *lower(const char *id, char ret[static GUID_TEXT_SIZE])
{
	struct guid guid;

	if (!id)
		return NULL;
	if (guid_parse(id, &guid) < 0)
		return "no machine";
	return guid_format(&guid, ret);
}

/* --- lists --- */

static int on_event(void *context, const struct event *event)
{
	struct page *page = context;
	char cursor[24];

	snprintf(cursor, sizeof(cursor), "%" PRId64, event->id);
	return page_room(page) && page_add(page, event_json(event), cursor) ? 0 : -ECANCELED;
}

static int list(struct call *call, struct error *err)
{
	char id[GUID_TEXT_SIZE];
	struct event_filter filter = { .since = call_integer(call, "since", 0),
				       .vm = lower(call_text(call, "vm"), id),
				       .kind = call_text(call, "kind"),
				       .severity_min = severity_of(call),
				       .newest_first = call_bool(call, "newest", false) };
	struct page page;
	int r = page_begin(&page, call, err);

	if (r < 0)
		return r;
	if (page.cursor)
		*(filter.newest_first ? &filter.before : &filter.after) =
			strtoll(page.cursor, NULL, 10);
	filter.limit = page.limit + 1; /* one more tells whether there is more */
	r = events_query(call->d->events, &filter, on_event, &page, err);
	if (r < 0 && r != -ECANCELED) {
		page_deinit(&page);
		return r;
	}
	return page_answer(&page);
}

/* --- streams --- */

static void stream_free(struct stream *s)
{
	loop_timer_disarm(&s->timer);
	list_remove(&s->node);
	free(s);
}

static void on_gone(struct http_stream *http)
{
	stream_free(http->context);
}

static void send_event(struct stream *s, const struct event *event)
{
	_cleanup_json_ json_t *json = event_json(event);
	_cleanup_free_ char *text = json ? json_dumps(json, JSON_COMPACT) : NULL, *all = NULL;
	int n = text ? asprintf(&all, "id: %" PRId64 "\nevent: %s\ndata: %s\n\n", event->id,
				event->kind, text)
		     : -1;

	/* without memory it is as slow as the others that are dropped; `gone` follows */
	if (n >= 0)
		(void)http_stream_send(s->http, all, (size_t)n);
	s->after = event->id;
}

struct catching {
	struct stream *s;
	unsigned count;
};

static int on_old(void *context, const struct event *event)
{
	struct catching *c = context;

	c->count++;
	send_event(c->s, event);
	return 0;
}

static void catch_up(struct stream *s)
{
	struct catching c = { s, 0 };
	struct event_filter filter = { .after = s->after,
				       .vm = *s->vm ? s->vm : NULL,
				       .kind = *s->kind ? s->kind : NULL,
				       .severity_min = s->severity,
				       .limit = BATCH };

	if (http_stream_queued(s->http) > CALM)
		return;
	if (events_query(s->api->d->events, &filter, on_old, &c, NULL) >= 0 && c.count < BATCH)
		s->behind = false;
}

/* Roles change, and a stream has no end by itself. */
static bool still_allowed(const struct stream *s)
{
	struct daemon *d = s->api->d;

	return sees_vm(d, &s->caller, s->vm) ||
	       authz_allowed(d->authz, &s->caller, OP_VIEW_EVENTS, &(struct target){ 0 });
}

static bool look(struct stream *s)
{
	bool allowed = still_allowed(s);

	if (!allowed) {
		http_stream_end(s->http);
		stream_free(s);
	}
	return allowed;
}

static void streams_look(struct api *api)
{
	list_foreach_safe(it, &api->streams)(void) look(list_entry(it, struct stream, node));
}

static void on_timer(struct loop_timer *t)
{
	struct stream *s = container_of(t, struct stream, timer);

	if (!look(s))
		return;
	if (s->behind)
		catch_up(s);
	else
		(void)http_stream_send(s->http, ": \n\n", 4);
	loop_timer_arm(t, loop_now(s->api->d->loop) + (s->behind ? BEHIND_MS : KEEP_MS) * MS);
}

void streams_on_event(struct event_watch *w, const struct event *event)
{
	struct api *api = container_of(w, struct api, event_watch);

	if (!strncmp(event->kind, "role-", 5)) {
		streams_look(api);
		consoles_look(api);
	}
	list_foreach(it, &api->streams)
	{
		struct stream *s = list_entry(it, struct stream, node);

		if (s->behind || event->id <= s->after ||
		    (s->severity >= 0 && (int)event->severity < s->severity) ||
		    (*s->vm && (!event->vm || strcmp(s->vm, event->vm))) ||
		    (*s->kind && strcmp(s->kind, event->kind)))
			continue;
		send_event(s, event);
	}
}

void streams_end(struct api *api)
{
	list_foreach_safe(it, &api->streams)
	{
		struct stream *s = list_entry(it, struct stream, node);

		http_stream_end(s->http);
		stream_free(s);
	}
}

static int last_id(struct call *call, int64_t *ret, struct error *err)
{
	const char *text = http_header(call->r, "Last-Event-ID");

	*ret = -1;
	if (!text)
		return 0;
	if (!*text || strlen(text) > 18 || strspn(text, "0123456789") != strlen(text))
		return error_set(err, -EINVAL, "Last-Event-ID must be the id of an event");
	*ret = strtoll(text, NULL, 10);
	return 0;
}

static int check_count(struct call *call, struct error *err)
{
	unsigned count = 0, own = 0;

	list_foreach(it, &call->api->streams)
	{
		count++;
		own += !strcmp(list_entry(it, struct stream, node)->caller.name,
			       call->caller->name);
	}
	if (count >= STREAM_MAX || own >= OWN_MAX)
		return error_set(err, -ENOMEM,
				 "there are %u streams already, %u of them yours: end some", count,
				 own);
	return 0;
}

static int stream_begin(struct call *call, struct error *err)
{
	const char *kind = call_text(call, "kind"), *vm;
	struct stream *s;
	int64_t after;
	int r = last_id(call, &after, err);

	if (r >= 0)
		r = check_count(call, err);
	if (r < 0)
		return r;
	s = calloc(1, sizeof(*s));
	if (s)
		s->http = http_stream_begin(call->r, "text/event-stream");
	if (!s || !s->http) {
		free(s);
		return error_errno(err, -ENOMEM, "cannot begin a stream");
	}
	s->http->gone = on_gone;
	s->http->context = s;
	s->api = call->api;
	s->caller = *call->caller;
	s->severity = severity_of(call);
	s->behind = after >= 0;
	s->after = after;
	snprintf(s->kind, sizeof(s->kind), "%s", kind ? kind : "");
	vm = lower(call_text(call, "vm"), s->vm);
	if (vm && vm != s->vm)
		strcpy(s->vm, "none");
	list_append(&call->api->streams, &s->node);
	loop_timer_init(call->d->loop, &s->timer, on_timer);
	call_free(call);
	(void)http_stream_send(s->http, ": \n\n", 4); /* the head gets out at once */
	on_timer(&s->timer);
	return 0;
}

int list_events(struct call *call, struct error *err)
{
	const char *accept = http_header(call->r, "Accept");
	int r = check(call, err);

	if (r < 0)
		return r;
	if (accept && strcasestr(accept, "text/event-stream"))
		return stream_begin(call, err);
	return list(call, err);
}
