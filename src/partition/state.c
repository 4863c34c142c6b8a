// SPDX-License-Identifier: MIT
/*
 * A partition in a state stream: which engine, what the processors show of themselves, the clock,
 * each VP with its SynIC, and the messages that wait for the guest. Event flags and message slots
 * are in guest memory. Called on the event loop's thread while all VPs stand still; what belongs to
 * a VP's thread is done there through partition_threads.
 *
 * A guest keeps the CPUID that it was saved with. Whether this host can keep that promise is
 * decided by the leaves that name features: each bit that the guest was shown must be one that the
 * engine has here, and the vendor must be the same, because kernels choose instructions by it.
 */
#include "partition/state.h"

#include "lib/cleanup.h"
#include "partition/internal.h"

#include <errno.h>
#include <string.h>

/* --- descriptions --- */

static const struct save_field segment_fields[] = {
	SAVE_FIELD(struct vp_segment, base),
	SAVE_FIELD(struct vp_segment, limit),
	SAVE_FIELD(struct vp_segment, selector),
	SAVE_FIELD(struct vp_segment, attributes),
};
static const struct save_table segment_table =
	SAVE_TABLE("segment", 1, struct vp_segment, segment_fields);

static const struct save_field table_fields[] = {
	SAVE_FIELD(struct vp_table, base),
	SAVE_FIELD(struct vp_table, limit),
};
static const struct save_table table_table = SAVE_TABLE("table", 1, struct vp_table, table_fields);

/* clang-format off */
#define REG(name) SAVE_FIELD(struct vp_registers, name)
#define SEG(name) SAVE_NESTED(struct vp_registers, name, &segment_table)
static const struct save_field register_fields[] = {
	REG(rax), REG(rbx), REG(rcx), REG(rdx), REG(rsi), REG(rdi), REG(rsp), REG(rbp),
	REG(r8), REG(r9), REG(r10), REG(r11), REG(r12), REG(r13), REG(r14), REG(r15),
	REG(rip), REG(rflags),
	REG(cr0), REG(cr2), REG(cr3), REG(cr4), REG(cr8), REG(efer), REG(apic_base),
	SEG(cs), SEG(ds), SEG(es), SEG(fs), SEG(gs), SEG(ss), SEG(tr), SEG(ldt),
	SAVE_NESTED(struct vp_registers, gdt, &table_table),
	SAVE_NESTED(struct vp_registers, idt, &table_table),
};

#define EVENT(name) SAVE_FIELD(struct vp_events, name)
static const struct save_field event_fields[] = {
	EVENT(exception_injected), EVENT(exception_pending), EVENT(deliver_error_code),
	EVENT(exception_has_payload), EVENT(exception_vector), EVENT(error_code),
	EVENT(exception_payload),
	EVENT(interrupt_injected), EVENT(interrupt_soft), EVENT(interrupt_vector),
	EVENT(interrupt_shadow),
	EVENT(nmi_injected), EVENT(nmi_pending), EVENT(nmi_masked),
	EVENT(smm), EVENT(smi_pending), EVENT(smm_inside_nmi), EVENT(init_latched),
	EVENT(triple_fault_pending), EVENT(sipi_vector),
};
/* clang-format on */

static const struct save_table register_table =
	SAVE_TABLE("registers", 1, struct vp_registers, register_fields);
static const struct save_table event_table =
	SAVE_TABLE("events", 1, struct vp_events, event_fields);

static const struct save_field msr_fields[] = {
	SAVE_FIELD(struct vp_msr, index),
	SAVE_FIELD(struct vp_msr, value),
};
static const struct save_table msr_table = SAVE_TABLE("msr", 1, struct vp_msr, msr_fields);

static const struct save_field state_fields[] = {
	SAVE_NESTED(struct vp_state, registers, &register_table),
	SAVE_FIELD(struct vp_state, xcr0),
	SAVE_ARRAY(struct vp_state, dr),
	SAVE_FIELD(struct vp_state, dr6),
	SAVE_FIELD(struct vp_state, dr7),
	SAVE_NESTED(struct vp_state, events, &event_table),
	SAVE_FIELD(struct vp_state, activity),
	SAVE_FIELD(struct vp_state, tsc),
	SAVE_BYTES(struct vp_state, apic),
	SAVE_COUNTED(struct vp_state, xsave, xsave_size),
	SAVE_NESTED_COUNTED(struct vp_state, msrs, msr_count, &msr_table),
};
static const struct save_table state_table = SAVE_TABLE("state", 1, struct vp_state, state_fields);

