/* SPDX-License-Identifier: MIT */
/*
 * The folders that a walk through a file system has been in. A folder is in one place; in a file
 * system that was made to do harm it may be in many, or in itself, and a walk would have no end.
 */
#pragma once

#include "lib/types.h"

struct seen {
	uint64_t *slots; /* 0 = free: no file system has a folder 0 */
	size_t room, count;
};

void seen_free(struct seen *s); /* the content */
/* 1 = it is new, and noted; 0 = it was there; -ENOMEM. */
int seen_add(struct seen *s, uint64_t id);
