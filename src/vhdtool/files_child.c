// SPDX-License-Identifier: MIT
/*
 * A reader: the program that takes a stranger's file system apart. It is built once for each family
 * of file systems, READER_OPS, with only that one's library. `vhd` starts it with a socket as
 * standard input. It closes all else and enters a system-call filter that leaves it reading,
 * writing and memory, which is limited, before it reads the first byte. What a library does wrong
 * in here ends here, and the tool says so. One thread; the table has the requests.
 */
#include "vhdtool/files_proto.h"

#include "lib/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#define MEMORY_MAX (2 * GIB) /* of address space; the libraries keep bitmaps of the volume */

#define SOCKET STDIN_FILENO

static struct child {
	struct files *files;
	struct files_message in, out;
	uint8_t payload[FILES_PAYLOAD_MAX + 1], reply[FILES_PAYLOAD_MAX];
	size_t n, reply_n;
} child;

static const int allowed[] = {
	/* the socket */
	SCMP_SYS(sendmsg),
	/* what libraries look up by the way: time of new files, who they are */
	SCMP_SYS(gettimeofday),
	SCMP_SYS(time),
	SCMP_SYS(getpid),
	SCMP_SYS(getuid),
	SCMP_SYS(geteuid),
	SCMP_SYS(getgid),
	SCMP_SYS(getegid),
	SCMP_SYS(futex),
	/* qsort asks how much memory there is */
	SCMP_SYS(sysinfo),
};

static int enter_sandbox(struct error *err)
{
	const struct sandbox s = { allowed, ARRAY_SIZE(allowed), NULL, 0 };
	const struct rlimit none = { 0, 0 }, memory = { MEMORY_MAX, MEMORY_MAX };

	if (SANDBOX_SANITIZED)
		return 0;
	if (close_range(SOCKET + 1, ~0u, 0) < 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0 ||
	    setrlimit(RLIMIT_CORE, &none) < 0 || setrlimit(RLIMIT_FSIZE, &none) < 0 ||
	    setrlimit(RLIMIT_AS, &memory) < 0)
		return error_errno(err, -errno, "cannot limit the reader");
	return sandbox_enter(&s, err);
}

/* --- requests --- */

static int do_open(struct child *c, struct error *err)
{
	struct files_volume *v;
	int r;

	if (c->files)
		return error_set(err, -EINVAL, "a file system is open");
	v = files_blocks_open(SOCKET, c->in.offset, (uint32_t)c->in.length, c->in.info.mode);
	r = READER_OPS.open(v, &c->files, err);
	if (r < 0)
		return r;
	c->out.id = c->files->root;
	c->reply_n = strlen(c->files->note);
	memcpy(c->reply, c->files->note, c->reply_n);
	return 0;
}

static int do_lookup(struct child *c, struct error *err)
{
	return c->files->ops->lookup(c->files, c->in.id, (char *)c->payload, &c->out.id, err);
}

static int on_entry(void *context, const char *name, size_t n, uint64_t id)
{
	const struct files_message m = { .type = ASK_ENTRY, .id = id };

	(void)context;
	return n > FILES_NAME_MAX ? -EIO : files_send(SOCKET, &m, name, n);
}

static int do_list(struct child *c, struct error *err)
{
	return c->files->ops->list(c->files, c->in.id, on_entry, NULL, err);
}

static int do_stat(struct child *c, struct error *err)
{
	const struct files_info *i = &c->out.info;
	int r = c->files->ops->stat(c->files, c->in.id, &c->out.info, err);

	if (r < 0)
		return r;
	if (i->size > INT64_MAX || i->mtime_ns >= 1000000000)
		return error_set(err, -EIO, "its inode is damaged: a size of %llu",
				 (unsigned long long)i->size);
	return 0;
}

static int do_readlink(struct child *c, struct error *err)
{
	int r = c->files->ops->readlink(c->files, c->in.id, (char *)c->reply, err);

	if (r >= 0)
		c->reply_n = strnlen((char *)c->reply, FILES_LINK_MAX - 1);
	return r;
}

static int do_read(struct child *c, struct error *err)
{
	struct files_piece p = { 0 };
	size_t n = MIN(c->in.length, FILES_PAYLOAD_MAX);
	int r = c->files->ops->read(c->files, c->in.id, c->reply, n, c->in.offset, &p, err);

	if (r < 0)
		return r;
	c->out.length = p.length;
	c->reply_n = p.hole ? 0 : MIN(p.length, n);
	return 0;
}

