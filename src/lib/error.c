// SPDX-License-Identifier: MIT
/* See error.h. Messages that do not fit are cut, never overrun. */
#include "lib/error.h"

#include <stdio.h>
#include <string.h>

static void append(struct error *err, const char *separator, const char *text)
{
	size_t n = strlen(err->message);

	snprintf(err->message + n, sizeof(err->message) - n, "%s%s", separator, text);
}

static void set(struct error *err, int code, const char *format, va_list ap)
{
	if (err) {
		err->code = code;
		err->property[0] = '\0';
		vsnprintf(err->message, sizeof(err->message), format, ap);
	}
}

int error_set(struct error *err, int code, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	set(err, code, format, ap);
	va_end(ap);
	return code;
}

int error_errno(struct error *err, int code, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	set(err, code, format, ap);
	va_end(ap);
	if (err)
		append(err, ": ", strerror(-code));
	return code;
}

int error_prefix(struct error *err, const char *format, ...)
{
	struct error old;
	va_list ap;

	if (!err)
		return 0;
	old = *err;
	va_start(ap, format);
	set(err, err->code, format, ap);
	va_end(ap);
	append(err, ": ", old.message);
	memcpy(err->property, old.property, sizeof(err->property));
	return err->code;
}
