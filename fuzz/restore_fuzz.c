// SPDX-License-Identifier: MIT
/*
 * Restoring a machine from a state that somebody has written on: partition, bus, a SCSI controller
 * with an open channel and requests under way, and the legacy devices, on engine fake. The input is
 * a list of changes to a good state, each of five bytes:
 *
 *     which record (of as many as there are), what, where (two bytes, of the body), a value
 *
 *     what: 0 sets a byte, 1 adds to it, 2 sets four bytes to ones, 3 leaves the record out,
 *           4 puts it in twice, 5 cuts the body there, 6 sets its version, 7 puts it first
 *
 * Checksums are made right afterwards. Whatever comes, the machine is restored or refused with
 * words; what was restored runs on, and can be reset and taken down.
 */
#include "devices/legacy/ioapic.h"
#include "devices/legacy/pm.h"
#include "devices/legacy/rtc.h"
#include "devices/legacy/uart16550.h"
#include "devices/storvsp/fake_disk.h"
#include "devices/storvsp/storvsp.h"
#include "devices/storvsp/storvsp_proto.h"
#include "lib/crc32c.h"
#include "save/save_format.h"
#include "vmbus/testing.h"

#include <stdlib.h>

#define DISK_SIZE   (64 * KIB)
#define RECORDS_MAX 128

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool there)
{
	if (!there)
		abort();
}

/* --- a machine --- */

struct machine {
	struct test_guest *g;
	struct storvsp *s;
	struct fake_disk *disk;
	struct pio_bus bus;
	struct ioapic *ioapic;
	struct uart *uart;
	struct rtc *rtc;
	struct pm pm;
};

static void deliver(void *context, uint64_t address, uint32_t data)
{
	(void)context, (void)address, (void)data;
}

static void irq(void *context, bool level)
{
	ioapic_set_line(((struct machine *)context)->ioapic, UART_COM1_GSI, level);
}

static void output(void *context, const uint8_t *data, size_t len)
{
	(void)context, (void)data, (void)len;
}

static void stop(void *context)
{
	(void)context;
}

static void machine_make(struct machine *m)
{
	const struct ioapic_config ic = { .deliver = deliver };
	const struct uart_config uc = {
		.name = "COM1", .base = UART_COM1, .irq = irq, .output = output, .context = m
	};
	const struct rtc_config rc = { 0 };
	struct vmbus_offer_options offer = { .instance.b[0] = 9 };
	struct vmbus_channel *ch;

	*m = (struct machine){ .g = test_guest_new(2, 0, 0) };
	must(storvsp_new(m->g->loop, &(struct storvsp_options){ 0 }, &m->s, NULL) >= 0);
	m->disk = fake_disk_new(m->g->loop, DISK_SIZE, 512);
	must(storvsp_attach_disk(m->s, 0, &m->disk->disk, SCSI_DISK, NULL) >= 0);
	must(vmbus_device_offer(m->g->bus, &storvsp_type, m->s, &offer, &ch, NULL) >= 0);
	must(ioapic_new(&ic, &m->ioapic, NULL) >= 0 && uart_new(&uc, &m->uart, NULL) >= 0 &&
	     rtc_new(&rc, &m->rtc, NULL) >= 0);
	pm_init(&m->pm);
	m->pm.power_off = m->pm.reset = stop;
	must(pio_bus_add(&m->bus, uart_pio(m->uart), NULL) >= 0 &&
	     pio_bus_add(&m->bus, rtc_pio(m->rtc), NULL) >= 0 &&
	     pm_add_to(&m->pm, &m->bus, NULL) >= 0);
}

static void machine_free_all(struct machine *m)
{
	vmbus_resume(m->g->bus);
	test_guest_stop(m->g);
	storvsp_free(m->s);
	fake_disk_free(m->disk);
	test_guest_free(m->g);
	uart_free(m->uart);
	rtc_free(m->rtc);
	ioapic_free(m->ioapic);
}

static int machine_restore(struct machine *m, struct test_guest *from, struct save_reader *r,
			   struct error *err)
{
	int n = ioapic_restore(m->ioapic, r, err);

