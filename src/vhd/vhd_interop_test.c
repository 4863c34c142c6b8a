// SPDX-License-Identifier: MIT
/*
 * VHD images that go to and come from others: qemu-img must find ours without fault and read from
 * them what we wrote, also as a power cut would leave them, and we must read its images as it does.
 * Images that Windows made are read when their folder is named (PARTITA_SAMPLES) or lies beside the
 * tree. Skipped where qemu-img is not installed.
 */
#include "vhd/chain.h"
#include "vhd/disk_drive.h"
#include "vhd/image.h"
#include "vhd/merge.h"

#include "lib/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include <cmocka.h>

#define DISK_SIZE (96 * MIB + 512)

static struct loop *loop;
static char folder[] = "/var/tmp/partita-vhd-interop-XXXXXX";

static int run(const char *format, ...)
{
	char command[2048];
	va_list ap;
	int n;

	n = snprintf(command, sizeof(command), "cd %s && exec >log 2>&1; ", folder);
	va_start(ap, format);
	vsnprintf(command + n, sizeof(command) - (size_t)n, format, ap);
	va_end(ap);
	return system(command);
}

/* What the last command said. */
static void log_print(void)
{
	char command[128];

	snprintf(command, sizeof(command), "cat %s/log >&2", folder);
	assert_int_equal(system(command), 0);
}

static void run_ok(const char *command)
{
	if (run("%s", command)) {
		fprintf(stderr, "failed: %s\n", command);
		log_print();
		fail();
	}
}

