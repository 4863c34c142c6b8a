// SPDX-License-Identifier: MIT
/* See command.h. */
#include "control/command.h"

#include "lib/cleanup.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

const struct command_type *command_find(const struct command_family *families, unsigned count,
					const char *name, const struct command_family **ret_family)
{
	for (unsigned i = 0; i < count; i++)
		for (const struct command_type *t = families[i].types; t->name; t++)
			if (!strcmp(t->name, name)) {
				*ret_family = &families[i];
				return t;
			}
	return NULL;
}

char *command_names(const struct command_family *families, unsigned count)
{
	char *names = NULL;
	size_t size;
	FILE *f = open_memstream(&names, &size);
	const char *comma = "";

	if (!f)
		return NULL;
	for (unsigned i = 0; i < count; i++)
		for (const struct command_type *t = families[i].types; t->name; t++) {
			fprintf(f, "%s%s", comma, t->name);
			comma = ", ";
		}
	fclose(f);
	return names;
}

static int keys_check(const struct command_type *type, const json_t *request, struct error *err)
{
	const char *key;
	json_t *value;

	json_object_foreach((json_t *)request, key, value)
	{
		char word[40];

		snprintf(word, sizeof(word), " %s ", key);
		if (strcmp(key, "command") && strcmp(key, "id") &&
		    (strlen(key) > 30 || strchr(key, ' ') || !strstr(type->keys, word)))
			return error_set(err, -EINVAL, "%s has no \"%.30s\"; it has%s", type->name,
					 key, *type->keys ? type->keys : " nothing");
	}
	return 0;
}

int command_run(const struct command_family *family, const struct command_type *type,
		struct command *c, struct error *err)
{
	int r = keys_check(type, c->request, err);

	if (r < 0)
		return r;
	c->context = family->context;
	if (family->state_size) {
		c->state = calloc(1, family->state_size);
		if (!c->state)
			return error_set(err, -ENOMEM, "out of memory");
	}
	r = type->run(c, err);
	if (r < 0 && family->refused)
		family->refused(c);
	return r;
}

/* --- what a request says --- */

int take_number(const json_t *o, const char *key, uint64_t least, uint64_t most, uint64_t *ret,
		struct error *err)
{
	const json_t *v = json_object_get(o, key);
	json_int_t n = json_integer_value(v);

	if (!json_is_integer(v) || n < 0 || (uint64_t)n < least || (uint64_t)n > most)
		return error_set(err, -EINVAL, "\"%s\" must be a whole number from %llu to %llu",
				 key, (unsigned long long)least, (unsigned long long)most);
	*ret = (uint64_t)n;
	return 0;
}

/* The same, with what it is when it is not there. */
int take_number_or(const json_t *o, const char *key, uint64_t otherwise, uint64_t most,
		   uint64_t *ret, struct error *err)
{
	*ret = otherwise;
	return json_object_get(o, key) ? take_number(o, key, 0, most, ret, err) : 0;
}

int take_bool_or(const json_t *o, const char *key, bool otherwise, bool *ret, struct error *err)
{
	const json_t *v = json_object_get(o, key);

	if (v && !json_is_boolean(v))
		return error_set(err, -EINVAL, "\"%s\" must be true or false", key);
	*ret = v ? json_is_true(v) : otherwise;
	return 0;
}

int take_text(const json_t *o, const char *key, bool needed, const char **ret, struct error *err)
{
	const json_t *v = json_object_get(o, key);
	const char *text = json_string_value(v);

	*ret = NULL;
	if (!v && !needed)
		return 0;
	if (!text || strlen(text) != json_string_length(v))
		return error_set(err, -EINVAL, "\"%s\" must be a text", key);
	*ret = text;
	return 0;
}

int take_path(const json_t *o, const char *key, bool needed, const char **ret, struct error *err)
{
	const char *text;

	*ret = NULL;
	if (!json_object_get(o, key) && !needed)
		return 0;
	if (take_text(o, key, true, &text, NULL) < 0 || *text != '/' || strlen(text) > 4095)
		return error_set(err, -EINVAL, "\"%s\" must be an absolute path", key);
	*ret = text;
	return 0;
}

/* A descriptor that came with the request, by its place among them. */
int take_fd(struct command *c, const json_t *o, const char *key, bool needed, int *ret,
	    struct error *err)
{
	uint64_t n;

	*ret = -1;
	if (!json_object_get(o, key) && !needed)
		return 0;
	if (take_number(o, key, 0, INT32_MAX, &n, err) < 0)
		return -EINVAL;
	if (n >= c->fd_count || c->fds[n] < 0)
		return error_set(err, -EBADF,
				 "\"%s\" is descriptor %llu of the request, which was not passed "
				 "with it (SCM_RIGHTS), or is named twice",
				 key, (unsigned long long)n);
	*ret = steal_fd(&c->fds[n]);
	return 0;
}

int take_guid(const json_t *o, const char *key, struct guid *ret, struct error *err)
{
	const char *text = json_string_value(json_object_get(o, key));

	if (!text || guid_parse(text, ret) < 0)
		return error_set(err, -EINVAL, "\"%s\" must be a GUID", key);
	return 0;
}
