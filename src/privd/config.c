// SPDX-License-Identifier: MIT
/*
 * See config.h. Lines of a word and a path or name: "storage /srv/vm", "device /dev/vg0/web",
 * "bridge br0", "interface eth1"; empty ones and those that begin with "#" mean nothing. A line
 * that is not understood stops the program: it may have been meant to forbid.
 */
#include "privd/config.h"
#include "lib/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <string.h>
#include <sys/stat.h>

static int text_add(char **list, unsigned *count, const char *text, struct error *err)
{
	if (*count == PRIVD_FOLDERS_MAX)
		return error_set(err, -E2BIG, "more than %d of a kind", PRIVD_FOLDERS_MAX);
	list[*count] = strdup(text);
	if (!list[*count])
		return error_set(err, -ENOMEM, "out of memory");
	++*count;
	return 0;
}

static int path_add(char **list, unsigned *count, const char *path, struct error *err)
{
	if (*path != '/')
		return error_set(err, -EINVAL, "\"%.200s\" does not begin at the root", path);
	return text_add(list, count, path, err);
}

/* Of an interface, as the kernel takes it. */
static int name_add(char **list, unsigned *count, const char *name, struct error *err)
{
	size_t n = strlen(name);

	if (!n || n >= IFNAMSIZ || strpbrk(name, "/: \t"))
		return error_set(err, -EINVAL, "\"%.60s\" is no name of an interface", name);
	return text_add(list, count, name, err);
}

static int line_take(struct privd_config *c, char *line, struct error *err)
{
	size_t n = strcspn(line, " \t");
	const char *path = line + n + strspn(line + n, " \t");

	if (!*line || *line == '#')
		return 0;
	line[n] = 0;
	if (!strcmp(line, "storage"))
		return path_add(c->storage, &c->storage_count, path, err);
	if (!strcmp(line, "device"))
		return path_add(c->devices, &c->device_count, path, err);
	if (!strcmp(line, "bridge"))
		return name_add(c->bridges, &c->bridge_count, path, err);
	if (!strcmp(line, "interface"))
		return name_add(c->interfaces, &c->interface_count, path, err);
	return error_set(err, -EINVAL,
			 "\"%.60s\" is none of \"storage\", \"device\", \"bridge\", "
			 "\"interface\"",
			 line);
}

static int file_judge(FILE *file, struct error *err)
{
	struct stat st;

	if (fstat(fileno(file), &st) < 0)
		return error_errno(err, -errno, "cannot look at it");
	if (!S_ISREG(st.st_mode) || (st.st_uid && st.st_uid != geteuid()) || st.st_mode & 022)
		return error_set(err, -EPERM,
				 "it must be a file that only root may write (chmod go-w)");
	return 0;
}

int config_read(struct privd_config *c, const char *path, struct error *err)
{
	_cleanup_fclose_ FILE *file = fopen(path, "re");
	_cleanup_free_ char *line = NULL;
	size_t room = 0;
	unsigned number = 0;
	int r;

	if (!file && errno == ENOENT)
		return 0;
	if (!file)
		return error_errno(err, -errno, "cannot read \"%.300s\"", path);
	r = file_judge(file, err);
	if (r < 0)
		return error_prefix(err, "%.300s", path);
	for (ssize_t n; (n = getline(&line, &room, file)) >= 0;) {
		number++;
		while (n && strchr(" \t\r\n", line[n - 1]))
			line[--n] = 0;
		r = line_take(c, line, err);
		if (r < 0)
			return error_prefix(err, "%.300s:%u", path, number);
	}
	return 0;
}

void config_deinit(struct privd_config *c)
{
	for (unsigned i = 0; i < c->storage_count; i++)
		free(c->storage[i]);
	for (unsigned i = 0; i < c->device_count; i++)
		free(c->devices[i]);
	for (unsigned i = 0; i < c->bridge_count; i++)
		free(c->bridges[i]);
	for (unsigned i = 0; i < c->interface_count; i++)
		free(c->interfaces[i]);
	free(c->keeper);
	free(c->worker);
	c->storage_count = c->device_count = c->bridge_count = c->interface_count = 0;
	c->keeper = c->worker = NULL;
}
