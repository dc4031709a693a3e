/* daemon/names.h - what a saved session and a document are on disk: ids and a policy.
 *
 * Every state of a session can be rebuilt from its ids, so a name needs no more: pages come back by
 * content, from wherever they are (daemon/prefix.h, store/store.h), and the model reads the rest.
 *
 * Layout, in bytes, little-endian (asserted in names.c)
 *
 *     0     8         12      16                                  64            96
 *     +-----+---------+-------+-----------------------------------+-------------+-----------------+
 *     |magic| version | flags | numbers, 4 bytes each (see below) | model digest| adapter digest  |
 *     +-----+---------+-------+-----------------------------------+-------------+-----------------+
 *     128                  256            320     384        512
 *     +--------------------+--------------+-------+----------+
 *     | name of the model  | the adapter's| label | all zeros|
 *     +--------------------+--------------+-------+----------+
 *     512                  512 + 4 n_ids                  512 + 4 n_ids + 8 n_marks
 *     +--------------------+------------------------------+
 *     | ids                | marks: n_tokens, chat_at     |
 *     +--------------------+------------------------------+
 *
 *     numbers  compressor, ratio, sinks, keep_tail, budget (0: the context), segment, priority,
 *              chat_at, pending, n_ids, n_marks, hydrate, zeros
 *
 * Strings are UTF-8, of digests 32 hexadecimal digits; zeros behind them, none: all zeros. The
 * store has checked the bytes, but who wrote them may have been wrong, or another program: what is
 * read is checked like any stranger's.
 *
 * Versions   one that is not ours is refused, with a sentence.
 * Threads    any.
 * Ownership  a decoded one points into its bytes, and they are aligned like malloc's.
 * Errors     names_decode: -EBADMSG, -ENOTSUP (a version); names_policy: -EMEDIUMTYPE (another
 * model or adapter), -EINVAL (not possible here); why has the sentence. names_encode: -ENOMEM.
 */
#ifndef DAEMON_NAMES_H
#define DAEMON_NAMES_H

#include "daemon/policy.h"
#include "daemon/session.h"

#define NAMES_MAGIC   "gistname"
#define NAMES_VERSION 1u
#define NAMES_MAX     128u /* bytes of a name */

struct names_file {
    char model[128], model_digest[33];
    char adapter[ADAPTER_NAME_MAX + 1], adapter_digest[33]; /* empty: none */
    char label[SESSION_LABEL_MAX + 1];
    struct wire_memory memory; /* its adapter is ours */
    uint32_t segment;
    enum wire_priority priority;
    bool is_public, pin, has_pending;
    uint32_t pending;
    enum chat_at chat_at;
    const uint32_t *ids; /* (n_ids), without the pending one */
    uint32_t n_ids, n_marks;
    const struct session_mark *marks; /* ascending */
};

/* Why a name is none: 0, or -EINVAL with a sentence. */
int names_check(const char *name, struct why *why);

/* What there is to say of a policy, for this daemon's model. The rest of ret is zeros. */
void names_describe(const struct served *b, const struct policy *p, struct names_file *ret);
/* The other way: the policy that it had. */
int names_policy(const struct names_file *f, const struct served *b, struct policy *ret,
                 struct why *why);

/* *ret_bytes is malloc'ed. */
int names_encode(const struct names_file *f, void **ret_bytes, size_t *ret_len);
int names_decode(const void *bytes, size_t len, struct names_file *ret, struct why *why);

#endif
