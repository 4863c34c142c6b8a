/* SPDX-License-Identifier: MIT */
/*
 * Where things are in a guest's physical address space: RAM, the windows that VMBus devices may
 * claim for registers and frame buffers, the ACPI tables, and the E820 list that tells the guest.
 */
#pragma once

#include "gmem/gmem.h"
#include "lib/error.h"
#include "lib/types.h"

#define MEMMAP_RAM_MIN  (16 * MIB)
#define MEMMAP_RAM_MAX  (12 * TIB)
#define MEMMAP_RAM_STEP MIB

#define MEMMAP_LOW_GAP  UINT64_C(0xf8000000) /* low RAM ends here, as on Hyper-V generation 2 */
#define MEMMAP_IOAPIC   UINT64_C(0xfec00000)
#define MEMMAP_LAPIC    UINT64_C(0xfee00000)
#define MEMMAP_HIGH_RAM (4 * GIB)

/*
 * RAM that is added later starts at a multiple of the largest block that guests are known to add
 * (Linux arch/x86/mm/init_64.c: 2 GiB for large machines, 128 MiB for small ones).
 */
#define MEMMAP_GROW_ALIGN     (2 * GIB)
#define MEMMAP_GROW_ALIGN_LOW (128 * MIB)

#define MEMMAP_LEGACY_HOLE UINT64_C(0xa0000)
#define MEMMAP_ACPI_BASE   UINT64_C(0xe0000) /* where ACPI 5.2.5.1 makes an OS look for the RSDP */
#define MEMMAP_ACPI_SIZE   UINT64_C(0x20000)

/* ACPI 15, table 15.1: address range types */
enum memmap_type {
	MEMMAP_USABLE = 1,
	MEMMAP_RESERVED = 2,
	MEMMAP_ACPI = 3,
};

struct memmap_region {
	uint64_t base, size;
	enum memmap_type type;
};

struct memmap {
	uint64_t ram_size;
	struct gmem_range ranges[3]; /* for gmem_new; the last may be room to grow (no size yet) */
	size_t range_count;
	uint64_t low_ram_end;  /* end of the RAM that starts at 0 */
	uint64_t high_ram_end; /* end of all RAM: low_ram_end when there is none above 4 GiB */
	uint64_t grow_base, grow_size; /* where RAM can be added while it runs; size 0 = nowhere */
	uint64_t mmio_low_base, mmio_low_size;
	uint64_t mmio_high_base, mmio_high_size;
	struct memmap_region e820[5]; /* ascending, disjoint */
	unsigned e820_count;
};

/*
 * Lays out `ram_size` bytes (a whole number of MiB) for a guest with `phys_bits` bits of physical
 * address (CPUID 0x80000008 EAX 7:0).
 */
int memmap_init(uint64_t ram_size, unsigned phys_bits, struct memmap *ret,
		struct error *err) _must_check_;
/* The same, with room for RAM to grow to `ram_most` while the guest runs. */
int memmap_init_growing(uint64_t ram_size, uint64_t ram_most, unsigned phys_bits,
			struct memmap *ret, struct error *err) _must_check_;
