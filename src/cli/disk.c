// SPDX-License-Identifier: MIT
/*
 * partita disk: the disks of a running machine, through its control socket. Verbs are a table;
 * those that need files are in disk_files.c.
 */
#include "cli/disk.h"
#include "cli/client.h"

#include "lib/cleanup.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const char usage[] =
	"usage: partita disk VERB --vm NAME|--control SOCKET [DISK...] [OPTION...]\n"
	"\n"
	"Does something with disks of a running machine while its guest uses them: of a machine "
	"of\n"
	"the management service, or of one whose SOCKET was given to `partita run --control`. A\n"
	"DISK is its controller and LUN, like 0:1.\n"
	"\n"
	"  query [DISK]             what disks there are, their images and what is done to them\n"
	"  resize DISK [+]SIZE      make it larger, or smaller when its end is free\n"
	"  snapshot DISK=FILE...    go on in the new image FILE; several disks at one moment\n"
	"  merge DISK               copy an image into its parent, and go on without it\n"
	"  cancel DISK              stop a merge\n"
	"  freeze DISK...           let all writes end and hold new ones back\n"
	"  thaw DISK...             let them go on\n"
	"  track DISK ACTION        what of it changes: on, off, point, list, drop ID, since ID\n"
	"\n"
	"  --vm NAME            the machine, by its name or id\n"
	"  --host PLACE         which service has it: unix:PATH\n"
	"  --control SOCKET     or the machine's control socket\n"
	"  --image N|FILE       merge: which image of the chain, 0 is the topmost (0)\n"
	"  --delete             merge: delete the image afterwards\n"
	"  --background         merge: do not wait for the end\n"
	"  --seconds N          freeze: thaw after that time, 1 to 60 (10)\n"
	"  --track              snapshot: track the changes of the new images\n"
	"  --block-size SIZE    snapshot: blocks of the new images (the parent's)\n"
	"  --json               print JSON\n"
	"  --help               print this\n"
	"\n"
	"Examples:\n"
	"  partita disk query --vm web\n"
	"  partita disk snapshot --control vm.sock 0:0=monday.vhdx\n"
	"  partita disk merge --control vm.sock 0:0 --delete\n"
	"  partita disk resize --control vm.sock 0:0 +20G\n";

/* --- shared --- */

int disk_place_parse(const char *text, struct disk_place *ret, const char **ret_rest,
		     struct error *err)
{
	int n = 0;

	if (sscanf(text, "%3u:%3u%n", &ret->controller, &ret->lun, &n) < 2 || !n ||
	    (!ret_rest && text[n]))
		return error_set(err, -EINVAL,
				 "\"%s\" is no disk; write controller and LUN, like 0:1", text);
	if (ret_rest)
		*ret_rest = text + n;
	return 0;
}

json_t *disk_place_json(const struct disk_place *place)
{
	return json_pack("{s:i,s:i}", "controller", (int)place->controller, "lun", (int)place->lun);
}

json_t *disk_request(const char *name, const struct disk_place *place)
{
	return json_pack("{s:s,s:o}", "command", name, "disk", disk_place_json(place));
}

