// SPDX-License-Identifier: MIT
/*
 * See vm_guest.h. What a worker says of its guest came from the guest: texts are bounded, and
 * nothing but what is known by name is kept.
 */
#include "daemon/vm_guest.h"

#include "daemon/vm_internal.h"
#include "lib/cleanup.h"
#include "lib/log.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#define ASK_TIMEOUT_MS 150000 /* the worker's own limits for a guest's answer are shorter */
#define ASKS_MAX       32     /* under way for one machine */
#define FACT_MAX       1023   /* bytes of a fact */
#define ADDRESSES_MAX  64

struct guest_ask {
	struct worker_request r;
	struct list node;
	struct vm *vm;
	void (*done)(void *context, int result, json_t *answer, const struct error *err);
	void *context;
};

static struct vm_guest *guest_of(const struct vm *vm)
{
	return &entry_of((struct vm *)vm)->guest;
}

/* --- what is known --- */

static const char *const facts[] = {
	"FullyQualifiedDomainName",
	"OSName",
	"OSVersion",
	"OSMajorVersion",
	"OSMinorVersion",
	"OSBuildNumber",
	"ProcessorArchitecture",
	"IntegrationServicesVersion",
	"NetworkAddressIPv4",
	"NetworkAddressIPv6",
};

static void word_set(char *to, size_t room, const json_t *from)
{
	const char *text = json_string_value(from);

	if (text && strlen(text) < room)
		strcpy(to, text);
}

static void facts_set(struct vm_guest *g, const json_t *items)
{
	json_decref(g->facts);
	g->facts = json_object();
	for (size_t i = 0; i < ARRAY_SIZE(facts); i++) {
		json_t *v = json_object_get(items, facts[i]);

		if (json_is_string(v) && json_string_length(v) <= FACT_MAX)
			json_object_set(g->facts, facts[i], v);
	}
}

static void add_addresses(json_t *list, const char *text)
{
	while (text && *text) {
		size_t n = strcspn(text, ";"), i;
		json_t *v, *address = json_stringn(text, n);

		json_array_foreach(list, i, v) if (json_equal(v, address)) break;
		if (n && address && i == json_array_size(list) && i < ADDRESSES_MAX)
			json_array_append(list, address);
		json_decref(address);
		text += n + (text[n] == ';');
	}
}

json_t *vm_guest_addresses(const struct vm *vm)
{
	const struct vm_guest *g = guest_of(vm);
	json_t *list = json_array();

	add_addresses(list, json_string_value(json_object_get(g->facts, "NetworkAddressIPv4")));
	add_addresses(list, json_string_value(json_object_get(g->facts, "NetworkAddressIPv6")));
	return list;
}

static json_t *fact(const struct vm_guest *g, const char *name)
{
	json_t *v = json_object_get(g->facts, name);

	return v ? json_incref(v) : json_null();
}

json_t *vm_guest_json(const struct vm *vm)
{
	const struct vm_guest *g = guest_of(vm);

	return json_pack("{s:s,s:s,s:b,s:o,s:o,s:o,s:o}", "heartbeat",
			 *g->heartbeat ? g->heartbeat : "no-contact", "application",
			 *g->application ? g->application : "unknown", "known", g->known, "name",
			 fact(g, "FullyQualifiedDomainName"), "os", fact(g, "OSName"), "os_version",
			 fact(g, "OSVersion"), "addresses", vm_guest_addresses(vm));
}

/* --- events of the worker --- */

static void tell(struct vm *vm, enum severity severity, const char *kind, const char *format,
		 const char *words)
{
	char text[400];

	snprintf(text, sizeof(text), format, words);
	event_add(vm->daemon->events, severity, kind, vm->id, NULL, NULL, "\"%s\" %s",
		  vm->settings.name, text);
}

