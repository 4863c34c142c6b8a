// SPDX-License-Identifier: MIT
/* See program.h. What an unprivileged caller can choose counts only when we run as that caller. */
#include "lib/program.h"

#include "lib/cleanup.h"
#include "lib/types.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

/* The folder of the running program; empty when it does not count. */
static void own_folder(char ret[static PATH_MAX])
{
	ssize_t n = getauxval(AT_SECURE) ? -1 : readlink("/proc/self/exe", ret, PATH_MAX - 1);

	ret[MAX(n, 0)] = 0;
	if (*ret)
		*strrchr(ret, '/') = 0;
}

static bool is_program(const char *path, int length)
{
	return length < PATH_MAX && !access(path, X_OK);
}

int program_find(const char *name, const char *built, char ret[static PATH_MAX], struct error *err)
{
	const char *chosen = secure_getenv("PARTITA_LIBEXEC");
	const char *const beside[] = { ".", built ? built : ".", "../libexec/partita", "../sbin",
				       "../bin" };
	char own[PATH_MAX];
	int n;

	own_folder(own);
	for (size_t i = 0; i < ARRAY_SIZE(beside) && *own && !chosen; i++) {
		n = snprintf(ret, PATH_MAX, "%s/%s/%s", own, beside[i], name);
		if (is_program(ret, n))
			return 0;
	}
	if (!chosen)
		chosen = PARTITA_LIBEXECDIR;
	n = snprintf(ret, PATH_MAX, "%s/%s", chosen, name);
	if (is_program(ret, n))
		return 0;
	return error_set(err, -ENOENT, "%s is not in %.300s", name, chosen);
}

int program_description(int fd, size_t limit, char **ret_text, size_t *ret_size, struct error *err)
{
	_cleanup_free_ char *text = malloc(limit + 1);
	size_t size = 0;
	ssize_t n;

	if (!text)
		return error_set(err, -ENOMEM, "out of memory");
	while (size <= limit) {
		n = read(fd, text + size, limit + 1 - size);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return error_errno(err, -errno, "cannot read the description");
		if (!n) {
			*ret_size = size;
			*ret_text = steal_ptr(text);
			return 0;
		}
		size += (size_t)n;
	}
	return error_set(err, -EFBIG, "the description is larger than %zu bytes", limit);
}
