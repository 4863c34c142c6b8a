/* SPDX-License-Identifier: MIT */
/*
 * A schema file as schemagen sees it: objects in the order in which C wants their structs. Build
 * time only; a mistake in the file ends the program with its place and what is wrong.
 */
#pragma once

#include "lib/types.h"

#include <jansson.h>

enum model_type {
	MODEL_BOOL,
	MODEL_UINT32,
	MODEL_INT64,
	MODEL_ENUM,
	MODEL_STRING,
	MODEL_OBJECT,
	MODEL_ARRAY,
};

struct model_field {
	const char *name;  /* NULL: the item of an array */
	char c_member[64]; /* the same for C, which has words of its own: "switch_" */
	const char *description;
	const char *unit, *operation, *option, *when; /* NULL: not said */
	enum model_type type;
	bool required;
	bool fallback_object;
	int64_t min, max, fallback;
	const char *fallback_text;
	const json_t *values; /* enum: an array of strings */
	char c_name[128];     /* enum: its tag */
	struct model_object *object;
	struct model_field *item;
};

struct model_object {
	const json_t *json;
	const char *c_name;
	const char *description;
	struct model_field *fields;
	size_t field_count;
	bool optional; /* left out somewhere: needs "bool present" */
	struct model_object *next;
};

struct model {
	const char *path;
	json_t *root;
	struct model_object *objects; /* all, the last is the whole document */
	struct model_object **end;
	unsigned depth; /* of the schema itself, while it is read */
};

void model_read(struct model *m, const char *path);
