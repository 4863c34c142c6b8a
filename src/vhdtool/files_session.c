// SPDX-License-Identifier: MIT
/*
 * See files_session.h. The first bytes of the file system say which reader is wanted. It gets of
 * the image what it asks for. While it works on a request this side is a server of bytes, in
 * request(); how much it may ask for and how long it may be silent is limited there.
 */
#include "vhdtool/files_session.h"

#include "lib/cleanup.h"
#include "vhdtool/bytes.h"
#include "vhdtool/files_proto.h"
#include "vhdtool/files_reader.h"
#include "vhdtool/ptable.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>

#define IO_DEPTH      64u
#define SILENCE_MAX   60u          /* s, that a reader may think without a word */
#define ASKS_MAX      (1u << 20)   /* blocks for one request: 64 GiB */
#define ENTRIES_MAX   (1u << 20)   /* in one folder */
#define LIST_SIZE_MAX (256u << 20) /* bytes of their names */

struct files_session {
	const char *verb;
	const struct files_reader *reader;
	pid_t pid; /* 0 = not started yet */
	int fd;
	bool gone;
	struct loop *loop;
	struct disk *disk;
	struct bytes_queue queue;
	struct files_volume volume; /* of the disk, or of the partition */
	uint64_t offset, root;
	unsigned asks;
	int io_result; /* of the image, when it is what failed */
	uint64_t io_at;
	struct files_list *list;
	struct error dead; /* what every call gets when the reader is gone */
	uint8_t payload[FILES_PAYLOAD_MAX];
};

/* --- bytes of the image --- */

struct one_io {
	struct bytes_io io;
	bool done;
	int result;
};

static void on_io(struct bytes_io *io, int result)
{
	struct one_io *w = container_of(io, struct one_io, io);

	w->result = result;
	w->done = true;
}

/* `offset` counts in the volume. */
static int image_io(struct files_session *s, enum disk_op op, void *buf, size_t n, uint64_t offset)
{
	struct one_io w = {
		.io = {
			.op = op,
			.offset = s->offset + offset,
			.length = n,
			.buf = buf,
			.done = on_io,
		},
	};

	bytes_submit(&s->queue, s->disk, &w.io);
	while (!w.done)
		loop_once(s->loop, -1);
	if (w.result < 0 && s->io_result >= 0) {
		s->io_result = w.result;
		s->io_at = w.io.offset;
	}
	return w.result;
}

static int volume_read(struct files_volume *v, void *buf, size_t n, uint64_t offset)
{
	return image_io(container_of(v, struct files_session, volume), DISK_READ, buf, n, offset);
}

static int read_table(void *context, void *buf, size_t n, uint64_t offset)
{
	return image_io(context, DISK_READ, buf, n, offset);
}

/* --- the reader --- */

/* What every later call gets. `status` counts when nobody here ended the reader. */
static void say_end(struct files_session *s, const char *why, int status)
{
	char text[80];

	if (WIFEXITED(status) && WEXITSTATUS(status) && !why) {
		error_set(&s->dead, -EIO, "%s does not start (status %d)", s->reader->program,
			  WEXITSTATUS(status));
		return;
	}
	if (!why && WIFSIGNALED(status)) {
		snprintf(text, sizeof(text), "%s (signal %d)",
			 WTERMSIG(status) == SIGSYS
				 ? "the reader did what it may not and was stopped"
				 : "the reader crashed",
			 WTERMSIG(status));
		why = text;
	}
	error_set(&s->dead, -EIO,
		  "%s: the file system is damaged or made to do harm; nothing outside of it was "
		  "touched. `vhd mount --file` and its own check may tell more",
		  why ? why : "the reader ended early");
}

/* Ends the reader and says, now and in every later call, why. */
static int reader_gone(struct files_session *s, const char *why, struct error *err)
{
	int status = 0;

	if (!s->gone) {
		s->gone = true;
		if (why)
			kill(s->pid, SIGKILL);
		waitpid(s->pid, &status, 0);
		say_end(s, why, status);
	}
	return error_set(err, -EIO, "%s", s->dead.message);
}

static int receive(struct files_session *s, struct files_message *ret, size_t *ret_n,
		   struct error *err)
{
	struct pollfd p = { .fd = s->fd, .events = POLLIN };
	int r;

