// SPDX-License-Identifier: MIT
/*
 * See switchd.h. Descriptors are watched edge-triggered: each byte that the other side sends wakes
 * its port once, whether the switch has a use for that now or not. The switch runs from a task at
 * the end of a loop's round; when it has more to do the task comes back in the next round, else the
 * loop sleeps, with a timer only if the switch named a time. Events about what guests can cause at
 * will are told at most so often.
 */
#include "net/switchd.h"

#include "lib/cleanup.h"
#include "net/settings.h"
#include "net/uplink_wire.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#define SECOND       UINT64_C(1000000000)
#define REPORT_EVERY (10 * SECOND) /* drops of a port for one reason */
#define TELL_EVERY   (SECOND / 5)  /* all that was learned meanwhile */

struct switchd {
	struct loop *loop;
	const struct switch_description *description;
	struct net_switch *s;
	struct loop_task task;
	struct loop_timer timer; /* the switch's deadline */
	struct loop_timer learn; /* what was learned is told, or too old */
	uint64_t told;
	void (*tell)(void *context, json_t *event, bool may_miss);
	void *tell_context;
};

struct net_switch *switchd_switch(const struct switchd *d)
{
	return d->s;
}

const char *switchd_name(const struct switchd *d)
{
	return d->description->name;
}

static struct plug *plug_of(const struct net_switch_port *p)
{
	return net_switch_port_context(p);
}

/* --- events --- */

static void tell(struct switchd *d, json_t *event, bool may_miss)
{
	if (event && d->tell)
		d->tell(d->tell_context, event, may_miss);
	json_decref(event);
}

void switchd_tell_to(struct switchd *d, void (*fn)(void *context, json_t *event, bool may_miss),
		     void *context)
{
	d->tell = fn;
	d->tell_context = context;
}

static void tell_address(struct plug *p, const char *event, const struct net_address *a)
{
	char ip[INET6_ADDRSTRLEN], mac[MAC_TEXT];
	net_mac m;

	memcpy(&m, &a->mac, sizeof(m));
	mac_write(&m, mac);
	inet_ntop(a->family, a->bytes, ip, sizeof(ip));
	tell(p->owner,
	     json_pack("{s:s,s:s,s:s,s:s}", "event", event, "port", net_switch_port_id(p->port),
		       "mac", mac, "ip", ip),
	     false);
}

static bool address_among(const struct net_address *a, const struct net_address *list,
			  unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		if (a->family == list[i].family &&
		    !memcmp(a->bytes, list[i].bytes, sizeof(a->bytes)) &&
		    inet_mac_equal(&a->mac, &list[i].mac))
			return true;
	return false;
}

static void tell_learned(struct plug *p)
{
	const struct net_learner *l = &p->learner;

	p->changed = false;
	for (unsigned i = 0; i < p->told_count; i++)
		if (!address_among(&p->told[i], l->list, l->count))
			tell_address(p, "address-lost", &p->told[i]);
	for (unsigned i = 0; i < l->count; i++)
		if (!address_among(&l->list[i], p->told, p->told_count))
			tell_address(p, "address-learned", &l->list[i]);
	memcpy(p->told, l->list, sizeof(p->told));
	p->told_count = l->count;
}

/* The timer stands at the next address that has passed its test or is too old, and at news. */
static void learn_arm(struct switchd *d)
{
	uint64_t next = UINT64_MAX, at;

	for (struct net_switch_port *q = net_switch_next(d->s, NULL); q;
	     q = net_switch_next(d->s, q)) {
		struct plug *p = plug_of(q);

		at = net_learner_next(&p->learner);
		next = MIN(next, at);
		if (p->changed)
			next = MIN(next, d->told + TELL_EVERY);
	}
	if (next == UINT64_MAX)
		loop_timer_disarm(&d->learn);
	else
		loop_timer_arm(&d->learn, MAX(next, (uint64_t)1));
}

static void on_learn(struct loop_timer *t)
{
	struct switchd *d = container_of(t, struct switchd, learn);
	uint64_t now = loop_now(d->loop);

	for (struct net_switch_port *q = net_switch_next(d->s, NULL); q;
	     q = net_switch_next(d->s, q)) {
		struct plug *p = plug_of(q);

		p->changed |= net_learner_age(&p->learner, now);
		if (p->changed)
			tell_learned(p);
	}
	d->told = now;
	learn_arm(d);
}

