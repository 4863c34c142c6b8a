/* SPDX-License-Identifier: MIT */
/* What `vhd convert` consists of beside the copy itself. */
#pragma once

#include "lib/error.h"
#include "lib/types.h"

/* --- external.c: formats that another program reads --- */

/* "qcow2", "vmdk", "vdi" by the file's first bytes, or NULL. */
const char *external_format(const char *path);
/* Makes the raw image `to` of an image of that format; says on standard error by what. */
int external_to_raw(const char *from, const char *format, const char *to,
		    struct error *err) _must_check_;

/* --- resume.c: how far an interrupted copy is --- */

struct resume {
	char path[4096];    /* of the state's file */
	char identity[512]; /* of what is copied and of what is made of it; one line */
};

/* The state lies beside `partial`. `what` describes what is made. */
int resume_init(struct resume *r, const char *source, const char *partial, const char *what,
		struct error *err) _must_check_;
/* Bytes that are durable in the partial image; 0 when it is none of this copy, or not there. */
uint64_t resume_load(const struct resume *r);
/* Durably; a failure only costs the chance to resume. */
void resume_save(const struct resume *r, uint64_t done);
void resume_forget(const struct resume *r);
