// SPDX-License-Identifier: MIT
/* See place.h; the folders are those of the XDG Base Directory Specification. */
#include "cli/place.h"

#include "lib/cleanup.h"

#include <pwd.h>
#include <stdio.h>
#include <unistd.h>

static char *join(const char *folder, const char *rest)
{
	char *path;

	return folder && asprintf(&path, "%s/%s", folder, rest) >= 0 ? path : NULL;
}

/* Relative folders count as unset, as that specification says. */
static const char *folder_of(const char *variable)
{
	const char *folder = getenv(variable);

	return folder && *folder == '/' ? folder : NULL;
}

char *place_state(void)
{
	const char *state = folder_of("XDG_STATE_HOME"), *home = folder_of("HOME");
	const struct passwd *pw = home ? NULL : getpwuid(getuid());

	if (state)
		return join(state, "partita");
	return join(home ? home : pw ? pw->pw_dir : NULL, ".local/state/partita");
}

char *place_run(void)
{
	const char *run = folder_of("XDG_RUNTIME_DIR");
	_cleanup_free_ char *state = run ? NULL : place_state();

	return run ? join(run, "partita") : join(state, "run");
}

char *place_socket(void)
{
	_cleanup_free_ char *run = place_run();

	return join(run, "partitad.sock");
}
