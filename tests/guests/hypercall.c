// SPDX-License-Identifier: MIT
/* Hypercalls: statuses of good and bad calls. TLFS 3, 11.10.4, 11.11.4, and appendix B. */
#include "groups.h"

#include "lib/hv.h"
#include "lib/print.h"

#define NOBODY       0x00abcdeu /* a connection that does not exist */
#define STATUS(r)    ((uint16_t)(r))
#define REPS_DONE(r) ((unsigned)((r) >> 32 & 0xfff))

/* Flush flags, TLFS 9.4 */
#define FLUSH_ALL_PROCESSORS BIT64(0)
#define FLUSH_ALL_SPACES     BIT64(1)

static void codes(void)
{
	static const uint16_t unknown[] = { 0x0000, 0x0001, 0x0fff, 0x7fff, 0xffff };
	static const uint16_t parents[] = { HVCALL_CREATE_PARTITION, 0x0046, 0x0057, 0x0058 };

	for (size_t i = 0; i < ARRAY_SIZE(unknown); i++)
		ok_equal(STATUS(hv_call(unknown[i], (uintptr_t)hv_input(), 0)),
			 HV_INVALID_HYPERCALL_CODE, "call 0x%x does not exist", unknown[i]);
	for (size_t i = 0; i < ARRAY_SIZE(parents); i++) {
		uint16_t status = STATUS(hv_call(parents[i], (uintptr_t)hv_input(), 0));

		ok(status == HV_INVALID_HYPERCALL_CODE || status == HV_ACCESS_DENIED,
		   "call 0x%x is none of a child's: status 0x%x", parents[i], status);
	}
	ok_equal(STATUS(hv_call(0xffff | HVCALL_FAST, 0, 0)), HV_INVALID_HYPERCALL_CODE,
		 "a fast call that does not exist");
}

static void post_message(void)
{
	static const uint8_t text[] = "hello";
	struct hv_post_input *in = hv_input();
	uintptr_t at = (uintptr_t)in;

	ok_equal(hv_post(NOBODY, 1, text, sizeof(text)), HV_INVALID_CONNECTION_ID,
		 "a message to nobody");
	ok_equal(hv_post(1, 0, text, sizeof(text)), HV_INVALID_PARAMETER, "a message of type 0");
	ok_equal(hv_post(1, 0x80000001, text, sizeof(text)), HV_INVALID_PARAMETER,
		 "a message of a type that is the hypervisor's");
	ok_equal(hv_post(1, 1, text, 241), HV_INVALID_PARAMETER, "a message of 241 bytes");
	ok_equal(hv_post(1, 1, text, UINT32_MAX), HV_INVALID_PARAMETER, "one of 4 GiB");
	ok_equal(STATUS(hv_call(HVCALL_POST_MESSAGE, at + 4, 0)), HV_INVALID_ALIGNMENT,
		 "a message that is not aligned");
	ok(STATUS(hv_call(HVCALL_POST_MESSAGE, at + PAGE_SIZE - 16, 0)), "one that crosses a page");
	ok(STATUS(hv_call(HVCALL_POST_MESSAGE, UINT64_C(0x7fffff000), 0)), "one outside of memory");
	ok(STATUS(hv_call(HVCALL_POST_MESSAGE, UINT64_MAX - 7, 0)), "one at the end of all");
	ok(STATUS(hv_call(HVCALL_POST_MESSAGE | HVCALL_FAST, 1, 1)), "a fast one");
	ok_equal(STATUS(hv_call(HVCALL_POST_MESSAGE | HVCALL_REPS(1), at, 0)),
		 HV_INVALID_HYPERCALL_INPUT, "one with repetitions");
}

static void signal_event(void)
{
	uint64_t *in = hv_input();
	uintptr_t at = (uintptr_t)in;
	uint16_t status;

	ok_equal(hv_signal(NOBODY, 0), HV_INVALID_CONNECTION_ID, "fast signal to nobody");
	in[0] = NOBODY;
	ok_equal(STATUS(hv_call(HVCALL_SIGNAL_EVENT, at, 0)), HV_INVALID_CONNECTION_ID,
		 "slow signal to nobody");
	ok_equal(STATUS(hv_call(HVCALL_SIGNAL_EVENT, at + 1, 0)), HV_INVALID_ALIGNMENT,
		 "slow signal that is not aligned");
	ok(STATUS(hv_call(HVCALL_SIGNAL_EVENT, UINT64_C(0x7fffff000), 0)),
	   "slow signal outside of memory");
	status = STATUS(hv_call(HVCALL_SIGNAL_EVENT | HVCALL_FAST, UINT64_C(0x1f000001), 0));
	ok(status == HV_INVALID_HYPERCALL_INPUT || status == HV_INVALID_CONNECTION_ID,
	   "reserved bits of a connection id: status 0x%x", status);
	ok(hv_signal(NOBODY, 5), "a flag number at nobody");
	ok_equal(STATUS(hv_call(HVCALL_SIGNAL_EVENT | HVCALL_FAST | HVCALL_REPS(2), NOBODY, 0)),
		 HV_INVALID_HYPERCALL_INPUT, "a signal with repetitions");
}

