// SPDX-License-Identifier: MIT
/*
 * Control groups (version 2): one for each worker, below one that was delegated to us. The keeper
 * is in it too. Groups are known by their path; nothing is kept open.
 */
#include "daemon/supervisor_internal.h"
#include "lib/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define CPU_PERIOD_US 100000
#define CPU_QUOTA_MIN 1000 /* the kernel's own */

static int file_open(const char *cgroup, const char *id, const char *name, int flags)
{
	char path[4096];
	int n = snprintf(path, sizeof(path), "%s/%s/%s", cgroup, id, name);
	int fd = (size_t)n < sizeof(path) ? open(path, flags | O_CLOEXEC) : -1;

	return fd < 0 ? -errno : fd;
}

static int file_write(const char *cgroup, const char *id, const char *name, const char *text)
{
	_cleanup_close_ int fd = file_open(cgroup, id, name, O_WRONLY);

	if (fd < 0)
		return fd;
	return write(fd, text, strlen(text)) < 0 ? -errno : 0;
}

/* --- ours --- */

static bool inside(const char *cgroup)
{
	_cleanup_fclose_ FILE *file = NULL;
	char path[4096];
	int pid;

	snprintf(path, sizeof(path), "%s/cgroup.procs", cgroup);
	file = fopen(path, "re");
	while (file && fscanf(file, "%d", &pid) == 1)
		if (pid == getpid())
			return true;
	return false;
}

/*
 * A group with processes of its own gives its children no controllers, or takes them for groups of
 * threads that no process may join: so we go into one, too.
 */
static int step_aside(const char *cgroup)
{
	char path[4096];

	if (!inside(cgroup))
		return 0;
	snprintf(path, sizeof(path), "%s/service", cgroup);
	if (mkdir(path, 0755) < 0 && errno != EEXIST)
		return -errno;
	return file_write(cgroup, "service", "cgroup.procs", "0");
}

int supervisor_cgroup_set_up(struct supervisor *s, const char *path, struct error *err)
{
	static const char *const controllers[] = { "+cpu", "+memory", "+io" };
	struct stat st;
	int r = 0;

	if (strlen(path) > 3000)
		return error_set(err, -ENAMETOOLONG, "the cgroup's path is too long");
	if (stat(path, &st) < 0)
		return error_errno(err, -errno, "cgroup \"%s\"", path);
	s->cgroup = strdup(path);
	if (!s->cgroup)
		return error_set(err, -ENOMEM, "out of memory");
	r = step_aside(path);
	if (r < 0)
		return error_errno(err, r, "cannot leave the cgroup \"%s\" to machines", path);
	for (size_t i = 0; i < ARRAY_SIZE(controllers); i++) {
		int one = file_write(path, ".", "cgroup.subtree_control", controllers[i]);

		r = one < 0 && !i ? one : r;
	}
	/* Groups are of use without it: to count, and to end all of a worker. */
	return r < 0 ? error_errno(err, r, "cgroup \"%s\" has no controller cpu to give", path) : 0;
}

/* --- a worker's --- */

int worker_cgroup_make(struct supervisor *s, const char *id, int *ret_procs, struct error *err)
{
	char path[4096];
	int fd;

	*ret_procs = -1;
	if (!s->cgroup)
		return 0;
	snprintf(path, sizeof(path), "%s/%s", s->cgroup, id);
	if (mkdir(path, 0755) < 0 && errno != EEXIST)
		return error_errno(err, -errno, "cannot make the cgroup \"%.300s\"", path);
	fd = file_open(s->cgroup, id, "cgroup.procs", O_WRONLY);
	if (fd < 0) {
		rmdir(path);
		return error_errno(err, fd, "cannot use the cgroup \"%.300s\"", path);
	}
	*ret_procs = fd;
	return 0;
}

int worker_cgroup_open(struct supervisor *s, const char *id)
{
	return s->cgroup ? file_open(s->cgroup, id, ".", O_RDONLY | O_DIRECTORY) : -ENOENT;
}

void worker_cgroup_remove(struct supervisor *s, const char *id)
{
	char path[4096];

	if (!s->cgroup)
		return;
	snprintf(path, sizeof(path), "%s/%s", s->cgroup, id);
	rmdir(path);
}

/* Both scales go from 1 to 10000 with 100 as the usual. */
unsigned worker_cpu_weight(unsigned hyperv)
{
	return MIN(MAX(hyperv, 1u), 10000u);
}

void worker_cpu_max(const struct worker_limits *l, char text[static 48])
{
	uint64_t quota = (uint64_t)l->cpu_limit * MAX(l->cpu_count, 1u) * (CPU_PERIOD_US / 100);

	if (!l->cpu_limit || l->cpu_limit >= 100)
		snprintf(text, 48, "max %d", CPU_PERIOD_US);
	else
		snprintf(text, 48, "%llu %d", (unsigned long long)MAX(quota, CPU_QUOTA_MIN),
			 CPU_PERIOD_US);
}

static bool limits_usual(const struct worker_limits *l)
{
	return (!l->cpu_limit || l->cpu_limit >= 100) && (!l->cpu_weight || l->cpu_weight == 100) &&
	       !l->memory_max;
}

static int limit_memory(struct supervisor *s, const char *id, const struct worker_limits *l,
			struct error *err)
{
	char text[48] = "max";
	int r;

	if (l->memory_max)
		snprintf(text, sizeof(text), "%llu", (unsigned long long)l->memory_max);
	r = file_write(s->cgroup, id, "memory.max", text);
	if (r >= 0 || (r == -ENOENT && !l->memory_max))
		return 0;
	return error_errno(err, r, "cannot limit memory in the cgroup");
}

int worker_cgroup_limit(struct supervisor *s, const char *id, const struct worker_limits *l,
			struct error *err)
{
	char text[48];
	int r;

	if (!s->cgroup)
		return limits_usual(l) ? 0
				       : error_set(err, -EOPNOTSUPP,
						   "limits of processor time and memory need a "
						   "delegated cgroup, which the service does not "
						   "have here");
	worker_cpu_max(l, text);
	r = file_write(s->cgroup, id, "cpu.max", text);
	if (r >= 0) {
		snprintf(text, sizeof(text), "%u",
			 worker_cpu_weight(l->cpu_weight ? l->cpu_weight : 100));
		r = file_write(s->cgroup, id, "cpu.weight", text);
	}
	if (r < 0 && (r != -ENOENT || !limits_usual(l)))
		return error_errno(err, r, "cannot limit processor time in the cgroup");
	return limit_memory(s, id, l, err);
}

int worker_cgroup_number(struct supervisor *s, const char *id, const char *file, const char *key,
			 uint64_t *ret)
{
	_cleanup_close_ int fd = s->cgroup ? file_open(s->cgroup, id, file, O_RDONLY) : -ENOENT;
	char text[4096], *save, *line;
	unsigned long long value;
	ssize_t n;

	if (fd < 0)
		return fd;
	n = read(fd, text, sizeof(text) - 1);
	text[MAX(n, 0)] = 0;
	for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		size_t length = key ? strlen(key) : 0;

		if (key && (strncmp(line, key, length) || line[length] != ' '))
			continue;
		if (sscanf(line + length, "%llu", &value) != 1)
			return -EUCLEAN;
		*ret = value;
		return 0;
	}
	return -ENOENT;
}

bool worker_cgroup_out_of_memory(struct supervisor *s, const char *id)
{
	uint64_t kills = 0;

	return !worker_cgroup_number(s, id, "memory.events", "oom_kill", &kills) && kills;
}
