// SPDX-License-Identifier: MIT
/*
 * MC146818 real-time clock with 128 bytes of CMOS memory (Motorola MC146818 data sheet; the century
 * at 0x32 is the PC convention). Used from VP threads under one mutex.
 *
 * The clock is the host's plus an offset; a guest that sets the clock moves the offset. Alarm and
 * periodic interrupts do not exist: their enable bits can be set, their flags never appear. The
 * hour is always 0 to 23 and daylight saving is never applied; both mode bits read back so.
 */
#include "devices/legacy/rtc.h"

#include "lib/cleanup.h"
#include "save/save.h"

#include <errno.h>
#include <string.h>
#include <time.h>

enum {
	CMOS_SECONDS = 0,
	CMOS_MINUTES = 2,
	CMOS_HOURS = 4,
	CMOS_WEEKDAY = 6,
	CMOS_DAY = 7,
	CMOS_MONTH = 8,
	CMOS_YEAR = 9,
	CMOS_A = 10,
	CMOS_B = 11,
	CMOS_C = 12,
	CMOS_D = 13,
	CMOS_CENTURY = 0x32,
	CMOS_SIZE = 128,
};

#define A_UIP     BIT(7)
#define A_DEFAULT 0x26 /* 32768 Hz time base, 1024 Hz periodic rate */
#define B_SET     BIT(7)
#define B_PIE_AIE 0x60
#define B_UIE     BIT(4)
#define B_SQWE    BIT(3)
#define B_BINARY  BIT(2)
#define B_24H     BIT(1)
#define C_IRQF    BIT(7)
#define C_UF      BIT(4)
#define D_VALID   BIT(7)

#define SECOND         INT64_C(1000000000)
#define UPDATE_WARNING 244000 /* ns for which UIP is set before the registers change */

struct rtc {
	struct pio_device pio;
	struct rtc_config config;
	pthread_mutex_t lock;
	int64_t offset;      /* seconds, see rtc_config */
	int64_t seen_second; /* the last second whose end was reported in C */
	bool frozen;         /* B_SET: `fields` hold the time, which does not run */
	struct tm fields;
	uint8_t index;
	uint8_t cmos[CMOS_SIZE];
};

static int64_t host_now(const struct rtc *r)
{
	struct timespec ts;

	if (r->config.now)
		return r->config.now(r->config.context);
	clock_gettime(CLOCK_REALTIME, &ts);
	return ts.tv_sec * SECOND + ts.tv_nsec;
}

static int64_t floor_second(int64_t ns)
{
	return ns / SECOND - (ns % SECOND < 0);
}

static int64_t guest_second(const struct rtc *r)
{
	return floor_second(host_now(r)) + r->offset;
}

static struct tm time_now(const struct rtc *r)
{
	time_t second = guest_second(r);
	struct tm tm = { 0 };

	if (r->frozen)
		return r->fields;
	gmtime_r(&second, &tm);
	return tm;
}

/* Fields out of range carry over, as in mktime: any registers that a guest writes give some date.
 */
static void time_set(struct rtc *r, struct tm tm)
{
	tm.tm_isdst = 0;
	r->offset = timegm(&tm) - floor_second(host_now(r));
}

static uint8_t encode(const struct rtc *r, int value)
{
	unsigned v = (unsigned)value % 100;

	return (uint8_t)(r->cmos[CMOS_B] & B_BINARY ? v : v / 10 << 4 | v % 10);
}

static int decode(const struct rtc *r, uint8_t value)
{
	return r->cmos[CMOS_B] & B_BINARY ? value : (value >> 4) * 10 + (value & 15);
}

static int year_of(const struct tm *tm)
{
	return tm->tm_year + 1900;
}

static uint8_t time_read(const struct rtc *r, uint8_t index)
{
	struct tm tm = time_now(r);

	switch (index) {
	case CMOS_SECONDS:
		return encode(r, tm.tm_sec);
	case CMOS_MINUTES:
		return encode(r, tm.tm_min);
	case CMOS_HOURS:
		return encode(r, tm.tm_hour);
	case CMOS_WEEKDAY:
		return encode(r, tm.tm_wday + 1);
	case CMOS_DAY:
		return encode(r, tm.tm_mday);
	case CMOS_MONTH:
		return encode(r, tm.tm_mon + 1);
	case CMOS_YEAR:
		return encode(r, year_of(&tm));
	default:
		return encode(r, year_of(&tm) / 100);
	}
}

