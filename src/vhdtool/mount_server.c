// SPDX-License-Identifier: MIT
/* See mount_server.h. The child's first and only message to the parent is how opening went. */
#include "vhdtool/mount_server.h"

#include "lib/cleanup.h"
#include "vhdtool/fuse.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#define IO_DEPTH 512u

struct opened {
	int result;
	struct disk_geometry geometry;
	struct error err;
};

/* Nothing of the caller's may stay open: a shell waits for the other end of a pipe. */
static void leave_the_terminal(void)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	setsid();
	if (chdir("/") < 0)
		return;
	signal(SIGTERM, SIG_IGN); /* unmounting ends us, not the end of a session */
	signal(SIGINT, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	for (int fd = 0; fd < 3 && null >= 0; fd++)
		dup2(null, fd);
#ifdef PR_SET_IO_FLUSHER
	/* Writing out memory must not wait for us to write out memory. Needs a privilege. */
	prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0);
#endif
}

static void leave_a_note(const struct mount_state *s, const struct error *err)
{
	_cleanup_fclose_ FILE *f = NULL;
	char path[PATH_MAX];

	mount_state_path(s, "error", path);
	f = fopen(path, "we");
	if (f)
		fprintf(f, "%s\n", err->message);
}

static int serve(struct loop *loop, struct disk *disk, const struct mount_state *s, int fuse_fd)
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
	if (r >= 0 && closed >= 0)
		mount_state_remove(s);
	else
		leave_a_note(s, &err);
	return r < 0 ? r : closed;
}

static int child(const struct mount_state *s, const struct tool_image *image, int fuse_fd, int tell)
{
	struct opened o = { 0 };
	struct disk *disk = NULL;
	struct loop *loop = NULL;
	ssize_t n;

	o.result = loop_new(IO_DEPTH, &loop, &o.err);
	if (o.result >= 0)
		o.result = tool_open(loop, s->image, s->read_only, image, &disk, &o.err);
	if (o.result >= 0)
		o.geometry = disk->geometry;
	leave_the_terminal();
	n = write(tell, &o, sizeof(o));
	close(tell);
	if (o.result >= 0 && n == sizeof(o))
		o.result = serve(loop, disk, s, fuse_fd);
	else
		(void)disk_close(disk, NULL);
	loop_free(loop);
	return o.result;
}

int mount_server_start(struct mount_state *s, const struct tool_image *image, int fuse_fd,
		       struct disk_geometry *ret, struct error *err)
{
	struct opened o = { 0 };
	int ends[2];
	ssize_t n;

	if (pipe2(ends, O_CLOEXEC) < 0) {
		close(fuse_fd);
		return error_errno(err, -errno, "cannot make a pipe");
	}
	fflush(stdout);
	s->pid = fork();
	if (!s->pid) {
		close(ends[0]);
		_exit(child(s, image, fuse_fd, ends[1]) < 0);
	}
	close(fuse_fd);
	close(ends[1]);
	s->started = s->pid > 0 ? mount_process_start(s->pid) : 0;
	n = s->pid > 0 ? read(ends[0], &o, sizeof(o)) : -1;
	close(ends[0]);
	if (n != sizeof(o))
		return error_set(err, -EIO, "the server of the image did not start");
	if (o.result < 0)
		return error_set(err, o.result, "%s", o.err.message);
	*ret = o.geometry;
	return 0;
}

static int read_note(const struct mount_state *s, struct error *err)
{
	_cleanup_fclose_ FILE *f = NULL;
	char path[PATH_MAX], text[400] = "";

	mount_state_path(s, "error", path);
	f = fopen(path, "re");
	if (!f)
		return 0;
	if (!fgets(text, sizeof(text), f))
		text[0] = 0;
	text[strcspn(text, "\n")] = 0;
	return error_set(err, -EIO, "the image could not be closed: %s", text);
}

int mount_server_wait(const struct mount_state *s, unsigned seconds, struct error *err)
{
	_cleanup_close_ int fd =
		mount_state_alive(s) ? (int)syscall(SYS_pidfd_open, s->pid, 0) : -1;
	struct pollfd p = { .fd = fd, .events = POLLIN };

	if (fd >= 0 && !poll(&p, 1, (int)seconds * 1000))
		return error_set(err, -EBUSY,
				 "process %d still serves the image; something uses it", s->pid);
	return read_note(s, err);
}
