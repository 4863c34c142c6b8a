// SPDX-License-Identifier: MIT
/*
 * The schemas of openapi.json: those of settings are made of the tables that schemagen made, in
 * three forms; the rest is written down here. As shown (VmSettings) a thing has all its members; to
 * be made (VmSettingsNew) it has none that are only told; and a patch (VmSettingsPatch, RFC 7396)
 * may leave out everything, and takes null for what is to get its default.
 */
#include "daemon/host_settings.h"
#include "daemon/vm_settings.h"
#include "rest/api.h"

#include <ctype.h>
#include <string.h>

#define REF "#/components/schemas/"

enum form {
	FORM_SHOWN,
	FORM_NEW,
	FORM_PATCH,
};

static const char *const suffixes[] = { "", "New", "Patch" };
static const char *const whens[] = {
	[SCHEMA_OFF] = "off",
	[SCHEMA_ANY_TIME] = "any-time",
	[SCHEMA_NEVER] = "never",
	[SCHEMA_NOT_SET] = "not-set",
};

#define NAME_SIZE 80

/* "vm_settings" -> "VmSettingsPatch" */
static void name_of(const struct schema_object *o, enum form form, char ret[static NAME_SIZE])
{
	size_t n = 0;
	bool upper = true;

	for (const char *p = o->name; *p && n < NAME_SIZE - 10; p++) {
		if (*p != '_')
			ret[n++] = upper ? (char)toupper((unsigned char)*p) : *p;
		upper = *p == '_';
	}
	snprintf(ret + n, NAME_SIZE - n, "%s", suffixes[form]);
}

static void put(json_t *json, const char *name, json_t *value)
{
	json_object_set_new(json, name, value); /* a missing one is found at the end */
}

static void put_limits(json_t *json, const char *min, const char *max, const struct schema_field *f)
{
	put(json, min, json_integer(f->min));
	put(json, max, json_integer(f->max));
}

static json_t *enum_names(const struct schema_field *f, enum form form)
{
	json_t *names = json_array();

	for (unsigned i = 0; i < f->name_count; i++)
		json_array_append_new(names, json_string(f->names[i]));
	if (form == FORM_PATCH)
		json_array_append_new(names, json_null());
	return names;
}

static json_t *type_json(const char *type, enum form form)
{
	return form == FORM_PATCH ? json_pack("[s,s]", type, "null") : json_string(type);
}

static void object_add(json_t *components, const struct schema_object *o, enum form form,
		       enum schema_when when);
static json_t *field_json(json_t *components, const struct schema_field *f, enum form form,
			  enum schema_when when);

static void put_object(json_t *components, json_t *json, const struct schema_field *f,
		       enum form form, enum schema_when when)
{
	char name[NAME_SIZE], ref[NAME_SIZE + sizeof(REF)];

	object_add(components, f->object, form, when);
	name_of(f->object, form, name);
	snprintf(ref, sizeof(ref), REF "%s", name);
	if (form != FORM_PATCH)
		put(json, "$ref", json_string(ref));
	else
		put(json, "anyOf", json_pack("[{s:s},{s:s}]", "$ref", ref, "type", "null"));
}

static void put_default(json_t *json, const struct schema_field *f, enum form form)
{
	json_t *value = NULL;

	if (f->required || form == FORM_PATCH)
		return;
	if (f->type == SCHEMA_BOOL)
		value = json_boolean(f->fallback);
	else if (f->type == SCHEMA_UINT32 || f->type == SCHEMA_INT64)
		value = json_integer(f->fallback);
	else if (f->type == SCHEMA_ENUM)
		value = json_string(f->names[f->fallback]);
	else if (f->type == SCHEMA_STRING && f->fallback_text)
		value = json_string(f->fallback_text);
	else if (f->type == SCHEMA_OBJECT && f->fallback_object)
		value = json_object();
	if (value)
		put(json, "default", value);
}

