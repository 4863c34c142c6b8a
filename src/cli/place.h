/* SPDX-License-Identifier: MIT */
/* Where a user's own service keeps things. */
#pragma once

/* $XDG_STATE_HOME/partita, or ~/.local/state/partita; to be freed. NULL: no home, or no memory. */
char *place_state(void);
/* $XDG_RUNTIME_DIR/partita; without such a folder "run" in place_state. */
char *place_run(void);
/* The socket in place_run. */
char *place_socket(void);
