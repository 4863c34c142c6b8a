// SPDX-License-Identifier: MIT
/*
 * partita-worker: the process of one VM. It reads the description, opens or takes over what that
 * names, shuts the door behind itself (sandbox.c), and runs the machine until it is off.
 */
#include "event/loop.h"
#include "lib/cleanup.h"
#include "lib/log.h"
#include "lib/program.h"
#include "lib/sandbox.h"
#include "save/save.h"
#include "worker/control.h"
#include "worker/machine.h"
#include "worker/sandbox.h"
#include "worker/vm_description.h"
#include "worker/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <malloc.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>

#define DESCRIPTION_LIMIT (1 * MIB)
#define IO_DEPTH          256

static const char usage[] =
	"usage: partita-worker [--description FILE | --description-fd N] [--no-sandbox]\n"
	"\n"
	"Runs one virtual machine, described by a JSON file, until it is powered off. It is\n"
	"started by `partita run` and by the management service; see partita-worker(1) for the\n"
	"description and the control socket.\n"
	"\n"
	"  --description FILE   the description; - is standard input (the default)\n"
	"  --description-fd N   the same, from an open descriptor\n"
	"  --check              check the description and stop\n"
	"  --dump-state FILE    print a saved state as text and stop\n"
	"  --no-sandbox         leave out the system-call filter (for debuggers)\n"
	"  --help, --version\n"
	"\n"
	"Exit status: 0 powered off; 1 error; 2 usage; 3 the guest rebooted and the description\n"
	"says to stop then; 4 saved. With test devices: twice the guest's value, plus 1.\n";

struct options {
	const char *path;
	int fd;
	bool check, sandbox;
};

struct worker {
	struct loop *loop;
	struct machine *machine;
	struct control *control;
	struct loop_watch signals;
	struct vm_description description;
};

/* What the schema cannot say: only a DVD drive may be empty. */
static int drives_check(const struct vm_description *d, struct error *err)
{
	for (unsigned i = 0; i < d->scsi_count; i++) {
		for (unsigned j = 0; j < d->scsi[i].drives_count; j++) {
			const struct vm_drive *drive = &d->scsi[i].drives[j];

			if (drive->kind == VM_DRIVE_KIND_DISK && !drive->file.present)
				return error_set(err, -EINVAL,
						 "scsi[%u].drives[%u].file: is missing", i, j);
		}
	}
	return 0;
}

