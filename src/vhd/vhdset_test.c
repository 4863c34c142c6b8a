// SPDX-License-Identifier: MIT
/*
 * Sets on real files: who may open what when, what becomes of the image's own structures, and that
 * several writers, in one process and in many, see each other's data.
 */
#include "vhd/vhdset.h"

#include "lib/cleanup.h"
#include "lib/crc32c.h"
#include "vhd/disk_drive.h"
#include "vhd/image.h"
#include "vhd/repair.h"
#include "vhd/store.h"
#include "vhd/vhdx_format.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cmocka.h>

#define SIZE (16 * MIB)

struct files {
	char set[40], image[40];
	struct loop *loop;
};

static int file_new(char *name)
{
	int fd = mkstemp(name);

	assert_true(fd >= 0);
	return fd;
}

/* An image of 16 MiB: "raw", "fixed", or "dynamic". */
static struct files files_new(const char *kind)
{
	struct files f = { "/var/tmp/partita-set-XXXXXX", "/var/tmp/partita-img-XXXXXX", NULL };
	const struct vhdx_create_options o = {
		.size = SIZE,
		.block_size = MIB,
		.fixed = !strcmp(kind, "fixed"),
	};
	int image = file_new(f.image);

	close(file_new(f.set));
	if (!strcmp(kind, "raw"))
		assert_int_equal(ftruncate(image, SIZE), 0);
	else
		assert_int_equal(vhdx_create(image, &o, NULL), 0);
	close(image);
	assert_int_equal(loop_new(64, &f.loop, NULL), 0);
	return f;
}

static void files_remove(struct files *f)
{
	loop_free(f->loop);
	unlink(f->set);
	unlink(f->image);
}

static int set_create(const struct files *f, const char *format, struct error *err)
{
	_cleanup_close_ int fd = open(f->set, O_RDWR);

	return vhdset_create(fd, open(f->image, O_RDONLY), f->image, format, err);
}

static int set_open(const struct files *f, uint8_t who, struct vhdset **ret, struct error *err)
{
	const struct vhdset_options o = { .initiator = { { who, 1, 2 } } };

	return vhdset_open(f->loop, open(f->set, O_RDWR), open(f->image, O_RDWR), &o, ret, err);
}

static struct vhdset *set_opened(const struct files *f, uint8_t who)
{
	struct error err = { 0 };
	struct vhdset *s = NULL;

	if (set_open(f, who, &s, &err) < 0)
		print_error("%s\n", err.message);
	assert_non_null(s);
	return s;
}

static int image_open(const struct files *f, bool read_only)
{
	const struct disk_open_options o = { .read_only = read_only };
	struct disk *d;
	int r = disk_open(f->loop, open(f->image, read_only ? O_RDONLY : O_RDWR), f->image, &o, &d,
			  NULL);

	if (r >= 0)
		disk_close(d, NULL);
	return r;
}

static struct image_info info_of(const struct files *f)
{
	struct image_info i;

	assert_int_equal(image_info(open(f->image, O_RDONLY), f->image, &i, NULL), 0);
	return i;
}

/* --- making and refusing --- */

static void test_create_says_what_it_is(void **state)
{
	struct files f = files_new("fixed");
	struct image_info image = info_of(&f);
	struct vhdset_info i;
	struct error err = { 0 };
	_cleanup_close_ int fd = -1;

	(void)state;
	assert_int_equal(set_create(&f, NULL, NULL), 0);
	fd = open(f.set, O_RDONLY);
	assert_int_equal(vhdset_info(fd, &i, &err), 0);
	assert_int_equal(i.format, VHDSET_VHDX);
	assert_true(guid_equal(&i.image_id, &image.geometry.id));
	assert_int_equal(i.image_size, SIZE);
	assert_string_equal(i.image, strrchr(f.image, '/') + 1);
	assert_int_equal(set_create(&f, NULL, &err), -EEXIST);
	files_remove(&f);
}

static void test_what_cannot_be_shared_is_refused(void **state)
{
	struct files f = files_new("dynamic");
	struct error err = { 0 };

	(void)state;
	assert_int_equal(set_create(&f, NULL, &err), -ENOTSUP);
	assert_non_null(strstr(err.message, "dynamic"));
	assert_int_equal(set_create(&f, "vhd", &err), -ENOTSUP);
	files_remove(&f);
	f = files_new("raw");
	assert_int_equal(truncate(f.image, SIZE + 100), 0);
	assert_int_equal(set_create(&f, "raw", &err), -EINVAL);
	assert_int_equal(truncate(f.image, 0), 0);
	assert_int_equal(set_create(&f, "raw", &err), -EINVAL);
	files_remove(&f);
}

