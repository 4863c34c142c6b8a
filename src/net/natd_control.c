// SPDX-License-Identifier: MIT
/* See natd.h. Texts become addresses here; what is wrong in them is said with their name. */
#include "lib/cleanup.h"
#include "lib/unix_socket.h"
#include "net/natd.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

/* ---- texts ---- */

static bool read_ip4(const char *text, uint32_t *ret)
{
	struct in_addr a;

	if (inet_pton(AF_INET, text, &a) != 1)
		return false;
	*ret = ntohl(a.s_addr);
	return true;
}

static int read_network(const char *text, struct dhcp_settings *d, struct error *err)
{
	char address[16];
	unsigned prefix;
	int end = 0;

	if (sscanf(text, "%15[0-9.]/%2u%n", address, &prefix, &end) != 2 || text[end] ||
	    !read_ip4(address, &d->address) || prefix < 8 || prefix > 29)
		return error_set(err, -EINVAL,
				 "address: \"%.40s\" is no address with a prefix of 8 to 29 bits, "
				 "as in 172.29.0.1/20",
				 text);
	d->prefix = prefix;
	if ((d->address & (UINT32_MAX >> prefix)) != 1)
		return error_set(err, -EINVAL,
				 "address: the router must be the first of its network");
	return 0;
}

/* "001122334455", "00-11-22-33-44-55", "00:11:22:33:44:55". */
static bool read_mac(const char *text, struct inet_mac *ret)
{
	for (unsigned i = 0; i < INET_MAC_SIZE; i++) {
		unsigned v;
		int n = 0;

		if (sscanf(text, "%2x%n", &v, &n) != 1 || n != 2)
			return false;
		ret->byte[i] = (uint8_t)v;
		text += 2;
		if (i < 5 && (*text == ':' || *text == '-'))
			text++;
	}
	return !*text && inet_mac_single(ret);
}

static bool read_server(const char *text, union dns_server *ret)
{
	*ret = (union dns_server){ 0 };
	if (inet_pton(AF_INET, text, &ret->ip4.sin_addr) == 1) {
		ret->ip4.sin_family = AF_INET;
		ret->ip4.sin_port = htons(53);
		return true;
	}
	ret->ip6.sin6_family = AF_INET6;
	ret->ip6.sin6_port = htons(53);
	return inet_pton(AF_INET6, text, &ret->ip6.sin6_addr) == 1;
}

static int read_ipv6(const char *text, uint8_t ret[16], struct error *err)
{
	char address[INET6_ADDRSTRLEN];
	size_t n = strcspn(text, "/");
	static const uint8_t zero[8];

	if (n < sizeof(address)) {
		memcpy(address, text, n);
		address[n] = '\0';
		if (!strcmp(text + n, "/64") && inet_pton(AF_INET6, address, ret) == 1 &&
		    (ret[0] & 0xfe) == 0xfc && !memcmp(ret + 8, zero, 8))
			return 0;
	}
	return error_set(err, -EINVAL,
			 "ipv6: \"%.60s\" is no unique local network, as in fd12:3456::/64", text);
}

/* ---- the description ---- */

int natd_settings(const struct nat_description *d, struct nat_settings *ret, struct error *err)
{
	struct nat_settings s = { .tap = (int)d->descriptors.tap,
				  .dns_listener = -1,
				  .folder = d->folder };
	int r = read_network(d->address, &s.dhcp, err);

	if (r < 0)
		return r;
	s.dhcp.mtu = (uint16_t)d->mtu;
	s.dhcp.seconds = d->lease;
	snprintf(s.dhcp.domain, sizeof(s.dhcp.domain), "%s", d->domain);
	if (d->mac && !read_mac(d->mac, &s.dhcp.mac))
		return error_set(err, -EINVAL, "mac: \"%.40s\" is no hardware address", d->mac);
	if (!d->mac && s.tap >= 0)
		return error_set(err, -EINVAL, "mac: needed with a tap");
	if (d->ipv6) {
		r = read_ipv6(d->ipv6, s.prefix6, err);
		if (r < 0)
			return r;
		s.ipv6 = true;
	}
	for (unsigned i = 0; i < d->resolvers_count; i++)
		if (!read_server(d->resolvers[i], &s.resolvers[i]))
			return error_set(err, -EINVAL, "resolvers: \"%.60s\" is no address",
					 d->resolvers[i]);
	s.resolver_count = d->resolvers_count;
	if (d->descriptors.dns >= 0) {
		if (s.tap < 0)
			return error_set(err, -EINVAL, "descriptors.dns: only with a tap");
		s.dns_listener =
			unix_listener_take((int)d->descriptors.dns, "descriptors.dns", err);
		if (s.dns_listener < 0)
			return s.dns_listener;
	}
	*ret = s;
	return 0;
}

