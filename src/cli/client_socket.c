// SPDX-License-Identifier: MIT
/*
 * See client.h: the client's end of a WebSocket (RFC 6455), for consoles. libcurl connects, with
 * TLS where there is any, and carries bytes; the handshake (4.1) and what is sent (5.2) are here,
 * what comes is in client_frames.c. Debian's libcurl 7.88 has no WebSockets of its own.
 */
#include "cli/client_frames.h"
#include "cli/client_internal.h"

#include "lib/cleanup.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>

#define HANDSHAKE_WAIT_MS 20000
#define SEND_WAIT_MS      20000

struct client_socket {
	CURL *curl;
	int fd;
	struct frames frames;
	bool maybe_more; /* the last read filled the buffer: TLS may hold more */
	bool open;       /* the other end has agreed */
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

/* More for the frames: how much, 0 when there is nothing now. */
static ssize_t fill(struct client_socket *s, struct error *err)
{
	size_t n = 0, room;
	uint8_t *at = frames_room(&s->frames, &room);
	CURLcode code;

	if (!room)
		return 0;
	code = curl_easy_recv(s->curl, at, room, &n);
	s->maybe_more = !code && n == room;
	if (code == CURLE_AGAIN)
		return 0;
	if (code || !n)
		return error_set(err, -EPIPE, "the console is gone: the service closed it");
	frames_added(&s->frames, n);
	return (ssize_t)n;
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
static int handshake_refused(struct client_socket *s, int status, struct error *err)
{
	const struct frames *f = &s->frames;
	const char *body = (const char *)f->in, *begin, *end;
	json_t *problem = NULL;
	int r;

	/* the rest of it, until the service closes or says nothing more */
	while (f->size < FRAMES_HANDSHAKE_MAX && wait_for(s, POLLIN, 500) >= 0 && fill(s, NULL) > 0)
		;
	begin = memchr(body, '{', f->size);
	end = memrchr(body, '}', f->size);
	if (begin && end && end > begin)
		problem = json_loadb(begin, (size_t)(end - begin) + 1, 0, NULL);
	r = client_refused(status, problem, err);
	json_decref(problem);
	return r;
}

static int read_handshake(struct client_socket *s, struct error *err)
{
	int status = 0, r;

	while (!(r = frames_handshake(&s->frames, &status, err))) {
		ssize_t n;

		if (!s->maybe_more && wait_for(s, POLLIN, HANDSHAKE_WAIT_MS) < 0)
			return error_set(err, -ETIMEDOUT, "the service does not answer");
		n = fill(s, err);
		if (n < 0)
			return (int)n;
	}
	if (r > 0 && status != 101)
		return handshake_refused(s, status, err);
	return r;
}

/* --- sending --- */

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

static int on_ping(struct frames *f, const void *payload, size_t size, struct error *err)
{
	int r = send_frame(container_of(f, struct client_socket, frames), OPCODE_PONG, payload,
			   size, err);

	return r < 0 ? r : 1;
}

/* --- opening --- */

int client_socket_open(struct client *c, const char *path, struct client_socket **ret,
		       struct error *err)
{
	struct client_socket *s = calloc(1, sizeof(*s));
	curl_socket_t fd = CURL_SOCKET_BAD;
	CURLcode code;
	int r;

	if (!s)
		return error_set(err, -ENOMEM, "out of memory");
	s->frames.ping = on_ping;
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
		client_socket_close(s);
		return r;
	}
	s->open = true;
	*ret = s;
	return 0;
}

/* --- open --- */

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

/* What came before the connection ended is handed out first. */
ssize_t client_socket_receive(struct client_socket *s, void *data, size_t size, struct error *err)
{
	struct error gone = { 0 };
	ssize_t filled = s->frames.closed ? 0 : fill(s, &gone);
	ssize_t n = frames_take(&s->frames, data, size, err);

	if (n || filled >= 0)
		return n;
	if (err)
		*err = gone;
	return filled;
}

int client_socket_fd(const struct client_socket *s)
{
	return s->fd;
}

bool client_socket_pending(const struct client_socket *s)
{
	return s->maybe_more || frames_pending(&s->frames);
}

void client_socket_close(struct client_socket *s)
{
	static const uint8_t normal[2] = { 1000 >> 8, 1000 & 255 };

	if (!s)
		return;
	if (s->open && !s->frames.closed)
		(void)!send_frame(s, OPCODE_CLOSE, normal, sizeof(normal), NULL);
	if (s->curl)
		curl_easy_cleanup(s->curl);
	free(s);
}
