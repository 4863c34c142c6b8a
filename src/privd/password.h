/* SPDX-License-Identifier: MIT */
/* A user's name and password, asked of PAM. */
#pragma once

/*
 * As the service "partita"; `address` is where the user sits. It blocks, and reads what only root
 * may. 0 or -EACCES, whatever was wrong.
 */
int password_check(const char *user, const char *password, const char *address);
