// SPDX-License-Identifier: MIT
/*
 * What a differencing VHD says of its parent ("Parent Locator Entry" in vhd_format.h's document).
 * Of a locator only the data's place and length are believed: for the space that it has, writers do
 * not even agree on the unit.
 */
#include "lib/cleanup.h"
#include "lib/utf16.h"
#include "vhd/vhd_meta.h"

#include <errno.h>
#include <string.h>

#define STRING_MAX (64 * KIB) /* bytes of a path; Windows' have at most 32767 units */
#define ALIGN      UINT64_C(4096)

/* --- reading --- */

static char *decode_w2(const uint8_t *bytes, size_t n)
{
	return utf16_decode(bytes, n, UTF16_LE);
}

/* Eight bits without a code page: what is not ASCII is taken for Latin-1. */
static char *decode_wi2(const uint8_t *bytes, size_t n)
{
	char *text = malloc(2 * n + 1), *out = text;

	for (size_t i = 0; text && i < n && bytes[i]; i++) {
		if (bytes[i] >= 0x80) {
			*out++ = (char)(0xc0 | bytes[i] >> 6);
			*out++ = (char)(0x80 | (bytes[i] & 0x3f));
		} else {
			*out++ = (char)bytes[i];
		}
	}
	if (text)
		*out = '\0';
	return text;
}

