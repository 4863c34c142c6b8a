// SPDX-License-Identifier: MIT
/*
 * I/O APIC, version 0x20 (Intel 82093AA data sheet, sections 3.1 and 3.2; the EOI register from the
 * Intel I/O controller hubs). Messages are formed by Intel SDM volume 3, 11.11. One mutex guards
 * everything; it is held while a message is delivered, so that a level cannot fall in between.
 *
 * An edge that arrives while its pin is masked is remembered and delivered when the mask goes, as
 * other emulations do: the data sheet's chip forgets it, and guests have come to rely on neither.
 */
#include "devices/legacy/ioapic.h"

#include "lib/cleanup.h"
#include "save/save.h"

#include <errno.h>

#define MMIO_SELECT 0x00
#define MMIO_WINDOW 0x10
#define MMIO_EOI    0x40

#define REG_ID          0x00
#define REG_VERSION     0x01
#define REG_ARBITRATION 0x02
#define REG_TABLE       0x10

#define VERSION 0x20
#define ID_MASK 0x0f000000

/* 3.2.4: redirection table entry */
#define RTE_VECTOR         0xff
#define RTE_DELIVERY(e)    ((e) >> 8 & 7)
#define RTE_LOGICAL        BIT64(11)
#define RTE_REMOTE_IRR     BIT64(14)
#define RTE_LEVEL          BIT64(15)
#define RTE_MASKED         BIT64(16)
#define RTE_DESTINATION(e) ((e) >> 56)
#define RTE_WRITABLE       UINT64_C(0xff0000000001afff)

#define DELIVERY_EXTINT 7 /* needs an 8259, of which there is none */

#define MSI_ADDRESS         UINT64_C(0xfee00000)
#define MSI_ADDRESS_LOGICAL BIT64(2)
#define MSI_DATA_ASSERT     BIT(14)
#define MSI_DATA_LEVEL      BIT(15)

struct pin {
	uint64_t entry;
	bool line;    /* as the device drives it */
	bool pending; /* an edge not yet delivered */
	uint64_t route_address;
	uint32_t route_data; /* what `route` was last told */
};

struct ioapic {
	struct ioapic_config config;
	pthread_mutex_t lock;
	uint8_t select;
	uint32_t id;
	struct pin pins[IOAPIC_PINS];
};

static uint64_t message_address(uint64_t entry)
{
	return MSI_ADDRESS | RTE_DESTINATION(entry) << 12 |
	       (entry & RTE_LOGICAL ? MSI_ADDRESS_LOGICAL : 0);
}

static uint32_t message_data(uint64_t entry)
{
	uint32_t data = (uint32_t)(entry & RTE_VECTOR) | (uint32_t)RTE_DELIVERY(entry) << 8;

	return entry & RTE_LEVEL ? data | MSI_DATA_LEVEL | MSI_DATA_ASSERT : data;
}

static void pin_deliver(struct ioapic *a, struct pin *p)
{
	if (RTE_DELIVERY(p->entry) != DELIVERY_EXTINT)
		a->config.deliver(a->config.context, message_address(p->entry),
				  message_data(p->entry));
}

/* Delivers what is due. A level is due again only after its end was reported. */
static void pin_update(struct ioapic *a, struct pin *p)
{
	if (p->entry & RTE_MASKED)
		return;
	if (p->entry & RTE_LEVEL) {
		if (!p->line || p->entry & RTE_REMOTE_IRR)
			return;
		p->entry |= RTE_REMOTE_IRR;
	} else if (!p->pending) {
		return;
	}
	p->pending = false;
	pin_deliver(a, p);
}

static void route_update(struct ioapic *a, struct pin *p)
{
	bool wanted = p->entry & RTE_LEVEL && !(p->entry & RTE_MASKED);
	uint64_t address = wanted ? message_address(p->entry) : 0;
	uint32_t data = wanted ? message_data(p->entry) : 0;

	if (address == p->route_address && data == p->route_data)
		return;
	p->route_address = address;
	p->route_data = data;
	if (a->config.route)
		a->config.route(a->config.context, (unsigned)(p - a->pins), address, data);
}

void ioapic_set_line(struct ioapic *a, unsigned pin, bool level)
{
	struct pin *p;

	if (pin >= IOAPIC_PINS)
		return;
	LOCK_SCOPE(&a->lock);
	p = &a->pins[pin];
	if (level && !p->line)
		p->pending = true;
	p->line = level;
	pin_update(a, p);
}

static void eoi(struct ioapic *a, uint8_t vector)
{
	for (unsigned i = 0; i < IOAPIC_PINS; i++) {
		struct pin *p = &a->pins[i];

		if (!(p->entry & RTE_REMOTE_IRR) || (p->entry & RTE_VECTOR) != vector)
			continue;
		p->entry &= ~RTE_REMOTE_IRR;
		pin_update(a, p);
	}
}

void ioapic_eoi(struct ioapic *a, uint8_t vector)
{
	LOCK_SCOPE(&a->lock);
	eoi(a, vector);
}

/* The pin whose redirection entry a register is part of, or NULL. */
static struct pin *pin_of_register(struct ioapic *a, uint8_t reg)
{
	unsigned pin = (reg - REG_TABLE) / 2u;

