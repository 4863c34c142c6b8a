// SPDX-License-Identifier: MIT
/*
 * See vm_check.h. Settings come from people and files and are judged here once they have passed the
 * schema: each rule is a small function, the tables at the end list them. What this version cannot
 * do is a table too: the setting, whether it is asked for, and what to do about it.
 */
#include "daemon/vm_check.h"

#include "lib/guid.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define WORKER_MEMORY_MAX (1024 * 1024) /* MiB; partita-vm(5) */

static int _printf_(3, 4) refuse(struct error *err, const char *property, const char *format, ...)
{
	char what[400];
	va_list ap;

	va_start(ap, format);
	vsnprintf(what, sizeof(what), format, ap);
	va_end(ap);
	error_set(err, -EINVAL, "%s: %s", property, what);
	if (err)
		snprintf(err->property, sizeof(err->property), "%s", property);
	return -EINVAL;
}

/* --- texts --- */

/* Decodes one character of UTF-8 that was checked before (the JSON reader does). */
static uint32_t next_character(const char **text)
{
	const uint8_t *p = (const uint8_t *)*text;
	unsigned more = p[0] < 0xc0 ? 0 : p[0] < 0xe0 ? 1 : p[0] < 0xf0 ? 2 : 3;
	uint32_t c = more ? p[0] & (0x3fu >> more) : p[0];

	for (unsigned i = 1; i <= more && p[i]; i++, ++*text)
		c = c << 6 | (p[i] & 0x3f);
	++*text;
	return c;
}

static bool character_printable(uint32_t c)
{
	return c >= 0x20 && (c < 0x7f || c > 0x9f) && (c < 0x200b || c > 0x200f) &&
	       (c < 0x2028 || c > 0x202e) && (c < 0x2066 || c > 0x2069) && c != 0xfeff;
}

bool text_printable(const char *text)
{
	while (*text)
		if (!character_printable(next_character(&text)))
			return false;
	return true;
}

static int check_line(const char *text, const char *property, struct error *err)
{
	if (text && !text_printable(text))
		return refuse(err, property, "has a control character; leave it out");
	return 0;
}

static int check_name(const struct vm_settings *s, struct error *err)
{
	size_t n = strlen(s->name);

	if (s->name[0] == ' ' || s->name[n - 1] == ' ')
		return refuse(err, "name", "begins or ends with a space; leave it out");
	return check_line(s->name, "name", err);
}

static int check_id(const struct vm_settings *s, struct error *err)
{
	char text[GUID_TEXT_SIZE];
	struct guid id;

	if (guid_parse(s->id, &id) < 0 || guid_is_zero(&id) ||
	    strcasecmp(guid_format(&id, text), s->id))
		return refuse(err, "id", "is not a GUID like 01234567-89ab-cdef-0123-456789abcdef");
	return 0;
}

/* Notes have lines. */
static int check_notes(const struct vm_settings *s, struct error *err)
{
	for (const char *p = s->notes; *p;) {
		uint32_t c = next_character(&p);

		if (c != '\n' && c != '\t' && c != '\r' && !character_printable(c))
			return refuse(err, "notes", "has a control character; leave it out");
	}
	return 0;
}

static int check_group(const struct vm_settings *s, struct error *err)
{
	const char *g = s->group;

	if (!*g)
		return 0;
	if (*g == '/' || g[strlen(g) - 1] == '/' || strstr(g, "//") || strchr(g, '*') ||
	    strchr(g, '?'))
		return refuse(err, "group", "must be names with / between, like lab/web");
	return check_line(g, "group", err);
}

/* --- numbers --- */

static int check_memory(const struct vm_settings *s, struct error *err)
{
	const struct vm_memory *m = &s->memory;

	if (m->minimum > m->maximum)
		return refuse(err, "memory.minimum", "%u MiB is more than memory.maximum, %u MiB",
			      m->minimum, m->maximum);
	if (m->dynamic && m->minimum > m->startup)
		return refuse(err, "memory.minimum", "%u MiB is more than memory.startup, %u MiB",
			      m->minimum, m->startup);
	if (m->dynamic && m->startup > m->maximum)
		return refuse(err, "memory.startup", "%u MiB is more than memory.maximum, %u MiB",
			      m->startup, m->maximum);
	if (m->dynamic && m->locked)
		return refuse(err, "memory.locked", "cannot be with memory.dynamic; choose one");
	if (m->host_maximum && m->host_maximum < m->startup)
		return refuse(err, "memory.host_maximum",
			      "%u MiB is less than memory.startup, %u MiB; the machine would be "
			      "ended as soon as it used its memory",
			      m->host_maximum, m->startup);
	return 0;
}

