/* SPDX-License-Identifier: MIT */
/* What the halves of `vhd cp` share: cp.c finds out what is meant, cp_out.c and cp_in.c copy. */
#pragma once

#include "vhdtool/files_seen.h"
#include "vhdtool/files_session.h"

#define CP_DEPTH_MAX 256u /* folders in folders; each is an open descriptor */

struct cp {
	struct files_session *session;
	bool recursive, force;
	bool merge;      /* the topmost folder may be there */
	unsigned failed; /* things that were left out, each with its line on standard error */
	uint64_t copied;
	struct seen seen; /* folders of the image */
};

/* Says on standard error why something is left out, and counts it. */
void cp_left_out(struct cp *c, const char *path, const char *why);

/*
 * Copies what `node` is to `name` in the folder `dirfd`. `path` is for words. 0, also when some of
 * a folder was left out (failed); or a negative errno when there is no going on.
 */
int cp_out(struct cp *c, const struct files_node *node, int dirfd, const char *name,
	   const char *path, struct error *err) _must_check_;
/*
 * Copies the local `name` in `dirfd`, a link followed if `follow`, to `to` in the image's folder
 * `dir`. Ends with the first error; that file is then not there.
 */
struct cp_source {
	int dirfd;
	const char *name, *path; /* `path` is for words */
	bool follow;
};
int cp_in(struct cp *c, const struct cp_source *from, uint64_t dir, const char *to,
	  struct error *err) _must_check_;
