/* SPDX-License-Identifier: MIT */
/* What the schema cannot say of a machine's settings. Pure. */
#pragma once

#include "daemon/vm_settings.h"
#include "lib/error.h"
#include "lib/types.h"

/* -EINVAL with words and the property: settings that contradict each other, or make no sense. */
int vm_check(const struct vm_settings *s, struct error *err) _must_check_;
/* -EOPNOTSUPP: what is sensible, and kept, but cannot be had of this version. */
int vm_check_start(const struct vm_settings *s, struct error *err) _must_check_;
/*
 * Calls `each` with every file that the settings name, until it returns other than 0, which is
 * then the result.
 */
int vm_check_paths(const struct vm_settings *s,
		   int (*each)(void *context, const char *property, const char *path),
		   void *context);

/* 12 lower-case digits of an address in any of the usual ways to write it; -EINVAL. */
#define MAC_TEXT_SIZE 13
int mac_parse(const char *text, char ret[static MAC_TEXT_SIZE]);
/* UTF-8 without control characters, and what turns the direction of writing. */
bool text_printable(const char *text);
