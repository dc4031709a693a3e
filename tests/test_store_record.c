/* tests/test_store_record.c - a record's header. Would catch: a field that does not come back as it
 * was put, an offset that is not the documented one, a header believed though a bit of it changed,
 * or though its numbers can't be while its checksum fits; budgets that forget, or never do.
 */
#include "store/budget.h"
#include "store/record.h"
#include "tests/support/file.h"

#include <ctype.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define TOKENS 40u
#define PAGES  3u

static uint32_t ids[STORE_TOKENS_MAX];
static struct store_hash sums[RECORD_PAGES_MAX];

static struct record example(void)
{
    struct record r = { .key = { .scope = "scope of a test",
                                 .owner = 1234,
                                 .before = { 0x0102030405060708, 0x1112131415161718 },
                                 .kind = STORE_RAW },
                        .own = { 0x2122232425262728, 0x3132333435363738 },
                        .n_tokens = TOKENS,
                        .n_keys = TOKENS,
                        .n_pages = PAGES,
                        .page_bytes = 8192,
                        .cost_ns = 0x4142434445464748,
                        .made_s = 0x5152535455565758,
                        .tail = true,
                        .ids = ids,
                        .sums = sums };

    for (uint32_t i = 0; i < STORE_TOKENS_MAX; i++)
        ids[i] = i * 2654435761u;
    for (uint32_t i = 0; i < RECORD_PAGES_MAX; i++)
        sums[i] = (struct store_hash){ i * UINT64_C(0x9e3779b97f4a7c15), ~(uint64_t)i };
    return r;
}

static void assert_same(const struct record *a, const struct record *b)
{
    assert_memory_equal(a->key.scope, b->key.scope, STORE_SCOPE_LEN);
    assert_int_equal(a->key.owner, b->key.owner);
    assert_int_equal(a->key.kind, b->key.kind);
    assert_true(sum_equal(a->key.before, b->key.before));
    assert_true(sum_equal(a->own, b->own));
    assert_int_equal(a->n_tokens, b->n_tokens);
    assert_int_equal(a->n_keys, b->n_keys);
    assert_int_equal(a->n_pages, b->n_pages);
    assert_int_equal(a->page_bytes, b->page_bytes);
    assert_int_equal(a->cost_ns, b->cost_ns);
    assert_int_equal(a->made_s, b->made_s);
    assert_int_equal(a->tail, b->tail);
    assert_memory_equal(a->ids, b->ids, a->n_tokens * sizeof(*ids));
    assert_memory_equal(a->sums, b->sums, a->n_pages * sizeof(*sums));
}

static void comes_back(void **state)
{
    static const uint32_t sizes[][2] = {
        { TOKENS, PAGES }, { 1, 1 },     { 16, 1 },
        { 17, 2 },         { 1024, 64 }, { STORE_TOKENS_MAX, STORE_TOKENS_MAX / 16 }
    };
    uint8_t *header = malloc(RECORD_HEADER_MAX);

    (void)state;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct record r = example(), back;
        const char *what = NULL;

        r.n_tokens = r.n_keys = sizes[i][0];
        r.n_pages = sizes[i][1];
        memset(header, 0xa5, RECORD_HEADER_MAX);
        record_encode(&r, header);
        assert_int_equal(record_claims(header), record_header_len(r.n_tokens, r.n_pages));
        assert_int_equal(record_decode(header, RECORD_HEADER_MAX, &back, &what), 0);
        assert_same(&r, &back);
        assert_int_equal(record_len(&back), record_header_len(r.n_tokens, r.n_pages) +
                                                (uint64_t)r.n_pages * r.page_bytes);
        /* One byte short of the header. */
        assert_int_equal(record_decode(header, record_claims(header) - 1, &back, &what), -EBADMSG);
    }
    assert_int_equal(record_header_len(STORE_TOKENS_MAX, RECORD_PAGES_MAX), RECORD_HEADER_MAX);
    free(header);
}

