// SPDX-License-Identifier: MIT
/* See fuse_mount.h; mount(2), and the protocol of fusermount3: a descriptor over a socket. */
#include "vhdtool/fuse_mount.h"

#include "lib/cleanup.h"
#include "lib/types.h"
#include "lib/unix_socket.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/wait.h>

int run_program(const char *const *argv)
{
	pid_t pid = fork();
	int status;

	if (!pid) {
		execvp(argv[0], (char *const *)(uintptr_t)argv);
		_exit(127);
	}
	if (pid < 0)
		return -errno;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

static int mount_as_root(const char *target, const char *source, struct error *err)
{
	_cleanup_close_ int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	char data[128];

	if (fd < 0)
		return error_errno(err, -errno, "cannot open /dev/fuse");
	snprintf(data, sizeof(data),
		 "fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions", fd);
	if (mount(source, target, "fuse.vhd", MS_NOSUID | MS_NODEV, data) < 0)
		return error_errno(err, -errno, "cannot mount FUSE at \"%s\"", target);
	return steal_fd(&fd);
}

static int receive_fd(int from)
{
	int fd = -1;
	struct unix_fds fds = { &fd, 0, 1, false };
	char byte;

	return unix_receive(from, &byte, 1, &fds, 0) > 0 ? fd : -1;
}

static int mount_as_user(const char *target, struct error *err)
{
	const char *const argv[] = { "fusermount3", "-o",   "fsname=vhd,subtype=vhd,nosuid,nodev",
				     "--",          target, NULL };
	char number[16];
	int ends[2], fd = -1, status;

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) < 0)
		return error_errno(err, -errno, "cannot make a socket");
	snprintf(number, sizeof(number), "%d", ends[1]);
	setenv("_FUSE_COMMFD", number, 1);
	status = run_program(argv);
	unsetenv("_FUSE_COMMFD");
	close(ends[1]);
	if (!status)
		fd = receive_fd(ends[0]);
	close(ends[0]);
	if (fd < 0)
		return error_set(err, status == 127 ? -ENOENT : -EIO,
				 status == 127
					 ? "mounting needs root, or fusermount3 (package fuse3)"
					 : "fusermount3 could not mount at \"%s\"",
				 target);
	return fd;
}

int fuse_mount(const char *target, const char *source, struct error *err)
{
	return geteuid() ? mount_as_user(target, err) : mount_as_root(target, source, err);
}

int fuse_unmount(const char *target, int lazy, struct error *err)
{
	const char *const argv[] = { "fusermount3", "-u", "-q", lazy ? "-z" : "--", target, NULL };
	int r;

	if (!geteuid())
		r = umount2(target, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) < 0 ? -errno : 0;
	else
		r = run_program(argv) ? -EBUSY : 0;
	/* EINVAL: nothing is mounted there */
	return r < 0 && r != -EINVAL ? error_errno(err, r, "cannot unmount \"%s\"", target) : 0;
}
