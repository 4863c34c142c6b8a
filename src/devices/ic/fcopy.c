// SPDX-License-Identifier: MIT
/*
 * See fcopy.h. Read a piece through the loop's ring, send it, wait for the answer. A file that
 * changes under the copy: what was its size at the start is what is copied; one that became shorter
 * ends the copy with an error. Event loop's thread.
 */
#include "devices/ic/fcopy.h"

#include "devices/ic/ic_proto.h"
#include "lib/cleanup.h"
#include "lib/utf16.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

static const struct ic_version versions[] = { { 1, 1 } };

_Static_assert(sizeof(((struct fcopy *)0)->data) == FCOPY_DATA_FRAGMENT, "one piece");

static struct fcopy *of(struct ic *ic)
{
	return container_of(ic, struct fcopy, ic);
}

/* --- paths --- */

static bool is_windows(const char *path)
{
	char drive = (char)(path[0] | 0x20);

	return (drive >= 'a' && drive <= 'z' && path[1] == ':' && path[2] == '\\');
}

static bool part_is_dots(const char *part, size_t length)
{
	return (length == 1 && part[0] == '.') || (length == 2 && part[0] == '.' && part[1] == '.');
}

/* Absolute, nothing in it that leads elsewhere than it says, and a name at its end. */
static int split_path(const char *path, const char **ret_name, struct error *err)
{
	char separator = is_windows(path) ? '\\' : '/';
	const char *part = is_windows(path) ? path + 3 : path + 1;

	if (path[0] != '/' && !is_windows(path))
		return error_set(err, -EINVAL,
				 "the path in the guest must be absolute, like /tmp/x or C:\\x");
	for (;;) {
		size_t length = strcspn(part, separator == '/' ? "/" : "\\/");

		if (part_is_dots(part, length))
			return error_set(err, -EINVAL,
					 "the path in the guest must be without \".\" and \"..\"");
		if (!part[length])
			break;
		part += length + 1;
	}
	for (const unsigned char *p = (const unsigned char *)path; *p; p++)
		if (*p < ' ')
			return error_set(err, -EINVAL,
					 "the path in the guest has a control character");
	if (!*part)
		return error_set(err, -EINVAL, "the path in the guest must end with a file's name");
	*ret_name = part;
	return 0;
}

static int text_fits(const char *text, struct error *err)
{
	uint8_t units[2 * FCOPY_NAME_MAX];
	size_t size = *text ? utf16_encode(text, units, sizeof(units), UTF16_LE) : 0;

	if ((*text && !size) || size > sizeof(units))
		return error_set(err, -EINVAL,
				 "a name and its folder must be text of at most %u characters each",
				 FCOPY_NAME_MAX);
	return 0;
}

/* --- messages --- */

static struct writer begin(struct fcopy *f, uint32_t operation)
{
	struct writer w = ic_begin(&f->ic);

	f->operation = operation;
	writer_le32(&w, operation);
	writer_zero(&w, HV_FCOPY_HDR_SIZE - 4);
	return w;
}

static void send_short(struct fcopy *f, uint32_t operation)
{
	struct writer w = begin(f, operation);

	ic_send(&f->ic, &w);
}

/* The folder without the separator at its end: the guest puts one in between. */
static int send_start(struct fcopy *f, struct error *err)
{
	const struct fcopy_request *q = &f->request;
	const char *name;
	_cleanup_free_ char *folder = NULL;
	struct writer w;
	int r = split_path(q->path, &name, err);

	if (r < 0)
		return r;
	folder = strndup(q->path, (size_t)(name - q->path) - 1);
	if (!folder)
		return error_set(err, -ENOMEM, "out of memory");
	r = text_fits(name, err);
	if (r >= 0)
		r = text_fits(folder, err);
	if (r < 0)
		return r;
	w = begin(f, START_FILE_COPY);
	if (!ic_text(&w, name, FCOPY_PATH_SIZE) || !ic_text(&w, folder, FCOPY_PATH_SIZE))
		return error_set(err, -EINVAL, "the path in the guest is too long");
	writer_le32(&w, (q->overwrite ? OVER_WRITE : 0) | (q->create_path ? CREATE_PATH : 0));
	writer_le64(&w, f->size);
	ic_send(&f->ic, &w);
	return 0;
}

static void send_piece(struct fcopy *f)
{
	struct writer w = begin(f, WRITE_TO_FILE);

	writer_le32(&w, 0);
	writer_le64(&w, f->copied);
	writer_le32(&w, f->piece);
	writer_put(&w, f->data, f->piece);
	writer_zero(&w, FCOPY_DATA_FRAGMENT - f->piece);
	ic_send(&f->ic, &w);
}

/* --- the copy --- */

static void end(struct fcopy *f, int result, const struct error *err)
{
	struct fcopy_request q = f->request;

	if (f->reading) {
		/* The buffer is still being filled: told when it no longer is. */
		if (!f->failure.code)
			f->failure = *err;
		f->cancelled = true;
		return;
	}
	f->running = f->cancelled = f->cancelling = false;
	f->request = (struct fcopy_request){ .fd = -1 };
	close(q.fd);
	q.done(q.context, result, err);
}

/* The guest is told to remove what it has; the failure is told afterwards. */
static void give_up(struct fcopy *f, const struct error *err)
{
	if (err != &f->failure)
		f->failure = *err;
	if (f->ic.state != IC_READY || f->cancelling) {
		end(f, f->failure.code, &f->failure);
		return;
	}
	f->cancelling = true;
	send_short(f, CANCEL_FCOPY);
}

