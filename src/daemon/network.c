// SPDX-License-Identifier: MIT
/*
 * See network.h. The processes are supervised as workers are, by supervisors of their own; what is
 * asked of them goes as steps of the hot change that needs it, so nothing here waits. What a switch
 * has is known from its answers: asked once, when it was started or taken over.
 */
#include "daemon/network.h"

#include "daemon/thing.h"
#include "daemon/vm_internal.h"
#include "lib/cleanup.h"
#include "lib/log.h"
#include "schema/json.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ASK_MS        10000
#define NS_PER_S      UINT64_C(1000000000)
#define RESTART_MAX_S 60
#define STEADY_S      60 /* it ran that long: a failure is the first one again */
#define NAT_PORT      "nat"
#define NAT_ADDRESS   "172.29.0.1/20" /* each has this: no two networks meet */
#define ADDRESSES_MAX 16

/* A process beside a network's: the switch, or what is behind it. */
struct process {
	struct network *network;
	struct worker *worker; /* NULL: it does not run */
	bool stopping;         /* its end is wanted */
};

struct network {
	struct list node, ports;
	struct networks *owner;
	char id[GUID_TEXT_SIZE];
	char *name;
	bool nat;
	struct process switchd, natd;
	bool known;    /* what ports the switch has */
	bool attached; /* the network behind it is plugged in */
	int nat_fds[2];
	uint64_t began;
	unsigned failures;
	struct loop_timer restart;
};

struct networks {
	struct daemon *d;
	char *folder; /* of the service's sockets and ours */
	struct supervisor *switches, *nats;
	struct list list;
};

/* --- ports --- */

static struct network_port *port_find(const struct network *n, const char *id)
{
	list_foreach(it, &n->ports)
	{
		struct network_port *p = list_entry(it, struct network_port, node);

		if (!strcmp(p->id, id))
			return p;
	}
	return NULL;
}

static struct network_port *port_make(struct network *n, const char *id)
{
	struct network_port *p = port_find(n, id);

	if (p || strlen(id) >= sizeof(p->id))
		return p;
	p = calloc(1, sizeof(*p));
	if (!p)
		return NULL;
	snprintf(p->id, sizeof(p->id), "%s", id);
	p->network = n;
	p->held[0] = p->held[1] = -1;
	list_append(&n->ports, &p->node);
	return p;
}

static void fds_drop(int fds[2])
{
	for (unsigned i = 0; i < 2; i++) {
		if (fds[i] >= 0)
			close(fds[i]);
		fds[i] = -1;
	}
}

static void port_free(struct network_port *p)
{
	list_remove(&p->node);
	fds_drop(p->held);
	json_decref(p->settings);
	json_decref(p->addresses);
	free(p);
}

struct network_port *networks_port(struct networks *n, const char *adapter,
				   const struct network *only)
{
	list_foreach(it, &n->list)
	{
		struct network *network = list_entry(it, struct network, node);
		struct network_port *p =
			!only || only == network ? port_find(network, adapter) : NULL;

		if (p)
			return p;
	}
	return NULL;
}

/* --- requests that nobody waits for --- */

struct order {
	struct worker_request request;
};

static void on_order(struct worker_request *r, int result, json_t *answer, const struct error *err)
{
	(void)answer;
	if (result < 0 && result != -EPIPE)
		log_line("switch: %s", err->message);
	free(container_of(r, struct order, request));
}

static void order(struct worker *w, json_t *request)
{
	struct order *o = w ? calloc(1, sizeof(*o)) : NULL;

	if (o) {
		o->request.done = on_order;
		worker_ask(w, &o->request, request, NULL, 0, ASK_MS);
	}
	json_decref(request);
}

/* --- the life of a network --- */

static void process_stop(struct process *p)
{
	p->stopping = true;
	if (p->worker)
		worker_kill(p->worker); /* it keeps nothing that could be lost */
}

static void network_forget_ports(struct network *n)
{
	while (!list_empty(&n->ports))
		port_free(list_first(&n->ports, struct network_port, node));
	fds_drop(n->nat_fds);
	n->known = n->attached = false;
}

