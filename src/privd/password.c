// SPDX-License-Identifier: MIT
/*
 * A name and a password, asked of PAM as the service "partita" (/etc/pam.d/partita). It may ask for
 * a password once, without an echo; whatever else it asks for is not to be had here. The account is
 * checked as well: it may be locked or expired. PAM blocks: this runs in a thread or process of its
 * own.
 */
#include "privd/password.h"

#include <errno.h>
#include <security/pam_appl.h>
#include <stdlib.h>
#include <string.h>

/* PAM frees the answers, all of them. */
static void answers_free(struct pam_response *answers, int count)
{
	for (int i = 0; i < count; i++) {
		if (answers[i].resp)
			explicit_bzero(answers[i].resp, strlen(answers[i].resp));
		free(answers[i].resp);
	}
	free(answers);
}

static int converse(int count, const struct pam_message **messages, struct pam_response **ret,
		    void *password)
{
	struct pam_response *answers;

	if (count <= 0 || count > PAM_MAX_NUM_MSG)
		return PAM_CONV_ERR;
	answers = calloc((size_t)count, sizeof(*answers));
	if (!answers)
		return PAM_BUF_ERR;
	for (int i = 0; i < count; i++) {
		if (messages[i]->msg_style == PAM_PROMPT_ECHO_OFF)
			answers[i].resp = strdup(password);
		if (messages[i]->msg_style == PAM_PROMPT_ECHO_ON ||
		    (messages[i]->msg_style == PAM_PROMPT_ECHO_OFF && !answers[i].resp)) {
			answers_free(answers, count);
			return PAM_CONV_ERR;
		}
	}
	*ret = answers;
	return PAM_SUCCESS;
}

/* Whoever is refused waits on the loop, not in a thread. */
static void no_delay(int result, unsigned us, void *context)
{
	(void)result;
	(void)us;
	(void)context;
}

int password_check(const char *user, const char *password, const char *address)
{
	struct pam_conv conversation = { converse, (char *)password };
	union {
		void (*fn)(int, unsigned, void *);
		const void *item;
	} delay = { no_delay };
	pam_handle_t *pam;
	int r;

	if (pam_start("partita", user, &conversation, &pam) != PAM_SUCCESS)
		return -EACCES;
	pam_set_item(pam, PAM_FAIL_DELAY, delay.item);
	r = pam_set_item(pam, PAM_RHOST, address);
	if (r == PAM_SUCCESS)
		r = pam_authenticate(pam, PAM_SILENT | PAM_DISALLOW_NULL_AUTHTOK);
	if (r == PAM_SUCCESS)
		r = pam_acct_mgmt(pam, PAM_SILENT | PAM_DISALLOW_NULL_AUTHTOK);
	pam_end(pam, r);
	return r == PAM_SUCCESS ? 0 : -EACCES;
}
