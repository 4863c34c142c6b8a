// SPDX-License-Identifier: MIT
/* The state stream: what is written is read again, and nothing else is. */
#include "save/save_format.h"

#include "lib/cleanup.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/mman.h>

#include <cmocka.h>

struct leg {
	uint16_t length;
	bool shod;
};

struct animal {
	struct guid id;
	uint64_t born;
	uint32_t weight;
	uint16_t leg_count;
	uint8_t age;
	bool alive;
	uint8_t spot_count;
	uint16_t spots[6];
	uint32_t pairs[2];
	struct leg legs[4];
	struct leg tail;
	struct save_blob song;
	uint32_t mood; /* optional */
};

static const struct save_field leg_fields[] = {
	SAVE_FIELD(struct leg, length),
	SAVE_FIELD(struct leg, shod),
};
static const struct save_table leg_table = SAVE_TABLE("leg", 1, struct leg, leg_fields);

#define ANIMAL_FIELDS                                                                              \
	SAVE_GUID(struct animal, id), SAVE_FIELD(struct animal, born),                             \
		SAVE_FIELD(struct animal, weight), SAVE_FIELD(struct animal, age),                 \
		SAVE_FIELD(struct animal, alive), SAVE_COUNTED(struct animal, spots, spot_count),  \
		SAVE_ARRAY(struct animal, pairs),                                                  \
		SAVE_NESTED_COUNTED(struct animal, legs, leg_count, &leg_table),                   \
		SAVE_NESTED(struct animal, tail, &leg_table), SAVE_BLOB(struct animal, song, 100)

static const struct save_field animal_fields[] = {
	ANIMAL_FIELDS,
	SAVE_OPTIONAL(struct animal, mood),
};
static const struct save_table animal_table = SAVE_TABLE("animal", 2, struct animal, animal_fields);

/* What an earlier edition knew, and what a later one might write. */
static const struct save_field older_fields[] = { ANIMAL_FIELDS };
static const struct save_table older_table = SAVE_TABLE("animal", 2, struct animal, older_fields);
static const struct save_field newer_fields[] = {
	ANIMAL_FIELDS,
	{ .name = "wings", .type = SAVE_TYPE_UINT, .size = 1, .max = 1 },
};
static const struct save_table newer_table = SAVE_TABLE("animal", 2, struct animal, newer_fields);

static const struct animal horse = {
	.id = GUID(0x12345678, 0x9abc, 0xdef0, 1, 2, 3, 4, 5, 6, 7, 8),
	.born = UINT64_C(0x1122334455667788),
	.weight = 600000,
	.leg_count = 3,
	.age = 7,
	.alive = true,
	.spot_count = 2,
	.spots = { 0xfffe, 3 },
	.pairs = { 1, 0xffffffff },
	.legs = { { 90, true }, { 91, false }, { 92, true } },
	.tail = { 70, false },
	.song = { "neigh", 5 },
	.mood = 4,
};

static struct save_writer *writer(void)
{
	struct save_writer *w;

	assert_int_equal(save_writer_new(&w, NULL), 0);
	return w;
}

static struct save_reader *reader(const struct save_writer *w)
{
	struct save_reader *r;
	struct error err = { 0 };
	size_t size;
	const void *data;

	assert_int_equal(save_writer_check(w, &err), 0);
	data = save_writer_bytes(w, &size);
	assert_int_equal(save_reader_of(data, size, &r, &err), 0);
	return r;
}

static void assert_horse(const struct animal *a)
{
	assert_true(guid_equal(&a->id, &horse.id));
	assert_int_equal(a->born, horse.born);
	assert_int_equal(a->weight, 600000);
	assert_int_equal(a->age, 7);
	assert_true(a->alive);
	assert_int_equal(a->spot_count, 2);
	assert_memory_equal(a->spots, horse.spots, 4);
	assert_memory_equal(a->pairs, horse.pairs, 8);
	assert_int_equal(a->leg_count, 3);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(a->legs[i].length, 90 + i);
		assert_int_equal(a->legs[i].shod, i != 1);
	}
	assert_int_equal(a->tail.length, 70);
	assert_int_equal(a->song.size, 5);
	assert_memory_equal(a->song.data, "neigh", 5);
}

