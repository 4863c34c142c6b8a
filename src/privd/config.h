/* SPDX-License-Identifier: MIT */
/* partita-privd's configuration file, partita-privd(8): what root allows the service. */
#pragma once

#include "privd/operation.h"

/* A file that is missing allows nothing. One that others than its owner may write is refused. */
int config_read(struct privd_config *c, const char *path, struct error *err) _must_check_;
void config_deinit(struct privd_config *c);