static uint64_t all_processors(void)
{
	return UINT64_MAX >> (64 - cpu_count);
}

static void flush(void)
{
	uint64_t *in = hv_input(), result;

	if (!(cpuid(LEAF_RECOMMENDATIONS, 0).eax & RECOMMEND_REMOTE_FLUSH)) {
		skip("TLB flushes", "not recommended");
		return;
	}
	memset(in, 0, PAGE_SIZE);
	in[1] = FLUSH_ALL_PROCESSORS | FLUSH_ALL_SPACES;
	ok_equal(STATUS(hv_call(HVCALL_FLUSH_SPACE, (uintptr_t)in, 0)), HV_SUCCESS,
		 "flush all, everywhere");
	in[1] = FLUSH_ALL_SPACES;
	in[2] = all_processors();
	ok_equal(STATUS(hv_call(HVCALL_FLUSH_SPACE, (uintptr_t)in, 0)), HV_SUCCESS,
		 "flush on each processor by name");
	in[3] = (uintptr_t)in;
	in[4] = 0x200000 | 3;
	result = hv_call(HVCALL_FLUSH_LIST | HVCALL_REPS(2), (uintptr_t)in, 0);
	ok_equal(STATUS(result), HV_SUCCESS, "flush two ranges");
	ok_equal(REPS_DONE(result), 2, "both are done");
	ok(STATUS(hv_call(HVCALL_FLUSH_LIST, (uintptr_t)in, 0)), "a list without repetitions");
}

static void count_ipi(unsigned status, const char *how, const uint32_t *before)
{
	unsigned arrived = 0;

	for (unsigned i = 0; i < cpu_count; i++)
		arrived += WAIT_FOR(cpu_of(i)->count[VECTOR_IPI] == before[i] + 1, 15000);
	ok_equal(status, HV_SUCCESS, "interrupt all processors: %s call", how);
	ok_equal(arrived, cpu_count, "each gets one interrupt: %s call", how);
}

static void cluster_ipi(void)
{
	struct {
		uint32_t vector, level;
		uint64_t processors;
	} *in = hv_input();
	uint32_t before[MAX_CPUS];

	if (!(cpuid(LEAF_RECOMMENDATIONS, 0).eax & RECOMMEND_CLUSTER_IPI)) {
		skip("interrupts by hypercall", "not recommended");
		return;
	}
	in->vector = VECTOR_IPI;
	in->level = 0;
	in->processors = all_processors();
	for (unsigned i = 0; i < cpu_count; i++)
		before[i] = cpu_of(i)->count[VECTOR_IPI];
	count_ipi(STATUS(hv_call(HVCALL_CLUSTER_IPI, (uintptr_t)in, 0)), "slow", before);
	for (unsigned i = 0; i < cpu_count; i++)
		before[i] = cpu_of(i)->count[VECTOR_IPI];
	count_ipi(STATUS(hv_call(HVCALL_CLUSTER_IPI | HVCALL_FAST, VECTOR_IPI, all_processors())),
		  "fast", before);
	ok(STATUS(hv_call(HVCALL_CLUSTER_IPI | HVCALL_FAST, 2, all_processors())),
	   "an exception's vector is refused");
}

static void spin_wait(void)
{
	ok_equal(STATUS(hv_call(HVCALL_LONG_SPIN_WAIT | HVCALL_FAST, 0x1000, 0)), HV_SUCCESS,
		 "a long wait may be told");
}

/* Messages and events leave for user space only while the SynIC is on. */
void group_hypercall(void)
{
	group_begin("hypercall");
	synic_enable(NULL);
	codes();
	post_message();
	signal_event();
	flush();
	cluster_ipi();
	spin_wait();
}
