/* SPDX-License-Identifier: MIT */
/* Intrusive circular doubly linked list. A node that is on no list points to itself. */
#pragma once

#include "lib/types.h"

struct list {
	struct list *next, *prev;
};

static inline void list_init(struct list *l)
{
	l->next = l->prev = l;
}

static inline bool list_empty(const struct list *l)
{
	return l->next == l;
}

static inline void list_append(struct list *head, struct list *node)
{
	node->prev = head->prev;
	node->next = head;
	head->prev->next = node;
	head->prev = node;
}

/* The node is initialised again, so removing it twice is harmless. */
static inline void list_remove(struct list *node)
{
	node->prev->next = node->next;
	node->next->prev = node->prev;
	list_init(node);
}

/* Moves the nodes from the first up to `last` (which is on `from`) into `to`, initialising it. */
static inline void list_cut(struct list *to, struct list *from, struct list *last)
{
	to->next = from->next;
	to->prev = last;
	from->next = last->next;
	last->next->prev = from;
	to->next->prev = to;
	last->next = to;
}

/* Moves all of `from` to the end of `to`. */
static inline void list_splice(struct list *to, struct list *from)
{
	if (list_empty(from))
		return;
	from->next->prev = to->prev;
	to->prev->next = from->next;
	from->prev->next = to;
	to->prev = from->prev;
	list_init(from);
}

#define list_entry(node, type, member) container_of(node, type, member)
#define list_first(head, type, member) list_entry((head)->next, type, member)
#define list_foreach(it, head)         for (struct list *it = (head)->next; it != (head); it = it->next)
/* The current node may be removed (and freed) in the body. */
#define list_foreach_safe(it, head)                                                                \
	for (struct list *it = (head)->next, *next_ = it->next; it != (head);                      \
	     it = next_, next_ = it->next)
