// SPDX-License-Identifier: MIT
/* /vms: machines. Who may see or do what is judged by the service's functions. */
#include "daemon/vm.h"
#include "rest/api.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

/* The state decides what is allowed; a refusal says it. */
void call_tell_allowed(struct call *call, const struct vm *vm)
{
	json_decref(call->allowed);
	call->allowed = json_array();
	for (unsigned a = 0; a < VM_ACTION_COUNT; a++) {
		enum vm_state next;

		if (vm_state_next(vm->state, a, &next, NULL) >= 0)
			json_array_append_new(call->allowed, json_string(vm_action_name(a)));
	}
}

static int answer_vm(struct call *call, struct vm *vm)
{
	char etag[ETAG_SIZE];

	etag_of_revision(vm->revision, etag);
	return call_answer_etag(call, 200, vm_json(vm), etag);
}

static int find(struct call *call, struct vm **ret, struct error *err)
{
	return vm_one(call->d, call->caller, call->id, ret, err);
}

/* --- lists --- */

struct vm_list {
	struct page page;
	const char *name, *state, *group;
	const char *after_name, *after_id; /* of the cursor, or NULL */
	unsigned parts;
	uint64_t settings; /* that are wanted, as bits for schema_encode_some */
};

static int compare_names(const char *a, const char *b)
{
	int r = strcasecmp(a, b);

	return r ? r : strcmp(a, b);
}

/* Machines come in order of names, then ids; the cursor is both. */
static bool is_after(const struct vm_list *l, const struct vm *vm)
{
	int r;

	if (!l->after_name)
		return true;
	r = compare_names(vm->settings.name, l->after_name);
	return r > 0 || (r == 0 && strcmp(vm->id, l->after_id) > 0);
}

/* Whether it is this group, or below it. */
static bool in_group(const char *group, const char *wanted)
{
	size_t n = strlen(wanted);

	return !strncmp(group, wanted, n) && (!group[n] || group[n] == '/' || !n);
}

static bool wanted(const struct vm_list *l, const struct vm *vm)
{
	if (l->state && strcmp(l->state, vm_state_name(vm->state)))
		return false;
	if (l->group && !in_group(vm->settings.group ? vm->settings.group : "", l->group))
		return false;
	if (l->name && !name_matches_pattern(l->name, vm->settings.name))
		return false;
	return is_after(l, vm);
}

/*
 * Machines as text but for their status, which is most of a list's work and seldom changes.
 * Revisions do not repeat, so that one tells which machine and which settings; machines that are
 * broken or critical, or have a job, are made each time. A place is taken by whoever comes later.
 */
#define TEXTS    2048
#define TEXT_MAX (8 * KIB) /* longer ones are made each time */

struct vm_text {
	uint64_t revision;
	enum vm_state state;
	int64_t since;
	char *text;
};

void vm_texts_free(struct api *api)
{
	for (unsigned i = 0; api->texts && i < TEXTS; i++)
		free(api->texts[i].text);
	free(steal_ptr(api->texts));
}

static struct vm_text *text_place(struct api *api, const struct vm *vm)
{
	if (vm->broken.code || vm->job || vm->state_words[0])
		return NULL;
	if (!api->texts)
		api->texts = calloc(TEXTS, sizeof(*api->texts));
	return api->texts ? &api->texts[vm->revision % TEXTS] : NULL;
}

/* Kept, and valid until another machine is asked for; or to be freed, in *ret_free. */
static const char *text_without_status(struct api *api, struct vm *vm, char **ret_free)
{
	struct vm_text *t = text_place(api, vm);
	json_t *json;
	char *text;

	if (t && t->text && t->revision == vm->revision && t->state == vm->state &&
	    t->since == vm->state_since)
		return t->text;
	json = vm_json_parts(vm, VM_JSON_SETTINGS);
	text = json ? json_dumps(json, JSON_COMPACT) : NULL;
	json_decref(json);
	if (!t || !text || strlen(text) > TEXT_MAX) {
		*ret_free = text;
		return text;
	}
	free(t->text);
	*t = (struct vm_text){ vm->revision, vm->state, vm->state_since, text };
	return text;
}

/* All of a machine; to be freed. */
static char *vm_text(struct api *api, struct vm *vm)
{
	_cleanup_free_ char *status = vm_status_text(vm), *made = NULL;
	const char *rest = text_without_status(api, vm, &made);
	static const char between[] = ",\"status\":";
	char *text, *p;

	if (!rest || !status)
		return NULL;
	text = malloc(strlen(rest) + strlen(between) + strlen(status) + 1);
	if (!text)
		return NULL;
	/* over the brace that ends it, which comes back after the status */
	p = stpcpy(text, rest) - 1;
	p = stpcpy(stpcpy(p, between), status);
	strcpy(p, "}");
	return text;
}

/* What `fields` may select from, and little more. */
static json_t *vm_some(const struct vm_list *l, struct vm *vm)
{
	json_t *json = vm_json_parts(vm, l->parts);

	if (json && l->settings)
		json_object_set_new(
			json, "settings",
			schema_encode_some(&vm_settings_schema, &vm->settings, l->settings));
	return json;
}

static uint64_t settings_wanted(const struct page *p)
{
	uint64_t settings = 0;
	char path[128];

	for (unsigned i = 0; i < vm_settings_schema.field_count; i++) {
		snprintf(path, sizeof(path), "settings.%s", vm_settings_schema.fields[i].name);
		if (page_wants(p, path))
			settings |= BIT64(i);
	}
	return settings;
}

