// SPDX-License-Identifier: MIT
/*
 * See auth.h. Who a connection's client is, is found out with its first request and kept for a
 * minute, so that what was taken from a user is soon taken here too.
 *
 * PAM blocks, so a password is checked by a thread of ours, of which there are at most two, and
 * requests wait for it. A password that was right is kept with its connection as a salted hash, and
 * compared in constant time. One that was wrong, or of a user that does not exist, is answered
 * after the same time; and a client has to wait its turn, so guesses are slow however many
 * connections make them.
 */
#include "rest/auth.h"
#include "lib/cleanup.h"
#include "lib/log.h"
#include "privd/password.h"
#include "privd/privd.h"
#include "rest/api.h"

#include <errno.h>
#include <gnutls/crypto.h>
#include <gnutls/x509.h>
#include <pthread.h>
#include <pwd.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>

#define KEEP_MS      60000
#define REFUSE_MS    2000 /* after a wrong password */
#define PRIVD_MS     60000
#define THREADS      2
#define WAITING_MAX  64 /* checks that wait; beyond them 429 */
#define PASSWORD_MAX 512
#define MS           UINT64_C(1000000)
#define HASH_SIZE    32

/* Of a connection. */
struct identity {
	struct caller caller;
	uint64_t until;
	bool known, by_password;
	uint8_t salt[16], hash[HASH_SIZE]; /* of the Authorization that was right */
};

/* A password that is being checked; the request may be gone meanwhile. */
struct attempt {
	struct auth *auth;
	struct http_request *r; /* NULL: gone */
	struct list node;       /* of those that wait, run, or are refused later */
	struct loop_task done;  /* posted by the thread */
	struct loop_timer timer;
	struct caller caller;
	char address[64];
	char authorization[PASSWORD_MAX];
	char user[64], password[PASSWORD_MAX];
	uint64_t begun;
	int result;
};

struct auth {
	struct daemon *d;
	auth_password_fn check;
	pthread_t threads[THREADS];
	unsigned thread_count;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	bool ending;         /* under the lock, like the next */
	struct list waiting; /* for a thread */
	struct list all;     /* those not waiting: running, or refused after a time */
	unsigned count;
	struct log_limit log;
};

/* --- answers --- */

static enum http_admission refuse(struct http_request *r, bool password, const char *words)
{
	struct http_header more[2] = { { "WWW-Authenticate",
					 "Basic realm=\"partita\", charset=\"UTF-8\"" } };
	struct error err = { 0 };

	error_set(&err, -EACCES, "%s", words);
	problem_answer(r, "not-authenticated", &err, NULL, password ? more : NULL);
	return HTTP_ANSWERED;
}

static struct identity *identity_of(struct http_request *r)
{
	if (!r->client->identity)
		r->client->identity = calloc(1, sizeof(struct identity));
	return r->client->identity;
}

void auth_identity_free(void *identity)
{
	explicit_bzero(identity, sizeof(struct identity));
	free(identity);
}

static enum http_admission admit(struct auth *a, struct http_request *r, struct identity *i)
{
	i->known = true;
	i->until = loop_now(a->d->loop) + KEEP_MS * MS;
	r->caller = &i->caller;
	return HTTP_ADMITTED;
}

/* --- certificates --- */

/* The user that a verified certificate names; false: there is none. */
static bool certificate_user(gnutls_session_t session, char *ret, size_t size)
{
	unsigned status, count = 0;
	size_t max = size;
	const gnutls_datum_t *list = gnutls_certificate_get_peers(session, &count);
	gnutls_x509_crt_t certificate;
	bool found;

	if (!list || !count || gnutls_certificate_verify_peers2(session, &status) < 0 || status)
		return false;
	if (gnutls_x509_crt_init(&certificate) < 0)
		return false;
	found = gnutls_x509_crt_import(certificate, &list[0], GNUTLS_X509_FMT_DER) >= 0 &&
		gnutls_x509_crt_get_dn_by_oid(certificate, GNUTLS_OID_X520_COMMON_NAME, 0, 0, ret,
					      &size) >= 0;
	gnutls_x509_crt_deinit(certificate);
	return found && size < max && strlen(ret) == size; /* no NUL in it */
}

static bool caller_of_user(const char *name, struct caller *ret)
{
	struct passwd buffer, *user = NULL;
	char text[4096];

	if (getpwnam_r(name, &buffer, text, sizeof(text), &user) || !user)
		return false;
	caller_from_uid(user->pw_uid, user->pw_gid, ret);
	return true;
}

/* --- passwords --- */

static bool hash_authorization(const struct identity *i, const char *text, uint8_t ret[HASH_SIZE])
{
	return gnutls_hmac_fast(GNUTLS_MAC_SHA256, i->salt, sizeof(i->salt), text, strlen(text),
				ret) >= 0;
}

