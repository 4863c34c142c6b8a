/* SPDX-License-Identifier: MIT */
/* What those who start a worker know of it. */
#pragma once

enum worker_exit {
	WORKER_EXIT_OFF = 0,
	WORKER_EXIT_ERROR = 1,
	WORKER_EXIT_USAGE = 2,
	WORKER_EXIT_RESET = 3,
	WORKER_EXIT_SAVED = 4,
};
