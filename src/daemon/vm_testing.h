/* SPDX-License-Identifier: MIT */
/* For tests of machines: a service in a folder of its own, over the fake supervisor. */
#pragma once

#include "daemon/fake_supervisor.h"
#include "daemon/host.h"
#include "daemon/testing.h"
#include "daemon/vm.h"
#include "lib/cleanup.h"

#include <errno.h>
#include <fcntl.h>

struct test {
	struct loop *loop;
	struct daemon *d;
	char *folder;
};

static const struct caller ada = { .name = "ada", .uid = 1000, .administrator = true };
static const struct caller bob = { .name = "nobody", .uid = 65534 };

/* JSON with ' for ". */
static inline json_t *quoted(const char *text)
{
	char *copy = strdup(text);
	json_error_t e;
	json_t *json;

	for (char *p = copy; *p; p++)
		*p = *p == '\'' ? '"' : *p;
	json = json_loads(copy, JSON_DECODE_ANY, &e);
	if (!json)
		fail_msg("%s: %s", text, e.text);
	free(copy);
	return json;
}

static inline void test_turn(struct test *t)
{
	for (int i = 0; i < 5; i++)
		assert_true(loop_once(t->loop, 0) >= 0);
}

static inline void test_begin(struct test *t)
{
	char state[256], run[256];
	const struct daemon_options o = {
		.state_folder = state, .run_folder = run, .worker = "w", .keeper = "k"
	};
	struct error err = { 0 };

	snprintf(state, sizeof(state), "%s/state", t->folder);
	snprintf(run, sizeof(run), "%s/run", t->folder);
	assert_int_equal(loop_new(0, &t->loop, &err), 0);
	if (daemon_new(t->loop, &o, &t->d, &err) < 0)
		fail_msg("%s", err.message);
	test_turn(t);
}

static inline void test_end(struct test *t)
{
	daemon_free(t->d);
	loop_free(t->loop);
	t->d = NULL;
	t->loop = NULL;
}

static inline void test_again(struct test *t)
{
	test_end(t);
	test_begin(t);
}

static inline int test_setup(void **state)
{
	struct test *t = calloc(1, sizeof(*t));
	void *folder;

	if (test_folder_setup(&folder) < 0)
		return -1;
	t->folder = folder;
	fake_reset();
	test_begin(t);
	*state = t;
	return 0;
}

static inline int test_teardown(void **state)
{
	struct test *t = *state;
	void *folder = t->folder;

	test_end(t);
	fake_reset();
	free(t);
	return test_folder_teardown(&folder);
}

static inline int try_make(struct test *t, const struct caller *c, const char *settings,
			   struct vm **ret, struct error *err)
{
	json_t *json = quoted(settings);
	int r = vm_create(t->d, c, json, NULL, NULL, ret, err);

	json_decref(json);
	return r;
}

static inline struct vm *make(struct test *t, const char *settings)
{
	struct error err = { 0 };
	struct vm *vm;

	if (try_make(t, &ada, settings, &vm, &err) < 0)
		fail_msg("%s: %s", settings, err.message);
	return vm;
}

static inline int change(struct vm *vm, const struct caller *c, const char *patch,
			 uint64_t revision, struct error *err)
{
	const struct vm_change_options o = { .revision = revision };
	json_t *json = quoted(patch);
	struct job *job;
	int r = vm_change(vm->daemon, c, vm, json, &o, &job, err);

	json_decref(json);
	return r;
}

static inline struct vm *only(struct test *t)
{
	assert_int_equal(t->d->vm_count, 1);
	return list_first(&t->d->vms, struct vm, node);
}

/* How many events of this kind there are. */
static inline int count_event(void *context, const struct event *event)
{
	(void)event;
	++*(int *)context;
	return 0;
}

static inline int events_of(struct test *t, const char *kind)
{
	struct event_filter f = { .kind = kind };
	int count = 0;

	test_turn(t);
	assert_true(events_query(t->d->events, &f, count_event, &count, NULL) >= 0);
	return count;
}

static inline void grant(struct test *t, const char *user, const char *role, const char *scope)
{
	json_t *a = json_pack("{s:s,s:s,s:s}", "user", user, "role", role, "scope", scope);
	struct error err = { 0 };
	int64_t id;

	if (authz_assign(t->d->authz, a, &id, &err) < 0)
		fail_msg("%s", err.message);
	json_decref(a);
}

#define assert_words(err, part)                                                                    \
	do {                                                                                       \
		if (!strstr((err).message, part))                                                  \
			fail_msg("\"%s\" is not in: %s", part, (err).message);                     \
	} while (0)
