// SPDX-License-Identifier: MIT
/*
 * partita run: one VM in the foreground, without any daemon. The options become a VM description; a
 * worker is started with it, and this process stands between the terminal and the guest's console.
 */
#include "cli/cli.h"
#include "lib/cleanup.h"
#include "lib/program.h"
#include "worker/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <jansson.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

static const char usage[] =
	"usage: partita run --kernel FILE [OPTION...]\n"
	"\n"
	"Runs one virtual machine in the foreground; its first serial port is this terminal.\n"
	"Ctrl-A x powers it off, Ctrl-A h tells the other keys.\n"
	"\n"
	"  --kernel FILE        bzImage, PVH or multiboot kernel\n"
	"  --initrd FILE        initial RAM disk\n"
	"  --cmdline TEXT       kernel command line\n"
	"  --state FILE         go on from there, where `partita save` saved it\n"
	"  --cpus N             virtual processors, 1 to 64 (1)\n"
	"  --memory SIZE        RAM, like 512M or 4G (512M)\n"
	"  --memory-maximum SIZE what it can grow to while it runs (as --memory)\n"
	"  --lock-memory        take all of it now, and keep it in the host's RAM\n"
	"  --disk FILE[,OPTION...]\n"
	"                       SCSI disk, raw or VHDX; may be repeated. Options: ro, direct,\n"
	"                       format=auto|raw|vhd|vhdx (by the name's ending), lun=N,\n"
	"                       controller=N, set=FILE (see `vhd share`)\n"
	"  --dvd FILE[,...]     the same for a DVD drive with an ISO image\n"
	"  --engine NAME        see `partita engines` (auto)\n"
	"  --serial WHERE       stdio, none, pty[:LINK] or socket:PATH (stdio)\n"
	"  --control PATH       control socket, see partita-worker(1)\n"
	"  --no-reboot          end with status 3 when the guest reboots\n"
	"  --name NAME          for messages (vm)\n"
	"  --id GUID            identity; disks with a set need one\n"
	"  --vmbus-version V    newest VMBus version to agree to, 2.4 to 6.0\n"
	"  --storvsp-version V  newest storage protocol to agree to, 5.1 to 6.2\n"
	"  --sockets PATH       listen there for programs that talk to the guest's over vsock\n"
	"  --sub-channels N     storage sub-channels offered, 0 to 63\n"
	"  --test-devices       devices that test kernels expect (exit port, fw_cfg, SynIC test)\n"
	"  --show-description   print the VM description as JSON and stop\n"
	"  --no-sandbox         run the worker without its system-call filter\n"
	"\n"
	"Exit status: 0 when the guest powered off; see partita-worker(1) for others.\n"
	"\n"
	"Examples:\n"
	"  partita run --kernel vmlinuz --initrd initrd.img --disk debian.vhdx \\\n"
	"              --memory 1G --cpus 2 --cmdline 'console=ttyS0 root=/dev/sda'\n"
	"  partita run --kernel test.elf --test-devices --serial stdio\n";

struct run {
	json_t *description, *scsi;
	const char *control_path, *serial_path; /* made by the worker, removed here afterwards */
	bool show, no_sandbox, stdio;
	struct error err;
};

/* --- options into a description --- */

static json_t *section(struct run *run, const char *name)
{
	json_t *o = json_object_get(run->description, name);

	if (o)
		return o;
	json_object_set_new(run->description, name, json_object());
	return json_object_get(run->description, name);
}

static int parse_number(struct run *run, const char *option, const char *text, long max,
			json_t **ret)
{
	char *end;
	long v = strtol(text, &end, 10);

	if (end == text || *end || v < 0 || v > max)
		return error_set(&run->err, -EINVAL,
				 "--%s takes a number from 0 to %ld, not \"%s\"", option, max,
				 text);
	*ret = json_integer(v);
	return 0;
}

static json_t *file_path(const char *path)
{
	return json_pack("{s:s}", "path", path);
}

/* The first free LUN of a controller's drives. */
static json_int_t free_lun(const json_t *drives)
{
	json_int_t lun = 0;
	size_t i;
	json_t *d;

	json_array_foreach(drives, i, d) if (json_integer_value(json_object_get(d, "lun")) >= lun)
		lun = json_integer_value(json_object_get(d, "lun")) + 1;
	return lun;
}

