#include "client/gist_value.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* Every sized struct begins with a size_t. One that has no more than that, or zero, was never
 * filled in. What the caller's struct lacks, being older, is 0 here: unset. */
int gist_copy_sized(void *dst, size_t dst_size, const void *src)
{
    const uint8_t *tail;
    size_t size;

    memset(dst, 0, dst_size);
    if (!src)
        return 0;
    memcpy(&size, src, sizeof(size));
    if (size <= sizeof(size))
        return -EINVAL;
    if (size <= dst_size) {
        memcpy(dst, src, size);
        return 0;
    }
    /* The caller is newer. Fields that we don't know must be unset. */
    tail = (const uint8_t *)src + dst_size;
    for (size_t i = 0; i < size - dst_size; i++)
        if (tail[i] != 0)
            return -EINVAL;
    memcpy(dst, src, dst_size);
    return 0;
}

/* What the caller's struct has beyond ours, being newer, is 0 for him. */
void gist_copy_out(void *dst, size_t dst_size, const void *src, size_t src_size)
{
    size_t n = dst_size < src_size ? dst_size : src_size;

    if (!dst)
        return;
    memcpy(dst, src, n);
    memset((uint8_t *)dst + n, 0, dst_size - n);
}

/* Up to a field that was the last of them once, and what the compiler puts behind it. */
#define UP_TO(type, field)                                                                         \
    (uint32_t)((offsetof(struct type, field) + sizeof(((struct type *)0)->field) +                 \
                _Alignof(struct type) - 1) /                                                       \
               _Alignof(struct type) * _Alignof(struct type))

/* usage is the last of all that has one, so that both may grow. */
#define WITH_USAGE(type)                                                                           \
    (uint32_t)(offsetof(struct type, usage) + UP_TO(gist_usage, accepted_tokens))

_Static_assert(sizeof(struct gist_result) ==
                   offsetof(struct gist_result, usage) + sizeof(struct gist_usage),
               "nothing behind usage");
_Static_assert(sizeof(struct gist_score) ==
                   offsetof(struct gist_score, usage) + sizeof(struct gist_usage),
               "nothing behind usage");
/* Made by the library, so that these may grow at their ends: by usage, then. */
_Static_assert(sizeof(struct gist_choices) ==
                   offsetof(struct gist_choices, usage) + sizeof(struct gist_usage),
               "nothing behind usage");
_Static_assert(sizeof(struct gist_embeddings) ==
                   offsetof(struct gist_embeddings, usage) + sizeof(struct gist_usage),
               "nothing behind usage");

/* This never changes: it is what programs were compiled with (tests/abi/gist.h). */
struct gist_sizes gist_first_sizes(void)
{
    return (struct gist_sizes){
        .size = sizeof(struct gist_sizes),
        .info = UP_TO(gist_info, chat),
        .usage = UP_TO(gist_usage, accepted_tokens),
        .result = WITH_USAGE(gist_result),
        .score = WITH_USAGE(gist_score),
        .stats = UP_TO(gist_stats, requests_waiting),
        .stats_client = UP_TO(gist_stats_client, name),
        .stats_session = UP_TO(gist_stats_session, uid),
        .stats_owner = UP_TO(gist_stats_owner, rows),
        .trace_row = UP_TO(gist_trace_row, accepted_tokens),
        .segments = UP_TO(gist_segments, at),
        .segment = UP_TO(gist_segment, stored),
        .cache_row = UP_TO(gist_cache_row, packed),
        .cache_sum = UP_TO(gist_cache_sum, total),
    };
}

_Static_assert(GIST_RATIOS == WIRE_RATIOS, "one list");

