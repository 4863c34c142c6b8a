// SPDX-License-Identifier: MIT
/*
 * Sets for people and tools: what one says, whether it is whole, and its structures as they stand
 * in the file. Everything is read at one moment, between two changes of the reservations, and with
 * no lock on other bytes: whoever opens the set meanwhile must not take us for one of its users.
 */
#include "vhd/vhdset.h"

#include "vhd/dump_tell.h"
#include "vhd/image.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct slot {
	bool valid;
	uint64_t change;
	struct reserve_state state;
};

struct look {
	uint8_t bytes[VHDSET_SIZE];
	size_t size;
	struct vhdset_info info;
	int head; /* 0, or why it is not valid, with words */
	struct error head_err;
	struct slot slots[2];
};

bool vhdset_is(int fd)
{
	char bytes[sizeof(VHDSET_SIGNATURE) - 1];
	struct stat st;

	return !fstat(fd, &st) && S_ISREG(st.st_mode) && st.st_size <= VHDSET_SIZE &&
	       pread(fd, bytes, sizeof(bytes), 0) == sizeof(bytes) &&
	       !memcmp(bytes, VHDSET_SIGNATURE, sizeof(bytes));
}

static int look_at(int fd, struct look *l, struct error *err)
{
	int r = reserve_file_read(fd, l->bytes, sizeof(l->bytes), &l->size);

	if (r < 0)
		return error_errno(err, r, "cannot read the set");
	memset(l->bytes + l->size, 0, sizeof(l->bytes) - l->size);
	l->head = l->size < VHDSET_HEAD
			  ? error_set(&l->head_err, -EINVAL,
				      "the set is cut off: it has only %zu bytes", l->size)
			  : vhdset_decode(l->bytes, &l->info, &l->head_err);
	for (unsigned n = 0; n < 2; n++) {
		struct slot *s = &l->slots[n];

		s->valid = reserve_slot_decode(l->bytes + RESERVE_SLOT(n), &s->state, &s->change) >=
				   0 &&
			   (s->change & 1) == n;
	}
	return 0;
}

/* The one that counts, or NULL. */
static const struct slot *newest(const struct look *l)
{
	const struct slot *a = &l->slots[0], *b = &l->slots[1];

	if (a->valid && b->valid)
		return a->change > b->change ? a : b;
	if (a->valid)
		return a;
	return b->valid ? b : NULL;
}

int vhdset_status(int fd, struct vhdset_status *ret, struct error *err)
{
	const struct slot *s;
	struct look l = { 0 };
	bool used;
	int r = look_at(fd, &l, err);

	if (r < 0)
		return r;
	if (l.head < 0)
		return error_set(err, l.head, "%s", l.head_err.message);
	s = newest(&l);
	if (!s)
		return error_set(err, -EINVAL,
				 "the set is damaged: neither of its two states is valid");
	r = vhdset_used(fd, &used);
	if (r < 0)
		return error_errno(err, r, "cannot find out who uses the set");
	*ret = (struct vhdset_status){ l.info, s->state, s->change, used };
	return 0;
}

/* --- check --- */

static bool zeros(const uint8_t *bytes, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (bytes[i])
			return false;
	return true;
}

int vhdset_check(int fd, struct check_report *report, struct error *err)
{
	struct look l = { 0 };
	int r = look_at(fd, &l, err);

	if (r < 0)
		return r;
	if (l.head < 0)
		check_found(report, CHECK_DAMAGE, "%s", l.head_err.message);
	if (l.size < VHDSET_SIZE && l.head >= 0)
		check_found(report, CHECK_DAMAGE, "the set is cut off: it has only %zu bytes",
			    l.size);
	if (!newest(&l))
		check_found(report, CHECK_DAMAGE,
			    "neither of the two states of the reservations is valid");
	for (unsigned n = 0; n < 2 && newest(&l); n++)
		if (!l.slots[n].valid && !zeros(l.bytes + RESERVE_SLOT(n), RESERVE_SLOT_SIZE))
			check_found(report, CHECK_NOTE,
				    "state %u is not whole: a change was cut off; the other counts",
				    n);
	return 0;
}

/* --- dump --- */

static void dump_key(struct dump *d, uint64_t key)
{
	char s[24];

	snprintf(s, sizeof(s), "0x%016llx", (unsigned long long)key);
	dump_text(d, "key", s);
}

static void dump_head(struct dump *d, const struct look *l)
{
	const struct vhdset_info *i = &l->info;

	dump_begin(d, "head", false);
	dump_text(d, "valid", l->head < 0 ? "no" : "yes");
	if (l->head < 0) {
		dump_damage(d, &l->head_err);
	} else {
		dump_guid(d, "id", &i->id);
		dump_text(d, "image", i->image);
		dump_text(d, "image_format", vhdset_format_name(i->format));
		dump_guid(d, "image_id", &i->image_id);
		dump_number(d, "image_size", i->image_size);
	}
	dump_end(d);
}

static void dump_nexus(struct dump *d, const struct reserve_nexus *n)
{
	static const char *const events[RESERVE_EVENTS] = {
		"reservations_preempted",
		"reservations_released",
		"registrations_preempted",
	};

	dump_begin(d, NULL, false);
	dump_guid(d, "initiator", &n->id);
	dump_key(d, n->key);
	for (unsigned e = 0; e < RESERVE_EVENTS; e++)
		dump_number(d, events[e], n->events[e]);
	dump_end(d);
}

static void dump_slot(struct dump *d, const struct slot *s, unsigned number, bool counts)
{
	dump_begin(d, NULL, false);
	dump_number(d, "offset", RESERVE_SLOT(number));
	dump_text(d, "valid", s->valid ? "yes" : "no");
	if (s->valid) {
		dump_text(d, "counts", counts ? "yes" : "no");
		dump_number(d, "change", s->change);
		dump_number(d, "generation", s->state.generation);
		dump_number(d, "type", s->state.type);
		dump_number(d, "holder", s->state.holder);
		dump_number(d, "aptpl", s->state.aptpl);
		dump_begin(d, "initiators", true);
		for (unsigned i = 0; i < RESERVE_NEXUS_MAX; i++)
			if (!guid_is_zero(&s->state.nexus[i].id))
				dump_nexus(d, &s->state.nexus[i]);
		dump_end(d);
	}
	dump_end(d);
}

int vhdset_dump(int fd, const struct dump_visitor *to, struct error *err)
{
	struct look l = { 0 };
	struct dump d = { .to = to };
	int r = look_at(fd, &l, err);

	if (r < 0)
		return r;
	dump_text(&d, "format", "set");
	dump_head(&d, &l);
	dump_begin(&d, "states", true);
	for (unsigned n = 0; n < 2; n++)
		dump_slot(&d, &l.slots[n], n, newest(&l) == &l.slots[n]);
	dump_end(&d);
	return 0;
}
