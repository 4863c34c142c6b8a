// SPDX-License-Identifier: MIT
/*
 * Drives of a running machine. A drive is known by its place. What is new comes first, since that
 * may fail, and a guest that has lost a disk on the way to a change that is taken back finds
 * another in its place. Then goes what should not be there, and discs are exchanged; last comes
 * what had to wait for that, because its place or its file was taken.
 */
#include "daemon/hot.h"
#include "daemon/image_chain.h"
#include "daemon/supervisor.h"
#include "lib/cleanup.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static json_t *query(const json_t *answers)
{
	json_int_t have = 0, total = -1;
	const json_t *answer;
	size_t i;

	json_array_foreach((json_t *)answers, i, answer)
	{
		size_t n = json_array_size(json_object_get(answer, "disks"));

		have += (json_int_t)n;
		total = json_integer_value(json_object_get(answer, "total"));
		if (!n)
			return NULL;
	}
	return have == total ? NULL : json_pack("{s:s,s:I}", "command", "disk-query", "from", have);
}

/* --- what is there and what is wanted --- */

static bool same_place(const json_t *there, size_t controller, const json_t *drive)
{
	return (size_t)json_integer_value(json_object_get(there, "controller")) == controller &&
	       json_integer_value(json_object_get(there, "lun")) ==
		       json_integer_value(json_object_get(drive, "lun"));
}

static const json_t *wanted_at(const struct hot_view *v, const json_t *there)
{
	const json_t *controller, *drive;
	size_t i, j;

	json_array_foreach((json_t *)v->wanted, i, controller)
		json_array_foreach(json_object_get(controller, "drives"), j,
				   drive) if (same_place(there, i, drive)) return drive;
	return NULL;
}

static const json_t *found_at(const struct hot_view *v, size_t controller, const json_t *drive)
{
	const json_t *answer, *there;
	size_t i, j;

	json_array_foreach((json_t *)v->answers, i, answer)
		json_array_foreach(json_object_get(answer, "disks"), j,
				   there) if (same_place(there, controller, drive)) return there;
	return NULL;
}

static char *path_of(const struct hot_view *v, const json_t *drive)
{
	const char *path =
		json_string_value(json_object_get(json_object_get(drive, "file"), "path"));
	char *whole = NULL, *real;

	if (!path)
		return NULL;
	if (*path == '/')
		whole = strdup(path);
	else if (asprintf(&whole, "%s/%s", v->folder, path) < 0)
		return NULL;
	real = whole ? realpath(whole, NULL) : NULL;
	if (!real)
		return whole; /* gone, perhaps, while the guest has it open */
	free(whole);
	return real;
}

static const char *file_of(const json_t *there)
{
	return json_string_value(
		json_object_get(json_array_get(json_object_get(there, "chain"), 0), "file"));
}

/* Of a disk that machines share only the set knows the file. */
static bool same_file(const struct hot_view *v, const json_t *there, const json_t *drive)
{
	_cleanup_free_ char *path = path_of(v, drive);
	const char *file = file_of(there);

	if (json_object_get(drive, "set"))
		return true;
	return path && file ? !strcmp(path, file) : !path && !file;
}

static bool is_dvd(const json_t *drive)
{
	const char *kind = json_string_value(json_object_get(drive, "kind"));

	return kind && !strcmp(kind, "dvd");
}

static bool is_raw(const json_t *drive)
{
	const char *format = json_string_value(json_object_get(drive, "format"));

	return format && !strcmp(format, "raw");
}

static bool is_shared(const json_t *there)
{
	const char *kind = json_string_value(json_object_get(there, "kind"));

	return kind && !strcmp(kind, "shared");
}

static json_t *place_of(const json_t *there)
{
	return json_pack("{s:O,s:O}", "controller", json_object_get(there, "controller"), "lun",
			 json_object_get(there, "lun"));
}

static bool file_is_there(const struct hot_view *v, const json_t *drive)
{
	_cleanup_free_ char *path = path_of(v, drive);
	const json_t *answer, *there;
	size_t i, j;

	json_array_foreach((json_t *)v->answers, i, answer) json_array_foreach(
		json_object_get(answer, "disks"), j,
		there) if (path && file_of(there) && !strcmp(path, file_of(there))) return true;
	return false;
}

/* --- steps --- */

/* The file is passed; in the request, its place among those passed and its path. */
static json_t *file_pass(const struct hot_view *v, const char *path, bool read_only, bool locked,
			 struct hot_step *step, struct error *err)
{
	const struct worker_file file = {
		.folder = v->folder, .path = path, .read_only = read_only, .locked = locked
	};
	_cleanup_free_ char *whole = NULL;
	int fd = worker_file_open(&file, &whole, err);

	if (fd < 0)
		return NULL;
	step->fds[step->fd_count] = fd;
	return json_pack("{s:i,s:s}", "descriptor", (int)step->fd_count++, "path", whole);
}

static int detach(const struct hot_view *v, const json_t *there, struct hot_step *step)
{
	step->request = json_pack("{s:s,s:o,s:b}", "command", "disk-detach", "disk",
				  place_of(there), "force", v->force);
	return step->request ? 1 : -ENOMEM;
}

static int exchange(const struct hot_view *v, const json_t *there, const json_t *drive,
		    struct hot_step *step, struct error *err)
{
	_cleanup_free_ char *path = path_of(v, drive);
	json_t *file = path ? file_pass(v, path, true, true, step, err) : NULL;

	if (path && !file)
		return -EIO;
	step->request = json_pack("{s:s,s:o,s:b,s:o*}", "command", "disk-media", "disk",
				  place_of(there), "force", v->force, "file", file);
	return step->request ? 1 : -ENOMEM;
}

