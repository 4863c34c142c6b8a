/* SPDX-License-Identifier: MIT */
/* For tests: a disk beside a plain array, and random requests that must agree with it. */
#pragma once

#include "vhd/disk.h"

#define MODEL_REQUESTS 8

struct model_request {
	struct disk_request req;
	struct iovec iov;
	uint8_t *buf;
	struct model *m;
	bool busy;
};

struct model {
	struct disk *d;
	uint8_t *expect;
	uint64_t size;
	uint32_t sector;
	unsigned seed;
	unsigned busy;
	struct model_request requests[MODEL_REQUESTS];
};

/* A random number below `below`. */
uint64_t model_pick(struct model *m, uint64_t below);
/* Perhaps submits a random request; `block` = what to make whole ones of. Checks what is read. */
void model_step(struct model *m, uint64_t block);
/* The `done` of a model's requests, for tests that submit some themselves. */
void model_request_done(struct disk_request *req, int result);
/* Waits until nothing is under way. */
void model_settle(struct model *m);
/* Reads all of the disk. */
void model_compare(struct model *m);
