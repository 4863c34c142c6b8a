/* SPDX-License-Identifier: MIT */
/*
 * Extended hypercalls with which a guest says what memory it does not use (HvExtCallMemoryHeatHint;
 * Linux calls it free page reporting). Called on VP threads.
 */
#pragma once

#include "engine/engine.h"
#include "partition/hv_proto.h"

/* HvExtCallQueryCapabilities: what of these calls there is. */
hv_status hint_query(struct gmem *gm, const struct vp_exit *x);
/* Pages that the guest calls cold go back to the host. *ret_bytes: how much that was. */
hv_status hint_discard(struct gmem *gm, const struct vp_exit *x, uint64_t *ret_bytes);
