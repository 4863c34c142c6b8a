// SPDX-License-Identifier: MIT
/* See setting.h. Walks the tables; what it knows by itself are units, paths of files, arrays. */
#include "cli/setting.h"

#include "lib/cleanup.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#define PATH_TEXT_MAX 128
#define HELP_MAX      512

/* --- what the schemas do not say --- */

/* Settings that name files of this machine, from the present folder if it has them. */
static const char *const file_settings[] = { "boot.kernel", "boot.initrd", "path", "set",
					     "client_ca" };
static const char *const folder_settings[] = { "checkpoints.folder", "smart_paging_folder",
					       "machine_folder", "disk_folder", "image_folder" };

/* Options that add an item to an array. */
static const struct array_option {
	const char *name, *array, *first; /* `first` is the key of the word before the comma */
	const char *preset_key, *preset;  /* what the option itself says */
	const char *help;
} array_options[] = {
	{ "disk", "scsi_controllers", "path", "kind", "disk",
	  "a disk on a SCSI controller, at the first free location unless said" },
	{ "dvd", "scsi_controllers", "path", "kind", "dvd",
	  "a DVD drive with an ISO image; an empty one: --dvd ''" },
	{ "adapter", "network_adapters", "switch", NULL, NULL,
	  "a network adapter on that switch; on none: --adapter ''" },
	{ "com", "com_ports", "kind", NULL, NULL,
	  "a serial port, COM1 and then COM2: none, console, socket or pty" },
};

static bool one_of(const char *path, const char *const *paths, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (!strcmp(path, paths[i]))
			return true;
	return false;
}

static const struct array_option *array_find(const struct schema_object *schema, const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(array_options); i++)
		if (!strcmp(array_options[i].name, name) &&
		    schema_find(schema, array_options[i].array))
			return &array_options[i];
	return NULL;
}

/* The items that the option describes: a drive is in a controller's array of its own. */
static const struct schema_object *array_item(const struct schema_object *schema,
					      const struct array_option *a)
{
	const struct schema_field *f = schema_find(schema, a->array);
	const struct schema_field *drives = schema_find(f->item->object, "drives");

	return drives ? drives->item->object : f->item->object;
}

/* --- names --- */

static void dashes(char *name)
{
	for (; *name; name++)
		if (*name == '_' || *name == '.')
			*name = '-';
}

static void option_name(const struct schema_field *f, const char *path,
			char name[static SETTING_NAME_MAX])
{
	snprintf(name, SETTING_NAME_MAX, "%s", f->option ? f->option : path);
	dashes(name);
}

struct walk {
	enum command_settings which;
	/* Other than 0 ends it. */
	int (*field)(void *context, const struct schema_field *f, const char *path);
	void *context;
};

static int walk_object(const struct walk *w, const struct schema_object *o, const char *above,
		       enum schema_when when)
{
	char path[PATH_TEXT_MAX];
	int r = 0;

	for (unsigned i = 0; i < o->field_count && !r; i++) {
		const struct schema_field *f = &o->fields[i];
		enum schema_when here = f->when == SCHEMA_AS_ABOVE ? when : f->when;

		if (here == SCHEMA_NOT_SET || (here == SCHEMA_NEVER && w->which == SETTINGS_CHANGE))
			continue;
		snprintf(path, sizeof(path), "%s%s%s", above, *above ? "." : "", f->name);
		if (f->type == SCHEMA_OBJECT)
			r = walk_object(w, f->object, path, here);
		else if (f->type != SCHEMA_ARRAY)
			r = w->field(w->context, f, path);
	}
	return r;
}

static int walk(const struct walk *w, const struct schema_object *o)
{
	return walk_object(w, o, "", SCHEMA_OFF);
}

struct search {
	const char *name;
	const struct schema_field *field;
	char path[PATH_TEXT_MAX];
	bool negated;
};

static int search_field(void *context, const struct schema_field *f, const char *path)
{
	struct search *s = context;
	char name[SETTING_NAME_MAX];

	option_name(f, path, name);
	s->negated =
		f->type == SCHEMA_BOOL && !strncmp(s->name, "no-", 3) && !strcmp(s->name + 3, name);
	if (strcmp(s->name, name) && !s->negated)
		return 0;
	s->field = f;
	snprintf(s->path, sizeof(s->path), "%s", path);
	return 1;
}

