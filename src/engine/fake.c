// SPDX-License-Identifier: MIT
/*
 * See fake.h. In a test everything runs on its one thread. In a worker each processor has a thread,
 * which halts until it is fetched: only that is shared between threads, under `lock`.
 */
#include "engine/fake.h"

#include "engine/state.h"
#include "lib/cleanup.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#define MAX_CONNECTIONS 4096

struct fake_connection {
	uint32_t id;
	int eventfd;
};

struct fake_partition {
	struct engine_partition base;
	unsigned connection_count;
	struct fake_connection connections[MAX_CONNECTIONS];
	unsigned sints[ENGINE_MAX_VPS][16];
	struct vp_registers registers[ENGINE_MAX_VPS];
	unsigned interrupts;
	uint32_t last_interrupt;
	uint64_t memory_added; /* since the last reset */
	bool refuse_memory;
	pthread_mutex_t lock; /* guards what follows */
	pthread_cond_t kick;
	bool kicked[ENGINE_MAX_VPS];
	/* What a VP was restored with; nothing changes it, there being no CPU. */
	struct vp_state *states[ENGINE_MAX_VPS];
	struct engine_clock clock;
};

static struct fake_partition *fake_of(struct engine_partition *p)
{
	return container_of(p, struct fake_partition, base);
}

static struct fake_connection *find_connection(struct fake_partition *f, uint32_t id)
{
	for (unsigned i = 0; i < f->connection_count; i++)
		if (f->connections[i].id == id)
			return &f->connections[i];
	return NULL;
}

int fake_signal_connection(struct engine_partition *p, uint32_t connection_id)
{
	struct fake_connection *c = find_connection(fake_of(p), connection_id);
	uint64_t one = 1;

	if (!c)
		return -ENOENT;
	return write(c->eventfd, &one, sizeof(one)) == sizeof(one) ? 0 : -EIO;
}

unsigned fake_take_sint(struct engine_partition *p, unsigned vp, unsigned sint)
{
	unsigned n = fake_of(p)->sints[vp][sint];

	fake_of(p)->sints[vp][sint] = 0;
	return n;
}

unsigned fake_interrupts(const struct engine_partition *p, uint32_t *ret_last_data)
{
	const struct fake_partition *f = container_of(p, struct fake_partition, base);

	*ret_last_data = f->last_interrupt;
	return f->interrupts;
}

static int fake_probe(uint32_t *ret_capabilities, struct error *err)
{
	(void)err;
	*ret_capabilities = ENGINE_CAP_SYNIC | ENGINE_CAP_EVENTFD_SIGNAL | ENGINE_CAP_EOM_EXIT |
			    ENGINE_CAP_SAVE;
	return 0;
}

static int fake_supported_cpuid(struct cpuid_list *ret, struct error *err)
{
	(void)err;
	ret->count = 0;
	return 0;
}

static int fake_create(struct gmem *gm, unsigned vp_count, struct engine_partition **ret,
		       struct error *err)
{
	struct fake_partition *f = calloc(1, sizeof(*f));

	if (!f)
		return error_set(err, -ENOMEM, "out of memory");
	f->base =
		(struct engine_partition){ .engine = &engine_fake, .vp_count = vp_count, .gm = gm };
	pthread_mutex_init(&f->lock, NULL);
	pthread_cond_init(&f->kick, NULL);
	*ret = &f->base;
	return 0;
}

static void fake_destroy(struct engine_partition *p)
{
	struct fake_partition *f;

	if (!p)
		return;
	f = fake_of(p);
	pthread_cond_destroy(&f->kick);
	pthread_mutex_destroy(&f->lock);
	for (unsigned i = 0; i < ENGINE_MAX_VPS; i++)
		free(f->states[i]);
	free(f);
}

static int fake_reset(struct engine_partition *p, struct error *err)
{
	struct fake_partition *f = fake_of(p);

	(void)err;
	f->connection_count = 0;
	f->memory_added = 0;
	memset(f->sints, 0, sizeof(f->sints));
	return 0;
}

static int fake_set_cpuid(struct engine_partition *p, unsigned vp, const struct cpuid_list *list,
			  struct error *err)
{
	(void)p, (void)vp, (void)list, (void)err;
	return 0;
}

static int fake_get_registers(struct engine_partition *p, unsigned vp, struct vp_registers *ret)
{
	*ret = fake_of(p)->registers[vp];
	return 0;
}

static int fake_set_registers(struct engine_partition *p, unsigned vp,
			      const struct vp_registers *regs)
{
	fake_of(p)->registers[vp] = *regs;
	return 0;
}

static int fake_memory_add(struct engine_partition *p, uint64_t offset, uint64_t size)
{
	struct fake_partition *f = fake_of(p);

	(void)offset;
	if (f->refuse_memory)
		return -ENOSPC;
	f->memory_added += size;
	return 0;
}

uint64_t fake_memory_added(const struct engine_partition *p)
{
	return container_of(p, struct fake_partition, base)->memory_added;
}

