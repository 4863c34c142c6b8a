// SPDX-License-Identifier: MIT
/*
 * What adapters get that do not say it: an identity, and an address from the host's own part of
 * those that anybody may give out (IEEE 802, locally administered). Two machines with one address
 * are told of, and not refused: copies of machines that never run together are common.
 */
#include "daemon/vm_internal.h"

#include "daemon/vm_check.h"
#include "lib/cleanup.h"

#include <errno.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>

#define TRIES 64

static int random_bytes(void *bytes, size_t size, struct error *err)
{
	return getrandom(bytes, size, 0) == (ssize_t)size
		       ? 0
		       : error_errno(err, -errno, "no random numbers are to be had");
}

/* Two bytes that stay the host's. */
static int prefix_get(struct daemon *d, char ret[static 5], struct error *err)
{
	_cleanup_free_ char *kept = NULL;
	uint8_t bytes[2];
	int r = registry_value_get(d->db, "mac-prefix", &kept, err);

	if (r < 0)
		return r;
	if (kept && strlen(kept) == 4) {
		memcpy(ret, kept, 5);
		return 0;
	}
	r = random_bytes(bytes, sizeof(bytes), err);
	if (r < 0)
		return r;
	snprintf(ret, 5, "%02x%02x", bytes[0], bytes[1]);
	return registry_value_set(d->db, "mac-prefix", ret, err);
}

/* Another adapter with that address, and whose it is. */
static const struct vm *mac_owner(struct daemon *d, const char *mac, const char *but)
{
	list_foreach(it, &d->vms)
	{
		const struct vm *vm = list_entry(it, struct vm, node);

		for (unsigned i = 0; i < vm->settings.network_adapters_count; i++) {
			const struct vm_network_adapter *a = &vm->settings.network_adapters[i];
			char other[MAC_TEXT_SIZE];

			if (a->mac && mac_parse(a->mac, other) == 0 && !strcmp(other, mac) &&
			    !(a->id && but && !strcasecmp(a->id, but)))
				return vm;
		}
	}
	return NULL;
}

static bool mac_is_among(const struct vm_settings *s, const char *mac)
{
	char other[MAC_TEXT_SIZE];

	for (unsigned i = 0; i < s->network_adapters_count; i++)
		if (s->network_adapters[i].mac &&
		    mac_parse(s->network_adapters[i].mac, other) == 0 && !strcmp(other, mac))
			return true;
	return false;
}

static int mac_choose(struct daemon *d, const struct vm_settings *s, char **ret, struct error *err)
{
	char prefix[5], mac[MAC_TEXT_SIZE];
	int r = prefix_get(d, prefix, err);

	for (unsigned i = 0; i < TRIES && r >= 0; i++) {
		uint8_t bytes[3];

		r = random_bytes(bytes, sizeof(bytes), err);
		if (r < 0)
			break;
		snprintf(mac, sizeof(mac), "02%s%02x%02x%02x", prefix, bytes[0], bytes[1],
			 bytes[2]);
		if (mac_owner(d, mac, NULL) || mac_is_among(s, mac))
			continue;
		*ret = strdup(mac);
		return *ret ? 0 : error_set(err, -ENOMEM, "not enough memory");
	}
	return r < 0 ? r : error_set(err, -ENOSPC, "no free hardware address was found");
}

static int id_choose(char **ret, struct error *err)
{
	struct guid id = guid_random();
	char text[GUID_TEXT_SIZE];

	*ret = strdup(guid_format(&id, text));
	return *ret ? 0 : error_set(err, -ENOMEM, "not enough memory");
}

int vm_adapters_fill(struct daemon *d, struct vm_settings *s, struct error *err)
{
	int r = 0;

	for (unsigned i = 0; i < s->network_adapters_count && r >= 0; i++) {
		struct vm_network_adapter *a = &s->network_adapters[i];

		if (!a->id)
			r = id_choose(&a->id, err);
		if (r >= 0 && !a->mac)
			r = mac_choose(d, s, &a->mac, err);
	}
	return r;
}

void vm_adapters_conflicts(struct vm *vm)
{
	for (unsigned i = 0; i < vm->settings.network_adapters_count; i++) {
		const struct vm_network_adapter *a = &vm->settings.network_adapters[i];
		char mac[MAC_TEXT_SIZE];
		const struct vm *other;

		if (!a->mac || mac_parse(a->mac, mac) < 0)
			continue;
		other = mac_owner(vm->daemon, mac, a->id);
		if (other)
			event_add(vm->daemon->events, SEVERITY_WARNING, "mac-conflict", vm->id,
				  NULL, json_pack("{s:s,s:s}", "mac", mac, "other", other->id),
				  "\"%s\" and \"%s\" have adapters with the same hardware address "
				  "%s; on one network they disturb each other",
				  vm->settings.name, other->settings.name, mac);
	}
}
