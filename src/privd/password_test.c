// SPDX-License-Identifier: MIT
/*
 * Passwords against PAM's own modules: pam_unix, with users, shadow and /etc/pam.d of this test
 * mounted over the host's, in a name space of its own. (nss_wrapper does not wrap getspnam_r, which
 * PAM's modules call.) Without root it is skipped.
 */
#include "privd/password.h"

#include "lib/cleanup.h"
#include "lib/sandbox.h"
#include "lib/types.h"

#include <errno.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mount.h>
#include <time.h>

#include <cmocka.h>

#define RIGHT "right horse"
/* crypt(3)'s of it */
#define HASH                                                                                       \
	"$6$partitatest$ukzLlxVTwrWKEDns04MuJGvg285VfB2j2mEc6/Bj8h5WA"                             \
	"z0CrZ5QWXBYkEokbrjvTqTs2Bl/RFvTS2pkR/vX5/"

/* packaging/partita.pam */
#define PARTITA_PAM "auth required pam_unix.so\naccount required pam_unix.so\n"

#define USER(name, id) name ":x:" #id ":65534::/:/bin/sh\n"

/* Days since 1970: changed long ago and never expiring; expired on the first day; to be changed. */
static const char users[] = USER("ada", 65001) USER("bob", 65002) USER("eve", 65003)
	USER("dan", 65004) USER("kim", 65005);
static const char shadow[] = "ada:" HASH ":19000:0:99999:7:::\n"
			     "bob:" HASH ":19000:0:99999:7::1:\n"
			     "eve:!" HASH ":19000:0:99999:7:::\n"
			     "dan:" HASH ":0:0:99999:7:::\n"
			     "kim::19000:0:99999:7:::\n";

static void test_the_right_password_is_taken(void **state)
{
	(void)state;
	assert_int_equal(password_check("ada", RIGHT, "192.0.2.1"), 0);
}

static void test_a_wrong_password_is_refused(void **state)
{
	static const char *const wrong[] = { "", "right", "right horse ", "Right horse", HASH };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
		assert_int_equal(password_check("ada", wrong[i], "192.0.2.1"), -EACCES);
}

static void test_an_unknown_user_is_refused(void **state)
{
	(void)state;
	assert_int_equal(password_check("nobody-there", RIGHT, "192.0.2.1"), -EACCES);
	assert_int_equal(password_check("", RIGHT, "192.0.2.1"), -EACCES);
}

static void test_an_account_that_has_expired_is_refused(void **state)
{
	(void)state;
	assert_int_equal(password_check("bob", RIGHT, "192.0.2.1"), -EACCES);
}

static void test_a_locked_account_is_refused(void **state)
{
	(void)state;
	assert_int_equal(password_check("eve", RIGHT, "192.0.2.1"), -EACCES);
}

static void test_a_password_that_must_be_changed_is_refused(void **state)
{
	(void)state;
	assert_int_equal(password_check("dan", RIGHT, "192.0.2.1"), -EACCES);
}

static void test_no_password_is_no_way_in(void **state)
{
	(void)state;
	assert_int_equal(password_check("kim", "", "192.0.2.1"), -EACCES);
}

/* PAM's own delay after a failure would hold a thread or process: the service delays itself. */
static void test_a_refusal_does_not_wait_in_here(void **state)
{
	struct timespec a, b;

	(void)state;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &a);
	assert_int_equal(password_check("ada", "wrong", "192.0.2.1"), -EACCES);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &b);
	/* it hashed the password, and did not only sleep */
	assert_true((b.tv_sec - a.tv_sec) * 1000000000 + b.tv_nsec - a.tv_nsec > 100000);
}

static int file_make(const char *folder, const char *name, const char *text)
{
	_cleanup_fclose_ FILE *file = NULL;
	char path[200];

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	file = fopen(path, "we");
	return file && fputs(text, file) >= 0 ? 0 : -1;
}

/* Ours stand where the host's were, for this process only. */
static int files_replace(const char *folder)
{
	static const struct {
		const char *name, *text, *target;
	} files[] = {
		{ "passwd", users, "/etc/passwd" },
		{ "shadow", shadow, "/etc/shadow" },
		{ "group", "nogroup:x:65534:\n", "/etc/group" },
		{ "other", "auth required pam_deny.so\naccount required pam_deny.so\n", NULL },
		{ "partita", PARTITA_PAM, NULL },
	};
	char path[200];

	for (size_t i = 0; i < ARRAY_SIZE(files); i++)
		if (file_make(folder, files[i].name, files[i].text) < 0)
			return -1;
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return 77;
	if (mount(folder, "/etc/pam.d", NULL, MS_BIND, NULL) < 0)
		return 77;
	for (size_t i = 0; i < ARRAY_SIZE(files) && files[i].target; i++) {
		snprintf(path, sizeof(path), "%s/%s", folder, files[i].name);
		if (mount(path, files[i].target, NULL, MS_BIND, NULL) < 0)
			return 77;
	}
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_the_right_password_is_taken),
		cmocka_unit_test(test_a_wrong_password_is_refused),
		cmocka_unit_test(test_an_unknown_user_is_refused),
		cmocka_unit_test(test_an_account_that_has_expired_is_refused),
		cmocka_unit_test(test_a_locked_account_is_refused),
		cmocka_unit_test(test_a_password_that_must_be_changed_is_refused),
		cmocka_unit_test(test_no_password_is_no_way_in),
		cmocka_unit_test(test_a_refusal_does_not_wait_in_here),
	};

	char folder[] = "/tmp/partita-pam-XXXXXX", line[64];
	int r;

	if (SANDBOX_SANITIZED) {
		puts("a sanitizer's crypt() finds no libcrypt behind it, as modules of PAM load "
		     "it");
		return 77;
	}
	if (geteuid()) {
		puts("only root can put other users into the place of the host's");
		return 77;
	}
	if (!mkdtemp(folder))
		return 1;
	r = files_replace(folder);
	if (r == 77)
		puts("there is no mount name space to be had here");
	else if (!r)
		r = cmocka_run_group_tests(tests, NULL, NULL);
	snprintf(line, sizeof(line), "rm -rf %s", folder);
	return system(line) ? 1 : r;
}