static void resign(uint8_t *head)
{
	le32 sum = le32_of(0);

	memcpy(head + 12, &sum, 4);
	sum = le32_of(crc32c(0, head, VHDSET_HEAD));
	memcpy(head + 12, &sum, 4);
}

static void test_hostile_heads_are_refused(void **state)
{
	static const struct {
		unsigned at;
		uint8_t byte;
		int result;
	} spoils[] = {
		{ 0, 'x', -EINVAL }, { 8, 2, -ENOTSUP }, { 32, 3, -EINVAL },   { 32, 0, -EINVAL },
		{ 36, 0, -EINVAL },  { 37, 1, -EINVAL }, { 39, 255, -EINVAL }, { 64, '/', -EINVAL },
		{ 65, 0, -EINVAL },  { 56, 1, -EINVAL },
	};
	struct files f = files_new("raw");
	uint8_t head[VHDSET_HEAD], bad[VHDSET_HEAD];
	struct vhdset_info i;
	_cleanup_close_ int fd = open(f.set, O_RDONLY);

	(void)state;
	assert_int_equal(set_create(&f, "raw", NULL), 0);
	assert_int_equal(pread(fd, head, sizeof(head), 0), sizeof(head));
	for (size_t k = 0; k < ARRAY_SIZE(spoils); k++) {
		struct error err = { 0 };

		memcpy(bad, head, sizeof(bad));
		bad[spoils[k].at] = spoils[k].byte;
		assert_int_equal(vhdset_decode(bad, &i, NULL), -EINVAL); /* its checksum */
		resign(bad);
		assert_int_equal(vhdset_decode(bad, &i, &err), spoils[k].result);
		assert_true(err.message[0]);
	}
	memcpy(bad, head, sizeof(bad));
	memset(bad + 64, 0, 40);
	memcpy(bad + 64, "..", 2);
	bad[36] = 2;
	resign(bad);
	assert_int_equal(vhdset_decode(bad, &i, NULL), -EINVAL);
	files_remove(&f);
}

static struct vhdset_status status_of(const struct files *f)
{
	_cleanup_close_ int fd = open(f->set, O_RDONLY);
	struct error err = { 0 };
	struct vhdset_status s;

	assert_true(vhdset_is(fd));
	if (vhdset_status(fd, &s, &err) < 0)
		fail_msg("%s", err.message);
	return s;
}

static void ask(struct vhdset *s, uint8_t action, uint64_t key, uint64_t action_key)
{
	const struct reserve_request q = {
		.action = action,
		.type = RESERVE_WRITE_EXCLUSIVE_REGISTRANTS,
		.key = key,
		.action_key = action_key,
	};
	enum reserve_result result;

	assert_int_equal(reserve_file_apply(vhdset_reservations(s), &q, &result), 0);
	assert_int_equal(result, RESERVE_GOOD);
}

static void test_tools_see_who_shares(void **state)
{
	struct files f = files_new("raw");
	struct vhdset_status s;
	struct vhdset *a, *b;

	(void)state;
	assert_int_equal(set_create(&f, NULL, NULL), 0);
	s = status_of(&f);
	assert_false(s.used);
	assert_int_equal(s.change, 0);
	a = set_opened(&f, 1);
	b = set_opened(&f, 2);
	ask(a, RESERVE_REGISTER, 0, 0x11);
	ask(b, RESERVE_REGISTER, 0, 0x22);
	ask(b, RESERVE_RESERVE, 0x22, 0);
	s = status_of(&f);
	assert_true(s.used);
	assert_int_equal(s.change, 3);
	assert_int_equal(s.state.generation, 2);
	assert_int_equal(s.state.type, RESERVE_WRITE_EXCLUSIVE_REGISTRANTS);
	assert_int_equal(reserve_registered(&s.state), 2);
	assert_true(reserve_holds(&s.state, reserve_find(&s.state, &(struct guid){ { 2, 1, 2 } })));
	assert_int_equal(vhdset_close(a, NULL), 0);
	assert_int_equal(vhdset_close(b, NULL), 0);
	assert_false(status_of(&f).used);
	files_remove(&f);
}

static void on_finding(struct check_report *r, enum check_kind kind, const char *text)
{
	(void)r, (void)kind;
	assert_true(text[0]);
}