int natd_attach(const struct nat_description *d, struct nat *n, struct error *err)
{
	const int fds[NET_PORT_FDS] = { (int)d->descriptors.memory, (int)d->descriptors.socket };
	struct net_port *port;
	int r;

	if (fds[0] < 0 && fds[1] < 0)
		return 0;
	r = net_port_open(fds, &port, err);
	return r < 0 ? r : nat_attach(n, port, err);
}

/* ---- commands ---- */

static void answer_leases(json_t *answer, const struct nat *n)
{
	static const char *const states[] = { "free", "offered", "leased", "declined" };
	unsigned count;
	const struct dhcp_lease *l = nat_leases(n, &count);
	json_t *list = json_array();

	for (unsigned i = 0; i < count; i++) {
		const uint8_t *m = l[i].mac.byte;
		char address[16], mac[18];

		inet_ntop(AF_INET, &(be32){ htobe32(l[i].address) }, address, sizeof(address));
		snprintf(mac, sizeof(mac), "%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3],
			 m[4], m[5]);
		json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:s}", "address", address,
						      "mac", mac, "state", states[l[i].state],
						      "name", l[i].name));
	}
	json_object_set_new(answer, "leases", list);
}

static int run_query(struct command *c, struct error *err)
{
	const struct nat *n = c->context;
	struct nat_counters f = nat_counters(n);
	struct dns_counters d = nat_dns_counters(n);

	(void)err;
	answer_leases(c->answer, n);
	json_object_set_new(c->answer, "frames",
			    json_pack("{s:I, s:I, s:I, s:I}", "in", (json_int_t)f.frames_in, "out",
				      (json_int_t)f.frames_out, "dropped_in",
				      (json_int_t)f.dropped_in, "dropped_out",
				      (json_int_t)f.dropped_out));
	json_object_set_new(c->answer, "dns",
			    json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "asked",
				      (json_int_t)d.asked, "local", (json_int_t)d.local,
				      "forwarded", (json_int_t)d.forwarded, "answered",
				      (json_int_t)d.answered, "timeouts", (json_int_t)d.timeouts,
				      "refused", (json_int_t)d.refused, "dropped",
				      (json_int_t)d.dropped, "lies", (json_int_t)d.lies));
	return 0;
}

static int take_list(const struct command *c, const char *key, size_t most, json_t **ret,
		     struct error *err)
{
	*ret = json_object_get(c->request, key);
	if (!json_is_array(*ret) || json_array_size(*ret) > most)
		return error_set(err, -EINVAL, "%s: must be a list of at most %zu", key, most);
	return 0;
}

/* A label of small letters, digits and hyphens (RFC 1123 2.1). */
static bool is_label(const char *s)
{
	size_t n = strlen(s);

	return n && n <= DHCP_NAME_MAX && s[0] != '-' && s[n - 1] != '-' &&
	       strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == n;
}

