// SPDX-License-Identifier: MIT
/*
 * Hyper-V sockets between a hostile guest and hostile programs of the host: lines and bytes from
 * programs, connections, packets and ends from the guest, in any order. What must hold beside
 * memory: at the end nothing is left, and limits were kept.
 */
#include "devices/hvsock/hvsock.h"
#include "devices/hvsock/hvsock_proto.h"
#include "lib/unix_socket.h"
#include "vmbus/testing.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define PROGRAMS 6
#define CHANNELS 4

struct fuzz {
	struct test_guest *g;
	struct hvsock *h;
	struct sockaddr_un address;
	int programs[PROGRAMS];
	struct test_channel channels[CHANNELS];
	bool open[CHANNELS];
	unsigned taken; /* offers that were opened or left */
};

static void pump(struct fuzz *f)
{
	for (int i = 0; i < 3; i++)
		test_guest_pump(f->g);
	if (hvsock_stats(f->h).connections > HVSOCK_CONNECTIONS_MAX ||
	    hvsock_stats(f->h).clients > HVSOCK_CLIENTS_MAX)
		abort();
}

static void program_toggle(struct fuzz *f, uint8_t which)
{
	int *fd = &f->programs[which % PROGRAMS];

	if (*fd >= 0) {
		close(*fd);
		*fd = -1;
		return;
	}
	*fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (connect(*fd, (struct sockaddr *)&f->address, sizeof(f->address)) < 0) {
		close(*fd);
		*fd = -1;
	}
}

static void program_line(struct fuzz *f, uint8_t which)
{
	static const char *const lines[] = { "CONNECT 7\n", "LISTEN 7\n", "LISTEN 8\nrest",
					     "CONNECT 00000007-facb-11e6-bd58-64006a7986d3\n" };
	int fd = f->programs[which % PROGRAMS];
	const char *line = lines[which / PROGRAMS % 4];

	if (fd >= 0)
		(void)!send(fd, line, strlen(line), MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void program_bytes(struct fuzz *f, uint8_t which, struct reader *r)
{
	int fd = f->programs[which % PROGRAMS];
	size_t n = reader_u8(r), size = MIN(n, reader_left(r));
	const void *data = reader_take(r, size);
	static char sink[30000];

	if (fd < 0)
		return;
	if (which & 64)
		(void)!recv(fd, sink, sizeof(sink), MSG_DONTWAIT);
	if (which & 128)
		(void)shutdown(fd, SHUT_WR);
	else if (data && size)
		(void)!send(fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void guest_connect(struct fuzz *f, uint8_t which)
{
	uint8_t m[40] = { CHANNELMSG_TL_CONNECT_REQUEST };
	static const struct guid service = HVSOCK_TEMPLATE;

	m[8] = which;
	memcpy(m + 24, &service, 16);
	m[24] = 7 + which % 2;
	test_guest_post(f->g, VMBUS_MESSAGE_CONNECTION_ID, m, sizeof(m));
}

static void guest_open(struct fuzz *f, uint8_t which)
{
	unsigned i = which % CHANNELS;

	test_guest_take_offers(f->g);
	if (f->open[i] || f->taken >= f->g->offer_count ||
	    f->g->next_page > TEST_GUEST_RAM - 64 * GMEM_PAGE_SIZE)
		return;
	f->channels[i] = (struct test_channel){ 0 };
	f->open[i] = test_channel_open(f->g, &f->g->offers[f->taken++], 6, &f->channels[i]);
	if (!f->open[i] && f->channels[i].out.control)
		ring_deinit(&f->channels[i].out);
	if (!f->open[i] && f->channels[i].in.control)
		ring_deinit(&f->channels[i].in);
}

static void guest_close(struct fuzz *f, uint8_t which)
{
	unsigned i = which % CHANNELS;
	uint8_t m[12] = { CHANNELMSG_RELID_RELEASED };

	if (!f->open[i])
		return;
	memcpy(m + 8, &f->channels[i].relid, 4);
	test_channel_close(&f->channels[i]);
	f->open[i] = false;
	if (which & 128)
		test_guest_post(f->g, VMBUS_MESSAGE_CONNECTION_ID, m, sizeof(m));
}

static void guest_send(struct fuzz *f, uint8_t which, struct reader *r)
{
	uint8_t packet[VMPIPE_HEADER_SIZE + 256 * 64] = { 0 };
	struct writer w = writer_of(packet, sizeof(packet));
	unsigned i = which % CHANNELS;
	uint32_t size = reader_u8(r) * (which & 32 ? 64u : 1u);

	if (!f->open[i])
		return;
	writer_le32(&w, which & 64 ? reader_u8(r) : VMPIPE_DATA);
	writer_le32(&w, which & 128 ? reader_le32(r) : size);
	(void)test_channel_send(&f->channels[i], VMBUS_PACKET_INBAND, 0, packet, w.at + size, 0);
	test_channel_signal(&f->channels[i]);
}

static void guest_read(struct fuzz *f, uint8_t which)
{
	static uint8_t packet[VMBUS_MAX_PACKET];
	unsigned i = which % CHANNELS;

	if (f->open[i])
		(void)test_channel_receive(&f->channels[i], packet, sizeof(packet));
}

static void step(struct fuzz *f, uint8_t op, struct reader *r)
{
	uint8_t which = reader_u8(r);

	switch (op % 8) {
	case 0:
		program_toggle(f, which);
		break;
	case 1:
		program_line(f, which);
		break;
	case 2:
		program_bytes(f, which, r);
		break;
	case 3:
		guest_connect(f, which);
		break;
	case 4:
		guest_open(f, which);
		break;
	case 5:
		guest_close(f, which);
		break;
	case 6:
		guest_send(f, which, r);
		break;
	case 7:
		guest_read(f, which);
		break;
	}
	pump(f);
}

static void begin(struct fuzz *f)
{
	int fd;

	f->g = test_guest_new(1, 0, 0);
	if (!test_guest_connect(f->g, VERSION_COPPER))
		abort();
	test_guest_request_offers(f->g);
	f->address.sun_family = AF_UNIX;
	snprintf(f->address.sun_path, sizeof(f->address.sun_path), "/tmp/partita-fuzz-%d",
		 getpid());
	unlink(f->address.sun_path);
	fd = unix_listen(f->address.sun_path, 0, 8, NULL);
	if (fd < 0 || hvsock_new(f->g->loop, f->g->bus, fd, &f->h, NULL) < 0)
		abort();
	for (unsigned i = 0; i < PROGRAMS; i++)
		f->programs[i] = -1;
}

static void on_quiet(void *context)
{
	*(bool *)context = true;
}

static void end(struct fuzz *f)
{
	bool done = false;

	vmbus_reset(f->g->bus, on_quiet, &done);
	while (!done)
		if (loop_once(f->g->loop, 1000) < 0)
			abort();
	hvsock_free(f->h);
	for (unsigned i = 0; i < CHANNELS; i++)
		if (f->open[i]) {
			ring_deinit(&f->channels[i].in);
			ring_deinit(&f->channels[i].out);
		}
	for (unsigned i = 0; i < PROGRAMS; i++)
		if (f->programs[i] >= 0)
			close(f->programs[i]);
	test_guest_free(f->g);
	unlink(f->address.sun_path);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct reader r = reader_of(data, size);
	struct fuzz f = { 0 };

	begin(&f);
	for (int i = 0; i < 200 && reader_left(&r); i++)
		step(&f, reader_u8(&r), &r);
	end(&f);
	return 0;
}
