// SPDX-License-Identifier: MIT
/*
 * Two initiators on one disk: two targets whose units share their reservations through a set, as
 * two virtual machines would. What is allowed is asked of every command under every type, against
 * the tables of SPC-4 (65) and SBC-3 (13), written down here by hand.
 */
#include "devices/storvsp/scsi_testing.h"
#include "vhd/vhdset.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#define CONFLICT SCSI_RESERVATION_CONFLICT

struct side {
	struct bench *b;
	struct reserve_file *r;
	int set_fd, image_fd;
};

struct pair {
	struct side a, c; /* two initiators */
	char set[40], image[40];
};

static void side_open(struct pair *p, struct side *s, uint8_t name)
{
	const struct guid id = { { name, 0x11, 0x22 } };

	s->b = bench_new(SCSI_DISK, 2 * MIB, 512);
	s->set_fd = open(p->set, O_RDWR | O_CLOEXEC);
	s->image_fd = open(p->image, O_RDWR | O_CLOEXEC);
	assert_true(s->set_fd >= 0 && s->image_fd >= 0);
	assert_int_equal(reserve_file_open(s->set_fd, s->image_fd, &id, &s->r, NULL), 0);
	assert_int_equal(scsi_target_share(s->b->target, 0, s->r), 0);
}

static void side_close(struct side *s)
{
	bench_free(s->b);
	reserve_file_close(s->r);
	close(s->set_fd);
	close(s->image_fd);
}

static struct pair *pair_new(void)
{
	struct pair *p = calloc(1, sizeof(*p));
	int set, image;

	strcpy(p->set, "/var/tmp/partita-set-XXXXXX");
	strcpy(p->image, "/var/tmp/partita-img-XXXXXX");
	set = mkstemp(p->set);
	image = mkstemp(p->image);
	assert_true(set >= 0 && image >= 0);
	assert_int_equal(ftruncate(image, 2 * MIB), 0);
	assert_int_equal(vhdset_create(set, image, p->image, "raw", NULL), 0);
	close(set);
	side_open(p, &p->a, 0xa1);
	side_open(p, &p->c, 0xc1);
	unlink(p->set);
	unlink(p->image);
	return p;
}

static void pair_free(struct pair *p)
{
	side_close(&p->a);
	side_close(&p->c);
	free(p);
}

static void put64(uint8_t *p, uint64_t v)
{
	for (int i = 0; i < 8; i++)
		p[i] = (uint8_t)(v >> (56 - 8 * i));
}

static void out_start(struct side *s, uint8_t action, uint8_t type, uint64_t key,
		      uint64_t action_key)
{
	memset(s->b->buffer, 0, 24);
	put64(s->b->buffer, key);
	put64(s->b->buffer + 8, action_key);
	s->b->buffer[20] = 0x01; /* APTPL */
	bench_start(s->b, CDB(0x5F, action, type, 0, 0, 0, 0, 0, 24, 0), SCSI_DATA_OUT, 24);
}

static uint8_t out(struct side *s, uint8_t action, uint8_t type, uint64_t key, uint64_t action_key)
{
	out_start(s, action, type, key, action_key);
	bench_wait(s->b);
	return (uint8_t)s->b->req.status;
}

static void in(struct side *s, uint8_t action, uint32_t transferred)
{
	bench_run(s->b, CDB(0x5E, action, 0, 0, 0, 0, 0, 0x10, 0, 0), SCSI_DATA_IN, 4096);
	assert_good(s->b, transferred);
}

static void ready(struct side *s)
{
	bench_run(s->b, CDB(0, 0, 0, 0, 0, 0), SCSI_DATA_NONE, 0);
}

static uint8_t write_status(struct side *s)
{
	bench_run(s->b, CDB(0x2A, 0, 0, 0, 0, 0, 0, 0, 1, 0), SCSI_DATA_OUT, 512);
	return (uint8_t)s->b->req.status;
}

/* --- what is allowed --- */

/*
 * Columns, of one that does not hold the reservation: write exclusive; exclusive access; a
 * registrant under the types for registrants; one who is none, where they are about writing; and
 * where they are about access. A = allowed, C = conflict.
 */