static int run_names(struct command *c, struct error *err)
{
	_cleanup_free_ struct nat_name *names = NULL;
	const json_t *o;
	json_t *list;
	size_t i;
	int r = take_list(c, "names", NAT_NAMES_MAX, &list, err);

	if (r < 0)
		return r;
	names = calloc(json_array_size(list) + 1, sizeof(*names));
	if (!names)
		return error_set(err, -ENOMEM, "no memory for names");
	json_array_foreach(list, i, o)
	{
		const char *name = json_string_value(json_object_get(o, "name"));
		const char *mac = json_string_value(json_object_get(o, "mac"));

		if (!name || !mac || !is_label(name) || !read_mac(mac, &names[i].mac))
			return error_set(err, -EINVAL,
					 "names: %zu has no \"name\" of small letters, digits and "
					 "hyphens, or no \"mac\"",
					 i);
		strcpy(names[i].name, name);
	}
	return nat_set_names(c->context, names, (unsigned)json_array_size(list), err);
}

static int run_resolvers(struct command *c, struct error *err)
{
	union dns_server servers[DNS_SERVERS_MAX];
	json_t *list;
	int r = take_list(c, "resolvers", DNS_SERVERS_MAX, &list, err);

	if (r < 0)
		return r;
	for (size_t i = 0; i < json_array_size(list); i++) {
		const char *text = json_string_value(json_array_get(list, i));

		if (!text || !read_server(text, &servers[i]))
			return error_set(err, -EINVAL, "resolvers: %zu is no address", i);
	}
	nat_set_resolvers(c->context, servers, (unsigned)json_array_size(list));
	return 0;
}

static int take_ip4(const json_t *o, const char *key, bool needed, uint32_t *ret, struct error *err)
{
	const char *text;
	int r = take_text(o, key, needed, &text, err);

	if (r < 0 || !text)
		return r;
	return read_ip4(text, ret) ? 0 : error_set(err, -EINVAL, "%s: is no address", key);
}

/* protocol (tcp), listen (all), port; machine, machine_port when it is to be added. */
static int take_forward(const struct command *c, bool add, struct nat_forward *f, struct error *err)
{
	const char *protocol;
	uint64_t port = 0, machine_port = 0;
	int r = take_text(c->request, "protocol", false, &protocol, err);

	*f = (struct nat_forward){ 0 };
	if (!r)
		r = take_ip4(c->request, "listen", false, &f->listen, err);
	if (!r)
		r = take_number(c->request, "port", 1, 65535, &port, err);
	if (!r && add)
		r = take_ip4(c->request, "machine", true, &f->machine, err);
	if (!r && add)
		r = take_number(c->request, "machine_port", 1, 65535, &machine_port, err);
	if (r < 0)
		return r;
	if (protocol && strcmp(protocol, "tcp") != 0 && strcmp(protocol, "udp") != 0)
		return error_set(err, -EINVAL, "protocol: must be tcp or udp");
	f->udp = protocol && !strcmp(protocol, "udp");
	f->port = (uint16_t)port;
	f->machine_port = (uint16_t)machine_port;
	return 0;
}

static int run_forward_add(struct command *c, struct error *err)
{
	struct nat_forward f;
	int r = take_forward(c, true, &f, err);

	return r < 0 ? r : nat_forward_add(c->context, &f, err);
}

static int run_forward_remove(struct command *c, struct error *err)
{
	struct nat_forward f;
	int r = take_forward(c, false, &f, err);

	return r < 0 ? r : nat_forward_remove(c->context, &f, err);
}

static int run_attach(struct command *c, struct error *err)
{
	int fds[NET_PORT_FDS] = { -1, -1 };
	struct net_port *port;
	int r = take_fd(c, c->request, "memory", true, &fds[0], err);

	if (!r)
		r = take_fd(c, c->request, "socket", true, &fds[1], err);
	if (r < 0) {
		close_p(&fds[0]);
		return r;
	}
	r = net_port_open(fds, &port, err);
	return r < 0 ? r : nat_attach(c->context, port, err);
}

const struct command_type natd_commands[] = {
	{ "query", " ", run_query },
	{ "names", " names ", run_names },
	{ "resolvers", " resolvers ", run_resolvers },
	{ "forward-add", " protocol listen port machine machine_port ", run_forward_add },
	{ "forward-remove", " protocol listen port ", run_forward_remove },
	{ "attach", " memory socket ", run_attach },
	{ NULL },
};
