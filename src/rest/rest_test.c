// SPDX-License-Identifier: MIT
/*
 * The whole door over its sockets: the Unix socket and who asks there, TLS 1.3 with passwords and
 * certificates, the stream of events, a console. Client and server are one thread: expect() turns
 * the loop until the client has what it waits for.
 */
#include "rest/rest.h"
#include "rest/testing.h"
#include "rest/tls.h"

#include <arpa/inet.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>

static struct test t;
static struct rest *rest;
static char socket_path[300], tls_folder[300], ca_path[300];
static unsigned short port;
static unsigned passwords; /* that were checked; in their threads */

struct peer {
	int fd;
	gnutls_session_t tls; /* NULL: plain */
	gnutls_certificate_credentials_t credentials;
	char text[512 * 1024];
	size_t size;
};

static struct peer one, two;

/* --- the server --- */

static int check_password(const char *user, const char *password, const char *address)
{
	__atomic_add_fetch(&passwords, 1, __ATOMIC_SEQ_CST);
	assert_string_equal(address, "::1");
	return !strcmp(user, "root") && !strcmp(password, "s:cret") ? 0 : -EACCES;
}

static int setup(void **state)
{
	struct rest_options o = { socket_path, tls_folder, check_password };
	struct error err = { 0 };
	void *folder;

	(void)state;
	if (test_folder_setup(&folder) < 0)
		return -1;
	t.folder = folder;
	snprintf(socket_path, sizeof(socket_path), "%s/socket", t.folder);
	snprintf(tls_folder, sizeof(tls_folder), "%s/tls", t.folder);
	snprintf(ca_path, sizeof(ca_path), "%s/ca.pem", t.folder);
	fake_reset();
	fake_console(NULL);
	passwords = 0;
	test_begin(&t);
	if (rest_new(t.d, &o, &rest, &err) < 0)
		fail_msg("%s", err.message);
	return 0;
}

static int teardown(void **state)
{
	void *folder = t.folder;

	(void)state;
	rest_free(rest);
	test_end(&t);
	fake_reset();
	return test_folder_teardown(&folder);
}

static void turn(unsigned ms)
{
	assert_true(loop_once(t.loop, (int)ms) >= 0);
}

/* --- the client --- */

/* The kernel says who we were when we connected. */
static void dial_unix_as(struct peer *p, uid_t uid)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	uid_t own = geteuid();
	int r;

	*p = (struct peer){ .fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0) };
	strcpy(address.sun_path, socket_path);
	assert_int_equal(seteuid(uid), 0);
	r = connect(p->fd, (struct sockaddr *)&address, sizeof(address));
	assert_int_equal(seteuid(own), 0);
	assert_int_equal(r, 0);
}

static void dial_unix(struct peer *p)
{
	dial_unix_as(p, geteuid());
}

static void hang_up(struct peer *p)
{
	if (p->tls)
		gnutls_deinit(p->tls);
	if (p->credentials)
		gnutls_certificate_free_credentials(p->credentials);
	close(p->fd);
}

