// SPDX-License-Identifier: MIT
/* See rest.h: puts the parts together. */
#include "rest/rest.h"
#include "lib/cleanup.h"
#include "rest/api.h"
#include "rest/auth.h"
#include "rest/remote.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#define BACKLOG 512

struct rest {
	struct api *api;
	struct auth *auth;
	struct http *http;
	struct remote *remote;
	char *socket;
};

/* Whether a socket was there that nobody listens on; it is gone then. */
static bool remove_stale(const struct sockaddr_un *address)
{
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct stat st;

	if (fd < 0 || lstat(address->sun_path, &st) < 0 || !S_ISSOCK(st.st_mode))
		return false;
	if (!connect(fd, (const struct sockaddr *)address, sizeof(*address)) ||
	    errno != ECONNREFUSED)
		return false;
	return !unlink(address->sun_path);
}

static int unix_listen(const char *path, mode_t mode, struct error *err)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int r;

	if (fd < 0)
		return error_errno(err, -errno, "cannot make a socket");
	if (strlen(path) >= sizeof(address.sun_path))
		return error_set(err, -ENAMETOOLONG, "socket path \"%s\" is longer than %zu bytes",
				 path, sizeof(address.sun_path) - 1);
	strcpy(address.sun_path, path);
	/* nobody connects before it has its mode: until listen() they are refused */
	r = bind(fd, (struct sockaddr *)&address, sizeof(address));
	if (r < 0 && errno == EADDRINUSE && remove_stale(&address))
		r = bind(fd, (struct sockaddr *)&address, sizeof(address));
	if (r < 0 && errno == EADDRINUSE)
		return error_set(err, -EADDRINUSE, "\"%s\" exists, and is in use or no socket",
				 path);
	if (r < 0 || chmod(path, mode) < 0 || listen(fd, BACKLOG) < 0)
		return error_errno(err, -errno, "cannot listen at \"%s\"", path);
	return steal_fd(&fd);
}

static int serve(struct daemon *d, const struct rest_options *o, struct rest *rest,
		 struct error *err)
{
	int fd, r;

	if (o->socket) {
		fd = unix_listen(o->socket, d->user ? 0600 : 0666, err);
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
		r = auth_new(d, o->password ? o->password : auth_pam, &rest->auth, err);
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
