// SPDX-License-Identifier: MIT
/*
 * Clients of the DHCP server: a byte says which machine, one how much time passes, two how long the
 * message is; an odd machine sends the rest as a frame of its own making. No address is ever two
 * machines', what is kept stays in its limits, and what is answered is a datagram.
 */
#include "net/dhcp.h"

#include <stdlib.h>

static const struct dhcp_settings settings = { .mac = { { 2, 0, 0, 0, 0, 1 } },
					       .address = 0x0a000001,
					       .prefix = 24,
					       .first = 0x0a000002,
					       .last = 0x0a00000a,
					       .servers = { 0x0a000001 },
					       .server_count = 1,
					       .mtu = 1500,
					       .seconds = 60,
					       .domain = "partita.internal" };

static void check_leases(const struct dhcp_server *s, uint64_t now)
{
	unsigned count, declined = 0;
	const struct dhcp_lease *l = dhcp_server_leases(s, &count);

	if (count > DHCP_LEASES_MAX)
		abort();
	for (unsigned i = 0; i < count; i++) {
		declined += l[i].state == DHCP_DECLINED;
		if (l[i].address < settings.first || l[i].address > settings.last ||
		    strnlen(l[i].name, sizeof(l[i].name)) > DHCP_NAME_MAX)
			abort();
		for (unsigned k = 0; k < i; k++)
			if (l[k].address == l[i].address)
				abort();
	}
	if (declined > (settings.last - settings.first + 1) / 4)
		abort();
	(void)dhcp_server_find_name(s, "web", now);
}

/* The message in a frame that is right otherwise, and with that machine's address in it. */
static size_t wrap(uint8_t machine, const uint8_t *data, size_t size, uint8_t *frame)
{
	struct inet_mac mac = { { 2, 0, 0, 0, 1, machine } };
	uint8_t message[INET_UDP4_MAX];
	struct inet_udp u = { .ether = { INET_MAC_ALL, mac, 0 },
			      .ip = { 0, UINT32_MAX, INET_UDP, false },
			      .from_port = 68,
			      .to_port = 67,
			      .data = message,
			      .size = MIN(size, sizeof(message)) };

	memcpy(message, data, u.size);
	if (u.size >= 240) {
		memcpy(message, "\x01\x01\x06", 3);
		memset(message + 24, 0, 4);
		memcpy(message + 28, &mac, sizeof(mac));
		memcpy(message + 236, "\x63\x82\x53\x63", 4);
	}
	return inet_write_udp4(frame, 1514, &u);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct reader r = reader_of(data, size);
	struct dhcp_server *s;
	struct error err;
	uint64_t now = 1;

	if (dhcp_server_new(&settings, &s, &err) < 0)
		abort();
	while (reader_left(&r) > 4) {
		uint8_t machine = reader_u8(&r), frame[1514], answer[1514];
		struct inet_udp u;
		const uint8_t *message;
		size_t n, m;

		now += (uint64_t)reader_u8(&r) * 1000000000;
		n = reader_be16(&r);
		n = MIN(n, reader_left(&r));
		message = reader_take(&r, n);
		if (machine & 1) {
			n = MIN(n, sizeof(frame));
			memcpy(frame, message, n);
		} else {
			n = wrap(machine, message, n, frame);
		}
		m = dhcp_server_frame(s, frame, n, machine & 2, now, answer, sizeof(answer));
		if (m && (!inet_read_udp4(answer, m, false, &u) || u.to_port != 68 || u.size < 300))
			abort();
		check_leases(s, now);
	}
	dhcp_server_free(s);
	return 0;
}
