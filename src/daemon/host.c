// SPDX-License-Identifier: MIT
/*
 * See host.h. Facts come from /proc and are read when asked for; engines are probed when asked for,
 * but not more than once in a while. Also what the service does now and then: it forgets old
 * events, jobs and keys.
 */
#include "daemon/vm_internal.h"

#include "daemon/key.h"
#include "daemon/settings_change.h"
#include "engine/engine.h"
#include "lib/cleanup.h"
#include "lib/log.h"
#include "schema/json.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>

#define NS_PER_S      UINT64_C(1000000000)
#define EXPIRE_S      300
#define ENGINES_S     30
#define WORKER_MIB    32 /* of a worker beside its guest's memory */
#define HOST_TEXT_MAX MIB

struct host {
	struct daemon *daemon;
	struct loop_timer timer;
	struct clock_watch clock;
	json_t *engines;
	uint64_t engines_ns; /* when they were probed */
	unsigned cpus;
	char model[128];
};

const char *const host_capabilities[] = {
	"machines",
	"jobs",
	"events",
	"roles",
	"generation-2",
	"direct-boot",
	"scsi",
	"pause",
	"reset",
	"console",
	"processor-limits",
	"disk-online-resize",
	"disk-online-merge",
	"dynamic-memory",
	NULL,
};

/* --- memory --- */

static int read_number(const char *path, const char *key, uint64_t *ret)
{
	_cleanup_fclose_ FILE *f = fopen(path, "re");
	char line[128];
	size_t n = strlen(key);

	if (!f)
		return -errno;
	while (fgets(line, sizeof(line), f))
		if (!strncmp(line, key, n) && sscanf(line + n, "%" SCNu64, ret) == 1)
			return 0;
	return -ENODATA;
}

/* A limit on the group that we are in; "max" is none. */
static void limit_by_cgroup(struct host_memory *m)
{
	uint64_t limit, used;

	if (read_number("/sys/fs/cgroup/memory.max", "", &limit) < 0 ||
	    read_number("/sys/fs/cgroup/memory.current", "", &used) < 0)
		return;
	m->total = MIN(m->total, limit / MIB);
	m->available = MIN(m->available, limit > used ? (limit - used) / MIB : 0);
}

int host_memory_read(struct host_memory *ret)
{
	uint64_t total, available;
	int r = read_number("/proc/meminfo", "MemTotal:", &total);

	if (r == 0)
		r = read_number("/proc/meminfo", "MemAvailable:", &available);
	if (r < 0)
		return r;
	ret->total = total / KIB;
	ret->available = available / KIB;
	limit_by_cgroup(ret);
	return 0;
}

uint64_t host_memory_total(void)
{
	struct host_memory m;

	return host_memory_read(&m) < 0 ? UINT32_MAX : m.total;
}

/* --- admission --- */

void host_admission(const struct daemon *d, const struct vm *vm, struct admission *ret)
{
	const struct vm_settings *s = &vm->settings;

	*ret = (struct admission){
		.reserve = d->host.memory_reserve,
		.need = s->memory.startup + WORKER_MIB,
		.cpus = d->host_state->cpus,
		.cpu_need = s->processors.reserve * s->processors.count,
	};
	/* Without figures nothing is refused: the kernel decides. */
	if (host_memory_read(&ret->host) < 0)
		ret->host = (struct host_memory){ UINT32_MAX, UINT32_MAX };
	list_foreach(it, (struct list *)&d->vms)
	{
		const struct vm *other = list_entry(it, struct vm, node);
		struct worker_usage u = { 0 };
		uint64_t all = vm_memory_assigned(other) + WORKER_MIB;

		if (!other->worker)
			continue;
		if (worker_usage_get(other->worker, &u) < 0)
			u.memory = 0;
		ret->spare += vm_memory_spare(other);
		ret->running++;
		ret->assigned += all;
		ret->untouched += all - MIN(u.memory / MIB, all);
		ret->cpu_reserved +=
			other->settings.processors.reserve * other->settings.processors.count;
	}
}

