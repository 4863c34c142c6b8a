// SPDX-License-Identifier: MIT
/*
 * ACPI tables (ACPI 6.5): RSDP, XSDT, FADT, MADT, DSDT, and SRAT where memory can grow. One pure
 * function, called when a machine is made and again at every reset, since the tables lie in RAM
 * that the guest may overwrite.
 *
 * The machine is hardware-reduced (ACPI 4.1): no PM1 registers, no SCI, no PM timer, no 8259 and no
 * 8254. It is switched off through the sleep control register and reset through the reset register,
 * both served by devices/legacy/pm.c. The VMBus device and its parent are named as on Hyper-V:
 * Linux looks for the compatible id "VMBus" and takes the MMIO windows from the first ancestor
 * whose _CRS has any; Windows looks for MSFT1000.
 */
#include "firmware/acpi.h"

#include "firmware/aml.h"

#include <errno.h>
#include <stdio.h>

#define RSDP_SIZE   36  /* ACPI 5.2.5.3 */
#define HEADER_SIZE 36  /* ACPI 5.2.6 */
#define FADT_SIZE   276 /* ACPI 5.2.9, revision 6.5 */
#define TABLE_ALIGN 16

/* ACPI 5.2.9.3, table 5.11: IA-PC boot architecture flags */
#define FADT_LEGACY_DEVICES BIT(0)
#define FADT_NO_VGA         BIT(2)

/* ACPI 5.2.9, table 5.10: fixed feature flags */
#define FADT_WBINVD        BIT(0)
#define FADT_PROC_C1       BIT(2)
#define FADT_PWR_BUTTON    BIT(4) /* set = there is no fixed-register button */
#define FADT_SLP_BUTTON    BIT(5)
#define FADT_FIX_RTC       BIT(6) /* set = RTC wake is not in a fixed register */
#define FADT_RESET_REG_SUP BIT(10)
#define FADT_HEADLESS      BIT(12)
#define FADT_HW_REDUCED    BIT(20)

/* ACPI 5.2.12: MADT entry types and their lengths */
#define MADT_LAPIC           0
#define MADT_LAPIC_SIZE      8
#define MADT_IOAPIC          1
#define MADT_IOAPIC_SIZE     12
#define MADT_LAPIC_NMI       4
#define MADT_LAPIC_NMI_SIZE  6
#define MADT_X2APIC          9
#define MADT_X2APIC_SIZE     16
#define MADT_X2APIC_NMI      10
#define MADT_X2APIC_NMI_SIZE 12
#define MADT_ENABLED         BIT(0)
#define MADT_ALL_LAPICS      0xff
#define MADT_ALL_X2APICS     0xffffffff
#define MADT_NMI_LINT        1

/* ACPI 5.2.16: SRAT entries, their lengths and flags */
#define SRAT_LAPIC       0
#define SRAT_LAPIC_SIZE  16
#define SRAT_MEMORY      1
#define SRAT_MEMORY_SIZE 40
#define SRAT_X2APIC      2
#define SRAT_X2APIC_SIZE 24
#define SRAT_ENABLED     BIT(0)
#define SRAT_HOT_PLUG    BIT(1)

/* An xAPIC id of 255 means "all": from there on processors are named by x2APIC id. */
#define XAPIC_IDS 255u

static void checksum_set(uint8_t *table, size_t size, size_t at)
{
	uint8_t sum = 0;

	table[at] = 0;
	for (size_t i = 0; i < size; i++)
		sum = (uint8_t)(sum + table[i]);
	table[at] = (uint8_t)-sum;
}

/* Starts a table on the next boundary; its length and checksum come with table_end. */
static size_t table_begin(struct writer *w, const char signature[4], uint8_t revision)
{
	size_t start;

	writer_zero(w, round_up64(w->at, TABLE_ALIGN) - w->at);
	start = w->at;
	writer_put(w, signature, 4);
	writer_le32(w, 0);
	writer_u8(w, revision);
	writer_u8(w, 0);
	writer_put(w, "PARTIT", 6);   /* OEM id */
	writer_put(w, "PARTITA ", 8); /* OEM table id */
	writer_le32(w, 1);            /* OEM revision */
	writer_put(w, "PRTA", 4);     /* creator id and revision */
	writer_le32(w, 1);
	return start;
}

static void table_end(struct writer *w, size_t start)
{
	le32 size = le32_of((uint32_t)(w->at - start));

	if (!writer_ok(w))
		return;
	memcpy(w->data + start + 4, &size, sizeof(size));
	checksum_set(w->data + start, w->at - start, 9);
}

