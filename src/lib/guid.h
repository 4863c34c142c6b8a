/* SPDX-License-Identifier: MIT */
/*
 * GUIDs in Windows' binary layout: the first three fields are little-endian, the last eight bytes
 * are as printed (MS-DTYP 2.3.4.2).
 */
#pragma once

#include "lib/types.h"

#include <string.h>

#define GUID_TEXT_SIZE 37 /* "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx" and the NUL */

struct guid {
	uint8_t b[16];
};

/* GUID(0xba6163d9, 0x04a1, 0x4d29, 0xb6, 0x05, ...): an initialiser from the printed groups. */
#define GUID(a, c, d, e0, e1, e2, e3, e4, e5, e6, e7)                                              \
	{                                                                                          \
		{                                                                                  \
			(uint8_t)(a), (uint8_t)((a) >> 8), (uint8_t)((a) >> 16),                   \
				(uint8_t)((a) >> 24), (uint8_t)(c), (uint8_t)((c) >> 8),           \
				(uint8_t)(d), (uint8_t)((d) >> 8), e0, e1, e2, e3, e4, e5, e6, e7  \
		}                                                                                  \
	}

static inline bool guid_equal(const struct guid *a, const struct guid *b)
{
	return !memcmp(a, b, sizeof(*a));
}

static inline bool guid_is_zero(const struct guid *g)
{
	static const struct guid zero;

	return guid_equal(g, &zero);
}

/* Random (version 4) from the kernel; aborts only if the kernel has no randomness at all. */
struct guid guid_random(void);
/* Lower case, without braces. Returns `text`. */
const char *guid_format(const struct guid *g, char text[static GUID_TEXT_SIZE]);
/* With or without braces, any case. 0 or -EINVAL; *ret is written only on success. */
int guid_parse(const char *text, struct guid *ret);
