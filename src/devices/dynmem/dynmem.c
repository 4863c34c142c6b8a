// SPDX-License-Identifier: MIT
/*
 * The host's side of the dynamic memory protocol (dynmem_proto.h). Owned by the worker's machine,
 * runs on the event loop's thread.
 *
 * Flow: the guest asks for a version and reports what it can; each is answered at once, since it
 * waits five seconds. Then one request at a time brings what it has nearer to the target: a balloon
 * request, an unballoon request of as many messages as needed, or memory that is added. A guest may
 * take as long as it wants to answer and may refuse; then it is asked again later, less and less
 * often. It reports what it needs whenever it likes.
 *
 * Nothing that a guest says is believed: a message is checked whole before it counts, pages are
 * taken only if they are RAM that it has and not given already, and no more than were asked for.
 * Pages go back to the host in slices, a slice in each round of the loop, and nothing is received
 * meanwhile, so a guest can neither keep the loop busy nor pile up work. What it gave away and
 * touches again is its own empty page: it can take back what it gave, never more than it has.
 */
#include "devices/dynmem/dynmem.h"

#include "devices/dynmem/dynmem_pages.h"
#include "devices/dynmem/dynmem_proto.h"
#include "save/save.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#define PAGE GMEM_PAGE_SIZE
#define UNIT (2 * MIB / PAGE) /* Linux warns unless requests are multiples (hv_balloon.c) */
/* The most that Windows gives at once; asked for more it gives nothing (QEMU hv-balloon.c). */
#define BALLOON_MOST (585728 / UNIT * UNIT)
#define HOT_ADD_MOST (2 * GIB / PAGE)   /* at once, as QEMU does */
#define BLOCK_LEAST  (128 * MIB / PAGE) /* blocks up to this fit behind any maximum (memmap.c) */
#define SECOND       UINT64_C(1000000000)
/* Windows Server 2019 crashes when it is asked before; Linux and FreeBSD need no time. */
#define SETTLE       (50 * SECOND)
#define PAUSE_LEAST  (10 * SECOND) /* after a refusal; doubled each time, */
#define PAUSE_MOST   (320 * SECOND)
#define ROUND_BUDGET 64                /* packets in a round of the loop */
#define SLICE        (64 * MIB / PAGE) /* given back in a round: some milliseconds */
#define MAX_RANGES   (VMBUS_MAX_PACKET / sizeof(uint64_t))
#define SEND_RANGES  255u /* in one message: Linux receives into 4 KiB */

/* HV_X64_MSR_GUEST_OS_ID, TLFS 2.6: open source, and then its type */
#define GUEST_OS_OPEN_SOURCE BIT64(63)
#define GUEST_OS_TYPE(id)    ((id) >> 56 & 0x7f)
#define GUEST_OS_LINUX       1
#define GUEST_OS_FREEBSD     2

enum dynmem_state {
	DM_CLOSED,
	DM_VERSION,
	DM_CAPABILITIES,
	DM_SETTLING,
	DM_IDLE,
	DM_BALLOONING,
	DM_UNBALLOONING, /* messages are to be sent */
	DM_UNBALLOONED,  /* all are; the answer is to come */
	DM_ADDING,
};

static const char *const state_names[] = {
	[DM_CLOSED] = "absent",
	[DM_VERSION] = "starting",
	[DM_CAPABILITIES] = "starting",
	[DM_SETTLING] = "settling",
	[DM_IDLE] = "idle",
	[DM_BALLOONING] = "ballooning",
	[DM_UNBALLOONING] = "returning",
	[DM_UNBALLOONED] = "returning",
	[DM_ADDING] = "adding",
};

struct page_range {
	uint64_t page, count;
};

struct dynmem {
	struct loop *loop;
	struct dynmem_options options;
	struct vmbus_channel *ch;
	struct loop_task run;
	struct loop_timer
		wake; /* something becomes due, or there is more to do in the next round */
	bool broken;  /* the ring is */
	bool paused;  /* while it is saved or restored */

	enum dynmem_state state;
	uint32_t version;
	uint64_t caps, max_page;
	bool info_due;
	bool unsettled; /* the target has not been reached since it was set */
	bool no_adding; /* the guest has said that it never will */