static int check_processors(const struct vm_settings *s, struct error *err)
{
	const struct vm_processors *p = &s->processors;

	if (p->reserve > p->limit)
		return refuse(err, "processors.reserve",
			      "%u %% is more than processors.limit, %u %%", p->reserve, p->limit);
	return 0;
}

static int check_hardware(const struct vm_settings *s, struct error *err)
{
	static const char *const versions[] = { "2.4", "3.0", "4.0", "4.1", "5.0",
						"5.1", "5.2", "5.3", "6.0" };

	for (size_t i = 0; i < ARRAY_SIZE(versions); i++)
		if (!strcmp(s->hardware.vmbus_version, versions[i]))
			return 0;
	return refuse(err, "hardware.vmbus_version",
		      "is not one of 2.4, 3.0, 4.0, 4.1, 5.0, 5.1, 5.2, 5.3, 6.0");
}

/* --- devices --- */

static int check_drive(const struct vm_settings *s, unsigned c, unsigned i, struct error *err)
{
	const struct vm_scsi_controller *controller = &s->scsi_controllers[c];
	const struct vm_drive *d = &controller->drives[i];
	char property[64];

	for (unsigned j = 0; j < i; j++) {
		if (controller->drives[j].location != d->location)
			continue;
		snprintf(property, sizeof(property), "scsi_controllers[%u].drives[%u].location", c,
			 i);
		return refuse(err, property, "%u is taken by drive %u of the same controller",
			      d->location, j);
	}
	if (d->kind == VM_DRIVE_KIND_DISK && (!d->path || !*d->path)) {
		snprintf(property, sizeof(property), "scsi_controllers[%u].drives[%u].path", c, i);
		return refuse(err, property, "is missing: a disk needs an image");
	}
	if (d->set && d->kind != VM_DRIVE_KIND_DISK) {
		snprintf(property, sizeof(property), "scsi_controllers[%u].drives[%u].set", c, i);
		return refuse(err, property, "is only for disks");
	}
	return 0;
}

static int check_drives(const struct vm_settings *s, struct error *err)
{
	int r = 0;

	for (unsigned c = 0; c < s->scsi_controllers_count && r == 0; c++)
		for (unsigned i = 0; i < s->scsi_controllers[c].drives_count && r == 0; i++)
			r = check_drive(s, c, i, err);
	return r;
}

int mac_parse(const char *text, char ret[static MAC_TEXT_SIZE])
{
	char mac[MAC_TEXT_SIZE] = "";
	size_t n = 0, length = strlen(text);
	char separator = length == 17 ? text[2] : '\0';

	if (length != 12 && (length != 17 || !strchr("-:", separator)))
		return -EINVAL;
	for (size_t i = 0; i < length; i++) {
		if (separator && i % 3 == 2) {
			if (text[i] != separator)
				return -EINVAL;
			continue;
		}
		if (!isxdigit((unsigned char)text[i]))
			return -EINVAL;
		mac[n++] = (char)tolower((unsigned char)text[i]);
	}
	memcpy(ret, mac, sizeof(mac));
	return 0;
}

/* The first digit pair's lowest bit: an address of many. */
static bool mac_of_many(const char *mac)
{
	return strchr("13579bdf", mac[1]);
}

static int check_adapters(const struct vm_settings *s, struct error *err)
{
	char macs[8][MAC_TEXT_SIZE], property[64];

	for (unsigned i = 0; i < s->network_adapters_count && i < ARRAY_SIZE(macs); i++) {
		const struct vm_network_adapter *a = &s->network_adapters[i];

		macs[i][0] = '\0';
		snprintf(property, sizeof(property), "network_adapters[%u].name", i);
		if (check_line(a->name, property, err) < 0)
			return -EINVAL;
		if (!a->mac)
			continue;
		snprintf(property, sizeof(property), "network_adapters[%u].mac", i);
		if (mac_parse(a->mac, macs[i]) < 0)
			return refuse(err, property,
				      "is no hardware address: give 12 hexadecimal digits");
		if (mac_of_many(macs[i]) || !strcmp(macs[i], "000000000000"))
			return refuse(err, property, "is not the address of one adapter");
		for (unsigned j = 0; j < i; j++)
			if (!strcmp(macs[i], macs[j]))
				return refuse(err, property, "is that of adapter %u too", j);
	}
	return 0;
}

