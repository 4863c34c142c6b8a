// SPDX-License-Identifier: MIT
/*
 * partita vm guest: what a guest says of itself, items of key-value exchange, and files into it;
 * and partita vm socket, a program's way to one in the guest.
 */
#include "cli/output.h"
#include "cli/terminal.h"
#include "cli/vm.h"

#include "lib/cleanup.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

/* --- info --- */

static const struct column info_columns[] = {
	{ "Heartbeat", "heartbeat.state", COLUMN_TEXT, false },
	{ "Applications", "heartbeat.application", COLUMN_TEXT, false },
	{ "Name", "items.FullyQualifiedDomainName", COLUMN_TEXT, false },
	{ "System", "items.OSName", COLUMN_TEXT, false },
	{ "System version", "items.OSVersion", COLUMN_TEXT, false },
	{ "Build", "items.OSBuildNumber", COLUMN_TEXT, false },
	{ "Processor", "items.ProcessorArchitecture", COLUMN_TEXT, false },
	{ "IPv4", "items.NetworkAddressIPv4", COLUMN_TEXT, false },
	{ "IPv6", "items.NetworkAddressIPv6", COLUMN_TEXT, false },
	{ "Services' version", "items.IntegrationServicesVersion", COLUMN_TEXT, false },
	{ "Backup", "vss", COLUMN_TEXT, false },
};

static void print_services(const json_t *services)
{
	const char *name;
	json_t *s;

	puts("Services");
	json_object_foreach((json_t *)services, name, s)
	{
		const char *state = json_string_value(json_object_get(s, "state"));
		const char *version = json_string_value(json_object_get(s, "version"));

		printf("  %-24s ", name);
		print_text(state ? state : "", stdout);
		if (version) {
			putchar(' ');
			print_text(version, stdout);
		}
		putchar('\n');
	}
}

static int guest_info(struct command *c)
{
	_cleanup_free_ char *path = client_path("/vms/", c->words[1], "/guest");
	json_t *guest;
	int r = client_get(c->client, path, &guest, &c->err);

	if (r < 0)
		return r;
	if (c->json) {
		print_json(guest);
	} else {
		print_facts(guest, info_columns, ARRAY_SIZE(info_columns));
		if (!json_is_true(json_object_get(guest, "known")))
			puts("The guest's key-value daemon has said nothing (yet).");
		print_services(json_object_get(guest, "services"));
	}
	json_decref(guest);
	return 0;
}

/* --- items --- */

static int items_page(struct command *c, json_t *items, json_int_t *from)
{
	_cleanup_free_ char *path = client_path("/vms/", c->words[1], "/guest/items");
	const char *pool = command_option(c, "pool");
	json_t *page, *next;
	char number[24];
	int r;

	snprintf(number, sizeof(number), "%lld", (long long)*from);
	path = client_query(path, "from", number);
	if (pool)
		path = client_query(path, "pool", pool);
	r = client_get(c->client, path, &page, &c->err);
	if (r < 0)
		return r;
	json_array_extend(items, json_object_get(page, "items"));
	next = json_object_get(page, "next");
	r = json_is_integer(next) && json_integer_value(next) > *from;
	*from = json_integer_value(next);
	json_decref(page);
	return r;
}

static int get_one(struct command *c, const json_t *items)
{
	json_t *item;
	size_t i;

	json_array_foreach(items, i, item)
	{
		const char *key = json_string_value(json_object_get(item, "key"));
		const char *value = json_string_value(json_object_get(item, "value"));

		if (!key || strcmp(key, c->words[2]))
			continue;
		if (c->json)
			print_json(item);
		else
			print_text(value ? value : "", stdout), putchar('\n');
		return 0;
	}
	return error_set(&c->err, -ENOENT, "the guest has no item \"%s\"", c->words[2]);
}

static int guest_get(struct command *c)
{
	static const struct column columns[] = {
		{ "KEY", "key", COLUMN_TEXT, false },
		{ "VALUE", "value", COLUMN_TEXT, true },
	};
	json_t *items = json_array();
	json_int_t from = 0;
	int r;

	do
		r = items_page(c, items, &from);
	while (r > 0);
	if (r >= 0 && c->word_count == 3)
		r = get_one(c, items);
	else if (r >= 0 && c->json)
		print_json(items);
	else if (r >= 0)
		r = print_table(items, columns, ARRAY_SIZE(columns), &c->err);
	json_decref(items);
	return r;
}

static int guest_put(struct command *c, const char *value)
{
	_cleanup_free_ char *path = client_path("/vms/", c->words[1], "/guest/items");
	const char *pool = command_option(c, "pool");
	json_t *body = json_pack("{s:s,s:s?}", "key", c->words[2], "value", value);
	struct client_answer a;
	int r;

	if (!body)
		return command_usage(c, "key and value must be UTF-8");
	if (pool)
		json_object_set_new(body, "pool", json_string(pool));
	r = client_ask(c->client,
		       &(struct client_request){ .method = "PUT", .path = path, .body = body }, &a,
		       &c->err);
	json_decref(body);
	if (r >= 0)
		client_answer_deinit(&a);
	return r;
}

static int guest_set(struct command *c)
{
	return guest_put(c, c->words[3]);
}

static int guest_delete(struct command *c)
{
	return guest_put(c, NULL);
}

/* --- files --- */