	do {
		r = poll(&p, 1, SILENCE_MAX * 1000);
	} while (r < 0 && errno == EINTR);
	if (!r)
		return reader_gone(s, "the reader came to no end", err);
	r = files_receive(s->fd, ret, s->payload, ret_n);
	return r < 0 ? reader_gone(s, NULL, err) : 0;
}

/* --- serving it while it works --- */

static int serve_block(struct files_session *s, struct files_message *m, size_t n,
		       struct error *err)
{
	struct files_message done = { .type = ASK_BLOCK_DONE };
	bool reading = m->type == ASK_BLOCK_READ, flush = m->type == ASK_BLOCK_FLUSH;
	uint64_t length = reading ? m->length : n;

	if (s->asks++ >= ASKS_MAX)
		return reader_gone(s, "the reader came to no end", err);
	if (length > FILES_PAYLOAD_MAX || !range_inside(m->offset, length, s->volume.size) ||
	    (!reading && !s->volume.writable))
		return reader_gone(s, "the reader asked for what is not there", err);
	if (flush)
		done.result = image_io(s, DISK_FLUSH, NULL, 0, 0);
	else
		done.result = image_io(s, reading ? DISK_READ : DISK_WRITE, s->payload, length,
				       m->offset);
	if (files_send(s->fd, &done, s->payload, reading && done.result >= 0 ? length : 0) < 0)
		return reader_gone(s, NULL, err);
	return 0;
}

static int take_entry(struct files_session *s, const struct files_message *m, size_t n,
		      struct error *err)
{
	struct files_list *l = s->list;

	if (!l || !n || n > FILES_NAME_MAX)
		return reader_gone(s, "the reader sent a wrong name", err);
	if (l->count >= ENTRIES_MAX || l->bytes + n > LIST_SIZE_MAX)
		return reader_gone(s, "the folder has more than a million entries", err);
	if (l->count == l->room) {
		size_t room = l->room ? 2 * l->room : 64;
		void *more = realloc(l->entries, room * sizeof(*l->entries));

		if (!more)
			return reader_gone(s, "out of memory", err);
		l->entries = more;
		l->room = room;
	}
	l->entries[l->count].name = strndup((const char *)s->payload, n);
	if (!l->entries[l->count].name)
		return reader_gone(s, "out of memory", err);
	l->entries[l->count].node.id = m->id;
	l->bytes += n;
	l->count++;
	return 0;
}

static int reply_error(struct files_session *s, const struct files_message *m, size_t n,
		       struct error *err)
{
	char text[sizeof(err->message)];

	n = MIN(n, sizeof(text) - 1);
	memcpy(text, s->payload, n);
	text[n] = 0;
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)text[i] < ' ' || text[i] == 0x7f)
			text[i] = '?';
	if (s->io_result < 0) {
		int r = s->io_result;

		s->io_result = 0;
		return error_errno(err, r, "%s: byte %llu of the disk cannot be read or written",
				   text, (unsigned long long)s->io_at);
	}
	if (!n)
		return error_errno(err, m->result, "the file system says");
	return error_set(err, m->result, "%s", text);
}

/* One request; `m` becomes its reply, whose payload is in s->payload. */
static int request(struct files_session *s, struct files_message *m, const void *payload, size_t n,
		   size_t *ret_n, struct error *err)
{
	int r = 0;

	if (s->gone)
		return reader_gone(s, NULL, err);
	s->asks = 0;
	if (files_send(s->fd, m, payload, n) < 0)
		return reader_gone(s, NULL, err);
	while (r >= 0) {
		r = receive(s, m, &n, err);
		if (r < 0)
			return r;
		switch (m->type) {
		case ASK_BLOCK_READ:
		case ASK_BLOCK_WRITE:
		case ASK_BLOCK_FLUSH:
			r = serve_block(s, m, n, err);
			break;
		case ASK_ENTRY:
			r = take_entry(s, m, n, err);
			break;
		case ASK_REPLY:
			*ret_n = n;
			return m->result < 0 ? reply_error(s, m, n, err) : 0;
		default:
			return reader_gone(s, "the reader sent what it may not", err);
		}
	}
	return r;
}

static int request_name(struct files_session *s, struct files_message *m, const char *name,
			struct error *err)
{
	size_t n = strlen(name);

	if (n > FILES_NAME_MAX)
		return error_set(err, -ENAMETOOLONG, "a name of %zu bytes", n);
	return request(s, m, name, n + 1, &n, err);
}