static int check_com_ports(const struct vm_settings *s, struct error *err)
{
	unsigned consoles = 0;
	char property[64];

	for (unsigned i = 0; i < s->com_ports_count; i++) {
		const struct vm_com_port *p = &s->com_ports[i];
		bool wants = p->kind == VM_COM_PORT_KIND_SOCKET || p->kind == VM_COM_PORT_KIND_PTY;

		snprintf(property, sizeof(property), "com_ports[%u].path", i);
		if (wants && (!p->path || !*p->path))
			return refuse(err, property, "is missing: say where it is to be made");
		if (!wants && p->path)
			return refuse(err, property, "is only for kind socket and pty");
		snprintf(property, sizeof(property), "com_ports[%u].kind", i);
		consoles += p->kind == VM_COM_PORT_KIND_CONSOLE;
		if (consoles > 1)
			return refuse(err, property, "only one port can be the console");
	}
	return 0;
}

/* --- files --- */

struct path_walk {
	int (*each)(void *context, const char *property, const char *path);
	void *context;
};

static int walk_path(const struct path_walk *w, const char *path, const char *format, ...)
	_printf_(3, 4);

static int walk_path(const struct path_walk *w, const char *path, const char *format, ...)
{
	char property[96];
	va_list ap;

	if (!path)
		return 0;
	va_start(ap, format);
	vsnprintf(property, sizeof(property), format, ap);
	va_end(ap);
	return w->each(w->context, property, path);
}

static int walk_controllers(const struct path_walk *w, const struct vm_settings *s)
{
	int r = 0;

	for (unsigned c = 0; c < s->scsi_controllers_count && r == 0; c++) {
		for (unsigned i = 0; i < s->scsi_controllers[c].drives_count && r == 0; i++) {
			const struct vm_drive *d = &s->scsi_controllers[c].drives[i];

			r = walk_path(w, d->path, "scsi_controllers[%u].drives[%u].path", c, i);
			if (r == 0)
				r = walk_path(w, d->set, "scsi_controllers[%u].drives[%u].set", c,
					      i);
		}
	}
	return r;
}

int vm_check_paths(const struct vm_settings *s,
		   int (*each)(void *context, const char *property, const char *path),
		   void *context)
{
	const struct path_walk w = { each, context };
	int r = walk_path(&w, s->boot.kernel, "boot.kernel");

	if (r == 0)
		r = walk_path(&w, s->boot.initrd, "boot.initrd");
	if (r == 0)
		r = walk_controllers(&w, s);
	for (unsigned i = 0; i < s->com_ports_count && r == 0; i++)
		r = walk_path(&w, s->com_ports[i].path, "com_ports[%u].path", i);
	if (r == 0)
		r = walk_path(&w, s->smart_paging_folder, "smart_paging_folder");
	return r == 0 ? walk_path(&w, s->checkpoints.folder, "checkpoints.folder") : r;
}

static int check_path(void *context, const char *property, const char *path)
{
	return *path ? check_line(path, property, context)
		     : refuse(context, property, "is empty; leave it out");
}

static int check_files(const struct vm_settings *s, struct error *err)
{
	struct error mine = { 0 };
	int r = vm_check_paths(s, check_path, &mine);

	if (r < 0 && err)
		*err = mine;
	return r;
}

int vm_check(const struct vm_settings *s, struct error *err)
{
	static int (*const rules[])(const struct vm_settings *, struct error *) = {
		check_id,        check_name,     check_group,      check_notes,
		check_memory,    check_drives,   check_adapters,   check_files,
		check_com_ports, check_hardware, check_processors,
	};

	for (size_t i = 0; i < ARRAY_SIZE(rules); i++) {
		int r = rules[i](s, err);

		if (r < 0)
			return r;
	}
	return 0;
}

/* --- what this version cannot do --- */

static bool asks_generation_1(const struct vm_settings *s)
{
	return s->generation == 1;
}

static bool asks_firmware(const struct vm_settings *s)
{
	return !s->boot.kernel;
}

static bool asks_much_memory(const struct vm_settings *s)
{
	return s->memory.startup > WORKER_MEMORY_MAX;
}

