// SPDX-License-Identifier: MIT
/* Errors, GUIDs, cursors, programs, folders, descriptors: the edges that their users rely on. */
#include "lib/cursor.h"
#include "lib/error.h"
#include "lib/folder.h"
#include "lib/guid.h"
#include "lib/log.h"
#include "lib/program.h"
#include "lib/unix_socket.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static void test_error_prefix_keeps_the_cause(void **state)
{
	struct error err = { 0 };

	(void)state;
	assert_int_equal(error_set(&err, -EINVAL, "bad %s", "size"), -EINVAL);
	assert_int_equal(error_prefix(&err, "disk %d", 2), -EINVAL);
	assert_string_equal(err.message, "disk 2: bad size");
	assert_int_equal(error_set(NULL, -EIO, "nobody reads this"), -EIO);
	for (int i = 0; i < 100; i++)
		error_prefix(&err, "a long chain of context");
	assert_int_equal(err.message[sizeof(err.message) - 1], 0);
}

static void test_guid_layout(void **state)
{
	static const struct guid scsi =
		GUID(0xba6163d9, 0x04a1, 0x4d29, 0xb6, 0x05, 0x72, 0xe2, 0xff, 0xb1, 0xdc, 0x7f);
	char text[GUID_TEXT_SIZE];
	struct guid g;

	(void)state;
	assert_int_equal(scsi.b[0], 0xd9);
	assert_string_equal(guid_format(&scsi, text), "ba6163d9-04a1-4d29-b605-72e2ffb1dc7f");
	assert_int_equal(guid_parse("{BA6163D9-04A1-4D29-B605-72E2FFB1DC7F}", &g), 0);
	assert_true(guid_equal(&g, &scsi));
	assert_int_equal(guid_parse("ba6163d9-04a1-4d29-b605-72e2ffb1dc7", &g), -EINVAL);
	assert_int_equal(guid_parse("ba6163d9-04a1-4d29-b605-72e2ffb1dc7f0", &g), -EINVAL);
	assert_int_equal(guid_parse("{ba6163d9-04a1-4d29-b605-72e2ffb1dc7f", &g), -EINVAL);
	assert_int_equal(guid_parse("", &g), -EINVAL);
	g = guid_random();
	assert_false(guid_is_zero(&g));
}

static void test_cursor_overrun_sticks(void **state)
{
	const uint8_t bytes[] = { 1, 2, 3, 4, 5 };
	struct reader r = reader_of(bytes, sizeof(bytes));
	uint8_t out[3];
	struct writer w = writer_of(out, sizeof(out));

	(void)state;
	assert_int_equal(reader_le32(&r), 0x04030201);
	assert_int_equal(reader_le16(&r), 0);
	assert_false(reader_ok(&r));
	assert_int_equal(reader_u8(&r), 0);
	assert_int_equal(reader_left(&r), 0);
	writer_be16(&w, 0x0102);
	writer_le16(&w, 7);
	assert_false(writer_ok(&w));
	assert_int_equal(out[0], 1);
	assert_int_equal(out[1], 2);
}

static void test_log_limit(void **state)
{
	struct log_limit limit = { 0 };
	unsigned allowed = 0, dropped = 0, left_out;

	(void)state;
	for (int i = 0; i < 1000; i++)
		allowed += log_allowed(&limit, &left_out);
	/* At most two seconds' worth, if the clock moved on meanwhile. */
	assert_in_range(allowed, LOG_LIMIT_PER_SECOND, 2 * LOG_LIMIT_PER_SECOND);
	limit.window--;
	assert_true(log_allowed(&limit, &dropped));
	assert_true(dropped > 0);
}

static void test_programs_are_found(void **state)
{
	char path[PATH_MAX], here[PATH_MAX], long_folder[PATH_MAX + 2];
	struct error err = { 0 };

	(void)state;
	unsetenv("PARTITA_LIBEXEC");
	assert_int_equal(program_find("lib_test", NULL, path, &err), 0);
	assert_non_null(realpath(path, here));
	*strrchr(here, '/') = 0;
	assert_int_equal(program_find("lib_test", "../lib", path, &err), 0);
	assert_int_equal(program_find("no-such-program", "..", path, &err), -ENOENT);
	/* The variable's folder is the only one. */
	setenv("PARTITA_LIBEXEC", here, 1);
	assert_int_equal(program_find("lib_test", NULL, path, &err), 0);
	setenv("PARTITA_LIBEXEC", "/nowhere", 1);
	assert_int_equal(program_find("lib_test", NULL, path, &err), -ENOENT);
	assert_string_equal(err.message, "lib_test is not in /nowhere");
	memset(long_folder, '/', sizeof(long_folder) - 1);
	long_folder[sizeof(long_folder) - 1] = 0;
	setenv("PARTITA_LIBEXEC", long_folder, 1);
	assert_int_equal(program_find("lib_test", NULL, path, &err), -ENOENT);
	unsetenv("PARTITA_LIBEXEC");
}