/* Whether it is what was right before. */
static bool authorization_known(const struct identity *i, const char *text)
{
	uint8_t hash[HASH_SIZE];

	return i->known && hash_authorization(i, text, hash) &&
	       !gnutls_memcmp(hash, i->hash, sizeof(hash));
}

static void attempt_free(struct attempt *t)
{
	list_remove(&t->node);
	loop_timer_disarm(&t->timer);
	t->auth->count--;
	explicit_bzero(t, sizeof(*t));
	free(t);
}

/* In a thread. Without the right to ask PAM, partita-privd is asked to. */
static int password_ask(const struct auth *a, const struct attempt *t)
{
	struct error err = { 0 };
	int r;

	if (a->check)
		return a->check(t->user, t->password, t->address);
	if (!a->d->privd)
		return password_check(t->user, t->password, t->address);
	r = privd_ask_waiting(a->d->privd,
			      json_pack("{s:s,s:s,s:s,s:s}", "op", "password", "user", t->user,
					"password", t->password, "address", t->address),
			      PRIVD_MS, &err);
	if (r < 0 && r != -EACCES)
		log_line("a password cannot be checked: %s", err.message);
	return r;
}

static void *thread_main(void *p)
{
	struct auth *a = p;

	pthread_mutex_lock(&a->lock);
	while (!a->ending) {
		struct attempt *t;

		if (list_empty(&a->waiting)) {
			pthread_cond_wait(&a->wake, &a->lock);
			continue;
		}
		t = list_first(&a->waiting, struct attempt, node);
		list_remove(&t->node);
		list_append(&a->all, &t->node);
		pthread_mutex_unlock(&a->lock);
		t->result = password_ask(a, t);
		/* who he is may take a while too: names can come from elsewhere */
		if (!t->result && !caller_of_user(t->user, &t->caller))
			t->result = -EACCES;
		explicit_bzero(t->password, sizeof(t->password));
		loop_post(a->d->loop, &t->done);
		pthread_mutex_lock(&a->lock);
	}
	pthread_mutex_unlock(&a->lock);
	return NULL;
}

static void on_refuse_timer(struct loop_timer *timer)
{
	struct attempt *t = container_of(timer, struct attempt, timer);
	struct http_request *r = t->r;

	{
		LOCK_SCOPE(&t->auth->lock);
		attempt_free(t);
	}
	if (r)
		refuse(r, true, "the user's name or password is wrong");
}

static void log_refusal(struct auth *a, const struct attempt *t)
{
	unsigned dropped;

	if (log_allowed(&a->log, &dropped))
		log_line("a wrong name or password came from %s", t->address);
	event_add(a->d->events, SEVERITY_AUDIT, "login-refused", NULL, NULL,
		  json_pack("{s:s}", "address", t->address),
		  "Somebody at %s gave a wrong name or password", t->address);
}

static void on_done(struct loop_task *task)
{
	struct attempt *t = container_of(task, struct attempt, done);
	struct auth *a = t->auth;
	struct http_request *r = t->r;
	struct identity *i = r ? identity_of(r) : NULL;

	if (t->result < 0) {
		log_refusal(a, t);
		/* from the beginning: how long PAM took tells whether there is such a user */
		loop_timer_arm(&t->timer, MAX(t->begun + REFUSE_MS * MS, loop_now(a->d->loop)));
		return;
	}
	if (i && getrandom(i->salt, sizeof(i->salt), 0) == sizeof(i->salt) &&
	    hash_authorization(i, t->authorization, i->hash)) {
		i->caller = t->caller;
		i->by_password = true;
		admit(a, r, i);
		r->gone = NULL;
		http_admit(r);
	} else if (r) {
		refuse(r, true, "not enough memory to check the password");
	}
	LOCK_SCOPE(&a->lock);
	attempt_free(t);
}

static void on_gone(struct http_request *r)
{
	((struct attempt *)r->data)->r = NULL;
}

/* "Basic BASE64(user:password)" (RFC 7617). */
static bool basic_decode(const char *text, struct attempt *t)
{
	gnutls_datum_t in, out = { 0 };
	const char *colon;
	bool fine;

	if (strncasecmp(text, "Basic ", 6))
		return false;
	text += 6 + strspn(text + 6, " ");
	in = (gnutls_datum_t){ (unsigned char *)text, (unsigned)strlen(text) };
	if (!in.size || gnutls_base64_decode2(&in, &out) < 0)
		return false;
	colon = memchr(out.data, ':', out.size);
	fine = colon && !memchr(out.data, '\0', out.size) &&
	       (size_t)(colon - (char *)out.data) < sizeof(t->user) && colon != (char *)out.data;
	if (fine) {
		size_t n = (size_t)(colon - (char *)out.data);

		memcpy(t->user, out.data, n);
		memcpy(t->password, colon + 1, out.size - n - 1);
		fine = text_is_utf8(t->user);
	}
	explicit_bzero(out.data, out.size);
	gnutls_free(out.data);
	return fine;
}