void gist_copy_usage(struct gist_usage *dst, const struct wire_usage *src)
{
    *dst = (struct gist_usage){ .prompt_tokens = src->prompt_tokens,
                                .computed_tokens = src->computed_tokens,
                                .generated_tokens = src->generated_tokens,
                                .prompt_ns = src->prompt_ns,
                                .first_token_ns = src->first_token_ns,
                                .generate_ns = src->generate_ns,
                                .raw_tokens = src->raw_tokens,
                                .gist_tokens = src->gist_tokens,
                                .gists = src->gists,
                                .shared_tokens = src->shared_tokens,
                                .restored_tokens = src->restored_tokens,
                                .approximate_tokens = src->approximate_tokens,
                                .hydrated_tokens = src->hydrated_tokens,
                                .hydrated_disk_tokens = src->hydrated_disk_tokens,
                                .recomputed_tokens = src->recomputed_tokens,
                                .missed_tokens = src->missed_tokens,
                                .ratio = src->ratio,
                                .drafted_tokens = src->drafted_tokens,
                                .accepted_tokens = src->accepted_tokens };
    for (int i = 0; i < GIST_RATIOS; i++)
        dst->at_ratio[i] = src->at_ratio[i];
}

/* Of a list that went as several requests: what the user waited for is the first one's. */
void gist_add_usage(struct gist_usage *dst, const struct gist_usage *src)
{
    dst->prompt_tokens += src->prompt_tokens;
    dst->computed_tokens += src->computed_tokens;
    dst->generated_tokens += src->generated_tokens;
    dst->prompt_ns += src->prompt_ns;
    if (dst->first_token_ns == 0)
        dst->first_token_ns = src->first_token_ns;
    dst->generate_ns += src->generate_ns;
    dst->raw_tokens += src->raw_tokens;
    dst->gist_tokens += src->gist_tokens;
    dst->gists += src->gists;
    dst->shared_tokens += src->shared_tokens;
    dst->restored_tokens += src->restored_tokens;
    dst->approximate_tokens += src->approximate_tokens;
    dst->hydrated_tokens += src->hydrated_tokens;
    dst->hydrated_disk_tokens += src->hydrated_disk_tokens;
    dst->recomputed_tokens += src->recomputed_tokens;
    dst->missed_tokens += src->missed_tokens;
    dst->ratio = src->ratio;
    dst->drafted_tokens += src->drafted_tokens;
    dst->accepted_tokens += src->accepted_tokens;
    for (int i = 0; i < GIST_RATIOS; i++)
        dst->at_ratio[i] += src->at_ratio[i];
}

static const struct {
    const char *name, *help;
} compressors[] = {
#define COMPRESSOR(number, ID, id, name, help) [number] = { name, help },
#include "base/compressors.def"
#undef COMPRESSOR
};
#define N_COMPRESSORS (sizeof(compressors) / sizeof(compressors[0]))

const char *gist_compressor_name(enum gist_compressor compressor)
{
    return (unsigned)compressor < N_COMPRESSORS ? compressors[compressor].name : NULL;
}

_Static_assert((int)GIST_END_OF_TEXT == (int)WIRE_REASON_END_OF_TEXT, "one list");
_Static_assert((int)GIST_STOP == (int)WIRE_REASON_STOP, "one list");
_Static_assert((int)GIST_LENGTH == (int)WIRE_REASON_LENGTH, "one list");
_Static_assert((int)GIST_CONTEXT_FULL == (int)WIRE_REASON_CONTEXT_FULL, "one list");
_Static_assert((int)GIST_POOL_FULL == (int)WIRE_REASON_POOL_FULL, "one list");

enum gist_reason gist_reason_of(enum wire_reason r)
{
    return r < WIRE_REASON__N ? (enum gist_reason)r : GIST_CUT;
}

const char *gist_reason_name(enum gist_reason reason)
{
    if (reason == GIST_CANCELLED)
        return "cancelled";
    if (reason == GIST_CUT)
        return "cut";
    return (unsigned)reason < WIRE_REASON__N ? wire_reason_name((enum wire_reason)reason) : NULL;
}

const char *gist_compressor_help(enum gist_compressor compressor)
{
    return (unsigned)compressor < N_COMPRESSORS ? compressors[compressor].help : NULL;
}

