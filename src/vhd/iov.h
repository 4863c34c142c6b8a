/* SPDX-License-Identifier: MIT */
/* Arithmetic on iovec arrays that are longer or shorter than what is wanted of them. */
#pragma once

#include "lib/types.h"

#include <sys/uio.h>

size_t iov_bytes(const struct iovec *iov, unsigned iovcnt);
/* How many entries of `out` iov_slice fills for the same arguments. */
unsigned iov_slice_count(const struct iovec *iov, unsigned iovcnt, size_t from, size_t length);
/* The part [from, from + length) of iov; returns the number of entries written to `out`. */
unsigned iov_slice(const struct iovec *iov, unsigned iovcnt, size_t from, size_t length,
		   struct iovec *out);
bool bytes_zero(const void *bytes, size_t n);
/* These three stop silently at the end of the array. */
void iov_zero(const struct iovec *iov, unsigned iovcnt, size_t from, size_t length);
void iov_put(const struct iovec *iov, unsigned iovcnt, size_t from, const void *src, size_t length);
void iov_get(const struct iovec *iov, unsigned iovcnt, size_t from, void *dst, size_t length);
