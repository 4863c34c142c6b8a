/* SPDX-License-Identifier: MIT */
/*
 * For tests: network namespaces that go with the processes that made them, however these end. An
 * ordinary user gets one too, where the kernel lets him have namespaces.
 */
#pragma once

#include "lib/cleanup.h"
#include "lib/types.h"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/wait.h>

/* As printf; 0 when it went well. What it says is shown. */
static inline int run(const char *format, ...)
{
	char command[512];
	va_list args;

	va_start(args, format);
	vsnprintf(command, sizeof(command), format, args);
	va_end(args);
	return system(command);
}

static inline void write_file(const char *path, const char *format, unsigned number)
{
	FILE *f = fopen(path, "w");

	if (!f)
		return;
	fprintf(f, format, number);
	fclose(f);
}

/* This process enters one of its own; false = it may not. */
static inline bool netns_enter(void)
{
	unsigned uid = geteuid(), gid = getegid();

	if (unshare(CLONE_NEWNET) < 0) {
		if (unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0)
			return false;
		write_file("/proc/self/setgroups", "deny", 0);
		write_file("/proc/self/uid_map", "0 %u 1", uid);
		write_file("/proc/self/gid_map", "0 %u 1", gid);
	}
	return run("ip link set lo up") == 0;
}

/* A child with a namespace of its own, which waits to be killed; its pid. */
static inline pid_t netns_child(void)
{
	int ready[2];
	char byte;
	pid_t pid;

	if (pipe(ready) < 0)
		return -1;
	pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (unshare(CLONE_NEWNET) < 0 || run("ip link set lo up") != 0)
			_exit(1);
		(void)!write(ready[1], "x", 1);
		for (;;)
			pause();
	}
	close(ready[1]);
	if (read(ready[0], &byte, 1) != 1)
		pid = -1;
	close(ready[0]);
	return pid;
}

static inline void netns_end(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static inline int tap_make(const char *name)
{
	struct ifreq q = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR };
	int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);

	strncpy(q.ifr_name, name, sizeof(q.ifr_name) - 1);
	if (fd >= 0 && ioctl(fd, TUNSETIFF, &q) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}