static bool search(const struct schema_object *schema, enum command_settings which,
		   const char *name, struct search *ret)
{
	*ret = (struct search){ .name = name };
	return walk(&(struct walk){ which, search_field, ret }, schema) == 1;
}

void setting_option(const struct schema_object *schema, const char *path,
		    char name[static SETTING_NAME_MAX])
{
	const struct schema_field *f = schema_find(schema, path);

	name[0] = 0;
	for (size_t i = 0; i < ARRAY_SIZE(array_options) && !name[0]; i++)
		if (!strncmp(path, array_options[i].array, strlen(array_options[i].array)) &&
		    schema_find(schema, array_options[i].array))
			snprintf(name, SETTING_NAME_MAX, "%s", array_options[i].name);
	if (!name[0] && f && f->type != SCHEMA_OBJECT && f->type != SCHEMA_ARRAY)
		option_name(f, path, name);
}

/* --- values --- */

static const struct unit {
	const char *field, *suffix;
	double factor; /* how much of the field's own unit it is */
} units[] = {
	{ "MiB", "K", 1.0 / 1024 },
	{ "MiB", "M", 1 },
	{ "MiB", "G", 1024 },
	{ "MiB", "T", 1024.0 * 1024 },
	{ "s", "s", 1 },
	{ "s", "m", 60 },
	{ "s", "h", 3600 },
	{ "s", "d", 86400 },
	{ "min", "m", 1 },
	{ "min", "h", 60 },
	{ "min", "d", 1440 },
	{ "d", "d", 1 },
	{ "d", "w", 7 },
	{ "percent", "%", 1 },
	{ "bit/s", "K", 1e3 },
	{ "bit/s", "M", 1e6 },
	{ "bit/s", "G", 1e9 },
};

static void unit_words(const struct schema_field *f, char *text, size_t size)
{
	size_t at = 0;

	for (size_t i = 0; f->unit && i < ARRAY_SIZE(units) && at < size; i++)
		if (!strcmp(units[i].field, f->unit))
			at += (size_t)snprintf(text + at, size - at, "%s%s", at ? ", " : "",
					       units[i].suffix);
	if (!at)
		*text = 0;
}

/* "MiB" and "Mi" and "MB" mean M here, since the field's unit is binary. */
static double unit_factor(const struct schema_field *f, const char *suffix)
{
	if (!*suffix || (f->unit && !strcasecmp(suffix, f->unit)))
		return 1;
	for (size_t i = 0; f->unit && i < ARRAY_SIZE(units); i++) {
		const char *rest = suffix + 1;

		if (strcmp(units[i].field, f->unit) ||
		    toupper((unsigned char)*suffix) != toupper((unsigned char)*units[i].suffix))
			continue;
		if (!*rest || (!strcmp(f->unit, "MiB") &&
			       (!strcasecmp(rest, "ib") || !strcasecmp(rest, "b"))))
			return units[i].factor;
	}
	return 0;
}

static int parse_integer(const struct schema_field *f, const char *text, json_t **ret,
			 struct error *err)
{
	char *end = (char *)text, words[64];
	double value = isdigit((unsigned char)*text) ? strtod(text, &end) : -1;
	double factor = unit_factor(f, end);

	unit_words(f, words, sizeof(words));
	if (end == text || !factor || strpbrk(text, "xXpP"))
		return error_set(err, -EINVAL, "\"%s\" is no number%s%s; write it in %s%s%s", text,
				 f->unit ? " of " : "", f->unit ? f->unit : "",
				 f->unit ? f->unit : "digits", *words ? ", or with " : "", words);
	value *= factor;
	if (value < (double)f->min || value > (double)f->max)
		return error_set(err, -EINVAL, "%s is outside %" PRId64 " to %" PRId64 "%s%s", text,
				 f->min, f->max, f->unit ? " " : "", f->unit ? f->unit : "");
	if (value != (double)(int64_t)value)
		return error_set(err, -EINVAL, "%s is not a whole number%s%s", text,
				 f->unit ? " of " : "", f->unit ? f->unit : "");
	*ret = json_integer((json_int_t)value);
	return 0;
}

static int parse_bool(const struct schema_field *f, const char *text, json_t **ret,
		      struct error *err)
{
	static const char *const yes[] = { "yes", "true", "on", "1" };
	static const char *const no[] = { "no", "false", "off", "0" };

