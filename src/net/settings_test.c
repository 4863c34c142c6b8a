// SPDX-License-Identifier: MIT
/* A port's description becomes settings, or is refused with words that name what is wrong. */
#include "net/settings.h"

#include "net/switch_description.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static int read_port(const char *members, struct net_settings *ret, struct error *err)
{
	struct switch_description d;
	char text[4000];
	int r;

	snprintf(text, sizeof(text), "{\"name\":\"s\",\"ports\":[{\"id\":\"p\"%s}],\"control\":{}}",
		 members);
	r = switch_description_parse(text, strlen(text), &d, err);
	if (r < 0)
		return r;
	r = settings_read(&d.ports[0], ret, err);
	switch_description_deinit(&d);
	return r;
}

static void test_hardware_addresses(void **state)
{
	static const char *const good[] = { "00155D0a0B0c", "00:15:5d:0a:0b:0c",
					    "00-15-5D-0A-0B-0C" };
	static const char *const bad[] = { "",
					   "00155d0a0b0",
					   "00155d0a0b0c0",
					   "00155d0a0b0g",
					   "00:15:5d:0a:0b-0c",
					   "00.15.5d.0a.0b.0c",
					   "00:15:5d:0a:0b:0",
					   "0:155:5d:0a:0b:0c" };
	char text[MAC_TEXT];
	net_mac m;

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(good); i++) {
		assert_int_equal(mac_read(good[i], &m), 0);
		mac_write(&m, text);
		assert_string_equal(text, "00155d0a0b0c");
	}
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		assert_true(mac_read(bad[i], &m) < 0);
}

static void test_all_settings_arrive(void **state)
{
	struct net_settings s;
	struct error err = { 0 };

	(void)state;
	if (read_port(",\"mac\":\"00155d000001\",\"mac_spoofing\":true,\"mac_limit\":5,"
		      "\"waits\":false,\"dhcp_guard\":true,\"router_guard\":true,"
		      "\"vlan\":{\"mode\":\"trunk\",\"id\":7,\"list\":\"1-3,100,4094\"},"
		      "\"mirror\":\"source\",\"storm_limit\":9,\"maximum_bandwidth\":1000,"
		      "\"minimum_bandwidth_weight\":50,\"minimum_bandwidth\":2000,"
		      "\"rules\":[{\"id\":\"r\",\"action\":\"allow\",\"direction\":\"outbound\","
		      "\"stateful\":true,\"timeout\":5,\"weight\":3,\"protocol\":\"tcp\","
		      "\"local_mac\":\"00155d000002\",\"remote_address\":\"fe80::/10\","
		      "\"remote_ports\":\"80-90\"}]",
		      &s, &err) < 0)
		fail_msg("%s", err.message);
	assert_true(s.spoofing && s.drops && s.dhcp_guard && s.router_guard);
	assert_int_equal(s.mac.bytes[5], 1);
	assert_int_equal(s.mac_limit, 5);
	assert_int_equal(s.vlan.mode, NET_VLAN_TRUNK);
	assert_int_equal(s.vlan.id, 7);
	assert_int_equal(s.vlan.set[0], 0xe);
	assert_true(s.vlan.set[1] == UINT64_C(1) << 36 && s.vlan.set[63] == UINT64_C(1) << 62);
	assert_int_equal(s.mirror, NET_MIRROR_SOURCE);
	assert_int_equal(s.storm_limit, 9);
	assert_int_equal(s.maximum_bandwidth, 1000);
	assert_int_equal(s.minimum_weight, 50);
	assert_int_equal(s.minimum_bandwidth, 2000);
	assert_int_equal(s.rule_count, 1);
	assert_string_equal(s.rules[0].id, "r");
	assert_true(s.rules[0].stateful && s.rules[0].local.has_mac);
	assert_int_equal(s.rules[0].protocol, 6);
	assert_int_equal(s.rules[0].remote.version, 6);
	assert_int_equal(s.rules[0].remote.prefix, 10);
	assert_int_equal(s.rules[0].remote.port_first, 80);
	assert_int_equal(s.rules[0].remote.port_last, 90);
	assert_int_equal(s.rules[0].local.port_last, 65535);
	free((void *)s.rules);
}

#define RULE(more) ",\"rules\":[{\"action\":\"deny\",\"direction\":\"inbound\"," more "}]"

static void test_what_is_refused_is_named(void **state)
{
	static const struct {
		const char *members, *words;
	} bad[] = {
		{ ",\"mac\":\"00155d00000x\"", "mac" },
		{ ",\"vlan\":{\"list\":\"5-3\"}", "vlan.list" },
		{ ",\"vlan\":{\"list\":\"1,\"}", "vlan.list" },
		{ ",\"vlan\":{\"list\":\"0\"}", "vlan.list" },
		{ ",\"vlan\":{\"list\":\"1 2\"}", "vlan.list" },
		{ ",\"vlan\":{\"list\":\"1-4095\"}", "vlan.list" },
		{ ",\"vlan\":{\"list\":\"99999999999999999999\"}", "vlan.list" },
		{ ",\"vlan\":{\"mode\":\"open\"}", "mode" },
		{ RULE("\"remote_address\":\"10.0.0\""), "10.0.0" },
		{ RULE("\"remote_address\":\"10.0.0.0/33\""), "10.0.0.0/33" },
		{ RULE("\"remote_address\":\"10.0.0.0/\""), "10.0.0.0/" },
		{ RULE("\"remote_address\":\"::1/129\""), "::1/129" },
		{ RULE("\"local_ports\":\"80-\""), "80-" },
		{ RULE("\"local_ports\":\"70000\""), "70000" },
		{ RULE("\"protocol\":\"ipx\""), "ipx" },
		{ RULE("\"protocol\":\"256\""), "256" },
		{ RULE("\"local_mac\":\"00155d00000x\""), "00155d00000x" },
	};

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		struct net_settings s;
		struct error err = { 0 };

		assert_true(read_port(bad[i].members, &s, &err) < 0);
		if (!strstr(err.message, bad[i].words))
			fail_msg("\"%s\" does not name %s", err.message, bad[i].words);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hardware_addresses),
		cmocka_unit_test(test_all_settings_arrive),
		cmocka_unit_test(test_what_is_refused_is_named),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