int admission_check(const struct admission *a, struct error *err)
{
	uint64_t taken = a->untouched + a->reserve;
	uint64_t have = a->host.available + a->spare;
	uint64_t room = have > taken ? have - taken : 0;

	if (a->need > room) {
		error_set(err, -ENOMEM,
			  "memory.startup: the machine needs %" PRIu64 " MiB and there are %" PRIu64
			  ": the host has %" PRIu64 " MiB, of which %" PRIu64
			  " are available; %u running machines (%" PRIu64
			  " MiB) may still take %" PRIu64 " and can give %" PRIu64 ", and %" PRIu64
			  " are reserved for the host; stop a machine, or give this one less",
			  a->need, room, a->host.total, a->host.available, a->running, a->assigned,
			  a->untouched, a->spare, a->reserve);
		if (err)
			snprintf(err->property, sizeof(err->property), "memory.startup");
		return -ENOMEM;
	}
	if (a->cpu_need && a->cpu_reserved + a->cpu_need > UINT64_C(100) * a->cpus) {
		error_set(err, -EBUSY,
			  "processors.reserve: the machine reserves %" PRIu64
			  " %% of a processor, running machines reserve %" PRIu64
			  " %%, and the host's %u processors have %u %%; reserve less",
			  a->cpu_need, a->cpu_reserved, a->cpus, 100 * a->cpus);
		if (err)
			snprintf(err->property, sizeof(err->property), "processors.reserve");
		return -EBUSY;
	}
	return 0;
}

/* --- facts --- */

char *host_boot_id(void)
{
	_cleanup_fclose_ FILE *f = fopen("/proc/sys/kernel/random/boot_id", "re");
	char line[64];

	if (!f || !fgets(line, sizeof(line), f))
		return NULL;
	line[strcspn(line, "\n")] = '\0';
	return strdup(line);
}

static void read_model(char *ret, size_t size)
{
	_cleanup_fclose_ FILE *f = fopen("/proc/cpuinfo", "re");
	char line[256];

	while (f && fgets(line, sizeof(line), f)) {
		const char *colon = strchr(line, ':');

		if (strncmp(line, "model name", 10) || !colon)
			continue;
		line[strcspn(line, "\n")] = '\0';
		snprintf(ret, size, "%s", colon[1] ? colon + 2 : "");
		return;
	}
}

static json_t *probe_engines(void)
{
	json_t *list = json_array();

	for (size_t i = 0; engines[i]; i++) {
		struct error err = { 0 };
		uint32_t caps;
		bool ok = engines[i]->probe(&caps, &err) == 0;

		json_array_append_new(list,
				      json_pack("{s:s,s:s,s:b,s:s*}", "name", engines[i]->name,
						"summary", engines[i]->summary, "usable", ok,
						"reason", ok ? NULL : err.message));
	}
	return list;
}

static json_t *engines_json(struct daemon *d)
{
	struct host *h = d->host_state;
	uint64_t now = loop_now(d->loop);

	if (!h->engines || now - h->engines_ns > ENGINES_S * NS_PER_S) {
		json_decref(h->engines);
		h->engines = probe_engines();
		h->engines_ns = now;
	}
	return json_incref(h->engines);
}

/* What to do where no engine can be used; NULL where one can. */
static const char *lab_hint(const json_t *list)
{
	size_t i;
	json_t *engine;

	json_array_foreach((json_t *)list, i,
			   engine) if (json_is_true(json_object_get(engine, "usable"))) return NULL;
	return "machines cannot run on this host; lab/lab runs a command in an emulated host where "
	       "they can";
}

static json_t *memory_json(struct daemon *d)
{
	struct host_memory m = { 0 };
	uint64_t assigned = 0;

	list_foreach(it, &d->vms) if (list_entry(it, struct vm, node)->worker) assigned +=
		vm_memory_assigned(list_entry(it, struct vm, node));
	host_memory_read(&m);
	return json_pack("{s:I,s:I,s:I,s:I}", "total_mib", (json_int_t)m.total, "available_mib",
			 (json_int_t)m.available, "reserve_mib", (json_int_t)d->host.memory_reserve,
			 "assigned_mib", (json_int_t)assigned);
}

static json_t *counts_json(struct daemon *d)
{
	unsigned counts[VM_STATE_COUNT] = { 0 }, broken = 0;
	json_t *json = json_object();

	list_foreach(it, &d->vms)
	{
		const struct vm *vm = list_entry(it, struct vm, node);

		counts[vm->state]++;
		broken += vm->broken.code != 0;
	}
	json_object_set_new(json, "all", json_integer(d->vm_count));
	json_object_set_new(json, "broken", json_integer(broken));
	for (enum vm_state s = 0; s < VM_STATE_COUNT; s++)
		json_object_set_new(json, vm_state_name(s), json_integer(counts[s]));
	return json;
}

