// SPDX-License-Identifier: MIT
/*
 * partita vm insert and eject: the disc of a DVD drive is the drive's path, so both are a change of
 * settings, made with an ETag so that nothing that others change meanwhile is undone.
 */
#include "cli/output.h"
#include "cli/vm.h"

#include "lib/cleanup.h"

#include <errno.h>
#include <string.h>

#define CHANGE_TRIES 5

static bool place_is(size_t controller, const json_t *drive, const char *place)
{
	char text[40];

	snprintf(text, sizeof(text), "%zu:%d", controller,
		 (int)json_integer_value(json_object_get(drive, "location")));
	return !strcmp(text, place);
}

static bool is_dvd(const json_t *drive)
{
	const char *kind = json_string_value(json_object_get(drive, "kind"));

	return kind && !strcmp(kind, "dvd");
}

/* The DVD drive at that place, or (NULL) the only one; NULL with words. */
static json_t *dvd_find(const json_t *controllers, const char *place, struct error *err)
{
	json_t *controller, *drive, *found = NULL;
	size_t i, j, count = 0;

	json_array_foreach((json_t *)controllers, i, controller)
		json_array_foreach(json_object_get(controller, "drives"), j, drive)
	{
		if (!is_dvd(drive) || (place && !place_is(i, drive, place)))
			continue;
		found = drive;
		count++;
	}
	if (count == 1)
		return found;
	if (count)
		error_set(err, -ENOTUNIQ, "it has %zu DVD drives; say which with --drive", count);
	else if (place)
		error_set(err, -ENOENT, "it has no DVD drive at %s", place);
	else
		error_set(err, -ENOENT,
			  "it has no DVD drive; add one with `partita vm set NAME --dvd ''`");
	return NULL;
}

static int disc_set_once(struct command *c, const char *path)
{
	struct client_answer a;
	json_t *controllers = NULL, *drive, *patch;
	const char *id;
	int r = vm_get(c, c->words[0], &a);

	if (r < 0)
		return r;
	id = json_string_value(json_object_get(a.body, "id"));
	controllers = json_deep_copy(json_at(a.body, "settings.scsi_controllers"));
	drive = dvd_find(controllers, command_option(c, "drive"), &c->err);
	r = drive ? 0 : c->err.code;
	if (r >= 0 && path)
		json_object_set_new(drive, "path", json_string(path));
	else if (r >= 0)
		json_object_del(drive, "path");
	patch = json_pack("{s:o}", "scsi_controllers", controllers ? controllers : json_array());
	if (r >= 0)
		r = vm_patch(c, id ? id : c->words[0], patch, a.etag[0] ? a.etag : NULL, NULL);
	json_decref(patch);
	client_answer_deinit(&a);
	return r;
}

static int disc_set(struct command *c, const char *path)
{
	int r = -ESTALE;

	for (int i = 0; i < CHANGE_TRIES && r == -ESTALE; i++)
		r = disc_set_once(c, path);
	return r;
}

int vm_run_insert(struct command *c)
{
	_cleanup_free_ char *path = realpath(c->words[1], NULL);

	if (!path)
		return error_errno(&c->err, -errno, "\"%s\"", c->words[1]);
	return disc_set(c, path);
}

int vm_run_eject(struct command *c)
{
	return disc_set(c, NULL);
}
