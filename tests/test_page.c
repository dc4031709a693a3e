/* tests/test_page.c - would catch: slots of a page that nobody has stored to and that hold what
 * another user's session left there: a page goes to the disk and to the host as a whole.
 */
#include "engine/backend.h"
#include "engine/cpu/kv.h"
#include "tests/support/rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define TOKENS 40u /* two pages, and a half of one */
#define L      64u

/* All that the slots from `first` on of a page have is zeros. */
static void expect_zeros(const struct pool *p, uint32_t page, uint32_t hd, uint32_t first)
{
    const uint8_t *at = p->mem + page * p->page_bytes;
    float k[KERNELS_HEAD_DIM_MAX], v[KERNELS_HEAD_DIM_MAX];

    for (uint32_t list = 0; list < p->n_layer * p->n_head_kv; list++)
        for (uint32_t slot = first; slot < POOL_PAGE_TOKENS; slot++) {
            uint32_t layer = list / p->n_head_kv, head = list % p->n_head_kv;

            kv_read(p->kv, at + pool_k_off(p, layer, head), at + pool_v_off(p, layer, head), hd,
                    slot, k, v);
            for (uint32_t i = 0; i < hd; i++)
                if (k[i] != 0 || v[i] != 0)
                    fail_msg("kv %d, list %u, slot %u: %g, %g", p->kv, list, slot, (double)k[i],
                             (double)v[i]);
        }
}

static void read_some(enum kv_type kv, uint32_t chunk)
{
    struct rig_opts opts = { .model = "tests/data/tiny_smollm2.gguf",
                             .cpu = "auto",
                             .kv = kv,
                             .threads = 2,
                             .max_batch = TOKENS,
                             .max_tokens = 512 };
    uint32_t ids[TOKENS];
    struct rig rig;
    struct seq s;
    struct why why;
    float *logits;

    assert_int_equal(rig_open(&rig, &opts, &why), 0);
    for (uint32_t i = 0; i < TOKENS; i++)
        ids[i] = 1 + i % 7;
    /* As if others had used all of it. */
    memset(rig.pool.mem, 0x3a, rig.pool.mem_len);
    logits = malloc((size_t)TOKENS * rig.model->n_vocab * sizeof(*logits));
    assert_int_equal(rig_seq(&rig, 256, L, 0, &s), 0);
    assert_int_equal(rig_feed(&rig, &s, ids, TOKENS, chunk, logits), 0);
    expect_zeros(&rig.pool, seq_pages(&s, 0)[TOKENS / POOL_PAGE_TOKENS], rig.model->head_dim,
                 TOKENS % POOL_PAGE_TOKENS);
    seq_close(&s);
    rig_close(&rig);
    free(logits);
}

/* All at once, one by one, and in runs that end anywhere in a page. */
static void read_pages_end_in_zeros(void **state)
{
    static const uint32_t chunks[] = { TOKENS, 1, 7, 16 };

    (void)state;
    for (enum kv_type kv = 0; kv < KV__N; kv++)
        for (size_t i = 0; i < sizeof(chunks) / sizeof(*chunks); i++)
            read_some(kv, chunks[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(read_pages_end_in_zeros) };

    if (rig_backend() != &backend_cpu) {
        puts("skipped: the pages are not this machine's memory");
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
