/* SPDX-License-Identifier: MIT */
/* The verbs, each at the end of its own file; main.c lists them in the order of the help. */
#pragma once

#include "vhdtool/tool.h"

extern const struct tool_verb verb_create;
extern const struct tool_verb verb_info;
extern const struct tool_verb verb_check;
extern const struct tool_verb verb_convert;
extern const struct tool_verb verb_map;
extern const struct tool_verb verb_compare;
extern const struct tool_verb verb_dump;
extern const struct tool_verb verb_compact;
extern const struct tool_verb verb_merge;
extern const struct tool_verb verb_rebase;
extern const struct tool_verb verb_resize;
extern const struct tool_verb verb_serve;
extern const struct tool_verb verb_share;
extern const struct tool_verb verb_track;
extern const struct tool_verb verb_mount;
extern const struct tool_verb verb_unmount;
extern const struct tool_verb verb_ls;
extern const struct tool_verb verb_cat;
extern const struct tool_verb verb_cp;
