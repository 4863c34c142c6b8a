// SPDX-License-Identifier: MIT
/*
 * 16550A UART (National Semiconductor PC16550D data sheet; register sections named below are
 * its 8.x). Registers are used from VP threads, input comes from the event loop; one mutex guards
 * all.
 *
 * There is no line, hence no time: a byte written is sent at once, so the transmitter is always
 * empty, and a byte below the receiver's trigger level has always waited long enough for the
 * "character timeout" interrupt. Modem inputs say that a terminal is connected and ready.
 */
#include "devices/legacy/uart16550.h"

#include "lib/cleanup.h"
#include "save/save.h"

#include <errno.h>
#include <string.h>

enum {
	REG_DATA, /* RBR, THR; DLL when the divisor latch is open */
	REG_IER,  /* DLM likewise */
	REG_IIR,  /* read; written: FCR */
	REG_LCR,
	REG_MCR,
	REG_LSR,
	REG_MSR,
	REG_SCR,
	REG_COUNT,
};

#define IER_RDI  BIT(0)
#define IER_THRI BIT(1)
#define IER_RLSI BIT(2)
#define IER_MSI  BIT(3)
#define IER_MASK 0x0f

#define IIR_NONE        0x01
#define IIR_MODEM       0x00
#define IIR_THR_EMPTY   0x02
#define IIR_DATA        0x04
#define IIR_LINE_STATUS 0x06
#define IIR_TIMEOUT     0x0c
#define IIR_FIFOS       0xc0

#define FCR_ENABLE   BIT(0)
#define FCR_CLEAR_RX BIT(1)

#define LCR_DLAB BIT(7)

#define MCR_DTR  BIT(0)
#define MCR_RTS  BIT(1)
#define MCR_OUT1 BIT(2)
#define MCR_OUT2 BIT(3) /* on a PC: lets the interrupt out of the chip */
#define MCR_LOOP BIT(4)
#define MCR_MASK 0x1f

#define LSR_DR   BIT(0)
#define LSR_OE   BIT(1)
#define LSR_THRE BIT(5)
#define LSR_TEMT BIT(6)

#define MSR_DCTS   BIT(0)
#define MSR_DDSR   BIT(1)
#define MSR_TERI   BIT(2)
#define MSR_DDCD   BIT(3)
#define MSR_CTS    BIT(4)
#define MSR_DSR    BIT(5)
#define MSR_RI     BIT(6)
#define MSR_DCD    BIT(7)
#define MSR_DELTAS 0x0f

struct uart {
	struct pio_device pio;
	struct uart_config config;
	pthread_mutex_t lock;
	uint8_t ier, fcr, lcr, mcr, msr, scr, dll, dlm;
	bool overrun;
	bool thr_pending; /* the transmitter became empty and nobody was told */
	bool irq_level;
	bool held;
	uint8_t fifo[UART_FIFO]; /* received bytes */
	unsigned fifo_at, fifo_count;
};

static unsigned fifo_depth(const struct uart *u)
{
	return u->fcr & FCR_ENABLE ? UART_FIFO : 1;
}

/* 8.4: FCR bits 7-6 */
static unsigned fifo_trigger(const struct uart *u)
{
	static const uint8_t levels[] = { 1, 4, 8, 14 };

	return u->fcr & FCR_ENABLE ? levels[u->fcr >> 6] : 1;
}

/* 8.6, table IV: the pending interrupt of highest priority */
static uint8_t iir_of(const struct uart *u)
{
	if (u->ier & IER_RLSI && u->overrun)
		return IIR_LINE_STATUS;
	if (u->ier & IER_RDI && u->fifo_count >= fifo_trigger(u))
		return IIR_DATA;
	if (u->ier & IER_RDI && u->fifo_count)
		return IIR_TIMEOUT;
	if (u->ier & IER_THRI && u->thr_pending)
		return IIR_THR_EMPTY;
	if (u->ier & IER_MSI && u->msr & MSR_DELTAS)
		return IIR_MODEM;
	return IIR_NONE;
}

static void irq_update(struct uart *u)
{
	bool out = u->mcr & MCR_OUT2 && !(u->mcr & MCR_LOOP);
	bool level = out && iir_of(u) != IIR_NONE;

	if (level == u->irq_level)
		return;
	u->irq_level = level;
	u->config.irq(u->config.context, level);
}

/* 8.8: inputs from the terminal, or from our own outputs in loopback mode */
static uint8_t modem_inputs(const struct uart *u)
{
	uint8_t in = 0;

	if (!(u->mcr & MCR_LOOP))
		return MSR_CTS | MSR_DSR | MSR_DCD;
	if (u->mcr & MCR_RTS)
		in |= MSR_CTS;
	if (u->mcr & MCR_DTR)
		in |= MSR_DSR;
	if (u->mcr & MCR_OUT1)
		in |= MSR_RI;
	if (u->mcr & MCR_OUT2)
		in |= MSR_DCD;
	return in;
}

