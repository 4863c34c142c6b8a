// SPDX-License-Identifier: MIT
/* The ways to end or restart the machine. Ports are those that the ACPI tables name. */
#include "groups.h"

#include "lib/hv.h"
#include "lib/print.h"

#define ACPI_SLEEP_CONTROL 0x400
#define ACPI_RESET         0x402
#define SLEEP_S5           (5 << 2 | BIT(5)) /* ACPI 4.8.3.7: SLP_TYPx, SLP_EN */

static void acpi_off(void)
{
	outb(ACPI_SLEEP_CONTROL, SLEEP_S5);
}

static void acpi_reset(void)
{
	outb(ACPI_RESET, 1);
}

static void triple_fault(void)
{
	traps_remove();
	asm volatile("ud2");
}

static void msr_reset(void)
{
	wrmsr(HV_X64_MSR_RESET, 1);
}

static void cf9_reset(void)
{
	outb(0xcf9, 0x02);
	outb(0xcf9, 0x06);
}

static void keyboard_reset(void)
{
	outb(0x64, 0xfe);
}

static const struct {
	const char *name;
	void (*run)(void);
} ways[] = {
	{ "off", acpi_off },
	{ "acpi-reset", acpi_reset },
	{ "triple-fault", triple_fault },
	{ "msr-reset", msr_reset },
	{ "cf9-reset", cf9_reset },
	{ "keyboard-reset", keyboard_reset },
};

void power(const char *how)
{
	for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
		if (memcmp(how, ways[i].name, strlen(ways[i].name)))
			continue;
		say("# power: %s", ways[i].name);
		ways[i].run();
		delay_ms(5000);
		guest_die("still here after %s", ways[i].name);
	}
}