static int drive_option(struct run *run, const char *word, json_t *drive, json_t **controller)
{
	if (!strcmp(word, "ro"))
		json_object_set_new(drive, "read_only", json_true());
	else if (!strcmp(word, "direct"))
		json_object_set_new(drive, "direct", json_true());
	else if (!strncmp(word, "format=", 7))
		json_object_set_new(drive, "format", json_string(word + 7));
	else if (!strncmp(word, "lun=", 4)) {
		json_t *lun;

		if (parse_number(run, "disk lun", word + 4, 63, &lun) < 0)
			return -EINVAL;
		json_object_set_new(drive, "lun", lun);
	} else if (!strncmp(word, "set=", 4)) {
		json_object_set_new(drive, "set", file_path(word + 4));
	} else if (!strncmp(word, "controller=", 11)) {
		return parse_number(run, "disk controller", word + 11, 3, controller);
	} else {
		return error_set(
			&run->err, -EINVAL,
			"\"%s\" is not a drive option; there are ro, direct, format=, lun=, "
			"controller= and set=",
			word);
	}
	return 0;
}

/*
 * By the name's ending, not by content: a guest can write what makes a raw disk look like another
 * format the next time. Only a name that says nothing is left to the content.
 */
static const char *format_of(const char *path)
{
	static const struct {
		const char *ending, *format;
	} endings[] = { { ".vhdx", "vhdx" }, { ".avhdx", "vhdx" }, { ".vhd", "vhd" },
			{ ".avhd", "vhd" },  { ".raw", "raw" },    { ".img", "raw" },
			{ ".iso", "raw" } };
	const char *dot = strrchr(path, '.');

	for (size_t i = 0; dot && i < ARRAY_SIZE(endings); i++)
		if (!strcasecmp(dot, endings[i].ending))
			return endings[i].format;
	return "auto";
}

static int add_drive(struct run *run, const char *text, const char *kind)
{
	_cleanup_free_ char *copy = strdup(text);
	char *save, *path = strtok_r(copy, ",", &save), *word;
	json_t *drive, *drives, *controller = NULL;
	size_t index;
	int r = 0;

	if (!path)
		return error_set(&run->err, -EINVAL, "--%s needs a file", kind);
	drive = json_pack("{s:s,s:o,s:s}", "kind", kind, "file", file_path(path), "format",
			  format_of(path));
	while (r >= 0 && (word = strtok_r(NULL, ",", &save)))
		r = drive_option(run, word, drive, &controller);
	index = (size_t)json_integer_value(controller);
	json_decref(controller);
	if (r < 0) {
		json_decref(drive);
		return r;
	}
	while (json_array_size(run->scsi) <= index)
		json_array_append_new(run->scsi, json_pack("{s:[]}", "drives"));
	drives = json_object_get(json_array_get(run->scsi, index), "drives");
	if (!json_object_get(drive, "lun"))
		json_object_set_new(drive, "lun", json_integer(free_lun(drives)));
	json_array_append_new(drives, drive);
	return 0;
}

static int set_memory(struct run *run, const char *option, const char *key, const char *text)
{
	uint64_t bytes;
	int r = cli_parse_size(text, &bytes, &run->err);

	if (r < 0)
		return error_prefix(&run->err, "--%s", option);
	if (bytes % MIB)
		return error_set(&run->err, -EINVAL, "--%s %s is not a whole number of MiB", option,
				 text);
	json_object_set_new(run->description, key, json_integer((json_int_t)(bytes / MIB)));
	return 0;
}

static int set_serial(struct run *run, const char *text)
{
	json_t *s = NULL;

	run->stdio = !strcmp(text, "stdio");
	if (run->stdio)
		return 0;
	if (!strcmp(text, "none"))
		s = json_pack("{s:s}", "kind", "none");
	else if (!strcmp(text, "pty"))
		s = json_pack("{s:s}", "kind", "pty");
	else if (!strncmp(text, "pty:", 4))
		s = json_pack("{s:s,s:s}", "kind", "pty", "path", text + 4);
	else if (!strncmp(text, "socket:", 7))
		s = json_pack("{s:s,s:s}", "kind", "socket", "path", text + 7);
	if (!s)
		return error_set(&run->err, -EINVAL,
				 "--serial %s: say stdio, none, pty[:LINK] or socket:PATH", text);
	run->serial_path = json_string_value(json_object_get(s, "path"));
	json_object_set_new(run->description, "serial", json_pack("[o]", s));
	return 0;
}

enum {
	OPT_KERNEL = 256,
	OPT_INITRD,
	OPT_CMDLINE,
	OPT_STATE,
	OPT_CPUS,
	OPT_MEMORY,
	OPT_MEMORY_MAXIMUM,
	OPT_LOCK_MEMORY,
	OPT_DISK,
	OPT_DVD,
	OPT_ENGINE,
	OPT_SERIAL,
	OPT_CONTROL,
	OPT_SOCKETS,
	OPT_NO_REBOOT,
	OPT_NAME,
	OPT_ID,
	OPT_VMBUS,
	OPT_STORVSP,
	OPT_SUB_CHANNELS,
	OPT_TEST_DEVICES,
	OPT_SHOW,
	OPT_NO_SANDBOX,
};