	(void)f;
	if (!*text || one_of(text, yes, ARRAY_SIZE(yes)))
		*ret = json_true();
	else if (one_of(text, no, ARRAY_SIZE(no)))
		*ret = json_false();
	else
		return error_set(err, -EINVAL, "\"%s\" is neither yes nor no", text);
	return 0;
}

static int parse_enum(const struct schema_field *f, const char *text, json_t **ret,
		      struct error *err)
{
	struct nearest n = { .word = text };
	char list[256] = "";

	for (unsigned i = 0; i < f->name_count; i++) {
		size_t at = strlen(list);

		if (!strcmp(text, f->names[i])) {
			*ret = json_string(text);
			return 0;
		}
		nearest_try(&n, f->names[i]);
		snprintf(list + at, sizeof(list) - at, "%s%s",
			 !i                      ? ""
			 : i + 1 < f->name_count ? ", "
						 : " or ",
			 f->names[i]);
	}
	if (n.best)
		return error_set(err, -EINVAL, "\"%s\" is none of %s; did you mean %s?", text, list,
				 n.best);
	return error_set(err, -EINVAL, "\"%s\" is none of %s", text, list);
}

/* A file that is here is named by its full path: the service has another present folder. */
static json_t *file_json(const char *text)
{
	_cleanup_free_ char *path = *text != '/' ? realpath(text, NULL) : NULL;

	return json_string(path ? path : text);
}

static int parse_string(const struct schema_field *f, const char *path, const char *text,
			json_t **ret, struct error *err)
{
	bool here = one_of(path, file_settings, ARRAY_SIZE(file_settings)) ||
		    one_of(path, folder_settings, ARRAY_SIZE(folder_settings));

	/* what may be left out is taken away with an empty text */
	if (!*text && (!f->fallback_text || f->min > 0)) {
		*ret = json_null();
		return f->required ? error_set(err, -EINVAL, "it may not be empty") : 0;
	}
	*ret = here && *text ? file_json(text) : json_string(text);
	return *ret ? 0 : error_set(err, -EINVAL, "\"%s\" is not UTF-8", text);
}

static int parse_value(const struct schema_field *f, const char *path, const char *text,
		       json_t **ret, struct error *err)
{
	switch (f->type) {
	case SCHEMA_BOOL:
		return parse_bool(f, text, ret, err);
	case SCHEMA_UINT32:
	case SCHEMA_INT64:
		return parse_integer(f, text, ret, err);
	case SCHEMA_ENUM:
		return parse_enum(f, text, ret, err);
	case SCHEMA_STRING:
		return parse_string(f, path, text, ret, err);
	case SCHEMA_OBJECT:
	case SCHEMA_ARRAY:
		break;
	}
	return error_set(err, -EINVAL, "it cannot be set by an option");
}

/* --- items of arrays --- */

static int no_key(const struct schema_object *item, const char *word, struct error *err)
{
	char list[400] = "controller=";

	for (unsigned i = 0; i < item->field_count; i++) {
		char name[SETTING_NAME_MAX];
		size_t at = strlen(list);

		snprintf(name, sizeof(name), "%s", item->fields[i].name);
		dashes(name);
		snprintf(list + at, sizeof(list) - at, ", %s%s", name,
			 item->fields[i].type == SCHEMA_BOOL ? "" : "=");
	}
	return error_set(err, -EINVAL, "there is no \"%s\"; there are %s", word,
			 strcmp(item->name, "vm_drive") ? list + strlen("controller=, ") : list);
}

static int item_word(const struct schema_object *item, char *word, json_t *o, struct error *err)
{
	char *value = strchr(word, '=');
	size_t n = value ? (size_t)(value - word) : strlen(word);
	json_t *v;
	int r;

	if (value && n == strlen("controller") && !strncmp(word, "controller", n) &&
	    !strcmp(item->name, "vm_drive")) {
		static const struct schema_field controller = { .type = SCHEMA_UINT32, .max = 3 };

		r = parse_integer(&controller, value + 1, &v, err);
		return r < 0 ? error_prefix(err, "controller")
			     : json_object_set_new(o, "controller", v);
	}
	for (unsigned i = 0; i < item->field_count; i++) {
		const struct schema_field *f = &item->fields[i];
		char name[SETTING_NAME_MAX];

		snprintf(name, sizeof(name), "%s", f->name);
		dashes(name);
		if (strlen(name) != n || strncmp(name, word, n) ||
		    (!value && f->type != SCHEMA_BOOL))
			continue;
		r = parse_value(f, f->name, value ? value + 1 : "", &v, err);
		return r < 0 ? error_prefix(err, "%s", name) : json_object_set_new(o, f->name, v);
	}
	return no_key(item, word, err);
}

