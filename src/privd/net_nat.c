// SPDX-License-Identifier: MIT
/*
 * Operations "net-nat", "net-nat-remove", "net-nat-list": what a NAT switch needs of the kernel, by
 * libnftables. Each network has a table of its own, inet partita-ID, made new in one transaction
 * whenever its settings change; so adding is idempotent, removing is exact, and which there are is
 * seen in the kernel, whoever died meanwhile.
 *
 * A host that forwarded nothing before must forward now. Then, and only then, there is a table inet
 * partita too, which drops what neither comes from nor goes to a switch, so that the host does not
 * become a router between its other networks; the last network takes it along, and forwarding ends.
 */
#include "lib/cleanup.h"
#include "lib/cursor.h"
#include "privd/net.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <nftables/libnftables.h>
#include <stdio.h>
#include <string.h>

#define PREFIX "partita-"
#define TEXT   65536u /* of a table: 128 ports, twice, of at most 200 bytes */

struct forward {
	bool udp;
	uint32_t listen, machine; /* listen 0 = all of the host's */
	uint16_t port, machine_port;
};
struct nat_arguments {
	char name[IFNAMSIZ]; /* of the tap */
	struct net_network network;
	struct in6_addr prefix6;
	bool ipv6;
	unsigned forward_count;
	struct forward forwards[NET_FORWARDS_MAX];
};
_Static_assert(sizeof(struct nat_arguments) <= NET_NAT_SIZE, "net.h has its size");

static struct nft_ctx *nft;

int net_nat_begin(const struct privd_config *config, struct loop *loop, struct error *err)
{
	(void)config;
	(void)loop;
	/* It reads its names of things from /etc now; later only the kernel. */
	nft = nft_ctx_new(NFT_CTX_DEFAULT);
	if (!nft)
		return error_set(err, -ENOMEM, "cannot use nftables");
	nft_ctx_buffer_output(nft);
	nft_ctx_buffer_error(nft);
	return 0;
}

/* What it says is in its buffer then. */
static int nft_run(const char *commands, const char *what, struct error *err)
{
	const char *words;

	if (nft_run_cmd_from_buffer(nft, commands) == 0)
		return 0;
	words = nft_ctx_get_error_buffer(nft);
	return error_set(err, -EIO, "cannot %s: %.*s", what, (int)strcspn(words, "\n"), words);
}

/* ---- forwarding ---- */

static void put(struct writer *w, const char *format, ...) _printf_(2, 3);

static void put(struct writer *w, const char *format, ...)
{
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf((char *)w->data + w->at, w->size - w->at, format, args);
	va_end(args);
	if (n < 0 || (size_t)n >= w->size - w->at)
		w->overrun = true;
	else
		w->at += (size_t)n;
}

static void closedir_p(DIR **d)
{
	if (*d)
		closedir(*d);
}

static const char *const switches[] = {
	"/proc/sys/net/ipv4/ip_forward",
	"/proc/sys/net/ipv6/conf/all/forwarding",
};

static int forwarding_get(const char *path)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	char c = '0';

	if (fd < 0 || read(fd, &c, 1) != 1)
		return -EIO;
	return c != '0';
}

static int forwarding_set(const char *path, bool on, struct error *err)
{
	_cleanup_close_ int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, on ? "1" : "0", 1) != 1)
		return error_errno(err, -errno, "cannot %s forwarding (%s)", on ? "begin" : "end",
				   path);
	return 0;
}

/*
 * A kernel that forwards IPv6 no longer listens to routers, unless accept_ra is 2 (the kernel's
 * Documentation/networking/ip-sysctl.rst): the host would lose its own addresses. Interfaces that
 * were changed are elements of a set in our table, which puts them back.
 */
static const char conf6[] = "/proc/sys/net/ipv6/conf";

static int ra_file(const char *interface, int flags)
{
	char path[sizeof(conf6) + NAME_MAX + 12];

	snprintf(path, sizeof(path), "%s/%s/accept_ra", conf6, interface);
	return open(path, flags | O_CLOEXEC);
}

/* Changes those that have `from`, and that are in `among` (NULL: any); their names to `names`. */
static int ra_change(char from, char to, const char *among, struct writer *names, struct error *err)
{
	_cleanup_(closedir_p) DIR *folder = opendir(conf6);
	const struct dirent *e;

	while (folder && (e = readdir(folder))) {
		_cleanup_close_ int in = ra_file(e->d_name, O_RDONLY), out = -1;
		char value = 0, quoted[NAME_MAX + 3];

		if (in < 0 || read(in, &value, 1) != 1 || value != from ||
		    strlen(e->d_name) >= IFNAMSIZ || !strcmp(e->d_name, "all"))
			continue;
		snprintf(quoted, sizeof(quoted), "\"%s\"", e->d_name);
		if (among && !strstr(among, quoted))
			continue;
		out = ra_file(e->d_name, O_WRONLY);
		if (out < 0 || write(out, &to, 1) != 1)
			return error_errno(err, -errno, "cannot set accept_ra of %s", e->d_name);
		if (names)
			put(names, "add element inet partita accept_ra { %s }\n", quoted);
	}
	return 0;
}