static int on_vm(void *context, struct vm *vm)
{
	struct vm_list *l = context;
	_cleanup_free_ char *text = NULL;
	char cursor[512];

	if (!wanted(l, vm))
		return 0;
	if (!page_room(&l->page))
		return -ECANCELED; /* that is enough; there is more */
	snprintf(cursor, sizeof(cursor), "%s/%s", vm->id, vm->settings.name);
	if (l->page.fields)
		return page_add(&l->page, vm_some(l, vm), cursor) ? 0 : -ECANCELED;
	text = vm_text(l->page.call->api, vm);
	return page_add_text(&l->page, text, cursor) ? 0 : -ECANCELED;
}

int list_vms(struct call *call, struct error *err)
{
	struct vm_list l = { .name = call_text(call, "name"),
			     .state = call_text(call, "state"),
			     .group = call_text(call, "group") };
	const char *pattern = call_text(call, "pattern");
	int r = page_begin(&l.page, call, err);

	if (r < 0)
		return r;
	if (l.page.cursor && strlen(l.page.cursor) > 37 && l.page.cursor[36] == '/') {
		l.page.cursor[36] = '\0';
		l.after_id = l.page.cursor;
		l.after_name = l.page.cursor + 37;
	} else if (l.page.cursor) {
		page_deinit(&l.page);
		return error_set(err, -EINVAL, "parameter \"cursor\" must be what \"next\" was");
	}
	l.parts = page_wants(&l.page, "status") ? VM_JSON_STATUS : 0;
	l.settings = settings_wanted(&l.page);
	(void)vm_each(call->d, call->caller, pattern ? pattern : "*", on_vm, &l);
	return page_answer(&l.page);
}

/* --- one --- */

static int answer_made(struct call *call, struct vm *vm)
{
	char etag[ETAG_SIZE];

	etag_of_revision(vm->revision, etag);
	return call_answer_created(call, vm_json(vm), etag, API_PREFIX "/vms/%s", vm->id);
}

int create_vm(struct call *call, struct error *err)
{
	json_t *settings = json_object_get(call->body, "settings"), *value;
	json_t *folder = json_object_get(call->body, "folder");
	const char *name;
	struct vm *vm;
	int r;

	json_object_foreach(call->body, name, value)
	{
		if (strcmp(name, "settings") && strcmp(name, "folder")) {
			error_set(err, -EINVAL, "%.60s: is unknown", name);
			snprintf(err->property, sizeof(err->property), "%.60s", name);
			return -EINVAL;
		}
	}
	if (!json_is_object(settings))
		return error_set(err, -EINVAL, "settings: must be an object");
	if (folder && (!json_is_string(folder) || json_string_length(folder) > 4095 ||
		       !json_string_length(folder)))
		return error_set(err, -EINVAL, "folder: must be a string of 1 to 4095 bytes");
	r = vm_create(call->d, call->caller, settings, json_string_value(folder),
		      http_header(call->r, "Idempotency-Key"), &vm, err);
	return r < 0 ? r : answer_made(call, vm);
}

int register_vm(struct call *call, struct error *err)
{
	struct vm *vm;
	int r = vm_register(call->d, call->caller,
			    json_string_value(json_object_get(call->body, "folder")),
			    json_is_true(json_object_get(call->body, "new_id")), &vm, err);

	return r < 0 ? r : answer_made(call, vm);
}

int get_vm(struct call *call, struct error *err)
{
	struct vm *vm;
	int r = find(call, &vm, err);

	return r < 0 ? r : answer_vm(call, vm);
}

static int check_match(struct call *call, const struct vm *vm, struct error *err)
{
	char etag[ETAG_SIZE];

	etag_of_revision(vm->revision, etag);
	return call_if_match(call, etag, err);
}

int patch_vm(struct call *call, struct error *err)
{
	const struct vm_change_options o = { .force = call_bool(call, "force", false) };
	struct job *job;
	struct vm *vm;
	int r = find(call, &vm, err);

	if (r >= 0)
		r = check_match(call, vm, err);
	if (r < 0)
		return r;
	r = vm_change(call->d, call->caller, vm, call->body, &o, &job, err);
	if (r == -EBADFD)
		call_tell_allowed(call, vm);
	if (r >= 0 && job)
		return call_answer_job(call, job, 202), 0;
	return r < 0 ? r : answer_vm(call, vm);
}

int delete_vm(struct call *call, struct error *err)
{
	struct vm *vm;
	int r = find(call, &vm, err);

	if (r >= 0)
		r = check_match(call, vm, err);
	if (r < 0)
		return r;
	r = vm_remove(call->d, call->caller, vm, call_bool(call, "files", false), err);
	if (r == -EBADFD)
		call_tell_allowed(call, vm);
	return r < 0 ? r : call_answer_empty(call);
}

int act_on_vm(struct call *call, struct error *err)
{
	struct vm *vm;
	struct job *job;
	int r = find(call, &vm, err);

	if (r < 0)
		return r;
	r = vm_act(call->d, call->caller, vm, (enum vm_action)call->route->argument, &job, err);
	if (r == -EBADFD)
		call_tell_allowed(call, vm);
	return r < 0 ? r : call_wait_for_job(call, job, err);
}
