/* tests/test_divide.c - a model's layers cut into parts for several devices (engine/divide.h).
 * Would catch: a number of devices that is taken though heads, tiles or blocks do not divide by it,
 * or refused though they do; a sentence that names other numbers than those that do; rows that no
 * device has, or two.
 */
#include "engine/divide.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* One behind the other, all of them, and about as many each. */
static void check_parts(const struct divide *d, const struct model *m, unsigned projection)
{
    const uint32_t all[ADAPTER_PROJECTION__N] = {
        [ADAPTER_Q] = m->n_head * m->head_dim,
        [ADAPTER_K] = m->n_head_kv * m->head_dim,
        [ADAPTER_V] = m->n_head_kv * m->head_dim,
        [ADAPTER_O] = m->n_head * m->head_dim,
        [ADAPTER_GATE] = m->n_ff,
        [ADAPTER_UP] = m->n_ff,
        [ADAPTER_DOWN] = m->n_ff,
    };
    uint32_t end = 0;

    for (uint32_t i = 0; i < d->n; i++) {
        struct divide_part part = divide_part(d, i, projection);

        assert_int_equal(part.first, end);
        assert_int_equal(part.n % 32, 0);
        assert_in_range(part.n, 1, all[projection] / d->n + 256);
        end += part.n;
    }
    assert_int_equal(end, all[projection]);
}

/* A model's shape with these types in its layers. */
static void check_shape(uint32_t n_head, uint32_t n_head_kv, uint32_t head_dim, uint32_t n_ff,
                        enum quant type, const char *counts)
{
    struct model_layer l = { .wo.type = type, .w_down.type = type };
    struct model m = { .n_layer = 1,
                       .n_head = n_head,
                       .n_head_kv = n_head_kv,
                       .head_dim = head_dim,
                       .n_ff = n_ff,
                       .layers = &l };
    char expected[64];

    (void)snprintf(expected, sizeof(expected), "expected %s: use so many, or --split-mode layer",
                   counts);
    for (uint32_t k = 2; k <= BACKEND_DEVICES_MAX; k++) {
        struct why why = { "" };
        struct divide d;
        char number[16];
        int e = divide_tensors(&m, k, &d, &why);

        (void)snprintf(number, sizeof(number), "%u", k);
        assert_int_equal(e, strstr(counts, number) ? 0 : -EINVAL);
        if (e < 0) {
            if (!strstr(why.text, expected))
                fail_msg("%u devices: %s", k, why.text);
            continue;
        }
        for (unsigned p = 0; p < ADAPTER_PROJECTION__N; p++)
            check_parts(&d, &m, p);
    }
}

static void what_divides(void **state)
{
    (void)state;
    check_shape(9, 3, 64, 1536, QUANT_Q8_0, "1 or 3");    /* SmolLM2-135M */
    check_shape(28, 4, 128, 18944, QUANT_Q4_K, "1 or 2"); /* Qwen2-7B: 7 x 128 is no block */
    check_shape(28, 4, 128, 18944, QUANT_Q8_0, "1, 2 or 4");
    check_shape(32, 8, 128, 14336, QUANT_Q4_K, "1, 2, 4 or 8"); /* Llama-3.1-8B */
    check_shape(32, 8, 128, 512, QUANT_Q4_K, "1 or 2");         /* two blocks of 256 */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_divides),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
