// SPDX-License-Identifier: MIT
/*
 * AML writer. Pure functions over a buffer, used by acpi.c while a machine is made.
 *
 * A container's length stands before its contents and its size depends on its value, so the
 * contents are written first and moved up when the container is closed. Every encoding is the
 * shortest one, which is also what iasl writes: tests compare with it.
 */
#include "firmware/aml.h"

#include <assert.h>

/* ACPI 20.3, table 20.2: opcodes */
#define OP_ZERO       0x00
#define OP_ONE        0x01
#define OP_NAME       0x08
#define OP_BYTE       0x0a
#define OP_WORD       0x0b
#define OP_DWORD      0x0c
#define OP_STRING     0x0d
#define OP_QWORD      0x0e
#define OP_SCOPE      0x10
#define OP_BUFFER     0x11
#define OP_PACKAGE    0x12
#define OP_EXT        0x5b
#define OP_EXT_DEVICE 0x82

/* ACPI 6.4.2, 6.4.3: resource descriptor tags */
#define RES_IO            0x47
#define RES_END           0x79
#define RES_DWORD_ADDRESS 0x87
#define RES_EXT_INTERRUPT 0x89
#define RES_QWORD_ADDRESS 0x8a

#define ADDRESS_MEMORY       0    /* ACPI 6.4.3.5.1: resource type */
#define ADDRESS_FLAGS        0x0c /* producer, positive decode, minimum and maximum fixed */
#define ADDRESS_MEMORY_FLAGS 0x03 /* read and write, cacheable */

static void name_put(struct aml *a, const char *name)
{
	assert(strlen(name) == 4);
	writer_put(&a->w, name, 4);
}

/* Makes room for `n` bytes at `mark` and fills it. */
static void insert(struct aml *a, size_t mark, const void *bytes, size_t n)
{
	size_t tail = a->w.at - mark;

	if (!writer_take(&a->w, n))
		return;
	memmove(a->w.data + mark + n, a->w.data + mark, tail);
	memcpy(a->w.data + mark, bytes, n);
}

/* ACPI 20.2.4: a PkgLength counts itself; up to three bytes may follow the first. */
static size_t pkg_length(size_t body, uint8_t ret[4])
{
	size_t n = 1, total;

	while (n < 4 && body + n >= (n == 1 ? 64u : (size_t)1 << (8 * n - 4)))
		n++;
	total = body + n;
	if (n == 1) {
		ret[0] = (uint8_t)total;
		return n;
	}
	ret[0] = (uint8_t)((n - 1) << 6 | (total & 0x0f));
	for (size_t i = 1; i < n; i++)
		ret[i] = (uint8_t)(total >> (8 * i - 4));
	return n;
}

void aml_end(struct aml *a, size_t mark)
{
	uint8_t length[4];

	if (writer_ok(&a->w))
		insert(a, mark, length, pkg_length(a->w.at - mark, length));
}

size_t aml_scope(struct aml *a, const char *name)
{
	size_t mark;

	writer_u8(&a->w, OP_SCOPE);
	mark = a->w.at;
	name_put(a, name);
	return mark;
}

size_t aml_device(struct aml *a, const char *name)
{
	size_t mark;

	writer_u8(&a->w, OP_EXT);
	writer_u8(&a->w, OP_EXT_DEVICE);
	mark = a->w.at;
	name_put(a, name);
	return mark;
}

size_t aml_package(struct aml *a, uint8_t elements)
{
	size_t mark;

	writer_u8(&a->w, OP_PACKAGE);
	mark = a->w.at;
	writer_u8(&a->w, elements);
	return mark;
}

void aml_name(struct aml *a, const char *name)
{
	writer_u8(&a->w, OP_NAME);
	name_put(a, name);
}

