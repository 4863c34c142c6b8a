// SPDX-License-Identifier: MIT
/* A partition saved and restored on engine fake, and what is refused. */
#include "partition/state.h"

#include "engine/fake.h"
#include "lib/cleanup.h"
#include "partition/internal.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define SIMP 0x10000u

struct fixture {
	struct gmem *gm;
	struct loop *loop;
	struct partition *p;
};

static struct fixture make(unsigned vps)
{
	struct gmem_range ram = { .gpa = 0, .size = MIB };
	struct partition_options o = { .engine = &engine_fake, .vp_count = vps };
	struct fixture f;

	assert_int_equal(gmem_new(&ram, 1, &f.gm, NULL), 0);
	assert_int_equal(loop_new(0, &f.loop, NULL), 0);
	o.gm = f.gm;
	o.loop = f.loop;
	assert_int_equal(partition_new(&o, &f.p, NULL), 0);
	return f;
}

static void end(struct fixture *f)
{
	partition_free(f->p);
	loop_free(f->loop);
	gmem_free(f->gm);
}

static int each(void *context, int (*fn)(void *arg, unsigned vp, struct error *err), void *arg,
		struct error *err)
{
	struct fixture *f = context;
	int r = 0;

	for (unsigned i = 0; i < partition_vp_count(f->p) && r >= 0; i++)
		r = fn(arg, i, err);
	return r;
}

/* A machine with something in every corner. */
static struct save_reader *saved(struct fixture *f, struct save_writer **ret_w)
{
	const struct partition_threads threads = { each, f };
	struct engine_partition *e = partition_engine(f->p);
	const struct engine_clock clock = { 123456789, 2000000 };
	struct vp_state *s = calloc(1, sizeof(*s));
	struct save_reader *r;
	const void *bytes;
	size_t size;

	for (unsigned vp = 0; vp < partition_vp_count(f->p); vp++) {
		s->registers.rip = 0x1000 + vp;
		s->registers.cs.attributes = 0xa09b;
		s->tsc = 77 + vp;
		s->events.nmi_masked = vp;
		s->activity = VP_HALTED;
		s->xsave_size = 4096;
		s->xsave[4095] = 9;
		s->apic[1023] = 3;
		s->msr_count = 2;
		s->msrs[1] = (struct vp_msr){ 0x40000000, 5 };
		assert_int_equal(e->engine->vp_set_state(e, vp, s, NULL), 0);
	}
	free(s);
	assert_int_equal(e->engine->clock_set(e, &clock, NULL), 0);
	partition_vp_synic(f->p, 0, 1, SIMP | 1, 0);
	assert_int_equal(partition_post_message(f->p, 0, 2, 1, "first", 5), 0);
	assert_int_equal(partition_post_message(f->p, 0, 2, 1, "second", 6), 0);
	partition_vp_deliver(f->p, 0);
	assert_int_equal(save_writer_new(ret_w, NULL), 0);
	assert_int_equal(partition_save(f->p, &threads, *ret_w, NULL), 0);
	assert_int_equal(save_writer_check(*ret_w, NULL), 0);
	bytes = save_writer_bytes(*ret_w, &size);
	assert_int_equal(save_reader_of(bytes, size, &r, NULL), 0);
	return r;
}

