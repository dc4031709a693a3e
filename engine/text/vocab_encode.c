#include "engine/text/vocab_inner.h"

#include "base/utf8.h"
#include "engine/text/normal.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SCAN_WINDOW (16u << 10) /* bytes of text that one look ahead takes in */
/* Normalised text: what was not cut into words yet, and what a look ahead adds to it. */
#define WINDOW_BYTES (BPE_MAX + NORMAL_MAX(SCAN_WINDOW + NORMAL_RUN_MAX + 16))

/* The text is read in two steps, one ahead of the other:
 *
 *     text    0 .............. taken ........ read ............ len
 *                              plain, not     looked at         not looked at yet
 *                              in `plain`     so far
 *     plain   .... pos ...................... scanned
 *             done: cut off   to be cut into
 *             and merged      words
 *
 * A stretch of plain text is well-formed UTF-8 without special tokens. It ends (`ended`) at a
 * special token, at a byte that is not UTF-8, or with the text. Words are looked for in no more
 * than BPE_MAX bytes: they are cut when so many lie ahead, or all that there will be.
 *
 * For most models `plain` is the text itself, and taken, pos and scanned are places in it. For one
 * with NFC it is `window`, which holds the normal form of what lies ahead and begins anew with each
 * look ahead; taken lags behind read by what may still join what follows. One step (encode_some)
 * looks ahead, cuts off one word or takes one break; its ids wait in e->ids until the caller has
 * room for them. So a call can stop after any step, and cap may be as small as 1. */
struct vocab_encoder {
    const struct vocab *v;
    struct pretok_scratch *pretok;
    struct bpe_scratch bpe;
    struct normal normal;
    const uint8_t *text, *plain;
    uint8_t *window; /* WINDOW_BYTES, while a text is encoded */
    size_t len, read, taken, pos, scanned;
    size_t work; /* bytes looked at and bytes cut off in this call */
    bool ended, parse_special;
    uint32_t *ids;                /* (cap_ids) of what was encoded last */
    size_t cap_ids, n_ids, at_id; /* ids[at_id..n_ids) were not given out yet */
    size_t lost;
};

/* The window and the ids are made when a text needs them. */
int vocab_encoder_new(const struct vocab *v, struct vocab_encoder **ret)
{
    struct vocab_encoder *e = calloc(1, sizeof(*e));

    if (!e)
        return -ENOMEM;
    e->v = v;
    if (pretok_scratch_new(v->pretok, &e->pretok) < 0) {
        vocab_encoder_free(e);
        return -ENOMEM;
    }
    *ret = e;
    return 0;
}

void vocab_encoder_free(struct vocab_encoder *e)
{
    if (!e)
        return;
    pretok_scratch_free(e->pretok);
    bpe_scratch_fini(&e->bpe);
    normal_fini(&e->normal);
    free(e->window);
    free(e->ids);
    free(e);
}

/* Borrows the text. An encoder may be started anew at any time; what was left of the last text is
 * dropped. */
void vocab_encoder_start(struct vocab_encoder *e, const void *text, size_t len, bool parse_special)
{
    e->text = e->plain = text;
    e->len = len;
    e->parse_special = parse_special;
    e->read = e->taken = e->pos = e->scanned = 0;
    e->ended = false;
    e->n_ids = e->at_id = 0;
    e->lost = 0;
}

size_t vocab_encoder_lost(const struct vocab_encoder *e)
{
    return e->lost;
}

/* The longest special token at p[0..n), or NONE. special_lens has the longest first, so the first
 * that is found is the longest. */
static uint32_t match_special(const struct vocab *v, const uint8_t *p, size_t n)
{
    uint32_t i, id;

    if (!v->special_first[p[0]])
        return VOCAB_NONE;
    for (i = 0; i < v->n_special_lens; i++) {
        if (v->special_lens[i] > n)
            continue;
        id = strmap_find(&v->special, p, v->special_lens[i]);
        if (id != VOCAB_NONE)
            return id;
    }
    return VOCAB_NONE;
}

/* The first place up to limit, or behind the character there, where plain text ends: a special
 * token, or what is not UTF-8. It looks past limit for a token or a character that begins before
 * it. */
static size_t plain_end(const struct vocab_encoder *e, size_t at, size_t limit)
{
    size_t len;

    for (; at < limit; at += len)
        if (match_special(e->v, e->text + at, e->len - at) != VOCAB_NONE ||
            utf8_check(e->text + at, e->len - at, &len) != UTF8_OK)
            break;
    return at;
}

/* Moves what lies ahead to the window's front, and puts the normal form of what was read behind it.
 *
 * Room for that is asserted: no more than BPE_MAX bytes lie ahead when more is looked at, and the
 * rest of WINDOW_BYTES is what one look can bring. */
static int fill_window(struct vocab_encoder *e)
{
    size_t left = e->scanned - e->pos, n_read, n;
    int r;

    if (!e->window)
        e->window = malloc(WINDOW_BYTES);
    if (!e->window)
        return -ENOMEM;
    memmove(e->window, e->window + e->pos, left);
    e->plain = e->window;
    e->pos = 0;
    e->scanned = left;
    r = normal_put(&e->normal, e->text + e->taken, e->read - e->taken, e->ended, e->window + left,
                   &n_read, &n);
    if (r < 0)
        return r;
    e->taken += n_read;
    e->scanned += n;
    assert(e->scanned <= WINDOW_BYTES);
    return 0;
}

