// SPDX-License-Identifier: MIT
/*
 * The parent locator of a differencing VHDX (MS-VHDX 2.6.2.6): a table of keys and values, both
 * UTF-16, that says which image its parent is (parent_linkage, the DataWriteGuid that it has; while
 * a merge is under way parent_linkage2, the one that it will have) and where it may be.
 */
#include "lib/cleanup.h"
#include "lib/cursor.h"
#include "lib/utf16.h"
#include "vhd/vhdx_meta.h"

#include <errno.h>
#include <stdio.h>

#define ENTRIES_MAX 64u /* Windows writes five */

static const struct guid guid_locator = VHDX_GUID_PARENT_LOCATOR;
static const struct guid guid_type = VHDX_GUID_LOCATOR_VHDX;

/* --- the keys --- */

enum key { KEY_LINKAGE, KEY_LINKAGE2, KEY_RELATIVE, KEY_VOLUME, KEY_ABSOLUTE, KEY_COUNT };

static const char *const keys[] = {
	[KEY_LINKAGE] = "parent_linkage",       [KEY_LINKAGE2] = "parent_linkage2",
	[KEY_RELATIVE] = "relative_path",       [KEY_VOLUME] = "volume_path",
	[KEY_ABSOLUTE] = "absolute_win32_path",
};

/* Takes the value over into *ret; an error only when it is needed and wrong. */
static int value_take(enum key key, char *value, struct disk_parent *ret, struct error *err)
{
	char **paths[] = {
		[KEY_RELATIVE] = &ret->relative,
		[KEY_VOLUME] = &ret->volume,
		[KEY_ABSOLUTE] = &ret->absolute,
	};

	if (key >= KEY_RELATIVE) {
		free(*paths[key]);
		*paths[key] = value;
		return 0;
	}
	if (guid_parse(value, key == KEY_LINKAGE ? &ret->id : &ret->id2) < 0) {
		error_set(err, -EINVAL, "the parent locator's %s is no GUID", keys[key]);
		free(value);
		return -EINVAL;
	}
	free(value);
	return 0;
}

static char *text_at(const uint8_t *bytes, size_t size, uint32_t offset, uint16_t length)
{
	if (!range_inside(offset, length, size))
		return NULL;
	return utf16_decode(bytes + offset, length, UTF16_LE);
}

static int entry_decode(const uint8_t *bytes, size_t size, const struct vhdx_locator_entry *e,
			struct disk_parent *ret, struct error *err)
{
	_cleanup_free_ char *key =
		text_at(bytes, size, le32_get(e->key_offset), le16_get(e->key_length));
	char *value = text_at(bytes, size, le32_get(e->value_offset), le16_get(e->value_length));

	if (!key || !value) {
		free(value);
		return error_set(err, -EINVAL, "the parent locator is damaged");
	}
	for (unsigned i = 0; i < KEY_COUNT; i++)
		if (!strcmp(key, keys[i]))
			return value_take((enum key)i, value, ret, err);
	free(value);
	return 0;
}

static int locator_decode(const uint8_t *bytes, size_t size, struct disk_parent *ret,
			  struct error *err)
{
	struct reader r = reader_of(bytes, size);
	const struct vhdx_locator_header *h = reader_take(&r, sizeof(*h));
	unsigned count = h ? le16_get(h->count) : 0;
	int n = 0;

	if (!h)
		return error_set(err, -EINVAL, "the parent locator is damaged");
	if (!guid_equal(&h->type, &guid_type))
		return error_set(err, -ENOTSUP,
				 "the parent locator has a type that is not known here");
	if (count > ENTRIES_MAX)
		return error_set(err, -EINVAL, "the parent locator has %u entries", count);
	for (unsigned i = 0; i < count && n >= 0; i++) {
		const struct vhdx_locator_entry *e = reader_take(&r, sizeof(*e));

		n = e ? entry_decode(bytes, size, e, ret, err)
		      : error_set(err, -EINVAL, "the parent locator is damaged");
	}
	if (n >= 0 && guid_is_zero(&ret->id))
		n = error_set(err, -EINVAL, "the parent locator does not say which image it means");
	return n;
}

