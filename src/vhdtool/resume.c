// SPDX-License-Identifier: MIT
/*
 * The state of a copy that may be resumed: a file of two lines, what is copied to what, and how
 * many bytes of it are durable. It is replaced as a whole, so it is never half of something.
 */
#include "vhdtool/convert.h"

#include "lib/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

int resume_init(struct resume *r, const char *source, const char *partial, const char *what,
		struct error *err)
{
	struct stat st;

	if (stat(source, &st) < 0)
		return error_errno(err, -errno, "cannot look at \"%s\"", source);
	if (snprintf(r->path, sizeof(r->path), "%s.state", partial) >= (int)sizeof(r->path))
		return error_set(err, -ENAMETOOLONG, "the name \"%.60s...\" is too long", partial);
	snprintf(r->identity, sizeof(r->identity),
		 "vhd-convert 1 %ju:%ju size %jd time %jd.%09ld to %s", (uintmax_t)st.st_dev,
		 (uintmax_t)st.st_ino, (intmax_t)st.st_size, (intmax_t)st.st_mtim.tv_sec,
		 st.st_mtim.tv_nsec, what);
	return 0;
}

uint64_t resume_load(const struct resume *r)
{
	_cleanup_fclose_ FILE *f = fopen(r->path, "re");
	char line[sizeof(r->identity) + 2];
	uint64_t done;

	if (!f || !fgets(line, sizeof(line), f))
		return 0;
	line[strcspn(line, "\n")] = 0;
	if (strcmp(line, r->identity) || fscanf(f, "done %" SCNu64, &done) != 1)
		return 0;
	return done;
}

void resume_save(const struct resume *r, uint64_t done)
{
	char path[sizeof(r->path) + 4];
	bool good;
	FILE *f;

	snprintf(path, sizeof(path), "%s.new", r->path);
	f = fopen(path, "we");
	if (!f)
		return;
	good = fprintf(f, "%s\ndone %" PRIu64 "\n", r->identity, done) > 0 && !fflush(f) &&
	       !fsync(fileno(f));
	if (fclose(f) || !good || rename(path, r->path) < 0)
		unlink(path);
}

void resume_forget(const struct resume *r)
{
	unlink(r->path);
}
