// SPDX-License-Identifier: MIT
/* See repair_tell.h. */
#include "vhd/repair_tell.h"

#include <stdarg.h>
#include <stdio.h>

void repair_found(struct repair_tell *t, enum repair_kind kind, const char *format, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	t->report->counts[kind]++;
	t->changed = true;
	t->report->found(t->report, kind, 0, 0, text);
}

void repair_lost(struct repair_tell *t, uint64_t offset, uint64_t length, const char *why)
{
	char text[512];

	if (offset >= t->disk_size)
		return;
	length = MIN(length, t->disk_size - offset);
	snprintf(text, sizeof(text), "bytes %llu to %llu of the disk are lost: %s",
		 (unsigned long long)offset, (unsigned long long)(offset + length - 1), why);
	t->report->counts[REPAIR_LOST]++;
	t->report->lost += length;
	t->changed = true;
	t->report->found(t->report, REPAIR_LOST, offset, length, text);
}
