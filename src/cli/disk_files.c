// SPDX-License-Identifier: MIT
/*
 * The verbs of `partita disk` that open or make files: a worker may not, so they are opened here,
 * with the rights of whoever calls, and passed over the control socket. What was made for nothing
 * is deleted again.
 */
#include "cli/disk.h"

#include "lib/cleanup.h"
#include "lib/folder.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILES_MAX 32

/* --- files --- */

static int folder_synced(const char *path, struct error *err)
{
	int r = folder_sync(path);

	return r < 0 ? error_errno(err, r, "cannot write the folder of \"%s\"", path) : 0;
}

static int file_make(const char *path, struct error *err)
{
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);

	if (fd < 0 && errno == EEXIST)
		return error_set(err, -EEXIST, "\"%s\" exists already", path);
	return fd < 0 ? error_errno(err, -errno, "cannot make \"%s\"", path) : fd;
}

static int file_open(const char *path, struct error *err)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);

	return fd < 0 ? error_errno(err, -errno, "cannot open \"%s\" for writing", path) : fd;
}

static char *with_suffix(const char *path, const char *suffix)
{
	char *out;

	return asprintf(&out, "%s%s", path, suffix) < 0 ? NULL : out;
}

/* A track file is begun under another name: one that can be seen under its own is whole. */
static int track_make(const char *image, struct error *err)
{
	_cleanup_free_ char *track = with_suffix(image, ".track"),
			    *partial = with_suffix(image, ".track.partial");

	if (!track || !partial)
		return error_set(err, -ENOMEM, "out of memory");
	if (access(track, F_OK) >= 0)
		return error_set(err, -EEXIST, "\"%s\" exists already", track);
	unlink(partial);
	return file_make(partial, err);
}

static int track_show(const char *image, struct error *err)
{
	_cleanup_free_ char *track = with_suffix(image, ".track"),
			    *partial = with_suffix(image, ".track.partial");

	if (!track || !partial)
		return error_set(err, -ENOMEM, "out of memory");
	if (rename(partial, track) < 0)
		return error_errno(err, -errno, "cannot make \"%s\"", track);
	return folder_synced(track, err);
}

static void track_undo(const char *image)
{
	_cleanup_free_ char *partial = with_suffix(image, ".track.partial");

	if (partial)
		unlink(partial);
}

/* --- snapshots --- */

struct snapshot {
	json_t *disks;
	unsigned count;
	int fds[FILES_MAX];
	unsigned fd_count;
	char *made[FILES_MAX]; /* images, by their real paths */
};

static int snapshot_track(struct snapshot *s, const char *path, json_t *o, struct error *err)
{
	int fd = track_make(path, err);

	if (fd < 0)
		return fd;
	json_object_set_new(o, "track", json_integer(s->fd_count));
	s->fds[s->fd_count++] = fd;
	return 0;
}

/* One word: DISK=FILE. */
static int snapshot_add(struct disk_run *run, struct snapshot *s, const char *word)
{
	struct disk_place place;
	const char *rest;
	json_t *o;
	int fd, r = disk_place_parse(word, &place, &rest, &run->err);

	if (r < 0)
		return r;
	if (*rest != '=' || !rest[1])
		return error_set(&run->err, -EINVAL,
				 "\"%s\": say the disk and its new file, like 0:0=today.vhdx",
				 word);
	if (s->fd_count + 2 > FILES_MAX)
		return error_set(&run->err, -EINVAL, "these are too many disks for one snapshot");
	fd = file_make(rest + 1, &run->err);
	if (fd < 0)
		return fd;
	s->made[s->count] = realpath(rest + 1, NULL);
	if (!s->made[s->count]) {
		close(fd);
		return error_errno(&run->err, -errno, "cannot find \"%s\"", rest + 1);
	}
	o = disk_place_json(&place);
	json_object_set_new(o, "file", json_string(s->made[s->count]));
	json_object_set_new(o, "descriptor", json_integer(s->fd_count));
	if (run->o.block_size)
		json_object_set_new(o, "block_size", json_integer(run->o.block_size));
	json_array_append_new(s->disks, o);
	s->fds[s->fd_count++] = fd;
	if (run->o.track && snapshot_track(s, s->made[s->count], o, &run->err) < 0)
		r = -1;
	if (folder_synced(s->made[s->count++], &run->err) < 0)
		r = -1;
	return r;
}

static int snapshot_end(struct disk_run *run, struct snapshot *s, int r)
{
	for (unsigned i = 0; i < s->fd_count; i++)
		close(s->fds[i]);
	for (unsigned i = 0; i < s->count; i++) {
		if (r >= 0 && run->o.track)
			r = track_show(s->made[i], &run->err);
		else if (r < 0)
			track_undo(s->made[i]);
		free(s->made[i]);
	}
	return r < 0 ? cli_fail("disk", &run->err) : CLI_OK;
}