static void test_a_partition_comes_back(void **state)
{
	struct fixture a = make(2), b = make(2);
	const struct partition_threads threads = { each, &b };
	struct engine_partition *e = partition_engine(b.p);
	struct vp_state *s = calloc(1, sizeof(*s));
	struct engine_clock clock;
	struct save_writer *w;
	struct save_reader *r = saved(&a, &w);
	uint8_t *slot = (uint8_t *)gmem_page(b.gm, SIMP) + 2 * HV_MESSAGE_SIZE;

	(void)state;
	memcpy(gmem_page(b.gm, SIMP), gmem_page(a.gm, SIMP), GMEM_PAGE_SIZE);
	assert_int_equal(partition_restore(b.p, r, NULL), 0);
	assert_int_equal(save_reader_finish(r, NULL), 0);
	assert_int_equal(partition_restore_vps(b.p, &threads, NULL), 0);
	assert_int_equal(e->engine->clock_get(e, &clock, NULL), 0);
	assert_int_equal(clock.reference_time, 123456789);
	assert_int_equal(clock.tsc_khz, 2000000);
	for (unsigned vp = 0; vp < 2; vp++) {
		assert_int_equal(e->engine->vp_get_state(e, vp, s, NULL), 0);
		assert_int_equal(s->registers.rip, 0x1000 + vp);
		assert_int_equal(s->registers.cs.attributes, 0xa09b);
		assert_int_equal(s->tsc, 77 + vp);
		assert_int_equal(s->events.nmi_masked, vp);
		assert_int_equal(s->activity, VP_HALTED);
		assert_int_equal(s->xsave_size, 4096);
		assert_int_equal(s->xsave[4095], 9);
		assert_int_equal(s->apic[1023], 3);
		assert_int_equal(s->msr_count, 2);
		assert_int_equal(s->msrs[1].value, 5);
	}
	/* The page was not cleared again, and the second message waits for its slot. */
	assert_memory_equal(slot + 16, "first", 5);
	gshared_store32(slot, 0, 0);
	partition_vp_deliver(b.p, 0);
	assert_memory_equal(slot + 16, "second", 6);
	free(s);
	save_reader_free(r);
	save_writer_free(w);
	end(&a);
	end(&b);
}

static void refused(struct fixture *a, struct fixture *b, const char *words)
{
	struct error err = { 0 };
	struct save_writer *w;
	struct save_reader *r = saved(a, &w);

	assert_true(partition_restore(b->p, r, &err) < 0);
	if (!strstr(err.message, words))
		fail_msg("\"%s\" does not say \"%s\"", err.message, words);
	save_reader_free(r);
	save_writer_free(w);
}

static void test_another_number_of_processors_is_refused(void **state)
{
	struct fixture a = make(2), b = make(3);

	(void)state;
	refused(&a, &b, "saved with 2 processors and now has 3");
	end(&a);
	end(&b);
}

static void test_features_that_are_gone_are_refused(void **state)
{
	struct fixture a = make(1), b = make(1);

	(void)state;
	a.p->cpuid =
		(struct cpuid_list){ .count = 1, .entries = { { .function = 7, .ebx = 0x30 } } };
	b.p->cpuid =
		(struct cpuid_list){ .count = 1, .entries = { { .function = 7, .ebx = 0x10 } } };
	refused(&a, &b, "CPUID leaf 0x7.0, EBX, bits 0x20");
	b.p->cpuid.entries[0] = (struct cpuid_entry){ .function = 0, .ebx = 1 };
	refused(&a, &b, "another vendor");
	end(&a);
	end(&b);
}

/* More features here change nothing for the guest: it keeps what it was shown. */
static void test_the_guest_keeps_its_cpuid(void **state)
{
	struct fixture a = make(1), b = make(1);
	struct save_writer *w;
	struct save_reader *r;

	(void)state;
	a.p->cpuid =
		(struct cpuid_list){ .count = 1, .entries = { { .function = 7, .ebx = 0x10 } } };
	b.p->cpuid =
		(struct cpuid_list){ .count = 1, .entries = { { .function = 7, .ebx = 0x30 } } };
	r = saved(&a, &w);
	assert_int_equal(partition_restore(b.p, r, NULL), 0);
	assert_int_equal(b.p->cpuid.entries[0].ebx, 0x10);
	save_reader_free(r);
	save_writer_free(w);
	end(&a);
	end(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_partition_comes_back),
		cmocka_unit_test(test_another_number_of_processors_is_refused),
		cmocka_unit_test(test_features_that_are_gone_are_refused),
		cmocka_unit_test(test_the_guest_keeps_its_cpuid),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
