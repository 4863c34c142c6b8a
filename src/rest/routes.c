// SPDX-License-Identifier: MIT
/* All that can be asked for. docs/rest.md has the same for people. */
#include "daemon/vm_state.h"
#include "rest/api.h"

static const char *const states[] = { "off",    "starting",        "running",   "pausing",
				      "paused", "paused-critical", "resuming",  "saving",
				      "saved",  "stopping",        "resetting", "critical",
				      NULL };
static const char *const job_states[] = { "running", "completed", "failed", "cancelled", NULL };
static const char *const severities[] = { "information", "warning", "error",
					  "critical",    "audit",   NULL };
static const char *const switch_types[] = { "external", "internal", "private", NULL };

static const struct parameter vm_parameters[] = {
	{ "pattern", "An id, or a name with * and ?.", PARAMETER_TEXT, 1, 400, NULL },
	{ "name", "A name, with * and ?.", PARAMETER_TEXT, 1, 400, NULL },
	{ "state", "Only those in this state.", PARAMETER_TEXT, 0, 0, states },
	{ "group", "Only those in this group or below it.", PARAMETER_TEXT, 0, 255, NULL },
	{ 0 },
};

static const struct parameter delete_vm_parameters[] = {
	{ "files", "With its folder and all that is in it.", PARAMETER_BOOL, 0, 0, NULL },
	{ 0 },
};

static const char *const pools[] = { "external",      "guest",         "auto",
				     "auto-external", "auto-internal", NULL };

static const struct parameter shut_down_parameters[] = {
	{ "force", "Its programs are not asked.", PARAMETER_BOOL, 0, 0, NULL },
	{ "turn_off", "Power it off (or reset it) when it has not done it itself.", PARAMETER_BOOL,
	  0, 0, NULL },
	{ "timeout", "Seconds that the guest has (300).", PARAMETER_INTEGER, 1, 86400, NULL },
	{ "reason", "Shown by the guest.", PARAMETER_TEXT, 1, 500, NULL },
	{ 0 },
};

static const struct parameter items_parameters[] = {
	{ "pool", "Which items (external).", PARAMETER_TEXT, 0, 0, pools },
	{ "from", "What `next` said.", PARAMETER_INTEGER, 0, 256, NULL },
	{ 0 },
};

static const struct parameter ip_parameters[] = {
	{ "mac", "Of the adapter, like 00:15:5d:01:02:03.", PARAMETER_TEXT, 1, 60, NULL },
	{ 0 },
};

static const struct parameter socket_parameters[] = {
	{ "service", "A vsock port of the guest's, or a GUID.", PARAMETER_TEXT, 1, 40, NULL },
	{ 0 },
};

static const struct parameter change_vm_parameters[] = {
	{ "force", "Of a running machine: also what its guest holds on to.", PARAMETER_BOOL, 0, 0,
	  NULL },
	{ 0 },
};

static const struct parameter console_parameters[] = {
	{ "read_only", "Input is not taken.", PARAMETER_BOOL, 0, 0, NULL },
	{ 0 },
};

static const struct parameter job_parameters[] = {
	{ "state", "Only those in this state.", PARAMETER_TEXT, 0, 0, job_states },
	{ "type", "Only those of this type.", PARAMETER_TEXT, 1, 31, NULL },
	{ "vm", "Only those of the machine with this id.", PARAMETER_TEXT, 36, 36, NULL },
	{ 0 },
};

static const struct parameter event_parameters[] = {
	{ "vm", "Only those of the machine with this id.", PARAMETER_TEXT, 36, 36, NULL },
	{ "kind", "Only those of this kind.", PARAMETER_TEXT, 1, 64, NULL },
	{ "severity", "Only those of this severity or a worse one.", PARAMETER_TEXT, 0, 0,
	  severities },
	{ "since", "Only later ones; milliseconds since 1970.", PARAMETER_INTEGER, 0,
	  INT64_C(253402300799999), NULL },
	{ "newest", "The newest first.", PARAMETER_BOOL, 0, 0, NULL },
	{ 0 },
};

