// SPDX-License-Identifier: MIT
/*
 * partita-keeper: the process between the service and one worker. It makes the worker's
 * surroundings (session, user, namespaces, descriptors), starts it, writes its log, and writes down
 * how it ended; so the service may die and come back at any time. One thread, no library but the C
 * library's, next to no memory: there is one for each machine that runs.
 *
 * Descriptors by number: 3 is the run folder of the machine, 4 its lock, which tells others that
 * somebody keeps it; the worker's begin at 5. What is written is for supervisor.h's worker_adopt:
 * worker.json before the worker's first instruction, end.json after its last.
 */
#include "lib/cleanup.h"
#include "lib/types.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <grp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#define RUN_FD    3
#define FIRST_FD  5
#define LOG_LIMIT (1 * MIB)
#define TAIL_SIZE 1024 /* of what the worker said last, for end.json */
#define JSON_SIZE (8 * KIB)

static const char usage[] =
	"usage: partita-keeper [OPTION...] -- WORKER [ARGUMENT...]\n"
	"\n"
	"Starts a worker and writes down how it ended. The management service starts it; see\n"
	"partita-keeper(8) for the descriptors that it expects.\n"
	"\n"
	"  --files N            how many descriptors the worker gets, from 5 on (0)\n"
	"  --uid N, --gid N     user and group of the worker, and of this process\n"
	"  --group N            the one further group\n"
	"  --namespaces         own mount, network, IPC and host name namespaces\n"
	"  --help, --version\n";

struct keeper {
	unsigned files;
	long uid, gid, group; /* -1 = as we are */
	bool namespaces;
	char **command;
	pid_t worker;
	int signals, errors; /* the worker's standard error */
	int log;
	size_t log_size;
	char tail[TAIL_SIZE];
	size_t tail_size;
	char failed[256]; /* why it was not started; "" */
};

static int fail(struct keeper *k, const char *format, ...) __attribute__((format(printf, 2, 3)));

static int fail(struct keeper *k, const char *format, ...)
{
	int error = errno;
	va_list ap;
	size_t n;

	va_start(ap, format);
	vsnprintf(k->failed, sizeof(k->failed), format, ap);
	va_end(ap);
	n = strlen(k->failed);
	snprintf(k->failed + n, sizeof(k->failed) - n, ": %s", strerror(error));
	return -1;
}

/* --- writing JSON --- */

struct text {
	size_t size;
	char bytes[JSON_SIZE];
};

static void put(struct text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void put(struct text *t, const char *format, ...)
{
	size_t room = sizeof(t->bytes) - t->size;
	va_list ap;
	int n;

	va_start(ap, format);
	n = vsnprintf(t->bytes + t->size, room, format, ap);
	va_end(ap);
	if (n > 0)
		t->size += MIN((size_t)n, room - 1);
}

/* The length of the character at `s`, 0 when it is not one as UTF-8 has it. */
static size_t utf8_length(const unsigned char *s, size_t size)
{
	static const unsigned char second_min[] = { [0xe0 - 0xc2] = 0xa0, [0xf0 - 0xc2] = 0x90 };
	size_t length = s[0] < 0x80 ? 1 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
	unsigned char min = 0x80, max = 0xbf;

	if (length == 1)
		return 1;
	if (s[0] < 0xc2 || s[0] > 0xf4 || length > size)
		return 0;
	if ((size_t)(s[0] - 0xc2) < sizeof(second_min) && second_min[s[0] - 0xc2])
		min = second_min[s[0] - 0xc2];
	if (s[0] == 0xed)
		max = 0x9f; /* surrogates are no characters */
	if (s[0] == 0xf4)
		max = 0x8f;
	if (s[1] < min || s[1] > max)
		return 0;
	for (size_t i = 2; i < length; i++)
		if (s[i] < 0x80 || s[i] > 0xbf)
			return 0;
	return length;
}

static void put_string(struct text *t, const char *string, size_t size)
{
	const unsigned char *s = (const unsigned char *)string;

	put(t, "\"");
	for (size_t i = 0, n; i < size; i += MAX(n, 1)) {
		n = utf8_length(s + i, size - i);
		if (!n || s[i] == 0x7f)
			put(t, "?");
		else if (s[i] == '\n')
			put(t, "\\n");
		else if (s[i] < 0x20)
			put(t, " ");
		else
			put(t, "%s%.*s", s[i] == '"' || s[i] == '\\' ? "\\" : "", (int)n, s + i);
	}
	put(t, "\"");
}

/* Whoever reads it finds all of it or nothing, and a power cut does not change that. */
static int file_write(const char *name, const struct text *t)
{
	_cleanup_close_ int fd = -1;
	char draft[32];

	snprintf(draft, sizeof(draft), "%s.new", name);
	fd = openat(RUN_FD, draft, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0640);
	if (fd < 0 || write(fd, t->bytes, t->size) != (ssize_t)t->size || fsync(fd) < 0 ||
	    renameat(RUN_FD, draft, RUN_FD, name) < 0)
		return -1;
	return 0;
}

static long long now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (long long)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static ssize_t read_small(const char *path, char *buffer, size_t size)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, buffer, size - 1);

	buffer[MAX(n, 0)] = 0;
	return n;
}