static void on_heartbeat(struct vm *vm, json_t *o)
{
	struct vm_guest *g = guest_of(vm);
	char before[sizeof(g->heartbeat)];

	strcpy(before, g->heartbeat);
	word_set(g->heartbeat, sizeof(g->heartbeat), json_object_get(o, "state"));
	word_set(g->application, sizeof(g->application), json_object_get(o, "application"));
	if (strcmp(before, g->heartbeat) && !strcmp(g->heartbeat, "lost"))
		tell(vm, SEVERITY_WARNING, "guest-lost", "%s", "does not answer its heartbeat");
	else if (!strcmp(before, "lost") && !strcmp(g->heartbeat, "ok"))
		tell(vm, SEVERITY_INFORMATION, "guest-found", "%s", "answers its heartbeat again");
}

static void on_info(struct vm *vm, json_t *o)
{
	struct vm_guest *g = guest_of(vm);

	g->known = json_is_true(json_object_get(o, "known"));
	facts_set(g, json_object_get(o, "items"));
}

static void on_thawed(struct vm *vm, json_t *o)
{
	const char *reason = json_string_value(json_object_get(o, "reason"));

	tell(vm, SEVERITY_WARNING, "guest-thawed", "was thawed: %.200s", reason ? reason : "");
}

static void on_copying(struct vm *vm, json_t *o)
{
	json_int_t copied = json_integer_value(json_object_get(o, "copied"));
	json_int_t size = json_integer_value(json_object_get(o, "size"));
	struct job *job = guest_of(vm)->copy;

	if (job && size > 0 && copied >= 0 && copied <= size)
		job_progress(vm->daemon->jobs, job, (unsigned)((double)copied * 99 / (double)size));
}

static void copy_end(struct vm *vm, int result, const struct error *err)
{
	struct job *job = steal_ptr(guest_of(vm)->copy);

	if (job)
		job_end(vm->daemon->jobs, job, result, err);
}

static void on_copied(struct vm *vm, json_t *o)
{
	const char *words = json_string_value(json_object_get(o, "error"));
	bool cancelled = guest_of(vm)->copy_cancelled;
	struct error err = { 0 };

	if (json_is_true(json_object_get(o, "ok")))
		copy_end(vm, 0, NULL);
	else
		copy_end(vm,
			 error_set(&err, cancelled ? -ECANCELED : -EIO, "%.400s",
				   words ? words : "the file was not copied"),
			 &err);
}

static const struct {
	const char *name;
	void (*take)(struct vm *vm, json_t *event);
} events[] = {
	{ "guest-heartbeat", on_heartbeat }, { "guest-info", on_info },
	{ "guest-thawed", on_thawed },       { "guest-copying", on_copying },
	{ "guest-copied", on_copied },
};

void vm_guest_event(struct vm *vm, json_t *event)
{
	const char *name = json_string_value(json_object_get(event, "event"));

	for (size_t i = 0; i < ARRAY_SIZE(events) && name; i++)
		if (!strcmp(name, events[i].name))
			events[i].take(vm, event);
}

/* --- asking --- */

static void ask_done(struct worker_request *r, int result, json_t *answer, const struct error *err)
{
	struct guest_ask *a = container_of(r, struct guest_ask, r);

	list_remove(&a->node);
	guest_of(a->vm)->asks--;
	if (a->done)
		a->done(a->context, result, answer, err);
	free(a);
}

void guest_ask_leave(struct guest_ask *a)
{
	worker_ask_cancel(&a->r);
	list_remove(&a->node);
	guest_of(a->vm)->asks--;
	free(a);
}

static int ask(struct vm *vm, const struct guest_question *q, int fd, struct guest_ask **ret,
	       struct error *err)
{
	struct vm_guest *g = guest_of(vm);
	struct guest_ask *a = NULL;
	int r = 0;

