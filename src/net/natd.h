/* SPDX-License-Identifier: MIT */
/* partita-natd but its process: from its description to a running network, and its commands. */
#pragma once

#include "control/command.h"
#include "net/nat.h"
#include "net/nat_description.h"

/*
 * The settings that are described. The description stays the caller's, and valid while they are in
 * use; descriptors in it are the settings'.
 */
int natd_settings(const struct nat_description *d, struct nat_settings *ret,
		  struct error *err) _must_check_;
/* Plugs it into the port whose descriptors the description has; nothing if it has none. */
int natd_attach(const struct nat_description *d, struct nat *n, struct error *err) _must_check_;
/* query, names, resolvers, forward-add, forward-remove, attach. `context`: struct nat. */
extern const struct command_type natd_commands[];