static int ra_keep(struct error *err)
{
	_cleanup_free_ char *text = malloc(TEXT);
	struct writer w = writer_of(text, TEXT);
	int r;

	if (!text)
		return error_set(err, -ENOMEM, "out of memory");
	put(&w, "add set inet partita accept_ra { type ifname; }\n");
	r = ra_change('1', '2', NULL, &w, err);
	if (!r && !writer_ok(&w))
		r = error_set(err, -E2BIG, "too many interfaces");
	return r < 0 ? r : nft_run(text, "note which interfaces listen to routers", err);
}

/* Before the first byte is forwarded the table is there. `set` names which was off. */
static int forwarding_begin(const char *path, unsigned version, struct error *err)
{
	char text[512];
	int r;

	if (forwarding_get(path) != 0)
		return 0;
	snprintf(text, sizeof(text),
		 "add table inet partita\n"
		 "add chain inet partita forward%u { type filter hook forward priority -10; }\n"
		 "flush chain inet partita forward%u\n"
		 "add rule inet partita forward%u meta nfproto ipv%u iifname != \"p-*\" oifname != "
		 "\"p-*\" drop\n",
		 version, version, version, version);
	r = nft_run(text, "keep the host from forwarding other networks", err);
	if (!r && version == 6)
		r = ra_keep(err);
	return r < 0 ? r : forwarding_set(path, true, err);
}

/* Which was off before: its chain says so. */
static int forwarding_end(struct error *err)
{
	const char *out;
	bool was_off[2];
	int r = 0;

	if (nft_run_cmd_from_buffer(nft, "list table inet partita") != 0)
		return 0;
	out = nft_ctx_get_output_buffer(nft);
	was_off[0] = strstr(out, "forward4");
	was_off[1] = strstr(out, "forward6");
	for (unsigned i = 0; i < ARRAY_SIZE(switches) && !r; i++)
		if (was_off[i])
			r = forwarding_set(switches[i], false, err);
	if (!r && was_off[1])
		r = ra_change('2', '1', out, NULL, err);
	return r < 0 ? r : nft_run("delete table inet partita", "remove our table", err);
}

/* ---- a network's table ---- */

static const char *dotted(uint32_t a, char text[INET_ADDRSTRLEN])
{
	be32 wire = be32_of(a);

	return inet_ntop(AF_INET, &wire, text, INET_ADDRSTRLEN);
}

/* For packets that come, and for those of the host itself. */
static void put_forwards(struct writer *w, const struct nat_arguments *a, const char *hook)
{
	char listen[INET_ADDRSTRLEN], machine[INET_ADDRSTRLEN];

	put(w, "chain %s { type nat hook %s priority -100;\n", hook, hook);
	for (unsigned i = 0; i < a->forward_count; i++) {
		const struct forward *f = &a->forwards[i];

		if (f->listen)
			put(w, "ip daddr %s ", dotted(f->listen, listen));
		else
			put(w, "meta nfproto ipv4 fib daddr type local ");
		put(w, "%s dport %u dnat ip to %s:%u\n", f->udp ? "udp" : "tcp", f->port,
		    dotted(f->machine, machine), f->machine_port);
	}
	put(w, "}\n");
}

/*
 * What machines send goes out under the host's address; towards them comes what answers that, and
 * what is forwarded.
 */
static void put_table(struct writer *w, const struct nat_arguments *a)
{
	char network[INET_ADDRSTRLEN], prefix6[INET6_ADDRSTRLEN];

	dotted(a->network.address & a->network.mask, network);
	inet_ntop(AF_INET6, &a->prefix6, prefix6, sizeof(prefix6));
	put(w, "table inet " PREFIX "%s {\n", a->name + 2);
	put(w, "chain postrouting { type nat hook postrouting priority 100;\n");
	put(w, "ip saddr %s/%u oifname != \"%s\" masquerade\n", network, a->network.prefix,
	    a->name);
	if (a->ipv6)
		put(w, "ip6 saddr %s/64 oifname != \"%s\" masquerade\n", prefix6, a->name);
	put(w,
	    "}\nchain forward { type filter hook forward priority 0;\n"
	    "oifname \"%s\" ct state established,related accept\n"
	    "oifname \"%s\" ct status dnat accept\n"
	    "oifname \"%s\" drop\n"
	    "iifname \"%s\" ip saddr != %s/%u drop\n",
	    a->name, a->name, a->name, a->name, network, a->network.prefix);
	put(w, "}\n");
	put_forwards(w, a, "prerouting");
	put_forwards(w, a, "output");
	put(w, "}\n");
}

/* ---- net-nat ---- */

static int take_forward(const json_t *o, const struct net_network *n, struct forward *f,
			struct error *err)
{
	const char *protocol, *listen = NULL, *machine;
	struct in_addr at = { 0 }, to;
	int port, machine_port;

