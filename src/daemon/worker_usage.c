// SPDX-License-Identifier: MIT
/*
 * What a worker uses: from its cgroup where it has one, which counts finer and knows of I/O that
 * others' processes do not show, else from /proc.
 */
#include "daemon/supervisor_internal.h"
#include "lib/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static int proc_read(pid_t pid, const char *name, char *text, size_t size)
{
	_cleanup_close_ int fd = -1;
	char path[64];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	n = read(fd, text, size - 1);
	if (n < 0)
		return -errno;
	text[n] = 0;
	return 0;
}

static int cpu_get(const struct worker *w, uint64_t *ret)
{
	unsigned long long user, system;
	char text[1024], *at;
	int r;

	if (!worker_cgroup_number(w->supervisor, w->id, "cpu.stat", "usage_usec", ret))
		return 0;
	r = proc_read(w->pid, "stat", text, sizeof(text));
	if (r < 0)
		return r;
	at = strrchr(text, ')');
	if (!at || sscanf(at, ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &user,
			  &system) != 2)
		return -EIO;
	*ret = (user + system) * 1000000 / (unsigned long long)sysconf(_SC_CLK_TCK);
	return 0;
}

static int memory_get(const struct worker *w, uint64_t *ret)
{
	unsigned long long resident;
	char text[256];
	int r = proc_read(w->pid, "statm", text, sizeof(text));

	if (r < 0)
		return r;
	if (sscanf(text, "%*u %llu", &resident) != 1)
		return -EIO;
	*ret = resident * (unsigned long long)sysconf(_SC_PAGESIZE);
	return 0;
}

/* Of all devices: "8:0 rbytes=1 wbytes=2 ...", a line each. */
static bool io_of_cgroup(const struct worker *w, struct worker_usage *ret)
{
	_cleanup_close_ int fd = -1;
	char path[4096], text[4096];
	ssize_t n;

	if (!w->supervisor->cgroup)
		return false;
	snprintf(path, sizeof(path), "%s/%s/io.stat", w->supervisor->cgroup, w->id);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (n < 0)
		return false;
	text[n] = 0;
	for (const char *at = text; (at = strchr(at, ' ')); at++) {
		unsigned long long bytes;

		if (sscanf(at, " rbytes=%llu", &bytes) == 1)
			ret->read_bytes += bytes;
		else if (sscanf(at, " wbytes=%llu", &bytes) == 1)
			ret->written_bytes += bytes;
	}
	return true;
}

static uint64_t line_get(const char *text, const char *key)
{
	const char *at = strstr(text, key);
	unsigned long long v;

	return at && sscanf(at + strlen(key), " %llu", &v) == 1 ? v : 0;
}

/* Of a process with another user these cannot be read without rights; then they stay 0. */
static void io_of_process(const struct worker *w, struct worker_usage *ret)
{
	char text[512];

	if (proc_read(w->pid, "io", text, sizeof(text)) < 0)
		return;
	ret->read_bytes = line_get(text, "\nread_bytes:");
	ret->written_bytes = line_get(text, "\nwrite_bytes:");
}

int worker_usage_get(const struct worker *w, struct worker_usage *ret)
{
	struct worker_usage u = { 0 };
	int r = w->pid ? cpu_get(w, &u.cpu_us) : -ESRCH;

	if (r >= 0)
		r = memory_get(w, &u.memory);
	if (r < 0)
		return r;
	if (!io_of_cgroup(w, &u))
		io_of_process(w, &u);
	*ret = u;
	return 0;
}
