/* SPDX-License-Identifier: MIT */
/*
 * System-call filters: what a process may still do when it begins to work on bytes of a stranger.
 * Each program has a table of its own; what any process needs (its allocator, its end) is in here.
 */
#pragma once

#include "lib/error.h"
#include "lib/types.h"

/* A sanitizer has findings to tell, and wants more than filters allow: then they are left out. */
#if defined(__SANITIZE_ADDRESS__)
#define SANDBOX_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANDBOX_SANITIZED 1
#endif
#endif
#ifndef SANDBOX_SANITIZED
#define SANDBOX_SANITIZED 0
#endif

/* Allowed when (argument & mask) == value. */
struct sandbox_rule {
	int call;
	unsigned argument; /* counted from 0 */
	uint64_t mask, value;
};

struct sandbox {
	const int *calls; /* allowed with any arguments */
	size_t call_count;
	const struct sandbox_rule *rules;
	size_t rule_count;
};

/*
 * For the whole process, threads that exist included, and for ever: no new privileges, and only
 * the system calls of the table and those that the C library needs; any other kills the process.
 * What is open stays usable; no memory becomes executable.
 */
int sandbox_enter(const struct sandbox *s, struct error *err) _must_check_;

/* For ever: no capabilities, those of the ambient set included, and no core files. */
int sandbox_drop_capabilities(struct error *err) _must_check_;