int vhdx_locator_read(struct store *s, const struct vhdx_region *metadata, struct disk_parent *ret,
		      struct error *err)
{
	struct disk_parent parent = { 0 };
	_cleanup_free_ uint8_t *bytes = NULL;
	struct vhdx_region item;
	int r = vhdx_item_find(s, metadata, &guid_locator, &item);

	if (r == -ENOENT || (r >= 0 && !item.length))
		return error_set(
			err, -EINVAL,
			"this is a differencing image, but it does not say what its parent "
			"is: the image is damaged");
	if (r >= 0) {
		bytes = malloc(item.length);
		r = bytes ? store_read(s, bytes, item.length, item.offset) : -ENOMEM;
	}
	if (r < 0)
		return error_errno(err, r, "cannot read the parent locator");
	r = locator_decode(bytes, item.length, &parent, err);
	if (r < 0)
		disk_parent_deinit(&parent);
	else
		*ret = parent;
	return r;
}

/* --- encoding --- */

struct encoder {
	uint8_t *bytes;
	size_t room, at; /* at = where the next text goes */
	unsigned count;
	bool wrong;
};

static void text_put(struct encoder *e, const char *text, le32 *ret_offset, le16 *ret_length)
{
	size_t n = utf16_encode(text, e->bytes + e->at, e->room - e->at, UTF16_LE);

	if (!n || n > e->room - e->at || n > UINT16_MAX) {
		e->wrong = true;
		return;
	}
	*ret_offset = le32_of((uint32_t)e->at);
	*ret_length = le16_of((uint16_t)n);
	e->at += n;
}

static void pair_put(struct encoder *e, enum key key, const char *value)
{
	struct vhdx_locator_entry entry = { 0 };

	if (!value || e->wrong)
		return;
	text_put(e, keys[key], &entry.key_offset, &entry.key_length);
	text_put(e, value, &entry.value_offset, &entry.value_length);
	memcpy(e->bytes + sizeof(struct vhdx_locator_header) + e->count++ * sizeof(entry), &entry,
	       sizeof(entry));
}

static const char *linkage_text(const struct guid *id, char text[static GUID_TEXT_SIZE + 2])
{
	char plain[GUID_TEXT_SIZE];

	if (guid_is_zero(id))
		return NULL;
	snprintf(text, GUID_TEXT_SIZE + 2, "{%s}", guid_format(id, plain));
	return text;
}

int vhdx_locator_encode(const struct disk_parent *parent, void *bytes, size_t room,
			size_t *ret_size, struct error *err)
{
	const size_t texts =
		sizeof(struct vhdx_locator_header) + KEY_COUNT * sizeof(struct vhdx_locator_entry);
	struct encoder e = { .bytes = bytes, .room = room, .at = texts, .wrong = room < texts };
	struct vhdx_locator_header h = { .type = guid_type };
	char linkage[GUID_TEXT_SIZE + 2], linkage2[GUID_TEXT_SIZE + 2];

	if (!e.wrong)
		memset(bytes, 0, room);
	pair_put(&e, KEY_LINKAGE, linkage_text(&parent->id, linkage));
	pair_put(&e, KEY_LINKAGE2, linkage_text(&parent->id2, linkage2));
	pair_put(&e, KEY_RELATIVE, parent->relative);
	pair_put(&e, KEY_VOLUME, parent->volume);
	pair_put(&e, KEY_ABSOLUTE, parent->absolute);
	if (e.wrong)
		return error_set(err, -E2BIG,
				 "the parent's path is too long, or no UTF-8: it does not fit into "
				 "the image");
	h.count = le16_of((uint16_t)e.count);
	memcpy(bytes, &h, sizeof(h));
	*ret_size = e.at;
	return 0;
}