static void time_write(struct rtc *r, uint8_t index, uint8_t value)
{
	struct tm tm = time_now(r);
	int v = decode(r, value), year = year_of(&tm);

	switch (index) {
	case CMOS_SECONDS:
		tm.tm_sec = v;
		break;
	case CMOS_MINUTES:
		tm.tm_min = v;
		break;
	case CMOS_HOURS:
		tm.tm_hour = v;
		break;
	case CMOS_WEEKDAY: /* follows from the date */
		break;
	case CMOS_DAY:
		tm.tm_mday = v;
		break;
	case CMOS_MONTH:
		tm.tm_mon = v - 1;
		break;
	case CMOS_YEAR:
		tm.tm_year = year - year % 100 + v % 100 - 1900;
		break;
	default:
		tm.tm_year = v * 100 + year % 100 - 1900;
		break;
	}
	if (r->frozen)
		r->fields = tm;
	else
		time_set(r, tm);
}

static bool is_time(uint8_t index)
{
	switch (index) {
	case CMOS_SECONDS:
	case CMOS_MINUTES:
	case CMOS_HOURS:
	case CMOS_WEEKDAY:
	case CMOS_DAY:
	case CMOS_MONTH:
	case CMOS_YEAR:
	case CMOS_CENTURY:
		return true;
	default:
		return false;
	}
}

/* Leaving SET starts the clock from what the fields say. */
static void b_write(struct rtc *r, uint8_t value)
{
	bool freeze = value & B_SET;

	if (freeze && !r->frozen)
		r->fields = time_now(r);
	if (!freeze && r->frozen)
		time_set(r, r->fields);
	r->frozen = freeze;
	r->cmos[CMOS_B] = (value & (B_SET | B_PIE_AIE | B_UIE | B_SQWE | B_BINARY)) | B_24H;
	if (freeze)
		r->cmos[CMOS_B] &= (uint8_t)~B_UIE; /* as the data sheet has it */
}

static uint8_t a_read(const struct rtc *r)
{
	int64_t phase = host_now(r) % SECOND;
	bool soon = phase >= SECOND - UPDATE_WARNING;

	return r->cmos[CMOS_A] | (soon && !r->frozen ? A_UIP : 0);
}

/* Reading it clears it. */
static uint8_t c_read(struct rtc *r)
{
	int64_t second = guest_second(r);
	uint8_t flags = 0;

	if (!r->frozen && second != r->seen_second) {
		flags |= C_UF;
		if (r->cmos[CMOS_B] & B_UIE)
			flags |= C_IRQF;
	}
	r->seen_second = second;
	return flags;
}

static uint8_t cmos_read(struct rtc *r)
{
	uint8_t i = r->index;

	if (is_time(i))
		return time_read(r, i);
	if (i == CMOS_A)
		return a_read(r);
	if (i == CMOS_C)
		return c_read(r);
	return i == CMOS_D ? D_VALID : r->cmos[i];
}

static void cmos_write(struct rtc *r, uint8_t value)
{
	uint8_t i = r->index;

	if (is_time(i))
		time_write(r, i, value);
	else if (i == CMOS_A)
		r->cmos[i] = value & (uint8_t)~A_UIP;
	else if (i == CMOS_B)
		b_write(r, value);
	else if (i != CMOS_C && i != CMOS_D)
		r->cmos[i] = value;
}

/* Port 0x70 is for writing; bit 7 there masks NMIs on a PC and nothing here. */
static uint32_t rtc_read(struct pio_device *d, uint16_t offset, unsigned size)
{
	struct rtc *r = container_of(d, struct rtc, pio);

	(void)size;
	LOCK_SCOPE(&r->lock);
	return offset ? cmos_read(r) : 0xff;
}

static void rtc_write(struct pio_device *d, uint16_t offset, unsigned size, uint32_t value)
{
	struct rtc *r = container_of(d, struct rtc, pio);

	(void)size;
	LOCK_SCOPE(&r->lock);
	if (offset)
		cmos_write(r, (uint8_t)value);
	else
		r->index = value & (CMOS_SIZE - 1);
}

