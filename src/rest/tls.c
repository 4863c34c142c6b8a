// SPDX-License-Identifier: MIT
/*
 * See tls.h. A certificate of our own making is for the host's name, valid for ten years, and says
 * nothing that a client could trust: it compares the fingerprint, which GET /host and the log show
 * at the host. An administrator may put others' files in its place.
 *
 * The key is written first, so that a certificate is never there without one: a key alone is used
 * again.
 */
#include "rest/tls.h"
#include "lib/cleanup.h"
#include "lib/folder.h"
#include "lib/types.h"

#include <errno.h>
#include <fcntl.h>
#include <gnutls/crypto.h>
#include <gnutls/x509.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define PEM_MAX  (256 * KIB)
#define LIFETIME (10 * 365 * 86400)
#define BORN     1767225600 /* 2026-01-01: a clock that says less has not been set */

static void key_deinit_p(gnutls_x509_privkey_t *key)
{
	if (*key)
		gnutls_x509_privkey_deinit(*key);
}

static void crt_deinit_p(gnutls_x509_crt_t *crt)
{
	if (*crt)
		gnutls_x509_crt_deinit(*crt);
}

static void datum_free_p(gnutls_datum_t *d)
{
	gnutls_free(d->data);
}

static int fail(int code, const char *what, struct error *err)
{
	return error_set(err, -EINVAL, "%s: %s", what, gnutls_strerror(code));
}

/* --- files --- */

/* -ENOENT without words when it is not there. */
static int read_pem(const char *path, char **ret, struct error *err)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	_cleanup_free_ char *text = malloc(PEM_MAX + 1);
	size_t n = 0;
	ssize_t r;

	if (fd < 0 && errno == ENOENT)
		return -ENOENT;
	if (fd < 0 || !text)
		return error_errno(err, fd < 0 ? -errno : -ENOMEM, "cannot read \"%s\"", path);
	while (n < PEM_MAX && (r = read(fd, text + n, PEM_MAX - n)) != 0) {
		if (r < 0)
			return error_errno(err, -errno, "cannot read \"%s\"", path);
		n += (size_t)r;
	}
	text[n] = '\0';
	if (n == PEM_MAX || strlen(text) != n)
		return error_set(err, -EINVAL, "\"%s\" is no PEM file", path);
	*ret = steal_ptr(text);
	return 0;
}

static int write_all(int fd, const gnutls_datum_t *d)
{
	for (size_t n = 0; n < d->size;) {
		ssize_t r = write(fd, d->data + n, d->size - n);

		if (r < 0 && errno != EINTR)
			return -errno;
		n += r > 0 ? (size_t)r : 0;
	}
	return fsync(fd) < 0 ? -errno : 0;
}

/* Whole or not at all, also through a power cut. */
static int write_pem(const char *path, mode_t mode, const gnutls_datum_t *d, struct error *err)
{
	_cleanup_close_ int fd = -1;
	char temporary[PATH_MAX];
	int r;

	if (snprintf(temporary, sizeof(temporary), "%s.new", path) >= (int)sizeof(temporary))
		return error_set(err, -ENAMETOOLONG, "\"%s\" is too long", path);
	unlink(temporary);
	fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
	r = fd < 0 ? -errno : write_all(fd, d);
	if (r >= 0 && rename(temporary, path) < 0)
		r = -errno;
	if (r >= 0)
		r = folder_sync(path);
	if (r < 0) {
		unlink(temporary);
		return error_errno(err, r, "cannot write \"%s\"", path);
	}
	return 0;
}

/* --- making --- */

static int make_key(const char *path, struct error *err)
{
	_cleanup_(key_deinit_p) gnutls_x509_privkey_t key = NULL;
	_cleanup_(datum_free_p) gnutls_datum_t pem = { 0 };
	int r = gnutls_x509_privkey_init(&key);

	if (r >= 0)
		r = gnutls_x509_privkey_generate(
			key, GNUTLS_PK_ECDSA, GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0);
	if (r >= 0)
		r = gnutls_x509_privkey_export2(key, GNUTLS_X509_FMT_PEM, &pem);
	return r < 0 ? fail(r, "cannot make a key", err) : write_pem(path, 0600, &pem, err);
}

static int describe(gnutls_x509_crt_t crt, gnutls_x509_privkey_t key)
{
	char name[HOST_NAME_MAX + 1] = "localhost";
	uint8_t serial[16];
	int r;

	if (gethostname(name, sizeof(name) - 1) < 0 || !name[0] || strlen(name) > 63)
		strcpy(name, "localhost");
	r = gnutls_rnd(GNUTLS_RND_NONCE, serial, sizeof(serial));
	serial[0] = (serial[0] & 0x7f) | 1; /* positive */
	if (r >= 0)
		r = gnutls_x509_crt_set_version(crt, 3);
	if (r >= 0)
		r = gnutls_x509_crt_set_serial(crt, serial, sizeof(serial));
	if (r >= 0)
		r = gnutls_x509_crt_set_dn_by_oid(crt, GNUTLS_OID_X520_COMMON_NAME, 0, name,
						  (unsigned)strlen(name));
	if (r >= 0)
		r = gnutls_x509_crt_set_subject_alt_name(crt, GNUTLS_SAN_DNSNAME, name,
							 (unsigned)strlen(name), GNUTLS_FSAN_SET);
	if (r >= 0)
		r = gnutls_x509_crt_set_subject_alt_name(crt, GNUTLS_SAN_DNSNAME, "localhost", 9,
							 GNUTLS_FSAN_APPEND);
	if (r >= 0)
		r = gnutls_x509_crt_set_key_purpose_oid(crt, GNUTLS_KP_TLS_WWW_SERVER, 0);
	if (r >= 0)
		r = gnutls_x509_crt_set_key_usage(crt, GNUTLS_KEY_DIGITAL_SIGNATURE);
	if (r >= 0)
		r = gnutls_x509_crt_set_basic_constraints(crt, 0, -1);
	return r >= 0 ? gnutls_x509_crt_set_key(crt, key) : r;
}

