// SPDX-License-Identifier: MIT
/* Frames that are understood, those that are not, known checksums, Microsoft's RSS test vectors. */
#include "devices/netvsp/frame.h"

#include "devices/netvsp/rndis_proto.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* RFC 1071-style example: a header whose checksum is known to be 0xb861. */
static const uint8_t ip_header[20] = { 0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11,
				       0xb8, 0x61, 0xc0, 0xa8, 0x00, 0x01, 0xc0, 0xa8, 0x00, 0xc7 };

static size_t make_ipv4(uint8_t *h, unsigned tags, uint8_t protocol)
{
	size_t at = 12;

	memset(h, 0, FRAME_HEADER_MAX);
	for (; tags; tags--, at += 4)
		frame_put16(h + at, 0x8100);
	frame_put16(h + at, 0x0800);
	memcpy(h + at + 2, ip_header, sizeof(ip_header));
	h[at + 2 + 9] = protocol;
	at += 22;
	h[at + 12] = 0x50;
	return at + 20;
}

static void test_parse(void **state)
{
	uint8_t h[FRAME_HEADER_MAX];
	size_t size;
	struct frame f;

	(void)state;
	for (unsigned tags = 0; tags < 3; tags++) {
		size = make_ipv4(h, tags, 6);
		f = frame_parse(h, size);
		assert_int_equal(f.ip, 4);
		assert_int_equal(f.protocol, FRAME_TCP);
		assert_int_equal(f.l3, 14 + 4 * tags);
		assert_int_equal(f.l4, 34 + 4 * tags);
		assert_int_equal(f.payload, 54 + 4 * tags);
		/* Every shorter piece is understood less, and never read beyond. */
		for (size_t n = 0; n < size; n++) {
			uint8_t *piece = malloc(n ? n : 1);

			memcpy(piece, h, n);
			f = frame_parse(piece, n);
			assert_int_equal(f.protocol, FRAME_OTHER);
			free(piece);
		}
	}
	size = make_ipv4(h, 3, 6);
	assert_int_equal(frame_parse(h, size).ip, 0); /* too many tags */
	size = make_ipv4(h, 0, 17);
	f = frame_parse(h, size);
	assert_int_equal(f.protocol, FRAME_UDP);
	assert_int_equal(f.payload, 42);
	h[20] = 0x20; /* more fragments */
	assert_int_equal(frame_parse(h, size).protocol, FRAME_OTHER);
	assert_int_equal(frame_parse(h, size).ip, 4);
	size = make_ipv4(h, 0, 6);
	h[14] = 0x4f; /* options beyond the end */
	assert_int_equal(frame_parse(h, size).ip, 0);
	size = make_ipv4(h, 0, 6);
	h[46] = 0xf0; /* TCP options beyond the end */
	assert_int_equal(frame_parse(h, size).payload, 0);
	h[46] = 0x40; /* less than a TCP header */
	assert_int_equal(frame_parse(h, size).payload, 0);
}

static void test_parse_ipv6(void **state)
{
	uint8_t h[FRAME_HEADER_MAX] = { [12] = 0x86, [13] = 0xdd, [14] = 0x60, [20] = 6 };
	struct frame f;

	(void)state;
	h[54 + 12] = 0x80;
	f = frame_parse(h, 86);
	assert_int_equal(f.ip, 6);
	assert_int_equal(f.protocol, FRAME_TCP);
	assert_int_equal(f.l4, 54);
	assert_int_equal(f.payload, 86);
	h[20] = 0; /* hop-by-hop options: not looked behind */
	assert_int_equal(frame_parse(h, 86).protocol, FRAME_OTHER);
	assert_int_equal(frame_parse(h, 53).ip, 0);
}

