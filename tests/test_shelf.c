/* tests/test_shelf.c - records in host memory. Would catch: pages of another record, owner or text;
 * slots that are lost, or that two records have; more memory than was asked for; a record that is
 * evicted before one that was not used for longer, or before what stands behind it, or while
 * somebody copies from it.
 *
 * Random steps are held to a model that is a list of records, and looks at all of them each time.
 */
#include "daemon/shelf.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define PAGE     4096u
#define L        64u /* tokens of a full segment: 4 pages */
#define TEXTS    5u
#define SEGMENTS 6u
#define OWNERS   2u
#define RECORDS  512u
#define STEPS    6000u
#define STAGE    12u

/* Of a record as the test knows it. What is in its pages tells which one it is. */
struct model_record {
    struct store_key key;
    struct store_hash own;
    uint32_t text, segment, n_tokens, n_pages, stamp;
    uint64_t id, used;
    unsigned pins;
    bool there;
};

struct world {
    struct shelf *s;
    struct model_record records[RECORDS];
    uint32_t n;
    uint64_t clock, seed, evicted;
    uint32_t keep_max;
};

static uint32_t below(struct world *w, uint32_t n)
{
    w->seed = w->seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(w->seed >> 33) % n;
}

/* Whose ids a segment of the text has. */
static uint32_t text_of(uint32_t text, uint32_t segment)
{
    return segment < 2 && text == 1 ? 0 : text;
}

/* Ids of a text's segment: texts 0 and 1 have the first two in common. */
static void ids_of(uint32_t text, uint32_t segment, uint32_t ids[L])
{
    for (uint32_t i = 0; i < L; i++)
        ids[i] = 1000 * text_of(text, segment) + 100 * segment + i;
}

/* No hash is needed to tell these apart. */
static struct store_hash hash_to(uint32_t text, uint32_t segment)
{
    if (segment == 0)
        return STORE_ROOT;
    return (struct store_hash){ 1 + (segment <= 2 && text == 1 ? 0 : text), segment };
}

static struct store_key key_of(uint32_t owner, uint32_t text, uint32_t segment,
                               enum store_kind kind)
{
    return (struct store_key){
        .scope = { 7 }, .owner = owner, .before = hash_to(text, segment), .kind = kind
    };
}

/* A record of the same key and of ids that begin as these. */
static bool same(const struct model_record *r, const struct store_key *key, uint32_t text,
                 uint32_t segment)
{
    return r->there && r->key.owner == key->owner && r->key.kind == key->kind &&
           r->segment == segment && r->text == text_of(text, segment);
}

/* --- the model -------------------------------------------------------------------------------- */

static struct model_record *model_find(struct world *w, const struct store_key *key, uint32_t text,
                                       uint32_t segment, uint32_t n_tokens)
{
    for (uint32_t i = 0; i < w->n; i++) {
        struct model_record *r = &w->records[i];

        if (same(r, key, text, segment) && r->n_tokens >= n_tokens &&
            (key->kind == STORE_RAW || r->n_tokens == n_tokens))
            return r;
    }
    return NULL;
}

static bool is_followed(const struct world *w, const struct model_record *r)
{
    for (uint32_t i = 0; i < w->n; i++) {
        const struct model_record *x = &w->records[i];

        if (x->there && x->key.owner == r->key.owner && x->key.kind == r->key.kind &&
            x->key.before.lo == r->own.lo && x->key.before.hi == r->own.hi && r->n_tokens == L)
            return true;
    }
    return false;
}

static uint32_t model_kept(const struct world *w)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < w->n; i++)
        n += w->records[i].there || w->records[i].pins ? w->records[i].n_pages : 0;
    return n;
}

/* The end that was not used for the longest; not what `key` follows. NULL: none. */
static struct model_record *model_victim(struct world *w, const struct store_key *key)
{
    struct model_record *best = NULL;

    for (uint32_t i = 0; i < w->n; i++) {
        struct model_record *x = &w->records[i];

        if (!x->there || x->pins || is_followed(w, x) ||
            (x->n_tokens == L && x->key.owner == key->owner && x->key.kind == key->kind &&
             x->own.lo == key->before.lo && x->own.hi == key->before.hi))
            continue;
        if (!best || x->used < best->used)
            best = x;
    }
    return best;
}

