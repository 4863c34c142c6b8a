// SPDX-License-Identifier: MIT
/* See service_control.h. The table of commands comes last. */
#include "worker/service_control.h"

#include "lib/cleanup.h"

#include <errno.h>
#include <string.h>

#define ITEMS_BYTES   65536u /* of items in one answer; the rest comes with "from" */
#define PROGRESS_NS   500000000u
#define SHUTDOWN_TIME 300u /* seconds that a guest is told it has, when none are said */

/* A command about the guest, on its way. */
struct guest_command {
	struct services *s; /* NULL until it is begun */
	struct command *asked;
	struct kvp_call call;
	enum shutdown_action action;
	uint64_t from;
	const char *key; /* of guest-get */
};

static struct guest_command *guest_begin(struct command *asked)
{
	struct guest_command *c = asked->state;

	c->s = asked->context;
	c->asked = asked;
	list_init(&c->call.node);
	return c;
}

/* What it took goes with it. */
static void guest_drop(struct command *asked)
{
	struct guest_command *c = asked->state;

	if (!c || !c->s)
		return;
	kvp_items_clear(&c->call.items);
	kvp_ip_clear(&c->call.ip);
}

/* The end of a command that was to be answered later. */
static void guest_done(void *context, int result, const struct error *err)
{
	struct guest_command *c = context;

	guest_drop(c->asked);
	c->asked->done(c->asked, result, err);
}

static int one_of(const json_t *o, const char *key, const char *const *names, unsigned count,
		  int otherwise, int *ret, struct error *err)
{
	const json_t *v = json_object_get(o, key);
	const char *text = json_string_value(v);
	char list[200] = "";

	*ret = otherwise;
	if (!v && otherwise >= 0)
		return 0;
	for (unsigned i = 0; i < count; i++) {
		if (text && !strcmp(text, names[i])) {
			*ret = (int)i;
			return 0;
		}
		snprintf(list + strlen(list), sizeof(list) - strlen(list), "%s%s", i ? ", " : "",
			 names[i]);
	}
	return error_set(err, -EINVAL, "\"%s\" is one of %s", key, list);
}

/* --- what is told --- */

/* What a guest's daemon says of itself: Linux tools/hv/hv_kvp_daemon.c, and Windows'. */
static const char *const info_keys[] = {
	"FullyQualifiedDomainName",
	"OSName",
	"OSVersion",
	"OSMajorVersion",
	"OSMinorVersion",
	"OSBuildNumber",
	"OSVendor",
	"OSSignature",
	"OSEditionId",
	"ProcessorArchitecture",
	"NetworkAddressIPv4",
	"NetworkAddressIPv6",
	"IntegrationServicesVersion",
};

static json_t *info_tell(const struct kvp *k)
{
	json_t *o = json_object();

	for (size_t i = 0; i < ARRAY_SIZE(info_keys); i++) {
		const char *value = kvp_items_find(&k->info, info_keys[i]);

		if (value)
			json_object_set_new(o, info_keys[i], json_string(value));
	}
	return o;
}

static json_t *heartbeat_tell(const struct heartbeat *h)
{
	return json_pack("{s:s,s:s,s:I}", "state", heartbeat_state_name(heartbeat_state(h)),
			 "application", heartbeat_application_name(h->application), "beats",
			 (json_int_t)h->beats);
}

static void tell(struct services *s, json_t *event, bool may_miss)
{
	if (s->tell)
		s->tell(s->tell_context, event, may_miss);
	else
		json_decref(event);
}

static void on_heartbeat(struct heartbeat *h)
{
	tell(h->ic.context,
	     json_pack("{s:s,s:s,s:s}", "event", "guest-heartbeat", "state",
		       heartbeat_state_name(heartbeat_state(h)), "application",
		       heartbeat_application_name(h->application)),
	     false);
}

static void on_info(struct kvp *k)
{
	struct services *s = k->ic.context;

	if (k->info_known)
		services_guest_known(s);
	tell(s,
	     json_pack("{s:s,s:b,s:o}", "event", "guest-info", "known", k->info_known, "items",
		       info_tell(k)),
	     false);
}

static void on_thawed(struct vss *v, const char *reason)
{
	tell(v->ic.context, json_pack("{s:s,s:s}", "event", "guest-thawed", "reason", reason),
	     false);
}

