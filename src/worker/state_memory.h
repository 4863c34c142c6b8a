/* SPDX-License-Identifier: MIT */
/*
 * A state stream in a file, with guest memory in it: written and read through the loop's io_uring,
 * past the page cache where the file can, straight from and into guest memory. Memory lies in
 * pieces of up to 4 MiB, each with a bitmap of the pages that are there; the others are zeros. No
 * VP may run meanwhile. Event loop's thread.
 */
#pragma once

#include "event/loop.h"
#include "gmem/gmem.h"
#include "save/save.h"

struct state_file;

struct state_file_options {
	struct loop *loop;
	struct gmem *gm;
	int fd; /* borrowed */
	/* Now and then; 0..100. */
	void (*progress)(void *context, unsigned percent);
	/* Once, from the loop: 0, or a negative errno and words. -ECANCELED after a cancel. */
	void (*done)(void *context, int result, const struct error *err);
	void *context;
};

/*
 * Writes what `w` has, then all memory, then the end, and makes it durable. `w` is the state
 * file's from here on, also when this fails.
 */
int state_file_write(const struct state_file_options *options, struct save_writer *w,
		     struct state_file **ret, struct error *err) _must_check_;
/*
 * Reads the memory of a stream into RAM that is all zeros; `r` is borrowed until it is done. The
 * pieces are judged before the first is read.
 */
int state_file_read(const struct state_file_options *options, struct save_reader *r,
		    struct state_file **ret, struct error *err) _must_check_;
/* Ends it early; `done` comes when nothing is in flight any more. */
void state_file_cancel(struct state_file *f);
/* After `done`. NULL is fine. */
void state_file_free(struct state_file *f);