static void test_what_is_put_is_got(void **state)
{
	struct save_writer *w = writer();
	struct animal a = { 0 };
	struct save_reader *r;

	(void)state;
	save_put(w, &animal_table, &horse);
	r = reader(w);
	assert_true(save_has(r, &animal_table));
	assert_int_equal(save_get(r, &animal_table, &a, NULL), 0);
	assert_horse(&a);
	assert_int_equal(a.mood, 4);
	assert_false(save_has(r, &animal_table));
	assert_int_equal(save_reader_finish(r, NULL), 0);
	save_reader_free(r);
	save_writer_free(w);
}

static void test_editions_understand_each_other(void **state)
{
	struct animal a = { .mood = 9 };
	struct error err = { 0 };
	struct save_writer *w = writer();
	struct save_reader *r;

	(void)state;
	save_put(w, &older_table, &horse); /* has no mood: it stays what it was */
	save_put(w, &animal_table, &horse);
	save_put(w, &newer_table, &horse);
	r = reader(w);
	assert_int_equal(save_get(r, &animal_table, &a, NULL), 0);
	assert_horse(&a);
	assert_int_equal(a.mood, 9);
	assert_int_equal(save_get(r, &older_table, &a, NULL), 0); /* skips it */
	assert_int_equal(save_get(r, &animal_table, &a, &err), -EBADMSG);
	assert_non_null(strstr(err.message, "field wings: this version does not know it"));
	save_reader_free(r);
	save_writer_free(w);

	w = writer();
	save_put(w, &older_table, &horse);
	r = reader(w);
	assert_int_equal(save_get(r, &newer_table, &a, &err), -EBADMSG);
	assert_non_null(strstr(err.message, "field wings: is missing"));
	save_reader_free(r);
	save_writer_free(w);
}

static void test_versions_scopes_and_leftovers(void **state)
{
	struct save_table next = animal_table, extra = leg_table;
	struct save_writer *w = writer();
	struct error err = { 0 };
	struct animal a = { 0 };
	struct leg leg = { 5, true };
	struct save_reader *r;

	(void)state;
	next.version = 3;
	extra.name = "decoration";
	extra.optional = true;
	save_writer_scope(w, "stable");
	save_put(w, &next, &horse);
	save_put(w, &extra, &leg);
	save_writer_scope(w, "");
	save_put(w, &leg_table, &leg);
	leg.length = 6;
	save_put(w, &leg_table, &leg);
	r = reader(w);
	assert_int_equal(save_get(r, &animal_table, &a, &err), -ENOENT);
	assert_string_equal(err.message, "the saved state has no animal");
	assert_int_equal(save_next(r, &leg_table, &leg, NULL), 1);
	assert_int_equal(leg.length, 5);
	assert_int_equal(save_scope_finish(r, &err), -ENOTSUP);
	assert_int_equal(save_next(r, &leg_table, &leg, NULL), 1);
	assert_int_equal(leg.length, 6);
	assert_int_equal(save_next(r, &leg_table, &leg, NULL), 0);
	assert_int_equal(save_scope_finish(r, NULL), 0);
	assert_int_equal(save_reader_finish(r, &err), -ENOTSUP);
	assert_non_null(strstr(err.message, "animal of stable"));
	save_reader_scope(r, "stable");
	assert_int_equal(save_get(r, &animal_table, &a, &err), -ENOTSUP);
	assert_non_null(strstr(err.message, "newer version"));
	assert_int_equal(a.weight, 0);
	assert_int_equal(save_get(r, &next, &a, NULL), 0);
	assert_int_equal(save_reader_finish(r, NULL), 0); /* the decoration may be left out */
	save_reader_free(r);
	save_writer_free(w);
}

static void test_a_count_above_its_array_is_found_when_writing(void **state)
{
	struct save_writer *w = writer();
	struct animal a = horse;
	struct error err = { 0 };

	(void)state;
	a.spot_count = 7;
	save_put(w, &animal_table, &a);
	save_put(w, &animal_table, &horse);
	assert_int_equal(save_writer_check(w, &err), -EINVAL);
	assert_string_equal(err.message, "animal: field spots has 7 elements and room for 6");
	save_writer_free(w);
}

