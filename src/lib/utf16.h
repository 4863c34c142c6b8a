/* SPDX-License-Identifier: MIT */
/* UTF-16 as Windows' formats have it, to and from UTF-8. */
#pragma once

#include "lib/types.h"

enum utf16_order { UTF16_LE, UTF16_BE };

/*
 * A new string from `size` bytes (an odd last one is ignored), up to the first NUL if there is one.
 * NULL with errno EILSEQ when a surrogate stands alone, ENOMEM. The caller frees it.
 */
char *utf16_decode(const void *bytes, size_t size, enum utf16_order order);
/*
 * Writes `text` without a NUL; returns the bytes that it takes, also when `room` is too small (then
 * nothing is written). 0 when the text is no UTF-8.
 */
size_t utf16_encode(const char *text, void *bytes, size_t room, enum utf16_order order);
