/* SPDX-License-Identifier: MIT */
/* CRC-32C (Castagnoli): the checksum of VHDX and of iSCSI. */
#pragma once

#include "lib/types.h"

/* Continues `crc`, which is 0 at the start: crc32c(crc32c(0, a), b) is the checksum of a and b. */
uint32_t crc32c(uint32_t crc, const void *data, size_t size);
/* The same without special instructions; crc32c chooses by itself. */
uint32_t crc32c_portable(uint32_t crc, const void *data, size_t size);