static int read_description(const struct options *o, struct vm_description *ret, struct error *err)
{
	_cleanup_free_ char *text = NULL;
	_cleanup_close_ int opened = -1;
	int fd = o->fd;
	size_t size;
	int r;

	if (o->path && strcmp(o->path, "-")) {
		fd = opened = open(o->path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			return error_errno(err, -errno, "cannot open \"%s\"", o->path);
	}
	r = program_description(fd, DESCRIPTION_LIMIT, &text, &size, err);
	if (r >= 0)
		r = vm_description_parse(text, size, ret, err);
	if (r >= 0)
		r = drives_check(ret, err);
	return r < 0 ? error_prefix(err, "VM description") : 0;
}

/* SIGTERM and SIGINT power the machine off in good order; a second one does nothing more. */
static void on_signal(struct loop_watch *w, uint32_t events)
{
	struct worker *worker = container_of(w, struct worker, signals);
	struct signalfd_siginfo info;
	struct error err;

	(void)events;
	if (read(w->fd, &info, sizeof(info)) == sizeof(info))
		machine_command(worker->machine, MACHINE_POWER_OFF, &err);
}

/*
 * The loop's thread does not preempt a running VP when it is woken: a guest that sends many
 * requests gets to put them all into its ring, and they are served and answered together. When the
 * guest has nothing more to do its VP halts, and the loop runs at once; on a free processor it does
 * anyway.
 */
static void let_guests_batch(void)
{
	const struct sched_param none = { 0 };

	(void)sched_setscheduler(0, SCHED_BATCH, &none);
}

static int worker_setup(struct worker *w, const struct options *o, struct error *err)
{
	int r = loop_new(IO_DEPTH, &w->loop, err);

	if (r >= 0)
		r = loop_watch_signals(w->loop, &w->signals, 0, on_signal, err);
	if (r >= 0)
		r = machine_new(w->loop, &w->description, &w->machine, err);
	if (r >= 0)
		r = control_new(w->loop, w->machine, &w->description.control, &w->control, err);
	let_guests_batch();
	if (r >= 0 && o->sandbox && !SANDBOX_SANITIZED)
		r = worker_sandbox_enter(err);
	if (r >= 0)
		r = machine_start(w->machine, err);
	return r;
}

static int worker_result(struct worker *w)
{
	int status;

	switch (machine_end(w->machine, &status)) {
	case MACHINE_END_POWER_OFF:
		return WORKER_EXIT_OFF;
	case MACHINE_END_RESET:
		return WORKER_EXIT_RESET;
	case MACHINE_END_SAVED:
		return WORKER_EXIT_SAVED;
	case MACHINE_END_TEST_EXIT:
		return status;
	case MACHINE_END_ERROR:
		break;
	}
	log_line("%s", machine_failure(w->machine)->message);
	return WORKER_EXIT_ERROR;
}

/*
 * One heap for all threads: VP threads hardly allocate, and the C library asks the kernel how many
 * processors there are before it makes them heaps of their own, which the filter refuses.
 */
static void share_the_heap(void)
{
	(void)mallopt(M_ARENA_MAX, 1);
}

static int worker_run(const struct options *o)
{
	struct worker w = { 0 };
	struct error err = { 0 };
	int r = read_description(o, &w.description, &err), status = WORKER_EXIT_ERROR;
	static char instance[512];

	if (w.description.name)
		snprintf(instance, sizeof(instance), "vm=%s", w.description.name);
	share_the_heap();
	log_init("partita-worker", *instance ? instance : NULL);
	if (r >= 0 && o->check) {
		puts("the description is valid");
		vm_description_deinit(&w.description);
		return 0;
	}
	if (r >= 0)
		r = worker_setup(&w, o, &err);
	if (r >= 0) {
		r = loop_run(w.loop);
		if (r < 0)
			error_errno(&err, r, "the event loop failed");
	}
	if (r >= 0)
		status = worker_result(&w);
	else
		log_line("%s", err.message);
	control_free(w.control);
	machine_free(w.machine);
	loop_unwatch(&w.signals);
	loop_free(w.loop);
	vm_description_deinit(&w.description);
	return status;
}

static int dump_state(const char *path)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct error err = { 0 };
	struct save_reader *r;
	int n = fd < 0 ? error_errno(&err, -errno, "cannot open \"%s\"", path)
		       : save_reader_open(fd, &r, &err);

	if (n < 0) {
		fprintf(stderr, "partita-worker: %s\n", err.message);
		return WORKER_EXIT_ERROR;
	}
	save_dump(r, stdout);
	save_reader_free(r);
	return 0;
}

int main(int argc, char **argv)
{
	static const struct option long_options[] = {
		{ "description", required_argument, NULL, 'd' },
		{ "description-fd", required_argument, NULL, 'f' },
		{ "check", no_argument, NULL, 'c' },
		{ "dump-state", required_argument, NULL, 's' },
		{ "no-sandbox", no_argument, NULL, 'n' },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },
		{ 0 },
	};
	struct options o = { .sandbox = true };
	int c;

	while ((c = getopt_long(argc, argv, "h", long_options, NULL)) >= 0) {
		switch (c) {
		case 'd':
			o.path = optarg;
			break;
		case 'f':
			o.fd = atoi(optarg);
			break;
		case 'c':
			o.check = true;
			break;
		case 'n':
			o.sandbox = false;
			break;
		case 's':
			return dump_state(optarg);
		case 'h':
			fputs(usage, stdout);
			return 0;
		case 'V':
			puts("partita-worker " PARTITA_VERSION);
			return 0;
		default:
			fputs(usage, stderr);
			return WORKER_EXIT_USAGE;
		}
	}
	if (optind < argc) {
		fputs(usage, stderr);
		return WORKER_EXIT_USAGE;
	}
	return worker_run(&o);
}
