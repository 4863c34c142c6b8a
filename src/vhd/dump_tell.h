/* SPDX-License-Identifier: MIT */
/* For those who tell a visitor what is in an image (dump.h). */
#pragma once

#include "lib/error.h"
#include "lib/guid.h"
#include "vhd/dump.h"

struct dump {
	const struct dump_visitor *to;
	struct store *s;
	bool all_blocks;
};

static inline void dump_begin(struct dump *d, const char *name, bool list)
{
	d->to->begin(d->to->context, name, list);
}

static inline void dump_end(struct dump *d)
{
	d->to->end(d->to->context);
}

static inline void dump_number(struct dump *d, const char *name, uint64_t value)
{
	d->to->number(d->to->context, name, value);
}

static inline void dump_text(struct dump *d, const char *name, const char *value)
{
	d->to->text(d->to->context, name, value);
}

static inline void dump_guid(struct dump *d, const char *name, const struct guid *g)
{
	char s[GUID_TEXT_SIZE];

	dump_text(d, name, guid_format(g, s));
}

static inline void dump_damage(struct dump *d, const struct error *why)
{
	dump_text(d, "damage", why->message);
}
