// SPDX-License-Identifier: MIT
/*
 * See vp.h. The gate is one mutex and one condition for all VPs of the machine: it is passed at
 * start, pause and reset only, never on the way from exit to entry, where one flag is read.
 */
#include "worker/vp.h"

#include "lib/cleanup.h"
#include "worker/platform.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>

enum gate {
	GATE_HOLD,
	GATE_RUN,
	GATE_END,
};

struct vp {
	struct vps *all;
	unsigned index;
	pthread_t thread;
	_Atomic uint64_t exits;
	unsigned work_done; /* number of the last work */
};

struct vps {
	struct partition *partition;
	struct platform *platform;
	struct vps_callbacks cb;
	pthread_mutex_t lock;
	pthread_cond_t opened;
	_Atomic enum gate gate; /* written under lock */
	unsigned count, started, parked;
	/* Work for each thread while it waits at the gate: guarded by lock. */
	int (*work)(void *arg, unsigned vp, struct error *err);
	void *work_arg;
	unsigned work_number, work_left;
	int work_result;
	struct error work_error;
	pthread_cond_t worked;
	struct vp vps[];
};

static void exit_pio(struct vp *vp, struct vp_exit *x)
{
	uint8_t *data = x->pio.data;

	for (uint32_t i = 0; i < x->pio.count; i++, data += x->pio.size)
		platform_pio(vp->all->platform, x->pio.port, x->pio.size, x->pio.write, data);
}

static void handle_exit(struct vp *vp, struct vp_exit *x)
{
	struct vps *v = vp->all;

	switch (x->kind) {
	case VP_EXIT_PIO:
		exit_pio(vp, x);
		break;
	case VP_EXIT_MMIO:
		platform_mmio(v->platform, x->mmio.gpa, x->mmio.size, x->mmio.write, x->mmio.data);
		break;
	case VP_EXIT_IOAPIC_EOI:
		platform_ioapic_eoi(v->platform, x->ioapic_eoi.vector);
		break;
	case VP_EXIT_CRASH:
		v->cb.crashed(v->cb.context, x->crash.parameters);
		break;
	case VP_EXIT_RESET:
	case VP_EXIT_TRIPLE_FAULT:
		v->cb.reset(v->cb.context);
		break;
	case VP_EXIT_ERROR:
		v->cb.failed(v->cb.context, &x->error);
		break;
	case VP_EXIT_INTERRUPTED:
	case VP_EXIT_HYPERCALL:
	case VP_EXIT_SYNIC:
	case VP_EXIT_EOM:
		break;
	}
}

/* With the lock held, which is given up meanwhile. */
static void do_work(struct vp *vp)
{
	struct vps *v = vp->all;
	struct error err = { 0 };
	int r;

	if (vp->work_done == v->work_number)
		return;
	vp->work_done = v->work_number;
	pthread_mutex_unlock(&v->lock);
	r = v->work(v->work_arg, vp->index, &err);
	pthread_mutex_lock(&v->lock);
	if (r < 0 && v->work_result >= 0) {
		v->work_result = r;
		v->work_error = err;
	}
	if (!--v->work_left)
		pthread_cond_signal(&v->worked);
}

int vps_each(struct vps *v, int (*fn)(void *arg, unsigned vp, struct error *err), void *arg,
	     struct error *err)
{
	LOCK_SCOPE(&v->lock);
	v->work = fn;
	v->work_arg = arg;
	v->work_left = v->count;
	v->work_result = 0;
	v->work_number++;
	pthread_cond_broadcast(&v->opened);
	while (v->work_left)
		pthread_cond_wait(&v->worked, &v->lock);
	if (v->work_result < 0 && err)
		*err = v->work_error;
	return v->work_result;
}

/* Whether to go on; false = the thread ends. */
static bool wait_at_gate(struct vp *vp)
{
	struct vps *v = vp->all;

	LOCK_SCOPE(&v->lock);
	if (atomic_load(&v->gate) == GATE_HOLD) {
		if (++v->parked == v->count)
			v->cb.parked(v->cb.context);
		while (atomic_load(&v->gate) == GATE_HOLD) {
			if (vp->work_done != v->work_number)
				do_work(vp);
			else
				pthread_cond_wait(&v->opened, &v->lock);
		}
		v->parked--;
	}
	return atomic_load(&v->gate) == GATE_RUN;
}

