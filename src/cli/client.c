// SPDX-License-Identifier: MIT
/*
 * See client.h: requests and answers, by libcurl. A refusal is problem+json (RFC 9457); its stable
 * code becomes an errno, which cli.c turns into an exit status.
 */
#include "cli/client_internal.h"
#include "cli/place.h"

#include "lib/cleanup.h"

#include <ctype.h>
#include <errno.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#define HOST_SOCKET "/run/partita/partitad.sock"

static int no_memory(struct error *err)
{
	return error_set(err, -ENOMEM, "out of memory");
}

/* --- where --- */

static bool is_socket(const char *path)
{
	struct stat st;

	return path && !stat(path, &st) && S_ISSOCK(st.st_mode);
}

/* The user's own service comes before the host's. */
static char *default_socket(void)
{
	_cleanup_free_ char *own = place_socket();

	return is_socket(own) ? steal_ptr(own) : strdup(HOST_SOCKET);
}

static int ask_password(struct client *c, struct error *err)
{
	const char *given = getenv("PARTITA_PASSWORD");
	_cleanup_free_ char *line = NULL;
	struct termios before, quiet;
	size_t room = 0;
	ssize_t n;

	if (given) {
		c->password = strdup(given);
		return c->password ? 0 : no_memory(err);
	}
	if (c->silent || !isatty(STDIN_FILENO) || tcgetattr(STDIN_FILENO, &before) < 0)
		return error_set(err, -EACCES,
				 "there is no password: set PARTITA_PASSWORD, or use a terminal");
	quiet = before;
	quiet.c_lflag &= ~(tcflag_t)ECHO;
	fprintf(stderr, "Password of %s: ", c->user);
	tcsetattr(STDIN_FILENO, TCSAFLUSH, &quiet);
	n = getline(&line, &room, stdin);
	tcsetattr(STDIN_FILENO, TCSAFLUSH, &before);
	fputc('\n', stderr);
	if (n < 0)
		return error_set(err, -EACCES, "no password was given");
	line[strcspn(line, "\n")] = 0;
	c->password = steal_ptr(line);
	return 0;
}

static int set_remote(struct client *c, const char *url, struct error *err)
{
	const char *rest = url + strlen("https://"), *at = strchr(rest, '@');
	size_t n;

	if (at) {
		c->user = strndup(rest, (size_t)(at - rest));
		if (!c->user)
			return no_memory(err);
		rest = at + 1;
	}
	n = strcspn(rest, "/");
	if (!n || (rest[n] && rest[n + 1]))
		return error_set(err, -EINVAL, "\"%s\": write https://[USER@]NAME[:PORT]", url);
	c->name = strndup(rest, n);
	if (!c->name || asprintf(&c->base, "https://%s/api/v1", c->name) < 0)
		return no_memory(err);
	return c->user ? ask_password(c, err) : 0;
}

static int set_local(struct client *c, char *path, struct error *err)
{
	c->socket = path;
	c->name = strdup("localhost");
	c->base = strdup("http://localhost/api/v1");
	return c->socket && c->name && c->base ? 0 : no_memory(err);
}

static int set_place(struct client *c, const char *host, struct error *err)
{
	if (!host)
		host = getenv("PARTITA_HOST");
	if (!host || !*host)
		return set_local(c, default_socket(), err);
	if (!strncmp(host, "unix:", 5) && host[5])
		return set_local(c, strdup(host + 5), err);
	if (!strncmp(host, "https://", 8))
		return set_remote(c, host, err);
	return error_set(err, -EINVAL,
			 "\"%s\" is no place of a service; write unix:PATH or "
			 "https://[USER@]NAME[:PORT]",
			 host);
}

static int make(const char *host, bool silent, struct client **ret, struct error *err)
{
	struct client *c = calloc(1, sizeof(*c));
	int r;

	if (!c)
		return no_memory(err);
	c->silent = silent;
	r = set_place(c, host, err);
	if (r >= 0) {
		c->curl = curl_easy_init();
		if (!c->curl)
			r = no_memory(err);
	}
	if (r < 0) {
		client_free(c);
		return r;
	}
	*ret = c;
	return 0;
}

