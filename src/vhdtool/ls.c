// SPDX-License-Identifier: MIT
/* vhd ls: what a folder inside an image has, without mounting it. */
#include "vhdtool/files_seen.h"
#include "vhdtool/files_session.h"
#include "vhdtool/verbs.h"

#include "lib/cleanup.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define DEPTH_MAX 256u

static struct {
	struct files_open open;
	bool lines, recursive, json;
} o;

static const struct tool_option table[] = {
	{ "long", TOOL_FLAG, &o.lines, NULL, "mode, owner, size and time too", 'l' },
	{ "recursive", TOOL_FLAG, &o.recursive, NULL, "the folders inside too", 'r' },
	{ "json", TOOL_FLAG, &o.json, NULL, "print JSON" },
	{ "partition", TOOL_NUMBER, &o.open.partition, "N", "this partition (the one that fits)" },
	TOOL_IMAGE_OPTIONS(o.open.image),
	{ 0 },
};

struct ls {
	struct files_session *session;
	json_t *list; /* NULL = lines */
	unsigned bad;
	struct seen seen;
};

static const char *const kinds[] = {
	[FILES_REGULAR] = "file",
	[FILES_FOLDER] = "folder",
	[FILES_SYMLINK] = "symlink",
	[FILES_OTHER] = "other",
};

static void show_time(const struct files_info *info, char *buf, size_t size)
{
	time_t t = (time_t)info->mtime;
	struct tm tm;

	if (!gmtime_r(&t, &tm) || !strftime(buf, size, "%Y-%m-%dT%H:%M:%SZ", &tm))
		snprintf(buf, size, "-");
}

static void show_mode(const struct files_info *info, char buf[11])
{
	static const char letters[] = "rwxrwxrwx", types[] = "-dl?";

	strcpy(buf, "----------");
	*buf = types[info->kind];
	for (unsigned i = 0; i < 9 && info->mode != FILES_NO_MODE; i++)
		if (info->mode & (0400u >> i))
			buf[1 + i] = letters[i];
	if (info->mode == FILES_NO_MODE)
		return;
	if (info->mode & 04000)
		buf[3] = info->mode & 0100 ? 's' : 'S';
	if (info->mode & 02000)
		buf[6] = info->mode & 010 ? 's' : 'S';
	if (info->mode & 01000)
		buf[9] = info->mode & 01 ? 't' : 'T';
}

/* The target, or "" when it cannot be read. */
static void target_of(struct ls *l, const struct files_node *node, char buf[FILES_LINK_MAX])
{
	struct error err = { 0 };

	*buf = 0;
	if (node->info.kind == FILES_SYMLINK &&
	    session_readlink(l->session, node->id, buf, &err) < 0)
		l->bad++;
}

static void set_name(json_t *j, const char *key, const char *hex_key, const char *name)
{
	char shown[FILES_SHOWN_MAX], *hex;
	size_t n = strlen(name);

	if (files_is_utf8(name)) {
		json_object_set_new(j, key, json_string(name));
		return;
	}
	json_object_set_new(j, key, json_string(files_shown(name, shown)));
	hex = malloc(2 * n + 1);
	for (size_t i = 0; hex && i < n; i++)
		snprintf(hex + 2 * i, 3, "%02x", (unsigned char)name[i]);
	if (hex)
		json_object_set_new(j, hex_key, json_string(hex));
	free(hex);
}

static void add_json(struct ls *l, const char *path, const struct files_node *node, bool bad)
{
	char when[40], target[FILES_LINK_MAX];
	json_t *j = json_object();

	set_name(j, "path", "path_hex", path);
	json_object_set_new(j, "type", json_string(bad ? "damaged" : kinds[node->info.kind]));
	json_array_append_new(l->list, j);
	if (bad)
		return;
	show_time(&node->info, when, sizeof(when));
	json_object_set_new(j, "size", json_integer((json_int_t)node->info.size));
	json_object_set_new(j, "modified", json_string(when));
	if (node->info.mode != FILES_NO_MODE) {
		json_object_set_new(j, "mode", json_sprintf("%04o", node->info.mode));
		json_object_set_new(j, "uid", json_integer(node->info.uid));
		json_object_set_new(j, "gid", json_integer(node->info.gid));
	}
	target_of(l, node, target);
	if (*target)
		set_name(j, "target", "target_hex", target);
}

static void print_line(struct ls *l, const char *path, const struct files_node *node, bool bad)
{
	char shown[FILES_SHOWN_MAX], mode[11] = "??????????", when[40] = "?";
	char target[FILES_LINK_MAX] = "";
	const struct files_info *i = &node->info;

	files_shown(path, shown);
	if (!o.lines) {
		puts(shown);
		return;
	}
	if (!bad) {
		show_mode(i, mode);
		show_time(i, when, sizeof(when));
		target_of(l, node, target);
	}
	printf("%s %5u %5u %12llu %s %s", mode, i->uid, i->gid, (unsigned long long)i->size, when,
	       shown);
	if (*target)
		printf(" -> %s", files_shown(target, shown));
	putchar('\n');
}

