/* SPDX-License-Identifier: MIT */
/* Shared by the two files of hvsock: hvsock.c has connections, hvsock_host.c who comes to us. */
#pragma once

#include "devices/hvsock/hvsock.h"
#include "devices/hvsock/hvsock_proto.h"

struct hvsock {
	struct loop *loop;
	struct vmbus *bus;
	int listener_fd;
	struct loop_watch listener;
	bool paused;
	bool full; /* nobody more is taken until someone goes */
	struct list clients, listeners, connections;
	uint32_t number; /* of the next connection */
	struct hvsock_stats stats;
};

/* --- hvsock.c --- */

/*
 * Offers the guest a connection; `fd` is the connection's from here on, also on failure. `done`
 * (may be NULL) is called once, from the loop: opened 0, or -ETIMEDOUT or -ECONNRESET; then the
 * connection relays, or is gone.
 */
struct connection_start {
	bool from_host;
	struct guid service, endpoint;
	int fd;
	void (*done)(void *context, int result, int fd); /* failed: the descriptor is back */
	void *context;
};
int connection_start(struct hvsock *h, const struct connection_start *start, uint32_t *ret_number,
		     struct error *err) _must_check_;

/* --- hvsock_host.c --- */

int host_begin(struct hvsock *h, int listener, struct error *err) _must_check_;
void host_end(struct hvsock *h);
/* A program of the guest wants a connection. 0: it is on its way; -ECONNREFUSED. */
int host_wanted(struct hvsock *h, const struct guid *endpoint, const struct guid *service);