struct saved_vp {
	uint32_t index;
	uint64_t scontrol, simp, siefp;
	struct vp_state state;
};

static const struct save_field vp_fields[] = {
	SAVE_FIELD(struct saved_vp, index),
	SAVE_FIELD(struct saved_vp, scontrol),
	SAVE_FIELD(struct saved_vp, simp),
	SAVE_FIELD(struct saved_vp, siefp),
	SAVE_NESTED(struct saved_vp, state, &state_table),
};
static const struct save_table vp_table = SAVE_TABLE("partition.vp", 1, struct saved_vp, vp_fields);

struct saved_message {
	uint32_t vp, sint;
	uint8_t bytes[HV_MESSAGE_SIZE];
};

static const struct save_field message_fields[] = {
	SAVE_FIELD(struct saved_message, vp),
	SAVE_FIELD(struct saved_message, sint),
	SAVE_BYTES(struct saved_message, bytes),
};
static const struct save_table message_table =
	SAVE_TABLE("partition.message", 1, struct saved_message, message_fields);

static const struct save_field cpuid_fields[] = {
	SAVE_FIELD(struct cpuid_entry, function),      SAVE_FIELD(struct cpuid_entry, index),
	SAVE_FIELD(struct cpuid_entry, index_matters), SAVE_FIELD(struct cpuid_entry, eax),
	SAVE_FIELD(struct cpuid_entry, ebx),           SAVE_FIELD(struct cpuid_entry, ecx),
	SAVE_FIELD(struct cpuid_entry, edx),
};
static const struct save_table cpuid_table =
	SAVE_TABLE("cpuid", 1, struct cpuid_entry, cpuid_fields);

struct saved_partition {
	uint8_t engine[16];
	uint32_t vp_count, capabilities;
	uint64_t reference_time;
	uint32_t tsc_khz;
	uint32_t leaf_count;
	struct cpuid_entry leaves[CPUID_LIST_MAX];
};

static const struct save_field partition_fields[] = {
	SAVE_BYTES(struct saved_partition, engine),
	SAVE_FIELD(struct saved_partition, vp_count),
	SAVE_FIELD(struct saved_partition, capabilities),
	SAVE_FIELD(struct saved_partition, reference_time),
	SAVE_FIELD(struct saved_partition, tsc_khz),
	SAVE_NESTED_COUNTED(struct saved_partition, leaves, leaf_count, &cpuid_table),
};
static const struct save_table partition_table =
	SAVE_TABLE("partition", 1, struct saved_partition, partition_fields);

/* What was read and waits for everything else to be restored. */
struct partition_restored {
	struct engine_clock clock;
	struct saved_vp vps[];
};

/* --- saving --- */

struct vps_job {
	struct partition *p;
	struct saved_vp *vps;
};

static int get_vp(void *arg, unsigned vp, struct error *err)
{
	const struct vps_job *job = arg;
	struct engine_partition *e = job->p->engine;

	return e->engine->vp_get_state(e, vp, &job->vps[vp].state, err);
}

static int set_vp(void *arg, unsigned vp, struct error *err)
{
	const struct vps_job *job = arg;
	struct engine_partition *e = job->p->engine;

	return e->engine->vp_set_state(e, vp, &job->vps[vp].state, err);
}

static int engine_can_save(const struct partition *p, struct error *err)
{
	if (p->capabilities & ENGINE_CAP_SAVE)
		return 0;
	return error_set(err, -ENOTSUP, "the engine %s cannot save a machine",
			 p->engine->engine->name);
}

static int save_partition(struct partition *p, struct save_writer *w, struct error *err)
{
	_cleanup_free_ struct saved_partition *s = calloc(1, sizeof(*s));
	const struct engine *e = p->engine->engine;
	struct engine_clock clock;
	int r = s ? engine_can_save(p, err) : error_set(err, -ENOMEM, "out of memory");

	if (r >= 0)
		r = e->clock_get(p->engine, &clock, err);
	if (r < 0)
		return r;
	strncpy((char *)s->engine, e->name, sizeof(s->engine) - 1);
	s->vp_count = p->vp_count;
	s->capabilities = p->capabilities;
	s->reference_time = clock.reference_time;
	s->tsc_khz = clock.tsc_khz;
	s->leaf_count = p->cpuid.count;
	memcpy(s->leaves, p->cpuid.entries, sizeof(s->leaves));
	save_put(w, &partition_table, s);
	return 0;
}

