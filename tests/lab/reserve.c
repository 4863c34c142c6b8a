// SPDX-License-Identifier: MIT
/*
 * reserve: one SCSI command to a disk, past the kernel's own driver (SG_IO), for guests that share
 * it: persistent reservations, and reads and writes that say how they ended.
 */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <scsi/sg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

static const char usage[] =
	"usage: reserve DISK COMMAND\n"
	"\n"
	"  register OLD NEW            a key; 0 = none\n"
	"  reserve KEY TYPE\n"
	"  release KEY TYPE\n"
	"  clear KEY\n"
	"  preempt KEY VICTIM TYPE\n"
	"  keys                        all that are registered\n"
	"  holder                      the key of the one who holds the reservation, and its type\n"
	"  write SECTOR BYTE           a sector of 512 bytes of that\n"
	"  read SECTOR                 the first byte of a sector, whose bytes must all be the "
	"same\n"
	"\n"
	"Numbers are decimal or 0x... Prints `reserve: COMMAND ...: good` and what was read, "
	"`conflict`,\n"
	"or `sense KEY ASC/ASCQ`, each unit attention that came before on a line of its own. Exit "
	"status:\n"
	"0 good, 3 conflict, 1 anything else.\n";

#define SECTOR      512
#define CONFLICT    0x18
#define ATTENTION   6
#define ATTENTIONS  8 /* that may come before a command is done */
#define RESERVE_IN  0x5e
#define RESERVE_OUT 0x5f
#define READ_10     0x28
#define WRITE_10    0x2a
#define TIMEOUT     30000 /* ms */
#define PARAMETERS  24
#define IN_KEYS     0
#define IN_HOLDER   1

struct action {
	const char *name;
	unsigned count; /* of numbers */
	uint8_t opcode, action;
};

static const struct action actions[] = {
	{ "register", 2, RESERVE_OUT, 0 },
	{ "reserve", 2, RESERVE_OUT, 1 },
	{ "release", 2, RESERVE_OUT, 2 },
	{ "clear", 1, RESERVE_OUT, 3 },
	{ "preempt", 3, RESERVE_OUT, 4 },
	{ "keys", 0, RESERVE_IN, IN_KEYS },
	{ "holder", 0, RESERVE_IN, IN_HOLDER },
	{ "write", 2, WRITE_10, 0 },
	{ "read", 1, READ_10, 0 },
};

struct command {
	const struct action *action;
	uint64_t n[3];
	uint8_t cdb[10], data[SECTOR], sense[32];
	unsigned size;
};

static void put64(uint8_t *p, uint64_t value)
{
	value = htobe64(value);
	memcpy(p, &value, sizeof(value));
}

static uint64_t get64(const uint8_t *p)
{
	uint64_t value;

	memcpy(&value, p, sizeof(value));
	return be64toh(value);
}

/* A key, mostly another one, and mostly a type at last. */
static void make_reserve_out(struct command *c)
{
	const struct action *a = c->action;
	bool other = !a->action || a->count == 3, type = a->action && a->count > 1;

	c->size = PARAMETERS;
	c->cdb[1] = a->action;
	c->cdb[2] = type ? (uint8_t)c->n[a->count - 1] : 0;
	c->cdb[8] = PARAMETERS;
	put64(c->data, c->n[0]);
	put64(c->data + 8, other ? c->n[1] : 0);
}

static void make_cdb(struct command *c)
{
	const struct action *a = c->action;

	c->cdb[0] = a->opcode;
	if (a->opcode == RESERVE_OUT) {
		make_reserve_out(c);
		return;
	}
	c->size = SECTOR;
	if (a->opcode == RESERVE_IN) {
		c->cdb[1] = a->action;
		c->cdb[7] = SECTOR >> 8;
		return;
	}
	c->cdb[4] = (uint8_t)(c->n[0] >> 8);
	c->cdb[5] = (uint8_t)c->n[0];
	c->cdb[8] = 1;
	memset(c->data, (int)c->n[1], SECTOR);
}

