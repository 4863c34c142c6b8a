// SPDX-License-Identifier: MIT
/*
 * Requests to partita-privd: packets, each a byte that says which descriptors go along, and a text
 * up to the next zero byte. The real tables stand behind it, on a folder of this program's own; it
 * plays the hands as well, and takes what they would. Each request is answered once at most, with
 * words if it was refused; nothing outside of the folder is opened; no descriptor stays. What is
 * done to networks is done in a namespace of its own, or left out where there can be none.
 */
#include "lib/cleanup.h"
#include "privd/hands.h"
#include "privd/message.h"
#include "privd/server.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#define PACKETS_MAX 32
#define STORE       "/tmp/partita-privd-fuzz"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct loop *loop;
static int hands; /* our end of what the server takes for them */
static struct privd_config config = {
	.uid_count = 8,
	.first_uid = 2000000,
	.storage = { (char *)STORE },
	.storage_count = 1,
	.devices = { (char *)"/dev/null" },
	.device_count = 1,
	.bridges = { (char *)"lo" },
	.bridge_count = 1,
	.interfaces = { (char *)"lo" },
	.interface_count = 1,
};
static const struct privd_group *groups[] = { &privd_machine, &privd_storage, NULL, NULL };

static void must(bool condition)
{
	if (!condition)
		abort();
}

static void begin(void)
{
	struct error err = { 0 };
	int pair[2], fd;

	if (loop)
		return;
	config.service_uid = geteuid();
	config.service_gid = getegid();
	mkdir(STORE, 0700);
	fd = open(STORE "/disk", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	must(fd >= 0);
	close(fd);
	(void)!symlink("/etc/passwd", STORE "/link");
	must(!loop_new(0, &loop, &err));
	must(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair));
	config.hands = pair[0];
	hands = pair[1];
	must(!privd_machine.begin(&config, loop, &err));
	if (!unshare(CLONE_NEWNET)) {
		groups[2] = &privd_net;
		must(!privd_net.begin(&config, loop, &err));
	}
}

/* Folder, file, file, and something else: what a start takes, in part or whole. */
static unsigned descriptors(unsigned which, int fds[4])
{
	static const char *const paths[] = { STORE, STORE "/disk", "/dev/null", "/proc" };
	unsigned count = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(paths); i++)
		if (which & (1u << i)) {
			fds[count] = open(paths[i], O_RDONLY | O_CLOEXEC);
			must(fds[count++] >= 0);
		}
	return count;
}

static unsigned packets_send(int fd, const uint8_t *data, size_t size)
{
	unsigned count = 0;

	while (size > 1 && count < PACKETS_MAX) {
		const uint8_t *end = memchr(data + 1, 0, size - 1);
		size_t length = end ? (size_t)(end - data) - 1 : size - 1;
		int fds[4];
		unsigned fd_count = descriptors(data[0], fds);

		/* an empty packet would be the connection's end */
		if (length && !message_send(fd, data + 1, length, fds, fd_count))
			count++;
		while (fd_count)
			close(fds[--fd_count]);
		data += MIN(length + 2, size);
		size -= MIN(length + 2, size);
	}
	return count;
}

static void hands_play(void)
{
	struct hands_request q;
	struct message m;

	while (message_receive(hands, &q, sizeof(q), &m) > 0) {
		struct hands_answer a = { .serial = q.serial,
					  .result = q.serial % 3 ? 0 : -EACCES,
					  .words = "no" };
		bool keeper = q.kind == HANDS_KEEPER;

		must(m.size == sizeof(q));
		if (keeper) {
			must(m.fd_count >= 3 && q.uid - config.first_uid < config.uid_count);
		} else if (q.kind == HANDS_PASSWORD) {
			must(q.user[0] && memchr(q.user, 0, sizeof(q.user)) &&
			     memchr(q.password, 0, sizeof(q.password)) &&
			     memchr(q.address, 0, sizeof(q.address)));
		}
		message_close(&m);
		if (q.kind != HANDS_MORE)
			must(!message_send(hands, &a, sizeof(a), &hands, keeper && !a.result));
	}
}

static void answer_judge(const char *text, const struct message *m)
{
	json_t *o = json_loadb(text, m->size, 0, NULL);
	const json_t *code = json_object_get(o, "error");

	must(json_is_object(o) && json_is_integer(json_object_get(o, "id")));
	if (code)
		must(json_integer_value(code) > 0 && m->fd_count == 0 &&
		     *json_string_value(json_object_get(o, "words")));
	json_decref(o);
	for (unsigned i = 0; i < m->fd_count; i++) {
		char link[64], path[256] = "";

		snprintf(link, sizeof(link), "/proc/self/fd/%d", m->fds[i]);
		must(readlink(link, path, sizeof(path) - 1) > 0);
		must(!strncmp(path, STORE "/", strlen(STORE) + 1) || !strncmp(path, "socket:", 7) ||
		     !strcmp(path, "/dev/net/tun"));
	}
}

static unsigned answers_take(int fd)
{
	static char text[PRIVD_REQUEST_MAX];
	unsigned count = 0;
	struct message m;

	while (message_receive(fd, text, sizeof(text), &m) > 0) {
		answer_judge(text, &m);
		message_close(&m);
		count++;
	}
	return count;
}

static int lowest_free(void)
{
	int fd = dup(hands);

	close(fd);
	return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct privd_server *server;
	struct error err = { 0 };
	unsigned sent, answered = 0;
	int pair[2], before;

	begin();
	(void)!chown(STORE, config.service_uid, config.service_gid);
	before = lowest_free();
	must(!privd_server_new(loop, -1, &config, groups, &server, &err));
	must(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair));
	must(!privd_server_attach(server, pair[0], &err));
	sent = packets_send(pair[1], data, size);
	for (unsigned i = 0; i < 2 * PACKETS_MAX + 2; i++) {
		loop_once(loop, 0);
		hands_play();
		answered += answers_take(pair[1]);
	}
	must(answered <= sent);
	close(pair[1]);
	loop_once(loop, 0);
	privd_server_free(server);
	must(lowest_free() == before);
	return 0;
}