static void damage(const struct files *f, off_t at)
{
	_cleanup_close_ int fd = open(f->set, O_RDWR);

	assert_int_equal(pwrite(fd, "?", 1, at), 1);
}

static void check_finds(const struct files *f, unsigned damages, unsigned notes)
{
	struct check_report report = { .found = on_finding };

	assert_int_equal(image_check(open(f->set, O_RDONLY), f->set, &report, NULL), 0);
	assert_int_equal(report.counts[CHECK_DAMAGE], damages);
	assert_int_equal(report.counts[CHECK_NOTE], notes);
}

static void test_sets_are_examined(void **state)
{
	struct files f = files_new("raw");
	struct vhdset *s;

	(void)state;
	assert_int_equal(set_create(&f, NULL, NULL), 0);
	check_finds(&f, 0, 0);
	s = set_opened(&f, 1);
	ask(s, RESERVE_REGISTER, 0, 0x11);
	check_finds(&f, 0, 0);
	assert_int_equal(vhdset_close(s, NULL), 0);
	damage(&f, RESERVE_SLOT(1) + 30);
	check_finds(&f, 0, 1);
	damage(&f, RESERVE_SLOT(0) + 30);
	check_finds(&f, 1, 0);
	damage(&f, 70);
	check_finds(&f, 2, 0);
	assert_int_equal(truncate(f.set, 100), 0);
	check_finds(&f, 2, 0);
	files_remove(&f);
}

static void test_a_set_is_no_image(void **state)
{
	const struct disk_open_options any = { .read_only = true },
				       raw = { .read_only = true, .format = "raw" };
	struct files f = files_new("raw");
	struct repair_report report = { 0 };
	struct error err = { 0 };
	struct disk *d;

	(void)state;
	assert_int_equal(set_create(&f, NULL, NULL), 0);
	assert_int_equal(disk_open(NULL, open(f.set, O_RDONLY), f.set, &any, &d, &err), -EINVAL);
	assert_non_null(strstr(err.message, "machines share"));
	assert_int_equal(disk_open(NULL, open(f.set, O_RDONLY), f.set, &raw, &d, &err), 0);
	assert_int_equal(disk_close(d, NULL), 0);
	assert_int_equal(image_repair(open(f.set, O_RDWR), f.set, &report, &err), -ENOTSUP);
	assert_non_null(strstr(err.message, "vhd share"));
	files_remove(&f);
}

static void test_another_image_is_refused(void **state)
{
	struct files f = files_new("fixed"), other = files_new("fixed");
	struct error err = { 0 };
	struct vhdset *s;

	(void)state;
	assert_int_equal(set_create(&f, NULL, NULL), 0);
	assert_int_equal(rename(other.image, f.image), 0);
	assert_int_equal(set_open(&f, 1, &s, &err), -ESTALE);
	assert_non_null(strstr(err.message, "identity"));
	files_remove(&f);
	files_remove(&other);
	f = files_new("raw");
	assert_int_equal(set_create(&f, "raw", NULL), 0);
	assert_int_equal(truncate(f.image, 2 * SIZE), 0);
	assert_int_equal(set_open(&f, 1, &s, &err), -ESTALE);
	assert_int_equal(set_open(&f, 0, &s, &err), -ESTALE);
	files_remove(&f);
}

static void test_damaged_states_are_refused(void **state)
{
	struct files f = files_new("raw");
	struct error err = { 0 };
	_cleanup_close_ int fd = open(f.set, O_RDWR);
	struct vhdset *s;

	(void)state;
	assert_int_equal(set_create(&f, "raw", NULL), 0);
	assert_int_equal(pwrite(fd, "x", 1, RESERVE_SLOT(0) + 100), 1);
	assert_int_equal(set_open(&f, 1, &s, &err), -EINVAL);
	assert_non_null(strstr(err.message, "damaged"));
	assert_int_equal(ftruncate(fd, 100), 0);
	assert_int_equal(set_open(&f, 1, &s, &err), -EINVAL);
	files_remove(&f);
}

/* --- who may open it --- */

