/* daemon/one_text.h - the texts of several documents, one behind the other, as one.
 *
 *     one_text_add ... one_text_add --> one_text_choose --> ids, policy
 *
 * Threads    the scheduler's.
 * Ownership  owns its ids, which are charged to the account.
 * Errors     one_text_add: -ENOMEM, -EDQUOT.
 */
#ifndef DAEMON_ONE_TEXT_H
#define DAEMON_ONE_TEXT_H

#include "daemon/held.h"
#include "daemon/policy.h"
#include "engine/text/chat.h"

struct vocab;

/* A document. */
struct one_part {
    const struct policy *policy;
    bool is_public;
    const uint32_t *ids; /* (n) */
    uint32_t n;
    enum chat_at chat_at; /* behind it */
};

/* All zero but for the account: none yet. */
struct one_text {
    struct held_account *account;
    uint32_t *ids; /* (n) */
    size_t ids_len;
    uint32_t n, n_parts;
    uint64_t n_together;   /* ids, if each part began a segment */
    struct policy policy;  /* of the first, or the first automatic one; then of the whole */
    bool same, may_be_one; /* all policies are equal; all are automatic, or keep their text whole */
    bool is_public;        /* all are */
    enum chat_at chat_at;  /* behind the last */
};

int one_text_add(struct one_text *t, const struct vocab *v, const struct one_part *p);
/* Whether the parts have to be one text, since they can't stand one behind the other as they were
 * read alone. said: the policy that was asked for; NULL: none. */
bool one_text_choose(struct one_text *t, const struct policy *said, const struct served *b);
void one_text_fini(struct one_text *t);

#endif
