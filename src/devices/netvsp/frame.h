/* SPDX-License-Identifier: MIT */
/*
 * Headers of an Ethernet frame, in private memory: where they are, checksums over them, the hash
 * for receive scaling. Pure functions over bytes that anybody may have sent.
 */
#pragma once

#include "lib/types.h"

/*
 * What is copied of each frame before it is looked at: Ethernet, two VLAN tags, the longest IPv4
 * and TCP headers. Headers beyond that are not understood, which costs the frame its offloads.
 */
#define FRAME_HEADER_MAX 144u
#define FRAME_MAC_SIZE   6u
#define FRAME_ETHERNET   14u
#define FRAME_VLAN       4u

enum frame_protocol {
	FRAME_OTHER,
	FRAME_TCP,
	FRAME_UDP,
};

struct frame {
	uint8_t ip;               /* 4, 6, or 0 */
	uint8_t protocol;         /* enum frame_protocol; OTHER for later fragments */
	uint16_t l3, l4;          /* where IP and TCP or UDP begin */
	uint16_t payload;         /* where TCP's or UDP's data begins; 0 = unknown */
	uint16_t checksum_offset; /* of TCP or UDP, from l4 */
};

/* `size` bytes of the frame's beginning. What is not understood stays 0. */
struct frame frame_parse(const uint8_t *header, size_t size);

/* The sum of Internet checksums (RFC 1071), of bytes that begin at an even place; not folded. */
uint64_t frame_sum(const void *data, size_t size);
uint16_t frame_fold(uint64_t sum);
/* Of TCP's or UDP's pseudo header with `length` bytes of both (RFC 793 3.1, RFC 8200 8.1). */
uint64_t frame_pseudo_sum(const uint8_t *header, const struct frame *f, uint32_t length);
/* Writes the IPv4 header's checksum; whether it is right. f->ip is 4. */
void frame_ip_checksum(uint8_t *header, const struct frame *f);
bool frame_ip_checksum_good(const uint8_t *header, const struct frame *f);

uint16_t frame_get16(const uint8_t *p);
void frame_put16(uint8_t *p, uint16_t v);

/*
 * Toeplitz hashes (Windows driver documentation, "RSS Hashing Functions") with a key that is
 * prepared once: the hash of a byte at a place.
 */
#define RSS_INPUT_MAX 36u /* two IPv6 addresses and two ports */
struct rss_key {
	uint32_t hash[RSS_INPUT_MAX][256];
};
void rss_key_prepare(struct rss_key *k, const uint8_t key[static RSS_INPUT_MAX + 4]);
/* `types` are NDIS_HASH_*; 0 and *ret_hashed false when the frame is none of them. */
uint32_t rss_hash(const struct rss_key *k, uint32_t types, const uint8_t *header,
		  const struct frame *f, bool *ret_hashed);