static int hex(uint8_t c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* file://host/path, with % escapes; the host does not matter. */
static char *decode_url(const uint8_t *bytes, size_t n)
{
	static const char scheme[] = "file://";
	size_t at = 0;
	char *text, *out;

	if (n > sizeof(scheme) - 1 && !memcmp(bytes, scheme, sizeof(scheme) - 1))
		for (at = sizeof(scheme) - 1; at < n && bytes[at] != '/';)
			at++;
	text = out = malloc(n - at + 1);
	if (!text)
		return NULL;
	for (; at < n && bytes[at]; at++) {
		bool escaped = bytes[at] == '%' && n - at > 2 && hex(bytes[at + 1]) >= 0 &&
			       hex(bytes[at + 2]) >= 0;
		int c = escaped ? hex(bytes[at + 1]) << 4 | hex(bytes[at + 2]) : bytes[at];

		if (c)
			*out++ = (char)c;
		at += escaped ? 2 : 0;
	}
	*out = '\0';
	return text;
}

static const struct kind {
	uint32_t code;
	bool relative;
	char *(*decode)(const uint8_t *bytes, size_t n);
} kinds[] = {
	/* the better ones first */
	{ VHD_LOCATOR_W2RU, true, decode_w2 },   { VHD_LOCATOR_W2KU, false, decode_w2 },
	{ VHD_LOCATOR_WI2R, true, decode_wi2 },  { VHD_LOCATOR_WI2K, false, decode_wi2 },
	{ VHD_LOCATOR_MACX, false, decode_url },
};

/* 1 when there is no more to be had from it; *ret stays NULL when it says nothing. */
static int locator_read(struct store *s, const struct vhd_locator *l, const struct kind *kind,
			char **ret)
{
	uint32_t n = be32_get(l->platform_data_length);
	uint64_t offset = be64_get(l->platform_data_offset);
	_cleanup_free_ uint8_t *bytes = NULL;

	if (*ret || !n || n > STRING_MAX || !range_inside(offset, n, s->size))
		return 0;
	bytes = malloc(n);
	if (!bytes)
		return -ENOMEM;
	if (store_read(s, bytes, n, offset) < 0)
		return 0;
	errno = ENOMEM;
	*ret = kind->decode(bytes, n);
	if (!*ret)
		return errno == ENOMEM ? -ENOMEM : 0;
	if (!**ret) {
		free(*ret);
		*ret = NULL;
	}
	return 0;
}

static bool looks_absolute(const char *name)
{
	return name[0] == '\\' || name[0] == '/' || (name[0] && name[1] == ':');
}

/* The name says where the parent is only when no locator does. */
static int name_read(const struct vhd_disk_header *h, struct disk_parent *p)
{
	char *name;

	if (p->relative || p->absolute)
		return 0;
	errno = ENOMEM;
	name = utf16_decode(h->parent_unicode_name, sizeof(h->parent_unicode_name), UTF16_BE);
	if (!name)
		return errno == ENOMEM ? -ENOMEM : 0;
	if (!name[0])
		free(name);
	else if (looks_absolute(name))
		p->absolute = name;
	else
		p->relative = name;
	return 0;
}

int vhd_parent_read(struct store *s, const struct vhd_disk_header *h, struct disk_parent *ret)
{
	struct disk_parent p = {
		.id = vhd_guid_get(h->parent_unique_id),
		.timestamp = be32_get(h->parent_time_stamp),
	};
	int r = 0;

	for (size_t k = 0; k < ARRAY_SIZE(kinds); k++) {
		for (unsigned i = 0; i < VHD_LOCATORS && r >= 0; i++) {
			const struct vhd_locator *l = &h->parent_locators[i];

			if (be32_get(l->platform_code) == kinds[k].code)
				r = locator_read(s, l, &kinds[k],
						 kinds[k].relative ? &p.relative : &p.absolute);
		}
	}
	if (r >= 0)
		r = name_read(h, &p);
	if (r < 0)
		disk_parent_deinit(&p);
	else
		*ret = p;
	return r;
}

/* --- writing --- */

static const char *last_part(const char *path)
{
	const char *last = path;

	for (const char *p = path; *p; p++)
		if (*p == '\\' || *p == '/')
			last = p + 1;
	return last;
}

/* The name: the path as Windows writes it, or when that is too long only its last part. */
static void name_write(const struct disk_parent *parent, struct vhd_disk_header *h)
{
	const char *path = parent->absolute ? parent->absolute : parent->relative;
	/* one unit stays zero */
	size_t room = sizeof(h->parent_unicode_name) - 2;

	memset(h->parent_unicode_name, 0, sizeof(h->parent_unicode_name));
	if (path && utf16_encode(path, h->parent_unicode_name, room, UTF16_BE) > room)
		utf16_encode(last_part(path), h->parent_unicode_name, room, UTF16_BE);
}

/* Appends a string; returns its length in bytes, or 0 when it cannot be had. */
static size_t string_append(struct vhd_parent_bytes *b, const char *text)
{
	size_t need = utf16_encode(text, NULL, 0, UTF16_LE);
	size_t size = b->size + round_up64(need, ALIGN);
	uint8_t *bytes;

	if (!need || need > STRING_MAX)
		return 0;
	bytes = realloc(b->bytes, size);
	if (!bytes)
		return 0;
	memset(bytes + b->size, 0, size - b->size);
	utf16_encode(text, bytes + b->size, need, UTF16_LE);
	b->bytes = bytes;
	b->size = size;
	return need;
}

int vhd_parent_encode(const struct disk_parent *parent, uint64_t offset, struct vhd_disk_header *h,
		      struct vhd_parent_bytes *ret, struct error *err)
{
	const struct {
		uint32_t code;
		const char *text;
	} strings[] = { { VHD_LOCATOR_W2KU, parent->absolute },
			{ VHD_LOCATOR_W2RU, parent->relative } };
	struct vhd_parent_bytes b = { 0 };
	unsigned count = 0;

	memset(h->parent_locators, 0, sizeof(h->parent_locators));
	for (size_t i = 0; i < ARRAY_SIZE(strings); i++) {
		uint64_t at = offset + b.size;
		size_t n;

		if (!strings[i].text)
			continue;
		n = string_append(&b, strings[i].text);
		if (!n) {
			free(b.bytes);
			return error_set(err, -EINVAL,
					 "the parent's path is empty, too long, or no UTF-8");
		}
		h->parent_locators[count++] = (struct vhd_locator){
			.platform_code = be32_of(strings[i].code),
			.platform_data_space = be32_of((uint32_t)round_up64(n, ALIGN)),
			.platform_data_length = be32_of((uint32_t)n),
			.platform_data_offset = be64_of(at),
		};
	}
	vhd_guid_put(&parent->id, h->parent_unique_id);
	h->parent_time_stamp = be32_of(parent->timestamp);
	name_write(parent, h);
	*ret = b;
	return 0;
}
