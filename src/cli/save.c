// SPDX-License-Identifier: MIT
/*
 * partita save: a machine of `partita run` is written to a file and ends; `partita run --state`
 * goes on from there. Machines of the management service are saved by `partita vm save`.
 */
#include "cli/cli.h"
#include "cli/control.h"

#include "lib/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <libgen.h>
#include <string.h>

static const char usage[] =
	"usage: partita save --control SOCKET FILE\n"
	"\n"
	"Saves a running machine, whose SOCKET was given to `partita run --control`, to the new\n"
	"file FILE and ends it. `partita run --state FILE`, with the same options otherwise, lets\n"
	"it go on where it was; FILE is of no use afterwards, because the disks go on.\n"
	"Machines of the management service: `partita vm save`.\n"
	"\n"
	"  --control SOCKET     the machine's control socket\n"
	"  --help               print this\n"
	"\n"
	"Example:\n"
	"  partita save --control vm.sock vm.state\n";

const struct option save_options[] = {
	{ "control", required_argument, NULL, 'c' },
	{ "help", no_argument, NULL, 'h' },
	{ 0 },
};

/* The worker has made the file durable; its name is the folder's business. */
static int sync_folder(const char *path, struct error *err)
{
	_cleanup_free_ char *copy = strdup(path);
	_cleanup_close_ int fd =
		copy ? open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;

	if (fd < 0 || fsync(fd) < 0)
		return error_errno(err, -errno, "cannot make \"%s\" durable", path);
	return 0;
}

static int save_to(const char *control, const char *path, struct error *err)
{
	_cleanup_close_ int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	struct control_client c;
	json_t *answer;
	int r;

	if (fd < 0)
		return error_errno(err, -errno, "cannot make \"%s\"", path);
	r = control_connect(control, &c, err);
	if (r >= 0) {
		r = control_ask(&c, json_pack("{s:s,s:i}", "command", "save", "file", 0), &fd, 1,
				&answer, err);
		control_disconnect(&c);
	}
	if (r < 0) {
		unlink(path);
		return r;
	}
	json_decref(answer);
	return sync_folder(path, err);
}

static int wrong_usage(const char *words)
{
	fprintf(stderr, "partita save: %s\n`partita save --help` tells more\n", words);
	return CLI_USAGE;
}

int cli_save(int argc, char **argv)
{
	const char *control = NULL;
	struct error err = { 0 };
	int c;

	while ((c = getopt_long(argc, argv, "h", save_options, NULL)) >= 0) {
		if (c == 'h') {
			fputs(usage, stdout);
			return CLI_OK;
		}
		if (c != 'c')
			return wrong_usage("see above");
		control = optarg;
	}
	if (!control || argc - optind != 1)
		return wrong_usage("say --control SOCKET and one file");
	return save_to(control, argv[optind], &err) < 0 ? cli_fail("save", &err) : CLI_OK;
}
