// SPDX-License-Identifier: MIT
/*
 * See websocket.h. Bytes are read into a small buffer and worked off there: a frame's header is
 * decoded when it is whole, payload is unmasked and handed on as it comes, so that a long message
 * needs no memory. Control frames are collected (they have 125 bytes at most).
 *
 * What a client does against RFC 6455 ends the connection with the code that 7.4.1 has for it.
 * `closed` is told from a task or an event of ours, never from inside a call.
 */
#include "rest/websocket.h"
#include "lib/cleanup.h"

#include <assert.h>
#include <errno.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define INPUT_SIZE  4096
#define CONTROL_MAX 125 /* RFC 6455 5.5 */
#define HEADER_MAX  14
#define PING_MS     30000
#define CLOSE_MS    5000 /* for the other side to answer our close frame */
#define MS          UINT64_C(1000000)
#define QUEUE_SPARE (4 * KIB) /* for control frames beyond WEBSOCKET_QUEUE_MAX */

enum opcode { /* RFC 6455 5.2 */
	      OP_CONTINUATION = 0,
	      OP_TEXT = 1,
	      OP_BINARY = 2,
	      OP_CLOSE = 8,
	      OP_PING = 9,
	      OP_PONG = 10,
};

/* Where we are in a character of text (Unicode 15, table 3-7). */
struct utf8_state {
	unsigned missing;
	uint8_t low, high; /* bounds of the next byte */
};

struct websocket {
	struct loop *loop;
	struct websocket_options o;
	struct loop_watch watch;
	struct loop_timer timer;
	struct loop_task task; /* reads what was there, or tells the end */
	uint32_t watched;
	bool begun, paused, in_call, dead;
	bool close_sent, close_received, pinged;
	unsigned code; /* what `closed` is told */
	uint8_t input[INPUT_SIZE];
	size_t input_size;
	/* the frame that payload is read of */
	bool in_frame, frame_final;
	uint8_t opcode, mask[4];
	uint64_t left;
	unsigned mask_at;
	/* the message that it is in */
	bool in_message, text;
	uint64_t message_size;
	struct utf8_state utf8;
	uint8_t control[CONTROL_MAX];
	size_t control_size;
	uint8_t *queue;
	size_t queue_start, queue_size, queue_capacity;
};

/* --- ending --- */

static void end(struct websocket *w, unsigned code)
{
	if (w->dead)
		return;
	w->dead = true;
	w->code = code;
	loop_unwatch(&w->watch);
	loop_timer_disarm(&w->timer);
	loop_defer(w->loop, &w->task);
}

/* The connection broke off, unless the other side has said goodbye. */
static void lose(struct websocket *w)
{
	end(w, w->close_received ? w->code : WEBSOCKET_ABNORMAL);
}

void websocket_lost(struct websocket *w)
{
	w->o.release = NULL;
	lose(w);
}

static void release(struct websocket *w)
{
	if (w->o.release)
		w->o.release(w->o.owner);
	w->o.release = NULL;
}

void websocket_free(struct websocket *w)
{
	if (!w)
		return;
	loop_unwatch(&w->watch);
	loop_timer_disarm(&w->timer);
	loop_cancel(w->loop, &w->task);
	release(w);
	if (w->in_call) {
		w->dead = true; /* whoever calls out frees it */
		w->o.events = NULL;
		return;
	}
	free(w->queue);
	free(w);
}

/* Hands a piece on; false when w was freed meanwhile (by us, now) or is over. */
static bool tell_data(struct websocket *w, const uint8_t *data, size_t size)
{
	w->in_call = true;
	w->o.events->data(w->o.context, w, data, size);
	w->in_call = false;
	return !w->dead;
}

/* --- sending --- */

static void watch_again(struct websocket *w)
{
	uint32_t want =
		(w->paused || w->close_received ? 0 : EPOLLIN) | (w->queue_size ? EPOLLOUT : 0);
	int fd = w->watch.fd;

	if (!w->begun || w->dead || want == w->watched)
		return;
	loop_unwatch(&w->watch);
	w->watched = want;
	if (loop_watch(w->loop, &w->watch, fd, want, w->watch.fn) < 0)
		end(w, WEBSOCKET_ABNORMAL);
}

