/* SPDX-License-Identifier: MIT */
/* For tests of VHD images: what they share. What fails here fails the test. */
#pragma once

#include "vhd/image.h"
#include "vhd/store_memory.h"

/* The loop of all stores here; the test makes and frees it. */
extern struct loop *vhdtest_loop;
/* 8 MiB in blocks of 512 KiB. */
extern const struct vhd_create_options vhdtest_small;

struct check_report vhdtest_report_of(struct store *s);
unsigned vhdtest_damage_in(struct store *s);
struct store *vhdtest_new_store(uint64_t size_max, unsigned shuffle);
struct disk *vhdtest_open_ok(struct store *s);
void vhdtest_close_ok(struct disk *d);
void vhdtest_create_ok(struct store *s, const struct vhd_create_options *o);
struct store *vhdtest_small_image(void);
void vhdtest_put(struct store *s, uint64_t offset, const void *bytes, size_t n);
void vhdtest_put32(struct store *s, uint64_t offset, uint32_t value);
void vhdtest_put64(struct store *s, uint64_t offset, uint64_t value);
void vhdtest_footers_resign(struct store *s);
void vhdtest_header_resign(struct store *s);
