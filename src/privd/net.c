// SPDX-License-Identifier: MIT
/*
 * Operations of virtual switches: "net-tap" (a tap, for an Internal, NAT or bridged switch),
 * "net-packet" (an interface of the host), "net-nat", "net-nat-remove", "net-nat-list" (net_nat.c).
 * Bridges and interfaces must be configured by root; addresses must be private ones that nothing of
 * the host has yet. A tap is never persistent: with its last descriptor goes all that was done to
 * it, so that nothing is left behind however the others end. What is asked of the kernel is so
 * little (an address, a flag, a bridge) that ioctls of netdevice(7) do, without a library of
 * netlink.
 */
#include "privd/net.h"
#include "lib/cleanup.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <linux/capability.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/ipv6.h>
#include <linux/sockios.h>
#include <net/if_arp.h>
#include <seccomp.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

struct tap_arguments {
	char name[IFNAMSIZ];
	const char *bridge; /* or NULL */
	uint8_t mac[6];
	bool has_mac, has_address, has_address6, dns;
	struct net_network network;
	struct in6_addr address6;
	int mtu; /* 0 = as it is */
};

struct packet_arguments {
	const char *interface;
};

/* ---- texts ---- */

int net_take_name(const char *id, char ret[IFNAMSIZ], struct error *err)
{
	size_t n = strlen(id);

	if (!n || n > NET_ID_TEXT || strspn(id, "abcdefghijklmnopqrstuvwxyz0123456789") != n)
		return error_set(err, -EINVAL, "a switch's id has 1 to %d small letters and digits",
				 NET_ID_TEXT);
	snprintf(ret, IFNAMSIZ, "p-%s", id);
	return 0;
}

/* RFC 1918, and RFC 6598, which providers use towards their customers. */
static bool is_private(uint32_t a)
{
	return a >> 24 == 10 || a >> 20 == 0xac1 || a >> 16 == 0xc0a8 || a >> 22 == 0x191;
}

int net_take_network(const char *text, struct net_network *ret, struct error *err)
{
	struct in_addr a;
	char address[16];
	unsigned prefix;
	int end = 0;

	if (sscanf(text, "%15[0-9.]/%2u%n", address, &prefix, &end) != 2 || text[end] ||
	    inet_pton(AF_INET, address, &a) != 1 || prefix < 16 || prefix > 29)
		return error_set(err, -EINVAL,
				 "\"%.40s\" is no address with a prefix of 16 to 29 bits", text);
	ret->address = ntohl(a.s_addr);
	ret->mask = ~(UINT32_MAX >> prefix);
	ret->prefix = prefix;
	if (!is_private(ret->address))
		return error_set(err, -EACCES, "\"%.40s\" is not in a private network (RFC 1918)",
				 text);
	if (!(ret->address & ~ret->mask) || (ret->address | ret->mask) == UINT32_MAX)
		return error_set(err, -EINVAL, "\"%.40s\" is nobody's address", text);
	return 0;
}

static int take_mac(const char *text, uint8_t ret[6], struct error *err)
{
	int end = 0;

	if (sscanf(text, "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx%n", &ret[0], &ret[1], &ret[2],
		   &ret[3], &ret[4], &ret[5], &end) != 6 ||
	    end != 17 || text[end] || ret[0] & 1)
		return error_set(err, -EINVAL, "\"%.40s\" is no hardware address", text);
	return 0;
}

static bool allowed(char *const *list, unsigned count, const char *name)
{
	for (unsigned i = 0; i < count; i++)
		if (!strcmp(list[i], name))
			return true;
	return false;
}

/* ---- the host's networks ---- */

static bool overlaps(const struct ifaddrs *i, const struct net_network *n)
{
	const struct sockaddr_in *a = (const void *)i->ifa_addr, *m = (const void *)i->ifa_netmask;
	uint32_t mask;

	if (!a || a->sin_family != AF_INET || !m)
		return false;
	mask = ntohl(m->sin_addr.s_addr) & n->mask;
	return ((ntohl(a->sin_addr.s_addr) ^ n->address) & mask) == 0;
}