static void test_checksums(void **state)
{
	uint8_t h[FRAME_HEADER_MAX], odd[3] = { 1, 2, 3 };
	struct frame f;
	size_t size = make_ipv4(h, 0, 17);

	(void)state;
	f = frame_parse(h, size);
	assert_true(frame_ip_checksum_good(h, &f));
	frame_put16(h + 24, 0);
	assert_false(frame_ip_checksum_good(h, &f));
	frame_ip_checksum(h, &f);
	assert_int_equal(frame_get16(h + 24), 0xb861);
	assert_int_equal(frame_fold(frame_sum(odd, 3)), 0x0402); /* 0x0102 + 0x0300 */
	/* 192.168.0.1, 192.168.0.199, 17, 95 */
	assert_int_equal(frame_fold(frame_pseudo_sum(h, &f, 95)),
			 frame_fold(0) + ((0xc0a8 + 0x0001 + 0xc0a8 + 0x00c7 + 17 + 95) % 0xffff));
}

static const uint8_t key[40] = {
	0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3,
	0x8f, 0xb0, 0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3,
	0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
};

/* "Verifying the RSS Hash Calculation" of the Windows driver documentation. */
static void test_hash(void **state)
{
	static const struct {
		uint8_t from[4], to[4];
		uint16_t from_port, to_port;
		uint32_t with_ports, without;
	} vectors[] = {
		{ { 66, 9, 149, 187 }, { 161, 142, 100, 80 }, 2794, 1766, 0x51ccc178, 0x323e8fc2 },
		{ { 199, 92, 111, 2 }, { 65, 69, 140, 83 }, 14230, 4739, 0xc626b0ea, 0xd718262a },
		{ { 24, 19, 198, 95 }, { 12, 22, 207, 184 }, 12898, 38024, 0x5c2b394a, 0xd2d0a5de },
	};
	struct rss_key *k = malloc(sizeof(*k));
	uint8_t h[FRAME_HEADER_MAX];
	bool hashed;

	(void)state;
	assert_non_null(k);
	rss_key_prepare(k, key);
	for (size_t i = 0; i < ARRAY_SIZE(vectors); i++) {
		size_t size = make_ipv4(h, 0, 6);
		struct frame f;

		memcpy(h + 26, vectors[i].from, 4);
		memcpy(h + 30, vectors[i].to, 4);
		frame_put16(h + 34, vectors[i].from_port);
		frame_put16(h + 36, vectors[i].to_port);
		f = frame_parse(h, size);
		assert_int_equal(rss_hash(k, NDIS_HASH_TCP_IPV4 | NDIS_HASH_IPV4, h, &f, &hashed),
				 vectors[i].with_ports);
		assert_true(hashed);
		assert_int_equal(rss_hash(k, NDIS_HASH_IPV4, h, &f, &hashed), vectors[i].without);
		assert_int_equal(rss_hash(k, NDIS_HASH_TCP_IPV6, h, &f, &hashed), 0);
		assert_false(hashed);
	}
	free(k);
}

static void test_hash_ipv6(void **state)
{
	static const uint8_t from[16] = { 0x3f, 0xfe, 0x25, 0x01, 0x02, 0x00, 0x1f, 0xff,
					  0,    0,    0,    0,    0,    0,    0,    7 };
	static const uint8_t to[16] = { 0x3f, 0xfe, 0x25, 0x01, 0x02, 0x00, 0x00, 0x03,
					0,    0,    0,    0,    0,    0,    0,    1 };
	uint8_t h[FRAME_HEADER_MAX] = { [12] = 0x86, [13] = 0xdd, [14] = 0x60, [20] = 6 };
	struct rss_key *k = malloc(sizeof(*k));
	struct frame f;
	bool hashed;

	(void)state;
	assert_non_null(k);
	rss_key_prepare(k, key);
	memcpy(h + 22, from, 16);
	memcpy(h + 38, to, 16);
	frame_put16(h + 54, 2794);
	frame_put16(h + 56, 1766);
	h[66] = 0x50;
	f = frame_parse(h, 74);
	assert_int_equal(rss_hash(k, NDIS_HASH_TCP_IPV6, h, &f, &hashed), 0x40207d3d);
	assert_int_equal(rss_hash(k, NDIS_HASH_IPV6, h, &f, &hashed), 0x2cc18cd5);
	free(k);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse),     cmocka_unit_test(test_parse_ipv6),
		cmocka_unit_test(test_checksums), cmocka_unit_test(test_hash),
		cmocka_unit_test(test_hash_ipv6),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
