// SPDX-License-Identifier: MIT
/*
 * Guest-physical layout. Pure arithmetic, called once when a machine is made.
 *
 *	0 .. 0xa0000		RAM
 *	0xa0000 .. 0x100000	RAM too, but reserved: nothing of a PC is here except, from 0xe0000,
 *				the ACPI tables
 *	1 MiB .. 0xf8000000	RAM
 *	0xf8000000 .. 0xfec00000 low MMIO window, then the I/O APIC and the local APICs
 *	4 GiB ..		the rest of RAM
 *	above that		room for RAM that is added while the guest runs, if it can grow;
 *				below the low window when all of it fits there
 *	above that		high MMIO window
 *
 * The MMIO windows are not in the E820 list: ACPI describes them (a module device's _CRS), and a
 * "reserved" entry would keep Linux from giving parts of them to VMBus devices.
 */
#include "firmware/memmap.h"

#include <errno.h>

#define HIGH_WINDOW_MAX (64 * GIB)
#define HIGH_WINDOW_MIN GIB

static int ram_check(uint64_t size, struct error *err)
{
	if (size < MEMMAP_RAM_MIN || size > MEMMAP_RAM_MAX)
		return error_set(err, -ERANGE,
				 "a virtual machine has 16 MiB to 12 TiB of memory, not %llu bytes",
				 (unsigned long long)size);
	if (size % MEMMAP_RAM_STEP)
		return error_set(err, -EINVAL,
				 "memory is given in whole MiB, and %llu bytes are not",
				 (unsigned long long)size);
	return 0;
}

static void ram_place(struct memmap *m)
{
	m->low_ram_end = MIN(m->ram_size, MEMMAP_LOW_GAP);
	m->high_ram_end = m->low_ram_end;
	m->ranges[m->range_count++] = (struct gmem_range){ .gpa = 0, .size = m->low_ram_end };
	if (m->ram_size > m->low_ram_end) {
		uint64_t rest = m->ram_size - m->low_ram_end;

		m->ranges[m->range_count++] =
			(struct gmem_range){ .gpa = MEMMAP_HIGH_RAM, .size = rest };
		m->high_ram_end = MEMMAP_HIGH_RAM + rest;
	}
}

/*
 * Below 4 GiB when that is enough: Linux keeps 64 MiB for devices that cannot reach higher when
 * memory may come there, a quarter of a small machine.
 */
static int grow_place(struct memmap *m, uint64_t most, struct error *err)
{
	if (most <= m->ram_size)
		return 0;
	if (most > MEMMAP_RAM_MAX || most % MEMMAP_RAM_STEP)
		return error_set(err, -ERANGE,
				 "memory can grow to at most 12 TiB, in whole MiB, not to %llu "
				 "bytes",
				 (unsigned long long)most);
	m->grow_size = most - m->ram_size;
	m->grow_base = round_up64(m->high_ram_end, MEMMAP_GROW_ALIGN_LOW);
	if (!range_inside(m->grow_base, m->grow_size, MEMMAP_LOW_GAP))
		m->grow_base = round_up64(MAX(m->high_ram_end, MEMMAP_HIGH_RAM), MEMMAP_GROW_ALIGN);
	m->ranges[m->range_count++] =
		(struct gmem_range){ .gpa = m->grow_base, .most = m->grow_size };
	return 0;
}

/* As large as fits under the guest's last physical address, aligned to its own size. */
static int mmio_place(struct memmap *m, unsigned phys_bits, struct error *err)
{
	uint64_t limit = BIT64(phys_bits);
	uint64_t from =
		m->grow_size ? m->grow_base + m->grow_size : MAX(m->high_ram_end, MEMMAP_HIGH_RAM);

	m->mmio_low_base = MEMMAP_LOW_GAP;
	m->mmio_low_size = MEMMAP_IOAPIC - MEMMAP_LOW_GAP;
	for (uint64_t size = HIGH_WINDOW_MAX; size >= HIGH_WINDOW_MIN; size /= 2) {
		uint64_t base = round_up64(from, size);

		if (range_inside(base, size, limit)) {
			m->mmio_high_base = base;
			m->mmio_high_size = size;
			return 0;
		}
	}
	return error_set(err, -ERANGE,
			 "%llu MiB of memory and a window for devices do not fit into the %u "
			 "bits of physical address that this processor has: give the machine less",
			 (unsigned long long)((m->ram_size + m->grow_size) / MIB), phys_bits);
}

static void e820_add(struct memmap *m, uint64_t base, uint64_t end, enum memmap_type type)
{
	if (end > base)
		m->e820[m->e820_count++] = (struct memmap_region){ base, end - base, type };
}

int memmap_init_growing(uint64_t ram_size, uint64_t ram_most, unsigned phys_bits,
			struct memmap *ret, struct error *err)
{
	struct memmap m = { .ram_size = ram_size };
	int r;

	/* Every x86-64 processor has 36 to 52 bits (AMD64 volume 2, 5.1). */
	if (phys_bits < 36 || phys_bits > 52)
		return error_set(err, -EINVAL, "%u bits of physical address: not 36 to 52",
				 phys_bits);
	r = ram_check(ram_size, err);
	if (r < 0)
		return r;
	ram_place(&m);
	r = grow_place(&m, ram_most, err);
	if (r < 0)
		return r;
	r = mmio_place(&m, phys_bits, err);
	if (r < 0)
		return r;
	e820_add(&m, 0, MEMMAP_LEGACY_HOLE, MEMMAP_USABLE);
	e820_add(&m, MEMMAP_LEGACY_HOLE, MEMMAP_ACPI_BASE, MEMMAP_RESERVED);
	e820_add(&m, MEMMAP_ACPI_BASE, MEMMAP_ACPI_BASE + MEMMAP_ACPI_SIZE, MEMMAP_ACPI);
	e820_add(&m, MEMMAP_ACPI_BASE + MEMMAP_ACPI_SIZE, m.low_ram_end, MEMMAP_USABLE);
	e820_add(&m, MEMMAP_HIGH_RAM, m.high_ram_end, MEMMAP_USABLE);
	*ret = m;
	return 0;
}

int memmap_init(uint64_t ram_size, unsigned phys_bits, struct memmap *ret, struct error *err)
{
	return memmap_init_growing(ram_size, ram_size, phys_bits, ret, err);
}
