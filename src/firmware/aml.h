/* SPDX-License-Identifier: MIT */
/*
 * A small writer of ACPI Machine Language (ACPI 20): just what describes a machine, no logic. It
 * writes into the caller's buffer; what does not fit sets the writer's overrun flag.
 *
 * Objects that contain others are opened by a function that returns a mark, and closed with
 * aml_end(a, mark), innermost first. Names are exactly four characters ("COM1", "_STA") and
 * relative to the enclosing object; outside of all objects that is the root.
 */
#pragma once

#include "lib/cursor.h"
#include "lib/error.h"

struct aml {
	struct writer w;
};

size_t aml_scope(struct aml *a, const char *name) _must_check_;
size_t aml_device(struct aml *a, const char *name) _must_check_;
size_t aml_package(struct aml *a, uint8_t elements) _must_check_;
void aml_end(struct aml *a, size_t mark);

/* Followed by a data object: integer, string, package or resources. */
void aml_name(struct aml *a, const char *name);

void aml_integer(struct aml *a, uint64_t value);
void aml_string(struct aml *a, const char *text);
void aml_eisa_id(struct aml *a, const char *id); /* "PNP0501" as the integer that it stands for */

/* A resource template: between these two stand only resource descriptors. */
size_t aml_resources(struct aml *a) _must_check_;
void aml_resources_end(struct aml *a, size_t mark);

void aml_io_ports(struct aml *a, uint16_t base, uint8_t count);
void aml_edge_interrupt(struct aml *a, uint32_t gsi);
/* Memory windows that the device hands out to those below it (ResourceProducer). */
void aml_memory_window32(struct aml *a, uint32_t base, uint32_t size);
void aml_memory_window64(struct aml *a, uint64_t base, uint64_t size);
