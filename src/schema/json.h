/* SPDX-License-Identifier: MIT */
/* JSON trees of the JSON library, released when their variable goes out of scope. */
#pragma once

#include "lib/cleanup.h"

#include <jansson.h>

static inline void json_decref_p(json_t **json)
{
	json_decref(*json);
}

#define _cleanup_json_ _cleanup_(json_decref_p)
