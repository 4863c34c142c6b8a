// SPDX-License-Identifier: MIT
/*
 * partita disk: makes, examines, checks and copies images with libvhd. Whatever is made is written
 * beside its final name first, so that an interrupted command leaves nothing that looks finished.
 */
#include "cli/cli.h"

#include "lib/cleanup.h"
#include "vhd/image.h"
#include "vhd/vhdset.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <jansson.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

static const char usage[] =
	"usage: partita disk create FILE --size SIZE [OPTION...]\n"
	"       partita disk create FILE --from IMAGE [OPTION...]\n"
	"       partita disk info FILE [--json]\n"
	"       partita disk check FILE [--json]\n"
	"       partita disk share SET --from IMAGE [--format FORMAT]\n"
	"\n"
	"  --size SIZE          size of the disk, like 20G\n"
	"  --from IMAGE         copy this image (raw or VHDX); --size may make it larger\n"
	"  --format FORMAT      vhdx or raw (by the name's ending; else vhdx)\n"
	"  --block-size SIZE    of a VHDX: 1M to 256M (32M)\n"
	"  --sector-size N      logical sectors of a VHDX: 512 or 4096 (512)\n"
	"  --fixed              take all space now\n"
	"  --force              replace FILE if it exists\n"
	"  --json               machine-readable output\n"
	"\n"
	"Exit status: 0 done, and nothing wrong with a checked image; 1 error or damage.\n"
	"\n"
	"Examples:\n"
	"  partita disk create data.vhdx --size 2T\n"
	"  partita disk create debian.vhdx --from debian.raw\n"
	"  partita disk check debian.vhdx\n";

struct options {
	const char *file, *from, *format;
	uint64_t size, block_size, sector_size;
	bool fixed, force, json;
};

static volatile sig_atomic_t interrupted;

static void on_interrupt(int signo)
{
	(void)signo;
	interrupted = 1;
}

/* --- create --- */

static bool progress(void *context, uint64_t done, uint64_t total)
{
	(void)context;
	if (isatty(STDERR_FILENO))
		fprintf(stderr, "\r%3llu %%",
			(unsigned long long)(total ? done * 100 / total : 100));
	return !interrupted;
}

static bool want_raw(const struct options *o)
{
	const char *dot = strrchr(o->file, '.');

	if (o->format)
		return !strcmp(o->format, "raw");
	return dot && (!strcmp(dot, ".raw") || !strcmp(dot, ".img"));
}

static int open_image(struct loop *loop, const char *path, bool read_only, const char *format,
		      struct disk **ret, struct error *err)
{
	struct disk_open_options o = { .read_only = read_only, .format = format };
	int fd = open(path, (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);

	if (fd < 0)
		return error_errno(err, -errno, "cannot open \"%s\"", path);
	return disk_open(loop, fd, path, &o, ret, err);
}

static int make_image(const struct options *o, const char *path, uint64_t size, struct error *err)
{
	const struct vhdx_create_options vo = {
		.size = size,
		.block_size = (uint32_t)o->block_size,
		.logical_sector = (uint32_t)o->sector_size,
		.fixed = o->fixed,
	};
	_cleanup_close_ int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);

	if (fd < 0)
		return error_errno(err, -errno, "cannot make \"%s\"", path);
	if (!want_raw(o))
		return vhdx_create(fd, &vo, err);
	if (ftruncate(fd, (off_t)size) < 0 || (o->fixed && fallocate(fd, 0, 0, (off_t)size) < 0))
		return error_errno(err, -errno, "cannot size \"%s\" to %llu bytes", path,
				   (unsigned long long)size);
	return fsync(fd) < 0 ? error_errno(err, -errno, "cannot write \"%s\"", path) : 0;
}

static int copy_into(const struct options *o, struct loop *loop, struct disk *from,
		     const char *path, struct error *err)
{
	const struct disk_copy_options co = { .target_zeroed = true, .progress = progress };
	struct disk *to;
	int r = open_image(loop, path, false, want_raw(o) ? "raw" : "vhdx", &to, err), closed;

	if (r < 0)
		return r;
	r = disk_copy(from, to, &co, err);
	closed = disk_close(to, r < 0 ? NULL : err);
	if (isatty(STDERR_FILENO))
		fputc('\n', stderr);
	return r < 0 ? r : closed;
}