static const struct {
	const char *name, *rights;
	uint8_t cdb[16];
	enum scsi_direction direction;
	uint32_t bytes;
} commands[] = {
	{ "TEST UNIT READY", "AAAAA", { 0x00 }, SCSI_DATA_NONE, 0 },
	{ "REQUEST SENSE", "AAAAA", { 0x03, 0, 0, 0, 18 }, SCSI_DATA_IN, 18 },
	{ "INQUIRY", "AAAAA", { 0x12, 0, 0, 0, 96 }, SCSI_DATA_IN, 96 },
	{ "REPORT LUNS", "AAAAA", { 0xA0, [8] = 1 }, SCSI_DATA_IN, 256 },
	{ "READ CAPACITY (10)", "AAAAA", { 0x25 }, SCSI_DATA_IN, 8 },
	{ "READ CAPACITY (16)", "AAAAA", { 0x9E, 0x10, [13] = 32 }, SCSI_DATA_IN, 32 },
	{ "PERSISTENT RESERVE IN", "AAAAA", { 0x5E, 0, [8] = 64 }, SCSI_DATA_IN, 64 },
	{ "MODE SENSE (6)", "ACAAC", { 0x1A, 0, 0x3f, 0, 255 }, SCSI_DATA_IN, 255 },
	{ "MODE SENSE (10)", "ACAAC", { 0x5A, 0, 0x3f, [8] = 255 }, SCSI_DATA_IN, 255 },
	{ "MODE SELECT (6)", "CCACC", { 0x15, 0x10 }, SCSI_DATA_NONE, 0 },
	{ "MODE SELECT (10)", "CCACC", { 0x55, 0x10 }, SCSI_DATA_NONE, 0 },
	{ "START", "AAAAA", { 0x1B, 0, 0, 0, 0x01 }, SCSI_DATA_NONE, 0 },
	{ "STOP", "CCACC", { 0x1B, 0, 0, 0, 0x00 }, SCSI_DATA_NONE, 0 },
	{ "START into a power condition", "CCACC", { 0x1B, 0, 0, 0, 0x31 }, SCSI_DATA_NONE, 0 },
	{ "READ (6)", "ACAAC", { 0x08, 0, 0, 0, 1 }, SCSI_DATA_IN, 512 },
	{ "READ (10)", "ACAAC", { 0x28, [8] = 1 }, SCSI_DATA_IN, 512 },
	{ "READ (12)", "ACAAC", { 0xA8, [9] = 1 }, SCSI_DATA_IN, 512 },
	{ "READ (16)", "ACAAC", { 0x88, [13] = 1 }, SCSI_DATA_IN, 512 },
	{ "VERIFY (10)", "ACAAC", { 0x2F, [8] = 1 }, SCSI_DATA_NONE, 0 },
	{ "VERIFY (12)", "ACAAC", { 0xAF, [9] = 1 }, SCSI_DATA_NONE, 0 },
	{ "VERIFY (16)", "ACAAC", { 0x8F, [13] = 1 }, SCSI_DATA_NONE, 0 },
	{ "WRITE (6)", "CCACC", { 0x0A, 0, 0, 0, 1 }, SCSI_DATA_OUT, 512 },
	{ "WRITE (10)", "CCACC", { 0x2A, [8] = 1 }, SCSI_DATA_OUT, 512 },
	{ "WRITE (12)", "CCACC", { 0xAA, [9] = 1 }, SCSI_DATA_OUT, 512 },
	{ "WRITE (16)", "CCACC", { 0x8A, [13] = 1 }, SCSI_DATA_OUT, 512 },
	{ "WRITE AND VERIFY (10)", "CCACC", { 0x2E, [8] = 1 }, SCSI_DATA_OUT, 512 },
	{ "WRITE AND VERIFY (12)", "CCACC", { 0xAE, [9] = 1 }, SCSI_DATA_OUT, 512 },
	{ "WRITE AND VERIFY (16)", "CCACC", { 0x8E, [13] = 1 }, SCSI_DATA_OUT, 512 },
	{ "WRITE SAME (10)", "CCACC", { 0x41, [8] = 1 }, SCSI_DATA_OUT, 512 },
	{ "WRITE SAME (16)", "CCACC", { 0x93, [13] = 1 }, SCSI_DATA_OUT, 512 },
	{ "UNMAP", "CCACC", { 0x42 }, SCSI_DATA_NONE, 0 },
	{ "SYNCHRONIZE CACHE (10)", "CCACC", { 0x35 }, SCSI_DATA_NONE, 0 },
	{ "SYNCHRONIZE CACHE (16)", "CCACC", { 0x91 }, SCSI_DATA_NONE, 0 },
};

