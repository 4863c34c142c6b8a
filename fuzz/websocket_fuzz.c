// SPDX-License-Identifier: MIT
/*
 * A client of a WebSocket: the first byte says in which pieces the rest comes. All that is handed
 * on came in; nothing comes after the end; the end comes once, with a code that 7.4.1 has.
 */
#include "lib/types.h"
#include "rest/websocket.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

struct seen {
	size_t bytes, given;
	bool closed;
};

static void on_data(void *context, struct websocket *w, const uint8_t *data, size_t size)
{
	struct seen *seen = context;

	seen->bytes += size;
	if (seen->closed || !size || seen->bytes > seen->given)
		abort();
	if (data[0] == 'p')
		websocket_pause(w, true);
	if (data[0] == 'c')
		websocket_close(w, WEBSOCKET_NORMAL, "c");
	(void)websocket_send(w, data, size);
}

static void on_closed(void *context, struct websocket *w, unsigned code)
{
	struct seen *seen = context;

	(void)w;
	if (seen->closed || code < 1000 || code > 4999)
		abort();
	seen->closed = true;
}

/* Takes what was sent, so that the queue moves. */
static void drain(int fd)
{
	uint8_t block[4096];

	while (recv(fd, block, sizeof(block), MSG_DONTWAIT) > 0)
		;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct websocket_events events = { .data = on_data, .closed = on_closed };
	struct seen seen = { .given = size };
	struct websocket_options o = { .events = &events, .context = &seen };
	struct websocket *w;
	struct loop *loop;
	struct error err;
	size_t piece = size ? data[0] % 64u + 1 : 1;
	int fds[2];

	if (size > 64 * 1024 || loop_new(0, &loop, &err) < 0)
		return 0;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) < 0 ||
	    websocket_new(loop, &o, &w) < 0 || websocket_begin(w, fds[0], NULL, 0) < 0)
		abort();
	for (size_t at = 1; at < size && !seen.closed; at += piece) {
		if (send(fds[1], data + at, MIN(piece, size - at), MSG_NOSIGNAL) < 0)
			break;
		loop_once(loop, 0);
		drain(fds[1]);
		if (!seen.closed)
			websocket_pause(w, false);
	}
	close(fds[1]);
	for (int i = 0; i < 10 && !seen.closed; i++)
		loop_once(loop, 0);
	if (!seen.closed)
		abort();
	close(fds[0]);
	loop_free(loop);
	return 0;
}