static void modem_update(struct uart *u)
{
	uint8_t in = modem_inputs(u), changed = in ^ u->msr;

	if (changed & MSR_CTS)
		u->msr |= MSR_DCTS;
	if (changed & MSR_DSR)
		u->msr |= MSR_DDSR;
	if (changed & MSR_RI && !(in & MSR_RI)) /* trailing edge only */
		u->msr |= MSR_TERI;
	if (changed & MSR_DCD)
		u->msr |= MSR_DDCD;
	u->msr = in | (u->msr & MSR_DELTAS);
}

static void fifo_put(struct uart *u, uint8_t byte)
{
	if (u->fifo_count >= fifo_depth(u)) {
		u->overrun = true;
		return;
	}
	u->fifo[(u->fifo_at + u->fifo_count++) % UART_FIFO] = byte;
}

static bool can_receive(const struct uart *u)
{
	return !u->held && !(u->mcr & MCR_LOOP) && u->fifo_count < fifo_depth(u);
}

/* Tells the source of input when there is room that was not there before. */
static void drained_update(struct uart *u, bool could)
{
	if (!could && can_receive(u) && u->config.drained)
		u->config.drained(u->config.context);
}

static uint8_t data_read(struct uart *u)
{
	uint8_t byte = 0;

	if (u->fifo_count) {
		byte = u->fifo[u->fifo_at];
		u->fifo_at = (u->fifo_at + 1) % UART_FIFO;
		u->fifo_count--;
	}
	return byte;
}

static void data_write(struct uart *u, uint8_t byte)
{
	if (u->mcr & MCR_LOOP)
		fifo_put(u, byte);
	else
		u->config.output(u->config.context, &byte, 1);
	u->thr_pending = true; /* written, sent and empty again in one moment */
}

static uint8_t iir_read(struct uart *u)
{
	uint8_t iir = iir_of(u);

	if (iir == IIR_THR_EMPTY)
		u->thr_pending = false; /* 8.6: reading it is the answer to it */
	return iir | (u->fcr & FCR_ENABLE ? IIR_FIFOS : 0);
}

static uint8_t lsr_read(struct uart *u)
{
	uint8_t lsr = LSR_THRE | LSR_TEMT;

	if (u->fifo_count)
		lsr |= LSR_DR;
	if (u->overrun)
		lsr |= LSR_OE;
	u->overrun = false;
	return lsr;
}

static uint8_t msr_read(struct uart *u)
{
	uint8_t msr = u->msr;

	u->msr &= (uint8_t)~MSR_DELTAS;
	return msr;
}

static void ier_write(struct uart *u, uint8_t value)
{
	/* The transmitter is empty: permitting that interrupt raises it. */
	if (value & IER_THRI && !(u->ier & IER_THRI))
		u->thr_pending = true;
	u->ier = value & IER_MASK;
}

static void fcr_write(struct uart *u, uint8_t value)
{
	bool toggled = (value ^ u->fcr) & FCR_ENABLE;

	if (value & FCR_CLEAR_RX || toggled)
		u->fifo_count = 0;
	/* 8.4: without bit 0 the other bits are not programmed */
	u->fcr = value & FCR_ENABLE ? value & 0xc1 : 0;
}

static uint8_t register_read(struct uart *u, uint16_t reg)
{
	bool latch = u->lcr & LCR_DLAB;

	switch (reg) {
	case REG_DATA:
		return latch ? u->dll : data_read(u);
	case REG_IER:
		return latch ? u->dlm : u->ier;
	case REG_IIR:
		return iir_read(u);
	case REG_LCR:
		return u->lcr;
	case REG_MCR:
		return u->mcr;
	case REG_LSR:
		return lsr_read(u);
	case REG_MSR:
		return msr_read(u);
	default:
		return u->scr;
	}
}

static void register_write(struct uart *u, uint16_t reg, uint8_t value)
{
	bool latch = u->lcr & LCR_DLAB;

	switch (reg) {
	case REG_DATA:
		if (latch)
			u->dll = value;
		else
			data_write(u, value);
		break;
	case REG_IER:
		if (latch)
			u->dlm = value;
		else
			ier_write(u, value);
		break;
	case REG_IIR:
		fcr_write(u, value);
		break;
	case REG_LCR:
		u->lcr = value;
		break;
	case REG_MCR:
		u->mcr = value & MCR_MASK;
		modem_update(u);
		break;
	case REG_SCR:
		u->scr = value;
		break;
	default: /* LSR and MSR are not for writing */
		break;
	}
}

/* The chip is eight bits wide: of a wider access it sees the lowest byte. */
static uint32_t uart_read(struct pio_device *d, uint16_t offset, unsigned size)
{
	struct uart *u = container_of(d, struct uart, pio);
	uint8_t value;
	bool could;

	(void)size;
	LOCK_SCOPE(&u->lock);
	could = can_receive(u);
	value = register_read(u, offset);
	irq_update(u);
	drained_update(u, could);
	return value;
}

