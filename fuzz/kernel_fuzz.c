// SPDX-License-Identifier: MIT
/*
 * boot_load over arbitrary kernel files. The first byte of an input chooses the machine's memory
 * and whether there is an initial RAM disk; the rest is the file.
 */
#include "firmware/boot.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct machine {
	struct memmap map;
	struct gmem *gm;
};

/* 16 MiB; and a little more than fits below 4 GiB. Guest memory is lazily allocated. */
static struct machine machines[2];
static int kernel_fd, initrd_fd;

static void machines_make(void)
{
	static const uint64_t sizes[] = { 16 * MIB, MEMMAP_LOW_GAP + MIB };

	for (unsigned i = 0; i < ARRAY_SIZE(machines); i++) {
		struct machine *m = &machines[i];

		if (memmap_init(sizes[i], 40, &m->map, NULL) < 0 ||
		    gmem_new(m->map.ranges, m->map.range_count, &m->gm, NULL) < 0)
			abort();
	}
	kernel_fd = memfd_create("kernel", MFD_CLOEXEC);
	initrd_fd = memfd_create("initrd", MFD_CLOEXEC);
	if (kernel_fd < 0 || initrd_fd < 0 || ftruncate(initrd_fd, 100000) < 0)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct boot_config config = { .cmdline = "quiet", .initrd_fd = -1, .rsdp = 0xe0000 };
	struct boot_state state;
	struct error err = { 0 };
	struct machine *m;
	int r;

	if (!machines[0].gm)
		machines_make();
	if (!size)
		return 0;
	/* Big machines only rarely: what an image may fill with zeros grows with them. */
	m = &machines[data[0] >= 0xf0];
	if (data[0] & 1)
		config.initrd_fd = initrd_fd;
	config.kernel_fd = kernel_fd;
	config.memmap = &m->map;
	if (ftruncate(kernel_fd, 0) < 0 ||
	    pwrite(kernel_fd, data + 1, size - 1, 0) != (ssize_t)(size - 1))
		abort();
	r = boot_load(m->gm, &config, &state, &err);
	/* A refusal says why; a kernel that is accepted starts in memory. */
	if (r < 0 ? (err.code != r || !err.message[0]) : state.rip >= m->map.low_ram_end)
		abort();
	return 0;
}