void disk_print_json(json_t *value)
{
	json_dumpf(value, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(value);
}

int disk_query(struct disk_run *run, const struct disk_place *place, unsigned chain_from,
	       json_t **ret)
{
	json_t *request = disk_request("disk-query", place), *answer;
	int r;

	json_object_set_new(request, "chain_from", json_integer(chain_from));
	r = control_ask(&run->client, request, NULL, 0, &answer, &run->err);
	if (r < 0)
		return r;
	*ret = json_incref(json_array_get(json_object_get(answer, "disks"), 0));
	json_decref(answer);
	return *ret ? 0 : error_set(&run->err, -EPROTO, "the worker's answer has no disk");
}

/* Sends it, and prints nothing but what was wrong. */
static int ask_quietly(struct disk_run *run, json_t *request)
{
	json_t *answer;
	int r = control_ask(&run->client, request, NULL, 0, &answer, &run->err);

	if (r < 0)
		return cli_fail("disk", &run->err);
	json_decref(answer);
	return CLI_OK;
}

/* --- query --- */

static json_int_t number(const json_t *o, const char *key)
{
	return json_integer_value(json_object_get(o, key));
}

static const char *string(const json_t *o, const char *key)
{
	const char *text = json_string_value(json_object_get(o, key));

	return text ? text : "";
}

static void print_disk(const json_t *d)
{
	const json_t *merge = json_object_get(d, "merge"), *track = json_object_get(d, "track");
	const json_t *image;
	size_t i;

	printf("%lld:%lld %s, %lld bytes, sectors of %lld%s%s\n", number(d, "controller"),
	       number(d, "lun"), string(d, "kind"), number(d, "size"), number(d, "sector"),
	       json_is_true(json_object_get(d, "read_only")) ? ", read-only" : "",
	       json_is_true(json_object_get(d, "frozen")) ? ", frozen" : "");
	json_array_foreach(json_object_get(d, "chain"), i, image)
		printf("  %zu %s %s\n", i, string(image, "format"), string(image, "file"));
	if (number(d, "chain_depth") > (json_int_t)i)
		printf("  ... and %lld more\n", number(d, "chain_depth") - (json_int_t)i);
	if (json_is_object(merge))
		printf("  image %lld is being merged: %lld of %lld bytes\n", number(merge, "image"),
		       number(merge, "copied"), number(merge, "total"));
	if (json_is_object(track))
		printf("  changes are tracked: %lld points, granules of %lld bytes\n",
		       number(track, "points"), number(track, "granularity"));
}

static int run_query(struct disk_run *run, int count, char **words)
{
	json_t *request, *answer, *disk;
	struct disk_place place;
	size_t i;

	if (count && disk_place_parse(words[0], &place, NULL, &run->err) < 0)
		return cli_fail("disk", &run->err);
	request = count ? disk_request("disk-query", &place)
			: json_pack("{s:s}", "command", "disk-query");
	if (control_ask(&run->client, request, NULL, 0, &answer, &run->err) < 0)
		return cli_fail("disk", &run->err);
	if (run->o.json)
		disk_print_json(json_incref(json_object_get(answer, "disks")));
	else
		json_array_foreach(json_object_get(answer, "disks"), i, disk) print_disk(disk);
	json_decref(answer);
	return CLI_OK;
}

/* --- resize --- */

static int size_wanted(struct disk_run *run, const struct disk_place *place, const char *text,
		       uint64_t *ret)
{
	json_t *disk;
	uint64_t n;
	int r = cli_parse_size(*text == '+' ? text + 1 : text, &n, &run->err);

	if (r < 0 || *text != '+') {
		*ret = n;
		return r;
	}
	r = disk_query(run, place, 0, &disk);
	if (r < 0)
		return r;
	if (add_overflow(n, (uint64_t)number(disk, "size"), ret) || *ret > INT64_MAX)
		r = error_set(&run->err, -EINVAL, "the disk cannot be larger by %s", text + 1);
	json_decref(disk);
	return r;
}

static int run_resize(struct disk_run *run, int count, char **words)
{
	struct disk_place place;
	json_t *request, *answer;
	uint64_t size;
	int r = disk_place_parse(words[0], &place, NULL, &run->err);

	(void)count;
	if (r >= 0)
		r = size_wanted(run, &place, words[1], &size);
	if (r < 0)
		return cli_fail("disk", &run->err);
	request = disk_request("disk-resize", &place);
	json_object_set_new(request, "size", json_integer((json_int_t)size));
	if (control_ask(&run->client, request, NULL, 0, &answer, &run->err) < 0)
		return cli_fail("disk", &run->err);
	if (run->o.json)
		disk_print_json(json_pack("{s:I}", "size", number(answer, "size")));
	json_decref(answer);
	return CLI_OK;
}

/* --- cancel, freeze, thaw --- */

static int run_cancel(struct disk_run *run, int count, char **words)
{
	struct disk_place place;

	(void)count;
	if (disk_place_parse(words[0], &place, NULL, &run->err) < 0)
		return cli_fail("disk", &run->err);
	return ask_quietly(run, disk_request("disk-cancel", &place));
}

/* A request about all disks that are named; NULL = one is no disk. */
static json_t *request_of_all(struct disk_run *run, const char *name, int count, char **words)
{
	json_t *list = json_array();

	for (int i = 0; i < count; i++) {
		struct disk_place place;

		if (disk_place_parse(words[i], &place, NULL, &run->err) < 0) {
			json_decref(list);
			return NULL;
		}
		json_array_append_new(list, disk_place_json(&place));
	}
	return json_pack("{s:s,s:o}", "command", name, "disks", list);
}

static int run_freeze(struct disk_run *run, int count, char **words)
{
	json_t *request = request_of_all(run, "disk-freeze", count, words);

	if (!request)
		return cli_fail("disk", &run->err);
	if (run->o.seconds)
		json_object_set_new(request, "seconds", json_integer(run->o.seconds));
	return ask_quietly(run, request);
}

static int run_thaw(struct disk_run *run, int count, char **words)
{
	json_t *request = request_of_all(run, "disk-thaw", count, words);

	return request ? ask_quietly(run, request) : cli_fail("disk", &run->err);
}

/* --- track --- */

static json_t *track_request(const struct disk_place *place, const char *action, const char *point)
{
	json_t *request = disk_request("disk-track", place);

	json_object_set_new(request, "action", json_string(action));
	if (point)
		json_object_set_new(request, "point", json_string(point));
	return request;
}

static int track_point(struct disk_run *run, const struct disk_place *place, const char *id)
{
	json_t *answer;

	(void)id;
	if (control_ask(&run->client, track_request(place, "point", NULL), NULL, 0, &answer,
			&run->err) < 0)
		return cli_fail("disk", &run->err);
	puts(string(json_array_get(json_object_get(answer, "disks"), 0), "point"));
	json_decref(answer);
	return CLI_OK;
}

static int track_drop(struct disk_run *run, const struct disk_place *place, const char *id)
{
	return ask_quietly(run, track_request(place, "drop", id));
}

static int track_list(struct disk_run *run, const struct disk_place *place, const char *id)
{
	json_t *answer, *point;
	size_t i;

	(void)id;
	if (control_ask(&run->client, track_request(place, "list", NULL), NULL, 0, &answer,
			&run->err) < 0)
		return cli_fail("disk", &run->err);
	if (run->o.json)
		disk_print_json(json_incref(json_object_get(answer, "points")));
	else
		json_array_foreach(json_object_get(answer, "points"), i, point) printf(
			"%s %s %s\n", string(point, "id"), string(point, "time"),
			json_is_true(json_object_get(point, "lost")) ? string(point, "reason")
								     : "known");
	json_decref(answer);
	return CLI_OK;
}

static void print_ranges(const json_t *ranges, json_t *all)
{
	const json_t *range;
	size_t i;

	json_array_foreach(ranges, i, range)
	{
		json_int_t offset = json_integer_value(json_array_get(range, 0));
		json_int_t length = json_integer_value(json_array_get(range, 1));

		if (all)
			json_array_append_new(
				all, json_pack("{s:I,s:I}", "offset", offset, "length", length));
		else
			printf("%#-18llx %#llx\n", offset, length);
	}
}

/* As many answers as it takes. */
static int track_since(struct disk_run *run, const struct disk_place *place, const char *id)
{
	json_t *all = run->o.json ? json_array() : NULL, *answer, *next = json_integer(0);
	json_int_t size = 0, granularity = 0;

	while (next) {
		json_t *request = track_request(place, "query", id);

		json_object_set_new(request, "offset", next);
		if (control_ask(&run->client, request, NULL, 0, &answer, &run->err) < 0) {
			json_decref(all);
			return cli_fail("disk", &run->err);
		}
		size = number(answer, "size");
		granularity = number(answer, "granularity");
		print_ranges(json_object_get(answer, "changed"), all);
		next = json_incref(json_object_get(answer, "next"));
		json_decref(answer);
	}
	if (all)
		disk_print_json(json_pack("{s:I,s:I,s:o}", "size", size, "granularity", granularity,
					  "changed", all));
	return CLI_OK;
}

static int track_on(struct disk_run *run, const struct disk_place *place, const char *id)
{
	(void)id;
	return disk_track_begin(run, place);
}

static int track_off(struct disk_run *run, const struct disk_place *place, const char *id)
{
	(void)id;
	return disk_track_end(run, place);
}

static const struct {
	const char *name;
	bool id;
	int (*run)(struct disk_run *run, const struct disk_place *place, const char *id);
} actions[] = {
	{ "on", false, track_on },       { "off", false, track_off },
	{ "point", false, track_point }, { "list", false, track_list },
	{ "drop", true, track_drop },    { "since", true, track_since },
};

static int run_track(struct disk_run *run, int count, char **words)
{
	struct disk_place place;

	if (disk_place_parse(words[0], &place, NULL, &run->err) < 0)
		return cli_fail("disk", &run->err);
	for (size_t i = 0; i < ARRAY_SIZE(actions); i++)
		if (!strcmp(words[1], actions[i].name) && (count == 3) == actions[i].id)
			return actions[i].run(run, &place, count == 3 ? words[2] : NULL);
	error_set(&run->err, -EINVAL,
		  "track takes on, off, point, list, drop ID or since ID, not \"%s\"%s", words[1],
		  count == 3 ? " with an id" : "");
	return cli_fail("disk", &run->err);
}

/* --- verbs and options --- */

static const struct verb {
	const char *name;
	int least, most; /* words after it */
	int (*run)(struct disk_run *run, int count, char **words);
} verbs[] = {
	{ "query", 0, 1, run_query },         { "resize", 2, 2, run_resize },
	{ "snapshot", 1, 16, disk_snapshot }, { "merge", 1, 1, disk_merge },
	{ "cancel", 1, 1, run_cancel },       { "freeze", 1, 64, run_freeze },
	{ "thaw", 1, 64, run_thaw },          { "track", 2, 3, run_track },
};

const char *const disk_words[] = { "query",  "resize", "snapshot", "merge", "cancel",
				   "freeze", "thaw",   "track",    NULL };

enum {
	OPT_VM = 256,
	OPT_HOST,
	OPT_BLOCK_SIZE,
	OPT_SECONDS,
};

const struct option disk_options[] = {
	{ "vm", required_argument, NULL, OPT_VM },
	{ "host", required_argument, NULL, OPT_HOST },
	{ "control", required_argument, NULL, 'c' },
	{ "image", required_argument, NULL, 'i' },
	{ "delete", no_argument, NULL, 'd' },
	{ "background", no_argument, NULL, 'b' },
	{ "seconds", required_argument, NULL, OPT_SECONDS },
	{ "track", no_argument, NULL, 't' },
	{ "block-size", required_argument, NULL, OPT_BLOCK_SIZE },
	{ "json", no_argument, NULL, 'j' },
	{ "help", no_argument, NULL, 'h' },
	{ 0 },
};

static int set_number(struct disk_run *run, int option, const char *text)
{
	uint64_t n;
	int r = cli_parse_size(text, &n, &run->err);

	if (r < 0)
		return r;
	if (option == OPT_BLOCK_SIZE && n > 256 * MIB)
		return error_set(&run->err, -EINVAL, "blocks have at most 256M");
	if (option == OPT_SECONDS && n > 60)
		return error_set(&run->err, -EINVAL, "--seconds takes a number from 1 to 60");
	if (option == OPT_BLOCK_SIZE)
		run->o.block_size = (uint32_t)n;
	else
		run->o.seconds = (unsigned)n;
	return 0;
}

static int set_option(struct disk_run *run, int option, const char *text)
{
	switch (option) {
	case 'c':
		run->o.control = text;
		return 0;
	case OPT_VM:
		run->o.vm = text;
		return 0;
	case OPT_HOST:
		run->o.host = text;
		return 0;
	case 'i':
		run->o.image = text;
		return 0;
	case 'd':
		run->o.delete = true;
		return 0;
	case 'b':
		run->o.background = true;
		return 0;
	case 't':
		run->o.track = true;
		return 0;
	case 'j':
		run->o.json = true;
		return 0;
	default:
		return set_number(run, option, text);
	}
}

static int wrong_usage(const char *words)
{
	fprintf(stderr, "partita disk: %s\n`partita disk --help` lists verbs and options\n", words);
	return CLI_USAGE;
}

/* The control socket of a machine of the service: RUN/ID/control. */
static int control_of_vm(struct disk_run *run, struct client *c, char **ret)
{
	_cleanup_free_ char *path = client_path("/vms/", run->o.vm, "");
	json_t *vm = NULL, *host = NULL;
	int r = client_get(c, path, &vm, &run->err);

	if (r >= 0)
		r = client_get(c, "/host", &host, &run->err);
	if (r >= 0 && !*string(host, "run_folder"))
		r = error_set(&run->err, -EOPNOTSUPP,
			      "the service does not say where its machines' sockets are");
	if (r >= 0 &&
	    asprintf(ret, "%s/%s/control", string(host, "run_folder"), string(vm, "id")) < 0)
		r = error_set(&run->err, -ENOMEM, "out of memory");
	json_decref(host);
	json_decref(vm);
	return r;
}

static int machine_connect(struct disk_run *run)
{
	_cleanup_free_ char *control = NULL;
	struct client *c;
	int r;

	if (!run->o.vm)
		return control_connect(run->o.control, &run->client, &run->err);
	r = client_new(run->o.host, &c, &run->err);
	if (r < 0)
		return r;
	r = client_socket(c) ? control_of_vm(run, c, &control)
			     : error_set(&run->err, -EOPNOTSUPP,
					 "disks are changed on the machine's own host only");
	client_free(c);
	if (r < 0)
		return r;
	if (control_connect(control, &run->client, &run->err) < 0)
		return error_set(&run->err, run->err.code,
				 "\"%s\" is not running, or you may not open \"%s\"", run->o.vm,
				 control);
	return 0;
}

static int run_verb(struct disk_run *run, int count, char **words)
{
	const struct verb *v = NULL;
	int r;

	for (size_t i = 0; i < ARRAY_SIZE(verbs) && count; i++)
		if (!strcmp(words[0], verbs[i].name))
			v = &verbs[i];
	if (!v)
		return wrong_usage(count ? "there is no such verb" : "a verb is missing");
	if (count - 1 < v->least || count - 1 > v->most)
		return wrong_usage("too few or too many words after the verb");
	if (!run->o.control == !run->o.vm)
		return wrong_usage("say either --vm NAME or --control SOCKET");
	if (run->o.delete &&run->o.background)
		return wrong_usage("--delete has to wait for the end: not with --background");
	if (machine_connect(run) < 0)
		return cli_fail("disk", &run->err);
	r = v->run(run, count - 1, words + 1);
	control_disconnect(&run->client);
	return r;
}

int cli_disk(int argc, char **argv)
{
	struct disk_run run = { 0 };
	int c;

	while ((c = getopt_long(argc, argv, "h", disk_options, NULL)) >= 0) {
		if (c == 'h') {
			fputs(usage, stdout);
			return CLI_OK;
		}
		if (c == '?')
			return wrong_usage("see above");
		if (set_option(&run, c, optarg) < 0) {
			cli_fail("disk", &run.err);
			return CLI_USAGE;
		}
	}
	return run_verb(&run, argc - optind, argv + optind);
}