int client_new(const char *host, struct client **ret, struct error *err)
{
	return make(host, false, ret, err);
}

int client_new_silent(const char *host, struct client **ret, struct error *err)
{
	return make(host, true, ret, err);
}

void client_free(struct client *c)
{
	if (!c)
		return;
	if (c->curl)
		curl_easy_cleanup(c->curl);
	if (c->password)
		explicit_bzero(c->password, strlen(c->password));
	free(c->password);
	free(c->user);
	free(c->socket);
	free(c->base);
	free(c->name);
	free(c);
}

const char *client_socket(const struct client *c)
{
	return c->socket;
}

const char *client_elsewhere(const struct client *c)
{
	static const char *const here[] = { "localhost", "127.0.0.1", "[::1]" };
	size_t n = c->name[0] == '[' ? strcspn(c->name, "]") + 1 : strcspn(c->name, ":");
	char own[256] = "";

	if (c->socket)
		return NULL;
	for (size_t i = 0; i < ARRAY_SIZE(here); i++)
		if (strlen(here[i]) == n && !strncasecmp(here[i], c->name, n))
			return NULL;
	gethostname(own, sizeof(own) - 1);
	return strlen(own) == n && !strncasecmp(own, c->name, n) ? NULL : c->name;
}

/* --- paths --- */

static char *escape(const char *text)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				    "0123456789-._~";
	char *out = malloc(strlen(text) * 3 + 1), *p = out;

	for (; out && *text; text++) {
		if (strchr(plain, *text))
			*p++ = *text;
		else
			p += sprintf(p, "%%%02X", (unsigned char)*text);
	}
	if (out)
		*p = 0;
	return out;
}

char *client_path(const char *prefix, const char *name, const char *rest)
{
	_cleanup_free_ char *escaped = escape(name);
	char *path;

	/* "." and ".." would be taken out of the path on the way */
	if (escaped && (!strcmp(escaped, ".") || !strcmp(escaped, ".."))) {
		char *dots = strdup(strlen(escaped) == 1 ? "%2E" : "%2E%2E");

		free(escaped);
		escaped = dots;
	}
	if (!escaped || asprintf(&path, "%s%s%s", prefix, escaped, rest) < 0)
		return NULL;
	return path;
}

char *client_query(char *path, const char *key, const char *value)
{
	_cleanup_free_ char *before = path, *escaped = escape(value);
	char *longer;

	if (!path || !escaped ||
	    asprintf(&longer, "%s%c%s=%s", path, strchr(path, '?') ? '&' : '?', key, escaped) < 0)
		return NULL;
	return longer;
}

/* --- problems --- */

static const struct {
	const char *code;
	int error;
} problems[] = {
	{ "invalid", -EINVAL },
	{ "not-authenticated", -EACCES },
	{ "forbidden", -EACCES },
	{ "not-found", -ENOENT },
	{ "method-not-allowed", -EOPNOTSUPP },
	{ "not-unique", -ENOTUNIQ },
	{ "exists", -EEXIST },
	{ "key-reused", -EKEYREJECTED },
	{ "wrong-state", -EBADFD },
	{ "busy", -EBUSY },
	{ "broken", -EUCLEAN },
	{ "changed", -ESTALE },
	{ "too-large", -EFBIG },
	{ "unsupported-media-type", -EPROTO },
	{ "precondition-required", -ESTALE },
	{ "too-many-requests", -EAGAIN },
	{ "headers-too-large", -EFBIG },
	{ "unsupported", -EOPNOTSUPP },
	{ "not-enough-memory", -ENOMEM },
	{ "no-space", -ENOSPC },
	{ "timeout", -ETIMEDOUT },
	{ "cancelled", -ECANCELED },
};

int client_problem(const char *code)
{
	for (size_t i = 0; code && i < ARRAY_SIZE(problems); i++)
		if (!strcmp(problems[i].code, code))
			return problems[i].error;
	return -EIO;
}

static const char *text_of(const json_t *o, const char *key)
{
	return json_string_value(json_object_get(o, key));
}