/* --- requests --- */

static int check_info(struct files_session *s, const struct files_info *info, struct error *err)
{
	if (info->kind > FILES_OTHER || info->size > INT64_MAX || info->mtime_ns >= 1000000000)
		return reader_gone(s, "the reader sent wrong numbers", err);
	return 0;
}

static int get_info(struct files_session *s, struct files_node *node, struct error *err)
{
	struct files_message m = { .type = ASK_STAT, .id = node->id };
	size_t n;
	int r = request(s, &m, NULL, 0, &n, err);

	if (r >= 0)
		r = check_info(s, &m.info, err);
	if (r >= 0)
		node->info = m.info;
	return r;
}

int session_child(struct files_session *s, uint64_t dir, const char *name, struct files_node *ret,
		  struct error *err)
{
	struct files_message m = { .type = ASK_LOOKUP, .id = dir };
	int r = request_name(s, &m, name, err);

	if (r < 0)
		return r;
	ret->id = m.id;
	return get_info(s, ret, err);
}

bool session_is_gone(const struct files_session *s)
{
	return s->gone;
}

uint64_t session_root(const struct files_session *s)
{
	return s->root;
}

int session_stat(struct files_session *s, uint64_t id, struct files_node *ret, struct error *err)
{
	ret->id = id;
	return get_info(s, ret, err);
}

void files_list_free(struct files_list *l)
{
	for (size_t i = 0; i < l->count; i++)
		free(l->entries[i].name);
	free(l->entries);
	*l = (struct files_list){ 0 };
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct files_entry *)a)->name, ((const struct files_entry *)b)->name);
}

int session_list(struct files_session *s, uint64_t dir, struct files_list *ret, struct error *err)
{
	struct files_message m = { .type = ASK_LIST, .id = dir };
	size_t n;
	int r;

	*ret = (struct files_list){ 0 };
	s->list = ret;
	r = request(s, &m, NULL, 0, &n, err);
	s->list = NULL;
	if (r >= 0 && ret->count)
		qsort(ret->entries, ret->count, sizeof(*ret->entries), by_name);
	for (size_t i = 0; i < ret->count && r >= 0 && !s->gone; i++) {
		struct files_entry *e = &ret->entries[i];

		e->bad = get_info(s, &e->node, NULL) < 0;
		ret->bad += e->bad;
	}
	if (r >= 0 && s->gone)
		r = reader_gone(s, NULL, err);
	if (r < 0)
		files_list_free(ret);
	return r;
}

int session_readlink(struct files_session *s, uint64_t id, char ret[FILES_LINK_MAX],
		     struct error *err)
{
	struct files_message m = { .type = ASK_READLINK, .id = id };
	size_t n;
	int r = request(s, &m, NULL, 0, &n, err);

	if (r < 0)
		return r;
	if (!n || n >= FILES_LINK_MAX || memchr(s->payload, 0, n))
		return error_set(err, -EIO, "a symbolic link with a target that is none");
	memcpy(ret, s->payload, n);
	ret[n] = 0;
	return 0;
}

int session_read(struct files_session *s, uint64_t id, void *buf, size_t n, uint64_t offset,
		 struct files_piece *ret, struct error *err)
{
	struct files_message m = { .type = ASK_READ, .id = id, .offset = offset, .length = n };
	size_t got;
	int r = request(s, &m, NULL, 0, &got, err);

	if (r < 0)
		return r;
	ret->hole = !got && m.length;
	ret->length = m.length;
	if (got > n || (!ret->hole && got != m.length) || m.length > INT64_MAX)
		return reader_gone(s, "the reader sent wrong numbers", err);
	memcpy(buf, s->payload, got);
	return 0;
}

int session_create(struct files_session *s, uint64_t dir, const char *name,
		   const struct files_info *info, struct error *err)
{
	struct files_message m = { .type = ASK_CREATE, .id = dir, .info = *info };

	return request_name(s, &m, name, err);
}

int session_write(struct files_session *s, const void *buf, size_t n, uint64_t offset,
		  struct error *err)
{
	struct files_message m = { .type = ASK_WRITE, .offset = offset };

	return request(s, &m, buf, n, &n, err);
}

int session_finish(struct files_session *s, const struct files_info *info, struct error *err)
{
	struct files_message m = { .type = ASK_FINISH, .info = *info };
	size_t n;

	return request(s, &m, NULL, 0, &n, err);
}

