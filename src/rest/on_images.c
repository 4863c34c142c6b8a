// SPDX-License-Identifier: MIT
/*
 * /images: the catalogue, which is a folder: each NAME.vhdx in it is an image, and NAME.json, an
 * object, says more about it. They are put there by people and tools; here they are shown and
 * removed.
 */
#include "daemon/words.h"
#include "rest/api.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

#define SUFFIX       ".vhdx"
#define METADATA_MAX (64 * KIB)
#define IMAGE_MAX    4096 /* in the catalogue; more are not looked at */

static int check(struct call *call, enum operation op, struct error *err)
{
	return authz_check(call->d->authz, call->caller, op, &(struct target){ 0 }, err);
}

static int folder_path(const struct daemon *d, char ret[static PATH_MAX], struct error *err)
{
	const char *set = d->host.image_folder;
	int n = set ? snprintf(ret, PATH_MAX, "%s", set)
		    : snprintf(ret, PATH_MAX, "%s/images", d->state_folder);

	return n < PATH_MAX ? 0 : error_set(err, -ENAMETOOLONG, "image_folder is too long");
}

/* -ENOENT without words when there is no catalogue yet. */
static int folder_open(struct call *call, struct error *err)
{
	char path[PATH_MAX];
	int fd, r = folder_path(call->d, path, err);

	if (r < 0)
		return r;
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 && errno != ENOENT)
		return error_errno(err, errno == EACCES ? -EUCLEAN : -errno,
				   "cannot read the catalogue \"%s\"", path);
	return fd < 0 ? -ENOENT : fd;
}

static json_t *metadata_read(int folder, const char *name)
{
	char file[NAME_MAX + 16], text[METADATA_MAX];
	_cleanup_close_ int fd = -1;
	json_t *json;
	ssize_t n;

	snprintf(file, sizeof(file), "%s.json", name);
	fd = openat(folder, file, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	n = fd < 0 ? 0 : read(fd, text, sizeof(text));
	json = n > 0 ? json_loadb(text, (size_t)n, JSON_REJECT_DUPLICATES, NULL) : NULL;
	if (!json_is_object(json)) {
		json_decref(json);
		json = json_object();
	}
	return json;
}

/* NULL when it is none, or without memory. */
static json_t *image_json(struct call *call, int folder, const char *name)
{
	char path[PATH_MAX], file[NAME_MAX + 16], full[PATH_MAX + NAME_MAX + 16];
	struct stat st;

	snprintf(file, sizeof(file), "%s" SUFFIX, name);
	if (fstatat(folder, file, &st, 0) < 0 || !S_ISREG(st.st_mode) || !text_is_utf8(name) ||
	    folder_path(call->d, path, NULL) < 0)
		return NULL;
	snprintf(full, sizeof(full), "%s/%s", path, file);
	return json_pack(
		"{s:s,s:o,s:I,s:o,s:o}", "name", name, "file", json_text(full), "size",
		(json_int_t)st.st_size, "changed",
		json_time((int64_t)st.st_mtim.tv_sec * 1000 + st.st_mtim.tv_nsec / 1000000),
		"metadata", metadata_read(folder, name));
}

/* --- the list --- */

static int compare(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Names of all images, sorted; each and the array to be freed. */
static unsigned names_read(int folder, char ***ret)
{
	DIR *dir = fdopendir(dup(folder));
	char **names = calloc(IMAGE_MAX, sizeof(*names));
	struct dirent *e;
	unsigned count = 0;

	while (names && dir && count < IMAGE_MAX && (e = readdir(dir))) {
		size_t n = strlen(e->d_name);

		if (n <= strlen(SUFFIX) || strcmp(e->d_name + n - strlen(SUFFIX), SUFFIX))
			continue;
		names[count] = strndup(e->d_name, n - strlen(SUFFIX));
		count += names[count] != NULL;
	}
	if (dir)
		closedir(dir);
	if (names)
		qsort(names, count, sizeof(*names), compare);
	*ret = names;
	return count;
}

static void list(struct call *call, int folder, struct page *page)
{
	const char *pattern = call_text(call, "name");
	char **names;
	unsigned count = names_read(folder, &names);

	for (unsigned i = 0; i < count; i++) {
		json_t *json;

		if ((!pattern || name_matches_pattern(pattern, names[i])) &&
		    (!page->cursor || strcmp(names[i], page->cursor) > 0) && page_room(page)) {
			json = image_json(call, folder, names[i]);
			if (json)
				page_add(page, json, names[i]);
		}
		free(names[i]);
	}
	free(names);
}

int list_images(struct call *call, struct error *err)
{
	_cleanup_close_ int folder = -1;
	struct page page;
	int r = check(call, OP_VIEW_IMAGE, err);

	if (r >= 0)
		r = page_begin(&page, call, err);
	if (r < 0)
		return r;
	folder = folder_open(call, err);
	if (folder >= 0) {
		list(call, folder, &page);
	} else if (folder != -ENOENT) {
		page_deinit(&page);
		return folder;
	}
	return page_answer(&page);
}

/* --- one --- */

static int find(struct call *call, int *ret_folder, json_t **ret, struct error *err)
{
	int folder;

	/* a name is one part of a path, and hidden files are nobody's images */
	if (strchr(call->id, '/') || *call->id == '.' || strlen(call->id) > NAME_MAX - 8)
		return error_set(err, -ENOENT, "there is no image \"%.100s\"", call->id);
	folder = folder_open(call, err);
	if (folder < 0 && folder != -ENOENT)
		return folder;
	*ret = folder < 0 ? NULL : image_json(call, folder, call->id);
	if (!*ret) {
		if (folder >= 0)
			close(folder);
		return error_set(err, -ENOENT, "there is no image \"%.100s\"", call->id);
	}
	*ret_folder = folder;
	return 0;
}

int get_image(struct call *call, struct error *err)
{
	_cleanup_close_ int folder = -1;
	char etag[ETAG_SIZE];
	json_t *json;
	int r = check(call, OP_VIEW_IMAGE, err);

	if (r >= 0)
		r = find(call, &folder, &json, err);
	if (r < 0)
		return r;
	etag_of_json(json, etag);
	return call_answer_etag(call, 200, json, etag);
}

static int remove_file(int folder, const char *name, const char *suffix, struct error *err)
{
	char file[NAME_MAX + 16];

	snprintf(file, sizeof(file), "%s%s", name, suffix);
	if (unlinkat(folder, file, 0) < 0 && errno != ENOENT)
		return error_errno(err, -errno, "cannot remove \"%s\"", file);
	return 0;
}

int delete_image(struct call *call, struct error *err)
{
	static const char *const suffixes[] = { SUFFIX, ".json", ".kernel", ".initrd" };
	_cleanup_close_ int folder = -1;
	_cleanup_json_ json_t *json = NULL;
	char etag[ETAG_SIZE];
	int r = check(call, OP_CHANGE_IMAGE, err);

	if (r >= 0)
		r = find(call, &folder, &json, err);
	if (r < 0)
		return r;
	etag_of_json(json, etag);
	r = call_if_match(call, etag, err);
	for (unsigned i = 0; i < ARRAY_SIZE(suffixes) && r >= 0; i++)
		r = remove_file(folder, call->id, suffixes[i], err);
	if (r < 0)
		return r;
	event_add(call->d->events, SEVERITY_AUDIT, "image-removed", NULL, call->caller,
		  json_pack("{s:s}", "name", call->id), "The image \"%s\" was removed", call->id);
	return call_answer_empty(call);
}
