// SPDX-License-Identifier: MIT
/*
 * What keepers leave in run folders, and what it means. The files are written by a process of the
 * worker's user: they are read with limits, and a process that they name is taken for ours only
 * when it is of that user and began when they say.
 */
#include "daemon/supervisor_internal.h"
#include "lib/cleanup.h"
#include "worker/worker.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define RECORD_LIMIT 16384

/* --- files --- */

/* A pipe or a link at that name must not hold or mislead us. */
static int small_file_read(int folder, const char *name, char *buffer, size_t size)
{
	_cleanup_close_ int fd =
		openat(folder, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
	struct stat st;
	ssize_t n;

	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return -EUCLEAN;
	n = read(fd, buffer, size);
	if (n < 0)
		return -errno;
	return (size_t)n == size ? -EUCLEAN : (int)n;
}

static int json_parse(const char *text, size_t size, json_t **ret)
{
	json_error_t error;
	json_t *o = json_loadb(text, size, JSON_REJECT_DUPLICATES, &error);

	if (!json_is_object(o)) {
		json_decref(o);
		return -EUCLEAN;
	}
	*ret = o;
	return 0;
}

static bool text_get(const json_t *o, const char *key, char *ret, size_t size)
{
	const char *text = json_string_value(json_object_get(o, key));

	if (text)
		snprintf(ret, size, "%s", text);
	return text && *text;
}

static bool number_get(const json_t *o, const char *key, json_int_t max, json_int_t *ret)
{
	const json_t *v = json_object_get(o, key);

	*ret = json_integer_value(v);
	return json_is_integer(v) && *ret > 0 && *ret <= max;
}

int worker_record_parse(const char *text, size_t size, struct worker_record *ret)
{
	json_int_t keeper, worker, keeper_start, worker_start;
	struct worker_record record;
	bool right;
	json_t *o;
	int r = json_parse(text, size, &o);

	if (r < 0)
		return r;
	right = number_get(o, "keeper", INT32_MAX, &keeper) &&
		number_get(o, "worker", INT32_MAX, &worker) &&
		number_get(o, "keeper_start", INT64_MAX, &keeper_start) &&
		number_get(o, "worker_start", INT64_MAX, &worker_start) &&
		text_get(o, "boot", record.boot, sizeof(record.boot));
	json_decref(o);
	if (!right)
		return -EUCLEAN;
	record.keeper = (pid_t)keeper;
	record.worker = (pid_t)worker;
	record.keeper_start = (uint64_t)keeper_start;
	record.worker_start = (uint64_t)worker_start;
	*ret = record;
	return 0;
}

int worker_end_parse(const char *text, size_t size, struct worker_end_record *ret)
{
	struct worker_end_record record = { 0 };
	const json_t *status, *signal_number;
	bool right;
	json_t *o;
	int r = json_parse(text, size, &o);

	if (r < 0)
		return r;
	status = json_object_get(o, "status");
	signal_number = json_object_get(o, "signal");
	record.signalled = json_is_integer(signal_number);
	record.core = json_is_true(json_object_get(o, "core"));
	record.status = (int)(json_integer_value(record.signalled ? signal_number : status) & 0xff);
	text_get(o, "words", record.words, sizeof(record.words));
	right = text_get(o, "failed", record.failed, sizeof(record.failed)) || record.signalled ||
		json_is_integer(status);
	json_decref(o);
	if (!right)
		return -EUCLEAN;
	*ret = record;
	return 0;
}

/* Its text, if a keeper may have written that. */
static int record_text(int folder, const char *name, char text[static RECORD_LIMIT],
		       struct error *err)
{
	int n = small_file_read(folder, name, text, RECORD_LIMIT);

	if (n == -ENOENT)
		return error_set(err, -ENOENT, "there is no %s", name);
	return n < 0 ? error_set(err, -EUCLEAN, "%s cannot be read", name) : n;
}

int worker_record_read(int folder, struct worker_record *ret, struct error *err)
{
	char text[RECORD_LIMIT];
	int n = record_text(folder, "worker.json", text, err);

	if (n < 0)
		return n;
	if (worker_record_parse(text, (size_t)n, ret) < 0)
		return error_set(err, -EUCLEAN, "worker.json is not what a keeper writes");
	return 0;
}

int worker_end_read(int folder, struct worker_end_record *ret, struct error *err)
{
	char text[RECORD_LIMIT];
	int n = record_text(folder, "end.json", text, err);

	if (n < 0)
		return n;
	if (worker_end_parse(text, (size_t)n, ret) < 0)
		return error_set(err, -EUCLEAN, "end.json is not what a keeper writes");
	return 0;
}

void worker_folder_remove(struct supervisor *s, const char *id)
{
	int fd = openat(s->run_fd, id, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	if (dir) {
		while ((e = readdir(dir)))
			unlinkat(fd, e->d_name, 0); /* "." and ".." refuse */
		closedir(dir);
	} else if (fd >= 0) {
		close(fd);
	}
	unlinkat(s->run_fd, id, AT_REMOVEDIR);
}

/* --- processes --- */

bool worker_record_current(const struct worker_record *r)
{
	char boot[64];
	int n = small_file_read(AT_FDCWD, "/proc/sys/kernel/random/boot_id", boot, sizeof(boot));

	return n >= 36 && strlen(r->boot) == 36 && !memcmp(boot, r->boot, 36);
}

static uint64_t process_start(pid_t pid)
{
	char path[48], stat[1024], *at;
	unsigned long long start = 0;
	int n;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	n = small_file_read(AT_FDCWD, path, stat, sizeof(stat) - 1);
	stat[MAX(n, 0)] = 0;
	at = strrchr(stat, ')');
	if (at &&
	    sscanf(at,
		   ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d "
		   "%*d %llu",
		   &start) != 1)
		return 0;
	return start;
}

static bool process_is_of(pid_t pid, uid_t uid)
{
	char path[48], status[2048], *at;
	unsigned found;
	int n;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	n = small_file_read(AT_FDCWD, path, status, sizeof(status) - 1);
	status[MAX(n, 0)] = 0;
	at = strstr(status, "\nUid:");
	return at && sscanf(at, "\nUid: %u", &found) == 1 && found == uid;
}

int worker_process_open(int folder, pid_t pid, uint64_t start)
{
	_cleanup_close_ int fd = (int)syscall(SYS_pidfd_open, pid, 0);
	struct stat st;

	if (fd < 0)
		return -errno;
	/* After the descriptor: it cannot come to mean another one any more. */
	if (fstat(folder, &st) < 0 || process_start(pid) != start || !process_is_of(pid, st.st_uid))
		return -ESRCH;
	if (syscall(SYS_pidfd_send_signal, fd, 0, NULL, 0) < 0 && errno == ESRCH)
		return -ESRCH;
	return steal_fd(&fd);
}

/* --- what an end means --- */

const char *worker_end_name(enum worker_end end)
{
	static const char *const names[] = {
		[WORKER_END_OFF] = "off",       [WORKER_END_RESET] = "reset",
		[WORKER_END_ERROR] = "error",   [WORKER_END_CRASH] = "crash",
		[WORKER_END_DENIED] = "denied", [WORKER_END_MEMORY] = "memory",
		[WORKER_END_LOST] = "lost",
	};

	return names[end];
}

/* The last line that says something, without who says it. */
static const char *last_words(const char *words)
{
	const char *line = strrchr(words, '\n'), *text;

	line = line ? line + 1 : words;
	if (strncmp(line, "partita-worker", 14))
		return line;
	text = strstr(line, ": ");
	return text ? text + 2 : line;
}

static enum worker_end judge_memory(char *words, size_t size)
{
	snprintf(words, size,
		 "the worker used more memory than there was or than it may, and was killed");
	return WORKER_END_MEMORY;
}

static enum worker_end judge_signal(const struct worker_end_facts *f, char *words, size_t size)
{
	const struct worker_end_record *r = f->record;

	if (r->status == SIGSYS) {
		snprintf(words, size,
			 "the worker made a system call that its filter does not allow, and was "
			 "ended; the kernel's log has the call's number");
		return WORKER_END_DENIED;
	}
	if (r->status == SIGKILL && f->out_of_memory)
		return judge_memory(words, size);
	if (r->status == SIGKILL && f->killed)
		snprintf(words, size, "the worker was killed by the service");
	else if (r->status == SIGKILL)
		snprintf(words, size,
			 "the worker was killed (signal 9); if no person did that, the host was "
			 "out of memory: its kernel's log tells");
	else
		snprintf(words, size, "the worker crashed: signal %d (%s)%s", r->status,
			 strsignal(r->status), r->core ? ", core dumped" : "");
	return WORKER_END_CRASH;
}

static enum worker_end judge_status(const struct worker_end_record *r, char *words, size_t size)
{
	const char *said = last_words(r->words);

	switch (r->status) {
	case WORKER_EXIT_OFF:
		snprintf(words, size, "powered off");
		return WORKER_END_OFF;
	case WORKER_EXIT_RESET:
		snprintf(words, size, "the guest restarted");
		return WORKER_END_RESET;
	default:
		if (*said)
			snprintf(words, size, "%s", said);
		else
			snprintf(words, size, "the worker ended with status %d", r->status);
		return WORKER_END_ERROR;
	}
}

enum worker_end worker_end_judge(const struct worker_end_facts *f, char *words, size_t size)
{
	const struct worker_end_record *r = f->record;

	if (r && *r->failed) {
		snprintf(words, size, "the worker was not started: %s", r->failed);
		return WORKER_END_ERROR;
	}
	if (r)
		return r->signalled ? judge_signal(f, words, size) : judge_status(r, words, size);
	if (f->killed) {
		snprintf(words, size, "the worker was killed by the service");
		return WORKER_END_CRASH;
	}
	if (f->out_of_memory) /* and its keeper with it */
		return judge_memory(words, size);
	if (!strcmp(f->state, "off")) {
		snprintf(words, size, "powered off");
		return WORKER_END_OFF;
	}
	snprintf(words, size, "nobody knows how the worker ended: %s",
		 f->why ? f->why : "its keeper ended before it");
	return WORKER_END_LOST;
}
