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

void worker_files_close(struct worker_files *f)
{
	for (unsigned i = 0; i < f->count; i++)
		if (f->fds[i] >= 0)
			close(f->fds[i]);
	f->count = 0;
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

static int kind_check(const struct opener *o, int fd, const char *where, const char *path)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return error_errno(o->err, -errno, "%s: \"%s\"", where, path);
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return error_set(o->err, -EINVAL, "%s: \"%s\" is neither a file nor a disk", where,
				 path);
	return 0;
}

/* `file` is an object with a path; NULL: there is none. `locked`: nobody else may have it. */
static int file_open(const struct opener *o, json_t *file, const char *where, bool read_only,
		     bool locked)
{
	const char *named = json_string_value(json_object_get(file, "path"));
	_cleanup_free_ char *path = named ? absolute(o, named) : NULL;
	_cleanup_close_ int fd = -1;
	int n;

	if (!file)
		return 0;
	if (!path)
		return named ? error_set(o->err, -ENOMEM, "out of memory")
			     : error_set(o->err, -EINVAL, "%s needs a path", where);
	/* Not to wait for a pipe's other end. */
	fd = open(path, (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0)
		return error_errno(o->err, -errno, "%s: cannot open \"%s\"%s", where, path,
				   read_only ? "" : " for writing");
	if (kind_check(o, fd, where, path) < 0)
		return o->err ? o->err->code : -EINVAL;
	if (fcntl(fd, F_SETFL, 0) < 0)
		return error_errno(o->err, -errno, "%s: \"%s\"", where, path);
	if (locked && lock_check(fd, read_only) < 0)
		return error_set(o->err, -EBUSY,
				 "%s: another process has \"%s\" open; close that one first (it "
				 "may be a running virtual machine)",
				 where, path);
	n = worker_files_add(o->files, steal_fd(&fd), o->err);
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
	if (r >= 0)
		r = file_open(&o, json_object_get(description, "state"), "state", true, false);
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
