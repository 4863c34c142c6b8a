// SPDX-License-Identifier: MIT
/* See program.h. */
#include "cli/program.h"

#include "lib/types.h"

#include <errno.h>
#include <limits.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

bool program_exists(const char *name)
{
	const char *path = getenv("PATH");
	char file[PATH_MAX];

	while (path && *path) {
		size_t n = strcspn(path, ":");

		snprintf(file, sizeof(file), "%.*s/%s", (int)n, path, name);
		if (!access(file, X_OK))
			return true;
		path += n + (path[n] == ':');
	}
	return false;
}

int program_run(const char *const *argv, struct error *err)
{
	posix_spawn_file_actions_t actions;
	int status, r;
	pid_t pid;

	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", 0, 0);
	posix_spawn_file_actions_adddup2(&actions, STDERR_FILENO, STDOUT_FILENO);
	/* libcurl's sockets are not for others; and some scripts cannot count beyond 9 */
	posix_spawn_file_actions_addclosefrom_np(&actions, 3);
	r = posix_spawnp(&pid, argv[0], &actions, NULL, (char *const *)argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	if (r)
		return error_errno(err, -r, "cannot start \"%s\"", argv[0]);
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return error_errno(err, -errno, "cannot wait for \"%s\"", argv[0]);
	if (WIFSIGNALED(status))
		return error_set(err, -EIO, "\"%s\" was ended by signal %d", argv[0],
				 WTERMSIG(status));
	if (WEXITSTATUS(status))
		return error_set(err, -EIO, "\"%s\" failed with status %d; above is what it said",
				 argv[0], WEXITSTATUS(status));
	return 0;
}