static char *path_in_guest(const char *path, const char *source)
{
	size_t n = strlen(path);
	const char *name = strrchr(source, '/');
	char *whole;

	if (n && path[n - 1] != '/' && path[n - 1] != '\\')
		return strdup(path);
	return asprintf(&whole, "%s%s", path, name ? name + 1 : source) < 0 ? NULL : whole;
}

static int guest_copy(struct command *c)
{
	_cleanup_free_ char *url = client_path("/vms/", c->words[1], "/guest/copy");
	_cleanup_free_ char *source = realpath(c->words[2], NULL);
	_cleanup_free_ char *path = path_in_guest(c->words[3], c->words[2]);
	json_t *body =
		json_pack("{s:s,s:s,s:b,s:b}", "source", source ? source : c->words[2], "path",
			  path ? path : "", "overwrite", command_flag(c, "overwrite"),
			  "create_path", command_flag(c, "create-path"));
	struct client_answer a;
	json_t *job = NULL;
	int r;

	if (!body)
		return command_usage(c, "names of files must be UTF-8");
	r = client_ask(c->client,
		       &(struct client_request){ .method = "POST", .path = url, .body = body }, &a,
		       &c->err);
	json_decref(body);
	if (r < 0)
		return r;
	r = job_follow(c, a.body, c->words[1], &job);
	client_answer_deinit(&a);
	if (r >= 0 && c->json)
		print_json(job);
	if (job)
		json_decref(job);
	return r;
}

int vm_run_guest(struct command *c)
{
	static const struct {
		const char *name;
		unsigned least, most; /* words, its own included */
		int (*run)(struct command *c);
	} actions[] = {
		{ "info", 2, 2, guest_info }, { "get", 2, 3, guest_get },
		{ "set", 4, 4, guest_set },   { "delete", 3, 3, guest_delete },
		{ "copy", 4, 4, guest_copy },
	};

	for (size_t i = 0; i < ARRAY_SIZE(actions); i++) {
		if (strcmp(c->words[0], actions[i].name))
			continue;
		if (c->word_count < actions[i].least || c->word_count > actions[i].most)
			return command_usage(c, "guest %s takes %u to %u words", actions[i].name,
					     actions[i].least - 1, actions[i].most - 1);
		return command_client(c) ? actions[i].run(c) : c->err.code;
	}
	return command_usage(c, "\"%s\" is none of info, get, set, delete and copy", c->words[0]);
}

/* --- sockets --- */

/* The first line says how it went; what is behind it is the program's. */
static int first_line(struct command *c, struct client_socket *s)
{
	char line[512];
	size_t n = 0;

	for (;;) {
		struct pollfd p = { .fd = client_socket_fd(s), .events = POLLIN };
		char *end = memchr(line, '\n', n);
		ssize_t got;

		if (end) {
			*end = '\0';
			if (strncmp(line, "OK ", 3))
				return error_set(&c->err, -ECONNREFUSED, "%.400s",
						 strncmp(line, "ERROR ", 6) ? line : line + 6);
			write_all(STDOUT_FILENO, end + 1, n - (size_t)(end + 1 - line));
			return 0;
		}
		if (n == sizeof(line) - 1)
			return error_set(&c->err, -EPROTO,
					 "the machine does not answer as it should");
		if (!client_socket_pending(s) && poll(&p, 1, -1) < 0 && errno != EINTR)
			return error_errno(&c->err, -errno, "cannot wait");
		got = client_socket_receive(s, line + n, sizeof(line) - 1 - n, &c->err);
		if (got < 0)
			return (int)got;
		n += (size_t)got;
	}
}

static int show(struct command *c, struct client_socket *s)
{
	uint8_t data[16384];
	ssize_t n;

	do {
		n = client_socket_receive(s, data, sizeof(data), &c->err);
		if (n > 0)
			write_all(STDOUT_FILENO, data, (size_t)n);
	} while (n > 0 || (n == 0 && client_socket_pending(s)));
	return (int)n;
}

/* The end of the input ends only that direction: what the guest still says is waited for. */
static int relay(struct command *c, struct client_socket *s)
{
	struct pollfd fds[2] = {
		{ .fd = client_socket_fd(s), .events = POLLIN },
		{ .fd = STDIN_FILENO, .events = POLLIN },
	};
	int r = show(c, s);

	while (r >= 0) {
		uint8_t data[8192];
		ssize_t n;

		if (poll(fds, ARRAY_SIZE(fds), -1) < 0)
			continue;
		if (fds[0].revents)
			r = show(c, s);
		if (fds[1].fd < 0 || !fds[1].revents || r < 0)
			continue;
		n = read(STDIN_FILENO, data, sizeof(data));
		if (n > 0)
			r = client_socket_send(s, data, (size_t)n, &c->err);
		else if (n == 0 || errno != EINTR)
			fds[1].fd = -1;
	}
	return r;
}

int vm_run_socket(struct command *c)
{
	_cleanup_free_ char *path =
		client_query(client_path("/vms/", c->words[0], "/socket"), "service", c->words[1]);
	struct client_socket *s;
	int r;

	if (!command_client(c))
		return c->err.code;
	r = client_socket_open(c->client, path, &s, &c->err);
	if (r < 0)
		return r;
	signal(SIGPIPE, SIG_IGN);
	r = first_line(c, s);
	if (r >= 0) {
		r = relay(c, s);
		if (r == -EPIPE)
			r = CLI_OK; /* the other end has closed */
	}
	client_socket_close(s);
	return r;
}
