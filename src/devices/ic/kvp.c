// SPDX-License-Identifier: MIT
/*
 * See kvp.h. Calls wait in a list; its first one is what the guest was asked. An enumeration asks
 * for one item after the other until the guest says that there are no more.
 *
 * The guest does not tell when its own items change, so they are read again: soon after it came,
 * since its network is not up at once, then ever more seldom, and whenever somebody wants to know.
 * Event loop's thread.
 */
#include "devices/ic/kvp.h"

#include "devices/ic/ic_proto.h"
#include "lib/cleanup.h"
#include "lib/utf16.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define INFO_FIRST 2u /* seconds; doubled each time */
#define INFO_LAST  64u

static const struct ic_version versions[] = { { 1, 0 }, { 3, 0 }, { 4, 0 } };

const char *const kvp_pool_names[KVP_POOLS] = {
	[KVP_EXTERNAL] = "external",
	[KVP_GUEST] = "guest",
	[KVP_AUTO] = "auto",
	[KVP_AUTO_EXTERNAL] = "auto-external",
	[KVP_AUTO_INTERNAL] = "auto-internal",
};

static struct kvp *of(struct ic *ic)
{
	return container_of(ic, struct kvp, ic);
}

/* --- items --- */

void kvp_items_clear(struct kvp_items *items)
{
	for (unsigned i = 0; i < items->count; i++) {
		free(items->list[i].key);
		free(items->list[i].value);
	}
	free(items->list);
	*items = (struct kvp_items){ 0 };
}

const char *kvp_items_find(const struct kvp_items *items, const char *key)
{
	for (unsigned i = 0; i < items->count; i++)
		if (!strcmp(items->list[i].key, key))
			return items->list[i].value;
	return NULL;
}

static bool items_equal(const struct kvp_items *a, const struct kvp_items *b)
{
	if (a->count != b->count)
		return false;
	for (unsigned i = 0; i < a->count; i++)
		if (strcmp(a->list[i].key, b->list[i].key) ||
		    strcmp(a->list[i].value, b->list[i].value))
			return false;
	return true;
}

/* Takes both texts. -ENOBUFS when there are too many. */
static int items_add(struct kvp_items *items, char *key, char *value)
{
	struct kvp_item *list = NULL;
	int r = items->count < KVP_ITEMS_MAX ? -ENOMEM : -ENOBUFS;

	if (key && value && items->count < KVP_ITEMS_MAX)
		list = realloc(items->list, (items->count + 1) * sizeof(*list));
	if (!list) {
		free(key);
		free(value);
		return r;
	}
	items->list = list;
	list[items->count++] = (struct kvp_item){ key, value };
	return 0;
}

void kvp_ip_clear(struct kvp_ip *ip)
{
	free(ip->adapter);
	free(ip->addresses);
	free(ip->subnets);
	free(ip->gateways);
	free(ip->dns);
	*ip = (struct kvp_ip){ 0 };
}

static int text_check(const char *text, unsigned least, unsigned most, const char *what,
		      struct error *err)
{
	uint8_t units[2 * (KVP_VALUE_MAX + 1)];
	size_t size = *text ? utf16_encode(text, units, 2 * most, UTF16_LE) : 0;

	if ((*text && !size) || size < 2 * least || size > 2 * (size_t)most)
		return error_set(err, -EINVAL, "%s must be text of %u to %u characters", what,
				 least, most);
	return 0;
}

int kvp_key_check(const char *key, struct error *err)
{
	return text_check(key, 1, KVP_KEY_MAX, "a key", err);
}

int kvp_value_check(const char *value, struct error *err)
{
	return text_check(value, 0, KVP_VALUE_MAX, "a value", err);
}

/* --- what is asked --- */

/* Sizes on the wire count bytes and the NUL. */
static uint32_t wire_size(const char *text)
{
	uint8_t units[HV_KVP_EXCHANGE_MAX_VALUE_SIZE];

	return (uint32_t)(*text ? utf16_encode(text, units, sizeof(units), UTF16_LE) : 0) + 2;
}

static bool write_key(struct writer *w, const char *key)
{
	return ic_text(w, key, HV_KVP_EXCHANGE_MAX_KEY_SIZE);
}

/* hv_kvp_exchg_msg_value */
static bool write_value(struct writer *w, const struct kvp_call *c)
{
	const char *value = c->value ? c->value : "";

	writer_le32(w, REG_SZ);
	writer_le32(w, c->key ? wire_size(c->key) : 0);
	writer_le32(w, c->value ? wire_size(value) : 0);
	return write_key(w, c->key ? c->key : "") &&
	       ic_text(w, value, HV_KVP_EXCHANGE_MAX_VALUE_SIZE);
}