/* ACPI 5.2.3.2: a generic address, here always one byte of I/O space */
static void io_address_put(struct writer *w, uint16_t port)
{
	writer_u8(w, 1); /* system I/O */
	writer_u8(w, 8); /* bits */
	writer_u8(w, 0);
	writer_u8(w, 1); /* byte access */
	writer_le64(w, port);
}

/* ACPI 5.2.9. What a hardware-reduced machine ignores is zero. */
static void fadt_build(struct writer *w, const struct acpi_config *c, uint64_t dsdt)
{
	size_t start = table_begin(w, "FACP", 6);
	uint16_t boot = FADT_NO_VGA;

	if (c->com_ports[0] || c->com_ports[1])
		boot |= FADT_LEGACY_DEVICES;
	writer_zero(w, 109 - HEADER_SIZE); /* to IAPC_BOOT_ARCH */
	writer_le16(w, boot);
	writer_u8(w, 0);
	writer_le32(w, FADT_WBINVD | FADT_PROC_C1 | FADT_PWR_BUTTON | FADT_SLP_BUTTON |
			       FADT_FIX_RTC | FADT_RESET_REG_SUP | FADT_HEADLESS | FADT_HW_REDUCED);
	io_address_put(w, c->reset_port);
	writer_u8(w, c->reset_value);
	writer_le16(w, 0);         /* ARM_BOOT_ARCH */
	writer_u8(w, 5);           /* minor version: 6.5 */
	writer_le64(w, 0);         /* X_FIRMWARE_CTRL: no FACS */
	writer_le64(w, dsdt);      /* X_DSDT */
	writer_zero(w, 244 - 148); /* X_PM1a_EVT_BLK to X_GPE1_BLK */
	io_address_put(w, c->sleep_control_port);
	io_address_put(w, c->sleep_status_port);
	writer_le64(w, 0); /* hypervisor vendor: CPUID says it */
	table_end(w, start);
}

static void madt_cpu_put(struct writer *w, unsigned id)
{
	if (id < XAPIC_IDS) {
		writer_u8(w, MADT_LAPIC);
		writer_u8(w, MADT_LAPIC_SIZE);
		writer_u8(w, (uint8_t)id); /* processor UID */
		writer_u8(w, (uint8_t)id); /* APIC id */
		writer_le32(w, MADT_ENABLED);
	} else {
		writer_u8(w, MADT_X2APIC);
		writer_u8(w, MADT_X2APIC_SIZE);
		writer_le16(w, 0);
		writer_le32(w, id);
		writer_le32(w, MADT_ENABLED);
		writer_le32(w, id); /* processor UID */
	}
}

/* NMIs arrive at LINT1 of every processor: edge, active high, as the bus has it (flags 0). */
static void madt_nmi_put(struct writer *w, bool x2apic)
{
	writer_u8(w, MADT_LAPIC_NMI);
	writer_u8(w, MADT_LAPIC_NMI_SIZE);
	writer_u8(w, MADT_ALL_LAPICS);
	writer_le16(w, 0);
	writer_u8(w, MADT_NMI_LINT);
	if (!x2apic)
		return;
	writer_u8(w, MADT_X2APIC_NMI);
	writer_u8(w, MADT_X2APIC_NMI_SIZE);
	writer_le16(w, 0);
	writer_le32(w, MADT_ALL_X2APICS);
	writer_u8(w, MADT_NMI_LINT);
	writer_zero(w, 3);
}

/* ACPI 5.2.12. No PCAT_COMPAT: there are no 8259s to mask, and no ISA line is overridden. */
static void madt_build(struct writer *w, const struct acpi_config *c)
{
	size_t start = table_begin(w, "APIC", 5);

	writer_le32(w, c->lapic);
	writer_le32(w, 0);
	for (unsigned i = 0; i < c->cpus; i++)
		madt_cpu_put(w, i);
	writer_u8(w, MADT_IOAPIC);
	writer_u8(w, MADT_IOAPIC_SIZE);
	writer_u8(w, 0); /* its id */
	writer_u8(w, 0);
	writer_le32(w, c->ioapic);
	writer_le32(w, 0); /* first GSI */
	madt_nmi_put(w, c->cpus > XAPIC_IDS);
	table_end(w, start);
}

