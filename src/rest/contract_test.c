// SPDX-License-Identifier: MIT
/*
 * contract_test [REQUESTS [SEED]]: asks a live service for openapi.json, then sends requests to all
 * that is in there: right ones, wrong ones, and right ones with something changed. Whatever comes
 * back must be documented: its status, its type, and its body by its schema; and nothing is ever
 * 500. Most requests go straight to the router; each sixteenth goes over the socket, some of those
 * with bytes changed anywhere. Workers, which are no processes here, meanwhile do whatever they
 * like. The same seed makes the same requests.
 *
 * Requests with folders name only such as are below the test's own: see `harmless`. Run by root it
 * goes on as nobody.
 */
#include "rest/rest.h"
#include "rest/testing.h"

#include <ctype.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

#define NAMES    64
#define VMS_MAX  40
#define BODY_MAX 65536

struct operation_doc {
	const char *path, *method;
	json_t *doc;
};

static struct test t;
static struct rest *rest;
static char socket_path[300];
static json_t *document, *components;
static struct operation_doc operations[128];
static unsigned operation_count;
static uint64_t seed;
static char names[NAMES][80]; /* ids, names, ETags and cursors that were seen */
static unsigned name_count;
/* Of each noun (the first part of a path), what it has or had. */
static struct noun {
	char name[16];
	char things[16][80];
	unsigned count;
} nouns[16];
static unsigned statuses[600], documented_5xx;
static int fd = -1;

/* --- chance --- */

static uint64_t random_64(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed * UINT64_C(0x2545f4914f6cdd1d);
}

static unsigned below(unsigned n)
{
	return n ? (unsigned)((random_64() >> 33) % n) : 0;
}

static bool chance(unsigned percent)
{
	return below(100) < percent;
}

static void remember(const char *text)
{
	if (text && *text && strlen(text) < sizeof(names[0]))
		strcpy(names[name_count++ % NAMES], text);
}

static const char *seen(void)
{
	unsigned n = MIN(name_count, NAMES);

	return n ? names[below(n)] : "web";
}

static struct noun *noun_of(const char *path)
{
	size_t n = strcspn(path + 1, "/?");
	unsigned i = 0;

	while (i < ARRAY_SIZE(nouns) - 1 && nouns[i].name[0] &&
	       (strlen(nouns[i].name) != n || strncmp(nouns[i].name, path + 1, n)))
		i++;
	snprintf(nouns[i].name, sizeof(nouns[i].name), "%.*s", (int)n, path + 1);
	return &nouns[i];
}

static const char *any_text(void)
{
	static const char *const texts[] = {
		"",
		"web",
		"x",
		"..",
		"/",
		"*",
		"?",
		"%",
		"\"",
		"\\",
		"null",
		"-1",
		"0",
		"\x01",
		"\xc3\xa4",
		"\xe2\x80\xae",
		"\xf0\x9f\x98\x80",
		"a b",
		"a/b",
		"lab/web",
		"host",
		"vm:x",
		"group:lab",
		"administrator",
		"viewer",
		"root",
		"nobody",
		"start-vm",
		"private",
		"debian-12",
		"00000000-0000-0000-0000-000000000000",
		"9223372036854775808",
		"true",
		"{}",
		"name,state",
		"settings.memory",
		"a.b.c,,",
	};
	static char long_one[5000];

	if (chance(3)) {
		memset(long_one, 'a' + (char)below(26), sizeof(long_one) - 1);
		long_one[below(sizeof(long_one) - 1)] = '\0';
		return long_one;
	}
	return chance(30) ? seen() : texts[below(ARRAY_SIZE(texts))];
}

static int64_t any_integer(void)
{
	static const int64_t values[] = {
		0, 1, -1, 2, 63, 64, 1024, 65536, INT64_MAX, INT64_MIN, INT64_C(1) << 32
	};

	return chance(50) ? values[below(ARRAY_SIZE(values))] : (int64_t)random_64();
}