/* --- commands --- */

static json_t *version_text(const struct ic_version v)
{
	return json_sprintf("%u.%u", v.major, v.minor);
}

static json_t *service_tell(struct services *s, enum service_kind kind)
{
	const struct ic *ic = services_ic(s, kind);
	json_t *o = json_pack("{s:b,s:s,s:I}", "on", ic->wanted, "state", ic_state_name(ic->state),
			      "refused", (json_int_t)ic->refused);

	if (ic->state == IC_READY) {
		json_object_set_new(o, "version", version_text(ic->version));
		json_object_set_new(o, "framework", version_text(ic->framework));
	}
	return o;
}

static void guest_tell(struct services *s, json_t *o)
{
	json_t *list = json_object();

	for (unsigned i = 0; i < SERVICE_COUNT; i++)
		json_object_set_new(list, services_name(i), service_tell(s, i));
	json_object_set_new(o, "services", list);
	json_object_set_new(o, "heartbeat", heartbeat_tell(&s->heartbeat));
	json_object_set_new(o, "known", json_boolean(s->kvp.info_known));
	json_object_set_new(o, "items", info_tell(&s->kvp));
	json_object_set_new(o, "time_messages", json_integer((json_int_t)s->timesync.messages));
	json_object_set_new(o, "time_syncs", json_integer((json_int_t)s->timesync.syncs));
	json_object_set_new(o, "vss", json_string(vss_state_name(s->vss.state)));
	if (s->fcopy.running)
		json_object_set_new(o, "copy",
				    json_pack("{s:s,s:I,s:I}", "path", s->copy_path, "copied",
					      (json_int_t)s->fcopy.copied, "size",
					      (json_int_t)s->fcopy.size));
}

static void on_refreshed(struct kvp_call *call, int result, const struct error *err)
{
	struct guest_command *c = container_of(call, struct guest_command, call);

	(void)result, (void)err; /* what is known is told, and whether it is */
	guest_tell(c->s, c->asked->answer);
	guest_done(c, 0, NULL);
}

/*
 * With "refresh" what the guest says of itself is read anew. The reading of ours is asked first and
 * a question behind it, so that its answer comes when ours has.
 */
static int run_query(struct command *asked, struct error *err)
{
	struct guest_command *c = guest_begin(asked);
	bool refresh;
	int r = take_bool_or(asked->request, "refresh", false, &refresh, err);

	if (r < 0)
		return r;
	if (refresh && ic_usable(&c->s->kvp.ic, NULL) != -ENOTCONN) {
		kvp_refresh(&c->s->kvp);
		c->call.op = KVP_GET;
		c->call.pool = KVP_AUTO_EXTERNAL;
		c->call.key = "VirtualMachineName";
		c->call.done = on_refreshed;
		if (kvp_ask(&c->s->kvp, &c->call, NULL) == 0)
			return 1;
	}
	guest_tell(c->s, asked->answer);
	return 0;
}

static const char *const action_names[SHUTDOWN_ACTIONS] = { "power-off", "restart", "hibernate" };

static void on_shutdown(void *context, int result, const struct error *err)
{
	struct guest_command *c = context;
	json_t *event = json_pack("{s:s,s:s,s:b}", "event", "guest-shutdown", "action",
				  action_names[c->action], "ok", result >= 0);

	if (result < 0)
		json_object_set_new(event, "error", json_string(err->message));
	tell(c->s, event, false);
	guest_done(c, result, err);
}

static int run_shutdown(struct command *asked, struct error *err)
{
	struct guest_command *c = guest_begin(asked);
	struct shutdown_request q = { 0 };
	uint64_t seconds;
	int action;
	int r = one_of(asked->request, "action", action_names, SHUTDOWN_ACTIONS, 0, &action, err);

	if (r >= 0)
		r = take_bool_or(asked->request, "force", false, &q.force, err);
	if (r >= 0)
		r = take_text(asked->request, "reason", false, &q.reason, err);
	if (r >= 0)
		r = take_number_or(asked->request, "seconds", SHUTDOWN_TIME, UINT32_MAX, &seconds,
				   err);
	if (r < 0)
		return r;
	q.action = c->action = (enum shutdown_action)action;
	q.patience = (unsigned)seconds;
	r = shutdown_ask(&c->s->shutdown, &q, on_shutdown, c, err);
	return r < 0 ? r : 1;
}

