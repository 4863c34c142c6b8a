// SPDX-License-Identifier: MIT
/*
 * The system-call filter of the worker. A guest that takes over this process can use what it has
 * open (its own disks, its console, KVM for its own partition) and nothing else: no files, no
 * sockets of its own, no programs, no other processes. Each group says why it is there.
 */
#include "worker/sandbox.h"

#include "lib/types.h"

#include <errno.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define KVM_IOCTL_TYPE 0xae

static const int allowed[] = {
	/* the event loop, timers, signals between threads */
	SCMP_SYS(epoll_wait),
	SCMP_SYS(epoll_pwait),
	SCMP_SYS(epoll_ctl),
	SCMP_SYS(poll),
	SCMP_SYS(eventfd2),
	SCMP_SYS(clock_gettime),
	SCMP_SYS(clock_nanosleep),
	SCMP_SYS(futex),

	SCMP_SYS(getpid),
	SCMP_SYS(gettid),
	SCMP_SYS(rt_sigreturn),
	SCMP_SYS(rt_sigprocmask),
	SCMP_SYS(restart_syscall),
	SCMP_SYS(sched_yield),
	SCMP_SYS(set_robust_list),
	SCMP_SYS(rseq),
	/* bytes through open descriptors: console, control socket, eventfds, images */
	SCMP_SYS(read),
	SCMP_SYS(write),
	SCMP_SYS(readv),
	SCMP_SYS(writev),
	SCMP_SYS(pread64),
	SCMP_SYS(pwrite64),
	SCMP_SYS(preadv),
	SCMP_SYS(pwritev),
	SCMP_SYS(close),
	SCMP_SYS(lseek),
	SCMP_SYS(fstat),
	SCMP_SYS(newfstatat),
	SCMP_SYS(fcntl),
	SCMP_SYS(accept4),
	SCMP_SYS(sendmsg),
	SCMP_SYS(recvmsg),
	SCMP_SYS(sendto),
	SCMP_SYS(recvfrom),
	/* disk images: I/O, growth, holes, durability */
	SCMP_SYS(io_uring_enter),
	SCMP_SYS(fdatasync),
	SCMP_SYS(fsync),
	SCMP_SYS(ftruncate),
	SCMP_SYS(fallocate),
	/* the allocator, and thread ends; executable memory is refused below */
	SCMP_SYS(munmap),
	SCMP_SYS(mremap),
	SCMP_SYS(madvise),
	SCMP_SYS(brk),
	SCMP_SYS(exit),
	SCMP_SYS(exit_group),
	SCMP_SYS(getrandom),
};

/* ioctl: KVM's only; terminals were set up before. Signals: to threads of this process. */
static int allow_arguments(scmp_filter_ctx f)
{
	int r = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1,
				 SCMP_A1(SCMP_CMP_MASKED_EQ, 0xff00, KVM_IOCTL_TYPE << 8));

	if (r >= 0)
		r = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1,
				     SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)getpid()));
	if (r >= 0)
		r = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1,
				     SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	if (r >= 0)
		r = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1,
				     SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	return r;
}

static int load_filter(scmp_filter_ctx f)
{
	int r = seccomp_attr_set(f, SCMP_FLTATR_CTL_TSYNC, 1);

	for (size_t i = 0; i < ARRAY_SIZE(allowed) && r >= 0; i++)
		r = seccomp_rule_add(f, SCMP_ACT_ALLOW, allowed[i], 0);
	if (r >= 0)
		r = allow_arguments(f);
	return r >= 0 ? seccomp_load(f) : r;
}

int sandbox_enter(struct error *err)
{
	scmp_filter_ctx f;
	int r;

	/* The C library opens its time zone file once, when time is first converted (the RTC). */
	tzset();
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return error_errno(err, -errno, "cannot give up new privileges");
	f = seccomp_init(SCMP_ACT_KILL_PROCESS);
	if (!f)
		return error_set(err, -ENOMEM, "cannot make the system-call filter");
	r = load_filter(f);
	seccomp_release(f);
	return r < 0 ? error_errno(err, r, "cannot install the system-call filter") : 0;
}