/* False when w was freed meanwhile. */
static bool tell_drained(struct websocket *w)
{
	w->in_call = true;
	w->o.events->drained(w->o.context, w);
	w->in_call = false;
	if (w->o.events)
		return true;
	websocket_free(w);
	return false;
}

/* False when w was freed meanwhile. */
static bool flush(struct websocket *w)
{
	bool had = w->queue_size;

	while (w->begun && !w->dead && w->queue_size) {
		ssize_t n = send(w->watch.fd, w->queue + w->queue_start, w->queue_size,
				 MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		if (n < 0) {
			lose(w);
			return true;
		}
		w->queue_start += (size_t)n;
		w->queue_size -= (size_t)n;
	}
	if (!w->queue_size)
		w->queue_start = 0;
	if (!w->queue_size && w->close_sent && w->close_received)
		end(w, w->code);
	else if (had && !w->queue_size && !w->dead && w->o.events->drained)
		return tell_drained(w);
	return true;
}

static int queue_reserve(struct websocket *w, size_t more)
{
	size_t need = w->queue_size + more, capacity;
	uint8_t *bigger;

	if (w->queue_start + need <= w->queue_capacity)
		return 0;
	if (w->queue_size)
		memmove(w->queue, w->queue + w->queue_start, w->queue_size);
	w->queue_start = 0;
	if (need <= w->queue_capacity)
		return 0;
	for (capacity = MAX(w->queue_capacity, 1024); capacity < need;)
		capacity *= 2;
	bigger = realloc(w->queue, capacity);
	if (!bigger)
		return -ENOMEM;
	w->queue = bigger;
	w->queue_capacity = capacity;
	return 0;
}

static int queue_frame(struct websocket *w, enum opcode op, const void *data, size_t size)
{
	size_t max = WEBSOCKET_QUEUE_MAX + (op >= OP_CLOSE ? QUEUE_SPARE : 0);
	uint8_t *at;
	size_t n = 0;
	int r;

	if (w->dead || w->close_sent)
		return -EPIPE;
	if (size + 4 > max || w->queue_size > max - size - 4 || size > 0xffff)
		return -ENOBUFS;
	r = queue_reserve(w, size + 4);
	if (r < 0)
		return r;
	at = w->queue + w->queue_start + w->queue_size;
	at[n++] = (uint8_t)(0x80 | op);
	if (size > CONTROL_MAX) {
		at[n++] = 126;
		at[n++] = (uint8_t)(size >> 8);
		at[n++] = (uint8_t)size;
	} else {
		at[n++] = (uint8_t)size;
	}
	if (size)
		memcpy(at + n, data, size);
	w->queue_size += n + size;
	return 0;
}

/* Tries at once, unless that could call out from inside a call to us. */
static void send_soon(struct websocket *w)
{
	if (!w->begun || w->dead)
		return;
	loop_defer(w->loop, &w->task);
}

int websocket_send(struct websocket *w, const void *data, size_t size)
{
	const uint8_t *at = data;
	size_t frames = size / 0xffff + 1;

	if (size > WEBSOCKET_QUEUE_MAX || w->queue_size + size + 4 * frames > WEBSOCKET_QUEUE_MAX)
		return -ENOBUFS;
	while (size) {
		size_t n = MIN(size, (size_t)0xffff);
		int r = queue_frame(w, OP_BINARY, at, n);

		if (r < 0)
			return r;
		at += n;
		size -= n;
	}
	send_soon(w);
	return 0;
}

size_t websocket_queued(const struct websocket *w)
{
	return w->queue_size;
}

void websocket_close(struct websocket *w, unsigned code, const char *words)
{
	uint8_t payload[CONTROL_MAX] = { (uint8_t)(code >> 8), (uint8_t)code };
	size_t n = strnlen(words, sizeof(payload) - 2);

	if (w->dead || w->close_sent)
		return;
	memcpy(payload + 2, words, n);
	if (queue_frame(w, OP_CLOSE, payload, n + 2) < 0) {
		end(w, WEBSOCKET_ABNORMAL);
		return;
	}
	w->close_sent = true;
	if (!w->close_received)
		w->code = code;
	if (w->begun)
		loop_timer_arm(&w->timer, loop_now(w->loop) + CLOSE_MS * MS);
	send_soon(w);
}

/* The other side broke the rules: say so, and listen to no more of it. */
static void fail(struct websocket *w, unsigned code, const char *words)
{
	w->close_received = true;
	w->code = code;
	websocket_close(w, code, words);
}

/* --- receiving --- */

static bool utf8_step(struct utf8_state *u, uint8_t c)
{
	if (u->missing) {
		if (c < u->low || c > u->high)
			return false;
		u->missing--;
	} else if (c >= 0x80) {
		if (c < 0xc2 || c > 0xf4)
			return false;
		u->missing = c < 0xe0 ? 1 : c < 0xf0 ? 2 : 3;
		u->low = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80;
		u->high = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;
		return true;
	}
	u->low = 0x80;
	u->high = 0xbf;
	return true;
}

static bool utf8_check(struct utf8_state *u, const uint8_t *data, size_t size)
{
	for (size_t i = 0; i < size; i++) {
		if (!utf8_step(u, data[i]))
			return false;
	}
	return true;
}

static bool close_code_valid(unsigned code)
{
	return (code >= 1000 && code <= 1014 && code != 1004 && code != 1005 && code != 1006) ||
	       (code >= 3000 && code <= 4999);
}

static void on_close_frame(struct websocket *w)
{
	struct utf8_state utf8 = { 0 };
	unsigned code = WEBSOCKET_NO_CODE;

	if (w->control_size >= 2)
		code = (unsigned)w->control[0] << 8 | w->control[1];
	if (w->control_size == 1 || (w->control_size && !close_code_valid(code))) {
		fail(w, WEBSOCKET_PROTOCOL_ERROR, "this is no code for a close");
		return;
	}
	if (w->control_size > 2 &&
	    (!utf8_check(&utf8, w->control + 2, w->control_size - 2) || utf8.missing)) {
		fail(w, WEBSOCKET_NOT_UTF8, "not UTF-8");
		return;
	}
	w->close_received = true;
	if (!w->close_sent) {
		w->code = code;
		websocket_close(w, code == WEBSOCKET_NO_CODE ? WEBSOCKET_NORMAL : code, "");
	}
	send_soon(w);
}

static void on_control_frame(struct websocket *w)
{
	if (w->opcode == OP_CLOSE)
		on_close_frame(w);
	else if (w->opcode == OP_PING && queue_frame(w, OP_PONG, w->control, w->control_size) >= 0)
		send_soon(w);
	else if (w->opcode == OP_PING && !w->close_sent)
		fail(w, WEBSOCKET_POLICY, "more pings than answers taken");
}

/* The length of a frame's header at `p` when it is whole, else 0. */
static size_t header_size(const uint8_t *p, size_t size)
{
	size_t n;

	if (size < 2)
		return 0;
	n = 2 + ((p[1] & 0x7f) == 126 ? 2 : (p[1] & 0x7f) == 127 ? 8 : 0) + (p[1] & 0x80 ? 4 : 0);
	return n <= size ? n : 0;
}

/* NULL, or what is wrong with the two first bytes here and now (RFC 6455 5.2, 5.4, 5.5). */
static const char *header_fault(const struct websocket *w, const uint8_t *p)
{
	unsigned op = p[0] & 0xf, length = p[1] & 0x7f;

	if (p[0] & 0x70)
		return "reserved bits are set";
	if (!(p[1] & 0x80))
		return "a client's frame must be masked";
	if ((op > OP_BINARY && op < OP_CLOSE) || op > OP_PONG)
		return "this opcode has no meaning";
	if (op >= OP_CLOSE && (length > CONTROL_MAX || !(p[0] & 0x80)))
		return "a control frame is short and in one piece";
	if (op == OP_CONTINUATION && !w->in_message)
		return "there is nothing to continue";
	if ((op == OP_TEXT || op == OP_BINARY) && w->in_message)
		return "the message before has not ended";
	return NULL;
}

static void begin_message_frame(struct websocket *w)
{
	if (w->opcode != OP_CONTINUATION) {
		w->in_message = true;
		w->text = w->opcode == OP_TEXT;
		w->message_size = 0;
		w->utf8 = (struct utf8_state){ 0 };
	}
	if (w->left > WEBSOCKET_MESSAGE_MAX - w->message_size)
		fail(w, WEBSOCKET_TOO_LARGE, "the message is too long");
	else
		w->message_size += w->left;
}

static bool read_length(const uint8_t *p, uint64_t *ret)
{
	unsigned bytes = (p[1] & 0x7f) == 126 ? 2 : (p[1] & 0x7f) == 127 ? 8 : 0;
	uint64_t v = 0;

	for (unsigned i = 0; i < bytes; i++)
		v = v << 8 | p[2 + i];
	*ret = bytes ? v : p[1] & 0x7f;
	return !bytes || (bytes == 2 ? v > 125 : v > 0xffff && v < BIT64(63));
}

/* Bytes used, 0 when more are needed. */
static size_t begin_frame(struct websocket *w, const uint8_t *p, size_t size)
{
	size_t n = header_size(p, size);
	const char *fault = size >= 2 ? header_fault(w, p) : NULL;

	if (fault) {
		fail(w, WEBSOCKET_PROTOCOL_ERROR, fault);
		return 0;
	}
	if (!n)
		return 0;
	w->frame_final = p[0] & 0x80;
	w->opcode = p[0] & 0xf;
	memcpy(w->mask, p + n - 4, 4);
	w->mask_at = 0;
	w->in_frame = true;
	w->control_size = 0;
	if (!read_length(p, &w->left))
		fail(w, WEBSOCKET_PROTOCOL_ERROR, "the length is not in its shortest form");
	else if (w->opcode < OP_CLOSE)
		begin_message_frame(w);
	return n;
}

static void end_frame(struct websocket *w)
{
	w->in_frame = false;
	if (w->opcode >= OP_CLOSE) {
		on_control_frame(w);
	} else if (w->frame_final) {
		w->in_message = false;
		if (w->text && w->utf8.missing)
			fail(w, WEBSOCKET_NOT_UTF8, "text that is not UTF-8");
	}
}

/* Unmasks in place. False when it is over. */
static bool take_payload(struct websocket *w, uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		p[i] ^= w->mask[w->mask_at++ & 3];
	w->left -= n;
	if (w->opcode >= OP_CLOSE) {
		memcpy(w->control + w->control_size, p, n);
		w->control_size += n;
		return true;
	}
	if (w->text && !utf8_check(&w->utf8, p, n)) {
		fail(w, WEBSOCKET_NOT_UTF8, "text that is not UTF-8");
		return true;
	}
	return !n || w->close_sent || tell_data(w, p, n);
}

/* False when w is over or gone. */
static bool work_off(struct websocket *w)
{
	size_t at = 0, n = 1;

	while (n && !w->dead && !w->close_received && !w->paused) {
		if (!w->in_frame) {
			n = begin_frame(w, w->input + at, w->input_size - at);
			at += n;
			if (!n || w->left || w->close_received)
				continue;
		}
		n = MIN(w->left, w->input_size - at);
		if (n && !take_payload(w, w->input + at, n))
			return false;
		at += n;
		if (!w->left && !w->close_received) {
			end_frame(w);
			n = 1;
		}
	}
	memmove(w->input, w->input + at, w->input_size - at);
	w->input_size -= at;
	return !w->dead;
}

/* Frees w when it was freed inside of a call. */
static void run(struct websocket *w, uint32_t events)
{
	ssize_t n;

	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR) && !w->paused &&
	    w->input_size < sizeof(w->input)) {
		n = recv(w->watch.fd, w->input + w->input_size, sizeof(w->input) - w->input_size,
			 MSG_DONTWAIT);
		if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
			lose(w);
			return;
		}
		w->input_size += n > 0 ? (size_t)n : 0;
		w->pinged = false;
		if (!w->close_sent)
			loop_timer_arm(&w->timer, loop_now(w->loop) + w->o.ping_ms * MS);
	} else if (events & (EPOLLHUP | EPOLLERR)) {
		lose(w);
		return;
	}
	if (!work_off(w)) {
		if (!w->o.events)
			websocket_free(w);
		return;
	}
	if (flush(w))
		watch_again(w);
}