	if (n >= 0)
		n = uart_restore(m->uart, r, err);
	if (n >= 0)
		n = rtc_restore(m->rtc, r, err);
	if (n >= 0)
		n = pm_restore(&m->pm, r, err);
	return n < 0 ? n : test_guest_restore(m->g, from, r, err);
}

/* --- the good state --- */

struct record {
	struct save_record_header header;
	uint8_t *body;
	size_t size;
};

static struct machine base;
static struct test_channel channel;
static struct record good[RECORDS_MAX];
static unsigned good_count;

static void ask(enum vstor_operation operation)
{
	struct vstor_packet p = { .header.operation = le32_of(operation) };
	uint8_t answer[256];

	p.version.major_minor = le16_of(VSTOR_VERSION_6_2);
	must(!test_channel_request(&channel, 77, &p, sizeof(p)));
	must(test_channel_receive(&channel, answer, sizeof(answer)) > 0);
}

/* Reads that a guest does not take the answers of: some have no room in its ring. */
static void read_much(uint64_t gpa)
{
	static const uint8_t cdb[] = { 0x28, 0, 0, 0, 0, 1, 0, 0, 1, 0 };
	struct vstor_packet p = { .header.operation = le32_of(VSTOR_EXECUTE_SRB) };

	p.srb.length = le16_of(sizeof(p.srb));
	p.srb.cdb_length = sizeof(cdb);
	p.srb.data_in = VSTOR_DATA_IN;
	p.srb.data_transfer_length = le32_of(512);
	memcpy(p.srb.payload, cdb, sizeof(cdb));
	for (unsigned i = 0; i < 60; i++) {
		(void)!test_channel_request_gpa(&channel, 1000 + i, &p, sizeof(p), gpa, 512);
		test_guest_pump(base.g);
	}
}

static void split(const uint8_t *bytes, size_t size)
{
	size_t at = sizeof(struct save_stream_header);

	while (at < size && good_count < RECORDS_MAX) {
		struct record *r = &good[good_count++];

		memcpy(&r->header, bytes + at, sizeof(r->header));
		r->size = le32_get(r->header.body_size);
		r->body = malloc(r->size + 4);
		must(r->body);
		memcpy(r->body, bytes + at + sizeof(r->header), r->size);
		at += round_up64(sizeof(r->header) + r->size, SAVE_RECORD_ALIGN);
	}
}

static void make_base(void)
{
	struct save_writer *w;
	const void *bytes;
	size_t size;

	machine_make(&base);
	must(test_guest_connect(base.g, VERSION_WIN10_V5_3));
	test_guest_request_offers(base.g);
	must(test_channel_open(base.g, &base.g->offers[0], 2, &channel));
	ask(VSTOR_BEGIN_INITIALIZATION);
	ask(VSTOR_QUERY_PROTOCOL_VERSION);
	ask(VSTOR_QUERY_PROPERTIES);
	ask(VSTOR_END_INITIALIZATION);
	read_much(test_guest_pages(base.g, 1));
	must(!partition_post_message(base.g->partition, 1, 2, 1, "hello", 5));
	must(test_guest_pause(base.g));
	w = test_guest_save(base.g);
	ioapic_save(base.ioapic, w);
	uart_save(base.uart, w);
	rtc_save(base.rtc, w);
	pm_save(&base.pm, w);
	bytes = save_writer_bytes(w, &size);
	split(bytes, size);
	save_writer_free(w);
}

/* --- what is made of it --- */

struct stream {
	struct record records[RECORDS_MAX];
	unsigned count;
};

static void insert(struct stream *s, unsigned at, const struct record *r)
{
	struct record copy = *r;

	if (s->count == RECORDS_MAX)
		return;
	copy.body = malloc(copy.size + 4);
	must(copy.body);
	memcpy(copy.body, r->body, copy.size);
	memmove(&s->records[at + 1], &s->records[at], (s->count - at) * sizeof(s->records[0]));
	s->records[at] = copy;
	s->count++;
}

