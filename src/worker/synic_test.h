/* SPDX-License-Identifier: MIT */
/*
 * The SynIC test port that flat test kernels of others use (only with --test-devices): a dword
 * connection << 24 | command << 16 | vp << 8 | sint, written to port 0x3000. Message connections
 * echo what is posted to them to that SINT; event connections set the flag of their number there.
 */
#pragma once

#include "devices/legacy/pio.h"
#include "partition/partition.h"

#define SYNIC_TEST_PORT 0x3000

struct synic_test;

int synic_test_new(struct partition *p, struct synic_test **ret, struct error *err) _must_check_;
void synic_test_free(struct synic_test *t); /* NULL is fine */
void synic_test_reset(struct synic_test *t);
struct pio_device *synic_test_pio(struct synic_test *t);
