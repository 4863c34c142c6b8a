// SPDX-License-Identifier: MIT
/*
 * See client.h: the client's end of a WebSocket (RFC 6455), for consoles. libcurl connects, with
 * TLS where there is any, and carries bytes; the handshake (4.1) and the frames (5.2) are here.
 * Debian's libcurl 7.88 has no WebSockets of its own.
 */
#include "cli/client_internal.h"

#include "lib/cleanup.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>

#define HANDSHAKE_MAX     (16 * KIB)
#define HANDSHAKE_WAIT_MS 20000
#define SEND_WAIT_MS      20000
#define CONTROL_MAX       125 /* RFC 6455, 5.5 */

enum opcode {
	OPCODE_CONTINUE = 0,
	OPCODE_TEXT = 1,
	OPCODE_BINARY = 2,
	OPCODE_CLOSE = 8,
	OPCODE_PING = 9,
	OPCODE_PONG = 10,
};

struct client_socket {
	CURL *curl;
	int fd;
	uint8_t in[CLIENT_FRAME_MAX + 16]; /* received, not used yet */
	size_t size;
	uint64_t left;   /* of the payload of the data frame that is being handed out */
	bool maybe_more; /* the last read filled the buffer: TLS may hold more */
	bool closed;
	struct error why;
};

/* --- bytes --- */

static int wait_for(const struct client_socket *s, short events, int ms)
{
	struct pollfd p = { .fd = s->fd, .events = events };
	int r;

	do
		r = poll(&p, 1, ms);
	while (r < 0 && errno == EINTR);
	return r > 0 ? 0 : -ETIMEDOUT;
}

static int send_all(struct client_socket *s, const void *data, size_t size, struct error *err)
{
	const uint8_t *p = data;

	while (size) {
		size_t n = 0;
		CURLcode code = curl_easy_send(s->curl, p, size, &n);

		if (code == CURLE_AGAIN) {
			if (wait_for(s, POLLOUT, SEND_WAIT_MS) < 0)
				return error_set(err, -ETIMEDOUT,
						 "the service takes nothing more from the console");
			continue;
		}
		if (code)
			return error_set(err, -EPIPE, "the console is gone: %s",
					 curl_easy_strerror(code));
		p += n;
		size -= n;
	}
	return 0;
}

/* More into `in`: how much, 0 when there is nothing now. */
static ssize_t fill(struct client_socket *s, struct error *err)
{
	size_t n = 0, room = sizeof(s->in) - s->size;
	CURLcode code;

	if (!room)
		return 0;
	code = curl_easy_recv(s->curl, s->in + s->size, room, &n);
	s->maybe_more = !code && n == room;
	if (code == CURLE_AGAIN)
		return 0;
	if (code || !n)
		return error_set(err, -EPIPE, "the console is gone: the service closed it");
	s->size += n;
	return (ssize_t)n;
}

static void consume(struct client_socket *s, size_t n)
{
	s->size -= n;
	memmove(s->in, s->in + n, s->size);
}

/* --- the handshake --- */

static int base64(const void *data, size_t size, char *text, size_t room)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				     "0123456789+/";
	const uint8_t *p = data;
	size_t at = 0;

	if ((size + 2) / 3 * 4 + 1 > room)
		return -ENOBUFS;
	for (size_t i = 0; i < size; i += 3) {
		uint32_t v = (uint32_t)p[i] << 16;

		if (i + 1 < size)
			v |= (uint32_t)p[i + 1] << 8;
		if (i + 2 < size)
			v |= p[i + 2];
		text[at++] = digits[v >> 18 & 63];
		text[at++] = digits[v >> 12 & 63];
		text[at++] = i + 1 < size ? digits[v >> 6 & 63] : '=';
		text[at++] = i + 2 < size ? digits[v & 63] : '=';
	}
	text[at] = 0;
	return 0;
}

static int credentials_line(const struct client *c, char *line, size_t size)
{
	_cleanup_free_ char *pair = NULL;
	char text[512];

	line[0] = 0;
	if (!c->user)
		return 0;
	if (asprintf(&pair, "%s:%s", c->user, c->password) < 0) {
		pair = NULL;
		return -ENOMEM;
	}
	if (base64(pair, strlen(pair), text, sizeof(text)) < 0)
		return -ENOBUFS;
	snprintf(line, size, "Authorization: Basic %s\r\n", text);
	return 0;
}

static int send_handshake(struct client *c, struct client_socket *s, const char *path,
			  struct error *err)
{
	_cleanup_free_ char *text = NULL;
	uint8_t nonce[16];
	char key[32], credentials[600];