static unsigned attempts_of(const struct auth *a, const struct list *list, const char *address)
{
	unsigned n = 0;

	(void)a;
	list_foreach(it, list) n += !strcmp(list_entry(it, struct attempt, node)->address, address);
	return n;
}

#define ATTEMPTS_PER_ADDRESS 4

/* With the first password: most services never see one. */
static bool threads_start(struct auth *a)
{
	while (a->thread_count < THREADS &&
	       !pthread_create(&a->threads[a->thread_count], NULL, thread_main, a))
		a->thread_count++;
	return a->thread_count > 0;
}

static enum http_admission attempt_begin(struct auth *a, struct http_request *r, const char *text)
{
	struct attempt *t = calloc(1, sizeof(*t));

	if (!t || !threads_start(a)) {
		free(t);
		return refuse(r, true, "not enough memory to check the password");
	}
	t->auth = a;
	snprintf(t->address, sizeof(t->address), "%s", r->client->address);
	if (strlen(text) >= sizeof(t->authorization) || !basic_decode(text, t)) {
		free(t);
		return refuse(r, true,
			      "Authorization must be \"Basic\" with a name and a password");
	}
	strcpy(t->authorization, text);
	loop_task_init(&t->done, on_done);
	loop_timer_init(a->d->loop, &t->timer, on_refuse_timer);
	LOCK_SCOPE(&a->lock);
	if (a->count >= WAITING_MAX ||
	    attempts_of(a, &a->waiting, t->address) + attempts_of(a, &a->all, t->address) >=
		    ATTEMPTS_PER_ADDRESS) {
		explicit_bzero(t, sizeof(*t));
		free(t);
		api_refuse(NULL, r, 429);
		return HTTP_ANSWERED;
	}
	t->begun = loop_now(a->d->loop);
	t->r = r;
	r->data = t;
	r->gone = on_gone;
	a->count++;
	list_append(&a->waiting, &t->node);
	pthread_cond_signal(&a->wake);
	return HTTP_LATER;
}

/* --- admitting --- */

static enum http_admission admit_local(struct auth *a, struct http_request *r, struct identity *i)
{
	caller_from_uid(r->client->uid, r->client->gid, &i->caller);
	return admit(a, r, i);
}

static enum http_admission admit_remote(struct auth *a, struct http_request *r, struct identity *i)
{
	const char *text = http_header(r, "Authorization");
	bool password = a->d->host.remote.password;
	char user[64];

	if (certificate_user(r->client->tls, user, sizeof(user))) {
		if (caller_of_user(user, &i->caller))
			return admit(a, r, i);
		return refuse(r, password, "the user in your certificate is unknown here");
	}
	if (text && password)
		return attempt_begin(a, r, text);
	if (password)
		return refuse(r, true, "give a user's name and password, or a client certificate");
	return refuse(r, false, "give a client certificate");
}

enum http_admission auth_admit(struct auth *a, struct http_request *r)
{
	struct identity *i = identity_of(r);
	const char *text = http_header(r, "Authorization");

	if (!i)
		return refuse(r, false, "not enough memory to see who you are");
	/* a name and a password go with each request; certificates and sockets do not change */
	if (i->known && loop_now(a->d->loop) < i->until &&
	    (!i->by_password || (text && authorization_known(i, text)))) {
		r->caller = &i->caller;
		return HTTP_ADMITTED;
	}
	explicit_bzero(i, sizeof(*i));
	return r->client->local ? admit_local(a, r, i) : admit_remote(a, r, i);
}

/* --- the whole --- */

int auth_new(struct daemon *d, auth_password_fn password, struct auth **ret, struct error *err)
{
	struct auth *a = calloc(1, sizeof(*a));

	if (!a)
		return error_errno(err, -ENOMEM, "cannot check who asks");
	a->d = d;
	a->check = password;
	pthread_mutex_init(&a->lock, NULL);
	pthread_cond_init(&a->wake, NULL);
	list_init(&a->waiting);
	list_init(&a->all);
	*ret = a;
	return 0;
}

static void attempts_free(struct auth *a, struct list *list)
{
	list_foreach_safe(it, list)
	{
		struct attempt *t = list_entry(it, struct attempt, node);

		loop_cancel(a->d->loop, &t->done);
		attempt_free(t);
	}
}

void auth_free(struct auth *a)
{
	if (!a)
		return;
	{
		LOCK_SCOPE(&a->lock);
		a->ending = true;
		pthread_cond_broadcast(&a->wake);
	}
	for (unsigned i = 0; i < a->thread_count; i++)
		pthread_join(a->threads[i], NULL);
	attempts_free(a, &a->waiting);
	attempts_free(a, &a->all);
	pthread_cond_destroy(&a->wake);
	pthread_mutex_destroy(&a->lock);
	free(a);
}
