// SPDX-License-Identifier: MIT
/*
 * schemagen SCHEMA HEADER SOURCE: from a schema file, C structs and the tables that schema.c walks.
 * Runs while Partita is built. Of code it writes only the four functions that name the root's type;
 * README.md beside this file says what a schema may hold and what comes of it.
 */
#include "schema/model.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COLUMNS 100

/* A comment of its own, before what it explains. */
static void write_comment(FILE *out, const char *indent, const char *text)
{
	size_t column = strlen(indent) * 8 + 3;

	if (!text || !*text)
		return;
	if (column + strlen(text) + 3 <= COLUMNS) {
		fprintf(out, "%s/* %s */\n", indent, text);
		return;
	}
	fprintf(out, "%s/*\n%s *", indent, indent);
	while (*text) {
		size_t n = strcspn(text, " ");

		if (column + n + 1 > COLUMNS) {
			fprintf(out, "\n%s *", indent);
			column = strlen(indent) * 8 + 2;
		}
		fprintf(out, " %.*s", (int)n, text);
		column += n + 1;
		text += n + strspn(text + n, " ");
	}
	fprintf(out, "\n%s */\n", indent);
}

static void write_literal(FILE *out, const char *text)
{
	fputc('"', out);
	for (; text && *text; text++) {
		if (*text == '"' || *text == '\\')
			fprintf(out, "\\%c", *text);
		else if (*text < ' ' || *text > '~')
			fprintf(out, "\\%03o", (unsigned char)*text);
		else
			fputc(*text, out);
	}
	fputc('"', out);
}

static void write_upper(FILE *out, const char *text)
{
	for (; *text; text++)
		fputc(isalnum((unsigned char)*text) ? toupper((unsigned char)*text) : '_', out);
}

static void write_enum(FILE *out, const struct model_field *f)
{
	json_t *value;
	size_t i;

	write_comment(out, "", f->description);
	fprintf(out, "enum %s {\n", f->c_name);
	json_array_foreach((json_t *)f->values, i, value)
	{
		fputc('\t', out);
		write_upper(out, f->c_name);
		fputc('_', out);
		write_upper(out, json_string_value(value));
		fputs(",\n", out);
	}
	fprintf(out, "};\nextern const char *const %s_names[%zu];\n\n", f->c_name,
		json_array_size(f->values));
}

/* The type as in a declaration, with the space or star that comes before the name. */
static void write_type(FILE *out, const struct model_field *f)
{
	static const char *const simple[] = {
		[MODEL_BOOL] = "bool ",
		[MODEL_UINT32] = "uint32_t ",
		[MODEL_INT64] = "int64_t ",
		[MODEL_STRING] = "char *",
	};

	if (f->type == MODEL_ENUM)
		fprintf(out, "enum %s ", f->c_name);
	else if (f->type == MODEL_OBJECT)
		fprintf(out, "struct %s ", f->object->c_name);
	else
		fputs(simple[f->type], out);
}

static void write_member(FILE *out, const struct model_field *f)
{
	write_comment(out, "\t", f->description);
	fputc('\t', out);
	write_type(out, f->item ? f->item : f);
	if (f->item)
		fprintf(out, "*%s;\n\tunsigned %s_count;\n", f->c_member, f->c_member);
	else
		fprintf(out, "%s;\n", f->c_member);
}

static void write_struct(FILE *out, const struct model_object *o)
{
	for (size_t i = 0; i < o->field_count; i++) {
		const struct model_field *f = &o->fields[i];

		if (f->item)
			f = f->item;
		if (f->type == MODEL_ENUM)
			write_enum(out, f);
	}
	write_comment(out, "", o->description);
	fprintf(out, "struct %s {\n", o->c_name);
	if (o->optional)
		fputs("\tbool present; /* false: it was left out, the rest is defaults */\n", out);
	for (size_t i = 0; i < o->field_count; i++)
		write_member(out, &o->fields[i]);
	fputs("};\n\n", out);
}

static const struct model_object *root_of(const struct model *m)
{
	const struct model_object *o = m->objects;

	while (o->next)
		o = o->next;
	return o;
}

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

