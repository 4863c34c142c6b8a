/* SPDX-License-Identifier: MIT */
/*
 * The tool's side of a file system in an image: opens the image, finds the partition, starts the
 * reader (files_proto.h), serves it bytes of that partition and nothing else, and asks it. One
 * session for each process; all calls block. Errors have words. When the reader dies or says what
 * cannot be, every later call fails.
 */
#pragma once

#include "vhdtool/files.h"
#include "vhdtool/tool.h"

#include <stdio.h>

struct files_session;

struct files_open {
	const char *verb; /* for warnings */
	struct tool_image image;
	uint64_t partition; /* 0 = the one with a file system */
	bool writable;
};

struct files_node {
	uint64_t id;
	struct files_info info;
};

int session_open(const char *image, const struct files_open *o, struct files_session **ret,
		 struct error *err) _must_check_;
/* What was written is durable when this succeeds. Frees in any case. */
int session_close(struct files_session *s, struct error *err);

/* The reader has died or was ended: every later call fails. */
bool session_is_gone(const struct files_session *s);
uint64_t session_root(const struct files_session *s);
int session_stat(struct files_session *s, uint64_t id, struct files_node *ret,
		 struct error *err) _must_check_;
/* "/a/b" from the root. Symbolic links on the way are followed, the last one if `follow`. */
int session_find(struct files_session *s, const char *path, bool follow, struct files_node *ret,
		 struct error *err) _must_check_;
/* -ENOENT without words when there is no such name. */
int session_child(struct files_session *s, uint64_t dir, const char *name, struct files_node *ret,
		  struct error *err) _must_check_;

struct files_entry {
	char *name; /* ends with 0, has none inside */
	struct files_node node;
	bool bad; /* its inode cannot be read: node has only the id */
};

struct files_list {
	struct files_entry *entries; /* by name */
	size_t count, room, bytes, bad;
};

void files_list_free(struct files_list *l); /* the content */
int session_list(struct files_session *s, uint64_t dir, struct files_list *ret,
		 struct error *err) _must_check_;
int session_readlink(struct files_session *s, uint64_t id, char ret[FILES_LINK_MAX],
		     struct error *err) _must_check_;
/* At most FILES_PAYLOAD_MAX bytes. */
int session_read(struct files_session *s, uint64_t id, void *buf, size_t n, uint64_t offset,
		 struct files_piece *ret, struct error *err) _must_check_;

/* As in struct files_ops. */
int session_create(struct files_session *s, uint64_t dir, const char *name,
		   const struct files_info *info, struct error *err) _must_check_;
int session_write(struct files_session *s, const void *buf, size_t n, uint64_t offset,
		  struct error *err) _must_check_;
int session_finish(struct files_session *s, const struct files_info *info,
		   struct error *err) _must_check_;
int session_discard(struct files_session *s, struct error *err);
int session_mkdir(struct files_session *s, uint64_t dir, const char *name,
		  const struct files_info *info, uint64_t *ret, struct error *err) _must_check_;
int session_symlink(struct files_session *s, uint64_t dir, const char *name, const char *target,
		    const struct files_info *info, struct error *err) _must_check_;
int session_set_time(struct files_session *s, uint64_t id, const struct files_info *info,
		     struct error *err) _must_check_;

#define FILES_SHOWN_MAX (4 * FILES_LINK_MAX + 1)

/* A name for lines of text and terminals: what is no printable UTF-8, and \, become \ooo. */
const char *files_shown(const char *name, char buf[FILES_SHOWN_MAX]);
bool files_is_utf8(const char *name);
