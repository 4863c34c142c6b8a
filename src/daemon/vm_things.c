// SPDX-License-Identifier: MIT
/*
 * Switches and pools that settings name, by name or id: they must be there when they are named, and
 * stay as long as a machine names them. What a machine named already is let be, also when it is
 * gone: other settings of it can be changed all the same.
 */
#include "daemon/vm_internal.h"

#include "daemon/thing.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

struct named {
	enum thing_kind kind;
	const char *name;
	char property[64];
};

typedef int named_fn(void *context, const struct named *n);

static int tell(named_fn *fn, void *context, enum thing_kind kind, const char *name,
		const char *property)
{
	struct named n = { .kind = kind, .name = name };

	if (!name || !*name)
		return 0;
	snprintf(n.property, sizeof(n.property), "%s", property);
	return fn(context, &n);
}

static int each_drive(const struct vm_scsi_controller *c, unsigned controller, named_fn *fn,
		      void *context)
{
	char property[64];
	int r = 0;

	for (unsigned i = 0; i < c->drives_count && !r; i++) {
		snprintf(property, sizeof(property), "scsi_controllers[%u].drives[%u].pool",
			 controller, i);
		r = tell(fn, context, THING_POOL, c->drives[i].pool, property);
	}
	return r;
}

/* Until `fn` returns other than 0. */
static int each_named(const struct vm_settings *s, named_fn *fn, void *context)
{
	char property[64];
	int r = tell(fn, context, THING_POOL, s->pool, "pool");

	for (unsigned i = 0; i < s->scsi_controllers_count && !r; i++)
		r = each_drive(&s->scsi_controllers[i], i, fn, context);
	for (unsigned i = 0; i < s->network_adapters_count && !r; i++) {
		const struct vm_network_adapter *a = &s->network_adapters[i];

		snprintf(property, sizeof(property), "network_adapters[%u].pool", i);
		r = tell(fn, context, THING_POOL, a->pool, property);
		snprintf(property, sizeof(property), "network_adapters[%u].switch", i);
		if (!r)
			r = tell(fn, context, THING_SWITCH, a->switch_, property);
	}
	return r;
}

/* --- naming --- */

static int on_same(void *context, const struct named *n)
{
	const struct named *wanted = context;

	return n->kind == wanted->kind && !strcmp(n->name, wanted->name);
}

struct check {
	struct daemon *d;
	const struct vm_settings *old; /* NULL: a new machine */
	struct error *err;
};

static int on_check(void *context, const struct named *n)
{
	const struct check *c = context;
	int r;

	if (c->old && each_named(c->old, on_same, (void *)n))
		return 0;
	r = thing_exists(c->d, n->kind, n->name, c->err);
	if (r != -ENOENT)
		return r;
	error_set(c->err, -EINVAL, "%s: there is no %s \"%s\"; make it first", n->property,
		  thing_kind_name(n->kind), n->name);
	if (c->err)
		snprintf(c->err->property, sizeof(c->err->property), "%s", n->property);
	return -EINVAL;
}

int vm_things_check(struct daemon *d, const struct vm_settings *s, const struct vm_settings *old,
		    struct error *err)
{
	struct check c = { d, old, err };

	return each_named(s, on_check, &c);
}

/* --- being named --- */

struct use {
	enum thing_kind kind;
	const char *id, *name;
};

static int on_use(void *context, const struct named *n)
{
	const struct use *u = context;

	return n->kind == u->kind &&
	       ((u->id && !strcasecmp(n->name, u->id)) || (u->name && !strcmp(n->name, u->name)));
}

unsigned vm_things_users(struct daemon *d, enum thing_kind kind, const char *id, const char *name,
			 const struct vm **ret_first)
{
	struct use use = { kind, id, name };
	unsigned count = 0;

	list_foreach(it, &d->vms)
	{
		const struct vm *vm = list_entry(it, struct vm, node);

		if (each_named(&vm->settings, on_use, &use) && !count++)
			*ret_first = vm;
	}
	return count;
}