static json_t *capabilities_json(void)
{
	json_t *list = json_array();

	for (size_t i = 0; host_capabilities[i]; i++)
		json_array_append_new(list, json_string(host_capabilities[i]));
	return list;
}

static void add_facts(struct daemon *d, json_t *json)
{
	json_t *list = engines_json(d);
	const char *hint = lab_hint(list), *notes = supervisor_notes(d->supervisor);
	struct utsname u = { 0 };

	uname(&u);
	json_object_set_new(json, "name", json_string(u.nodename));
	json_object_set_new(json, "version", json_string(PARTITA_VERSION));
	json_object_set_new(json, "kernel", json_string(u.release));
	json_object_set_new(json, "begun", json_time(d->begun));
	json_object_set_new(json, "processors",
			    json_pack("{s:i,s:s}", "count", (int)d->host_state->cpus, "model",
				      d->host_state->model));
	json_object_set_new(json, "engines", list);
	json_object_set_new(json, "hint", hint ? json_string(hint) : json_null());
	json_object_set_new(json, "isolation", notes ? json_string(notes) : json_null());
}

int host_json(struct daemon *d, const struct caller *c, json_t **ret, struct error *err)
{
	const struct target t = { 0 };
	json_t *json;
	int r = authz_check(d->authz, c, OP_VIEW_HOST, &t, err);

	if (r < 0)
		return r;
	json = json_object();
	if (!json)
		return error_set(err, -ENOMEM, "not enough memory");
	add_facts(d, json);
	json_object_set_new(json, "user", json_boolean(d->user));
	json_object_set_new(json, "memory", memory_json(d));
	json_object_set_new(json, "machines", counts_json(d));
	json_object_set_new(json, "capabilities", capabilities_json());
	json_object_set_new(json, "state_folder", json_string(d->state_folder));
	json_object_set_new(json, "run_folder", json_string(d->run_folder));
	json_object_set_new(json, "revision", json_integer((json_int_t)d->host_revision));
	json_object_set_new(json, "settings", schema_encode(&host_settings_schema, &d->host));
	*ret = json;
	return 0;
}

/* --- settings --- */

static int host_check(const struct host_settings *s, struct error *err)
{
	const struct {
		const char *property, *path;
	} paths[] = {
		{ "machine_folder", s->machine_folder },
		{ "disk_folder", s->disk_folder },
		{ "image_folder", s->image_folder },
		{ "remote.client_ca", s->remote.client_ca },
	};

	for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
		if (!paths[i].path ||
		    (path_plain(paths[i].path) && *paths[i].path == '/' && paths[i].path[1]))
			continue;
		error_set(err, -EINVAL, "%s: must be an absolute path, without . and ..",
			  paths[i].property);
		if (err)
			snprintf(err->property, sizeof(err->property), "%s", paths[i].property);
		return -EINVAL;
	}
	return 0;
}

static int note_difference(void *context, const struct settings_difference *d)
{
	json_object_set_new(context, d->path,
			    json_pack("[O?,O?]", (json_t *)d->old, (json_t *)d->new));
	return 0;
}

static int host_store(struct daemon *d, const struct caller *c, const struct host_settings *s,
		      json_t *changes, struct error *err)
{
	_cleanup_free_ char *text = host_settings_format(s);
	int r;

	if (!text)
		return error_errno(err, -errno, "cannot write the settings");
	r = database_begin(d->db, err);
	if (r < 0)
		return r;
	r = database_run(d->db, err,
			 "INSERT INTO host (id, settings, revision) VALUES (1, ?, ?) "
			 "ON CONFLICT (id) DO UPDATE SET settings = excluded.settings, "
			 "revision = excluded.revision",
			 "si", text, (int64_t)(d->host_revision + 1));
	if (r < 0) {
		database_rollback(d->db);
		return r;
	}
	event_add(d->events, SEVERITY_AUDIT, "host-changed", NULL, c,
		  json_pack("{s:O}", "changes", changes), "changed settings of the host");
	return database_commit(d->db, err);
}