static bool write_item(struct kvp *k, struct writer *w, const struct kvp_call *c)
{
	(void)k;
	return write_value(w, c);
}

static bool write_delete(struct kvp *k, struct writer *w, const struct kvp_call *c)
{
	(void)k;
	writer_le32(w, wire_size(c->key));
	if (!write_key(w, c->key))
		return false;
	/* Room for what the guest may look at in the largest body of its union. */
	writer_zero(w, 12 + HV_KVP_EXCHANGE_MAX_VALUE_SIZE - 4);
	return true;
}

static bool write_enumerate(struct kvp *k, struct writer *w, const struct kvp_call *c)
{
	(void)k;
	writer_le32(w, c->items.count);
	return write_value(w, c);
}

static const char *or_empty(const char *text)
{
	return text ? text : "";
}

static bool write_ip(struct kvp *k, struct writer *w, const struct kvp_call *c)
{
	const struct kvp_ip *ip = &c->ip;
	bool fits = ic_text(w, or_empty(ip->adapter), KVP_ADAPTER_ID_SIZE);

	(void)k;
	writer_u8(w,
		  (uint8_t)((ip->ipv4 ? ADDR_FAMILY_IPV4 : 0) | (ip->ipv6 ? ADDR_FAMILY_IPV6 : 0)));
	writer_u8(w, ip->dhcp);
	return fits && ic_text(w, or_empty(ip->addresses), KVP_IP_ADDR_SIZE) &&
	       ic_text(w, or_empty(ip->subnets), KVP_IP_ADDR_SIZE) &&
	       ic_text(w, or_empty(ip->gateways), KVP_GATEWAY_SIZE) &&
	       ic_text(w, or_empty(ip->dns), KVP_IP_ADDR_SIZE);
}

/* --- what is answered --- */

/* `size` bytes of a field of `room`: text as UTF-8, or NULL when it is none. */
static char *read_text(struct reader *r, uint32_t size, size_t room)
{
	const void *at = reader_take(r, room);

	if (!at || size > room)
		return NULL;
	return utf16_decode(at, size, UTF16_LE);
}

static char *number_text(uint64_t number)
{
	char text[24];

	snprintf(text, sizeof(text), "%" PRIu64, number);
	return strdup(text);
}

static char *read_value(struct reader *r, uint32_t type, uint32_t size)
{
	struct reader v = { 0 };

	if (type == REG_SZ)
		return read_text(r, size, HV_KVP_EXCHANGE_MAX_VALUE_SIZE);
	v = reader_of(r->data + r->at, MIN(reader_left(r), 8u));
	reader_skip(r, HV_KVP_EXCHANGE_MAX_VALUE_SIZE);
	if (type == REG_U32)
		return number_text(reader_le32(&v));
	return type == REG_U64 ? number_text(reader_le64(&v)) : NULL;
}

/* hv_kvp_exchg_msg_value: one more item. */
static int take_item(struct kvp_call *c, struct reader *r)
{
	uint32_t type = reader_le32(r), key_size = reader_le32(r), value_size = reader_le32(r);
	char *key = read_text(r, key_size, HV_KVP_EXCHANGE_MAX_KEY_SIZE);
	char *value = read_value(r, type, value_size);

	if (!reader_ok(r) || !key || !value) {
		free(key);
		free(value);
		return -EBADMSG;
	}
	return items_add(&c->items, key, value);
}

static int take_nothing(struct kvp_call *c, struct reader *r)
{
	(void)c;
	(void)r;
	return 0;
}

/* 1 = there may be more. */
static int take_enumerated(struct kvp_call *c, struct reader *r)
{
	int error;

	reader_skip(r, 4); /* the index */
	error = take_item(c, r);
	if (error == -ENOBUFS)
		return 0; /* as many as we keep */
	return error < 0 ? error : 1;
}

static int take_ip(struct kvp_call *c, struct reader *r)
{
	struct kvp_ip *ip = &c->ip;
	uint8_t family;

	kvp_ip_clear(ip);
	ip->adapter = read_text(r, KVP_ADAPTER_ID_SIZE, KVP_ADAPTER_ID_SIZE);
	family = reader_u8(r);
	ip->ipv4 = family & ADDR_FAMILY_IPV4;
	ip->ipv6 = family & ADDR_FAMILY_IPV6;
	ip->dhcp = reader_u8(r);
	ip->addresses = read_text(r, KVP_IP_ADDR_SIZE, KVP_IP_ADDR_SIZE);
	ip->subnets = read_text(r, KVP_IP_ADDR_SIZE, KVP_IP_ADDR_SIZE);
	ip->gateways = read_text(r, KVP_GATEWAY_SIZE, KVP_GATEWAY_SIZE);
	ip->dns = read_text(r, KVP_IP_ADDR_SIZE, KVP_IP_ADDR_SIZE);
	return reader_ok(r) && ip->adapter && ip->addresses && ip->subnets && ip->gateways &&
			       ip->dns
		       ? 0
		       : -EBADMSG;
}

