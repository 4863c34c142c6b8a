// SPDX-License-Identifier: MIT
/*
 * The commands of partita-switchd(8). A port's settings come in the request, or, when they are
 * longer than a line may be, in a file whose descriptor comes with it. Loop's thread.
 */
#include "net/settings.h"
#include "net/switchd.h"

#include "lib/cleanup.h"
#include "schema/json.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#define MACS_AT_ONCE 1000u /* of an answer, which is bounded */
#define RING_MOST    (16 * MIB)

/* --- what requests say --- */

/* The whole file: a memfd, or one that is read from its start. */
static int file_read(int fd, json_t **ret, struct error *err)
{
	_cleanup_free_ char *text = NULL;
	json_error_t why;
	struct stat st;

	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > (off_t)SCHEMA_TEXT_MAX)
		return error_set(err, -EINVAL, "port_file: not a file of at most 1 MiB");
	text = malloc((size_t)st.st_size + 1);
	if (!text)
		return error_set(err, -ENOMEM, "out of memory");
	if (pread(fd, text, (size_t)st.st_size, 0) != st.st_size)
		return error_set(err, -EIO, "port_file: it cannot be read");
	*ret = json_loadb(text, (size_t)st.st_size, JSON_REJECT_DUPLICATES, &why);
	return *ret ? 0 : error_set(err, -EINVAL, "port_file: line %d: %s", why.line, why.text);
}

/* "port" or "port_file"; to be released. */
static int take_port(struct command *c, json_t **ret, struct error *err)
{
	_cleanup_close_ int fd = -1;
	json_t *port = json_object_get(c->request, "port");
	int r = take_fd(c, c->request, "port_file", !port, &fd, err);

	if (r < 0)
		return r;
	if (port && fd >= 0)
		return error_set(err, -EINVAL, "either port or port_file");
	if (fd >= 0)
		return file_read(fd, ret, err);
	*ret = json_incref(port);
	return 0;
}

static int take_plug(struct command *c, struct plug **ret, struct error *err)
{
	const char *id;
	int r = take_text(c->request, "port", true, &id, err);

	if (r < 0)
		return r;
	*ret = switchd_find(c->context, id);
	return *ret ? 0 : error_set(err, -ENOENT, "there is no port \"%s\"", id);
}

static int take_ring(struct command *c, size_t *ret, struct error *err)
{
	uint64_t size;
	int r = take_number_or(c->request, "ring_size", NET_RING_SIZE, RING_MOST, &size, err);

	*ret = (size_t)size;
	return r;
}

/* --- ports --- */

static int attach(struct command *c, struct plug *p, size_t ring, struct error *err)
{
	int fds[NET_PORT_FDS], r = switchd_attach(p, ring, fds, err);

	if (r < 0)
		return r;
	memcpy(c->answer_fds, fds, sizeof(fds));
	c->answer_fd_count = NET_PORT_FDS;
	return 0;
}

static int run_port_add(struct command *c, struct error *err)
{
	_cleanup_json_ json_t *port = NULL;
	struct plug *p;
	size_t ring;
	int r = take_ring(c, &ring, err);

	if (r >= 0)
		r = take_port(c, &port, err);
	if (r >= 0)
		r = switchd_add(c->context, port, &p, err);
	if (r < 0)
		return r;
	r = attach(c, p, ring, err);
	if (r < 0)
		switchd_remove(p);
	return r;
}

static int run_port_attach(struct command *c, struct error *err)
{
	struct plug *p;
	size_t ring;
	int r = take_ring(c, &ring, err);

	if (r >= 0)
		r = take_plug(c, &p, err);
	return r < 0 ? r : attach(c, p, ring, err);
}

static int run_port_set(struct command *c, struct error *err)
{
	_cleanup_json_ json_t *port = NULL;
	int r = take_port(c, &port, err);

	return r < 0 ? r : switchd_set(c->context, port, err);
}

static int run_port_remove(struct command *c, struct error *err)
{
	struct plug *p;
	int r = take_plug(c, &p, err);

	if (r >= 0)
		switchd_remove(p);
	return r;
}

/* What an uplink is when nothing is said: all VLANs, any address, and it waits for nobody. */
static json_t *uplink_default(void)
{
	return json_pack("{s:s,s:b,s:i,s:b,s:{s:s,s:s}}", "id", "uplink", "mac_spoofing", true,
			 "mac_limit", 8192, "waits", false, "vlan", "mode", "trunk", "list",
			 "1-4094");
}

/* The port that the request describes: added, or changed if it is there. */
static int uplink_port(struct command *c, json_t *port, struct plug **ret, bool *ret_added,
		       struct error *err)
{
	const char *id = json_string_value(json_object_get(port, "id"));

	*ret = id ? switchd_find(c->context, id) : NULL;
	*ret_added = !*ret;
	if (!*ret)
		return switchd_add(c->context, port, ret, err);
	return switchd_set(c->context, port, err);
}

static int run_uplink_set(struct command *c, struct error *err)
{
	_cleanup_json_ json_t *port = json_incref(json_object_get(c->request, "port"));
	_cleanup_close_ int fd = -1;
	bool promiscuous, added;
	struct plug *p;
	int r = take_bool_or(c->request, "promiscuous", true, &promiscuous, err);

	if (r >= 0)
		r = take_fd(c, c->request, "descriptor", true, &fd, err);
	if (r < 0)
		return r;
	if (!port)
		port = uplink_default();
	r = uplink_port(c, port, &p, &added, err);
	if (r < 0)
		return r;
	r = switchd_wire(p, steal_fd(&fd), promiscuous, err);
	if (r < 0 && added)
		switchd_remove(p);
	return r;
}

