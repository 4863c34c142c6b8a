// SPDX-License-Identifier: MIT
/* GUID text and randomness; see guid.h for the layout. */
#include "lib/guid.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <sys/random.h>

/* Which byte stands at each printed pair of digits. */
static const uint8_t text_order[16] = { 3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15 };

static bool dash_before(size_t i)
{
	return i == 4 || i == 6 || i == 8 || i == 10;
}

struct guid guid_random(void)
{
	struct guid g;
	ssize_t n = getrandom(&g, sizeof(g), 0);

	assert(n == sizeof(g));
	g.b[7] = (uint8_t)((g.b[7] & 0x0f) | 0x40);
	g.b[8] = (uint8_t)((g.b[8] & 0x3f) | 0x80);
	return g;
}

const char *guid_format(const struct guid *g, char text[static GUID_TEXT_SIZE])
{
	char *p = text;

	for (size_t i = 0; i < 16; i++) {
		if (dash_before(i))
			*p++ = '-';
		snprintf(p, 3, "%02x", g->b[text_order[i]]);
		p += 2;
	}
	return text;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = (char)tolower((unsigned char)c);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int guid_parse(const char *text, struct guid *ret)
{
	bool braces = *text == '{';
	struct guid g;

	text += braces;
	for (size_t i = 0; i < 16; i++) {
		int high, low;

		if (dash_before(i) && *text++ != '-')
			return -EINVAL;
		high = hex_digit(text[0]);
		low = high < 0 ? -1 : hex_digit(text[1]);
		if (low < 0)
			return -EINVAL;
		g.b[text_order[i]] = (uint8_t)(high << 4 | low);
		text += 2;
	}
	if (braces && *text++ != '}')
		return -EINVAL;
	if (*text)
		return -EINVAL;
	*ret = g;
	return 0;
}