int session_discard(struct files_session *s, struct error *err)
{
	struct files_message m = { .type = ASK_DISCARD };
	size_t n;

	return request(s, &m, NULL, 0, &n, err);
}

int session_mkdir(struct files_session *s, uint64_t dir, const char *name,
		  const struct files_info *info, uint64_t *ret, struct error *err)
{
	struct files_message m = { .type = ASK_MKDIR, .id = dir, .info = *info };
	int r = request_name(s, &m, name, err);

	if (r >= 0)
		*ret = m.id;
	return r;
}

int session_symlink(struct files_session *s, uint64_t dir, const char *name, const char *target,
		    const struct files_info *info, struct error *err)
{
	struct files_message m = { .type = ASK_SYMLINK, .id = dir, .info = *info };
	char both[FILES_NAME_MAX + FILES_LINK_MAX + 2];
	size_t n = strlen(name) + 1, t = strlen(target) + 1;

	if (n > FILES_NAME_MAX || t > FILES_LINK_MAX)
		return error_set(err, -ENAMETOOLONG, "a name or target that is too long");
	memcpy(both, name, n);
	memcpy(both + n, target, t);
	return request(s, &m, both, n + t, &n, err);
}

int session_set_time(struct files_session *s, uint64_t id, const struct files_info *info,
		     struct error *err)
{
	struct files_message m = { .type = ASK_SET_TIME, .id = id, .info = *info };
	size_t n;

	return request(s, &m, NULL, 0, &n, err);
}

/* --- opening and closing --- */

struct choice {
	uint64_t offset, length;
	unsigned partition; /* 0 = the whole disk */
	enum files_system system;
	const char *name;
};

static void use_part(struct files_session *s, const struct choice *c)
{
	s->offset = c->offset;
	s->volume.size = c->length;
}

static int recognise(struct files_session *s, const struct ptable_entry *e, struct choice *ret,
		     struct error *err)
{
	int r;

	*ret = (struct choice){ .length = s->disk->geometry.size };
	if (e)
		*ret = (struct choice){ e->offset, e->length, e->number };
	use_part(s, ret);
	r = files_recognise(&s->volume, &ret->system, &ret->name);
	return r < 0 ? error_errno(err, r, "cannot read the start of the file system") : 0;
}

static bool readable(const struct choice *c)
{
	return c->system != FILES_UNKNOWN && c->system != FILES_FOREIGN;
}

/* "1 (NTFS), 3 (ext2/3/4)": what there is, as far as the text goes. */
static void tell_choices(const struct choice *all, unsigned count, char *text, size_t size)
{
	size_t at = 0;

	*text = 0;
	for (unsigned i = 0; i < count && at < size; i++)
		at += (size_t)snprintf(text + at, size - at, "%s%u (%s)", i ? ", " : "",
				       all[i].partition, all[i].name);
}

/* The one partition that has a file system; boot loaders' only when there is no other. */
static int choose(struct files_session *s, const struct ptable *t, struct choice *ret,
		  struct error *err)
{
	struct choice all[PTABLE_MAX];
	unsigned found[2] = { 0, 0 }, last[2] = { 0, 0 }, main;
	char text[240];

	for (unsigned i = 0; i < t->count; i++) {
		int r = recognise(s, &t->entries[i], &all[i], err);

		if (r < 0)
			return r;
		main = ptable_is_main(t, &t->entries[i]);
		found[main] += readable(&all[i]);
		last[main] = readable(&all[i]) ? i : last[main];
	}
	main = found[1] > 0;
	tell_choices(all, t->count, text, sizeof(text));
	if (found[main] > 1)
		return error_set(err, -EINVAL,
				 "several partitions have a file system, %s; "
				 "choose one with --partition",
				 text);
	if (!found[main])
		return error_set(err, -ENOTSUP,
				 "no partition has ext2/3/4, FAT or NTFS: %s; `vhd mount` has what "
				 "the kernel reads",
				 t->count ? text : "the table is empty");
	*ret = all[last[main]];
	return 0;
}

static int choose_numbered(struct files_session *s, const struct ptable *t, uint64_t number,
			   struct choice *ret, struct error *err)
{
	const struct ptable_entry *e = ptable_find(t, (unsigned)MIN(number, UINT32_MAX));

	if (!e)
		return error_set(err, -ENOENT, "there is no partition %llu; the disk has %u",
				 (unsigned long long)number, t->count);
	return recognise(s, e, ret, err);
}

