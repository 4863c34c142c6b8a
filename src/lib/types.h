/* SPDX-License-Identifier: MIT */
/*
 * Integers as they lie in wire and disk formats: one-field structs, so that reading one without
 * converting it does not compile. Also the small macros that every file needs.
 */
#pragma once

#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ARRAY_SIZE(a)                   (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b)                       ((a) < (b) ? (a) : (b))
#define MAX(a, b)                       ((a) > (b) ? (a) : (b))
#define BIT(n)                          (1u << (n))
#define BIT64(n)                        (UINT64_C(1) << (n))
#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))
#define KIB                             UINT64_C(1024)
#define MIB                             (UINT64_C(1024) * KIB)
#define GIB                             (UINT64_C(1024) * MIB)
#define TIB                             (UINT64_C(1024) * GIB)

typedef struct {
	uint16_t raw;
} le16;
typedef struct {
	uint32_t raw;
} le32;
typedef struct {
	uint64_t raw;
} le64;
typedef struct {
	uint16_t raw;
} be16;
typedef struct {
	uint32_t raw;
} be32;
typedef struct {
	uint64_t raw;
} be64;

#define DEFINE_ENDIAN_(order, bits)                                                                \
	static inline uint##bits##_t order##bits##_get(order##bits v)                              \
	{                                                                                          \
		return order##bits##toh(v.raw);                                                    \
	}                                                                                          \
	static inline order##bits order##bits##_of(uint##bits##_t v)                               \
	{                                                                                          \
		return (order##bits){ hto##order##bits(v) };                                       \
	}

DEFINE_ENDIAN_(le, 16)
DEFINE_ENDIAN_(le, 32)
DEFINE_ENDIAN_(le, 64)
DEFINE_ENDIAN_(be, 16)
DEFINE_ENDIAN_(be, 32)
DEFINE_ENDIAN_(be, 64)

/* Rounding of unsigned 64-bit values to a power of two; round_up wraps like all unsigned sums. */
static inline uint64_t round_down64(uint64_t v, uint64_t align)
{
	return v & ~(align - 1);
}

static inline uint64_t round_up64(uint64_t v, uint64_t align)
{
	return (v + align - 1) & ~(align - 1);
}

static inline bool is_power_of_2(uint64_t v)
{
	return v && !(v & (v - 1));
}

/* True when a + b (or a * b) does not fit; *ret is valid only when it does. */
#define add_overflow(a, b, ret) __builtin_add_overflow(a, b, ret)
#define mul_overflow(a, b, ret) __builtin_mul_overflow(a, b, ret)

/* True when [offset, offset + length) lies inside [0, size). */
static inline bool range_inside(uint64_t offset, uint64_t length, uint64_t size)
{
	return offset <= size && length <= size - offset;
}