static bool asks_numa(const struct vm_settings *s)
{
	return s->processors.maximum_per_numa_node || s->processors.maximum_numa_nodes_per_socket ||
	       s->memory.maximum_per_numa_node;
}

static bool asks_nesting(const struct vm_settings *s)
{
	return s->processors.expose_virtualization;
}

static bool asks_compatibility(const struct vm_settings *s)
{
	return s->processors.compatibility_for_migration ||
	       s->processors.compatibility_for_older_systems;
}

static bool asks_threads(const struct vm_settings *s)
{
	return s->processors.threads_per_core > 1;
}

static bool asks_secure_boot(const struct vm_settings *s)
{
	return s->security.secure_boot;
}

static bool asks_tpm(const struct vm_settings *s)
{
	return s->security.tpm;
}

static bool asks_encryption(const struct vm_settings *s)
{
	return s->security.encrypt_state || s->security.shielded;
}

static bool asks_other_console(const struct vm_settings *s)
{
	for (unsigned i = 1; i < s->com_ports_count; i++)
		if (s->com_ports[i].kind == VM_COM_PORT_KIND_CONSOLE)
			return true;
	return false;
}

static bool asks_checkpoints(const struct vm_settings *s)
{
	return s->checkpoints.automatic;
}

static bool asks_cache_types(const struct vm_settings *s)
{
	return s->hardware.guest_controlled_cache_types;
}

static bool any_drive(const struct vm_settings *s, bool (*is)(const struct vm_drive *d))
{
	for (unsigned c = 0; c < s->scsi_controllers_count; c++)
		for (unsigned i = 0; i < s->scsi_controllers[c].drives_count; i++)
			if (is(&s->scsi_controllers[c].drives[i]))
				return true;
	return false;
}

static bool drive_is_limited(const struct vm_drive *d)
{
	return d->minimum_iops || d->maximum_iops;
}

static bool asks_iops(const struct vm_settings *s)
{
	return any_drive(s, drive_is_limited);
}

static const struct lack {
	bool (*asked)(const struct vm_settings *s);
	const char *property, *what, *advice;
} lacks[] = {
	{ asks_generation_1, "generation", "no BIOS and legacy devices",
	  "make the machine anew with generation 2" },
	{ asks_firmware, "boot.kernel", "no firmware", "give the kernel to start in boot.kernel" },
	{ asks_much_memory, "memory.startup", "no more than 1 TiB of memory for a machine",
	  "set memory.startup to 1048576 or less" },
	{ asks_numa, "processors.maximum_per_numa_node", "no virtual NUMA nodes",
	  "set maximum_per_numa_node and maximum_numa_nodes_per_socket to 0" },
	{ asks_nesting, "processors.expose_virtualization", "no machines in machines",
	  "set processors.expose_virtualization to false" },
	{ asks_compatibility, "processors.compatibility_for_migration",
	  "no reduced processor features",
	  "set processors.compatibility_for_migration and -for_older_systems to false" },
	{ asks_threads, "processors.threads_per_core", "no virtual hardware threads",
	  "set processors.threads_per_core to 0 or 1" },
	{ asks_secure_boot, "security.secure_boot", "no secure boot",
	  "set security.secure_boot to false" },
	{ asks_tpm, "security.tpm", "no virtual TPM", "set security.tpm to false" },
	{ asks_encryption, "security.encrypt_state", "no encrypted or shielded machines",
	  "set security.encrypt_state and security.shielded to false" },
	{ asks_other_console, "com_ports", "no console but COM1",
	  "make the first port the console" },
	{ asks_checkpoints, "checkpoints.automatic", "no checkpoints",
	  "set checkpoints.automatic to false" },
	{ asks_cache_types, "hardware.guest_controlled_cache_types", "no guest-controlled caching",
	  "set hardware.guest_controlled_cache_types to false" },
	{ asks_iops, "scsi_controllers", "no limits of disk operations",
	  "set minimum_iops and maximum_iops of the drives to 0" },
};

int vm_check_start(const struct vm_settings *s, struct error *err)
{
	for (size_t i = 0; i < ARRAY_SIZE(lacks); i++) {
		if (!lacks[i].asked(s))
			continue;
		error_set(err, -EOPNOTSUPP, "%s: this version has %s; %s", lacks[i].property,
			  lacks[i].what, lacks[i].advice);
		if (err)
			snprintf(err->property, sizeof(err->property), "%s", lacks[i].property);
		return -EOPNOTSUPP;
	}
	return 0;
}