	/* Pages */
	uint64_t base, most, target, hot_added;
	struct dynmem_pages ballooned;

	/* The request under way */
	uint32_t trans_id;
	uint64_t asked, got;
	bool last_answer;
	uint64_t shrink_at, grow_at, pause; /* ns of the loop's clock: not before */

	/* Pages on their way back to the host */
	struct page_range pending[MAX_RANGES];
	unsigned pending_count, pending_at;

	struct dm_status report;
	struct dynmem_status counters;
};

static uint64_t assigned(const struct dynmem *d)
{
	return d->base + d->hot_added - d->ballooned.count;
}

static void tell(struct dynmem *d, enum dynmem_event event)
{
	if (d->options.event)
		d->options.event(d->options.context, event);
}

static void wake_at(struct dynmem *d, uint64_t when)
{
	if (!d->wake.deadline || when < d->wake.deadline)
		loop_timer_arm(&d->wake, when);
}

static void next_round(struct dynmem *d)
{
	wake_at(d, loop_now(d->loop) + 1);
}

/* --- sending --- */

static struct dm_header header_of(const struct dynmem *d, enum dm_message_type type, size_t size)
{
	return (struct dm_header){ .type = le16_of((uint16_t)type),
				   .size = le16_of((uint16_t)size),
				   .trans_id = le32_of(d->trans_id) };
}

/* False when there is no room (the guest's next signal runs us again), or never will be. */
static bool send_message(struct dynmem *d, const void *message, size_t size)
{
	if (d->broken || !vmbus_can_send(d->ch, size))
		return false;
	if (vmbus_send(d->ch, VMBUS_PACKET_INBAND, 0, message, size) < 0)
		d->broken = true;
	return !d->broken;
}

static void send_accept(struct dynmem *d, enum dm_message_type type, const struct dm_header *asked,
			bool accept)
{
	struct dm_accept_response m = { .hdr = header_of(d, type, sizeof(m)),
					.is_accepted = le64_of(accept) };

	m.hdr.trans_id = asked->trans_id;
	(void)send_message(d, &m, sizeof(m)); /* there is room: see may_receive */
}

static void send_info(struct dynmem *d)
{
	struct dm_info_max_page_cnt m = {
		.hdr = header_of(d, DM_INFO_MESSAGE, sizeof(m)),
		.info_size = le32_of(16),
		.info_type = le32_of(INFO_TYPE_MAX_PAGE_CNT),
		.data_size = le32_of(sizeof(m.max_page_cnt)),
		.max_page_cnt = le64_of(d->most),
	};

	if (send_message(d, &m, sizeof(m)))
		d->info_due = false;
}

/* --- what the guest says --- */

static void pause_shrinking(struct dynmem *d)
{
	d->pause = MIN(MAX(d->pause * 2, PAUSE_LEAST), PAUSE_MOST);
	d->shrink_at = loop_now(d->loop) + d->pause;
	d->counters.refusals++;
	tell(d, DYNMEM_SHRINK_REFUSED);
}

static bool on_version(struct dynmem *d, const void *message)
{
	const struct dm_version_request *m = message;
	static const uint32_t known[] = { DYNMEM_PROTOCOL_VERSION_1, DYNMEM_PROTOCOL_VERSION_2,
					  DYNMEM_PROTOCOL_VERSION_3 };
	uint32_t version = le32_get(m->version);
	bool accept = false;

	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		accept = accept || (version == known[i] && version <= d->options.max_version);
	if (accept) {
		d->version = version;
		d->state = DM_CAPABILITIES;
	}
	send_accept(d, DM_VERSION_RESPONSE, &m->hdr, accept);
	return true;
}

static uint64_t settle_time(const struct dynmem *d)
{
	uint64_t id = d->options.guest_os ? d->options.guest_os(d->options.context) : 0;

	if (id & GUEST_OS_OPEN_SOURCE &&
	    (GUEST_OS_TYPE(id) == GUEST_OS_LINUX || GUEST_OS_TYPE(id) == GUEST_OS_FREEBSD))
		return 0;
	return SETTLE;
}

