// SPDX-License-Identifier: MIT
/* See fake_supervisor.h. */
#include "daemon/fake_supervisor.h"

#include "lib/guid.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WORKERS_MAX 64

struct worker {
	char id[GUID_TEXT_SIZE]; /* "": free */
	const struct worker_events *events;
	void *context;
	struct worker_request *request, *memory_request;
	char asked[32], guest_asked[32];
	int64_t memory_target; /* asked for; 0: a query */
	unsigned kills, cancels;
	struct worker_limits limits;
	json_t *description;
	struct worker_usage usage;
	bool unseen; /* it has ended */
	enum worker_end end;
	char words[128];
};

struct supervisor {
	struct loop *loop;
};

static struct loop *the_loop;
static struct worker workers[WORKERS_MAX];
static int refuse_code, limits_code;
static const char *refuse_words;

static struct worker *find(const char *id)
{
	for (size_t i = 0; i < WORKERS_MAX; i++)
		if (!strcmp(workers[i].id, id))
			return &workers[i];
	return NULL;
}

static void drop(struct worker *w)
{
	json_decref(w->description);
	memset(w, 0, sizeof(*w));
}

void fake_reset(void)
{
	for (size_t i = 0; i < WORKERS_MAX; i++)
		drop(&workers[i]);
	refuse_code = limits_code = 0;
}

void fake_refuse_starts(int code, const char *words)
{
	refuse_code = code;
	refuse_words = words;
}

void fake_limits_refused(int code)
{
	limits_code = code;
}

unsigned fake_count(void)
{
	unsigned n = 0;

	for (size_t i = 0; i < WORKERS_MAX; i++)
		n += workers[i].id[0] != '\0';
	return n;
}

bool fake_runs(const char *id)
{
	return find(id);
}

const char *fake_asked(const char *id)
{
	return find(id)->request ? find(id)->asked : "";
}

void fake_answer(const char *id, int result, const char *words)
{
	struct worker_request *r = find(id)->request;
	struct error err = { 0 };
	json_t *answer = json_pack("{s:b}", "ok", result == 0);

	assert(r);
	if (result < 0)
		error_set(&err, result, "%s", words);
	find(id)->request = NULL;
	r->done(r, result, answer, result < 0 ? &err : NULL);
	json_decref(answer);
}

void fake_state(const char *id, const char *state)
{
	struct worker *w = find(id);

	w->events->state(w->context, w, state);
}

int64_t fake_memory_asked(const char *id)
{
	return find(id)->memory_request ? find(id)->memory_target : -1;
}

void fake_memory_answer(const char *id, json_t *memory)
{
	struct worker_request *r = find(id)->memory_request;
	json_t *answer = json_pack("{s:b,s:o}", "ok", 1, "memory", memory);

	assert(r);
	find(id)->memory_request = NULL;
	r->done(r, 0, answer, NULL);
	json_decref(answer);
}

void fake_event(const char *id, json_t *event)
{
	struct worker *w = find(id);

	w->events->event(w->context, w, event);
	json_decref(event);
}

void fake_end(const char *id, enum worker_end end, const char *words)
{
	struct worker copy = *find(id);

	const struct error gone = { .code = -EPIPE, .message = "the worker is gone" };

	if (copy.request)
		fake_answer(id, -EPIPE, gone.message);
	drop(find(id));
	copy.events->ended(copy.context, NULL, end, words);
}

unsigned fake_save_cancels(const char *id)
{
	return find(id)->cancels;
}

unsigned fake_kills(const char *id)
{
	return find(id)->kills;
}

struct worker_limits fake_limits(const char *id)
{
	return find(id)->limits;
}

json_t *fake_description(const char *id)
{
	return find(id)->description;
}

void fake_memory(const char *id, uint64_t bytes)
{
	find(id)->usage.memory = bytes;
}

void fake_end_unseen(const char *id, enum worker_end end, const char *words)
{
	struct worker *w = find(id);

	w->unseen = true;
	w->end = end;
	snprintf(w->words, sizeof(w->words), "%s", words);
}

void fake_lose(const char *id)
{
	drop(find(id));
}

/* --- supervisor.h --- */

const char *worker_end_name(enum worker_end end)
{
	static const char *const names[] = { "off",   "saved",  "reset",  "error",
					     "crash", "denied", "memory", "lost" };

	return names[end];
}

int supervisor_new(struct loop *loop, const struct supervisor_options *o, struct supervisor **ret,
		   struct error *err)
{
	(void)o;
	(void)err;
	*ret = calloc(1, sizeof(**ret));
	(*ret)->loop = the_loop = loop;
	return 0;
}

void supervisor_free(struct supervisor *s)
{
	free(s);
}

const char *supervisor_notes(const struct supervisor *s)
{
	(void)s;
	return "workers are not real";
}