static unsigned column_of(uint8_t type, bool registered)
{
	if (type == 1 || type == 3)
		return type == 3;
	if (registered)
		return 2;
	return type == 5 || type == 7 ? 3 : 4;
}

static void expect_rights(struct side *s, uint8_t type, int column)
{
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		bool conflict = column >= 0 && commands[i].rights[column] == 'C';

		bench_run(s->b, commands[i].cdb, 16, commands[i].direction, commands[i].bytes);
		assert_int_equal(s->b->req.outcome, SCSI_FINISHED);
		if ((s->b->req.status == CONFLICT) != conflict)
			print_error("%s, type %u, column %d\n", commands[i].name, type, column);
		assert_int_equal(s->b->req.status == CONFLICT, conflict);
		if (!conflict && s->b->req.status != SCSI_GOOD)
			print_error("%s: sense %x %x\n", commands[i].name, s->b->req.sense[2],
				    s->b->req.sense[12]);
		assert_true(conflict || s->b->req.status == SCSI_GOOD);
	}
}

static void test_every_command_under_every_type(void **state)
{
	static const uint8_t types[] = { 1, 3, 5, 6, 7, 8 };
	struct pair *p = pair_new();

	(void)state;
	assert_int_equal(out(&p->a, 0, 0, 0, 0x111), SCSI_GOOD);
	for (unsigned registered = 0; registered < 2; registered++) {
		if (registered)
			assert_int_equal(out(&p->c, 0, 0, 0, 0x222), SCSI_GOOD);
		for (size_t t = 0; t < sizeof(types); t++) {
			expect_rights(&p->c, 0, -1);
			assert_int_equal(out(&p->a, 1, types[t], 0x111, 0), SCSI_GOOD);
			expect_rights(&p->a, types[t], -1);
			expect_rights(&p->c, types[t], (int)column_of(types[t], registered));
			assert_int_equal(out(&p->a, 2, types[t], 0x111, 0), SCSI_GOOD);
			ready(&p->c);
			if (registered && types[t] >= 5)
				assert_sense(p->c.b, SENSE_RESERVATIONS_RELEASED);
			else
				assert_good(p->c.b, 0);
		}
	}
	pair_free(p);
}

/* Nothing that is not listed slips through: a command is in the table above or unknown. */
static void test_every_known_command_is_asked(void **state)
{
	struct pair *p = pair_new();

	(void)state;
	for (unsigned op = 0; op < 256; op++) {
		uint8_t cdb[16] = { (uint8_t)op };
		bool listed = op == 0x5F;

		for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
			listed = listed || commands[i].cdb[0] == op;
		bench_run(p->a.b, cdb, 16, SCSI_DATA_NONE, 0);
		if (!listed)
			assert_sense(p->a.b, SENSE_INVALID_OPCODE);
	}
	pair_free(p);
}

/* --- what is said --- */

