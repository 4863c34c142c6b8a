/* SPDX-License-Identifier: MIT */
/*
 * For tests of the switch: one with something plugged into each port, by the test's own clock. Its
 * watcher counts.
 */
#pragma once

#include "net/switch.h"
#include "net/testing.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define BED_PORTS 16u
#define SECOND    UINT64_C(1000000000)

struct bed {
	struct net_switch *s;
	struct net_switch_port *ports[BED_PORTS];
	struct net_fake links[BED_PORTS];
	unsigned count;
	uint64_t now;
	unsigned watched, dropped, ended;
	uint8_t seen[NET_WATCH_MAX];
	size_t seen_size;
};

static inline void on_frame(void *context, struct net_switch_port *p, bool from, uint16_t vlan,
			    const uint8_t *bytes, size_t size)
{
	struct bed *b = context;

	(void)p;
	(void)from;
	(void)vlan;
	b->watched++;
	memcpy(b->seen, bytes, size);
	b->seen_size = size;
}

static inline void on_dropped(void *context, struct net_switch_port *p, enum net_drop why)
{
	(void)p;
	(void)why;
	((struct bed *)context)->dropped++;
}

static inline void bed_make(struct bed *b, enum net_sharing sharing)
{
	const struct net_switch_options o = {
		.sharing = sharing,
		.watcher = { .frame = on_frame, .dropped = on_dropped, .context = b },
	};
	struct error err = { 0 };

	memset(b, 0, sizeof(*b));
	b->now = 1000 * SECOND;
	assert_int_equal(net_switch_new(&o, &b->s, &err), 0);
}

static inline void bed_drop(struct bed *b)
{
	net_switch_free(b->s);
	for (unsigned i = 0; i < b->count; i++) {
		assert_int_equal(b->links[i].freed, 1);
		net_fake_deinit(&b->links[i]);
	}
}

static inline net_mac mac_of(unsigned i)
{
	return (net_mac){ { 0x00, 0x15, 0x5d, 0, 0, (uint8_t)(i + 1) } };
}

static inline struct net_settings guest(unsigned i)
{
	struct net_settings s = net_settings_default;

	s.mac = mac_of(i);
	return s;
}

static inline unsigned bed_add(struct bed *b, const struct net_settings *settings, unsigned takes)
{
	struct error err = { 0 };
	unsigned i = b->count++;
	char id[16];

	snprintf(id, sizeof(id), "p%u", i);
	net_fake_init(&b->links[i], takes);
	if (net_switch_add(b->s, id, settings, &b->ports[i], &err) < 0)
		fail_msg("%s", err.message);
	net_switch_plug_uplink(b->ports[i], &b->links[i].uplink);
	return i;
}

static inline void bed_set(struct bed *b, unsigned i, const struct net_settings *settings)
{
	struct error err = { 0 };

	if (net_switch_set(b->ports[i], settings, &err) < 0)
		fail_msg("%s", err.message);
}

/* Until it comes to rest; when it wants to run again. */
static inline uint64_t bed_run(struct bed *b)
{
	uint64_t deadline;

	for (unsigned i = 0; i < b->count; i++)
		net_switch_wake(b->ports[i]);
	for (unsigned i = 0; i < 10000; i++)
		if (!net_switch_run(b->s, b->now, &deadline))
			return deadline;
	fail_msg("the switch does not come to rest");
	return 0;
}

static inline uint64_t drops(const struct bed *b, unsigned i, enum net_drop why)
{
	return net_switch_port_counters(b->ports[i])->dropped[why];
}