static void show(struct ls *l, const char *path, const struct files_node *node, bool bad)
{
	l->bad += bad;
	if (l->list)
		add_json(l, path, node, bad);
	else
		print_line(l, path, node, bad);
}

static int list_folder(struct ls *l, const char *prefix, const struct files_node *dir,
		       unsigned depth, struct error *err);

/* What is in a folder that was just shown, if that is wanted. */
static int go_inside(struct ls *l, const char *path, const struct files_entry *e, unsigned depth,
		     struct error *err)
{
	_cleanup_free_ char *inside = NULL;
	char shown[FILES_SHOWN_MAX];
	int r;

	if (!o.recursive || e->bad || e->node.info.kind != FILES_FOLDER)
		return 0;
	r = seen_add(&l->seen, e->node.id);
	if (r < 0 || asprintf(&inside, "%s/", path) < 0) {
		inside = NULL;
		return error_set(err, -ENOMEM, "out of memory");
	}
	r = r ? list_folder(l, inside, &e->node, depth + 1, err)
	      : error_set(err, -ELOOP, "\"%.100s\": a folder that is in two places",
			  files_shown(path, shown));
	if (r >= 0 || session_is_gone(l->session))
		return r;
	fprintf(stderr, "vhd ls: %s\n", err->message);
	*err = (struct error){ 0 };
	l->bad++;
	return 0;
}

/* `prefix` is what stands before the names: "" or "folder/". */
static int list_folder(struct ls *l, const char *prefix, const struct files_node *dir,
		       unsigned depth, struct error *err)
{
	_cleanup_(files_list_free) struct files_list list = { 0 };
	char shown[FILES_SHOWN_MAX];
	int r;

	if (depth > DEPTH_MAX)
		return error_set(err, -ELOOP, "\"%.100s\": folders are more than %u deep",
				 files_shown(prefix, shown), DEPTH_MAX);
	r = session_list(l->session, dir->id, &list, err);
	if (r < 0)
		return *prefix ? error_prefix(err, "\"%.100s\"", files_shown(prefix, shown)) : r;
	for (size_t i = 0; i < list.count && r >= 0; i++) {
		const struct files_entry *e = &list.entries[i];
		_cleanup_free_ char *path = NULL;

		if (asprintf(&path, "%s%s", prefix, e->name) < 0) {
			path = NULL;
			return error_set(err, -ENOMEM, "out of memory");
		}
		show(l, path, &e->node, e->bad);
		r = go_inside(l, path, e, depth, err);
	}
	return r;
}

static int list_path(struct ls *l, const char *path, struct error *err)
{
	struct files_node node;
	bool follow = path[strlen(path) - 1] == '/';
	int r = session_find(l->session, path, follow, &node, err);

	if (r >= 0)
		r = seen_add(&l->seen, node.id);
	if (r >= 0 && node.info.kind == FILES_FOLDER)
		return list_folder(l, "", &node, 0, err);
	if (r >= 0)
		show(l, path, &node, false);
	return r;
}

static int run(unsigned count, char **arguments, struct error *err)
{
	struct ls l = { 0 };
	int r;

	if (count > 1 && !*arguments[1])
		return tool_usage(err, "an empty PATH; the root is /");
	o.open.verb = "ls";
	r = session_open(arguments[0], &o.open, &l.session, err);
	if (r < 0)
		return r;
	l.list = o.json ? json_array() : NULL;
	r = list_path(&l, count > 1 ? arguments[1] : "/", err);
	if (r >= 0 && l.list)
		tool_print_json(json_incref(l.list));
	json_decref(l.list);
	seen_free(&l.seen);
	(void)session_close(l.session, NULL);
	if (r < 0 || !l.bad)
		return r < 0 ? r : TOOL_OK;
	fprintf(stderr, "vhd ls: %u entries are damaged\n", l.bad);
	return TOOL_DIFFERS;
}

const struct tool_verb verb_ls = {
	.name = "ls",
	.synopsis = "IMAGE [PATH] [OPTION...]",
	.summary = "list a folder inside an image",
	.notes = "Reads ext2/3/4, FAT and NTFS without root. What is no printable character in a\n"
		 "name is printed as \\ooo. Exit status 3: some entries are damaged.\n\n"
		 "Examples:\n"
		 "  vhd ls disk.vhdx /etc --long\n"
		 "  vhd ls disk.vhdx --partition 3 --recursive --json\n",
	.options = table,
	.arguments_min = 1,
	.arguments_max = 2,
	.run = run,
};