static int fill(const struct options *o, const char *path, struct error *err)
{
	struct disk *from = NULL;
	struct loop *loop;
	uint64_t size = o->size;
	int r = loop_new(256, &loop, err);

	if (r < 0)
		return r;
	if (o->from) {
		r = open_image(loop, o->from, true, NULL, &from, err);
		if (r >= 0 && size && size < from->geometry.size)
			r = error_set(err, -EINVAL, "--size is smaller than \"%s\" (%llu bytes)",
				      o->from, (unsigned long long)from->geometry.size);
		if (r >= 0)
			size = MAX(size, from->geometry.size);
	}
	if (r >= 0)
		r = make_image(o, path, size, err);
	if (r >= 0 && from)
		r = copy_into(o, loop, from, path, err);
	(void)disk_close(from, NULL);
	loop_free(loop);
	return r;
}

static int create(const struct options *o, struct error *err)
{
	char partial[PATH_MAX];
	int r;

	if (!o->size && !o->from)
		return error_set(err, -EINVAL, "say --size or --from");
	if (o->format && strcmp(o->format, "raw") && strcmp(o->format, "vhdx"))
		return error_set(err, -EINVAL, "--format is raw or vhdx, not \"%s\"", o->format);
	if (!o->force && !access(o->file, F_OK))
		return error_set(err, -EEXIST, "\"%s\" exists; --force replaces it", o->file);
	if (snprintf(partial, sizeof(partial), "%s.partial-%d", o->file, getpid()) >=
	    (int)sizeof(partial))
		return error_set(err, -ENAMETOOLONG, "the file's name is too long");
	signal(SIGINT, on_interrupt);
	signal(SIGTERM, on_interrupt);
	r = fill(o, partial, err);
	if (r >= 0 && rename(partial, o->file) < 0)
		r = error_errno(err, -errno, "cannot rename to \"%s\"", o->file);
	if (r < 0)
		unlink(partial);
	return r;
}

/* --- info and check --- */