	if (getrandom(nonce, sizeof(nonce), 0) != sizeof(nonce))
		return error_errno(err, -errno, "no random numbers");
	base64(nonce, sizeof(nonce), key, sizeof(key));
	if (credentials_line(c, credentials, sizeof(credentials)) < 0)
		return error_set(err, -EINVAL, "the user's name and password are too long");
	if (asprintf(&text,
		     "GET /api/v1%s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\n"
		     "Connection: Upgrade\r\nSec-WebSocket-Key: %s\r\n"
		     "Sec-WebSocket-Version: 13\r\n%s\r\n",
		     path, c->name, key, credentials) < 0) {
		text = NULL;
		return error_set(err, -ENOMEM, "out of memory");
	}
	return send_all(s, text, strlen(text), err);
}

/* An answer that is no upgrade is a problem; its words are in its body. */
static int handshake_refused(struct client_socket *s, int status, size_t head, struct error *err)
{
	const char *body = (const char *)s->in + head;
	const char *begin, *end;
	json_t *problem = NULL;
	int r;

	/* the rest of it, until the service closes or says nothing more */
	while (s->size < HANDSHAKE_MAX && wait_for(s, POLLIN, 500) >= 0 && fill(s, NULL) > 0)
		;
	begin = memchr(body, '{', s->size - head);
	end = memrchr(body, '}', s->size - head);
	if (begin && end && end > begin)
		problem = json_loadb(begin, (size_t)(end - begin) + 1, 0, NULL);
	r = client_refused(status, problem, err);
	json_decref(problem);
	return r;
}

static int read_handshake(struct client_socket *s, struct error *err)
{
	int status = 0;
	char *end;

	while (!s->size || !(end = memmem(s->in, s->size, "\r\n\r\n", 4))) {
		ssize_t n;

		if (s->size >= HANDSHAKE_MAX)
			return error_set(err, -EPROTO, "the service's answer is too long");
		if (!s->maybe_more && wait_for(s, POLLIN, HANDSHAKE_WAIT_MS) < 0)
			return error_set(err, -ETIMEDOUT, "the service does not answer");
		n = fill(s, err);
		if (n < 0)
			return (int)n;
	}
	*end = 0;
	if (sscanf((char *)s->in, "HTTP/1.1 %3d", &status) != 1)
		return error_set(err, -EPROTO, "the service does not speak HTTP");
	if (status != 101)
		return handshake_refused(s, status, (size_t)(end - (char *)s->in) + 4, err);
	consume(s, (size_t)(end - (char *)s->in) + 4);
	return 0;
}

int client_socket_open(struct client *c, const char *path, struct client_socket **ret,
		       struct error *err)
{
	struct client_socket *s = calloc(1, sizeof(*s));
	curl_socket_t fd = CURL_SOCKET_BAD;
	CURLcode code;
	int r;

	if (!s)
		return error_set(err, -ENOMEM, "out of memory");
	s->curl = curl_easy_init();
	r = s->curl ? client_prepare(c, s->curl, path, err)
		    : error_set(err, -ENOMEM, "out of memory");
	if (r >= 0) {
		curl_easy_setopt(s->curl, CURLOPT_CONNECT_ONLY, 1L);
		code = curl_easy_perform(s->curl);
		if (code || client_check_certificate(c, s->curl) < 0)
			r = client_transfer_failed(c, code, err);
		else
			curl_easy_getinfo(s->curl, CURLINFO_ACTIVESOCKET, &fd);
		s->fd = (int)fd;
	}
	if (r >= 0)
		r = send_handshake(c, s, path, err);
	if (r >= 0)
		r = read_handshake(s, err);
	if (r < 0) {
		s->closed = true;
		client_socket_close(s);
		return r;
	}
	*ret = s;
	return 0;
}

/* --- frames --- */

/* A client masks what it sends (5.3). */
static int send_frame(struct client_socket *s, enum opcode opcode, const void *data, size_t size,
		      struct error *err)
{
	uint8_t frame[14 + 4096] = { 0x80 | (uint8_t)opcode };
	size_t head = 2;
	uint8_t *mask;

	if (size > 4096)
		return error_set(err, -EINVAL, "a frame of more than 4096 bytes");
	if (size < 126) {
		frame[1] = 0x80 | (uint8_t)size;
	} else {
		frame[1] = 0x80 | 126;
		frame[2] = (uint8_t)(size >> 8);
		frame[3] = (uint8_t)size;
		head = 4;
	}
	mask = frame + head;
	if (getrandom(mask, 4, 0) != 4)
		return error_errno(err, -errno, "no random numbers");
	for (size_t i = 0; i < size; i++)
		mask[4 + i] = ((const uint8_t *)data)[i] ^ mask[i % 4];
	return send_all(s, frame, head + 4 + size, err);
}