static void on_watch(struct loop_watch *watch, uint32_t events)
{
	run(container_of(watch, struct websocket, watch), events);
}

static void on_task(struct loop_task *t)
{
	struct websocket *w = container_of(t, struct websocket, task);

	if (!w->dead) {
		run(w, 0);
		return;
	}
	w->in_call = true;
	w->o.events->closed(w->o.context, w, w->code);
	w->in_call = false;
	websocket_free(w);
}

static void on_timer(struct loop_timer *t)
{
	struct websocket *w = container_of(t, struct websocket, timer);

	if (w->close_sent) {
		end(w, w->code);
	} else if (w->pinged) {
		end(w, WEBSOCKET_ABNORMAL);
	} else {
		w->pinged = true;
		loop_timer_arm(&w->timer, loop_now(w->loop) + w->o.ping_ms * MS);
		if (queue_frame(w, OP_PING, NULL, 0) >= 0)
			send_soon(w);
	}
}

int websocket_new(struct loop *loop, const struct websocket_options *o, struct websocket **ret)
{
	struct websocket *w = calloc(1, sizeof(*w));

	if (!w)
		return -ENOMEM;
	w->loop = loop;
	w->o = *o;
	if (!w->o.ping_ms)
		w->o.ping_ms = PING_MS;
	w->watch.fd = -1;
	loop_timer_init(loop, &w->timer, on_timer);
	loop_task_init(&w->task, on_task);
	*ret = w;
	return 0;
}

