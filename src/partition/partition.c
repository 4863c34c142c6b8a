// SPDX-License-Identifier: MIT
/*
 * The partition: VPs with their SynICs, the hypercalls that an engine hands up, and the ports
 * behind connection ids. A VP thread never does a device's work: what a guest posts is copied once
 * into the inbox, and the event loop's thread hands it to the port.
 */
#include "partition/partition.h"

#include "lib/cleanup.h"
#include "partition/hint.h"
#include "partition/internal.h"
#include "partition/state.h"

#include <errno.h>
#include <string.h>

struct engine_partition *partition_engine(struct partition *p)
{
	return p->engine;
}

unsigned partition_vp_count(const struct partition *p)
{
	return p->vp_count;
}

struct gmem *partition_gmem(const struct partition *p)
{
	return p->gm;
}

struct loop *partition_loop(const struct partition *p)
{
	return p->loop;
}

uint64_t partition_exits(const struct partition *p)
{
	return atomic_load(&p->exits);
}

uint64_t partition_guest_os(const struct partition *p)
{
	return atomic_load(&p->guest_os);
}

uint64_t partition_hinted(const struct partition *p)
{
	return atomic_load(&p->hinted);
}

int partition_reference_time(struct partition *p, uint64_t *ret)
{
	return p->engine->engine->reference_time(p->engine, ret);
}

/* --- ports --- */

void partition_port_open(struct partition *p, struct partition_port *port)
{
	LOCK_SCOPE(&p->lock);
	list_append(&p->ports, &port->node);
}

void partition_port_close(struct partition *p, struct partition_port *port)
{
	LOCK_SCOPE(&p->lock);
	list_remove(&port->node);
}

int partition_event_open(struct partition *p, struct partition_event *event)
{
	int r = p->engine->engine->bind_connection(p->engine, event->connection_id, event->eventfd);

	if (r < 0)
		return r;
	LOCK_SCOPE(&p->lock);
	list_append(&p->events, &event->node);
	return 0;
}

void partition_event_close(struct partition *p, struct partition_event *event)
{
	if (event->eventfd >= 0)
		p->engine->engine->bind_connection(p->engine, event->connection_id, -1);
	LOCK_SCOPE(&p->lock);
	list_remove(&event->node);
}

static struct partition_port *port_find(struct partition *p, uint32_t connection_id)
{
	list_foreach(it, &p->ports)
	{
		struct partition_port *port = list_entry(it, struct partition_port, node);

		if (port->connection_id == connection_id)
			return port;
	}
	return NULL;
}

/* --- messages from the guest --- */

static bool inbox_take(struct partition *p, struct inbox_message *ret, struct partition_port **port)
{
	LOCK_SCOPE(&p->lock);
	if (!p->inbox_count)
		return false;
	*ret = p->inbox[p->inbox_head];
	p->inbox_head = (p->inbox_head + 1) % INBOX_LENGTH;
	p->inbox_count--;
	*port = port_find(p, ret->connection_id);
	return true;
}

static void inbox_run(struct loop_task *task)
{
	struct partition *p = container_of(task, struct partition, inbox_task);
	struct partition_port *port;
	struct inbox_message m;

	while (inbox_take(p, &m, &port))
		if (port)
			port->message(port, m.type, m.payload, m.size);
}

void partition_drain(struct partition *p)
{
	inbox_run(&p->inbox_task);
}