int disk_snapshot(struct disk_run *run, int count, char **words)
{
	struct snapshot s = { .disks = json_array() };
	json_t *answer;
	int r = 0;

	for (int i = 0; i < count && r >= 0; i++)
		r = snapshot_add(run, &s, words[i]);
	if (r >= 0)
		r = control_ask(
			&run->client,
			json_pack("{s:s,s:O}", "command", "disk-snapshot", "disks", s.disks), s.fds,
			s.fd_count, &answer, &run->err);
	if (r == -EPIPE)
		error_prefix(&run->err, "whether the snapshot was made is not known, and its files "
					"are kept");
	for (unsigned i = 0; i < s.count && r < 0 && r != -EPIPE; i++)
		unlink(s.made[i]);
	if (r >= 0 && run->o.json)
		disk_print_json(json_incref(s.disks));
	if (r >= 0)
		json_decref(answer);
	json_decref(s.disks);
	return snapshot_end(run, &s, r);
}

/* --- merging --- */

/* All images of the disk's chain; the caller's. */
static int chain_ask(struct disk_run *run, const struct disk_place *place, json_t **ret)
{
	json_t *chain = json_array(), *disk;
	size_t depth = 1;
	int r = 0;

	while (json_array_size(chain) < depth && r >= 0) {
		size_t before = json_array_size(chain);

		r = disk_query(run, place, (unsigned)before, &disk);
		if (r < 0)
			break;
		depth = (size_t)json_integer_value(json_object_get(disk, "chain_depth"));
		json_array_extend(chain, json_object_get(disk, "chain"));
		json_decref(disk);
		if (json_array_size(chain) == before)
			break;
	}
	if (r < 0)
		json_decref(chain);
	else
		*ret = chain;
	return r;
}

static const char *image_file(const json_t *chain, size_t index)
{
	const char *file = json_string_value(json_object_get(json_array_get(chain, index), "file"));

	return file ? file : "";
}

/* The image that --image names by its number or file; the topmost without it. */
static int image_find(struct disk_run *run, const json_t *chain, size_t *ret)
{
	const char *text = run->o.image;
	_cleanup_free_ char *real = text ? realpath(text, NULL) : NULL;
	char *end;
	unsigned long n = text ? strtoul(text, &end, 10) : 0;

	if (!text || (*text && !*end)) {
		*ret = n;
		if (n + 1 < json_array_size(chain))
			return 0;
		return error_set(&run->err, -EINVAL,
				 "the disk has a chain of %zu images, and the last one has no "
				 "parent to be merged into",
				 json_array_size(chain));
	}
	for (size_t i = 0; i + 1 < json_array_size(chain) && real; i++) {
		if (!strcmp(image_file(chain, i), real)) {
			*ret = i;
			return 0;
		}
	}
	return error_set(&run->err, -ENOENT,
			 "\"%s\" is no image of that disk that has a parent; `partita disk query` "
			 "lists them",
			 text);
}

struct merge {
	json_t *request, *chain;
	int fds[4];
	size_t fd_count;
};

static int merge_pass(struct disk_run *run, struct merge *m, const char *key, int fd)
{
	(void)run;
	if (fd < 0)
		return fd;
	json_object_set_new(m->request, key, json_integer((json_int_t)m->fd_count));
	m->fds[m->fd_count++] = fd;
	return 0;
}

/* An image that the worker has not open for writing. */
static int merge_image(struct disk_run *run, struct merge *m, const char *key, size_t index)
{
	const json_t *image = json_array_get(m->chain, index);

	if (json_is_true(json_object_get(image, "writable")))
		return 0;
	return merge_pass(run, m, key, file_open(image_file(m->chain, index), &run->err));
}

/* The parent's changes are noted from now on, if it has a track. */
static int merge_track(struct disk_run *run, struct merge *m, size_t parent)
{
	_cleanup_free_ char *track = with_suffix(image_file(m->chain, parent), ".track");

	if (!track || access(track, F_OK) < 0)
		return 0;
	return merge_pass(run, m, "track", file_open(track, &run->err));
}

static int merge_begin(struct disk_run *run, const struct disk_place *place)
{
	struct merge m = { .request = disk_request("disk-merge", place) };
	json_t *answer;
	size_t index = 0;
	int r = chain_ask(run, place, &m.chain);

	if (r >= 0)
		r = image_find(run, m.chain, &index);
	if (r >= 0) {
		json_object_set_new(m.request, "image", json_integer((json_int_t)index));
		r = merge_image(run, &m, "parent", index + 1);
	}
	if (r >= 0 && m.fd_count)
		r = merge_track(run, &m, index + 1);
	if (r >= 0 && index)
		r = merge_image(run, &m, "self", index);
	if (r >= 0 && index > 1)
		r = merge_image(run, &m, "child", index - 1);
	if (r >= 0)
		r = control_ask(&run->client, json_incref(m.request), m.fds, m.fd_count, &answer,
				&run->err);
	if (r >= 0)
		json_decref(answer);
	for (size_t i = 0; i < m.fd_count; i++)
		close(m.fds[i]);
	json_decref(m.request);
	json_decref(m.chain);
	return r;
}