static void network_free(struct network *n)
{
	network_forget_ports(n);
	loop_timer_disarm(&n->restart);
	list_remove(&n->node);
	free(n->name);
	free(n);
}

/* Nothing but the network behind it is plugged in. */
static void network_rest(struct network *n)
{
	list_foreach(it, &n->ports) if (strcmp(list_entry(it, struct network_port, node)->id,
					       NAT_PORT)) return;
	if (!n->known)
		return;
	loop_timer_disarm(&n->restart);
	process_stop(&n->switchd);
	process_stop(&n->natd);
}

static bool uses(const struct vm *vm, const struct network *n)
{
	for (unsigned i = 0; i < vm->settings.network_adapters_count; i++) {
		const char *name = vm->settings.network_adapters[i].switch_;

		if (name && (!strcasecmp(name, n->id) || !strcmp(name, n->name)))
			return true;
	}
	return false;
}

/* Machines on it are plugged in again; that starts what does not run. */
static void network_replug(struct network *n)
{
	list_foreach(it, &n->owner->d->vms)
	{
		struct vm *vm = list_entry(it, struct vm, node);

		if (vm->worker && uses(vm, n))
			vm_hot_settle(vm, false);
	}
}

static void on_restart(struct loop_timer *t)
{
	network_replug(container_of(t, struct network, restart));
}

static void process_ended(struct process *p, enum worker_end end, const char *words)
{
	struct network *n = p->network;
	struct daemon *d = n->owner->d;
	bool wanted = p->stopping;
	unsigned wait;

	p->worker = NULL;
	p->stopping = false;
	if (p == &n->switchd)
		network_forget_ports(n);
	n->attached = false;
	if (wanted) {
		/* A machine may have come meanwhile. */
		loop_timer_arm(&n->restart, loop_now(d->loop) + 1);
		return;
	}
	if (loop_now(d->loop) - n->began > STEADY_S * NS_PER_S)
		n->failures = 0;
	wait = n->failures ? MIN(1u << MIN(n->failures - 1, 6u), RESTART_MAX_S) : 0;
	n->failures++;
	event_add(d->events, SEVERITY_ERROR, "switch-failed", NULL, NULL,
		  json_pack("{s:s,s:s,s:s}", "switch", n->id, "name", n->name, "end",
			    worker_end_name(end)),
		  "%s of the switch \"%s\" ended: %s; it is started again in %u s",
		  p == &n->switchd ? "the process" : "the network behind", n->name,
		  words && *words ? words : worker_end_name(end), wait);
	loop_timer_arm(&n->restart, loop_now(d->loop) + wait * NS_PER_S + 1);
}

/* --- what the processes say --- */

static void on_state(void *context, struct worker *w, const char *state)
{
	(void)context;
	(void)w;
	(void)state;
}

static void on_switchd_ended(void *context, struct worker *w, enum worker_end end,
			     const char *words)
{
	struct network *n = context;

	(void)w;
	process_ended(&n->switchd, end, words);
}

static void on_natd_ended(void *context, struct worker *w, enum worker_end end, const char *words)
{
	struct network *n = context;

	(void)w;
	process_ended(&n->natd, end, words);
}

static size_t address_at(const json_t *list, const char *ip)
{
	json_t *a;
	size_t i;

	json_array_foreach((json_t *)list, i, a)
	{
		const char *other = json_string_value(json_object_get(a, "ip"));

		if (other && !strcmp(other, ip))
			break;
	}
	return i;
}

static void address_known(struct network_port *p, const json_t *event, bool learned)
{
	const char *ip = json_string_value(json_object_get(event, "ip"));
	const char *mac = json_string_value(json_object_get(event, "mac"));
	size_t at;

	if (!ip || !mac)
		return;
	if (!p->addresses)
		p->addresses = json_array();
	at = address_at(p->addresses, ip);
	if (at < json_array_size(p->addresses))
		json_array_remove(p->addresses, at);
	if (learned && json_array_size(p->addresses) < ADDRESSES_MAX)
		json_array_append_new(p->addresses, json_pack("{s:s,s:s}", "ip", ip, "mac", mac));
}

