// SPDX-License-Identifier: MIT
/*
 * A hostile client of the worker's control socket: the real socket code, commands and disks, with a
 * machine that is only a state. Drives, at controller 0: LUN 0 and 1 are VHDX (byte 0, bit 0: VHD)
 * of 2 MiB with a guest that uses them, LUN 2 is a raw disk, LUN 3 a DVD. What follows byte 0 goes
 * to the socket as it is, but for lines that start with '#':
 *
 *     #d LETTERS  descriptors for the line after this: e an empty file, A-H the first to the eighth
 *                 of those again, 0-2 a drive's image again, r an image for reading only, p a pipe,
 *                 x the largest number of them
 *     #g          the guest sends requests
 *     #l          the loop runs, until no change is under way
 *     #m          until no merge does
 *     #c          the other client's turn
 *     #x          this client goes and comes again
 *     #h          this client sends no more
 *
 * The id of nothing (only zeros) stands for that of the last point that was made.
 *
 * Whatever comes: each line is answered once, in JSON that says whether it went well; the guest
 * reads what it wrote; the machine can end, and all descriptors are closed then.
 */
#include "lib/cleanup.h"
#include "lib/cursor.h"
#include "vhd/disk_drive.h"
#include "vhd/disk_model.h"
#include "vhd/vhd.h"
#include "vhd/vhdx.h"
#include "worker/control.h"
#include "worker/disk_control.h"
#include "worker/vm_description.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define SIZE       (2 * MIB)
#define GUEST_SIZE MIB /* that it uses; the sector after that keeps the disk from getting less */
#define FILE_MAX   (24 * MIB)
#define DRIVES     4u
#define GUESTS     2u
#define CLIENTS    2u
#define FDS        40u
#define EMPTY      8u
#define LINES_MAX  200u
#define NO_POINT   "00000000-0000-0000-0000-000000000000"

struct client {
	int fd; /* -1 = it was dropped */
	unsigned asked, answered;
	size_t held; /* bytes of an answer that is not whole */
	char answer[256 * KIB];
};

struct machine {
	struct loop *loop;
	enum machine_state state;
	void (*on_state)(void *context, enum machine_state state);
	void *context;
	void (*on_event)(void *context, json_t *event, bool may_miss);
	void *event_context;
	struct command_family family;
	struct live *live;
	struct drive *drives[DRIVES];
	int images[DRIVES], empty[EMPTY];
	unsigned empties;
	struct model models[GUESTS];
	bool settling, settled;
	struct control *control;
	struct sockaddr_un address;
	socklen_t address_size;
	struct client clients[CLIENTS];
	unsigned current;
	unsigned fd_count;
	int fds[FDS]; /* for the next line */
	char point[sizeof(NO_POINT)];
};

static void must(bool there)
{
	if (!there)
		abort();
}

/* --- the machine that control.c sees --- */

static void on_settled(void *context)
{
	((struct machine *)context)->settled = true;
}

static void settle(struct machine *m)
{
	if (!m->settling)
		live_settle(m->live, on_settled, m);
	m->settling = true;
}

static void state_set(struct machine *m, enum machine_state state)
{
	m->state = state;
	if (m->on_state)
		m->on_state(m->context, state);
}

const char *machine_state_name(enum machine_state state)
{
	return state == MACHINE_PAUSED ? "paused" : "other";
}

enum machine_state machine_state(const struct machine *m)
{
	return m->state;
}

int machine_command(struct machine *m, enum machine_command command, struct error *err)
{
	if (m->settling)
		return error_set(err, -EINVAL, "the machine is ending");
	switch (command) {
	case MACHINE_PAUSE:
		state_set(m, MACHINE_PAUSED);
		break;
	case MACHINE_RESUME:
		state_set(m, MACHINE_RUNNING);
		break;
	case MACHINE_RESET:
		live_reset(m->live);
		state_set(m, MACHINE_RESETTING);
		live_running(m->live);
		break;
	case MACHINE_POWER_OFF:
		settle(m);
		state_set(m, MACHINE_STOPPING);
		break;
	}
	return 0;
}

int machine_save(struct machine *m, const struct machine_save *save, struct error *err)
{
	(void)m, (void)save;
	return error_set(err, -ENOTSUP, "this machine cannot be saved");
}

int machine_save_cancel(struct machine *m, struct error *err)
{
	(void)m;
	return error_set(err, -EINVAL, "nothing is being saved");
}

