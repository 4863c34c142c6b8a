/* SPDX-License-Identifier: MIT */
/* A port's settings from their description (switch.schema.json) to what the switch works with. */
#pragma once

#include "net/switch.h"

struct switch_port;

/* `ret->rules` is malloc'ed, or NULL. The words name the setting. */
int settings_read(const struct switch_port *d, struct net_settings *ret,
		  struct error *err) _must_check_;
/* "001122334455", "00-11-22-33-44-55" or "00:11:22:33:44:55". */
int mac_read(const char *text, net_mac *ret) _must_check_;
#define MAC_TEXT 13
void mac_write(const net_mac *mac, char ret[MAC_TEXT]);
