// SPDX-License-Identifier: MIT
/*
 * Parameters of the query. All are checked against the route before a handler is called, so that
 * it reads them without a look at errors; what the route does not have is refused.
 */
#include "rest/api.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

static const struct parameter list_parameters[] = {
	{ "limit", "Things in the answer, at most.", PARAMETER_INTEGER, 1, API_LIST_MAX, NULL },
	{ "cursor", "Goes on after the page that had it as its next.", PARAMETER_TEXT, 1, 2048,
	  NULL },
	{ "fields", "Only these members, by their paths, separated by commas.", PARAMETER_TEXT, 1,
	  2048, NULL },
	{ 0 },
};

static const struct parameter wait_parameters[] = {
	{ "wait", "Seconds to wait for the job's end.", PARAMETER_INTEGER, 0, API_WAIT_MAX, NULL },
	{ 0 },
};

static const struct parameter *find_in(const struct parameter *p, const char *name)
{
	for (; p && p->name; p++) {
		if (!strcmp(p->name, name))
			return p;
	}
	return NULL;
}

const struct parameter *route_parameters(const struct route *route, unsigned which)
{
	switch (which) {
	case 0:
		return route->parameters;
	case 1:
		return route->flags & ROUTE_LIST ? list_parameters : NULL;
	case 2:
		return route->flags & ROUTE_WAIT ? wait_parameters : NULL;
	default:
		return NULL;
	}
}

static const struct parameter *find(const struct route *route, const char *name)
{
	const struct parameter *p = NULL;

	for (unsigned i = 0; i < ROUTE_PARAMETER_GROUPS && !p; i++)
		p = find_in(route_parameters(route, i), name);
	return p;
}

static bool integer_parse(const char *text, int64_t *ret)
{
	char *end;

	errno = 0;
	*ret = strtoll(text, &end, 10);
	return !errno && *text && !*end && strspn(text, "-0123456789") == strlen(text);
}

static bool one_of(const char *const *names, const char *value)
{
	for (; *names; names++) {
		if (!strcmp(*names, value))
			return true;
	}
	return false;
}

static int refuse(const struct parameter *p, struct error *err, const char *words)
{
	error_set(err, -EINVAL, "parameter \"%s\" %s", p->name, words);
	snprintf(err->property, sizeof(err->property), "%s", p->name);
	return -EINVAL;
}

static int check_integer(const struct parameter *p, const char *value, struct error *err)
{
	char words[100];
	int64_t v;

	if (integer_parse(value, &v) && v >= p->min && v <= p->max)
		return 0;
	snprintf(words, sizeof(words), "must be an integer from %" PRId64 " to %" PRId64, p->min,
		 p->max);
	return refuse(p, err, words);
}

static int check_text(const struct parameter *p, const char *value, struct error *err)
{
	char words[200] = "must be one of:";
	size_t n = strlen(words);

	if (p->names && !one_of(p->names, value)) {
		for (const char *const *name = p->names; *name && n < sizeof(words); name++)
			n += (size_t)snprintf(words + n, sizeof(words) - n, " %s", *name);
		return refuse(p, err, words);
	}
	if (!p->names && (strlen(value) < (size_t)p->min || strlen(value) > (size_t)p->max)) {
		snprintf(words, sizeof(words), "must have %" PRId64 " to %" PRId64 " bytes", p->min,
			 p->max);
		return refuse(p, err, words);
	}
	return 0;
}

static int check(const struct parameter *p, const char *value, struct error *err)
{
	switch (p->type) {
	case PARAMETER_INTEGER:
		return check_integer(p, value, err);
	case PARAMETER_BOOL:
		if (!*value || !strcmp(value, "true") || !strcmp(value, "false"))
			return 0;
		return refuse(p, err, "must be true or false");
	case PARAMETER_TEXT:
		return check_text(p, value, err);
	}
	return 0;
}

int call_check_query(struct call *call, struct error *err)
{
	const struct target_text *t = &call->r->target;
	int r = 0;

	for (unsigned i = 0; i < t->parameter_count && r >= 0; i++) {
		const struct parameter *p = find(call->route, t->parameters[i].name);

		if (p) {
			r = check(p, t->parameters[i].value, err);
			continue;
		}
		r = error_set(err, -EINVAL, "there is no parameter \"%.60s\" here",
			      t->parameters[i].name);
		snprintf(err->property, sizeof(err->property), "%.60s", t->parameters[i].name);
	}
	return r;
}

const char *call_text(struct call *call, const char *name)
{
	return target_query(&call->r->target, name);
}

int64_t call_integer(struct call *call, const char *name, int64_t fallback)
{
	const char *text = call_text(call, name);
	int64_t v;

	return text && integer_parse(text, &v) ? v : fallback;
}

bool call_bool(struct call *call, const char *name, bool fallback)
{
	const char *text = call_text(call, name);

	return text ? strcmp(text, "false") != 0 : fallback;
}
