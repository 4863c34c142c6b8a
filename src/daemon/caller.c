// SPDX-License-Identifier: MIT
/*
 * Who asks, see authz.h: names from the system's databases of users and groups, looked up when a
 * connection is made. What is too long for its place is left out, never cut: a shortened name could
 * be another's.
 */
#include "daemon/authz.h"

#include "lib/cleanup.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <string.h>

#define ADMINISTRATORS  "partita-administrators"
#define NSS_BUFFER      65536 /* a group's entry has all its members */
#define NSS_BUFFER_MAX  MIB
#define USER_GROUPS_MAX 65536 /* the kernel's NGROUPS_MAX */

const struct caller caller_service = { .name = "the service", .administrator = true };

static void group_add(struct caller *c, const char *name)
{
	if (!strcmp(name, ADMINISTRATORS))
		c->administrator = true;
	if (c->group_count < CALLER_GROUPS_MAX && strlen(name) < sizeof(c->groups[0]))
		strcpy(c->groups[c->group_count++], name);
}

static void group_add_by_id(struct caller *c, gid_t gid)
{
	struct group entry, *found = NULL;
	int r = ERANGE;

	for (size_t size = NSS_BUFFER; r == ERANGE && size <= NSS_BUFFER_MAX; size *= 2) {
		_cleanup_free_ char *buffer = malloc(size);

		if (!buffer)
			return;
		r = getgrgid_r(gid, &entry, buffer, size, &found);
		if (!r && found)
			group_add(c, entry.gr_name);
	}
}

static void groups_add(struct caller *c, const char *user, gid_t gid)
{
	int count = 0;
	_cleanup_free_ gid_t *list = NULL;

	getgrouplist(user, gid, NULL, &count);
	if (count <= 0 || count > USER_GROUPS_MAX)
		return;
	list = calloc((size_t)count, sizeof(*list));
	if (!list || getgrouplist(user, gid, list, &count) < 0)
		return;
	for (int i = 0; i < count; i++)
		group_add_by_id(c, list[i]);
}

void caller_from_uid(uid_t uid, gid_t gid, struct caller *ret)
{
	_cleanup_free_ char *buffer = malloc(NSS_BUFFER);
	struct passwd entry, *found = NULL;

	*ret = (struct caller){ .uid = uid, .administrator = uid == 0 || uid == geteuid() };
	if (buffer && !getpwuid_r(uid, &entry, buffer, NSS_BUFFER, &found) && found &&
	    strlen(entry.pw_name) < sizeof(ret->name)) {
		strcpy(ret->name, entry.pw_name);
		groups_add(ret, entry.pw_name, gid);
	} else {
		snprintf(ret->name, sizeof(ret->name), "uid %u", (unsigned)uid);
	}
}
