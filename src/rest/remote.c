// SPDX-License-Identifier: MIT
/*
 * See remote.h. A change of the settings closes the TCP socket and cuts its connections, then opens
 * it anew as the settings say. What stands in the way (a port in use, a damaged certificate) is
 * logged, an event, and part of GET /host; the Unix socket is not touched by it.
 */
#include "rest/remote.h"
#include "daemon/words.h"
#include "lib/cleanup.h"
#include "lib/log.h"
#include "rest/tls.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#define APPLY_MS UINT64_C(500)
#define BACKLOG  512

struct remote {
	struct daemon *d;
	struct http *http;
	char *tls_folder;
	struct loop_timer timer;
	bool listening;
	char fingerprint[3 * 32];
	struct error error; /* why it does not listen */
};

static void free_address(struct addrinfo **a)
{
	if (*a)
		freeaddrinfo(*a);
}

static int listen_at(const struct host_remote *o, struct error *err)
{
	_cleanup_(free_address) struct addrinfo *a = NULL;
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM,
				  .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE };
	_cleanup_close_ int fd = -1;
	char port[12];
	int on = 1, off = 0;

	snprintf(port, sizeof(port), "%lld", (long long)o->port);
	if (getaddrinfo(o->address, port, &hints, &a))
		return error_set(err, -EINVAL, "remote.address \"%.60s\" is no numeric address",
				 o->address);
	fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return error_errno(err, -errno, "cannot make a TCP socket");
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (a->ai_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
	if (bind(fd, a->ai_addr, a->ai_addrlen) < 0 || listen(fd, BACKLOG) < 0)
		return error_errno(err, -errno, "cannot listen at %s, port %s", o->address, port);
	return steal_fd(&fd);
}

static int open_door(struct remote *r, struct error *err)
{
	const struct host_remote *o = &r->d->host.remote;
	_cleanup_(tls_deinit) struct tls tls = { 0 };
	struct http_tls pem;
	int fd, result;

	if (!r->tls_folder)
		return error_set(err, -EOPNOTSUPP, "this service has no folder for certificates");
	result = tls_load(r->tls_folder, o->client_ca, &tls, err);
	if (result < 0)
		return result;
	strcpy(r->fingerprint, tls.fingerprint);
	fd = listen_at(o, err);
	if (fd < 0)
		return fd;
	pem = (struct http_tls){ tls.certificate, tls.key, tls.client_ca };
	return http_listen(r->http, fd, &pem, err);
}

static void apply(struct remote *r)
{
	const struct host_remote *o = &r->d->host.remote;

	if (r->listening)
		http_unlisten_tls(r->http);
	r->listening = false;
	r->error = (struct error){ 0 };
	if (!o->enabled)
		return;
	r->listening = open_door(r, &r->error) >= 0;
	if (r->listening) {
		log_line("TLS at %s, port %lld; the certificate's SHA-256 fingerprint is %s",
			 o->address, (long long)o->port, r->fingerprint);
		return;
	}
	log_line("TLS is not served: %s", r->error.message);
	event_add(r->d->events, SEVERITY_ERROR, "remote-failed", NULL, NULL, NULL,
		  "TLS is not served: %s", r->error.message);
}

static void on_timer(struct loop_timer *t)
{
	apply(container_of(t, struct remote, timer));
}

void remote_apply(struct remote *r)
{
	loop_timer_arm(&r->timer, loop_now(r->d->loop) + APPLY_MS * 1000000);
}

json_t *remote_json(const struct remote *r)
{
	json_t *json = json_pack("{s:b,s:s,s:I}", "listening", r->listening, "address",
				 r->d->host.remote.address ? r->d->host.remote.address : "", "port",
				 (json_int_t)r->d->host.remote.port);

	if (json) {
		json_object_set_new(json, "fingerprint",
				    json_text(r->fingerprint[0] ? r->fingerprint : NULL));
		json_object_set_new(json, "error",
				    json_text(r->error.code ? r->error.message : NULL));
	}
	return json;
}

int remote_new(struct daemon *d, struct http *http, const char *tls_folder, struct remote **ret,
	       struct error *err)
{
	struct remote *r = calloc(1, sizeof(*r));

	if (r)
		r->tls_folder = tls_folder ? strdup(tls_folder) : NULL;
	if (!r || (tls_folder && !r->tls_folder)) {
		free(r);
		return error_errno(err, -ENOMEM, "cannot serve TLS");
	}
	r->d = d;
	r->http = http;
	loop_timer_init(d->loop, &r->timer, on_timer);
	apply(r);
	*ret = r;
	return 0;
}

void remote_free(struct remote *r)
{
	if (!r)
		return;
	loop_timer_disarm(&r->timer);
	if (r->listening)
		http_unlisten_tls(r->http);
	free(r->tls_folder);
	free(r);
}