int worker_file_open(const struct worker_file *file, char **ret_path, struct error *err)
{
	(void)ret_path;
	return error_set(err, -EOPNOTSUPP, "\"%s\": these workers take no files", file->path);
}

int worker_start(struct supervisor *s, const struct worker_start *start, struct worker **ret,
		 struct error *err)
{
	struct worker *w;

	(void)s;
	if (refuse_code)
		return error_set(err, refuse_code, "%s", refuse_words);
	if (find(start->id))
		return error_set(err, -EEXIST, "one runs already");
	w = find("");
	assert(w);
	snprintf(w->id, sizeof(w->id), "%s", start->id);
	w->events = start->events;
	w->context = start->context;
	w->limits = start->limits;
	w->description = json_incref(start->description);
	*ret = w;
	return 0;
}

int worker_adopt(struct supervisor *s, const char *id, const struct worker_events *events,
		 void *context, struct worker **ret, enum worker_end *ret_end, struct error *err)
{
	struct worker *w = find(id);

	(void)s;
	if (!w)
		return error_set(err, -ENOENT, "there is none");
	if (w->unseen) {
		*ret_end = w->end;
		error_set(err, -ECHILD, "%s", w->words);
		drop(w);
		return -ECHILD;
	}
	w->request = w->memory_request = NULL;
	w->events = events;
	w->context = context;
	*ret = w;
	return 0;
}

int supervisor_found(struct supervisor *s, void (*each)(void *context, const char *id),
		     void *context, struct error *err)
{
	(void)s;
	(void)err;
	for (size_t i = 0; i < WORKERS_MAX; i++) {
		char id[GUID_TEXT_SIZE];

		memcpy(id, workers[i].id, sizeof(id));
		if (id[0])
			each(context, id);
	}
	return 0;
}

/* There is no guest: what it is asked is refused, soon. A shutdown is the test's to answer. */
static void on_guest_answer(struct loop_timer *t)
{
	struct worker_request *r = container_of(t, struct worker_request, timer);
	const struct error err = { .code = -EINVAL, .message = "there is no guest" };

	r->done(r, -EINVAL, NULL, &err);
}

static bool is_for_guest(const char *command)
{
	return (!strncmp(command, "guest-", 6) && strcmp(command, "guest-shutdown")) ||
	       !strcmp(command, "service-set");
}

const char *fake_guest_asked(const char *id)
{
	return find(id)->guest_asked;
}

void worker_ask(struct worker *w, struct worker_request *r, json_t *request, const int *fds,
		unsigned fd_count, unsigned timeout_ms)
{
	const char *command = json_string_value(json_object_get(request, "command"));

	(void)timeout_ms;
	for (unsigned i = 0; i < fd_count; i++)
		close(fds[i]);
	if (is_for_guest(command)) {
		snprintf(w->guest_asked, sizeof(w->guest_asked), "%s", command);
		loop_timer_init(the_loop, &r->timer, on_guest_answer);
		loop_timer_arm(&r->timer, 1);
		return;
	}
	if (!strncmp(command, "memory-", 7)) {
		assert(!w->memory_request);
		w->memory_request = r;
		w->memory_target = json_integer_value(json_object_get(request, "target"));
		return;
	}
	if (!strcmp(command, "save-cancel")) {
		w->cancels++;
		return;
	}
	if (strstr(command, "-query"))
		return; /* these workers never say what they have */
	if (!strcmp(command, "save-cancel")) {
		w->cancels++;
		return;
	}
	assert(!w->request);
	w->request = r;
	snprintf(w->asked, sizeof(w->asked), "%s", command);
}

void worker_ask_cancel(struct worker_request *r)
{
	for (size_t i = 0; i < WORKERS_MAX; i++)
		if (workers[i].request == r)
			workers[i].request = NULL;
	for (size_t i = 0; i < WORKERS_MAX; i++)
		if (workers[i].memory_request == r)
			workers[i].memory_request = NULL;
	if (r->timer.deadline)
		loop_timer_disarm(&r->timer);
}

void worker_kill(struct worker *w)
{
	w->kills++;
}

int worker_limits_set(struct worker *w, const struct worker_limits *limits, struct error *err)
{
	if (limits_code)
		return error_set(err, limits_code, "there is no cgroup");
	w->limits = *limits;
	return 0;
}

static const char *console;

void fake_console(const char *path)
{
	console = path;
}

const char *worker_sockets_path(const struct worker *w)
{
	(void)w;
	return console;
}

const char *worker_console_path(const struct worker *w)
{
	(void)w;
	return console;
}

pid_t worker_pid(const struct worker *w)
{
	return (pid_t)(w - workers) + 1000;
}

int worker_usage_get(const struct worker *w, struct worker_usage *ret)
{
	*ret = w->usage;
	return 0;
}
