// SPDX-License-Identifier: MIT
/*
 * ACPI tables: structure, checksums and a few fields by hand; then, when iasl is installed, the
 * whole by ACPICA, which must read the DSDT without complaint and compile it to the same bytes.
 */
#include "firmware/acpi.h"

#include "lib/cleanup.h"
#include "lib/cursor.h"

#include <errno.h>
#include <setjmp.h>
#include <stdlib.h>

#include <cmocka.h>

#define CAPACITY (128 * 1024)
#define BASE     0xe0000

static struct acpi_config config_of(unsigned cpus)
{
	return (struct acpi_config){
		.cpus = cpus,
		.base = BASE,
		.ioapic = 0xfec00000,
		.lapic = 0xfee00000,
		.com_ports = { true, true },
		.sleep_type = 5,
		.sleep_control_port = 0x400,
		.sleep_status_port = 0x401,
		.reset_port = 0x402,
		.reset_value = 1,
		.mmio_low_base = 0xf8000000,
		.mmio_low_size = 0x6c00000,
		.mmio_high_base = 64 * GIB,
		.mmio_high_size = 64 * GIB,
	};
}

static size_t build(const struct acpi_config *config, uint8_t *ret)
{
	struct error err = { 0 };
	size_t size = 0;

	if (acpi_build(config, ret, CAPACITY, &size, &err) < 0)
		fail_msg("%s", err.message);
	return size;
}

static uint8_t sum(const uint8_t *p, size_t n)
{
	uint8_t s = 0;

	while (n--)
		s = (uint8_t)(s + *p++);
	return s;
}

static uint64_t field(const uint8_t *p, size_t at, size_t n)
{
	uint64_t v = 0;

	for (size_t i = n; i--;)
		v = v << 8 | p[at + i];
	return v;
}

/* The table at a guest address, checked; NULL signature = any. */
static const uint8_t *table_at(const uint8_t *blob, size_t size, uint64_t gpa,
			       const char *signature)
{
	const uint8_t *t = blob + (gpa - BASE);

	assert_true(gpa >= BASE && gpa - BASE + 36 <= size);
	assert_memory_equal(t, signature, 4);
	assert_true(range_inside(gpa - BASE, field(t, 4, 4), size));
	assert_int_equal(sum(t, field(t, 4, 4)), 0);
	return t;
}

struct tables {
	const uint8_t *fadt, *madt, *dsdt, *srat; /* srat: NULL when there is none */
};

static struct tables tables_of(const uint8_t *blob, size_t size)
{
	struct tables t = { 0 };
	const uint8_t *xsdt;
	uint64_t length;

	assert_memory_equal(blob, "RSD PTR ", 8);
	assert_int_equal(sum(blob, 20), 0);
	assert_int_equal(sum(blob, 36), 0);
	assert_int_equal(blob[15], 2);
	xsdt = table_at(blob, size, field(blob, 24, 8), "XSDT");
	length = field(xsdt, 4, 4);
	assert_true(length == 36 + 2 * 8 || length == 36 + 3 * 8);
	if (length == 36 + 3 * 8)
		t.srat = table_at(blob, size, field(xsdt, 52, 8), "SRAT");
	t.fadt = table_at(blob, size, field(xsdt, 36, 8), "FACP");
	t.madt = table_at(blob, size, field(xsdt, 44, 8), "APIC");
	t.dsdt = table_at(blob, size, field(t.fadt, 140, 8), "DSDT");
	return t;
}

static void test_fadt(void **state)
{
	_cleanup_free_ uint8_t *blob = malloc(CAPACITY);
	struct acpi_config config = config_of(1);
	struct tables t = tables_of(blob, build(&config, blob));

	(void)state;
	assert_int_equal(field(t.fadt, 4, 4), 276);
	assert_int_equal(field(t.fadt, 109, 2), 0x5);
	assert_true(field(t.fadt, 112, 4) & 1u << 20);
	assert_true(field(t.fadt, 112, 4) & 1u << 10);
	assert_int_equal(field(t.fadt, 116, 4), 0x01000801);
	assert_int_equal(field(t.fadt, 120, 8), 0x402);
	assert_int_equal(t.fadt[128], 1);
	assert_int_equal(field(t.fadt, 248, 8), 0x400);
	assert_int_equal(field(t.fadt, 260, 8), 0x401);
}

/* Counts MADT entries of each type; their lengths must add up to the table's. */
static void madt_count(const uint8_t *madt, unsigned counts[256])
{
	size_t at = 44, end = field(madt, 4, 4);

	while (at < end) {
		assert_true(madt[at + 1] >= 2);
		counts[madt[at]]++;
		at += madt[at + 1];
	}
	assert_int_equal(at, end);
}

static void test_madt(void **state)
{
	static const struct {
		unsigned cpus, lapics, x2apics;
	} cases[] = { { 1, 1, 0 }, { 255, 255, 0 }, { 256, 255, 1 }, { 2048, 255, 1793 } };
	_cleanup_free_ uint8_t *blob = malloc(CAPACITY);

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct acpi_config config = config_of(cases[i].cpus);
		struct tables t = tables_of(blob, build(&config, blob));
		unsigned counts[256] = { 0 };

		madt_count(t.madt, counts);
		assert_int_equal(field(t.madt, 36, 4), 0xfee00000);
		assert_int_equal(field(t.madt, 40, 4), 0);
		assert_int_equal(counts[0], cases[i].lapics);
		assert_int_equal(counts[9], cases[i].x2apics);
		assert_int_equal(counts[1], 1);
		assert_int_equal(counts[4], 1);
		assert_int_equal(counts[10], cases[i].x2apics ? 1 : 0);
	}
}