	if (g->asks == ASKS_MAX)
		r = error_set(err, -EBUSY, "%u things were asked of the guest already", ASKS_MAX);
	else if (!(a = calloc(1, sizeof(*a))))
		r = error_set(err, -ENOMEM, "not enough memory");
	if (r < 0) {
		if (fd >= 0)
			close(fd);
		return r;
	}
	a->vm = vm;
	a->done = q->done;
	a->context = q->context;
	a->r.done = ask_done;
	g->asks++;
	list_append(&g->asked, &a->node);
	if (ret)
		*ret = a;
	worker_ask(vm->worker, &a->r, q->request, &fd, fd >= 0, ASK_TIMEOUT_MS);
	return 0;
}

static int check(struct daemon *d, const struct caller *c, struct vm *vm, struct error *err)
{
	int r = caller_check(d, c, OP_GUEST_SERVICE, vm, err);

	if (r < 0)
		return r;
	if (!vm->worker || vm->state != VM_RUNNING)
		return error_set(err, -EBADFD, "it is %s: only a guest that runs can be asked",
				 vm_state_name(vm->state));
	return 0;
}

int vm_guest_ask(struct daemon *d, const struct caller *c, struct vm *vm,
		 const struct guest_question *q, struct guest_ask **ret, struct error *err)
{
	int r = check(d, c, vm, err);

	if (r == 0)
		r = ask(vm, q, -1, ret, err);
	if (r == 0 && q->what)
		event_add(d->events, SEVERITY_AUDIT, "guest-asked", vm->id, c, NULL,
			  "%s of the guest of \"%s\"", q->what, vm->settings.name);
	return r;
}

/* --- services --- */

static void on_switched(void *context, int result, json_t *answer, const struct error *err)
{
	struct vm *vm = context;

	(void)answer;
	if (result < 0 && result != -EPIPE)
		tell(vm, SEVERITY_ERROR, "guest-service-failed",
		     "cannot have a service switched: %.300s", err->message);
}

static void service_switch(struct vm *vm, const char *service, bool on)
{
	json_t *request =
		json_pack("{s:s,s:s,s:b}", "command", "service-set", "service", service, "on", on);
	const struct guest_question q = { .request = request, .done = on_switched, .context = vm };
	struct error err = { 0 };

	if (ask(vm, &q, -1, NULL, &err) < 0)
		on_switched(vm, err.code, NULL, &err);
	json_decref(request);
}

void vm_guest_services(struct vm *vm, const struct vm_integration_services *now)
{
	const struct vm_integration_services *was = &vm->settings.integration_services;
	const struct {
		const char *name;
		bool was, now;
	} services[] = {
		{ "heartbeat", was->heartbeat, now->heartbeat },
		{ "shutdown", was->shutdown, now->shutdown },
		{ "time_synchronization", was->time_synchronization, now->time_synchronization },
		{ "key_value_exchange", was->key_value_exchange, now->key_value_exchange },
		{ "vss", was->vss, now->vss },
		{ "guest_services", was->guest_services, now->guest_services },
	};

	for (size_t i = 0; vm->worker && i < ARRAY_SIZE(services); i++)
		if (services[i].was != services[i].now)
			service_switch(vm, services[i].name, services[i].now);
}

/* --- files --- */

static void copy_cancel(struct job *job)
{
	struct vm *vm = job->operation;
	json_t *request = json_pack("{s:s}", "command", "guest-copy-cancel");
	const struct guest_question q = { .request = request };

	guest_of(vm)->copy_cancelled = true;
	if (vm->worker)
		(void)!ask(vm, &q, -1, NULL, NULL);
	json_decref(request);
}

static void on_copy_begun(void *context, int result, json_t *answer, const struct error *err)
{
	(void)answer;
	if (result < 0)
		copy_end(context, result, err);
}

/* No link is followed at its end, and nothing is waited for. */
static int source_open(const struct caller *c, const struct vm *vm, const char *path,
		       struct error *err)
{
	size_t n = strlen(vm->folder);
	int fd;