static const struct parameter name_parameters[] = {
	{ "name", "A name, with * and ?.", PARAMETER_TEXT, 1, 400, NULL },
	{ 0 },
};

static const struct parameter switch_parameters[] = {
	{ "name", "A name, with * and ?.", PARAMETER_TEXT, 1, 400, NULL },
	{ "type", "Only those of this type.", PARAMETER_TEXT, 0, 0, switch_types },
	{ 0 },
};

static const struct parameter assignment_parameters[] = {
	{ "user", "Only this user's.", PARAMETER_TEXT, 1, 63, NULL },
	{ "group", "Only this group's.", PARAMETER_TEXT, 1, 31, NULL },
	{ "role", "Only those of this role.", PARAMETER_TEXT, 1, 64, NULL },
	{ 0 },
};

#define ACT    "not-unique wrong-state busy broken unsupported exists timeout internal"
#define CHANGE (ROUTE_IF_MATCH | ROUTE_ETAG | ROUTE_PATCH_TYPE)

#define ACTION(verb, name, words, action)                                                          \
	{                                                                                          \
		"POST", "vms/{id}/" verb, name, words, NULL, "Job", 202, ROUTE_WAIT, NULL, ACT,    \
			act_on_vm, action                                                          \
	}

#define ASK(verb, name, words, action)                                                             \
	{                                                                                          \
		"POST", "vms/{id}/" verb, name, words, NULL, "Job", 202, ROUTE_WAIT,               \
			shut_down_parameters, ACT, shut_down_vm, action                            \
	}
#define GUEST "not-unique wrong-state busy timeout"