static void take_out(struct stream *s, unsigned at)
{
	free(s->records[at].body);
	s->count--;
	memmove(&s->records[at], &s->records[at + 1], (s->count - at) * sizeof(s->records[0]));
}

static void change(struct stream *s, const uint8_t in[static 5])
{
	unsigned index = s->count ? in[0] % s->count : 0;
	struct record *r = &s->records[index];
	size_t at = r->size ? (in[2] | (size_t)in[3] << 8) % r->size : 0;

	if (!s->count || (!r->size && in[1] % 8 < 3))
		return;
	switch (in[1] % 8) {
	case 0:
		r->body[at] = in[4];
		break;
	case 1:
		r->body[at] = (uint8_t)(r->body[at] + in[4]);
		break;
	case 2:
		memset(r->body + at, 0xff, MIN(4, r->size - at));
		break;
	case 3:
		take_out(s, index);
		break;
	case 4:
		insert(s, index, r);
		break;
	case 5:
		r->size = at;
		break;
	case 6:
		r->header.version = le16_of(in[4]);
		break;
	default:
		insert(s, 0, r);
		take_out(s, MIN(index + 1, s->count - 1));
	}
}

static void put(uint8_t *out, size_t *at, const void *src, size_t n)
{
	if (n)
		memcpy(out + *at, src, n);
	*at += n;
}

static uint8_t *join(const struct stream *s, size_t *ret_size)
{
	struct save_stream_header h = { .format = le32_of(SAVE_FORMAT) };
	size_t size = sizeof(h), at = 0;
	uint8_t *out;

	for (unsigned i = 0; i < s->count; i++)
		size += round_up64(sizeof(s->records[i].header) + s->records[i].size, 8);
	out = calloc(1, size);
	must(out);
	memcpy(h.magic, SAVE_MAGIC, sizeof(h.magic));
	h.crc = le32_of(crc32c(0, &h, sizeof(h)));
	put(out, &at, &h, sizeof(h));
	for (unsigned i = 0; i < s->count; i++) {
		const struct record *r = &s->records[i];
		struct save_record_header rh = r->header;

		rh.body_size = le32_of((uint32_t)r->size);
		rh.crc = le32_of(0);
		rh.crc = le32_of(crc32c(crc32c(0, &rh, sizeof(rh)), r->body, r->size));
		put(out, &at, &rh, sizeof(rh));
		put(out, &at, r->body, r->size);
		at = round_up64(at, 8);
	}
	*ret_size = size;
	return out;
}

/* It runs: answers come, ports work, a new guest can take over. */
static void use(struct machine *m)
{
	vmbus_resume(m->g->bus);
	for (int i = 0; i < 3; i++)
		test_guest_pump(m->g);
	(void)pio_bus_read(&m->bus, UART_COM1, 1);
	for (unsigned i = 0; i < 14; i++) {
		pio_bus_write(&m->bus, RTC_PORT, 1, i);
		(void)pio_bus_read(&m->bus, RTC_PORT + 1, 1);
	}
	for (unsigned v = 0; v < 256; v++)
		ioapic_eoi(m->ioapic, (uint8_t)v);
}

static bool run(const uint8_t *bytes, size_t size)
{
	struct error err = { 0 };
	struct save_reader *r;
	struct machine m;
	bool restored;

	if (save_reader_of(bytes, size, &r, &err) < 0)
		return false;
	machine_make(&m);
	restored = machine_restore(&m, base.g, r, &err) >= 0;
	if (restored)
		use(&m);
	else
		must(*err.message && err.code < 0);
	save_reader_free(r);
	machine_free_all(&m);
	return restored;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct stream s = { 0 };
	uint8_t *bytes;
	bool untouched = size < 5, restored;
	size_t n;

	if (!good_count)
		make_base();
	for (unsigned i = 0; i < good_count; i++)
		insert(&s, s.count, &good[i]);
	for (; size >= 5; data += 5, size -= 5)
		change(&s, data);
	bytes = join(&s, &n);
	restored = run(bytes, n);
	must(restored || !untouched);
	free(bytes);
	while (s.count)
		take_out(&s, 0);
	return 0;
}