/* --- JSON from schemas --- */

static json_t *make_json(const json_t *schema, unsigned depth);

static json_t *any_json(unsigned depth)
{
	json_t *json;

	switch (below(depth > 5 ? 5 : 8)) {
	case 0:
		return json_null();
	case 1:
		return json_boolean(chance(50));
	case 2:
		return json_integer(any_integer());
	case 3:
		return json_real((double)any_integer() / 3);
	case 4:
		json = json_string(any_text());
		return json ? json : json_string("");
	case 5:
		json = json_array();
		for (unsigned i = below(4); i; i--)
			json_array_append_new(json, any_json(depth + 1));
		return json;
	default:
		json = json_object();
		for (unsigned i = below(4); i; i--)
			json_object_set_new(json, any_text(), any_json(depth + 1));
		return json;
	}
}

static json_t *make_text(const json_t *schema)
{
	size_t min = (size_t)json_integer_value(json_object_get(schema, "minLength"));
	json_t *max = json_object_get(schema, "maxLength");
	const char *text = any_text();
	char name[60];
	json_t *json;

	if (chance(50) || strlen(text) < min ||
	    (max && strlen(text) > (size_t)json_integer_value(max))) {
		snprintf(name, sizeof(name), "thing-%u%s", below(20),
			 min > 10 ? "-0000-0000-0000-000000000000" : "");
		text = name;
	}
	json = json_string(text);
	return json ? json : json_string("text");
}

static json_t *make_integer(const json_t *schema)
{
	int64_t min = json_integer_value(json_object_get(schema, "minimum"));
	json_t *top = json_object_get(schema, "maximum");
	int64_t max = top ? json_integer_value(top) : INT64_MAX;

	switch (below(4)) {
	case 0:
		return json_integer(min);
	case 1:
		return json_integer(max);
	case 2:
		return json_incref(json_object_get(schema, "default"))
			       ? json_object_get(schema, "default")
			       : json_integer(min);
	default:
		return json_integer(min +
				    below(max - min > 1000 ? 1000 : (unsigned)(max - min + 1)));
	}
}

static json_t *make_object(const json_t *schema, unsigned depth)
{
	json_t *object = json_object(), *value, *required = json_object_get(schema, "required");
	const char *name;
	size_t i;

	json_object_foreach(json_object_get(schema, "properties"), name, value)
	{
		bool must = false;

		for (i = 0; i < json_array_size(required); i++)
			must |= !strcmp(json_string_value(json_array_get(required, i)), name);
		if (must || chance(depth ? 20 : 30))
			json_object_set_new(object, name, make_json(value, depth + 1));
	}
	return object;
}

static json_t *make_json(const json_t *schema, unsigned depth)
{
	const char *ref = json_string_value(json_object_get(schema, "$ref"));
	const json_t *type, *any = json_object_get(schema, "anyOf");
	const json_t *choices = json_object_get(schema, "enum");
	const char *name;

	if (ref)
		return make_json(json_object_get(components, strrchr(ref, '/') + 1), depth);
	if (any)
		return make_json(json_array_get(any, below((unsigned)json_array_size(any))), depth);
	if (choices)
		return json_incref(
			json_array_get(choices, below((unsigned)json_array_size(choices))));
	type = json_object_get(schema, "type");
	if (json_is_array(type))
		type = json_array_get(type, chance(80) ? 0 : 1);
	name = type ? json_string_value(type) : "";
	if (!strcmp(name, "object"))
		return make_object(schema, depth);
	if (!strcmp(name, "string"))
		return make_text(schema);
	if (!strcmp(name, "integer"))
		return make_integer(schema);
	if (!strcmp(name, "boolean"))
		return json_boolean(chance(50));
	if (!strcmp(name, "array")) {
		json_t *array = json_array();

		for (unsigned i = below(3); i; i--)
			json_array_append_new(
				array, make_json(json_object_get(schema, "items"), depth + 1));
		return array;
	}
	return strcmp(name, "null") ? any_json(depth) : json_null();
}

