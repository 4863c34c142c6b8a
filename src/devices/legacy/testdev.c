// SPDX-License-Identifier: MIT
/*
 * Test devices: QEMU's isa-debug-exit at 0xf4 and the older, port-only half of its fw_cfg (QEMU
 * docs/specs/fw_cfg.rst). Used from VP threads. Selected item and offset are one atomic word, so
 * that VPs that use fw_cfg at once disturb each other's bytes and nothing more.
 */
#include "devices/legacy/testdev.h"

/* fw_cfg items; all others read as zeros */
#define ITEM_SIGNATURE 0x0000
#define ITEM_ID        0x0001 /* feature bits: 0 = port interface */
#define ITEM_RAM_SIZE  0x0003
#define ITEM_CPUS      0x0005
#define ITEM_MAX_CPUS  0x000f

#define FW_CFG_SELECTOR 0
#define FW_CFG_DATA     1
#define EXIT_PORT_SIZE  4

static void exit_write(struct pio_device *d, uint16_t offset, unsigned size, uint32_t value)
{
	struct testdev *t = container_of(d, struct testdev, exit_port);

	(void)offset, (void)size;
	t->exit(t->context, (int)(value << 1 | 1));
}

static uint64_t item_value(const struct testdev *t, uint16_t item)
{
	switch (item) {
	case ITEM_SIGNATURE:
		return 0x554d4551; /* "QEMU" */
	case ITEM_ID:
		return 1;
	case ITEM_RAM_SIZE:
		return t->ram_size;
	case ITEM_CPUS:
	case ITEM_MAX_CPUS:
		return t->cpus;
	default:
		return 0;
	}
}

/* Items are little-endian and end within eight bytes; behind their end come zeros. */
static uint32_t fw_cfg_read(struct pio_device *d, uint16_t offset, unsigned size)
{
	struct testdev *t = container_of(d, struct testdev, fw_cfg);
	uint32_t cursor, at;

	(void)size;
	if (offset != FW_CFG_DATA)
		return 0;
	cursor = atomic_load(&t->cursor);
	at = cursor & 0xffff;
	if (at >= sizeof(uint64_t))
		return 0;
	atomic_store(&t->cursor, cursor + 1);
	return (uint8_t)(item_value(t, (uint16_t)(cursor >> 16)) >> (8 * at));
}

static void fw_cfg_write(struct pio_device *d, uint16_t offset, unsigned size, uint32_t value)
{
	struct testdev *t = container_of(d, struct testdev, fw_cfg);

	if (offset == FW_CFG_SELECTOR && size >= 2)
		atomic_store(&t->cursor, (value & 0xffff) << 16);
}

void testdev_reset(struct testdev *t)
{
	atomic_store(&t->cursor, 0);
}

void testdev_init(struct testdev *t)
{
	t->exit_port = (struct pio_device){
		.name = "test exit",
		.base = TESTDEV_EXIT_PORT,
		.length = EXIT_PORT_SIZE,
		.write = exit_write,
	};
	t->fw_cfg = (struct pio_device){
		.name = "fw_cfg",
		.base = TESTDEV_FW_CFG_PORT,
		.length = 2,
		.read = fw_cfg_read,
		.write = fw_cfg_write,
	};
	testdev_reset(t);
}

int testdev_add_to(struct testdev *t, struct pio_bus *bus, struct error *err)
{
	int r = pio_bus_add(bus, &t->exit_port, err);

	return r ? r : pio_bus_add(bus, &t->fw_cfg, err);
}
