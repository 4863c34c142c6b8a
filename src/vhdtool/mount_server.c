// SPDX-License-Identifier: MIT
/*
 * See mount_server.h. Between `vhd mount` and the server is the keeper, a process that only waits
 * for the server and removes the state after it, which the server may not do in its box. The
 * server's first and only message to `vhd mount` is how opening went. It opens its note beforehand,
 * so that whoever waits for the server finds there what it had to say, with or without a keeper: a
 * note that stayed empty is that of a server which was killed.
 */
#include "vhdtool/mount_server.h"

#include "lib/cleanup.h"
#include "vhdtool/box.h"
#include "vhdtool/fuse.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define IO_DEPTH 512u
#define CLOSED   "closed" /* the note of a server that ended well */

struct opened {
	int result;
	pid_t pid;
	struct disk_geometry geometry;
	struct error err;
};

/* Nothing of the caller's may stay open: a shell waits for the other end of a pipe. */
static void leave_the_terminal(void)
{
	setsid();
	if (chdir("/") < 0)
		return;
	signal(SIGTERM, SIG_IGN); /* unmounting ends us, not the end of a session */
	signal(SIGINT, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	box_mute();
#ifdef PR_SET_IO_FLUSHER
	/* Writing out memory must not wait for us to write out memory. Needs a privilege. */
	prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0);
#endif
}

/* Empty until the image is closed. */
static int open_note(const struct mount_state *s, struct error *err)
{
	char path[PATH_MAX];
	int fd;

	mount_state_path(s, "error", path);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	return fd < 0 ? error_errno(err, -errno, "cannot make \"%s\"", path) : fd;
}

static int serve(struct loop *loop, struct disk *disk, const struct mount_state *s, int fuse_fd,
		 int note)
{
	const struct fuse_export export = {
		.disk = disk,
		.writable = !s->read_only,
		.uid = getuid(),
		.gid = getgid(),
	};
	struct error err = { 0 };
	struct fuse *fuse = NULL;
	int r = fuse_new(loop, fuse_fd, &export, &fuse, &err), closed;

	if (r >= 0)
		r = loop_run(loop);
	fuse_free(fuse);
	close(fuse_fd);
	closed = disk_close(disk, &err);
	dprintf(note, "%s\n", r < 0 || closed < 0 ? err.message : CLOSED);
	return r < 0 ? r : closed;
}

static int server(const struct mount_state *s, const struct tool_image *image, int fuse_fd,
		  int tell)
{
	struct opened o = { .pid = getpid() };
	struct disk *disk = NULL;
	struct loop *loop = NULL;
	int note = -1;
	ssize_t n;

	o.result = loop_new(IO_DEPTH, &loop, &o.err);
	if (o.result >= 0)
		o.result = tool_open(loop, s->image, s->read_only, image, &disk, &o.err);
	if (o.result >= 0)
		o.geometry = disk->geometry;
	leave_the_terminal();
	if (o.result >= 0)
		o.result = note = open_note(s, &o.err);
	if (o.result >= 0)
		o.result = box_enter(false, &o.err);
	n = write(tell, &o, sizeof(o));
	close(tell);
	if (o.result >= 0 && n == sizeof(o))
		o.result = serve(loop, disk, s, fuse_fd, note);
	else
		(void)disk_close(disk, NULL);
	loop_free(loop);
	return o.result;
}

static void keep(const struct mount_state *s, pid_t pid)
{
	int status = -1;

	leave_the_terminal();
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (!status) /* else `vhd unmount` has something to say */
		mount_state_remove(s);
}

/* In the keeper. The server's descriptors are not its own: else they would outlive the server. */
static void start(const struct mount_state *s, const struct tool_image *image, int fuse_fd,
		  int tell)
{
	pid_t pid;

	signal(SIGCHLD, SIG_DFL);
	pid = fork();
	if (!pid)
		_exit(server(s, image, fuse_fd, tell) < 0);
	close(fuse_fd);
	close(tell);
	if (pid > 0)
		keep(s, pid);
}

int mount_server_start(struct mount_state *s, const struct tool_image *image, int fuse_fd,
		       struct disk_geometry *ret, struct error *err)
{
	struct opened o = { 0 };
	int ends[2];
	pid_t keeper;
	ssize_t n;

	if (pipe2(ends, O_CLOEXEC) < 0) {
		close(fuse_fd);
		return error_errno(err, -errno, "cannot make a pipe");
	}
	fflush(stdout);
	keeper = fork();
	if (!keeper) {
		close(ends[0]);
		start(s, image, fuse_fd, ends[1]);
		_exit(0);
	}
	close(fuse_fd);
	close(ends[1]);
	n = keeper > 0 ? read(ends[0], &o, sizeof(o)) : -1;
	close(ends[0]);
	if (n != sizeof(o))
		return error_set(err, -EIO, "the server of the image did not start");
	s->pid = o.pid;
	s->started = mount_process_start(o.pid);
	if (o.result < 0)
		return error_set(err, o.result, "%s", o.err.message);
	*ret = o.geometry;
	return 0;
}

/* A note that is not there was removed by the keeper, after a good end, or never made. */
static int read_note(const struct mount_state *s, bool *ret_killed, struct error *err)
{
	_cleanup_fclose_ FILE *f = NULL;
	char path[PATH_MAX], text[400] = "";

	mount_state_path(s, "error", path);
	f = fopen(path, "re");
	*ret_killed = f && !fgets(text, sizeof(text), f);
	text[strcspn(text, "\n")] = 0;
	if (!*text || !strcmp(text, CLOSED))
		return 0;
	box_clean(text, sizeof(text));
	return error_set(err, -EIO, "the image could not be closed: %s", text);
}

int mount_server_wait(const struct mount_state *s, unsigned seconds, bool *ret_killed,
		      struct error *err)
{
	_cleanup_close_ int fd =
		mount_state_alive(s) ? (int)syscall(SYS_pidfd_open, s->pid, 0) : -1;
	struct pollfd p = { .fd = fd, .events = POLLIN };

	if (fd >= 0 && !poll(&p, 1, (int)seconds * 1000))
		return error_set(err, -EBUSY,
				 "process %d still serves the image; something uses it", s->pid);
	return read_note(s, ret_killed, err);
}
