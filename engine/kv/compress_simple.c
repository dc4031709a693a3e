/* engine/kv/compress_simple.c - the two ends that others are measured by: all of it, nothing of it.
 */

#include "engine/kv/compress_ops.h"

static int check(const struct compress_spec *c, uint32_t seg_len, struct why *why)
{
    (void)
        seg_len; /* nor are ratio and sinks looked at, which a client may have left as they were */
    return compress_check_no_adapter(c, why);
}

static uint32_t no_keys(const struct compress_spec *c, uint32_t seg_len, uint32_t segment,
                        uint32_t thinned)
{
    (void)c, (void)seg_len, (void)segment, (void)thinned;
    return 0;
}

static uint32_t no_tokens(const struct compress_spec *c, uint32_t seg_len, uint32_t segment)
{
    return no_keys(c, seg_len, segment, 0);
}

/* A segment of no keys: nothing is moved, and all its pages go back. Positions close the gap. */
static int forget(const struct compress_work *w)
{
    return compress_keep(w, compress_list(w, false, 0), false, 0);
}

const struct compress_ops compress_full = { .keeps_all = true, .check = check };
const struct compress_ops compress_none = {
    .check = check, .n_keys = no_keys, .n_raw = no_tokens, .finish = forget
};
