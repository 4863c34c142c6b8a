/* SPDX-License-Identifier: MIT */
/*
 * The tables of the service's database, all of them; private to database.c. Times are ms since
 * 1970. Ids of machines are GUIDs in lower case. "JSON" is text that jansson wrote.
 *
 * A change of this is a new version: DATABASE_VERSION grows, and database.c gets a step that brings
 * an older file up to it.
 */
#pragma once

/* clang-format off */
#define DATABASE_TABLES \
	/* machines: which folders there are */ \
	"CREATE TABLE vms (" \
	"  id TEXT PRIMARY KEY NOT NULL," /* as in vm.json */ \
	"  folder TEXT NOT NULL UNIQUE," /* absolute */ \
	/* what is under way with the folder: vm_registry.h */ \
	"  phase TEXT NOT NULL CHECK (phase IN ('present', 'making', 'adding', 'renaming'," \
	"    'removing'))," \
	"  running INTEGER NOT NULL DEFAULT 0," /* 1: it was started and not stopped since */ \
	"  started INTEGER NOT NULL DEFAULT 0," /* when */ \
	"  critical TEXT" /* why it is critical */ \
	") STRICT;" \
	"CREATE TABLE state (" /* of the service itself: epoch, boot */ \
	"  name TEXT PRIMARY KEY NOT NULL," \
	"  value TEXT NOT NULL" \
	") STRICT;" \
	\
	/* Idempotency-Key: what a caller's request made, for a day */ \
	"CREATE TABLE keys (" \
	"  caller TEXT NOT NULL," /* a caller's name */ \
	"  key TEXT NOT NULL," /* what the client chose */ \
	"  request TEXT NOT NULL," /* what it was for, like \"POST /vms\": another one is refused */ \
	"  result TEXT NOT NULL," /* id of what was made */ \
	"  time INTEGER NOT NULL," \
	"  PRIMARY KEY (caller, key)" \
	") STRICT;" \
	"CREATE INDEX keys_time ON keys (time);" \
	\
	/* job.c */ \
	"CREATE TABLE jobs (" \
	"  serial INTEGER PRIMARY KEY AUTOINCREMENT," /* order of beginning */ \
	"  id TEXT NOT NULL UNIQUE," /* GUID */ \
	"  type TEXT NOT NULL," /* \"start-vm\" */ \
	"  owner TEXT NOT NULL," /* a caller's name */ \
	"  vm TEXT," /* id; no reference, a job outlives its machine */ \
	"  state TEXT NOT NULL CHECK (state IN ('running', 'completed', 'failed', 'cancelled'))," \
	"  percent INTEGER NOT NULL DEFAULT 0," /* as it was when the job ended */ \
	"  begun INTEGER NOT NULL," \
	"  ended INTEGER NOT NULL DEFAULT 0," /* 0: not yet */ \
	"  code INTEGER NOT NULL DEFAULT 0," /* negative errno when failed or cancelled */ \
	"  message TEXT NOT NULL DEFAULT ''," /* words for it */ \
	"  property TEXT NOT NULL DEFAULT ''" /* the setting at fault */ \
	") STRICT;" \
	\
	/* event.c */ \
	"CREATE TABLE events (" \
	"  id INTEGER PRIMARY KEY AUTOINCREMENT," /* grows by one */ \
	"  time INTEGER NOT NULL," \
	"  severity INTEGER NOT NULL," /* enum severity */ \
	"  kind TEXT NOT NULL," /* \"vm-started\" */ \
	"  vm TEXT," /* id; no reference, an event outlives its machine */ \
	"  actor TEXT," /* a caller's name; NULL: the service */ \
	"  words TEXT NOT NULL," /* a sentence */ \
	"  fields TEXT" /* JSON object or NULL */ \
	") STRICT;" \
	"CREATE INDEX events_vm ON events (vm) WHERE vm IS NOT NULL;" \
	\
	/* authz.c: roles that are not built in */ \
	"CREATE TABLE roles (" \
	"  name TEXT PRIMARY KEY NOT NULL," \
	"  description TEXT NOT NULL," \
	"  operations TEXT NOT NULL," /* JSON array of names, for all in the scope */ \
	"  own_operations TEXT NOT NULL" /* the same, for machines that one created */ \
	") STRICT;" \
	"CREATE TABLE assignments (" \
	"  id INTEGER PRIMARY KEY AUTOINCREMENT," /* never used again */ \
	"  kind TEXT NOT NULL CHECK (kind IN ('user', 'group'))," \
	"  name TEXT NOT NULL," /* of the user or group */ \
	"  role TEXT NOT NULL," /* in roles, or built in */ \
	"  scope TEXT NOT NULL," /* \"host\", \"group:lab/web\", \"vm:ID\" */ \
	"  UNIQUE (kind, name, role, scope)" \
	") STRICT;" \
	\
	/* metering.c: what a machine used since `since` */ \
	"CREATE TABLE metering (" \
	"  vm TEXT PRIMARY KEY NOT NULL REFERENCES vms (id) ON DELETE CASCADE," \
	"  since INTEGER NOT NULL," \
	"  cpu_us INTEGER NOT NULL," \
	"  memory_kib INTEGER NOT NULL," /* sum of all samples */ \
	"  memory_samples INTEGER NOT NULL," \
	"  memory_min_kib INTEGER NOT NULL," \
	"  memory_max_kib INTEGER NOT NULL," \
	"  disk_read INTEGER NOT NULL," /* bytes, like the next three */ \
	"  disk_written INTEGER NOT NULL," \
	"  network_received INTEGER NOT NULL," \
	"  network_sent INTEGER NOT NULL," \
	/* the worker's counters at the last sample, so that nothing counts twice */ \
	"  run INTEGER NOT NULL," /* which worker's, 0: none yet */ \
	"  last_cpu_us INTEGER NOT NULL," \
	"  last_disk_read INTEGER NOT NULL," \
	"  last_disk_written INTEGER NOT NULL," \
	"  last_network_received INTEGER NOT NULL," \
	"  last_network_sent INTEGER NOT NULL" \
	") STRICT;" \
	\
	/* settings of the host: one row, or none while all are defaults */ \
	"CREATE TABLE host (" \
	"  id INTEGER PRIMARY KEY CHECK (id = 1)," \
	"  settings TEXT NOT NULL," /* JSON, host.schema.json */ \
	"  revision INTEGER NOT NULL" /* grows with each change */ \
	") STRICT;" \
	\
	/* switches, resource pools: a name and settings */ \
	"CREATE TABLE things (" \
	"  id TEXT PRIMARY KEY NOT NULL," /* GUID */ \
	"  kind TEXT NOT NULL," /* \"switch\", \"pool\" */ \
	"  name TEXT NOT NULL," \
	"  settings TEXT NOT NULL," /* JSON */ \
	"  revision INTEGER NOT NULL" /* grows with each change */ \
	") STRICT;" \
	"CREATE INDEX things_name ON things (kind, name);"
/* clang-format on */
