/* SPDX-License-Identifier: MIT */
/*
 * The programs that read file systems in images, one for each family, with files_child.c inside.
 * Which of them are installed is found out when one is wanted: a package may leave one out.
 */
#pragma once

#include "vhdtool/files.h"

#include <sys/types.h>

struct files_reader {
	const char *name;    /* of the file systems: "NTFS" */
	const char *program; /* "partita-files-ntfs" */
	const char *library; /* that it links: "libntfs-3g"; NULL = none */
	const char *option;  /* of the build, that makes it: "ntfs3g"; NULL = always made */
};

/* NULL: nothing reads that. */
const struct files_reader *files_reader_of(enum files_system system);
bool files_reader_installed(const struct files_reader *r);
/* Its end of the socket is all that it has; ours is *ret_fd. -ENOENT, with words: not installed. */
int files_reader_start(const struct files_reader *r, pid_t *ret_pid, int *ret_fd,
		       struct error *err) _must_check_;
