// SPDX-License-Identifier: MIT
/*
 * An example of libpartita-client: starts a machine and tells what happens until it runs.
 *
 *	cc -o start start.c $(pkg-config --cflags --libs partita-client)
 *	./start NAME
 */
#include <partita/client.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void shown(void *context, const char *job)
{
	(void)context;
	printf("job: %s\n", job);
}

/* A real program has a reader of JSON; ids have no escapes. */
static char *id_of(const char *json)
{
	const char *begin = strstr(json, "\"id\":\"");
	const char *end = begin ? strchr(begin + 6, '"') : NULL;

	return end ? strndup(begin + 6, (size_t)(end - begin) - 6) : NULL;
}

static int start(struct partita_client *client, const char *name, struct partita_client_error *err)
{
	char *path = partita_client_path("/vms/", name, "/start"), *job;
	struct partita_client_request request = { .method = "POST", .path = path };
	struct partita_client_wait how = { .timeout_s = 60, .shown = shown };
	struct partita_client_answer answer;
	int r = partita_client_ask(client, &request, &answer, err);

	free(path);
	if (r < 0)
		return r;
	job = answer.body ? id_of(answer.body) : NULL;
	if (job)
		r = partita_client_wait(client, job, &how, NULL, err);
	free(job);
	free(answer.body);
	return r;
}

int main(int argc, char **argv)
{
	struct partita_client_error err;
	struct partita_client *client;
	char *running;
	int r;

	if (argc != 2) {
		fprintf(stderr, "usage: %s NAME\n", argv[0]);
		return 2;
	}
	r = partita_client_open(NULL, &client, &err);
	if (r < 0) {
		fprintf(stderr, "%s\n", err.message);
		return 1;
	}
	r = start(client, argv[1], &err);
	if (r >= 0)
		r = partita_client_list(client, "/vms?state=running&fields=id,name", &running,
					&err);
	if (r >= 0) {
		printf("running: %s\n", running);
		free(running);
	} else {
		fprintf(stderr, "%s\n", err.message);
	}
	partita_client_close(client);
	return r < 0;
}