int websocket_begin(struct websocket *w, int fd, const void *data, size_t size)
{
	int r;

	assert(!w->begun);
	if (size > sizeof(w->input))
		return -E2BIG;
	w->watched = EPOLLIN;
	r = loop_watch(w->loop, &w->watch, fd, EPOLLIN, on_watch);
	if (r < 0)
		return r;
	if (size)
		memcpy(w->input, data, size);
	w->input_size = size;
	w->begun = true;
	loop_timer_arm(&w->timer,
		       loop_now(w->loop) + (w->close_sent ? CLOSE_MS : w->o.ping_ms) * MS);
	send_soon(w);
	return 0;
}

void websocket_pause(struct websocket *w, bool pause)
{
	if (w->paused == pause)
		return;
	w->paused = pause;
	send_soon(w);
}

int websocket_accept(const char *key, char ret[static 29])
{
	static const char magic[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"; /* RFC 6455 1.3 */
	gnutls_datum_t in = { (unsigned char *)key, (unsigned)strlen(key) }, out = { 0 };
	char text[24 + sizeof(magic)];
	uint8_t hash[20];
	bool valid;

	if (in.size != 24 || gnutls_base64_decode2(&in, &out) < 0)
		return -EINVAL;
	valid = out.size == 16;
	gnutls_free(out.data);
	if (!valid)
		return -EINVAL;
	memcpy(text, key, 24);
	memcpy(text + 24, magic, sizeof(magic));
	if (gnutls_hash_fast(GNUTLS_DIG_SHA1, text, sizeof(text) - 1, hash) < 0)
		return -EIO;
	in = (gnutls_datum_t){ hash, sizeof(hash) };
	if (gnutls_base64_encode2(&in, &out) < 0)
		return -ENOMEM;
	snprintf(ret, 29, "%.*s", (int)out.size, out.data);
	gnutls_free(out.data);
	return 0;
}
