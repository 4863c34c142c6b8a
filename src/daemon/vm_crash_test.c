// SPDX-License-Identifier: MIT
/*
 * Changes that are cut off. A child makes one change and is killed, under ptrace, right before its
 * N-th system call that changes a file system, for N = 1, 2, 3 ... until it gets through; then
 * right after each; then it is not killed, but from the N-th on there is no room on the disk. Then
 * a new service looks at what is left: it must be the old or the new state, nothing broken, no
 * folder that nobody knows; and the new one if that was acknowledged.
 */
#include "daemon/vm_testing.h"

#include "daemon/vm_file.h"

#include <dirent.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>

/* What changes files or makes that durable; memory-mapped writes of SQLite's index are not. */
static const int writing[] = {
	SYS_write,    SYS_pwrite64,  SYS_writev, SYS_pwritev,  SYS_ftruncate, SYS_fallocate,
	SYS_fsync,    SYS_fdatasync, SYS_rename, SYS_renameat, SYS_renameat2, SYS_unlink,
	SYS_unlinkat, SYS_rmdir,     SYS_mkdir,  SYS_mkdirat,  SYS_open,      SYS_openat,
	SYS_creat,    SYS_link,      SYS_linkat, SYS_symlink,  SYS_fchmod,    SYS_msync,
};

static bool is_writing(uint64_t nr, uint64_t flags)
{
	if (nr == SYS_open || nr == SYS_openat)
		return flags & (O_CREAT | O_TRUNC);
	for (size_t i = 0; i < ARRAY_SIZE(writing); i++)
		if (nr == (uint64_t)writing[i])
			return true;
	return false;
}

/* --- the changes --- */

static int create(struct test *t, const char *folder, const char *key)
{
	json_t *settings = quoted(key || folder ? "{'name':'new'}" : "{'name':'new','notes':'n'}");
	char path[256];
	struct vm *vm;
	int r;

	snprintf(path, sizeof(path), "%s/%s", t->folder, folder ? folder : "");
	r = vm_create(t->d, &ada, settings, folder ? path : NULL, key, &vm, NULL);
	json_decref(settings);
	return r;
}

static int change_create(struct test *t)
{
	return create(t, NULL, NULL);
}

static int change_create_keyed(struct test *t)
{
	return create(t, NULL, "key");
}

static int change_create_in_folder(struct test *t)
{
	return create(t, "given", NULL);
}

static struct vm *first(struct test *t)
{
	return list_first(&t->d->vms, struct vm, node);
}

static int change_settings(struct test *t)
{
	return change(first(t), &ada, "{'name':'changed','notes':'new','memory':{'startup':77}}", 0,
		      NULL);
}

static int change_remove(struct test *t)
{
	return vm_remove(t->d, &ada, first(t), true, NULL);
}

static int change_forget(struct test *t)
{
	return vm_remove(t->d, &ada, first(t), false, NULL);
}

static int enter(struct test *t, bool new_id)
{
	struct vm *vm;
	char folder[256];

	snprintf(folder, sizeof(folder), "%s/given", t->folder);
	return vm_register(t->d, &ada, folder, new_id, &vm, NULL);
}

static int change_register(struct test *t)
{
	return enter(t, false);
}

static int change_register_anew(struct test *t)
{
	return enter(t, true);
}

/* The state as one line: names, notes, memory, and the last part of the folder. */
static void describe(struct test *t, char *ret, size_t size)
{
	size_t n = 0;

	ret[0] = '\0';
	list_foreach(it, &t->d->vms)
	{
		const struct vm *vm = list_entry(it, struct vm, node);

		n += (size_t)snprintf(ret + n, size - n, "%s,%s,%u,%s;", vm->settings.name,
				      vm->settings.notes, vm->settings.memory.startup,
				      strrchr(vm->folder, '/') + 1);
	}
}

/* --- the child --- */

enum fault {
	KILL_BEFORE,
	KILL_AFTER,
	DISK_FULL,
	FAULT_COUNT,
};

enum outcome {
	OUTCOME_THROUGH, /* there was no N-th call */
	OUTCOME_KILLED,
	OUTCOME_DONE, /* it was met, and the change was made all the same */
	OUTCOME_REFUSED,
};

#define EXIT_REFUSED 3

static bool needs_room(uint64_t nr)
{
	return nr == SYS_write || nr == SYS_pwrite64 || nr == SYS_writev || nr == SYS_pwritev ||
	       nr == SYS_fallocate || nr == SYS_mkdir || nr == SYS_mkdirat || nr == SYS_openat;
}

