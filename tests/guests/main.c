// SPDX-License-Identifier: MIT
/*
 * A small guest that tests the hypervisor from below. Its command line may say
 *
 *	group=NAME[,NAME...]	only these groups; `leave` leaves all open for a reset to end
 *	power=HOW		then end the machine so (power.c), not through the exit port
 *	apic=x			leave the APICs in their memory-mapped mode
 */
#include "groups.h"

#include "lib/hv.h"
#include "lib/print.h"

#define MULTIBOOT_LOADED 0x2badb002u
#define INFO_CMDLINE     16
#define FW_CFG_SELECTOR  0x510
#define FW_CFG_DATA      0x511
#define FW_CFG_CPUS      5
#define CPUID_X2APIC     BIT(21)

extern uint32_t multiboot_magic, multiboot_info;
void guest_main(void) NORETURN;

static char command_line[512];

static const struct {
	const char *name;
	void (*run)(void);
	bool on_request;
} groups[] = {
	{ "cpuid", group_cpuid, false },         { "msr", group_msr, false },
	{ "hypercall", group_hypercall, false }, { "synic", group_synic, false },
	{ "timer", group_timer, false },         { "contact", group_contact, false },
	{ "storage", group_storage, false },     { "hostile", group_hostile, false },
	{ "leave", group_leave, true },
};

/* The value of `key` on the command line, up to a space; NULL when it isn't there. */
static const char *option(const char *key)
{
	size_t length = strlen(key);

	for (const char *at = command_line; *at; at++)
		if ((at == command_line || at[-1] == ' ') && !memcmp(at, key, length) &&
		    at[length] == '=')
			return at + length + 1;
	return NULL;
}

static bool chosen(const char *name, bool on_request)
{
	const char *list = option("group");
	size_t length = strlen(name);

	if (!list)
		return !on_request;
	for (const char *at = list; *at && *at != ' '; at++)
		if ((at == list || at[-1] == ',') && !memcmp(at, name, length) &&
		    (!at[length] || at[length] == ',' || at[length] == ' '))
			return true;
	return false;
}

static void read_command_line(void)
{
	uint32_t at;

	memcpy(&at, (const void *)(uintptr_t)(multiboot_info + INFO_CMDLINE), sizeof(at));
	memcpy(command_line, (const void *)(uintptr_t)at, sizeof(command_line) - 1);
}

static unsigned cpus_wanted(void)
{
	unsigned count;

	outw(FW_CFG_SELECTOR, FW_CFG_CPUS);
	count = inb(FW_CFG_DATA);
	return count | (unsigned)inb(FW_CFG_DATA) << 8;
}

static void start(void)
{
	const char *apic = option("apic");
	bool x2apic = cpuid(1, 0).ecx & CPUID_X2APIC && !(apic && *apic == 'x');
	unsigned wanted = cpus_wanted();

	say("# partita test guest: %u processors, %s, \"%s\"", wanted, x2apic ? "x2APIC" : "xAPIC",
	    command_line);
	traps_init();
	apic_init(x2apic);
	hv_init();
	interrupts_on();
	group_begin("start");
	ok_equal(multiboot_magic, MULTIBOOT_LOADED, "loaded by multiboot");
	ok_equal(cpus_start(wanted), wanted, "all processors start");
}

void guest_main(void)
{
	const char *how;

	serial_init();
	read_command_line();
	start();
	for (size_t i = 0; i < ARRAY_SIZE(groups); i++)
		if (chosen(groups[i].name, groups[i].on_request))
			groups[i].run();
	how = option("power");
	if (how) {
		power(how);
		guest_die("there is no way to end the machine like \"%s\"", how);
	}
	guest_exit();
}