static int open_in(const char *name, int flags)
{
	char path[256];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	fd = open(path, flags | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	return fd;
}

static struct disk *open_with(const char *name, const struct disk_open_options *o)
{
	struct error err = { 0 };
	struct disk *d = NULL;

	if (disk_open(loop, open_in(name, o->read_only ? O_RDONLY : O_RDWR), name, o, &d, &err) < 0)
		fail_msg("%s", err.message);
	return d;
}

static struct disk *open_disk(const char *name, bool read_only)
{
	const struct disk_open_options o = { .read_only = read_only };

	return open_with(name, &o);
}

static void create(const char *name, const struct vhd_create_options *o)
{
	_cleanup_close_ int fd = open_in(name, O_RDWR | O_CREAT | O_TRUNC);
	struct error err = { 0 };

	if (vhd_create(fd, o, &err) < 0)
		fail_msg("%s", err.message);
}

static void check(const char *name)
{
	struct check_report report = { 0 };
	struct error err = { 0 };

	assert_int_equal(image_check(open_in(name, O_RDONLY), name, &report, &err), 0);
	assert_int_equal(report.counts[CHECK_DAMAGE], 0);
}

/* Writes the same to both: here and there, over block borders, with zeroing in between. */
static void write_both(struct disk *a, struct disk *b)
{
	_cleanup_free_ uint8_t *p = malloc(MIB);
	unsigned seed = 11;

	for (unsigned i = 0; i < 60; i++) {
		uint64_t n = (1 + (uint64_t)rand_r(&seed) % 512) * 512;
		uint64_t offset = (uint64_t)rand_r(&seed) % ((DISK_SIZE - n) / 512) * 512;

		for (uint64_t k = 0; k < n; k++)
			p[k] = (uint8_t)(rand_r(&seed) >> 4);
		assert_int_equal(drive_write(a, p, n, offset, i % 7 ? 0 : DISK_FUA), 0);
		assert_int_equal(drive_write(b, p, n, offset, 0), 0);
		if (i % 20 == 19) {
			assert_int_equal(drive_zero(a, 5 * MIB, i * MIB), 0);
			assert_int_equal(drive_zero(b, 5 * MIB, i * MIB), 0);
		}
	}
	assert_int_equal(drive_flush(a), 0);
}

static void ours_to_qemu(const struct vhd_create_options *o, bool direct)
{
	const struct disk_open_options open = { .direct = direct };
	struct disk *a, *b;

	create("ours.vhd", o);
	run_ok("qemu-img info -f vpc ours.vhd");
	run_ok("rm -f same.raw; truncate -s 100663808 same.raw");
	a = open_with("ours.vhd", &open);
	b = open_disk("same.raw", false);
	write_both(a, b);
	/* As a power cut would leave it. */
	run_ok("cp --sparse=always ours.vhd cut.vhd");
	assert_int_equal(disk_close(b, NULL), 0);
	run_ok("qemu-img compare -f vpc -F raw cut.vhd same.raw");
	assert_int_equal(disk_close(a, NULL), 0);
	run_ok("qemu-img compare -f vpc -F raw ours.vhd same.raw");
	check("ours.vhd");
	check("cut.vhd");
}

static void test_ours(void **state)
{
	static const struct vhd_create_options cases[] = {
		{ .size = DISK_SIZE, .kind = VHD_DYNAMIC },
		{ .size = DISK_SIZE, .kind = VHD_DYNAMIC, .block_size = 512 * KIB },
		{ .size = DISK_SIZE, .kind = VHD_DYNAMIC, .block_size = 16 * MIB },
		{ .size = DISK_SIZE, .kind = VHD_FIXED },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		ours_to_qemu(&cases[i], false);
		ours_to_qemu(&cases[i], true);
	}
}

static void same_content(const char *name, const char *raw, const struct disk_open_options *o)
{
	_cleanup_free_ uint8_t *x = malloc(DISK_SIZE), *y = malloc(DISK_SIZE);
	struct disk *a = open_with(name, o), *b = open_disk(raw, true);

	assert_string_equal(a->ops->name, "vhd");
	assert_true(a->geometry.size >= DISK_SIZE);
	assert_int_equal(drive_read(a, x, DISK_SIZE, 0), 0);
	assert_int_equal(drive_read(b, y, DISK_SIZE, 0), 0);
	assert_memory_equal(x, y, DISK_SIZE);
	assert_int_equal(disk_close(a, NULL), 0);
	assert_int_equal(disk_close(b, NULL), 0);
}

static void qemu_to_ours(const char *options)
{
	const struct disk_open_options plain = { .read_only = true };
	const struct disk_open_options direct = { .direct = true };
	uint8_t sector[512] = { 3 };
	struct disk *a, *b;

	assert_int_equal(run("rm -f theirs.vhd; qemu-img convert -f raw -O vpc -o %s same.raw "
			     "theirs.vhd",
			     options),
			 0);
	same_content("theirs.vhd", "same.raw", &plain);
	check("theirs.vhd");
	/* Their blocks are not aligned; ours go behind them. */
	a = open_with("theirs.vhd", &direct);
	b = open_disk("same.raw", false);
	write_both(a, b);
	assert_int_equal(drive_write(a, sector, 512, 64 * MIB, 0), 0);
	assert_int_equal(drive_write(b, sector, 512, 64 * MIB, 0), 0);
	assert_int_equal(disk_close(a, NULL), 0);
	assert_int_equal(disk_close(b, NULL), 0);
	same_content("theirs.vhd", "same.raw", &plain);
	run_ok("qemu-img compare -f vpc -F raw theirs.vhd same.raw");
	check("theirs.vhd");
}

static void test_theirs(void **state)
{
	(void)state;
	qemu_to_ours("subformat=dynamic,force_size=on");
	qemu_to_ours("subformat=fixed,force_size=on");
	qemu_to_ours("subformat=dynamic");
	qemu_to_ours("subformat=fixed");
}

/* What qemu writes into our image, through its own allocation, is there for us. */
static void test_qemu_writes_ours(void **state)
{
	const struct vhd_create_options o = { .size = DISK_SIZE, .kind = VHD_DYNAMIC };
	const struct disk_open_options plain = { .read_only = true };

	(void)state;
	create("ours.vhd", &o);
	run_ok("qemu-img convert -n -f raw -O vpc same.raw ours.vhd");
	same_content("ours.vhd", "same.raw", &plain);
	check("ours.vhd");
}

static void test_resized(void **state)
{
	static const uint64_t sizes[] = { 200 * GIB, 300 * MIB, DISK_SIZE };
	const struct vhd_create_options o = { .size = DISK_SIZE, .kind = VHD_DYNAMIC };
	const struct disk_open_options plain = { .read_only = true };
	struct error err = { 0 };
	struct disk *d;

	(void)state;
	create("ours.vhd", &o);
	run_ok("qemu-img convert -n -f raw -O vpc same.raw ours.vhd");
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		d = open_disk("ours.vhd", false);
		if (d->ops->resize(d, sizes[i], &err) < 0)
			fail_msg("%s", err.message);
		assert_int_equal(disk_close(d, NULL), 0);
		same_content("ours.vhd", "same.raw", &plain);
		run_ok("qemu-img compare -f vpc -F raw ours.vhd same.raw");
		check("ours.vhd");
	}
}