/* A word before the first comma that has no "=" of a key is the first key's. */
static int apply_array(const struct schema_object *schema, const struct array_option *a,
		       json_t *patch, const char *text, struct error *err)
{
	const struct schema_object *item = array_item(schema, a);
	const struct schema_field *first = schema_find(item, a->first);
	_cleanup_free_ char *copy = strdup(text);
	json_t *list = json_object_get(patch, a->array), *o = json_object(), *v = NULL;
	char *rest = copy, *word = copy ? strsep(&rest, ",") : NULL;
	int r = copy && o ? 0 : error_set(err, -ENOMEM, "out of memory");

	if (r >= 0 && a->preset)
		json_object_set_new(o, a->preset_key, json_string(a->preset));
	if (r >= 0 && *word)
		r = parse_value(first, first->name, word, &v, err);
	if (v)
		json_object_set_new(o, first->name, v);
	while (r >= 0 && rest && (word = strsep(&rest, ",")))
		r = item_word(item, word, o, err);
	if (r < 0) {
		json_decref(o);
		return r;
	}
	if (!list) {
		list = json_array();
		json_object_set_new(patch, a->array, list);
	}
	json_array_append_new(list, o);
	return 0;
}

/* --- options --- */

int setting_find(const struct schema_object *schema, enum command_settings which, const char *name,
		 bool *ret_flag)
{
	struct search s;

	if (array_find(schema, name)) {
		*ret_flag = false;
		return 0;
	}
	if (!search(schema, which, name, &s))
		return -ENOENT;
	*ret_flag = s.field->type == SCHEMA_BOOL;
	return 0;
}

static json_t *section_of(json_t *patch, char *path, const char **ret_key)
{
	char *dot;

	while ((dot = strchr(path, '.'))) {
		json_t *inner;

		*dot = 0;
		inner = json_object_get(patch, path);
		if (!inner) {
			inner = json_object();
			json_object_set_new(patch, path, inner);
		}
		patch = inner;
		path = dot + 1;
	}
	*ret_key = path;
	return patch;
}

int setting_apply(const struct schema_object *schema, json_t *patch, const char *name,
		  const char *text, struct error *err)
{
	const struct array_option *a = array_find(schema, name);
	const char *key;
	struct search s;
	json_t *value;
	int r;

	if (a) {
		r = apply_array(schema, a, patch, text, err);
		return r < 0 ? error_prefix(err, "--%s %s", name, text) : 0;
	}
	if (!search(schema, SETTINGS_ALL, name, &s))
		return error_set(err, -ENOENT, "there is no option --%s", name);
	r = parse_value(s.field, s.path, s.negated ? "no" : text, &value, err);
	if (r < 0)
		return error_prefix(err, "--%s", name);
	patch = section_of(patch, s.path, &key);
	return json_object_set_new(patch, key, value) < 0 ? -ENOMEM : 0;
}

struct each {
	void (*each)(void *context, const struct command_option *o);
	void *context;
};

static void help_of(const struct schema_field *f, char *help, size_t size)
{
	size_t n = strlen(f->description);
	char value[64] = "";

	if (f->type == SCHEMA_UINT32 || f->type == SCHEMA_INT64)
		snprintf(value, sizeof(value), "%" PRId64, f->fallback);
	else if (f->type == SCHEMA_ENUM && f->fallback < (int64_t)f->name_count)
		snprintf(value, sizeof(value), "%s", f->names[f->fallback]);
	else if (f->type == SCHEMA_BOOL)
		snprintf(value, sizeof(value), "%s", f->fallback ? "yes" : "no");
	else if (f->fallback_text && *f->fallback_text)
		snprintf(value, sizeof(value), "%s", f->fallback_text);
	/* a sentence in the schema, a phrase here */
	if (n && f->description[n - 1] == '.')
		n--;
	snprintf(help, size, "%.*s%s%s%s", (int)n, f->description, *value ? " (" : "", value,
		 *value ? ")" : "");
}

