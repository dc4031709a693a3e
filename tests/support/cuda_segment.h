/* tests/support/cuda_segment.h - what happens to a sequence's segment on the shim's devices: its
 * pages leave and come back, are copied, compressed.
 *
 * Inline, so that it is built as its test is: plain, for threads, for bounds. A failure ends the
 * test.
 */
#ifndef TESTS_SUPPORT_CUDA_SEGMENT_H
#define TESTS_SUPPORT_CUDA_SEGMENT_H

#include "engine/file/adapter.h"
#include "engine/kv/compress.h"
#include "tests/support/rig.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static inline uint8_t *cuda_segment_page(const struct rig *r, uint32_t page)
{
    return r->pool.mem + page * r->pool.page_bytes;
}

static inline void cuda_segment_await(struct backend *b, uint64_t ticket)
{
    struct pollfd bell = { .fd = b->ops->eventfd(b), .events = POLLIN };
    int r;

    while ((r = b->ops->done(b, ticket)) == 0)
        ;
    assert_int_equal(r, 1);
    assert_int_equal(poll(&bell, 1, 0), 1);
}

/* A raw segment's pages, out to pinned memory or to other, cleared, and in again: what stands there
 * then is what was. Returns that; free() it. */
static inline uint8_t *cuda_segment_spill(struct rig *r, struct seq *s, uint32_t segment,
                                          bool pinned)
{
    struct backend *b = r->backend;
    uint32_t n = s->seg_len / PAGE_TOKENS;
    size_t page = r->pool.page_bytes, len = n * page;
    const uint32_t *pages = seq_pages(s, segment);
    uint8_t *host = aligned_alloc(4096, len), *back = malloc(len);
    uint64_t ticket = 0, last = 0;

    assert_true(host && back);
    if (pinned)
        assert_int_equal(b->ops->pin(b, host, len), 0);
    for (uint32_t i = 0; i < n; i++) {
        assert_int_equal(
            b->ops->get(b, host + i * page, cuda_segment_page(r, pages[i]), page, &ticket), 0);
        assert_true(ticket > last);
        last = ticket;
    }
    cuda_segment_await(b, ticket);
    for (uint32_t i = 0; i < n; i++)
        assert_int_equal(backend_clear(b, cuda_segment_page(r, pages[i]), page), 0);
    for (uint32_t i = n; i-- > 0;)
        assert_int_equal(
            b->ops->put(b, cuda_segment_page(r, pages[i]), host + i * page, page, &ticket), 0);
    cuda_segment_await(b, ticket);
    for (uint32_t i = 0; i < n; i++)
        assert_int_equal(backend_get(b, back + i * page, cuda_segment_page(r, pages[i]), page), 0);
    assert_memory_equal(host, back, len);
    if (pinned)
        b->ops->unpin(b, host, len);
    free(back);
    return host;
}

/* What a copy of a page has; free() it. */
static inline uint8_t *cuda_segment_copy(struct rig *r, uint32_t page)
{
    uint8_t *ret = malloc(r->pool.page_bytes);
    struct pool_account account = { .limit = 1 };
    uint32_t spare;

    assert_non_null(ret);
    assert_int_equal(pool_take(&r->pool, &account, 1, &spare), 0);
    assert_int_equal(backend_copy_page(r->backend, &r->pool, page, spare), 0);
    assert_int_equal(backend_get(r->backend, ret, cuda_segment_page(r, spare), r->pool.page_bytes),
                     0);
    pool_give(&r->pool, &account, 1, &spare);
    return ret;
}

static inline void cuda_segment_pack(struct rig *r, struct compressor *c,
                                     const struct compress_spec *spec, struct seq *s,
                                     uint32_t segment)
{
    struct compress_side side = { .n_done = 0 };
    struct forward_run run;
    uint32_t n_out;
    int e;

    assert_int_equal(compress_check(spec, s->seg_len, NULL), 0);
    while (compress_rows_left(spec, s, segment, &side) > 0) {
        assert_int_equal(compress_plan(c, spec, s, segment, &side, r->max_batch, &run), 0);
        assert_int_equal(forward_step(&r->forward, &run, 1, NULL, &n_out), 0);
        compress_ran(&side, &run);
    }
    do
        e = compress_finish(c, spec, s, segment, &side);
    while (e == -EAGAIN);
    assert_int_equal(e, 0);
}

/* What an adapter's file says; adapter_close. */
static inline struct compress_spec cuda_segment_gists(const struct rig *r, const char *file,
                                                      struct adapter **ret)
{
    struct why why = { "" };

    if (adapter_open(file, r->model, ret, &why) < 0)
        fail_msg("%s", why.text);
    return (struct compress_spec){
        .method = compress_method_of(*ret), .ratio = 8, .sinks = (*ret)->sinks, .adapter = *ret
    };
}

#endif
