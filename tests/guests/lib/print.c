// SPDX-License-Identifier: MIT
/*
 * Output: lines are made in a buffer and leave through COM1's FIFO sixteen bytes at a time. Also
 * the four functions that a C compiler counts on.
 */
#include "lib/print.h"

#include <stdarg.h>

#define COM1      0x3f8
#define COM1_FIFO 16
#define LSR_EMPTY 0x20
#define EXIT_PORT 0xf4
#define FAILED    2 /* exit status 5: 3 means a reset */
#define LINE_MAX  240

struct line {
	char text[LINE_MAX];
	size_t size;
};

static const char *group = "";
static unsigned points, failures;

void *memcpy(void *to, const void *from, size_t size)
{
	void *ret = to;

	asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size) : : "memory");
	return ret;
}

void *memset(void *to, int value, size_t size)
{
	void *ret = to;

	asm volatile("rep stosb" : "+D"(to), "+c"(size) : "a"(value) : "memory");
	return ret;
}

int memcmp(const void *a, const void *b, size_t size)
{
	const uint8_t *x = a, *y = b;

	for (; size; size--, x++, y++)
		if (*x != *y)
			return *x - *y;
	return 0;
}

size_t strlen(const char *s)
{
	const char *end = s;

	while (*end)
		end++;
	return (size_t)(end - s);
}

/* --- lines --- */

void serial_init(void)
{
	outb(COM1 + 1, 0);    /* no interrupts */
	outb(COM1 + 3, 0x03); /* 8 bits */
	outb(COM1 + 2, 0x07); /* FIFO on and empty */
}

static void serial_write(const char *text, size_t size)
{
	while (size) {
		size_t n = MIN(size, (size_t)COM1_FIFO);

		while (!(inb(COM1 + 5) & LSR_EMPTY))
			asm volatile("pause");
		/* Not `rep outsb`: the host's instruction emulator is not what is tested here. */
		size -= n;
		while (n--)
			outb(COM1, (uint8_t)*text++);
	}
}

static void put(struct line *l, char c)
{
	if (l->size < LINE_MAX - 1)
		l->text[l->size++] = c;
}

static void put_number(struct line *l, uint64_t value, unsigned base, unsigned width, char pad)
{
	char digits[24];
	unsigned n = 0;

	do
		digits[n++] = "0123456789abcdef"[value % base];
	while (value /= base);
	for (; width > n; width--)
		put(l, pad);
	while (n)
		put(l, digits[--n]);
}

static void put_integer(struct line *l, char kind, uint64_t value, bool wide, unsigned width,
			char pad)
{
	if (kind == 'd') {
		int64_t v = wide ? (int64_t)value : (int32_t)value;

		if (v < 0)
			put(l, '-');
		value = v < 0 ? -(uint64_t)v : (uint64_t)v;
	} else if (!wide) {
		value = (uint32_t)value;
	}
	put_number(l, value, kind == 'x' ? 16 : 10, width, pad);
}

static void put_string(struct line *l, const char *s)
{
	while (*s)
		put(l, *s++);
}

static void format_into(struct line *l, const char *f, va_list args)
{
	for (; *f; f++) {
		unsigned width = 0;
		bool wide = false;
		char pad = ' ';

		if (*f != '%') {
			put(l, *f);
			continue;
		}
		if (*++f == '0')
			pad = *f++;
		for (; *f >= '0' && *f <= '9'; f++)
			width = width * 10 + (unsigned)(*f - '0');
		for (; *f == 'l'; f++)
			wide = true;
		if (*f == 's')
			put_string(l, va_arg(args, const char *));
		else if (*f == 'c')
			put(l, (char)va_arg(args, int));
		else if (wide)
			put_integer(l, *f, va_arg(args, uint64_t), true, width, pad);
		else
			put_integer(l, *f, va_arg(args, unsigned), false, width, pad);
	}
}

static void line_end(struct line *l)
{
	l->text[l->size++] = '\n';
	serial_write(l->text, l->size);
}

void say(const char *format, ...)
{
	struct line l = { .size = 0 };
	va_list args;

	va_start(args, format);
	format_into(&l, format, args);
	va_end(args);
	line_end(&l);
}

/* --- test points --- */

void group_begin(const char *name)
{
	group = name;
	say("# %s", name);
}

static void put_count(struct line *l, unsigned value)
{
	put_number(l, value, 10, 0, ' ');
}

/* `todo`: the reason why a failure is expected, or NULL. */
static bool point(bool pass, const char *todo, const char *format, va_list args)
{
	struct line l = { .size = 0 };

	points++;
	failures += !pass && !todo;
	put_string(&l, pass ? "ok " : "not ok ");
	put_count(&l, points);
	put_string(&l, " - ");
	put_string(&l, group);
	put_string(&l, ": ");
	format_into(&l, format, args);
	if (todo) {
		put_string(&l, " # TODO ");
		put_string(&l, todo);
	}
	line_end(&l);
	return pass;
}

bool ok(bool pass, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	point(pass, NULL, format, args);
	va_end(args);
	return pass;
}

bool ok_equal(uint64_t value, uint64_t wanted, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	point(value == wanted, NULL, format, args);
	va_end(args);
	if (value != wanted)
		say("#   0x%lx, but 0x%lx was expected", value, wanted);
	return value == wanted;
}

bool ok_todo(bool pass, const char *why, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	point(pass, why, format, args);
	va_end(args);
	return pass;
}

void skip(const char *text, const char *why)
{
	say("ok %u - %s: %s # SKIP %s", ++points, group, text, why);
}

/* --- the end --- */

static void leave(uint8_t value)
{
	outb(EXIT_PORT, value);
	for (;;)
		asm volatile("cli; hlt");
}

void guest_exit(void)
{
	say("1..%u", points);
	leave(failures ? FAILED : 0);
	__builtin_unreachable();
}

void guest_die(const char *format, ...)
{
	struct line l = { .size = 0 };
	va_list args;

	put_string(&l, "Bail out! ");
	va_start(args, format);
	format_into(&l, format, args);
	va_end(args);
	line_end(&l);
	leave(FAILED);
	__builtin_unreachable();
}