static void finds_each_flipped_bit(void **state)
{
    struct record r = example(), back;
    uint32_t len = record_header_len(TOKENS, PAGES);
    uint8_t *header = malloc(len);

    (void)state;
    record_encode(&r, header);
    for (uint32_t bit = 0; bit < len * 8; bit++) {
        const char *what = NULL;

        header[bit / 8] ^= (uint8_t)(1u << bit % 8);
        if (record_decode(header, len, &back, &what) != -EBADMSG || !what)
            fail_msg("bit %u may change", bit);
        header[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    assert_int_equal(record_decode(header, len, &back, &(const char *){ NULL }), 0);
    free(header);
}

/* --- headers that lie ------------------------------------------------------------------------- */

static void put_u32(uint8_t *header, uint32_t off, uint32_t value)
{
    memcpy(header + off, &value, sizeof(value));
}

static void sign(uint8_t *header, uint32_t len)
{
    struct store_hash sum = sum_two(header, 112, header + 128, len - 128);

    memcpy(header + 112, &sum, sizeof(sum));
}

/* The checksum is right: somebody wrote this, with numbers that can't be. */
static void refuses_what_can_not_be(void **state)
{
    static const struct {
        uint32_t off, value;
    } lies[] = { { 0, 0 },
                 { 8, 0 },
                 { 8, 2 },
                 { 12, 0 },
                 { 12, 8192 },
                 { 12, UINT32_MAX },
                 { 16, 0 },
                 { 16, 100 },
                 { 16, 4097 },
                 { 16, UINT32_MAX & ~4095u },
                 { 20, 2 },
                 { 20, UINT32_MAX },
                 { 28, 2 },
                 { 28, UINT32_MAX },
                 { 80, 0 },
                 { 80, STORE_TOKENS_MAX + 1 },
                 { 80, UINT32_MAX },
                 { 84, 0 },
                 { 84, UINT32_MAX },
                 { 88, 0 },
                 { 88, 2 },
                 { 88, 4 },
                 { 88, RECORD_PAGES_MAX + 1 },
                 { 88, UINT32_MAX },
                 { 92, 1 } };
    uint32_t len = record_header_len(TOKENS, PAGES);
    uint8_t *header = malloc(RECORD_HEADER_MAX);

    (void)state;
    for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
        struct record r = example(), back;
        const char *what = NULL;

        memset(header, 0, RECORD_HEADER_MAX);
        record_encode(&r, header);
        put_u32(header, lies[i].off, lies[i].value);
        sign(header, len);
        if (record_decode(header, RECORD_HEADER_MAX, &back, &what) != -EBADMSG || !what)
            fail_msg("offset %u may be %u", lies[i].off, lies[i].value);
    }
    /* Signing is right: without a lie it is believed. */
    put_u32(header, 92, 0);
    sign(header, len);
    assert_int_equal(record_decode(header, len, &(struct record){ 0 }, &(const char *){ NULL }), 0);
    free(header);
}

static void names_what_it_is_of(void **state)
{
    uint8_t secret[SUM_SECRET_LEN] = "a secret", other[SUM_SECRET_LEN] = "another";
    char name[8][RECORD_NAME];
    struct record r = example();

    (void)state;
    record_name(secret, &r.key, ids, TOKENS, name[0]);
    record_name(other, &r.key, ids, TOKENS, name[1]);
    record_name(secret, &r.key, ids, TOKENS - 1, name[2]);
    r.key.owner++;
    record_name(secret, &r.key, ids, TOKENS, name[3]);
    r = example();
    r.key.kind = STORE_PACKED;
    record_name(secret, &r.key, ids, TOKENS, name[4]);
    r = example();
    r.key.scope[0]++;
    record_name(secret, &r.key, ids, TOKENS, name[5]);
    r = example();
    r.key.before.hi++;
    record_name(secret, &r.key, ids, TOKENS, name[6]);
    ids[TOKENS - 1]++;
    r = example();
    ids[TOKENS - 1]++;
    record_name(secret, &r.key, ids, TOKENS, name[7]);
    for (int i = 0; i < 8; i++) {
        assert_int_equal(strspn(name[i], "0123456789abcdef"), 32);
        for (int k = 0; k < i; k++)
            assert_string_not_equal(name[i], name[k]);
    }
}

/* --- the page of documentation ---------------------------------------------------------------- */

/* Rows of docs/store.md: | offset | bytes | field | ... below a heading. */
static uint32_t offset_in_docs(const char *doc, const char *heading, const char *field)
{
    const char *at = strstr(doc, heading), *end;
    char cell[64];

    if (!at)
        return UINT32_MAX;
    end = strstr(at + 1, "\n## ");
    (void)snprintf(cell, sizeof(cell), "| %s |", field);
    for (const char *row = strstr(at, cell); row && (!end || row < end);
         row = strstr(row + 1, cell)) {
        const char *line = row;

        while (line > doc && line[-1] != '\n')
            line--;
        if (line[0] == '|')
            return (uint32_t)strtoul(line + 1, NULL, 10);
    }
    return UINT32_MAX;
}

/* What docs/store.md says, held against bytes that the code wrote. */
static void is_as_documented(void **state)
{
    static const struct {
        const char *field;
        uint32_t len;
        uint64_t value;
    } fields[] = { { "version", 4, 1 },
                   { "header_len", 4, 4096 },
                   { "page_bytes", 4, 8192 },
                   { "kind", 4, STORE_RAW },
                   { "owner", 4, 1234 },
                   { "flags", 4, 1 },
                   { "before", 8, 0x0102030405060708 },
                   { "own", 8, 0x2122232425262728 },
                   { "n_tokens", 4, TOKENS },
                   { "n_keys", 4, TOKENS },
                   { "n_pages", 4, PAGES },
                   { "cost_ns", 8, 0x4142434445464748 },
                   { "made_s", 8, 0x5152535455565758 } };
    struct record r = example();
    uint8_t *header = malloc(record_header_len(TOKENS, PAGES));
    char *doc = (char *)file_read("docs/store.md", &(size_t){ 0 });
    uint32_t off;

    (void)state;
    record_encode(&r, header);
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        uint64_t value = 0;

        off = offset_in_docs(doc, "## A record", fields[i].field);
        if (off > 128)
            fail_msg("docs/store.md has no row for %s", fields[i].field);
        memcpy(&value, header + off, fields[i].len);
        if (value != fields[i].value)
            fail_msg("docs/store.md has %s at %u", fields[i].field, off);
    }
    off = offset_in_docs(doc, "## A record", "scope");
    assert_memory_equal(header + off, r.key.scope, STORE_SCOPE_LEN);
    off = offset_in_docs(doc, "## A record", "ids");
    assert_memory_equal(header + off, ids, TOKENS * sizeof(*ids));
    assert_int_equal(offset_in_docs(doc, "## A record", "sum"), 112);
    assert_memory_equal(header, "gistd-kv", 8);
    free(header);
    free(doc);
}

