/* SPDX-License-Identifier: MIT */
/* For those who repair (repair.h): their words to the caller. */
#pragma once

#include "lib/types.h"
#include "vhd/repair.h"

struct repair_tell {
	struct repair_report *report;
	uint64_t disk_size; /* what is lost behind it does not matter */
	bool changed;       /* something was told: there is something to write */
};

void repair_found(struct repair_tell *t, enum repair_kind kind, const char *format, ...)
	_printf_(3, 4);
void repair_lost(struct repair_tell *t, uint64_t offset, uint64_t length, const char *why);

static inline void repair_changed(struct repair_tell *t)
{
	t->changed = true;
}
