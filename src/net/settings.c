// SPDX-License-Identifier: MIT
/* See settings.h. Texts are read whole or refused. */
#include "net/settings.h"

#include "lib/cleanup.h"
#include "net/switch_description.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

int mac_read(const char *text, net_mac *ret)
{
	size_t n = strlen(text);
	char between = n == 17 && (text[2] == ':' || text[2] == '-') ? text[2] : 0;
	net_mac m;

	if (n != (between ? 17 : 12))
		return -EINVAL;
	for (unsigned i = 0; i < 6; i++) {
		int high = digit(*text++), low = high < 0 ? -1 : digit(*text++);

		if (low < 0 || (between && i < 5 && *text++ != between))
			return -EINVAL;
		m.bytes[i] = (uint8_t)(high << 4 | low);
	}
	*ret = m;
	return 0;
}

void mac_write(const net_mac *mac, char ret[MAC_TEXT])
{
	for (unsigned i = 0; i < 6; i++)
		snprintf(ret + 2 * i, 3, "%02x", mac->bytes[i]);
}

/* "5" or "5-9", `most` at most; what is behind it, or NULL. */
static const char *range_read(const char *text, unsigned most, unsigned *ret_first,
			      unsigned *ret_last)
{
	unsigned v[2] = { 0, 0 };

	for (unsigned i = 0; i < 2; i++) {
		if (*text < '0' || *text > '9')
			return NULL;
		for (; *text >= '0' && *text <= '9'; text++) {
			v[i] = v[i] * 10 + (unsigned)(*text - '0');
			if (v[i] > most)
				return NULL;
		}
		if (!i && *text != '-') {
			v[1] = v[0];
			break;
		}
		text += !i;
	}
	*ret_first = v[0];
	*ret_last = v[1];
	return v[0] <= v[1] ? text : NULL;
}

static int vlan_read(const struct switch_vlan *d, struct net_vlan *ret, struct error *err)
{
	static const enum net_vlan_mode modes[] = {
		[SWITCH_VLAN_MODE_ACCESS] = NET_VLAN_ACCESS,
		[SWITCH_VLAN_MODE_TRUNK] = NET_VLAN_TRUNK,
		[SWITCH_VLAN_MODE_ISOLATED] = NET_VLAN_ISOLATED,
		[SWITCH_VLAN_MODE_COMMUNITY] = NET_VLAN_COMMUNITY,
		[SWITCH_VLAN_MODE_PROMISCUOUS] = NET_VLAN_PROMISCUOUS,
	};
	const char *at = d->list ? d->list : "";
	unsigned first, last;

	memset(ret, 0, sizeof(*ret));
	ret->mode = modes[d->mode];
	ret->id = (uint16_t)d->id;
	ret->secondary = (uint16_t)d->secondary;
	while (*at) {
		at = range_read(at, NET_VLANS - 2, &first, &last);
		if (!at || !first || (*at && *at != ',') || (*at == ',' && !at[1]))
			return error_set(err, -EINVAL,
					 "vlan.list: VLANs are 1 to 4094, like \"1-100,200\"");
		for (; first <= last; first++)
			ret->set[first / 64] |= BIT64(first % 64);
		at += *at == ',';
	}
	return 0;
}

static int prefix_read(const char *text, struct net_match *ret)
{
	char address[INET6_ADDRSTRLEN];
	const char *slash = strchrnul(text, '/');
	size_t n = (size_t)(slash - text);
	unsigned bits, last;

	if (n >= sizeof(address))
		return -EINVAL;
	memcpy(address, text, n);
	address[n] = 0;
	ret->version = strchr(address, ':') ? 6 : 4;
	if (inet_pton(ret->version == 4 ? AF_INET : AF_INET6, address, ret->address) != 1)
		return -EINVAL;
	ret->prefix = ret->version == 4 ? 32 : 128;
	if (!*slash)
		return 0;
	slash = range_read(slash + 1, ret->prefix, &bits, &last);
	if (!slash || *slash || bits != last)
		return -EINVAL;
	ret->prefix = (uint8_t)bits;
	return 0;
}

static int match_read(const char *mac, const char *address, const char *ports,
		      struct net_match *ret, struct error *err)
{
	unsigned first = 0, last = 65535;
	const char *end;

