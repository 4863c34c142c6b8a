// SPDX-License-Identifier: MIT
/*
 * What a worker gets: the description as a sealed memory file, and its files, opened here with our
 * rights. Beside its descriptor each keeps its path, made absolute: from there a worker finds an
 * image's parents and its track.
 */
#include "daemon/supervisor_internal.h"
#include "lib/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define BUSY_TRIES   20
#define BUSY_WAIT_US 5000

int worker_files_add(struct worker_files *f, int fd, struct error *err)
{
	if (f->count == WORKER_FILES_MAX) {
		close(fd);
		return error_set(err, -EMFILE, "a machine has at most %d files", WORKER_FILES_MAX);
	}
	f->fds[f->count] = fd;
	return (int)(WORKER_RUN_FD + f->count++);
}

void worker_files_init(struct worker_files *f, bool may_be_late)
{
	*f = (struct worker_files){ .may_be_late = may_be_late };
	list_init(&f->late);
}

void worker_files_close(struct worker_files *f)
{
	for (unsigned i = 0; i < f->count; i++)
		if (f->fds[i] >= 0)
			close(f->fds[i]);
	f->count = 0;
	list_foreach_safe(it, &f->late)
	{
		struct worker_late_file *late = list_entry(it, struct worker_late_file, node);

		privd_cancel(&late->request);
		list_remove(&late->node);
		free(late);
	}
}

/* --- the files that a description names --- */

struct opener {
	struct worker_files *files;
	const char *folder;
	struct error *err;
};

/*
 * Whether another one has the image open. A killed worker is gone for its parent while the kernel
 * still ends its I/O, and its locks last as long: so this waits a tenth of a second.
 */
static int lock_check(int fd, bool read_only)
{
	for (int i = 0; i < BUSY_TRIES; i++) {
		struct flock lock = { .l_type = read_only ? F_RDLCK : F_WRLCK };

		if (fcntl(fd, F_OFD_GETLK, &lock) < 0 || lock.l_type == F_UNLCK)
			return 0; /* where locks cannot be had the worker says so */
		usleep(BUSY_WAIT_US);
	}
	return -EBUSY;
}

static char *absolute(const struct opener *o, const char *path)
{
	char *ret = NULL;

	if (path[0] == '/')
		return strdup(path);
	return asprintf(&ret, "%s/%s", o->folder, path) < 0 ? NULL : ret;
}

/* How a file is meant, and may be used: `locked`, nobody else may have it. */
struct use {
	const char *where, *path;
	bool read_only, locked;
};

static int use_check(const struct use *u, int fd, struct error *err)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return error_errno(err, -errno, "%s: \"%s\"", u->where, u->path);
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return error_set(err, -EINVAL, "%s: \"%s\" is neither a file nor a disk", u->where,
				 u->path);
	if (fcntl(fd, F_SETFL, 0) < 0)
		return error_errno(err, -errno, "%s: \"%s\"", u->where, u->path);
	if (u->locked && lock_check(fd, u->read_only) < 0)
		return error_set(err, -EBUSY,
				 "%s: another process has \"%s\" open; close that one first (it "
				 "may be a running virtual machine)",
				 u->where, u->path);
	return 0;
}

/* Its place, which stays empty until it comes. */
static int late_add(struct worker_files *f, const struct use *u, struct error *err)
{
	struct worker_late_file *late = calloc(1, sizeof(*late) + strlen(u->path) + 1);
	int n = late ? worker_files_add(f, -1, err) : error_set(err, -ENOMEM, "out of memory");

	if (n < 0) {
		free(late);
		return n;
	}
	late->slot = f->count - 1;
	late->read_only = u->read_only;
	late->locked = u->locked;
	snprintf(late->where, sizeof(late->where), "%s", u->where);
	strcpy(late->path, u->path);
	list_append(&f->late, &late->node);
	return n;
}

int worker_files_come(struct worker_files *f, const struct worker_late_file *late, int fd,
		      struct error *err)
{
	const struct use use = { late->where, late->path, late->read_only, late->locked };
	int r = use_check(&use, fd, err);

	if (r < 0)
		close(fd);
	else
		f->fds[late->slot] = fd;
	return r;
}

/* Its number in the worker. */
static int use_begin(const struct opener *o, const struct use *u)
{
	/* Not to wait for a pipe's other end. */
	int fd = open(u->path,
		      (u->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	int r;

	if (fd < 0 && errno == EACCES && o->files->may_be_late)
		return late_add(o->files, u, o->err);
	if (fd < 0)
		return error_errno(o->err, -errno, "%s: cannot open \"%s\"%s", u->where, u->path,
				   u->read_only ? "" : " for writing");
	r = use_check(u, fd, o->err);
	if (r < 0) {
		close(fd);
		return r;
	}
	return worker_files_add(o->files, fd, o->err);
}

/* `file` is an object with a path; NULL: there is none. */
static int file_open(const struct opener *o, json_t *file, const char *where, bool read_only,
		     bool locked)
{
	const char *named = json_string_value(json_object_get(file, "path"));
	_cleanup_free_ char *path = named ? absolute(o, named) : NULL;
	int n;

	if (!file)
		return 0;
	if (!path)
		return named ? error_set(o->err, -ENOMEM, "out of memory")
			     : error_set(o->err, -EINVAL, "%s needs a path", where);
	n = use_begin(o, &(struct use){ where, path, read_only, locked });
	if (n < 0)
		return n;
	json_object_set_new(file, "path", json_string(path));
	json_object_set_new(file, "descriptor", json_integer(n));
	return 0;
}

static int drive_open(const struct opener *o, json_t *drive, const char *where)
{
	const char *kind = json_string_value(json_object_get(drive, "kind"));
	json_t *set = json_object_get(drive, "set");
	bool read_only =
		json_is_true(json_object_get(drive, "read_only")) || (kind && !strcmp(kind, "dvd"));
	int r = file_open(o, json_object_get(drive, "file"), where, read_only, !set);

	return r < 0 ? r : file_open(o, set, where, false, false);
}

static int drives_open(const struct opener *o, json_t *scsi)
{
	json_t *controller, *drive;
	size_t i, j;
	int r = 0;

	json_array_foreach(scsi, i, controller)
	{
		json_array_foreach(json_object_get(controller, "drives"), j, drive)
		{
			char where[64];

			snprintf(where, sizeof(where), "scsi[%zu].drives[%zu]", i, j);
			r = drive_open(o, drive, where);
			if (r < 0)
				return r;
		}
	}
	return r;
}

int worker_files_open(struct worker_files *f, json_t *description, const char *folder,
		      struct error *err)
{
	const struct opener o = { f, folder ? folder : "", err };
	json_t *boot = json_object_get(description, "boot");
	int r = file_open(&o, json_object_get(boot, "kernel"), "boot.kernel", true, false);

	if (r >= 0)
		r = file_open(&o, json_object_get(boot, "initrd"), "boot.initrd", true, false);
	return r < 0 ? r : drives_open(&o, json_object_get(description, "scsi"));
}

int worker_files_describe(json_t *description, struct error *err)
{
	_cleanup_free_ char *text = json_dumps(description, JSON_COMPACT);
	_cleanup_close_ int fd = memfd_create("vm-description", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	size_t size = text ? strlen(text) : 0;

	if (!text)
		return error_set(err, -EINVAL, "the description cannot be written as JSON");
	if (fd < 0 || write(fd, text, size) != (ssize_t)size || lseek(fd, 0, SEEK_SET) < 0 ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) < 0)
		return error_errno(err, -errno, "cannot pass the description");
	return steal_fd(&fd);
}