static void uart_write(struct pio_device *d, uint16_t offset, unsigned size, uint32_t value)
{
	struct uart *u = container_of(d, struct uart, pio);
	bool could;

	(void)size;
	LOCK_SCOPE(&u->lock);
	could = can_receive(u);
	register_write(u, offset, (uint8_t)value);
	irq_update(u);
	drained_update(u, could);
}

size_t uart_receive(struct uart *u, const uint8_t *data, size_t len)
{
	size_t n = 0;

	LOCK_SCOPE(&u->lock);
	while (n < len && can_receive(u))
		fifo_put(u, data[n++]);
	irq_update(u);
	return n;
}

bool uart_can_receive(struct uart *u)
{
	LOCK_SCOPE(&u->lock);
	return can_receive(u);
}

void uart_hold(struct uart *u, bool held)
{
	bool could;

	LOCK_SCOPE(&u->lock);
	could = can_receive(u);
	u->held = held;
	drained_update(u, could);
}

/* 8.0, table III: the state after master reset */
static void registers_reset(struct uart *u)
{
	u->ier = u->fcr = u->lcr = u->mcr = u->scr = 0;
	u->dll = 12; /* 9600 baud, as PC firmware leaves it */
	u->dlm = 0;
	u->msr = MSR_CTS | MSR_DSR | MSR_DCD;
	u->overrun = u->thr_pending = false;
	u->fifo_at = u->fifo_count = 0;
}

void uart_reset(struct uart *u)
{
	bool could;

	LOCK_SCOPE(&u->lock);
	could = can_receive(u);
	registers_reset(u);
	irq_update(u);
	drained_update(u, could);
}

/* --- saved state --- */

struct saved_uart {
	uint8_t ier, fcr, lcr, mcr, msr, scr, dll, dlm;
	bool overrun, thr_pending, irq_level;
	uint8_t fifo_count;
	uint8_t fifo[UART_FIFO];
};

/* clang-format off */
#define UART(name) SAVE_FIELD(struct saved_uart, name)
static const struct save_field uart_fields[] = {
	UART(ier), UART(fcr), UART(lcr), UART(mcr), UART(msr), UART(scr), UART(dll), UART(dlm),
	UART(overrun), UART(thr_pending), UART(irq_level),
	SAVE_COUNTED(struct saved_uart, fifo, fifo_count),
};
/* clang-format on */
static const struct save_table uart_table = SAVE_TABLE("uart", 1, struct saved_uart, uart_fields);

void uart_save(struct uart *u, struct save_writer *w)
{
	struct saved_uart s;

	LOCK_SCOPE(&u->lock);
	s = (struct saved_uart){
		.ier = u->ier,
		.fcr = u->fcr,
		.lcr = u->lcr,
		.mcr = u->mcr,
		.msr = u->msr,
		.scr = u->scr,
		.dll = u->dll,
		.dlm = u->dlm,
		.overrun = u->overrun,
		.thr_pending = u->thr_pending,
		.irq_level = u->irq_level,
		.fifo_count = (uint8_t)u->fifo_count,
	};
	for (unsigned i = 0; i < u->fifo_count; i++)
		s.fifo[i] = u->fifo[(u->fifo_at + i) % UART_FIFO];
	save_put(w, &uart_table, &s);
}

/* The I/O APIC knows the level of the line: it is not driven again. */
int uart_restore(struct uart *u, struct save_reader *r, struct error *err)
{
	struct saved_uart s = { 0 };
	int n = save_get(r, &uart_table, &s, err);

	if (n < 0)
		return n;
	LOCK_SCOPE(&u->lock);
	u->ier = s.ier & IER_MASK;
	u->fcr = s.fcr;
	u->lcr = s.lcr;
	u->mcr = s.mcr & MCR_MASK;
	u->msr = s.msr;
	u->scr = s.scr;
	u->dll = s.dll;
	u->dlm = s.dlm;
	u->overrun = s.overrun;
	u->thr_pending = s.thr_pending;
	u->irq_level = s.irq_level;
	u->fifo_at = 0;
	u->fifo_count = s.fifo_count;
	memcpy(u->fifo, s.fifo, sizeof(u->fifo));
	return 0;
}

struct pio_device *uart_pio(struct uart *u)
{
	return &u->pio;
}

int uart_new(const struct uart_config *config, struct uart **ret, struct error *err)
{
	struct uart *u = calloc(1, sizeof(*u));

	if (!u)
		return error_set(err, -ENOMEM, "out of memory");
	u->config = *config;
	u->pio = (struct pio_device){
		.name = config->name,
		.base = config->base,
		.length = REG_COUNT,
		.read = uart_read,
		.write = uart_write,
	};
	pthread_mutex_init(&u->lock, NULL);
	registers_reset(u);
	*ret = u;
	return 0;
}

void uart_free(struct uart *u)
{
	if (!u)
		return;
	pthread_mutex_destroy(&u->lock);
	free(u);
}
