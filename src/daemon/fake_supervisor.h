/* SPDX-License-Identifier: MIT */
/*
 * For tests: supervisor.h without processes. Workers are what the test says that they are. A second
 * supervisor in the same process finds the workers of the first, as after a restart of the service.
 */
#pragma once

#include "daemon/supervisor.h"

void fake_reset(void);                                /* no workers, nothing refused */
void fake_refuse_starts(int code, const char *words); /* 0: no more */
void fake_limits_refused(int code);

unsigned fake_count(void); /* workers that run */
bool fake_runs(const char *id);
const char *fake_asked(const char *id);       /* the request that waits for an answer; "" none */
const char *fake_guest_asked(const char *id); /* the last; it is refused by itself */
/* Answers it: 0, or negative with the words. */
void fake_answer(const char *id, int result, const char *words);
void fake_state(const char *id, const char *state);
/* The target that it was last asked for and has not answered; 0: a query; -1: nothing. */
int64_t fake_memory_asked(const char *id);
void fake_memory_answer(const char *id, json_t *memory); /* taken over */
void fake_event(const char *id, json_t *event);          /* taken over */
void fake_end(const char *id, enum worker_end end, const char *words);
unsigned fake_kills(const char *id);
unsigned fake_save_cancels(const char *id);
struct worker_limits fake_limits(const char *id);
json_t *fake_description(const char *id); /* borrowed */
void fake_console(const char *path);      /* of all workers; borrowed; NULL: none */
void fake_memory(const char *id, uint64_t bytes);
/* A worker ends while no service runs. */
void fake_end_unseen(const char *id, enum worker_end end, const char *words);
/* One disappears without a trace. */
void fake_lose(const char *id);