static void take_read(struct fcopy *f, int result)
{
	if (f->cancelled) {
		give_up(f, &f->failure);
		return;
	}
	if (result <= 0) {
		struct error err = { 0 };

		if (result < 0)
			error_errno(&err, result, "cannot read the file");
		else
			error_set(&err, -EIO, "the file became shorter while it was copied");
		give_up(f, &err);
		return;
	}
	f->piece = (uint32_t)result;
	send_piece(f);
}

static void on_read(struct loop_io *io, int result)
{
	struct fcopy *f = container_of(io, struct fcopy, io);

	f->reading = false;
	take_read(f, result);
	if (!f->reading)
		ic_release(&f->ic);
}

static void next(struct fcopy *f)
{
	if (f->copied == f->size) {
		send_short(f, COMPLETE_FCOPY);
		return;
	}
	f->iov = (struct iovec){ f->data, (size_t)MIN(f->size - f->copied, sizeof(f->data)) };
	f->io.done = on_read;
	f->reading = true;
	ic_hold(&f->ic);
	loop_io_readv(f->ic.loop, &f->io, f->request.fd, &f->iov, 1, f->copied);
}

static int judge(struct fcopy *f, int result, uint32_t status, struct error *err)
{
	if (result == -ETIMEDOUT)
		return error_set(err, result, "the guest did not answer within %u s",
				 FCOPY_ANSWER_SECONDS);
	if (result < 0)
		return error_set(err, result, "the guest went away before the file was copied");
	if (f->cancelled)
		return error_set(err, -ECANCELED, "the copy was cancelled");
	return ic_status_error(status, err);
}

static void on_answer(struct ic *ic, int result, uint32_t status, struct reader *body)
{
	struct fcopy *f = of(ic);
	struct error err = { 0 };

	(void)body;
	if (!f->running)
		return;
	if (f->cancelling) {
		end(f, f->failure.code, &f->failure);
		return;
	}
	/* A whole file that the guest has closed stays, also when it was cancelled too late. */
	if (f->operation == COMPLETE_FCOPY)
		f->cancelled = false;
	if (judge(f, result, status, &err) < 0) {
		if (f->operation == START_FILE_COPY && result >= 0 && !f->cancelled)
			end(f, err.code, &err); /* it has begun nothing */
		else
			give_up(f, &err);
		return;
	}
	if (f->operation == COMPLETE_FCOPY) {
		end(f, 0, NULL);
		return;
	}
	if (f->operation == WRITE_TO_FILE) {
		f->copied += f->piece;
		if (f->request.progress)
			f->request.progress(f->request.context, f->copied, f->size);
	}
	next(f);
}

static void on_gone(struct ic *ic)
{
	struct fcopy *f = of(ic);
	struct error err = { 0 };

	if (!f->running)
		return;
	error_set(&err, -ECONNRESET, "the guest went away before the file was copied");
	end(f, -ECONNRESET, &err);
}

static int file_check(int fd, uint64_t *ret_size, struct error *err)
{
	struct stat st;
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || fstat(fd, &st) < 0)
		return error_errno(err, -errno, "the file's descriptor");
	if (!S_ISREG(st.st_mode) || (flags & O_ACCMODE) == O_WRONLY)
		return error_set(err, -EINVAL, "only a regular file open for reading is copied");
	if ((uint64_t)st.st_size > FCOPY_SIZE_MAX)
		return error_set(err, -EFBIG, "the file is larger than 1 TiB");
	*ret_size = (uint64_t)st.st_size;
	return 0;
}

int fcopy_begin(struct fcopy *f, const struct fcopy_request *request, struct error *err)
{
	int r = ic_usable(&f->ic, err);

	if (f->running)
		r = error_set(err, -EBUSY, "another file is being copied to the guest");
	if (r >= 0)
		r = file_check(request->fd, &f->size, err);
	if (r < 0) {
		close(request->fd);
		return r;
	}
	f->request = *request;
	f->copied = 0;
	f->failure = (struct error){ 0 };
	r = send_start(f, err);
	f->request.path = NULL; /* the asker's */
	if (r < 0) {
		close(request->fd);
		f->request.fd = -1;
		return r;
	}
	f->running = true;
	return 0;
}

int fcopy_cancel(struct fcopy *f, struct error *err)
{
	if (!f->running)
		return error_set(err, -ENOENT, "no file is being copied to the guest");
	if (!f->cancelled)
		error_set(&f->failure, -ECANCELED, "the copy was cancelled");
	f->cancelled = true;
	return 0;
}

static const struct ic_service service = {
	.name = "guest-file-copy",
	.type = IC_BUS_TYPE("fcopy", 0x34d14be3, 0xdee4, 0x41c8, 0x9a, 0xe7, 0x6b, 0x17, 0x49, 0x77,
			    0xc1, 0x92),
	.instance =
		GUID(0xeb765408, 0x105f, 0x49b6, 0xb4, 0xaa, 0xc1, 0x23, 0xb6, 0x4d, 0x17, 0xd4),
	.message = ICMSGTYPE_FCOPY,
	.versions = versions,
	.version_count = ARRAY_SIZE(versions),
	.answer_seconds = FCOPY_ANSWER_SECONDS,
	.gone = on_gone,
	.answered = on_answer,
};

void fcopy_init(struct fcopy *f, struct loop *loop, struct vmbus *bus)
{
	ic_init(&f->ic, &service, loop, bus);
	f->request.fd = -1;
}

void fcopy_deinit(struct fcopy *f)
{
	if (f->ic.loop)
		ic_deinit(&f->ic);
}
