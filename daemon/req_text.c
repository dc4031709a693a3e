/* daemon/req_text.c - Tokenize and Detokenize: no session, no model, only the vocabulary. */

#include "base/utf8.h"
#include "daemon/reply.h"
#include "daemon/sched.h"
#include "engine/text/detok.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* --- Tokenize --------------------------------------------------------------------------------- */

struct tokenize {
    struct encode encode;
    size_t n_sent;
};

/* The last of the ids, or none when only a part came. */
static void finish_tokens(struct sched *s, struct request *r)
{
    r->last = (struct wire_rep){ .kind = WIRE_TOKENS };
    request_finish(s, r);
}

static int tokenize_start(struct sched *s, struct request *r, const struct wire_req *m,
                          const uint8_t *bulk)
{
    struct tokenize *t;
    int e;

    if (!request_collect(s, r, bulk, m->bulk_len))
        return 0;
    if (m->u.tokenize.more) {
        finish_tokens(s, r);
        return 0;
    }
    t = calloc(1, sizeof(*t));
    r->state = t;
    e = t ? encode_init(&t->encode, &r->client->held, s->served.vocab, SIZE_MAX) : -ENOMEM;
    return e < 0 ? e : encode_take_text(&t->encode, r->parts, m->u.tokenize.special);
}

/* Whole slices until the end: a frame for each few ids would fill the ring. */
static int tokenize_flush(struct sched *s, struct request *r)
{
    struct tokenize *t = r->state;
    struct wire_rep rep = { .id = r->id, .kind = WIRE_TOKENS };
    size_t most = reply_bulk_max(r) / 2 / sizeof(uint32_t), n;
    int e;

    if (!t || r->last.kind == WIRE_ERROR)
        return 0;
    while ((n = t->encode.n_ids - t->n_sent) > 0) {
        if (n < ENCODE_SLICE_IDS && r->phase != REQUEST_LAST)
            break;
        if (n > most)
            n = most;
        rep.u.tokens.n = (uint32_t)n;
        rep.bulk_len = n * sizeof(uint32_t);
        e = reply_send(s, r, &rep, t->encode.ids + t->n_sent);
        if (e < 0)
            return e;
        t->n_sent += n;
    }
    return 0;
}

static bool tokenize_work(struct sched *s, struct request *r)
{
    struct tokenize *t = r->state;
    int e;

    /* A reader that is behind is not run further ahead of. Whether it still is shows when we send,
     * and only then is the daemon woken when there is room. */
    if (t->encode.n_ids - t->n_sent >= 64 * ENCODE_SLICE_IDS && tokenize_flush(s, r) < 0)
        return false;
    e = encode_step(&t->encode);
    if (e < 0)
        request_fail_memory(s, r, e);
    else if (e == 1)
        finish_tokens(s, r);
    return true;
}

static void tokenize_fini(struct request *r)
{
    struct tokenize *t = r->state;

    if (t)
        encode_fini(&t->encode);
    free(t);
}

/* --- Detokenize ------------------------------------------------------------------------------- */

#define DETOKENIZE_CHUNK 4096u /* bytes of text a reply, about */

struct detokenize {
    struct detok detok;
    char *text; /* decoded, not yet sent */
    size_t n_text, cap_text;
    struct encode_text bulk;
    const uint32_t *ids;    /* that lie in it */
    size_t n, done, n_sent; /* ids in all, decoded, told of */
    size_t unknown;         /* that may not be the vocabulary's: the last ones */
    bool ended;
};

/* The last of the text, or none when only a part of the ids came. */
static void finish_text(struct sched *s, struct request *r)
{
    r->last = (struct wire_rep){ .kind = WIRE_TEXT };
    r->last.u.text.text = "";
    request_finish(s, r);
}

static int detokenize_start(struct sched *s, struct request *r, const struct wire_req *m,
                            const uint8_t *bulk)
{
    struct encode_text *parts = r->parts;
    struct detokenize *d;

    if (!request_collect(s, r, bulk, m->bulk_len))
        return 0;
    if (m->u.detokenize.more) {
        finish_text(s, r);
        return 0;
    }
    if (!request_whole_ids(s, r, parts->len))
        return 0;
    d = calloc(1, sizeof(*d));
    r->state = d;
    if (!d)
        return -ENOMEM;
    /* The ids are read where they lie, and not copied once more. */
    d->bulk = encode_text_take(parts);
    d->n = d->bulk.len / sizeof(uint32_t);
    d->ids = (const uint32_t *)(const void *)d->bulk.s;
    d->cap_text = DETOKENIZE_CHUNK + 2 * DETOK_OUT_MAX(s->served.token_max);
    d->text = malloc(d->cap_text);
    if (!d->text)
        return -ENOMEM;
    d->unknown = d->n;
    return 0;
}

/* Decodes until a chunk is full or all is decoded. */
static void decode_chunk(struct sched *s, struct detokenize *d)
{
    const uint8_t *bytes;
    size_t len;

    while (d->done < d->n && d->n_text < DETOKENIZE_CHUNK) {
        bytes = vocab_bytes(s->served.vocab, d->ids[d->done++], &len);
        d->n_text += detok_push(&d->detok, bytes, len, d->text + d->n_text);
    }
    if (d->done == d->n && !d->ended) {
        d->n_text += detok_end(&d->detok, d->text + d->n_text);
        d->ended = true;
    }
}

/* n_sent goes with each chunk: how many ids its text came from, those of half a character
 * included. */
static int send_chunk(struct sched *s, struct request *r, struct detokenize *d)
{
    size_t n = d->n_text < REPLY_TEXT_MAX ? d->n_text : REPLY_TEXT_MAX;
    int e;

    n = utf8_whole(d->text, n, d->n_text);
    e = reply_text(s, r, d->text, n, NULL, 0, (uint32_t)(d->done - d->n_sent), NULL);
    if (e < 0)
        return e;
    memmove(d->text, d->text + n, d->n_text - n);
    d->n_text -= n;
    d->n_sent = d->done;
    return 0;
}

/* One chunk a step: a long list of ids must not stop the others. */
static bool detokenize_work(struct sched *s, struct request *r)
{
    struct detokenize *d = r->state;

    if (d->unknown > 0 && !request_known_slice(s, r, d->ids, d->n, &d->unknown))
        return true;
    if (d->n_text < DETOKENIZE_CHUNK)
        decode_chunk(s, d);
    if (d->n_text > 0 && send_chunk(s, r, d) < 0)
        return false;
    if (!d->ended || d->n_text > 0)
        return true;
    finish_text(s, r);
    return true;
}

static void detokenize_fini(struct request *r)
{
    struct detokenize *d = r->state;

    if (d) {
        encode_text_fini(&d->bulk);
        free(d->text);
    }
    free(d);
}

const struct request_ops request_tokenize = {
    .name = "tokenize",
    .takes_bulk = request_collects,
    .start = tokenize_start,
    .work = tokenize_work,
    .flush = tokenize_flush,
    .fini = tokenize_fini,
};
const struct request_ops request_detokenize = {
    .name = "detokenize",
    .takes_bulk = request_collects,
    .start = detokenize_start,
    .work = detokenize_work,
    .fini = detokenize_fini,
};