static int wait_for(pid_t pid)
{
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

/* The call that is entered is left out, and has failed. */
static void refuse_call(pid_t pid)
{
	ptrace(PTRACE_POKEUSER, pid, offsetof(struct user, regs.orig_rax), -1L);
	ptrace(PTRACE_SYSCALL, pid, NULL, NULL);
	wait_for(pid);
	ptrace(PTRACE_POKEUSER, pid, offsetof(struct user, regs.rax), (long)-ENOSPC);
}

/* Whether the call that is entered is one that counts. */
static bool counts(pid_t pid, enum fault fault)
{
	struct __ptrace_syscall_info info;
	uint64_t nr, flags;

	assert_true(ptrace(PTRACE_GET_SYSCALL_INFO, pid, sizeof(info), &info) > 0);
	nr = info.entry.nr;
	flags = info.entry.args[nr == SYS_open ? 1 : 2];
	return info.op == PTRACE_SYSCALL_INFO_ENTRY && is_writing(nr, flags) &&
	       (fault != DISK_FULL || needs_room(nr));
}

static enum outcome end_killed(pid_t pid)
{
	kill(pid, SIGKILL);
	wait_for(pid);
	return OUTCOME_KILLED;
}

static enum outcome run_faulty(pid_t pid, unsigned n, enum fault fault)
{
	unsigned count = 0;
	int status = wait_for(pid);

	assert_true(WIFSTOPPED(status));
	ptrace(PTRACE_SETOPTIONS, pid, NULL, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
	for (;;) {
		ptrace(PTRACE_SYSCALL, pid, NULL, NULL);
		status = wait_for(pid);
		if (WIFEXITED(status))
			break;
		assert_true(WIFSTOPPED(status));
		if (WSTOPSIG(status) != (SIGTRAP | 0x80) || !counts(pid, fault) || ++count < n)
			continue;
		if (fault == DISK_FULL) {
			refuse_call(pid);
			continue;
		}
		if (fault == KILL_AFTER) {
			ptrace(PTRACE_SYSCALL, pid, NULL, NULL);
			wait_for(pid);
		}
		return end_killed(pid);
	}
	if (WEXITSTATUS(status) != 0 && WEXITSTATUS(status) != EXIT_REFUSED)
		fail_msg("the child ended with %d", WEXITSTATUS(status));
	if (WEXITSTATUS(status) == EXIT_REFUSED)
		return OUTCOME_REFUSED;
	return count < n ? OUTCOME_THROUGH : OUTCOME_DONE;
}

/* The service is opened before the counting begins: it is the change that is cut off. */
static pid_t start_child(struct test *t, int (*change)(struct test *t))
{
	char before[512], after[512];
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid)
		return pid;
	test_begin(t);
	describe(t, before, sizeof(before));
	ptrace(PTRACE_TRACEME, 0, NULL, NULL);
	raise(SIGSTOP);
	if (change(t) == 0)
		_exit(0); /* acknowledged: from here on it must be there */
	/* What was refused has changed nothing in this service either. */
	describe(t, after, sizeof(after));
	_exit(strcmp(before, after) ? 4 : EXIT_REFUSED);
}

/* --- what is left --- */

/* Each folder below `path` with a vm.json, or with a name of ours, is a machine's. */
static void assert_no_orphans(struct test *t, const char *path)
{
	DIR *d = opendir(path);
	const struct dirent *e;

	while (d && (e = readdir(d))) {
		char folder[512];
		bool known = false;

		if (e->d_name[0] == '.' && strncmp(e->d_name, ".partita", 8))
			continue;
		snprintf(folder, sizeof(folder), "%s/%s", path, e->d_name);
		list_foreach(it, &t->d->vms) known |=
			!strcmp(list_entry(it, struct vm, node)->folder, folder);
		if (!known)
			fail_msg("nobody knows %s", folder);
	}
	if (d)
		closedir(d);
}

static void assert_sound(struct test *t, bool forgets)
{
	char path[256];

	list_foreach(it, &t->d->vms)
	{
		struct vm *vm = list_entry(it, struct vm, node);

		if (vm->broken.code)
			fail_msg("%s is broken: %s", vm->settings.name, vm->broken.message);
		snprintf(path, sizeof(path), "%s/vm.json.new", vm->folder);
		assert_int_equal(access(path, F_OK), -1);
	}
	snprintf(path, sizeof(path), "%s/state/machines", t->folder);
	if (!forgets)
		assert_no_orphans(t, path);
}

static void prepare_one(struct test *t)
{
	char path[256];
	FILE *f;

	make(t, "{'name':'old','notes':'o'}");
	snprintf(path, sizeof(path), "%s/disk", first(t)->folder);
	f = fopen(path, "w");
	assert_non_null(f);
	fclose(f);
}

static void prepare_folder(struct test *t)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/given", t->folder);
	assert_int_equal(mkdir(path, 0700), 0);
}