static bool on_capabilities(struct dynmem *d, const void *message)
{
	const struct dm_capabilities *m = message;
	uint64_t settle = settle_time(d);

	d->caps = le64_get(m->caps);
	d->max_page = le64_get(m->max_page_number);
	d->no_adding = d->hot_added % UNIT;
	d->info_due = d->version >= DYNMEM_PROTOCOL_VERSION_2;
	d->state = settle ? DM_SETTLING : DM_IDLE;
	d->shrink_at = d->grow_at = loop_now(d->loop) + settle;
	if (settle)
		wake_at(d, d->shrink_at);
	send_accept(d, DM_CAPABILITIES_RESPONSE, &m->hdr, true);
	tell(d, DYNMEM_READY);
	return true;
}

static bool on_report(struct dynmem *d, const void *message)
{
	memcpy(&d->report, message, sizeof(d->report));
	d->counters.reported = true;
	d->counters.report_time = loop_now(d->loop);
	tell(d, DYNMEM_REPORTED);
	return true;
}

/* Whether all of these pages are the guest's: RAM from the start, or added since. */
static bool are_ram(const struct dynmem *d, uint64_t page, uint64_t count)
{
	size_t n;
	const struct gmem_range *r = gmem_ranges(d->options.gm, &n);

	for (size_t i = 0; i < n && count; i++) {
		uint64_t first = r[i].gpa / PAGE, size = r[i].size / PAGE;

		if (d->options.grow_most && r[i].gpa == d->options.grow_gpa)
			size = MIN(size, d->hot_added);
		if (page < first || page - first >= size)
			continue;
		size = MIN(count, size - (page - first));
		page += size, count -= size;
	}
	return !count;
}

static bool take_ranges(struct dynmem *d, struct reader *r, unsigned count)
{
	uint64_t total = 0;

	for (unsigned i = 0; i < count; i++) {
		uint64_t range = reader_le64(r);
		struct page_range p = { DM_RANGE_PAGE(range), DM_RANGE_COUNT(range) };

		if (!p.count)
			continue;
		if (p.count > d->asked - d->got - total || !are_ram(d, p.page, p.count) ||
		    dynmem_pages_any(&d->ballooned, p.page, p.count))
			return false;
		dynmem_pages_add(&d->ballooned, p.page, p.count);
		d->pending[d->pending_count++] = p;
		total += p.count;
	}
	d->got += total;
	return true;
}

/* A bad message gives nothing: the guest has lost these pages, or never had them. */
static bool on_balloon_response(struct dynmem *d, const void *message)
{
	const struct dm_balloon_response *m = message;
	size_t bytes = le16_get(m->hdr.size) - sizeof(*m);
	struct reader r = reader_of(m->range_array, bytes);
	uint32_t word = le32_get(m->more_and_count), count = word >> 1;
	bool good = count <= bytes / sizeof(uint64_t) && count <= MAX_RANGES &&
		    take_ranges(d, &r, count);

	if (!good)
		while (d->pending_count) {
			struct page_range *p = &d->pending[--d->pending_count];

			dynmem_pages_remove(&d->ballooned, p->page, p->count);
		}
	d->last_answer = !(word & 1);
	d->pending_at = 0;
	return good;
}

static bool on_unballoon_response(struct dynmem *d, const void *message)
{
	(void)message;
	d->state = DM_IDLE;
	tell(d, DYNMEM_CHANGED);
	return true;
}

static bool on_hot_add_response(struct dynmem *d, const void *message)
{
	const struct dm_hot_add_response *m = message;
	uint64_t count = le32_get(m->page_count);
	bool good = count <= d->asked;

	count = MIN(count, d->asked);
	d->hot_added += count;
	d->state = DM_IDLE;
	/* What is not whole units would be in the way of all that comes after. */
	d->no_adding = count % UNIT || (!count && le32_get(m->result));
	if (count < d->asked) {
		d->counters.refusals++;
		d->grow_at = loop_now(d->loop) + 3 * PAUSE_LEAST;
		tell(d, DYNMEM_GROW_REFUSED);
	}
	if (count)
		tell(d, DYNMEM_CHANGED);
	return good;
}