/* Something in it becomes something else. */
static void spoil(json_t *json)
{
	unsigned at = below((unsigned)json_object_size(json) + 1);
	const char *name;
	json_t *value;
	void *next;

	if (json_is_array(json) && json_array_size(json))
		spoil(json_array_get(json, below((unsigned)json_array_size(json))));
	if (!json_is_object(json))
		return;
	json_object_foreach_safe(json, next, name, value)
	{
		if (at--)
			continue;
		if (chance(50) && (json_is_object(value) || json_is_array(value)))
			spoil(value);
		else if (chance(20))
			json_object_del(json, name);
		else
			json_object_set_new(json, name, any_json(0));
		return;
	}
	json_object_set_new(json, any_text(), any_json(0));
}

/* --- what must not be asked for --- */

static bool folder_harmless(const char *text)
{
	size_t n = strlen(t.folder);

	return !*text || (!strncmp(text, t.folder, n) && text[n] == '/' && !strstr(text, ".."));
}

/* Folders are made, and removed with all that is in them: only below our own. */
static bool all_harmless(const json_t *json)
{
	const char *name;
	json_t *value;
	size_t i;

	json_object_foreach((json_t *)json, name, value)
	{
		if (strstr(name, "folder") && json_is_string(value) &&
		    !folder_harmless(json_string_value(value)))
			return false;
		if (!all_harmless(value))
			return false;
	}
	json_array_foreach(json, i, value)
	{
		if (!all_harmless(value))
			return false;
	}
	return true;
}

static bool harmless(const char *text, size_t size)
{
	_cleanup_json_ json_t *json = json_loadb(text, size, JSON_DISABLE_EOF_CHECK, NULL);

	return !json || all_harmless(json);
}

static void put_folders(json_t *json)
{
	char path[400];
	const char *name;
	json_t *value;
	void *next;

	json_object_foreach_safe(json, next, name, value)
	{
		put_folders(value);
		if (!strstr(name, "folder") || !json_is_string(value))
			continue;
		snprintf(path, sizeof(path), "%s/f%u", t.folder, below(30));
		json_object_set_new(json, name, json_string(path));
	}
}

/* --- a request --- */

struct request {
	const struct operation_doc *op;
	char method[8], path[8192];
	char *body;
	size_t body_size;
	char headers[8][2][200];
	unsigned header_count;
	bool mangled; /* the bytes that are sent are not what this says */
};

static void add_header(struct request *q, const char *name, const char *value)
{
	size_t n = 0;

	if (q->header_count == ARRAY_SIZE(q->headers))
		return;
	snprintf(q->headers[q->header_count][0], 200, "%s", name);
	for (; *value && n < 199; value++) { /* a line, without blanks at its ends */
		if ((unsigned char)*value > ' ' || (*value == ' ' && n && value[1] > ' '))
			q->headers[q->header_count][1][n++] = *value;
	}
	q->headers[q->header_count++][1][n] = '\0';
}

/* Appends text, escaped where it must be, and sometimes where it need not. */
static size_t escape(char *to, size_t size, const char *text)
{
	size_t n = 0;

	for (; *text && n + 4 < size; text++) {
		unsigned char c = (unsigned char)*text;

		if (isalnum(c) || strchr("-._~*,:", c))
			to[n++] = (char)c;
		else
			n += (size_t)snprintf(to + n, size - n, "%%%02x", c);
	}
	to[n] = '\0';
	return n;
}