static void value_of(const struct schema_field *f, const char *path, char *value, size_t size)
{
	size_t at = 0;

	*value = 0;
	for (unsigned i = 0; f->type == SCHEMA_ENUM && i < f->name_count && at < size; i++)
		at += (size_t)snprintf(value + at, size - at, "%s%s", i ? "|" : "", f->names[i]);
	if (f->type == SCHEMA_UINT32 || f->type == SCHEMA_INT64)
		snprintf(value, size, "%s", f->unit && strcmp(f->unit, "percent") ? f->unit : "N");
	if (f->unit && !strcmp(f->unit, "percent"))
		snprintf(value, size, "PERCENT");
	if (f->type == SCHEMA_STRING)
		snprintf(value, size, "%s",
			 one_of(path, file_settings, ARRAY_SIZE(file_settings))       ? "FILE"
			 : one_of(path, folder_settings, ARRAY_SIZE(folder_settings)) ? "FOLDER"
										      : "TEXT");
}

static enum word_kind kind_of(const struct schema_field *f, const char *value)
{
	if (f->type == SCHEMA_BOOL)
		return WORD_NONE;
	if (f->type == SCHEMA_ENUM)
		return WORD_CHOICE;
	if (!strcmp(value, "FILE"))
		return WORD_FILE;
	return !strcmp(value, "FOLDER") ? WORD_FOLDER : WORD_TEXT;
}

static int each_field(void *context, const struct schema_field *f, const char *path)
{
	const struct each *e = context;
	char name[SETTING_NAME_MAX], negated[SETTING_NAME_MAX + 3], value[200], help[HELP_MAX];
	struct command_option o = { .name = name, .help = help };

	option_name(f, path, name);
	help_of(f, help, sizeof(help));
	value_of(f, path, value, sizeof(value));
	o.kind = kind_of(f, value);
	o.value = o.kind == WORD_NONE ? NULL : value;
	e->each(e->context, &o);
	if (f->type != SCHEMA_BOOL)
		return 0;
	snprintf(negated, sizeof(negated), "no-%s", name);
	o.name = negated;
	o.help = SETTING_NOT;
	e->each(e->context, &o);
	return 0;
}

/* FILE[,location=N][,read-only]... */
static void item_value(const struct schema_object *item, const struct array_option *a, char *value,
		       size_t size)
{
	const struct schema_field *first = schema_find(item, a->first);
	size_t at;

	value_of(first, first->name, value, size);
	if (!strcmp(value, "TEXT"))
		snprintf(value, size, "SWITCH");
	at = strlen(value);
	at += (size_t)snprintf(value + at, size - at, "[,KEY=VALUE...]");
	(void)at;
}

static void item_help(const struct schema_object *item, const struct array_option *a, char *help,
		      size_t size)
{
	size_t at = (size_t)snprintf(help, size, "%s; keys:%s", a->help,
				     strcmp(item->name, "vm_drive") ? "" : " controller");

	for (unsigned i = 0; i < item->field_count && at < size; i++) {
		const struct schema_field *f = &item->fields[i];
		char name[SETTING_NAME_MAX];

		if (a->preset_key && !strcmp(f->name, a->preset_key))
			continue;
		snprintf(name, sizeof(name), "%s", f->name);
		dashes(name);
		at += (size_t)snprintf(help + at, size - at, " %s", name);
	}
}

void setting_each(const struct schema_object *schema, enum command_settings which,
		  void (*each)(void *context, const struct command_option *o), void *context)
{
	struct each e = { each, context };

	if (which == SETTINGS_NONE)
		return;
	walk(&(struct walk){ which, each_field, &e }, schema);
	for (size_t i = 0; i < ARRAY_SIZE(array_options); i++) {
		const struct array_option *a = &array_options[i];
		char value[200], help[HELP_MAX];
		const struct schema_object *item;

		if (!schema_find(schema, a->array))
			continue;
		item = array_item(schema, a);
		item_value(item, a, value, sizeof(value));
		item_help(item, a, help, sizeof(help));
		each(context, &(struct command_option){
				      a->name, !strcmp(a->first, "path") ? WORD_FILE : WORD_TEXT,
				      value, help });
	}
}