/* Tables that disagree about a field: each is refused, and nothing is written. */
static void test_fields_that_do_not_fit(void **state)
{
	struct wide {
		uint32_t value;
		uint32_t list[3];
		uint8_t bytes[3];
		struct save_blob blob;
		bool flag;
	};
	struct narrow {
		uint8_t value;
		uint32_t list[2];
		uint8_t bytes[2];
		struct save_blob blob;
	};
	static const struct save_field wide_fields[5][1] = {
		{ SAVE_FIELD(struct wide, value) }, { SAVE_ARRAY(struct wide, list) },
		{ SAVE_BYTES(struct wide, bytes) }, { SAVE_BLOB(struct wide, blob, 9) },
		{ SAVE_BYTES(struct wide, value) },
	};
	static const struct save_field narrow_fields[5][1] = {
		{ SAVE_FIELD(struct narrow, value) }, { SAVE_ARRAY(struct narrow, list) },
		{ SAVE_BYTES(struct narrow, bytes) }, { SAVE_BLOB(struct narrow, blob, 3) },
		{ SAVE_FIELD(struct narrow, value) },
	};
	const struct wide from = { .value = 256, .blob = { "longer", 6 } };

	(void)state;
	for (int i = 0; i < 5; i++) {
		const struct save_table out = SAVE_TABLE("x", 1, struct wide, wide_fields[i]);
		const struct save_table in = SAVE_TABLE("x", 1, struct narrow, narrow_fields[i]);
		struct narrow to = { .value = 77 };
		struct save_writer *w = writer();
		struct save_reader *r;
		struct error err = { 0 };

		save_put(w, &out, &from);
		r = reader(w);
		assert_int_equal(save_get(r, &in, &to, &err), -EBADMSG);
		assert_non_null(strstr(err.message, "field "));
		assert_int_equal(to.value, 77);
		save_reader_free(r);
		save_writer_free(w);
	}
}

static void test_a_bool_is_true_or_false(void **state)
{
	static const struct save_field number[] = {
		{ .name = "shod", .type = SAVE_TYPE_UINT, .size = 1, .max = 1 },
	};
	static const struct save_field truth[] = { SAVE_FIELD(struct leg, shod) };
	const struct save_table out = SAVE_TABLE("x", 1, uint8_t, number);
	const struct save_table in = SAVE_TABLE("x", 1, struct leg, truth);
	struct save_writer *w = writer();
	struct leg leg = { 0 };
	struct save_reader *r;

	(void)state;
	save_put(w, &out, &(uint8_t){ 2 });
	r = reader(w);
	assert_int_equal(save_get(r, &in, &leg, NULL), -EBADMSG);
	save_reader_free(r);
	save_writer_free(w);
}

/* --- whole streams --- */

#define BULK_SIZE 5000u

/* A stream with bulk data in a memfd; what it looks like is in *ret_size. */
static int whole_stream(size_t *ret_size)
{
	static const uint8_t bulk[8192] = { 1, 2, 3 };
	const struct save_bulk b = { BULK_SIZE, 0x1234 };
	struct save_writer *w = writer();
	struct leg leg = { 3, false };
	int fd = memfd_create("state", MFD_CLOEXEC);
	size_t size;

	save_put(w, &animal_table, &horse);
	save_put_bulk(w, &leg_table, &leg, &b);
	(void)save_writer_bytes(w, &size);
	assert_int_equal(size % SAVE_BULK_ALIGN, 0);
	assert_int_equal(save_writer_write(w, fd, NULL), 0);
	assert_int_equal(write(fd, bulk, sizeof(bulk)), sizeof(bulk));
	*ret_size = size + sizeof(bulk);
	save_writer_restart(w, *ret_size);
	leg.length = 4;
	save_put(w, &leg_table, &leg);
	save_put_end(w);
	assert_int_equal(save_writer_write(w, fd, NULL), 0);
	(void)save_writer_bytes(w, &size);
	*ret_size += size;
	save_writer_free(w);
	return fd;
}

