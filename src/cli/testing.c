// SPDX-License-Identifier: MIT
/* See testing.h. One thread for the service; it ends after the last exchange. */
#include "cli/testing.h"
#include "cli/command.h"

#include "lib/cleanup.h"

#include <pthread.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#define REQUEST_MAX 65536
#define WORDS_MAX   32

struct recorded {
	const struct exchange *exchanges;
	unsigned count, done;
	int listener;
	char folder[32], place[64];
	uint8_t sent[4096];
	size_t sent_size;
	char wrong[512];
	pthread_t thread;
};

/* The whole request, NUL-terminated: its head, and as much of a body as it says. */
static void read_request(int fd, char *text)
{
	size_t size = 0, want = 0;

	for (;;) {
		ssize_t n = read(fd, text + size, REQUEST_MAX - 1 - size);
		char *end, *length;

		if (n <= 0)
			break;
		size += (size_t)n;
		text[size] = 0;
		end = strstr(text, "\r\n\r\n");
		if (!end)
			continue;
		length = strcasestr(text, "content-length:");
		want = (size_t)(end - text) + 4;
		if (length && length < end)
			want += strtoul(length + 15, NULL, 10);
		if (size >= want)
			break;
	}
	text[size] = 0;
}

static void check(struct recorded *r, const struct exchange *e, const char *request)
{
	size_t n = strlen(e->request);
	const char *body = strstr(request, "\r\n\r\n");

	if (strncmp(request, e->request, n) || strncmp(request + n, " HTTP/1.1\r\n", 11))
		snprintf(r->wrong, sizeof(r->wrong), "wanted \"%s\", got \"%.200s\"", e->request,
			 request);
	else if (e->body && (!body || !strstr(body, e->body)))
		snprintf(r->wrong, sizeof(r->wrong), "%s: wanted \"%s\" in \"%.200s\"", e->request,
			 e->body, body ? body : "");
}

static void answer(struct recorded *r, int fd, const struct exchange *e)
{
	size_t size = e->answer ? strlen(e->answer) : 0;
	bool stream = e->header && strstr(e->header, "event-stream");
	ssize_t n;

	dprintf(fd, "HTTP/1.1 %d Words\r\n", e->status);
	if (e->header)
		dprintf(fd, "%s\r\n", e->header);
	if (e->status != 101 && !stream)
		dprintf(fd, "Content-Length: %zu\r\nConnection: close\r\n", size);
	dprintf(fd, "\r\n%s", e->answer ? e->answer : "");
	if (e->status != 101)
		return;
	if (write(fd, e->more, e->more_size) < 0)
		return;
	if (e->ends)
		shutdown(fd, SHUT_WR);
	while (r->sent_size < sizeof(r->sent) &&
	       (n = read(fd, r->sent + r->sent_size, sizeof(r->sent) - r->sent_size)) > 0)
		r->sent_size += (size_t)n;
}

static void *serve(void *context)
{
	struct recorded *r = context;
	_cleanup_free_ char *request = malloc(REQUEST_MAX);

	while (r->done < r->count && !r->wrong[0]) {
		_cleanup_close_ int fd = accept(r->listener, NULL, NULL);

		if (fd < 0)
			break;
		read_request(fd, request);
		check(r, &r->exchanges[r->done], request);
		if (!r->wrong[0])
			answer(r, fd, &r->exchanges[r->done]);
		r->done++;
	}
	return NULL;
}

struct recorded *recorded_new(const struct exchange *exchanges, unsigned count)
{
	struct recorded *r = calloc(1, sizeof(*r));
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct timeval patience = { .tv_sec = 20 };

	if (!r)
		abort();
	*r = (struct recorded){ .exchanges = exchanges,
				.count = count,
				.folder = "/tmp/partita-cli-XXXXXX" };
	r->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (!mkdtemp(r->folder) || r->listener < 0)
		abort();
	snprintf(address.sun_path, sizeof(address.sun_path), "%s/s", r->folder);
	snprintf(r->place, sizeof(r->place), "unix:%s", address.sun_path);
	setsockopt(r->listener, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	if (bind(r->listener, (struct sockaddr *)&address, sizeof(address)) < 0 ||
	    listen(r->listener, 8) < 0 || pthread_create(&r->thread, NULL, serve, r))
		abort();
	return r;
}

const char *recorded_place(const struct recorded *r)
{
	return r->place;
}

size_t recorded_sent(struct recorded *r, uint8_t *data, size_t room)
{
	size_t n = MIN(room, r->sent_size);

	memcpy(data, r->sent, n);
	return n;
}

bool recorded_end(struct recorded *r)
{
	bool ok;

	shutdown(r->listener, SHUT_RDWR);
	pthread_join(r->thread, NULL);
	ok = !r->wrong[0] && r->done == r->count;
	if (!ok)
		fprintf(stderr, "%u of %u exchanges; %s\n", r->done, r->count, r->wrong);
	close(r->listener);
	unlink(r->place + strlen("unix:"));
	rmdir(r->folder);
	free(r);
	return ok;
}

/* --- commands --- */

static char *caught(FILE *f)
{
	long size;
	char *text;

	fflush(f);
	fseek(f, 0, SEEK_END);
	size = ftell(f);
	rewind(f);
	text = calloc(1, (size_t)size + 1);
	if (!text || fread(text, 1, (size_t)size, f) != (size_t)size)
		abort();
	fclose(f);
	return text;
}

int partita_run(char **out, char **errors, const char *noun, ...)
{
	char *argv[WORDS_MAX + 1] = { (char *)noun };
	FILE *files[2] = { tmpfile(), tmpfile() };
	int before[2] = { dup(1), dup(2) }, argc = 1, status = -1;
	va_list words;

	va_start(words, noun);
	while (argc < WORDS_MAX && (argv[argc] = va_arg(words, char *)))
		argc++;
	va_end(words);
	fflush(stdout);
	fflush(stderr);
	dup2(fileno(files[0]), 1);
	dup2(fileno(files[1]), 2);
	for (unsigned i = 0; i < command_noun_count; i++)
		if (!strcmp(command_nouns[i]->name, noun))
			status = command_run(command_nouns[i], argc, argv);
	fflush(stdout);
	fflush(stderr);
	for (int i = 0; i < 2; i++) {
		dup2(before[i], i + 1);
		close(before[i]);
	}
	*out = caught(files[0]);
	*errors = caught(files[1]);
	return status;
}