/* --- items --- */

static int ask_kvp(struct guest_command *c,
		   void (*done)(struct kvp_call *call, int result, const struct error *err),
		   struct error *err)
{
	int r;

	c->call.done = done;
	r = kvp_ask(&c->s->kvp, &c->call, err);
	return r < 0 ? r : 1;
}

static int take_pool(struct guest_command *c, struct error *err)
{
	int pool;
	int r = one_of(c->asked->request, "pool", kvp_pool_names, KVP_POOLS, KVP_EXTERNAL, &pool,
		       err);

	c->call.pool = (enum kvp_pool)pool;
	return r;
}

static int take_key(struct guest_command *c, struct error *err)
{
	int r = take_text(c->asked->request, "key", true, &c->call.key, err);

	return r < 0 ? r : kvp_key_check(c->call.key, err);
}

static void items_tell(struct guest_command *c)
{
	const struct kvp_items *items = &c->call.items;
	json_t *list = json_array();
	size_t bytes = 0;
	uint64_t i;

	for (i = c->from; i < items->count && bytes < ITEMS_BYTES; i++) {
		const struct kvp_item *item = &items->list[i];

		/* A character of one byte may take six as JSON. */
		bytes += 6 * (strlen(item->key) + strlen(item->value)) + 24;
		json_array_append_new(
			list, json_pack("{s:s,s:s}", "key", item->key, "value", item->value));
	}
	json_object_set_new(c->asked->answer, "items", list);
	if (i < items->count)
		json_object_set_new(c->asked->answer, "next", json_integer((json_int_t)i));
}

static void on_items(struct kvp_call *call, int result, const struct error *err)
{
	struct guest_command *c = container_of(call, struct guest_command, call);

	if (result >= 0)
		items_tell(c);
	guest_done(c, result, err);
}

static int run_items(struct command *asked, struct error *err)
{
	struct guest_command *c = guest_begin(asked);
	int r = take_pool(c, err);

	if (r >= 0)
		r = take_number_or(asked->request, "from", 0, KVP_ITEMS_MAX, &c->from, err);
	c->call.op = KVP_ENUMERATE;
	return r < 0 ? r : ask_kvp(c, on_items, err);
}

static void on_got(struct kvp_call *call, int result, const struct error *err)
{
	struct guest_command *c = container_of(call, struct guest_command, call);

	struct error none = { 0 };
	const char *value = kvp_items_find(&call->items, c->key);

	if (result >= 0 && value)
		json_object_set_new(c->asked->answer, "value", json_string(value));
	else if (result >= 0)
		result = error_set(&none, -ENOENT, "the guest has no item of that key");
	guest_done(c, result, result < 0 && none.code ? &none : err);
}

/*
 * All are read and one is told: Linux answers KVP_OP_GET with a value that lacks its first four
 * bytes (drivers/hv/hv_kvp.c, kvp_respond_to_host: it takes it from where an enumeration has it).
 */

static int run_get(struct command *asked, struct error *err)
{
	struct guest_command *c = guest_begin(asked);
	int r = take_pool(c, err);

	if (r >= 0)
		r = take_key(c, err);
	c->key = c->call.key;
	c->call.key = NULL;
	c->call.op = KVP_ENUMERATE;
	return r < 0 ? r : ask_kvp(c, on_got, err);
}

static void on_set(struct kvp_call *call, int result, const struct error *err)
{
	guest_done(container_of(call, struct guest_command, call), result, err);
}

/* The guest's own items are the guest's to make. */
static int take_item(struct guest_command *c, struct error *err)
{
	int r = take_pool(c, err);

	if (r >= 0 && (c->call.pool == KVP_AUTO || c->call.pool == KVP_AUTO_INTERNAL))
		return error_set(err, -EPERM, "items of the pool \"%s\" are made by the guest",
				 kvp_pool_names[c->call.pool]);
	return r < 0 ? r : take_key(c, err);
}

