/* tests/test_cuda_stage.c - copies with tickets, from and to pinned memory of the caller's. Would
 * catch: bytes that are others; a ticket that is done before its copy is, or the last of its
 * copies; a copy that does not see what was computed before it, or that the host may look at before
 * the device is done (races, to TSan); one that stops in between though the memory is pinned, or
 * waits for those before it; one that is wrong where the system pins no more memory.
 */
#include "cuda/rt.h"
#include "cuda/shim/shim.h"
#include "cuda/stage.h"
#include "tests/support/sanitized.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define PAGE  8192u
#define PAGES 40u /* more than there are slots */

struct world {
    struct rt *rt;
    struct stage *stage;
    uint8_t *in, *out; /* (PAGES, PAGE): of the host */
    uint8_t *dev, *other;
};

static void open_world(struct world *w, bool pin)
{
    struct why why = { "" };
    void *dev, *other;

    if (rt_open(0, &w->rt, &why) < 0)
        fail_msg("%s", why.text);
    assert_int_equal(stage_open(w->rt, RT_SPILL, -1, &w->stage), 0);
    w->in = aligned_alloc(4096, PAGES * PAGE);
    w->out = aligned_alloc(4096, PAGES * PAGE);
    assert_true(w->in && w->out);
    for (uint32_t i = 0; i < PAGES * PAGE; i++)
        w->in[i] = (uint8_t)(i * 7 + i / PAGE);
    memset(w->out, 0xee, PAGES * PAGE);
    assert_int_equal(rt_alloc(w->rt, PAGES * PAGE, &dev), 0);
    assert_int_equal(rt_alloc(w->rt, PAGES * PAGE, &other), 0);
    w->dev = dev;
    w->other = other;
    shim_set_pinned(pin ? SIZE_MAX : 0);
    assert_int_equal(rt_pin(w->rt, w->in, PAGES * PAGE), pin ? 0 : -ENOMEM);
    assert_int_equal(rt_pin(w->rt, w->out, PAGES * PAGE), pin ? 0 : -ENOMEM);
    assert_int_equal(rt_is_pinned(w->rt, w->in + PAGE, PAGE), pin);
    assert_false(rt_is_pinned(w->rt, w->in + PAGE, PAGES * PAGE));
}

static void close_world(struct world *w)
{
    stage_close(w->stage);
    rt_unpin(w->rt, w->in);
    rt_unpin(w->rt, w->out);
    rt_free(w->rt, w->dev);
    rt_free(w->rt, w->other);
    rt_close(w->rt);
    free(w->in);
    free(w->out);
}

static uint64_t put_all(struct world *w)
{
    uint64_t ticket = 0, before = 0;

    for (uint32_t i = 0; i < PAGES; i++) {
        assert_int_equal(stage_put(w->stage, w->dev + i * PAGE, w->in + i * PAGE, PAGE, &ticket),
                         0);
        assert_true(ticket > before);
        before = ticket;
    }
    return ticket;
}

/* Rings, and is done at one of the next looks. */
static void await(struct world *w, uint64_t ticket)
{
    struct pollfd bell = { .fd = stage_eventfd(w->stage), .events = POLLIN };
    int r;

    while ((r = stage_done(w->stage, ticket)) == 0)
        ;
    assert_int_equal(r, 1);
    assert_int_equal(poll(&bell, 1, 0), 1);
}

/* To the device, through what computes there, and back, page by page from the last one on. */
static void there_and_back(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        bool late = i & 1, pin = i & 2;
        struct world w;
        uint64_t ticket = 0, first = 0;

        open_world(&w, pin);
        shim_set_late(late);
        await(&w, put_all(&w));
        assert_int_equal(rt_copy(w.rt, RT_COMPUTE, w.other, w.dev, PAGES * PAGE), 0);
        for (uint32_t k = PAGES; k-- > 0;) {
            assert_int_equal(
                stage_get(w.stage, w.out + k * PAGE, w.other + k * PAGE, PAGE, &ticket), 0);
            first = first ? first : ticket;
        }
        await(&w, first);
        assert_memory_equal(w.out + (PAGES - 1) * PAGE, w.in + (PAGES - 1) * PAGE, PAGE);
        await(&w, ticket);
        assert_memory_equal(w.out, w.in, PAGES * PAGE);
        shim_set_late(false);
        close_world(&w);
    }
}