static void put_type(json_t *components, json_t *json, const struct schema_field *f, enum form form,
		     enum schema_when when)
{
	switch (f->type) {
	case SCHEMA_BOOL:
		put(json, "type", type_json("boolean", form));
		break;
	case SCHEMA_UINT32:
	case SCHEMA_INT64:
		put(json, "type", type_json("integer", form));
		put_limits(json, "minimum", "maximum", f);
		break;
	case SCHEMA_ENUM:
		put(json, "type", type_json("string", form));
		put(json, "enum", enum_names(f, form));
		break;
	case SCHEMA_STRING:
		put(json, "type", type_json("string", form));
		put_limits(json, "minLength", "maxLength", f);
		break;
	case SCHEMA_OBJECT:
		put_object(components, json, f, form, when);
		break;
	case SCHEMA_ARRAY:
		put(json, "type", type_json("array", form));
		put_limits(json, "minItems", "maxItems", f);
		/* a patch has the whole array anew */
		put(json, "items",
		    field_json(components, f->item, form == FORM_PATCH ? FORM_NEW : form, when));
		break;
	}
}

static json_t *field_json(json_t *components, const struct schema_field *f, enum form form,
			  enum schema_when when)
{
	json_t *json = json_object();

	put_type(components, json, f, form, when);
	put_default(json, f, form);
	if (f->description && *f->description)
		put(json, "description", json_string(f->description));
	if (f->unit)
		put(json, "x-unit", json_string(f->unit));
	if (f->operation)
		put(json, "x-operation", json_string(f->operation));
	if (f->name)
		put(json, "x-when", json_string(whens[when]));
	return json;
}

static bool field_in_form(const struct schema_field *f, enum form form)
{
	if (form == FORM_SHOWN)
		return true;
	return f->when != SCHEMA_NOT_SET && (form == FORM_NEW || f->when != SCHEMA_NEVER);
}

static void object_add(json_t *components, const struct schema_object *o, enum form form,
		       enum schema_when when)
{
	json_t *properties = json_object(), *required = json_array(), *json;
	char name[NAME_SIZE];

	name_of(o, form, name);
	json = json_pack("{s:s,s:s,s:b}", "type", "object", "description", o->description,
			 "additionalProperties", 0);
	put(components, name, json_incref(json)); /* before what is in it, which may name it */
	for (unsigned i = 0; i < o->field_count; i++) {
		const struct schema_field *f = &o->fields[i];

		if (!field_in_form(f, form))
			continue;
		put(properties, f->name,
		    field_json(components, f, form, f->when == SCHEMA_AS_ABOVE ? when : f->when));
		if (f->required && form != FORM_PATCH)
			json_array_append_new(required, json_string(f->name));
	}
	put(json, "properties", properties);
	if (json_array_size(required))
		put(json, "required", json_incref(required));
	json_decref(required);
	json_decref(json);
}

/* --- those that are written down --- */

struct component {
	const char *name, *text;
};

#define TEXT(...) #__VA_ARGS__