/* A child that names its parent as files do: found, followed, and merged again. */
static void test_chain_of_files(void **state)
{
	const struct vhd_create_options base = { .size = DISK_SIZE, .kind = VHD_DYNAMIC };
	struct disk_open_options follow = { .follow = true };
	const struct merge_options merge = { 0 };
	struct vhd_create_options child = { .size = DISK_SIZE, .kind = VHD_DIFFERENCING };
	struct disk_parent ref = { 0 };
	struct error err = { 0 };
	char parent_path[128], path[128];
	struct disk *a, *b;

	(void)state;
	snprintf(parent_path, sizeof(parent_path), "%s/base.vhd", folder);
	snprintf(path, sizeof(path), "%s/child.vhd", folder);
	create("base.vhd", &base);
	run_ok("qemu-img convert -n -f raw -O vpc same.raw base.vhd");
	a = open_disk("base.vhd", true);
	assert_int_equal(chain_name_parent(a, parent_path, path, &ref, &err), 0);
	assert_int_equal(disk_close(a, NULL), 0);
	child.parent = (struct disk_identity){ ref.id, ref.timestamp };
	child.relative = ref.relative;
	child.absolute = ref.absolute;
	create("child.vhd", &child);
	disk_parent_deinit(&ref);
	if (disk_open(loop, open_in("child.vhd", O_RDWR), path, &follow, &a, &err) < 0)
		fail_msg("%s", err.message);
	b = open_disk("same.raw", false);
	write_both(a, b);
	assert_int_equal(disk_close(a, NULL), 0);
	assert_int_equal(disk_close(b, NULL), 0);
	check("child.vhd");
	if (image_merge(loop, path, &merge, &err) < 0)
		fail_msg("%s", err.message);
	run_ok("qemu-img compare -f vpc -F raw base.vhd same.raw");
	check("base.vhd");
}

static void test_largest(void **state)
{
	const struct vhd_create_options o = { .size = 2040 * GIB, .kind = VHD_DYNAMIC };
	struct timespec a, b;
	struct image_info info;
	struct error err = { 0 };

	(void)state;
	create("large.vhd", &o);
	clock_gettime(CLOCK_MONOTONIC, &a);
	assert_int_equal(image_info(open_in("large.vhd", O_RDONLY), "large.vhd", &info, &err), 0);
	clock_gettime(CLOCK_MONOTONIC, &b);
	print_message("opened in %ld us\n",
		      (b.tv_sec - a.tv_sec) * 1000000 + (b.tv_nsec - a.tv_nsec) / 1000);
	assert_string_equal(info.format, "vhd");
	assert_int_equal(info.geometry.size, 2040 * GIB);
	assert_int_equal(info.vhd.block_size, 2 * MIB);
	check("large.vhd");
	run_ok("qemu-img info -f vpc large.vhd | grep -q 2190433320960");
}

/* --- other programs, where they are --- */

