// SPDX-License-Identifier: MIT
/* The doors of partitad (daemon/door.h): the program's list. */
#include "daemon/door.h"
#include "rest/rest.h"

static int begin_rest(struct daemon *d, const struct door_options *o, void **ret, struct error *err)
{
	const struct rest_options rest = { .socket = o->socket, .tls_folder = o->state_folder };
	struct rest *door;
	int r = rest_new(d, &rest, &door, err);

	if (r >= 0)
		*ret = door;
	return r;
}

static void end_rest(void *door)
{
	rest_free(door);
}

static const struct door door_rest = { "REST", begin_rest, end_rest };

const struct door *const doors[] = { &door_rest, NULL };