static int host_decide(struct daemon *d, json_t *patch, struct host_settings *ret, json_t *changes,
		       struct error *err)
{
	_cleanup_json_ json_t *old = schema_encode(&host_settings_schema, &d->host);
	_cleanup_json_ json_t *merged = old ? merge_patch(old, patch) : NULL;
	_cleanup_json_ json_t *new = NULL;
	int r;

	if (!merged)
		return error_set(err, -ENOMEM, "not enough memory");
	r = schema_decode(&host_settings_schema, merged, ret, err);
	if (r == 0)
		r = host_check(ret, err);
	if (r < 0)
		return r;
	new = schema_encode(&host_settings_schema, ret);
	if (!new)
		return error_set(err, -ENOMEM, "not enough memory");
	return settings_compare(&host_settings_schema, old, new, note_difference, changes);
}

int host_change(struct daemon *d, const struct caller *c, json_t *patch, uint64_t revision,
		struct error *err)
{
	_cleanup_(host_settings_deinit) struct host_settings s = { 0 };
	_cleanup_json_ json_t *changes = json_object();
	const struct target t = { 0 };
	int r = authz_check(d->authz, c, OP_CHANGE_HOST, &t, err);

	if (r < 0)
		return r;
	if (!json_is_object(patch))
		return error_set(err, -EINVAL, "a change is an object with the settings to change");
	if (revision && revision != d->host_revision)
		return error_set(err, -ESTALE,
				 "it was changed meanwhile: it is at revision %" PRIu64
				 ", not %" PRIu64 "; read it again, then change that",
				 d->host_revision, revision);
	r = host_decide(d, patch, &s, changes, err);
	if (r < 0 || !json_object_size(changes))
		return r;
	r = host_store(d, c, &s, changes, err);
	if (r < 0)
		return r;
	host_settings_deinit(&d->host);
	d->host = s;
	memset(&s, 0, sizeof(s));
	d->host_revision++;
	return 0;
}

struct stored {
	char *text;
	int64_t revision;
};

static int on_stored(void *context, const struct database_row *row)
{
	struct stored *s = context;
	const char *text = row_text(row, 0);

	s->text = text ? strdup(text) : NULL;
	s->revision = row_integer(row, 1);
	return 0;
}

static int host_load(struct daemon *d, struct error *err)
{
	struct stored s = { 0 };
	int r = database_query(d->db, err, on_stored, &s,
			       "SELECT settings, revision FROM host WHERE id = 1", "");

	if (r < 0)
		return r;
	d->host_revision = s.revision > 0 ? (uint64_t)s.revision : 1;
	r = s.text ? host_settings_parse(s.text, strlen(s.text), &d->host, err)
		   : host_settings_init(&d->host);
	free(s.text);
	return r < 0 ? error_set(err, r, "cannot read the host's settings") : 0;
}

/* --- now and then --- */

static void on_expire(struct loop_timer *t)
{
	struct host *h = container_of(t, struct host, timer);
	struct daemon *d = h->daemon;
	/* While the clock is not to be trusted nothing is too old, only too much. */
	bool steady = clock_steady(&h->clock);
	int64_t now = steady ? time_ms() : 0;

	events_expire(d->events, now, d->host.events_days, d->host.events_count);
	jobs_expire(d->jobs, now);
	if (steady)
		keys_expire(d->db);
	loop_timer_arm(t, loop_now(d->loop) + EXPIRE_S * NS_PER_S);
}

int host_new(struct daemon *d, struct error *err)
{
	struct host *h = calloc(1, sizeof(*h));
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);

	if (!h)
		return error_set(err, -ENOMEM, "not enough memory");
	d->host_state = h;
	h->daemon = d;
	h->cpus = cpus > 0 ? (unsigned)cpus : 1;
	read_model(h->model, sizeof(h->model));
	clock_watch_init(&h->clock);
	loop_timer_init(d->loop, &h->timer, on_expire);
	loop_timer_arm(&h->timer, loop_now(d->loop) + EXPIRE_S * NS_PER_S);
	return host_load(d, err);
}

void host_free(struct daemon *d)
{
	if (!d->host_state)
		return;
	loop_timer_disarm(&d->host_state->timer);
	json_decref(d->host_state->engines);
	host_settings_deinit(&d->host);
	free(steal_ptr(d->host_state));
}
