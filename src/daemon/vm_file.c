// SPDX-License-Identifier: MIT
/*
 * See vm_file.h. vm.json is hostile: it may have been copied from anywhere, and its folder may be
 * somebody else's; links are not followed, what is no plain file of at most 1 MiB is refused. Names
 * of our own begin with ".partita-" and hold the machine's id, so that after a crash nothing can be
 * mistaken for a stranger's.
 */
#include "daemon/vm_file.h"

#include "lib/cleanup.h"
#include "lib/folder.h"
#include "schema/json.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#define FILE_NEW  "vm.json.new" /* not valid yet */
#define DEPTH_MAX 64            /* of folders in a machine's folder that is removed */
#define FILE_MAX  (1 * MIB)

static void closedir_p(DIR **d)
{
	if (*d)
		closedir(*d);
}

/* --- reading --- */

static int open_folder(const char *folder, struct error *err)
{
	int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NONBLOCK);

	if (fd >= 0)
		return fd;
	if (errno == ENOENT || errno == ENOTDIR)
		return error_set(err, -ENOENT,
				 "its folder %s is missing; bring it back, or remove the machine",
				 folder);
	return error_errno(err, -errno, "cannot open its folder %s", folder);
}

static int read_whole(int fd, char *text, size_t size)
{
	size_t done = 0;

	while (done < size) {
		ssize_t n = read(fd, text + done, size - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (!n)
			break;
		done += (size_t)n;
	}
	return (int)done;
}

static int load_file(const char *folder, char **ret_text, size_t *ret_size, struct error *err)
{
	_cleanup_close_ int dir = open_folder(folder, err);
	_cleanup_close_ int fd = -1;
	_cleanup_free_ char *text = NULL;
	struct stat st;
	int n;

	if (dir < 0)
		return dir;
	fd = openat(dir, VM_FILE_NAME, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT)
		return error_set(err, -ENOENT, "there is no " VM_FILE_NAME " in %s", folder);
	if (fd < 0 && errno != ELOOP)
		return error_errno(err, -errno, "cannot open %s/" VM_FILE_NAME, folder);
	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return error_set(err, -EUCLEAN, "%s/" VM_FILE_NAME " is not a plain file", folder);
	if ((uint64_t)st.st_size > FILE_MAX)
		return error_set(err, -EUCLEAN, "%s/" VM_FILE_NAME " is larger than 1 MiB", folder);
	text = malloc((size_t)st.st_size + 1);
	if (!text)
		return error_set(err, -ENOMEM, "not enough memory to read %s/" VM_FILE_NAME,
				 folder);
	n = read_whole(fd, text, (size_t)st.st_size);
	if (n < 0)
		return error_errno(err, n, "cannot read %s/" VM_FILE_NAME, folder);
	*ret_text = steal_ptr(text);
	*ret_size = (size_t)n;
	return 0;
}

/* A newer file may have anything in it: its version is looked at before what is wrong with it. */
static int64_t version_of(const char *text, size_t size)
{
	_cleanup_json_ json_t *json = json_loadb(text, size, 0, NULL);

	return json_integer_value(json_object_get(json, "version"));
}

int vm_file_read(const char *folder, struct vm_settings *ret, struct error *err)
{
	_cleanup_free_ char *text = NULL;
	size_t size;
	int64_t version;
	int r = load_file(folder, &text, &size, err);

	if (r < 0)
		return r;
	version = version_of(text, size);
	if (version > VM_SETTINGS_VERSION)
		return error_set(err, -EUCLEAN,
				 "%s/" VM_FILE_NAME " is of version %" PRId64
				 ", and this service knows versions up to %d: use a newer Partita",
				 folder, version, VM_SETTINGS_VERSION);
	r = vm_settings_parse(text, size, ret, err);
	if (r == 0 || r == -ENOMEM)
		return r;
	error_prefix(err, "%.200s/" VM_FILE_NAME, folder);
	if (err)
		err->code = -EUCLEAN;
	return -EUCLEAN;
}

/* --- writing --- */

static int write_whole(int fd, const char *text, size_t size)
{
	while (size) {
		ssize_t n = write(fd, text, size);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		text += n;
		size -= (size_t)n;
	}
	return 0;
}

/* Durable, but for its name. */
static int write_new(int dir, const char *text)
{
	_cleanup_close_ int fd = -1;
	int r;

	unlinkat(dir, FILE_NEW, 0);
	fd = openat(dir, FILE_NEW, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	r = write_whole(fd, text, strlen(text));
	if (r == 0 && fsync(fd) < 0)
		r = -errno;
	if (r < 0)
		unlinkat(dir, FILE_NEW, 0);
	return r;
}

static int write_file(const char *folder, const struct vm_settings *settings, unsigned flags,
		      struct error *err)
{
	_cleanup_close_ int dir = open_folder(folder, err);
	_cleanup_free_ char *text = NULL;
	int r;

	if (dir < 0)
		return dir;
	text = vm_settings_format(settings);
	if (!text)
		return error_errno(err, -errno, "cannot write the settings");
	r = write_new(dir, text);
	if (r == 0 && renameat2(dir, FILE_NEW, dir, VM_FILE_NAME, flags) < 0) {
		r = -errno;
		unlinkat(dir, FILE_NEW, 0);
	}
	if (r == -EEXIST)
		return error_set(err, r, "%s holds a machine already; register it instead", folder);
	if (r == 0 && fsync(dir) < 0)
		r = -errno;
	return r < 0 ? error_errno(err, r, "cannot write %s/" VM_FILE_NAME, folder) : 0;
}

int vm_file_write(const char *folder, const struct vm_settings *settings, struct error *err)
{
	return write_file(folder, settings, 0, err);
}

int vm_file_add(const char *folder, const struct vm_settings *settings, struct error *err)
{
	return write_file(folder, settings, RENAME_NOREPLACE, err);
}

/* --- folders --- */

/* PARENT/.partita-ID, which only a folder of ours under way has. */
static char *hidden_name(const char *folder, const char *id)
{
	const char *slash = strrchr(folder, '/');
	char *name;

	if (asprintf(&name, "%.*s/.partita-%s", slash ? (int)(slash - folder) : 0, folder, id) < 0)
		return NULL;
	return name;
}

static int remove_inside(int dir, unsigned depth);

/* What is mounted in there belongs to somebody else. */
static bool same_file_system(int dir, int fd)
{
	struct stat above, st;

	return dir == AT_FDCWD ||
	       (fstat(dir, &above) == 0 && fstat(fd, &st) == 0 && above.st_dev == st.st_dev);
}

static int remove_entry(int dir, const char *name, unsigned depth)
{
	_cleanup_close_ int fd = -1;
	int r;

	if (unlinkat(dir, name, 0) == 0 || errno == ENOENT)
		return 0;
	if (errno != EISDIR && errno != EPERM)
		return -errno;
	fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOTDIR ? -EPERM : -errno;
	if (!same_file_system(dir, fd))
		return -EBUSY;
	r = depth ? remove_inside(fd, depth - 1) : -ELOOP;
	if (r == 0 && unlinkat(dir, name, AT_REMOVEDIR) < 0)
		r = -errno;
	return r;
}

static int remove_inside(int dir, unsigned depth)
{
	_cleanup_(closedir_p) DIR *d = fdopendir(dup(dir));
	const struct dirent *e;
	int r = 0;

	if (!d)
		return -errno;
	while (r == 0 && (errno = 0, e = readdir(d)))
		if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
			r = remove_entry(dir, e->d_name, depth);
	return r;
}

static int remove_tree(const char *path)
{
	int r = remove_entry(AT_FDCWD, path, DEPTH_MAX);

	return r == 0 ? folder_sync(path) : r;
}

int vm_folder_make(const char *folder, const struct vm_settings *settings, struct error *err)
{
	_cleanup_free_ char *hidden = hidden_name(folder, settings->id);
	int r;

	if (!hidden)
		return error_set(err, -ENOMEM, "not enough memory");
	if (mkdir(hidden, 0750) < 0)
		return error_errno(err, -errno, "cannot make the folder %s", folder);
	r = vm_file_write(hidden, settings, err);
	if (r == 0 && renameat2(AT_FDCWD, hidden, AT_FDCWD, folder, RENAME_NOREPLACE) < 0) {
		r = -errno;
		if (r == -EEXIST)
			error_set(err, r, "there is something at %s already; give another folder",
				  folder);
		else
			error_errno(err, r, "cannot make the folder %s", folder);
	}
	if (r < 0) {
		remove_tree(hidden);
		return r;
	}
	r = folder_sync(folder);
	if (r == 0)
		return 0;
	remove_tree(folder);
	return error_errno(err, r, "cannot make the folder %s durable", folder);
}

int vm_folder_remove(const char *folder, const char *id, struct error *err)
{
	_cleanup_free_ char *hidden = hidden_name(folder, id);
	int r = 0;

	if (!hidden)
		return error_set(err, -ENOMEM, "not enough memory");
	if (rename(folder, hidden) < 0 && errno != ENOENT)
		return error_errno(err, -errno, "cannot remove the folder %s", folder);
	r = folder_sync(folder);
	if (r == 0 || r == -ENOENT)
		r = remove_tree(hidden);
	if (r < 0 && r != -ENOENT)
		return error_errno(err, r, "cannot remove all that was in %s; the rest is %s",
				   folder, hidden);
	return 0;
}

void vm_file_tidy(const char *folder)
{
	_cleanup_free_ char *unfinished = NULL;

	if (asprintf(&unfinished, "%s/" FILE_NEW, folder) < 0)
		unfinished = NULL;
	else
		unlink(unfinished);
}

void vm_folder_recover(const char *folder, const char *id)
{
	_cleanup_free_ char *hidden = hidden_name(folder, id);

	if (hidden)
		remove_tree(hidden);
	vm_file_tidy(folder);
}