static const struct message_type {
	uint16_t type;
	uint16_t size; /* at least */
	unsigned states;
	bool (*handle)(struct dynmem *d, const void *message); /* false: a bad one */
} message_types[] = {
	{ DM_VERSION_REQUEST, sizeof(struct dm_version_request), BIT(DM_VERSION), on_version },
	{ DM_CAPABILITIES_REPORT, sizeof(struct dm_capabilities), BIT(DM_CAPABILITIES),
	  on_capabilities },
	{ DM_STATUS_REPORT, sizeof(struct dm_status), ~(BIT(DM_VERSION) | BIT(DM_CAPABILITIES)),
	  on_report },
	{ DM_BALLOON_RESPONSE, sizeof(struct dm_balloon_response), BIT(DM_BALLOONING),
	  on_balloon_response },
	{ DM_UNBALLOON_RESPONSE, sizeof(struct dm_header), BIT(DM_UNBALLOONED),
	  on_unballoon_response },
	{ DM_MEM_HOT_ADD_RESPONSE, sizeof(struct dm_hot_add_response), BIT(DM_ADDING),
	  on_hot_add_response },
};

static bool on_message(struct dynmem *d, const struct vmbus_packet *packet)
{
	struct dm_header h;

	if (packet->type != VMBUS_PACKET_INBAND || packet->size < sizeof(h))
		return false;
	memcpy(&h, packet->payload, sizeof(h));
	if (le16_get(h.size) > packet->size)
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(message_types); i++) {
		const struct message_type *t = &message_types[i];

		if (t->type == le16_get(h.type))
			return le16_get(h.size) >= t->size && t->states & BIT(d->state) &&
			       t->handle(d, packet->payload);
	}
	return false;
}

/* --- giving pages back to the host --- */

static void balloon_finish(struct dynmem *d)
{
	d->state = DM_IDLE;
	d->last_answer = false;
	if (d->got)
		tell(d, DYNMEM_CHANGED);
	if (d->got < d->asked)
		pause_shrinking(d);
	else
		d->pause = 0;
}

/* Neighbours are one: the kernel works on whole runs. */
static struct page_range pending_take(struct dynmem *d, uint64_t most)
{
	struct page_range *p = &d->pending[d->pending_at], run = *p;

	if (run.count > most) {
		p->page += most, p->count -= most;
		run.count = most;
		return run;
	}
	while (++d->pending_at < d->pending_count) {
		p = &d->pending[d->pending_at];
		if (run.count + p->count > most)
			break;
		if (p->page == run.page + run.count)
			run.count += p->count;
		else if (p->page + p->count == run.page)
			run = (struct page_range){ p->page, run.count + p->count };
		else
			break;
	}
	return run;
}

static void give_back(struct dynmem *d)
{
	uint64_t left = SLICE;

	while (d->pending_at < d->pending_count && left) {
		struct page_range run = pending_take(d, left);

		if (gmem_discard(d->options.gm, run.page * PAGE, run.count * PAGE) < 0)
			d->counters.discard_failures++;
		left -= run.count;
	}
	if (d->pending_at < d->pending_count) {
		next_round(d);
		return;
	}
	d->pending_count = d->pending_at = 0;
	if (d->state == DM_BALLOONING && d->last_answer)
		balloon_finish(d);
}

/* --- towards the target --- */

static void shrink(struct dynmem *d)
{
	uint64_t n = round_down64(MIN(assigned(d) - d->target, BALLOON_MOST), UNIT);
	struct dm_balloon m = { .num_pages = le32_of((uint32_t)n) };

	d->trans_id++;
	m.hdr = header_of(d, DM_BALLOON_REQUEST, sizeof(m));
	if (!send_message(d, &m, sizeof(m)))
		return;
	d->state = DM_BALLOONING;
	d->asked = n;
	d->got = 0;
	d->last_answer = false;
	d->counters.requests++;
}

static void unballoon_begin(struct dynmem *d)
{
	d->asked = MIN(d->target - assigned(d), d->ballooned.count);
	d->trans_id++;
	d->state = DM_UNBALLOONING;
	d->counters.requests++;
}

