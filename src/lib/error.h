/* SPDX-License-Identifier: MIT */
/*
 * Errors that a person reads. Internal functions return 0 or a negative errno; where the cause must
 * reach a person the last parameter is a struct error that says what was wrong, where, and what to
 * do.
 */
#pragma once

#include <stdarg.h>

#define _printf_(a, b) __attribute__((format(printf, a, b)))
#define _must_check_   __attribute__((warn_unused_result))

/* Owned by the caller, zero-initialised; a function writes it only when it fails. */
struct error {
	int code;          /* negative errno; 0 = no error */
	char message[512]; /* one line, no trailing full stop or newline needed */
	char property[96]; /* the setting at fault, like "memory.startup"; often "" */
};

/* Both return `code`, so that "return error_set(err, -EINVAL, ...)" reads straight. `err` may be
 * NULL. */
int error_set(struct error *err, int code, const char *format, ...) _printf_(3, 4);
/* Puts context in front of the message that is already there ("disk 2: ...: no such file"). */
int error_prefix(struct error *err, const char *format, ...) _printf_(2, 3);
/* Like error_set with ": <text of errno>" appended. */
int error_errno(struct error *err, int code, const char *format, ...) _printf_(3, 4);
