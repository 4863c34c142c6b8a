// SPDX-License-Identifier: MIT
/* See image_chain.h: runs `vhd info --chain --json` and reads what it prints, within bounds. */
#include "daemon/image_chain.h"

#include "lib/cleanup.h"
#include "lib/program.h"
#include "lib/types.h"
#include "schema/json.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define OUTPUT_MAX (MIB - 1)
#define TIME_MS    10000

struct run {
	pid_t pid;
	int fd;
	size_t size;
	char output[OUTPUT_MAX + 1];
};

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static int run_begin(struct run *run, const char *program, const char *path)
{
	char *argv[] = { (char *)"vhd",
			 (char *)"info",
			 (char *)"--chain",
			 (char *)"--json",
			 (char *)"--",
			 (char *)path,
			 NULL };
	char *env[] = { (char *)"LC_ALL=C", NULL };
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	sigset_t none;
	int p[2], r;

	if (pipe2(p, O_CLOEXEC) < 0)
		return -errno;
	sigemptyset(&none);
	posix_spawnattr_init(&attributes);
	posix_spawnattr_setsigmask(&attributes, &none);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&actions, p[1], 1);
	posix_spawn_file_actions_adddup2(&actions, p[1], 2);
	r = posix_spawn(&run->pid, program, &actions, &attributes, argv, env);
	posix_spawn_file_actions_destroy(&actions);
	posix_spawnattr_destroy(&attributes);
	close(p[1]);
	run->fd = p[0];
	if (r)
		close(p[0]);
	return -r;
}

/* Until it closes its output. */
static int run_read(struct run *run)
{
	int64_t end = now_ms() + TIME_MS;

	for (;;) {
		struct pollfd p = { .fd = run->fd, .events = POLLIN };
		int64_t left = end - now_ms();
		ssize_t n;

		if (left <= 0 || (poll(&p, 1, (int)left) == 0))
			return -ETIMEDOUT;
		n = read(run->fd, run->output + run->size, OUTPUT_MAX - run->size);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : 0;
		run->size += (size_t)n;
		if (run->size == OUTPUT_MAX)
			return -E2BIG;
	}
}

/* Its exit status; it is killed when its output could not be read. */
static int run_end(struct run *run, int result)
{
	int status = 0;

	close(run->fd);
	if (result < 0)
		kill(run->pid, SIGKILL);
	while (waitpid(run->pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int paths_take(const json_t *list, char **ret, unsigned max, unsigned *ret_count)
{
	json_t *image;
	size_t i;

	json_array_foreach(list, i, image)
	{
		const char *file = json_string_value(json_object_get(image, "file"));

		if (*ret_count == max)
			return -E2BIG;
		ret[*ret_count] = file ? realpath(file, NULL) : NULL;
		if (!ret[*ret_count])
			return -ENOENT;
		++*ret_count;
	}
	return *ret_count ? 0 : -EPROTO;
}

static int run_all(struct run *run, const char *path, struct error *err)
{
	char program[PATH_MAX];
	int r = program_find("vhd", "../vhdtool", program, err), status;

	if (r < 0)
		return r;
	r = run_begin(run, program, path);
	if (r < 0)
		return error_errno(err, r, "cannot run \"%s\"", program);
	r = run_read(run);
	status = run_end(run, r);
	if (r < 0)
		return error_errno(err, r, "\"%s\": cannot be looked at", path);
	run->output[run->size] = 0;
	if (status)
		return error_set(err, -EINVAL, "\"%s\" cannot be attached: %.200s", path,
				 run->output);
	return 0;
}

static int format_check(const char *path, const char *format, const json_t *list, struct error *err)
{
	const char *found = json_string_value(json_object_get(json_array_get(list, 0), "format"));

	if (!format || (strcmp(format, "vhd") && strcmp(format, "vhdx")) ||
	    (found && !strcmp(found, format)))
		return 0;
	return error_set(err, -EINVAL, "\"%s\" is not a %s image; it looks like %s", path, format,
			 found ? found : "nothing known");
}

int image_chain(const char *path, const char *format, char **ret, unsigned max, unsigned *ret_count,
		struct error *err)
{
	_cleanup_free_ struct run *run = calloc(1, sizeof(*run));
	json_t *list;
	int r = run ? run_all(run, path, err) : error_set(err, -ENOMEM, "not enough memory");

	*ret_count = 0;
	if (r < 0)
		return r;
	list = json_loadb(run->output, run->size, 0, NULL);
	r = format_check(path, format, list, err);
	if (r < 0) {
		json_decref(list);
		return r;
	}
	r = paths_take(list, ret, max, ret_count);
	json_decref(list);
	if (r < 0) {
		image_chain_free(ret, *ret_count);
		error_errno(err, r, "\"%s\": its chain of at most %u images cannot be followed",
			    path, max);
	}
	return r;
}

void image_chain_free(char **paths, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		free(paths[i]);
}