/* A network that the host is in already would be taken away from it. */
static int network_free(const struct net_network *n, const char *own, struct error *err)
{
	struct ifaddrs *all, *i;
	int r = 0;

	if (getifaddrs(&all) < 0)
		return error_errno(err, -errno, "cannot read the host's addresses");
	for (i = all; i && !r; i = i->ifa_next)
		if (overlaps(i, n) && strcmp(i->ifa_name, own) != 0)
			r = error_set(err, -EADDRINUSE,
				      "this network overlaps with that of the interface %s: choose "
				      "another",
				      i->ifa_name);
	freeifaddrs(all);
	return r;
}

/* ---- net-tap ---- */

static int tap_decode(struct privd_call *c, struct error *err)
{
	struct tap_arguments *a = c->arguments;
	const char *id, *mac = NULL, *address = NULL, *address6 = NULL;
	int r, dns = 0;

	r = privd_unpack(c, err, "{s:s, s?s, s?s, s?s, s?s, s?i, s?b}", "switch", &id, "bridge",
			 &a->bridge, "mac", &mac, "address", &address, "address6", &address6, "mtu",
			 &a->mtu, "dns", &dns);
	if (!r)
		r = net_take_name(id, a->name, err);
	if (!r && mac)
		r = take_mac(mac, a->mac, err);
	if (!r && address)
		r = net_take_network(address, &a->network, err);
	if (r < 0)
		return r;
	a->has_mac = mac;
	a->has_address = address;
	a->has_address6 = address6;
	a->dns = dns;
	if (address6 && (inet_pton(AF_INET6, address6, &a->address6) != 1 ||
			 a->address6.s6_addr[0] >> 1 != 0x7e))
		return error_set(err, -EACCES, "\"%.50s\" is no unique local address (RFC 4193)",
				 address6);
	if (a->mtu && (a->mtu < 576 || a->mtu > 65521))
		return error_set(err, -EINVAL, "an MTU is 576 to 65521, not %d", a->mtu);
	if (a->bridge && (address || address6 || dns))
		return error_set(err, -EINVAL, "a tap in a bridge has no addresses of its own");
	if (dns && !address)
		return error_set(err, -EINVAL, "names can be served at an address only");
	if (a->bridge && !allowed(c->config->bridges, c->config->bridge_count, a->bridge))
		return error_set(err, -EACCES,
				 "the bridge \"%.40s\" may not be used: name it in partita-privd's "
				 "configuration (\"bridge %.40s\")",
				 a->bridge, a->bridge);
	return 0;
}

static int tap_new(const char *name, struct error *err)
{
	struct ifreq q = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_TUN_EXCL };
	int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0)
		return error_errno(err, -errno, "cannot open /dev/net/tun");
	memcpy(q.ifr_name, name, IFNAMSIZ);
	if (ioctl(fd, TUNSETIFF, &q) < 0) {
		int r = error_errno(err, -errno, "cannot make the interface %s", name);

		close(fd);
		return r;
	}
	return fd;
}

/* One ioctl of netdevice(7) on the tap. */
static int tap_set(int s, const struct tap_arguments *a, unsigned long call, struct ifreq *q,
		   const char *what, struct error *err)
{
	memcpy(q->ifr_name, a->name, IFNAMSIZ);
	if (ioctl(s, call, q) < 0)
		return error_errno(err, -errno, "cannot set the %s of %s", what, a->name);
	return 0;
}

static int set_address(int s, const struct tap_arguments *a, struct error *err)
{
	struct ifreq address = { 0 }, mask = { 0 };
	struct sockaddr_in in = { .sin_family = AF_INET,
				  .sin_addr.s_addr = htonl(a->network.address) };
	int r;

	memcpy(&address.ifr_addr, &in, sizeof(in));
	in.sin_addr.s_addr = htonl(a->network.mask);
	memcpy(&mask.ifr_netmask, &in, sizeof(in));
	r = tap_set(s, a, SIOCSIFADDR, &address, "address", err);
	return r < 0 ? r : tap_set(s, a, SIOCSIFNETMASK, &mask, "netmask", err);
}