static void on_switchd_event(void *context, struct worker *w, json_t *event)
{
	struct network *n = context;
	const char *name = json_string_value(json_object_get(event, "event"));
	const char *id = json_string_value(json_object_get(event, "port"));
	struct network_port *p = id ? port_find(n, id) : NULL;

	(void)w;
	if (!p || !name)
		return;
	if (!strcmp(name, "address-learned") || !strcmp(name, "address-lost")) {
		address_known(p, event, !strcmp(name, "address-learned"));
	} else if (!strcmp(name, "ended")) {
		p->plugged = false;
		if (!strcmp(id, NAT_PORT))
			n->attached = false;
	} else if (!strcmp(name, "dropped")) {
		event_add(n->owner->d->events, SEVERITY_WARNING, "frames-dropped", p->vm, NULL,
			  json_pack("{s:s,s:s,s:O,s:O}", "switch", n->name, "adapter", p->id, "why",
				    json_object_get(event, "why"), "count",
				    json_object_get(event, "count")),
			  "the switch \"%s\" dropped frames of an adapter: %s", n->name,
			  json_string_value(json_object_get(event, "why")));
	}
}

static const struct worker_events switchd_events = { on_state, on_switchd_ended, on_switchd_event };
static const struct worker_events natd_events = { on_state, on_natd_ended, NULL };

/* --- starting --- */

static struct network *network_make(struct networks *owner, const char *id, const char *name,
				    bool nat)
{
	struct network *n = calloc(1, sizeof(*n));

	if (!n)
		return NULL;
	n->name = strdup(name);
	if (!n->name) {
		free(n);
		return NULL;
	}
	snprintf(n->id, sizeof(n->id), "%s", id);
	n->owner = owner;
	n->nat = nat;
	n->nat_fds[0] = n->nat_fds[1] = -1;
	n->switchd.network = n->natd.network = n;
	list_init(&n->ports);
	loop_timer_init(owner->d->loop, &n->restart, on_restart);
	list_append(&owner->list, &n->node);
	return n;
}

static struct network *network_find(struct networks *owner, const char *id)
{
	list_foreach(it, &owner->list)
	{
		struct network *n = list_entry(it, struct network, node);

		if (!strcmp(n->id, id))
			return n;
	}
	return NULL;
}

static int process_start(struct process *p, struct supervisor *s, json_t *description,
			 const struct worker_events *events, struct error *err)
{
	const struct worker_start start = { .id = p->network->id,
					    .name = p->network->name,
					    .description = description,
					    .folder = "/",
					    .limits = { 100, 1, 100 },
					    .events = events,
					    .context = p->network };
	int r = description ? worker_start(s, &start, &p->worker, err)
			    : error_set(err, -ENOMEM, "not enough memory");

	json_decref(description);
	if (r < 0)
		p->worker = NULL;
	p->stopping = false;
	return r < 0 ? error_prefix(err, "the switch \"%s\"", p->network->name) : 0;
}

/* A folder that is only that network's, for sockets of its process. */
static json_t *private_folder(struct network *n)
{
	_cleanup_free_ char *path = NULL;

	if (asprintf(&path, "%s/nat-%s", n->owner->folder, n->id) < 0)
		return NULL;
	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		log_line("cannot make \"%s\": %s", path, strerror(errno));
	return json_string(path);
}

/* The name servers that the host asks; its own stub is none that others could ask. */
static json_t *resolvers(void)
{
	_cleanup_fclose_ FILE *f = fopen("/etc/resolv.conf", "re");
	json_t *list = json_array();
	char line[512], address[128];

	while (f && fgets(line, sizeof(line), f) && json_array_size(list) < 3)
		if (sscanf(line, "nameserver %127s", address) == 1 && !strchr(address, '%'))
			json_array_append_new(list, json_string(address));
	return list;
}

