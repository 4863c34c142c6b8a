/* SPDX-License-Identifier: MIT */
/* What the verbs of `partita vm` share. */
#pragma once

#include "cli/command.h"

/* Calls `each` with the id and name of every machine that the words name, wildcards included. What
 * failed is printed; the first failure's exit status. */
int vm_each_named(struct command *c,
		  int (*each)(struct command *c, const char *id, const char *name));
/* GET /vms/NAME. */
int vm_get(struct command *c, const char *name, struct client_answer *ret);
/* PATCH, with --force if the verb has that and it was given; follows the job if it becomes one. */
int vm_patch(struct command *c, const char *id, json_t *patch, const char *etag, json_t **ret);
/* Begins an action and follows its job. */
int vm_do(struct command *c, const char *id, const char *name, const char *action);
/* Prints the settings that are not their defaults, or all. */
void settings_print(const struct schema_object *schema, const json_t *settings, bool all);

int vm_run_create(struct command *c);
int vm_run_set(struct command *c);
int vm_run_console(struct command *c);
int vm_run_guest(struct command *c);
int vm_run_socket(struct command *c);
int vm_run_insert(struct command *c);
int vm_run_eject(struct command *c);

/*
 * Places drives ({path, location?, controller?}) among a machine's controllers, which are changed;
 * a location that is taken is an error with words.
 */
int drives_place(json_t *controllers, json_t *drives, struct error *err) _must_check_;
int drive_remove(json_t *controllers, const char *place, struct error *err) _must_check_;
/* Those of the same name are changed: what is not said of them stays. */
int adapters_place(json_t *adapters, json_t *added, struct error *err) _must_check_;
int adapter_remove(json_t *adapters, const char *name, struct error *err) _must_check_;