static void test_keys_and_reservation_are_read(void **state)
{
	struct pair *p = pair_new();
	uint8_t *d = p->c.b->buffer;

	(void)state;
	in(&p->c, 0, 8);
	assert_memory_equal(d, "\0\0\0\0\0\0\0\0", 8);
	in(&p->c, 1, 8);
	assert_int_equal(out(&p->a, 0, 0, 0, 0x1122334455667788), SCSI_GOOD);
	assert_int_equal(out(&p->c, 6, 0, 0xbad, 0x99), SCSI_GOOD);
	in(&p->c, 0, 24);
	assert_memory_equal(d, "\0\0\0\2\0\0\0\x10\x11\x22\x33\x44\x55\x66\x77\x88", 16);
	assert_memory_equal(d + 16, "\0\0\0\0\0\0\0\x99", 8);
	assert_int_equal(out(&p->a, 1, 6, 0x1122334455667788, 0), SCSI_GOOD);
	in(&p->c, 1, 24);
	assert_memory_equal(d, "\0\0\0\2\0\0\0\x10\x11\x22\x33\x44\x55\x66\x77\x88", 16);
	assert_memory_equal(d + 16, "\0\0\0\0\0\x06\0\0", 8);
	in(&p->c, 3, 8 + 2 * 48);
	assert_int_equal(get32(d + 4), 96);
	assert_int_equal(d[8 + 12], 1);
	assert_int_equal(d[8 + 13], 6);
	assert_int_equal(get32(d + 8 + 20), 24);
	assert_int_equal(d[8 + 24], 0x06);
	assert_int_equal(d[8 + 28] >> 4, 3);
	assert_int_equal(d[8 + 48 + 12], 0);
	assert_memory_not_equal(d + 8 + 28, d + 8 + 48 + 28, 8);
	/* All registrants hold it: it has no key of its own. */
	assert_int_equal(out(&p->a, 2, 6, 0x1122334455667788, 0), SCSI_GOOD);
	assert_int_equal(out(&p->a, 1, 7, 0x1122334455667788, 0), SCSI_GOOD);
	ready(&p->c);
	assert_sense(p->c.b, SENSE_RESERVATIONS_RELEASED);
	in(&p->c, 1, 24);
	assert_memory_equal(d + 8, "\0\0\0\0\0\0\0\0\0\0\0\0\0\x07\0\0", 16);
	bench_run(p->c.b, CDB(0x5E, 4, 0, 0, 0, 0, 0, 0, 64, 0), SCSI_DATA_IN, 64);
	assert_sense(p->c.b, SENSE_INVALID_FIELD);
	pair_free(p);
}

static void test_capabilities(void **state)
{
	struct pair *p = pair_new();

	(void)state;
	in(&p->a, 2, 8);
	assert_memory_equal(p->a.b->buffer, "\0\x08\x01\x80\xea\x01\0\0", 8);
	assert_int_equal(out(&p->a, 0, 0, 0, 1), SCSI_GOOD);
	in(&p->c, 2, 8);
	assert_int_equal(p->c.b->buffer[3], 0x81); /* persists, as the last registration asked */
	pair_free(p);
}

static void test_malformed_requests(void **state)
{
	struct pair *p = pair_new();
	struct bench *b = p->a.b;

	(void)state;
	memset(b->buffer, 0, 64);
	bench_run(b, CDB(0x5F, 0, 0, 0, 0, 0, 0, 0, 23, 0), SCSI_DATA_OUT, 24);
	assert_sense(b, SENSE_PARAMETER_LIST_LENGTH);
	bench_run(b, CDB(0x5F, 0, 0, 0, 0, 1, 0, 0, 24, 0), SCSI_DATA_OUT, 24);
	assert_sense(b, SENSE_PARAMETER_LIST_LENGTH);
	bench_run(b, CDB(0x5F, 7, 0, 0, 0, 0, 0, 0, 24, 0), SCSI_DATA_OUT, 24);
	assert_sense(b, SENSE_INVALID_FIELD); /* REGISTER AND MOVE */
	bench_run(b, CDB(0x5F, 0, 0, 0, 0, 0, 0, 0, 24, 0), SCSI_DATA_OUT, 20);
	assert_int_equal(b->req.outcome, SCSI_OVERRUN);
	for (unsigned bit = 2; bit <= 3; bit++) {
		b->buffer[20] = (uint8_t)BIT(bit);
		b->buffer[15] = 1;
		bench_run(b, CDB(0x5F, 0, 0, 0, 0, 0, 0, 0, 24, 0), SCSI_DATA_OUT, 24);
		assert_sense(b, SENSE_INVALID_PARAMETER);
	}
	assert_int_equal(out(&p->a, 0, 0, 0, 1), SCSI_GOOD);
	assert_int_equal(out(&p->a, 1, 2, 1, 0), SCSI_CHECK_CONDITION);
	assert_sense(b, SENSE_INVALID_FIELD);
	assert_int_equal(out(&p->a, 1, 0x11, 1, 0), SCSI_CHECK_CONDITION);
	assert_sense(b, SENSE_INVALID_FIELD);
	assert_int_equal(out(&p->a, 4, 1, 1, 0), SCSI_CHECK_CONDITION);
	assert_sense(b, SENSE_INVALID_PARAMETER);
	assert_int_equal(out(&p->a, 1, 1, 1, 0), SCSI_GOOD);
	assert_int_equal(out(&p->a, 2, 3, 1, 0), SCSI_CHECK_CONDITION);
	assert_sense(b, SENSE_INVALID_RELEASE);
	assert_int_equal(out(&p->a, 2, 1, 2, 0), CONFLICT);
	pair_free(p);
}

