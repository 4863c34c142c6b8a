// SPDX-License-Identifier: MIT
/*
 * See dns.h. This half has what is known here, and queries by UDP. A query in flight has a
 * connected socket, so that the kernel drops what does not come from the server that was asked.
 */
#include "lib/cleanup.h"
#include "net/dns_private.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>

struct flight {
	struct dns *dns;
	struct list node;
	struct loop_watch watch;
	struct loop_timer timer;
	struct dns_who who;
	struct dns_query query;
	unsigned tries;
	size_t size;
	uint8_t message[DNS_QUERY_MAX]; /* with the id that is sent */
};

uint16_t dns_random_id(void)
{
	uint16_t id = 0;

	/* It does not fail once the kernel has entropy; a zero would be no hole, only weaker. */
	(void)!getrandom(&id, sizeof(id), 0);
	return id;
}

int dns_connect(const union dns_server *server, int type)
{
	socklen_t size =
		server->any.sa_family == AF_INET6 ? sizeof(server->ip6) : sizeof(server->ip4);
	int fd = socket(server->any.sa_family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	if (connect(fd, &server->any, size) < 0 && errno != EINPROGRESS) {
		int r = -errno;

		close(fd);
		return r;
	}
	return fd;
}

/* ---- what is known here ---- */

/* "label" of "label.domain" in `label`; false = it is not below the domain. *ret_deep: more. */
static bool below_domain(const struct dns *d, const char *name, char label[static DNS_NAME_TEXT])
{
	size_t n = strlen(name), m = strlen(d->domain);

	if (!m || n < m || strcmp(name + n - m, d->domain) != 0)
		return false;
	if (n == m) {
		*label = '\0';
		return true;
	}
	if (name[n - m - 1] != '.')
		return false;
	memcpy(label, name, n - m - 1);
	label[n - m - 1] = '\0';
	return true;
}

static size_t answer_name(struct dns *d, const void *message, const struct dns_query *q,
			  const char *label, struct writer *w)
{
	uint32_t address;
	be32 wire;

	if (*label && !d->settings.find_name(d->settings.context, label, &address))
		return dns_write_refusal(message, q, DNS_NO_NAME, w->data, w->size);
	if (!*label || (q->type != DNS_A && q->type != DNS_ANY))
		return dns_write_record(message, q, 0, NULL, 0, w);
	wire = be32_of(address);
	return dns_write_record(message, q, DNS_A, &wire, sizeof(wire), w);
}

/* RFC 1035 3.5: "4.3.2.1.in-addr.arpa". */
static bool reverse_address(const char *name, uint32_t *ret)
{
	unsigned a, b, c, e;
	int end = 0;

	if (sscanf(name, "%3u.%3u.%3u.%3u.in-addr.arpa%n", &a, &b, &c, &e, &end) != 4 || !end ||
	    name[end] || a > 255 || b > 255 || c > 255 || e > 255)
		return false;
	*ret = e << 24 | c << 16 | b << 8 | a;
	return true;
}

static size_t answer_address(struct dns *d, const void *message, const struct dns_query *q,
			     uint32_t address, struct writer *w)
{
	char label[DNS_NAME_TEXT], name[2 * DNS_NAME_TEXT];
	uint8_t wire[DNS_NAME_TEXT];
	size_t size = 0;

	if (d->settings.find_address(d->settings.context, address, label)) {
		snprintf(name, sizeof(name), "%s%s%s", label, *d->domain ? "." : "", d->domain);
		size = dns_write_name(name, wire, sizeof(wire));
	}
	if (!size)
		return dns_write_refusal(message, q, DNS_NO_NAME, w->data, w->size);
	if (q->type != DNS_PTR && q->type != DNS_ANY)
		return dns_write_record(message, q, 0, NULL, 0, w);
	return dns_write_record(message, q, DNS_PTR, wire, size, w);
}

ssize_t dns_answer_here(struct dns *d, const void *message, size_t size, struct dns_query *q,
			struct writer *w)
{
	char label[DNS_NAME_TEXT];
	uint32_t address;
	int r = dns_read_query(message, size, q);

	d->counters.asked++;
	if (r) {
		d->counters.refused++;
		return r < 0 ? r
			     : (ssize_t)dns_write_refusal(message, q, (enum dns_rcode)r, w->data,
							  w->size);
	}
	if (below_domain(d, q->name, label)) {
		d->counters.local++;
		return (ssize_t)answer_name(d, message, q, label, w);
	}
	if (reverse_address(q->name, &address) &&
	    (address & d->settings.mask) == d->settings.network) {
		d->counters.local++;
		return (ssize_t)answer_address(d, message, q, address, w);
	}
	if (!d->settings.server_count)
		return (ssize_t)dns_write_refusal(message, q, DNS_FAILED, w->data, w->size);
	return 0;
}

/* ---- queries in flight ---- */

static void flight_unplug(struct flight *f)
{
	int fd = f->watch.fd;

	loop_unwatch(&f->watch);
	if (fd >= 0)
		close(fd);
	f->watch.fd = -1;
}

static void flight_free(struct flight *f)
{
	flight_unplug(f);
	loop_timer_disarm(&f->timer);
	list_remove(&f->node);
	f->dns->flight_count--;
	free(f);
}

/* Ends it: with an answer of ours. */
static void flight_fail(struct flight *f)
{
	uint8_t answer[DNS_QUERY_MAX];
	struct dns *d = f->dns;
	size_t n = dns_write_refusal(f->message, &f->query, DNS_FAILED, answer, sizeof(answer));
	struct dns_who who = f->who;

	flight_free(f);
	d->settings.answer(d->settings.context, &who, answer, n);
}

/* RFC 2181 9: what the client cannot take it asks for by TCP. */
static void flight_answer(struct flight *f, uint8_t *answer, size_t size)
{
	struct dns *d = f->dns;
	struct dns_who who = f->who;

	d->counters.answered++;
	if (size > f->query.udp_size)
		size = dns_write_truncated(f->message, &f->query, answer, DNS_UDP_MAX);
	dns_set_id(answer, f->query.id);
	flight_free(f);
	d->settings.answer(d->settings.context, &who, answer, size);
}

static void flight_try(struct flight *f);

static void flight_readable(struct loop_watch *w, uint32_t events)
{
	struct flight *f = container_of(w, struct flight, watch);
	uint8_t answer[DNS_QUERY_MAX + 4 * KIB];
	ssize_t n = recv(w->fd, answer, sizeof(answer), MSG_TRUNC);
	enum dns_rcode code;

	(void)events;
	if (n < 0) {
		/* Nobody is there, as the other side's host says: the next, at once. */
		if (errno != EAGAIN && errno != EINTR)
			flight_try(f);
		return;
	}
	if ((size_t)n > sizeof(answer) || !dns_answers(f->message, &f->query, answer, (size_t)n)) {
		f->dns->counters.lies++;
		return;
	}
	code = dns_answer_code(answer);
	if ((code == DNS_FAILED || code == DNS_REFUSED) && f->tries < f->dns->settings.server_count)
		flight_try(f);
	else
		flight_answer(f, answer, (size_t)n);
}

static void flight_late(struct loop_timer *t)
{
	struct flight *f = container_of(t, struct flight, timer);

	f->dns->counters.timeouts++;
	flight_try(f);
}

static int flight_send(struct flight *f)
{
	struct dns *d = f->dns;
	int fd, r;

	fd = dns_connect(&d->settings.servers[f->tries % d->settings.server_count], SOCK_DGRAM);
	if (fd < 0)
		return fd;
	dns_set_id(f->message, dns_random_id());
	r = loop_watch(d->settings.loop, &f->watch, fd, EPOLLIN, flight_readable);
	if (r < 0) {
		close(fd);
		return r;
	}
	return send(fd, f->message, f->size, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

/* The next server; f may be gone after it. */
static void flight_try(struct flight *f)
{
	struct dns *d = f->dns;
	unsigned most = MAX(DNS_TRIES, d->settings.server_count);
	int r = -EIO;

	flight_unplug(f);
	while (r < 0 && f->tries < most && d->settings.server_count) {
		r = flight_send(f);
		if (r < 0)
			flight_unplug(f);
		f->tries++;
	}
	if (r < 0) {
		flight_fail(f);
		return;
	}
	loop_timer_arm(&f->timer, loop_now(d->settings.loop) + DNS_TRY_NS);
}

static unsigned flights_of(const struct dns *d, const struct dns_who *who)
{
	unsigned n = 0;

	list_foreach(it, &d->flights) n +=
		!memcmp(list_entry(it, struct flight, node)->who.bytes, who->bytes, DNS_WHO_ALIKE);
	return n;
}

/* The same question again, as clients repeat it: the first one's answer will do. */
static bool in_flight(const struct dns *d, const struct dns_who *who, const struct dns_query *q)
{
	list_foreach(it, &d->flights)
	{
		const struct flight *f = list_entry(it, struct flight, node);

		if (!memcmp(&f->who, who, sizeof(*who)) && f->query.id == q->id &&
		    f->query.type == q->type && !strcmp(f->query.name, q->name))
			return true;
	}
	return false;
}

static void forward(struct dns *d, const struct dns_who *who, const struct dns_query *q,
		    const void *message, size_t size)
{
	struct flight *f;

	if (in_flight(d, who, q))
		return;
	f = d->flight_count < DNS_FLIGHTS_MAX && flights_of(d, who) < DNS_CLIENT_MAX
		    ? calloc(1, sizeof(*f))
		    : NULL;
	if (!f) {
		d->counters.dropped++;
		return;
	}
	f->dns = d;
	f->who = *who;
	f->query = *q;
	f->query.udp_size = (uint16_t)MIN(q->udp_size, DNS_UDP_MAX);
	f->size = size;
	memcpy(f->message, message, size);
	if (q->edns) {
		be16 wire = be16_of(f->query.udp_size);

		memcpy(f->message + q->udp_size_at, &wire, sizeof(wire));
	}
	f->watch.fd = -1;
	loop_timer_init(d->settings.loop, &f->timer, flight_late);
	list_append(&d->flights, &f->node);
	d->flight_count++;
	d->counters.forwarded++;
	/* From the loop, not from in here: it may fail at once. */
	loop_timer_arm(&f->timer, loop_now(d->settings.loop) + DNS_TRY_NS);
	if (flight_send(f) < 0) {
		flight_unplug(f);
		loop_timer_arm(&f->timer, 1);
	}
	f->tries++;
}

size_t dns_ask(struct dns *d, const struct dns_who *who, const void *query, size_t size,
	       void *answer, size_t room)
{
	struct writer w = writer_of(answer, room);
	struct dns_query q;
	ssize_t n = dns_answer_here(d, query, size, &q, &w);

	if (n)
		return n < 0 ? 0 : (size_t)n;
	forward(d, who, &q, query, size);
	return 0;
}

/* ---- */

int dns_new(const struct dns_settings *settings, struct dns **ret, struct error *err)
{
	struct dns *d;

	if (strlen(settings->domain) >= sizeof(d->domain) - 1)
		return error_set(err, -EINVAL, "the domain of the machines is too long");
	d = calloc(1, sizeof(*d));
	if (!d)
		return error_set(err, -ENOMEM, "no memory for a DNS forwarder");
	d->settings = *settings;
	strcpy(d->domain, settings->domain);
	for (char *c = d->domain; *c; c++)
		if (*c >= 'A' && *c <= 'Z')
			*c = (char)(*c | 0x20);
	d->settings.domain = d->domain;
	d->listener.fd = -1;
	list_init(&d->flights);
	list_init(&d->streams);
	*ret = d;
	return 0;
}

void dns_free(struct dns *d)
{
	if (!d)
		return;
	list_foreach_safe(it, &d->flights) flight_free(list_entry(it, struct flight, node));
	dns_streams_end(d);
	free(d);
}

void dns_set_servers(struct dns *d, const union dns_server *servers, unsigned count)
{
	d->settings.server_count = MIN(count, DNS_SERVERS_MAX);
	memcpy(d->settings.servers, servers, d->settings.server_count * sizeof(*servers));
}

struct dns_counters dns_counters(const struct dns *d)
{
	return d->counters;
}
