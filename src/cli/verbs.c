// SPDX-License-Identifier: MIT
/* The verbs that do without the management service. */
#include "cli/command.h"

const struct cli_verb cli_verbs[] = {
	{ "run", "run one virtual machine in the foreground", cli_run, run_options, NULL },
	{ "disk", "change disks of a running machine", cli_disk, disk_options, disk_words },
	{ "save", "save a machine of `partita run` to a file", cli_save, save_options, NULL },
	{ "engines", "tell which engines can run virtual machines here", cli_engines, NULL, NULL },
	{ "completion", "print what shells need to complete words", cli_completion, NULL,
	  completion_words },
};
const unsigned cli_verb_count = ARRAY_SIZE(cli_verbs);