static void unballoon(struct dynmem *d)
{
	struct {
		struct dm_unballoon_request head;
		le64 ranges[SEND_RANGES];
	} m;

	while (d->state == DM_UNBALLOONING && vmbus_can_send(d->ch, sizeof(m)) && !d->broken) {
		uint32_t n = 0;
		uint64_t page, count;
		size_t size;

		while (n < SEND_RANGES && d->asked &&
		       dynmem_pages_pop(&d->ballooned, MIN(d->asked, DM_RANGE_MAX_COUNT), &page,
					&count)) {
			m.ranges[n++] = le64_of(DM_RANGE(page, count));
			d->asked -= count;
		}
		size = sizeof(m.head) + n * sizeof(m.ranges[0]);
		m.head = (struct dm_unballoon_request){
			.hdr = header_of(d, DM_UNBALLOON_REQUEST, size),
			.more_pages = le32_of(d->asked > 0),
			.range_count = le32_of(n),
		};
		if (!d->asked)
			d->state = DM_UNBALLOONED;
		(void)send_message(d, &m, size);
	}
}

/* Pages of a block of memory, of which a guest adds whole ones only. */
static uint64_t block_pages(const struct dynmem *d)
{
	return MAX((MIB << DM_CAPS_HOT_ADD_ALIGN(d->caps)) / PAGE, UNIT);
}

/*
 * How much to add now. A guest with large blocks makes use of whole ones only, as there may be
 * something else right behind the maximum.
 */
static uint64_t grow_pages(const struct dynmem *d)
{
	uint64_t block = block_pages(d), room = d->options.grow_most / PAGE;
	uint64_t start = d->options.grow_gpa / PAGE + d->hot_added, n;

	if (!(d->caps & DM_CAPS_HOT_ADD) || d->no_adding || d->max_page < start ||
	    d->options.grow_gpa / PAGE % block)
		return 0;
	room = round_down64(room, block > BLOCK_LEAST ? block : UNIT);
	if (room <= d->hot_added)
		return 0;
	n = round_up64(d->target - assigned(d), UNIT);
	n = MIN(MIN(n, room - d->hot_added), HOT_ADD_MOST);
	if (d->max_page - start < n)
		n = round_down64(d->max_page - start + 1, UNIT);
	return n;
}

static void grow_failed(struct dynmem *d)
{
	d->counters.refusals++;
	d->grow_at = loop_now(d->loop) + 3 * PAUSE_LEAST;
	wake_at(d, d->grow_at);
	tell(d, DYNMEM_GROW_REFUSED);
}

/* The part of a block that is added first comes with the whole as its region; the rest follows. */
static void grow(struct dynmem *d, uint64_t n)
{
	uint64_t start = d->options.grow_gpa / PAGE + d->hot_added, block = block_pages(d);
	bool region = start % block == 0 && n % block && d->version >= DYNMEM_PROTOCOL_VERSION_2;
	size_t size = region ? DM_HOT_ADD_REGION_SIZE : DM_HOT_ADD_SIZE;
	struct dm_hot_add m = { .range = le64_of(DM_RANGE(start, n)),
				.region = le64_of(DM_RANGE(start, round_up64(n, block))) };

	if (!vmbus_can_send(d->ch, size))
		return;
	if (d->options.grow(d->options.context, (d->hot_added + n) * PAGE) < 0) {
		grow_failed(d);
		return;
	}
	d->trans_id++;
	m.hdr = header_of(d, DM_MEM_HOT_ADD_REQUEST, size);
	if (!send_message(d, &m, size))
		return;
	d->state = DM_ADDING;
	d->asked = n;
	d->counters.requests++;
}

static void reached(struct dynmem *d)
{
	if (d->unsettled)
		tell(d, DYNMEM_REACHED);
	d->unsettled = false;
}

static void towards_target(struct dynmem *d)
{
	uint64_t now = loop_now(d->loop), has = assigned(d), n;

	if (has > d->target && has - d->target >= UNIT && d->caps & DM_CAPS_BALLOON) {
		if (now < d->shrink_at)
			wake_at(d, d->shrink_at);
		else
			shrink(d);
	} else if (has < d->target && d->ballooned.count) {
		unballoon_begin(d);
		unballoon(d);
	} else if (has < d->target && (n = grow_pages(d))) {
		if (now < d->grow_at)
			wake_at(d, d->grow_at);
		else
			grow(d, n);
	} else {
		reached(d);
	}
}

/* --- the channel --- */

