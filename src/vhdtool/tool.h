/* SPDX-License-Identifier: MIT */
/*
 * What all verbs of `vhd` share. A verb's file is its table of options, its work, and at the end
 * its struct tool_verb, which main.c lists. Help, checks of arguments and the shell's completion
 * come from these tables. One thread.
 */
#pragma once

#include "vhd/disk.h"

#include <jansson.h>

/* Exit statuses. */
#define TOOL_OK      0
#define TOOL_FAILED  1
#define TOOL_USAGE   2
#define TOOL_DIFFERS 3 /* it worked, and the answer is bad: images differ, an image is damaged */

/* Type of the target in brackets. Texts are borrowed from argv. */
enum tool_argument {
	TOOL_FLAG,   /* [bool] no argument */
	TOOL_STRING, /* [const char *] */
	TOOL_FILE,   /* [const char *] completes file names */
	TOOL_FOLDER, /* [const char *] completes folders */
	TOOL_CHOICE, /* [const char *] `value` has the words: "raw|vhd|vhdx" */
	TOOL_SIZE,   /* [uint64_t] like 20G, not 0 */
	TOOL_NUMBER, /* [uint64_t] decimal */
	TOOL_LIST,   /* [struct tool_list] may be given several times; completes folders */
};

#define TOOL_LIST_MAX 32

struct tool_list {
	unsigned count;
	const char *items[TOOL_LIST_MAX + 1]; /* ends with NULL */
};

struct tool_option {
	const char *name; /* without dashes; NULL ends the table */
	enum tool_argument kind;
	void *target;      /* static memory of the verb */
	const char *value; /* what help calls the argument */
	const char *help;
	char letter; /* a short name: 'l' for -l; 0 = none */
};

struct tool_verb {
	const char *name;
	const char *synopsis; /* after the name: "IMAGE --socket PATH [OPTION...]" */
	const char *summary;
	const char *notes; /* end of the help, ends with a newline; may be NULL */
	const struct tool_option *options;
	unsigned arguments_min, arguments_max;
	bool hidden;
	/*
	 * An exit status, or a negative errno with words in err: status 1, and 2 for -EINVAL when
	 * nothing has been done yet and the arguments were wrong (tool_usage says so).
	 */
	int (*run)(unsigned count, char **arguments, struct error *err);
};

/* Prints "vhd VERB: message"; TOOL_FAILED. */
int tool_fail(const char *verb, const struct error *err);
/* For wrong arguments: `return tool_usage(err, "say --size")`; the status becomes 2. */
int tool_usage(struct error *err, const char *format, ...) _printf_(2, 3);
int tool_parse_size(const char *text, uint64_t *ret, struct error *err) _must_check_;
/* Prints indented, with a newline, and takes the reference. */
void tool_print_json(json_t *value);
/* Parses the options and runs the verb; argv[0] is its name. The exit status. */
int tool_run(const struct tool_verb *verb, int argc, char **argv);
/* The bash completion of all verbs, on standard output. */
void tool_print_completion(const struct tool_verb *const *verbs, unsigned count);

/* --- images --- */

/* How an image is opened; the common options below fill it. */
struct tool_image {
	const char *format; /* NULL = by content */
	bool direct, alone;
	bool server; /* the one disk of this process: see writes_block in vhd/store.h */
	struct tool_list search;
	enum disk_tracking tracking;
};

/* clang-format off */
#define TOOL_IMAGE_OPTIONS(image)                                                                  \
	{ "format", TOOL_CHOICE, &(image).format, "raw|vhd|vhdx", "format of the image (by content)" }, \
	{ "search", TOOL_LIST, &(image).search, "DIR", "look here too for a parent; repeatable" }, \
	{ "alone", TOOL_FLAG, &(image).alone, NULL, "open a differencing image without its parent" }, \
	{ "direct", TOOL_FLAG, &(image).direct, NULL, "past the page cache" }
/* clang-format on */

/* `image` may be NULL. Opens the file and the disk on it (disk_open), parents included. */
int tool_open(struct loop *loop, const char *path, bool read_only, const struct tool_image *image,
	      struct disk **ret, struct error *err) _must_check_;

/* --- long work --- */

/* From here on SIGINT and SIGTERM only set a flag. */
void tool_catch_signals(void);
bool tool_interrupted(void);
/*
 * Fits disk_copy_options.progress: a percentage on standard error when that is a terminal; false
 * after a caught signal. `context` is a text to put in front, or NULL.
 */
bool tool_progress(void *context, uint64_t done, uint64_t total);
void tool_progress_end(void); /* the line's end, if there is a line */
