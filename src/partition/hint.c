// SPDX-License-Identifier: MIT
/*
 * See hint.h. TLFS has the calls' numbers; the layout of their input is that of Linux
 * include/asm-generic/hyperv-tlfs.h (struct hv_memory_hint, union hv_gpa_page_range). The input is
 * copied once, and all of it is judged before the first page goes: a guest that names what is not
 * RAM loses nothing.
 */
#include "partition/hint.h"

#define RANGES_MAX ((GMEM_PAGE_SIZE - sizeof(uint64_t)) / sizeof(uint64_t))

hv_status hint_query(struct gmem *gm, const struct vp_exit *x)
{
	uint64_t output = x->hypercall.output;
	le64 capabilities = le64_of(HV_EXT_CAPABILITY_COLD_DISCARD_HINT);

	if (x->hypercall.control & HV_HYPERCALL_FAST)
		return HV_STATUS_INVALID_HYPERCALL_INPUT;
	if (output % 8)
		return HV_STATUS_INVALID_ALIGNMENT;
	if (gmem_write(gm, output, &capabilities, sizeof(capabilities)) < 0)
		return HV_STATUS_INVALID_PARAMETER;
	return HV_STATUS_SUCCESS;
}

struct span {
	uint64_t gpa, size;
};

/* False for what is not there: pages of 1 GiB, addresses beyond all. */
static bool span_of(uint64_t range, struct span *ret)
{
	bool large = range & HV_GPA_RANGE_LARGE;
	unsigned shift = large ? 21 : 12;
	uint64_t page = large ? range >> 21 : range >> 12, end;

	if (large && range & HV_GPA_RANGE_1G)
		return false;
	ret->gpa = page << shift;
	ret->size = ((range & HV_GPA_RANGE_ADDITIONAL) + 1) << shift;
	return !add_overflow(ret->gpa, ret->size, &end);
}

hv_status hint_discard(struct gmem *gm, const struct vp_exit *x, uint64_t *ret_bytes)
{
	uint64_t control = x->hypercall.control, input = x->hypercall.input;
	unsigned count = HV_HYPERCALL_REP_COUNT(control), first = HV_HYPERCALL_REP_START(control);
	size_t size = (1 + (size_t)count) * sizeof(le64);
	le64 words[1 + RANGES_MAX];
	struct span span;

	*ret_bytes = 0;
	if (control & HV_HYPERCALL_FAST || !count || count > RANGES_MAX || first >= count)
		return HV_STATUS_INVALID_HYPERCALL_INPUT;
	if (input % 8 || input % GMEM_PAGE_SIZE > GMEM_PAGE_SIZE - size)
		return HV_STATUS_INVALID_ALIGNMENT;
	if (gmem_read(gm, input, words, size) < 0 ||
	    le64_get(words[0]) != HV_HEAT_HINT_COLD_DISCARD)
		return HV_STATUS_INVALID_PARAMETER;
	for (unsigned i = first; i < count; i++)
		if (!span_of(le64_get(words[1 + i]), &span) ||
		    !gmem_contains(gm, span.gpa, span.size))
			return HV_STATUS_INVALID_PARAMETER;
	for (unsigned i = first; i < count; i++) {
		(void)span_of(le64_get(words[1 + i]), &span);
		if (!gmem_discard(gm, span.gpa, span.size))
			*ret_bytes += span.size;
	}
	return HV_STATUS_SUCCESS;
}