const struct option run_options[] = {
	{ "kernel", required_argument, NULL, OPT_KERNEL },
	{ "initrd", required_argument, NULL, OPT_INITRD },
	{ "cmdline", required_argument, NULL, OPT_CMDLINE },
	{ "state", required_argument, NULL, OPT_STATE },
	{ "cpus", required_argument, NULL, OPT_CPUS },
	{ "memory", required_argument, NULL, OPT_MEMORY },
	{ "memory-maximum", required_argument, NULL, OPT_MEMORY_MAXIMUM },
	{ "lock-memory", no_argument, NULL, OPT_LOCK_MEMORY },
	{ "disk", required_argument, NULL, OPT_DISK },
	{ "dvd", required_argument, NULL, OPT_DVD },
	{ "engine", required_argument, NULL, OPT_ENGINE },
	{ "serial", required_argument, NULL, OPT_SERIAL },
	{ "control", required_argument, NULL, OPT_CONTROL },
	{ "sockets", required_argument, NULL, OPT_SOCKETS },
	{ "no-reboot", no_argument, NULL, OPT_NO_REBOOT },
	{ "name", required_argument, NULL, OPT_NAME },
	{ "id", required_argument, NULL, OPT_ID },
	{ "vmbus-version", required_argument, NULL, OPT_VMBUS },
	{ "storvsp-version", required_argument, NULL, OPT_STORVSP },
	{ "sub-channels", required_argument, NULL, OPT_SUB_CHANNELS },
	{ "test-devices", no_argument, NULL, OPT_TEST_DEVICES },
	{ "show-description", no_argument, NULL, OPT_SHOW },
	{ "no-sandbox", no_argument, NULL, OPT_NO_SANDBOX },
	{ "help", no_argument, NULL, 'h' },
	{ 0 },
};

/* Options whose text goes straight into the description. */
static const struct {
	int option;
	const char *section, *key; /* section NULL = top level */
	bool file;
} texts[] = {
	{ OPT_KERNEL, "boot", "kernel", true },
	{ OPT_INITRD, "boot", "initrd", true },
	{ OPT_CMDLINE, "boot", "command_line", false },
	{ OPT_STATE, "state", "path", false },
	{ OPT_ENGINE, NULL, "engine", false },
	{ OPT_NAME, NULL, "name", false },
	{ OPT_ID, NULL, "id", false },
	{ OPT_VMBUS, "vmbus", "max_version", false },
	{ OPT_SOCKETS, "sockets", "path", false },
	{ OPT_STORVSP, "storvsp", "max_version", false },
};

static bool set_text(struct run *run, int option, const char *text)
{
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		json_t *to;

		if (texts[i].option != option)
			continue;
		to = texts[i].section ? section(run, texts[i].section) : run->description;
		json_object_set_new(to, texts[i].key,
				    texts[i].file ? file_path(text) : json_string(text));
		return true;
	}
	return false;
}

static int set_number(struct run *run, int option, const char *text)
{
	json_t *n;
	int r;

	if (option == OPT_CPUS) {
		r = parse_number(run, "cpus", text, 64, &n);
		if (r >= 0)
			json_object_set_new(run->description, "processors", n);
		return r;
	}
	r = parse_number(run, "sub-channels", text, 63, &n);
	if (r >= 0)
		json_object_set_new(section(run, "storvsp"), "sub_channels", n);
	return r;
}

static int set_option(struct run *run, int option, const char *text)
{
	if (set_text(run, option, text))
		return 0;
	switch (option) {
	case OPT_CPUS:
	case OPT_SUB_CHANNELS:
		return set_number(run, option, text);
	case OPT_MEMORY:
		return set_memory(run, "memory", "memory", text);
	case OPT_MEMORY_MAXIMUM:
		return set_memory(run, "memory-maximum", "memory_maximum", text);
	case OPT_LOCK_MEMORY:
		json_object_set_new(run->description, "memory_locked", json_true());
		return 0;
	case OPT_DISK:
		return add_drive(run, text, "disk");
	case OPT_DVD:
		return add_drive(run, text, "dvd");
	case OPT_SERIAL:
		return set_serial(run, text);
	case OPT_CONTROL:
		run->control_path = text;
		return 0;
	case OPT_NO_REBOOT:
		json_object_set_new(run->description, "on_reset", json_string("stop"));
		return 0;
	case OPT_TEST_DEVICES:
		json_object_set_new(run->description, "test_devices", json_true());
		return 0;
	case OPT_SHOW:
		run->show = true;
		return 0;
	case OPT_NO_SANDBOX:
		run->no_sandbox = true;
		return 0;
	default:
		return -ENOENT;
	}
}

