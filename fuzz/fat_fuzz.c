// SPDX-License-Identifier: MIT
/*
 * A FAT file system whose first bytes are the input and whose rest is zeros: it is opened, all of
 * it is listed, and every file is read from both ends. Checks that names and pieces have the sizes
 * that they may have, that nothing is read outside, and that each call comes to an end.
 */
#include "vhdtool/files.h"

#include <stdlib.h>
#include <string.h>

#define SIZE      (UINT64_C(64) << 20)
#define FILES_MAX 64u
#define READS_MAX (1u << 20)

struct memory {
	struct files_volume volume;
	const uint8_t *data;
	size_t size;
	unsigned reads;
};

struct found {
	unsigned count;
	uint64_t ids[FILES_MAX];
	char name[FILES_NAME_MAX + 1]; /* the last one's */
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int memory_read(struct files_volume *v, void *buf, size_t n, uint64_t offset)
{
	struct memory *m = container_of(v, struct memory, volume);

	if (!range_inside(offset, n, v->size) || ++m->reads > READS_MAX)
		abort();
	memset(buf, 0, n);
	if (offset < m->size)
		memcpy(buf, m->data + offset, MIN(n, m->size - offset));
	return 0;
}

static int on_entry(void *context, const char *name, size_t n, uint64_t id)
{
	struct found *f = context;

	if (!n || n > FILES_NAME_MAX)
		abort();
	if (f->count >= FILES_MAX)
		return 1;
	memcpy(f->name, name, n);
	f->name[n] = 0;
	f->ids[f->count++] = id;
	return 0;
}

static void read_file(struct files *f, uint64_t id, uint64_t size)
{
	static uint8_t buf[4096];
	const uint64_t places[] = { 0, 513, size / 2, size > 10 ? size - 10 : 0, size, UINT64_MAX };

	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		struct files_piece p = { 0 };
		int r = f->ops->read(f, id, buf, sizeof(buf), places[i], &p, NULL);

		if (r >= 0 && (p.hole || p.length > sizeof(buf) ||
			       (p.length && !range_inside(places[i], p.length, size)) ||
			       (!p.length && places[i] < size)))
			abort();
	}
}

static void look(struct files *f, struct memory *m)
{
	static struct found all;

	all.count = 1;
	all.ids[0] = f->root;
	for (unsigned i = 0; i < all.count; i++) {
		struct files_info info;
		uint64_t id;

		m->reads = 0;
		if (f->ops->stat(f, all.ids[i], &info, NULL) < 0)
			abort(); /* it was listed */
		if (info.kind == FILES_REGULAR) {
			read_file(f, all.ids[i], info.size);
			continue;
		}
		if (info.kind != FILES_FOLDER)
			abort();
		all.name[0] = 0;
		(void)f->ops->list(f, all.ids[i], on_entry, &all, NULL);
		if (all.name[0] && f->ops->lookup(f, all.ids[i], all.name, &id, NULL) < 0 &&
		    strlen(all.name) < 12)
			continue;
	}
	(void)f->ops->stat(f, 77, &(struct files_info){ 0 }, NULL);
	(void)f->ops->stat(f, SIZE - 32, &(struct files_info){ 0 }, NULL);
	(void)f->ops->stat(f, UINT64_MAX - 31, &(struct files_info){ 0 }, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct memory m = {
		.volume = { .size = SIZE, .sector = 512, .read = memory_read },
		.data = data,
		.size = size,
	};
	struct files *f = NULL;

	if (files_fat.open(&m.volume, &f, NULL) >= 0)
		look(f, &m);
	if (f)
		(void)files_fat.close(f, NULL);
	return 0;
}
