/* Catches: a layout that depends on the file's order of tensors, or one digest for two layouts; a
 * tensor outside its layer's extent, extents that overlap or begin inside a page; bytes that no sum
 * covers, or a changed byte that the sums don't find; sums that depend on how many threads made
 * them. */
#include "engine/backend.h"
#include "engine/file/gguf.h"
#include "engine/file/model.h"
#include "engine/file/packed.h"
#include "engine/file/tile.h"
#include "tests/support/gguf_build.h"
#include "tests/support/scratch.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Takes b. */
static struct model *load(struct gguf_build *b, struct backend *backend)
{
    char path[SCRATCH_PATH_MAX];
    struct why why = { "" };
    struct model *m;

    gguf_build_write(b, scratch_path(path, "model.gguf"));
    gguf_build_free(b);
    if (model_open(path, backend, NULL, &m, &why) != 0)
        fail_msg("%s", why.text);
    return m;
}

static struct model *load_shape(const struct gguf_build_shape *s)
{
    return load(gguf_build_model(s), NULL);
}

/* The tensor leaves its place in the file and stands at the end. */
static void move_to_end(struct gguf_build *b, const char *name)
{
    size_t len;
    uint8_t *bytes = gguf_build_bytes(b, &len, NULL);
    const struct gguf_tensor *t;
    struct gguf *g;
    enum quant type;

    assert_int_equal(gguf_open_mem(bytes, len, "mem", &g, NULL), 0);
    t = gguf_find_tensor(g, name);
    assert_non_null(t);
    assert_int_equal(quant_from_gguf(t->type, &type), 0);
    gguf_build_drop_tensor(b, name);
    gguf_build_tensor(b, name, type, t->n_dims, t->dims, bytes + t->off);
    gguf_close(g);
    free(bytes);
}

/* --- the layout ------------------------------------------------------------------------------- */

static void test_order_of_file(void **state)
{
    struct gguf_build_shape s = gguf_build_tiny();
    struct gguf_build *b = gguf_build_model(&s);
    struct model *one = load_shape(&s), *other;

    (void)state;
    move_to_end(b, "token_embd.weight");
    move_to_end(b, "blk.0.ffn_up.weight");
    move_to_end(b, "blk.0.attn_norm.weight");
    other = load(b, NULL);
    assert_string_not_equal(one->digest, other->digest); /* the files do differ */
    assert_memory_equal(&one->packed.layout, &other->packed.layout, sizeof(struct packed_sum));
    assert_int_equal(one->mem_len, other->mem_len);
    assert_memory_equal(one->mem, other->mem, one->mem_len);
    model_close(one);
    model_close(other);
}

/* Each shape differs from the first in one thing. */
static void test_layouts_differ(void **state)
{
    enum { N = 7 };
    struct gguf_build_shape s[N];
    struct packed_sum layouts[N];

    (void)state;
    for (unsigned i = 0; i < N; i++)
        s[i] = gguf_build_tiny();
    s[1].n_ff += 32;
    s[2].ffn = QUANT_Q8_0;
    s[3].tied = false;
    s[4].biases = true;
    s[5].n_layer++;
    s[6].arch = "qwen2"; /* rows of q and k in another order, all else alike */
    s[6].biases = true;
    for (unsigned i = 0; i < N; i++) {
        struct model *m = load_shape(&s[i]);

        layouts[i] = m->packed.layout;
        for (unsigned j = 0; j < i; j++)
            assert_memory_not_equal(&layouts[i], &layouts[j], sizeof(layouts[i]));
        model_close(m);
    }
}

static void assert_inside(const struct model *m, uint32_t extent, const void *p, size_t len)
{
    const struct packed_extent *e = &m->packed.extents[extent];
    const uint8_t *from = (const uint8_t *)m->mem + e->off;

    if (!p)
        return;
    assert_true((const uint8_t *)p >= from);
    assert_true((const uint8_t *)p + len <= from + e->len);
}

static void assert_matrix_inside(const struct model *m, uint32_t extent,
                                 const struct model_tensor *t)
{
    assert_inside(m, extent, t->data, tile_count(t->n_rows) * t->tile_len);
}