static int run_set(struct command *asked, struct error *err)
{
	struct guest_command *c = guest_begin(asked);
	int r = take_item(c, err);

	if (r >= 0)
		r = take_text(asked->request, "value", true, &c->call.value, err);
	if (r >= 0)
		r = kvp_value_check(c->call.value, err);
	c->call.op = KVP_SET;
	return r < 0 ? r : ask_kvp(c, on_set, err);
}

static int run_delete(struct command *asked, struct error *err)
{
	struct guest_command *c = guest_begin(asked);
	int r = take_item(c, err);

	c->call.op = KVP_DELETE;
	return r < 0 ? r : ask_kvp(c, on_set, err);
}

/* --- addresses --- */

static void on_ip(struct kvp_call *call, int result, const struct error *err)
{
	struct guest_command *c = container_of(call, struct guest_command, call);
	const struct kvp_ip *ip = &call->ip;

	if (result >= 0)
		json_object_update_new(c->asked->answer,
				       json_pack("{s:s,s:b,s:s,s:s,s:s,s:s}", "adapter",
						 ip->adapter, "dhcp", ip->dhcp, "addresses",
						 ip->addresses, "subnets", ip->subnets, "gateways",
						 ip->gateways, "dns", ip->dns));
	guest_done(c, result, err);
}

/* A copy, since an answer takes the place of what was asked. */
static int take_copy(const json_t *o, const char *key, bool needed, char **ret, struct error *err)
{
	const char *text;
	int r = take_text(o, key, needed, &text, err);

	if (r < 0 || !text)
		return r;
	r = kvp_value_check(text, err);
	if (r < 0)
		return error_prefix(err, "\"%s\"", key);
	*ret = strdup(text);
	return *ret ? 0 : error_set(err, -ENOMEM, "out of memory");
}

static int take_settings(struct guest_command *c, struct error *err)
{
	static const char *const families[] = { "ipv4", "ipv6", "both" };
	const json_t *o = c->asked->request;
	struct kvp_ip *ip = &c->call.ip;
	int family;
	int r = one_of(o, "family", families, 3, 0, &family, err);

	if (r >= 0)
		r = take_bool_or(o, "dhcp", false, &ip->dhcp, err);
	if (r >= 0)
		r = take_copy(o, "addresses", !ip->dhcp, &ip->addresses, err);
	if (r >= 0)
		r = take_copy(o, "subnets", !ip->dhcp, &ip->subnets, err);
	if (r >= 0)
		r = take_copy(o, "gateways", false, &ip->gateways, err);
	if (r >= 0)
		r = take_copy(o, "dns", false, &ip->dns, err);
	ip->ipv4 = family != 1;
	ip->ipv6 = family != 0;
	return r;
}

static int run_ip(struct command *asked, struct error *err)
{
	static const char *const actions[] = { "get", "set" };
	struct guest_command *c = guest_begin(asked);
	int action;
	int r = one_of(asked->request, "action", actions, 2, -1, &action, err);

	if (r >= 0)
		r = take_copy(asked->request, "adapter", true, &c->call.ip.adapter, err);
	if (r >= 0 && strlen(c->call.ip.adapter) > 60)
		r = error_set(err, -EINVAL, "\"adapter\" is a MAC address (get) or a GUID (set)");
	if (r >= 0 && action == 1)
		r = take_settings(c, err);
	c->call.op = action == 1 ? KVP_SET_IP : KVP_GET_IP;
	return r < 0 ? r : ask_kvp(c, action == 1 ? on_set : on_ip, err);
}

/* --- freeze, thaw --- */

static int run_freeze(struct command *asked, struct error *err)
{
	struct guest_command *c = guest_begin(asked);
	uint64_t seconds;
	int r = take_number_or(asked->request, "seconds", VSS_FREEZE_DEFAULT, VSS_FREEZE_MAX,
			       &seconds, err);

	if (r >= 0)
		r = vss_freeze(&c->s->vss, (unsigned)seconds, guest_done, c, err);
	return r < 0 ? r : 1;
}

static int run_thaw(struct command *asked, struct error *err)
{
	struct guest_command *c = guest_begin(asked);
	int r = vss_thaw(&c->s->vss, guest_done, c, err);

	return r < 0 ? r : 1;
}

/* --- files --- */