	if (json_unpack((json_t *)o, "{s:s, s?s, s:i, s:s, s:i !}", "protocol", &protocol, "listen",
			&listen, "port", &port, "machine", &machine, "machine_port",
			&machine_port) < 0 ||
	    (strcmp(protocol, "tcp") != 0 && strcmp(protocol, "udp") != 0) || port < 1 ||
	    port > 65535 || machine_port < 1 || machine_port > 65535 ||
	    (listen && inet_pton(AF_INET, listen, &at) != 1) ||
	    inet_pton(AF_INET, machine, &to) != 1)
		return error_set(err, -EINVAL,
				 "a forwarded port has a protocol (tcp, udp), port, machine, "
				 "machine_port, and perhaps listen, an address");
	*f = (struct forward){ .udp = protocol[0] == 'u',
			       .listen = ntohl(at.s_addr),
			       .machine = ntohl(to.s_addr),
			       .port = (uint16_t)port,
			       .machine_port = (uint16_t)machine_port };
	if ((f->machine ^ n->address) & n->mask)
		return error_set(err, -EACCES, "%s is not in this network", machine);
	return 0;
}

int net_nat_decode(struct privd_call *c, struct error *err)
{
	struct nat_arguments *a = c->arguments;
	const char *id, *address, *ipv6 = NULL;
	json_t *forwards = NULL;
	const json_t *o;
	size_t i;
	int r;

	r = privd_unpack(c, err, "{s:s, s:s, s?s, s?o}", "switch", &id, "address", &address, "ipv6",
			 &ipv6, "forwards", &forwards);
	if (!r)
		r = net_take_name(id, a->name, err);
	if (!r)
		r = net_take_network(address, &a->network, err);
	if (r < 0)
		return r;
	if (ipv6 &&
	    (inet_pton(AF_INET6, ipv6, &a->prefix6) != 1 || a->prefix6.s6_addr[0] >> 1 != 0x7e))
		return error_set(err, -EACCES, "\"%.50s\" is no unique local network (RFC 4193)",
				 ipv6);
	a->ipv6 = ipv6;
	memset(a->prefix6.s6_addr + 8, 0, 8);
	if (forwards && (!json_is_array(forwards) || json_array_size(forwards) > NET_FORWARDS_MAX))
		return error_set(err, -EINVAL, "forwards: a list of at most %d", NET_FORWARDS_MAX);
	json_array_foreach(forwards, i, o)
	{
		r = take_forward(o, &a->network, &a->forwards[i], err);
		if (r < 0)
			return error_prefix(err, "forwards: %zu", i);
	}
	a->forward_count = (unsigned)json_array_size(forwards);
	return 0;
}

int net_nat_run(struct privd_call *c, struct error *err)
{
	const struct nat_arguments *a = c->arguments;
	_cleanup_free_ char *text = malloc(TEXT);
	struct writer w = writer_of(text, TEXT);
	int r;

	if (!text)
		return error_set(err, -ENOMEM, "out of memory");
	/* One transaction: it is never half there. */
	put(&w, "add table inet " PREFIX "%s\ndelete table inet " PREFIX "%s\n", a->name + 2,
	    a->name + 2);
	put_table(&w, a);
	if (!writer_ok(&w))
		return error_set(err, -E2BIG, "too many ports");
	r = nft_run(text, "set up NAT", err);
	if (!r)
		r = forwarding_begin(switches[0], 4, err);
	if (!r && a->ipv6)
		r = forwarding_begin(switches[1], 6, err);
	return r;
}

/* ---- net-nat-list, net-nat-remove ---- */

/* Ids of the tables that there are, into `list`. */
static int tables_list(json_t *list, struct error *err)
{
	int r = nft_run("list tables inet", "list tables", err);
	char id[NET_ID_TEXT + 1];

	if (r < 0)
		return r;
	for (const char *at = nft_ctx_get_output_buffer(nft); at && *at;
	     at = strchr(at, '\n') ? strchr(at, '\n') + 1 : NULL)
		if (sscanf(at, "table inet " PREFIX "%12[a-z0-9]", id) == 1)
			json_array_append_new(list, json_string(id));
	return 0;
}

int net_nat_list_run(struct privd_call *c, struct error *err)
{
	json_t *list = json_array();

	json_object_set_new(c->answer, "switches", list);
	return tables_list(list, err);
}

int net_nat_remove_decode(struct privd_call *c, struct error *err)
{
	struct nat_arguments *a = c->arguments;
	const char *id;
	int r = privd_unpack(c, err, "{s:s}", "switch", &id);

	return r < 0 ? r : net_take_name(id, a->name, err);
}

/* Also of what is not there. */
int net_nat_remove_run(struct privd_call *c, struct error *err)
{
	const struct nat_arguments *a = c->arguments;
	json_t *list = json_array();
	char text[128];
	int r;

	snprintf(text, sizeof(text),
		 "add table inet " PREFIX "%s\ndelete table inet " PREFIX "%s\n", a->name + 2,
		 a->name + 2);
	r = nft_run(text, "remove NAT", err);
	if (!r)
		r = tables_list(list, err);
	if (!r && !json_array_size(list))
		r = forwarding_end(err);
	json_decref(list);
	return r;
}