static hv_status inbox_put(struct partition *p, const struct hv_input_post_message *input)
{
	uint32_t type = le32_get(input->message_type), size = le32_get(input->payload_size);
	struct inbox_message *m;

	if (type == HV_MESSAGE_NONE || type & HV_MESSAGE_TYPE_HYPERVISOR ||
	    size > HV_MESSAGE_PAYLOAD_SIZE)
		return HV_STATUS_INVALID_PARAMETER;
	LOCK_SCOPE(&p->lock);
	if (!port_find(p, le32_get(input->connection_id)))
		return HV_STATUS_INVALID_CONNECTION_ID;
	if (p->inbox_count == INBOX_LENGTH)
		return HV_STATUS_INSUFFICIENT_BUFFERS;
	m = &p->inbox[(p->inbox_head + p->inbox_count++) % INBOX_LENGTH];
	m->connection_id = le32_get(input->connection_id);
	m->type = type;
	m->size = size;
	memcpy(m->payload, input->payload, sizeof(m->payload));
	return HV_STATUS_SUCCESS;
}

hv_status partition_hv_post_message(struct partition *p, unsigned vp, uint64_t input)
{
	struct hv_input_post_message copy;
	hv_status status;

	(void)vp;
	/* TLFS 3.7.3: aligned to 8, and within a page. */
	if (input % 8 || input % GMEM_PAGE_SIZE > GMEM_PAGE_SIZE - sizeof(copy))
		return HV_STATUS_INVALID_ALIGNMENT;
	if (gmem_read(p->gm, input, &copy, sizeof(copy)) < 0)
		return HV_STATUS_INVALID_PARAMETER;
	status = inbox_put(p, &copy);
	if (!status.value)
		loop_post(p->loop, &p->inbox_task);
	return status;
}

/* --- hypercalls --- */

static hv_status call_post_message(struct partition *p, unsigned vp, const struct vp_exit *x)
{
	uint64_t id;

	if (x->hypercall.control & HV_HYPERCALL_FAST)
		return HV_STATUS_INVALID_HYPERCALL_INPUT;
	/* Only this thread may ask, and messages are few. */
	if (!p->engine->engine->vp_get_msr(p->engine, vp, HV_X64_MSR_GUEST_OS_ID, &id))
		atomic_store(&p->guest_os, id);
	return partition_hv_post_message(p, vp, x->hypercall.input);
}

static hv_status call_ext_query(struct partition *p, unsigned vp, const struct vp_exit *x)
{
	(void)vp;
	return p->cold_hints ? hint_query(p->gm, x) : HV_STATUS_INVALID_HYPERCALL_CODE;
}

static hv_status call_heat_hint(struct partition *p, unsigned vp, const struct vp_exit *x)
{
	uint64_t bytes;
	hv_status status;

	(void)vp;
	if (!p->cold_hints)
		return HV_STATUS_INVALID_HYPERCALL_CODE;
	status = hint_discard(p->gm, x, &bytes);
	atomic_fetch_add(&p->hinted, bytes);
	return status;
}

static hv_status signal_event(struct partition_event *e)
{
	uint64_t one = 1;

	if (e->eventfd < 0)
		e->signalled(e);
	else if (write(e->eventfd, &one, sizeof(one)) < 0)
		return HV_STATUS_INSUFFICIENT_BUFFERS;
	return HV_STATUS_SUCCESS;
}

/* Only signals that the engine could not route by itself come here. */
static hv_status call_signal_event(struct partition *p, unsigned vp, const struct vp_exit *x)
{
	uint64_t input = x->hypercall.input;
	uint8_t bytes[8];

	(void)vp;
	if (!(x->hypercall.control & HV_HYPERCALL_FAST)) {
		if (input % 8)
			return HV_STATUS_INVALID_ALIGNMENT;
		if (gmem_read(p->gm, input, bytes, sizeof(bytes)) < 0)
			return HV_STATUS_INVALID_PARAMETER;
		memcpy(&input, bytes, sizeof(input));
	}
	LOCK_SCOPE(&p->lock);
	list_foreach(it, &p->events)
	{
		struct partition_event *e = list_entry(it, struct partition_event, node);

		if (e->connection_id != (uint32_t)input)
			continue;
		if (input >> 32) /* ports with one flag: number 0 only */
			return HV_STATUS_INVALID_PARAMETER;
		return signal_event(e);
	}
	return HV_STATUS_INVALID_CONNECTION_ID;
}