int gist_copy_memory(struct wire_memory *dst, const struct gist_memory *src)
{
    struct gist_memory m;
    int err = gist_copy_sized(&m, sizeof(m), src);

    if (err < 0 || !gist_compressor_name(m.compressor) ||
        m.flags & ~(GIST_LATE | GIST_FIXED | GIST_SET_RATIO | GIST_SET_SINKS | GIST_SET_BUDGET |
                    GIST_SET_HYDRATE | GIST_AUTO))
        return -EINVAL;
    *dst = (struct wire_memory){ .compressor = (enum wire_compressor)m.compressor,
                                 .has_ratio = m.ratio || m.flags & GIST_SET_RATIO,
                                 .ratio = m.ratio,
                                 .has_sinks = m.sinks || m.flags & GIST_SET_SINKS,
                                 .sinks = m.sinks,
                                 .keep_tail = m.keep_tail,
                                 .adapter = m.adapter,
                                 .has_budget = m.budget || m.flags & GIST_SET_BUDGET,
                                 .budget = m.budget,
                                 .has_hydrate = m.hydrate || m.flags & GIST_SET_HYDRATE,
                                 .hydrate = m.hydrate,
                                 .late = m.flags & GIST_LATE,
                                 .fixed = m.flags & GIST_FIXED,
                                 .automatic = m.flags & GIST_AUTO };
    return 0;
}

/* Doubling, and never past what can be counted in bytes. The limit leaves room for that doubling:
 * cap * elem never wraps. */
int gist_array_add(struct gist_array *a, const void *src, size_t n, size_t elem)
{
    size_t cap = a->cap ? a->cap : 256;
    void *mem;

    while (cap - a->n < n) {
        if (cap > SIZE_MAX / 4 / elem)
            return -ENOMEM;
        cap *= 2;
    }
    if (cap != a->cap) {
        mem = realloc(a->mem, cap * elem);
        if (!mem)
            return -ENOMEM;
        a->mem = mem;
        a->cap = cap;
    }
    if (n > 0)
        memcpy((uint8_t *)a->mem + a->n * elem, src, n * elem);
    a->n += n;
    return 0;
}

static const struct {
    enum gist_code code;
    int err;
} codes[] = {
    [WIRE_E_INTERNAL] = { GIST_E_INTERNAL, -EIO },
    [WIRE_E_BAD_REQUEST] = { GIST_E_BAD_REQUEST, -EINVAL },
    [WIRE_E_NOT_FOUND] = { GIST_E_NOT_FOUND, -ENOENT },
    [WIRE_E_BUSY] = { GIST_E_BUSY, -EBUSY },
    [WIRE_E_CONTEXT_LENGTH_EXCEEDED] = { GIST_E_CONTEXT_LENGTH_EXCEEDED, -E2BIG },
    [WIRE_E_POOL_FULL] = { GIST_E_POOL_FULL, -ENOSPC },
    [WIRE_E_LIMIT] = { GIST_E_LIMIT, -EDQUOT },
    [WIRE_E_CANCELLED] = { GIST_E_CANCELLED, -ECANCELED },
    [WIRE_E_UNSUPPORTED] = { GIST_E_UNSUPPORTED, -ENOTSUP },
    [WIRE_E_SHUTTING_DOWN] = { GIST_E_SHUTTING_DOWN, -ESHUTDOWN },
    [WIRE_E_NO_MEMORY] = { GIST_E_NO_MEMORY, -ENOMEM },
    [WIRE_E_NAME_EXISTS] = { GIST_E_NAME_EXISTS, -EEXIST },
    [WIRE_E_WRONG_MODEL] = { GIST_E_WRONG_MODEL, -EMEDIUMTYPE },
    [WIRE_E_STORAGE] = { GIST_E_STORAGE, -EROFS },
    [WIRE_E_DEADLINE] = { GIST_E_DEADLINE, -ETIMEDOUT },
};
_Static_assert(sizeof(codes) / sizeof(codes[0]) == WIRE_E__N, "a code without an errno");

/* wire_rep_unpack has seen that e is one of them. */
enum gist_code gist_code_of(enum wire_error e)
{
    return codes[e].code;
}

const char *gist_code_name(enum gist_code code)
{
    if (code == GIST_OK)
        return "ok";
    if (code == GIST_E_TRANSPORT)
        return "transport";
    for (size_t i = 0; i < WIRE_E__N; i++)
        if (codes[i].code == code)
            return wire_error_name((enum wire_error)i);
    return NULL;
}

int gist_errno_of(enum gist_code code)
{
    for (size_t i = 0; i < WIRE_E__N; i++)
        if (codes[i].code == code)
            return codes[i].err;
    return -EPIPE;
}