/* clang-format off */
static const struct component written[] = {
	{ "Problem", TEXT({
		"type": "object",
		"description": "What went wrong (RFC 9457). A program looks at code.",
		"required": ["type", "title", "status", "detail", "code"],
		"additionalProperties": false,
		"properties": {
			"type": { "type": "string" },
			"title": { "type": "string" },
			"status": { "type": "integer", "minimum": 400, "maximum": 599 },
			"detail": { "type": "string", "description": "What was wrong, where, and what to do." },
			"code": { "type": "string", "enum": ["invalid", "not-authenticated", "forbidden",
				"not-found", "method-not-allowed", "not-unique", "exists", "wrong-state", "busy",
				"broken", "changed", "too-large", "unsupported-media-type", "key-reused",
				"upgrade-required", "too-many-requests", "internal", "unsupported", "not-enough-memory", "timeout",
				"no-space"] },
			"property": { "type": "string", "description": "The setting or parameter at fault." },
			"allowed": { "type": "array", "items": { "type": "string" },
				"description": "Actions that the machine's state allows." }
		} }) },
	{ "Document", TEXT({ "type": "object", "description": "An OpenAPI document." }) },
	{ "Host", TEXT({
		"type": "object",
		"description": "Facts, figures and settings of the host.",
		"required": ["settings", "revision"],
		"properties": {
			"settings": { "$ref": "#/components/schemas/HostSettings" },
			"revision": { "type": "integer", "minimum": 0 },
			"remote": { "$ref": "#/components/schemas/Remote" }
		} }) },
	{ "Remote", TEXT({
		"type": "object",
		"description": "How it stands with TLS.",
		"required": ["listening", "address", "port", "fingerprint", "error"],
		"additionalProperties": false,
		"properties": {
			"listening": { "type": "boolean" },
			"address": { "type": "string" },
			"port": { "type": "integer", "minimum": 1, "maximum": 65535 },
			"fingerprint": { "type": ["string", "null"],
				"description": "SHA-256 of the certificate, as AB:CD:..." },
			"error": { "type": ["string", "null"], "description": "Why it is not served." }
		} }) },
	{ "Vm", TEXT({
		"type": "object",
		"description": "A virtual machine.",
		"required": ["id", "name", "folder", "state", "state_words", "state_since", "hyperv_state",
			"broken", "job", "revision", "settings", "status", "allowed"],
		"properties": {
			"id": { "type": "string", "minLength": 36, "maxLength": 36 },
			"name": { "type": "string" },
			"folder": { "type": "string" },
			"state": { "type": "string", "enum": ["off", "starting", "running", "pausing", "paused",
				"paused-critical", "resuming", "saving", "saved", "stopping", "resetting", "critical"] },
			"state_words": { "type": "string" },
			"state_since": { "type": ["string", "null"] },
			"hyperv_state": { "type": "integer", "description": "EnabledState of Hyper-V." },
			"broken": { "type": ["string", "null"], "description": "What is wrong with its folder." },
			"job": { "type": ["string", "null"], "description": "Id of what is under way." },
			"revision": { "type": "integer" },
			"settings": { "type": "object", "description": "VmSettings; of a broken machine only some." },
			"status": { "type": "object" },
			"allowed": { "type": "array", "items": { "type": "string" } }
		} }) },
	{ "VmCreate", TEXT({
		"type": "object",
		"description": "A machine to be made.",
		"required": ["settings"],
		"additionalProperties": false,
		"properties": {
			"settings": { "$ref": "#/components/schemas/VmSettingsNew" },
			"folder": { "type": "string", "minLength": 1, "maxLength": 4095,
				"description": "Where; left out: below the host's folder for machines." }
		} }) },
	{ "VmRegister", TEXT({
		"type": "object",
		"description": "A machine's folder that is there already.",
		"required": ["folder"],
		"additionalProperties": false,
		"properties": {
			"folder": { "type": "string", "minLength": 1, "maxLength": 4095 },
			"new_id": { "type": "boolean", "default": false,
				"description": "It is a copy, and becomes a machine of its own." }
		} }) },
	{ "Guest", TEXT({
		"type": "object",
		"description": "What a guest says of itself, and how its services stand.",
		"required": ["services", "heartbeat", "known", "items"],
		"properties": {
			"services": { "type": "object", "description": "By name: on, state, version." },
			"heartbeat": { "type": "object", "description": "state, application." },
			"known": { "type": "boolean", "description": "Its daemon has said something." },
			"items": { "type": "object", "description": "FullyQualifiedDomainName, OSName, ..." },
			"vss": { "type": "string", "description": "idle, frozen, or on the way." }
		} }) },
	{ "GuestItems", TEXT({
		"type": "object",
		"required": ["items"],
		"properties": {
			"items": { "type": "array", "items": { "type": "object", "properties": {
				"key": { "type": "string" }, "value": { "type": "string" } } } },
			"next": { "type": "integer", "description": "There are more: ?from= this." }
		} }) },
	{ "GuestItem", TEXT({
		"type": "object",
		"required": ["key"],
		"additionalProperties": false,
		"properties": {
			"pool": { "type": "string", "enum": ["external", "guest", "auto-external"],
				"default": "external" },
			"key": { "type": "string", "minLength": 1, "maxLength": 255 },
			"value": { "type": ["string", "null"], "maxLength": 1023,
				"description": "null or left out: the item is removed." }
		} }) },
	{ "GuestIp", TEXT({
		"type": "object",
		"required": ["adapter", "dhcp", "addresses"],
		"properties": {
			"adapter": { "type": "string" },
			"dhcp": { "type": "boolean" },
			"addresses": { "type": "string", "description": "Several are separated by ;" },
			"subnets": { "type": "string" },
			"gateways": { "type": "string" },
			"dns": { "type": "string" }
		} }) },
	{ "GuestIpNew", TEXT({
		"type": "object",
		"required": ["adapter"],
		"additionalProperties": false,
		"properties": {
			"adapter": { "type": "string", "minLength": 1, "maxLength": 60,
				"description": "GUID of the adapter." },
			"family": { "type": "string", "enum": ["ipv4", "ipv6", "both"], "default": "ipv4" },
			"dhcp": { "type": "boolean", "default": false },
			"addresses": { "type": "string", "maxLength": 1023,
				"description": "Several are separated by ;" },
			"subnets": { "type": "string", "maxLength": 1023 },
			"gateways": { "type": "string", "maxLength": 511 },
			"dns": { "type": "string", "maxLength": 1023 }
		} }) },
	{ "GuestFreeze", TEXT({
		"type": "object",
		"additionalProperties": false,
		"properties": {
			"seconds": { "type": "integer", "minimum": 1, "maximum": 900, "default": 60,
				"description": "It is thawed after that, at the latest." }
		} }) },
	{ "GuestCopy", TEXT({
		"type": "object",
		"required": ["source", "path"],
		"additionalProperties": false,
		"properties": {
			"source": { "type": "string", "minLength": 1, "maxLength": 4095,
				"description": "A file of the host; in the machine's folder unless administrator." },
			"path": { "type": "string", "minLength": 1, "maxLength": 511,
				"description": "In the guest, absolute, with the file's name." },
			"overwrite": { "type": "boolean", "default": false },
			"create_path": { "type": "boolean", "default": false }
		} }) },
	{ "Metering", TEXT({
		"type": "object",
		"description": "What a machine has used of the host.",
		"required": ["since"],
		"properties": { "since": { "type": ["string", "null"] } }
		}) },
	{ "Job", TEXT({
		"type": "object",
		"description": "A long operation.",
		"required": ["id", "type", "owner", "vm", "state", "percent", "begun", "ended", "error",
			"cancellable"],
		"properties": {
			"id": { "type": "string", "minLength": 36, "maxLength": 36 },
			"type": { "type": "string" },
			"owner": { "type": "string" },
			"vm": { "type": ["string", "null"] },
			"state": { "type": "string", "enum": ["running", "completed", "failed", "cancelled"] },
			"percent": { "type": "integer", "minimum": 0, "maximum": 100 },
			"begun": { "type": ["string", "null"] },
			"ended": { "type": ["string", "null"] },
			"error": { "type": ["object", "null"], "properties": {
				"code": { "type": "string" }, "detail": { "type": "string" } } },
			"cancellable": { "type": "boolean" }
		} }) },
	{ "Event", TEXT({
		"type": "object",
		"description": "Something that happened.",
		"required": ["id", "time", "severity", "kind", "vm", "actor", "words", "fields"],
		"properties": {
			"id": { "type": "integer" },
			"time": { "type": ["string", "null"] },
			"severity": { "type": "string",
				"enum": ["information", "warning", "error", "critical", "audit"] },
			"kind": { "type": "string" },
			"vm": { "type": ["string", "null"] },
			"actor": { "type": ["string", "null"] },
			"words": { "type": "string" },
			"fields": { "type": ["object", "null"] }
		} }) },
	{ "Operation", TEXT({
		"type": "object",
		"description": "What a role may give.",
		"required": ["name", "description", "on_vm"],
		"additionalProperties": false,
		"properties": {
			"name": { "type": "string" },
			"description": { "type": "string" },
			"on_vm": { "type": "boolean", "description": "Roles for groups and machines can give it." }
		} }) },
	{ "Role", TEXT({
		"type": "object",
		"description": "Operations with a name.",
		"required": ["name"],
		"properties": {
			"name": { "type": "string" },
			"description": { "type": "string" },
			"operations": { "type": "array", "items": { "type": "string" } },
			"own_operations": { "type": "array", "items": { "type": "string" } }
		} }) },
	{ "RoleNew", TEXT({
		"type": "object",
		"description": "A role as it shall be.",
		"required": ["operations"],
		"additionalProperties": false,
		"properties": {
			"name": { "type": "string", "minLength": 1, "maxLength": 64,
				"description": "As in the path, if at all." },
			"description": { "type": "string", "minLength": 0, "maxLength": 1024 },
			"operations": { "type": "array", "maxItems": 64,
				"items": { "type": "string", "maxLength": 64 } },
			"own_operations": { "type": "array", "maxItems": 64,
				"items": { "type": "string", "maxLength": 64 },
				"description": "For machines that one made." }
		} }) },
	{ "Assignment", TEXT({
		"type": "object",
		"description": "Who has a role, and for what.",
		"required": ["id", "role", "scope"],
		"properties": {
			"id": { "type": "integer" },
			"user": { "type": "string" },
			"group": { "type": "string" },
			"role": { "type": "string" },
			"scope": { "type": "string" }
		} }) },
	{ "AssignmentNew", TEXT({
		"type": "object",
		"description": "A user or a group gets a role.",
		"required": ["role", "scope"],
		"additionalProperties": false,
		"properties": {
			"user": { "type": "string", "minLength": 1, "maxLength": 63 },
			"group": { "type": "string", "minLength": 1, "maxLength": 31 },
			"role": { "type": "string", "minLength": 1, "maxLength": 64 },
			"scope": { "type": "string", "minLength": 1, "maxLength": 300,
				"description": "host, group:PATH or vm:ID." }
		} }) },
	{ "Switch", TEXT({
		"type": "object",
		"description": "A virtual switch: a name and a type.",
		"required": ["id", "name", "type", "notes"],
		"additionalProperties": false,
		"properties": {
			"id": { "type": "string", "minLength": 36, "maxLength": 36 },
			"name": { "type": "string" },
			"type": { "type": "string", "enum": ["external", "internal", "nat", "private"] },
			"notes": { "type": "string" }
		} }) },
	{ "SwitchNew", TEXT({
		"type": "object",
		"description": "A switch to be made.",
		"required": ["name"],
		"additionalProperties": false,
		"properties": {
			"name": { "type": "string", "minLength": 1, "maxLength": 100 },
			"type": { "type": "string", "enum": ["external", "internal", "nat", "private"],
				"default": "private" },
			"notes": { "type": "string", "minLength": 0, "maxLength": 4096, "default": "" }
		} }) },
	{ "SwitchPatch", TEXT({
		"type": "object",
		"description": "Changes of a switch.",
		"additionalProperties": false,
		"properties": {
			"name": { "type": "string", "minLength": 1, "maxLength": 100 },
			"type": { "type": "string", "enum": ["external", "internal", "nat", "private"] },
			"notes": { "type": ["string", "null"], "minLength": 0, "maxLength": 4096 }
		} }) },
	{ "Pool", TEXT({
		"type": "object",
		"description": "A resource pool, by which use is told apart.",
		"required": ["id", "name", "notes"],
		"additionalProperties": false,
		"properties": {
			"id": { "type": "string", "minLength": 36, "maxLength": 36 },
			"name": { "type": "string" },
			"notes": { "type": "string" }
		} }) },
	{ "PoolNew", TEXT({
		"type": "object",
		"description": "A pool to be made.",
		"required": ["name"],
		"additionalProperties": false,
		"properties": {
			"name": { "type": "string", "minLength": 1, "maxLength": 100 },
			"notes": { "type": "string", "minLength": 0, "maxLength": 4096, "default": "" }
		} }) },
	{ "PoolPatch", TEXT({
		"type": "object",
		"description": "Changes of a pool.",
		"additionalProperties": false,
		"properties": {
			"name": { "type": "string", "minLength": 1, "maxLength": 100 },
			"notes": { "type": ["string", "null"], "minLength": 0, "maxLength": 4096 }
		} }) },
	{ "Image", TEXT({
		"type": "object",
		"description": "An image that machines can be made from.",
		"required": ["name", "file", "size", "changed", "metadata"],
		"additionalProperties": false,
		"properties": {
			"name": { "type": "string" },
			"file": { "type": "string", "description": "Absolute path of the disk." },
			"size": { "type": "integer", "minimum": 0, "x-unit": "B" },
			"changed": { "type": ["string", "null"] },
			"metadata": { "type": "object", "description": "What its .json file says." }
		} }) },
};
/* clang-format on */

static bool add_written(json_t *components)
{
	for (unsigned i = 0; i < ARRAY_SIZE(written); i++) {
		json_t *json = json_loads(written[i].text, JSON_REJECT_DUPLICATES, NULL);

		if (!json || json_object_set_new(components, written[i].name, json) < 0)
			return false;
	}
	return true;
}

static void add_settings(json_t *components, const struct schema_object *o)
{
	object_add(components, o, FORM_SHOWN, SCHEMA_OFF);
	object_add(components, o, FORM_NEW, SCHEMA_OFF);
	object_add(components, o, FORM_PATCH, SCHEMA_OFF);
}

json_t *components_new(void)
{
	json_t *components = json_object();

	if (!components || !add_written(components)) {
		json_decref(components);
		return NULL;
	}
	add_settings(components, &vm_settings_schema);
	add_settings(components, &host_settings_schema);
	return components;
}
