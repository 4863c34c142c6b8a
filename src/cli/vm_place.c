// SPDX-License-Identifier: MIT
/*
 * Drives and adapters that options name, among those that a machine has. A merge patch replaces
 * arrays whole, so they are put together here and sent with an ETag. Pure.
 */
#include "cli/vm.h"

#include <errno.h>
#include <string.h>

#define CONTROLLERS_MAX 4
#define LOCATIONS_MAX   64

static json_t *drives_of(json_t *controllers, size_t index)
{
	json_t *controller = json_array_get(controllers, index);
	json_t *drives = json_object_get(controller, "drives");

	if (json_is_array(drives) || !controller)
		return drives;
	json_object_set_new(controller, "drives", json_array());
	return json_object_get(controller, "drives");
}

/* Where in the array it is, or -1. */
static int drive_at(const json_t *drives, json_int_t location)
{
	json_t *d;
	size_t i;

	json_array_foreach(drives, i, d) if (json_integer_value(json_object_get(d, "location")) ==
					     location) return (int)i;
	return -1;
}

static int drive_place(json_t *controllers, json_t *drive, struct error *err)
{
	json_int_t controller = json_integer_value(json_object_get(drive, "controller"));
	const json_t *said = json_object_get(drive, "location");
	json_int_t location = json_integer_value(said);
	json_t *drives;

	if (controller < 0 || controller >= CONTROLLERS_MAX)
		return error_set(err, -EINVAL, "controllers are 0 to %d", CONTROLLERS_MAX - 1);
	while (json_array_size(controllers) <= (size_t)controller)
		json_array_append_new(controllers, json_pack("{s:[]}", "drives"));
	drives = drives_of(controllers, (size_t)controller);
	while (!said && drive_at(drives, location) >= 0)
		location++;
	if (location >= LOCATIONS_MAX)
		return error_set(err, -ENOSPC, "controller %lld has no free location", controller);
	if (said && drive_at(drives, location) >= 0)
		return error_set(err, -EEXIST,
				 "there is a drive at %lld:%lld already; take it away with "
				 "--remove-disk %lld:%lld, or leave location= out",
				 controller, location, controller, location);
	json_object_del(drive, "controller");
	json_object_set_new(drive, "location", json_integer(location));
	return json_array_append(drives, drive) < 0 ? -ENOMEM : 0;
}

int drives_place(json_t *controllers, json_t *drives, struct error *err)
{
	json_t *d;
	size_t i;
	int r = 0;

	json_array_foreach(drives, i, d) if (r >= 0) r = drive_place(controllers, d, err);
	return r;
}

int drive_remove(json_t *controllers, const char *place, struct error *err)
{
	unsigned controller, location;
	json_t *drives;
	int n = 0, at;

	if (sscanf(place, "%3u:%3u%n", &controller, &location, &n) < 2 || !n || place[n])
		return error_set(err, -EINVAL,
				 "\"%s\" is no disk; write controller and location, like 0:1",
				 place);
	drives = drives_of(controllers, controller);
	at = drive_at(drives, (json_int_t)location);
	if (at < 0)
		return error_set(err, -ENOENT, "there is no drive at %s", place);
	return json_array_remove(drives, (size_t)at) < 0 ? -EIO : 0;
}

static int adapter_at(const json_t *adapters, const char *name)
{
	json_t *a;
	size_t i;

	json_array_foreach(adapters, i, a)
	{
		const char *other = json_string_value(json_object_get(a, "name"));

		if (other && !strcmp(other, name))
			return (int)i;
	}
	return -1;
}

int adapters_place(json_t *adapters, json_t *added, struct error *err)
{
	json_t *a;
	size_t i;

	json_array_foreach(added, i, a)
	{
		const char *name = json_string_value(json_object_get(a, "name"));
		int at = name ? adapter_at(adapters, name) : -1;

		if ((at < 0 ? json_array_append(adapters, a)
			    : json_object_update(json_array_get(adapters, (size_t)at), a)) < 0)
			return error_set(err, -ENOMEM, "out of memory");
	}
	return 0;
}

int adapter_remove(json_t *adapters, const char *name, struct error *err)
{
	int at = adapter_at(adapters, name);

	if (at < 0)
		return error_set(err, -ENOENT, "there is no network adapter \"%s\"", name);
	return json_array_remove(adapters, (size_t)at) < 0 ? -EIO : 0;
}