void machine_on_state(struct machine *m, void (*fn)(void *context, enum machine_state state),
		      void *context)
{
	m->on_state = fn;
	m->context = context;
}

uint64_t machine_exits(const struct machine *m)
{
	(void)m;
	return 1;
}

struct vmbus *machine_bus(struct machine *m)
{
	(void)m;
	return NULL;
}

const struct command_family *machine_families(const struct machine *m, unsigned *ret_count)
{
	*ret_count = 1;
	return &m->family;
}

void machine_on_event(struct machine *m, void (*fn)(void *context, json_t *event, bool may_miss),
		      void *context)
{
	m->on_event = fn;
	m->event_context = context;
}

static void on_disk_event(void *context, const struct live_event *event)
{
	struct machine *m = context;
	bool may_miss;
	json_t *o = disk_event(event, &may_miss);

	if (m->on_event)
		m->on_event(m->event_context, o, may_miss);
	json_decref(o);
}

uint32_t vmbus_version(const struct vmbus *bus)
{
	(void)bus;
	return 0x50003;
}

struct vmbus_counters vmbus_counters(const struct vmbus *bus)
{
	(void)bus;
	return (struct vmbus_counters){ .messages = 1 };
}

/* A name that the kernel chooses; nothing in the file system. */
static int listener_make(struct machine *m)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	m->address_size = sizeof(m->address);
	must(fd >= 0 && bind(fd, (struct sockaddr *)&a, sizeof(a.sun_family)) >= 0 &&
	     listen(fd, 4) >= 0 &&
	     getsockname(fd, (struct sockaddr *)&m->address, &m->address_size) >= 0);
	return fd;
}

/* --- drives --- */

static int file_new(void)
{
	int fd = memfd_create("image", MFD_CLOEXEC);

	must(fd >= 0);
	return fd;
}

/* An opening of its own, with a lock of its own. */
static int file_again(int fd, int flags)
{
	char path[40];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, flags | O_CLOEXEC);
}

static void drive_make(struct machine *m, unsigned lun, bool vhd)
{
	const struct vhdx_create_options xo = { .size = SIZE, .block_size = MIB };
	const struct vhd_create_options vo = { .size = SIZE,
					       .block_size = 512 * KIB,
					       .kind = VHD_DYNAMIC };
	const struct drive_options o = {
		.loop = m->loop,
		.lun = lun,
		.kind = lun == 3 ? DRIVE_DVD : DRIVE_DISK,
		.read_only = lun == 3,
		.format = lun < GUESTS ? NULL : "raw",
	};
	int fd = file_new(), maker = file_again(fd, O_RDWR); /* which has the lock */
	struct error err = { 0 };

	if (lun >= GUESTS)
		must(ftruncate(fd, SIZE) >= 0);
	else
		must((vhd ? vhd_create(maker, &vo, &err) : vhdx_create(maker, &xo, &err)) >= 0);
	close(maker);
	m->images[lun] = fd;
	must(drive_open(&o, file_again(fd, lun == 3 ? O_RDONLY : O_RDWR),
			lun == 1 ? NULL : "/nowhere/image", &m->drives[lun], &err) >= 0);
}

static void guest_make(struct machine *m, unsigned lun)
{
	struct model *model = &m->models[lun];

	*model = (struct model){ .d = m->drives[lun]->disk,
				 .expect = calloc(1, GUEST_SIZE + 512),
				 .size = GUEST_SIZE,
				 .sector = 512,
				 .seed = 7 + lun };
	must(model->expect);
	memset(model->expect + GUEST_SIZE, 0x5a, 512);
	must(!drive_write(model->d, model->expect + GUEST_SIZE, 512, GUEST_SIZE, 0));
}

static void guest_compare(struct model *model)
{
	model_settle(model);
	model->size += 512;
	model_compare(model);
	free(model->expect);
}

/* Not while requests are held back for longer: a model waits for some of its own. */
static void guest_step(struct machine *m)
{
	for (unsigned i = 0; i < GUESTS; i++)
		for (unsigned n = 0; n < 4; n++)
			if (!live_changing(m->live) && !m->drives[i]->frozen)
				model_step(&m->models[i], 512 * KIB);
}

/* --- clients --- */

static void client_come(struct machine *m, struct client *c)
{
	c->asked = c->answered = 0;
	c->held = 0;
	c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	must(c->fd >= 0 && connect(c->fd, (struct sockaddr *)&m->address, m->address_size) >= 0);
	must(loop_once(m->loop, 0) >= 0);
}