static void on_frame(void *context, struct net_switch_port *port, bool from, uint16_t vlan,
		     const uint8_t *bytes, size_t size)
{
	struct switchd *d = context;
	struct plug *p = plug_of(port);

	(void)vlan;
	/* Behind a wire there are others' machines. */
	if (p->wire ||
	    !net_learner_frame(&p->learner, bytes, size,
			       from ? NET_LEARN_FROM_PORT : NET_LEARN_TO_PORT, loop_now(d->loop))) {
		learn_arm(d);
		return;
	}
	p->changed = true;
	learn_arm(d);
}

static void on_dropped(void *context, struct net_switch_port *port, enum net_drop why)
{
	struct switchd *d = context;
	struct plug *p = plug_of(port);
	struct report *r = &p->reports[why];
	uint64_t now = loop_now(d->loop);

	r->count++;
	if (r->at && now - r->at < REPORT_EVERY)
		return;
	tell(d,
	     json_pack("{s:s,s:s,s:s,s:I}", "event", "dropped", "port", net_switch_port_id(port),
		       "why", net_drop_names[why], "count", (json_int_t)r->count),
	     true);
	r->at = now;
	r->count = 0;
}

static void on_ended(void *context, struct net_switch_port *port, int why)
{
	struct switchd *d = context;
	struct plug *p = plug_of(port);

	p->ended = why;
	loop_unwatch(&p->watch);
	tell(d,
	     json_pack("{s:s,s:s,s:s}", "event", "ended", "port", net_switch_port_id(port), "why",
		       why == -EIO ? "broken" : "gone"),
	     false);
}

static void on_link(void *context, bool up, const char *words)
{
	struct plug *p = context;

	tell(p->owner,
	     json_pack("{s:s,s:s,s:b,s:s}", "event", "link", "port", net_switch_port_id(p->port),
		       "up", up, "words", words ? words : ""),
	     false);
}

/* --- running --- */

static void on_run(struct loop_task *t)
{
	struct switchd *d = container_of(t, struct switchd, task);
	uint64_t deadline;

	if (net_switch_run(d->s, loop_now(d->loop), &deadline))
		loop_defer(d->loop, &d->task);
	else if (deadline)
		loop_timer_arm(&d->timer, deadline);
	else
		loop_timer_disarm(&d->timer);
}

static void on_deadline(struct loop_timer *t)
{
	struct switchd *d = container_of(t, struct switchd, timer);

	loop_defer(d->loop, &d->task);
}

static void on_ready(struct loop_watch *w, uint32_t events)
{
	struct plug *p = container_of(w, struct plug, watch);

	(void)events;
	net_switch_wake(p->port);
	loop_defer(p->owner->loop, &p->owner->task);
}

static int plug_watch(struct plug *p, int fd, uint32_t events, struct error *err)
{
	int r = fd < 0 ? 0 : loop_watch(p->owner->loop, &p->watch, fd, events | EPOLLET, on_ready);

	if (r < 0)
		return error_errno(err, r, "port \"%s\": cannot watch it",
				   net_switch_port_id(p->port));
	return 0;
}

/* --- ports --- */

static const struct schema_object *port_schema(void)
{
	return schema_find(&switch_description_schema, "ports")->item->object;
}

struct plug *switchd_find(const struct switchd *d, const char *id)
{
	struct net_switch_port *p = net_switch_find(d->s, id);

	return p ? plug_of(p) : NULL;
}

static void settings_drop(struct net_settings *s)
{
	free((void *)s->rules);
}

static int add_port(struct switchd *d, const struct switch_port *port, struct plug **ret,
		    struct error *err)
{
	_cleanup_(settings_drop) struct net_settings settings = { 0 };
	_cleanup_free_ struct plug *p = calloc(1, sizeof(*p));
	int r = settings_read(port, &settings, err);

	if (r < 0)
		return error_prefix(err, "port \"%s\"", port->id);
	if (!p)
		return error_set(err, -ENOMEM, "no memory for a port");
	p->owner = d;
	p->watch.fd = -1;
	r = net_switch_add(d->s, port->id, &settings, &p->port, err);
	if (r < 0)
		return r;
	net_switch_port_set_context(p->port, p);
	*ret = steal_ptr(p);
	return 0;
}

int switchd_add(struct switchd *d, json_t *json, struct plug **ret, struct error *err)
{
	struct switch_port port;
	int r = schema_decode(port_schema(), json, &port, err);

	if (r < 0)
		return error_prefix(err, "port");
	r = add_port(d, &port, ret, err);
	schema_deinit(port_schema(), &port);
	return r;
}