static void save_messages(struct partition *p, unsigned vp, struct save_writer *w)
{
	struct synic *s = &p->synics[vp];

	LOCK_SCOPE(&s->lock);
	list_foreach(it, &s->queue)
	{
		const struct synic_message *m = list_entry(it, struct synic_message, node);
		struct saved_message out = { .vp = vp, .sint = m->sint };

		memcpy(out.bytes, m->bytes, sizeof(out.bytes));
		save_put(w, &message_table, &out);
	}
}

int partition_save(struct partition *p, const struct partition_threads *threads,
		   struct save_writer *w, struct error *err)
{
	_cleanup_free_ struct saved_vp *vps = calloc(p->vp_count, sizeof(*vps));
	struct vps_job job = { p, vps };
	int r = vps ? save_partition(p, w, err) : error_set(err, -ENOMEM, "out of memory");

	if (r >= 0)
		r = threads->each(threads->context, get_vp, &job, err);
	for (unsigned i = 0; i < p->vp_count && r >= 0; i++) {
		vps[i].index = i;
		vps[i].scontrol = atomic_load(&p->synics[i].control);
		vps[i].simp = atomic_load(&p->synics[i].simp);
		vps[i].siefp = atomic_load(&p->synics[i].siefp);
		save_put(w, &vp_table, &vps[i]);
		save_messages(p, i, w);
	}
	return r;
}

/* --- what the guest was shown --- */

enum cpuid_register { EAX, EBX, ECX, EDX };

/* Registers whose bits are features; SDM 2A CPUID, APM 3 appendix E, TLFS 2.4. */
static const struct {
	uint32_t function, index;
	enum cpuid_register reg;
} features[] = {
	{ 1, 0, ECX },
	{ 1, 0, EDX },
	{ 6, 0, EAX },
	{ 7, 0, EBX },
	{ 7, 0, ECX },
	{ 7, 0, EDX },
	{ 7, 1, EAX },
	{ 7, 1, EDX },
	{ 0xd, 0, EAX },
	{ 0xd, 0, EDX },
	{ 0xd, 1, EAX },
	{ 0xd, 1, ECX },
	{ 0x80000001u, 0, ECX },
	{ 0x80000001u, 0, EDX },
	{ 0x80000007u, 0, EDX },
	{ 0x80000008u, 0, EBX },
	{ 0x80000021u, 0, EAX },
	{ HV_CPUID_FEATURES, 0, EAX },
	{ HV_CPUID_FEATURES, 0, EBX },
	{ HV_CPUID_FEATURES, 0, EDX },
};

static uint32_t cpuid_value(const struct cpuid_list *l, uint32_t function, uint32_t index,
			    enum cpuid_register reg)
{
	for (unsigned i = 0; i < l->count; i++) {
		const struct cpuid_entry *e = &l->entries[i];
		const uint32_t values[] = { e->eax, e->ebx, e->ecx, e->edx };

		if (e->function == function && (!e->index_matters || e->index == index))
			return values[reg];
	}
	return 0;
}

static int check_cpuid(const struct cpuid_list *saved, const struct cpuid_list *now,
		       struct error *err)
{
	static const char *const names[] = { "EAX", "EBX", "ECX", "EDX" };

	for (int reg = EBX; reg <= EDX; reg++)
		if (cpuid_value(saved, 0, 0, reg) != cpuid_value(now, 0, 0, reg))
			return error_set(err, -ENOTSUP,
					 "the machine was saved on a processor of another vendor");
	for (size_t i = 0; i < ARRAY_SIZE(features); i++) {
		uint32_t function = features[i].function, index = features[i].index;
		enum cpuid_register reg = features[i].reg;
		uint32_t lacking = cpuid_value(saved, function, index, reg) &
				   ~cpuid_value(now, function, index, reg);

		if (lacking)
			return error_set(err, -ENOTSUP,
					 "the guest was shown processor features that this host "
					 "lacks: CPUID leaf 0x%x.%u, %s, bits 0x%x",
					 function, index, names[reg], lacking);
	}
	return 0;
}

/* --- restoring --- */

static int check_partition(const struct partition *p, const struct saved_partition *s,
			   struct error *err)
{
	const char *name = p->engine->engine->name;
	uint32_t lacking = s->capabilities & ~p->capabilities;
	int r = engine_can_save(p, err);