static void prepare_unregistered(struct test *t)
{
	struct vm *vm;
	json_t *settings = quoted("{'name':'given'}");
	char path[256];

	prepare_folder(t);
	snprintf(path, sizeof(path), "%s/given", t->folder);
	assert_int_equal(vm_create(t->d, &ada, settings, path, NULL, &vm, NULL), 0);
	assert_int_equal(vm_remove(t->d, &ada, vm, false, NULL), 0);
	json_decref(settings);
}

static void prepare_nothing(struct test *t)
{
	(void)t;
}

static const struct scenario {
	const char *name;
	void (*prepare)(struct test *t);
	int (*change)(struct test *t);
	const char *old, *new;
	bool forgets; /* a folder that nobody knows is what is wanted */
} scenarios[] = {
	{ "create", prepare_one, change_create, "old,o,1024,old;",
	  "new,n,1024,new;old,o,1024,old;" },
	{ "create with a key", prepare_nothing, change_create_keyed, "", "new,,1024,new;" },
	{ "create in a folder", prepare_folder, change_create_in_folder, "", "new,,1024,given;" },
	{ "change", prepare_one, change_settings, "old,o,1024,old;", "changed,new,77,old;" },
	{ "remove", prepare_one, change_remove, "old,o,1024,old;", "" },
	{ "forget", prepare_one, change_forget, "old,o,1024,old;", "", true },
	{ "register", prepare_unregistered, change_register, "", "given,,1024,given;" },
	{ "register with a new id", prepare_unregistered, change_register_anew, "",
	  "given,,1024,given;" },
};

/* One attempt in a folder of its own. */
static enum outcome attempt(const struct scenario *s, unsigned n, enum fault fault, bool *ret_new)
{
	struct test t = { 0 };
	enum outcome outcome;
	void *folder;
	char left[512];

	assert_int_equal(test_folder_setup(&folder), 0);
	t.folder = folder;
	fake_reset();
	test_begin(&t);
	s->prepare(&t);
	test_end(&t);
	outcome = run_faulty(start_child(&t, s->change), n, fault);
	test_begin(&t);
	assert_sound(&t, s->forgets);
	describe(&t, left, sizeof(left));
	*ret_new = !strcmp(left, s->new);
	if (!*ret_new && strcmp(left, s->old))
		fail_msg("%s, fault %u at call %u: \"%s\"", s->name, fault, n, left);
	if (!*ret_new && (outcome == OUTCOME_THROUGH || outcome == OUTCOME_DONE))
		fail_msg("%s, fault %u at call %u: acknowledged, and not there", s->name, fault, n);
	if (*ret_new && outcome == OUTCOME_REFUSED)
		fail_msg("%s, fault %u at call %u: refused, and there", s->name, fault, n);
	test_again(&t);
	assert_sound(&t, s->forgets);
	describe(&t, left, sizeof(left));
	assert_string_equal(left, *ret_new ? s->new : s->old);
	test_end(&t);
	assert_int_equal(test_folder_teardown(&folder), 0);
	return outcome;
}

static unsigned run_scenario(const struct scenario *s, enum fault fault)
{
	static const char *const names[] = { "killed before", "killed after", "no room from" };
	unsigned n = 1, olds = 0, news = 0, refused = 0;
	bool is_new, was_new = false;
	enum outcome outcome;

	while ((outcome = attempt(s, n, fault, &is_new)) != OUTCOME_THROUGH) {
		olds += !is_new;
		news += is_new;
		refused += outcome == OUTCOME_REFUSED;
		/* What was the new state once does not become the old one again. */
		assert_true(is_new || !was_new);
		was_new = is_new;
		n++;
	}
	printf("%s, %s each of %u calls: old %u times, new %u, refused %u\n", s->name, names[fault],
	       n - 1, olds, news, refused);
	assert_true(olds > 0);
	assert_true(fault != DISK_FULL || refused > 0);
	return n - 1;
}

static void test_cut_off_at_every_call(void **state)
{
	unsigned points = 0;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(scenarios); i++)
		for (enum fault fault = 0; fault < FAULT_COUNT; fault++)
			points += run_scenario(&scenarios[i], fault);
	printf("%u times\n", points);
	assert_true(points > 300);
}

static int setup(void **state)
{
	(void)state;
	/* Every attempt flushes; in memory that is free, and what is killed is the process alone.
	 */
	return access("/dev/shm", W_OK) == 0 ? setenv("TMPDIR", "/dev/shm", 1) : 0;
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cut_off_at_every_call),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
