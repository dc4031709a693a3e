/* engine/file/packed.c - places of tensors in the arena, and the digests of its pieces. */
#include "engine/file/packed.h"

#include "engine/backend.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

static size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

struct packed_sum packed_hash(const void *bytes, size_t len)
{
    XXH128_canonical_t c;
    struct packed_sum s;

    /* Canonical: the same bytes on every machine. */
    _Static_assert(sizeof(c.digest) == sizeof(s.bytes), "a sum is a digest");
    XXH128_canonicalFromHash(&c, XXH3_128bits(bytes, len));
    memcpy(s.bytes, c.digest, sizeof(s.bytes));
    return s;
}

/* --- building --------------------------------------------------------------------------------- */

/* Each record has the digest of those before it, so the last one's is that of all, and none of them
 * has to be kept. */
struct record {
    struct packed_sum before;
    char name[64];
    uint32_t gguf_type, n_rows, n_cols, head_dim;
    uint64_t off, len;
};
_Static_assert(sizeof(struct record) == 112, "no padding: all of it is hashed");

/* The tensor becomes part of the layout's digest. The file's type number and not ours, which may
 * move. */
static void note(struct packed *a, const struct packed_item *item, size_t off, size_t len)
{
    struct record r = { .before = a->layout,
                        .gguf_type = quant_info(item->type)->gguf_type,
                        .n_rows = item->n_rows,
                        .n_cols = item->n_cols,
                        .head_dim = item->head_dim,
                        .off = off,
                        .len = len };

    (void)snprintf(r.name, sizeof(r.name), "%s", item->name);
    a->layout = packed_hash(&r, sizeof(r));
}

int packed_open(struct packed *a, uint32_t n_layer)
{
    static const char version[] = { 'a', 'r', 'e', 'n', 'a', ' ', '0' + PACKED_VERSION };

    *a = (struct packed){ .n_extents = 0 };
    a->extents = calloc((size_t)n_layer + PACKED_LAYERS, sizeof(*a->extents));
    if (!a->extents)
        return -ENOMEM;
    /* The first record is chained to this, so another version of tiles is another layout. */
    a->layout = packed_hash(version, sizeof(version));
    return 0;
}

void packed_close(struct packed *a)
{
    free(a->extents);
    *a = (struct packed){ .n_extents = 0 };
}

/* What lies behind the last tensor of an extent, up to its neighbour, belongs to nobody. Its sums
 * are numbered behind those of the extents before it. */
static void finish_extent(struct packed *a)
{
    struct packed_extent *e = &a->extents[a->n_extents - 1];

    e->n_sums = (uint32_t)((e->len + e->piece - 1) / e->piece);
    a->n_sums += e->n_sums;
    a->len = round_up(e->off + e->len, PACKED_ALIGN);
}

/* In order, each once, also one without bytes: an extent's number is its index. */
void packed_begin(struct packed *a, uint32_t extent, size_t piece)
{
    assert(extent == a->n_extents && piece > 0);
    if (extent > 0)
        finish_extent(a);
    a->extents[a->n_extents++] =
        (struct packed_extent){ .off = a->len, .piece = piece, .first_sum = a->n_sums };
}

/* Padding lies before a tensor, not behind it: an extent ends with its last byte that counts. */
size_t packed_add(struct packed *a, const struct packed_item *item, size_t len)
{
    struct packed_extent *e = &a->extents[a->n_extents - 1];
    size_t at = round_up(e->len, PACKED_ALIGN_ITEM);

    e->len = at + len;
    note(a, item, e->off + at, len);
    return e->off + at;
}

void packed_end(struct packed *a)
{
    finish_extent(a);
}

/* --- sums ------------------------------------------------------------------------------------- */

/* The last extent that begins at or before sum i. One without bytes has no sums, and the one behind
 * it begins at the same. */
static const struct packed_extent *extent_of(const struct packed *a, uint32_t i)
{
    uint32_t low = 0, high = a->n_extents;

    while (high - low > 1) {
        uint32_t mid = low + (high - low) / 2;

        if (a->extents[mid].first_sum <= i)
            low = mid;
        else
            high = mid;
    }
    return &a->extents[low];
}

void packed_piece(const struct packed *a, uint32_t i, size_t *ret_off, size_t *ret_len)
{
    const struct packed_extent *e = extent_of(a, i);
    size_t at = (size_t)(i - e->first_sum) * e->piece;

    assert(i < a->n_sums);
    *ret_off = e->off + at;
    *ret_len = e->len - at < e->piece ? e->len - at : e->piece;
}

struct sums {
    const struct packed *a;
    const uint8_t *base;
    uint32_t first;
    struct packed_sum *ret;        /* or */
    const struct packed_sum *want; /* all sums */
    atomic_bool bad;
};

/* A slice is a piece: the digests of one job are computed by all host threads. */
static void sum_piece(void *arg, uint32_t slice, uint32_t worker)
{
    struct sums *s = arg;
    struct packed_sum sum;
    size_t off, len;

    (void)worker;
    packed_piece(s->a, s->first + slice, &off, &len);
    sum = packed_hash(s->base + off, len);
    if (s->ret)
        s->ret[slice] = sum;
    else if (memcmp(&sum, &s->want[s->first + slice], sizeof(sum)) != 0)
        atomic_store_explicit(&s->bad, true, memory_order_relaxed);
}

void packed_sums(const struct packed *a, struct backend *b, const uint8_t *base, uint32_t first,
                 uint32_t n, struct packed_sum *ret)
{
    struct sums s = { .a = a, .base = base, .first = first, .ret = ret };

    backend_run(b, sum_piece, &s, n);
}

int packed_check(const struct packed *a, struct backend *b, const uint8_t *base, uint32_t first,
                 uint32_t n, const struct packed_sum *sums)
{
    struct sums s = { .a = a, .base = base, .first = first, .want = sums };

    backend_run(b, sum_piece, &s, n);
    /* The run's end has ordered it. */
    return atomic_load_explicit(&s.bad, memory_order_relaxed) ? -EBADMSG : 0;
}

/* So one digest in a header stands for all bytes of the arena. */
struct packed_sum packed_digest(const struct packed *a, const struct packed_sum *sums)
{
    return packed_hash(sums, a->n_sums * sizeof(*sums));
}