/* Only while it could be answered, and while nothing waits to go back to the host. */
static bool may_receive(struct dynmem *d)
{
	return !d->broken && !d->pending_count &&
	       vmbus_can_send(d->ch, sizeof(struct dm_accept_response));
}

static void receive(struct dynmem *d)
{
	struct vmbus_packet packet;

	for (unsigned n = 0; may_receive(d); n++) {
		int r;

		if (n == ROUND_BUDGET) {
			next_round(d);
			return;
		}
		r = vmbus_receive(d->ch, &packet);
		d->broken = r < 0;
		if (r <= 0)
			return;
		if (!on_message(d, &packet))
			d->counters.bad_messages++;
		if (d->pending_count || d->last_answer)
			give_back(d);
	}
}

static void run(struct dynmem *d)
{
	if (!d->ch || d->paused)
		return;
	if (d->pending_count || d->last_answer)
		give_back(d);
	receive(d);
	if (d->broken || d->pending_count)
		return;
	if (d->info_due)
		send_info(d);
	if (d->state == DM_SETTLING && loop_now(d->loop) >= d->shrink_at)
		d->state = DM_IDLE;
	else if (d->state == DM_SETTLING)
		wake_at(d, d->shrink_at);
	if (d->state == DM_UNBALLOONING)
		unballoon(d);
	if (d->state == DM_IDLE && !d->info_due)
		towards_target(d);
}

static void on_run(struct loop_task *t)
{
	run(container_of(t, struct dynmem, run));
}

static void on_wake(struct loop_timer *t)
{
	run(container_of(t, struct dynmem, wake));
}

/* Whoever drives the guest next has, as far as it knows, all the memory that there is. */
static void forget(struct dynmem *d)
{
	d->state = DM_CLOSED;
	d->version = 0;
	d->caps = d->max_page = 0;
	d->info_due = d->last_answer = false;
	d->pending_count = d->pending_at = 0;
	d->shrink_at = d->grow_at = d->pause = 0;
	d->counters.reported = false;
	dynmem_pages_clear(&d->ballooned);
}

static int dynmem_open(void *device, struct vmbus_channel *ch)
{
	struct dynmem *d = device;

	if (d->ch)
		return -EBUSY;
	d->ch = ch;
	d->paused = vmbus_channel_restoring(ch);
	d->broken = false;
	d->state = DM_VERSION;
	return 0;
}

static void dynmem_close(void *device, struct vmbus_channel *ch)
{
	struct dynmem *d = device;

	d->ch = NULL;
	loop_cancel(d->loop, &d->run);
	loop_timer_disarm(&d->wake);
	forget(d);
	tell(d, DYNMEM_GONE);
	vmbus_channel_closed(ch);
}

static void dynmem_signal(void *device, struct vmbus_channel *ch)
{
	(void)ch;
	run(device);
}

/* The machine takes back what was added (gmem_shrink); so it starts with what it had. */
static void dynmem_reset(void *device)
{
	struct dynmem *d = device;

	forget(d);
	d->hot_added = 0;
	d->unsettled = true;
}

/* --- saved state --- */

struct saved_driver {
	uint8_t state; /* enum dynmem_state */
	uint32_t version, trans_id;
	uint64_t caps, max_page;
	bool info_due, no_adding, last_answer;
	uint64_t target, hot_added, asked, got;
};

static const struct save_field driver_fields[] = {
	SAVE_FIELD(struct saved_driver, state),     SAVE_FIELD(struct saved_driver, version),
	SAVE_FIELD(struct saved_driver, trans_id),  SAVE_FIELD(struct saved_driver, caps),
	SAVE_FIELD(struct saved_driver, max_page),  SAVE_FIELD(struct saved_driver, info_due),
	SAVE_FIELD(struct saved_driver, no_adding), SAVE_FIELD(struct saved_driver, last_answer),
	SAVE_FIELD(struct saved_driver, target),    SAVE_FIELD(struct saved_driver, hot_added),
	SAVE_FIELD(struct saved_driver, asked),     SAVE_FIELD(struct saved_driver, got),
};
static const struct save_table driver_table =
	SAVE_TABLE("dynmem.driver", 1, struct saved_driver, driver_fields);

/* Pages that the guest has given away, as ranges; as many records as it takes. */
struct saved_pages {
	uint16_t count;
	uint64_t page[512], pages[512];
};