static void test_extents(void **state)
{
    struct gguf_build_shape s = gguf_build_tiny();
    struct model *m;

    (void)state;
    s.tied = false;
    s.rope_freqs = true;
    s.biases = true;
    m = load_shape(&s);
    assert_int_equal(m->packed.n_extents, PACKED_LAYERS + s.n_layer);
    for (uint32_t i = 0; i < m->packed.n_extents; i++) {
        const struct packed_extent *e = &m->packed.extents[i];
        size_t end = i + 1 < m->packed.n_extents ? e[1].off : m->packed.len;

        assert_int_equal(e->off % PACKED_ALIGN, 0);
        assert_true(e->len > 0 && e->off + e->len <= end && end - e->off - e->len < PACKED_ALIGN);
    }
    assert_inside(m, PACKED_VECTORS, m->output_norm, m->n_embd * sizeof(float));
    assert_matrix_inside(m, PACKED_EMBD, &m->embd);
    assert_matrix_inside(m, PACKED_OUTPUT, &m->output);
    assert_int_equal(m->packed.extents[PACKED_EMBD].piece, m->embd.tile_len);
    for (uint32_t i = 0; i < m->n_layer; i++) {
        const struct model_layer *l = &m->layers[i];
        const struct model_tensor *t[] = { &l->wq,     &l->wk,   &l->wv,    &l->wo,
                                           &l->w_gate, &l->w_up, &l->w_down };

        for (unsigned k = 0; k < sizeof(t) / sizeof(*t); k++)
            assert_matrix_inside(m, PACKED_LAYERS + i, t[k]);
        assert_inside(m, PACKED_LAYERS + i, l->attn_norm, m->n_embd * sizeof(float));
        assert_inside(m, PACKED_LAYERS + i, l->ffn_norm, m->n_embd * sizeof(float));
        assert_inside(m, PACKED_LAYERS + i, l->bq, (size_t)l->wq.n_rows * sizeof(float));
        assert_inside(m, PACKED_LAYERS + i, l->bk, (size_t)l->wk.n_rows * sizeof(float));
        assert_inside(m, PACKED_LAYERS + i, l->bv, (size_t)l->wv.n_rows * sizeof(float));
    }
    model_close(m);
}

/* --- sums ------------------------------------------------------------------------------------- */

/* Layers of more than one piece. */
static struct gguf_build_shape large(void)
{
    struct gguf_build_shape s = gguf_build_tiny();

    s.n_embd = 512;
    s.n_ff = 1024;
    s.n_head = 32;
    s.n_head_kv = 16;
    s.tied = false;
    return s;
}

/* Every byte of every extent belongs to one piece, in order. */
static void test_pieces(void **state)
{
    struct gguf_build_shape s = large();
    struct model *m = load_shape(&s);
    uint32_t i = 0;

    (void)state;
    for (uint32_t x = 0; x < m->packed.n_extents; x++) {
        const struct packed_extent *e = &m->packed.extents[x];

        assert_int_equal(e->first_sum, i);
        for (size_t at = 0; at < e->len; i++) {
            size_t off, len;

            packed_piece(&m->packed, i, &off, &len);
            assert_int_equal(off, e->off + at);
            assert_true(len > 0 && len <= PACKED_PIECE);
            at += len;
            assert_true(at <= e->len);
        }
    }
    assert_int_equal(i, m->packed.n_sums);
    assert_true(m->packed.extents[PACKED_LAYERS].n_sums > 1);
    model_close(m);
}

/* A bit of every piece: found by its own sum, and by no other. */
static void test_flips(void **state)
{
    struct gguf_build_shape s = large();
    struct model *m = load_shape(&s);
    const struct packed *a = &m->packed;
    struct packed_sum *sums = calloc(a->n_sums, sizeof(*sums));
    uint8_t *mem = m->mem;

    (void)state;
    packed_sums(a, NULL, mem, 0, a->n_sums, sums);
    assert_int_equal(packed_check(a, NULL, mem, 0, a->n_sums, sums), 0);
    for (uint32_t i = 0; i < a->n_sums; i++) {
        size_t off, len, at;

        packed_piece(a, i, &off, &len);
        at = off + (size_t)i * 7919 % len;
        mem[at] ^= (uint8_t)(1u << i % 8);
        assert_int_equal(packed_check(a, NULL, mem, i, 1, sums), -EBADMSG);
        if (i + 1 < a->n_sums)
            assert_int_equal(packed_check(a, NULL, mem, i + 1, 1, sums), 0);
        mem[at] ^= (uint8_t)(1u << i % 8);
    }
    assert_int_equal(packed_check(a, NULL, mem, 0, a->n_sums, sums), 0);
    free(sums);
    model_close(m);
}

static void test_threads(void **state)
{
    struct backend_options options = { .cpu = "scalar", .threads = 3, .max_rows = 4 };
    struct gguf_build_shape s = large();
    struct packed_sum *one, *by, digest;
    struct backend *b;
    struct model *m;

    (void)state;
    assert_int_equal(backend_open(&backend_cpu, &options, &b, NULL), 0);
    m = load(gguf_build_model(&s), b);
    one = calloc(m->packed.n_sums, sizeof(*one));
    by = calloc(m->packed.n_sums, sizeof(*by));
    packed_sums(&m->packed, NULL, m->mem, 0, m->packed.n_sums, one);
    packed_sums(&m->packed, b, m->mem, 0, m->packed.n_sums, by);
    assert_memory_equal(one, by, m->packed.n_sums * sizeof(*one));
    assert_int_equal(packed_check(&m->packed, b, m->mem, 0, m->packed.n_sums, one), 0);
    digest = packed_digest(&m->packed, one);
    by[m->packed.n_sums - 1].bytes[15] ^= 1;
    assert_int_equal(packed_check(&m->packed, b, m->mem, 0, m->packed.n_sums, by), -EBADMSG);
    by[0] = packed_digest(&m->packed, by);
    assert_memory_not_equal(&digest, &by[0], sizeof(digest));
    free(one);
    free(by);
    model_close(m);
    backend_close(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order_of_file), cmocka_unit_test(test_layouts_differ),
        cmocka_unit_test(test_extents),       cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_flips),         cmocka_unit_test(test_threads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