static void put_path(struct request *q)
{
	const char *p = q->op->path;
	size_t n = (size_t)snprintf(q->path, sizeof(q->path), "%s", API_PREFIX);

	for (; *p && n < sizeof(q->path) - 600; p++) {
		if (*p == '{') {
			struct noun *noun = noun_of(q->op->path);
			unsigned known = MIN(noun->count, (unsigned)ARRAY_SIZE(noun->things));
			const char *name = known && chance(85) ? noun->things[below(known)]
					   : chance(50)        ? seen()
							       : any_text();

			n += escape(q->path + n, 400, *name ? name : "x");
			p = strchr(p, '}');
		} else {
			q->path[n++] = *p;
		}
	}
	q->path[n] = '\0';
}

static void put_parameters(struct request *q)
{
	json_t *list = json_object_get(q->op->doc, "parameters"), *parameter;
	size_t i, n = strlen(q->path);
	char mark = '?';

	json_array_foreach(list, i, parameter)
	{
		const char *in = text_of(parameter, "in"), *name = text_of(parameter, "name");
		_cleanup_json_ json_t *value = make_json(json_object_get(parameter, "schema"), 0);
		_cleanup_free_ char *text = json_dumps(value, JSON_ENCODE_ANY);
		const char *put = json_is_string(value) ? json_string_value(value) : text;

		if (chance(70) || !strcmp(in, "path"))
			continue;
		if (!strcmp(name, "wait"))
			put = chance(50) ? "0" : "1";
		if (chance(15))
			put = any_text();
		if (!strcmp(in, "header")) {
			add_header(q, name, put);
			continue;
		}
		if (n > sizeof(q->path) - 3500)
			return;
		n += (size_t)snprintf(q->path + n, 200, "%c%s=", mark, name);
		n += escape(q->path + n, 3000, put);
		mark = '&';
	}
	if (chance(3))
		snprintf(q->path + n, sizeof(q->path) - n, "%cunknown=1", mark);
}

static void put_body(struct request *q)
{
	json_t *content = json_object_get(json_object_get(q->op->doc, "requestBody"), "content");
	json_t *type = json_object_get(content, "application/json");
	json_t *json;

	if (!type && chance(97))
		return;
	json = type ? make_json(json_object_get(type, "schema"), 0) : any_json(0);
	put_folders(json);
	if (json_object_get(json, "settings") && chance(60)) /* else few could be started */
		json_object_set_new(json_object_get(json, "settings"), "boot",
				    json_pack("{s:s}", "kernel", "/kernel"));
	if (chance(35))
		spoil(json);
	q->body = json_dumps(json, JSON_ENCODE_ANY);
	json_decref(json);
	q->body_size = q->body ? strlen(q->body) : 0;
	if (q->body_size && chance(8))
		q->body[below((unsigned)q->body_size)] = (char)random_64();
	if (q->body_size && chance(2))
		q->body_size = below((unsigned)q->body_size);
	if (chance(97))
		add_header(q, "Content-Type",
			   chance(90) ? "application/json" : "application/merge-patch+json");
}

static void request_make(struct request *q)
{
	*q = (struct request){ .op = &operations[below(operation_count)] };
	snprintf(q->method, sizeof(q->method), "%.7s", q->op->method);
	put_path(q);
	put_parameters(q);
	put_body(q);
	if (chance(2))
		snprintf(q->path + strlen(q->path), 20, "/%u", below(3));
	if (chance(2))
		snprintf(q->method, sizeof(q->method), "%s", chance(50) ? "PUT" : "PATCH");
	if (q->body && (!harmless(q->body, q->body_size))) {
		free(q->body);
		q->body = NULL;
		q->body_size = 0;
	}
}

/* --- what came back --- */

_Noreturn static void fault(const struct request *q, unsigned status, const char *text,
			    const char *words)
{
	fprintf(stderr, "%s %s\n", q->method, q->path);
	for (unsigned i = 0; i < q->header_count; i++)
		fprintf(stderr, "%s: %s\n", q->headers[i][0], q->headers[i][1]);
	fprintf(stderr, "%.*s\n-> %u %s\n%s\n", (int)q->body_size, q->body ? q->body : "", status,
		text ? text : "", words);
	abort();
}