static int set_address6(int s, const struct tap_arguments *a, struct error *err)
{
	_cleanup_close_ int s6 = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct in6_ifreq q6 = { .ifr6_addr = a->address6, .ifr6_prefixlen = 64 };
	struct ifreq q = { 0 };
	int r = tap_set(s, a, SIOCGIFINDEX, &q, "index", err);

	if (r < 0)
		return r;
	q6.ifr6_ifindex = q.ifr_ifindex;
	if (s6 < 0 || ioctl(s6, SIOCSIFADDR, &q6) < 0)
		return error_errno(err, -errno, "cannot set the IPv6 address of %s", a->name);
	return 0;
}

static int join_bridge(int s, const struct tap_arguments *a, struct error *err)
{
	struct ifreq q = { 0 };
	int r = tap_set(s, a, SIOCGIFINDEX, &q, "index", err), index = q.ifr_ifindex;

	if (r < 0)
		return r;
	q = (struct ifreq){ .ifr_ifindex = index };
	snprintf(q.ifr_name, sizeof(q.ifr_name), "%s", a->bridge);
	if (ioctl(s, SIOCBRADDIF, &q) < 0)
		return error_errno(err, -errno, "cannot join %s to the bridge %.40s", a->name,
				   a->bridge);
	return 0;
}

static int tap_configure(const struct tap_arguments *a, struct error *err)
{
	_cleanup_close_ int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq q = { 0 };
	int r = s < 0 ? error_errno(err, -errno, "cannot set up %s", a->name) : 0;

	if (!r && a->has_mac) {
		q.ifr_hwaddr.sa_family = ARPHRD_ETHER;
		memcpy(q.ifr_hwaddr.sa_data, a->mac, 6);
		r = tap_set(s, a, SIOCSIFHWADDR, &q, "hardware address", err);
	}
	if (!r && a->mtu) {
		q = (struct ifreq){ .ifr_mtu = a->mtu };
		r = tap_set(s, a, SIOCSIFMTU, &q, "MTU", err);
	}
	if (!r && a->has_address)
		r = set_address(s, a, err);
	if (!r && a->bridge)
		r = join_bridge(s, a, err);
	if (!r) {
		q = (struct ifreq){ .ifr_flags = IFF_UP };
		r = tap_set(s, a, SIOCSIFFLAGS, &q, "state", err);
	}
	/* The kernel takes IPv6 addresses of interfaces that are up. */
	if (!r && a->has_address6)
		r = set_address6(s, a, err);
	return r;
}

/* DNS by TCP at the tap's address, for who may not have that port himself. */
static int dns_listener(const struct tap_arguments *a, struct error *err)
{
	struct sockaddr_in at = { .sin_family = AF_INET,
				  .sin_port = htons(53),
				  .sin_addr.s_addr = htonl(a->network.address) };
	int s = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (s < 0 || bind(s, (struct sockaddr *)&at, sizeof(at)) < 0 || listen(s, 64) < 0) {
		int r = error_errno(err, -errno, "cannot listen for DNS at %s", a->name);

		close_p(&s);
		return r;
	}
	return s;
}

static int tap_run(struct privd_call *c, struct error *err)
{
	const struct tap_arguments *a = c->arguments;
	_cleanup_close_ int fd = -1;
	int r = a->has_address ? network_free(&a->network, a->name, err) : 0;

	if (r < 0)
		return r;
	fd = tap_new(a->name, err);
	if (fd < 0)
		return fd;
	r = tap_configure(a, err);
	if (!r && a->dns)
		r = dns_listener(a, err);
	if (r < 0)
		return r;
	c->answer_fds[c->answer_fd_count++] = steal_fd(&fd);
	if (a->dns)
		c->answer_fds[c->answer_fd_count++] = r;
	json_object_set_new(c->answer, "interface", json_string(a->name));
	return 0;
}

/* ---- net-packet ---- */

