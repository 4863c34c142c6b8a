/* SPDX-License-Identifier: MIT */
/*
 * Hyper-V sockets: stream connections between programs of the guest and of the host, each on a
 * VMBus channel of its own, relayed to a Unix socket. Programs of the host come to one listening
 * socket and say in a line what they want:
 *
 *   CONNECT SERVICE   a connection to who listens in the guest. "OK NUMBER" or "ERROR WORDS"; then
 *                     bytes. (The convention of Firecracker and Cloud Hypervisor.)
 *   LISTEN SERVICE    "OK NUMBER"; for each connection that a program of the guest makes to the
 *                     service comes a line "CONNECTED ENDPOINT" with a descriptor (SCM_RIGHTS). It
 *                     ends with this connection.
 *
 * A SERVICE is a vsock port, or a GUID. So nothing has to be opened or connected to by us. Event
 * loop's thread.
 */
#pragma once

#include "lib/error.h"
#include "vmbus/vmbus.h"

#define HVSOCK_CONNECTIONS_MAX 256u /* those that the guest has not let go of count */
#define HVSOCK_LISTENERS_MAX   64u
#define HVSOCK_CLIENTS_MAX     32u /* that have not said yet what they want */
#define HVSOCK_OPEN_SECONDS    8u  /* until a guest has taken a connection */
#define HVSOCK_CLOSE_SECONDS   8u  /* as Linux waits: HVS_CLOSE_TIMEOUT */
#define HVSOCK_LINE_MAX        100u

struct hvsock;

struct hvsock_stats {
	unsigned connections, listeners, clients;
	uint64_t to_guest, from_guest; /* bytes */
	uint64_t refused;              /* connections that were not made */
	uint64_t broken;               /* that ended because an end broke the rules or vanished */
};

/* `listener` listens already, and is the sockets' from here on, also when this fails. */
int hvsock_new(struct loop *loop, struct vmbus *bus, int listener, struct hvsock **ret,
	       struct error *err) _must_check_;
/* The bus is quiet (vmbus_reset), and still there. NULL is fine. */
void hvsock_free(struct hvsock *h);
/* While the machine stands still nobody is connected; NULL is fine. */
void hvsock_pause(struct hvsock *h, bool paused);
struct hvsock_stats hvsock_stats(const struct hvsock *h);
