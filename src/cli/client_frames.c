// SPDX-License-Identifier: MIT
/*
 * See client_frames.h: what a server sends (RFC 6455, 5.2), judged as it comes. Only the head of a
 * frame has to be whole before it is used; a data frame's bytes are handed out as they are there.
 */
#include "cli/client_frames.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define CONTROL_MAX 125 /* 5.5 */

/* --- bytes --- */

uint8_t *frames_room(struct frames *f, size_t *ret_size)
{
	*ret_size = sizeof(f->in) - f->size;
	return f->in + f->size;
}

void frames_added(struct frames *f, size_t size)
{
	f->size += size;
}

static void consume(struct frames *f, size_t n)
{
	f->size -= n;
	memmove(f->in, f->in + n, f->size);
}

/* --- the handshake --- */

int frames_handshake(struct frames *f, int *ret_status, struct error *err)
{
	uint8_t *end = memmem(f->in, f->size, "\r\n\r\n", 4);
	int status = 0;

	if (!end && f->size >= FRAMES_HANDSHAKE_MAX)
		return error_set(err, -EPROTO, "the service's answer is too long");
	if (!end)
		return 0;
	*end = 0;
	if (sscanf((char *)f->in, "HTTP/1.1 %3d", &status) != 1)
		return error_set(err, -EPROTO, "the service does not speak HTTP");
	consume(f, (size_t)(end - f->in) + 4);
	*ret_status = status;
	return 1;
}

/* --- frames --- */

static int broken(struct error *err)
{
	return error_set(err, -EPROTO, "the service breaks the WebSocket protocol");
}

/* The head of the next frame: its length, or 0 when it is not all there yet. */
static size_t frame_head(const struct frames *f, uint64_t *ret_payload)
{
	const uint8_t *p = f->in;
	size_t head = 2;
	uint64_t n;

	if (f->size < 2)
		return 0;
	n = p[1] & 0x7f;
	if (n >= 126)
		head += n == 126 ? 2 : 8;
	if (f->size < head)
		return 0;
	if (n >= 126) {
		n = 0;
		for (size_t i = 2; i < head; i++)
			n = n << 8 | p[i];
	}
	*ret_payload = n;
	return head;
}

/* A reason that a person reads, on a terminal: whoever sent it must not reach that. */
static int closed(struct frames *f, uint8_t *reason, size_t size, struct error *err)
{
	f->closed = true;
	for (size_t i = 0; i < size; i++)
		if (reason[i] < ' ' || reason[i] == 0x7f)
			reason[i] = '?';
	if (size > 2)
		return error_set(err, -EPIPE, "%.*s", (int)(size - 2), reason + 2);
	return error_set(err, -EPIPE, "the console was closed");
}

/* Control frames (5.5) are whole and short. 1: there was one; 0: not all of it yet. */
static int control_frame(struct frames *f, size_t head, uint64_t size, struct error *err)
{
	uint8_t payload[CONTROL_MAX];
	int opcode = f->in[0] & 0x0f;

	if (size > sizeof(payload) || !(f->in[0] & 0x80))
		return broken(err);
	if (f->size < head + size)
		return 0;
	memcpy(payload, f->in + head, size);
	consume(f, head + size);
	if (opcode == OPCODE_CLOSE)
		return closed(f, payload, size, err);
	return opcode == OPCODE_PING && f->ping ? f->ping(f, payload, size, err) : 1;
}

/* 1: go on; 0: more bytes are needed. */
static int next_frame(struct frames *f, struct error *err)
{
	uint64_t size = 0;
	size_t head = frame_head(f, &size);
	int opcode = f->in[0] & 0x0f;

	if (!head)
		return 0;
	/* no extension was agreed to, and servers do not mask */
	if ((f->in[0] & 0x70) || (f->in[1] & 0x80) || size > INT64_MAX)
		return broken(err);
	if (opcode >= OPCODE_CLOSE)
		return control_frame(f, head, size, err);
	if (opcode > OPCODE_BINARY)
		return broken(err);
	consume(f, head);
	f->left = size;
	return 1;
}

ssize_t frames_take(struct frames *f, void *data, size_t size, struct error *err)
{
	size_t n;
	int r = 1;

	if (f->closed)
		return error_set(err, -EPIPE, "the console was closed");
	while (r == 1 && !f->left)
		r = next_frame(f, err);
	if (r < 0) {
		f->closed = true;
		return r;
	}
	n = (size_t)MIN(MIN(f->left, (uint64_t)size), (uint64_t)f->size);
	memcpy(data, f->in, n);
	consume(f, n);
	f->left -= n;
	return (ssize_t)n;
}

bool frames_pending(const struct frames *f)
{
	uint64_t size = 0;
	size_t head;

	if (f->left)
		return f->size > 0;
	head = frame_head(f, &size);
	/* a data frame's head will do; a control frame has to be whole, unless it is wrong */
	if (head && (f->in[0] & 0x0f) >= OPCODE_CLOSE)
		return size > CONTROL_MAX || f->size >= head + size;
	return head > 0;
}