static int network_start(struct network *n, struct error *err)
{
	int r = 0;

	if (!n->switchd.worker) {
		n->began = loop_now(n->owner->d->loop);
		r = process_start(&n->switchd, n->owner->switches,
				  json_pack("{s:s}", "name", n->name), &switchd_events, err);
	}
	if (r >= 0 && n->nat && !n->natd.worker)
		r = process_start(&n->natd, n->owner->nats,
				  json_pack("{s:s,s:s,s:o,s:o}", "name", n->name, "address",
					    NAT_ADDRESS, "resolvers", resolvers(), "folder",
					    private_folder(n)),
				  &natd_events, err);
	return r;
}

struct network *network_use(struct networks *owner, const char *name, struct error *err)
{
	_cleanup_json_ json_t *thing = NULL;
	const char *id, *type;
	struct network *n;
	uint64_t revision;

	if (!owner->switches) {
		error_set(err, -EOPNOTSUPP,
			  "partita-switchd is not installed; there are no networks");
		return NULL;
	}
	if (thing_get(owner->d, &caller_service, THING_SWITCH, name, &thing, &revision, err) < 0)
		return NULL;
	id = json_string_value(json_object_get(thing, "id"));
	type = json_string_value(json_object_get(thing, "type"));
	if (strcmp(type, "private") && strcmp(type, "nat")) {
		error_set(err, -EOPNOTSUPP,
			  "the switch \"%s\" is of type %s, which this version cannot run; there "
			  "are private and nat",
			  name, type);
		return NULL;
	}
	n = network_find(owner, id);
	if (!n)
		n = network_make(owner, id, json_string_value(json_object_get(thing, "name")),
				 !strcmp(type, "nat"));
	if (!n)
		error_set(err, -ENOMEM, "not enough memory");
	return n && network_start(n, err) >= 0 ? n : NULL;
}

/* --- steps --- */

static bool is_adapter_of_running(struct daemon *d, const char *id)
{
	list_foreach(it, &d->vms)
	{
		const struct vm *vm = list_entry(it, struct vm, node);

		for (unsigned i = 0; vm->worker && i < vm->settings.network_adapters_count; i++)
			if (vm->settings.network_adapters[i].id &&
			    !strcmp(vm->settings.network_adapters[i].id, id))
				return true;
	}
	return false;
}

/* Ports of machines that ended while no service ran are taken away. */
static void on_known(void *context, const json_t *answer, int *fds, unsigned fd_count)
{
	struct network *n = context;
	json_t *port;
	size_t i;

	(void)fds;
	(void)fd_count;
	if (!answer)
		return;
	json_array_foreach(json_object_get(answer, "ports"), i, port)
	{
		const char *id = json_string_value(json_object_get(port, "id"));
		const char *state = json_string_value(json_object_get(port, "state"));
		bool ours = id && (!strcmp(id, NAT_PORT) || is_adapter_of_running(n->owner->d, id));
		struct network_port *p = ours ? port_make(n, id) : NULL;

		if (id && !ours)
			order(n->switchd.worker,
			      json_pack("{s:s,s:s}", "command", "port-remove", "port", id));
		if (p)
			p->plugged = state && !strcmp(state, "attached");
		if (p && !strcmp(id, NAT_PORT))
			n->attached = p->plugged;
	}
	n->known = true;
}

static void on_nat_port(void *context, const json_t *answer, int *fds, unsigned fd_count)
{
	struct network *n = context;

	for (unsigned i = 0; i < 2 && i < fd_count; i++)
		n->nat_fds[i] = steal_fd(&fds[i]);
	if (answer)
		port_make(n, NAT_PORT);
}

static void on_nat_attached(void *context, const json_t *answer, int *fds, unsigned fd_count)
{
	struct network *n = context;

	(void)fds;
	(void)fd_count;
	n->attached |= answer != NULL;
}

static int step(struct hot_step *s, struct worker *target, json_t *request,
		void (*took)(void *, const json_t *, int *, unsigned), void *context)
{
	s->target = target;
	s->request = request;
	s->took = took;
	s->context = context;
	return request ? 1 : -ENOMEM;
}

