/* SPDX-License-Identifier: MIT */
/* The NBD protocol's numbers and structures; all integers are big-endian. */
#pragma once

#include "lib/types.h"

#define NBD_MAGIC            UINT64_C(0x4e42444d41474943)
#define NBD_OPTION_MAGIC     UINT64_C(0x49484156454f5054)
#define NBD_REP_MAGIC        UINT64_C(0x0003e889045565a9)
#define NBD_REQUEST_MAGIC    0x25609513u
#define NBD_SIMPLE_MAGIC     0x67446698u
#define NBD_STRUCTURED_MAGIC 0x668e33efu

#define NBD_FLAG_FIXED_NEWSTYLE   BIT(0)
#define NBD_FLAG_NO_ZEROES        BIT(1)
#define NBD_FLAG_C_FIXED_NEWSTYLE BIT(0)
#define NBD_FLAG_C_NO_ZEROES      BIT(1)

enum {
	NBD_OPT_EXPORT_NAME = 1,
	NBD_OPT_ABORT = 2,
	NBD_OPT_LIST = 3,
	NBD_OPT_STARTTLS = 5,
	NBD_OPT_INFO = 6,
	NBD_OPT_GO = 7,
	NBD_OPT_STRUCTURED_REPLY = 8,
	NBD_OPT_LIST_META_CONTEXT = 9,
	NBD_OPT_SET_META_CONTEXT = 10,
};

#define NBD_REP_ACK          1u
#define NBD_REP_SERVER       2u
#define NBD_REP_INFO         3u
#define NBD_REP_META_CONTEXT 4u
#define NBD_REP_ERR_UNSUP    (BIT(31) | 1)
#define NBD_REP_ERR_INVALID  (BIT(31) | 3)
#define NBD_REP_ERR_UNKNOWN  (BIT(31) | 6)
#define NBD_REP_ERR_TOO_BIG  (BIT(31) | 9)

#define NBD_INFO_EXPORT     0
#define NBD_INFO_NAME       1
#define NBD_INFO_BLOCK_SIZE 3

#define NBD_FLAG_HAS_FLAGS         BIT(0)
#define NBD_FLAG_READ_ONLY         BIT(1)
#define NBD_FLAG_SEND_FLUSH        BIT(2)
#define NBD_FLAG_SEND_FUA          BIT(3)
#define NBD_FLAG_SEND_TRIM         BIT(5)
#define NBD_FLAG_SEND_WRITE_ZEROES BIT(6)
#define NBD_FLAG_SEND_DF           BIT(7)
#define NBD_FLAG_CAN_MULTI_CONN    BIT(8)
#define NBD_FLAG_SEND_CACHE        BIT(10)
#define NBD_FLAG_SEND_FAST_ZERO    BIT(11)

enum {
	NBD_CMD_READ = 0,
	NBD_CMD_WRITE = 1,
	NBD_CMD_DISC = 2,
	NBD_CMD_FLUSH = 3,
	NBD_CMD_TRIM = 4,
	NBD_CMD_CACHE = 5,
	NBD_CMD_WRITE_ZEROES = 6,
	NBD_CMD_BLOCK_STATUS = 7,
};

#define NBD_CMD_FLAG_FUA       BIT(0)
#define NBD_CMD_FLAG_NO_HOLE   BIT(1)
#define NBD_CMD_FLAG_DF        BIT(2)
#define NBD_CMD_FLAG_REQ_ONE   BIT(3)
#define NBD_CMD_FLAG_FAST_ZERO BIT(4)

#define NBD_REPLY_FLAG_DONE         BIT(0)
#define NBD_REPLY_TYPE_NONE         0
#define NBD_REPLY_TYPE_OFFSET_DATA  1
#define NBD_REPLY_TYPE_OFFSET_HOLE  2
#define NBD_REPLY_TYPE_BLOCK_STATUS 5
#define NBD_REPLY_TYPE_ERROR        (BIT(15) | 1)

#define NBD_STATE_HOLE BIT(0)
#define NBD_STATE_ZERO BIT(1)

#define NBD_EPERM     1
#define NBD_EIO       5
#define NBD_ENOMEM    12
#define NBD_EINVAL    22
#define NBD_ENOSPC    28
#define NBD_EOVERFLOW 75
#define NBD_ENOTSUP   95
#define NBD_ESHUTDOWN 108

#define NBD_BASE_ALLOCATION "base:allocation"

struct nbd_option {
	be64 magic;
	be32 option, length;
};
_Static_assert(sizeof(struct nbd_option) == 16, "option");

struct __attribute__((packed)) nbd_option_reply {
	be64 magic;
	be32 option, type, length;
};
_Static_assert(sizeof(struct nbd_option_reply) == 20, "option reply");

struct __attribute__((packed)) nbd_request {
	be32 magic;
	be16 flags, type;
	be64 cookie, offset;
	be32 length;
};
_Static_assert(sizeof(struct nbd_request) == 28, "request");

struct __attribute__((packed)) nbd_simple_reply {
	be32 magic, error;
	be64 cookie;
};
_Static_assert(sizeof(struct nbd_simple_reply) == 16, "simple reply");

struct __attribute__((packed)) nbd_chunk {
	be32 magic;
	be16 flags, type;
	be64 cookie;
	be32 length;
};
_Static_assert(sizeof(struct nbd_chunk) == 20, "chunk");
