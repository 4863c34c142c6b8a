// SPDX-License-Identifier: MIT
/*
 * The system-call filter of the worker. A guest that takes over this process can use what it has
 * open (its own disks, its console, KVM for its own partition) and nothing else: no files, no
 * sockets of its own, no programs, no other processes. Each group says why it is there.
 */
#include "worker/sandbox.h"

#include "lib/sandbox.h"

#include <seccomp.h>
#include <sys/socket.h>
#include <unistd.h>

#define KVM_IOCTL_TYPE 0xae

static const int allowed[] = {
	/* the event loop, timers, signals between threads */
	SCMP_SYS(epoll_wait),
	SCMP_SYS(epoll_pwait),
	SCMP_SYS(epoll_ctl),
	SCMP_SYS(poll),
	SCMP_SYS(eventfd2),
	SCMP_SYS(clock_nanosleep),
	SCMP_SYS(futex),

	SCMP_SYS(getpid),
	SCMP_SYS(gettid),
	SCMP_SYS(rt_sigprocmask),
	SCMP_SYS(restart_syscall),
	SCMP_SYS(sched_yield),
	SCMP_SYS(set_robust_list),
	SCMP_SYS(rseq),
	/* bytes through open descriptors: console, control socket, eventfds, images */
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
	SCMP_SYS(shutdown), /* of a guest's socket that has ended one way */
	/* disk images: I/O, growth, holes, durability */
	SCMP_SYS(io_uring_enter),
	SCMP_SYS(fdatasync),
	SCMP_SYS(fsync),
	SCMP_SYS(ftruncate),
	SCMP_SYS(fallocate),
};

int worker_sandbox_enter(struct error *err)
{
	/* ioctl: KVM's only; terminals were set up before. Signals: to threads of this process. */
	const struct sandbox_rule rules[] = {
		{ SCMP_SYS(ioctl), 1, 0xff00, KVM_IOCTL_TYPE << 8 },
		{ SCMP_SYS(tgkill), 0, UINT64_MAX, (uint64_t)getpid() },
		/* Both ends are ours, one is handed to a program that asked for it. */
		{ SCMP_SYS(socketpair), 0, UINT64_MAX, AF_UNIX },
	};
	const struct sandbox s = { allowed, ARRAY_SIZE(allowed), rules, ARRAY_SIZE(rules) };

	return sandbox_enter(&s, err);
}