static void write_head(FILE *out, const struct model *m)
{
	fprintf(out,
		"/* SPDX-License-Identifier: MIT */\n"
		"/* Made by schemagen from %s: change that instead. */\n",
		base_name(m->path));
}

static void write_header(FILE *out, const struct model *m)
{
	const char *name = root_of(m)->c_name;

	write_head(out, m);
	fputs("#pragma once\n\n#include \"schema/schema.h\"\n\n", out);
	for (const struct model_object *o = m->objects; o; o = o->next)
		write_struct(out, o);
	fprintf(out, "extern const struct schema_object %s_schema;\n\n", name);
	fputs("/* See schema_init, schema_deinit, schema_parse and schema_format. */\n", out);
	fprintf(out, "int %s_init(struct %s *ret) _must_check_;\n", name, name);
	fprintf(out, "void %s_deinit(struct %s *value);\n", name, name);
	fprintf(out,
		"int %s_parse(const char *text, size_t size, struct %s *ret,\n"
		"\tstruct error *err) _must_check_;\n",
		name, name);
	fprintf(out, "char *%s_format(const struct %s *value) _must_check_;\n", name, name);
}

static void write_names(FILE *out, const struct model_field *f)
{
	json_t *value;
	size_t i;

	fprintf(out, "const char *const %s_names[] = {\n", f->c_name);
	json_array_foreach((json_t *)f->values, i, value)
	{
		fputc('\t', out);
		write_literal(out, json_string_value(value));
		fputs(",\n", out);
	}
	fputs("};\n\n", out);
}

/* What depends on the type alone, as designated initialisers. */
static void write_type_row(FILE *out, const struct model_field *f)
{
	static const char *const names[] = {
		[MODEL_BOOL] = "BOOL",   [MODEL_UINT32] = "UINT32", [MODEL_INT64] = "INT64",
		[MODEL_ENUM] = "ENUM",   [MODEL_STRING] = "STRING", [MODEL_OBJECT] = "OBJECT",
		[MODEL_ARRAY] = "ARRAY",
	};

	fprintf(out, "\t\t.type = SCHEMA_%s,\n", names[f->type]);
	if (f->min == INT64_MIN)
		fputs("\t\t.min = INT64_MIN,\n", out);
	else if (f->min)
		fprintf(out, "\t\t.min = %" PRId64 ",\n", f->min);
	if (f->max)
		fprintf(out, "\t\t.max = %" PRId64 ",\n", f->max);
	if (f->fallback == INT64_MIN)
		fputs("\t\t.fallback = INT64_MIN,\n", out);
	else if (f->fallback)
		fprintf(out, "\t\t.fallback = %" PRId64 ",\n", f->fallback);
	if (f->fallback_text) {
		fputs("\t\t.fallback_text = ", out);
		write_literal(out, f->fallback_text);
		fputs(",\n", out);
	}
	if (f->fallback_object)
		fputs("\t\t.fallback_object = true,\n", out);
	if (f->type == MODEL_ENUM)
		fprintf(out, "\t\t.names = %s_names,\n\t\t.name_count = %zu,\n", f->c_name,
			json_array_size(f->values));
	if (f->type == MODEL_OBJECT)
		fprintf(out, "\t\t.object = &%s_schema,\n", f->object->c_name);
}

static void write_notes(FILE *out, const struct model_field *f)
{
	const struct {
		const char *name, *value;
	} notes[] = { { "unit", f->unit }, { "operation", f->operation }, { "option", f->option } };

	for (size_t i = 0; i < ARRAY_SIZE(notes); i++) {
		if (!notes[i].value)
			continue;
		fprintf(out, "\t\t.%s = ", notes[i].name);
		write_literal(out, notes[i].value);
		fputs(",\n", out);
	}
	if (f->when) {
		fputs("\t\t.when = SCHEMA_", out);
		write_upper(out, f->when);
		fputs(",\n", out);
	}
}