static void test_shared_and_other_openers_exclude_each_other(void **state)
{
	static const char *const kinds[] = { "raw", "fixed" };

	(void)state;
	for (size_t k = 0; k < ARRAY_SIZE(kinds); k++) {
		struct files f = files_new(kinds[k]);
		const struct disk_open_options alone = { .read_only = k == 1 };
		struct vhdset *a, *b, *c;
		struct error err = { 0 };
		struct disk *d;

		assert_int_equal(set_create(&f, kinds[k][0] == 'r' ? "raw" : NULL, NULL), 0);
		a = set_opened(&f, 1);
		b = set_opened(&f, 2);
		assert_int_equal(set_open(&f, 2, &c, &err), -EBUSY);
		assert_int_equal(image_open(&f, false), -EBUSY);
		assert_int_equal(image_open(&f, true), -EBUSY);
		vhdset_close(a, NULL); /* the first one; the other goes on */
		assert_int_equal(image_open(&f, false), -EBUSY);
		a = set_opened(&f, 1);
		vhdset_close(a, NULL);
		vhdset_close(b, NULL);
		assert_int_equal(image_open(&f, true), 0);
		assert_int_equal(
			disk_open(f.loop, open(f.image, O_RDWR), f.image, &alone, &d, NULL), 0);
		assert_int_equal(set_open(&f, 1, &c, &err), -EBUSY);
		assert_int_equal(disk_close(d, NULL), 0);
		vhdset_close(set_opened(&f, 1), NULL);
		files_remove(&f);
	}
}

/* Two sets for one image would each have reservations of their own. */
static void test_two_sets_of_an_image_exclude_each_other(void **state)
{
	struct files f = files_new("raw"), g = f;
	struct vhdset *a, *b;
	struct error err = { 0 };

	(void)state;
	strcpy(g.set, "/var/tmp/partita-set-XXXXXX");
	close(file_new(g.set));
	assert_int_equal(set_create(&f, "raw", NULL), 0);
	assert_int_equal(set_create(&g, "raw", NULL), 0);
	a = set_opened(&f, 1);
	assert_int_equal(set_open(&g, 2, &b, &err), -EBUSY);
	vhdset_close(a, NULL);
	vhdset_close(set_opened(&g, 2), NULL);
	unlink(g.set);
	files_remove(&f);
}

/* --- the image's own structures --- */

static uint32_t structures_sum(const struct files *f)
{
	static uint8_t bytes[4 * MIB]; /* headers, log, metadata and table; data comes behind */
	_cleanup_close_ int fd = open(f->image, O_RDONLY);
	ssize_t n = pread(fd, bytes, sizeof(bytes), 0);

	assert_int_equal(n, sizeof(bytes));
	return crc32c(0, bytes, sizeof(bytes));
}

static void test_the_first_opener_alone_renews_identities(void **state)
{
	struct files f = files_new("fixed");
	struct image_info before = info_of(&f), after;
	struct vhdset *a, *b;
	uint8_t data[4096];
	uint32_t sum;

	(void)state;
	memset(data, 0xda, sizeof(data));
	assert_int_equal(set_create(&f, NULL, NULL), 0);
	after = info_of(&f);
	assert_true(guid_equal(&before.vhdx.data_write_guid, &after.vhdx.data_write_guid));
	a = set_opened(&f, 1);
	sum = structures_sum(&f);
	b = set_opened(&f, 2);
	for (unsigned i = 0; i < 16; i++)
		assert_int_equal(drive_write(vhdset_disk(i & 1 ? a : b), data, 4096, i * MIB,
					     i & 2 ? DISK_FUA : 0),
				 0);
	assert_int_equal(drive_trim(vhdset_disk(a), MIB, MIB), 0);
	assert_int_equal(drive_zero(vhdset_disk(a), 2 * MIB, 2 * MIB), 0);
	assert_int_equal(drive_flush(vhdset_disk(b)), 0);
	assert_int_equal(vhdset_close(a, NULL), 0);
	assert_int_equal(vhdset_close(b, NULL), 0);
	assert_int_equal(structures_sum(&f), sum); /* only the data has changed */
	after = info_of(&f);
	assert_false(after.vhdx.log_replayed);
	assert_false(guid_equal(&before.vhdx.data_write_guid, &after.vhdx.data_write_guid));
	assert_false(guid_equal(&before.vhdx.file_write_guid, &after.vhdx.file_write_guid));
	assert_true(guid_equal(&before.geometry.id, &after.geometry.id));
	assert_int_equal(before.file_size, after.file_size);
	files_remove(&f);
}

static void on_found(struct check_report *r, enum check_kind kind, const char *text)
{
	(void)r;
	(void)kind;
	print_error("%s\n", text);
}