int client_socket_send(struct client_socket *s, const void *data, size_t size, struct error *err)
{
	const uint8_t *p = data;
	int r = 0;

	while (size && r >= 0) {
		size_t n = MIN(size, (size_t)4096);

		r = send_frame(s, OPCODE_BINARY, p, n, err);
		p += n;
		size -= n;
	}
	return r;
}

/* The head of the next frame: its length, or 0 when it is not all there yet. */
static size_t frame_head(const struct client_socket *s, uint64_t *ret_payload)
{
	const uint8_t *p = s->in;
	size_t head = 2;
	uint64_t n;

	if (s->size < 2)
		return 0;
	n = p[1] & 0x7f;
	if (n >= 126)
		head += n == 126 ? 2 : 8;
	if (s->size < head)
		return 0;
	if (n >= 126) {
		n = 0;
		for (size_t i = 2; i < head; i++)
			n = n << 8 | p[i];
	}
	*ret_payload = n;
	return head;
}

static int closed(struct client_socket *s, const uint8_t *payload, size_t size, struct error *err)
{
	s->closed = true;
	if (size > 2)
		return error_set(err, -EPIPE, "%.*s", (int)(size - 2), payload + 2);
	return error_set(err, -EPIPE, "the console was closed");
}

/* Control frames (5.5) are whole and short. 1: there was one; 0: not all of it yet. */
static int control_frame(struct client_socket *s, size_t head, uint64_t size, struct error *err)
{
	uint8_t payload[CONTROL_MAX];
	int opcode = s->in[0] & 0x0f, r = 1;

	if (size > sizeof(payload) || !(s->in[0] & 0x80))
		return error_set(err, -EPROTO, "the service breaks the WebSocket protocol");
	if (s->size < head + size)
		return 0;
	memcpy(payload, s->in + head, size);
	consume(s, head + size);
	if (opcode == OPCODE_CLOSE)
		return closed(s, payload, size, err);
	if (opcode == OPCODE_PING)
		r = send_frame(s, OPCODE_PONG, payload, size, err);
	return r < 0 ? r : 1;
}

/* 1: go on; 0: more bytes are needed. */
static int next_frame(struct client_socket *s, struct error *err)
{
	uint64_t size = 0;
	size_t head = frame_head(s, &size);
	int opcode = s->in[0] & 0x0f;

	if (!head)
		return 0;
	/* no extension was agreed to, and servers do not mask */
	if ((s->in[0] & 0x70) || (s->in[1] & 0x80) || size > INT64_MAX)
		return error_set(err, -EPROTO, "the service breaks the WebSocket protocol");
	if (opcode >= OPCODE_CLOSE)
		return control_frame(s, head, size, err);
	if (opcode > OPCODE_BINARY)
		return error_set(err, -EPROTO, "the service breaks the WebSocket protocol");
	consume(s, head);
	s->left = size;
	return 1;
}

ssize_t client_socket_receive(struct client_socket *s, void *data, size_t size, struct error *err)
{
	ssize_t n;
	int r = 1;

	if (s->closed)
		return error_set(err, -EPIPE, "the console was closed");
	n = fill(s, err);
	if (n < 0 && !s->size)
		return n;
	while (r == 1 && !s->left)
		r = next_frame(s, err);
	if (r < 0)
		return r;
	n = (ssize_t)MIN(MIN(s->left, (uint64_t)size), (uint64_t)s->size);
	memcpy(data, s->in, (size_t)n);
	consume(s, (size_t)n);
	s->left -= (uint64_t)n;
	return n;
}

int client_socket_fd(const struct client_socket *s)
{
	return s->fd;
}

bool client_socket_pending(const struct client_socket *s)
{
	uint64_t size = 0;
	size_t head;

	if (s->maybe_more)
		return true;
	if (s->left)
		return s->size > 0;
	head = frame_head(s, &size);
	/* a data frame's head will do; a control frame has to be whole, unless it is wrong */
	if (head && (s->in[0] & 0x0f) >= OPCODE_CLOSE)
		return size > CONTROL_MAX || s->size >= head + size;
	return head > 0;
}

void client_socket_close(struct client_socket *s)
{
	static const uint8_t normal[2] = { 1000 >> 8, 1000 & 255 };

	if (!s)
		return;
	if (!s->closed)
		(void)!send_frame(s, OPCODE_CLOSE, normal, sizeof(normal), NULL);
	if (s->curl)
		curl_easy_cleanup(s->curl);
	free(s);
}
