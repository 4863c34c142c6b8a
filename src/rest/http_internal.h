/* SPDX-License-Identifier: MIT */
/* What connections (http.c) and the requests on them (http_exchange.c) know of each other. */
#pragma once

#include "lib/list.h"
#include "rest/http.h"
#include "rest/rate.h"

#include <microhttpd.h>

#define HTTP_MS UINT64_C(1000000)

/* One MHD daemon: it has the connections that we accepted and gave to it. */
struct server {
	struct http *http;
	struct MHD_Daemon *mhd; /* NULL = none */
	struct loop_watch watch;
	struct loop_timer timer;
	struct loop_task task;
	struct connection *adding; /* while MHD_add_connection runs */
	char *pem[3];              /* certificate, key, clients' signers */
};

struct http {
	struct loop *loop;
	struct http_options o;
	struct server plain, tls;
	struct list listeners, connections;
	unsigned connection_count;
	bool full; /* listeners rest until there is room */
	bool ending;
	struct rate *rate;
	struct loop_timer timer; /* the next deadline of a connection */
};

struct connection {
	struct http *http;
	struct server *server;
	struct list node;
	struct http_client client;
	uint8_t key[20]; /* of the client, for limits */
	bool exempt;     /* from the rate: root, and whose service this is */
	struct MHD_Connection *mhd;
	int fd;            /* MHD's */
	uint64_t deadline; /* 0 = none */
	struct exchange *exchange;
};

/* 0 ms = none */
void connection_deadline(struct connection *c, unsigned ms);
void connection_cut(struct connection *c);
void server_kick(struct server *s); /* lets MHD run soon */

/* MHD's callbacks for requests. */
void *exchange_on_uri(void *cls, const char *uri, struct MHD_Connection *mhd);
enum MHD_Result exchange_on_access(void *cls, struct MHD_Connection *mhd, const char *url,
				   const char *method, const char *version, const char *upload_data,
				   size_t *upload_data_size, void **con_cls);
void exchange_on_completed(void *cls, struct MHD_Connection *mhd, void **con_cls,
			   enum MHD_RequestTerminationCode code);
/* Ends what is under way, at once: the server stops. */
void exchange_abort(struct exchange *e);
