// SPDX-License-Identifier: MIT
/* vhd serve: an image as an NBD export on a Unix socket. */
#include "vhdtool/verbs.h"

#include "lib/cleanup.h"
#include "vhdtool/nbd_server.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>

static struct {
	const char *socket, *export, *pid_file, *fd;
	bool writable, once;
	struct tool_image image;
} options;

static const struct tool_option table[] = {
	{ "socket", TOOL_FILE, &options.socket, "PATH", "listen at this Unix socket" },
	{ "fd", TOOL_STRING, &options.fd, "N", "or on this descriptor, which listens already" },
	{ "writable", TOOL_FLAG, &options.writable, NULL, "clients may write" },
	{ "export", TOOL_STRING, &options.export, "NAME", "name of the export (empty)" },
	{ "once", TOOL_FLAG, &options.once, NULL, "end when the last client has gone" },
	{ "pid-file", TOOL_FILE, &options.pid_file, "PATH",
	  "write the process id there when ready" },
	TOOL_IMAGE_OPTIONS(options.image),
	{ 0 },
};

struct service {
	struct nbd_server *server;
	struct loop_watch signals;
};

static void on_signal(struct loop_watch *w, uint32_t events)
{
	struct service *s = container_of(w, struct service, signals);

	(void)events;
	loop_unwatch(w);
	nbd_server_stop(s->server);
}

static int signal_fd(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static int listener(struct error *err)
{
	int fd, listens = 0;
	socklen_t size = sizeof(listens);
	char *end;

	if (!options.fd)
		return nbd_listen(options.socket, err);
	fd = (int)strtol(options.fd, &end, 10);
	if (*end || end == options.fd ||
	    getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) < 0 || !listens)
		return error_set(err, -EINVAL, "descriptor %s is no socket that listens",
				 options.fd);
	if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) < 0)
		return error_errno(err, -errno, "descriptor %d", fd);
	return fd;
}

static int write_pid_file(struct error *err)
{
	_cleanup_fclose_ FILE *f = NULL;

	if (!options.pid_file)
		return 0;
	f = fopen(options.pid_file, "we");
	if (!f || fprintf(f, "%d\n", getpid()) < 0 || fflush(f))
		return error_errno(err, -errno, "cannot write \"%s\"", options.pid_file);
	return 0;
}

static int serve(struct loop *loop, struct disk *disk, struct error *err)
{
	struct nbd_export export = {
		.disk = disk,
		.name = options.export ? options.export : "",
		.writable = options.writable,
	};
	struct service s = { .signals.fd = -1 };
	_cleanup_close_ int signals = signal_fd();
	int fd = listener(err), r;

	if (fd < 0)
		return fd;
	r = nbd_server_new(loop, fd, &export, options.once, &s.server, err);
	if (r >= 0)
		r = write_pid_file(err);
	if (r >= 0) {
		r = loop_watch(loop, &s.signals, signals, EPOLLIN, on_signal);
		if (r >= 0)
			r = loop_run(loop);
		if (r < 0)
			error_errno(err, r, "the event loop");
		loop_unwatch(&s.signals);
	}
	nbd_server_free(s.server);
	if (options.socket)
		unlink(options.socket);
	if (options.pid_file)
		unlink(options.pid_file);
	return r;
}

static int run(unsigned count, char **arguments, struct error *err)
{
	struct disk *disk;
	struct loop *loop;
	int r, closed;

	(void)count;
	if (!options.socket == !options.fd)
		return tool_usage(err, "say --socket or --fd");
	if (options.export && strlen(options.export) > NBD_NAME_MAX)
		return tool_usage(err, "--export is too long");
	r = loop_new(1024, &loop, err);
	if (r < 0)
		return r;
	options.image.server = true;
	r = tool_open(loop, arguments[0], !options.writable, &options.image, &disk, err);
	if (r >= 0) {
		r = serve(loop, disk, err);
		closed = disk_close(disk, r < 0 ? NULL : err);
		r = r < 0 ? r : closed;
	}
	loop_free(loop);
	return r < 0 ? r : TOOL_OK;
}

const struct tool_verb verb_serve = {
	.name = "serve",
	.synopsis = "IMAGE --socket PATH [OPTION...]",
	.summary = "serve an image to NBD clients",
	.notes = "Serves until SIGTERM; then all is written and the image is closed.\n\n"
		 "Example:\n"
		 "  vhd serve disk.vhdx --socket /run/disk.sock &\n"
		 "  nbdinfo nbd+unix:///?socket=/run/disk.sock\n",
	.options = table,
	.arguments_min = 1,
	.arguments_max = 1,
	.run = run,
};
