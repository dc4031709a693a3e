/* In order: form_take, form_make until it is ready, form_fits; then for each token form_find and
 * form_apply, or another token's work, form_may_go_on, form_push. `found` says that bits are those
 * of the next token. */
#include "daemon/form.h"

#include "daemon/client.h"
#include "daemon/sched.h"

#include <errno.h>

/* The text moves out of the parts: it is compiled when work() comes. */
void form_take(struct form *f, enum wire_grammar kind, struct encode_text *parts)
{
    f->kind = kind;
    if (kind)
        f->text = encode_text_take(parts);
}

/* Errors of grammars_get and grammars_ready. */
static void fail(struct sched *s, struct request *r, int e, const char *why)
{
    enum wire_error code = e == -ENOTSUP ? WIRE_E_UNSUPPORTED
                           : e == -E2BIG ? WIRE_E_LIMIT
                                         : WIRE_E_BAD_REQUEST;

    if (e == -ENOMEM || e == -EDQUOT)
        request_fail_memory(s, r, e);
    else
        request_fail(s, r, code, REQUEST_NO_NUMBERS, "%.300s", why);
}

/* Where in it the answer stands, and what may come next. One piece, charged to the client: bits,
 * one for each token of the vocabulary, lie behind the place. */
static int make_room(struct sched *s, struct request *r, struct form *f)
{
    size_t n_words = compiler_trie(s->grammars.compiler)->n_words;
    int e = held_resize(&r->client->held, &f->place, &f->place_len,
                        sizeof(*f->match) + n_words * sizeof(*f->bits));

    if (e < 0)
        return e;
    f->match = f->place;
    f->bits = (uint64_t *)(f->match + 1);
    match_start(f->match, f->entry->job.grammar);
    return 0;
}

/* The text is let go of as soon as the entry has a copy, which may be one that is shared. */
int form_make(struct sched *s, struct request *r, struct form *f)
{
    struct why why = { "" };
    int e = 0;

    if (!f->entry) {
        const struct grammars_ask ask = { r->client->uid, &r->client->held,
                                          f->kind,        f->text.s ? f->text.s : "",
                                          f->text.len,    r->session->memory.policy.realm };

        f->grammars = &s->grammars;
        e = grammars_get(&s->grammars, &ask, &f->entry);
        encode_text_fini(&f->text);
    }
    if (e == 0)
        e = grammars_ready(&s->grammars, f->entry, &r->client->held, &why);
    if (e == -EAGAIN)
        return e;
    if (e == 0)
        e = make_room(s, r, f);
    f->kind = WIRE_GRAMMAR_NONE; /* it is there */
    if (e < 0)
        fail(s, r, e, why.text);
    return e;
}

/* Asked before the first token: an answer that can't become whole is not begun. */
bool form_fits(struct sched *s, struct request *r, const struct form *f, struct form_limit limit)
{
    uint32_t needs = f->match ? match_left(f->match) : 0;
    struct request_numbers numbers = { 0, needs, limit.left };

    if (needs <= limit.left)
        return true;
    if (limit.window)
        request_fail(s, r, WIRE_E_CONTEXT_LENGTH_EXCEEDED, numbers,
                     "an answer by this grammar needs %u tokens to be whole; the session has room "
                     "for %u more",
                     needs, limit.left);
    else
        request_fail(s, r, WIRE_E_BAD_REQUEST, numbers,
                     "an answer by this grammar needs %u tokens to be whole; max_tokens is %u",
                     needs, limit.left);
    return false;
}

/* By the scheduler, or by the thread of masks during a step. An error waits until somebody asks
 * (form_may_go_on), which may fail the request. */
void form_find(struct form *f, struct form_limit limit)
{
    /* This one can come: logits are there, or will be. */
    uint32_t left = limit.left > 0 ? limit.left : 1;

    f->err = masks_of(f->grammars->masks, f->match, left, f->bits);
    f->found = true;
}

void form_apply(const struct form *f, float *logits, uint32_t n_vocab)
{
    masks_apply(f->bits, logits, n_vocab);
}

bool form_may_go_on(struct sched *s, struct request *r, struct form *f)
{
    int e = f->err;

    f->found = false;
    if (e == -ENODATA)
        request_fail(s, r, WIRE_E_UNSUPPORTED, REQUEST_NO_NUMBERS,
                     "this model has no token for what the grammar wants next");
    else if (e < 0)
        request_fail(s, r, WIRE_E_LIMIT, REQUEST_NO_NUMBERS, "%s", f->match->why);
    return e == 0;
}

/* The grammar moves on by the token's bytes. Masks let only those through that it takes, so a
 * failure is a limit of ways that are followed at once. */
bool form_push(struct sched *s, struct request *r, struct form *f, uint32_t id)
{
    static const uint8_t special[] = { TRIE_SPECIAL };
    size_t len, before = vocab_is_special(s->served.vocab, id);
    const uint8_t *bytes = vocab_bytes(s->served.vocab, id, &len);

    if (!f->match ||
        (match_push(f->match, special, before) == 0 && match_push(f->match, bytes, len) == 0))
        return true;
    request_fail(s, r, WIRE_E_LIMIT, REQUEST_NO_NUMBERS, "%s",
                 f->match->why ? f->match->why : "a token left the grammar");
    return false;
}

/* It may end here. */
bool form_whole(const struct form *f)
{
    return f->match && f->match->ends;
}

/* No way on: not even the end of the text need be sampled. */
bool form_over(const struct form *f)
{
    return f->match && f->match->n_ways == 0;
}

/* Half-made, too: what was not begun is NULL. */
void form_fini(struct form *f, struct request *r)
{
    if (f->text.account)
        encode_text_fini(&f->text);
    if (f->grammars)
        grammars_put(f->grammars, f->entry);
    (void)held_resize(&r->client->held, &f->place, &f->place_len, 0);
}