static void test_the_image_is_whole_afterwards(void **state)
{
	struct files f = files_new("fixed");
	struct check_report report = { .found = on_found };
	const struct disk_open_options o = { .read_only = true };
	uint8_t data[65536], got[65536];
	struct vhdset *a;
	struct disk *d;

	(void)state;
	for (unsigned i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * 7 >> 3);
	assert_int_equal(set_create(&f, NULL, NULL), 0);
	a = set_opened(&f, 1);
	assert_int_equal(drive_write(vhdset_disk(a), data, sizeof(data), 3 * MIB - 32768, 0), 0);
	assert_int_equal(vhdset_close(a, NULL), 0);
	assert_int_equal(image_check(open(f.image, O_RDONLY), f.image, &report, NULL), 0);
	assert_int_equal(report.counts[CHECK_DAMAGE] + report.counts[CHECK_WASTE], 0);
	assert_int_equal(report.blocks_present, report.blocks);
	assert_int_equal(disk_open(f.loop, open(f.image, O_RDONLY), f.image, &o, &d, NULL), 0);
	assert_int_equal(drive_read(d, got, sizeof(got), 3 * MIB - 32768), 0);
	assert_memory_equal(got, data, sizeof(data));
	disk_close(d, NULL);
	files_remove(&f);
}

/* --- data --- */

static void test_writers_see_each_others_data(void **state)
{
	static const char *const kinds[] = { "raw", "fixed" };
	static uint8_t data[3 * MIB], got[3 * MIB];

	(void)state;
	for (size_t k = 0; k < ARRAY_SIZE(kinds); k++) {
		struct files f = files_new(kinds[k]);
		struct vhdset *a, *b;

		assert_int_equal(set_create(&f, NULL, NULL), 0);
		a = set_opened(&f, 1);
		b = set_opened(&f, 2);
		assert_true(guid_equal(&vhdset_disk(a)->geometry.id, &vhdset_disk(b)->geometry.id));
		assert_false(guid_is_zero(&vhdset_disk(a)->geometry.id));
		assert_int_equal(vhdset_disk(a)->geometry.trim_granularity, 0);
		memset(data, (int)(0x40 + k), sizeof(data));
		assert_int_equal(drive_write(vhdset_disk(a), data, sizeof(data), MIB / 2, 0), 0);
		assert_int_equal(drive_read(vhdset_disk(b), got, sizeof(got), MIB / 2), 0);
		assert_memory_equal(got, data, sizeof(data));
		assert_int_equal(drive_zero(vhdset_disk(b), MIB, MIB), 0);
		assert_int_equal(drive_read(vhdset_disk(a), got, MIB, MIB), 0);
		assert_true(got[0] == 0 && !memcmp(got, got + 1, MIB - 1));
		assert_int_equal(drive_trim(vhdset_disk(a), MIB, 2 * MIB), 0);
		assert_int_equal(drive_read(vhdset_disk(b), got, MIB, 2 * MIB), 0);
		assert_memory_equal(got, data, MIB); /* stays as it was */
		vhdset_close(a, NULL);
		vhdset_close(b, NULL);
		files_remove(&f);
	}
}

/*
 * A VHDX whose blocks lie in the file in another order: requests are cut where they part. The
 * table's entries 3 and 9 change places.
 */
static void test_blocks_in_any_order(void **state)
{
	struct files f = files_new("fixed");
	static uint8_t data[12 * MIB], got[12 * MIB];
	const struct disk_open_options o = { .read_only = true };
	_cleanup_close_ int fd = open(f.image, O_RDWR);
	uint64_t table[16], at = 0, entry;
	struct vhdset *a;
	struct disk *d;

	(void)state;
	for (at = MIB; at < 4 * MIB; at += MIB) {
		assert_int_equal(pread(fd, table, sizeof(table), (off_t)at), sizeof(table));
		if ((le64toh(table[0]) & 7) == 6 && le64toh(table[1]) - le64toh(table[0]) == MIB)
			break;
	}
	assert_true(at < 4 * MIB);
	entry = table[3], table[3] = table[9], table[9] = entry;
	assert_int_equal(pwrite(fd, table, sizeof(table), (off_t)at), sizeof(table));
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i >> 12 ^ i);
	assert_int_equal(set_create(&f, NULL, NULL), 0);
	a = set_opened(&f, 1);
	assert_int_equal(drive_write(vhdset_disk(a), data, sizeof(data), MIB, DISK_FUA), 0);
	assert_int_equal(drive_read(vhdset_disk(a), got, sizeof(got), MIB), 0);
	assert_memory_equal(got, data, sizeof(data));
	vhdset_close(a, NULL);
	memset(got, 0, sizeof(got));
	assert_int_equal(disk_open(f.loop, open(f.image, O_RDONLY), f.image, &o, &d, NULL), 0);
	assert_int_equal(drive_read(d, got, sizeof(got), MIB), 0);
	assert_memory_equal(got, data, sizeof(data));
	disk_close(d, NULL);
	files_remove(&f);
}