static void on_progress(void *context, uint64_t copied, uint64_t size)
{
	struct services *s = context;
	uint64_t now = loop_now(s->loop);

	if (now - s->copy_told < PROGRESS_NS)
		return;
	s->copy_told = now;
	tell(s,
	     json_pack("{s:s,s:s,s:I,s:I}", "event", "guest-copying", "path", s->copy_path,
		       "copied", (json_int_t)copied, "size", (json_int_t)size),
	     true);
}

static void on_copied(void *context, int result, const struct error *err)
{
	struct services *s = context;
	json_t *event =
		json_pack("{s:s,s:s,s:b,s:I}", "event", "guest-copied", "path", s->copy_path, "ok",
			  result >= 0, "copied", (json_int_t)s->fcopy.copied);

	if (result < 0)
		json_object_set_new(event, "error", json_string(err->message));
	tell(s, event, false);
}

static int run_copy(struct command *asked, struct error *err)
{
	struct guest_command *c = guest_begin(asked);
	struct services *s = c->s;
	struct fcopy_request q = {
		.fd = -1, .progress = on_progress, .done = on_copied, .context = s
	};
	int r = take_text(asked->request, "path", true, &q.path, err);

	if (r >= 0 && strlen(q.path) >= sizeof(s->copy_path))
		r = error_set(err, -EINVAL, "\"path\" is too long");
	if (r >= 0)
		r = take_bool_or(asked->request, "overwrite", false, &q.overwrite, err);
	if (r >= 0)
		r = take_bool_or(asked->request, "create_path", false, &q.create_path, err);
	if (r >= 0)
		r = take_fd(asked, asked->request, "descriptor", true, &q.fd, err);
	if (r >= 0)
		r = fcopy_begin(&s->fcopy, &q, err);
	if (r < 0)
		return r;
	snprintf(s->copy_path, sizeof(s->copy_path), "%s", q.path);
	s->copy_told = 0;
	json_object_set_new(asked->answer, "size", json_integer((json_int_t)s->fcopy.size));
	return 0;
}

static int run_copy_cancel(struct command *asked, struct error *err)
{
	return fcopy_cancel(&guest_begin(asked)->s->fcopy, err);
}

/* --- on and off --- */

static int run_service_set(struct command *asked, struct error *err)
{
	struct guest_command *c = guest_begin(asked);
	const char *names[SERVICE_COUNT];
	int kind;
	bool on;
	int r;

	for (unsigned i = 0; i < SERVICE_COUNT; i++)
		names[i] = services_name(i);
	r = one_of(asked->request, "service", names, SERVICE_COUNT, -1, &kind, err);
	if (r >= 0 && !json_object_get(asked->request, "on"))
		r = error_set(err, -EINVAL, "\"on\" is missing");
	if (r >= 0)
		r = take_bool_or(asked->request, "on", false, &on, err);
	return r < 0 ? r : ic_switch(services_ic(c->s, (enum service_kind)kind), on, err);
}

/* --- the table --- */

static const struct command_type guest_commands[] = {
	{ "guest-query", " refresh ", run_query },
	{ "guest-shutdown", " action force reason seconds ", run_shutdown },
	{ "guest-items", " pool from ", run_items },
	{ "guest-get", " pool key ", run_get },
	{ "guest-set", " pool key value ", run_set },
	{ "guest-delete", " pool key ", run_delete },
	{ "guest-ip", " action adapter family dhcp addresses subnets gateways dns ", run_ip },
	{ "guest-freeze", " seconds ", run_freeze },
	{ "guest-thaw", "", run_thaw },
	{ "guest-copy", " descriptor path overwrite create_path ", run_copy },
	{ "guest-copy-cancel", "", run_copy_cancel },
	{ "service-set", " service on ", run_service_set },
	{ 0 },
};

struct command_family service_family(struct services *s,
				     void (*tell_fn)(void *context, json_t *event, bool may_miss),
				     void *context)
{
	s->tell = tell_fn;
	s->tell_context = context;
	s->heartbeat.changed = on_heartbeat;
	s->kvp.info_changed = on_info;
	s->vss.thawed = on_thawed;
	return (struct command_family){ .types = guest_commands,
					.context = s,
					.state_size = sizeof(struct guest_command),
					.refused = guest_drop };
}