static const struct {
	uint16_t code;
	hv_status (*handler)(struct partition *p, unsigned vp, const struct vp_exit *x);
} hypercalls[] = {
	{ HVCALL_POST_MESSAGE, call_post_message },
	{ HVCALL_SIGNAL_EVENT, call_signal_event },
	{ HVCALL_EXT_QUERY, call_ext_query },
	{ HVCALL_EXT_HEAT_HINT, call_heat_hint },
};

static void hypercall(struct partition *p, unsigned vp, const struct vp_exit *x)
{
	hv_status status = HV_STATUS_INVALID_HYPERCALL_CODE;

	for (size_t i = 0; i < ARRAY_SIZE(hypercalls); i++)
		if (hypercalls[i].code == HV_HYPERCALL_CODE(x->hypercall.control))
			status = hypercalls[i].handler(p, vp, x);
	*x->hypercall.result = status.value;
	/* A repeated call is done whole, or not at all. */
	if (!status.value)
		*x->hypercall.result |=
			HV_HYPERCALL_REPS_DONE(HV_HYPERCALL_REP_COUNT(x->hypercall.control));
}

/* --- VPs --- */

/* An overlay page starts as zeros (TLFS 5.2.1); in RAM of the guest's own it is our doing. */
static void page_enabled(struct partition *p, uint64_t before, uint64_t now)
{
	if (now & 1 && before != now)
		(void)!gmem_fill(p->gm, now & HV_PAGE_ADDRESS_MASK, 0, GMEM_PAGE_SIZE);
}

void partition_vp_synic(struct partition *p, unsigned vp, uint64_t control, uint64_t simp,
			uint64_t siefp)
{
	struct synic *s = &p->synics[vp];

	page_enabled(p, atomic_load(&s->simp), simp);
	page_enabled(p, atomic_load(&s->siefp), siefp);
	atomic_store(&s->control, control);
	atomic_store(&s->simp, simp);
	atomic_store(&s->siefp, siefp);
}

void partition_vp_deliver(struct partition *p, unsigned vp)
{
	uint16_t raise = synic_deliver(&p->synics[vp], p->gm);

	for (unsigned sint = 0; raise; sint++, raise >>= 1)
		if (raise & 1)
			p->engine->engine->sint_raise(p->engine, vp, sint);
}

void partition_vp_run(struct partition *p, unsigned vp, struct vp_exit *ret)
{
	for (;;) {
		p->engine->engine->vp_run(p->engine, vp, ret);
		atomic_fetch_add_explicit(&p->exits, 1, memory_order_relaxed);
		switch (ret->kind) {
		case VP_EXIT_HYPERCALL:
			hypercall(p, vp, ret);
			break;
		case VP_EXIT_SYNIC:
			partition_vp_synic(p, vp, ret->synic.control, ret->synic.simp,
					   ret->synic.siefp);
			partition_vp_deliver(p, vp);
			break;
		case VP_EXIT_EOM:
			partition_vp_deliver(p, vp);
			break;
		case VP_EXIT_INTERRUPTED:
			partition_vp_deliver(p, vp);
			return;
		case VP_EXIT_PIO:
		case VP_EXIT_MMIO:
		case VP_EXIT_IOAPIC_EOI:
		case VP_EXIT_CRASH:
		case VP_EXIT_RESET:
		case VP_EXIT_TRIPLE_FAULT:
		case VP_EXIT_ERROR:
			return;
		}
	}
}

/* --- messages and events to the guest --- */

int partition_post_message(struct partition *p, unsigned vp, unsigned sint, uint32_t type,
			   const void *payload, size_t size)
{
	int r;

	if (vp >= p->vp_count || sint >= HV_SYNIC_SINT_COUNT || size > HV_MESSAGE_PAYLOAD_SIZE)
		return -EINVAL;
	r = synic_queue(&p->synics[vp], sint, type, payload, size);
	if (!r)
		p->engine->engine->vp_kick(p->engine, vp);
	return r;
}