static void test_libvhdi(void **state)
{
	const struct vhd_create_options o = { .size = DISK_SIZE, .kind = VHD_DYNAMIC };

	(void)state;
	if (system("command -v vhdiinfo >/dev/null"))
		skip();
	create("ours.vhd", &o);
	run_ok("qemu-img convert -n -f raw -O vpc same.raw ours.vhd && vhdiinfo ours.vhd | "
	       "grep -q 100663808");
}

/* Where libvhdi says "no such device", or may not: no other failure is excused. */
static bool fuse_is_there(void)
{
	_cleanup_close_ int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);

	return fd >= 0 && !system("command -v vhdimount >/dev/null && "
				  "command -v fusermount3 >/dev/null");
}

static void child_create(const char *parent, const char *name)
{
	struct vhd_create_options o = { .size = DISK_SIZE, .kind = VHD_DIFFERENCING };
	char parent_path[128], path[128];
	struct disk_parent ref = { 0 };
	struct error err = { 0 };
	struct disk *d;

	snprintf(parent_path, sizeof(parent_path), "%s/%s", folder, parent);
	snprintf(path, sizeof(path), "%s/%s", folder, name);
	o.block_size = name[0] == 't' ? (uint32_t)(512 * KIB) : 0;
	d = open_with(parent, &(struct disk_open_options){ .read_only = true, .alone = true });
	assert_int_equal(chain_name_parent(d, parent_path, path, &ref, &err), 0);
	assert_int_equal(disk_close(d, NULL), 0);
	o.parent = (struct disk_identity){ ref.id, ref.timestamp };
	o.relative = ref.relative;
	o.absolute = ref.absolute;
	create(name, &o);
	disk_parent_deinit(&ref);
}

/*
 * Other data in each layer: over block borders, and zeros. In pieces of eight sectors, a byte of
 * the bitmap: where a run of sectors ends inside one, libvhdi 20210425 was seen to give zeros for
 * the rest of that byte, which is the parent's.
 */
static void layer_write(const char *name, const char *raw, unsigned seed)
{
	const struct disk_open_options follow = { .follow = true };
	_cleanup_free_ uint8_t *p = malloc(MIB);
	char path[128];
	struct error err = { 0 };
	struct disk *a, *b;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	if (disk_open(loop, open_in(name, O_RDWR), path, &follow, &a, &err) < 0)
		fail_msg("%s", err.message);
	b = open_disk(raw, false);
	for (unsigned i = 0; i < 40; i++) {
		uint64_t n = (1 + (uint64_t)rand_r(&seed) % 250) * 4096;
		uint64_t offset = (uint64_t)rand_r(&seed) % ((DISK_SIZE - n) / 4096) * 4096;

		memset(p, i % 5 ? (int)(seed >> 8 & 0xff) | 1 : 0, n);
		assert_int_equal(drive_write(a, p, n, offset, 0), 0);
		assert_int_equal(drive_write(b, p, n, offset, 0), 0);
	}
	assert_int_equal(disk_close(a, NULL), 0);
	assert_int_equal(disk_close(b, NULL), 0);
	check(name);
}

/*
 * libvhdi shows each layer of a chain as the disk that it is: vhdi1 is the first parent. Its
 * answers to requests at once, as the kernel's reading ahead makes them, are not the same each time
 * (version 20210425), so they are read one by one.
 */
static void test_libvhdi_reads_chains(void **state)
{
	const struct vhd_create_options o = { .size = DISK_SIZE, .kind = VHD_DYNAMIC };
	int r;

	(void)state;
	if (!fuse_is_there()) {
		print_message("skipped: FUSE, vhdimount or fusermount3 is not there\n");
		skip();
	}
	run_ok("rm -f *.raw; truncate -s 100663808 base.raw");
	create("base.vhd", &o);
	layer_write("base.vhd", "base.raw", 1);
	child_create("base.vhd", "middle.vhd");
	run_ok("cp --sparse=always base.raw middle.raw");
	layer_write("middle.vhd", "middle.raw", 2);
	child_create("middle.vhd", "top.vhd");
	run_ok("cp --sparse=always middle.raw top.raw");
	layer_write("top.vhd", "top.raw", 3);
	run_ok("vhdiinfo top.vhd | grep -q middle.vhd");
	run_ok("mkdir -p mnt && vhdimount top.vhd mnt");
	r = run("same() { dd if=mnt/$1 bs=64K iflag=direct status=none | cmp - $2; }; "
		"same vhdi1 base.raw && same vhdi2 middle.raw && same vhdi3 top.raw && "
		"! cmp -s top.raw middle.raw");
	if (r)
		log_print();
	run_ok("fusermount3 -u mnt");
	assert_int_equal(r, 0);
	run_ok("rm -f *.raw *.vhd; truncate -s 100663808 same.raw");
}

