/* All texts' ids lie in one array, and each text knows where its own begin and end: requests read
 * from there as they are, and a thousand short texts are no thousand arrays. */
#include "daemon/texts.h"

#include "daemon/sched.h"

#include <stdlib.h>

static void fail_empty(struct sched *s, struct request *r, const char *what, uint32_t i, uint32_t n)
{
    request_fail(s, r, WIRE_E_BAD_REQUEST, REQUEST_NO_NUMBERS,
                 "%s %u of %u is empty: there is nothing to read", what, i + 1, n);
}

/* The sum as it grows, since a hostile one may be past any number. */
static bool add_up(const struct request *r, const struct texts_said *said)
{
    uint64_t left = r->parts->len;

    for (uint32_t i = 0; i < said->n; i++) {
        if (said->lens[i] > left)
            return false;
        left -= said->lens[i];
    }
    return left == 0;
}

/* Before anything is kept: lengths are the peer's. */
bool texts_check(struct sched *s, struct request *r, const struct texts_said *said)
{
    if (said->n == 0) {
        request_fail(s, r, WIRE_E_BAD_REQUEST, REQUEST_NO_NUMBERS, "the request has no %s",
                     said->what);
        return false;
    }
    if (!add_up(r, said)) {
        request_fail(s, r, WIRE_E_BAD_REQUEST, REQUEST_NO_NUMBERS,
                     "the lengths of the %ss do not add up to the %zu bytes of data", said->what,
                     r->parts->len);
        return false;
    }
    for (uint32_t i = 0; i < said->n; i++) {
        if (said->lens[i] == 0) {
            fail_empty(s, r, said->what, i, said->n);
            return false;
        }
        if (said->kind == WIRE_SCORE_TOKENS && !request_whole_ids(s, r, said->lens[i]))
            return false;
    }
    return true;
}

int texts_start(struct sched *s, struct request *r, struct texts *t, const struct texts_said *said,
                const uint32_t *before)
{
    void *p = NULL;
    int e;

    *t = (struct texts){ .what = said->what,
                         .kind = said->kind,
                         .special = said->special,
                         .n = said->n,
                         .has_before = before != NULL,
                         .before = before ? *before : 0 };
    /* What the request holds from here on is charged to the account that the parts were. */
    t->bytes = encode_text_take(r->parts);
    e = encode_init(&t->encode, t->bytes.account, s->served.vocab, SIZE_MAX);
    if (e == 0)
        e = held_resize(t->bytes.account, &p, &t->list_len, t->n * sizeof(*t->list));
    t->list = p;
    for (uint32_t i = 0; e == 0 && i < t->n; i++)
        t->list[i] = (struct texts_one){ .len = said->lens[i] };
    return e;
}

/* Without what stands before each. */
uint32_t texts_count(const struct texts *t, uint32_t i)
{
    size_t n = t->list[i].end - t->list[i].first - t->has_before;

    return n < UINT32_MAX ? (uint32_t)n : UINT32_MAX;
}

/* The encoder takes one text at a time, so that no token reaches from one into the next. */
static int encode_next(struct texts *t)
{
    struct texts_one *x = &t->list[t->n_encoded];
    const char *bytes = t->bytes.s + t->off;
    int e = 0;

    x->first = t->encode.n_ids;
    if (t->has_before)
        e = encode_id(&t->encode, t->before);
    if (e == 0)
        e = t->kind == WIRE_SCORE_TOKENS ? encode_ids(&t->encode, bytes, x->len / 4)
                                         : encode_add(&t->encode, bytes, x->len, t->special);
    t->off += x->len;
    return e;
}

/* 1: all of them are ids. Many short texts, or a part of a long one. */
static int encode_slice(struct texts *t)
{
    size_t began = t->encode.n_ids;

    while (t->n_encoded < t->n && t->encode.n_ids - began < ENCODE_SLICE_IDS) {
        int e = t->encoding ? 0 : encode_next(t);

        t->encoding = true;
        if (e == 0)
            e = encode_step(&t->encode);
        if (e != 1)
            return e;
        t->encoding = false;
        t->list[t->n_encoded++].end = t->encode.n_ids;
    }
    return t->n_encoded == t->n;
}

/* A text may encode to nothing. */
static bool none_is_empty(struct sched *s, struct request *r, const struct texts *t)
{
    for (uint32_t i = 0; i < t->n; i++) {
        if (texts_count(t, i) > 0)
            continue;
        fail_empty(s, r, t->what, i, t->n);
        return false;
    }
    return true;
}

/* True: all are there, and known. False: there is more to do, or it was answered. */
bool texts_work(struct sched *s, struct request *r, struct texts *t)
{
    int e = t->n_encoded == t->n ? 1 : encode_slice(t);

    if (e < 0)
        request_fail_memory(s, r, e);
    if (e != 1)
        return false;
    /* Once: the text is not needed any more, and ids that a client sent are looked through. */
    if (!t->known) {
        t->known = true;
        encode_text_fini(&t->bytes);
        t->unknown = t->kind == WIRE_SCORE_TOKENS ? t->encode.n_ids : 0;
    }
    if (t->unknown > 0 && !request_known_slice(s, r, t->encode.ids, t->encode.n_ids, &t->unknown))
        return false;
    return none_is_empty(s, r, t);
}

void texts_fini(struct texts *t)
{
    void *p = t->list;

    if (!t->bytes.account)
        return;
    encode_fini(&t->encode);
    (void)held_resize(t->bytes.account, &p, &t->list_len, 0);
    t->list = NULL;
    encode_text_fini(&t->bytes);
}
