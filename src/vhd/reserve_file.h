/* SPDX-License-Identifier: MIT */
/*
 * Reservations in a file that several openers share, in one process or many: the part of a set
 * (docs/vhd-set.md) that changes. Each opener is one initiator. A change is durable before it is
 * acknowledged; others see it before their next command. Locks are open file description locks,
 * on bytes behind the content. One event loop's thread for each opener.
 */
#pragma once

#include "lib/error.h"
#include "vhd/reserve.h"

#define RESERVE_SLOT_SIZE 4096u
#define RESERVE_SLOT(n)   (4096u * (1 + (n))) /* n = 0, 1: where in the file */

/* A slot decoded: -EINVAL when it is not valid (torn, never written, or not ours). */
int reserve_slot_decode(const void *bytes, struct reserve_state *ret, uint64_t *ret_change);
void reserve_slot_encode(const struct reserve_state *s, uint64_t change, void *bytes);

/* Where the file is; tests cut the power with one in memory. Blocking, never short. */
struct reserve_medium {
	int (*read)(struct reserve_medium *m, void *buf, size_t n, uint64_t offset);
	int (*write)(struct reserve_medium *m, const void *buf, size_t n, uint64_t offset);
	int (*sync)(struct reserve_medium *m);
};
/* The newer of the two valid slots; -EINVAL when neither is. */
int reserve_medium_load(struct reserve_medium *m, struct reserve_state *ret, uint64_t *ret_change);
/* Makes `s` the newest state, durably, where `change` was it. */
int reserve_medium_store(struct reserve_medium *m, const struct reserve_state *s, uint64_t change);

/*
 * The first bytes of the file between two changes, `n` or what there is, for those who only look;
 * `fd` may be open for reading only.
 */
int reserve_file_read(int fd, void *buf, size_t n, size_t *ret_size) _must_check_;

struct reserve_file;

/* The byte of an image that this initiator locks as long as it has it open (store.h). */
int64_t reserve_file_byte(const struct guid *initiator);

/*
 * On the open files of a set and of its image (both O_RDWR), which stay the caller's; another
 * opener may not use dups of them. `initiator` must be nobody else's: -EBUSY with words when it is
 * open already.
 */
int reserve_file_open(int fd, int image_fd, const struct guid *initiator, struct reserve_file **ret,
		      struct error *err) _must_check_;
void reserve_file_close(struct reserve_file *f); /* NULL is fine */

/*
 * Sees what others have done meanwhile. One small read when that is nothing; -EBUSY when another
 * opener is in the middle of a change for longer than a second.
 */
int reserve_file_refresh(struct reserve_file *f);
/* As of the last refresh or change; borrowed. */
const struct reserve_state *reserve_file_state(const struct reserve_file *f);
const struct guid *reserve_file_initiator(const struct reserve_file *f);
/* The next event that this initiator has not been told of, or RESERVE_EVENTS; the next call goes
 * on. */
enum reserve_event reserve_file_event(struct reserve_file *f);

/* Changes the state, durably. 0 and what became of it, or a negative errno: it may have changed. */
int reserve_file_apply(struct reserve_file *f, const struct reserve_request *request,
		       enum reserve_result *ret) _must_check_;

/*
 * Commands under way. A preempted initiator may have commands on their way to the image that were
 * allowed when they began. Each such command is between enter and leave; `*ret_fence` is for
 * leave. -EAGAIN: the state changed just now, ask reserve_conflicts again; -EBUSY: commands of too
 * many earlier states are under way.
 */
int reserve_file_enter(struct reserve_file *f, unsigned *ret_fence);
void reserve_file_leave(struct reserve_file *f, unsigned fence);
/* Counts the changes of the state. */
uint64_t reserve_file_change(const struct reserve_file *f);
/*
 * Whether no other opener has a command under way that was allowed before that change: 1, 0 or
 * -errno. Also true of openers that were killed: what the kernel still writes for them counts.
 */
int reserve_file_quiet(struct reserve_file *f, uint64_t change);