static bool event_is(const json_t *event, const char *name, const struct disk_place *place)
{
	const json_t *disk = json_object_get(event, "disk");
	const char *is = json_string_value(json_object_get(event, "event"));

	return is && !strcmp(is, name) &&
	       json_integer_value(json_object_get(disk, "controller")) == place->controller &&
	       json_integer_value(json_object_get(disk, "lun")) == place->lun;
}

static void show_progress(const json_t *event)
{
	json_int_t copied = json_integer_value(json_object_get(event, "copied"));
	json_int_t total = json_integer_value(json_object_get(event, "total"));

	if (isatty(STDERR_FILENO) && total > 0)
		fprintf(stderr, "\r%3.0f %%", 100.0 * (double)copied / (double)total);
}

/* The merged image, and its track. */
static int merged_delete(const char *path, struct error *err)
{
	_cleanup_free_ char *track = with_suffix(path, ".track");

	if (track)
		unlink(track);
	return unlink(path) < 0 ? error_errno(err, -errno, "cannot delete \"%s\"", path) : 0;
}

static int merge_end(struct disk_run *run, json_t *event)
{
	const char *file = json_string_value(json_object_get(event, "file"));
	const char *into = json_string_value(json_object_get(event, "into"));
	const char *words = json_string_value(json_object_get(event, "error"));
	int r = 0;

	if (isatty(STDERR_FILENO))
		fputs("\r", stderr);
	if (!json_is_true(json_object_get(event, "ok")))
		r = error_set(&run->err, -EIO, "%s", words ? words : "the merge failed");
	else if (run->o.delete &&file)
		r = merged_delete(file, &run->err);
	if (run->o.json)
		disk_print_json(json_incref(event));
	else if (r >= 0)
		printf("\"%s\" is in \"%s\" now%s\n", file ? file : "?", into ? into : "?",
		       run->o.delete ? "" : " and can be deleted");
	json_decref(event);
	return r < 0 ? cli_fail("disk", &run->err) : CLI_OK;
}

int disk_merge(struct disk_run *run, int count, char **words)
{
	struct disk_place place;
	json_t *event;
	int r = disk_place_parse(words[0], &place, NULL, &run->err);

	(void)count;
	if (r >= 0)
		r = merge_begin(run, &place);
	while (r >= 0 && !run->o.background) {
		r = control_event(&run->client, &event, &run->err);
		if (r < 0)
			break;
		if (event_is(event, "disk-merged", &place))
			return merge_end(run, event);
		if (event_is(event, "disk-merging", &place))
			show_progress(event);
		json_decref(event);
	}
	return r < 0 ? cli_fail("disk", &run->err) : CLI_OK;
}

/* --- tracking --- */

static int top_file(struct disk_run *run, const struct disk_place *place, char **ret)
{
	const json_t *image;
	json_t *disk;
	int r = disk_query(run, place, 0, &disk);

	if (r < 0)
		return r;
	image = json_array_get(json_object_get(disk, "chain"), 0);
	*ret = json_is_true(json_object_get(image, "path_known"))
		       ? strdup(image_file(json_object_get(disk, "chain"), 0))
		       : NULL;
	json_decref(disk);
	return *ret ? 0
		    : error_set(&run->err, -ENOTSUP, "where the disk's image lies is not known");
}

int disk_track_begin(struct disk_run *run, const struct disk_place *place)
{
	_cleanup_free_ char *image = NULL;
	_cleanup_close_ int fd = -1;
	json_t *request, *answer;
	int r = top_file(run, place, &image);

	if (r >= 0)
		r = fd = track_make(image, &run->err);
	if (r < 0)
		return cli_fail("disk", &run->err);
	request = disk_request("disk-track", place);
	json_object_set_new(request, "action", json_string("on"));
	json_object_set_new(request, "descriptor", json_integer(0));
	r = control_ask(&run->client, request, &fd, 1, &answer, &run->err);
	if (r < 0) {
		track_undo(image);
		return cli_fail("disk", &run->err);
	}
	r = track_show(image, &run->err);
	if (r >= 0)
		puts(json_string_value(json_object_get(
			json_array_get(json_object_get(answer, "disks"), 0), "point")));
	json_decref(answer);
	return r < 0 ? cli_fail("disk", &run->err) : CLI_OK;
}

int disk_track_end(struct disk_run *run, const struct disk_place *place)
{
	_cleanup_free_ char *image = NULL, *track = NULL;
	json_t *request, *answer;
	int r = top_file(run, place, &image);

	if (r < 0)
		return cli_fail("disk", &run->err);
	request = disk_request("disk-track", place);
	json_object_set_new(request, "action", json_string("off"));
	r = control_ask(&run->client, request, NULL, 0, &answer, &run->err);
	if (r >= 0) {
		json_decref(answer);
		track = with_suffix(image, ".track");
		if (track && unlink(track) < 0 && errno != ENOENT)
			r = error_errno(&run->err, -errno, "cannot delete \"%s\"", track);
	}
	if (r >= 0)
		r = folder_synced(image, &run->err);
	return r < 0 ? cli_fail("disk", &run->err) : CLI_OK;
}