/* 0, or GnuTLS' error. */
static int dial_tls_with(struct peer *p, const char *priority, const char *certificate)
{
	struct sockaddr_in6 address = { .sin6_family = AF_INET6,
					.sin6_port = htons(port),
					.sin6_addr = IN6ADDR_LOOPBACK_INIT };
	int r;

	*p = (struct peer){ .fd = socket(AF_INET6, SOCK_STREAM, 0) };
	assert_int_equal(connect(p->fd, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(fcntl(p->fd, F_SETFL, O_NONBLOCK), 0);
	gnutls_certificate_allocate_credentials(&p->credentials);
	if (certificate)
		assert_int_equal(gnutls_certificate_set_x509_key_file(p->credentials, certificate,
								      certificate,
								      GNUTLS_X509_FMT_PEM),
				 0);
	gnutls_init(&p->tls, GNUTLS_CLIENT | GNUTLS_NONBLOCK);
	gnutls_priority_set_direct(p->tls, priority, NULL);
	gnutls_credentials_set(p->tls, GNUTLS_CRD_CERTIFICATE, p->credentials);
	gnutls_transport_set_int(p->tls, p->fd);
	for (int i = 0; i < 2000; i++) {
		r = gnutls_handshake(p->tls);
		if (r != GNUTLS_E_AGAIN && r != GNUTLS_E_INTERRUPTED)
			return r;
		turn(5);
	}
	return r;
}

static void dial_tls(struct peer *p)
{
	assert_int_equal(dial_tls_with(p, "NORMAL", NULL), 0);
}

static void say(struct peer *p, const char *text)
{
	size_t n = strlen(text);

	if (p->tls)
		assert_int_equal(gnutls_record_send(p->tls, text, n), (ssize_t)n);
	else
		assert_int_equal(send(p->fd, text, n, MSG_NOSIGNAL), (ssize_t)n);
}

/* False at the end. */
static bool hear(struct peer *p)
{
	ssize_t n;

	if (p->tls) {
		n = gnutls_record_recv(p->tls, p->text + p->size, sizeof(p->text) - p->size - 1);
		if (n == GNUTLS_E_AGAIN || n == GNUTLS_E_INTERRUPTED)
			return true;
	} else {
		n = recv(p->fd, p->text + p->size, sizeof(p->text) - p->size - 1, 0);
		if (n < 0 && errno == EAGAIN)
			return true;
	}
	if (n <= 0)
		return false;
	p->size += (size_t)n;
	p->text[p->size] = '\0';
	return true;
}

static void expect(struct peer *p, const char *text)
{
	for (int i = 0; i < 4000; i++) {
		bool more = hear(p);

		if (memmem(p->text, p->size, text, strlen(text)))
			return;
		if (!more)
			fail_msg("closed; wanted \"%s\", heard \"%.500s\"", text, p->text);
		turn(5);
	}
	fail_msg("wanted \"%s\", heard \"%.500s\"", text, p->text);
}

static void forget(struct peer *p)
{
	p->size = 0;
	p->text[0] = '\0';
}

#define HOST "Host: x\r\n"

static void ask(struct peer *p, const char *method, const char *path, const char *headers,
		const char *body)
{
	char text[2000];

	snprintf(text, sizeof(text),
		 "%s " API_PREFIX "/%s HTTP/1.1\r\n" HOST
		 "Content-Type: application/json\r\nContent-Length: %zu\r\n%s\r\n%s",
		 method, path, strlen(body), headers, body);
	forget(p);
	say(p, text);
}

/* --- the Unix socket --- */

static void test_unix_socket(void **state)
{
	struct stat st;

	(void)state;
	assert_int_equal(stat(socket_path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0666);
	dial_unix(&one);
	ask(&one, "GET", "host", "", "");
	expect(&one, "\"settings\"");
	ask(&one, "POST", "vms", "", "{\"settings\":{\"name\":\"web\"}}");
	expect(&one, "HTTP/1.1 201");
	expect(&one, "Location: /api/v1/vms/");
	ask(&one, "GET", "vms/web", "Origin: https://evil.example\r\n", "");
	expect(&one, "HTTP/1.1 403");
	hang_up(&one);
}

static void test_a_stale_socket_is_replaced_and_another_is_not(void **state)
{
	struct rest_options o = { .socket = socket_path };
	struct error err = { 0 };
	struct rest *again;

	(void)state;
	assert_int_equal(rest_new(t.d, &o, &again, &err), -EADDRINUSE);
	assert_non_null(strstr(err.message, socket_path));
}

/* Another user: what he may is judged by his roles. */
static void test_another_user(void **state)
{
	pid_t child;
	int pipes[2], status;
	char text[400] = "";
	ssize_t n = -1;

	(void)state;
	if (geteuid() != 0)
		skip();
	assert_int_equal(chmod(t.folder, 0755), 0);
	assert_int_equal(pipe2(pipes, O_NONBLOCK), 0);
	child = fork();
	if (!child) {
		struct sockaddr_un address = { .sun_family = AF_UNIX };
		int fd = socket(AF_UNIX, SOCK_STREAM, 0);
		static const char request[] = "GET /api/v1/host HTTP/1.1\r\n" HOST "\r\n";

		strcpy(address.sun_path, socket_path);
		if (setgid(65534) || setuid(65534) ||
		    connect(fd, (struct sockaddr *)&address, sizeof(address)) ||
		    write(fd, request, sizeof(request) - 1) < 0)
			_exit(1);
		n = read(fd, text, sizeof(text));
		_exit(write(pipes[1], text, n > 0 ? (size_t)n : 0) < 0);
	}
	for (int i = 0; i < 2000 && n <= 0; i++) {
		turn(5);
		n = read(pipes[0], text, sizeof(text) - 1);
	}
	assert_non_null(strstr(text, "HTTP/1.1 403"));
	waitpid(child, &status, 0);
	assert_int_equal(status, 0);
	close(pipes[0]);
	close(pipes[1]);
}

/* --- TLS --- */

/* Switches it on, at a free port. */
static void enable(const char *more)
{
	struct sockaddr_in6 address = { .sin6_family = AF_INET6,
					.sin6_addr = IN6ADDR_LOOPBACK_INIT };
	socklen_t size = sizeof(address);
	int fd = socket(AF_INET6, SOCK_STREAM, 0);
	char body[500];

	if (bind(fd, (struct sockaddr *)&address, size) < 0) {
		close(fd);
		skip(); /* no IPv6 here */
	}
	getsockname(fd, (struct sockaddr *)&address, &size);
	port = ntohs(address.sin6_port);
	close(fd);
	snprintf(body, sizeof(body),
		 "{\"remote\":{\"enabled\":true,\"address\":\"::1\",\"port\":%u%s}}", port, more);
	dial_unix(&one);
	ask(&one, "PATCH", "host", "", body);
	expect(&one, "HTTP/1.1 200");
	for (int i = 0; i < 200; i++) {
		ask(&one, "GET", "host", "", "");
		expect(&one, "\"listening\"");
		if (strstr(one.text, "\"listening\":true"))
			break;
		for (int k = 0; k < 3; k++)
			turn(5);
	}
	expect(&one, "\"listening\":true");
	hang_up(&one);
}

static void test_tls_with_a_password(void **state)
{
	(void)state;
	enable("");
	dial_tls(&two);
	assert_int_equal(gnutls_protocol_get_version(two.tls), GNUTLS_TLS1_3);
	ask(&two, "GET", "host", "", "");
	expect(&two, "HTTP/1.1 401");
	expect(&two, "WWW-Authenticate: Basic");
	/* root:s:cret */
	ask(&two, "POST", "vms", "Authorization: Basic cm9vdDpzOmNyZXQ=\r\n",
	    "{\"settings\":{\"name\":\"web\"}}");
	expect(&two, "HTTP/1.1 201");
	ask(&two, "GET", "vms/web", "Authorization: Basic cm9vdDpzOmNyZXQ=\r\n", "");
	expect(&two, "\"creator\":\"root\"");
	assert_int_equal(passwords, 1); /* the second is known */
	ask(&two, "GET", "host", "", "");
	expect(&two, "HTTP/1.1 401");
	hang_up(&two);
}

static void test_a_wrong_password_takes_its_time(void **state)
{
	static const char *const bad[] = { "Basic cm9vdDp3cm9uZw==", /* root:wrong */
					   "Basic !!!", "Basic cm9vdA==", "Bearer x",
					   "Basic OnM=" };
	char header[100];
	uint64_t begun;

	(void)state;
	enable("");
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		dial_tls(&two);
		begun = loop_now(t.loop);
		snprintf(header, sizeof(header), "Authorization: %s\r\n", bad[i]);
		ask(&two, "GET", "host", header, "");
		expect(&two, "HTTP/1.1 401");
		if (!i)
			assert_true(loop_now(t.loop) - begun >= UINT64_C(1900000000));
		hang_up(&two);
	}
	assert_int_equal(passwords, 1);
	assert_int_equal(events_of(&t, "login-refused"), 1);
}

static void test_only_tls_1_3(void **state)
{
	(void)state;
	enable("");
	assert_int_not_equal(dial_tls_with(&two, "NORMAL:-VERS-ALL:+VERS-TLS1.2", NULL), 0);
	hang_up(&two);
	dial_tls(&two);
	ask(&two, "GET", "host", "", "");
	expect(&two, "HTTP/1.1 401");
	hang_up(&two);
}

/* A certificate for `user`, signed by a new authority, whose own is written to ca_path. */
static void make_client(const char *user, const char *path, bool signed_by_ca)
{
	gnutls_x509_privkey_t ca_key, key;
	gnutls_x509_crt_t ca, crt;
	gnutls_datum_t pem;
	FILE *f;

	gnutls_x509_privkey_init(&ca_key);
	gnutls_x509_privkey_init(&key);
	gnutls_x509_crt_init(&ca);
	gnutls_x509_crt_init(&crt);
	gnutls_x509_privkey_generate(ca_key, GNUTLS_PK_ECDSA,
				     GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0);
	gnutls_x509_privkey_generate(key, GNUTLS_PK_ECDSA,
				     GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0);
	for (int i = 0; i < 2; i++) {
		gnutls_x509_crt_t c = i ? crt : ca;
		const char *name = i ? user : "authority";

		gnutls_x509_crt_set_version(c, 3);
		gnutls_x509_crt_set_serial(c, i ? "\2" : "\1", 1);
		gnutls_x509_crt_set_activation_time(c, time(NULL) - 3600);
		gnutls_x509_crt_set_expiration_time(c, time(NULL) + 3600);
		gnutls_x509_crt_set_dn_by_oid(c, GNUTLS_OID_X520_COMMON_NAME, 0, name,
					      (unsigned)strlen(name));
		gnutls_x509_crt_set_basic_constraints(c, !i, -1);
		gnutls_x509_crt_set_key(c, i ? key : ca_key);
	}
	gnutls_x509_crt_set_key_usage(ca, GNUTLS_KEY_KEY_CERT_SIGN);
	assert_int_equal(gnutls_x509_crt_sign2(ca, ca, ca_key, GNUTLS_DIG_SHA256, 0), 0);
	assert_int_equal(gnutls_x509_crt_sign2(crt, signed_by_ca ? ca : crt,
					       signed_by_ca ? ca_key : key, GNUTLS_DIG_SHA256, 0),
			 0);
	f = fopen(path, "we");
	gnutls_x509_crt_export2(crt, GNUTLS_X509_FMT_PEM, &pem);
	fwrite(pem.data, 1, pem.size, f);
	gnutls_free(pem.data);
	gnutls_x509_privkey_export2(key, GNUTLS_X509_FMT_PEM, &pem);
	fwrite(pem.data, 1, pem.size, f);
	gnutls_free(pem.data);
	fclose(f);
	if (signed_by_ca) {
		f = fopen(ca_path, "we");
		gnutls_x509_crt_export2(ca, GNUTLS_X509_FMT_PEM, &pem);
		fwrite(pem.data, 1, pem.size, f);
		gnutls_free(pem.data);
		fclose(f);
	}
	gnutls_x509_crt_deinit(ca);
	gnutls_x509_crt_deinit(crt);
	gnutls_x509_privkey_deinit(key);
	gnutls_x509_privkey_deinit(ca_key);
}

static void test_tls_with_a_certificate(void **state)
{
	char mine[400], forged[400], more[800];

	(void)state;
	snprintf(mine, sizeof(mine), "%s/mine.pem", t.folder);
	snprintf(forged, sizeof(forged), "%s/forged.pem", t.folder);
	make_client("root", forged, false);
	make_client("root", mine, true);
	snprintf(more, sizeof(more), ",\"password\":false,\"client_ca\":\"%s\"", ca_path);
	enable(more);
	assert_int_equal(dial_tls_with(&two, "NORMAL", mine), 0);
	ask(&two, "POST", "vms", "", "{\"settings\":{\"name\":\"web\"}}");
	expect(&two, "\"creator\":\"root\"");
	hang_up(&two);
	if (dial_tls_with(&two, "NORMAL", forged) == 0) {
		ask(&two, "GET", "host", "", "");
		expect(&two, "HTTP/1.1 401");
	}
	hang_up(&two);
	dial_tls(&two);
	ask(&two, "GET", "host", "Authorization: Basic cm9vdDpzOmNyZXQ=\r\n", "");
	expect(&two, "HTTP/1.1 401");
	assert_int_equal(passwords, 0); /* they are not taken */
	hang_up(&two);
}

static void test_tls_is_switched_off(void **state)
{
	struct sockaddr_in6 address = { .sin6_family = AF_INET6,
					.sin6_addr = IN6ADDR_LOOPBACK_INIT };
	int fd;

	(void)state;
	enable("");
	dial_tls(&two);
	ask(&two, "PATCH", "host", "Authorization: Basic cm9vdDpzOmNyZXQ=\r\n",
	    "{\"remote\":{\"enabled\":false}}");
	expect(&two, "HTTP/1.1 200"); /* the answer gets out */
	for (int i = 0; i < 400 && hear(&two); i++)
		turn(5);
	assert_false(hear(&two));
	hang_up(&two);
	fd = socket(AF_INET6, SOCK_STREAM, 0);
	address.sin6_port = htons(port);
	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), -1);
	close(fd);
}