static int make_certificate(const char *path, const char *key_pem, struct error *err)
{
	_cleanup_(key_deinit_p) gnutls_x509_privkey_t key = NULL;
	_cleanup_(crt_deinit_p) gnutls_x509_crt_t crt = NULL;
	_cleanup_(datum_free_p) gnutls_datum_t pem = { 0 };
	gnutls_datum_t in = { (unsigned char *)key_pem, (unsigned)strlen(key_pem) };
	time_t now = MAX(time(NULL), BORN);
	int r = gnutls_x509_privkey_init(&key);

	if (r >= 0)
		r = gnutls_x509_privkey_import(key, &in, GNUTLS_X509_FMT_PEM);
	if (r >= 0)
		r = gnutls_x509_crt_init(&crt);
	if (r >= 0)
		r = describe(crt, key);
	if (r >= 0) /* clocks differ, and ours may be set yet */
		r = gnutls_x509_crt_set_activation_time(crt, BORN);
	if (r >= 0)
		r = gnutls_x509_crt_set_expiration_time(crt, now + LIFETIME);
	if (r >= 0)
		r = gnutls_x509_crt_sign2(crt, crt, key, GNUTLS_DIG_SHA256, 0);
	if (r >= 0)
		r = gnutls_x509_crt_export2(crt, GNUTLS_X509_FMT_PEM, &pem);
	return r < 0 ? fail(r, "cannot make a certificate", err) : write_pem(path, 0644, &pem, err);
}

/* --- loading --- */

static int fingerprint(struct tls *tls, struct error *err)
{
	_cleanup_(crt_deinit_p) gnutls_x509_crt_t crt = NULL;
	gnutls_datum_t in = { (unsigned char *)tls->certificate,
			      (unsigned)strlen(tls->certificate) };
	uint8_t hash[32];
	size_t size = sizeof(hash);
	int r = gnutls_x509_crt_init(&crt);

	if (r >= 0)
		r = gnutls_x509_crt_import(crt, &in, GNUTLS_X509_FMT_PEM);
	if (r >= 0)
		r = gnutls_x509_crt_get_fingerprint(crt, GNUTLS_DIG_SHA256, hash, &size);
	if (r < 0)
		return fail(r, "the certificate is damaged", err);
	for (unsigned i = 0; i < sizeof(hash); i++)
		snprintf(tls->fingerprint + 3 * i, 4, "%02X%s", hash[i],
			 i + 1 < sizeof(hash) ? ":" : "");
	return 0;
}

static int load_key(const char *path, char **ret, bool made, struct error *err)
{
	int r = read_pem(path, ret, err);

	if (r == -ENOENT && !made) {
		r = make_key(path, err);
		return r < 0 ? r : load_key(path, ret, true, err);
	}
	return r;
}

int tls_load(const char *folder, const char *client_ca, struct tls *ret, struct error *err)
{
	char key[PATH_MAX], certificate[PATH_MAX];
	int r;

	*ret = (struct tls){ 0 };
	if (snprintf(key, sizeof(key), "%s/key.pem", folder) >= (int)sizeof(key) ||
	    snprintf(certificate, sizeof(certificate), "%s/certificate.pem", folder) >=
		    (int)sizeof(certificate))
		return error_set(err, -ENAMETOOLONG, "\"%s\" is too long", folder);
	if (mkdir(folder, 0700) < 0 && errno != EEXIST)
		return error_errno(err, -errno, "cannot make \"%s\"", folder);
	r = load_key(key, &ret->key, false, err);
	if (r >= 0)
		r = read_pem(certificate, &ret->certificate, err);
	if (r == -ENOENT && ret->key) {
		r = make_certificate(certificate, ret->key, err);
		if (r >= 0)
			r = read_pem(certificate, &ret->certificate, err);
	}
	if (r >= 0)
		r = fingerprint(ret, err);
	if (r >= 0 && client_ca) {
		r = read_pem(client_ca, &ret->client_ca, err);
		if (r == -ENOENT)
			error_set(err, r, "\"%s\" (remote.client_ca) does not exist", client_ca);
	}
	return r;
}

void tls_deinit(struct tls *tls)
{
	if (tls->key)
		explicit_bzero(tls->key, strlen(tls->key));
	free(tls->certificate);
	free(tls->key);
	free(tls->client_ca);
	*tls = (struct tls){ 0 };
}