static void srat_cpu_put(struct writer *w, unsigned id)
{
	if (id < XAPIC_IDS) {
		writer_u8(w, SRAT_LAPIC);
		writer_u8(w, SRAT_LAPIC_SIZE);
		writer_u8(w, 0); /* proximity domain 0, low byte */
		writer_u8(w, (uint8_t)id);
		writer_le32(w, SRAT_ENABLED);
		writer_zero(w, 8);
	} else {
		writer_u8(w, SRAT_X2APIC);
		writer_u8(w, SRAT_X2APIC_SIZE);
		writer_zero(w, 6); /* and proximity domain 0 */
		writer_le32(w, id);
		writer_le32(w, SRAT_ENABLED);
		writer_zero(w, 8);
	}
}

static void srat_memory_put(struct writer *w, uint64_t base, uint64_t end, uint32_t flags)
{
	if (end <= base)
		return;
	writer_u8(w, SRAT_MEMORY);
	writer_u8(w, SRAT_MEMORY_SIZE);
	writer_zero(w, 6); /* proximity domain 0 */
	writer_le64(w, base);
	writer_le64(w, end - base);
	writer_zero(w, 4);
	writer_le32(w, flags);
	writer_zero(w, 8);
}

/*
 * ACPI 5.2.16. A guest reserves what it needs for memory up to the end of what is hot-pluggable,
 * and Linux disbelieves a table that does not cover all of its RAM.
 */
static void srat_build(struct writer *w, const struct acpi_config *c)
{
	size_t start = table_begin(w, "SRAT", 3);

	writer_le32(w, 1);
	writer_zero(w, 8);
	for (unsigned i = 0; i < c->cpus; i++)
		srat_cpu_put(w, i);
	srat_memory_put(w, 0, c->low_ram_end, SRAT_ENABLED);
	srat_memory_put(w, c->high_ram_base, c->high_ram_end, SRAT_ENABLED);
	srat_memory_put(w, c->grow_base, c->grow_base + c->grow_size, SRAT_ENABLED | SRAT_HOT_PLUG);
	table_end(w, start);
}

static void dsdt_vmbus(struct aml *a, const struct acpi_config *c)
{
	size_t module, crs, vmbus;

	module = aml_device(a, "VMOD");
	aml_name(a, "_HID");
	aml_string(a, "ACPI0004");
	aml_name(a, "_UID");
	aml_integer(a, 0);
	aml_name(a, "_CRS");
	crs = aml_resources(a);
	if (c->mmio_low_size)
		aml_memory_window32(a, (uint32_t)c->mmio_low_base, (uint32_t)c->mmio_low_size);
	if (c->mmio_high_size)
		aml_memory_window64(a, c->mmio_high_base, c->mmio_high_size);
	aml_resources_end(a, crs);
	vmbus = aml_device(a, "VMBS");
	aml_name(a, "_HID");
	aml_string(a, "MSFT1000");
	aml_name(a, "_CID");
	aml_string(a, "VMBus");
	aml_name(a, "_DDN");
	aml_string(a, "VMBUS");
	aml_name(a, "_UID");
	aml_integer(a, 0);
	aml_name(a, "_STA");
	aml_integer(a, 0x0f); /* ACPI 6.3.7: present, enabled, shown, working */
	aml_end(a, vmbus);
	aml_end(a, module);
}

struct isa_device {
	const char *name, *id, *dos_name;
	uint16_t port;
	uint8_t ports, uid, gsi; /* gsi 0 = no interrupt */
};

static void dsdt_isa(struct aml *a, const struct isa_device *d)
{
	size_t device = aml_device(a, d->name), crs;

	aml_name(a, "_HID");
	aml_eisa_id(a, d->id);
	aml_name(a, "_UID");
	aml_integer(a, d->uid);
	if (d->dos_name) {
		aml_name(a, "_DDN");
		aml_string(a, d->dos_name);
	}
	aml_name(a, "_CRS");
	crs = aml_resources(a);
	aml_io_ports(a, d->port, d->ports);
	if (d->gsi)
		aml_edge_interrupt(a, d->gsi);
	aml_resources_end(a, crs);
	aml_end(a, device);
}

/*
 * The clock has no interrupt because rtc.c raises none: an OS that is told of one waits for it
 * (hwclock: ten seconds).
 */
static const struct isa_device isa_com1 = { "COM1", "PNP0501", "COM1", 0x3f8, 8, 1, 4 };
static const struct isa_device isa_com2 = { "COM2", "PNP0501", "COM2", 0x2f8, 8, 2, 3 };
static const struct isa_device isa_rtc = { "RTC_", "PNP0B00", NULL, 0x70, 2, 0, 0 };