/* --- the worker --- */

static void exec_worker(const char *path, int description, bool no_sandbox)
{
	char number[16];

	prctl(PR_SET_PDEATHSIG, SIGTERM);
	snprintf(number, sizeof(number), "%d", description);
	if (no_sandbox)
		execl(path, "partita-worker", "--description-fd", number, "--no-sandbox", NULL);
	else
		execl(path, "partita-worker", "--description-fd", number, NULL);
	perror(path);
	_exit(127);
}

static int keep_over_exec(int fd)
{
	return fcntl(fd, F_SETFD, 0);
}

static int description_file(struct run *run)
{
	_cleanup_free_ char *text = json_dumps(run->description, 0);
	int fd = memfd_create("vm-description", 0);

	if (!text || fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text) ||
	    lseek(fd, 0, SEEK_SET) < 0) {
		error_errno(&run->err, -errno, "cannot pass the VM description");
		return -1;
	}
	return fd;
}

static int start(struct run *run, struct relay *relay)
{
	int console[2], control[2], description;
	char path[PATH_MAX];
	pid_t pid;

	if (program_find("partita-worker", "../worker", path, &run->err) < 0)
		return -1;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, console) < 0 ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, control) < 0)
		return error_errno(&run->err, -errno, "cannot make sockets");
	if (run->stdio)
		json_object_set_new(
			run->description, "serial",
			json_pack("[{s:s,s:i}]", "kind", "descriptor", "descriptor", console[1]));
	json_object_set_new(section(run, "control"), "descriptor", json_integer(control[1]));
	if (run->control_path)
		json_object_set_new(section(run, "control"), "path",
				    json_string(run->control_path));
	description = description_file(run);
	if (description < 0)
		return -1;
	pid = fork();
	if (pid < 0)
		return error_errno(&run->err, -errno, "cannot start the worker");
	if (!pid) {
		keep_over_exec(console[1]);
		keep_over_exec(control[1]);
		exec_worker(path, description, run->no_sandbox);
	}
	close(console[1]);
	close(control[1]);
	close(description);
	*relay = (struct relay){ .console = console[0], .control = control[0], .pid = pid };
	return 0;
}

/* Sockets and links only, whatever stands at that name by now. */
static void remove_made(const char *path)
{
	struct stat st;

	if (path && !lstat(path, &st) && (S_ISSOCK(st.st_mode) || S_ISLNK(st.st_mode)))
		unlink(path);
}

static int run_vm(struct run *run)
{
	struct relay relay;
	int status;

	if (start(run, &relay) < 0)
		return cli_fail("run", &run->err);
	status = relay_run(&relay);
	remove_made(run->control_path);
	remove_made(run->serial_path);
	if (WIFEXITED(status))
		return WEXITSTATUS(status);
	fprintf(stderr, "partita run: the worker was ended by signal %d (%s)\n", WTERMSIG(status),
		strsignal(WTERMSIG(status)));
	return CLI_FAILED;
}

static int parse_options(struct run *run, int argc, char **argv)
{
	int c;

	while ((c = getopt_long(argc, argv, "h", run_options, NULL)) >= 0) {
		if (c == 'h') {
			fputs(usage, stdout);
			return CLI_OK;
		}
		if (c == '?') {
			fputs("`partita run --help` lists the options\n", stderr);
			return CLI_USAGE;
		}
		if (set_option(run, c, optarg) < 0) {
			cli_fail("run", &run->err);
			return CLI_USAGE;
		}
	}
	if (optind < argc || !json_object_get(section(run, "boot"), "kernel")) {
		fprintf(stderr, "partita run: %s\n`partita run --help` lists the options\n",
			optind < argc ? "options only, please" : "--kernel is missing");
		return CLI_USAGE;
	}
	return -1; /* go on */
}

int cli_run(int argc, char **argv)
{
	struct run run = { .description = json_object(), .scsi = json_array(), .stdio = true };
	int r;

	json_object_set_new(run.description, "name", json_string("vm"));
	json_object_set_new(run.description, "scsi", run.scsi);
	r = parse_options(&run, argc, argv);
	if (r < 0 && run.show) {
		json_dumpf(run.description, stdout, JSON_INDENT(2));
		putchar('\n');
		r = CLI_OK;
	}
	if (r < 0)
		r = run_vm(&run);
	json_decref(run.description);
	return r;
}