/* The network behind it is plugged into a port of any address. */
static int prepare_nat(struct network *n, struct hot_step *s)
{
	json_t *port;

	if (n->nat_fds[0] >= 0) {
		s->fds[0] = steal_fd(&n->nat_fds[0]);
		s->fds[1] = steal_fd(&n->nat_fds[1]);
		s->fd_count = 2;
		return step(
			s, n->natd.worker,
			json_pack("{s:s,s:i,s:i}", "command", "attach", "memory", 0, "socket", 1),
			on_nat_attached, n);
	}
	s->wants_fds = true;
	if (port_find(n, NAT_PORT))
		return step(s, n->switchd.worker,
			    json_pack("{s:s,s:s}", "command", "port-attach", "port", NAT_PORT),
			    on_nat_port, n);
	port = json_pack("{s:s,s:s,s:b}", "id", NAT_PORT, "name", "NAT", "mac_spoofing", 1);
	return step(s, n->switchd.worker,
		    json_pack("{s:s,s:o}", "command", "port-add", "port", port), on_nat_port, n);
}

int network_prepare(struct network *n, struct hot_step *ret, struct error *err)
{
	(void)err;
	if (!n->known)
		return step(ret, n->switchd.worker, json_pack("{s:s}", "command", "query"),
			    on_known, n);
	return n->nat && !n->attached ? prepare_nat(n, ret) : 0;
}

/* A port is about to be there: on its way to the switch. */
struct plugging {
	struct network *network;
	char id[GUID_TEXT_SIZE], vm[GUID_TEXT_SIZE];
	json_t *settings;
};

static void on_plugged(void *context, const json_t *answer, int *fds, unsigned fd_count)
{
	struct plugging *g = context;
	struct network_port *p = answer ? port_make(g->network, g->id) : NULL;

	if (p) {
		fds_drop(p->held);
		for (unsigned i = 0; i < 2 && i < fd_count; i++)
			p->held[i] = steal_fd(&fds[i]);
		snprintf(p->vm, sizeof(p->vm), "%s", g->vm);
		p->plugged = true;
		if (g->settings) {
			json_decref(p->settings);
			p->settings = json_incref(g->settings);
		}
	}
	json_decref(g->settings);
	free(g);
}

int network_plug(struct network *n, const char *vm, const json_t *port, struct hot_step *ret)
{
	const char *id = json_string_value(json_object_get(port, "id"));
	struct plugging *g = calloc(1, sizeof(*g));
	bool there = port_find(n, id);

	if (!g)
		return -ENOMEM;
	g->network = n;
	snprintf(g->id, sizeof(g->id), "%s", id);
	snprintf(g->vm, sizeof(g->vm), "%s", vm);
	g->settings = there ? NULL : json_deep_copy(port);
	ret->wants_fds = true;
	return step(ret, n->switchd.worker,
		    there ? json_pack("{s:s,s:s}", "command", "port-attach", "port", id)
			  : json_pack("{s:s,s:O}", "command", "port-add", "port", port),
		    on_plugged, g);
}

struct setting {
	struct network *network;
	char id[GUID_TEXT_SIZE];
	json_t *settings;
};

static void on_set(void *context, const json_t *answer, int *fds, unsigned fd_count)
{
	struct setting *s = context;
	struct network_port *p = answer ? port_find(s->network, s->id) : NULL;

	(void)fds;
	(void)fd_count;
	if (p) {
		json_decref(p->settings);
		p->settings = json_incref(s->settings);
	}
	json_decref(s->settings);
	free(s);
}

int network_set(struct network_port *p, const json_t *port, struct hot_step *ret)
{
	struct setting *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->network = p->network;
	snprintf(s->id, sizeof(s->id), "%s", p->id);
	s->settings = json_deep_copy(port);
	return step(ret, p->network->switchd.worker,
		    json_pack("{s:s,s:O}", "command", "port-set", "port", port), on_set, s);
}

void network_unplug(struct network_port *p)
{
	struct network *n = p->network;

	order(n->switchd.worker, json_pack("{s:s,s:s}", "command", "port-remove", "port", p->id));
	port_free(p);
	network_rest(n);
}

void networks_unplug_vm(struct networks *owner, const char *vm)
{
	list_foreach_safe(it, &owner->list)
	{
		struct network *n = list_entry(it, struct network, node);

		list_foreach_safe(jt, &n->ports)
		{
			struct network_port *p = list_entry(jt, struct network_port, node);

			if (strcmp(p->vm, vm))
				continue;
			order(n->switchd.worker,
			      json_pack("{s:s,s:s}", "command", "port-remove", "port", p->id));
			port_free(p);
		}
		network_rest(n);
	}
}