/* Field 22 of its stat; the name before it may have anything in it, but ends with the last ")". */
static unsigned long long start_time(pid_t pid)
{
	char path[48], stat[1024], *at;
	unsigned long long start = 0;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	if (read_small(path, stat, sizeof(stat)) <= 0)
		return 0;
	at = strrchr(stat, ')');
	if (at)
		sscanf(at,
		       ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d "
		       "%*d %llu",
		       &start);
	return start;
}

static int worker_write(struct keeper *k)
{
	struct text t = { 0 };
	char boot[64];

	read_small("/proc/sys/kernel/random/boot_id", boot, sizeof(boot));
	put(&t, "{\"version\":1,\"keeper\":%d,\"keeper_start\":%llu,\"worker\":%d,", getpid(),
	    start_time(getpid()), k->worker);
	put(&t, "\"worker_start\":%llu,\"boot\":", start_time(k->worker));
	put_string(&t, boot, strcspn(boot, "\n"));
	put(&t, ",\"begun\":%lld}\n", now_ms());
	return file_write("worker.json", &t);
}

/* The last whole lines; what is before the first of them was cut. */
static void put_words(struct text *t, const struct keeper *k)
{
	const char *begin = k->tail, *end = k->tail + k->tail_size;

	if (k->tail_size == sizeof(k->tail)) {
		const char *line = memchr(begin, '\n', k->tail_size);

		begin = line ? line + 1 : begin;
	}
	while (end > begin && end[-1] == '\n')
		end--;
	put(t, ",\"words\":");
	put_string(t, begin, (size_t)(end - begin));
}

static int end_write(struct keeper *k, int status)
{
	struct text t = { 0 };

	put(&t, "{\"version\":1,\"time\":%lld", now_ms());
	if (*k->failed) {
		put(&t, ",\"failed\":");
		put_string(&t, k->failed, strlen(k->failed));
	} else if (WIFSIGNALED(status)) {
		put(&t, ",\"signal\":%d,\"core\":%s", WTERMSIG(status),
		    WCOREDUMP(status) ? "true" : "false");
	} else {
		put(&t, ",\"status\":%d", WEXITSTATUS(status));
	}
	put_words(&t, k);
	put(&t, "}\n");
	return file_write("end.json", &t);
}

/* --- the log --- */

static void log_open(struct keeper *k)
{
	struct stat st;

	if (k->log >= 0)
		close(k->log);
	k->log =
		openat(RUN_FD, "log", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0640);
	k->log_size = k->log >= 0 && !fstat(k->log, &st) ? (size_t)st.st_size : 0;
}

/* Two files of a mebibyte: whatever the worker says, it fills no disk. */
static void log_write(struct keeper *k, const char *bytes, size_t size)
{
	ssize_t n;

	if (k->log_size + size > LOG_LIMIT) {
		renameat(RUN_FD, "log", RUN_FD, "log.1");
		log_open(k);
	}
	n = k->log < 0 ? 0 : write(k->log, bytes, size);
	k->log_size += (size_t)MAX(n, 0);
}