	if (r < 0)
		return r;
	if (strnlen((const char *)s->engine, sizeof(s->engine)) == sizeof(s->engine) ||
	    strcmp((const char *)s->engine, name))
		return error_set(err, -ENOTSUP,
				 "the machine was saved on engine %.15s and cannot go on on %s",
				 (const char *)s->engine, name);
	if (s->vp_count != p->vp_count)
		return error_set(err, -EINVAL,
				 "the machine was saved with %u processors and now has %u",
				 s->vp_count, p->vp_count);
	if (lacking)
		return error_set(err, -ENOTSUP,
				 "the engine lacks what it had when the machine was saved "
				 "(capabilities 0x%x)",
				 lacking);
	return 0;
}

static int restore_partition(struct partition *p, struct save_reader *r, struct engine_clock *clock,
			     struct error *err)
{
	_cleanup_free_ struct saved_partition *s = calloc(1, sizeof(*s));
	_cleanup_free_ struct cpuid_list *list = calloc(1, sizeof(*list));
	int n = s && list ? save_get(r, &partition_table, s, err)
			  : error_set(err, -ENOMEM, "out of memory");

	if (n >= 0)
		n = check_partition(p, s, err);
	if (n < 0)
		return n;
	*clock =
		(struct engine_clock){ .reference_time = s->reference_time, .tsc_khz = s->tsc_khz };
	list->count = s->leaf_count;
	memcpy(list->entries, s->leaves, sizeof(list->entries));
	n = check_cpuid(list, &p->cpuid, err);
	if (n < 0)
		return n;
	p->cpuid = *list;
	return partition_set_cpuid(p, err);
}

static int restore_synics(struct partition *p, struct saved_vp *vps, struct save_reader *r,
			  struct error *err)
{
	uint64_t have = 0;

	for (unsigned i = 0; i < p->vp_count; i++) {
		struct saved_vp *vp = calloc(1, sizeof(*vp));
		int n = vp ? save_get(r, &vp_table, vp, err)
			   : error_set(err, -ENOMEM, "out of memory");

		if (n >= 0 && (vp->index >= p->vp_count || have & BIT64(vp->index)))
			n = error_set(err, -EBADMSG, "the saved state has processor %u twice",
				      vp->index);
		if (n >= 0) {
			have |= BIT64(vp->index);
			vps[vp->index] = *vp;
			atomic_store(&p->synics[vp->index].control, vp->scontrol);
			atomic_store(&p->synics[vp->index].simp, vp->simp);
			atomic_store(&p->synics[vp->index].siefp, vp->siefp);
		}
		free(vp);
		if (n < 0)
			return n;
	}
	return 0;
}
_Static_assert(ENGINE_MAX_VPS <= 64, "one bit for each VP above");

static int restore_messages(struct partition *p, struct save_reader *r, struct error *err)
{
	struct saved_message m;
	int n;

	while ((n = save_next(r, &message_table, &m, err)) > 0) {
		struct hv_message_header h;

		memcpy(&h, m.bytes, sizeof(h));
		if (m.vp >= p->vp_count || m.sint >= HV_SYNIC_SINT_COUNT ||
		    h.payload_size > HV_MESSAGE_PAYLOAD_SIZE)
			return error_set(err, -EBADMSG, "the saved state has a message for nobody");
		n = synic_queue(&p->synics[m.vp], m.sint, le32_get(h.message_type),
				m.bytes + sizeof(h), h.payload_size);
		if (n < 0)
			return error_errno(err, n, "cannot keep the messages for the guest");
	}
	return n;
}

int partition_restore(struct partition *p, struct save_reader *r, struct error *err)
{
	struct partition_restored *kept =
		calloc(1, sizeof(*kept) + p->vp_count * sizeof(kept->vps[0]));
	int n = kept ? restore_partition(p, r, &kept->clock, err)
		     : error_set(err, -ENOMEM, "out of memory");

	if (n >= 0)
		n = restore_synics(p, kept->vps, r, err);
	if (n >= 0)
		n = restore_messages(p, r, err);
	if (n < 0)
		free(kept);
	else
		p->restored = kept;
	return n;
}

int partition_restore_vps(struct partition *p, const struct partition_threads *threads,
			  struct error *err)
{
	_cleanup_free_ struct partition_restored *kept = steal_ptr(p->restored);
	struct vps_job job = { p, kept->vps };
	int n = p->engine->engine->clock_set(p->engine, &kept->clock, err);

	return n < 0 ? n : threads->each(threads->context, set_vp, &job, err);
}
