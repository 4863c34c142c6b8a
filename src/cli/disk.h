/* SPDX-License-Identifier: MIT */
/* What the verbs of `partita disk` share: disk.c has the simple ones, disk_files.c those that open
 * or make files. */
#pragma once

#include "cli/cli.h"
#include "cli/control.h"

struct disk_place {
	unsigned controller, lun;
};

struct disk_options {
	const char *control, *vm, *host, *image;
	unsigned seconds; /* 0 = not said */
	uint32_t block_size;
	bool json, track, delete, background;
};

struct disk_run {
	struct control_client client;
	struct disk_options o;
	struct error err;
};

/* "0:1". What follows it is *ret_rest, or with NULL an error. */
int disk_place_parse(const char *text, struct disk_place *ret, const char **ret_rest,
		     struct error *err) _must_check_;
json_t *disk_place_json(const struct disk_place *place);
/* {"command": name, "disk": place}. */
json_t *disk_request(const char *name, const struct disk_place *place);
void disk_print_json(json_t *value); /* which is this function's */
/* The disk's part of disk-query's answer; the caller's. */
int disk_query(struct disk_run *run, const struct disk_place *place, unsigned chain_from,
	       json_t **ret) _must_check_;

int disk_snapshot(struct disk_run *run, int count, char **words);
int disk_merge(struct disk_run *run, int count, char **words);
int disk_track_begin(struct disk_run *run, const struct disk_place *place);
int disk_track_end(struct disk_run *run, const struct disk_place *place);