static void test_bulk_data_is_found_at_its_place(void **state)
{
	_cleanup_close_ int fd = -1;
	struct animal a = { 0 };
	struct save_reader *r;
	struct save_bulk bulk;
	struct leg leg;
	uint8_t first[3];
	uint64_t at;
	size_t size;

	(void)state;
	fd = whole_stream(&size);
	assert_int_equal(save_reader_open(fd, &r, NULL), 0);
	assert_int_equal(save_next_bulk(r, &leg_table, &leg, &bulk, &at, NULL), 1);
	assert_int_equal(leg.length, 3);
	assert_int_equal(bulk.size, BULK_SIZE);
	assert_int_equal(bulk.crc, 0x1234);
	assert_int_equal(at % SAVE_BULK_ALIGN, 0);
	assert_int_equal(pread(fd, first, 3, (off_t)at), 3);
	assert_memory_equal(first, "\1\2\3", 3);
	assert_int_equal(save_get(r, &leg_table, &leg, NULL), 0);
	assert_int_equal(leg.length, 4);
	assert_int_equal(save_get(r, &animal_table, &a, NULL), 0);
	assert_int_equal(save_reader_finish(r, NULL), 0);
	save_reader_free(r);
}

static void test_every_cut_is_noticed(void **state)
{
	_cleanup_close_ int fd = -1;
	struct save_reader *r;
	struct error err = { 0 };
	size_t size;

	(void)state;
	fd = whole_stream(&size);
	/* The last bytes are padding behind the end. */
	while (size--) {
		int n;

		assert_int_equal(ftruncate(fd, (off_t)size), 0);
		n = save_reader_open(fd, &r, &err);
		if (n >= 0) {
			save_reader_free(r);
			assert_true(size % 8);
			continue;
		}
		assert_int_equal(n, -EBADMSG);
		assert_true(strstr(err.message, "truncated") || size < 64);
	}
}

/* Each bit of each byte; padding and bulk data have no checksum here. */
static void test_every_flip_is_noticed_or_harmless(void **state)
{
	_cleanup_close_ int fd = -1;
	uint8_t *bytes;
	size_t size;
	unsigned noticed = 0;

	(void)state;
	fd = whole_stream(&size);
	bytes = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(bytes, MAP_FAILED);
	for (size_t bit = 0; bit < size * 8; bit += bit < 8192 ? 1 : 61) {
		struct animal a = { 0 };
		struct save_reader *r;

		bytes[bit / 8] ^= (uint8_t)BIT(bit % 8);
		if (save_reader_open(fd, &r, NULL) < 0) {
			noticed++;
		} else {
			assert_int_equal(save_get(r, &animal_table, &a, NULL), 0);
			assert_horse(&a);
			save_reader_free(r);
		}
		bytes[bit / 8] ^= (uint8_t)BIT(bit % 8);
	}
	assert_true(noticed > 3000);
	munmap(bytes, size);
}

static void test_another_format_is_named(void **state)
{
	struct save_reader *r;
	struct error err = { 0 };

	(void)state;
	assert_int_equal(save_reader_of("hello", 5, &r, &err), -EBADMSG);
	assert_string_equal(err.message, "this is no saved state of a virtual machine");
}

static void test_a_dump_names_everything(void **state)
{
	_cleanup_close_ int fd = -1;
	_cleanup_free_ char *text = NULL;
	struct save_reader *r;
	size_t size;
	FILE *out;

	(void)state;
	fd = whole_stream(&size);
	assert_int_equal(save_reader_open(fd, &r, NULL), 0);
	out = open_memstream(&text, &size);
	save_dump(r, out);
	fclose(out);
	assert_non_null(strstr(text, "animal version 2\n  id = 78563412bc9af0de"));
	assert_non_null(strstr(text, "  spots = 0xfffe 0x3\n"));
	assert_non_null(strstr(text, "    length = 0x5b\n"));
	assert_non_null(strstr(text, "leg version 1, 5000 bytes at 4096\n") ||
			strstr(text, "leg version 1, 5000 bytes at 8192\n"));
	save_reader_free(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_is_put_is_got),
		cmocka_unit_test(test_editions_understand_each_other),
		cmocka_unit_test(test_versions_scopes_and_leftovers),
		cmocka_unit_test(test_a_count_above_its_array_is_found_when_writing),
		cmocka_unit_test(test_fields_that_do_not_fit),
		cmocka_unit_test(test_a_bool_is_true_or_false),
		cmocka_unit_test(test_bulk_data_is_found_at_its_place),
		cmocka_unit_test(test_every_cut_is_noticed),
		cmocka_unit_test(test_every_flip_is_noticed_or_harmless),
		cmocka_unit_test(test_another_format_is_named),
		cmocka_unit_test(test_a_dump_names_everything),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
