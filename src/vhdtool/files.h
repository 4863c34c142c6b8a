/* SPDX-License-Identifier: MIT */
/*
 * File systems inside of a disk: what `ls`, `cat` and `cp` need of one, with an implementation for
 * each family. All of it runs in a reader (files_child.c), a program that has no files, because the
 * bytes come from a stranger's disk; calls block. A file is named by its id, a number that its
 * file system gives out and must be ready to get back wrong.
 */
#pragma once

#include "lib/error.h"
#include "lib/types.h"

#define FILES_NAME_MAX 1024u /* bytes of a name: 255 characters of NTFS in UTF-8 */
#define FILES_LINK_MAX 4096u /* bytes of a symbolic link's target, with the 0 */
/* Bytes of a file that are moved at once; any payload between tool and reader. */
#define FILES_PAYLOAD_MAX (64u * 1024)

enum files_kind {
	FILES_REGULAR,
	FILES_FOLDER,
	FILES_SYMLINK,
	FILES_OTHER, /* device, pipe, socket: nothing to copy */
};

struct files_info {
	uint64_t size;
	int64_t mtime; /* seconds since 1970 */
	uint32_t mtime_ns;
	uint32_t kind; /* enum files_kind */
	uint32_t mode; /* 07777; FILES_NO_MODE where the file system has none */
	uint32_t uid, gid, links;
};

#define FILES_NO_MODE UINT32_MAX

/* The bytes that a file system lies on. Any range inside of `size`. */
struct files_volume {
	uint64_t size;
	uint32_t sector; /* logical, of the disk */
	bool writable;
	int (*read)(struct files_volume *v, void *buf, size_t n, uint64_t offset);
	int (*write)(struct files_volume *v, const void *buf, size_t n, uint64_t offset);
	int (*flush)(struct files_volume *v);
};

/* What a read found: `length` bytes, or that many zeros that take no space. 0 = the end. */
struct files_piece {
	uint64_t length;
	bool hole;
};

struct files;

/* Returns 0 to go on. The name is `n` bytes of no certain encoding, without 0. */
typedef int files_entry_fn(void *context, const char *name, size_t n, uint64_t id);

/* Every function returns 0 or a negative errno with words. Calls that write may be NULL. */
struct files_ops {
	const char *name;
	/* `*ret` is freed by close, also after a failed call. */
	int (*open)(struct files_volume *v, struct files **ret, struct error *err);
	/* -ENOENT when there is no such name. "." and ".." are not asked for. */
	int (*lookup)(struct files *f, uint64_t dir, const char *name, uint64_t *ret,
		      struct error *err);
	/* Without "." and "..". */
	int (*list)(struct files *f, uint64_t dir, files_entry_fn *fn, void *context,
		    struct error *err);
	int (*stat)(struct files *f, uint64_t id, struct files_info *ret, struct error *err);
	int (*readlink)(struct files *f, uint64_t id, char ret[FILES_LINK_MAX], struct error *err);
	int (*read)(struct files *f, uint64_t id, void *buf, size_t n, uint64_t offset,
		    struct files_piece *ret, struct error *err);
	/*
	 * A new file, one at a time: create, writes (what is not written reads as zeros), then
	 * finish, which gives it size, mode and time, and its name, from which another file is
	 * taken away that had it before; or discard, after which it never was. A failure of any of
	 * these but create wants a discard.
	 */
	int (*create)(struct files *f, uint64_t dir, const char *name,
		      const struct files_info *info, struct error *err);
	int (*write)(struct files *f, const void *buf, size_t n, uint64_t offset,
		     struct error *err);
	int (*finish)(struct files *f, const struct files_info *info, struct error *err);
	int (*discard)(struct files *f, struct error *err);
	int (*mkdir)(struct files *f, uint64_t dir, const char *name, const struct files_info *info,
		     uint64_t *ret, struct error *err);
	int (*symlink)(struct files *f, uint64_t dir, const char *name, const char *target,
		       const struct files_info *info, struct error *err);
	int (*set_time)(struct files *f, uint64_t id, const struct files_info *info,
			struct error *err);
	/* Makes all durable and says that the file system is clean. Frees in any case. */
	int (*close)(struct files *f, struct error *err);
};

/* The common head of an open file system. */
struct files {
	const struct files_ops *ops;
	struct files_volume *volume;
	uint64_t root;
	char note[256]; /* what a reader should know: "the journal is not replayed"; else empty */
};

enum files_system { FILES_UNKNOWN, FILES_EXT, FILES_FAT, FILES_NTFS, FILES_FOREIGN };

/*
 * What lies on a volume, by its first bytes. *ret_name is static: "ext2/3/4", ..., "XFS" for
 * FILES_FOREIGN, which no implementation reads.
 */
int files_recognise(struct files_volume *v, enum files_system *ret,
		    const char **ret_name) _must_check_;

extern const struct files_ops files_ext, files_fat, files_ntfs;