/* Of the request that was really made: its path may be another's. */
static json_t *responses_of(const struct request *q)
{
	for (unsigned i = 0; i < operation_count; i++) {
		const struct operation_doc *op = &operations[i];
		const char *p = q->path + strlen(API_PREFIX), *d = op->path;

		while (*d && *p && *p != '?') {
			if (*d == '{' && *p != '/') {
				d = strchr(d, '}') + 1;
				p += strcspn(p, "/?");
			} else if (*d++ != *p++) {
				d = "!";
				break;
			}
		}
		if (!*d && (!*p || *p == '?') && !strcmp(op->method, q->method))
			return json_object_get(op->doc, "responses");
	}
	return NULL;
}

static void learn_thing(struct noun *noun, const json_t *json)
{
	const json_t *id = json_object_get(json, "id");
	char number[24];

	if (!id || chance(20))
		id = json_object_get(json, "name");
	snprintf(number, sizeof(number), "%lld", (long long)json_integer_value(id));
	if (json_is_string(id) && json_string_length(id) >= sizeof(noun->things[0]))
		return;
	if (id)
		strcpy(noun->things[noun->count++ % ARRAY_SIZE(noun->things)],
		       json_is_string(id) ? json_string_value(id) : number);
}

static void learn(const char *path, const json_t *json)
{
	const json_t *items = json_object_get(json, "items"), *one;
	size_t i;

	remember(json_string_value(json_object_get(json, "id")));
	remember(json_string_value(json_object_get(json, "name")));
	remember(json_string_value(json_object_get(json, "next")));
	if (json_object_get(json, "type") && json_object_get(json, "cancellable"))
		path = "/jobs";
	if (!items)
		learn_thing(noun_of(path), json);
	json_array_foreach(items, i, one)
	{
		if (chance(20))
			learn_thing(noun_of(path), one);
	}
}

static void check_answer(const struct request *q, unsigned status, const char *type,
			 const json_t *json, const char *text)
{
	json_t *responses = responses_of(q), *answer, *schema;
	struct error err = { 0 };
	char key[12];

	statuses[MIN(status, 599u)]++;
	if (status == 500)
		fault(q, status, text, "500 is never right");
	documented_5xx += status >= 500;
	if (!responses) {
		if (status != 404 && status != 405 && status != 400 && status != 413)
			fault(q, status, text, "there is no such path");
		return;
	}
	snprintf(key, sizeof(key), "%u", status);
	answer = json_object_get(responses, key);
	if (!answer)
		fault(q, status, text, "this status is not documented");
	answer = json_object_get(answer, "content");
	if (!answer)
		return;
	schema = json_object_get(json_object_get(answer, type), "schema");
	if (!schema)
		fault(q, status, text, "this type is not documented");
	/* of a part that was selected not all is there */
	if (strstr(q->path, "fields=") && status == 200)
		return;
	if (!json || check_schema(components, schema, json, &err) < 0)
		fault(q, status, text, err.message);
	if (status < 300)
		learn(q->path + strlen(API_PREFIX), json);
}

/* --- asking --- */

static void workers_live(void)
{
	static const char *const states[] = { "starting", "running", "paused", "saving", "odd" };

	list_foreach_safe(it, &t.d->vms)
	{
		struct vm *vm = list_entry(it, struct vm, node);
		char id[GUID_TEXT_SIZE];

		strcpy(id, vm->id);
		if (!vm->worker || !fake_runs(id) || chance(60))
			continue;
		if (*fake_asked(id))
			fake_answer(id, chance(80) ? 0 : -EIO, "no");
		else if (chance(70))
			fake_state(id, states[below(ARRAY_SIZE(states))]);
		else
			fake_end(id, below(WORKER_END_LOST + 1), "it ended");
	}
	assert_true(loop_once(t.loop, 0) >= 0);
}