/* A put, what computes with it when it is done, and a get without a ticket, which waits. Copies of
 * both kinds of memory keep their order. */
static void in_order(void **state)
{
    struct world w;
    uint64_t ticket;
    uint8_t *own = malloc(PAGE);

    (void)state;
    assert_non_null(own);
    open_world(&w, true);
    shim_set_late(true);
    for (uint32_t round = 0; round < 3; round++) {
        memset(own, (int)round + 1, PAGE);
        assert_int_equal(stage_put(w.stage, w.dev, w.in, PAGE, &ticket), 0);
        assert_int_equal(stage_put(w.stage, w.dev, own, PAGE, &ticket), 0);
        assert_int_equal(stage_put(w.stage, w.dev + PAGE, w.in + PAGE, PAGE, &ticket), 0);
        await(&w, ticket);
        assert_int_equal(stage_get(w.stage, w.out, w.dev, 2 * PAGE, NULL), 0);
        assert_memory_equal(w.out, own, PAGE);
        assert_memory_equal(w.out + PAGE, w.in + PAGE, PAGE);
    }
    shim_set_late(false);
    close_world(&w);
    free(own);
}

/* Whoever changes the memory before the ticket is done changes what is copied: nothing is in
 * between. To TSan that is the race that it is. */
static void nothing_in_between(void **state)
{
    struct world w;
    uint64_t ticket;

    (void)state;
    if (SANITIZED)
        skip();
    open_world(&w, true);
    shim_set_late(true);
    ticket = put_all(&w);
    memset(w.in, 0x55,
           PAGES * PAGE); /* the last ones have not begun: who queued them did not wait */
    await(&w, ticket);
    assert_int_equal(stage_get(w.stage, w.out, w.dev, PAGES * PAGE, NULL), 0);
    assert_memory_equal(w.out + PAGES / 2 * PAGE, w.in, PAGES / 2 * PAGE);
    shim_set_late(false);
    close_world(&w);
}

/* Of several devices a ticket is the caller's, and has as many copies as it says: the ticket is not
 * done with those of them that are, and a stage that has none of it has nothing to wait for. */
static void a_ticket_of_many_copies(void **state)
{
    struct world w;
    uint64_t ticket;

    (void)state;
    open_world(&w, true);
    stage_ticket(w.stage, 5);
    for (uint32_t i = 0; i < PAGES; i++)
        assert_int_equal(stage_put(w.stage, w.dev + i * PAGE, w.in + i * PAGE, PAGE, &ticket), 0);
    shim_set_late(true); /* all before was done at once */
    assert_int_equal(stage_get(w.stage, w.out, w.dev, PAGES * PAGE, &ticket), 0);
    assert_int_equal(ticket, 5);
    assert_int_equal(stage_done(w.stage, 4), 1);
    assert_int_equal(stage_done(w.stage, 5), 0);
    await(&w, 5);
    assert_memory_equal(w.out, w.in, PAGES * PAGE);
    assert_int_equal(stage_done(w.stage, 6), 1);
    shim_set_late(false);
    close_world(&w);
}

/* A device that is lost: a ticket of that kind is never done, and says so. */
static void never_done(void **state)
{
    struct world w;
    uint64_t ticket;

    (void)state;
    open_world(&w, true);
    shim_set_late(true);
    ticket = put_all(&w);
    shim_set_lost(1);
    while (stage_done(w.stage, ticket) == 0)
        ;
    assert_int_equal(stage_done(w.stage, ticket), -EIO);
    shim_set_lost(0);
    shim_set_late(false);
    close_world(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(there_and_back),     cmocka_unit_test(in_order),
        cmocka_unit_test(nothing_in_between), cmocka_unit_test(a_ticket_of_many_copies),
        cmocka_unit_test(never_done),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