static const struct save_field pages_fields[] = {
	SAVE_COUNTED(struct saved_pages, page, count),
	SAVE_ARRAY(struct saved_pages, pages),
};
static const struct save_table pages_table =
	SAVE_TABLE("dynmem.pages", 1, struct saved_pages, pages_fields);

/* What is on its way to the host counts as given, and holds zeros or what nobody looks at. */
static void dynmem_pause(void *device, struct vmbus_channel *primary)
{
	struct dynmem *d = device;

	d->paused = true;
	loop_timer_disarm(&d->wake);
	vmbus_device_paused(primary);
}

static void dynmem_resume(void *device)
{
	struct dynmem *d = device;

	d->paused = false;
	loop_defer(d->loop, &d->run);
}

static int dynmem_save(void *device, struct save_writer *w, struct error *err)
{
	const struct dynmem *d = device;
	const struct saved_driver s = {
		.state = (uint8_t)d->state,
		.version = d->version,
		.trans_id = d->trans_id,
		.caps = d->caps,
		.max_page = d->max_page,
		.info_due = d->info_due,
		.no_adding = d->no_adding,
		.last_answer = d->last_answer,
		.target = d->target,
		.hot_added = d->hot_added,
		.asked = d->asked,
		.got = d->got,
	};
	struct saved_pages p = { 0 };
	uint64_t page = 0, count = 0;

	(void)err;
	save_put(w, &driver_table, &s);
	while (dynmem_pages_find(&d->ballooned, page + count, UINT64_MAX, &page, &count)) {
		p.page[p.count] = page;
		p.pages[p.count++] = count;
		if (p.count == ARRAY_SIZE(p.page)) {
			save_put(w, &pages_table, &p);
			p.count = 0;
		}
	}
	if (p.count)
		save_put(w, &pages_table, &p);
	return 0;
}

static bool driver_makes_sense(const struct dynmem *d, const struct saved_driver *s)
{
	uint64_t room = d->most - d->base;

	return s->state <= DM_ADDING && (s->state != DM_CLOSED) == (d->ch != NULL) &&
	       s->version <= DYNMEM_PROTOCOL_VERSION_3 && s->target <= d->most &&
	       s->hot_added <= room && s->got <= s->asked && s->asked <= d->most &&
	       (s->state != DM_ADDING || s->asked <= room - s->hot_added) &&
	       gmem_contains(d->options.gm, d->options.grow_gpa, s->hot_added * PAGE);
}

static int restore_pages(struct dynmem *d, struct save_reader *r, struct error *err)
{
	struct saved_pages p;
	int n;

	while ((n = save_next(r, &pages_table, &p, err)) > 0)
		for (unsigned i = 0; i < p.count; i++) {
			if (!p.pages[i] || !range_inside(p.page[i], p.pages[i], d->ballooned.end) ||
			    !are_ram(d, p.page[i], p.pages[i]) ||
			    dynmem_pages_any(&d->ballooned, p.page[i], p.pages[i]))
				return error_set(err, -EBADMSG,
						 "pages that the guest cannot have given away");
			dynmem_pages_add(&d->ballooned, p.page[i], p.pages[i]);
		}
	return n;
}

static int dynmem_restore(void *device, struct save_reader *r, struct error *err)
{
	struct dynmem *d = device;
	struct saved_driver s;
	uint64_t now = loop_now(d->loop);
	int n = save_get(r, &driver_table, &s, err);

	if (n < 0)
		return n;
	if (!driver_makes_sense(d, &s))
		return error_set(err, -EBADMSG, "a state of the driver that does not exist");
	d->state = s.state;
	d->version = s.version;
	d->trans_id = s.trans_id;
	d->caps = s.caps;
	d->max_page = s.max_page;
	d->info_due = s.info_due;
	d->no_adding = s.no_adding;
	d->last_answer = s.last_answer && s.state == DM_BALLOONING;
	d->target = s.target;
	d->hot_added = s.hot_added;
	d->asked = s.asked;
	d->got = s.got;
	d->unsettled = true;
	d->shrink_at = d->grow_at = now + (s.state == DM_SETTLING ? SETTLE : 0);
	n = restore_pages(d, r, err);
	if (n >= 0 && d->state == DM_UNBALLOONING && d->asked > d->ballooned.count)
		n = error_set(err, -EBADMSG, "more pages to return than were given");
	return n;
}

