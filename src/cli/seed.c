// SPDX-License-Identifier: MIT
/*
 * Seeds for cloud-init's NoCloud data source: a disc labelled cidata with user-data (#cloud-config,
 * which is YAML; JSON is YAML too, so that no text can break out of its place) and meta-data. ISO
 * 9660 by genisoimage or xorriso.
 */
#include "cli/image.h"
#include "cli/program.h"

#include "lib/cleanup.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

bool seed_name_ok(const char *name)
{
	size_t n = strlen(name);

	return n && n <= 63 && *name != '-' && *name != '.' &&
	       strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._") ==
		       n;
}

char *seed_user_data(const struct seed *s)
{
	json_t *config = json_pack("{s:s,s:b}", "hostname", s->hostname, "preserve_hostname", 0);
	_cleanup_free_ char *json = NULL;
	char *text;

	if (config && s->user) {
		json_t *keys = json_array();

		for (unsigned i = 0; i < s->key_count; i++)
			json_array_append_new(keys, json_string(s->keys[i]));
		json_object_set_new(config, "users",
				    json_pack("[{s:s,s:s,s:s,s:b,s:o}]", "name", s->user, "shell",
					      "/bin/bash", "sudo", "ALL=(ALL) NOPASSWD:ALL",
					      "lock_passwd", 1, "ssh_authorized_keys", keys));
	}
	json = json_dumps(config, JSON_INDENT(2));
	json_decref(config);
	return json && asprintf(&text, "#cloud-config\n%s\n", json) >= 0 ? text : NULL;
}

char *seed_meta_data(const struct seed *s)
{
	json_t *meta =
		json_pack("{s:s,s:s}", "instance-id", s->instance, "local-hostname", s->hostname);
	_cleanup_free_ char *json = json_dumps(meta, JSON_INDENT(2));
	char *text;

	json_decref(meta);
	return json && asprintf(&text, "%s\n", json) >= 0 ? text : NULL;
}

static int write_file(const char *folder, const char *name, const char *text, struct error *err)
{
	_cleanup_free_ char *path = NULL;
	FILE *f;
	bool bad;

	if (!text || asprintf(&path, "%s/%s", folder, name) < 0) {
		path = NULL;
		return error_set(err, -ENOMEM, "out of memory");
	}
	f = fopen(path, "we");
	bad = !f || fputs(text, f) < 0;
	if ((f && fclose(f)) || bad)
		return error_errno(err, -errno, "cannot write \"%s\"", path);
	return 0;
}

static int make_disc(const char *folder, const char *path, struct error *err)
{
	static const char *const makers[][2] = { { "genisoimage", NULL }, { "xorriso", "-as" } };

	for (size_t i = 0; i < ARRAY_SIZE(makers); i++) {
		const char *argv[16] = { makers[i][0] };
		unsigned n = 1;

		if (!program_exists(makers[i][0]))
			continue;
		if (makers[i][1]) {
			argv[n++] = "-as";
			argv[n++] = "mkisofs";
		}
		for (unsigned k = 0; k < 8; k++)
			argv[n++] = (const char *[]){ "-quiet", "-volid", "cidata", "-joliet",
						      "-rock",  "-o",     path,     folder }[k];
		return program_run(argv, err);
	}
	return error_set(err, -ENOENT,
			 "there is neither genisoimage nor xorriso to make the first-boot disc "
			 "with: install one of them");
}

static void remove_folder(const char *folder)
{
	static const char *const names[] = { "user-data", "meta-data" };

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		_cleanup_free_ char *path = NULL;

		if (asprintf(&path, "%s/%s", folder, names[i]) >= 0)
			unlink(path);
		else
			path = NULL;
	}
	rmdir(folder);
}

int seed_write(const struct seed *s, const char *path, struct error *err)
{
	_cleanup_free_ char *user = seed_user_data(s), *meta = seed_meta_data(s);
	char folder[] = "/tmp/partita-seed-XXXXXX";
	int r;

	if (!mkdtemp(folder))
		return error_errno(err, -errno, "cannot make a temporary folder");
	r = write_file(folder, "user-data", user, err);
	if (r >= 0)
		r = write_file(folder, "meta-data", meta, err);
	if (r >= 0)
		r = make_disc(folder, path, err);
	remove_folder(folder);
	return r;
}