static void test_units_without_a_set_refuse(void **state)
{
	struct bench *b = bench_new(SCSI_DISK, 2 * MIB, 512);

	(void)state;
	bench_run(b, CDB(0x5E, 0, 0, 0, 0, 0, 0, 0, 64, 0), SCSI_DATA_IN, 64);
	assert_sense(b, SENSE_INVALID_OPCODE);
	bench_run(b, CDB(0x5F, 0, 0, 0, 0, 0, 0, 0, 24, 0), SCSI_DATA_OUT, 24);
	assert_sense(b, SENSE_INVALID_OPCODE);
	assert_int_equal(scsi_target_share(b->target, 1, NULL), -ENOENT);
	bench_free(b);
	b = bench_new(SCSI_DVD, 2 * MIB, 512);
	assert_int_equal(scsi_target_share(b->target, 0, NULL), -EINVAL);
	bench_free(b);
}

/* --- what is told --- */

static void test_the_preempted_are_told_once(void **state)
{
	struct pair *p = pair_new();

	(void)state;
	assert_int_equal(out(&p->a, 0, 0, 0, 1), SCSI_GOOD);
	assert_int_equal(out(&p->c, 0, 0, 0, 2), SCSI_GOOD);
	assert_int_equal(out(&p->a, 1, 5, 1, 0), SCSI_GOOD);
	assert_int_equal(write_status(&p->c), SCSI_GOOD);
	assert_int_equal(out(&p->c, 4, 5, 2, 1), SCSI_GOOD);
	bench_run(p->a.b, CDB(0x12, 0, 0, 0, 96, 0), SCSI_DATA_IN, 96);
	assert_good(p->a.b, 96); /* INQUIRY does not tell */
	ready(&p->a);
	assert_sense(p->a.b, SENSE_REGISTRATIONS_PREEMPTED);
	ready(&p->a);
	assert_good(p->a.b, 0);
	assert_int_equal(write_status(&p->a), CONFLICT);
	assert_int_equal(write_status(&p->c), SCSI_GOOD);
	/* Back, and cleared away. */
	assert_int_equal(out(&p->a, 0, 0, 0, 1), SCSI_GOOD);
	assert_int_equal(write_status(&p->a), SCSI_GOOD);
	assert_int_equal(out(&p->c, 3, 0, 2, 0), SCSI_GOOD);
	bench_run(p->a.b, CDB(0x03, 0, 0, 0, 18, 0), SCSI_DATA_IN, 18);
	assert_good(p->a.b, 18);
	assert_memory_equal(p->a.b->buffer + 12, "\x2a\x03", 2); /* REQUEST SENSE tells, too */
	assert_int_equal(write_status(&p->a), SCSI_GOOD);
	pair_free(p);
}

static void test_reset_forgets_nothing(void **state)
{
	struct pair *p = pair_new();

	(void)state;
	assert_int_equal(out(&p->a, 0, 0, 0, 1), SCSI_GOOD);
	assert_int_equal(out(&p->a, 1, 3, 1, 0), SCSI_GOOD);
	scsi_target_reset(p->a.b->target);
	scsi_target_reset(p->c.b->target);
	assert_int_equal(write_status(&p->a), SCSI_GOOD);
	assert_int_equal(write_status(&p->c), CONFLICT);
	pair_free(p);
}

/* --- what is on its way --- */

static void rounds(struct bench *b)
{
	for (int i = 0; i < 5; i++)
		assert_int_equal(loop_once(b->loop, 5), 0);
}

