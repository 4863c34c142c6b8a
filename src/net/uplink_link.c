// SPDX-License-Identifier: MIT
/*
 * Whether a wire's interface is up, by rtnetlink(7): asked once, and told of each change since.
 * When the kernel could not tell all (ENOBUFS) it is asked again. Reading that needs no rights.
 * Loop's thread.
 */
#include "net/uplink_private.h"

#include <errno.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define ROUNDS 16u /* messages that are read at once */

static void ask(const struct net_wire *w)
{
	struct {
		struct nlmsghdr header;
		struct ifinfomsg link;
	} q = {
		.header = { .nlmsg_len = sizeof(q),
			    .nlmsg_type = RTM_GETLINK,
			    .nlmsg_flags = NLM_F_REQUEST },
		.link = { .ifi_family = AF_UNSPEC, .ifi_index = w->index },
	};

	/* Should it fail, the next change tells. */
	(void)!send(w->netlink, &q, sizeof(q), MSG_DONTWAIT);
}

static void link_told(struct net_wire *w, uint16_t type, unsigned flags)
{
	char words[NET_WIRE_WORDS];

	if (type == RTM_DELLINK) {
		wire_lost(w);
		return;
	}
	if (!(flags & IFF_UP))
		snprintf(words, sizeof(words), "the interface %s is switched off", w->interface);
	else
		snprintf(words, sizeof(words), "the interface %s has no link", w->interface);
	wire_set_link(w, (flags & IFF_UP) && (flags & IFF_RUNNING), words);
}

static void parse(struct net_wire *w, const void *bytes, size_t size)
{
	const struct nlmsghdr *h = bytes;

	for (; NLMSG_OK(h, size) && !w->gone; h = NLMSG_NEXT(h, size)) {
		const struct ifinfomsg *link = NLMSG_DATA(h);

		if ((h->nlmsg_type != RTM_NEWLINK && h->nlmsg_type != RTM_DELLINK) ||
		    h->nlmsg_len < NLMSG_LENGTH(sizeof(*link)) || link->ifi_index != w->index)
			continue;
		/* A port of a bridge that leaves it is told of as gone, in the bridge's family. */
		if (link->ifi_family == AF_UNSPEC)
			link_told(w, h->nlmsg_type, link->ifi_flags);
	}
}

static void on_news(struct loop_watch *watch, uint32_t events)
{
	struct net_wire *w = container_of(watch, struct net_wire, news);
	_Alignas(struct nlmsghdr) char bytes[16384];

	(void)events;
	for (unsigned i = 0; i < ROUNDS && !w->gone; i++) {
		struct sockaddr_nl from = { 0 };
		socklen_t size = sizeof(from);
		ssize_t n = recvfrom(w->netlink, bytes, sizeof(bytes), MSG_DONTWAIT,
				     (struct sockaddr *)&from, &size);

		if (n < 0 && errno == ENOBUFS)
			ask(w);
		if (n <= 0)
			return;
		if (from.nl_pid == 0)
			parse(w, bytes, (size_t)n);
	}
}

int wire_link_begin(struct net_wire *w, struct error *err)
{
	struct sockaddr_nl all = { .nl_family = AF_NETLINK, .nl_groups = RTMGRP_LINK };
	int r;

	w->netlink = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	if (w->netlink < 0 || bind(w->netlink, (struct sockaddr *)&all, sizeof(all)) < 0)
		return error_errno(err, -errno, "cannot learn of the state of the interface %s",
				   w->interface);
	r = loop_watch(w->options.loop, &w->news, w->netlink, EPOLLIN, on_news);
	if (r < 0)
		return error_errno(err, r, "cannot watch the state of the interface %s",
				   w->interface);
	ask(w);
	return 0;
}

void wire_link_end(struct net_wire *w)
{
	loop_unwatch(&w->news);
	if (w->netlink >= 0)
		close(w->netlink);
}