int partition_signal_event(struct partition *p, unsigned vp, unsigned sint, unsigned flag)
{
	int r;

	if (vp >= p->vp_count || sint >= HV_SYNIC_SINT_COUNT || flag >= HV_EVENT_FLAGS_COUNT)
		return -EINVAL;
	r = synic_set_flag(&p->synics[vp], p->gm, sint, flag);
	if (r <= 0)
		return r;
	return p->engine->engine->sint_raise(p->engine, vp, sint);
}

/* --- life --- */

int partition_set_cpuid(struct partition *p, struct error *err)
{
	_cleanup_free_ struct cpuid_list *list = calloc(1, sizeof(*list));
	int r = list ? 0 : error_set(err, -ENOMEM, "out of memory");

	for (unsigned vp = 0; vp < p->vp_count && !r; vp++) {
		r = partition_cpuid(&p->cpuid, vp, p->vp_count, list);
		if (r < 0)
			return error_set(err, r, "too many CPUID leaves");
		r = p->engine->engine->vp_set_cpuid(p->engine, vp, list, err);
	}
	return r;
}

static int partition_init(struct partition *p, const struct partition_options *o, struct error *err)
{
	/* Later nothing can be opened any more, which both want. */
	int r = o->engine->probe(&p->capabilities, err);

	if (r >= 0)
		r = o->engine->supported_cpuid(&p->cpuid, err);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < p->cpuid.count && !o->cold_hints; i++)
		if (p->cpuid.entries[i].function == HV_CPUID_FEATURES)
			p->cpuid.entries[i].ebx &= ~HV_EXTENDED_HYPERCALLS;
	r = o->engine->create(o->gm, o->vp_count, &p->engine, err);
	return r < 0 ? r : partition_set_cpuid(p, err);
}

int partition_new(const struct partition_options *o, struct partition **ret, struct error *err)
{
	struct partition *p;
	int r;

	if (!o->vp_count || o->vp_count > ENGINE_MAX_VPS)
		return error_set(err, -EINVAL, "a partition has 1 to %d virtual processors, not %u",
				 ENGINE_MAX_VPS, o->vp_count);
	p = calloc(1, sizeof(*p));
	if (!p)
		return error_set(err, -ENOMEM, "out of memory");
	p->gm = o->gm;
	p->loop = o->loop;
	p->cold_hints = o->cold_hints;
	pthread_mutex_init(&p->lock, NULL);
	list_init(&p->ports);
	list_init(&p->events);
	loop_task_init(&p->inbox_task, inbox_run);
	p->synics = calloc(o->vp_count, sizeof(*p->synics));
	if (!p->synics) {
		partition_free(p);
		return error_set(err, -ENOMEM, "out of memory");
	}
	p->vp_count = o->vp_count;
	for (unsigned i = 0; i < p->vp_count; i++)
		synic_init(&p->synics[i]);
	r = partition_init(p, o, err);
	if (r < 0) {
		partition_free(p);
		return r;
	}
	*ret = p;
	return 0;
}

void partition_free(struct partition *p)
{
	if (!p)
		return;
	loop_cancel(p->loop, &p->inbox_task);
	if (p->engine)
		p->engine->engine->destroy(p->engine);
	for (unsigned i = 0; i < p->vp_count; i++)
		synic_deinit(&p->synics[i]);
	free(p->synics);
	free(p->restored);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

int partition_reset(struct partition *p, struct error *err)
{
	int r;

	for (unsigned i = 0; i < p->vp_count; i++)
		synic_reset(&p->synics[i]);
	{
		LOCK_SCOPE(&p->lock);
		p->inbox_count = 0;
	}
	atomic_store(&p->guest_os, 0);
	r = p->engine->engine->reset(p->engine, err);
	return r < 0 ? r : partition_set_cpuid(p, err);
}
