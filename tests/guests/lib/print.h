/* SPDX-License-Identifier: MIT */
/* What the guest says: TAP on COM1, and the way out. Only processor 0 prints. */
#pragma once

#include "lib/cpu.h"

void serial_init(void);
/* %s %c %d %u %x and %lu %lx, with a width and a leading zero. A newline is added. */
void say(const char *format, ...) PRINTF(1, 2);

void group_begin(const char *name);
/* One test point: `ok N - group: text` or `not ok ...`; returns `pass`. */
bool ok(bool pass, const char *format, ...) PRINTF(2, 3);
/* Equality, with both values in a diagnostic when it fails. */
bool ok_equal(uint64_t value, uint64_t wanted, const char *format, ...) PRINTF(3, 4);
/* A point known to fail: it is reported, and doesn't fail the run. */
bool ok_todo(bool pass, const char *why, const char *format, ...) PRINTF(3, 4);
void skip(const char *text, const char *why);

void guest_exit(void) NORETURN; /* the plan, then the exit port */
void guest_die(const char *format, ...) PRINTF(1, 2) NORETURN;

void *memcpy(void *to, const void *from, size_t size);
void *memset(void *to, int value, size_t size);
int memcmp(const void *a, const void *b, size_t size);
size_t strlen(const char *s);
