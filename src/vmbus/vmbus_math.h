/* SPDX-License-Identifier: MIT */
/*
 * The arithmetic on numbers that a guest writes: ring indices and page ranges. Pure functions with
 * their contracts, which tools/prove checks with Frama-C (no overflow, no index outside the ring)
 * and math_test.c checks exhaustively over small sizes.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define VMBUS_PAGE_SIZE 4096u

/*@ assigns \nothing;
  @ ensures \result <==> (index < size && index % 8 == 0); */
static inline bool ring_index_valid(uint32_t index, uint32_t size)
{
	return index < size && index % 8 == 0;
}

/* Bytes between the read index `out` and the write index `in`. */
/*@ requires in < size && out < size;
  @ assigns \nothing;
  @ ensures \result < size;
  @ ensures in >= out ==> \result == in - out;
  @ ensures in < out ==> \result == size - out + in; */
static inline uint32_t ring_used(uint32_t in, uint32_t out, uint32_t size)
{
	return in >= out ? in - out : size - (out - in);
}

/* The index `bytes` further, around the end. */
/*@ requires index < size && bytes <= size;
  @ assigns \nothing;
  @ ensures \result < size;
  @ ensures index + bytes < size ==> \result == index + bytes;
  @ ensures index + bytes >= size ==> \result == index + bytes - size; */
static inline uint32_t ring_advance(uint32_t index, uint32_t bytes, uint32_t size)
{
	return bytes >= size - index ? bytes - (size - index) : index + bytes;
}

/* Pages that `bytes` from `offset` in the first page touch. */
/*@ requires offset < 4096;
  @ assigns \nothing;
  @ ensures \result * 4096 >= offset + bytes;
  @ ensures \result * 4096 < offset + bytes + 4096; */
static inline uint64_t range_pages(uint32_t bytes, uint32_t offset)
{
	return ((uint64_t)offset + bytes + (VMBUS_PAGE_SIZE - 1)) / VMBUS_PAGE_SIZE;
}

/* Whether page number `pfn` can be turned into an address. */
/*@ assigns \nothing;
  @ ensures \result ==> pfn * 4096 <= 18446744073709551615; */
static inline bool pfn_addressable(uint64_t pfn)
{
	return pfn <= UINT64_MAX / VMBUS_PAGE_SIZE;
}