int switchd_set(struct switchd *d, json_t *json, struct error *err)
{
	_cleanup_(settings_drop) struct net_settings settings = { 0 };
	struct switch_port port;
	struct plug *p;
	int r = schema_decode(port_schema(), json, &port, err);

	if (r < 0)
		return error_prefix(err, "port");
	p = switchd_find(d, port.id);
	if (!p)
		r = error_set(err, -ENOENT, "there is no port \"%s\"", port.id);
	if (r >= 0)
		r = settings_read(&port, &settings, err);
	if (r >= 0)
		r = net_switch_set(p->port, &settings, err);
	schema_deinit(port_schema(), &port);
	if (r >= 0)
		loop_defer(d->loop, &d->task);
	return r;
}

/* What was learned of a machine that is no longer there. */
static void plug_forget(struct plug *p)
{
	p->learner = (struct net_learner){ 0 };
	tell_learned(p);
}

static void plug_clear(struct plug *p)
{
	loop_unwatch(&p->watch);
	net_switch_unplug(p->port);
	p->ended = 0;
	p->wire = false;
	loop_defer(p->owner->loop, &p->owner->task);
}

void switchd_remove(struct plug *p)
{
	plug_forget(p);
	plug_clear(p);
	net_switch_remove(p->port);
	learn_arm(p->owner);
	free(p);
}

int switchd_attach(struct plug *p, size_t ring_size, int ret_fds[NET_PORT_FDS], struct error *err)
{
	struct net_port *port;
	int r = net_port_new(ring_size, &port, err);

	if (r < 0)
		return r;
	plug_clear(p);
	r = plug_watch(p, net_port_fd(port), EPOLLIN, err);
	if (r < 0) {
		net_port_free(port);
		return r;
	}
	net_port_fds(port, ret_fds);
	net_switch_plug(p->port, port);
	return 0;
}

int switchd_wire(struct plug *p, int fd, bool promiscuous, struct error *err)
{
	const struct net_wire_options o = {
		.loop = p->owner->loop,
		.fd = fd,
		.promiscuous = promiscuous,
		.link = on_link,
		.context = p,
	};
	struct net_uplink *u;
	int r = net_wire_new(&o, &u, err);

	if (r < 0)
		return r;
	plug_clear(p);
	plug_forget(p);
	r = plug_watch(p, u->fd, u->events, err);
	if (r < 0) {
		u->ops->free(u);
		return r;
	}
	p->wire = true;
	net_switch_plug_uplink(p->port, u);
	return 0;
}

/* --- making it --- */

static int add_ports(struct switchd *d, struct error *err)
{
	struct plug *p;
	int r = 0;

	for (unsigned i = 0; i < d->description->ports_count && r >= 0; i++)
		r = add_port(d, &d->description->ports[i], &p, err);
	return r;
}

DEFINE_CLEANUP(struct switchd *, switchd_free)

int switchd_new(struct loop *loop, const struct switch_description *description,
		struct switchd **ret, struct error *err)
{
	_cleanup_(switchd_free_p) struct switchd *d = calloc(1, sizeof(*d));
	struct net_switch_options o = {
		.sharing = description->sharing == SWITCH_SHARING_ABSOLUTE ? NET_SHARE_ABSOLUTE
									   : NET_SHARE_WEIGHT,
		.mac_age = description->mac_age * SECOND,
		.watcher = { on_frame, on_dropped, on_ended, d },
	};
	int r;

	if (!d)
		return error_set(err, -ENOMEM, "out of memory");
	d->loop = loop;
	d->description = description;
	loop_task_init(&d->task, on_run);
	loop_timer_init(loop, &d->timer, on_deadline);
	loop_timer_init(loop, &d->learn, on_learn);
	r = net_switch_new(&o, &d->s, err);
	if (r >= 0)
		r = add_ports(d, err);
	if (r < 0)
		return r;
	*ret = steal_ptr(d);
	return 0;
}

void switchd_free(struct switchd *d)
{
	struct net_switch_port *q;

	if (!d)
		return;
	d->tell = NULL;
	while (d->s && (q = net_switch_next(d->s, NULL)))
		switchd_remove(plug_of(q));
	loop_cancel(d->loop, &d->task);
	loop_timer_disarm(&d->timer);
	loop_timer_disarm(&d->learn);
	net_switch_free(d->s);
	free(d);
}