/* ACPI 20.2.3: the shortest constant that holds the value. */
static void integer_put(struct writer *w, uint64_t value)
{
	if (value <= 1) {
		writer_u8(w, value ? OP_ONE : OP_ZERO);
	} else if (value <= UINT8_MAX) {
		writer_u8(w, OP_BYTE);
		writer_u8(w, (uint8_t)value);
	} else if (value <= UINT16_MAX) {
		writer_u8(w, OP_WORD);
		writer_le16(w, (uint16_t)value);
	} else if (value <= UINT32_MAX) {
		writer_u8(w, OP_DWORD);
		writer_le32(w, (uint32_t)value);
	} else {
		writer_u8(w, OP_QWORD);
		writer_le64(w, value);
	}
}

void aml_integer(struct aml *a, uint64_t value)
{
	integer_put(&a->w, value);
}

void aml_string(struct aml *a, const char *text)
{
	writer_u8(&a->w, OP_STRING);
	writer_put(&a->w, text, strlen(text) + 1);
}

static unsigned hex_digit(char c)
{
	return c <= '9' ? (unsigned)(c - '0') : (unsigned)(c - 'A' + 10);
}

/* ACPI 19.6.37: three letters of five bits and four hex digits, most significant byte first. */
void aml_eisa_id(struct aml *a, const char *id)
{
	uint32_t v = 0;

	assert(strlen(id) == 7);
	for (int i = 0; i < 3; i++)
		v = v << 5 | (uint32_t)(id[i] - '@');
	for (int i = 3; i < 7; i++)
		v = v << 4 | hex_digit(id[i]);
	integer_put(&a->w, __builtin_bswap32(v));
}

size_t aml_resources(struct aml *a)
{
	writer_u8(&a->w, OP_BUFFER);
	return a->w.at;
}

void aml_resources_end(struct aml *a, size_t mark)
{
	uint8_t bytes[9];
	struct writer size = writer_of(bytes, sizeof(bytes));

	writer_u8(&a->w, RES_END);
	writer_u8(&a->w, 0); /* no checksum (ACPI 6.4.2.9) */
	if (!writer_ok(&a->w))
		return;
	integer_put(&size, a->w.at - mark);
	insert(a, mark, bytes, size.at);
	aml_end(a, mark);
}

/* ACPI 6.4.2.5 */
void aml_io_ports(struct aml *a, uint16_t base, uint8_t count)
{
	writer_u8(&a->w, RES_IO);
	writer_u8(&a->w, 1); /* decodes 16 bits */
	writer_le16(&a->w, base);
	writer_le16(&a->w, base);
	writer_u8(&a->w, 1); /* alignment */
	writer_u8(&a->w, count);
}

/* ACPI 6.4.3.6 */
void aml_edge_interrupt(struct aml *a, uint32_t gsi)
{
	writer_u8(&a->w, RES_EXT_INTERRUPT);
	writer_le16(&a->w, 6);
	writer_u8(&a->w, 0x03); /* consumer, edge, active high, exclusive */
	writer_u8(&a->w, 1);
	writer_le32(&a->w, gsi);
}

/* ACPI 6.4.3.5.2 */
void aml_memory_window32(struct aml *a, uint32_t base, uint32_t size)
{
	writer_u8(&a->w, RES_DWORD_ADDRESS);
	writer_le16(&a->w, 23);
	writer_u8(&a->w, ADDRESS_MEMORY);
	writer_u8(&a->w, ADDRESS_FLAGS);
	writer_u8(&a->w, ADDRESS_MEMORY_FLAGS);
	writer_le32(&a->w, 0); /* granularity */
	writer_le32(&a->w, base);
	writer_le32(&a->w, base + size - 1);
	writer_le32(&a->w, 0); /* translation */
	writer_le32(&a->w, size);
}

/* ACPI 6.4.3.5.1 */
void aml_memory_window64(struct aml *a, uint64_t base, uint64_t size)
{
	writer_u8(&a->w, RES_QWORD_ADDRESS);
	writer_le16(&a->w, 43);
	writer_u8(&a->w, ADDRESS_MEMORY);
	writer_u8(&a->w, ADDRESS_FLAGS);
	writer_u8(&a->w, ADDRESS_MEMORY_FLAGS);
	writer_le64(&a->w, 0);
	writer_le64(&a->w, base);
	writer_le64(&a->w, base + size - 1);
	writer_le64(&a->w, 0);
	writer_le64(&a->w, size);
}