/* The status. */
static int send_command(int fd, struct command *c)
{
	bool out = c->action->opcode == RESERVE_OUT || c->action->opcode == WRITE_10;
	struct sg_io_hdr h = {
		.interface_id = 'S',
		.dxfer_direction = out ? SG_DXFER_TO_DEV : SG_DXFER_FROM_DEV,
		.cmd_len = sizeof(c->cdb),
		.mx_sb_len = sizeof(c->sense),
		.dxfer_len = c->size,
		.dxferp = c->data,
		.cmdp = c->cdb,
		.sbp = c->sense,
		.timeout = TIMEOUT,
	};

	memset(c->sense, 0, sizeof(c->sense));
	if (ioctl(fd, SG_IO, &h) < 0) {
		fprintf(stderr, "reserve: SG_IO: %s\n", strerror(errno));
		exit(1);
	}
	if (h.status || !h.host_status)
		return h.status;
	fprintf(stderr, "reserve: the host's status is %d\n", h.host_status);
	exit(1);
}

static void tell_sense(const struct command *c, const char *word)
{
	printf("%s %x %02x/%02x\n", word, c->sense[2] & 15, c->sense[12], c->sense[13]);
}

static void tell_keys(const struct command *c)
{
	uint32_t length;

	memcpy(&length, c->data + 4, sizeof(length));
	length = be32toh(length);
	for (unsigned at = 8; at + 8 <= SECTOR && at < 8 + length; at += 8)
		printf(" %#llx", (unsigned long long)get64(c->data + at));
}

static int tell_data(const struct command *c)
{
	if (c->action->opcode == READ_10) {
		printf(" %u", c->data[0]);
		for (unsigned i = 0; i < SECTOR; i++)
			if (c->data[i] != c->data[0]) {
				puts(" and others");
				return 1;
			}
	} else if (c->action->opcode == RESERVE_IN && c->action->action == IN_KEYS) {
		tell_keys(c);
	} else if (c->action->opcode == RESERVE_IN) {
		if (c->data[7])
			printf(" %#llx type %u", (unsigned long long)get64(c->data + 8),
			       c->data[21] & 15);
		else
			printf(" nobody");
	}
	putchar('\n');
	return 0;
}

static int run(const char *path, struct command *c)
{
	int fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK), status;

	if (fd < 0) {
		fprintf(stderr, "reserve: %s: %s\n", path, strerror(errno));
		return 1;
	}
	make_cdb(c);
	for (unsigned i = 0;; i++) {
		status = send_command(fd, c);
		if (status != 2 || (c->sense[2] & 15) != ATTENTION || i == ATTENTIONS)
			break;
		printf("reserve: ");
		tell_sense(c, "attention");
	}
	printf("reserve: %s", c->action->name);
	for (unsigned i = 0; i < c->action->count; i++)
		printf(" %#llx", (unsigned long long)c->n[i]);
	printf(": ");
	if (!status) {
		printf("good");
		return tell_data(c);
	}
	if (status == CONFLICT) {
		puts("conflict");
		return 3;
	}
	tell_sense(c, status == 2 ? "sense" : "unknown status");
	return 1;
}

int main(int argc, char **argv)
{
	struct command c = { 0 };

	if (argc == 2 && !strcmp(argv[1], "--help")) {
		fputs(usage, stdout);
		return 0;
	}
	for (size_t i = 0; argc > 2 && i < sizeof(actions) / sizeof(actions[0]); i++)
		if (!strcmp(argv[2], actions[i].name) && argc == 3 + (int)actions[i].count)
			c.action = &actions[i];
	if (!c.action) {
		fputs(usage, stderr);
		return 2;
	}
	for (unsigned i = 0; i < c.action->count; i++)
		c.n[i] = strtoull(argv[3 + i], NULL, 0);
	return run(argv[1], &c);
}
