// SPDX-License-Identifier: MIT
/*
 * A server of a WebSocket, for its client: the first byte says in which pieces the rest comes. The
 * same bytes in other pieces must give the same data, the same pings and the same end. Nothing is
 * handed out that did not come in, nothing comes after the end, and a reader that polls as
 * client.h says it should (frames_pending) is never left with something to do.
 */
#include "cli/client_frames.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct seen {
	struct frames frames;
	uint8_t data[64 * 1024];
	size_t size, given;
	unsigned pings;
	int end; /* of the stream, or 0 */
	struct error err;
};

static int on_ping(struct frames *f, const void *payload, size_t size, struct error *err)
{
	struct seen *seen = container_of(f, struct seen, frames);

	(void)payload;
	(void)err;
	if (size > 125 || seen->end)
		abort();
	seen->pings++;
	return 1;
}

static void take(struct seen *s, size_t most)
{
	while (!s->end) {
		bool pending = frames_pending(&s->frames);
		unsigned pings = s->pings;
		size_t before = s->frames.size;
		ssize_t n = frames_take(&s->frames, s->data + s->size,
					MIN(most, sizeof(s->data) - s->size), &s->err);

		if (n < 0) {
			s->end = (int)n;
			if ((n != -EPIPE && n != -EPROTO) || !*s->err.message ||
			    frames_take(&s->frames, s->data, 1, NULL) != -EPIPE)
				abort();
			return;
		}
		s->size += (size_t)n;
		if (s->size > s->given)
			abort();
		/* what is pending moves; what does not move is not pending */
		if (!n && pending && s->frames.size == before && s->pings == pings)
			abort();
		if (!n && !frames_pending(&s->frames))
			return;
	}
}

static void feed(struct seen *s, const uint8_t *data, size_t size, size_t piece)
{
	int status = 0, r = 0;

	memset(s, 0, sizeof(*s));
	s->frames.ping = on_ping;
	s->given = size;
	for (size_t at = 0; at < size && !s->end; at += piece) {
		size_t room, n = MIN(piece, size - at);
		uint8_t *to = frames_room(&s->frames, &room);

		if (room < n)
			abort(); /* a reader that takes what is there always finds room */
		memcpy(to, data + at, n);
		frames_added(&s->frames, n);
		if (!r)
			r = frames_handshake(&s->frames, &status, &s->err);
		if (r < 0)
			s->end = r;
		if (r == 1)
			take(s, piece);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct seen whole, pieces;

	if (!size || size > 16 * 1024)
		return 0;
	feed(&whole, data + 1, size - 1, size);
	feed(&pieces, data + 1, size - 1, data[0] % 64u + 1);
	if (whole.size != pieces.size || memcmp(whole.data, pieces.data, whole.size) != 0 ||
	    whole.pings != pieces.pings || whole.end != pieces.end ||
	    strcmp(whole.err.message, pieces.err.message) != 0)
		abort();
	return 0;
}