static void tail_add(struct keeper *k, const char *bytes, size_t size)
{
	size_t keep;

	if (size > sizeof(k->tail)) {
		bytes += size - sizeof(k->tail);
		size = sizeof(k->tail);
	}
	keep = MIN(k->tail_size, sizeof(k->tail) - size);
	memmove(k->tail, k->tail + k->tail_size - keep, keep);
	memcpy(k->tail + keep, bytes, size);
	k->tail_size = keep + size;
}

/* Positive: there may be more; 0: nothing now; negative: nobody can write any more. */
static int errors_read(struct keeper *k)
{
	char buffer[1024];
	ssize_t n = read(k->errors, buffer, sizeof(buffer));

	if (n < 0)
		return errno == EINTR;
	if (!n)
		return -1;
	log_write(k, buffer, (size_t)n);
	tail_add(k, buffer, (size_t)n);
	return 1;
}

/* --- surroundings --- */

static int namespaces_leave(struct keeper *k)
{
	if (unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS) < 0)
		return fail(k, "cannot make namespaces");
	/* What the host unmounts is to go from here too. */
	if (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0)
		return fail(k, "cannot part from the host's mounts");
	return 0;
}

static int user_change(struct keeper *k)
{
	gid_t group = (gid_t)k->group;

	if (k->uid < 0)
		return 0;
	if (setgroups(k->group < 0 ? 0 : 1, &group) < 0)
		return fail(k, "cannot leave the groups");
	if (k->gid >= 0 && setresgid((gid_t)k->gid, (gid_t)k->gid, (gid_t)k->gid) < 0)
		return fail(k, "cannot become group %ld", k->gid);
	if (setresuid((uid_t)k->uid, (uid_t)k->uid, (uid_t)k->uid) < 0)
		return fail(k, "cannot become user %ld", k->uid);
	return 0;
}

static int surroundings_make(struct keeper *k)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	setsid();
	if (chdir("/") < 0)
		return fail(k, "cannot leave the folder");
	if (null < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0 || dup2(null, 2) < 0)
		return fail(k, "cannot open /dev/null");
	if (null > 2)
		close(null);
	if (close_range(FIRST_FD + k->files, ~0u, 0) < 0)
		return fail(k, "cannot close descriptors");
	for (int fd = RUN_FD; fd < FIRST_FD; fd++)
		if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
			return fail(k, "descriptor %d was not passed", fd);
	if (k->namespaces && namespaces_leave(k) < 0)
		return -1;
	if (user_change(k) < 0)
		return -1;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return fail(k, "cannot give up new privileges");
	return 0;
}

static int signals_open(struct keeper *k)
{
	static const int ours[] = { SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGCHLD };
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < ARRAY_SIZE(ours); i++)
		sigaddset(&set, ours[i]);
	sigprocmask(SIG_BLOCK, &set, NULL);
	k->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return k->signals < 0 ? fail(k, "cannot watch for signals") : 0;
}

/* --- the worker --- */

/* Waits until it is written down who it is: nobody could find it otherwise. */
static void worker_exec(struct keeper *k, int errors, int go, int outcome)
{
	sigset_t none;
	ssize_t n;
	char c;
	int error;

	n = read(go, &c, 1);
	if (n != 1)
		_exit(127); /* the keeper is gone, or gave up */
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (dup2(errors, STDERR_FILENO) >= 0)
		execv(k->command[0], k->command);
	error = errno;
	n = write(outcome, &error, sizeof(error));
	_exit(127);
}

static int pipe_make(int fds[2], int flags)
{
	return pipe2(fds, O_CLOEXEC | flags);
}

/* `go` and `outcome` are pipes: to the worker before, and from it when it could not be executed. */
static int worker_release(struct keeper *k, int go, int outcome)
{
	int error;

	if (worker_write(k) < 0)
		return fail(k, "cannot write worker.json into the run folder");
	if (write(go, "", 1) != 1)
		return fail(k, "cannot let the worker begin");
	if (read(outcome, &error, sizeof(error)) == sizeof(error)) {
		errno = error;
		return fail(k, "cannot run \"%.180s\"", k->command[0]);
	}
	return 0;
}