static void print_json(json_t *value)
{
	json_dumpf(value, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(value);
}

static int info(const struct options *o, struct error *err)
{
	struct image_info i;
	char id[GUID_TEXT_SIZE];
	json_t *j;
	const char *key;
	json_t *value;
	int fd = open(o->file, O_RDONLY | O_CLOEXEC), r;

	if (fd < 0)
		return error_errno(err, -errno, "cannot open \"%s\"", o->file);
	r = image_info(fd, o->file, &i, err);
	if (r < 0)
		return r;
	j = json_pack("{s:s,s:s,s:I,s:I,s:I,s:i,s:i,s:s}", "file", o->file, "format", i.format,
		      "size", (json_int_t)i.geometry.size, "file_size", (json_int_t)i.file_size,
		      "allocated", (json_int_t)i.allocated, "logical_sector",
		      (int)i.geometry.logical_sector, "physical_sector",
		      (int)i.geometry.physical_sector, "id", guid_format(&i.geometry.id, id));
	if (!strcmp(i.format, "vhdx")) {
		json_object_set_new(j, "block_size", json_integer(i.vhdx.block_size));
		json_object_set_new(j, "fixed", json_boolean(i.vhdx.fixed));
		json_object_set_new(j, "dirty_log", json_boolean(i.vhdx.log_replayed));
	}
	if (o->json) {
		print_json(j);
		return 0;
	}
	json_object_foreach(j, key, value)
	{
		_cleanup_free_ char *text = json_dumps(value, JSON_ENCODE_ANY);

		printf("%-16s %s\n", key, json_is_string(value) ? json_string_value(value) : text);
	}
	json_decref(j);
	return 0;
}

struct findings {
	struct check_report report;
	json_t *list; /* NULL = print */
};

static void on_found(struct check_report *r, enum check_kind kind, const char *text)
{
	static const char *const kinds[] = { "note", "waste", "damage" };
	struct findings *f = container_of(r, struct findings, report);

	if (f->list)
		json_array_append_new(f->list,
				      json_pack("{s:s,s:s}", "kind", kinds[kind], "text", text));
	else
		printf("%s: %s\n", kinds[kind], text);
}

static int check(const struct options *o, struct error *err)
{
	struct findings f = { .report.found = on_found, .list = o->json ? json_array() : NULL };
	int fd = open(o->file, O_RDONLY | O_CLOEXEC), r;

	if (fd < 0)
		return error_errno(err, -errno, "cannot open \"%s\"", o->file);
	r = image_check(fd, o->file, &f.report, err);
	if (r < 0)
		return r;
	if (o->json)
		print_json(json_pack("{s:o,s:I,s:I}", "findings", f.list, "blocks",
				     (json_int_t)f.report.blocks, "blocks_present",
				     (json_int_t)f.report.blocks_present));
	else
		printf("%s: %u damaged, %u wasted, %u notes; %llu of %llu blocks present\n",
		       o->file, f.report.counts[CHECK_DAMAGE], f.report.counts[CHECK_WASTE],
		       f.report.counts[CHECK_NOTE], (unsigned long long)f.report.blocks_present,
		       (unsigned long long)f.report.blocks);
	return f.report.counts[CHECK_DAMAGE] ? error_set(err, -EIO, "\"%s\" is damaged", o->file)
					     : 0;
}

/* --- share --- */

static int share(const struct options *o, struct error *err)
{
	_cleanup_close_ int fd = -1;
	int image_fd, r;

	if (!o->from)
		return error_set(err, -EINVAL, "say --from, the image that is to be shared");
	image_fd = open(o->from, O_RDONLY | O_CLOEXEC);
	if (image_fd < 0)
		return error_errno(err, -errno, "cannot open \"%s\"", o->from);
	fd = open(o->file, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
	if (fd < 0) {
		r = error_errno(err, -errno, "cannot make \"%s\"", o->file);
		close(image_fd);
		return r;
	}
	r = vhdset_create(fd, image_fd, o->from, o->format, err);
	if (r < 0)
		unlink(o->file);
	return r;
}

/* --- options --- */

static const struct {
	const char *name;
	int (*run)(const struct options *o, struct error *err);
} actions[] = { { "create", create }, { "info", info }, { "check", check }, { "share", share } };

static int parse_options(struct options *o, int argc, char **argv, struct error *err)
{
	static const struct option long_options[] = {
		{ "size", required_argument, NULL, 's' },
		{ "from", required_argument, NULL, 'f' },
		{ "format", required_argument, NULL, 'F' },
		{ "block-size", required_argument, NULL, 'b' },
		{ "sector-size", required_argument, NULL, 'S' },
		{ "fixed", no_argument, NULL, 'x' },
		{ "force", no_argument, NULL, 'o' },
		{ "json", no_argument, NULL, 'j' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	int c, r = 0;

	while (r >= 0 && (c = getopt_long(argc, argv, "h", long_options, NULL)) >= 0) {
		if (c == 'h' || c == '?')
			return error_set(err, c == 'h' ? -ENOMSG : -EINVAL, "unknown option");
		if (c == 's')
			r = cli_parse_size(optarg, &o->size, err);
		if (c == 'b')
			r = cli_parse_size(optarg, &o->block_size, err);
		if (c == 'S')
			r = cli_parse_size(optarg, &o->sector_size, err);
		o->from = c == 'f' ? optarg : o->from;
		o->format = c == 'F' ? optarg : o->format;
		o->fixed = o->fixed || c == 'x';
		o->force = o->force || c == 'o';
		o->json = o->json || c == 'j';
	}
	if (r >= 0 && optind != argc - 1)
		r = error_set(err, -EINVAL, "one file, please");
	if (r >= 0 && (o->block_size > UINT32_MAX || o->sector_size > UINT32_MAX))
		r = error_set(err, -EINVAL, "that is too large");
	if (r >= 0)
		o->file = argv[optind];
	return r;
}

int cli_disk(int argc, char **argv)
{
	struct options o = { 0 };
	struct error err = { 0 };
	int r;

	for (size_t i = 0; argc > 1 && i < ARRAY_SIZE(actions); i++) {
		if (strcmp(argv[1], actions[i].name))
			continue;
		r = parse_options(&o, argc - 1, argv + 1, &err);
		if (r == -ENOMSG)
			break;
		if (r < 0) {
			cli_fail("disk", &err);
			return CLI_USAGE;
		}
		r = actions[i].run(&o, &err);
		return r < 0 ? cli_fail("disk", &err) : CLI_OK;
	}
	r = argc > 1 &&
	    (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || err.code == -ENOMSG);
	fputs(usage, r ? stdout : stderr);
	return r ? CLI_OK : CLI_USAGE;
}
