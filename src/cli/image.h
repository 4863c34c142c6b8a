/* SPDX-License-Identifier: MIT */
/*
 * The catalogue of images: a folder with, for each image, its disk as NAME.vhdx, its metadata as
 * NAME.json, and the kernel and initial RAM disk that it is started with while there is no
 * firmware. And NoCloud seeds, which tell cloud-init in a guest who it is at its first boot.
 */
#pragma once

#include "cli/command.h"

/* GET /images/NAME: {name, file, size, changed, metadata}. */
int image_get(struct command *c, const char *name, json_t **ret) _must_check_;
/* The full path of one of its files ("disk", "kernel", "initrd"); NULL: it has none. */
char *image_file(const json_t *image, const char *key);

/* To a new file, durably. */
int image_copy_file(const char *from, const char *to, struct error *err) _must_check_;

struct seed {
	const char *instance; /* id: cloud-init does its work once for each */
	const char *hostname;
	const char *user; /* NULL: no user is made */
	const char *keys[32];
	unsigned key_count;
};
/* user-data and meta-data (the NoCloud data source), to be freed. NULL: no memory. */
char *seed_user_data(const struct seed *s);
char *seed_meta_data(const struct seed *s);
/* Whether a name of a user, or of a host, is one. */
bool seed_name_ok(const char *name);
/* Writes an ISO 9660 image labelled cidata, by genisoimage or xorriso. */
int seed_write(const struct seed *s, const char *path, struct error *err) _must_check_;