static int worker_start(struct keeper *k)
{
	int errors[2], go[2], outcome[2], r;

	if (pipe_make(errors, 0) < 0 || pipe_make(go, 0) < 0 || pipe_make(outcome, 0) < 0)
		return fail(k, "cannot make pipes");
	k->worker = fork();
	if (k->worker < 0)
		return fail(k, "cannot start the worker");
	if (!k->worker) {
		close(go[1]);
		worker_exec(k, errors[1], go[0], outcome[1]);
	}
	close(errors[1]);
	close(go[0]);
	close(outcome[1]);
	for (unsigned i = 0; i < k->files; i++)
		close((int)(FIRST_FD + i));
	k->errors = errors[0];
	r = worker_release(k, go[1], outcome[0]);
	close(go[1]);
	close(outcome[0]);
	if (r >= 0 && fcntl(k->errors, F_SETFL, O_NONBLOCK) < 0)
		r = fail(k, "cannot read what the worker says");
	return r;
}

static void signal_pass(struct keeper *k, uint32_t signo)
{
	if (signo == SIGQUIT)
		kill(k->worker, SIGKILL);
	else if (signo != SIGCHLD)
		kill(k->worker, SIGTERM);
}

/* Until it has ended; its status. */
static int worker_wait(struct keeper *k)
{
	struct pollfd p[] = { { k->signals, POLLIN, 0 }, { k->errors, POLLIN, 0 } };
	struct signalfd_siginfo info;
	int status;

	while (waitpid(k->worker, &status, WNOHANG) != k->worker) {
		if (poll(p, ARRAY_SIZE(p), -1) < 0)
			continue;
		while (read(k->signals, &info, sizeof(info)) == sizeof(info))
			signal_pass(k, info.ssi_signo);
		if (p[1].revents && errors_read(k) < 0)
			p[1].fd = -1;
	}
	while (errors_read(k) > 0)
		;
	return status;
}

static int keep(struct keeper *k)
{
	int status = 0;

	if (surroundings_make(k) >= 0 && signals_open(k) >= 0) {
		log_open(k);
		if (worker_start(k) >= 0)
			status = worker_wait(k);
		else if (k->worker > 0)
			kill(k->worker, SIGKILL);
	}
	return end_write(k, status) < 0 ? 1 : 0;
}

static bool number(const char *text, long max, long *ret)
{
	char *end;

	errno = 0;
	*ret = strtol(text, &end, 10);
	return end != text && !*end && !errno && *ret >= 0 && *ret <= max;
}

static int parse(struct keeper *k, int argc, char **argv)
{
	static const struct option options[] = {
		{ "files", required_argument, NULL, 'f' },
		{ "uid", required_argument, NULL, 'u' },
		{ "gid", required_argument, NULL, 'g' },
		{ "group", required_argument, NULL, 'G' },
		{ "namespaces", no_argument, NULL, 'n' },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },
		{ 0 },
	};
	long files = 0;
	bool right = true;
	int c;

	while ((c = getopt_long(argc, argv, "+h", options, NULL)) >= 0) {
		if (c == 'f')
			right &= number(optarg, 4096, &files);
		else if (c == 'u')
			right &= number(optarg, INT32_MAX, &k->uid);
		else if (c == 'g')
			right &= number(optarg, INT32_MAX, &k->gid);
		else if (c == 'G')
			right &= number(optarg, INT32_MAX, &k->group);
		else if (c == 'n')
			k->namespaces = true;
		else
			return c;
	}
	k->files = (unsigned)files;
	k->command = argv + optind;
	return right && optind < argc ? 0 : '?';
}

int main(int argc, char **argv)
{
	struct keeper k = { .uid = -1, .gid = -1, .group = -1, .log = -1, .signals = -1 };

	switch (parse(&k, argc, argv)) {
	case 0:
		return keep(&k);
	case 'h':
		fputs(usage, stdout);
		return 0;
	case 'V':
		puts("partita-keeper " PARTITA_VERSION);
		return 0;
	default:
		fputs(usage, stderr);
		return 2;
	}
}