static void write_row(FILE *out, const struct model_object *o, const struct model_field *f)
{
	fprintf(out, "\t{\n\t\t.name = \"%s\",\n\t\t.description = ", f->name);
	write_literal(out, f->description);
	fputs(",\n", out);
	if (f->required)
		fputs("\t\t.required = true,\n", out);
	write_notes(out, f);
	fprintf(out, "\t\t.offset = offsetof(struct %s, %s),\n", o->c_name, f->c_member);
	write_type_row(out, f);
	if (f->item)
		fprintf(out,
			"\t\t.item = &%s_%s_item,\n"
			"\t\t.item_size = sizeof(((struct %s *)0)->%s[0]),\n"
			"\t\t.count_offset = offsetof(struct %s, %s_count),\n",
			o->c_name, f->name, o->c_name, f->c_member, o->c_name, f->c_member);
	fputs("\t},\n", out);
}

static void write_item(FILE *out, const struct model_object *o, const struct model_field *f)
{
	fprintf(out, "static const struct schema_field %s_%s_item = {\n", o->c_name, f->name);
	fputs("\t\t.description = ", out);
	write_literal(out, f->item->description);
	fputs(",\n\t\t.required = true,\n", out);
	write_type_row(out, f->item);
	fputs("};\n\n", out);
}

static void write_tables(FILE *out, const struct model_object *o)
{
	for (size_t i = 0; i < o->field_count; i++) {
		const struct model_field *f = &o->fields[i];

		if ((f->item ? f->item : f)->type == MODEL_ENUM)
			write_names(out, f->item ? f->item : f);
		if (f->item)
			write_item(out, o, f);
	}
	fprintf(out, "static const struct schema_field %s_fields[] = {\n", o->c_name);
	for (size_t i = 0; i < o->field_count; i++)
		write_row(out, o, &o->fields[i]);
	fputs("};\n\n", out);
	fprintf(out, "%sconst struct schema_object %s_schema = {\n", o->next ? "static " : "",
		o->c_name);
	fprintf(out, "\t.name = \"%s\",\n\t.description = ", o->c_name);
	write_literal(out, o->description);
	fprintf(out, ",\n\t.size = sizeof(struct %s),\n", o->c_name);
	if (o->optional)
		fputs("\t.optional = true,\n", out);
	fprintf(out,
		"\t.fields = %s_fields,\n"
		"\t.field_count = ARRAY_SIZE(%s_fields),\n};\n\n",
		o->c_name, o->c_name);
}

static void write_source(FILE *out, const struct model *m, const char *header)
{
	const char *name = root_of(m)->c_name;

	write_head(out, m);
	fprintf(out, "#include \"%s\"\n\n", base_name(header));
	for (const struct model_object *o = m->objects; o; o = o->next)
		write_tables(out, o);
	fprintf(out,
		"int %s_init(struct %s *ret)\n{\n"
		"\treturn schema_init(&%s_schema, ret);\n}\n\n",
		name, name, name);
	fprintf(out,
		"void %s_deinit(struct %s *value)\n{\n"
		"\tschema_deinit(&%s_schema, value);\n}\n\n",
		name, name, name);
	fprintf(out,
		"int %s_parse(const char *text, size_t size, struct %s *ret,\n\tstruct error "
		"*err)\n"
		"{\n\treturn schema_parse(&%s_schema, text, size, ret, err);\n}\n\n",
		name, name, name);
	fprintf(out,
		"char *%s_format(const struct %s *value)\n{\n"
		"\treturn schema_format(&%s_schema, value);\n}\n",
		name, name, name);
}

static FILE *output_open(const char *path)
{
	FILE *out = fopen(path, "w");

	if (!out) {
		perror(path);
		exit(1);
	}
	return out;
}

static void output_close(FILE *out, const char *path)
{
	bool failed = ferror(out);

	if (fclose(out) || failed) {
		perror(path);
		remove(path);
		exit(1);
	}
}

int main(int argc, char **argv)
{
	static struct model m;
	FILE *out;

	if (argc != 4) {
		fputs("usage: schemagen SCHEMA HEADER SOURCE\n", stderr);
		return 2;
	}
	model_read(&m, argv[1]);
	out = output_open(argv[2]);
	write_header(out, &m);
	output_close(out, argv[2]);
	out = output_open(argv[3]);
	write_source(out, &m, argv[2]);
	output_close(out, argv[3]);
	return 0;
}