int client_refused(int status, const json_t *problem, struct error *err)
{
	const char *code = text_of(problem, "code"), *detail = text_of(problem, "detail");
	const char *property = text_of(problem, "property");
	int r = client_problem(code);

	if (!code || !detail)
		return error_set(err, -EPROTO,
				 "the service answered with status %d and without words; is it "
				 "Partita's?",
				 status);
	error_set(err, r, "%s", detail);
	if (property)
		snprintf(err->property, sizeof(err->property), "%s", property);
	return r;
}

int client_transfer_failed(const struct client *c, CURLcode code, struct error *err)
{
	if (c->other_certificate)
		return error_set(
			err, -EACCES,
			"the certificate of \"%s\" is another than PARTITA_FINGERPRINT says: "
			"nothing was sent",
			c->base);
	if (code == CURLE_WRITE_ERROR)
		return error_set(err, -EFBIG, "the service's answer is too long");
	if (c->socket && code == CURLE_COULDNT_CONNECT)
		return error_set(
			err, -ECONNREFUSED,
			"no service answers at \"%s\": start one of your own with "
			"`partita host up`, or the host's with `systemctl start partitad`, "
			"or say --host",
			c->socket);
	return error_set(err, code == CURLE_OPERATION_TIMEDOUT ? -ETIMEDOUT : -ECONNREFUSED,
			 "cannot reach the service at \"%s\": %s", c->socket ? c->socket : c->base,
			 c->words[0] ? c->words : curl_easy_strerror(code));
}

/* --- requests --- */

struct transfer {
	struct client_answer *answer;
	char *data;
	size_t size, room;
};

static size_t receive(char *data, size_t one, size_t size, void *context)
{
	struct transfer *t = context;

	(void)one;
	if (size > CLIENT_ANSWER_MAX - t->size)
		return 0;
	if (t->room - t->size < size) {
		size_t room = MAX(t->size + size, t->room * 2);
		char *longer = realloc(t->data, room);

		if (!longer)
			return 0;
		t->data = longer;
		t->room = room;
	}
	memcpy(t->data + t->size, data, size);
	t->size += size;
	return size;
}

static size_t header(char *data, size_t one, size_t size, void *context)
{
	struct client_answer *a = ((struct transfer *)context)->answer;
	size_t begin = 5, end = size;

	(void)one;
	if (size < 5 || strncasecmp(data, "etag:", 5))
		return size;
	while (begin < end && data[begin] == ' ')
		begin++;
	while (end > begin && (data[end - 1] == '\r' || data[end - 1] == '\n'))
		end--;
	if (end - begin < sizeof(a->etag)) {
		memcpy(a->etag, data + begin, end - begin);
		a->etag[end - begin] = 0;
	}
	return size;
}

/* --- whose certificate --- */

/* Hexadecimal digits, whatever stands between them. */
static bool same_fingerprint(const char *text, const uint8_t *hash, size_t size)
{
	char digits[3] = "";
	size_t at = 0;

	for (; *text; text++) {
		if (*text == ':' || *text == ' ')
			continue;
		if (!isxdigit((unsigned char)*text) || at >= 2 * size)
			return false;
		digits[at % 2] = *text;
		if (at++ % 2 && strtoul(digits, NULL, 16) != hash[at / 2 - 1])
			return false;
	}
	return at == 2 * size;
}

/* The first certificate of what the server has shown, as it is: in DER. */
static int shown_certificate(CURL *curl, gnutls_datum_t *ret)
{
	struct curl_certinfo *info = NULL;
	gnutls_datum_t pem = { 0 };

	if (curl_easy_getinfo(curl, CURLINFO_CERTINFO, &info) || !info || !info->num_of_certs)
		return -ENOENT;
	for (struct curl_slist *l = info->certinfo[0]; l; l = l->next)
		if (!strncmp(l->data, "Cert:", 5))
			pem = (gnutls_datum_t){ (unsigned char *)l->data + 5,
						(unsigned)strlen(l->data + 5) };
	return pem.data && !gnutls_pem_base64_decode2("CERTIFICATE", &pem, ret) ? 0 : -ENOENT;
}

