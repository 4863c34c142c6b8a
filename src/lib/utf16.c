// SPDX-License-Identifier: MIT
/* See utf16.h. UTF-8 is taken strictly: no overlong forms, no surrogates, nothing beyond U+10FFFF.
 */
#include "lib/utf16.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static unsigned unit_get(const uint8_t *p, enum utf16_order order)
{
	return order == UTF16_LE ? p[0] | (unsigned)p[1] << 8 : p[1] | (unsigned)p[0] << 8;
}

static void unit_put(uint8_t *p, unsigned unit, enum utf16_order order)
{
	p[order == UTF16_LE ? 0 : 1] = (uint8_t)unit;
	p[order == UTF16_LE ? 1 : 0] = (uint8_t)(unit >> 8);
}

static char *utf8_put(char *out, uint32_t c)
{
	if (c < 0x80) {
		*out++ = (char)c;
		return out;
	}
	if (c < 0x800) {
		*out++ = (char)(0xc0 | c >> 6);
	} else if (c < 0x10000) {
		*out++ = (char)(0xe0 | c >> 12);
		*out++ = (char)(0x80 | (c >> 6 & 0x3f));
	} else {
		*out++ = (char)(0xf0 | c >> 18);
		*out++ = (char)(0x80 | (c >> 12 & 0x3f));
		*out++ = (char)(0x80 | (c >> 6 & 0x3f));
	}
	*out++ = (char)(0x80 | (c & 0x3f));
	return out;
}

/* The character at p, of which `left` units remain; its units, or 0 when it is none. */
static size_t char_get(const uint8_t *p, size_t left, enum utf16_order order, uint32_t *ret)
{
	unsigned first = unit_get(p, order), second;

	*ret = first;
	if (first < 0xd800 || first > 0xdfff)
		return 1;
	if (first > 0xdbff || left < 2)
		return 0;
	second = unit_get(p + 2, order);
	if (second < 0xdc00 || second > 0xdfff)
		return 0;
	*ret = 0x10000 + ((first & 0x3ff) << 10 | (second & 0x3ff));
	return 2;
}

char *utf16_decode(const void *bytes, size_t size, enum utf16_order order)
{
	size_t units = size / 2, n;
	const uint8_t *p = bytes;
	char *text = malloc(units * 3 + 1), *out = text;
	uint32_t c;

	if (!text)
		return NULL;
	for (; units; units -= n, p += 2 * n) {
		n = char_get(p, units, order, &c);
		if (!n) {
			free(text);
			errno = EILSEQ;
			return NULL;
		}
		if (!c)
			break;
		out = utf8_put(out, c);
	}
	*out = '\0';
	return text;
}

/* The character at *p, which moves on; UINT32_MAX when it is none. */
static uint32_t utf8_get(const char **p)
{
	static const uint32_t least[] = { 0, 0x80, 0x800, 0x10000 };
	uint8_t lead = (uint8_t) * (*p)++;
	unsigned more = lead < 0x80 ? 0 : lead < 0xe0 ? 1 : lead < 0xf0 ? 2 : 3;
	uint32_t c = more ? lead & (0x3fu >> more) : lead;

	if ((lead >= 0x80 && lead < 0xc2) || lead > 0xf4)
		return UINT32_MAX;
	for (unsigned i = 0; i < more; i++) {
		uint8_t next = (uint8_t) * *p;

		if ((next & 0xc0) != 0x80)
			return UINT32_MAX;
		c = c << 6 | (next & 0x3f);
		(*p)++;
	}
	if (c < least[more] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
		return UINT32_MAX;
	return c;
}

size_t utf16_encode(const char *text, void *bytes, size_t room, enum utf16_order order)
{
	uint8_t *out = bytes;
	size_t need = 0;

	for (const char *p = text; *p;) {
		uint32_t c = utf8_get(&p);

		if (c == UINT32_MAX)
			return 0;
		need += c < 0x10000 ? 2 : 4;
	}
	if (need > room)
		return need;
	for (const char *p = text; *p;) {
		uint32_t c = utf8_get(&p);

		if (c >= 0x10000) {
			unit_put(out, 0xd800 | (c - 0x10000) >> 10, order);
			out += 2;
			c = 0xdc00 | ((c - 0x10000) & 0x3ff);
		}
		unit_put(out, c, order);
		out += 2;
	}
	return need;
}
