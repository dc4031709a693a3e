/* Everything that grows here is charged to an account before it is there (held_resize), so a
 * client's text can't be more than it may hold at any moment, its ids included. */
#include "daemon/encode.h"

#include <assert.h>
#include <string.h>

/* Makes room for `need` elements in an array that doubles. */
static int grow(struct held_account *a, void **array, size_t *cap, size_t need, size_t elem)
{
    size_t n = *cap ? *cap : 64, len = *cap * elem;
    int r;

    if (need <= *cap)
        return 0;
    while (n < need)
        n *= 2;
    r = held_resize(a, array, &len, n * elem);
    *cap = len / elem;
    return r;
}

static void drop(struct held_account *a, void *array, size_t cap, size_t elem)
{
    size_t len = cap * elem;

    if (array)
        (void)held_resize(a, &array, &len, 0);
}

int encode_text_reserve(struct encode_text *t, size_t n)
{
    void *p = t->s;
    int r = grow(t->account, &p, &t->cap, t->len + n, 1);

    t->s = p;
    return r;
}

/* bytes may be shared memory: copied once, and looked at only here. */
int encode_text_add(struct encode_text *t, const void *bytes, size_t n)
{
    int r = encode_text_reserve(t, n);

    if (r < 0)
        return r;
    if (n)
        memcpy(t->s + t->len, bytes, n);
    t->len += n;
    return 0;
}

/* The account stays with both: it is charged for bytes, not for who holds them. */
struct encode_text encode_text_take(struct encode_text *t)
{
    struct encode_text all = *t;

    *t = (struct encode_text){ .account = t->account };
    return all;
}

void encode_text_fini(struct encode_text *t)
{
    drop(t->account, t->s, t->cap, 1);
    *t = (struct encode_text){ .account = t->account };
}

int encode_init(struct encode *e, struct held_account *a, const struct vocab *v, size_t max_ids)
{
    *e = (struct encode){ .account = a, .text.account = a, .max_ids = max_ids };
    return vocab_encoder_new(v, &e->encoder);
}

/* Nothing is left to encode. */
static void drop_text(struct encode *e)
{
    encode_text_fini(&e->text);
    drop(e->account, e->pieces, e->cap_pieces, sizeof(*e->pieces));
    e->pieces = NULL;
    e->n_pieces = e->cap_pieces = e->piece = 0;
}

void encode_fini(struct encode *e)
{
    if (!e)
        return;
    vocab_encoder_free(e->encoder);
    drop_text(e);
    drop(e->account, e->ids, e->cap_ids, sizeof(*e->ids));
    *e = (struct encode){ .encoder = NULL };
}

/* Offsets, not pointers: the text moves when it grows. */
static int add_piece(struct encode *e, size_t off, size_t len, bool special)
{
    void *p = e->pieces;
    int r = grow(e->account, &p, &e->cap_pieces, e->n_pieces + 1, sizeof(*e->pieces));

    if (r < 0)
        return r;
    e->pieces = p;
    e->pieces[e->n_pieces++] = (struct encode_piece){ off, len, special };
    return 0;
}

int encode_add(struct encode *e, const void *bytes, size_t n, bool special)
{
    struct encode_piece *last = e->n_pieces ? &e->pieces[e->n_pieces - 1] : NULL;
    size_t off = e->text.len;
    int r = encode_text_add(&e->text, bytes, n);

    if (r < 0)
        return r;
    /* Two pieces may merge into one token where they meet. */
    if (last && !last->special && !special) {
        last->len += n;
        return 0;
    }
    return add_piece(e, off, n, special);
}

int encode_take_text(struct encode *e, struct encode_text *text, bool special)
{
    int r;

    encode_text_fini(&e->text);
    r = held_move(text->account, e->account, text->cap);
    if (r < 0)
        return r;
    e->text = encode_text_take(text);
    e->text.account = e->account;
    return add_piece(e, 0, e->text.len, special);
}

/* Room for n more ids, as far as they are kept at all. */
static int reserve_ids(struct encode *e, size_t n)
{
    void *p = e->ids;
    int r = grow(e->account, &p, &e->cap_ids, e->n_ids + n, sizeof(*e->ids));

    e->ids = p;
    return r;
}

/* Ids beyond max_ids are counted and not kept. */
int encode_ids(struct encode *e, const void *bytes, size_t n)
{
    size_t keep = e->max_ids - e->n_ids < n ? e->max_ids - e->n_ids : n;
    int r = reserve_ids(e, keep);

    if (r < 0)
        return r;
    if (keep)
        memcpy(e->ids + e->n_ids, bytes, keep * sizeof(*e->ids));
    e->n_ids += keep;
    e->n_total += n;
    return 0;
}

/* Capacities of texts are powers of two from 64 on: as many ids, nothing is lost. The same
 * allocation, so nothing is charged or copied. */
void encode_take_ids(struct encode *e, struct encode_text *bytes)
{
    struct encode_text all = encode_text_take(bytes);

    drop(e->account, e->ids, e->cap_ids, sizeof(*e->ids));
    e->ids = (uint32_t *)(void *)all.s;
    e->cap_ids = all.cap / sizeof(*e->ids);
    e->n_ids = e->n_total = all.len / sizeof(*e->ids);
    assert(e->n_ids <= e->max_ids && all.cap % sizeof(*e->ids) == 0);
}

int encode_id(struct encode *e, uint32_t id)
{
    return encode_ids(e, &id, 1);
}

/* The next slice of the current piece into ret (ENCODE_SLICE_IDS). 1: it has ended, 0: not yet. */
static int next_slice(struct encode *e, uint32_t *ret, size_t *ret_n)
{
    const struct encode_piece *p = &e->pieces[e->piece];

    if (!e->started)
        vocab_encoder_start(e->encoder, p->len ? e->text.s + p->off : "", p->len, p->special);
    e->started = true;
    return vocab_encoder_next(e->encoder, ret, ENCODE_SLICE_IDS, ret_n);
}

/* The slice lies on the stack, 4 KB, since the encoder writes more ids than may be kept. */
int encode_step(struct encode *e)
{
    uint32_t slice[ENCODE_SLICE_IDS];
    size_t n, n_bytes = 0;
    int ended, r;

    /* Pieces of a chat are short: go on until there is enough for one slice. */
    for (size_t done = 0; done < ENCODE_SLICE_IDS && n_bytes < VOCAB_SLICE_BYTES; done += n) {
        if (e->piece == e->n_pieces) {
            drop_text(e);
            return 1;
        }
        ended = next_slice(e, slice, &n);
        r = ended < 0 ? ended : encode_ids(e, slice, n);
        if (r < 0)
            return r;
        if (!ended)
            return 0;
        n_bytes += e->pieces[e->piece++].len;
        e->started = false;
    }
    return 0;
}
