/* SPDX-License-Identifier: MIT */
/*
 * What all integration services have in common: a VMBus device of framed messages where the host
 * speaks first. It offers versions, the guest picks one of each kind; then the host asks and the
 * guest answers, one transaction at a time. A service is a `struct ic` in a struct of its own.
 *
 * Everything that comes from the guest is judged here: a packet that is no answer to what was asked
 * (stale, unknown, too short) is counted and forgotten. Event loop's thread.
 */
#pragma once

#include "lib/error.h"
#include "vmbus/device.h"
#include "vmbus/vmbus_proto.h"

#define IC_MESSAGE_MAX 8192u /* bytes of what the host sends; the longest is KVP's addresses */

struct ic;

struct ic_version {
	uint16_t major, minor;
};

enum ic_state {
	IC_OFF,         /* not offered to the guest */
	IC_CLOSED,      /* the guest has not opened it, or closed it */
	IC_NEGOTIATING, /* it has, and has not yet picked a version: its daemon may be late */
	IC_READY,
	IC_REFUSED, /* it knows none of our versions, or answered nonsense */
};

/* One per kind of service, const. */
struct ic_service {
	const char *name; /* for people and commands: "heartbeat" */
	struct vmbus_device_type
		type; /* ic_open, ic_close, ic_signal, ic_reset and the interface */
	struct guid instance;
	uint16_t message; /* ICMSGTYPE_* */
	bool framework_1; /* speaks in framework 1.0 too */
	const struct ic_version *versions;
	unsigned version_count;
	unsigned answer_seconds; /* how long an answer may take; 0 = the service looks after that */
	/* All but `answered` may be NULL. The guest has picked versions: requests may be sent. */
	void (*ready)(struct ic *ic);
	/* The channel is closed, or negotiated anew; `answered` has been called for what was asked.
	 */
	void (*gone)(struct ic *ic);
	/*
	 * What was sent is answered: result 0, with the guest's status and what follows; or
	 * -ETIMEDOUT or -ECONNRESET without. A next request may be sent from in here.
	 */
	void (*answered)(struct ic *ic, int result, uint32_t status, struct reader *body);
	/* An answer came after its time: the guest is there again. */
	void (*heard)(struct ic *ic);
	/* There is room again that ic_room did not find. */
	void (*room)(struct ic *ic);
};

struct ic {
	const struct ic_service *service;
	struct loop *loop;
	struct vmbus *bus;
	struct vmbus_channel *offer, *channel; /* offered; open */
	bool wanted, leaving, paused;
	enum ic_state state;
	struct ic_version framework, version;             /* picked; valid in IC_READY */
	struct ic_version guest_framework, guest_version; /* what was nonsense, in IC_REFUSED */
	uint8_t transaction;
	bool busy;   /* something was asked and is not answered */
	bool unsent; /* it is not in the ring yet either */
	struct loop_timer answer_timer;
	struct loop_task more;
	struct vmbus_channel *closing; /* waits for ic_release */
	bool held;
	uint64_t refused; /* packets of the guest that made no sense */
	/* The state has changed. NULL is fine. */
	void (*changed)(struct ic *ic);
	void *context; /* of who owns the service */
	size_t size;   /* of message */
	uint8_t message[IC_MESSAGE_MAX];
};

void ic_init(struct ic *ic, const struct ic_service *service, struct loop *loop, struct vmbus *bus);
void ic_deinit(struct ic *ic); /* the bus is freed or forgotten; harmless when not initialised */
/* Offers it or takes it back, while the guest runs or not. What is asked is done when it can be. */
int ic_switch(struct ic *ic, bool on, struct error *err) _must_check_;
/* The machine stands still: no time passes for answers, and nothing is sent. Then it goes on. */
void ic_pause(struct ic *ic);
void ic_resume(struct ic *ic);
/* The guest was put back to an earlier state: what it would still answer is stale. */
void ic_restart(struct ic *ic);

/* 0 when something can be asked now; else -ENOTCONN or -EBUSY with words that say why not. */
int ic_usable(const struct ic *ic, struct error *err) _must_check_;
/* Whether `size` bytes of body can go into the ring at once; if not, `room` is called. */
bool ic_room(struct ic *ic, size_t size);
/* The body of a request is written between these two; ic_usable must have been 0. */
struct writer ic_begin(struct ic *ic);
void ic_send(struct ic *ic, const struct writer *body);
bool ic_at_least(const struct ic *ic, uint16_t major, uint16_t minor); /* the version picked */
/* The channel does not count as closed in between: something of the service's is still under way.
 */
void ic_hold(struct ic *ic);
void ic_release(struct ic *ic);
const char *ic_state_name(enum ic_state state);
/* -errno and words for a status that a guest answered; 0 for success. */
int ic_status_error(uint32_t status, struct error *err) _must_check_;
/* Text as the guest has it (UTF-16 with a NUL) into `room` bytes, zero filled. false: too long. */
bool ic_text(struct writer *w, const char *text, size_t room) _must_check_;

int ic_open(void *device, struct vmbus_channel *ch);
void ic_close(void *device, struct vmbus_channel *ch);
void ic_signal(void *device, struct vmbus_channel *ch);
void ic_reset(void *device);

#define IC_BUS_TYPE(text, ...)                                                                     \
	{                                                                                          \
		.name = (text), .interface = GUID(__VA_ARGS__),                                    \
		.offer_flags =                                                                     \
			VMBUS_OFFER_ENUMERATE_DEVICE_INTERFACE | VMBUS_OFFER_NAMED_PIPE_MODE,      \
		.open = ic_open, .close = ic_close, .signal = ic_signal, .reset = ic_reset,        \
		.begins_anew = true                                                                \
	}