static void test_srat(void **state)
{
	_cleanup_free_ uint8_t *blob = malloc(CAPACITY);
	struct acpi_config config = config_of(300);
	struct tables t = tables_of(blob, build(&config, blob));
	const uint8_t *last;

	(void)state;
	assert_null(t.srat);
	config.low_ram_end = 0xf8000000;
	config.high_ram_base = 4 * GIB;
	config.high_ram_end = 5 * GIB;
	config.grow_base = 6 * GIB;
	config.grow_size = 3 * GIB;
	t = tables_of(blob, build(&config, blob));
	assert_non_null(t.srat);
	assert_int_equal(field(t.srat, 4, 4), 48 + 255 * 16 + 45 * 24 + 3 * 40);
	last = t.srat + field(t.srat, 4, 4) - 40;
	assert_int_equal(field(last, 0, 2), 0x2801);
	assert_int_equal(field(last, 8, 8), 6 * GIB);
	assert_int_equal(field(last, 16, 8), 3 * GIB);
	assert_int_equal(field(last, 28, 4), 3); /* enabled, hot-pluggable */
	assert_int_equal(field(last - 40, 16, 8), GIB);
	assert_int_equal(field(last - 40, 28, 4), 1);
	config.high_ram_end = 4 * GIB;
	t = tables_of(blob, build(&config, blob));
	assert_int_equal(field(t.srat, 4, 4), 48 + 255 * 16 + 45 * 24 + 2 * 40);
}

static void test_refusals(void **state)
{
	_cleanup_free_ uint8_t *blob = malloc(CAPACITY);
	struct acpi_config config = config_of(0);
	struct error err = { 0 };
	size_t size;

	(void)state;
	assert_int_equal(acpi_build(&config, blob, CAPACITY, &size, &err), -EINVAL);
	config = config_of(2049);
	assert_int_equal(acpi_build(&config, blob, CAPACITY, &size, &err), -EINVAL);
	config = config_of(1);
	config.base = BASE + 4;
	assert_int_equal(acpi_build(&config, blob, CAPACITY, &size, &err), -EINVAL);
	config = config_of(1);
	config.mmio_low_size = 4 * GIB;
	assert_int_equal(acpi_build(&config, blob, CAPACITY, &size, &err), -EINVAL);
	config = config_of(4);
	for (size_t n = 0; n < 900; n++) {
		/* A buffer of exactly n bytes, so that a sanitizer sees what is beyond. */
		_cleanup_free_ uint8_t *tight = malloc(n ? n : 1);

		assert_int_equal(acpi_build(&config, tight, n, &size, &err), -E2BIG);
	}
}

static void file_write(const char *dir, const char *name, const uint8_t *data, size_t size)
{
	_cleanup_fclose_ FILE *f = NULL;
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "w");
	assert_non_null(f);
	assert_int_equal(fwrite(data, 1, size, f), size);
}

/* Disassembles NAME.aml into NAME.dsl and compiles that into back.aml, all without complaint. */
static void through_iasl(const char *dir, const char *name, const uint8_t *table)
{
	char command[1024], file[32];

	snprintf(file, sizeof(file), "%s.aml", name);
	file_write(dir, file, table, field(table, 4, 4));
	snprintf(command, sizeof(command),
		 "cd '%s' && iasl -d %s.aml >log 2>&1 && iasl -we -p back %s.dsl >>log 2>&1 && "
		 "! grep -E '(Error|Warning) +[0-9]|Invalid|Unknown' log %s.dsl || "
		 "{ cat log; exit 1; }",
		 dir, name, name, name);
	assert_int_equal(system(command), 0);
}

/* The header names its compiler; the rest is byte for byte what we wrote. */
static void same_as_compiled(const char *dir, const uint8_t *dsdt)
{
	_cleanup_free_ uint8_t *back = malloc(CAPACITY);
	_cleanup_fclose_ FILE *f = NULL;
	size_t size = field(dsdt, 4, 4);
	char path[256];

	snprintf(path, sizeof(path), "%s/back.aml", dir);
	f = fopen(path, "r");
	assert_non_null(f);
	assert_int_equal(fread(back, 1, CAPACITY, f), size);
	assert_memory_equal(back + 36, dsdt + 36, size - 36);
}

static void test_iasl(void **state)
{
	_cleanup_free_ uint8_t *blob = malloc(CAPACITY);
	char dir[] = "/tmp/acpi-test-XXXXXX", command[256];
	static const unsigned cpus[] = { 1, 3, 300 };

	(void)state;
	if (system("iasl -v >/dev/null 2>&1"))
		skip();
	assert_non_null(mkdtemp(dir));
	for (size_t i = 0; i < ARRAY_SIZE(cpus); i++) {
		struct acpi_config config = config_of(cpus[i]);
		struct tables t;

		config.low_ram_end = 256 * MIB;
		config.grow_base = 4 * GIB;
		config.grow_size = i * GIB;
		t = tables_of(blob, build(&config, blob));
		through_iasl(dir, "facp", t.fadt);
		through_iasl(dir, "apic", t.madt);
		if (t.srat)
			through_iasl(dir, "srat", t.srat);
		through_iasl(dir, "dsdt", t.dsdt);
		same_as_compiled(dir, t.dsdt);
	}
	snprintf(command, sizeof(command), "rm -r '%s'", dir);
	assert_int_equal(system(command), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fadt), cmocka_unit_test(test_madt),
		cmocka_unit_test(test_srat), cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_iasl),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