/* --- the device --- */

int dynmem_set_target(struct dynmem *d, uint64_t bytes, struct error *err)
{
	if (bytes > d->most * PAGE)
		return error_set(err, -ERANGE,
				 "the machine can have %llu MiB of memory at most, not %llu MiB",
				 (unsigned long long)(d->most * PAGE / MIB),
				 (unsigned long long)(bytes / MIB));
	d->target = MIN(round_up64(bytes, 2 * MIB) / PAGE, d->most);
	d->unsettled = true;
	loop_defer(d->loop, &d->run);
	return 0;
}

/* What is in use by either measure: promised to programs, or taken. */
static uint64_t demand(const struct dynmem *d)
{
	uint64_t committed = le64_get(d->report.num_committed), has = assigned(d);
	uint64_t available = MIN(le64_get(d->report.num_avail), has);

	committed -= MIN(committed, d->ballooned.count);
	return MIN(MAX(committed, has - available), UINT64_MAX / PAGE);
}

struct dynmem_status dynmem_status(const struct dynmem *d)
{
	struct dynmem_status s = d->counters;

	s.state = state_names[d->state];
	s.version = d->version;
	s.can_balloon = d->caps & DM_CAPS_BALLOON;
	s.can_hot_add = d->caps & DM_CAPS_HOT_ADD && !d->no_adding && d->options.grow_most;
	s.target = d->target * PAGE;
	s.assigned = assigned(d) * PAGE;
	s.ballooned = d->ballooned.count * PAGE;
	s.hot_added = d->hot_added * PAGE;
	s.most = d->most * PAGE;
	if (!s.reported)
		return s;
	s.available = MIN(le64_get(d->report.num_avail), UINT64_MAX / PAGE) * PAGE;
	s.committed = MIN(le64_get(d->report.num_committed), UINT64_MAX / PAGE) * PAGE;
	s.demand = demand(d) * PAGE;
	return s;
}

static uint64_t last_page(const struct gmem *gm)
{
	size_t n;
	const struct gmem_range *r = gmem_ranges(gm, &n);

	return (r[n - 1].gpa + MAX(r[n - 1].size, r[n - 1].most)) / PAGE;
}

int dynmem_new(struct loop *loop, const struct dynmem_options *options, struct dynmem **ret,
	       struct error *err)
{
	struct dynmem *d = calloc(1, sizeof(*d));

	if (!d)
		return error_set(err, -ENOMEM, "out of memory");
	d->loop = loop;
	d->options = *options;
	if (!d->options.max_version)
		d->options.max_version = DYNMEM_PROTOCOL_VERSION_3;
	d->base = d->target = options->base / PAGE;
	d->most = d->base + options->grow_most / PAGE;
	loop_task_init(&d->run, on_run);
	loop_timer_init(loop, &d->wake, on_wake);
	if (dynmem_pages_init(&d->ballooned, last_page(options->gm)) < 0) {
		free(d);
		return error_set(err, -ENOMEM, "out of memory");
	}
	*ret = d;
	return 0;
}

void dynmem_free(struct dynmem *d)
{
	if (!d)
		return;
	assert(!d->ch);
	loop_cancel(d->loop, &d->run);
	loop_timer_disarm(&d->wake);
	dynmem_pages_deinit(&d->ballooned);
	free(d);
}

const struct guid dynmem_instance =
	GUID(0x1eccfd72, 0x4b41, 0x45ef, 0xb7, 0x3a, 0x4a, 0x6e, 0x44, 0xc1, 0x29, 0x24);

const struct vmbus_device_type dynmem_type = {
	.name = "dynmem",
	.interface =
		GUID(0x525074dc, 0x8985, 0x46e2, 0x80, 0x57, 0xa3, 0x07, 0xdc, 0x18, 0xa5, 0x02),
	.open = dynmem_open,
	.close = dynmem_close,
	.signal = dynmem_signal,
	.reset = dynmem_reset,
	.pause = dynmem_pause,
	.save = dynmem_save,
	.restore = dynmem_restore,
	.resume = dynmem_resume,
};