static void ask_router(struct request *q)
{
	struct asked a;

	asked_init(&a, &caller_service, q->method, q->path, NULL);
	if (q->body) {
		a.r.body = malloc(q->body_size + 1);
		memcpy(a.r.body, q->body, q->body_size);
		a.r.body[q->body_size] = '\0';
		a.r.body_size = q->body_size;
	}
	for (unsigned i = 0; i < q->header_count; i++)
		asked_add(&a, q->headers[i][0], q->headers[i][1]);
	api_handle(rest_api(rest), &a.r);
	for (unsigned i = 0; i < 5 && !a.answered; i++)
		workers_live();
	if (!a.answered) { /* it waits for a job: the client leaves */
		a.r.gone(&a.r);
	} else {
		for (unsigned i = 0; i < a.out_count; i++)
			remember(a.out[i].value);
		check_answer(q, a.status, a.type, a.json, a.text);
	}
	asked_deinit(&a);
}

static void dial(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	if (fd >= 0)
		close(fd);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
	strcpy(address.sun_path, socket_path);
	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
}

/* The text of a request; anything may be changed in it. */
static char *request_text(struct request *q, size_t *ret_size)
{
	static char text[sizeof(q->path) + 4096 + BODY_MAX];
	size_t n = (size_t)snprintf(text, sizeof(text), "%s %s HTTP/1.1\r\nHost: x\r\n", q->method,
				    q->path);

	for (unsigned i = 0; i < q->header_count; i++)
		n += (size_t)snprintf(text + n, sizeof(text) - n, "%s: %s\r\n", q->headers[i][0],
				      q->headers[i][1]);
	if (q->body && chance(30))
		n += (size_t)snprintf(text + n, sizeof(text) - n,
				      "Transfer-Encoding: chunked\r\n\r\n%zx\r\n%.*s\r\n0\r\n\r\n",
				      q->body_size, (int)q->body_size, q->body);
	else
		n += (size_t)snprintf(text + n, sizeof(text) - n, "Content-Length: %zu\r\n\r\n%.*s",
				      q->body_size, (int)q->body_size, q->body ? q->body : "");
	if (chance(15)) {
		text[below((unsigned)n)] = (char)random_64();
		q->mangled = true;
	}
	*ret_size = n;
	return text;
}

/* Until an answer is whole: its size, 0 when the connection ended or nothing comes. */
static size_t answer_read(char *text, size_t max, const char **ret_body, size_t *ret_body_size)
{
	size_t n = 0;

	for (unsigned i = 0; i < 300; i++) {
		ssize_t r = recv(fd, text + n, max - n - 1, 0);
		char *end, *length;

		if (r == 0 || (r < 0 && errno != EAGAIN))
			return 0;
		n += r > 0 ? (size_t)r : 0;
		text[n] = '\0';
		end = strstr(text, "\r\n\r\n");
		length = end ? strcasestr(text, "\r\nContent-Length:") : NULL;
		if (length && length < end) {
			*ret_body = end + 4;
			*ret_body_size = strtoul(length + 17, NULL, 10);
			if (n >= (size_t)(end + 4 - text) + *ret_body_size)
				return n;
		} else if (end) {
			*ret_body_size = 0;
			*ret_body = end + 4;
			return n; /* 101, 204, or a stream */
		}
		workers_live();
		assert_true(loop_once(t.loop, r > 0 ? 0 : 2) >= 0);
	}
	return 0;
}