/* --- several processes --- */

#define PROCESSES 3

/* Each writes sectors of its own, and looks whether those of the others are whole. */
static void work(const struct files *parents, uint8_t who)
{
	struct files f = *parents;
	struct vhdset *s;
	uint8_t data[512];

	assert_int_equal(loop_new(64, &f.loop, NULL), 0);
	s = set_opened(&f, who);
	for (unsigned i = 0; i < 300; i++) {
		uint64_t at = (i * 61 + i / 7) % 4096 * 512 * PROCESSES;

		memset(data, who, sizeof(data));
		assert_int_equal(drive_write(vhdset_disk(s), data, 512, at + (who - 1) * 512u, 0),
				 0);
		assert_int_equal(drive_read(vhdset_disk(s), data, 512, at + who % PROCESSES * 512u),
				 0);
		assert_true(!data[0] || data[0] == who % PROCESSES + 1);
		assert_memory_equal(data, data + 1, 511);
	}
	assert_int_equal(vhdset_close(s, NULL), 0);
	loop_free(f.loop);
}

static void test_processes_write_at_once(void **state)
{
	struct files f = files_new("fixed");
	pid_t children[PROCESSES];
	struct vhdset *s;
	uint8_t data[512 * PROCESSES];

	(void)state;
	assert_int_equal(set_create(&f, NULL, NULL), 0);
	for (unsigned i = 0; i < PROCESSES; i++) {
		children[i] = fork();
		if (!children[i]) {
			work(&f, (uint8_t)(i + 1));
			_exit(0);
		}
	}
	for (unsigned i = 0; i < PROCESSES; i++) {
		int status;

		assert_int_equal(waitpid(children[i], &status, 0), children[i]);
		assert_int_equal(status, 0);
	}
	s = set_opened(&f, 9);
	assert_int_equal(drive_read(vhdset_disk(s), data, sizeof(data), 0), 0);
	for (unsigned i = 0; i < PROCESSES; i++)
		assert_int_equal(data[512 * i], i + 1);
	vhdset_close(s, NULL);
	files_remove(&f);
}

static void test_a_killed_opener_is_no_obstacle(void **state)
{
	struct files f = files_new("fixed");
	int ready[2], status;
	char byte;
	pid_t child;

	(void)state;
	assert_int_equal(set_create(&f, NULL, NULL), 0);
	assert_int_equal(pipe(ready), 0);
	child = fork();
	if (!child) {
		struct files mine = f;

		assert_int_equal(loop_new(64, &mine.loop, NULL), 0);
		(void)set_opened(&mine, 1);
		(void)!write(ready[1], "", 1);
		pause();
	}
	assert_int_equal(read(ready[0], &byte, 1), 1);
	assert_int_equal(image_open(&f, false), -EBUSY);
	kill(child, SIGKILL);
	waitpid(child, &status, 0);
	vhdset_close(set_opened(&f, 1), NULL);
	assert_int_equal(image_open(&f, false), 0);
	close(ready[0]);
	close(ready[1]);
	files_remove(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_create_says_what_it_is),
		cmocka_unit_test(test_what_cannot_be_shared_is_refused),
		cmocka_unit_test(test_hostile_heads_are_refused),
		cmocka_unit_test(test_tools_see_who_shares),
		cmocka_unit_test(test_sets_are_examined),
		cmocka_unit_test(test_a_set_is_no_image),
		cmocka_unit_test(test_another_image_is_refused),
		cmocka_unit_test(test_damaged_states_are_refused),
		cmocka_unit_test(test_shared_and_other_openers_exclude_each_other),
		cmocka_unit_test(test_two_sets_of_an_image_exclude_each_other),
		cmocka_unit_test(test_the_first_opener_alone_renews_identities),
		cmocka_unit_test(test_the_image_is_whole_afterwards),
		cmocka_unit_test(test_writers_see_each_others_data),
		cmocka_unit_test(test_blocks_in_any_order),
		cmocka_unit_test(test_processes_write_at_once),
		cmocka_unit_test(test_a_killed_opener_is_no_obstacle),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
