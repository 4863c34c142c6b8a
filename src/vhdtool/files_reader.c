// SPDX-License-Identifier: MIT
/*
 * See files_reader.h. A reader is executed, not only forked: nothing of this process's memory is
 * there for a file system that takes it over, addresses are drawn anew, and no library of a file
 * system (libntfs-3g is under the GPL) is linked into `vhd`. Its environment is empty, since there
 * is nothing in ours that it should heed.
 */
#include "vhdtool/files_reader.h"

#include "lib/program.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

static const struct files_reader readers[] = {
	[FILES_EXT] = { "ext2/3/4", "partita-files-ext", "libext2fs", "ext2fs" },
	[FILES_FAT] = { "FAT", "partita-files-fat", NULL, NULL },
	[FILES_NTFS] = { "NTFS", "partita-files-ntfs", "libntfs-3g", "ntfs3g" },
};

const struct files_reader *files_reader_of(enum files_system system)
{
	return system < ARRAY_SIZE(readers) && readers[system].name ? &readers[system] : NULL;
}

bool files_reader_installed(const struct files_reader *r)
{
	char path[PATH_MAX];

	return program_find(r->program, NULL, path, NULL) >= 0;
}

static int find(const struct files_reader *r, char path[static PATH_MAX], struct error *err)
{
	struct error why;
	int found = program_find(r->program, NULL, path, &why);

	if (found >= 0)
		return 0;
	if (!r->library)
		return error_set(err, found, "%s: install it", why.message);
	return error_set(err, found,
			 "%s: install it, or build it with %s (option %s); `vhd mount` has "
			 "what the kernel reads",
			 why.message, r->library, r->option);
}

/* In the child. Standard error stays for what the loader may have to say; the reader closes it. */
static void exec_reader(const struct files_reader *r, const char *path, int fd)
{
	char *const arguments[] = { (char *)r->program, PARTITA_VERSION, NULL };
	char *const environment[] = { NULL };

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (dup2(fd, STDIN_FILENO) >= 0 && !close_range(STDERR_FILENO + 1, ~0u, 0)) {
		close(STDOUT_FILENO);
		execve(path, arguments, environment);
	}
	perror(path);
	_exit(127);
}

int files_reader_start(const struct files_reader *r, pid_t *ret_pid, int *ret_fd, struct error *err)
{
	char path[PATH_MAX];
	int ends[2], found = find(r, path, err);
	pid_t pid;

	if (found < 0)
		return found;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends) < 0)
		return error_errno(err, -errno, "cannot make a socket");
	fflush(NULL);
	pid = fork();
	if (!pid)
		exec_reader(r, path, ends[1]);
	close(ends[1]);
	if (pid < 0) {
		found = error_errno(err, -errno, "cannot start %s", r->program);
		close(ends[0]);
		return found;
	}
	*ret_pid = pid;
	*ret_fd = ends[0];
	return 0;
}