static void test_the_certificate_stays(void **state)
{
	char folder[400], key[450];
	struct tls first, again;
	struct error err = { 0 };
	struct stat st;

	(void)state;
	snprintf(folder, sizeof(folder), "%s/certificates", t.folder);
	snprintf(key, sizeof(key), "%s/key.pem", folder);
	assert_int_equal(tls_load(folder, NULL, &first, &err), 0);
	assert_int_equal(tls_load(folder, NULL, &again, &err), 0);
	assert_int_equal(strlen(first.fingerprint), 95);
	assert_string_equal(first.fingerprint, again.fingerprint);
	assert_int_equal(stat(key, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	tls_deinit(&again);
	assert_int_equal(tls_load(folder, "/nowhere", &again, &err), -ENOENT);
	assert_non_null(strstr(err.message, "/nowhere"));
	tls_deinit(&again);
	tls_deinit(&first);
}

/* --- events --- */

static void test_the_stream_of_events(void **state)
{
	char header[100];
	long id;

	(void)state;
	dial_unix(&one);
	ask(&one, "GET", "events", "Accept: text/event-stream\r\n", "");
	expect(&one, "text/event-stream");
	make(&t, "{'name':'web'}");
	expect(&one, "event: vm-created\n");
	id = strtol(strstr(one.text, "id: ") + 4, NULL, 10);
	make(&t, "{'name':'db'}");
	expect(&one, "\\\"db\\\"");
	dial_unix(&two);
	snprintf(header, sizeof(header), "Accept: text/event-stream\r\nLast-Event-ID: %ld\r\n", id);
	ask(&two, "GET", "events?kind=vm-created", header, "");
	expect(&two, "\\\"db\\\"");
	assert_null(strstr(two.text, "\\\"web\\\""));
	for (unsigned i = 0; i < 20; i++)
		turn(10);
	make(&t, "{'name':'third'}");
	expect(&two, "\\\"third\\\"");
	hang_up(&one);
	hang_up(&two);
	for (unsigned i = 0; i < 20; i++)
		turn(5);
	make(&t, "{'name':'fourth'}");
	for (unsigned i = 0; i < 20; i++)
		turn(5);
}

static void test_a_long_past_comes_whole(void **state)
{
	unsigned count = 0;

	(void)state;
	for (unsigned i = 0; i < 2500; i++)
		event_add(t.d->events, SEVERITY_INFORMATION, "many", NULL, NULL, NULL, "number %u.",
			  i);
	turn(5);
	dial_unix(&one);
	ask(&one, "GET", "events?kind=many", "Accept: text/event-stream\r\nLast-Event-ID: 0\r\n",
	    "");
	expect(&one, "number 2499.");
	for (const char *p = one.text; (p = strstr(p, "event: many")); p++)
		count++;
	assert_int_equal(count, 2500);
	hang_up(&one);
}

/* --- consoles --- */

#define SHAKE                                                                                      \
	"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"               \
	"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"

/* What a worker has: a socket with its console. */
static int console_listen(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(fd, 4), 0);
	return fd;
}

static void shake_as(struct peer *p, const char *path, uid_t uid)
{
	dial_unix_as(p, uid);
	/* no Content-Length: a WebSocket's request has no body */
	forget(p);
	say(p, "GET " API_PREFIX "/");
	say(p, path);
	say(p, " HTTP/1.1\r\n" HOST SHAKE "\r\n");
}

static void shake(struct peer *p, const char *path)
{
	shake_as(p, path, geteuid());
}

/* The number of the assignment. */
static int64_t give_role(const char *role)
{
	json_t *a = json_pack("{s:s,s:s,s:s}", "user", "nobody", "role", role, "scope", "host");
	struct error err = { 0 };
	int64_t id;

	if (authz_assign(t.d->authz, a, &id, &err) < 0)
		fail_msg("%s", err.message);
	json_decref(a);
	return id;
}

static void take_role(int64_t id)
{
	char path[40];

	snprintf(path, sizeof(path), "assignments/%lld", (long long)id);
	dial_unix(&one);
	ask(&one, "DELETE", path, "", "");
	expect(&one, "HTTP/1.1 204");
	hang_up(&one);
}

/* Long before the next look at the clock, and before anything more is told. */
static void test_a_stream_ends_with_its_readers_role(void **state)
{
	int64_t role;

	(void)state;
	if (geteuid() != 0)
		skip();
	assert_int_equal(chmod(t.folder, 0755), 0);
	role = give_role("administrator");
	dial_unix_as(&two, 65534);
	ask(&two, "GET", "events", "Accept: text/event-stream\r\n", "");
	expect(&two, "text/event-stream");
	make(&t, "{'name':'web'}");
	expect(&two, "event: vm-created\n");
	take_role(role);
	expect(&two, "\r\n0\r\n\r\n"); /* the last chunk */
	assert_null(strstr(two.text, "role-unassigned"));
	hang_up(&two);
}

static void test_a_console_ends_with_its_viewers_role(void **state)
{
	char path[300];
	int worker, seen;
	struct vm *vm;
	int64_t role;

	(void)state;
	if (geteuid() != 0)
		skip();
	assert_int_equal(chmod(t.folder, 0755), 0);
	snprintf(path, sizeof(path), "%s/console", t.folder);
	vm = make(&t, "{'name':'web','boot':{'kernel':'/k'}}");
	dial_unix(&one);
	ask(&one, "POST", "vms/web/start", "", "");
	expect(&one, "HTTP/1.1 202");
	hang_up(&one);
	fake_state(vm->id, "running");
	test_turn(&t);
	worker = console_listen(path);
	fake_console(path);
	role = give_role("operator");
	shake_as(&two, "vms/web/console", 65534);
	expect(&two, "HTTP/1.1 101");
	seen = accept4(worker, NULL, NULL, SOCK_NONBLOCK);
	assert_true(seen >= 0);
	take_role(role);
	(void)!write(seen, "secret", 6); /* to nobody */
	expect(&two, "you may not see this console any more");
	assert_null(strstr(two.text, "secret"));
	hang_up(&two);
	close(seen);
	close(worker);
}

static void test_a_console(void **state)
{
	char path[300], text[100];
	struct vm *vm;
	int worker, seen;
	ssize_t n;

	(void)state;
	snprintf(path, sizeof(path), "%s/console", t.folder);
	vm = make(&t, "{'name':'web','boot':{'kernel':'/k'}}");
	shake(&one, "vms/web/console");
	expect(&one, "HTTP/1.1 409");
	hang_up(&one);
	dial_unix(&one);
	ask(&one, "POST", "vms/web/start", "", "");
	expect(&one, "HTTP/1.1 202");
	hang_up(&one);
	fake_state(vm->id, "running");
	test_turn(&t);
	worker = console_listen(path);
	fake_console(path);
	shake(&one, "vms/web/console");
	expect(&one, "HTTP/1.1 101");
	expect(&one, "\r\n\r\n");
	forget(&one);
	seen = accept4(worker, NULL, NULL, SOCK_NONBLOCK);
	assert_true(seen >= 0);
	assert_int_equal(write(seen, "login: ", 7), 7);
	expect(&one, "\x82\x07login: ");
	assert_int_equal(send(one.fd, "\x82\x84\0\0\0\0root", 10, 0), 10);
	for (int i = 0; i < 200 && (n = read(seen, text, sizeof(text))) < 0; i++)
		turn(5);
	assert_int_equal(n, 4);
	assert_memory_equal(text, "root", 4);
	shake(&two, "vms/web/console?read_only=true");
	expect(&two, "HTTP/1.1 101");
	assert_int_equal(send(two.fd, "\x82\x84\0\0\0\0root", 10, 0), 10);
	for (int i = 0; i < 10; i++)
		turn(5);
	assert_int_equal(read(seen, text, sizeof(text)), -1);
	close(seen); /* the machine stops */
	expect(&one, "the machine has stopped");
	hang_up(&one);
	hang_up(&two);
	for (int i = 0; i < 20; i++)
		turn(5);
	assert_int_equal(events_of(&t, "console-opened"), 2);
	close(worker);
	fake_console("/nowhere");
	shake(&one, "vms/web/console");
	expect(&one, "HTTP/1.1 409");
	hang_up(&one);
}

static void test_tls_ends_under_a_console_and_a_stream(void **state)
{
	char path[300];
	struct vm *vm;
	int worker, seen;

	(void)state;
	snprintf(path, sizeof(path), "%s/console", t.folder);
	vm = make(&t, "{'name':'web','boot':{'kernel':'/k'}}");
	enable("");
	dial_unix(&one);
	ask(&one, "POST", "vms/web/start", "", "");
	expect(&one, "HTTP/1.1 202");
	fake_state(vm->id, "running");
	test_turn(&t);
	worker = console_listen(path);
	fake_console(path);
	dial_tls(&two);
	say(&two, "GET " API_PREFIX "/vms/web/console HTTP/1.1\r\n" HOST SHAKE
		  "Authorization: Basic cm9vdDpzOmNyZXQ=\r\n\r\n");
	expect(&two, "HTTP/1.1 101");
	expect(&two, "\r\n\r\n");
	seen = accept4(worker, NULL, NULL, SOCK_NONBLOCK);
	assert_int_equal(write(seen, "login: ", 7), 7);
	expect(&two, "login: ");
	hang_up(&one);
	dial_tls(&one);
	ask(&one, "GET", "events",
	    "Accept: text/event-stream\r\nAuthorization: Basic cm9vdDpzOmNyZXQ=\r\n", "");
	expect(&one, "text/event-stream");
	hang_up(&one);
	dial_unix(&one);
	ask(&one, "PATCH", "host", "", "{\"remote\":{\"enabled\":false}}");
	expect(&one, "HTTP/1.1 200");
	for (int i = 0; i < 400 && hear(&two); i++)
		turn(5);
	assert_false(hear(&two));
	hang_up(&two);
	assert_true(write(seen, "more", 4) == 4 || errno == EPIPE);
	for (int i = 0; i < 10; i++)
		turn(5);
	make(&t, "{'name':'later'}");
	ask(&one, "GET", "vms/later", "", "");
	expect(&one, "HTTP/1.1 200");
	hang_up(&one);
	close(seen);
	close(worker);
}

static void test_ends_with_viewers_and_waiters(void **state)
{
	char path[300];
	struct vm *vm;
	int worker;

	(void)state;
	snprintf(path, sizeof(path), "%s/console", t.folder);
	vm = make(&t, "{'name':'web','boot':{'kernel':'/k'}}");
	dial_unix(&one);
	ask(&one, "POST", "vms/web/start?wait=100", "", "");
	for (int i = 0; i < 20; i++)
		turn(5);
	assert_non_null(vm->worker);
	worker = console_listen(path);
	fake_console(path);
	shake(&two, "vms/web/console");
	expect(&two, "HTTP/1.1 101");
	rest_free(rest);
	rest = NULL;
	hang_up(&one);
	hang_up(&two);
	close(worker);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_unix_socket),
		TEST(test_a_stale_socket_is_replaced_and_another_is_not),
		TEST(test_another_user),
		TEST(test_tls_with_a_password),
		TEST(test_a_wrong_password_takes_its_time),
		TEST(test_only_tls_1_3),
		TEST(test_tls_with_a_certificate),
		TEST(test_tls_is_switched_off),
		TEST(test_the_certificate_stays),
		TEST(test_the_stream_of_events),
		TEST(test_a_long_past_comes_whole),
		TEST(test_a_stream_ends_with_its_readers_role),
		TEST(test_a_console_ends_with_its_viewers_role),
		TEST(test_a_console),
		TEST(test_tls_ends_under_a_console_and_a_stream),
		TEST(test_ends_with_viewers_and_waiters),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