static int find_volume(struct files_session *s, const struct files_open *o, struct choice *ret,
		       struct error *err)
{
	struct ptable_source source = { .sector = s->disk->geometry.logical_sector };
	struct ptable t;
	int r;

	s->volume.size = s->disk->geometry.size;
	source.size = s->volume.size;
	source.read = read_table;
	source.context = s;
	r = ptable_read(&source, &t, err);
	if (r < 0)
		return r;
	if (t.backup)
		fprintf(stderr, "vhd %s: the partition table is damaged; its backup is used\n",
			s->verb);
	if (o->partition)
		r = choose_numbered(s, &t, o->partition, ret, err);
	else if (t.kind != PTABLE_NONE)
		r = choose(s, &t, ret, err);
	else
		r = recognise(s, NULL, ret, err);
	if (r >= 0)
		use_part(s, ret);
	return r;
}

static int check_choice(const struct choice *c, struct error *err)
{
	char where[40] = "the disk";

	if (c->partition)
		snprintf(where, sizeof(where), "partition %u", c->partition);
	if (c->system == FILES_UNKNOWN)
		return error_set(err, -ENOTSUP,
				 "%s does not begin with a file system that is known: it is empty, "
				 "or its superblock is damaged; `vhd mount --file` and the file "
				 "system's own check may tell more",
				 where);
	if (c->system == FILES_FOREIGN)
		return error_set(
			err, -ENOTSUP,
			"%s holds %s; here are ext2/3/4, FAT and NTFS, `vhd mount` has what "
			"the kernel reads",
			where, c->name);
	return 0;
}

static int start_reader(struct files_session *s, const struct choice *c, struct error *err)
{
	int r;

	s->reader = files_reader_of(c->system);
	r = files_reader_start(s->reader, &s->pid, &s->fd, err);
	return r == -ENOENT
		       ? error_prefix(err, "it holds %s, and what reads that is missing", c->name)
		       : r;
}

static int open_files(struct files_session *s, const struct choice *c, struct error *err)
{
	struct files_message m = {
		.type = ASK_OPEN,
		.offset = s->volume.size,
		.length = s->volume.sector,
		.info.mode = s->volume.writable,
	};
	size_t n;
	int r = request(s, &m, NULL, 0, &n, err);

	if (r < 0)
		return error_prefix(err, "%s", c->name);
	s->root = m.id;
	if (n)
		fprintf(stderr, "vhd %s: %.*s\n", s->verb, (int)MIN(n, 200), s->payload);
	return 0;
}

static int open_image(struct files_session *s, const char *image, const struct files_open *o,
		      struct error *err)
{
	struct choice c = { 0 };
	int r = loop_new(IO_DEPTH, &s->loop, err);

	if (r >= 0)
		r = tool_open(s->loop, image, !o->writable, &o->image, &s->disk, err);
	if (r < 0)
		return r;
	s->volume.sector = s->disk->geometry.logical_sector;
	s->volume.writable = o->writable;
	s->volume.read = volume_read;
	r = find_volume(s, o, &c, err);
	if (r >= 0)
		r = check_choice(&c, err);
	if (r >= 0)
		r = start_reader(s, &c, err);
	if (r >= 0)
		r = open_files(s, &c, err);
	return r < 0 ? error_prefix(err, "%s", image) : 0;
}

int session_open(const char *image, const struct files_open *o, struct files_session **ret,
		 struct error *err)
{
	struct files_session *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return error_set(err, -ENOMEM, "out of memory");
	s->verb = o->verb;
	s->fd = -1;
	r = open_image(s, image, o, err);
	if (r < 0)
		(void)session_close(s, NULL);
	else
		*ret = s;
	return r;
}

int session_close(struct files_session *s, struct error *err)
{
	struct files_message m = { .type = ASK_CLOSE };
	size_t n;
	int r = 0, closed;

	if (!s)
		return 0;
	if (s->pid > 0 && !s->gone) {
		r = request(s, &m, NULL, 0, &n, err);
		if (!s->gone)
			(void)reader_gone(s, "done", NULL);
	}
	if (s->fd >= 0)
		close(s->fd);
	closed = disk_close(s->disk, r < 0 ? NULL : err);
	loop_free(s->loop);
	free(s);
	return r < 0 ? r : closed;
}
