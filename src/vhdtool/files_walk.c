// SPDX-License-Identifier: MIT
/*
 * Paths inside an image, by the tool: one name after the other, symbolic links and ".." included,
 * so that nothing of the tool's own file system is ever meant by them. Names for people.
 */
#include "vhdtool/files_session.h"

#include <errno.h>
#include <string.h>

#define LINKS_MAX 40u /* as Linux */
#define DEPTH_MAX 256u

struct walk {
	struct files_session *session;
	uint64_t above[DEPTH_MAX]; /* the folders from the root to `at` */
	unsigned depth, links;
	struct files_node at;
	char rest[2 * FILES_LINK_MAX];
};

static int follow_link(struct walk *w, const struct files_node *link, const char *rest,
		       struct error *err)
{
	char target[FILES_LINK_MAX], both[sizeof(w->rest)];
	int r;

	if (++w->links > LINKS_MAX)
		return error_set(err, -ELOOP, "more than %u symbolic links", LINKS_MAX);
	r = session_readlink(w->session, link->id, target, err);
	if (r < 0)
		return r;
	if (snprintf(both, sizeof(both), "%s/%s", target, rest) >= (int)sizeof(both))
		return error_set(err, -ENAMETOOLONG, "symbolic links make it too long");
	strcpy(w->rest, both);
	if (*target == '/') {
		w->depth = 0;
		return session_stat(w->session, session_root(w->session), &w->at, err);
	}
	return 0;
}

static int step_up(struct walk *w, struct error *err)
{
	if (!w->depth)
		return 0;
	return session_stat(w->session, w->above[--w->depth], &w->at, err);
}

static int step_down(struct walk *w, const char *name, const char *rest, bool follow,
		     struct error *err)
{
	bool last = !rest[strspn(rest, "/")], slash = *rest == '/';
	char shown[FILES_SHOWN_MAX];
	struct files_node next;
	int r = session_child(w->session, w->at.id, name, &next, err);

	if (r == -ENOENT)
		return error_set(err, r, "there is no \"%s\"", files_shown(name, shown));
	if (r < 0)
		return r;
	if (next.info.kind == FILES_SYMLINK && (!last || follow || slash))
		return follow_link(w, &next, rest, err);
	if (w->depth >= DEPTH_MAX)
		return error_set(err, -ENAMETOOLONG, "more than %u folders deep", DEPTH_MAX);
	w->above[w->depth++] = w->at.id;
	w->at = next;
	memmove(w->rest, rest, strlen(rest) + 1);
	return 0;
}

static int walk_on(struct walk *w, bool follow, struct error *err)
{
	char name[FILES_LINK_MAX], shown[FILES_SHOWN_MAX];
	const char *from = w->rest + strspn(w->rest, "/");
	size_t n = strcspn(from, "/");

	if (n >= sizeof(name))
		return error_set(err, -ENAMETOOLONG, "a name of %zu bytes", n);
	memcpy(name, from, n);
	name[n] = 0;
	if (n && w->at.info.kind != FILES_FOLDER)
		return error_set(err, -ENOTDIR, "what stands before \"%s\" is no folder",
				 files_shown(name, shown));
	if (!n || !strcmp(name, ".") || !strcmp(name, "..")) {
		memmove(w->rest, from + n, strlen(from + n) + 1);
		return strcmp(name, "..") ? 0 : step_up(w, err);
	}
	return step_down(w, name, from + n, follow, err);
}

int session_find(struct files_session *s, const char *path, bool follow, struct files_node *ret,
		 struct error *err)
{
	struct walk w = { .session = s };
	char shown[FILES_SHOWN_MAX];
	int r = session_stat(s, session_root(s), &w.at, err);

	if (r < 0)
		return r;
	if (strlen(path) >= FILES_LINK_MAX)
		return error_set(err, -ENAMETOOLONG, "a path of %zu bytes", strlen(path));
	strcpy(w.rest, path);
	while (w.rest[strspn(w.rest, "/")] && r >= 0)
		r = walk_on(&w, follow, err);
	if (r >= 0 && path[0] && path[strlen(path) - 1] == '/' && w.at.info.kind != FILES_FOLDER)
		r = error_set(err, -ENOTDIR, "it is no folder");
	if (r < 0)
		return error_prefix(err, "\"%.200s\" in the image", files_shown(path, shown));
	*ret = w.at;
	return 0;
}

/* --- names --- */

/* Bytes of the character at `p`, 0 when it is no UTF-8 (RFC 3629) or a control character. */
static size_t character(const unsigned char *p)
{
	static const struct {
		unsigned char mask, lead;
		unsigned least;
	} forms[] = { { 0xe0, 0xc0, 0x80 }, { 0xf0, 0xe0, 0x800 }, { 0xf8, 0xf0, 0x10000 } };
	unsigned value;

	if (*p < 0x80)
		return *p >= ' ' && *p != 0x7f;
	for (size_t i = 0; i < ARRAY_SIZE(forms); i++) {
		if ((*p & forms[i].mask) != forms[i].lead)
			continue;
		value = *p & (unsigned char)~forms[i].mask;
		for (size_t k = 1; k < i + 2; k++) {
			if ((p[k] & 0xc0) != 0x80)
				return 0;
			value = value << 6 | (p[k] & 0x3f);
		}
		if (value < forms[i].least || value > 0x10ffff ||
		    (value >= 0xd800 && value < 0xe000) || (value >= 0x80 && value < 0xa0) ||
		    (value >= 0x202a && value <= 0x202e) || (value >= 0x2066 && value <= 0x2069))
			return 0;
		return i + 2;
	}
	return 0;
}

const char *files_shown(const char *name, char buf[FILES_SHOWN_MAX])
{
	const unsigned char *p = (const unsigned char *)name;
	size_t at = 0;

	while (*p && at + 5 < FILES_SHOWN_MAX) {
		size_t n = *p == '\\' ? 0 : character(p);

		if (n)
			memcpy(buf + at, p, n);
		else
			snprintf(buf + at, 5, "\\%03o", *p);
		at += n ? n : 4;
		p += n ? n : 1;
	}
	buf[at] = 0;
	return buf;
}

bool files_is_utf8(const char *name)
{
	const unsigned char *p = (const unsigned char *)name;
	size_t n;

	for (; *p; p += n) {
		n = *p < 0x80 ? 1 : character(p);
		if (!n)
			return false;
	}
	return true;
}
