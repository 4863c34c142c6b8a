/* SPDX-License-Identifier: MIT */
/* The real-time clock and CMOS memory of a PC, at ports 0x70 and 0x71. It raises no interrupts. */
#pragma once

#include "devices/legacy/pio.h"

#define RTC_PORT 0x70

struct rtc;
struct save_writer; /* save/save.h */
struct save_reader;

struct rtc_config {
	int64_t offset;                /* seconds that the guest's clock is ahead of UTC */
	int64_t (*now)(void *context); /* ns since 1970 in UTC; NULL = CLOCK_REALTIME */
	void *context;
};

int rtc_new(const struct rtc_config *config, struct rtc **ret, struct error *err) _must_check_;
void rtc_free(struct rtc *r);  /* NULL is fine */
void rtc_reset(struct rtc *r); /* time and CMOS stay, as a battery would keep them */
/* While no VP runs. */
void rtc_save(struct rtc *r, struct save_writer *w);
int rtc_restore(struct rtc *r, struct save_reader *reader, struct error *err) _must_check_;
struct pio_device *rtc_pio(struct rtc *r);
/* Any thread. What the guest has set: to be stored with the machine and given to rtc_new. */
int64_t rtc_offset(struct rtc *r);