/* Shorter ends of it go, then others as long as it has no room. False: it has none, and its shorter
 * ends stay. */
static bool model_makes_room(struct world *w, const struct store_key *key, uint32_t text,
                             uint32_t segment, const struct store_record *r)
{
    bool gone[RECORDS] = { false };

    for (uint32_t i = 0; i < w->n; i++)
        if (same(&w->records[i], key, text, segment) && w->records[i].n_tokens < r->n_tokens) {
            gone[i] = w->records[i].there;
            w->records[i].there = false;
        }
    while (model_kept(w) + r->n_pages > w->keep_max) {
        struct model_record *victim = model_victim(w, key);

        if (!victim) {
            for (uint32_t i = 0; i < w->n; i++)
                w->records[i].there |= gone[i];
            return false;
        }
        victim->there = false;
        w->evicted++;
    }
    return true;
}

/* --- both ------------------------------------------------------------------------------------- */

static void paint(void *const *mem, uint32_t n, uint32_t stamp)
{
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t k = 0; k < PAGE / 4; k++)
            ((uint32_t *)mem[i])[k] = stamp * 64 + i;
}

static void expect_painted(void *const *mem, uint32_t n, uint32_t stamp)
{
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t k = 0; k < PAGE / 4; k += 255)
            assert_int_equal(((uint32_t *)mem[i])[k], stamp * 64 + i);
}

static void add(struct world *w)
{
    uint32_t text = below(w, TEXTS), segment = below(w, SEGMENTS), ids[L];
    enum store_kind kind = below(w, 3) ? STORE_RAW : STORE_PACKED;
    uint32_t n = kind == STORE_RAW && below(w, 3) == 0 ? 1 + below(w, L) : L;
    struct store_key key = key_of(below(w, OWNERS), text, segment, kind);
    struct store_record r = { .key = key,
                              .ids = ids,
                              .n_tokens = n,
                              .n_keys = kind == STORE_RAW ? n : 20,
                              .n_pages = kind == STORE_RAW ? (n + 15) / 16 : 2,
                              .page_bytes = PAGE,
                              .tail = n < L };
    struct store_hash own = n == L ? hash_to(text, segment + 1) : (struct store_hash){ 99, n };
    struct model_record *had = model_find(w, &key, text, segment, n);
    void *mem[L / 16];
    bool fits = true;
    uint64_t id;

    ids_of(text, segment, ids);
    assert_true(w->n < RECORDS);
    assert_true(shelf_take(w->s, r.n_pages, mem));
    paint(mem, r.n_pages, w->n);
    if (had)
        had->used = ++w->clock;
    else
        fits = model_makes_room(w, &key, text, segment, &r);
    id = shelf_add(w->s, &r, own, mem);
    if (had) {
        assert_int_equal(id, had->id);
    } else if (!fits) {
        assert_int_equal(id, 0);
        shelf_give(w->s, r.n_pages, mem);
    } else {
        assert_true(id != 0);
        w->records[w->n] = (struct model_record){ .key = key,
                                                  .own = own,
                                                  .text = text_of(text, segment),
                                                  .segment = segment,
                                                  .n_tokens = n,
                                                  .n_pages = r.n_pages,
                                                  .stamp = w->n,
                                                  .id = id,
                                                  .used = ++w->clock,
                                                  .there = true };
        w->n++;
    }
}

/* What is found is a record of these ids, with as many of them as any has. */
static void find(struct world *w)
{
    uint32_t text = below(w, TEXTS), segment = below(w, SEGMENTS), ids[L], n = 1 + below(w, L);
    enum store_kind kind = below(w, 2) ? STORE_RAW : STORE_PACKED;
    struct store_key key = key_of(below(w, OWNERS), text, segment, kind);
    struct store_found f;
    uint32_t most = 0;
    bool found;

    ids_of(text, segment, ids);
    for (uint32_t i = 0; i < w->n; i++) {
        const struct model_record *r = &w->records[i];
        uint32_t has = r->n_tokens <= n ? r->n_tokens : kind == STORE_PACKED ? 0 : n - n % 16;

        if (same(r, &key, text, segment) && has > most)
            most = has;
    }
    found = shelf_find(w->s, &key, ids, n, &f);
    assert_int_equal(found, most > 0);
    if (!found)
        return;
    assert_int_equal(f.n_tokens, most);
    assert_int_equal(f.n_keys, kind == STORE_RAW ? most : 20);
    assert_int_equal(f.n_pages, kind == STORE_RAW ? (most + 15) / 16 : 2);
}