static void ask_socket(struct request *q)
{
	static char answer[8 * MIB];
	size_t n, size, body_size = 0;
	const char *body = NULL, *type, *text = request_text(q, &size);
	char name[100] = "";
	unsigned status;
	json_t *json;

	if (q->body && strlen(q->body) != q->body_size)
		q->mangled = true; /* a NUL: the text ends there */
	if (q->mangled && q->body && strstr(q->body, "folder"))
		return;
	dial();
	assert_true(send(fd, text, size, MSG_NOSIGNAL) >= 0);
	n = answer_read(answer, sizeof(answer), &body, &body_size);
	if (!n)
		return;
	status = (unsigned)strtoul(answer + 9, NULL, 10);
	type = strcasestr(answer, "\r\nContent-Type: ");
	if (type && type < body)
		snprintf(name, sizeof(name), "%.*s", (int)strcspn(type + 16, "\r"), type + 16);
	json = json_loadb(body, body_size, 0, NULL);
	if (status == 500)
		fault(q, status, answer, "500 is never right");
	if (!q->mangled && strcmp(name, "text/event-stream") && strncmp(name, "text/html", 9))
		check_answer(q, status, name, json, body);
	json_decref(json);
}

/* Few machines make more happen to each. */
static void thin_out(void)
{
	struct error err = { 0 };

	list_foreach_safe(it, &t.d->vms)
	{
		struct vm *vm = list_entry(it, struct vm, node);

		if (t.d->vm_count > VMS_MAX / 2 && !vm->worker)
			(void)!vm_remove(t.d, &caller_service, vm, true, &err);
	}
}

/* --- the service --- */

static void operations_read(void)
{
	json_t *paths, *methods, *doc;
	const char *path, *method;
	struct asked a;

	asked_init(&a, &caller_service, "GET", "openapi.json", NULL);
	api_handle(rest_api(rest), &a.r);
	document = json_incref(a.json);
	asked_deinit(&a);
	components = json_object_get(json_object_get(document, "components"), "schemas");
	paths = json_object_get(document, "paths");
	json_object_foreach(paths, path, methods)
	{
		json_object_foreach(methods, method, doc)
		{
			struct operation_doc *op = &operations[operation_count++];
			char *upper = strdup(method);

			assert_true(operation_count < ARRAY_SIZE(operations));
			for (char *p = upper; *p; p++)
				*p = (char)toupper((unsigned char)*p);
			*op = (struct operation_doc){ path, upper, doc };
		}
	}
}

static void start(void)
{
	struct rest_options o = { .socket = socket_path };
	struct error err = { 0 };
	void *folder = NULL;

	if (test_folder_setup(&folder) < 0)
		abort();
	t.folder = folder;
	if (!geteuid() &&
	    (chown(t.folder, 65534, 65534) || setgroups(0, NULL) || setgid(65534) || setuid(65534)))
		abort();
	snprintf(socket_path, sizeof(socket_path), "%s/socket", t.folder);
	fake_reset();
	test_begin(&t);
	if (rest_new(t.d, &o, &rest, &err) < 0) {
		fprintf(stderr, "%s\n", err.message);
		abort();
	}
	operations_read();
}

static int stop(void)
{
	void *folder = t.folder;

	if (fd >= 0)
		close(fd);
	rest_free(rest);
	test_end(&t);
	fake_reset();
	json_decref(document);
	for (unsigned i = 0; i < operation_count; i++)
		free((char *)operations[i].method);
	return test_folder_teardown(&folder);
}

int main(int argc, char **argv)
{
	unsigned long count = argc > 1 ? strtoul(argv[1], NULL, 10) : 2000;

	seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
	seed = seed ? seed : 1;
	signal(SIGPIPE, SIG_IGN);
	start();
	for (unsigned long i = 0; i < count; i++) {
		struct request q;

		request_make(&q);
		if (i % 16)
			ask_router(&q);
		else
			ask_socket(&q);
		free(q.body);
		if (i % 8 == 0)
			workers_live();
		if (t.d->vm_count > VMS_MAX)
			thin_out();
	}
	printf("%lu requests to %u operations:", count, operation_count);
	for (unsigned i = 0; i < ARRAY_SIZE(statuses); i++) {
		if (statuses[i])
			printf(" %u: %u", i, statuses[i]);
	}
	printf("\n");
	return stop() < 0;
}