static void test_preemption_waits_for_writes(void **state)
{
	static const uint8_t actions[] = { 4, 5 };

	(void)state;
	for (size_t i = 0; i < sizeof(actions); i++) {
		struct pair *p = pair_new();

		assert_int_equal(out(&p->a, 0, 0, 0, 1), SCSI_GOOD);
		assert_int_equal(out(&p->c, 0, 0, 0, 2), SCSI_GOOD);
		assert_int_equal(out(&p->a, 1, 5, 1, 0), SCSI_GOOD);
		p->c.b->disk->hold = true;
		bench_start(p->c.b, CDB(0x2A, 0, 0, 0, 0, 0, 0, 0, 1, 0), SCSI_DATA_OUT, 512);
		out_start(&p->a, actions[i], 5, 1, 2);
		rounds(p->a.b);
		assert_false(p->a.b->finished); /* but it is in force: */
		p->c.b->disk->hold = false;
		assert_false(p->c.b->finished);
		fake_disk_release(p->c.b->disk);
		bench_wait(p->c.b);
		assert_good(p->c.b, 512);
		for (int k = 0; k < 100 && !p->a.b->finished; k++)
			loop_once(p->a.b->loop, 5);
		assert_true(p->a.b->finished);
		assert_good(p->a.b, 24);
		ready(&p->c);
		assert_sense(p->c.b, SENSE_REGISTRATIONS_PREEMPTED);
		assert_int_equal(write_status(&p->c), CONFLICT);
		pair_free(p);
	}
}

static void test_waiting_preemption_can_be_cancelled(void **state)
{
	struct pair *p = pair_new();

	(void)state;
	assert_int_equal(out(&p->a, 0, 0, 0, 1), SCSI_GOOD);
	assert_int_equal(out(&p->c, 0, 0, 0, 2), SCSI_GOOD);
	p->c.b->disk->hold = true;
	bench_start(p->c.b, CDB(0x2A, 0, 0, 0, 0, 0, 0, 0, 1, 0), SCSI_DATA_OUT, 512);
	out_start(&p->a, 5, 1, 1, 2);
	scsi_cancel(&p->a.b->req);
	rounds(p->a.b);
	assert_true(p->a.b->finished);
	assert_int_equal(p->a.b->req.outcome, SCSI_ABORTED);
	fake_disk_release(p->c.b->disk);
	bench_wait(p->c.b);
	pair_free(p);
}

/* A guest's own writes are no reason to wait. */
static void test_preemption_does_not_wait_for_itself(void **state)
{
	struct pair *p = pair_new();
	struct scsi_request write = { .cdb = { 0x2A, [8] = 1 },
				      .cdb_size = 10,
				      .direction = SCSI_DATA_OUT,
				      .bytes = 512,
				      .iovcnt = 1,
				      .iovmax = 1,
				      .done = bench_done };
	struct bench own = { 0 };
	struct iovec iov = { own.buffer, 512 };

	(void)state;
	own.req = write;
	own.req.iov = &iov;
	assert_int_equal(out(&p->a, 0, 0, 0, 1), SCSI_GOOD);
	assert_int_equal(out(&p->c, 0, 0, 0, 2), SCSI_GOOD);
	p->a.b->disk->hold = true;
	scsi_execute(p->a.b->target, &own.req);
	assert_int_equal(out(&p->a, 5, 1, 1, 2), SCSI_GOOD);
	assert_false(own.finished);
	fake_disk_release(p->a.b->disk);
	for (int i = 0; i < 100 && !own.finished; i++)
		loop_once(p->a.b->loop, 0);
	assert_true(own.finished);
	pair_free(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_command_under_every_type),
		cmocka_unit_test(test_every_known_command_is_asked),
		cmocka_unit_test(test_keys_and_reservation_are_read),
		cmocka_unit_test(test_capabilities),
		cmocka_unit_test(test_malformed_requests),
		cmocka_unit_test(test_units_without_a_set_refuse),
		cmocka_unit_test(test_the_preempted_are_told_once),
		cmocka_unit_test(test_reset_forgets_nothing),
		cmocka_unit_test(test_preemption_waits_for_writes),
		cmocka_unit_test(test_waiting_preemption_can_be_cancelled),
		cmocka_unit_test(test_preemption_does_not_wait_for_itself),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