/* --- what was written in 24 hours ------------------------------------------------------------- */

#define HOUR 3600u
#define NOON ((uint64_t)500000 * HOUR)

static void counts_a_day(void **state)
{
    struct budget b = { 0 };

    (void)state;
    budget_add(&b, NOON, 100);
    budget_add(&b, NOON + HOUR / 2, 10);
    budget_add(&b, NOON + 2 * HOUR, 1);
    assert_int_equal(budget_sum(&b, NOON + 2 * HOUR), 111);
    /* Any 24 hours: what was written at noon counts until noon of the next day, at least. */
    assert_int_equal(budget_sum(&b, NOON + 24 * HOUR), 111);
    assert_int_equal(budget_sum(&b, NOON + 25 * HOUR), 1);
    assert_int_equal(budget_sum(&b, NOON + 27 * HOUR), 0);
    budget_add(&b, NOON + 27 * HOUR, 5);
    assert_int_equal(budget_sum(&b, NOON + 1000 * HOUR), 0);
    /* A clock that was an hour, and one that was years ahead. */
    budget_add(&b, NOON + 1000 * HOUR, 7);
    assert_int_equal(budget_sum(&b, NOON + 999 * HOUR), 7);
    assert_int_equal(budget_sum(&b, NOON), 0);
}

static void counts_over_restarts(void **state)
{
    struct budget b = { 0 }, back;
    uint8_t file[BUDGET_FILE] = { 0 }, slot[BUDGET_SLOT];

    (void)state;
    assert_false(budget_load(&back, file));
    for (uint32_t i = 1; i <= 5; i++) {
        budget_add(&b, NOON + i * HOUR, i);
        memcpy(file + budget_save(&b, slot), slot, sizeof(slot));
        assert_true(budget_load(&back, file));
        assert_int_equal(budget_sum(&back, NOON + 5 * HOUR), i * (i + 1) / 2);
    }
    /* The newest slot was cut: the one before it counts. The other one too: nothing is believed. */
    file[(b.n_saved % 2) * BUDGET_SLOT + 30] ^= 1;
    assert_true(budget_load(&back, file));
    assert_int_equal(budget_sum(&back, NOON + 5 * HOUR), 10);
    file[((b.n_saved + 1) % 2) * BUDGET_SLOT + 200] ^= 1;
    assert_false(budget_load(&back, file));
    assert_int_equal(budget_sum(&back, NOON + 5 * HOUR), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(comes_back),
        cmocka_unit_test(finds_each_flipped_bit),
        cmocka_unit_test(refuses_what_can_not_be),
        cmocka_unit_test(names_what_it_is_of),
        cmocka_unit_test(is_as_documented),
        cmocka_unit_test(counts_a_day),
        cmocka_unit_test(counts_over_restarts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
