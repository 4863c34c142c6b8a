/* SPDX-License-Identifier: MIT */
/*
 * For tests and fuzzers: a whole machine on engine fake, in this process and without a control
 * socket, whose memory and disk the test can look at.
 */
#pragma once

#include "lib/cleanup.h"
#include "save/save.h"
#include "worker/disks.h"
#include "worker/machine.h"
#include "worker/vm_description.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#define TEST_MEMORY UINT64_C(48) /* MiB */

struct test_machine {
	struct loop *loop;
	struct vm_description description;
	struct machine *m;
	int kernel, disk; /* memory files */
	bool saved;       /* machine_save has told how it went */
	int result;
	struct error error;
};

static inline void test_machine_must(bool there)
{
	if (!there)
		abort();
}

/* A memory file that the machine may take for its own. */
static inline int test_machine_file(const char *name, uint64_t size)
{
	int fd = memfd_create(name, MFD_CLOEXEC);

	test_machine_must(fd >= 0 && !ftruncate(fd, (off_t)size));
	return fd;
}

/* `state` -1: it boots. The machine has copies of the descriptors. */
static inline int test_machine_make(struct test_machine *t, int state, struct error *err)
{
	char text[512], path[64];
	int r;

	t->saved = false;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", t->kernel);
	snprintf(text, sizeof(text),
		 "{\"name\":\"t\",\"engine\":\"fake\",\"memory\":%d,\"processors\":2,"
		 "\"boot\":{\"kernel\":{\"path\":\"%s\"}},\"state\":{\"descriptor\":%d},"
		 "\"scsi\":[{\"drives\":[{\"lun\":0,\"format\":\"raw\",\"file\":{\"descriptor\":%d}"
		 "}]}]}",
		 (int)TEST_MEMORY, path, state < 0 ? -1 : dup(state), dup(t->disk));
	test_machine_must(loop_new(64, &t->loop, NULL) >= 0);
	test_machine_must(vm_description_parse(text, strlen(text), &t->description, NULL) >= 0);
	r = machine_new(t->loop, &t->description, &t->m, err);
	if (r >= 0)
		r = machine_start(t->m, err);
	return r;
}

static inline void test_machine_end(struct test_machine *t)
{
	struct error err;

	if (t->m && machine_state(t->m) != MACHINE_OFF &&
	    machine_command(t->m, MACHINE_POWER_OFF, &err) >= 0)
		while (machine_state(t->m) != MACHINE_OFF)
			test_machine_must(loop_once(t->loop, 1000) >= 0);
	machine_free(t->m);
	t->m = NULL;
	loop_free(t->loop);
	vm_description_deinit(&t->description);
}

static inline void test_machine_saved(void *context, int result, const struct error *err)
{
	struct test_machine *t = context;

	t->saved = true;
	t->result = result;
	t->error = *err;
}

static inline int test_machine_save(struct test_machine *t, int fd, struct error *err)
{
	const struct machine_save save = { dup(fd), test_machine_saved, t };
	int r = machine_save(t->m, &save, err);

	if (r < 0)
		close(save.fd);
	return r;
}

/* Until it is in that state, or off. */
static inline void test_machine_wait(struct test_machine *t, enum machine_state state)
{
	while (machine_state(t->m) != state && machine_state(t->m) != MACHINE_OFF)
		test_machine_must(loop_once(t->loop, 5000) >= 0);
}