int client_check_certificate(struct client *c, CURL *curl)
{
	const char *wanted = getenv("PARTITA_FINGERPRINT");
	gnutls_datum_t der = { 0 };
	uint8_t hash[32];
	bool same;

	if (c->socket || !wanted)
		return 0;
	if (shown_certificate(curl, &der) < 0)
		return -EACCES;
	same = !gnutls_hash_fast(GNUTLS_DIG_SHA256, der.data, der.size, hash) &&
	       same_fingerprint(wanted, hash, sizeof(hash));
	gnutls_free(der.data);
	c->other_certificate = !same;
	return same ? 0 : -EACCES;
}

/* Before the request, and so a password, is sent. */
static int before_request(void *context, char *ip, char *local_ip, int port, int local_port)
{
	struct client *c = context;

	(void)ip;
	(void)local_ip;
	(void)port;
	(void)local_port;
	return client_check_certificate(c, c->pinned) < 0 ? CURL_PREREQFUNC_ABORT
							  : CURL_PREREQFUNC_OK;
}

/* A fingerprint says more than who signed: the service makes its own certificate. */
static void pin_certificate(struct client *c, CURL *curl)
{
	c->pinned = curl;
	curl_easy_setopt(curl, CURLOPT_CERTINFO, 1L);
	curl_easy_setopt(curl, CURLOPT_PREREQFUNCTION, before_request);
	curl_easy_setopt(curl, CURLOPT_PREREQDATA, c);
	if (getenv("PARTITA_CA"))
		return;
	curl_easy_setopt(curl, CURLOPT_SSL_VERIFYPEER, 0L);
	curl_easy_setopt(curl, CURLOPT_SSL_VERIFYHOST, 0L);
}

static void set_credentials(struct client *c, CURL *curl)
{
	static const struct {
		const char *name;
		CURLoption option;
	} files[] = {
		{ "PARTITA_CA", CURLOPT_CAINFO },
		{ "PARTITA_CERT", CURLOPT_SSLCERT },
		{ "PARTITA_KEY", CURLOPT_SSLKEY },
	};

	for (size_t i = 0; i < ARRAY_SIZE(files); i++)
		if (getenv(files[i].name))
			curl_easy_setopt(curl, files[i].option, getenv(files[i].name));
	if (getenv("PARTITA_FINGERPRINT") && !c->socket)
		pin_certificate(c, curl);
	if (c->user) {
		curl_easy_setopt(curl, CURLOPT_HTTPAUTH, (long)CURLAUTH_BASIC);
		curl_easy_setopt(curl, CURLOPT_USERNAME, c->user);
		curl_easy_setopt(curl, CURLOPT_PASSWORD, c->password);
	}
}

int client_prepare(struct client *c, CURL *curl, const char *path, struct error *err)
{
	_cleanup_free_ char *url = NULL;

	if (!path || asprintf(&url, "%s%s", c->base, path) < 0) {
		url = NULL;
		return no_memory(err);
	}
	curl_easy_reset(curl);
	c->words[0] = 0;
	curl_easy_setopt(curl, CURLOPT_URL, url);
	curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, c->words);
	curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(curl, CURLOPT_PROXY, "");
	curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, c->socket ? "http" : "https");
	curl_easy_setopt(curl, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(curl, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_3);
	curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, 20L);
	if (c->socket)
		curl_easy_setopt(curl, CURLOPT_UNIX_SOCKET_PATH, c->socket);
	set_credentials(c, curl);
	return 0;
}

static int add_header(struct curl_slist **headers, const char *name, const char *value)
{
	_cleanup_free_ char *line = NULL;
	struct curl_slist *longer;

	if (!value)
		return 0;
	if (asprintf(&line, "%s: %s", name, value) < 0) {
		line = NULL;
		return -ENOMEM;
	}
	longer = curl_slist_append(*headers, line);
	if (!longer)
		return -ENOMEM;
	*headers = longer;
	return 0;
}

static void slist_free_p(struct curl_slist **l)
{
	curl_slist_free_all(*l);
}

/* The answer's body: JSON, or nothing at all. */
static int read_body(const struct transfer *t, struct error *err)
{
	json_error_t e;

	if (!t->size)
		return 0;
	t->answer->body = json_loadb(t->data, t->size, JSON_REJECT_DUPLICATES, &e);
	if (t->answer->body)
		return 0;
	return error_set(err, -EPROTO, "the service's answer (status %d) is no JSON: %s",
			 t->answer->status, e.text);
}

