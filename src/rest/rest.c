// SPDX-License-Identifier: MIT
/* See rest.h: puts the parts together. */
#include "rest/rest.h"
#include "lib/cleanup.h"
#include "lib/unix_socket.h"
#include "rest/api.h"
#include "rest/auth.h"
#include "rest/remote.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define BACKLOG 512

struct rest {
	struct api *api;
	struct auth *auth;
	struct http *http;
	struct remote *remote;
	char *socket;
};

static int serve(struct daemon *d, const struct rest_options *o, struct rest *rest,
		 struct error *err)
{
	int fd, r;

	if (o->socket) {
		fd = unix_listen(o->socket, d->user ? 0600 : 0666, BACKLOG, err);
		if (fd < 0)
			return fd;
		rest->socket = strdup(o->socket);
		r = http_listen(rest->http, fd, NULL, err);
		if (r < 0)
			return r;
	}
	r = remote_new(d, rest->http, o->tls_folder, &rest->remote, err);
	rest->api->remote = rest->remote;
	return r;
}

int rest_new(struct daemon *d, const struct rest_options *o, struct rest **ret, struct error *err)
{
	struct rest *rest = calloc(1, sizeof(*rest));
	struct http_options http = { .admit = api_admit,
				     .handle = api_handle,
				     .refuse = api_refuse,
				     .identity_free = auth_identity_free };
	int r;

	if (!rest)
		return error_errno(err, -ENOMEM, "cannot serve REST");
	r = api_new(d, &rest->api, err);
	if (r >= 0)
		r = auth_new(d, o->password, &rest->auth, err);
	http.context = rest->api;
	if (r >= 0)
		r = http_new(d->loop, &http, &rest->http, err);
	if (r >= 0) {
		rest->api->auth = rest->auth;
		rest->api->http = rest->http;
		r = serve(d, o, rest, err);
	}
	if (r < 0) {
		rest_free(rest);
		return r;
	}
	*ret = rest;
	return 0;
}

struct api *rest_api(struct rest *rest)
{
	return rest->api;
}

void rest_free(struct rest *rest)
{
	if (!rest)
		return;
	if (rest->socket)
		unlink(rest->socket);
	remote_free(rest->remote);
	if (rest->api)
		api_detach(rest->api);
	http_free(rest->http);
	auth_free(rest->auth);
	api_free(rest->api);
	free(rest->socket);
	free(rest);
}
