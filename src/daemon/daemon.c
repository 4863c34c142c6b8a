// SPDX-License-Identifier: MIT
/*
 * The whole of the service: what there is, in the order in which it needs each other, and how it
 * ends the other way round. Loop's thread.
 */
#include "daemon/vm_internal.h"

#include "daemon/network.h"
#include "daemon/vm_file.h"
#include "lib/cleanup.h"
#include "lib/folder.h"
#include "lib/log.h"
#include "privd/spawn.h"

#include <errno.h>
#include <string.h>

static void on_refusal(void *context, const struct caller *c, enum operation op,
		       const struct target *t)
{
	struct daemon *d = context;

	/* Also when it ends a transaction: that somebody tried stays true. */
	event_add_apart(
		d->events, SEVERITY_AUDIT, "refused", t->vm, c,
		json_pack("{s:s,s:s*}", "operation", operation_name(op), "name", t->vm_name),
		"%s was refused to %s%s%s%s", operation_name(op), c->name,
		t->vm_name ? " for \"" : "", t->vm_name ? t->vm_name : "", t->vm_name ? "\"" : "");
}

static int open_books(struct daemon *d, struct error *err)
{
	int r = database_open(d->state_folder, &d->db, err);

	if (r == 0)
		r = authz_new(d->db, &d->authz, err);
	if (r == 0)
		r = events_new(d->db, d->loop, &d->events, err);
	if (r == 0)
		r = jobs_new(d->db, NULL, NULL, &d->jobs, err);
	if (r == 0)
		authz_on_refusal(d->authz, on_refusal, d);
	return r;
}

static int open_supervisor(struct daemon *d, const struct daemon_options *o, struct error *err)
{
	const struct supervisor_options s = {
		.run_folder = d->run_folder,
		.worker = o->worker,
		.keeper = o->keeper,
		.first_uid = o->user ? 0 : WORKER_UID_FIRST,
		.uid_count = o->user ? 0 : WORKER_UID_COUNT,
		.cgroup = o->cgroup,
		.privd = o->privd,
	};

	return supervisor_new(d->loop, &s, &d->supervisor, err);
}

static int look_at_boot(struct daemon *d, struct error *err)
{
	_cleanup_free_ char *now = host_boot_id(), *last = NULL;
	int r = registry_value_get(d->db, "boot", &last, err);

	if (r == 0)
		d->index->new_boot = now && (!last || strcmp(now, last));
	return r;
}

static int copy_options(struct daemon *d, const struct daemon_options *o, struct error *err)
{
	int r;

	d->user = o->user;
	d->networks_wanted = o->switchd && o->natd;
	d->begun = time_ms();
	d->state_folder = strdup(o->state_folder);
	d->run_folder = strdup(o->run_folder);
	d->privd = o->privd ? strdup(o->privd) : NULL;
	if (!d->state_folder || !d->run_folder || (o->privd && !d->privd))
		return error_set(err, -ENOMEM, "not enough memory");
	r = folder_make_all(d->state_folder, err);
	return r == 0 ? folder_make_all(d->run_folder, err) : r;
}

static int daemon_open(struct daemon *d, const struct daemon_options *o, struct error *err)
{
	const struct networks_options n = { .run_folder = o->network_folder,
					    .switchd = o->switchd,
					    .natd = o->natd,
					    .keeper = o->keeper };
	int r = copy_options(d, o, err);

	if (r == 0)
		r = open_books(d, err);
	if (r == 0)
		r = host_new(d, err);
	if (r == 0)
		r = index_new(d, err);
	if (r == 0)
		r = look_at_boot(d, err);
	if (r == 0)
		r = meter_begin(d, err);
	if (r == 0)
		memory_begin(d);
	if (r == 0)
		r = open_supervisor(d, o, err);
	if (r == 0)
		r = networks_new(d, &n, &d->networks, err);
	return r == 0 ? vms_load(d, err) : r;
}

int daemon_new(struct loop *loop, const struct daemon_options *o, struct daemon **ret,
	       struct error *err)
{
	struct daemon *d = calloc(1, sizeof(*d));
	int r;

	if (!d)
		return error_set(err, -ENOMEM, "not enough memory");
	d->loop = loop;
	list_init(&d->vms);
	r = daemon_open(d, o, err);
	if (r < 0) {
		daemon_free(d);
		return r;
	}
	event_add(d->events, SEVERITY_INFORMATION, "service-began", NULL, NULL,
		  json_pack("{s:s,s:i}", "version", PARTITA_VERSION, "machines", (int)d->vm_count),
		  "the service began, with %u machines", d->vm_count);
	if (networks_adopt(d->networks, err) < 0)
		log_line("switches: %s", err->message);
	vms_adopt(d);
	starts_begin(d);
	*ret = d;
	return 0;
}

void daemon_free(struct daemon *d)
{
	if (!d)
		return;
	if (d->index) {
		starts_free(d);
		down_free(d);
	}
	meter_end(d);
	memory_end(d);
	index_free(d);
	supervisor_free(d->supervisor);
	networks_free(d->networks);
	host_free(d);
	jobs_free(d->jobs);
	events_free(d->events);
	authz_free(d->authz);
	database_close(d->db);
	free(d->state_folder);
	free(d->run_folder);
	free(d->privd);
	free(d);
}
