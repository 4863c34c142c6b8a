// SPDX-License-Identifier: MIT
/*
 * See vm_describe.h. What the two schemas have in common under different names; what a worker does
 * not know yet was refused before (vm_check.c).
 */
#include "daemon/vm_describe.h"

#include "daemon/vm_check.h"
#include "lib/types.h"

#include <stdio.h>

#define WORKER_MOST UINT64_C(1048576) /* partita-vm(5) */
/* Beyond that room is above 4 GiB, and a Linux guest keeps 64 MiB for that (memmap.c). */
#define LOW_MOST UINT64_C(3912)

uint64_t vm_memory_most(const struct vm_settings *s, uint64_t host_mib)
{
	uint64_t startup = s->memory.startup, most = s->memory.maximum;

	if (s->memory.locked)
		return startup;
	if (!s->memory.dynamic)
		most = startup <= LOW_MOST ? LOW_MOST : host_mib;
	return MAX(MIN(MIN(most, host_mib), WORKER_MOST), startup);
}

static json_t *describe_file(const char *path)
{
	return path ? json_pack("{s:s}", "path", path) : NULL;
}

static json_t *describe_boot(const struct vm_boot *b)
{
	return json_pack("{s:o,s:o*,s:s}", "kernel", describe_file(b->kernel), "initrd",
			 describe_file(b->initrd), "command_line", b->command_line);
}

static json_t *describe_drive(const struct vm_drive *d)
{
	return json_pack("{s:i,s:o*,s:o*,s:s,s:s,s:b,s:b}", "lun", (int)d->location, "file",
			 describe_file(d->path), "set", describe_file(d->set), "kind",
			 vm_drive_kind_names[d->kind], "format", vm_drive_format_names[d->format],
			 "read_only", d->read_only || d->kind == VM_DRIVE_KIND_DVD, "direct",
			 d->direct && d->kind == VM_DRIVE_KIND_DISK);
}

static json_t *describe_controller(const struct vm_scsi_controller *c)
{
	json_t *drives = json_array();

	for (unsigned i = 0; i < c->drives_count; i++)
		json_array_append_new(drives, describe_drive(&c->drives[i]));
	return json_pack("{s:o}", "drives", drives);
}

static json_t *describe_com_port(const struct vm_com_port *p)
{
	static const char *const kinds[] = {
		[VM_COM_PORT_KIND_NONE] = "none",
		[VM_COM_PORT_KIND_CONSOLE] = "none",
		[VM_COM_PORT_KIND_SOCKET] = "socket",
		[VM_COM_PORT_KIND_PTY] = "pty",
	};

	return json_pack("{s:s,s:s*}", "kind", kinds[p->kind], "path", p->path);
}

static json_t *describe_services(const struct vm_integration_services *i)
{
	return json_pack("{s:b,s:b,s:b,s:b,s:b,s:b}", "heartbeat", i->heartbeat, "shutdown",
			 i->shutdown, "time_synchronization", i->time_synchronization,
			 "key_value_exchange", i->key_value_exchange, "vss", i->vss,
			 "guest_services", i->guest_services);
}

/* "02:50:..": as workers and switches read it. */
static json_t *describe_mac(const char *mac)
{
	char digits[MAC_TEXT_SIZE], text[18];

	if (!mac || mac_parse(mac, digits) < 0)
		return NULL;
	snprintf(text, sizeof(text), "%.2s:%.2s:%.2s:%.2s:%.2s:%.2s", digits, digits + 2,
		 digits + 4, digits + 6, digits + 8, digits + 10);
	return json_string(text);
}

static json_t *describe_adapter(const struct vm_network_adapter *a)
{
	return json_pack("{s:s,s:o,s:s,s:b}", "id", a->id, "mac", describe_mac(a->mac), "name",
			 a->name, "mac_changes", a->mac_spoofing);
}

static json_t *describe_port(const struct vm_network_adapter *a)
{
	json_t *port = json_pack(
		"{s:s,s:s,s:s,s:b,s:b,s:b,s:{s:s,s:i},s:I,s:i}", "id", a->id, "name", a->name,
		"mac", a->mac, "mac_spoofing", a->mac_spoofing, "dhcp_guard", a->dhcp_guard,
		"router_guard", a->router_guard, "vlan", "mode", vm_vlan_mode_names[a->vlan_mode],
		"id", (int)a->vlan, "maximum_bandwidth", (json_int_t)a->maximum_bandwidth,
		"minimum_bandwidth_weight", (int)a->minimum_bandwidth_weight);

	json_t *vlan = json_object_get(port, "vlan");

	if (a->vlan_secondary)
		json_object_set_new(vlan, "secondary", json_integer((json_int_t)a->vlan_secondary));
	if (a->vlan_list)
		json_object_set_new(vlan, "list", json_string(a->vlan_list));
	json_object_set_new(port, "storm_limit", json_integer((json_int_t)a->storm_limit));
	json_object_set_new(port, "mirror", json_string(vm_mirror_names[a->mirror]));
	return json_pack("{s:s,s:s*,s:o}", "id", a->id, "switch", a->switch_, "port", port);
}

json_t *vm_describe_parts(const struct vm_settings *s)
{
	json_t *description = vm_describe(s, 0), *ports = json_array();

	for (unsigned i = 0; i < s->network_adapters_count; i++)
		json_array_append_new(ports, describe_port(&s->network_adapters[i]));
	if (description)
		json_object_set_new(description, "ports", ports);
	return description;
}

json_t *vm_describe(const struct vm_settings *s, uint64_t host_mib)
{
	bool report = s->automatic.critical_error == VM_CRITICAL_ACTION_NONE;
	json_t *scsi = json_array(), *serial = json_array(), *network = json_array();

	for (unsigned i = 0; i < s->scsi_controllers_count; i++)
		json_array_append_new(scsi, describe_controller(&s->scsi_controllers[i]));
	for (unsigned i = 0; i < s->com_ports_count; i++)
		json_array_append_new(serial, describe_com_port(&s->com_ports[i]));
	for (unsigned i = 0; i < s->network_adapters_count; i++)
		json_array_append_new(network, describe_adapter(&s->network_adapters[i]));
	return json_pack(
		"{s:s,s:s,s:i,s:i,s:I,s:b,s:s,s:o,s:o,s:o,s:o,s:{s:s},s:{s:i},s:s,s:s,s:o}", "name",
		s->name, "id", s->id, "processors", (int)s->processors.count, "memory",
		(int)s->memory.startup, "memory_maximum", (json_int_t)vm_memory_most(s, host_mib),
		"memory_locked", s->memory.locked, "engine", s->engine, "boot",
		describe_boot(&s->boot), "scsi", scsi, "serial", serial, "network", network,
		"vmbus", "max_version", s->hardware.vmbus_version, "storvsp", "sub_channels",
		(int)s->hardware.sub_channels, "on_reset",
		vm_on_guest_reset_names[s->hardware.on_guest_reset], "on_storage_error",
		report ? "report" : "wait", "integration_services",
		describe_services(&s->integration_services));
}
