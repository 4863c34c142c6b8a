/* SPDX-License-Identifier: MIT */
/*
 * Settings as options of a command line, made from the schema tables. A setting's option is what
 * the schema calls it, else its path: "memory.minimum" is --memory-minimum. Booleans are --x and
 * --no-x; numbers take the units of their field, like 2G where it counts MiB. Arrays have a row
 * each in setting.c: --disk, --dvd, --adapter, --com, whose items are written FIRST[,KEY=VALUE...].
 */
#pragma once

#include "cli/command.h"

#define SETTING_NAME_MAX 64
#define SETTING_NOT      "not so" /* the help of --no-x */

/* Calls `each` with every option; names and texts are valid until it returns. */
void setting_each(const struct schema_object *schema, enum command_settings which,
		  void (*each)(void *context, const struct command_option *o), void *context);
/* -ENOENT: it is no option of a setting. 0: *ret_flag tells whether it takes no argument. */
int setting_find(const struct schema_object *schema, enum command_settings which, const char *name,
		 bool *ret_flag);
/* Puts what the option says into the patch. */
int setting_apply(const struct schema_object *schema, json_t *patch, const char *name,
		  const char *text, struct error *err) _must_check_;
/* The option for the setting "memory.startup" in `name`; "" when there is none. */
void setting_option(const struct schema_object *schema, const char *path,
		    char name[static SETTING_NAME_MAX]);
