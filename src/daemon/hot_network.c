// SPDX-License-Identifier: MIT
/*
 * Network adapters of a running machine: those that are there (hot_adapters), and what they are
 * plugged into (hot_ports). An adapter is known by its id, which is its port's too. A port is made
 * by the switch, which gives the other end out as descriptors; the worker gets these.
 */
#include "daemon/hot.h"
#include "daemon/network.h"
#include "lib/cleanup.h"

#include <errno.h>
#include <string.h>

static json_t *query(const json_t *answers)
{
	return json_array_size(answers) ? NULL : json_pack("{s:s}", "command", "adapter-query");
}

static const char *text(const json_t *o, const char *key)
{
	const char *value = json_string_value(json_object_get(o, key));

	return value ? value : "";
}

static const json_t *by_id(const json_t *list, const char *id)
{
	json_t *o;
	size_t i;

	json_array_foreach((json_t *)list, i, o) if (!strcasecmp(text(o, "id"), id)) return o;
	return NULL;
}

static const json_t *there(const struct hot_view *v)
{
	return json_object_get(json_array_get(v->answers, 0), "adapters");
}

/* --- those that are there --- */

static int adapters_next(const struct hot_view *v, struct hot_step *step, struct error *err)
{
	json_t *o;
	size_t i;

	json_array_foreach((json_t *)there(v), i, o)
	{
		const char *id = text(o, "id");

		if (by_id(v->wanted, id) || json_is_true(json_object_get(o, "removing")))
			continue;
		step->request = json_pack("{s:s,s:s}", "command", "adapter-remove", "adapter", id);
		return step->request ? 1 : -ENOMEM;
	}
	json_array_foreach((json_t *)v->wanted, i, o)
	{
		const json_t *old = by_id(there(v), text(o, "id"));

		if (old && json_is_true(json_object_get(old, "removing")))
			return error_set(
				err, -EBUSY,
				"the guest has not let go of the adapter \"%s\" yet; add it "
				"again when it has",
				text(o, "name"));
		if (old)
			continue;
		step->request = json_deep_copy(o);
		json_object_set(step->request, "adapter", json_object_get(o, "id"));
		json_object_del(step->request, "id");
		json_object_set_new(step->request, "command", json_string("adapter-add"));
		return step->request ? 1 : -ENOMEM;
	}
	return 0;
}

const struct hot_part hot_adapters = { "network", query, adapters_next };

/* --- what they are plugged into --- */

/* Ports of that adapter elsewhere are of no use any more. */
static void leave_others(struct networks *all, const char *id, const struct network *but)
{
	struct network_port *p;

	while ((p = networks_port(all, id, NULL))) {
		if (p->network == but)
			return;
		network_unplug(p);
	}
}

static int unplug(const struct hot_view *v, const char *id, const json_t *adapter,
		  struct hot_step *step)
{
	leave_others(v->vm->daemon->networks, id, NULL);
	if (!json_is_true(json_object_get(adapter, "connected")))
		return 0;
	step->request = json_pack("{s:s,s:s}", "command", "adapter-disconnect", "adapter", id);
	return step->request ? 1 : -ENOMEM;
}

/* The descriptors that the switch has given out. */
static int connect_held(struct network_port *p, struct hot_step *step)
{
	step->fds[0] = steal_fd(&p->held[0]);
	step->fds[1] = steal_fd(&p->held[1]);
	step->fd_count = 2;
	step->request = json_pack("{s:s,s:s,s:i,s:i}", "command", "adapter-connect", "adapter",
				  p->id, "memory", 0, "socket", 1);
	return step->request ? 1 : -ENOMEM;
}

static int plug(const struct hot_view *v, const json_t *wanted, const json_t *adapter,
		struct hot_step *step, struct error *err)
{
	struct networks *all = v->vm->daemon->networks;
	struct network *n = network_use(all, text(wanted, "switch"), err);
	const json_t *port = json_object_get(wanted, "port");
	const char *id = text(wanted, "id");
	struct network_port *p;
	int r = n ? network_prepare(n, step, err) : err->code;

	if (r)
		return r;
	leave_others(all, id, n);
	p = networks_port(all, id, n);
	if (p && p->held[0] >= 0)
		return connect_held(p, step);
	if (!p || !p->plugged || !json_is_true(json_object_get(adapter, "connected")))
		return network_plug(n, v->vm->id, port, step);
	snprintf(p->vm, sizeof(p->vm), "%s", v->vm->id);
	return p->settings && json_equal(p->settings, port) ? 0 : network_set(p, port, step);
}

static int ports_next(const struct hot_view *v, struct hot_step *step, struct error *err)
{
	json_t *o;
	size_t i;
	int r = 0;

	json_array_foreach((json_t *)v->wanted, i, o)
	{
		const char *id = text(o, "id");
		const json_t *adapter = by_id(there(v), id);

		if (!adapter)
			continue;
		r = json_object_get(o, "switch") ? plug(v, o, adapter, step, err)
						 : unplug(v, id, adapter, step);
		if (r)
			break;
	}
	if (r < 0 && err && !err->message[0])
		error_errno(err, r, "cannot plug in an adapter");
	return r;
}

const struct hot_part hot_ports = { "ports", query, ports_next };
