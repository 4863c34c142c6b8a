// SPDX-License-Identifier: MIT
/* See sandbox.h. A library of its own, because only what has a sandbox needs libseccomp. */
#include "lib/sandbox.h"

#include <errno.h>
#include <linux/capability.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static const int common[] = {
	/* the allocator, and thread ends; executable memory is refused below */
	SCMP_SYS(munmap),
	SCMP_SYS(mremap),
	SCMP_SYS(madvise),
	SCMP_SYS(brk),
	SCMP_SYS(exit),
	SCMP_SYS(exit_group),
	SCMP_SYS(getrandom),
	SCMP_SYS(rt_sigreturn),
	SCMP_SYS(clock_gettime),
	/* bytes through open descriptors */
	SCMP_SYS(read),
	SCMP_SYS(write),
	SCMP_SYS(readv),
	SCMP_SYS(writev),
};

static const struct sandbox_rule common_rules[] = {
	{ SCMP_SYS(mmap), 2, PROT_EXEC, 0 },
	{ SCMP_SYS(mprotect), 2, PROT_EXEC, 0 },
};

static int allow_calls(scmp_filter_ctx f, const int *calls, size_t count)
{
	int r = 0;

	for (size_t i = 0; i < count && r >= 0; i++)
		r = seccomp_rule_add(f, SCMP_ACT_ALLOW, calls[i], 0);
	return r;
}

static int allow_rules(scmp_filter_ctx f, const struct sandbox_rule *rules, size_t count)
{
	int r = 0;

	for (size_t i = 0; i < count && r >= 0; i++) {
		const struct sandbox_rule *u = &rules[i];

		r = seccomp_rule_add(f, SCMP_ACT_ALLOW, u->call, 1,
				     SCMP_CMP(u->argument, SCMP_CMP_MASKED_EQ, u->mask, u->value));
	}
	return r;
}

static int load_filter(scmp_filter_ctx f, const struct sandbox *s)
{
	int r = seccomp_attr_set(f, SCMP_FLTATR_CTL_TSYNC, 1);

	if (r >= 0)
		r = allow_calls(f, common, ARRAY_SIZE(common));
	if (r >= 0)
		r = allow_calls(f, s->calls, s->call_count);
	if (r >= 0)
		r = allow_rules(f, common_rules, ARRAY_SIZE(common_rules));
	if (r >= 0)
		r = allow_rules(f, s->rules, s->rule_count);
	return r >= 0 ? seccomp_load(f) : r;
}

int sandbox_enter(const struct sandbox *s, struct error *err)
{
	scmp_filter_ctx f;
	int r;

	/* The C library opens its time zone file once, when time is first converted. */
	tzset();
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return error_errno(err, -errno, "cannot give up new privileges");
	f = seccomp_init(SCMP_ACT_KILL_PROCESS);
	if (!f)
		return error_set(err, -ENOMEM, "cannot make the system-call filter");
	r = load_filter(f, s);
	seccomp_release(f);
	return r < 0 ? error_errno(err, r, "cannot install the system-call filter") : 0;
}

int sandbox_drop_capabilities(struct error *err)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	const struct __user_cap_data_struct none[2] = { 0 };

	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0 ||
	    syscall(SYS_capset, &head, none) < 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		return error_errno(err, -errno, "cannot give up capabilities");
	return 0;
}
