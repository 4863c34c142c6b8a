// SPDX-License-Identifier: MIT
/*
 * /vms/{id}/guest: what the guest says of itself, items and files for it, its addresses; and the
 * requests to shut down or to restart, which the guest has its say in. What is asked of the guest
 * is answered when it has.
 */
#include "daemon/vm_guest.h"
#include "rest/api.h"

#include <errno.h>
#include <string.h>

static int find(struct call *call, struct vm **ret, struct error *err)
{
	return vm_one(call->d, call->caller, call->id, ret, err);
}

/* --- shut-down, restart --- */

int shut_down_vm(struct call *call, struct error *err)
{
	const struct vm_shut_down how = {
		.restart = call->route->argument == VM_RESTART,
		.force = call_bool(call, "force", false),
		.turn_off = call_bool(call, "turn_off", false),
		.timeout_s = (unsigned)call_integer(call, "timeout", 0),
		.reason = call_text(call, "reason"),
	};
	struct vm *vm;
	struct job *job;
	int r = find(call, &vm, err);

	if (r >= 0)
		r = vm_shut_down(call->d, call->caller, vm, &how, &job, err);
	if (r == -EBADFD)
		call_tell_allowed(call, vm);
	return r < 0 ? r : call_wait_for_job(call, job, err);
}

/* --- questions --- */

static void on_left(struct call *call)
{
	guest_ask_leave(call->context);
}

/* What the worker adds to every answer is not the guest's. */
static json_t *told(json_t *answer)
{
	json_t *copy = json_copy(answer);

	json_object_del(copy, "ok");
	json_object_del(copy, "id");
	json_object_del(copy, "state");
	return copy;
}

/* A refusal of the guest's, or of its worker's, is about the state that the guest is in. */
static void on_answer(void *context, int result, json_t *answer, const struct error *err)
{
	struct call *call = context;
	struct error mine = { 0 };

	if (result < 0) {
		mine = *err;
		mine.code = result == -ETIMEDOUT ? result : -EBADFD;
		call_problem(call, &mine);
	} else if (call->route->answer) {
		call_answer(call, 200, told(answer));
	} else {
		call_answer_empty(call);
	}
}

/* Takes the request. */
static int ask(struct call *call, json_t *request, const char *what, struct error *err)
{
	const struct guest_question q = {
		.request = request, .what = what, .done = on_answer, .context = call
	};
	struct guest_ask *a;
	struct vm *vm;
	int r = request ? find(call, &vm, err) : error_set(err, -ENOMEM, "not enough memory");

	if (r >= 0)
		r = vm_guest_ask(call->d, call->caller, vm, &q, &a, err);
	json_decref(request);
	if (r < 0)
		return r;
	call->context = a;
	call_later(call, on_left);
	return 0;
}

int get_guest(struct call *call, struct error *err)
{
	return ask(call, json_pack("{s:s,s:b}", "command", "guest-query", "refresh", true), NULL,
		   err);
}

int get_guest_items(struct call *call, struct error *err)
{
	const char *pool = call_text(call, "pool");

	return ask(call,
		   json_pack("{s:s,s:s,s:I}", "command", "guest-items", "pool",
			     pool ? pool : "external", "from",
			     (json_int_t)call_integer(call, "from", 0)),
		   NULL, err);
}

/* The body with a command in it. */
static json_t *request_of(const struct call *call, const char *command)
{
	json_t *request = json_copy(call->body);

	json_object_set_new(request, "command", json_string(command));
	return request;
}

int put_guest_item(struct call *call, struct error *err)
{
	json_t *value = json_object_get(call->body, "value");
	bool removes = !value || json_is_null(value);
	json_t *request = request_of(call, removes ? "guest-delete" : "guest-set");

	if (removes)
		json_object_del(request, "value");
	return ask(call, request, removes ? "an item was removed" : "an item was set", err);
}

int get_guest_ip(struct call *call, struct error *err)
{
	return ask(call,
		   json_pack("{s:s,s:s,s:s}", "command", "guest-ip", "action", "get", "adapter",
			     call_text(call, "mac")),
		   NULL, err);
}

int put_guest_ip(struct call *call, struct error *err)
{
	json_t *request = request_of(call, "guest-ip");

	json_object_set_new(request, "action", json_string("set"));
	return ask(call, request, "addresses were set", err);
}

int freeze_guest(struct call *call, struct error *err)
{
	return ask(call, request_of(call, "guest-freeze"), "a freeze was asked", err);
}

int thaw_guest(struct call *call, struct error *err)
{
	return ask(call, json_pack("{s:s}", "command", "guest-thaw"), "a thaw was asked", err);
}

int copy_to_guest(struct call *call, struct error *err)
{
	const struct guest_copy copy = {
		.source = json_string_value(json_object_get(call->body, "source")),
		.path = json_string_value(json_object_get(call->body, "path")),
		.overwrite = json_is_true(json_object_get(call->body, "overwrite")),
		.create_path = json_is_true(json_object_get(call->body, "create_path")),
	};
	struct vm *vm;
	struct job *job;
	int r = find(call, &vm, err);

	if (r >= 0)
		r = vm_guest_copy(call->d, call->caller, vm, &copy, &job, err);
	return r < 0 ? r : call_wait_for_job(call, job, err);
}
