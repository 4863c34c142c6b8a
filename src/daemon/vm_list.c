// SPDX-License-Identifier: MIT
/*
 * All machines: a list in order of names and a hash by id, so that thousands can be looked up; and
 * the numbers of their revisions. A machine's memory is made and freed here, nowhere else.
 */
#include "daemon/vm_internal.h"

#include "lib/cleanup.h"
#include "lib/log.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <strings.h>

#define BUCKETS_FIRST 256
#define SETTLE_NS     UINT64_C(1000000000)
#define PATTERN_MAX   400 /* bytes: a name has at most 100 characters of four */

/*
 * Revisions are not kept: each service has an epoch, which is durable before the first is given,
 * and counts below it. So none repeats, whatever a crash loses; and they stay exact in programs
 * whose numbers are doubles.
 */
#define REVISION_BITS 28
#define EPOCH_MAX     (UINT64_C(1) << 25)

static int epoch_begin(struct daemon *d, struct error *err)
{
	_cleanup_free_ char *last = NULL;
	char next[24];
	uint64_t epoch;
	int r = registry_value_get(d->db, "epoch", &last, err);

	if (r < 0)
		return r;
	epoch = last ? strtoull(last, NULL, 10) % EPOCH_MAX + 1 : 1;
	snprintf(next, sizeof(next), "%" PRIu64, epoch);
	d->index->revision = epoch << REVISION_BITS;
	return registry_value_set(d->db, "epoch", next, err);
}

uint64_t revision_next(struct daemon *d)
{
	struct error err = { 0 };

	/* The next epoch's numbers are the next service's, unless we begin it. */
	if (!(++d->index->revision & ((UINT64_C(1) << REVISION_BITS) - 1)) &&
	    epoch_begin(d, &err) < 0)
		log_line("%s", err.message);
	return d->index->revision;
}

/* --- the registry's phases --- */

static void settle(struct daemon *d)
{
	struct error err = { 0 };

	if (d->index->unsettled && registry_settle(d->db, &err) < 0)
		log_line("%s", err.message);
	d->index->unsettled = false;
}

static void on_settle(struct loop_timer *t)
{
	settle(container_of(t, struct vm_index, settle)->daemon);
}

/* Nothing is about to be while the loop runs: machines are made in one call. */
void settle_later(struct daemon *d)
{
	if (!d->index->unsettled)
		loop_timer_arm(&d->index->settle, loop_now(d->loop) + SETTLE_NS);
	d->index->unsettled = true;
}

/* --- all of it --- */

int index_new(struct daemon *d, struct error *err)
{
	list_init(&d->vms);
	d->index = calloc(1, sizeof(*d->index));
	if (d->index)
		d->index->buckets = calloc(BUCKETS_FIRST, sizeof(*d->index->buckets));
	if (!d->index || !d->index->buckets)
		return error_set(err, -ENOMEM, "not enough memory");
	d->index->daemon = d;
	loop_timer_init(d->loop, &d->index->settle, on_settle);
	d->index->bucket_count = BUCKETS_FIRST;
	return epoch_begin(d, err);
}

void index_free(struct daemon *d)
{
	if (!d->index)
		return;
	list_foreach_safe(it, &d->vms)
	{
		struct vm *vm = list_entry(it, struct vm, node);

		vm_let_go(vm);
		vm_unlink(vm);
		vm_free(vm);
	}
	loop_timer_disarm(&d->index->settle);
	settle(d);
	free(d->index->buckets);
	free(steal_ptr(d->index));
}

/* --- hash --- */

/* Ids are random, but those that people make up are not. */
static struct vm_entry **bucket_of(const struct vm_index *index, const char *id)
{
	uint32_t h = 2166136261u;

	for (; *id; id++)
		h = (h ^ (uint8_t)*id) * 16777619u;
	return &index->buckets[h & (index->bucket_count - 1)];
}

static void hash_add(struct vm_index *index, struct vm_entry *e)
{
	struct vm_entry **bucket = bucket_of(index, e->vm.id);

	e->hash_next = *bucket;
	*bucket = e;
}

/* Without memory the chains only get longer. */
static void hash_grow(struct daemon *d)
{
	struct vm_index *index = d->index;
	struct vm_entry **more = calloc(index->bucket_count * 2, sizeof(*more));

	if (!more)
		return;
	free(index->buckets);
	index->buckets = more;
	index->bucket_count *= 2;
	list_foreach(it, &d->vms) hash_add(index, entry_of(list_entry(it, struct vm, node)));
}

struct vm *vm_find(struct daemon *d, const char *id)
{
	for (struct vm_entry *e = *bucket_of(d->index, id); e; e = e->hash_next)
		if (!strcmp(e->vm.id, id))
			return &e->vm;
	return NULL;
}

/* --- order --- */

static int compare_names(const struct vm *a, const struct vm *b)
{
	int r = strcasecmp(a->settings.name, b->settings.name);

	if (r == 0)
		r = strcmp(a->settings.name, b->settings.name);
	return r ? r : strcmp(a->id, b->id);
}

static void list_place(struct vm *vm)
{
	struct list *before = vm->daemon->vms.prev;

	/* From the end: that is where names that are counted up go. */
	while (before != &vm->daemon->vms &&
	       compare_names(list_entry(before, struct vm, node), vm) > 0)
		before = before->prev;
	list_append(before->next, &vm->node);
}

void vm_link(struct vm *vm)
{
	struct daemon *d = vm->daemon;

	if (d->vm_count >= d->index->bucket_count)
		hash_grow(d);
	list_place(vm);
	hash_add(d->index, entry_of(vm));
	d->vm_count++;
	vm_meter_follow(vm);
	vm_saved_find(vm);
}