static void client_go(struct client *c)
{
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
}

static void point_note(struct machine *m, const json_t *answer)
{
	const json_t *disk = json_array_get(json_object_get(answer, "disks"), 0);
	const char *point = json_string_value(json_object_get(disk, "point"));

	if (point)
		snprintf(m->point, sizeof(m->point), "%s", point);
}

static void message_check(struct machine *m, struct client *c, const char *text, size_t size)
{
	json_error_t e;
	json_t *o = json_loadb(text, size, 0, &e), *ok = json_object_get(o, "ok");

	must(o);
	point_note(m, o);
	if (!json_object_get(o, "event") || json_object_get(o, "state")) {
		bool answer = !json_object_get(o, "event");

		must(json_is_string(json_object_get(o, "state")));
		must(!answer || json_is_boolean(ok));
		must(!answer || json_is_true(ok) == !json_object_get(o, "error"));
		must(!answer || ++c->answered <= c->asked);
	}
	json_decref(o);
}

static void client_read(struct machine *m, struct client *c)
{
	while (c->fd >= 0) {
		ssize_t n = recv(c->fd, c->answer + c->held, sizeof(c->answer) - c->held, 0);
		char *end;

		if (n < 0 && errno == EAGAIN)
			return;
		if (n <= 0) {
			client_go(c);
			return;
		}
		c->held += (size_t)n;
		while ((end = memchr(c->answer, '\n', c->held))) {
			size_t size = (size_t)(end - c->answer);

			message_check(m, c, c->answer, size);
			c->held -= size + 1;
			memmove(c->answer, end + 1, c->held);
		}
		must(c->held < sizeof(c->answer));
	}
}

static void turn(struct machine *m, unsigned n, int wait)
{
	while (n--) {
		must(loop_once(m->loop, wait) >= 0);
		for (unsigned i = 0; i < CLIENTS; i++)
			client_read(m, &m->clients[i]);
	}
}

static void fds_forget(struct machine *m)
{
	while (m->fd_count)
		close(m->fds[--m->fd_count]);
}

static void fd_add(struct machine *m, char letter)
{
	int fd = -1, pair[2];

	if (m->fd_count == FDS)
		return;
	if (letter == 'e') {
		fd = file_new();
		if (m->empties < EMPTY)
			m->empty[m->empties++] = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	} else if (letter >= 'A' && letter < 'A' + (char)m->empties) {
		fd = file_again(m->empty[letter - 'A'], O_RDWR);
	} else if (letter >= '0' && letter < '3') {
		fd = file_again(m->images[letter - '0'], O_RDWR);
	} else if (letter == 'r') {
		fd = file_again(m->images[0], O_RDONLY);
	} else if (letter == 'p') {
		must(pipe2(pair, O_CLOEXEC) >= 0);
		fd = pair[0];
		close(pair[1]);
	} else if (letter == 'x') {
		while (m->fd_count < FDS)
			fd_add(m, 'r');
	}
	if (fd >= 0)
		m->fds[m->fd_count++] = fd;
}

static void client_send(struct machine *m, uint8_t *text, size_t size)
{
	struct client *c = &m->clients[m->current];
	_Alignas(struct cmsghdr) char space[CMSG_SPACE(FDS * sizeof(int))] = { 0 };
	struct iovec iov = { text, size };
	struct msghdr h = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (m->fd_count) {
		struct cmsghdr *head = (struct cmsghdr *)space;

		h.msg_control = space;
		h.msg_controllen = CMSG_SPACE(m->fd_count * sizeof(int));
		head->cmsg_level = SOL_SOCKET;
		head->cmsg_type = SCM_RIGHTS;
		head->cmsg_len = CMSG_LEN(m->fd_count * sizeof(int));
		memcpy(CMSG_DATA(head), m->fds, m->fd_count * sizeof(int));
	}
	c->asked += text[size - 1] == '\n';
	while (c->fd >= 0 && iov.iov_len) {
		ssize_t n = sendmsg(c->fd, &h, MSG_NOSIGNAL);

		if (n > 0) {
			iov.iov_base = (char *)iov.iov_base + n;
			iov.iov_len -= (size_t)n;
			h.msg_controllen = 0;
		} else if (errno != EAGAIN) {
			client_read(m, c);
			client_go(c);
		}
		turn(m, 1, 0);
	}
	fds_forget(m);
}

/* --- the input --- */