/*
 * An access that was served is finished by the next vp_run only: a VP that stands still after one
 * would have a state that is neither before nor after its instruction.
 */
static bool unfinished(const struct vp_exit *x)
{
	return x->kind == VP_EXIT_PIO || x->kind == VP_EXIT_MMIO;
}

static void *vp_main(void *arg)
{
	struct vp *vp = arg;
	struct vps *v = vp->all;
	struct vp_exit x = { .kind = VP_EXIT_INTERRUPTED };

	while (wait_at_gate(vp)) {
		while (atomic_load_explicit(&v->gate, memory_order_acquire) == GATE_RUN ||
		       (unfinished(&x) && atomic_load(&v->gate) == GATE_HOLD)) {
			partition_vp_run(v->partition, vp->index, &x);
			atomic_store_explicit(&vp->exits, vp->exits + 1, memory_order_relaxed);
			handle_exit(vp, &x);
		}
	}
	return NULL;
}

static void set_gate(struct vps *v, enum gate gate)
{
	LOCK_SCOPE(&v->lock);
	if (atomic_load(&v->gate) == GATE_END)
		return;
	atomic_store(&v->gate, gate);
	pthread_cond_broadcast(&v->opened);
}

static void kick_all(struct vps *v)
{
	struct engine_partition *e = partition_engine(v->partition);

	for (unsigned i = 0; i < v->count; i++)
		e->engine->vp_kick(e, i);
}

void vps_run(struct vps *v)
{
	set_gate(v, GATE_RUN);
}

/*
 * When the gate closes before any VP has even woken up to pass it, all of them count as parked
 * already, and none will say so again.
 */
void vps_hold(struct vps *v)
{
	{
		LOCK_SCOPE(&v->lock);
		if (atomic_load(&v->gate) == GATE_RUN && v->parked == v->count)
			v->cb.parked(v->cb.context);
		if (atomic_load(&v->gate) == GATE_RUN)
			atomic_store(&v->gate, GATE_HOLD);
	}
	kick_all(v);
}

uint64_t vps_exits(const struct vps *v)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < v->count; i++)
		sum += atomic_load(&v->vps[i].exits);
	return sum;
}

/*
 * VP threads take the kick signal and no other. They are named from here: by the time that one
 * runs, the system call for it may be refused.
 */
static int start_thread(struct vp *vp)
{
	sigset_t block, old;
	char name[16];
	int r;

	sigfillset(&block);
	sigdelset(&block, SIGUSR1);
	pthread_sigmask(SIG_SETMASK, &block, &old);
	r = -pthread_create(&vp->thread, NULL, vp_main, vp);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	snprintf(name, sizeof(name), "vp %u", vp->index);
	if (!r)
		pthread_setname_np(vp->thread, name);
	return r;
}

int vps_new(struct partition *p, struct platform *platform, const struct vps_callbacks *callbacks,
	    struct vps **ret, struct error *err)
{
	unsigned count = partition_vp_count(p);
	struct vps *v = calloc(1, sizeof(*v) + count * sizeof(v->vps[0]));
	int r;

	if (!v)
		return error_set(err, -ENOMEM, "out of memory");
	v->partition = p;
	v->platform = platform;
	v->cb = *callbacks;
	v->count = count;
	pthread_mutex_init(&v->lock, NULL);
	pthread_cond_init(&v->opened, NULL);
	pthread_cond_init(&v->worked, NULL);
	for (; v->started < count; v->started++) {
		struct vp *vp = &v->vps[v->started];

		vp->all = v;
		vp->index = v->started;
		r = start_thread(vp);
		if (r < 0) {
			vps_free(v);
			return error_errno(err, r, "cannot start the thread of processor %u",
					   vp->index);
		}
	}
	*ret = v;
	return 0;
}

void vps_free(struct vps *v)
{
	if (!v)
		return;
	set_gate(v, GATE_END);
	kick_all(v);
	for (unsigned i = 0; i < v->started; i++)
		pthread_join(v->vps[i].thread, NULL);
	pthread_cond_destroy(&v->opened);
	pthread_cond_destroy(&v->worked);
	pthread_mutex_destroy(&v->lock);
	free(v);
}