void rtc_reset(struct rtc *r)
{
	LOCK_SCOPE(&r->lock);
	b_write(r, r->cmos[CMOS_B] & B_BINARY);
	r->index = CMOS_D;
	r->seen_second = guest_second(r);
}

/* --- saved state --- */

/* The clock itself is the host's: it has gone on when the machine is restored. */
struct saved_rtc {
	uint64_t offset; /* a signed number of seconds */
	bool frozen;
	uint32_t year, month, day, hour, minute, second; /* while frozen, as struct tm has them */
	uint8_t index;
	uint8_t cmos[CMOS_SIZE];
};

/* clang-format off */
#define RTC(name) SAVE_FIELD(struct saved_rtc, name)
static const struct save_field rtc_fields[] = {
	RTC(offset), RTC(frozen), RTC(year), RTC(month), RTC(day), RTC(hour), RTC(minute),
	RTC(second), RTC(index),
	SAVE_BYTES(struct saved_rtc, cmos),
};
/* clang-format on */
static const struct save_table rtc_table = SAVE_TABLE("rtc", 1, struct saved_rtc, rtc_fields);

void rtc_save(struct rtc *r, struct save_writer *w)
{
	struct saved_rtc s;

	LOCK_SCOPE(&r->lock);
	s = (struct saved_rtc){
		.offset = (uint64_t)r->offset,
		.frozen = r->frozen,
		.year = (uint32_t)r->fields.tm_year,
		.month = (uint32_t)r->fields.tm_mon,
		.day = (uint32_t)r->fields.tm_mday,
		.hour = (uint32_t)r->fields.tm_hour,
		.minute = (uint32_t)r->fields.tm_min,
		.second = (uint32_t)r->fields.tm_sec,
		.index = r->index,
	};
	memcpy(s.cmos, r->cmos, sizeof(s.cmos));
	save_put(w, &rtc_table, &s);
}

/* What a guest can write, and sums that do not overflow. */
static bool saved_valid(const struct saved_rtc *s)
{
	const int64_t far = INT64_C(1) << 40, offset = (int64_t)s->offset;

	return s->index < CMOS_SIZE && offset > -far && offset < far && s->year < 10000 &&
	       s->month < 256 && s->day < 256 && s->hour < 256 && s->minute < 256 &&
	       s->second < 256;
}

int rtc_restore(struct rtc *r, struct save_reader *reader, struct error *err)
{
	struct saved_rtc s;
	int n = save_get(reader, &rtc_table, &s, err);

	if (n < 0)
		return n;
	if (!saved_valid(&s))
		return error_set(err, -EBADMSG, "rtc: a clock like that does not exist");
	LOCK_SCOPE(&r->lock);
	r->offset = (int64_t)s.offset;
	r->frozen = s.frozen;
	r->fields = (struct tm){ .tm_year = (int)s.year,
				 .tm_mon = (int)s.month,
				 .tm_mday = (int)s.day,
				 .tm_hour = (int)s.hour,
				 .tm_min = (int)s.minute,
				 .tm_sec = (int)s.second };
	r->index = s.index;
	memcpy(r->cmos, s.cmos, sizeof(r->cmos));
	r->seen_second = guest_second(r);
	return 0;
}

struct pio_device *rtc_pio(struct rtc *r)
{
	return &r->pio;
}

int64_t rtc_offset(struct rtc *r)
{
	LOCK_SCOPE(&r->lock);
	return r->offset;
}

int rtc_new(const struct rtc_config *config, struct rtc **ret, struct error *err)
{
	struct rtc *r = calloc(1, sizeof(*r));

	if (!r)
		return error_set(err, -ENOMEM, "out of memory");
	r->config = *config;
	r->offset = config->offset;
	r->pio = (struct pio_device){
		.name = "rtc",
		.base = RTC_PORT,
		.length = 2,
		.read = rtc_read,
		.write = rtc_write,
	};
	r->cmos[CMOS_A] = A_DEFAULT;
	r->cmos[CMOS_B] = B_24H;
	pthread_mutex_init(&r->lock, NULL);
	rtc_reset(r);
	*ret = r;
	return 0;
}

void rtc_free(struct rtc *r)
{
	if (!r)
		return;
	pthread_mutex_destroy(&r->lock);
	free(r);
}