json_t *networks_addresses(struct networks *owner, const char *vm)
{
	json_t *all = json_array(), *a;
	size_t i;

	list_foreach(it, &owner->list)
	{
		struct network *n = list_entry(it, struct network, node);

		list_foreach(jt, &n->ports)
		{
			struct network_port *p = list_entry(jt, struct network_port, node);

			if (strcmp(p->vm, vm))
				continue;
			json_array_foreach(p->addresses, i, a)
			{
				json_t *o = json_copy(a);

				json_object_set_new(o, "adapter", json_string(p->id));
				json_array_append_new(all, o);
			}
		}
	}
	return all;
}

/* --- the whole --- */

static int supervise(struct networks *n, const struct networks_options *o, const char *program,
		     const char *folder, struct supervisor **ret, struct error *err)
{
	_cleanup_free_ char *run = NULL;
	struct supervisor_options so = {
		.worker = program, .keeper = o->keeper, .no_console = true, .host_network = true
	};

	if (asprintf(&run, "%s/%s", o->run_folder, folder) < 0)
		return error_set(err, -ENOMEM, "not enough memory");
	so.run_folder = run;
	return supervisor_new(n->d->loop, &so, ret, err);
}

int networks_new(struct daemon *d, const struct networks_options *o, struct networks **ret,
		 struct error *err)
{
	struct networks *n = calloc(1, sizeof(*n));
	int r = n ? 0 : error_set(err, -ENOMEM, "not enough memory");

	if (r < 0)
		return r;
	n->d = d;
	n->folder = o->run_folder ? strdup(o->run_folder) : NULL;
	list_init(&n->list);
	if (o->switchd)
		r = supervise(n, o, o->switchd, "switches", &n->switches, err);
	if (r >= 0 && o->natd)
		r = supervise(n, o, o->natd, "nats", &n->nats, err);
	if (r < 0) {
		networks_free(n);
		return r;
	}
	*ret = n;
	return 0;
}

void networks_free(struct networks *n)
{
	if (!n)
		return;
	supervisor_free(n->switches);
	supervisor_free(n->nats);
	while (!list_empty(&n->list))
		network_free(list_first(&n->list, struct network, node));
	free(n->folder);
	free(n);
}

/* A switch that was removed while no service ran has no use for its processes. */
static struct network *network_of_id(struct networks *owner, const char *id)
{
	_cleanup_json_ json_t *thing = NULL;
	struct network *n = network_find(owner, id);
	struct error err = { 0 };
	uint64_t revision;

	if (n)
		return n;
	if (thing_get(owner->d, &caller_service, THING_SWITCH, id, &thing, &revision, &err) < 0)
		return network_make(owner, id, id, false);
	return network_make(owner, id, json_string_value(json_object_get(thing, "name")),
			    !strcmp(json_string_value(json_object_get(thing, "type")), "nat"));
}

static void adopt(struct network *n, struct process *p, struct supervisor *s,
		  const struct worker_events *events)
{
	struct error err = { 0 };
	enum worker_end end;

	if (worker_adopt(s, n->id, events, n, &p->worker, &end, &err) < 0)
		p->worker = NULL;
}

static void adopt_switchd(void *context, const char *id)
{
	struct networks *owner = context;
	struct network *n = network_of_id(owner, id);

	if (n)
		adopt(n, &n->switchd, owner->switches, &switchd_events);
}

static void adopt_natd(void *context, const char *id)
{
	struct networks *owner = context;
	struct network *n = network_of_id(owner, id);

	if (n)
		adopt(n, &n->natd, owner->nats, &natd_events);
}

int networks_adopt(struct networks *n, struct error *err)
{
	int r = n->switches ? supervisor_found(n->switches, adopt_switchd, n, err) : 0;

	if (r >= 0 && n->nats)
		r = supervisor_found(n->nats, adopt_natd, n, err);
	return r;
}
