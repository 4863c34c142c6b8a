/* SPDX-License-Identifier: MIT */
/* The test groups, in the order in which they run; the kernel's command line picks some. */
#pragma once

void group_cpuid(void);
void group_msr(void);
void group_hypercall(void);
void group_synic(void);
void group_timer(void);
void group_contact(void);
void group_storage(void);
void group_hostile(void);
void group_leave(void); /* only when named */

/* power.c: ends the machine in one of many ways; returns when there is no such way. */
void power(const char *how);