static bool merging(const struct machine *m)
{
	for (unsigned i = 0; i < GUESTS; i++)
		if (m->drives[i]->merge)
			return true;
	return false;
}

static void directive(struct machine *m, const uint8_t *text, size_t size)
{
	switch (size > 1 ? text[1] : 0) {
	case 'd':
		for (size_t i = 2; i < size; i++)
			fd_add(m, (char)text[i]);
		break;
	case 'g':
		guest_step(m);
		break;
	case 'l':
		turn(m, 4, 0);
		for (unsigned i = 0; i < 50 && live_changing(m->live); i++)
			turn(m, 1, 1);
		break;
	case 'm':
		for (unsigned i = 0; i < 100 && merging(m); i++)
			turn(m, 1, 10);
		break;
	case 'c':
		m->current = (m->current + 1) % CLIENTS;
		break;
	case 'x':
		client_go(&m->clients[m->current]);
		client_come(m, &m->clients[m->current]);
		break;
	case 'h':
		must(shutdown(m->clients[m->current].fd, SHUT_WR) >= 0 ||
		     m->clients[m->current].fd < 0 || errno == ENOTCONN);
		break;
	}
}

static void feed_line(struct machine *m, const uint8_t *p, size_t size)
{
	_cleanup_free_ uint8_t *line = malloc(size);
	uint8_t *point;

	must(line);
	memcpy(line, p, size);
	point = *m->point ? memmem(line, size, NO_POINT, strlen(NO_POINT)) : NULL;
	if (point)
		memcpy(point, m->point, strlen(m->point));
	client_send(m, line, size);
}

static void feed(struct machine *m, const uint8_t *p, size_t size)
{
	for (unsigned i = 0; size && i < LINES_MAX; i++) {
		const uint8_t *end = memchr(p, '\n', size);
		size_t n = end ? (size_t)(end - p) + 1 : size;

		if (*p == '#')
			directive(m, p, n);
		else
			feed_line(m, p, n);
		p += n;
		size -= n;
	}
}

/* --- life --- */

static unsigned open_files(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	must(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static void machine_make(struct machine *m, bool vhd)
{
	const struct vm_control where = { .listener = listener_make(m), .descriptor = -1 };
	struct live_options o = { .loop = m->loop, .drives = m->drives, .drive_count = DRIVES };

	m->state = MACHINE_RUNNING;
	for (unsigned i = 0; i < DRIVES; i++)
		drive_make(m, i, vhd);
	for (unsigned i = 0; i < GUESTS; i++)
		guest_make(m, i);
	must(live_new(&o, &m->live, NULL) >= 0);
	live_on_event(m->live, on_disk_event, m);
	m->family = disk_family(m->live);
	must(control_new(m->loop, m, &where, &m->control, NULL) >= 0);
	for (unsigned i = 0; i < CLIENTS; i++)
		client_come(m, &m->clients[i]);
}

static void machine_end_all(struct machine *m)
{
	settle(m);
	for (unsigned i = 0; i < 1000 && !m->settled; i++)
		turn(m, 1, 10);
	must(m->settled);
	turn(m, 2, 0);
	for (unsigned i = 0; i < CLIENTS; i++) {
		struct client *c = &m->clients[i];

		must(c->fd < 0 || c->answered == c->asked);
		client_go(c);
	}
	for (unsigned i = 0; i < GUESTS; i++)
		guest_compare(&m->models[i]);
	control_free(m->control);
	for (unsigned i = 0; i < DRIVES; i++) {
		drive_close(m->drives[i], NULL);
		close(m->images[i]);
	}
	while (m->empties)
		close(m->empty[--m->empties]);
	live_free(m->live);
	fds_forget(m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct rlimit limit = { FILE_MAX, FILE_MAX };
	unsigned files = open_files();
	struct machine *m = calloc(1, sizeof(*m));
	struct reader r = reader_of(data, size);
	bool vhd = reader_u8(&r) & 1;

	/* A disk may be made as large as it likes; its file may not. */
	signal(SIGXFSZ, SIG_IGN);
	must(m && setrlimit(RLIMIT_FSIZE, &limit) >= 0);
	must(loop_new(64, &m->loop, NULL) >= 0);
	machine_make(m, vhd);
	feed(m, data + MIN(size, 1), size - MIN(size, 1));
	machine_end_all(m);
	loop_free(m->loop);
	free(m);
	must(open_files() == files);
	return 0;
}