void fake_refuse_memory(struct engine_partition *p, bool refuse)
{
	fake_of(p)->refuse_memory = refuse;
}

static int fake_get_msr(struct engine_partition *p, unsigned vp, uint32_t msr, uint64_t *ret)
{
	(void)p, (void)vp, (void)msr, (void)ret;
	return -ENOENT;
}

static int fake_set_msr(struct engine_partition *p, unsigned vp, uint32_t msr, uint64_t value)
{
	(void)p, (void)vp, (void)msr, (void)value;
	return -ENOENT;
}

static int fake_clock_get(struct engine_partition *p, struct engine_clock *ret, struct error *err)
{
	(void)err;
	*ret = fake_of(p)->clock;
	return 0;
}

static int fake_clock_set(struct engine_partition *p, const struct engine_clock *clock,
			  struct error *err)
{
	(void)err;
	fake_of(p)->clock = *clock;
	return 0;
}

static int fake_get_state(struct engine_partition *p, unsigned vp, struct vp_state *ret,
			  struct error *err)
{
	struct fake_partition *f = fake_of(p);

	(void)err;
	if (f->states[vp])
		*ret = *f->states[vp];
	else
		memset(ret, 0, sizeof(*ret));
	ret->registers = f->registers[vp];
	return 0;
}

static int fake_set_state(struct engine_partition *p, unsigned vp, const struct vp_state *state,
			  struct error *err)
{
	struct fake_partition *f = fake_of(p);

	if (!f->states[vp])
		f->states[vp] = malloc(sizeof(*state));
	if (!f->states[vp])
		return error_set(err, -ENOMEM, "out of memory");
	*f->states[vp] = *state;
	f->registers[vp] = state->registers;
	return 0;
}

/* There is nothing to run: the processor halts, and no interrupt ends that. */
static void fake_run(struct engine_partition *p, unsigned vp, struct vp_exit *ret)
{
	struct fake_partition *f = fake_of(p);

	LOCK_SCOPE(&f->lock);
	while (!f->kicked[vp])
		pthread_cond_wait(&f->kick, &f->lock);
	f->kicked[vp] = false;
	ret->kind = VP_EXIT_INTERRUPTED;
}

static void fake_kick(struct engine_partition *p, unsigned vp)
{
	struct fake_partition *f = fake_of(p);

	LOCK_SCOPE(&f->lock);
	f->kicked[vp] = true;
	pthread_cond_broadcast(&f->kick);
}

static int fake_interrupt(struct engine_partition *p, uint64_t address, uint32_t data)
{
	(void)address;
	fake_of(p)->interrupts++;
	fake_of(p)->last_interrupt = data;
	return 0;
}

static int fake_ioapic_route(struct engine_partition *p, unsigned pin, uint64_t address,
			     uint32_t data)
{
	(void)p, (void)pin, (void)address, (void)data;
	return 0;
}

static int fake_sint_raise(struct engine_partition *p, unsigned vp, unsigned sint)
{
	if (vp >= p->vp_count || sint >= 16)
		return -EINVAL;
	fake_of(p)->sints[vp][sint]++;
	return 0;
}

static int fake_bind_connection(struct engine_partition *p, uint32_t connection_id, int eventfd)
{
	struct fake_partition *f = fake_of(p);
	struct fake_connection *c = find_connection(f, connection_id);

	if (eventfd < 0) {
		if (c)
			*c = f->connections[--f->connection_count];
		return 0;
	}
	if (c)
		return -EEXIST;
	if (f->connection_count == MAX_CONNECTIONS)
		return -ENOSPC;
	f->connections[f->connection_count++] =
		(struct fake_connection){ .id = connection_id, .eventfd = eventfd };
	return 0;
}

/* The host's clock: it goes on like a guest's. */
static int fake_reference_time(struct engine_partition *p, uint64_t *ret)
{
	struct timespec now;

	(void)p;
	clock_gettime(CLOCK_MONOTONIC, &now);
	*ret = (uint64_t)now.tv_sec * 10000000 + (uint64_t)now.tv_nsec / 100;
	return 0;
}

const struct engine engine_fake = {
	.name = "fake",
	.summary = "no CPU: for tests and fuzzers",
	.probe = fake_probe,
	.supported_cpuid = fake_supported_cpuid,
	.create = fake_create,
	.destroy = fake_destroy,
	.reset = fake_reset,
	.memory_add = fake_memory_add,
	.vp_set_cpuid = fake_set_cpuid,
	.vp_get_registers = fake_get_registers,
	.vp_set_registers = fake_set_registers,
	.vp_get_msr = fake_get_msr,
	.vp_set_msr = fake_set_msr,
	.clock_get = fake_clock_get,
	.clock_set = fake_clock_set,
	.vp_get_state = fake_get_state,
	.vp_set_state = fake_set_state,
	.vp_run = fake_run,
	.vp_kick = fake_kick,
	.interrupt = fake_interrupt,
	.ioapic_route = fake_ioapic_route,
	.sint_raise = fake_sint_raise,
	.bind_connection = fake_bind_connection,
	.reference_time = fake_reference_time,
};