/* --- questions --- */

static const char *plug_state(const struct plug *p)
{
	if (p->ended)
		return p->ended == -EIO ? "broken" : "gone";
	if (net_switch_port_uplink(p->port))
		return "uplink";
	return net_switch_port_link(p->port) ? "attached" : "empty";
}

static json_t *plug_json(const struct plug *p)
{
	const struct net_switch_counters *n = net_switch_port_counters(p->port);

	return json_pack("{s:s,s:s,s:I,s:I,s:I,s:I}", "id", net_switch_port_id(p->port), "state",
			 plug_state(p), "frames_in", (json_int_t)n->frames_in, "bytes_in",
			 (json_int_t)n->bytes_in, "frames_out", (json_int_t)n->frames_out,
			 "bytes_out", (json_int_t)n->bytes_out);
}

static int run_query(struct command *c, struct error *err)
{
	struct net_switch *s = switchd_switch(c->context);
	json_t *ports = json_array();

	(void)err;
	for (struct net_switch_port *p = net_switch_next(s, NULL); p; p = net_switch_next(s, p))
		json_array_append_new(ports, plug_json(net_switch_port_context(p)));
	json_object_set_new(c->answer, "name", json_string(switchd_name(c->context)));
	json_object_set_new(c->answer, "ports", ports);
	return 0;
}

static json_t *drops_json(const struct net_switch_counters *n)
{
	json_t *o = json_object();

	for (unsigned i = 0; i < NET_DROPS; i++)
		json_object_set_new(o, net_drop_names[i], json_integer((json_int_t)n->dropped[i]));
	return o;
}

static json_t *rules_json(const struct net_switch_port *p)
{
	const struct net_settings *s = net_switch_port_settings(p);
	json_t *list = json_array();

	for (unsigned i = 0; i < s->rule_count; i++) {
		struct net_rule_counters n = net_switch_rule_counters(p, i);

		json_array_append_new(list, json_pack("{s:s,s:I,s:I}", "id", s->rules[i].id,
						      "frames", (json_int_t)n.frames, "bytes",
						      (json_int_t)n.bytes));
	}
	return list;
}

static json_t *addresses_json(const struct plug *p)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < p->learner.count; i++) {
		const struct net_address *a = &p->learner.list[i];
		char ip[INET6_ADDRSTRLEN], mac[MAC_TEXT];
		net_mac m;

		memcpy(&m, &a->mac, sizeof(m));
		mac_write(&m, mac);
		inet_ntop(a->family, a->bytes, ip, sizeof(ip));
		json_array_append_new(list, json_pack("{s:s,s:s}", "mac", mac, "ip", ip));
	}
	return list;
}

static int run_port_query(struct command *c, struct error *err)
{
	const struct net_switch_counters *n;
	json_t *brief;
	struct plug *p;
	int r = take_plug(c, &p, err);

	if (r < 0)
		return r;
	n = net_switch_port_counters(p->port);
	brief = plug_json(p);
	json_object_del(brief, "id");
	json_object_update(c->answer, brief);
	json_decref(brief);
	json_object_set_new(c->answer, "multicast_in", json_integer((json_int_t)n->multicast_in));
	json_object_set_new(c->answer, "multicast_out", json_integer((json_int_t)n->multicast_out));
	json_object_set_new(c->answer, "dropped", drops_json(n));
	json_object_set_new(c->answer, "rules", rules_json(p->port));
	json_object_set_new(c->answer, "flows",
			    json_integer((json_int_t)net_switch_port_flows(p->port)));
	json_object_set_new(c->answer, "addresses", addresses_json(p));
	return 0;
}

static int run_macs(struct command *c, struct error *err)
{
	json_t *list = json_array();
	struct net_mac_entry e;
	char mac[MAC_TEXT];
	uint64_t from;
	unsigned at;
	int r = take_number_or(c->request, "from", 0, UINT32_MAX, &from, err);

	if (r < 0) {
		json_decref(list);
		return r;
	}
	at = (unsigned)from;
	while (json_array_size(list) < MACS_AT_ONCE &&
	       net_switch_mac_next(switchd_switch(c->context), &at, &e)) {
		mac_write(&e.mac, mac);
		json_array_append_new(list,
				      json_pack("{s:s,s:s,s:i}", "mac", mac, "port",
						net_switch_port_id(e.port), "vlan", (int)e.vlan));
	}
	/* There may be more from there. */
	if (json_array_size(list) == MACS_AT_ONCE)
		json_object_set_new(c->answer, "next", json_integer(at));
	json_object_set_new(c->answer, "macs", list);
	return 0;
}

static const struct command_type commands[] = {
	{ "query", "", run_query },
	{ "macs", " from ", run_macs },
	{ "port-add", " port port_file ring_size ", run_port_add },
	{ "port-attach", " port ring_size ", run_port_attach },
	{ "port-set", " port port_file ", run_port_set },
	{ "port-remove", " port ", run_port_remove },
	{ "port-query", " port ", run_port_query },
	{ "uplink-set", " port descriptor promiscuous ", run_uplink_set },
	{ 0 },
};

struct command_family switchd_family(struct switchd *d)
{
	return (struct command_family){ .types = commands, .context = d };
}