static void test_folders_are_made(void **state)
{
	char top[] = "/tmp/lib-test-XXXXXX", path[64];
	struct error err = { 0 };
	struct stat st;

	(void)state;
	assert_non_null(mkdtemp(top));
	snprintf(path, sizeof(path), "%s/a/b", top);
	assert_int_equal(folder_make_all(path, &err), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0700);
	assert_int_equal(chmod(path, 0750), 0);
	assert_int_equal(folder_make_all(path, &err), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0750);
	assert_int_equal(rmdir(path), 0);
	assert_int_equal(close(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600)), 0);
	snprintf(path, sizeof(path), "%s/a/b/c", top);
	assert_int_equal(folder_make_all(path, &err), -ENOTDIR);
	assert_non_null(strstr(err.message, "/a/b/c"));
	snprintf(path, sizeof(path), "%s/a/b", top);
	assert_int_equal(unlink(path), 0);
	snprintf(path, sizeof(path), "%s/a", top);
	assert_int_equal(rmdir(path), 0);
	assert_int_equal(rmdir(top), 0);
}

static void test_a_description_has_a_limit(void **state)
{
	struct error err = { 0 };
	char *text;
	size_t size;
	int p[2];

	(void)state;
	for (size_t extra = 0; extra < 2; extra++) {
		int wanted = extra ? -EFBIG : 0;

		assert_int_equal(pipe2(p, O_CLOEXEC), 0);
		assert_int_equal(write(p[1], "abcde", 4 + extra), 4 + extra);
		close(p[1]);
		assert_int_equal(program_description(p[0], 4, &text, &size, &err), wanted);
		close(p[0]);
		if (extra)
			continue;
		assert_int_equal(size, 4);
		assert_memory_equal(text, "abcd", 4);
		free(text);
	}
	assert_int_equal(program_description(-1, 4, &text, &size, &err), -EBADF);
}

/* Those that there is room for, behind those from before; the rest does not stay open. */
static void test_descriptors_go_over_sockets(void **state)
{
	int pair[2], three[3] = { 0, 1, 2 }, room[3] = { -1, -1, -1 }, next;
	struct unix_fds fds = { room, 1, 3, false };
	char bytes[8];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(unix_send(pair[0], "ab", 2, three, 3, 0), 2);
	assert_int_equal(unix_receive(pair[1], bytes, sizeof(bytes), &fds, 0), 2);
	assert_int_equal(fds.count, 3);
	assert_true(fds.lost);
	next = dup(0);
	assert_int_equal(room[0], -1);
	for (unsigned i = 1; i < 3; i++) {
		assert_int_equal(fcntl(room[i], F_GETFD), FD_CLOEXEC);
		close(room[i]);
	}
	assert_int_equal(next, room[2] + 1);
	close(next);
	fds = (struct unix_fds){ room, 0, 3, false };
	assert_int_equal(unix_send(pair[0], "c", 1, NULL, 0, 0), 1);
	assert_int_equal(unix_receive(pair[1], bytes, sizeof(bytes), &fds, 0), 1);
	assert_int_equal(fds.count, 0);
	assert_false(fds.lost);
	assert_int_equal(unix_send(pair[0], "c", 1, three, UNIX_FDS_MAX + 1, 0), -1);
	assert_int_equal(errno, EMSGSIZE);
	close(pair[0]);
	assert_int_equal(unix_receive(pair[1], bytes, sizeof(bytes), &fds, 0), 0);
	assert_int_equal(unix_send(pair[1], "d", 1, NULL, 0, 0), -1);
	assert_int_equal(errno, EPIPE);
	close(pair[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_error_prefix_keeps_the_cause),
		cmocka_unit_test(test_guid_layout),
		cmocka_unit_test(test_cursor_overrun_sticks),
		cmocka_unit_test(test_log_limit),
		cmocka_unit_test(test_programs_are_found),
		cmocka_unit_test(test_folders_are_made),
		cmocka_unit_test(test_a_description_has_a_limit),
		cmocka_unit_test(test_descriptors_go_over_sockets),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
