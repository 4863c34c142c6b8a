// SPDX-License-Identifier: MIT
/*
 * What comes from a worker and its keeper: the two records of a run folder, and everything that it
 * says on its control socket while it is asked things. The first byte says which. Each question is
 * answered once, states are words of sane length, and what records say has ends.
 */
#include "daemon/supervisor_internal.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define QUESTIONS 8
#define CHUNK     1024

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct question {
	struct worker_request request;
	unsigned answered;
};

static void on_answer(struct worker_request *r, int result, json_t *answer, const struct error *err)
{
	struct question *q = container_of(r, struct question, request);

	q->answered++;
	if ((result < 0) != !answer || (result < 0) != !!err || (err && !err->message[0]))
		abort();
}

static void on_state(void *context, struct worker *w, const char *state)
{
	(void)context, (void)w;
	if (!*state || strlen(state) >= WORKER_STATE_SIZE)
		abort();
}

static void on_event(void *context, struct worker *w, json_t *event)
{
	(void)context, (void)w;
	if (!json_is_object(event))
		abort();
}

static const struct worker_events events = { .state = on_state, .event = on_event };

/* Numbers are never believed without a look; words always end. */
static void fuzz_records(const char *text, size_t size)
{
	struct worker_record record;
	struct worker_end_record end;
	struct worker_end_facts facts = { .state = "" };
	char words[480];

	if (!worker_record_parse(text, size, &record) &&
	    (record.keeper <= 0 || record.worker <= 0 || !record.keeper_start ||
	     !memchr(record.boot, 0, sizeof(record.boot))))
		abort();
	if (!worker_end_parse(text, size, &end))
		facts.record = &end;
	if (!worker_end_name(worker_end_judge(&facts, words, sizeof(words))) || !*words)
		abort();
}

static void say(struct loop *loop, int fd, const uint8_t *data, size_t size)
{
	char drop[4096];

	for (size_t at = 0; at < size; at += CHUNK) {
		if (send(fd, data + at, MIN(size - at, CHUNK), MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
			return;
		while (recv(fd, drop, sizeof(drop), MSG_DONTWAIT) > 0)
			;
		loop_once(loop, 0);
	}
}

static void fuzz_link(struct loop *loop, const uint8_t *data, size_t size)
{
	struct supervisor s = { .loop = loop };
	struct worker w = {
		.supervisor = &s, .events = &events, .control = "/nowhere", .recorded = true
	};
	struct question questions[QUESTIONS] = { 0 };
	json_t *query = json_pack("{s:s}", "command", "query");
	int pair[2], files[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
		abort();
	worker_link_init(&w.link, &w);
	worker_link_attach(&w.link, pair[0]);
	for (unsigned i = 0; i < QUESTIONS; i++) {
		unsigned fds = i % 4 == 3 && !pipe(files) ? 2 : 0;

		questions[i].request.done = on_answer;
		worker_ask(&w, &questions[i].request, query, files, fds, 1000000);
	}
	worker_ask_cancel(&questions[0].request);
	say(loop, pair[1], data, size);
	worker_link_end(&w.link);
	worker_link_deinit(&w.link);
	for (unsigned i = 0; i < QUESTIONS; i++)
		if (questions[i].answered != !!i)
			abort();
	json_decref(query);
	close(pair[1]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct loop *loop;
	struct error err;

	if (!loop && loop_new(0, &loop, &err) < 0)
		abort();
	if (!size)
		return 0;
	if (data[0] == 'r')
		fuzz_records((const char *)data + 1, size - 1);
	else
		fuzz_link(loop, data + 1, size - 1);
	return 0;
}
