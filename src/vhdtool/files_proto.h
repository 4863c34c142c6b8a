/* SPDX-License-Identifier: MIT */
/*
 * What the tool and a reader say to each other, over a SOCK_SEQPACKET pair: a message is one
 * packet, this head and its payload. The tool asks one thing at a time; until the reader's
 * ASK_REPLY the reader may ask for bytes of the volume, and send the entries of a folder. The
 * tool does not believe the reader: it has read a hostile disk.
 */
#pragma once

#include "vhdtool/files.h"

enum files_message_type {
	/* The tool asks; what each takes, and its reply has */
	ASK_OPEN,     /* offset: size; length: sector; info.mode: writable.
			   Reply: id: the root, payload: a note */
	ASK_LOOKUP,   /* id, name. Reply: id */
	ASK_LIST,     /* id. ASK_ENTRY for each, then the reply */
	ASK_STAT,     /* id. Reply: info */
	ASK_READLINK, /* id. Reply: the target */
	ASK_READ,     /* id, offset, length. Reply: length, and the bytes; without: a hole */
	ASK_CREATE,   /* id: the folder; info, name */
	ASK_WRITE,    /* offset, bytes */
	ASK_FINISH,   /* info */
	ASK_DISCARD,
	ASK_MKDIR,    /* id: the folder; info, name. Reply: id */
	ASK_SYMLINK,  /* id: the folder; info, name, 0, target */
	ASK_SET_TIME, /* id, info */
	ASK_CLOSE,
	/* The reader */
	ASK_REPLY,       /* result; payload when it is negative: words */
	ASK_ENTRY,       /* id, name */
	ASK_BLOCK_READ,  /* offset, length. Answered by ASK_BLOCK_DONE with result, bytes */
	ASK_BLOCK_WRITE, /* offset, bytes. ASK_BLOCK_DONE */
	ASK_BLOCK_FLUSH, /* ASK_BLOCK_DONE */
	ASK_BLOCK_DONE,
};

struct files_message {
	uint32_t type; /* enum files_message_type */
	int32_t result;
	uint64_t id, offset, length;
	struct files_info info;
};

/* One packet each. -EPIPE: the other side is gone; -EPROTO: no such packet. */
int files_send(int fd, const struct files_message *m, const void *payload, size_t n) _must_check_;
/* Into FILES_PAYLOAD_MAX bytes. */
int files_receive(int fd, struct files_message *ret, void *payload, size_t *ret_n) _must_check_;

/* --- the reader --- */

/* A volume whose bytes the tool has (files_blocks.c), with a cache; one for each process. */
struct files_volume *files_blocks_open(int fd, uint64_t size, uint32_t sector, bool writable);