static int packet_decode(struct privd_call *c, struct error *err)
{
	struct packet_arguments *a = c->arguments;
	int r = privd_unpack(c, err, "{s:s}", "interface", &a->interface);

	if (r < 0)
		return r;
	if (!allowed(c->config->interfaces, c->config->interface_count, a->interface))
		return error_set(err, -EACCES,
				 "the interface \"%.40s\" may not be used: name it in "
				 "partita-privd's configuration (\"interface %.40s\")",
				 a->interface, a->interface);
	return 0;
}

static int packet_run(struct privd_call *c, struct error *err)
{
	const struct packet_arguments *a = c->arguments;
	/* Of no protocol until it is bound: nothing of other interfaces comes in. */
	_cleanup_close_ int s = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct sockaddr_ll at = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL) };
	struct ifreq q = { 0 };

	snprintf(q.ifr_name, sizeof(q.ifr_name), "%s", a->interface);
	if (s < 0 || ioctl(s, SIOCGIFINDEX, &q) < 0)
		return error_errno(err, -errno, "cannot open the interface \"%.40s\"",
				   a->interface);
	at.sll_ifindex = q.ifr_ifindex;
	if (bind(s, (struct sockaddr *)&at, sizeof(at)) < 0)
		return error_errno(err, -errno, "cannot open the interface \"%.40s\"",
				   a->interface);
	c->answer_fds[c->answer_fd_count++] = steal_fd(&s);
	return 0;
}

/* ---- */

static const int calls[] = {
	SCMP_SYS(openat), SCMP_SYS(bind),       SCMP_SYS(listen),     SCMP_SYS(getsockname),
	SCMP_SYS(fstat),  SCMP_SYS(newfstatat), SCMP_SYS(getpid),     SCMP_SYS(sendto),
	SCMP_SYS(lseek),  SCMP_SYS(setsockopt), SCMP_SYS(getsockopt), SCMP_SYS(uname),
	SCMP_SYS(ppoll),  SCMP_SYS(pselect6),   SCMP_SYS(getdents64), SCMP_SYS(recvfrom),
};

static const struct sandbox_rule rules[] = {
	{ SCMP_SYS(socket), 0, UINT64_MAX, AF_INET },
	{ SCMP_SYS(socket), 0, UINT64_MAX, AF_INET6 },
	{ SCMP_SYS(socket), 0, UINT64_MAX, AF_PACKET },
	{ SCMP_SYS(socket), 0, UINT64_MAX, AF_NETLINK },
	{ SCMP_SYS(ioctl), 1, UINT32_MAX, TUNSETIFF },
	{ SCMP_SYS(ioctl), 1, UINT32_MAX, SIOCGIFINDEX },
	{ SCMP_SYS(ioctl), 1, UINT32_MAX, SIOCSIFHWADDR },
	{ SCMP_SYS(ioctl), 1, UINT32_MAX, SIOCSIFMTU },
	{ SCMP_SYS(ioctl), 1, UINT32_MAX, SIOCSIFADDR },
	{ SCMP_SYS(ioctl), 1, UINT32_MAX, SIOCSIFNETMASK },
	{ SCMP_SYS(ioctl), 1, UINT32_MAX, SIOCSIFFLAGS },
	{ SCMP_SYS(ioctl), 1, UINT32_MAX, SIOCBRADDIF },
};

static const struct privd_operation operations[] = {
	{ "net-tap", sizeof(struct tap_arguments), 0, 0, tap_decode, tap_run },
	{ "net-packet", sizeof(struct packet_arguments), 0, 0, packet_decode, packet_run },
	{ "net-nat", NET_NAT_SIZE, 0, 0, net_nat_decode, net_nat_run },
	{ "net-nat-remove", NET_NAT_SIZE, 0, 0, net_nat_remove_decode, net_nat_remove_run },
	{ "net-nat-list", 0, 0, 0, NULL, net_nat_list_run },
};

const struct privd_group privd_net = {
	operations,
	ARRAY_SIZE(operations),
	{ calls, ARRAY_SIZE(calls), rules, ARRAY_SIZE(rules) },
	BIT(CAP_NET_ADMIN) | BIT(CAP_NET_RAW) | BIT(CAP_NET_BIND_SERVICE),
	net_nat_begin,
};