/* Looks at more of the text. `ended` says why it stopped: at limit there may be more plain text,
 * anywhere else there is a break or the end. */
static int scan_plain(struct vocab_encoder *e)
{
    size_t at = e->read, limit, len;

    limit = e->len - at < SCAN_WINDOW ? e->len : at + SCAN_WINDOW;
    if (e->parse_special) {
        at = plain_end(e, at, limit);
    } else {
        at += utf8_span(e->text + at, limit - at);
        /* A character that goes on behind the window is taken whole. */
        if (at < limit && utf8_check(e->text + at, e->len - at, &len) == UTF8_OK &&
            at + len > limit)
            at += len;
    }
    e->ended = at < limit || at == e->len;
    e->work += at - e->read;
    e->read = at;
    if (e->v->nfc)
        return fill_window(e);
    e->taken = e->scanned = at;
    return 0;
}

/* Old ids are not kept: all of them were given out by then. */
static int reserve_ids(struct vocab_encoder *e, size_t n)
{
    uint32_t *ids;

    if (n <= e->cap_ids)
        return 0;
    n = n < 64 ? 64 : n;
    ids = malloc(n * sizeof(*ids));
    if (!ids)
        return -ENOMEM;
    free(e->ids);
    e->ids = ids;
    e->cap_ids = n;
    return 0;
}

static void give_id(struct vocab_encoder *e, uint32_t id)
{
    e->ids[0] = id;
    e->n_ids = 1;
}

/* What stands where plain text ended: a special token, or a byte that is not UTF-8. */
static void encode_break(struct vocab_encoder *e)
{
    const struct vocab *v = e->v;
    const uint8_t *p = e->text + e->read;
    uint32_t id = VOCAB_NONE;
    size_t len = 1;

    if (e->parse_special)
        id = match_special(v, p, e->len - e->read);
    if (id != VOCAB_NONE)
        len = v->tokens[id].len;
    else
        id = v->byte_id[*p];
    if (id != VOCAB_NONE)
        give_id(e, id);
    else
        e->lost++;
    e->work += len;
    e->read += len;
    e->taken = e->read;
    /* The window is empty; without one both are places in the text. */
    e->pos = e->scanned = v->nfc ? 0 : e->read;
    e->ended = false;
}

/* Merges the pre-token at pos. A word that is a token by itself needs no merges; most are. */
static int encode_word(struct vocab_encoder *e, size_t len)
{
    const uint8_t *p = e->plain + e->pos;
    uint32_t id = strmap_find(&e->v->normal, p, len);
    int r = 0;

    if (id != VOCAB_NONE && e->v->tokens[id].word) {
        give_id(e, id);
    } else {
        r = reserve_ids(e, len);
        if (r == 0)
            r = vocab_merge(e->v, &e->bpe, p, len, e->ids, &e->n_ids, &e->lost);
    }
    if (r < 0)
        return r;
    e->pos += len;
    e->work += len;
    return 0;
}

/* Cuts off the pre-token at pos. It is looked for in at most BPE_MAX bytes, whole characters: that
 * bounds the time and memory that a text of one letter can take. */
static int cut_word(struct vocab_encoder *e, size_t *ret_len)
{
    const uint8_t *p = e->plain + e->pos;
    size_t len = e->scanned - e->pos;

    if (len > BPE_MAX)
        for (len = BPE_MAX; (p[len] & 0xc0) == 0x80;)
            len--;
    return pretok_next(e->v->pretok, e->pretok, p, len, ret_len);
}

/* Encodes the next bit of text into ids, or looks further ahead. More is looked at while a word
 * could reach past what is known: only with more than BPE_MAX bytes ahead, or all there are, is the
 * next one sure to be whole. */
static int encode_some(struct vocab_encoder *e)
{
    size_t len;
    int r = reserve_ids(e, 1);

    if (r < 0)
        return r;
    e->n_ids = e->at_id = 0;
    if (e->pos == e->scanned && e->ended) {
        encode_break(e);
        return 0;
    }
    if (!e->ended && e->scanned - e->pos <= BPE_MAX)
        return scan_plain(e);
    r = cut_word(e, &len);
    return r < 0 ? r : encode_word(e, len);
}

static bool is_at_end(const struct vocab_encoder *e)
{
    return e->pos == e->scanned && e->read == e->len && e->at_id == e->n_ids;
}

/* `work` bounds a call by bytes looked at and cut off: a stretch that gives no ids (bytes that are
 * lost) takes time, too. */
int vocab_encoder_next(struct vocab_encoder *e, uint32_t *ids, size_t cap, size_t *ret_n)
{
    size_t n = 0;
    int r;

    e->work = 0;
    while (n < cap && !is_at_end(e)) {
        if (e->at_id < e->n_ids) {
            ids[n++] = e->ids[e->at_id++];
            continue;
        }
        if (e->work >= VOCAB_SLICE_BYTES)
            break;
        r = encode_some(e);
        if (r < 0)
            return r;
    }
    *ret_n = n;
    if (!is_at_end(e))
        return 0;
    free(e->window); /* an encoder may live long after its text */
    e->window = NULL;
    return 1;
}