	return reg >= REG_TABLE && pin < IOAPIC_PINS ? &a->pins[pin] : NULL;
}

static uint32_t window_read(struct ioapic *a)
{
	const struct pin *p = pin_of_register(a, a->select);

	if (p)
		return (uint32_t)(p->entry >> (a->select & 1 ? 32 : 0));
	switch (a->select) {
	case REG_ID:
	case REG_ARBITRATION:
		return a->id;
	case REG_VERSION:
		return VERSION | (IOAPIC_PINS - 1) << 16;
	default:
		return 0;
	}
}

static void entry_write(struct ioapic *a, struct pin *p, bool high, uint32_t value)
{
	uint64_t entry =
		high ? (uint64_t)value << 32 | (uint32_t)p->entry : (p->entry >> 32 << 32) | value;

	p->entry = (entry & RTE_WRITABLE) | (p->entry & ~RTE_WRITABLE);
	/* An edge has no end to wait for; guests switch over and back to forget one. */
	if (!(p->entry & RTE_LEVEL))
		p->entry &= ~RTE_REMOTE_IRR;
	route_update(a, p);
	pin_update(a, p);
}

static void window_write(struct ioapic *a, uint32_t value)
{
	struct pin *p = pin_of_register(a, a->select);

	if (p)
		entry_write(a, p, a->select & 1, value);
	else if (a->select == REG_ID)
		a->id = value & ID_MASK;
}

/* 3.1: three registers of 32 bits, at least 16 bytes apart; of a wider access the rest is lost. */
uint64_t ioapic_read(struct ioapic *a, uint64_t offset, unsigned size)
{
	(void)size;
	LOCK_SCOPE(&a->lock);
	switch (offset) {
	case MMIO_SELECT:
		return a->select;
	case MMIO_WINDOW:
		return window_read(a);
	default:
		return 0;
	}
}

void ioapic_write(struct ioapic *a, uint64_t offset, unsigned size, uint64_t value)
{
	(void)size;
	LOCK_SCOPE(&a->lock);
	switch (offset) {
	case MMIO_SELECT:
		a->select = (uint8_t)value;
		break;
	case MMIO_WINDOW:
		window_write(a, (uint32_t)value);
		break;
	case MMIO_EOI:
		eoi(a, (uint8_t)value);
		break;
	default:
		break;
	}
}

void ioapic_reset(struct ioapic *a)
{
	LOCK_SCOPE(&a->lock);
	a->select = 0;
	a->id = 0;
	for (unsigned i = 0; i < IOAPIC_PINS; i++) {
		a->pins[i].entry = RTE_MASKED;
		a->pins[i].pending = false;
		route_update(a, &a->pins[i]);
	}
}

/* --- saved state --- */

struct saved_ioapic {
	uint8_t select;
	uint32_t id;
	uint64_t entries[IOAPIC_PINS];
	uint8_t lines[IOAPIC_PINS], pending[IOAPIC_PINS]; /* 0 or 1 */
};

static const struct save_field ioapic_fields[] = {
	SAVE_FIELD(struct saved_ioapic, select),  SAVE_FIELD(struct saved_ioapic, id),
	SAVE_ARRAY(struct saved_ioapic, entries), SAVE_ARRAY(struct saved_ioapic, lines),
	SAVE_ARRAY(struct saved_ioapic, pending),
};
static const struct save_table ioapic_table =
	SAVE_TABLE("ioapic", 1, struct saved_ioapic, ioapic_fields);

void ioapic_save(struct ioapic *a, struct save_writer *w)
{
	struct saved_ioapic s;

	LOCK_SCOPE(&a->lock);
	s = (struct saved_ioapic){ .select = a->select, .id = a->id };
	for (unsigned i = 0; i < IOAPIC_PINS; i++) {
		s.entries[i] = a->pins[i].entry;
		s.lines[i] = a->pins[i].line;
		s.pending[i] = a->pins[i].pending;
	}
	save_put(w, &ioapic_table, &s);
}

/* What was delivered is in the local APICs: nothing is delivered again. */
int ioapic_restore(struct ioapic *a, struct save_reader *r, struct error *err)
{
	struct saved_ioapic s;
	int n = save_get(r, &ioapic_table, &s, err);

	if (n < 0)
		return n;
	LOCK_SCOPE(&a->lock);
	a->select = s.select;
	a->id = s.id & ID_MASK;
	for (unsigned i = 0; i < IOAPIC_PINS; i++) {
		a->pins[i].entry = s.entries[i] & (RTE_WRITABLE | RTE_REMOTE_IRR);
		a->pins[i].line = s.lines[i];
		a->pins[i].pending = s.pending[i];
		route_update(a, &a->pins[i]);
	}
	return 0;
}

int ioapic_new(const struct ioapic_config *config, struct ioapic **ret, struct error *err)
{
	struct ioapic *a = calloc(1, sizeof(*a));

	if (!a)
		return error_set(err, -ENOMEM, "out of memory");
	a->config = *config;
	pthread_mutex_init(&a->lock, NULL);
	ioapic_reset(a);
	*ret = a;
	return 0;
}

void ioapic_free(struct ioapic *a)
{
	if (!a)
		return;
	pthread_mutex_destroy(&a->lock);
	free(a);
}
