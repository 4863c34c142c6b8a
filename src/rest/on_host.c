// SPDX-License-Identifier: MIT
/* /host: what the service tells of it, with how it stands with TLS. */
#include "daemon/host.h"
#include "rest/api.h"
#include "rest/remote.h"

#include <errno.h>

static int answer_host(struct call *call, struct error *err)
{
	char etag[ETAG_SIZE];
	json_t *json;
	int r = host_json(call->d, call->caller, &json, err);

	if (r < 0)
		return r;
	json_object_set_new(json, "revision", json_integer((json_int_t)call->d->host_revision));
	if (call->api->remote)
		json_object_set_new(json, "remote", remote_json(call->api->remote));
	etag_of_revision(call->d->host_revision, etag);
	return call_answer_etag(call, 200, json, etag);
}

int get_host(struct call *call, struct error *err)
{
	return answer_host(call, err);
}

int patch_host(struct call *call, struct error *err)
{
	char etag[ETAG_SIZE];
	int r;

	etag_of_revision(call->d->host_revision, etag);
	r = call_if_match(call, etag, err);
	if (r >= 0)
		r = host_change(call->d, call->caller, call->body, 0, err);
	if (r < 0)
		return r;
	if (call->api->remote && json_object_get(call->body, "remote"))
		remote_apply(call->api->remote);
	return answer_host(call, err);
}