	ret->has_mac = mac;
	if (mac && mac_read(mac, &ret->mac) < 0)
		return error_set(err, -EINVAL, "\"%s\" is no hardware address", mac);
	if (address && prefix_read(address, ret) < 0)
		return error_set(err, -EINVAL, "\"%s\" is no address, like 10.0.0.0/8 or fe80::/10",
				 address);
	if (ports) {
		end = range_read(ports, 65535, &first, &last);
		if (!end || *end)
			return error_set(err, -EINVAL, "\"%s\" are no ports, like 80 or 8000-8080",
					 ports);
	}
	ret->port_first = (uint16_t)first;
	ret->port_last = (uint16_t)last;
	return 0;
}

static int protocol_read(const char *text, int16_t *ret, struct error *err)
{
	static const struct {
		const char *name;
		int16_t number;
	} known[] = { { "any", -1 }, { "tcp", 6 }, { "udp", 17 }, { "icmp", 1 }, { "icmp6", 58 } };
	unsigned first, last;
	const char *end;

	*ret = -1;
	if (!text)
		return 0;
	for (unsigned i = 0; i < ARRAY_SIZE(known); i++)
		if (!strcmp(text, known[i].name)) {
			*ret = known[i].number;
			return 0;
		}
	end = range_read(text, 255, &first, &last);
	if (!end || *end || first != last)
		return error_set(err, -EINVAL,
				 "\"%s\" is no protocol: tcp, udp, icmp, icmp6 or a number", text);
	*ret = (int16_t)first;
	return 0;
}

static int rule_read(const struct switch_rule *d, struct net_rule *ret, struct error *err)
{
	static const enum net_action actions[] = {
		[SWITCH_ACTION_ALLOW] = NET_ALLOW,
		[SWITCH_ACTION_DENY] = NET_DENY,
		[SWITCH_ACTION_METER] = NET_METER,
	};
	int r;

	*ret = (struct net_rule){
		.direction = d->direction == SWITCH_DIRECTION_OUTBOUND ? NET_OUTBOUND : NET_INBOUND,
		.action = actions[d->action],
		.stateful = d->stateful,
		.timeout = d->timeout,
		.weight = d->weight,
	};
	if (d->id && strlen(d->id) >= NET_ID_MAX)
		return error_set(err, -EINVAL, "its id has more than %u bytes", NET_ID_MAX - 1);
	snprintf(ret->id, sizeof(ret->id), "%s", d->id ? d->id : "");
	r = protocol_read(d->protocol, &ret->protocol, err);
	if (r >= 0)
		r = match_read(d->local_mac, d->local_address, d->local_ports, &ret->local, err);
	if (r >= 0)
		r = match_read(d->remote_mac, d->remote_address, d->remote_ports, &ret->remote,
			       err);
	return r;
}

static int rules_read(const struct switch_port *d, struct net_settings *ret, struct error *err)
{
	_cleanup_free_ struct net_rule *list = NULL;
	int r;

	if (!d->rules_count)
		return 0;
	list = calloc(d->rules_count, sizeof(*list));
	if (!list)
		return error_set(err, -ENOMEM, "no memory for the rules");
	for (unsigned i = 0; i < d->rules_count; i++) {
		r = rule_read(&d->rules[i], &list[i], err);
		if (r < 0)
			return error_prefix(err, "rules[%u]", i);
	}
	ret->rule_count = d->rules_count;
	ret->rules = steal_ptr(list);
	return 0;
}

int settings_read(const struct switch_port *d, struct net_settings *ret, struct error *err)
{
	static const enum net_mirror mirrors[] = {
		[SWITCH_MIRROR_NONE] = NET_MIRROR_NONE,
		[SWITCH_MIRROR_SOURCE] = NET_MIRROR_SOURCE,
		[SWITCH_MIRROR_DESTINATION] = NET_MIRROR_DESTINATION,
	};
	struct net_settings s = {
		.spoofing = d->mac_spoofing,
		.mac_limit = d->mac_limit,
		.dhcp_guard = d->dhcp_guard,
		.router_guard = d->router_guard,
		.drops = !d->waits,
		.mirror = mirrors[d->mirror],
		.storm_limit = d->storm_limit,
		.maximum_bandwidth = (uint64_t)d->maximum_bandwidth,
		.minimum_weight = d->minimum_bandwidth_weight,
		.minimum_bandwidth = (uint64_t)d->minimum_bandwidth,
	};
	int r;

	if (d->mac && mac_read(d->mac, &s.mac) < 0)
		return error_set(err, -EINVAL, "mac: \"%s\" is no hardware address", d->mac);
	r = vlan_read(&d->vlan, &s.vlan, err);
	if (r >= 0)
		r = rules_read(d, &s, err);
	if (r < 0)
		return r;
	*ret = s;
	return 0;
}