static int do_create(struct child *c, struct error *err)
{
	return c->files->ops->create(c->files, c->in.id, (char *)c->payload, &c->in.info, err);
}

static int do_write(struct child *c, struct error *err)
{
	return c->files->ops->write(c->files, c->payload, c->n, c->in.offset, err);
}

static int do_finish(struct child *c, struct error *err)
{
	return c->files->ops->finish(c->files, &c->in.info, err);
}

static int do_discard(struct child *c, struct error *err)
{
	return c->files->ops->discard(c->files, err);
}

static int do_mkdir(struct child *c, struct error *err)
{
	return c->files->ops->mkdir(c->files, c->in.id, (char *)c->payload, &c->in.info, &c->out.id,
				    err);
}

static int do_symlink(struct child *c, struct error *err)
{
	const char *name = (char *)c->payload, *target = name + strlen(name) + 1;

	if ((uint8_t *)target >= c->payload + c->n)
		return error_set(err, -EINVAL, "a link without a target");
	return c->files->ops->symlink(c->files, c->in.id, name, target, &c->in.info, err);
}

static int do_set_time(struct child *c, struct error *err)
{
	return c->files->ops->set_time(c->files, c->in.id, &c->in.info, err);
}

static int do_close(struct child *c, struct error *err)
{
	struct files *f = c->files;

	c->files = NULL;
	return f ? f->ops->close(f, err) : 0;
}

static const struct request {
	int (*fn)(struct child *c, struct error *err);
	bool writes;
} requests[] = {
	[ASK_OPEN] = { do_open },
	[ASK_LOOKUP] = { do_lookup },
	[ASK_LIST] = { do_list },
	[ASK_STAT] = { do_stat },
	[ASK_READLINK] = { do_readlink },
	[ASK_READ] = { do_read },
	[ASK_CREATE] = { do_create, true },
	[ASK_WRITE] = { do_write, true },
	[ASK_FINISH] = { do_finish, true },
	[ASK_DISCARD] = { do_discard, true },
	[ASK_MKDIR] = { do_mkdir, true },
	[ASK_SYMLINK] = { do_symlink, true },
	[ASK_SET_TIME] = { do_set_time, true },
	[ASK_CLOSE] = { do_close },
};

static int handle(struct child *c, struct error *err)
{
	const struct request *q;

	if (c->in.type >= ARRAY_SIZE(requests))
		return error_set(err, -EINVAL, "no such request");
	q = &requests[c->in.type];
	if (!c->files && c->in.type != ASK_OPEN && c->in.type != ASK_CLOSE)
		return error_set(err, -EINVAL, "no file system is open");
	if (q->writes && (!c->files->volume->writable || !c->files->ops->create))
		return error_set(err, -EROFS, "the file system is open for reading only");
	return q->fn(c, err);
}

static int round_of(struct child *c)
{
	struct error err = { 0 };
	int r = files_receive(SOCKET, &c->in, c->payload, &c->n);

	if (r < 0)
		return r;
	c->payload[c->n] = 0;
	c->out = (struct files_message){ .type = ASK_REPLY };
	c->reply_n = 0;
	c->out.result = handle(c, &err);
	if (c->out.result < 0) {
		c->reply_n = strlen(err.message);
		memcpy(c->reply, err.message, c->reply_n);
	}
	return files_send(SOCKET, &c->out, c->reply, c->reply_n);
}

/* The tool hears of it as of any failure, in answer to what it asks first. */
static int refuse(const struct error *why)
{
	child.out = (struct files_message){ .type = ASK_REPLY, .result = why->code };
	return files_receive(SOCKET, &child.in, child.payload, &child.n) < 0 ||
	       files_send(SOCKET, &child.out, why->message, strlen(why->message)) < 0;
}

int main(int argc, char **argv)
{
	struct error err = { 0 };

	/* The messages have no stable form, so both sides are of one version. */
	if (argc != 2 || strcmp(argv[1], PARTITA_VERSION)) {
		fprintf(stderr,
			"%s is started by the vhd of version " PARTITA_VERSION
			" only, for %s in images\n",
			argv[0] ? argv[0] : "this", READER_OPS.name);
		return 2;
	}
	signal(SIGINT, SIG_IGN); /* the tool ends us in good order */
	signal(SIGTERM, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	if (enter_sandbox(&err) < 0)
		return refuse(&err);
	while (round_of(&child) >= 0)
		;
	_exit(0);
}