static const struct {
	bool (*write)(struct kvp *k, struct writer *w, const struct kvp_call *c);
	int (*take)(struct kvp_call *c, struct reader *r);
	uint16_t version; /* major, from which a guest knows it */
} ops[] = {
	/* by enum kvp_op, which is the wire's */
	[KVP_GET] = { write_item, take_item, 1 },
	[KVP_SET] = { write_item, take_nothing, 1 },
	[KVP_DELETE] = { write_delete, take_nothing, 1 },
	[KVP_ENUMERATE] = { write_enumerate, take_enumerated, 1 },
	[KVP_GET_IP] = { write_ip, take_ip, 4 },
	[KVP_SET_IP] = { write_ip, take_nothing, 4 },
};

/* --- the queue --- */

static void end(struct kvp *k, struct kvp_call *c, int result, const struct error *err)
{
	list_remove(&c->node);
	k->waiting_count--;
	c->done(c, result, err);
}

static bool ask(struct kvp *k, struct kvp_call *c)
{
	struct writer w = ic_begin(&k->ic);

	writer_u8(&w, (uint8_t)c->op);
	writer_u8(&w, (uint8_t)c->pool);
	writer_zero(&w, 2);
	if (!ops[c->op].write(k, &w, c) || !writer_ok(&w))
		return false;
	k->asked = c;
	ic_send(&k->ic, &w);
	return true;
}

static void pump(struct kvp *k)
{
	if (k->pumping)
		return;
	k->pumping = true; /* `done` may ask for something else */
	while (!list_empty(&k->waiting) && ic_usable(&k->ic, NULL) == 0) {
		struct kvp_call *c = list_first(&k->waiting, struct kvp_call, node);
		struct error err = { 0 };

		if (ask(k, c))
			break;
		end(k, c, error_set(&err, -EINVAL, "a text is too long for the guest"), &err);
	}
	k->pumping = false;
}

int kvp_ask(struct kvp *k, struct kvp_call *call, struct error *err)
{
	list_init(&call->node);
	if (k->ic.state != IC_READY)
		return ic_usable(&k->ic, err);
	if (k->silent && call != &k->info_call)
		return error_set(err, -ETIMEDOUT,
				 "the guest's key-value daemon has not answered what it was asked "
				 "before, and has said nothing since");
	if (k->ic.version.major < ops[call->op].version)
		return error_set(err, -EOPNOTSUPP,
				 "the guest speaks version %u.%u of key-value exchange, which has "
				 "no addresses",
				 k->ic.version.major, k->ic.version.minor);
	if (k->waiting_count == KVP_WAITING_MAX)
		return error_set(err, -EBUSY, "%u things wait for the guest's answer already",
				 KVP_WAITING_MAX);
	list_append(&k->waiting, &call->node);
	k->waiting_count++;
	pump(k);
	return 0;
}

void kvp_drop(struct kvp *k, struct kvp_call *call)
{
	if (!call->node.next || list_empty(&call->node))
		return;
	list_remove(&call->node);
	k->waiting_count--;
	if (k->asked == call)
		k->asked = NULL; /* its answer is nobody's */
}

static void answered(struct kvp *k, struct kvp_call *c, int result, uint32_t status,
		     struct reader *body)
{
	struct error err = { 0 };
	int r = result;

	if (result == -ETIMEDOUT) {
		error_set(&err, r, "the guest's key-value daemon did not answer within %u s",
			  KVP_ANSWER_SECONDS);
	} else if (result < 0) {
		error_set(&err, r, "the guest went away before it answered");
	} else if (status == HV_S_CONT && c->op == KVP_ENUMERATE) {
		r = 0;
	} else if (ic_status_error(status, &err) < 0) {
		r = err.code;
	} else {
		reader_skip(body, 4);
		r = ops[c->op].take(c, body);
		if (r < 0)
			error_set(&err, r, "the guest's answer makes no sense");
	}
	if (r <= 0)
		end(k, c, r, &err);
}

static void on_answer(struct ic *ic, int result, uint32_t status, struct reader *body)
{
	struct kvp *k = of(ic);

	struct kvp_call *c = steal_ptr(k->asked);

	k->silent = result == -ETIMEDOUT;
	if (c)
		answered(k, c, result, status, body);
	pump(k);
}

