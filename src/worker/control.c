// SPDX-License-Identifier: MIT
/*
 * See control.h. The commands about the machine as a whole; those of its parts are beside them.
 * Event loop's thread.
 */
#include "worker/control.h"

#include "control/server.h"
#include "lib/unix_socket.h"
#include "worker/vm_description.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

struct control {
	struct machine *machine;
	struct control_server *server;
	unsigned family_count;
	struct command_family families[1 + MACHINE_FAMILIES_MAX];
};

static int run_query(struct command *c, struct error *err)
{
	struct control *control = c->context;
	struct vmbus_counters n = vmbus_counters(machine_bus(control->machine));
	uint32_t version = vmbus_version(machine_bus(control->machine));
	char text[16] = "";

	(void)err;
	if (version)
		snprintf(text, sizeof(text), "%u.%u", version >> 16, version & 0xffff);
	json_object_set_new(c->answer, "vmbus_version", json_string(text));
	json_object_set_new(c->answer, "exits",
			    json_integer((json_int_t)machine_exits(control->machine)));
	json_object_set_new(
		c->answer, "vmbus",
		json_pack("{s:I,s:I,s:I,s:I,s:I,s:I,s:i,s:i}", "messages", (json_int_t)n.messages,
			  "bad_messages", (json_int_t)n.bad_messages, "packets_in",
			  (json_int_t)n.packets_in, "packets_out", (json_int_t)n.packets_out,
			  "signals_in", (json_int_t)n.signals_in, "signals_out",
			  (json_int_t)n.signals_out, "gpadls", (int)n.gpadls, "channels_open",
			  (int)n.channels_open));
	return 0;
}

static int run_machine(struct command *c, enum machine_command command, struct error *err)
{
	struct control *control = c->context;

	return machine_command(control->machine, command, err);
}

static int run_pause(struct command *c, struct error *err)
{
	return run_machine(c, MACHINE_PAUSE, err);
}

static int run_resume(struct command *c, struct error *err)
{
	return run_machine(c, MACHINE_RESUME, err);
}

static int run_reset(struct command *c, struct error *err)
{
	return run_machine(c, MACHINE_RESET, err);
}

static int run_power_off(struct command *c, struct error *err)
{
	return run_machine(c, MACHINE_POWER_OFF, err);
}

static void on_saved(void *context, int result, const struct error *err)
{
	struct command *c = context;

	c->done(c, result, err);
}

static int run_save(struct command *c, struct error *err)
{
	struct control *control = c->context;
	struct machine_save save = { .done = on_saved, .context = c };
	int r = take_fd(c, c->request, "file", true, &save.fd, err);

	if (r < 0)
		return r;
	r = machine_save(control->machine, &save, err);
	if (r < 0)
		close(save.fd);
	return r < 0 ? r : 1;
}

static int run_save_cancel(struct command *c, struct error *err)
{
	struct control *control = c->context;

	return machine_save_cancel(control->machine, err);
}

static const struct command_type machine_commands[] = {
	/* clang-format off */
	{ "query", "", run_query },
	{ "pause", "", run_pause },
	{ "resume", "", run_resume },
	{ "reset", "", run_reset },
	{ "power-off", "", run_power_off },
	{ "save", " file ", run_save },
	{ "save-cancel", "", run_save_cancel },
	{ 0 },
	/* clang-format on */
};

static const struct command_family *families(void *context, unsigned *ret_count)
{
	struct control *c = context;

	*ret_count = c->family_count;
	return c->families;
}

static void stamp(void *context, json_t *answer)
{
	struct control *c = context;

	json_object_set_new(answer, "state",
			    json_string(machine_state_name(machine_state(c->machine))));
}

static void on_event(void *context, json_t *event, bool may_miss)
{
	struct control *c = context;

	control_server_tell(c->server, event, may_miss);
}

static void on_state(void *context, enum machine_state state)
{
	json_t *event =
		json_pack("{s:s,s:s}", "event", "state", "state", machine_state_name(state));

	on_event(context, event, false);
	json_decref(event);
}

static void families_init(struct control *c)
{
	unsigned count;
	const struct command_family *parts = machine_families(c->machine, &count);

	c->families[0] = (struct command_family){ .types = machine_commands, .context = c };
	memcpy(&c->families[1], parts, count * sizeof(*parts));
	c->family_count = 1 + count;
}

static int listen_on(const struct vm_control *d, struct error *err)
{
	if (d->path && d->listener >= 0)
		return error_set(err, -EINVAL, "control: either a path or a listener");
	return d->path ? unix_listen(d->path, 0, 4, err)
		       : unix_listener_take((int)d->listener, "control.listener", err);
}

int control_new(struct loop *loop, struct machine *machine, const struct vm_control *description,
		struct control **ret, struct error *err)
{
	struct control *c = calloc(1, sizeof(*c));
	struct control_options o = { .loop = loop,
				     .listener = -1,
				     .descriptor = (int)description->descriptor,
				     .families = families,
				     .stamp = stamp,
				     .context = c };
	int r = 0;

	if (!c)
		return error_set(err, -ENOMEM, "out of memory");
	c->machine = machine;
	families_init(c);
	if (description->path || description->listener >= 0)
		r = o.listener = listen_on(description, err);
	if (r >= 0)
		r = control_server_new(&o, &c->server, err);
	if (r < 0) {
		free(c);
		return r;
	}
	machine_on_state(machine, on_state, c);
	machine_on_event(machine, on_event, c);
	*ret = c;
	return 0;
}

void control_free(struct control *c)
{
	if (!c)
		return;
	machine_on_event(c->machine, NULL, NULL);
	control_server_free(c->server);
	free(c);
}