static int perform(struct client *c, struct transfer *t, struct error *err)
{
	CURLcode code = curl_easy_perform(c->curl);
	long status = 0;
	int r;

	if (code)
		return client_transfer_failed(c, code, err);
	curl_easy_getinfo(c->curl, CURLINFO_RESPONSE_CODE, &status);
	t->answer->status = (int)status;
	r = read_body(t, err);
	if (status >= 400)
		return client_refused((int)status, t->answer->body, err);
	return r;
}

int client_ask(struct client *c, const struct client_request *q, struct client_answer *ret,
	       struct error *err)
{
	_cleanup_(slist_free_p) struct curl_slist *headers = NULL;
	_cleanup_free_ char *text = q->body ? json_dumps(q->body, JSON_COMPACT) : NULL;
	struct client_answer answer = { 0 };
	struct transfer t = { .answer = &answer };
	int r = client_prepare(c, c->curl, q->path, err);

	if (r < 0)
		return r;
	if ((q->body && !text) || add_header(&headers, "Accept", "application/json") ||
	    add_header(&headers, "Content-Type", text ? "application/json" : NULL) ||
	    add_header(&headers, "If-Match", q->if_match) ||
	    add_header(&headers, "Idempotency-Key", q->key))
		return no_memory(err);
	curl_easy_setopt(c->curl, CURLOPT_HTTPHEADER, headers);
	curl_easy_setopt(c->curl, CURLOPT_CUSTOMREQUEST, q->method);
	if (text || !strcmp(q->method, "POST")) {
		curl_easy_setopt(c->curl, CURLOPT_POSTFIELDS, text ? text : "");
		curl_easy_setopt(c->curl, CURLOPT_POSTFIELDSIZE, text ? (long)strlen(text) : 0L);
	}
	curl_easy_setopt(c->curl, CURLOPT_WRITEFUNCTION, receive);
	curl_easy_setopt(c->curl, CURLOPT_WRITEDATA, &t);
	curl_easy_setopt(c->curl, CURLOPT_HEADERFUNCTION, header);
	curl_easy_setopt(c->curl, CURLOPT_HEADERDATA, &t);
	r = perform(c, &t, err);
	curl_easy_setopt(c->curl, CURLOPT_HTTPHEADER, NULL);
	free(t.data);
	if (r < 0)
		client_answer_deinit(&answer);
	else
		*ret = answer;
	return r;
}

void client_answer_deinit(struct client_answer *a)
{
	json_decref(a->body);
	*a = (struct client_answer){ 0 };
}

int client_get(struct client *c, const char *path, json_t **ret, struct error *err)
{
	struct client_answer a;
	int r = client_ask(c, &(struct client_request){ .method = "GET", .path = path }, &a, err);

	if (r < 0)
		return r;
	*ret = json_incref(a.body);
	client_answer_deinit(&a);
	return *ret ? 0 : error_set(err, -EPROTO, "the service's answer is empty");
}

static int add_page(json_t *items, const json_t *page, struct error *err)
{
	json_t *more = json_object_get(page, "items");

	if (!json_is_array(more))
		return error_set(err, -EPROTO, "the service's answer is no list");
	return json_array_extend(items, more) < 0 ? no_memory(err) : 0;
}

int client_list(struct client *c, const char *path, json_t **ret, struct error *err)
{
	_cleanup_free_ char *next = path ? strdup(path) : NULL;
	json_t *items = json_array(), *page;
	int r = next && items ? 0 : no_memory(err);

	while (r >= 0 && next) {
		const char *cursor;

		r = client_get(c, next, &page, err);
		if (r < 0)
			break;
		r = add_page(items, page, err);
		cursor = text_of(page, "next");
		free(next);
		next = cursor ? client_query(strdup(path), "cursor", cursor) : NULL;
		if (r >= 0 && cursor && !json_array_size(json_object_get(page, "items")))
			r = error_set(err, -EPROTO, "the service's list does not end");
		json_decref(page);
	}
	if (r < 0)
		json_decref(items);
	else
		*ret = items;
	return r;
}