	if (*path != '/' || !path_plain(path))
		return error_set(err, -EINVAL, "source: must be an absolute path without . and ..");
	if (!c->administrator && (strncmp(path, vm->folder, n) || path[n] != '/'))
		return error_set(err, -EACCES,
				 "source: only administrators may copy files from outside of the "
				 "machine's folder");
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
	return fd < 0 ? error_errno(err, -errno, "source: cannot open \"%.300s\"", path) : fd;
}

static int copy_job(struct vm *vm, const struct caller *c, const struct guest_copy *copy,
		    struct error *err)
{
	struct daemon *d = vm->daemon;
	struct vm_guest *g = guest_of(vm);
	int r = database_begin(d->db, err);

	if (r < 0)
		return r;
	r = job_begin(d->jobs, "copy-to-guest", c, vm->id, &g->copy, err);
	if (r < 0) {
		database_rollback(d->db);
		return r;
	}
	event_add(d->events, SEVERITY_AUDIT, "copy-to-guest", vm->id, c,
		  json_pack("{s:s,s:s}", "source", copy->source, "path", copy->path),
		  "copies a file to the guest of \"%s\"", vm->settings.name);
	r = database_commit(d->db, err);
	if (r < 0) {
		g->copy = NULL;
		return r;
	}
	g->copy->operation = vm;
	g->copy->cancel = copy_cancel;
	g->copy_cancelled = false;
	return 0;
}

int vm_guest_copy(struct daemon *d, const struct caller *c, struct vm *vm,
		  const struct guest_copy *copy, struct job **ret, struct error *err)
{
	json_t *request = NULL;
	struct guest_question q = { .done = on_copy_begun, .context = vm };
	int fd = -1, r = check(d, c, vm, err);

	if (r == 0 && guest_of(vm)->copy)
		r = error_set(err, -EBUSY, "another file is being copied to the guest");
	if (r == 0)
		r = fd = source_open(c, vm, copy->source, err);
	if (r >= 0)
		r = copy_job(vm, c, copy, err);
	if (r < 0) {
		if (fd >= 0)
			close(fd);
		return r;
	}
	request = json_pack("{s:s,s:s,s:i,s:b,s:b}", "command", "guest-copy", "path", copy->path,
			    "descriptor", 0, "overwrite", copy->overwrite, "create_path",
			    copy->create_path);
	q.request = request;
	*ret = guest_of(vm)->copy;
	r = ask(vm, &q, fd, NULL, err);
	json_decref(request);
	if (r < 0)
		copy_end(vm, r, err);
	return 0;
}

/* --- life --- */

static void on_learned(void *context, int result, json_t *answer, const struct error *err)
{
	struct vm *vm = context;

	(void)err;
	if (result < 0)
		return;
	on_heartbeat(vm, json_object_get(answer, "heartbeat"));
	on_info(vm, answer);
}

void vm_guest_learn(struct vm *vm)
{
	json_t *request = json_pack("{s:s}", "command", "guest-query");
	const struct guest_question q = { .request = request, .done = on_learned, .context = vm };

	(void)!ask(vm, &q, -1, NULL, NULL);
	json_decref(request);
}

void vm_guest_init(struct vm *vm)
{
	list_init(&guest_of(vm)->asked);
}

/* The job of a copy stays as it is: the next service fails it, with words. */
void vm_guest_let_go(struct vm *vm)
{
	struct vm_guest *g = guest_of(vm);

	while (!list_empty(&g->asked))
		guest_ask_leave(list_first(&g->asked, struct guest_ask, node));
	json_decref(steal_ptr(g->facts));
	g->copy = NULL;
}

/* Whoever asked has been told by then, that the worker is gone. */
void vm_guest_forget(struct vm *vm)
{
	struct vm_guest *g = guest_of(vm);
	struct error err = { 0 };

	error_set(&err, -EPIPE, "the machine went away before the file was copied");
	copy_end(vm, -EPIPE, &err);
	json_decref(steal_ptr(g->facts));
	g->known = false;
	*g->heartbeat = *g->application = '\0';
}
