// SPDX-License-Identifier: MIT
/*
 * See target.h. The text is copied once and decoded in that copy, which never grows: each %xx
 * becomes one byte. A path is cut at its slashes before it is decoded, so that %2F in a name stays
 * in the name. An escape of NUL is refused, since names are C strings from here on.
 */
#include "rest/target.h"
#include "lib/cleanup.h"

#include <errno.h>
#include <string.h>

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Length of the UTF-8 sequence at `s`, 0 when it is none. */
static unsigned utf8_length(const unsigned char *s)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	unsigned n = s[0] < 0x80       ? 1
		     : s[0] >> 5 == 6  ? 2
		     : s[0] >> 4 == 14 ? 3
		     : s[0] >> 3 == 30 ? 4
				       : 0;
	uint32_t c;

	if (n < 2)
		return n;
	c = s[0] & (0x7f >> n);
	for (unsigned i = 1; i < n; i++) {
		if (s[i] >> 6 != 2)
			return 0;
		c = c << 6 | (s[i] & 0x3f);
	}
	return c < least[n] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000) ? 0 : n;
}

bool text_is_utf8(const char *text)
{
	const unsigned char *s = (const unsigned char *)text;

	for (unsigned n; *s; s += n) {
		n = utf8_length(s);
		if (!n)
			return false;
	}
	return true;
}

/* In place. */
static int decode(char *text, bool plus_is_blank, struct error *err)
{
	char *to = text;

	for (const char *from = text; *from; from++) {
		if (*from == '+' && plus_is_blank) {
			*to++ = ' ';
		} else if (*from == '%') {
			int high = hex_value(from[1]), low = high < 0 ? -1 : hex_value(from[2]);

			if (low < 0 || !(high | low))
				return error_set(err, -EINVAL,
						 "the address has a %% that begins no escape of a "
						 "character");
			*to++ = (char)(high << 4 | low);
			from += 2;
		} else {
			*to++ = *from;
		}
	}
	*to = '\0';
	if (!text_is_utf8(text))
		return error_set(err, -EINVAL, "the address is not UTF-8");
	return 0;
}

static int parse_path(char *path, struct target_text *t, struct error *err)
{
	char *next;
	int r;

	if (*path != '/')
		return error_set(err, -EINVAL, "the address must begin with a slash");
	for (char *part = path + 1; part; part = next) {
		next = strchr(part, '/');
		if (next)
			*next++ = '\0';
		if (t->part_count == TARGET_PARTS_MAX)
			return error_set(err, -E2BIG, "the address has more than %d parts",
					 TARGET_PARTS_MAX);
		r = decode(part, false, err);
		if (r < 0)
			return r;
		t->parts[t->part_count++] = part;
	}
	return 0;
}

static int parse_parameter(char *text, struct target_text *t, struct error *err)
{
	struct target_parameter *p = &t->parameters[t->parameter_count];
	char *value = strchr(text, '=');
	int r;

	if (t->parameter_count == TARGET_QUERY_MAX)
		return error_set(err, -E2BIG, "more than %d parameters", TARGET_QUERY_MAX);
	if (value)
		*value++ = '\0';
	r = decode(text, true, err);
	if (r >= 0 && value)
		r = decode(value, true, err);
	if (r < 0)
		return r;
	if (target_query(t, text))
		return error_set(err, -EINVAL, "the parameter is given twice");
	*p = (struct target_parameter){ text, value ? value : "" };
	t->parameter_count++;
	return 0;
}

static int parse(char *text, struct target_text *t, struct error *err)
{
	char *query = strchr(text, '?'), *next;
	int r;

	if (query)
		*query++ = '\0';
	r = parse_path(text, t, err);
	for (char *p = query; r >= 0 && p; p = next) {
		next = strchr(p, '&');
		if (next)
			*next++ = '\0';
		if (*p)
			r = parse_parameter(p, t, err);
	}
	return r;
}

int target_parse(const char *text, struct target_text *ret, struct error *err)
{
	struct target_text t = { 0 };
	int r;

	if (strnlen(text, TARGET_TEXT_MAX + 1) > TARGET_TEXT_MAX)
		return error_set(err, -E2BIG, "the address is longer than %d bytes",
				 TARGET_TEXT_MAX);
	t.text = strdup(text);
	if (!t.text)
		return error_errno(err, -ENOMEM, "cannot read the address");
	r = parse(t.text, &t, err);
	if (r < 0)
		target_deinit(&t);
	else
		*ret = t;
	return r;
}

void target_deinit(struct target_text *t)
{
	free(t->text);
	*t = (struct target_text){ 0 };
}

const char *target_query(const struct target_text *t, const char *name)
{
	for (unsigned i = 0; i < t->parameter_count; i++) {
		if (!strcmp(t->parameters[i].name, name))
			return t->parameters[i].value;
	}
	return NULL;
}