/* Somebody copies from one; its pages are what was put there, also when it is found no more. */
static void pin_or_unpin(struct world *w)
{
    struct model_record *r = w->n ? &w->records[below(w, w->n)] : NULL;
    void *mem[L / 16];

    if (!r)
        return;
    if (r->pins && below(w, 2)) {
        shelf_unpin(w->s, r->id);
        r->pins--;
        return;
    }
    assert_int_equal(shelf_pin(w->s, r->id, r->n_pages, mem), r->there);
    if (!r->there)
        return;
    r->used = ++w->clock;
    r->pins++;
    expect_painted(mem, r->n_pages, r->stamp);
    if (below(w, 4)) { /* most let go at once */
        shelf_unpin(w->s, r->id);
        r->pins--;
    }
}

static void forget(struct world *w)
{
    uint32_t owner = below(w, OWNERS), n = 0;
    uint64_t records, bytes, pages = 0;

    for (uint32_t i = 0; i < w->n; i++) {
        struct model_record *r = &w->records[i];

        if (!r->there || r->key.owner != owner)
            continue;
        r->there = false;
        pages += r->n_pages;
        n++;
    }
    shelf_forget(w->s, owner, &records, &bytes);
    assert_int_equal(records, n);
    assert_int_equal(bytes, pages * PAGE);
}

static void expect_sums(const struct world *w)
{
    struct shelf_stats st;
    uint32_t n = 0;

    shelf_stats(w->s, &st);
    for (uint32_t i = 0; i < w->n; i++)
        n += w->records[i].there;
    assert_int_equal(st.records, n);
    assert_int_equal(st.n_kept, model_kept(w));
    assert_int_equal(st.n_free + st.n_kept, st.n_slots);
    assert_true(st.n_kept <= w->keep_max);
    assert_int_equal(st.bytes, (uint64_t)st.n_kept * PAGE);
    assert_int_equal(st.evicted, w->evicted);
}

static void open_world(struct world *w, uint64_t bytes, uint64_t seed)
{
    const struct shelf_options o = { .page_bytes = PAGE, .bytes = bytes, .n_stage = STAGE };
    struct shelf_stats st;
    size_t len;

    *w = (struct world){ .seed = seed };
    assert_int_equal(shelf_open(&o, &w->s), 0);
    shelf_stats(w->s, &st);
    (void)shelf_memory(w->s, &len);
    assert_true(len <= bytes && st.limit < len);
    w->keep_max = st.n_slots - STAGE;
}

static void random_steps(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 8; seed++) {
        struct world w;

        open_world(&w, (40 + 8 * seed) * 6000, seed);
        for (uint32_t i = 0; i < STEPS && w.n < RECORDS; i++) {
            uint32_t what = below(&w, 100);

            if (what < 40)
                add(&w);
            else if (what < 70)
                find(&w);
            else if (what < 99)
                pin_or_unpin(&w);
            else if (below(&w, 4) == 0)
                forget(&w);
            expect_sums(&w);
        }
        assert_true(w.evicted > 50);
        for (uint32_t i = 0; i < w.n; i++)
            for (; w.records[i].pins; w.records[i].pins--)
                shelf_unpin(w.s, w.records[i].id);
        shelf_close(w.s);
    }
}

/* --- single ones ------------------------------------------------------------------------------ */

/* The first n ids of a segment. */
static uint64_t put_first(struct world *w, uint32_t text, uint32_t segment, uint32_t owner,
                          uint32_t n)
{
    uint32_t ids[L], n_pages = (n + 15) / 16;
    struct store_record r = { .key = key_of(owner, text, segment, STORE_RAW),
                              .ids = ids,
                              .n_tokens = n,
                              .n_keys = n,
                              .n_pages = n_pages,
                              .page_bytes = PAGE,
                              .tail = n < L };
    struct store_hash own = n == L ? hash_to(text, segment + 1) : (struct store_hash){ 99, n };
    void *mem[L / 16];
    uint64_t id;

    ids_of(text, segment, ids);
    assert_true(shelf_take(w->s, n_pages, mem));
    paint(mem, n_pages, text * 16 + segment);
    id = shelf_add(w->s, &r, own, mem);
    if (id == 0)
        shelf_give(w->s, n_pages, mem);
    return id;
}