/* --- what the guest says of itself --- */

static void arm_info(struct kvp *k)
{
	if (k->ic.state != IC_READY || k->ic.paused)
		return;
	loop_timer_arm(&k->info_timer, loop_now(k->ic.loop) + k->info_wait * UINT64_C(1000000000));
	k->info_wait = MIN(2 * k->info_wait, INFO_LAST);
}

static void info_set(struct kvp *k, struct kvp_items *items, bool known)
{
	bool same = known == k->info_known && items_equal(items, &k->info);
	struct kvp_items old = k->info;

	k->info = *items;
	*items = (struct kvp_items){ 0 };
	k->info_known = known;
	kvp_items_clear(&old);
	if (!same && k->info_changed)
		k->info_changed(k);
}

static void on_info(struct kvp_call *call, int result, const struct error *err)
{
	struct kvp *k = container_of(call, struct kvp, info_call);

	(void)err;
	k->info_asked = false;
	if (result == 0) {
		k->info_read = loop_now(k->ic.loop);
		info_set(k, &call->items, true);
	}
	kvp_items_clear(&call->items);
	arm_info(k);
}

static void read_info(struct kvp *k)
{
	if (k->info_asked)
		return;
	k->info_call = (struct kvp_call){ .op = KVP_ENUMERATE, .pool = KVP_AUTO, .done = on_info };
	k->info_asked = true;
	if (kvp_ask(k, &k->info_call, NULL) < 0) {
		k->info_asked = false;
		arm_info(k);
	}
}

static void on_info_due(struct loop_timer *t)
{
	read_info(container_of(t, struct kvp, info_timer));
}

void kvp_refresh(struct kvp *k)
{
	k->info_wait = INFO_FIRST;
	if (k->ic.state == IC_READY && !k->ic.paused)
		read_info(k);
}

/*
 * Without its daemon Linux does not read what it is asked, and answers all of it when the daemon is
 * back (drivers/hv/hv_kvp.c, hv_kvp_onchannelcallback).
 */
static void on_heard(struct ic *ic)
{
	struct kvp *k = of(ic);

	k->silent = false;
	if (!k->ic.busy)
		kvp_refresh(k);
}

static void on_ready(struct ic *ic)
{
	struct kvp *k = of(ic);

	k->silent = false;
	if (k->ready)
		k->ready(k);
	kvp_refresh(k);
}

/* What the guest said of itself is no longer known to be true. */
static void on_gone(struct ic *ic)
{
	struct kvp *k = of(ic);
	struct kvp_items none = { 0 };
	struct error err = { 0 };

	error_set(&err, -ECONNRESET, "the guest went away before it was asked");
	while (!list_empty(&k->waiting))
		end(k, list_first(&k->waiting, struct kvp_call, node), -ECONNRESET, &err);
	loop_timer_disarm(&k->info_timer);
	info_set(k, &none, false);
}

static const struct ic_service service = {
	.name = "key-value-exchange",
	.type = IC_BUS_TYPE("kvp", 0xa9a0f4e7, 0x5a45, 0x4d96, 0xb8, 0x27, 0x8a, 0x84, 0x1e, 0x8c,
			    0x03, 0xe6),
	.instance =
		GUID(0x242ff919, 0x07db, 0x4180, 0x9c, 0x2e, 0xb8, 0x6c, 0xb6, 0x8c, 0x8c, 0x55),
	.message = ICMSGTYPE_KVPEXCHANGE,
	.framework_1 = true,
	.versions = versions,
	.version_count = ARRAY_SIZE(versions),
	.answer_seconds = KVP_ANSWER_SECONDS,
	.ready = on_ready,
	.gone = on_gone,
	.answered = on_answer,
	.heard = on_heard,
};

void kvp_pause(struct kvp *k)
{
	ic_pause(&k->ic);
	loop_timer_disarm(&k->info_timer);
}

void kvp_resume(struct kvp *k)
{
	ic_resume(&k->ic);
	pump(k);
	kvp_refresh(k);
}

void kvp_init(struct kvp *k, struct loop *loop, struct vmbus *bus)
{
	ic_init(&k->ic, &service, loop, bus);
	list_init(&k->waiting);
	k->info_wait = INFO_FIRST;
	loop_timer_init(loop, &k->info_timer, on_info_due);
}

void kvp_deinit(struct kvp *k)
{
	if (!k->ic.loop)
		return;
	loop_timer_disarm(&k->info_timer);
	kvp_items_clear(&k->info_call.items);
	kvp_items_clear(&k->info);
	ic_deinit(&k->ic);
}