void vm_unlink(struct vm *vm)
{
	struct vm_entry **e = bucket_of(vm->daemon->index, vm->id);

	while (*e != entry_of(vm))
		e = &(*e)->hash_next;
	*e = entry_of(vm)->hash_next;
	list_remove(&vm->node);
	vm->daemon->vm_count--;
}

void vm_settings_take(struct vm *vm, struct vm_settings *s)
{
	bool linked = !list_empty(&vm->node);

	vm_settings_deinit(&vm->settings);
	vm->settings = *s;
	memset(s, 0, sizeof(*s));
	vm->revision = revision_next(vm->daemon);
	if (!linked)
		return;
	list_remove(&vm->node);
	list_place(vm);
	vm_meter_follow(vm);
}

/* --- a machine --- */

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash && slash[1] ? slash + 1 : path;
}

struct vm *vm_new(struct daemon *d, const char *id, const char *folder)
{
	struct vm_entry *e = calloc(1, sizeof(*e));

	if (!e)
		return NULL;
	e->vm.daemon = d;
	list_init(&e->vm.node);
	vm_act_init(&e->vm);
	snprintf(e->vm.id, sizeof(e->vm.id), "%s", id);
	e->vm.state_since = time_ms();
	e->vm.revision = revision_next(d);
	e->vm.folder = strdup(folder);
	if (!e->vm.folder || vm_settings_init(&e->vm.settings) < 0) {
		vm_free(&e->vm);
		return NULL;
	}
	e->vm.settings.id = strdup(id);
	e->vm.settings.name = strdup(base_name(folder));
	if (e->vm.settings.id && e->vm.settings.name)
		return &e->vm;
	vm_free(&e->vm);
	return NULL;
}

void vm_free(struct vm *vm)
{
	if (!vm)
		return;
	vm_settings_deinit(&vm->settings);
	free(vm->folder);
	free(entry_of(vm));
}

struct target vm_target(const struct vm *vm)
{
	return (struct target){
		.vm = vm->id,
		.vm_name = vm->settings.name,
		.group = vm->settings.group,
		.creator = vm->settings.creator,
	};
}

/* --- finding --- */

struct vm *vm_by_id(struct daemon *d, const char *id, struct error *err)
{
	char text[GUID_TEXT_SIZE];
	struct guid guid;
	struct vm *vm = NULL;

	if (strlen(id) <= GUID_TEXT_SIZE + 1 && guid_parse(id, &guid) == 0)
		vm = vm_find(d, guid_format(&guid, text));
	if (!vm)
		error_set(err, -ENOENT, "there is no machine with the id %.40s", id);
	return vm;
}

static size_t character_size(const char *text)
{
	size_t n = 1;

	while (((uint8_t)text[n] & 0xc0) == 0x80)
		n++;
	return n;
}

static bool same_letter(char a, char b)
{
	return tolower((unsigned char)a) == tolower((unsigned char)b);
}

/* A * takes as little as it can, and more when the rest does not fit: no recursion. */
bool name_matches(const char *pattern, const char *name)
{
	const char *star = NULL, *retry = NULL;

	while (*name) {
		if (*pattern == '*') {
			star = ++pattern;
			retry = name;
		} else if (*pattern == '?') {
			pattern++;
			name += character_size(name);
		} else if (*pattern && same_letter(*pattern, *name)) {
			pattern++;
			name++;
		} else if (star) {
			retry += character_size(retry);
			pattern = star;
			name = retry;
		} else {
			return false;
		}
	}
	while (*pattern == '*')
		pattern++;
	return !*pattern;
}

static bool may_see(const struct daemon *d, const struct caller *c, const struct vm *vm)
{
	const struct target t = vm_target(vm);

	return authz_allowed(d->authz, c, OP_VIEW_VM, &t);
}

/* "*e" is meant for names: an id begins to count where nobody would type it by chance. */
static bool id_matches(const char *pattern, const char *id)
{
	return strspn(pattern, "0123456789abcdefABCDEF") >= 8 && name_matches(pattern, id);
}

int vm_each(struct daemon *d, const struct caller *c, const char *pattern,
	    int (*each)(void *context, struct vm *vm), void *context)
{
	int count = 0, r;

	if (pattern && strlen(pattern) > PATTERN_MAX)
		return 0;
	list_foreach_safe(it, &d->vms)
	{
		struct vm *vm = list_entry(it, struct vm, node);

		if (pattern && !name_matches(pattern, vm->settings.name) &&
		    !id_matches(pattern, vm->id))
			continue;
		if (!may_see(d, c, vm))
			continue;
		r = each(context, vm);
		if (r < 0)
			return r;
		count++;
	}
	return count;
}

int vm_one(struct daemon *d, const struct caller *c, const char *name, struct vm **ret,
	   struct error *err)
{
	struct vm *found = vm_by_id(d, name, NULL);
	char ids[sizeof(err->message) - 160] = "";
	unsigned count = 0;
	size_t n = 0;

	if (found && may_see(d, c, found)) {
		*ret = found;
		return 0;
	}
	list_foreach(it, &d->vms)
	{
		struct vm *vm = list_entry(it, struct vm, node);

		if (strcasecmp(vm->settings.name, name) || !may_see(d, c, vm))
			continue;
		found = vm;
		count++;
		if (n + GUID_TEXT_SIZE + 2 < sizeof(ids))
			n += (size_t)snprintf(ids + n, sizeof(ids) - n, "%s%s", n ? ", " : "",
					      vm->id);
	}
	if (!count)
		return error_set(err, -ENOENT, "there is no machine \"%.100s\"", name);
	if (count > 1)
		return error_set(err, -ENOTUNIQ, "%u machines are named \"%.100s\"; give an id: %s",
				 count, name, ids);
	*ret = found;
	return 0;
}