static uint64_t put(struct world *w, uint32_t text, uint32_t segment, uint32_t owner)
{
    return put_first(w, text, segment, owner, L);
}

/* The segment's first n ids are what is found of it, of user 1. */
static bool has(const struct world *w, uint32_t text, uint32_t segment, uint32_t n)
{
    struct store_key key = key_of(1, text, segment, STORE_RAW);
    struct store_found f;
    uint32_t ids[L];

    ids_of(text, segment, ids);
    return shelf_find(w->s, &key, ids, L, &f) && f.n_tokens == n;
}

/* All but three pages are pinned, and a shorter end has those: it stays where there is no room for
 * the longer one, and goes when there is. */
static void the_shorter_end_stays(void **state)
{
    uint32_t n = 0, left;
    void *mem[L / 16];
    uint64_t all, last = 0;
    struct world w;

    (void)state;
    open_world(&w, 36 * 6000, 1);
    for (left = w.keep_max; left >= 2 * (L / 16); left -= L / 16) {
        last = put(&w, 3, n++, 1);
        assert_true(shelf_pin(w.s, last, L / 16, mem));
    }
    all = put_first(&w, 4, 0, 1, 16 * (left - 3));
    assert_true(shelf_pin(w.s, all, left - 3, mem));
    assert_true(put_first(&w, 2, 0, 1, 44) != 0);
    assert_int_equal(put(&w, 2, 0, 1), 0);
    assert_true(has(&w, 2, 0, 44));
    shelf_unpin(w.s, last);
    assert_true(put(&w, 2, 0, 1) != 0);
    assert_true(has(&w, 2, 0, L));
    shelf_close(w.s);
}

/* Of a text that is too long the beginning stays; of an older one the end goes first. */
static void beginnings_stay(void **state)
{
    uint32_t n_fit;
    struct world w;

    (void)state;
    open_world(&w, 36 * 6000, 1);
    n_fit = w.keep_max / (L / 16);
    assert_in_range(n_fit, 5, 8);
    for (uint32_t k = 0; k < 3; k++)
        assert_true(put(&w, 2, k, 1) != 0);
    for (uint32_t k = 0; k < n_fit - 2; k++)
        assert_true(put(&w, 3, k, 1) != 0);
    assert_true(has(&w, 2, 0, L) && has(&w, 2, 1, L) && !has(&w, 2, 2, L));
    assert_true(put(&w, 3, n_fit - 2, 1) != 0 && put(&w, 3, n_fit - 1, 1) != 0);
    assert_false(has(&w, 2, 0, L) || has(&w, 2, 1, L));
    assert_int_equal(put(&w, 3, n_fit, 1), 0);
    for (uint32_t k = 0; k < n_fit; k++)
        assert_true(has(&w, 3, k, L));
    shelf_close(w.s);
}

/* What passes through has room, however full it is; where nothing is kept, all of it. */
static void always_room_to_pass(void **state)
{
    const struct shelf_options o = { .page_bytes = PAGE, .bytes = 20 * PAGE, .passes = true };
    const struct shelf_options small = { .page_bytes = PAGE, .bytes = PAGE };
    struct shelf_stats st;
    void *mem[STAGE + 1];
    struct world w;

    (void)state;
    open_world(&w, 36 * 6000, 1);
    for (uint32_t k = 0; k < 30; k++)
        (void)put(&w, k % TEXTS, k % SEGMENTS, 1);
    shelf_stats(w.s, &st);
    assert_true(st.n_kept + L / 16 > w.keep_max);
    assert_int_equal(shelf_longest(w.s), STAGE);
    assert_true(shelf_take(w.s, STAGE, mem));
    shelf_give(w.s, STAGE, mem);
    shelf_close(w.s);
    assert_int_equal(shelf_open(&o, &w.s), 0);
    assert_false(shelf_keeps(w.s));
    assert_int_equal(put(&w, 0, 0, 1), 0);
    assert_true(shelf_longest(w.s) >= 19);
    shelf_close(w.s);
    assert_int_equal(shelf_open(&small, &w.s), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_steps),
        cmocka_unit_test(beginnings_stay),
        cmocka_unit_test(the_shorter_end_stays),
        cmocka_unit_test(always_room_to_pass),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