static const char *samples(void)
{
	const char *named = getenv("PARTITA_SAMPLES");
	static char beside[] = "../shared/samples";

	return named ? named : beside;
}

static void sample_is(const char *name, const char *sum)
{
	_cleanup_free_ char *where = realpath(samples(), NULL);
	struct disk_copy_options copy = { 0 };
	struct error err = { 0 };
	struct disk *from, *to;

	if (!where || access(where, R_OK) < 0)
		skip();
	assert_int_equal(run("gzip -dc '%s/%s.gz' >sample.vhd && rm -f out.raw && "
			     "truncate -s 10M out.raw",
			     where, name),
			 0);
	check("sample.vhd");
	from = open_disk("sample.vhd", true);
	to = open_disk("out.raw", false);
	assert_string_equal(from->ops->name, "vhd");
	assert_int_equal(from->geometry.size, 10 * MIB);
	assert_int_equal(disk_copy(from, to, &copy, &err), 0);
	assert_int_equal(disk_close(from, NULL), 0);
	assert_int_equal(disk_close(to, NULL), 0);
	assert_int_equal(run("sha256sum out.raw | grep -q %s", sum), 0);
	/* A writer leaves it in order. */
	from = open_disk("sample.vhd", false);
	assert_int_equal(drive_write(from, "abc", 0, 0, 0), 0);
	assert_int_equal(drive_zero(from, 4096, 9 * MIB), 0);
	assert_int_equal(disk_close(from, NULL), 0);
	check("sample.vhd");
	run_ok("qemu-img info -f vpc sample.vhd");
}

static void test_sample_fixed(void **state)
{
	(void)state;
	sample_is("fixed.vhd", "459325ab1fcd1d5ec9854cba790ee26378317cda177ffc1072008a1df88e6463");
}

static void test_sample_dynamic(void **state)
{
	(void)state;
	sample_is("dynamic.vhd",
		  "ecff2ef6615a3cddc6a6885f1c6d9cf13a232697e1dc6575f2c2f01f57247784");
}

static int set_up(void **state)
{
	(void)state;
	return mkdtemp(folder) ? 0 : -1;
}

static int tear_down(void **state)
{
	char command[192];

	(void)state;
	/* A test that failed may have left its mount. */
	snprintf(command, sizeof(command), "fusermount3 -qzu %s/mnt 2>/dev/null; rm -rf %s", folder,
		 folder);
	return system(command);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ours),
		cmocka_unit_test(test_theirs),
		cmocka_unit_test(test_qemu_writes_ours),
		cmocka_unit_test(test_resized),
		cmocka_unit_test(test_chain_of_files),
		cmocka_unit_test(test_largest),
		cmocka_unit_test(test_libvhdi),
		cmocka_unit_test(test_libvhdi_reads_chains),
		cmocka_unit_test(test_sample_fixed),
		cmocka_unit_test(test_sample_dynamic),
	};
	struct error err = { 0 };
	int r;

	if (system("command -v qemu-img >/dev/null")) {
		fprintf(stderr, "skipped: there is no qemu-img\n");
		return 77;
	}
	if (loop_new(64, &loop, &err) < 0) {
		fprintf(stderr, "%s\n", err.message);
		return 1;
	}
	r = cmocka_run_group_tests(tests, set_up, tear_down);
	loop_free(loop);
	return r;
}
