// SPDX-License-Identifier: MIT
/* See words.h. UTF-8 as in RFC 3629: no surrogates, nothing above U+10FFFF, no longer form than
 * due. */
#include "daemon/words.h"

#include "lib/cleanup.h"

#include <errno.h>
#include <string.h>
#include <time.h>

/* Bytes of the character at `p`, 0 when it is none. The NUL ends a character that is cut. */
static unsigned utf8_length(const unsigned char *p)
{
	static const struct {
		unsigned char first, last, second_first, second_last, length;
	} forms[] = {
		{ 0x01, 0x7f, 0, 0, 1 },       { 0xc2, 0xdf, 0x80, 0xbf, 2 },
		{ 0xe0, 0xe0, 0xa0, 0xbf, 3 }, { 0xe1, 0xec, 0x80, 0xbf, 3 },
		{ 0xed, 0xed, 0x80, 0x9f, 3 }, { 0xee, 0xef, 0x80, 0xbf, 3 },
		{ 0xf0, 0xf0, 0x90, 0xbf, 4 }, { 0xf1, 0xf3, 0x80, 0xbf, 4 },
		{ 0xf4, 0xf4, 0x80, 0x8f, 4 },
	};
	unsigned i = 0;

	while (i < ARRAY_SIZE(forms) && (*p < forms[i].first || *p > forms[i].last))
		i++;
	if (i == ARRAY_SIZE(forms))
		return 0;
	if (forms[i].length > 1 && (p[1] < forms[i].second_first || p[1] > forms[i].second_last))
		return 0;
	for (unsigned n = 2; n < forms[i].length; n++) {
		if ((p[n] & 0xc0) != 0x80)
			return 0;
	}
	return forms[i].length;
}

void text_clean(char *text)
{
	while (*text) {
		unsigned n = utf8_length((const unsigned char *)text);

		if (!n)
			*text = '?';
		text += MAX(n, 1u);
	}
}

json_t *json_text(const char *text)
{
	_cleanup_free_ char *copy = NULL;

	if (!text)
		return json_null();
	copy = strdup(text);
	if (!copy)
		return NULL;
	text_clean(copy);
	return json_string(copy);
}

json_t *json_time(int64_t ms)
{
	time_t seconds = (time_t)(ms / 1000);
	struct tm tm;
	char date[32];

	if (ms <= 0 || !gmtime_r(&seconds, &tm) || tm.tm_year > 9999 - 1900)
		return json_null();
	strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &tm);
	return json_sprintf("%s.%03dZ", date, (int)(ms % 1000));
}

static const struct {
	int code;
	const char *name;
} codes[] = {
	{ -EINVAL, "invalid" },
	{ -ERANGE, "invalid" },
	{ -EACCES, "forbidden" },
	{ -EPERM, "forbidden" },
	{ -ENOENT, "not-found" },
	{ -ENOTUNIQ, "not-unique" },
	{ -EEXIST, "exists" },
	{ -EKEYREJECTED, "key-reused" },
	{ -EBADFD, "wrong-state" },
	{ -EBUSY, "busy" },
	{ -EUCLEAN, "broken" },
	{ -ESTALE, "changed" },
	{ -EFBIG, "too-large" },
	{ -EOPNOTSUPP, "unsupported" },
	{ -ENOMEM, "not-enough-memory" },
	{ -ENOSPC, "no-space" },
	{ -ETIMEDOUT, "timeout" },
	{ -ECANCELED, "cancelled" },
	{ -EINTR, "interrupted" },
};

const char *error_code_name(int code)
{
	for (unsigned i = 0; i < ARRAY_SIZE(codes); i++) {
		if (codes[i].code == code)
			return codes[i].name;
	}
	return "internal";
}