static void dsdt_cpu(struct aml *a, unsigned id)
{
	char name[5];
	size_t device;

	snprintf(name, sizeof(name), "C%03X", id & 0xfff);
	device = aml_device(a, name);
	aml_name(a, "_HID");
	aml_string(a, "ACPI0007");
	aml_name(a, "_UID");
	aml_integer(a, id);
	aml_end(a, device);
}

/* ACPI 7.4.2: what to write to SLP_TYP; the machine has two states, on and off. */
static void dsdt_sleep_state(struct aml *a, const char *name, uint8_t type)
{
	size_t package;

	aml_name(a, name);
	package = aml_package(a, 4);
	aml_integer(a, type);
	for (int i = 0; i < 3; i++)
		aml_integer(a, 0);
	aml_end(a, package);
}

static void dsdt_build(struct writer *w, const struct acpi_config *c)
{
	size_t start = table_begin(w, "DSDT", 2);
	struct aml a = { .w = *w };
	size_t scope;

	dsdt_sleep_state(&a, "_S0_", 0);
	dsdt_sleep_state(&a, "_S5_", c->sleep_type);
	scope = aml_scope(&a, "_SB_");
	for (unsigned i = 0; i < c->cpus; i++)
		dsdt_cpu(&a, i);
	dsdt_vmbus(&a, c);
	if (c->com_ports[0])
		dsdt_isa(&a, &isa_com1);
	if (c->com_ports[1])
		dsdt_isa(&a, &isa_com2);
	dsdt_isa(&a, &isa_rtc);
	aml_end(&a, scope);
	*w = a.w;
	table_end(w, start);
}

static void xsdt_build(struct writer *w, const uint64_t *tables, size_t count)
{
	size_t start = table_begin(w, "XSDT", 1);

	for (size_t i = 0; i < count; i++)
		writer_le64(w, tables[i]);
	table_end(w, start);
}

/* ACPI 5.2.5.3; both checksums, the first over what ACPI 1.0 knew */
static void rsdp_build(struct writer *w, uint64_t xsdt)
{
	size_t start = w->at;

	writer_put(w, "RSD PTR ", 8);
	writer_u8(w, 0);
	writer_put(w, "PARTIT", 6);
	writer_u8(w, 2);   /* revision */
	writer_le32(w, 0); /* no RSDT */
	writer_le32(w, RSDP_SIZE);
	writer_le64(w, xsdt);
	writer_zero(w, 4);
	checksum_set(w->data + start, 20, 8);
	checksum_set(w->data + start, RSDP_SIZE, 32);
}

static int config_check(const struct acpi_config *c, struct error *err)
{
	uint64_t low_end;

	if (!c->cpus || c->cpus > ACPI_MAX_CPUS)
		return error_set(err, -EINVAL, "%u processors: ACPI tables describe 1 to %d",
				 c->cpus, ACPI_MAX_CPUS);
	if (c->base % TABLE_ALIGN)
		return error_set(err, -EINVAL, "ACPI tables at 0x%llx: not a multiple of %d",
				 (unsigned long long)c->base, TABLE_ALIGN);
	if (add_overflow(c->mmio_low_base, c->mmio_low_size, &low_end) || low_end > 4 * GIB)
		return error_set(err, -EINVAL, "the low MMIO window ends above 4 GiB");
	return 0;
}

int acpi_build(const struct acpi_config *config, void *buffer, size_t capacity, size_t *ret_size,
	       struct error *err)
{
	struct writer w = writer_of(buffer, capacity);
	uint64_t dsdt, tables[3], xsdt;
	size_t count = 0;
	int r;

	r = config_check(config, err);
	if (r < 0)
		return r;
	/* The RSDP is written last, into the room left for it: it names the others. */
	writer_zero(&w, round_up64(RSDP_SIZE, TABLE_ALIGN));
	dsdt = config->base + w.at;
	dsdt_build(&w, config);
	tables[count++] = config->base + round_up64(w.at, TABLE_ALIGN);
	fadt_build(&w, config, dsdt);
	tables[count++] = config->base + round_up64(w.at, TABLE_ALIGN);
	madt_build(&w, config);
	if (config->grow_size) {
		tables[count++] = config->base + round_up64(w.at, TABLE_ALIGN);
		srat_build(&w, config);
	}
	xsdt = config->base + round_up64(w.at, TABLE_ALIGN);
	xsdt_build(&w, tables, count);
	if (!writer_ok(&w))
		return error_set(err, -E2BIG, "the ACPI tables of %u processors exceed %zu bytes",
				 config->cpus, capacity);
	*ret_size = w.at;
	w.at = 0;
	rsdp_build(&w, xsdt);
	return 0;
}