/* Those of a differencing image follow it. */
static int parents_pass(const struct hot_view *v, const char *path, const char *format,
			json_t *files, struct hot_step *step, struct error *err)
{
	char *chain[HOT_FDS];
	unsigned count;
	int r = image_chain(path, format, chain, ARRAY_SIZE(chain), &count, err);

	if (r < 0)
		return r;
	for (unsigned i = 1; i < count && r >= 0; i++) {
		json_t *file = file_pass(v, chain[i], true, false, step, err);

		r = file ? json_array_append_new(files, file) : -EIO;
	}
	image_chain_free(chain, count);
	return r;
}

/* All that is behind a drive; the set, which is not in the list, is the last of those passed. */
static int files_pass(const struct hot_view *v, const json_t *drive, json_t *files,
		      struct hot_step *step, struct error *err)
{
	const char *set = json_string_value(json_object_get(json_object_get(drive, "set"), "path"));
	bool read_only = json_is_true(json_object_get(drive, "read_only"));
	_cleanup_free_ char *path = path_of(v, drive);
	json_t *file;
	int r = 0;

	if (!path)
		return 0;
	file = file_pass(v, path, read_only, !set, step, err);
	if (!file)
		return -EIO;
	json_array_append_new(files, file);
	if (set) {
		file = file_pass(v, set, false, false, step, err);
		r = file ? 0 : -EIO;
		json_decref(file);
	} else if (!is_dvd(drive) && !is_raw(drive)) {
		r = parents_pass(v, path, json_string_value(json_object_get(drive, "format")),
				 files, step, err);
	}
	return r;
}

static int attach(const struct hot_view *v, size_t controller, const json_t *drive,
		  struct hot_step *step, struct error *err)
{
	bool shared = json_object_get(drive, "set");
	json_t *files = json_array();
	int r = files_pass(v, drive, files, step, err);

	if (r < 0) {
		json_decref(files);
		return r;
	}
	step->request = json_pack(
		"{s:s,s:{s:i,s:O},s:O,s:O,s:O,s:O,s:o,s:o*}", "command", "disk-attach", "disk",
		"controller", (int)controller, "lun", json_object_get(drive, "lun"), "kind",
		json_object_get(drive, "kind"), "format", json_object_get(drive, "format"),
		"read_only", json_object_get(drive, "read_only"), "direct",
		json_object_get(drive, "direct"), "files", files, "set",
		shared ? json_integer(step->fd_count - 1) : NULL);
	return step->request ? 1 : -ENOMEM;
}

/*
 * Makes room for another at the place. The guest must not lose its disk, even for a moment, to one
 * that is no good: what can be known of that is found out before.
 */
static int detach_for(const struct hot_view *v, const json_t *there, const json_t *drive,
		      struct hot_step *step, struct error *err)
{
	struct hot_step trial = { .fd_count = 0 };
	json_t *files;
	int r = 0;

	if (!file_is_there(v, drive)) {
		files = json_array();
		r = files_pass(v, drive, files, &trial, err);
		json_decref(files);
		for (unsigned i = 0; i < trial.fd_count; i++)
			close(trial.fds[i]);
	}
	return r < 0 ? r : detach(v, there, step);
}

/* One that is there. */
static int next_there(const struct hot_view *v, const json_t *there, struct hot_step *step,
		      struct error *err)
{
	const json_t *drive = wanted_at(v, there);

	if (!drive)
		return detach(v, there, step);
	if (is_dvd(drive) != is_dvd(there) || is_shared(there) != !!json_object_get(drive, "set"))
		return detach_for(v, there, drive, step, err);
	if (!same_file(v, there, drive))
		return is_dvd(drive) ? exchange(v, there, drive, step, err)
				     : detach_for(v, there, drive, step, err);
	if (json_is_true(json_object_get(drive, "read_only")) !=
	    json_is_true(json_object_get(there, "read_only")))
		return error_set(
			err, -EBADFD,
			"drive %lld:%lld: whether it is read-only changes only while it is "
			"detached; remove it and add it again",
			json_integer_value(json_object_get(there, "controller")),
			json_integer_value(json_object_get(there, "lun")));
	return 0;
}

static int next_of_those_there(const struct hot_view *v, struct hot_step *step, struct error *err)
{
	const json_t *answer, *there;
	size_t i, j;

	json_array_foreach((json_t *)v->answers, i, answer)
		json_array_foreach(json_object_get(answer, "disks"), j, there)
	{
		int r = next_there(v, there, step, err);

		if (r)
			return r;
	}
	return 0;
}

/* `free`: only where neither place nor file is taken now. */
static int next_of_those_missing(const struct hot_view *v, bool free, struct hot_step *step,
				 struct error *err)
{
	const json_t *controller, *drive;
	size_t i, j;

	json_array_foreach((json_t *)v->wanted, i, controller) json_array_foreach(
		json_object_get(controller, "drives"), j,
		drive) if (!found_at(v, i, drive) &&
			   !(free && file_is_there(v, drive))) return attach(v, i, drive, step,
									     err);
	return 0;
}

static int next(const struct hot_view *v, struct hot_step *step, struct error *err)
{
	int r = next_of_those_missing(v, true, step, err);

	if (r == 0)
		r = next_of_those_there(v, step, err);
	if (r == 0)
		r = next_of_those_missing(v, false, step, err);
	for (unsigned n = 0; r < 0 && n < step->fd_count; n++)
		close(step->fds[n]);
	return r;
}

const struct hot_part hot_disks = { "scsi", query, next };