/* clang-format off */
const struct route routes[] = {
	{ "GET", "host", "getHost", "The host", NULL, "Host", 200, ROUTE_ETAG, NULL, NULL,
	  get_host, 0 },
	{ "PATCH", "host", "changeHost", "Change settings of the host", "HostSettingsPatch", "Host", 200,
	  CHANGE | ROUTE_BODY_UNCHECKED, NULL, "wrong-state unsupported", patch_host, 0 },

	{ "GET", "vms", "listVms", "The machines", NULL, "Vm", 200, ROUTE_LIST, vm_parameters, NULL,
	  list_vms, 0 },
	{ "POST", "vms", "createVm", "Make a machine", "VmCreate", "Vm", 201,
	  ROUTE_KEY | ROUTE_ETAG | ROUTE_BODY_UNCHECKED, NULL, "exists busy not-found unsupported wrong-state "
	  "key-reused",
	  create_vm, 0 },
	{ "POST", "vms/register", "registerVm", "Take in a machine's folder", "VmRegister", "Vm", 201,
	  ROUTE_ETAG, NULL, "exists busy not-found unsupported broken", register_vm, 0 },
	{ "GET", "vms/{id}", "getVm", "A machine", NULL, "Vm", 200, ROUTE_ETAG, NULL, "not-unique",
	  get_vm, 0 },
	{ "PATCH", "vms/{id}", "changeVm", "Change settings of a machine", "VmSettingsPatch", "Vm", 200,
	  CHANGE | ROUTE_BODY_UNCHECKED | ROUTE_OR_JOB, change_vm_parameters,
	  "not-unique wrong-state broken busy exists unsupported", patch_vm, 0 },
	{ "DELETE", "vms/{id}", "deleteVm", "Remove a machine", NULL, NULL, 204, ROUTE_IF_MATCH,
	  delete_vm_parameters, "not-unique wrong-state busy", delete_vm, 0 },
	ACTION("start", "startVm", "Start, resume or restore it", VM_START),
	ACTION("stop", "stopVm", "Power it off", VM_STOP),
	ASK("shut-down", "shutDownVm", "Ask its guest to shut down", VM_SHUT_DOWN),
	ASK("restart", "restartVm", "Ask its guest to restart", VM_RESTART),
	ACTION("pause", "pauseVm", "Pause it", VM_PAUSE),
	ACTION("resume", "resumeVm", "Resume it", VM_RESUME),
	ACTION("save", "saveVm", "Save it and stop", VM_SAVE),
	ACTION("reset", "resetVm", "Reset it", VM_RESET),
	ACTION("discard", "discardVm", "Delete its saved state", VM_DISCARD),
	{ "GET", "vms/{id}/metering", "getMetering", "What a machine has used", NULL, "Metering", 200, 0,
	  NULL, "not-unique wrong-state", get_metering, 0 },
	{ "DELETE", "vms/{id}/metering", "resetMetering", "Begin to measure anew", NULL, NULL, 204, 0,
	  NULL, "not-unique wrong-state", delete_metering, 0 },
	{ "GET", "vms/{id}/guest", "getGuest", "What its guest says of itself, and its services", NULL,
	  "Guest", 200, 0, NULL, GUEST, get_guest, 0 },
	{ "GET", "vms/{id}/guest/items", "listGuestItems", "Items of key-value exchange", NULL,
	  "GuestItems", 200, 0, items_parameters, GUEST, get_guest_items, 0 },
	{ "PUT", "vms/{id}/guest/items", "setGuestItem", "Set an item, or remove it", "GuestItem", NULL,
	  204, 0, NULL, GUEST, put_guest_item, 0 },
	{ "GET", "vms/{id}/guest/ip", "getGuestIp", "Addresses of an adapter, as its guest has them",
	  NULL, "GuestIp", 200, 0, ip_parameters, GUEST, get_guest_ip, 0 },
	{ "PUT", "vms/{id}/guest/ip", "setGuestIp", "Give an adapter addresses", "GuestIpNew", NULL, 204,
	  0, NULL, GUEST, put_guest_ip, 0 },
	{ "POST", "vms/{id}/guest/freeze", "freezeGuest", "Freeze its file systems for a backup",
	  "GuestFreeze", NULL, 204, 0, NULL, GUEST, freeze_guest, 0 },
	{ "POST", "vms/{id}/guest/thaw", "thawGuest", "Thaw them", NULL, NULL, 204, 0, NULL, GUEST,
	  thaw_guest, 0 },
	{ "POST", "vms/{id}/guest/copy", "copyToGuest", "Copy a file of the host into its guest",
	  "GuestCopy", "Job", 202, ROUTE_WAIT, NULL, GUEST, copy_to_guest, 0 },
	{ "GET", "vms/{id}/socket", "openSocket", "A connection to a program of its guest, as a WebSocket",
	  NULL, NULL, 101, ROUTE_UPGRADE, socket_parameters,
	  "not-unique wrong-state unsupported busy internal timeout", open_socket, 0 },
	{ "GET", "vms/{id}/console", "openConsole", "The first COM port, as a WebSocket", NULL, NULL, 101,
	  ROUTE_UPGRADE, console_parameters, "not-unique wrong-state unsupported busy internal",
	  open_console, 0 },

	{ "GET", "jobs", "listJobs", "The jobs, oldest first", NULL, "Job", 200, ROUTE_LIST,
	  job_parameters, NULL, list_jobs, 0 },
	{ "GET", "jobs/{id}", "getJob", "A job", NULL, "Job", 200, ROUTE_WAIT, NULL, NULL, get_job, 0 },
	{ "DELETE", "jobs/{id}", "cancelJob", "Cancel a job", NULL, "Job", 202, ROUTE_WAIT, NULL,
	  "wrong-state unsupported", delete_job, 0 },

	{ "GET", "events", "listEvents", "What happened, oldest first, or as it happens", NULL, "Event",
	  200, ROUTE_LIST | ROUTE_STREAM, event_parameters, NULL, list_events, 0 },

	{ "GET", "operations", "listOperations", "What roles are made of", NULL, "Operation", 200,
	  ROUTE_LIST, NULL, NULL, list_operations, 0 },
	{ "GET", "roles", "listRoles", "The roles", NULL, "Role", 200, ROUTE_LIST, name_parameters, NULL,
	  list_roles, 0 },
	{ "GET", "roles/{name}", "getRole", "A role", NULL, "Role", 200, ROUTE_ETAG, NULL, NULL,
	  get_role, 0 },
	{ "PUT", "roles/{name}", "setRole", "Make or change a role", "RoleNew", "Role", 200,
	  ROUTE_IF_MATCH | ROUTE_ETAG, NULL, "exists busy wrong-state", put_role, 0 },
	{ "DELETE", "roles/{name}", "deleteRole", "Remove a role", NULL, NULL, 204, ROUTE_IF_MATCH, NULL,
	  "busy exists wrong-state", delete_role, 0 },
	{ "GET", "assignments", "listAssignments", "Who has which role", NULL, "Assignment", 200,
	  ROUTE_LIST, assignment_parameters, NULL, list_assignments, 0 },
	{ "POST", "assignments", "createAssignment", "Give a role", "AssignmentNew", "Assignment", 201,
	  ROUTE_KEY, NULL, "exists not-found key-reused", create_assignment, 0 },
	{ "DELETE", "assignments/{id}", "deleteAssignment", "Take a role away", NULL, NULL, 204, 0, NULL,
	  NULL, delete_assignment, 0 },

	{ "GET", "switches", "listSwitches", "The switches", NULL, "Switch", 200, ROUTE_LIST,
	  switch_parameters, NULL, list_things, 0 },
	{ "POST", "switches", "createSwitch", "Make a switch", "SwitchNew", "Switch", 201,
	  ROUTE_KEY | ROUTE_ETAG, NULL, "exists key-reused", create_thing, 0 },
	{ "GET", "switches/{id}", "getSwitch", "A switch", NULL, "Switch", 200, ROUTE_ETAG, NULL,
	  "not-unique", get_thing, 0 },
	{ "PATCH", "switches/{id}", "changeSwitch", "Change a switch", "SwitchPatch", "Switch", 200, CHANGE,
	  NULL, "not-unique exists busy", patch_thing, 0 },
	{ "DELETE", "switches/{id}", "deleteSwitch", "Remove a switch", NULL, NULL, 204, ROUTE_IF_MATCH,
	  NULL, "not-unique busy", delete_thing, 0 },
	{ "GET", "pools", "listPools", "The resource pools", NULL, "Pool", 200, ROUTE_LIST,
	  name_parameters, NULL, list_things, 1 },
	{ "POST", "pools", "createPool", "Make a pool", "PoolNew", "Pool", 201, ROUTE_KEY | ROUTE_ETAG,
	  NULL, "exists key-reused", create_thing, 1 },
	{ "GET", "pools/{id}", "getPool", "A pool", NULL, "Pool", 200, ROUTE_ETAG, NULL, "not-unique",
	  get_thing, 1 },
	{ "PATCH", "pools/{id}", "changePool", "Change a pool", "PoolPatch", "Pool", 200, CHANGE, NULL,
	  "not-unique exists busy", patch_thing, 1 },
	{ "DELETE", "pools/{id}", "deletePool", "Remove a pool", NULL, NULL, 204, ROUTE_IF_MATCH, NULL,
	  "not-unique busy", delete_thing, 1 },

	{ "GET", "images", "listImages", "The catalogue of images", NULL, "Image", 200, ROUTE_LIST,
	  name_parameters, NULL, list_images, 0 },
	{ "GET", "images/{name}", "getImage", "An image", NULL, "Image", 200, ROUTE_ETAG, NULL, "broken",
	  get_image, 0 },
	{ "DELETE", "images/{name}", "deleteImage", "Remove an image and its disk", NULL, NULL, 204,
	  ROUTE_IF_MATCH, NULL, "broken busy", delete_image, 0 },

	{ "GET", "openapi.json", "getOpenapi", "This interface, for programs", NULL, "Document", 200, 0,
	  NULL, NULL, get_openapi, 0 },
};
/* clang-format on */
const unsigned route_count = ARRAY_SIZE(routes);
